"""The steps before an exception: of its own context, bounded, and next to free."""

from __future__ import annotations

import asyncio
import contextvars
import datetime as dt
import json
import logging
import logging.handlers
import queue
import threading
import weakref

from collections.abc import Callable
from typing import Any

import pytest

from posthog_logging import Analytics, PostHogHandler, context
from posthog_logging.errors import steps
from posthog_logging.inspector import Inspector
from posthog_logging.structlog import PostHogProcessor


MakeHandler = Callable[..., PostHogHandler]
MakeLog = Callable[..., logging.Logger]


@pytest.fixture(autouse=True)
def _no_steps() -> Any:
    """Begin each test without the steps of others."""
    token = steps.begin_anew()
    yield
    steps.end(token)


def reports(handler: PostHogHandler, inspector: Inspector) -> list[Any]:
    """Return the exceptions that arrived."""
    assert handler.flush(10)
    assert [] == inspector.bad
    return [event for event in inspector.events if event.event == "$exception"]


def messages(event: Any) -> list[str]:
    """Return what an exception's steps say."""
    return [step["$message"] for step in event.properties.get("$exception_steps", [])]


@pytest.mark.parametrize("count", [1, 3, 5, 6, 7, 20])
def test_steps_of_a_copied_context(
    count: int, make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """A request's last steps are in its report, however many a copy of its context has put on."""
    handler = make_handler(exceptions=True, exception_steps=3)

    def view() -> None:
        for number in range(count):
            handler.accept({"event": f"row {number}"})

    handler.accept({"event": "request started"})
    contextvars.copy_context().run(view)
    steps.catch_up()
    make_log(handler).error("it failed", exc_info=ValueError())
    (report,) = reports(handler, inspector)

    expected = ["request started", *(f"row {number}" for number in range(count))]
    assert expected[-3:] == messages(report)


def test_steps(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """Records from INFO on, with their time, level, logger and some plain extras; the last N."""
    handler = make_handler(exceptions=True, exception_steps=3)
    log = make_log(handler)
    log.info("too long ago")
    log.info("cart %s opened", 7, extra={"items": 3, "cart": {"not": "plain"}, "gift": True})
    log.debug("below INFO")
    log.warning("card was slow")
    log.info("payment began")
    log.error("it failed", exc_info=ValueError())
    log.error("again", exc_info=ValueError())

    first, second = reports(handler, inspector)
    opened = first.properties["$exception_steps"][0]

    assert ["cart 7 opened", "card was slow", "payment began"] == messages(first)
    assert ["card was slow", "payment began", "it failed"] == messages(second)
    assert {
        "level": "INFO",
        "logger": log.name,
        "items": 3,
        "gift": True,
    }.items() <= opened.items()
    assert "cart" not in opened
    assert first.properties["$exception_steps"][0]["$timestamp"] < first.timestamp


def test_steps_are_as_they_were_logged(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """What is changed after a log call, as an argument or an extra, is a step as it was then."""
    handler = make_handler(exceptions=True, exception_steps=9)
    log = make_log(handler)
    cart, paid = ["A-1042"], {"eur": 12.9}
    log.info("cart %s", cart, extra={"order": "A-1042", "cart": cart})
    log.info("paid %(eur)s", paid)
    log.info("%s of %d", "x" * 5000, 3, extra={"note": "y" * 5000})
    log.info("%d %%", "no number")
    cart.append("A-1043")
    paid["eur"] = 0
    log.error("it failed", exc_info=ValueError())

    (event,) = reports(handler, inspector)
    found = event.properties["$exception_steps"]

    assert "cart ['A-1042']" == found[0]["$message"]
    assert ["A-1042", None] == [found[0].get(name) for name in ("order", "cart")]
    assert ["paid 12.9", "[unprintable message]"] == [found[at]["$message"] for at in (1, 3)]
    assert "x" * 900 in found[2]["$message"]
    assert (1024, 200) >= (len(found[2]["$message"]), len(found[2]["note"]))


def test_steps_hold_nothing(make_handler: MakeHandler, make_log: MakeLog) -> None:
    """Objects in arguments and extras are not kept alive by the steps of their context."""
    handler = make_handler(exception_steps=9)
    log = make_log(handler)

    class Cart:
        pass

    cart = Cart()
    gone = weakref.ref(cart)
    log.info("cart %s", cart, extra={"cart": cart, "order": 5})
    log.info("cart %s", 5, extra={f"cart{n}": cart for n in range(30)})
    del cart

    assert gone() is None


def test_a_few_extras_in_their_order(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """The first eight plain extras are kept, in the order of the log call."""
    handler = make_handler(exceptions=True, exception_steps=9)
    log = make_log(handler)
    log.info("few", extra={"b": 1, "plain": [], "a": 2.5})
    log.info("many", extra={"list": [], **{f"n{n}": n for n in range(20)}})
    log.error("it failed", exc_info=ValueError())

    (event,) = reports(handler, inspector)
    few, many = event.properties["$exception_steps"]

    assert ["b", "a"] == [*few][:2]
    assert [f"n{n}" for n in range(8)] == [*many][:8]
    assert "n8" not in many


def test_a_record_s_own_text(make_handler: MakeHandler, inspector: Inspector) -> None:
    """A class of records that formats otherwise is asked for its message."""

    class Braces(logging.LogRecord):
        def getMessage(self) -> str:
            return str(self.msg).format(*(self.args or ()))

    handler = make_handler(exception_steps=9)
    handler.handle(Braces("shop", logging.INFO, "", 1, "cart {} opened", (7,), None))
    handler.capture_exception(ValueError())

    (event,) = reports(handler, inspector)

    assert ["cart 7 opened"] == messages(event)


def test_none_by_default(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """Unless asked for, nothing is kept and nothing goes along."""
    handler = make_handler(exceptions=True)
    log = make_log(handler)
    log.info("a step")
    log.error("it failed", exc_info=ValueError())

    (event,) = reports(handler, inspector)

    assert "$exception_steps" not in event.properties
    assert handler.reporter.steps is None


def test_events_are_steps(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """Events are steps by their names, once each, whichever way they come."""
    handler = make_handler(exception_steps=9)
    log = make_log(handler, handler)
    analytics = Analytics(handler)
    log.info("page seen", extra={"distinct_id": "user-1", "properties": {}})
    log.info("told otherwise", extra={"event": "cart opened", "distinct_id": "user-1"})
    analytics.capture("user-1", "order placed")
    PostHogProcessor(handler)(None, "info", {"event": "order paid", "distinct_id": "user-1"})
    handler.capture_exception(ValueError())

    (event,) = reports(handler, inspector)

    assert ["page seen", "cart opened", "order placed", "order paid"] == messages(event)


def test_given_steps_win(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Steps of the caller's own are left as they are (sdk-specs ``exception-steps``)."""
    handler = make_handler(exception_steps=9)
    handler.accept({"event": "ours", "distinct_id": "user-1"})
    mine = [{"$message": "mine", "$timestamp": "2024-01-02T03:04:05Z"}]
    handler.capture_exception(ValueError(), properties={"$exception_steps": mine})

    (event,) = reports(handler, inspector)

    assert mine == event.properties["$exception_steps"]


def test_children_see_their_parents(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """A task sees what its creator did before, and adds nothing to the creator's or siblings'."""
    handler = make_handler(exceptions=True, exception_steps=9, exception_rate=None)
    log = make_log(handler)

    async def work(name: str) -> None:
        for turn in range(3):
            log.info("%s %d", name, turn)
            await asyncio.sleep(0)
        log.error(name, exc_info=ValueError())

    async def main() -> None:
        log.info("parent before")
        children = [asyncio.create_task(work(name)) for name in "abc"]
        await asyncio.gather(*children)
        log.info("parent after")
        log.error("parent", exc_info=ValueError())

    asyncio.run(main())
    found = {event.properties["message"]: messages(event) for event in reports(handler, inspector)}

    assert {
        **{name: ["parent before", *(f"{name} {n}" for n in range(3))] for name in "abc"},
        "parent": ["parent before", "parent after"],
    } == found


def test_threads_have_steps_of_their_own(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """Threads that log at once do not mix."""
    handler = make_handler(exceptions=True, exception_steps=50, exception_rate=None)
    log = make_log(handler)
    together = threading.Barrier(4)

    def work(name: str) -> None:
        together.wait(10)
        for _ in range(60):
            log.info("of %s", name)
        log.error(name, exc_info=ValueError())

    threads = [
        threading.Thread(target=contextvars.Context().run, args=(work, name)) for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {name: {f"of {name}"} for name in "abcd"} == {
        event.properties["message"]: set(messages(event)) for event in reports(handler, inspector)
    }


def test_behind_a_queue(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """What other threads have logged is no step of the thread that takes it out of a queue."""
    waiting: Any = queue.SimpleQueue()
    handler = make_handler(exceptions=True, exception_steps=9)
    log = make_log(logging.handlers.QueueHandler(waiting))

    def work() -> None:
        log.info("of another context")
        try:
            raise ValueError
        except ValueError:
            log.exception("it failed")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    while not waiting.empty():
        handler.handle(waiting.get())

    (event,) = reports(handler, inspector)

    assert [] == messages(event)


def test_what_came_later_is_no_step(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """A handler that keeps records hands them on when more was logged meanwhile."""
    handler = make_handler(exceptions=True, exception_steps=9)
    memory = logging.handlers.MemoryHandler(9, logging.CRITICAL, handler)
    kept, direct = make_log(memory), make_log(handler)
    direct.info("before")
    kept.info("kept, before")
    kept.error("it failed", exc_info=ValueError())
    kept.info("kept, later")
    direct.info("later")
    memory.flush()

    (event,) = reports(handler, inspector)

    assert {"before", "kept, before"} == set(messages(event))


@pytest.mark.parametrize("created", [None, "now", float("nan"), 1.7e12])
def test_a_record_without_a_time(
    created: Any, make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """A program's own record may have no time: it is no step, and its exception is reported."""
    handler = make_handler(exceptions=True, exception_steps=9)
    log = make_log(handler)
    log.info("before")
    step = log.makeRecord("it", logging.INFO, __file__, 1, "at no time", (), None)
    failure = (ValueError, ValueError(), None)
    report = log.makeRecord("it", logging.ERROR, __file__, 1, "it failed", (), failure)
    for record in (step, report):
        record.created = created
        log.handle(record)
    log.error("again", exc_info=ValueError())

    first, second = reports(handler, inspector)

    assert ["before"] == messages(first) == messages(second)
    assert dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(first.timestamp) < dt.timedelta(1)


def test_a_request_begins_anew(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """A request has no steps of what the server did before, and leaves none behind."""
    from posthog_logging.middleware.asgi import PostHogMiddleware

    handler = make_handler(exceptions=True, exception_steps=9, exception_rate=None)
    log = make_log(handler)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        log.info("in %s", scope["path"])
        await asyncio.sleep(0)
        log.error(scope["path"], exc_info=ValueError())

    async def nothing(*_: Any) -> Any:
        """Be a `receive` and a `send`."""

    async def main() -> None:
        served: Any = PostHogMiddleware(application)
        log.info("of the server")
        for path in ("/1", "/2"):  # as on one connection that is kept alive
            await served({"type": "http", "path": path, "headers": []}, nothing, nothing)
        log.error("server", exc_info=ValueError())

    asyncio.run(main())

    assert {"/1": ["in /1"], "/2": ["in /2"], "server": ["of the server"]} == {
        event.properties["message"]: messages(event) for event in reports(handler, inspector)
    }


def test_ten_thousand_steps(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """However many and long they are, 32 KiB of the newest go along, and memory is bounded."""
    handler = make_handler(exceptions=True, exception_steps=10_000)
    log = make_log(handler)
    for number in range(25_000):
        log.info("%d %s", number, "é" * 5000)
    handler.flush(10)
    log.error("it failed", exc_info=ValueError())

    (event,) = reports(handler, inspector)
    found = messages(event)

    assert 28 * 1024 < len(json.dumps(event.properties["$exception_steps"], ensure_ascii=False)
                           .encode()) <= 32 * 1024  # fmt: skip
    assert ["24998", "24999"] == [message.split()[0] for message in found[-2:]]
    trail = steps._trail.get()
    assert trail is not None
    assert len(list(steps._newest_first(trail))) <= 20_000


@pytest.mark.parametrize("most", [100_001, 10**39])
def test_too_many_steps(most: int) -> None:
    """More than can ever be sent is refused, as it would hold memory for nothing."""
    with pytest.raises(ValueError, match="exception_steps: must be at most 100000"):
        PostHogHandler("phc_test", exception_steps=most)


class Unsayable:
    """A value that cannot be told."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("message", "args", "expected"),
    [
        (Unsayable(), (), "[unprintable message]"),
        ("%d", ("x",), "[unprintable message]"),
        ("a\ud800b\0", (), "a\ufffdb\ufffd"),
        ("   ", (), None),
        ({"event": "x"}, (), "{'event': 'x'}"),
    ],
    ids=["unsayable", "bad arguments", "surrogates", "blank", "dict"],
)
def test_any_step(
    message: Any,
    args: Any,
    expected: str | None,
    make_handler: MakeHandler,
    inspector: Inspector,
) -> None:
    """Whatever is logged, nothing is raised, and the exception arrives."""
    handler = make_handler(exception_steps=9)
    fields = {"msg": message, "args": args, "levelno": 20, "thread": threading.get_ident()}
    handler.handle(logging.makeLogRecord(fields))
    handler.capture_exception(ValueError())

    (event,) = reports(handler, inspector)

    assert [expected] * (expected is not None) == messages(event)


def test_identity_blocks_are_no_requests(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Who is identified changes nothing about the steps (sdk-specs ``exception-steps``)."""
    handler = make_handler(exception_steps=9)
    with context.identity("user-1"):
        handler.accept({"event": "inside"})
    handler.capture_exception(ValueError())

    (event,) = reports(handler, inspector)

    assert ["inside"] == messages(event)
