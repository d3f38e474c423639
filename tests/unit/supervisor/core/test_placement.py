"""Who gets which CPUs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.placement import cpus_of, reserved_cpus, shared_cpus
from supervisor.core.spec import ChildSpec, ChildType, SupervisorSpec

CPUS = st.frozensets(st.integers(0, 15), min_size=1)


def _child(name: str, *cpus: int) -> ChildSpec:
    return ChildSpec(id=name, start="a:b", cpus=cpus)


def _level(name: str, *children: ChildSpec) -> ChildSpec:
    below = SupervisorSpec(children=children)
    return ChildSpec(id=name, type=ChildType.SUPERVISOR, children=below)


def test_cpus_are_reserved_from_any_level() -> None:
    """However deep the pinned child is."""
    spec = SupervisorSpec(children=(_child("a", 1), _level("b", _child("c"), _child("d", 2, 3))))

    assert reserved_cpus(spec) == {1, 2, 3}
    assert reserved_cpus(SupervisorSpec(children=(_child("a"),))) == frozenset()


def test_the_others_keep_off_reserved_cpus() -> None:
    """They share what is left; a pinned child has exactly its own."""
    shared = shared_cpus(range(4), {3})

    assert cpus_of(_child("a"), shared) == {0, 1, 2}
    assert cpus_of(_child("b", 3), shared) == {3}


def test_a_child_is_never_left_without_a_cpu() -> None:
    """Where everything is reserved, the others run everywhere."""
    assert shared_cpus({0, 1}, {0, 1}) == {0, 1}
    assert shared_cpus({0}, {0}) == {0}


@given(available=CPUS, reserved=st.frozensets(st.integers(0, 15)))
def test_the_shared_cpus_are_available_ones(
    available: frozenset[int], reserved: frozenset[int]
) -> None:
    """At least one, none that the supervisor may not give, and no reserved one if avoidable."""
    shared = shared_cpus(available, reserved)

    assert shared
    assert shared <= available
    assert shared.isdisjoint(reserved) or available <= reserved


@given(available=CPUS, reserved=st.frozensets(st.integers(0, 15)))
def test_a_nested_level_shares_what_it_was_given(
    available: frozenset[int], reserved: frozenset[int]
) -> None:
    """A supervisor that takes its own CPUs for what is available changes nothing further down."""
    shared = shared_cpus(available, reserved)

    assert shared_cpus(shared, ()) == shared
