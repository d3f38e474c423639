"""How one node reaches another's libvirt, and over what the streams go. Pure.

Whatever carries the streams one day is another ``Route``: libvirt takes the addresses from here,
a Unix socket's included.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.vm.migration.errors import MigrationRefusedError

KEEPALIVES = 3
URI = "qemu+tls://{host}/system"
_PORTS = {"tls": 16514, "tcp": 16509, "ssh": 22}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.:_-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationSettings:
    """Settings of migrations, inside those of ``core/vm``.

    Attributes:
        uri: of another node's libvirt; ``{host}`` stands for its address.
        addresses: ``node=address`` for nodes whose name is not their address.
        has_plain_streams: memory and disks go unencrypted.
        silence_s: another node's libvirt that is silent for so long does not answer. Shorter than
            libvirt's own, so that a line is found dead here first; see ``SourceDriver.sever``.
        settle_s: how long an operation waits for both sides to tell where the guest is.
    """

    uri: str = URI
    addresses: tuple[str, ...] = ()
    has_plain_streams: bool = False
    silence_s: int = 6
    settle_s: float = 60.0

    def __post_init__(self) -> None:
        if "{host}" not in self.uri or "://" not in self.uri:
            raise ValueError(f"uri is {self.uri!r:.60}; expected one such as {URI}")
        for entry in self.addresses:
            node, equals, address = entry.partition("=")
            if not (node and equals and _HOST.fullmatch(address)):
                raise ValueError(f"addresses has {entry!r:.80}; expected node=address")
        if not self.settle_s > 0 or self.silence_s < KEEPALIVES:
            raise ValueError(f"settle_s must be more than 0, silence_s at least {KEEPALIVES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The way to another node.

    Attributes:
        node: its name.
        host: its address.
        libvirt_uri: where its libvirt is, for this node's service and for this node's libvirtd.
        stream_uri: where the memory goes; "" = as the target's libvirt says.
        disks_uri: where the disks go; "" = the same.
        is_tunnelled: through the connection of the two libvirtd.
        is_encrypted: memory and disks are.
    """

    node: str
    host: str
    libvirt_uri: str
    stream_uri: str = ""
    disks_uri: str = ""
    is_tunnelled: bool = False
    is_encrypted: bool = True

    @property
    def port(self) -> int | None:
        """Where its libvirt listens; None for a transport without a port of its own."""
        parts = urlsplit(self.libvirt_uri)
        return parts.port or _PORTS.get(parts.scheme.partition("+")[2])


def find_route(settings: MigrationSettings, node: str) -> Route:
    """The way to a node: by its address where one is configured, else its name is one.

    Raises:
        MigrationRefusedError: its name can't be a host's, and no address is configured.
    """
    addresses = dict(entry.partition("=")[::2] for entry in settings.addresses)
    host = addresses.get(node, node)
    if not _HOST.fullmatch(host):
        raise MigrationRefusedError(
            f"{node!r:.80} is no host's name: add 'NODE=ADDRESS' to vm.migration.addresses"
        )
    # An IPv6 address stands in brackets in a URI.
    uri = settings.uri.replace("{host}", f"[{host}]" if ":" in host else host)
    if urlsplit(uri).hostname is None:
        raise MigrationRefusedError(f"vm.migration.uri makes {uri!r:.120}, which has no host")
    return Route(node=node, host=host, libvirt_uri=uri, is_encrypted=not settings.has_plain_streams)
