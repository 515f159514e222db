"""The library stands where `logging` calls it, and leaves in place whatever else is in use."""

from __future__ import annotations

import logging
import logging.handlers
import pickle
import queue
import sys
import warnings

from collections.abc import Iterator
from subprocess import TimeoutExpired
from typing import Any

import pytest

from posthog_logging import Listener, MessageHandler, PostHogLogsHandler
from posthog_logging.events.records import fields_of, text_of


SOON = 30.0


def queued(record: logging.LogRecord, *, formatter: logging.Formatter | None = None) -> Any:
    """Return *record* as it comes out of a stock `QueueHandler`."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(waiting)  # type: ignore[arg-type]
    handler.setFormatter(formatter)
    handler.handle(record)
    return waiting.get_nowait()


def record_of(message: str = "order failed", **attributes: Any) -> logging.LogRecord:
    made = logging.LogRecord("tests", logging.ERROR, __file__, 1, message, (), None)
    made.__dict__.update(attributes)
    return made


def raised(error: BaseException) -> Any:
    """Return the ``exc_info`` of *error* as it was caught."""
    try:
        raise error
    except BaseException:
        return sys.exc_info()


def caused() -> Any:
    try:
        try:
            raise KeyError("film")
        except KeyError as error:
            raise RuntimeError("no film") from error
    except RuntimeError:
        return sys.exc_info()


class OddError(Exception):
    """An exception whose name is one."""


class OrderRejected(Exception):
    """One whose name is none."""


STACK = "Stack (most recent call last):\n  File x"
TRACES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a traceback": {"exc_info": raised(ValueError("no\nsuch film"))},
    "a cause": {"exc_info": caused()},
    "a group": {"exc_info": raised(ExceptionGroup("two", [ValueError(), KeyError()]))},
    "a syntax error": {"exc_info": (SyntaxError, SyntaxError("no", ("f", 1, 1, "x")), None)},
    "an exception that was never raised": {"exc_info": (OddError, OddError("no"), None)},
    "another name for one": {"exc_info": (TimeoutExpired, TimeoutExpired("no", 5), None)},
    "a name of its own": {"exc_info": (OrderRejected, OrderRejected("no\nstock"), None)},
    "that of a library": {"exc_info": (queue.Empty, queue.Empty(), None)},
    "a group that was never raised": {
        "exc_info": (ExceptionGroup, ExceptionGroup("two", [ValueError()]), None)
    },
    "no exception": {"exc_info": (None, None, None)},
    "without a text": {"exc_info": (KeyboardInterrupt, KeyboardInterrupt(), None)},
    "a stack": {"stack_info": STACK},
    "both": {"exc_info": raised(ValueError("no")), "stack_info": STACK},
    "a text that was formatted before": {"exc_text": "Traceback (most recent call last):\n  x"},
}
FORMATTERS = {
    "no formatter": None,
    "basicConfig's formatter": logging.Formatter(logging.BASIC_FORMAT),
}


@pytest.mark.parametrize("formatter", FORMATTERS.values(), ids=FORMATTERS)
@pytest.mark.parametrize("traces", TRACES.values(), ids=TRACES)
def test_a_traceback_is_no_part_of_the_message(traces: Any, formatter: Any) -> None:
    """Behind a stock queue one text is left, of which the message is the beginning."""
    assert "order failed" == text_of(queued(record_of(**traces), formatter=formatter))


@pytest.mark.parametrize(
    "message",
    [
        "a\nb",
        "Error: none",
        "shop.Order: paid",
        "imported\nshop.films: 3",
        "imported\nFilms: 3",
        "order placed\nshop.Order: 12",
        "a chapter\n1.Intro: x",
        "the menu\n  | soup: 3",
        "a Traceback (most recent call last): b",
        "tests",
        "ERROR: no",
    ],
)
def test_a_message_of_several_lines_stays(message: str) -> None:
    """What is no traceback is the message's own."""
    record = record_of(message, levelno=logging.INFO)
    assert message == text_of(record)
    assert message == text_of(queued(record))


@pytest.mark.parametrize("stock", [True, False], ids=["QueueHandler", "MessageHandler"])
@pytest.mark.parametrize("more", [{}, {"properties": {"n": 1}}], ids=["bare", "properties"])
def test_an_exception_leaves_the_name_alone(
    stock: bool, more: Any, inspector: Any, make_handler: Any, make_log: Any
) -> None:
    """``log.exception`` behind any queue is the event of its message."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    door = (logging.handlers.QueueHandler if stock else MessageHandler)(waiting)  # type: ignore[arg-type]
    handler = make_handler()
    log = make_log(door)
    listener = Listener(waiting, handler)
    listener.start()
    try:
        raise ValueError("no such film")
    except ValueError:
        log.exception("order %d failed", 7, extra={"distinct_id": "u1", **more}, stack_info=True)
    listener.stop()
    assert handler.flush(SOON)

    assert ["order 7 failed"] == [event.event for event in inspector.events]


def test_the_name_is_fixed_at_the_door_whatever_formats(make_log: Any) -> None:
    """A formatter of the queue's own makes the text for others, and not the event's name."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    door = MessageHandler(waiting)  # type: ignore[arg-type]
    door.setFormatter(logging.Formatter("%(levelname)s | %(message)s"))
    make_log(door).info("movie played", extra={"distinct_id": "u1"})
    record = waiting.get_nowait()

    assert ("movie played", "INFO | movie played") == (record.event, record.getMessage())


# Record factories


FACTORY = """
import logging, queue, sys

made = []

class Record(logging.LogRecord):
    def __init__(self, name, *args, **kwargs):
        assert name, "a record without a name"
        made.append(name)
        super().__init__(name, *args, **kwargs)
        self.distinct_id = "stamped"

logging.setLogRecordFactory(Record)
from posthog_logging import Listener, MessageHandler, PostHogHandler

handler = PostHogHandler("phc_test", sys.argv[1])
log = logging.getLogger("app")
log.setLevel("INFO")
log.addHandler(handler)
waiting = queue.SimpleQueue()
log.addHandler(MessageHandler(waiting))
listener = Listener(waiting, handler)
listener.start()
log.info("movie played", extra={"properties": {"n": 1}})
listener.stop()
handler.close()
print(*made)
"""


def test_the_programs_record_factory_is_not_called_by_us(run_script: Any, inspector: Any) -> None:
    """A factory that needs a name, and stamps records, makes the records of the program only."""
    done = run_script(FACTORY, inspector.url)

    assert (0, "") == (done.returncode, done.stderr)
    assert ["app"] == done.stdout.split()
    assert ["stamped"] * 2 == [event.distinct_id for event in inspector.events]


def test_records_of_a_class_of_ones_own_can_travel() -> None:
    """An event is a plain record at the other side, also where its class cannot be pickled."""

    class Braces(logging.LogRecord):
        def getMessage(self) -> str:
            return str(self.msg).format(*self.args)  # type: ignore[misc]

    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    made = Braces("tests", 20, __file__, 1, "movie {}", ("played",), None)
    made.__dict__.update(distinct_id="u1")
    MessageHandler(waiting).handle(made)  # type: ignore[arg-type]
    travelled = pickle.loads(pickle.dumps(waiting.get_nowait()))

    assert ("movie played", "movie played") == (travelled.event, travelled.getMessage())
    assert type(travelled) is logging.LogRecord
    assert "distinct_id" in fields_of(travelled)


# Adapters, filters, levels, warnings


def test_adapters_say_who(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """What a `LoggerAdapter` adds to each record counts as if the call had given it."""
    handler = make_handler()
    adapter = logging.LoggerAdapter(make_log(handler), {"distinct_id": "u1", "colour": "red"})
    adapter.info("movie played", stacklevel=2)
    if sys.version_info >= (3, 13):
        merging = logging.LoggerAdapter(adapter.logger, {"distinct_id": "u2"}, merge_extra=True)
        merging.info("movie stopped", extra={"colour": "blue"})
    assert handler.flush(SOON)

    found = [(e.event, e.distinct_id, e.properties["colour"]) for e in inspector.events]
    expected = [("movie played", "u1", "red"), ("movie stopped", "u2", "blue")]
    assert expected[: len(found)] == found
    assert len(found) == (2 if sys.version_info >= (3, 13) else 1)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters replace records from 3.12 on")
@pytest.mark.parametrize("door", ["ours", "MessageHandler"])
def test_a_filter_may_replace_the_record(
    door: str, inspector: Any, make_handler: Any, make_log: Any
) -> None:
    """What a filter returns is the record from then on."""

    def replace(record: logging.LogRecord) -> logging.LogRecord:
        return logging.makeLogRecord({**record.__dict__, "distinct_id": "replaced"})

    handler = make_handler()
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    first: Any = handler if door == "ours" else MessageHandler(waiting)  # type: ignore[arg-type]
    first.addFilter(replace)
    make_log(first).info("movie played", extra={"event": "played"})
    while not waiting.empty():
        handler.handle(waiting.get_nowait())
    assert handler.flush(SOON)

    assert ["replaced"] == [event.distinct_id for event in inspector.events]


def raising(record: logging.LogRecord) -> bool:
    raise RuntimeError("no")


def test_a_filter_that_raises_stops_the_record(make_handler: Any, make_log: Any) -> None:
    """Nothing comes out of the log call; the record is counted and goes no further."""
    handler = make_handler()
    handler.addFilter(raising)
    make_log(handler).info("movie played", extra={"distinct_id": "u1"})

    assert {"accepted": 1, "filter_failed": 1}.items() <= dict(handler.counts).items()


def test_a_filter_at_the_door_that_raises_stops_the_record(make_log: Any, caplog: Any) -> None:
    """The same for `MessageHandler`."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    door = MessageHandler(waiting)  # type: ignore[arg-type]
    door.addFilter(raising)
    log = make_log(door)
    log.info("movie played", extra={"distinct_id": "u1"})
    log.info("no event")

    assert (2, True) == (door.lost, waiting.empty())
    assert 1 == len(caplog.records)
    assert "RuntimeError" in caplog.text


@pytest.mark.parametrize("levelno", [None, "INFO", object()], ids=["None", "text", "object"])
def test_a_record_without_a_level_is_an_event(
    levelno: Any, inspector: Any, make_handler: Any
) -> None:
    """Whoever puts a record together with no number as its level gets no exception."""
    handler = make_handler(exceptions="ERROR", logs={"level": "DEBUG"})
    record = record_of(distinct_id="u1", levelno=levelno, levelname="ERROR")
    handler.handle(record)
    Listener(queue.SimpleQueue(), handler, respect_handler_level=True).handle(record)
    assert handler.flush(SOON)

    events = [event.event for event in inspector.events]
    assert ["order failed"] * 2 == [event for event in events if event == "order failed"][:2]
    assert "internal_error" not in handler.counts


@pytest.fixture
def captured_warnings() -> Iterator[None]:
    logging.captureWarnings(True)
    yield
    logging.captureWarnings(False)


@pytest.mark.usefixtures("captured_warnings")
def test_captured_warnings_are_no_events(inspector: Any, make_handler: Any) -> None:
    """`logging.captureWarnings` logs what nobody said of a person: nothing is sent."""
    handler = make_handler()
    log = logging.getLogger("py.warnings")
    log.addHandler(handler)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("distinct_id is old", DeprecationWarning, stacklevel=1)
    log.removeHandler(handler)
    assert handler.flush(SOON)

    assert (0, []) == (handler.counts["accepted"], inspector.events)


# Formats


BASIC = """
import logging, sys
from posthog_logging import PostHogHandler, PostHogLogsHandler

handler = {handler}
logging.basicConfig(handlers=[handler], level="INFO"{format})
logging.error("order failed", exc_info=ValueError("no"))
"""


@pytest.mark.parametrize("layout", ["", ', format="%(asctime)s %(message)s"'], ids=["", "own"])
@pytest.mark.parametrize(
    "handler",
    [
        'PostHogLogsHandler("phc_test", sys.argv[1])',
        'PostHogHandler("phc_test", sys.argv[1], logs=True)',
    ],
    ids=["logs", "events"],
)
def test_the_format_of_basic_config_is_for_a_console(
    handler: str, layout: str, run_script: Any, inspector: Any
) -> None:
    """`basicConfig` gives its format to each handler without one: a log is its message."""
    done = run_script(BASIC.format(handler=handler, format=layout), inspector.url)

    assert (0, "") == (done.returncode, done.stderr)
    assert ["order failed"] == [event.event for event in inspector.events]


def test_a_format_of_ones_own_is_kept(inspector: Any) -> None:
    """Whoever sets a formatter, even that one, gets what it makes."""
    handler = PostHogLogsHandler("phc_test", inspector.url)
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    handler.handle(record_of())
    handler.close()

    assert ["ERROR:tests:order failed"] == [event.event for event in inspector.events]
