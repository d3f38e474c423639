"""Following the journal through whatever happens to the root."""

from __future__ import annotations

import asyncio

import pytest

from protocol.errors import RemoteCallError
from protocol.messages.journal import JournalPage, JournalQuery, JournalRecord
from protocol.records import Plain, from_wire, to_wire
from services.data.journal_reader import follow
from supervisor.child.service import Request
from supervisor.testing.context import MemoryServiceContext


class _DoneError(Exception):
    """Ends a reader from its handler."""


def _page(boot_id: str, *seqs: int, next_: int | None = None, lost: int = 0) -> JournalPage:
    records = tuple(JournalRecord(seq=n, time_s=1.0, name="a:b", component="c") for n in seqs)
    return JournalPage(
        boot_id=boot_id, records=records, next=next_ or (seqs[-1] + 1 if seqs else 1), lost=lost
    )


class _Root:
    """Answers with prepared pages or errors and remembers what it was asked."""

    def __init__(self, *answers: JournalPage | Exception) -> None:
        self.answers = list(answers)
        self.queries: list[JournalQuery] = []

    async def journal(self, request: Request) -> Plain:
        self.queries.append(from_wire(JournalQuery, request.body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return to_wire(answer)


def _follow(root: _Root, pages: int, *, since: int = 0, boot_id: str = "") -> list[JournalPage]:
    """Run a reader until it has handed over so many pages."""
    context = MemoryServiceContext(path="x", peers={"novacron": {"journal": root.journal}})
    seen: list[JournalPage] = []

    async def handle(page: JournalPage) -> None:
        seen.append(page)
        if len(seen) == pages:
            raise _DoneError

    async def sleep(_seconds: float) -> None:
        return

    with pytest.raises(_DoneError):
        asyncio.run(follow(context, handle, since=since, boot_id=boot_id, sleep=sleep))
    return seen


def test_each_query_goes_on_where_the_page_ended() -> None:
    """No record twice, none left out."""
    root = _Root(_page("b", 1, 2), _page("b", 3))

    seen = _follow(root, 2)

    assert [query.since for query in root.queries] == [0, 3]
    assert [[record.seq for record in page.records] for page in seen] == [[1, 2], [3]]


def test_new_boot_is_read_from_its_first_record() -> None:
    """A page that was cut by the old boot's numbering is not handed over."""
    root = _Root(_page("b1", 1, 2, 3), _page("b2", 4, 5), _page("b2", 1, 2, 3, 4, 5))

    seen = _follow(root, 2)

    assert [query.since for query in root.queries] == [0, 4, 0]
    assert [(page.boot_id, len(page.records)) for page in seen] == [("b1", 3), ("b2", 5)]


def test_caller_that_knows_the_boot_is_protected_from_the_first_page_on() -> None:
    """A position from an earlier boot does not hide the new one's records."""
    root = _Root(_page("b2", 9), _page("b2", 1, 2, 9))

    seen = _follow(root, 1, since=7, boot_id="b1")

    assert [query.since for query in root.queries] == [7, 0]
    assert len(seen[0].records) == 3


def test_root_that_fails_for_a_while_is_asked_again_from_the_same_place() -> None:
    """A retryable error costs time and no record."""
    busy = RemoteCallError("busy", remote_code="x", remote_retryable=True)
    root = _Root(_page("b", 1), busy, busy, _page("b", 2))

    seen = _follow(root, 2)

    assert [query.since for query in root.queries] == [0, 2, 2, 2]
    assert [page.records[0].seq for page in seen] == [1, 2]


def test_pauses_grow_while_the_root_is_gone() -> None:
    """From 50 ms, doubling, to two seconds."""
    context = MemoryServiceContext(path="x")
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            raise _DoneError

    async def handle(_page: JournalPage) -> None:
        raise AssertionError

    with pytest.raises(_DoneError):
        asyncio.run(follow(context, handle, sleep=sleep))
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_refusal_ends_the_reader() -> None:
    """What would be refused again is an error of the caller's."""
    root = _Root(RemoteCallError("no such method", remote_code="protocol.no_method"))
    context = MemoryServiceContext(path="x", peers={"novacron": {"journal": root.journal}})

    async def handle(_page: JournalPage) -> None:
        raise AssertionError

    with pytest.raises(RemoteCallError):
        asyncio.run(follow(context, handle))


def test_empty_pages_are_handed_over_without_running_hot() -> None:
    """A root that answers at once with nothing is asked after a pause."""
    root = _Root(_page("b"), _page("b"), _page("b", 1))
    context = MemoryServiceContext(path="x", peers={"novacron": {"journal": root.journal}})
    pauses: list[float] = []
    seen: list[JournalPage] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def handle(page: JournalPage) -> None:
        seen.append(page)
        if page.records:
            raise _DoneError

    with pytest.raises(_DoneError):
        asyncio.run(follow(context, handle, sleep=sleep, clock=lambda: 0.0))
    assert len(seen) == 3
    assert pauses == [0.1, 0.1]


def test_lost_records_are_told() -> None:
    """The page says how many the journal no longer holds."""
    seen = _follow(_Root(_page("b", 41, lost=40)), 1)

    assert seen[0].lost == 40
