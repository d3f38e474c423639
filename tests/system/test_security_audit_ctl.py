"""``novacronctl audit`` on a running node: what an operator and an auditor get to see."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest

from protocol.names import run_dir
from tests.fixtures.fix_node import ROOT, Node, wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis, pytest.mark.libvirt]


def ctl(node: Node, *arguments: str, code: int = 0) -> str:
    """What ``novacronctl audit`` prints; its exit code is checked."""
    argv = [str(ROOT / "bin/novacronctl"), "audit", *arguments]
    environ = {**os.environ, "NOVACRON_SYSTEM_DATADIR": str(node.state_dir)}
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, f"{done.stdout}{done.stderr}"
    return done.stdout


def tamper(node: Node, statement: str) -> None:
    """Change the table as its owner can who switches its triggers off."""
    host = run_dir(node.state_dir) / "pg"
    with psycopg.connect(host=str(host), dbname="novacron", user="novacron") as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement.encode())


def test_the_log_is_shown_exported_and_verified(node: Node, tmp_path: Path) -> None:
    """Tail, export and verify agree, online and with files alone; a change is found by all."""
    ctl_restart = [str(ROOT / "bin/novacronctl"), "restart", "network"]
    environ = {**os.environ, "NOVACRON_SYSTEM_DATADIR": str(node.state_dir)}
    subprocess.run(ctl_restart, env=environ, check=True, capture_output=True, timeout=60)
    security = node.state_dir / "security"
    wait_until(lambda: "restart" in ctl(node, "tail", "-n", "100"), "the record of the restart")

    report = json.loads(ctl(node, "verify", "--json"))
    text = ctl(node, "verify")
    newest = [json.loads(line) for line in ctl(node, "tail", "-n", "3", "--json").splitlines()]
    exported = tmp_path / "audit.jsonl"
    ctl(node, "export", str(exported))
    table = tmp_path / "audit.csv"
    ctl(node, "export", "--format", "csv", "--outcome", "success", str(table))
    piped = ctl(node, "export", "-", "--action", "init:*")
    public_key = json.loads(ctl(node, "key"))["public_key"]
    denied = ctl(node, "tail", "--outcome", "denied", "--actor", "security")

    assert "call:policy-probe" in denied  # the validation's forbidden call
    assert report["first_bad"] is None
    assert report["records"] == report["seq"] > 10
    assert "records are good" in text
    assert [record["seq"] for record in newest] == sorted(record["seq"] for record in newest)
    assert len(newest) == 3
    for path in (exported, table):
        assert "good" in ctl(node, "verify", "--file", str(path), "--public-key", public_key)
        assert path.stat().st_mode & 0o777 == 0o600
    assert "good" in ctl(node, "verify", "--file", str(security))
    assert {json.loads(line)["action"].partition(":")[0] for line in piped.splitlines()[:-1]} == {
        "init"
    }
    ctl(node, "export", str(exported), code=1)  # it is there
    ctl(node, "verify", "--first", "5", "--last", "2", code=2)
    ctl(node, "verify", "--public-key", public_key, code=2)

    assert "good" in ctl(node, "verify", "--files")
    copy = security / "audit.jsonl"
    before = copy.read_text().splitlines(keepends=True)
    with copy.open("r+") as file:  # in place, as the node has it open
        changed = before[4].replace("success", "failure", 1)
        file.seek(len("".join(before[:4])))
        file.write(changed)
    assert changed != before[4]
    assert "record 5: edited" in ctl(node, "verify", "--files", code=1)
    ctl(node, "verify")

    tamper(node, "UPDATE audit_log SET actor = 'nobody' WHERE seq = 7")
    exported.write_text(exported.read_text().replace("init:", "node:", 1))
    found = json.loads(ctl(node, "verify", "--json", code=1))
    assert (found["first_bad"]["seq"], found["first_bad"]["kind"]) == (7, "edited")
    assert "record 7: edited" in ctl(node, "verify", "--first", "3", "--last", "9", code=1)
    ctl(node, "verify", "--file", str(exported), "--public-key", public_key, code=1)


def test_the_log_can_be_followed(node: Node) -> None:
    """New records are shown as they are chained, until Ctrl-C."""
    argv = [str(ROOT / "bin/novacronctl"), "audit", "tail", "-f", "-n", "0", "--json"]
    environ = {**os.environ, "NOVACRON_SYSTEM_DATADIR": str(node.state_dir)}
    process = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        seen: list[str] = []

        def has_more() -> bool:
            vm = node.component("core/vm").pid
            if vm is not None and not seen:
                with contextlib.suppress(ProcessLookupError):  # killed the turn before
                    os.kill(vm, signal.SIGKILL)
            assert process.stdout is not None
            seen.extend(process.stdout.readlines())
            return any("component:exited" in line for line in seen)

        wait_until(has_more, "the record of a crash", 20.0)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
    assert code == 0
