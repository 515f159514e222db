"""
Which batch is next: a queue of batches, and beside it, isolated, those that may be at fault.

Nothing waits behind one event. A batch that failed goes to the end of the queue; one that keeps
failing while others get through is isolated, and is tried when nothing else is due, or after
`_COURTESY` batches of others at the latest.
"""

from __future__ import annotations

import math

from collections import deque
from collections.abc import Iterable

from .parcel import Budget, Parcel


__all__ = ["Lineup"]

# How many new batches may go first while one that failed is due again.
_COURTESY = 10


class Lineup:
    """The batches that were made of lines and are not settled yet."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all parcels."""
        self._queue: deque[Parcel] = deque()
        self._isolated: list[Parcel] = []
        self._isolated_from = 0.0  # when isolated batches may be tried again
        self._courtesy = 0

    def __len__(self) -> int:
        """Return how many events wait here."""
        return sum(map(len, self._queue)) + sum(map(len, self._isolated))

    def __bool__(self) -> bool:
        return bool(self._queue or self._isolated)

    @property
    def queued(self) -> int:
        """How many parcels are in the queue."""
        return len(self._queue)

    def failed_after(self, successes: int) -> int:
        """Return how many parcels in the queue failed when *successes* requests had succeeded."""
        return sum(parcel.failed_after == successes for parcel in self._queue)

    def put_first(self, parcels: Iterable[Parcel]) -> None:
        """Put *parcels*, in their order, before all others."""
        self._queue.extendleft(reversed([*parcels]))

    def put_last(self, parcel: Parcel) -> None:
        """Put *parcel* behind all others."""
        self._queue.append(parcel)

    def isolate(self, parcels: Iterable[Parcel]) -> None:
        """Put *parcels* beside the queue, so that nothing waits behind them."""
        self._isolated.extend(parcels)

    def pause_isolated(self, until: float) -> None:
        """Let no isolated parcel be tried before *until*."""
        self._isolated_from = until

    def due_at(self) -> float:
        """Return when the next parcel is due; infinity where none will be."""
        queued = min((parcel.not_before for parcel in self._queue), default=math.inf)
        isolated = min((parcel.not_before for parcel in self._isolated), default=math.inf)
        return min(queued, max(isolated, self._isolated_from))

    def lets_new_go_first(self, now: float) -> bool:
        """Return whether lines that are in no batch yet go before what waits here."""
        if self._queue and not self._queue[0].failures:
            return False
        if self.due_at() > now:
            return True
        self._courtesy += 1
        return self._courtesy <= _COURTESY

    def next(self, now: float) -> Parcel | None:
        """Take out what is due: the first in the queue, else the smallest isolated one."""
        self._courtesy = 0
        for number, parcel in enumerate(self._queue):
            if parcel.not_before <= now:
                del self._queue[number]
                return parcel
        return self.next_isolated(now) if self._isolated_from <= now else None

    def next_queued(self) -> Parcel:
        """Take out the first in the queue, due or not."""
        return self._queue.popleft()

    def next_isolated(self, now: float) -> Parcel | None:
        """
        Take out the smallest isolated parcel that is due: it is settled soonest.

        An event that has failed alone comes last: it may fail for ever, and others need not.
        """
        due = [parcel for parcel in self._isolated if parcel.not_before <= now]
        if not due:
            return None
        found = min(due, key=lambda parcel: (parcel.is_culprit, len(parcel)))
        self._isolated.remove(found)
        return found

    def rotate(self, count: int) -> None:
        """Put the first *count* parcels of the queue behind all others, in their order."""
        self._queue.rotate(-count)

    def put_hung_last(self) -> int:
        """Put the parcels of the queue that have hung last; return how many there are."""
        hung = sorted((one for one in self._queue if one.has_hung), key=lambda one: one.tries)
        self._queue = deque([*(one for one in self._queue if not one.has_hung), *hung])
        return len(hung)

    def halve_hung(self, at: int) -> int:
        """
        Halve the last parcel, if it was put back behind the first *at* and has hung.

        The halves are then at *at*, before others that failed. Return how many there are.
        """
        if len(self._queue) <= at or not self._queue[-1].has_hung or self._queue[-1].is_single:
            return 0
        halves = self._queue.pop().halves()
        for half in reversed(halves):
            self._queue.insert(at, half.with_(has_hung=False))
        return len(halves)

    def make_isolated_due(self, now: float) -> None:
        """Make every isolated parcel due, except those that wait for their budget."""
        self._isolated = [
            parcel.with_(not_before=0.0, is_early=True)
            if now < parcel.not_before < math.inf
            else parcel
            for parcel in self._isolated
        ]

    def isolated_with(self, budget: Budget) -> list[Parcel]:
        """Return the isolated parcels that share *budget*."""
        return [parcel for parcel in self._isolated if parcel.budget is budget]

    def remove_isolated(self, parcel: Parcel) -> None:
        """Take out *parcel*, which is isolated."""
        self._isolated.remove(parcel)
