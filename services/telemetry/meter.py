"""What the journal says, as metric samples; decided without I/O.

component:state    starting, then healthy or degraded   how long the component took to come up
                   degraded                             one error of class degraded
component:exited   in an abnormal way                   one error of the component's class
init:failed                                             one critical error
"""

from __future__ import annotations

from protocol.messages.journal import JournalRecord
from protocol.messages.metrics import MetricKind, MetricSample

ERRORS = "novacron_errors_total"
INIT_SECONDS = "novacron_init_duration_seconds"
COMPONENT_INIT_SECONDS = "novacron_component_init_seconds"

# Ends that are no error: supervisor.core.reason, ExitReason.is_abnormal.
_NORMAL_ENDS = ("normal", "shutdown", "declined")


class JournalMeter:
    """Turns records into samples, remembering per component since when it starts and its state."""

    def __init__(self) -> None:
        self._starting_s: dict[str, float] = {}
        self._state: dict[str, str] = {}
        self._failure: dict[str, str] = {}

    def take(self, record: JournalRecord) -> tuple[MetricSample, ...]:
        """The samples that one record is worth."""
        match record.name:
            case "component:state":
                return self._state_changed(record)
            case "component:exited":
                return self._exited(record)
            case "init:failed":
                return (_error(record.component, "critical"),)
            case _:
                return ()

    def forget(self) -> None:
        """Start anew: another boot's journal follows."""
        self._starting_s.clear()
        self._state.clear()
        self._failure.clear()

    def _state_changed(self, record: JournalRecord) -> tuple[MetricSample, ...]:
        component, state = record.component, str(record.fields.get("state", ""))
        before, self._state[component] = self._state.get(component), state
        if failure := record.fields.get("failure"):
            self._failure[component] = str(failure)
        samples: list[MetricSample] = []
        if state == "starting":
            self._starting_s.setdefault(component, record.time_s)
        elif (since_s := self._starting_s.pop(component, None)) is not None and state in (
            "healthy",
            "degraded",
        ):
            took_s = max(record.time_s - since_s, 0.0)
            samples.append(
                MetricSample(
                    MetricKind.HISTOGRAM, COMPONENT_INIT_SECONDS, took_s, {"component": component}
                )
            )
        if state == "degraded" and before != "degraded":
            samples.append(_error(component, "degraded"))
        return tuple(samples)

    def _exited(self, record: JournalRecord) -> tuple[MetricSample, ...]:
        self._starting_s.pop(record.component, None)
        reason = str(record.fields.get("reason", ""))
        if reason.partition(":")[0] in _NORMAL_ENDS:
            return ()
        return (_error(record.component, self._failure.get(record.component, "recoverable")),)


def _error(component: str, error_class: str) -> MetricSample:
    labels = {"class": error_class, "component": component}
    return MetricSample(MetricKind.COUNTER, ERRORS, 1.0, labels)
