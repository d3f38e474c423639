"""What the keys need while the node runs: new ones in time, their mirror, and re-encryption.

One turn of the schedule makes a data key that is due, brings the mirror up to date, and removes a
master key that nothing needs any more. It runs each LOOK_PERIOD_S, at once when it is woken, and
after RETRY_PERIOD_S while something does not work; what does not work is ``trouble`` until it does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from protocol.errors import NovacronError
from protocol.records import Plain
from services.security.keyring import Keyring
from services.security.keys.keyset import USES_ROTATE, rotation_reason
from services.security.keys.mirror import Mirror
from services.security.keys.reencryption import Reencryption
from supervisor.child.service import CriticalError, ServiceContext

LOOK_PERIOD_S = 60.0
RETRY_PERIOD_S = 5.0


class Schedule:
    """The keys' own work.

    Args:
        context: of the process.
        keyring: the keys.
        mirror: their copy in the database.
        job: the re-encryption.
        interval_s: age at which a data key is replaced.
        on_change: called when ``trouble`` has changed.

    Attributes:
        trouble: what does not work; "" when all does.
    """

    def __init__(
        self,
        context: ServiceContext,
        keyring: Keyring,
        mirror: Mirror,
        job: Reencryption,
        *,
        interval_s: float,
        on_change: Callable[[], None],
    ) -> None:
        self._context = context
        self._keyring = keyring
        self._mirror = mirror
        self._job = job
        self._interval_s = interval_s
        self._on_change = on_change
        self._wake = asyncio.Event()
        self._job_wanted = asyncio.Event()
        self._job_wanted.set()
        self._is_low = False
        self.trouble = ""

    def wake_threadsafe(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the next uses reserved; for the keyring's ``on_low``, from any thread."""
        self._is_low = True
        loop.call_soon_threadsafe(self._wake.set)

    def want_job(self) -> None:
        """Have everything sealed under the active key."""
        self._job_wanted.set()

    async def run(self) -> None:
        """Do what is due until cancelled.

        Raises:
            CriticalError: another process uses the same keys, or a table is gone.
        """
        while True:
            self._wake.clear()
            await self._turn()
            pause_s = RETRY_PERIOD_S if self.trouble else LOOK_PERIOD_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def run_job(self) -> None:
        """Re-encrypt whenever that is wanted, until cancelled."""
        while True:
            await self._job_wanted.wait()
            self._job_wanted.clear()
            try:
                moved = await self._job.run()
            except CriticalError:
                raise
            except NovacronError as exc:
                self._job.wait_for(exc.message)
                self._context.log.warning("reencryption_waits", reason=exc.message)
                self._job_wanted.set()
                await asyncio.sleep(RETRY_PERIOD_S)
                continue
            if moved:
                self.tell("reencrypted", values=moved, key_id=self._keyring.key_id)

    async def rotate(self, reason: str, **fields: Plain) -> str:
        """Make a new data key, now; returns its id.

        Raises:
            KeyRefusedError: there are too many keys.
            KeyStorageError: it can't be written; the key before stays active.
        """
        key_id = await asyncio.to_thread(self._keyring.rotate, now_s=time.time())
        self.tell("rotated", key_id=key_id, reason=reason, **fields)
        self._wake.set()
        self._job_wanted.set()
        return key_id

    async def rotate_master(self, **fields: Plain) -> str:
        """Put the keys under another master key, now; returns its id.

        Raises:
            KeyRefusedError: there is no other one, or the last change is not finished.
            KeyStorageError: the disk is full or fails.
            MasterKeyError: the new one can't be used.
        """
        master_id = await asyncio.to_thread(self._keyring.rotate_master)
        self.tell("master-rotated", master_id=master_id, **fields)
        self._wake.set()
        return master_id

    def tell(self, verb: str, **fields: Plain) -> None:
        """Say in log and journal what was done to the keys."""
        self._context.log.info("key_changed", change=verb, **fields)
        self._context.emit(f"key:{verb}", **fields)

    async def _turn(self) -> None:
        reasons = []
        for work in (self._rotate_if_due, self._reserve_if_low, self._mirror_keys):
            try:
                await work()
            except CriticalError:
                raise
            except NovacronError as exc:
                reasons.append(exc.message)
        trouble = "; ".join(reasons)
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                self._context.log.error("keys_trouble", reason=trouble)
                self._context.emit("key:failed", reason=trouble)
            else:
                self._context.log.info("keys_fine")
            self._on_change()

    async def _rotate_if_due(self) -> None:
        reason = rotation_reason(
            self._keyring.keyset, now_s=time.time(), interval_s=self._interval_s
        )
        if reason:
            await self.rotate(reason)

    async def _reserve_if_low(self) -> None:
        if not self._is_low:
            return
        # Where it fails it is tried again with the next turn, or by the seal that needs it.
        await asyncio.to_thread(self._keyring.reserve)
        self._is_low = False
        if self._keyring.keyset.active.reserved >= USES_ROTATE:
            self._wake.set()

    async def _mirror_keys(self) -> None:
        await self._mirror.update()
        if self._keyring.has_old_master:
            await asyncio.to_thread(self._keyring.drop_old_master)
            self.tell("old-master-removed", master_id=self._keyring.keyset.master_id)
