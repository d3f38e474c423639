"""``novacron run``: from a command line to a running tree, and its exit code.

Phase 0 looks at the host, phase 1 reads the configuration and then looks at what it names; both
happen in this process, before there is a tree. Everything after that is the root supervisor's.
"""

from __future__ import annotations

import os
import pwd
import sys
import time

import structlog

from protocol.records import Plain
from services import tree
from services.config import loader, locate
from services.config.errors import ConfigError
from services.config.kinds import DatabaseMode
from services.config.model import Config
from services.node import preflight, probes, state_dir
from services.node.errors import PreflightError
from services.node.preflight import Finding, Outcome
from services.node.start import RunOptions, Start
from services.node.state_dir import StateDir
from services.version import VERSION
from supervisor.child import logs
from supervisor.runtime.launch import TreeSettings
from supervisor.runtime.root import (
    EXIT_CONFIGURATION,
    EXIT_PREFLIGHT,
    Reloaded,
    RootSettings,
    run_root,
)


def run(options: RunOptions, start: Start) -> int:
    """Run a node in the foreground; returns the program's exit code."""
    try:
        findings = list(preflight.judge_host(probes.host_facts()))
        preflight.require(findings)
        preflight_end_s = time.monotonic()
        loaded = load(options)
        config = loaded.config
        # First, since a node that already runs here also explains every port that is taken.
        state = _prepare_state(config)
        findings += preflight.judge_node(_node_facts(config))
        preflight.require(findings)
    except ConfigError as exc:
        print(f"novacron: {exc}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return EXIT_CONFIGURATION
    except PreflightError as exc:
        print(f"novacron: {exc}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return EXIT_PREFLIGHT
    settings = _tree_settings(config, state)
    logs.configure("novacron", log_dir=settings.log_dir, level=settings.log_level)
    _log_findings(findings, loaded, state)
    place = _place(config, state)
    return run_root(
        tree.build(config, place),
        _root_settings(config, start.executed_s, (preflight_end_s, time.monotonic())),
        settings,
        reload=_Reload(options, config, place),
        spare=frozenset((start.output.pid,)),
        warm=start.warm,
    )


def load(options: RunOptions) -> loader.LoadedConfig:
    """Read the configuration that a command line means.

    Raises:
        ConfigError: it is invalid.
    """
    overrides: dict[str, Plain] = {}
    if options.state_dir is not None:
        overrides["system.dataDir"] = str(options.state_dir.absolute())
    if options.roles:
        overrides["platform.roles"] = list(options.roles)
    directory = locate.config_dir(options.config_dir, options.environ)
    return loader.load(directory, options.environment, options.environ, overrides)


class _Reload:
    """Reads the configuration again and says what changed since the last time."""

    def __init__(self, options: RunOptions, config: Config, place: tree.Place) -> None:
        self._options = options
        self._config = config
        self._place = place

    def __call__(self) -> Reloaded:
        config = load(self._options).config
        changed = loader.changes(self._config, config)
        fixed = [key for key in changed if key in _FIXED_KEYS]
        if fixed:
            raise PreflightError(
                f"{', '.join(fixed)} can't change while the node runs: stop and start it"
            )
        spec = tree.build(config, self._place)
        self._config = config
        return Reloaded(spec=spec, changed=changed)


# What the state directory, the run directory and the root itself were made from.
_FIXED_KEYS = frozenset(
    (
        "environment",
        "database.mode",
        "platform.name",
        "platform.version",
        "platform.nodeId",
        "platform.roles",
        "system.dataDir",
        "system.logDir",
        "system.logLevel",
        "system.serviceUser",
        "system.group",
        "system.shutdownTimeout",
    )
)


def _node_facts(config: Config) -> preflight.NodeFacts:
    return probes.node_facts(
        state_dir=config.system.data_dir,
        log_dir=config.system.log_path,
        ports=_ports(config),
        service_user=config.system.service_user,
        group=config.system.group,
        embedded=config.database.mode is DatabaseMode.EMBEDDED,
    )


def _ports(config: Config) -> dict[str, tuple[str, int]]:
    monitoring, transport = config.monitoring, config.dwcp.transport
    ports = {
        "api.port": (config.api.host, config.api.port),
        "monitoring.healthCheckPort": (monitoring.host, monitoring.health_check_port),
    }
    if monitoring.prometheus_enabled:
        ports["monitoring.metricsPort"] = (monitoring.host, monitoring.metrics_port)
    if config.dwcp.enabled:
        ports["dwcp.transport.port"] = (transport.host, transport.port)
    return ports


def _prepare_state(config: Config) -> StateDir:
    system = config.system
    return state_dir.prepare(
        system.data_dir,
        log_dir=system.log_path,
        group=system.group,
        service_user=system.service_user,
        embedded=config.database.mode is DatabaseMode.EMBEDDED,
    )


def _tree_settings(config: Config, state: StateDir) -> TreeSettings:
    return TreeSettings(
        run_dir=str(state.run_dir),
        log_dir="" if state.log_dir is None else str(state.log_dir),
        log_level=config.system.log_level.value,
    )


def _place(config: Config, state: StateDir) -> tree.Place:
    return tree.Place(
        state_dir=config.system.data_dir,
        run_dir=state.run_dir,
        node_user=pwd.getpwuid(os.geteuid()).pw_name,
        is_root=os.geteuid() == 0,
        cpus=tuple(sorted(os.sched_getaffinity(0))),
    )


def _root_settings(
    config: Config, started_s: float, phase_ends_s: tuple[float, ...]
) -> RootSettings:
    names = {
        "api": config.api.host,
        "health": config.monitoring.host,
        "metrics": config.monitoring.host,
    }
    ports = {
        "api": config.api.port,
        "health": config.monitoring.health_check_port,
        "metrics": config.monitoring.metrics_port,
    }
    return RootSettings(
        name=config.platform.name,
        version=VERSION,
        node_id=config.platform.node_id,
        environment=config.environment,
        roles=tuple(role.value for role in config.platform.roles),
        state_dir=str(config.system.data_dir),
        started_s=started_s,
        phase_ends_s=phase_ends_s,
        shutdown_timeout_s=config.system.shutdown_timeout,
        addresses={name: f"http://{host}:{ports[name]}" for name, host in names.items()},
    )


def _log_findings(findings: list[Finding], loaded: loader.LoadedConfig, state: StateDir) -> None:
    log = structlog.get_logger()
    if state.log_problem:
        log.warning("log_files_unavailable", reason=state.log_problem)
    for finding in findings:
        if finding.outcome is Outcome.WARNING:
            log.warning(
                "preflight_warning", check=finding.name, detail=finding.detail, hint=finding.hint
            )
    for note in loaded.notes:
        log.info("config_note", note=str(note))
