"""A supervisor of one's own, in the foreground, for programs that are no node.

``run`` makes the calling process the root of a tree: it forks the launcher, keeps the children as
they are specified, answers operators (supervisor.client), and returns once the tree has ended.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from protocol import names
from protocol.dataclass import dataclass
from protocol.errors import NovacronError
from supervisor import specs
from supervisor.core.spec import ChildSpec, ChildType, SpecError, SupervisorSpec, validate
from supervisor.place import Place, make
from supervisor.specs import Flags

if TYPE_CHECKING:
    from supervisor.runtime.launcher_client import LauncherClient
    from supervisor.runtime.root import Reloaded, RootSettings

_TITLE = "supervisor"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Beyond what its children may take, and for what follows a SIGKILL.
_SHUTDOWN_MARGIN_S = 5.0
_STDERR = 2
_RUNTIMES = {
    ChildType.SERVICE: "supervisor.child.asyncio_runtime",
    ChildType.LOOP: "supervisor.child.blocking_runtime",
    ChildType.SUPERVISOR: "supervisor.runtime.nested",
}

Children = Iterable[ChildSpec]


class ReloadError(NovacronError):
    """The function that reads the tree again failed, or what it returned can't be used."""

    code = "supervisor.reload"


def run(
    children: Children,
    *,
    state_dir: str | os.PathLike[str] | None = None,
    log_dir: str | os.PathLike[str] | None = None,
    log_level: str = "info",
    reload: Callable[[], Children] | None = None,
    name: str = _TITLE,
    exempt: Sequence[str] = (),
    **flags: Unpack[Flags],
) -> int:
    """Supervise children until SIGTERM or SIGINT, or until one can't be kept up.

    The main thread of a program calls it, once. All processes that the program has started before
    count as the tree's and are collected when they end; signals are the tree's, too.

    Args:
        children: in start order; they stop in reverse order. Iterated once.
        state_dir: holds ``run``, where operators reach the tree, and the lock that keeps a second
            supervisor out; made where it does not exist. None for a directory of its own that is
            gone afterwards.
        log_dir: for a file per process; None logs to the standard error stream alone.
        log_level: debug, info, warning or error.
        reload: returns the children anew, for SIGHUP; must not take long. None stops at SIGHUP.
        name: prefix of the process titles.
        exempt: programs that outlive the tree wherever in it they were started: shell patterns
            of absolute paths, such as ``/usr/bin/qemu-system-*``.
        flags: see supervisor.specs.Flags.

    Returns:
        The program's exit code: 0 stopped as asked; 4 a child could not be started, or said that
        a restart would not help; 5 more restarts than the intensity allows; 6 a critical child
        was unhealthy at the first look.

    Raises:
        SpecError: the tree can't be run; nothing was started.
        AlreadyRunningError: another supervisor runs on ``state_dir``.
        OSError: a directory can't be made or written.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("signals arrive in the main thread, and so run must be called there")
    spec = specs.specification(children, flags)
    validate(spec)
    with Place(state_dir) as place, _caller_kept():
        specs.check_names(spec, place.run_dir)
        reloader = None if reload is None else _Reloader(reload, flags, spec, place.run_dir)
        logs_in = "" if log_dir is None else str(make(Path(log_dir).absolute(), 0o750))
        return _run(spec, place, reloader, _Logs(logs_in, log_level), name, tuple(exempt))


@dataclass(frozen=True, slots=True)
class _Logs:
    directory: str
    level: str


def _run(
    spec: SupervisorSpec,
    place: Place,
    reloader: _Reloader | None,
    log: _Logs,
    name: str,
    exempt: tuple[str, ...],
) -> int:
    # Here, since a program that only describes a tree needs none of it.
    from supervisor.runtime.notify import ServiceManager

    started_s = time.monotonic()
    manager = ServiceManager(os.environ)  # before any fork, so that nobody else speaks to it
    launcher = _start_launcher(name, spec, exempt)
    try:
        launcher.hold(place.lock)
        # While the launcher imports what it needs.
        from supervisor.child import logs
        from supervisor.runtime.launch import TreeSettings
        from supervisor.runtime.root import run_root

        tree = TreeSettings(
            run_dir=str(place.run_dir),
            log_dir=log.directory,
            log_level=log.level,
            title=name,
            takes_children=True,
        )
        logs.configure(names.ROOT, log_dir=log.directory, level=log.level)
        settings = _root_settings(name, place, started_s, _shutdown_s(spec) + _SHUTDOWN_MARGIN_S)
        return run_root(spec, settings, tree, reloader=reloader, manager=manager, launcher=launcher)
    finally:
        launcher.end()


def _root_settings(
    name: str, place: Place, started_s: float, shutdown_timeout_s: float
) -> RootSettings:
    from supervisor.runtime.root import RootSettings

    return RootSettings(
        name=name,
        version="",
        node_id="",
        environment="",
        roles=(),
        state_dir=str(place.path),
        started_s=started_s,
        phase_ends_s=(started_s, started_s),
        shutdown_timeout_s=shutdown_timeout_s,
        addresses={"state_dir": str(place.path)},
        is_node=False,
    )


def _start_launcher(name: str, spec: SupervisorSpec, exempt: tuple[str, ...]) -> LauncherClient:
    from supervisor.runtime.launcher_client import LauncherClient

    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - a thread's locks would be copied
        launcher = LauncherClient.execute(name, exempt)
        launcher.preload(_runtimes(spec))
        return launcher
    return LauncherClient.fork(name, _runtimes(spec), exempt)


def _runtimes(spec: SupervisorSpec) -> list[str]:
    """What the launcher has to import for the kinds of children that there are."""
    found: dict[str, None] = {}
    for child in spec.children:
        if child.type in _RUNTIMES:
            found[_RUNTIMES[child.type]] = None
        if child.children is not None:
            found.update(dict.fromkeys(_runtimes(child.children)))
    return list(found)


def _shutdown_s(spec: SupervisorSpec) -> float:
    """How long the children may take to stop, one after another."""
    total_s = 0.0
    for child in spec.children:
        if child.children is not None and child.shutdown_s is None:
            total_s += _shutdown_s(child.children)
        else:
            total_s += math.inf if child.shutdown_s is None else child.shutdown_s
    return total_s


@contextlib.contextmanager
def _caller_kept() -> Iterator[None]:
    """Give the program its signals, its standard error stream and its collector back."""
    handlers = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGCHLD)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until the root has its handlers
    collects = gc.isenabled()
    gc.disable()  # importing makes much that stays, and the root collects nothing either
    stderr = os.dup(_STDERR)
    sys.stderr.flush()
    _never_block(_STDERR)
    try:
        yield
    finally:
        if (wakeup := signal.set_wakeup_fd(-1)) >= 0:
            os.close(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.dup2(stderr, _STDERR)
        os.close(stderr)
        gc.unfreeze()
        if collects:
            gc.enable()


def _never_block(descriptor: int) -> None:
    """See that writing to it does not wait, whoever is at its other end, as logs require.

    A flag belongs to the open file, which a terminal shares with the shell; so it is opened anew.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):  # of systemd's journal, and this service's alone
        os.set_blocking(descriptor, False)
    elif stat.S_ISFIFO(mode) or os.isatty(descriptor):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_APPEND
        with contextlib.suppress(OSError):  # another account's: as it is
            own = os.open(f"/proc/self/fd/{descriptor}", flags)
            os.dup2(own, descriptor)
            os.close(own)


class _Reloader:
    """Has a function of the program return the children again; see ConfigurationReader."""

    def __init__(
        self, read: Callable[[], Children], flags: Flags, spec: SupervisorSpec, run_dir: Path
    ) -> None:
        self._read = read
        self._flags = flags
        self._spec = spec
        self._run_dir = run_dir
        self._descriptor: int | None = None

    def start(self) -> int | None:
        """Nothing has to be waited for: a descriptor that is readable at once."""
        if self._descriptor is not None:
            return None
        self._descriptor = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return self._descriptor

    def take(self) -> Reloaded | None:
        """Call the function.

        Raises:
            ReloadError: it failed.
            SpecError: what it returned can't be run.
        """
        from supervisor.runtime.root import Reloaded

        assert self._descriptor is not None
        os.close(self._descriptor)
        self._descriptor = None
        try:
            spec = specs.specification(self._read(), self._flags)
        except SpecError:
            raise
        except Exception as exc:  # the program's own function
            raise ReloadError(f"{type(exc).__name__}: {exc}") from exc
        validate(spec)
        specs.check_names(spec, self._run_dir)
        old = {child.id: child for child in self._spec.children}
        new = {child.id: child for child in spec.children}
        changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        self._spec = spec
        return Reloaded(spec=spec, changed=tuple(changed))
