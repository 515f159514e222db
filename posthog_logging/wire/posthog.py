"""
PostHog's two capture protocols: V0 (``POST /batch/``) and V1 (``POST /i/v1/analytics/events``).

V0 takes the key and ``sent_at`` in the body and answers for the whole request; V1 takes
both in headers and answers for every event. One event at a time is the same in both but
for the typed options, which V1 has beside the properties.
"""

from __future__ import annotations

import uuid

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..events import jsonable
from ..events.message import OPTIONS, Message, Refused
from ..version import LIBRARY, VERSION
from . import Batch, Endpoint, Limits, Request, Response, Results, Rules
from .compression import CODINGS, compress, decompress


__all__ = ["V0", "V1", "PostHogDialect"]

# 900 KiB keeps the stored event below Kafka's 1 MB, in which the JSON is escaped once more.
_LIMITS = Limits(event_bytes=900 * 1024, batch_bytes=5 * 1024 * 1024, batch_count=2000)

_HEAD = b'{"uuid":"'
_EVENT = _HEAD + b'%b","event":"%b","distinct_id":"%b","timestamp":"%b%06dZ","properties":'
_UUID = slice(len(_HEAD), len(_HEAD) + 36)
_USER_AGENT = f"{LIBRARY}/{VERSION}"

_APP_HOSTS = {
    "https://app.posthog.com": "https://us.i.posthog.com",
    "https://us.posthog.com": "https://us.i.posthog.com",
    "https://eu.posthog.com": "https://eu.i.posthog.com",
}

# The properties that V1 has as fields of the event, and that V0 wants in their native type.
_LIFTED = {"$session_id": "session_id", "$window_id": "window_id"}
_OPTION_OF = {name: option for option, name in OPTIONS.items()}
_TYPED = frozenset(_LIFTED) | frozenset(_OPTION_OF)
_LIBRARY = frozenset({"$lib", "$lib_version"})
_SEGMENT_ONLY = frozenset({"$context", "$integrations"})
_SPECIAL = _TYPED | _SEGMENT_ONLY
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

#: What of Segment's ``context`` PostHog has a property for.
CONTEXT_PROPERTIES: Mapping[tuple[str, ...], str] = {
    ("ip",): "$ip",
    ("locale",): "$locale",
    ("timezone",): "$timezone",
    ("userAgent",): "$raw_user_agent",
    ("os", "name"): "$os",
    ("os", "version"): "$os_version",
    ("device", "id"): "$device_id",
    ("device", "manufacturer"): "$device_manufacturer",
    ("device", "model"): "$device_model",
    ("device", "name"): "$device_name",
    ("device", "type"): "$device_type",
    ("app", "name"): "$app_name",
    ("app", "version"): "$app_version",
    ("app", "build"): "$app_build",
    ("app", "namespace"): "$app_namespace",
    ("network", "carrier"): "$network_carrier",
    ("screen", "width"): "$screen_width",
    ("screen", "height"): "$screen_height",
    ("screen", "density"): "$screen_density",
    ("page", "url"): "$current_url",
    ("page", "path"): "$pathname",
    ("page", "referrer"): "$referrer",
    ("page", "title"): "title",
    ("campaign", "source"): "utm_source",
    ("campaign", "medium"): "utm_medium",
    ("campaign", "name"): "utm_campaign",
    ("campaign", "content"): "utm_content",
    ("campaign", "term"): "utm_term",
}


@dataclass(frozen=True)
class PostHogDialect:
    """One of the two protocols; ``v1`` is what differs between them."""

    name: str
    path: str
    v1: bool
    rules: Rules
    limits: Limits = _LIMITS
    codings: frozenset[str] = frozenset(CODINGS)
    default_host: str = "https://us.i.posthog.com"

    def ingestion_host(self, host: str, api_key: str) -> str:
        """Return the host that takes events: pointing at the app's own is a common slip (1.1)."""
        return _APP_HOSTS.get(host.lower(), host)

    def line(self, message: Message) -> bytes:
        """Return *message* as one event of a batch, its uuid first."""
        event, distinct_id, properties, name, timestamp = message
        fields: dict[str, Any] = {
            "uuid": name,
            "event": event,
            "distinct_id": distinct_id,
            "timestamp": timestamp,
        }
        if not _SPECIAL.isdisjoint(properties):
            properties = self._typed(properties, fields)
        if self.v1:
            properties = self._without_library(properties)
        fields["properties"] = properties
        line = jsonable.encode(fields)
        if len(line) <= self.limits.event_bytes:
            return line
        del fields["properties"]  # ids, names and times are never cut
        head = jsonable.encode(fields)[:-1] + b',"properties":'
        cut = jsonable.encode_within(properties, self.limits.event_bytes - len(head) - 1)
        if cut is None:
            raise Refused("oversized", f"{event}, {len(line)} bytes")
        return head + cut + b"}"

    def templates(self, constants: Mapping[str, Any]) -> tuple[bytes, bytes] | None:
        """
        Return what makes lines of encoded parts by ``%``; None where nothing can.

        There are two, for events with properties and for those without, of the same places:
        the uuid, the event, the distinct_id, the timestamp up to its second and the
        microseconds, and the properties without their first brace. No property may begin
        with ``$`` nor be one of *constants*, which every line gets.
        """
        if not _SPECIAL.isdisjoint(constants):
            return None
        kept = self._without_library(constants)
        bare = _EVENT + jsonable.encode(kept)[:-1].replace(b"%", b"%%")
        return bare + (b",%b}" if kept else b"%b}"), bare + b"%b}"

    def _without_library(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out what V1 takes from its header."""
        return {k: v for k, v in properties.items() if not (self.v1 and k in _LIBRARY)}

    def _typed(self, properties: Mapping[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
        """Return *properties* with the typed ones in their type, on V1 lifted into *fields*."""
        kept = {k: v for k, v in properties.items() if k not in _SPECIAL}
        options: dict[str, Any] = {}
        for name in _TYPED.intersection(properties):
            value = _coerced(name, properties[name])
            if value is None:
                continue
            if not self.v1:
                kept[name] = value
            elif name in _LIFTED:
                fields[_LIFTED[name]] = value
            else:
                options[_OPTION_OF[name]] = value
        if options:
            fields["options"] = options
        context = properties.get("$context")
        if isinstance(context, Mapping):
            kept = {**_from_context(context), **kept}
        return kept

    def uuid_of(self, line: bytes) -> str:
        """Return the event's uuid: it always stands first."""
        return line[_UUID].decode()

    def with_uuid(self, line: bytes, uuid: str) -> bytes:
        """Return *line* with another uuid."""
        return line[: _UUID.start] + uuid.encode() + line[_UUID.stop :]

    def request(self, batch: Batch, endpoint: Endpoint, now: str) -> Request:
        """Return one attempt's POST; the stamp of the attempt is the reference for clock skew."""
        body = self._body_v1(batch, endpoint) if self.v1 else _body_v0(batch, endpoint, now)
        packed, coding = compress(body, endpoint.compression)
        headers = {"Content-Type": "application/json", "User-Agent": _USER_AGENT}
        if coding:
            headers["Content-Encoding"] = coding
        if self.v1:
            headers |= {
                "Authorization": f"Bearer {endpoint.api_key}",
                "PostHog-Sdk-Info": _USER_AGENT,
                "PostHog-Attempt": str(batch.attempt),
                "PostHog-Request-Id": batch.request_id,
                "PostHog-Request-Timestamp": now,
            }
        return Request(endpoint.host + self.path, {**headers, **endpoint.headers}, packed)

    def _body_v1(self, batch: Batch, endpoint: Endpoint) -> bytes:
        migration = b',"historical_migration":true' if endpoint.historical_migration else b""
        created_at = batch.created_at.encode()
        return b'{"created_at":"%b"%b,"batch":[%b]}' % (
            created_at,
            migration,
            b",".join(batch.lines),
        )

    def results(self, response: Response) -> Results:
        """Return V1's verdicts; V0 has none, a 2xx there is for all of the batch."""
        try:
            answer = jsonable.decode(response.body) if response.body else None
        except ValueError:
            answer = None
        if not self.v1:
            limited = answer.get("quota_limited") if isinstance(answer, dict) else None
            return (
                Results(notes={"quota_limited": len(limited)})
                if isinstance(limited, list) and limited
                else Results()
            )
        verdicts = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(verdicts, dict):
            return Results(error="a 2xx answer without readable results")
        return _verdicts(verdicts)

    def decode(self, request: Request) -> list[Message]:
        """Return the messages of a request of this protocol."""
        coding = {k.lower(): v for k, v in request.headers.items()}.get("content-encoding")
        body = jsonable.decode(decompress(request.body, coding))
        if not isinstance(body, dict) or not isinstance(body.get("batch"), list):
            raise ValueError("a batch is an object with a list under 'batch'")
        return [_decoded(event) for event in body["batch"]]


def _body_v0(batch: Batch, endpoint: Endpoint, now: str) -> bytes:
    key = jsonable.encode(endpoint.api_key)
    migration = b',"historical_migration":true' if endpoint.historical_migration else b""
    return b'{"api_key":%b,"sent_at":"%b"%b,"batch":[%b]}' % (
        key,
        now.encode(),
        migration,
        b",".join(batch.lines),
    )


def _verdicts(verdicts: Mapping[str, Any]) -> Results:
    """Sort V1's verdicts; one that is unknown, or an uuid that is absent, is final (2.5)."""
    retry: set[str] = set()
    dropped: dict[str, str] = {}
    notes: dict[str, int] = {}
    for name, verdict in verdicts.items():
        said = verdict if isinstance(verdict, dict) else {}
        result = said.get("result")
        if result == "retry":
            retry.add(_canonical(name))
        elif result == "drop":
            dropped[_canonical(name)] = str(said.get("details") or "drop")
        elif result != "ok":
            notes[str(result)] = notes.get(str(result), 0) + 1
    return Results(frozenset(retry), dropped, notes)


def _canonical(name: str) -> str:
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return name


def _coerced(name: str, value: Any) -> Any:
    """Return an option in its type, or None where it has no meaning (2.3)."""
    plain = jsonable.jsonable(value)  # never raises, and knows enums
    if name in _LIFTED or name == "$product_tour_id":
        return None if plain is None else str(plain)
    if isinstance(plain, (bool, int, float)):
        return bool(plain)
    return _TRUTH.get(str(plain).strip().lower())


def _from_context(context: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for path, name in CONTEXT_PROPERTIES.items():
        value: Any = context
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found[name] = value
    return found


def _decoded(event: Any) -> Message:
    """Return one event of either protocol as a message: options and ids back in the properties."""
    if not isinstance(event, dict):
        raise ValueError("an event is an object")
    properties = dict(_object(event, "properties"))
    for name, field in _LIFTED.items():
        if event.get(field) is not None:
            properties[name] = event[field]
    for option, value in _object(event, "options").items():
        properties[OPTIONS.get(option, option)] = value
    for name in ("$set", "$set_once"):
        if event.get(name) is not None:
            properties.setdefault(name, event[name])
    distinct_id = event.get(
        "distinct_id", event.get("$distinct_id", properties.get("distinct_id"))
    )
    return Message(
        str(event.get("event", "")),
        "" if distinct_id is None else str(distinct_id),
        properties,
        str(event.get("uuid", "")),
        str(event.get("timestamp", "")),
    )


def _object(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = event.get(name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value or {}


# The V0 server knows gzip by its magic, and no other coding (1.2).
V0 = PostHogDialect("posthog", "/batch/", False, Rules(), codings=frozenset({"gzip"}))
V1 = PostHogDialect(
    "posthog-v1",
    "/i/v1/analytics/events",
    True,
    # Both official V1 clients call 429 final; with a Retry-After it is safe to wait (2.6).
    Rules(only_with_retry_after=frozenset({429})),
)
