"""dnsmasq's file of leases, read. Pure.

    <expires> <mac> <address> <name or *> <client id or *>       IPv4
    duid <the server's>
    <expires> <iaid> <address> <name or *> <client's duid>       IPv6

Names come from guests: whatever else than a host's name they send is not shown.

Source: dnsmasq 2.90, lease.c; 0 as expires is for ever.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

FILE_BYTES_MAX = 16 << 20
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,253})")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
# A DUID of kind 1 or 3 over Ethernet ends with the hardware address (RFC 8415 section 11).
_DUID = re.compile(r"00:0(?:1:00:01:(?:[0-9a-f]{2}:){4}|3:00:01:)((?:[0-9a-f]{2}:){5}[0-9a-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An address that was given out.

    Attributes:
        mac: of the machine; "" where an IPv6 client does not tell.
        hostname: as the machine calls itself; "" for none.
        expires_s: Unix time; None for never.
    """

    network: str
    address: str
    mac: str = ""
    hostname: str = ""
    expires_s: float | None = None


def parse(network: str, text: str) -> list[Lease]:
    """The leases in a file; lines that are none are left out, such as one being written."""
    found = []
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) < 4 or not words[0].isdigit() or not words[0].isascii():
            continue
        try:
            address = ipaddress.ip_address(words[2])
        except ValueError:
            continue
        expires_s = float(words[0][:15])
        found.append(
            Lease(
                network=network,
                address=str(address),
                mac=_mac(words, address.version),
                hostname=words[3] if _NAME.fullmatch(words[3]) else "",
                expires_s=expires_s or None,
            )
        )
    return sorted(found, key=_place)


def current(leases: list[Lease], now_s: float) -> list[Lease]:
    """Those that have not expired."""
    return [lease for lease in leases if lease.expires_s is None or lease.expires_s > now_s]


def _mac(words: list[str], version: int) -> str:
    if version == 4:
        mac = words[1].rpartition("-")[2].lower()
        return mac if _MAC.fullmatch(mac) else ""
    duid = words[4].lower() if len(words) > 4 else ""
    found = _DUID.fullmatch(duid)
    return found.group(1) if found else ""


def _place(lease: Lease) -> tuple[int, int]:
    address = ipaddress.ip_address(lease.address)
    return address.version, int(address)
