"""OTP's semantics one by one, as far as the state machine decides them.

The numbers are those of the list of sixty that the supervisor is held against; each test's
docstring begins with its own. 25 to 35 are in test_otp_strategies.py, 36 to 47 in
test_otp_intensity.py, 48 to 54 in test_otp_orders.py, 55 to 60 in test_otp_significant.py.
R means that the process around the state machine decides; tests with real processes prove those.

     1 test_a_child_has_no_process_before_the_one_before_it_is_up
     2 test_the_supervisor_is_up_only_when_its_last_child_is
     3 test_a_failed_first_start_rolls_back_and_names_the_cause
     4 test_the_first_start_is_tried_once_whatever_the_intensity
     5 test_declining_is_no_failure
       test_a_temporary_child_that_declines_is_forgotten
     6 test_validation_precedes_side_effects, test_spec.py
     7 test_the_defaults_are_those_of_otp, test_spec.py
     8 test_no_children_are_enough, test_a_supervisor_that_declines_is_listed_as_not_running
     9 test_stops_are_sequential_and_in_reverse
    10 test_a_deaf_child_is_killed_at_its_time_and_the_others_stop_in_order
    11 test_brutal_kill_never_asks
    12 test_infinity_never_kills
    13 test_an_early_exit_ends_the_wait
    14 test_a_crash_during_the_stop_changes_nothing
    15 R  the launcher's process groups and sub-reaper
    16 test_a_stop_wins_over_a_restart_loop
    17 R  the control channel's keys; test_words_of_strangers_are_dropped for late words
    18 R  the launcher
    19 test_a_permanent_child_is_restarted_after_any_end
    20 test_a_transient_child_that_ends_cleanly_stays_and_can_be_started
    21 test_a_transient_child_is_restarted_after_an_abnormal_end
    22 test_a_temporary_child_disappears_and_its_name_is_free
    23 test_an_end_that_is_not_restarted_triggers_no_strategy
    24 test_clean_ends_of_a_permanent_child_count
    25 test_one_for_one_replaces_the_dead_child_alone
    26 test_one_for_all_stops_all_in_reverse_then_starts_all
    27 test_rest_for_one_leaves_those_before
    28 test_temporary_bystanders_are_forgotten
    29 test_a_group_restart_does_not_bring_back_who_was_stopped_or_finished (differs)
    30 test_stops_of_siblings_are_no_failures
    31 test_deaths_found_together_count_once_for_all_and_each_for_one
    32 test_of_two_deaths_the_first_in_order_is_dealt_with_first (differs)
    33 test_one_for_all_begins_anew_when_another_child_fails
    34 test_rest_for_one_goes_on_where_another_child_fails
    35 test_children_added_at_run_time_are_last_in_order
    36 test_exactly_intensity_restarts_are_made
    37 test_the_budget_is_the_supervisors
    38 test_the_window_slides
    39 test_the_edge_of_the_window_is_inclusive_and_continuous (differs)
    40 test_failed_attempts_count_and_are_not_made_back_to_back (differs)
    41 test_orders_never_count
    42 test_a_child_that_is_slow_to_start_cannot_crash_for_ever (differs), test_spec.py
    43 R  the loop's monotonic clock; here time is an argument
    44 test_escalation_is_one_failure_to_the_parent
    45 test_a_transient_supervisor_that_escalates_is_restarted (differs)
    46 test_budgets_multiply
    47 test_a_restarted_supervisor_is_new
    48 test_adding_a_child_answers_as_start_child
    49 test_stopping_a_child_is_idempotent
    50 test_deleting_and_starting_refuse_what_runs
       test_a_start_by_order_that_fails_leaves_the_child_listed
    51 test_three_states_are_visible_and_a_stop_ends_the_retries
    52 test_the_counts_add_up
    53 test_what_happens_during_a_slow_stop_is_dealt_with_after_it
    54 test_a_pool_stops_at_once_and_addresses_no_specification
       test_a_pool_restarts_by_one_budget_and_forgets_who_is_stopped
    55 test_any_significant_end_ends_the_supervisor
    56 test_all_significant_waits_for_the_last
    57 test_ends_that_the_supervisor_causes_are_not_significant
    58 test_significant_children_are_refused_where_nobody_would_hear_them, test_spec.py
    59 test_auto_shutdown_goes_up_the_tree
    60 test_a_new_specification_is_applied_as_a_difference (differs)
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisor.core import events
from supervisor.core.queries import Presence
from supervisor.core.reason import ExitReason
from supervisor.core.spec import (
    AutoShutdown,
    RestartType,
    SpecError,
    SupervisorSpec,
)
from supervisor.core.supervisor import Supervisor
from supervisor.testing.driver import CRASH, KILLED, Behaviour, Driver
from tests.unit.supervisor.core.trees import (
    ALL,
    DECLINED,
    ESCALATED,
    NORMAL,
    ONE,
    PERMANENT,
    SHUTDOWN,
    TEMPORARY,
    TRANSIENT,
    child,
    nested,
    tree,
    up,
)


def test_every_number_has_a_test_that_exists() -> None:
    """The table above is complete and names no test that is not there."""
    rows = re.findall(r"^ +(\d+) (R|test_\w+)", __doc__ or "", flags=re.MULTILINE)
    named = set(re.findall(r"\b(test_(?!otp|spec)\w+)", __doc__ or ""))
    files = Path(__file__).parent.glob("test_otp_*.py")

    defined = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}

    assert [int(number) for number, _ in rows] == list(range(1, 61))
    assert named <= defined


def test_a_child_has_no_process_before_the_one_before_it_is_up() -> None:
    """1: ordered, synchronous start."""
    driver = Driver(tree("a", "b", "c"), {"a": Behaviour(ready_s=0.06)}).begin().run(1.0)

    assert driver.transcript == ["0.000 spawn a", "0.060 spawn b", "0.070 spawn c", "0.080 all up"]


def test_the_supervisor_is_up_only_when_its_last_child_is() -> None:
    """2: no AllUp while a child is still starting."""
    driver = Driver(tree("a", "b"), {"b": Behaviour(ready_s=5.0)}).begin().run(5.0)
    driver.transcript.assert_never("all up")

    driver.run(0.1)

    driver.transcript.assert_order("spawn b", "all up")


def test_a_failed_first_start_rolls_back_and_names_the_cause() -> None:
    """3: what was started stops in reverse, nothing further starts, the end names the child."""
    driver = Driver(tree("a", "b", "c", "d"), {"c": Behaviour(failing_starts=9)}).begin().run(1.0)

    assert driver.done()[3:] == ["stop b", "stop a", "finish start_failed"]
    assert driver.final is not None
    assert (driver.final.origin, driver.final.detail) == ("c", "exit code 1")


def test_the_first_start_is_tried_once_whatever_the_intensity() -> None:
    """4: a retry of the first start is the parent's business."""
    driver = Driver(tree("a", intensity=9), {"a": Behaviour(failing_starts=1)}).begin().run(9.0)

    assert driver.done() == ["spawn a", "finish start_failed"]


def test_declining_is_no_failure() -> None:
    """5: the next children start, and the one that declined can be started by id."""
    b = Behaviour(failing_starts=1, start_failure=DECLINED)
    spec = tree("a", "b", child("c", depends_on=("b",)))
    driver = Driver(spec, {"b": b}).begin().run(1.0)
    before = driver.states()

    driver.send(events.StartChild("b", is_strict=True))
    driver.run(1.0)

    assert before == {"a": "up", "b": "stopped", "c": "up"}
    assert driver.states()["b"] == "up"


def test_a_temporary_child_that_declines_is_forgotten() -> None:
    """5: as any temporary child that is not running."""
    b = Behaviour(failing_starts=1, start_failure=DECLINED)

    driver = Driver(tree("a", child("b", TEMPORARY), "c"), {"b": b}).begin().run(1.0)

    assert driver.states() == {"a": "up", "c": "up"}


def test_validation_precedes_side_effects() -> None:
    """6: a specification that is refused has started nothing, for there is no machine."""
    with pytest.raises(SpecError, match="used twice"):
        Supervisor(tree("a", "b", "a"))


def test_the_defaults_are_those_of_otp() -> None:
    """7: as the reference lists them, and visible when the specification is read back."""
    spec = Supervisor(SupervisorSpec(children=(child("a"),))).spec

    assert (spec.strategy, spec.auto_shutdown) == (ONE, AutoShutdown.NEVER)
    assert (spec.intensity.intensity, spec.intensity.period_s) == (1, 5.0)
    assert (spec.children[0].restart, spec.children[0].shutdown_s) == (PERMANENT, 5.0)
    assert not spec.children[0].significant
    assert nested("sub", spec).shutdown_s is None


def test_no_children_are_enough() -> None:
    """8: an empty supervisor is up at once and can be stopped."""
    driver = Driver(tree()).begin()
    driver.send(SHUTDOWN)

    assert driver.done() == ["all up", "finish shutdown"]


def test_a_supervisor_that_declines_is_listed_as_not_running() -> None:
    """8: no error, no restart."""
    spec = tree("a", nested("sub", tree("x")))
    sub = Behaviour(failing_starts=1, start_failure=DECLINED)

    driver = Driver(spec, {"sub": sub}).begin().run(9.0)

    assert driver.machine.which_children()[1].presence is Presence.NOT_RUNNING
    assert driver.done() == ["spawn a", "spawn sub", "all up"]


def test_stops_are_sequential_and_in_reverse() -> None:
    """9: three children of 50 ms take 150 ms."""
    driver = up(tree("a", "b", "c"), **{name: Behaviour(stop_s=0.05) for name in "abc"})

    driver.send(SHUTDOWN)
    driver.run(1.0)

    assert driver.transcript == [
        "1.000 stop c",
        "1.050 stop b",
        "1.100 stop a",
        "1.150 finish shutdown",
    ]


def test_a_deaf_child_is_killed_at_its_time_and_the_others_stop_in_order() -> None:
    """10: and the supervisor's own end is clean."""
    driver = up(tree("a", child("b", shutdown_s=0.2)), b=Behaviour(stop_s=None))

    driver.send(SHUTDOWN)
    driver.run(1.0)

    assert driver.transcript[:3] == ["1.000 stop b", "1.200 kill b", "1.200 stop a"]
    assert driver.done()[-1] == "finish shutdown"


def test_brutal_kill_never_asks() -> None:
    """11: shutdown_s of 0."""
    driver = up(tree(child("a", shutdown_s=0.0)))

    driver.send(SHUTDOWN)
    driver.run(1.0)

    assert driver.done() == ["kill a", "finish shutdown"]


def test_infinity_never_kills() -> None:
    """12: shutdown_s of None, for workers too."""
    driver = up(tree(child("a", shutdown_s=None)), a=Behaviour(stop_s=700.0))

    driver.send(SHUTDOWN)
    driver.run(699.0)
    assert driver.done() == ["stop a"]
    driver.run(1.0)

    assert driver.done() == ["finish shutdown"]


def test_an_early_exit_ends_the_wait() -> None:
    """13: the next child is asked as soon as the one before is gone, not at its time."""
    driver = up(tree("a", child("b", shutdown_s=5.0)))

    driver.send(SHUTDOWN)
    driver.run(1.0)

    assert driver.transcript[:2] == ["1.000 stop b", "1.010 stop a"]


def test_a_crash_during_the_stop_changes_nothing() -> None:
    """14: neither the order nor the supervisor's own end, even where nobody has asked it yet."""
    driver = up(tree("a", "b", "c", intensity=0), c=Behaviour(stop_s=0.5))
    driver.send(SHUTDOWN)

    driver.crash("a")
    driver.run(1.0)

    assert driver.done() == ["stop c", "stop b", "finish shutdown"]


def test_a_stop_wins_over_a_restart_loop() -> None:
    """16: a child that fails every attempt does not keep the supervisor from ending."""
    a = Behaviour()
    driver = up(tree("a", "b", intensity=10**6), a=a)
    a.failing_starts = 10**6
    driver.crash("a")
    driver.run(0.3)

    driver.send(SHUTDOWN)
    driver.run(0.02)

    assert driver.final is not None


def test_words_of_strangers_are_dropped() -> None:
    """17: what does not come from the present process of a child changes nothing."""
    driver = up(tree("a"))

    for event in (
        events.Exited("a", 7, CRASH),
        events.BecameReady("b", 1),
        events.Spawned("a", 0, 1),
        events.ExitedTogether((events.Exited("a", 2, CRASH), events.Exited("x", 1, CRASH))),
    ):
        driver.send(event)

    assert (driver.done(), driver.states()) == ([], {"a": "up"})


@pytest.mark.parametrize("reason", [NORMAL, CRASH, KILLED, DECLINED, ESCALATED])
def test_a_permanent_child_is_restarted_after_any_end(reason: ExitReason) -> None:
    """19: clean or not."""
    driver = up(tree("a"))

    driver.crash("a", reason)

    assert driver.done() == ["spawn a"]


def test_a_transient_child_that_ends_cleanly_stays_and_can_be_started() -> None:
    """20: it is listed as not running."""
    driver = up(tree(child("a", TRANSIENT)))
    driver.crash("a", NORMAL)
    driver.run(9.0)
    assert (driver.done(), driver.states()) == ([], {"a": "stopped"})

    driver.send(events.StartChild("a", is_strict=True))
    driver.run(1.0)

    assert driver.states() == {"a": "up"}


@pytest.mark.parametrize("reason", [CRASH, KILLED, ESCALATED])
def test_a_transient_child_is_restarted_after_an_abnormal_end(reason: ExitReason) -> None:
    """21: any other end, SIGKILL and escalation included."""
    driver = up(tree(child("a", TRANSIENT)))

    driver.crash("a", reason)

    assert driver.done() == ["spawn a"]


@pytest.mark.parametrize("how", ["normal", "crash", "stop"])
def test_a_temporary_child_disappears_and_its_name_is_free(how: str) -> None:
    """22: however it ended; the same id can be added at once, and is not mistaken for the old."""
    spec = child("a", TEMPORARY)
    driver = up(tree(spec, "b"))
    before = driver.machine.children["a"].incarnation
    if how == "stop":
        driver.send(events.StopChild("a"))
    else:
        driver.crash("a", NORMAL if how == "normal" else CRASH)
    driver.run(1.0)
    assert driver.states() == {"b": "up"}

    driver.send(events.AddChild(spec))
    driver.run(1.0)

    assert driver.states() == {"b": "up", "a": "up"}
    assert driver.machine.children["a"].incarnation > before


@pytest.mark.parametrize(
    ("restart", "reason"), [(TRANSIENT, NORMAL), (TEMPORARY, CRASH), (TEMPORARY, NORMAL)]
)
def test_an_end_that_is_not_restarted_triggers_no_strategy(
    restart: RestartType, reason: ExitReason
) -> None:
    """23: the siblings keep their processes."""
    driver = up(tree("a", child("b", restart), "c", strategy=ALL))

    driver.crash("b", reason)
    driver.run(1.0)

    assert driver.done() == []


def test_clean_ends_of_a_permanent_child_count() -> None:
    """24: just like crashes."""
    driver = up(tree("a", intensity=1))

    driver.crash("a", NORMAL)
    driver.run(1.0)
    driver.crash("a", NORMAL)

    assert driver.done() == ["spawn a", "finish escalated"]
