"""What differs between two documents, in words."""

from __future__ import annotations

from services.network.segments.plan import StepKind, describe_rule, plan_steps
from tests.unit.services.network.segments.segments_samples import document, interface, rule

WEB = rule("in", "any", protocol="tcp", ports=("80",), name="web")


def test_equal_documents_differ_in_nothing() -> None:
    """No step."""
    assert plan_steps(document(interface(1, WEB)), document(interface(1, WEB))) == ()


def test_steps_tell_what_is_added_changed_and_removed() -> None:
    """In the order of the wanted document, removals last."""
    known = document(interface(1, WEB), interface(2), guarded=("tap*",))
    wanted = document(
        interface(3, dhcp=True),
        interface(1, rule("out", "10.0.0.0/8"), addresses=("10.20.0.9",), labels=("x",)),
        guarded=("vnet*",),
        elsewhere={"x": ("10.9.0.1",)},
    )

    steps = plan_steps(known, wanted)

    assert [(step.kind, step.subject) for step in steps] == [
        (StepKind.CHANGE, "guarded"),
        (StepKind.CHANGE, "label x elsewhere"),
        (StepKind.ADD, "interface vnet3"),
        (StepKind.CHANGE, "interface vnet1"),
        (StepKind.REMOVE, "interface vnet2"),
    ]
    assert steps[0].details == ("- tap*", "+ vnet*")
    assert steps[3].details == (
        "- address 10.20.0.1",
        "- in tcp 80 from any (web)",
        "+ address 10.20.0.9",
        "+ label x",
        "+ out any to 10.0.0.0/8",
    )


def test_another_order_of_rules_is_said_to_be_one() -> None:
    """It is a difference of the document, and none of its meaning."""
    other = rule("out", "any")
    (step,) = plan_steps(document(interface(1, WEB, other)), document(interface(1, other, WEB)))

    assert step.details == ("+ the same rules in another order",)


def test_a_rule_is_read_like_a_sentence() -> None:
    """Direction, protocol, ports, peers, name."""
    assert describe_rule(WEB) == "in tcp 80 from any (web)"
    assert describe_rule(rule("out", "10.0.0.1", "10.0.0.2")) == "out any to 10.0.0.1 10.0.0.2"
