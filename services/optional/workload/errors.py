"""What can go wrong while sampling; none of it ends the component."""

from __future__ import annotations

from typing import ClassVar

from protocol.errors import NovacronError


class StoreUnavailableError(NovacronError):
    """The samples can't be stored at the moment; they are kept and tried again."""

    code: ClassVar[str] = "workload.store_unavailable"
    retryable: ClassVar[bool] = True
