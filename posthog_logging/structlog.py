"""
`PostHogProcessor`: a structlog processor that sends events and returns every entry unchanged.

It holds no state between entries and never raises.
"""

from __future__ import annotations

import logging
import sys
import time

from collections.abc import Callable, Mapping, MutableMapping
from types import FrameType
from typing import Any

from .analytics import Analytics
from .delivery import checks
from .events.faults import faults
from .events.levels import number_of
from .events.records import fields_in_entry
from .events.reentry import Guard
from .events.typed import declaration_of
from .handler import PostHogHandler


__all__ = ["PostHogProcessor"]

Select = Callable[[Mapping[str, Any]], Any]

_HIGHEST = 100  # the level of unknown methods, so that they always pass


class PostHogProcessor:
    """
    Send the structlog entries that are events.

    The entry's message is the event's name. ``distinct_id``, ``properties``, ``groups``,
    ``set`` and ``kind`` mean the same as in ``extra``. All other values become properties,
    including ``level`` and ``logger``. Put the processor before the renderer. If the entries
    also reach `logging`, use either this processor or a `PostHogHandler` there, not both.

    ``structlog.testing.capture_logs`` removes all processors, so inside it nothing is sent.

    Args:
        target: a `PostHogHandler` or an `Analytics`; entries below its level are not sent.
        select: called with the entry; returns whether it is an event. For services that bind
            ``distinct_id`` to every entry. None: an entry is an event if it has a
            ``distinct_id``, or if its message is a typed event.
        logs: send every entry to PostHog Logs, too, through the handler's ``logs=``; for
            entries that never reach `logging`. Default False.

    Raises:
        TypeError: *target*, *select* or *logs* is of a wrong type.
        ValueError: *logs* is true, but the handler has no ``logs=``.
    """

    def __init__(
        self,
        target: PostHogHandler | Analytics,
        /,
        select: Select | None = None,
        *,
        logs: bool = False,
    ) -> None:
        self._handler = target.handler if isinstance(target, Analytics) else target
        if not isinstance(self._handler, PostHogHandler):
            kind = type(target).__name__
            raise TypeError(
                f"target: must be a PostHogHandler or an Analytics, not a value of type {kind}"
            )
        self._select: Select | None = checks.hook("select", select)
        if checks.boolean("logs", logs) and self._handler.logs is None and self._handler.sends:
            raise ValueError(
                "logs: the handler takes no logs; give PostHogHandler logs=True or a level"
            )
        self._guard = Guard()
        self._logs = self._handler.logs if logs else None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._handler!r}>"

    def __call__(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Send *event_dict* if it is an event; always return it unchanged."""
        try:
            created = time.time()
            level = _level(method_name)
            is_taken = level >= self._handler.level
            if is_taken:
                self._handler.reporter.entry(event_dict, method_name, level, created)
            if self._logs is not None and level >= self._logs.level:
                self._logs.handle(_record(logger, method_name, level, event_dict, created))
            if is_taken and self._selects(event_dict):
                fields, name = fields_in_entry(event_dict, created)
                self._handler.accept(fields, name, created)
        except faults() as error:  # a log call never raises
            self._handler.refuse("internal_error", type(error).__name__)
        return event_dict

    def _selects(self, entry: Mapping[str, Any]) -> bool:
        """Return whether *entry* is an event."""
        if self._select is None or self._guard.is_inside():
            return "distinct_id" in entry or declaration_of(entry.get("event")) is not None
        try:
            return bool(self._guard.run(self._select, entry))
        except faults() as error:
            self._handler.refuse("select_failed", type(error).__name__)
            return False


def _record(
    logger: Any, method: str, level: int, entry: Mapping[str, Any], created: float
) -> logging.LogRecord:
    """Return *entry* as a `LogRecord` with the file and line of the log call."""
    name = entry.get("logger") or getattr(logger, "name", None) or "structlog"
    caller = _caller()
    path, line, function = (
        (caller.f_code.co_filename, caller.f_lineno, caller.f_code.co_name)
        if caller is not None
        else ("", 0, None)
    )
    fields = dict(entry)
    if method == "exception":
        fields.setdefault("exc_info", True)
    record = logging.LogRecord(str(name), level, path, line, fields, None, None, function)
    record.created = created
    return record


def _caller() -> FrameType | None:
    """Return the frame of the log call: the first one outside structlog and this module."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in ("structlog", "posthog_logging"):
            return frame
        frame = frame.f_back
    return None


def _level(method_name: str) -> int:
    """Return the number of the level that a structlog method logs at."""
    number = number_of(method_name)
    return _HIGHEST if number is None else number
