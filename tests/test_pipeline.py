"""The queue and its thread, with real threads, signals and interrupts; waits are on events."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import time
import uuid

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from alarms import alarms, needs_alarms

from posthog_logging.delivery.ledger import Ledger
from posthog_logging.delivery.pipeline import Pipeline
from posthog_logging.delivery.sender import Sender, Settings
from posthog_logging.delivery.spool import MemorySpool
from posthog_logging.events.message import Message
from posthog_logging.wire import Endpoint, Request, Response
from posthog_logging.wire.posthog import V0


SOON = 10.0  # seconds: what is to happen at once has happened by then, on any machine


class Gate:
    """An answer that waits until it is opened; `reached` tells that a request is inside."""

    def __init__(self, answer: Any = 200) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self._answer = answer

    def __call__(self, request: Request) -> Any:
        self.reached.set()
        assert self.open.wait(SOON)
        return self._answer


class Rig:
    """A pipeline, and what it is made of."""

    def __init__(self, transport: Any, **options: Any) -> None:
        self.transport = transport
        self.ledger = Ledger()
        self.changed = threading.Condition()
        names = ("flush_at", "flush_interval", "max_retries", "timeout")
        settings = {name: options.pop(name) for name in names if name in options}
        self.sender = Sender(
            MemorySpool(),
            V0,
            Endpoint("http://x", "phc_test", None),
            transport,
            self.ledger,
            Settings(**{"flush_at": 1, **settings}),
            on_error=options.pop("on_error", None),
            uniform=lambda low, high: low,
        )
        self.pipeline = Pipeline(self.sender, self.ledger, **{"linger": 0.0, **options})
        self._numbers = itertools.count(1)

    def put(self, count: int = 1) -> list[str]:
        """Put so many events; return the uuids of those that came in."""
        names = []
        for _ in range(count):
            name = str(uuid.UUID(int=next(self._numbers), version=4))
            line = V0.line(Message("e", "user-1", {}, name, "2024-01-02T03:04:05.678000Z"))
            if self.pipeline.put(line):
                names.append(name)
        return names

    @property
    def all_sent(self) -> list[list[str]]:
        requests = list(self.transport.requests)
        return [[one.uuid for one in V0.decode(request)] for request in requests]

    @property
    def flat(self) -> list[str]:
        return list(itertools.chain.from_iterable(self.all_sent))

    @property
    def counts(self) -> dict[str, int]:
        return {reason: count for reason, count in self.ledger.counts.items() if count}


def wait_for(condition: Callable[[], Any]) -> bool:
    """Poll until *condition* holds, or it is no longer soon."""
    deadline = time.monotonic() + SOON
    pause = threading.Event()
    while time.monotonic() < deadline:
        if condition():
            return True
        pause.wait(0.005)
    return False


def workers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "posthog-logging"]


@pytest.fixture
def rig(transport: Any) -> Iterator[Callable[..., Rig]]:
    """A maker of rigs, whose pipelines are closed in the end."""
    made = []

    def make(**options: Any) -> Rig:
        made.append(Rig(transport, **options))
        return made[-1]

    yield make
    transport.answers.clear()
    transport.default = 200
    for one in made:
        one.pipeline.close(1.0)


# The thread


def test_it_starts_with_the_first_event(rig: Any) -> None:
    """No thread before there is something to do; then one, and never a second."""
    wait_for(lambda: not workers())  # those of tests before this one may be about to end
    before = len(workers())
    it = rig()
    assert before == len(workers())

    it.put()
    assert wait_for(lambda: it.counts.get("delivered") == 1)
    it.put()
    assert wait_for(lambda: it.counts.get("delivered") == 2)
    assert before + 1 == len(workers())


def test_the_first_event_wakes_it(rig: Any) -> None:
    """A sleeping thread sends an event that is due at once, without a flush."""
    it = rig()
    for number in range(1, 6):
        it.put()
        assert wait_for(lambda number=number: it.counts.get("delivered") == number)


def test_the_interval_wakes_it(rig: Any) -> None:
    """What is below `flush_at` is sent when it is old enough."""
    it = rig(flush_at=100, flush_interval=0.05)
    it.put(3)

    assert wait_for(lambda: it.counts.get("delivered") == 3)
    assert 1 == len(it.transport.requests)


def test_a_burst_is_one_batch(rig: Any) -> None:
    """The thread lingers after the first event, so that a burst is not a request for each."""
    it = rig(linger=0.3)
    names = it.put(500)

    assert wait_for(lambda: it.counts.get("delivered") == 500)
    assert len(it.transport.requests) <= 2
    assert names == it.flat


def test_a_failed_batch_is_sent_by_the_timer(rig: Any) -> None:
    """A retry needs neither another event nor a flush."""
    it = rig()
    it.transport.script(503, 503)
    names = it.put(1)

    assert wait_for(lambda: it.counts.get("delivered") == 1)
    assert [names] * 3 == it.all_sent


def test_an_outage_does_not_stop_the_queue(rig: Any) -> None:
    """While it backs off, the thread goes on to take in what is put."""
    it = rig()
    it.transport.script(Response(503, {"retry-after": "30"}))
    it.put(1)
    assert wait_for(lambda: it.sender.due_in())
    it.put(10)

    assert wait_for(lambda: not it.pipeline.queue)
    assert {"accepted": 11, "waiting": 11} == it.counts


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_dead_thread_is_replaced(error: BaseException, rig: Any) -> None:
    """Whatever ends the thread, the next event starts another, and none is lost."""
    it = rig()
    it.transport.script(error)
    names = it.put(1)
    assert wait_for(lambda: it.transport.requests)
    names += it.put(1)
    if not isinstance(error, SystemExit):
        # It has ended, unless the second event has started another already.
        assert wait_for(lambda: not workers() or it.counts.get("delivered") == len(names))
        names += it.put(1)

    assert wait_for(lambda: it.counts.get("delivered") == len(names))
    assert sorted(names) == sorted(set(it.flat))


def test_callers_do_not_wait_for_the_server(rig: Any) -> None:
    """While a request hangs, 1,000 events are taken in no time."""
    gate = Gate()
    it = rig()
    it.transport.script(gate)
    it.put()
    assert gate.reached.wait(SOON)
    began = time.monotonic()
    it.put(1000)

    assert time.monotonic() - began < 1.0
    gate.open.set()
    assert it.pipeline.flush(SOON)


# Flush


def test_flush_is_a_barrier(rig: Any) -> None:
    """What a thread put before its flush has been attempted when the flush returns."""
    it = rig(flush_at=10_000, flush_interval=60.0)

    def work(number: int) -> bool:
        missed = []
        for _ in range(20):
            names = it.put(3)
            it.pipeline.flush(SOON)
            missed += set(names) - set(it.flat)
        return not missed

    with ThreadPoolExecutor(8) as pool:
        assert [True] * 8 == list(pool.map(work, range(8)))
    assert it.pipeline.flush(SOON)
    assert {1} == set(Counter(it.flat).values())
    assert {"accepted": 480, "delivered": 480} == it.counts


def test_flushes_take_turns(rig: Any) -> None:
    """Two flushes at once are one after the other: no batch is in two requests."""
    inside = threading.Semaphore(1)
    overlaps = []

    def alone(request: Request) -> int:
        if not inside.acquire(blocking=False):
            overlaps.append(request)
            return 200
        threading.Event().wait(0.002)
        inside.release()
        return 200

    it = rig(flush_at=10_000, flush_interval=60.0)
    it.transport.default = alone
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: (it.put(2), it.pipeline.flush(SOON)), range(30)))

    assert [] == overlaps
    assert {"accepted": 60, "delivered": 60} == it.counts


@pytest.mark.parametrize("timeout", [0.0, 0.1, -1.0, -0.5])
def test_a_flush_is_bounded(timeout: float, rig: Any) -> None:
    """A flush that does not get its turn in time returns False."""
    gate = Gate()
    it = rig()
    it.transport.script(gate)
    it.put()
    assert gate.reached.wait(SOON)
    began = time.monotonic()

    assert not it.pipeline.flush(timeout)
    assert time.monotonic() - began < 2.0
    gate.open.set()


def test_a_flush_may_wait_for_ever(rig: Any) -> None:
    """An endless time-out is none that raises."""
    it = rig()
    it.put()

    assert it.pipeline.flush(float("inf"))


def test_flush_without_events(rig: Any) -> None:
    """There is nothing to wait for, and nothing left: True."""
    assert rig().pipeline.flush(0.0)


@pytest.mark.parametrize("verb", ["flush", "close", "put"])
@pytest.mark.parametrize("where", ["thread", "flush"])
def test_on_error_may_call_back(verb: str, where: str, rig: Any) -> None:
    """Whatever the hook calls on the pipeline that called it, nothing waits for itself."""
    called = threading.Event()

    def hook(*args: Any) -> None:
        if not called.is_set():
            getattr(it.pipeline, verb)(*{"put": (b"{}",), "flush": (SOON,), "close": ()}[verb])
            called.set()

    it = rig(on_error=hook, flush_at=1 if where == "thread" else 1000, flush_interval=60.0)
    it.transport.script(418)
    began = time.monotonic()
    it.put()
    if where == "flush":
        it.pipeline.flush(SOON)

    assert called.wait(SOON)
    assert time.monotonic() - began < 3.0


# Bounds


def test_the_newest_gives_way(rig: Any) -> None:
    """By default a full queue refuses what comes, and counts it."""
    it = rig(max_queue_size=3, flush_at=100, flush_interval=60.0)
    names = it.put(5)

    assert 3 == len(names)
    assert {"accepted": 5, "waiting": 3, "queue_full": 2} == it.counts
    assert it.pipeline.flush(SOON)
    assert [names] == it.all_sent
    assert 3 == len(it.put(4))


def test_the_oldest_gives_way(rig: Any) -> None:
    """With ``drop_oldest`` the last ones are kept, whether they were taken in or not."""
    it = rig(max_queue_size=3, overflow="drop_oldest", flush_at=100, linger=60.0)
    names = it.put(10)
    it.pipeline.flush(SOON)

    assert [names[-3:]] == it.all_sent
    assert {"accepted": 10, "delivered": 3, "queue_full": 7} == it.counts


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_with_drafts_in_hand_costs_no_event(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a dead thread had in hand is its successor's; who waited learns of it."""
    (line,) = lines = [b'{"uuid":"00000000-0000-4000-8000-000000000001","event":"e"}']
    answers = iter([KeyboardInterrupt()])

    def finish(drafts: list[Any]) -> list[bytes]:
        for error in answers:
            raise error
        return lines * len(drafts)

    it = rig(flush_at=100, linger=60.0, finish=finish)
    died = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: died.set())
    assert it.pipeline.accept((line,))

    assert not it.pipeline.flush(SOON)
    assert died.wait(SOON)
    assert it.pipeline.flush(SOON)
    assert {"accepted": 1, "delivered": 1} == it.counts


def test_the_caller_gives_way(rig: Any) -> None:
    """With ``block`` the caller waits until there is room."""
    gate = Gate()
    it = rig(max_queue_size=2, overflow="block", block_timeout=SOON)
    it.transport.script(gate)
    it.put(2)
    assert gate.reached.wait(SOON)
    waiting = threading.Thread(target=it.put, args=(3,))
    waiting.start()
    gate.open.set()
    waiting.join(SOON)

    assert it.pipeline.flush(SOON)
    assert {"accepted": 5, "delivered": 5} == it.counts


def test_blocking_is_bounded(rig: Any) -> None:
    """A caller is blocked for `block_timeout` at most; then the event is counted."""
    gate = Gate()
    it = rig(max_queue_size=1, overflow="block", block_timeout=0.2)
    it.transport.script(gate)
    it.put()
    assert gate.reached.wait(SOON)
    began = time.monotonic()

    assert [] == it.put()
    assert 0.15 < time.monotonic() - began < 3.0
    assert 1 == it.counts["queue_full"]
    gate.open.set()


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
def test_bytes_are_bounded(overflow: str, rig: Any) -> None:
    """So many bytes wait and no more, in the queue and behind it."""
    it = rig(max_queue_bytes=1000, overflow=overflow, flush_at=10_000, flush_interval=60.0)
    it.put(50)
    size = len(V0.line(Message("e", "user-1", {}, str(uuid.uuid4()), "2024-01-02T03:04:05Z")))

    if overflow == "drop_oldest":  # the thread drops what it has, as soon as it runs
        assert wait_for(lambda: it.counts["waiting"] <= 1000 // size)
    assert 1000 // (size + 20) <= it.counts["waiting"] <= 1000 // size
    it.pipeline.flush(SOON)
    before = it.counts["delivered"]
    it.put(50)
    it.pipeline.flush(SOON)
    assert 2 * before == it.counts["delivered"]


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "block"])
def test_bounds_hold_under_threads(overflow: str, rig: Any) -> None:
    """Eight threads against a slow server: every event is delivered or counted."""
    it = rig(max_queue_size=50, overflow=overflow, block_timeout=0.01)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: it.put(100), range(16)))
    it.pipeline.close()

    counts = it.counts
    assert 1600 == counts["accepted"]
    assert 1600 == counts["delivered"] + counts.get("queue_full", 0)
    assert counts["delivered"] == len(it.flat) == len(set(it.flat))


# Close


def test_close_delivers(rig: Any) -> None:
    """What waits is sent, the thread ends, parts are closed, and a second close does nothing."""
    wait_for(lambda: not workers())  # those of tests before this one may be about to end
    before = len(workers())
    it = rig(flush_at=1000, flush_interval=60.0)
    names = it.put(5)
    it.pipeline.close()
    it.pipeline.close()

    assert [names] == it.all_sent
    assert before == len(workers())
    assert 1 == it.transport.closed


def test_closed_it_opens_again(rig: Any) -> None:
    """What comes later starts the thread again and is delivered."""
    of_others = workers()
    it = rig(flush_at=100, flush_interval=60.0)
    for number in range(1, 4):
        it.put(3)
        it.pipeline.close()
        assert {"accepted": 3 * number, "delivered": 3 * number} == it.counts
        assert number == it.transport.closed
    assert [] == [one for one in workers() if one not in of_others]


def test_close_against_threads(rig: Any) -> None:
    """Closed while eight threads log: every event is delivered or counted, none only waits."""
    it = rig()
    began = threading.Barrier(9)

    def work(_: int) -> None:
        began.wait(SOON)
        it.put(300)

    with ThreadPoolExecutor(8) as pool:
        done = pool.map(work, range(8))
        began.wait(SOON)
        it.pipeline.close()
        list(done)

    assert it.pipeline.flush(SOON)
    assert {"accepted": 2400, "delivered": 2400} == it.counts
    assert 2400 == len(set(it.flat)) == len(it.flat)


def test_close_tries_again(rig: Any) -> None:
    """A server that stumbles once does not cost the last events."""
    it = rig(flush_at=1000, flush_interval=60.0)
    it.transport.script(503)
    it.put(5)
    it.pipeline.close()

    assert {"accepted": 5, "delivered": 5, "retried": 5} == it.counts


def test_close_is_quick_when_the_server_is_down(rig: Any) -> None:
    """A few tries, then what is left is counted; not the whole time-out, nor silence."""
    it = rig(flush_at=1000, flush_interval=60.0, shutdown_timeout=60.0)
    it.transport.default = 503
    it.put(5)
    began = time.monotonic()
    it.pipeline.close()

    assert time.monotonic() - began < 5.0
    assert 5 == it.counts["shutdown"]


def test_close_is_bounded_when_the_server_hangs(rig: Any) -> None:
    """With a request that never ends, `close` returns in time, and counts for good."""
    gate = Gate()
    it = rig(shutdown_timeout=0.3)
    it.transport.script(gate)
    it.put(1)
    assert gate.reached.wait(SOON)
    it.put(4)
    began = time.monotonic()
    it.pipeline.close()

    assert time.monotonic() - began < 3.0
    assert {"accepted": 5, "shutdown": 5} == it.counts
    gate.open.set()
    for thread in workers():
        thread.join(SOON)
    assert {"accepted": 5, "delivered": 1, "shutdown": 4} == it.counts  # now it is known


def test_synchronous_sends_at_once(rig: Any) -> None:
    """In `synchronous` mode an event is delivered when `put` returns."""
    it = rig(synchronous=True, flush_at=1000, flush_interval=60.0)
    it.put(3)

    assert [1, 1, 1] == [len(one) for one in it.all_sent]


# Re-entrance


@needs_alarms
@pytest.mark.parametrize("size", [2, 200])
@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "block"])
def test_a_signal_handler_may_log(overflow: str, size: int, rig: Any) -> None:
    """A handler that logs amid a `put` or a `flush` of its own thread waits for nothing."""
    it = rig(max_queue_size=size, overflow=overflow, block_timeout=0.0005, flush_at=50)
    inside = []

    def handler(*_: Any) -> None:
        if not inside:  # signals of one handler nest without end where they come too fast
            inside.append(True)
            it.put(2)
            inside.clear()

    with alarms(handler, 0.0001):
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            it.put(5)
            it.pipeline.flush(0.05)
    it.pipeline.close()

    counts = it.counts
    assert counts["accepted"] == counts["delivered"] + counts.get("queue_full", 0)
    assert len(it.flat) == len(set(it.flat)) == counts["delivered"]


def test_a_finaliser_may_log(rig: Any) -> None:
    """``__del__`` may log whenever the collector runs: amid a `put`, a flush, in the thread."""
    it = rig(flush_at=50)

    class Dying:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            it.put()

    threshold = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for _ in range(500):
            Dying()
            it.put()
            it.pipeline.flush(1.0)
    finally:
        gc.set_threshold(*threshold)
        gc.collect()
    it.pipeline.close()

    assert 1000 == it.counts["accepted"] == it.counts["delivered"]


def test_a_thread_switch_anywhere(rig: Any) -> None:
    """With threads that switch all the time, counts stay exact."""
    it = rig()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: it.put(200), range(8)))
        it.pipeline.close()
    finally:
        sys.setswitchinterval(interval)

    assert 1600 == it.counts["accepted"] == it.counts["delivered"]
    assert 1600 == len(set(it.flat))


def test_close_right_after_the_first_event_delivers_from_a_disk(
    make_handler: Callable[..., Any], inspector: Any, tmp_path: Any
) -> None:
    """The thread, which has just begun, leaves the spool to whoever closes."""
    for _ in range(10):
        handler = make_handler(spool=tmp_path)
        handler.accept({"distinct_id": "user-1", "event": "movie played"})
        handler.close()

    assert 10 == inspector.counts()["good"]
