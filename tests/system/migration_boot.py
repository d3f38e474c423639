"""A process that migrates as a node does when it boots: ``migration_boot.py HOST DATABASE``."""

from __future__ import annotations

import asyncio
import sys

from services.data import migrations
from services.data.connecting import Connection, connect_with_retry
from services.data.model import PostgresSettings


async def main() -> None:
    """Connect, make the database where there is none, migrate, and say how much that was."""
    settings = PostgresSettings(
        host=sys.argv[1], database=sys.argv[2], create_database=True, retry_initial_s=0.05
    )
    applied = 0

    async def prepare(connection: Connection) -> None:
        nonlocal applied
        applied = await migrations.migrate(connection, migrations.load())

    async def unheard(_reason: str, _pause_s: float) -> None:
        return

    connection = await connect_with_retry(
        settings, application="boot", prepare=prepare, on_failure=unheard
    )
    await connection.close()
    sys.stdout.write(f"{applied}\n")


if __name__ == "__main__":
    asyncio.run(main())
