"""What the supervisor executes for ``core/dnsmasq-<network>``.

``prepare`` runs in the child's own process, as the node's account. Where that is root the program
becomes dnsmasq's account before its first own instruction, with the three capabilities that
serving takes, and dies with the launcher: dnsmasq's own change of user would make the kernel forget
that. Elsewhere it stays what the node is, with the capabilities that the node has to hand on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from protocol.dataclass import dataclass
from protocol.records import Plain, from_wire
from services.network.serving import place
from services.network.serving.errors import ServingStateError
from services.network.serving.files import write
from supervisor.child.service import Command

# DHCP answers machines without an address (raw), puts them into the ARP table (admin), and both
# its ports and DNS's are below 1024 (bind).
_CAPABILITIES = "-all,+net_admin,+net_bind_service,+net_raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsmasqSettings:
    """Settings of ``core/dnsmasq-<network>``: the node's directory, and which network."""

    state_dir: str
    network: str


def prepare(settings: Mapping[str, Plain]) -> Command:
    """Name the program for a network whose configuration has been written and tested.

    This process becomes it and keeps its number, which is noted.

    Raises:
        ServingStateError: there is no such network.
        DnsmasqMissingError: a program or the account is missing.
    """
    parsed = from_wire(DnsmasqSettings, settings)
    state_dir = Path(parsed.state_dir)
    config = place.config_file(state_dir, parsed.network)
    is_within = config.parent.parent == place.base(state_dir) and ".." not in config.parts
    if not is_within or not config.is_file():
        raise ServingStateError(f"no network {parsed.network!r:.60} is served by this node")
    place.end_left_over(state_dir, parsed.network)
    write(place.pid_file(state_dir, parsed.network), str(os.getpid()), mode=0o600)
    argv = (
        place.program(),
        "--keep-in-foreground",
        *place.arguments(config, place.lease_file(state_dir, parsed.network)),
    )
    environment = {"LC_ALL": "C"}
    if os.geteuid() != 0:
        return Command(argv=argv, environment=environment)
    who = place.account()
    steps = (
        place.program("setpriv"),
        f"--reuid={who.uid}",
        f"--regid={who.gid}",
        "--clear-groups",
        f"--inh-caps={_CAPABILITIES}",
        f"--ambient-caps={_CAPABILITIES}",
        f"--bounding-set={_CAPABILITIES}",
        "--no-new-privs",
        "--pdeathsig=KILL",
        "--",
    )
    return Command(argv=(*steps, *argv), environment=environment)
