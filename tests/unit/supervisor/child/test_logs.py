"""Log files rotate without losing a line, and never stop a process; everybody logs alike."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from supervisor.child import logs
from supervisor.child.logs import Logger, RotatedFile


@pytest.fixture
def log_dir(tmp_path: Path) -> Iterator[Path]:
    """Where this process logs, as ``data/cache`` from ``info`` on; not for longer."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    logs.configure("data/cache", log_dir=str(tmp_path), level="info")
    yield tmp_path
    logs.configure("novacron", log_dir="", level="info")
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(log_dir: Path) -> list[dict[str, object]]:
    """What was logged."""
    text = (log_dir / "data.cache.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_supervisors_and_services_write_the_same_lines(log_dir: Path) -> None:
    """The same fields in the same form, with or without structlog."""
    token = logs.correlation_id.set("abc")

    Logger(by="x").warning("full", size=3)
    structlog.get_logger(by="x").warning("full", size=3)

    logs.correlation_id.reset(token)
    ours, theirs = lines(log_dir)
    times = [str(line.pop("timestamp")) for line in (ours, theirs)]
    assert ours == theirs
    assert ours["component"] == "data/cache"
    assert ours["correlation"] == "abc"
    assert ours["pid"] == os.getpid()
    assert len(times[0]) == len(times[1])
    assert times[0] <= times[1]


def test_an_exception_is_shown(log_dir: Path) -> None:
    """With its traceback, as structlog shows it."""
    try:
        raise OSError("no")
    except OSError as exc:
        Logger().error("failed", exc_info=exc)
        structlog.get_logger().error("failed", exc_info=exc)

    ours, theirs = lines(log_dir)
    assert ours["exception"] == theirs["exception"]


def test_what_is_less_severe_than_wanted_is_not_written(tmp_path: Path, log_dir: Path) -> None:
    """The level is a limit for supervisors too."""
    logs.configure("data/cache", log_dir=str(tmp_path), level="error")

    Logger().warning("full")
    Logger().error("failed")

    assert [line["event"] for line in lines(log_dir)] == ["failed"]


def test_libraries_log_where_we_do(log_dir: Path) -> None:
    """What the standard library's loggers get is a line like any other."""
    logging.getLogger("some.library").warning("it %s", "happened")

    assert [(line["event"], line["logger"]) for line in lines(log_dir)] == [
        ("it happened", "some.library")
    ]


def test_a_full_file_makes_room(tmp_path: Path) -> None:
    """The newest lines are in the current file, older ones in order behind it."""
    log = RotatedFile(tmp_path / "x", bytes_max=5, files=2)

    for number in range(8):
        log.write(f"line{number}".encode())

    assert (tmp_path / "x").read_bytes() == b"line7"
    assert (tmp_path / "x.1").read_bytes() == b"line6"
    assert (tmp_path / "x.2").read_bytes() == b"line5"
    assert not (tmp_path / "x.3").exists()


def test_a_line_that_just_fits_does_not_rotate(tmp_path: Path) -> None:
    """The limit itself is allowed."""
    log = RotatedFile(tmp_path / "x", bytes_max=10, files=2)

    log.write(b"12345")
    log.write(b"67890")

    assert (tmp_path / "x").read_bytes() == b"1234567890"


def test_a_line_longer_than_the_limit_is_still_written(tmp_path: Path) -> None:
    """It gets a file of its own."""
    log = RotatedFile(tmp_path / "x", bytes_max=10, files=1)

    log.write(b"a" * 50)
    log.write(b"b")

    assert (tmp_path / "x.1").read_bytes() == b"a" * 50


def test_a_restarted_process_goes_on_in_the_same_file(tmp_path: Path) -> None:
    """What is there counts against the limit."""
    RotatedFile(tmp_path / "x", bytes_max=10, files=1).write(b"12345678")

    RotatedFile(tmp_path / "x", bytes_max=10, files=1).write(b"abc")

    assert (tmp_path / "x").read_bytes() == b"abc"
    assert (tmp_path / "x.1").read_bytes() == b"12345678"


def test_a_link_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """Nobody can make a node write somewhere else."""
    (tmp_path / "x").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic"):
        RotatedFile(tmp_path / "x", bytes_max=10, files=1)
