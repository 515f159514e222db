"""
What identifies an event and its person: uuids of version 7, and ids that every server takes.

The rules follow PostHog's capture contract (sdk-specs ``capture``) and hold for every dialect.
"""

from __future__ import annotations

import enum
import hashlib
import itertools
import math
import os
import time
import uuid

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from .proxies import unwrapped
from .timestamps import EARLIEST, LATEST


__all__ = [
    "Tell",
    "are_plain",
    "as_uuid",
    "clean_id",
    "clean_text",
    "cut",
    "is_plain",
    "shortened",
    "stamp",
    "text_of_id",
]

#: Called with a topic and a text for what was mended.
Tell = Callable[[str, str], None]

# Ids that PostHog refuses to merge, and that mean "nobody" wherever they turn up (1.7).
_NOBODY = frozenset(
    """0 00000000-0000-0000-0000-000000000000 anonymous anonymous-user backend
    distinct_id distinctid email false guest id nan none not_authenticated null system true
    undefined user""".split()
) | {"", "[object object]", "<na>"}

#: The most bytes of UTF-8 in a name or an id: the stricter of V0 (characters) and V1 (bytes).
LONGEST = 200


def is_plain(event: str, distinct_id: str) -> bool:
    """
    Return whether a name and an id need no mending, and no escapes in JSON either.

    They are neither special nor long nor blank, and the id is not nobody's.
    """
    return (event in _plain_names or _is_plain_name(event)) and (
        distinct_id in _plain_ids or _is_plain_id(distinct_id)
    )


def are_plain(events: Collection[str], distinct_ids: Collection[str]) -> bool:
    """Tell `is_plain` of many: what all of them are known for costs no call each."""
    return (_plain_names.issuperset(events) or all(map(_is_plain_name, events))) and (
        _plain_ids.issuperset(distinct_ids) or all(map(_is_plain_id, distinct_ids))
    )


_plain_names: set[str] = set()
_plain_ids: set[str] = set()


def _is_plain_id(distinct_id: str) -> bool:
    """Tell it of an id, and remember a plain one for a while: the same person does many things."""
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
    """Tell it of a name, and remember a plain one: there are few names and many events."""
    plain = (
        0 < len(event) <= 50
        and event[0] != "$"
        and event.isprintable()
        and not event.isspace()
        and '"' not in event
        and "\\" not in event
    )
    if plain and len(_plain_names) < 1000:
        _plain_names.add(event)
    return plain


def clean_id(given: Any, tell: Tell) -> str | None:
    """
    Return *given* as an id that every server takes, or None where it names nobody.

    Trimmed; control characters out; more than 200 bytes become the first 159 and a hash,
    so that two long ids stay two people (V0 would cut them, V1 would drop the event).
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
        tell("illegal distinct_id", f"distinct_id: {text!r} names nobody and counts as missing")
        return None
    if len(text) > LONGEST // 4 and len(text.encode()) > LONGEST:
        tell("long distinct_id", f"a distinct_id of {len(text)} characters was shortened")
        text = shortened(text)
    return text


def as_uuid(text: str, tell: Tell) -> str:
    """Return *text* as a UUID; anything else becomes the same one each time (RFC 9562, 5.5)."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        tell("bad uuid", "uuid: not a UUID; one derived from it is sent instead")
        return str(uuid.uuid5(uuid.NAMESPACE_OID, clean_text(text)))


class Second(NamedTuple):
    """
    What the ids and times of one second have in common.

    A uuid is *head* and a number of twelve digits, a timestamp *day*, six digits and ``Z``.
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
    Mint a uuid and a timestamp for one moment.

    The uuid is version 7 with a counter in its last bits (RFC 9562, 6.2, method 1): the
    millisecond and 42 random bits are drawn once a second, the counter for every event.
    """

    def __init__(self) -> None:
        self._second = _NEVER
        #: Draw the number of the next uuid.
        self.number = itertools.count(10**11 + int.from_bytes(os.urandom(4), "big")).__next__

    def __call__(self, created: float) -> tuple[str, str]:
        second = self.second(created)
        if second is _NEVER:
            return self(time.time())
        return f"{second.head}{self.number()}", second.timestamp(created)

    def second(self, created: float) -> Second:
        """
        Return the second of *created*; one tuple is kept, so no lock is needed.

        What is no time, such as epoch milliseconds, is in a second that never comes.
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
        day = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return Second(second, head, day.zfill(20))  # strftime does not pad years before 1000

    def reset(self) -> None:
        """Forget what a forked child shares with its parent."""
        self.__init__()  # type: ignore[misc]


stamp = _Stamp()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=stamp.reset)


def text_of_id(value: Any) -> str:
    """Return the text of an id of any kind, nothing where it has none."""
    try:
        value = unwrapped(value)
        value = value.value if isinstance(value, enum.Enum) else value
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode("utf-8", "backslashreplace")
        return str(value)
    except Exception:
        return ""


def clean_text(text: str) -> str:
    """Return *text* without control characters and lone surrogates, trimmed."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(
        c if c.isprintable() or c == " " else "\ufffd" if c == "\0" else " " for c in text
    ).strip()


def shortened(text: str) -> str:
    """Return *text* if it is short enough for an id, else its beginning and a hash of it all."""
    if len(text.encode()) <= LONGEST:
        return text
    return f"{cut(text, 159)}#{hashlib.sha1(text.encode()).hexdigest()}"


def cut(text: str, size: int) -> str:
    """Return the longest beginning of *text* of at most *size* bytes that ends on a character."""
    return text.encode()[:size].decode(errors="ignore")
