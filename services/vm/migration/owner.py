"""Who owns a guest, as a migration needs it: looked up before, changed at the end. A port.

The leases of the VM service are it; where there is no database they own nothing.
"""

from __future__ import annotations

from typing import Protocol


class Owners(Protocol):
    """The owners of guests among all nodes that share a database."""

    async def claim(self, uuid: str, name: str) -> int:
        """See that this node owns a guest that runs here, and leave it alone until ``leave``.

        Returns:
            The epoch that it owns it by; 0 where there is no database.

        Raises:
            NovacronError: it does not, or that can't be found out.
        """

    async def hand_over(self, uuid: str, *, to_node: str, epoch: int) -> None:
        """Make the other node the owner, of lease and document at one moment; twice is no error.

        Raises:
            NovacronError: it is not, or nobody knows.
        """

    def hold(self, uuid: str) -> None:
        """Let nobody start it here until ``leave``."""

    def leave(self, uuid: str) -> None:
        """It is as any other again."""
