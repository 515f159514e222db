"""
Typed events: a class declares an event, and its instances are log messages.

The only module that knows what was declared, and how to read an instance: dataclasses, the
objects of pydantic, attrs and msgspec, named tuples, and what makes a TypedDict.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
import sys
import typing

from collections.abc import Callable, Iterator, Mapping
from types import CodeType
from typing import Annotated, Any, TypeVar


__all__ = [
    "RATE",
    "Declaration",
    "DistinctId",
    "declaration_of",
    "declared_as",
    "declared_in",
    "event",
    "expand",
    "rate",
]

_Declared = TypeVar("_Declared", bound=Callable[..., Any])
_MARK = "__posthog_event__"
_LONGEST = 200  # bytes, as of every event's name


class _Person:
    """What tells `DistinctId` from other strings."""

    def __repr__(self) -> str:
        return "DistinctId"


#: A field with this type is the person, and no property.
DistinctId = Annotated[str, _Person()]


@dataclasses.dataclass(frozen=True, eq=False)
class Declaration:
    """
    One event of a plan.

    ``kind`` is the class, or the function that makes a TypedDict; ``rate`` the share of the
    people whose events are kept, where it has one.
    """

    name: str
    kind: Any
    description: str
    since: str
    deprecated: str
    rate: float | None
    code: CodeType
    line: int

    @property
    def module(self) -> str:
        """The dotted name of the module that declares it."""
        return str(self.kind.__module__)

    @functools.cached_property
    def hints(self) -> Mapping[str, Any]:
        """The types of the fields; texts where they cannot be resolved."""
        try:
            return typing.get_type_hints(self.fields_class, include_extras=True)
        except Exception:  # a name that only type checkers import
            classes = reversed(getattr(self.fields_class, "__mro__", (self.fields_class,)))
            return {k: v for one in classes for k, v in _annotations(one).items()}

    @property
    def fields_class(self) -> Any:
        """The class that has the fields: of a function, the one that it returns."""
        if isinstance(self.kind, type):
            return self.kind
        try:
            return typing.get_type_hints(self.kind).get("return")
        except Exception:
            return None

    @functools.cached_property
    def person(self) -> str | None:
        """The name of the field that is the person; None where there is none."""
        return next((name for name, hint in self.hints.items() if _is_person(hint)), None)

    def written(self, field: str) -> str:
        """Return the name of the property that *field* becomes: pydantic and msgspec rename."""
        described = getattr(self.fields_class, "model_fields", {}).get(field)
        alias = getattr(described, "serialization_alias", None)
        names = getattr(self.fields_class, "__struct_fields__", ())
        keys = getattr(self.fields_class, "__struct_encode_fields__", ())
        return str(alias or dict(zip(names, keys, strict=True)).get(field, field))

    def expand(self, value: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return *fields*, as of a log call's ``extra``, with those of the instance *value*."""
        own = _read(value)
        person = own.pop(self.written(self.person), None) if self.person else None
        given = fields.get("properties")
        beneath = given if isinstance(given, Mapping) else {}
        if given is not None and beneath is not given:
            beneath = {"properties": given}
        found = {**fields, "event": self.name, "properties": {**beneath, **own}}
        if self.rate is not None:
            found[RATE] = self.rate
        if found.get("distinct_id") is None and person is not None:
            found["distinct_id"] = person
        return found


#: Where a record that goes through a queue has the rate of its declaration.
RATE = "_posthog_sample_rate"

_declared: dict[str, dict[str, Declaration]] = {}


def event(
    name: str,
    *,
    description: str = "",
    since: str = "",
    deprecated: str = "",
    sample: float | None = None,
) -> Callable[[_Declared], _Declared]:
    """
    Declare the event *name*, whose instances are log messages.

    It decorates dataclasses, classes of pydantic, attrs and msgspec, named tuples, TypedDicts and
    functions that return one, above the decorator that makes the class::

        @event("movie played")
        @dataclass(frozen=True)
        class MoviePlayed:
            movie_id: str

        log.info(MoviePlayed("123"), extra={"distinct_id": "user-1"})

    Raises ValueError for a second event of the same name in one module.

    Args:
        name: the event's name, as it arrives.
        description: one sentence for the plan; where empty, the docstring's first line.
        since: the version or the day from which on the event is logged.
        deprecated: what to use instead, or why not to use it.
        sample: the share of people, from 0 to 1, whose events are kept; None: all.
    """
    name = _checked_name(name)
    texts = {"description": description, "since": since, "deprecated": deprecated}
    for parameter, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{parameter}: a string, not a value of type {type(text).__name__}")
    share = None if sample is None else rate("sample", sample)
    frame = sys._getframe(1)

    def declare(kind: _Declared) -> _Declared:
        if not callable(kind):
            raise TypeError(f"event {name!r}: a class, or a function that returns a TypedDict")
        declaration = Declaration(
            name,
            kind,
            description or _first_line(kind),
            since,
            deprecated,
            share,
            frame.f_code,
            getattr(kind, "__firstlineno__", frame.f_lineno),
        )
        _register(declaration)
        marked: _Declared = _marked(kind, declaration)
        return marked

    return declare


def declaration_of(value: Any) -> Declaration | None:
    """Return what *value* is an instance of, if that was declared."""
    kind = type(value)
    if kind is str:
        return None
    try:
        found = getattr(kind, _MARK, None)
    except Exception:  # a metaclass that raises
        return None
    return found if type(found) is Declaration else None


def declared_in(module: str) -> list[Declaration]:
    """Return what *module*, and the modules inside of it, have declared, by name."""
    own = [
        declaration
        for name, declarations in _declared.copy().items()
        if name == module or name.startswith(f"{module}.")
        for declaration in declarations.values()
    ]
    return sorted(own, key=lambda one: (one.name, one.module))


def declared_as(name: str) -> list[Declaration]:
    """Return what is declared under the event's *name*, in whichever modules."""
    return [own[name] for own in _declared.copy().values() if name in own]


def expand(fields: Mapping[str, Any], name: Any) -> tuple[Mapping[str, Any], Any]:
    """Return *fields* and *name*; where either holds a typed event, as those of a plain one."""
    for value in (name, fields.get("event")):
        declaration = None if value is None else declaration_of(value)
        if declaration is not None:
            return declaration.expand(value, fields), ""
    return fields, name


def rate(name: str, value: Any) -> float:
    """Return *value* if it is a share, from 0 to 1; *name* is the parameter's, for the error."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: a rate from 0 to 1, not a value of type {type(value).__name__}")
    if not 0 <= value <= 1:  # also not a number
        raise ValueError(f"{name}: {value} is not a rate from 0 to 1")
    return float(value)


def _checked_name(name: Any) -> str:
    if isinstance(name, enum.Enum):
        name = name.value
    if not isinstance(name, str):
        raise TypeError(
            f"name: a string, not {getattr(name, '__name__', type(name).__name__)}:"
            ' write @event("movie played")'
        )
    if not name.strip() or not name.isprintable() or len(name.encode()) > _LONGEST:
        raise ValueError(f"name: {name!r:.60} is not 1 to {_LONGEST} bytes of printable text")
    return str.__str__(name)


def _register(new: Declaration) -> None:
    declarations = _declared.setdefault(new.module, {})
    old = declarations.get(new.name)
    if old is not None and not _is_same_again(old, new):
        raise ValueError(
            f"event {new.name!r} is declared twice in {new.module}:"
            f" by {old.kind.__qualname__} and by {new.kind.__qualname__}"
        )
    declarations[new.name] = new


def _is_same_again(old: Declaration, new: Declaration) -> bool:
    """Return whether *new* is what *old* was, when a module or a notebook's cell runs again."""
    same_code = old.code is new.code
    if old.kind.__qualname__ == new.kind.__qualname__:
        return not same_code or old.line == new.line
    return not same_code and old.code.co_name == new.code.co_name == "<module>"


def _marked(kind: Any, declaration: Declaration) -> Any:
    """Return *kind* such that its instances are known; a TypedDict's are plain dicts otherwise."""
    if isinstance(kind, type) and not typing.is_typeddict(kind):
        setattr(kind, _MARK, declaration)
        return kind
    planned = type(f"{kind.__name__}", (_PlannedDict,), {_MARK: declaration})

    @functools.wraps(kind, updated=())
    def make(*args: Any, **kwargs: Any) -> Any:
        return planned(kind(*args, **kwargs))

    return make


class _PlannedDict(dict[str, Any]):
    """A TypedDict that knows which event it is; copies and pickles of it are plain dicts."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


def _read(value: Any) -> dict[str, Any]:
    """Return the fields of an instance as a dict of its own."""
    kind = type(value)
    if isinstance(value, Mapping):
        return dict(value)
    if callable(getattr(kind, "model_dump", None)):
        return dict(value.model_dump(by_alias=True))
    return {name: member for name, member in _members(value, kind) if not _is_unset(member)}


def _members(value: Any, kind: Any) -> Iterator[tuple[str, Any]]:
    names = (
        [field.name for field in dataclasses.fields(value)]
        if dataclasses.is_dataclass(value)
        else [field.name for field in getattr(kind, "__attrs_attrs__", ())]
        or getattr(kind, "__struct_fields__", None)
        or getattr(kind, "_fields", None)
        or [name for name in vars(value) if not name.startswith("_")]
    )
    # msgspec: a field may be called otherwise where it is written down.
    written = getattr(kind, "__struct_encode_fields__", names)
    for name, key in zip(names, written, strict=True):
        yield key, getattr(value, name)


def _is_unset(member: Any) -> bool:
    """Return whether it is what msgspec writes as nothing at all."""
    kind = type(member)
    return kind.__name__ == "UnsetType" and kind.__module__.startswith("msgspec")


def _annotations(kind: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(kind, "__dict__", {}).get("__annotations__", {})
    return found


def _is_person(hint: Any) -> bool:
    if isinstance(hint, (str, typing.ForwardRef)):
        return re.search(r"\bDistinctId\b", str(hint)) is not None
    if any(isinstance(one, _Person) for one in getattr(hint, "__metadata__", ())):
        return True
    return any(map(_is_person, typing.get_args(hint)))


def _first_line(kind: Any) -> str:
    """Return the first line of the docstring, unless a dataclass wrote it itself."""
    text = (getattr(kind, "__doc__", None) or "").strip().partition("\n")[0]
    return "" if text.startswith(f"{kind.__name__}(") or kind.__doc__ == dict.__doc__ else text
