"""What operators tell a supervisor to do with its children, and the answers.

An order is carried out when the child is as ordered; its caller waits for that, up to its own
deadline. Reads are answered at once, also while something slow is under way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from protocol import names
from protocol.dataclass import dataclass
from protocol.errors import NovacronError, RemoteProtocolError
from protocol.messages.control import EventReport
from protocol.messages.health import HealthState
from protocol.records import Plain, from_wire
from supervisor import specs
from supervisor.core import events, templates
from supervisor.core.child import Child, ChildState
from supervisor.core.errors import PoolError
from supervisor.core.reason import ExitReason
from supervisor.core.spec import ChildSpec, RestartStrategy, SpecError, SupervisorSpec
from supervisor.core.supervisor import UnknownChildError
from supervisor.runtime.caller import BusyError, Caller
from supervisor.runtime.explain import NoSuchChildError

if TYPE_CHECKING:
    from supervisor.runtime.loop import SupervisorLoop

# Orders that may be under way at once; operators are few.
PENDING_MAX = 64

_Simple = type[events.StartChild | events.StopChild | events.RestartChild]
_SIMPLE: dict[str, _Simple] = {
    "start": events.StartChild,
    "stop": events.StopChild,
    "restart": events.RestartChild,
}


class FixedTreeError(NovacronError):
    """This tree is what its specification says, and takes no further children by order."""

    code = "supervisor.fixed_tree"


class BadSpecError(NovacronError):
    """A child's specification can't be used."""

    code = "supervisor.bad_spec"


class StartFailedError(NovacronError):
    """A child that was added did not come up, and is no child any more."""

    code = "supervisor.start_failed"


@dataclass(slots=True)
class _Order:
    caller: Caller
    child_id: str
    incarnation: int  # an incarnation above this one is the result of the order
    deadline_s: float


class Orders:
    """The orders of one supervisor.

    Args:
        loop: the supervisor; its control channel takes the calls and answers them.
    """

    def __init__(self, loop: SupervisorLoop) -> None:
        self._loop = loop
        self._pending: list[_Order] = []
        self.calls = {
            **dict.fromkeys(_SIMPLE, self._take_simple),
            "add": self._take_add,
            "delete": self._take_delete,
            "children": self._take_children,
        }

    def due_s(self) -> float | None:
        """When ``turn`` is needed next."""
        return min((order.deadline_s for order in self._pending), default=None)

    def turn(self, now_s: float) -> None:
        """Answer what has been carried out, and forget whose caller has given up."""
        for order in list(self._pending):
            child = self._loop.machine.children.get(order.child_id)
            if child is not None and not _is_carried_out(order, child):
                if order.deadline_s <= now_s:
                    self._pending.remove(order)
                    order.caller.outcome("protocol.call_timeout")
                continue
            self._pending.remove(order)
            self._answer(order)

    def discarded(self, name: str, reason: ExitReason) -> None:
        """A child that was added did not come up."""
        for order in [order for order in self._pending if order.child_id == name]:
            self._pending.remove(order)
            self._loop.control.refuse(order.caller, StartFailedError.code, f"{name}: {reason}")

    # -- orders ---------------------------------------------------------------------------------

    def _take_simple(self, caller: Caller) -> None:
        name, verb = _child_id(caller), caller.message.name
        child = self._loop.machine.children.get(name)
        before = 0 if child is None else child.incarnation
        self._note(caller, name)
        self._step(_SIMPLE[verb](name))
        self._loop.records.history.ordered(name, verb, time.monotonic())
        is_fresh = verb == "restart" or (child is not None and not child.is_alive)
        self._await(caller, name, before if is_fresh else before - 1)

    def _take_add(self, caller: Caller) -> None:
        event: events.Event
        match caller.message.body:
            case {"template": str(template), "id": str(name), "settings": dict(settings)}:
                spec = templates.child_of(self._loop.machine.spec, template, name, settings)
                self._check_names(spec)
                event = events.AddChild(spec)
            case _ if not self._loop.tree.takes_children:
                raise FixedTreeError("this tree takes no children by order")
            case {"spec": wire}:
                spec = from_wire(ChildSpec, wire)
                self._check_names(spec)
                name, event = spec.id, events.AddChild(spec)
            case {"settings": dict(settings)}:
                machine = self._loop.machine
                if machine.spec.strategy is not RestartStrategy.SIMPLE_ONE_FOR_ONE:
                    raise PoolError("this supervisor is no pool: a child needs a specification")
                name, event = machine.next_instance_id, events.AddInstance(settings)
            case _:
                raise RemoteProtocolError(
                    'the body is {"spec": …}, {"template": …, "id": …, "settings": …}, or '
                    '{"settings": …} in a pool'
                )
        self._step(event)
        self._note(caller, name)
        self._await(caller, name, 0)

    def _check_names(self, spec: ChildSpec) -> None:
        try:
            family = SupervisorSpec(children=(spec,))
            specs.check_names(family, self._loop.run_dir, self._loop.path)
        except SpecError as exc:
            raise BadSpecError(str(exc)) from None

    def _take_delete(self, caller: Caller) -> None:
        name = _child_id(caller)
        child = self._loop.machine.children.get(name)
        # In a fixed tree what was added is of a template, which can be had again.
        if not (self._loop.tree.takes_children or (child is not None and child.is_added)):
            raise FixedTreeError("this tree loses no children by order")
        self._step(events.DeleteChild(name))
        self._note(caller, name)
        self._loop.control.reply(caller, {"id": name, "state": "stopped", "reason": "deleted"})

    def _take_children(self, caller: Caller) -> None:
        machine = self._loop.machine
        counts = machine.count_children()
        body: Plain = {
            "children": [
                {
                    "id": info.id,
                    "presence": info.presence.value,
                    "pid": info.pid,
                    "type": info.type.value,
                    "restart": info.restart.value,
                }
                for info in machine.which_children()
            ],
            "counts": {
                "specs": counts.specs,
                "active": counts.active,
                "supervisors": counts.supervisors,
                "workers": counts.workers,
            },
        }
        self._loop.control.reply(caller, body)

    # -- small ones -----------------------------------------------------------------------------

    def _step(self, event: events.Event) -> None:
        if len(self._pending) >= PENDING_MAX:
            raise BusyError("too many orders are under way; try again")
        try:
            self._loop.step(event)
        except UnknownChildError as exc:
            raise NoSuchChildError(f"{self._loop.path} has no child {exc.args[0]!r}") from None
        except SpecError as exc:
            raise BadSpecError(str(exc)) from None

    def _await(self, caller: Caller, name: str, incarnation: int) -> None:
        deadline_s = time.monotonic() + caller.message.timeout_ms / 1000
        self._pending.append(_Order(caller, name, incarnation, deadline_s))

    def _note(self, caller: Caller, name: str) -> None:
        self._loop.owner.happened(
            EventReport(
                name=f"operator:{caller.message.name}",
                component=names.child_path(self._loop.path, name),
                fields={"caller": caller.path, "id": name},
                correlation=caller.message.correlation,
            )
        )

    def _answer(self, order: _Order) -> None:
        path = names.child_path(self._loop.path, order.child_id)
        record = self._loop.records.by_path.get(path)
        state, reason = (
            (HealthState.STOPPED, "gone") if record is None else (record.state, record.reason)
        )
        body: Plain = {"id": order.child_id, "state": state.value, "reason": reason}
        self._loop.control.reply(order.caller, body)


def _child_id(caller: Caller) -> str:
    match caller.message.body:
        case {"id": str(name)}:
            return name
        case _:
            raise RemoteProtocolError('the body is {"id": name of a child}')


def _is_carried_out(order: _Order, child: Child) -> bool:
    if not child.wanted:
        return not child.is_alive
    if child.state is ChildState.DEGRADED:
        return True
    return child.state is ChildState.UP and child.incarnation > order.incarnation
