"""Which machines start with the host, and in which order. Pure.

A boot of the host is known by the kernel's boot id::

    remembered boot      what is done
    none                 nothing: the platform is new here, or older than this record; what runs
                         and what does not is as somebody wanted it
    the present one      what was not dealt with yet is gone on with; what was stopped since by an
                         operator stays stopped
    another one          all machines whose documents say so are started
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from services.vm.autostart.model import AutostartOutcome, AutostartRecord, AutostartResult

if TYPE_CHECKING:
    from services.vm.documents.records import DocumentInfo

# After these a machine is tried again, as long as there are attempts left.
ATTEMPTS_MAX = 3
_NEVER_KNOWN = "the VM component ended each time while it started"
_OPEN = (AutostartOutcome.WAITING, AutostartOutcome.STARTING, AutostartOutcome.FAILED)


@dataclass(frozen=True, slots=True)
class Nothing:
    """All is dealt with."""


@dataclass(frozen=True, slots=True)
class Remember:
    """Remember this boot and start nothing."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Start all machines that are to start with the host."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """Start those that are not dealt with yet."""

    record: AutostartRecord


def decide(remembered: AutostartRecord | None, boot_id: str) -> Nothing | Remember | Begin | GoOn:
    """What is to be done after a start of the platform."""
    if remembered is None:
        return Remember()
    if remembered.boot_id != boot_id:
        return Begin()
    return Nothing() if remembered.is_over else GoOn(remembered)


def machines_to_start(documents: Iterable[DocumentInfo]) -> tuple[AutostartResult, ...]:
    """The machines, the highest priority first, then by name.

    A document that says ``power: off`` is not started: the next apply would stop it again.
    """
    chosen = [item for item in documents if item.autostart and item.power != "off"]
    chosen.sort(key=lambda item: (-item.priority, item.name))
    return tuple(AutostartResult(name=item.name, priority=item.priority) for item in chosen)


def levels(machines: Iterable[AutostartResult]) -> tuple[tuple[AutostartResult, ...], ...]:
    """Those that are to be tried, machines of one priority together, in the order of starting.

    Args:
        machines: the highest priority first.
    """
    tried = [item for item in machines if may_try(item)]
    return tuple(tuple(group) for _, group in groupby(tried, key=lambda item: item.priority))


def settled(record: AutostartRecord) -> AutostartRecord:
    """The record once nothing is tried any more.

    A machine whose start the component never outlived is one that failed.
    """
    machines = tuple(
        replace(item, outcome=AutostartOutcome.FAILED, message=_NEVER_KNOWN)
        if item.outcome is AutostartOutcome.STARTING
        else item
        for item in record.machines
    )
    return replace(record, is_over=True, machines=machines)


def may_try(machine: AutostartResult) -> bool:
    """It is not dealt with yet, and was not tried too often."""
    return machine.outcome in _OPEN and machine.attempts < ATTEMPTS_MAX
