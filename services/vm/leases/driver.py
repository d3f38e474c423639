"""What runs on this host and by which epoch, asked of libvirt. Adapter; every method blocks.

The epoch stands in the metadata of the running domain. In the definition it stands only while the
domain is being started, so that the guest has it from its first instruction, and whoever starts
the domain past the platform later starts it without one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from protocol.errors import NovacronError
from services.vm.domains import state_from_libvirt
from services.vm.errors import DomainNotFoundError, LibvirtRefusedError
from services.vm.leases.disks import disk_sources
from services.vm.leases.identity import Identifier
from services.vm.leases.model import DiskUse, FenceAction, Machine
from services.vm.leases.reconcile import Running
from services.vm.leases.rules import strictest
from services.vm.libvirt_adapter import translated
from services.vm.model import DomainState
from services.vm.operations.driver import Driver

NAMESPACE = "urn:novacron:lease:1"
PREFIX = "novacron-lease"
_NO_METADATA = (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_DOMAIN_METADATA)
_RUNS = (DomainState.RUNNING, DomainState.BLOCKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What runs on this host.

    Attributes:
        faults: why the disks of a machine could not be told, by UUID.
    """

    running: dict[str, Running] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


class LeaseDriver:
    """Errors are those of ``Driver.domain``.

    Args:
        driver: a connection of its own; closed with this.
        node_id: of this node.
    """

    def __init__(self, driver: Driver, node_id: str) -> None:
        self._driver = driver
        self._identifier = Identifier(node_id, self._volume_path)

    def close(self) -> None:
        """Close the connection."""
        self._driver.close()

    def look(self, known: Mapping[str, Running]) -> Look:
        """All machines that run.

        Args:
            known: what was found before; a run of a machine that is among them is not read again.
        """
        connection = self._driver.connection()
        found = Look()
        with translated("list running domains"):
            domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        for domain in domains:
            uuid, domain_id = domain.UUIDString(), domain.ID()
            before = known.get(uuid)
            if before is not None and before.domain_id == domain_id:
                found.running[uuid] = before
                continue
            with contextlib.suppress(DomainNotFoundError):  # gone since it was listed
                found.running[uuid] = self._read(domain, domain_id, found)
        return found

    def definition(self, ref: str) -> tuple[Machine, str]:
        """A machine by name or UUID, and the XML that it would be started by."""
        with self._driver.domain(ref, f"read the definition of {ref}") as domain:
            machine = Machine(uuid=domain.UUIDString(), name=domain.name())
            return machine, str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

    def uses(self, domain_xml: str) -> tuple[DiskUse, ...]:
        """The disks of a domain, or of a device's XML inside ``<domain><devices>``.

        Raises:
            StorageMarkError: a storage's mark can't be understood.
        """
        return self._identifier.uses(disk_sources(domain_xml))

    def is_active(self, uuid: str) -> bool:
        """Whether it has a hypervisor process; False for a domain that is gone."""
        try:
            with self._driver.domain(uuid, "look whether it runs") as domain:
                return bool(domain.isActive())
        except DomainNotFoundError:
            return False

    def announce_epoch(self, uuid: str, epoch: int) -> None:
        """Put the epoch into the definition, for the run that is about to begin."""
        with self._driver.domain(uuid, "write its epoch") as domain:
            _set(domain, epoch, libvirt.VIR_DOMAIN_AFFECT_CONFIG)

    def settle_epoch(self, uuid: str, epoch: int) -> bool:
        """Take it out of the definition, and put it into what runs; False where nothing does."""
        try:
            with self._driver.domain(uuid, "write its epoch") as domain:
                if domain.isPersistent():
                    _drop(domain, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
                if not domain.isActive():
                    return False
                _set(domain, epoch, libvirt.VIR_DOMAIN_AFFECT_LIVE)
                return True
        except DomainNotFoundError:
            return False

    def fence(self, uuid: str, epoch: int, action: FenceAction) -> bool:
        """Keep a machine from its disks that was started by a smaller epoch; False if it was not.

        It is paused rather than ended: a hypervisor that ends writes what it has in memory.
        """
        with self._driver.domain(uuid, "fence it") as domain:
            if not domain.isActive() or read_epoch(domain.XMLDesc(0)) >= epoch:
                return False
            if action is FenceAction.DESTROY:
                domain.destroy()
            elif action is FenceAction.PAUSE and state_from_libvirt(*domain.state())[0] in _RUNS:
                domain.suspend()
            return True

    def _read(self, domain: Any, domain_id: int, found: Look) -> Running:  # Any: libvirt.virDomain
        machine = Machine(uuid=domain.UUIDString(), name=domain.name())
        with translated(f"read the domain {machine.name}"):
            text = str(domain.XMLDesc(0))
        disks: tuple[DiskUse, ...] = ()
        try:
            disks = strictest(self.uses(text))
        except NovacronError as exc:
            found.faults[machine.uuid] = exc.message
        return Running(machine=machine, domain_id=domain_id, epoch=read_epoch(text), disks=disks)

    def _volume_path(self, pool: str, volume: str) -> str:
        connection = self._driver.connection()
        try:
            with translated(f"find the volume {volume} of the pool {pool}"):
                found = connection.storagePoolLookupByName(pool).storageVolLookupByName(volume)
                return str(found.path())
        except LibvirtRefusedError:
            return ""  # libvirt starts no guest on it either


def read_epoch(domain_xml: str) -> int:
    """The epoch in a domain's metadata; 0 where there is none."""
    root = ET.fromstring(domain_xml)  # noqa: S314 - libvirt's answer
    found = root.find(f"metadata/{{{NAMESPACE}}}lease")
    epoch = "" if found is None else found.get("epoch", "")
    return int(epoch) if epoch.isdecimal() and len(epoch) < 19 else 0


def _set(domain: Any, epoch: int, scope: int) -> None:  # Any: libvirt.virDomain
    _write(domain, f"<lease epoch='{epoch}'/>", scope)


def _drop(domain: Any, scope: int) -> None:  # Any: libvirt.virDomain
    _write(domain, None, scope)


def _write(domain: Any, text: str | None, scope: int) -> None:  # Any: libvirt.virDomain
    kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    try:
        domain.setMetadata(kind, text, PREFIX, NAMESPACE, scope)
    except libvirt.libvirtError as exc:
        # Not all drivers keep metadata; the lease is one all the same.
        if exc.get_error_code() not in _NO_METADATA:
            raise
