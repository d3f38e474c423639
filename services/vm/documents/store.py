"""VM documents in PostgreSQL, and the last known ones in a file for when it is away.

Reading always answers: from the table, or from the file with ``is_stale``. Writing needs the table.
A name belongs to one node of the database; a document that was removed keeps its row, and who makes
it anew gets a higher epoch, so that what an old owner still does to its domain is refused.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psycopg
from psycopg.types.json import Jsonb

from protocol.errors import RemoteProtocolError
from protocol.records import from_wire, to_wire
from services.data.errors import DatabaseUnavailableError
from services.data.postgres import Connection, Row
from services.data.refusal import one_line
from services.data.single import SingleConnection
from services.files import replace_file
from services.vm.documents.errors import (
    DocumentChangedError,
    DocumentElsewhereError,
    DocumentError,
    DocumentNotFoundError,
    DocumentsFullError,
    DocumentStoreError,
    DocumentsUnavailableError,
)
from services.vm.documents.model import VmDocument
from services.vm.documents.parse import document_from_wire
from services.vm.documents.records import StoredDocument

# More guests than a host runs; a plan of them still is one message.
DOCUMENTS_MAX = 1024
FORMAT = 1
_ANY: Mapping[str, int] = MappingProxyType({})
_FILE_BYTES_MAX = 256 << 20
_COLUMNS = "name, document, version, epoch, updated_at, updated_by"
_READ = (
    f"SELECT {_COLUMNS} FROM vm_documents "  # noqa: S608 - constants
    "WHERE node_id = %s AND removed_at IS NULL ORDER BY name LIMIT %s"
)
_LOOK = "SELECT node_id, version, removed_at IS NOT NULL FROM vm_documents WHERE name = %s"
_COUNT = "SELECT count(*) FROM vm_documents WHERE node_id = %s AND removed_at IS NULL"
_PUT = f"""
INSERT INTO vm_documents AS kept
    (name, node_id, epoch, version, fingerprint, document, updated_at, updated_by)
VALUES (%(name)s, %(node)s, 1, 1, %(fingerprint)s, %(document)s, %(now)s, %(by)s)
ON CONFLICT (name) DO UPDATE SET
    node_id = excluded.node_id,
    epoch = kept.epoch + (kept.removed_at IS NOT NULL)::int,
    version = kept.version
        + (kept.fingerprint <> excluded.fingerprint OR kept.removed_at IS NOT NULL)::int,
    fingerprint = excluded.fingerprint,
    document = excluded.document,
    updated_at = excluded.updated_at,
    updated_by = excluded.updated_by,
    removed_at = NULL
WHERE (kept.node_id = excluded.node_id OR kept.removed_at IS NOT NULL)
  AND (%(expected)s::bigint IS NULL
       OR %(expected)s = CASE WHEN kept.removed_at IS NULL THEN kept.version ELSE 0 END)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_REMOVE = """
UPDATE vm_documents SET removed_at = %s, version = version + 1, updated_at = %s, updated_by = %s
WHERE name = %s AND node_id = %s AND removed_at IS NULL AND (%s::bigint IS NULL OR version = %s)
RETURNING version
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The documents of a node.

    Attributes:
        is_stale: the database is away; these are the last known.
        unreadable: names of documents that a newer program wrote.
    """

    documents: tuple[StoredDocument, ...] = ()
    is_stale: bool = False
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    format: int
    node_id: str
    documents: tuple[StoredDocument, ...] = ()
    unreadable: tuple[str, ...] = ()


class DocumentStore:
    """The documents of one node.

    Args:
        connect: opens a connection; one is held while the store is in use.
        node_id: whose documents.
        directory: for the file; made when first written to.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], *, node_id: str, directory: Path
    ) -> None:
        self._single = SingleConnection(connect)
        self._node_id = node_id
        self._file = directory / "documents.json"
        self._kept: Reading | None = None

    async def read(self) -> Reading:
        """All documents, by name.

        Raises:
            DocumentStoreError: neither table nor file can be used.
        """
        try:
            async with self._use() as connection:
                rows = await _rows(connection, _READ, [self._node_id, DOCUMENTS_MAX])
        except DocumentsUnavailableError:
            kept = self._kept
            if kept is None:
                kept = await asyncio.to_thread(self._read_file)
            return Reading(documents=kept.documents, is_stale=True, unreadable=kept.unreadable)
        found, unreadable = [], []
        for row in rows:
            try:
                found.append(_stored(row))
            except DocumentError:
                unreadable.append(str(row[0]))
        reading = Reading(documents=tuple(found), unreadable=tuple(unreadable))
        if reading != self._kept:
            await asyncio.to_thread(self._write_file, reading)
            self._kept = reading
        return reading

    async def put(
        self,
        documents: Iterable[VmDocument],
        *,
        by: str,
        now_s: float,
        expected: Mapping[str, int] = _ANY,
    ) -> tuple[StoredDocument, ...]:
        """Keep documents, all or none; one that is kept already keeps its version.

        Args:
            documents: for this node.
            by: who says so.
            now_s: Unix time.
            expected: the versions that they must have, by name; 0 for a new one.

        Raises:
            DocumentElsewhereError, DocumentChangedError, DocumentsFullError: none is kept.
            DocumentsUnavailableError: the database is away.
        """
        async with self._use() as connection, connection.transaction():
            return tuple(
                [
                    await self._put(connection, item, by, now_s, expected.get(item.name))
                    for item in documents
                ]
            )

    async def _put(
        self,
        connection: Connection,
        document: VmDocument,
        by: str,
        now_s: float,
        expected: int | None,
    ) -> StoredDocument:
        known = await _rows(connection, _LOOK, [document.name])
        is_new = not known or known[0][2]
        if is_new and expected:
            raise _changed(document.name, expected, 0)
        if is_new and (await _rows(connection, _COUNT, [self._node_id]))[0][0] >= DOCUMENTS_MAX:
            raise DocumentsFullError(f"there are {DOCUMENTS_MAX} documents, as many as may be")
        given = {
            "name": document.name,
            "node": self._node_id,
            "fingerprint": document.fingerprint,
            "document": Jsonb(to_wire(document)),
            "now": dt.datetime.fromtimestamp(now_s, tz=dt.UTC),
            "by": by,
            "expected": expected,
        }
        rows = await _rows(connection, _PUT, given)
        if not rows:
            raise await self._reason(connection, document.name, expected)
        return _stored(rows[0])

    async def remove(
        self, name: str, *, by: str, now_s: float, expected: int | None = None
    ) -> None:
        """Remove a document; its epoch is remembered.

        Raises:
            DocumentNotFoundError, DocumentElsewhereError, DocumentChangedError: it is not removed.
            DocumentsUnavailableError: the database is away.
        """
        now = dt.datetime.fromtimestamp(now_s, tz=dt.UTC)
        given = [now, now, by, name, self._node_id, expected, expected]
        async with self._use() as connection:
            if not await _rows(connection, _REMOVE, given):
                raise await self._reason(connection, name, expected)

    async def close(self) -> None:
        """Close the connection."""
        await self._single.close()

    async def _reason(
        self, connection: Connection, name: str, expected: int | None
    ) -> DocumentElsewhereError | DocumentChangedError | DocumentNotFoundError:
        known = await _rows(connection, _LOOK, [name])
        if not known or known[0][2]:
            return DocumentNotFoundError(f"there is no document {name}", name=name)
        node_id, version, _ = known[0]
        if node_id != self._node_id:
            return DocumentElsewhereError(
                f"the document {name} belongs to node {node_id}: names are unique among all nodes "
                "of a database",
                name=name,
                node_id=node_id,
            )
        return _changed(name, expected, version)

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[Connection]:
        try:
            async with self._single.use() as connection:
                yield connection
        except DatabaseUnavailableError as exc:
            raise DocumentsUnavailableError(
                f"the database is away, so documents can't be changed: {exc.message}"
            ) from exc
        except psycopg.Error as exc:
            raise DocumentStoreError(
                f"the table of documents can't be used: {one_line(str(exc))}",
                sqlstate=exc.sqlstate or "",
            ) from exc

    def _write_file(self, reading: Reading) -> None:
        content = _File(
            format=FORMAT,
            node_id=self._node_id,
            documents=reading.documents,
            unreadable=reading.unreadable,
        )
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # For ourselves alone: its texts for cloud-init may hold passwords.
            replace_file(self._file, json.dumps(to_wire(content)))
        except OSError as exc:
            raise DocumentStoreError(f"can't write {self._file}: {exc.strerror}") from exc

    def _read_file(self) -> Reading:
        try:
            with self._file.open("rb") as stream:
                data = stream.read(_FILE_BYTES_MAX + 1)
            if len(data) > _FILE_BYTES_MAX:
                raise ValueError("it is too large")
            content = from_wire(_File, json.loads(data))
            if content.format != FORMAT or content.node_id != self._node_id:
                raise ValueError("it is of another node or a newer program")
        except FileNotFoundError:
            return Reading()
        except (OSError, ValueError, RemoteProtocolError) as exc:
            raise DocumentStoreError(
                f"the database is away and {self._file} is not understood: {exc}"
            ) from exc
        return Reading(documents=content.documents, unreadable=content.unreadable)


async def _rows(
    connection: Connection, query: str, parameters: Sequence[object] | dict[str, object]
) -> list[Row]:
    cursor = await connection.execute(query, parameters)
    return await cursor.fetchall()


def _stored(row: Row) -> StoredDocument:
    return StoredDocument(
        document=document_from_wire(row[1]),
        version=row[2],
        epoch=row[3],
        updated_s=row[4].timestamp(),
        updated_by=row[5],
    )


def _changed(name: str, expected: int | None, version: int) -> DocumentChangedError:
    return DocumentChangedError(
        f"the document {name} has version {version} and not {expected}: read it again",
        name=name,
        version=version,
        expected=expected,
    )
