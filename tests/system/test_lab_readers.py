"""The readers of a guest's traces see each thing that is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.errors import LabError
from tests.lab.guest.guests import GuestPlan, domain_xml
from tests.lab.guest.image import Image
from tests.lab.guest.readers import BLOCK_BYTES, block, check_disk, gaps, parse_ticks
from tests.lab.units import parse_shape

IMAGE = Image(kernel=Path("/kernel"), initrd=Path("/initrd"))


def line(number: int, *, mono_ms: int | None = None) -> bytes:
    """A line of a guest's console."""
    mono_ms = number * 100 if mono_ms is None else mono_ms
    text = f"tick {number} mono_ms={mono_ms} wall_ms=5 disk=2 pages=3 bad=0 echoed=1\r\n"
    return text.encode()


def lines(first: int, last: int) -> bytes:
    """Several of them."""
    return b"".join(line(number) for number in range(first, last + 1))


def test_all_ticks_are_there() -> None:
    """Lines of the kernel in between don't count."""
    said = parse_ticks([lines(1, 3) + b"[    1.0] a kernel's line\r\n" + lines(4, 5)])

    assert [tick.number for tick in said.ticks] == [1, 2, 3, 4, 5]
    assert (said.lost, said.lives, said.gap_max_ms) == ([], 1, 100)


def test_a_lost_tick_and_a_gap_are_seen() -> None:
    """Missing numbers are listed, and the clock's leap shows."""
    said = parse_ticks([lines(1, 3) + line(6, mono_ms=2000)])

    assert said.lost == [4, 5]
    assert said.gap_max_ms == 1700


def test_a_move_cuts_a_line_in_two() -> None:
    """What is on two hosts is joined, the cut line among it, wherever it was cut."""
    for cut in range(len(line(4)) + 1):
        said = parse_ticks([lines(1, 3) + line(4)[:cut], line(4)[cut:] + lines(5, 6)])

        assert said.lost == [], cut
        assert said.ticks[-1].number == 6


def test_a_restart_is_a_new_life() -> None:
    """The count begins anew, and only the last life is looked at for what is lost."""
    said = parse_ticks([lines(1, 2) + line(5) + lines(1, 3)])

    assert said.lives == 2
    assert said.lost == []
    assert [tick.number for tick in said.last_life] == [1, 2, 3]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk of eight blocks to which a guest has written the blocks 1 to 12."""
    path = tmp_path / "disk"
    content = [bytes(BLOCK_BYTES)] * 8
    for number in range(1, 13):
        content[number % 8] = block(number)
    path.write_bytes(b"".join(content))
    return path


def test_a_whole_disk_is_whole(disk: Path) -> None:
    """All of the last blocks are found, and more than was said is no fault."""
    for written in (12, 9):
        found = check_disk(disk, written)
        assert (found.missing, found.damaged) == ((), ())


def test_missing_and_damaged_blocks_are_found(disk: Path) -> None:
    """An older block, a flipped bit and a block of another place are each seen."""
    content = bytearray(disk.read_bytes())
    content[4 * BLOCK_BYTES : 5 * BLOCK_BYTES] = block(4)  # instead of 12
    content[3 * BLOCK_BYTES + 999] ^= 1  # of 11
    content[2 * BLOCK_BYTES : 3 * BLOCK_BYTES] = block(11)  # instead of 10
    disk.write_bytes(content)

    found = check_disk(disk, 12)

    assert found.missing == (10, 12)
    assert found.damaged == (3,)


def test_gaps_are_measured_between_neighbours() -> None:
    """The longest of the times between two; none where there are not two."""
    assert gaps([1.0, 1.5, 3.0, 3.1]) == 1.5
    assert gaps([1.0]) == 0.0


def test_quantities_have_units() -> None:
    """Rates, times, sizes and shares come out in the units of the link."""
    shape = parse_shape(rate="1.5gbit", delay="50ms", queue="256kib", loss="0.1%")

    assert shape.words() == "rate=1500000000 delay=50000 queue=262144 loss=1000"
    assert parse_shape(rate="0", delay=None, queue=None, loss=None).words() == "rate=0"


@pytest.mark.parametrize(
    "wrong", [{"name": "A"}, {"number": 200}, {"dirty_mib": 64}, {"tick_ms": 0}, {"disk_mib": 0}]
)
def test_guests_that_could_not_work_are_refused(wrong: dict[str, object]) -> None:
    """Values out of their range are refused before anything is started."""
    with pytest.raises(LabError):
        domain_xml(GuestPlan(**wrong), IMAGE)  # type: ignore[arg-type]  # wrong on purpose


def test_the_document_has_what_the_guest_needs() -> None:
    """Kernel, address and rates stand in the domain's document."""
    document = domain_xml(GuestPlan(number=7, pages_s=33), IMAGE)

    assert "<kernel>/kernel</kernel>" in document
    assert "lab.address=10.88.0.7/24" in document
    assert "lab.pages_s=33" in document
