"""Backup and restore of a node with embedded servers: while it runs, and while it does not."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from protocol.names import run_dir
from tests.fixtures.fix_node import Node, alive, wait_until

pytestmark = [pytest.mark.process, pytest.mark.postgres, pytest.mark.redis, pytest.mark.slow]


def _db(node: Node, *arguments: str) -> tuple[int, str, str]:
    done = node.ctl("db", *arguments, "--environment", "embedded", timeout_s=60.0)
    return done.returncode, done.stdout, done.stderr


def _execute(node: Node, query: str) -> list[tuple[object, ...]]:
    dsn = f"host={run_dir(node.state_dir)}/pg user=novacron dbname=novacron"
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def test_backup_of_a_running_node_goes_into_another_that_does_not_run(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    """The second node boots with the first one's rows; its own server ran for the restore alone.

    What the database holds is sealed with keys of the first node's state directory, which move too.
    """
    first, second = make_node().start(), make_node()
    _execute(first, "CREATE TABLE kept AS SELECT g FROM generate_series(1, 1000) g")
    file = tmp_path / "dump"

    code, _, err = _db(first, "backup", str(file))
    assert code == 0, err
    wait_until(lambda: "call:db-backup" in first.ctl("audit", "tail").stdout, "the audit record")
    assert _db(second, "status")[0] == 3
    assert first.stop() == 0
    shutil.rmtree(second.state_dir / "security")
    shutil.copytree(first.state_dir / "security", second.state_dir / "security")
    code, out, err = _db(second, "restore", "--json", str(file))

    assert code == 0, err
    assert not alive([int(pid) for pid in _servers(second)])
    second.start()
    assert _execute(second, "SELECT count(*) FROM kept") == [(1000,)]
    assert json.loads(out)["kept"] in json.loads(_db(second, "status", "--json")[1])["kept"]


def test_restore_below_a_running_node_needs_the_option_and_the_node_stays(
    node: Node, tmp_path: Path
) -> None:
    """Refused with the names of the node's processes; else they are on the restored database.

    The audit log was set back with it, which the node says until somebody accepts it.
    """
    _execute(node, "CREATE TABLE kept AS SELECT 1 AS a")
    assert _db(node, "backup", str(tmp_path / "dump"))[0] == 0
    _execute(node, "DROP TABLE kept")

    code, _, err = _db(node, "restore", str(tmp_path / "dump"))
    assert (code, "data/database" in err) == (1, True), err
    code, _, err = _db(node, "restore", "--disconnect", str(tmp_path / "dump"))

    assert code == 0, err
    assert _execute(node, "SELECT a FROM kept") == [(1,)]
    wait_until(lambda: "set back" in node.ctl("status").stdout, "the audit chain's end", 20.0)
    accepted = node.ctl("audit", "accept", "--reason", "restored", "--yes")
    assert accepted.returncode == 0, accepted.stderr
    wait_until(lambda: node.ctl("status").returncode == 0, "ready again", 20.0)
    assert node.component("data/database").restarts == 0
    code, out, _ = _db(node, "status")
    assert (code, "fsync on" in out, "data_checksums on" in out) == (0, True, True), out


def test_data_directory_is_made_anew_from_a_backup(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    """As for another major version of PostgreSQL: back up, move it away, restore, start."""
    node = make_node()
    assert _db(node, "backup", str(tmp_path / "dump"))[0] == 0
    old = node.state_dir / "postgres/old"
    old.mkdir()
    for name in ("data", "initialised"):
        (old.parent / name).rename(old / name)

    code, _, err = _db(node, "restore", str(tmp_path / "dump"))

    assert code == 0, err
    node.start()

    def has_metrics() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.ports[1]}/metrics", timeout=5) as page:
            return b"novacron_database_statement_seconds_count{" in page.read()

    wait_until(has_metrics, "statements in the metrics", 20.0)


def test_newer_schema_ends_the_node_with_the_code_of_the_database(
    make_node: Callable[..., Node],
) -> None:
    """Exit code 3 and the sentence; the database is left alone."""
    node = make_node().start()
    _execute(node, "INSERT INTO schema_migrations VALUES (9999, 'future', 'x', '99')")
    assert node.stop() == 0

    code = node.run_to_end()

    assert code == 3
    assert "run a newer NovaCron" in node.output + node.errors


def _servers(node: Node) -> list[str]:
    lock = node.state_dir / "postgres/data/postmaster.pid"
    return [lock.read_text().split()[0]] if lock.exists() else []
