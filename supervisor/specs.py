"""Children in one line each, for people who write a tree by hand.

Each function returns a ChildSpec (supervisor.core.spec) and sets what is usual for its kind. What
they refuse is refused before anything is started.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar, Unpack

from protocol import names
from protocol.dataclass import replace
from protocol.records import Plain
from supervisor.core.readiness import EXEC, Readiness, ReadinessError, parse
from supervisor.core.resources import Resources
from supervisor.core.spec import (
    AutoShutdown,
    Backoff,
    ChildSpec,
    ChildType,
    FailureClass,
    Liveness,
    RestartIntensity,
    RestartStrategy,
    RestartType,
    SpecError,
    SupervisorSpec,
)

if TYPE_CHECKING:
    from supervisor.child.service import BlockingService, Service

# The longest suffix that the tree gives to a name in its run directory, ".key.new".
_SUFFIX_BYTES = 8
_TAKEN = (names.ROOT, names.OPERATOR)
_COMMAND_START = "supervisor.child.command:prepare"

Restart = Literal["permanent", "transient", "temporary"]
Failure = Literal["critical", "recoverable", "degraded"]
Strategy = Literal["one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one"]
Shutdown = Literal["never", "any_significant", "all_significant"]
C = TypeVar("C", bound=enum.Enum)


class ChildOptions(TypedDict, total=False):
    """What every kind of child may be given; the meaning is that of ChildSpec."""

    restart: Restart | RestartType
    failure: Failure | FailureClass
    significant: bool
    shutdown_s: float | None
    start_timeout_s: float
    depends_on: Sequence[str] | None
    user: str
    cpus: Sequence[int]
    resources: Resources


class Flags(TypedDict, total=False):
    """What a supervisor may be given; the meaning is that of SupervisorSpec.

    ``intensity`` and ``period_s`` are those of RestartIntensity.
    """

    strategy: Strategy | RestartStrategy
    intensity: int
    period_s: float
    backoff: Backoff
    auto_shutdown: Shutdown | AutoShutdown
    start_concurrency: int


def command(
    id: str,  # noqa: A002 - OTP's word
    argv: Sequence[str],
    *,
    ready: str | Readiness = EXEC,
    environment: Mapping[str, str] | None = None,
    credentials: Mapping[str, str | bytes] | None = None,
    directory: str | os.PathLike[str] = "",
    umask: int = 0o022,
    stop_signal: str = "SIGTERM",
    **options: Unpack[ChildOptions],
) -> ChildSpec:
    """A program.

    Args:
        id: its name among its siblings.
        argv: program and arguments; one without a slash is looked for in /usr/bin and the like.
        ready: when it counts as up: ``exec`` (at once), ``notify`` (sd_notify READY=1),
            ``tcp:PORT``, ``unix:PATH`` or ``log:PATTERN``; see supervisor.core.readiness.
        environment: its variables beside PATH and LANG; nothing is inherited.
        credentials: secrets, each of which it finds as a file in CREDENTIALS_DIRECTORY.
        directory: where it works; ``/`` unless given.
        umask: for files that it makes.
        stop_signal: what asks it to stop.
        options: see ChildOptions.

    Raises:
        SpecError: something is not as it must be.
    """
    if isinstance(argv, str) or not argv:
        raise SpecError(id, "argv is a list: the program, then one text per argument")
    try:
        readiness = parse(ready) if isinstance(ready, str) else ready
    except ReadinessError as exc:
        raise SpecError(id, f"ready: {exc}") from exc
    program = os.path.abspath(argv[0]) if "/" in argv[0] else argv[0]  # noqa: PTH100 - keeps ".."
    settings: dict[str, Plain] = {
        "argv": [program, *argv[1:]],
        "environment": dict(environment or {}),
        "directory": str(Path(directory).absolute()) if os.fspath(directory) else "",
        "umask": umask,
    }
    if credentials:
        settings["credentials"] = dict(credentials)
    spec = ChildSpec(
        id=id,
        start=_COMMAND_START,
        type=ChildType.COMMAND,
        settings=settings,
        readiness=readiness,
        stop_signal=stop_signal,
    )
    return _with_options(spec, options)


def service(
    id: str,  # noqa: A002 - OTP's word
    start: str | type[Service],
    *,
    settings: Mapping[str, Plain] | None = None,
    liveness: Liveness | None = Liveness(),  # noqa: B008 - a frozen record
    preload: Sequence[str] = (),
    **options: Unpack[ChildOptions],
) -> ChildSpec:
    """A Python class on an asyncio loop.

    Args:
        id: its name among its siblings.
        start: a subclass of Service, or ``package.module:Name`` of one.
        settings: plain values, which it finds in ``context.settings``.
        liveness: how it is known that its loop turns; None to not look.
        preload: modules that are imported once for all processes of the tree; see ChildSpec.
        options: see ChildOptions.

    Raises:
        SpecError: something is not as it must be.
    """
    spec = ChildSpec(id=id, type=ChildType.SERVICE, liveness=liveness, preload=tuple(preload))
    return _python(spec, start, settings, options)


def loop(
    id: str,  # noqa: A002 - OTP's word
    start: str | type[BlockingService],
    *,
    settings: Mapping[str, Plain] | None = None,
    liveness: Liveness | None = Liveness(),  # noqa: B008 - a frozen record
    preload: Sequence[str] = (),
    **options: Unpack[ChildOptions],
) -> ChildSpec:
    """A Python class with a loop of its own, a BlockingService; the arguments are service's."""
    spec = ChildSpec(id=id, type=ChildType.LOOP, liveness=liveness, preload=tuple(preload))
    return _python(spec, start, settings, options)


def subtree(
    id: str,  # noqa: A002 - OTP's word
    children: Iterable[ChildSpec],
    *,
    restart: Restart | RestartType = RestartType.PERMANENT,
    failure: Failure | FailureClass = FailureClass.RECOVERABLE,
    significant: bool = False,
    shutdown_s: float | None = None,
    start_timeout_s: float = 60.0,
    depends_on: Sequence[str] | None = None,
    **flags: Unpack[Flags],
) -> ChildSpec:
    """A supervisor below another one, in a process of its own.

    Args:
        id: its name among its siblings.
        children: in start order.
        restart: when it is started again after it gave up.
        failure: what it means that it can't be kept up.
        significant: whether its end by itself may end the supervisor above.
        shutdown_s: as OTP has it for supervisors, its children decide how long a stop takes.
        start_timeout_s: within which all of them must be up.
        depends_on: see ChildSpec.
        flags: see Flags.

    Raises:
        SpecError: something is not as it must be.
    """
    return ChildSpec(
        id=id,
        type=ChildType.SUPERVISOR,
        restart=_choice(id, RestartType, restart),
        failure=_choice(id, FailureClass, failure),
        significant=significant,
        shutdown_s=shutdown_s,
        start_timeout_s=start_timeout_s,
        depends_on=None if depends_on is None else tuple(depends_on),
        children=specification(children, flags, where=id),
    )


def specification(
    children: Iterable[ChildSpec], flags: Flags, *, where: str = "supervisor"
) -> SupervisorSpec:
    """A supervisor's specification, with OTP's defaults for what is not given.

    Raises:
        SpecError: a flag has another name or kind.
    """
    limits, usual = RestartIntensity(), SupervisorSpec()
    return SupervisorSpec(
        strategy=_choice(where, RestartStrategy, flags.get("strategy", usual.strategy)),
        intensity=RestartIntensity(
            intensity=flags.get("intensity", limits.intensity),
            period_s=flags.get("period_s", limits.period_s),
        ),
        backoff=flags.get("backoff", usual.backoff),
        auto_shutdown=_choice(where, AutoShutdown, flags.get("auto_shutdown", usual.auto_shutdown)),
        start_concurrency=flags.get("start_concurrency", usual.start_concurrency),
        children=tuple(children),
    )


def check_names(spec: SupervisorSpec, run_dir: Path, above: str = names.ROOT) -> None:
    """See that every child has a name that its sockets and keys can have.

    Raises:
        SpecError: names the child.
    """
    for child in spec.children:
        path = names.child_path(above, child.id)
        if "/" in child.id or not names.is_process_path(child.id):
            raise SpecError(path, "an id has lower case letters, digits, '-' and '.', letter first")
        if path in _TAKEN:
            raise SpecError(path, "the tree itself uses this id")
        length = len(os.fsencode(names.socket_path(run_dir, path))) + _SUFFIX_BYTES
        if length > names.SUN_PATH_MAX:
            raise SpecError(path, f"its socket's path would be too long below {run_dir}")
        if child.children is not None:
            check_names(child.children, run_dir, path)


def _python(
    spec: ChildSpec, start: str | type, settings: Mapping[str, Plain] | None, options: ChildOptions
) -> ChildSpec:
    place = start if isinstance(start, str) else _place(spec.id, start)
    spec = replace(spec, start=place, settings=dict(settings or {}))
    return _with_options(spec, options)


def _with_options(spec: ChildSpec, options: ChildOptions) -> ChildSpec:
    depends_on = options.get("depends_on", spec.depends_on)
    return replace(
        spec,
        restart=_choice(spec.id, RestartType, options.get("restart", spec.restart)),
        failure=_choice(spec.id, FailureClass, options.get("failure", spec.failure)),
        significant=options.get("significant", spec.significant),
        shutdown_s=options.get("shutdown_s", spec.shutdown_s),
        start_timeout_s=options.get("start_timeout_s", spec.start_timeout_s),
        depends_on=None if depends_on is None else tuple(depends_on),
        user=options.get("user", spec.user),
        cpus=tuple(options.get("cpus", spec.cpus)),
        resources=options.get("resources", spec.resources),
    )


def _choice(where: str, kind: type[C], value: object) -> C:
    """A member of an enum, of which the value may be given."""
    try:
        return kind(value)
    except ValueError as exc:
        raise SpecError(where, str(exc)) from exc


def _place(name: str, start: type) -> str:
    """``package.module:Name`` of a class, by which a fresh process finds it."""
    module = start.__module__
    if module == "__main__":
        module = _main_module(name)
    if "<locals>" in start.__qualname__ or "." in start.__qualname__:
        raise SpecError(name, f"{start.__qualname__} is not at the top of its module")
    return f"{module}:{start.__name__}"


def _main_module(name: str) -> str:
    """The name under which the program itself can be imported."""
    main = sys.modules["__main__"]
    if (spec := getattr(main, "__spec__", None)) is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if file is None or not Path(file).stem.isidentifier():
        raise SpecError(name, "its class is in no file that can be imported; put it into a module")
    return Path(file).stem
