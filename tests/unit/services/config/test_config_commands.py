"""``novacron config`` as an operator and as a program use it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from services.config.commands import config_group

Run = Callable[..., Result]


@pytest.fixture
def run(directory) -> Run:
    """Run a command on the lab's files with nothing else in the environment."""

    def invoke(*arguments: str, **environ: str) -> Result:
        clean = {"NOVACRON_CONFIG_DIR": str(directory.path), "NOVACRON_ENVIRONMENT": "lab"}
        return CliRunner().invoke(config_group, arguments, env=clean | environ)

    return invoke


def test_check_says_what_was_read(run: Run, directory) -> None:
    """A valid configuration names its environment and files, then the notes."""
    directory.write(lab="platform: {nodeId: mine}\ndwcp: {enabled: false}")

    result = run("check")

    assert result.exit_code == 0
    assert result.output == (
        f"valid: environment lab, from {directory.path}/config.default.yaml "
        f"and {directory.path}/config.lab.yaml\n"
    )


def test_check_prints_notes(run: Run) -> None:
    """Notes do not change the exit code."""
    result = run("check")

    assert result.exit_code == 0
    assert "note: dwcp.consensus.enabled: accepted, but" in result.output


@pytest.mark.parametrize("command", ["check", "show"])
def test_an_invalid_configuration_exits_with_2(run: Run, directory, command: str) -> None:
    """The problems go to stderr, and stdout stays empty."""
    directory.write(lab="api: {prot: 1}")

    result = run(command)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "config.lab.yaml:1: api.prot: found a key that does not exist" in result.stderr


def test_check_lists_problems_for_a_program(run: Run, directory) -> None:
    """The JSON has every part of each problem."""
    directory.write(lab="api:\n  port: 0")

    result = run("check", "--json")

    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "valid": False,
        "problems": [
            {
                "kind": "value",
                "source": "file",
                "name": f"{directory.path}/config.lab.yaml",
                "line": 2,
                "key": "api.port",
                "found": "0",
                "expected": "a whole number from 1 to 65535",
                "hint": None,
            }
        ],
    }


def test_check_is_valid_for_a_program(run: Run, directory) -> None:
    """The JSON of a valid configuration has files and notes."""
    shown = json.loads(run("check", "--json").stdout)

    assert shown["valid"] is True
    assert shown["problems"] == []
    assert shown["files"][1] == f"{directory.path}/config.lab.yaml"
    assert {"key", "text"} == set(shown["notes"][0])


def test_flags_go_before_variables(run: Run, directory, tmp_path) -> None:
    """--config-dir, --environment and --state-dir win over the environment's variables."""
    result = run(
        *("show", "system.dataDir", "--config-dir", str(directory.path), "--environment", "lab"),
        *("--state-dir", str(tmp_path)),
        NOVACRON_CONFIG_DIR="/gone",
        NOVACRON_ENVIRONMENT="gone",
        NOVACRON_SYSTEM_DATADIR="/gone",
    )

    assert result.output == f"system.dataDir  {tmp_path}  --state-dir\n"


def test_show_aligns_keys_values_and_origins(run: Run, directory) -> None:
    """Files are named without their common directory, and nothing is coloured in a pipe."""
    directory.write(lab="api:\n  port: 81\n  cors: {allowedOrigins: [https://a, https://b]}")

    result = run("show", "api", NOVACRON_API_HOST="::1")

    assert result.output == (
        "api.host                         ::1                     NOVACRON_API_HOST\n"
        "api.port                         81                      config.lab.yaml:2\n"
        "api.tls.certFile                 null                    built in\n"
        "api.tls.keyFile                  null                    built in\n"
        "api.tls.clientCaFile             null                    built in\n"
        "api.auth.anonymousRole           null                    built in\n"
        "api.cors.enabled                 true                    built in\n"
        "api.cors.allowedOrigins          [https://a, https://b]  config.lab.yaml:3\n"
        "api.rateLimit.enabled            true                    built in\n"
        "api.rateLimit.requestsPerMinute  1000                    built in\n"
    )


def test_show_without_origins(run: Run) -> None:
    """Keys and values alone are for reading, and a prefix is a whole part of the key."""
    result = run("show", "--no-origin", "network.bridge")

    assert result.output == (
        "network.bridge.enabled  true\n"
        "network.bridge.name     novacron0\n"
        "network.bridge.address  null\n"
    )
    assert run("show", "network.bri").exit_code == 2


def test_show_masks_secrets_in_every_form(run: Run) -> None:
    """No way of showing shows a password."""
    for arguments in (("show",), ("show", "--json"), ("show", "--no-origin")):
        result = run(*arguments, NOVACRON_DATABASE_POSTGRES_PASSWORD="hunter2")

        assert result.exit_code == 0
        assert "hunter2" not in result.output
        assert "**********" in result.output


def test_show_for_a_program(run: Run) -> None:
    """Values keep their types; origins have source, name and line."""
    with_origin = json.loads(run("show", "--json", "api.port", NOVACRON_API_PORT="81").stdout)
    without = json.loads(run("show", "--json", "--no-origin", "dwcp.transport.cpus").stdout)

    assert with_origin == {
        "api.port": {
            "value": 81,
            "origin": {"source": "variable", "name": "NOVACRON_API_PORT", "line": None},
        }
    }
    assert without == {"dwcp.transport.cpus": []}


def test_an_unknown_prefix_is_a_usage_error(run: Run) -> None:
    """The name that was given is in the error."""
    result = run("show", "nothing")

    assert result.exit_code == 2
    assert "no key or section is called 'nothing'" in result.stderr


def test_schema_is_json_schema(run: Run) -> None:
    """Keys are the files' keys, durations are texts with a pattern, secrets are marked."""
    schema = json.loads(run("schema").stdout)

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    timeout = schema["$defs"]["System"]["properties"]["shutdownTimeout"]
    assert (timeout["type"], timeout["default"]) == ("string", "30s")
    assert "enableRDMA" in schema["$defs"]["Transport"]["properties"]
    assert '"required":' not in json.dumps(schema)


@pytest.mark.parametrize("command", [(), ("check",), ("show",), ("schema",)])
def test_help_has_examples(run: Run, command: tuple[str, ...]) -> None:
    """Every command's help shows how it is used."""
    result = run(*command, "--help")

    assert result.exit_code == 0
    assert "Examples:\n" in result.output
    assert "novacron config " in result.output
