"""The file that is sent and the file that appears, on a real file system."""

import os
import stat

import pytest

from services.dwcp import errors, files
from services.dwcp.files import PartFile, SourceFile
from services.dwcp.plan import CHUNK_BYTES_MIN, ChunkHashes, ChunkPlan, hash_of

K = CHUNK_BYTES_MIN
TRANSFER = "ab" * 16


@pytest.fixture
def incoming(tmp_path):
    """The directory of received files; not there yet."""
    return tmp_path / "dwcp" / "incoming"


def names_in(directory):
    """Everything that is there, hidden or not."""
    return sorted(path.name for path in directory.iterdir())


def make_part(incoming, content, name="disk", transfer=TRANSFER, needed=0):
    """An unfinished file with its content written."""
    plan = ChunkPlan(len(content), K)
    part = PartFile(incoming, name, transfer, plan, needed_bytes=needed)
    for chunk in range(plan.chunks):
        start = plan.offset(chunk)
        part.write(chunk, content[start : start + plan.length(chunk)])
    return part


def digest_of(content):
    """The digest as the sender computes it."""
    plan = ChunkPlan(len(content), K)
    hashes = ChunkHashes(plan)
    for chunk in range(plan.chunks):
        raw = content[plan.offset(chunk) : plan.offset(chunk) + plan.length(chunk)]
        if any(raw):
            hashes.add(chunk, hash_of(raw))
    return hashes.digest()


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: None, "dwcp.file_missing"),
        (lambda path: path.mkdir(), "dwcp.file_not_regular"),
        (os.mkfifo, "dwcp.file_not_regular"),
        (lambda path: path.symlink_to("/dev/zero"), "dwcp.file_not_regular"),
        (lambda path: path.symlink_to(path), "dwcp.file_unreadable"),
    ],
)
def test_what_is_no_file_is_not_sent(tmp_path, make, code):
    """Each kind of wrong name has its error, and opening it does not hang."""
    path = tmp_path / "x"
    make(path)

    with pytest.raises(errors.DwcpError) as caught:
        SourceFile(str(path))

    assert caught.value.code == code


def test_holes_are_not_read(tmp_path):
    """Only chunks with data are listed; a chunk that is half hole is one of them."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(100 * K)
        for offset in (0, 50 * K + 10, 51 * K, 99 * K):
            file.seek(offset)
            file.write(b"data")
    source, plan = SourceFile(str(path)), ChunkPlan(100 * K, K)

    chunks = list(source.chunks(plan))
    source.close()

    assert chunks == [0, 50, 51, 99]
    assert source.allocated_bytes < 10 * K


@pytest.mark.parametrize("size", [0, 1, K, K + 1, 3 * K])
def test_a_dense_file_is_all_data(tmp_path, size):
    """Every chunk is listed once and reads as it is."""
    path = tmp_path / "dense"
    content = os.urandom(size)
    path.write_bytes(content)
    source, plan = SourceFile(str(path)), ChunkPlan(size, K)

    read = b"".join(source.read(plan, chunk) for chunk in source.chunks(plan))
    source.check_unchanged()
    source.close()

    assert read == content


def test_a_change_while_sending_is_noticed(tmp_path):
    """Growing, shrinking and rewriting each fail the transfer."""
    path = tmp_path / "x"
    for change in ("grow", "shrink", "rewrite"):
        path.write_bytes(b"a" * K)
        source = SourceFile(str(path))
        with path.open("r+b") as file:
            file.truncate({"grow": K + 1, "shrink": 5, "rewrite": K}[change])
            file.write(b"b")
            os.utime(file.fileno(), ns=(0, 0))

        with pytest.raises(errors.FileChangedError):
            source.check_unchanged()
        if change == "shrink":
            with pytest.raises(errors.FileChangedError):
                source.read(ChunkPlan(K, K), 0)
        source.close()


def test_a_received_file_appears_whole(incoming):
    """Until the commit there is no file of that name; then it has its content and mode."""
    content = os.urandom(3 * K + 7)
    part = make_part(incoming, content)
    assert not (incoming / "disk").exists()

    part.commit(digest_of(content))
    part.close()
    part.close()

    assert (incoming / "disk").read_bytes() == content
    assert stat.S_IMODE((incoming / "disk").stat().st_mode) == 0o640
    assert names_in(incoming) == ["disk"]


def test_an_unfinished_file_leaves_nothing(incoming):
    """Giving up removes it."""
    make_part(incoming, b"abc").close()

    assert names_in(incoming) == []


def test_an_existing_file_of_another_size_is_refused_at_once(incoming):
    """No byte travels for a name that is taken."""
    incoming.mkdir(parents=True)
    (incoming / "disk").write_bytes(b"other")

    with pytest.raises(errors.TargetExistsError):
        make_part(incoming, b"abc")
    assert (incoming / "disk").read_bytes() == b"other"
    assert names_in(incoming) == ["disk"]


@pytest.mark.parametrize("kind", ["directory", "symlink"])
def test_a_name_that_is_no_file_is_taken(incoming, kind):
    """Nothing is written through a link or into a directory."""
    incoming.mkdir(parents=True)
    if kind == "directory":
        (incoming / "disk").mkdir()
    else:
        (incoming / "disk").symlink_to("/etc/passwd")

    with pytest.raises(errors.TargetExistsError):
        make_part(incoming, b"abc")


def test_an_existing_file_is_never_overwritten(incoming):
    """The same size but another content: the error comes at the end, the file stays."""
    incoming.mkdir(parents=True)
    (incoming / "disk").write_bytes(b"xyz")
    part = make_part(incoming, b"abc")

    with pytest.raises(errors.TargetExistsError):
        part.commit(digest_of(b"abc"))
    part.close()

    assert (incoming / "disk").read_bytes() == b"xyz"
    assert names_in(incoming) == ["disk"]


@pytest.mark.parametrize("content", [b"", b"abc", bytes(2 * K) + b"tail"])
def test_sending_the_same_file_again_succeeds(incoming, content):
    """A file that is there with the same content counts as delivered, holes or not."""
    incoming.mkdir(parents=True)
    (incoming / "disk").write_bytes(content)
    part = make_part(incoming, content)

    part.commit(digest_of(content))
    part.close()

    assert (incoming / "disk").read_bytes() == content
    assert names_in(incoming) == ["disk"]


def test_space_is_asked_for_before_data_comes(incoming):
    """More than the disk has is refused, and no file is created."""
    with pytest.raises(errors.DiskFullError):
        make_part(incoming, b"abc", needed=1 << 60)

    assert names_in(incoming) == []


def test_a_directory_that_can_not_be_used_is_an_error(tmp_path):
    """A file where the directory should be is told as such."""
    (tmp_path / "dwcp").write_text("")

    with pytest.raises(errors.StoreError):
        make_part(tmp_path / "dwcp" / "incoming", b"abc")


def test_only_abandoned_files_are_removed(incoming):
    """What a living process still writes is locked and stays, as does everything else."""
    part = make_part(incoming, b"abc")
    (incoming / f".old.{'cd' * 16}.part").write_text("")
    (incoming / "kept.part").write_text("")

    removed = files.remove_abandoned(incoming)

    assert removed == 1
    assert names_in(incoming) == [f".disk.{TRANSFER}.part", "kept.part"]
    part.close()


def test_one_transfers_remains_can_be_removed_alone(incoming):
    """After a loss only the lost transfer's file goes."""
    incoming.mkdir(parents=True)
    for name in ("ab", "cd"):
        (incoming / f".old.{name * 16}.part").write_text("")

    files.remove_abandoned(incoming, "cd" * 16)

    assert names_in(incoming) == [f".old.{'ab' * 16}.part"]
