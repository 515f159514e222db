"""
Fewer events, honestly: a share of the people, and a ceiling for each of them.

Which people are in a sample is a hash's decision, so it is the same in every process, for
every event: whoever is in a sample of 10 % is in one of 20 %, too, and a funnel is whole.
"""

from __future__ import annotations

import hashlib
import math

from collections.abc import Callable, Mapping
from typing import Any

from .message import IDENTITY_EVENTS
from .typed import rate


__all__ = ["Ceiling", "Sampler", "is_exempt", "is_in_sample"]

#: Given an event as ``before_send`` gets it, returns the share of people that is kept.
Rate = Callable[[dict[str, Any]], "float | None"]

#: What is known of a person, and what went wrong, is never a sample.
_EXEMPT = IDENTITY_EVENTS | {"$exception"}

_MOST_PEOPLE = 10_000


def is_exempt(event: str) -> bool:
    """Return whether an *event* is always sent: identify, alias, group, set and exceptions."""
    return event in _EXEMPT


def is_in_sample(distinct_id: str, share: float) -> bool:
    """Return whether this person is among *share* of all; the same wherever it is asked."""
    digest = hashlib.sha256(distinct_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


class Sampler:
    """
    Keeps the events of a share of the people.

    Args:
        rates: the share for each event's name; all others are kept whole.
        find: returns the share of an event instead, None where it has none.
    """

    def __init__(self, rates: Mapping[str, float], find: Rate | None = None) -> None:
        self._rates = rates
        self._find = find

    def rate_of(self, event: dict[str, Any], tell: Callable[[str, str], None]) -> float | None:
        """
        Return the share of *event* that is kept; None where it has none.

        Where the callable fails the event has none, which *tell* is called with.
        """
        if is_exempt(event["event"]):
            return None
        if self._find is None:
            return self._rates.get(event["event"])
        try:
            found = self._find(event)
            return None if found is None else rate("sample", float(found))
        except Exception as error:
            tell("sample", f"sample failed with {type(error).__name__}; the event is kept")
            return None

    @classmethod
    def of(cls, given: Any) -> Sampler | None:
        """
        Return the sampler that an option means: a mapping of names to rates, or a callable.

        Raises `TypeError` and `ValueError`, which name the option.
        """
        if given is None:
            return None
        if callable(given):
            return cls({}, given)
        if not isinstance(given, Mapping):
            raise TypeError(
                "sample: a mapping of names to rates, or a callable,"
                f" not a value of type {type(given).__name__}"
            )
        if not all(isinstance(name, str) for name in given):
            raise TypeError("sample: a mapping whose keys are names of events")
        return cls({name: rate(f"sample: {name!r}", given[name]) for name in given})


class Ceiling:
    """
    Let through *burst* events of a person at once, then *per_second*.

    One number a person: the time at which all that was let through is paid for (the generic
    cell rate algorithm, ITU-T I.371). For *most* people; those who owe least are forgotten.
    """

    def __init__(self, burst: int, per_second: float, most: int = _MOST_PEOPLE) -> None:
        self._cost = 1 / per_second
        self._credit = (burst - 1) * self._cost
        self._most = most
        self._paid: dict[str, float] = {}

    def allow(self, distinct_id: str, now: float) -> bool:
        """Return whether one more event of this person may go, at *now* on a steady clock."""
        if len(self._paid) >= self._most and distinct_id not in self._paid:
            self._forget(now)
        latest, cost = now + self._credit, self._cost
        # From here on there is no call: neither a thread nor a signal comes between.
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
        """Forget who owes nothing; if that is not enough, the half that owes least."""
        owing = [pair for pair in self._paid.copy().items() if pair[1] > now]
        owing.sort(key=lambda pair: pair[1])
        if len(owing) >= self._most:
            owing = owing[len(owing) // 2 :]
        self._paid = dict(owing)

    def __len__(self) -> int:
        """Return how many people are remembered."""
        return len(self._paid)

    @classmethod
    def of(cls, given: Any) -> Ceiling | None:
        """Return the ceiling that an option means: how many at once and how many a second."""
        if given is None:
            return None
        if not isinstance(given, (tuple, list)) or len(given) != 2:
            raise TypeError(
                "person_rate: how many events at once and how many a second,"
                f" not a value of type {type(given).__name__}"
            )
        burst, per_second = given
        if isinstance(burst, bool) or not isinstance(burst, int):
            raise TypeError("person_rate: how many at once is a whole number")
        if isinstance(per_second, bool) or not isinstance(per_second, (int, float)):
            raise TypeError("person_rate: how many a second is a number")
        if burst < 1 or not 0 < per_second < math.inf:  # also not a number
            raise ValueError(
                f"person_rate: {burst} at once and {per_second} a second:"
                " at least 1, and more than 0"
            )
        return cls(burst, per_second)
