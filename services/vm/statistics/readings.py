"""libvirt's counters of a machine at one moment, out of its bulk statistics. Pure.

A group of counters is None where libvirt did not tell it: a driver that has none, or a hypervisor
that is busy with something else and was not waited for.

Source: virConnectGetAllDomainStats in libvirt's libvirt-domain.c, which lists the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.vm.domains import state_from_libvirt
from services.vm.model import DomainState

_KIB = 1024
_NS = 1e-9
# What a message can carry.
_AMOUNT_MAX = 2**63 - 1
# libvirt's own limits are far higher; what a message and a screen can show ends earlier.
DEVICES_MAX = 64
_DISK = {
    "read_bytes": "rd.bytes",
    "reads": "rd.reqs",
    "written_bytes": "wr.bytes",
    "writes": "wr.reqs",
}
_INTERFACE = {
    "received_bytes": ("rx.bytes",),
    "sent_bytes": ("tx.bytes",),
    "received_packets": ("rx.pkts",),
    "sent_packets": ("tx.pkts",),
    "drops": ("rx.drop", "tx.drop"),
    "errors": ("rx.errs", "tx.errs"),
}

Raw = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Counted:
    """Counters of one thing at one moment.

    Attributes:
        at_s: monotonic.
        values: by name; they only grow while the hypervisor runs.
    """

    at_s: float
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory in bytes; see DomainStatistics."""

    assigned: int | None = None
    maximum: int | None = None
    used: int | None = None
    resident: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainReading:
    """One machine at one moment.

    Attributes:
        cpu: ``cpu_seconds``.
        disks: by target; see ``_DISK``.
        sizes: capacity and allocation in bytes, by target.
        interfaces: by link; see ``_INTERFACE``.
    """

    name: str
    uuid: str
    state: DomainState
    vcpus: int | None = None
    memory: Memory | None = None
    cpu: Counted | None = None
    disks: Mapping[str, Counted] | None = None
    sizes: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    interfaces: Mapping[str, Counted] | None = None


def read_raw(name: str, uuid: str, raw: Raw, *, at_s: float) -> DomainReading:
    """A machine's reading out of what libvirt tells; fields that are missing stay unknown."""
    state = state_from_libvirt(
        _int(raw, "state.state", default=-1), _int(raw, "state.reason", default=-1)
    )[0]
    cpu_ns = _find(raw, "cpu.time")
    return DomainReading(
        name=name,
        uuid=uuid,
        state=state,
        vcpus=_find(raw, "vcpu.current"),
        memory=_memory(raw),
        cpu=None if cpu_ns is None else Counted(at_s, {"cpu_seconds": cpu_ns * _NS}),
        disks=_disks(raw, at_s),
        sizes=_sizes(raw),
        interfaces=_interfaces(raw, at_s),
    )


def _memory(raw: Raw) -> Memory | None:
    assigned, available = _kib(raw, "balloon.current"), _kib(raw, "balloon.available")
    if assigned is None:
        return None
    # What the guest can still give out counts its caches; without it, what lies idle has to do.
    free = _kib(raw, "balloon.usable")
    if free is None:
        free = _kib(raw, "balloon.unused")
    used = None if available is None or free is None else max(available - free, 0)
    return Memory(
        assigned=assigned,
        maximum=_kib(raw, "balloon.maximum"),
        used=used,
        resident=_kib(raw, "balloon.rss"),
    )


def _disks(raw: Raw, at_s: float) -> dict[str, Counted] | None:
    """The disks; None where their counters are not told, as by a hypervisor that is busy."""
    if _find(raw, "block.count") is None:
        return None
    found = {}
    for number in _numbers(raw, "block"):
        values = {name: _find(raw, f"block.{number}.{key}") for name, key in _DISK.items()}
        known = {name: float(value) for name, value in values.items() if value is not None}
        if known:
            found[_text(raw, f"block.{number}.name")] = Counted(at_s, known)
    return found if found or not _int(raw, "block.count") else None


def _sizes(raw: Raw) -> dict[str, tuple[int | None, int | None]]:
    return {
        _text(raw, f"block.{number}.name"): (
            _find(raw, f"block.{number}.capacity"),
            _find(raw, f"block.{number}.allocation"),
        )
        for number in _numbers(raw, "block")
    }


def _interfaces(raw: Raw, at_s: float) -> dict[str, Counted] | None:
    if _find(raw, "net.count") is None:
        return None
    found = {}
    for number in _numbers(raw, "net"):
        link = _text(raw, f"net.{number}.name")
        values = {
            name: float(sum(_int(raw, f"net.{number}.{key}") for key in keys))
            for name, keys in _INTERFACE.items()
        }
        if link:  # an interface that has no link yet has no counters
            found[link] = Counted(at_s, values)
    return found


def _numbers(raw: Raw, kind: str) -> range:
    return range(min(_int(raw, f"{kind}.count"), DEVICES_MAX))


def _find(raw: Raw, key: str) -> int | None:
    value = raw.get(key)
    # Not isinstance: True is an int to Python. What is beyond all reason is unknown.
    return value if type(value) is int and 0 <= value <= _AMOUNT_MAX else None


def _int(raw: Raw, key: str, *, default: int = 0) -> int:
    value = _find(raw, key)
    return default if value is None else value


def _kib(raw: Raw, key: str) -> int | None:
    value = _find(raw, key)
    return None if value is None else min(value * _KIB, _AMOUNT_MAX)


def _text(raw: Raw, key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""
