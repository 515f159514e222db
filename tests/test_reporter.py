"""Exceptions on their way to error tracking: who reports them, once each, and how many."""

from __future__ import annotations

import asyncio
import json
import logging
import logging.config
import logging.handlers
import os
import pickle
import queue
import subprocess
import sys
import threading
import zipfile

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from posthog_logging import (
    Analytics,
    Listener,
    MessageHandler,
    PostHogHandler,
    PostHogLogsHandler,
    context,
)
from posthog_logging.errors.exception_list import CONTEXT_FREE, MANUAL, middleware
from posthog_logging.errors.hooks import ExceptHooks
from posthog_logging.errors.reporter import Reporter
from posthog_logging.inspector import Inspector
from posthog_logging.structlog import PostHogProcessor
from posthog_logging.wire import Response


structlog = pytest.importorskip("structlog")


MakeHandler = Callable[..., PostHogHandler]
MakeLog = Callable[..., logging.Logger]


class PaymentError(Exception):
    """What goes wrong in these tests."""


def raised(error: BaseException) -> BaseException:
    """Return *error* as it was caught."""
    try:
        raise error
    except BaseException as caught:
        return caught


def sent(handler: PostHogHandler, inspector: Inspector) -> list[Any]:
    """Return the exceptions that arrived."""
    assert handler.flush(10)
    assert [] == inspector.bad
    return [event for event in inspector.events if event.event == "$exception"]


def mechanism(event: Any) -> dict[str, Any]:
    """Return the mechanism of the outermost exception, without its place in the tree."""
    found = dict(event.properties["$exception_list"][0]["mechanism"])
    assert 0 == found.pop("exception_id")
    return found


# Records


@pytest.mark.parametrize(
    ("exceptions", "reported"),
    [
        (False, []),
        (True, ["debug", "info", "warning", "error", "fatal"]),
        ("WARNING", ["warning", "error", "fatal"]),
        (logging.ERROR, ["error", "fatal"]),
    ],
    ids=["off", "on", "name", "number"],
)
def test_levels(
    exceptions: Any,
    reported: list[str],
    make_handler: MakeHandler,
    make_log: MakeLog,
    inspector: Inspector,
) -> None:
    """True reports each record with ``exc_info``, a level those from it on, False none."""
    handler = make_handler(exceptions=exceptions)
    log = make_log(handler)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        log.log(level, "it failed", exc_info=raised(PaymentError("card refused")))
        log.log(level, "it did not fail")

    events = sent(handler, inspector)

    assert reported == [event.properties["$exception_level"] for event in events]


@pytest.mark.parametrize("bad", ["LOUD", 1.5, None, [], ()], ids=repr)
def test_bad_level(bad: Any) -> None:
    """What is no level is refused by name."""
    with pytest.raises((TypeError, ValueError), match=r"^exceptions: "):
        PostHogHandler("phc_test", exceptions=bad)


@pytest.mark.parametrize("bad", [(0, 1), (1, -1), (1,), "ab", 7, (1.5, 1)], ids=repr)
def test_bad_rate(bad: Any) -> None:
    """What is no rate is refused by name."""
    with pytest.raises((TypeError, ValueError), match=r"^exception_rate: "):
        PostHogHandler("phc_test", exception_rate=bad)


def test_record(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """The event says what was raised, by which log call, and what its extras say."""
    handler = make_handler(exceptions=True)
    log = make_log(handler)
    try:
        raise PaymentError("card refused")
    except PaymentError:
        log.exception("charge %d failed", 7, extra={"order": "o-1", "groups": {"company": "acme"}})

    (event,) = sent(handler, inspector)
    properties = event.message.properties
    (entry,) = properties["$exception_list"]

    assert {
        "message": "charge 7 failed",
        "logger": log.name,
        "level": "ERROR",
        "module": "test_reporter",
        "function": "test_record",
        "order": "o-1",
        "$groups": {"company": "acme"},
        "$exception_level": "error",
        "$exception_source": "python.logging",
        "$exception_type": "PaymentError",
        "$exception_message": "card refused",
        "$process_person_profile": False,
    }.items() <= properties.items()
    assert properties["line"] > entry["stacktrace"]["frames"][-1]["lineno"]
    assert {"type": "logger", "handled": True, "synthetic": False} == mechanism(event)
    assert "test_record" == entry["stacktrace"]["frames"][-1]["function"]


def test_never_raised(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """What was never raised has the stack of its log call, unless a queue was between."""
    handler = make_handler(exceptions=True)
    make_log(handler).error("it failed", exc_info=PaymentError("here"))
    far = logging.makeLogRecord({"levelno": 40, "exc_info": PaymentError("far"), "thread": 0})
    handler.handle(far)

    here, there = (event.properties["$exception_list"][0] for event in sent(handler, inspector))

    assert (True, False) == (here["mechanism"]["synthetic"], there["mechanism"]["synthetic"])
    assert "test_never_raised" == here["stacktrace"]["frames"][-1]["function"]
    assert "stacktrace" not in there


def test_beside_the_event(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """A record that is an event stays one: two events, of one person, with two ids."""
    handler = make_handler(exceptions=True)
    log = make_log(handler)
    error = raised(PaymentError("card refused"))
    log.error(
        "charge failed",
        exc_info=error,
        extra={
            "distinct_id": "user-1",
            "properties": {"amount": 7},
            "uuid": "e-1",
            "set": {"a": 1},
        },
    )
    log.info("movie played", extra={"distinct_id": "user-1", "properties": {}})
    handler.flush()

    first, second, third = inspector.wait(count=3)

    assert ["$exception", "charge failed", "movie played"] == [
        first.event,
        second.event,
        third.event,
    ]
    assert ["user-1"] * 3 == [first.distinct_id, second.distinct_id, third.distinct_id]
    assert [7, 7] == [first.properties["amount"], second.properties["amount"]]
    assert first.uuid != second.uuid
    assert "$set" not in first.properties
    assert "$exception_list" not in second.properties


@pytest.mark.parametrize(
    ("bound", "extra", "expected"),
    [
        (None, {"distinct_id": "user-1"}, "user-1"),
        ("user-2", {}, "user-2"),
        ("user-2", {"distinct_id": "user-1"}, "user-1"),
    ],
    ids=["record", "context", "record wins"],
)
def test_identity(
    bound: str | None,
    extra: dict[str, Any],
    expected: str,
    make_handler: MakeHandler,
    make_log: MakeLog,
    inspector: Inspector,
) -> None:
    """It happened to whom the record names, else to who is bound in the context."""
    handler = make_handler(exceptions=True)
    with context.identity(bound, plan="gold"):
        make_log(handler).error("it failed", exc_info=raised(PaymentError()), extra=extra)

    (event,) = sent(handler, inspector)

    assert (expected, "gold") == (event.distinct_id, event.properties["plan"])
    assert "$process_person_profile" not in event.properties


OWNED = {
    "$exception_list": "smuggled",
    "$exception_level": "smuggled",
    "$exception_source": "smuggled",
    "$exception_handled": "smuggled",
    "$exception_type": "smuggled",
}


@pytest.mark.parametrize("way", ["extra", "properties", "context", "handler"])
def test_owned_keys(way: str, make_handler: MakeHandler, inspector: Inspector) -> None:
    """No property of a caller's sets what is the library's, wherever it comes from."""
    handler = make_handler(exceptions=True, properties=OWNED if way == "handler" else None)
    said = {"properties": OWNED} if way == "properties" else OWNED if way == "extra" else {}
    record = logging.makeLogRecord(
        {"levelno": 1, "exc_info": raised(PaymentError()), "handled": "yes", **said}
    )
    with context.identity(None, **(OWNED if way == "context" else {})):
        handler.handle(record)
        handler.capture_exception(raised(PaymentError()), CONTEXT_FREE, None, OWNED)

    logged, captured = sent(handler, inspector)

    assert "smuggled" not in json.dumps([logged.properties, captured.properties])
    assert "python.logging" == logged.properties["$exception_source"]
    assert "yes" == logged.properties["handled"]
    assert "$exception_source" not in captured.properties


def test_before_send(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """The events' hook sees exceptions, too, and may drop them."""
    seen = []

    def hook(event: dict[str, Any]) -> Any:
        seen.append(event["event"])
        return None if event["properties"]["$exception_type"] == "ValueError" else event

    handler = make_handler(exceptions=True, before_send=hook)
    log = make_log(handler)
    log.error("it failed", exc_info=ValueError())
    log.error("it failed", exc_info=PaymentError())

    (event,) = sent(handler, inspector)

    assert "PaymentError" == event.properties["$exception_type"]
    assert ["$exception"] * 2 == seen
    assert 1 == handler.counts["before_send"]


def test_filters(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """The handler's filters decide over exceptions, too, and are asked once a record."""
    asked = []

    def passes(record: logging.LogRecord) -> bool:
        asked.append(record.getMessage())
        return record.getMessage() != "internal"

    handler = make_handler(exceptions=True)
    handler.addFilter(passes)
    log = make_log(handler)
    log.error("internal", exc_info=PaymentError())
    log.error("public", exc_info=PaymentError(), extra={"distinct_id": "user-1"})

    (event,) = sent(handler, inspector)

    assert "public" == event.properties["message"]
    assert ["internal", "public"] == asked


def test_own_records(make_handler: MakeHandler, inspector: Inspector) -> None:
    """What the library says of itself is not reported, nor are records of its requests."""
    handler = make_handler(exceptions=True)
    for name in ("posthog_logging", "posthog_logging.part"):
        handler.handle(
            logging.makeLogRecord({"name": name, "levelno": 40, "exc_info": PaymentError()})
        )

    assert [] == sent(handler, inspector)
    assert 0 == handler.counts["accepted"]


def test_records_of_the_sending_thread(
    transport: Any, make_handler: MakeHandler, make_log: MakeLog
) -> None:
    """An exception that the transport logs, in whichever thread it sends, feeds nothing."""
    handler = make_handler(exceptions=True, transport=transport, logs=True)
    log = make_log(handler)

    def answer(request: Any) -> Response:
        log.error("of the connection pool", exc_info=PaymentError())
        return Response(200, body=b'{"results":{}}')

    transport.default = answer
    log.error("it failed", exc_info=PaymentError(), extra={"distinct_id": "user-1"})

    assert handler.flush(10)
    logs: Any = handler.logs
    assert (2, 1) == (handler.counts["delivered"], logs.counts["delivered"])
    assert (2, 1) == (handler.counts["accepted"], logs.counts["accepted"])


def test_opted_out(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """Opted out, nothing is reported, nor marked as if it were."""
    handler = make_handler(exceptions=True)
    log = make_log(handler)
    error = raised(PaymentError())
    handler.opt_out()
    log.error("it failed", exc_info=error)
    before = handler.capture_exception(error)
    handler.opt_in()
    log.error("it failed again", exc_info=error)

    (event,) = sent(handler, inspector)

    assert before is None
    assert "it failed again" == event.properties["message"]
    assert 1 == handler.counts["accepted"]


def test_no_key(make_log: MakeLog) -> None:
    """Without a key nothing is computed, and nothing raises."""
    handler = PostHogHandler(exceptions=True, logs=True)
    make_log(handler).error("it failed", exc_info=PaymentError())

    assert handler.capture_exception(PaymentError()) is None
    assert handler.logs is None
    assert 0 == handler.counts["accepted"]
    handler.close()


# Records that a queue has changed


def texts(handler: PostHogHandler, waiting: Any) -> None:
    """Hand over what is in the queue, as another process would get it."""
    while not waiting.empty():
        handler.handle(pickle.loads(pickle.dumps(waiting.get())))


@pytest.mark.parametrize("kind", [logging.handlers.QueueHandler, MessageHandler])
def test_after_a_queue(
    kind: Any, make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """Of the text that a `QueueHandler` leaves, what it says is reported, as synthetic."""
    waiting: Any = queue.SimpleQueue()
    log = make_log(kind(waiting))
    handler = make_handler(exceptions=True)
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise PaymentError("card\nrefused") from error
    except PaymentError:
        log.exception("charge failed", extra={"order": "o-1"})
    log.error("nothing was raised")
    texts(handler, waiting)

    (event,) = sent(handler, inspector)
    outer, inner = event.properties["$exception_list"]

    assert ("PaymentError", "card\nrefused") == (outer["type"], outer["value"])
    assert ("KeyError", "cause") == (inner["type"], inner["mechanism"]["source"])
    assert {"type": "logger", "handled": True, "synthetic": True} == mechanism(event)
    assert ("charge failed", "o-1") == (event.properties["message"], event.properties["order"])


def test_exc_text(make_handler: MakeHandler, inspector: Inspector) -> None:
    """What a `SocketHandler` leaves in ``exc_text`` is reported."""
    error = raised(PaymentError("card refused"))
    record = logging.makeLogRecord({"msg": "charge failed", "levelno": 40, "levelname": "ERROR"})
    record.exc_info = (type(error), error, error.__traceback__)
    payload = logging.handlers.SocketHandler("127.0.0.1", 1).makePickle(record)
    handler = make_handler(exceptions=True)
    handler.handle(logging.makeLogRecord(pickle.loads(payload[4:])))

    (event,) = sent(handler, inspector)

    assert "PaymentError" == event.properties["$exception_type"]
    assert "charge failed" == event.properties["message"]


def test_a_message_is_no_traceback(make_handler: MakeHandler, make_log: MakeLog) -> None:
    """A caller's own message that quotes a traceback is a message."""
    handler = make_handler(exceptions=True)
    make_log(handler).error("Traceback (most recent call last):\nValueError: no")

    assert 0 == handler.counts["accepted"]


def test_through_a_listener(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """Behind a `Listener` the handler's exceptions work the same."""
    waiting: Any = queue.SimpleQueue()
    handler = make_handler(exceptions="ERROR")
    listener = Listener(waiting, handler)
    listener.start()
    make_log(MessageHandler(waiting)).error("it failed", exc_info=raised(PaymentError("no")))
    listener.stop()

    (event,) = sent(handler, inspector)

    assert "no" == event.properties["$exception_message"]


# Captured by hand


def test_capture(make_handler: MakeHandler, inspector: Inspector) -> None:
    """A handled exception is reported with its own properties, and its uuid is returned."""
    handler = make_handler()
    error = raised(PaymentError("card refused"))

    name = handler.capture_exception(error, MANUAL, "user-1", {"handled": "x", "area": "pay"})
    (event,) = sent(handler, inspector)

    assert (name, "user-1") == (event.uuid, event.distinct_id)
    assert {"handled": "x", "area": "pay", "$exception_level": "error"}.items() <= (
        event.properties.items()
    )
    assert {"type": "generic", "handled": True, "synthetic": False} == mechanism(event)
    assert "$exception_source" not in event.properties


def test_capture_the_current_one(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Without an argument it is the exception that is being handled."""
    analytics = Analytics(make_handler())
    try:
        raise PaymentError("card refused")
    except PaymentError:
        name = analytics.capture_exception(distinct_id="user-1")

    (event,) = sent(analytics.handler, inspector)

    assert (name, "user-1") == (event.uuid, event.distinct_id)
    assert "card refused" == event.properties["$exception_message"]


@pytest.mark.parametrize("value", ["a text", None, 7, {"a": 1}, ValueError, object], ids=repr)
def test_capture_no_exception(value: Any, make_handler: MakeHandler, inspector: Inspector) -> None:
    """What is no exception is reported as one, with the stack of who reported it."""
    handler = make_handler()
    handler.capture_exception(value)

    (event,) = sent(handler, inspector)
    (entry,) = event.properties["$exception_list"]

    assert mechanism(event)["synthetic"]
    assert "test_capture_no_exception" == entry["stacktrace"]["frames"][-1]["function"]


def test_fingerprint(make_handler: MakeHandler, inspector: Inspector) -> None:
    """The caller's own grouping is kept."""
    handler = make_handler()
    handler.capture_exception(PaymentError(), properties={"$exception_fingerprint": "mine"})

    (event,) = sent(handler, inspector)

    assert "mine" == event.properties["$exception_fingerprint"]


@pytest.mark.parametrize("properties", ["text", 7, [("a", 1)]], ids=repr)
def test_capture_bad_properties(
    properties: Any, make_handler: MakeHandler, inspector: Inspector
) -> None:
    """Properties that are no mapping cost nothing but their form."""
    handler = make_handler()
    handler.capture_exception(PaymentError(), properties=properties)

    (event,) = sent(handler, inspector)

    assert json.loads(json.dumps(properties)) == event.properties["properties"]


def test_span(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """The ids of OpenTelemetry's active span go along."""
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    handler = make_handler(exceptions=True)
    with trace.TracerProvider().get_tracer("tests").start_as_current_span("work") as span:
        make_log(handler).error("it failed", exc_info=PaymentError())

    (event,) = sent(handler, inspector)

    assert f"{span.get_span_context().trace_id:032x}" == event.properties["$trace_id"]
    assert f"{span.get_span_context().span_id:016x}" == event.properties["$span_id"]
    assert "$trace_flags" not in event.properties


# Once each


class Slotted(Exception):
    """An exception that forbids attributes."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


@pytest.mark.parametrize(
    "error", [PaymentError("no"), KeyError("no"), OSError(2, "no"), Slotted("no")], ids=repr
)
def test_once(
    error: Exception, make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """An exception that is met again on its way up is not reported again."""
    handler = make_handler(exceptions=True)
    log = make_log(handler)
    try:
        try:
            try:
                raise error
            except Exception:
                log.warning("inner", exc_info=True)
                raise
        except Exception as caught:
            first = handler.capture_exception(caught, middleware("asgi.middleware"))
            raise
    except Exception as caught:
        log.exception("outer")
        second = handler.capture_exception(caught)

    (event,) = sent(handler, inspector)

    assert "inner" == event.properties["message"]
    assert event.uuid == first == second


def test_once_a_handler(make_handler: MakeHandler, make_log: MakeLog) -> None:
    """Two handlers, as of two projects, report it both; a wrapper around it is another one."""
    one, other = make_handler(exceptions=True), make_handler(exceptions=True)
    log = make_log(one, other)
    error = raised(PaymentError())
    log.error("it failed", exc_info=error)
    wrapper = RuntimeError()
    wrapper.__cause__ = error
    log.error("so this did", exc_info=raised(wrapper))

    assert (2, 2) == (one.counts["accepted"], other.counts["accepted"])


def test_once_among_threads(make_handler: MakeHandler) -> None:
    """Many that wait for one result catch the one exception, and one of them reports it."""
    handler = make_handler(flush_interval=60.0)
    error = raised(PaymentError())
    together = threading.Barrier(8)

    def report(_: int) -> str | None:
        together.wait(10)
        return handler.capture_exception(error)

    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(report, range(8)))

    assert 1 == len(names)
    assert 1 == handler.counts["accepted"]


def test_a_dropped_report_leaves_no_mark(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """Where the first report of an exception is dropped, the next who meets it reports it."""
    seen: list[Any] = []

    def drops_the_first(event: dict[str, Any]) -> Any:
        seen.append(event)
        return event if len(seen) > 1 else None

    handler = make_handler(exceptions=True, before_send=drops_the_first)
    error = raised(PaymentError("no"))
    make_log(handler).error("first", exc_info=error)
    first = handler.capture_exception(error)

    (event,) = sent(handler, inspector)

    assert event.uuid == first == handler.capture_exception(error)
    assert 1 == handler.counts["before_send"]


def test_a_report_that_was_held_back_leaves_no_mark(clock: Any) -> None:
    """Neither does the rate: when there is room again, the exception is reported."""
    held_back: list[str] = []
    reporter = Reporter(
        lambda said, created, bound: str(said["uuid"]),
        lambda reason, detail: held_back.append(reason),
        lambda: False,
        rate=(1, 1.0),
        clock=clock,
    )
    error = raised(PaymentError("no"))
    reporter.capture(raised(PaymentError("takes the token")))

    assert reporter.capture(error) is None
    assert reporter.capture(error) is None
    clock.advance(1.0)
    assert reporter.capture(error) is not None
    assert ["rate_limited"] * 2 == held_back


def test_raised_again(make_handler: MakeHandler, make_log: MakeLog) -> None:
    """One exception object that is raised three times is three failures, within the rate."""
    kept = PaymentError("kept by a module")
    handler = make_handler(exceptions=True, exception_rate=(2, 0))
    log = make_log(handler)
    for _ in range(3):
        try:
            raise kept
        except PaymentError:
            log.exception("it failed")
            log.warning("and was met again", exc_info=True)

    # The third is held back both times that it is met: it bears no mark.
    assert (4, 2) == (handler.counts["accepted"], handler.counts["rate_limited"])


def test_nothing_on_the_exception(make_handler: MakeHandler, make_log: MakeLog) -> None:
    """Neither an exception nor a record shows anything of ours."""
    handler = make_handler(exceptions=True, exception_messages=True)
    seen: list[logging.LogRecord] = []
    handler.addFilter(lambda record: seen.append(record) or True)
    error = raised(PaymentError("no"))
    make_log(handler).error("it failed", exc_info=error)
    make_log(handler).error("it failed")

    assert {} == vars(error)
    assert all(set(vars(one)) == set(vars(logging.makeLogRecord({}))) for one in seen)


def test_a_mark_travels(make_handler: MakeHandler) -> None:
    """An exception that was reported can still be pickled, and says what it said."""
    error = PaymentError("card refused")
    make_handler().capture_exception(error)

    copy = pickle.loads(pickle.dumps(error))

    assert ("card refused",) == copy.args


# How bad, and whose


@pytest.mark.parametrize(
    ("level", "expected"),
    [("warning", "warning"), (logging.CRITICAL, "fatal"), ("shiny", "error"), (None, "error")],
)
def test_capture_level(
    level: Any, expected: str, make_handler: MakeHandler, inspector: Inspector
) -> None:
    """A level may be given by name or number; one that is not known is the boundary's."""
    analytics = Analytics(make_handler())
    analytics.capture_exception(PaymentError(), level=level)

    (event,) = sent(analytics.handler, inspector)

    assert expected == event.properties["$exception_level"]


def test_in_app(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Modules that are included or excluded decide; the nearer name wins, whole names count."""
    code = compile("def go(): 1/0", __file__, "exec")
    ours = {}
    for module in ("shop", "shop.vendor", "shop.vendor.ours", "shopping", "other.deep"):
        names: dict[str, Any] = {"__name__": module}
        exec(code, names)
        handler = make_handler(
            in_app_include=["shop.vendor.ours"], in_app_exclude=["shop.vendor", "other"]
        )
        try:
            names["go"]()
        except ZeroDivisionError as error:
            handler.capture_exception(error)
        assert handler.flush(10)
        event = inspector.events[-1]
        frames = event.properties["$exception_list"][0]["stacktrace"]["frames"]
        ours[module] = frames[-1]["in_app"]

    assert {
        "shop": True,
        "shop.vendor": False,
        "shop.vendor.ours": True,
        "shopping": True,
        "other.deep": False,
    } == ours


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"in_app_include": "shop"}, "in_app_include"),
        ({"in_app_exclude": [1]}, "in_app_exclude"),
        ({"exception_steps": -1}, "exception_steps"),
        ({"exception_steps": True}, "exception_steps"),
        ({"exception_messages": "yes"}, "exception_messages"),
        ({"exception_messages": True}, "exception_messages"),
        ({"trace": 1}, "trace"),
    ],
)
def test_bad_options(options: dict[str, Any], name: str) -> None:
    """What an option cannot be is refused by its name."""
    with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
        PostHogHandler("phc_test", **options)


# Keys


KEY = "phc_keyOfThisProject"
OTHER = "phx_aPersonalKeyThatIsNotOurs"


def test_keys_are_masked(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector, tmp_path: Path
) -> None:
    """Keys in source lines, messages and steps stay here; a write key that is known does, too."""
    source = f"handler = Handler('{KEY}', other='{OTHER}')\ndef go():\n    raise OSError('x{KEY}')"
    names: dict[str, Any] = {"__name__": "keys"}
    path = tmp_path / "keys.py"
    path.write_text(source)
    exec(compile(source, str(path), "exec"), {"Handler": lambda *a, **b: None} | names, names)
    PostHogHandler("segmentWriteKey", dialect="segment", send=False).close()
    handler = make_handler(KEY, exceptions=True, exception_steps=5)
    log = make_log(handler)
    log.info("configured with %s", KEY, extra={"key": "segmentWriteKey"})
    try:
        names["go"]()
    except OSError as error:
        log.exception("with %s and segmentWriteKey it failed", OTHER)
        handler.capture_exception(KeyError(KEY).with_traceback(error.__traceback__))

    events = sent(handler, inspector)
    text = json.dumps([event.properties for event in events])

    assert 2 == len(events)
    assert [] == [key for key in (KEY, OTHER, "segmentWriteKey") if key in text]
    assert "Handler('[masked]', other='[masked]')" in text
    assert "raise OSError('x[masked]')" in text
    assert "configured with [masked]" in text


def test_all_secrets_among_the_options_are_masked(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """The key of pseudonyms undoes them, and a password is one, wherever the source shows it."""
    options: dict[str, Any] = {
        "dialect": "posthog-v0",
        "pseudonymise": (iter(["email"]), b"pseudonym-key"),
        "proxies": {"https": "http://u:proxy-password@proxy.example:1"},
        "headers": {"X-Api-Key": "gate-key"},
        "auth": ("user", "auth-password"),
        "logs": {"api_key": "logs-key", "send": False},
    }
    handler = make_handler(exceptions=True, **options)
    broker = "memory://u:broker%2Dpassword@tests"
    PostHogHandler(broker=broker, send=False).close()
    PostHogLogsHandler("lone-logs-key", pseudonymise={"a": "logs-pseudonym"}, send=False).close()
    secrets = """pseudonym-key proxy-password gate-key auth-password logs-key broker%2Dpassword
    broker-password lone-logs-key logs-pseudonym""".split()
    make_log(handler).error("failed", exc_info=ValueError(" ".join(secrets)))

    (event,) = sent(handler, inspector)
    assert " ".join(["[masked]"] * len(secrets)) == event.properties["$exception_list"][0]["value"]


# Errors that are only logged


def test_messages(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """An error that is only logged is reported: by logger and message, with its log call."""
    handler = make_handler(exceptions="WARNING", exception_messages=True)
    log = make_log(handler)
    log.warning("gateway %s is down", "a", extra={"order": "o-1"})
    log.error("gateway %s is down", "b")
    log.info("nothing is wrong")

    warning, error = sent(handler, inspector)
    (entry,) = error.properties["$exception_list"]

    assert {
        "$exception_type": log.name,
        "$exception_message": "gateway b is down",
        "$exception_level": "error",
        "$exception_source": "python.logging",
        "message": "gateway b is down",
    }.items() <= error.properties.items()
    assert ("warning", "o-1") == (
        warning.properties["$exception_level"],
        warning.properties["order"],
    )
    assert {"type": "logger", "handled": True, "synthetic": True} == mechanism(error)
    (frame,) = entry["stacktrace"]["frames"]
    assert ("test_messages", __name__) == (frame["function"], frame["module"])
    assert 'log.error("gateway %s is down", "b")' == frame["context_line"].strip()
    assert (
        error.properties["$exception_fingerprint"]
        == (warning.properties["$exception_fingerprint"])
    )


def test_fingerprints(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """The template and the logger group, not what it was filled in with; a given one wins."""
    handler = make_handler(exceptions=True, exception_messages=True)
    one, other = make_log(handler), make_log(handler)
    for log, template in ((one, "%s is down"), (one, "%s is up"), (other, "%s is down")):
        log.error(template, "a")
        log.error(template, "b")
    one.error("mine", extra={"$exception_fingerprint": "of my own"})

    prints = [event.properties["$exception_fingerprint"] for event in sent(handler, inspector)]

    assert "of my own" == prints.pop()
    assert prints[::2] == prints[1::2]
    assert 3 == len(set(prints))


def test_messages_once(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """Each record once, however many loggers have the handler; what was raised is no message."""
    handler = make_handler(exceptions="ERROR", exception_messages=True)
    log = make_log(handler)
    child = log.getChild("inner")
    child.addHandler(handler)
    error = raised(PaymentError("no"))
    child.error("only logged")
    child.error("raised", exc_info=error)
    child.error("met again", exc_info=error)
    child.exception("nothing was raised")

    messages = [event.properties["message"] for event in sent(handler, inspector)]
    child.handlers.clear()

    assert ["only logged", "raised", "nothing was raised"] == messages


def test_messages_are_rated(make_handler: MakeHandler, make_log: MakeLog) -> None:
    """A storm of one logger is held back, and another logger's goes."""
    handler = make_handler(exceptions=True, exception_messages=True, exception_rate=(3, 0))
    loud, quiet = make_log(handler), make_log(handler)
    for number in range(100):
        loud.error("storm %d", number)
    quiet.error("one")
    quiet.warning("below ERROR, where exceptions=True")

    assert (101, 97) == (handler.counts["accepted"], handler.counts["rate_limited"])


@pytest.mark.parametrize(
    "record",
    [
        {"msg": "no place", "pathname": "/nowhere.py", "lineno": 0},
        {"msg": "%d", "args": ("no number",)},
        {"msg": None},
        {"msg": 7, "name": ""},
        {"msg": "x" * 100_000},
        {"msg": "\ud800\0"},
        {"msg": {"event": "of structlog"}},
        {"msg": "from another thread", "thread": 0},
        {"msg": "formatted by a queue", "args": None},
        {"msg": "an event", "distinct_id": "user-1", "properties": {"a": 1}},
    ],
    ids=lambda record: str(record["msg"])[:20],
)
def test_any_message(
    record: dict[str, Any], make_handler: MakeHandler, inspector: Inspector
) -> None:
    """Whatever an error's record is, it is reported, and the server takes the event."""
    handler = make_handler(exceptions=True, exception_messages=True)
    fields = {"levelno": 40, "levelname": "ERROR", "thread": threading.get_ident(), **record}
    handler.handle(logging.makeLogRecord(fields))

    (event,) = sent(handler, inspector)

    assert event.properties["$exception_type"]
    assert len(event.properties["$exception_message"]) <= 8192
    assert "internal_error" not in handler.counts


def test_structlog_messages(make_handler: MakeHandler, inspector: Inspector) -> None:
    """structlog's errors are reported, too, under the logger that they name."""
    handler = make_handler(exceptions=True, exception_messages=True)
    tap = PostHogProcessor(handler)
    tap(None, "error", {"event": "gateway is down", "logger": "shop", "order": "o-1"})
    tap(None, "critical", {"event": "gateway is down"})
    tap(None, "warning", {"event": "slow"})

    first, second = sent(handler, inspector)

    assert ("shop", "o-1") == (first.properties["$exception_type"], first.properties["order"])
    assert ("structlog", "fatal") == (
        second.properties["$exception_type"],
        second.properties["$exception_level"],
    )
    assert "structlog.processor" == first.properties["$exception_source"]


def test_structlog_identity(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """Whom a structlog program has bound is whom an exception happened to, unless we know."""
    handler = make_handler(exceptions=True)
    log = make_log(handler)
    with structlog.contextvars.bound_contextvars(distinct_id="of structlog"):
        log.error("it failed", exc_info=PaymentError())
        with context.identity("ours"):
            log.error("it failed", exc_info=PaymentError())
    log.error("it failed", exc_info=PaymentError())

    first, second, third = sent(handler, inspector)

    assert ("of structlog", "ours") == (first.distinct_id, second.distinct_id)
    assert third.properties["$process_person_profile"] is False


def test_structlog_identity_of_an_exception_that_waited(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """Whom structlog has bound when a kept record is handed on may be somebody else."""
    handler = make_handler(exceptions=True)
    memory = logging.handlers.MemoryHandler(9, logging.CRITICAL, handler)
    log = make_log(memory)
    with structlog.contextvars.bound_contextvars(distinct_id="first"):
        log.error("failed", exc_info=ValueError("one"))
    with structlog.contextvars.bound_contextvars(distinct_id="second"):
        memory.flush()

    (event,) = sent(handler, inspector)
    assert event.properties["$process_person_profile"] is False


# Storms


def test_rate(clock: Any) -> None:
    """Of one type, so many at once and so many a second; others have a rate of their own."""
    taken: list[str] = []
    refused: list[tuple[str, str]] = []

    def take(said: Any, created: float, bound: Any) -> str:
        taken.append(said["properties"]["$exception_type"])
        return str(said["uuid"])

    reporter = Reporter(
        take,
        lambda reason, detail: refused.append((reason, detail)),
        lambda: False,
        rate=(2, 0.5),
        clock=clock,
    )

    names = [reporter.capture(ValueError(n)) for n in range(5)]
    reporter.capture(KeyError())
    clock.advance(2.0)
    reporter.capture(ValueError("later"))
    reporter.capture(ValueError("too many"))

    assert ["ValueError", "ValueError", "KeyError", "ValueError"] == taken
    assert [("rate_limited", "ValueError")] * 4 == refused
    assert [False, False, True, True, True] == [name is None for name in names]


def test_held_back_is_counted(make_handler: MakeHandler, make_log: MakeLog) -> None:
    """A storm is held back before it costs anything, counted, and told of once."""
    handler = make_handler(exceptions=True, exception_rate=(3, 0.0))
    log = make_log(handler)
    told: list[logging.LogRecord] = []
    own = logging.getLogger("posthog_logging")
    ear = logging.Handler()
    ear.emit = lambda record: told.append(record)  # type: ignore[method-assign]
    own.addHandler(ear)
    for number in range(1000):
        log.error("it failed", exc_info=PaymentError(number))
    again = PaymentError("held back")
    log.error("it failed", exc_info=again)
    own.removeHandler(ear)
    handler.flush()

    counts = handler.counts

    assert (1001, 3, 998) == (counts["accepted"], counts["delivered"], counts["rate_limited"])
    assert 1 == len(told)
    assert handler.capture_exception(again) is None


def test_texts_are_held_back(make_handler: MakeHandler, make_log: MakeLog) -> None:
    """An exception that is only text counts under its own type."""
    waiting: Any = queue.SimpleQueue()
    log = make_log(logging.handlers.QueueHandler(waiting))
    handler = make_handler(exceptions=True, exception_rate=[1, 0])
    for error in (PaymentError(), PaymentError(), ValueError()):
        log.error("it failed", exc_info=raised(error))
    texts(handler, waiting)

    assert (3, 1) == (handler.counts["accepted"], handler.counts["rate_limited"])


def test_no_rate(make_handler: MakeHandler) -> None:
    """None takes them all."""
    handler = make_handler(exception_rate=None, flush_interval=60.0)

    assert all(handler.capture_exception(ValueError()) for _ in range(50))


# structlog


@pytest.fixture
def tapped(make_handler: MakeHandler) -> Iterator[tuple[PostHogHandler, Any]]:
    """A handler and a structlog logger with a processor that feeds it."""
    handler = make_handler(exceptions="WARNING")
    tap = PostHogProcessor(handler)
    log = structlog.wrap_logger(
        structlog.PrintLogger(open(os.devnull, "w")),  # noqa: SIM115 - structlog's to keep
        processors=[
            structlog.processors.add_log_level,
            tap,
            structlog.processors.KeyValueRenderer(),
        ],
        wrapper_class=structlog.BoundLogger,
        cache_logger_on_first_use=False,
    )
    yield handler, log
    log._logger._file.close()


FORMS: dict[str, Callable[[], dict[str, Any]]] = {
    "True": lambda: {"exc_info": True},
    "exception": lambda: {"exc_info": sys.exc_info()[1]},
    "tuple": lambda: {"exc_info": sys.exc_info()},
}


@pytest.mark.parametrize("form", [*FORMS, "method"])
def test_structlog(form: str, tapped: Any, inspector: Inspector) -> None:
    """structlog's ``exc_info`` is reported in each of its forms, though the entry is no event."""
    handler, log = tapped
    try:
        raise PaymentError("card refused")
    except PaymentError:
        if form == "method":
            log.bind(user="x").exception("charge failed", order="o-1")
        else:
            log.bind(user="x").error("charge failed", order="o-1", **FORMS[form]())

    (event,) = sent(handler, inspector)

    assert {
        "$exception_source": "structlog.processor",
        "$exception_level": "error",
        "message": "charge failed",
        "level": "error",
        "order": "o-1",
        "user": "x",
    }.items() <= event.properties.items()
    assert {"type": "logger", "handled": True, "synthetic": False} == mechanism(event)


def test_structlog_levels(tapped: Any, inspector: Inspector) -> None:
    """The level counts there, too; an entry that is an event stays one beside."""
    handler, log = tapped
    log.info("below", exc_info=raised(PaymentError("below")))
    log.critical("above", exc_info=raised(PaymentError("above")), distinct_id="user-1")
    log.error("nothing was raised", exc_info=None)

    (event,) = sent(handler, inspector)

    assert ("above", "user-1") == (event.properties["$exception_message"], event.distinct_id)
    assert "fatal" == event.properties["$exception_level"]
    assert ["$exception", "above"] == [one.event for one in inspector.events]


def test_structlog_formatted(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Behind ``format_exc_info`` there is text, which is reported as synthetic."""
    handler = make_handler(exceptions=True)
    entry = {"event": "charge failed", "exc_info": raised(PaymentError("card refused"))}
    formatted = structlog.processors.format_exc_info(None, "error", entry)
    PostHogProcessor(handler)(None, "error", formatted)

    (event,) = sent(handler, inspector)

    assert {"type": "logger", "handled": True, "synthetic": True} == mechanism(event)
    assert "card refused" == event.properties["$exception_message"]
    assert "exception" not in event.properties


@pytest.mark.parametrize("way", ["kwargs", "formatter"])
def test_structlog_through_logging(
    way: str, make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """An entry that goes on to `logging` is reported by the handler there, once."""
    last: dict[str, Any] = {
        "kwargs": structlog.stdlib.render_to_log_kwargs,
        "formatter": structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    }
    source = {"kwargs": "python.logging", "formatter": "structlog.processor"}
    handler = make_handler(exceptions=True)
    log = structlog.wrap_logger(
        make_log(handler), processors=[last[way]], wrapper_class=structlog.stdlib.BoundLogger
    )
    try:
        raise PaymentError("card refused")
    except PaymentError:
        log.exception("charge failed", order="o-1", distinct_id="user-1")

    (event,) = sent(handler, inspector)

    assert ("user-1", "o-1") == (event.distinct_id, event.properties["order"])
    assert source[way] == event.properties["$exception_source"]
    assert "charge failed" == event.properties["message"]


# Middlewares


def failing_wsgi(environ: Any, start_response: Any) -> Any:
    raise PaymentError("card refused")


def test_wsgi(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """What escapes two layers and is then logged is reported once, by the inner one."""
    from posthog_logging.middleware.wsgi import PostHogMiddleware

    handler = make_handler(exceptions=True)
    inner = PostHogMiddleware(failing_wsgi, handler=handler)
    served = PostHogMiddleware(inner, handler=handler)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/pay", "HTTP_X_POSTHOG_DISTINCT_ID": "u-1"}
    with pytest.raises(PaymentError) as caught:
        served(environ, lambda *_: None)
    make_log(handler).error("500", exc_info=caught.value)

    (event,) = sent(handler, inspector)

    assert {"type": "middleware", "handled": False, "synthetic": False} == mechanism(event)
    assert "wsgi.middleware" == event.properties["$exception_source"]
    assert ("u-1", "/pay") == (event.distinct_id, event.properties["$request_path"])


def test_asgi(make_handler: MakeHandler, inspector: Inspector) -> None:
    """An exception that escapes an asynchronous application is reported and raised."""
    from posthog_logging.middleware.asgi import PostHogMiddleware

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise PaymentError("card refused")

    handler = make_handler()
    served: Any = PostHogMiddleware(application, handler=handler)
    with pytest.raises(PaymentError):
        asyncio.run(served({"type": "http", "path": "/", "headers": []}, None, None))

    (event,) = sent(handler, inspector)

    assert {"type": "middleware", "handled": False, "synthetic": False} == mechanism(event)
    assert "asgi.middleware" == event.properties["$exception_source"]


def test_celery(make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector) -> None:
    """A task's failure is reported once, though Celery logs it as well."""
    celery = pytest.importorskip("celery")
    from posthog_logging.middleware.celery import connect

    handler = make_handler(exceptions=True)
    connect(handler)
    app = celery.Celery("tests", broker="memory://", backend="cache+memory://")
    root = logging.getLogger()
    root.addHandler(handler)
    trace = logging.getLogger("celery.app.trace")
    trace.addHandler(handler)

    @app.task(name="pay")  # type: ignore[untyped-decorator, unused-ignore]
    def pay() -> None:
        raise PaymentError("card refused")

    try:
        result = pay.apply()
    finally:
        trace.removeHandler(handler)
        connect(None)

    (event,) = sent(handler, inspector)

    assert result.failed()
    assert {"type": "task", "handled": False, "synthetic": False} == mechanism(event)
    assert "celery.task_failure" == event.properties["$exception_source"]


# What nobody catches


UNCAUGHT = """
import sys, threading
from posthog_logging import PostHogHandler

def before(kind, error, traceback):
    print("before", kind.__name__)

sys.excepthook = before
handler = PostHogHandler("phc_test", sys.argv[1], exceptions=True, exception_hooks=True)

def fail():
    raise ValueError("in a thread")

threading.excepthook = (lambda ours: lambda args: (ours(args), print("on top")))(
    threading.excepthook
)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
{ending}
"""


@pytest.mark.parametrize(
    ("ending", "status", "said", "expected"),
    [
        ("raise KeyError('the end')", 1, "before KeyError", ["ValueError", "KeyError"]),
        ("raise KeyboardInterrupt", 130, "before KeyboardInterrupt", ["ValueError"]),
        ("sys.exit(3)", 3, "", ["ValueError"]),
    ],
    ids=["exception", "interrupt", "exit"],
)
def test_uncaught(
    ending: str, status: int, said: str, expected: list[str], inspector: Inspector
) -> None:
    """What ends a thread or the program is delivered, and the hooks of others still run."""
    done = subprocess.run(
        [sys.executable, "-c", UNCAUGHT.replace("{ending}", ending), inspector.url],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        check=False,
    )

    assert status in (done.returncode, 128 - done.returncode)
    assert f"on top\n{said}".strip() == done.stdout.strip()
    assert "ValueError: in a thread" in done.stderr
    assert expected == [event.properties["$exception_type"] for event in inspector.events]
    assert {
        "ValueError": ("error", False, "python.threading_excepthook"),
        "KeyError": ("fatal", False, "python.sys_excepthook"),
    }.items() >= {
        event.properties["$exception_type"]: (
            event.properties["$exception_level"],
            mechanism(event)["handled"],
            event.properties["$exception_source"],
        )
        for event in inspector.events
    }.items()


def test_hooks_are_put_back(make_handler: MakeHandler) -> None:
    """`close` puts back what was there before, once."""
    before = sys.excepthook, threading.excepthook
    handler = make_handler(exception_hooks=True)
    during = sys.excepthook, threading.excepthook
    handler.close()
    handler.close()

    assert before == (sys.excepthook, threading.excepthook)
    assert before[0] != during[0]
    assert before[1] != during[1]


def installed(capture: Any) -> ExceptHooks:
    """Return hooks that stand in the row."""
    hooks = ExceptHooks(capture)
    hooks.install()
    return hooks


def test_hooks_in_any_order() -> None:
    """A hook that others stand on only passes on when it is removed; nothing is lost."""
    before = sys.excepthook, threading.excepthook
    passed: list[Any] = []
    first: list[Any] = []
    second: list[Any] = []
    try:
        sys.excepthook = lambda *args: passed.append(args[0])
        lower = installed(lambda error, boundary: first.append(error))
        upper = installed(lambda error, boundary: second.append(error))
        lower.remove()
        error = PaymentError()
        sys.excepthook(PaymentError, error, None)
        upper.remove()
        sys.excepthook(PaymentError, error, None)
    finally:
        sys.excepthook, threading.excepthook = before

    assert ([PaymentError] * 2, [], [error]) == (passed, first, second)


def test_a_refused_handler_hooks_nothing() -> None:
    """A constructor that raises leaves the hooks as they were."""
    before = sys.excepthook, threading.excepthook
    with pytest.raises(ValueError, match="flush_at"):
        PostHogHandler("phc_test", exception_hooks=True, flush_at=0)

    assert before == (sys.excepthook, threading.excepthook)


# Bad input


class Unprintable(Exception):
    """An exception whose text raises, and which logs while it does."""

    log: Any = None

    def __str__(self) -> str:
        if self.log is not None:
            self.log.error("while it says what it is", exc_info=self)
        raise RuntimeError("no text")


def recursion() -> BaseException:
    def one(depth: int) -> None:
        other(depth)

    def other(depth: int) -> None:
        one(depth + 1)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        one(0)
    except RecursionError as error:
        return error
    finally:
        sys.setrecursionlimit(limit)
    raise AssertionError("no end")


def cycle() -> BaseException:
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    return one


class Group(Exception):
    """A group as Python 3.10 knows it: by its attribute."""

    def __init__(self, *exceptions: BaseException) -> None:
        super().__init__("several")
        self.exceptions = exceptions


def zipped(folder: Path) -> BaseException:
    archive = folder / "packed.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("packed_failing.py", "def fail():\n    raise ValueError('zipped')\n")
    sys.path.insert(0, str(archive))
    try:
        import packed_failing  # type: ignore[import-not-found]

        packed_failing.fail()
    except ValueError as error:
        return error
    finally:
        sys.path.remove(str(archive))
    raise AssertionError("it did not fail")


def missing(folder: Path) -> BaseException:
    path = str(folder / "missing.py")
    try:
        exec(compile("raise ValueError('missing')", path, "exec"), {})
    except ValueError as error:
        return error
    raise AssertionError("it did not fail")


BAD: dict[str, Callable[[Path], Any]] = {
    "str raises": lambda folder: raised(Unprintable()),
    "recursive causes": lambda folder: cycle(),
    "groups of groups": lambda folder: Group(Group(ValueError(), Group()), KeyError()),
    "deep recursion": lambda folder: recursion(),
    "zipped": zipped,
    "missing source": missing,
    "megabytes": lambda folder: raised(ValueError("x" * 5_000_000)),
    "surrogates": lambda folder: raised(ValueError("\ud800\0")),
    "a class": lambda folder: ValueError,
}


@pytest.mark.parametrize("name", BAD)
def test_bad_exceptions(
    name: str,
    tmp_path: Path,
    make_handler: MakeHandler,
    make_log: MakeLog,
    inspector: Inspector,
) -> None:
    """Whatever an exception is, the log call returns and the server takes the event."""
    handler = make_handler(exceptions=True)
    error: Any = BAD[name](tmp_path)
    exc_info: Any = (error, None, None) if isinstance(error, type) else error
    make_log(handler).error("it failed %s", "x" * 100_000, exc_info=exc_info)

    (event,) = sent(handler, inspector)

    assert event.properties["$exception_type"]
    assert event.properties["message"].startswith("it failed xxx")
    assert len(event.properties["message"]) <= 8192
    assert {"internal_error", "oversized"}.isdisjoint(handler.counts)


@pytest.mark.parametrize(
    "exc_info",
    [(None, None, None), (1, 2, 3), (), "text", 0, [], (ValueError,), object()],
    ids=["nones", "numbers", "empty tuple", "text", "zero", "empty list", "class", "object"],
)
def test_bad_exc_info(exc_info: Any, make_handler: MakeHandler, inspector: Inspector) -> None:
    """What is no ``exc_info`` reports nothing, or what honestly can be told; it never raises."""
    handler = make_handler(exceptions=True)
    handler.handle(
        logging.makeLogRecord({"msg": "m", "levelno": 40, "exc_info": exc_info, "name": None})
    )

    events = sent(handler, inspector)

    assert ["ValueError"] * (exc_info == (ValueError,)) == [
        event.properties["$exception_type"] for event in events
    ]
    assert "internal_error" not in handler.counts


def test_an_exception_that_logs_itself(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """An exception that logs itself while it is described is described once."""
    handler = make_handler(exceptions=True)
    error = Unprintable()
    error.log = make_log(handler)
    error.log.error("it failed", exc_info=error)

    (event,) = sent(handler, inspector)

    assert "it failed" == event.properties["message"]


def test_an_array_for_exc_info(make_handler: MakeHandler) -> None:
    """An object whose truth cannot be told is counted, and raises nothing."""
    numpy = pytest.importorskip("numpy")
    handler = make_handler(exceptions=True)
    handler.handle(logging.makeLogRecord({"levelno": 40, "exc_info": numpy.zeros(2)}))

    assert 1 == handler.counts["internal_error"]


# One entry


def test_dict_config(inspector: Inspector) -> None:
    """One entry of a ``dictConfig`` gives events, exceptions and logs."""
    name = "tests.reporting.dict_config"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"short": {"format": "<%(message)s>"}},
            "handlers": {
                "posthog": {
                    "class": "posthog_logging.PostHogHandler",
                    "api_key": "phc_test",
                    "host": inspector.url,
                    "formatter": "short",
                    "exceptions": "ERROR",
                    "logs": {"level": "INFO", "service_name": "shop"},
                }
            },
            "loggers": {name: {"handlers": ["posthog"], "level": "DEBUG", "propagate": False}},
        }
    )
    log = logging.getLogger(name)
    handler: Any = log.handlers[0]
    log.debug("nothing")
    log.info("started")
    log.info("movie played", extra={"distinct_id": "user-1"})
    log.error("charge failed", exc_info=PaymentError())
    log.handlers.clear()

    assert handler.flush(10)
    handler.close()

    assert ["movie played", "$exception"] == [
        event.event for event in inspector.events if event.dialect != "posthog-logs"
    ]
    assert (2, 3) == (handler.counts["delivered"], handler.logs.counts["delivered"])
