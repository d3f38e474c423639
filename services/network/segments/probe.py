"""The health check after a change: what must stay reachable from this host."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.network.segments.errors import SegmentsCheckFailedError

TARGETS_MAX = 32
TIMEOUT_MAX_S = 60.0
_ATTEMPT_S = 0.5
_PAUSE_S = 0.05

# Raises SegmentsCheckFailedError where the change must be taken back.
Probe = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentCheck:
    """What has to hold after a change.

    Attributes:
        targets: ``address:port``, IPv6 as ``[address]:port``; each must answer a TCP connection,
            be it with a refusal. They are asked before the change too.
        timeout_s: how long they may take together, 0.1 to 60 s.

    Raises:
        ValueError: a field is out of its range.
    """

    targets: tuple[str, ...] = ()
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if len(self.targets) > TARGETS_MAX:
            raise ValueError(f"targets has {len(self.targets)} entries; {TARGETS_MAX} are allowed")
        if not 0.1 <= self.timeout_s <= TIMEOUT_MAX_S:
            raise ValueError(
                f"timeout_s is {self.timeout_s:g}; 0.1 to {TIMEOUT_MAX_S:g} are allowed"
            )
        for target in self.targets:
            _split(target)


async def probe_targets(check: SegmentCheck) -> None:
    """Reach every target, each as often as the time allows.

    Raises:
        SegmentsCheckFailedError: one did not answer in time; the message names all that did not.
    """
    silent = set(check.targets)

    async def reach(target: str) -> None:
        host, port = _split(target)
        while not await _answers(host, port):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(_PAUSE_S)
        silent.discard(target)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(check.timeout_s), asyncio.TaskGroup() as group:
            for target in check.targets:
                group.create_task(reach(target))
    if silent:
        names = ", ".join(sorted(silent))
        raise SegmentsCheckFailedError(
            f"{names} did not answer within {check.timeout_s:g} s", targets=sorted(silent)
        )


async def _answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_ATTEMPT_S):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _split(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"targets has {target!r:.60}; write an IPv6 address as [address]:port")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"targets has {target!r:.60}; write address:port, no name") from None
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"targets has {target!r:.60}; its port is not 1 to 65535")
    return host, int(port)
