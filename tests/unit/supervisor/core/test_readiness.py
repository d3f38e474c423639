"""What a command's readiness may be, how people write it, and when it is looked for."""

from __future__ import annotations

import itertools

import pytest

from protocol.records import from_wire, to_wire
from supervisor.core import readiness
from supervisor.core.readiness import Readiness, ReadinessError, ReadinessKind, parse
from supervisor.core.spec import ChildSpec, ChildType, SpecError, SupervisorSpec, validate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("notify", readiness.NOTIFY),
        ("exec", readiness.EXEC),
        ("tcp:80", Readiness(kind=ReadinessKind.TCP, port=80)),
        ("tcp:10.0.0.1:65535", Readiness(kind=ReadinessKind.TCP, host="10.0.0.1", port=65535)),
        ("tcp:[::1]:80", Readiness(kind=ReadinessKind.TCP, host="::1", port=80)),
        ("unix:/run/x.sock", Readiness(kind=ReadinessKind.UNIX, path="/run/x.sock")),
        ("log:ready: [0-9]+", Readiness(kind=ReadinessKind.LOG, pattern="ready: [0-9]+")),
    ],
)
def test_each_kind_can_be_written(text: str, expected: Readiness) -> None:
    """A text means one readiness, which survives the wire and, written again, means the same."""
    assert parse(text) == expected
    assert from_wire(Readiness, to_wire(expected)) == expected
    assert parse(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("port:80", "none of"),
        ("exec:now", "none of"),
        ("tcp:http", "not a number"),
        ("tcp:0", "1 to 65535"),
        ("tcp:65536", "1 to 65535"),
        ("tcp:localhost:80", "an IP address"),
        ("unix:x.sock", "absolute"),
        (f"unix:/{'x' * 107}", "108 bytes"),
        ("log:", "empty"),
        ("log:(", "unterminated"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(text: str, problem: str) -> None:
    """The message names the rule."""
    with pytest.raises(ReadinessError, match=problem):
        parse(text)


def test_the_longest_path_of_a_socket_is_taken() -> None:
    """One byte less than what is refused."""
    assert len(parse(f"unix:/{'x' * 106}").path) == 107


def test_a_specification_says_where_its_readiness_is_wrong() -> None:
    """The readiness is checked with its child, before anything is started."""
    wrong = Readiness(watchdog_s=0.0)
    child = ChildSpec(id="a", start="p:N", type=ChildType.COMMAND, readiness=wrong)
    with pytest.raises(SpecError, match="watchdog_s is 0"):
        validate(SupervisorSpec(children=(child,)))


def test_readiness_is_for_commands() -> None:
    """A Python child that is given one is refused: it would never be looked at."""
    child = ChildSpec(id="a", start="p:N", readiness=readiness.EXEC)
    with pytest.raises(SpecError, match="for commands"):
        validate(SupervisorSpec(children=(child,)))


@pytest.mark.parametrize(
    ("text", "watchdog_s", "needs_socket"),
    [("notify", None, True), ("exec", None, False), ("exec", 5.0, True), ("log:x", None, False)],
)
def test_only_a_command_that_speaks_gets_the_socket(
    text: str, watchdog_s: float | None, *, needs_socket: bool
) -> None:
    """NOTIFY_SOCKET is for READY=1 and WATCHDOG=1."""
    assert parse(text, watchdog_s=watchdog_s).needs_socket is needs_socket


def test_looks_become_rarer() -> None:
    """The first dozen fall into a quarter of a second; then there are ten per second."""
    pauses = [readiness.next_pause_s(None)]
    for _ in range(30):
        pauses.append(readiness.next_pause_s(pauses[-1]))
    times = list(itertools.accumulate(pauses))
    assert pauses == sorted(pauses)
    assert times[11] < 0.3
    assert pauses[-1] == readiness.PROBE_MAX_S
