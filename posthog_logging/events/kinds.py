"""
Convert values for JSON, one level deep: the types of the standard library.

The real type decides first: ``type(value)`` and its bases, which no object can fake. Then come
the object behind a proxy, the types of other libraries (`foreign`), the abstract base classes,
and last ``str``. Iterators are not consumed, and no database is queried.
"""

from __future__ import annotations

import array
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import math
import os
import types
import uuid

from collections import UserString, deque
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any, NamedTuple

from . import foreign
from .proxies import claimed_type, unwrapped


__all__ = [
    "LARGEST_INT",
    "SMALLEST_INT",
    "Instead",
    "Items",
    "form_of",
    "mapping_in",
    "properties_in",
    "text_of_key",
]


class Instead(NamedTuple):
    """A simpler value to convert in place of the original one."""

    value: Any


class Items(NamedTuple):
    """The members of an array, and their number in all."""

    members: Iterable[Any]
    total: int


#: PostHog's server turns integers outside this range into doubles (wire notes, 1.7).
SMALLEST_INT = -(2**63)
LARGEST_INT = 2**64 - 1

_MOST_KEYS = 10_000


def form_of(value: Any, most: int) -> Any:
    """
    Return the JSON form of *value*, one level deep.

    This is a string, a number or None; a mapping for an object; `Items` for an array; or
    `Instead` with a value to convert instead. Containers that have to be copied are cut to
    about *most* members.
    """
    kind = type(value)
    convert = _of_type(kind)
    if convert is not None:
        return convert(value)
    behind = unwrapped(value)
    if behind is not value:
        return Instead(behind)
    found = foreign.form_of(value, most)
    if found is not foreign.UNKNOWN:
        return Instead(found)
    if claimed_type(value) is not kind:
        return _claimed(value, most)
    return _by_behaviour(value, most)


def mapping_in(value: Any, most: int = _MOST_KEYS) -> dict[Any, Any] | None:
    """
    Return *value* as a dict, or None if it is not an object in JSON.

    A dict is returned itself. Other mappings are copied, and cut to *most* members, as they may
    be infinite.
    """
    if type(value) is dict:
        return value
    try:
        for _ in range(8):  # such as a proxy of a model of a mapping; bounded, as cycles exist
            value = form_of(value, most)
            if not isinstance(value, Instead):
                break
            value = value.value
        if not isinstance(value, Mapping):
            return None
        found = dict(islice(value.items(), most + 1))
    except Exception:  # the caller's object raised
        return None
    if len(found) > most:
        found.popitem()
        found["[cut]"] = "more keys"
    return found


def properties_in(value: Any) -> Mapping[Any, Any]:
    """Return *value* as a mapping; {} for None, and any other value as ``properties``."""
    if value is None:
        return {}
    found = mapping_in(value)
    return {"properties": value} if found is None else found


def text_of_key(key: Any) -> Any:
    """Return the key of a mapping as a JSON scalar, or as its text."""
    key = unwrapped(key.value if isinstance(key, enum.Enum) else key)
    if key is None or key is True or key is False:
        return key
    for base in type(key).__mro__:
        if base in _SCALARS:
            return _SCALARS[base](key)
    return str(key)


def _of_type(kind: type) -> Callable[[Any], Any] | None:
    """Return the function that converts objects whose real type is *kind*, or None."""
    if kind in _KINDS:
        return _KINDS[kind]
    if issubclass(kind, enum.Enum):
        return _of_enum
    return next((_KINDS[base] for base in kind.__mro__ if base in _KINDS), None)


def _claimed(value: Any, most: int) -> Any:
    """Return the form of an object with a false ``__class__``, by the methods of that class."""
    for base in claimed_type(value).__mro__:
        if base in _CLAIMS:
            return Instead(_CLAIMS[base](value))
    return _by_behaviour(value, most)


def _by_behaviour(value: Any, most: int) -> Any:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (KeysView, ValuesView, ItemsView)):
        return Items(value, len(value))
    if isinstance(value, AbstractSet):
        return Items(sorted(islice(value, most), key=_order), len(value))
    if isinstance(value, Sequence):
        return Items(value, len(value))
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return foreign.attributes(value, [field.name for field in dataclasses.fields(kind)])
    if issubclass(kind, os.PathLike):
        return os.fsdecode(os.fspath(value))
    if hasattr(kind, "__index__"):
        return _exact_int(kind.__index__(value))
    return str(value)


def _of_enum(value: Any) -> Any:
    return Instead(value.value)


def _of_set(value: Any) -> Any:
    return Items(sorted(value, key=_order), len(value))


def _order(member: Any) -> tuple[int, Any, str]:
    """Return a sort key: numbers first, by size; then all others, by their repr."""
    if type(member) in (int, bool) or (type(member) is float and member == member):
        return 0, member, ""
    try:
        return 1, 0, repr(member)
    except Exception:
        return 1, 0, type(member).__name__


def _exact_int(value: int) -> int | str:
    number = int.__int__(value)
    if SMALLEST_INT <= number <= LARGEST_INT:
        return number
    # hex: Python refuses the decimal text of very large integers (sys.set_int_max_str_digits)
    return str(number) if number.bit_length() < 4096 else hex(number)


def _finite(value: float) -> float | None:
    number = float.__float__(value)
    return number if math.isfinite(number) else None


def _of_decimal(value: decimal.Decimal) -> float | str | None:
    if not value.is_finite():
        return None
    number = float(value)
    return number if decimal.Decimal(repr(number)) == value else str(value)


def _of_fraction(value: fractions.Fraction) -> float | str:
    try:
        number = float(value)
        if fractions.Fraction(number) == value:
            return number
    except OverflowError:
        pass
    above, below = map(_exact_int, value.as_integer_ratio())
    return str(above) if below == 1 else f"{above}/{below}"


def _of_date(value: Any) -> Any:
    if value != value:  # pandas' NaT is a datetime
        return None
    try:
        return value.isoformat()
    except Exception:  # the caller's tzinfo raised
        return value.replace(tzinfo=None).isoformat()


def _of_bytes(value: bytes | bytearray) -> str:
    return value.decode("utf-8", "backslashreplace")


def _of_memoryview(value: memoryview) -> Any:
    if value.format in ("B", "b", "c"):
        return _of_bytes(value.tobytes())
    return Instead(value.tolist())


def _of_array(value: array.array[Any]) -> Any:
    return Items(value, len(value))


def _sized(value: Any) -> Items:
    return Items(value, len(value))


def _is_itself(value: Any) -> Any:
    return value


_SCALARS: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    UserString: str,
    bool: _is_itself,
    type(None): _is_itself,
    int: _exact_int,
    float: _finite,
    dt.date: _of_date,
    dt.time: _of_date,
    dt.timedelta: lambda value: value.total_seconds(),
    decimal.Decimal: _of_decimal,
    fractions.Fraction: _of_fraction,
    uuid.UUID: str,
    bytes: _of_bytes,
    bytearray: _of_bytes,
}
_KINDS: dict[type, Callable[[Any], Any]] = {
    **_SCALARS,
    memoryview: _of_memoryview,
    array.array: _of_array,
    dict: _is_itself,
    list: _sized,
    tuple: _sized,
    range: _sized,
    deque: _sized,
    set: _of_set,
    frozenset: _of_set,
    types.SimpleNamespace: vars,
    # A class is converted to text, unlike its instances.
    type: str,
    BaseException: str,
}

# By methods that proxies pass on, for objects with a false ``__class__``.
_CLAIMS: dict[type, Callable[[Any], Any]] = {
    str: str,
    bool: bool,
    int: int,
    float: float,
    dt.date: lambda value: value.isoformat(),
    dt.time: lambda value: value.isoformat(),
    dt.timedelta: lambda value: value.total_seconds(),
    decimal.Decimal: lambda value: decimal.Decimal(str(value)),
    uuid.UUID: str,
    bytes: bytes,
    enum.Enum: lambda value: value.value,
    list: lambda value: list(islice(value, _MOST_KEYS)),
    tuple: lambda value: list(islice(value, _MOST_KEYS)),
    set: lambda value: set(islice(value, _MOST_KEYS)),
    frozenset: lambda value: set(islice(value, _MOST_KEYS)),
}
