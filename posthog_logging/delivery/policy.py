"""
When to send, and what an answer means: pure functions of state, time and chance.

Nothing here waits or sends. Backing off is a number, ``not_before``, and whatever changes a
`Schedule` returns a new one.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import email.utils
import enum
import math
import random

from collections.abc import Callable
from dataclasses import dataclass

from ..wire import Rules


__all__ = ["Outcome", "Schedule", "Settings", "backoff", "judge", "parse_retry_after"]

#: The shortest wait, in seconds: PostHog's test harness allows no earlier retry.
SHORTEST_BACKOFF = 0.1

#: The longest wait, in seconds, unless the server asks for more.
LONGEST_PAUSE = 15 * 60.0

_FIRST_PAUSE = 60.0
# The seconds between requests grow by so much with each 429, and shrink to so much of themselves
# with each success: what is left is about what the server's limit allows.
_SLOWER, _SLOWEST = 0.3, 5.0
_FASTER = 0.9
_LEAST_PACE = 0.1
_LONGEST_PACE = 30.0
_NOT_FOUND = frozenset({404, 405, 410})


class Outcome(enum.Enum):
    """What an answer means for its batch."""

    DELIVERED = "delivered"
    RETRY = "retry"
    PAUSE = "pause"  # the key, the bill or the address is wrong: keep the events, send rarely
    REFUSED = "refused"  # by a firewall, because of the address or of one event
    HALVE = "halve"  # the batch is too large
    BISECT = "bisect"  # the endpoint cannot take one of the events
    OVERSIZED = "oversized"  # one event is too large
    REJECTED = "rejected"


def judge(
    status: int | None, rules: Rules, count: int, *, page: bool = False, proven: bool = False
) -> Outcome:
    """
    Return what *status* means for a batch of *count* events; a status of None is no answer.

    Args:
        page: whether the body is a web page, from something in front of the endpoint.
        proven: whether the endpoint is known to exist, so that "not found" will pass.
    """
    if status is None or status < 200:
        return Outcome.RETRY
    if status < 300:
        return Outcome.DELIVERED
    if status < 400:
        return Outcome.PAUSE
    if status == 413:
        return Outcome.HALVE if count > 1 else Outcome.OVERSIZED
    if status in rules.retry or (proven and status in _NOT_FOUND):
        return Outcome.RETRY
    if status in rules.pause:
        return Outcome.PAUSE
    if status >= 500 and status not in rules.final:
        return Outcome.RETRY
    if page or status in rules.refused:
        return Outcome.REFUSED
    if status in rules.bisect | rules.final and count > 1:
        return Outcome.BISECT
    return Outcome.REJECTED


def parse_retry_after(value: str | None, now: float) -> float | None:
    """
    Return the seconds that a ``Retry-After`` asks for, in either form (RFC 9110, 10.2.3).

    None if it is in the past, zero or unreadable. A header that was sent several times is one
    value with commas, of which the longest wait counts.
    """
    if not value:
        return None
    waits = [_seconds_in(value, now)]
    if waits == [None] and "," in value:
        waits = [_seconds_in(part, now) for part in value.split(",")]
    return max(filter(None, waits), default=None)


def _seconds_in(text: str, now: float) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=dt.UTC)
            seconds = moment.timestamp() - now
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def backoff(failures: int, longest: float, uniform: Callable[[float, float], float]) -> float:
    """Return a wait with full jitter: up to 1, 2, 4 … *longest* seconds, at least 100 ms."""
    ceiling = min(longest, 2.0 ** min(failures - 1, 30))
    return max(SHORTEST_BACKOFF, uniform(0.0, ceiling))


@dataclass(frozen=True)
class Settings:
    """When a batch is due and when it is given up."""

    flush_at: int = 100
    flush_interval: float = 1.0
    max_retries: int | None = None
    max_age: float | None = None
    timeout: float = 15.0
    bisect: bool = True


@dataclass(frozen=True)
class Schedule:
    """
    When to try again, and with how many events.

    Args:
        most: how many events a batch may have.
        limit: how many it may have now; 0: *most*.
        failures: how many attempts failed in a row.
        pauses: how often in a row sending was paused.
        not_before: when the next attempt is allowed, on the monotonic clock.
        asked: until when the server itself has asked to be left alone.
        pace: how many seconds there are between requests, as far as the server's limit is known.
    """

    most: int
    limit: int = 0
    failures: int = 0
    pauses: int = 0
    not_before: float = 0.0
    asked: float = 0.0
    pace: float = 0.0

    def __post_init__(self) -> None:
        if not self.limit:
            object.__setattr__(self, "limit", self.most)

    def due_in(self, now: float) -> float:
        """Return the seconds until the next attempt is allowed; 0 if it is."""
        return max(0.0, self.not_before - now)

    def succeeded(self, now: float) -> Schedule:
        """Return the schedule after a delivery: no back-off, and batches grow by a quarter."""
        limit = min(self.most, self.limit + max(1, self.limit // 4))
        is_old = now - self.not_before > _LONGEST_PACE
        if self.pace <= _LEAST_PACE or is_old:
            return Schedule(self.most, limit)
        pace = self.pace * _FASTER
        return Schedule(self.most, limit, not_before=now + pace, pace=pace)

    def throttled(self, retry_after: float = 0.0) -> Schedule:
        """Return the schedule after an answer that there were too many requests."""
        step = min(max(_SLOWER, retry_after / 2), _SLOWEST)
        return dataclasses.replace(self, pace=min(self.pace + step, _LONGEST_PACE))

    def failed(
        self,
        now: float,
        rules: Rules,
        retry_after: float | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> Schedule:
        """Return the schedule after a failure; it waits *retry_after* seconds at least."""
        failures = self.failures + 1
        asked = min(retry_after or 0.0, rules.longest_retry_after)
        wait = max(asked, backoff(failures, rules.longest_backoff, uniform))
        return dataclasses.replace(
            self, failures=failures, not_before=now + wait, asked=now + asked
        )

    def paused(self, now: float, rules: Rules, retry_after: float | None = None) -> Schedule:
        """Return the schedule after a refused key or wrong address: a minute, then twice that."""
        asked = min(retry_after or 0.0, rules.longest_retry_after)
        wait = max(asked, min(LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self.pauses, 8)))
        return dataclasses.replace(
            self, pauses=self.pauses + 1, not_before=now + wait, asked=now + asked
        )

    def halved(self, count: int) -> Schedule:
        """Return the schedule after a batch of *count* events was too large."""
        return dataclasses.replace(self, limit=max(1, count // 2))
