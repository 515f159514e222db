"""
Kafka, by way of ``confluent-kafka``: one event a message, in order for each person.

What was settled is committed as far as it is without a gap, partition by partition.
"""

from __future__ import annotations

import re
import time

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

import confluent_kafka

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined,unused-ignore]
    AdminClient,
    ConfigResource,
    NewTopic,
)

from ..events import jsonable
from .address import Address
from .engine import MISSING, BrokerError, Finding, Intake, no_entry
from .envelope import CONTENT_TYPE, MOST_BYTES, MOST_LINES, SCHEMA, Delivery, Envelope


__all__ = ["KafkaConsumer", "KafkaPublisher", "consumer", "examine", "publisher"]

_PERSON = re.compile(rb'"distinct_id":"((?:[^"\\]|\\.)*)"')
_OWN = b'{"uuid":"'
_CONNECT_WITHIN = 10.0
_FINAL = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})

# https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md
_QUIET: dict[str, Any] = {"log_level": 0, "client.id": "posthog-logging"}
_OURS = frozenset({"queue", "group"})


class KafkaPublisher:
    """Produce to a topic, idempotently: what is tried again is stored once, in order."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._producer: Any = None
        self._failed: dict[bytes, KafkaError] = {}

    def publish(self, envelopes: Sequence[Envelope], timeout: float) -> list[BrokerError | None]:
        """Produce each line as a message of its own; an envelope is safe when all of its are."""
        self._failed.clear()
        producer = self._open(timeout)
        deadline = time.monotonic() + timeout
        try:
            for envelope in envelopes:
                headers = _headers(envelope)
                for line in envelope.lines or [envelope.raw or b""]:
                    self._produce(producer, line, headers, deadline)
            left = producer.flush(max(0.0, deadline - time.monotonic()))
        except KafkaException as error:
            raise _in_words(error.args[0]) from None
        if left:
            producer.purge()
            producer.flush(1.0)
        return [self._outcome(envelope) for envelope in envelopes]

    def close(self) -> None:
        """Give the producer back."""
        self._producer = None

    def _open(self, timeout: float) -> Any:
        if self._producer is None:
            self._producer = confluent_kafka.Producer(
                {
                    **_QUIET,
                    "linger.ms": 5,
                    "message.max.bytes": 1_000_000,
                    "delivery.timeout.ms": int(max(1.0, self._timeout) * 1000),
                    "socket.connection.setup.timeout.ms": 5000,
                    "compression.type": "lz4",
                    **_settings(self._address),
                    "enable.idempotence": True,
                    "delivery.report.only.error": True,
                }
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
                if time.monotonic() > deadline:
                    raise BrokerError("the broker did not confirm in time") from None
                producer.poll(0.05)
            except KafkaException as error:
                self._failed[line] = error.args[0]
                return

    def _note(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            self._failed[message.value()] = error

    def _outcome(self, envelope: Envelope) -> BrokerError | None:
        errors = [self._failed[line] for line in envelope.lines if line in self._failed]
        return _in_words(errors[0]) if errors else None


def _person(line: bytes) -> bytes | None:
    """Return the id of whom *line* is about: messages with one key stay in order."""
    found = _PERSON.search(line)
    if found is None or b"\\" not in found[1]:
        return found and found[1]
    text: str = jsonable.decode(b'"%b"' % found[1])
    return text.encode()


class _Token(NamedTuple):
    """Messages of one partition, without a gap: up to before *stop*."""

    part: _Part
    start: int
    stop: int


@dataclass(eq=False)
class _Part:
    """A partition that is ours: what came, and how far it is settled without a gap."""

    number: int
    settled: dict[int, int] = field(default_factory=dict)  # out of order: start -> stop
    done: int = -1  # the first offset that is not settled
    committed: int = -1

    def came(self, start: int) -> None:
        if self.done < 0:
            self.done = start

    def settle(self, start: int, stop: int) -> None:
        self.settled[start] = stop
        while self.done in self.settled:
            self.done = self.settled.pop(self.done)


class KafkaConsumer:
    """Consume a topic as one of a group."""

    def __init__(self, address: Address, intake: Intake) -> None:
        self.revision = 0
        self._address = address
        self._intake = intake
        self._consumer: Any = None
        self._dead = KafkaPublisher(replace(address, queue=address.dead), _CONNECT_WITHIN)
        self._parts: dict[int, _Part] = {}
        self._inbox: deque[Delivery] = deque()
        self._open_tokens: dict[int, _Token] = {}
        self._paused: bool | None = False  # None: nobody knows, after a rebalance
        self._joined = False
        self._stopped = False
        self._assigned_now = False
        self._at_end: set[int] = set()  # partitions of which the last message was seen

    @property
    def caught_up(self) -> bool:
        """Whether it has its share of the topic, and has come to the end of it."""
        return self._assigned_now and self._at_end.issuperset(self._parts)

    @property
    def held(self) -> int:
        """How many messages are here."""
        return sum(token.stop - token.start for token in list(self._open_tokens.values()))

    def fetch(self, most: int, timeout: float) -> list[Delivery]:
        """Return messages, those of one partition that follow each other as one."""
        try:
            consumer = self._open()
            enough = most <= 0 or self._stopped or self.held >= self._intake.prefetch * MOST_LINES
            self._pause(enough)
            if not self._joined:
                self._join(consumer)
            # Always, also where enough is here: only who polls learns that a share moves away.
            first = consumer.poll(0.0 if self._inbox and not enough else timeout)
            if first is not None:
                self._take_in([first])
            if not enough and len(self._inbox) < most:
                # Not for the first, too: it waits for all of them, or until time is up.
                self._take_in(consumer.consume(MOST_LINES - 1, 0.0))
        except KafkaException as error:
            raise _in_words(error.args[0]) from None
        most = 0 if self._stopped else most
        return [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]

    def pause(self) -> None:
        """Do nothing: a `fetch` of no messages lets none come."""

    def holds(self, token: _Token) -> bool:
        """Return whether the partition is still ours."""
        return self._parts.get(token.part.number) is token.part and id(token) in self._open_tokens

    def ack(self, tokens: Sequence[_Token]) -> None:
        """Settle messages, and commit as far as all before are settled."""
        for token in tokens:
            if self.holds(token):
                del self._open_tokens[id(token)]
                token.part.settle(token.start, token.stop)
        self._commit(list(self._parts.values()))

    def dead(self, envelope: Envelope, timeout: float) -> None:
        """Produce to the topic of the dead."""
        (error,) = self._dead.publish([envelope], timeout)
        if error is not None:
            raise error

    def stop(self) -> None:
        """Return nothing more."""
        self._stopped = True
        self._inbox.clear()

    def close(self) -> None:
        """Leave the group: the partitions are others'."""
        consumer, self._consumer = self._consumer, None
        self._assigned_now = False
        if consumer is not None:
            consumer.close()  # which revokes them
        self._forget(list(self._parts))
        self._dead.close()

    def _open(self) -> Any:
        if self._consumer is None:
            consumer = confluent_kafka.Consumer(
                {
                    **_QUIET,
                    "session.timeout.ms": 10_000,
                    "heartbeat.interval.ms": 1000,
                    "allow.auto.create.topics": self._intake.declare,
                    "topic.metadata.refresh.interval.ms": 10_000,
                    "fetch.wait.max.ms": 100,
                    **_settings(self._address),
                    "group.id": self._address.settings.get(
                        "group", f"posthog-logging.{self._address.queue}"
                    ),
                    "auto.offset.reset": "earliest",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,  # for `caught_up`
                }
            )
            _declare(self._address, self._intake)
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
        """Wait until this group's member has its share: else all would seem to be empty."""
        deadline = time.monotonic() + _CONNECT_WITHIN
        while not self._joined and time.monotonic() < deadline:
            self._take_in([one for one in [consumer.poll(0.1)] if one is not None])

    def _pause(self, pause: bool) -> None:
        """Let nothing more come, while the poll goes on: who does not poll loses its part."""
        if pause == self._paused:
            return
        parts = self._consumer.assignment()
        (self._consumer.pause if pause else self._consumer.resume)(parts)
        self._paused = pause

    def _assigned(self, consumer: Any, parts: Sequence[TopicPartition]) -> None:
        self._joined = self._assigned_now = True
        self._paused = None
        self._at_end.clear()
        for one in parts:
            self._parts[one.partition] = _Part(one.partition)

    def _revoked(self, consumer: Any, parts: Sequence[TopicPartition]) -> None:
        mine = [self._parts[one.partition] for one in parts if one.partition in self._parts]
        self._commit(mine, consumer)
        self._lost(consumer, parts)

    def _lost(self, consumer: Any, parts: Sequence[TopicPartition]) -> None:
        self._assigned_now = False
        self._forget([one.partition for one in parts])

    def _forget(self, numbers: Sequence[int]) -> None:
        """Drop what came of partitions that are others' now."""
        gone = {id(self._parts.pop(number, None)) for number in numbers}
        self._inbox = deque(one for one in self._inbox if id(one.token.part) not in gone)
        kept = {key: one for key, one in self._open_tokens.items() if id(one.part) not in gone}
        if len(kept) < len(self._open_tokens):
            self.revision += 1
        self._open_tokens = kept

    def _commit(self, parts: Sequence[_Part], consumer: Any = None) -> None:
        due = [part for part in parts if part.done > part.committed and part.done >= 0]
        consumer = consumer or self._consumer
        if not due or consumer is None:
            return
        offsets = [TopicPartition(self._address.queue, one.number, one.done) for one in due]
        try:
            consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in _MOVED:
                raise _in_words(error.args[0]) from None
            # A rebalance is on its way: what goes on being sent now would come twice.
            self._assigned_now = False
            self._forget(list(self._parts))
            return
        for part in due:
            part.committed = part.done

    def _take_in(self, messages: Sequence[Any]) -> None:
        good = []
        for message in messages:
            error = message.error()
            if error is None and message.partition() in self._parts:
                good.append(message)
            elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                self._at_end.add(message.partition())
            elif error is not None and error.code() not in _HARMLESS:
                raise _in_words(error)
        for _, group in groupby(good, _Kind()):
            self._add(list(group))

    def _add(self, messages: list[Any]) -> None:
        first, last = messages[0], messages[-1]
        part = self._parts[first.partition()]
        part.came(first.offset())
        token = _Token(part, first.offset(), last.offset() + 1)
        self._open_tokens[id(token)] = token
        headers = {
            name: (value or b"").decode("utf-8", "replace")
            for name, value in first.headers() or ()
        }
        kind, moment = first.timestamp()
        self._inbox.append(
            Delivery(
                token,
                b"\n".join(message.value() or b"" for message in messages),
                f"{first.topic()}/{first.partition()}/{first.offset()}",
                headers.get("content_encoding"),
                headers,
                0,
                moment / 1000 if kind else None,
            )
        )


class _Kind:
    """Decide which messages go together: one partition, no gap, and lines of this library."""

    def __init__(self) -> None:
        self._number = 0
        self._before: tuple[int, int] = (-1, -1)

    def __call__(self, message: Any) -> int:
        place = message.partition(), message.offset()
        follows = place == (self._before[0], self._before[1] + 1)
        plain = (message.value() or b"").startswith(_OWN) and _plain(message.headers())
        if not (follows and plain):
            self._number += 1
        # After one that must stand alone, another group begins.
        self._before = place if plain else (-1, -1)
        return self._number


def _plain(headers: Any) -> bool:
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


def _settings(address: Address) -> dict[str, Any]:
    """Return the client's configuration: the URL's query has librdkafka's own names."""
    user, password = address.credentials()
    found: dict[str, Any] = {"bootstrap.servers": address.hosts}
    if user:
        found |= {
            "sasl.username": user,
            "sasl.password": password,
            "sasl.mechanism": "PLAIN",
            "security.protocol": "SASL_SSL",
        }
    found |= {name: value for name, value in address.settings.items() if name not in _OURS}
    return found


def _declare(address: Address, intake: Intake) -> None:
    """Make the topics where they are missing, as the cluster's defaults have it."""
    if not intake.declare:
        return
    admin = AdminClient({**_QUIET, **_settings(address)})
    # To ask for a topic makes it, where the cluster is configured so.
    missing = [
        NewTopic(name, num_partitions=-1, replication_factor=-1)
        for name in (address.queue, address.dead)
        if admin.list_topics(name, timeout=_CONNECT_WITHIN).topics[name].error is not None
    ]
    if not missing:
        return
    for future in admin.create_topics(missing, request_timeout=_CONNECT_WITHIN).values():
        try:
            future.result(_CONNECT_WITHIN)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        except TimeoutError:
            raise BrokerError("the broker did not make the topic in time") from None


def _in_words(error: Any) -> BrokerError:
    """Return what *error* means, by its name alone."""
    code = error.code() if isinstance(error, KafkaError) else None
    text = _WORDS.get(code)
    if text is not None:
        return BrokerError(text, final=code in _FINAL)
    name = error.name() if isinstance(error, KafkaError) else type(error).__name__
    return BrokerError(f"the broker did not take or give messages ({name})")


_WORDS: dict[Any, str] = {
    KafkaError._TRANSPORT: "the broker cannot be reached",
    KafkaError._ALL_BROKERS_DOWN: "the broker cannot be reached",
    KafkaError._TIMED_OUT: "the broker did not answer in time",
    KafkaError._MSG_TIMED_OUT: "the broker did not confirm in time",
    KafkaError._PURGE_QUEUE: "the broker did not confirm in time",
    KafkaError._PURGE_INFLIGHT: "the broker did not confirm in time",
    KafkaError._AUTHENTICATION: "the broker refused the user or the password",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the broker refused the user or the password",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the broker refused the right to that topic",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the broker has no such topic; a relay makes it",
    KafkaError.MSG_SIZE_TOO_LARGE: "the broker takes no message as large as that",
    KafkaError.INVALID_MSG_SIZE: "the broker takes no message as large as that",
}


def publisher(address: Address, timeout: float) -> KafkaPublisher:
    """Return what publishes."""
    return KafkaPublisher(address, timeout)


def consumer(address: Address, intake: Intake) -> KafkaConsumer:
    """Return what consumes."""
    return KafkaConsumer(address, intake)


def examine(address: Address, timeout: float) -> Iterator[Finding]:
    """Yield what is well and what is wrong: the cluster, the topics, their limits."""
    admin = AdminClient({**_QUIET, **_settings(address)})
    try:
        known = admin.list_topics(timeout=timeout)
    except KafkaException as error:
        yield no_entry(address, _in_words(error.args[0]))
        return
    yield Finding("ok", "broker", f"{address.server}, {len(known.brokers)} broker(s)")
    for name in (address.queue, address.dead):
        topic = known.topics.get(name)
        if topic is None:
            yield Finding("note", "topic", f"{name} is missing", MISSING)
            continue
        copies = min((len(one.replicas) for one in topic.partitions.values()), default=0)
        found = f"{name}: {len(topic.partitions)} partitions, {copies} replica(s)"
        if copies > 1:
            yield Finding("ok", "topic", found)
        else:
            text = f"{found}: what one disk loses is lost"
            yield Finding("note", "topic", text, "make the topic with two replicas or more")
    if address.queue in known.topics:
        yield from _limits(admin, address, timeout)


def _limits(admin: Any, address: Address, timeout: float) -> Iterator[Finding]:
    resource = ConfigResource(ConfigResource.Type.TOPIC, address.queue)
    try:
        (future,) = admin.describe_configs([resource], request_timeout=timeout).values()
        found = {name: one.value for name, one in future.result(timeout).items()}
    except Exception as error:
        text = f"the broker does not say ({type(error).__name__})"
        remedy = f"make sure that max.message.bytes is {MOST_BYTES} or more"
        yield Finding("note", "limits", text, remedy)
        return
    largest = int(found.get("max.message.bytes", 0))
    if largest < MOST_BYTES:
        text = f"max.message.bytes is {largest}, so larger events are lost"
        yield Finding("note", "limits", text, f"set max.message.bytes to {MOST_BYTES}")
    else:
        yield Finding("ok", "limits", f"max.message.bytes is {largest}")
    hours = int(found.get("retention.ms", -1)) / 3_600_000
    if 0 <= hours < 24:
        text = f"retention.ms is {hours:.1f} hours: an outage that lasts longer loses events"
        yield Finding("WRONG", "retention", text, "set retention.ms to some days")
