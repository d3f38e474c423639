"""A program's settings and secrets, before there is a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.records import Plain
from supervisor.child import credentials
from supervisor.child.command import ProgramError, full_environment, is_native, prepare
from supervisor.child.credentials import CredentialError
from supervisor.child.service import Command
from supervisor.core.readiness import EXEC, NOTIFY, Readiness, parse
from supervisor.core.spec import ChildSpec, ChildType
from supervisor.runtime.launch import Launch, TreeSettings


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "argv must be"),
        ({"argv": []}, "argv must be"),
        ({"argv": "/bin/true"}, "argv must be"),
        ({"argv": ["/bin/true", 1]}, "argv must be"),
        ({"argv": ["/bin/true"], "environment": {"A": 1}}, "environment must be"),
        ({"argv": ["/bin/true"], "environment": ["A=1"]}, "environment must be"),
        ({"argv": ["/bin/true"], "directory": "relative"}, "an absolute path"),
        ({"argv": ["/bin/true"], "umask": 0o1000}, "0 to 0o777"),
        ({"argv": ["no-such-program"]}, "no-such-program: No such file or directory"),
        ({"argv": ["/bin"]}, "/bin: Is a directory"),
        ({"argv": ["/etc/passwd"]}, "/etc/passwd: Permission denied"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Plain], problem: str) -> None:
    """Each rule has its sentence."""
    with pytest.raises(ProgramError, match=problem):
        prepare(settings)


def test_a_program_is_looked_for_in_the_path() -> None:
    """A name without a slash becomes an absolute path; the arguments stay."""
    assert prepare({"argv": ["sleep", "1"]}).argv == ("/usr/bin/sleep", "1")


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"#!/bin/sh\n", True), (b"\x7fELF", True), (b"echo\n", False), (b"#!/no/sh\n", False)],
)
def test_only_what_the_kernel_surely_executes_is_native(
    tmp_path: Path, content: bytes, *, expected: bool
) -> None:
    """Anything else is executed where its failure can be told."""
    file = tmp_path / "program"
    file.write_bytes(content)
    file.chmod(0o755)
    assert is_native(str(file)) is expected


@pytest.mark.parametrize(
    ("readiness", "settings", "names"),
    [
        (EXEC, {}, set()),
        (NOTIFY, {}, {"NOTIFY_SOCKET"}),
        (Readiness(watchdog_s=1.5), {}, {"NOTIFY_SOCKET", "WATCHDOG_USEC"}),
        (parse("exec", watchdog_s=1.5), {}, {"NOTIFY_SOCKET", "WATCHDOG_USEC"}),
        (EXEC, {"credentials": {"key": "x"}}, {"CREDENTIALS_DIRECTORY"}),
    ],
)
def test_the_environment_has_what_was_asked_for(
    readiness: Readiness, settings: dict[str, Plain], names: set[str]
) -> None:
    """PATH, LANG, the command's own, and what readiness and credentials need: nothing else."""
    found = full_environment(_command(), _launch(readiness, settings))
    assert set(found) == {"PATH", "LANG", "OWN"} | names
    assert found.get("WATCHDOG_USEC", "1500000") == "1500000"


def test_a_line_cannot_be_awaited_without_a_log() -> None:
    """The start fails at once, rather than at its timeout."""
    with pytest.raises(ProgramError, match="needs a log directory"):
        full_environment(_command(), _launch(parse("log:x"), {}))


def test_credentials_replace_those_of_the_process_before(tmp_path: Path) -> None:
    """A file each, for the owner to read alone; and all are gone after ``remove``."""
    target = credentials.directory(tmp_path, "data/postgres")
    assert target.name == "data.postgres.credentials"
    credentials.create(target, {"old": "x"}, owner=None)
    credentials.create(target, {"a.key": "text", "b": b"\x00"}, owner=None)
    found = {file.name: (file.read_bytes(), file.stat().st_mode) for file in target.iterdir()}
    assert found == {"a.key": (b"text", 0o100400), "b": (b"\x00", 0o100400)}
    assert target.stat().st_mode & 0o777 == 0o500
    credentials.remove(target)
    credentials.remove(target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "secrets", [{"../x": "s3cret"}, {"": "s3cret"}, {".x": "s3cret"}, {"x": ["s3cret"]}, "s3cret"]
)
def test_a_wrong_credential_is_refused_without_telling_it(tmp_path: Path, secrets: Plain) -> None:
    """Neither where it leads elsewhere nor where it is no text or bytes."""
    with pytest.raises(CredentialError) as caught:
        credentials.create(tmp_path / "c", secrets, owner=None)
    assert "s3cret" not in str(caught.value)


def _command() -> Command:
    return Command(argv=("/bin/true",), environment={"OWN": "1"})


def _launch(readiness: Readiness, settings: dict[str, Plain]) -> Launch:
    spec = ChildSpec(
        id="a", start="p:f", type=ChildType.COMMAND, settings=settings, readiness=readiness
    )
    return Launch(
        tree=TreeSettings(run_dir="/run/x"),
        spec=spec,
        incarnation=1,
        path="a",
        supervisor_path="novacron",
        slot=0,
        public_key=b"",
        secret_key=b"",
        notify_socket="/run/x/novacron.notify",
    )
