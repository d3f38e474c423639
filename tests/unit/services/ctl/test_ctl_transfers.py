"""Transfers as novacronctl dwcp shows them."""

from __future__ import annotations

import dataclasses

import pytest

from services.ctl.errors import CtlError, UsageError
from services.ctl.styled import to_plain
from services.ctl.transfers import (
    find_transfer,
    parse_address,
    render_dwcp,
    render_end,
    render_progress,
    render_transfers,
)
from services.dwcp.model import (
    Direction,
    DwcpStatus,
    Totals,
    TransferState,
    TransferStatus,
    TransportHealth,
)

MOVING = TransferStatus(
    transfer="3fa9c1d2" + "0" * 24,
    direction=Direction.SEND,
    state=TransferState.MOVING,
    file="/srv/disk.raw",
    peer="10.0.0.2:7800",
    size_bytes=4 << 30,
    done_bytes=1 << 30,
    rate_bytes_s=200.0 * (1 << 20),
    eta_s=16.0,
    streams=8,
    started_s=1000.0,
)
FAILED = TransferStatus(
    transfer="3fb00000" + "0" * 24,
    direction=Direction.RECEIVE,
    state=TransferState.FAILED,
    file="a.img",
    peer="10.0.0.3:40022",
    ended_s=1003.0,
    error="dwcp.cancelled",
    message="cancelled by the sender",
)
FINISHED = TransferStatus(
    transfer="40000000" + "0" * 24,
    direction=Direction.SEND,
    state=TransferState.FINISHED,
    file="/srv/disk.raw",
    peer="10.0.0.2:7800",
    size_bytes=1 << 30,
    done_bytes=1 << 30,
    data_bytes=1 << 30,
    wire_bytes=1 << 28,
    rate_bytes_s=512.0 * (1 << 20),
    streams=16,
    started_s=1000.0,
    ended_s=1002.0,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host:7800", ("host", 7800)),
        ("10.0.0.2:1", ("10.0.0.2", 1)),
        ("[2001:db8::2]:7800", ("2001:db8::2", 7800)),
    ],
)
def test_address(text: str, address: tuple[str, int]) -> None:
    """A host and a port, IPv6 in brackets."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text", ["host", "host:", ":7800", "host:x", "::1:7800", "h:123456", "h:٣"]
)
def test_bad_address(text: str) -> None:
    """Anything else is refused with what was meant to be there."""
    with pytest.raises(UsageError):
        parse_address(text)


def test_transfer_is_found_by_a_unique_beginning() -> None:
    """A few digits of an id are enough; too few are refused, as are unknown ones."""
    assert find_transfer((MOVING, FAILED), "3FA") is MOVING
    with pytest.raises(CtlError, match="2 transfers"):
        find_transfer((MOVING, FAILED), "3f")
    assert find_transfer((MOVING, dataclasses.replace(MOVING, direction=Direction.RECEIVE)), "3fa")
    with pytest.raises(CtlError, match="no transfers"):
        find_transfer((MOVING,), "9")


def test_table_of_transfers() -> None:
    """Who sends what to whom, how far it is, and why it failed."""
    lines = [to_plain(spans) for spans in render_transfers((MOVING, FAILED), width=120)]

    assert lines == [
        "ID              STATE   DONE     SIZE       RATE  LEFT  STREAMS  PEER            FILE",
        "3fa9c1d2  to    moving   25%  4.0 GiB  200 MiB/s   16s        8  10.0.0.2:7800   disk.raw",
        "3fb00000  from  failed    0%      0 B      0 B/s     -        0  10.0.0.3:40022  a.img",
        "    cancelled by the sender",
    ]
    assert [to_plain(spans) for spans in render_transfers((), width=80)] == ["no transfers"]


def test_status_of_dwcp() -> None:
    """Before the transfers: where files are taken, by which processes, and the totals."""
    status = DwcpStatus(
        address="127.0.0.1:7800",
        transports=(
            TransportHealth(id="transport.0", is_available=True, transfers=1),
            TransportHealth(id="transport.1", is_available=False, transfers=0),
        ),
        totals=Totals(sent_transfers=2, sent_bytes=5 << 20, failed_transfers=1),
        transfers=(),
    )

    assert [to_plain(spans) for spans in render_dwcp(status, width=80)] == [
        "address   127.0.0.1:7800",
        "carriers  transport.0, transport.1 (not available)",
        "so far    2 sent (5.0 MiB), 0 received (0 B), 1 failed",
        "",
        "no transfers",
    ]


def test_progress_and_end() -> None:
    """While it runs: share, amount, rate, time left. At the end: what it took."""
    assert (
        to_plain(render_progress(MOVING))
        == "moving     25%  1.0 GiB of 4.0 GiB  200 MiB/s, 8 streams, 16s left"
    )
    assert (
        to_plain(render_end(FINISHED)) == "sent: /srv/disk.raw to 10.0.0.2:7800: 1.0 GiB in 2.00 s,"
        " 512 MiB/s, 25% of it on the wire, 16 streams"
    )
    assert (
        to_plain(render_end(FAILED))
        == "failed: a.img to 10.0.0.3:40022: cancelled by the sender (dwcp.cancelled)"
    )
