"""Documents for the tests of segments."""

from __future__ import annotations

from typing import Any

from services.network.segments.model import (
    Direction,
    IpProtocol,
    SegmentDocument,
    SegmentInterface,
    SegmentRule,
)


def rule(direction: str, *peers: str, protocol: str = "any", ports: tuple[str, ...] = (),
         name: str = "") -> SegmentRule:  # fmt: skip
    """A rule, shorter to write."""
    return SegmentRule(
        direction=Direction(direction),
        peers=peers,
        protocol=IpProtocol(protocol),
        ports=ports,
        name=name,
    )


def interface(number: int, *rules: SegmentRule, **more: Any) -> SegmentInterface:
    """The interface vnet<number> with one IPv4 address."""
    fields: dict[str, Any] = {
        "name": f"vnet{number}",
        "mac": f"52:54:00:00:{number >> 8:02x}:{number & 255:02x}",
        "addresses": (f"10.20.{number >> 8}.{number & 255}",),
        "rules": rules,
        **more,
    }
    return SegmentInterface(**fields)


def document(*interfaces: SegmentInterface, **more: Any) -> SegmentDocument:
    """A document of these interfaces."""
    return SegmentDocument(interfaces=interfaces, **more)
