"""The processor in every set-up that structlog has, and next to other people's handlers."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import io
import logging
import logging.handlers
import queue
import threading
import time

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from posthog_logging import Analytics, PostHogHandler, context
from posthog_logging.inspector import Event, Inspector
from posthog_logging.structlog import PostHogProcessor


structlog = pytest.importorskip("structlog")

MakeHandler = Callable[..., PostHogHandler]
MakeLog = Callable[..., logging.Logger]
PROPERTIES = {"movie": 7, "bound": "yes"}


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    """Leave structlog as it was."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def own(event: Event) -> dict[str, Any]:
    """Return the properties that are not the library's."""
    return {key: value for key, value in event.properties.items() if not key.startswith("$")}


def wrapped(*processors: Any, logger: Any = None, **options: Any) -> Any:
    """Return a bound logger of structlog's with *processors*."""
    logger = structlog.PrintLogger(io.StringIO()) if logger is None else logger
    options.setdefault("wrapper_class", structlog.BoundLogger)
    return structlog.wrap_logger(logger, processors=list(processors), **options)


def stdlib_chain(logger: logging.Logger, *processors: Any) -> Any:
    return wrapped(*processors, logger=logger, wrapper_class=structlog.stdlib.BoundLogger)


def arrangement(name: str, handler: PostHogHandler, make_log: MakeLog) -> Any:
    """Return a logger of structlog's, set up as *name* says."""
    tap = PostHogProcessor(handler)
    native: dict[str, Callable[[], Any]] = {
        "print": lambda: wrapped(tap, structlog.processors.KeyValueRenderer()),
        "bytes": lambda: wrapped(
            tap,
            structlog.processors.JSONRenderer(serializer=lambda *args, **_: repr(args).encode()),
            logger=structlog.BytesLogger(io.BytesIO()),
        ),
        "first": lambda: wrapped(
            tap, structlog.processors.add_log_level, structlog.dev.ConsoleRenderer()
        ),
        "filtering": lambda: wrapped(
            tap,
            structlog.processors.JSONRenderer(),
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        ),
        "cached": lambda: wrapped(
            tap, structlog.processors.JSONRenderer(), cache_logger_on_first_use=True
        ),
        "before-stdlib": lambda: stdlib_chain(
            make_log(logging.NullHandler()), tap, structlog.stdlib.render_to_log_kwargs
        ),
        "kwargs": lambda: stdlib_chain(make_log(handler), structlog.stdlib.render_to_log_kwargs),
        "formatter": lambda: stdlib_chain(
            make_log(handler), structlog.stdlib.ProcessorFormatter.wrap_for_formatter
        ),
        "json": lambda: stdlib_chain(make_log(handler), structlog.processors.JSONRenderer()),
    }
    return native[name]()


@pytest.mark.parametrize(
    "name", "print bytes first filtering cached before-stdlib kwargs formatter json".split()
)
def test_arrangements(
    name: str, make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """Every arrangement delivers the same event; an entry that does not opt in stays at home."""
    handler = make_handler()
    log = arrangement(name, handler, make_log).bind(bound="yes")
    log.info("nothing of ours", movie=1)
    log.info("movie played", distinct_id="user-1", movie=7)
    handler.flush()

    (event,) = inspector.wait()

    assert ("movie played", "user-1", PROPERTIES) == (event.event, event.distinct_id, own(event))
    assert 1 == handler.counts["accepted"]


def test_after_a_stock_queue_handler(
    make_handler: MakeHandler, make_log: MakeLog, inspector: Inspector
) -> None:
    """The dict that a stock `QueueHandler` made text of is an event all the same."""
    handler = make_handler()
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    log = stdlib_chain(
        make_log(logging.handlers.QueueHandler(waiting)),  # type: ignore[arg-type]
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    )
    listener = logging.handlers.QueueListener(waiting, handler)  # type: ignore[arg-type]
    listener.start()
    log.info("movie played", distinct_id="user-1", movie=7)
    listener.stop()
    handler.flush()

    (event,) = inspector.wait()

    assert ("movie played", "user-1", {"movie": 7}) == (event.event, event.distinct_id, own(event))


def test_entry_passes_unchanged(make_handler: MakeHandler) -> None:
    """The processor returns the very object that it was given, as it was."""
    tap = PostHogProcessor(make_handler())
    entry = {
        "event": "movie played",
        "distinct_id": "user-1",
        "_record": object(),
        "exc_info": ValueError("no"),
        "timestamp": "2024-01-02T03:04:05Z",
        "nested": {"list": [1, 2]},
    }
    before = {**entry, "nested": copy.deepcopy(entry["nested"])}

    assert tap(None, "info", entry) is entry
    assert before == entry


def test_what_an_entry_says(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Level, logger, timestamp, exception and the keys with a meaning are understood."""
    handler = make_handler()
    log = wrapped(
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        PostHogProcessor(handler),
        structlog.processors.JSONRenderer(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    try:
        raise ValueError("no seat")
    except ValueError:
        log.exception("seat lost", distinct_id="user-1", groups={"cinema": "rex"}, _private=1)
    log.info("hello", distinct_id="user-1", kind="identify", set={"plan": "gold"})
    handler.flush()

    lost, hello = inspector.wait(count=2)

    assert ("seat lost", {"level": "error", "exception": "ValueError: no seat"}) == (
        lost.event,
        own(lost),
    )
    assert {"cinema": "rex"} == lost.properties["$groups"]
    assert ("$identify", {"plan": "gold"}) == (hello.event, hello.properties["$set"])


def test_stamps_of_the_processor_are_kept(make_handler: MakeHandler, inspector: Inspector) -> None:
    """A timestamp in the entry is the event's."""
    handler = make_handler()
    log = wrapped(PostHogProcessor(handler), structlog.processors.JSONRenderer())
    log.info("movie played", distinct_id="user-1", timestamp="2024-01-02T03:04:05Z")
    handler.flush()

    assert "2024-01-02T03:04:05.000000Z" == inspector.wait()[0].timestamp


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("utc", [True, False], ids=["utc", "local"])
def test_stamps_without_an_offset(
    zone: str,
    utc: bool,
    make_handler: MakeHandler,
    inspector: Inspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stamper's clock that does not name its zone moves no event, wherever the server is."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        handler = make_handler()
        stamper = structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=utc)
        log = wrapped(stamper, PostHogProcessor(handler), structlog.processors.JSONRenderer())
        log.info("movie played", distinct_id="user-1")
        now = time.gmtime()
        handler.flush()
    finally:
        monkeypatch.undo()
        time.tzset()

    sent = inspector.wait()[0].timestamp

    assert time.strftime("%Y-%m-%dT%H", now) == sent[:13]


def test_select(make_handler: MakeHandler, inspector: Inspector) -> None:
    """A predicate of the user's decides instead; one that raises is counted, not felt."""
    handler = make_handler()
    log = wrapped(
        PostHogProcessor(Analytics(handler), select=lambda entry: entry["analytics"]),
        structlog.processors.JSONRenderer(),
    )
    log.info("not this", distinct_id="user-1", analytics=False)
    log.info("no such key", distinct_id="user-1")
    with context.identity("user-2", plan="gold"):
        log.info("this", analytics=True)
    handler.flush()

    (event,) = inspector.wait()

    assert ("this", "user-2") == (event.event, event.distinct_id)
    assert {"analytics": True, "plan": "gold"} == own(event)
    assert 1 == handler.counts["select_failed"]


def test_level_of_the_target(make_handler: MakeHandler) -> None:
    """Entries below the handler's level are not sent; levels that nobody knows are."""
    handler = make_handler(level=logging.WARNING)
    tap = PostHogProcessor(handler)
    for method in ("debug", "info", "msg", "warn", "exception", "audit"):
        tap(None, method, {"event": method, "distinct_id": "user-1"})

    assert 3 == handler.counts["accepted"]


def test_bound_in_context(make_handler: MakeHandler, inspector: Inspector) -> None:
    """What structlog binds on contextvars is in the entry, and thus in the event."""
    handler = make_handler()
    log = wrapped(
        structlog.contextvars.merge_contextvars,
        PostHogProcessor(handler),
        structlog.processors.JSONRenderer(),
    )
    with structlog.contextvars.bound_contextvars(distinct_id="user-1", request_id="r-1"):
        log.info("movie played")
    log.info("nobody's")
    handler.flush()

    (event,) = inspector.wait()

    assert ("user-1", {"request_id": "r-1"}) == (event.distinct_id, own(event))


def test_async(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Async methods deliver, each with the identity of its own task."""
    handler = make_handler()
    log = wrapped(
        PostHogProcessor(handler, select=lambda entry: True),
        structlog.processors.JSONRenderer(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )

    async def visit(number: int) -> None:
        with context.identity(f"user-{number}"):
            await asyncio.gather(*(log.ainfo("visit", number=number) for _ in range(3)))

    async def main() -> None:
        await asyncio.gather(*(visit(number) for number in range(5)))

    asyncio.run(main())
    handler.flush()

    events = inspector.wait(count=15)

    assert [f"user-{event.properties['number']}" for event in events] == [
        event.distinct_id for event in events
    ]
    assert 15 == len(events)


def test_threads_share_one_processor(make_handler: MakeHandler, inspector: Inspector) -> None:
    """The processor keeps no entry: eight threads through one of them mix nothing up."""
    handler = make_handler()
    log = wrapped(PostHogProcessor(handler), structlog.processors.JSONRenderer())

    def work(number: int) -> None:
        for step in range(20):
            log.info(f"step {step}", distinct_id=f"user-{number}", number=number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()

    seen = [(event.distinct_id, event.properties["number"]) for event in inspector.wait(count=160)]

    assert sorted((f"user-{n}", n) for n in range(8) for _ in range(20)) == sorted(seen)


def test_capture_logs(make_handler: MakeHandler) -> None:
    """`capture_logs` takes every processor out: nothing is sent, and the entries are whole."""
    handler = make_handler()
    structlog.configure(
        processors=[PostHogProcessor(handler), structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(io.StringIO()),
        cache_logger_on_first_use=True,
    )
    log = structlog.get_logger()
    with structlog.testing.capture_logs() as captured:
        log.info("movie played", distinct_id="user-1")

    assert [{"event": "movie played", "distinct_id": "user-1", "log_level": "info"}] == captured
    assert 0 == handler.counts["accepted"]


class Evil:
    """A value on which everything raises."""

    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __eq__ = __bool__ = __hash__ = __repr__  # type: ignore[assignment]


@pytest.mark.parametrize(
    "entry",
    [
        {"name": 1, "module": 2, "filename": 3, "args": 4, "msg": 5, "exc_info": 6, "self": 7},
        {"event": None},
        {"event": {"a": "dict"}},
        {"event": "e", "a value": Evil()},
        {"event": Evil()},
        {"event": "e", "exc_info": Evil()},
        {"event": "e", "timestamp": Evil()},
        {"event": "e", "timestamp": "yesterday"},
        {"event": "e", "positional_args": Evil()},
        {"event": "e", "distinct_id": Evil()},
        {"event": "e", 7: 8, None: 1, (1, 2): 3, "\ud800": 4, "": 5},
        {"event": "e", "properties": "text", "groups": 3, "set": Evil()},
    ],
    ids=(
        "record-keys none dict value event exc_info timestamp bad-timestamp args id keys meanings"
    ).split(),
)
def test_never_raises(entry: dict[Any, Any], make_handler: MakeHandler) -> None:
    """No key and no value makes a log call raise; what is no event is counted under a reason."""
    handler = make_handler()
    tap = PostHogProcessor(handler)
    given = {"distinct_id": "user-1", **entry}

    assert tap(None, "info", given) is given

    counts = handler.counts
    assert 1 == counts["accepted"]
    assert 0 == counts.get("internal_error", 0)


def test_closed_target(make_handler: MakeHandler) -> None:
    """A processor whose handler is closed passes entries on."""
    handler = make_handler()
    handler.close()
    tap = PostHogProcessor(handler)
    entry = {"event": "e", "distinct_id": "user-1"}

    assert tap(None, "info", entry) is entry


def test_repr_names_the_target(make_handler: MakeHandler) -> None:
    """The processor's ``repr`` says where entries go, and no key."""
    text = repr(PostHogProcessor(make_handler()))

    assert text.startswith("<PostHogProcessor of <PostHogHandler")
    assert "phc_test" not in text


class Spy(logging.Handler):
    """Keep what each record holds."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(copy.copy(record.__dict__))


def json_logger() -> logging.Handler:
    pythonjsonlogger = pytest.importorskip("pythonjsonlogger.json")
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(pythonjsonlogger.JsonFormatter())
    return handler


def sentry() -> logging.Handler:
    integration = pytest.importorskip("sentry_sdk.integrations.logging")
    handler: logging.Handler = integration.EventHandler()
    return handler


def opentelemetry() -> logging.Handler:
    pytest.importorskip("opentelemetry.sdk._logs")
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler

    handler: logging.Handler = LoggingHandler(logger_provider=LoggerProvider())
    return handler


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "make", [json_logger, sentry, opentelemetry], ids=lambda one: one.__name__
)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_next_to_others(
    make: Callable[[], logging.Handler],
    before: bool,
    make_handler: MakeHandler,
    make_log: MakeLog,
    inspector: Inspector,
) -> None:
    """Next to somebody else's handler ours changes no record, and sends the same event."""
    handler, other = make_handler(), make()
    first, last = Spy(), Spy()
    around = [first, handler, last]
    log = make_log(*([other, *around] if before else [*around, other]))
    extra = {"distinct_id": "user-1", "properties": {"movie": [7]}, "plan": "gold"}
    log.info("movie %s", "played", extra=extra)
    log.warning({"event": "dict", "distinct_id": "user-1"})
    handler.flush()

    played, from_dict = inspector.wait(count=2)

    assert first.seen == last.seen
    assert 2 == len(last.seen)
    assert ("movie played", "gold", [7]) == (
        played.event,
        played.properties["plan"],
        played.properties["movie"],
    )
    assert "dict" == from_dict.event


@pytest.mark.parametrize("format_", ["{message}", None], ids=["message", "default"])
def test_loguru(format_: str | None, make_handler: MakeHandler, inspector: Inspector) -> None:
    """loguru's bound values say what extras say; its format is not part of the name."""
    loguru = pytest.importorskip("loguru")
    handler = make_handler()
    options = {} if format_ is None else {"format": format_}
    sink = loguru.logger.add(handler, **options)
    with contextlib.suppress(ValueError):
        loguru.logger.remove(0)  # loguru's own, on stderr
    try:
        loguru.logger.info("nothing of ours")
        loguru.logger.bind(distinct_id="user-1", plan="gold").info("movie played")
        try:
            raise ValueError("no seat")
        except ValueError:
            loguru.logger.bind(distinct_id="user-1").exception("seat lost")
        handler.flush()
    finally:
        loguru.logger.remove(sink)

    played, lost = inspector.wait(count=2)

    assert ("movie played", "user-1", "gold") == (
        played.event,
        played.distinct_id,
        played.properties["plan"],
    )
    assert "seat lost" == lost.event


def test_native_entries_become_logs(make_handler: Any, inspector: Any) -> None:
    """With ``logs=True`` native entries go to PostHog Logs, with the place of their call."""
    handler = make_handler(logs="INFO")
    chain = [PostHogProcessor(handler, logs=True), structlog.processors.JSONRenderer()]
    log = structlog.wrap_logger(structlog.PrintLogger(io.StringIO()), processors=chain)
    log.debug("too quiet")
    log.info("gateway answered", gateway="stripe", ms=12)
    try:
        raise ValueError("no card")
    except ValueError:
        log.exception("charge failed")
    log.info("movie played", distinct_id="user-1")
    assert handler.flush(10)

    logs = [one for one in inspector.events if one.dialect == "posthog-logs"]
    assert ["gateway answered", "charge failed", "movie played"] == [one.event for one in logs]
    first, second, _ = logs
    assert "stripe" == first.properties["gateway"]
    assert "test_native_entries_become_logs" == first.properties["code.function.name"]
    assert "ValueError" == second.properties["exception.type"]
    assert ["movie played"] == [one.event for one in inspector.events if one not in logs]


def test_logs_need_a_handler_that_takes_them(make_handler: Any) -> None:
    """``logs=True`` on a handler without ``logs=`` is an error that says what to do."""
    with pytest.raises(ValueError, match="give PostHogHandler logs=True"):
        PostHogProcessor(make_handler(), logs=True)
    with pytest.raises(TypeError, match="logs"):
        PostHogProcessor(make_handler(), logs=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "more", "message"),
    [
        (
            ("phc_test",),
            {},
            "target: must be a PostHogHandler or an Analytics, not a value of type str",
        ),
        ((None,), {"select": "movie_id"}, "select: must be a callable"),
    ],
    ids=["a key", "a name"],
)
def test_wrong_use(args: Any, more: Any, message: str) -> None:
    """What is neither a handler nor a callable is refused where it is given, without its text."""
    target = PostHogHandler("") if args == (None,) else args[0]
    with pytest.raises(TypeError, match=message) as caught:
        PostHogProcessor(target, **more)

    assert "phc_test" not in str(caught.value)
