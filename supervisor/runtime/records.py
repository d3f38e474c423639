"""What each component below a supervisor is like, kept current and passed on to its owner."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from protocol import names
from protocol.dataclass import replace
from protocol.messages.control import ComponentRecord, EventReport
from protocol.messages.health import HealthState
from supervisor.core import events
from supervisor.core.supervisor import Mode
from supervisor.runtime.explain import History, View, view_now
from supervisor.runtime.processes import component_record

if TYPE_CHECKING:
    from supervisor.runtime.loop import SupervisorLoop


class Records:
    """The records of one supervisor's children and of everything below them.

    Args:
        loop: the supervisor.

    Attributes:
        by_path: the present records.
        history: how the children came to be what they are.
    """

    def __init__(self, loop: SupervisorLoop) -> None:
        self._loop = loop
        self.by_path: dict[str, ComponentRecord] = {}
        self.history = History()

    def view(self) -> View:
        """What an explanation is made of, at this moment."""
        return view_now(self._loop.path, self._loop.machine, self.by_path, self.history)

    def report(self, name: str) -> None:
        """Tell the owner what a child is like now."""
        loop = self._loop
        child = loop.machine.children.get(name)
        path = names.child_path(loop.path, name)
        if child is not None:
            record = component_record(loop.path, child, loop.processes.get(name))
            self.history.is_now(name, record.state, time.monotonic())
            self.take(record)
        elif path in self.by_path:
            self.history.forget(name)
            loop.commands.removed(name)
            loop.withdraw_keys(name)
            for known in [p for p in self.by_path if p == path or p.startswith(f"{path}/")]:
                self.take(replace(self.by_path[known], removed=True))

    def take(self, record: ComponentRecord) -> None:
        """Remember and pass on what a component below is like now."""
        if self.by_path.get(record.path) == record:
            return
        if record.removed:
            self.by_path.pop(record.path, None)
        else:
            self.by_path[record.path] = record
        self._loop.owner.changed(record)

    def ended(self, exited: events.Exited, started_s: float) -> None:
        """Pass on that a child's process has ended, and what that means for those below it.

        Args:
            exited: the end, as the state machine has taken it in.
            started_s: monotonic time at which the process was started.
        """
        name = exited.id
        path = names.child_path(self._loop.path, name)
        child = self._loop.machine.children.get(name)
        self._take_down(path, is_wanted=child is not None and child.wanted)
        final = exited.reason if child is None or child.last_exit is None else child.last_exit
        if child is not None:
            self.history.exited(
                name, exited.incarnation, final, started_s=started_s, now_s=time.monotonic()
            )
        self._loop.owner.happened(
            EventReport(
                name="component:exited",
                component=path,
                fields={
                    "kind": final.kind.value,
                    "reason": final.detail,
                    "code": final.code,
                    "restarts": 0 if child is None else child.restarts,
                },
            )
        )

    def _take_down(self, path: str, *, is_wanted: bool) -> None:
        """What was below a supervisor that has ended is down, and comes back with it."""
        is_coming_back = is_wanted and self._loop.machine.mode in (Mode.BOOTING, Mode.RUNNING)
        state = HealthState.STARTING if is_coming_back else HealthState.STOPPED
        reason = "waits for its supervisor" if is_coming_back else ""
        for known in [known for known in self.by_path if known.startswith(f"{path}/")]:
            self.take(
                replace(
                    self.by_path[known],
                    state=state,
                    reason=reason,
                    pid=None,
                    started_s=None,
                    up_s=None,
                    retry_at_s=None,
                )
            )
