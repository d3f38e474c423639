"""Files of segments as an operator writes them, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from protocol.records import to_wire
from services.ctl.errors import UsageError
from services.ctl.main import program
from services.ctl.segments import (
    FILE_BYTES_MAX,
    read_document,
    render_applied,
    render_plan,
    render_trace,
    render_view,
)
from services.ctl.styled import to_plain
from services.network.segments.messages import (
    Applied,
    DropCount,
    SegmentsState,
    SegmentsStatus,
    SegmentsView,
)
from services.network.segments.plan import SegmentPlan, SegmentStep, StepKind
from services.network.segments.trace import TraceQuestion, trace

ROOT = Path(__file__).parents[4]
EXAMPLE = ROOT / "docs/examples/segments.yaml"


def test_the_example_of_the_documentation_is_valid() -> None:
    """Hardware addresses stay text, although YAML 1.1 takes them for numbers to the base 60."""
    found = read_document(str(EXAMPLE))

    assert found.interfaces[0].mac == "52:54:00:00:00:01"
    assert found.interfaces[0].dhcp is True
    assert found.interfaces[0].rules[0].ports == ("80", "443")


def test_ports_may_be_written_as_numbers(tmp_path: Path) -> None:
    """And JSON, as 'show --json' prints it, is YAML too."""
    file = tmp_path / "a.json"
    file.write_text(json.dumps(to_wire(read_document(str(EXAMPLE)))).replace('"80"', "80"))

    assert read_document(str(file)) == read_document(str(EXAMPLE))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it holds no document"),
        ("interfaces: [", "no YAML in line"),
        ("a: 1\na: 2\n", "line 2 repeats the key 'a'"),
        ("interfaces:\n- {name: a, name: b}\n", "line 2 repeats the key 'name'"),
        ("just text", "expected a map"),
        ("colour: red", "unknown field 'colour'"),
        ("interfaces: [{name: vnet0, mac: x}]", "interfaces[0]: vnet0: mac is 'x'"),
        ("interfaces: [{name: a, mac: '52:54:00:00:00:01', dhcp: maybe}]", "type bool"),
        ("a: &x [*x]", "line 1 has an anchor or alias"),
        ("a: [1]\nb: *a", "line 2 has an anchor or alias"),
        ("[" * 2000 + "]" * 2000, "nests too deep"),
    ],
)
def test_a_file_that_is_no_document_is_refused_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    """The file, and where in it."""
    file = tmp_path / "segments.yaml"
    file.write_text(text)

    with pytest.raises(UsageError) as caught:
        read_document(str(file))

    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file)) or "nests" in message


def test_files_that_can_not_be_read_are_named(tmp_path: Path) -> None:
    """Missing, too large, and not text."""
    large, binary = tmp_path / "large", tmp_path / "binary"
    large.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    binary.write_bytes(b"\xff\xfe")

    for file, message in (
        (tmp_path / "none", "No such file"),
        (large, "larger"),
        (binary, "UTF-8"),
    ):
        with pytest.raises(UsageError, match=message):
            read_document(str(file))


def test_a_plan_is_read_part_by_part() -> None:
    """Warnings and drift first, then what differs, then the amount."""
    plan = SegmentPlan(
        revision=2,
        steps=(SegmentStep(kind=StepKind.ADD, subject="interface a", details=("+ mac x",)),),
        drift="somebody changed it",
        commands=3,
        rules=1,
        elements=2,
        warnings=("a: no\x1b[31m such link",),
    )

    lines = [to_plain(spans) for spans in render_plan(plan)]

    assert lines[1:4] == ["now      somebody changed it", "+ interface a", "    + mac x"]
    assert "\x1b" not in lines[0]
    assert lines[-1] == (
        "1 difference to revision 2: 1 rule, 2 elements, 3 commands in one transaction"
    )


def test_state_rules_and_drops_are_shown() -> None:
    """What is in force, in the words of the document."""
    view = SegmentsView(
        status=SegmentsStatus(
            state=SegmentsState.DRIFTED, reason="it was removed", revision=4, interfaces=2, rules=5
        ),
        document=read_document(str(EXAMPLE)),
        drops=(DropCount(interface="vnet0", spoofed=1, sent=2, received=3),),
    )

    text = "\n".join(to_plain(spans) for spans in render_view(view, width=80))

    assert text.startswith("drifted: it was removed; revision 4, 2 interfaces, 5 rules")
    assert "vnet0  52:54:00:00:00:01 10.20.0.11 fd00:20::11 dhcp  [web]" in text
    assert "    in tcp 80,443 from any (customers)" in text
    assert text.splitlines()[-1].split() == ["vnet0", "1", "2", "3"]


def test_a_trace_ends_with_the_verdict_and_its_reason() -> None:
    """Each rule that was met on a line of its own."""
    found = read_document(str(EXAMPLE))
    question = TraceQuestion(source="vnet1", destination="vnet0", port=443)

    lines = [to_plain(spans) for spans in render_trace(trace(found, question))]

    assert lines[0] == "prerouting 1   goto source"
    assert lines[-1] == "dropped: not allowed out"


def test_a_change_that_holds_is_one_line() -> None:
    """Revision, amount and time."""
    applied = Applied(revision=3, steps=1, commands=1, commit_s=0.01, total_s=0.02)

    assert to_plain(render_applied(applied)).startswith("in force: revision 3, 1 command in ")


@pytest.mark.parametrize("place", [("net",), ("net", "segments")])
def test_a_file_can_be_traced_without_a_node(tmp_path: Path, place: tuple[str, ...]) -> None:
    """The answer is the same that a node with this document in force would give."""
    arguments = [*place, "trace", "-f", str(EXAMPLE), "--state-dir", str(tmp_path)]

    passes = CliRunner().invoke(program, [*arguments, "vnet0", "vnet1", "--port", "8080"])
    asked = CliRunner().invoke(program, [*arguments, "vnet0", "eth0"])

    assert (passes.exit_code, passes.stdout.splitlines()[-1]) == (0, "accepted")
    assert (asked.exit_code, asked.stderr) == (
        2,
        "novacronctl: say the destination's address: no listed interface has it\n",
    )


@pytest.mark.parametrize("command", ["plan", "apply", "show", "trace"])
def test_every_command_has_help_with_examples(command: str) -> None:
    """And --help is no error."""
    result = CliRunner().invoke(program, ["net", "segments", command, "--help"])

    assert result.exit_code == 0
    assert f"novacronctl net segments {command}" in result.stdout
