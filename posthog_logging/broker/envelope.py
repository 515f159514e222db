"""
The message that travels: neutral lines with what a reader must know of them. Pure.

A body is NDJSON, one event a line, in PostHog's model: no key, no dialect. So whatever can
publish a JSON object can be a producer.
"""

from __future__ import annotations

import uuid

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from ..version import LIBRARY, VERSION
from ..wire.compression import compress


__all__ = [
    "CONTENT_TYPE",
    "MOST_BYTES",
    "MOST_LINES",
    "SCHEMA",
    "Delivery",
    "Envelope",
    "envelopes",
    "uuid_of",
]

SCHEMA = "posthog-logging/1"
CONTENT_TYPE = "application/x-ndjson"

#: What fits into one message, before compression.
MOST_LINES = 500
MOST_BYTES = 900 * 1024


@dataclass(frozen=True)
class Envelope:
    """
    One message to publish.

    ``more`` is what a dead letter says of itself, ``raw`` a body that goes as it came.
    """

    lines: Sequence[bytes]
    message_id: str
    coding: str | None = None
    more: Mapping[str, str | int] = field(default_factory=lambda: MappingProxyType({}))
    raw: bytes | None = None

    def packed(self) -> tuple[bytes, str | None]:
        """Return the body and its content coding."""
        if self.raw is not None:
            return self.raw, self.coding
        return compress(b"\n".join(self.lines), self.coding)

    def headers(self) -> dict[str, str | int]:
        """Return the headers of the message."""
        own: dict[str, str | int] = {
            "schema": SCHEMA,
            "count": len(self.lines),
            "lib": LIBRARY,
            "lib_version": VERSION,
        }
        return {**own, **self.more}


class Delivery(NamedTuple):
    """
    One message that came, under the *token* by which its consumer knows it.

    *before* is how often it was delivered already, as far as the broker knows; *published* is
    when it was, in epoch seconds, None where nobody says.
    """

    token: Any
    body: bytes
    message_id: str = ""
    coding: str | None = None
    headers: Mapping[str, Any] = MappingProxyType({})
    before: int = 0
    published: float | None = None


def envelopes(lines: Sequence[bytes], request_id: str, coding: str | None) -> Iterator[Envelope]:
    """
    Yield *lines* in messages that are not too large.

    What is tried again is cut at the same places and has the same ids: each is derived from
    the id of the batch and the first line.
    """
    start = 0
    while start < len(lines):
        stop = _end(lines, start)
        yield Envelope(lines[start:stop], _name(request_id, lines[start]), coding)
        start = stop


def _name(request_id: str, line: bytes) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{request_id}{uuid_of(line)}"))


def uuid_of(line: bytes) -> str:
    """Return the uuid of a neutral line, in which it stands first."""
    return line[_UUID].decode("ascii", "replace")


_UUID = slice(len(b'{"uuid":"'), len(b'{"uuid":"') + 36)


def _end(lines: Sequence[bytes], start: int) -> int:
    stop = min(start + MOST_LINES, len(lines))
    if sum(map(len, lines[start:stop])) + stop - start <= MOST_BYTES:
        return stop
    size = 0
    for at in range(start, stop):
        size += len(lines[at]) + 1
        if size > MOST_BYTES and at > start:
            return at
    return stop
