"""A reader's place in the journal, and what counts as a change of the status."""

from __future__ import annotations

import dataclasses

from protocol.messages.journal import JournalPage, JournalRecord
from services.ctl.journal import JournalReader
from services.ctl.watch import essence
from tests.unit.services.ctl.ctl_samples import COMPONENTS, node


def page(boot_id: str, *numbers: int, after: int, lost: int = 0) -> JournalPage:
    """A page with records of these numbers."""
    records = tuple(
        JournalRecord(seq=seq, time_s=0.0, name="n", component="novacron") for seq in numbers
    )
    return JournalPage(boot_id=boot_id, records=records, next=after, lost=lost)


def test_reader_goes_on_where_it_was() -> None:
    """The next query begins after the last page."""
    reader = JournalReader()

    records, lost = reader.take(page("a", 5, 6, after=7, lost=4))

    assert ([record.seq for record in records], lost) == ([5, 6], 4)
    assert reader.query(wait_s=2.0).since == 7
    assert reader.query(wait_s=2.0).wait_s == 2.0


def test_reader_starts_anew_after_a_reboot() -> None:
    """A page of another boot was asked for by the wrong numbers, so it is asked for again."""
    reader = JournalReader()
    reader.take(page("a", 5, 6, after=7))

    assert reader.take(page("b", 7, after=8)) == ((), 0)
    assert reader.query(wait_s=0.0).since == 0
    records, _lost = reader.take(page("b", 1, 2, after=3))

    assert [record.seq for record in records] == [1, 2]


def test_passing_time_is_no_change() -> None:
    """Ages, memory and countdowns move by themselves and make no new status."""
    first = node()
    older = dataclasses.replace(
        first,
        platform=dataclasses.replace(first.platform, uptime_s=99_999.0),
        components=tuple(
            dataclasses.replace(item, uptime_s=5.0, memory_bytes=1, retry_in_s=1.0)
            for item in COMPONENTS
        ),
    )

    assert essence(first) == essence(older)


def test_restart_is_a_change() -> None:
    """Another pid, state or count of restarts makes a new status."""
    first = node()
    changed = dataclasses.replace(COMPONENTS[0], restarts=1)

    assert essence(first) != essence(node(components=(changed, *COMPONENTS[1:])))
