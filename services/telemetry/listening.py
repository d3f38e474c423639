"""Opening a listening TCP socket, with errors that name the setting to change."""

from __future__ import annotations

import errno
import os
import socket

from services.telemetry.errors import CannotListenError, PortInUseError

BACKLOG = 128


def open_listener(*, host: str, port: int, setting: str) -> socket.socket:
    """Bind and listen.

    Args:
        host: address or name; the first address of a name is taken.
        port: 0 takes a free one.
        setting: the configuration key of the port, for the error.

    Returns:
        A non-blocking socket that is closed on exec. It may take over a port whose last
        connections are still in TIME_WAIT, but not one that is being listened on.

    Raises:
        PortInUseError: somebody listens there.
        CannotListenError: the name does not resolve, the address is not this host's, or the
            port needs a right that this process lacks.
    """
    where = f"{host}:{port} ({setting})"
    try:
        # Of text, Python makes bytes by a codec whose import takes half as long as all of a start.
        name = host.encode() if host.isascii() else host
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise CannotListenError(
            f"can't listen on {where}: the host does not resolve: {exc.strerror}", port=port
        ) from exc
    family, kind, protocol, _name, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} of {host} is in use by another process: end it (ss -ltnp shows it) "
                f"or set another {setting}",
                port=port,
            ) from exc
        reason = os.strerror(exc.errno or 0)
        raise CannotListenError(f"can't listen on {where}: {reason}", port=port) from exc
    listener.settimeout(0)
    return listener
