"""
What a broker must be able to do: `Publisher` and `Consumer` are the seam, four engines fill it.

Everything here belongs to one thread of one process: whoever uses it has made it.
``tests/test_broker.py`` is the contract: an engine that is in its table `BROKERS` is held to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from .address import SCHEMES, Address
from .envelope import Delivery, Envelope


__all__ = [
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
    What a broker refused or did not answer, in words without credentials.

    ``final`` says that to try the same again is no use: the message itself is too large.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


@dataclass(frozen=True)
class Intake:
    """
    How a relay takes messages in.

    Args:
        prefetch: how many messages may be here that were not acknowledged.
        declare: whether the queue is made where it is missing.
        patience: for how long, in seconds, a holder of messages may be silent before they are
            another's (Redis); longer than any attempt takes.
    """

    prefetch: int = 60
    declare: bool = True
    patience: float = 60.0


class Finding(NamedTuple):
    """
    What a check of a broker found, and what to do about it.

    *verdict* is ``"ok"``, ``"note"`` or ``"WRONG"``; all but ``"ok"`` have a *remedy*.
    """

    verdict: str
    checked: str
    found: str
    remedy: str = ""


#: What to do about a queue, a stream or a topic that is not there yet.
MISSING = "nothing; the first relay makes it, or an administrator where it has --no-declare"


def no_entry(address: Address, error: object) -> Finding:
    """Return the finding that there is no way into the broker at *address*."""
    return Finding(
        "WRONG",
        "broker",
        f"{address.server}: {error}",
        "check that the broker runs, host and port in the URL, the user, the password and what "
        "is behind the slash",
    )


class Publisher(Protocol):
    """Something that puts messages into a queue, and knows when they are safe there."""

    def publish(self, envelopes: Sequence[Envelope], timeout: float) -> list[BrokerError | None]:
        """
        Publish within *timeout* seconds; return for each what is wrong, None where it is safe.

        Raises `BrokerError` where there is no connection. A queue that is missing is an error,
        too: the event waits in the program until a relay has made it.
        """

    def close(self) -> None:
        """Give back the connection; a later `publish` may open a new one."""


class Consumer(Protocol):
    """
    Something that takes messages out of a queue.

    ``revision`` grows whenever the broker took messages back: then `holds` says which. One that
    may have nothing to give for another reason than an empty queue has a ``caught_up``, too: a
    bool that is True once it has come to the queue's end.
    """

    revision: int

    def fetch(self, most: int, timeout: float) -> list[Delivery]:
        """
        Return up to *most* messages, as soon as there is one; none after *timeout* seconds.

        With 0 for *most* only look after the connection, for *timeout* seconds. Raises
        `BrokerError` where there is no connection; a later call may open a new one.
        """

    def pause(self) -> None:
        """Let nothing more come, until a `fetch` of one message or more."""

    def holds(self, token: Any) -> bool:
        """Return whether the message of *token* is still this consumer's to acknowledge."""

    def ack(self, tokens: Sequence[Any]) -> None:
        """Acknowledge messages; what is not held any more is left out."""

    def dead(self, envelope: Envelope, timeout: float) -> None:
        """Put a message into the queue of the dead; return when it is safe there, else raise."""

    def stop(self) -> None:
        """Take no more messages; those that are here can still be acknowledged."""

    def close(self) -> None:
        """Give back the connection: what was not acknowledged is for others."""

    @property
    def held(self) -> int:
        """How many messages came and were not acknowledged, also those that nobody fetched."""


class Engine(Protocol):
    """
    One kind of broker: a module with these functions.

    `engine_for` imports it when a URL has its scheme, so it may import the client library.
    """

    def publisher(self, address: Address, timeout: float) -> Publisher:
        """Return what publishes; nothing is connected yet."""

    def consumer(self, address: Address, intake: Intake) -> Consumer:
        """Return what consumes; nothing is connected yet."""

    def examine(self, address: Address, timeout: float) -> Iterator[Finding]:
        """Yield what is well and what is wrong with the broker and the queue."""


def engine_for(address: Address) -> Engine:
    """Return the engine for *address*; raises ``ValueError`` where its package is missing."""
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
