"""Who is stopped when, where children say what they depend on."""

from __future__ import annotations

from supervisor.core import events
from supervisor.core.reason import ExitKind, ExitReason
from supervisor.core.spec import ChildSpec, SupervisorSpec
from supervisor.testing.driver import Driver

STOP = events.StopAll(ExitReason(kind=ExitKind.SHUTDOWN))


def _asked(driver: Driver) -> list[str]:
    """Who is being stopped."""
    return sorted(name for name, state in driver.states().items() if state == "stopping")


def _driver(*children: ChildSpec) -> Driver:
    return Driver(SupervisorSpec(children=children)).begin().run(5.0)


def _child(name: str, depends_on: tuple[str, ...] | None, phase: int = 0) -> ChildSpec:
    return ChildSpec(id=name, start="m:C", depends_on=depends_on, phase=phase)


def test_whom_nobody_needs_is_stopped_together() -> None:
    """Independent children are asked at once; a stop takes as long as the slowest."""
    driver = _driver(_child("a", ()), _child("b", ()), _child("c", ()))
    driver.send(STOP)
    assert _asked(driver) == ["a", "b", "c"]


def test_who_is_needed_is_stopped_after_those_that_need_it() -> None:
    """A database ends after its users, however long they take."""
    driver = _driver(_child("db", ()), _child("web", ("db",)), _child("log", ()))
    driver.send(STOP)
    assert _asked(driver) == ["log", "web"]
    driver.crash("web")
    assert "db" in _asked(driver)


def test_otps_order_needs_all_before_it() -> None:
    """A child that says nothing is stopped before everything in front of it."""
    driver = _driver(_child("a", ()), _child("b", None), _child("c", ()))
    driver.send(STOP)
    assert _asked(driver) == ["b", "c"]


def test_later_boot_phases_are_stopped_first() -> None:
    """A node goes down phase by phase, also where nobody says that it depends on anybody."""
    driver = _driver(_child("early", (), 2), _child("late", (), 6))
    driver.send(STOP)
    assert _asked(driver) == ["late"]
    driver.crash("late")
    assert _asked(driver) == ["early"]
