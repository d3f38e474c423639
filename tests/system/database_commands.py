"""``novacronctl db`` against servers of the tests, for those who try backups."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from services.data import migrations
from services.data.connecting import connect
from services.data.migrations import Migration
from services.data.model import PostgresSettings
from supervisor.posix.processes import descendants_of
from tests.fixtures.fix_postgres import PostgresDatabase

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 50.0


def environment(database: PostgresDatabase, **more: str) -> dict[str, str]:
    """Variables that name a database of the tests."""
    return {
        "PATH": os.environ["PATH"],
        "NO_COLOR": "1",
        "NOVACRON_ENVIRONMENT": "embedded",
        "NOVACRON_DATABASE_MODE": "external",
        "NOVACRON_DATABASE_POSTGRES_HOST": database.host,
        "NOVACRON_DATABASE_POSTGRES_DATABASE": database.name,
        "NOVACRON_DATABASE_POSTGRES_SSLMODE": "disable",
        "NOVACRON_DATABASE_POSTGRES_USER": database.user,
        **more,
    }


def start(database: PostgresDatabase, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start a command."""
    return subprocess.Popen(
        [str(ROOT / "bin/novacronctl"), "db", *arguments],
        env=environment(database, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(database: PostgresDatabase, *arguments: str, **more: str) -> tuple[int, str, str]:
    """Run a command; its exit code, output and errors."""
    process = start(database, *arguments, **more)
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def fill(database: PostgresDatabase, *, samples: int = 2000, steps: int | None = None) -> None:
    """Give a database our schema and rows with all kinds of values."""
    known = migrations.load()
    migrate(database, known[:steps])
    with database.connect() as connection:
        connection.execute(
            "CREATE TABLE odd AS SELECT g, decode(md5(g::text), 'hex') AS bytes,"
            " chr(g + 8364) AS sign, nullif(g % 3, 0) AS gap, 'infinity'::timestamptz AS time"
            " FROM generate_series(1, 50) g"
        )
        connection.execute(
            "INSERT INTO workload_samples SELECT 'nödé'';--', to_timestamp(g), g, random(), g, g,"
            " jsonb_build_array(jsonb_build_object('name', md5(g::text), 'mac', md5((g*7)::text)))"
            " FROM generate_series(1, %s) g",
            [samples],
        )


def migrate(database: PostgresDatabase, known: tuple[Migration, ...]) -> int:
    """Apply migrations."""

    async def work() -> int:
        settings = PostgresSettings(host=database.host, database=database.name)
        async with await connect(settings, application="test") as connection:
            return await migrations.migrate(connection, known)

    return asyncio.run(work())


def contents(database: PostgresDatabase) -> dict[str, Any]:
    """A hash over all rows, by table."""
    found = {}
    with database.connect() as connection:
        query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
        for (table,) in connection.execute(query).fetchall():
            hashed = (
                f"SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"
            )
            found[str(table)] = connection.execute(hashed.encode()).fetchone()
    return found


def databases(database: PostgresDatabase) -> set[str]:
    """The names of the server's databases that have to do with this one."""
    with psycopg.connect(database.server.dsn()) as connection:
        rows = connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [database.name]
        ).fetchall()
    return {name for (name,) in rows}


def stop_child(process: subprocess.Popen[str], name: str) -> int:
    """Wait for a program that a command runs, and stop it in the middle; its process id."""

    def find() -> int | None:
        for pid in descendants_of(process.pid):
            try:
                program = Path(f"/proc/{pid}/exe").readlink().name
            except OSError:
                continue
            if program == name:
                os.kill(pid, signal.SIGSTOP)
                return pid
        return None

    return wait_for(find, f"{name} below {process.pid}")


def wait_for(look: Callable[[], int | None], what: str) -> int:
    """Wait until there is something."""
    give_up_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < give_up_s:
        if (found := look()) is not None:
            return found
        time.sleep(0.001)
    raise AssertionError(f"{what}: not within {TIMEOUT_S} s")
