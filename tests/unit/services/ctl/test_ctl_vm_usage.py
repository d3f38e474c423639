"""What novacronctl vm top and vm status show."""

from __future__ import annotations

import pytest

from services.ctl.commands.vm_table import find_order
from services.ctl.styled import to_plain
from services.ctl.vm_usage import VmSort, render_vm_status, render_vm_top, vm_order
from services.vm.autostart.model import AutostartOutcome, AutostartRecord, AutostartResult
from services.vm.model import DomainState, VmStatus
from services.vm.statistics.model import DomainStatistics, StatisticsReply

WEB = DomainStatistics(
    name="web1",
    uuid="u1",
    state=DomainState.RUNNING,
    vcpus=2,
    cpu_percent=185.0,
    memory_used_bytes=300 << 20,
    memory_assigned_bytes=1 << 30,
    memory_maximum_bytes=2 << 30,
    read_bytes_s=2048.0,
    written_bytes_s=0.0,
    reads_s=0.5,
    writes_s=0.0,
    received_bytes_s=1 << 20,
    sent_bytes_s=10.0,
    drops_s=3.0,
)
IDLE = DomainStatistics(name="idle\x1b[2J", uuid="u2", state=DomainState.PAUSED, is_stale=True)


def shown(reply: StatisticsReply, sort: VmSort = VmSort.CPU, *, width: int = 200) -> list[str]:
    """The lines as text."""
    return [to_plain(line) for line in render_vm_top(reply, sort, width=width)]


def test_a_machine_has_a_line_with_its_figures() -> None:
    """What nobody can tell is a dash, and text of others never steers the terminal."""
    lines = shown(StatisticsReply(domains=(IDLE, WEB), time_s=1.0, interval_s=2.0))

    assert lines[0].startswith("2 running, CPU 185.0%, memory 1.0 GiB assigned")
    figures = "185.0 2 300 MiB 1.0 GiB 2.0 GiB 2 KiB 0 B 0.5 0 1.0 MiB 10 B 3.0"
    assert " ".join(lines[3].split()) == f"web1 running {figures}"
    assert "\x1b" not in lines[4]
    assert "(stale)" in lines[4]
    assert lines[4].split().count("-") == 12


def test_stale_figures_say_why() -> None:
    """Beside how many machines found no room."""
    reply = StatisticsReply(
        domains=(WEB,), time_s=1.0, is_stale=True, reason="libvirt is gone", omitted=4
    )

    lines = shown(reply)

    assert lines[0].startswith("5 running")
    assert lines[1:3] == ["stale: libvirt is gone", "4 machines more than are told"]


def test_before_the_first_reading_nothing_is_claimed() -> None:
    """No figures are no zeros."""
    assert shown(StatisticsReply())[0] == "no figures yet"


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        (VmSort.CPU, "bca"),
        (VmSort.MEMORY, "cab"),
        (VmSort.DISK, "abc"),
        (VmSort.NETWORK, "abc"),
        (VmSort.NAME, "abc"),
    ],
)
def test_machines_are_ordered(sort: VmSort, names: str) -> None:
    """Most first; unknown counts as nothing, and what is equal stays ordered by name."""
    state = DomainState.RUNNING
    domains = (
        DomainStatistics(name="c", uuid="3", state=state, cpu_percent=1.0, memory_used_bytes=9),
        DomainStatistics(name="a", uuid="1", state=state, written_bytes_s=5.0),
        DomainStatistics(name="b", uuid="2", state=state, cpu_percent=2.0),
    )

    found = vm_order(domains, sort)

    assert "".join(item.name for item in found) == names


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_columns_give_way_and_the_sorted_ones_stay(width: int) -> None:
    """No line is wider than the screen."""
    lines = shown(StatisticsReply(domains=(WEB,), time_s=1.0), VmSort.DISK, width=width)

    assert all(len(line) <= width for line in lines[2:])
    assert "CPU%" in lines[2]
    assert width < 60 or "READ/S" in lines[2]


def status(record: AutostartRecord | None, **changes: object) -> str:
    """What vm status shows."""
    values: dict[str, object] = {"libvirt_uri": "qemu:///system", "is_connected": True, **changes}
    found = VmStatus(hypervisor="QEMU", libvirt_version="9.0.0", autostart=record, **values)  # type: ignore[arg-type] # by name
    return "\n".join(to_plain(line) for line in render_vm_status(found, now_s=100.0, width=120))


def test_status_tells_what_became_of_autostart() -> None:
    """Each machine with its outcome, and why."""
    record = AutostartRecord(
        boot_id="b",
        machines=(
            AutostartResult(
                name="db", priority=900, outcome=AutostartOutcome.FAILED, message="no disk",
                attempts=2, time_s=40.0,
            ),
            AutostartResult(name="web", priority=1),
        ),
    )  # fmt: skip

    text = status(record, domains={"running": 2, "shutoff": 1})

    assert "connected to QEMU by libvirt 9.0.0" in text
    assert "2 running, 1 shutoff" in text
    assert "under way: 1 of 2 machines to go" in text
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "db 900 failed 2 1m 0s no disk" in rows


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (None, "nothing is known"),
        (AutostartRecord(boot_id="b", is_over=True), "no machine to start"),
        (
            AutostartRecord(
                boot_id="b", is_over=True, machines=(AutostartResult(name="a", priority=1),)
            ),
            "over for this boot",
        ),
    ],
)
def test_status_says_where_autostart_is(record: AutostartRecord | None, words: str) -> None:
    """Also while there is nothing."""
    assert words in status(record)


def test_status_says_why_libvirt_is_not_there() -> None:
    """With the reason."""
    assert "not connected: no daemon" in status(None, is_connected=False, reason="no daemon")


@pytest.mark.parametrize("name", ["top", "status"])
def test_the_commands_are_there(name: str) -> None:
    """Below vm, with examples."""
    found = find_order(name)

    assert found is not None
    assert "novacronctl vm" in (found.epilog or "")
