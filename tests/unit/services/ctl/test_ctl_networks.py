"""Files of networks as an operator writes them, and what is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.ctl.errors import Exit, UsageError
from services.ctl.main import program
from services.ctl.networks import (
    FILE_BYTES_MAX,
    read_networks,
    render_applied,
    render_plan,
    render_view,
)
from services.ctl.styled import to_plain
from services.network.networks.model import NetworksDocument
from services.network.networks.records import (
    Applied,
    LinkView,
    NetworksState,
    NetworksStatus,
    NetworksView,
    PlanReply,
)
from services.network.networks.steps import Step, StepKind

ROOT = Path(__file__).parents[4]
EXAMPLE = ROOT / "docs/examples/networks.yaml"
PAGE = ROOT / "docs/networks.md"


def test_the_example_of_the_documentation_is_valid_and_the_one_on_its_page() -> None:
    """Who copies either gets the same."""
    document = read_networks(str(EXAMPLE))

    assert [network.name for network in document.networks] == ["guests", "house", "tenants"]
    shown = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1] == EXAMPLE.read_text()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"networks: [{name: a, bridge: b, port: [e]}]", "line 1: networks[0] has an unknown"),
        (b"\xff", "not UTF-8"),
        (b"#" * (FILE_BYTES_MAX + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_document_is_refused_with_its_place(
    tmp_path: Path, data: bytes, message: str
) -> None:
    """The file, and where in it; the program ends as for a wrong argument."""
    file = tmp_path / "net.yaml"
    file.write_bytes(data)

    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        read_networks(str(file))

    assert str(caught.value).startswith(f"{file}: ")
    assert CliRunner().invoke(program, ["net", "plan", str(file)]).exit_code == Exit.USAGE


def test_a_plan_has_a_sign_for_each_step_and_ends_with_a_count() -> None:
    """More, less and other, each with its network."""
    reply = PlanReply(
        revision=3,
        steps=(
            Step(kind=StepKind.CREATE_BRIDGE, link="br-a", network="a"),
            Step(kind=StepKind.SET_MTU, link="br-b", network="b", mtu=1450),
            Step(kind=StepKind.DETACH, link="eth1", bridge="br-a"),
        ),
        omitted=2,
        warnings=("mind the gap",),
    )

    assert [to_plain(spans) for spans in render_plan(reply)] == [
        "caution  mind the gap",
        "+ bridge br-a  (a)",
        "~ br-b: MTU 1450  (b)",
        "- eth1: no port of br-a any more",
        "and 2 more",
        "5 steps from revision 3",
    ]


def test_a_plan_with_conflicts_says_that_it_can_not_be_applied() -> None:
    """Each conflict is told."""
    lines = render_plan(PlanReply(revision=0, conflicts=("eth1 is no link of the host",)))

    assert [to_plain(spans) for spans in lines] == [
        "conflict  eth1 is no link of the host",
        "nothing can be applied until the conflicts are gone",
    ]
    assert to_plain(render_plan(PlanReply(revision=1))[-1]) == "nothing is to be done"


def test_what_was_applied_says_what_answered() -> None:
    """So that an operator knows what the change was checked by."""
    applied = Applied(
        revision=2, steps=1, checked=("gateway 192.0.2.1",), change_s=0.002, total_s=0.05
    )

    (line,) = render_applied(applied)

    assert to_plain(line) == (
        "in force: revision 2, 1 step in 0.00 s, kept after 0.05 s; answered before and after: "
        "gateway 192.0.2.1"
    )


def test_the_state_comes_first_and_the_links_below() -> None:
    """With what was repaired and restored."""
    view = NetworksView(
        status=NetworksStatus(
            state=NetworksState.DRIFTED,
            reason="missing: bridge br-b",
            revision=4,
            networks=2,
            repairs=1,
            restored="change 5 was not confirmed and is taken back",
        ),
        document=NetworksDocument(),
        links=(
            LinkView(
                name="br-a",
                network="a",
                kind="bridge",
                is_up=True,
                mtu=1450,
                addresses=("10.20.0.1/24",),
                ports=("eth1",),
            ),
            LinkView(name="vx7", network="a", kind="vxlan", is_up=False, mtu=1450, master="br-a"),
        ),
    )

    lines = [to_plain(spans).rstrip() for spans in render_view(view, width=100)]

    assert lines[0] == "drifted: missing: bridge br-b; revision 4, 2 networks, drift: repair"
    assert lines[1] == "repaired 1 time since the service started"
    assert lines[2].startswith("restored  change 5")
    assert lines[5].split() == ["br-a", "a", "bridge", "up", "1450", "-", "10.20.0.1/24", "eth1"]
    assert lines[6].split() == ["vx7", "a", "vxlan", "down", "1450", "br-a"]
