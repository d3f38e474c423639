"""Records do what the standard library's dataclasses do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import typing
from typing import ClassVar

import pytest

from protocol.dataclass import dataclass, field, fields_of, is_dataclass, replace


@dataclass(frozen=True, slots=True)
class Point:
    """A frozen record.

    Attributes:
        x, y: anything.
    """

    origin: ClassVar[int] = 0
    x: int
    y: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("negative")


@dataclass(slots=True)
class Bag:
    """A record that changes."""

    name: str
    items: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A record whose fields are given by name."""

    a: int = 1
    b: int


@dataclass(frozen=True, slots=True)
class Nothing:
    """A record without fields."""


@dataclass(eq=False, slots=True)
class Thing:
    """A record with an identity."""

    name: str


@dataclasses.dataclass(frozen=True)
class Standard:
    """One of the standard library's."""

    a: int
    b: list[int] = dataclasses.field(default_factory=list)


def test_frozen_records_are_values() -> None:
    """They are equal, hashed and shown by their fields, and never change."""
    point = Point(1)

    assert point == Point(1, (1,)) != Point(2)
    assert point != (1, (1,))
    assert hash(point) == hash(Point(1))
    assert repr(point) == "Point(x=1, y=(1,))"
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        point.x = 2  # type: ignore[misc]  # what is tested
    with pytest.raises(dataclasses.FrozenInstanceError, match="'x'"):
        del point.x  # type: ignore[misc]  # what is tested


def test_what_follows_the_fields_is_run() -> None:
    """``__post_init__`` can refuse a record."""
    with pytest.raises(ValueError, match="negative"):
        Point(-1)


def test_records_that_change_have_no_hash_and_share_no_default() -> None:
    """A default that is made is made for each."""
    bag = Bag("a")
    bag.items.append(1)

    assert Bag("a").items == []
    assert bag == Bag("a", [1])
    with pytest.raises(TypeError, match="unhashable"):
        hash(bag)


def test_a_default_that_can_change_is_refused() -> None:
    """It would be the same for all."""
    with pytest.raises(ValueError, match="the same"):

        @dataclass(slots=True)
        class _Wrong:
            items: list[int] = []  # noqa: RUF012 - what is tested


def test_fields_by_name() -> None:
    """They are refused by position, and their order is free of defaults."""
    assert Named(b=2) == Named(a=1, b=2)
    with pytest.raises(TypeError, match="positional"):
        Named(1, 2)  # type: ignore[misc]  # what is tested
    with pytest.raises(TypeError, match="'b'"):
        Named()  # type: ignore[call-arg]  # what is tested


def test_records_without_fields_and_with_an_identity() -> None:
    """The first are all equal, the second only to themselves."""
    thing = Thing("a")

    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    assert repr(Nothing()) == "Nothing()"
    assert thing == thing != Thing("a")
    assert hash(thing)


def test_a_match_sees_the_fields() -> None:
    """By position, as with the standard library's."""
    match Point(1):
        case Point(x, y):
            found = (x, y)

    assert found == (1, (1,))


def test_replace() -> None:
    """It makes another record, and serves the standard library's classes too."""
    assert replace(Point(1), x=2) == Point(2)
    assert replace(Standard(1), a=2) == Standard(2)
    with pytest.raises(TypeError, match="z"):
        replace(Point(1), z=2)


def test_fields_of_both_kinds() -> None:
    """Names and defaults of either; anything else is refused."""
    assert [(it.name, it.is_required) for it in fields_of(Point)] == [("x", True), ("y", False)]
    assert [(it.name, it.is_required) for it in fields_of(Standard)] == [("a", True), ("b", False)]
    assert fields_of(Standard)[1].make_default() == []
    assert is_dataclass(Point)
    assert is_dataclass(Standard(1))
    assert not is_dataclass(3)
    with pytest.raises(TypeError, match="dataclass"):
        fields_of(int)


def test_the_standard_functions_work() -> None:
    """Code that knows the standard library alone needs to know nothing of us."""
    assert dataclasses.is_dataclass(Point)
    assert [item.name for item in dataclasses.fields(Bag)] == ["name", "items"]
    assert dataclasses.asdict(Bag("a", [1])) == {"name": "a", "items": [1]}
    assert dataclasses.replace(Named(b=2), b=3) == Named(b=3)
    assert list(inspect.signature(Point).parameters) == ["x", "y"]
    assert typing.get_type_hints(Bag) == {"name": str, "items": list[int]}


@pytest.mark.parametrize("record", [Point(1), Bag("a", [1]), Named(b=1), Nothing()])
def test_records_can_be_copied(record: object) -> None:
    """Also by pickle, and also in depth."""
    assert copy.copy(record) == record
    assert copy.deepcopy(record) == record
    assert pickle.loads(pickle.dumps(record)) == record
