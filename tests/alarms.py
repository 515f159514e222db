"""
`alarms`: signals that call a handler again and again in the main thread.

Each signal is sent to the main thread alone. The kernel gives one of a timer (``setitimer``) to
whichever thread runs, which may pass it on long after the timer was stopped: to the handler of
the next test, which is that of pytest-timeout.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading

from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest


needs_alarms = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="no signal can be sent to one thread here"
)


@contextlib.contextmanager
def alarms(call: Callable[[int, FrameType | None], Any], every: float) -> Iterator[None]:
    """
    Call *call* in the main thread, amid the block, about *every* so many seconds.

    It may raise in the block, not at its end: see `Raiser`.
    """
    main = threading.main_thread().ident
    assert main is not None
    ended = threading.Event()

    def ring() -> None:
        while not ended.wait(every):
            signal.pthread_kill(main, signal.SIGUSR1)

    bell = threading.Thread(target=ring, name="alarms", daemon=True)
    before = signal.signal(signal.SIGUSR1, call)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # or the bell waits 5 ms for the interpreter's lock
    bell.start()
    try:
        yield
    finally:
        ended.set()
        bell.join()
        sys.setswitchinterval(interval)
        signal.signal(signal.SIGUSR1, before)


class Raiser:
    """A signal handler that raises *exception* into what `during` calls, and nowhere else."""

    def __init__(self, exception: type[BaseException]) -> None:
        self.exception = exception
        self.thrown = 0
        self._inside = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._inside:
            self._inside = False
            raise self.exception

    def during(self, call: Callable[[], object]) -> None:
        """Call *call*; count what is raised into it."""
        try:
            self._inside = True
            call()
            self._inside = False
        except self.exception:
            self.thrown += 1
