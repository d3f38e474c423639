"""Where a reader is in a node's journal, across reboots of the node; pure."""

from __future__ import annotations

from protocol.messages.journal import JournalPage, JournalQuery, JournalRecord

_PAGE_RECORDS = 200


class JournalReader:
    """Asks for the next page each time, and starts anew when another boot answers.

    Attributes:
        since: number of the next record wanted.
    """

    def __init__(self) -> None:
        self.since = 0
        self._boot_id = ""

    def query(self, *, wait_s: float) -> JournalQuery:
        """What to ask next."""
        return JournalQuery(since=self.since, limit=_PAGE_RECORDS, wait_s=wait_s)

    def take(self, page: JournalPage) -> tuple[tuple[JournalRecord, ...], int]:
        """The page's records and how many were lost before them.

        A page of another boot than the last one yields nothing: it was asked for by the old
        boot's numbers, and the next query begins at the new one's beginning.
        """
        if self._boot_id and page.boot_id != self._boot_id and self.since > 0:
            self._boot_id, self.since = page.boot_id, 0
            return (), 0
        self._boot_id, self.since = page.boot_id, page.next
        return page.records, page.lost
