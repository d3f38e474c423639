"""Telling systemd how the node is.

Source: sd_notify(3); the protocol is datagrams of NAME=VALUE lines on $NOTIFY_SOCKET.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping


class ServiceManager:
    """The service manager above this process; without one, every call does nothing.

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
        is_ours = watchdog_pid in ("", str(os.getpid()))
        # Half of the interval, as sd_watchdog_enabled(3) advises.
        self.watchdog_period_s = int(watchdog_us) / 2e6 if watchdog_us and is_ours else None

    def ready(self) -> None:
        """The node is up, or has finished reloading."""
        self._send("READY=1")

    def status(self, sentence: str) -> None:
        """Show a sentence in ``systemctl status``."""
        self._send(f"STATUS={sentence}")

    def reloading(self) -> None:
        """The configuration is being read again; ``ready`` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The node is going down."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """The root's loop turns."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._socket is not None:
            # A full queue of the service manager must not stop the tree.
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)
