"""What the ``exc_info`` of a log call means: an exception and its traceback."""

from __future__ import annotations

import sys

from types import TracebackType
from typing import Any


__all__ = ["attribute_of", "is_error_type", "is_true", "normalise_exc_info"]


def normalise_exc_info(exc_info: Any) -> tuple[Any, TracebackType | None] | None:
    """
    Return the exception and the traceback that any ``exc_info`` of a log call means, else None.

    An exception, a tuple as of `sys.exc_info`, or anything true for the current exception.
    """
    if isinstance(exc_info, BaseException):
        return exc_info, _traceback_of(exc_info)
    if not isinstance(exc_info, tuple):
        exc_info = sys.exc_info() if is_true(exc_info) else ()  # as `logging` reads it
    kind, error, traceback = (*exc_info, None, None, None)[:3]
    if isinstance(error, BaseException):
        return error, traceback if isinstance(traceback, TracebackType) else _traceback_of(error)
    if is_error_type(kind):
        return kind, traceback if isinstance(traceback, TracebackType) else None
    return None


def _traceback_of(error: BaseException) -> TracebackType | None:
    traceback = attribute_of(error, "__traceback__")
    return traceback if isinstance(traceback, TracebackType) else None


def is_true(value: Any) -> bool:
    """Return whether *value* counts as true; False where it cannot say."""
    try:
        return bool(value)
    except Exception:  # an array of numpy's, for one
        return False


def is_error_type(value: Any) -> bool:
    """Return whether *value* is a class of exceptions."""
    return isinstance(value, type) and issubclass(value, BaseException)


def attribute_of(value: Any, name: str) -> Any:
    """Return an attribute, or None where there is none or a property of the caller's raised."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None
