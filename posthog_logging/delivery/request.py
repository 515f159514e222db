"""What a caller asks of the library's thread: deliver, perhaps close, and answer."""

from __future__ import annotations

import threading

from contextlib import suppress

from .clock import monotonic


__all__ = ["DeliveryRequest"]


class DeliveryRequest:
    """
    One `flush` or `close` of one caller, who waits for the answer until *deadline* at most.

    Args:
        deadline: in seconds of the monotonic clock.
        tries: how many attempts each batch may have.
        closes: whether the pipeline closes afterwards.
    """

    def __init__(self, deadline: float, *, tries: int = 1, closes: bool = False) -> None:
        self.deadline = deadline
        self.tries = tries
        self.closes = closes
        #: Whether nothing was left; None if there was no thread to find out.
        self.result: bool | None = False
        # A raw lock, as a signal handler that raises leaves those of `Event` and `Condition`
        # locked for ever.
        self._answered = threading.Lock()
        self._answered.acquire()

    def answer(self, result: bool | None) -> None:
        """Give the answer; the caller may have gone."""
        self.result = result
        with suppress(RuntimeError):  # answered twice
            self._answered.release()

    def wait(self) -> bool:
        """Wait for the answer until the deadline; return whether it came."""
        left = min(max(0.0, self.deadline - monotonic()), threading.TIMEOUT_MAX)
        return self._answered.acquire(timeout=left)
