"""``novacron config``: check, show and describe the configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import click

from protocol.records import Plain
from services.config.credentials import examine
from services.config.errors import ConfigError
from services.config.loader import LoadedConfig, load
from services.config.locate import config_dir as locate_config_dir
from services.config.locate import state_dir_override
from services.config.origins import Origin

EXIT_INVALID = 2

# A key and its value beside an origin still fit a wide terminal with this.
_VALUE_WIDTH_MAX = 48


def _location_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose the configuration, the same for each command."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON for a program."),
        click.option("--state-dir", type=Path, help="State directory, as for run."),
        click.option("--environment", help="Environment; default: NOVACRON_ENVIRONMENT."),
        click.option(
            "--config-dir",
            type=Path,
            help="Directory with config.default.yaml; default: NOVACRON_CONFIG_DIR, "
            "then /etc/novacron, then the program's own etc/novacron.",
        ),
    ):
        command = option(command)
    return command


@click.group("config")
def config_group() -> None:
    """Check, show and describe the configuration.

    \b
    Examples:
      novacron config check --environment production
      novacron config show dwcp.transport
      novacron config show --json --no-origin
      novacron config schema > novacron.schema.json
    """  # noqa: D301 - click reads \b as "keep these lines"


@config_group.command()
@_location_options
def check(
    config_dir: Path | None, environment: str | None, state_dir: Path | None, *, as_json: bool
) -> None:
    """Check files and variables; exit 2 when something is wrong.

    Every problem is listed with file and line, what was found and what is expected. What only
    this host can tell (CPUs, RDMA devices, certificates and keys) is checked too. Secrets of
    providers are not fetched.

    \b
    Examples:
      novacron config check
      novacron config check --config-dir ./etc/novacron --environment embedded
      novacron config check --json
    """  # noqa: D301 - click reads \b as "keep these lines"
    loaded = _load(config_dir, environment, state_dir, as_json=as_json)
    problems, found = examine(loaded.config, loaded.origins)
    if problems:
        _refuse(ConfigError(problems), as_json=as_json)
    notes = (*loaded.notes, *found)
    if as_json:
        _print_json(
            {
                "valid": True,
                "environment": loaded.config.environment,
                "files": [str(path) for path in loaded.files],
                "problems": [],
                "notes": [note.plain() for note in notes],
            }
        )
        return
    names = " and ".join(str(path) for path in loaded.files)
    click.echo(f"valid: environment {loaded.config.environment}, from {names}")
    for note in notes:
        click.echo(f"note: {note}")


@config_group.command()
@click.argument("prefix", default="")
@click.option("--origin/--no-origin", "with_origin", default=True, help="Where each value is set.")
@_location_options
def show(
    prefix: str,
    config_dir: Path | None,
    environment: str | None,
    state_dir: Path | None,
    *,
    with_origin: bool,
    as_json: bool,
) -> None:
    """Show the values that apply and where each was set; secrets are masked.

    PREFIX limits the output to a key or a section.

    \b
    Examples:
      novacron config show
      novacron config show database.postgres
      NOVACRON_API_PORT=8088 novacron config show api.port
      novacron config show --json --no-origin
    """  # noqa: D301 - click reads \b as "keep these lines"
    loaded = _load(config_dir, environment, state_dir, as_json=as_json)
    values = _selected(loaded.values(), prefix)
    if not values:
        raise click.BadParameter(f"no key or section is called {prefix!r}", param_hint="PREFIX")
    origins = loaded.origins if with_origin else {}
    if as_json:
        _print_json({path: _json_row(value, origins.get(path)) for path, value in values.items()})
    else:
        _print_rows(values, {path: _short(origin, loaded) for path, origin in origins.items()})


@config_group.command()
def schema() -> None:
    """Print the JSON schema of the files, for editors and checks elsewhere.

    \b
    Examples:
      novacron config schema > novacron.schema.json
    """  # noqa: D301 - click reads \b as "keep these lines"
    from services.config.reference import json_schema  # only this command needs it

    _print_json(json_schema())


def _load(
    config_dir: Path | None, environment: str | None, state_dir: Path | None, *, as_json: bool
) -> LoadedConfig:
    try:
        directory = locate_config_dir(config_dir, os.environ)
        return load(directory, environment, os.environ, state_dir_override(state_dir))
    except ConfigError as exc:
        _refuse(exc, as_json=as_json)


def _refuse(error: ConfigError, *, as_json: bool) -> NoReturn:
    if as_json:
        problems = [problem.plain() for problem in error.problems]
        _print_json({"valid": False, "problems": problems})
    else:
        click.echo(str(error), err=True)
    raise click.exceptions.Exit(EXIT_INVALID) from error


def _selected(values: Mapping[str, Plain], prefix: str) -> dict[str, Plain]:
    return {
        path: value
        for path, value in values.items()
        if not prefix or path == prefix or path.startswith(f"{prefix}.")
    }


def _json_row(value: Plain, origin: Origin | None) -> Plain:
    if origin is None:
        return value
    where = {"source": origin.kind.value, "name": origin.name, "line": origin.line}
    return {"value": value, "origin": where}


def _print_json(value: Plain) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _short(origin: Origin, loaded: LoadedConfig) -> str:
    """An origin without the directory, which is the same for all files."""
    return str(origin).removeprefix(f"{loaded.config_dir}/")


def _print_rows(values: Mapping[str, Plain], origins: Mapping[str, str]) -> None:
    texts = {path: _text(value) for path, value in values.items()}
    key_width = max(len(path) for path in texts)
    value_width = min(max(len(text) for text in texts.values()), _VALUE_WIDTH_MAX)
    for path, text in texts.items():
        line = f"{path:<{key_width}}  {text}"
        if path in origins:
            # click strips the style where the output is no terminal.
            line = f"{path:<{key_width}}  {text:<{value_width}}  " + click.style(
                origins[path], dim=True
            )
        click.echo(line)


def _text(value: Plain) -> str:
    """A value as a YAML file would have it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
