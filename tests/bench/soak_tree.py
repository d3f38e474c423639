"""The data level alone, under a supervisor that never gives up: ``soak_tree.py DIRECTORY USER``.

PostgreSQL and the database service are the node's own; only the limits on restarts are others, as
whoever kills a thousand times would otherwise see the node end, as it should.
"""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

from protocol.records import Plain
from supervisor import Backoff, run, subtree
from supervisor.core.spec import ChildSpec, ChildType

# Short pauses, and as many restarts as fit.
BACKOFF = Backoff(initial_s=0.01, max_s=0.05, jitter=0.0, reset_s=0.5)
INTENSITY = 19
PERIOD_S = 1.0


def database_settings(directory: Path) -> dict[str, Plain]:
    """How the database is reached."""
    return {
        "host": str(directory / "pg/socket"),
        "ssl_mode": "disable",
        "pool_size": 6,
        "max_idle_conns": 2,
        "create_database": True,
        "retry_attempts": 60,
        "retry_initial_s": 0.02,
    }


def main() -> int:
    """Run the tree until SIGTERM."""
    directory, user = Path(sys.argv[1]), sys.argv[2]
    account = pwd.getpwuid(os.geteuid()).pw_name
    postgres = ChildSpec(
        id="postgres",
        type=ChildType.COMMAND,
        start="services.data.embedded:prepare_postgres",
        settings={
            "directory": str(directory / "pg/state"),
            "socket_dir": str(directory / "pg/socket"),
            "users": [account],
            "connections_max": 40,
        },
        liveness=None,
        stop_signal="SIGINT",
        shutdown_s=20.0,
        start_timeout_s=120.0,
        user=user,
    )
    database = ChildSpec(
        id="database",
        start="services.data.database_service:DatabaseService",
        settings={"node_id": "soak", "postgres": database_settings(directory)},
        depends_on=("postgres",),
        start_timeout_s=120.0,
        preload=("psycopg", "psycopg_pool", "services.data.database_service"),
    )
    limits = {"intensity": INTENSITY, "period_s": PERIOD_S, "backoff": BACKOFF}
    data = subtree("data", [postgres, database], strategy="rest_for_one", **limits)
    return run([data], state_dir=directory / "state", log_level="info", name="soak", **limits)


if __name__ == "__main__":
    sys.exit(main())
