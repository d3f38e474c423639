"""What a supervisor is told: its children, how they start and stop, and when to give up.

The words and defaults are OTP's (``supervisor`` reference, child specification); what operating
system processes need beyond that carries its reason beside it. Every record travels over the
wire (protocol.records) and is validated by ``validate`` before anything is started.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Container

from protocol.dataclass import dataclass, field
from protocol.records import Plain
from supervisor.core.readiness import NOTIFY, Readiness, ReadinessError, check
from supervisor.core.resources import NO_LIMITS, Resources, ResourcesError
from supervisor.core.resources import check as check_resources

# A full restart of one of our Python children takes some 10 ms; a level of 4096 is no level.
CHILDREN_MAX = 4096
# Stands for OTP's default, which depends on the type of the child; NaN is no valid number here.
SHUTDOWN_BY_TYPE_S = math.nan


class RestartType(enum.Enum):
    """When an ended child is started again."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class RestartStrategy(enum.Enum):
    """Which siblings share the fate of an ended child."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"  # a pool: children added by order, from a template


class AutoShutdown(enum.Enum):
    """Which ends of significant children end the supervisor, as in OTP."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


class FailureClass(enum.Enum):
    """What it means for the tree that a child can't be kept up.

    CRITICAL and RECOVERABLE escalate to the parent past the restart intensity; DEGRADED is listed
    with its reason and tried again with growing pauses, outside the supervisor's intensity.
    """

    CRITICAL = "critical"
    RECOVERABLE = "recoverable"
    DEGRADED = "degraded"


class ChildType(enum.Enum):
    """What kind of process a child is."""

    SERVICE = "service"  # a Python class, supervisor.child.service.Service, on an asyncio loop
    LOOP = "loop"  # a Python class, supervisor.child.service.BlockingService, a plain loop
    COMMAND = "command"  # a Python function that prepares and names a program to execute
    SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartIntensity:
    """At most ``intensity`` restarts inside any ``period_s``; the next one gives up."""

    intensity: int = 1
    period_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before the n-th restart in a row: nothing, then doubling up to a cap.

    OTP restarts at once; for processes that share a failed cause this is a storm.

    Attributes:
        initial_s: pause before the second restart in a row; the first one is immediate.
        factor: growth per further restart.
        max_s: the cap.
        jitter: share of the pause that is random, 0 to 1.
        reset_s: a child that was up this long starts counting anew.
        degraded_initial_s, degraded_max_s: the pauses of a degraded child, doubling.
    """

    initial_s: float = 0.1
    factor: float = 2.0
    max_s: float = 2.0
    jitter: float = 0.2
    reset_s: float = 30.0
    degraded_initial_s: float = 10.0
    degraded_max_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """How the supervisor knows that a Python child's own loop still turns.

    Attributes:
        period_s: how often the child must beat.
        missed_max: this many periods without a beat make it unresponsive.
    """

    period_s: float = 2.0
    missed_max: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """One child of a supervisor.

    Attributes:
        id: name among the siblings; in our tree also unique in the whole node.
        start: ``package.module:Name`` of the class or function; "" for a supervisor.
        type: what ``start`` names.
        settings: plain values handed to the child; may hold secrets, never logged.
        restart: as in OTP.
        significant: its end by itself may end the supervisor; see AutoShutdown.
        shutdown_s: seconds from the request to stop until SIGKILL; 0 is OTP's brutal_kill and
            None its infinity. Left out it is 5 s, and infinity for a supervisor, as in OTP.
        start_timeout_s: the child must be up within this time.
        readiness: what shows that a command is up; Python children say so themselves.
        depends_on: siblings that must be up (or degraded) first. None is OTP's order: all that
            precede it. Independent siblings start in parallel.
        failure: what it means that the child can't be kept up.
        phase: boot phase of the node that the child belongs to; 0 outside a node.
        level: name of the tree's level, for people.
        user: account to run as, where the supervisor is root; "" keeps the supervisor's.
        stop_signal: what asks a command to stop; Python children are asked over ZeroMQ.
        cpus: CPUs the process is pinned to, which the other children are kept off; empty for all
            that are left. See supervisor.core.placement.
        resources: scheduling, memory and other limits of the process.
        preload: modules that the launcher imports before it forks the child, so that a restart
            need not and all share their memory. They must start no thread when imported.
        liveness: of Python children; commands have no loop of ours, see Readiness.watchdog_s.
        children: the specification of a nested supervisor.
    """

    id: str
    start: str = ""
    type: ChildType = ChildType.SERVICE
    settings: dict[str, Plain] = field(default_factory=dict)
    restart: RestartType = RestartType.PERMANENT
    significant: bool = False
    shutdown_s: float | None = SHUTDOWN_BY_TYPE_S
    start_timeout_s: float = 30.0
    readiness: Readiness = NOTIFY
    depends_on: tuple[str, ...] | None = None
    failure: FailureClass = FailureClass.RECOVERABLE
    phase: int = 0
    level: str = ""
    user: str = ""
    stop_signal: str = "SIGTERM"
    cpus: tuple[int, ...] = ()
    resources: Resources = NO_LIMITS
    preload: tuple[str, ...] = ()
    liveness: Liveness | None = field(default_factory=Liveness)
    children: SupervisorSpec | None = None

    def __post_init__(self) -> None:
        if self.shutdown_s is not None and math.isnan(self.shutdown_s):
            by_type_s = None if self.type is ChildType.SUPERVISOR else 5.0
            object.__setattr__(self, "shutdown_s", by_type_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSpec:
    """A supervisor's flags and children, in start order.

    The one child of a pool (SIMPLE_ONE_FOR_ONE) is a template: nothing is started at first, and
    each order adds a child named ``<id of the template>.<number>``.

    Attributes:
        templates: of children that may be added by order also where the tree is fixed, named
            ``<id of the template>-<anything>``; see supervisor.core.templates. Not of a pool.
    """

    strategy: RestartStrategy = RestartStrategy.ONE_FOR_ONE
    intensity: RestartIntensity = field(default_factory=RestartIntensity)
    backoff: Backoff = field(default_factory=Backoff)
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    start_concurrency: int = 4
    children: tuple[ChildSpec, ...] = ()
    templates: tuple[ChildSpec, ...] = ()


class SpecError(ValueError):
    """A specification that can't be run; nothing was started."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem


def validate(spec: SupervisorSpec, where: str = "supervisor") -> None:
    """Check a specification and all that it nests.

    Raises:
        SpecError: names the place and the rule that it breaks.
    """
    _validate_intensity(spec, where)
    if spec.start_concurrency < 1:
        raise SpecError(where, f"start_concurrency is {spec.start_concurrency}; at least 1")
    if len(spec.children) > CHILDREN_MAX:
        raise SpecError(where, f"{len(spec.children)} children; at most {CHILDREN_MAX}")
    _validate_pool(spec, where)
    seen: set[str] = set()
    for child in spec.children:
        if child.id in seen:
            raise SpecError(f"{where}/{child.id}", "the id is used twice")
        validate_child(child, spec, where, preceding=seen)
        seen.add(child.id)
    for template in spec.templates:
        _validate_template(template, spec, where, seen)


def validate_child(
    child: ChildSpec, spec: SupervisorSpec, where: str = "supervisor", *, preceding: Container[str]
) -> None:
    """Check one child of a supervisor and all that it nests.

    Args:
        child: the child.
        spec: the supervisor's specification.
        where: the supervisor's place, for the error.
        preceding: ids of the siblings before it.

    Raises:
        SpecError: names the place and the rule that it breaks.
    """
    place = f"{where}/{child.id}"
    _validate_child(child, place, preceding)
    if child.significant and child.restart is RestartType.PERMANENT:
        raise SpecError(place, "significant, but a permanent child never ends for good")
    if child.significant and spec.auto_shutdown is AutoShutdown.NEVER:
        raise SpecError(place, "significant, but the supervisor's auto_shutdown is never")
    if child.children is not None:
        validate(child.children, place)


def _validate_pool(spec: SupervisorSpec, where: str) -> None:
    if spec.strategy is not RestartStrategy.SIMPLE_ONE_FOR_ONE:
        return
    if len(spec.children) != 1:
        raise SpecError(where, f"a pool has one template, not {len(spec.children)}")
    if spec.auto_shutdown is not AutoShutdown.NEVER:
        raise SpecError(where, "auto_shutdown is not for pools")


def _validate_template(
    template: ChildSpec, spec: SupervisorSpec, where: str, children: set[str]
) -> None:
    place = f"{where}/{template.id}"
    if spec.strategy is RestartStrategy.SIMPLE_ONE_FOR_ONE:
        raise SpecError(place, "a pool has one template, its child")
    if [item.id for item in spec.templates].count(template.id) > 1:
        raise SpecError(place, "the id is used twice")
    if taken := next((name for name in children if name.startswith(f"{template.id}-")), None):
        raise SpecError(place, f"the child {taken} is called like one of this template")
    validate_child(template, spec, where, preceding=children)


def _validate_intensity(spec: SupervisorSpec, where: str) -> None:
    intensity, backoff = spec.intensity, spec.backoff
    if type(intensity.intensity) is not int:  # a float would trip one restart late
        raise SpecError(where, f"intensity is {intensity.intensity!r}; a whole number")
    if intensity.intensity < 0:
        raise SpecError(where, f"intensity is {intensity.intensity}; at least 0")
    if not intensity.period_s > 0:
        raise SpecError(where, f"period_s is {intensity.period_s}; more than 0")
    if not 0 <= backoff.jitter <= 1:
        raise SpecError(where, f"jitter is {backoff.jitter}; 0 to 1")
    if backoff.initial_s < 0 or backoff.factor < 1 or backoff.max_s < backoff.initial_s:
        raise SpecError(where, "backoff needs 0 <= initial_s <= max_s and factor >= 1")
    if backoff.max_s > 0:
        # With pauses of max_s at most this many restarts fit into the inclusive window.
        fit = math.floor(intensity.period_s / backoff.max_s) + 1
        if intensity.intensity >= fit:
            raise SpecError(
                where,
                f"intensity {intensity.intensity} in {intensity.period_s} s can't be exceeded "
                f"with pauses of {backoff.max_s} s: only {fit} restarts fit",
            )


def _validate_child(child: ChildSpec, place: str, preceding: Container[str]) -> None:
    if not child.id:
        raise SpecError(place, "the id is empty")
    is_supervisor = child.type is ChildType.SUPERVISOR
    if is_supervisor != (child.children is not None):
        raise SpecError(place, "children belong to a supervisor, and a supervisor has them")
    if is_supervisor == bool(child.start):
        raise SpecError(place, "start names a class or function, except for a supervisor")
    if child.shutdown_s is not None and child.shutdown_s < 0:
        raise SpecError(place, f"shutdown_s is {child.shutdown_s}; at least 0, or None")
    if not child.start_timeout_s > 0:
        raise SpecError(place, f"start_timeout_s is {child.start_timeout_s}; more than 0")
    if child.liveness is not None and not (
        child.liveness.period_s > 0 and child.liveness.missed_max >= 1
    ):
        raise SpecError(place, "liveness needs period_s > 0 and missed_max >= 1")
    _validate_readiness(child, place)
    if min(child.cpus, default=0) < 0:
        raise SpecError(place, f"cpus are {child.cpus}; numbers from 0")
    try:
        check_resources(child.resources)
    except ResourcesError as exc:
        raise SpecError(place, f"resources: {exc}") from exc
    for name in child.depends_on or ():
        if name not in preceding:
            raise SpecError(place, f"depends on {name!r}, which no sibling before it is called")


def _validate_readiness(child: ChildSpec, place: str) -> None:
    if child.readiness != NOTIFY and child.type is not ChildType.COMMAND:
        raise SpecError(place, "readiness is for commands; Python children say that they are up")
    try:
        check(child.readiness)
    except ReadinessError as exc:
        raise SpecError(place, f"readiness: {exc}") from exc
