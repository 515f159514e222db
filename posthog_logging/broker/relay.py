"""
The relay: workers that take messages out of a broker's queue and send them to the endpoint.

A worker is a thread with its own consumer and `Sender`, so several requests can be under way to
a slow endpoint. While the endpoint is down messages are held, not put back: a queue counts the
deliveries of a message, and may drop it after too many. For the same reason no more messages are
taken during an outage, and until the first success only one worker takes any: messages that a
killed relay has held go to the consumers of the next one, and each time count as one delivery.
"""

from __future__ import annotations

import threading

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

from ..delivery.clock import monotonic
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

#: The upper bounds of the histogram of request durations, in seconds.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# Seconds:
_TURN = 0.5  # the longest that one turn of a worker waits
_SCOUT_FOR = 2.0  # how long one worker may take messages during an outage, until it is another's
_LONGEST_PAUSE = 10.0  # between attempts to reach the broker
_GRACE = 2.0  # which `stop` leaves workers beyond its limit


@dataclass(frozen=True)
class Plan:
    """
    What a relay delivers, from where to where.

    Args:
        batch: the most events in one request.
        timeout: how long a request may take, in seconds.
        transport: returns a new transport for one worker.
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
    The state of a relay, for its metrics and its terminal; counts are since its start.

    Args:
        held: messages that are not acknowledged.
        stalled: seconds since the last turn of the worker that has gone longest without one.
        success: seconds since the endpoint last answered with a 2xx; None before that.
        buckets: for each bound of `BUCKETS`, how many requests took no longer; the last is all.
        protocol: the dialect that is used: for ``"posthog"``, the one that the host supports.
    """

    counts: Mapping[str, int]
    connected: int
    workers: int
    held: int
    redelivered: int
    dead_letters: int
    stalled: float
    success: float | None
    buckets: tuple[int, ...]
    requests: int
    request_seconds: float
    dialect: str = ""
    protocol: str = ""


class Relay:
    """Delivers the messages of a queue, from `start` to `stop`."""

    def __init__(self, plan: Plan) -> None:
        self.ledger = Ledger()
        self._watch = _Watch(plan.transport)
        self._stop = threading.Event()
        self._started = monotonic()
        self._workers = [
            _Worker(plan, self.ledger, self._watch, self._stop, partial(self._may_take, number))
            for number in range(plan.workers)
        ]
        self._dialect = plan.dialect.name

    @property
    def protocol(self) -> str:
        """The dialect that is used; all workers share what is known about a host."""
        return self._workers[0].protocol

    def start(self) -> None:
        """Start the workers."""
        for worker in self._workers:
            worker.start()

    def stop(self, drain: float) -> bool:
        """
        Take no more messages, make one attempt to deliver those that are held, and end.

        Returns whether all workers ended within *drain* seconds; the others are left behind.
        """
        deadline = monotonic() + drain
        for worker in self._workers:
            worker.deadline = deadline
        self._stop.set()
        for worker in self._workers:
            worker.join(max(0.0, deadline + _GRACE - monotonic()))
        return not any(worker.is_alive() for worker in self._workers)

    def is_idle(self) -> bool:
        """Return whether the queue seems to be empty, and no worker holds a message."""
        return all(worker.idle for worker in self._workers)

    def _may_take(self, number: int) -> bool:
        """Return whether worker *number* may take messages: in an outage one may, in turn."""
        if self._watch.is_up:
            return True
        turn = int((monotonic() - self._started) / _SCOUT_FOR) % len(self._workers)
        return number == turn and not any(worker.busy for worker in self._workers)

    def state(self) -> State:
        """Return the state of this relay now."""
        now, watch, workers = monotonic(), self._watch, self._workers
        return State(
            self.ledger.counts,
            sum(worker.connected for worker in workers),
            len(workers),
            sum(worker.held for worker in workers),
            sum(worker.redelivered for worker in workers),
            sum(worker.dead_letters for worker in workers),
            now - min(worker.turned_at for worker in workers),
            None if watch.succeeded_at is None else now - watch.succeeded_at,
            watch.buckets(),
            watch.requests,
            watch.seconds,
            self._dialect,
            self.protocol,
        )


class _Worker(threading.Thread):
    """A consumer, a spool and a sender, and the thread that uses them."""

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
        self.busy = False  # whether it has events to send, now or later
        self.turned_at = monotonic()
        self.deadline = 0.0
        self._ledger = ledger
        self._stop_asked = stop
        self._may_take = may_take
        self._failures = 0
        self._consumer = engine_for(plan.address).consumer(plan.address, plan.intake)
        reader = Reader(plan.dialect)
        self._spool = BrokerSpool(self._consumer, reader, ledger, batch=plan.batch)
        # Everything is due at once: `BrokerSpool.fill` has waited for a full batch already.
        settings = Settings(flush_at=1, flush_interval=0.0, timeout=plan.timeout)
        self._sender = Sender(
            self._spool, plan.dialect, plan.endpoint, watch.transport(), ledger, settings
        )

    @property
    def protocol(self) -> str:
        """The dialect that is used for the endpoint."""
        return self._sender.protocol

    @property
    def held(self) -> int:
        """How many messages are not acknowledged."""
        return self._consumer.held

    @property
    def redelivered(self) -> int:
        """How many messages arrived that had been delivered before."""
        return self._spool.redelivered

    @property
    def dead_letters(self) -> int:
        """How many events became dead letters, or whole messages that could not be read."""
        return self._spool.dead_letters

    def run(self) -> None:
        """Take turns until the relay stops, whatever goes wrong."""
        while not self._stop_asked.is_set():
            sending_threads[threading.get_ident()] = 0.0  # no record of this thread is an event
            try:
                self._turn()
                self._failures = 0
            except BrokerError as error:
                self._reconnect(str(error))
            except Exception as error:  # of a client library; its text may quote the URL
                self._reconnect(type(error).__name__)
        self._finish()
        sending_threads.pop(threading.get_ident(), None)  # another thread may get this number

    def _turn(self) -> None:
        self.turned_at = monotonic()
        due = self._sender.due_in()
        take = self._spool.fill if self._may_take() else self._spool.idle_for
        intact = take(_TURN if due is None else min(due, _TURN))
        if not self.connected:
            self.connected = True
            if self._failures:
                self._ledger.recovered()
        if not intact:
            self._sender.rewind()
        self._sender.append(())
        self.idle = not self.held and self._consumer.caught_up
        self.busy = self._sender.waiting > 0
        while self._sender.step() and not self._stop_asked.is_set():
            self.turned_at = monotonic()
        self.busy = self._sender.waiting > 0

    def _reconnect(self, text: str) -> None:
        """Drop the connection and wait; the messages that were held are delivered again."""
        self.connected = self.idle = False  # whether the queue is empty is unknown now
        self._consumer.close()
        self._sender.rewind()
        if not self._stop_asked.is_set():
            self._ledger.warn(
                "broker",
                f"the relay waits for the broker: {text.removesuffix('.')}."
                " To do: posthog-logging doctor --broker looks for the cause",
            )
            self._failures += 1
            pause = min(_LONGEST_PAUSE, 0.25 * 2.0 ** min(self._failures, 10))
            end = monotonic() + pause
            while monotonic() < end and not self._stop_asked.wait(min(pause, _TURN)):
                self.turned_at = monotonic()

    def _finish(self) -> None:
        try:
            self._consumer.stop()
            self._sender.flush(self.deadline - monotonic(), bounded=True)
        except Exception as error:
            self._ledger.warn("broker", f"the relay ends without it: {type(error).__name__}")
        finally:
            self._sender.close()
            self.connected = False


# The endpoint is up, and refuses what it was sent.
_REFUSALS = frozenset({400, 413, 422})


class _Watch:
    """How long the requests of all workers took, and whether the endpoint is up."""

    def __init__(self, make: Callable[[], Transport]) -> None:
        self.requests = 0
        self.seconds = 0.0
        self.succeeded_at: float | None = None
        self.is_up = False
        self._make = make
        self._lock = threading.Lock()
        self._counts = [0] * (len(BUCKETS) + 1)

    def transport(self) -> Transport:
        """Return a transport whose requests are noted."""
        return _Watched(self._make(), self)

    def note(self, seconds: float, status: int | None) -> None:
        """Count a request."""
        with self._lock:
            self.requests += 1
            self.seconds += seconds
            self._counts[bisect_left(BUCKETS, seconds)] += 1
            if status is not None and 200 <= status < 300:
                self.succeeded_at = monotonic()
                self.is_up = True
            elif status not in _REFUSALS:
                self.is_up = False

    def buckets(self) -> tuple[int, ...]:
        """Return `State.buckets`."""
        return tuple(accumulate(self._counts))


class _Watched:
    """A transport that notes how long each request took."""

    def __init__(self, transport: Transport, watch: _Watch) -> None:
        self._transport = transport
        self._watch = watch

    def send(self, request: Request, timeout: float) -> Response:
        """Send *request*, and note how long that took."""
        started = monotonic()
        response = self._transport.send(request, timeout)
        self._watch.note(monotonic() - started, response.status)
        return response

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()
