"""
`PostHogProcessor`: a tap in a structlog chain, which passes every entry on as it came.

It keeps nothing between entries, and no entry makes it raise.
"""

from __future__ import annotations

import time

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from .analytics import Analytics
from .events.faults import faults
from .events.levels import number_of
from .events.records import fields_in_entry
from .events.typed import declaration_of
from .handler import PostHogHandler


__all__ = ["PostHogProcessor"]

Select = Callable[[Mapping[str, Any]], Any]

_HIGHEST = 100  # a level of somebody's own always passes


class PostHogProcessor:
    """
    Send the entries that are events, wherever in the chain.

    The event's name is the entry's message, its id the entry's ``distinct_id``; ``properties``,
    ``groups``, ``set`` and ``kind`` mean what they mean in ``extra``; every other value that is
    bound becomes a property, ``level`` and ``logger`` too. Put it before the renderer, and
    where the entries go on to `logging`, let either this or a `PostHogHandler` take them.

    ``structlog.testing.capture_logs`` takes all processors out, so nothing is sent then.

    Args:
        target: a `PostHogHandler`, or an `Analytics`; entries below its level are not sent.
        select: called with the entry, tells whether it is an event; for services that bind
            ``distinct_id`` to every line. Where None, an entry with ``distinct_id`` is one,
            and so is one whose message is a typed event.
    """

    def __init__(
        self, target: PostHogHandler | Analytics, /, select: Select | None = None
    ) -> None:
        self._handler = target.handler if isinstance(target, Analytics) else target
        self._select = select

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._handler!r}>"

    def __call__(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Send *event_dict* if it is an event; return it unchanged in any case."""
        try:
            created = time.time()
            level = _level(method_name)
            if level >= self._handler.level:
                self._handler.reporter.entry(event_dict, method_name, level, created)
            if self._takes(method_name, event_dict):
                fields, name = fields_in_entry(event_dict, created)
                self._handler.accept(fields, name, created)
        except faults() as error:  # a log call never raises
            self._handler.refuse("internal_error", type(error).__name__)
        return event_dict

    def _takes(self, method_name: str, entry: Mapping[str, Any]) -> bool:
        if _level(method_name) < self._handler.level:
            return False
        if self._select is None:
            return "distinct_id" in entry or declaration_of(entry.get("event")) is not None
        try:
            return bool(self._select(entry))
        except faults() as error:
            self._handler.refuse("select_failed", type(error).__name__)
            return False


def _level(method_name: str) -> int:
    """Return the number of a structlog method's level."""
    number = number_of(method_name)
    return _HIGHEST if number is None else number
