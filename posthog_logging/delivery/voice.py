"""
The library's own logger, ``posthog_logging``: it speaks of names and sizes, never of payloads.

It is never silent: where no other handler would show a warning, it goes to standard error, as
`logging` itself does with ``lastResort``. Whoever wants silence sets the logger's level.
"""

from __future__ import annotations

import logging
import sys

from contextlib import suppress


__all__ = ["logger", "speak_up"]


class _LastResort(logging.NullHandler):
    """Write to standard error what nobody else would show."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Write *record*, unless the program has a handler for it, or wants no last resort."""
        if logging.lastResort is not None and not _is_shown(record, self):
            self._write(record)
        return True

    def _write(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # no standard error, or a closed one
            sys.stderr.write(f"posthog_logging: {record.getMessage()}\n")


def _is_shown(record: logging.LogRecord, last: logging.Handler) -> bool:
    """Return whether a handler of the program takes *record*: not *last*, nor this library's."""
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            ours = handler is last or type(handler).__module__.startswith("posthog_logging.")
            if not ours and handler.level <= record.levelno and not _is_null(handler):
                return True
        current = current.parent if current.propagate else None
    return False


def _is_null(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.NullHandler)


logger = logging.getLogger("posthog_logging")
_last_resort = _LastResort(logging.WARNING)
logger.addHandler(_last_resort)


def speak_up() -> None:
    """Say more, as ``debug=True`` asks: names, sizes and answers, never keys or payloads."""
    logger.setLevel(logging.DEBUG)
    _last_resort.setLevel(logging.DEBUG)
