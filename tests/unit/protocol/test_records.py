"""Records survive the wire, and nothing that is not one gets in."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.records import Plain, from_wire, to_wire


class Colour(enum.Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    """A nested record."""

    number: int = 0


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A record with a field of every kind."""

    name: str
    flag: bool = False
    ratio: float = 1.0
    data: bytes = b""
    colour: Colour = Colour.RED
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    table: dict[str, int] = field(default_factory=dict)
    maybe: str | None = None
    anything: Plain = None
    self_: Outer | None = None


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
outers = st.builds(
    Outer,
    name=st.text(max_size=20),
    flag=st.booleans(),
    ratio=st.floats(allow_nan=False),
    data=st.binary(max_size=20),
    colour=st.sampled_from(Colour),
    inner=st.builds(Inner, st.integers()),
    many=st.lists(st.builds(Inner, st.integers()), max_size=3).map(tuple),
    table=st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    maybe=st.none() | st.text(max_size=5),
    anything=plain,
    self_=st.none() | st.builds(Outer, name=st.text(max_size=5)),
)


@given(outers)
def test_a_record_survives_the_wire(record: Outer) -> None:
    """Decoding what was encoded gives the same record."""
    assert from_wire(Outer, to_wire(record)) == record


def test_defaults_are_left_out() -> None:
    """A message carries what is not the default, and nothing else."""
    assert to_wire(Outer(name="a")) == {"name": "a"}


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({}, "lacks name"),
        ({"name": "a", "nmae": "b"}, "unknown field 'nmae'"),
        ({"name": 1}, "Outer.name: expected a value of type str"),
        ({"name": "a", "flag": 1}, "Outer.flag"),
        ({"name": "a", "ratio": True}, "Outer.ratio: expected a number"),
        ({"name": "a", "colour": "green"}, "one of red, blue"),
        ({"name": "a", "inner": {"number": True}}, "Outer.inner.number"),
        ({"name": "a", "many": [{"number": 1}, {"number": "x"}]}, r"Outer.many\[1\].number"),
        ({"name": "a", "table": {"k": "v"}}, "Outer.table.k"),
        ({"name": "a", "maybe": 3}, "Outer.maybe"),
        ([], "expected a map"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(value: Any, where: str) -> None:
    """The error names the field by its dotted path."""
    with pytest.raises(RemoteProtocolError, match=where):
        from_wire(Outer, value)


def test_a_value_that_no_record_may_hold_is_our_own_fault() -> None:
    """Sending an object is a local error."""
    with pytest.raises(LocalProtocolError, match="object"):
        to_wire({"a": object()})
