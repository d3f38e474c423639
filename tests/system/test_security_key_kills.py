"""Real processes that are killed while they change keys, and real disks that are hostile."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.security.errors import KeysetError, KeyStorageError, MasterKeyError
from services.security.keyring import Keyring, load_keyring
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.system.key_process import CONTEXT, open_all
from tests.system.security_node import migrate, node, postgres_settings, run

pytestmark = [pytest.mark.process]

ROOT = Path(__file__).parents[2]
WORKS = ["seal", "rotate", "seal", "master", "seal", "sync", "rotate", "seal", "master", "sync"]


def work(directory: Path, step: int, *works: str) -> int:
    """Run the process; returns its exit code."""
    argv = [sys.executable, "-m", "tests.system.key_process", str(directory), str(step), *works]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def order(value: str) -> tuple[int, int]:
    """When a value of the sealing process was put: process and count."""
    number, _, count = value.rstrip(".").partition("-")
    return int(number), int(count)


def load(directory: Path) -> Keyring:
    """Load the keys of a test's security directory."""
    return load_keyring(directory, node_id="node", now_s=time.time())


def test_a_kill_at_every_step_loses_nothing(tmp_path: Path) -> None:
    """Whatever step is a process's last, the next start opens everything that was sealed."""
    steps = 0
    for step in range(0, 400, 3):
        directory = tmp_path / str(step)
        directory.mkdir()
        code = work(directory, step, *WORKS)
        keyring, count = open_all(directory)
        keyring.close()
        assert not list((directory / "security").glob(".keys-new.*"))
        if code == 0:
            assert count == 4
            break
        steps += 1
    assert steps > 20
    assert code == 0


def test_kills_one_after_the_other_lose_nothing(tmp_path: Path) -> None:
    """One directory, killed at random steps again and again, still opens all that was sealed."""
    random.seed(4)
    for _ in range(25):
        work(tmp_path, random.randrange(60), *random.sample(WORKS, 5))
    assert work(tmp_path, -1, "seal", "sync", "master", "seal", "sync") == 0
    keyring, count = open_all(tmp_path)
    keyring.close()

    assert count >= 2
    assert not (tmp_path / "security/master.key.old").exists()


@pytest.mark.postgres
@pytest.mark.slow
def test_a_killed_security_process_loses_no_acknowledged_value(
    postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """Kill -9 while it puts, rotates and re-encrypts: what was acknowledged is there, readable."""
    postgres = postgres_settings(postgres_database)
    asyncio.run(migrate(postgres))
    acknowledged: dict[str, str] = {}
    for number in range(12):
        argv = [sys.executable, "-m", "tests.system.sealing_process", str(tmp_path)]
        argv += [postgres.host, postgres.database, str(number)]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        time.sleep(1.2 + random.random())
        process.kill()
        lines = process.stdout.read().splitlines()
        process.stdout.close()
        process.wait(10)
        for line in lines:
            name, _, value = line.partition(" ")
            if value.endswith("."):
                acknowledged[name] = value
    assert len(acknowledged) > 50

    async def scenario() -> None:
        async with node(tmp_path, postgres) as found:
            for name, value in acknowledged.items():
                reply = await found.call("sealed.get", {"name": name})
                # A later one may have been written and not acknowledged.
                assert order(reply["value"].decode()) >= order(value)
            report = await found.call("audit.verify")
            assert report.get("first_bad") is None

    run(scenario())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(place)]
    if subprocess.run(argv, check=False, capture_output=True).returncode != 0:
        pytest.skip("this container may not mount")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> None:
    """Leave no block free."""
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def test_a_full_disk_stops_changes_and_loses_nothing(small_disk: Path) -> None:
    """No new key, no new master key, no more uses than reserved; with room again all works."""
    keyring = load(small_disk / "security")
    sealed = keyring.seal(b"value", context=CONTEXT)
    key_id = keyring.key_id
    fill(small_disk)
    for change in (lambda: keyring.rotate(now_s=0.0), keyring.rotate_master, keyring.reserve):
        with pytest.raises(KeyStorageError, match="No space left"):
            change()
    assert keyring.key_id == key_id
    assert keyring.open(keyring.seal(b"x", context=CONTEXT), context=CONTEXT) == b"x"
    keyring.close()
    again = load(small_disk / "security")  # nothing has to be written to start
    assert again.open(sealed, context=CONTEXT) == b"value"
    (small_disk / "filler").unlink()
    again.rotate(now_s=0.0)
    again.rotate_master()

    assert again.open(sealed, context=CONTEXT) == b"value"
    again.close()


def test_a_first_start_on_a_full_disk_makes_no_half_key(small_disk: Path) -> None:
    """It fails with the reason, and the next one with room is a first start."""
    (small_disk / "security").mkdir(mode=0o700)
    fill(small_disk)
    with pytest.raises(KeyStorageError, match="No space left"):
        load(small_disk / "security")
    (small_disk / "filler").unlink()

    keyring = load(small_disk / "security")

    assert keyring.keyset.generation == 1
    keyring.close()


@pytest.mark.parametrize("name", ["keyset", "keyset.copy", "master.key"])
@pytest.mark.parametrize("attack", ["readable", "link", "stranger", "directory"])
def test_files_that_are_not_ours_alone_are_refused(tmp_path: Path, name: str, attack: str) -> None:
    """World-readable, a symbolic link, of another user, a directory: named, and left as it is."""
    directory = tmp_path / "security"
    load(directory).close()
    path = directory / name
    content = path.read_bytes()
    match attack:
        case "readable":
            path.chmod(0o644)
        case "link":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        case "stranger":
            if os.geteuid() != 0:
                pytest.skip("giving a file away needs root")
            os.chown(path, 65534, -1)
        case _:
            path.unlink()
            path.mkdir()

    with pytest.raises((KeysetError, MasterKeyError), match=name) as caught:
        load(directory)

    assert "it is not replaced" in str(caught.value)
    assert path.is_dir() or path.read_bytes() == content


def test_two_processes_can_not_have_the_keys(tmp_path: Path) -> None:
    """The second one is told that another has them, and takes them when it is gone."""
    first = load(tmp_path / "security")
    with pytest.raises(MasterKeyError, match="only one node"):
        load(tmp_path / "security")
    first.close()

    load(tmp_path / "security").close()
