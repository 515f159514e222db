"""
How many events, and bytes of events, may wait in memory, and which give way beyond that.

Callers add to `bytes_in` and compare; the thread alone moves the limits. Both the size of the
queue and the bytes are bounds for what waits anywhere in memory: in the queue, in the thread's
hand, in the spool, and in a batch that was not answered yet.
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


__all__ = ["AROUND_DRAFT", "OVERFLOWS", "Room", "size_of"]

#: What may give way: the newest event, the oldest one, or the time of the caller.
OVERFLOWS = ("drop_newest", "drop_oldest", "block")

#: About how many bytes of its line a draft has beside its properties.
AROUND_DRAFT = 250


class Room:
    """
    The bounds of one pipeline.

    Args:
        most: how many events may wait.
        most_bytes: how many bytes of events may wait.
        overflow: one of `OVERFLOWS`.
        block_timeout: for how many seconds ``"block"`` blocks a caller at most.
        queue: what callers append to.
        wait_is_futile: returns whether the caller is the thread that makes the room.
    """

    def __init__(
        self,
        ledger: Ledger,
        most: int,
        most_bytes: int,
        overflow: str,
        block_timeout: float,
        wait_is_futile: Callable[[], bool],
    ) -> None:
        self._ledger = ledger
        self._most = most
        self._most_bytes = most_bytes
        self._overflow = overflow
        self._block_timeout = block_timeout
        self._wait_is_futile = wait_is_futile
        self.reset()

    def reset(self) -> None:
        """Begin with nothing, as in a forked child."""
        self._queue: deque[Any] = self._ledger.queue
        #: Bytes that callers have put, ever: an estimate, which the thread corrects.
        self.bytes_in = 0
        self._bytes_out = 0
        self._quiet_at = 0
        self.note(0, 0)

    def note(self, events: int, size: int) -> None:
        """Set the limits of the queue, where *events* of *size* bytes wait behind it."""
        self.events = self._most - events
        self.bytes_limit = self._bytes_out + self._most_bytes - size

    @property
    def excess(self) -> int:
        """How many events are to give way now; at least one where there are too many bytes."""
        too_many = -self.events
        return max(too_many, 1) if self.bytes_limit < self._bytes_out else max(too_many, 0)

    @property
    def drops_oldest(self) -> bool:
        """Whether the oldest events give way."""
        return self._overflow == "drop_oldest"

    @property
    def is_full(self) -> bool:
        """Whether what was just put is too much."""
        return len(self._queue) >= self.events or self.bytes_in > self.bytes_limit

    @property
    def is_half_full(self) -> bool:
        """Whether the thread has to hurry, lest there be too little room soon."""
        return (
            2 * len(self._queue) > self.events
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

    def taken_out(self, items: Sequence[Any]) -> None:
        """Note that *items* left the queue."""
        self._bytes_out += _sizes(items)

    def settle(self) -> None:
        """
        Forget what interrupted callers have added and not put.

        Only where nothing was added between two calls, for callers may be on their way.
        """
        if self.bytes_in == self._quiet_at:
            self._bytes_out = self.bytes_in
        self._quiet_at = self.bytes_in

    def _wait(self) -> bool:
        """Look every millisecond: an `Event` would lock out a signal handler that logs, too."""
        deadline = monotonic() + self._block_timeout
        while self.is_full:
            if self._wait_is_futile() or monotonic() >= deadline:
                return False
            time.sleep(0.001)
        return True

    def _drop_oldest(self) -> bool:
        """Drop what stands first in the queue; what the thread has already, the thread drops."""
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
    """Return the bytes of a line, or about as many as a draft's line will have."""
    return len(item[-1]) + AROUND_DRAFT if type(item) is tuple else len(item)


def _sizes(items: Sequence[Any]) -> int:
    kinds = set(map(type, items))
    if kinds == {tuple}:
        return sum(map(len, map(itemgetter(-1), items))) + AROUND_DRAFT * len(items)
    return sum(map(size_of if tuple in kinds else len, items))
