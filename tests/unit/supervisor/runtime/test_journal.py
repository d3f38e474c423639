"""Readers of the journal miss nothing that is kept, and are told what is not."""

from __future__ import annotations

from protocol.messages.control import EventReport
from protocol.messages.journal import JournalPage, JournalQuery
from supervisor.runtime.journal import GATHER_S, READERS_MAX, RECORDS_MAX, Journal


def filled(count: int) -> Journal:
    """A journal with so many records."""
    journal = Journal("boot")
    for number in range(count):
        journal.append(EventReport(name=f"e:{number}", component="a"), 0.0)
    return journal


def test_a_reader_goes_on_where_it_stopped() -> None:
    """Page after page, every record once."""
    journal, since, seen = filled(7), 0, []

    while (page := journal.page(JournalQuery(since=since, limit=3))).records:
        seen += [record.seq for record in page.records]
        since = page.next

    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_a_reader_that_was_away_is_told_what_it_missed() -> None:
    """The oldest records make room, and the page says how many."""
    journal = filled(RECORDS_MAX + 10)

    page = journal.page(JournalQuery(since=5, limit=1))

    assert page.records[0].seq == 11
    assert page.lost == 6


def test_a_waiting_reader_is_answered_by_the_next_record() -> None:
    """A long poll ends with what it waited for, and with what came right after it."""
    journal, answers = filled(2), list[JournalPage]()
    journal.read(JournalQuery(since=3, wait_s=10.0), 100.0, answers.append)
    journal.turn(101.0)
    assert answers == []

    journal.append(EventReport(name="e:new", component="a"), 0.0)
    journal.turn(102.0)
    assert journal.due_s() == 102.0 + GATHER_S
    journal.append(EventReport(name="e:next", component="a"), 0.0)
    journal.turn(102.0 + GATHER_S)

    assert [[record.name for record in page.records] for page in answers] == [["e:new", "e:next"]]


def test_a_waiting_reader_gets_an_empty_page_in_time() -> None:
    """The wait is bounded, and the numbering is not lost."""
    journal, answers = filled(2), list[JournalPage]()
    journal.read(JournalQuery(since=3, wait_s=10.0), 100.0, answers.append)

    journal.turn(110.0)

    assert answers == [JournalPage(boot_id="boot", records=(), next=3)]


def test_too_many_readers_push_out_the_oldest() -> None:
    """Nobody can fill the root's memory with waiting calls."""
    journal, answers = filled(0), list[JournalPage]()
    for _ in range(READERS_MAX + 1):
        journal.read(JournalQuery(since=1, wait_s=10.0), 0.0, answers.append)

    assert len(answers) == 1


def test_a_since_of_another_boot_starts_over() -> None:
    """A reader that is ahead of a new journal sees the boot's id and can begin again."""
    page = filled(2).page(JournalQuery(since=500))

    assert page.boot_id == "boot"
    assert page.next == 3
