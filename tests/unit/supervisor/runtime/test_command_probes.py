"""Looking whether commands are up, what they say, and their files: without any process."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.core.readiness import PROBE_MAX_S
from supervisor.runtime.notify_socket import Notification, parse
from supervisor.runtime.outputs import rotate
from supervisor.runtime.readiness import LogProbe, Probes


class Lamp:
    """A probe that a test lights."""

    def __init__(self) -> None:
        self.is_behind = self.is_lit = self.is_broken = self.is_closed = False
        self.looks = 0

    def look(self) -> bool:
        """See Probe."""
        self.looks += 1
        if self.is_broken:
            raise OSError
        return self.is_lit

    def close(self) -> None:
        """See Probe."""
        self.is_closed = True


def _probes() -> tuple[Probes, list[tuple[str, int]]]:
    ready: list[tuple[str, int]] = []
    return Probes(lambda name, incarnation: ready.append((name, incarnation))), ready


def test_nothing_is_due_while_nothing_starts() -> None:
    """Before, and after everything is up, the loop need not wake up."""
    probes, ready = _probes()
    assert probes.due_s() is None
    lamp = Lamp()
    probes.begin("a", 3, lamp, 10.0)
    assert probes.due_s() == 10.0
    lamp.is_lit = True
    probes.turn(10.0)
    assert ready == [("a", 3)]
    assert lamp.is_closed
    assert probes.due_s() is None


def test_looks_become_rarer_and_never_stop() -> None:
    """One that takes long, or can't be looked at, is looked at ten times per second at least."""
    probes, ready = _probes()
    lamp = Lamp()
    lamp.is_broken = True
    probes.begin("a", 1, lamp, 0.0)
    now_s = 0.0
    for _ in range(50):
        due_s = probes.due_s()
        assert due_s is not None
        assert due_s - now_s <= PROBE_MAX_S + 1e-9
        now_s = due_s
        probes.turn(now_s)
    assert lamp.looks == 50
    assert not ready


def test_an_ended_command_is_forgotten() -> None:
    """It is neither looked at nor called up, and its successor is looked at anew."""
    probes, ready = _probes()
    first, second = Lamp(), Lamp()
    probes.begin("a", 1, first, 0.0)
    probes.begin("a", 2, second, 1.0)
    first.is_lit = second.is_lit = True
    probes.turn(1.0)
    assert first.is_closed
    assert ready == [("a", 2)]
    probes.begin("b", 1, Lamp(), 2.0)
    probes.forget("b")
    assert probes.due_s() is None


def test_a_log_is_read_from_where_the_process_began(tmp_path: Path) -> None:
    """What was there before does not count; a line counts once it is whole."""
    file = tmp_path / "x.log"
    file.write_bytes(b"ready\n")
    probe = LogProbe(file, "^ready", 6)
    assert not probe.look()
    with file.open("ab") as log:
        log.write(b"not ready\nrea")
        log.flush()
        assert not probe.look()
        log.write(b"dy\n")
    assert probe.look()
    probe.close()


def test_a_log_that_was_cut_is_read_from_its_beginning(tmp_path: Path) -> None:
    """A file shorter than what was read of it has another content."""
    file = tmp_path / "x.log"
    file.write_bytes(b"x" * 1000)
    probe = LogProbe(file, "ready", 1000)
    assert not probe.look()
    file.write_bytes(b"ready\n")
    assert probe.look()
    probe.close()


def test_a_flooded_log_is_read_in_pieces(tmp_path: Path) -> None:
    """One look reads a bounded part, and says that there is more."""
    file = tmp_path / "x.log"
    file.write_bytes(b"x" * (300 << 10) + b"\nready\n")
    probe = LogProbe(file, "^ready", 0)
    assert not probe.look()
    assert probe.is_behind
    assert probe.look()
    assert not probe.is_behind
    probe.close()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"READY=1", Notification(7, is_ready=True)),
        (b"READY=1\nSTATUS=up\nMAINPID=1\n", Notification(7, is_ready=True, status="up")),
        (b"WATCHDOG=1", Notification(7, is_alive=True)),
        (b"STATUS=\x1b[31mred\xff", Notification(7, status="[31mred\ufffd")),
        (b"READY=0\nEXTEND_TIMEOUT_USEC=1000\nREADY=11", Notification(7)),
        (b"", Notification(7)),
    ],
)
def test_a_notification_is_what_its_lines_say(data: bytes, expected: Notification) -> None:
    """Known lines count, unknown ones are passed over, and a sentence can't move the cursor."""
    assert parse(7, data) == expected


def test_a_sentence_is_bounded() -> None:
    """A status is cut after 200 characters."""
    assert parse(1, b"STATUS=" + b"x" * 4000).status == "x" * 200


def _rotate(file: Path, *, bytes_max: int, kept: int) -> int:
    with file.open("r+b") as stream:
        return rotate(file, stream.fileno(), bytes_max=bytes_max, kept=kept)


def test_rotated_files_go_on_by_number(tmp_path: Path) -> None:
    """The newest is .1; those past what is kept are gone."""
    file = tmp_path / "x.log"
    for content in (b"first", b"second", b"third"):
        file.write_bytes(content)
        assert _rotate(file, bytes_max=100, kept=2) == 0
        assert file.read_bytes() == b""
    assert {it.name: it.read_bytes() for it in tmp_path.iterdir()} == {
        "x.log": b"",
        "x.log.1": b"third",
        "x.log.2": b"second",
    }


def test_a_rotation_keeps_every_byte(tmp_path: Path) -> None:
    """What is not in the rotated file, since it is less than a block, stays in the current one."""
    file = tmp_path / "x.log"
    content = b"".join(b"%07d\n" % number for number in range(20_000))
    file.write_bytes(content)
    assert _rotate(file, bytes_max=len(content), kept=1) == 0
    assert (tmp_path / "x.log.1").read_bytes() + file.read_bytes() == content
    assert file.stat().st_size < 70_000


def test_of_a_flood_the_end_is_kept(tmp_path: Path) -> None:
    """A file of more than twice the limit loses its beginning, and it is counted."""
    file = tmp_path / "x.log"
    file.write_bytes(b"a" * 1000 + b"b" * 100)
    assert _rotate(file, bytes_max=100, kept=1) == 1000
    assert (tmp_path / "x.log.1").read_bytes() == b"b" * 100
    assert file.read_bytes() == b""


def test_nothing_is_kept_where_nothing_is_to_be(tmp_path: Path) -> None:
    """With no rotated files the output is dropped."""
    file = tmp_path / "x.log"
    file.write_bytes(b"a" * 150)
    _rotate(file, bytes_max=100, kept=0)
    assert [it.name for it in tmp_path.iterdir()] == ["x.log"]
