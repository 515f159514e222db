"""What a log call may keep to itself: its own faults, not what a signal handler has thrown."""

from __future__ import annotations

import inspect
import sys
import threading

from types import FrameType


__all__ = ["faults"]


def faults() -> tuple[type[Exception], ...]:
    """
    Return what to catch, in ``except faults():``: any `Exception` but those of signal handlers.

    A soft time limit or an alarm is meant for the program, and may come when an event is
    accepted already: caught, the program would run on, and the event count as lost, too.
    """
    return () if _is_thrown() else (Exception,)


def _is_thrown() -> bool:
    """Return whether a signal handler raised what is being handled; they run in one thread."""
    error = sys.exc_info()[1]
    if error is None or threading.current_thread() is not threading.main_thread():
        return False
    entry = error.__traceback__
    while entry is not None and entry.tb_next is not None:
        interrupted, entry = entry.tb_frame, entry.tb_next
        if _was_given(entry.tb_frame, interrupted):
            return True
    return False


def _was_given(frame: FrameType, interrupted: FrameType) -> bool:
    """Return whether the function of *frame* got the frame below it, as signal handlers do."""
    code = frame.f_code
    several = bool(code.co_flags & inspect.CO_VARARGS)
    count = code.co_argcount + code.co_kwonlyargcount + several
    if not count:
        return False
    for name in code.co_varnames[:count]:
        value = frame.f_locals.get(name)
        if value is interrupted or (type(value) is tuple and value[1:2] == (interrupted,)):
            return True
    return False
