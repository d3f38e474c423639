"""The future of a call: its task goes on in the turn that brings the reply."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from protocol.envelope import Envelope, Kind
from supervisor.child.reply import Reply

ANSWER = Envelope(Kind.REPLY, 1, "", 0, "", "pong")
LABEL = contextvars.ContextVar("label", default="")


def run(scenario):
    """Run a scenario that gets a reply and a list, in which its task notes what it sees."""

    async def main():
        reply, seen = Reply(loop=asyncio.get_running_loop()), []

        async def wait():
            LABEL.set("caller's")
            try:
                seen.append((await reply).body)
            except BaseException as exc:
                seen.append(type(exc).__name__)
                raise
            seen.append(LABEL.get())

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        await asyncio.wait_for(scenario(reply, task, seen), 5.0)
        await asyncio.wait((task,), timeout=5.0)
        assert task.done()
        return seen

    return asyncio.run(main())


def in_callback(call):
    """Have the loop make a call, as it does when a descriptor is readable."""
    done = asyncio.get_running_loop().create_future()

    def make():
        call()
        done.set_result(None)

    asyncio.get_running_loop().call_soon(make)
    return done


def test_the_task_goes_on_before_arrive_returns():
    """No further turn of the loop is needed, and the task runs in its own context."""

    async def scenario(reply, task, seen):
        def arrive():
            reply.arrive(ANSWER)
            seen.append("arrived")

        await in_callback(arrive)

    assert run(scenario) == ["pong", "caller's", "arrived"]


def test_a_failure_reaches_the_task():
    """An exception is raised where the call waits."""

    async def scenario(reply, task, seen):
        reply.set_exception(TimeoutError())
        with pytest.raises(TimeoutError):
            await task

    assert run(scenario) == ["TimeoutError"]


def test_a_cancelled_task_stops_waiting():
    """Cancelling the task cancels the reply; what comes later is for nobody."""

    async def scenario(reply, task, seen):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert reply.done()

    assert run(scenario) == ["CancelledError"]


def test_a_deadline_around_the_call_holds():
    """asyncio.timeout ends the wait, as it does with any future."""

    async def scenario(reply, task, seen):
        other = Reply(loop=asyncio.get_running_loop())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await other
        await in_callback(lambda: reply.arrive(ANSWER))

    assert run(scenario) == ["pong", "caller's"]


def test_a_reply_that_came_first_is_there():
    """Waiting for what has arrived returns at once."""

    async def scenario(reply, task, seen):
        other = Reply(loop=asyncio.get_running_loop())
        other.arrive(ANSWER)
        assert await other == ANSWER
        await in_callback(lambda: reply.arrive(ANSWER))

    assert run(scenario) == ["pong", "caller's"]
