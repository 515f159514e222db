"""Rate limits without locks, and the limit of a text."""

from __future__ import annotations

import itertools
import math
import sys

from collections import deque
from operator import length_hint


__all__ = ["Bucket", "RateLimit", "clip"]


def clip(text: str, most: int) -> str:
    """Return *text* cut to *most* bytes of UTF-8, with a note of its length if it was cut."""
    start = text[:most].encode("utf-8", "replace")
    if len(text) <= most and len(start) <= most:
        return str.__str__(text)
    note = f"[cut: of {len(text)} characters]"
    return start[: max(most - len(note), 0)].decode("utf-8", "ignore") + note


class RateLimit:
    """
    Allow *burst* things of a name at once, then *refill* a second.

    Remembers *most* names; above that, all new names share one bucket.
    """

    def __init__(self, burst: int = 10, refill: float = 1.0, most: int = 256) -> None:
        self._burst = burst
        self._period = 1 / refill if refill else math.inf
        self._most = most
        self._buckets: dict[str, Bucket] = {}

    def allow(self, name: str, now: float) -> bool:
        """Return whether to allow one more thing of that name, at *now* (monotonic seconds)."""
        bucket = self._buckets.get(name) or self._new(name, now)
        return not bucket.take(now)

    def _new(self, name: str, now: float) -> Bucket:
        if len(self._buckets) >= self._most:
            self._forget(now)
        if len(self._buckets) >= self._most:
            name = ""  # the shared bucket
        return self._buckets.setdefault(name, Bucket(self._burst, self._period, now=now))

    def _forget(self, now: float) -> None:
        """Forget full buckets, which are like new ones."""
        for name, bucket in list(self._buckets.items()):
            if bucket.is_full(now):
                self._buckets.pop(name, None)


class Bucket:
    """
    A token bucket: *burst* tokens, and *amount* more every *period* seconds.

    With *amount* equal to *burst* it limits per window; the first call after a window opens the
    next one. No lock is needed: `next` hands out each token once, to any thread or signal
    handler, and only the thread that took the time of the last refill may refill.
    """

    def __init__(self, burst: int, period: float, amount: int = 1, now: float = -math.inf) -> None:
        self._burst = min(burst, sys.maxsize)
        self._tokens = itertools.repeat(True, self._burst)  # 48 bytes for any number
        self._refilled = deque([now], maxlen=1)
        self._period = period
        self._amount = amount
        self._refused = itertools.count(1)

    def take(self, now: float) -> int:
        """Take a token and return 0; if none is left, return the refusals since the refill."""
        self._fill(now)
        return 0 if next(self._tokens, False) else next(self._refused)

    def is_full(self, now: float) -> bool:
        """Return whether the bucket has all its tokens."""
        self._fill(now)
        return length_hint(self._tokens) == self._burst

    def _fill(self, now: float) -> None:
        try:
            since = self._refilled.pop()
        except IndexError:
            return  # another thread, or the call that this one interrupted, is refilling
        try:
            since = self._earned(now, since)
        finally:
            self._refilled.append(since)

    def _earned(self, now: float, since: float) -> float:
        """Add the tokens earned since *since*; return the time from which to count the next."""
        left = length_hint(self._tokens)
        if left == self._burst:
            return now  # a full bucket earns nothing
        periods = (now - since) / self._period
        if periods < 1:
            return min(since, now)  # so that a clock set back does not stop the refill
        earned = int(min(periods, self._burst)) * self._amount
        self._refused = itertools.count(1)
        self._tokens = itertools.repeat(True, min(left + earned, self._burst))
        # The rest of a period counts towards the next token, but not towards the next window.
        return now if self._amount > 1 else min(since + int(periods) * self._period, now)
