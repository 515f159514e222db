"""
The Segment family: six calls to ``POST /v1/batch``; one dialect, with each vendor as data.

These servers answer 200 to events that they drop later (wire notes, 1.1 and 1.4), so such
events are corrected or refused here. For another vendor of the family, use
``dataclasses.replace(SEGMENT, name=..., path=..., auth=..., limits=...)``.
"""

from __future__ import annotations

import base64
import re

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..events import jsonable
from ..events.identifiers import clean_id, clean_text, shortened
from ..events.message import Message, Refused
from ..events.timestamps import parse_timestamp
from ..version import LIBRARY, VERSION
from .answers import doubt, object_in
from .bodies import json_of, json_request
from .dialect import Batch, Endpoint, Limits, Request, Response, Results, Rules
from .posthog import CONTEXT_PROPERTIES, canonical


__all__ = [
    "CUSTOMERIO",
    "HIGHTOUCH",
    "JITSU",
    "JUNE",
    "METAROUTER",
    "RUDDERSTACK",
    "SEGMENT",
    "SINGLE_PATHS",
    "SegmentDialect",
    "calls_in",
]

Fields = dict[str, Any]

_HEAD = b'{"messageId":"'
_ID_AT = len(_HEAD)
_AUTH = frozenset({"basic", "body", "bearer"})

# Segment's npm validator takes events below 32,768 bytes, its API bodies of at most 500 KB; the
# rest is for the envelope, the commas and the keys in each message (3.2).
_LIMITS = Limits(event_bytes=32_767, batch_bytes=475_000, batch_count=2500)
_METAROUTER_LIMITS = Limits(event_bytes=14_750, batch_bytes=475_000, batch_count=100)
_RUDDERSTACK_LIMITS = Limits(event_bytes=4_090_000, batch_bytes=4_090_000, batch_count=2500)
_JITSU_LIMITS = Limits(event_bytes=1_000_000, batch_bytes=4_000_000, batch_count=2500)

# As Segment's newest clients (4), with one exception: those lose a batch at 401, 403 and 404.
# A wrong key or address says nothing about the events, so here they are kept.
_DEFAULTS = Rules()
_RULES = Rules(
    retry=_DEFAULTS.retry | {410, 460},
    final=frozenset({501, 505}),
    longest_backoff=60.0,
    free_throttle=True,
)

#: The call for the last segment of a single call's path; the short ones are Astronomer's (1).
SINGLE_PATHS: Mapping[str, str] = {
    **{name: name for name in ("identify", "track", "page", "screen", "group", "alias")},
    "i": "identify",
    "t": "track",
    "p": "page",
    "g": "group",
    "a": "alias",
}

# Instructions for PostHog's server, not properties of the event.
_POSTHOG_ONLY = frozenset({"$geoip_disable", "$is_server"})
_PLACES = {name: path for path, name in CONTEXT_PROPERTIES.items()}
_PAGE_PROPERTIES = {
    "$current_url": "url",
    "$pathname": "path",
    "$referrer": "referrer",
    "$host": "host",
    "$referring_domain": "referring_domain",
}
_WITH_PROPERTIES = frozenset({"track", "page", "screen"})
_SHARED = ("context", "integrations")
_OPEN = ("context", "integrations", "traits", "properties")
_FALSE = frozenset({"false", "0"})
_NO_TYPE = "group"  # stands for no group type, as in Jitsu (5)
_JITSU_ERROR = re.compile(r"Message ID: ([^\s:]+): ?(.*)", re.DOTALL)
_JITSU_AGAIN = ("producer error",)
_JITSU_WAITS = ("quota exceeded", "no destinations")
_NOT_OF_JITSU = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True)
class SegmentDialect:
    """
    One vendor of the family.

    Args:
        default_host: the vendor's base URL; "" if every customer has a host of their own.
        auth: how the key is sent: any of ``basic``, ``body`` (a ``writeKey`` beside the batch)
            and ``bearer``. Anything else raises ``ValueError``.
        per_message: which of ``writeKey``, ``appId`` and ``sentAt`` each message repeats.
        event_name_bytes: the most bytes of a track event's name; None: no limit.
        traits_in_context: whether identify repeats its traits in the context.
        key_hosts: prefixes of keys that are sent as bearer tokens, each with its region's host.
        any_id: whether the caller's id is sent unchanged even if it is not a UUID.
        mends_ids: whether the server cuts and cleans a ``messageId`` (Jitsu, 1.3).
    """

    name: str
    default_host: str = ""
    path: str = "/v1/batch"
    auth: frozenset[str] = frozenset({"basic"})
    per_message: tuple[str, ...] = ()
    limits: Limits = _LIMITS
    rules: Rules = _RULES
    codings: frozenset[str] = frozenset({"gzip"})
    event_name_bytes: int | None = None
    traits_in_context: bool = False
    key_hosts: tuple[tuple[str, str], ...] = ()
    any_id: bool = True
    mends_ids: bool = False

    def __post_init__(self) -> None:
        if not self.auth <= _AUTH:
            raise ValueError(f"auth: {sorted(self.auth - _AUTH)} is not one of {sorted(_AUTH)}")

    def ingestion_host(self, host: str, api_key: str) -> str:
        """Return *host*; if it is the default or empty, the host of the key's region."""
        host = host.rstrip("/")
        if host in ("", self.default_host):
            return self._region(api_key.strip()) or self.default_host
        return host

    def line(self, message: Message) -> bytes:
        """Return *message* as one of the six calls, with the ``messageId`` first."""
        fields = self._fields(message)
        line = jsonable.encode(fields)
        if len(line) <= self.limits.event_bytes:
            return line
        cut = _fitted(fields, self.limits.event_bytes)
        if cut is None:
            raise Refused("oversized", f"{message.event}, {len(line)} bytes")
        return cut

    def _fields(self, message: Message) -> Fields:
        properties = {k: v for k, v in message.properties.items() if k not in _POSTHOG_ONLY}
        unknown = _taken(properties, "$options")
        if unknown:
            properties = {**unknown, **properties}
        kind = _TYPE_OF.get(message.event, "track")
        fields: Fields = {"messageId": message.uuid, "type": kind}
        if message.timestamp:
            fields["timestamp"] = _milliseconds(message.timestamp)
        _CALLS[kind].write(message, properties, fields)
        fields["context"] = _context(properties, kind)
        integrations = _taken(properties, "$integrations")
        if integrations:
            fields["integrations"] = integrations
        if properties or kind in _WITH_PROPERTIES:
            fields["properties"] = properties
        if self.traits_in_context and kind == "identify":
            context = fields["context"]
            context["traits"] = {**context.get("traits", {}), **fields["traits"]}
        if self.event_name_bytes and kind == "track":
            fields["event"] = _cut(fields["event"], self.event_name_bytes)
        return fields

    def uuid_of(self, line: bytes) -> str:
        """Return the ``messageId``, always the first field, as the server's answers write it."""
        end = line.index(b'"', _ID_AT)
        raw = line[_ID_AT:end]
        if b"\\" in raw:  # the caller chose an id with a character that JSON escapes
            raw = str(jsonable.decode(line)["messageId"]).encode()
        return self.answers_name(raw.decode())

    def answers_name(self, message_id: str) -> str:
        """Return *message_id* as the server's answers write it: Jitsu cuts and cleans it."""
        return _NOT_OF_JITSU.sub("_", message_id[:64]) if self.mends_ids else message_id

    def request(self, batch: Batch, endpoint: Endpoint, now: str) -> Request:
        """Return the POST request; servers correct clock skew by *now*, its ``sentAt``."""
        key = endpoint.api_key.strip()
        headers = self._authorization(key)
        if batch.attempt > 1:
            headers["X-Retry-Count"] = str(batch.attempt - 1)
        url = self.ingestion_host(endpoint.host, key) + self.path
        body = self._body(batch, key, now)
        return json_request(url, body, headers, endpoint, endpoint.compression)

    def _body(self, batch: Batch, key: str, now: str) -> bytes:
        sent_at = jsonable.encode(_milliseconds(now))
        own = jsonable.encode(key)
        write_key = b'"writeKey":%b,' % own if "body" in self.auth else b""
        lines = batch.lines
        if self.per_message:
            # Added here, not to the line, so that no key gets into a spool.
            values = {"sentAt": sent_at}
            names = self.per_message
            keys = b"".join(b'"%b":%b,' % (name.encode(), values.get(name, own)) for name in names)
            lines = [b"{" + keys + line[1:] for line in lines]
        return b'{%b"sentAt":%b,"batch":[%b]}' % (write_key, sent_at, b",".join(lines))

    def _authorization(self, key: str) -> dict[str, str]:
        if "bearer" in self.auth or self._region(key):
            return {"Authorization": f"Bearer {key}"}
        if "basic" in self.auth:
            # The key is the user, with an empty password (RFC 7617, 2); Jitsu's keys contain a
            # colon.
            return {"Authorization": f"Basic {base64.b64encode(f'{key}:'.encode()).decode()}"}
        return {}

    def _region(self, key: str) -> str:
        return next((host for start, host in self.key_hosts if key.startswith(start)), "")

    def results(self, response: Response) -> Results:
        """Return what a 2xx says about single calls: Jitsu names them, MetaRouter counts them."""
        answer = object_in(response)
        if answer.get("ok") is False and answer.get("errors"):
            return _jitsu_results(answer["errors"])
        partly = response.status == 207 or answer.get("Success") is False
        errors = answer.get("Errors")
        number = len(errors) if isinstance(errors, list) else 0
        if partly and number:
            return Results(unnamed=number)
        if doubted := doubt(response, answer):
            return Results(kept=doubted)
        return Results(notes={"partly_accepted": 1}) if partly else Results()

    def decode(self, request: Request) -> list[Message]:
        """
        Return the messages of a batch, an import or a single call.

        Raises ``ValueError`` for anything else.
        """
        path = urlsplit(request.url).path
        return [_decoded(raw) for raw in calls_in(json_of(request), path)]


def calls_in(body: Any, path: str = "") -> list[Any]:
    """
    Return the calls in a request's JSON: those of a batch, or the single one.

    Calls of a batch inherit its ``context`` and ``integrations``. The type of a single call may
    be in *path*. Raises ``ValueError`` for anything else.
    """
    if not isinstance(body, dict):
        raise ValueError("a call or a batch is an object")
    if "batch" not in body:
        kind = SINGLE_PATHS.get(path.rstrip("/").rpartition("/")[2])
        return [{**body, "type": kind} if kind else body]
    if not isinstance(body["batch"], list):
        raise ValueError("a batch is an object with a list under 'batch'")
    shared = {name: body[name] for name in _SHARED if isinstance(body.get(name), dict)}
    return [_within(shared, raw) for raw in body["batch"]] if shared else body["batch"]


def _within(shared: Mapping[str, Fields], raw: Any) -> Any:
    """Return *raw* with the batch's context and integrations as defaults (2)."""
    if not isinstance(raw, dict):
        return raw
    return {**raw, **{name: {**shared[name], **_mapping(raw.get(name))} for name in shared}}


def _fitted(fields: Fields, size: int) -> bytes | None:
    """
    Return *fields* in at most *size* bytes, None if that cannot be done.

    Only context, integrations, traits and properties are cut: never ids, names and times.
    """
    head = jsonable.encode({k: v for k, v in fields.items() if k not in _OPEN})
    rest = {k: fields[k] for k in _OPEN if k in fields}
    cut = jsonable.encode_within(rest, size - len(head))
    return None if cut is None else head[:-1] + b"," + cut[1:]


# From PostHog's model to the calls. Each writer removes from the properties what it puts into
# the fields.


def _write_track(message: Message, properties: Fields, fields: Fields) -> None:
    if not message.event.strip():
        raise Refused("no_event_name")
    fields |= _ids(message, properties)
    fields["event"] = message.event


def _write_identify(message: Message, properties: Fields, fields: Fields) -> None:
    fields |= _ids(message, properties)
    fields["traits"] = _taken(properties, "$set") or {}


def _write_alias(message: Message, properties: Fields, fields: Fields) -> None:
    """Write an alias: PostHog's event has the old id, Segment's call the new one."""
    user = _id(properties.pop("alias", None))
    properties.pop("distinct_id", None)
    if not message.distinct_id:
        raise Refused("no_previous_id", message.event)
    if not user:
        raise Refused("no_distinct_id", message.event)
    fields |= {"previousId": message.distinct_id, "userId": user}


def _write_page(message: Message, properties: Fields, fields: Fields) -> None:
    fields |= _ids(message, properties)
    _lift(properties, fields, _PAGE_NAMES)
    for name, plain in _PAGE_PROPERTIES.items():
        if name in properties and plain not in properties:
            properties[plain] = properties[name] if name in _PLACES else properties.pop(name)


def _write_screen(message: Message, properties: Fields, fields: Fields) -> None:
    fields |= _ids(message, properties)
    _lift(properties, fields, _SCREEN_NAMES)


def _write_group(message: Message, properties: Fields, fields: Fields) -> None:
    kind, key = _text_at(properties, "$group_type"), _text_at(properties, "$group_key")
    if not key.strip():
        raise Refused("no_group", message.event)
    for name in ("$group_type", "$group_key"):
        properties.pop(name, None)
    if message.distinct_id == _group_own_id(kind, key):
        fields["anonymousId"] = message.distinct_id  # no person; Segment requires an id
    else:
        fields |= _ids(message, properties)
    fields["groupId"] = key
    traits = dict(_taken(properties, "$group_set") or {})
    fields["traits"] = traits if kind in ("", _NO_TYPE) else {**traits, "groupType": kind}


def _ids(message: Message, properties: Fields) -> Fields:
    """Return ``userId``, ``anonymousId`` or both, but never null (3); refuse an event without."""
    distinct_id = message.distinct_id.strip()
    anonymous = _id(properties.get("$anon_distinct_id"))
    if not distinct_id and not anonymous:
        raise Refused("no_distinct_id", message.event)
    if _is_personless(properties) and distinct_id:
        return {"anonymousId": distinct_id}
    properties.pop("$anon_distinct_id", None)
    if distinct_id in ("", anonymous):
        return {"anonymousId": anonymous}
    return {"userId": distinct_id, **({"anonymousId": anonymous} if anonymous else {})}


def _is_personless(properties: Mapping[str, Any]) -> bool:
    profile = properties.get("$process_person_profile")
    return profile is not None and str(profile).strip().lower() in _FALSE


def _context(properties: Fields, kind: str) -> Fields:
    """Return Segment's context, made of *properties*, which are removed there."""
    context = dict(_taken(properties, "$context") or {})
    context["library"] = {
        "name": str(properties.pop("$lib", None) or LIBRARY),
        "version": str(properties.pop("$lib_version", None) or VERSION),
    }
    if not _PLACES.keys().isdisjoint(properties):
        _place_all(context, properties, kind)
    traits = _taken(properties, "$set")
    if traits is not None:
        context["traits"] = {**_mapping(context.get("traits")), **traits}
    groups = _taken(properties, "$groups")
    if groups:
        context.setdefault("groupId", str(next(iter(groups.values()))))
        context["groups"] = groups
    return context


def _place_all(context: Fields, properties: Fields, kind: str) -> None:
    """
    Move properties into *context*.

    Properties without a ``$`` are the caller's own, so they are copied. ``title`` only means
    the title of a page in page calls.
    """
    for name, path in _PLACES.items():
        if properties.get(name) is None or (name == "title" and kind != "page"):
            continue
        if _place(context, path, properties[name]) and name[0] == "$":
            del properties[name]


def _place(context: Fields, path: tuple[str, ...], value: Any) -> bool:
    """Set one value in nested *context*; return False if a parent is not an object."""
    for key in path[:-1]:
        inner = context.get(key, {})
        if not isinstance(inner, Mapping):
            return False
        context[key] = inner = dict(inner)  # a copy: the caller's mapping is not changed
        context = inner
    context[path[-1]] = value
    return True


def _lift(properties: Fields, fields: Fields, names: Mapping[str, str]) -> None:
    for name, field in names.items():
        if properties.get(name):
            fields[field] = str(properties.pop(name))


# From the calls to PostHog's model. Each reader returns the event's name and distinct_id.


def _decoded(raw: Any) -> Message:
    kind = raw.get("type") if isinstance(raw, dict) else None
    if not isinstance(kind, str) or kind not in _CALLS:
        raise ValueError(f"a call's type is one of {', '.join(_CALLS)}, not {kind!r}")
    properties = dict(_mapping(raw.get("properties")))
    context = _rest_of_context(dict(_mapping(raw.get("context"))), properties)
    if context:
        properties["$context"] = context
    if raw.get("integrations"):
        properties["$integrations"] = raw["integrations"]
    event, distinct_id = _CALLS[kind].read(raw, properties)
    time = raw.get("timestamp") or raw.get("originalTimestamp")
    return Message(
        event,
        distinct_id,
        properties,
        canonical(str(raw.get("messageId") or "")),
        (parse_timestamp(time) or str(time)) if time else "",
    )


def _read_track(raw: Fields, properties: Fields) -> tuple[str, str]:
    return _text_at(raw, "event"), _reader_id(raw, properties)


def _read_identify(raw: Fields, properties: Fields) -> tuple[str, str]:
    repeated = properties.get("$set")
    properties["$set"] = {**_mapping(repeated), **_mapping(raw.get("traits"))}
    return "$identify", _reader_id(raw, properties)


def _read_alias(raw: Fields, properties: Fields) -> tuple[str, str]:
    previous = _text_at(raw, "previousId")
    properties |= {"alias": _text_at(raw, "userId"), "distinct_id": previous}
    return "$create_alias", previous


def _read_page(raw: Fields, properties: Fields) -> tuple[str, str]:
    _lower(raw, properties, _PAGE_NAMES)
    for name, plain in _PAGE_PROPERTIES.items():
        if plain in properties and properties.get(name, properties[plain]) == properties[plain]:
            properties[name] = properties.pop(plain)
    return "$pageview", _reader_id(raw, properties)


def _read_screen(raw: Fields, properties: Fields) -> tuple[str, str]:
    _lower(raw, properties, _SCREEN_NAMES)
    return "$screen", _reader_id(raw, properties)


def _read_group(raw: Fields, properties: Fields) -> tuple[str, str]:
    traits = dict(_mapping(raw.get("traits")))
    kind, key = str(traits.pop("groupType", _NO_TYPE)), _text_at(raw, "groupId")
    properties |= {"$group_type": kind, "$group_key": key, "$group_set": traits}
    own = _group_own_id(kind, key)
    if not _text_at(raw, "userId") and _text_at(raw, "anonymousId") in ("", own):
        return "$groupidentify", own
    return "$groupidentify", _reader_id(raw, properties)


def _reader_id(raw: Fields, properties: Fields) -> str:
    user, anonymous = _text_at(raw, "userId"), _text_at(raw, "anonymousId")
    if anonymous and not (_is_personless(properties) and not user):
        properties["$anon_distinct_id"] = anonymous
    return user or anonymous


def _rest_of_context(context: Fields, properties: Fields) -> Fields:
    """Move values that PostHog has a property for to *properties*; return the rest."""
    library = context.pop("library", None)
    if isinstance(library, dict):
        for name, key in (("$lib", "name"), ("$lib_version", "version")):
            if library.get(key):
                properties.setdefault(name, library[key])
    for path, name in CONTEXT_PROPERTIES.items():
        _take_from(context, path, name, properties)
    traits = context.get("traits")
    if isinstance(traits, dict):
        properties.setdefault("$set", context.pop("traits"))
    _groups_from(context, properties)
    return context


def _take_from(context: Fields, path: tuple[str, ...], name: str, properties: Fields) -> None:
    *above, last = path
    parent = context
    for key in above:
        inner = parent.get(key)
        if not isinstance(inner, dict):
            return
        parent = inner
    value = parent.get(last)
    if value is None or properties.setdefault(name, value) != value:
        return
    if not above:
        del context[last]
        return
    left = {k: v for k, v in parent.items() if k != last}
    if left:
        context[above[0]] = left
    else:
        del context[above[0]]


def _groups_from(context: Fields, properties: Fields) -> None:
    groups, key = context.get("groups"), context.get("groupId")
    if isinstance(groups, dict) and groups:
        properties["$groups"] = context.pop("groups")
        if key == str(next(iter(groups.values()))):
            del context["groupId"]
    elif key:
        properties["$groups"] = {_NO_TYPE: context.pop("groupId")}


def _lower(raw: Fields, properties: Fields, names: Mapping[str, str]) -> None:
    for name, field in names.items():
        if raw.get(field):
            properties.setdefault(name, raw[field])


class _Call(NamedTuple):
    """One of the six calls: PostHog's event for it, and the mapping in both directions."""

    event: str
    write: Callable[[Message, Fields, Fields], None]
    read: Callable[[Fields, Fields], tuple[str, str]]


_PAGE_NAMES = {"name": "name", "category": "category"}
_SCREEN_NAMES = {"$screen_name": "name", "category": "category"}
_CALLS: Mapping[str, _Call] = {
    "identify": _Call("$identify", _write_identify, _read_identify),
    "track": _Call("", _write_track, _read_track),
    "page": _Call("$pageview", _write_page, _read_page),
    "screen": _Call("$screen", _write_screen, _read_screen),
    "group": _Call("$groupidentify", _write_group, _read_group),
    "alias": _Call("$create_alias", _write_alias, _read_alias),
}
# Segment has no call of its own for `$set`: identify sets traits, too.
_TYPE_OF = {call.event: kind for kind, call in _CALLS.items() if call.event} | {"$set": "identify"}


def _taken(properties: Fields, name: str) -> dict[str, Any] | None:
    """Remove a mapping from *properties* and return it; any other value stays there."""
    value = properties.get(name)
    if value is None or not isinstance(value, Mapping):
        return None
    del properties[name]
    return dict(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _id(value: Any) -> str:
    """Return an id as text, "" if it names nobody; some servers fail on numbers (1.1)."""
    return "" if value is None else clean_id(value, _ignore) or ""


def _ignore(topic: str, text: str) -> None:
    """Log no correction: that was logged when the message was made."""


def _text_at(raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field)
    return "" if value is None else str(value)


def _group_own_id(kind: str, key: str) -> str:
    """Return the distinct_id of a group event without a person, as `assemble` makes it."""
    return shortened(clean_text(f"${kind}_{key}"))


def _cut(text: str, size: int) -> str:
    """Return the longest prefix of whole characters in at most *size* bytes."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")


def _milliseconds(timestamp: str) -> str:
    """Return an RFC 3339 time in UTC with milliseconds."""
    if timestamp[-1:] != "Z":
        timestamp = parse_timestamp(timestamp) or timestamp
    whole, _, fraction = timestamp.removesuffix("Z").partition(".")
    return f"{whole}.{fraction[:3]:<03}Z"


def _jitsu_results(errors: Any) -> Results:
    """Sort Jitsu's errors: retry a lost event, keep one without a destination, drop the rest."""
    texts = [str(error) for error in errors] if isinstance(errors, list) else []
    found = [match for match in map(_JITSU_ERROR.match, texts) if match]
    again, waits = (
        {m[1]: m[2] for m in found if m[2].lower().startswith(kinds)}
        for kinds in (_JITSU_AGAIN, _JITSU_WAITS)
    )
    vague = len(texts) - len(found) or (0 if texts else 1)
    return Results(
        retry=frozenset(again),
        paused=waits,
        dropped={m[1]: m[2] for m in found if m[1] not in again and m[1] not in waits},
        notes={"partly_accepted": vague} if vague else {},
    )


SEGMENT = SegmentDialect("segment", "https://api.segment.io", auth=frozenset({"basic", "body"}))
METAROUTER = SegmentDialect(
    "metarouter",
    "https://e.metarouter.io",
    per_message=("writeKey", "appId", "sentAt"),
    limits=_METAROUTER_LIMITS,
)
RUDDERSTACK = SegmentDialect("rudderstack", limits=_RUDDERSTACK_LIMITS, traits_in_context=True)
JITSU = SegmentDialect("jitsu", limits=_JITSU_LIMITS, event_name_bytes=128, mends_ids=True)
CUSTOMERIO = SegmentDialect(
    "customerio",
    "https://cdp.customer.io",
    key_hosts=(
        ("pk_us_", "https://cdp.customer.io"),
        ("sk_us_", "https://cdp.customer.io"),
        ("pk_eu_", "https://cdp-eu.customer.io"),
        ("sk_eu_", "https://cdp-eu.customer.io"),
    ),
)
HIGHTOUCH = SegmentDialect(
    "hightouch", "https://us-east-1.hightouch-events.com", auth=frozenset({"body"})
)
JUNE = SegmentDialect("june", "https://api.june.so", path="/sdk/batch")
