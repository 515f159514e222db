"""
Sampling by person, and a rate limit per person.

A hash of the ``distinct_id`` decides who is in a sample, so every process and every event
agrees: funnels stay whole, and a sample of 20 % includes everybody in the one of 10 %.
"""

from __future__ import annotations

import hashlib
import math
import sys

from collections.abc import Callable, Mapping
from typing import Any

from .message import IDENTITY_EVENTS
from .reentry import Guard
from .typed import rate


__all__ = ["Ceiling", "Sampler", "is_exempt", "is_in_sample"]

#: Called with an event, as ``before_send`` is; returns the share of people to keep, or None.
Rate = Callable[[dict[str, Any]], "float | None"]

#: Events about who a person is, and exceptions, are never sampled.
_EXEMPT = IDENTITY_EVENTS | {"$exception"}

_MOST_PEOPLE = 10_000


def is_exempt(event: str) -> bool:
    """Return whether *event* is never sampled: identify, alias, group, set and exceptions."""
    return event in _EXEMPT


def is_in_sample(distinct_id: str, share: float) -> bool:
    """Return whether this person is in a sample of *share*, from 0 to 1, of all people."""
    digest = hashlib.sha256(distinct_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


class Sampler:
    """
    Keep the events of a share of the people.

    Args:
        rates: the share to keep, from 0 to 1, by the event's name; other events are all kept.
        find: called with an event in place of *rates*; returns its share, or None.
    """

    def __init__(self, rates: Mapping[str, float], find: Rate | None = None) -> None:
        self._rates = rates
        self._find = find
        self._guard = Guard()

    def rate_of(self, event: dict[str, Any], warn: Callable[[str, str], None]) -> float | None:
        """
        Return the share of people whose *event* is kept; None to keep it for all.

        If the callable raises, or returns an invalid share, the event is kept and *warn* is
        called with a warning.
        """
        if is_exempt(event["event"]):
            return None
        if self._find is None or self._guard.is_inside():
            return self._rates.get(event["event"])
        try:
            found = self._guard.run(self._find, event)
            return None if found is None else rate("sample", float(found))
        except Exception as error:
            warn("sample", f"sample failed with {type(error).__name__}; the event is kept")
            return None

    @classmethod
    def of(cls, given: Any) -> Sampler | None:
        """
        Return the sampler for the option ``sample``; None for None.

        *given* is a mapping of event names to rates, or a callable. Raises `TypeError` and
        `ValueError` for anything else.
        """
        if given is None:
            return None
        if callable(given):
            return cls({}, given)
        if not isinstance(given, Mapping):
            raise TypeError(
                "sample: must be a mapping of names to rates, or a callable,"
                f" not a value of type {type(given).__name__}"
            )
        if not all(isinstance(name, str) for name in given):
            raise TypeError("sample: all keys of the mapping must be names of events")
        return cls({name: rate(f"sample: {name!r}", given[name]) for name in given})


class Ceiling:
    """
    Allow *burst* events of a person at once, then *per_second*.

    Keeps one number per person: the time at which the full allowance is available again (the
    generic cell rate algorithm, ITU-T I.371). Remembers *most* people, and first forgets those
    closest to their full allowance.
    """

    def __init__(self, burst: int, per_second: float, most: int = _MOST_PEOPLE) -> None:
        self._cost = 1 / per_second
        self._credit = (burst - 1) * self._cost
        self._most = most
        self._paid: dict[str, float] = {}

    def allow(self, distinct_id: str, now: float) -> bool:
        """Return whether to allow one more event of this person, at *now* (monotonic seconds)."""
        if len(self._paid) >= self._most and distinct_id not in self._paid:
            self._forget(now)
        latest, cost = now + self._credit, self._cost
        # No calls from here on, so no other thread or signal handler can interrupt.
        try:
            paid = self._paid[distinct_id]
        except KeyError:
            paid = now
        if paid > latest:
            return False
        if paid < now:
            paid = now
        self._paid[distinct_id] = paid + cost
        return True

    def _forget(self, now: float) -> None:
        """Forget everybody with a full allowance; if needed, also the half closest to it."""
        owing = [pair for pair in self._paid.copy().items() if pair[1] > now]
        owing.sort(key=lambda pair: pair[1])
        if len(owing) >= self._most:
            owing = owing[len(owing) // 2 :]
        self._paid = dict(owing)

    def __len__(self) -> int:
        """Return the number of people remembered."""
        return len(self._paid)

    @classmethod
    def of(cls, given: Any) -> Ceiling | None:
        """
        Return the ceiling for the option ``person_rate``; None for None.

        *given* is a pair: how many events at once, and how many a second. Raises `TypeError`
        and `ValueError` for anything else.
        """
        if given is None:
            return None
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise TypeError(
                "person_rate: must be how many events at once and how many a second,"
                f" not a value of type {type(given).__name__}"
            )
        burst, per_second = given
        if isinstance(burst, bool) or not isinstance(burst, int):
            raise TypeError("person_rate: how many at once must be a whole number")
        if isinstance(per_second, bool) or not isinstance(per_second, (int, float)):
            raise TypeError("person_rate: how many a second must be a number")
        if burst < 1 or not 0 < per_second < math.inf:  # also not a number
            raise ValueError(
                "person_rate: must be at least 1 at once and more than 0 a second,"
                f" not {burst} and {per_second}"
            )
        return cls(min(burst, sys.maxsize), per_second)
