"""Many deadlines on one timer."""

from __future__ import annotations

import pytest

from supervisor.child.deadlines import Deadlines


class VirtualTimer:
    """One call that is due at a time."""

    def __init__(self, at_s, call):
        self.at_s, self.call, self.is_cancelled = at_s, call, False

    def cancel(self):
        """Not any more."""
        self.is_cancelled = True


class VirtualLoop:
    """The part of a loop that keeps time."""

    def __init__(self):
        self.now_s = 100.0
        self.timers = []

    def time(self):
        """The virtual time."""
        return self.now_s

    def call_at(self, at_s, call):
        """Plan a call."""
        self.timers.append(VirtualTimer(at_s, call))
        return self.timers[-1]

    def planned(self):
        """When something is to be called, in order."""
        return sorted(timer.at_s for timer in self.timers if not timer.is_cancelled)

    def advance(self, to_s):
        """Let time pass and call what is due by then, in order."""
        while due := [t for t in self.timers if not t.is_cancelled and t.at_s <= to_s]:
            timer = min(due, key=lambda t: t.at_s)
            self.timers.remove(timer)
            self.now_s = max(self.now_s, timer.at_s)
            timer.call()
        self.now_s = to_s


@pytest.fixture
def loop():
    """A loop on virtual time."""
    return VirtualLoop()


@pytest.fixture
def expired():
    """What has expired, in order."""
    return []


def test_an_item_expires_once_and_not_before_its_deadline(loop, expired):
    """Nothing a moment before, the item at the deadline, nothing afterwards."""
    deadlines = Deadlines(loop, expired.append)
    deadlines.add("a", 5.0)

    loop.advance(104.999)
    before = list(expired)
    loop.advance(200.0)

    assert (before, expired) == ([], ["a"])


def test_a_discarded_item_never_expires(loop, expired):
    """What is over in time is left alone, and the others are not."""
    deadlines = Deadlines(loop, expired.append)
    deadlines.add("a", 5.0)
    deadlines.add("b", 6.0)

    deadlines.discard("a")
    deadlines.discard("never there")
    loop.advance(200.0)

    assert expired == ["b"]


def test_a_nearer_deadline_is_not_kept_waiting_by_a_farther_one(loop, expired):
    """The timer moves to the nearest deadline of all."""
    deadlines = Deadlines(loop, expired.append)
    deadlines.add("far", 60.0)
    deadlines.add("near", 1.0)

    loop.advance(101.0)

    assert expired == ["near"]
    assert loop.planned() == [160.0]


def test_thousand_items_of_one_timeout_take_one_timer(loop, expired):
    """Adding after the first costs no timer, and the end of all of them few looks."""
    deadlines = Deadlines(loop, expired.append)
    for number in range(1000):
        loop.advance(100.0 + number * 0.001)
        deadlines.add(number, 5.0)

    assert loop.planned() == [105.0]
    loop.advance(200.0)

    assert expired == list(range(1000))


def test_items_that_expire_close_together_are_looked_at_together(loop, expired):
    """A deadline is met at most a hundredth of a second late."""
    deadlines = Deadlines(loop, expired.append)
    deadlines.add("a", 5.0)
    deadlines.add("b", 5.001)

    loop.advance(105.0)
    first = list(expired)
    loop.advance(105.0101)

    assert (first, expired) == (["a"], ["a", "b"])


def test_an_infinite_deadline_takes_no_timer(loop, expired):
    """What may take for ever is only kept."""
    deadlines = Deadlines(loop, expired.append)

    deadlines.add("a", float("inf"))

    assert loop.planned() == []


def test_nothing_left_means_no_timer(loop, expired):
    """An idle process is not woken by deadlines of what is long over, more than once."""
    deadlines = Deadlines(loop, expired.append)
    deadlines.add("a", 5.0)
    deadlines.discard("a")

    loop.advance(105.0)

    assert (expired, loop.planned()) == ([], [])
