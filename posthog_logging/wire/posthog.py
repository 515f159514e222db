"""
PostHog's two capture protocols: V0 (``POST /batch/``) and V1 (``POST /i/v1/analytics/events``).

V0 takes the key and ``sent_at`` in the body and answers for the whole request. V1 takes both in
headers and answers for each event. Lines are in V1's format, so that a V1 request only joins
them with commas. For V0, the typed options, the session and window ids and the library's name
are moved back into the properties.
"""

from __future__ import annotations

import re
import uuid

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..events import jsonable
from ..events.message import OPTIONS, Message
from ..version import LIBRARY, VERSION
from .answers import doubt, object_in
from .bodies import USER_AGENT, json_of, json_request, oversized
from .compression import CODINGS
from .dialect import Batch, Dialect, Endpoint, Limits, Request, Response, Results, Rules


__all__ = [
    "AI_PATH",
    "POSTHOG",
    "V0",
    "V1",
    "PostHogDialect",
    "cut_line",
    "line_templates",
    "refuse_authorization",
    "without_library",
]

V1_PATH = "/i/v1/analytics/events"
#: The route for ``$ai_*`` events of up to 8 MiB each; not every deployment has it.
AI_PATH = "/i/v1/ai/events"

# The server escapes the JSON once more for Kafka, which takes 1 MB: 900 KiB leaves room for it.
_LIMITS = Limits(event_bytes=900 * 1024, batch_bytes=5 * 1024 * 1024, batch_count=2000)
_AI_BYTES = 8 * 1024 * 1024 - 1024
_LARGE = jsonable.DEFAULT_LIMITS._replace(text=_AI_BYTES)
_AI = "$ai_"
_AI_NAME = _AI.encode()

_HEAD = b'{"uuid":"'
_EVENT = _HEAD + b'%b","event":"%b","distinct_id":"%b","timestamp":"%b%06dZ","properties":'
_UUID = slice(len(_HEAD), len(_HEAD) + 36)
_NAME_AT = _UUID.stop + len(b'","event":"')
_TIMESTAMP = b'"timestamp":"'
_PLAIN = b'","properties":{'  # follows the timestamp if no property was lifted
_LENGTH_OF_TIME = len("2024-01-02T03:04:05.678901Z")
_LIBRARY_FIRST = b'"$lib":%b,"$lib_version":%b' % (
    jsonable.encode(LIBRARY),
    jsonable.encode(VERSION),
)
_UUID_LENGTH = 36
_CANONICAL = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_APP_HOSTS = {
    "https://app.posthog.com": "https://us.i.posthog.com",
    "https://us.posthog.com": "https://us.i.posthog.com",
    "https://eu.posthog.com": "https://eu.i.posthog.com",
}

# Properties that are fields of the event in V1; V0 expects their native types.
_LIFTED = {"$session_id": "session_id", "$window_id": "window_id"}
_OPTION_OF = {name: option for option, name in OPTIONS.items()}
_NOT_OF_V0 = frozenset({*_LIFTED.values(), "options", "properties"})
_TYPED = frozenset(_LIFTED) | frozenset(_OPTION_OF)
_LIBRARY = frozenset({"$lib", "$lib_version"})
_SEGMENT_ONLY = frozenset({"$context", "$integrations"})
_OPTIONS = "$options"  # holds options that PostHog does not define
_SPECIAL = _TYPED | _SEGMENT_ONLY | {_OPTIONS}
_OK = {"result": "ok"}
_OK_ENTRY = b'":{"result":"ok"}'
_RESULTS = b'{"results":{%b}}'
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

#: PostHog's property for each path in Segment's ``context``.
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
    """
    One of PostHog's two capture protocols: V1 if ``v1`` is true, else V0.

    Args:
        fallback: the protocol for servers that do not speak this one; None for none.
        family: the name that a spool stores lines under; both protocols share it.
    """

    name: str
    path: str
    v1: bool
    rules: Rules
    limits: Limits = _LIMITS
    codings: frozenset[str] = frozenset(CODINGS)
    default_host: str = "https://us.i.posthog.com"
    fallback: PostHogDialect | None = None
    family: str = "posthog"

    def ingestion_host(self, host: str, api_key: str) -> str:
        """Return *host*, or the ingestion host if *host* is the app's: a common mistake (1.1)."""
        return _APP_HOSTS.get(host.lower(), host)

    def line(self, message: Message) -> bytes:
        """Return *message* as one event of a batch, with the uuid first."""
        event, distinct_id, properties, name, timestamp = message
        fields: dict[str, Any] = {
            "uuid": canonical(name),
            "event": event,
            "distinct_id": distinct_id,
            "timestamp": timestamp,
        }
        if not _SPECIAL.isdisjoint(properties):
            properties = _typed(properties, fields)
        fields["properties"] = without_library(properties)
        largest = self._largest(event)
        large = largest > self.limits.event_bytes
        line = jsonable.encode(fields, _LARGE if large else jsonable.DEFAULT_LIMITS)
        return line if len(line) <= largest else cut_line(fields, largest, len(line))

    def _largest(self, event: str) -> int:
        ai = self.v1 and self.path == V1_PATH and event.startswith(_AI)
        return max(_AI_BYTES, self.limits.event_bytes) if ai else self.limits.event_bytes

    def lane_of(self, line: bytes) -> str:
        """Return ``"ai"`` for an event that has a route of its own for large ones, else ""."""
        return "ai" if line.startswith(_AI_NAME, _NAME_AT) else ""

    def may_travel_together(self, lines: Sequence[bytes]) -> bool:
        """
        Return whether *lines* can share a request: none is an AI event, and no uuid repeats.

        Errs towards False: ``$ai_`` counts anywhere in a line.
        """
        return len({line[_UUID] for line in lines}) == len(lines) and (
            _AI_NAME not in b"".join(lines)
        )

    def fitted(self, line: bytes) -> bytes:
        """Return *line* cut to what this route takes; only AI events can be too large for it."""
        largest = _AI_BYTES if self.path == AI_PATH else self.limits.event_bytes
        return (
            line if len(line) <= largest else cut_line(jsonable.decode(line), largest, len(line))
        )

    def templates(self, constants: Mapping[str, Any]) -> tuple[bytes, bytes] | None:
        """
        Return two ``%`` templates that make lines of encoded parts; None if none are possible.

        The first is for events with properties, the second for events without. The parts are
        the uuid, the event, the distinct_id, the timestamp up to the second, the microseconds,
        and the properties without their opening brace. No property may begin with ``$`` or be
        one of *constants*, the properties that every line gets.
        """
        if not _SPECIAL.isdisjoint(constants):
            return None
        return line_templates(constants)

    def uuid_of(self, line: bytes) -> str:
        """Return the event's uuid, which is always the first field."""
        return line[_UUID].decode()

    def request(self, batch: Batch, endpoint: Endpoint, now: str) -> Request:
        """Return the POST request; *now* is the time by which PostHog corrects clock skew."""
        body = self._body_v1(batch, endpoint) if self.v1 else _body_v0(batch, endpoint, now)
        # V0 may not support the coding that was chosen for V1; both support gzip.
        chosen = endpoint.compression
        coding = chosen if chosen in self.codings else chosen and "gzip"
        headers = _headers_v1(batch, endpoint, now) if self.v1 else {}
        return json_request(endpoint.host + self.path, body, headers, endpoint, coding)

    def _body_v1(self, batch: Batch, endpoint: Endpoint) -> bytes:
        migration = b',"historical_migration":true' if endpoint.historical_migration else b""
        created_at = batch.created_at.encode()
        return b'{"created_at":"%b"%b,"batch":[%b]}' % (
            created_at,
            migration,
            b",".join(batch.lines),
        )

    def results(self, response: Response) -> Results:
        """Return V1's result of each event; a 2xx from V0 is for the whole batch."""
        if self.v1 and _all_ok(response.body):
            return Results()
        answer = object_in(response)
        if doubted := doubt(response, answer):
            return Results(kept=doubted)
        if not self.v1:
            limited = answer.get("quota_limited")
            if isinstance(limited, list) and limited:
                return Results(notes={"quota_limited": len(limited)})
            return Results()
        verdicts = answer.get("results")
        if not isinstance(verdicts, dict):
            return Results(error="the results in the answer cannot be read")
        return _verdicts(verdicts)

    def decode(self, request: Request) -> list[Message]:
        """Return the messages in *request*; raises ``ValueError`` if it has no batch."""
        body = json_of(request)
        if not isinstance(body, dict) or not isinstance(body.get("batch"), list):
            raise ValueError("a batch is an object with a list under 'batch'")
        return [_decoded(event) for event in body["batch"]]


def _headers_v1(batch: Batch, endpoint: Endpoint, now: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {endpoint.api_key}",
        "PostHog-Sdk-Info": USER_AGENT,
        "PostHog-Attempt": str(batch.attempt),
        "PostHog-Request-Id": batch.request_id,
        "PostHog-Request-Timestamp": now,
    }


def _body_v0(batch: Batch, endpoint: Endpoint, now: str) -> bytes:
    key = jsonable.encode(endpoint.api_key)
    migration = b',"historical_migration":true' if endpoint.historical_migration else b""
    return b'{"api_key":%b,"sent_at":"%b"%b,"batch":[%b]}' % (
        key,
        now.encode(),
        migration,
        b",".join(map(_line_of_v0, batch.lines)),
    )


def _line_of_v0(line: bytes) -> bytes:
    """Return *line* in V0's format: the library's name and the lifted fields are properties."""
    at = line.find(_PLAIN, _NAME_AT)
    time_at = at - _LENGTH_OF_TIME
    if at < 0 or line[time_at - len(_TIMESTAMP) : time_at] != _TIMESTAMP:
        return _reencoded_for_v0(line)
    start = at + len(_PLAIN)
    comma = b"" if line[start : start + 1] == b"}" else b","
    return line[:start] + _LIBRARY_FIRST + comma + line[start:]


def _reencoded_for_v0(line: bytes) -> bytes:
    """Decode and encode a line with lifted fields: each becomes a property again."""
    event = jsonable.decode(line)
    found = _object(event, "properties")
    options = {OPTIONS.get(k, k): v for k, v in _object(event, "options").items()}
    lifted = {name: event[field] for name, field in _LIFTED.items() if field in event}
    own = {"$lib": LIBRARY, "$lib_version": VERSION}
    kept = {k: v for k, v in event.items() if k not in _NOT_OF_V0}
    return jsonable.encode({**kept, "properties": {**own, **options, **found, **lifted}})


def line_templates(constants: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """Return what `PostHogDialect.templates` does, for properties of which none is special."""
    kept = without_library(constants)
    bare = _EVENT + jsonable.encode(kept)[:-1].replace(b"%", b"%%")
    return bare + (b",%b}" if kept else b"%b}"), bare + b"%b}"


def cut_line(fields: dict[str, Any], size: int, length: int) -> bytes:
    """Return *fields* with the properties cut to *size* bytes; raises `Refused` if impossible."""
    properties = fields.pop("properties")
    head = jsonable.encode(fields)[:-1] + b',"properties":'
    cut = jsonable.encode_within(properties, size - len(head) - 1)
    if cut is None:
        raise oversized(fields["event"], length)
    return head + cut + b"}"


def without_library(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the library's name: V1 takes it from a header, and V0 lines get it when sent."""
    return {k: v for k, v in properties.items() if k not in _LIBRARY}


def _typed(properties: Mapping[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Return the untyped *properties*; put session, window and options into *fields*."""
    kept = {k: v for k, v in properties.items() if k not in _SPECIAL}
    unknown = properties.get(_OPTIONS)
    options: dict[str, Any] = dict(unknown) if isinstance(unknown, Mapping) else {}
    for name in sorted(_TYPED.intersection(properties)):
        value = _coerced(name, properties[name])
        if value is not None and name in _LIFTED:
            fields[_LIFTED[name]] = value
        elif value is not None:
            options[_OPTION_OF[name]] = value
    if options:
        fields["options"] = options
    context = properties.get("$context")
    if isinstance(context, Mapping):
        kept = {**_from_context(context), **kept}
    return kept


def refuse_authorization(
    dialect: Dialect, headers: Mapping[str, str], auth: Any, session: Any = None
) -> None:
    """
    Raise ``ValueError`` if an argument would replace V1's ``Authorization`` header.

    V1 takes the project's key as a bearer token. V0 takes it in the body, so there they
    can be used to authenticate to a proxy.
    """
    if not (isinstance(dialect, PostHogDialect) and dialect.v1):
        return
    why = f"the dialect {dialect.name!r} sends the project's key in the Authorization header"
    if any(name.lower() == "authorization" for name in headers):
        raise ValueError(f"headers: {why}: leave it out, or use dialect='posthog-v0'")
    if auth is not None:
        raise ValueError(f"auth: {why}: leave it out, or use dialect='posthog-v0'")
    if getattr(session, "auth", None) is not None:
        raise ValueError(
            f"session: {why}: it must have no auth of its own, or use dialect='posthog-v0'"
        )


def _all_ok(body: bytes) -> bool:
    """Return whether each result in *body* is "ok", the usual case, without parsing it."""
    count = body.count(_OK_ENTRY)
    length = len(_RESULTS % b"") + count * (_UUID_LENGTH + len(b'",') + len(_OK_ENTRY)) - 1
    return count > 0 and len(body) == length and body.startswith(_RESULTS[: -len(b"%b}}")])


def _verdicts(verdicts: Mapping[str, Any]) -> Results:
    """
    Sort V1's results by what to do.

    An unknown result, and an event missing from the results, count as delivered (2.5).
    """
    retry: set[str] = set()
    dropped: dict[str, str] = {}
    notes: dict[str, int] = {}
    for name, verdict in verdicts.items():
        if verdict == _OK:  # the usual case
            continue
        fields = verdict if isinstance(verdict, dict) else {}
        result = fields.get("result")
        if result == "retry":
            retry.add(canonical(name))
        elif result == "drop":
            dropped[canonical(name)] = str(fields.get("details") or "drop")
        elif result != "ok":
            notes[str(result)] = notes.get(str(result), 0) + 1
    return Results(frozenset(retry), dropped, notes)


def canonical(name: str) -> str:
    """
    Return *name* as a canonical UUID; "" stays "".

    A text that is not a UUID becomes one derived from it, the same each time (RFC 9562, 5.5,
    in the namespace of object identifiers).
    """
    if len(name) == _UUID_LENGTH and _CANONICAL.fullmatch(name):
        return name
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, name)) if name else name


def _coerced(name: str, value: Any) -> Any:
    """Return *value* in the type of the option *name*, or None if it cannot be (2.3)."""
    plain = jsonable.jsonable(value)  # never raises, and knows enums
    if name in _LIFTED:  # V1 rejects the whole batch if one is not a string
        return plain if isinstance(plain, str) else None
    if name == "$product_tour_id":
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
    """Return an event of either protocol as a message, with options and ids as properties."""
    if not isinstance(event, dict):
        raise ValueError("an event is an object")
    properties = dict(_object(event, "properties"))
    for name, field in _LIFTED.items():
        if event.get(field) is not None:
            properties[name] = event[field]
    unknown: dict[str, Any] = {}
    for option, value in _object(event, "options").items():
        (properties if option in OPTIONS else unknown)[OPTIONS.get(option, option)] = value
    if unknown:
        properties[_OPTIONS] = unknown
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


# The V0 server detects gzip by its magic number and supports no other coding (1.2).
V0 = PostHogDialect("posthog-v0", "/batch/", False, Rules(), codings=frozenset({"gzip"}))
V1 = PostHogDialect("posthog-v1", V1_PATH, True, Rules())
#: V1, with a fallback to V0 for old servers: see `posthog_protocol`.
POSTHOG = PostHogDialect("posthog", V1_PATH, True, Rules(), fallback=V0)
