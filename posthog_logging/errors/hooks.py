"""Report uncaught exceptions, in any thread, through the interpreter's exception hooks."""

from __future__ import annotations

import sys
import threading

from collections.abc import Callable
from types import TracebackType
from typing import Any

from .exception_list import SYS_EXCEPTHOOK, THREAD_EXCEPTHOOK, Boundary


__all__ = ["ExceptHooks"]


class ExceptHooks:
    """
    Report uncaught exceptions, then call the hooks that were installed before.

    ``KeyboardInterrupt`` and ``SystemExit`` are not reported.

    Args:
        capture: called with the exception and its `Boundary`.
    """

    def __init__(self, capture: Callable[[Any, Boundary], Any]) -> None:
        self._capture = capture
        self._reports = False
        self._before: Callable[..., Any] | None = None
        self._before_in_threads: Callable[..., Any] | None = None

    def install(self) -> None:
        """Install the hooks in front of the current ones, unless they are installed already."""
        self._reports = True
        if self._before is None:
            self._before, sys.excepthook = sys.excepthook, self._uncaught
        if self._before_in_threads is None:
            before, threading.excepthook = threading.excepthook, self._uncaught_in_thread
            self._before_in_threads = before

    def remove(self) -> None:
        """Restore the earlier hooks; below hooks that were installed later, only pass on."""
        self._reports = False
        if sys.excepthook == self._uncaught and self._before is not None:
            sys.excepthook, self._before = self._before, None
        before = self._before_in_threads
        if threading.excepthook == self._uncaught_in_thread and before is not None:
            threading.excepthook, self._before_in_threads = before, None

    def _uncaught(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        self._report(kind, error, SYS_EXCEPTHOOK)
        (self._before or sys.__excepthook__)(kind, error, traceback)

    def _uncaught_in_thread(self, args: threading.ExceptHookArgs, /) -> None:
        self._report(args.exc_type, args.exc_value, THREAD_EXCEPTHOOK)
        (self._before_in_threads or threading.__excepthook__)(args)

    def _report(self, kind: Any, error: Any, boundary: Boundary) -> None:
        if self._reports and not issubclass(kind, (KeyboardInterrupt, SystemExit)):
            self._capture(kind if error is None else error, boundary)
