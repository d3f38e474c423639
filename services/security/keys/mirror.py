"""The keyset's copy in the database: tells an older keyset from the newest, and is a backup.

The keys in it are wrapped, so that the database alone opens nothing. No value that was sealed with
a key is kept before the mirror has that key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from services.security.errors import KeysetError
from services.security.keys.database import KeysDatabase

_READ = "SELECT content FROM keyset_mirror WHERE node_id = %s"
_HAS_VALUES = "SELECT EXISTS (SELECT FROM sealed_values WHERE node_id = %s)"
_WRITE = """
    INSERT INTO keyset_mirror (node_id, generation, content, updated_at)
    VALUES (%(node_id)s, %(generation)s, %(content)s, now())
    ON CONFLICT (node_id) DO UPDATE
    SET generation = excluded.generation, content = excluded.content, updated_at = now()
    WHERE %(is_forced)s OR sha256(keyset_mirror.content) = ANY(%(ours)s)
    RETURNING generation
"""
# Writes whose answer never came; far more than there are while a database is away.
_OURS_MAX = 1000


class Mirror:
    """Brings the mirror up to date.

    Args:
        database: has it.
        current: the keyset's generation and content as they are on the disk.
        found: what the database had at the start; None for nothing.

    Attributes:
        generation: the one that the database is known to have; 0 at first.
    """

    def __init__(
        self,
        database: KeysDatabase,
        current: Callable[[], tuple[int, bytes]],
        found: bytes | None = None,
    ) -> None:
        self._database = database
        self._current = current
        # What the database may have if nobody but this process writes: hashes, the newest last.
        self._ours = [] if found is None else [hashlib.sha256(found).digest()]
        self._lock = asyncio.Lock()
        self.generation = 0

    @property
    def is_current(self) -> bool:
        """Whether the database has the newest keyset."""
        return self.generation == self._current()[0]

    async def update(self, *, replaces_any: bool = False) -> None:
        """Write the keyset if the database does not have it yet.

        Args:
            replaces_any: what is there was looked at and is worth nothing.

        Raises:
            DatabaseUnavailableError: the server is gone; try again later.
            KeysetError: the database has another keyset: another process uses the same keys.
        """
        async with self._lock:
            generation, content = self._current()
            if generation == self.generation:
                return
            digest = hashlib.sha256(content).digest()
            self._ours = [*self._ours[-_OURS_MAX:], digest]
            values = {
                "node_id": self._database.node_id,
                "generation": generation,
                "content": content,
                "is_forced": replaces_any,
                "ours": self._ours,
            }
            async with self._database.use() as connection:
                row = await (await connection.execute(_WRITE, values)).fetchone()
            if row is None:
                raise KeysetError(
                    "the database has a keyset of this node that this process did not write: "
                    "another process uses the same keys (stop one of the two, it is a copy), or "
                    "the database was restored (start the node again)"
                )
            self._ours = [digest]
            self.generation = generation


@dataclass(frozen=True, slots=True)
class Found:
    """What a start finds in the database: the keyset, and whether it has values of this node."""

    keyset: bytes | None
    has_values: bool


async def read_mirror(database: KeysDatabase) -> Found:
    """What the database knows of this node's keys.

    Raises:
        DatabaseUnavailableError: the server is gone.
        KeysSchemaError: a table is missing.
    """
    node_id = database.node_id
    async with database.use() as connection:
        row = await (await connection.execute(_READ, [node_id])).fetchone()
        used = await (await connection.execute(_HAS_VALUES, [node_id])).fetchone()
    keyset = None if row is None else bytes(row[0])
    return Found(keyset, has_values=used is not None and bool(used[0]))
