"""The clock for waits and deadlines, which goes on where a test freezes time."""

from __future__ import annotations

import time

from collections.abc import Callable


__all__ = ["monotonic"]

# freezegun and its like replace the functions of `time` in every module, and a wait that is
# measured with a frozen clock never ends. They look only for functions, not into tuples.
_now: tuple[Callable[[], float]] = (
    (lambda: time.clock_gettime(time.CLOCK_MONOTONIC),)
    if hasattr(time, "clock_gettime")
    else (time.monotonic,)
)


def monotonic() -> float:
    """Return seconds that only go forward."""
    return _now[0]()
