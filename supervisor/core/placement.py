"""Which child may run on which CPUs.

A CPU that a child is pinned to is that child's: all the others keep off it, at every level of the
tree, unless nothing would be left for them. The root itself is never pinned, since it must be able
to act wherever a CPU is free; a nested supervisor gets what its level shares, and its children
without CPUs of their own share that.
"""

from __future__ import annotations

from collections.abc import Collection

from supervisor.core.spec import ChildSpec, SupervisorSpec


def reserved_cpus(spec: SupervisorSpec) -> frozenset[int]:
    """The CPUs that some child is pinned to, at any level."""
    found: set[int] = set()
    specs = [spec]
    for level in specs:  # grows while it is walked
        for child in level.children:
            found.update(child.cpus)
            if child.children is not None:
                specs.append(child.children)
    return frozenset(found)


def shared_cpus(available: Collection[int], reserved: Collection[int]) -> frozenset[int]:
    """The CPUs of the children without CPUs of their own.

    Args:
        available: that the supervisor may give.
        reserved: see ``reserved_cpus``; for a nested supervisor none, as it was given none.
    """
    return frozenset(available) - frozenset(reserved) or frozenset(available)


def cpus_of(child: ChildSpec, shared: frozenset[int]) -> frozenset[int]:
    """The CPUs of one child."""
    return frozenset(child.cpus) or shared
