"""Leases as lines for a terminal."""

from __future__ import annotations

from services.ctl.leases import render_leases
from services.ctl.styled import Line
from services.network.serving.leases import Lease
from services.network.serving.messages import LeasesView

NOW_S = 1_700_000_000.0


def texts(lines: list[Line]) -> list[str]:
    """What is written, without colours."""
    return ["".join(span.text for span in item).rstrip() for item in lines]


def test_each_lease_is_a_line_with_the_time_that_is_left() -> None:
    """One that never ends says so, and what is not known is a dash."""
    view = LeasesView(
        leases=(
            Lease(
                network="lan",
                address="10.20.0.11",
                mac="52:54:00:00:00:01",
                hostname="web",
                expires_s=NOW_S + 90,
            ),
            Lease(network="lan", address="fd00::2"),
        ),
        omitted=3,
    )
    found = texts(render_leases(view, now_s=NOW_S, width=100))
    assert found[0].split() == ["NETWORK", "ADDRESS", "MAC", "NAME", "EXPIRES", "IN"]
    assert found[1].split() == ["lan", "10.20.0.11", "52:54:00:00:00:01", "web", "1m", "30s"]
    assert found[2].split() == ["lan", "fd00::2", "-", "-", "never"]
    assert found[3] == "and 3 more; name a network"


def test_no_lease_is_said() -> None:
    """An empty table would look like a fault."""
    assert texts(render_leases(LeasesView(), now_s=NOW_S, width=80)) == ["no address is given out"]
