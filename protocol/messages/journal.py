"""The node's journal: what happened, numbered, kept by the root and read by everybody.

A reader calls ``journal`` at the root with a JournalQuery and gets a JournalPage. It asks again
with ``since`` set to the page's ``next``; the root holds the answer back until there is something
or ``wait_s`` has passed. So a reader that was away misses nothing that the journal still holds,
and is told how many records it no longer holds.
"""

from __future__ import annotations

from protocol.dataclass import dataclass, field
from protocol.records import Plain


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRecord:
    """One thing that happened.

    Attributes:
        seq: grows by one per record of one boot, from 1.
        time_s: Unix time.
        name: such as ``init:complete``, ``component:state`` or ``vm:started``.
        component: path of the component that it is about; ``novacron`` for the node.
        correlation: the request that led to it, or "".
        fields: plain data.
    """

    seq: int
    time_s: float
    name: str
    component: str
    correlation: str = ""
    fields: dict[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalQuery:
    """Records with ``seq >= since``, at most ``limit``, waiting up to ``wait_s`` for the first."""

    since: int = 0
    limit: int = 200
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPage:
    """Records in order.

    Attributes:
        boot_id: identifies the boot whose numbering this is; another one means a new journal.
        records: may be empty.
        next: the ``since`` of the next query.
        lost: records between ``since`` and the first one here that are no longer kept.
    """

    boot_id: str
    records: tuple[JournalRecord, ...]
    next: int
    lost: int = 0
