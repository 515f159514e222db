"""
PostHog's V1 server: seven headers are required, and every event gets its own verdict.

An event that a verdict cannot name (its uuid is missing or repeated, a type is wrong) still
refuses the whole request. ``/i/v1/ai/events`` is the same server, for AI events alone.
"""

from __future__ import annotations

import re

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..events import jsonable
from .answers import Verdict
from .identity import is_illegal, warnings_of
from .rules import (
    JSON,
    Finding,
    Incoming,
    Judged,
    Null,
    Reading,
    Refusal,
    Types,
    as_bool,
    bounded,
    canonical,
    exact_json,
    key_fault,
    one_of,
    parsed,
    phrase,
    type_fault,
    type_name,
    unpacked,
)
from .rules_posthog import finding, fits_kafka, person_warnings, time_warnings
from .timestamps import parse_strictly


__all__ = ["AI", "V1", "PostHogV1"]

_WIRE_BYTES = 10 * 1024 * 1024
_PLAIN_BYTES = 50 * 1024 * 1024
_AI_BYTES = 8 * 1024 * 1024  # of one event on the AI lane
_LONGEST = 200  # bytes of UTF-8, for names and ids
_CODINGS = frozenset({"gzip", "deflate", "br", "zstd"})
_TEXT = one_of(str, Null)
_ONLY_TEXT = one_of(str)

_REQUIRED = (
    "Content-Type",
    "User-Agent",
    "PostHog-Sdk-Info",
    "PostHog-Attempt",
    "PostHog-Request-Id",
    "PostHog-Request-Timestamp",
)
_BATCH_TYPES: Mapping[str, Types] = {
    "created_at": _ONLY_TEXT,
    "historical_migration": one_of(bool),
    "capture_internal": one_of(bool, Null),
    "batch": one_of(list),
}
_BATCH_MUSTS = ("created_at", "batch")
_EVENT_TYPES: Mapping[str, Types] = {
    "event": _ONLY_TEXT,
    "uuid": _ONLY_TEXT,
    "distinct_id": _ONLY_TEXT,
    "timestamp": _ONLY_TEXT,
    "session_id": _TEXT,
    "window_id": _TEXT,
}
_EVENT_MUSTS = ("event", "uuid", "distinct_id", "timestamp")
_BOOLEANS = ("cookieless_mode", "disable_skew_correction", "process_person_profile")

# The tags of the statuses that a script may demand (wire notes, 2.6).
_TAGS: Mapping[int, str] = {
    400: "invalid_batch",
    401: "invalid_api_token",
    402: "billing_limit_exceeded",
    403: "forbidden",
    404: "not_found",
    408: "request_timeout",
    413: "payload_too_large",
    415: "unsupported_content_type",
    429: "rate_limited",
    500: "internal_error",
    502: "bad_gateway",
    503: "service_unavailable",
    504: "gateway_timeout",
}


@dataclass(frozen=True)
class PostHogV1:
    """``POST /i/v1/analytics/events``, or ``/i/v1/ai/events``."""

    dialect: str = "posthog-v1"
    is_ai_lane: bool = False

    def judge(self, incoming: Incoming) -> Judged:
        """Return a verdict for every event, or the refusal of all of them."""
        read = Reading()
        try:
            _check_headers(incoming.headers)
            read.plain = _plain(incoming)
            read.payload = parsed(read.plain, "request_parsing_error")
            read.events = bounded(_events(read.payload))
            _check_events(read.events, read.payload["created_at"])
        except Refusal as refusal:
            return _refused(read, refusal, incoming)
        sent_at = parse_strictly(incoming.headers["posthog-request-timestamp"].strip())
        skew = (sent_at or incoming.now) - incoming.now
        found = [
            _finding(raw, self._fault(raw, len(read.plain)), _warnings(raw, skew, incoming.now))
            for raw in read.events
        ]
        return _answered(read, incoming, found)

    def _fault(self, raw: Mapping[str, Any], size: int) -> str:
        """Return why an event is dropped (2.5), or nothing."""
        fault = _event_fault(raw)
        if fault:
            return fault
        if not self.is_ai_lane:
            return "" if fits_kafka(raw, size) else "event_too_big"
        if not raw["event"].startswith("$ai_"):
            return "misrouted_event"
        is_small = size <= _AI_BYTES or len(exact_json(raw)) <= _AI_BYTES
        return "" if is_small else "ai_event_too_big"

    def refuse(self, status: int, incoming: Incoming) -> Judged:
        """Return *status* in V1's form: an object with a tag."""
        tag = _TAGS.get(status, f"status_{status}")
        return _refused(Reading(), Refusal(status, tag, phrase(status)), incoming)


V1 = PostHogV1()
AI = PostHogV1(is_ai_lane=True)


def _own_headers(incoming: Incoming) -> dict[str, str]:
    headers = dict(JSON)
    request_id = incoming.headers.get("posthog-request-id", "")
    if request_id.isascii() and request_id.isprintable() and request_id:
        headers["PostHog-Request-Id"] = request_id
    return headers


def _refused(read: Reading, refusal: Refusal, incoming: Incoming) -> Judged:
    answer = {
        "error": refusal.tag,
        "error_description": refusal.text,
        "error_uri": f"https://posthog.com/docs/api/capture#{refusal.tag}",
    }
    judged = read.refused(refusal, jsonable.encode(answer), _finding, _own_headers(incoming))
    is_bare = refusal.text == refusal.tag
    return replace(judged, error=refusal.tag if is_bare else f"{refusal.tag}: {refusal.text}")


def _finding(raw: Any, reason: str = "", warnings: tuple[str, ...] = ()) -> Finding:
    """Return an event as V1 stores it, read as far as possible: ids are stripped of blanks."""
    found = finding(raw, reason, warnings)
    uuid = found.uuid.strip()
    return found._replace(
        distinct_id=found.distinct_id.strip(),
        uuid=canonical(uuid) or uuid,
        properties={**found.properties, **_as_properties(raw)},
    )


def _as_properties(raw: Any) -> dict[str, Any]:
    """Return the fields and options of an event that the server stores as properties (2.3)."""
    if type(raw) is not dict:
        return {}
    given = raw.get("options")
    options = given if type(given) is dict else {}
    fields = {f"${name}": raw.get(name) for name in ("session_id", "window_id")}
    known = {name: as_bool(options.get(option)) for option, name in _STORED_OPTIONS.items()}
    return {name: value for name, value in {**fields, **known}.items() if value is not None}


_STORED_OPTIONS = {
    "cookieless_mode": "$cookieless_mode",
    "disable_skew_correction": "$ignore_sent_at",
    "process_person_profile": "$process_person_profile",
}


def _check_headers(headers: Mapping[str, str]) -> None:
    """Refuse in the server's order: the key's header is missing, others are, one is wrong."""
    if "authorization" not in headers:
        raise Refusal(401, "missing_authorization")
    missing = [name for name in _REQUIRED if name.lower() not in headers]
    if missing:
        raise Refusal(400, "missing_required_headers", f"missing: {', '.join(missing)}")
    _check_key(headers["authorization"])
    media, _, _ = headers["content-type"].partition(";")
    if media.strip().lower() != "application/json":
        raise Refusal(415, "unsupported_content_type", f"Content-Type: {media[:40]}")
    coding = headers.get("content-encoding")
    if coding is not None and coding.lower() not in _CODINGS:
        raise Refusal(415, "unsupported_encoding", f"Content-Encoding: {coding[:40]}")
    for name, fits in _HEADER_CHECKS.items():
        if not fits(headers[name].strip()):
            raise Refusal(400, "invalid_header_value", f"invalid {name}")


def _is_visible(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _is_attempt(text: str) -> bool:
    """Return whether *text* is from 1 to 2**32 - 1; zeros at its beginning mean nothing."""
    found = re.fullmatch(r"\+?0*([1-9]\d{0,9})", text, re.ASCII)
    return found is not None and int(found[1]) < 2**32


_HEADER_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "posthog-request-id": lambda text: canonical(text) is not None,
    "posthog-attempt": _is_attempt,
    "posthog-request-timestamp": lambda text: parse_strictly(text) is not None,
    "user-agent": _is_visible,
    "posthog-sdk-info": _is_visible,  # an empty one is taken: the events then have no `$lib`
}


def _check_key(authorization: str) -> None:
    scheme, _, key = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not key:
        text = "Authorization: Bearer and a project's key"
        raise Refusal(400, "invalid_header_value", text)
    fault = key_fault(key)
    if fault:
        raise Refusal(401, "invalid_api_token", fault)


def _plain(incoming: Incoming) -> bytes:
    """Decompress as the header declares; V1 detects only the two forms of ``deflate`` (2.2)."""
    if len(incoming.body) > _WIRE_BYTES:
        raise Refusal(413, "payload_too_large", f"body of more than {_WIRE_BYTES} bytes")
    if not incoming.body:
        raise Refusal(400, "empty_body")
    coding = incoming.headers.get("content-encoding")
    return unpacked(incoming.body, coding, _PLAIN_BYTES, "request_decoding_error")


def _events(payload: Any) -> list[Any]:
    """Return the events of a batch, which may be empty; a wrong type is a 400."""
    fault = _type_fault(payload, _BATCH_TYPES, _BATCH_MUSTS)
    if fault:
        raise Refusal(400, "request_parsing_error", fault)
    events: list[Any] = payload["batch"]
    return events


def _check_events(events: Sequence[Any], created_at: str) -> None:
    """Refuse the batch unless every event has the right types and a valid, unique uuid."""
    for index, raw in enumerate(events):
        fault = _type_fault(raw, _EVENT_TYPES, _EVENT_MUSTS)
        if fault:
            raise Refusal(400, "request_parsing_error", fault, index)
    if not events:
        raise Refusal(400, "empty_batch")
    if parse_strictly(created_at) is None:
        raise Refusal(400, "invalid_batch", "created_at is not RFC 3339")
    seen: set[str] = set()
    for index, raw in enumerate(events):
        seen.add(_unique(raw["uuid"].strip(), seen, index))


def _type_fault(raw: Any, types: Mapping[str, Types], musts: Sequence[str]) -> str:
    if type(raw) is not dict:
        return f"invalid type {type_name(raw)}, expected an object"
    missing = next((f"{name}: missing" for name in musts if name not in raw), "")
    return missing or type_fault(raw, types)


def _unique(uuid: str, seen: set[str], index: int) -> str:
    if not uuid:
        raise Refusal(400, "missing_event_uuid", guilty=index)
    name = canonical(uuid)
    if name is None:
        raise Refusal(400, "invalid_event_uuid", guilty=index)
    if name in seen:
        raise Refusal(400, "duplicate_event_uuid", guilty=index)
    return name


def _event_fault(raw: Mapping[str, Any]) -> str:
    """Return the first fault of an event, in the server's order."""
    event, distinct_id = raw["event"], raw["distinct_id"].strip()
    if event == "$performance_event":
        return "dropped_performance_event"
    if not event:
        return "missing_event_name"
    if len(event.encode()) > _LONGEST:
        return "event_name_too_long"
    if not distinct_id:
        return "missing_distinct_id"
    if len(distinct_id.encode()) > _LONGEST:
        return "distinct_id_too_large"
    if parse_strictly(raw["timestamp"]) is None:
        return "invalid_event_timestamp"
    if type(raw.get("properties", {})) is not dict:
        return "malformed_event_properties"
    return "" if _fit(raw.get("options")) else "invalid_options"


def _fit(options: Any) -> bool:
    """Return whether the server can read the options; null counts as absent."""
    if options is None:
        return True
    if type(options) is not dict:
        return False
    given = [options[name] for name in _BOOLEANS if options.get(name) is not None]
    tour = type(options.get("product_tour_id"))
    return all(as_bool(one) is not None for one in given) and tour in (str, int, Null)


def _warnings(raw: Mapping[str, Any], skew: float, now: float) -> tuple[str, ...]:
    """Return what the server changes in an event that it accepts."""
    warnings: tuple[str, ...] = ()
    if is_illegal(raw["distinct_id"]):
        warnings += (
            "illegal distinct_id: person processing is off for it; send the user's own id",
        )
    given = raw.get("options")
    options: Mapping[str, Any] = given if isinstance(given, dict) else {}
    seconds = parse_strictly(raw["timestamp"])
    if seconds is not None:
        is_uncorrected = as_bool(options.get("disable_skew_correction"))
        warnings += time_warnings(seconds, 0.0 if is_uncorrected else skew, now)
    if as_bool(options.get("process_person_profile")) is False:
        warnings += person_warnings(raw["event"], False)
    properties = raw.get("properties")
    known = {**(properties if type(properties) is dict else {}), **_as_properties(raw)}
    return warnings + warnings_of(raw["event"], raw["distinct_id"].strip(), known)


def _verdict(one: Finding, wanted: Mapping[str, Verdict]) -> Mapping[str, Any] | None:
    """Return the verdict on an event; None leaves it out of the answer."""
    for key in (one.uuid, one.event):
        if key in wanted:
            return _spelled_out(wanted[key])
    if one.reason:
        return {"result": "drop", "details": one.reason}
    if is_illegal(one.distinct_id):
        return {"result": "ok", "details": "person_processing_disabled"}
    return _OK


_OK: dict[str, Any] = {"result": "ok"}
_DETAILS = {"retry": "not_persisted", "drop": "rejected", "warning": "person_processing_disabled"}


def _spelled_out(wanted: Verdict) -> Mapping[str, Any] | None:
    if not isinstance(wanted, str):
        return wanted
    details = _DETAILS.get(wanted)
    return {"result": wanted, "details": details} if details else {"result": wanted}


def _answered(read: Reading, incoming: Incoming, found: Sequence[Finding]) -> Judged:
    uuids = [one.uuid for one in found]
    scripted = incoming.verdicts or {}
    wanted = scripted(uuids) if callable(scripted) else scripted
    good, bad, results = [], [], {}
    for one in found:
        verdict = _verdict(one, wanted)
        if verdict is not None:
            results[one.uuid] = verdict
        result = (verdict or _OK).get("result")
        if result == "drop":
            bad.append(one._replace(reason=str((verdict or {}).get("details") or "drop")))
        elif result != "retry":  # that is not persisted: the server has nothing of it
            good.append(one._replace(reason=""))
    headers = _own_headers(incoming)
    if any(verdict.get("result") == "retry" for verdict in results.values()):
        headers["Retry-After"] = "1"
    body = _results_body(results)
    return replace(read.answered(body, ()), headers=headers, good=good, bad=bad, uuids=uuids)


def _results_body(results: Mapping[str, Mapping[str, Any]]) -> bytes:
    # A member at a time: as one value, `jsonable` would cut what has too many items.
    members = [b'"%b":%b' % (name.encode(), jsonable.encode(v)) for name, v in results.items()]
    return b'{"results":{%b}}' % b",".join(members)
