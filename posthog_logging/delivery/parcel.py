"""A batch on its way, and what was tried with it so far: a value that each attempt replaces."""

from __future__ import annotations

import dataclasses
import math
import uuid

from collections.abc import Sequence
from dataclasses import dataclass, field

from .spool import Kept


__all__ = ["Budget", "Parcel"]

# A batch that fails while nothing else gets through is tried as a whole so many times.
_PATIENCE = 5
# So many times it must fail while others get through, before it is under suspicion: a server
# that is merely unwell fails any batch now and then.
_STRIKES = 2


class Budget:
    """
    How many more times the pieces of one batch may be split, together.

    It begins with twice the depth of a search for one event, and grows with each piece that
    gets through. So a server that refuses all of 2,000 events gets 45 requests, and of a
    batch with 200 events at fault in 2,000 the others are found all the same.
    """

    def __init__(self, count: int) -> None:
        self._left = 2 * math.ceil(math.log2(max(count, 2)))

    def spend(self) -> bool:
        """Pay for one split; return whether that was possible."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    def earn(self, count: int) -> None:
        """Add what *count* events that got through are worth."""
        self._left += 2 + count // 4


@dataclass(frozen=True, eq=False)
class Parcel:
    """
    A batch and its history.

    Args:
        kept: the lines that travel; ``rest`` are those that a probe leaves behind.
        request_id: the same on every attempt, as long as nothing is added.
        created: when the batch was made, in epoch seconds.
        lane: the dialect's name for another route, ``""`` for the ordinary one.
        failures: how often it failed since it was put together.
        strikes: how often it failed after others had got through since its last failure.
        passed: how many requests had got through when it failed last; None before.
        not_before: when it may be tried again; infinite while it waits for the budget.
        apart: whether it is no longer in the row with all others.
        refused: whether a firewall refused it.
        status: the answer for which it waits for its budget.
        unread: how many times in a row it got a 2xx of which nothing could be read.
        throttled: since when the server has asked to wait.
    """

    kept: Sequence[Kept]
    request_id: str
    created: float
    lane: str = ""
    attempts: int = 0
    failures: int = 0
    strikes: int = 0
    passed: int | None = None
    not_before: float = 0.0
    apart: bool = False
    refused: bool = False
    status: int | None = None
    unread: int = 0
    throttled: float = 0.0
    rest: Sequence[Kept] = ()
    budget: Budget = field(default_factory=lambda: Budget(1))

    def __len__(self) -> int:
        return len(self.kept) + len(self.rest)

    @property
    def is_alone(self) -> bool:
        """Return whether one event is all there is."""
        return len(self) == 1

    @property
    def is_culprit(self) -> bool:
        """Return whether it is one event that has failed by itself."""
        return self.is_alone and self.failures > 0

    @property
    def is_held(self) -> bool:
        """Return whether it waits until its budget allows to split it."""
        return math.isinf(self.not_before)

    @property
    def is_suspect(self) -> bool:
        """Return whether it keeps failing while others get through."""
        return self.strikes >= (1 if self.apart else _STRIKES)

    def with_(self, **changes: object) -> Parcel:
        """Return the parcel with *changes*."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def failed(self, passed: int) -> Parcel:
        """Return the parcel, whole, after a failure; *passed* requests got through so far."""
        whole = self.whole()
        strike = self.passed is not None and passed > self.passed
        return whole.with_(
            failures=self.failures + 1, strikes=self.strikes + strike, passed=passed
        )

    def was_passed_by_others(self, passed: int) -> bool:
        """
        Return whether others got through since it failed, so that its whole may be at fault.

        One event of it then says whether anything gets through at present.
        """
        return not self.is_alone and self.passed is not None and passed > self.passed

    def needs_probe(self, passed: int) -> bool:
        """
        Return whether a part of it should be tried alone: nothing else says where the fault is.

        A batch that a firewall refuses is probed at once, one that failed otherwise after
        some patience.
        """
        if self.is_alone or self.passed != passed:
            return False
        return self.failures >= (1 if self.refused else 2 if self.apart else _PATIENCE)

    def probe(self) -> Parcel:
        """Return a parcel of one event that leaves the others behind, another one each time."""
        middle = (len(self.kept) // 2) * (self.failures % 2)
        rest = [*self.kept[:middle], *self.kept[middle + 1 :]]
        return self.with_(kept=[self.kept[middle]], rest=rest, request_id=_new_id(), attempts=0)

    def whole(self) -> Parcel:
        """Return the parcel with what a probe left behind, and the probe last."""
        if not self.rest:
            return self
        return self.with_(kept=[*self.rest, *self.kept], rest=(), request_id=_new_id(), attempts=0)

    def left_behind(self) -> Parcel | None:
        """Return what a probe left behind, without the probe; None where that is nothing."""
        if not self.rest:
            return None
        return self.with_(
            kept=self.rest, rest=(), request_id=_new_id(), attempts=0, not_before=0.0
        )

    def halves(self, apart: bool = False) -> list[Parcel]:
        """Return two parcels that share the budget; each is a request of its own."""
        middle = len(self.kept) // 2
        return [
            self.with_(
                kept=part,
                request_id=_new_id(),
                attempts=0,
                failures=0,
                not_before=0.0,
                apart=apart or self.apart,
                budget=self.budget,
            )
            for part in (self.kept[:middle], self.kept[middle:])
        ]


def _new_id() -> str:
    return str(uuid.uuid4())
