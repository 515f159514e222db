"""
Typed events: a class declares an event, and its instances are log messages.

The only module that knows the declarations and how to read an instance: of dataclasses, of
pydantic, attrs and msgspec classes, of named tuples, and of functions that make a TypedDict.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import inspect
import re
import sys
import types
import typing

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

from .foreign import Unreadable, attributes, dumped
from .kinds import properties_in
from .proxies import unwrapped


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
_LONGEST = 200  # bytes of an event's name


class _Person:
    """The annotation by which `DistinctId` differs from `str`."""

    def __repr__(self) -> str:
        return "DistinctId"


#: The type of the field that holds the ``distinct_id``; it is not sent as a property.
DistinctId = Annotated[str, _Person()]


@dataclasses.dataclass(frozen=True, eq=False)
class Declaration:
    """
    One declared event.

    ``kind`` is the class, or the function that makes a TypedDict. ``rate`` is the share of
    people whose events are kept, from 0 to 1; None for all. ``code`` and ``line`` are the place
    of the declaration.
    """

    name: str
    kind: Any
    description: str
    since: str
    deprecated: str
    rate: float | None
    code: types.CodeType
    line: int

    @property
    def module(self) -> str:
        """The dotted name of the declaring module."""
        return str(self.kind.__module__)

    @functools.cached_property
    def hints(self) -> Mapping[str, Any]:
        """The type of each field, as text if it cannot be resolved."""
        try:
            return typing.get_type_hints(self.fields_class, include_extras=True)
        except Exception:  # such as a name that is only imported for type checkers
            classes = reversed(getattr(self.fields_class, "__mro__", (self.fields_class,)))
            return {k: v for base in classes for k, v in _each_hint(base).items()}

    @property
    def fields_class(self) -> Any:
        """The class with the fields: ``kind``, or the TypedDict that it returns; else None."""
        if isinstance(self.kind, type):
            return self.kind
        try:
            return typing.get_type_hints(self.kind).get("return")
        except Exception:
            found = _each_hint(inspect.unwrap(self.kind)).get("return")
            return None if isinstance(found, _UNRESOLVED) else found

    @functools.cached_property
    def person(self) -> str | None:
        """The name of the `DistinctId` field; None if there is none."""
        return next((name for name, hint in self.hints.items() if _is_person(hint)), None)

    def written(self, field: str) -> str:
        """Return the property for *field*; pydantic and msgspec can rename fields."""
        described = getattr(self.fields_class, "model_fields", {}).get(field)
        alias = getattr(described, "serialization_alias", None)
        names = getattr(self.fields_class, "__struct_fields__", ())
        keys = getattr(self.fields_class, "__struct_encode_fields__", ())
        return str(alias or dict(zip(names, keys, strict=True)).get(field, field))

    def expand(self, value: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return *fields*, the keys of ``extra``, merged with the fields of the event *value*."""
        own = _read(value)
        person = own.pop(self.written(self.person), None) if self.person else None
        beneath = properties_in(unwrapped(fields.get("properties")))
        found = {**fields, "event": self.name, "properties": {**beneath, **own}}
        if self.rate is not None:
            found[RATE] = self.rate
        is_readable = person is not None and not isinstance(person, Unreadable)
        if found.get("distinct_id") is None and is_readable:
            found["distinct_id"] = person
        return found


#: The attribute in which a record in a queue carries the rate of its declaration.
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
    Declare the event *name*: instances of the decorated class can be logged as messages.

    It decorates dataclasses, classes of pydantic, attrs and msgspec, named tuples, TypedDicts and
    functions that return one, above the decorator that makes the class::

        @event("movie played")
        @dataclass(frozen=True)
        class MoviePlayed:
            movie_id: str

        log.info(MoviePlayed("123"), extra={"distinct_id": "user-1"})

    Raises ``ValueError`` for a second event of the same name in one module.

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
            raise TypeError(
                f"{parameter}: must be a string, not a value of type {type(text).__name__}"
            )
    share = None if sample is None else rate("sample", sample)
    frame = sys._getframe(1)

    def declare(kind: _Declared) -> _Declared:
        if not callable(kind):
            raise TypeError(
                f"event {name!r}: must be a class, or a function that returns a TypedDict"
            )
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
    """Return the declaration of the class of *value*; None if it was not declared."""
    kind = type(value)
    if kind is str:
        return None
    try:
        found = getattr(kind, _MARK, None)
    except Exception:  # a metaclass that raises
        return None
    return found if type(found) is Declaration else None


def declared_in(module: str) -> list[Declaration]:
    """Return the declarations of *module* and its submodules, sorted by name."""
    own = [
        declaration
        for name, declarations in _declared.copy().items()
        if name == module or name.startswith(f"{module}.")
        for declaration in declarations.values()
    ]
    return sorted(own, key=lambda declaration: (declaration.name, declaration.module))


def declared_as(name: str) -> list[Declaration]:
    """Return the declarations of the event *name* in all modules."""
    return [own[name] for own in _declared.copy().values() if name in own]


def expand(fields: Mapping[str, Any], name: Any) -> tuple[Mapping[str, Any], Any]:
    """Return *fields* and *name*, with a typed event in either of them expanded."""
    for value in (name, fields.get("event")):
        declaration = None if value is None else declaration_of(value)
        if declaration is not None:
            return declaration.expand(value, fields), ""
    return fields, name


def rate(name: str, value: Any) -> float:
    """
    Return *value* as a float if it is from 0 to 1.

    Raises ``TypeError`` or ``ValueError`` that name the parameter *name*.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"{name}: must be a rate from 0 to 1, not a value of type {type(value).__name__}"
        )
    if not 0 <= value <= 1:  # also not a number
        raise ValueError(f"{name}: must be a rate from 0 to 1, not {value}")
    return float(value)


def _checked_name(name: Any) -> str:
    if isinstance(name, enum.Enum):
        name = name.value
    if not isinstance(name, str):
        raise TypeError(
            f"name: must be a string, not {getattr(name, '__name__', type(name).__name__)}:"
            ' write @event("movie played")'
        )
    if not name.strip() or not name.isprintable() or len(name.encode()) > _LONGEST:
        raise ValueError(
            f"name: must be 1 to {_LONGEST} bytes of printable text, not {name!r:.60}"
        )
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
    """Return whether a reloaded module or a notebook cell run again declared *old* as *new*."""
    same_code = old.code is new.code
    if old.kind.__qualname__ == new.kind.__qualname__:
        return not same_code or old.line == new.line
    return not same_code and old.code.co_name == new.code.co_name == "<module>"


def _marked(kind: Any, declaration: Declaration) -> Any:
    """
    Return *kind*, marked with its declaration.

    Instances of a TypedDict are plain dicts, so its calls are wrapped to return a marked one.
    """
    if isinstance(kind, type) and not typing.is_typeddict(kind):
        setattr(kind, _MARK, declaration)
        return kind
    planned = type(f"{kind.__name__}", (_PlannedDict,), {_MARK: declaration})

    @functools.wraps(kind, updated=())
    def make(*args: Any, **kwargs: Any) -> Any:
        return planned(kind(*args, **kwargs))

    return make


class _PlannedDict(dict[str, Any]):
    """A dict that carries the declaration; its copies and pickles are plain dicts."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


def _read(value: Any) -> dict[str, Any]:
    """Return the fields of an instance as a new dict."""
    kind = type(value)
    if isinstance(value, Mapping):
        return dict(value)
    if callable(getattr(kind, "model_dump", None)):
        found = dumped(value, by_alias=True)
        return dict(found) if isinstance(found, Mapping) else {"root": found}
    return {name: member for name, member in _members(value, kind) if not _is_unset(member)}


def _members(value: Any, kind: Any) -> Iterable[tuple[str, Any]]:
    names = (
        [field.name for field in dataclasses.fields(value)]
        if dataclasses.is_dataclass(value)
        else [field.name for field in getattr(kind, "__attrs_attrs__", ())]
        or getattr(kind, "__struct_fields__", None)
        or getattr(kind, "_fields", None)
        or [name for name in vars(value) if not name.startswith("_")]
    )
    # msgspec can rename fields for encoding.
    written = getattr(kind, "__struct_encode_fields__", names)
    return zip(written, attributes(value, names).values(), strict=True)


def _is_unset(member: Any) -> bool:
    """Return whether *member* is msgspec's `UNSET`, which it leaves out when encoding."""
    kind = type(member)
    return kind.__name__ == "UnsetType" and kind.__module__.startswith("msgspec")


_UNRESOLVED = (str, typing.ForwardRef)


def _each_hint(kind: Any) -> dict[str, Any]:
    """Return the annotations of a class or a function, resolved where that is possible."""
    module = sys.modules.get(getattr(kind, "__module__", ""), typing)
    names = getattr(kind, "__globals__", vars(module))
    names = {**getattr(kind, "__dict__", {}), **names}
    return {key: _resolved(hint, names) for key, hint in _annotations(kind).items()}


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    alone = types.SimpleNamespace(__annotations__={"hint": hint})
    try:
        return typing.get_type_hints(alone, names, include_extras=True)["hint"]
    except Exception:
        return hint


def _annotations(kind: Any) -> Mapping[str, Any]:
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            return annotationlib.get_annotations(kind, format=annotationlib.Format.FORWARDREF)
        else:
            return inspect.get_annotations(kind)
    except Exception:  # none, or they are made now and fail
        return {}


def _is_person(hint: Any, depth: int = 8) -> bool:
    """Return whether *hint* has a `DistinctId` in it; bounded, as an alias may name itself."""
    if isinstance(hint, _UNRESOLVED):
        return re.search(r"\bDistinctId\b", str(hint)) is not None
    if any(isinstance(mark, _Person) for mark in getattr(hint, "__metadata__", ())):
        return True
    inner = [*typing.get_args(hint), *_aliased(hint)] if depth else []
    return any(_is_person(one, depth - 1) for one in inner)


def _aliased(hint: Any) -> list[Any]:
    """Return what a ``type`` statement or a ``NewType`` gave the name *hint*."""
    try:
        return [value for name in _ALIASES if (value := getattr(hint, name, None)) is not None]
    except Exception:  # it is read now, and cannot be resolved
        return []


_ALIASES = ("__value__", "__supertype__")


def _first_line(kind: Any) -> str:
    """Return the first line of the docstring, unless `dataclass` or `dict` generated it."""
    text = (getattr(kind, "__doc__", None) or "").strip().partition("\n")[0]
    return "" if text.startswith(f"{kind.__name__}(") or kind.__doc__ == dict.__doc__ else text
