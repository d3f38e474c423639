"""The same child as a service of this project's supervisor."""

from __future__ import annotations

import os
import socket
import time

from supervisor import Service, ServiceContext


class Child(Service):
    """Says that it runs when its main code does, and waits for its end."""

    async def init(self, context: ServiceContext) -> None:
        """Report as the other supervisors' child does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said:
            said.sendto(b"%d %d" % (os.getpid(), time.monotonic_ns()), str(context.settings["to"]))
        if context.settings["crash"]:
            raise OSError("crashes, as it was told")
