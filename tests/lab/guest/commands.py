"""``python -m tests.lab guest``: starts, checks, moves and ends guests."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from tests.lab import lab as labs
from tests.lab.guest import guests
from tests.lab.guest.guests import GuestPlan
from tests.lab.guest.readers import check_disk
from tests.lab.guest.watches import Probe, Watch

_FAULTS = ("silent", "restarts", "lost_ticks", "lost_writes", "bad", "lost_packets")
_guest_option = click.option("--guest", "guest_name", default="guest1", show_default=True)


@click.group()
def guest() -> None:
    """Guests that show what they lose."""


@guest.command()
@_guest_option
@click.option("--host", default="host1", show_default=True, help="Where it starts.")
@click.option("--number", default=1, show_default=True, help="Of its address 10.88.0.N.")
@click.option("--memory-mib", default=128, show_default=True)
@click.option("--tick-ms", default=100, show_default=True, help="Between two lines.")
@click.option("--disk-mib", default=4, show_default=True)
@click.option("--disk-writes-s", default=20, show_default=True, help="Blocks of 4 KiB.")
@click.option("--dirty-mib", default=16, show_default=True, help="Memory that it writes in turn.")
@click.option("--pages-s", default=100, show_default=True, help="Pages of 4 KiB.")
@click.pass_obj
def start(name: str, /, *, guest_name: str, host: str, **values: Any) -> None:
    """Start a guest and wait for its first tick."""
    lab = labs.find(name)
    begin_s = time.monotonic()
    plan = GuestPlan(name=guest_name, **values)
    guests.start(lab, lab.host(host), plan)
    click.echo(f"{guest_name} at {plan.address} ticks after {time.monotonic() - begin_s:.1f} s")


@guest.command()
@_guest_option
@click.pass_obj
def stop(name: str, *, guest_name: str) -> None:
    """End a guest and remove its domain."""
    found = guests.stop(labs.find(name), guest_name)
    click.echo(f"{guest_name} is gone" if found else f"there is no {guest_name}")


@guest.command()
@_guest_option
@click.option("--to", "target", required=True, help="The host that it goes to.")
@click.pass_obj
def move(name: str, *, guest_name: str, target: str) -> None:
    """Move a guest live with its disk, by plain libvirt."""
    lab = labs.find(name)
    took_s = guests.move(guests.where(lab, guest_name), lab.host(target), guest_name)
    click.echo(f"{guest_name} is on {lab.host(target).name} after {took_s:.1f} s")


@guest.command()
@_guest_option
@click.option("--seconds", default=3.0, show_default=True, help="How long to look on.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def check(name: str, *, guest_name: str, seconds: float, as_json: bool) -> None:
    """See whether a tick, packet, write or page was lost; exit code 1 where one was."""
    lab = labs.find(name)
    host = guests.where(lab, guest_name)
    address = guests.address_of(host, guest_name)
    with Watch(lab, guest_name) as watch, Probe(host, address) as probe:
        time.sleep(seconds)
    said = guests.console(lab, guest_name)
    last = said.last_life[-1]
    disk = check_disk(host.place(guests.disk_path(guest_name)), last.disk)
    found = {
        "host": host.name,
        "ticks": last.number,
        "lost_ticks": len(said.lost),
        "silent": not watch.ticks,
        "restarts": said.lives - 1,
        "gap_max_s": round(watch.gap_max_s, 3),
        "writes": last.disk,
        "lost_writes": len(disk.missing) + len(disk.damaged),
        "pages": last.pages,
        "bad": last.bad,
        "packets": probe.findings.sent,
        "lost_packets": len(probe.findings.lost),
    }
    click.echo(json.dumps(found) if as_json else "\n".join(f"{k}: {v}" for k, v in found.items()))
    sys.exit(any(found[key] for key in _FAULTS))
