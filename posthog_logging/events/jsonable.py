"""
Any Python value as strict JSON: total, bounded, the same with and without orjson.

The only module that decides what a value looks like in JSON. `encode` never raises for
bad data: what JSON cannot say becomes its nearest text, and what was cut says so.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import os
import threading
import uuid

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any, NamedTuple


try:
    import orjson
except ImportError:  # the standard encoder serves, at a higher price
    orjson = None  # type: ignore[assignment]

__all__ = [
    "DEFAULT_LIMITS",
    "Limits",
    "decode",
    "encode",
    "encode_within",
    "is_flat",
    "jsonable",
    "snapshot",
    "within_limits",
]


class Limits(NamedTuple):
    """How much of one value is kept: levels, items a container, characters, values in all."""

    depth: int = 32
    items: int = 10_000
    text: int = 1_000_000
    values: int = 100_000


DEFAULT_LIMITS = Limits()
_FLAT = DEFAULT_LIMITS.items  # so many characters cannot hold more items

# A JSON number outside these becomes a double on PostHog's server (wire notes, 1.7).
_SMALLEST_INT = -(2**63)
_LARGEST_INT = 2**64 - 1
_DIGITS = bytes(48 if chr(byte).isdigit() and byte < 128 else 32 for byte in range(256))
_NINETEEN = b"0" * 19
_BRACKET, _BACKSLASH, _BRACE = b"[\\{"


def encode(value: Any) -> bytes:
    """Return *value* as one line of strict JSON, cut where `DEFAULT_LIMITS` says."""
    try:
        line = _dumps(value)
    except Exception:
        return _dumps_clean(jsonable(value))
    return line if within_limits(line) else _dumps_clean(jsonable(value))


def encode_within(value: Any, size: int) -> bytes | None:
    """Return *value* as strict JSON of at most *size* bytes, what is long cut; else None."""
    line = encode(value)
    share = size // 4
    while len(line) > size and share > 16:
        # Fewer values, too: it must not take the caller many passes over 100,000 of them.
        count = max(share // 8, 64)
        line = _dumps_clean(jsonable(value, Limits(items=count, text=share, values=4 * count)))
        share //= 4
    return line if len(line) <= size else None


def decode(line: bytes | str) -> Any:
    """Return what a JSON text says; raises ``ValueError`` for anything that is not strict JSON."""
    if orjson is not None:
        return orjson.loads(line)
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None


def jsonable(value: Any, limits: Limits = DEFAULT_LIMITS) -> Any:
    """
    Return *value* as plain dicts, lists, strings, numbers, booleans and None.

    Every value has a form: dates and times in ISO 8601, ``Decimal`` as a float where that
    is exact (else as text), enums by value, dataclasses, attrs and pydantic objects as
    objects, numpy scalars and arrays as numbers and lists, sets sorted, bytes as text,
    non-finite floats as null, integers beyond 64 bits as text, anything else by ``str``.
    Cycles, and what *limits* cut off, leave a visible ``[cut: ...]`` behind.
    """
    depth = getattr(_nested, "depth", 0)
    if depth > 1:  # a value whose text logs the value once more
        return "[cut: recursion]"
    _nested.depth = depth + 1
    try:
        return _Walk(limits).visit(value, 0)
    finally:
        _nested.depth = depth


# How many calls of `jsonable` stand one inside the other, by way of a value's own code.
_nested = threading.local()


class _Walk:
    """One pass over one value: what is being visited, and how many values are left."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = limits.values
        self._open: set[int] = set()

    def visit(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            return "[cut: too many values]"
        try:
            return self._convert(value, depth)
        except Exception:  # a property, `__str__` or iterator of the caller's raised
            return f"[unprintable {type(value).__name__}]"

    def _convert(self, value: Any, depth: int) -> Any:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, enum.Enum):
            return self.visit(value.value, depth)
        for kinds, convert in _SCALARS:
            if isinstance(value, kinds):
                converted = convert(value)
                return self._text(converted) if isinstance(converted, str) else converted
        return self._container(value, depth)

    def _container(self, value: Any, depth: int) -> Any:
        inside = _members(value, self._limits.items)
        if inside is None:
            return self._text(str(value))
        if id(value) in self._open:
            return "[cut: cycle]"
        if depth >= self._limits.depth:
            return f"[cut: deeper than {self._limits.depth}]"
        self._open.add(id(value))
        try:
            if isinstance(inside, _Instead):
                return self.visit(inside.value, depth + 1)
            if isinstance(inside, Mapping):
                return self._object(inside, depth + 1)
            return self._array(inside, len(value), depth + 1)
        finally:
            self._open.discard(id(value))

    def _object(self, members: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        items = self._limits.items
        pairs = list(islice(members.items(), items))  # at once: other threads may change it
        found = {self._key(key): self.visit(value, depth) for key, value in pairs}
        if len(members) > items:
            found["[cut]"] = f"{len(members) - items} more keys"
        return found

    def _array(self, members: Iterable[Any], total: int, depth: int) -> list[Any]:
        values = list(islice(members, self._limits.items))
        found = [self.visit(member, depth) for member in values]
        if total > len(found):
            found.append(f"[cut: {total - len(found)} more items]")
        return found

    def _key(self, key: Any) -> str:
        if type(key) is str:
            return self._text(key)
        try:
            value = key.value if isinstance(key, enum.Enum) else key
            converted = self._convert(value if _is_scalar(value) else str(value), 0)
        except Exception:  # one bad key must not cost the others
            return f"[unprintable {type(key).__name__}]"
        # What `json.dumps` does with the keys that it takes: 1 -> "1", None -> "null".
        return converted if type(converted) is str else json.dumps(converted)

    def _text(self, text: str) -> str:
        text = str.__str__(text)  # without the methods of a subclass
        cut = len(text) - self._limits.text
        if cut > 0:
            text = f"{text[: self._limits.text]}[cut: {cut} more characters]"
        if "\0" in text:
            text = text.replace("\0", "\ufffd")
        try:
            text.encode()
        except UnicodeEncodeError:  # lone surrogates; pairs are joined on the way
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text


class _Instead(NamedTuple):
    """Another value that says the same, to be visited in the first one's place."""

    value: Any


def _members(value: Any, most: int) -> Mapping[Any, Any] | Iterable[Any] | _Instead | None:
    """Return what a container holds; None for what is no container."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (list, tuple, deque, range)):
        return value
    if isinstance(value, AbstractSet):
        return sorted(islice(value, most), key=_order)
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return _foreign_members(value, most)


def _foreign_members(value: Any, most: int) -> Mapping[Any, Any] | _Instead | None:
    """Ask the objects of pydantic, attrs and numpy by their own verbs, without importing them."""
    kind = type(value)
    if callable(getattr(kind, "model_dump", None)):
        return _Instead(value.model_dump())
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    if callable(getattr(kind, "tolist", None)) and hasattr(kind, "ndim"):
        if not value.ndim or value.size <= most:
            return _Instead(value.tolist())
        kept = value.reshape(-1)[: most - 1].tolist()
        return _Instead([*kept, f"[cut: {value.size - len(kept)} more items]"])
    return None


def _order(member: Any) -> str:
    try:
        return repr(member)
    except Exception:
        return type(member).__name__


def _exact_int(value: Any) -> int | str:
    number = int.__int__(value)
    if _SMALLEST_INT <= number <= _LARGEST_INT:
        return number
    # hex: Python refuses the decimal text of very large integers (sys.set_int_max_str_digits)
    return str(number) if number.bit_length() < 4096 else hex(number)


def _finite(value: Any) -> float | None:
    number = float.__float__(value)
    return number if math.isfinite(number) else None


def _from_decimal(value: decimal.Decimal) -> float | str | None:
    if not value.is_finite():
        return None
    number = float(value)
    return number if decimal.Decimal(repr(number)) == value else str(value)


def _from_bytes(value: bytes | bytearray | memoryview) -> str:
    return bytes(value).decode("utf-8", "backslashreplace")


_SCALARS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, _exact_int),
    (float, _finite),
    ((dt.datetime, dt.date, dt.time), lambda value: value.isoformat()),
    (dt.timedelta, dt.timedelta.total_seconds),
    (decimal.Decimal, _from_decimal),
    (uuid.UUID, str),
    ((bytes, bytearray, memoryview), _from_bytes),
    (os.PathLike, lambda value: os.fsdecode(os.fspath(value))),
)


def _is_scalar(value: Any) -> bool:
    return value is None or any(isinstance(value, kinds) for kinds, _ in _SCALARS)


def within_limits(line: bytes) -> bool:
    """
    Tell that *line* cannot break a limit, by counting and without a parse.

    There are at least as many brackets as levels and at least as many commas as items,
    so few of them prove the bounds; a false alarm costs only the slow way. A cut was made
    by `jsonable` on a part; it is made again on the whole, where a cycle shows earlier.
    """
    return not (
        (len(line) > DEFAULT_LIMITS.items and _may_be_broad(line))
        or line.count(b"{") + line.count(b"[") > DEFAULT_LIMITS.depth
        # One byte is looked for many times as fast as several.
        or (_BACKSLASH in line and b"\\u0000" in line)
        or (_BRACKET in line and b"[cut: " in line)
        or (orjson is None and _NINETEEN in line.translate(_DIGITS))
    )


def is_flat(rest: bytes, longest: int) -> bool:
    """
    Tell that there is no container, escape or huge number in *rest*.

    That are objects without their first braces, one or many, each of at most *longest* bytes.
    """
    return (
        longest <= _FLAT
        and _BRACKET not in rest
        and _BACKSLASH not in rest
        and _BRACE not in rest
        and (orjson is not None or _NINETEEN not in rest.translate(_DIGITS))
    )


def _may_be_broad(line: bytes) -> bool:
    return len(line) > DEFAULT_LIMITS.text or line.count(b",") >= DEFAULT_LIMITS.items


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_encoder = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")
)


# The C encoder itself: `JSONEncoder.encode` builds a new one for every call.
_c_make_encoder = getattr(json.encoder, "c_make_encoder", None)
_chunks: Callable[[Any, Any], Iterable[str]] = (
    _encoder.iterencode
    if _c_make_encoder is None
    else _c_make_encoder(
        None, jsonable, json.encoder.encode_basestring, None, ":", ",", False, False, False
    )
)


def _dumps_stdlib(value: Any) -> bytes:
    """
    Write what the C encoder writes as orjson does; of the rest, `jsonable` is asked.

    It differs in integers beyond 64 bits only: `within_limits` looks for their digits.
    """
    return "".join(_chunks(value, 0)).encode()


def _dumps_clean_stdlib(value: Any) -> bytes:
    return _encoder.encode(value).encode()


if orjson is not None:
    # Only the exact built-in types are orjson's to write; all others are `jsonable`'s.
    _OPTIONS = (
        orjson.OPT_PASSTHROUGH_DATACLASS
        | orjson.OPT_PASSTHROUGH_DATETIME
        | orjson.OPT_PASSTHROUGH_SUBCLASS
    )

    def _dumps(value: Any) -> bytes:
        return orjson.dumps(value, jsonable, _OPTIONS)

    def _dumps_clean(value: Any) -> bytes:
        return orjson.dumps(value)

    def snapshot(value: Any) -> bytes:
        """
        Return *value* as JSON that is right but for what `within_limits` has yet to tell.

        The cheap half of `encode`, for a caller in a hurry: whoever has the time asks
        `within_limits`, and puts what is not through ``encode(decode(snapshot))``.
        """
        try:
            return orjson.dumps(value, jsonable, _OPTIONS)
        except Exception:
            return _dumps_clean(jsonable(value))
else:
    _dumps = _dumps_stdlib
    _dumps_clean = _dumps_clean_stdlib

    def snapshot(value: Any) -> bytes:
        """Return *value* as JSON that is right but for what `within_limits` has yet to tell."""
        try:
            return "".join(_chunks(value, 0)).encode()
        except Exception:
            return _dumps_clean(jsonable(value))
