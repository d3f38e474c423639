"""A real guest from a document: libvirtd and QEMU are real, the processors are emulated."""

from __future__ import annotations

import asyncio
import os
import select
import time
import tty
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from services.vm.documents.devices import (
    Accelerator,
    CloudInit,
    Cpus,
    Discard,
    Disk,
    DiskBus,
    DiskCache,
    DiskDevice,
    DiskFormat,
    Memory,
    Nic,
    NicModel,
    Topology,
)
from services.vm.documents.errors import PlanRefusedError
from services.vm.documents.model import Console, Graphics, Power, VmDocument
from services.vm.documents.records import Outcome
from services.vm.documents.steps import Allowed, StepKind
from tests.fixtures.fix_libvirt import private_libvirtd
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.vm_documents_running import running

pytestmark = [pytest.mark.libvirt, pytest.mark.postgres]

WORDS = b"up and running\r\n"
# The first sector of a disk: writes the words to the first serial port at each tick of the timer.
SECTOR = (
    b"\x31\xc0\x8e\xd8\xfc"  # ds = 0, forwards
    b"\xbe\x17\x7c\xba\xf8\x03"  # si = the words, dx = the port
    b"\xac\x84\xc0\x74\x03\xee\xeb\xf8"  # a letter; at the end go on below, else write it
    b"\xfb\xf4\xeb\xee"  # wait for the timer, and again
)
BOOT_S = 30.0


def image(file: Path) -> Path:
    """A disk that boots."""
    sector = (SECTOR + WORDS + b"\0").ljust(510, b"\0") + b"\x55\xaa"
    file.write_bytes(sector.ljust(1 << 20, b"\0"))
    return file


def heard(connection: Any, name: str) -> bytes:
    """What a guest's console says, until it has said the words."""
    source = ET.fromstring(connection.lookupByName(name).XMLDesc(0)).find("devices/serial/source")
    assert source is not None
    terminal = os.open(source.get("path", ""), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(terminal)
    data = b""
    deadline_s = time.monotonic() + BOOT_S
    while WORDS not in data and time.monotonic() < deadline_s:
        if select.select([terminal], [], [], 1.0)[0]:
            data += os.read(terminal, 1024)
    os.close(terminal)
    return data


def places(text: str) -> dict[str, dict[str, str]]:
    """The PCI addresses of the disks, by source."""
    found = {}
    for disk in ET.fromstring(text).iterfind("devices/disk"):
        source, address = disk.find("source"), disk.find("address")
        if source is not None and address is not None:
            found[source.get("file", "")] = dict(address.attrib)
    return found


def _snapshot(domain: Any, file: Path) -> None:
    """Have the guest write into another file from now on."""
    disks = f"<disk name='vda' snapshot='external'><source file='{file}'/></disk>"
    disks += "<disk name='sda' snapshot='no'/>"
    text = f"<domainsnapshot><name>s1</name><disks>{disks}</disks></domainsnapshot>"
    domain.snapshotCreateXML(text, 16)  # VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY


def everything(machine: str, graphics: Graphics, directory: Path) -> VmDocument:
    """A document with as much in it as one machine can have."""
    buses = [bus for bus in DiskBus if not (bus is DiskBus.IDE and machine == "q35")]
    disks = [
        Disk(
            path=f"{directory}/{bus.value}.img",
            bus=bus,
            format=DiskFormat.RAW,
            boot=number,
            serial=f"s{number}",
            cache=DiskCache.NONE,
            discard=Discard.UNMAP,
        )
        for number, bus in enumerate(buses, 1)
    ]
    return VmDocument(
        name=f"all-{machine}-{graphics.value}",
        title="<a> & b",
        machine=machine,
        graphics=graphics,
        accelerator=Accelerator.TCG,
        cpus=Cpus(
            count=2,
            maximum=4,
            topology=Topology(cores=4),
            model="Nehalem" if machine == "pc" else "default",
            pinning=("0",) * 4,
        ),
        memory=Memory(size="64MiB", maximum="128MiB"),
        disks=(
            *disks,
            Disk(pool="p", volume="v", read_only=True),
            Disk(device=DiskDevice.CDROM, bus=DiskBus.SATA),
        ),
        networks=(
            *(Nic(bridge="br0", model=model) for model in NicModel),
            Nic(network="default", segment="web", boot=50),
        ),
        console=Console.VIRTIO if machine == "pc" else Console.SERIAL,
        cloud_init=CloudInit(user_data="#cloud-config\n{}\n"),
    )


def test_a_document_becomes_a_guest(postgres_database: PostgresDatabase, tmp_path: Path) -> None:
    """It boots, its console speaks, nothing is left to do, and it outlives the service."""

    async def scenario(uri: str, connection: Any) -> None:
        wanted = VmDocument(
            name="real",
            accelerator=Accelerator.TCG,
            memory=Memory(size="64MiB", maximum="96MiB"),
            disks=(Disk(path=str(image(tmp_path / "real.img")), format=DiskFormat.RAW, boot=1),),
            cloud_init=CloudInit(user_data="#cloud-config\n{}\n"),
            power=Power.ON,
        )
        async with running(uri, postgres_database, tmp_path) as node:
            reply = await node.apply(wanted)
            assert reply.is_done, reply.results
            assert await node.plan() == []
            assert WORDS in await asyncio.to_thread(heard, connection, "real")

            smaller = replace(wanted, memory=Memory(size="48MiB", maximum="96MiB"))
            reply = await node.apply(smaller)
            assert [result.step.kind for result in reply.results] == [
                StepKind.REDEFINE,
                StepKind.RESIZE_MEMORY,
            ]
            assert reply.is_done, reply.results
            assert reply.notes == ()

            _snapshot(connection.lookupByName("real"), tmp_path / "real.s1")
            assert await node.plan(names=["real"]) == []
            reply = await node.apply(replace(smaller, title="after a snapshot"))
            assert reply.is_done, reply.results
            defined = connection.lookupByName("real").XMLDesc(2)
            assert f"{tmp_path}/real.s1" in defined
            assert f"{tmp_path}/real.img" in defined  # below it

            missing = replace(wanted, name="empty", disks=(Disk(path=f"{tmp_path}/no.qcow2"),))
            reply = await node.apply(missing)
            assert [r.outcome for r in reply.results] == [Outcome.DONE, Outcome.FAILED]
            assert "no.qcow2" in reply.results[1].message
        assert connection.lookupByName("real").isActive()

    with private_libvirtd() as daemon:
        connection = daemon.drive()
        try:
            asyncio.run(scenario(daemon.uri, connection))
        finally:
            connection.close()


def test_libvirt_keeps_what_a_document_says(
    postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Its schema takes all of it, and adds nothing; a disk that goes away moves no other."""

    async def scenario(uri: str, connection: Any) -> None:
        async with running(uri, postgres_database, tmp_path) as node:
            for machine in ("q35", "pc"):
                for graphics in Graphics:
                    wanted = everything(machine, graphics, tmp_path / machine / graphics.value)
                    (tmp_path / machine / graphics.value).mkdir(parents=True)
                    reply = await node.apply(wanted, method="vm.define", names=[])
                    assert reply.is_done, reply.results
                    view = await node.get(wanted.name)
                    assert (view.left_out, view.steps) == ((), ())

            second = Disk(path=f"{tmp_path}/second.img", format=DiskFormat.RAW)
            first = replace(second, path=f"{tmp_path}/first.img")
            both = VmDocument(name="two", accelerator=Accelerator.TCG, disks=(first, second))
            await node.apply(both)
            before = places(connection.lookupByName("two").XMLDesc(0))
            with pytest.raises(PlanRefusedError, match=r"first\.img"):
                await node.apply(replace(both, disks=(second,)))
            await node.apply(replace(both, disks=(second,)), allowed=Allowed(replace=True))
            after = places(connection.lookupByName("two").XMLDesc(0))
            assert after == {second.path: before[second.path]}
            view = await node.get("two")
            assert view.steps == ()

    with private_libvirtd() as daemon:
        connection = daemon.drive()
        try:
            asyncio.run(scenario(daemon.uri, connection))
        finally:
            connection.close()
