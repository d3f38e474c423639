"""One side of a migration as its libvirt shows and changes it. Adapter; every method blocks.

Both sides are asked the same way; which of them is the source is the caller's to know.
"""

from __future__ import annotations

import contextlib
from typing import Any

import libvirt

from services.vm.domains import state_from_libvirt
from services.vm.errors import DomainNotFoundError
from services.vm.migration.truth import Presence, Side
from services.vm.model import DomainState
from services.vm.operations.driver import Driver

# libvirt's own reasons for holding a guest: nobody asked for the pause.
_HELD_REASONS = frozenset({"migration", "starting-up", "postcopy", "postcopy-failed"})
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
    | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
)


class SideDriver:
    """A guest on one host; errors are those of ``Driver.domain``."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def look(self, uuid: str) -> Side:
        """What is there; an answer that can't be had is the caller's error to handle."""
        try:
            with self.driver.domain(uuid, "look at it") as domain:
                return _side(domain)
        except DomainNotFoundError:
            return Side(presence=Presence.ABSENT, reason="there is none")

    def resume(self, uuid: str) -> None:
        """Let its processors go on; one that runs already is no error."""

        def work(domain: Any) -> None:  # Any: libvirt.virDomain
            state, _ = state_from_libvirt(*domain.state())
            if state not in (DomainState.RUNNING, DomainState.BLOCKED):
                domain.resume()

        self.driver.act(uuid, "let it go on", work)

    def remove(self, uuid: str, *, keep_definition: bool) -> None:
        """End a copy that has never run, and forget it; none is no error."""

        def work(domain: Any) -> None:  # Any: libvirt.virDomain
            if domain.isActive():
                domain.destroy()
            if not keep_definition:
                _undefine(domain)

        with contextlib.suppress(DomainNotFoundError):
            self.driver.act(uuid, "remove what was made for it", work)

    def undefine(self, uuid: str) -> None:
        """Forget its definition where it does not run; none is no error."""

        def work(domain: Any) -> None:  # Any: libvirt.virDomain
            if not domain.isActive():
                _undefine(domain)

        with contextlib.suppress(DomainNotFoundError):
            self.driver.act(uuid, "undefine it", work)

    def persist(self, uuid: str) -> None:
        """Keep the definition of a guest that runs, for when it stops."""

        def work(domain: Any) -> None:  # Any: libvirt.virDomain
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE)
            domain.connect().defineXML(xml)

        self.driver.act(uuid, "define it", work)


def _side(domain: Any) -> Side:  # Any: libvirt.virDomain
    state, reason = state_from_libvirt(*domain.state())
    is_active = bool(domain.isActive())
    return Side(
        presence=_presence(state, reason, is_active=is_active),
        has_job=is_active and _sends(domain),
        is_persistent=bool(domain.isPersistent()),
        reason=f"{state.value} ({reason})",
    )


def _presence(state: DomainState, reason: str, *, is_active: bool) -> Presence:
    if not is_active:
        return Presence.OFF
    match state:
        case DomainState.PAUSED if reason in _HELD_REASONS:
            return Presence.HELD
        # A crashed guest that is preserved has a process, and nobody lets it go on.
        case DomainState.PAUSED | DomainState.CRASHED:
            return Presence.PAUSED
        case DomainState.UNKNOWN | DomainState.SHUTOFF:  # between two states
            return Presence.UNKNOWN
        case _:
            return Presence.RUNNING


def _sends(domain: Any) -> bool:  # Any: libvirt.virDomain
    """Whether the guest is being sent; an incoming one can't be asked while it comes."""
    try:
        state, _ = state_from_libvirt(*domain.state())
        if state is DomainState.PAUSED and not domain.isPersistent():
            return False  # incoming: libvirt answers no question about its job
        stats = domain.jobStats()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in (
            libvirt.VIR_ERR_OPERATION_INVALID,
            libvirt.VIR_ERR_NO_SUPPORT,
        ):
            return False  # it ended meanwhile, or the driver knows no jobs
        raise
    return (
        stats.get("type", libvirt.VIR_DOMAIN_JOB_NONE)
        in (libvirt.VIR_DOMAIN_JOB_BOUNDED, libvirt.VIR_DOMAIN_JOB_UNBOUNDED)
        and stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
    )


def _undefine(domain: Any) -> None:  # Any: libvirt.virDomain
    if domain.isPersistent():
        domain.undefineFlags(_UNDEFINE)
