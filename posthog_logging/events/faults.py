"""Which exceptions a log call may swallow: its own, but not one that a signal handler raised."""

from __future__ import annotations

import inspect
import sys
import threading

from types import FrameType


__all__ = ["faults"]


def faults() -> tuple[type[Exception], ...]:
    """
    Return the types to catch, for ``except faults():``: none for a signal handler's exception.

    A soft time limit or an alarm is meant for the program. Swallowing it would let the program
    run on, and could count an event as lost that was accepted already.
    """
    return () if _is_from_signal_handler() else (Exception,)


def _is_from_signal_handler() -> bool:
    """Return whether a signal handler raised the current exception: only in the main thread."""
    error = sys.exc_info()[1]
    if error is None or threading.current_thread() is not threading.main_thread():
        return False
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        interrupted, entry = entry.tb_frame, entry.tb_next
        if _has_argument(entry.tb_frame, interrupted):
            return True
    return False


def _has_argument(frame: FrameType, interrupted: FrameType) -> bool:
    """Return whether *interrupted* is an argument of *frame*, as it is of a signal handler."""
    code = frame.f_code
    has_varargs = bool(code.co_flags & inspect.CO_VARARGS)
    count = code.co_argcount + code.co_kwonlyargcount + has_varargs
    if not count:
        return False
    for name in code.co_varnames[:count]:
        value = frame.f_locals.get(name)
        if value is interrupted or (type(value) is tuple and value[1:2] == (interrupted,)):
            return True
    return False
