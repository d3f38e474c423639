"""``novacron run``: from a command line to a running tree, and its exit code.

Phase 0 looks at the host; phase 1 reads the configuration and looks at what it names. Both are
over before there is a tree, and everything after them is the root supervisor's. The launcher is
forked first of all: it imports what the tree needs at the same time as another process imports
what the configuration needs, and the earlier it is forked the more memory its children share.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import structlog

from services.node import preflight, probes, state_dir
from services.node.errors import PreflightError
from services.node.output import Output
from services.node.preflight import Finding, Outcome
from services.node.prepared import (
    ConfigurationError,
    Prepared,
    Reloader,
    RunOptions,
    StoppedError,
    read_in_fork,
)
from services.node.state_dir import StateDir
from services.version import VERSION
from supervisor.child import logs
from supervisor.runtime.launch import TITLE, TreeSettings
from supervisor.runtime.launcher_client import LauncherClient
from supervisor.runtime.notify import ServiceManager
from supervisor.runtime.root import (
    EXIT_CONFIGURATION,
    EXIT_OK,
    EXIT_PREFLIGHT,
    RootSettings,
    run_root,
)

# In the order in which the first children start; the gateway's framework, which takes as long as
# all the rest, comes last. What the data level needs is imported before its supervisor is forked
# and so is shared by everybody.
PRELOAD = (
    "supervisor.runtime.nested",
    "supervisor.child.asyncio_runtime",
    "services.telemetry.service",
    "psycopg",
    "psycopg_pool",
    "services.data.database_service",
    "services.data.embedded",
    "redis.asyncio",
    "services.data.cache_service",
    "services.security.service",
    "services.network.service",
    "services.vm.service",
    "supervisor.child.blocking_runtime",
    "services.dwcp.manager",
    "services.dwcp.transport",
    "services.optional.workload.service",
    "pydantic",
    "starlette.applications",
    "fastapi",
    "uvicorn",
    "services.api.service",
)

# Machines outlive the platform, and so do the daemons of libvirt that a session's client starts.
GUESTS = (
    "/usr/bin/qemu-system-*",
    "/usr/bin/qemu-kvm",
    "/usr/libexec/qemu-kvm",
    "/usr/sbin/libvirtd",
    "/usr/sbin/virt*d",
)


def run(options: RunOptions) -> int:
    """Run a node in the foreground; returns the program's exit code."""
    executed = executed_s()
    # Until the root has its handlers; as process 1 it would otherwise not even notice.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    manager = ServiceManager(os.environ)  # before any fork, so that nobody else speaks to it
    output = Output()
    launcher = LauncherClient.fork(TITLE, PRELOAD, GUESTS)
    try:
        return _run(options, executed, manager, output, launcher)
    except StoppedError:
        return EXIT_OK
    except ConfigurationError as exc:
        print(f"novacron: {exc}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return EXIT_CONFIGURATION
    except PreflightError as exc:
        print(f"novacron: {exc}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return EXIT_PREFLIGHT
    finally:
        sys.stderr.flush()
        launcher.end()
        output.close()


def executed_s() -> float:
    """Monotonic time at which this program was executed, to a hundredth of a second.

    The kernel counts from the fork before it, and in ticks; a host that was suspended counts
    that time too, which no monotonic clock does, so the result is never before the boot.
    """
    stat = Path("/proc/self/stat").read_text()
    ticks = int(stat.rpartition(")")[2].split()[19])
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - max(0.0, age_s)


def _run(
    options: RunOptions,
    executed: float,
    manager: ServiceManager,
    output: Output,
    launcher: LauncherClient,
) -> int:
    findings = list(preflight.judge_host(probes.host_facts()))
    preflight.require(findings)
    preflight_end_s = time.monotonic()
    prepared = read_in_fork(options)
    # First, since a node that already runs here also explains every port that is taken.
    state = _prepare_state(prepared)
    launcher.hold(state.lock_fd)  # no other node comes in before the last of ours has gone
    try:
        findings += preflight.judge_node(_node_facts(prepared))
        preflight.require(findings)
        tree = _tree_settings(prepared, state)
        logs.configure("novacron", log_dir=tree.log_dir, level=tree.log_level)
        _log_findings(findings, prepared, state)
        return run_root(
            prepared.spec,
            _root_settings(prepared, executed, (preflight_end_s, time.monotonic())),
            tree,
            reloader=Reloader(options, prepared),
            manager=manager,
            launcher=launcher,
            bystanders=frozenset((output.pid,)),
        )
    finally:
        launcher.end()  # nobody uses the sockets any more
        state_dir.leave(state)


def _tree_settings(prepared: Prepared, state: StateDir) -> TreeSettings:
    return TreeSettings(
        run_dir=str(state.run_dir),
        log_dir="" if state.log_dir is None else str(state.log_dir),
        log_level=prepared.log_level,
        spool_dir=str(state.spool_dir),
        has_policy=True,
        identity_s=prepared.identity_s,
    )


def _node_facts(prepared: Prepared) -> preflight.NodeFacts:
    return probes.node_facts(
        state_dir=Path(prepared.state_dir),
        log_dir=Path(prepared.log_dir),
        ports={key: (it.host, it.port) for key, it in prepared.listeners.items()},
        service_user=prepared.service_user,
        group=prepared.group,
        embedded=prepared.embedded,
    )


def _prepare_state(prepared: Prepared) -> StateDir:
    return state_dir.prepare(
        Path(prepared.state_dir),
        log_dir=Path(prepared.log_dir),
        group=prepared.group,
        service_user=prepared.service_user,
        embedded=prepared.embedded,
    )


def _root_settings(
    prepared: Prepared, executed: float, phase_ends_s: tuple[float, ...]
) -> RootSettings:
    shown = {
        "api": "api.port",
        "health": "monitoring.healthCheckPort",
        "metrics": "monitoring.metricsPort",
    }
    addresses = {
        name: f"http://{found.host}:{found.port}"
        for name, key in shown.items()
        if (found := prepared.listeners.get(key)) is not None
    }
    return RootSettings(
        name=prepared.name,
        version=VERSION,
        node_id=prepared.node_id,
        environment=prepared.environment,
        roles=prepared.roles,
        state_dir=prepared.state_dir,
        started_s=executed,
        phase_ends_s=phase_ends_s,
        shutdown_timeout_s=prepared.shutdown_timeout_s,
        addresses=addresses,
        policy=prepared.policy,
    )


def _log_findings(findings: list[Finding], prepared: Prepared, state: StateDir) -> None:
    log = structlog.get_logger()
    if state.log_problem:
        log.warning("log_files_unavailable", reason=state.log_problem)
    for finding in findings:
        if finding.outcome is Outcome.WARNING:
            log.warning(
                "preflight_warning", check=finding.name, detail=finding.detail, hint=finding.hint
            )
    for note in prepared.notes:
        log.info("config_note", note=note)
