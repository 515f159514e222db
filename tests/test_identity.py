"""An event is its own person's: what is bound later, or elsewhere, is somebody else's."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import logging.handlers
import queue
import threading
import time

from typing import Any

import pytest

from posthog_logging import Listener, MessageHandler, context
from posthog_logging.context import BindTime
from posthog_logging.events.records import NOBODY, bound_to


SOON = 30.0


def record(**attributes: Any) -> logging.LogRecord:
    """Return a record of this thread and this moment."""
    made = logging.LogRecord("tests", logging.INFO, __file__, 1, "played", (), None)
    made.__dict__.update(attributes)
    return made


@pytest.fixture(params=["ours", "MessageHandler"])
def deferred(request: Any, inspector: Any, make_handler: Any, make_log: Any) -> Any:
    """Return a logger, a `MemoryHandler` of two in front of it, and what was sent of it."""
    handler = make_handler()
    target: logging.Handler = handler
    listener = None
    if request.param == "MessageHandler":
        waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        target = MessageHandler(waiting)  # type: ignore[arg-type]
        listener = Listener(waiting, handler)
        listener.start()
    memory = logging.handlers.MemoryHandler(2, logging.CRITICAL, target)
    log = make_log(memory)

    def sent() -> list[Any]:
        memory.flush()
        if listener is not None:
            listener.stop()
        assert handler.flush(SOON)
        return list(inspector.events)

    return log, sent


def people(events: list[Any]) -> dict[str, str | None]:
    """Return who did what; None for nobody."""
    return {
        event.event: event.distinct_id
        if event.properties.get("$process_person_profile") is not False
        else None
        for event in events
    }


def test_who_comes_later_is_somebody_else(deferred: Any) -> None:
    """An event that waited while another person came is nobody's, and never the other's."""
    log, sent = deferred
    with context.identity("u1", plan="gold"):
        log.info("x", extra={"event": "first"})
    with context.identity("u2", plan="free"):
        log.info("x", extra={"event": "second"})
    events = sent()

    assert {"first": None, "second": "u2"} == people(events)
    assert [None, "free"] == [event.properties.get("plan") for event in events]


def test_who_comes_back_is_somebody_else(deferred: Any) -> None:
    """An event of an inner block is not the outer block's when that goes on."""
    log, sent = deferred
    with context.identity("outer"):
        with context.identity("inner"):
            log.info("x", extra={"event": "inside"})
        log.info("x", extra={"event": "after"})

    assert {"inside": None, "after": "outer"} == people(sent())


def test_one_person_after_the_other_in_a_thread_each(deferred: Any) -> None:
    """A record of another thread is not the person's in whose thread it is handed on."""
    log, sent = deferred

    def work() -> None:
        with context.identity("u1"):
            log.info("x", extra={"event": "elsewhere"})

    with context.identity("u2"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        log.info("x", extra={"event": "here"})

    assert {"elsewhere": None, "here": "u2"} == people(sent())


@pytest.mark.skipif(
    not hasattr(record(), "taskName"), reason="records know their task from Python 3.12 on"
)
def test_tasks_of_one_thread_are_different_people(deferred: Any) -> None:
    """A record of another task is not the person's in whose task it is handed on."""
    log, sent = deferred

    async def first(bound: asyncio.Event) -> None:
        await bound.wait()
        with context.identity("u1"):
            log.info("x", extra={"event": "of the first"})

    async def main() -> None:
        bound = asyncio.Event()
        task = asyncio.ensure_future(first(bound))
        with context.identity("u2"):
            bound.set()
            await task
            log.info("x", extra={"event": "of the second"})

    asyncio.run(main())

    assert {"of the first": None, "of the second": "u2"} == people(sent())


@pytest.mark.skipif(
    not hasattr(record(), "taskName"), reason="records know their task from Python 3.12 on"
)
def test_a_callback_is_nobodys_task(deferred: Any) -> None:
    """A record of no task is not the person's in whose task it is handed on."""
    log, sent = deferred

    async def main() -> None:
        called = asyncio.Event()

        def call() -> None:
            log.info("x", extra={"event": "of the callback"})
            called.set()

        with context.identity("u2"):
            asyncio.get_running_loop().call_soon(call, context=contextvars.Context())
            await called.wait()
            log.info("x", extra={"event": "of the task"})

    asyncio.run(main())

    assert {"of the callback": None, "of the task": "u2"} == people(sent())


def test_who_does_not_note_tasks_loses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``logging.logAsyncioTasks`` off, or with records of an old kind, the thread counts."""
    monkeypatch.setattr(logging, "logAsyncioTasks", False, raising=False)

    async def main() -> list[Any]:
        with context.identity("u1"):
            old = record()
            vars(old).pop("taskName", None)
            return [bound_to(one).distinct_id for one in (record(), old)]

    assert ["u1", "u1"] == asyncio.run(main())


def test_an_id_on_the_record_needs_no_context(deferred: Any) -> None:
    """Whoever gives the id has it, however late the record comes."""
    log, sent = deferred
    log.info("x", extra={"event": "first", "distinct_id": "u1"})
    with context.identity("u2"):
        log.info("x", extra={"event": "second", "distinct_id": "u3"})

    assert {"first": "u1", "second": "u3"} == people(sent())


def test_behind_a_stock_queue_nobody_is_known(
    inspector: Any, make_handler: Any, make_log: Any
) -> None:
    """The listener's thread may be bound to somebody: its records are not theirs."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = make_handler()
    log = make_log(logging.handlers.QueueHandler(waiting))  # type: ignore[arg-type]
    with context.identity("u1"):
        log.info("x", extra={"event": "played"})

    def listen() -> None:
        with context.identity("listener"):
            handler.handle(waiting.get(timeout=SOON))

    with context.identity("listener"):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(listen,))
        thread.start()
        thread.join()
    assert handler.flush(SOON)

    assert {"played": None} == people(inspector.events)


def test_threads_of_a_task_are_the_tasks(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """What `asyncio.to_thread` runs has its context, and its person."""
    handler = make_handler()
    log = make_log(handler)

    async def main() -> None:
        with context.identity("u1"):
            await asyncio.to_thread(log.info, "x", extra={"event": "played"})
            log.info("x", extra={"event": "stopped"})

    asyncio.run(main())
    assert handler.flush(SOON)

    assert {"played": "u1", "stopped": "u1"} == people(inspector.events)


def test_what_is_bound_in_addition_changes_nobody() -> None:
    """More properties do not make it another person's context."""
    with context.identity("u1"):
        made = record()
        context.bind(plan="gold")
        with context.identity(colour="red"):
            assert "u1" == bound_to(made).distinct_id
        assert ("u1", {"plan": "gold"}) == (
            bound_to(made).distinct_id,
            dict(bound_to(made).properties),
        )


def test_nothing_bound_is_nobody() -> None:
    """Without an identity a record has none."""
    assert NOBODY == bound_to(record())


@pytest.mark.parametrize("missing", ["thread", "process", "created", "taskName"])
def test_a_record_that_does_not_know_is_taken_at_its_word(missing: str) -> None:
    """Whoever switched off ``logging.logThreads`` and its like loses nobody."""
    with context.identity("u1"):
        assert "u1" == bound_to(record(**{missing: None})).distinct_id


@pytest.mark.parametrize(
    "elsewhere",
    [{"thread": 1}, {"process": 1}, {"taskName": "another"}, {"created": 1_000_000_000.0}],
    ids=lambda one: next(iter(one)),
)
def test_a_record_of_elsewhere_has_nobody(elsewhere: dict[str, Any]) -> None:
    """A record of another thread, process, task or time was not made in this context."""
    with context.identity("u1"):
        assert NOBODY == bound_to(record(**elsewhere))


def test_a_clock_that_was_set_back_costs_nobody() -> None:
    """A moment is compared by both clocks, so an hour back does not undo what is bound."""
    wall, steady = time.time(), time.monotonic()
    bound = BindTime(wall + 3600, steady - 5)  # five seconds ago, before the clock was set

    assert bound.is_before(wall)
    assert not bound.is_before(wall - 6)
    assert not BindTime(wall, steady).is_before(wall - 0.001)
    assert BindTime(wall, steady).is_before(wall)
