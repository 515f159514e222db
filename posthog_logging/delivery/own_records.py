"""Which records are the library's own: they, and those of its requests, are never events."""

from __future__ import annotations

import logging
import threading


__all__ = ["is_ours", "working"]

#: The threads that send at this moment, by their identifiers.
working: set[int] = set()


def is_ours(record: logging.LogRecord) -> bool:
    """
    Return whether *record* is the library's own, or of what it uses while its thread sends.

    Whoever takes any record asks, as otherwise each request would be something to send.
    """
    return threading.get_ident() in working or f"{record.name}"[:15] == "posthog_logging"
