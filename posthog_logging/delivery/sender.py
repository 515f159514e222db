"""
Spool to server, one batch at a time: makes attempts, acts on answers, counts what became of each.

Keeps no thread and takes no lock: whoever has the pipeline's turn calls it. Retry means
"not acknowledged yet": nothing here sleeps.
"""

from __future__ import annotations

import dataclasses
import random
import threading
import time
import uuid

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..events import jsonable
from ..events.message import rfc3339
from ..wire import Batch, Dialect, Endpoint, Response, Results
from .ledger import Ledger
from .own_records import working
from .policy import Outcome, Schedule, judge, parse_retry_after
from .spool import RECEIPT, Kept, Spool, lines_of
from .transport import Transport


__all__ = ["DeliveryError", "OnError", "Sender", "Settings"]


class DeliveryError(Exception):
    """Why events were lost: what ``on_error`` is called with."""

    def __init__(self, reason: str, status: int | None = None, detail: str = "") -> None:
        super().__init__(
            f"{reason}{'' if status is None else f', HTTP {status}'}{detail and f': {detail}'}"
        )
        self.reason = reason
        self.status = status
        self.detail = detail


OnError = Callable[[DeliveryError, "list[dict[str, Any]]"], None]

# How many requests one poisoned batch may cost: two halves a level, 2,000 events deep, twice.
_TRIALS = 48


@dataclass(frozen=True)
class Settings:
    """When a batch is due and when it is given up."""

    flush_at: int = 100
    flush_interval: float = 1.0
    max_retries: int | None = None
    max_age: float | None = None
    timeout: float = 15.0
    bisect: bool = True


class _Trials:
    """What is left of the requests that the pieces of one batch may cost together."""

    def __init__(self) -> None:
        self.left = _TRIALS


@dataclass(frozen=True)
class _Parcel:
    """A batch and what was tried with it so far."""

    kept: Sequence[Kept]
    request_id: str
    created: float
    attempts: int = 0
    failures: int = 0
    throttled: float = 0.0  # when the server first asked to wait
    trials: _Trials = dataclasses.field(default_factory=_Trials)

    def with_(self, kept: Sequence[Kept], **more: Any) -> _Parcel:
        return dataclasses.replace(self, kept=kept, **more)


class Sender:
    """
    Send what waits in *spool*, by the rules of *dialect*.

    Args:
        clock: returns seconds that only go forward; waits are measured by it.
        wall: returns epoch seconds; attempts are stamped with it.
        uniform: draws the jitter.
        on_error: called with a `DeliveryError` and the events that were lost.
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
    ) -> None:
        self.spool = spool
        self._dialect = dialect
        self._endpoint = endpoint
        self._transport = transport
        self._ledger = ledger
        self._settings = settings or Settings()
        self._on_error = on_error
        self._clock = clock
        self._wall = wall
        self._uniform = uniform
        #: Whether nothing may be sent for now: the user opted out.
        self.held = False
        self._begin()

    def _begin(self) -> None:
        self._schedule = Schedule(self._dialect.limits.batch_count)
        self._pending: deque[_Parcel] = deque()
        self._others_first = False  # a batch over which the server stumbled lets one pass
        self._since: float | None = None  # when the oldest line in the spool came

    def reset(self) -> None:
        """Begin anew in a forked child: its parent sends what its parent has."""
        self.spool.renew()
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
        return len(self.spool) + sum(len(parcel.kept) for parcel in self._pending)

    @property
    def paused(self) -> bool:
        """Whether the key was refused or the bill is unpaid, and nothing is sent for a while."""
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
        if self._since is None and len(self.spool):
            self._since = self._clock()

    def due_in(self) -> float | None:
        """Return the seconds until there is something to do; None while nothing waits."""
        if self.held:
            return None
        now = self._clock()
        blocked = self._schedule.due_in(now)
        if self._pending or len(self.spool) >= self._settings.flush_at:
            return blocked
        if self._since is None:
            return None
        return max(blocked, self._since + self._settings.flush_interval - now, 0.0)

    def step(self, timeout: float | None = None) -> bool:
        """Make one attempt if one is due; return whether there was one."""
        if self.due_in() != 0.0:
            return False
        parcel = self._next()
        if parcel is None:
            return False
        self._pending.extendleft(reversed(self._attempt(parcel, timeout)))
        return True

    def flush(self, timeout: float, bounded: bool = False) -> bool:
        """
        Make one attempt for everything that waits now, whatever the schedule says.

        Returns True when nothing is left. What failed and may be retried stays, in order.
        None begins after *timeout* seconds; none lasts longer, either, where it is *bounded*.
        """
        if self.held:
            return not self.waiting
        deadline = self._clock() + timeout
        work, self._pending = self._pending, deque()
        tried: deque[_Parcel] = deque()
        unformed = len(self.spool)
        while self._clock() < deadline:
            if not work and unformed > 0 and (parcel := self._form()):
                unformed -= len(parcel.kept)
                work.append(parcel)
            if not work:
                break
            left = deadline - self._clock() if bounded else None
            work.extendleft(reversed(self._attempt(work.popleft(), left)))
            tried.extend(self._pending)
            self._pending.clear()
        self._pending = tried + work
        return not self._pending and not len(self.spool)

    def rewind(self) -> None:
        """Begin again with all that was not answered for, after an error that nobody expected."""
        self.spool.rewind()
        self._pending.clear()
        self._since = self._clock() if len(self.spool) else None

    def abandon(self, reason: str) -> int:
        """Give up all that waits in memory only; what is on disk stays there. Return how many."""
        self._pending.clear()
        return self._report(self.spool.forget(), reason)

    def evict(self, count: int, reason: str) -> int:
        """Lose up to *count* of the oldest events that are in no batch yet."""
        return self._report(self.spool.evict(count), reason)

    def _next(self) -> _Parcel | None:
        if self._pending and not (self._others_first and len(self.spool)):
            return self._pending.popleft()
        self._others_first = False
        return self._form()

    def _form(self) -> _Parcel | None:
        """Return a new batch of what waits, oldest first, no uuid in it twice."""
        while kept := self._take():
            now = self._wall()
            parcel = _Parcel(self._fresh(kept, now), str(uuid.uuid4()), now)
            if parcel.kept:
                return parcel.with_(self._distinct(parcel.kept))
        return None

    def _take(self) -> Sequence[Kept]:
        waiting = len(self.spool)
        # 1 KiB for what the dialect puts around the lines.
        kept = self.spool.take(self._schedule.limit, self._dialect.limits.batch_bytes - 1024)
        if len(kept) >= waiting:  # else what is left is as old as what was taken
            self._since = self._clock() if len(self.spool) else None
        return kept

    def _fresh(self, kept: Sequence[Kept], now: float) -> Sequence[Kept]:
        """Leave out what is older than ``max_age``; a spool may be days old."""
        if self._settings.max_age is None:
            return kept
        oldest = rfc3339(now - self._settings.max_age).encode()
        stale = [one for one in kept if _time_in(one.line) < oldest]
        self._lose(stale, "expired")
        return [one for one in kept if _time_in(one.line) >= oldest] if stale else kept

    def _distinct(self, kept: Sequence[Kept]) -> Sequence[Kept]:
        """Give a new uuid to the second of two events with one: it would refuse both (V1, 2.3)."""
        with suppress(Exception):  # of a foreign dialect
            if len(set(map(self._dialect.uuid_of, lines_of(kept)))) == len(kept):
                return kept
        seen: dict[str, bytes] = {}
        distinct: list[Kept] = []
        for one in kept:
            name = self._uuid_of(one.line)
            twin = seen.setdefault(name, one.line) if name else None
            if twin is not None and twin is not one.line:
                if twin == one.line:
                    self.spool.ack([one])
                    self._ledger.add("duplicates")
                    continue
                line = self._dialect.with_uuid(one.line, str(uuid.uuid4()))
                one = one._replace(line=line)
                self._ledger.tell("duplicate uuid", "a uuid that was used twice was replaced")
            distinct.append(one)
        return distinct

    def _attempt(self, parcel: _Parcel, timeout: float | None) -> list[_Parcel]:
        """Send *parcel* once; return the pieces of it that are to be sent at once."""
        parcel = dataclasses.replace(parcel, attempts=parcel.attempts + 1)
        if parcel.attempts > 1:
            self._ledger.add("retried", len(parcel.kept))
        response = self._send(parcel, timeout)
        wait = parse_retry_after(response.headers.get("retry-after"), self._wall())
        rules = self._dialect.rules
        outcome = judge(response.status, rules, len(parcel.kept), wait is not None)
        return _ACTIONS[outcome](self, parcel, response, wait)

    def _send(self, parcel: _Parcel, timeout: float | None) -> Response:
        """Encode and send; what a foreign dialect or transport raises is an answer like any."""
        batch = Batch(
            lines_of(parcel.kept),
            parcel.request_id,
            rfc3339(parcel.created),
            parcel.attempts,
        )
        limit = self._settings.timeout if timeout is None else min(timeout, self._settings.timeout)
        me = threading.get_ident()
        working.add(me)
        try:
            request = self._dialect.request(batch, self._endpoint, rfc3339(self._wall()))
            return self._transport.send(request, limit)
        except Exception as error:
            self._ledger.tell("broken part", f"dialect or transport raised {type(error).__name__}")
            return Response(None, error=type(error).__name__)
        finally:
            working.discard(me)

    def _delivered(self, parcel: _Parcel, response: Response, wait: float | None) -> list[_Parcel]:
        results = self._results(response)
        done, again, dropped = self._parted(parcel.kept, results)
        if results.error:
            self._lose(parcel.kept, "unconfirmed", response, results.error)
            return []
        for note, count in results.notes.items():
            self._ledger.tell(f"server: {note}", f"the server says {note!r} of {count} event(s)")
        self.spool.ack(done)
        self._ledger.add("delivered", len(done))
        self._lose(dropped, "dropped", response, ", ".join(sorted(set(results.dropped.values()))))
        if again:
            return self._retry(parcel.with_(again), response, wait)
        self._succeed()
        return []

    def _parted(
        self, kept: Sequence[Kept], results: Results
    ) -> tuple[Sequence[Kept], Sequence[Kept], Sequence[Kept]]:
        """Return what was delivered, what is to be sent again and what was dropped."""
        if not results.retry and not results.dropped:
            return kept, (), ()
        named = [(self._uuid_of(one.line), one) for one in kept]
        again = [one for name, one in named if name in results.retry]
        dropped = [one for name, one in named if name in results.dropped]
        rest = results.retry | results.dropped.keys()
        return [one for name, one in named if name not in rest], again, dropped

    def _results(self, response: Response) -> Results:
        try:
            return self._dialect.results(response)
        except Exception as error:
            return Results(error=type(error).__name__)

    def _uuid_of(self, line: bytes) -> str:
        """Return the id of *line*; "" where a foreign dialect, or a foreign line, has none."""
        try:
            return self._dialect.uuid_of(line)
        except Exception as error:
            self._ledger.tell("broken part", f"dialect raised {type(error).__name__}")
            return ""

    def _succeed(self) -> None:
        if self._schedule.failures or self._schedule.pauses:
            self._ledger.recovered()
        self._schedule = self._schedule.succeeded()

    def _retry(self, parcel: _Parcel, response: Response, wait: float | None) -> list[_Parcel]:
        """Keep *parcel* for later, or give it up where its tries are used up."""
        now, rules = self._clock(), self._dialect.rules
        throttled = wait is not None and rules.free_throttle
        parcel = dataclasses.replace(
            parcel,
            failures=parcel.failures + (not throttled),
            throttled=(parcel.throttled or now) if throttled else 0.0,
        )
        self._schedule = self._schedule.failed(now, rules, wait, self._uniform)
        most = self._settings.max_retries
        if most is not None and parcel.failures > most:
            self._lose(parcel.kept, "retries_exhausted", response)
            return []
        if parcel.throttled and now - parcel.throttled > rules.longest_throttle:
            self._lose(parcel.kept, "throttled", response)
            return []
        if (
            self._settings.max_age is not None
            and self._wall() - parcel.created > self._settings.max_age
        ):
            self._lose(parcel.kept, "expired", response)
            return []
        self._ledger.tell(
            "outage", f"cannot deliver, {_summary(response)}; events wait for the next try"
        )
        self._keep(parcel, response.status)
        return []

    def _keep(self, parcel: _Parcel, status: int | None) -> None:
        """Put *parcel* back: last where the answer may be its own fault, else in its place."""
        if status is not None and status >= 500 and status not in _SERVER_AWAY:
            self._others_first = True
            self._pending.append(parcel)
        else:
            self._pending.appendleft(parcel)

    def _pause(self, parcel: _Parcel, response: Response, wait: float | None) -> list[_Parcel]:
        self._schedule = self._schedule.paused(self._clock())
        why = (
            "the key was refused"
            if response.status == 401
            else "the server refuses to take events"
        )
        self._ledger.tell("paused", f"{why}, {_summary(response)}; sending is paused, events wait")
        most = self._settings.max_retries
        parcel = dataclasses.replace(parcel, failures=parcel.failures + 1)
        if most is not None and parcel.failures > most:
            self._lose(parcel.kept, "rejected", response)
        else:
            self._pending.appendleft(parcel)
        return []

    def _halve(self, parcel: _Parcel, response: Response, wait: float | None) -> list[_Parcel]:
        self._schedule = self._schedule.halved(len(parcel.kept))
        return self._halves(parcel)

    def _bisect(self, parcel: _Parcel, response: Response, wait: float | None) -> list[_Parcel]:
        """Look for the one event that the server cannot take, within a number of requests."""
        parcel.trials.left -= 2
        if not self._settings.bisect or parcel.trials.left < 0:
            return self._reject(parcel, response, wait)
        return self._halves(parcel)

    def _halves(self, parcel: _Parcel) -> list[_Parcel]:
        middle = len(parcel.kept) // 2
        return [
            parcel.with_(parcel.kept[:middle], request_id=str(uuid.uuid4()), attempts=0),
            parcel.with_(parcel.kept[middle:], request_id=str(uuid.uuid4()), attempts=0),
        ]

    def _oversized(self, parcel: _Parcel, response: Response, wait: float | None) -> list[_Parcel]:
        self._lose(parcel.kept, "oversized", response)
        return []

    def _reject(self, parcel: _Parcel, response: Response, wait: float | None) -> list[_Parcel]:
        self._lose(parcel.kept, "rejected", response)
        return []

    def _lose(
        self,
        kept: Sequence[Kept],
        reason: str,
        response: Response | None = None,
        detail: str = "",
    ) -> None:
        """Count, acknowledge, tell and hand to ``on_error`` what will never be delivered."""
        if kept:
            lost = getattr(self.spool, "lost", None)  # a broker's puts them with the dead
            if lost is not None:
                lost(kept, reason, None if response is None else response.status)
            self.spool.ack(kept)  # first: where that raises, it is handed out again
            self._report(lines_of(kept), reason, response, detail)

    def _report(
        self,
        lines: list[bytes],
        reason: str,
        response: Response | None = None,
        detail: str = "",
    ) -> int:
        if not lines:
            return 0
        fields = detail or (_summary(response) if response is not None else "")
        self._ledger.lose(reason, len(lines), fields)
        if self._on_error is not None:
            status = response.status if response is not None else None
            error = DeliveryError(reason, status, fields if status is None else detail)
            try:
                self._on_error(error, [jsonable.decode(line) for line in lines])
            except (Exception, SystemExit) as raised:
                self._ledger.tell("on_error", f"on_error raised {type(raised).__name__}")
        return len(lines)


_Action = Callable[[Sender, _Parcel, Response, "float | None"], "list[_Parcel]"]

_ACTIONS: dict[Outcome, _Action] = {
    Outcome.DELIVERED: Sender._delivered,
    Outcome.RETRY: Sender._retry,
    Outcome.PAUSE: Sender._pause,
    Outcome.HALVE: Sender._halve,
    Outcome.BISECT: Sender._bisect,
    Outcome.OVERSIZED: Sender._oversized,
    Outcome.REJECTED: Sender._reject,
}

# Answers of a gateway or a server in trouble: no event is to blame for them.
_SERVER_AWAY = frozenset({502, 503, 504})


def _summary(response: Response) -> str:
    """Return what an answer amounts to; never its text, which may quote an event."""
    return f"HTTP {response.status}" if response.status is not None else response.error


def _time_in(line: bytes) -> bytes:
    """Return the timestamp that a line of any dialect bears, without a parse of the rest."""
    start = line.find(b'"timestamp":"') + 13
    return line[start : line.index(b'"', start)] if start > 12 else b"9"
