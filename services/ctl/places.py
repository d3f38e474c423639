"""Where a node keeps its state and its logs, found from what an operator gave; nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from services.config import locate
from services.config.errors import ConfigError
from services.config.references import resolve
from services.config.tiers import lookup, read_tiers

_LOG_DIR_VARIABLE = "NOVACRON_SYSTEM_LOGDIR"


def state_dir(
    flag: Path | None,
    environ: Mapping[str, str],
    config_flag: Path | None,
    environment: str | None,
) -> Path:
    """The node's state directory, as ``novacron run`` finds it.

    Raises:
        ConfigError: it is to be read from a configuration that can't be read.
    """
    if flag is not None or locate.STATE_DIR_VARIABLE in environ:
        directory = config_flag or Path("/")  # not looked at
    else:
        directory = locate.config_dir(config_flag, environ)
    return locate.state_dir(flag, environ, directory, environment)


def log_dir(
    state: Path,
    environ: Mapping[str, str],
    config_flag: Path | None,
    environment: str | None,
) -> Path:
    """The directory of the node's log files: ``system.logDir``, or ``logs`` in its state directory.

    A configuration that can't be read is no reason to hide the logs, which tell why.
    """
    if configured := environ.get(_LOG_DIR_VARIABLE):
        return Path(configured)
    try:
        tiers = read_tiers(locate.config_dir(config_flag, environ), environment, environ)
        for file in reversed(tiers.files):
            leaf = lookup(file.tree, "system", "logDir")
            if leaf is not None and isinstance(leaf.value, str) and leaf.value:
                return Path(resolve(leaf.value, environ))
    except (ConfigError, ValueError):  # ValueError: an unresolved reference
        pass
    return state / "logs"
