"""The audit spool: frames, files, limits, and what a reader makes of damage."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

import pytest

from supervisor.guard import spool
from supervisor.guard.spool import Note, SpoolError, SpoolFile
from supervisor.guard.spool_writer import SpoolWriter


def note(number: int = 0, **changes: object) -> Note:
    """A note."""
    values = {
        "time_us": 1_700_000_000_000_000 + number,
        "actor": "operator/anna",
        "action": "restart",
        "subject": "core/vm",
        "outcome": "requested",
        "fields": {"rule": "operators"},
    }
    return Note(**{**values, **changes})  # type: ignore[arg-type] # a map of mixed values


def writer(directory: Path, **limits: int) -> SpoolWriter:
    """A writer with counted ids."""
    count = itertools.count(1)
    return SpoolWriter(directory, "core/vm", draw_id=lambda: f"{next(count):016x}", **limits)


def only_file(directory: Path) -> SpoolFile:
    """The one file of a spool."""
    (file,) = spool.list_files(directory).files
    return file


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    """What was noted comes back in order, numbered from 1, with the file's id."""
    ours = writer(tmp_path)

    ours.write([note(1), note(2, outcome="denied")], durably=True)
    ours.write([note(3)], durably=False)

    page = spool.read(only_file(tmp_path))
    assert [record.number for record in page.records] == [1, 2, 3]
    assert {record.spool_id for record in page.records} == {"0000000000000001"}
    assert page.records[1].outcome == "denied"
    assert page.records[0].fields == {"rule": "operators"}
    assert (page.rest_bytes, page.problem) == (0, "")


def test_file_is_named_by_process_and_private(tmp_path: Path) -> None:
    """A file carries the process's stem and is its owner's alone."""
    writer(tmp_path).write([note()], durably=True)

    file = only_file(tmp_path)

    assert file.path.name == "core.vm-0000000000000001.spool"
    assert (file.process, file.spool_id) == ("core.vm", "0000000000000001")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A page's offset is where the next one begins."""
    ours = writer(tmp_path)
    ours.write([note(number) for number in range(5)], durably=True)

    first = spool.read(only_file(tmp_path), records_max=3)
    second = spool.read(only_file(tmp_path), first.offset)

    assert [record.number for record in first.records] == [1, 2, 3]
    assert [record.number for record in second.records] == [4, 5]


@pytest.mark.parametrize("kept", [1, 7, 8, 20])
def test_torn_last_frame_is_ignored_and_said(tmp_path: Path, kept: int) -> None:
    """Of a frame that is not whole nothing is believed, and its bytes are counted."""
    ours = writer(tmp_path)
    ours.write([note(1)], durably=True)
    whole = only_file(tmp_path).path.stat().st_size
    ours.write([note(2)], durably=True)
    os.truncate(only_file(tmp_path).path, whole + kept)

    page = spool.read(only_file(tmp_path))

    assert [record.number for record in page.records] == [1]
    assert (page.offset, page.rest_bytes, page.problem) == (whole, kept, "incomplete")


def test_last_frame_whose_bytes_never_came_is_torn(tmp_path: Path) -> None:
    """After a loss of power the file may be longer than what was written of it."""
    writer(tmp_path).write([note(1)], durably=True)
    file = only_file(tmp_path)
    with file.path.open("ab") as opened:
        opened.write(bytes(100))

    page = spool.read(file)

    assert [record.number for record in page.records] == [1]
    assert (page.rest_bytes, page.problem) == (100, "incomplete")


def test_changed_byte_in_the_middle_is_damage(tmp_path: Path) -> None:
    """A frame that is wrong before a whole one is no torn end, and the file is not deleted."""
    ours = writer(tmp_path)
    ours.write([note(1), note(2)], durably=True)
    ours.close()
    file = only_file(tmp_path)
    data = bytearray(file.path.read_bytes())
    data[30] ^= 1
    file.path.write_bytes(data)

    page = spool.read(file)

    assert page.records == ()
    assert page.problem == "damaged"
    assert not spool.discard(file, page.offset)
    assert spool.set_aside(file).name == "core.vm-0000000000000001.damaged"
    assert spool.list_files(tmp_path) == spool.Listing(files=(), foreign={})


def test_record_of_another_file_is_damage(tmp_path: Path) -> None:
    """A record that was copied from elsewhere is not taken for one of this file."""
    ours = writer(tmp_path)
    ours.write([note(1)], durably=True)
    copied = only_file(tmp_path).path.read_bytes()
    target = tmp_path / "core.vm-00000000000000ff.spool"
    target.write_bytes(copied)
    target.chmod(0o600)

    page = spool.read(SpoolFile(target, "core.vm", "00000000000000ff"))

    assert (page.records, page.problem) == ((), "damaged")


def test_next_file_begins_at_the_limit(tmp_path: Path) -> None:
    """A full file is let go of, and its successor counts from 1 under its own id."""
    ours = writer(tmp_path, file_bytes_max=100)

    for number in range(3):
        ours.write([note(number)], durably=True)

    files = spool.list_files(tmp_path).files
    assert {file.spool_id for file in files} == {f"{number:016x}" for number in (1, 2, 3)}
    assert [spool.read(file).records[0].number for file in files] == [1, 1, 1]
    assert sorted(spool.is_released(file) for file in files) == [False, True, True]


def test_full_directory_refuses(tmp_path: Path) -> None:
    """A spool that nobody empties takes no more, and says what to do."""
    ours = writer(tmp_path, directory_bytes_max=400)
    ours.write([note(1)], durably=True)

    with pytest.raises(SpoolError, match="security process"):
        ours.write([note(2), note(3), note(4)], durably=True)

    assert spool.directory_bytes(tmp_path) <= 400


def test_missing_directory_refuses(tmp_path: Path) -> None:
    """Without a place to write nothing is claimed to be written."""
    with pytest.raises(SpoolError, match="No such file"):
        writer(tmp_path / "gone").write([note()], durably=True)


def test_large_record_refuses(tmp_path: Path) -> None:
    """A record over the limit is not written."""
    with pytest.raises(SpoolError, match="bytes"):
        writer(tmp_path).write([note(fields={"x": "y" * 20_000})], durably=True)


def test_short_write_begins_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write that the disk cut short, nothing is appended behind the torn frame."""
    ours = writer(tmp_path)
    ours.write([note(1)], durably=True)
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
    with pytest.raises(SpoolError, match="No space"):
        ours.write([note(2)], durably=True)
    monkeypatch.undo()

    ours.write([note(3)], durably=True)

    pages = {file.spool_id[-1]: spool.read(file) for file in spool.list_files(tmp_path).files}
    assert pages["1"].problem == "incomplete"
    assert [record.number for record in pages["1"].records] == [1]
    assert [record.number for record in pages["2"].records] == [1]


def test_file_in_use_is_not_deleted(tmp_path: Path) -> None:
    """While its writer may go on a file stays; afterwards it goes once it is consumed."""
    ours = writer(tmp_path)
    ours.write([note(1)], durably=True)
    file = only_file(tmp_path)
    offset = spool.read(file).offset

    in_use = spool.discard(file, offset)
    ours.close()
    unread = spool.discard(file, 0)
    consumed = spool.discard(file, offset)

    assert (in_use, unread, consumed) == (False, False, True)
    assert not file.path.exists()


def test_foreign_files_are_told_and_not_read(tmp_path: Path) -> None:
    """Links, directories, other names and loose modes are no files of ours."""
    writer(tmp_path).write([note()], durably=True)
    ours = only_file(tmp_path)
    (tmp_path / f"a-{1:016x}.spool").symlink_to(ours.path)
    (tmp_path / f"b-{1:016x}.spool").mkdir(mode=0o600)
    (tmp_path / "notes.txt").touch()
    loose = tmp_path / f"c-{1:016x}.spool"
    loose.touch(mode=0o644)
    loose.chmod(0o644)

    found = spool.list_files(tmp_path)

    assert found.files == (ours,)
    assert set(found.foreign) == {"notes.txt", *(f"{n}-{1:016x}.spool" for n in "abc")}
    assert found.foreign[loose.name] == "its mode is 0644 and not 0600"
    with pytest.raises(PermissionError, match="0644"):
        spool.read(SpoolFile(loose, "c", f"{1:016x}"))
    with pytest.raises(OSError, match="symbolic links"):
        spool.read(SpoolFile(tmp_path / f"a-{1:016x}.spool", "a", f"{1:016x}"))


def test_sweep_removes_old_drafts_alone(tmp_path: Path) -> None:
    """Only what a process left that ended while it began a file is removed."""
    old, new = tmp_path / "a-1.draft", tmp_path / "b-1.draft"
    old.touch()
    new.touch()
    os.utime(old, (1000.0, 1000.0))

    spool.sweep(tmp_path, now_s=new.stat().st_mtime + 1.0)

    assert (old.exists(), new.exists()) == (False, True)
