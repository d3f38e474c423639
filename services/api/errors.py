"""What the gateway answers instead of what was asked for."""

from __future__ import annotations

from typing import ClassVar

from protocol.errors import NovacronError
from supervisor.child.service import CriticalError


class ComponentUnavailableError(NovacronError):
    """The component that has the data is down or too slow at the moment; ask again later."""

    code: ClassVar[str] = "api.component_unavailable"
    retryable: ClassVar[bool] = True


class ComponentAnswerError(NovacronError):
    """The component answered with something that is not what the gateway knows."""

    code: ClassVar[str] = "api.component_answer"
    expected: ClassVar[bool] = False


class IdentityRefusedError(NovacronError):
    """What a request shows lets nobody in."""

    code: ClassVar[str] = "api.identity_refused"


class IdentityUnavailableError(NovacronError):
    """Who asks can't be found out at the moment; ask again later."""

    code: ClassVar[str] = "api.identity_unavailable"
    retryable: ClassVar[bool] = True


class ForbiddenError(NovacronError):
    """Who asks is known and may not do this."""

    code: ClassVar[str] = "api.forbidden"


class UnknownComponentError(NovacronError):
    """The node has no such component."""

    code: ClassVar[str] = "api.unknown_component"


class UnknownMachineError(NovacronError):
    """The node has no such virtual machine."""

    code: ClassVar[str] = "api.unknown_vm"


class UnknownOperationError(NovacronError):
    """There is no such operation, or no longer."""

    code: ClassVar[str] = "api.unknown_operation"


class MachineRefusedError(NovacronError):
    """The VM component does not begin with that; the message says why."""

    code: ClassVar[str] = "api.vm_refused"


class NotRecordedError(NovacronError):
    """The audit log does not take the record, so that nothing was done."""

    code: ClassVar[str] = "api.not_recorded"
    retryable: ClassVar[bool] = True


class TlsFilesError(CriticalError):
    """The API's certificate, key or authority can't be used."""

    code: ClassVar[str] = "api.tls_files"
