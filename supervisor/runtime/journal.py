"""The journal of one boot, in memory: bounded, numbered, and read by long polls."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable

from protocol.dataclass import dataclass
from protocol.messages.control import EventReport
from protocol.messages.journal import JournalPage, JournalQuery, JournalRecord

# Half an hour of a busy node; a reader that is away for longer is told what it missed.
RECORDS_MAX = 4096
PAGE_RECORDS_MAX = 500
WAIT_S_MAX = 60.0
READERS_MAX = 64
# Waiting readers are answered this long after the first new record. Records come in bursts, such
# as the five of one restart, and each answer wakes a process that would compete with the one that
# the records are about.
GATHER_S = 0.025


@dataclass(frozen=True, slots=True)
class _Reader:
    query: JournalQuery
    deadline_s: float
    answer: Callable[[JournalPage], None]


class Journal:
    """Keeps the records and the readers that wait for the next one.

    Args:
        boot_id: identifies the numbering.
    """

    def __init__(self, boot_id: str) -> None:
        self.boot_id = boot_id
        self._records: deque[JournalRecord] = deque(maxlen=RECORDS_MAX)
        self._next = 1
        self._readers: list[_Reader] = []
        self._has_news = False
        self._gather_until_s: float | None = None

    def append(self, report: EventReport, time_s: float) -> JournalRecord:
        """Number an event and keep it.

        Args:
            report: what happened.
            time_s: Unix time.
        """
        record = JournalRecord(
            seq=self._next,
            time_s=time_s,
            name=report.name,
            component=report.component,
            correlation=report.correlation,
            fields=report.fields,
        )
        self._next += 1
        self._records.append(record)
        self._has_news = True
        return record

    def page(self, query: JournalQuery) -> JournalPage:
        """The records that a query asks for, as far as they are kept."""
        since = max(query.since, 1)
        first = self._records[0].seq if self._records else self._next
        limit = max(1, min(query.limit, PAGE_RECORDS_MAX))
        start = max(0, since - first)
        records = tuple(itertools.islice(self._records, start, start + limit))
        following = records[-1].seq + 1 if records else max(since, first)
        return JournalPage(
            boot_id=self.boot_id,
            records=records,
            next=min(following, self._next),
            lost=max(0, first - since),
        )

    def read(
        self, query: JournalQuery, now_s: float, answer: Callable[[JournalPage], None]
    ) -> None:
        """Answer a query now, or as soon as there is something, or when its wait is over.

        Too many waiting readers push out the oldest, which gets what there is.
        """
        page = self.page(query)
        if page.records or query.wait_s <= 0:
            answer(page)
            return
        if len(self._readers) >= READERS_MAX:
            oldest = self._readers.pop(0)
            oldest.answer(self.page(oldest.query))
        if not self._readers:  # what is news to nobody need not be gathered
            self._has_news, self._gather_until_s = False, None
        deadline_s = now_s + min(query.wait_s, WAIT_S_MAX)
        self._readers.append(_Reader(query, deadline_s, answer))

    def due_s(self) -> float | None:
        """When ``turn`` is needed next."""
        if not self._readers:
            return None
        if self._has_news:
            return 0.0 if self._gather_until_s is None else self._gather_until_s
        return min(reader.deadline_s for reader in self._readers)

    def turn(self, now_s: float) -> None:
        """Answer the readers that have something to read or have waited long enough."""
        if self._has_news and self._readers:
            if self._gather_until_s is None:
                self._gather_until_s = now_s + GATHER_S
            if now_s < self._gather_until_s:
                return
        self._has_news, self._gather_until_s = False, None
        staying = []
        for reader in self._readers:
            page = self.page(reader.query)
            if page.records or reader.deadline_s <= now_s:
                reader.answer(page)
            else:
                staying.append(reader)
        self._readers = staying
