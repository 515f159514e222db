"""
The library's thread: it starts with the first work, sleeps while there is none, and ends.

Any caller may `rouse` it, at any time and from a signal handler: that looks once, takes one step,
never waits, and uses no lock that an interruption could leave locked. Everything else here
belongs to the thread.
"""

from __future__ import annotations

import _thread
import threading

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from .lock import Lock


__all__ = ["Task", "Worker"]

_NAME = "posthog-logging"


class Task(Protocol):
    """What the thread does."""

    def round(self, worker: Worker) -> bool:
        """Wait for work and do it; return whether the thread may end."""

    def is_wanted(self) -> bool:
        """Return whether there is more to do before the thread may end."""

    def recover(self, error: BaseException) -> None:
        """Repair what *error* left behind; the thread goes on."""

    def answer(self) -> None:
        """Give the answers that are known."""

    def wake_waiters(self) -> None:
        """Wake those who wait, as no thread will come, or it died."""


class Worker:
    """
    One thread at a time for *task*.

    Two numbers guard the start: how many threads have `ended`, and how many had ended when the
    last one was `summoned`. If they are equal, a thread was started and will come. If a caller is
    interrupted between starting a thread and noting it, a second one may start; of the two, the
    one that cannot claim the work ends at once.

    Args:
        opened: called in a caller's thread before a thread starts.
        closed: called when a thread ends because it may.
    """

    def __init__(
        self, task: Task, opened: Callable[[], object], closed: Callable[[], object]
    ) -> None:
        self._task = task
        self._opened = opened
        self._closed = closed
        #: Whether the thread must be roused for new work; only the thread writes it.
        self.idle = True
        self._alive = False
        self._ended = 0
        self._summoned = -1
        self._claim = Lock()  # held to begin and to end work; no log call takes it
        self._wake = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ident = 0

    # What callers do

    def rouse(self) -> None:
        """Wake the thread, or start it."""
        if self._alive:
            wake = self._wake
            if wake.locked():
                with suppress(RuntimeError):  # another caller has just released it
                    wake.release()
        elif not self.is_coming:
            self._start()

    @property
    def is_coming(self) -> bool:
        """Whether a thread runs, or was started and will."""
        return self._alive or self._summoned == self._ended

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller is the thread."""
        return self._ident == threading.get_ident()

    def join(self, timeout: float) -> None:
        """Wait until a thread that has ended its work is gone, *timeout* seconds at most."""
        thread = self._thread
        if not self._alive and thread is not None:
            with suppress(RuntimeError):  # it is already the next one, and not started yet
                thread.join(timeout)

    def work_here(self, work: Callable[[], bool]) -> bool:
        """Do *work* in the calling thread if no other can be had; return whether it was done."""
        if self.is_coming:
            return False
        with self._claim:
            if self._alive or not self._task.is_wanted():
                return False
            self._alive = True
        try:
            self._begin()
            if work():
                self._closed()
        finally:
            with self._claim:
                self._end()
        return True

    def _start(self) -> None:
        # Another thread starts the thread: `Thread.start` waits on an `Event`, which an
        # interruption could leave locked.
        ended = self._ended  # read first: if a thread ends meanwhile, another may start
        self._opened()
        try:
            _thread.start_new_thread(self._bring_up, ())
        except RuntimeError:  # the interpreter is ending, or the system gives no thread
            return
        self._summoned = ended

    def _bring_up(self) -> None:
        self._thread = threading.Thread(target=self._live, name=_NAME, daemon=True)
        try:
            self._thread.start()
            return
        except RuntimeError:  # Python 3.12 starts none while it ends, but this one runs already
            self._thread = None
        self._live()

    # What the thread does

    def sleep(self, timeout: float) -> bool:
        """Sleep until a caller rouses, at most *timeout* seconds; return whether one did."""
        return self._wake.acquire(timeout=max(0.0, timeout))

    def _live(self) -> None:
        with self._claim:
            if self._alive:
                return
            self._alive = True
        try:
            self._begin()
            while True:
                try:
                    if self._task.round(self) and self._may_end():
                        return
                except (Exception, SystemExit) as error:
                    self._task.recover(error)
                    self.sleep(1.0)  # a broken part must not keep the thread busy
        except BaseException as error:
            self._task.recover(error)
            with self._claim:
                self._end()
            self._task.wake_waiters()
            raise

    def _begin(self) -> None:
        self._wake = threading.Lock()  # a new one, as gevent may have replaced the class
        self._wake.acquire()
        self._ident = threading.get_ident()
        self.idle = False

    def _end(self) -> None:
        self._ident = 0
        self._alive = False
        self._ended += 1
        self.idle = True
        self._task.answer()

    def _may_end(self) -> bool:
        """End, unless there is new work; return whether the thread ends."""
        with self._claim:  # a thread that is started meanwhile waits here
            # The order matters: a caller who puts something after `is_wanted` was asked finds
            # no thread, and starts one.
            self._alive = False
            self._ended += 1
            self.idle = True
            if self._task.is_wanted():
                self._alive = True
                self.idle = False
                self._task.answer()
                return False
            self._closed()
            self._ident = 0
            self._task.answer()
            return True
