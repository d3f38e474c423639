"""A connection to libvirt that may change guests. Adapter; every method blocks.

It is apart from the connection that watches: a call that hangs here keeps no event waiting. Domain
objects are looked up for each call, as those of a broken connection never recover.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import libvirt

from services.vm.domains import state_from_libvirt
from services.vm.errors import LibvirtRefusedError, LibvirtUnavailableError
from services.vm.libvirt_adapter import start_event_loop, translated
from services.vm.model import DomainState

KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3
UUID_CHARACTERS = 36
_KIB = 1024
_STREAM_BYTES = 1 << 16
# A screen of 8K is 100 MB; what is larger is no screen.
SCREENSHOT_BYTES_MAX = 128 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A domain as it was when it was looked up."""

    name: str
    uuid: str
    state: DomainState
    is_persistent: bool
    has_saved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How far a job on a guest or a disk is; both 0 where libvirt can't tell."""

    done: int
    total: int

    @property
    def fraction(self) -> float:
        """From 0 to 1."""
        return self.done / self.total if self.total else 0.0


class Driver:
    """Opens its connection when it is needed, and again after it broke.

    Args:
        uri: libvirt's.
        keepalive_interval_s, keepalive_count: a silent libvirt counts as lost after
            interval x (count + 1) seconds.
    """

    def __init__(
        self,
        uri: str,
        *,
        keepalive_interval_s: int = KEEPALIVE_INTERVAL_S,
        keepalive_count: int = KEEPALIVE_COUNT,
    ) -> None:
        self._uri = uri
        self._keepalive = keepalive_interval_s, keepalive_count
        self._lock = threading.Lock()
        self._connection: Any = None  # Any: libvirt-python has no types

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def is_open(self) -> bool:
        """Whether the connection is open and alive; never blocks."""
        connection = self._connection
        try:
            return connection is not None and bool(connection.isAlive())
        except libvirt.libvirtError:
            return False

    def connection(self) -> Any:  # Any: libvirt.virConnect
        """The open connection.

        Raises:
            LibvirtUnavailableError: none can be had.
        """
        with self._lock:
            if self._connection is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    if self._connection.isAlive():
                        return self._connection
            start_event_loop()
            try:
                self._connection = libvirt.open(self._uri)
                # Drivers inside this process (test:///) have nothing to keep alive.
                with contextlib.suppress(libvirt.libvirtError):
                    self._connection.setKeepAlive(*self._keepalive)
            except libvirt.libvirtError as exc:
                self._connection = None
                raise LibvirtUnavailableError(
                    f"libvirt at {self._uri} is not available: {exc.get_error_message()}"
                ) from exc
            return self._connection

    @contextmanager
    def domain(self, ref: str, doing: str) -> Iterator[Any]:  # Any: libvirt.virDomain
        """A domain by name or UUID, for calls on it; libvirt's errors become ours.

        Raises:
            DomainNotFoundError, LibvirtLostError, LibvirtRefusedError: as for every request.
        """
        connection = self.connection()
        with translated(doing):
            yield _lookup(connection, ref)

    def look(self, ref: str) -> Guest:
        """A domain by name or UUID; errors as of ``domain``."""
        with self.domain(ref, f"find the guest {ref}") as domain:
            return Guest(
                name=domain.name(),
                uuid=domain.UUIDString(),
                state=state_from_libvirt(*domain.state())[0],
                is_persistent=bool(domain.isPersistent()),
                has_saved=_has_saved(domain),
            )

    def act(self, uuid: str, doing: str, work: Callable[[Any], Any]) -> Any:  # Any: as ``work``
        """Run ``work`` on a domain; errors as of ``domain``."""
        with self.domain(uuid, doing) as domain:
            return work(domain)

    def start(self, uuid: str, *, paused: bool, fresh: bool) -> None:
        """Start a defined guest, from its saved state if it has one and unless ``fresh``."""
        flags = (libvirt.VIR_DOMAIN_START_PAUSED if paused else 0) | (
            libvirt.VIR_DOMAIN_START_FORCE_BOOT if fresh else 0
        )
        with self.domain(uuid, "start it") as domain:
            try:
                domain.createWithFlags(flags)
            except libvirt.libvirtError as exc:
                # The test driver knows no forced boot, and holds no saved state to forget.
                if not fresh or exc.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
                    raise
                domain.createWithFlags(flags & ~libvirt.VIR_DOMAIN_START_FORCE_BOOT)

    def ask_agent(self, uuid: str) -> None:
        """Have the guest's agent shut it down."""
        self.act(
            uuid,
            "ask its agent",
            lambda d: d.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT),
        )

    def ask_acpi(self, uuid: str) -> None:
        """Press the guest's power button."""
        self.act(uuid, "press its power button", _press)

    def destroy(self, uuid: str) -> None:
        """Take the guest's power away; its disks are flushed first where that is possible."""

        def work(domain: Any) -> None:  # Any: libvirt.virDomain
            try:
                domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
            except libvirt.libvirtError as exc:
                if exc.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID:
                    return  # it stopped by itself meanwhile
                domain.destroyFlags(0)

        self.act(uuid, "end its hypervisor", work)

    def reboot(self, uuid: str) -> None:
        """Have the guest restart itself."""
        self.act(uuid, "reboot it", lambda d: d.reboot(0))

    def reset(self, uuid: str) -> None:
        """Press the guest's reset button."""
        self.act(uuid, "reset it", lambda d: d.reset(0))

    def pause(self, uuid: str) -> None:
        """Stop the guest's processors."""
        self.act(uuid, "pause it", lambda d: d.suspend())

    def resume(self, uuid: str) -> None:
        """Let the guest's processors go on."""
        self.act(uuid, "resume it", lambda d: d.resume())

    def wake(self, uuid: str) -> None:
        """Wake a guest that put itself to sleep."""
        self.act(uuid, "wake it", lambda d: d.pMWakeup(0))

    def save(self, uuid: str, file: str) -> None:
        """Write the guest's memory to a file and end it; "" = where libvirt keeps it."""
        self.act(uuid, "save it", lambda d: d.save(file) if file else d.managedSave(0))

    def saved_guest(self, file: str) -> str:
        """The domain XML inside a file that ``save`` wrote.

        Raises:
            LibvirtRefusedError: it is no such file.
        """
        connection = self.connection()
        with translated(f"read the saved guest in {file}"):
            return str(connection.saveImageGetXMLDesc(file, 0))

    def restore(self, file: str, *, paused: bool) -> None:
        """Bring a guest back from a file."""
        connection = self.connection()
        with translated(f"restore the guest from {file}"):
            if paused:
                connection.restoreFlags(file, None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
            else:
                connection.restore(file)

    def job(self, uuid: str) -> Job:
        """How far the guest's job is, such as a save."""

        def work(domain: Any) -> Job:  # Any: libvirt.virDomain
            info = domain.jobInfo()
            return Job(done=int(info[4]), total=int(info[3]))

        found: Job = self.act(uuid, "ask for its job", work)
        return found

    def abort_job(self, uuid: str) -> None:
        """End the guest's job, such as a save; it goes on running."""
        self.act(uuid, "end its job", lambda d: d.abortJob())

    def set_autostart(self, uuid: str, *, enabled: bool) -> bool:
        """Set whether libvirt starts it with the host; False where it was so already."""

        def work(domain: Any) -> bool:  # Any: libvirt.virDomain
            if bool(domain.autostart()) == enabled:
                return False
            domain.setAutostart(int(enabled))
            return True

        return bool(self.act(uuid, "set its autostart", work))

    def screenshot(self, uuid: str) -> tuple[str, bytes]:
        """What the guest's first screen shows: MIME type and file.

        Raises:
            LibvirtRefusedError: it has no screen, or does not run.
        """
        connection = self.connection()

        def work(domain: Any) -> tuple[str, bytes]:  # Any: libvirt.virDomain
            stream = connection.newStream(0)
            mime = str(domain.screenshot(stream, 0))
            data = bytearray()
            while chunk := stream.recv(_STREAM_BYTES):
                data += chunk
                if len(data) > SCREENSHOT_BYTES_MAX:
                    stream.abort()
                    raise LibvirtRefusedError("its screen is larger than any screen")
            stream.finish()
            return mime, bytes(data)

        found: tuple[str, bytes] = self.act(uuid, "take a picture of its screen", work)
        return found

    def xml(self, uuid: str, *, of_definition: bool = False) -> str:
        """The guest's XML as it runs, or as it is defined for the next start."""
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE if of_definition else 0
        return str(self.act(uuid, "read its XML", lambda d: d.XMLDesc(flags)))


def _press(domain: Any) -> None:  # Any: libvirt.virDomain
    try:
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    except libvirt.libvirtError as exc:
        # The test driver has one way to shut down, and takes no flags.
        if exc.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
            raise
        domain.shutdown()


def _lookup(connection: Any, ref: str) -> Any:  # Any: libvirt's objects
    if len(ref) == UUID_CHARACTERS:
        try:
            return connection.lookupByUUIDString(ref)
        except libvirt.libvirtError as exc:
            # A name may look like a UUID.
            codes = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG)
            if exc.get_error_code() not in codes:
                raise
    return connection.lookupByName(ref)


def _has_saved(domain: Any) -> bool:  # Any: libvirt.virDomain
    try:
        return bool(domain.hasManagedSaveImage(0))
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
            return False
        raise
