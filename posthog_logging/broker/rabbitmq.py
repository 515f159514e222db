"""RabbitMQ, through ``pika``: quorum queues, publisher confirms and acknowledgements."""

from __future__ import annotations

import threading

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from ..delivery.clock import monotonic
from .address import Address
from .engine import BrokerError, Intake
from .envelope import Delivery, Envelope
from .rabbitmq_connection import CONNECT_WITHIN, Connection
from .rabbitmq_doctor import examine
from .rabbitmq_queues import declare, exists, queues


__all__ = ["RabbitConsumer", "RabbitPublisher", "consumer", "examine", "publisher"]

#: Each kill of a relay costs its messages one delivery, and a queue that somebody else declared
#: may allow only a few. After so many a message is published again, as a new one.
_REPUBLISH_AFTER = 1
_REPUBLISH_WITHIN = 5.0
_UNKNOWN = BrokerError("unknown")

# RabbitMQ's own header, and ours, which goes on counting when a message is published again.
_DELIVERY_COUNT = "x-delivery-count"
_DELIVERIES = "deliveries"


class RabbitPublisher:
    """Publish to a queue through the default exchange; many messages share one wait."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Connection | None = None
        # By message id; both hold messages that an earlier `publish` did not wait for to the end.
        self._pending: set[str] = set()
        self._outcomes: dict[str, BrokerError | None] = {}

    def publish(self, envelopes: Sequence[Envelope], timeout: float) -> list[BrokerError | None]:
        """
        Publish what is not pending already, and wait for all of it together.

        If the broker is slow, or blocks its publishers while it is low on memory or disk, a
        message stays pending and the next attempt goes on waiting for it: to publish it again
        would only store it twice.
        """
        deadline = monotonic() + timeout
        connection = self._open(timeout)
        ids = [envelope.message_id for envelope in envelopes]
        for envelope in envelopes:
            name = envelope.message_id
            if name not in self._pending and not (connection.blocked and self._pending):
                self._pending.add(name)
                done = partial(self._outcomes.__setitem__, name)
                connection.publish(self._address.queue, envelope, done)
        connection.run_until(
            lambda: self._outcomes.keys() >= set(ids) or connection.blocked,
            deadline - monotonic(),
        )
        return self._taken(connection, ids)

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        self._outcomes.clear()
        self._pending.clear()
        if connection is not None:
            connection.close()

    def _open(self, timeout: float) -> Connection:
        if self._connection is not None:
            self._connection.poll()  # the broker may have closed an idle one
            if self._connection.lost is not None:
                self.close()
        if self._connection is None:
            self._connection = Connection(self._address, min(timeout, CONNECT_WITHIN))
        return self._connection

    def _taken(self, connection: Connection, ids: list[str]) -> list[BrokerError | None]:
        """Return the outcomes; a broker that answered nothing at all loses its connection."""
        is_silent = not self._outcomes and not connection.blocked
        unknown = connection.error()
        found = [self._outcomes.pop(name, unknown) for name in ids]
        known = [name for name, one in zip(ids, found, strict=True) if one is not unknown]
        self._pending.difference_update(known)
        if connection.lost is not None or (is_silent and unknown in found):
            self.close()
        return found


class _Token(NamedTuple):
    revision: int
    tag: int


class RabbitConsumer:
    """Consume from a queue; each new connection is a revision, whose tokens are valid for it."""

    def __init__(self, address: Address, intake: Intake) -> None:
        self.revision = 0
        self.caught_up = True
        self._address = address
        self._intake = intake
        self._connection: Connection | None = None
        self._publishing: Connection | None = None
        self._inbox: deque[Delivery] = deque()
        self._held: set[int] = set()
        self._redelivered: list[tuple[Delivery, Any]] = []  # to publish again, with properties
        self._tag = ""
        self._stopped = False

    @property
    def held(self) -> int:
        """How many messages arrived and are not acknowledged."""
        return len(self._held)

    def fetch(self, most: int, timeout: float) -> list[Delivery]:
        """Return messages that have arrived, within the prefetch."""
        if self._stopped:
            most = 0
        connection = self._open()
        if most > 0 and not self._tag:
            self._tag = connection.channel.basic_consume(self._address.queue, self._on_message)
        connection.run_until(lambda: most > 0 and bool(self._inbox or self._redelivered), timeout)
        if connection.lost is not None:
            self._drop(connection)
            raise connection.error()
        if self._redelivered:
            self._republish()
        return [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]

    def pause(self) -> None:
        """Cancel the consumer, so that nothing more arrives; what is held stays held."""
        connection = self._connection
        if self._tag and connection is not None and connection.lost is None:
            connection.channel.basic_cancel(self._tag)
            self._tag = ""

    def holds(self, token: _Token) -> bool:
        """Return whether the message is unacknowledged and its channel is open."""
        return token.revision == self.revision and token.tag in self._held

    def ack(self, tokens: Sequence[_Token]) -> None:
        """Acknowledge messages; those of a closed channel will be delivered again."""
        connection = self._connection
        for token in tokens:
            if self.holds(token) and connection is not None and connection.lost is None:
                self._held.discard(token.tag)
                connection.channel.basic_ack(token.tag)
        if connection is not None:
            connection.poll()

    def dead(self, envelope: Envelope, timeout: float) -> None:
        """Publish a dead letter, and wait until it is confirmed."""
        outcome: list[BrokerError | None] = []
        connection = self._open_publishing()
        connection.publish(self._address.dead, envelope, outcome.append)
        connection.run_until(lambda: bool(outcome) or connection.blocked, timeout)
        if not outcome:
            error = connection.error()
            self._close_publishing()
            raise error
        if outcome[0] is not None:
            raise outcome[0]

    def stop(self) -> None:
        """Cancel the consumer; the channel stays open for acknowledgements."""
        self._stopped = True
        self._inbox.clear()
        self.pause()
        if self._connection is not None:
            self._connection.poll()

    def close(self) -> None:
        """Close the connections: the broker delivers the rest to other consumers."""
        self._close_publishing()
        if self._connection is not None:
            self._drop(self._connection)

    def _drop(self, connection: Connection) -> None:
        """Forget a connection and everything that arrived on it."""
        self._connection = None
        self._tag = ""
        self.revision += 1
        self._inbox.clear()
        self._held.clear()
        self._redelivered.clear()
        connection.close()

    def _open(self) -> Connection:
        if self._connection is None:
            with _declaring:
                connection = self._with_queues()
            try:
                connection.channel.basic_qos(prefetch_count=self._intake.prefetch)
                connection.channel.add_on_cancel_callback(connection.on_cancel)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _with_queues(self) -> Connection:
        """Return a connection once all queues exist; an existing queue need not be declared."""
        missing = dict(queues(self._address))
        while True:
            connection = Connection(self._address, CONNECT_WITHIN)
            try:
                queue = next((one for one in missing if not exists(connection, one)), None)
            except BaseException:
                connection.close()
                raise
            if queue is None:
                return connection
            connection.close()  # its channel was closed by the question for a missing queue
            if not self._intake.declare:
                raise BrokerError(f"the broker has no queue {queue!r}")
            declare(self._address, queue, missing.pop(queue))

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        headers = properties.headers or {}
        counted = _count(headers.get(_DELIVERY_COUNT, int(method.redelivered)))
        before = counted + _count(headers.get(_DELIVERIES))
        self._held.add(method.delivery_tag)
        token = _Token(self.revision, method.delivery_tag)
        delivery = _delivery(token, properties, body, before)
        if _count(headers.get(_DELIVERY_COUNT)) < _REPUBLISH_AFTER:
            self._inbox.append(delivery)
            return
        properties.headers = {**headers, _DELIVERIES: before}
        del properties.headers[_DELIVERY_COUNT]
        self._redelivered.append((delivery, properties))

    def _republish(self) -> None:
        """
        Publish redelivered messages again and acknowledge the old ones, before any is sent on.

        A relay may be killed by its first request. What cannot be published is used as it came.
        """
        redelivered, self._redelivered = self._redelivered, []
        outcomes: dict[int, BrokerError | None] = {}
        try:
            connection = self._open_publishing()
            for number, (delivery, properties) in enumerate(redelivered):
                done = partial(outcomes.__setitem__, number)
                connection.send(self._address.queue, delivery.body, properties, done)
            connection.run_until(
                lambda: len(outcomes) == len(redelivered) or connection.blocked,
                _REPUBLISH_WITHIN,
            )
        except BrokerError:
            pass
        for number, (delivery, _) in enumerate(redelivered):
            if outcomes.get(number, _UNKNOWN) is None:
                self.ack([delivery.token])
            else:
                self._inbox.append(delivery)

    def _open_publishing(self) -> Connection:
        """
        Return a second connection, to publish on.

        A broker that is low on memory or disk stops reading from connections that publish;
        acknowledgements, which would help it, must not wait behind them.
        """
        if self._publishing is not None:
            self._publishing.poll()
            if self._publishing.lost is not None or self._publishing.blocked:
                self._close_publishing()
        if self._publishing is None:
            self._publishing = Connection(self._address, CONNECT_WITHIN)
        return self._publishing

    def _close_publishing(self) -> None:
        connection, self._publishing = self._publishing, None
        if connection is not None:
            connection.close()


#: Declarations of one quorum queue at the same time may fail.
_declaring = threading.Lock()


def _count(header: Any) -> int:
    """Return a count from a header, which a publisher may have set to anything."""
    return header if isinstance(header, int) and header > 0 else 0  # pika has an int of its own


def _delivery(token: _Token, properties: Any, body: bytes, before: int) -> Delivery:
    published = properties.timestamp
    return Delivery(
        token,
        body,
        properties.message_id or "",
        properties.content_encoding,
        properties.headers or {},
        before,
        float(published) if isinstance(published, int) else None,
    )


def publisher(address: Address, timeout: float) -> RabbitPublisher:
    """Return a publisher; it connects when it is first used."""
    return RabbitPublisher(address)


def consumer(address: Address, intake: Intake) -> RabbitConsumer:
    """Return a consumer; it connects when it is first used."""
    return RabbitConsumer(address, intake)
