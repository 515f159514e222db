"""
Identifiers of events and people: UUIDs of version 7, and ids that every server accepts.

The rules follow PostHog's capture contract (sdk-specs ``capture``) and apply to every dialect.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import itertools
import math
import os
import uuid

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sized
from typing import Any, NamedTuple

from .proxies import unwrapped
from .scrub import is_plain_text
from .timestamps import EARLIEST, LATEST, now, rfc3339


__all__ = [
    "Warn",
    "are_plain",
    "as_uuid",
    "clean_id",
    "clean_text",
    "cut",
    "given_uuid",
    "is_plain",
    "shortened",
    "stamp",
    "text_of",
    "text_of_id",
]

#: Called with a topic and a text about a correction.
Warn = Callable[[str, str], None]

# Ids that PostHog refuses to merge: they mean "nobody" (1.7); and the text of Django's visitors.
_NOBODY = frozenset(
    """0 00000000-0000-0000-0000-000000000000 anonymous anonymous-user backend
    distinct_id distinctid email false guest id nan none not_authenticated null system true
    undefined user""".split()
) | {"", "[object object]", "<na>", "anonymoususer"}

#: The most bytes of UTF-8 in a name or an id: the stricter of V0 (characters) and V1 (bytes).
LONGEST = 200


def is_plain(event: str, distinct_id: str) -> bool:
    """
    Return whether a name and an id need neither correction nor escapes in JSON.

    Both are printable, not blank and at most 50 characters; the name has no ``$`` in front, nor
    anything in it that may be secret, and the id does not mean "nobody".
    """
    return (event in _plain_names or _is_plain_name(event)) and (
        distinct_id in _plain_ids or _is_plain_id(distinct_id)
    )


def are_plain(events: Collection[str], distinct_ids: Collection[str]) -> bool:
    """Return whether `is_plain` holds for all; known names and ids cost no call each."""
    return (_plain_names.issuperset(events) or all(map(_is_plain_name, events))) and (
        _plain_ids.issuperset(distinct_ids) or all(map(_is_plain_id, distinct_ids))
    )


_plain_names: set[str] = set()
_plain_ids: set[str] = set()


def _is_plain_id(distinct_id: str) -> bool:
    """Return whether an id is plain; remember plain ones, as the same people recur."""
    plain = (
        0 < len(distinct_id) <= 50
        and distinct_id.isprintable()
        and distinct_id[0] != " " != distinct_id[-1]
        and '"' not in distinct_id
        and "\\" not in distinct_id
        and distinct_id.lower() not in _NOBODY
    )
    if plain:
        if len(_plain_ids) >= 10_000:
            _plain_ids.clear()
        _plain_ids.add(distinct_id)
    return plain


def _is_plain_name(event: str) -> bool:
    """Return whether a name is plain; remember plain ones, as there are few names."""
    plain = (
        0 < len(event) <= 50
        and event[0] != "$"
        and event.isprintable()
        and not event.isspace()
        and '"' not in event
        and is_plain_text(event)
        and "\\" not in event
    )
    if plain and len(_plain_names) < 1000:
        _plain_names.add(event)
    return plain


def clean_id(given: Any, warn: Warn, key: str = "distinct_id") -> str | None:
    """
    Return *given*, the value of *key*, as an id that every server accepts; None if it is nobody's.

    The id is trimmed, and control characters are removed. More than 200 bytes become the first
    159 and a hash, so that two long ids stay distinct (V0 would cut them, V1 drop the event).
    """
    if type(given) is not str:
        given = unwrapped(given)
        if given is None:
            return None
    text = given if type(given) is str else text_of_id(given)
    if not text.isprintable():
        text = clean_text(text)
    text = text.strip()
    if text.lower() in _NOBODY:
        shown = repr(text) if text or type(given) is str else f"a {type(given).__name__}"
        warn(f"illegal {key}", f"{key}: {shown} names nobody and counts as missing")
        return None
    if len(text) > LONGEST // 4 and len(text.encode()) > LONGEST:
        warn(f"long {key}", f"{key}: {len(text)} characters were shortened")
        text = shortened(text)
    return text


def given_uuid(value: Any, warn: Warn) -> str:
    """
    Return the uuid that an event was given, as text; "" for none.

    The text of a cell without a value, such as NaN, would make all such events one.
    """
    value = unwrapped(value)
    if value is None or (isinstance(value, str) and not value):
        return ""
    text = text_of(value)
    if text and text.strip().lower() not in _NO_UUID:
        return text
    shown = repr(text.strip()) if text else f"a {type(value).__name__}"
    warn("bad uuid", f"uuid: {shown} names no event; a new one is sent instead")
    return ""


_NO_UUID = frozenset({"nan", "nat", "none", "null", "undefined", "<na>", "false", "true"})


def as_uuid(text: str, warn: Warn) -> str:
    """Return *text* as a UUID; other text becomes one derived from it (RFC 9562, 5.5)."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        warn("bad uuid", "uuid: not a UUID; one derived from it is sent instead")
        return str(uuid.uuid5(uuid.NAMESPACE_OID, clean_text(text)))


class Second(NamedTuple):
    """
    The common parts of the uuids and timestamps of one second.

    A uuid is *head* and a number of twelve digits; a timestamp is *day*, six digits and ``Z``.
    """

    since: float
    head: str
    day: str

    def timestamp(self, created: float) -> str:
        """Return *created* as RFC 3339 in UTC, with microseconds."""
        return f"{self.day}{int((created - self.since) * 1_000_000):06d}Z"


_NEVER = Second(math.inf, "", "")


class _Stamp:
    """
    Make a uuid and a timestamp for a time in epoch seconds.

    The uuid is of version 7, with a counter in its last bits (RFC 9562, 6.2, method 1): the
    millisecond and 42 random bits are new every second, the counter for every event.
    """

    def __init__(self) -> None:
        self._second = _NEVER
        #: Return the number for the next uuid.
        self.number = itertools.count(10**11 + int.from_bytes(os.urandom(4), "big")).__next__

    def __call__(self, created: float) -> tuple[str, str]:
        second = self.second(created)
        if second is _NEVER:
            return self(now())
        return f"{second.head}{self.number()}", second.timestamp(created)

    def second(self, created: float) -> Second:
        """
        Return the parts for the second of *created*; one tuple is replaced, so without a lock.

        For an invalid time, such as epoch milliseconds, returns `_NEVER`.
        """
        second = self._second
        try:
            if not 0.0 <= created - second[0] < 1.0:
                second = self._second = self._turn(created)
        except TypeError:
            return _NEVER
        return second

    def _turn(self, created: float) -> Second:
        if not EARLIEST <= created < LATEST:
            return _NEVER
        second = math.floor(created)
        random = os.urandom(6).hex()
        milli = f"{int(created * 1000) & 0xFFFFFFFFFFFF:012x}"
        head = f"{milli[:8]}-{milli[8:]}-7{random[:3]}-{'89ab'[second & 3]}{random[3:6]}-"
        return Second(second, head, rfc3339(second)[:20])

    def reset(self) -> None:
        """Start anew in a forked child, whose uuids must differ from its parent's."""
        self.__init__()  # type: ignore[misc]


stamp = _Stamp()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=stamp.reset)


def text_of_id(value: Any) -> str:
    """Return the id of a person or a group as text; "" for a container, None, NaN, NaT or NA."""
    value = unwrapped(value)
    text = "" if value is None or _is_container(value) else text_of(value)
    return "" if text.lower() in _NO_VALUE and not isinstance(value, str) else text


_NO_VALUE = frozenset({"nan", "nat", "<na>"})
_BUFFERS = (bytes, bytearray, memoryview)


def _is_container(value: Any) -> bool:
    """
    Return whether *value* is the properties in place of the id, or a row or a column.

    A container class with a text of its own may be an id, unless it has keys; a class that cannot
    be asked is none. The members are not looked at: a query would run for those of a `QuerySet`.
    """
    try:
        kind: Any = type(value)
        if issubclass(kind, _BUFFERS):
            return False
        if hasattr(kind, "shape") and value.shape:  # an array, or a column of a table
            return True
        if not (issubclass(kind, Sized) and issubclass(kind, Iterable)):
            return False
        return kind.__str__ is object.__str__ or callable(getattr(kind, "keys", None))
    except Exception:
        return False


def text_of(value: Any) -> str:
    """Return *value* as text; "" if its ``__str__`` raises, and for a call that was forgotten."""
    if type(value) in _PLAIN:
        return str(value)
    try:
        value = unwrapped(value)
        value = value.value if isinstance(value, enum.Enum) else value
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode("utf-8", "backslashreplace")
        return "" if _is_forgotten_call(value) else str.__str__(str(value))  # a plain `str`
    except Exception:
        return ""


_PLAIN = frozenset({str, int, uuid.UUID})


def _is_forgotten_call(value: Any) -> bool:
    """Return whether *value* is what to call or to await, whose text only has its address."""
    lazy = (type, functools.partial, property, Awaitable, Iterator)
    return inspect.isroutine(value) or isinstance(value, lazy)


def clean_text(text: str) -> str:
    """Return *text* trimmed, without control characters and lone surrogates."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(
        c if c.isprintable() or c == " " else "\ufffd" if c == "\0" else " " for c in text
    ).strip()


def shortened(text: str) -> str:
    """Return *text* if it fits into an id, else its beginning and a hash of the whole."""
    if len(text.encode()) <= LONGEST:
        return text
    return f"{cut(text, 159)}#{hashlib.sha1(text.encode()).hexdigest()}"


def cut(text: str, size: int) -> str:
    """Return the longest prefix of whole characters in at most *size* bytes."""
    return text.encode()[:size].decode(errors="ignore")
