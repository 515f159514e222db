"""How many exceptions and logs may go, and how much of one text does: bounded, without a lock."""

from __future__ import annotations

import itertools
import math
import sys

from collections import deque
from operator import length_hint


__all__ = ["Bucket", "RateLimit", "clip"]


def clip(text: str, most: int) -> str:
    """Return *text* in at most *most* bytes of UTF-8, saying how much is missing."""
    start = text[:most].encode("utf-8", "replace")
    if len(text) <= most and len(start) <= most:
        return str.__str__(text)
    note = f"[cut: of {len(text)} characters]"
    return start[: max(most - len(note), 0)].decode("utf-8", "ignore") + note


class RateLimit:
    """
    Let through *burst* things of a name at once, then *refill* a second.

    Beyond *most* names, those that come new share one bucket.
    """

    def __init__(self, burst: int = 10, refill: float = 1.0, most: int = 256) -> None:
        self._burst = burst
        self._period = 1 / refill if refill else math.inf
        self._most = most
        self._buckets: dict[str, Bucket] = {}

    def allow(self, name: str, now: float) -> bool:
        """Return whether one more thing of that name may go, at *now* on any steady clock."""
        bucket = self._buckets.get(name) or self._new(name, now)
        return not bucket.take(now)

    def _new(self, name: str, now: float) -> Bucket:
        if len(self._buckets) >= self._most:
            self._forget(now)
        if len(self._buckets) >= self._most:
            name = ""  # nothing is called that
        return self._buckets.setdefault(name, Bucket(self._burst, self._period, now=now))

    def _forget(self, now: float) -> None:
        """Forget the buckets that are full again: a new one would be the same."""
        for name, bucket in list(self._buckets.items()):
            if bucket.is_full(now):
                self._buckets.pop(name, None)


class Bucket:
    """
    Hand out *burst* tokens, and *amount* more every *period* seconds.

    With an *amount* of *burst* it counts within windows, of which the first thing to come
    after one opens the next. No lock: `next` hands each token out once, to whichever thread
    or signal handler asks first, and whoever takes the time of the last refill may refill.
    """

    def __init__(self, burst: int, period: float, amount: int = 1, now: float = -math.inf) -> None:
        self._burst = min(burst, sys.maxsize)
        self._tokens = itertools.repeat(True, self._burst)  # as many as you like in 48 bytes
        self._refilled = deque([now], maxlen=1)
        self._period = period
        self._amount = amount
        self._refused = itertools.count(1)

    def take(self, now: float) -> int:
        """Take a token; return 0, or where there is none the number of refusals since a refill."""
        self._fill(now)
        return 0 if next(self._tokens, False) else next(self._refused)

    def is_full(self, now: float) -> bool:
        """Return whether all tokens are there."""
        self._fill(now)
        return length_hint(self._tokens) == self._burst

    def _fill(self, now: float) -> None:
        try:
            since = self._refilled.pop()
        except IndexError:
            return  # another thread, or the call that this one interrupts, is at it
        try:
            since = self._earned(now, since)
        finally:
            self._refilled.append(since)

    def _earned(self, now: float, since: float) -> float:
        """Put in what was earned since *since*; return from when on the next is earned."""
        left = length_hint(self._tokens)
        if left == self._burst:
            return now  # a full bucket earns nothing
        periods = (now - since) / self._period
        if periods < 1:
            return min(since, now)  # a clock that was set back must not stop the refill
        earned = int(min(periods, self._burst)) * self._amount
        self._refused = itertools.count(1)
        self._tokens = itertools.repeat(True, min(left + earned, self._burst))
        # What is left of a period counts for the next token, but not for the next window.
        return now if self._amount > 1 else min(since + int(periods) * self._period, now)
