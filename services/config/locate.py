"""Where the configuration and the state directory are, found without building the model.

novacronctl asks this on every call, so nothing here imports pydantic, and a state directory that
a flag or variable names costs no file access at all.
"""

from __future__ import annotations

import os.path
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.config.errors import ConfigError, Problem, ProblemKind, shown
from services.config.origins import Origin, in_file, in_variable
from services.config.references import UnresolvedError, resolve
from services.config.tiers import has_default_file, lookup, read_tiers

CONFIG_DIR_VARIABLE = "NOVACRON_CONFIG_DIR"
STATE_DIR_VARIABLE = "NOVACRON_SYSTEM_DATADIR"
STATE_DIR_KEY = "system.dataDir"
STATE_DIR_DEFAULT = Path("/var/lib/novacron")

SEARCH_PATH = (
    Path("/etc/novacron"),
    Path(__file__).resolve().parents[2] / "etc" / "novacron",  # a source tree
    Path(sys.prefix) / "etc" / "novacron",  # data files of an installed package
)


def config_dir(
    flag: str | Path | None,
    environ: Mapping[str, str],
    search_path: Sequence[Path] = SEARCH_PATH,
) -> Path:
    """The directory with the configuration files.

    Args:
        flag: what ``--config-dir`` says; wins, and is not checked here.
        environ: the process's environment variables; NOVACRON_CONFIG_DIR is next.
        search_path: then the first of these that holds ``config.default.*``.

    Raises:
        ConfigError: nothing names a directory and none of the usual ones has files.
    """
    if flag:
        return Path(flag)
    if named := environ.get(CONFIG_DIR_VARIABLE):
        return Path(named)
    for candidate in search_path:
        if has_default_file(candidate):
            return candidate
    searched = ", ".join(str(candidate) for candidate in search_path)
    origin = in_variable(CONFIG_DIR_VARIABLE)
    expected = f"a directory with config.default.yaml, or one in {searched}"
    raise ConfigError([Problem(ProblemKind.UNREADABLE, origin, "not set", expected)])


def state_dir(
    flag: str | Path | None,
    environ: Mapping[str, str],
    directory: Path,
    environment: str | None,
) -> Path:
    """The node's state directory, absolute and without ``.`` and ``..``.

    ``run`` and ``novacronctl`` find the same node because both ask here.

    Args:
        flag: what ``--state-dir`` says; a relative path counts from the working directory.
        environ: the process's environment variables.
        directory: the configuration directory; read only when nothing else names the state.
        environment: what ``--environment`` says.

    Raises:
        ConfigError: the files are not readable, or the directory's path is not absolute.
    """
    if flag:
        return _normal(Path(flag).absolute())
    if STATE_DIR_VARIABLE in environ:
        return _checked(environ[STATE_DIR_VARIABLE], in_variable(STATE_DIR_VARIABLE))
    tiers = read_tiers(directory, environment, environ)
    for file in reversed(tiers.files):
        if (leaf := lookup(file.tree, "system", "dataDir")) is None:
            continue
        origin = in_file(file.path, leaf.line)
        if not isinstance(leaf.value, str):
            raise _refused(origin, shown(leaf.value))
        try:
            return _checked(resolve(leaf.value, environ), origin)
        except UnresolvedError as exc:
            raise _refused(origin, shown(leaf.value)) from exc
    return STATE_DIR_DEFAULT


def state_dir_override(flag: str | Path | None) -> dict[str, str]:
    """The override that ``--state-dir`` is for ``services.config.loader.load``."""
    return {STATE_DIR_KEY: str(_normal(Path(flag).absolute()))} if flag else {}


def _checked(text: str, origin: Origin) -> Path:
    if not text.startswith("/"):
        raise _refused(origin, shown(text))
    return _normal(Path(text))


def _refused(origin: Origin, found: str) -> ConfigError:
    expected = "the absolute path of a directory"
    return ConfigError([Problem(ProblemKind.VALUE, origin, found, expected, STATE_DIR_KEY)])


def _normal(path: Path) -> Path:
    # Textual: a symbolic link in the path stays, as the operator wrote it.
    return Path(os.path.normpath(path))
