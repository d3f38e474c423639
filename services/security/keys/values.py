"""Values that components keep sealed, in table ``sealed_values``.

Each is bound to the node, the component, its name, and its version, which is the time of the
write: a row can't be moved, nor given another's version. That a whole older row was put back can't
be seen; the audit of the database has to see to that.
"""

from __future__ import annotations

import builtins
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.data.columns import columns, unnest
from services.security.cipher import bind, key_id_of
from services.security.errors import DecryptionError, SealedFullError, SealedRefusedError
from services.security.keyring import Keyring
from services.security.keys.database import KeysDatabase
from services.security.keys.mirror import Mirror
from services.security.keys.model import NAMES_MAX, ValueInfo, ValueList
from services.security.keys.stores import Batch

Rows = Sequence[tuple[Any, ...]]  # Any: a row's columns have the types of the table

# For passwords, keys and tokens; what is larger belongs into a file or a volume.
VALUE_BYTES_MAX = 64 << 10
# Of one component; 64 MiB at the very worst.
VALUES_MAX = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}")
# Between the two parts of a place in the table; no component's name has it.
_MARK = "\n"

_PUT = """
    INSERT INTO sealed_values (node_id, component, name, version, sealed, updated_at)
    VALUES (%s, %s, %s, %s, %s, now())
    ON CONFLICT (node_id, component, name) DO UPDATE
    SET version = excluded.version, sealed = excluded.sealed, updated_at = now()
"""
_COUNT = """
    SELECT count(*) FROM sealed_values WHERE node_id = %s AND component = %s AND name <> %s
"""
_GET = """
    SELECT version, sealed, extract(epoch FROM updated_at)::float8 FROM sealed_values
    WHERE node_id = %s AND component = %s AND name = %s
"""
_DELETE = "DELETE FROM sealed_values WHERE node_id = %s AND component = %s AND name = %s"
_LIST = """
    SELECT name, key_id, extract(epoch FROM updated_at)::float8 FROM sealed_values
    WHERE node_id = %s AND component = %s AND starts_with(name, %s) AND name > %s
    ORDER BY name LIMIT %s
"""
_USAGE = "SELECT key_id, count(*) FROM sealed_values WHERE node_id = %s GROUP BY key_id"
_OTHERS = """
    SELECT component, name, version, sealed FROM sealed_values
    WHERE node_id = %s AND key_id <> %s AND (component, name) > (%s, %s)
    ORDER BY component, name LIMIT %s FOR UPDATE
"""
_MOVE = f"""
    UPDATE sealed_values AS v SET sealed = again.sealed
    FROM {unnest("bytea, text, text, text, bigint")}
        AS again (sealed, node_id, component, name, version)
    WHERE v.node_id = again.node_id AND v.component = again.component AND v.name = again.name
      AND v.version = again.version
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class Value:
    """An opened value and the Unix time of its write."""

    value: bytes
    updated_s: float


class SealedValues:
    """The values of one node; a SealedStore.

    Args:
        database: has the table.
        keyring: seals and opens.
        mirror: has to have the key before a value that it sealed is kept.
    """

    name = "sealed_values"

    def __init__(self, database: KeysDatabase, keyring: Keyring, mirror: Mirror) -> None:
        self._database = database
        self._node_id = database.node_id
        self._keyring = keyring
        self._mirror = mirror

    async def put(self, component: str, name: str, value: bytes) -> str:
        """Keep a value; returns the id of the key that sealed it.

        Raises:
            SealedRefusedError: the name or the size is not allowed.
            SealedFullError: the component has too many values.
            DatabaseUnavailableError: the server is gone; the value may have been written.
        """
        _require_name(name)
        if len(value) > VALUE_BYTES_MAX:
            raise SealedRefusedError(f"a value of {len(value)} bytes; at most {VALUE_BYTES_MAX}")
        version = time.time_ns() // 1000
        sealed = self._keyring.seal(value, context=self._context(component, name, version))
        key_id = key_id_of(sealed)
        await self._mirror.update()  # after the sealing, so that it has the key that sealed
        row = (self._node_id, component, name)
        async with self._database.use() as connection:
            found = await (await connection.execute(_COUNT, row)).fetchone()
            if found is not None and found[0] >= VALUES_MAX:
                raise SealedFullError(
                    f"{component} keeps {found[0]} sealed values; at most {VALUES_MAX}"
                )
            await connection.execute(_PUT, (*row, version, sealed))
        return key_id

    async def get(self, component: str, name: str) -> Value | None:
        """A value; None when there is none of that name.

        Raises:
            DecryptionError: the row was changed, or its key is not here.
            DatabaseUnavailableError: the server is gone.
        """
        _require_name(name)
        async with self._database.use() as connection:
            cursor = await connection.execute(_GET, (self._node_id, component, name))
            row = await cursor.fetchone()
        if row is None:
            return None
        context = self._context(component, name, row[0])
        return Value(self._keyring.open(bytes(row[1]), context=context), row[2])

    async def delete(self, component: str, name: str) -> bool:
        """Forget a value; tells whether there was one."""
        _require_name(name)
        async with self._database.use() as connection:
            cursor = await connection.execute(_DELETE, (self._node_id, component, name))
            return cursor.rowcount > 0

    async def list(self, component: str, *, prefix: str, after: str) -> ValueList:
        """The names that a component has values of."""
        if "\0" in prefix + after:
            raise SealedRefusedError("a name holds no zero byte")
        values = (self._node_id, component, prefix, after, NAMES_MAX + 1)
        async with self._database.use() as connection:
            rows = await (await connection.execute(_LIST, values)).fetchall()
        found = [ValueInfo(name=row[0], key_id=row[1], updated_s=row[2]) for row in rows]
        page = tuple(found[:NAMES_MAX])
        return ValueList(values=page, next=page[-1].name if len(found) > NAMES_MAX else "")

    async def usage(self) -> Mapping[str, int]:
        """See SealedStore."""
        async with self._database.use() as connection:
            rows = await (await connection.execute(_USAGE, [self._node_id])).fetchall()
        return {row[0]: row[1] for row in rows}

    async def reseal(self, keyring: Keyring, *, after: str, limit: int) -> Batch:
        """See SealedStore."""
        place = tuple(after.split(_MARK)) if after else ("", "")
        unreadable: list[str] = []
        key_id = keyring.key_id
        await self._mirror.update()
        async with self._database.use() as connection, connection.transaction():
            values = (self._node_id, key_id, *place, limit)
            rows = await (await connection.execute(_OTHERS, values)).fetchall()
            moves = self._moves(keyring, rows, unreadable)
            if keyring.key_id != key_id:
                # Made while this ran, so that the mirror may not have it: take the batch again.
                return Batch(moved=0, next=after)
            if moves:
                await connection.execute(_MOVE.encode(), columns(moves))
        end = None if len(rows) < limit else _MARK.join(rows[-1][:2])
        return Batch(moved=len(moves), unreadable=tuple(unreadable), next=end)

    def _moves(self, keyring: Keyring, rows: Rows, unreadable: builtins.list[str]) -> Rows:
        """What is to be written for some rows; names those that can't be opened."""
        moves = []
        for component, name, version, sealed in rows:
            context = self._context(component, name, version)
            try:
                value = keyring.open(bytes(sealed), context=context)
            except DecryptionError as exc:
                unreadable.append(f"{component} {name}: {exc.message}")
                continue
            again = keyring.seal(value, context=context)
            moves.append((again, self._node_id, component, name, version))
        return moves

    def _context(self, component: str, name: str, version: int) -> bytes:
        return bind("novacron/1 sealed value", self._node_id, component, name, str(version))


def _require_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise SealedRefusedError(
            f"the name {name!r:.80} is not allowed: letters, digits and . _ : @ / - , at most 128, "
            "beginning with a letter or digit"
        )
