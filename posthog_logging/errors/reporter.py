"""
What was raised, or logged as an error, as ``$exception`` events: each once, and no storm.

Whoever catches one comes here: the handler with its records, structlog's processor, the
middlewares, the interpreter's own hooks, and the program itself.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
import time

from collections.abc import Callable, Iterable, Mapping
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
from .masking import keep_secret, masked
from .steps import Steps
from .tracebacks import before_traceback, is_traceback, traceback_in


__all__ = ["Reporter", "fields_and_message"]

Take = Callable[[Mapping[str, Any], float, Bound], "str | None"]
Rate = tuple[int, float]

# What an event says of itself, and not of the exception beside it.
_THE_EVENT_S = frozenset({"event", "kind", "uuid", "set", "set_once", "previous_id"})
# Where structlog and its processors put what was raised.
_RAISED_IN = frozenset({"exc_info", "exception", "stack", "stack_info"})
_LONGEST = 8 * 1024  # characters of a message, as of an exception's own


class _Case(NamedTuple):
    """One failure to report: what it is, what its type is called, and how to describe it."""

    error: Any
    kind: str
    described: Callable[[], dict[str, Any]]


class Reporter:
    """
    Make events of what was raised.

    An exception that was reported is remembered, so that the middleware, the logger and the
    hook that it meets next do not report it again.

    Args:
        take: takes an event; returns its uuid, None where it was refused.
        refuse: counts what was held back, by reason and name.
        is_deaf: returns whether nothing would be taken at present.
        level: the least level of a log call that is reported; None: no log call is.
        rate: how many of one type may go at once, and how many more a second; None: all.
        messages: whether a log call without an exception is reported, too: at ERROR and above
            where *level* is any.
        steps: how many of the last log records and events of a context go along; 0: none.
        in_app: decides by module and path whose code a frame is; see `in_app_rule`.
        variables: whether frames of the project's own carry their local variables.
        secrets: keys that are masked in source lines and messages, as PostHog's own are.
    """

    def __init__(
        self,
        take: Take,
        refuse: Callable[[str, str], None],
        is_deaf: Callable[[], bool | None],
        level: int | None = None,
        rate: Rate | None = (10, 1.0),
        clock: Callable[[], float] = time.monotonic,
        *,
        messages: bool = False,
        steps: int = 0,
        in_app: InApp = is_in_app,
        variables: bool = False,
        secrets: Iterable[str] = (),
    ) -> None:
        self.level = level
        #: Keeps the steps before an exception; None where they are not wanted.
        self.steps = Steps(steps) if steps else None
        self._take = take
        self._refuse = refuse
        self._is_deaf = is_deaf
        self._rate = None if rate is None else RateLimit(*rate)
        self._clock = clock
        self._messages_from = (level or logging.ERROR) if messages else None
        self._in_app = in_app
        self._variables = variables
        self._marks = Marks(in_app)
        keep_secret(*secrets)

    @property
    def sees_every_record(self) -> bool:
        """Whether it wants to be shown every log record."""
        return self.level is not None or self.steps is not None

    def capture(
        self,
        error: Any,
        boundary: Boundary = MANUAL,
        distinct_id: Any = None,
        properties: Any = None,
        level: str | int | None = None,
    ) -> str | None:
        """Report *error*; return the uuid of its event, the first one's if it had one before."""
        fields = {"distinct_id": distinct_id, "properties": properties}
        case = self._case_of(error, None, boundary, level, sys._getframe())
        return self._report(case, fields, time.time())

    def record(self, record: logging.LogRecord) -> None:
        """Report what *record* was logged with, if that was an exception; keep it as a step."""
        try:
            if self.level is not None and level_of(record) >= self.level:
                self._report_record(record)
        except faults() as failure:  # a log call never raises
            self._refuse("internal_error", type(failure).__name__)
        if self.steps is not None:
            self.steps.record(record)

    def entry(self, entry: Mapping[Any, Any], method: str, levelno: int, created: float) -> None:
        """Report what structlog's *entry* was logged with; keep it as a step."""
        reported = self.level is not None and levelno >= self.level and not self._is_deaf()
        if not reported and self.steps is None:
            return
        fields, message = fields_in_entry(_without_traces(entry), created)
        if reported:
            self._report_entry(entry, Fields(fields, message), method, levelno, created)
        if self.steps is not None and levelno >= logging.INFO:
            self.steps.entry(fields, message, method, created)

    def _report_record(self, record: logging.LogRecord) -> None:
        logged = self._messages_from is not None and level_of(record) >= self._messages_from
        if not (logged or _may_bear_one(record)) or self._is_deaf():
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
        self._report(case, fields, record.created, place, _whose(record))

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
        """Send the event of *case*, unless it was sent before; nothing is raised."""
        if self._is_deaf():
            return None
        name, _ = stamp(created)
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
            self._marks.withdraw(case.error, name)  # the mark goes with the report
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
            **{k: v for k, v in without_owned(fields).items() if k not in _THE_EVENT_S},
            "event": "$exception",
            "uuid": fields["uuid"],
            "properties": {**without_owned(own), **masked(case.described())},
        }
        beneath = {**masked(self._steps_before()), **masked(dict(place))}
        beneath.update(without_owned(bound.properties))
        return self._take(event, created, Bound(bound.distinct_id, beneath))

    def _steps_before(self) -> dict[str, Any]:
        steps = [] if self.steps is None else self.steps.recent()
        return {"$exception_steps": steps} if steps else {}

    def _case_in(self, record: logging.LogRecord) -> _Case | None:
        """Return what *record* was logged with: alive, or as the text that a queue made of it."""
        level = normalise_level(record.levelname) or record.levelno
        # The current stack is the record's, unless a queue is between the two.
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
        text = entry.get("exception")  # `format_exc_info` came before
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
        name: str = type.__dict__["__qualname__"].__get__(kind)  # whatever its own class says

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


def _may_bear_one(record: logging.LogRecord) -> bool:
    """Tell most of the records apart that bear no exception, at the least cost."""
    given = record.exc_info or record.exc_text or isinstance(record.msg, dict)
    return bool(given) or record.args is None


def _whose(record: logging.LogRecord) -> Bound:
    """Return what is bound where *record* was made; structlog's binding counts in its thread."""
    bound = bound_to(record)
    return context.with_structlog(bound) if record.thread == threading.get_ident() else bound


def _call_site(record: logging.LogRecord) -> FrameType | None:
    """Return the frame of the log call, where the current stack still has it."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_lineno == record.lineno and frame.f_code.co_filename == record.pathname:
            return frame
        frame = frame.f_back
    return None


def _fingerprint(logger: str, template: Any) -> str:
    """Return what groups the reports of one log call, whatever it was filled in with."""
    text = template if isinstance(template, str) else ""
    return hashlib.sha256(f"{logger}\0{text}".encode("utf-8", "replace")).hexdigest()


def fields_and_message(record: logging.LogRecord) -> Fields:
    """Return what *record* says beside the exception, and its message."""
    if isinstance(record.msg, dict):
        return fields_in_entry(_without_traces(record.msg), record.created)
    shaped = fields_in_message(record)
    if shaped is not None:
        return shaped
    message = text_of(record)
    if record.args is None:
        message = before_traceback(message)
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
