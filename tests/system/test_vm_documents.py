"""VM documents on libvirt's test driver and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from services.vm.documents.devices import CloudInit, Cpus, Disk, DiskFormat, Memory, Nic
from services.vm.documents.errors import (
    AdoptionError,
    ApplyBusyError,
    DocumentChangedError,
    DocumentElsewhereError,
    DocumentError,
    DocumentNotFoundError,
    DocumentsUnavailableError,
    DomainRunningError,
    FencedError,
    PlanRefusedError,
)
from services.vm.documents.model import Placement, Power, VmDocument
from services.vm.documents.records import ApplyReply, Outcome
from services.vm.documents.steps import Allowed, StepKind
from services.vm.libvirt_adapter import start_event_loop
from services.vm.model import DomainState
from tests.fixtures.fix_postgres import PostgresDatabase, PostgresServer
from tests.system.vm_documents_running import running

pytestmark = [pytest.mark.libvirt, pytest.mark.postgres]

URI = "test:///default"
FOREIGN = """
<domain type='test'>
  <name>{}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type>hvm</type></os>
  <devices>{}</devices>
</domain>
"""


@pytest.fixture
def driver() -> Iterator[Any]:
    """A connection to the test driver; its domains are the process's, and taken away again."""
    start_event_loop()
    connection = libvirt.open(URI)
    before = {domain.UUIDString() for domain in connection.listAllDomains(0)}
    yield connection
    for domain in connection.listAllDomains(0):
        if domain.UUIDString() not in before:
            if domain.isActive():
                domain.destroy()
            if domain.isPersistent():
                domain.undefine()
    connection.close()


def machine(name: str, **more: Any) -> VmDocument:
    """A document that the test driver takes."""
    return VmDocument(name=name, memory=Memory(size="64MiB", maximum="128MiB"), **more)


def test_a_document_comes_to_life(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Planned, applied, started, and planned again: nothing is left to do."""

    async def scenario() -> None:
        wanted = machine("born", power=Power.ON, autostart=True, cpus=Cpus(count=2))
        async with running(URI, postgres_database, tmp_path) as node:
            planned = await node.plan(wanted)
            reply = await node.apply(wanted)
            again = await node.plan()

            assert [kind for kind, _ in planned] == [StepKind.DEFINE, StepKind.START]
            assert reply.is_done
            assert reply.versions == {"born": 1}
            assert again == []
            view = await node.get("born")
            assert view.is_ours
            assert view.domain is not None
            assert view.domain.state is DomainState.RUNNING
            assert not view.domain.autostart
            assert view.domain.vcpus == 2
            assert view.domain.uuid == wanted.domain_uuid
            assert view.stored is not None
            assert view.stored.updated_by == "operator/anna"
            told = [fields["step"] for name, fields in node.context.events if name == "vm:step"]
            assert told == ["define", "start"]

    asyncio.run(scenario())


def test_applying_again_changes_nothing(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """The same document has the same version, and no step."""

    async def scenario() -> None:
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(machine("twice", power=Power.ON))
            reply = await node.apply(machine("twice", power=Power.ON))

            assert reply.results == ()
            assert reply.versions == {"twice": 1}

    asyncio.run(scenario())


def test_memory_follows_while_the_guest_runs(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Within the maximum there is no restart; what needs one is said and not done."""

    async def scenario() -> None:
        first = machine("grows", power=Power.ON)
        more = replace(first, memory=Memory(size="96MiB", maximum="128MiB"))
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(first)
            reply = await node.apply(more)
            assert [result.step.kind for result in reply.results] == [
                StepKind.REDEFINE,
                StepKind.RESIZE_MEMORY,
            ]
            assert reply.is_done, reply.results
            assert reply.notes == ()
            domain = driver.lookupByName("grows")
            assert domain.info()[2] == 96 << 10

            larger = replace(more, memory=Memory(size="256MiB"))
            reply = await node.apply(larger)
            assert [note.kind for note in reply.notes] == [StepKind.NEEDS_RESTART]
            assert domain.isActive()
            identity = domain.ID()
            reply = await node.apply(larger, allowed=Allowed(restart=True))
            assert [result.step.kind for result in reply.results] == [StepKind.RESTART]
            assert reply.is_done, reply.results
            assert domain.isActive()
            assert driver.lookupByName("grows").ID() != identity
            assert await node.plan() == []

    asyncio.run(scenario())


def test_a_domain_of_somebody_else_is_adopted_unchanged(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Refused unasked; adopted it gets the mark, and its definition stays as it was."""

    async def scenario() -> None:
        disk = "<disk type='file' device='disk'><source file='/elsewhere/a.img'/>"
        disk += "<target dev='vda' bus='virtio'/></disk><hostdev mode='subsystem' type='usb'>"
        disk += "<source><address bus='1' device='2'/></source></hostdev>"
        driver.defineXML(FOREIGN.format("foreign", disk))
        before = driver.lookupByName("foreign").XMLDesc(0)
        async with running(URI, postgres_database, tmp_path) as node:
            with pytest.raises(PlanRefusedError, match="vm adopt foreign"):
                await node.apply(machine("foreign"))
            assert (await node.documents()).documents == ()

            reply = await node.ask("vm.adopt", ApplyReply, name="foreign")

            assert [result.step.kind for result in reply.results] == [StepKind.MARK]
            assert reply.is_done, reply.results
            after = driver.lookupByName("foreign").XMLDesc(0)
            assert _without_metadata(after) == _without_metadata(before)
            view = await node.get("foreign")
            assert view.is_ours
            assert any("hostdev" in text for text in view.left_out)
            assert await node.plan() == []
            with pytest.raises(AdoptionError, match="already"):
                await node.ask("vm.adopt", ApplyReply, name="foreign")

            assert view.stored is not None
            changed = replace(view.stored.document, title="new")
            with pytest.raises(PlanRefusedError, match="hostdev"):
                await node.apply(changed)

    asyncio.run(scenario())


def test_a_removed_document_leaves_nothing_but_the_disks(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """A running guest is not undefined; a stopped one is, and its image stays."""

    async def scenario() -> None:
        image = tmp_path / "a.img"
        image.write_bytes(b"kept" * 1024)
        disk = Disk(path=str(image), format=DiskFormat.RAW)
        wanted = machine("gone", power=Power.ON, disks=(disk,))
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(wanted)
            with pytest.raises(DomainRunningError, match="stop it"):
                await node.ask("vm.undefine", ApplyReply, name="gone")
            await node.apply(replace(wanted, power=Power.OFF))
            reply = await node.ask("vm.undefine", ApplyReply, name="gone")

            assert reply.is_done, reply.results
            assert image.read_bytes() == b"kept" * 1024
            with pytest.raises(libvirt.libvirtError):
                driver.lookupByName("gone")
            with pytest.raises(DocumentNotFoundError):
                await node.ask("vm.undefine", ApplyReply, name="gone")

            await node.apply(replace(wanted, power=Power.OFF))
            view = await node.get("gone")
            assert view.stored is not None
            assert view.stored.epoch == 2

    asyncio.run(scenario())


def test_a_domain_with_a_newer_owner_is_left_alone(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """A smaller epoch than the mark's changes nothing."""

    async def scenario() -> None:
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(machine("fenced"))
            domain = driver.lookupByName("fenced")
            kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
            newer = "<vm document='' epoch='9'/>"
            domain.setMetadata(kind, newer, "novacron", "urn:novacron:vm:1", 0)

            with pytest.raises(PlanRefusedError, match="newer owner"):
                await node.apply(machine("fenced", title="old"))
            assert await node.plan() == [(StepKind.REFUSED, "fenced")]
            with pytest.raises(FencedError, match="epoch 9"):
                await node.ask("vm.undefine", ApplyReply, name="fenced")
            assert [item.name for item in (await node.documents()).documents] == ["fenced"]

    asyncio.run(scenario())


def test_versions_keep_changes_from_being_lost(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Who read an older version, or expects none, is told the present one."""

    async def scenario() -> None:
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(machine("versioned"), expected={"versioned": 0})
            await node.apply(machine("versioned", title="a"), expected={"versioned": 1})

            for expected in (0, 1, 3):
                with pytest.raises(DocumentChangedError, match="version 2"):
                    await node.apply(
                        machine("versioned", title="b"), expected={"versioned": expected}
                    )
            with pytest.raises(DocumentChangedError, match="version 0"):
                await node.apply(machine("also"), machine("never"), expected={"never": 4})
            assert [item.name for item in (await node.documents()).documents] == ["versioned"]

    asyncio.run(scenario())


def test_defining_starts_nothing(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Whatever the document says, and even when the caller claims otherwise."""

    async def scenario() -> None:
        async with running(URI, postgres_database, tmp_path) as node:
            wanted = machine("defined", power=Power.ON)
            reply = await node.apply(wanted, method="vm.define", define_only=False)

            assert [result.step.kind for result in reply.results] == [StepKind.DEFINE]
            assert not driver.lookupByName("defined").isActive()

    asyncio.run(scenario())


def test_without_the_database_the_known_documents_serve(
    driver: Any,
    postgres_server: PostgresServer,
    postgres_database: PostgresDatabase,
    tmp_path: Path,
) -> None:
    """Plans and applies of kept documents go on, from memory and from the file; changes do not."""

    async def scenario() -> None:
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(machine("known", power=Power.ON))
            assert not (await node.documents()).is_stale
            postgres_server.stop()
            try:
                await _serves(node, driver)
                node.service.calls()  # a new one has the file alone
                async with running_again(postgres_database, tmp_path) as other:
                    await _serves(other, driver)
            finally:
                postgres_server.start()
            assert not (await node.documents()).is_stale

    async def _serves(node: Any, driver: Any) -> None:
        listed = await node.documents()
        assert listed.is_stale
        assert [item.name for item in listed.documents] == ["known"]
        driver.lookupByName("known").destroy()
        reply = await node.apply()
        assert [result.step.kind for result in reply.results] == [StepKind.START]
        assert reply.is_stale
        with pytest.raises(DocumentsUnavailableError, match="database is away"):
            await node.apply(machine("unknown"))
        with pytest.raises(libvirt.libvirtError):
            driver.lookupByName("unknown")

    def running_again(database: PostgresDatabase, directory: Path) -> Any:
        return running(URI, database, directory, has_schema=True)

    asyncio.run(scenario())


def test_disks_lie_where_guests_files_do(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """A path that leads outside is refused, through a link too."""

    async def scenario() -> None:
        (tmp_path / "link").symlink_to("/etc")
        async with running(URI, postgres_database, tmp_path) as node:
            for path in ("/etc/shadow", f"{tmp_path}/link/shadow"):
                with pytest.raises(DocumentError, match=r"disks\[0\].path"):
                    await node.apply(machine("thief", disks=(Disk(path=path),)))

    asyncio.run(scenario())


def make_overlay(file: Path) -> None:
    """An image whose content would be that of a file of the host's."""
    below = ["-b", "/etc/shadow", "-F", "raw"]
    argv = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", *below, str(file), "1M"]
    subprocess.run(argv, check=True)


def test_an_image_is_what_its_document_says(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Another format and an overlay of a file elsewhere are refused, also when they come later."""

    async def scenario() -> None:
        late = tmp_path / "late.qcow2"
        make_overlay(tmp_path / "evil.qcow2")
        async with running(URI, postgres_database, tmp_path) as node:
            evil = Disk(path=f"{tmp_path}/evil.qcow2")
            with pytest.raises(DocumentError, match="/etc/shadow"):
                await node.apply(machine("evil", disks=(evil,)))
            (tmp_path / "raw.img").write_bytes(b"x" * 4096)
            with pytest.raises(DocumentError, match="format is qcow2"):
                await node.apply(machine("evil", disks=(Disk(path=f"{tmp_path}/raw.img"),)))

            wanted = machine("late", disks=(Disk(path=str(late)),))
            await node.apply(wanted)
            make_overlay(late)
            power_on = replace(wanted, power=Power.ON)
            reply = await node.apply(power_on)
            failed = reply.results[-1]
            assert (failed.step.kind, failed.outcome) == (StepKind.START, Outcome.FAILED)
            assert "/etc/shadow" in failed.message
            assert not driver.lookupByName("late").isActive()

    asyncio.run(scenario())


def test_two_machines_never_share_a_disk_or_an_address(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """The second one is refused, and neither kept nor defined."""

    async def scenario() -> None:
        disk = Disk(path=f"{tmp_path}/shared.qcow2")
        card = Nic(network="default", mac="52:54:00:00:00:01")
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(machine("one", disks=(disk,), networks=(card,)))
            for more in ({"disks": (disk,)}, {"networks": (card,)}):
                with pytest.raises(PlanRefusedError, match="one has the same"):
                    await node.apply(machine("two", **more))
            with pytest.raises(PlanRefusedError, match="same UUID"):
                await node.apply(machine("two", uuid=machine("one").domain_uuid))
            assert [item.name for item in (await node.documents()).documents] == ["one"]

    asyncio.run(scenario())


def test_placement_is_kept(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """A machine for another node, or beside one that it must be apart from, is not brought up."""

    async def scenario() -> None:
        elsewhere = machine("far", placement=Placement(nodes=("node-2",)))
        apart = machine("apart", placement=Placement(apart_from=("near",)))
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(machine("near", power=Power.ON))
            reply = await node.apply(elsewhere, apart)

            assert reply.results == ()
            assert {note.kind for note in reply.notes} == {StepKind.ELSEWHERE}

    asyncio.run(scenario())


def test_a_step_that_fails_does_not_stop_the_others(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """The failed machine's later steps are skipped, with libvirt's words for why."""

    async def scenario() -> None:
        good = machine("good", power=Power.ON, priority=1)
        bad = machine("bad", power=Power.ON, priority=9)
        async with running(URI, postgres_database, tmp_path) as node:
            planned = await node.apply(good, bad, method="vm.define")
            assert planned.is_done
            driver.lookupByName("bad").undefine()
            driver.defineXML(FOREIGN.format("bad", "").replace("<vcpu>1", "<vcpu>2"))
            reply = await node.apply(names=["good", "bad"])

            assert [(r.step.name, r.outcome) for r in reply.results] == [("good", Outcome.DONE)]
            assert [(note.name, note.kind) for note in reply.notes] == [("bad", StepKind.REFUSED)]

    asyncio.run(scenario())


def test_cloud_init_gets_an_image_beside_the_disks(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """It is written before the definition, once, and a changed text is another image."""

    async def scenario() -> None:
        first = machine("cloudy", cloud_init=CloudInit(user_data="#cloud-config\n{}\n"))
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(first)
            images = list((tmp_path / "seeds").iterdir())
            assert len(images) == 1
            assert images[0].read_bytes()[32769:32774] == b"CD001"
            assert images[0].stat().st_mode & 0o777 == 0o600
            assert await node.plan() == []

            second = CloudInit(user_data="#cloud-config\n{a: b}\n")
            reply = await node.apply(replace(first, cloud_init=second))
            assert [result.step.kind for result in reply.results] == [StepKind.REDEFINE]
            assert len(list((tmp_path / "seeds").iterdir())) == 2
            await node.apply(replace(first, cloud_init=second, power=Power.ON))
            assert len(list((tmp_path / "seeds").iterdir())) == 1
            with pytest.raises(DocumentError, match="user-data must begin"):
                await node.apply(replace(first, cloud_init=CloudInit(user_data="x")))

    asyncio.run(scenario())


def _without_metadata(text: str) -> str:
    start, end = text.find("<metadata>"), text.find("</metadata>")
    return "".join((text[:start] + text[end + 11 :] if start >= 0 else text).split())


def test_a_name_belongs_to_one_node(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Another node is told whose it is and can't remove it; it may take it once it is removed."""

    async def scenario() -> None:
        async with running(URI, postgres_database, tmp_path / "one") as node:
            await node.apply(machine("mine"), method="vm.define")
            other_one = running(
                URI, postgres_database, tmp_path / "two", has_schema=True, node_id="node-2"
            )
            async with other_one as other:
                driver.lookupByName("mine").undefine()  # both nodes see one test driver
                with pytest.raises(DocumentElsewhereError, match="node-1"):
                    await other.apply(machine("mine"))
                with pytest.raises(DocumentNotFoundError):
                    await other.ask("vm.undefine", ApplyReply, name="mine")
                await node.ask("vm.undefine", ApplyReply, name="mine")
                reply = await other.apply(machine("mine"))
                assert reply.is_done
                view = await other.get("mine")
                assert view.stored is not None
                assert view.stored.epoch == 2

    asyncio.run(scenario())


def test_a_document_of_a_newer_program_harms_nothing(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """It is named, its domain is left alone, and the others are served."""

    async def scenario() -> None:
        async with running(URI, postgres_database, tmp_path) as node:
            await node.apply(machine("odd"), machine("plain"))
            with postgres_database.connect() as connection:
                connection.execute(
                    'UPDATE vm_documents SET document = document || \'{"tpm": "2.0"}\' '
                    "WHERE name = 'odd'"
                )
            listed = await node.documents()
            assert listed.unreadable == ("odd",)
            assert [item.name for item in listed.documents] == ["plain"]
            assert await node.plan(allowed=Allowed(undefine=True)) == [(StepKind.REFUSED, "odd")]

    asyncio.run(scenario())


def test_one_change_at_a_time(
    driver: Any, postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """A second apply is refused while the first is under way, and both are whole."""

    async def scenario() -> None:
        async with running(URI, postgres_database, tmp_path) as node:
            first = asyncio.create_task(node.apply(machine("first")))
            await asyncio.sleep(0)
            with pytest.raises(ApplyBusyError):
                await node.apply(machine("second"))
            assert (await first).is_done
            assert (await node.apply(machine("second"))).is_done

    asyncio.run(scenario())
