"""
What became of every event: the counts by reason, and telling of a loss once.

``accepted == delivered + waiting + every loss`` at any time.
"""

from __future__ import annotations

import itertools
import time

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

from ..context import current
from .lock import Lock, has_gil
from .own_log import logger
from .reasons import sentence


__all__ = ["NOT_LOSSES", "REPORTED", "Ledger"]

#: The property of events that ``on_error`` logs.
REPORTED = "$on_error"

#: The keys of `Ledger.counts` that are no loss; every other key is a reason for one.
NOT_LOSSES = frozenset({"accepted", "adopted", "delivered", "waiting", "retried", "scrubbed"})
# Losses that were asked for: nobody needs to be warned of them.
_INTENDED = frozenset({"sampled"})


class Ledger:
    """
    Count what happened to each event, exactly, from any thread, without a lock for callers.

    ``accepted`` is derived: what stands in the *queue*, what the thread took out of it
    (`came`), what a spool wrote down itself (`admitted`) or found (`adopted`), and what was
    refused at the door.
    Each of these changes in one step, so a log call that is thrown out of anywhere has either
    taken its event in or has not. ``d[key] += n`` of a ``defaultdict(int)`` is one such step:
    there is no call between load and store, so neither a thread nor a signal comes between.
    """

    def __init__(self) -> None:
        #: How many lines a spool has made safe by itself, ever.
        self.admitted: Callable[[], int] = int
        #: How many lines of other processes a spool has taken over, ever.
        self.adopted: Callable[[], int] = int
        # Without the interpreter's lock two threads could lose each other's counts.
        self._counting = None if has_gil() else Lock()
        self.reset()

    def reset(self) -> None:
        """Begin at nothing: counts are per process."""
        #: What was accepted and not drained yet.
        self.queue: deque[Any] = deque()
        #: How many were drained, and whether some are being drained that it does not count yet.
        self.came = 0
        self.moving = False
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._refused: defaultdict[str, int] = defaultdict(int)
        self._of_the_hook: defaultdict[str, int] = defaultdict(int)
        self._dropped = itertools.count()
        self._given_up = 0
        self._warned: dict[str, object] = {}

    def accept(self) -> None:
        """Take in hand an event that stands in no queue (for spools that cannot count)."""
        self.came += 1

    def add(self, reason: str, count: int = 1) -> None:
        """Count *count* events, accepted before, under *reason*."""
        if count:
            self._counts[reason] += count

    def refuse(self, reason: str, detail: str = "", warn: bool = True) -> None:
        """Count an event that was lost before it was accepted: as both, in one step."""
        if self._counting is None:
            self._refused[reason] += 1
        else:
            with self._counting:
                self._refused[reason] += 1
        self._note_the_hooks(reason)
        if warn:
            self.warn_of(reason, 1, detail)

    def drop_oldest(self) -> Any:
        """Take the oldest event out of the queue and count it lost, in one step of C."""
        dropped = next(zip(iter(self.queue.popleft, None), self._dropped, strict=False))[0]
        self._note_the_hooks("queue_full")
        return dropped

    def lost(self, reason: str) -> int:
        """Return how many were lost for *reason*, but by what ``on_error`` itself logs."""
        counts = (self._counts, self._refused)
        lost = sum(count.get(reason, 0) for count in counts) - self._of_the_hook.get(reason, 0)
        return lost + self._have_dropped() if reason == "queue_full" else lost

    def _note_the_hooks(self, reason: str) -> None:
        """Note a loss of what ``on_error`` logs, of which it hears nothing: else without end."""
        bound = current()
        if bound is not None and REPORTED in bound.properties:
            self._of_the_hook[reason] += 1

    def lose(self, reason: str, count: int = 1, detail: str = "") -> None:
        """Count a loss, and log the first one of its reason since `recovered`."""
        self.add(reason, count)
        self.warn_of(reason, count, detail)

    def warn_of(self, reason: str, count: int = 1, detail: str = "") -> None:
        """Log what was lost and what to do about it, once per *reason* until `recovered`."""
        if reason not in _INTENDED:
            text = sentence(reason, count, detail)
            self.warn(reason, text, "Logged once; further losses are counted.")

    def give_up(self, most: int) -> None:
        """Call *most* of what waits ``shutdown`` until it is known what became of it."""
        self._given_up = most
        left = self.counts.get("shutdown", 0)
        if left:
            self.warn_of("shutdown", left)

    def warn(self, topic: str, text: str, end: str = "Logged once.") -> None:
        """Warn with *text* on the library's own logger, once per *topic* until `recovered`."""
        mine = object()
        if self._warned.setdefault(topic, mine) is mine:  # atomic: of two threads, one tells
            # `dictConfig` and `fileConfig` switch off every logger that they do not name.
            logger.disabled = False
            logger.warning("%s. %s", text.removesuffix("."), end)

    def recovered(self) -> None:
        """Forget what was logged: the outage is over, and the next one is logged again."""
        self._warned.clear()

    @property
    def counts(self) -> Mapping[str, int]:
        """Return the counts by reason, as a new dict that adds up."""
        # Outcomes first: what is accepted, or has an outcome, meanwhile waits in this account.
        counts, refused = Counter(self._counts), dict(self._refused)
        delivered, retried = counts.pop("delivered", 0), counts.pop("retried", 0)
        if adopted := self.adopted():
            counts["adopted"] += adopted
        accepted = counts.get("adopted", 0) + self.admitted() + sum(refused.values())
        counts.update(refused)
        while True:  # until nothing moved meanwhile: a lock could stay locked by an interrupt
            dropped, came = self._have_dropped(), self.came
            queued = len(self.queue)
            if not self.moving and (dropped, came) == (self._have_dropped(), self.came):
                break
            time.sleep(0)
        accepted += dropped + queued + came
        if dropped:
            counts["queue_full"] += dropped
        lost = sum(n for reason, n in counts.items() if reason not in NOT_LOSSES)
        waiting = accepted - delivered - lost
        given_up = min(self._given_up, waiting)
        if given_up > 0:
            counts["shutdown"] += given_up
            waiting -= given_up
        return {
            "accepted": accepted,
            "delivered": delivered,
            "waiting": waiting,
            "retried": retried,
            **counts,
        }

    def _have_dropped(self) -> int:
        """Return how many gave way to others: the text is the one way to look at a count."""
        return int(repr(self._dropped)[len("count(") : -1])
