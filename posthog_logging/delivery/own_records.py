"""Which records are the library's own: they, and those of its requests, are never events."""

from __future__ import annotations

import logging
import sys
import threading

from types import FrameType


__all__ = ["is_ours", "others", "working"]

#: The threads that send at this moment, by their identifiers.
working: set[int] = set()

#: Names of loggers that are known not to be the library's.
others: set[str] = set()
_MOST_OTHERS = 10_000


def is_ours(record: logging.LogRecord) -> bool:
    """
    Return whether *record* is the library's own, or was logged on the way of its requests.

    Otherwise, where something stamps an id on every record, each request would be an event.
    """
    name = f"{record.name}"
    if name not in others:
        if name == "posthog_logging" or name.startswith("posthog_logging."):
            return True
        if len(others) < _MOST_OTHERS:
            others.add(name)
    return bool(working) and threading.get_ident() in working and not _is_finalising()


def _is_finalising() -> bool:
    """Return whether a finaliser logs: garbage is collected in any thread, the sending one too."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
