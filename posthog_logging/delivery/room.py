"""
How many events, and how many bytes of events, may wait in memory, and which give way beyond that.

Callers add to `bytes_in` and compare; only the thread moves the limits. Both limits are for
everything in memory: the queue, what the thread has in hand, the spool, and batches that were not
answered yet.
"""

from __future__ import annotations

import time

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any

from .clock import monotonic
from .ledger import Ledger


__all__ = ["AROUND_DRAFT", "OVERFLOWS", "Room", "size_of", "sizes"]

#: What may give way: the newest event, the oldest one, or the time of the caller.
OVERFLOWS = ("drop_newest", "drop_oldest", "block")

#: About how many bytes a draft's line has beside its properties.
AROUND_DRAFT = 250


class Room:
    """
    The bounds of one pipeline.

    Args:
        most: how many events may wait.
        most_bytes: how many bytes of events may wait.
        overflow: one of `OVERFLOWS`.
        block_timeout: for how many seconds ``"block"`` blocks a caller at most.
        must_not_wait: returns whether the caller is the thread, which would wait for itself.
    """

    def __init__(
        self,
        ledger: Ledger,
        most: int,
        most_bytes: int,
        overflow: str,
        block_timeout: float,
        must_not_wait: Callable[[], bool],
    ) -> None:
        self._ledger = ledger
        self._most = most
        self._most_bytes = most_bytes
        self._overflow = overflow
        self._block_timeout = block_timeout
        self._must_not_wait = must_not_wait
        self.reset()

    def reset(self) -> None:
        """Begin with nothing, as in a forked child."""
        self._queue: deque[Any] = self._ledger.queue
        #: Bytes that callers have put, ever: an estimate, which the thread corrects.
        self.bytes_in = 0
        self._bytes_out = 0  # bytes that the thread took out of the queue, ever
        self._last_bytes_in = 0
        self.set_limits(0, 0)

    def set_limits(self, events: int, size: int) -> None:
        """Set the limits of the queue, where *events* of *size* bytes wait elsewhere."""
        self.queue_limit = self._most - events
        self.bytes_limit = self._bytes_out + self._most_bytes - size

    @property
    def excess(self) -> int:
        """How many events must give way now; at least one if there are too many bytes."""
        least = 1 if self.bytes_limit < self._bytes_out else 0
        return max(-self.queue_limit, least)

    @property
    def drops_oldest(self) -> bool:
        """Whether the oldest events give way."""
        return self._overflow == "drop_oldest"

    @property
    def is_full(self) -> bool:
        """Whether there is no room for what a caller has just added to `bytes_in`."""
        return len(self._queue) >= self.queue_limit or self.bytes_in > self.bytes_limit

    @property
    def is_half_full(self) -> bool:
        """Whether half of the room is taken, so that the thread must hurry."""
        return (
            2 * len(self._queue) > self.queue_limit
            or self.bytes_in + self.bytes_in - self._bytes_out > self.bytes_limit
        )

    def make(self) -> bool:
        """Apply the overflow policy; return whether the event may come in."""
        if self._overflow == "block" and self._wait():
            return True
        if self._overflow == "drop_oldest" and self._drop_oldest():
            return True
        self._ledger.refuse("queue_full")
        return False

    def note_taken(self, items: Sequence[Any]) -> None:
        """Note that the thread took *items* out of the queue."""
        self._bytes_out += sizes(items)

    def forget_interrupted(self) -> None:
        """
        Forget bytes that interrupted callers added for events they did not put.

        For an empty queue. Another caller may be about to put an event, so this acts only if
        no bytes were added since the last call.
        """
        if self.bytes_in == self._last_bytes_in:
            self._bytes_out = self.bytes_in
        self._last_bytes_in = self.bytes_in

    def _wait(self) -> bool:
        """Look every millisecond: a signal handler that logs would deadlock on an `Event`."""
        deadline = monotonic() + self._block_timeout
        while self.is_full:
            if self._must_not_wait() or monotonic() >= deadline:
                return False
            time.sleep(0.001)
        return True

    def _drop_oldest(self) -> bool:
        """Drop the first of the queue; what the thread already has, the thread drops."""
        with suppress(IndexError):
            while (
                len(self._queue) >= self._most
                or self.bytes_in - self._bytes_out > self._most_bytes
            ):
                self.bytes_in -= size_of(self._ledger.drop_oldest())
                self._ledger.warn_of("queue_full")
            return True
        return False


def size_of(item: Any) -> int:
    """Return the bytes of a line, or about how many a draft's line will have."""
    return len(item[-1]) + AROUND_DRAFT if type(item) is tuple else len(item)


def sizes(items: Sequence[Any]) -> int:
    """Return the bytes of lines and drafts, as `size_of` does."""
    kinds = set(map(type, items))
    if kinds == {tuple}:
        return sum(map(len, map(itemgetter(-1), items))) + AROUND_DRAFT * len(items)
    return sum(map(size_of if tuple in kinds else len, items))
