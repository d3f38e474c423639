"""What happened, in order, from libvirt's threads and the loop's own tasks. Bounded."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from services.vm.connection import Event, Lost
from services.vm.model import DomainEvent

# A host with thousands of guests that all start at once; past it a full reading is cheaper.
DOMAIN_EVENTS_MAX = 4096


@dataclass(frozen=True, slots=True)
class DomainChanged:
    """libvirt told of a domain on the connection of this generation."""

    generation: int
    event: DomainEvent


class Inbox:
    """A queue that drops domain events, and remembers that it did, rather than grow.

    Events of the connection itself are few (one per attempt, request or loss) and never dropped.
    """

    def __init__(self, domain_events_max: int = DOMAIN_EVENTS_MAX) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event | DomainChanged] = asyncio.Queue()
        self._domain_events_max = domain_events_max
        self._was_full = False

    def put(self, item: Event | DomainChanged) -> None:
        """Add an item, in the loop's thread."""
        if isinstance(item, DomainChanged) and self._queue.qsize() >= self._domain_events_max:
            self._was_full = True
            return
        self._queue.put_nowait(item)

    def put_threadsafe(self, item: Event | DomainChanged) -> None:
        """Add an item from any thread; does nothing once the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.put, item)

    async def get(self) -> Event | DomainChanged:
        """Take the oldest item; waits for one."""
        return await self._queue.get()

    def is_empty(self) -> bool:
        """Nothing waits to be taken."""
        return self._queue.empty()

    def was_full(self) -> bool:
        """Tell, once, that domain events were dropped and all that were kept have been taken."""
        if not self._was_full or not self._queue.empty():
            return False
        self._was_full = False
        return True


class InboxListener:
    """The adapter's listener: hands everything to the inbox, tagged with the generation."""

    def __init__(self, inbox: Inbox, generation: int) -> None:
        self._inbox = inbox
        self._generation = generation

    def domain_changed(self, event: DomainEvent) -> None:
        """A domain's lifecycle event."""
        self._inbox.put_threadsafe(DomainChanged(self._generation, event))

    def closed(self, reason: str) -> None:
        """The connection broke."""
        self._inbox.put_threadsafe(Lost(self._generation, f"libvirt is lost: {reason}"))
