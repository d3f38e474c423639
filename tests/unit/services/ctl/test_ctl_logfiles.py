"""The node's log files as one stream, read from either end and followed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from services.ctl import logfiles
from services.ctl.logentry import Entry
from services.ctl.logfollow import Follower


def record(second: float, event: str, component: str = "core/vm") -> str:
    """A JSON line of a process."""
    return json.dumps(
        {
            "timestamp": f"2026-03-01T12:00:{second:06.3f}Z",
            "level": "info",
            "component": component,
            "event": event,
        }
    )


def write(file: Path, *lines: str) -> None:
    """Append lines to a log file."""
    with file.open("a") as stream:
        stream.writelines(f"{text}\n" for text in lines)


def events(entries: list[Entry]) -> list[str]:
    """What the entries say."""
    return [str(entry.fields["event"]) for entry in entries]


def everything(_entry: Entry) -> bool:
    """Keep each entry."""
    return True


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A log directory of three processes, one of them rotated, one with raw output."""
    write(tmp_path / "core.vm.jsonl.2", record(1, "vm-1"))
    write(tmp_path / "core.vm.jsonl.1", record(3, "vm-3"), record(5, "vm-5"))
    write(tmp_path / "core.vm.jsonl", record(7, "vm-7"))
    transport = "core/dwcp/transport.0"
    write(
        tmp_path / "core.dwcp.transport.0.jsonl",
        record(2, "t-2", transport),
        record(6, "t-6", transport),
    )
    write(
        tmp_path / "data.postgres.log",
        "2026-03-01 12:00:04.000 UTC [17] ERROR:  pg-4",
        "\tcontinued",
        "2026-03-01 12:00:08.000 UTC [17] LOG:  pg-8",
    )
    (tmp_path / "notes.txt").write_text("not a log\n")
    return tmp_path


def test_sources_are_named_by_component(logs: Path) -> None:
    """File names lead back to the paths of the processes, numbers in ids included."""
    found = {source.component: source for source in logfiles.sources(logs)}

    assert set(found) == {"core/vm", "core/dwcp/transport.0", "data/postgres"}
    assert [file.name for file in found["core/vm"].files()] == [
        "core.vm.jsonl",
        "core.vm.jsonl.1",
        "core.vm.jsonl.2",
    ]


def test_no_directory_is_no_logs(tmp_path: Path) -> None:
    """A node that never ran has no logs, which is no error here."""
    assert logfiles.sources(tmp_path / "nowhere") == []


def test_newest_entries_across_files(logs: Path) -> None:
    """The last entries are merged by time over processes and rotated files."""
    found = logfiles.newest(logfiles.sources(logs), 6, everything)

    assert events(found) == ["vm-3", "pg-4", "vm-5", "t-6", "vm-7", "pg-8"]
    assert found[1].more == ("\tcontinued",)


def test_newest_counts_only_what_is_kept(logs: Path) -> None:
    """The filter comes before the limit."""
    found = logfiles.newest(
        logfiles.sources(logs), 2, lambda entry: entry.component == "core/dwcp/transport.0"
    )

    assert events(found) == ["t-2", "t-6"]


def test_since_reads_forwards(logs: Path) -> None:
    """All entries from a moment on come in order of time."""
    moment_s = logfiles.newest(logfiles.sources(logs), 6, everything)[0].time_s

    found = list(logfiles.since(logfiles.sources(logs), moment_s, everything))

    assert events(found) == ["vm-3", "pg-4", "vm-5", "t-6", "vm-7", "pg-8"]
    assert found[1].more == ("\tcontinued",)


def test_since_skips_files_that_ended_before(logs: Path) -> None:
    """A rotated file that was last written before the moment is not even read."""
    old = logs / "core.vm.jsonl.2"
    old.write_text(record(50, "would be shown"))
    os.utime(old, (0, 0))

    found = list(logfiles.since(logfiles.sources(logs), 1000.0, everything))

    assert "would be shown" not in events(found)


def test_backwards_over_block_boundaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that lie across blocks are put together again, whatever the block's size."""
    monkeypatch.setattr(logfiles, "_BLOCK_BYTES", 64)
    file = tmp_path / "core.vm.jsonl"
    write(file, *["short", "x" * 60, "y" * 63, "", "z" * 10, "last"])

    lines = list(logfiles._lines_backwards(file))

    assert lines == ["last", "z" * 10, "y" * 63, "x" * 60, "short"]


def test_endless_line_is_cut_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without newlines is read in pieces of bounded size."""
    monkeypatch.setattr(logfiles, "_BLOCK_BYTES", 64)
    file = tmp_path / "core.vm.jsonl"
    file.write_text("x" * 1000)

    pieces = list(logfiles._lines_backwards(file))

    assert max(map(len, pieces)) <= 64
    assert "".join(pieces) == "x" * 1000


def test_line_without_newline_at_the_end(tmp_path: Path) -> None:
    """The line that a killed process left unfinished is shown too."""
    (tmp_path / "core.vm.jsonl").write_text(f"{record(1, 'whole')}\n{record(2, 'unfinished')}")

    assert events(logfiles.newest(logfiles.sources(tmp_path), 5, everything)) == [
        "whole",
        "unfinished",
    ]


def test_raw_log_without_any_time(tmp_path: Path) -> None:
    """A program that logs no times has its lines told apart, at the time of its file."""
    file = tmp_path / "data.postgres.log"
    write(file, "LOG:  one", "FATAL:  two")
    os.utime(file, (5000, 5000))

    both = logfiles.newest(logfiles.sources(tmp_path), 5, everything)
    forwards = list(logfiles.since(logfiles.sources(tmp_path), 1.0, everything))

    assert [(e.time_s, e.level, e.fields["event"]) for e in both] == [
        (5000.0, "info", "one"),
        (5000.0, "critical", "two"),
    ]
    assert forwards == both


def test_follow_starts_at_the_end(logs: Path) -> None:
    """What was there before is not repeated; what is added is shown, by time."""
    follower = Follower()
    follower.turn(logfiles.sources(logs))
    write(logs / "core.vm.jsonl", record(12, "vm-12"))
    write(logs / "core.dwcp.transport.0.jsonl", record(11, "t-11"))

    found = follower.turn(logfiles.sources(logs))

    assert events(found) == ["t-11", "vm-12"]
    assert follower.turn(logfiles.sources(logs)) == []
    follower.close()


def test_follow_across_two_rotations(logs: Path) -> None:
    """Nothing is lost when the file is rotated twice between two looks."""
    follower = Follower()
    follower.turn(logfiles.sources(logs))
    current = logs / "core.vm.jsonl"
    write(current, record(10, "before"))
    for name, event in (("second", "between"), ("third", "after")):
        for number in (3, 2, 1):
            source = logs / f"core.vm.jsonl.{number}"
            if source.exists():
                source.replace(logs / f"core.vm.jsonl.{number + 1}")
        current.replace(logs / "core.vm.jsonl.1")
        write(current, record(11 if name == "second" else 12, event))

    found = follower.turn(logfiles.sources(logs))

    assert events(found) == ["before", "between", "after"]
    follower.close()


def test_follow_new_file_and_half_lines(logs: Path) -> None:
    """A component that appears later is read from its start, a line once it is whole."""
    follower = Follower()
    follower.turn(logfiles.sources(logs))
    file = logs / "api.jsonl"
    text = f"{record(9, 'api-9', 'api')}\n"
    file.write_text(text[:20])

    first = follower.turn(logfiles.sources(logs))
    with file.open("a") as stream:
        stream.write(text[20:])
    second = follower.turn(logfiles.sources(logs))

    assert (events(first), events(second)) == ([], ["api-9"])
    follower.close()


def test_follow_truncated_file(logs: Path) -> None:
    """A file that was emptied is followed from its new beginning."""
    follower = Follower()
    follower.turn(logfiles.sources(logs))
    (logs / "core.vm.jsonl").write_text(f"{record(9, 'new')}\n")
    os.truncate(logs / "core.vm.jsonl", 0)
    follower.turn(logfiles.sources(logs))
    write(logs / "core.vm.jsonl", record(10, "again"))

    assert events(follower.turn(logfiles.sources(logs))) == ["again"]
    follower.close()


def test_follow_gives_raw_lines_the_last_time(logs: Path) -> None:
    """A continuation of PostgreSQL's is shown at the time of the line that it belongs to."""
    follower = Follower()
    follower.turn(logfiles.sources(logs))
    write(logs / "data.postgres.log", "2026-03-01 12:00:09.000 UTC [17] ERROR:  e", "\tmore")

    first, second = follower.turn(logfiles.sources(logs))

    assert first.time_s == second.time_s > 0
    follower.close()
