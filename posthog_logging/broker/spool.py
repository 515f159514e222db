"""
A broker as a `Spool`: it hands out the lines of messages, and acknowledges each message once all
of its lines are settled.

One thread uses it, a worker's, which also fetches the messages, by `fill`.
"""

from __future__ import annotations

import time

from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from ..delivery.clock import monotonic
from ..delivery.ledger import Ledger
from ..delivery.spool import Entry
from ..events.timestamps import rfc3339
from .engine import BrokerError, Consumer
from .envelope import Delivery, Envelope, parts
from .reader import BadMessage, Line, Reader


__all__ = ["BrokerSpool"]

#: A message that was delivered so often without being settled may be what kills relays: its
#: lines share no batch with others.
_SUSPECT_AFTER = 10

_DEAD_WITHIN = 15.0
_MOST_AT_ONCE = 64  # messages of one fetch


class _Held:
    """A message that is not acknowledged: its lines, and which of them are not settled."""

    def __init__(self, delivery: Delivery, neutral: list[bytes], lines: list[bytes]) -> None:
        self.token = delivery.token
        self.message_id = delivery.message_id
        self.is_suspect = delivery.before >= _SUSPECT_AFTER
        self.neutral = neutral
        self.lines = lines
        self.open = bytearray(b"\1" * len(lines))
        self.left = len(lines)

    def settle(self, at: int) -> None:
        self.left -= self.open[at]
        self.open[at] = 0


class BrokerSpool:
    """
    The lines of the messages that *consumer* fetches, as *reader* reads them.

    Args:
        batch: how many lines are handed out at once, at most.
        linger: how long `fill` waits for a full batch, in seconds.
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
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.redelivered = 0
        self.dead_letters = 0
        self._consumer = consumer
        self._reader = reader
        self._ledger = ledger
        self._batch = batch
        self._linger = linger
        self._clock = clock
        self._held: dict[int, _Held] = {}  # by identity, oldest first
        self._ready: deque[tuple[_Held, int]] = deque()  # and the first line to hand out of each
        self._count = 0
        self._lines_each = 100.0  # a running mean of the lines in a message
        self._revision = consumer.revision

    def __len__(self) -> int:
        return self._count

    @property
    def held(self) -> tuple[int, int]:
        """Nothing: the broker stores everything."""
        return 0, 0

    def fill(self, timeout: float) -> bool:
        """
        Fetch messages for *timeout* seconds, or until a batch is full.

        Returns False if the broker took messages back: then call `rewind`.
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

    def idle_for(self, timeout: float) -> bool:
        """Fetch nothing for *timeout* seconds; the result is that of `fill`."""
        self._consumer.pause()
        self._consumer.fetch(0, timeout)
        return self._consumer.revision == self._revision

    def _wanted(self) -> int:
        """Return how many messages fill the batch: no more, since other workers wait for some."""
        missing = self._batch - self._count
        return max(1, min(_MOST_AT_ONCE, round(missing / self._lines_each)))

    def _take_in(self, delivery: Delivery) -> None:
        self.redelivered += delivery.before > 0
        try:
            found = self._reader.read(delivery)
            self._lines_each += (len(found) - self._lines_each) / 8
        except BadMessage as bad:
            self._bury(delivery, bad.reason, bad.detail)
            return
        self._refuse([one for one in found if one.line is None], delivery.message_id)
        good = [(one.neutral, one.line) for one in found if one.line is not None]
        if not good:
            self._consumer.ack([delivery.token])
            return
        held = _Held(delivery, [neutral for neutral, _ in good], [line for _, line in good])
        self._ledger.add("adopted", held.left)
        self._held[id(held)] = held
        self._ready.append((held, 0))
        self._count += held.left

    def _refuse(self, refused: Sequence[Line], message_id: str) -> None:
        for reason, members in groupby(refused, lambda one: one.refused):
            lines = [one.neutral for one in members]
            self._bury_lines(lines, message_id, reason, None)
            self._ledger.add("adopted", len(lines))
            self._ledger.lose(reason.partition(":")[0], len(lines))

    def _bury(self, delivery: Delivery, reason: str, detail: str) -> None:
        """Make a dead letter of a whole message that cannot be read, as it came."""
        headers = _dead_headers(reason, None)
        self._publish_dead(
            Envelope((), delivery.message_id, delivery.coding, headers, raw=delivery.body)
        )
        self._ledger.add("adopted", 1)
        self._ledger.lose(reason, 1, detail)
        self._consumer.ack([delivery.token])

    def take(self, count: int, size: int) -> Sequence[Entry]:
        """Hand out the oldest lines; those of a suspect message by themselves."""
        taken: list[Entry] = []
        count = min(count, self._batch)
        while self._ready and len(taken) < count:
            held, at = self._ready[0]
            if held.is_suspect and taken:
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
            if held.is_suspect:
                break
        return taken

    def ack(self, entries: Sequence[Entry]) -> None:
        """Settle lines; acknowledge the messages whose lines are all settled."""
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
        """Make dead letters of lines that will never be delivered, before they are settled."""
        for _, members in groupby(entries, lambda one: id(one.token[0])):
            tokens = [one.token for one in members]
            held = tokens[0][0]
            if self._consumer.holds(held.token):  # else it is delivered, and refused, again
                lines = [held.neutral[at] for _, at in tokens]
                self._bury_lines(lines, held.message_id, reason, status)

    def _bury_lines(
        self, lines: list[bytes], message_id: str, reason: str, status: int | None
    ) -> None:
        for part in parts(lines):
            self._publish_dead(Envelope(part, message_id, None, _dead_headers(reason, status)))

    def _publish_dead(self, envelope: Envelope) -> None:
        """Publish a dead letter; one that no broker takes must not hold up what can be sent."""
        try:
            self._consumer.dead(envelope, _DEAD_WITHIN)
        except BrokerError as error:
            if not error.final:
                raise
            self._ledger.warn("dead_letter", f"a dead letter could not be kept: {error}")
        else:
            self.dead_letters += len(envelope.lines) or 1

    def rewind(self) -> None:
        """Hand out unsettled lines again, and forget the messages that the broker took back."""
        self._revision = self._consumer.revision
        gone = [one for one in self._held.values() if not self._consumer.holds(one.token)]
        for held in gone:
            del self._held[id(held)]
        self._ledger.add("returned", sum(one.left for one in gone))
        self._ready = deque((held, 0) for held in self._held.values())
        self._count = sum(held.left for held in self._held.values())

    def close(self) -> None:
        """Give all messages that are not acknowledged back to the broker."""
        self._consumer.close()
        self.rewind()

    def admit(self, line: bytes) -> None:
        """Refuse *line*: a relay's lines come from the broker."""

    def append(self, items: Sequence[Any]) -> None:
        """Do nothing: `fill` fetches the lines."""

    def evict(self, count: int) -> list[bytes]:
        """Return nothing: only memory can be evicted."""
        return []

    def forget(self) -> list[bytes]:
        """Return nothing: unsettled lines go back to the broker."""
        return []

    def renew(self) -> None:
        """Do nothing: a relay does not fork."""


def _dead_headers(reason: str, status: int | None) -> dict[str, str | int]:
    """Return the headers of a dead letter, named like those of PostHog's own."""
    headers: dict[str, str | int] = {
        "dlq_reason": reason,
        "dlq_step": "relay",
        "dlq_timestamp": rfc3339(time.time()),
    }
    return headers if status is None else {**headers, "dlq_status": status}
