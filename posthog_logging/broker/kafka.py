"""
Kafka, through ``confluent-kafka``: one event a message, in order for each person.

An offset is committed once everything before it in its partition is settled.
"""

from __future__ import annotations

import re

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

import confluent_kafka

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ..delivery.clock import monotonic
from ..events import jsonable
from .address import Address
from .engine import BrokerError, Intake
from .envelope import CONTENT_TYPE, MOST_BYTES, MOST_LINES, SCHEMA, Delivery, Envelope
from .kafka_client import CONNECT_WITHIN, declare, described, settings
from .kafka_doctor import examine


__all__ = ["KafkaConsumer", "KafkaPublisher", "consumer", "examine", "publisher"]

_PERSON = re.compile(rb'"distinct_id":"((?:[^"\\]|\\.)*)"')
_OWN = b'{"uuid":"'

# The URL's settings override the first of each pair, not the second.
_PRODUCER = {
    "linger.ms": 5,
    "message.max.bytes": 1_000_000,
    "socket.connection.setup.timeout.ms": 5000,
    "compression.type": "lz4",
}
_IDEMPOTENT = {"enable.idempotence": True, "delivery.report.only.error": True}
_CONSUMER = {
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 1000,
    "topic.metadata.refresh.interval.ms": 10_000,
    "fetch.wait.max.ms": 100,
}
_MANUAL = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "enable.partition.eof": True,  # for `caught_up`
}


class KafkaPublisher:
    """Produce to a topic, idempotently: a retried message is stored once, in order."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._producer: Any = None
        self._failed: dict[bytes, KafkaError] = {}

    def publish(self, envelopes: Sequence[Envelope], timeout: float) -> list[BrokerError | None]:
        """Produce each line as a message of its own; an envelope is safe when all of its are."""
        self._failed.clear()
        deadline = monotonic() + timeout
        try:
            producer = self._open()
            for envelope in envelopes:
                headers = _headers(envelope)
                for line in _values(envelope):
                    self._produce(producer, line, headers, deadline)
            left = producer.flush(max(0.0, deadline - monotonic()))
        except KafkaException as error:
            raise described(error.args[0]) from None
        if left:
            producer.purge()
            producer.flush(1.0)
        return [self._outcome(envelope) for envelope in envelopes]

    def close(self) -> None:
        """Drop the producer."""
        self._producer = None

    def _open(self) -> Any:
        if self._producer is None:
            timeout = {"delivery.timeout.ms": int(max(1.0, self._timeout) * 1000)}
            self._producer = confluent_kafka.Producer(
                {**_PRODUCER, **timeout, **settings(self._address), **_IDEMPOTENT}
            )
        return self._producer

    def _produce(self, producer: Any, line: bytes, headers: Any, deadline: float) -> None:
        key = _person(line)
        while True:
            try:
                producer.produce(
                    self._address.queue,
                    line,
                    key,
                    headers=headers,
                    on_delivery=self._note,
                )
                return
            except BufferError:
                if monotonic() > deadline:
                    raise BrokerError("the broker did not confirm in time") from None
                producer.poll(0.05)
            except KafkaException as error:
                self._failed[line] = error.args[0]
                return

    def _note(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failed[message.value()] = error

    def _outcome(self, envelope: Envelope) -> BrokerError | None:
        errors = [self._failed[line] for line in _values(envelope) if line in self._failed]
        return described(errors[0]) if errors else None


def _values(envelope: Envelope) -> Sequence[bytes]:
    """Return the values of the messages that an envelope becomes."""
    return envelope.lines if envelope.raw is None else [envelope.raw]


def _person(line: bytes) -> bytes | None:
    """Return the ``distinct_id`` in *line*, as a key: messages with one key stay in order."""
    found = _PERSON.search(line)
    if found is None or b"\\" not in found[1]:
        return found and found[1]
    text: str = jsonable.decode(b'"%b"' % found[1])
    return text.encode()


class _Token(NamedTuple):
    """Successive messages of a partition, from *start* up to but not including *stop*."""

    partition: _Partition
    start: int
    stop: int


@dataclass(eq=False)
class _Partition:
    """An assigned partition, and how far its messages are settled without a gap."""

    number: int
    settled: dict[int, int] = field(default_factory=dict)  # behind a gap: start -> stop
    next: int = -1  # the first offset that is not settled
    committed: int = -1

    def arrived(self, start: int) -> None:
        if self.next < 0:
            self.next = start

    def settle(self, start: int, stop: int) -> None:
        self.settled[start] = stop
        while self.next in self.settled:
            self.next = self.settled.pop(self.next)


class KafkaConsumer:
    """Consume a topic as a member of a group."""

    def __init__(self, address: Address, intake: Intake) -> None:
        self.revision = 0
        self._address = address
        self._intake = intake
        self._consumer: Any = None
        self._dead = KafkaPublisher(replace(address, queue=address.dead), CONNECT_WITHIN)
        self._partitions: dict[int, _Partition] = {}
        self._inbox: deque[Delivery] = deque()
        self._tokens: dict[int, _Token] = {}
        self._paused: bool | None = False  # None: unknown, after a rebalance
        self._joined = False
        self._stopped = False
        self._is_assigned = False
        self._at_end: set[int] = set()  # partitions whose last message was seen

    @property
    def caught_up(self) -> bool:
        """Whether partitions are assigned, and all of them were read to their end."""
        return self._is_assigned and self._at_end.issuperset(self._partitions)

    @property
    def held(self) -> int:
        """How many messages arrived and are not settled."""
        return sum(token.stop - token.start for token in list(self._tokens.values()))

    def fetch(self, most: int, timeout: float) -> list[Delivery]:
        """Return messages; those that follow each other in a partition come as one."""
        try:
            consumer = self._open()
            enough = most <= 0 or self._stopped or self.held >= self._intake.prefetch * MOST_LINES
            self._pause(enough)
            if not self._joined:
                self._join(consumer)
            # Poll even if enough is here: only a poll learns that partitions move away.
            first = consumer.poll(0.0 if self._inbox and not enough else timeout)
            if first is not None:
                self._take_in([first])
            if not enough and len(self._inbox) < most:
                # Not for the first message: `consume` waits for all of them, or for its time-out.
                self._take_in(consumer.consume(MOST_LINES - 1, 0.0))
        except KafkaException as error:
            raise described(error.args[0]) from None
        most = 0 if self._stopped else most
        return [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]

    def pause(self) -> None:
        """Do nothing: a `fetch` of no messages pauses the partitions."""

    def holds(self, token: _Token) -> bool:
        """Return whether the messages are unsettled and their partition is still assigned."""
        assigned = self._partitions.get(token.partition.number)
        return assigned is token.partition and id(token) in self._tokens

    def ack(self, tokens: Sequence[_Token]) -> None:
        """Settle messages, and commit each partition up to its first gap."""
        for token in tokens:
            if self.holds(token):
                del self._tokens[id(token)]
                token.partition.settle(token.start, token.stop)
        self._commit(list(self._partitions.values()))

    def dead(self, envelope: Envelope, timeout: float) -> None:
        """Produce a dead letter."""
        (error,) = self._dead.publish([envelope], timeout)
        if error is not None:
            raise error

    def stop(self) -> None:
        """Return nothing more."""
        self._stopped = True
        self._inbox.clear()

    def close(self) -> None:
        """Leave the group, so that others are assigned the partitions."""
        consumer, self._consumer = self._consumer, None
        self._is_assigned = False
        if consumer is not None:
            consumer.close()  # which revokes them
        self._forget(list(self._partitions))
        self._dead.close()

    def _open(self) -> Any:
        if self._consumer is None:
            group = self._address.settings.get("group", f"posthog-logging.{self._address.queue}")
            creates = {"allow.auto.create.topics": self._intake.declare}
            consumer = confluent_kafka.Consumer(
                {**_CONSUMER, **creates, **settings(self._address), "group.id": group, **_MANUAL}
            )
            if self._intake.declare:
                declare(self._address)
            consumer.subscribe(
                [self._address.queue],
                on_assign=self._assigned,
                on_revoke=self._revoked,
                on_lost=self._lost,
            )
            self._paused = self._joined = False
            self._consumer = consumer
        return self._consumer

    def _join(self, consumer: Any) -> None:
        """Wait for the assignment: without it the topic would seem to be empty."""
        deadline = monotonic() + CONNECT_WITHIN
        while not self._joined and monotonic() < deadline:
            first = consumer.poll(0.1)
            self._take_in([] if first is None else [first])

    def _pause(self, pause: bool) -> None:
        """Pause or resume all partitions; the polls go on, without which they would be lost."""
        if pause == self._paused:
            return
        assigned = self._consumer.assignment()
        (self._consumer.pause if pause else self._consumer.resume)(assigned)
        self._paused = pause

    def _assigned(self, consumer: Any, parts: Sequence[TopicPartition]) -> None:
        self._joined = self._is_assigned = True
        self._paused = None
        self._at_end.clear()
        for one in parts:
            self._partitions[one.partition] = _Partition(one.partition)

    def _revoked(self, consumer: Any, parts: Sequence[TopicPartition]) -> None:
        numbers = self._partitions.keys() & {one.partition for one in parts}
        self._commit([self._partitions[number] for number in numbers], consumer)
        self._lost(consumer, parts)

    def _lost(self, consumer: Any, parts: Sequence[TopicPartition]) -> None:
        self._is_assigned = False
        self._forget([one.partition for one in parts])

    def _forget(self, numbers: Sequence[int]) -> None:
        """Drop the messages of partitions that are no longer assigned."""
        gone = {id(self._partitions.pop(number, None)) for number in numbers}
        self._inbox = deque(one for one in self._inbox if id(one.token.partition) not in gone)
        kept = {key: one for key, one in self._tokens.items() if id(one.partition) not in gone}
        if len(kept) < len(self._tokens):
            self.revision += 1
        self._tokens = kept

    def _commit(self, partitions: Sequence[_Partition], consumer: Any = None) -> None:
        due = [one for one in partitions if one.next > one.committed]
        consumer = consumer or self._consumer
        if not due or consumer is None:
            return
        offsets = [TopicPartition(self._address.queue, one.number, one.next) for one in due]
        try:
            consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _MOVED:
                raise described(error.args[0]) from None
            # A rebalance is under way: whatever is sent from now on would arrive twice.
            self._is_assigned = False
            self._forget(list(self._partitions))
            return
        for one in due:
            one.committed = one.next

    def _take_in(self, messages: Sequence[Any]) -> None:
        good = []
        for message in messages:
            error = message.error()
            if error is None and message.partition() in self._partitions:
                good.append(message)
            elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                self._at_end.add(message.partition())
            elif error is not None and error.code() not in _HARMLESS:
                raise described(error)
        for _, group in groupby(good, _Run()):
            self._add(list(group))

    def _add(self, messages: list[Any]) -> None:
        first, last = messages[0], messages[-1]
        partition = self._partitions[first.partition()]
        partition.arrived(first.offset())
        token = _Token(partition, first.offset(), last.offset() + 1)
        self._tokens[id(token)] = token
        headers = {
            name: (value or b"").decode("utf-8", "replace")
            for name, value in first.headers() or ()
        }
        kind, milliseconds = first.timestamp()
        self._inbox.append(
            Delivery(
                token,
                b"\n".join(message.value() or b"" for message in messages),
                f"{first.topic()}/{first.partition()}/{first.offset()}",
                headers.get("content_encoding"),
                headers,
                0,
                milliseconds / 1000 if kind else None,
            )
        )


class _Run:
    """
    Number the runs of messages that are read as one, as a key for `groupby`.

    A run is of this library's lines, in one partition, without a gap and within `MOST_BYTES`.
    """

    def __init__(self) -> None:
        self._number = 0
        self._size = 0
        self._expected: tuple[int, int] | None = None  # the place at which the run goes on

    def __call__(self, message: Any) -> int:
        line = message.value() or b""
        is_own = line.startswith(_OWN) and _is_plain(message.headers())
        partition, offset = message.partition(), message.offset()
        self._size += len(line) + 1
        goes_on = self._expected == (partition, offset) and self._size <= MOST_BYTES
        if not (goes_on and is_own):
            self._number += 1
            self._size = len(line) + 1
        self._expected = (partition, offset + 1) if is_own else None
        return self._number


def _is_plain(headers: Any) -> bool:
    found = dict(headers or ())
    return found.get("schema", _SCHEMA) == _SCHEMA and not found.get("content_encoding")


_SCHEMA = SCHEMA.encode()

_HARMLESS = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART})
_MOVED = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError._NO_OFFSET,
    }
)


def _headers(envelope: Envelope) -> list[tuple[str, bytes]]:
    found = {**envelope.headers(), "content_type": CONTENT_TYPE, "count": 1}
    if envelope.raw is not None and envelope.coding:
        found["content_encoding"] = envelope.coding
    return [(name, str(value).encode()) for name, value in found.items()]


def publisher(address: Address, timeout: float) -> KafkaPublisher:
    """Return a publisher; it connects when it is first used."""
    return KafkaPublisher(address, timeout)


def consumer(address: Address, intake: Intake) -> KafkaConsumer:
    """Return a consumer; it connects when it is first used."""
    return KafkaConsumer(address, intake)
