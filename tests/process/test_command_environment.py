"""What the program of a command finds around it: descriptors, signals, environment, secrets."""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.readiness import EXEC, NOTIFY, Readiness, parse
from tests.process.command_tree import CommandTree, command, open_directory

pytestmark = [pytest.mark.process, pytest.mark.usefixtures("no_process_left")]

# Prints what it sees as one line of JSON, then lives on.
LOOK = """
import json, os, sys, time
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
open_now = [int(name) for name in os.listdir("/proc/self/fd")]
secrets = os.environ.get("CREDENTIALS_DIRECTORY", "")
print(json.dumps({
    "fds": sorted(fd for fd in open_now if os.path.exists(f"/proc/self/fd/{fd}")),
    "stdin": os.readlink("/proc/self/fd/0"),
    "ignored": status["SigIgn"], "blocked": status["SigBlk"],
    "no_new_privileges": status["NoNewPrivs"], "user": os.getuid(), "groups": os.getgroups(),
    "capabilities": [status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")],
    "directory": os.getcwd(), "umask": os.umask(0), "environment": dict(os.environ),
    "argv": open("/proc/self/cmdline").read().split("\\0"), "session": os.getsid(0) == os.getpid(),
    "modes": {n: oct(os.stat(f"{secrets}/{n}").st_mode) for n in os.listdir(secrets or "/dev/fd")}
        if secrets else {},
    "secrets": {n: open(f"{secrets}/{n}").read() for n in os.listdir(secrets)} if secrets else {},
    "directory_mode": oct(os.stat(secrets).st_mode) if secrets else "",
}), flush=True)
if "NOTIFY_SOCKET" in os.environ:
    import socket
    said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    said.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
"""
PYTHON = (os.path.realpath(sys.executable), "-S", "-E", "-c", LOOK)
# SIGPIPE and SIGXFSZ, which the interpreter that looks ignores itself.
PYTHON_IGNORES = 1 << 12 | 1 << 24
# glibc's own, which nobody can set: whoever started the tests may have left them ignored.
INTERNAL = 1 << 31 | 1 << 32
SECRET = "correct horse battery staple"


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place that any account may look into."""
    with open_directory() as directory:
        yield directory


def _look(directory: Path, *, readiness: Readiness, **fields: Any) -> dict[str, Any]:
    child = command("looker", *PYTHON, readiness=readiness, **fields)
    with CommandTree(directory, child) as tree:
        tree.until_up("looker")
        return dict(json.loads(tree.log("looker")))


@pytest.mark.parametrize("user", ["", "nobody"])
def test_a_program_finds_a_plain_world(directory: Path, user: str) -> None:
    """Three descriptors, no signal blocked or ignored, ``/``, 022, PATH and LANG: no more."""
    if user and os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    seen = _look(directory, readiness=parse("log:^{"), user=user)
    assert seen["fds"] == [0, 1, 2]
    assert seen["stdin"] == os.devnull
    assert int(seen["ignored"], 16) & ~INTERNAL == PYTHON_IGNORES
    assert int(seen["blocked"], 16) == 0
    assert seen["no_new_privileges"] == "1"
    assert seen["directory"] == "/"
    assert seen["umask"] == 0o022
    assert seen["session"]
    environment = seen["environment"]
    environment.pop("LC_CTYPE", None)  # Python's own
    assert set(environment) == {"PATH", "LANG"}


def test_a_program_gets_what_its_settings_say(directory: Path) -> None:
    """Variables, directory and umask; the notify socket only where it is listened to."""
    settings = {"environment": {"COLOUR": "blue"}, "directory": str(directory), "umask": 0o077}
    seen = _look(directory, readiness=NOTIFY, settings=settings)
    assert seen["environment"]["COLOUR"] == "blue"
    assert seen["environment"]["NOTIFY_SOCKET"] == str(directory / "run" / "novacron.notify")
    assert "WATCHDOG_USEC" not in seen["environment"]
    assert seen["directory"] == str(directory)
    assert seen["umask"] == 0o077


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_another_user_has_no_capability_left(directory: Path) -> None:
    """All five sets are empty, so no program that it executes can get any back."""
    seen = _look(directory, readiness=parse("log:^{"), user="nobody")
    nobody = pwd.getpwnam("nobody")
    assert seen["user"] == nobody.pw_uid
    assert seen["groups"] == [nobody.pw_gid]
    assert [int(text, 16) for text in seen["capabilities"]] == [0] * 5


@pytest.mark.parametrize("user", ["", "nobody"])
def test_secrets_are_files_of_the_program_alone(directory: Path, user: str) -> None:
    """They are in 0400 files, neither in arguments nor environment, and end with the process."""
    if user and os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    secrets = {"database.password": SECRET, "key": b"\x01\x02"}
    child = command(
        "looker", *PYTHON, readiness=parse("log:^{"), user=user, settings={"credentials": secrets}
    )
    with CommandTree(directory, child) as tree:
        pid = tree.until_up("looker")["pid"]
        seen = json.loads(tree.log("looker"))
        place = Path(seen["environment"]["CREDENTIALS_DIRECTORY"])
        assert place.parent == tree.run
        os.kill(pid, 9)
        tree.until("looker", lambda record: record["pid"] not in (pid, None))
        tree.until_up("looker")
        assert place.is_dir()  # the next process has its own
    assert not place.exists()
    assert seen["secrets"] == {"database.password": SECRET, "key": "\x01\x02"}
    assert set(seen["modes"].values()) == {"0o100400"}
    assert seen["directory_mode"] == "0o40500"
    assert SECRET not in str(seen["environment"])
    assert SECRET not in str(seen["argv"])


def test_a_credential_has_a_plain_name(directory: Path) -> None:
    """A name that leads elsewhere is refused, and the message does not hold the secret."""
    child = command("thief", *PYTHON, settings={"credentials": {"../key": SECRET}})
    with CommandTree(directory, child) as tree:
        reason = tree.until_failed("thief")
        assert reason == "start_failed: '../key' can't name a credential"
        assert SECRET not in tree.log("thief")


def test_secrets_of_a_killed_supervisor_go_when_the_next_one_starts(directory: Path) -> None:
    """What a SIGKILL leaves in the run directory is cleared away before anything starts."""
    left = directory / "run" / "gone.credentials"
    left.mkdir(parents=True)
    (left / "key").write_text(SECRET)
    (directory / "run" / "key").touch()
    with CommandTree(directory, command("sleeper", "/bin/sleep", "1000", readiness=EXEC)) as tree:
        tree.until_up("sleeper")
        assert not left.exists()
