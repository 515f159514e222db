"""
Who takes part: each contender as a few closures over its own, unchanged, public API.

Every event is different, and everybody gets the same ones in the form that is native to
them: flat attributes for Sentry and OpenTelemetry, properties for all others.
"""

from __future__ import annotations

import datetime as dt
import functools
import importlib
import json
import logging
import queue
import random
import time
import uuid

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from logging.handlers import QueueHandler, QueueListener
from typing import Any, NamedTuple


__all__ = ["CONTENDERS", "Contender", "Driven", "Place", "available", "chatter", "floor"]

KEY = "phc_benchmark"
_BIG = 200_000
_POOL = random.Random(7)
_WORDS = """amber brook cedar delta ember fjord grove harbour island jasper kestrel lagoon
meadow nimbus orchard prairie quartz ridge summit tundra umbra valley willow zephyr""".split()

USERS = tuple(f"user-{_POOL.randrange(10**9)}" for _ in range(997))
NAMES = tuple(
    f"{thing} {deed}" for thing in ("movie", "page", "list") for deed in ("seen", "left")
)
DETAILS: tuple[dict[str, Any], ...] = tuple(
    {
        "movie_id": f"{_POOL.getrandbits(48):012x}",
        "category": _POOL.choice(_WORDS),
        "title": " ".join(_POOL.choices(_WORDS, k=_POOL.randint(2, 5))),
        "position": round(_POOL.uniform(0, 9000), 3),
        "premium": _POOL.random() < 0.3,
    }
    for _ in range(2003)
)


class Place(NamedTuple):
    """Where to send, where to keep files, and whether a bounded queue is made big."""

    url: str
    folder: str
    big: bool


class Driven(NamedTuple):
    """What a scenario drives; *finish* returns when all is delivered, or given up."""

    emit: Callable[[int], object]
    finish: Callable[[], object] = lambda: None
    close: Callable[[], object] = lambda: None
    chatter: Callable[[int], object] | None = None


@dataclass(frozen=True)
class Contender:
    """
    One row of a table.

    ``plain`` runs without ``[fast]``; ``needs`` are the modules without which it cannot run.
    ``bounded`` marks a rival whose queue is made big where a scenario calls for it; floors
    send nothing.
    """

    name: str
    title: str
    make: Callable[[Place], Driven]
    plain: bool = False
    bounded: bool = False
    sends: bool = True
    needs: tuple[str, ...] = ()


def _properties(number: int) -> dict[str, Any]:
    return {**DETAILS[number % 2003], "seq": number}


def _extra(number: int) -> dict[str, Any]:
    return {
        "distinct_id": USERS[number % 997],
        "properties": {**DETAILS[number % 2003], "seq": number},
    }


def _flat(number: int) -> dict[str, Any]:
    return {"distinct_id": USERS[number % 997], **DETAILS[number % 2003], "seq": number}


def _logger(handler: logging.Handler, name: str = "benchmarked") -> logging.Logger:
    log = logging.getLogger(name)
    log.propagate = False
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    return log


def _logged(
    handler: logging.Handler, extra: Callable[[int], dict[str, Any]] = _extra, **more: Any
) -> Driven:
    """Drive *handler* by log calls."""
    log = _logger(handler)
    info = log.info
    return Driven(
        lambda number: info(NAMES[number % 6], extra=extra(number)),
        chatter=chatter(log),
        **more,
    )


def chatter(log: logging.Logger) -> Callable[[int], object]:
    """Return a call that logs a record that is no event."""
    info = log.info
    return lambda number: info("request %d served in %s", number, "12 ms")


def floor() -> Callable[[int], object]:
    """Return `chatter` into a `NullHandler`, for any process to compare with."""
    return chatter(_logger(logging.NullHandler(), "floor"))


def _nothing(place: Place) -> Driven:
    return Driven(_extra)


def _null(place: Place) -> Driven:
    return _logged(logging.NullHandler())


class _Counting(logging.NullHandler):
    """A handler that does nothing but take time, and has no thread beside it."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def handle(self, record: logging.LogRecord) -> bool:
        for _ in range(self._most):
            pass
        return True


def _counting(place: Place, most: int) -> Driven:
    return _logged(_Counting(most))


def _unread(place: Place) -> Driven:
    return _logged(QueueHandler(queue.Queue(-1)))


def _handler(place: Place, options: dict[str, Any]) -> Any:
    from posthog_logging import PostHogHandler

    if options.pop("journal", False):
        options["spool"] = place.folder
    return PostHogHandler(KEY, place.url, **options)


def _until_empty(flush: Callable[[float], bool]) -> None:
    """Flush until nothing is left; who waits in vain is ended from outside."""
    while not flush(60.0):
        time.sleep(0.05)


def _ours(place: Place, **options: Any) -> Driven:
    handler = _handler(place, options)
    finish = functools.partial(_until_empty, handler.flush)
    return _logged(handler, finish=finish, close=handler.close)


def _capture(place: Place, **options: Any) -> Driven:
    from posthog_logging import Analytics

    handler = _handler(place, options)
    capture = Analytics(handler).capture
    return Driven(
        lambda number: capture(USERS[number % 997], NAMES[number % 6], _properties(number)),
        functools.partial(_until_empty, handler.flush),
        handler.close,
    )


def _posthog(place: Place, **options: Any) -> Driven:
    if place.big:
        options["max_queue_size"] = _BIG
    client = importlib.import_module("posthog").Posthog(KEY, host=place.url, **options)
    capture = client.capture
    return Driven(
        lambda number: capture(
            NAMES[number % 6],
            distinct_id=USERS[number % 997],
            properties=_properties(number),
        ),
        lambda: client.flush(None),
        client.shutdown,
    )


def _segment(place: Place) -> Driven:
    options = {"max_queue_size": _BIG} if place.big else {}
    module = importlib.import_module("segment.analytics.client")
    client = module.Client(KEY, host=place.url, **options)
    track = client.track
    return Driven(
        lambda number: track(USERS[number % 997], NAMES[number % 6], _properties(number)),
        client.flush,
        client.shutdown,
    )


def _sentry(place: Place) -> Driven:
    sdk = importlib.import_module("sentry_sdk")
    options = {}
    if place.big:  # it has no option for its first buffer
        importlib.import_module("sentry_sdk._log_batcher").LogBatcher.MAX_BEFORE_DROP = _BIG
        options["transport_queue_size"] = _BIG
    dsn = place.url.replace("//", "//key@") + "/1"
    sdk.init(dsn, enable_logs=True, **options)
    driven = _logged(logging.NullHandler(), _flat)
    return driven._replace(
        finish=lambda: sdk.flush(timeout=60), close=lambda: sdk.get_client().close()
    )


def _otel(place: Place) -> Driven:
    logs = importlib.import_module("opentelemetry.sdk._logs")
    export = importlib.import_module("opentelemetry.sdk._logs.export")
    wire = importlib.import_module("opentelemetry.exporter.otlp.proto.http._log_exporter")
    options = {"max_queue_size": _BIG} if place.big else {}
    provider = logs.LoggerProvider()
    exporter = wire.OTLPLogExporter(endpoint=f"{place.url}/v1/logs")
    provider.add_log_record_processor(export.BatchLogRecordProcessor(exporter, **options))
    return _logged(
        logs.LoggingHandler(logger_provider=provider),
        _flat,
        finish=provider.force_flush,
        close=provider.shutdown,
    )


class _Poster(logging.Handler):
    """What one writes in an afternoon: collect a hundred records, post them, hope."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._session = importlib.import_module("requests").Session()
        self._url = f"{url}/batch/"
        self._batch: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.__dict__
        self._batch.append(
            {
                "event": record.msg,
                "distinct_id": said.get("distinct_id"),
                "properties": said.get("properties"),
                "timestamp": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(),
                "uuid": str(uuid.uuid4()),
            }
        )
        if len(self._batch) >= 100:
            self.flush()

    def flush(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            body = json.dumps({"api_key": KEY, "batch": batch})
            try:
                self._session.post(self._url, data=body, timeout=15)
            except OSError:
                pass


def _naive(place: Place) -> Driven:
    waiting: queue.Queue[Any] = queue.Queue(-1)
    poster = _Poster(place.url)
    listener = QueueListener(waiting, poster)
    listener.start()

    def finish(again: bool = True) -> None:
        listener.stop()
        poster.flush()
        if again:
            listener.start()

    return _logged(QueueHandler(waiting), finish=finish, close=lambda: finish(again=False))


_OTLP = "opentelemetry.exporter.otlp.proto.http"
_make = functools.partial

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("nothing", "only building the event", _nothing, sends=False),
        Contender("null", "F: logger.info, NullHandler", _null, sends=False),
        Contender("count_100", "F and a count to 100", _make(_counting, most=100), sends=False),
        Contender("count_200", "F and a count to 200", _make(_counting, most=200), sends=False),
        Contender("unread", "logger.info, QueueHandler, nobody reads", _unread, sends=False),
        Contender("ours", "posthog_logging", _ours, plain=True),
        Contender("ours_fast", "posthog_logging[fast]", _ours, needs=("orjson", "isal")),
        Contender(
            "ours_journal", "posthog_logging, journal", _make(_ours, journal=True), plain=True
        ),
        Contender(
            "ours_fast_journal",
            "posthog_logging[fast], journal",
            _make(_ours, journal=True),
            needs=("orjson", "isal"),
        ),
        Contender(
            "ours_fast_v0",
            "posthog_logging[fast], V0",
            _make(_ours, dialect="posthog-v0"),
            needs=("orjson", "isal"),
        ),
        Contender("capture", "Analytics.capture", _capture, plain=True),
        Contender("capture_fast", "Analytics.capture[fast]", _capture, needs=("orjson", "isal")),
        Contender(
            "posthog",
            "posthog-python, V1",
            _make(_posthog, capture_mode="v1"),
            bounded=True,
            needs=("posthog",),
        ),
        Contender("posthog_v0", "posthog-python, V0", _posthog, bounded=True, needs=("posthog",)),
        Contender(
            "segment",
            "segment-analytics-python",
            _segment,
            bounded=True,
            needs=("segment.analytics",),
        ),
        Contender("sentry", "sentry-sdk logs", _sentry, bounded=True, needs=("sentry_sdk",)),
        Contender("otel", "OpenTelemetry logs", _otel, bounded=True, needs=(_OTLP,)),
        Contender("naive", "QueueHandler + QueueListener + requests", _naive),
    )
}


def available(name: str) -> bool:
    """Return whether everything is installed that the contender needs."""
    try:
        return all(find_spec(module) is not None for module in CONTENDERS[name].needs)
    except ModuleNotFoundError:  # of a parent package
        return False
