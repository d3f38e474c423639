"""The endpoints of version 1.

They are declared when this module is imported, which takes FastAPI some 15 ms: the launcher does
that once, ahead, and every process of the gateway shares it. What differs between processes is the
tree that they ask, in the application's state.
"""

from __future__ import annotations

import sys
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response

from protocol.messages.health import HealthState
from services.api.gate import identity_of
from services.api.machines import WAIT_MAX_S, Machines, VmVerb
from services.api.operations import Operator, Verb
from services.api.schemas import (
    Caller,
    ComponentList,
    NodeList,
    Operation,
    Problem,
    VmDetails,
    VmList,
    VmOperation,
)
from services.api.tree import Tree, component_of, node_of, usage_of, vm_of
from services.vm.model import DomainState

PREFIX = "/api/v1"
# The largest answer stays around a megabyte.
LIMIT_MAX = 1000

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Most items in one answer.")]
MachineName = Annotated[str, Path(max_length=255, description="Name or UUID of a machine.")]
Offset = Annotated[int, Query(ge=0, le=1_000_000, description="Items to leave out first.")]


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:  # Any: an OpenAPI fragment
    """The errors that an endpoint may answer besides those of all, for its documentation."""
    codes = tuple(sorted({*codes, 401, 429, 500, 503}))
    return {code: {"model": Problem, "description": HTTPStatus(code).phrase} for code in codes}


def serve_tree(app: FastAPI, tree: Tree, operator: Operator, machines: Machines) -> None:
    """Give an application the endpoints, answered from a tree and carried out by the others."""
    app.state.tree = tree
    app.state.operator = operator
    app.state.machines = machines
    app.include_router(ROUTER)


def tree_of(request: Request) -> Tree:
    """The tree that answers a request."""
    tree = request.app.state.tree
    assert isinstance(tree, Tree)
    return tree


def machines_of(request: Request) -> Machines:
    """What gives orders to machines."""
    machines = request.app.state.machines
    assert isinstance(machines, Machines)
    return machines


# FastAPI asks of every type whether it is a model of pydantic's first version. Nothing here is,
# and loading that version to be told so takes longer than all the rest.
sys.modules.setdefault("pydantic.v1", None)  # type: ignore[arg-type]  # means: can't be imported
ROUTER = APIRouter(prefix=PREFIX)


@ROUTER.get("/nodes", operation_id="listNodes", tags=["nodes"], responses=problems())
async def list_nodes(request: Request) -> NodeList:
    """The nodes that this one knows, each with its state and the phase that it is in."""
    node = node_of(await tree_of(request).status())
    return NodeList(items=[node], total=1)


@ROUTER.get(
    "/components",
    operation_id="listComponents",
    tags=["components"],
    responses=problems(422),
)
async def list_components(
    request: Request,
    state: Annotated[HealthState | None, Query(description="Only this state.")] = None,
    level: Annotated[str | None, Query(max_length=64, description="Only this level.")] = None,
    limit: Limit = LIMIT_MAX,
    offset: Offset = 0,
) -> ComponentList:
    """The processes of the tree: what each can do, and why not more."""
    status = await tree_of(request).status(with_memory=True)
    found = [
        item
        for item in status.components
        if (state is None or item.state is state) and (level is None or item.level == level)
    ]
    node_id = status.platform.node_id
    shown = [component_of(item, node_id) for item in found[offset : offset + limit]]
    return ComponentList(items=shown, total=len(found))


@ROUTER.get(
    "/vms",
    operation_id="listVms",
    tags=["vms"],
    responses=problems(422, 502),
)
async def list_vms(
    request: Request,
    state: Annotated[DomainState | None, Query(description="Only this state.")] = None,
    limit: Limit = LIMIT_MAX,
    offset: Offset = 0,
) -> VmList:
    """The virtual machines of this node; 503 while the component that knows them is down."""
    tree = tree_of(request)
    status = await tree.status()
    known = await tree.domains()
    node_id = status.platform.node_id
    found = [item for item in known.domains if state is None or item.state is state]
    return VmList(
        items=[vm_of(item, node_id) for item in found[offset : offset + limit]],
        total=len(found) + (known.omitted if state is None else 0),
        stale=known.is_stale,
    )


@ROUTER.get(
    "/vms/{name}",
    operation_id="getVm",
    tags=["vms"],
    responses=problems(404, 422, 502),
)
async def get_vm(request: Request, name: MachineName) -> VmDetails:
    """A virtual machine by name or UUID, with what it uses."""
    tree = tree_of(request)
    item, is_stale = await tree.domain(name)
    node_id = (await tree.status()).platform.node_id
    usage = await tree.usage(item.uuid) if item.state.is_active and not is_stale else None
    return VmDetails(
        **vm_of(item, node_id).model_dump(),
        usage=None if usage is None else usage_of(usage),
        stale=is_stale,
    )


@ROUTER.post(
    "/vms/{name}/{verb}",
    operation_id="orderVm",
    tags=["vms"],
    status_code=202,
    responses=problems(403, 404, 409, 422, 502),
)
async def order_vm(
    request: Request,
    response: Response,
    name: MachineName,
    verb: Annotated[VmVerb, Path(description="What is to be done.")],
) -> VmOperation:
    """Order something of a machine; the operation that follows goes on by itself.

    Takes the role operator. The audit log has it before anything happens; where the log takes
    nothing, nothing happens.
    """
    item, _ = await tree_of(request).domain(name)
    operation = await machines_of(request).order(identity_of(request), verb, item)
    response.headers["Location"] = f"{PREFIX}/operations/{operation.id}"
    return operation


@ROUTER.get(
    "/operations/{number}",
    operation_id="getOperation",
    tags=["vms"],
    responses=problems(404, 422, 502),
)
async def get_operation(
    request: Request,
    number: Annotated[int, Path(ge=1, le=2**53, description="Of the operation.")],
    wait: Annotated[
        float, Query(ge=0, le=WAIT_MAX_S, description="Seconds to wait for its end.")
    ] = 0.0,
) -> VmOperation:
    """An order to a machine or image, and what came of it."""
    return await machines_of(request).operation(number, wait_s=wait)


@ROUTER.get("/caller", operation_id="getCaller", tags=["access"], responses=problems())
async def get_caller(request: Request) -> Caller:
    """Who you are to this node, and what you may do."""
    identity = identity_of(request)
    return Caller(name=identity.name, role=identity.role, means=identity.means)


@ROUTER.post(
    "/components/{path:path}/{verb}",
    operation_id="operateComponent",
    tags=["components"],
    responses=problems(403, 404, 422, 502),
)
async def operate_component(
    request: Request,
    path: Annotated[str, Path(max_length=128, description="Of a component, such as core/vm.")],
    verb: Annotated[Verb, Path(description="What its supervisor is to do.")],
) -> Operation:
    """Start, stop or restart a component; answers when that is done. Takes the role operator.

    The audit log has it before anything happens; where the log takes nothing, nothing happens.
    """
    await tree_of(request).require_component(path)
    operator = request.app.state.operator
    assert isinstance(operator, Operator)
    return await operator.carry_out(identity_of(request), verb, path)
