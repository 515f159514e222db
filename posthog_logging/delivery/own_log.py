"""
The library's own logger, ``posthog_logging``, and which records are its own.

The logger names sizes and kinds, never payloads or keys. It is never silent: a warning that no
other handler would show goes to standard error, as `logging` itself does with ``lastResort``.
Set the logger's level to silence it.

The library's records, and those of its requests, are never events.
"""

from __future__ import annotations

import logging
import sys
import threading

from contextlib import suppress
from types import FrameType


__all__ = ["enable_debug", "foreign_names", "is_ours", "logger", "sending_threads"]

#: The identifiers of the threads that send at this moment.
sending_threads: set[int] = set()

#: Names of loggers that are not the library's: a cache, which the encoder reads, too.
foreign_names: set[str] = set()
_MOST_FOREIGN = 10_000


class _LastResort(logging.NullHandler):
    """Write to standard error what no other handler would show."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Write *record*, unless a handler of the program shows it, or there is no last resort."""
        if logging.lastResort is not None and not _is_shown(record):
            with suppress(Exception):  # no standard error, or a closed one
                sys.stderr.write(f"posthog_logging: {record.getMessage()}\n")
        return True


def _is_shown(record: logging.LogRecord) -> bool:
    """Return whether a handler of the program, rather than of this library, takes *record*."""
    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            ours = type(handler).__module__.startswith("posthog_logging.")
            is_null = isinstance(handler, logging.NullHandler)
            if handler.level <= record.levelno and not (ours or is_null):
                return True
        current = current.parent if current.propagate else None
    return False


logger = logging.getLogger("posthog_logging")
_last_resort = _LastResort(logging.WARNING)
logger.addHandler(_last_resort)


def enable_debug() -> None:
    """Log at DEBUG, too, as ``debug=True`` asks: names, sizes and answers."""
    logger.setLevel(logging.DEBUG)
    _last_resort.setLevel(logging.DEBUG)


def is_ours(record: logging.LogRecord) -> bool:
    """
    Return whether *record* is the library's own, or was logged while it sends.

    Without this, where something stamps an id on every record, each request would be an event.
    """
    name = f"{record.name}"
    if name not in foreign_names:
        if name == "posthog_logging" or name.startswith("posthog_logging."):
            return True
        if len(foreign_names) < _MOST_FOREIGN:
            foreign_names.add(name)
    return threading.get_ident() in sending_threads and not _is_finalising()


def _is_finalising() -> bool:
    """Return whether a finaliser logs: garbage is collected in any thread, the sending one too."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
