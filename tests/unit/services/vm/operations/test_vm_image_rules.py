"""What images are, and how qemu-img is understood."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from services.vm.operations import image_rules as rules
from services.vm.operations.errors import (
    ImageFailedError,
    ImageFormatError,
    ImageInUseError,
    NoSpaceError,
    OperationFailedError,
    OperationRefusedError,
    PlaceRefusedError,
)
from services.vm.operations.picture import PNG_BYTES_MAX, as_png
from services.vm.operations.places import confine
from services.vm.operations.seed import FILE_BYTES_MAX, SECTOR_BYTES, iso_image, seed_files
from services.vm.operations.storage_model import ImageFormat

QCOW2 = b"QFI\xfb\0\0\0\3"


@pytest.mark.parametrize(
    ("path", "head", "wanted"),
    [
        ("a.qcow2", b"\0" * 512, None),
        ("a.raw", QCOW2, None),
        ("a.img", b"KDMV", None),
        ("a", QCOW2, ImageFormat.RAW),
        ("a", b"vhdxfile", None),
    ],
)
def test_an_image_must_be_what_it_says(path: str, head: bytes, wanted: ImageFormat | None) -> None:
    """A head that contradicts the name or the caller is refused, with both named."""
    with pytest.raises(ImageFormatError, match=path):
        rules.check_format(path, head, wanted)


def test_the_head_decides_where_the_name_is_silent() -> None:
    """A name without an ending takes what the head shows."""
    assert rules.check_format("a", QCOW2) is ImageFormat.QCOW2
    assert rules.check_format("a", b"boot") is ImageFormat.RAW


def test_a_target_needs_a_format() -> None:
    """From its name or the caller, and not two."""
    assert rules.target_format("a.raw", None) is ImageFormat.RAW
    for path, wanted in (("a", None), ("a.raw", ImageFormat.QCOW2)):
        with pytest.raises(ImageFormatError):
            rules.target_format(path, wanted)


def test_progress_is_the_last_that_was_printed() -> None:
    """qemu-img writes one over the other."""
    assert rules.parse_progress("    (1.00/100%)\r    (12.50/100%)\r") == 0.125
    assert rules.parse_progress("warning") is None


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("qemu-img: error while writing: No space left on device", NoSpaceError),
        ('qemu-img: Could not open: Failed to get "write" lock', ImageInUseError),
        ("qemu-img: something else", ImageFailedError),
        ("", ImageFailedError),
    ],
)
def test_a_failure_has_a_name(said: str, kind: type[Exception]) -> None:
    """What qemu-img says decides which."""
    assert isinstance(rules.error_of("copy a to b", said), kind)


def test_an_image_with_a_data_file_is_refused() -> None:
    """Its content lies in a file that nobody has checked."""
    found = {"format": "qcow2", "virtual-size": 1, "actual-size": 1}
    assert rules.parse_info("a", json.dumps(found).encode()).backing == ""

    data = {**found, "format-specific": {"data": {"data-file": "/etc/shadow"}}}
    with pytest.raises(ImageFormatError, match="another file"):
        rules.parse_info("a", json.dumps(data).encode())
    with pytest.raises(ImageFailedError):
        rules.parse_info("a", b"{}")


def test_a_path_stays_within_the_image_directories(tmp_path: Path) -> None:
    """Dots and links that lead out are followed first, and refused."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside / "secret")
    (inside / "directory").symlink_to(outside)

    assert confine(str(inside / "a.raw"), (str(inside),)) == inside.resolve() / "a.raw"
    for path in ("../out/a", "link", "directory/a", "a\nb"):
        with pytest.raises(PlaceRefusedError):
            confine(f"{inside}/{path}", (str(inside),))
    with pytest.raises(PlaceRefusedError, match="absolute"):
        confine("a.raw", (str(inside),))


def test_a_seed_is_an_iso_image_that_names_itself_cidata() -> None:
    """Both trees point at the same files, and the same files give the same bytes."""
    files = seed_files("#cloud-config\n", "instance-id: a\n", "")
    image = iso_image(files)

    assert image == iso_image(files)
    assert len(image) % SECTOR_BYTES == 0
    for sector, encoding in ((16, "ascii"), (17, "utf-16-be")):
        volume = image[sector * SECTOR_BYTES :]
        assert volume[1:6] == b"CD001"
        assert volume[40:72].decode(encoding).strip() == "cidata"
        assert struct.unpack("<I", volume[80:84])[0] * SECTOR_BYTES == len(image)
        root = struct.unpack("<I", volume[158:162])[0] * SECTOR_BYTES
        assert dict(records(image, root)) == {
            "meta-data": b"instance-id: a\n",
            "user-data": b"#cloud-config\n",
        }


def records(image: bytes, root: int) -> list[tuple[str, bytes]]:
    """The files of a directory, read back by the format's own rules."""
    found, place = [], root
    while length := image[place]:
        record = image[place : place + length]
        name = record[33 : 33 + record[32]]
        if name not in (b"\0", b"\1"):
            text = name.decode("utf-16-be") if name[:1] == b"\0" else name.decode()
            start = struct.unpack("<I", record[2:6])[0] * SECTOR_BYTES
            size = struct.unpack(">I", record[14:18])[0]
            found.append((text.removesuffix(";1").lower(), image[start : start + size]))
        place += length
    return found


def test_user_data_that_cloud_init_would_ignore_is_refused() -> None:
    """It would be found out only by a guest that does nothing; so would one that is too large."""
    with pytest.raises(ValueError, match="#cloud-config"):
        seed_files("users: []\n", "", "")
    with pytest.raises(ValueError, match="meta-data takes"):
        seed_files("#cloud-config\n", "x" * (FILE_BYTES_MAX + 1), "")


def test_a_screenshot_becomes_png() -> None:
    """PPM is turned into PNG, even where its first pixels look like white space."""
    pixels = b"  \n" * 4
    assert as_png("image/x-portable-pixmap", b"P6\n2 2\n255\n" + pixels).startswith(b"\x89PNG")
    png = b"\x89PNG\r\n\x1a\n"
    assert as_png("image/png", png) == png
    for data in (b"P6\n2 2\n255\n" + pixels[1:], b"P6\n", b"GIF89a"):
        with pytest.raises(OperationFailedError):
            as_png("?", data)
    with pytest.raises(OperationRefusedError, match="can be sent"):
        as_png("image/png", png + bytes(PNG_BYTES_MAX))
