"""RabbitMQ's queues as a relay declares them: quorum queues that lose nothing."""

from __future__ import annotations

from typing import Any

from .address import Address
from .engine import BrokerError
from .rabbitmq_connection import CONNECT_WITHIN, SILENT, Connection


__all__ = ["ARGUMENTS", "Refused", "declare", "declared", "exists", "queues"]

#: RabbitMQ 4 drops a message after 20 deliveries unless ``x-delivery-limit`` allows more.
ARGUMENTS = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-dead-letter-strategy": "at-least-once",
    "x-dead-letter-exchange": "",
    "x-delivery-limit": 1_000_000,
}
_DEAD_ARGUMENTS = {"x-queue-type": "quorum"}


class Refused(BrokerError):
    """A declaration that was refused, with the broker's code and text."""

    def __init__(self, error: BrokerError, lost: BaseException | None) -> None:
        super().__init__(str(error), final=error.final)
        self.code = getattr(lost, "reply_code", 0)
        self.text = str(getattr(lost, "reply_text", ""))


def queues(address: Address) -> list[tuple[str, dict[str, Any]]]:
    """Return the queue and the one of its dead letters, each with its arguments."""
    own = {**ARGUMENTS, "x-dead-letter-routing-key": address.dead}
    return [(address.dead, _DEAD_ARGUMENTS), (address.queue, own)]


def exists(connection: Connection, queue: str) -> bool:
    """Return whether the queue exists; if it does not, the connection is lost."""
    answers: list[Any] = []
    connection.channel.queue_declare(queue, passive=True, callback=answers.append)
    if connection.run_until(lambda: bool(answers), CONNECT_WITHIN):
        return True
    if getattr(connection.lost, "reply_code", 0) == 404:
        return False
    raise connection.error(SILENT)


def declare(address: Address, queue: str, arguments: dict[str, Any]) -> None:
    """Declare a durable queue; raises `BrokerError` if that is refused."""
    try:
        declared(address, queue, CONNECT_WITHIN, durable=True, arguments=arguments)
    except Refused as refused:
        if refused.code == 403:
            raise BrokerError(
                f"no right to declare {queue!r}: give it, or declare it and pass --no-declare"
            ) from None
        raise


def declared(address: Address, queue: str, timeout: float, **how: Any) -> Any:
    """Return the broker's answer to a declaration; a refusal ends its connection."""
    connection = Connection(address, timeout)
    answers: list[Any] = []
    try:
        connection.channel.queue_declare(queue, callback=answers.append, **how)
        if connection.run_until(lambda: bool(answers), timeout):
            return answers[0].method
        raise Refused(connection.error(SILENT), connection.lost)
    finally:
        connection.close()
