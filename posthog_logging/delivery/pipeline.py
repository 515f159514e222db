"""
The queue and the only thread: `MessageHandler`, `Listener`, and the `Pipeline` made of them.

A caller puts a line and goes on. The thread lingers, drains and sends; whoever flushes or
closes does the same in its own thread. They take turns: the turn is the one lock that is
ever held during I/O, and no log call takes it.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
import threading
import time
import weakref

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from logging.handlers import QueueHandler, QueueListener
from typing import Any

from .. import context
from ..events import jsonable
from ..events.message import fields_of, is_event, parse_timestamp, stamp
from .ledger import Ledger, logger
from .sender import Sender
from .spool import RECEIPT


__all__ = ["Listener", "MessageHandler", "Pipeline", "is_ours"]

_at_work = threading.local()


def is_ours(record: logging.LogRecord) -> bool:
    """
    Return whether *record* is the library's own, or of what it uses while this thread sends.

    Whoever takes any record asks, as otherwise each request would be something to send.
    """
    if getattr(_at_work, "sending", False):
        return True
    return f"{record.name}.".startswith("posthog_logging.")


class MessageHandler(QueueHandler):
    """
    A `QueueHandler` that freezes events: what was logged is what the other side sends.

    Give it any queue that `QueueHandler` takes; at the other end a `Listener` hands the
    records to a `PostHogHandler`. The identity bound on this side, the time and the id of
    the event travel along, and values are JSON already, so that every record can be
    pickled. Records that are no event pass as `QueueHandler` passes them.
    """

    def prepare(self, record: logging.LogRecord) -> Any:
        """Return a copy of *record* that can travel, as `QueueHandler.prepare` does."""
        if not is_event(record):
            return super().prepare(record)
        frozen = logging.makeLogRecord({**record.__dict__, **_frozen(record)})
        return super().prepare(frozen)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put *record* without blocking; a full queue is told of once, not by a traceback each."""
        try:
            super().enqueue(record)
        except queue.Full:
            self.lost += 1
            if self.lost == 1:
                logger.warning("a full queue lost a record; MessageHandler.lost counts them")

    #: How many records a full queue has lost.
    lost = 0


def _frozen(record: logging.LogRecord) -> dict[str, Any]:
    """Return the extras of an event as plain values, with the identity and ids resolved."""
    fields: dict[str, Any] = jsonable.jsonable(fields_of(record))
    bound = context.current()
    uuid, timestamp = stamp(record.created)
    fields["uuid"] = fields.get("uuid") or uuid
    fields["timestamp"] = parse_timestamp(getattr(record, "timestamp", None)) or timestamp
    if bound is not None:
        if fields.get("distinct_id") is None:
            fields["distinct_id"] = jsonable.jsonable(bound.distinct_id)
        own = fields.get("properties")
        beneath = jsonable.jsonable(bound.properties)
        fields["properties"] = {**beneath, **own} if isinstance(own, dict) else own or beneath
    return fields


class Listener(QueueListener):
    """
    A `QueueListener` that cannot die silently, start twice or hang at its stop.

    A handler that raises is told of and the thread goes on; `start` and `stop` may be
    called any number of times, also in a forked child; `stop` makes room in a full queue.
    """

    def __init__(
        self, queue: Any, *handlers: logging.Handler, respect_handler_level: bool = False
    ) -> None:
        super().__init__(queue, *handlers, respect_handler_level=respect_handler_level)
        self._running_in: int | None = None
        self._guard = threading.RLock()

    def start(self) -> None:
        """Start the thread, unless it runs already."""
        with self._guard:
            if self._running_in == os.getpid():
                return
            self._running_in = os.getpid()  # first: the thread may end before `start` returns
            try:
                super().start()
            except BaseException:
                self._running_in = None
                raise

    def stop(self) -> None:
        """Stop the thread when it has handled all that was queued before; else do nothing."""
        with self._guard:
            if self._running_in == os.getpid():
                super().stop()
            self._running_in = None

    def handle(self, record: logging.LogRecord) -> None:
        """Pass *record* to each handler; what one raises ends nothing but its own turn."""
        with self._surviving():
            record = self.prepare(record)
            for handler in self.handlers:
                with self._surviving():
                    if not self.respect_handler_level or record.levelno >= handler.level:
                        handler.handle(record)

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:
            self.errors += 1
            if self.errors == 1:
                logger.warning(
                    "a handler of a Listener raised %s; Listener.errors counts them",
                    type(error).__name__,
                )

    #: How many records a handler has raised for.
    errors = 0

    def enqueue_sentinel(self) -> None:
        """Queue the end; wait for room where the queue is full, the thread is making it."""
        try:
            super().enqueue_sentinel()
        except queue.Full:
            blocking: Any = self.queue
            blocking.put(None)


class _Worker(Listener):
    """The pipeline's thread, in the stdlib's shape: `dequeue` waits, `handle` works."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline.queue)
        self._pipeline = pipeline

    def dequeue(self, block: bool) -> Any:
        """Return when there is work; raise ``queue.Empty``, the stock end, when closed."""
        try:
            self._pipeline.await_work()
        except queue.Empty:
            raise
        except (Exception, SystemExit) as error:
            self._pipeline.contain(error)
        except BaseException:
            self.died()
            raise
        return ()

    def handle(self, record: Any) -> None:
        """Send what is due; nothing but the end of the thread itself may end the thread."""
        try:
            self._pipeline.work()
        except (Exception, SystemExit) as error:
            self._pipeline.contain(error)
        except BaseException:
            self.died()
            raise

    def died(self) -> None:
        """Let the next `start` start a new thread: this one is at its end."""
        self._running_in = None
        self._pipeline.idle = True


class Pipeline:
    """
    A queue, a thread and a `Sender`: `put`, `flush`, `close`.

    Args:
        finish: makes lines of drafts, later and in another thread, fewer where some are refused.
        overflow: ``"drop_newest"``, ``"drop_oldest"`` or ``"block"``.
        block_timeout: for how long at most ``"block"`` blocks a caller, in seconds.
        linger: for how long the thread sleeps after a first event, in seconds.
        synchronous: send in the caller's thread, before `put` returns.
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
        self._max_size = max_queue_size
        self._max_bytes = max_queue_bytes
        self._overflow = overflow
        self._block_timeout = block_timeout
        self._linger = linger
        self._synchronous = synchronous
        self.shutdown_timeout = shutdown_timeout
        self.closed = False
        self._renew()
        _open.add(self)

    def _renew(self) -> None:
        """Make what belongs to one process: a forked child starts with nothing inherited."""
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._make_locks()
        self._holder = 0
        self._wanted = 0
        self._given_back = False
        self._put = self.queue.put
        self._lines_in = 0
        self._bytes_in = 0
        self._note_room()
        self._thread: threading.Thread | None = None
        #: Whether the thread must be woken, or started, for what is put next.
        self.idle = True

    def _make_locks(self) -> None:
        """Make what threads wait on; a greenlet that waits on a thread's lock stops them all."""
        self._kind = threading.Lock
        self._turn = threading.Lock()
        self._delivered_last = threading.Event()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._starting = threading.RLock()
        self._worker = _Worker(self)

    def put(self, line: bytes) -> bool:
        """
        Take over *line*; return whether it came in.

        Never blocks nor raises (but for ``overflow="block"``, which blocks as told to).
        """
        if self.closed:
            self._ledger.lose("closed")
            return False
        try:
            item = self._admit(line)
        except Exception as error:  # of a spool of the user's own
            self._ledger.lose("internal_error", 1, type(error).__name__)
            return False
        if item is line:  # it waits in memory, which is bounded; a disk has its own bounds
            size = len(line)
            # No call stands between load and store: no thread nor signal comes in between.
            self._lines_in += 1
            self._bytes_in += size
            if (
                self._lines_in > self._lines_limit or self._bytes_in > self._bytes_limit
            ) and not self._make_room(size):
                return False
        elif item is None:
            return False
        self._put(item)
        if self.idle:
            self._rouse()
        return True

    def accept(self, draft: tuple[Any, ...]) -> bool:
        """
        Count *draft* as accepted, and queue it for the thread to finish.

        It is a tuple, and its last member are the most of its bytes.
        """
        self._ledger.accept()
        # The same as in `put`, at the price of one call less.
        size = len(draft[-1]) + _OVERHEAD
        self._lines_in += 1
        self._bytes_in += size
        if (
            self._lines_in > self._lines_limit or self._bytes_in > self._bytes_limit
        ) and not self._make_room(size):
            return False
        self._put(draft)
        if self.idle:
            self._rouse()
        return True

    def open(self) -> None:
        """Start the thread before there is an event: a spool may hold those of another process."""
        self._rouse()

    def flush(self, timeout: float) -> bool:
        """Make one attempt for all that was put before; return whether nothing is left."""
        if _configuring():
            return False  # `close` comes next, and delivers
        deadline = time.monotonic() + timeout
        with self._my_turn(timeout) as mine:
            if not mine:
                return False
            with self._contained():
                self._sender.append(self._drain())
                return self._sender.flush(max(0.0, deadline - time.monotonic()))
        return False

    def close(self, timeout: float | None = None) -> None:
        """Refuse what comes from now on, deliver what waits within *timeout*, count the rest."""
        with self._starting:
            if self.closed:
                return
            self.closed = True
            self._note_room()
        deadline = time.monotonic() + (self.shutdown_timeout if timeout is None else timeout)
        self._hurry.set()
        self._wake.set()
        if _configuring():
            with suppress(RuntimeError):  # no thread to be had
                threading.Thread(target=self._close, args=(deadline,), name=_NAME).start()
                return
        self._close(deadline)

    def _close(self, deadline: float) -> None:
        try:
            with self._my_turn(max(0.0, deadline - time.monotonic())) as mine:
                if mine:
                    with self._contained():
                        self._sender.append(self._drain())
                        self._deliver(deadline)
                    with self._contained():
                        self._sender.abandon("shutdown")
                    self._give_back()
        finally:
            self._delivered_last.set()
        if not mine:  # what is on disk stays there
            self._ledger.give_up("shutdown", self._lines_in - self._sender.settled_lines)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.1, deadline - time.monotonic()) if mine else 0.0)
        if mine:
            self.idle = True  # a caller that was just coming in sweeps up after itself
            self._sweep()
        _open.discard(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child: what the parent has queued is the parent's to send."""
        self._renew()
        self._ledger.reset()
        self._sender.reset()

    def await_work(self) -> None:
        """Sleep until something is due; the first event ends the sleep, the rest find a linger."""
        if self.closed:
            self._delivered_last.wait()  # whoever closes needs the spool, and comes first
            with self._my_turn(None):  # `close` did not get it while this thread was sending
                self._give_back()
            raise queue.Empty
        self._thread = threading.current_thread()
        self._thread.name = _NAME
        self._wake.clear()
        self.idle = True
        due = self._sender.due_in()
        if due is None:
            due = self._sender.spool.rest
        if self.queue.empty() and due != 0.0 and not self.closed:
            self._wake.wait(due)
        self.idle = False
        end = time.monotonic() + self._linger
        while 0 < self.queue.qsize() < _BACKLOG and time.monotonic() < end:
            if self._hurry.wait(self._linger / 4):
                break

    def _give_back(self) -> None:
        """Close the sender, once; only who has the turn may."""
        if not self._given_back:
            self._given_back = True
            with self._contained():
                self._sender.close()

    def work(self) -> None:
        """Send batch after batch while one is due; between two, take in what was put."""
        more = True
        while more and not self.closed:
            if self._wanted:
                time.sleep(0.001)  # a lock is not fair: let the one who flushes have it
            with self._my_turn(None):
                self._sender.append(self._drain(_BACKLOG))
                more = not self.closed and self._sender.step()

    def contain(self, error: BaseException) -> None:
        """Note what a part raised into the thread; the thread goes on, after a breath."""
        self._note(error)
        self._hurry.wait(1.0)

    def _note(self, error: BaseException) -> None:
        self._ledger.tell("contained", f"sending goes on after {type(error).__name__}")

    @contextmanager
    def _contained(self) -> Iterator[None]:
        """Keep from the caller what a spool, a dialect or a transport of the user's own raises."""
        try:
            yield
        except Exception as error:  # a SystemExit may be a signal handler's, and is heeded
            self._note(error)

    @contextmanager
    def _my_turn(self, timeout: float | None) -> Iterator[bool]:
        """Hold the turn; yields False where it did not come in time, or is held right here."""
        me = threading.get_ident()
        if self._holder == me:
            yield False
            return
        self._wanted += timeout is not None
        try:
            # -1 means for ever, and no other number below 0 or above TIMEOUT_MAX is taken.
            limit = -1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX)
            mine = self._turn.acquire(timeout=limit)
        finally:
            self._wanted -= timeout is not None
        if not mine:
            yield False
            return
        self._holder = me
        outer, _at_work.sending = getattr(_at_work, "sending", False), True
        try:
            yield True
        finally:
            _at_work.sending = outer
            self._note_room()
            self._holder = 0
            self._turn.release()

    def _note_room(self) -> None:
        """Note up to which number of lines and bytes, ever taken in, there is room."""
        room = -1 if self.closed else self._max_size
        self._lines_limit = self._sender.settled_lines + room
        self._bytes_limit = self._sender.settled_bytes + self._max_bytes

    def _drain(self, most: int | None = None) -> list[Any]:
        """Return what is queued; only who has the turn may, so that a flush misses nothing."""
        items: list[Any] = []
        with suppress(queue.Empty):
            items.extend(islice(iter(self.queue.get_nowait, None), most))  # None is never put
        lines: list[Any] = []
        try:
            self._finish(items, lines)
        except BaseException:  # Ctrl-C in a flush costs no event: back into the queue
            for item in (*lines, *items):
                self._put(item)
            raise
        return lines

    def _finish(self, items: list[Any], lines: list[Any]) -> None:
        """Move *items* to *lines*, as a line for every draft, and put the bounds right."""
        few = len(items) < _BACKLOG and not self.closed
        chunk = _CHUNK if few else _LARGE_CHUNK
        while items:
            for kind, group in groupby(items[:chunk], type):
                members = list(group)
                lines += self._finished_drafts(members) if kind is tuple else members
            del items[:chunk]  # a draft and its line need not both be there
            if few:
                # Let go of the interpreter: a caller that wakes up must not wait for a whole
                # batch. With a backlog that would cost the thread its chance to catch up.
                time.sleep(0)

    def _finished_drafts(self, drafts: list[Any]) -> list[bytes]:
        lines = self.finish(drafts)
        refused = len(drafts) - len(lines)
        grown = sum(map(len, lines)) - sum(map(_size, drafts))
        self._lines_in -= refused  # no call in between, as in `put`
        self._bytes_in += grown
        return lines

    def _rouse(self) -> None:
        """Wake the thread, or start it, or do without it."""
        if self.closed:
            self._sweep()
        elif self._synchronous:
            self._send_now()
        else:
            self.idle = False  # the next caller need not wake it again
            if self._thread is None and self._kind is not threading.Lock:
                self._make_locks()  # a gevent worker of gunicorn is patched after its fork
            self._wake.set()
            self._start()

    def _start(self) -> None:
        with self._starting:
            try:
                self._worker.start()
            except RuntimeError:
                # No thread at interpreter shutdown (3.12), or none to be had: `close` delivers.
                self.idle = True
                self._ledger.tell(
                    "no thread", "no thread could be started; events wait for close()"
                )
                return
        _close_at_exit()

    def _send_now(self) -> None:
        deadline = time.monotonic() + self._sender.timeout
        with self._my_turn(self._sender.timeout) as mine:
            if mine:
                self._sender.append(self._drain())
                self._deliver(deadline)

    def _deliver(self, deadline: float) -> None:
        """
        Flush, and twice again after short waits while the deadline allows.

        Nobody likes to wait at an exit for a server that is away: these waits do not grow,
        but for what the server asked for. What is safe on disk is not waited for at all.
        """
        for pause in (0.1, 0.4, 0.0):
            if self._sender.flush(deadline - time.monotonic()) or self._sender.paused:
                return
            wait = max(pause, self._sender.asked_to_wait)
            in_memory = self._lines_in > self._sender.settled_lines
            if not pause or not in_memory or time.monotonic() + wait >= deadline:
                return
            threading.Event().wait(wait)

    def _sweep(self) -> None:
        """Count what came while, or after, the pipeline closed."""
        lost = sum(item is not RECEIPT for item in self._drain())
        if lost:
            self._ledger.lose("closed", lost)

    def _is_full(self) -> bool:
        return self._lines_in > self._lines_limit or self._bytes_in > self._bytes_limit

    def _make_room(self, size: int) -> bool:
        """Apply the overflow policy; return whether the event may come in."""
        if self.closed:
            self._lines_in -= 1
            self._bytes_in -= size
            self._ledger.lose("closed")
            return False
        if self._overflow == "block" and self._wait_for_room():
            return True
        if self._overflow == "drop_oldest" and self._drop_oldest():
            return True
        self._lines_in -= 1
        self._bytes_in -= size
        self._ledger.lose("queue_full")
        return False

    def _wait_for_room(self) -> bool:
        """Look every millisecond: an `Event` would lock a signal handler out that logs, too."""
        deadline = time.monotonic() + self._block_timeout
        while self._is_full():
            if self._holder == threading.get_ident() or time.monotonic() >= deadline:
                return False
            time.sleep(0.001)
        return True

    def _drop_oldest(self) -> bool:
        """Drop the oldest event that is still in memory and in no batch."""
        with self._my_turn(0.0) as mine:
            if mine:
                self._sender.append(self._drain())
                return self._sender.evict(1, "queue_full") > 0
        try:
            item = self.queue.get_nowait()
        except queue.Empty:
            return False
        if item is not RECEIPT:
            size = _size(item)
            self._lines_in -= 1
            self._bytes_in -= size
            self._ledger.lose("queue_full")
        return True


_NAME = "posthog-logging"
_CHUNK = 25
_LARGE_CHUNK = 500
_BACKLOG = 2000


# The bytes that a draft's line has beside its last member, about.
_OVERHEAD = 250


def _size(item: Any) -> int:
    return len(item[-1]) + _OVERHEAD if type(item) is tuple else len(item)


def _configuring() -> bool:
    """
    Return whether this thread holds logging's own lock, as ``dictConfig`` does to close handlers.

    The sending thread may need that lock, for urllib3 logs: to wait for it would be for ever.
    """
    owned = getattr(getattr(logging, "_lock", None), "_is_owned", None)
    return bool(owned and owned())


_open: weakref.WeakSet[Pipeline] = weakref.WeakSet()
_exits: set[int] = set()


def _close_at_exit() -> None:
    """Close at the end of a multiprocessing child: before 3.13 ``atexit`` does not run there."""
    if os.getpid() in _exits:
        return
    _exits.add(os.getpid())
    for name in ("multiprocessing", "billiard"):
        process = sys.modules.get(f"{name}.process")
        util = sys.modules.get(f"{name}.util")
        if process is None or util is None:
            continue
        if getattr(process.current_process(), "_parent_pid", None) is not None:
            util.Finalize(None, close_all, exitpriority=10)
            _close_at_celerys_exit()


def _close_at_celerys_exit() -> None:
    """Close when celery says that a worker ends: it does so by ``os._exit``."""
    signals = sys.modules.get("celery.signals")
    if signals is not None:
        signals.worker_process_shutdown.connect(lambda **_: close_all(), weak=False)


def opened() -> list[Pipeline]:
    """Return the pipelines of this process that are not closed."""
    return list(_open)


def close_all() -> None:
    """Close every pipeline of this process; they share the time that the slowest may take."""
    pipelines = opened()
    deadline = time.monotonic() + max((p.shutdown_timeout for p in pipelines), default=0.0)
    for pipeline in pipelines:
        pipeline.close(max(1.0, deadline - time.monotonic()))


def _after_fork() -> None:
    for pipeline in list(_open):
        pipeline.after_fork()


# `weakref` registers its hook with its first finaliser. Made here, it runs after ours: urllib3
# closes its connections by one, and the last events still need them.
weakref.finalize(Pipeline, int)
# Registered after logging's own hook, so it runs before: handlers are closed with events sent.
atexit.register(close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
