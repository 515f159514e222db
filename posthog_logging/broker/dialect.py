"""The dialect that producers publish in: it names no server, and a relay translates it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..events import jsonable
from ..events.message import Message
from ..wire import Batch, Endpoint, Limits, Request, Response, Results, Rules
from ..wire.compression import CODINGS
from ..wire.posthog import cut_line, line_templates, without_library
from .envelope import CONTENT_TYPE, MOST_BYTES, SCHEMA, uuid_of


__all__ = ["NEUTRAL", "NeutralDialect"]


@dataclass(frozen=True)
class NeutralDialect:
    """
    Events in PostHog's model, without the library's name, and requests for `BrokerTransport`.

    A request may become several messages, which one round trip to the broker confirms.

    Args:
        address: the broker's, without credentials.
    """

    name: str = "neutral"
    limits: Limits = Limits(event_bytes=MOST_BYTES, batch_bytes=8 * 1024 * 1024, batch_count=5000)
    rules: Rules = Rules(longest_backoff=10.0)
    codings: frozenset[str] = frozenset(CODINGS)
    default_host: str = "http://broker"  # never connected to
    address: str = ""

    def ingestion_host(self, host: str, api_key: str) -> str:
        """Return the broker's address: it is shown, and keeps its journals apart from others."""
        return self.address

    def line(self, message: Message) -> bytes:
        """Return *message* as one line, its uuid first; properties that are too large are cut."""
        event, distinct_id, properties, name, timestamp = message
        fields: dict[str, Any] = {
            "uuid": name,
            "event": event,
            "distinct_id": distinct_id,
            "timestamp": timestamp,
            "properties": without_library(properties),  # which is in the message's headers
        }
        line = jsonable.encode(fields)
        largest = self.limits.event_bytes
        return line if len(line) <= largest else cut_line(fields, largest, len(line))

    def templates(self, constants: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Return `PostHogDialect.templates`; no property is special here."""
        return line_templates(constants)

    def uuid_of(self, line: bytes) -> str:
        """Return the event's uuid, which is always the first field."""
        return uuid_of(line)

    def request(self, batch: Batch, endpoint: Endpoint, now: str) -> Request:
        """Return the lines as they are: the transport packs each message by itself."""
        headers = {
            "schema": SCHEMA,
            "content_type": CONTENT_TYPE,
            "message_id": batch.request_id,
            "content_encoding": endpoint.compression or "",
        }
        return Request(endpoint.host, headers, b"\n".join(batch.lines))

    def results(self, response: Response) -> Results:
        """Return the events that were not confirmed: the transport's answer has their uuids."""
        if response.headers.get("content_type") != CONTENT_TYPE:
            return Results()  # the answer of a transport that stands in, under test
        return Results(retry=frozenset(response.body.decode().split()))

    def decode(self, request: Request) -> list[Message]:
        """Return the messages of a request."""
        lines = request.body.split(b"\n")
        return [Message(**jsonable.decode(line)) for line in lines if line.strip()]


NEUTRAL = NeutralDialect()
