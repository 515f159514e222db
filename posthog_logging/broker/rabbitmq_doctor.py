"""What may be wrong with RabbitMQ and its queues, and what to do about it."""

from __future__ import annotations

import re
import uuid

from collections.abc import Iterator
from typing import Any

from .address import Address
from .engine import MISSING, BrokerError, Finding, no_entry
from .envelope import Envelope
from .rabbitmq_connection import Connection
from .rabbitmq_queues import ARGUMENTS, Refused, declared, queues


__all__ = ["examine"]


def examine(address: Address, timeout: float) -> Iterator[Finding]:
    """Check the broker, its alarms, the user's rights and the queues."""
    try:
        connection = Connection(address, timeout)
    except BrokerError as error:
        yield no_entry(address, error)
        return
    try:
        yield Finding("ok", "broker", f"{address.server} lets this user in")
        yield _publishing(connection, timeout)
    finally:
        connection.close()
    for queue, arguments in queues(address):
        yield from _queue(address, queue, arguments, timeout)


def _publishing(connection: Connection, timeout: float) -> Finding:
    """Publish to a queue that does not exist: the message comes back, or the reason is known."""
    outcome: list[BrokerError | None] = []
    probe = Envelope([b"{}"], str(uuid.uuid4()))
    connection.publish(f"posthog-logging-doctor-{probe.message_id}", probe, outcome.append)
    connection.run_until(lambda: bool(outcome) or connection.blocked, timeout)
    if connection.blocked:
        text = "low on memory or disk, so publishers wait"
        remedy = "`rabbitmq-diagnostics alarms` says which; give it more, or let relays catch up"
        return Finding("WRONG", "alarms", text, remedy)
    if connection.lost is not None:
        text = f"publishing to the default exchange: {connection.error()}"
        remedy = "give the user the right to write to amq.default, by rabbitmqctl set_permissions"
        return Finding("WRONG", "rights", text, remedy)
    if not outcome:
        text = f"the broker does not answer a message within {timeout:g} s"
        return Finding("WRONG", "alarms", text, "look at the broker's load and its log")
    return Finding("ok", "rights", "this user may publish, and no alarm holds publishers up")


def _queue(
    address: Address, queue: str, arguments: dict[str, Any], timeout: float
) -> Iterator[Finding]:
    try:
        found = declared(address, queue, timeout, passive=True)
    except Refused as refused:
        if refused.code == 404:
            yield Finding("note", "queue", f"{queue}: is missing", MISSING)
        else:
            yield Finding("WRONG", "queue", f"{queue}: {refused}", _RIGHTS)
        return
    yield Finding("ok", "queue", f"{queue}: {found.message_count} messages")
    yield from _arguments(address, queue, arguments, timeout)


def _arguments(
    address: Address, queue: str, arguments: dict[str, Any], timeout: float
) -> Iterator[Finding]:
    try:
        differences = _differences(address, queue, arguments, timeout)
    except Refused as refused:
        text = f"{queue}: unknown, for {refused}"
        yield Finding("note", "arguments", text, "give the relay --no-declare")
        return
    if not differences:
        yield Finding("ok", "arguments", f"{queue}: as a relay declares it")
    for name, text in differences.items():
        verdict = "WRONG" if name in _LOSES else "note"
        yield Finding(verdict, "arguments", f"{queue}: {text}", _REMEDY)


_RIGHTS = "nothing for a user that only publishes; a relay's user needs the right to read it"
_REMEDY = (
    "empty the queue and delete it, and a relay declares it anew; until then it is used as it is"
)
#: A queue that differs in one of these may lose events.
_LOSES = frozenset(ARGUMENTS) | {"durable"}


def _differences(
    address: Address, queue: str, arguments: dict[str, Any], timeout: float
) -> dict[str, str]:
    """
    Return how a queue differs from what a relay declares.

    To declare an existing queue changes nothing, and a refusal names one difference: that one
    is conceded, and the next one looked for.
    """
    found: dict[str, str] = {}
    wanted = dict(arguments)
    for _ in range(10):
        try:
            declared(address, queue, timeout, durable=True, arguments=wanted)
            return found
        except Refused as refused:
            difference = _INEQUIVALENT.search(refused.text)
            if difference is None:
                raise
            name, text = difference[1], difference[2]
            value = _VALUE.match(text)
            shown = value[1] if value else "not set"
            right = wanted.pop(name, None)
            found[name] = f"{name} is {shown}, where a relay declares {right!r}"
            if value is not None:
                wanted[name] = int(value[1]) if value[1].isdecimal() else value[1]
    return found


_INEQUIVALENT = re.compile(r"inequivalent arg '([\w-]{1,60})'.* but current is (.{1,80})")
_VALUE = re.compile(r"the value '([^']{0,60})'")
