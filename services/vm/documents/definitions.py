"""Domains as libvirt defines them: read all, and carry out a plan's steps. Every call blocks."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from services.vm.documents.adopt import adopt_xml
from services.vm.documents.differences import follow_snapshots
from services.vm.documents.errors import AdoptionError, DomainRunningError, FencedError
from services.vm.documents.keep import keep_places
from services.vm.documents.model import VmDocument
from services.vm.documents.seeds import write_seed
from services.vm.documents.steps import Observed, Step, StepKind
from services.vm.documents.xml import (
    MARK_NAMESPACE,
    MARK_PREFIX,
    Mark,
    VirtType,
    choose_type,
    domain_xml,
    mark_xml,
)
from services.vm.errors import DomainNotFoundError, LibvirtRefusedError
from services.vm.libvirt_adapter import read_record, translated
from services.vm.operations.driver import Driver

STOP_TIMEOUT_S = 60.0
_STOP_PAUSE_S = 0.2
_TYPES = {kind.value: kind for kind in VirtType}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a step is about.

    Attributes:
        document: None where it is gone.
        seed: path of the image that cloud-init reads; "" for none.
    """

    document: VmDocument | None
    epoch: int = 0
    seed: str = ""


class Definitions:
    """The host's domains, for definitions.

    Args:
        driver: a connection of its own; closed with this.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def close(self) -> None:
        """Close the connection."""
        self._driver.close()

    def observe(self) -> dict[str, Observed]:
        """All domains, by name.

        Raises:
            LibvirtUnavailableError, LibvirtLostError, LibvirtRefusedError: as for every request.
        """
        connection = self._driver.connection()
        with translated("list domains"):
            domains = connection.listAllDomains(0)
        found = {}
        for domain in domains:
            with contextlib.suppress(DomainNotFoundError):  # gone since it was listed
                observed = _observe(domain)
                found[observed.record.name] = observed
        return found

    def take(self, step: Step, target: Target) -> str:
        """Carry out one step; one whose effect is there already does nothing.

        Returns:
            What to add to the report; mostly "".

        Raises:
            FencedError: the domain has a newer owner; nothing was done.
            DomainNotFoundError, LibvirtRefusedError, LibvirtLostError: as libvirt says.
        """
        match step.kind:
            case StepKind.DEFINE:
                return self._define(target)
            case StepKind.UNDEFINE:
                return self._undefine(step.name)
            case StepKind.START:
                return self._start(step.name, target)
            case _:
                with self._driver.domain(step.name, f"{step.kind.value} it") as domain:
                    _check_fence(domain, target)
                    return self._change(domain, step, target)

    def _change(self, domain: Any, step: Step, target: Target) -> str:  # Any: libvirt.virDomain
        live = libvirt.VIR_DOMAIN_AFFECT_LIVE
        match step.kind:
            case StepKind.REDEFINE:
                return self._redefine(domain, target)
            case StepKind.MARK:
                _mark(domain, target)
            case StepKind.AUTOSTART:
                domain.setAutostart(step.value)
            case StepKind.RESIZE_MEMORY:
                domain.setMemoryFlags(step.value >> 10, live)
            case StepKind.RESIZE_CPUS:
                domain.setVcpusFlags(step.value, live)
            case StepKind.STOP:
                return _stop(domain, self._driver)
            case StepKind.RESTART:
                _stop(domain, self._driver)
                domain.create()
            case _:
                raise AssertionError(f"{step.kind} is no step")
        return ""

    def _define(self, target: Target) -> str:
        document = _document(target)
        connection = self._driver.connection()
        with translated(f"define {document.name}"):
            with contextlib.suppress(libvirt.libvirtError):
                connection.lookupByName(document.name)
                raise LibvirtRefusedError(
                    f"a domain {document.name} was defined meanwhile; plan again"
                )
            self._define_xml(domain_xml(document, **self._how(document, target)))
        return ""

    def _redefine(self, domain: Any, target: Target) -> str:  # Any: libvirt.virDomain
        old = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
        document = follow_snapshots(_document(target), adopt_xml(old))
        document = replace(document, uuid=domain.UUIDString())
        self._define_xml(keep_places(domain_xml(document, **self._how(document, target)), old))
        return ""

    def _define_xml(self, text: str) -> None:
        self._driver.connection().defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)

    def _how(self, document: VmDocument, target: Target) -> dict[str, Any]:  # Any: its arguments
        connection = self._driver.connection()
        if target.seed:
            write_seed(_document(target), target.seed)
        try:
            virt_type = choose_type(document.accelerator, _offered(connection.getCapabilities()))
        except ValueError as exc:
            raise LibvirtRefusedError(f"{document.name}: {exc}") from exc
        fingerprint = _document(target).fingerprint
        mark = Mark(fingerprint=fingerprint, epoch=target.epoch)
        return {"virt_type": virt_type, "mark": mark, "seed": target.seed}

    def _start(self, name: str, target: Target) -> str:
        with self._driver.domain(name, "start it") as domain:
            _check_fence(domain, target)
            if domain.isActive():
                return "it runs already"
            domain.create()
        return ""

    def _undefine(self, name: str) -> str:
        try:
            with self._driver.domain(name, "undefine it") as domain:
                if domain.isActive():
                    raise DomainRunningError(f"{name} runs: stop it before it is undefined")
                _undefine(domain)
        except DomainNotFoundError:
            return "it is not defined any more"
        return "its disks stay"


def _observe(domain: Any) -> Observed:  # Any: libvirt.virDomain
    record = read_record(domain)
    try:
        with translated(f"read the definition of {record.name}"):
            text = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            running = domain.XMLDesc(0) if record.state.is_active else ""
        adopted = adopt_xml(text)
        active = adopt_xml(running) if running else None
    except (AdoptionError, LibvirtRefusedError) as exc:
        return Observed(record=record, adopted=None, fault=exc.message)
    return Observed(record=record, adopted=adopted, active=active)


def _offered(capabilities: str) -> frozenset[VirtType]:
    """The types that libvirt's capabilities offer for this architecture."""
    root = ET.fromstring(capabilities)  # noqa: S314 - libvirt's answer
    found = set()
    for arch in root.iterfind("guest/arch"):
        for domain in arch.iterfind("domain"):
            kind = _TYPES.get(domain.get("type", ""))
            if kind is VirtType.TEST or (kind is not None and arch.get("name") == "x86_64"):
                found.add(kind)
    return frozenset(found)


def _check_fence(domain: Any, target: Target) -> None:  # Any: libvirt.virDomain
    """Look again at the last moment: the plan may be old."""
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE, 0)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return
        raise
    epoch = ET.fromstring(text).get("epoch", "0")  # noqa: S314 - libvirt's answer
    if epoch.isdecimal() and int(epoch) > target.epoch:
        raise FencedError(
            f"{domain.name()} has a newer owner (epoch {epoch}, here {target.epoch})",
            epoch=int(epoch),
        )


def _mark(domain: Any, target: Target) -> None:  # Any: libvirt.virDomain
    document = _document(target)
    mark = Mark(fingerprint=document.fingerprint, epoch=target.epoch)
    text = mark_xml(document, mark)
    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG
    if domain.isActive():
        flags |= libvirt.VIR_DOMAIN_AFFECT_LIVE
    kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    domain.setMetadata(kind, text, MARK_PREFIX, MARK_NAMESPACE, flags)


def _stop(domain: Any, driver: Driver) -> str:  # Any: libvirt.virDomain
    """Press the power button and wait; never by force, which costs the guest its unwritten data."""
    if not domain.isActive():
        return "it is off already"
    driver.ask_acpi(domain.UUIDString())
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while domain.isActive():
        if time.monotonic() >= deadline_s:
            raise DomainRunningError(
                f"{domain.name()} did not react to its power button within {STOP_TIMEOUT_S:g} s; "
                f"'novacronctl vm stop {domain.name()}' has more ways"
            )
        time.sleep(_STOP_PAUSE_S)
    return ""


def _undefine(domain: Any) -> None:  # Any: libvirt.virDomain
    """Without the flags that would also delete a saved state or snapshots: libvirt refuses then."""
    try:
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM)
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:  # the test driver's
            raise
        domain.undefine()


def _document(target: Target) -> VmDocument:
    assert target.document is not None, "the plan names a machine without a document"
    return target.document
