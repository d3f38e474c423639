"""A network service with segments, as the tests of the segments use it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from protocol.records import Plain
from services.network.segments.nft import parse_listing
from tests.fixtures.fix_guests import Guest, guests
from tests.fixtures.fix_netns import run_in_netns
from tests.system import network_running
from tests.system.network_running import running_service

RULE: Plain = {"direction": "in", "peers": ["any"], "protocol": "tcp", "ports": ["80"]}


def interface(number: int = 1, *rules: Plain, **more: Plain) -> dict[str, Plain]:
    """An interface as it is on the wire."""
    return {
        "name": f"tap{number}",
        "mac": f"52:54:00:00:00:{number:02x}",
        "addresses": [f"10.20.0.{number}"],
        "rules": list(rules),
        **more,
    }


def document(*interfaces: Plain) -> Plain:
    """A document as it is on the wire."""
    return {"interfaces": list(interfaces)}


class Running(network_running.Running):
    """A network service that came up, and its context."""

    async def apply(self, *interfaces: Plain, targets: tuple[str, ...] = ()) -> Any:
        """Put interfaces in force."""
        check: Plain = {"targets": list(targets), "timeout_s": 0.5}
        return await self.call(
            "segments.apply", {"document": document(*interfaces), "check": check}
        )

    def events(self, noun: str = "segments") -> list[str]:
        """Names of the segments' events."""
        return super().events(noun)


@asynccontextmanager
async def running(state: Path) -> AsyncIterator[Running]:
    """A service from init to terminate."""
    settings: dict[str, Plain] = {
        "node_id": "n1",
        "bridge": {"enabled": False},
        "state_dir": str(state),
    }
    async with running_service(settings) as node:
        yield Running(node.service, node.context)


def with_guest(scenario: Callable[[Guest], Awaitable[None]]) -> None:
    """Run an asynchronous scenario with a guest on a bridge, in a fresh namespace."""

    def work() -> None:
        with guests("tap1") as (guest,):

            async def run() -> None:
                await scenario(guest)

            asyncio.run(run())

    run_in_netns(work)


def nft(*arguments: str, stdin: str = "") -> str:
    """Run nft as somebody else would."""
    done = subprocess.run(
        ["nft", *arguments], input=stdin, check=True, capture_output=True, text=True, timeout=20
    )
    return done.stdout


def table() -> str:
    """Digest of our table without counts; "" where there is none."""
    done = subprocess.run(
        ["nft", "-j", "list", "table", "bridge", "novacron-segments"],
        capture_output=True,
        timeout=20,
        check=False,
    )
    return parse_listing(done.stdout).fingerprint if done.returncode == 0 else ""


def text() -> str:
    """Our table as nft writes it."""
    return nft("list", "table", "bridge", "novacron-segments")
