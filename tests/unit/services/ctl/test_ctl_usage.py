"""novacronctl top: what the kernel says, the rates that follow, and the screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from protocol.messages.health import HealthState
from protocol.messages.status import NodeStatus
from services.ctl.procfs import (
    Machine,
    Reading,
    parse_stat,
    parse_table,
    read_machine,
    read_process,
)
from services.ctl.schema import to_json
from services.ctl.styled import cells, to_ansi, to_plain
from services.ctl.usage import Meter, Sort, TopReport, in_order
from services.ctl.usagetable import render_top
from tests.unit.services.ctl.ctl_samples import component, node

STAT = (
    "4251 (a) evil) name) S 1 4251 4251 0 -1 4194304 900 0 0 0 250 50 0 0 20 0 7 0 123456 "
    "100000000 1024 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 0 0 0 0"
)
MACHINE = Machine(
    cpus=2, load=(0.5, 0.25, 0.1), memory_total_bytes=8 << 30, memory_available_bytes=6 << 30
)


def reading(pid: int, cpu_s: float, *, mib: int = 10, start_ticks: int = 1) -> Reading:
    """A process with three threads and twenty descriptors."""
    return Reading(
        pid=pid,
        start_ticks=start_ticks,
        cpu_s=cpu_s,
        resident_bytes=mib << 20,
        threads=3,
        fds=20,
    )


def small() -> NodeStatus:
    """A node of two components, of which one does not run."""
    return node(
        components=(
            component("data", "data", pid=11, restarts=2, uptime_s=100.0),
            component("core", "core", pid=12, uptime_s=50.0),
            component("api", "api", pid=None, uptime_s=None, state=HealthState.STOPPED),
        )
    )


def report(*rounds: dict[str, list[Reading]]) -> TopReport:
    """The report of the last of some samples, two seconds apart."""
    meter = Meter()
    for number, readings in enumerate(rounds):
        found = meter.report(small(), readings, MACHINE, now_s=2.0 * number, unix_s=1.7e9)
    return found


def test_stat_with_a_command_that_holds_brackets() -> None:
    """Fields are counted from the last bracket, whatever the process calls itself."""
    found = parse_stat(STAT, fds=9)

    assert found is not None
    assert (found.pid, found.threads, found.start_ticks, found.fds) == (4251, 7, 123456, 9)
    assert found.cpu_s == pytest.approx(3.0)
    assert found.resident_bytes == 1024 * 4096


@pytest.mark.parametrize("text", ["", "nonsense", STAT.replace(" S ", " Z "), "1 (x) S 1 2"])
def test_stat_of_no_living_process(text: str) -> None:
    """A zombie, a torn text and nothing at all are no process."""
    assert parse_stat(text) is None


def test_table_of_sizes() -> None:
    """Sizes are bytes; lines of another shape are left out."""
    text = "Rss: 100 kB\nPss:  40 kB\nHugePages_Total: 3\n55aa-66bb rw-p [rollup]\n"

    assert parse_table(text) == {"Rss": 102_400, "Pss": 40_960}


def test_process_and_machine_of_a_directory(tmp_path: Path) -> None:
    """Everything is read below one directory; what is missing or unreadable is None or 0."""
    place = tmp_path / "4251"
    (place / "fd").mkdir(parents=True)
    (place / "fd" / "0").touch()
    (place / "stat").write_text(STAT)
    (place / "smaps_rollup").write_text("Pss: 7 kB\n")
    (tmp_path / "loadavg").write_text("0.50 0.25 0.10 1/200 4251\n")

    with_share = read_process(4251, is_proportional=True, proc=tmp_path)
    without = read_process(4251, is_proportional=False, proc=tmp_path)
    machine = read_machine(tmp_path)

    assert with_share is not None
    assert (with_share.proportional_bytes, with_share.fds) == (7168, 1)
    assert without is not None
    assert without.proportional_bytes is None
    assert read_process(1, is_proportional=False, proc=tmp_path) is None
    assert (machine.load, machine.memory_total_bytes) == ((0.5, 0.25, 0.1), 0)


def test_first_sample_has_no_rate() -> None:
    """One look tells what a process has used for ever, which is no rate."""
    found = report({"data": [reading(11, 500.0)]})

    assert found.interval_s is None
    assert all(c.cpu_percent is None for c in found.components)
    assert found.node.cpu_percent is None


def test_rate_between_two_samples() -> None:
    """Percent of one processor, over the time between the samples."""
    found = report({"data": [reading(11, 5.0)]}, {"data": [reading(11, 6.0)]})

    data = next(c for c in found.components if c.path == "data")
    assert (found.interval_s, data.cpu_percent, found.node.cpu_percent) == (2.0, 50.0, 50.0)
    assert (data.threads, data.fds, data.processes) == (3, 20, 1)


def test_new_process_under_an_old_number() -> None:
    """A pid that was used again is another process: all that it used is new."""
    found = report({"data": [reading(11, 500.0)]}, {"data": [reading(11, 0.5, start_ticks=9)]})

    assert next(c.cpu_percent for c in found.components if c.path == "data") == 25.0


def test_rate_is_no_more_than_the_machine_has() -> None:
    """A process that came into sight late does not show a lifetime as two seconds."""
    found = report({}, {"data": [reading(11, 1e6)]})

    assert next(c.cpu_percent for c in found.components if c.path == "data") == 200.0


def test_processes_of_a_command_are_summed() -> None:
    """A command stands for all processes that it made, those that ended meanwhile left out."""
    found = report(
        {"data": [reading(11, 1.0), reading(21, 1.0), reading(22, 9.0)]},
        {"data": [reading(11, 1.1), reading(21, 1.3)]},
    )

    data = next(c for c in found.components if c.path == "data")
    assert (data.processes, data.cpu_percent, data.resident_bytes) == (2, 20.0, 20 << 20)


def test_orders() -> None:
    """Most first; what is equal stays in the tree's order, and by name is that order."""
    found = report(
        {"data": [reading(11, 1.0, mib=5)], "core": [reading(12, 1.0, mib=50)]},
        {"data": [reading(11, 2.0, mib=5)], "core": [reading(12, 1.1, mib=50)]},
    )

    def paths(sort: Sort) -> list[str]:
        return [c.path for c in in_order(found.components, sort)]

    assert paths(Sort.CPU) == ["data", "core", "novacron", "api"]
    assert paths(Sort.MEMORY) == ["core", "data", "novacron", "api"]
    assert paths(Sort.RESTARTS) == ["data", "novacron", "core", "api"]
    assert paths(Sort.NAME) == ["novacron", "data", "core", "api"]


def test_screen() -> None:
    """The verdict, the node, the machine, then a row per component; nothing unknown is invented."""
    found = report(
        {"data": [reading(11, 1.0)], "core": [reading(12, 1.0), reading(13, 0.0)]},
        {"data": [reading(11, 2.9)], "core": [reading(12, 1.0), reading(13, 0.0)]},
    )

    lines = render_top(found, Sort.CPU, width=100)
    text = [to_plain(spans) for spans in lines]

    assert text[0] == "degraded: core/vm: libvirt does not answer"
    assert text[1].startswith("node    node-001, pid 4242, up 3h 12m, 3 processes, 9 threads, 2 r")
    assert text[2].startswith("usage   CPU 95.0% of 200%, load 0.50 0.25 0.10; memory 30 MiB RSS ")
    head = " ".join(text[4].split())
    assert head == "COMPONENT STATE PID CPU% RSS THREADS FDS RESTARTS UPTIME"
    assert " ".join(text[5].split()) == "data healthy 11 95.0 10 MiB 3 20 2 1m 40s"
    assert text[7].split()[:5] == ["core", "+1", "healthy", "12", "0.0"]
    assert text[8].split() == ["api", "stopped", *"------"[:5], "0", "-"]
    assert "\x1b[33m95.0" in to_ansi(lines[5]).replace(" ", "")


def test_narrow_screen_keeps_what_is_sorted_by() -> None:
    """Columns go until the rest fits; the name and the sorted column never do."""
    found = report({"data": [reading(11, 1.0)]}, {"data": [reading(11, 2.0)]})

    lines = render_top(found, Sort.RESTARTS, width=40)

    assert "RESTARTS" in to_plain(lines[-5])
    assert "THREADS" not in to_plain(lines[-5])
    assert max(cells(to_plain(spans)) for spans in lines[1:]) <= 40


def test_keys_are_told_where_there_are_some() -> None:
    """On a terminal one line says which key does what."""
    found = report({})

    text = "\n".join(to_plain(s) for s in render_top(found, Sort.CPU, width=80, has_keys=True))

    assert "c cpu  m memory  r restarts  n name  p proportional memory  q quit" in text
    assert "keys" not in "\n".join(to_plain(s) for s in render_top(found, Sort.CPU, width=80))


def test_json_has_every_field() -> None:
    """The record goes through JSON whole."""
    value = json.loads(json.dumps(to_json(report({"data": [reading(11, 1.0)]}))))

    assert value["schema"] == "novacron.top/1"
    assert value["components"][1]["resident_bytes"] == 10 << 20
    assert value["components"][1]["proportional_bytes"] is None
