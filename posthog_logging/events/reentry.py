"""Keep a hook that logs from being called for what it logs itself, without end."""

from __future__ import annotations

import sys
import threading

from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar


__all__ = ["Guard"]

_Result = TypeVar("_Result")


class Guard:
    """Run a hook, and tell in each thread whether it runs."""

    def __init__(self) -> None:
        self._caller = threading.local()  # its `frame` is that of `run`, while the hook runs

    def run(self, hook: Callable[..., _Result], *args: Any) -> _Result:
        """Return what *hook* returns."""
        self._caller.frame = sys._getframe()
        try:
            return hook(*args)
        finally:
            self._caller.frame = None

    def is_inside(self) -> bool:
        """Return whether the hook is the caller, by its frame: a flag could be left set."""
        outer = getattr(self._caller, "frame", None)
        frame: FrameType | None = sys._getframe() if outer is not None else None
        while frame is not None and frame is not outer:
            frame = frame.f_back
        return frame is not None
