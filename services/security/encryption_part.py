"""Step 2: the keys are found or made, the cipher proves itself, and both are kept in order.

The database's copy of the keyset is read first: it tells whether the keys on the disk are the
newest. From then on the keys are rotated in time and the sealed values follow them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.records import Plain
from services.data.postgres import connect
from services.security import cipher as sealing
from services.security.audit_file import AUDIT_FILE_NAME
from services.security.audit_statements import CHECKPOINT_FILE_NAME
from services.security.errors import CipherSelfTestError, KeyExhaustedError, KeyStorageError
from services.security.keyring import Keyring, load_keyring
from services.security.keys.calls import KeyCalls, SealedCalls
from services.security.keys.codec import Verdict
from services.security.keys.database import KeysDatabase
from services.security.keys.mirror import Found, Mirror, read_mirror
from services.security.keys.outside import outside_source
from services.security.keys.reencryption import Reencryption
from services.security.keys.schedule import Schedule
from services.security.keys.stores import SealedStore
from services.security.keys.values import SealedValues
from services.security.parts import Level, Part, end
from supervisor.child.service import CallHandler

METRIC_KEY_AGE = "novacron_data_key_age_seconds"
_UNPROVEN = (Verdict.TORN, Verdict.EDITED, Verdict.FOREIGN)


class EncryptionPart(Part):
    """Holds the node's keys.

    Args:
        level: what all parts share.

    Attributes:
        keyring: the node's keys; there once the part is open.
        values: the components' sealed values; there once the part is open.
    """

    step = 2
    name = "encryption"
    keyring: Keyring
    values: SealedValues

    def __init__(self, level: Level) -> None:
        settings = level.settings
        self._level = level
        self._context = level.context
        self._database = KeysDatabase(
            lambda: connect(settings.postgres, application=f"{level.context.path} keys"),
            node_id=settings.node_id,
        )
        self._stores: list[SealedStore] = []
        self._schedule: Schedule | None = None
        self._calls: dict[str, CallHandler] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._is_open = False

    async def open(self) -> Mapping[str, Plain]:
        """Find the keys, or make them on the node's first start, and test the cipher.

        Raises:
            CriticalError: a key can't be used, or the cipher does not do what it must.
            DatabaseUnavailableError: the database can't be reached at the moment.
            KeyStorageError: the disk is full or fails.
        """
        found = await read_mirror(self._database)
        self.keyring = await asyncio.to_thread(self._load, found)
        self._is_open = True
        self._test()
        if self.keyring.remark:
            self._context.log.warning("keyset_repaired", remark=self.keyring.remark)
        if self.keyring.mirror in _UNPROVEN:
            self._context.log.error("keyset_mirror_replaced", was=self.keyring.mirror.value)
        mirror = Mirror(self._database, self._current, found.keyset)
        await mirror.update(replaces_any=self.keyring.mirror in _UNPROVEN)
        self._assemble(mirror)
        return {
            "master_key_made": self.keyring.created,
            "key_id": self.keyring.key_id,
            "generation": self.keyring.keyset.generation,
        }

    def add_store(self, store: SealedStore) -> None:
        """Have what a store keeps re-encrypted, and keep the keys that it needs.

        Call it before ``begin``.
        """
        self._stores.append(store)

    def begin(self) -> None:
        """Start the schedule and the re-encryption."""
        assert self._schedule is not None, "the part is open"
        self._tasks.append(self._level.start(self._schedule.run(), "keys-schedule"))
        self._tasks.append(self._level.start(self._schedule.run_job(), "keys-reencryption"))

    def calls(self) -> Mapping[str, CallHandler]:
        """See services.security.keys.model; there once the part is open."""
        return self._calls

    def health(self) -> Health:
        """Degraded while a new key, its mirror or its uses can't be written."""
        if self._schedule is None or not self._schedule.trouble:
            return HEALTHY
        return Health(HealthState.DEGRADED, self._schedule.trouble)

    async def check(self) -> Health:
        """Seal and open a value, and see that a changed one is refused."""
        try:
            self._test()
        except CipherSelfTestError as exc:
            return Health(HealthState.UNHEALTHY, exc.message)
        except (KeyExhaustedError, KeyStorageError) as exc:
            return Health(HealthState.DEGRADED, exc.message)
        age_s = time.time() - self.keyring.keyset.active.created_s
        self._context.measure(MetricSample(MetricKind.GAUGE, METRIC_KEY_AGE, age_s))
        return self.health()

    async def close(self) -> None:
        """End the work and let go of the key files and the database."""
        for task in self._tasks:
            await end(task)
        await self._database.close()
        if self._is_open:
            self._is_open = False
            self.keyring.close()

    def _load(self, found: Found) -> Keyring:
        settings = self._level.settings
        return load_keyring(
            self._level.directory,
            node_id=settings.node_id,
            now_s=time.time(),
            mirror=found.keyset,
            has_values=found.has_values,
            outside=outside_source(settings.encryption.master_key, settings.secrets),
            used_marks=(AUDIT_FILE_NAME, CHECKPOINT_FILE_NAME),
        )

    def _assemble(self, mirror: Mirror) -> None:
        settings = self._level.settings
        self.values = SealedValues(self._database, self.keyring, mirror)
        self._stores.insert(0, self.values)
        job = Reencryption(
            self._database,
            self.keyring,
            self._stores,
            log=self._context.log,
            on_retired=self._retired,
        )
        self._schedule = Schedule(
            self._context,
            self.keyring,
            mirror,
            job,
            interval_s=settings.encryption.rotation_interval_s,
            on_change=self._level.on_change,
        )
        loop, schedule = asyncio.get_running_loop(), self._schedule
        self.keyring.on_low = lambda: schedule.wake_threadsafe(loop)
        keys = KeyCalls(
            settings.node_id, settings.encryption, self.keyring, mirror, job, self._schedule
        )
        self._calls |= {**keys.calls(), **SealedCalls(self.values).calls()}

    def _current(self) -> tuple[int, bytes]:
        return self.keyring.keyset.generation, self.keyring.content

    def _retired(self, key_ids: Sequence[str]) -> None:
        assert self._schedule is not None, "the job runs"
        self._schedule.tell("retired", key_ids=list(key_ids))

    def _test(self) -> None:
        sealing.self_test(self.keyring)
