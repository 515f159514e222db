"""
The queue, and what the library's thread does with it: drain it, send, answer those who wait.

Callers append to two deques, `queue` and `_requests`, and rouse the thread; each of these is one
step. Only the thread touches the sender, its spool and its transport. The thread begins with the
first event, ends with `close`, and begins again with the next event.
"""

from __future__ import annotations

import logging
import time

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby, islice
from typing import Any

from ..events.faults import faults
from . import exits
from .clock import monotonic
from .ledger import Ledger
from .lock import Lock, has_gil
from .request import DeliveryRequest
from .room import AROUND_DRAFT, Room
from .sender import Sender
from .worker import Worker


__all__ = ["Pipeline", "is_configuring"]

# How many drafts are made lines at once: few, so that callers soon get the interpreter; many if
# the thread must catch up, as it must from `_BACKLOG` items on.
_CHUNK = 25
_LARGE_CHUNK = 500
_BACKLOG = 2000

# The longest sleep, in seconds: a caller that a signal interrupts between append and rouse has
# woken nobody.
_NAP = 1.0

# How many attempts a close may make, and the seconds before the second and the third.
_TRIES = 3
_PAUSES = (0.1, 0.4)


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
        self.shutdown_timeout = shutdown_timeout
        ledger.admitted = lambda: sender.spool.admitted
        ledger.adopted = lambda: sender.spool.adopted
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
        self._requests: deque[DeliveryRequest] = deque()
        self._serving: list[DeliveryRequest] = []
        self._hand: list[Any] = []
        self._worker = Worker(self)
        self._room.reset()

    # What callers do

    def put(self, line: bytes) -> bool:
        """
        Take over *line*, or count it as refused; return whether it was accepted.

        Never raises, and blocks only for ``overflow="block"`` and *synchronous*.
        """
        try:
            item = self._sender.spool.admit(line)
        except faults() as error:  # a user's spool may raise
            self._ledger.refuse("internal_error", type(error).__name__)
            self._worker.rouse()  # it calls `on_error`
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
        self._append(item)
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

    def close(self, timeout: float | None = None) -> None:
        """Deliver what waits within *timeout*, count the rest, give back files and connections."""
        request = self.begin_to_close(self.shutdown_timeout if timeout is None else timeout)
        if request is not None:
            self.end_close(request)

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
            events, _ = self._held()
            self._ledger.give_up(events + len(self.queue))

    def after_fork(self) -> None:
        """Begin anew in a forked child: the parent sends what the parent has queued."""
        self._ledger.reset()
        self._sender.reset()
        self._begin()

    def _leave(self, request: DeliveryRequest) -> DeliveryRequest:
        """Leave *request* to the thread."""
        self._requests.append(request)
        self._worker.rouse()
        return request

    def _await(self, request: DeliveryRequest) -> bool:
        """Wait for the answer, or do the work here if no thread can; return whether it came."""
        while not self._worker.work_here(lambda: self._serve(bounded=True)):
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
        is_still = not self._ledger.counts["waiting"] and not self._requests
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

    def _make_room(self) -> bool:
        if self._worker.idle:
            self._worker.rouse()
        return self._room.make()

    # What the thread does: see `worker.Task`

    def opened(self) -> None:
        """Let the exit close this."""
        exits.open_pipelines.add(self)
        exits.close_at_exit()
        self._on_open()

    def closed(self) -> None:
        """Let the exit ignore this."""
        exits.open_pipelines.discard(self)

    def is_wanted(self) -> bool:
        """Return whether something was put or asked for."""
        return bool(self.queue or self._requests)

    def round(self) -> bool:
        """Sleep until something is due, serve those who wait, send what is due."""
        self._sleep()
        if self._serve():
            return True
        more = True
        while more and not self._requests:
            self._drain(_BACKLOG)
            more = self._sender.step()
            self._note_room()
        return False

    def recover(self, error: BaseException) -> None:
        """Begin again with all that was not answered for, after an unexpected error."""
        self._ledger.warn("contained", f"sending goes on after {type(error).__name__}")
        self.answer()
        self._sender.rewind()

    def answer(self) -> None:
        """Answer the requests that were served."""
        for one in self._serving:
            one.answer(one.result)
        self._serving.clear()

    def wake_waiters(self) -> None:
        """Wake those who wait: one of them can do the work."""
        for one in list(self._requests):
            one.answer(None)

    def _sleep(self) -> None:
        """Sleep until something is due, and after a first event a little longer, for more."""
        worker = self._worker
        due = self._sender.due_in()
        if due is None:
            due = self._sender.spool.rest
        worker.idle = True
        roused = bool(self.queue)
        if not self.is_wanted() and due != 0.0:
            self._room.forget_interrupted()
            self._note_room()
            roused = worker.sleep(_NAP if due is None else min(due, _NAP))
        worker.idle = False
        end = monotonic() + self._linger
        # Whether a caller roused says more than the queue: a journal's events are not in it.
        while roused and len(self.queue) < _BACKLOG and not self._requests and monotonic() < end:
            worker.sleep(self._linger / 4)

    def _serve(self, bounded: bool = False) -> bool:
        """
        Serve the requests; return whether one of them was to close.

        An attempt has its own time-out, and callers just stop waiting; if *bounded*, it also
        lasts no longer than they wait.
        """
        # In one step of C: a request is always in one of the two lists.
        with suppress(IndexError):
            self._serving.extend(iter(self._requests.popleft, None))
        if not self._serving:
            return False
        self._drain()
        tries = max(one.tries for one in self._serving)
        done = self._deliver(max(one.deadline for one in self._serving), tries, bounded)
        for one in self._serving:
            one.result = done
        if any(one.closes for one in self._serving):
            self._give_back()
            return True  # the worker answers, when it knows whether it ends
        self.answer()
        return False

    def _give_back(self) -> None:
        """Give up what is in memory only; give back connections, files and locks."""
        self._sender.abandon("shutdown")
        self._sender.report()
        self._note_room()
        try:
            self._sender.close()
        except Exception as error:
            self._ledger.warn("contained", f"closing goes on after {type(error).__name__}")
        self._ledger.give_up(0)

    def _deliver(self, deadline: float, tries: int, bounded: bool) -> bool:
        """
        Flush, and again after short waits if *tries* and time allow; return whether all is sent.

        Nobody likes to wait at an exit for a server that is away: the waits grow only to what
        the server asks for, and nothing waits for events that are safe on disk.
        """
        for pause in (*_PAUSES, None)[-tries:]:
            if self._sender.flush(deadline - monotonic(), bounded):
                return True
            if pause is None or self._sender.paused or not self._held()[0]:
                break
            wait = max(pause, self._sender.asked_to_wait)
            if monotonic() + wait >= deadline:
                break
            time.sleep(wait)
        return False

    def _drain(self, most: int | None = None) -> None:
        """Move what is queued to the spool, drafts as lines."""
        hand = self._hand
        self._take_in_hand(most)
        self._note_room()  # before they are finished, which takes its time
        few = len(hand) < _BACKLOG and not self._serving
        if not hand:
            self._sender.append([])  # lets a journal look after its disk
        while hand:
            for kind, group in groupby(hand[: _CHUNK if few else _LARGE_CHUNK], type):
                members = list(group)
                self._sender.append(self._finished(members) if kind is tuple else members)
                del hand[: len(members)]  # so that drafts do not fill memory beside their lines
            if not (self._serving or self._room.is_half_full):
                # Let go of the interpreter, so that a caller that wakes up does not wait for a
                # whole batch, or for CPython's 5 ms. Not while the queue fills up: the thread
                # could not catch up.
                time.sleep(0)
        self._note_room()
        if self._room.drops_oldest:
            self._drop_oldest()
        self._sender.report()

    def _take_in_hand(self, most: int | None) -> None:
        hand, before = self._hand, len(self._hand)
        self._ledger.moving = True
        try:
            # One step of C for each item: it leaves the queue and is in hand.
            hand.extend(islice(iter(self.queue.popleft, None), most))  # None is never put
        except IndexError:
            pass
        finally:
            self._ledger.came += len(hand) - before
            self._ledger.moving = False
        self._room.note_taken(hand[before:] if before else hand)

    def _finished(self, drafts: list[Any]) -> list[bytes]:
        try:
            return self._finish(drafts)
        except Exception as error:
            self._ledger.lose("internal_error", len(drafts), type(error).__name__)
            return []

    def _drop_oldest(self) -> None:
        """Drop the oldest events while there are too many."""
        while excess := self._room.excess:
            if not self._sender.evict(excess, "queue_full"):
                return
            self._note_room()

    def _note_room(self) -> None:
        self._room.set_limits(*self._held())

    def _held(self) -> tuple[int, int]:
        """Return how many events, and bytes, the thread has in memory only."""
        events, size = self._sender.spool.held
        return events + len(self._hand), size


def is_configuring() -> bool:
    """
    Return whether this thread holds logging's own lock, as ``dictConfig`` does to close handlers.

    It must not wait for the library's thread then, which may need that lock, as urllib3 logs.
    """
    owned = getattr(getattr(logging, "_lock", None), "_is_owned", None)
    return bool(owned and owned())
