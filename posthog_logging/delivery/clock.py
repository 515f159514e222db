"""The clock for waits and deadlines: one that a test's frozen time does not stop."""

from __future__ import annotations

import time

from collections.abc import Callable


__all__ = ["monotonic"]

# freezegun and its like replace the functions of `time` that they find in any module, and a
# wait that is measured with a clock at rest never ends.
_now: tuple[Callable[[], float]] = (
    (lambda: time.clock_gettime(time.CLOCK_MONOTONIC),)
    if hasattr(time, "clock_gettime")
    else (time.monotonic,)
)


def monotonic() -> float:
    """Return seconds that only go forward."""
    return _now[0]()
