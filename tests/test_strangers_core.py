"""What strangers found when they used the delivery core in ways of their own."""

from __future__ import annotations

import logging
import queue
import threading
import time

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alarms import Raiser, alarms
from test_head_of_line import ANSWERS, adds_up, poisoned, run
from test_sender import Rig

from posthog_logging import Listener, MessageHandler, PostHogHandler


class Alarm(Exception):
    """What a signal handler raises: a soft time limit is an `Exception`, too."""


@pytest.fixture(params=["of two arguments", "of any arguments"])
def raiser(request: pytest.FixtureRequest) -> Iterator[Raiser]:
    """Signals that come every other millisecond, and raise an `Alarm` in `Raiser.during`."""
    made = Raiser(Alarm)

    def of_any_arguments(*arguments: Any) -> None:
        made(*arguments)

    with alarms(made if request.param == "of two arguments" else of_any_arguments, 0.002):
        yield made


# An alarm may also come in a finaliser, or in a hook of the garbage collector that Hypothesis has.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sync_mode": True},
        {"max_queue_size": 100, "overflow": "block"},
        {"spool": True},
    ],
    ids=["plain", "sync_mode", "block", "spool"],
)
def test_an_alarm_is_the_programs(
    options: dict[str, Any],
    raiser: Raiser,
    make_handler: Callable[..., PostHogHandler],
    make_log: Callable[..., logging.Logger],
    tmp_path: Path,
) -> None:
    """An `Exception` of a signal handler leaves the log call, and counts as no event's loss."""
    if "spool" in options:
        options = {"spool": tmp_path}
    handler = make_handler(**options)
    log = make_log(handler)
    logged: list[int] = []

    def log_one() -> None:
        log.info("ticked", extra={"distinct_id": "u", "properties": {"n": 1}})
        logged.append(1)

    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        raiser.during(log_one)
    assert handler.flush(10)
    counts = handler.counts
    assert {key for key in counts if counts[key]} <= {"accepted", "delivered", "retried"}
    assert len(logged) <= counts["delivered"] <= len(logged) + raiser.thrown
    assert raiser.thrown


@pytest.mark.parametrize("answer", ["reset", "503"])
def test_many_events_at_fault_hold_up_nobody(answer: str, transport: Any, clock: Any) -> None:
    """A hundred events that fail for ever, each alone by now, are tried after the innocent."""
    it = Rig(transport, clock)
    transport.default = poisoned(ANSWERS[answer])
    for _ in range(100):
        it.put(29, event="e")
        it.put(1, event="poison")
    run(it, 600.0)
    assert it.counts["delivered"] == 2900
    assert it.counts["waiting"] == 100
    assert adds_up(it)


def test_close_beside_a_thread_that_starts(
    make_handler: Callable[..., PostHogHandler], make_log: Callable[..., logging.Logger]
) -> None:
    """`close` raises nothing where another thread's event starts the handler again meanwhile."""
    handler = make_handler()
    log = make_log(handler)
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            log.info("went on", extra={"distinct_id": "u"})
            ended.wait(0.0005)

    others = [threading.Thread(target=go_on) for _ in range(4)]
    for other in others:
        other.start()
    end = time.monotonic() + 1.0
    try:
        while time.monotonic() < end:
            handler.close()
    finally:
        ended.set()
        for other in others:
            other.join()
    assert handler.flush(10)
    assert handler.counts["accepted"] == handler.counts["delivered"]


def test_a_listener_whose_stop_was_interrupted(
    raiser: Raiser,
    make_handler: Callable[..., PostHogHandler],
    make_log: Callable[..., logging.Logger],
) -> None:
    """Stopped again after an alarm, and started again, a `Listener` hears what comes."""
    heard = threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.wait(0.05)

    records: queue.Queue[Any] = queue.Queue()
    handler = make_handler()
    listener = Listener(records, Slow(), handler)
    log = make_log(MessageHandler(records))
    listener.start()
    log.info("before", extra={"distinct_id": "u"})
    raiser.during(listener.stop)
    assert raiser.thrown
    heard.set()
    listener.stop()
    listener.start()
    log.info("after", extra={"distinct_id": "u"})
    listener.stop()
    assert handler.flush(10)
    assert handler.counts["delivered"] == 2
