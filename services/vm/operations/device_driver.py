"""Devices and resources of guests, asked of libvirt. Adapter; every method blocks."""

from __future__ import annotations

import enum
from typing import Any

import libvirt

from services.vm.operations.driver import Driver, Guest


class Scope(enum.Flag):
    """What a change is of: the guest as it runs, its definition for the next start, or both."""

    LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
    CONFIG = libvirt.VIR_DOMAIN_AFFECT_CONFIG

    @classmethod
    def of(cls, guest: Guest) -> Scope:
        """All that the guest has."""
        scope = cls(0)
        if guest.state.is_active:
            scope |= cls.LIVE
        if guest.is_persistent:
            scope |= cls.CONFIG
        return scope


class DeviceDriver:
    """Errors are those of ``Driver.domain``."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def xml(self, uuid: str, *, of_definition: bool = False) -> str:
        """The guest's XML."""
        return self._driver.xml(uuid, of_definition=of_definition)

    def set_memory(self, uuid: str, memory_bytes: int, scope: Scope) -> None:
        """Set the memory that it has, by its balloon while it runs."""
        kib = memory_bytes >> 10
        self._driver.act(uuid, "set its memory", lambda d: d.setMemoryFlags(kib, scope.value))

    def set_vcpus(self, uuid: str, vcpus: int, scope: Scope) -> None:
        """Set the number of its processors."""
        self._driver.act(uuid, "set its processors", lambda d: d.setVcpusFlags(vcpus, scope.value))

    def disk_size(self, uuid: str, target: str) -> int:
        """The size of a disk in bytes, as the guest sees it."""
        found = self._driver.act(uuid, f"look at {target}", lambda d: d.blockInfo(target))
        return int(found[0])

    def grow_disk(self, uuid: str, target: str, size_bytes: int) -> None:
        """Give a disk of a running guest another size."""
        flags = libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
        self._driver.act(uuid, f"grow {target}", lambda d: d.blockResize(target, size_bytes, flags))

    def attach(self, uuid: str, xml: str, scope: Scope) -> None:
        """Attach a device to all that ``scope`` says, or to nothing."""
        self._driver.act(uuid, "attach it", lambda d: d.attachDeviceFlags(xml, scope.value))

    def detach(self, uuid: str, xml: str, scope: Scope) -> None:
        """Ask for a device to go; a running guest lets go in its own time."""

        def work(domain: Any) -> None:  # Any: libvirt.virDomain
            domain.detachDeviceFlags(xml, scope.value)

        self._driver.act(uuid, "detach it", work)
