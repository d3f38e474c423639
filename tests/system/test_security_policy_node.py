"""The policy and the audit spool of a real node: fail closed, reload, refuse to boot."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol import names
from protocol.errors import RemoteCallError
from tests.fixtures.fix_node import ROOT, Node, wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis, pytest.mark.libvirt]

SHIPPED = ROOT / "etc/novacron/policy.yaml"
VARIABLE = "NOVACRON_SECURITY_ZEROTRUST_POLICYFILE"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A copy of the shipped policy, to be changed."""
    return Path(shutil.copy(SHIPPED, tmp_path / "policy.yaml"))


def reload(node: Node, expected: str) -> dict[str, Any]:
    """Have the node read its configuration again; returns the fields of the event."""
    seen = len(node.journal())
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)

    def happened() -> dict[str, Any] | None:
        fresh = [r for r in node.journal()[seen:] if r["name"] == expected]
        return fresh[0]["fields"] if fresh else None

    found: dict[str, Any] = wait_until(happened, expected)
    return found


def refusal(node: Node, path: str, method: str, body: Any = None) -> RemoteCallError:
    """The error of a call that must fail."""
    with pytest.raises(RemoteCallError) as caught:
        node.call(path, method, body)
    return caught.value


def test_privileged_call_is_refused_where_it_cannot_be_recorded(node: Node) -> None:
    """Fail closed: without the spool nothing changes; with it again all is as before."""
    spool = node.state_dir / "security/spool"
    pid = node.component("core/vm").pid
    spool.rename(spool.with_name("away"))

    for path, body in (("core", {"id": "vm"}), ("novacron", {"id": "telemetry"})):
        refused = refusal(node, path, "restart", body)
        assert refused.remote_code == "supervisor.audit_unavailable"
        assert "restart was not carried out, as it can't be recorded" in str(refused)
    sent = refusal(node, "core/dwcp/manager", "dwcp.send", {"file": "/x", "host": "h", "port": 1})

    assert sent.remote_code == "supervisor.audit_unavailable"
    assert node.component("core/vm").pid == pid
    assert node.status().verdict.value == "ready"
    spool.with_name("away").rename(spool)
    node.call("core", "restart", {"id": "vm"})
    assert node.component("core/vm").pid != pid


def test_recording_costs_little(node: Node) -> None:
    """A recorded order that is refused for another reason takes milliseconds, not a timeout."""
    begin_s = time.monotonic()
    for _ in range(20):
        refused = refusal(node, "core", "restart", {"id": "nothing"})
        assert refused.remote_code == "supervisor.no_such_child"

    assert (time.monotonic() - begin_s) / 20 < 0.5


def test_changed_policy_counts_at_once(make_node: Callable[..., Node], policy: Path) -> None:
    """A reload counts for connections that exist; a broken file changes nothing."""
    node = make_node(**{VARIABLE: str(policy)}).start()
    text = policy.read_text()
    assert node.call("core/vm", "vm.list")

    policy.write_text(text.replace("rules:\n", "rulez:\n"))
    told = reload(node, "node:reload-refused")["reason"]
    assert "policy.yaml" in told
    assert node.call("core/vm", "vm.list")
    # Root stays administrator; the gateway loses the machines.
    policy.write_text(
        text.replace(
            "callers: [api, optional/workload, core/network]\n", "callers: [optional/workload]\n"
        )
    )
    reload(node, "node:reloaded")

    decided = node.ctl("policy", "test", "api", "vm.list", "core/vm", "-f", str(policy))
    assert decided.returncode == 4
    policy.write_text(
        "version: 1\nroles: {admin: {users: [root]}}\nrules:\n"
        "  look: {callers: ['role:admin', '*'], calls: [status, journal], of: ['*']}\n"
    )
    reload(node, "node:reloaded")
    refused = refusal(node, "core/vm", "vm.list")
    assert refused.remote_code == "supervisor.access_refused"
    assert "call vm.list of core/vm" in str(refused)


def test_broken_policy_stops_the_boot(make_node: Callable[..., Node], policy: Path) -> None:
    """It is a mistake of the configuration: exit code 2 and the line."""
    policy.write_text(policy.read_text().replace("version: 1", "version: 9"))
    node = make_node(**{VARIABLE: str(policy)})

    assert node.run_to_end() == 2
    assert f"{policy}:" in node.errors
    assert "version: found 9, expected 1" in node.errors


def test_missing_policy_stops_the_boot(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """A file that is named and is not there is no permission for everything."""
    node = make_node(**{VARIABLE: str(tmp_path / "none.yaml")})

    assert node.run_to_end() == 2
    assert "none.yaml" in node.errors


def test_without_zero_trust_members_may_call_and_strangers_may_not(
    make_node: Callable[..., Node], policy: Path
) -> None:
    """Switched off, the policy still says what is recorded."""
    policy.write_text(
        "version: 1\nroles: {}\nrules:\n"
        "  order: {callers: ['role:admin'], calls: [restart], of: ['*'], audit: true}\n"
    )
    switches = {VARIABLE: str(policy), "NOVACRON_SECURITY_ZEROTRUST_ENABLED": "false"}
    node = make_node(**switches).start()

    node.call("core", "restart", {"id": "vm"})

    audit = node.state_dir / "security/audit.jsonl"
    assert wait_until(lambda: "call:restart" in audit.read_text(), "the record")
    assert names.run_dir(node.state_dir).joinpath("policy").exists()


def test_policy_of_a_run_directory_is_the_roots_alone(node: Node) -> None:
    """Neither policy nor identities can be read or written by the node's group."""
    run = names.run_dir(node.state_dir)

    for name in ("policy", "epoch", "identities"):
        assert run.joinpath(name).stat().st_mode & 0o077 == 0, name
    assert (run / "identity.sock").stat().st_mode & 0o007 == 0
