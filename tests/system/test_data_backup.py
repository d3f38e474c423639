"""Backup and restore with real servers: from one to a second one, and all that may come between."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from services.data import migrations
from tests.fixtures.fix_node import wait_until
from tests.fixtures.fix_postgres import (
    PostgresDatabase,
    PostgresServer,
    postgres_programs,
    unprivileged_dir,
)
from tests.system import database_commands as db

pytestmark = pytest.mark.postgres
_needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a filesystem")


@pytest.fixture(scope="module")
def second_server() -> Iterator[PostgresServer]:
    """A server that has nothing of ours."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL's programs are not installed (/usr/lib/postgresql/*/bin)")
    server = PostgresServer(programs)
    server.start()
    yield server
    server.remove()


@pytest.fixture
def source(postgres_database: PostgresDatabase) -> PostgresDatabase:
    """A database with our schema and rows."""
    db.fill(postgres_database)
    return postgres_database


@pytest.fixture
def target(second_server: PostgresServer, source: PostgresDatabase) -> Iterator[PostgresDatabase]:
    """The place of a database on the second server, where there is none yet."""
    place = dataclasses.replace(source, server=second_server)
    yield place
    with psycopg.connect(second_server.dsn(), autocommit=True) as connection:
        for name in db.databases(place):
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@pytest.fixture
def dump(source: PostgresDatabase, tmp_path: Path) -> Path:
    """A good backup of the source."""
    file = tmp_path / "good.dump"
    code, _, err = db.run(source, "backup", str(file))
    assert code == 0, err
    return file


@contextmanager
def small_filesystem(directory: Path, size: str) -> Iterator[None]:
    """A filesystem of that size, in memory."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_backup_is_restored_on_a_second_server_row_by_row(
    source: PostgresDatabase, target: PostgresDatabase, dump: Path
) -> None:
    """Every row of every table is the same there, and the manifest says what it is."""
    code, out, err = db.run(target, "restore", str(dump))

    assert code == 0, err
    assert "restored" in out
    assert db.contents(target) == db.contents(source)
    assert db.databases(target) == {target.name}
    manifest = json.loads(dump.with_name("good.dump.json").read_text())
    assert manifest["schema"] == len(migrations.load())
    assert manifest["rows"]["public.workload_samples"] == 2000
    assert manifest["size_bytes"] == dump.stat().st_size
    assert (dump.stat().st_mode & 0o777, err) == (0o600, "")
    assert sorted(path.name for path in dump.parent.iterdir()) == ["good.dump", "good.dump.json"]


def test_restore_keeps_the_database_before_until_it_is_discarded(
    source: PostgresDatabase, dump: Path
) -> None:
    """What the restore replaced is there under the name that it says, and goes on request."""
    with source.connect() as connection:
        connection.execute("DELETE FROM odd")
    changed = db.contents(source)

    code, out, err = db.run(source, "restore", "--json", str(dump))

    assert code == 0, err
    kept = json.loads(out)["kept"]
    assert db.contents(source)["odd"] != changed["odd"]
    assert db.contents(dataclasses.replace(source, name=kept)) == changed
    assert kept in json.loads(db.run(source, "status", "--json")[1])["kept"]
    code, _, err = db.run(source, "discard", source.name)
    assert (code, "no database that a restore has replaced" in err) == (1, True)
    assert db.run(source, "discard", kept)[0] == 0
    assert db.databases(source) == {source.name}


def test_backup_overwrites_nothing(source: PostgresDatabase, dump: Path) -> None:
    """Neither the file nor a manifest that stands alone."""
    before = dump.read_bytes()

    assert db.run(source, "backup", str(dump))[0] == 1
    assert dump.read_bytes() == before
    dump.unlink()
    code, _, err = db.run(source, "backup", str(dump))
    assert (code, "good.dump.json exists" in err) == (1, True)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("cut", "it was cut"),
        ("byte", "has changed since it was made"),
        ("empty", "it was cut"),
        ("no manifest", "has no manifest"),
        ("torn manifest", "is no manifest"),
        ("newer schema", "use a newer NovaCron"),
        ("newer server", "restore it into version 99"),
        ("newer format", "is of format novacron.backup/2"),
        ("rows", "has 2000 rows after the restore and had 1 when"),
    ],
)
def test_damaged_and_unfit_backups_are_refused(
    target: PostgresDatabase, dump: Path, damage: str, sentence: str
) -> None:
    """Each by its own sentence, and the server is as it was."""
    place = dump.with_name("good.dump.json")
    manifest = json.loads(place.read_text())
    match damage:
        case "cut":
            os.truncate(dump, dump.stat().st_size // 2)
        case "empty":
            os.truncate(dump, 0)
        case "byte":
            data = bytearray(dump.read_bytes())
            data[len(data) // 2] ^= 1
            dump.write_bytes(data)
        case "no manifest":
            place.unlink()
        case "torn manifest":
            os.truncate(place, 100)
        case "newer schema":
            place.write_text(json.dumps({**manifest, "schema": 9999}))
        case "newer server":
            place.write_text(json.dumps({**manifest, "server": "99.1", "server_major": 99}))
        case "newer format":
            place.write_text(json.dumps({**manifest, "format": "novacron.backup/2"}))
        case "rows":
            rows = {**manifest["rows"], "public.workload_samples": 1}
            place.write_text(json.dumps({**manifest, "rows": rows}))

    code, out, err = db.run(target, "restore", str(dump))

    assert code == 1
    assert sentence in err, err
    assert "Traceback" not in err
    assert (out, db.databases(target)) == ("", set())


def test_older_backup_is_migrated_before_it_takes_the_place(
    postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    """A backup of an earlier version ends with this program's schema."""
    known = migrations.load()
    db.fill(postgres_database, steps=4)
    assert db.run(postgres_database, "backup", str(tmp_path / "old"))[0] == 0

    code, out, err = db.run(postgres_database, "restore", "--json", str(tmp_path / "old"))

    assert code == 0, err
    assert json.loads(out)["migrated"] == len(known) - 4
    with postgres_database.connect() as connection:
        found = connection.execute("SELECT max(version) FROM schema_migrations").fetchone()
    assert found == (len(known),)


def test_restore_refuses_while_somebody_is_connected_unless_it_may_disconnect(
    source: PostgresDatabase, dump: Path
) -> None:
    """The refusal names who it is; with the option their connections end, and nobody else's."""
    with (
        psycopg.connect(source.dsn + " application_name=node-7"),
        psycopg.connect(source.server.dsn(), autocommit=True) as elsewhere,
    ):
        code, _, err = db.run(source, "restore", str(dump))
        assert (code, "node-7 (1)" in err, "--disconnect" in err) == (1, True, True), err
        assert db.databases(source) == {source.name}

        code, out, err = db.run(source, "restore", "--disconnect", "--json", str(dump))

        assert code == 0, err
        assert db.databases(source) == {source.name, json.loads(out)["kept"]}
        assert elsewhere.execute("SELECT 1").fetchone() == (1,)
    assert db.run(source, "discard", json.loads(out)["kept"])[0] == 0


@_needs_root
def test_full_disk_leaves_nothing_of_a_backup(source: PostgresDatabase, tmp_path: Path) -> None:
    """The sentence says so, and there is as much room as before."""
    with small_filesystem(tmp_path, "64k"):
        code, _, err = db.run(source, "backup", str(tmp_path / "large"))

        assert (code, "no space is left" in err) == (1, True), err
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@_needs_root
def test_full_server_leaves_nothing_of_a_restore(source: PostgresDatabase, tmp_path: Path) -> None:
    """The server's disk fills up in the middle; its databases are as they were, and it goes on."""
    with source.connect() as connection:
        connection.execute(
            "CREATE TABLE large AS SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g"
        )
    dump = tmp_path / "dump"
    assert db.run(source, "backup", str(dump))[0] == 0
    programs = postgres_programs()
    assert programs is not None
    directory = unprivileged_dir("nc-pg-")
    with small_filesystem(directory, "160m"):
        shutil.chown(directory, "novacron", "novacron")
        server = PostgresServer(programs, directory)
        try:
            server.start()
            filler = directory / "filler"
            room = os.statvfs(directory)
            size_bytes = room.f_bavail * room.f_frsize - (20 << 20)
            with filler.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, size_bytes)
            place = dataclasses.replace(source, server=server)

            code, _, err = db.run(place, "restore", str(dump))

            assert (code, "No space left on device" in err) == (1, True), err
            assert db.databases(place) == set()
            filler.unlink()
            assert db.run(place, "restore", str(dump))[0] == 0
        finally:
            server.remove()
    directory.rmdir()


def test_ctrl_c_in_a_backup_leaves_nothing(source: PostgresDatabase, tmp_path: Path) -> None:
    """Neither files nor pg_dump; exit code 130."""
    process = db.start(source, "backup", str(tmp_path / "never"))
    pid = db.stop_child(process, "pg_dump")

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=db.TIMEOUT_S)

    assert (process.returncode, err.strip()) == (130, "")
    assert list(tmp_path.iterdir()) == []
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_restore_leaves_the_database_as_it_was(
    source: PostgresDatabase, dump: Path, number: signal.Signals, code: int
) -> None:
    """Nothing has changed, and nothing of the new database is left."""
    before = db.contents(source)
    process = db.start(source, "restore", str(dump))
    db.stop_child(process, "pg_restore")

    process.send_signal(number)
    process.communicate(timeout=db.TIMEOUT_S)

    assert process.returncode == code
    assert db.databases(source) == {source.name}
    assert db.contents(source) == before


def test_killed_restore_is_cleared_away_by_the_next(
    source: PostgresDatabase, target: PostgresDatabase, dump: Path
) -> None:
    """A kill -9 leaves a marked database, which goes; somebody else's of that name does not."""
    process = db.start(target, "restore", str(dump))
    pid = db.stop_child(process, "pg_restore")
    process.kill()
    process.communicate(timeout=db.TIMEOUT_S)
    assert db.databases(target) == {f"{target.name}_restoring"}
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of pg_restore", 5.0)

    code, _, err = db.run(target, "restore", str(dump))

    assert code == 0, err
    assert db.contents(target) == db.contents(source)
    assert db.databases(target) == {target.name}
    with psycopg.connect(target.server.dsn(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{target.name}_restoring"'.encode())
    code, _, err = db.run(target, "restore", str(dump))
    assert (code, "no restore made" in err) == (1, True)


def test_password_is_in_nobody_elses_sight(source: PostgresDatabase, tmp_path: Path) -> None:
    """pg_dump logs in with it, and neither its command line nor its environment has it."""
    with source.connect() as connection:
        connection.execute("GRANT pg_read_all_data TO locked")
    locked = source.as_user("locked")
    secret = {"NOVACRON_DATABASE_POSTGRES_PASSWORD": "right"}
    process = db.start(locked, "backup", str(tmp_path / "dump"), **secret)
    pid = db.stop_child(process, "pg_dump")

    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    os.kill(pid, signal.SIGCONT)
    _, err = process.communicate(timeout=db.TIMEOUT_S)

    assert process.returncode == 0, err
    assert b"right" not in command
    assert b"right" not in environ
    assert b"PGPASSFILE=/proc/self/fd/" in environ
    code, _, err = db.run(
        locked, "backup", str(tmp_path / "b"), **{**secret, next(iter(secret)): "no"}
    )
    assert (code, "password authentication failed" in err) == (1, True)


def test_restore_says_what_the_role_lacks(source: PostgresDatabase, dump: Path) -> None:
    """A role that may not make databases is told the statement that lets it."""
    secret = {"NOVACRON_DATABASE_POSTGRES_PASSWORD": "right"}

    code, _, err = db.run(source.as_user("locked"), "restore", str(dump), **secret)

    assert (code, 'ALTER ROLE "locked" CREATEDB' in err) == (1, True), err


def test_status_and_migrate_say_what_there_is_to_do(postgres_database: PostgresDatabase) -> None:
    """Pending migrations are shown, applied once, and then there are none."""
    db.migrate(postgres_database, migrations.load()[:2])

    before = json.loads(db.run(postgres_database, "status", "--json")[1])
    dry = db.run(postgres_database, "migrate", "--dry-run")[1]
    still = json.loads(db.run(postgres_database, "status", "--json")[1])
    applied = db.run(postgres_database, "migrate")[1]
    again = db.run(postgres_database, "migrate")[1]
    shown = db.run(postgres_database, "status")[1]

    assert (before["schema"], still["schema"]) == (2, 2)
    assert before["pending"] == still["pending"] == dry.split(": ")[1].strip().split(", ")
    assert applied.startswith("applied: 0003_")
    assert again.startswith("the schema is up to date")
    assert f"version {len(migrations.load())}" in shown
    assert "fsync off" in shown  # the tests' server; an operator has to see it


def test_newer_schema_is_said_and_left_alone(postgres_database: PostgresDatabase) -> None:
    """Status shows it with exit code 0, migrate refuses with 1."""
    db.migrate(postgres_database, migrations.load())
    with postgres_database.connect() as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (9999, 'future', 'x', '99')")

    code, out, _ = db.run(postgres_database, "status")
    refused = db.run(postgres_database, "migrate")

    assert (code, "run a newer NovaCron" in out) == (0, True)
    assert (refused[0], "run a newer NovaCron" in refused[2]) == (1, True)


def test_absent_server_is_one_sentence(postgres_database: PostgresDatabase, tmp_path: Path) -> None:
    """No traceback, exit code 1, nothing left."""
    where = {"NOVACRON_DATABASE_POSTGRES_HOST": str(tmp_path)}

    code, out, err = db.run(postgres_database, "backup", str(tmp_path / "dump"), **where)

    assert (code, out, "Traceback" in err) == (1, "", False)
    assert "No such file" in err
    assert list(tmp_path.iterdir()) == []
