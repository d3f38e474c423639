"""A security process that puts, rotates and re-encrypts until it is killed.

``python -m tests.system.sealing_process STATE HOST DATABASE NUMBER`` prints a line per value that
was acknowledged: its name, and the value, which ends with a full stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from pathlib import Path

from services.data.model import PostgresSettings
from services.security.errors import KeyRefusedError
from tests.system.security_node import Node


async def main(state: Path, postgres: PostgresSettings, number: int) -> None:
    """Work until killed."""
    found = Node(state, postgres)
    await found.service.init(found.context)
    for count in itertools.count():
        name, value = f"v{count % 200}", f"{number}-{count}."
        await found.call("sealed.put", {"name": name, "value": value.encode()})
        sys.stdout.write(f"{name} {value}\n")
        sys.stdout.flush()
        if count % 40 == 20:
            await found.call("keys.rotate", caller="operator")
        if count % 100 == 70:
            with contextlib.suppress(KeyRefusedError):  # the last one is not finished
                await found.call("keys.rotate_master", caller="operator")


if __name__ == "__main__":
    settings = PostgresSettings(host=sys.argv[2], database=sys.argv[3], user="novacron")
    asyncio.run(main(Path(sys.argv[1]), settings, int(sys.argv[4])))
