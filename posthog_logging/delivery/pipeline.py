"""
What callers do: put events into the queue, and ask the library's thread to flush or close.

A caller appends to one of two deques, `queue` and the loop's `requests`, and rouses the thread;
each of these is one step. The thread, which runs a `DeliveryLoop`, begins with the first event,
ends with `close`, and begins again with the next event.
"""

from __future__ import annotations

import logging

from collections.abc import Callable
from typing import Any

from ..events.faults import faults
from . import exits
from .ledger import Ledger
from .lock import Lock, has_gil
from .loop import DeliveryLoop
from .request import DeliveryRequest
from .room import AROUND_DRAFT, Room
from .sender import Sender
from .worker import Worker


__all__ = ["Pipeline", "is_configuring"]

# How many attempts a close may make.
_TRIES = 3


class Pipeline:
    """
    From `accept` to the sender.

    Args:
        finish: makes lines of drafts, in the thread; it counts those it refuses.
        on_open: called in a caller's thread before the library's thread starts.
        max_queue_size, max_queue_bytes, overflow, block_timeout: see `Room`.
        linger: for how many seconds the thread waits for more after a first event.
        shutdown_timeout: how many seconds `close` and the exit may take.
        synchronous: whether `accept` returns only after an attempt to deliver.
    """

    def __init__(
        self,
        sender: Sender,
        ledger: Ledger,
        finish: Callable[[list[Any]], list[bytes]] = list,
        on_open: Callable[[], object] = lambda: None,
        *,
        max_queue_size: int = 100_000,
        max_queue_bytes: int = 64 * 1024 * 1024,
        overflow: str = "drop_newest",
        block_timeout: float = 1.0,
        linger: float = 0.0,
        shutdown_timeout: float = 5.0,
        synchronous: bool = False,
    ) -> None:
        self._sender = sender
        self._ledger = ledger
        self._finish = finish
        self._on_open = on_open
        self._linger = linger
        self._synchronous = synchronous
        self._closes_quietly = False
        self.shutdown_timeout = shutdown_timeout
        ledger.admitted = lambda: sender.spool.admitted
        ledger.adopted = lambda: sender.spool.adopted
        ledger.refused = self._report_soon
        self._room = Room(
            ledger,
            max_queue_size,
            max_queue_bytes,
            overflow,
            block_timeout,
            lambda: self._worker.is_this_thread,
        )
        # Without the interpreter's lock two threads could lose each other's bytes.
        self._counting = None if has_gil() else Lock()
        self._begin()
        exits.all_pipelines.add(self)

    def _begin(self) -> None:
        """Make what belongs to one process; a forked child makes its own."""
        self.queue = self._ledger.queue
        self._append = self.queue.append
        self._room.reset()
        self._loop = DeliveryLoop(
            self._sender, self._ledger, self._room, self._finish, self._linger
        )
        self._worker = Worker(self._loop, self._opened, self._closed)

    def put(self, line: bytes) -> bool:
        """
        Take over *line*, or count it as refused; return whether it was accepted.

        Never raises, and blocks only for ``overflow="block"`` and *synchronous*.
        """
        try:
            item = self._sender.spool.admit(line)
        except faults() as error:  # a user's spool may raise
            self._ledger.refuse("internal_error", type(error).__name__)
            return False
        if item is line:  # it must wait in memory, which has bounds
            return self.accept(line)
        if item is None:
            return False
        if self._worker.idle or self._synchronous:
            self._notify()
        return True

    def accept(self, item: Any) -> bool:
        """
        Queue a line, or a draft for the thread to finish; return whether it was accepted.

        The append is what accepts it: wherever a signal handler raises, before the append there
        is nothing to take back, and after it nothing to lose.
        """
        room = self._room
        # `size_of`, without its call.
        size = len(item[-1]) + AROUND_DRAFT if type(item) is tuple else len(item)
        if self._counting is None:
            room.bytes_in += size
        else:
            self._add_bytes(size)
        if (
            len(self.queue) >= room.queue_limit or room.bytes_in > room.bytes_limit
        ) and not self._make_room():
            self._add_bytes(-size)
            return False
        append = self._append  # a local name: see `PostHogHandler.handle`
        append(item)
        if self._worker.idle or self._synchronous:
            self._notify()
        return True

    def _add_bytes(self, size: int) -> None:
        if self._counting is None:
            self._room.bytes_in += size
            return
        with self._counting:
            self._room.bytes_in += size

    def open(self) -> None:
        """Start the thread before the first event: another process may have left some."""
        self._worker.rouse()

    @property
    def is_open(self) -> bool:
        """Whether there are a thread, files and connections, or soon will be."""
        return self in exits.open_pipelines

    def flush(self, timeout: float) -> bool:
        """Make one attempt for everything that was put; return whether nothing is left."""
        return self.end_flush(self.begin_to_flush(timeout))

    def begin_to_flush(self, timeout: float) -> DeliveryRequest | None:
        """Leave a request to flush, without waiting for it; None if no event waits."""
        if self._is_at_rest() and self._sender.spool.rest is None:
            return None
        return self._leave(DeliveryRequest(exits.deadline_in(timeout)))

    def end_flush(self, request: DeliveryRequest | None) -> bool:
        """Wait for the answer to *request*; return whether nothing is left."""
        if request is None:
            return True
        return self._may_wait() and self._await(request) and bool(request.result)

    def close(self, timeout: float | None = None, quietly: bool = False) -> None:
        """
        Deliver what waits within *timeout*, count the rest, give back files and connections.

        If *quietly*, log nothing, also if the thread ends only later, until it is opened again.
        """
        self._ledger.muted = self._closes_quietly = quietly
        request = self.begin_to_close(self.shutdown_timeout if timeout is None else timeout)
        if request is not None:
            self.end_close(request)
        self._closes_quietly = False

    def begin_to_close(self, timeout: float) -> DeliveryRequest | None:
        """Leave a request to close, without waiting for it; None if nothing is open."""
        if self._is_at_rest() and not self._worker.is_coming:
            exits.open_pipelines.discard(self)
            return None
        request = DeliveryRequest(exits.deadline_in(timeout), tries=_TRIES, closes=True)
        return self._leave(request)

    def leave_to_close(self) -> None:
        """
        Let the thread deliver and close when it can; nobody waits for it.

        For a finaliser, which may run in any thread and at any time: this takes no lock.
        """
        if self._worker.is_coming:
            deadline = exits.deadline_in(self.shutdown_timeout)
            self._leave(DeliveryRequest(deadline, tries=_TRIES, closes=True))

    def end_close(self, request: DeliveryRequest) -> None:
        """Wait for the answer to *request*; without one, what waits counts as ``shutdown``."""
        if not self._may_wait():
            return
        if self._await(request):
            self._worker.join(1.0)  # it is about to end
        else:
            events, _ = self._loop.held()
            self._ledger.give_up(events + len(self.queue))

    def after_fork(self) -> None:
        """Begin anew in a forked child: the parent sends what the parent has queued."""
        self._ledger.reset()
        self._sender.reset()
        self._begin()

    def _leave(self, request: DeliveryRequest) -> DeliveryRequest:
        """Leave *request* to the thread."""
        self._loop.requests.append(request)
        self._worker.rouse()
        return request

    def _await(self, request: DeliveryRequest) -> bool:
        """Wait for the answer, or do the work here if no thread can; return whether it came."""
        while not self._worker.work_here(lambda: self._loop.serve(bounded=True)):
            if not request.wait():
                return False
            if request.result is not None:
                return True
            self._worker.rouse()
        return True

    def _may_wait(self) -> bool:
        """Return whether the caller may wait, as the thread does not need it to go on."""
        return not self._worker.is_this_thread and not is_configuring()

    def _is_at_rest(self) -> bool:
        """Return whether nothing waits, as far as a caller can see."""
        is_still = not self._ledger.counts["waiting"] and not self._loop.requests
        return is_still and not self._sender.has_news

    def _notify(self) -> None:
        """Rouse the thread; wait for it if *synchronous*, or if the process is ending."""
        if exits.is_ending():
            self.close()  # in the time that is left
        elif self._synchronous:
            deadline = exits.deadline_in(self._sender.timeout)
            self.end_flush(self._leave(DeliveryRequest(deadline, tries=_TRIES)))
        else:
            self._worker.rouse()

    def _report_soon(self) -> None:
        """Rouse the thread if it has losses to report to ``on_error``."""
        if self._worker.idle and self._sender.has_news:
            self._worker.rouse()

    def _make_room(self) -> bool:
        if self._worker.idle:
            self._worker.rouse()
        return self._room.make()

    def _opened(self) -> None:
        """Let the exit close this, as a thread is about to start."""
        exits.open_pipelines.add(self)
        exits.close_at_exit()
        self._ledger.muted = self._closes_quietly
        self._on_open()

    def _closed(self) -> None:
        """Let the exit ignore this, as the thread has ended."""
        exits.open_pipelines.discard(self)


def is_configuring() -> bool:
    """
    Return whether this thread holds logging's own lock, as ``dictConfig`` does to close handlers.

    It must not wait for the library's thread then, which may need that lock, as urllib3 logs.
    """
    owned = getattr(getattr(logging, "_lock", None), "_is_owned", None)
    return bool(owned and owned())
