"""
PostHog's V1 server: seven headers are a must, and every event gets a verdict of its own.

What the protocol cannot name (a uuid that is missing or twice there, a wrong type) still
refuses the whole request.
"""

from __future__ import annotations

import re

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..events import jsonable
from .answers import Verdict
from .rules import (
    JSON,
    Asked,
    Finding,
    Judged,
    Null,
    Reading,
    Refusal,
    Types,
    canonical,
    key_fault,
    one_of,
    parsed,
    type_fault,
    unpacked,
)
from .rules_posthog import ILLEGAL_IDS, finding, fits_kafka, in_the_future
from .timestamps import parse_strictly


__all__ = ["V1", "PostHogV1"]

_WIRE_BYTES = 10 * 1024 * 1024
_PLAIN_BYTES = 50 * 1024 * 1024
_LONGEST = 200  # bytes of UTF-8, for names and ids
_CODINGS = frozenset({"gzip", "deflate", "br", "zstd"})
_TEXT = one_of(str, Null)
_ONLY_TEXT = one_of(str)
_ONLY_TRUTH = one_of(bool)

_REQUIRED = (
    "Content-Type",
    "User-Agent",
    "PostHog-Sdk-Info",
    "PostHog-Attempt",
    "PostHog-Request-Id",
    "PostHog-Request-Timestamp",
)
_BATCH_TYPES: Mapping[str, Types] = {
    "batch": one_of(list),
    "historical_migration": one_of(bool, Null),
    "capture_internal": one_of(bool, Null),
}
_EVENT_TYPES: Mapping[str, Types] = {
    "event": _ONLY_TEXT,
    "uuid": _TEXT,
    "distinct_id": _ONLY_TEXT,
    "timestamp": _ONLY_TEXT,
    "session_id": _TEXT,
    "window_id": _TEXT,
    "options": one_of(dict, Null),
}
_OPTION_TYPES: Mapping[str, Types] = {
    "cookieless_mode": _ONLY_TRUTH,
    "disable_skew_correction": _ONLY_TRUTH,
    "process_person_profile": _ONLY_TRUTH,
    "product_tour_id": one_of(str, int),
}

# The tags of a status that somebody asked for (wire notes, 2.6).
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
    """``POST /i/v1/analytics/events``."""

    dialect: str = "posthog-v1"

    def judge(self, asked: Asked) -> Judged:
        """Return a verdict for every event, or the refusal of all of them."""
        read = Reading()
        try:
            _check_headers(asked.headers)
            read.plain = _plain(asked)
            read.payload = parsed(read.plain, "request_parsing_error")
            read.events = _events(read.payload)
            _check_events(read.events)
        except Refusal as refusal:
            return _refused(read, refusal, asked)
        sent_at = parse_strictly(asked.headers["posthog-request-timestamp"])
        skew = (sent_at or asked.now) - asked.now
        found = [
            finding(raw, _fault(raw, len(read.plain)), _warnings(raw, skew, asked.now))
            for raw in read.events
        ]
        return _answered(read, asked, found)

    def refuse(self, status: int, asked: Asked) -> Judged:
        """Return *status* as V1 says it: an object with a tag."""
        tag = _TAGS.get(status, f"status_{status}")
        return _refused(Reading(), Refusal(status, tag), asked)


V1 = PostHogV1()


def _own_headers(asked: Asked) -> dict[str, str]:
    headers = dict(JSON)
    request_id = asked.headers.get("posthog-request-id", "")
    if request_id.isascii() and request_id.isprintable() and request_id:
        headers["PostHog-Request-Id"] = request_id
    return headers


def _refused(read: Reading, refusal: Refusal, asked: Asked) -> Judged:
    said = {
        "error": refusal.tag,
        "error_description": refusal.text,
        "error_uri": f"https://posthog.com/docs/api/capture#{refusal.tag}",
    }
    judged = read.refused(refusal, jsonable.encode(said), finding, _own_headers(asked))
    return replace(judged, error=f"{refusal.tag}: {refusal.text}")


def _check_headers(headers: Mapping[str, str]) -> None:
    missing = [name for name in _REQUIRED if not headers.get(name.lower(), "").strip()]
    if missing:
        raise Refusal(400, "missing_required_headers", f"missing: {', '.join(missing)}")
    _check_key(headers.get("authorization", ""))
    media, _, _ = headers["content-type"].partition(";")
    if media.strip().lower() != "application/json":
        raise Refusal(415, "unsupported_content_type", f"Content-Type: {media}")
    for name, fits in _HEADER_CHECKS.items():
        if not fits(headers[name]):
            raise Refusal(400, "invalid_header_value", f"invalid {name}")


_HEADER_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "user-agent": lambda text: text.isascii() and text.isprintable(),
    "posthog-attempt": lambda text: bool(re.fullmatch(r"[1-9]\d{0,8}", text.strip(), re.ASCII)),
    "posthog-request-id": lambda text: canonical(text.strip()) is not None,
    "posthog-request-timestamp": lambda text: parse_strictly(text.strip()) is not None,
}


def _check_key(authorization: str) -> None:
    scheme, _, key = authorization.strip().partition(" ")
    if not scheme:
        raise Refusal(401, "missing_authorization")
    if scheme.lower() != "bearer":
        raise Refusal(400, "invalid_header_value", "Authorization: the scheme is not Bearer")
    fault = key_fault(key)
    if fault:
        raise Refusal(401, "invalid_api_token", fault)


def _plain(asked: Asked) -> bytes:
    """Unpack as the header says: V1 sniffs nothing but the two forms of ``deflate`` (2.2)."""
    coding = asked.headers.get("content-encoding", "").strip().lower()
    if coding and coding not in _CODINGS:
        raise Refusal(415, "unsupported_encoding", f"Content-Encoding: {coding[:40]}")
    if len(asked.body) > _WIRE_BYTES:
        raise Refusal(413, "payload_too_large", f"body of more than {_WIRE_BYTES} bytes")
    if not asked.body:
        raise Refusal(400, "empty_body")
    return unpacked(asked.body, coding, _PLAIN_BYTES, "request_decoding_error")


def _events(payload: Any) -> list[Any]:
    fault = type_fault(payload, _BATCH_TYPES) if isinstance(payload, dict) else "not an object"
    if fault or "batch" not in payload:
        raise Refusal(400, "request_parsing_error", fault or "batch: missing")
    created_at = payload.get("created_at")
    if type(created_at) is not str or parse_strictly(created_at) is None:
        raise Refusal(400, "invalid_batch", "created_at is not RFC 3339")
    if not payload["batch"]:
        raise Refusal(400, "empty_batch")
    events: list[Any] = payload["batch"]
    return events


def _check_events(events: Sequence[Any]) -> None:
    """Refuse all events unless each is typed, and its uuid is there, valid and the only one."""
    seen: set[str] = set()
    for index, raw in enumerate(events):
        fault = type_fault(raw, _EVENT_TYPES) if type(raw) is dict else "an event is an object"
        if fault:
            raise Refusal(400, "request_parsing_error", fault, index)
        if not raw.get("uuid"):
            raise Refusal(400, "missing_event_uuid", guilty=index)
        name = canonical(raw["uuid"])
        if name is None:
            raise Refusal(400, "invalid_event_uuid", guilty=index)
        if name in seen:
            raise Refusal(400, "duplicate_event_uuid", guilty=index)
        seen.add(name)


def _fault(raw: Mapping[str, Any], size: int) -> str:
    """Return why an event is dropped (2.5), or nothing."""
    event, distinct_id = raw.get("event", ""), raw.get("distinct_id", "").strip()
    if not event:
        return "missing_event_name"
    if len(event.encode()) > _LONGEST:
        return "event_name_too_long"
    if event == "$performance_event":
        return "dropped_performance_event"
    if not distinct_id:
        return "missing_distinct_id"
    if len(distinct_id.encode()) > _LONGEST:
        return "distinct_id_too_large"
    if parse_strictly(raw.get("timestamp", "")) is None:
        return "invalid_event_timestamp"
    if type(raw.get("properties")) not in (dict, Null):
        return "malformed_event_properties"
    if raw.get("options") and type_fault(raw["options"], _OPTION_TYPES):
        return "invalid_options"
    return "" if fits_kafka(raw, size) else "event_too_big"


def _warnings(raw: Mapping[str, Any], skew: float, now: float) -> tuple[str, ...]:
    warnings: tuple[str, ...] = ()
    if _is_illegal(raw):
        warnings += ("illegal distinct_id: person processing is off",)
    moment = parse_strictly(raw.get("timestamp", ""))
    options = raw.get("options") or {}
    if moment is not None:
        skew = 0.0 if options.get("disable_skew_correction") else skew
        warnings += in_the_future(moment, skew, now)
    return warnings


def _is_illegal(raw: Mapping[str, Any]) -> bool:
    return raw.get("distinct_id", "").strip().lower() in ILLEGAL_IDS


def _verdict(one: Finding, wanted: Mapping[str, Verdict]) -> Mapping[str, Any] | None:
    """Return the verdict on an event; None leaves it out of the answer."""
    for key in (one.uuid, one.event):
        if key in wanted:
            return _spelled_out(wanted[key])
    if one.reason:
        return {"result": "drop", "details": one.reason}
    if _is_illegal(one.raw):
        return {"result": "ok", "details": "person_processing_disabled"}
    return _OK


_OK: dict[str, Any] = {"result": "ok"}
_DETAILS = {"retry": "not_persisted", "drop": "rejected", "warning": "person_processing_disabled"}


def _spelled_out(wanted: Verdict) -> Mapping[str, Any] | None:
    if not isinstance(wanted, str):
        return wanted
    details = _DETAILS.get(wanted)
    return {"result": wanted, "details": details} if details else {"result": wanted}


def _answered(read: Reading, asked: Asked, found: Sequence[Finding]) -> Judged:
    uuids = [one.uuid for one in found]
    scripted = asked.verdicts or {}
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
    headers = _own_headers(asked)
    if any(verdict.get("result") == "retry" for verdict in results.values()):
        headers["Retry-After"] = "1"
    body = _results_body(results)
    return Judged(200, headers, body, good, bad, uuids, read.payload, len(read.plain))


def _results_body(results: Mapping[str, Mapping[str, Any]]) -> bytes:
    # A member at a time: as one value, `jsonable` would cut what has too many items.
    members = [b'"%b":%b' % (name.encode(), jsonable.encode(v)) for name, v in results.items()]
    return b'{"results":{%b}}' % b",".join(members)
