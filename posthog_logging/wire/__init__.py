"""
What messages look like on the wire, both ways: pure codecs, no network and no clock.

A `Dialect` is one of the four seams. ``decode`` serves the inspector, ``import`` and the
round-trip tests; an instance of your own works wherever a dialect's name does.
"""

from __future__ import annotations

import dataclasses

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from ..events.message import Message


__all__ = [
    "DIALECTS",
    "Batch",
    "Dialect",
    "Endpoint",
    "Limits",
    "Request",
    "Response",
    "Results",
    "Rules",
    "find_dialect",
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
    """What a 2xx answer says of single events, by uuid; all that it does not name is delivered."""

    retry: frozenset[str] = frozenset()
    dropped: Mapping[str, str] = MappingProxyType({})
    notes: Mapping[str, int] = MappingProxyType({})
    error: str = ""


@dataclass(frozen=True)
class Limits:
    """What fits: bytes of one line, bytes and lines of one request before compression."""

    event_bytes: int
    batch_bytes: int
    batch_count: int


@dataclass(frozen=True)
class Rules:
    """What each status means for delivery; a status in no set, below 500, is final."""

    retry: frozenset[int] = frozenset({408, 429})
    final: frozenset[int] = frozenset()  # statuses from 500 on that are no use to retry
    pause: frozenset[int] = frozenset({401, 402})
    bisect: frozenset[int] = frozenset({400})
    only_with_retry_after: frozenset[int] = frozenset()
    longest_retry_after: float = 30.0
    longest_backoff: float = 30.0
    free_throttle: bool = False  # a wait that the server asked for uses up no retry
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


#: Where each name lives: a module is imported when its dialect is asked for.
DIALECTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "posthog": (".posthog", "V0"),
        "posthog-v1": (".posthog", "V1"),
        "segment": (".segment", "SEGMENT"),
        "metarouter": (".segment", "METAROUTER"),
        "astronomer": (".segment", "METAROUTER"),
        "rudderstack": (".segment", "RUDDERSTACK"),
        "jitsu": (".segment", "JITSU"),
        "customerio": (".segment", "CUSTOMERIO"),
        "hightouch": (".segment", "HIGHTOUCH"),
        "june": (".segment", "JUNE"),
        "posthog-logs": (".otlp", "LOGS"),
    }
)


def find_dialect(dialect: str | Dialect) -> Dialect:
    """Return the dialect of that name, or *dialect* itself; raises for anything else."""
    if isinstance(dialect, str):
        if dialect not in DIALECTS:
            raise ValueError(f"dialect: {dialect!r} is none of {', '.join(DIALECTS)}")
        module, name = DIALECTS[dialect]
        found = getattr(import_module(module, __name__), name)
        assert isinstance(found, Dialect)
        return found
    if not isinstance(dialect, Dialect):
        raise TypeError(
            f"dialect: a name or a posthog_logging.wire.Dialect, not {type(dialect).__name__}"
        )
    return dialect
