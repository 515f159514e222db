"""
`Lock`, which a signal handler that raises cannot leave locked; `has_gil`, whether one is needed.

Up to Python 3.13 a ``with`` begins in one instruction. From 3.14 on it calls ``__enter__`` like
any function, and CPython runs signal handlers after such a call: what one of them raises lands
after the lock was taken and before the block that would release it.
"""

from __future__ import annotations

import sys
import threading

from collections.abc import Callable
from typing import Any


__all__ = ["Lock", "has_gil"]


def has_gil() -> bool:
    """
    Return whether this interpreter has a global lock, which makes ``x += n`` atomic.

    Free-threaded builds have none, unless it was switched on again (PEP 703).
    """
    enabled = getattr(sys, "_is_gil_enabled", None)
    return enabled is None or bool(enabled())


class Lock:
    """
    A re-entrant lock for ``with``, the same on every version.

    The `threading.RLock` inside is made with it, not on import: gevent may replace the class.
    """

    def __init__(self) -> None:
        lock: Any = threading.RLock()
        #: As those of `threading.RLock`, where ``with`` cannot be used.
        self.acquire: Callable[..., bool] = lock.acquire
        self.release: Callable[[], None] = lock.release
        self._exit: Callable[..., None] = lock.__exit__

    def __enter__(self) -> None:
        held: list[bool] = []
        try:
            # Taken and noted in one step of C. Nothing that is called comes after it, and CPython
            # does not look for signals where a Python function returns.
            held.extend(map(self.acquire, (True,)))
        except BaseException:
            if held:
                self.release()
            raise

    @property
    def __exit__(self) -> Callable[..., None]:
        # The inner lock's own: a Python method could be interrupted before it releases.
        return self._exit
