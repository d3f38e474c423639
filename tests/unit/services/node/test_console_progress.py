"""The picture of a boot, from journal records alone."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.messages.journal import JournalRecord
from protocol.records import Plain
from services.ctl.styled import Line, to_plain
from services.node.progress import Progress, Told

STARTED_S = 1000.0


def record(at_s: float, name: str, component: str = "novacron", **fields: Plain) -> JournalRecord:
    """A record ``at_s`` seconds after the start of the program."""
    return JournalRecord(
        seq=1, time_s=STARTED_S + at_s, name=name, component=component, fields=fields
    )


def state(at_s: float, path: str, word: str, phase: int, reason: str = "") -> JournalRecord:
    """A component's new state."""
    return record(at_s, "component:state", path, state=word, phase=phase, reason=reason)


BOOT = (
    record(0.11, "init:preflight-passed", phase=0, duration_s=0.05),
    record(0.11, "init:config-loaded", phase=1, duration_s=0.06),
    state(0.12, "telemetry", "starting", 2),
    state(0.12, "data/postgres", "starting", 3),
    state(0.2, "telemetry", "healthy", 2),
    record(0.2, "init:logging-setup", phase=2, duration_s=0.09),
    state(0.25, "core/vm", "starting", 4),
    state(0.3, "data/postgres", "healthy", 3),
)
REST = (
    record(0.5, "init:databases-connected", phase=3, duration_s=0.3),
    state(0.6, "core/vm", "degraded", 4, "no libvirt"),
    record(0.6, "init:core-services-ready", phase=4, duration_s=0.1),
    record(0.7, "init:optional-services-ready", phase=5, duration_s=0.1),
    record(
        0.8,
        "init:complete",
        phase=6,
        duration_s=0.1,
        boot_s=0.8,
        addresses={"api": "http://127.0.0.1:8080", "metrics": "http://127.0.0.1:9090/metrics"},
    ),
)


def feed(progress: Progress, records: Iterable[JournalRecord]) -> list[Told]:
    """What each record leads to."""
    return [progress.take(item) for item in records]


def texts(lines: Iterable[Line]) -> list[str]:
    """Lines without colour."""
    return [to_plain(spans) for spans in lines]


def steps(told: Iterable[Told]) -> list[str]:
    """The lines of all steps."""
    return texts(spans for item in told for spans in item.steps)


def notes(told: Iterable[Told]) -> list[str]:
    """The lines of all notes."""
    return texts(spans for item in told for spans in item.notes)


def test_screen_of_a_boot_under_way() -> None:
    """Phases with their times, and the components of those that are not over."""
    progress = Progress()
    feed(progress, BOOT)

    assert texts(progress.screen(STARTED_S + 0.4)) == [
        "NovaCron is starting  0.40 s",
        "  ✓ 0 preflight           0.05 s",
        "  ✓ 1 configuration       0.06 s",
        "  ✓ 2 logging             0.09 s",
        "  ▸ 3 database            0.20 s",
        "      ✓ data/postgres     0.18 s",
        "    4 core",
        "      ▸ core/vm           0.15 s",
        "    5 optional",
        "    6 health",
    ]


def test_screen_before_any_record() -> None:
    """There is a picture even before anything has happened."""
    assert texts(Progress().screen(STARTED_S))[0] == "NovaCron is starting  0.00 s"


def test_steps_are_one_line_per_phase() -> None:
    """Without a terminal each phase is a line when it is over, with the troubles in it."""
    assert steps(feed(Progress(), (*BOOT, *REST))) == [
        "phase 0 preflight: ready in 0.05 s",
        "phase 1 configuration: ready in 0.06 s",
        "phase 2 logging: ready in 0.09 s",
        "phase 3 database: ready in 0.30 s",
        "phase 4 core: ready in 0.10 s",
        "  core/vm is degraded: no libvirt",
        "phase 5 optional: ready in 0.10 s",
        "phase 6 health: ready in 0.10 s",
    ]


def test_summary_at_the_end() -> None:
    """The end of the boot tells its time, the addresses, and what to do next."""
    progress = Progress()

    told = feed(progress, (*BOOT, *REST))

    assert progress.is_over
    assert notes(told) == [
        "degraded in 0.80 s",
        "  api       http://127.0.0.1:8080",
        "  metrics   http://127.0.0.1:9090/metrics",
        "Ctrl-C stops it; bin/novacronctl status shows it",
    ]
    assert texts(progress.screen(STARTED_S + 99))[0] == "  ✓ 0 preflight           0.05 s"


def test_summary_of_a_healthy_node() -> None:
    """With nothing in trouble the node is ready."""
    told = feed(Progress(), (*BOOT, *(item for item in REST if item.component != "core/vm")))

    assert notes(told)[0] == "ready in 0.80 s"


def test_failure_names_phase_origin_reason_and_code() -> None:
    """A boot that fails says where, why and with which exit code."""
    progress = Progress()
    feed(progress, BOOT)

    told = feed(
        progress,
        (
            state(0.5, "data/postgres", "unhealthy", 3, "disk full"),
            record(
                0.6,
                "init:failed",
                phase=3,
                origin="data/postgres",
                reason="could not write\x1b[2J",
                code="data.disk_full",
                exit_code=3,
            ),
        ),
    )

    assert progress.is_over
    assert notes(told) == [
        "  data/postgres is unhealthy: disk full",
        "boot failed in phase 3 database: data/postgres: could not write\\x1b[2J",
        "exit code 3 (data.disk_full)",
    ]
    assert "  ✗ 3 database" in texts(progress.screen(STARTED_S + 0.6))


def test_failure_without_details() -> None:
    """A record that says little still ends in a sentence."""
    told = Progress().take(record(0.1, "init:failed", phase=99))

    assert notes([told]) == ["boot failed in phase 6 health: no reason is known"]


def test_changes_after_the_boot_are_notes() -> None:
    """Once the node runs, a component's new state is told, the same state again is not."""
    progress = Progress()
    feed(progress, (*BOOT, *REST))

    told = feed(
        progress,
        (
            state(5.0, "core/vm", "healthy", 4),
            state(5.1, "core/vm", "healthy", 4),
            state(6.0, "core/vm", "starting", 4),
            state(6.1, "core/vm", "unhealthy", 4, "gone"),
            state(7.0, "new", "starting", 5),
            record(8.0, "component:state", "new", state="removed"),
            record(9.0, "vm:started", "core/vm", domain="a"),
        ),
    )

    assert notes(told) == [
        "core/vm is healthy",
        "core/vm is starting",
        "core/vm is unhealthy: gone",
        "new is removed",
    ]


def test_stop_and_reload() -> None:
    """Stopping is said once, not once per component; a reload says what it changed."""
    progress = Progress()
    feed(progress, (*BOOT, *REST))

    told = feed(
        progress,
        (
            record(5.0, "node:reloaded", changed=["system.logLevel", "api.port"]),
            record(5.5, "node:reload-refused", reason="wrong key"),
            record(6.0, "node:stopping", cause="SIGINT"),
            state(6.1, "core/vm", "stopped", 4),
            record(6.2, "node:stopped", reason="SIGINT"),
            record(6.3, "node:failed", reason="core gave up", exit_code=5),
        ),
    )

    assert notes(told) == [
        "reloaded: system.logLevel, api.port",
        "reload refused: wrong key",
        "stopping: SIGINT",
        "stopped",
        "the node failed: core gave up",
        "exit code 5",
    ]
