"""A lab goes without a trace, however the program that built it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.fixtures.fix_lab import left_of, traces
from tests.fixtures.fix_node import ROOT, wait_until
from tests.lab import lab as labs
from tests.lab.__main__ import main as lab_commands
from tests.lab.errors import LabError, MissingError
from tests.lab.lab import LabPlan
from tests.lab.marks import lab_dir, marked_environ, marked_pids

pytestmark = [pytest.mark.netns, pytest.mark.libvirt]

PLAN = LabPlan(has_nodes=False)


@pytest.fixture
def name() -> Iterator[str]:
    """A lab's name, whose lab is gone afterwards."""
    try:
        labs.check_machine(PLAN)
    except MissingError as exc:
        pytest.skip(str(exc))
    found = f"down{os.getpid()}"
    yield found
    labs.take_down(found)


def command(name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command on a lab."""
    argv = [sys.executable, "-m", "tests.lab", "--name", name, *arguments]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def said(name: str, *arguments: str) -> tuple[int | None, str]:
    """Exit code and output of a command on a lab."""
    process = command(name, *arguments)
    output, _ = process.communicate(timeout=30.0)
    return process.returncode, output.decode()


def test_down_leaves_nothing_and_can_be_repeated(name: str) -> None:
    """The commands build a lab, run in it, and take it down; a second ``down`` is no error."""
    code, output = said(name, "up", "--no-nodes", "--rate", "10mbit", "--delay", "5ms")
    assert code == 0, output
    lab = labs.find(name)
    seen = traces(lab)

    assert said(name, "exec", "host2", "--", "hostname") == (0, "host2\n")
    assert said(name, "exec", "host2", "--", "sh", "-c", "exit 7")[0] == 7
    assert "10 Mbit/s, 5 ms" in said(name, "status")[1]
    assert said(name, "cut", "--from", "1")[0] == 0
    assert "from host1: CUT" in said(name, "link", "--from", "1", "--loss", "3%")[1]
    assert lab.link().direction(sender=1).loss_ppm == 30_000
    assert "there already" in said(name, "up")[1]
    assert said(name, "down") == (0, f"lab {name} is gone\n")
    assert left_of(seen, lab) == []
    assert said(name, "down") == (0, f"there is no lab {name}\n")


def test_down_finds_what_a_killed_command_has_left(name: str) -> None:
    """After kill -9 of ``up`` in the middle, ``down`` removes all that there was."""
    process = command(name, "up")
    wait_until((lab_dir(name) / "link-1-2").exists, "half a lab")
    process.kill()
    process.communicate()
    assert marked_pids(lab_dir(name))
    with pytest.raises(LabError, match="half built"):
        labs.find(name)

    assert labs.take_down(name)

    assert marked_pids(lab_dir(name)) == []
    assert not lab_dir(name).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_takes_it_down(name: str, number: signal.Signals) -> None:
    """Ctrl-C during ``up --wait`` ends with 130 and leaves nothing."""
    process = command(name, "up", "--wait", "--no-nodes")
    wait_until((lab_dir(name) / "lab.json").exists, "a lab")
    lab = labs.find(name)
    seen = traces(lab)

    process.send_signal(number)
    process.communicate(timeout=15.0)

    assert process.returncode == 130
    assert left_of(seen, lab) == []


def test_ctrl_c_while_it_is_built_takes_it_down(name: str) -> None:
    """Ctrl-C while the nodes start does not wait for them, and leaves nothing."""
    process = command(name, "up")
    wait_until((lab_dir(name) / "host1/node.log").exists, "a node that starts")

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5.0)

    assert process.returncode == 130
    assert marked_pids(lab_dir(name)) == []
    assert not lab_dir(name).exists()


def test_a_lab_ends_with_its_owner(name: str) -> None:
    """After kill -9 of the owner all processes are gone; the next lab removes the files."""
    process = command(name, "up", "--wait", "--no-nodes")
    wait_until((lab_dir(name) / "lab.json").exists, "a lab")
    seen = traces(lab := labs.find(name))

    process.kill()
    process.communicate()

    wait_until(lambda: not marked_pids(lab_dir(name)), "the lab's end")
    assert name in labs.take_down_orphans()
    assert left_of(seen, lab) == []


def test_a_failed_build_is_taken_down(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a service does not start, its own words are in the error, and nothing is left."""
    monkeypatch.setattr("tests.lab.host._LIBVIRTD_CONF", "no_such_key here\n")

    with pytest.raises(LabError, match="libvirtd of host"):
        labs.build(name, PLAN)

    assert marked_pids(lab_dir(name)) == []
    assert not lab_dir(name).exists()


def test_the_number_of_hosts_has_limits(name: str) -> None:
    """One host has no link, and nine are more than a machine takes."""
    for hosts in (1, 9):
        with pytest.raises(LabError, match="2 to 8"):
            labs.build(name, LabPlan(hosts=hosts))


def test_missing_programs_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a program, the error says which package has it."""
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(MissingError, match="apt-get install gcc"):
        labs.build(name, PLAN)


def test_other_processes_are_not_taken_for_the_labs(name: str) -> None:
    """A process that has another lab's mark, or one that only begins alike, is left alone."""
    environs = [marked_environ(Path(f"{lab_dir(name)}x")), {"X_" + "NCLAB_DIRECTORY": "y"}]
    others = [subprocess.Popen(["sleep", "20"], env=environ) for environ in environs]
    try:
        time.sleep(0.05)
        labs.take_down(name)

        assert [process.poll() for process in others] == [None, None]
    finally:
        for process in others:
            process.kill()
            process.wait()


@pytest.mark.parametrize("wrong", ["", "../etc", "A", "a" * 17])
def test_names_that_are_no_names_are_refused(wrong: str) -> None:
    """A name can lead nowhere else."""
    with pytest.raises(LabError, match="name"):
        lab_dir(wrong)


def test_the_commands_of_the_documentation_are_commands() -> None:
    """Each command line in docs/lab.md is one that the program takes."""
    text = (ROOT / "docs/lab.md").read_text()
    found = re.findall(r"^python -m tests\.lab (.+)$", text, re.MULTILINE)

    for line in found:
        command: click.Command = lab_commands
        words = line.split()
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context("lab", words, obj="lab")
    assert len(found) > 10
