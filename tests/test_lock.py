"""`Lock`: whatever a signal handler raises, and wherever it lands, nothing stays locked."""

from __future__ import annotations

import time

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from alarms import Raiser, alarms, needs_alarms
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


@needs_alarms
def test_real_signals() -> None:
    """Thousands of signals that raise into blocks under a lock leave it free, each of them."""
    lock = Lock()
    raiser = Raiser(Thrown)
    left_locked = 0

    def take_it_for_ever() -> None:
        while True:
            with lock:
                pass

    with alarms(raiser, 0.00002):
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            raiser.during(take_it_for_ever)
            try:
                lock.release()
            except RuntimeError:  # as it should: this thread does not hold it
                continue
            left_locked += 1
    assert 0 == left_locked
    assert raiser.thrown > 100
