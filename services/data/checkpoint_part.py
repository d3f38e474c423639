"""The part of ``data/database`` that keeps the components' checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from protocol.errors import NovacronError
from protocol.messages.metrics import MetricKind, MetricSample
from protocol.names import OPERATOR, ROOT
from protocol.records import Plain, from_wire, to_wire
from services.data import checkpoints
from services.data.checkpoint_records import Refusal, RestoreRequest, SaveRequest, check_owner
from services.data.errors import CheckpointDamagedError, CheckpointForeignError
from services.data.model import DatabaseSettings
from services.data.postgres import Database
from supervisor.child.service import CallHandler, Request, ServiceContext

# Who may reach every component's checkpoint.
_FREE_CALLERS = frozenset({OPERATOR, ROOT})


class CheckpointPart:
    """Saves and restores; a generation that can't be used is said loudly.

    Args:
        context: of the service.
        settings: of the service.
        database: connected or not.
    """

    def __init__(
        self, context: ServiceContext, settings: DatabaseSettings, database: Database
    ) -> None:
        self._context = context
        self._settings = settings
        self._database = database

    def calls(self) -> Mapping[str, CallHandler]:
        """See the head of database_service.py."""
        return {"checkpoint.save": self._save, "checkpoint.restore": self._restore}

    async def _save(self, request: Request) -> Plain:
        body = from_wire(SaveRequest, request.body)
        check_owner(body.component, request.caller, free=_FREE_CALLERS)
        async with self._database.session("checkpoint.save") as connection:
            reply = await checkpoints.save(
                connection,
                self._settings.node_id,
                body,
                bytes_max=self._settings.checkpoint_bytes_max,
            )
        return to_wire(reply)

    async def _restore(self, request: Request) -> Plain:
        body = from_wire(RestoreRequest, request.body)
        check_owner(body.component, request.caller, free=_FREE_CALLERS)
        try:
            async with self._database.session("checkpoint.restore") as connection:
                found = await checkpoints.restore(
                    connection, self._settings.node_id, body.component
                )
        except (CheckpointDamagedError, CheckpointForeignError) as exc:
            self._tell(body.component, _refused(exc), used=0)
            raise
        if found is not None and found.refused:
            self._tell(body.component, found.refused, used=found.generation)
        return to_wire(found)

    def _tell(self, component: str, refused: Sequence[Refusal], *, used: int) -> None:
        for refusal in refused:
            fields: dict[str, Plain] = {
                "checkpoint_of": component,
                "generation": refusal.generation,
                "code": refusal.code,
                "reason": refusal.reason,
                "used": used,
            }
            self._context.log.error("checkpoint_refused", **fields)
            self._context.emit("checkpoint:refused", **fields)
        self._context.measure(
            MetricSample(
                MetricKind.COUNTER, "novacron_database_checkpoints_refused_total", len(refused)
            )
        )


def _refused(error: NovacronError) -> tuple[Refusal, ...]:
    found = error.fields.get("refused", ())
    return found if isinstance(found, tuple) else ()
