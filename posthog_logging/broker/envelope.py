"""
The messages in a broker: neutral lines, and the headers that a reader needs. Pure.

A body is NDJSON, one event a line, in PostHog's model, without a key or a dialect: a program
that can publish a JSON object can be a producer.
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
    "parts",
    "uuid_of",
]

SCHEMA = "posthog-logging/1"
CONTENT_TYPE = "application/x-ndjson"

#: The largest message, before compression.
MOST_LINES = 500
MOST_BYTES = 900 * 1024


@dataclass(frozen=True)
class Envelope:
    """
    One message to publish.

    ``more`` are further headers, of a dead letter; ``raw`` is a body that is kept as it came.
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
    One message that arrived; its consumer knows it by *token*.

    *before* is how many deliveries there were before this one, as far as the broker knows;
    *published* is when it was published, in epoch seconds, None if that is unknown.
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

    A retry makes the same messages with the same ids: each id is derived from the id of the
    batch and the first line.
    """
    for part in parts(lines):
        name = uuid.uuid5(uuid.NAMESPACE_OID, f"{request_id}{uuid_of(part[0])}")
        yield Envelope(part, str(name), coding)


def parts(lines: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield *lines* in parts that fit into a message each; a line too large stands alone."""
    start = 0
    while start < len(lines):
        stop = _end(lines, start)
        yield lines[start:stop]
        start = stop


def uuid_of(line: bytes) -> str:
    """Return the uuid of a neutral line, which is always the first field."""
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
