"""
The Segment family: batches of calls to ``POST /v1/batch``; one dialect, with each vendor as data.

These servers answer 200 to events that they drop later (wire notes, 1.1 and 1.4), so such
events are corrected or refused here. For another vendor of the family, use
``dataclasses.replace(SEGMENT, name=..., path=..., auth=..., limits=...)``.
"""

from __future__ import annotations

import base64
import re

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..events import jsonable
from ..events.message import Message
from ..events.timestamps import milliseconds
from .answers import doubt, object_in
from .bodies import json_of, json_request, oversized
from .dialect import Batch, Endpoint, Limits, Request, Response, Results, Rules
from .segment_calls import Fields, call_of, mapping_at, message_of


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

_SHARED = ("context", "integrations")
_OPEN = ("context", "integrations", "traits", "properties")
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
            raise oversized(message.event, len(line))
        return cut

    def _fields(self, message: Message) -> Fields:
        fields = call_of(message)
        if self.traits_in_context and fields["type"] == "identify":
            context = fields["context"]
            context["traits"] = {**mapping_at(context, "traits"), **fields["traits"]}
        if self.event_name_bytes and fields["type"] == "track":
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
        sent_at = jsonable.encode(milliseconds(now))
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
        return [message_of(raw) for raw in calls_in(json_of(request), path)]


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
    return {**raw, **{name: {**shared[name], **mapping_at(raw, name)} for name in shared}}


def _fitted(fields: Fields, size: int) -> bytes | None:
    """
    Return *fields* in at most *size* bytes, None if that cannot be done.

    Only context, integrations, traits and properties are cut: never ids, names and times.
    """
    head = jsonable.encode({k: v for k, v in fields.items() if k not in _OPEN})
    rest = {k: fields[k] for k in _OPEN if k in fields}
    cut = jsonable.encode_within(rest, size - len(head))
    return None if cut is None else head[:-1] + b"," + cut[1:]


def _cut(text: str, size: int) -> str:
    """Return the longest prefix of whole characters in at most *size* bytes."""
    return text.encode(errors="replace")[:size].decode(errors="ignore")


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
