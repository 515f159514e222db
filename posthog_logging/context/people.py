"""People: identify one, and merge the anonymous visitor that they were."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from weakref import WeakSet

from .binding import Bound, current, rebind


__all__ = ["Taker", "identify", "is_person", "remember_person", "takers"]

# The most person ids, and the most merged pairs, that the process remembers.
_KNOWN = 100_000


class Taker(Protocol):
    """Something that accepts events: a `PostHogHandler`."""

    def accept(self, fields: Mapping[str, Any], /) -> str | None:
        """Accept one event; return its uuid, or None if it was refused."""
        ...

    def is_in_use(self) -> bool:
        """Return whether the handler is open, or a log record could open it."""
        ...


#: The handlers of this process that accept events; each adds itself.
takers: WeakSet[Any] = WeakSet()

# Dicts as ordered sets: the oldest entries are dropped first.
_persons: dict[str, object] = {}
_pairs: dict[tuple[str, str], object] = {}


def identify(distinct_id: Any, *, anonymous_id: Any = None, **set: Any) -> None:  # noqa: A002 - PostHog's word
    """
    Attribute later events of this context to *distinct_id*, and merge the anonymous visitor.

    If there is an anonymous id, a ``$identify`` event merges it into the person: once per pair
    of ids and process, and never for an id known to belong to a person. Without a merge, *set*
    is sent as a ``$set`` event. Every `PostHogHandler` in use sends it, and `held` does not
    hold it.

    Args:
        distinct_id: the person's id; None or an empty one changes nothing.
        anonymous_id: the visitor's id; None: the one that a middleware found in a header or
            a cookie of the request.
        set: properties of the person.
    """
    person = _text(distinct_id)
    if not person:
        return
    bound = current() or Bound()
    visitor = _text(bound.anonymous_id if anonymous_id is None else anonymous_id)
    remember_person(person)
    rebind(distinct_id=distinct_id, anonymous_id=visitor or None)
    pair = (visitor, person)
    merges = bool(visitor) and visitor not in _persons and _claim(pair)
    if not merges and not set:
        return
    fields: dict[str, Any] = {
        "distinct_id": distinct_id,
        "event": "$identify" if merges else "$set",
        "set": set,
    }
    if merges:
        fields["anonymous_id"] = visitor
    taken = [taker.accept(fields) for taker in list(takers) if taker.is_in_use()]
    if merges and not any(taken):
        _pairs.pop(pair, None)


def remember_person(distinct_id: Any) -> None:
    """Remember that *distinct_id* belongs to a person, so that it is never merged into another."""
    _persons[_text(distinct_id)] = None
    _trim(_persons)


def is_person(distinct_id: Any) -> bool:
    """Return whether *distinct_id* is known to belong to a person."""
    return _text(distinct_id) in _persons


def _claim(pair: tuple[str, str]) -> bool:
    """Return True for the first caller with *pair*; of two threads at once, for only one."""
    mine = object()
    _trim(_pairs)
    return _pairs.setdefault(pair, mine) is mine


def _trim(known: dict[Any, object]) -> None:
    """Drop the oldest entries above the limit."""
    while len(known) > _KNOWN:
        try:
            known.pop(next(iter(known)), None)
        except (RuntimeError, StopIteration):  # another thread is trimming it, too
            return


def _text(value: Any) -> str:
    """Return an id as trimmed text for comparison; "" for None and for objects without a text."""
    try:
        text = value.decode() if isinstance(value, bytes) else str(value)
    except Exception:  # `__str__` raised
        return ""
    return "" if value is None else text.strip()
