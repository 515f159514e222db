"""
What became of every event: the counts by reason, and one warning for each kind of loss.

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

#: The keys of `Ledger.counts` that are no losses; every other key is the reason for one.
NOT_LOSSES = frozenset({"accepted", "adopted", "delivered", "waiting", "retried", "scrubbed"})
# Losses that the user asked for, so they need no warning.
_INTENDED = frozenset({"sampled"})


class Ledger:
    """
    Count what happened to each event, exactly, from any thread, without a lock for callers.

    ``accepted`` is derived: what is in the `queue`, what was `drained` from it, what a spool has
    made safe (`admitted`) or found (`adopted`), and what log calls were refused. Each of these
    changes in one step, so wherever a log call is interrupted, its event was accepted or was not.
    ``d[key] += n`` on a ``defaultdict(int)`` is one such step: there is no call between load and
    store, so neither a thread nor a signal comes between.
    """

    def __init__(self) -> None:
        #: Returns how many lines the spool has made safe, ever.
        self.admitted: Callable[[], int] = lambda: 0
        #: Returns how many lines of other processes the spool has taken over, ever.
        self.adopted: Callable[[], int] = lambda: 0
        #: Called after an event was refused.
        self.refused: Callable[[], None] = lambda: None
        # Without the interpreter's lock two threads could lose each other's counts.
        self._counting = None if has_gil() else Lock()
        #: Whether nothing is logged.
        self.muted = False
        self.reset()

    def reset(self) -> None:
        """Begin at nothing: counts are per process."""
        #: What was accepted and the thread has not taken yet.
        self.queue: deque[Any] = deque()
        #: How many the thread has taken, and whether it is taking some that are not counted yet.
        self.drained = 0
        self.draining = False
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._refused: defaultdict[str, int] = defaultdict(int)
        self._of_the_hook: defaultdict[str, int] = defaultdict(int)
        self._dropped = itertools.count()
        self._given_up = 0
        self._warned: dict[str, object] = {}

    def add(self, reason: str, count: int = 1) -> None:
        """Count *count* accepted events under *reason*."""
        if count:
            self._counts[reason] += count

    def refuse(self, reason: str, detail: str = "", warn: bool = True) -> None:
        """Count an event that was lost before it was queued: as accepted and lost, in one step."""
        if self._counting is None:
            self._refused[reason] += 1
        else:
            with self._counting:
                self._refused[reason] += 1
        self._note_the_hooks(reason)
        if warn:
            self.warn_of(reason, 1, detail)
        self.refused()

    def drop_oldest(self) -> Any:
        """Take the oldest event out of the queue and count it as lost, in one step of C."""
        dropped = next(zip(iter(self.queue.popleft, None), self._dropped, strict=False))[0]
        self._note_the_hooks("queue_full")
        return dropped

    def lost(self, reason: str) -> int:
        """Return how many were lost for *reason*, without those that ``on_error`` logged."""
        counts = (self._counts, self._refused)
        lost = sum(count.get(reason, 0) for count in counts) - self._of_the_hook.get(reason, 0)
        return lost + self._have_dropped() if reason == "queue_full" else lost

    def _note_the_hooks(self, reason: str) -> None:
        """Note the loss of an event that ``on_error`` logged: calling it again might never end."""
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
        """Count *most* waiting events, at most, as ``shutdown`` until their outcome is known."""
        self._given_up = most
        left = self.counts.get("shutdown", 0)
        if left:
            self.warn_of("shutdown", left)

    def warn(self, topic: str, text: str, end: str = "Logged once.") -> None:
        """Warn with *text* on the library's own logger, once per *topic* until `recovered`."""
        mine = object()
        if self.muted:
            return
        if self._warned.setdefault(topic, mine) is mine:  # atomic: of two threads, one logs
            # `dictConfig` and `fileConfig` disable every logger that they do not name.
            logger.disabled = False
            logger.warning("%s. %s", text.removesuffix("."), end)

    def debug(self, text: str, *args: object) -> None:
        """Log *text* at DEBUG on the library's own logger."""
        if not self.muted:
            logger.debug(text, *args)

    def recovered(self) -> None:
        """Forget what was logged: the outage is over, and the next one will be logged."""
        self._warned.clear()

    @property
    def counts(self) -> Mapping[str, int]:
        """Return the counts by reason, as a new dict that adds up."""
        # Outcomes first: what is accepted, or has an outcome, meanwhile counts as waiting.
        counts, refused = Counter(self._counts), dict(self._refused)
        delivered, retried = counts.pop("delivered", 0), counts.pop("retried", 0)
        if adopted := self.adopted():
            counts["adopted"] += adopted
        accepted = counts.get("adopted", 0) + self.admitted() + sum(refused.values())
        counts.update(refused)
        dropped, passed = self._through_the_queue()
        accepted += dropped + passed
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

    def _through_the_queue(self) -> tuple[int, int]:
        """Return how many events gave way to others, and how many others were ever queued."""
        while True:  # until nothing moved meanwhile: an interruption could leave a lock locked
            dropped, drained = self._have_dropped(), self.drained
            queued = len(self.queue)
            if not self.draining and (dropped, drained) == (self._have_dropped(), self.drained):
                return dropped, queued + drained
            time.sleep(0)

    def _have_dropped(self) -> int:
        """Return how many gave way to others; only its ``repr`` shows the state of a count."""
        return int(repr(self._dropped)[len("count(") : -1])
