"""Why a log call would be an event, or none: as `logging` would have it, and without doing it."""

from __future__ import annotations

import json
import logging
import queue

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from logging.handlers import MemoryHandler, QueueHandler, QueueListener
from typing import Any

import pytest

from posthog_logging import Listener, MessageHandler, PostHogHandler, PostHogLogsHandler, context
from posthog_logging.explain import _WHY, Explanation, Sight, carriers, explain
from posthog_logging.extras import alias, group, identify
from posthog_logging.inspector import Inspector
from posthog_logging.wire.posthog import V0


WHO = {"distinct_id": "user-1"}
TINY = replace(V0, limits=replace(V0.limits, event_bytes=50))


class Held(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return False


class Failing(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise OSError("no")


def failing_hook(event: dict[str, Any]) -> dict[str, Any]:
    raise OSError("no")


def only(explanation: Explanation) -> Sight:
    """Return what the one handler of ours makes of it."""
    (sight,) = explanation.sights
    return sight


@contextmanager
def disabled(log: logging.Logger) -> Iterator[None]:
    """Disable *log* as dictConfig does."""
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


# What the handler makes of it


def test_an_event(make_handler: Any, make_log: Any, inspector: Inspector) -> None:
    """The event is told as it would be sent; nothing is sent, nothing is counted."""
    handler = make_handler(properties={"service": "films"})
    log = make_log(handler)

    explanation = explain(log, "movie played", extra={**WHO, "film": "Metropolis"})
    sight = only(explanation)
    handler.flush()

    assert explanation.is_event
    assert ("event", "", f"{log.name} > PostHogHandler") == (sight.outcome, sight.why, sight.way)
    assert sight.message is not None
    assert ("movie played", "user-1") == (sight.message.event, sight.message.distinct_id)
    assert {"service": "films", "film": "Metropolis"}.items() <= sight.message.properties.items()
    assert ([], 0) == (inspector.requests, handler.counts["accepted"])


def test_it_is_what_the_call_sends(make_handler: Any, make_log: Any, inspector: Inspector) -> None:
    """The explained event is the one that the call itself sends, but for its id and its time."""
    # V1 has the library's name in a header.
    hook: Any = lambda event: {**event, "event": event["event"].upper()}  # noqa: E731
    handler = make_handler(before_send=hook, dialect="posthog-v0")
    log = make_log(handler)
    extra = {**WHO, "set": {"plan": "gold"}, "n": 1}

    message = only(explain(log, "paid", extra=extra)).message
    log.info("paid", extra=extra)
    handler.flush()
    (event,) = inspector.events

    assert message is not None
    assert (message.event, message.distinct_id, message.properties) == event.message[:3]


@pytest.mark.parametrize(
    ("options", "call", "why"),
    [
        ({}, {}, "not_opted_in"),
        ({}, {"extra": identify(None)}, "no_distinct_id"),
        ({}, {"extra": alias(None, "u")}, "no_previous_id"),
        ({}, {"extra": group("", "acme")}, "no_group"),
        ({}, {"extra": {**WHO, "kind": "set"}}, "empty_set"),
        ({}, {"extra": {**WHO, "event": 3}}, "bad_event_name"),
        ({}, {"extra": WHO, "message": " "}, "no_event_name"),
        ({"dialect": TINY}, {"extra": WHO}, "oversized"),
        ({"level": "ERROR"}, {"extra": WHO}, "level"),
        ({"before_send": lambda event: None}, {"extra": WHO}, "before_send"),
        ({"before_send": failing_hook}, {"extra": WHO}, "before_send_failed"),
        ({"send": False}, {"extra": WHO}, "send_is_off"),
        ({"api_key": ""}, {"extra": WHO}, "no_api_key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_event(options: Any, call: Any, why: str, make_handler: Any, make_log: Any) -> None:
    """What keeps a record from being an event has a word, a sentence, and no count."""
    handler = make_handler(**options)
    before = handler.counts

    explanation = explain(make_log(handler), **call)
    sight = only(explanation)

    assert (False, "none", why) == (explanation.is_event, sight.outcome, sight.why)
    assert before == handler.counts
    assert any(line.startswith(f"  {_WHY[why]}") for line in explanation.lines())


@pytest.mark.parametrize(
    ("end", "why"),
    [(PostHogHandler.opt_out, "opted_out")],
    ids=["opted out"],
)
def test_a_silent_handler(end: Any, why: str, make_handler: Any, make_log: Any) -> None:
    """Of one that takes nothing now, the event that it would otherwise be is told all the same."""
    handler = make_handler()
    end(handler)

    explanation = explain(make_log(handler), "paid", extra=WHO)
    sight = only(explanation)

    assert (False, why, "paid") == (explanation.is_event, sight.why, sight.message and "paid")


def test_what_is_mended_is_told(make_handler: Any, make_log: Any) -> None:
    """What the handler would mend on the way is said, without the library's own warning."""
    said = only(explain(make_log(make_handler()), extra={"distinct_id": "null"}))

    assert 2 == len(said.notes)
    assert "names nobody" in said.notes[0]


def test_structlogs_shape(make_handler: Any, make_log: Any) -> None:
    """A message that is an entry of structlog's is read as the handler reads it."""
    text = json.dumps({"event": "paid", "distinct_id": "user-1"})
    message = only(explain(make_log(make_handler()), text)).message

    assert message is not None
    assert ("paid", "user-1") == message[:2]


def test_the_context_counts(make_handler: Any, make_log: Any) -> None:
    """Who is bound around `explain` is bound around the call."""
    log = make_log(make_handler())
    with context.identity("user-7"):
        message = only(explain(log, extra={"event": "paid"})).message

    assert message is not None
    assert "user-7" == message.distinct_id


def test_logs(make_handler: Any, make_log: Any) -> None:
    """A handler that sends logs, too, has a sight of each; a plain line is a log alone."""
    handler = make_handler(logs="WARNING")
    log = make_log(handler, PostHogLogsHandler(""))

    found = explain(log, level=logging.WARNING)
    below = explain(log)
    log.handlers[1].close()

    assert [("none", "not_opted_in"), ("log", ""), ("none", "no_api_key")] == [
        (sight.outcome, sight.why) for sight in found.sights
    ]
    assert ["none", "none", "none"] == [sight.outcome for sight in below.sights]
    assert not found.is_event


# The way


def test_the_loggers_level(make_handler: Any, make_log: Any) -> None:
    """A call below the level in force is stopped, and the logger that set the level is named."""
    parent = make_log(make_handler(), level=logging.ERROR)

    explanation = explain(parent.getChild("deep.down"), extra=WHO)

    cause, _, remedy = explanation.stopped.partition(". To do: ")
    assert (f"the level of the logger {parent.name} is ERROR", ()) == (cause, explanation.sights)
    assert f"logging.getLogger('{parent.name}.deep.down').setLevel('INFO')" == remedy


def test_a_disabled_logger(make_handler: Any, make_log: Any) -> None:
    """A logger that dictConfig has disabled is called that, with what would have helped."""
    log = make_log(make_handler())
    with disabled(log):
        explanation = explain(log, extra=WHO)

    assert "disable_existing_loggers" in explanation.stopped
    assert not explanation.is_event


def test_logging_disable(make_handler: Any, make_log: Any) -> None:
    """``logging.disable`` is named."""
    log = make_log(make_handler())
    logging.disable(logging.CRITICAL)
    try:
        explanation = explain(log, extra=WHO)
    finally:
        logging.disable(logging.NOTSET)

    assert "logging.disable(CRITICAL) was called" == explanation.stopped


@pytest.mark.parametrize(("held", "detail"), [(Held, "Held"), (Failing, "Failing, with OSError")])
def test_filters(held: Any, detail: str, make_handler: Any, make_log: Any) -> None:
    """A filter of the logger, or of the handler, is named."""
    handler = make_handler()
    log = make_log(handler)
    handler.addFilter(held())
    by_handler = only(explain(log, extra=WHO))
    log.addFilter(held())
    by_logger = explain(log, extra=WHO)
    log.filters.clear()

    assert ("filter", detail) == (by_handler.why, by_handler.detail)
    assert (f"a filter of the logger, {detail}", ()) == (by_logger.stopped, by_logger.sights)


def test_an_extra_that_logging_refuses(make_handler: Any, make_log: Any) -> None:
    """An extra with a name of the record's own raises in the program; it is told here."""
    explanation = explain(make_log(make_handler()), extra={**WHO, "name": "Ada"})

    assert "KeyError" in explanation.stopped
    assert "'name'" in explanation.stopped


def test_propagation(make_handler: Any, make_log: Any) -> None:
    """Handlers of the loggers above count, up to one that does not propagate."""
    parent = make_log(make_handler())
    child = parent.getChild("child")

    through = explain(child, extra=WHO)
    child.propagate = False
    cut = explain(child, extra=WHO)

    assert f"{parent.name} > PostHogHandler" == only(through).way
    assert () == cut.sights
    assert (
        f"The logger {child.name} has propagate=False: handlers above it see nothing." in cut.notes
    )
    assert any(parent.name in note for note in cut.notes[2:])


def test_an_unknown_name() -> None:
    """A name that no logger had is told of: it may be a slip."""
    first = explain("tests.never_seen_before", level="ERROR")
    again = explain("tests.never_seen_before", level="ERROR")

    assert "check its spelling" in first.notes[0]
    assert not any("spelt" in note for note in again.notes)
    assert ("root", "ERROR") == (explain("").logger, first.level)


@pytest.mark.parametrize("maker", [QueueHandler, MessageHandler])
def test_through_a_queue(maker: Any, make_handler: Any, make_log: Any) -> None:
    """What is behind a queue is found by its listener; only ours takes the context along."""
    waiting: queue.Queue[Any] = queue.Queue()
    listener = Listener(waiting, logging.NullHandler(), make_handler())
    log = make_log(maker(waiting))

    with context.identity("user-7"):
        sight = only(explain(log, "paid", extra={"event": "paid"}))

    assert f"{log.name} > {maker.__name__} > PostHogHandler" == sight.way
    assert sight.message is not None
    assert (maker is MessageHandler) == (sight.message.distinct_id == "user-7")
    assert (True, 2) == (waiting.empty(), len(listener.handlers))


@pytest.mark.parametrize("respects", [True, False])
def test_levels_behind_a_queue(respects: bool, make_handler: Any, make_log: Any) -> None:
    """A listener asks for its handlers' levels if it was told to."""
    waiting: queue.Queue[Any] = queue.Queue()
    behind = make_handler(level="ERROR")
    listener = QueueListener(waiting, behind, respect_handler_level=respects)
    log = make_log(QueueHandler(waiting))

    assert respects != explain(log, extra=WHO).is_event
    assert listener.respect_handler_level == respects


def test_nobody_listens(make_log: Any) -> None:
    """A `MessageHandler` whose queue nobody here reads is told of."""
    log = make_log(MessageHandler(queue.Queue()), QueueHandler(queue.Queue()))

    sight = only(explain(log, extra=WHO))

    assert (None, "no_listener") == (sight.handler, sight.why)


def test_a_buffer(make_handler: Any, make_log: Any) -> None:
    """A `MemoryHandler` leads to its target."""
    target = make_handler(level="ERROR")
    log = make_log(MemoryHandler(10, target=target))

    explanation = explain(log, extra=WHO)
    log.handlers[0].close()

    assert explanation.is_event
    assert f"{log.name} > MemoryHandler > PostHogHandler" == only(explanation).way


def test_a_circle(make_log: Any) -> None:
    """Handlers that lead back to themselves end the walk."""
    waiting: queue.Queue[Any] = queue.Queue()
    handler = MessageHandler(waiting)
    listener = QueueListener(waiting, handler)
    log = make_log(handler)

    assert () == explain(log, extra=WHO).sights
    assert listener.handlers == (handler,)


# The carriers, and the forms


def test_carriers(make_handler: Any, make_log: Any) -> None:
    """Each logger with a handler of ours is found, with what the handler is."""
    log, plain = make_log(make_handler(level="WARNING")), make_log(logging.NullHandler())
    found = {one.logger: one for one in carriers()}
    own = found[log.name].handler

    assert plain.name not in found
    assert own is not None
    assert ("PostHogHandler", "posthog", logging.WARNING, None, 0) == (
        own.kind,
        own.dialect.name,
        own.level,
        own.silent,
        own.counts["accepted"],
    )


def test_no_key_is_shown(make_handler: Callable[..., Any], make_log: Any) -> None:
    """Neither form has the key in it."""
    log = make_log(make_handler("phc_secret"))
    explanation = explain(log, extra=WHO)

    assert "phc_secret" not in repr((explanation, carriers(), explanation.as_dict()))


def test_both_forms(make_handler: Any, make_log: Any, inspector: Inspector) -> None:
    """Sentences for people, and what JSON takes for programs."""
    log = make_log(make_handler(disable_geoip=False))
    explanation = explain(log, "paid", extra={**WHO, "n": 1})
    lines = explanation.lines()
    found = json.loads(json.dumps(explanation.as_dict()))

    assert [
        f"A call at INFO on the logger {log.name} is an event.",
        f"{log.name} > PostHogHandler (posthog, {inspector.url}): an event",
        "  event        paid",
        "  distinct_id  user-1",
    ] == lines[:4]
    assert '"n": 1' in lines[4]
    assert (True, "event", "paid") == (
        found["event"],
        found["handlers"][0]["outcome"],
        found["handlers"][0]["message"]["event"],
    )


@pytest.mark.parametrize("logger", [7, None, ["a"]])
def test_what_is_no_logger(logger: Any) -> None:
    """A wrong logger is an error that names the parameter."""
    with pytest.raises(TypeError, match=r"^logger: must be a logger or its name"):
        explain(logger)
