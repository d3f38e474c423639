"""What a process does with the guard's verdicts: refuse, record, let through.

Every refusal is counted, and as many are logged and recorded as a person can read: a caller who
keeps trying fills neither a log nor the spool.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from protocol import names
from protocol.envelope import Envelope
from protocol.errors import NovacronError
from protocol.records import Plain
from supervisor.child import logs
from supervisor.guard.guard import Verdict

if TYPE_CHECKING:
    from supervisor.guard.background import Attach
    from supervisor.guard.recorder import Recorder
    from supervisor.guard.spool import Note

UNAVAILABLE = "supervisor.audit_unavailable"
# Refusals that are logged and recorded: this many at once, and then one a second.
_SAID_AT_ONCE = 20
_SAID_PERIOD_S = 1.0
# Keys of a call's body that say what it is about, none of them a secret's.
_TARGETS = ("id", "name", "transfer", "component", "subject")
_TARGET_LENGTH_MAX = 128

Refuse = Callable[[str, str], None]
Outcome = Callable[[str], None]


def unaudited(_code: str) -> None:
    """The outcome of a call that is not recorded."""


class Gate:
    """The privileged and the refused calls of one process.

    Args:
        path: of the process.
        spool_dir: of the tree; "" where nothing can be recorded.
        attach: see supervisor.guard.background.
        later: asks for a ``turn`` at a time; None where the owner asks ``due_s``.

    Attributes:
        denied: calls that were refused so far.
        malformed: messages that were no messages so far.
    """

    def __init__(
        self,
        path: str,
        spool_dir: str,
        attach: Attach,
        later: Callable[[float], object] | None = None,
    ) -> None:
        self.denied = 0
        self.malformed = 0
        self._path = path
        self._spool_dir = spool_dir
        self._attach = attach
        self._later = later
        self._recorder: Recorder | None = None
        self._said_s = time.monotonic() - _SAID_AT_ONCE * _SAID_PERIOD_S
        self._unsaid = 0
        self._log = logs.Logger()

    def refuse(self, verdict: Verdict, message: Envelope, refuse: Refuse) -> None:
        """Refuse a call that the guard does not allow.

        Args:
            verdict: of the guard.
            message: the call.
            refuse: takes the error's code and sentence.
        """
        self.denied += 1
        refuse(verdict.code, verdict.reason)
        if not self._may_say():
            return
        unsaid, self._unsaid = self._unsaid, 0
        self._log.warning(
            "call_refused",
            caller=verdict.caller,
            method=message.name,
            code=verdict.code,
            reason=verdict.reason,
            unsaid=unsaid,
        )
        if self._spool_dir:
            more: dict[str, Plain] = {"code": verdict.code, "reason": verdict.reason}
            if unsaid:
                more["unsaid"] = unsaid
            self._recording().note(self._note(verdict, message, "denied", more))

    def refuse_malformed(self, caller: str, reason: str) -> None:
        """Count, and perhaps log, a message that is none."""
        self.malformed += 1
        if self._may_say():
            unsaid, self._unsaid = self._unsaid, 0
            self._log.warning("message_refused", caller=caller, reason=reason, unsaid=unsaid)

    def note_dropped(self, method: str) -> None:
        """Perhaps log that a reply was dropped, since its caller does not listen."""
        if self._may_say():
            unsaid, self._unsaid = self._unsaid, 0
            self._log.warning("reply_dropped", method=method, unsaid=unsaid)

    def record(
        self,
        verdict: Verdict,
        message: Envelope,
        proceed: Callable[[Outcome], None],
        refuse: Refuse,
    ) -> None:
        """Record a privileged call, then let it take effect.

        Args:
            verdict: of the guard.
            message: the call.
            proceed: carries the call out, once it is recorded; it calls the Outcome that it gets
                with an error's code, or "" for success.
            refuse: as for ``refuse``, where it can't be recorded.
        """
        if not self._spool_dir:
            refuse(UNAVAILABLE, f"{message.name} has to be recorded, and this tree has no spool")
            return

        def recorded(error: NovacronError | None) -> None:
            if error is not None:
                self._log.error("call_not_recorded", method=message.name, reason=str(error))
                concluded(UNAVAILABLE)  # it may have reached the disk after all
                sentence = f"{message.name} was not carried out, as it can't be recorded: {error}"
                refuse(UNAVAILABLE, sentence)
                return
            proceed(concluded)

        def concluded(code: str) -> None:
            more: dict[str, Plain] = {"code": code} if code else {}
            outcome = "failure" if code else "success"
            self._recording().note(self._note(verdict, message, outcome, more))

        recorder = self._recording()
        recorder.record(self._note(verdict, message, "requested", {}), recorded)
        if self._later is not None and (due_s := recorder.due_s()) is not None:
            self._later(due_s)

    def due_s(self) -> float | None:
        """When ``turn`` is needed next."""
        return None if self._recorder is None else self._recorder.due_s()

    def turn(self, now_s: float) -> None:
        """Go on with what is recorded, refuse what could not be."""
        if self._recorder is not None:
            self._recorder.turn(now_s)

    def close(self) -> None:
        """Let the last outcomes reach the disk, for a moment."""
        if self._recorder is not None:
            self._recorder.close()

    def _recording(self) -> Recorder:
        if self._recorder is None:
            from supervisor.guard.recorder import Recorder  # most processes never record

            self._recorder = Recorder(Path(self._spool_dir), self._path, self._attach)
        return self._recorder

    def _note(
        self, verdict: Verdict, message: Envelope, outcome: str, more: dict[str, Plain]
    ) -> Note:
        from supervisor.guard.spool import Note

        target = _target(message.body)
        fields: dict[str, Plain] = {"process": self._path, "target": target, "rule": verdict.rule}
        fields["correlation"] = message.correlation
        kept = {key: value for key, value in (fields | more).items() if value != ""}
        return Note(
            time_us=time.time_ns() // 1000,
            actor=verdict.caller or "unknown",
            action=message.name,
            subject=self._subject(message, target),
            outcome=outcome,
            fields=kept,
        )

    def _subject(self, message: Envelope, target: str) -> str:
        """What a call is about: the child that a supervisor is told of, else the process."""
        is_order = isinstance(message.body, dict) and "id" in message.body
        if is_order and names.is_process_path(path := names.child_path(self._path, target)):
            return path
        return self._path

    def _may_say(self) -> bool:
        now_s = time.monotonic()
        self._said_s = max(self._said_s, now_s - _SAID_AT_ONCE * _SAID_PERIOD_S)
        if self._said_s + _SAID_PERIOD_S > now_s:
            self._unsaid += 1
            return False
        self._said_s += _SAID_PERIOD_S
        return True


def _target(body: Plain) -> str:
    if isinstance(body, dict):
        for key in _TARGETS:
            if isinstance(value := body.get(key), str):
                return value[:_TARGET_LENGTH_MAX]
    return ""
