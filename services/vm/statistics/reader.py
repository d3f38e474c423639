"""Bulk statistics of all running machines over a connection of their own. Adapter; it blocks.

The connection is apart from the one that follows events, and read-only. A machine whose hypervisor
is busy is not waited for: its counters are missing from the answer, and others come.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import libvirt

from services.vm.errors import LibvirtUnavailableError
from services.vm.libvirt_adapter import start_event_loop, translated
from services.vm.statistics.readings import DomainReading, read_raw

KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
_GROUPS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
)
_ACTIVE = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE
_NO_WAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


class StatisticsReader:
    """Opens its connection when it is needed, and again after it broke.

    Args:
        uri: libvirt's.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lock = threading.Lock()
        self._connection: Any = None  # Any: libvirt-python has no types
        self._flags = _ACTIVE | _NO_WAIT

    def read(self) -> tuple[DomainReading, ...]:
        """All running machines, by name.

        Raises:
            LibvirtUnavailableError: no connection can be had.
            LibvirtLostError, LibvirtRefusedError: as for every request.
        """
        connection = self._open()
        at_s = time.monotonic()
        with translated("tell what machines use"):
            found = self._ask(connection)
            readings = [
                read_raw(domain.name(), domain.UUIDString(), raw, at_s=at_s)
                for domain, raw in found
            ]
        return tuple(sorted(readings, key=lambda reading: reading.name))

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _open(self) -> Any:  # Any: libvirt.virConnect
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    if self._connection.isAlive():
                        return self._connection
            start_event_loop()
            try:
                self._connection = libvirt.openReadOnly(self._uri)
                # Drivers inside this process (test:///) have nothing to keep alive.
                with contextlib.suppress(libvirt.libvirtError):
                    self._connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
            except libvirt.libvirtError as exc:
                self._connection = None
                raise LibvirtUnavailableError(
                    f"libvirt at {self._uri} is not available: {exc.get_error_message()}"
                ) from exc
            return self._connection

    def _ask(self, connection: Any) -> Any:  # Any: libvirt's objects
        try:
            return connection.getAllDomainStats(_GROUPS, self._flags)
        except libvirt.libvirtError as exc:
            # A driver that knows no such flag has no hypervisor to wait for.
            if exc.get_error_code() != libvirt.VIR_ERR_INVALID_ARG or not self._flags & _NO_WAIT:
                raise
            self._flags = _ACTIVE
            return connection.getAllDomainStats(_GROUPS, self._flags)
