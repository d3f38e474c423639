"""What a child can do before it knows what it is, so that it is up sooner once it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import codec
from protocol.dataclass import dataclass
from protocol.messages.control import Hello
from protocol.records import from_wire, to_wire
from supervisor.core.spec import ChildSpec, Liveness
from supervisor.posix.board import LastWords
from supervisor.runtime.launch import Launch, TreeSettings

if TYPE_CHECKING:
    import asyncio

    from protocol.transports.zeromq import Context


@dataclass(frozen=True, slots=True)
class Warmth:
    """What is there already; None where it has still to be made.

    Attributes:
        loop: an asyncio loop that has run.
        context: a ZeroMQ context with its threads.
    """

    loop: asyncio.AbstractEventLoop | None = None
    context: Context | None = None

    def drop_loop(self) -> None:
        """Close the loop: this child has one of another kind."""
        if self.loop is not None:
            self.loop.close()


def warm_up() -> Warmth:
    """Make what every service needs, and touch the memory that starting one will change."""
    # Only here, since a tree of plain programs needs neither, and the launcher imports this.
    import asyncio

    import zmq

    rehearse()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    context: Context = zmq.Context(io_threads=1)
    context.socket(zmq.DEALER).close()  # starts the threads
    return Warmth(loop, context)


def rehearse() -> None:
    """Take through the wire what every child will.

    The launcher does it before it forks the first one, since what is made at its first use is
    made once then; and a spare does it to touch the memory.
    """
    spec = ChildSpec(id="spare", start="package.module:Service", liveness=Liveness())
    launch = Launch(
        tree=TreeSettings(run_dir="/"),
        spec=spec,
        incarnation=1,
        path="spare",
        supervisor_path="novacron",
        slot=0,
        public_key=b"",
        secret_key=b"",
    )
    from_wire(Launch, codec.decode(codec.encode(to_wire(launch))))
    to_wire(Hello(pid=1, incarnation=1))
    to_wire(LastWords(code="", detail=""))
