"""
Encode any Python value as strict JSON, within limits, and the same with and without orjson.

`encode` never raises for bad data: a value without a JSON form becomes text, and a cut leaves a
note. `kinds` and `foreign` decide what each type of value becomes.
"""

from __future__ import annotations

import json
import math
import re
import threading

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from .faults import faults
from .kinds import LARGEST_INT, SMALLEST_INT, Instead, Items, form_of, text_of_key


try:
    import orjson
except ImportError:  # the standard library's encoder works, but is slower
    orjson = None  # type: ignore[assignment]

__all__ = [
    "DEFAULT_LIMITS",
    "Limits",
    "decode",
    "encode",
    "encode_within",
    "is_flat",
    "jsonable",
    "reread",
    "snapshot",
    "within_limits",
]


class Limits(NamedTuple):
    """How much of a value to keep: levels, items per container, characters per text, values."""

    depth: int = 32
    items: int = 10_000
    text: int = 1_000_000
    values: int = 100_000


DEFAULT_LIMITS = Limits()
_FLAT = DEFAULT_LIMITS.items  # a text of this length cannot hold more items

_DIGITS = bytes(48 if chr(byte).isdigit() and byte < 128 else 32 for byte in range(256))
_NINETEEN = b"0" * 19
# A key that is not a string, as the standard encoder writes it: two keys may have become one.
_NO_TEXT_KEY = re.compile(rb'"(?=[-\dtfn])(?:-?\d[^"]*|true|false|null)":')
_BRACKET, _BACKSLASH, _BRACE = b"[\\{"


def encode(value: Any, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return *value* as one line of strict JSON, cut to *limits*."""
    try:
        line = _dumps(value)
    except Exception:
        return _dumps_clean(jsonable(value, limits))
    return line if within_limits(line) else _dumps_clean(jsonable(value, limits))


def encode_within(value: Any, size: int) -> bytes | None:
    """Return *value* as strict JSON, cut to at most *size* bytes; None if that is impossible."""
    line = encode(value)
    share = size // 4
    while len(line) > size and share > 16:
        # Fewer values, too: several passes over 100,000 of them would take too long.
        count = max(share // 8, 64)
        line = _dumps_clean(jsonable(value, Limits(items=count, text=share, values=4 * count)))
        share //= 4
    return line if len(line) <= size else None


def decode(line: bytes | str) -> Any:
    """Return the value of a JSON text; raises ``ValueError`` if it is not strict JSON."""
    if orjson is not None:
        return orjson.loads(line)
    try:
        return _decode(line if isinstance(line, str) else line.decode())
    except RecursionError:
        raise ValueError("nested too deep") from None


def reread(encoded: bytes) -> Any:
    """Return the value that `snapshot` encoded, with large integers intact."""
    return decode(encoded) if orjson is not None else json.loads(encoded)


def jsonable(value: Any, limits: Limits = DEFAULT_LIMITS) -> Any:
    """
    Return *value* as plain dicts, lists, strings, numbers, booleans and None.

    The guide ``docs/events.md`` lists what each type becomes; all others become their ``str``.
    A cycle, and a cut to *limits*, leaves a note such as ``[cut: cycle]``.
    """
    depth = getattr(_nested, "depth", 0)
    if depth > 1:  # the value's ``__str__`` logs the value again
        return _PlainWalk(limits).visit(value, 0)
    _nested.depth = depth + 1
    try:
        return _Walk(limits).visit(value, 0)
    finally:
        _nested.depth = depth


# The depth of recursive calls of `jsonable` through a value's own code, by thread.
_nested = threading.local()


class _Walk:
    """One pass over a value: the containers being visited, and the number of values left."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = limits.values
        self._open: set[int] = set()

    def visit(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            return "[cut: too many values]"
        try:
            kind = type(value)
            if kind is str:
                return self._text(value)
            if value is None or kind is bool:
                return value
            return self._scalar_or_container(value, depth)
        except faults():  # the caller's property, `__str__` or iterator raised
            return f"[unprintable {type(value).__name__}]"

    def _scalar_or_container(self, value: Any, depth: int) -> Any:
        form = form_of(value, self._limits.items)
        if isinstance(form, str):
            return self._text(form)
        if form is None or type(form) in _NUMBERS:
            return form
        if id(value) in self._open:
            return "[cut: cycle]"
        if depth >= self._limits.depth:
            return f"[cut: deeper than {self._limits.depth}]"
        self._open.add(id(value))
        try:
            return self._inside(form, depth + 1)
        finally:
            self._open.discard(id(value))

    def _inside(self, form: Any, depth: int) -> Any:
        if isinstance(form, Items):
            return self._array(form, depth)
        if isinstance(form, Mapping):
            return self._object(form, depth)
        return self.visit(form.value if isinstance(form, Instead) else form, depth)

    def _object(self, members: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        items = self._limits.items
        pairs = list(islice(members.items(), items + 1))  # copied, as other threads may change it
        found = {self._key(key): self.visit(value, depth) for key, value in pairs[:items]}
        if len(pairs) > items:
            found["[cut]"] = f"{_count_of_others(members, items)} more keys"
        return found

    def _array(self, form: Items, depth: int) -> list[Any]:
        values = list(islice(form.members, self._limits.items))
        found = [self.visit(member, depth) for member in values]
        if form.total > len(found):
            found.append(f"[cut: {form.total - len(found)} more items]")
        return found

    def _key(self, key: Any) -> str:
        if type(key) is str:
            return self._text(key)
        try:
            scalar = text_of_key(key)
        except Exception:  # keep the other keys
            return f"[unprintable {type(key).__name__}]"
        # As `json.dumps` writes keys: 1 -> "1", None -> "null".
        return self._text(scalar) if isinstance(scalar, str) else json.dumps(scalar)

    def _text(self, text: str) -> str:
        text = str.__str__(text)  # without the methods of a subclass
        cut = len(text) - self._limits.text
        if cut > 0:
            text = f"{text[: self._limits.text]}[cut: {cut} more characters]"
        if "\0" in text:
            text = text.replace("\0", "\ufffd")
        try:
            text.encode()
        except UnicodeEncodeError:  # lone surrogates are replaced, and pairs joined
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text


class _PlainWalk(_Walk):
    """A pass that runs no value's own code."""

    def visit(self, value: Any, depth: int) -> Any:
        return super().visit(value, depth) if type(value) in _PLAIN else "[cut: recursion]"

    def _key(self, key: Any) -> str:
        return super()._key(key) if type(key) in _SCALARS else "[cut: recursion]"


_NUMBERS = frozenset({int, float, bool})
_SCALARS = _NUMBERS | {str, type(None)}
_PLAIN = _SCALARS | {dict, list, tuple}


def _count_of_others(members: Mapping[Any, Any], kept: int) -> int | str:
    try:
        others = len(members) - kept
    except Exception:  # no length, as it may be infinite
        return "many"
    return others if others > 0 else "many"


def within_limits(line: bytes) -> bool:
    """
    Return whether *line* is certainly within `DEFAULT_LIMITS`, by counting bytes.

    A line has at least as many brackets as levels, and as many commas as items, so few of them
    prove the bounds. False only means that the slow path has to check. A line with a cut, which
    `jsonable` made in a part, is encoded again as a whole, where a cycle shows earlier.
    """
    return not (
        (len(line) > DEFAULT_LIMITS.items and _may_be_broad(line))
        or line.count(b"{") + line.count(b"[") > DEFAULT_LIMITS.depth
        # Searching for one byte first is many times faster than for several.
        or (_BACKSLASH in line and b"\\u0000" in line)
        or (_BRACKET in line and b"[cut: " in line)
        or (orjson is None and not _is_as_orjson_writes(line))
    )


def is_flat(rest: bytes, longest: int) -> bool:
    """
    Return whether *rest* has no nested container, no escape and no huge number.

    *rest* is one or more objects without their opening braces, each of at most *longest* bytes.
    """
    return (
        longest <= _FLAT
        and _BRACKET not in rest
        and _BACKSLASH not in rest
        and _BRACE not in rest
        and (orjson is not None or _is_as_orjson_writes(rest))
    )


def _is_as_orjson_writes(line: bytes) -> bool:
    """Return whether the standard encoder wrote no huge number, and no key but strings."""
    return _NINETEEN not in line.translate(_DIGITS) and _NO_TEXT_KEY.search(line) is None


def _may_be_broad(line: bytes) -> bool:
    return len(line) > DEFAULT_LIMITS.text or line.count(b",") >= DEFAULT_LIMITS.items


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read_float(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large for JSON")
    return number


def _read_int(digits: str) -> int | float:
    """Return an integer; beyond 64 bits a float, as orjson reads it."""
    if len(digits) > 20:
        return _read_float(digits)
    number = int(digits)
    return number if SMALLEST_INT <= number <= LARGEST_INT else float(number)


def _decode(text: str) -> Any:
    text.encode()  # raises for lone surrogates, and so does orjson
    value = json.loads(
        text, parse_constant=_refuse_constant, parse_float=_read_float, parse_int=_read_int
    )
    if "\\ud" in text or "\\uD" in text:
        json.dumps(value, ensure_ascii=False).encode()  # raises for escaped lone surrogates
    return value


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
    Return *value* as JSON, with `jsonable` for the types that the C encoder does not know.

    The result differs from orjson's in integers beyond 64 bits and in keys that are not
    strings; `within_limits` finds both.
    """
    return "".join(_chunks(value, 0)).encode()


def _dumps_clean_stdlib(value: Any) -> bytes:
    return _encoder.encode(value).encode()


if orjson is not None:
    # orjson writes only the exact built-in types; `jsonable` converts all others.
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
        Return *value* as JSON that may exceed the limits.

        The fast half of `encode`, for the thread that logs. The sending thread checks
        `within_limits`, and uses ``encode(reread(snapshot))`` for a line that is not.
        """
        try:
            return orjson.dumps(value, jsonable, _OPTIONS)
        except Exception:
            return _dumps_clean(jsonable(value))
else:
    _dumps = _dumps_stdlib
    _dumps_clean = _dumps_clean_stdlib

    def snapshot(value: Any) -> bytes:
        """Return *value* as JSON that may exceed the limits."""
        try:
            return "".join(_chunks(value, 0)).encode()
        except Exception:
            return _dumps_clean(jsonable(value))
