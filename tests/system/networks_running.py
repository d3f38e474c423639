"""A network service with networks, as the tests of the networks use it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from protocol.records import Plain, to_wire
from services.network.networks.parse import parse_networks
from tests.fixtures.fix_netns import ip
from tests.system import network_running
from tests.system.network_running import running_service

NODE_ID = "n1"
GUESTS = """
networks:
- name: guests
  bridge: br-guests
  ports: [up0]
  addresses: [10.20.0.254/24]
"""
NOTHING = "networks: []"


class Running(network_running.Running):
    """A network service that came up, and its context."""

    async def apply(
        self,
        text: str | None,
        *targets: str,
        within_s: float = 0.5,
        force: bool = False,
    ) -> Any:
        """Put a document in force."""
        check: Plain = {"targets": list(targets), "timeout_s": within_s}
        body = {"document": wire(text), "check": check, "force": force}
        return await self.call("networks.apply", body)

    async def plan(self, text: str | None) -> Any:
        """What applying a document would do."""
        return await self.call("networks.plan", {"document": wire(text)})

    async def show(self) -> Any:
        """What is wanted and what there is."""
        return await self.call("networks.show", {})

    def events(self, noun: str = "networks") -> list[str]:
        """Names of the networks' events."""
        return super().events(noun)


@asynccontextmanager
async def running(state: Path) -> AsyncIterator[Running]:
    """A service from init to terminate."""
    settings: dict[str, Plain] = {
        "node_id": NODE_ID,
        "bridge": {"enabled": False},
        "state_dir": str(state),
    }
    async with running_service(settings) as node:
        yield Running(node.service, node.context)


def wire(text: str | None) -> Plain:
    """A document as it is on the wire."""
    return None if text is None else to_wire(parse_networks(text, "test.yaml"))


def veth(*names: str) -> None:
    """Links of the host, each the end of a pair; the others are called as they with a p."""
    for name in names:
        ip("link", "add", name, "type", "veth", "peer", "name", f"{name}p")


def links() -> dict[str, dict[str, Any]]:
    """All links with their details and addresses, by name."""
    return {link["ifname"]: link for link in json.loads(ip("-j", "-d", "addr"))}


def addresses(name: str) -> list[str]:
    """A link's IPv4 addresses."""
    return [
        f"{info['local']}/{info['prefixlen']}"
        for info in links()[name]["addr_info"]
        if info["family"] == "inet"
    ]


def picture() -> dict[str, tuple[object, ...]]:
    """All that a change could change: masters, flags, MTUs, aliases and addresses."""
    return {
        name: (
            link.get("master"),
            "UP" in link["flags"],
            link["mtu"],
            link.get("ifalias"),
            link["ifindex"],
            sorted(addresses(name)),
        )
        for name, link in links().items()
    }


def remotes(name: str) -> list[str]:
    """Where a VXLAN link sends what it does not know."""
    found = json.loads(bridge("-j", "fdb", "show", "dev", name))
    return sorted(entry["dst"] for entry in found if entry["mac"] == "00:00:00:00:00:00")


def bridge(*arguments: str) -> str:
    """Run the bridge program in the calling thread's namespace and return its output."""
    done = subprocess.run(
        ["bridge", *arguments], check=True, capture_output=True, text=True, timeout=20
    )
    return done.stdout
