"""
The library's own logger, ``posthog_logging``, and which records are its own.

The logger names sizes and kinds, never payloads or keys. It is never silent: a warning that no
other handler would show goes to standard error, as `logging` itself does with ``lastResort``.
Set the logger's level to silence it.

The library's records, and those of its requests, are never events.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


__all__ = [
    "enable_debug",
    "foreign_names",
    "hook_runs",
    "is_of_hook",
    "is_ours",
    "logger",
    "note_send",
    "sending_threads",
]

#: When each thread that sends at this moment began to, in epoch seconds, by its identifier. Once a
#: queue is known of, threads that have sent stay, with `_ENDED`.
sending_threads: dict[int, float] = {}
_ENDED = math.inf

# The last sends, by their ends: a thread's identifier, the begin and the end.
_sends: list[tuple[int, float, float]] = []
_MOST_SENDS = 1000

# The last calls of ``on_error``, in the same form.
_hooks: list[list[float]] = []

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


def note_send(began: float) -> None:
    """Note that this thread has sent since *began*: a queue may still hold what it logged."""
    me = threading.get_ident()
    _sends.append((me, began, time.time()))
    del _sends[:-_MOST_SENDS]
    if _has_queue:
        sending_threads.setdefault(me, _ENDED)


_has_queue = False


def _expect_queue() -> None:
    """From now on look at the records of all threads that have sent."""
    global _has_queue
    _has_queue = True
    for thread, _, _ in _sends:
        sending_threads.setdefault(thread, _ENDED)


@contextmanager
def hook_runs() -> Iterator[None]:
    """Note, for a ``with``, that this thread calls a hook: a queue may bring what that logs."""
    _expect_queue()
    call = [threading.get_ident(), time.time(), _ENDED]
    _hooks.append(call)
    del _hooks[:-_MOST_SENDS]
    sending_threads.setdefault(threading.get_ident(), _ENDED)
    try:
        yield
    finally:
        call[2] = time.time()


def is_of_hook(record: logging.LogRecord) -> bool:
    """Return whether a hook that a thread of this library called has logged *record*."""
    try:
        if not _is_from_a_sender(record):
            return False
        for thread, began, ended in reversed(_hooks):
            if thread == record.thread and began <= record.created:
                return record.created <= ended
    except Exception:  # a hand-made record without a thread or a time
        pass
    return False


def is_ours(record: logging.LogRecord) -> bool:
    """
    Return whether *record* is the library's own, or was logged by a thread while that sent.

    Without this, where something stamps an id on every record, each request would be an event.
    """
    name = f"{getattr(record, 'name', '')}"
    if name in foreign_names:
        return bool(sending_threads) and _is_senders(record)
    if name == "posthog_logging" or name.startswith("posthog_logging."):
        return True
    if getattr(record, "thread", None) not in (None, threading.get_ident()):
        _expect_queue()
    if _is_senders(record):
        return True
    # urllib3's name is never cached, as our requests may come from a queue later on.
    if len(foreign_names) < _MOST_FOREIGN and not _is_urllib3(name):
        foreign_names.add(name)
    return False


def _is_senders(record: logging.LogRecord) -> bool:
    """Return whether a thread logged *record* while it sent, which may be a while ago."""
    if sending_threads.get(threading.get_ident(), _ENDED) != _ENDED:
        return not _is_finalising()
    try:
        thread = record.thread
        if not _is_from_a_sender(record):
            return False
        if thread is not None and _is_within(record, sending_threads[thread], math.inf):
            return True
        for sender, began, ended in reversed(_sends):
            if ended < record.created:
                break
            if sender == thread and _is_within(record, began, ended):
                return True
    except Exception:  # a hand-made record without a thread or a time
        pass
    return False


def _is_from_a_sender(record: logging.LogRecord) -> bool:
    """Return whether *record* has come here from another thread, one that has sent."""
    return (
        record.thread in sending_threads
        and record.thread != threading.get_ident()
        and record.process in (None, os.getpid())
    )


def _is_within(record: logging.LogRecord, began: float, ended: float) -> bool:
    """Return whether *record* is from a send; where the clock is too coarse, by its logger."""
    if began < record.created < ended:
        return True
    return began <= record.created <= ended and _is_urllib3(record.name)


def _is_urllib3(name: str) -> bool:
    return name.startswith("urllib3")


def _is_finalising() -> bool:
    """Return whether a finaliser logs: garbage is collected in any thread, the sending one too."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None
