"""
What became of every event: the counts by reason, and telling of a loss once.

The only module that speaks to the user, on the logger ``posthog_logging``: names and
sizes, never payloads or keys. ``accepted == delivered + waiting + every loss`` at any time.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading

from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress


__all__ = ["NOT_LOSSES", "Ledger", "logger"]

logger = logging.getLogger("posthog_logging")
logger.addHandler(logging.NullHandler())

#: The keys of `Ledger.counts` that are no loss; every other key is a reason for one.
NOT_LOSSES = frozenset({"accepted", "adopted", "delivered", "waiting", "retried"})

_FOLD_AT = 10_000


class Ledger:
    """
    Count what happened to each event, exactly, from any thread, without a lock for callers.

    ``deque.append`` and ``next(itertools.count())`` are atomic and re-entrant: a log call
    from a signal handler or from ``__del__`` during garbage collection cannot dead-lock.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin at nothing: counts are per process."""
        self._numbers = itertools.count()
        self._entries: deque[tuple[str, int]] = deque()
        # Not a Counter: its `__missing__` is Python, in which a signal handler may run.
        self._folded: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.RLock()
        self._told: dict[str, object] = {}
        self._final: Mapping[str, int] | None = None
        #: Take an event in hand: every accepted one ends as delivered, waiting or a loss.
        self.accept = self._numbers.__next__

    def add(self, reason: str, count: int = 1) -> None:
        """Count *count* events under *reason*."""
        if count:
            self._entries.append((reason, count))
        if len(self._entries) > _FOLD_AT and self._lock.acquire(blocking=False):
            try:
                self._fold()
            finally:
                self._lock.release()

    def adopt(self, count: int) -> None:
        """Take in hand *count* events that another process had accepted."""
        for _ in range(count):
            self.accept()
        self.add("adopted", count)
        logger.info("%d event(s) of a process that ended are delivered by this one", count)

    def lose(self, reason: str, count: int = 1, detail: str = "") -> None:
        """Count a loss, and tell of the first one of its reason since `recovered`."""
        self.add(reason, count)
        self.tell(reason, f"{count} event(s) lost: {reason}{detail and f' ({detail})'}")

    def give_up(self, reason: str, most: int = sys.maxsize) -> None:
        """
        Count what still waits, *most* at most, as lost; what comes in later changes no count.

        (The rest waits on disk, for another process.)
        """
        with self._lock:
            counts = dict(self.counts)
            left = min(most, counts["waiting"])
            if left > 0:
                counts["waiting"] -= left
                self._final = {**counts, reason: counts.get(reason, 0) + left}
        if left > 0:
            self.tell(reason, f"{left} event(s) lost: {reason}")

    def tell(self, topic: str, text: str, level: int = logging.WARNING) -> None:
        """Log *text* on the library's own logger, once per *topic* until `recovered`."""
        mine = object()
        if self._told.setdefault(topic, mine) is mine:  # atomic: of two threads, one tells
            logger.log(level, "%s; further ones are counted, not told", text)

    def recovered(self) -> None:
        """Forget what was told: the outage is over, the next one is told again."""
        self._told.clear()

    @property
    def counts(self) -> Mapping[str, int]:
        """Return the counts by reason, as a new dict that adds up."""
        if self._final is not None:
            return dict(self._final)
        with self._lock:
            self._fold()
            counts = dict(self._folded)
            # "count(7)": its text is the one way to read it that takes no number, and that a
            # signal handler which looks as well cannot come between.
            accepted = int(repr(self._numbers)[len("count(") : -1])
        lost = sum(n for reason, n in counts.items() if reason not in NOT_LOSSES)
        delivered = counts.pop("delivered", 0)
        retried = counts.pop("retried", 0)
        return {
            "accepted": accepted,
            "delivered": delivered,
            "waiting": accepted - delivered - lost,
            "retried": retried,
            **counts,
        }

    def _fold(self) -> None:
        with suppress(IndexError):  # not asked before: a signal handler may fold as well
            while True:
                reason, count = self._entries.popleft()
                self._folded[reason] += count
