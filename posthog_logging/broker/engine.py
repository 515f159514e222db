"""
What a broker must be able to do: an `Engine` makes a `Publisher` and a `Consumer`.

Both are used by one thread of one process, the one that made them.
``tests/test_broker.py`` is the contract: every engine in its table `BROKERS` is held to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from .address import SCHEMES, Address
from .envelope import Delivery, Envelope


__all__ = [
    "INVALID_SETTING",
    "MISSING",
    "BrokerError",
    "Consumer",
    "Engine",
    "Finding",
    "Intake",
    "Publisher",
    "engine_for",
    "no_entry",
]


class BrokerError(Exception):
    """
    Why a broker did not do what it was asked; the text has no credentials in it.

    ``final`` is True if trying again is useless: the message itself is too large.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


@dataclass(frozen=True)
class Intake:
    """
    How a relay consumes messages.

    Args:
        prefetch: how many messages a consumer may hold unacknowledged.
        declare: whether to declare a missing queue.
        patience: after how many seconds of silence the messages of one consumer may be claimed
            by another (Redis); longer than any attempt takes.
    """

    prefetch: int = 60
    declare: bool = True
    patience: float = 60.0


class Finding(NamedTuple):
    """
    The result of one check of a broker.

    *verdict* is ``"ok"``, ``"note"`` or ``"WRONG"``; the last two have a *remedy*.
    """

    verdict: str
    checked: str
    found: str
    remedy: str = ""


INVALID_SETTING = "a setting in the broker's URL is unknown or has a wrong value"

#: What to do about a queue, a stream or a topic that does not exist yet.
MISSING = "nothing; the first relay makes it, or an administrator where it has --no-declare"


def no_entry(address: Address, error: object) -> Finding:
    """Return the finding that the broker at *address* cannot be used, because of *error*."""
    return Finding(
        "WRONG",
        "broker",
        f"{address.server}: {error}",
        "check that the broker runs, host and port in the URL, the user, the password and what "
        "is behind the slash",
    )


class Publisher(Protocol):
    """Publishes messages to a queue, and knows when they are safe there."""

    def publish(self, envelopes: Sequence[Envelope], timeout: float) -> list[BrokerError | None]:
        """
        Publish within *timeout* seconds; return for each message its error, None if it is safe.

        Raises `BrokerError` if there is no connection. A missing queue is an error, too: the
        events wait in the program until a relay has declared it.
        """

    def close(self) -> None:
        """Close the connection; a later `publish` may open another one."""


class Consumer(Protocol):
    """
    Takes messages out of a queue.

    ``revision`` grows whenever the broker has taken messages back; `holds` tells which ones.
    """

    revision: int

    @property
    def caught_up(self) -> bool:
        """Whether a `fetch` without a message means that the queue is empty."""

    @property
    def held(self) -> int:
        """How many messages arrived and are not acknowledged, fetched or not."""

    def fetch(self, most: int, timeout: float) -> list[Delivery]:
        """
        Return up to *most* messages as soon as there is one, and none after *timeout* seconds.

        If *most* is 0, only keep the connection alive for *timeout* seconds. Raises
        `BrokerError` if there is no connection; a later call may open another one.
        """

    def pause(self) -> None:
        """Let no more messages arrive until the next `fetch` of at least one."""

    def holds(self, token: Any) -> bool:
        """Return whether the message of *token* is still this consumer's to acknowledge."""

    def ack(self, tokens: Sequence[Any]) -> None:
        """Acknowledge messages, except those that are no longer held."""

    def dead(self, envelope: Envelope, timeout: float) -> None:
        """Publish a dead letter; return once it is safe, else raise `BrokerError`."""

    def stop(self) -> None:
        """Take no more messages; those that are held can still be acknowledged."""

    def close(self) -> None:
        """Close the connection: what was not acknowledged is delivered to others."""


class Engine(Protocol):
    """
    One kind of broker: a module with these functions.

    `engine_for` imports it when a URL has its scheme, so it may import the client library.
    """

    def publisher(self, address: Address, timeout: float) -> Publisher:
        """Return a publisher, which connects when it is first used."""

    def consumer(self, address: Address, intake: Intake) -> Consumer:
        """Return a consumer, which connects when it is first used."""

    def examine(self, address: Address, timeout: float) -> Iterator[Finding]:
        """Check the broker and the queue, for the doctor; nothing that is published stays."""


def engine_for(address: Address) -> Engine:
    """Return the engine for *address*; raises ``ValueError`` if its package is not installed."""
    name = SCHEMES[address.scheme]
    try:
        module: Any = import_module(f".{name}", __package__)
    except ImportError:
        extra = {"redis_streams": "redis"}.get(name, name)
        raise ValueError(
            f"broker: {address.scheme}:// needs another package: "
            f"pip install 'posthog_logging[{extra}]'"
        ) from None
    engine: Engine = module
    return engine
