"""Which journal records are lifecycle actions, and the audit events that they become.

    journal                                   action               actor      subject
    component:state, states that last         component:<state>    novacron   the component
    component:exited                          the same             novacron   the component
    operator:*                                the same             caller     fields.id
    init:*, node:*                            the same             novacron   the component
    key:*, of the security process            the same             caller     the key

``starting`` is no audit event: it says that something is under way, and the state that follows
says how it ended.
"""

from __future__ import annotations

from dataclasses import replace

from protocol.errors import NovacronError
from protocol.messages.journal import JournalRecord
from protocol.names import OPERATOR, ROOT
from protocol.records import Plain
from services.security.audit import TEXT_LENGTH_MAX, AuditEvent, make_event
from services.security.errors import AuditRefusedError
from services.security.model import Outcome

# Nouns of actions that only this process records, from what it sees itself.
RESERVED_NOUNS = frozenset({"component", "init", "node", "operator", "audit", "key"})
_SECURITY = "security"
_STATE_OUTCOMES = {
    "healthy": Outcome.SUCCESS,
    "stopped": Outcome.SUCCESS,
    "degraded": Outcome.FAILURE,
    "unhealthy": Outcome.FAILURE,
}
_ORDERLY_EXITS = frozenset({"normal", "shutdown"})


def event_of(boot_id: str, record: JournalRecord) -> AuditEvent | None:
    """The audit event of a journal record; None when it is no lifecycle action."""
    noun, _, verb = record.name.partition(":")
    fields = record.fields
    if noun == "component" and verb == "state":
        state = str(fields.get("state", ""))
        outcome = _STATE_OUTCOMES.get(state)
        if outcome is None:
            return None
        return _event(boot_id, record, f"component:{state}", outcome)
    if noun == "component" and verb == "exited":
        orderly = str(fields.get("reason", "")) in _ORDERLY_EXITS
        return _event(boot_id, record, record.name, _success_if(orderly))
    if noun == "operator":
        return _event(
            boot_id,
            record,
            record.name,
            _stated_outcome(fields),
            actor=str(fields.get("caller", OPERATOR)),
            subject=str(fields.get("id", record.component)),
        )
    if noun == "key" and record.component == _SECURITY:
        return _event(
            boot_id,
            record,
            record.name,
            _success_if(verb != "failed"),
            actor=str(fields.get("caller") or record.component),
            subject=str(fields.get("key_id") or fields.get("master_id") or record.component),
        )
    if noun in ("init", "node"):
        return _event(boot_id, record, record.name, _success_if(verb != "failed"))
    return None


def _event(
    boot_id: str,
    record: JournalRecord,
    action: str,
    outcome: Outcome,
    *,
    actor: str = ROOT,
    subject: str | None = None,
) -> AuditEvent:
    fields = dict(record.fields)
    if record.correlation:
        fields["correlation"] = record.correlation
    event = AuditEvent(
        time_us=round(record.time_s * 1_000_000),
        actor=actor[:TEXT_LENGTH_MAX],
        action=action,
        subject=(record.component if subject is None else subject)[:TEXT_LENGTH_MAX],
        outcome=outcome.value,
        fields=fields,
        boot_id=boot_id,
        journal_seq=record.seq,
    )
    try:
        return make_event(event)
    except AuditRefusedError as exc:
        # What happened is recorded even where its details can't be.
        return _without_details(event, exc)


def _without_details(event: AuditEvent, error: NovacronError) -> AuditEvent:
    bare = replace(event, boot_id=event.boot_id[:TEXT_LENGTH_MAX])
    bare = replace(bare, fields={"left_out": error.message})
    try:
        return make_event(bare)
    except AuditRefusedError:  # only the action is left, and of that the noun is known
        return make_event(replace(bare, action=f"{event.action.partition(':')[0]}:unnamed"))


def _success_if(condition: object) -> Outcome:
    return Outcome.SUCCESS if condition else Outcome.FAILURE


def _stated_outcome(fields: dict[str, Plain]) -> Outcome:
    try:
        return Outcome(fields.get("outcome", "success"))
    except ValueError:
        return Outcome.FAILURE
