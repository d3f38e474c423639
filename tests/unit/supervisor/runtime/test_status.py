"""The node in one word."""

from __future__ import annotations

import pytest

from protocol.messages.control import ComponentRecord
from protocol.messages.health import HealthState
from protocol.messages.status import Verdict
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.posix.board import LastWords
from supervisor.runtime.processes import exit_reason
from supervisor.runtime.root import exit_code
from supervisor.runtime.status import verdict_of


def record(path: str, state: HealthState, failure: str = "critical") -> ComponentRecord:
    """A component in a state."""
    return ComponentRecord(
        path=path, level="", phase=4, failure=failure, kind="service", state=state, reason="why"
    )


@pytest.mark.parametrize(
    ("state", "failure", "verdict"),
    [
        (HealthState.HEALTHY, "critical", Verdict.READY),
        (HealthState.DEGRADED, "critical", Verdict.DEGRADED),
        (HealthState.UNHEALTHY, "critical", Verdict.NOT_READY),
        (HealthState.STARTING, "critical", Verdict.NOT_READY),
        (HealthState.STOPPED, "critical", Verdict.NOT_READY),
        (HealthState.STARTING, "recoverable", Verdict.DEGRADED),
        (HealthState.UNHEALTHY, "degraded", Verdict.DEGRADED),
        (HealthState.STOPPED, "degraded", Verdict.DEGRADED),
    ],
)
def test_one_component_decides(state: HealthState, failure: str, verdict: Verdict) -> None:
    """Each state against each class of failure."""
    assert verdict_of([record("a", state, failure)], is_booted=True)[0] is verdict


def test_the_worst_component_gives_the_reason() -> None:
    """Not the first that is less than healthy."""
    records = [record("cache", HealthState.DEGRADED), record("core/vm", HealthState.UNHEALTHY)]

    assert verdict_of(records, is_booted=True) == (Verdict.NOT_READY, "vm is unhealthy: why")


def test_a_booting_node_is_not_ready() -> None:
    """Even when all that has started is healthy."""
    assert verdict_of([record("a", HealthState.HEALTHY)], is_booted=False)[0] is Verdict.NOT_READY


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (0, None, ExitKind.NORMAL),
        (1, None, ExitKind.CRASHED),
        (-9, None, ExitKind.KILLED),
        (100, LastWords("data.gone", "gone"), ExitKind.CRITICAL),
        (101, None, ExitKind.ESCALATED),
        (102, None, ExitKind.DECLINED),
    ],
)
def test_wait_statuses_have_names(code: int, words: LastWords | None, kind: ExitKind) -> None:
    """Exit codes and signals become reasons."""
    assert exit_reason(code, words).kind is kind


def test_last_words_explain_an_exit() -> None:
    """Code and sentence of the process itself win over the bare exit code."""
    reason = exit_reason(1, LastWords("vm.gone", "libvirt is gone", "core/vm", 4))

    assert (reason.code, reason.detail, reason.origin, reason.phase) == (
        "vm.gone",
        "libvirt is gone",
        "core/vm",
        4,
    )


@pytest.mark.parametrize(
    ("kind", "phase", "code"),
    [
        (ExitKind.SHUTDOWN, 0, 0),
        (ExitKind.START_FAILED, 3, 3),
        (ExitKind.CRITICAL, 3, 3),
        (ExitKind.START_FAILED, 4, 4),
        (ExitKind.CRITICAL, 6, 6),
        (ExitKind.START_FAILED, 2, 4),
        (ExitKind.ESCALATED, 4, 5),
    ],
)
def test_the_programs_exit_code_follows_from_its_end(kind: ExitKind, phase: int, code: int) -> None:
    """The codes that the unit file and operators rely on."""
    assert exit_code(ExitReason(kind=kind, phase=phase)) == code
