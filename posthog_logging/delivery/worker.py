"""
The library's thread: it starts with the first work, sleeps while there is none, and ends.

Any caller may `rouse` it, at any time and from a signal handler: that is one look and one
step, takes no lock that an interruption could leave locked, and never waits. Everything
else here is the thread's own.
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

    def opened(self) -> None:
        """Note that a thread is about to start, in the caller's thread."""

    def round(self) -> bool:
        """Wait for work and do it; return whether the thread may end."""

    def is_wanted(self) -> bool:
        """Return whether there is more to do before the thread may end."""

    def contain(self, error: BaseException) -> None:
        """Put right what *error* left behind; the thread goes on."""

    def answer(self) -> None:
        """Give the answers that are known."""

    def closed(self) -> None:
        """Note that the thread has ended because it may."""

    def forsake(self) -> None:
        """Let those who wait know that no thread will come, or that it died."""


class Worker:
    """
    One thread at a time for *task*.

    Two numbers guard the start: after how many ended threads one was `summoned`, and how many
    have `ended`. Where they are equal a thread was started and will come. A caller who is
    interrupted between starting a thread and noting it lets a second one start, and of two
    threads the one that cannot claim the work ends at once.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        #: Whether the thread must be roused for what comes next; only the thread writes it.
        self.idle = True
        self._alive = False
        self._ended = 0
        self._summoned = -1
        self._claim = Lock()  # taken by who begins or ends to work; by no log call
        self._wake = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ident = 0

    # What callers do

    def rouse(self) -> None:
        """Wake the thread, or start it."""
        if self._alive:
            wake = self._wake
            if wake.locked():
                with suppress(RuntimeError):  # another caller was quicker
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
        """Wait until a thread that has ended its work is gone; *timeout* is in seconds."""
        thread = self._thread
        if not self._alive and thread is not None:
            with suppress(RuntimeError):  # it is the next one already, and not started yet
                thread.join(timeout)

    def work_here(self, work: Callable[[], bool]) -> bool:
        """Do the *work* in the calling thread where no thread can be had; return whether."""
        if self.is_coming:
            return False
        with self._claim:
            if self._alive or not self._task.is_wanted():
                return False
            self._alive = True
        try:
            self._begin()
            if work():
                self._task.closed()
        finally:
            with self._claim:
                self._end()
        return True

    def _start(self) -> None:
        # By a thread that starts the thread: `Thread.start` waits on an `Event`, which an
        # interruption leaves locked.
        ended = self._ended  # before: a thread that ends meanwhile makes room for the next
        self._task.opened()
        try:
            _thread.start_new_thread(self._bring_up, ())
        except RuntimeError:  # the interpreter is at its end, or the system has none to give
            return
        self._summoned = ended

    def _bring_up(self) -> None:
        self._thread = threading.Thread(target=self._live, name=_NAME, daemon=True)
        try:
            self._thread.start()
            return
        except RuntimeError:  # Python 3.12 starts none at its end; this one is there already
            self._thread = None
        self._live()

    # What the thread does

    def sleep(self, timeout: float) -> bool:
        """Sleep until a caller rouses, *timeout* seconds at most; return whether one did."""
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
                    if self._task.round() and self._may_end():
                        return
                except (Exception, SystemExit) as error:
                    self._task.contain(error)
                    self.sleep(1.0)  # a part that is broken is not asked without a pause
        except BaseException as error:
            self._task.contain(error)
            with self._claim:
                self._end()
            self._task.forsake()
            raise

    def _begin(self) -> None:
        self._wake = threading.Lock()  # of the kind that there is now: gevent may have come
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
        """End, unless something came meanwhile."""
        with self._claim:  # a thread that is started meanwhile waits here
            # In this order: who puts something after the look below finds no thread, and
            # starts one.
            self._alive = False
            self._ended += 1
            self.idle = True
            if self._task.is_wanted():
                self._alive = True
                self.idle = False
                self._task.answer()
                return False
            self._task.closed()
            self._ident = 0
            self._task.answer()
            return True
