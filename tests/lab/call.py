"""``python -m tests.lab.call PATH METHOD [JSON]``: a call to a node, on its host."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from protocol.names import run_dir
from protocol.transports.person import PersonKeys
from protocol.transports.zeromq import SyncClient

STATE_DIR = Path("/var/lib/novacron")
TIMEOUT_S = 10.0


def main(path: str, method: str, body: str = "null") -> None:
    """Write the reply as JSON."""
    run = run_dir(STATE_DIR)
    client = SyncClient(run, keys=PersonKeys(run))
    try:
        reply = client.call(path, method, json.loads(body), timeout_s=TIMEOUT_S)
    finally:
        client.close()
    json.dump(reply, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
