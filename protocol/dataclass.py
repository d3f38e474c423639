"""The standard library's dataclass, as far as records use it, made in a fiftieth of the time.

The standard one compiles six methods for each class when it is made, which takes a millisecond.
Some hundred records make a tree, few of them are used in any one process, and of those hardly one
is compared, hashed and shown; so here each method is made when it is first needed. What a class
does is the same, with these differences: there are always slots, a class with fields has no
subclass with more, and every field is compared, shown and given to ``__init__``.

To a type checker, and to the functions of ``dataclasses``, these are the standard ones.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

_T = TypeVar("_T")

_NOTHING: Any = type("_Nothing", (), {"__repr__": lambda _self: "NOTHING"})()
_FIELDS = "__record_fields__"
# Any in this module: of the values of fields and the methods of classes nothing is known.


class Field:
    """A field of a record.

    Attributes:
        name: of the field.
        default: its value unless given; NOTHING for none.
        default_factory: makes its value unless given; NOTHING for none.
    """

    __slots__ = ("default", "default_factory", "name")

    def __init__(self, name: str, default: Any, default_factory: Any) -> None:
        self.name = name
        self.default = default
        self.default_factory = default_factory

    @property
    def is_required(self) -> bool:
        """Whether it has to be given."""
        return self.default is _NOTHING and self.default_factory is _NOTHING

    def make_default(self) -> Any:
        """Its value where none is given; NOTHING where it has to be."""
        return self.default if self.default_factory is _NOTHING else self.default_factory()


def fields_of(cls: type) -> tuple[Field, ...]:
    """The fields of a record, or of a class that the standard library has made.

    Raises:
        TypeError: the class is neither.
    """
    found: tuple[Field, ...] | None = getattr(cls, _FIELDS, None)
    if found is not None:
        return found
    import dataclasses

    def own(value: Any) -> Any:
        return _NOTHING if value is dataclasses.MISSING else value

    standard = dataclasses.fields(cls)
    return tuple(Field(it.name, own(it.default), own(it.default_factory)) for it in standard)


def is_dataclass(value: object) -> bool:
    """Whether a value or class is a record, or something that the standard library has made."""
    if hasattr(value, _FIELDS):
        return True
    standard = sys.modules.get("dataclasses")
    return standard is not None and standard.is_dataclass(value)


def _field(*, default_factory: Callable[[], Any]) -> Field:
    return Field("", _NOTHING, default_factory)


def _replace(record: _T, /, **changes: Any) -> _T:
    for item in fields_of(type(record)):
        if item.name not in changes:
            changes[item.name] = getattr(record, item.name)
    return type(record)(**changes)


def _dataclass(
    *, slots: bool, frozen: bool = False, eq: bool = True, kw_only: bool = False
) -> Callable[[type[_T]], type[_T]]:
    assert slots

    def make(cls: type[_T]) -> type[_T]:
        found = tuple(_find_fields(cls))
        space = {name: it for name, it in cls.__dict__.items() if name not in _DROPPED}
        for item in found:
            space.pop(item.name, None)
        space |= {"__slots__": tuple(item.name for item in found), _FIELDS: found}
        space["__match_args__"] = () if kw_only else space["__slots__"]
        space["__dataclass_fields__"] = _Later(_standard_fields)
        space["__dataclass_params__"] = _Later(_standard_parameters)
        space["__init__"] = _Later(_make_init, is_frozen=frozen, is_kw_only=kw_only)
        space.setdefault("__repr__", _Later(_make_repr))
        if eq:
            space.setdefault("__eq__", _Later(_make_eq))
            space["__hash__"] = _Later(_make_hash) if frozen else None
        if frozen:
            space |= _FROZEN
        made: Any = type(cls)
        again: type[_T] = made(cls.__name__, cls.__bases__, space)
        return again

    return make


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
else:
    dataclass, field, replace = _dataclass, _field, _replace

# What a class gets by itself, and its copy anew.
_DROPPED = frozenset(("__dict__", "__weakref__"))


def _find_fields(cls: type) -> Iterator[Field]:
    assert not any(hasattr(base, _FIELDS) for base in cls.__bases__), cls
    # The inspect module, which has a function for this, takes as long to import as all of ours.
    annotations = cls.__dict__.get("__annotations__", {})  # noqa: RUF063 - as said
    for name, annotation in annotations.items():
        assert isinstance(annotation, str), "from __future__ import annotations is missing"
        if annotation.startswith(("ClassVar", "typing.ClassVar")):
            continue
        default = cls.__dict__.get(name, _NOTHING)
        if isinstance(default, Field):
            yield Field(name, _NOTHING, default.default_factory)
            continue
        if isinstance(default, (list, dict, set)):
            raise ValueError(f"{cls.__name__}.{name} would be the same {default!r} for all")
        yield Field(name, default, _NOTHING)


class _Later:
    """Something of a class that is made when it is first asked for.

    Args:
        make: makes it; gets the class.
        options: also given to ``make``.
    """

    __slots__ = ("_cls", "_make", "_name", "_options")

    def __init__(self, make: Callable[..., Any], **options: bool) -> None:
        self._make = make
        self._options = options

    def __set_name__(self, owner: type, name: str) -> None:
        self._cls, self._name = owner, name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        made = self._make(self._cls, **self._options)
        setattr(self._cls, self._name, made)
        return made if instance is None else getattr(instance, self._name)


def _make_init(cls: type, *, is_frozen: bool, is_kw_only: bool) -> Any:
    """As anybody would write it: the standard library's takes one look-up more per field."""
    space: dict[str, Any] = {"NOTHING": _NOTHING}
    parameters, lines = ["*"] if is_kw_only and fields_of(cls) else [], []
    for item in fields_of(cls):
        name, value = item.name, item.name
        if item.default_factory is not _NOTHING:
            space[f"_make_{name}"] = item.default_factory
            parameters.append(f"{name}=NOTHING")
            value = f"_make_{name}() if {name} is NOTHING else {name}"
        elif item.default is not _NOTHING:
            space[f"_default_{name}"] = item.default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        if is_frozen:
            space[f"_set_{name}"] = cls.__dict__[name].__set__
        lines.append(f"_set_{name}(self, {value})" if is_frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    body = "\n ".join(lines or ["pass"])
    text = f"def __init__(self, {', '.join(parameters)}):\n {body}\n"
    # Compiled first: a Ctrl-C while exec works on a text ends the process by SIGINT in the end,
    # even where it is caught. The names are a class's own, and so identifiers.
    exec(compile(text, "<record>", "exec"), space)  # noqa: S102
    made = space["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__module__ = cls.__module__
    made.__annotations__ = {
        **{name: cls.__annotations__[name] for name in cls.__slots__},  # type: ignore[attr-defined]
        "return": "None",
    }
    return made


def _values(cls: type) -> Callable[[Any], tuple[Any, ...]]:
    names = [item.name for item in fields_of(cls)]
    if len(names) > 1:
        return operator.attrgetter(*names)
    if not names:
        return lambda _record: ()
    only = operator.attrgetter(names[0])
    return lambda record: (only(record),)


def _make_eq(cls: type) -> Any:
    values = _values(cls)

    def __eq__(self: object, other: object) -> Any:  # noqa: N807
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    return __eq__


def _make_hash(cls: type) -> Any:
    values = _values(cls)

    def __hash__(self: object) -> int:  # noqa: N807
        return hash(values(self))

    return __hash__


def _make_repr(cls: type) -> Any:
    from reprlib import recursive_repr

    names = [item.name for item in fields_of(cls)]

    @recursive_repr()
    def __repr__(self: object) -> str:  # noqa: N807
        shown = (f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    return __repr__


def _refuse_set(_self: object, name: str, _value: object) -> None:
    import dataclasses

    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(_self: object, name: str) -> None:
    import dataclasses

    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _get_state(self: object) -> list[Any]:
    return [getattr(self, item.name) for item in fields_of(type(self))]


def _set_state(self: object, state: list[Any]) -> None:
    for item, value in zip(fields_of(type(self)), state, strict=True):
        object.__setattr__(self, item.name, value)


_FROZEN = {
    "__setattr__": _refuse_set,
    "__delattr__": _refuse_delete,
    "__getstate__": _get_state,
    "__setstate__": _set_state,
}


def _standard(cls: type) -> type:
    """The same fields in a class of the standard library's, for its functions."""
    import dataclasses

    made = []
    for item in fields_of(cls):
        kind: Any = cls.__annotations__[item.name]
        if item.default_factory is not _NOTHING:
            made.append((item.name, kind, dataclasses.field(default_factory=item.default_factory)))
        elif item.default is not _NOTHING:
            made.append((item.name, kind, dataclasses.field(default=item.default)))
        else:
            made.append((item.name, kind, dataclasses.field()))
    is_frozen = "__getstate__" in cls.__dict__
    return dataclasses.make_dataclass(
        cls.__name__,
        made,
        frozen=is_frozen,
        kw_only=not cls.__match_args__,  # type: ignore[attr-defined]
    )


def _standard_fields(cls: type) -> Any:
    return _standard(cls).__dataclass_fields__  # type: ignore[attr-defined]


def _standard_parameters(cls: type) -> Any:
    return _standard(cls).__dataclass_params__  # type: ignore[attr-defined]
