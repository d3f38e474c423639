"""Which wishes go together. Pure.

libvirt refuses some of what can't work at once, some after minutes, and carries out some that
loses data; here all are refused before anything begins.
"""

from __future__ import annotations

from collections.abc import Callable

from services.vm.migration.model import Compression, MigrateRequest, OnTimeout, Storage
from services.vm.migration.routes import Route

_Rule = tuple[Callable[[MigrateRequest, Route], bool], str]
_RULES: tuple[_Rule, ...] = (
    (
        lambda r, w: w.is_tunnelled and r.storage is Storage.COPY,
        "disks can't be copied through a tunnel",
    ),
    (
        lambda r, w: w.is_tunnelled and r.connections > 0,
        "a tunnel is one stream and can't have several connections",
    ),
    (
        lambda _, w: w.is_tunnelled and w.is_encrypted,
        "a tunnel has its own encryption: either that or encrypted streams",
    ),
    (
        lambda r, _: r.compression is not Compression.NONE and r.connections > 0,
        "with several connections QEMU does not compress this way: give one of the two",
    ),
    (
        lambda r, _: r.onto_existing and r.storage is not Storage.COPY,
        "disks are written over only where they are copied: --onto-existing needs --copy-storage",
    ),
    (
        lambda r, _: r.on_timeout is OnTimeout.FINISH and not r.timeout_s,
        "to finish at the timeout needs a timeout",
    ),
)


def find_conflicts(request: MigrateRequest, route: Route) -> tuple[str, ...]:
    """What can't go together, a sentence each; none where all can."""
    return tuple(words for is_bad, words in _RULES if is_bad(request, route))
