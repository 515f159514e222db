"""`Lock`: whatever a signal handler raises, and wherever it lands, nothing stays locked."""

from __future__ import annotations

import signal
import time

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from test_interruptions import Thrower, Thrown

from posthog_logging.delivery.lock import Lock


def is_free(lock: Lock) -> bool:
    """Return whether another thread can have *lock*."""

    def try_it() -> bool:
        if taken := lock.acquire(timeout=0):
            lock.release()
        return taken

    with ThreadPoolExecutor(1) as other:
        return other.submit(try_it).result()


# In a file of another name, or the interruptions would spare it.
_BLOCK = compile("with lock:\n    int()\n", "block", "exec")


def test_it_excludes_other_threads_and_not_its_own() -> None:
    """It is a re-entrant lock."""
    lock = Lock()
    with lock:
        with lock:
            assert not is_free(lock)
        assert not is_free(lock)
    assert is_free(lock)


def test_what_the_block_raises_is_raised() -> None:
    """An exception of the block leaves it, and the lock is free."""
    lock = Lock()
    with pytest.raises(Thrown), lock:
        raise Thrown
    assert is_free(lock)


def interrupted_places(lock: Lock) -> Iterator[str]:
    """Interrupt a block under *lock* at one place after the other, and yield each."""
    for count in range(1, 100):
        thrower = Thrower(count, everywhere=False)
        try:
            with thrower:
                exec(_BLOCK, {"lock": lock})
        except Thrown:
            yield thrower.place
        else:
            return


def test_no_interruption_leaves_it_locked() -> None:
    """Wherever CPython looks for signals in a block and around it, the lock is free after."""
    lock = Lock()
    places = []
    for place in interrupted_places(lock):
        places.append(place)
        assert is_free(lock), place
    assert len(places) > 4


class Alarms:
    """Alarms that raise in `into`, and nowhere else."""

    def __init__(self) -> None:
        self.thrown = 0
        self._inside = False

    def throw(self, number: int, frame: Any) -> None:
        """Raise, once."""
        if self._inside:
            self._inside = False
            raise Thrown

    def into(self, lock: Lock) -> None:
        """Take *lock* until an alarm ends it."""
        try:
            self._inside = True
            while True:
                with lock:
                    pass
        except Thrown:
            self.thrown += 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_real_alarms() -> None:
    """Thousands of alarms that raise into blocks under a lock leave it free, each of them."""
    lock = Lock()
    alarms = Alarms()
    left_locked = 0
    before = signal.signal(signal.SIGALRM, alarms.throw)
    signal.setitimer(signal.ITIMER_REAL, 0.00002, 0.00002)
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            alarms.into(lock)
            try:
                lock.release()
            except RuntimeError:  # as it should: this thread does not hold it
                continue
            left_locked += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0 == left_locked
    assert alarms.thrown > 100
