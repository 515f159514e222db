"""
Spool to server, one batch at a time: makes attempts, acts on answers, counts what became of each.

Keeps no thread and takes no lock: only the thread that delivers calls it. Retry means "not
acknowledged yet": nothing here sleeps.

What an answer means is `policy.judge`'s to say, `_ACTIONS` says what is done then. A batch
that is kept stands in the `Lineup`, behind all others. One that keeps failing while others
get through is halved, apart from the row, until the event at fault stands alone: that one is
tried ever more seldom, and given up after `_LAST_STRIKE` failures, half a day or more. Where
only small batches get through, since each large one has an event at fault, new ones get smaller.
"""

from __future__ import annotations

import enum
import math
import random
import time

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..wire import Dialect, Endpoint, Response, Results
from ..wire.answers import is_page
from ..wire.posthog_protocol import Known, protocol_for
from .attempts import Answer, Attempts
from .batching import Batching
from .ledger import Ledger
from .lineup import Lineup
from .losses import DeliveryError, Losses, OnError
from .parcel import Budget, Parcel
from .policy import LONGEST_PAUSE, SHORTEST_BACKOFF, Outcome, Schedule, backoff, judge
from .spool import RECEIPT, Kept, Spool
from .transport import Transport
from .wording import advice, cleaned, listed, remedy, summary


__all__ = ["DeliveryError", "OnError", "Sender", "Settings"]

# In trouble, so many lines are tried of what has not been tried yet: enough to get through.
_PROBE = 20
# So many different batches are tried in turn while nothing gets through.
_PROBES = 2
# An event at fault is given up when it has failed so often alone while others got through:
# waits double from a second to a quarter of an hour, so that is after half a day or more.
_LAST_STRIKE = 100
# What a firewall refuses is given up when it was refused so often alone, likewise.
_LAST_REFUSAL = 3
# Nobody gets through: so many refusals in a row are no longer one event's.
_REFUSALS = 3
# What stands apart may fail so often in a row without a wait: halves need not wait for halves.
_APART_FAILURES = 8
# A V1 answer that cannot be read is asked for so many times again.
_UNREAD = 2
# So many different notes of servers are logged each under its own topic.
_NOTES = 20


@dataclass(frozen=True)
class Settings:
    """When a batch is due and when it is given up."""

    flush_at: int = 100
    flush_interval: float = 1.0
    max_retries: int | None = None
    max_age: float | None = None
    timeout: float = 15.0
    bisect: bool = True


class _Trouble(enum.Enum):
    """Why a batch is kept."""

    OUTAGE = "outage"
    PARTLY = "partly"  # others of the same request were taken
    ADDRESS = "address"
    KEY = "key"


class Sender:
    """
    Send what waits in *spool*, by the rules of *dialect*.

    Args:
        clock: returns seconds that only go forward; waits are measured by it.
        wall: returns epoch seconds; attempts are stamped with it.
        uniform: draws the jitter.
        on_error: called with a `DeliveryError` and the events that were lost.
        memory: what is known of the protocols of hosts; that of the process where None.
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
        self._settings = settings or Settings()
        self._losses = Losses(spool, ledger, on_error)
        self._protocol = protocol_for(dialect, endpoint, memory)
        self._batching = Batching(
            spool, dialect, ledger, self._losses, self._settings.max_age, wall
        )
        self._attempts = Attempts(
            self._protocol, endpoint, transport, ledger, self._settings.timeout, clock, wall
        )
        self._clock = clock
        self._wall = wall
        self._uniform = uniform
        #: Whether nothing may be sent for now: the user opted out.
        self.held = False
        self._begin()

    def _begin(self) -> None:
        self._schedule = Schedule(self._dialect.limits.batch_count)
        self._lineup = Lineup()
        self._passed = 0  # how many requests got through
        self._in_trouble = False  # something failed, and nothing got through since
        self._largest = 0  # how many events got through at once since something failed
        self._refusals = 0  # how many were refused since something got through
        self._apart_failures = 0  # the same of what stands apart
        self._since: float | None = None  # when the oldest line in the spool came
        self._notes: set[str] = set()

    def reset(self) -> None:
        """Begin anew in a forked child: its parent sends what its parent has."""
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
    def has_key(self) -> bool:
        """Whether there is a key to send with."""
        return bool(self._endpoint.api_key)

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
        """Whether nothing is sent for a while, for the key, the bill or the address is wrong."""
        return self._schedule.pauses > 0

    @property
    def asked_to_wait(self) -> float:
        """For how many more seconds the server itself has asked to be left alone."""
        return max(0.0, self._schedule.asked - self._clock())

    def append(self, items: Sequence[Any]) -> None:
        """Add what came through the queue."""
        try:
            self.spool.append(items)
        except Exception as error:  # of a spool of the user's own
            lost = sum(one is not RECEIPT for one in items)
            self._ledger.lose("internal_error", lost, type(error).__name__)
        self._note_arrival()

    def arrived(self, count: int) -> None:
        """
        Take in hand *count* lines that came into the spool by another way than `append`.

        They count as ``adopted``: a spool that a broker feeds says so here, else nothing
        would ever be due and ``waiting`` would fall below zero.
        """
        self._ledger.add("adopted", count)
        self._note_arrival()

    def _note_arrival(self) -> None:
        if self._since is None and len(self.spool):
            self._since = self._clock()

    # When, and what

    def due_in(self) -> float | None:
        """Return the seconds until there is something to do; None while nothing waits."""
        if self.held:
            return None
        now = self._clock()
        due = min(self._lineup.due_at(), self._spool_due_at())
        if math.isinf(due):
            return None
        return max(self._schedule.due_in(now), due - now, 0.0)

    def _spool_due_at(self) -> float:
        """Return when lines of the spool are due; infinity where none will be."""
        if not len(self.spool):
            return math.inf
        if self._in_trouble and self._lineup:
            return 0.0 if self._lineup.failed_since(self._passed) < _PROBES else math.inf
        if len(self.spool) >= self._settings.flush_at:
            return 0.0
        return math.inf if self._since is None else self._since + self._settings.flush_interval

    def step(self, timeout: float | None = None) -> bool:
        """Make one attempt if one is due; return whether there was one."""
        if self.due_in() != 0.0:
            return False
        parcel = self._next()
        if parcel is None:
            return False
        self._attempt(parcel, timeout)
        return True

    def _next(self) -> Parcel | None:
        """Take what is due; where something failed, something else before it."""
        now = self._clock()
        is_due = self._spool_due_at() <= now
        if is_due and self._others_go_first(now):
            return self._new(_PROBE if self._in_trouble else None) or self._lineup.next(now)
        return self._lineup.next(now) or (self._new() if is_due else None)

    def _others_go_first(self, now: float) -> bool:
        """Return whether what is in no batch yet goes before what is."""
        if self._in_trouble or not self._lineup:
            return True
        return not self._schedule.pauses and self._lineup.yields(now)

    def flush(self, timeout: float, bounded: bool = False) -> bool:
        """
        Make one attempt for everything that waits now, whatever the schedule says.

        Returns True when nothing is left. What failed and may be retried stays, in order.
        None begins after *timeout* seconds; none lasts longer, either, where it is *bounded*.
        """
        if self.held:
            return not self.waiting
        start = self._clock()
        deadline = start + timeout
        lineup, untried, unformed = self._lineup, self._lineup.size, len(self.spool)
        lineup.hurry()
        while (now := self._clock()) < deadline:
            left = deadline - now if bounded else None
            if untried:
                untried += self._attempt(lineup.next_in_row(), left) - 1
            elif unformed > 0:
                before = len(self.spool)
                parcels = self._form()
                lineup.first(parcels)
                untried = len(parcels)
                unformed = unformed - before + len(self.spool) if parcels else 0
            elif parcel := lineup.next_apart(start):
                untried += self._attempt(parcel, left)
            else:
                break
        lineup.rotate(untried)
        return not self.waiting

    def rewind(self) -> None:
        """Begin again with all that was not answered for, after an error that nobody expected."""
        self.spool.rewind()
        self._lineup.clear()
        self._since = self._clock() if len(self.spool) else None

    def abandon(self, reason: str) -> int:
        """Give up all that waits in memory only; what is on disk stays there. Return how many."""
        self._lineup.clear()
        return self._losses.report(self.spool.forget(), reason)

    @property
    def has_news(self) -> bool:
        """Whether ``on_error`` has to hear of losses yet."""
        return self._losses.is_behind

    def report(self) -> None:
        """Call ``on_error`` for losses at the door: in the thread, never in a log call."""
        self._losses.catch_up()

    def evict(self, count: int, reason: str) -> int:
        """Lose up to *count* of the oldest events that are in no batch yet."""
        return self._losses.report(self.spool.evict(count), reason)

    # Making batches

    def _form(self, most: int | None = None) -> list[Parcel]:
        """Return a new batch of what waits, oldest first, or several that may not be one."""
        limit = self._schedule.limit
        parcels: list[Parcel] = []
        while not parcels and (waiting := len(self.spool)):
            parcels = self._batching.form(limit if most is None else min(most, limit))
            left = len(self.spool)
            if not left:  # else what is left is as old as what was taken
                self._since = None
            if left >= waiting:  # a spool that hands out nothing
                break
        return parcels

    def _new(self, most: int | None = None) -> Parcel | None:
        """Return a new batch, and let others of its kind be next."""
        parcels = self._form(most)
        self._lineup.first(parcels[1:])
        return parcels[0] if parcels else None

    # Making attempts

    def _attempt(self, parcel: Parcel, timeout: float | None) -> int:
        """Send *parcel* once, act on the answer; return how many pieces go first in the row."""
        if self._needs_probe(parcel):
            parcel = parcel.probe()
        parcel = parcel.with_(attempts=parcel.attempts + 1)
        if parcel.attempts > 1 or parcel.rest:
            self._ledger.add("retried", len(parcel.kept))
        answer = self._attempts.make(parcel, timeout)
        response = answer.response
        outcome = judge(
            response.status,
            answer.dialect.rules,
            len(parcel.kept),
            page=is_page(response),
            proven=self._protocol.proven,
        )
        pieces = _ACTIONS[outcome](self, parcel, answer)
        row = [piece for piece in pieces if not piece.apart]
        self._lineup.first(row)
        self._lineup.apart(piece for piece in pieces if piece.apart)
        self._end_search(parcel)
        return len(row)

    def _needs_probe(self, parcel: Parcel) -> bool:
        """Return whether only a part of *parcel* is to be tried."""
        if self._in_trouble and not parcel.apart and parcel.was_passed_by_others(self._passed):
            return True
        return (self._in_trouble or parcel.apart) and parcel.needs_probe(self._passed)

    # Acting on answers: each action returns what is to be sent at once.

    def _delivered(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        """Believe a 2xx as far as its body goes."""
        results = answer.results()
        if results.kept:
            return self._fail(parcel.with_(unread=0), answer, why=results.kept)
        if results.error:
            return self._unread(parcel, answer, results.error)
        if results.unnamed >= len(parcel.kept):
            self._losses.lose(parcel.kept, "dropped", answer.response)
            return self._get_through(parcel, 0)
        self._log_notes(results)
        done, again, paused, dropped = self._parted(parcel.kept, results)
        self.spool.ack(done)
        self._ledger.add("delivered", len(done))
        reasons = listed(results.dropped.values(), self._endpoint.api_key)
        self._losses.lose(dropped, "dropped", answer.response, reasons)
        if not done and not dropped:
            return self._fail(parcel, answer, _Trouble.ADDRESS if paused else _Trouble.OUTAGE)
        pieces = self._get_through(parcel, len(done))
        for left, trouble in ((again, _Trouble.PARTLY), (paused, _Trouble.ADDRESS)):
            if left:
                pieces += self._fail(parcel.with_(kept=left, rest=()), answer, trouble)
        return pieces

    def _parted(
        self, kept: Sequence[Kept], results: Results
    ) -> tuple[Sequence[Kept], Sequence[Kept], Sequence[Kept], Sequence[Kept]]:
        """Return what was delivered, what is to go again, what is to wait and what was dropped."""
        if not (results.retry or results.paused or results.dropped):
            return kept, (), (), ()
        parts: tuple[list[Kept], ...] = ([], [], [], [])
        for one in kept:
            name = self._batching.uuid_of(one.line)
            groups = (results.retry, results.paused, results.dropped)
            parts[next((n for n, group in enumerate(groups, 1) if name in group), 0)].append(one)
        return parts[0], parts[1], parts[2], parts[3]

    def _log_notes(self, results: Results) -> None:
        """Log what the server remarks, each remark once; there may be any number of them."""
        for note, count in results.notes.items():
            text = cleaned(note, self._endpoint.api_key)
            if len(self._notes) < _NOTES:
                self._notes.add(text)
            topic = text if text in self._notes else "and more"
            self._ledger.warn(f"server: {topic}", f"the server says {text!r} of {count} event(s)")
        if results.unnamed:
            text = f"the server refused {results.unnamed} event(s) of a batch without naming them"
            self._ledger.warn("server: refused some", text)

    def _get_through(self, parcel: Parcel, count: int) -> list[Parcel]:
        """Note that the server takes events; return what a probe had left behind."""
        self._passed += 1
        self._refusals = self._apart_failures = 0
        self._in_trouble = False
        self._largest = max(self._largest, count)
        if self._schedule.failures or self._schedule.pauses:
            self._ledger.recovered()
        self._schedule = self._schedule.succeeded()
        if parcel.apart:
            self._go_on_with_search(parcel.budget, count)
        left = parcel.left_behind()
        return [left] if left else []

    def _unread(self, parcel: Parcel, answer: Answer, error: str) -> list[Parcel]:
        """Send again what may not have arrived, but not for ever: the status was a success."""
        if parcel.unread >= _UNREAD:
            self._losses.lose(parcel.whole().kept, "unconfirmed", answer.response, error)
            return []
        return self._fail(parcel.with_(unread=parcel.unread + 1), answer, why=error)

    def _retry(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        return self._fail(parcel.with_(unread=0), answer)

    def _pause(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        is_key = answer.response.status in _OF_THE_KEY
        return self._fail(parcel, answer, _Trouble.KEY if is_key else _Trouble.ADDRESS)

    def _fail(
        self,
        parcel: Parcel,
        answer: Answer,
        trouble: _Trouble = _Trouble.OUTAGE,
        why: str = "",
    ) -> list[Parcel]:
        """Keep *parcel* for later, take it apart where it is suspect, or give it up."""
        now = self._clock()
        parcel = self._charged(parcel, answer, trouble, now)
        reason = self._given_up(parcel, trouble, now)
        if trouble is not _Trouble.KEY and (parcel.is_suspect or (parcel.strikes and reason)):
            if not parcel.is_alone:
                return self._take_apart(parcel, answer)
            parcel = parcel.with_(apart=True)
            if parcel.strikes >= _LAST_STRIKE:
                reason = reason or "retries_exhausted"
        self._back_off(parcel, answer, trouble, now)
        if reason:
            self._losses.lose(parcel.kept, reason, answer.response)
            return []
        self._warn_of_trouble(parcel, answer, trouble, why)
        self._keep(parcel, answer, trouble, now)
        return []

    def _charged(self, parcel: Parcel, answer: Answer, trouble: _Trouble, now: float) -> Parcel:
        """Return *parcel* with one failure more, except for a wait that the server asked for."""
        failed = parcel.failed(self._passed)
        if trouble in (_Trouble.KEY, _Trouble.ADDRESS):
            return failed
        if answer.wait and answer.dialect.rules.free_throttle:
            return failed.with_(failures=parcel.failures, throttled=parcel.throttled or now)
        return failed.with_(throttled=0.0)

    def _given_up(self, parcel: Parcel, trouble: _Trouble, now: float) -> str | None:
        """Return the reason for which *parcel* is given up; None where it is kept."""
        most, age = self._settings.max_retries, self._settings.max_age
        reason = None
        if most is not None and parcel.failures > most:
            of_address = trouble in (_Trouble.KEY, _Trouble.ADDRESS)
            reason = "rejected" if of_address else "retries_exhausted"
        elif parcel.throttled and now - parcel.throttled > self._dialect.rules.longest_throttle:
            reason = "throttled"
        elif age is not None and self._wall() - parcel.created > age:
            reason = "expired"
        return reason

    def _back_off(self, parcel: Parcel, answer: Answer, trouble: _Trouble, now: float) -> None:
        """Leave the server alone for a while, or only what stands apart where others fare well."""
        rules = answer.dialect.rules
        is_own = parcel.apart and not self._in_trouble
        if trouble is _Trouble.KEY or (trouble is _Trouble.ADDRESS and not is_own):
            self._schedule = self._schedule.paused(now, rules, answer.wait)
            self._in_trouble = trouble is _Trouble.ADDRESS
        elif is_own:
            self._apart_failures += 1
            more = self._apart_failures - _APART_FAILURES
            wait = backoff(more, rules.longest_backoff, self._uniform) if more > 0 else 0.0
            self._lineup.rest_apart(now + max(wait, SHORTEST_BACKOFF))
        elif trouble is not _Trouble.PARTLY:
            self._schedule = self._schedule.failed(now, rules, answer.wait, self._uniform)
            self._in_trouble = True
            if 0 < self._largest < len(parcel):
                count = min(len(parcel), self._schedule.limit)
                self._schedule = self._schedule.halved(max(count, 2 * _PROBE))
            self._largest = 0

    def _warn_of_trouble(
        self, parcel: Parcel, answer: Answer, trouble: _Trouble, why: str
    ) -> None:
        response = answer.response
        if parcel.apart and not self._in_trouble:
            cause = summary(response)
            self._ledger.warn(
                "apart", f"an event fails alone, {cause}, while others get through; it waits apart"
            )
        elif trouble in (_Trouble.KEY, _Trouble.ADDRESS):
            self._warn("paused", advice(response), response, "sending is paused, events wait")
        else:
            why = why or "cannot deliver"
            self._warn("outage", why, response, "events wait for the next try")

    def _warn(self, topic: str, why: str, response: Response, then: str) -> None:
        """Log what keeps events from *host*, what happens to them *then*, and what to do."""
        trouble = self._protocol.trouble() or f"{self.host}: {why}"
        text = f"{trouble}, {summary(response)}; {then}. To do: {remedy(self.host)}"
        self._ledger.warn(topic, text)

    def _keep(self, parcel: Parcel, answer: Answer, trouble: _Trouble, now: float) -> None:
        """Put *parcel* behind all others, or apart, where it has a time of its own."""
        rules = answer.dialect.rules
        own = parcel.apart or parcel.strikes or trouble is _Trouble.PARTLY
        if own:
            longest = LONGEST_PAUSE if parcel.apart and parcel.is_alone else rules.longest_backoff
            failures = max(parcel.failures, parcel.strikes, 1)
            wait = max(backoff(failures, longest, self._uniform), answer.wait)
            parcel = parcel.with_(not_before=now + wait)
        if parcel.apart:
            self._lineup.apart([parcel])
        else:
            self._lineup.last(parcel)

    def _take_apart(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        """Look for the event at fault in a batch that fails while others get through."""
        self._ledger.warn(
            "suspect",
            f"a batch of {len(parcel)} keeps failing while others get through, "
            f"{summary(answer.response)}; it is sent in parts",
        )
        return [half.with_(strikes=0) for half in parcel.halves(apart=True)]

    def _halve(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        self._schedule = self._schedule.halved(len(parcel.kept))
        return parcel.halves()

    # The search for events that are refused

    def _bisect(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        """Look for the events that the server cannot take, within a number of requests."""
        if not self._settings.bisect:
            return self._reject(parcel, answer)
        if parcel.budget.spend():
            return parcel.halves(apart=True)
        held = parcel.with_(apart=True, not_before=math.inf, status=answer.response.status)
        return [held]

    def _go_on_with_search(self, budget: Budget, count: int) -> None:
        """Split what has waited for it, now that pieces of *count* events got through."""
        budget.earn(count)
        for parcel in self._lineup.of(budget):
            if parcel.is_held and budget.spend():
                self._lineup.remove(parcel)
                self._lineup.apart(parcel.halves())

    def _end_search(self, parcel: Parcel) -> None:
        """Give up what has waited for a split where no piece is left that could pay for it."""
        pieces = self._lineup.of(parcel.budget)
        if not pieces or not all(piece.is_held for piece in pieces):
            return
        for piece in pieces:
            self._lineup.remove(piece)
            if piece.refused:
                later = self._clock() + LONGEST_PAUSE
                self._lineup.apart([piece.with_(not_before=later, budget=Budget(len(piece)))])
            else:
                self._losses.lose(piece.kept, "rejected", Response(piece.status))

    def _refuse(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        """
        Find out whether a firewall refuses one event or everything.

        One event alone is tried at once, then another. Where one gets through, the others
        are searched as in `_bisect`; where none does, all wait as for a wrong address.
        """
        known = parcel.refused and parcel.strikes > 0
        parcel = parcel.failed(self._passed).with_(apart=True, refused=True)
        self._refusals += not known
        if parcel.strikes and not parcel.is_alone:
            return self._bisect(parcel, answer)
        if known and parcel.failures >= _LAST_REFUSAL:
            return self._reject(parcel, answer)
        if known or (not parcel.is_alone and self._refusals < _REFUSALS):
            return [parcel.with_(not_before=0.0)]
        return self._wait_for_access(parcel, answer)

    def _wait_for_access(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        """Keep what was refused; where nobody gets through, send nothing for a while."""
        now = self._clock()
        most = self._settings.max_retries
        paused = self._schedule.paused(now, answer.dialect.rules, answer.wait)
        if self._refusals >= _REFUSALS:
            self._schedule = paused
            self._in_trouble = True
        if most is not None and parcel.failures > most:
            return self._reject(parcel, answer)
        self._warn("paused", advice(answer.response), answer.response, "events wait")
        return [parcel.with_(not_before=paused.not_before)]

    def _oversized(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        return self._give_up(parcel, "oversized", answer)

    def _reject(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        return self._give_up(parcel, "rejected", answer)

    def _give_up(self, parcel: Parcel, reason: str, answer: Answer) -> list[Parcel]:
        self._losses.lose(parcel.kept, reason, answer.response)
        left = parcel.left_behind()
        return [left] if left else []


_Action = Callable[[Sender, Parcel, Answer], "list[Parcel]"]

_ACTIONS: dict[Outcome, _Action] = {
    Outcome.DELIVERED: Sender._delivered,
    Outcome.RETRY: Sender._retry,
    Outcome.PAUSE: Sender._pause,
    Outcome.REFUSED: Sender._refuse,
    Outcome.HALVE: Sender._halve,
    Outcome.BISECT: Sender._bisect,
    Outcome.OVERSIZED: Sender._oversized,
    Outcome.REJECTED: Sender._reject,
}

# Of the key and the bill: no other batch would fare better.
_OF_THE_KEY = frozenset({401, 402})
