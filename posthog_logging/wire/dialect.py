"""
The seam between messages and what travels: a `Dialect`, and the values that it takes and gives.

``decode`` serves the inspector, ``import`` and the round-trip tests; an instance of your own
works wherever a dialect's name does.
"""

from __future__ import annotations

import dataclasses

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from ..events.message import Message


__all__ = [
    "Batch",
    "Dialect",
    "Endpoint",
    "Limits",
    "Request",
    "Response",
    "Results",
    "Rules",
]


class Request(NamedTuple):
    """One HTTP POST, ready to go."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Response(NamedTuple):
    """What came back: ``status`` is None, and ``error`` says why, where no answer came."""

    status: int | None
    headers: Mapping[str, str] = MappingProxyType({})  # names in lower case
    body: bytes = b""
    error: str = ""


@dataclass(frozen=True)
class Endpoint:
    """Where and how to send; the key is in no ``repr``."""

    host: str
    api_key: str = field(repr=False)
    compression: str | None = "gzip"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    historical_migration: bool = False


@dataclass(frozen=True)
class Batch:
    """
    Lines that travel together until each is resolved.

    ``request_id``, ``created_at`` and the order of the lines stay the same on every
    attempt; a batch only ever shrinks. ``attempt`` counts from 1.
    """

    lines: Sequence[bytes]
    request_id: str
    created_at: str
    attempt: int = 1

    def shrunk(self, lines: Sequence[bytes]) -> Batch:
        """Return this batch with only *lines* left in it."""
        return dataclasses.replace(self, lines=lines)


class Results(NamedTuple):
    """
    What a 2xx answer says of single events; all that it does not name is delivered.

    ``retry`` and ``paused`` are the ids of events that were not taken: at once again, or when
    somebody has put the destination in order. ``dropped`` gives the reason of each refused
    one, and ``unnamed`` how many more were refused without a name. ``kept`` says why none
    was taken, where that is plain; ``error`` why nothing can be read.
    """

    retry: frozenset[str] = frozenset()
    dropped: Mapping[str, str] = MappingProxyType({})
    notes: Mapping[str, int] = MappingProxyType({})
    error: str = ""
    kept: str = ""
    paused: Mapping[str, str] = MappingProxyType({})
    unnamed: int = 0


@dataclass(frozen=True)
class Limits:
    """What fits: bytes of one line, bytes and lines of one request before compression."""

    event_bytes: int
    batch_bytes: int
    batch_count: int


# RFC 9110, 15.5. Of the address, the key, the bill, the request's form or a proxy; RFC 6585
# has 511, which captive portals send.
_CONFIGURATION = frozenset({401, 402, 404, 405, 407, 410, 411, 414, 415, 417, 426, 428, 431, 451})
_FOR_A_WHILE = frozenset({408, 421, 425, 429})
_OF_THE_CONTENT = frozenset(range(400, 500)) - _CONFIGURATION - _FOR_A_WHILE - {403, 413}


@dataclass(frozen=True)
class Rules:
    """
    What each status means for delivery.

    Any 3xx pauses, any 413 halves; a status in no set is final below 500 and retried above.

    Args:
        retry: it may be another day.
        final: statuses from 500 on that are no use to retry.
        pause: the key, the bill or the address is wrong; events are kept meanwhile.
        refused: a firewall's; of one event where others get through, else of the address.
        bisect: the endpoint cannot take one of the events.
        longest_retry_after: the longest wait that a server may ask for, in seconds; above it
            a server could stop delivery for ever by a mistake.
        longest_backoff: the longest wait that is ours to choose, in seconds.
        free_throttle: whether a wait that the server asked for uses up no retry.
        longest_throttle: how long it may ask so, in seconds, until events are given up.
    """

    retry: frozenset[int] = _FOR_A_WHILE
    final: frozenset[int] = frozenset()
    pause: frozenset[int] = _CONFIGURATION | {511}
    refused: frozenset[int] = frozenset({403})
    bisect: frozenset[int] = field(default=_OF_THE_CONTENT, repr=False)
    longest_retry_after: float = 3600.0
    longest_backoff: float = 30.0
    free_throttle: bool = False
    longest_throttle: float = 12 * 3600.0


@runtime_checkable
class Dialect(Protocol):
    """One protocol of one family of servers."""

    @property
    def name(self) -> str:
        """The name it goes by in ``dialect=`` and in a spool."""

    @property
    def limits(self) -> Limits:
        """What fits into one event and one request."""

    @property
    def rules(self) -> Rules:
        """What each HTTP status means."""

    @property
    def codings(self) -> frozenset[str]:
        """The content codings that the server takes."""

    @property
    def default_host(self) -> str:
        """The base URL where none is given; "" where one must be."""

    def ingestion_host(self, host: str, api_key: str) -> str:
        """Return the base URL that takes events, for the one that was given."""

    def line(self, message: Message) -> bytes:
        """Return *message* as one line of JSON; raises `Refused` where it cannot be sent."""

    def uuid_of(self, line: bytes) -> str:
        """Return the id that a line of this dialect was given."""

    def with_uuid(self, line: bytes, uuid: str) -> bytes:
        """Return *line* with another id."""

    def request(self, batch: Batch, endpoint: Endpoint, now: str) -> Request:
        """Return the HTTP request for one attempt, made at *now* (RFC 3339)."""

    def results(self, response: Response) -> Results:
        """Return what a 2xx answer says of single events."""

    def decode(self, request: Request) -> list[Message]:
        """Return the messages in a request; raises ``ValueError`` for what is not one."""
