"""
Act on the answer to an attempt: acknowledge events, keep them for later, split a batch, give up.

`policy.judge` decides what an answer means, and `_ACTIONS` what is done then. A batch that failed
goes to the end of the `Lineup`. One that keeps failing while others get through is isolated and
halved until the event at fault is alone: that event is tried ever more rarely, and given up
after `_LAST_STRIKE` failures, half a day or more.
"""

from __future__ import annotations

import enum
import math

from collections.abc import Callable, Sequence

from ..wire import Dialect, Endpoint, Response, Results
from ..wire.answers import is_page
from ..wire.posthog_protocol import Protocol
from .attempts import Answer
from .ledger import Ledger
from .lineup import Lineup
from .losses import Losses
from .parcel import Budget, Parcel
from .policy import LONGEST_PAUSE, SHORTEST_BACKOFF, Outcome, Schedule, Settings, backoff, judge
from .spool import Entry, Spool
from .wording import advice, cleaned, listed, remedy, summary


__all__ = ["PROBE", "AnswerHandler"]

#: How many new lines are tried while nothing gets through: few, but enough to notice the end.
PROBE = 20
# How often an event at fault may fail alone while others get through: its waits double from a
# second to a quarter of an hour, so it is given up after half a day or more.
_LAST_STRIKE = 100
# The same for an event that a firewall refuses.
_LAST_REFUSAL = 3
# After so many refusals in a row, with nothing delivered between, it is not one event's fault.
_REFUSALS = 3
# The same of batches that are rejected as a whole, before requests become fewer: ``on_error`` may
# log of each one, in a thread of its own.
_REJECTIONS = 20
# How often isolated batches may fail in a row without a wait: halves need not wait for halves.
_FREE_FAILURES = 8
# How often a batch is sent again whose 2xx could not be read.
_UNREAD = 2
# How many different remarks of servers are each logged once; the others share a topic.
_NOTES = 20

_TOO_MANY = 429  # requests

# A refused key, an unpaid bill: no other batch would fare better.
_OF_THE_KEY = frozenset({401, 402})


class _Trouble(enum.Enum):
    """Why a batch is kept."""

    OUTAGE = "outage"
    PARTLY = "partly"  # others of the same request were taken
    ADDRESS = "address"
    KEY = "key"

    @property
    def pauses(self) -> bool:
        """Whether sending pauses, as only a person can mend it."""
        return self in (_Trouble.ADDRESS, _Trouble.KEY)


class AnswerHandler:
    """
    Act on answers, and remember how the server fares.

    Args:
        uuid_of: returns the uuid of a line.
        lineup: where batches go that are kept.
        clock: returns seconds that only go forward.
        wall: returns epoch seconds.
        uniform: draws the jitter.
    """

    def __init__(
        self,
        spool: Spool,
        dialect: Dialect,
        protocol: Protocol,
        endpoint: Endpoint,
        ledger: Ledger,
        losses: Losses,
        settings: Settings,
        lineup: Lineup,
        *,
        uuid_of: Callable[[bytes], str],
        clock: Callable[[], float],
        wall: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        self._spool = spool
        self._dialect = dialect
        self._protocol = protocol
        self._endpoint = endpoint
        self._ledger = ledger
        self._losses = losses
        self._settings = settings
        self._lineup = lineup
        self._uuid_of = uuid_of
        self._clock = clock
        self._wall = wall
        self._uniform = uniform
        #: When the next attempt is allowed, and how many events it may have.
        self.schedule = Schedule(dialect.limits.batch_count)
        #: How many requests succeeded.
        self.successes = 0
        #: Whether something failed, and nothing succeeded since.
        self.in_trouble = False
        self._largest = 0  # how many events got through at once since the last failure
        self._refusals = 0  # how many requests were refused since the last success
        self._rejections = 0  # how many batches were rejected as a whole since then
        self._isolated_failures = 0  # how often isolated batches failed since then
        self._is_limited = False  # whether the last failure was one request too many
        self._notes: set[str] = set()

    def handle(self, parcel: Parcel, answer: Answer) -> int:
        """Act on *answer* to *parcel*; return how many pieces of it are now first in the queue."""
        outcome = judge(
            answer.response.status,
            answer.dialect.rules,
            len(parcel.entries),
            page=is_page(answer.response),
            proven=self._protocol.proven,
        )
        pieces = _ACTIONS[outcome](self, parcel, answer)
        queued = [piece for piece in pieces if not piece.isolated]
        self._lineup.put_first(queued)
        self._lineup.isolate(piece for piece in pieces if piece.isolated)
        self._end_search(parcel)
        return len(queued)

    def needs_probe(self, parcel: Parcel) -> bool:
        """Return whether only one event of *parcel* should be tried."""
        if self.in_trouble and not parcel.isolated and parcel.may_be_at_fault(self.successes):
            return True
        return (self.in_trouble or parcel.isolated) and parcel.needs_probe(self.successes)

    # After a success. Each action returns the parcels that may be sent at once.

    def _delivered(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        """Trust a 2xx only as far as its body goes."""
        results = answer.results()
        if results.kept:
            return self._fail(parcel.with_(unread=0), answer, why=results.kept)
        if results.error and self._protocol.trouble():  # no server of PostHog's has answered yet
            return self._fail(parcel.with_(unread=0), answer, _Trouble.ADDRESS, results.error)
        if results.error:
            return self._unread(parcel, answer, results.error)
        if results.unnamed >= len(parcel.entries):
            self._losses.lose(parcel.entries, "dropped", answer.response)
            return self._succeed(parcel, 0)
        self._log_notes(results)
        return self._settle(parcel, answer, results)

    def _settle(self, parcel: Parcel, answer: Answer, results: Results) -> list[Parcel]:
        """Do with each event what its verdict says."""
        done, again, paused, dropped = self._by_verdict(parcel.entries, results)
        self._spool.ack(done)
        self._ledger.add("delivered", len(done))
        reasons = listed(results.dropped.values(), self._endpoint.api_key)
        self._losses.lose(dropped, "dropped", answer.response, reasons)
        if not done and not dropped:
            return self._fail(parcel, answer, _Trouble.ADDRESS if paused else _Trouble.OUTAGE)
        pieces = self._succeed(parcel, len(done))
        for left, trouble in ((again, _Trouble.PARTLY), (paused, _Trouble.ADDRESS)):
            if left:
                pieces += self._fail(parcel.with_(entries=left, withheld=()), answer, trouble)
        return pieces

    def _by_verdict(
        self, entries: Sequence[Entry], results: Results
    ) -> tuple[Sequence[Entry], Sequence[Entry], Sequence[Entry], Sequence[Entry]]:
        """Return which were delivered, which to send again, which wait, and which were dropped."""
        if not (results.retry or results.paused or results.dropped):
            return entries, (), (), ()
        delivered: list[Entry] = []
        again: list[Entry] = []
        paused: list[Entry] = []
        dropped: list[Entry] = []
        for entry in entries:
            name = self._uuid_of(entry.line)
            if name in results.retry:
                again.append(entry)
            elif name in results.paused:
                paused.append(entry)
            elif name in results.dropped:
                dropped.append(entry)
            else:
                delivered.append(entry)
        return delivered, again, paused, dropped

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

    def _succeed(self, parcel: Parcel, count: int) -> list[Parcel]:
        """Note that *count* events were delivered; return what a probe had withheld."""
        self.successes += 1
        self._refusals = self._rejections = self._isolated_failures = 0
        self.in_trouble = False
        self._largest = max(self._largest, count)
        before, self.schedule = self.schedule, self.schedule.succeeded(self._clock())
        was_troubled = before.failures or before.pauses or before.pace
        if was_troubled and not (self._is_limited and self.schedule.pace):  # the limit goes on
            self._ledger.recovered()
        if parcel.isolated:
            self._continue_search(parcel.budget, count)
        return _remainder(parcel)

    def _unread(self, parcel: Parcel, answer: Answer, error: str) -> list[Parcel]:
        """Send again what may not have arrived, but not for ever: the status was a success."""
        if parcel.unread >= _UNREAD:
            self._losses.lose(parcel.whole().entries, "unconfirmed", answer.response, error)
            return []
        return self._fail(parcel.with_(unread=parcel.unread + 1), answer, why=error)

    # After a failure that may pass

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
        """Keep *parcel* for later, split it if it is suspect, or give it up."""
        now = self._clock()
        parcel = self._charged(parcel, answer, trouble, now)
        if not parcel.isolated:
            self._is_limited = answer.response.status == _TOO_MANY
            if self._is_limited and not self.schedule.failures:  # else nothing came before it
                self.schedule = self.schedule.throttled(answer.wait)
        reason = self._reason_to_give_up(parcel, trouble, now)
        if trouble is not _Trouble.KEY and (parcel.is_suspect or (parcel.strikes and reason)):
            if not parcel.is_single:
                return self._split_suspect(parcel, answer)
            parcel = parcel.with_(isolated=True)
            if parcel.strikes >= _LAST_STRIKE:
                reason = reason or "retries_exhausted"
        self._back_off(parcel, answer, trouble, now)
        if reason:
            self._losses.lose(parcel.entries, reason, answer.response)
            return []
        self._warn_of_trouble(parcel, answer, trouble, why)
        self._keep(parcel, answer, trouble, now)
        return []

    def _charged(self, parcel: Parcel, answer: Answer, trouble: _Trouble, now: float) -> Parcel:
        """Return *parcel* with one failure more, unless the server merely asked to wait."""
        failed = parcel.failed(self.successes)
        if trouble.pauses:
            return failed
        if answer.wait and answer.dialect.rules.free_throttle:
            since = parcel.throttled_since or now
            return failed.with_(failures=parcel.failures, throttled_since=since)
        return failed.with_(throttled_since=0.0)

    def _reason_to_give_up(self, parcel: Parcel, trouble: _Trouble, now: float) -> str | None:
        """Return the reason to give up *parcel*; None if it is kept."""
        most, age = self._settings.max_retries, self._settings.max_age
        since = parcel.throttled_since
        if most is not None and parcel.failures > most:
            return "rejected" if trouble.pauses else "retries_exhausted"
        if since and now - since > self._dialect.rules.longest_throttle:
            return "throttled"
        if age is not None and self._wall() - parcel.created > age:
            return "expired"
        return None

    def _split_suspect(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        """Look for the event at fault in a batch that fails while others get through."""
        self._ledger.warn(
            "suspect",
            f"a batch of {len(parcel)} keeps failing while others get through, "
            f"{summary(answer.response)}; it is sent in parts",
        )
        due = self._clock() + answer.wait if answer.wait else 0.0
        return [half.with_(strikes=0, not_before=due) for half in parcel.halves(isolated=True)]

    def _back_off(self, parcel: Parcel, answer: Answer, trouble: _Trouble, now: float) -> None:
        """Leave the server alone for a while; if others get through, pause only isolated ones."""
        rules = answer.dialect.rules
        others_fare_well = parcel.isolated and not self.in_trouble
        if trouble is _Trouble.KEY or (trouble is _Trouble.ADDRESS and not others_fare_well):
            self.schedule = self.schedule.paused(now, rules, answer.wait)
            self.in_trouble = trouble is _Trouble.ADDRESS
        elif others_fare_well:
            self._isolated_failures += 1
            more = self._isolated_failures - _FREE_FAILURES
            wait = backoff(more, rules.longest_backoff, self._uniform) if more > 0 else 0.0
            self._lineup.pause_isolated(now + max(wait, SHORTEST_BACKOFF))
        elif trouble is not _Trouble.PARTLY:
            self.schedule = self.schedule.failed(now, rules, answer.wait, self._uniform)
            self.in_trouble = True
            self._make_batches_smaller(parcel)

    def _make_batches_smaller(self, failed: Parcel) -> None:
        """Where only smaller batches got through, each large one may hold an event at fault."""
        if 0 < self._largest < len(failed):
            count = min(len(failed), self.schedule.limit)
            self.schedule = self.schedule.halved(max(count, 2 * PROBE))
        self._largest = 0

    def _warn_of_trouble(
        self, parcel: Parcel, answer: Answer, trouble: _Trouble, why: str
    ) -> None:
        response = answer.response
        if parcel.isolated and not self.in_trouble:
            cause = summary(response)
            text = f"an event fails alone, {cause}, while others get through; it waits apart"
            self._ledger.warn("apart", text)
        elif trouble.pauses:
            self._warn("paused", advice(response), response, "sending is paused, events wait")
        else:
            topic = "limit" if response.status == _TOO_MANY else "outage"
            self._warn(topic, why, response, "events wait for the next try")

    def _warn(self, topic: str, why: str, response: Response, then: str) -> None:
        """Log what keeps events from the host, what happens to them *then*, and what to do."""
        host = self._endpoint.host
        known = f"{host}: {why}" if why else f"cannot deliver to {host}"
        trouble = self._protocol.trouble() or known
        text = f"{trouble}, {summary(response)}; {then}. To do: {remedy(host)}"
        self._ledger.warn(topic, text)

    def _keep(self, parcel: Parcel, answer: Answer, trouble: _Trouble, now: float) -> None:
        """Put *parcel* last, or with the isolated ones; what is suspect waits by itself, too."""
        if parcel.isolated or parcel.strikes or trouble is _Trouble.PARTLY:
            longest = answer.dialect.rules.longest_backoff
            if parcel.isolated and parcel.is_single:
                longest = LONGEST_PAUSE
            failures = max(parcel.failures, parcel.strikes, 1)
            wait = max(backoff(failures, longest, self._uniform), answer.wait)
            parcel = parcel.with_(not_before=now + wait)
        if parcel.isolated:
            self._lineup.isolate([parcel])
        else:
            self._lineup.put_last(parcel)

    # After a refusal: the search for the events that are refused

    def _halve(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        self.schedule = self.schedule.halved(len(parcel.entries))
        return parcel.halves()

    def _bisect(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        """Look for the events that the server cannot take, within a number of requests."""
        if not self._settings.bisect:
            return self._reject(parcel, answer)
        if parcel.budget.spend():
            return parcel.halves(isolated=True)
        return [parcel.with_(isolated=True, not_before=math.inf, status=answer.response.status)]

    def _continue_search(self, budget: Budget, count: int) -> None:
        """Split what waits for *budget*, which *count* delivered events have raised."""
        budget.earn(count)
        for parcel in self._lineup.isolated_with(budget):
            if parcel.waits_for_budget and budget.spend():
                self._lineup.remove_isolated(parcel)
                self._lineup.isolate(parcel.halves())

    def _end_search(self, parcel: Parcel) -> None:
        """Give up what waits for a budget that no piece is left to raise."""
        pieces = self._lineup.isolated_with(parcel.budget)
        if not pieces or not all(piece.waits_for_budget for piece in pieces):
            return
        for piece in pieces:
            self._lineup.remove_isolated(piece)
            if piece.refused:
                later = self._clock() + LONGEST_PAUSE
                self._lineup.isolate([piece.with_(not_before=later, budget=Budget(len(piece)))])
            else:
                self._losses.lose(piece.entries, "rejected", Response(piece.status))

    def _refuse(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        """
        Find out whether a firewall refuses one event or everything.

        One event alone is tried at once, then another. If one gets through, the others are
        searched as in `_bisect`; if none does, all wait as for a wrong address.
        """
        is_known = parcel.refused and parcel.strikes > 0  # others got through meanwhile
        parcel = parcel.failed(self.successes).with_(isolated=True, refused=True)
        self._refusals += not is_known
        if parcel.strikes and not parcel.is_single:
            return self._bisect(parcel, answer)
        if is_known and parcel.failures >= _LAST_REFUSAL:
            return self._reject(parcel, answer)
        if is_known or (not parcel.is_single and self._refusals < _REFUSALS):
            return [parcel.with_(not_before=0.0)]
        return self._wait_for_access(parcel, answer)

    def _wait_for_access(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        """Keep what was refused; if nothing gets through, send nothing for a while."""
        most = self._settings.max_retries
        paused = self.schedule.paused(self._clock(), answer.dialect.rules, answer.wait)
        if self._refusals >= _REFUSALS:
            self.schedule = paused
            self.in_trouble = True
        if most is not None and parcel.failures > most:
            return self._reject(parcel, answer)
        self._warn("paused", advice(answer.response), answer.response, "events wait")
        return [parcel.with_(not_before=paused.not_before)]

    def _oversized(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        return self._give_up(parcel, "oversized", answer)

    def _reject(self, parcel: Parcel, answer: Answer) -> list[Parcel]:
        return self._give_up(parcel, "rejected", answer)

    def _give_up(self, parcel: Parcel, reason: str, answer: Answer) -> list[Parcel]:
        self._losses.lose(parcel.entries, reason, answer.response)
        self._rejections += not parcel.isolated
        if self._rejections > _REJECTIONS:
            rules = answer.dialect.rules
            self.schedule = self.schedule.failed(self._clock(), rules, uniform=self._uniform)
        return _remainder(parcel)


def _remainder(parcel: Parcel) -> list[Parcel]:
    left = parcel.remainder()
    return [left] if left else []


_Action = Callable[[AnswerHandler, Parcel, Answer], "list[Parcel]"]

_ACTIONS: dict[Outcome, _Action] = {
    Outcome.DELIVERED: AnswerHandler._delivered,
    Outcome.RETRY: AnswerHandler._retry,
    Outcome.PAUSE: AnswerHandler._pause,
    Outcome.REFUSED: AnswerHandler._refuse,
    Outcome.HALVE: AnswerHandler._halve,
    Outcome.BISECT: AnswerHandler._bisect,
    Outcome.OVERSIZED: AnswerHandler._oversized,
    Outcome.REJECTED: AnswerHandler._reject,
}
