"""What the gateway answers instead of what was asked for."""

from __future__ import annotations

from typing import ClassVar

from protocol.errors import NovacronError


class ComponentUnavailableError(NovacronError):
    """The component that has the data is down or too slow at the moment; ask again later."""

    code: ClassVar[str] = "api.component_unavailable"
    retryable: ClassVar[bool] = True


class ComponentAnswerError(NovacronError):
    """The component answered with something that is not what the gateway knows."""

    code: ClassVar[str] = "api.component_answer"
    expected: ClassVar[bool] = False
