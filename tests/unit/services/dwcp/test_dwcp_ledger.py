"""The manager's book: each transfer starts once, ends once, and is counted once."""

import dataclasses

import pytest

from services.dwcp.ledger import HISTORY_MAX, ROUTE_S, SILENT_S, UNAVAILABLE_S, Ledger
from services.dwcp.model import (
    Direction,
    Totals,
    TransferState,
    TransferStatus,
    TransportReport,
)

T0, T1 = "transport.0", "transport.1"
UNIX_S = 1e9


def make_status(name="a", *, state=TransferState.MOVING, transport=T0, **change):
    """The status of a transfer of ten bytes."""
    fields = {"direction": Direction.SEND, "file": "/f", "peer": "p:1", "size_bytes": 10, **change}
    return TransferStatus(transfer=name, state=state, transport=transport, **fields)


def report(ledger, *statuses, transport=T0, incarnation="one", now_s=1.0):
    """Give a report to the ledger; the changes as (transfer, what)."""
    changes = ledger.take_report(
        transport,
        TransportReport(incarnation=incarnation, transfers=statuses),
        now_s=now_s,
        unix_s=UNIX_S,
    )
    return [(c.status.transfer, c.status.state.value if c.has_ended else "start") for c in changes]


def silence(ledger, now_s, *, is_gone=True):
    """Tell the ledger that a transport gave no report."""
    return ledger.take_silence(T0, now_s=now_s, unix_s=UNIX_S, is_gone=is_gone)


def test_a_transfer_starts_and_ends_once():
    """However often it is reported, each change is said once."""
    ledger = Ledger([T0])
    running, ended = make_status(), make_status(state=TransferState.FINISHED)

    changes = [report(ledger, status) for status in (running, running, ended, ended)]

    assert changes == [[("a", "start")], [], [("a", "finished")], []]
    assert ledger.totals == Totals(sent_transfers=1, sent_bytes=10)


def test_a_short_transfer_still_starts_and_ends():
    """One that came and went between two reports is not missed."""
    ledger = Ledger([T0])

    changes = report(ledger, make_status(state=TransferState.FAILED))

    assert changes == [("a", "start"), ("a", "failed")]
    assert ledger.totals == Totals(failed_transfers=1)


def test_both_sides_of_one_transfer_on_one_node_are_two():
    """A node may send to itself."""
    ledger = Ledger([T0])
    done = TransferState.FINISHED

    report(
        ledger,
        make_status(state=done),
        make_status(state=done, direction=Direction.RECEIVE),
    )

    assert ledger.totals == Totals(
        sent_transfers=1, sent_bytes=10, received_transfers=1, received_bytes=10
    )


def test_ended_transfers_are_handed_back_until_forgotten():
    """The transport keeps an ended transfer until the manager says that it took note."""
    ledger = Ledger([T0])
    ended = make_status(state=TransferState.FINISHED)

    report(ledger, ended)
    assert ledger.query(T0) == (ended.key,)
    report(ledger)

    assert ledger.query(T0) == ()


def test_a_new_incarnation_means_lost_transfers():
    """What the dead process carried has failed, with a code that says so."""
    ledger = Ledger([T0])
    report(ledger, make_status())

    changes = report(ledger, incarnation="two")

    assert changes == [("a", "failed")]
    [status] = ledger.transfers()
    assert (status.error, status.ended_s) == ("dwcp.transport_lost", UNIX_S)


def test_a_transfer_that_its_transport_forgot_has_failed():
    """Nothing runs forever in the book that runs nowhere else."""
    ledger = Ledger([T0])
    report(ledger, make_status())

    assert report(ledger) == [("a", "failed")]


@pytest.mark.parametrize(("is_gone", "limit_s"), [(True, UNAVAILABLE_S), (False, SILENT_S)])
def test_a_silent_transport_loses_its_transfers_in_time(is_gone, limit_s):
    """Just before the limit they live; at the limit they have failed."""
    ledger = Ledger([T0])
    report(ledger, make_status())
    silence(ledger, 10.0, is_gone=is_gone)

    assert silence(ledger, 9.9 + limit_s, is_gone=is_gone) == []
    assert len(silence(ledger, 10.0 + limit_s, is_gone=is_gone)) == 1
    assert not ledger.is_active


def test_a_transfer_once_given_up_stays_ended():
    """A transport that was only silent does not bring it back to life."""
    ledger = Ledger([T0])
    report(ledger, make_status())
    silence(ledger, 0.0)
    silence(ledger, UNAVAILABLE_S)

    assert report(ledger, make_status()) == []
    assert ledger.totals.failed_transfers == 1


def test_new_transfers_go_to_the_idlest_transport_that_answers():
    """Load counts, but a silent transport comes last."""
    ledger = Ledger([T0, T1])
    report(ledger, make_status())
    assert ledger.by_load() == [T1, T0]

    ledger.take_silence(T1, now_s=0.0, unix_s=UNIX_S, is_gone=True)

    assert ledger.by_load() == [T0, T1]


def test_incoming_streams_follow_the_first_one():
    """A route leads to one transport until the transfer has ended."""
    ledger = Ledger([T0, T1])
    ledger.add_route("a", T1, 1.0)
    incoming = make_status(transport=T1, direction=Direction.RECEIVE)
    report(ledger, incoming, transport=T1)
    assert ledger.route("a") == T1

    ended = dataclasses.replace(incoming, state=TransferState.FINISHED)
    report(ledger, ended, transport=T1)

    assert ledger.route("a") is None


def test_a_route_that_led_nowhere_expires():
    """A stream that the transport refused does not keep the manager awake."""
    ledger = Ledger([T0])
    ledger.add_route("a", T0, 0.0)

    report(ledger, now_s=ROUTE_S)
    assert ledger.is_active
    report(ledger, now_s=ROUTE_S + 0.1)

    assert not ledger.is_active


def test_the_history_is_bounded():
    """Old transfers leave the list, not the totals."""
    ledger = Ledger([T0])

    for number in range(HISTORY_MAX + 5):
        ledger.take_status(make_status(str(number), state=TransferState.FINISHED))

    assert len(ledger.transfers()) == HISTORY_MAX
    assert ledger.totals.sent_transfers == HISTORY_MAX + 5


def test_availability_needs_an_answer():
    """A transport counts as available from its first report to its first silence."""
    ledger = Ledger([T0])
    seen = [ledger.health()[0].is_available]

    report(ledger)
    seen.append(ledger.health()[0].is_available)
    silence(ledger, 1.0)
    seen.append(ledger.health()[0].is_available)

    assert seen == [False, True, False]


def test_earlier_totals_are_added_to_those_of_this_run():
    """What the last run counted may come after something was counted in this one."""
    ledger = Ledger([T0])
    report(ledger, make_status(state=TransferState.FINISHED))

    ledger.add_totals(Totals(sent_transfers=2, sent_bytes=7, failed_transfers=1))

    assert ledger.totals == Totals(sent_transfers=3, sent_bytes=17, failed_transfers=1)
