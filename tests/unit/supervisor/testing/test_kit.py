"""The test kit does what its documentation shows, and complains so that one sees why."""

from __future__ import annotations

import doctest
import importlib

import pytest

from supervisor.testing.clock import ManualClock
from supervisor.testing.transcript import Transcript


@pytest.mark.parametrize("name", ["clock", "driver", "spawner", "transcript"])
def test_the_examples_in_the_documentation_are_true(name: str) -> None:
    """Each module's example runs and prints what it says."""
    module = importlib.import_module(f"supervisor.testing.{name}")

    result = doctest.testmod(module)

    assert (result.failed, result.attempted > 0) == (0, True)


def test_time_does_not_go_back() -> None:
    """A manual clock is monotonic."""
    clock: ManualClock[str] = ManualClock(5.0)

    with pytest.raises(ValueError, match="already"):
        clock.move_to(4.0)


def test_nothing_falls_due_before_its_time() -> None:
    """A thing is there at its time and not before."""
    clock: ManualClock[str] = ManualClock()
    clock.call_later(1.0, "x")

    clock.move_to(0.999)
    early = clock.pop()
    clock.move_to(1.0)

    assert (early, clock.pop()) == (None, "x")


def test_a_wrong_order_is_shown_with_the_whole_transcript() -> None:
    """The failure names what is missing and prints what there was instead."""
    transcript = Transcript()
    transcript.note(0.0, "stop b")
    transcript.note(1.0, "stop a")

    with pytest.raises(AssertionError, match=r"'stop b' is missing(.|\n)*1.000 stop a"):
        transcript.assert_order("stop a", "stop b")


def test_what_must_not_be_done_is_shown_where_it_was() -> None:
    """``assert_never`` passes until the thing has been done."""
    transcript = Transcript()
    transcript.assert_never("spawn a")
    transcript.note(0.0, "spawn a")

    with pytest.raises(AssertionError, match="'spawn a' was done"):
        transcript.assert_never("spawn a")
