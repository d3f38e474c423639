"""dnsmasq's file of leases, as it may be and as guests may make it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.network.serving.leases import current, parse

FILE = """\
1700003600 52:54:00:00:00:01 10.20.0.150 web 01:52:54:00:00:00:01
0 52:54:00:00:00:02 10.20.0.11 * *
duid 00:01:00:01:32:54:c4:59:52:54:00:00:00:99
1700003600 5505025 fd00:20::150 web 00:01:00:01:32:54:c4:59:52:54:00:00:00:01
1700003600 7 fd00:20::151 * 00:03:00:01:52:54:00:00:00:02
1700003600 8 fd00:20::152 * 00:04:aa:bb
"""


def test_leases_of_both_families_are_read_in_the_order_of_addresses() -> None:
    """With the hardware address where the client's identifier has one."""
    found = parse("lan", FILE)
    assert [(lease.address, lease.mac, lease.hostname, lease.expires_s) for lease in found] == [
        ("10.20.0.11", "52:54:00:00:00:02", "", None),
        ("10.20.0.150", "52:54:00:00:00:01", "web", 1700003600.0),
        ("fd00:20::150", "52:54:00:00:00:01", "web", 1700003600.0),
        ("fd00:20::151", "52:54:00:00:00:02", "", 1700003600.0),
        ("fd00:20::152", "", "", 1700003600.0),
    ]


def test_an_expired_lease_is_none() -> None:
    """One without an end is always one."""
    found = current(parse("lan", FILE), 1700003600.0)
    assert [lease.address for lease in found] == ["10.20.0.11"]


def test_a_name_that_is_none_is_not_shown() -> None:
    """Guests choose it, and terminals and other programs read it."""
    (found,) = parse("lan", "0 52:54:00:00:00:01 10.0.0.2 \x1b[31mroot *")
    assert found.hostname == ""


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    """A line that is being written, or anything else, is left out."""
    for lease in parse("lan", text):
        assert lease.address
