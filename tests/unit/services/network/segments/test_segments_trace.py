"""Which rule lets a packet pass or drops it: questions and answers, and the invariants."""

from __future__ import annotations

import pytest

from services.network.segments.model import IpProtocol
from services.network.segments.trace import TraceAnswer, TraceQuestion, trace
from tests.unit.services.network.segments.segments_samples import document, interface, rule

WEB = rule(
    "in", "label:app", "192.0.2.0/24", protocol="tcp", ports=("443", "8000-8010"), name="web"
)
SHOP = document(
    interface(1, WEB, rule("in", "10.20.0.2", protocol="icmp"), addresses=("10.20.0.1", "fd00::1")),
    interface(2, rule("out", "any"), labels=("app",), addresses=("10.20.0.2", "fd00::2")),
    interface(3, rule("out", "10.20.0.0/24", protocol="tcp", ports=("443",)), dhcp=True),
    interface(4),
    guarded=("vnet*",),
    trusted=("eth9",),
)


def ask(source: str, destination: str, **more: object) -> TraceAnswer:
    """The answer to a question about the shop."""
    question = {"source": source, "destination": destination, "port": 443, **more}
    return trace(SHOP, TraceQuestion(**question))  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize(
    ("source", "destination", "more", "accepted", "last"),
    [
        ("vnet2", "vnet1", {}, True, ""),
        ("vnet2", "vnet1", {"port": 8010}, True, ""),
        ("vnet2", "vnet1", {"port": 8011}, False, "not allowed in"),
        ("vnet2", "vnet1", {"protocol": IpProtocol.UDP}, False, "not allowed in"),
        ("vnet2", "vnet1", {"protocol": IpProtocol.ICMP}, True, ""),
        ("vnet2", "vnet1", {"source_address": "fd00::2"}, True, ""),
        ("vnet3", "vnet1", {}, False, "not allowed in"),
        ("vnet3", "vnet1", {"port": 444}, False, "not allowed out"),
        ("vnet3", "vnet1", {"port": 444, "established": True}, True, "answer in a flow"),
        ("vnet4", "vnet2", {}, False, "not allowed out"),
        ("vnet1", "vnet2", {"protocol": IpProtocol.ICMP, "established": True}, True, "an echo"),
        ("vnet2", "vnet1", {"source_address": "10.20.0.9"}, False, "forged source"),
        ("vnet2", "vnet1", {"source_mac": "52:54:00:00:00:09"}, False, "forged source"),
        ("vnet2", "vnet1", {"destination_mac": "52:54:00:00:00:09"}, False, "not allowed in"),
        ("eth0", "vnet1", {"source_address": "192.0.2.7"}, True, ""),
        ("eth0", "vnet1", {"source_address": "192.0.3.7"}, False, "not allowed in"),
        ("eth0", "vnet1", {"source_address": "10.20.0.2"}, False, "a guest's address from"),
        ("eth9", "vnet1", {"source_address": "10.20.0.2"}, True, ""),
        ("vnet7", "vnet1", {"source_address": "192.0.2.7"}, False, "guarded and the"),
        ("vnet2", "vnet7", {"destination_address": "192.0.2.7"}, False, "guarded and the"),
        ("host", "vnet1", {"source_address": "192.0.2.7"}, True, ""),
        ("host", "vnet4", {"source_address": "192.0.2.7"}, False, "not allowed in"),
        ("vnet2", "host", {"destination_address": "10.20.0.254"}, True, ""),
        ("vnet4", "host", {"destination_address": "10.20.0.254"}, False, "not allowed out"),
        (
            "eth0",
            "eth1",
            {"source_address": "192.0.2.7", "destination_address": "192.0.2.8"},
            True,
            "",
        ),
    ],
)
def test_a_packet_meets_the_rule_that_decides(
    source: str, destination: str, more: dict[str, object], accepted: bool, last: str
) -> None:  # fmt: skip
    """The verdict and the comment of the last rule are those of the document's meaning."""
    answer = ask(source, destination, **more)

    assert answer.accepted is accepted, answer
    comment = answer.steps[-1].comment if answer.steps else ""
    assert last in comment


def test_the_rule_of_the_document_is_named() -> None:
    """By its name where it has one, else by its place."""
    by_network = ask("eth0", "vnet1", source_address="192.0.2.7")
    by_label = ask("vnet2", "vnet1")

    assert "vnet1: web" in [step.because for step in by_network.steps]
    assert ("web", "label app") in [(step.comment, step.because) for step in by_label.steps]
    assert "vnet2: out 1" in [step.because for step in by_label.steps]


def test_no_listed_interface_means_no_step() -> None:
    """The rules are not even entered."""
    answer = ask("eth0", "eth1", source_address="192.0.2.7", destination_address="192.0.2.8")

    assert answer == TraceAnswer(accepted=True, packet=answer.packet, steps=())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "a", "destination": "a"}, "are both 'a'"),
        ({"source": "a", "destination": "b", "port": 65536}, "not 0 to 65535"),
        ({"source": "a", "destination": "b", "protocol": IpProtocol.ANY}, "must be tcp"),
        ({"source": "a", "destination": "b", "source_address": "x"}, "does not appear"),
    ],
)
def test_a_question_without_meaning_is_refused(fields: dict[str, object], message: str) -> None:
    """Each fault is named."""
    with pytest.raises(ValueError, match=message):
        TraceQuestion(**fields)  # type: ignore[arg-type]  # any field


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "say the destination's address"),
        ({"destination_address": "fd00::9", "source_address": "10.20.0.2"}, "of two families"),
    ],
)
def test_an_address_that_nobody_knows_is_asked_for(more: dict[str, object], message: str) -> None:
    """Only listed interfaces have addresses that need not be said."""
    with pytest.raises(ValueError, match=message):
        ask("vnet2", "host", **more)
