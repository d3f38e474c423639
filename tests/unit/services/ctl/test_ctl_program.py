"""The command line while no node runs: usage, exit codes, logs, and what a dead node left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from protocol.errors import NovacronError, RemoteCallError
from services.ctl.components import unknown
from services.ctl.errors import CtlError, Exit, NotRunningError, denied
from services.ctl.main import exit_code, program
from tests.unit.services.ctl.test_ctl_logfiles import record, write


def invoke(*arguments: str, state: Path | None = None) -> Result:
    """Run a command line on a state directory."""
    flags = [] if state is None else ["--state-dir", str(state)]
    return CliRunner(env={"COLUMNS": "100"}).invoke(program, [*flags, *arguments])


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The state directory of a node that has run."""
    logs = tmp_path / "logs"
    logs.mkdir()
    write(logs / "novacron.jsonl", record(1, "started", "novacron"), record(9, "end", "novacron"))
    write(logs / "core.vm.jsonl", record(2, "domain_started"), record(3, "slow"))
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        *("status", "tree", "nodes", "top", "explain", "trace", "restart", "stop", "start"),
        *("logs", "events", "boot", "dwcp", "net", "completion"),
    ],
)
def test_every_command_has_help(command: str) -> None:
    """Each command explains itself, and --help is no error."""
    result = invoke(command, "--help")

    assert result.exit_code == 0
    assert "Usage:" in result.stdout


@pytest.mark.parametrize("command", ["send", "status", "cancel"])
def test_every_dwcp_command_has_help(command: str) -> None:
    """The same for the commands of the dwcp group."""
    assert invoke("dwcp", command, "--help").exit_code == 0


def test_help_lists_the_commands_with_exit_codes() -> None:
    """The program's help names what can be done, and what an exit code means."""
    result = invoke("--help")

    assert "restart" in result.stdout
    assert "3 the node is not running, 4 no permission" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["statsu"], "did you mean status"),
        (["restart"], "Missing argument"),
        (["status", "--frobnicate"], "No such option"),
        (["status", "--interval", "0"], "interval"),
        (["logs", "--since", "yesterday"], "neither an age"),
        (["--timeout", "0", "status"], "timeout"),
        (["top", "--sort", "luck"], "luck"),
        (["top", "--interval", "0"], "interval"),
        (["trace", "--duration", "0"], "duration"),
        (["explain"], "Missing argument"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], message: str, stopped: Path) -> None:
    """A command line that can't be meant says so and ends with 2."""
    result = invoke(*arguments, state=stopped)

    assert result.exit_code == Exit.USAGE
    assert message in result.stderr


def test_restart_of_the_node_itself_is_refused(stopped: Path) -> None:
    """The root is no component of its own."""
    result = invoke("restart", "novacron", state=stopped)

    assert result.exit_code == Exit.USAGE
    assert "systemctl" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        *(["tree"], ["boot"], ["events"], ["stop", "vm"], ["explain", "vm"], ["trace"]),
        *(["top", "--once"], ["dwcp", "status"], ["dwcp", "cancel", "ab"], ["nodes"]),
    ],
)
def test_commands_without_a_node_end_with_3(arguments: list[str], stopped: Path) -> None:
    """No node, one sentence, exit code 3."""
    result = invoke(*arguments, state=stopped)

    assert result.exit_code == Exit.NOT_RUNNING
    assert result.stderr == f"novacronctl: no node runs in {stopped}\n"
    assert result.stdout == ""


def test_status_of_a_node_that_is_down(stopped: Path) -> None:
    """It says since when, and shows the last words."""
    result = invoke("status", state=stopped)

    first, *rest = result.stdout.splitlines()
    assert result.exit_code == 3
    assert first.startswith("not running: last heard of ")
    assert "end" in rest[-1]
    assert "slow" not in result.stdout


def test_json_status_of_a_node_that_is_down(stopped: Path) -> None:
    """A reader of JSON gets the exit code and nothing on standard output."""
    result = invoke("status", "--json", state=stopped)

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("not running")


@pytest.mark.parametrize(
    ("name", "text"), [("nowhere", "does not exist"), ("", "has no log of an earlier run")]
)
def test_status_where_no_node_has_run(name: str, text: str, tmp_path: Path) -> None:
    """A directory that is missing or empty is told apart from a node that stopped."""
    result = invoke("status", state=tmp_path / name)

    assert result.exit_code == 3
    assert text in result.stdout


def test_logs_of_everything(stopped: Path) -> None:
    """All processes' lines are merged by time."""
    result = invoke("logs", state=stopped)

    words = [text.split()[4] for text in result.stdout.splitlines()]
    assert words == ["started", "domain_started", "slow", "end"]


def test_logs_of_a_component_and_below(stopped: Path) -> None:
    """A supervisor's name stands for all below it, an id for one process."""
    assert len(invoke("logs", "core", state=stopped).stdout.splitlines()) == 2
    assert len(invoke("logs", "vm", state=stopped).stdout.splitlines()) == 2
    assert len(invoke("logs", "-n", "1", state=stopped).stdout.splitlines()) == 1


def test_logs_as_json_are_as_logged(stopped: Path) -> None:
    """JSON lines come out as they went in; raw lines become records of the same shape."""
    write(
        stopped / "logs" / "data.postgres.log",
        "2026-03-01 12:00:04.000 UTC [17] ERROR:  bad",
        "\tmore",
    )

    lines = [json.loads(t) for t in invoke("logs", "--json", state=stopped).stdout.splitlines()]

    assert json.dumps(lines[0]) == record(1, "started", "novacron")
    assert lines[3] == {
        "level": "error",
        "component": "data/postgres",
        "event": "bad\n\tmore",
        "timestamp": "2026-03-01T12:00:04Z",
    }


def test_logs_by_level_and_time(stopped: Path) -> None:
    """Level and time select."""
    assert invoke("logs", "--level", "warning", state=stopped).stdout == ""
    late = invoke("logs", "--since", "2026-03-01T12:00:02.500+00:00", state=stopped).stdout
    assert len(late.splitlines()) == 2


def test_logs_of_an_unknown_component(stopped: Path) -> None:
    """A typing error is answered with the closest name."""
    result = invoke("logs", "core/vmm", state=stopped)

    assert result.exit_code == Exit.USAGE
    assert "did you mean core/vm" in result.stderr


def test_no_logs_at_all(tmp_path: Path) -> None:
    """No log directory is a failure with the directory's name."""
    result = invoke("logs", state=tmp_path)

    assert result.exit_code == Exit.FAILED
    assert str(tmp_path / "logs") in result.stderr


def test_log_directory_from_the_environment(tmp_path: Path, stopped: Path) -> None:
    """NOVACRON_SYSTEM_LOGDIR names the log directory, as it does for the node."""
    runner = CliRunner(env={"NOVACRON_SYSTEM_LOGDIR": str(stopped / "logs")})

    result = runner.invoke(program, ["--state-dir", str(tmp_path / "other"), "logs"])

    assert len(result.stdout.splitlines()) == 4


def test_log_directory_from_the_configuration(tmp_path: Path, stopped: Path) -> None:
    """system.logDir of the environment's file wins over the default file's."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.default.yaml").write_text("system:\n  logDir: null\n")
    (config / "config.lab.yaml").write_text('system:\n  logDir: "${WHERE}/logs"\n')
    runner = CliRunner(env={"WHERE": str(stopped), "NOVACRON_SYSTEM_LOGDIR": None})

    result = runner.invoke(
        program,
        ["--state-dir", "/none", "--config-dir", str(config), "--environment", "lab", "logs"],
    )

    assert len(result.stdout.splitlines()) == 4


def test_state_directory_from_a_broken_configuration(tmp_path: Path) -> None:
    """A configuration that can't be read ends with 2, the node's own code for it."""
    runner = CliRunner(env={"NOVACRON_SYSTEM_DATADIR": None})

    result = runner.invoke(program, ["--config-dir", str(tmp_path / "none"), "status"])

    assert result.exit_code == Exit.USAGE


def test_state_directory_option_of_a_command_wins(stopped: Path, tmp_path: Path) -> None:
    """The option may stand before or behind the command; the nearer one counts."""
    arguments = ["logs", "--state-dir", str(stopped)]

    assert invoke(*arguments, state=tmp_path / "other").exit_code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    """The script asks the program itself for what fits."""
    result = invoke("completion", shell)

    assert result.exit_code == 0
    assert "_NOVACRONCTL_COMPLETE" in result.stdout


def test_completion_of_an_unknown_shell() -> None:
    """Only three shells are known."""
    assert invoke("completion", "tcsh").exit_code == Exit.USAGE


def test_denied_names_file_group_and_remedy(tmp_path: Path) -> None:
    """The message says what can't be opened and which group may."""
    file = tmp_path / "hidden" / "identity.sock"

    error = denied(file)

    assert str(file) in str(error)
    assert error.exit_code is Exit.DENIED
    assert "become root" in str(error)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CtlError("x"), Exit.FAILED),
        (NotRunningError("x"), Exit.NOT_RUNNING),
        (unknown("x", ["y"]), Exit.USAGE),
        (RemoteCallError("x", remote_code="supervisor.access_refused"), Exit.DENIED),
        (RemoteCallError("x", remote_code="supervisor.busy"), Exit.FAILED),
        (NovacronError("x"), Exit.FAILED),
    ],
)
def test_exit_codes(error: NovacronError, code: Exit) -> None:
    """Each error has one meaning for a script."""
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        ("node:stopped", {"reason": "SIGTERM"}, "not running: stopped (SIGTERM) "),
        (
            "init:failed",
            {"reason": "disk full", "exit_code": 3},
            "not running: failed with exit code 3 (disk full) ",
        ),
        ("node:failed", {}, "not running: failed "),
        ("vm:started", {}, "not running: last heard of (it was not stopped in order) "),
    ],
)
def test_how_the_node_ended(
    name: str, fields: dict[str, object], sentence: str, stopped: Path
) -> None:
    """A stop, a failure and a kill are told apart by the root's last record."""
    last = {"seq": 9, "time_s": 0.0, "name": name, "component": "novacron", "fields": fields}
    text = json.loads(record(30, "journal", "novacron")) | {"record": last}
    write(stopped / "logs" / "novacron.jsonl", json.dumps(text))

    assert invoke("status", state=stopped).stdout.startswith(sentence)
