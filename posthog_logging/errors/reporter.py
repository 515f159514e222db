"""
Report exceptions and logged errors as ``$exception`` events: each once, and rate-limited.

Called by the handler for its records, by the structlog processor, the middlewares, the
interpreter's exception hooks, and the program itself.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import time

from collections.abc import Callable, Mapping
from types import FrameType, MappingProxyType, TracebackType
from typing import Any, NamedTuple

from .. import context
from ..context import Bound
from ..events.exc_info import normalise_exc_info
from ..events.faults import faults
from ..events.identifiers import stamp
from ..events.levels import level_of
from ..events.records import (
    Fields,
    bound_to,
    fields_in_entry,
    fields_in_message,
    fields_of,
    text_of,
)
from ..events.timestamps import created_or_now
from .exception_list import (
    LOGGER,
    MANUAL,
    STRUCTLOG,
    Boundary,
    exception_from_text,
    exception_properties,
    message_properties,
    normalise_level,
    without_owned,
)
from .frames import InApp, is_in_app
from .limits import RateLimit
from .marks import Marks
from .masking import masked
from .steps import Steps
from .tracebacks import before_traceback, is_traceback, traceback_in


__all__ = ["Reporter", "fields_and_message"]

Take = Callable[[Mapping[str, Any], float, Bound], "str | None"]
Rate = tuple[int, float]

# Fields of a log call that describe its event, not its exception.
_EVENT_ONLY = frozenset({"event", "kind", "uuid", "set", "set_once", "previous_id"})
# Where structlog and its processors put the exception.
_EXCEPTION_KEYS = frozenset({"exc_info", "exception", "stack", "stack_info"})
_LONGEST = 8 * 1024  # characters of a log message, as for an exception's message


class _Case(NamedTuple):
    """One failure to report: the error, the name of its type, and a function to describe it."""

    error: Any
    kind: str
    described: Callable[[], dict[str, Any]]


class Reporter:
    """
    Report exceptions as events.

    Remembers each reported exception, so that a logger, a middleware and a hook that all catch
    the same one report it once.

    Args:
        take: accepts an event; returns its uuid, or None if it was refused.
        refuse: counts a report that was not sent, by reason and name.
        is_disabled: returns whether no event would be accepted at present.
        level: the lowest level of log calls that are reported; None: none are.
        rate: how many reports of one type to allow at once, and how many more a second; None:
            no limit.
        clock: returns monotonic seconds.
        messages: also report log calls without an exception, from *level* on, which is ERROR
            if it is None.
        steps: how many of the context's last log records and events to attach; 0: none.
        in_app: returns whether code is the project's, by module and path; see `in_app_rule`.
        variables: include the local variables of the project's own frames.
    """

    def __init__(
        self,
        take: Take,
        refuse: Callable[[str, str], None],
        is_disabled: Callable[[], bool | None],
        level: int | None = None,
        rate: Rate | None = (10, 1.0),
        clock: Callable[[], float] = time.monotonic,
        *,
        messages: bool = False,
        steps: int = 0,
        in_app: InApp = is_in_app,
        variables: bool = False,
    ) -> None:
        self.level = level
        #: The steps before an exception; None if none are recorded.
        self.steps = Steps(steps) if steps else None
        self._take = take
        self._refuse = refuse
        self._is_disabled = is_disabled
        self._rate = None if rate is None else RateLimit(*rate)
        self._clock = clock
        self._messages_from = (level or logging.ERROR) if messages else None
        self._in_app = in_app
        self._variables = variables
        self._marks = Marks(in_app)

    @property
    def sees_every_record(self) -> bool:
        """Whether `record` has to be called with every log record."""
        return self.level is not None or self.steps is not None

    def capture(
        self,
        error: Any,
        boundary: Boundary = MANUAL,
        distinct_id: Any = None,
        properties: Any = None,
        level: str | int | None = None,
    ) -> str | None:
        """
        Report *error*; return the uuid of its event, or None if it was refused.

        For an exception that was reported before, returns the uuid of that event.
        """
        fields = {"distinct_id": distinct_id, "properties": properties}
        case = self._case_of(error, None, boundary, level, sys._getframe())
        return self._report(case, fields, time.time())

    def record(self, record: logging.LogRecord) -> None:
        """Report the exception or error of *record*, if it has one; add it to the steps."""
        try:
            if self.level is not None and level_of(record) >= self.level:
                self._report_record(record)
        except faults() as failure:  # a log call never raises
            self._refuse("internal_error", type(failure).__name__)
        if self.steps is not None:
            self.steps.record(record)

    def entry(self, entry: Mapping[Any, Any], method: str, levelno: int, created: float) -> None:
        """Report the exception or error of a structlog *entry*; add it to the steps."""
        reported = self.level is not None and levelno >= self.level and not self._is_disabled()
        if not reported and self.steps is None:
            return
        fields, message = fields_in_entry(_without_traces(entry), created)
        if reported:
            self._report_entry(entry, Fields(fields, message), method, levelno, created)
        if self.steps is not None and levelno >= logging.INFO:
            self.steps.entry(fields, message, method, created)

    def _report_record(self, record: logging.LogRecord) -> None:
        logged = self._messages_from is not None and level_of(record) >= self._messages_from
        if not (logged or _may_have_exception(record)) or self._is_disabled():
            return
        case = self._case_in(record)
        if case is None and not logged:
            return
        fields, message = fields_and_message(record)
        place = _place(record, message)
        if case is None:
            level = normalise_level(record.levelname) or record.levelno
            site = _call_site(record) if record.thread == threading.get_ident() else None
            name = f"{record.name or 'root'}"
            case = self._case_of_message(record, name, message, level, site)
            template = record.msg if isinstance(record.msg, str) else message
            place["$exception_fingerprint"] = _fingerprint(name, template)
        self._report(case, fields, record.created, place, _identity_of(record))

    def _report_entry(
        self, entry: Mapping[Any, Any], found: Fields, method: str, levelno: int, created: float
    ) -> None:
        if "exc_info" not in entry and method == "exception":
            entry = {**entry, "exc_info": True}  # as structlog's own `set_exc_info` does
        level = normalise_level(method) or levelno
        place = {"message": _clipped(found.name), "level": method}
        case = self._case_in_entry(entry, level, sys._getframe())
        if case is None:
            if self._messages_from is None or levelno < self._messages_from:
                return
            name = entry.get("logger")
            name = name if isinstance(name, str) else "structlog"
            case = self._case_of_message(None, name, found.name, level, None, STRUCTLOG)
            place["$exception_fingerprint"] = _fingerprint(name, found.name)
        self._report(case, found.fields, created, place)

    def _report(
        self,
        case: _Case,
        fields: Mapping[Any, Any],
        created: float,
        place: Mapping[str, Any] = MappingProxyType({}),
        bound: Bound | None = None,
    ) -> str | None:
        """Send the event of *case*, unless it was sent before; never raise."""
        if self._is_disabled():
            return None
        name, _ = stamp(_moment_of(created))
        marked = isinstance(case.error, (BaseException, logging.LogRecord))
        sent = None
        try:
            first = self._marks.claim(case.error, name) if marked else name
            if first != name:
                return first
            bound = bound or context.with_structlog()
            sent = self._send(case, {**fields, "uuid": name}, created, place, bound)
        except faults() as failure:
            self._refuse("internal_error", type(failure).__name__)
        if sent is None and marked:
            self._marks.withdraw(case.error, name)  # not reported, so not marked
        return sent

    def _send(
        self,
        case: _Case,
        fields: Mapping[Any, Any],
        created: float,
        place: Mapping[str, Any],
        bound: Bound,
    ) -> str | None:
        if self._rate is not None and not self._rate.allow(case.kind, self._clock()):
            self._refuse("rate_limited", case.kind)
            return None
        own = fields.get("properties")
        if not isinstance(own, Mapping):
            own = {} if own is None else {"properties": own}
        event = {
            **{k: v for k, v in without_owned(fields).items() if k not in _EVENT_ONLY},
            "event": "$exception",
            "uuid": fields["uuid"],
            "properties": {**without_owned(own), **masked(case.described())},
        }
        defaults = {**masked(self._steps_before(created)), **masked(dict(place))}
        defaults.update(without_owned(bound.properties))
        return self._take(event, created, Bound(bound.distinct_id, defaults))

    def _steps_before(self, created: float) -> dict[str, Any]:
        steps = [] if self.steps is None else self.steps.before(_moment_of(created))
        return {"$exception_steps": steps} if steps else {}

    def _case_in(self, record: logging.LogRecord) -> _Case | None:
        """Return the exception of *record*, or its text if the record came from a queue."""
        level = normalise_level(record.levelname) or record.levelno
        # In another thread, behind a queue, the current stack is not the record's.
        stack = sys._getframe() if record.thread == threading.get_ident() else None
        found = normalise_exc_info(record.exc_info)
        if found is not None:
            boundary = STRUCTLOG if "_logger" in record.__dict__ else LOGGER
            return self._case_of(*found, boundary, level, stack)
        if isinstance(record.msg, dict):
            return self._case_in_entry(record.msg, level, stack)
        text = traceback_in(record)
        return _case_of_text(text, LOGGER, level) if text else None

    def _case_in_entry(
        self, entry: Mapping[Any, Any], level: str | int, stack: FrameType | None
    ) -> _Case | None:
        found = normalise_exc_info(entry.get("exc_info"))
        if found is not None:
            return self._case_of(*found, STRUCTLOG, level, stack)
        text = entry.get("exception")  # set by structlog's `format_exc_info`
        if isinstance(text, str) and is_traceback(text):
            return _case_of_text(text, STRUCTLOG, level)
        return None

    def _case_of(
        self,
        error: Any,
        traceback: TracebackType | None,
        boundary: Boundary,
        level: str | int | None,
        stack: FrameType | None,
    ) -> _Case:
        kind = error if isinstance(error, type) else type(error)
        name: str = type.__dict__["__qualname__"].__get__(kind)  # bypasses its metaclass

        def described() -> dict[str, Any]:
            return exception_properties(
                error,
                boundary,
                level=level,
                traceback=traceback,
                stack=stack,
                in_app=self._in_app,
                variables=self._variables,
            )

        return _Case(error, name, described)

    def _case_of_message(
        self,
        record: logging.LogRecord | None,
        name: str,
        message: Any,
        level: str | int,
        site: FrameType | None,
        boundary: Boundary = LOGGER,
    ) -> _Case:
        def described() -> dict[str, Any]:
            return message_properties(
                name,
                message if isinstance(message, str) else str(message),
                level=level,
                site=site,
                boundary=boundary,
                in_app=self._in_app,
            )

        return _Case(record, name, described)


def _case_of_text(text: str, boundary: Boundary, level: str | int | None) -> _Case:
    properties = exception_from_text(text, boundary, level=level)
    return _Case(None, properties["$exception_type"], lambda: properties)


def _may_have_exception(record: logging.LogRecord) -> bool:
    """Return False for most records without an exception: a cheap first test."""
    given = record.exc_info or record.exc_text or isinstance(record.msg, dict)
    return bool(given) or record.args is None


def _identity_of(record: logging.LogRecord) -> Bound:
    """
    Return the values bound for *record*; structlog's only while its log call runs.

    Another thread, or a handler that keeps records, has a different person's: structlog does not
    note when a value was bound.
    """
    bound = bound_to(record)
    is_now = record.thread == threading.get_ident() and _call_site(record) is not None
    return context.with_structlog(bound) if is_now else bound


def _call_site(record: logging.LogRecord) -> FrameType | None:
    """Return the frame of the log call; None if it is not on the current stack."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_lineno == record.lineno and frame.f_code.co_filename == record.pathname:
            return frame
        frame = frame.f_back
    return None


def _moment_of(created: Any) -> float:
    """Return a record's time, or now; whoever takes the event warns of one that is no time."""
    return created_or_now(created, lambda key, news: None)


def _fingerprint(logger: str, template: Any) -> str:
    """Return a fingerprint that groups the reports of one log call, for any arguments."""
    text = template if isinstance(template, str) else ""
    return hashlib.sha256(f"{logger}\0{text}".encode("utf-8", "replace")).hexdigest()


def fields_and_message(record: logging.LogRecord) -> Fields:
    """Return the fields of *record* without its exception, and its message."""
    if isinstance(record.msg, dict):
        return fields_in_entry(_without_traces(record.msg), record.created)
    structured = fields_in_message(record)
    if structured is not None:
        return structured
    message = text_of(record)
    if record.args is None:
        message = before_traceback(message)
    return Fields(fields_of(record), message)


def _without_traces(entry: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in entry.items() if key not in _EXCEPTION_KEYS}


def _place(record: logging.LogRecord, message: Any) -> dict[str, Any]:
    """Return the properties that describe the log call."""
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
