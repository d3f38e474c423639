"""The commands that give orders to guests: name to module and attribute, imported when named."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

_LIFE = "services.ctl.commands.vm_life"
_LEASES = "services.ctl.commands.vm_leases"
_TOP = "services.ctl.commands.vm_top"
_DEVICE = "services.ctl.commands.vm_device"
ORDERS: Mapping[str, tuple[str, str]] = {
    "status": (_TOP, "status"),
    "top": (_TOP, "top"),
    "start": (_LIFE, "start"),
    "stop": (_LIFE, "stop"),
    "reboot": (_LIFE, "reboot"),
    "pause": (_LIFE, "pause"),
    "resume": (_LIFE, "resume"),
    "save": (_LIFE, "save"),
    "restore": (_LIFE, "restore"),
    "autostart": (_LIFE, "autostart"),
    "migrate": ("services.ctl.commands.vm_migrate", "migrate"),
    "migration": ("services.ctl.commands.vm_migrate", "migration"),
    "screenshot": (_LIFE, "screenshot"),
    "console": ("services.ctl.commands.vm_console", "console"),
    "resize": (_DEVICE, "resize"),
    "attach": (_DEVICE, "attach"),
    "detach": (_DEVICE, "detach"),
    "snapshot": ("services.ctl.commands.vm_snapshot", "snapshot"),
    "image": ("services.ctl.commands.vm_image", "image"),
    "leases": (_LEASES, "leases"),
    "assign": (_LEASES, "assign"),
    "operations": (_LIFE, "operations"),
    "cancel": (_LIFE, "cancel"),
}


def find_order(name: str) -> click.Command | None:
    """The command of that name, for a group's ``get_command``; None where there is none."""
    place = ORDERS.get(name)
    if place is None:
        return None
    found: click.Command = getattr(importlib.import_module(place[0]), place[1])
    return found
