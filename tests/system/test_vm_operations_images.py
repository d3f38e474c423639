"""Images made, copied and refused by the VM service, with the real qemu-img."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.vm.operations.errors import (
    ImageFormatError,
    ImageMissingError,
    PlaceRefusedError,
)
from services.vm.operations.model import OperationState
from tests.fixtures.vm_orders import order, raw
from tests.system.vm_running import running, wait_until

pytestmark = pytest.mark.libvirt
URI = "test:///default"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _has_qemu_img() -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with two mebibytes of room."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def sparse(path: Path) -> Path:
    """A raw image of 16 MiB with 3 MiB of data."""
    with path.open("wb") as file:
        file.write(b"novacron" * (3 * MIB // 8))
        file.truncate(16 * MIB)
    return path


def content(path: str | Path) -> bytes:
    """A file's bytes."""
    return Path(path).read_bytes()


def names(directory: Path) -> list[str]:
    """What lies in a directory."""
    return sorted(path.name for path in directory.iterdir())


def qemu_img(*arguments: str | Path) -> None:
    """Run qemu-img."""
    subprocess.run(["qemu-img", *arguments], check=True)


def test_an_image_is_made_described_converted_and_comes_back(tmp_path: Path) -> None:
    """Raw -> qcow2 -> raw gives the same bytes, and holes stay holes."""

    async def scenario() -> None:
        source = sparse(tmp_path / "a.raw")
        async with running(URI, image_dirs=[str(tmp_path)]) as node:
            there, back = str(tmp_path / "b.qcow2"), str(tmp_path / "c.raw")
            done = await order(node, "image.copy", source=str(source), target=there)
            assert (done.state, done.progress) == (OperationState.DONE, 1.0), done
            assert (await order(node, "image.copy", source=there, target=back)).error == ""
            assert content(back) == content(source)
            info = await raw(node, "image.info", path=back)
            assert (info["format"], info["size_bytes"]) == ("raw", 16 * MIB)
            assert info["used_bytes"] < 5 * MIB

            overlay = str(tmp_path / "d.qcow2")
            assert (await order(node, "image.create", path=overlay, backing=there)).error == ""
            assert (await raw(node, "image.info", path=overlay))["backing"] == there
            assert names(tmp_path) == [
                "a.raw",
                "b.qcow2",
                "c.raw",
                "d.qcow2",
            ]

    asyncio.run(scenario())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A target that is there keeps its content, whatever makes the new one."""

    async def scenario() -> None:
        source, target = sparse(tmp_path / "a.raw"), tmp_path / "b.raw"
        target.write_bytes(b"mine")
        async with running(URI, image_dirs=[str(tmp_path)]) as node:
            copied = await order(node, "image.copy", source=str(source), target=str(target))
            made = await order(node, "image.create", path=str(target), size_bytes=MIB, format="raw")
            assert {copied.error_code, made.error_code} == {"vm.image_exists"}
        assert target.read_bytes() == b"mine"

    asyncio.run(scenario())


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, full_disk: Path) -> None:
    """The error says so, and the room that was taken is given back."""

    async def scenario() -> None:
        source = sparse(tmp_path / "a.raw")
        async with running(URI, image_dirs=[str(tmp_path)]) as node:
            target = str(full_disk / "b.raw")
            done = await order(node, "image.copy", source=str(source), target=target)
            assert done.error_code == "vm.no_space"
            assert "No space left" in done.error
        assert names(full_disk) == []

    asyncio.run(scenario())


def test_what_is_not_an_image_of_its_name_is_refused(tmp_path: Path) -> None:
    """Wrong format, missing, elsewhere, damaged, or an overlay of what is elsewhere."""

    async def scenario() -> None:
        (tmp_path / "fake.qcow2").write_bytes(b"\0" * MIB)
        images = tmp_path / "images"
        images.mkdir()
        secret = tmp_path / "secret.raw"
        secret.write_bytes(b"s" * MIB)
        trap = images / "trap.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", trap)
        good = images / "good.qcow2"
        qemu_img("convert", "-O", "qcow2", sparse(tmp_path / "s.raw"), good)
        cut = images / "cut.qcow2"
        cut.write_bytes(good.read_bytes()[:MIB])
        (images / "wrong.qcow2").write_bytes(b"\0" * MIB)
        async with running(URI, image_dirs=[str(images)]) as node:
            for path, kind in (
                (images / "wrong.qcow2", ImageFormatError),
                (images / "missing.qcow2", ImageMissingError),
                (secret, PlaceRefusedError),
            ):
                with pytest.raises(kind):
                    await raw(node, "image.info", path=str(path))
            target = str(images / "out.raw")
            stolen = await order(node, "image.copy", source=str(trap), target=target)
            assert stolen.error_code == "vm.place_refused"
            damaged = await order(node, "image.copy", source=str(cut), target=target)
            assert damaged.error_code == "vm.image_format"
            assert "damaged" in damaged.error
            assert "out.raw" not in names(images)

    asyncio.run(scenario())


def test_a_copy_can_be_cancelled(tmp_path: Path) -> None:
    """qemu-img ends, and what it wrote goes."""

    async def scenario() -> None:
        source = tmp_path / "a.raw"
        with source.open("wb") as file:
            for _ in range(96):
                file.write(b"x" * MIB)
        async with running(URI, image_dirs=[str(tmp_path)]) as node:
            target = str(tmp_path / "b.qcow2")
            begun = await raw(node, "image.copy", source=str(source), target=target, compress=True)
            await wait_until((tmp_path / ".b.qcow2.part").exists, "begin")
            ended = await raw(node, "vm.operation.cancel", id=begun["id"], wait_s=10.0)
            assert ended["state"] == "cancelled"
        assert names(tmp_path) == ["a.raw"]

    asyncio.run(scenario())


def test_a_seed_is_made(tmp_path: Path) -> None:
    """The image holds its name and its files; bad user data fails the order."""

    async def scenario() -> None:
        async with running(URI, image_dirs=[str(tmp_path)]) as node:
            path = str(tmp_path / "seed.iso")
            assert (await order(node, "image.seed", path=path, user_data="#!/bin/sh\n")).error == ""
            assert b"cidata" in content(path)
            bad = await order(node, "image.seed", path=path + "2.iso", user_data="hello")
            assert "#cloud-config" in bad.error

    asyncio.run(scenario())
