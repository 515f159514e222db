"""
`Lock`: what callers' threads share, and no signal handler that raises can leave locked.

Up to Python 3.13 a ``with`` begins in one instruction. From 3.14 on it calls ``__enter__``
as any function, and CPython runs signal handlers after such a call: what one raises then
lands after the lock was taken and before the block that would release it.
"""

from __future__ import annotations

import threading

from collections.abc import Callable
from typing import Any


__all__ = ["Lock"]


class Lock:
    """
    A re-entrant lock for ``with``, the same on every version.

    `threading.RLock` inside, made when this is made: gevent may have put its own there.
    """

    def __init__(self) -> None:
        lock: Any = threading.RLock()
        #: As those of `threading.RLock`, for who cannot use ``with``.
        self.acquire: Callable[..., bool] = lock.acquire
        self.release: Callable[[], None] = lock.release
        self._exit: Callable[..., None] = lock.__exit__

    def __enter__(self) -> None:
        held: list[bool] = []
        try:
            # Taken and noted in one step of C. Nothing that is called comes after it, and the
            # return of a function of Python is no place where CPython looks for signals.
            held.extend(map(self.acquire, (True,)))
        except BaseException:
            if held:
                self.release()
            raise

    @property
    def __exit__(self) -> Callable[..., None]:
        # The inner lock's own: a method of Python could be interrupted before it releases.
        return self._exit
