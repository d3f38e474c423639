"""Children that are added and deleted at run time, over the control socket."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.errors import NovacronError, RemoteCallError
from protocol.messages.health import HealthState
from supervisor import command, connect
from supervisor.client import Client

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 15.0
SLEEP = ("sleep", "1000")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """An operator of a running tree."""
    directory = Path(tempfile.mkdtemp(prefix="nc-", dir="/tmp"))
    argv = [sys.executable, "-m", "tests.process.orders_tree", str(directory)]
    root = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        with _connected(directory) as client:
            yield client
    finally:
        root.terminate()
        assert root.wait(PATIENCE_S) == 0
        shutil.rmtree(directory)


def _connected(directory: Path) -> Client:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            client = connect(directory)
            if all(c.state is HealthState.HEALTHY for c in client.status().components):
                return client
            client.close()
        except NovacronError:
            pass
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def _ids(client: Client, path: str = "") -> dict[str, str]:
    return {child["id"]: child["presence"] for child in client.children(path)["children"]}


def test_an_added_child_is_supervised_until_it_is_deleted(client: Client) -> None:
    """It comes up, is listed, must be stopped before it can be deleted, and then is gone."""
    assert client.add(command("extra", SLEEP)).state is HealthState.HEALTHY
    assert _ids(client)["extra"] == "running"
    with pytest.raises(RemoteCallError) as refused:
        client.delete("extra")
    assert refused.value.remote_code == "supervisor.running"
    assert client.stop("extra").state is HealthState.STOPPED
    assert _ids(client)["extra"] == "not_running"
    client.delete("extra")
    assert "extra" not in _ids(client)


def test_an_id_that_is_taken_is_refused(client: Client) -> None:
    """OTP's already_started, and already_present for one that is stopped."""
    with pytest.raises(RemoteCallError) as refused:
        client.add(command("first", SLEEP))
    assert refused.value.remote_code == "supervisor.already_started"
    client.stop("first")
    with pytest.raises(RemoteCallError) as refused:
        client.add(command("first", SLEEP))
    assert refused.value.remote_code == "supervisor.already_present"
    client.start("first")


def test_a_child_that_does_not_come_up_is_no_child(client: Client) -> None:
    """The caller hears why, and the supervisor is as before."""
    with pytest.raises(RemoteCallError) as refused:
        client.add(command("broken", ("/no/such/program",)))
    assert refused.value.remote_code == "supervisor.start_failed"
    assert "/no/such/program" in str(refused.value)
    assert "broken" not in _ids(client)


def test_an_unusable_specification_is_refused(client: Client) -> None:
    """Nothing is started of a child whose dependency there is not."""
    with pytest.raises(RemoteCallError) as refused:
        client.add(command("lost", SLEEP, depends_on=["nobody"]))
    assert refused.value.remote_code == "supervisor.bad_spec"


def test_a_pool_starts_as_many_as_are_ordered(client: Client) -> None:
    """Each is named after the template; a stopped one is no child any more."""
    first, second = client.add_instance("pool"), client.add_instance("pool")
    assert first != second
    counts = client.children("pool")["counts"]
    assert counts["active"] == counts["workers"] == 2
    client.stop(first)
    assert list(_ids(client, "pool")) == [second.rpartition("/")[2]]


def test_a_pool_takes_no_specification(client: Client) -> None:
    """And a supervisor that is no pool takes no mere settings."""
    with pytest.raises(RemoteCallError) as refused:
        client.add(command("other", SLEEP), below="pool")
    assert refused.value.remote_code == "supervisor.pool"
    with pytest.raises(RemoteCallError) as refused:
        client.add_instance("novacron")
    assert refused.value.remote_code == "supervisor.pool"
