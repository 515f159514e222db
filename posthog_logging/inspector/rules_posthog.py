"""
PostHog's V0 server: the first bad event refuses the whole request, and nothing is stored.

After PostHog's ``rust/capture``, with the same type errors. A body has the first of four forms
that fits: an array of events, a batch, one event, or the update of a person, which has no name
and is for ``/engage`` alone.
"""

from __future__ import annotations

import re

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..events import jsonable
from .identity import ILLEGAL_IDS, is_illegal, warnings_of
from .rules import (
    Finding,
    Incoming,
    Judged,
    Null,
    Reading,
    Refusal,
    Types,
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
from .timestamps import parse_leniently


__all__ = [
    "ILLEGAL_IDS",
    "V0",
    "PostHogV0",
    "finding",
    "fits_kafka",
    "person_warnings",
    "time_warnings",
]

_PERSONAL = frozenset({"$identify", "$create_alias", "$merge_dangerously", "$groupidentify"})
_MOST_BYTES = 20 * 1024 * 1024  # on the wire and unpacked, on all six routes
_KAFKA_BYTES = 1_000_000
_FUTURE = 23 * 3600.0
_GZIP = b"\x1f\x8b\x08"
_LONGEST_ID = 200  # characters
# PostHog no longer stores these, and leaves them out silently.
_LEFT_OUT = "$performance_event"
_TEXT = one_of(str, Null)
_OBJECT = one_of(dict, Null)

# The fields that V0 reads, with the JSON types that each may have (wire notes, 1.4).
_EVENT_TYPES: Mapping[str, Types] = {
    "event": one_of(str),
    "uuid": _TEXT,
    "timestamp": _TEXT,
    "properties": one_of(dict),
    "$set": _OBJECT,
    "$set_once": _OBJECT,
    "offset": one_of(int, Null),
    "token": _TEXT,
    "api_key": _TEXT,
    "$token": _TEXT,
}
_BATCH_TYPES: Mapping[str, Types] = {
    "token": one_of(str),
    "api_key": one_of(str),
    "sent_at": _TEXT,
    "historical_migration": one_of(bool, Null),
    "batch": one_of(list),
}
_KEYS = ("token", "api_key", "$token")
_IDS = ("distinct_id", "$distinct_id")


@dataclass(frozen=True)
class PostHogV0:
    """``POST /batch/`` and the paths that share its handler."""

    dialect: str = "posthog"

    def judge(self, incoming: Incoming) -> Judged:
        """Return the answer for the whole request: all good, or all bad."""
        read = Reading()
        try:
            _check_query(incoming.query)
            read.plain = _plain(incoming)
            read.payload = parsed(read.plain, "request_parsing_error", _UNREADABLE)
            events, head = _events(read.payload, incoming.path)
            read.events = bounded(events)
            kept = _check(read.events, head, len(read.plain))
        except Refusal as refusal:
            return _refused(read, refusal)
        notes = _RequestNotes.of(head, incoming)
        found = [finding(raw, warnings=notes.about(raw)) for raw in kept]
        found += [finding(raw, "dropped_performance_event") for raw in _left_out(read.events)]
        judged = read.answered(b'{"status":"Ok"}', found)
        return (
            replace(judged, status=204, body=b"")
            if incoming.query.get("beacon") == "1"
            else judged
        )

    def refuse(self, status: int, incoming: Incoming) -> Judged:
        """Return *status* in V0's form: plain text."""
        return _refused(Reading(), Refusal(status, phrase(status)))


V0 = PostHogV0()

_UNREADABLE = "failed to parse request: "
_UNDECODABLE = "failed to decode request: "


def _refused(read: Reading, refusal: Refusal) -> Judged:
    text = {"Content-Type": "text/plain; charset=utf-8"}
    return read.refused(refusal, refusal.text.encode(), finding, text)


def _check_query(query: Mapping[str, str]) -> None:
    for name in ("beacon", "_"):
        if name in query and not re.fullmatch(r"[+-]?\d{1,18}", query[name], re.ASCII):
            raise Refusal(400, "invalid_query", f"query: {name} is not a whole number")


def _plain(incoming: Incoming) -> bytes:
    """Decompress a body that begins like gzip or is declared as gzip, V0's only coding."""
    if len(incoming.body) > _MOST_BYTES:
        raise Refusal(413, "payload_too_large", f"body of more than {_MOST_BYTES} bytes")
    if not incoming.body:
        raise Refusal(400, "empty_body", "empty body")
    coding = _coding(incoming)
    if coding == "lz64":
        raise Refusal(400, "request_decoding_error", f"{_UNDECODABLE}no lz64 in this inspector")
    if incoming.body.startswith(_GZIP):
        coding = "gzip"
    return unpacked(incoming.body, coding, _MOST_BYTES, "request_decoding_error")


def _coding(incoming: Incoming) -> str | None:
    """Return the coding that a request declares; the query overrides the header."""
    hint = _CODINGS.get(incoming.query.get("compression", "").lower())
    return hint or _CODINGS.get(incoming.headers.get("content-encoding", ""))


_CODINGS: Mapping[str, str] = {
    "gzip": "gzip",
    "gzip-js": "gzip",
    "lz64": "lz64",
    "lz-string": "lz64",
}


def _events(payload: Any, path: str) -> tuple[list[Any], Mapping[str, Any]]:
    """Return the events of a body, and the fields of the batch around them."""
    if isinstance(payload, list):
        return payload, {}
    if not isinstance(payload, dict):
        raise Refusal(400, "request_parsing_error", f"{_UNREADABLE}not an object")
    if "batch" in payload and ("event" not in payload or not _batch_fault(payload)):
        fault = _batch_fault(payload)
        if fault:
            raise Refusal(400, "request_parsing_error", f"{_UNREADABLE}{fault}")
        return payload["batch"], payload
    if path.startswith("/engage") and type(payload.get("event")) is not str:
        return [{**payload, "event": "$identify"}], {}
    return [payload], {}


def _batch_fault(payload: Mapping[str, Any]) -> str:
    if "token" not in payload and "api_key" not in payload:
        return "api_key: missing beside the batch; keys in its events do not count"
    if "token" in payload and "api_key" in payload:
        return "api_key: given twice, as token too"
    return type_fault(payload, _BATCH_TYPES)


def _left_out(events: Sequence[Any]) -> list[Any]:
    return [raw for raw in events if raw["event"] == _LEFT_OUT]


def _check(events: Sequence[Any], head: Mapping[str, Any], size: int) -> list[Any]:
    """
    Return the events that the server stores; refuse in its order: types, the key, each event.
    """
    for index, raw in enumerate(events):
        fault = _event_fault(raw)
        if fault:
            raise Refusal(400, "request_parsing_error", f"{_UNREADABLE}{fault}", index)
    if not events:
        raise Refusal(400, "empty_batch", "request holds no event")
    kept = [raw for raw in events if raw["event"] != _LEFT_OUT]
    if kept:
        _check_key(kept, head)
    for index, raw in enumerate(events):
        if raw["event"] == _LEFT_OUT:
            continue
        fault = _content_fault(raw)
        if fault:
            raise Refusal(400, "invalid_event", fault, index)
        if not fits_kafka(raw, size):
            raise Refusal(413, "event_too_big", "event is too big", index)
    return kept


def _event_fault(raw: Any) -> str:
    if type(raw) is not dict:
        return f"event: invalid type {type_name(raw)}"
    if "event" not in raw:
        return "event: missing"
    if raw.get("uuid") and type(raw["uuid"]) is str and canonical(raw["uuid"]) is None:
        return "uuid: not a UUID"
    for aliases in (_KEYS, _IDS):
        given = [name for name in aliases if name in raw]
        if len(given) > 1:
            return f"{given[0]}: given twice, as {given[1]} too"
    return type_fault(raw, _EVENT_TYPES)


def _content_fault(raw: Mapping[str, Any]) -> str:
    if not raw["event"]:
        return "event submitted with an empty event name"
    if not _distinct_id(raw).strip():
        return "event submitted without a distinct_id"
    if type(raw.get("properties", {}).get("$cookieless_mode", False)) is not bool:
        return "$cookieless_mode is not a boolean"
    return ""


def _check_key(events: Sequence[Any], head: Mapping[str, Any]) -> None:
    """Check the key of the batch, else the one key that all events with a key have."""
    keys = {head[name] for name in ("token", "api_key") if name in head} or set(_keys_of(events))
    if not keys:
        raise Refusal(401, "missing_token", "API key is missing")
    if len(keys) > 1:
        raise Refusal(401, "inconsistent_tokens", "events have different API keys")
    fault = key_fault(keys.pop())
    if fault:
        raise Refusal(401, "invalid_token", fault)


def _keys_of(events: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Yield each event's key: at its root, else in its properties."""
    for raw in events:
        root = next((raw[name] for name in _KEYS if raw.get(name) is not None), None)
        inner = raw.get("properties", {}).get("token")
        if root is not None:
            yield root
        elif type(inner) is str:
            yield inner


def fits_kafka(raw: Any, size: int) -> bool:
    """
    Return whether an event fits into one message, in which its JSON is escaped once more (1.5).

    Args:
        size: the bytes of the request; in half a message no event can be too big.
    """
    if 2 * size <= _KAFKA_BYTES:
        return True
    line = exact_json(raw)
    return len(line) + line.count(b'"') + line.count(b"\\") <= _KAFKA_BYTES


def _distinct_id(raw: Mapping[str, Any]) -> str:
    """Return the id at the root, else the one in the properties, as a text."""
    for name in _IDS:
        if raw.get(name) is not None:
            return _text(raw[name])
    properties = raw.get("properties")
    return _text(properties.get("distinct_id")) if isinstance(properties, dict) else ""


def _stored_id(raw: Mapping[str, Any]) -> str:
    """Return the id as the server stores it."""
    return _distinct_id(raw).replace("\0", "\ufffd")[:_LONGEST_ID]


def _text(value: Any) -> str:
    """Return a text itself, "" for null, and anything else as JSON with sorted keys."""
    if type(value) is str:
        return value
    return "" if value is None else jsonable.encode(_sorted(value)).decode()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(member) for member in value] if isinstance(value, list) else value


def finding(raw: Any, reason: str = "", warnings: tuple[str, ...] = ()) -> Finding:
    """Return an event, read as far as possible: it may have been refused."""
    if not isinstance(raw, dict):
        return Finding("", "", "", "", {}, raw, reason, warnings)
    properties = raw.get("properties")
    return Finding(
        _text(raw.get("event")),
        _stored_id(raw),
        canonical(raw.get("uuid")) or _text(raw.get("uuid")),
        _text(raw.get("timestamp")),
        properties if isinstance(properties, dict) else {},
        raw,
        reason,
        warnings,
    )


@dataclass(frozen=True)
class _RequestNotes:
    """What the warnings of good events depend on: the clock's skew, and the request."""

    now: float
    skew: float
    general: tuple[str, ...]

    @classmethod
    def of(cls, head: Mapping[str, Any], incoming: Incoming) -> _RequestNotes:
        now, sent_at = incoming.now, head.get("sent_at")
        if sent_at is None:
            in_query = int(incoming.query.get("_", "0")) / 1000  # milliseconds, from posthog-js
            return cls(now, in_query - now if in_query > _YEAR_2021 else 0.0, ())
        seconds = parse_leniently(sent_at)
        if seconds is None:
            return cls(now, 0.0, (_UNREADABLE_SENT_AT,))
        return cls(now, seconds - now, ())

    def about(self, raw: Mapping[str, Any]) -> tuple[str, ...]:
        notes = self.general
        properties = raw.get("properties", {})
        text = _distinct_id(raw)
        if is_illegal(text):
            notes += (
                "illegal distinct_id: PostHog refuses its merges; send the user's own id, or none",
            )
        if len(text) > _LONGEST_ID:
            notes += (f"distinct_id cut to {_LONGEST_ID} characters; send a shorter one",)
        if raw.get("timestamp"):
            skew = 0.0 if properties.get("$ignore_sent_at") else self.skew
            notes += time_warnings(parse_leniently(raw["timestamp"]), skew, self.now)
        personless = properties.get("$process_person_profile")
        if personless is not None:
            notes += person_warnings(raw["event"], personless)
        return notes + warnings_of(raw["event"], _stored_id(raw), properties)


def time_warnings(seconds: float | None, skew: float, now: float) -> tuple[str, ...]:
    """Return a warning for a timestamp that the server does not use (1.6)."""
    if seconds is None:
        return ("unreadable timestamp: the server takes the time of arrival; send RFC 3339",)
    if seconds - skew - now > _FUTURE:
        text = "timestamp more than 23 hours in the future: the server takes the time of arrival"
        return (f"{text}; check the clock",)
    return ()


_UNREADABLE_SENT_AT = (
    "sent_at is unreadable: clock skew is not corrected; send RFC 3339 with an offset"
)
_YEAR_2021 = 1_609_459_200.0


def person_warnings(event: str, process: Any) -> tuple[str, ...]:
    """Return a warning for an event whose ``$process_person_profile`` does not work."""
    if type(process) is not bool:
        return ("$process_person_profile is not a boolean: the server takes it for true",)
    if event in _PERSONAL and not process:
        return (
            f"{event} without person processing is dropped; leave $process_person_profile out",
        )
    return ()
