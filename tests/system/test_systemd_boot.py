"""The shipped unit under a real systemd: hardened, supervised, reloaded, and stopped."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.fix_node import wait_until
from tests.system.systemd_machine import PROGRAMS, UNIT, Machine

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis, pytest.mark.netns]

VARIABLES = "NOVACRON_ENVIRONMENT=embedded\nNOVACRON_NETWORK_BRIDGE_ENABLED=true\n"
# Shorter waits than in service, and nothing else.
DROP_IN = "[Service]\nWatchdogSec=4\nTimeoutAbortSec=1\nRestartSec=100ms\n"
CAP_NET_ADMIN = 1 << 12


@pytest.fixture(scope="module")
def booted() -> Iterator[Machine]:
    """One machine for all tests here."""
    if os.geteuid() != 0:
        pytest.skip("only root may boot a system")
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (package systemd-container)")
    machine = Machine()
    try:
        yield machine.boot(variables=VARIABLES, drop_in=DROP_IN)
    finally:
        machine.close()


@pytest.fixture
def machine(booted: Machine) -> Machine:
    """The machine, with the unit active."""
    booted.run("systemctl", "reset-failed", "novacron")
    said = booted.run("systemctl", "start", "novacron", timeout_s=50.0)
    assert booted.show("ActiveState") == "active", said + booted.log()
    return booted


def unit_processes(machine: Machine) -> list[int]:
    """Processes in the unit's control group, by their ids in the machine."""
    listed = machine.run("systemctl", "status", "novacron", "--no-pager", "--lines=0", "--full")
    words = [line.lstrip(" │├└─").split(" ")[0] for line in listed.splitlines() if "─" in line]
    return [int(word) for word in words if word.isdigit()]


def status_fields(machine: Machine, pid: str) -> dict[str, str]:
    """Fields of a process's status in /proc."""
    lines = machine.run("cat", f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_the_unit_boots_a_whole_node(machine: Machine) -> None:
    """All the hardening on: every component healthy, the bridge kept, and systemd told so."""
    shown = machine.run("/opt/novacron/bin/novacronctl", "status")

    assert shown.startswith("ready: all 16 components are healthy"), shown
    assert machine.show("StatusText") == "ready"
    assert "novacron0" in machine.run("ip", "-brief", "link")


def test_the_tree_has_no_more_rights_than_it_is_given(machine: Machine) -> None:
    """Unprivileged, one capability, no new privileges, and the filter of system calls is on."""
    root = machine.show("MainPID")

    fields = status_fields(machine, root)

    assert fields["Uid"].split()[0] not in ("0", "")
    for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == CAP_NET_ADMIN, name
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    assert len(unit_processes(machine)) > 20


def test_a_reload_ends(machine: Machine) -> None:
    """``systemctl reload`` comes back to active without a restart, also with a bad file."""
    root = machine.show("MainPID")
    file = machine.root / "etc/novacron/config.embedded.yaml"
    text = file.read_text()

    file.write_text("api: {prot: 1}\n")
    machine.run("systemctl", "reload", "novacron")
    wait_until(lambda: "reload_refused" in machine.log(), "refused")
    file.write_text(text)
    machine.run("systemctl", "reload", "novacron")
    wait_until(lambda: "node:reloaded" in machine.log(), "reloaded")

    wait_until(lambda: machine.show("ActiveState") == "active", "active again")
    assert machine.show("MainPID") == root


def test_a_lost_root_is_replaced_and_leaves_nothing(machine: Machine) -> None:
    """SIGKILL of the root: systemd starts another node, and no process of the first is left."""
    before = machine.show("MainPID")
    old = unit_processes(machine)

    machine.run("kill", "-KILL", before)
    wait_until(lambda: machine.show("MainPID") not in ("0", before), "another root", 20.0)
    wait_until(lambda: machine.show("ActiveState") == "active", "active", 20.0)

    assert not set(old) & set(unit_processes(machine))


def test_a_stopped_root_is_replaced_by_the_watchdog(machine: Machine) -> None:
    """SIGSTOP of the root: the watchdog notices within its interval and restarts the unit."""
    before = machine.show("MainPID")

    machine.run("kill", "-STOP", before)
    wait_until(lambda: machine.show("MainPID") not in ("0", before), "another root", 20.0)
    wait_until(lambda: machine.show("ActiveState") == "active", "active", 20.0)

    assert "Watchdog timeout" in machine.log(lines=400)


def test_a_stop_is_orderly(machine: Machine) -> None:
    """``systemctl stop``: exit code 0, no process left, and no restart."""
    machine.run("systemctl", "stop", "novacron", timeout_s=50.0)

    assert (machine.show("ActiveState"), machine.show("Result")) == ("inactive", "success")
    assert "Deactivated successfully" in machine.log()
    assert unit_processes(machine) == []


def test_a_bad_configuration_is_not_tried_again(booted: Machine) -> None:
    """Exit code 2 ends the unit as failed, with the reason in the journal and no restart."""
    booted.run("systemctl", "stop", "novacron", timeout_s=50.0)
    variables: Path = booted.root / "etc/novacron/environment"
    variables.write_text(f"{VARIABLES}NOVACRON_API_PROT=1\n")

    booted.run("systemctl", "start", "novacron")
    variables.write_text(VARIABLES)

    assert booted.show("ActiveState") == "failed"
    assert booted.show("ExecMainStatus") == "2"
    assert "NOVACRON_API_PROT" in booted.log()


def test_embedded_servers_get_an_account_of_their_own(booted: Machine) -> None:
    """The shipped drop-in: the node is root with few capabilities, its servers have none."""
    booted.run("systemctl", "stop", "novacron", timeout_s=50.0)
    booted.run("rm", "--recursive", "--force", "/var/lib/novacron")
    drop_in = booted.root / "etc/systemd/system/novacron.service.d/embedded.conf"
    shutil.copy(UNIT.with_name("novacron-embedded.conf"), drop_in)
    booted.run("systemctl", "daemon-reload")
    account = str(pwd.getpwnam("novacron-data").pw_uid)

    for _start in ("first", "second"):
        booted.run("systemctl", "restart", "novacron", timeout_s=50.0)
        assert booted.show("ActiveState") == "active", booted.log()
        fields = [status_fields(booted, str(pid)) for pid in unit_processes(booted)]
        servers = [it for it in fields if it["Name"] in ("postgres", "redis-server")]
        root = status_fields(booted, booted.show("MainPID"))

        assert len(servers) > 5
        assert {it["Uid"].split()[0] for it in servers} == {account}
        assert {it["CapEff"] for it in servers} == {f"{0:016x}"}
        assert (root["Uid"].split()[0], root["CapAmb"]) == ("0", f"{0:016x}")
        assert int(root["CapEff"], 16).bit_count() == 7
    assert booted.run("/opt/novacron/bin/novacronctl", "status").startswith("ready")
