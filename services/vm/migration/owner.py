"""Who owns a guest, as a migration needs it: looked up before, changed at the end. A port."""

from __future__ import annotations

from typing import Protocol


class Owners(Protocol):
    """The owners of guests among all nodes that share a database."""

    async def claim(self, uuid: str, name: str) -> int:
        """See that this node owns the guest, and leave it alone until ``leave``.

        Returns:
            The epoch that it owns it by; 0 where nobody keeps that.

        Raises:
            NovacronError: it does not, or that can't be found out.
        """

    async def hand_over(self, uuid: str, *, to_node: str, epoch: int) -> None:
        """Make the other node the owner, of lease and document at one moment; twice is no error.

        Raises:
            NovacronError: it is not, or nobody knows.
        """

    def leave(self, uuid: str) -> None:
        """The migration is over."""


class NoOwners:
    """Where there is no database nobody keeps owners."""

    async def claim(self, uuid: str, name: str) -> int:  # noqa: ARG002 - the port's
        """Nobody owns it."""
        return 0

    async def hand_over(self, uuid: str, *, to_node: str, epoch: int) -> None:
        """Nothing is handed over."""

    def leave(self, uuid: str) -> None:
        """Nothing was claimed."""
