"""Whose a moved machine is: lease and place change together, whoever dies in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from protocol.records import to_wire
from services.data.connecting import connect
from services.vm.leases.model import Lease
from services.vm.leases.store import LeaseStore
from services.vm.migration.journal import Undertaking
from services.vm.migration.model import MigrateRequest
from services.vm.migration.routes import Route
from services.vm.operations.model import OperationState
from tests.fixtures.fix_postgres import PostgresDatabase
from tests.lab.guest import guests
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.system.security_node import migrate, postgres_settings
from tests.system.vm_migration_hosts import CallError, HostService, migration_lab

pytestmark = [
    pytest.mark.netns,
    pytest.mark.libvirt,
    pytest.mark.postgres,
    pytest.mark.xdist_group("vm_migration"),
]

UUID = "7d3c1f7e-54d1-4d2a-9d44-0c1a7b1f0a11"
GUEST = f"""
<domain type='qemu'>
  <name>owned</name><uuid>{UUID}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/></devices>
</domain>
"""
ROUTE = Route(node="host2", host="host2", libvirt_uri="qemu+tcp://host2/system", is_encrypted=False)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two hosts with libvirt."""
    with migration_lab("own") as found:
        yield found


@pytest.fixture
def hosts(lab: Lab, postgres_database: PostgresDatabase) -> Iterator[tuple[Host, Host]]:
    """Both, with one database; a guest without a disk is defined on the first."""
    asyncio.run(migrate(postgres_settings(postgres_database)))
    first, second = lab.hosts
    (first.directory / "owned.xml").write_text(GUEST)
    first.run("virsh", "define", str(first.directory / "owned.xml"))
    yield first, second
    for host in lab.hosts:
        if (state := guests.domains(host).get("owned")) is not None:
            if state != "shut off":
                host.run("virsh", "destroy", "owned")
            host.run("virsh", "undefine", "owned")


def serve(lab: Lab, host: Host, database: PostgresDatabase) -> HostService:
    """A VM service with the database."""
    return HostService(lab, host, postgres=to_wire(postgres_settings(database)))


def on_store(database: PostgresDatabase, method: str, *given: Any, **named: Any) -> Any:
    """Ask the table of leases."""

    async def ask() -> Any:
        settings = postgres_settings(database)
        store = LeaseStore(partial(connect, settings, application="test"))
        try:
            return await getattr(store, method)(*given, **named)
        finally:
            await store.close()

    return asyncio.run(ask())


def lease(database: PostgresDatabase) -> Lease:
    """The guest's lease."""
    found: Lease = on_store(database, "read", UUID)
    return found


def states(hosts: tuple[Host, Host]) -> list[str | None]:
    """What each host says of the guest."""
    return [guests.domains(host).get("owned") for host in hosts]


def test_the_lease_goes_along(
    lab: Lab, hosts: tuple[Host, Host], postgres_database: PostgresDatabase
) -> None:
    """In the next epoch, with the guest; the node that had it can't start it again."""
    service = serve(lab, hosts[0], postgres_database)
    try:
        service.ended(service.call("vm.start", domain="owned")["id"])
        before = lease(postgres_database)
        record = service.ended(service.migrate("owned", "host2", keeps_source=True).id)
        after = lease(postgres_database)
        refused = service.ended(service.call("vm.start", domain="owned")["id"])
    finally:
        service.close()

    assert record.state is OperationState.DONE, record
    assert (before.node_id, after.node_id, after.epoch) == ("host1", "host2", before.epoch + 1)
    assert states(hosts) == ["shut off", "running"]
    assert refused.error_code == "vm.leased_elsewhere"


@pytest.mark.parametrize("is_handed_over", [False, True])
def test_a_death_between_arrival_and_hand_over_is_mended(
    lab: Lab,
    hosts: tuple[Host, Host],
    postgres_database: PostgresDatabase,
    is_handed_over: bool,
) -> None:
    """Whether the table was changed before or not, the next start goes on from there."""
    first, _ = hosts
    service = serve(lab, first, postgres_database)
    service.ended(service.call("vm.start", domain="owned")["id"])
    service.kill()
    epoch = lease(postgres_database).epoch
    argv = ["--live", "--p2p", "--persistent", "--suspend", "owned", ROUTE.libvirt_uri]
    first.run("virsh", "migrate", *argv)
    assert states(hosts) == ["shut off", "paused"]
    had = Undertaking(
        uuid=UUID,
        name="owned",
        from_node="host1",
        request=MigrateRequest(domain="owned", node="host2"),
        route=ROUTE,
        epoch=epoch,
    )
    if is_handed_over:
        named = {"from_node": "host1", "to_node": "host2", "epoch": epoch}
        on_store(postgres_database, "hand_over", UUID, **named)
    place = first.place(f"/var/lib/libvirt/novacron-host1/vm/migrations/{UUID}.json")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(to_wire(had)))

    service = serve(lab, first, postgres_database)
    try:
        record = service.ended(1)
    finally:
        service.close()

    assert (record.state, record.note) == (OperationState.DONE, "owned runs on host2")
    assert states(hosts) == [None, "running"]
    after = lease(postgres_database)
    assert (after.node_id, after.epoch) == ("host2", epoch + 1)
    assert not place.exists()


def test_what_may_be_elsewhere_is_not_started_here(
    lab: Lab, hosts: tuple[Host, Host], postgres_database: PostgresDatabase
) -> None:
    """While its migration has no end yet and the target is silent, an order to start is refused."""
    first, _ = hosts
    place = first.place(f"/var/lib/libvirt/novacron-host1/vm/migrations/{UUID}.json")
    place.parent.mkdir(parents=True, exist_ok=True)
    away = replace(ROUTE, node="host9", host="10.77.0.9", libvirt_uri="qemu+tcp://10.77.0.9/system")
    had = Undertaking(
        uuid=UUID,
        name="owned",
        from_node="host1",
        request=MigrateRequest(domain="owned", node="host9"),
        route=away,
    )
    place.write_text(json.dumps(to_wire(had)))
    service = HostService(
        lab,
        first,
        postgres=to_wire(postgres_settings(postgres_database)),
        migration={"settle_s": 2.0},
    )
    try:
        taken_up = service.ended(1)
        refused = service.ended(service.call("vm.start", domain="owned")["id"])
        with pytest.raises(CallError, match="not being moved"):
            service.call("vm.migration.limit", domain="owned", downtime_ms=5)
    finally:
        service.close()
        place.unlink()

    assert taken_up.state is OperationState.UNKNOWN
    assert "it can't be reached" in taken_up.error
    assert refused.error_code == "vm.operation_refused"
    assert "it was being moved to host9" in refused.error
    assert states(hosts) == ["shut off", None]
