"""What the gateway orders of the VM component on behalf of who asks."""

from __future__ import annotations

import datetime as dt
import enum

from protocol.errors import (
    CallTimeoutError,
    NovacronError,
    PeerUnavailableError,
    RemoteCallError,
    RemoteProtocolError,
)
from protocol.records import Plain, from_wire
from services.api.errors import (
    ComponentAnswerError,
    ComponentUnavailableError,
    MachineRefusedError,
    UnknownMachineError,
    UnknownOperationError,
)
from services.api.identity import Identity
from services.api.operations import Operator
from services.api.schemas import VmOperation
from services.api.tree import VM
from services.security.model import Outcome
from services.vm.model import DomainRecord
from services.vm.operations.model import OperationRecord
from supervisor.child.service import ServiceContext

# The component looks the machine up, within its own deadline, before it answers.
ORDER_TIMEOUT_S = 20.0
# An operation may be waited for so long; clients and proxies give up at half a minute.
WAIT_MAX_S = 20.0
_UNKNOWN = "vm.domain_not_found"
_NO_OPERATION = "vm.no_operation"


class VmVerb(enum.Enum):
    """What can be ordered of a machine."""

    START = "start"
    STOP = "stop"
    REBOOT = "reboot"
    PAUSE = "pause"
    RESUME = "resume"


class Machines:
    """Gives orders, each recorded ahead, and tells what came of them.

    Args:
        context: to call with.
        operator: lets through who may order something, and records it.
    """

    def __init__(self, context: ServiceContext, operator: Operator) -> None:
        self._context = context
        self._operator = operator

    async def order(self, identity: Identity, verb: VmVerb, machine: DomainRecord) -> VmOperation:
        """Begin an operation on a machine; it goes on by itself.

        Raises:
            ForbiddenError, NotRecordedError: nothing was done; see ``Operator.admit``.
            UnknownMachineError: it has gone meanwhile.
            MachineRefusedError: the component does not begin with it.
            ComponentUnavailableError: the component does not answer; it may be done later.
        """
        action = f"api:vm-{verb.value}"
        await self._operator.admit(identity, action, machine.name)
        body: Plain = {"domain": machine.uuid}
        try:
            record = await self._ask(f"vm.{verb.value}", body, ORDER_TIMEOUT_S)
        except NovacronError as exc:
            await self._operator.record_end(
                identity, action, machine.name, Outcome.FAILURE, code=exc.code
            )
            raise
        await self._operator.record_end(
            identity, action, machine.name, Outcome.SUCCESS, operation=record.id
        )
        return _operation(record)

    async def operation(self, number: int, *, wait_s: float) -> VmOperation:
        """An operation, once it is over or ``wait_s`` has passed.

        Raises:
            UnknownOperationError: there is none of that number.
            ComponentUnavailableError: the component does not answer.
        """
        body: Plain = {"id": number, "wait_s": wait_s}
        return _operation(await self._ask("vm.operation", body, wait_s + ORDER_TIMEOUT_S))

    async def _ask(self, method: str, body: Plain, timeout_s: float) -> OperationRecord:
        try:
            answer = await self._context.call(VM, method, body, timeout_s=timeout_s)
            return from_wire(OperationRecord, answer)
        except (PeerUnavailableError, CallTimeoutError) as exc:
            raise ComponentUnavailableError(str(exc), component=VM) from exc
        except RemoteCallError as exc:
            raise _refusal(exc) from exc
        except RemoteProtocolError as exc:
            raise ComponentAnswerError(f"{VM} answered {method} otherwise: {exc}") from exc


def _refusal(error: RemoteCallError) -> NovacronError:
    match error.remote_code:
        case code if code == _UNKNOWN:
            return UnknownMachineError(str(error))
        case code if code == _NO_OPERATION:
            return UnknownOperationError(str(error))
        case code if error.remote_retryable or code in ("protocol.no_method", "overloaded"):
            return ComponentUnavailableError(str(error), component=VM)
        case code if code.startswith("vm."):
            return MachineRefusedError(str(error), remote_code=code)
        case code:
            return ComponentAnswerError(str(error), remote_code=code)


def _operation(record: OperationRecord) -> VmOperation:
    ended_s = record.ended_s
    return VmOperation(
        id=record.id,
        method=record.method,
        subject=record.subject,
        uuid=record.uuid,
        state=record.state,
        final=record.state.is_final,
        step=record.step,
        progress=record.progress,
        changed=record.changed,
        note=record.note,
        error_code=record.error_code,
        error=record.error,
        began_at=dt.datetime.fromtimestamp(record.began_s, tz=dt.UTC),
        ended_at=None if ended_s is None else dt.datetime.fromtimestamp(ended_s, tz=dt.UTC),
    )
