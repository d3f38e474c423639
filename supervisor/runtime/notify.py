"""Telling systemd how the node is.

Source: sd_notify(3); the protocol is datagrams of NAME=VALUE lines on $NOTIFY_SOCKET.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import MutableMapping

# The service manager is busy for seconds when it reloads; the kernel holds some datagrams for it.
_RETRY_S = 0.05
# States that wait for room at most: a reload has two, and nobody reloads a hundred times a second.
_PENDING_MAX = 16


class ServiceManager:
    """The service manager above this process; without one, every call does nothing.

    No call waits. What finds the manager's queue full is sent later, in order, since a READY=1
    that is lost would make systemd end a node that is up; of several sentences only the last one
    is worth that, and the watchdog's next beat comes by itself.

    Args:
        environ: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are read and removed, so that no
            child takes them for its own.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_us = environ.pop("WATCHDOG_USEC", "")
        watchdog_pid = environ.pop("WATCHDOG_PID", "")
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(0)
            self._address = "\0" + address[1:] if address.startswith("@") else address
        self._pending: deque[str] = deque(maxlen=_PENDING_MAX)
        self._status = ""
        self.retry_at_s: float | None = None
        is_ours = watchdog_pid in ("", str(os.getpid()))
        # Half of the interval, as sd_watchdog_enabled(3) advises.
        self.watchdog_period_s = int(watchdog_us) / 2e6 if watchdog_us and is_ours else None

    @property
    def is_present(self) -> bool:
        """Whether there is one."""
        return self._socket is not None

    def ready(self) -> None:
        """The node is up, or has finished reloading."""
        self._send("READY=1")

    def status(self, sentence: str) -> None:
        """Show a sentence in ``systemctl status``."""
        if sentence == self._status:
            return
        self._status = sentence
        for waiting in [it for it in self._pending if it.startswith("STATUS=")]:
            self._pending.remove(waiting)
        self._send(f"STATUS={sentence}")

    def reloading(self) -> None:
        """The configuration is being read again; ``ready`` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The node is going down."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """The root's loop turns."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(b"WATCHDOG=1", self._address)

    def turn(self, now_s: float) -> None:
        """Send what is waiting, once ``retry_at_s`` has come."""
        if self.retry_at_s is None or self.retry_at_s > now_s or self._socket is None:
            return
        self.retry_at_s = None
        while self._pending:
            try:
                self._socket.sendto(self._pending[0].encode(), self._address)
            except BlockingIOError:
                self.retry_at_s = now_s + _RETRY_S
                return
            except OSError:  # the manager has gone: nobody is left to be told
                self._pending.clear()
                return
            self._pending.popleft()

    def _send(self, message: str) -> None:
        if self._socket is not None:
            self._pending.append(message)
            self.retry_at_s = time.monotonic()
            self.turn(self.retry_at_s)
