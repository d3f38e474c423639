"""Whether the server keeps what it has acknowledged when its power goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection

# The values of each setting under which nothing that was acknowledged is lost with the power, and
# a page that the disk has damaged is noticed.
SAFE: Mapping[str, tuple[str, ...]] = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "remote_apply", "remote_write", "local"),
    "data_checksums": ("on",),
}
QUERY = "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)"


def risks(settings: Mapping[str, str]) -> dict[str, str]:
    """Those settings that are not safe."""
    return {name: value for name, value in settings.items() if value not in SAFE[name]}


async def find_risks(connection: AsyncConnection[Any]) -> dict[str, str]:
    """Ask the server for what is not safe there."""
    cursor = await connection.execute(QUERY, [list(SAFE)])
    rows = await cursor.fetchall()
    return risks(dict(rows))
