"""
What is measured: each scenario drives one contender and yields figures as it gets them.

It runs in a fresh process. Figures come one by one, so that a contender that has to be
killed while it closes still shows what its calls cost.
"""

from __future__ import annotations

import resource
import threading
import time

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .contenders import Driven, floor


__all__ = ["SCENARIOS", "Figures", "Scenario", "Stage", "peak_growth"]

Figures = dict[str, float]
_RATE = 2000
_THREADS = 8


class Stage(NamedTuple):
    """One contender, set up and warm; *steer* speaks to the sink."""

    driven: Driven
    events: int
    hold: float
    steer: Callable[[str], object]


def _rss(field: str) -> float:
    """Return a field of this process's memory in MB; Linux knows, others only the peak."""
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith(field))
        return int(line.split()[1]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _forget_peak() -> float:
    """Make the peak start anew from what is in use now, and return that."""
    try:
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")
    except OSError:
        pass
    return _rss("VmRSS")


def peak_growth(before: float) -> float:
    """Return by how many MB memory grew at its highest since `_forget_peak`."""
    return max(0.0, _rss("VmHWM") - before)


def _timed(emit: Callable[[int], object], numbers: Sequence[int]) -> array[int]:
    """Call *emit* with each number; return what each call took, in nanoseconds."""
    clock = time.perf_counter_ns
    costs = array("q", bytes(8 * len(numbers)))
    for place, number in enumerate(numbers):
        start = clock()
        emit(number)
        costs[place] = clock() - start
    return costs


def _spread(costs: Sequence[int], prefix: str = "") -> Figures:
    """Return percentiles and the mean in microseconds."""
    ranked = sorted(costs)
    last = len(ranked) - 1
    spread = {
        f"{prefix}p{share}": ranked[round(last * float(share) / 100)] / 1000
        for share in ("50", "99", "99.9")
    }
    return {**spread, f"{prefix}mean": sum(ranked) / len(ranked) / 1000}


class _Effort:
    """Wall clock, CPU and memory since the first emit."""

    def __init__(self) -> None:
        self._rss = _forget_peak()
        self._cpu = time.process_time()
        self._start = time.perf_counter()

    def figures(self) -> Figures:
        """Return them as they stand."""
        return {
            "seconds": time.perf_counter() - self._start,
            "cpu": time.process_time() - self._cpu,
            "rss": peak_growth(self._rss),
        }


def _burst(stage: Stage) -> Iterator[Figures]:
    """As fast as one thread can, with the consumer running beside; then until all is delivered."""
    effort = _Effort()
    costs = _timed(stage.driven.emit, range(stage.events))
    yield {"emit_seconds": effort.figures()["seconds"]}
    stage.driven.finish()
    yield effort.figures()
    yield _spread(costs)


def _threads(stage: Stage) -> Iterator[Figures]:
    """The same from eight threads at once."""
    costs: list[array[int]] = []
    gate = threading.Barrier(_THREADS)

    def emit(first: int) -> None:
        gate.wait()
        costs.append(_timed(stage.driven.emit, range(first, stage.events, _THREADS)))

    workers = [threading.Thread(target=emit, args=(first,)) for first in range(_THREADS)]
    effort = _Effort()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    stage.driven.finish()
    yield effort.figures()
    yield _spread([cost for part in costs for cost in part])


def _paced(stage: Stage) -> Iterator[Figures]:
    """At 2,000 a second: what a call costs, and how late, after its due time, a caller is back."""
    clock = time.perf_counter_ns
    costs, lateness = array("q"), array("q")
    effort = _Effort()
    first = clock() + 1_000_000
    for number in range(stage.events):
        due = first + number * (10**9 // _RATE)
        time.sleep(max(0, due - clock()) / 10**9)
        start = clock()
        stage.driven.emit(number)
        end = clock()
        costs.append(end - start)
        lateness.append(end - due)
    stage.driven.finish()
    yield effort.figures()
    yield _spread(costs) | _spread(lateness, "wake_")


def _outage(stage: Stage) -> Iterator[Figures]:
    """The server answers 503 while events come in and for a while longer; then it recovers."""
    stage.steer("/mode/503")
    effort = _Effort()
    costs = _timed(stage.driven.emit, range(stage.events))
    yield _spread(costs)
    time.sleep(stage.hold)
    yield effort.figures()
    stage.steer("/mode/up")
    stage.driven.finish()
    yield effort.figures()


def _closing(mode: str) -> Callable[[Stage], Iterator[Figures]]:
    """Return the scenario: events, then at once `close`, with the server in *mode*."""

    def close(stage: Stage) -> Iterator[Figures]:
        stage.steer(f"/mode/{mode}")
        for number in range(stage.events):
            stage.driven.emit(number)
        start = time.perf_counter()
        stage.driven.close()
        yield {"seconds": time.perf_counter() - start}

    return close


def _foreign(stage: Stage) -> Iterator[Figures]:
    """
    Records that are no events: what the handler on the root logger costs all others.

    The difference is so small that two processes would not show it: here the floor is
    measured in between, in the same one.
    """
    chatter, null = stage.driven.chatter, floor()
    if chatter is None:
        return
    own, bare = array("q"), array("q")
    for first in range(0, stage.events, 100):
        numbers = range(first, first + 100)
        own += _timed(chatter, numbers)
        bare += _timed(null, numbers)
    spread = _spread(own)
    yield {**spread, "on_top": spread["p50"] - _spread(bare)["p50"]}


def _busy(stage: Stage) -> Iterator[Figures]:
    """Beside a thread that is busy in Python: who gives up the interpreter lock, waits for it."""
    over = threading.Event()

    def work() -> None:
        number = 0
        while not over.is_set():
            number = (number * 31 + 7) % 1_000_003

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    costs = _timed(stage.driven.emit, range(stage.events))
    over.set()
    worker.join()
    stage.driven.finish()
    yield _spread(costs)


def _flat(stage: Stage) -> Iterator[Figures]:
    """Ten thousand events and a flush, again and again: are the last as cheap as the first?"""
    step = min(10_000, stage.events)
    numbers = range(0, stage.events, step)
    means = []
    before = 0.0
    for first in numbers:
        costs = _timed(stage.driven.emit, range(first, first + step))
        stage.driven.finish()
        means.append(sum(costs) / step / 1000)
        if first == 0:
            before = _forget_peak()
        if first % (10 * step) == 0:
            stage.steer("/figures")  # lets the sink forget the bodies
    tail = means[-max(1, len(means) // 10) :]
    head = means[1 : 1 + len(tail)] or means
    yield {"first": _median(head), "last": _median(tail), "rss": peak_growth(before)}


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


@dataclass(frozen=True)
class Scenario:
    """
    One table.

    ``columns`` are figures and their headings; ``who`` takes part; ``big`` makes the
    rivals' bounded queues big, so that they lose nothing. ``least`` is how many events even
    a trial must have.
    """

    name: str
    title: str
    play: Callable[[Stage], Iterator[Figures]]
    count: int
    who: tuple[str, ...]
    columns: dict[str, str]
    big: bool = False
    mode: str = "up"
    least: int = 100


_SENDERS = tuple(
    """ours ours_fast ours_journal ours_fast_journal ours_fast_v0 posthog posthog_v0 segment
    sentry otel naive""".split()
)
_CLOSERS = tuple("ours ours_fast ours_fast_journal posthog segment sentry otel naive".split())
_ALL = ("nothing", "null", "unread", "capture", "capture_fast", *_SENDERS)
_LOGGERS = tuple("null ours ours_fast ours_journal ours_fast_journal unread naive".split())

_CALL = {"p50": "p50 µs", "p99": "p99 µs", "mean": "mean µs"}
_DONE = {"lost": "lost", "duplicates": "twice"}
_SENT = {"seconds": "all delivered s", "cpu_100k": "CPU s / 100,000 delivered"}
_WIRE = {"wire_each": "wire B / event", "requests": "requests"}

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "burst",
            "A burst of {count:,} from one thread",
            _burst,
            100_000,
            _ALL,
            {**_CALL, **_SENT, "rss": "memory MB", **_WIRE, **_DONE},
            big=True,
        ),
        Scenario(
            "threads",
            "A burst of {count:,} from eight threads",
            _threads,
            50_000,
            # Those that count show what threads make of a call that only takes longer than F.
            (*_ALL, "count_100", "count_200"),
            {**_CALL, **_SENT, **_DONE},
            big=True,
        ),
        Scenario(
            "paced",
            "{count:,} at 2,000 a second",
            _paced,
            6_000,
            _ALL,
            {
                **_CALL,
                "wake_p50": "due to return p50 µs",
                "wake_p99": "due to return p99 µs",
                "cpu": "CPU s",
                "requests": "requests",
                **_DONE,
            },
            big=True,
            least=1_000,
        ),
        Scenario(
            "latency",
            "{count:,} to a server that takes 50 ms to answer",
            _burst,
            20_000,
            _SENDERS,
            {"seconds": "all delivered s", "cpu": "CPU s", **_WIRE, **_DONE},
            big=True,
            mode="delay:0.05",
        ),
        Scenario(
            "defaults",
            "A burst of {count:,} with default options",
            _burst,
            100_000,
            _SENDERS,
            {"mean": "mean µs", "seconds": "all delivered s", "rss": "memory MB", **_DONE},
        ),
        Scenario(
            "outage",
            "{count:,} while the server answers 503, then it recovers; default options",
            _outage,
            60_000,
            _SENDERS,
            {
                "mean": "mean µs",
                "rss": "memory MB",
                "seconds": "until all settled s",
                "delivered": "delivered",
                **_DONE,
            },
        ),
        Scenario(
            "close_up",
            "close() after {count:,}, server up",
            _closing("up"),
            1_000,
            _CLOSERS,
            {"seconds": "s", **_DONE},
            least=1_000,
        ),
        Scenario(
            "close_down",
            "close() after {count:,}, connections refused",
            _closing("refuse"),
            1_000,
            _CLOSERS,
            {"seconds": "s"},
            least=1_000,
        ),
        Scenario(
            "close_hang",
            "close() after {count:,}, server accepts and never answers",
            _closing("hang"),
            1_000,
            _CLOSERS,
            {"seconds": "s"},
            least=1_000,
        ),
        Scenario(
            "foreign",
            "{count:,} records that are no events",
            _foreign,
            100_000,
            _LOGGERS,
            {**_CALL, "on_top": "p50 on top of a NullHandler µs"},
        ),
        Scenario(
            "busy",
            "A burst of {count:,} beside a thread that is busy in Python",
            _busy,
            20_000,
            _LOGGERS,
            {"p50": "p50 µs", "p99": "p99 µs", "p99.9": "p99.9 µs", "mean": "mean µs"},
        ),
        Scenario(
            "flat",
            "The first events and the last of {count:,}",
            _flat,
            1_000_000,
            ("null", "ours", "ours_fast", "ours_fast_journal"),
            {"first": "first µs", "last": "last µs", "rss": "memory MB", **_DONE},
            least=20_000,
        ),
    )
}
