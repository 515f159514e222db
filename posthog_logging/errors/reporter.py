"""
What was raised, as ``$exception`` events: each exception once, and no storm of them.

Whoever catches one comes here: the handler with its records, structlog's processor, the
middlewares, the interpreter's own hooks, and the program itself.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import uuid

from collections.abc import Callable, Mapping
from types import FrameType, MappingProxyType, TracebackType
from typing import Any, NamedTuple

from .. import context
from ..context import Bound
from ..events.exc_info import normalise_exc_info
from ..events.identifiers import stamp
from ..events.levels import level_of
from ..events.records import (
    NOBODY,
    Fields,
    bound_to,
    fields_in_entry,
    fields_in_message,
    fields_of,
    text_of,
)
from .exception_list import (
    LOGGER,
    MANUAL,
    STRUCTLOG,
    SYS_EXCEPTHOOK,
    THREAD_EXCEPTHOOK,
    Boundary,
    RateLimit,
    exception_from_text,
    exception_properties,
    normalise_level,
    without_owned,
)


__all__ = ["ExceptHooks", "Reporter", "fields_and_message", "traceback_in"]

Take = Callable[[Mapping[str, Any], float, Bound], "str | None"]
Rate = tuple[int, float]

#: What a traceback begins with, a group's too.
_TRACEBACK = "Traceback (most recent call last):"
# What an event says of itself, and not of the exception beside it.
_THE_EVENT_S = frozenset({"event", "kind", "uuid", "set", "set_once", "previous_id"})
# Where structlog and its processors put what was raised.
_RAISED_IN = frozenset({"exc_info", "exception", "stack", "stack_info"})
_LONGEST = 8 * 1024  # characters of a message, as of an exception's own


class _Case(NamedTuple):
    """One exception to report: whose it is, what it is called, and how to describe it."""

    error: Any
    kind: str
    described: Callable[[], dict[str, Any]]


class Reporter:
    """
    Make events of what was raised.

    An exception that was reported bears a mark, so that the middleware, the logger and the
    hook that it meets next do not report it again.

    Args:
        take: takes an event; returns its uuid, None where it was refused.
        refuse: counts what was held back, by reason and name.
        is_deaf: tells whether nothing would be taken at present.
        level: the least level of a log call that is reported; None: no log call is.
        rate: how many of one type may go at once, and how many more a second; None: all.
    """

    def __init__(
        self,
        take: Take,
        refuse: Callable[[str, str], None],
        is_deaf: Callable[[], bool],
        level: int | None = None,
        rate: Rate | None = (10, 1.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.level = level
        self._take = take
        self._refuse = refuse
        self._is_deaf = is_deaf
        self._rate = None if rate is None else RateLimit(*rate)
        self._clock = clock
        self._mark = f"_posthog_logging_{uuid.uuid4().hex}"

    def capture(
        self,
        error: Any,
        boundary: Boundary = MANUAL,
        distinct_id: Any = None,
        properties: Any = None,
    ) -> str | None:
        """Report *error*; return the uuid of its event, the first one's if it had one before."""
        fields = {"distinct_id": distinct_id, "properties": properties}
        case = _case_of(error, None, boundary, None, sys._getframe())
        return self._report(case, fields, time.time())

    def record(self, record: logging.LogRecord) -> None:
        """Report what *record* was logged with, if that was an exception."""
        if self.level is None or level_of(record) < self.level:
            return
        try:
            if not _may_bear_one(record) or self._is_deaf():
                return
            case = _case_in(record)
            if case is None:
                return
            fields, message = fields_and_message(record)
            self._report(case, fields, record.created, _place(record, message), bound_to(record))
        except Exception as failure:  # a log call never raises
            self._refuse("internal_error", type(failure).__name__)

    def entry(self, entry: Mapping[Any, Any], method: str, levelno: int, created: float) -> None:
        """Report what structlog's *entry* was logged with, if that was an exception."""
        if self.level is None or levelno < self.level or self._is_deaf():
            return
        if "exc_info" not in entry and method == "exception":
            entry = {**entry, "exc_info": True}  # as structlog's own `set_exc_info` does
        case = _case_in_entry(entry, normalise_level(method) or levelno, sys._getframe())
        if case is not None:
            fields, message = fields_in_entry(_without_traces(entry), created)
            place = {"message": _clipped(message), "level": method}
            self._report(case, fields, created, place)

    def _report(
        self,
        case: _Case,
        fields: Mapping[Any, Any],
        created: float,
        place: Mapping[str, Any] = MappingProxyType({}),
        bound: Bound | None = None,
    ) -> str | None:
        """Send the event of *case*, unless it was sent before; nothing is raised."""
        if self._is_deaf():
            return None
        try:
            name, _ = stamp(created)
            first = self._marked(case.error, name)
            if first != name:
                return first or None
            sent = self._send(
                case, {**fields, "uuid": name}, created, place, bound or context.current()
            )
        except Exception as failure:
            self._refuse("internal_error", type(failure).__name__)
            sent = None
        if sent is None and isinstance(case.error, BaseException):
            _marks_on(case.error)[self._mark] = ""
        return sent

    def _marked(self, error: Any, name: str) -> str:
        """Return the uuid with which *error* is marked: *name*, if it bore none before."""
        if not isinstance(error, BaseException):
            return name
        first: str = _marks_on(error).setdefault(self._mark, name)  # of two threads, one reports
        return first

    def _send(
        self,
        case: _Case,
        fields: Mapping[Any, Any],
        created: float,
        place: Mapping[str, Any],
        bound: Bound | None,
    ) -> str | None:
        if self._rate is not None and not self._rate.allow(case.kind, self._clock()):
            self._refuse("rate_limited", case.kind)
            return None
        bound = bound or NOBODY
        own = fields.get("properties")
        if not isinstance(own, Mapping):
            own = {} if own is None else {"properties": own}
        event = {
            **{k: v for k, v in without_owned(fields).items() if k not in _THE_EVENT_S},
            "event": "$exception",
            "uuid": fields["uuid"],
            "properties": {**without_owned(own), **case.described()},
        }
        beneath = {**place, **without_owned(bound.properties)}
        return self._take(event, created, Bound(bound.distinct_id, beneath))


def _marks_on(error: BaseException) -> dict[str, Any]:
    """Return where *error* can be marked; no weak reference can, Python's own take none."""
    try:
        marks: dict[str, Any] = object.__getattribute__(error, "__dict__")
        return marks if type(marks) is dict else {}
    except Exception:  # a class that hides it
        return {}


def _case_of(
    error: Any,
    traceback: TracebackType | None,
    boundary: Boundary,
    level: str | int | None,
    stack: FrameType | None,
) -> _Case:
    kind = error if isinstance(error, type) else type(error)
    name: str = type.__dict__["__qualname__"].__get__(kind)  # whatever its own class says

    def described() -> dict[str, Any]:
        return exception_properties(error, boundary, level=level, traceback=traceback, stack=stack)

    return _Case(error, name, described)


def _case_of_text(text: str, boundary: Boundary, level: str | int | None) -> _Case:
    properties = exception_from_text(text, boundary, level=level)
    return _Case(None, properties["$exception_type"], lambda: properties)


def _may_bear_one(record: logging.LogRecord) -> bool:
    """Tell most of the records apart that bear no exception, at the least cost."""
    given = record.exc_info or record.exc_text or isinstance(record.msg, dict)
    return bool(given) or record.args is None


def _case_in(record: logging.LogRecord) -> _Case | None:
    """Return what *record* was logged with: alive, or as the text that a queue made of it."""
    level = normalise_level(record.levelname) or record.levelno
    # The current stack is the record's, unless a queue is between the two.
    stack = sys._getframe() if record.thread == threading.get_ident() else None
    found = normalise_exc_info(record.exc_info)
    if found is not None:
        boundary = STRUCTLOG if "_logger" in record.__dict__ else LOGGER
        return _case_of(*found, boundary, level, stack)
    if isinstance(record.msg, dict):
        return _case_in_entry(record.msg, level, stack)
    text = traceback_in(record)
    return _case_of_text(text, LOGGER, level) if text else None


def _case_in_entry(
    entry: Mapping[Any, Any], level: str | int, stack: FrameType | None
) -> _Case | None:
    found = normalise_exc_info(entry.get("exc_info"))
    if found is not None:
        return _case_of(*found, STRUCTLOG, level, stack)
    text = entry.get("exception")  # `format_exc_info` came before
    if isinstance(text, str) and _TRACEBACK in text:
        return _case_of_text(text, STRUCTLOG, level)
    return None


def traceback_in(record: logging.LogRecord) -> str:
    """Return the traceback as text, where a handler for a queue left no more of it."""
    text = record.exc_text
    if not text and record.args is None:  # `QueueHandler.prepare` made one text of it all
        text = record.msg
    if not isinstance(text, str) or _TRACEBACK not in text:
        return ""
    return text[len(_before_traceback(text)) :].lstrip("\n")


def _before_traceback(text: str) -> str:
    """Return the lines above a traceback; of a group, there are words before it on its line."""
    before, traceback, _ = text.partition(_TRACEBACK)
    return before.rpartition("\n")[0] if traceback else text


def fields_and_message(record: logging.LogRecord) -> Fields:
    """Return what *record* says beside the exception, and its message."""
    if isinstance(record.msg, dict):
        return fields_in_entry(_without_traces(record.msg), record.created)
    shaped = fields_in_message(record)
    if shaped is not None:
        return shaped
    message = text_of(record)
    if record.args is None:
        message = _before_traceback(message)
    return Fields(fields_of(record), message)


def _without_traces(entry: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in entry.items() if key not in _RAISED_IN}


def _place(record: logging.LogRecord, message: Any) -> dict[str, Any]:
    """Return what the record is: the properties with the lowest rank."""
    found = {
        "message": _clipped(message),
        "logger": record.name,
        "level": record.levelname,
        "module": record.module,
        "function": record.funcName,
        "line": record.lineno,
    }
    return {key: value for key, value in found.items() if value}


def _clipped(message: Any) -> Any:
    return message[:_LONGEST] if isinstance(message, str) else message


class ExceptHooks:
    """
    Report what nobody catches, in any thread, and then do what was done before.

    Ctrl-C and ``SystemExit`` are ends, not errors.

    Args:
        capture: reports an exception that was caught at a boundary.
    """

    def __init__(self, capture: Callable[[Any, Boundary], Any]) -> None:
        self._capture = capture
        self._reports = False
        self._before: Callable[..., Any] | None = None
        self._before_in_threads: Callable[..., Any] | None = None

    def install(self) -> None:
        """Stand in front of what is there now, unless it stands in the row already."""
        self._reports = True
        if self._before is None:
            self._before, sys.excepthook = sys.excepthook, self._uncaught
        if self._before_in_threads is None:
            before, threading.excepthook = threading.excepthook, self._uncaught_in_thread
            self._before_in_threads = before

    def remove(self) -> None:
        """Put back what was there before; where others came on top, only pass on from now on."""
        self._reports = False
        if sys.excepthook == self._uncaught and self._before is not None:
            sys.excepthook, self._before = self._before, None
        before = self._before_in_threads
        if threading.excepthook == self._uncaught_in_thread and before is not None:
            threading.excepthook, self._before_in_threads = before, None

    def _uncaught(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        self._told(kind, error, SYS_EXCEPTHOOK)
        (self._before or sys.__excepthook__)(kind, error, traceback)

    def _uncaught_in_thread(self, args: threading.ExceptHookArgs, /) -> None:
        self._told(args.exc_type, args.exc_value, THREAD_EXCEPTHOOK)
        (self._before_in_threads or threading.__excepthook__)(args)

    def _told(self, kind: Any, error: Any, boundary: Boundary) -> None:
        if self._reports and not issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self._capture(kind if error is None else error, boundary)
