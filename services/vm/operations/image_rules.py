"""Images: what a name promises, what a head shows, how qemu-img is asked and understood. Pure."""

from __future__ import annotations

import json
import re
from pathlib import PurePath
from typing import Any

from protocol.errors import NovacronError
from services.vm.operations.errors import (
    ImageFailedError,
    ImageFormatError,
    ImageInUseError,
    NoSpaceError,
)
from services.vm.operations.storage_model import ImageFormat, ImageRecord

HEAD_BYTES = 512
_NAMES = {
    ".qcow2": ImageFormat.QCOW2,
    ".qcow": ImageFormat.QCOW2,
    ".raw": ImageFormat.RAW,
    ".img": ImageFormat.RAW,
    ".iso": ImageFormat.RAW,
}
# What qemu-img would take the file for if it were left to guess: a guest that writes such a head
# into its raw disk must not get to choose what is read.
_HEADS = (
    (b"QFI\xfb", "qcow2"),
    (b"QED\0", "qed"),
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"<<< ", "vdi"),
    (b"LUKS\xba\xbe", "luks"),
    (b"WithoutFreeSpace", "parallels"),
    (b"# Disk DescriptorFile", "vmdk"),
)
_PROGRESS = re.compile(r"\(\s*([0-9]+(?:\.[0-9]+)?)/100%\)")


def format_of_name(path: str) -> ImageFormat | None:
    """What a file's name promises; None for one that promises nothing."""
    return _NAMES.get(PurePath(path).suffix.lower())


def format_of_head(head: bytes) -> str:
    """What a file's first bytes show; ``raw`` where they show nothing."""
    for magic, name in _HEADS:
        if head.startswith(magic):
            return name
    return "raw"


def check_format(path: str, head: bytes, wanted: ImageFormat | None = None) -> ImageFormat:
    """The format of an image, which must be what its name and the caller say.

    Args:
        path: its name.
        head: its first ``HEAD_BYTES``.
        wanted: what the caller says; None = nothing.

    Raises:
        ImageFormatError: it is something else, or no format of ours.
    """
    shown = format_of_head(head)
    said = wanted or format_of_name(path)
    if said is not None and shown != said.value:
        raise ImageFormatError(
            f"{path} is not {said.value}: its first bytes are those of {shown}; "
            f"rename it, or find out where it comes from"
        )
    try:
        return ImageFormat(shown)
    except ValueError:
        raise ImageFormatError(
            f"{path} is {shown}; only qcow2 and raw images are taken, convert it first"
        ) from None


def target_format(path: str, wanted: ImageFormat | None) -> ImageFormat:
    """The format that a new image gets.

    Raises:
        ImageFormatError: neither the name nor the caller says, or they contradict each other.
    """
    named = format_of_name(path)
    if wanted is None and named is None:
        raise ImageFormatError(f"{path} does not say its format: end it in .qcow2 or .raw")
    if wanted is not None and named is not None and wanted is not named:
        raise ImageFormatError(f"{path} promises {named.value}, but is to be {wanted.value}")
    return wanted or named or ImageFormat.QCOW2


def info_argv(path: str, image_format: ImageFormat, *, is_shared: bool) -> tuple[str, ...]:
    """qemu-img's arguments to describe an image; ``is_shared`` also while a guest writes it."""
    shared = ("-U",) if is_shared else ()
    return ("info", *shared, "--output=json", "-f", image_format.value, path)


def create_argv(
    path: str,
    image_format: ImageFormat,
    size_bytes: int | None,
    backing: tuple[str, ImageFormat] | None,
) -> tuple[str, ...]:
    """qemu-img's arguments to make an empty image or an overlay."""
    below = ("-b", backing[0], "-F", backing[1].value) if backing else ()
    size = (str(size_bytes),) if size_bytes is not None else ()
    return ("create", "-q", "-f", image_format.value, *below, path, *size)


def convert_argv(
    source: tuple[str, ImageFormat], target: tuple[str, ImageFormat], *, compress: bool
) -> tuple[str, ...]:
    """qemu-img's arguments to copy an image; zeros become holes."""
    packed = ("-c",) if compress and target[1] is ImageFormat.QCOW2 else ()
    formats = ("-f", source[1].value, "-O", target[1].value)
    return ("convert", "-p", *formats, *packed, "-S", "4k", source[0], target[0])


def parse_progress(text: str) -> float | None:
    """The last progress that qemu-img printed, from 0 to 1."""
    found = _PROGRESS.findall(text)
    return float(found[-1]) / 100 if found else None


def parse_info(path: str, output: bytes, *, is_in_use: bool = False) -> ImageRecord:
    """qemu-img's description of an image.

    Raises:
        ImageFormatError: it reaches into a data file beside itself.
        ImageFailedError: the description is not understood.
    """
    try:
        found: Any = json.loads(output)  # Any: JSON, checked below by use
        specific = found.get("format-specific", {}).get("data", {})
        record = ImageRecord(
            path=path,
            format=str(found["format"]),
            size_bytes=int(found["virtual-size"]),
            used_bytes=int(found["actual-size"]),
            backing=str(found.get("full-backing-filename", found.get("backing-filename", ""))),
            is_in_use=is_in_use,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ImageFailedError(f"qemu-img describes {path} as nothing known: {exc}") from exc
    if "data-file" in specific:
        raise ImageFormatError(f"{path} keeps its data in another file; convert it first")
    return record


def error_of(what: str, stderr: str) -> NovacronError:
    """The error for what qemu-img printed when it failed."""
    lines = [line.removeprefix("qemu-img:").strip() for line in stderr.splitlines()]
    text = f"{what}: {next(filter(None, lines), 'qemu-img said nothing')}"
    low = stderr.lower()
    if "no space left" in low or "disk quota" in low:
        return NoSpaceError(f"{text}; nothing is left of the attempt: make room and try again")
    if "lock" in low:
        return ImageInUseError(f"{text}; stop the guest that uses it, or take a snapshot")
    return ImageFailedError(text)
