"""Valid VM documents at random, for the tests of the documents."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import strategies as st

from services.vm.documents.checks import size_text
from services.vm.documents.devices import (
    Accelerator,
    Cpus,
    Discard,
    Disk,
    DiskBus,
    DiskCache,
    DiskDevice,
    DiskFormat,
    Firmware,
    FirmwareKind,
    Memory,
    Nic,
    NicModel,
    Topology,
)
from services.vm.documents.model import Console, Graphics, OnCrash, VmDocument

_LETTERS = string.ascii_lowercase + string.digits
WORDS = st.text(_LETTERS, min_size=1, max_size=12)
MACS = st.binary(min_size=5, max_size=5).map(
    lambda raw: ":".join(f"{octet:02x}" for octet in b"\x52" + raw)
)
# Without what would be no letter of XML or no line.
TITLES = st.text(st.characters(whitelist_categories=("L", "N", "P", "S")), max_size=30)


@st.composite
def all_cpus(draw: Any) -> Cpus:
    """Processors with and without a maximum, a topology and pinning."""
    sockets, cores, threads = (draw(st.integers(1, 4)) for _ in range(3))
    most = sockets * cores * threads
    count = draw(st.integers(1, most))
    topology = Topology(sockets=sockets, cores=cores, threads=threads)
    return Cpus(
        count=count,
        maximum=most if most != count else 0,
        model=draw(st.sampled_from(("default", "host-model", "maximum", "Nehalem"))),
        topology=draw(st.sampled_from((None, topology))),
        pinning=draw(st.sampled_from(((), ("0-1",) * most))),
    )


@st.composite
def memories(draw: Any) -> Memory:
    """Memory in whole MiB, with and without a maximum."""
    size = draw(st.integers(1, 1 << 16)) << 20
    more = draw(st.integers(0, 1 << 16)) << 20
    return Memory(size=size_text(size), maximum=size_text(size + more) if more else "")


@st.composite
def disks(draw: Any, number: int, buses: tuple[DiskBus, ...]) -> Disk:
    """A disk whose source, serial and place no other number has."""
    device = draw(st.sampled_from(tuple(DiskDevice)))
    is_cdrom = device is DiskDevice.CDROM
    allowed = tuple(bus for bus in buses if not (is_cdrom and bus is DiskBus.VIRTIO))
    source = draw(st.sampled_from(("path", "pool", "none") if is_cdrom else ("path", "pool")))
    return Disk(
        path=f"/images/{number}/{draw(WORDS)}" if source == "path" else "",
        pool=draw(WORDS) if source == "pool" else "",
        volume=f"{number}.{draw(WORDS)}" if source == "pool" else "",
        device=device,
        format=draw(st.sampled_from(tuple(DiskFormat))),
        bus=draw(st.sampled_from(allowed)),
        cache=draw(st.sampled_from(tuple(DiskCache))),
        discard=draw(st.sampled_from(tuple(Discard))),
        serial=draw(st.sampled_from(("", f"s{number}"))),
        boot=draw(st.sampled_from((0, number + 1))),
        read_only=False if is_cdrom else draw(st.booleans()),
    )


@st.composite
def nics(draw: Any, number: int) -> Nic:
    """A card on a bridge or in a network."""
    kind = draw(st.sampled_from(("bridge", "network")))
    return Nic(
        bridge="br0" if kind == "bridge" else "",
        network="net0" if kind == "network" else "",
        mac=draw(st.one_of(st.just(""), MACS)),
        model=draw(st.sampled_from(tuple(NicModel))),
        segment=draw(st.one_of(st.just(""), WORDS)),
        boot=draw(st.sampled_from((0, number + 50))),
    )


@st.composite
def documents(draw: Any) -> VmDocument:
    """A document of all that domain XML can say."""
    machine = draw(st.sampled_from(("q35", "pc", "pc-q35-7.2")))
    buses = tuple(b for b in DiskBus if b is not DiskBus.IDE or "q35" not in machine)
    kind = draw(st.sampled_from(tuple(FirmwareKind)))
    is_secure = kind is FirmwareKind.UEFI and "q35" in machine and draw(st.booleans())
    cards = tuple(draw(nics(number)) for number in range(draw(st.integers(0, 3))))
    said = [card.mac for card in cards if card.mac]
    if len(set(said)) != len(said):
        cards = cards[:1]
    return VmDocument(
        name=draw(WORDS),
        title=draw(TITLES),
        uuid=draw(st.one_of(st.just(""), st.uuids().map(str))),
        cpus=draw(all_cpus()),
        memory=draw(memories()),
        firmware=Firmware(kind=kind, secure_boot=is_secure),
        machine=machine,
        accelerator=draw(st.sampled_from((Accelerator.KVM, Accelerator.TCG))),
        disks=tuple(draw(disks(number, buses)) for number in range(draw(st.integers(0, 4)))),
        networks=cards,
        console=draw(st.sampled_from(tuple(Console))),
        graphics=draw(st.sampled_from(tuple(Graphics))),
        guest_agent=draw(st.booleans()),
        on_crash=draw(st.sampled_from(tuple(OnCrash))),
    )
