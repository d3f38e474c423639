"""Seals everything anew under the active key, in bounded batches, and retires the keys left over.

Where it stands is in the data themselves: what another key sealed is still to be done. So it can
end at any moment and go on later, in another process. The table ``reencryption`` only remembers
the count. Two at once are kept apart by an advisory lock per node, which goes with its connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from services.data.errors import DatabaseUnavailableError
from services.data.postgres import Connection
from services.security.keyring import Keyring
from services.security.keys.database import KeysDatabase
from services.security.keys.keyset import KeyState
from services.security.keys.model import JobStatus
from services.security.keys.stores import BATCH_VALUES, SealedStore

# "nova" as a number; the other half of the lock's key is the node.
LOCK_CLASS = int.from_bytes(b"nova", "big")
# Half of the time belongs to everybody else.
PAUSE_SHARE = 1.0
PAUSE_MAX_S = 1.0
STATEMENT_TIMEOUT_S = 10.0
# Names of unreadable values in the log; their number is counted in full.
UNREADABLE_SHOWN = 10

_LOCK = "SELECT pg_try_advisory_lock(%s, hashtext(%s))"
_BEGIN = """
    INSERT INTO reencryption (node_id, key_id, moved, unreadable, started_at, updated_at)
    VALUES (%s, %s, 0, 0, now(), now())
    ON CONFLICT (node_id) DO UPDATE
    SET key_id = excluded.key_id, moved = 0, unreadable = 0, started_at = now(),
        updated_at = now(), finished_at = NULL
    WHERE reencryption.key_id <> excluded.key_id OR reencryption.finished_at IS NOT NULL
"""
_MOVED = """
    UPDATE reencryption SET moved = moved + %s, unreadable = %s, updated_at = now()
    WHERE node_id = %s
"""
_FINISH = "UPDATE reencryption SET finished_at = now(), updated_at = now() WHERE node_id = %s"
_READ = """
    SELECT moved, unreadable, extract(epoch FROM started_at)::float8,
           extract(epoch FROM finished_at)::float8
    FROM reencryption WHERE node_id = %s
"""


class AnotherRunsError(DatabaseUnavailableError):
    """Another process re-encrypts this node's values; it ends, or its connection does."""

    code = "security.reencryption_runs"


class Reencryption:
    """The job.

    Args:
        database: has the table and the lock.
        keyring: opens, seals, and retires keys.
        stores: what is sealed.
        log: logger.
        on_retired: told of the ids of keys that nothing needs any more.
    """

    def __init__(
        self,
        database: KeysDatabase,
        keyring: Keyring,
        stores: Sequence[SealedStore],
        *,
        log: structlog.typing.FilteringBoundLogger,
        on_retired: Callable[[Sequence[str]], None] = lambda _ids: None,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._stores = stores
        self._log = log
        self._on_retired = on_retired
        self._is_running = False
        self._waits_for = ""

    async def run(self) -> int:
        """Seal everything under the active key; returns how many values were moved.

        Raises:
            AnotherRunsError: another process is at it.
            DatabaseUnavailableError: the database is away; what was done is done.
            KeyExhaustedError, KeyStorageError: the active key can't seal at the moment.
        """
        self._is_running = True
        try:
            connection = await self._database.connect()
            try:
                await self._require_lock(connection)
                self._waits_for = ""
                moved = await self._move_all(connection)
            finally:
                await connection.close()
        finally:
            self._is_running = False
        return moved

    def wait_for(self, reason: str) -> None:
        """Remember why it does not go on, for the status."""
        self._waits_for = reason

    async def usage(self) -> Mapping[str, int]:
        """How many values there are by key id, over all stores."""
        found: Counter[str] = Counter()
        for store in self._stores:
            found.update(await store.usage())
        return found

    async def status(self) -> JobStatus:
        """How far it is."""
        async with self._database.use() as connection:
            row = await (await connection.execute(_READ, [self._database.node_id])).fetchone()
        usage = await self.usage()
        left = {key_id: count for key_id, count in usage.items() if key_id != self._keyring.key_id}
        found = JobStatus(
            is_running=self._is_running or bool(self._waits_for),
            waits_for=self._waits_for,
            left=left,
        )
        if row is None:
            return found
        moved, unreadable, started_s, finished_s = row
        return replace(
            found, moved=moved, unreadable=unreadable, started_s=started_s, finished_s=finished_s
        )

    async def settle(self) -> tuple[str, ...]:
        """Scan all stores, and retire the keys that nothing needs; returns their ids."""
        keyset = self._keyring.keyset
        idle = {entry.id for entry in keyset.data if entry.state is not KeyState.ACTIVE}
        used = await self.usage()
        before = _in_state(self._keyring, KeyState.RETIRED)
        await asyncio.to_thread(self._keyring.settle, used, idle=idle, now_s=time.time())
        retired = tuple(sorted(_in_state(self._keyring, KeyState.RETIRED) - before))
        if retired:
            self._on_retired(retired)
        return retired

    async def _require_lock(self, connection: Connection) -> None:
        row = await self._fetch(connection, _LOCK, (LOCK_CLASS, self._database.node_id))
        if row is None or row[0] is not True:
            raise AnotherRunsError("another process re-encrypts this node's values")

    async def _move_all(self, connection: Connection) -> int:
        moved = 0
        if any(key_id != self._keyring.key_id for key_id in await self.usage()):
            begin = (self._database.node_id, self._keyring.key_id)
            await self._fetch(connection, _BEGIN, begin)
            unreadable = 0
            for store in self._stores:
                done, lost = await self._move_store(connection, store, unreadable)
                moved, unreadable = moved + done, unreadable + lost
            await self._fetch(connection, _FINISH, (self._database.node_id,))
        await self.settle()
        return moved

    async def _move_store(
        self, connection: Connection, store: SealedStore, unreadable_before: int
    ) -> tuple[int, int]:
        moved = unreadable = 0
        after: str | None = ""
        while after is not None:
            began_s = time.monotonic()
            batch = await store.reseal(self._keyring, after=after, limit=BATCH_VALUES)
            moved += batch.moved
            for reason in batch.unreadable[: max(0, UNREADABLE_SHOWN - unreadable)]:
                self._log.error("sealed_value_unreadable", store=store.name, reason=reason)
            unreadable += len(batch.unreadable)
            # Also proves that the lock is still ours: it goes with this connection.
            values = (batch.moved, unreadable_before + unreadable, self._database.node_id)
            await self._fetch(connection, _MOVED, values)
            after = batch.next
            pause_s = PAUSE_SHARE * (time.monotonic() - began_s)
            await asyncio.sleep(min(PAUSE_MAX_S, pause_s))
        return moved, unreadable

    async def _fetch(
        self, connection: Connection, query: str, values: Sequence[object]
    ) -> tuple[object, ...] | None:
        async with self._database.translated(STATEMENT_TIMEOUT_S):
            cursor = await connection.execute(query.encode(), values)
            return await cursor.fetchone() if cursor.description else None


def _in_state(keyring: Keyring, state: KeyState) -> set[str]:
    return {entry.id for entry in keyring.keyset.data if entry.state is state}
