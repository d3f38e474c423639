"""What reads much of the audit log, on a thread with a connection of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from services.data.connecting import arguments
from services.data.model import PostgresSettings
from services.security.audit_chain import Witness
from services.security.audit_checkpoint import Checkpoint
from services.security.audit_file import segments
from services.security.audit_offline import hashes, record_files, verify_files
from services.security.audit_statements import CHECKPOINT_FILE_NAME, read_statements
from services.security.audit_store import translated
from services.security.audit_verify import Connection, verify_stored
from services.security.model import BadRecord, Finding, VerifyReport, VerifyRequest

R = TypeVar("R")

# Chunks take milliseconds; a statement of a minute waits for something.
STATEMENT_TIMEOUT_MS = 60_000
# A file is renamed once a day.
_ATTEMPTS = 3


class AuditReader:
    """One thread; what it is given is done in turn.

    Args:
        settings: how to reach the database.
        application: shown in pg_stat_activity.
        node_id: whose chain.
        directory: ``<state>/security``.
    """

    def __init__(
        self, settings: PostgresSettings, *, application: str, node_id: str, directory: Path
    ) -> None:
        self._settings = settings
        self._application = application
        self._node_id = node_id
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, "audit-reader")
        self._open: Connection | None = None
        self._mutex = threading.Lock()

    async def verify(
        self,
        request: VerifyRequest,
        *,
        keys: Mapping[str, Ed25519PublicKey],
        witness: Witness,
        anchor: Checkpoint | None,
        time_s: float,
    ) -> VerifyReport:
        """Verify a range; see services.security.audit_verify.

        Raises:
            AuditUnavailableError: the database can't be reached.
        """
        work = partial(
            verify_stored,
            node_id=self._node_id,
            keys=keys,
            request=request,
            witness=witness,
            anchor=anchor,
            copies=partial(hashes, self._directory),
            time_s=time_s,
        )
        return await self.run(work)

    async def verify_files(self, keys: Mapping[str, Ed25519PublicKey]) -> VerifyReport:
        """Verify the node's own files; see services.security.audit_offline.

        Raises:
            OSError: a file can't be read.
        """
        work = partial(_verify_own_files, self._directory, keys)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def run(self, work: Callable[[Connection], R]) -> R:
        """Do work with a connection that is not in autocommit mode.

        Raises:
            AuditUnavailableError, AuditSchemaError: the database does not serve.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, partial(self._with_connection, work)
        )

    def close(self) -> None:
        """End what is under way, by its connection."""
        with self._mutex:
            connection = self._open
        if connection is not None:
            connection.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _with_connection(self, work: Callable[[Connection], R]) -> R:
        options = {**arguments(self._settings, self._application), "autocommit": False}
        options["connect_timeout"] = max(1, round(self._settings.connect_timeout_s))
        try:
            with closing(psycopg.connect(**options)) as connection:
                connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}".encode())
                connection.commit()
                with self._mutex:
                    self._open = connection
                try:
                    return work(connection)
                finally:
                    with self._mutex:
                        self._open = None
        except psycopg.Error as exc:
            raise translated(exc) from exc


def _verify_own_files(directory: Path, keys: Mapping[str, Ed25519PublicKey]) -> VerifyReport:
    """Verify files that are being written to; again, where one was renamed or removed meanwhile."""
    for _ in range(_ATTEMPTS):
        before = segments(directory)
        # First the statements: what is chained after that is only newer than all of them.
        statements, unreadable = read_statements(directory / CHECKPOINT_FILE_NAME)
        report = verify_files(record_files(directory), statements, keys)
        if unreadable and report.first_bad is None:
            reason = f"{unreadable} lines of {CHECKPOINT_FILE_NAME} are no statements"
            report = replace(report, first_bad=BadRecord(1, Finding.CHECKPOINT_FORGED, reason))
        if report.first_bad is None or segments(directory) == before:
            break
    return report
