"""Children in one line each: what they stand for, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import supervisor
from supervisor import Service, specs
from supervisor.core.readiness import EXEC, ReadinessKind
from supervisor.core.spec import (
    AutoShutdown,
    ChildSpec,
    ChildType,
    FailureClass,
    RestartIntensity,
    RestartStrategy,
    RestartType,
    SpecError,
    SupervisorSpec,
    validate,
)
from supervisor.specs import Flags, command, loop, service, specification, subtree

RUN = Path("/run/example")


class Ours(Service):
    """A service at the top of its module."""


def test_a_command_is_up_at_once_and_inherits_nothing() -> None:
    """The usual program says nothing; its variables are those that are given."""
    child = command("web", ["python3", "-m", "http.server"], environment={"A": "b"})

    assert (child.type, child.readiness) == (ChildType.COMMAND, EXEC)
    assert child.settings["argv"] == ["python3", "-m", "http.server"]
    assert child.settings["environment"] == {"A": "b"}
    validate(SupervisorSpec(children=(child,)))


def test_a_command_may_be_relative_to_where_it_is_written() -> None:
    """The tree works in another directory, so paths are made absolute at once."""
    child = command("tool", ["./tool", "./argument"], directory="work")

    assert child.settings["argv"] == [str(Path.cwd() / "tool"), "./argument"]
    assert child.settings["directory"] == str(Path.cwd() / "work")


def test_readiness_is_written_as_people_write_it() -> None:
    """A text is read, a record taken as it is."""
    assert command("web", ["x"], ready="tcp:80").readiness.kind is ReadinessKind.TCP
    assert command("web", ["x"], ready=EXEC).readiness is EXEC


def test_options_are_those_of_the_specification() -> None:
    """Words stand for the members of enums, sequences for tuples."""
    child = service(
        "ours", Ours, restart="transient", failure="degraded", depends_on=["a"], shutdown_s=0
    )

    assert child.start == f"{Ours.__module__}:Ours"
    assert (child.restart, child.failure) == (RestartType.TRANSIENT, FailureClass.DEGRADED)
    assert (child.depends_on, child.shutdown_s) == (("a",), 0)


def test_each_kind_has_its_type() -> None:
    """A loop is a loop, and a subtree has its flags."""
    below = subtree("below", [loop("a", "m:A")], strategy="one_for_all", intensity=2, period_s=9.0)

    assert below.type is ChildType.SUPERVISOR
    assert below.children is not None
    assert below.children.strategy is RestartStrategy.ONE_FOR_ALL
    assert below.children.intensity == RestartIntensity(intensity=2, period_s=9.0)
    assert below.children.children[0].type is ChildType.LOOP
    assert below.shutdown_s is None


def test_defaults_are_otps() -> None:
    """What is not said is one_for_one, once in five seconds, permanent, five seconds to stop."""
    spec = specification([command("a", ["x"])], Flags())

    assert spec.strategy is RestartStrategy.ONE_FOR_ONE
    assert spec.intensity == RestartIntensity(intensity=1, period_s=5.0)
    assert (spec.children[0].restart, spec.children[0].shutdown_s) == (RestartType.PERMANENT, 5.0)


def test_the_end_of_a_significant_child_may_end_its_supervisor() -> None:
    """A job that is done, and a tree that is for nothing else."""
    job = command("job", ["true"], restart="transient", significant=True)

    spec = specification([job], Flags(auto_shutdown="any_significant"))

    assert spec.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT
    validate(spec)


def _local() -> ChildSpec:
    class Local(Service):
        pass

    return service("local", Local)


@pytest.mark.parametrize(
    "make",
    [
        lambda: command("a", []),
        lambda: command("a", "ls -l"),
        lambda: command("a", ["x"], ready="somehow"),
        lambda: command("a", ["x"], restart="always"),  # type: ignore[arg-type]  # refused
        lambda: service("a", "m:A", failure="bad"),  # type: ignore[arg-type]  # refused
        lambda: subtree("a", [], strategy="one"),  # type: ignore[arg-type]  # refused
        _local,
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], ChildSpec]) -> None:
    """A wrong word is found where it is written, and named."""
    with pytest.raises(SpecError):
        make()


@pytest.mark.parametrize("name", ["", "Web", "a/b", "9", "a_b", "novacron", "operator", "a" * 100])
def test_names_must_fit_sockets_and_keys(name: str) -> None:
    """An id is part of a file's name and of a path in the tree."""
    spec = specification([ChildSpec(id=name, start="m:A")], Flags())

    with pytest.raises(SpecError):
        specs.check_names(spec, RUN)


def test_names_below_are_checked_with_their_path() -> None:
    """The whole path has to fit, and what the tree uses at its top is free further down."""
    fitting = specification([subtree("below", [command("operator", ["x"])])], Flags())
    long = specification([subtree("b" * 40, [command("c" * 50, ["x"])])], Flags())

    specs.check_names(fitting, RUN)

    with pytest.raises(SpecError, match=f"{'b' * 40}/{'c' * 50}"):
        specs.check_names(long, RUN)


def test_everything_named_by_the_package_exists() -> None:
    """What the package offers can be had, and nothing else."""
    for name in dir(supervisor):
        assert getattr(supervisor, name) is not None

    with pytest.raises(AttributeError):
        supervisor.nothing  # type: ignore[attr-defined]  # noqa: B018 - that is the point
