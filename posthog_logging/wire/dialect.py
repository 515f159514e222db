"""
The seam between messages and requests: the `Dialect` protocol, and the values it works with.

Pass an instance of your own as ``dialect=``, in place of a name. ``decode`` is for the
inspector, the ``import`` command and round-trip tests.
"""

from __future__ import annotations

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
    """One HTTP POST request."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Response(NamedTuple):
    """One HTTP response; if there was none, ``status`` is None and ``error`` says why."""

    status: int | None
    headers: Mapping[str, str] = MappingProxyType({})  # names in lower case
    body: bytes = b""
    error: str = ""


@dataclass(frozen=True)
class Endpoint:
    """Where and how to send; ``repr`` shows neither the key nor the headers."""

    host: str
    api_key: str = field(repr=False)
    compression: str | None = "gzip"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    historical_migration: bool = False


@dataclass(frozen=True)
class Batch:
    """
    Lines that are sent in one request, until each is delivered or lost.

    ``request_id``, ``created_at`` (RFC 3339) and the order of the lines are the same on every
    attempt. ``attempt`` counts from 1.
    """

    lines: Sequence[bytes]
    request_id: str
    created_at: str
    attempt: int = 1


class Results(NamedTuple):
    """
    What a 2xx response says about single events; every event it does not name is delivered.

    Attributes:
        retry: ids of events to send again.
        dropped: ids of refused events, each with the reason.
        notes: counts by text, for the log: they change no event's outcome.
        error: why the response cannot be read; "" if it can.
        kept: why no event was accepted, so that all are kept; "" if some were.
        paused: ids of events to keep until the destination is repaired, each with the reason.
        unnamed: how many events were refused without naming them.
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
    """
    The most bytes of one line, and the most bytes and lines of one uncompressed request.

    Of ``batch_bytes`` 1 KiB is kept for what `Dialect.request` puts around the lines; a dialect
    that adds to each line in `Dialect.request` must give less than the server takes.
    """

    event_bytes: int
    batch_bytes: int
    batch_count: int


# Statuses by cause (RFC 9110, 15.5). Configuration: the address, the key, the bill, the form of
# the request or a proxy. 511, which captive portals send, is from RFC 6585.
_CONFIGURATION = frozenset({401, 402, 404, 405, 407, 410, 411, 414, 415, 417, 426, 428, 431, 451})
_TEMPORARY = frozenset({408, 421, 425, 429})
_CONTENT = frozenset(range(400, 500)) - _CONFIGURATION - _TEMPORARY - {403, 413}


@dataclass(frozen=True)
class Rules:
    """
    What each status means for delivery.

    Any 3xx pauses delivery, and any 413 halves the batch. A status in none of the sets is final
    below 500, and retried from 500 on.

    Args:
        retry: temporary failures.
        final: statuses from 500 on that a retry cannot change; a batch is split, as for *bisect*.
        pause: the key, the bill or the address is wrong; events are kept until it is corrected.
        refused: refused by a firewall: because of one event if others get through, else
            because of the address.
        bisect: the endpoint rejects the content of at least one event.
        longest_retry_after: the longest ``Retry-After`` that is obeyed, in seconds, so that a
            server's mistake does not stop delivery for ever.
        longest_backoff: the longest wait between retries, in seconds.
        free_throttle: whether a wait that the server asked for does not count as a retry.
        longest_throttle: how long the server may keep asking for waits, in seconds, before
            events are given up.
    """

    retry: frozenset[int] = _TEMPORARY
    final: frozenset[int] = frozenset()
    pause: frozenset[int] = _CONFIGURATION | {511}
    refused: frozenset[int] = frozenset({403})
    bisect: frozenset[int] = field(default=_CONTENT, repr=False)
    longest_retry_after: float = 3600.0
    longest_backoff: float = 30.0
    free_throttle: bool = False
    longest_throttle: float = 12 * 3600.0


@runtime_checkable
class Dialect(Protocol):
    """
    One wire protocol. Methods are pure: they do no I/O, and ``now`` comes as an argument.

    ``tests/test_dialects.py`` is the contract: a dialect that is in `DIALECTS` is held to it.

    It may have more, each of which is asked for where it is there:

    - ``family``: the name under which a spool keeps its lines, if it shares them with others;
    - ``any_id``: True if the caller's id is sent as it is, also where it is no UUID;
    - ``may_travel_together(lines)``: False if these must not share a request;
    - ``lane_of(line)``: which route the line takes, "" for the usual one;
    - ``fitted(line)``: the line, cut to what this route takes;
    - ``templates(constants)``: what makes lines faster than ``line``, which must agree with it.

    `posthog_logging.wire.posthog` has all but ``any_id``, which is Segment's.
    """

    @property
    def name(self) -> str:
        """The name for ``dialect=``, logs and spool files."""

    @property
    def limits(self) -> Limits:
        """The sizes that the server accepts."""

    @property
    def rules(self) -> Rules:
        """What each HTTP status means."""

    @property
    def codings(self) -> frozenset[str]:
        """The content codings that the server accepts."""

    @property
    def default_host(self) -> str:
        """The base URL to use if none is given; "" if the user must give one."""

    def ingestion_host(self, host: str, api_key: str) -> str:
        """Return the base URL to send to, given the *host* that the user configured."""

    def line(self, message: Message) -> bytes:
        """Return *message* as one line of JSON; raises `Refused` if it cannot be sent."""

    def uuid_of(self, line: bytes) -> str:
        """Return the event's id from a line of this dialect, as results name it."""

    def request(self, batch: Batch, endpoint: Endpoint, now: str) -> Request:
        """Return the HTTP request for one attempt at the time *now* (RFC 3339)."""

    def results(self, response: Response) -> Results:
        """Return what a 2xx response says about single events."""

    def decode(self, request: Request) -> list[Message]:
        """Return the messages in *request*; raises ``ValueError`` if it is not of this dialect."""
