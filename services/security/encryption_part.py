"""Step 2: the master key is loaded or made, and the cipher proves itself."""

from __future__ import annotations

import time
from collections.abc import Mapping

from protocol.messages.health import HEALTHY, Health, HealthState
from protocol.records import Plain
from services.security import cipher as sealing
from services.security.audit_file import AUDIT_FILE_NAME
from services.security.errors import CipherSelfTestError
from services.security.keyring import Keyring, load_keyring
from services.security.parts import Level, Part


class EncryptionPart(Part):
    """Holds the node's keys.

    Args:
        level: what all parts share.

    Attributes:
        keyring: the node's keys; there once the part is open.
    """

    step = 2
    name = "encryption"
    keyring: Keyring

    def __init__(self, level: Level) -> None:
        self._level = level
        self._is_open = False

    async def open(self) -> Mapping[str, Plain]:
        """Load the master key, or make it on the node's first start, and test the cipher.

        Raises:
            CriticalError: the key can't be used, or the cipher does not do what it must.
        """
        self.keyring = load_keyring(
            self._level.directory,
            node_id=self._level.settings.node_id,
            now_s=time.time(),
            used_marks=(AUDIT_FILE_NAME,),
        )
        self._is_open = True
        self._test()
        return {"master_key_made": self.keyring.created}

    async def check(self) -> Health:
        """Seal and open a value, and see that a changed one is refused."""
        try:
            self._test()
        except CipherSelfTestError as exc:
            return Health(HealthState.UNHEALTHY, exc.message)
        return HEALTHY

    async def close(self) -> None:
        """Let go of the key files."""
        if self._is_open:
            self._is_open = False
            self.keyring.close()

    def _test(self) -> None:
        sealing.self_test(self.keyring)
