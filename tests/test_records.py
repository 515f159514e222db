"""The other forms in which a record can say that it is an event, and what is none of them."""

from __future__ import annotations

import datetime as dt
import json
import logging
import logging.handlers
import queue

from collections.abc import Callable
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from posthog_logging import PostHogHandler
from posthog_logging.events.records import fields_in_entry, fields_in_message
from posthog_logging.inspector import Inspector


MOMENT = 1_700_000_000.0  # 2023-11-14T22:13:20Z

ENTRY = {"event": "movie played", "distinct_id": "user-1", "movie": 7}
SAID = ({"distinct_id": "user-1", "movie": 7}, "movie played")


def record_of(message: Any, args: Any = (), **extra: Any) -> logging.LogRecord:
    """Return a record as a logger makes it."""
    log = logging.getLogger("tests.shapes")
    return log.makeRecord(log.name, logging.INFO, "app.py", 7, message, args, None, "play", extra)


def queued(record: logging.LogRecord) -> logging.LogRecord:
    """Return *record* as it comes out of a stock `QueueHandler`."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    logging.handlers.QueueHandler(waiting).handle(record)  # type: ignore[arg-type]
    out: logging.LogRecord = waiting.get()
    return out


def in_loguru(message: str, **extra: Any) -> logging.LogRecord:
    return record_of(message, extra=extra)


@pytest.mark.parametrize(
    "record",
    [
        record_of(ENTRY, _logger=None, _name="info"),
        record_of(dict(ENTRY)),
        record_of({**ENTRY, "_record": 1, "_from_structlog": True}),
        queued(record_of(ENTRY, _logger=None, _name="info")),
        record_of(f"{ENTRY}\nTraceback (most recent call last):\n  {{", _logger=None),
        record_of(json.dumps(ENTRY)),
        record_of(json.dumps({"message": ENTRY["event"], "distinct_id": "user-1", "movie": 7})),
        record_of(json.dumps({"msg": ENTRY["event"], "distinct_id": "user-1", "movie": 7})),
        in_loguru("movie played", distinct_id="user-1", movie=7),
        in_loguru(
            "2023 | INFO | tests.shapes:play:7 - movie played", distinct_id="user-1", movie=7
        ),
        in_loguru("whatever", event="movie played", distinct_id="user-1", movie=7),
    ],
    ids=(
        "dict in-house private repr repr-and-traceback json json-message json-msg"
        " loguru loguru-default-format loguru-event"
    ).split(),
)
def test_said(record: logging.LogRecord) -> None:
    """Each form says the same: the extras, and the message as the name."""
    assert SAID == fields_in_message(record)


@pytest.mark.parametrize(
    "record",
    [
        record_of("movie played"),
        record_of({"event": "movie played"}),
        record_of(json.dumps({"event": "movie played"})),
        record_of('{"a": "distinct_id"}'),
        record_of('["distinct_id"]'),
        record_of('{"distinct_id": "user-1"'),
        record_of('{"distinct_id": "%s"}', ("user-1",)),
        record_of(str(ENTRY)),
        record_of("{'distinct_id': __import__('os').abort()", _logger=None),
        record_of("{'distinct_id': <object>}", _logger=None),
        record_of("{**{}, 'a': 'distinct_id'}", _logger=None),
        record_of('{"distinct_id": ' + "[" * 100_000),
        record_of("{'distinct_id': " + "[" * 100_000, _logger=None),
        record_of('{"distinct_id": "' + "x" * 2_000_000 + '"}'),
        record_of(b'{"distinct_id": 1}'),
        record_of(None),
        record_of(["distinct_id"]),
        in_loguru("movie played", event="only"),
        record_of("movie played", extra="distinct_id"),
    ],
    ids=(
        "text dict-without json-without json-value json-list json-cut template foreign-repr"
        " code no-expression stars deep-json deep-repr long bytes none list loguru-without"
        " extra-is-text"
    ).split(),
)
def test_not_said(record: logging.LogRecord) -> None:
    """What does not carry a ``distinct_id`` of its own, or cannot be read, is no event."""
    assert fields_in_message(record) is None


def test_expressions_in_a_repr_stay_text() -> None:
    """In the text of a dict, a value that is no literal keeps its text; nothing is called."""
    text = "{'event': 'e', 'distinct_id': 'u', 'on': datetime.date(2024, 1, 2), 'n': -1}"

    found = fields_in_message(record_of(text, _logger=None))

    assert ({"distinct_id": "u", "on": "datetime.date(2024, 1, 2)", "n": -1}, "e") == found


@given(
    st.dictionaries(
        st.text().filter(lambda key: not key.startswith("_")),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()),
    )
)
def test_text_of_a_dict_comes_back(bound: dict[str, Any]) -> None:
    """What a stock `QueueHandler` made text of says the same as the dict."""
    entry = {**bound, "event": "e", "distinct_id": "u"}
    entry.pop("exc_info", None)

    before, after = (
        fields_in_message(make(record_of(dict(entry), _logger=None)))
        for make in (lambda one: one, queued)
    )

    assert before == after is not None


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"timestamp": "2023-11-14T22:13:20Z"}, {"timestamp": "2023-11-14T22:13:20Z"}),
        ({"timestamp": MOMENT}, {"timestamp": MOMENT}),
        ({"timestamp": "2020-01-02 03:04:05"}, {"timestamp": "2020-01-02 03:04:05"}),
        ({"timestamp": "2023-11-14 22:13:20"}, {}),
        ({"timestamp": "22:13.20"}, {}),
        ({"exc_info": None}, {}),
        ({"exc_info": False}, {}),
        ({"exc_info": ValueError("no")}, {"exception": "ValueError: no"}),
        ({"exc_info": (KeyError, KeyError(1), None)}, {"exception": "KeyError: 1"}),
        ({"exc_info": ValueError("no"), "exception": "Trace"}, {"exception": "Trace"}),
        ({"_private": 1, 7: 8, "level": "info"}, {7: 8, "level": "info"}),
        ({"kind": "identify", "set": {"a": 1}}, {"kind": "identify", "set": {"a": 1}}),
    ],
    ids=(
        "offset epoch backdated clock-in-utc clock-in-words no-exception false exception tuple"
        " formatted-before keys kind"
    ).split(),
)
def test_entry(entry: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Timestamps that say when are kept, clocks that only say now are not; private keys go."""
    given_entry = {"event": "e", **entry}

    said, name = fields_in_entry(given_entry, MOMENT)

    assert (expected, "e") == (said, name)
    assert {"event": "e", **entry} == given_entry


def test_unprintable_exception() -> None:
    """An exception whose own text raises is named by its class."""

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    said, _ = fields_in_entry({"event": "e", "exc_info": Broken()}, MOMENT)

    assert said["exception"].endswith("Broken")


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [("%s plays", ("x",), "x plays"), ("%d", ("x",), "%d"), (None, (1,), None)],
    ids=["fits", "does not fit", "no text"],
)
def test_positional_arguments(name: Any, args: Any, expected: Any) -> None:
    """Arguments that no processor put into the message yet are put into it."""
    said, found = fields_in_entry({"event": name, "positional_args": args}, MOMENT)

    assert ({}, expected) == (said, found)


def test_handler_takes_each_shape(
    inspector: Inspector,
    make_handler: Callable[..., PostHogHandler],
    make_log: Callable[..., logging.Logger],
) -> None:
    """The handler sends what says so in its message, leaves the rest, and changes no record."""
    handler = make_handler()
    log = make_log(handler)
    moment = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
    log.info({**ENTRY, "timestamp": moment}, extra={"_logger": log, "_name": "info"})
    log.info(json.dumps({**ENTRY, "kind": "identify", "set": {"plan": "gold"}}))
    log.info('{"plain": "json"}')
    log.info({"plain": "dict"})
    log.info("{plain text")
    log.info("plain", extra={"extra": {"plain": 1}})
    handler.flush()

    played, identified = inspector.wait(count=2)

    assert ("movie played", "user-1", "2024-01-02T00:00:00.000000Z") == (
        played.event,
        played.distinct_id,
        played.timestamp,
    )
    assert 7 == played.properties["movie"]
    assert set() == {"_logger", "_name"} & set(played.properties)
    assert ("$identify", {"plan": "gold"}) == (identified.event, identified.properties["$set"])
    assert 2 == handler.counts["accepted"]


class Hostile(dict):  # type: ignore[type-arg]
    """A dict that is none."""

    def __contains__(self, key: object) -> bool:
        raise RuntimeError


def test_hostile_message(
    make_handler: Callable[..., PostHogHandler], make_log: Callable[..., logging.Logger]
) -> None:
    """A message that raises when it is looked at is counted, and does not raise."""
    handler = make_handler()

    make_log(handler).info(Hostile(), extra={"extra": {}})

    assert 1 == handler.counts["internal_error"]
