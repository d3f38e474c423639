"""Machines through the gateway: what one uses, orders, and what came of them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from protocol.errors import CallTimeoutError, RemoteCallError
from protocol.messages.access import Role
from protocol.records import Plain, to_wire
from services.vm.model import DomainList, DomainRecord, DomainState
from services.vm.operations.model import OperationRecord, OperationState
from services.vm.statistics.model import DomainStatistics, StatisticsReply
from supervisor.child.service import Request
from tests.system.test_api_access import Tree, bearer, run, running
from tests.system.test_api_gateway import assert_problem

RUNS = DomainRecord(name="web-1", uuid="8c5e2c5c-0000-4000-8000-000000000001",
                    state=DomainState.RUNNING, vcpus=2)  # fmt: skip
OFF = DomainRecord(name="db", uuid="8c5e2c5c-0000-4000-8000-000000000002",
                   state=DomainState.SHUTOFF)  # fmt: skip
BEGUN = OperationRecord(
    id=7, method="vm.stop", subject="web-1", uuid=RUNS.uuid, caller="api", began_s=1.7e9
)


class Machines(Tree):
    """The tree, with a VM component that takes orders."""

    def __init__(self, role: Role = Role.OPERATOR) -> None:
        super().__init__(role)
        self.is_stale = False
        self.figures: StatisticsReply | None = StatisticsReply(
            domains=(
                DomainStatistics(
                    name=RUNS.name, uuid=RUNS.uuid, state=RUNS.state, cpu_percent=12.5,
                    written_bytes_s=4096.0,
                ),
            )
        )  # fmt: skip
        self.record = BEGUN

    def peers(self) -> dict[str, Any]:
        """Handlers by process and method."""
        machines = {
            "vm.list": self.list,
            "vm.statistics": self.statistics,
            "vm.operation": self.operation,
            **{f"vm.{verb}": self.begin for verb in ("start", "stop", "reboot", "pause", "resume")},
        }
        return {**super().peers(), "core/vm": machines}

    async def list(self, _request: Request) -> Plain:
        """The machines."""
        return to_wire(DomainList(domains=(OFF, RUNS), is_stale=self.is_stale))

    async def statistics(self, request: Request) -> Plain:
        """Figures of the one that runs."""
        assert request.body == {"domain": RUNS.uuid, "age_max_s": 15.0}
        if self.figures is None:
            raise CallTimeoutError("core/vm did not answer")
        return to_wire(self.figures)

    async def begin(self, request: Request) -> Plain:
        """Takes an order."""
        await self.order(request)
        return to_wire(self.record)

    async def operation(self, request: Request) -> Plain:
        """What came of it."""
        self.orders.append((request.method, request.body))
        if self.order_error is not None:
            raise self.order_error
        return to_wire(self.record)


@pytest.mark.parametrize("ref", [RUNS.name, RUNS.uuid])
def test_a_machine_is_told_with_what_it_uses(ref: str) -> None:
    """By name and by UUID; figures that nobody knows are null."""

    async def scenario() -> None:
        async with running(Machines(Role.VIEWER)) as (client, _service, _context):
            body = (await client.get(f"/api/v1/vms/{ref}", headers=bearer())).json()
            assert (body["name"], body["state"], body["vcpus"]) == ("web-1", "running", 2)
            assert body["usage"]["cpu_percent"] == 12.5
            assert body["usage"]["disk_written_bytes_per_second"] == 4096.0
            assert body["usage"]["memory_used_bytes"] is None
            assert body["stale"] is False

    run(scenario)


@pytest.mark.parametrize("how", ["off", "stale list", "stale figures", "no answer"])
def test_what_nobody_knows_is_null(how: str) -> None:
    """A machine that is off uses nothing; a silent component keeps it from being told."""

    async def scenario() -> None:
        tree = Machines()
        name = "db" if how == "off" else "web-1"
        tree.is_stale = how == "stale list"
        if how == "stale figures":
            tree.figures = StatisticsReply(domains=(), is_stale=True, reason="hangs")
        elif how == "no answer":
            tree.figures = None
        async with running(tree) as (client, _service, _context):
            response = await client.get(f"/api/v1/vms/{name}", headers=bearer())
            assert response.status_code == 200
            assert response.json()["usage"] is None
            assert response.json()["stale"] is (how == "stale list")

    run(scenario)


@pytest.mark.parametrize("verb", ["start", "stop", "reboot", "pause", "resume"])
def test_an_order_is_recorded_first_and_answered_with_its_operation(verb: str) -> None:
    """The component gets the UUID, the answer says where to ask what came of it."""

    async def scenario() -> None:
        tree = Machines()
        async with running(tree) as (client, _service, _context):
            response = await client.post(f"/api/v1/vms/web-1/{verb}", headers=bearer())
            assert response.status_code == 202
            assert response.headers["location"] == "/api/v1/operations/7"
            body = response.json()
            assert (body["id"], body["state"], body["final"]) == (7, "waiting", False)
            assert body["began_at"] == "2023-11-14T22:13:20Z"
            assert body["ended_at"] is None
            assert tree.orders == [(f"vm.{verb}", {"domain": RUNS.uuid})]
            assert tree.recorded_before == 1
            requested, ended = tree.records
            assert (requested.action, requested.subject) == (f"api:vm-{verb}", "web-1")
            assert (requested.outcome.value, ended.outcome.value) == ("requested", "success")
            assert ended.fields["operation"] == 7
            assert requested.fields["by"] == "token/ci"

    run(scenario)


@pytest.mark.parametrize(
    ("error", "status_code", "code"),
    [
        (RemoteCallError("gone", remote_code="vm.domain_not_found"), 404, "api.unknown_vm"),
        (RemoteCallError("leased", remote_code="vm.fenced"), 409, "api.vm_refused"),
        (
            RemoteCallError("full", remote_code="vm.operations_full", remote_retryable=True),
            503,
            "api.component_unavailable",
        ),
        (
            RemoteCallError("?", remote_code="protocol.no_method"),
            503,
            "api.component_unavailable",
        ),
        (RemoteCallError("?", remote_code="novacron.error"), 502, "api.component_answer"),
        (CallTimeoutError("core/vm did not answer"), 503, "api.component_unavailable"),
    ],
)
def test_an_order_that_is_not_taken_says_why(error: Exception, status_code: int, code: str) -> None:
    """And the audit log has how it ended."""

    async def scenario() -> None:
        tree = Machines()
        tree.order_error = error
        async with running(tree) as (client, _service, _context):
            response = await client.post("/api/v1/vms/web-1/start", headers=bearer())
            assert assert_problem(response, status_code)["code"] == code
            assert [item.outcome.value for item in tree.records] == ["requested", "failure"]
            assert tree.records[1].fields["code"] == code

    run(scenario)


def test_who_may_only_look_orders_nothing() -> None:
    """Refused and recorded; what became of others' orders may be seen."""

    async def scenario() -> None:
        tree = Machines(Role.VIEWER)
        async with running(tree) as (client, _service, _context):
            response = await client.post("/api/v1/vms/web-1/stop", headers=bearer())
            assert assert_problem(response, 403)["code"] == "api.forbidden"
            assert tree.orders == []
            assert [item.outcome.value for item in tree.records] == ["denied"]
            found = await client.get("/api/v1/operations/7", headers=bearer())
            assert found.json()["id"] == 7

    run(scenario)


def test_without_the_audit_log_nothing_is_ordered() -> None:
    """As for components."""

    async def scenario() -> None:
        tree = Machines()
        tree.audit_error = CallTimeoutError("security did not answer")
        async with running(tree) as (client, _service, _context):
            response = await client.post("/api/v1/vms/web-1/stop", headers=bearer())
            assert assert_problem(response, 503)["code"] == "api.not_recorded"
            assert tree.orders == []

    run(scenario)


@pytest.mark.parametrize(
    ("method", "path", "status_code"),
    [
        ("GET", "vms/nobody", 404),
        ("POST", "vms/nobody/start", 404),
        ("POST", "vms/..%2fweb-1/start", 404),
        ("POST", "vms/web-1/destroy", 422),
        ("GET", "vms/" + "x" * 256, 422),
        ("POST", "vms/web-1", 405),
        ("GET", "operations/0", 422),
        ("GET", "operations/x", 422),
        ("GET", "operations/7?wait=21", 422),
        ("GET", "operations/7?wait=nan", 422),
    ],
)
def test_what_is_not_there_or_makes_no_sense_reaches_nobody(
    method: str, path: str, status_code: int
) -> None:
    """The component gets no order, the audit log no record."""

    async def scenario() -> None:
        tree = Machines()
        async with running(tree) as (client, _service, _context):
            response = await client.request(method, f"/api/v1/{path}", headers=bearer())
            assert_problem(response, status_code)
            assert (tree.orders, tree.records) == ([], [])

    run(scenario)


def test_an_operation_is_asked_for_and_waited_for() -> None:
    """With how it ended, and for how long the component may wait."""

    async def scenario() -> None:
        tree = Machines()
        tree.record = OperationRecord(
            id=7, method="vm.stop", subject="web-1", uuid=RUNS.uuid, began_s=1.7e9,
            ended_s=1.7e9 + 1, state=OperationState.FAILED, error_code="vm.operation_failed",
            error="web-1 runs on", progress=0.5,
        )  # fmt: skip
        async with running(tree) as (client, _service, _context):
            body = (await client.get("/api/v1/operations/7?wait=2.5", headers=bearer())).json()
            assert tree.orders == [("vm.operation", {"id": 7, "wait_s": 2.5})]
            assert (body["state"], body["final"], body["error"]) == (
                "failed",
                True,
                "web-1 runs on",
            )
            assert body["ended_at"] == "2023-11-14T22:13:21Z"
            assert math.isclose(body["progress"], 0.5)
            tree.order_error = RemoteCallError("none", remote_code="vm.no_operation")
            response = await client.get("/api/v1/operations/7", headers=bearer())
            assert assert_problem(response, 404)["code"] == "api.unknown_operation"

    run(scenario)
