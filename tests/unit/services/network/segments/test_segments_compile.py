"""Documents to rulesets, and from one ruleset to another: pure rules and invariants."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.network.segments import render
from services.network.segments.boxes import Box, disjoint
from services.network.segments.compile import COMBINATIONS_MAX, compile_document
from services.network.segments.errors import SegmentsTooLargeError
from services.network.segments.model import SegmentDocument, SegmentInterface
from services.network.segments.ruleset import FAMILY, TABLE, Ruleset
from tests.unit.services.network.segments.segments_samples import document, interface, rule

_BOXES = st.lists(
    st.builds(
        lambda first, size, port, ports, origin: Box(
            first, first + size, port, port + ports, origin
        ),
        st.integers(0, 12),
        st.integers(0, 6),
        st.integers(0, 12),
        st.integers(0, 6),
        st.sampled_from(["a", "b", "c"]),
    ),
    min_size=1,
    max_size=8,
)


def _cells(box: Box) -> set[tuple[int, int]]:
    addresses = range(box.first, box.last + 1)
    return set(itertools.product(addresses, range(box.port_first, box.port_last + 1)))


@given(_BOXES)
def test_disjoint_boxes_cover_the_same_and_nothing_twice(boxes: list[Box]) -> None:
    """Nft refuses overlaps, and a lost or added cell would close or open a port."""
    found = [_cells(box) for box in disjoint(boxes)]

    assert set().union(*found) == set().union(*map(_cells, boxes))
    assert sum(map(len, found)) == len(set().union(*found))


_PEERS = st.sampled_from(
    ["any", "10.0.0.0/8", "10.20.0.0/16", "fd00::/8", "label:web", "label:app", "10.20.0.7"]
)
_RULES = st.builds(
    lambda direction, peers, protocol, ports: rule(
        direction, *peers, protocol=protocol, ports=tuple(ports) if protocol == "tcp" else ()
    ),
    st.sampled_from(["in", "out"]),
    st.lists(_PEERS, min_size=1, max_size=3),
    st.sampled_from(["any", "tcp", "icmp"]),
    st.lists(st.sampled_from(["80", "443", "80-90", "85-100"]), max_size=3),
)


@st.composite
def _documents(draw: st.DrawFn) -> SegmentDocument:
    numbers = draw(st.sets(st.integers(1, 6), min_size=1, max_size=4))
    found: list[SegmentInterface] = []
    for number in sorted(numbers):
        addresses = [f"10.20.0.{number}"]
        if draw(st.booleans()):
            addresses.append(f"fd00::{number}")
        found.append(
            interface(
                number,
                *draw(st.lists(_RULES, max_size=3)),
                addresses=tuple(addresses),
                labels=tuple(draw(st.sets(st.sampled_from(["web", "app"])))),
                dhcp=draw(st.booleans()),
            )
        )
    elsewhere = {"web": ("10.99.0.1",), "app": ("10.99.0.2",)}
    guarded = draw(st.sampled_from([(), ("vnet*",)]))
    return document(*found, elsewhere=elsewhere, guarded=guarded)


class Kernel:
    """A table in memory that takes commands as nft's transaction does, and refuses as it does."""

    def __init__(self) -> None:
        self.sets: dict[str, Any] = {}
        self.maps: dict[str, Any] = {}
        self.chains: dict[str, list[str]] = {}

    def commit(self, commands: list[render.Command]) -> None:
        """Carry the commands out in order."""
        for command in commands:
            ((verb, body),) = command.body.items()
            ((kind, fields),) = body.items()
            assert fields["family"] == FAMILY
            assert fields.get("table", fields["name"] if kind == "table" else "") == TABLE
            getattr(self, f"_{verb}_{kind}")(fields)
        self._check_references()

    def present(self) -> render.Present:
        """The names in it."""
        return render.Present(frozenset(self.sets), frozenset(self.maps), frozenset(self.chains))

    def _add_table(self, fields: dict[str, Any]) -> None:
        """It is there."""

    def _add_set(self, fields: dict[str, Any]) -> None:
        assert fields["name"] not in self.sets
        self.sets[fields["name"]] = set()

    def _add_map(self, fields: dict[str, Any]) -> None:
        assert fields["name"] not in self.maps
        self.maps[fields["name"]] = {}

    def _add_chain(self, fields: dict[str, Any]) -> None:
        assert fields["name"] not in self.chains
        self.chains[fields["name"]] = []

    def _add_rule(self, fields: dict[str, Any]) -> None:
        self.chains[fields["chain"]].append(json.dumps(fields["expr"]))

    def _flush_chain(self, fields: dict[str, Any]) -> None:
        self.chains[fields["name"]].clear()

    def _delete_chain(self, fields: dict[str, Any]) -> None:
        assert not self.chains.pop(fields["name"]), "a chain with rules can't be deleted"

    def _delete_set(self, fields: dict[str, Any]) -> None:
        del self.sets[fields["name"]]

    def _delete_map(self, fields: dict[str, Any]) -> None:
        del self.maps[fields["name"]]

    def _add_element(self, fields: dict[str, Any]) -> None:
        for item in fields["elem"]:
            if fields["name"] in self.maps:
                assert item[0] not in self.maps[fields["name"]]
                self.maps[fields["name"]][item[0]] = json.dumps(item[1])
            else:
                self.sets[fields["name"]].add(json.dumps(item))

    def _delete_element(self, fields: dict[str, Any]) -> None:
        for item in fields["elem"]:
            if fields["name"] in self.maps:
                assert self.maps[fields["name"]].pop(item[0]) == json.dumps(item[1])
            else:
                self.sets[fields["name"]].remove(json.dumps(item))

    def _check_references(self) -> None:
        text = json.dumps([list(self.chains.values()), list(self.maps.values())])
        for kind, names in (("target", self.chains), ("data", self.maps), ("set", self.sets)):
            marks = text.split(f'\\"{kind}\\": \\"') if kind != "target" else []
            for part in marks[1:]:
                assert part.split('\\"')[0].lstrip("@") in names
        for mapping in self.maps.values():
            for verdict in mapping.values():
                ((_, target),) = json.loads(verdict).items()
                assert target["target"] in self.chains


def _state(kernel: Kernel) -> tuple[Any, Any, Any]:
    return kernel.sets, kernel.maps, kernel.chains


def _fresh(ruleset: Ruleset) -> Kernel:
    kernel = Kernel()
    kernel.commit(render.replace(None, ruleset))
    return kernel


@given(_documents(), _documents())
def test_both_ways_to_a_ruleset_end_in_the_same_table(
    known: SegmentDocument, wanted: SegmentDocument
) -> None:
    """The difference and the whole replacement give what a fresh table would hold."""
    before, after = compile_document(known), compile_document(wanted)
    by_change, by_replacement = _fresh(before), _fresh(before)

    by_change.commit(render.change(before, after))
    by_replacement.commit(render.replace(by_replacement.present(), after))

    assert _state(by_change) == _state(_fresh(after))
    assert _state(by_replacement) == _state(_fresh(after))


@given(_documents())
def test_compiling_is_deterministic_and_a_change_to_itself_is_empty(
    wanted: SegmentDocument,
) -> None:
    """The same document gives the same text, byte for byte."""
    one, other = compile_document(wanted), compile_document(wanted)

    assert render.to_json(render.replace(None, one)) == render.to_json(render.replace(None, other))
    assert render.change(one, other) == []


@given(_documents())
def test_every_name_is_one_that_nft_takes(wanted: SegmentDocument) -> None:
    """Set, map and chain names are short, unique and of plain letters."""
    ruleset = compile_document(wanted)
    names = [*ruleset.sets, *ruleset.maps, *ruleset.chains]

    assert all(name.replace("-", "").isalnum() and len(name) < 128 for name in names)
    assert set(ruleset.maps).isdisjoint(ruleset.sets)


def test_interfaces_with_the_same_rules_share_a_chain() -> None:
    """A thousand guests of one kind cost one chain."""
    same = rule("in", "label:web", protocol="tcp", ports=("80",))
    ruleset = compile_document(
        document(*(interface(n, same, labels=("web",)) for n in range(1, 1001)))
    )

    assert len(set(ruleset.maps["in"].elements.values())) == 1
    assert len(ruleset.maps["in"].elements) == 1000


def test_a_guest_that_joins_a_label_changes_no_rule() -> None:
    """Only elements are added: the label's, and its own."""
    rules = (rule("in", "label:web"),)
    known = document(interface(1, *rules, labels=("web",)))
    wanted = document(interface(1, *rules, labels=("web",)), interface(2, labels=("web",)))

    commands = render.change(compile_document(known), compile_document(wanted))

    assert {next(iter(command.body)) for command in commands} == {"add"}
    assert {next(iter(command.body["add"])) for command in commands} == {"element"}


@pytest.mark.parametrize(("extra", "is_refused"), [(0, False), (1, True)])
def test_combinations_of_an_interface_are_bounded(extra: int, *, is_refused: bool) -> None:
    """64 peers times 64 ports are allowed, and one more names the interface."""
    networks = [f"10.{n}.0.0/16" for n in range(64)]
    ports = [str(number) for number in range(1, 65)]
    rules = [
        rule("in", *networks, protocol="tcp", ports=tuple(part))
        for part in (ports[:32], ports[32:])
    ]
    rules += [rule("out", "10.0.0.1")] * extra
    wanted = document(interface(1, *rules))
    assert len(networks) * len(ports) == COMBINATIONS_MAX

    if is_refused:
        with pytest.raises(SegmentsTooLargeError, match="vnet1 make 4097 combinations"):
            compile_document(wanted)
    else:
        compile_document(wanted)


def test_elements_of_a_document_are_bounded() -> None:
    """The interface at which the limit is passed is named."""
    networks = tuple(f"10.{2 * n}.0.0/16" for n in range(64))
    ports = tuple(str(2 * number) for number in range(1, 33))
    one = rule("in", *networks, protocol="tcp", ports=ports)

    with pytest.raises(SegmentsTooLargeError, match="those of vnet25 make 51200 elements"):
        compile_document(document(*(interface(n, one) for n in range(1, 31))))


def test_a_command_tells_whose_document_it_comes_from() -> None:
    """Chains and rules of labels name the interface."""
    ruleset = compile_document(
        document(interface(1, rule("in", "label:web"), labels=("web",)), interface(2))
    )

    origins = {command.origin for command in render.replace(None, ruleset)}

    assert "vnet1" in origins
