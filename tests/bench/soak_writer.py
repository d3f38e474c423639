"""Writes numbers and notes which were acknowledged: ``soak_writer.py DIRECTORY``, until SIGTERM.

``acks`` gets a line ``+ n`` for each number whose transaction was acknowledged, ``? n`` where the
outcome is unknown and ``- n`` where we were told that nothing was done.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path

from protocol.errors import NovacronError
from protocol.records import from_wire
from services.data.errors import DatabaseUnavailableError, OutcomeUnknownError
from services.data.model import PostgresSettings
from services.data.postgres import Connection, Database
from tests.bench.soak_tree import database_settings

WRITERS = 4
# No unique key: a number that was written twice has to show.
TABLE = "CREATE TABLE IF NOT EXISTS soak (n bigint NOT NULL)"
PAUSE_S = 0.002
_RECONNECT_S = 0.05


class Writer:
    """Several tasks that write to one database, and one that keeps it connected."""

    def __init__(self, directory: Path) -> None:
        # Tries again after the same short pause each time: what is measured is the server's part.
        plain = {**database_settings(directory), "retry_attempts": 1}
        settings = from_wire(PostgresSettings, plain)
        self._database = Database(settings, application="soak", timeout_s=5.0)
        self._acks = os.open(directory / "acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._next = 0

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_connected())
            for _ in range(WRITERS):
                group.create_task(self._write())

    async def _stay_connected(self) -> None:
        while True:
            with contextlib.suppress(NovacronError):
                await self._database.connect(prepare=_make_table, on_failure=_unheard)
                await self._database.wait_lost()
            await asyncio.sleep(_RECONNECT_S)

    async def _write(self) -> None:
        while True:
            self._next = number = self._next + 1

            async def insert(connection: Connection, number: int = number) -> None:
                await connection.execute("INSERT INTO soak VALUES (%s)", [number])

            try:
                await self._database.run("soak", insert, is_idempotent=True)
                sign = "+"
            except OutcomeUnknownError:
                sign = "?"
            except DatabaseUnavailableError:
                sign = "-"
            os.write(self._acks, f"{sign} {number}\n".encode())
            await asyncio.sleep(PAUSE_S)


async def _make_table(connection: Connection) -> None:
    await connection.execute(TABLE)


async def _unheard(_reason: str, _pause_s: float) -> None:
    return


async def main() -> None:
    """Write until SIGTERM, whose default ends us: each line was written before we went on."""
    await Writer(Path(sys.argv[1])).run()


if __name__ == "__main__":
    asyncio.run(main())
