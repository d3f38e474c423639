"""The process that reads the configuration; see services.node.prepared."""

from __future__ import annotations

import hashlib
import os
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from protocol import codec, names
from protocol.records import Plain, from_wire, to_wire
from services import tree
from services.config import credentials, loader, locate
from services.config.errors import ConfigError
from services.config.kinds import DatabaseMode
from services.config.model import Config
from services.config.rules_secrets import secret_names
from services.node.prepared import Answer, Listener, Prepared, RunOptions
from services.policy import host
from services.policy.source import Source
from supervisor.guard.policy import to_plain
from supervisor.runtime.launch import IDENTITY_S

if TYPE_CHECKING:
    from services.security.secrets.model import SecretsPartSettings


def answer(options: RunOptions) -> bytes:
    """Read the configuration and encode what it means, or what is wrong with it."""
    try:
        found = Answer(prepared=prepare(options))
    except ConfigError as exc:
        found = Answer(problem=str(exc))
    return codec.encode(to_wire(found))


def prepare(options: RunOptions) -> Prepared:
    """Read the configuration.

    Raises:
        ConfigError: it is invalid.
    """
    directory = locate.config_dir(options.config_dir, os.environ)
    loaded = _load(options, directory)
    credentials.require_usable(loaded.config, loaded.origins)
    config, secrets = _with_secrets(loaded)
    system, platform = config.system, config.platform
    policy = _policy(config, directory)
    return Prepared(
        spec=tree.build(config, _place(config), secrets),
        digests=_digests(config),
        name=platform.name,
        node_id=platform.node_id,
        environment=config.environment,
        roles=tuple(role.value for role in platform.roles),
        state_dir=str(system.data_dir),
        log_dir=str(system.log_path),
        log_level=system.log_level.value,
        group=system.group,
        service_user=system.service_user,
        embedded=config.database.mode is DatabaseMode.EMBEDDED,
        shutdown_timeout_s=system.shutdown_timeout,
        listeners=_listeners(config),
        policy=codec.encode(to_plain(policy.policy)),
        identity_s=_identity_s(config),
        notes=(*(str(note) for note in loaded.notes), *policy.notes),
    )


def main() -> None:
    """Answer options on the standard input, on the standard output."""
    options = from_wire(RunOptions, codec.decode(sys.stdin.buffer.read(codec.MESSAGE_BYTES_MAX)))
    sys.stdout.buffer.write(answer(options))


def _load(options: RunOptions, directory: Path) -> loader.LoadedConfig:
    overrides: dict[str, Plain] = {}
    if options.state_dir is not None:
        overrides["system.dataDir"] = options.state_dir
    if options.roles:
        overrides["platform.roles"] = list(options.roles)
    return loader.load(directory, options.environment, os.environ, overrides)


def _policy(config: Config, directory: Path) -> Source:
    trust = config.security.zero_trust
    return host.load(
        host.find(trust.policy_file, directory),
        group=config.system.group,
        is_enforced=trust.enabled,
        is_audited=config.security.audit.enabled,
    )


def _identity_s(config: Config) -> float:
    """How long a key lasts: never longer than trust does, and shorter where it is renewed."""
    trust = config.security.zero_trust
    longest_s: float = trust.max_trust_duration
    return min(IDENTITY_S, longest_s) if trust.continuous_auth else longest_s


def _with_secrets(
    loaded: loader.LoadedConfig,
) -> tuple[Config, SecretsPartSettings | None]:
    """The configuration with the values of its secrets, and what the security process is told."""
    if not secret_names(loaded.config):
        return loaded.config, None
    from services.config.secrets import with_secrets  # with asyncio: only where it is needed

    found = with_secrets(loaded.config, loaded.origins, os.environ)
    return found.config, found.part


def _place(config: Config) -> tree.Place:
    return tree.Place(
        state_dir=config.system.data_dir,
        run_dir=names.choose_run_dir(Path(config.system.data_dir)),
        node_user=pwd.getpwuid(os.geteuid()).pw_name,
        is_root=os.geteuid() == 0,
        cpus=tuple(sorted(os.sched_getaffinity(0))),
    )


def _listeners(config: Config) -> dict[str, Listener]:
    monitoring, transport = config.monitoring, config.dwcp.transport
    found = {
        "api.port": Listener(config.api.host, config.api.port),
        "monitoring.healthCheckPort": Listener(monitoring.host, monitoring.health_check_port),
    }
    if monitoring.prometheus_enabled:
        found["monitoring.metricsPort"] = Listener(monitoring.host, monitoring.metrics_port)
    if config.dwcp.enabled:
        found["dwcp.transport.port"] = Listener(transport.host, transport.port)
    return found


def _digests(config: Config) -> dict[str, str]:
    """A hash of each value; equal values have equal hashes, and no secret can be read off."""
    salt = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    return {
        key: hashlib.sha256(salt + repr(value).encode()).hexdigest()[:16]
        for key, value in loader.revealed_values(config).items()
    }


if __name__ == "__main__":
    main()
