"""
What the library's thread does, round by round: drain the queue, send, answer those who wait.

Only the thread touches the sender, its spool and its transport. If no thread can be had, as the
interpreter ends, a caller does the thread's work.
"""

from __future__ import annotations

import time

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby, islice
from typing import Any

from .clock import monotonic
from .ledger import Ledger
from .request import DeliveryRequest
from .room import Room, sizes
from .sender import Sender
from .worker import Worker


__all__ = ["DeliveryLoop"]

# How many drafts are made lines at once: few, so that callers soon get the interpreter; many if
# the thread must catch up, as it must from `_BACKLOG` items on.
_CHUNK = 25
_LARGE_CHUNK = 500
_BACKLOG = 2000

# The longest sleep, in seconds: a caller that a signal interrupts between append and rouse has
# woken nobody.
_NAP = 1.0

# How often, in seconds, the thread looks for a backlog while it waits for more.
_LOOK = 0.05

# The seconds before the second and the third attempt of a close.
_PAUSES = (0.1, 0.4)


class DeliveryLoop:
    """
    The task of the `Worker`.

    Args:
        finish: makes lines of drafts; it counts those it refuses.
        linger: for how many seconds the thread waits for more after a first event.
    """

    def __init__(
        self,
        sender: Sender,
        ledger: Ledger,
        room: Room,
        finish: Callable[[list[Any]], list[bytes]],
        linger: float,
    ) -> None:
        self._sender = sender
        self._ledger = ledger
        self._room = room
        self._finish = finish
        self._linger = linger
        self._queue = ledger.queue
        #: What callers ask for; they append to it.
        self.requests: deque[DeliveryRequest] = deque()
        self._serving: list[DeliveryRequest] = []
        self._hand: list[Any] = []  # taken out of the queue, and not in the spool yet

    def is_wanted(self) -> bool:
        """Return whether something was put or asked for."""
        return bool(self._queue or self.requests)

    def round(self, worker: Worker) -> bool:
        """Sleep until something is due, serve those who wait, send what is due."""
        self._sleep(worker)
        if self.serve():
            return True
        more = True
        while more and not self.requests:
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
        for one in list(self.requests):
            one.answer(None)

    def _sleep(self, worker: Worker) -> None:
        """Sleep until something is due, and after a first event a little longer, for more."""
        due = self._sender.due_in()
        if due is None:
            due = self._sender.spool.rest
        worker.idle = True
        roused = bool(self._queue)
        if not self.is_wanted() and due != 0.0:
            self._room.forget_interrupted()
            self._note_room()
            roused = worker.sleep(_NAP if due is None else min(due, _NAP))
        worker.idle = False
        end = monotonic() + self._linger
        # Whether a caller roused says more than the queue: a journal's events are not in it.
        while roused and len(self._queue) < _BACKLOG and not self.requests and monotonic() < end:
            worker.sleep(min(self._linger / 4, _LOOK))

    def serve(self, bounded: bool = False) -> bool:
        """
        Serve the requests; return whether one of them was to close.

        An attempt has its own time-out, and callers just stop waiting; if *bounded*, it also
        lasts no longer than they wait.
        """
        # In one step of C: a request is always in one of the two lists.
        with suppress(IndexError):
            self._serving.extend(iter(self.requests.popleft, None))
        if not self._serving:
            return False
        self._drain()
        tries = max(one.tries for one in self._serving)
        closes = any(one.closes for one in self._serving)
        done = self._deliver(max(one.deadline for one in self._serving), tries, bounded, closes)
        self._note_room()  # before the answer: who has flushed finds the queue empty
        for one in self._serving:
            one.result = done
        if closes:
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

    def _deliver(self, deadline: float, tries: int, bounded: bool, closes: bool) -> bool:
        """
        Flush, and again after short waits if *tries* and time allow; return whether all is sent.

        Nobody likes to wait at an exit for a server that is away: the waits grow only to what
        the server asks for, and nothing waits for events that are safe on disk.
        """
        for pause in (*_PAUSES, None)[-tries:]:
            if self._sender.flush(deadline - monotonic(), bounded, closes):
                return True
            if pause is None or self._sender.paused or not self.held()[0]:
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
        is_contended = True
        if not hand:
            self._sender.append([])  # lets a journal look after its disk
        while hand:
            for kind, group in groupby(hand[: _CHUNK if few else _LARGE_CHUNK], type):
                members = list(group)
                self._sender.append(self._finished(members) if kind is tuple else members)
                del hand[: len(members)]  # so that drafts do not fill memory beside their lines
            if (few or is_contended) and not (self._serving or self._room.is_half_full):
                # Let go of the interpreter, so that a caller that wakes up does not wait for a
                # whole batch, or for CPython's 5 ms. Not while the queue fills up: the thread
                # could not catch up. Nor in a backlog that nobody adds to: on a busy machine
                # other programs would run first, each time.
                before = self._room.bytes_in
                time.sleep(0)
                is_contended = self._room.bytes_in != before
        self._note_room()
        if self._room.drops_oldest:
            self._drop_oldest()
        self._sender.report()

    def _take_in_hand(self, most: int | None) -> None:
        hand, before = self._hand, len(self._hand)
        self._ledger.draining = True
        try:
            # One step of C for each item: it leaves the queue and is in hand.
            hand.extend(islice(iter(self._queue.popleft, None), most))  # None is never put
        except IndexError:
            pass
        finally:
            self._ledger.drained += len(hand) - before
            self._ledger.draining = False
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
        self._room.set_limits(*self.held())

    def held(self) -> tuple[int, int]:
        """Return how many events, and bytes, the thread has in memory only."""
        events, size = self._sender.spool.held
        return events + len(self._hand), size + sizes(self._hand)
