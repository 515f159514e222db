"""Read the ``exc_info`` of a log call: an exception and its traceback."""

from __future__ import annotations

import sys

from types import TracebackType
from typing import Any


__all__ = ["attribute_of", "is_error_type", "is_true", "normalise_exc_info"]


def normalise_exc_info(exc_info: Any) -> tuple[Any, TracebackType | None] | None:
    """
    Return the exception and the traceback for the ``exc_info`` of a log call, or None.

    As in `logging`: an exception, a tuple as `sys.exc_info` returns, or any true value for the
    exception being handled. The exception may be a class if there is no instance.
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
    """Return whether *value* is true; False if its ``__bool__`` raises."""
    try:
        return bool(value)
    except Exception:  # such as a numpy array
        return False


def is_error_type(value: Any) -> bool:
    """Return whether *value* is an exception class."""
    return isinstance(value, type) and issubclass(value, BaseException)


def attribute_of(value: Any, name: str) -> Any:
    """Return an attribute, or None if it is missing or reading it raises."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None
