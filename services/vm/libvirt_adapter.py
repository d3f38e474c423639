"""libvirt: one connection, its domains and its callbacks. Adapter for libvirt-python.

Every method of LibvirtSession blocks, for ever if libvirtd hangs: call them in threads
(``services.threads``). Callbacks come in libvirt's event thread and must only hand over.

The session is read-only: libvirtd itself refuses whatever would change a guest.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import libvirt

from services.vm.domains import event_from_libvirt, state_from_libvirt
from services.vm.errors import (
    DomainNotFoundError,
    LibvirtLostError,
    LibvirtRefusedError,
    LibvirtUnavailableError,
)
from services.vm.model import DomainEvent, DomainRecord, DomainState

# Past so many errors in a row the event loop is broken for good; libvirt gives no way to renew it.
_LOOP_ERRORS_MAX = 100
_CLOSE_REASONS = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "an error on the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirtd closed the connection",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "libvirtd has stopped answering",
    libvirt.VIR_CONNECT_CLOSE_REASON_CLIENT: "the connection was closed here",
}
_LOST_CODES = frozenset({libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_SYSTEM_ERROR})
_LOST_DOMAINS = frozenset({libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_RPC})
_KIB = 1024
_by_name = operator.attrgetter("name")
# Name, state and its reason as numbers, memory in KiB, processors, autostart, persistence.
_Properties = tuple[str, int, int, int, int, bool, bool]


class SessionListener(Protocol):
    """Told in libvirt's event thread; must not block and not raise."""

    def domain_changed(self, event: DomainEvent) -> None:
        """A domain's lifecycle event."""

    def closed(self, reason: str) -> None:
        """The connection broke; the session is of no more use but for ``close``."""


@functools.cache
def start_event_loop() -> threading.Thread:
    """Register libvirt's event loop and run it for the life of the process.

    It must be registered before the first connection of the process, once. Errors go to the
    exceptions alone from then on; libvirt would also print them.
    """
    libvirt.registerErrorHandler(_ignore_error, None)
    libvirt.virEventRegisterDefaultImpl()
    thread = threading.Thread(target=_run_events, name="libvirt-events", daemon=True)
    thread.start()
    return thread


class LibvirtSession:
    """An open connection."""

    def __init__(self, connection: Any, listener: SessionListener) -> None:
        self._connection = connection  # Any: libvirt-python has no types
        self._listener = listener
        self._callback_ids: list[int] = []
        self._is_remote = True
        # Of the last reading: most machines are as they were, and keep their records.
        self._known: dict[bytes, tuple[_Properties, DomainRecord]] = {}

    @classmethod
    def open(
        cls,
        uri: str,
        listener: SessionListener,
        *,
        keepalive_interval_s: int,
        keepalive_count: int,
    ) -> LibvirtSession:
        """Connect and register the callbacks.

        Raises:
            LibvirtUnavailableError: nothing answers there, or it refuses us.
        """
        start_event_loop()
        try:
            connection = libvirt.openReadOnly(uri)
        except libvirt.libvirtError as exc:
            raise LibvirtUnavailableError(
                f"libvirt at {uri} is not available: {_message(exc)}", uri=uri
            ) from exc
        session = cls(connection, listener)
        try:
            session._register(keepalive_interval_s, keepalive_count)
        except libvirt.libvirtError as exc:
            session.close()
            raise LibvirtUnavailableError(
                f"libvirt at {uri} broke off: {_message(exc)}", uri=uri
            ) from exc
        return session

    def hypervisor(self) -> tuple[str, str]:
        """The driver's name, such as ``QEMU``, and libvirt's version, such as ``9.0.0``.

        Raises:
            LibvirtLostError, LibvirtRefusedError: as for every request.
        """
        with translated("ask for its version"):
            version = int(self._connection.getLibVersion())
            return str(self._connection.getType()), _version_text(version)

    def read_domains(self) -> tuple[DomainRecord, ...]:
        """All domains, active or not, by name.

        What libvirt can tell of all at once is asked so: each question takes a round trip to it.

        Raises:
            LibvirtLostError, LibvirtRefusedError: as for every request.
        """
        with translated("list domains"):
            autostarted = self._listed(libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
            transient = self._listed(libvirt.VIR_CONNECT_LIST_DOMAINS_TRANSIENT)
            domains, states = self._states()
        records = []
        before, known = self._known, {}
        for domain in domains:
            try:
                uuid = domain.UUID()
                _, memory_max_kib, _, vcpus, _ = domain.info()
                now = (
                    domain.name(),
                    *(states.get(uuid) or domain.state()),
                    memory_max_kib,
                    vcpus,
                    uuid in autostarted,
                    uuid not in transient,
                )
            except libvirt.libvirtError:
                # Asked alone it says what is wrong, or that it is gone since it was listed.
                with contextlib.suppress(DomainNotFoundError):
                    records.append(read_record(domain))
                continue
            entry = before.get(uuid)
            if entry is None or entry[0] != now:
                entry = now, _record(domain.UUIDString(), now)
            known[uuid] = entry
            records.append(entry[1])
        self._known = known
        return tuple(sorted(records, key=_by_name))

    def read_domain(self, uuid: str) -> DomainRecord:
        """One domain.

        Raises:
            DomainNotFoundError: there is none with that UUID.
            LibvirtLostError, LibvirtRefusedError: as for every request.
        """
        with translated(f"look up domain {uuid}"):
            domain = self._connection.lookupByUUIDString(uuid)
        return read_record(domain)

    def close(self) -> None:
        """Take the callbacks off and close; an already broken connection is no error."""
        for callback_id in self._callback_ids:
            with contextlib.suppress(libvirt.libvirtError):
                self._connection.domainEventDeregisterAny(callback_id)
        self._callback_ids.clear()
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()

    def _listed(self, which: int) -> frozenset[bytes]:
        """The UUIDs of the domains with some property."""
        return frozenset(domain.UUID() for domain in self._connection.listAllDomains(which))

    def _states(self) -> tuple[list[Any], dict[bytes, tuple[int, int]]]:  # Any: libvirt.virDomain
        """All domains, and by UUID the states of those that were told along."""
        if self._is_remote:
            with _optional():
                found = self._connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0)
                states = {
                    domain.UUID(): (raw["state.state"], raw["state.reason"])
                    for domain, raw in found
                    if "state.state" in raw and "state.reason" in raw
                }
                return [domain for domain, _ in found], states
        # Inside this process a question costs less than a bulk answer.
        return self._connection.listAllDomains(0), {}

    def _register(self, keepalive_interval_s: int, keepalive_count: int) -> None:
        # Drivers inside this process (test:///) have no connection to keep alive or to lose.
        self._is_remote = False
        with _optional():
            self._connection.setKeepAlive(keepalive_interval_s, keepalive_count)
            self._is_remote = True
        with _optional():
            self._connection.registerCloseCallback(self._on_close, None)
        self._callback_ids.append(
            self._connection.domainEventRegisterAny(
                None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None
            )
        )

    # Any, four times: libvirt's objects; the last argument is the opaque value that it passes on.
    def _on_close(self, _connection: Any, reason: int, _opaque: Any) -> None:
        self._listener.closed(_CLOSE_REASONS.get(reason, f"close reason {reason}"))

    def _on_lifecycle(
        self, _connection: Any, domain: Any, event: int, detail: int, _opaque: Any
    ) -> None:
        record = event_from_libvirt(event, detail, uuid=domain.UUIDString(), name=domain.name())
        if record is not None:
            self._listener.domain_changed(record)


def _run_events() -> None:
    errors = 0
    while errors < _LOOP_ERRORS_MAX:
        try:
            libvirt.virEventRunDefaultImpl()
            errors = 0
        except libvirt.libvirtError:
            errors += 1


def _ignore_error(_context: Any, _error: Any) -> None:  # Any: libvirt's error tuple
    """The exception says it all."""


def _read(domain: Any) -> DomainRecord:  # Any: libvirt.virDomain
    name = domain.name()
    with translated(f"read domain {name}"):
        state, reason = domain.state()
        _, memory_max_kib, _, vcpus, _ = domain.info()
        is_autostart, is_persistent = _is_autostart(domain), bool(domain.isPersistent())
        return _record(
            domain.UUIDString(),
            (name, state, reason, memory_max_kib, vcpus, is_autostart, is_persistent),
        )


def _record(uuid: str, properties: _Properties) -> DomainRecord:
    name, state_number, reason_number, memory_max_kib, vcpus, autostart, is_persistent = properties
    state, reason = state_from_libvirt(state_number, reason_number)
    return DomainRecord(
        name=name,
        uuid=uuid,
        state=state,
        reason=reason,
        vcpus=int(vcpus),
        memory_bytes=int(memory_max_kib) * _KIB,
        autostart=autostart,
        is_persistent=is_persistent,
    )


def read_record(domain: Any) -> DomainRecord:  # Any: libvirt.virDomain
    """One domain that libvirt can't read must not hide the others."""
    try:
        return _read(domain)
    except LibvirtRefusedError as exc:
        return DomainRecord(
            name=domain.name(),
            uuid=domain.UUIDString(),
            state=DomainState.UNKNOWN,
            reason=exc.message,
        )


def _is_autostart(domain: Any) -> bool:  # Any: libvirt.virDomain
    try:
        return bool(domain.autostart())
    except libvirt.libvirtError as exc:
        # A transient domain has no autostart to ask for.
        if exc.get_error_code() in (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_SUPPORT):
            return False
        raise


@contextmanager
def _optional() -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as exc:
        if exc.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
            raise


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn libvirt's errors into ours.

    Raises:
        DomainNotFoundError: libvirt has no such domain.
        LibvirtLostError: the connection broke.
        LibvirtRefusedError: it said no; ``libvirt_code`` of its fields is libvirt's number.
    """
    try:
        yield
    except libvirt.libvirtError as exc:
        code, domain = exc.get_error_code(), exc.get_error_domain()
        message = f"libvirt could not {doing}: {_message(exc)}"
        if code == libvirt.VIR_ERR_NO_DOMAIN:
            raise DomainNotFoundError(message) from exc
        is_lost = code in _LOST_CODES and domain in _LOST_DOMAINS
        if is_lost or code == libvirt.VIR_ERR_INVALID_CONN:
            raise LibvirtLostError(message) from exc
        raise LibvirtRefusedError(message, libvirt_code=code) from exc


def _message(exc: Any) -> str:  # Any: libvirt.libvirtError
    return str(exc.get_error_message() or exc)


def _version_text(number: int) -> str:
    # libvirt packs a version as major * 1,000,000 + minor * 1,000 + release.
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"
