"""What the call about leases answers; light, because the command line reads it too."""

from __future__ import annotations

from dataclasses import dataclass

from services.network.serving.leases import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesRequest:
    """Body of ``networks.leases``; "" as network means all of them."""

    network: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesView:
    """Reply to ``networks.leases``.

    Attributes:
        leases: that have not expired, by network and address.
        omitted: how many more there are than a message holds.
    """

    leases: tuple[Lease, ...] = ()
    omitted: int = 0
