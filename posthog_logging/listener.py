"""
`MessageHandler` and `Listener`: the two ends of a queue that the program brings.

They are the standard library's `QueueHandler` and `QueueListener`. In addition, an event is fixed
before it enters the queue, and the listening thread survives what a handler raises.
"""

from __future__ import annotations

import copy
import itertools
import logging
import os
import queue
import threading

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from typing import Any, NamedTuple

from .delivery.lock import Lock
from .delivery.own_log import logger
from .events import jsonable
from .events.faults import faults
from .events.identifiers import stamp, text_of_id
from .events.identifiers import text_of as text_of_any
from .events.levels import level_of
from .events.message import properties_of
from .events.proxies import unwrapped
from .events.records import bound_to, fields_of, is_event, text_of
from .events.reentry import Guard
from .events.timestamps import parse_timestamp
from .events.typed import expand


__all__ = ["Listener", "MessageHandler"]


class MessageHandler(QueueHandler):
    """
    A `QueueHandler` that fixes events: what was logged is what the other end sends.

    It takes any queue that `QueueHandler` takes; at the other end a `Listener` passes the
    records to a `PostHogHandler`. An event's record carries the identity bound in the context,
    the time, and the event's uuid. Its values are JSON already, so every event can be pickled.
    Other records are queued as `QueueHandler` queues them.

    Example::

        waiting = queue.SimpleQueue()  # or a multiprocessing.Queue
        log.addHandler(MessageHandler(waiting))
        listener = Listener(waiting, PostHogHandler())
        listener.start()
    """

    #: How many records a full queue, or a filter that raised, has lost.
    lost = 0

    def __init__(self, queue: Any) -> None:
        super().__init__(queue)
        self._filtering, self._formatting = Guard(), Guard()

    def format(self, record: logging.LogRecord) -> str:
        """Return the formatted *record*; only its message if the formatter itself logged it."""
        if self.formatter is None:
            return super().format(record)
        if self._formatting.is_inside():
            return text_of(record)
        return self._formatting.run(super().format, record)

    def prepare(self, record: logging.LogRecord) -> Any:
        """Return a copy of *record* that can be pickled, as `QueueHandler.prepare` does."""
        if not is_event(record):
            return super().prepare(record)
        copied = copy.copy(record)  # formatting a record changes it
        try:
            prepared = super().prepare(copied)
        except Exception:  # the arguments do not fit, or one of them cannot be formatted
            copied.msg, copied.args = text_of(record), ()
            prepared = super().prepare(copied)
        # Of `logging`'s own class, which can be pickled everywhere, and made without the
        # program's record factory, which may have side effects.
        frozen = logging.LogRecord.__new__(logging.LogRecord)
        frozen.__dict__.update(prepared.__dict__, **_frozen(record))
        return frozen

    def filter(self, record: logging.LogRecord) -> Any:
        """Return what the filters make of *record*; if one raises, the record is dropped."""
        if not self.filters or self._filtering.is_inside():  # a filter logged it
            return record
        try:
            return self._filtering.run(super().filter, record)
        except faults() as error:
            self._lose(f"a filter raised {type(error).__name__}")
            return False

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue *record* without blocking; a full queue is logged once, without a traceback."""
        try:
            super().enqueue(record)
        except _NO_ROOM as error:
            self._lose(f"the queue is {'full' if isinstance(error, queue.Full) else 'shut down'}")

    def _lose(self, reason: str) -> None:
        self.lost += 1
        if self.lost == 1:
            logger.warning("a record was lost: %s; MessageHandler.lost counts them", reason)


# `queue.ShutDown` is new in Python 3.13.
_NO_ROOM: tuple[type[Exception], ...] = (queue.Full, getattr(queue, "ShutDown", queue.Full))


def _frozen(record: logging.LogRecord) -> dict[str, Any]:
    """Return the extras of an event as JSON values, with its name, identity, uuid and time."""
    given, _ = expand(fields_of(record), record.msg)
    fields: dict[str, Any] = jsonable.jsonable(given)
    for key in _IDS.intersection(given):
        fields[key] = _id(given[key])
    uuid, timestamp = stamp(record.created)
    fields["uuid"] = _id(given.get("uuid"), text_of_any) or uuid
    when = given.get("timestamp")
    # One that cannot be read stays as it is: the handler at the other end warns of it.
    fields["timestamp"] = parse_timestamp(when) or (timestamp if when is None else when)
    if "event" not in fields and "kind" not in fields:
        fields["event"] = text_of(record)  # `prepare` adds the traceback to the message
    if fields.get("event") is None and "distinct_id" not in fields and "kind" not in fields:
        return fields  # not an event: the handler at the other end warns of it
    bound = bound_to(record)
    if fields.get("distinct_id") is None and bound.distinct_id is not None:
        fields["distinct_id"] = _id(bound.distinct_id)
    if bound.properties:
        own = fields.get("properties")
        beneath = jsonable.jsonable(properties_of(bound))
        fields["properties"] = {**beneath, **own} if isinstance(own, dict) else own or beneath
    return fields


_IDS = frozenset({"distinct_id", "previous_id", "anonymous_id"})


def _id(given: Any, text: Callable[[Any], str] = text_of_id) -> str | None:
    """Return an id as *text*, as the other end would: what JSON has of it may be another's id."""
    return None if unwrapped(given) is None else text(given)


class Listener(QueueListener):
    """
    A `QueueListener` that neither dies silently, nor starts twice, nor hangs when it stops.

    If a handler raises, that is logged and the thread goes on. `start` and `stop` may be called
    any number of times, also in a forked child, and `stop` works with a full queue.
    """

    #: How many records a handler has raised for.
    errors = 0

    def __init__(
        self, queue: Any, *handlers: logging.Handler, respect_handler_level: bool = False
    ) -> None:
        super().__init__(queue, *handlers, respect_handler_level=respect_handler_level)
        self._running_in: int | None = None
        self._run = _Run()
        self._guard = Lock()

    def start(self) -> None:
        """Start the thread, unless it runs already."""
        with self._guard:
            if self._running_in == os.getpid():
                return
            self._run = _Run()
            self._running_in = os.getpid()  # first: the thread may end before `start` returns
            self._thread = None  # Python 3.14 starts none beside one that has ended, or was forked
            try:
                super().start()
            except BaseException:
                self._running_in = None
                raise

    def stop(self) -> None:
        """Stop the thread after it has handled what was queued before; do nothing without one."""
        with self._guard:
            if self._running_in == os.getpid():
                if not self._run.has_ended:  # a thread that has ended makes no room in the queue
                    self.enqueue_sentinel()
                # `join` is not enough: in Python 3.12 and older, after an interrupted one the
                # next returns at once.
                self._run.wait()
                if (thread := self._thread) is not None:
                    thread.join()
            self._thread = self._running_in = None

    def _monitor(self) -> None:
        run = self._run
        try:
            super()._monitor()  # type: ignore[misc]
        finally:
            run.end()

    def handle(self, record: logging.LogRecord) -> None:
        """Pass *record* to each handler, also to those after one that raises."""
        with self._surviving():
            record = self.prepare(record)
            for handler in self.handlers:
                with self._surviving():
                    if not self.respect_handler_level or level_of(record) >= handler.level:
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

    def enqueue_sentinel(self) -> None:
        """Queue the end of this run; wait for room if the queue is full."""
        end = _End(self._run.number)
        try:
            self.queue.put_nowait(end)
        except queue.Full:
            blocking: Any = self.queue
            blocking.put(end)

    def dequeue(self, block: bool) -> Any:
        """Return the next record, or the sentinel at the end of this run."""
        while isinstance(item := super().dequeue(block), _End):
            if item.run == self._run.number:
                return self._sentinel
            if hasattr(self.queue, "task_done"):
                self.queue.task_done()
        return item

    _sentinel = None


class _End(NamedTuple):
    """The end of one run; an interrupted `stop` may leave one in the queue for the next run."""

    run: tuple[int, int]


_numbers = itertools.count()


class _Run:
    """One run of a `Listener`'s thread, from `start` to `stop`."""

    def __init__(self) -> None:
        # Unique among all listeners of the queue, also those in other processes.
        self.number = os.getpid(), next(_numbers)
        self.has_ended = False
        self._ended = threading.Lock()
        self._ended.acquire()

    def end(self) -> None:
        """Note that the thread has ended, and wake who waits for it."""
        self.has_ended = True
        self._ended.release()

    def wait(self) -> None:
        """Wait until the thread has ended; may be interrupted and called again."""
        if not self.has_ended:
            self._ended.acquire()
