"""
The relay: workers that take messages out of a broker's queue and send them to the endpoint.

A worker is a thread with a consumer and a `Sender` of its own, so a slow endpoint is met by
several requests at once. Messages are held while the endpoint is away, never put back: a
queue counts how often that happens, and gives up at some point. For the same reason nothing
more is taken meanwhile, and before a first success by one worker only: what one consumer of a
killed relay has held goes to the next of its consumers, and so counts again and again.
"""

from __future__ import annotations

import threading
import time

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

from ..delivery.ledger import Ledger
from ..delivery.own_log import sending_threads
from ..delivery.sender import Sender, Settings
from ..delivery.transport import RequestsTransport, Transport
from ..wire import Dialect, Endpoint, Request, Response
from .address import Address
from .engine import BrokerError, Intake, engine_for
from .reader import Reader
from .spool import BrokerSpool


__all__ = ["BUCKETS", "Plan", "Relay", "State"]

#: The bounds of the histogram of requests, in seconds.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_TURN = 0.5  # seconds: how long a worker waits at most before it looks around
_SCOUT_FOR = 2.0  # seconds: how long the turn of one worker is while no endpoint has answered
_LONGEST_PAUSE = 10.0
_GRACE = 2.0


@dataclass(frozen=True)
class Plan:
    """
    What a relay takes from where to where.

    Args:
        batch: how many events a request has at most.
        timeout: how long a request may take, in seconds.
        transport: makes what one worker sends by.
    """

    address: Address
    dialect: Dialect
    endpoint: Endpoint
    intake: Intake = field(default_factory=Intake)
    workers: int = 4
    batch: int = 2000
    timeout: float = 15.0
    transport: Callable[[], Transport] = RequestsTransport


@dataclass(frozen=True)
class State:
    """
    How a relay fares, for those who watch it; counts are since its start.

    *protocol* is the dialect that is spoken: for ``"posthog"``, what the host was found to know.
    """

    counts: Mapping[str, int]
    connected: int
    workers: int
    held: int
    redelivered: int
    dead_letters: int
    turned: float  # seconds since the worker that turned longest ago did
    success: float | None  # seconds since the endpoint last answered with a 2xx
    buckets: tuple[int, ...]
    requests: int
    request_seconds: float
    dialect: str = ""
    protocol: str = ""


class Relay:
    """Deliver what is in a queue, from `start` to `stop`."""

    def __init__(self, plan: Plan) -> None:
        self.ledger = Ledger()
        self._watch = _Watch(plan.transport)
        self._stop = threading.Event()
        self._begun = time.monotonic()
        self._workers = [
            _Worker(plan, self.ledger, self._watch, self._stop, partial(self._may_take, number))
            for number in range(plan.workers)
        ]
        self._dialect = plan.dialect.name

    @property
    def protocol(self) -> str:
        """Which dialect is spoken to the endpoint; all workers know the same of a host."""
        return self._workers[0].protocol

    def start(self) -> None:
        """Start the workers."""
        for worker in self._workers:
            worker.start()

    def stop(self, drain: float) -> bool:
        """
        Take nothing more, make one attempt for what is here, acknowledge what was answered.

        Returns whether all workers ended within *drain* seconds; those that did not are left.
        """
        deadline = time.monotonic() + drain
        for worker in self._workers:
            worker.deadline = deadline
        self._stop.set()
        for worker in self._workers:
            worker.join(max(0.0, deadline + _GRACE - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers)

    def is_idle(self) -> bool:
        """Return whether every worker has found nothing lately, and has nothing."""
        return all(worker.idle for worker in self._workers)

    def _may_take(self, number: int) -> bool:
        """Return whether worker *number* may take messages in: in an outage one may, in turn."""
        if self._watch.well:
            return True
        turn = int((time.monotonic() - self._begun) / _SCOUT_FOR) % len(self._workers)
        return number == turn and not any(worker.busy for worker in self._workers)

    def state(self) -> State:
        """Return how it fares."""
        now, watch, workers = time.monotonic(), self._watch, self._workers
        return State(
            self.ledger.counts,
            sum(worker.connected for worker in workers),
            len(workers),
            sum(worker.held for worker in workers),
            sum(worker.redelivered for worker in workers),
            sum(worker.dead_letters for worker in workers),
            now - min(worker.turned for worker in workers),
            None if watch.succeeded is None else now - watch.succeeded,
            watch.buckets(),
            watch.requests,
            watch.seconds,
            self._dialect,
            self.protocol,
        )


class _Worker(threading.Thread):
    """One consumer, one spool, one sender, and the thread to which they belong."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        watch: _Watch,
        stop: threading.Event,
        may_take: Callable[[], bool],
    ) -> None:
        super().__init__(name="posthog-logging relay", daemon=True)
        self.connected = False
        self.idle = False
        self.busy = False  # whether it has something to try, now or later
        self.turned = time.monotonic()
        self.deadline = 0.0
        self._ledger = ledger
        self._stop_asked = stop
        self._may_take = may_take
        self._failures = 0
        self._consumer = engine_for(plan.address).consumer(plan.address, plan.intake)
        reader = Reader(plan.dialect)
        self._spool = BrokerSpool(self._consumer, reader, ledger, batch=plan.batch)
        # What comes from a broker is due at once: it has been linked up into batches already.
        settings = Settings(flush_at=1, flush_interval=0.0, timeout=plan.timeout)
        self._sender = Sender(
            self._spool, plan.dialect, plan.endpoint, watch.transport(), ledger, settings
        )

    @property
    def protocol(self) -> str:
        """Which dialect is spoken to the endpoint."""
        return self._sender.protocol

    @property
    def held(self) -> int:
        """How many messages came and were not acknowledged."""
        return self._consumer.held

    @property
    def redelivered(self) -> int:
        """How many messages came that had been delivered before."""
        return self._spool.redelivered

    @property
    def dead_letters(self) -> int:
        """How many events are with the dead."""
        return self._spool.dead_letters

    def run(self) -> None:
        """Turn until somebody stops it; whatever goes wrong, it goes on."""
        while not self._stop_asked.is_set():
            sending_threads.add(threading.get_ident())  # no record of this thread is an event
            try:
                self._turn()
                self._failures = 0
            except BrokerError as error:
                self._lose_broker(str(error))
            except Exception as error:  # of a client library; its text may quote the URL
                self._lose_broker(type(error).__name__)
        self._finish()
        sending_threads.discard(threading.get_ident())  # which another thread may get

    def _turn(self) -> None:
        self.turned = time.monotonic()
        due = self._sender.due_in()
        take = self._spool.fill if self._may_take() else self._spool.rest_for
        intact = take(_TURN if due is None else min(due, _TURN))
        if not self.connected:
            self.connected = True
            if self._failures:
                self._ledger.recovered()
        if not intact:
            self._sender.rewind()
        self._sender.append(())
        self.idle = not self.held and getattr(self._consumer, "caught_up", True)
        self.busy = self._sender.waiting > 0
        while self._sender.step() and not self._stop_asked.is_set():
            self.turned = time.monotonic()
        self.busy = self._sender.waiting > 0

    def _lose_broker(self, text: str) -> None:
        """Begin anew after a while: all that was here comes again."""
        self.connected = self.idle = False  # whether the queue is empty, nobody knows now
        self._consumer.close()
        self._sender.rewind()
        if not self._stop_asked.is_set():
            self._ledger.warn("broker", f"the relay waits for the broker: {text}")
            self._failures += 1
            pause = min(_LONGEST_PAUSE, 0.25 * 2.0 ** min(self._failures, 10))
            end = time.monotonic() + pause
            while time.monotonic() < end and not self._stop_asked.wait(min(pause, _TURN)):
                self.turned = time.monotonic()

    def _finish(self) -> None:
        try:
            self._consumer.stop()
            self._sender.flush(self.deadline - time.monotonic(), bounded=True)
        except Exception as error:
            self._ledger.warn("broker", f"the relay ends without it: {type(error).__name__}")
        finally:
            self._sender.close()
            self.connected = False


_OF_THE_CONTENT = frozenset({400, 413, 422})


class _Watch:
    """What the requests of all workers took, and when one last succeeded."""

    def __init__(self, make: Callable[[], Transport]) -> None:
        self.requests = 0
        self.seconds = 0.0
        self.succeeded: float | None = None
        #: Whether the endpoint took the last batch that it did not refuse for its content.
        self.well = False
        self._make = make
        self._lock = threading.Lock()
        self._counts = [0] * (len(BUCKETS) + 1)

    def transport(self) -> Transport:
        """Return a transport whose requests are watched."""
        return _Watched(self._make(), self)

    def note(self, seconds: float, status: int | None) -> None:
        """Count a request."""
        with self._lock:
            self.requests += 1
            self.seconds += seconds
            self._counts[bisect_left(BUCKETS, seconds)] += 1
            if status is not None and 200 <= status < 300:
                self.succeeded = time.monotonic()
                self.well = True
            elif status not in _OF_THE_CONTENT:
                self.well = False

    def buckets(self) -> tuple[int, ...]:
        """Return how many requests took as long as each bound at most; the last is for all."""
        return tuple(accumulate(self._counts))


class _Watched:
    """A transport that notes how long each request took."""

    def __init__(self, transport: Transport, watch: _Watch) -> None:
        self._transport = transport
        self._watch = watch

    def send(self, request: Request, timeout: float) -> Response:
        """Send, and note it."""
        begun = time.monotonic()
        response = self._transport.send(request, timeout)
        self._watch.note(time.monotonic() - begun, response.status)
        return response

    def close(self) -> None:
        """Close."""
        self._transport.close()
