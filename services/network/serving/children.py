"""The dnsmasq processes, as children that the network service asks its supervisor for.

The supervisor has a template for them (``services.tree``): what runs is fixed, and an order says
for which network. They are the supervisor's: they live on when the network service dies, and are
found again by name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from protocol.errors import NovacronError, RemoteCallError
from protocol.messages.health import HealthState
from protocol.messages.status import NodeStatus
from protocol.names import ROOT, child_path, file_stem
from protocol.records import Plain, from_wire
from services.network.serving.errors import DnsmasqFailedError
from supervisor.child.service import ServiceContext

TEMPLATE = "dnsmasq"
SUPERVISOR = "core"
# dnsmasq waits up to a second for an IPv6 address to be sure of itself, and ports may be busy.
_START_TIMEOUT_S = 20.0
_TAIL_BYTES = 4096
_LINE_LETTERS = 300
_PREFIX = re.compile(r"^(\w{3} [ \d]\d [\d:]{8} )?dnsmasq(-\w+)?(\[\d+\])?: ")


class Processes(Protocol):
    """The dnsmasq processes, whoever keeps them."""

    async def start(self, network: str) -> None:
        """Have a network's dnsmasq run with what its file says now."""

    async def stop(self, network: str) -> None:
        """Have it stopped and forgotten."""

    async def states(self) -> dict[str, str]:
        """The networks that have a dnsmasq, with what is wrong with it; "" for nothing."""


class Children:
    """The dnsmasq processes of a node, as children of the supervisor.

    Args:
        context: the network service's.
        log_dir: where the node's log files are; None where nobody knows.
    """

    def __init__(self, context: ServiceContext, log_dir: Path | None) -> None:
        self._context = context
        self._log_dir = log_dir

    async def start(self, network: str) -> None:
        """Have a network's dnsmasq run with what its file says now.

        Raises:
            DnsmasqFailedError: it does not come up; the message has its last words.
        """
        name = child_id(network)
        settings: Plain = {"network": network}
        try:
            await self._order("add", {"template": TEMPLATE, "id": name, "settings": settings})
        except RemoteCallError as exc:
            if exc.remote_code not in ("supervisor.already_started", "supervisor.already_present"):
                raise self._failed(network, exc) from exc
        except NovacronError as exc:
            raise self._failed(network, exc) from exc
        else:
            return
        try:
            answer = await self._order("restart", {"id": name})
        except NovacronError as exc:
            raise self._failed(network, exc) from exc
        match answer:
            case {"state": HealthState.HEALTHY.value}:
                pass
            case {"reason": str(reason)}:
                raise DnsmasqFailedError(
                    f"network {network}: {self._told(network, reason)}", network=network
                )

    async def stop(self, network: str) -> None:
        """Have it stopped and forgotten.

        Raises:
            DnsmasqFailedError: the supervisor does not do it.
        """
        for verb in ("stop", "delete"):
            try:
                await self._order(verb, {"id": child_id(network)})
            except RemoteCallError as exc:
                if exc.remote_code == "supervisor.no_such_child":
                    return
                raise self._failed(network, exc) from exc
            except NovacronError as exc:
                raise self._failed(network, exc) from exc

    async def states(self) -> dict[str, str]:
        """The networks that have a dnsmasq, with what is wrong with it; "" for nothing.

        Raises:
            NovacronError: the node does not answer.
        """
        status = from_wire(NodeStatus, await self._context.call(ROOT, "status"))
        prefix = f"{SUPERVISOR}/{TEMPLATE}-"
        found = {}
        for component in status.components:
            if component.path.startswith(prefix):
                network = component.path.removeprefix(prefix)
                is_well = component.state is HealthState.HEALTHY
                reason = component.reason or component.state.value
                found[network] = "" if is_well else self._told(network, reason)
        return found

    async def _order(self, verb: str, body: dict[str, Plain]) -> Plain:
        return await self._context.call(SUPERVISOR, verb, body, timeout_s=_START_TIMEOUT_S)

    def _failed(self, network: str, error: NovacronError) -> DnsmasqFailedError:
        said = self._told(network, error.message)
        return DnsmasqFailedError(f"network {network}: {said}", network=network)

    def _told(self, network: str, reason: str) -> str:
        words = self._last_words(network)
        return f"dnsmasq: {words} ({reason})" if words else f"dnsmasq: {reason}"

    def _last_words(self, network: str) -> str:
        """The last line that it wrote, which at an end is the reason."""
        if self._log_dir is None:
            return ""
        path = child_path(SUPERVISOR, child_id(network))
        file = self._log_dir / f"{file_stem(path)}.log"
        try:
            with file.open("rb") as stream:
                stream.seek(max(0, file.stat().st_size - _TAIL_BYTES))
                text = stream.read(_TAIL_BYTES).decode(errors="replace")
        except OSError:
            return ""
        lines = [line for line in text.splitlines() if line.strip()]
        return _PREFIX.sub("", lines[-1]).strip()[:_LINE_LETTERS] if lines else ""


def child_id(network: str) -> str:
    """The name of a network's dnsmasq among the supervisor's children."""
    return f"{TEMPLATE}-{network}"
