"""The inbox drops domain events rather than grow, and never an event of the connection."""

from __future__ import annotations

import asyncio

from services.vm.connection import Lost, RetryDue
from services.vm.inbox import DomainChanged, Inbox, InboxListener
from services.vm.model import DomainEvent, DomainEventKind

EVENT = DomainEvent(kind=DomainEventKind.STARTED, uuid="u1", name="n1")


def test_domain_events_past_the_limit_are_dropped_and_that_is_told_once_when_empty() -> None:
    """The limit is inclusive; the loss is told after what was kept has been taken."""

    async def scenario() -> None:
        inbox = Inbox(domain_events_max=2)
        assert inbox.is_empty()
        for _ in range(2):
            inbox.put(DomainChanged(1, EVENT))
        assert not inbox._was_full
        assert not inbox.is_empty()

        inbox.put(DomainChanged(1, EVENT))
        inbox.put(Lost(1, "eof"))

        assert isinstance(await inbox.get(), DomainChanged)
        assert not inbox.was_full()
        assert isinstance(await inbox.get(), DomainChanged)
        assert await inbox.get() == Lost(1, "eof")
        assert inbox.was_full()
        assert not inbox.was_full()

    asyncio.run(scenario())


def test_a_listener_tags_what_it_hears_with_its_generation() -> None:
    """Late callbacks of an old connection can be told from the current one's."""

    async def scenario() -> None:
        inbox = Inbox()
        listener = InboxListener(inbox, 7)

        listener.domain_changed(EVENT)
        listener.closed("gone")

        assert await inbox.get() == DomainChanged(7, EVENT)
        assert await inbox.get() == Lost(7, "libvirt is lost: gone")

    asyncio.run(scenario())


def test_nobody_listens_after_the_loop_was_closed() -> None:
    """A callback that comes during the end of the process does no harm."""
    inbox = asyncio.run(_new_inbox())

    inbox.put_threadsafe(RetryDue())


async def _new_inbox() -> Inbox:
    return Inbox()
