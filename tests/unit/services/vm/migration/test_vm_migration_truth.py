"""On which side a guest is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vm.migration.truth import Goal, Next, Presence, Side, decide

ABSENT, OFF, RUNNING, PAUSED, HELD, UNKNOWN = (
    Side(presence=presence)
    for presence in (
        Presence.ABSENT,
        Presence.OFF,
        Presence.RUNNING,
        Presence.PAUSED,
        Presence.HELD,
        Presence.UNKNOWN,
    )
)
SENDING = Side(presence=Presence.RUNNING, has_job=True)
KEPT = Side(presence=Presence.RUNNING, is_persistent=True)

sides = st.builds(
    lambda presence, has_job, is_persistent: Side(
        presence=presence, has_job=has_job and presence.is_alive, is_persistent=is_persistent
    ),
    st.sampled_from(Presence),
    st.booleans(),
    st.booleans(),
)
goals = st.builds(
    Goal,
    was_paused=st.booleans(),
    keeps_source=st.booleans(),
    needs_hand_over=st.booleans(),
    was_let_go=st.booleans(),
    has_run=st.booleans(),
)


@pytest.mark.parametrize(
    ("source", "target", "goal", "expected"),
    [
        (UNKNOWN, RUNNING, Goal(), Next.LOOK_AGAIN),
        (UNKNOWN, PAUSED, Goal(), Next.LOOK_AGAIN),
        (SENDING, HELD, Goal(), Next.FOLLOW),
        (SENDING, UNKNOWN, Goal(), Next.FOLLOW),
        (RUNNING, UNKNOWN, Goal(), Next.STAYS),
        (PAUSED, UNKNOWN, Goal(), Next.LOOK_AGAIN),
        (HELD, UNKNOWN, Goal(), Next.LOOK_AGAIN),
        (OFF, UNKNOWN, Goal(), Next.LOOK_AGAIN),
        (RUNNING, RUNNING, Goal(), Next.DISPUTED),
        (PAUSED, RUNNING, Goal(), Next.DISPUTED),
        (RUNNING, PAUSED, Goal(was_let_go=True), Next.DISPUTED),
        (RUNNING, ABSENT, Goal(was_let_go=True), Next.DISPUTED),
        (RUNNING, HELD, Goal(), Next.REMOVE_TARGET),
        (RUNNING, PAUSED, Goal(), Next.REMOVE_TARGET),
        (HELD, PAUSED, Goal(), Next.REMOVE_TARGET),
        (HELD, ABSENT, Goal(), Next.RESUME_SOURCE),
        (HELD, OFF, Goal(), Next.RESUME_SOURCE),
        (RUNNING, ABSENT, Goal(), Next.STAYED),
        (PAUSED, ABSENT, Goal(), Next.STAYED),
        (OFF, HELD, Goal(), Next.LOOK_AGAIN),
        (OFF, PAUSED, Goal(needs_hand_over=True), Next.HAND_OVER),
        (OFF, PAUSED, Goal(), Next.RESUME_TARGET),
        (ABSENT, PAUSED, Goal(was_let_go=True), Next.RESUME_TARGET),
        (OFF, PAUSED, Goal(was_let_go=True, has_run=True), Next.PERSIST_TARGET),
        (OFF, PAUSED, Goal(was_paused=True), Next.PERSIST_TARGET),
        (OFF, RUNNING, Goal(), Next.PERSIST_TARGET),
        (OFF, KEPT, Goal(), Next.UNDEFINE_SOURCE),
        (OFF, KEPT, Goal(keeps_source=True), Next.MOVED),
        (ABSENT, KEPT, Goal(), Next.MOVED),
        (ABSENT, OFF, Goal(was_let_go=True), Next.MOVED),
        (OFF, ABSENT, Goal(), Next.ENDED),
    ],
)
def test_the_rules(source: Side, target: Side, goal: Goal, expected: Next) -> None:
    """Each rule has a case."""
    assert decide(source, target, goal) is expected


@given(sides, sides, goals)
def test_nothing_is_changed_while_a_side_is_unknown(source: Side, target: Side, goal: Goal) -> None:
    """No start, no end, no removal, no new owner."""
    found = decide(source, target, goal)

    if Presence.UNKNOWN in (source.presence, target.presence):
        assert not found.is_change
        assert found is not Next.HAND_OVER
        assert not found.is_final


@given(sides, sides, goals)
def test_a_side_is_let_go_only_while_the_other_has_no_process(
    source: Side, target: Side, goal: Goal
) -> None:
    """So two can't run."""
    found = decide(source, target, goal)

    if found is Next.RESUME_SOURCE:
        assert target.presence in (Presence.ABSENT, Presence.OFF)
        assert not goal.was_let_go
    if found in (Next.RESUME_TARGET, Next.HAND_OVER):
        assert source.presence in (Presence.ABSENT, Presence.OFF)


@given(sides, sides, goals)
def test_what_may_have_run_is_never_removed(source: Side, target: Side, goal: Goal) -> None:
    """A copy is removed only if it never ran and the source has its process."""
    found = decide(source, target, goal)

    if found is Next.REMOVE_TARGET:
        assert not goal.was_let_go
        assert target.presence is not Presence.RUNNING
        assert source.presence.is_alive
    if found is Next.UNDEFINE_SOURCE:
        assert source.presence is Presence.OFF
        assert target.presence.is_alive


@given(sides, sides, goals)
def test_a_guest_that_runs_alone_is_never_disturbed(source: Side, target: Side, goal: Goal) -> None:
    """Where one side surely runs and the other has nothing, it is said so and left alone."""
    found = decide(source, target, goal)
    gone = (Presence.ABSENT, Presence.OFF)

    if source.presence is Presence.RUNNING and target.presence in gone and not source.has_job:
        assert found is (Next.DISPUTED if goal.was_let_go else Next.STAYED)


@dataclass
class World:
    """Two hosts, whose libvirts do as they are told."""

    source: Side
    target: Side
    goal: Goal

    def take(self, step: Next) -> None:
        """Carry it out, as libvirt would."""
        match step:
            case Next.REMOVE_TARGET:
                self.target = ABSENT
            case Next.RESUME_SOURCE:
                self.source = replace(self.source, presence=Presence.RUNNING)
            case Next.HAND_OVER:
                self.goal = replace(self.goal, needs_hand_over=False)
            case Next.RESUME_TARGET:
                self.goal = replace(self.goal, was_let_go=True, has_run=True)
                self.target = replace(self.target, presence=Presence.RUNNING)
            case Next.PERSIST_TARGET:
                self.target = replace(self.target, is_persistent=True)
            case Next.UNDEFINE_SOURCE:
                self.source = ABSENT

    @property
    def running(self) -> int:
        """On how many sides it runs."""
        return [self.source.presence, self.target.presence].count(Presence.RUNNING)


@given(sides, sides, goals, st.lists(st.sampled_from(["source", "target"]), max_size=6))
def test_it_settles_with_at_most_one_side_running(
    source: Side, target: Side, goal: Goal, silences: list[str]
) -> None:
    """Whatever was found, and whoever is silent on the way: few steps, and never two that run."""
    world = World(replace(source, has_job=False), target, goal)
    before = world.running

    for _ in range(14):
        seen = {"source": world.source, "target": world.target}
        if silences:
            seen[silences.pop()] = UNKNOWN
        step = decide(seen["source"], seen["target"], world.goal)
        if step.is_final:
            break
        world.take(step)
        assert world.running <= max(before, 1)
    else:
        held = (Presence.HELD, Presence.UNKNOWN)
        assert world.source.presence is Presence.UNKNOWN or world.target.presence in held
        return

    if step is Next.STAYED:
        assert world.source.presence.is_alive
        assert not world.target.presence.is_alive
    if step is Next.MOVED:
        assert not world.source.presence.is_alive
