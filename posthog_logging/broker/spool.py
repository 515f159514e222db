"""
A broker as a `Spool`: it hands out the lines of messages, and acknowledges a message with its
last line.

`fill` takes messages in, for the worker's one thread that does all else, too.
"""

from __future__ import annotations

import time

from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from ..delivery.ledger import Ledger
from ..delivery.spool import Entry
from ..events.timestamps import rfc3339
from .engine import Consumer
from .envelope import Delivery, Envelope
from .reader import BadMessage, Reader


__all__ = ["BrokerSpool"]

#: What came so often, and was never settled, may be what ends relays: it goes alone.
_SUSPECT_AFTER = 10

_DEAD_WITHIN = 15.0
_AT_ONCE = 64  # messages a look, at most


class _Held:
    """A message that is here: its lines, and which of them are open."""

    def __init__(self, delivery: Delivery, neutral: list[bytes], lines: list[bytes]) -> None:
        self.token = delivery.token
        self.message_id = delivery.message_id
        self.alone = delivery.before >= _SUSPECT_AFTER
        self.neutral = neutral
        self.lines = lines
        self.open = bytearray(b"\1" * len(lines))
        self.left = len(lines)

    def settle(self, at: int) -> None:
        self.left -= self.open[at]
        self.open[at] = 0


class BrokerSpool:
    """
    Lines of the messages that *consumer* brings, in the dialect that *reader* knows.

    Args:
        batch: how many lines are handed out at once, at most.
        linger: for how long `fill` waits for a batch to become full, in seconds.
    """

    rest = None
    admitted = adopted = 0  # `_take_in` counts what comes, by message

    def __init__(
        self,
        consumer: Consumer,
        reader: Reader,
        ledger: Ledger,
        *,
        batch: int = 2000,
        linger: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.redelivered = 0
        self.dead_letters = 0
        self._consumer = consumer
        self._reader = reader
        self._ledger = ledger
        self._batch = batch
        self._linger = linger
        self._clock = clock
        self._held: dict[int, _Held] = {}  # all that is not settled, by identity, oldest first
        self._ready: deque[tuple[_Held, int]] = deque()  # with where to go on in each
        self._count = 0
        self._lines_each = 100.0  # how many lines the messages have that come, about
        self._revision = consumer.revision

    def __len__(self) -> int:
        return self._count

    @property
    def held(self) -> tuple[int, int]:
        """Nothing: the broker has it all."""
        return 0, 0

    def fill(self, timeout: float) -> bool:
        """
        Take messages in, for *timeout* seconds or until a batch is full.

        Returns False where the broker took messages back: then begin anew, by `rewind`.
        """
        if self._count >= self._batch:
            self._consumer.fetch(0, 0.0)
            return self._consumer.revision == self._revision
        found = self._consumer.fetch(self._wanted(), timeout)
        end = self._clock() + self._linger
        while found:
            for delivery in found:
                self._take_in(delivery)
            left = end - self._clock()
            found = []
            if left > 0 and self._count < self._batch:
                found = self._consumer.fetch(self._wanted(), left)
        return self._consumer.revision == self._revision

    def rest_for(self, timeout: float) -> bool:
        """Take nothing in for *timeout* seconds, as `fill` where nothing comes."""
        self._consumer.pause()
        self._consumer.fetch(0, timeout)
        return self._consumer.revision == self._revision

    def _wanted(self) -> int:
        """Return how many messages make a batch: what one worker takes, no other can send."""
        missing = self._batch - self._count
        return max(1, min(_AT_ONCE, round(missing / self._lines_each)))

    def _take_in(self, delivery: Delivery) -> None:
        self.redelivered += delivery.before > 0
        try:
            found = self._reader.read(delivery)
            self._lines_each += (len(found) - self._lines_each) / 8
        except BadMessage as bad:
            self._bury(delivery, bad.reason, bad.detail)
            return
        refused = [one for one in found if one.line is None]
        for reason, members in groupby(refused, lambda one: one.refused):
            lines = [one.neutral for one in members]
            self._publish_dead(lines, delivery.message_id, reason, None)
            self._ledger.add("adopted", len(lines))
            self._ledger.lose(reason.partition(":")[0], len(lines))
        good = [(one.neutral, one.line) for one in found if one.line is not None]
        if not good:
            self._consumer.ack([delivery.token])
            return
        held = _Held(delivery, [neutral for neutral, _ in good], [line for _, line in good])
        self._ledger.add("adopted", held.left)
        self._held[id(held)] = held
        self._ready.append((held, 0))
        self._count += held.left

    def _bury(self, delivery: Delivery, reason: str, detail: str) -> None:
        """Put a whole message that nobody can read with the dead, as it came."""
        more = _why(reason, None)
        envelope = Envelope((), delivery.message_id, delivery.coding, more, raw=delivery.body)
        self._consumer.dead(envelope, _DEAD_WITHIN)
        self.dead_letters += 1
        self._ledger.add("adopted", 1)
        self._ledger.lose(reason, 1, detail)
        self._consumer.ack([delivery.token])

    def take(self, count: int, size: int) -> Sequence[Entry]:
        """Hand out the oldest lines; those of a message that came too often by themselves."""
        taken: list[Entry] = []
        count = min(count, self._batch)
        while self._ready and len(taken) < count:
            held, at = self._ready[0]
            if held.alone and taken:
                break
            while at < len(held.lines) and len(taken) < count:
                if held.open[at]:
                    size -= len(held.lines[at]) + 1
                    if size < 0 and taken:
                        self._ready[0] = held, at
                        return taken
                    taken.append(Entry((held, at), held.lines[at]))
                    self._count -= 1
                at += 1
            if at < len(held.lines):
                self._ready[0] = held, at
            else:
                self._ready.popleft()
            if held.alone:
                break
        return taken

    def ack(self, entries: Sequence[Entry]) -> None:
        """Settle lines; acknowledge each message of which none is open."""
        touched: dict[int, _Held] = {}
        for (held, at), _ in entries:
            held.settle(at)
            touched[id(held)] = held
        done = [held for held in touched.values() if not held.left]
        for held in done:
            self._held.pop(id(held), None)
        if done:
            self._consumer.ack([held.token for held in done])

    def lost(self, entries: Sequence[Entry], reason: str, status: int | None) -> None:
        """Put lines that will never be delivered with the dead, before they are settled."""
        for _, members in groupby(entries, lambda one: id(one.token[0])):
            tokens = [one.token for one in members]
            held = tokens[0][0]
            if self._consumer.holds(held.token):  # else it comes again, and is found again
                lines = [held.neutral[at] for _, at in tokens]
                self._publish_dead(lines, held.message_id, reason, status)

    def _publish_dead(
        self, lines: list[bytes], message_id: str, reason: str, status: int | None
    ) -> None:
        envelope = Envelope(lines, message_id, None, _why(reason, status))
        self._consumer.dead(envelope, _DEAD_WITHIN)
        self.dead_letters += len(lines)

    def rewind(self) -> None:
        """Hand out again what is open, and forget what the broker took back."""
        self._revision = self._consumer.revision
        gone = [one for one in self._held.values() if not self._consumer.holds(one.token)]
        for held in gone:
            del self._held[id(held)]
        self._ledger.add("returned", sum(one.left for one in gone))
        self._ready = deque((held, 0) for held in self._held.values())
        self._count = sum(held.left for held in self._held.values())

    def close(self) -> None:
        """Give all that is open back to the broker."""
        self._consumer.close()
        self.rewind()

    def admit(self, line: bytes) -> None:
        """Refuse *line*: a relay has none of its own."""

    def append(self, items: Sequence[Any]) -> None:
        """Do nothing: what there is came by `fill`."""

    def evict(self, count: int) -> list[bytes]:
        """Return nothing: only memory can be evicted."""
        return []

    def forget(self) -> list[bytes]:
        """Return nothing: what is open goes back to the broker."""
        return []

    def renew(self) -> None:
        """Do nothing: a relay does not fork."""


def _why(reason: str, status: int | None) -> dict[str, str | int]:
    """Return the headers of a dead letter, under the names that PostHog's own have."""
    more: dict[str, str | int] = {
        "dlq_reason": reason,
        "dlq_step": "relay",
        "dlq_timestamp": rfc3339(time.time()),
    }
    return more if status is None else {**more, "dlq_status": status}
