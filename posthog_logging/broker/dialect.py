"""
The producer's dialect: lines that no server has had its say in yet, for a relay to translate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..events import jsonable
from ..events.message import Message, Refused
from ..wire import Batch, Endpoint, Limits, Request, Response, Results, Rules
from ..wire.compression import CODINGS, decompress
from .envelope import CONTENT_TYPE, MOST_BYTES, SCHEMA, uuid_of


__all__ = ["NEUTRAL", "NeutralDialect"]


@dataclass(frozen=True)
class NeutralDialect:
    """
    Events in PostHog's model, without the library's name, and requests for `BrokerTransport`.

    A request may be several messages: one round trip to the broker confirms them all. The
    *address* is a broker's, without its credentials.
    """

    name: str = "neutral"
    limits: Limits = Limits(event_bytes=MOST_BYTES, batch_bytes=8 * 1024 * 1024, batch_count=5000)
    rules: Rules = Rules(longest_backoff=10.0)
    codings: frozenset[str] = frozenset(CODINGS)
    default_host: str = "http://broker"  # which is nobody's
    address: str = ""

    def ingestion_host(self, host: str, api_key: str) -> str:
        """Return the broker's address, to show and to tell one journal from another."""
        return self.address

    def line(self, message: Message) -> bytes:
        """Return *message* as one line, its uuid first; properties are cut that are too large."""
        event, distinct_id, properties, name, timestamp = message
        fields: dict[str, Any] = {
            "uuid": name,
            "event": event,
            "distinct_id": distinct_id,
            "timestamp": timestamp,
            "properties": _without_library(properties),
        }
        line = jsonable.encode(fields)
        if len(line) <= self.limits.event_bytes:
            return line
        del fields["properties"]
        head = jsonable.encode(fields)[:-1] + b',"properties":'
        cut = jsonable.encode_within(
            _without_library(properties), self.limits.event_bytes - len(head) - 1
        )
        if cut is None:
            raise Refused("oversized", f"{event}, {len(line)} bytes")
        return head + cut + b"}"

    def templates(self, constants: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Return what makes lines of encoded parts by ``%``; see `PostHogDialect.templates`."""
        kept = _without_library(constants)
        bare = _EVENT + jsonable.encode(kept)[:-1].replace(b"%", b"%%")
        return bare + (b",%b}" if kept else b"%b}"), bare + b"%b}"

    def uuid_of(self, line: bytes) -> str:
        """Return the event's uuid: it always stands first."""
        return uuid_of(line)

    def request(self, batch: Batch, endpoint: Endpoint, now: str) -> Request:
        """Return the lines as they are: the transport packs them, message by message."""
        headers = {
            "schema": SCHEMA,
            "content_type": CONTENT_TYPE,
            "message_id": batch.request_id,
            "content_encoding": endpoint.compression or "",
        }
        return Request(endpoint.host, headers, b"\n".join(batch.lines))

    def results(self, response: Response) -> Results:
        """Return what was not confirmed, of which the transport's answer has the uuids."""
        if response.headers.get("content_type") != CONTENT_TYPE:
            return Results()  # a stand-in's
        return Results(retry=frozenset(response.body.decode().split()))

    def decode(self, request: Request) -> list[Message]:
        """Return the messages in a body."""
        body = decompress(request.body, request.headers.get("content-encoding"))
        return [Message(**jsonable.decode(line)) for line in body.split(b"\n") if line.strip()]


def _without_library(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what the message's own headers say."""
    return {name: value for name, value in properties.items() if name not in _LIBRARY}


_LIBRARY = frozenset({"$lib", "$lib_version"})
_EVENT = b'{"uuid":"%b","event":"%b","distinct_id":"%b","timestamp":"%b%06dZ","properties":'

NEUTRAL = NeutralDialect()
