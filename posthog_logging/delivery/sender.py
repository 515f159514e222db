"""
Spool to server, one batch at a time: what is due, and in which order.

Only the thread that delivers calls this, so nothing here takes a lock; and nothing here sleeps:
"retry" means that a batch is not acknowledged yet. `Batcher` makes batches of lines, `Attempts`
sends them, `AnswerHandler` acts on the answers, and what it keeps waits in the `Lineup`.
"""

from __future__ import annotations

import math
import random
import time

from collections.abc import Callable, Sequence
from typing import Any

from ..wire import Dialect, Endpoint
from ..wire.posthog_protocol import Known, protocol_for
from .answers import PROBE, AnswerHandler
from .attempts import Attempts
from .batching import Batcher
from .ledger import Ledger
from .lineup import Lineup
from .losses import DeliveryError, Losses, OnError
from .parcel import Parcel
from .policy import Settings
from .spool import RECEIPT, Spool
from .transport import Transport


__all__ = ["DeliveryError", "OnError", "Sender", "Settings"]

# How many different batches are tried in turn while nothing gets through.
_PROBES = 2
# The seconds of a last flush from which attempts share them, how much of what is left one may
# take, less if the server is known to be quick, and the shortest time that is any use. Short
# flushes have one attempt, of which the answer may still come.
_LONG = 2.0
_SHARE = 0.85
_QUICK_SHARE = 0.7
_SHORTEST_SHARE = 0.2
# A server is quick if its answers take no longer than a third of that; old answers count less.
_QUICK = 3.0
_FADING = 0.8


class Sender:
    """
    Send what waits in *spool*, by the rules of *dialect*.

    Args:
        clock: returns seconds that only go forward; waits are measured by it.
        wall: returns epoch seconds, which are sent with each attempt.
        uniform: draws the jitter.
        on_error: called with a `DeliveryError` and the events that were lost.
        memory: what is known about the protocols of hosts; None: one mapping for the process.
    """

    def __init__(
        self,
        spool: Spool,
        dialect: Dialect,
        endpoint: Endpoint,
        transport: Transport,
        ledger: Ledger,
        settings: Settings | None = None,
        *,
        on_error: OnError | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
        memory: dict[tuple[str, str], Known] | None = None,
    ) -> None:
        self.spool = spool
        self._dialect = dialect
        self._endpoint = endpoint
        self._transport = transport
        self._ledger = ledger
        self._settings = settings = settings or Settings()
        self._losses = Losses(spool, ledger, on_error)
        self._protocol = protocol_for(dialect, endpoint, memory)
        self._batcher = Batcher(spool, dialect, ledger, self._losses, settings.max_age, wall)
        self._attempts = Attempts(
            self._protocol, endpoint, transport, ledger, settings.timeout, clock, wall
        )
        self._clock = clock
        self._wall = wall
        self._uniform = uniform
        #: Whether nothing may be sent for now, as the user opted out.
        self.held = False
        self._begin()

    def _begin(self) -> None:
        self._since: float | None = None  # when the oldest line in the spool came
        self._longest_answer: float | None = None  # how many seconds answers have taken of late
        self._lineup = Lineup()
        self._answers = AnswerHandler(
            self.spool,
            self._dialect,
            self._protocol,
            self._endpoint,
            self._ledger,
            self._losses,
            self._settings,
            self._lineup,
            uuid_of=self._batcher.uuid_of,
            clock=self._clock,
            wall=self._wall,
            uniform=self._uniform,
        )

    def reset(self) -> None:
        """Begin anew in a forked child: what the parent has is the parent's to send."""
        self.spool.renew()
        self._losses.reset()
        self._begin()

    def close(self) -> None:
        """Give back connections, files and locks."""
        try:
            self._transport.close()
        finally:
            self.spool.close()

    @property
    def host(self) -> str:
        """Where events go."""
        return self._endpoint.host

    @property
    def protocol(self) -> str:
        """The name of the dialect that is spoken, as far as is known."""
        return self._protocol.name

    @property
    def timeout(self) -> float:
        """How long one attempt may take, in seconds."""
        return self._settings.timeout

    @property
    def waiting(self) -> int:
        """How many events are neither delivered nor lost, as far as the sender knows."""
        return len(self.spool) + len(self._lineup)

    @property
    def paused(self) -> bool:
        """Whether nothing is sent for a while, as the key, the bill or the address is wrong."""
        return self._answers.schedule.pauses > 0

    @property
    def asked_to_wait(self) -> float:
        """For how many more seconds the server itself has asked to be left alone."""
        return max(0.0, self._answers.schedule.asked - self._clock())

    # What comes in, and what is taken out again

    def append(self, items: Sequence[Any]) -> None:
        """Add what came through the queue; also called for what came into the spool otherwise."""
        try:
            self.spool.append(items)
        except Exception as error:  # a user's spool may raise
            lost = sum(one is not RECEIPT for one in items)
            self._ledger.lose("internal_error", lost, type(error).__name__)
        if self._since is None and len(self.spool):
            self._since = self._clock()

    def rewind(self) -> None:
        """Begin again with all that was not answered for, after an unexpected error."""
        self.spool.rewind()
        self._lineup.clear()
        self._since = self._clock() if len(self.spool) else None

    def abandon(self, reason: str) -> int:
        """Lose all that is in memory only; what is on disk stays there. Return how many."""
        self._lineup.clear()
        return self._losses.report(self.spool.forget(), reason)

    def evict(self, count: int, reason: str) -> int:
        """Lose up to *count* of the oldest events that are in no batch yet; return how many."""
        return self._losses.report(self.spool.evict(count), reason)

    @property
    def has_news(self) -> bool:
        """Whether there are losses that ``on_error`` does not know of yet."""
        return self._losses.is_behind

    def report(self) -> None:
        """Call ``on_error`` for losses of log calls, which must not call it themselves."""
        self._losses.catch_up()

    # When to send

    def due_in(self) -> float | None:
        """Return the seconds until there is something to do; None while nothing waits."""
        if self.held:
            return None
        now = self._clock()
        due = min(self._lineup.due_at(), self._spool_due_at())
        if math.isinf(due):
            return None
        return max(self._answers.schedule.due_in(now), due - now, 0.0)

    def _spool_due_at(self) -> float:
        """Return when lines of the spool are due; infinity where none will be."""
        if not len(self.spool):
            return math.inf
        if self._answers.in_trouble and self._lineup:
            tried = self._lineup.failed_after(self._answers.successes)
            return 0.0 if tried < _PROBES else math.inf
        if len(self.spool) >= self._settings.flush_at:
            return 0.0
        return math.inf if self._since is None else self._since + self._settings.flush_interval

    # What to send

    def step(self) -> bool:
        """Make one attempt if one is due; return whether there was one."""
        if self.due_in() != 0.0:
            return False
        parcel = self._next()
        if parcel is None:
            return False
        self._attempt(parcel)
        return True

    def _next(self) -> Parcel | None:
        """Take what is due; new lines go before a batch that failed."""
        now = self._clock()
        is_due = self._spool_due_at() <= now
        if is_due and self._new_go_first(now):
            return self._new(PROBE if self._answers.in_trouble else None) or self._lineup.next(now)
        return self._lineup.next(now) or (self._new() if is_due else None)

    def _new_go_first(self, now: float) -> bool:
        """Return whether lines that are in no batch yet go before those that are."""
        if self._answers.in_trouble or not self._lineup:
            return True
        return not self._answers.schedule.pauses and self._lineup.lets_new_go_first(now)

    def flush(self, timeout: float, bounded: bool = False, is_last: bool = False) -> bool:
        """
        Make one attempt for everything that waits now, whatever the schedule says.

        Returns True when nothing is left. What failed and may be retried stays, in order; only a
        batch that had no answer comes last, as it may use up all the time again. No attempt
        begins after *timeout* seconds and, if *bounded*, none lasts longer.

        If this *is_last*, and there is time for it, no attempt takes all that is left, and a
        batch that had no answer is halved: all of it would be lost for one event that hangs.
        """
        if self.held:
            return not self.waiting
        start = self._clock()
        deadline = start + timeout
        shares = is_last and timeout >= _LONG
        lineup, unformed = self._lineup, len(self.spool)
        hung = lineup.put_hung_last()
        untried = lineup.queued - hung
        lineup.make_isolated_due(start)
        while (now := self._clock()) < deadline:
            left = self._share(deadline - now) if shares else None
            if left is None and bounded:
                left = deadline - now
            if untried:
                untried += self._attempt(lineup.next_queued(), left) - 1
                hung += lineup.halve_hung(untried + hung) if shares else 0
            elif unformed > 0:
                before = len(self.spool)
                parcels = self._form()
                lineup.put_first(parcels)
                untried = len(parcels)
                unformed = unformed - before + len(self.spool) if parcels else 0
            elif hung:
                hung, untried = hung - 1, 1
            elif parcel := lineup.next_isolated(start):
                untried += self._attempt(parcel, left)
            else:
                break
        lineup.rotate(untried + hung)
        return not self.waiting

    def _share(self, left: float) -> float | None:
        """Return how many of the seconds that are *left* one attempt may take; None for all."""
        share = _SHARE * left
        if self._longest_answer is not None:
            share = max(_QUICK_SHARE * left, _QUICK * self._longest_answer)
        return share if _SHORTEST_SHARE <= share < left else None

    def _new(self, most: int | None = None) -> Parcel | None:
        """Return a new batch; where lines may not travel together, the others are next."""
        parcels = self._form(most)
        self._lineup.put_first(parcels[1:])
        return parcels[0] if parcels else None

    def _form(self, most: int | None = None) -> list[Parcel]:
        """Return a batch of the oldest lines; several, where not all may travel together."""
        limit = self._answers.schedule.limit
        parcels: list[Parcel] = []
        while not parcels and (waiting := len(self.spool)):
            parcels = self._batcher.form(limit if most is None else min(most, limit))
            left = len(self.spool)
            if not left:  # else what is left is as old as what was taken
                self._since = None
            if left >= waiting:  # the spool hands out nothing
                break
        return parcels

    def _attempt(self, parcel: Parcel, timeout: float | None = None) -> int:
        """Send *parcel* once; return how many pieces of it are now first in the queue."""
        if self._answers.needs_probe(parcel):
            parcel = parcel.probe()
        parcel = parcel.with_(attempts=parcel.attempts + 1)
        if parcel.attempts > 1 or parcel.withheld:
            self._ledger.add("retried", len(parcel.entries))
        begun, limit = self._clock(), self._settings.timeout
        answer = self._attempts.make(parcel, timeout)
        lasted = self._clock() - begun
        if answer.response.status is not None:
            self._longest_answer = max(lasted, _FADING * (self._longest_answer or 0.0))
        has_hung = answer.response.status is None and lasted >= 0.9 * min(limit, timeout or limit)
        return self._answers.handle(parcel.with_(has_hung=has_hung), answer)
