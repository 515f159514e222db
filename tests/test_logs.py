"""Log records on their way to PostHog Logs: what they say, what holds them back, how they go."""

from __future__ import annotations

import gzip
import json
import logging
import logging.handlers
import math
import os
import pickle
import queue
import threading
import time

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from posthog_logging import PostHogHandler, PostHogLogsHandler, context
from posthog_logging.delivery.exits import opened
from posthog_logging.inspector import Answer, Inspector
from posthog_logging.wire import Response
from posthog_logging.wire.otlp import LOGS


structlog = pytest.importorskip("structlog")


MakeLog = Callable[..., logging.Logger]
QUICK = {"flush_interval": 0.01}
SOON = 10.0  # seconds: what is to happen at once has happened by then, on any machine


@pytest.fixture
def make_logs(inspector: Inspector) -> Iterator[Callable[..., PostHogLogsHandler]]:
    """A maker of handlers that send to the inspector, and that are closed in the end."""
    made = []

    def make(**options: Any) -> PostHogLogsHandler:
        host = options.pop("host", inspector.url)
        made.append(PostHogLogsHandler("phc_test", host, **options))
        return made[-1]

    yield make
    for handler in made:
        handler.close()


MakeLogs = Callable[..., PostHogLogsHandler]


@contextmanager
def heard() -> Iterator[list[str]]:
    """Yield what the library says of itself meanwhile."""
    told: list[str] = []
    ear = logging.Handler()
    ear.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    own = logging.getLogger("posthog_logging")
    own.addHandler(ear)
    try:
        yield told
    finally:
        own.removeHandler(ear)


def arrived(handler: PostHogLogsHandler, inspector: Inspector) -> list[Any]:
    """Return the records that arrived, all good."""
    assert handler.flush(SOON)
    assert [] == inspector.bad
    return inspector.events


def on_the_wire(transport: Any) -> list[list[dict[str, Any]]]:
    """Return the records of each request, as they were sent."""
    bodies = [json.loads(gzip.decompress(request.body)) for request in transport.requests]
    return [body["resourceLogs"][0]["scopeLogs"][0]["logRecords"] for body in bodies]


def attributes(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record's attributes by name."""
    return {pair["key"]: pair["value"] for pair in record["attributes"]}


def only(transport: Any) -> dict[str, Any]:
    """Return the only record that was sent."""
    ((record,),) = on_the_wire(transport)
    return record


# What a record says


@pytest.mark.parametrize(
    ("level", "number", "text"),
    [
        (logging.DEBUG, 5, "DEBUG"),
        (logging.INFO, 9, "INFO"),
        (25, 9, "INFO"),
        (logging.WARNING, 13, "WARN"),
        (logging.ERROR, 17, "ERROR"),
        (logging.CRITICAL, 21, "FATAL"),
        (logging.NOTSET, 9, "INFO"),
        (5, 1, "TRACE"),
    ],
    ids=str,
)
def test_severity(level: int, number: int, text: str, transport: Any, make_logs: MakeLogs) -> None:
    """The record's level becomes OTLP's number and text."""
    handler = make_logs(transport=transport)
    handler.handle(logging.makeLogRecord({"msg": "checkout failed", "levelno": level}))
    handler.flush()

    record = only(transport)

    assert (number, text) == (record["severityNumber"], record["severityText"])
    assert {"stringValue": "checkout failed"} == record["body"]


def test_a_record(make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector) -> None:
    """The body is the message; the attributes are the extras, and where it was said."""
    handler = make_logs()
    log = make_log(handler)
    log.warning("slow charge of %d ms", 840, extra={"ms": 840, "nested": {"inner": [1, None]}})

    (event,) = arrived(handler, inspector)

    assert "slow charge of 840 ms" == event.event
    assert {
        "ms": 840,
        "nested": {"inner": [1, None]},
        "logger.name": log.name,
        "code.file.path": __file__,
        "code.function.name": "test_a_record",
    }.items() <= event.properties.items()
    assert isinstance(event.properties["code.line.number"], int)
    assert not [key for key in event.properties if key.startswith("exception")]


def test_the_time_is_the_call_s(transport: Any, make_logs: MakeLogs) -> None:
    """A record says when it was made, not when it was sent; equal times strictly increase."""
    handler = make_logs(transport=transport)
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"msg": "a", "created": 1_700_000_000.5}))
    handler.flush()

    ((first, *others),) = on_the_wire(transport)
    nanos = [int(one["timeUnixNano"]) for one in (first, *others)]

    assert [1_700_000_000_500_000_000 + n for n in range(3)] == nanos
    assert first["timeUnixNano"] == first["observedTimeUnixNano"]


def test_any_value(transport: Any, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """Each kind of value has its form; what is None is no attribute."""
    values = {"i": 4999, "f": 0.5, "nan": math.nan, "b": True, "none": None, "d": {"inner": 1}}
    handler = make_logs(transport=transport)
    make_log(handler).info("hello", extra=values)
    handler.flush()

    found = attributes(only(transport))

    assert {"intValue": "4999"} == found["i"]
    assert {"doubleValue": 0.5} == found["f"]
    assert {"stringValue": "NaN"} == found["nan"]
    assert {"boolValue": True} == found["b"]
    assert {"kvlistValue": {"values": [{"key": "inner", "value": {"intValue": "1"}}]}} == found[
        "d"
    ]
    assert "none" not in found


def test_what_was_logged_is_what_is_sent(
    transport: Any, make_logs: MakeLogs, make_log: MakeLog
) -> None:
    """Later changes of the caller's objects, and of the context, change nothing."""
    handler = make_logs(transport=transport, flush_interval=60.0)
    order = {"items": [1]}
    with context.identity("a", **{"$session_id": "s-1"}):
        make_log(handler).info("hello", extra={"order": order})
    order["items"].append(2)
    with context.identity("b"):
        handler.flush()

    found = attributes(only(transport))

    assert {"stringValue": "a"} == found["posthogDistinctId"]
    assert {"stringValue": "s-1"} == found["sessionId"]
    assert '"intValue": "2"' not in json.dumps(found["order"])


@pytest.mark.parametrize(
    ("bound", "extra", "expected"),
    [
        (None, {}, None),
        ("user-1", {}, "user-1"),
        ("user-1", {"distinct_id": "user-2"}, "user-2"),
        ("user-1", {"posthogDistinctId": "custom"}, "custom"),
        ("none", {}, None),
    ],
    ids=["nobody", "context", "record", "attribute", "no name"],
)
def test_identity(
    bound: Any,
    extra: dict[str, Any],
    expected: str | None,
    transport: Any,
    make_logs: MakeLogs,
    make_log: MakeLog,
) -> None:
    """Whom it is about comes from the record or the context, and is absent where nobody is."""
    handler = make_logs(transport=transport)
    with context.identity(bound, plan="gold"):
        make_log(handler).info("hello", extra=extra)
    handler.flush()

    found = attributes(only(transport))

    assert expected == found.get("posthogDistinctId", {}).get("stringValue")
    assert {"stringValue": "gold"} == found["plan"]
    assert "sessionId" not in found


def test_an_event_is_a_log_too(transport: Any, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """An event's properties are attributes; its own ids and times are not."""
    handler = make_logs(transport=transport)
    make_log(handler).info(
        "movie played",
        extra={
            "distinct_id": "user-1",
            "properties": {"movie": 7, "$session_id": "s-1"},
            "uuid": "u",
            "timestamp": 0,
        },
    )
    handler.flush()

    found = attributes(only(transport))

    assert {"intValue": "7"} == found["movie"]
    assert {"stringValue": "s-1"} == found["sessionId"]
    assert {"distinct_id", "properties", "uuid", "timestamp", "$severity"}.isdisjoint(found)


def test_an_exception(make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector) -> None:
    """What was raised is in OpenTelemetry's own attributes."""
    handler = make_logs()
    try:
        json.loads("{")
    except ValueError as error:
        make_log(handler).exception("bad request")
        text = str(error)

    (event,) = arrived(handler, inspector)

    assert "bad request" == event.event
    assert "json.decoder.JSONDecodeError" == event.properties["exception.type"]
    assert text == event.properties["exception.message"]
    assert event.properties["exception.stacktrace"].startswith("Traceback (most recent call")
    assert event.properties["exception.stacktrace"].endswith(text)


def test_stack_info(make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector) -> None:
    """A stack that was asked for goes along."""
    handler = make_logs()
    make_log(handler).info("here", stack_info=True)

    (event,) = arrived(handler, inspector)

    assert "test_stack_info" in event.properties["code.stacktrace"]


class Unprintable(Exception):
    """An exception whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


LOOP: dict[str, Any] = {}
LOOP["loop"] = LOOP


@pytest.mark.parametrize(
    "fields",
    [
        {"exc_info": (Unprintable, Unprintable(), None)},
        {"exc_info": (1, 2, 3)},
        {"exc_info": (ValueError, None, None)},
        {"msg": "%d", "args": ("text",)},
        {"msg": 7},
        {"msg": "x" * 5_000_000},
        {"msg": "\ud800\0"},
        {"name": None, "lineno": None, "pathname": None, "funcName": None, "levelno": 20},
        {"extra": {1: object()}, "loop": LOOP},
    ],
    ids="unprintable junk class arguments number megabytes surrogates nameless objects".split(),
)
def test_bad_input(fields: Any, make_logs: MakeLogs, inspector: Inspector) -> None:
    """Whatever a record is made of, the call returns and the server takes it."""
    handler = make_logs()
    handler.handle(logging.makeLogRecord({"msg": "hello", **fields}))

    (event,) = arrived(handler, inspector)

    assert event.event
    assert {"accepted": 1, "delivered": 1}.items() <= handler.counts.items()


def test_a_formatter(make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector) -> None:
    """With a formatter the body is what that makes; one that raises costs only its form."""
    handler = make_logs()
    handler.setFormatter(logging.Formatter("%(levelname)s <%(message)s>"))
    log = make_log(handler)
    log.info("hello")
    handler.setFormatter(logging.Formatter("%(missing)s"))
    log.info("world")

    assert ["INFO <hello>", "world"] == [event.event for event in arrived(handler, inspector)]


def test_after_a_queue(make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector) -> None:
    """A stock `QueueHandler` makes one text of it all, which is taken apart again."""
    waiting: Any = queue.SimpleQueue()
    log = make_log(logging.handlers.QueueHandler(waiting))
    try:
        raise Unprintable
    except Unprintable:
        log.exception("it failed")
    handler = make_logs()
    handler.handle(pickle.loads(pickle.dumps(waiting.get())))

    (event,) = arrived(handler, inspector)

    assert "it failed" == event.event
    assert f"{__name__}.Unprintable" == event.properties["exception.type"]
    assert event.properties["exception.stacktrace"].startswith("Traceback (most recent call")


def test_no_exception_after_a_queue(
    make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector
) -> None:
    """What `log.exception` adds where nothing was raised is no part of the message."""
    waiting: Any = queue.SimpleQueue()
    make_log(logging.handlers.QueueHandler(waiting)).exception("nothing failed")
    handler = make_logs()
    handler.handle(waiting.get())

    assert ["nothing failed"] == [event.event for event in arrived(handler, inspector)]


@pytest.mark.parametrize("formatted", [False, True])
def test_structlog(
    formatted: bool, make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector
) -> None:
    """structlog's entries have its message for a body, and what was bound for attributes."""
    handler = make_logs()
    if formatted:
        renderer = structlog.processors.KeyValueRenderer(key_order=["event"])
        handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer))
    log = structlog.wrap_logger(
        make_log(handler),
        processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log.bind(order="o-1").error("charge failed", exc_info=ValueError("no"))

    (event,) = arrived(handler, inspector)

    assert (
        ("event='charge failed'" in event.event) if formatted else "charge failed" == event.event
    )
    assert "o-1" == event.properties["order"]
    assert ("ValueError", "no") == (
        event.properties["exception.type"],
        event.properties["exception.message"],
    )


def test_span(transport: Any, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """The ids and flags of OpenTelemetry's active span go along; without one they are absent."""
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    handler = make_logs(transport=transport)
    log = make_log(handler)
    with trace.TracerProvider().get_tracer("tests").start_as_current_span("work") as span:
        log.info("inside")
    log.info("outside")
    handler.flush()

    ((inside, outside),) = on_the_wire(transport)
    about = span.get_span_context()

    assert f"{about.trace_id:032x}" == inside["traceId"]
    assert f"{about.span_id:016x}" == inside["spanId"]
    assert int(about.trace_flags) == inside["flags"]
    assert {"traceId", "spanId", "flags"}.isdisjoint(outside)


def test_resource_and_scope(transport: Any, make_logs: MakeLogs) -> None:
    """What the program is is said once a request; its identity cannot be clobbered."""
    handler = make_logs(
        transport=transport,
        service_name="checkout",
        service_version="1.2",
        environment="production",
        resource_attributes={"service.name": "evil", "host.name": "h-1"},
    )
    handler.handle(logging.makeLogRecord({"msg": "hello"}))
    handler.flush()

    (said,) = json.loads(gzip.decompress(transport.requests[0].body))["resourceLogs"]
    (scope,) = said["scopeLogs"]
    found = {pair["key"]: pair["value"]["stringValue"] for pair in said["resource"]["attributes"]}

    assert {
        "service.name": "checkout",
        "service.version": "1.2",
        "deployment.environment": "production",
        "host.name": "h-1",
        "telemetry.sdk.name": "posthog-logging",
    }.items() <= found.items()
    assert "posthog-logging" == scope["scope"]["name"]


@pytest.mark.parametrize("in_url", [False, True])
def test_the_key(in_url: bool, transport: Any) -> None:
    """The key is in the header, and only where it is wished in the URL, too."""
    handler = PostHogLogsHandler(
        "phc_abc", "https://us.i.posthog.com/", token_in_url=in_url, transport=transport
    )
    handler.handle(logging.makeLogRecord({"msg": "hello"}))
    handler.close()

    (request,) = transport.requests

    assert f"https://us.i.posthog.com/i/v1/logs{'?token=phc_abc' * in_url}" == request.url
    assert "Bearer phc_abc" == request.headers["Authorization"]


@pytest.mark.parametrize("compression", ["gzip", None])
def test_compression(compression: Any, transport: Any, make_logs: MakeLogs) -> None:
    """The body is gzipped however short it is, and as it is where that is not wished."""
    handler = make_logs(transport=transport, compression=compression)
    handler.handle(logging.makeLogRecord({"msg": "hello"}))
    handler.flush()

    (request,) = transport.requests

    assert compression == request.headers.get("Content-Encoding")
    assert ["hello"] == [one.event for one in LOGS.decode(request)]


# The gates, in their order


def test_no_key() -> None:
    """Without a key every call is safe and sends nothing; the first record says so."""
    with heard() as told:
        handler = PostHogLogsHandler()
        assert [] == told
        handler.handle(logging.makeLogRecord({"msg": "hello"}))
        handler.handle(logging.makeLogRecord({"msg": "hello"}))

    assert 1 == len(told)
    assert "POSTHOG_PROJECT_TOKEN" in told[0]
    assert 2 == handler.counts["no_api_key"]
    assert handler.flush()
    handler.close()


def test_opted_out(make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector) -> None:
    """Opted out, a record is dropped in silence, before a hook or the cap sees it."""
    seen: list[Any] = []

    def hook(log: dict[str, Any]) -> dict[str, Any]:
        seen.append(log)
        return log

    handler = make_logs(before_send=hook, rate_cap=1)
    log = make_log(handler)
    handler.opt_out()
    with heard() as told:
        log.info("not this")
        log.info("nor this")
    handler.opt_in()
    log.info("this")

    assert ["this"] == [event.event for event in arrived(handler, inspector)]
    assert 1 == len(seen)
    assert [] == told


@pytest.mark.parametrize("body", ["", "   ", "\t\n"], ids=repr)
def test_blank(body: str, make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector) -> None:
    """A blank body is dropped in silence, but counted, and no hook sees it."""
    seen: list[Any] = []
    handler = make_logs(before_send=seen.append)
    with heard() as told:
        make_log(handler).info(body)

    assert [] == arrived(handler, inspector)
    assert ([], []) == (seen, told)
    assert 1 == handler.counts["blank_log"]


def test_before_send(make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector) -> None:
    """Hooks see each record in turn, what the one before made of it, and may change it all."""
    seen = []

    def first(log: dict[str, Any]) -> dict[str, Any]:
        seen.append({**log, "attributes": log["attributes"]["order"]})
        log["attributes"]["order"] = "hidden"
        return {**log, "body": log["body"].upper()}

    def second(log: dict[str, Any]) -> dict[str, Any]:
        return {"body": f"{log['body']}!", "level": "error", "attributes": log["attributes"]}

    handler = make_logs(before_send=[first, second])
    make_log(handler).info("hello", extra={"order": "o-1", "distinct_id": "user-1"})

    (event,) = arrived(handler, inspector)

    assert [
        {"body": "hello", "level": 20, "distinct_id": "user-1", "attributes": "o-1"},
    ] == seen
    assert ("HELLO!", "user-1") == (event.event, event.distinct_id)
    assert ("hidden", 40) == (event.properties["order"], event.properties["$severity"])


@pytest.mark.parametrize(
    "hook",
    [lambda log: None, lambda log: {**log, "body": ""}, lambda log: {**log, "body": " \n"}],
    ids=["None", "empty", "blank"],
)
def test_before_send_drops(
    hook: Any, make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector
) -> None:
    """None or a blank body drops the record, and ends the chain."""
    later: list[Any] = []
    handler = make_logs(before_send=[hook, later.append])
    make_log(handler).info("hello")

    assert [] == arrived(handler, inspector)
    assert [] == later
    assert 1 == handler.counts["before_send"]


def spoils(log: dict[str, Any]) -> None:
    log["body"] = "spoilt"
    log["attributes"]["order"] = "spoilt"
    raise RuntimeError


BAD_HOOKS: dict[str, Any] = {
    "raises": spoils,
    "text": lambda log: "hello",
    "no body": lambda log: {**log, "body": None},
    "no attributes": lambda log: {**log, "attributes": 7},
}


@pytest.mark.parametrize("hook", BAD_HOOKS)
def test_before_send_fails_open(
    hook: str, make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector
) -> None:
    """A hook that fails is passed over: the next one gets what the one before it made."""
    handler = make_logs(
        before_send=[
            lambda log: {**log, "body": f"{log['body']} 1"},
            BAD_HOOKS[hook],
            lambda log: {**log, "body": f"{log['body']} 3"},
        ]
    )
    with heard() as told:
        make_log(handler).info("hello", extra={"order": "o-1"})

    (event,) = arrived(handler, inspector)

    assert ("hello 1 3", "o-1") == (event.event, event.properties["order"])
    assert 1 == len(told)


def test_before_send_fails_closed(
    make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector
) -> None:
    """Who scrubs there can have the record dropped instead."""
    handler = make_logs(before_send=spoils, fail_open=False)
    make_log(handler).info("hello")

    assert [] == arrived(handler, inspector)
    assert 1 == handler.counts["before_send_failed"]


def test_rate_cap(make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector) -> None:
    """The 501st of a window is dropped and counted, which is told once; the hook came before."""
    handler = make_logs(
        rate_cap=500,
        rate_window=3600.0,
        before_send=lambda log: None if log["body"] == "dropped" else log,
    )
    log = make_log(handler)
    with heard() as told:
        for number in range(600):
            log.info("dropped")
            log.info("record %d", number)

    assert 500 == len(arrived(handler, inspector))
    assert {"rate_limited": 100, "before_send": 600}.items() <= handler.counts.items()
    assert 1 == len(told)
    assert "more than 500 log records in 3600 seconds" in told[0]


@pytest.mark.parametrize(
    ("most", "window"), [(0, 10.0), (-1, 10.0), (5, 0), (5, -1.0), (10**400, 10**400)]
)
def test_no_rate_cap(most: int, window: float, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """A number or a window that is not positive means that there is none; nor is a huge one."""
    handler = make_logs(rate_cap=most, rate_window=window, flush_interval=60.0)
    log = make_log(handler)
    for number in range(100):
        log.info("record %d", number)

    assert 100 == handler.counts["accepted"]
    assert "rate_limited" not in handler.counts


@pytest.mark.parametrize(
    "options",
    [
        {"level": "LOUD"},
        {"rate_cap": "many"},
        {"rate_window": "long"},
        {"batch_size": 0},
        {"before_send": 7},
        {"resource_attributes": ["a"]},
        {"fail_open": "yes"},
        {"token_in_url": 1},
        {"flush_at": 0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_options(options: dict[str, Any]) -> None:
    """What an option cannot be is refused by its name."""
    with pytest.raises((TypeError, ValueError), match=f"^{next(iter(options))}: "):
        PostHogLogsHandler("phc_test", **options)


# No loop


def test_the_root_logger_at_debug(inspector: Inspector) -> None:
    """At DEBUG urllib3 logs each request; none of that is taken, whichever thread sends."""
    handler = PostHogHandler("phc_test", inspector.url, logs=QUICK, flush_interval=0.01)
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    told: list[str] = []
    ear = logging.Handler()
    ear.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("urllib3").addHandler(ear)
    try:
        logging.getLogger("tests.loop").info("hello", extra={"distinct_id": "user-1"})
        inspector.wait("hello", 2)  # sent by the two threads
        logging.getLogger("tests.loop").info("again")
        assert handler.flush(SOON)  # sent by this one
    finally:
        logging.getLogger("urllib3").removeHandler(ear)
        root.removeHandler(handler)
        handler.close()

    assert ["again", "hello", "hello"] == sorted(event.event for event in inspector.events)
    assert any("/i/v1/logs" in text for text in told)
    assert not any("phc_test" in text for text in told)


def test_requests_of_others_are_logged(
    make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector
) -> None:
    """urllib3's records of the program's own requests are records like any."""
    handler = make_logs()
    log = logging.getLogger("urllib3.connectionpool")
    log.addHandler(handler)
    try:
        log.warning("retrying")
    finally:
        log.removeHandler(handler)

    assert ["retrying"] == [event.event for event in arrived(handler, inspector)]


# On their way


def test_one_envelope(transport: Any, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """Twenty records are one request with one resource and one scope."""
    handler = make_logs(transport=transport, flush_interval=60.0)
    log = make_log(handler)
    for number in range(20):
        log.info("record %d", number)
    handler.flush()

    (records,) = on_the_wire(transport)

    assert [f"record {n}" for n in range(20)] == [one["body"]["stringValue"] for one in records]


def test_batch_size(transport: Any, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """No request holds more records than it may."""
    handler = make_logs(transport=transport, flush_interval=60.0, batch_size=8)
    log = make_log(handler)
    for number in range(20):
        log.info("record %d", number)
    handler.flush()

    assert [8, 8, 4] == [len(records) for records in on_the_wire(transport)]


def test_the_timer(make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector) -> None:
    """A record below the threshold is sent when it is old enough."""
    handler = make_logs(flush_at=1000, flush_interval=0.01)
    make_log(handler).info("hello")

    assert ["hello"] == [event.event for event in inspector.wait()]


def test_its_own_thread(
    make_logs: MakeLogs, make_log: MakeLog, inspector: Inspector, transport: Any
) -> None:
    """While events cannot be sent, logs are: neither waits for the other."""
    stuck, release = threading.Event(), threading.Event()

    def answer(request: Any) -> Response:
        if not request.url.endswith("/logs"):
            stuck.set()
            release.wait(SOON)
        return Response(200, body=b'{"results":{}}')

    transport.default = answer
    handler = PostHogHandler(
        "phc_test", "http://h.test", transport=transport, flush_at=1, logs={"flush_at": 1}
    )
    log = make_log(handler)
    log.info("movie played", extra={"distinct_id": "user-1"})
    assert stuck.wait(SOON)
    deadline = time.monotonic() + SOON
    pause = threading.Event()
    logs: Any = handler.logs
    while logs.counts["delivered"] < 1 and time.monotonic() < deadline:
        pause.wait(0.005)
    counts = handler.counts, logs.counts
    release.set()
    handler.close()

    assert (0, 1) == (counts[0]["delivered"], counts[1]["delivered"])


def test_a_global_flush_includes_logs(
    make_handler: Any, make_log: MakeLog, inspector: Inspector
) -> None:
    """`flush` of the one handler delivers both kinds, and tells of both."""
    handler = make_handler(logs={"flush_interval": 60.0}, flush_interval=60.0)
    log = make_log(handler)
    log.info("movie played", extra={"distinct_id": "user-1"})

    assert handler.flush(SOON)
    assert {"posthog-v1", "posthog-logs"} == {event.dialect for event in inspector.events}

    inspector.answer_always = Answer(503)
    log.info("only a log")

    assert not handler.flush(SOON)
    inspector.answer_always = None


def test_a_bounded_end(make_log: MakeLog, inspector: Inspector) -> None:
    """`close` gives up on a server that hangs, within its time, and counts what it held."""
    inspector.answer_always = Answer(hang=True)
    handler = PostHogHandler(
        "phc_test", inspector.url, logs=True, shutdown_timeout=0.5, flush_interval=60.0
    )
    log = make_log(handler)
    log.info("movie played", extra={"distinct_id": "user-1"})
    before = time.monotonic()
    handler.close()
    took = time.monotonic() - before
    log.info("too late")

    logs: Any = handler.logs
    assert took < 5.0
    assert (1, 1) == (handler.counts["shutdown"], logs.counts["shutdown"])
    assert 2 == logs.counts["accepted"]  # it opens again


def test_exit_delivers(run_script: Any, inspector: Inspector) -> None:
    """A short script need not flush."""
    script = """
import logging, sys
from posthog_logging import PostHogLogsHandler
logging.basicConfig(handlers=[PostHogLogsHandler("phc_test", sys.argv[1])], level="DEBUG")
logging.info("hello")
"""
    done = run_script(script, inspector.url)

    assert (0, "") == (done.returncode, done.stderr)
    # ``basicConfig`` gives it a formatter, which is meant for a console.
    assert ["hello"] == [event.event for event in inspector.events]


def test_too_large(transport: Any, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """A 413 halves the batch and sends the same records; what comes after ramps up again."""
    transport.default = lambda request: 413 if len(LOGS.decode(request)) > 25 else 200
    handler = make_logs(transport=transport, flush_interval=60.0, batch_size=50)
    log = make_log(handler)
    for number in range(50):
        log.info("record %d", number)
    handler.flush()
    transport.default = 200
    for _ in range(100):
        log.info("later")
    handler.flush()

    sizes = [len(records) for records in on_the_wire(transport)]

    assert [50, 25, 25] == sizes[:3]
    assert sizes[3:] == sorted(sizes[3:-1]) + sizes[-1:]
    assert 25 < max(sizes[3:])
    assert 150 == handler.counts["delivered"]


def test_one_record_too_large(transport: Any, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """A single record that is too large is dropped, counted and told of."""
    transport.default = 413
    handler = make_logs(transport=transport)
    with heard() as told:
        make_log(handler).info("hello")
        assert handler.flush(SOON)

    assert 1 == handler.counts["oversized"]
    assert 1 == len(told)


@pytest.mark.parametrize("bisect", [False, True])
def test_a_bad_request(
    bisect: bool, transport: Any, make_logs: MakeLogs, make_log: MakeLog
) -> None:
    """A 400 drops the batch and never blocks the queue; with ``bisect``, the one at fault."""
    transport.default = lambda request: 400 if b"poison" in gzip.decompress(request.body) else 200
    handler = make_logs(transport=transport, flush_interval=60.0, bisect=bisect)
    log = make_log(handler)
    for text in ("one", "poison", "three"):
        log.info(text)

    assert handler.flush(SOON)
    assert (1 if bisect else 3) == handler.counts["rejected"]
    assert (2 if bisect else 0) == handler.counts["delivered"]


@pytest.mark.parametrize("status", [429, 408, 500, 503, None])
def test_an_outage(
    status: int | None, transport: Any, make_logs: MakeLogs, make_log: MakeLog
) -> None:
    """Records are kept while the server is away, and taken on; then all go, in order."""
    transport.default = Response(status, {"retry-after": "900"} if status == 429 else {})
    handler = make_logs(transport=transport, flush_at=1, flush_interval=0.0)
    log = make_log(handler)
    log.info("one")
    assert not handler.flush(SOON)
    log.info("two")
    waiting = handler.counts["waiting"]
    attempts = len(transport.requests)
    transport.default = 200

    assert handler.flush(SOON)
    assert 2 == waiting
    assert ["one", "two"] == [
        record["body"]["stringValue"]
        for records in on_the_wire(transport)[attempts:]
        for record in records
    ]


def test_parked(transport: Any, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """Over its quota a project is told when to come back, and until then is not asked again."""
    transport.default = Response(429, {"retry-after": "900"})
    handler = make_logs(transport=transport, flush_interval=60.0, max_retries=0)
    log = make_log(handler)
    log.info("one")
    handler.flush()

    due = handler._sender.due_in()

    assert due is not None
    assert 890 < due <= 900
    assert (1, 0) == (handler.counts["waiting"], handler.counts.get("retries_exhausted", 0))


def test_given_up(transport: Any, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """After ``max_retries`` a batch is dropped and counted."""
    transport.default = 500
    handler = make_logs(transport=transport, flush_interval=60.0, max_retries=1)
    make_log(handler).info("hello")
    handler.flush()
    handler.flush()

    assert 1 == handler.counts["retries_exhausted"]


def test_overflow(transport: Any, make_logs: MakeLogs, make_log: MakeLog) -> None:
    """A full queue drops its oldest record, and says so once."""
    handler = make_logs(transport=transport, flush_interval=60.0, max_queue_size=3)
    log = make_log(handler)
    with heard() as told:
        for number in range(5):
            log.info("record %d", number)
    handler.flush()

    (records,) = on_the_wire(transport)

    assert ["record 2", "record 3", "record 4"] == [
        record["body"]["stringValue"] for record in records
    ]
    assert 2 == handler.counts["queue_full"]
    assert 1 == len(told)


def test_survives_a_restart(tmp_path: Path, inspector: Inspector, run_script: Any) -> None:
    """With a spool, what a killed process has logged is sent by the next one."""
    script = """
import logging, os, sys
from posthog_logging import PostHogLogsHandler
log = logging.getLogger("shop")
log.setLevel("INFO")
log.addHandler(PostHogLogsHandler("phc_test", sys.argv[1], spool=sys.argv[2], flush_interval=60))
log.info("before the end")
os.kill(os.getpid(), 9)
"""
    done = run_script(script, inspector.url, str(tmp_path))
    assert -9 == done.returncode
    handler = PostHogLogsHandler("phc_test", inspector.url, spool=tmp_path, flush_interval=0.01)

    (event,) = inspector.wait(timeout=SOON)
    handler.close()

    assert "before the end" == event.event


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_fork(run_script: Any, inspector: Inspector) -> None:
    """Parent and child deliver each their own."""
    script = """
import logging, os, sys, warnings
from posthog_logging import PostHogHandler
warnings.simplefilter("ignore")  # of Python 3.12 and later: there is a thread
log = logging.getLogger("shop")
log.setLevel("INFO")
handler = PostHogHandler("phc_test", sys.argv[1], logs=True)
log.addHandler(handler)
log.info("parent")
child = os.fork()
if not child:
    log.info("child")
    handler.close()
    os._exit(0)
os.waitpid(child, 0)
"""
    done = run_script(script, inspector.url)

    assert 0 == done.returncode, done.stderr
    assert ["child", "parent"] == sorted(event.event for event in inspector.events)


# From the one handler


@pytest.mark.parametrize(
    ("logs", "taken"),
    [
        (False, None),
        (True, 3),
        ("WARNING", 1),
        (logging.INFO, 2),
        ({"level": "INFO"}, 2),
        ({}, 3),
    ],
    ids=["off", "on", "name", "number", "mapping", "empty"],
)
def test_logs_option(logs: Any, taken: int | None, make_handler: Any, make_log: MakeLog) -> None:
    """``logs`` is True, a level or the options of the handler that takes them."""
    handler = make_handler(logs=logs, flush_interval=60.0)
    log = make_log(handler)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        log.log(level, "hello")

    assert taken == (handler.logs and handler.logs.counts["accepted"])
    assert 0 == handler.counts["accepted"]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"logs": "LOUD"}, "logs: "),
        ({"logs": None}, "logs: "),
        ({"logs": {"levels": 1}}, "logs: 'levels' is no option; there are api_key, "),
        ({"logs": True, "dialect": "segment", "host": "http://h.test"}, "logs: "),
        ({"logs": {"rate_cap": "x"}}, "rate_cap: "),
    ],
    ids=["level", "None", "name", "dialect", "value"],
)
def test_bad_logs_option(options: dict[str, Any], wrong: str) -> None:
    """What ``logs`` cannot be is refused."""
    with pytest.raises((TypeError, ValueError), match=wrong):
        PostHogHandler("phc_test", **options)


def test_beside_another_family(make_handler: Any, make_log: MakeLog, inspector: Inspector) -> None:
    """Beside events for another endpoint logs have a key and a host of their own."""
    handler = make_handler(
        "segment key",
        dialect="segment",
        logs={"api_key": "phc_logs", "host": inspector.url},
        compression=None,
    )
    make_log(handler).info("movie played", extra={"distinct_id": "user-1"})
    handler.flush()

    assert {"segment", "posthog-logs"} == {event.dialect for event in inspector.events}
    assert [] == inspector.bad


def test_beside_a_broker(inspector: Inspector, make_log: MakeLog) -> None:
    """A broker takes events only: logs go straight to PostHog, with the key of the handler."""
    handler = PostHogHandler(
        "phc_logs", inspector.url, broker=f"memory://{inspector.url[-5:]}", logs=QUICK
    )
    make_log(handler).warning("hall %d is cold", 3)
    assert handler.logs is not None
    handler.logs.flush(5.0)
    handler.close()

    assert ["hall 3 is cold"] == [one.event for one in inspector.events]


def test_beside_a_broker_without_a_key(
    make_log: MakeLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs that have no key are counted, and one warning says that the broker takes none."""
    monkeypatch.delenv("POSTHOG_API_KEY", raising=False)
    handler = PostHogHandler(broker="memory://keyless", logs=True)
    log = make_log(handler)
    log.warning("hall 3 is cold")
    log.warning("hall 4 is cold")
    handler.close()
    (told,) = (one.getMessage() for one in caplog.records if one.name == "posthog_logging")

    assert "logs, which do not go through the broker, are not sent: there is no api_key" in told
    assert handler.logs is not None
    assert 2 == handler.logs.counts["no_api_key"]


def test_opting_out_of_both(make_handler: Any, make_log: MakeLog) -> None:
    """Who opts out of the one handler opts out of both, and in again."""
    handler = make_handler(logs=True, flush_interval=60.0)
    log = make_log(handler)
    handler.opt_out()
    log.info("not this")
    before = handler.logs.counts["accepted"]
    handler.opt_in()
    log.info("this")

    assert (0, 1) == (before, handler.logs.counts["accepted"])


def test_its_formatter(make_handler: Any, make_log: MakeLog, inspector: Inspector) -> None:
    """A formatter that is set on the one handler makes the bodies of logs, and no event's name."""
    handler = make_handler(logs=True)
    handler.setFormatter(logging.Formatter("<%(message)s>"))
    make_log(handler).info("movie played", extra={"distinct_id": "user-1"})
    handler.flush()

    assert {"movie played", "<movie played>"} == {event.event for event in inspector.events}


def test_a_refused_handler_leaves_nothing(tmp_path: Path) -> None:
    """Where the events' options are wrong, the logs' handler is closed again."""
    before = set(opened())
    with pytest.raises(ValueError, match="flush_at"):
        PostHogHandler("phc_test", flush_at=0, logs={"spool": tmp_path})

    assert before == set(opened())
