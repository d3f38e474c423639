"""The samples in PostgreSQL: table ``workload_samples``, over one connection that is kept."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import psycopg
from psycopg.types.json import Jsonb

from protocol.errors import NovacronError
from protocol.records import Plain, to_wire
from services.data.columns import columns, unnest
from services.data.model import PostgresSettings
from services.data.postgres import Connection, connect
from services.data.refusal import one_line
from services.optional.workload.errors import StoreUnavailableError
from services.optional.workload.model import WorkloadSample
from services.vm.statistics.model import DomainStatistics

# A statement over so many rows takes milliseconds and holds no lock for long.
DELETE_BATCH = 1000
# What one round may delete; the next round goes on.
DELETE_BATCHES_MAX = 100
# What the domain's own record says already, and what belongs to no sample.
_IN_RECORD = frozenset({"name", "uuid", "state", "vcpus", "is_stale", "disks", "interfaces"})

_INSERT = f"""
    INSERT INTO workload_samples
        (node_id, time, cpu_percent, load1, memory_used_bytes, memory_total_bytes, domains)
    SELECT * FROM {unnest("text, timestamptz, real, real, bigint, bigint, jsonb")}
    ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants
_DELETE = """
    DELETE FROM workload_samples WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM workload_samples WHERE node_id = %s AND time < %s LIMIT %s
    ))
"""


class SampleStore:
    """Writes and deletes the samples of one node.

    Args:
        settings: how to reach the database.
        node_id: whose samples.
        timeout_s: for one round; a connection that takes longer is given up.
    """

    def __init__(self, settings: PostgresSettings, *, node_id: str, timeout_s: float) -> None:
        self._settings = settings
        self._node_id = node_id
        self._timeout_s = timeout_s
        self._connection: Connection | None = None

    async def write(self, samples: Sequence[WorkloadSample]) -> None:
        """Store samples, all or none; one that is there already stays as it is.

        A kept connection may have died with a server that is back by now, so its failure is
        followed by one attempt with a new one.

        Raises:
            StoreUnavailableError: they may be stored or not; the same call can be repeated.
        """
        rows = [self._row(item) for item in samples]
        is_kept = self._connection is not None
        try:
            await self._insert(rows)
        except StoreUnavailableError:
            if not is_kept or self._connection is not None:
                raise
            await self._insert(rows)

    async def delete_before(self, time_s: float) -> int:
        """Delete this node's samples from before a Unix time, batch by batch.

        Returns:
            How many; ``DELETE_BATCH * DELETE_BATCHES_MAX`` means that there may be more.

        Raises:
            StoreUnavailableError: batches that were done stay done.
        """
        moment = dt.datetime.fromtimestamp(time_s, tz=dt.UTC)
        deleted = 0
        for _ in range(DELETE_BATCHES_MAX):
            async with self._session() as connection:
                cursor = await connection.execute(_DELETE, (self._node_id, moment, DELETE_BATCH))
                deleted += cursor.rowcount
            if cursor.rowcount < DELETE_BATCH:
                break
        return deleted

    async def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()

    async def _insert(self, rows: Sequence[tuple[object, ...]]) -> None:
        async with self._session() as connection:
            await connection.execute(_INSERT.encode(), columns(rows))

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Connection]:
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._connection is None or self._connection.closed:
                    self._connection = await connect(
                        self._settings, application="novacron workload"
                    )
                yield self._connection
        except psycopg.errors.UndefinedTable as exc:
            raise StoreUnavailableError("the database has no table workload_samples yet") from exc
        except psycopg.Error as exc:
            await self.close()
            raise StoreUnavailableError(f"PostgreSQL: {one_line(str(exc))}") from exc
        except TimeoutError as exc:
            await self.close()
            raise StoreUnavailableError(
                f"PostgreSQL gives no answer in {self._timeout_s:g} s"
            ) from exc
        # Also what the data level calls critical: this component can wait for somebody to fix it.
        except NovacronError as exc:
            raise StoreUnavailableError(str(exc)) from exc

    def _row(self, sample: WorkloadSample) -> tuple[object, ...]:
        host = sample.host
        return (
            self._node_id,
            dt.datetime.fromtimestamp(sample.time_s, tz=dt.UTC),
            host.cpu_percent,
            host.load1,
            host.memory_used_bytes,
            host.memory_total_bytes,
            Jsonb(domains_json(sample)),
        )


def domains_json(sample: WorkloadSample) -> Plain:
    """What the column ``domains`` holds: JSON null where nobody could tell, which is not [].

    What a domain uses is its key ``statistics``, which is not there where nobody could tell.
    """
    if sample.domains is None:
        return None
    known = {item.uuid: _figures(item) for item in sample.statistics}
    return [
        {**record, "statistics": known[item.uuid]} if item.uuid in known else record
        for item in sample.domains
        if isinstance(record := to_wire(item), dict)
    ]


def _figures(statistics: DomainStatistics) -> Plain:
    found = to_wire(statistics)
    assert isinstance(found, dict), "it is a record"
    return {name: value for name, value in found.items() if name not in _IN_RECORD}
