"""Images made and copied by qemu-img: into a file of another name first, never over one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from services.vm.operations import image_rules as rules
from services.vm.operations.desk import Progress
from services.vm.operations.errors import (
    ImageExistsError,
    ImageFailedError,
    ImageFormatError,
    ImageInUseError,
    ImageMissingError,
    NoSpaceError,
    OperationRefusedError,
)
from services.vm.operations.model import Outcome
from services.vm.operations.places import confine
from services.vm.operations.seed import iso_image, seed_files
from services.vm.operations.storage_model import (
    ImageCopyRequest,
    ImageCreateRequest,
    ImageFormat,
    ImageRecord,
    SeedRequest,
)

# It is the disks that are slow; more at once make none faster.
COPIES_MAX = 2
INFO_TIMEOUT_S = 30.0
_PART = ".{name}.part"
_OUTPUT_BYTES_MAX = 1 << 20
# A chain deeper than this is a mistake, or somebody's trap.
_CHAIN_MAX = 64


class Images:
    """Operations on images inside ``roots``."""

    def __init__(self, roots: tuple[str, ...]) -> None:
        self._roots = roots
        self._copies = asyncio.Semaphore(COPIES_MAX)

    async def info(self, path: str) -> ImageRecord:
        """What an image is.

        Raises:
            PlaceRefusedError, ImageMissingError, ImageFormatError: it may not be looked at, is not
                there, or is not what its name says.
        """
        place, kind = await self._known(path)
        output = await self._qemu_img(
            f"look at {place}", rules.info_argv(place, kind, is_shared=True)
        )
        return rules.parse_info(place, output, is_in_use=await self._is_in_use(place, kind))

    async def inspect(self, path: str) -> ImageRecord:
        """The same of an image that a guest is to get: all that it is an overlay of counts too."""
        record = await self.info(path)
        await self._check_chain(record.path, ImageFormat(record.format))
        return record

    async def create(self, request: ImageCreateRequest, progress: Progress) -> Outcome:
        """Make an empty image, or an overlay that leaves its backing as it is."""
        kind = rules.target_format(request.path, request.format)
        backing = None
        if request.backing:
            backing = await self._known(request.backing)
            await self._check_chain(*backing)
            if await self._is_in_use(*backing):
                raise ImageInUseError(
                    f"{backing[0]} is in use: what is written to it would break its overlays; "
                    "stop the guest that uses it, or make an overlay of a copy"
                )
        async with self._part(request.path) as (target, part):
            progress.step("making it")
            argv = rules.create_argv(str(part), kind, request.size_bytes, backing)
            await self._qemu_img(f"make {target}", argv)
        return Outcome(note=f"{target} is made", result={"path": str(target)})

    async def copy(self, request: ImageCopyRequest, progress: Progress) -> Outcome:
        """Copy an image with all that it is an overlay of into one that stands alone."""
        source, source_kind = await self._known(request.source)
        kind = rules.target_format(request.target, request.format)
        await self._check_chain(source, source_kind)
        progress.step("waiting for other copies")
        async with self._copies, self._part(request.target) as (target, part):
            if await self._is_in_use(source, source_kind):
                raise ImageInUseError(
                    f"{source} is in use: its content changes while it is copied; stop the guest "
                    "that uses it, or take a snapshot and copy what that froze"
                )
            if source_kind is ImageFormat.QCOW2:
                progress.step("checking the source")
                await self._check(source)
            progress.step("copying")
            argv = rules.convert_argv(
                (source, source_kind), (str(part), kind), compress=request.compress
            )

            def on_output(text: str) -> None:
                if (fraction := rules.parse_progress(text)) is not None:
                    progress.at(fraction)

            await self._qemu_img(f"copy {source} to {target}", argv, on_output, timeout_s=None)
        return Outcome(note=f"{target} is a copy of {source}", result={"path": str(target)})

    async def seed(self, request: SeedRequest, progress: Progress) -> Outcome:
        """Make a cloud-init seed."""
        try:
            files = seed_files(request.user_data, request.meta_data, request.network_config)
        except ValueError as exc:
            raise OperationRefusedError(str(exc)) from exc
        image = iso_image(files)
        async with self._part(request.path) as (target, part):
            progress.step("writing it")
            await asyncio.to_thread(_write, part, image)
        return Outcome(note=f"{target} is made", result={"path": str(target)})

    async def _known(self, path: str) -> tuple[str, ImageFormat]:
        """The real path of an image that is there, and its format, proved by its head."""
        place = await asyncio.to_thread(confine, path, self._roots)
        head = await asyncio.to_thread(_head, place)
        return str(place), rules.check_format(str(place), head)

    async def _check_chain(self, path: str, kind: ImageFormat) -> None:
        """All that an image is an overlay of must be where images may be.

        Raises:
            ImageFormatError: the chain leads elsewhere; its content would be read for the caller.
        """
        for _ in range(_CHAIN_MAX):
            output = await self._qemu_img(
                f"look at {path}", rules.info_argv(path, kind, is_shared=True)
            )
            backing = rules.parse_info(path, output).backing
            if not backing:
                return
            path, kind = await self._known(backing)
        raise ImageFormatError(f"{path} is an overlay of more than {_CHAIN_MAX} images")

    async def _check(self, path: str) -> None:
        argv = ("check", "-q", "-f", ImageFormat.QCOW2.value, path)
        try:
            await self._qemu_img(f"check {path}", argv, accepted=(0, 3), timeout_s=None)
        except ImageFailedError as exc:
            raise ImageFormatError(f"{path} is damaged ({exc.message}); get it again") from exc

    async def _is_in_use(self, path: str, kind: ImageFormat) -> bool:
        try:
            await self._qemu_img(f"look at {path}", rules.info_argv(path, kind, is_shared=False))
        except ImageInUseError:
            return True
        return False

    @asynccontextmanager
    async def _part(self, path: str) -> AsyncIterator[tuple[Path, Path]]:
        """The final path, and one to write to, which takes its name at the end or goes.

        Raises:
            ImageExistsError: something is there already, before or after.
        """
        target = await asyncio.to_thread(confine, path, self._roots)
        if await asyncio.to_thread(os.path.lexists, target):
            raise ImageExistsError(f"{target} is there already; nothing is overwritten")
        if str(target.parent) in self._roots:
            await asyncio.to_thread(_make_directory, target.parent)
        part = target.with_name(_PART.format(name=target.name))
        await asyncio.to_thread(_remove, part)  # of one that was killed
        try:
            yield target, part
            await asyncio.to_thread(_publish, part, target)
        finally:
            await asyncio.shield(asyncio.to_thread(_remove, part))

    async def _qemu_img(
        self,
        what: str,
        argv: tuple[str, ...],
        on_output: Callable[[str], None] | None = None,
        *,
        accepted: tuple[int, ...] = (0,),
        timeout_s: float | None = INFO_TIMEOUT_S,
    ) -> bytes:
        """Run it to its end; it ends with this process.

        Raises:
            ImageFailedError, ImageInUseError, NoSpaceError: what it failed with.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                "setpriv",
                "--pdeathsig",
                "KILL",
                "qemu-img",
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            )
        except FileNotFoundError as exc:
            raise ImageFailedError(
                "qemu-img can't be run: install qemu-utils and util-linux"
            ) from exc
        try:
            async with asyncio.timeout(timeout_s):
                output, errors = await _drain(process, on_output)
        except TimeoutError:
            raise ImageFailedError(f"{what}: qemu-img took longer than {timeout_s} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode not in accepted:
            raise rules.error_of(what, errors.decode(errors="replace"))
        return output


async def _drain(
    process: asyncio.subprocess.Process, on_output: Callable[[str], None] | None
) -> tuple[bytes, bytes]:
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(_read_all(process.stderr))
    output = bytearray()
    try:
        while chunk := await process.stdout.read(4096):
            if on_output is not None:
                on_output(chunk.decode(errors="replace"))
            elif len(output) < _OUTPUT_BYTES_MAX:
                output += chunk
        said = await errors
        await process.wait()
    finally:
        errors.cancel()
    return bytes(output), said


async def _read_all(stream: asyncio.StreamReader) -> bytes:
    """All that comes, of which the beginning is kept: the pipe must not fill up."""
    kept = bytearray()
    while chunk := await stream.read(4096):
        if len(kept) < _OUTPUT_BYTES_MAX:
            kept += chunk
    return bytes(kept)


def _head(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ImageMissingError(f"there is no image {path}")
        with path.open("rb") as file:
            return file.read(rules.HEAD_BYTES)
    except OSError as exc:
        raise ImageMissingError(f"{path} can't be read: {exc.strerror}") from exc


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise NoSpaceError(f"{path} can't be written: {exc.strerror}") from exc


def _publish(part: Path, target: Path) -> None:
    """Give a whole file its name, which must be free; on disk when this returns."""
    for place in (part, part.parent):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    try:
        os.link(part, target)
    except FileExistsError as exc:
        raise ImageExistsError(f"{target} came up meanwhile; nothing is overwritten") from exc


def _make_directory(path: Path) -> None:
    """One of the directories for images, where it is the first time; its parent must be there."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o750)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
