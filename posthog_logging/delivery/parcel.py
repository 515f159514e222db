"""A batch on its way, with what was tried so far: a value that each attempt replaces."""

from __future__ import annotations

import dataclasses
import math
import uuid

from collections.abc import Sequence
from dataclasses import dataclass, field

from .spool import Entry


__all__ = ["Budget", "Parcel"]

# How often a batch is tried as a whole while nothing else gets through.
_PATIENCE = 5
# How often a batch must fail while others get through before it is suspect: a server that is
# merely unwell fails any batch now and then.
_STRIKES = 2


class Budget:
    """
    How many more times the pieces of one batch may be split, together.

    It begins with twice the depth of a binary search for one event, and grows with each piece
    that gets through. So a server that refuses all of 2,000 events gets 45 requests, while of
    2,000 events with 200 bad ones the 1,800 good ones are found all the same.
    """

    def __init__(self, count: int) -> None:
        self._left = 2 * math.ceil(math.log2(max(count, 2)))

    def spend(self) -> bool:
        """Pay for one split; return whether the budget allowed it."""
        if self._left <= 0:
            return False
        self._left -= 1
        return True

    def earn(self, count: int) -> None:
        """Add what *count* delivered events are worth."""
        self._left += 2 + count // 4


@dataclass(frozen=True, eq=False)
class Parcel:
    """
    A batch and its history.

    Args:
        entries: the lines to send.
        request_id: the same on every attempt, as long as no line is added.
        created: when the batch was made, in epoch seconds.
        lane: the dialect's name for another route, ``""`` for the ordinary one.
        attempts: how often these very lines were sent.
        failures: how often it failed, without answers that merely ask to wait.
        tries: how often it failed, with these.
        strikes: how often it failed after others had got through since its last failure.
        failed_after: how many requests had succeeded when it last failed; None before that.
        not_before: when it may be tried again; infinite while it waits for its budget.
        is_early: whether it is tried before that, by a flush: a single event's failure then is
            no strike, or flushing often would soon give it up.
        has_hung: whether its last attempt had no answer in all its time.
        isolated: whether it left the queue, so that nothing waits behind it.
        refused: whether a firewall refused it.
        status: the HTTP status that it must be split for, while it waits for its budget.
        unread: how many times in a row it got a 2xx whose body could not be read.
        throttled_since: since when the server asks to wait; 0 if it does not.
        withheld: the lines that a probe does not send.
        budget: how often it and its pieces may still be split.
    """

    entries: Sequence[Entry]
    request_id: str
    created: float
    lane: str = ""
    attempts: int = 0
    failures: int = 0
    tries: int = 0
    strikes: int = 0
    failed_after: int | None = None
    not_before: float = 0.0
    is_early: bool = False
    has_hung: bool = False
    isolated: bool = False
    refused: bool = False
    status: int | None = None
    unread: int = 0
    throttled_since: float = 0.0
    withheld: Sequence[Entry] = ()
    budget: Budget = field(default_factory=lambda: Budget(1))

    def __len__(self) -> int:
        return len(self.entries) + len(self.withheld)

    @property
    def is_single(self) -> bool:
        """Whether it is one event."""
        return len(self) == 1

    @property
    def is_culprit(self) -> bool:
        """Whether it is one event that has failed by itself."""
        return self.is_single and self.failures > 0

    @property
    def waits_for_budget(self) -> bool:
        """Whether it waits until its budget allows to split it."""
        return math.isinf(self.not_before)

    @property
    def is_suspect(self) -> bool:
        """Whether it keeps failing while others get through."""
        return self.strikes >= (1 if self.isolated else _STRIKES)

    def with_(self, **changes: object) -> Parcel:
        """Return the parcel with *changes*."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def failed(self, successes: int) -> Parcel:
        """Return the parcel, whole, after a failure; *successes* requests got through so far."""
        is_strike = self._was_overtaken(successes) and not (self.is_early and self.is_single)
        return self.whole().with_(
            failures=self.failures + 1,
            tries=self.tries + 1,
            strikes=self.strikes + is_strike,
            failed_after=successes,
            is_early=False,
        )

    def may_be_at_fault(self, successes: int) -> bool:
        """
        Return whether others got through since it failed, so that its events may be the reason.

        One of its events, tried alone, then shows whether anything gets through at present.
        """
        return not self.is_single and self._was_overtaken(successes)

    def _was_overtaken(self, successes: int) -> bool:
        return self.failed_after is not None and successes > self.failed_after

    def needs_probe(self, successes: int) -> bool:
        """
        Return whether one of its events should be tried alone: nothing else locates the fault.

        A batch that a firewall refuses is probed at once, one that failed otherwise only after
        some patience.
        """
        if self.is_single or self.failed_after != successes:
            return False
        return self.tries >= (1 if self.refused else 2 if self.isolated else _PATIENCE)

    def probe(self) -> Parcel:
        """Return a parcel of one event that withholds the others, another event each time."""
        at = (len(self.entries) // 2) * (self.tries % 2)
        others = [*self.entries[:at], *self.entries[at + 1 :]]
        return self._resized([self.entries[at]], withheld=others)

    def whole(self) -> Parcel:
        """Return the parcel with all its lines, those that a probe sent last."""
        return self._resized([*self.withheld, *self.entries]) if self.withheld else self

    def remainder(self) -> Parcel | None:
        """Return what a probe withheld, without the probe's own line; None if it is no probe."""
        return self._resized(self.withheld, not_before=0.0) if self.withheld else None

    def halves(self, isolated: bool = False) -> list[Parcel]:
        """Return two parcels that share the budget; each is a request of its own."""
        middle = len(self.entries) // 2
        return [
            self._resized(
                part, failures=0, tries=0, not_before=0.0, isolated=isolated or self.isolated
            )
            for part in (self.entries[:middle], self.entries[middle:])
        ]

    def _resized(
        self, entries: Sequence[Entry], withheld: Sequence[Entry] = (), **changes: object
    ) -> Parcel:
        """Return a parcel with the same history and other lines, which makes a new request."""
        new_id = str(uuid.uuid4())
        return self.with_(
            entries=entries, withheld=withheld, request_id=new_id, attempts=0, **changes
        )
