"""What a node remembers of its leases while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from services.vm.leases.model import DiskMode, DiskUse, Machine
from services.vm.leases.record import LeaseRecord, boot_id, read_record, write_record
from services.vm.leases.remembered import Remembered
from supervisor.testing.context import MemoryServiceContext

MACHINE = Machine(uuid="u", name="web")
DISK = DiskUse(key="k", mode=DiskMode.WRITE, path="/d")


def remembered(file: Path, node: str = "a") -> Remembered:
    """A node's memory."""
    return Remembered(MemoryServiceContext(path="core/vm", settings={}), file, node)


def test_what_was_leased_may_be_started_again(tmp_path: Path) -> None:
    """By the same epoch, with the same disks or fewer, by a component that was restarted, too."""
    file = tmp_path / "vm" / "leases.json"

    async def scenario() -> None:
        await remembered(file).put(MACHINE, 7, [DISK])
        record = await remembered(file).read()

        assert record.allows(MACHINE, [DISK]) == record.allows(MACHINE, []) == 7
        assert record.allows(MACHINE, [DiskUse(key="z", mode=DiskMode.WRITE, path="/z")]) == 0
        assert record.allows(MACHINE, [DiskUse(key="k", mode=DiskMode.READ, path="/d")]) == 0
        assert record.allows(Machine(uuid="x", name="web"), []) == 0
        assert (await remembered(file, "b").read()).allows(MACHINE, []) == 0

    asyncio.run(scenario())
    assert file.stat().st_mode & 0o777 == 0o600


def test_another_boot_of_the_host_gives_no_right(tmp_path: Path) -> None:
    """A takeover says that the host was off; what it remembers from before counts no more."""
    file = tmp_path / "leases.json"

    async def scenario() -> None:
        await remembered(file).put(MACHINE, 7, [])
        file.write_text(file.read_text().replace(boot_id(), "of another boot"))
        assert (await remembered(file).read()).held == {}

    asyncio.run(scenario())


def test_what_is_fenced_or_freed_is_not_started(tmp_path: Path) -> None:
    """Until it has a lease again."""
    file = tmp_path / "leases.json"

    async def scenario() -> None:
        memory = remembered(file)
        await memory.put(MACHINE, 7, [])
        await memory.set_fenced({"u": "web: node b has it"})
        record = await remembered(file).read()
        assert (record.allows(MACHINE, []), record.fenced) == (0, {"u": "web: node b has it"})
        await memory.put(MACHINE, 9, [])
        record = await remembered(file).read()
        assert (record.allows(MACHINE, []), record.fenced) == (9, {})
        await memory.drop("u", 7)
        assert (await memory.held("u")) is not None  # of an epoch that is over
        await memory.drop("u", 9)
        assert (await remembered(file).held("u")) is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-5],
        lambda text: "[]",
        lambda text: text.replace('"epoch"', '"epochs"'),
        lambda text: text.replace("7", '"seven"'),
    ],
)
def test_a_damaged_file_gives_no_right_and_is_said(
    tmp_path: Path, damage: Callable[[str], str]
) -> None:
    """Cut, empty, or something else."""
    file = tmp_path / "leases.json"

    async def scenario() -> None:
        await remembered(file).put(MACHINE, 7, [])
        file.write_text(damage(file.read_text()))
        with pytest.raises(ValueError, match="is not understood"):
            read_record(file, "a")
        memory = remembered(file)
        assert (await memory.read()).held == {}
        await memory.put(MACHINE, 8, [])
        assert read_record(file, "a").allows(MACHINE, []) == 8

    asyncio.run(scenario())


def test_a_file_that_can_not_be_written_takes_no_right_away(tmp_path: Path) -> None:
    """The lease is the database's; a full disk only costs what is for the time without that."""
    (tmp_path / "vm").write_text("no directory")

    async def scenario() -> None:
        memory = remembered(tmp_path / "vm" / "leases.json")
        await memory.put(MACHINE, 7, [])
        assert (await memory.read()).allows(MACHINE, []) == 7

    asyncio.run(scenario())


def test_a_write_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    """A failed one changes nothing."""
    file = tmp_path / "leases.json"
    write_record(file, LeaseRecord(node_id="a", boot_id=boot_id(), fenced={"u": "x"}))
    file.with_name("leases.json.new").mkdir()
    with pytest.raises(OSError, match=r"leases\.json\.new"):
        write_record(file, LeaseRecord(node_id="a", boot_id=boot_id()))

    assert read_record(file, "a").fenced == {"u": "x"}
