"""
The queue and the only thread: `MessageHandler`, `Listener`, and the `Pipeline` made of them.

A caller puts a line and goes on. The thread lingers, drains and sends; whoever flushes or
closes does the same in its own thread. They take turns: the turn is the one lock that is
ever held during I/O, and no log call takes it.
"""

from __future__ import annotations

import _thread
import logging
import threading
import time

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from .exits import close_at_exit, deadline_in, made, open_now
from .ledger import Ledger
from .sender import Sender


__all__ = ["Pipeline"]


class _Request:
    """What a caller leaves for the thread: to attempt all there is, and perhaps to close."""

    def __init__(self, deadline: float, *, tries: int = 1, closes: bool = False) -> None:
        self.deadline = deadline
        self.tries = tries
        self.closes = closes
        #: Whether nothing was left; None where there was nobody to do it.
        self.result: bool | None = False
        # Not an Event, whose inner lock stays locked where a signal handler raises into it.
        self._answered = threading.Lock()
        self._answered.acquire()

    def answer(self, result: bool | None) -> None:
        self.result = result
        with suppress(RuntimeError):
            self._answered.release()

    def wait(self) -> bool:
        """Wait for the answer until the deadline, at most; return whether there was one."""
        left = min(max(0.0, self.deadline - time.monotonic()), threading.TIMEOUT_MAX)
        return self._answered.acquire(timeout=left)


class Pipeline:
    """
    A queue, a thread and a `Sender`: `put`, `flush`, `close`.

    Callers append to two deques, `queue` and `_requests`, and wake the thread; each of these
    is one step. All else (`_hand`, the sender, its spool and transport) is the thread's. The
    thread begins with the first event and ends with `close`, and begins again with the next.

    Args:
        finish: makes lines of drafts, later and in another thread, fewer where some are refused.
        overflow: ``"drop_newest"``, ``"drop_oldest"`` or ``"block"``.
        block_timeout: for how long at most ``"block"`` blocks a caller, in seconds.
        linger: for how long the thread sleeps after a first event, in seconds.
        synchronous: wait until an event was attempted, before `put` returns.
    """

    def __init__(
        self,
        sender: Sender,
        ledger: Ledger,
        finish: Callable[[list[Any]], list[bytes]] = lambda drafts: [],
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
        self.finish = finish
        self._admit = sender.spool.admit
        ledger.admitted = lambda: getattr(sender.spool, "admitted", 0)
        self._max_size = max_queue_size
        self._max_bytes = max_queue_bytes
        self._overflow = overflow
        self._block_timeout = block_timeout
        self._linger = linger
        self._synchronous = synchronous
        self.shutdown_timeout = shutdown_timeout
        self.closed = False
        if synchronous:
            self.accept = self._accept_and_wait  # type: ignore[method-assign]
        self._renew()
        made.add(self)

    def _renew(self) -> None:
        """Make what belongs to one process: a forked child starts with nothing inherited."""
        self.queue = self._ledger.queue
        self._append = self.queue.append
        self._requests: deque[_Request] = deque()
        self._hand: list[Any] = []
        self._serving: list[_Request] = []
        self._claim = threading.RLock()  # taken by who begins or ends to work; by no log call
        self._alive = False
        self._ended = 0  # how many threads came to their end
        self._summoned = -1  # after how many of these one was started
        self._wake = threading.Lock()
        self._thread: threading.Thread | None = None
        self._me = 0  # who works: the thread, or where there can be none a caller
        self._bytes_in = self._bytes_out = self._quiet_at = 0
        self._note_room()
        #: Whether the thread must be woken, or started, for what is put next. Its own to write.
        self.idle = True

    # What callers do

    def put(self, line: bytes) -> bool:
        """
        Take over *line*, or count it as refused; return whether it came in.

        Never blocks nor raises (but for ``overflow="block"``, which blocks as told to).
        """
        try:
            item = self._admit(line)
        except Exception as error:  # of a spool of the user's own
            self._ledger.refuse("internal_error", type(error).__name__)
            return False
        if item is line:  # it waits in memory, which is bounded; a disk has its own bounds
            return self.accept(line)
        if item is None:
            return False
        if self._synchronous:
            self._await_delivery()
        elif self.idle:
            self._rouse()
        return True

    def accept(self, item: Any) -> bool:
        """
        Queue *item* for the thread to finish: a line, or a draft, whose last member is its bulk.

        The `append` is what accepts it: before there is nothing to take back, after it there
        is nothing to lose, wherever a signal handler raises.
        """
        size = len(item[-1]) + _OVERHEAD if type(item) is tuple else len(item)
        self._bytes_in += size  # an estimate: the thread puts it right
        if (
            len(self.queue) >= self._room or self._bytes_in > self._bytes_limit
        ) and not self._make_room():
            self._bytes_in -= size
            return False
        self._append(item)
        if self.idle:
            self._rouse()
        return True

    def open(self) -> None:
        """Start the thread before there is an event: a spool may hold those of another process."""
        self._rouse()

    def flush(self, timeout: float) -> bool:
        """Make one attempt for all that was put before; return whether nothing is left."""
        if self._is_at_rest() and self._sender.spool.rest is None:
            return True
        request = _Request(deadline_in(timeout))
        return self._leave(request) and bool(request.result)

    def close(self, timeout: float | None = None) -> None:
        """Deliver what waits within *timeout*, count the rest, give back files and connections."""
        request = self.begin_to_close(self.shutdown_timeout if timeout is None else timeout)
        if request is not None:
            self.end_close(request)

    def begin_to_close(self, timeout: float) -> _Request | None:
        """Leave the request to close, without waiting; None where nothing is open."""
        if self._is_at_rest() and not self._alive and self._summoned != self._ended:
            self.closed = True
            return None
        request = _Request(deadline_in(timeout), tries=3, closes=True)
        self._requests.append(request)
        self._rouse()
        return request

    def end_close(self, request: _Request) -> None:
        """Wait until it is closed; what waits is given up where that takes too long."""
        if not self._may_wait():
            return
        if not self._await(request):
            lines, _ = self._held()
            self._ledger.give_up(lines + len(self.queue))
        elif not self._alive and self._thread is not None:
            self._thread.join(1.0)  # it is at its last lines

    def after_fork(self) -> None:
        """Begin anew in a forked child: what the parent has queued is the parent's to send."""
        self._ledger.reset()
        self._sender.reset()
        self._renew()

    def _leave(self, request: _Request) -> bool:
        """Leave *request* and wait for its answer; return whether it came in time."""
        self._requests.append(request)
        self._rouse()
        if not self._may_wait():
            return False
        return self._await(request)

    def _await(self, request: _Request) -> bool:
        """Wait for the answer, or give it where no thread can; return whether it came in time."""
        while not self._serve_alone(request):
            if not request.wait():
                return False
            if request.result is not None:
                return True
            self._rouse()
        return True

    def _may_wait(self) -> bool:
        """Return whether this thread can wait for the other one without waiting for ever."""
        return self._me != threading.get_ident() and not _configuring()

    def _is_at_rest(self) -> bool:
        """Return whether nothing waits; from another thread than its own, as far as it shows."""
        return not self._ledger.counts["waiting"] and not self._requests

    def _accept_and_wait(self, item: Any) -> bool:
        came_in = Pipeline.accept(self, item)
        if came_in:
            self._await_delivery()
        return came_in

    def _await_delivery(self) -> None:
        self._leave(_Request(deadline_in(self._sender.timeout), tries=3))

    def _rouse(self) -> None:
        """Wake the thread, or start it; the thread alone notes that it is awake."""
        if self._alive:
            wake = self._wake
            if wake.locked():
                with suppress(RuntimeError):  # somebody else was quicker
                    wake.release()
        elif self._summoned != self._ended:
            self._start()

    def _start(self) -> None:
        """
        Start the thread; where an interrupt leaves it unnoted, the next one ends by itself.

        By a thread, since `Thread.start` waits with a lock that an interrupt leaves locked.
        """
        ended = self._ended  # noted first: should that thread end before the last line, it holds
        open_now.add(self)
        close_at_exit()
        try:
            _thread.start_new_thread(self._bring_up, ())
        except RuntimeError:  # none to be had: the interpreter is at its end
            return
        self._summoned = ended

    def _bring_up(self) -> None:
        try:
            threading.Thread(target=self._live, name=_NAME, daemon=True).start()
        except RuntimeError:
            self._ended += 1
            for request in list(self._requests):
                request.answer(None)

    def _serve_alone(self, request: _Request) -> bool:
        """Do the thread's work here where no thread can be had; return whether it was done."""
        if self._alive or self._summoned == self._ended:
            return False
        with self._claim:
            if self._alive or not self._requests:
                return False
            self._alive = True
        try:
            self._become()
            if self._serve(bounded=True):
                open_now.discard(self)
                self.closed = True
        finally:
            with self._claim:
                self._end()
        return True

    def _make_room(self) -> bool:
        """Apply the overflow policy; return whether the event may come in."""
        if self._overflow == "block" and self._wait_for_room():
            return True
        if self._overflow == "drop_oldest":
            # The thread drops the oldest of what it has; here what it has not fetched is bounded.
            with suppress(IndexError):
                while (
                    len(self.queue) >= self._max_size
                    or self._bytes_in - self._bytes_out > self._max_bytes
                ):
                    self._bytes_in -= _size(self._ledger.drop_oldest())
                    self._ledger.tell("queue_full", "1 event(s) lost: queue_full")
                return True
        self._ledger.refuse("queue_full")
        return False

    def _wait_for_room(self) -> bool:
        """Look every millisecond: an `Event` would lock a signal handler out that logs, too."""
        deadline = time.monotonic() + self._block_timeout
        if self.idle:
            self._rouse()
        while len(self.queue) >= self._room or self._bytes_in > self._bytes_limit:
            if self._me == threading.get_ident() or time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        return True

    # What the thread does

    def _live(self) -> None:
        """Work until there is nothing left to be open for: the thread."""
        with self._claim:
            if self._alive:
                return  # of two that were started, one lives
            self._alive = True
        try:
            self._thread = threading.current_thread()
            self._become()
            while True:
                try:
                    self._rest()
                    if self._serve() and self._may_end():
                        return
                    self._work()
                except (Exception, SystemExit) as error:
                    self._contain(error)
        except BaseException:
            self._sender.rewind()
            with self._claim:
                self._end()
            for request in list(self._requests):
                request.answer(None)
            raise

    def _become(self) -> None:
        self._wake = threading.Lock()  # of the kind that there is now: gevent may have come
        self._wake.acquire()
        self.closed = False
        self._me = threading.get_ident()
        self.idle = False

    def _end(self) -> None:
        self._me = 0
        self._alive = False
        self._ended += 1
        self.idle = True
        self._answer()

    def _may_end(self) -> bool:
        """End unless something came meanwhile: what comes from now on finds that there is none."""
        with self._claim:  # who is started meanwhile waits here
            # First: who appends from now on finds that there is nobody, and starts another.
            self._alive = False
            self._ended += 1
            self.idle = True
            if self.queue or self._requests:
                self._alive = True
                self.idle = False
                self._answer()
                return False
            open_now.discard(self)
            self.closed = True
            self._end()
            return True

    def _rest(self) -> None:
        """Sleep until something is due; the first event ends the sleep, the rest find a linger."""
        due = self._sender.due_in()
        if due is None:
            due = self._sender.spool.rest
        self.idle = True
        if not self.queue and not self._requests and due != 0.0:
            if self._bytes_in == self._quiet_at:  # nobody is just coming in
                self._bytes_out = self._bytes_in  # forget what interrupted callers have counted
                self._note_room()
            self._quiet_at = self._bytes_in
            # Bounded: a caller that is thrown out between its `append` and `_rouse` wakes nobody.
            self._wake.acquire(timeout=_NAP if due is None else min(due, _NAP))
        self.idle = False
        end = time.monotonic() + self._linger
        while 0 < len(self.queue) < _BACKLOG and not self._requests and time.monotonic() < end:
            self._wake.acquire(timeout=self._linger / 4)

    def _serve(self, bounded: bool = False) -> bool:
        """Do and answer what was asked for; return whether that was to close."""
        # Without a step in which a request is nowhere: who waits for it would wait in vain.
        with suppress(IndexError):
            self._serving.extend(iter(self._requests.popleft, None))
        if not self._serving:
            return False
        self._drain()
        closes = any(one.closes for one in self._serving)
        deadline = max(one.deadline for one in self._serving)
        done = self._deliver(deadline, max(one.tries for one in self._serving), bounded)
        if closes:
            self._sender.abandon("shutdown")
            self._note_room()
            try:
                self._sender.close()
            except Exception as error:
                self._note(error)
            self._ledger.give_up(0)
        for one in self._serving:
            one.result = done
        if not closes:  # else when it is known whether the thread ends
            self._answer()
        return closes

    def _answer(self) -> None:
        for one in self._serving:
            one.answer(one.result)
        self._serving.clear()

    def _work(self) -> None:
        """Send batch after batch while one is due; between two, take in what was put."""
        more = True
        while more and not self._requests:
            self._drain(_BACKLOG)
            more = self._sender.step()
            self._note_room()

    def _contain(self, error: BaseException) -> None:
        """Note what a part raised into the thread; the thread goes on, after a breath."""
        self._note(error)
        self._answer()
        self._sender.rewind()
        self._wake.acquire(timeout=1.0)

    def _note(self, error: BaseException) -> None:
        self._ledger.tell("contained", f"sending goes on after {type(error).__name__}")

    def _held(self) -> tuple[int, int]:
        """Return how many events, and bytes, the thread has that only memory has."""
        lines, size = getattr(self._sender.spool, "held", (0, 0))
        return lines + len(self._hand), size

    def _note_room(self) -> None:
        """Note how many may stand in the queue, and up to which number of bytes ever put."""
        lines, size = self._held()
        self._room = self._max_size - lines
        self._bytes_limit = self._bytes_out + self._max_bytes - size

    def _drain(self, most: int | None = None) -> None:
        """Move what is queued to the spool, as a line for every draft."""
        hand = self._hand
        before = len(hand)
        self._ledger.moving = True
        try:
            # One step of C for each: what is not in the queue any more is in the hand.
            hand.extend(islice(iter(self.queue.popleft, None), most))  # None is never put
        except IndexError:
            pass
        finally:
            self._ledger.came += len(hand) - before
            self._ledger.moving = False
        self._bytes_out += _sizes(hand[before:] if before else hand)
        self._note_room()  # before they are finished, which takes its time
        few = len(hand) < _BACKLOG and not self._serving
        chunk = _CHUNK if few else _LARGE_CHUNK
        if not hand:
            self._sender.append([])  # a spool looks after its disk
        while hand:
            for kind, group in groupby(hand[:chunk], type):
                members = list(group)
                self._sender.append(self._finished(members) if kind is tuple else members)
                del hand[: len(members)]  # a draft and its line need not both be there
            if few:
                # Let go of the interpreter: a caller that wakes up must not wait for a whole
                # batch. With a backlog that would cost the thread its chance to catch up.
                time.sleep(0)
        self._note_room()
        if self._overflow == "drop_oldest":
            self._drop_oldest()

    def _finished(self, drafts: list[Any]) -> list[bytes]:
        try:
            return self.finish(drafts)
        except Exception as error:
            self._ledger.lose("internal_error", len(drafts), type(error).__name__)
            return []

    def _drop_oldest(self) -> None:
        """Drop so many of the oldest events as there are too many."""
        while self._room < 0 or self._bytes_limit < self._bytes_out:
            if not self._sender.evict(max(1, -self._room), "queue_full"):
                return
            self._note_room()

    def _deliver(self, deadline: float, tries: int, bounded: bool) -> bool:
        """
        Flush, and twice again after short waits where that is asked for and time allows.

        Nobody likes to wait at an exit for a server that is away: these waits do not grow,
        but for what the server asked for. What is safe on disk is not waited for at all.
        """
        for pause in (0.1, 0.4, 0.0)[-tries:]:
            if self._sender.flush(deadline - time.monotonic(), bounded):
                return True
            wait = max(pause, self._sender.asked_to_wait)
            if (
                not pause
                or self._sender.paused
                or not self._held()[0]
                or time.monotonic() + wait >= deadline
            ):
                break
            time.sleep(wait)
        return False


_NAME = "posthog-logging"
_CHUNK = 25
_LARGE_CHUNK = 500
_BACKLOG = 2000
_NAP = 5.0

# The bytes that a draft's line has beside its last member, about.
_OVERHEAD = 250


def _sizes(items: list[Any]) -> int:
    kinds = set(map(type, items))
    if kinds == {tuple}:
        return sum(map(len, map(itemgetter(-1), items))) + _OVERHEAD * len(items)
    return sum(map(_size if tuple in kinds else len, items))


def _size(item: Any) -> int:
    return len(item[-1]) + _OVERHEAD if type(item) is tuple else len(item)


def _configuring() -> bool:
    """
    Return whether this thread holds logging's own lock, as ``dictConfig`` does to close handlers.

    The sending thread may need that lock, for urllib3 logs: to wait for it would be for ever.
    """
    owned = getattr(getattr(logging, "_lock", None), "_is_owned", None)
    return bool(owned and owned())
