"""A hook that logs is not called for what it logs itself: no log call recurses."""

from __future__ import annotations

import logging
import queue

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from posthog_logging import PostHogHandler, PostHogLogsHandler
from posthog_logging.handler import observe
from posthog_logging.listener import Listener, MessageHandler


log = logging.getLogger("tests.reentry")


class Hook:
    """A hook that logs an event, and returns *result*, or what it was given."""

    def __init__(self, result: Any = None) -> None:
        self.calls = 0
        self._result = result

    def __call__(self, given: Any) -> Any:
        self.calls += 1
        log.info("inner", extra={"distinct_id": "u"})
        return given if self._result is None else self._result


class Formatter(logging.Formatter):
    """A formatter that logs an event."""

    def __init__(self, hook: Hook) -> None:
        super().__init__()
        self._hook = hook

    def format(self, record: logging.LogRecord) -> str:
        return super().format(self._hook(record))


@pytest.fixture(name="made")
def _made(inspector: Any) -> Iterator[ExitStack]:
    """What ends with the test, before the *inspector* does."""
    log.setLevel(logging.INFO)
    log.propagate = False
    with ExitStack() as stack:
        stack.callback(lambda: log.handlers.clear())  # 3.14 may have another list by then
        yield stack


@pytest.fixture(name="make")
def _make(made: ExitStack, inspector: Any) -> Callable[..., Any]:
    """A maker of handlers of the logger."""

    def make(kind: Any = PostHogHandler, **options: Any) -> Any:
        handler = kind("phc_test", inspector.url, **options)
        made.callback(handler.close)
        log.addHandler(handler)
        return handler

    return make


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        *((PostHogHandler, option) for option in ("filter", "before_send", "sample", "observer")),
        *((PostHogLogsHandler, option) for option in ("filter", "before_send", "formatter")),
    ],
)
def test_a_hook_that_logs(kind: Any, option: str, make: Any, made: ExitStack) -> None:
    """It is called once, and both events arrive."""
    hook = Hook(1.0 if option == "sample" else None)
    handler = make(kind, **{option: hook} if option in ("before_send", "sample") else {})
    if option == "filter":
        handler.addFilter(hook)
    if option == "formatter":
        handler.setFormatter(Formatter(hook))
    if option == "observer":
        made.enter_context(observe(hook))
    log.info("outer", extra={"distinct_id": "u"})
    assert handler.flush(10.0)

    assert 1 == hook.calls
    assert 2 == handler.counts["accepted"] == handler.counts["delivered"]


def test_scrub_that_logs(make: Any, inspector: Any) -> None:
    """What it has not judged stays here while it logs, and is judged afterwards."""
    seen: list[str] = []

    def decide(key: str) -> bool:
        seen.append(key)
        log.info("inner", extra={"distinct_id": "u", "properties": {"colour": "red"}})
        return key == "shape"

    handler = make(scrub=decide)
    log.info("outer", extra={"distinct_id": "u", "properties": {"size": 1, "shape": "round"}})
    log.info("outer", extra={"distinct_id": "u", "properties": {"colour": "red"}})
    assert handler.flush(10.0)

    assert len(seen) == len(set(seen))
    by_name = [(event.event, event.properties) for event in inspector.events]
    (first, last) = (properties for name, properties in by_name if name == "outer")
    assert (1, "[scrubbed]") == (first["size"], first["shape"])
    assert "red" == last["colour"]
    assert "[scrubbed]" in {found["colour"] for name, found in by_name if name == "inner"}
    assert handler.counts["accepted"] == handler.counts["delivered"] == len(by_name)


def test_select_that_logs(make: Any) -> None:
    """What structlog's processor cannot ask about is an event if it has an id."""
    structlog = pytest.importorskip("structlog")
    from posthog_logging.structlog import PostHogProcessor

    calls: list[Any] = []

    def select(entry: Any) -> bool:
        calls.append(entry)
        logger.info("inner", distinct_id="u")
        logger.info("no event")
        return True

    handler = make()
    processors = [PostHogProcessor(handler, select=select), structlog.processors.JSONRenderer()]
    logger = structlog.wrap_logger(structlog.ReturnLogger(), processors=processors)
    logger.info("outer")

    assert 1 == len(calls)
    assert 2 == handler.counts["accepted"]


@pytest.mark.parametrize("option", ["filter", "formatter"])
def test_before_a_queue(option: str, make: Any) -> None:
    """The hooks of a `MessageHandler` are called once, too."""
    hook = Hook()
    handler = make()
    waiting: Any = queue.SimpleQueue()
    door = MessageHandler(waiting)
    if option == "filter":
        door.addFilter(hook)
    else:
        door.setFormatter(Formatter(hook))
    log.handlers[:] = [door]
    log.info("outer", extra={"distinct_id": "u"})
    listener = Listener(waiting, handler)
    listener.start()
    listener.stop()

    assert (1, 0) == (hook.calls, door.lost)
    assert 2 == handler.counts["accepted"]
