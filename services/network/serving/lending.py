"""The addresses that are given out: asked for, and counted.

networks.leases  {"network": name or ""}  -> LeasesView
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from protocol.errors import NovacronError
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import from_wire
from services.network.serving import leases
from services.network.serving.configs import Configs
from services.network.serving.errors import UnknownNetworkError
from services.network.serving.messages import LeasesRequest, LeasesView
from supervisor.child.service import Request, ServiceContext

# A lease takes some 150 bytes on the wire and a message holds 1 MiB.
LISTED_MAX = 4096


class Lending:
    """Leases of a host's networks, as their dnsmasq keep them.

    Args:
        context: the service's.
        configs: knows the files.
    """

    def __init__(self, context: ServiceContext, configs: Configs) -> None:
        self._context = context
        self._configs = configs

    def measure(self, networks: Sequence[str]) -> None:
        """Measure how many addresses each network has given out."""
        for name in networks:
            try:
                count = len(self._read(name))
            except NovacronError as exc:
                self._context.log.warning("leases_uncounted", network=name, reason=exc.message)
            else:
                self._set(name, count)

    def forget(self, network: str) -> None:
        """A network is served no more."""
        self._set(network, 0)

    def answer(self, request: Request, networks: Sequence[str]) -> LeasesView:
        """Answer ``networks.leases``.

        Args:
            request: as it arrived.
            networks: those that give out addresses.

        Raises:
            UnknownNetworkError: it is about another one.
            ServingStateError: a file can't be read.
        """
        wanted = check_request(request, networks)
        found = [lease for name in networks if wanted in ("", name) for lease in self._read(name)]
        listed = tuple(found[:LISTED_MAX])
        return LeasesView(leases=listed, omitted=len(found) - len(listed))

    def _read(self, name: str) -> list[leases.Lease]:
        text = self._configs.leases(name, leases.FILE_BYTES_MAX)
        return leases.current(leases.parse(name, text), time.time())

    def _set(self, name: str, count: int) -> None:
        labels = {"network": name}
        self._context.measure(
            MetricSample(MetricKind.GAUGE, "novacron_network_leases", count, labels)
        )


def check_request(request: Request, networks: Sequence[str]) -> str:
    """The network that a request is about; "" for all.

    Raises:
        UnknownNetworkError: it gives out no addresses here.
    """
    wanted = from_wire(LeasesRequest, request.body).network
    if wanted and wanted not in networks:
        known = f"; there are {', '.join(networks[:8])}" if networks else ""
        raise UnknownNetworkError(f"no network {wanted!r:.60} gives out addresses here{known}")
    return wanted
