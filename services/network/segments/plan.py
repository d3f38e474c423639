"""What a change of the document means, for people and programs. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.network.segments.model import (
    Direction,
    SegmentDocument,
    SegmentInterface,
    SegmentRule,
)


class StepKind(enum.Enum):
    """What happens to a part of the document."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentStep:
    """One part that differs.

    Attributes:
        subject: such as ``interface vnet0``, ``label app`` or ``guarded``.
        details: one per difference, beginning with ``+`` or ``-``.
    """

    kind: StepKind
    subject: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentPlan:
    """Reply to ``segments.plan``.

    Attributes:
        revision: of the set in force; 0 where none ever was.
        steps: what differs between it and the document, in the document's order.
        drift: what the kernel has instead of it, or "".
        commands: how many commands the one transaction takes.
        rules: rules in the document.
        elements: elements of sets that they make.
        warnings: what is allowed and perhaps not meant.
    """

    revision: int
    steps: tuple[SegmentStep, ...] = ()
    drift: str = ""
    commands: int = 0
    rules: int = 0
    elements: int = 0
    warnings: tuple[str, ...] = ()


def plan_steps(known: SegmentDocument, wanted: SegmentDocument) -> tuple[SegmentStep, ...]:
    """The differences between two documents; empty where both mean the same."""
    steps = [
        step
        for title in ("guarded", "trusted")
        if (step := _lists(title, getattr(known, title), getattr(wanted, title))) is not None
    ]
    for label in sorted({*known.elsewhere, *wanted.elsewhere}):
        before, after = known.elsewhere.get(label, ()), wanted.elsewhere.get(label, ())
        if (step := _lists(f"label {label} elsewhere", before, after)) is not None:
            steps.append(step)
    steps += _interfaces(known, wanted)
    return tuple(steps)


def describe_rule(rule: SegmentRule) -> str:
    """A rule on one line, such as ``in tcp 443 from label:app (web)``."""
    words = [rule.direction.value, rule.protocol.value]
    if rule.ports:
        words.append(",".join(rule.ports))
    words.append("from" if rule.direction is Direction.IN else "to")
    words.append(" ".join(rule.peers))
    if rule.name:
        words.append(f"({rule.name})")
    return " ".join(words)


def _interfaces(known: SegmentDocument, wanted: SegmentDocument) -> Iterator[SegmentStep]:
    before = {item.name: item for item in known.interfaces}
    after = {item.name: item for item in wanted.interfaces}
    for name, item in after.items():
        subject = f"interface {name}"
        if name not in before:
            details = tuple(f"+ {text}" for text in _facts(item))
            yield SegmentStep(kind=StepKind.ADD, subject=subject, details=details)
        elif item != before[name]:
            differences = tuple(_differences(_facts(before[name]), _facts(item)))
            details = differences or ("+ the same rules in another order",)
            yield SegmentStep(kind=StepKind.CHANGE, subject=subject, details=details)
    for name in before:
        if name not in after:
            yield SegmentStep(kind=StepKind.REMOVE, subject=f"interface {name}")


def _facts(item: SegmentInterface) -> list[str]:
    return [
        f"mac {item.mac}",
        *(f"address {address}" for address in item.addresses),
        *(f"label {label}" for label in item.labels),
        *(["dhcp"] if item.dhcp else []),
        *(describe_rule(rule) for rule in item.rules),
    ]


def _lists(subject: str, before: Iterable[str], after: Iterable[str]) -> SegmentStep | None:
    details = tuple(_differences(list(before), list(after)))
    if not details:
        return None
    return SegmentStep(kind=StepKind.CHANGE, subject=subject, details=details)


def _differences(before: list[str], after: list[str]) -> Iterator[str]:
    yield from (f"- {text}" for text in before if text not in after)
    yield from (f"+ {text}" for text in after if text not in before)
