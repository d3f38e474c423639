"""What keeps sealed values, as far as re-encryption and the end of a key are concerned.

Whoever keeps something that a Keyring sealed for longer than its process lives has to be such a
store and be added to the encryption part: a key that no store needs is retired and may be removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from services.security.keyring import Keyring

# A batch is one transaction: at most so many values, and so many bytes of them.
BATCH_VALUES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What became of some values.

    Attributes:
        moved: were sealed anew.
        unreadable: names of those that could not be opened and were left as they are.
        next: where to go on; None at the end.
    """

    moved: int
    unreadable: tuple[str, ...] = ()
    next: str | None


class SealedStore(Protocol):
    """Sealed values that may outlive a key.

    Both methods raise DatabaseUnavailableError, or another retryable NovacronError, when the
    store can't be reached.
    """

    name: str

    async def usage(self) -> Mapping[str, int]:
        """How many values there are by key id, read from the sealed values themselves."""

    async def reseal(self, keyring: Keyring, *, after: str, limit: int) -> Batch:
        """Seal values of other keys with the active one, in one transaction.

        Args:
            keyring: opens and seals.
            after: where to go on; "" for the beginning.
            limit: values at most.
        """
