"""
Who is next: parcels in order, and apart from them those that may be at fault.

Nobody waits behind one event. A parcel that failed goes behind all others; one that keeps
failing while others get through leaves the row, and is tried when nothing else is due, or
after `_COURTESY` batches of others at the latest.
"""

from __future__ import annotations

import math

from collections import deque
from collections.abc import Iterable

from .parcel import Budget, Parcel


__all__ = ["Lineup"]

# How many batches of others may go first while one that failed is due again.
_COURTESY = 10


class Lineup:
    """The batches that were made of lines and are not settled yet."""

    def __init__(self) -> None:
        self._row: deque[Parcel] = deque()
        self._apart: list[Parcel] = []
        self._apart_from = 0.0
        self._courtesy = 0

    def __len__(self) -> int:
        """Return how many events wait here."""
        return sum(map(len, self._row)) + sum(map(len, self._apart))

    def __bool__(self) -> bool:
        return bool(self._row or self._apart)

    @property
    def size(self) -> int:
        """Return how many parcels stand in the row."""
        return len(self._row)

    def failed_since(self, passed: int) -> int:
        """Return how many of the row have failed since *passed* requests had got through."""
        return sum(parcel.passed == passed for parcel in self._row)

    def first(self, parcels: Iterable[Parcel]) -> None:
        """Put *parcels*, in their order, before all others."""
        self._row.extendleft(reversed([*parcels]))

    def last(self, parcel: Parcel) -> None:
        """Put *parcel* behind all others."""
        self._row.append(parcel)

    def apart(self, parcels: Iterable[Parcel]) -> None:
        """Put *parcels* where nobody waits behind them."""
        self._apart.extend(parcels)

    def rest_apart(self, until: float) -> None:
        """Let nothing that stands apart be tried before *until*."""
        self._apart_from = until

    def due_at(self) -> float:
        """Return when the next parcel is due; infinity where none will be."""
        row = min((parcel.not_before for parcel in self._row), default=math.inf)
        apart = min((parcel.not_before for parcel in self._apart), default=math.inf)
        return min(row, max(apart, self._apart_from))

    def yields(self, now: float) -> bool:
        """Return whether other lines go before what stands here."""
        if self._row and not self._row[0].failures:
            return False
        if self.due_at() > now:
            return True
        self._courtesy += 1
        return self._courtesy <= _COURTESY

    def next(self, now: float) -> Parcel | None:
        """Take out what is due: the first of the row, else the smallest that stands apart."""
        self._courtesy = 0
        for number, parcel in enumerate(self._row):
            if parcel.not_before <= now:
                del self._row[number]
                return parcel
        return self.next_apart(now) if self._apart_from <= now else None

    def next_in_row(self) -> Parcel:
        """Take out the first of the row, due or not."""
        return self._row.popleft()

    def next_apart(self, now: float) -> Parcel | None:
        """
        Take out the smallest parcel apart that is due: it is the quickest to be cleared.

        An event that has failed alone comes last: it may fail for ever, and others need not.
        """
        due = [parcel for parcel in self._apart if parcel.not_before <= now]
        if not due:
            return None
        found = min(due, key=lambda parcel: (parcel.is_culprit, len(parcel)))
        self._apart.remove(found)
        return found

    def rotate(self, count: int) -> None:
        """Put the first *count* parcels of the row behind all others, in their order."""
        self._row.rotate(-count)

    def hurry(self) -> None:
        """Make all that stands apart due, except what waits for its budget."""
        self._apart = [
            parcel if parcel.is_held else parcel.with_(not_before=0.0) for parcel in self._apart
        ]

    def of(self, budget: Budget) -> list[Parcel]:
        """Return the parcels apart that share *budget*."""
        return [parcel for parcel in self._apart if parcel.budget is budget]

    def remove(self, parcel: Parcel) -> None:
        """Take out *parcel*, which stands apart."""
        self._apart.remove(parcel)

    def clear(self) -> None:
        """Forget all parcels."""
        self.__init__()  # type: ignore[misc]
