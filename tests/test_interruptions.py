"""
An exception that a signal handler throws costs no event, wherever it lands.

It is thrown at the first place of a call where CPython looks for signals, then at the second,
and so on until the call gets through: after every call into C, at the begin of each function
and at each jump back, in the package and in the standard library beneath it.
"""

from __future__ import annotations

import dis
import gc
import itertools
import json
import logging
import sys
import threading
import time

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import CodeType, FrameType, MappingProxyType
from typing import Any, NamedTuple

import pytest

from alarms import Raiser, alarms, needs_alarms

import posthog_logging

from posthog_logging import PostHogHandler
from posthog_logging.wire import Request, Response
from posthog_logging.wire.posthog import V0


PACKAGE = str(Path(posthog_logging.__file__).parent)
NOT_LOST = frozenset({"accepted", "delivered", "waiting", "retried", "adopted"})


class Thrown(BaseException):
    """What the signal handler raises."""


class Memory:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def send(self, request: Request, timeout: float) -> Response:
        self.bodies.append(request.body)
        return Response(200, body=b'{"results":{}}')

    def close(self) -> None:
        pass

    @property
    def numbers(self) -> list[int]:
        return [
            one["properties"]["number"]
            for body in self.bodies
            for one in json.loads(body)["batch"]
        ]


class Thrower:
    """Raises at the *count*-th place of this thread where CPython looks for signals."""

    # What CPython 3.11 executes just before it looks.
    LOOKS = frozenset(
        """CALL CALL_FUNCTION_EX RESUME JUMP_BACKWARD
        POP_JUMP_BACKWARD_IF_TRUE POP_JUMP_BACKWARD_IF_FALSE""".split()
    )

    def __init__(self, count: int, everywhere: bool) -> None:
        self._left = count
        self._everywhere = everywhere  # also at instructions where CPython does not look
        self._before: dict[int, str] = {}
        self._me = threading.get_ident()
        self.place = ""

    def concerns(self, code: CodeType) -> bool:
        """Return whether an interruption in *code* is one of the call's: not one of the test's."""
        name = code.co_filename
        if self._everywhere:
            return name.startswith(PACKAGE)
        return name != __file__ and not name.startswith("<")

    def count(self, frame: FrameType, operation: str) -> None:
        """Throw, if it is time to."""
        self._left -= 1
        if self._left == 0:
            code = frame.f_code
            self.place = f"{code.co_filename}:{frame.f_lineno} {code.co_name} {operation}"
            raise Thrown

    # Python 3.11: a tracer

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not self.concerns(frame.f_code):
            return None
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            operation = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            before = self._before.get(id(frame), "RESUME")
            self._before[id(frame)] = operation
            if self._everywhere or before in self.LOOKS:
                self.count(frame, operation)
        elif event == "return":
            self._before.pop(id(frame), None)
        return self.trace

    # From Python 3.12 on: monitoring. What a callback raises is raised by the instruction that
    # is being executed, as what a signal handler raises is. At the next one it would be too
    # late: from 3.14 on a ``with`` calls `__enter__` just before its block begins.

    def monitor(self, code: CodeType, offset: int, *details: Any) -> Any:
        """Count an instruction, or the begin or the return of a function."""
        if self.concerns(code) and threading.get_ident() == self._me:
            self.count(sys._getframe(1), dis.opname[code.co_code[offset]])

    def monitor_jump(self, code: CodeType, offset: int, target: int) -> Any:
        """Count a jump back."""
        if target < offset:
            self.monitor(code, offset)

    def _watched(self) -> dict[int, Callable[..., Any] | None]:
        """Return the events to watch, with their callbacks."""
        events = sys.monitoring.events
        if self._everywhere:
            return {events.INSTRUCTION: self.monitor}
        return {
            events.PY_START: self.monitor,
            events.PY_RESUME: self.monitor,
            events.CALL: None,  # without it there is no C_RETURN
            events.C_RETURN: self.monitor,
            events.JUMP: self.monitor_jump,
        }

    def _watch(self, watched: Mapping[int, Callable[..., Any] | None]) -> None:
        for event, callback in watched.items():
            sys.monitoring.register_callback(4, event, callback)

    def __enter__(self) -> Thrower:
        gc.disable()
        if sys.version_info >= (3, 12):
            watched = self._watched()
            sys.monitoring.use_tool_id(4, "interruptions")
            self._watch(watched)
            sys.monitoring.set_events(4, sum(watched) & ~sys.monitoring.events.C_RETURN)
        else:
            self._tracer = sys.gettrace()  # of what measures coverage
            sys.settrace(self.trace)
        return self

    def __exit__(self, *error: object) -> None:
        if sys.version_info >= (3, 12):
            sys.monitoring.set_events(4, 0)
            self._watch(dict.fromkeys(self._watched()))
            sys.monitoring.free_tool_id(4)
        else:
            sys.settrace(self._tracer)
        gc.enable()


log = logging.getLogger("interruptions")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    log.setLevel(logging.INFO)
    log.propagate = False
    own = logging.getLogger("posthog_logging")
    before, own.level = own.level, logging.CRITICAL
    yield
    log.handlers.clear()
    own.level = before


def event(number: int) -> None:
    log.info("e", extra={"distinct_id": "u", "properties": {"number": number}})


def general(number: int) -> None:
    log.info("e", extra={"event": "e", "distinct_id": "u", "number": number})


class Call(NamedTuple):
    """A call that is interrupted, on a handler with *options*, after so many events *before*."""

    run: Callable[[PostHogHandler], object]
    options: Mapping[str, Any] = MappingProxyType({})
    before: int = 3
    locks: bool = False  # whether it takes a lock


CALLS = {
    "log": Call(lambda handler: event(900)),
    "log in general": Call(lambda handler: general(900)),
    "log first": Call(lambda handler: event(900), before=0),
    "log with a hook": Call(lambda handler: event(900), {"before_send": lambda one: one}),
    "log where it is full": Call(lambda handler: event(900), {"max_queue_size": 3}),
    "log, drop oldest": Call(
        lambda handler: event(900), {"max_queue_size": 3, "overflow": "drop_oldest"}
    ),
    "log, block": Call(
        lambda handler: event(900),
        {"max_queue_size": 3, "overflow": "block", "block_timeout": 0.01},
    ),
    "log on disk": Call(lambda handler: event(900), {"spool": ""}),
    "log first on disk": Call(lambda handler: event(900), {"spool": ""}, before=0, locks=True),
    "log on disk, with care": Call(
        lambda handler: event(900), {"spool": "", "fsync": "always"}, locks=True
    ),
    "flush on disk": Call(lambda handler: handler.flush(5), {"spool": ""}, locks=True),
    "close on disk": Call(
        lambda handler: (handler.close(5), event(900)), {"spool": ""}, locks=True
    ),
    "counts on disk": Call(lambda handler: dict(handler.counts), {"spool": ""}, locks=True),
    "log in sync mode": Call(lambda handler: event(900), {"sync_mode": True}),
    "flush": Call(lambda handler: handler.flush(5)),
    "close": Call(lambda handler: handler.close(5)),
    "close and log": Call(lambda handler: (handler.close(5), event(900))),
    "counts": Call(lambda handler: dict(handler.counts)),
    "capture": Call(lambda handler: handler.capture("u", "e", {"number": 900})),
}


def interrupted(call: Call, count: int, everywhere: bool, folder: Path) -> str | None:
    """Interrupt *call* at one place and return what is wrong then; None where it got through."""
    transport = Memory()
    options = {
        name: (value if name != "spool" else folder) for name, value in call.options.items()
    }
    handler = PostHogHandler(
        "phc_x",
        "http://127.0.0.1:9",
        transport=transport,
        compression=None,
        flush_interval=60.0,
        flush_at=10**6,
        dialect=V0,
        **options,
    )
    log.handlers[:] = [handler]
    for number in range(call.before):
        event(number)
    thrower = Thrower(count, everywhere)
    try:
        with thrower:
            call.run(handler)
    except Thrown:
        pass
    else:
        handler.close(5)
        return None
    began = time.monotonic()
    event(901)  # sending goes on
    done = handler.flush(5)
    handler.close(5)
    took = time.monotonic() - began
    faults = list(faults_in(dict(handler.counts), transport.numbers, call))
    if not done or took > 4.0:
        faults.append(f"flush {done} after {took:.1f} s")
    return f"{thrower.place}: {'; '.join(faults)}" if faults else ""


def faults_in(counts: dict[str, int], arrived: list[int], call: Call) -> Iterator[str]:
    """Yield what is wrong with the ledger, or with what arrived."""
    lost = sum(count for reason, count in counts.items() if reason not in NOT_LOST)
    if counts["waiting"] or counts["accepted"] != counts["delivered"] + lost:
        yield f"the ledger does not add up: {counts}"
    if min(counts.values()) < 0 or len(arrived) != counts["delivered"]:
        yield f"{len(arrived)} arrived of {counts}"
    if len(arrived) != len(set(arrived)):
        yield f"twice: {arrived}"
    wanted = {*range(call.before), 901}
    if "max_queue_size" not in call.options and not wanted <= set(arrived):
        yield f"lost: {wanted - set(arrived)}"


def all_places(name: str, everywhere: bool, folder: Path) -> tuple[int, list[str]]:
    """
    Interrupt a call at each place; return how many there are and what is wrong.

    In a thread of its own: what is thrown where CPython never throws may leave an exception
    behind as the one that is being handled.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_all_places, name, everywhere, folder).result()


def _all_places(name: str, everywhere: bool, folder: Path) -> tuple[int, list[str]]:
    for _ in range(2):  # imports and caches first
        interrupted(CALLS[name], 10**9, everywhere, folder)
    wrong = []
    for count in range(1, 5000):
        found = interrupted(CALLS[name], count, everywhere, folder)
        if found is None:
            return count - 1, wrong
        if found:
            wrong.append(found)
    raise AssertionError("the call has no end")


@pytest.mark.parametrize("name", CALLS)
def test_an_interruption_costs_nothing(name: str, tmp_path: Path) -> None:
    """
    Wherever CPython looks for signals in a call, an exception thrown there costs no event.

    The ledger adds up, all events whose log call returned arrive once, and sending goes on.
    """
    places, wrong = all_places(name, False, tmp_path)

    assert [] == wrong
    assert places > 10


@pytest.mark.matrix
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if not call.locks])
def test_an_interruption_at_any_instruction(name: str, tmp_path: Path) -> None:
    """
    The same at each single instruction of the package, also where CPython does not look.

    Not of calls that take a lock: between the end of a ``with`` block and the release stand
    instructions that no handler covers, and at which CPython never looks.
    """
    places, wrong = all_places(name, True, tmp_path)

    assert [] == wrong
    assert places > 50


def log_for_ever(handler: Any, numbers: Iterator[int], returned: set[int]) -> None:
    """Log, and note which calls returned; flush and close in between."""
    for number in numbers:
        event(number)
        returned.add(number)
        if number % 50 == 0:
            handler.flush(5)
        if number % 400 == 0:
            handler.close(5)


@pytest.mark.matrix
@needs_alarms
@pytest.mark.parametrize("spool", [False, True], ids=["memory", "journal"])
@pytest.mark.timeout(180)
def test_real_signals(spool: bool, tmp_path: Path) -> None:
    """A signal handler that raises into log calls, flushes and closes, 100 times: no loss."""
    raiser = Raiser(Thrown)
    transport = Memory()
    handler = PostHogHandler(
        "phc_x",
        "http://127.0.0.1:9",
        transport=transport,
        compression=None,
        dialect=V0,
        spool=tmp_path if spool else None,
    )
    log.handlers[:] = [handler]
    returned: set[int] = set()
    numbers = itertools.count()
    for turn in range(100):
        with alarms(raiser, 0.0005 + turn % 10 * 0.0005):
            raiser.during(lambda: log_for_ever(handler, numbers, returned))
    assert handler.flush(10)
    handler.close(5)
    counts = dict(handler.counts)
    arrived = transport.numbers

    assert returned <= set(arrived)
    assert len(arrived) == len(set(arrived)) == counts["delivered"] == counts["accepted"]
    assert 0 == counts["waiting"]
