"""Several nodes that boot at once on one server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from services.data import migrations
from tests.fixtures.fix_postgres import PostgresServer

pytestmark = [pytest.mark.postgres, pytest.mark.process]

NODES = 4


def test_nodes_that_boot_at_once_make_and_migrate_the_database_once(
    postgres_server: PostgresServer,
) -> None:
    """Each ends well; one of them has applied all of it, or several a part, and none twice."""
    name = "together"
    command = [
        sys.executable,
        "-m",
        "tests.system.migration_boot",
        postgres_server.socket_dir,
        name,
    ]
    try:
        nodes = [
            subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
            for _ in range(NODES)
        ]
        outputs = [node.communicate(timeout=50)[0] for node in nodes]

        assert [node.returncode for node in nodes] == [0] * NODES
        known = len(migrations.load())
        assert sum(int(output) for output in outputs) == known
        with psycopg.connect(postgres_server.dsn(name)) as connection:
            found = connection.execute("SELECT count(*) FROM schema_migrations").fetchone()
        assert found == (known,)
    finally:
        with psycopg.connect(postgres_server.dsn(), autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
