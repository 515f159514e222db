"""
Explain whether a log call becomes an event (`explain`), and list the loggers with our handlers.

Loggers, handlers and queues are walked in the order in which `logging` calls them. Filters and
hooks on the way do run; nothing is sent or counted.
"""

from __future__ import annotations

import contextvars
import gc
import json
import logging

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from logging.handlers import MemoryHandler, QueueHandler, QueueListener
from typing import Any, NamedTuple

from .delivery import checks
from .delivery.handler import DeliveryHandler, Description
from .delivery.own_log import is_ours
from .delivery.reasons import LOSSES, Reason
from .events import jsonable
from .events.message import Message, Refused
from .handler import PostHogHandler
from .listener import MessageHandler


__all__ = ["Carrier", "Explanation", "Sight", "carriers", "explain"]

#: Each reason for a loss or a skip, as text.
_WHY = {
    "bad_event_name": "its event is not text",
    "before_send": "before_send returned None",
    "before_send_failed": "before_send raised, or returned something that is not an event",
    "disabled": "POSTHOG_DISABLED switches off every handler of the process",
    "empty_set": "a $set needs something to set",
    "filter": "one of the handler's filters holds it back",
    "internal_error": "what was logged could not be read",
    "level": "the handler takes higher levels only",
    "no_api_key": "the handler has no key to send with",
    "no_distinct_id": "an event about a person needs the person's distinct_id",
    "no_event_name": "it has no event, and its message is blank",
    "no_group": "a group needs a type and a key",
    "no_listener": "no QueueListener of this process reads its queue",
    "no_previous_id": "an alias needs the previous_id",
    "alias_to_itself": "an alias needs two different ids",
    "not_opted_in": "there is neither a distinct_id nor an event in its extra",
    "opted_out": "opt_out was called on the handler",
    "oversized": "it is too large for the protocol",
    "own_record": "the library does not send its own records",
    "send_is_off": "the handler has send=False",
}

#: What to do about reasons that are not in the table of losses.
_TO_DO = {
    "disabled": "unset POSTHOG_DISABLED",
    "filter": "look at the filters of the handler",
    "level": "log at a higher level, or lower the handler's",
    "no_listener": "start a Listener on its queue, unless another process has one",
    "not_opted_in": "give the call extra={'distinct_id': …} or extra={'event': …}",
    "opted_out": "call opt_in on the handler",
    "send_is_off": "remove send=False",
}

_PERSONLESS = "it keeps no person: neither call nor context names one, or the event asks for that"


class Carrier(NamedTuple):
    """
    A logger with a handler of this library, and the *way* to it: the names from logger to handler.

    *handler* is None behind a queue that no listener of this process reads.
    """

    logger: str
    way: str
    handler: Description | None


class Sight(NamedTuple):
    """
    The outcome for one handler of this library.

    *outcome* is ``"event"``, ``"log"`` or ``"none"``; *why* is the reason for ``"none"``. *notes*
    describe corrections to the data. *message* is the event, also if it would not be sent for
    lack of a key; None if there is no event.
    """

    way: str
    handler: Description | None
    outcome: str
    why: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()
    message: Message | None = None

    def lines(self) -> Iterator[str]:
        """Yield the outcome as lines of text."""
        where = f" ({self.handler.dialect.name}, {self.handler.host})" if self.handler else ""
        yield f"{self.way}{where}: {_OUTCOMES[self.outcome]}"
        if self.why:
            yield f"  {_WHY.get(self.why, self.why)}{self.detail and f' ({self.detail})'}"
            remedy = _TO_DO.get(self.why) or LOSSES.get(self.why, _UNEXPLAINED).remedy
            yield from ([f"  To do: {remedy}."] if remedy else [])
        yield from (f"  {text}" for text in self.notes)
        if self.message is not None:
            yield f"  event        {self.message.event}"
            yield f"  distinct_id  {self.message.distinct_id}"
            own = jsonable.jsonable(self.message.properties)
            yield f"  properties   {json.dumps(own, ensure_ascii=False)}"

    def as_dict(self) -> dict[str, Any]:
        """Return a dict that is ready for JSON."""
        return {
            "way": self.way,
            "dialect": self.handler and self.handler.dialect.name,
            "host": self.handler and self.handler.host,
            "outcome": self.outcome,
            "why": self.why,
            "detail": self.detail,
            "notes": list(self.notes),
            "message": self.message and self.message._asdict(),
        }


_UNEXPLAINED = Reason("")
_OUTCOMES = {"event": "an event", "log": "a log line", "none": "nothing"}


@dataclass(frozen=True)
class Explanation:
    """
    The outcome of a log call, with one `Sight` per handler that it reaches.

    *stopped* is why `logging` itself drops the call; "" if it does not.
    """

    logger: str
    level: str
    stopped: str
    notes: tuple[str, ...]
    sights: tuple[Sight, ...]

    @property
    def is_event(self) -> bool:
        """Whether any handler would send an event."""
        return any(sight.outcome == "event" for sight in self.sights)

    def lines(self) -> list[str]:
        """Return the explanation as lines of text."""
        verdict = "is an event" if self.is_event else "is not an event"
        return [
            f"A call at {self.level} on the logger {self.logger} {verdict}.",
            *([f"logging drops it: {self.stopped}"] if self.stopped else []),
            *self.notes,
            *(line for sight in self.sights for line in sight.lines()),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return a dict that is ready for JSON."""
        return {
            "logger": self.logger,
            "level": self.level,
            "event": self.is_event,
            "stopped": self.stopped,
            "notes": list(self.notes),
            "handlers": [sight.as_dict() for sight in self.sights],
        }


def explain(
    logger: str | logging.Logger,
    message: str = "a log call",
    level: int | str = logging.INFO,
    extra: Mapping[str, Any] | None = None,
) -> Explanation:
    """
    Return what ``logger.log(level, message, extra=extra)`` would send, and why.

    Identity bound in `context` applies as it would to the log call. Raises ``TypeError`` or
    ``ValueError`` for a wrong *logger* or *level*.
    """
    if not isinstance(logger, (str, logging.Logger)):
        raise TypeError(f"logger: must be a logger or its name, not {type(logger).__name__}")
    levelno = checks.level("level", level)
    notes = [] if not isinstance(logger, str) or _is_known(logger) else [_UNKNOWN]
    found = logging.getLogger(logger) if isinstance(logger, str) else logger
    sights: list[Sight] = []
    record, stopped = _record(found, levelno, message, extra)
    if record is not None:
        for current in _upwards(found):
            for handler in current.handlers:
                sights += _sights(handler, record, current.name)
        notes += _notes(found, sights)
    return Explanation(
        found.name, logging.getLevelName(levelno), stopped, tuple(notes), tuple(sights)
    )


def carriers() -> list[Carrier]:
    """Return every logger with a handler of this library, directly or behind a queue."""
    return [
        Carrier(logger.name, way, last.describe() if isinstance(last, DeliveryHandler) else None)
        for logger in _loggers()
        for handler in logger.handlers
        for way, last in _leaves(handler, logger.name)
    ]


_UNKNOWN = (
    "No logger of this name is in use yet: check its spelling, and that the module was imported."
)


def _loggers() -> list[logging.Logger]:
    root = logging.getLogger()
    known = sorted(root.manager.loggerDict.items())
    return [root, *(entry for _, entry in known if isinstance(entry, logging.Logger))]


def _is_known(name: str) -> bool:
    return name in {"", *(logger.name for logger in _loggers())}


def _record(
    logger: logging.Logger, level: int, message: str, extra: Mapping[str, Any] | None
) -> tuple[logging.LogRecord | None, str]:
    """Return the record that `logging` would pass to handlers, else None and the reason."""
    stopped = _disabled(logger, level)
    if stopped:
        return None, stopped
    try:
        record = logger.makeRecord(
            logger.name, level, "(explain)", 0, message, (), None, None, extra
        )
    except KeyError as error:  # a key of *extra* is an attribute of every record
        return None, (
            f"it raises KeyError ({error.args[0]}): the key is an attribute of every record. "
            "To do: put it under properties"
        )
    passed, detail = _filtered(logger, record)
    return passed, "" if passed is not None else f"a filter of the logger, {detail}"


def _disabled(logger: logging.Logger, level: int) -> str:
    """Return why ``logger.isEnabledFor(level)`` is false; "" if it is true."""
    if logger.disabled:
        return (
            "the logger is disabled, as dictConfig and fileConfig leave loggers that they do "
            "not name, unless disable_existing_loggers is False"
        )
    if logger.manager.disable >= level:
        return f"logging.disable({logging.getLevelName(logger.manager.disable)}) was called"
    if level < logger.getEffectiveLevel():
        setter = next(parent for parent in _ancestors(logger) if parent.level)
        remedy = f"logging.getLogger({logger.name!r}).setLevel({logging.getLevelName(level)!r})"
        lowest = logging.getLevelName(setter.level)
        return f"the level of the logger {setter.name} is {lowest}. To do: {remedy}"
    return ""


def _ancestors(logger: logging.Logger) -> Iterator[logging.Logger]:
    current: logging.Logger | None = logger
    while current is not None:
        yield current
        current = current.parent


def _upwards(logger: logging.Logger) -> Iterator[logging.Logger]:
    """Yield the loggers whose handlers get a record of *logger*."""
    for current in _ancestors(logger):
        yield current
        if not current.propagate:
            return


def _notes(logger: logging.Logger, sights: list[Sight]) -> Iterator[str]:
    """Yield hints if the record reached no handler of this library."""
    *_, last = _upwards(logger)
    if sights:
        return
    yield "No handler of this library sees it: add a PostHogHandler to this logger or to the root."
    if last.parent is not None:
        yield f"The logger {last.name} has propagate=False: handlers above it see nothing."
    elsewhere = dict.fromkeys(carrier.logger for carrier in carriers())
    if elsewhere:
        yield f"Loggers that carry one: {', '.join(elsewhere)}."


def _filtered(
    by: logging.Filterer, record: logging.LogRecord
) -> tuple[logging.LogRecord | None, str]:
    """
    Return the record if the filters of *by* pass it, else None and the filters' names.

    From Python 3.12 on a filter may return a replacement record.
    """
    names = ", ".join(getattr(each, "__name__", type(each).__name__) for each in by.filters)
    try:
        passed: Any = by.filter(record)
    except Exception as error:
        return None, f"{names}, with {type(error).__name__}"
    if not passed:
        return None, names
    return passed if isinstance(passed, logging.LogRecord) else record, ""


def _sights(
    handler: logging.Handler,
    record: logging.LogRecord,
    way: str,
    by_level: bool = True,
    seen: frozenset[int] = frozenset(),
) -> Iterator[Sight]:
    """Yield the outcome for *handler* and the handlers behind it, if they are this library's."""
    if id(handler) in seen or not list(_leaves(handler, "")):
        return
    way = f"{way} > {type(handler).__name__}"
    own = handler.describe() if isinstance(handler, DeliveryHandler) else None
    if by_level and record.levelno < handler.level:
        yield Sight(way, own, "none", "level", logging.getLevelName(handler.level))
        return
    passed, names = _filtered(handler, record)
    if passed is None:
        yield Sight(way, own, "none", "filter", names)
    elif isinstance(handler, PostHogHandler):
        yield _as_event(handler, passed, way)
        yield from _beyond(handler, passed, way, seen | {id(handler)})
    elif isinstance(handler, DeliveryHandler):
        yield _as_log(handler, passed, way)
    else:
        yield from _beyond(handler, passed, way, seen | {id(handler)})


def _as_event(handler: PostHogHandler, record: logging.LogRecord, way: str) -> Sight:
    own, notes = handler.describe(), list[str]()
    try:
        message = handler.preview(record, lambda topic, text: notes.append(text))
    except Refused as refused:
        return Sight(way, own, "none", refused.reason, refused.detail, tuple(notes))
    except Exception as error:
        return Sight(way, own, "none", "internal_error", type(error).__name__, tuple(notes))
    if message is None:
        return Sight(way, own, "none", "not_opted_in")
    if message.properties.get("$process_person_profile") is False:
        notes.append(_PERSONLESS)
    outcome = "none" if own.silent else "event"
    return Sight(way, own, outcome, own.silent or "", "", tuple(notes), message)


def _as_log(handler: DeliveryHandler, record: logging.LogRecord, way: str) -> Sight:
    own = handler.describe()
    silent = "own_record" if is_ours(record) else own.silent
    return Sight(way, own, "none" if silent else "log", silent or "")


def _beyond(
    handler: logging.Handler, record: logging.LogRecord, way: str, seen: frozenset[int]
) -> Iterator[Sight]:
    """Yield the outcomes for the handlers to which *handler* passes *record* on."""
    further = list(_next(handler))
    if not further and isinstance(handler, QueueHandler):
        yield Sight(way, None, "none", "no_listener")
    if isinstance(handler, QueueHandler):
        record = handler.prepare(record)
        # The context is lost in a queue, except the part that `MessageHandler` puts on the record.
        run = contextvars.Context().run
    else:
        run = contextvars.copy_context().run
    for other, by_level in further:
        yield from run(list, _sights(other, record, way, by_level, seen))


def _leaves(
    handler: logging.Handler, way: str, seen: frozenset[int] = frozenset()
) -> Iterator[tuple[str, logging.Handler]]:
    """Yield the handlers of this library at or behind *handler*, each with the way to it."""
    if id(handler) in seen:
        return
    way = f"{way} > {type(handler).__name__}"
    further = list(_next(handler))
    if isinstance(handler, DeliveryHandler) or (
        isinstance(handler, MessageHandler) and not further
    ):
        yield way, handler
    for other, _ in further:
        yield from _leaves(other, way, seen | {id(handler)})


def _next(handler: logging.Handler) -> Iterator[tuple[logging.Handler, bool]]:
    """Yield each handler that *handler* passes records to, and whether its level is checked."""
    if isinstance(handler, PostHogHandler) and handler.logs is not None:
        yield handler.logs, True
    if isinstance(handler, MemoryHandler) and handler.target is not None:
        yield handler.target, False
    if isinstance(handler, QueueHandler):
        for listener in _listeners(handler.queue):
            for other in listener.handlers:
                yield other, listener.respect_handler_level


def _listeners(queue: Any) -> list[QueueListener]:
    """Return the listeners that read *queue*; `logging` keeps no list of them, `gc` does."""
    # `issubclass(type(…))`, as `isinstance` would evaluate lazy proxies by their `__class__`.
    found = (each for each in gc.get_objects() if issubclass(type(each), QueueListener))
    return [listener for listener in found if listener.queue is queue]
