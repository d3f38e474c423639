"""What users of the host who are not root can read of a node: as little as it takes."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.fix_node import Node

pytestmark = [
    pytest.mark.process,
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.skipif(os.geteuid() != 0, reason="other users can only be tried as root"),
]

# Tries each path that it is told, as whoever runs it; knowing a name is enough to try.
PROBE = """
import os, socket, sys
for path in sys.stdin.read().split("\\0"):
    try:
        if os.path.islink(path):
            continue
        if os.path.isdir(path):
            os.listdir(path)
        elif os.path.exists(path) and not os.path.isfile(path):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(2)
                probe.connect(path)
        else:
            open(path, "rb").read(1)
    except OSError:
        continue
    print(path)
"""
SERVICE_USER = "novacron-data"


def everything(node: Node) -> list[str]:
    """All paths of a node: of its state and of its sockets and keys."""
    tops = [node.state_dir, (node.state_dir / "run").readlink()]
    return [str(path) for top in tops for path in (top, *top.rglob("*"))]


def readable(paths: list[str], user: str, *, group: str = "nogroup") -> set[str]:
    """What a user with that one group can read, list or connect to."""
    command = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]
    done = subprocess.run(
        [*command, sys.executable, "-I", "-c", PROBE],
        input="\0".join(paths),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.splitlines())


def test_other_users_read_nothing(node: Node) -> None:
    """Nobody can read a file, list a directory or connect to a control socket."""
    found = readable(everything(node), "nobody")

    # A notify socket takes datagrams of whoever the kernel says is a child, and connects nobody.
    assert found == set()


def test_the_servers_account_reads_the_servers_files(node: Node) -> None:
    """PostgreSQL and Redis see their own directories; a hole in them opens nothing else."""
    run = (node.state_dir / "run").readlink()
    group = grp.getgrgid(pwd.getpwnam(SERVICE_USER).pw_gid).gr_name

    found = readable(everything(node), SERVICE_USER, group=group)

    own = [str(top / name) for top in (node.state_dir, run) for name in ("postgres", "pg", "redis")]
    assert any(path.endswith("PG_VERSION") for path in found)
    assert [path for path in found if not path.startswith(tuple(own))] == []


def test_members_of_the_group_read_no_secret(node: Node) -> None:
    """Operators see logs and speak to sockets; keys, the audit log and the data are root's."""
    found = {Path(path) for path in readable(everything(node), "nobody", group="novacron")}

    state = node.state_dir
    assert state / "logs" / "security.jsonl" in found
    closed = [state / name for name in ("security", "postgres", "redis")]
    assert [path for path in found if any(path.is_relative_to(top) for top in closed)] == []
    secret = [path for path in found if path.suffix == ".secret"]
    assert secret == []
