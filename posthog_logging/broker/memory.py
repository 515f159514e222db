"""A broker in this process's memory, for tests: ``memory://name``."""

from __future__ import annotations

import threading
import time

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from itertools import count
from typing import NamedTuple

from .address import Address
from .engine import BrokerError, Finding, Intake
from .envelope import Delivery, Envelope


__all__ = ["MemoryConsumer", "MemoryPublisher", "consumer", "examine", "publisher"]


class _Stored(NamedTuple):
    number: int
    envelope: Envelope
    published: float
    before: int = 0


class _Queue:
    """The waiting messages, oldest first."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.waiting: deque[_Stored] = deque()
        self._numbers = count()

    def put(self, envelope: Envelope) -> None:
        with self.changed:
            self.waiting.append(_Stored(next(self._numbers), envelope, time.time()))
            self.changed.notify_all()

    def take(self, most: int, timeout: float) -> list[_Stored]:
        with self.changed:
            self.changed.wait_for(lambda: self.waiting, timeout)
            return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]

    def put_back(self, stored: Sequence[_Stored]) -> None:
        with self.changed:
            again = [one._replace(before=one.before + 1) for one in stored]
            self.waiting.extendleft(reversed(again))
            self.changed.notify_all()


_queues: defaultdict[tuple[str, str], _Queue] = defaultdict(_Queue)


def _queue(address: Address, name: str) -> _Queue:
    return _queues[address.server, name]


class MemoryPublisher:
    """Publishes to a queue in memory."""

    def __init__(self, queue: _Queue) -> None:
        self._queue = queue

    def publish(self, envelopes: Sequence[Envelope], timeout: float) -> list[BrokerError | None]:
        """Publish; this never fails."""
        for envelope in envelopes:
            self._queue.put(envelope)
        return [None] * len(envelopes)

    def close(self) -> None:
        """Do nothing."""


class MemoryConsumer:
    """Consumes from a queue in memory."""

    def __init__(self, queue: _Queue, dead: _Queue, prefetch: int) -> None:
        self.revision = 0
        self.caught_up = True
        self._queue = queue
        self._dead = dead
        self._prefetch = prefetch
        self._held: dict[int, _Stored] = {}
        self._stopped = False

    @property
    def held(self) -> int:
        """How many messages are not acknowledged."""
        return len(self._held)

    def fetch(self, most: int, timeout: float) -> list[Delivery]:
        """Return waiting messages, within the prefetch."""
        room = 0 if self._stopped else min(most, self._prefetch - len(self._held))
        if room <= 0:
            time.sleep(min(timeout, 0.05))
            return []
        taken = self._queue.take(room, timeout)
        self._held.update((one.number, one) for one in taken)
        return [_delivery(one) for one in taken]

    def pause(self) -> None:
        """Do nothing: messages arrive only by `fetch`."""

    def holds(self, token: int) -> bool:
        """Return whether the message is not acknowledged."""
        return token in self._held

    def ack(self, tokens: Sequence[int]) -> None:
        """Acknowledge messages."""
        for token in tokens:
            self._held.pop(token, None)

    def dead(self, envelope: Envelope, timeout: float) -> None:
        """Put the message into the queue of dead letters."""
        self._dead.put(envelope)

    def stop(self) -> None:
        """Take no more messages."""
        self._stopped = True

    def close(self) -> None:
        """Put back the messages that are not acknowledged."""
        held, self._held = list(self._held.values()), {}
        if held:
            self.revision += 1
            self._queue.put_back(held)


def _delivery(stored: _Stored) -> Delivery:
    envelope = stored.envelope
    body, coding = envelope.packed()
    return Delivery(
        stored.number,
        body,
        envelope.message_id,
        coding,
        envelope.headers(),
        stored.before,
        stored.published,
    )


def publisher(address: Address, timeout: float) -> MemoryPublisher:
    """Return a publisher."""
    return MemoryPublisher(_queue(address, address.queue))


def consumer(address: Address, intake: Intake) -> MemoryConsumer:
    """Return a consumer."""
    queue, dead = _queue(address, address.queue), _queue(address, address.dead)
    return MemoryConsumer(queue, dead, intake.prefetch)


def examine(address: Address, timeout: float) -> Iterator[Finding]:
    """Report that there is nothing that could be wrong."""
    yield Finding("ok", "broker", f"{address.server} is in this process")
