"""
PostHog's V0 server: the first bad event refuses the whole request, before any is stored.

Written from PostHog's ``rust/capture``: what is a type error there is one here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..events import jsonable
from .rules import (
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
    phrase,
    type_fault,
    type_name,
    unpacked,
)
from .timestamps import parse_kindly


__all__ = ["ILLEGAL_IDS", "V0", "PostHogV0", "finding", "fits_kafka", "in_the_future"]

#: Ids that PostHog never merges; ``message`` keeps its own list, so that one checks the other.
ILLEGAL_IDS = frozenset(
    """0 00000000-0000-0000-0000-000000000000 anonymous anonymous-user backend distinct_id
    distinctid email false guest id nan none not_authenticated null system true undefined
    user""".split()
) | {"[object object]"}

_PERSONAL = frozenset({"$identify", "$create_alias", "$merge_dangerously", "$groupidentify"})
_BATCH_BYTES = 20 * 1024 * 1024
_SINGLE_BYTES = 2 * 1024 * 1024
_KAFKA_BYTES = 1_000_000
_FUTURE = 23 * 3600.0
_GZIP = b"\x1f\x8b\x08"
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
    "token": _TEXT,
    "api_key": _TEXT,
    "sent_at": _TEXT,
    "historical_migration": one_of(bool, Null),
    "batch": one_of(list),
}
_KEYS = ("token", "api_key", "$token")


@dataclass(frozen=True)
class PostHogV0:
    """``POST /batch/`` and the paths that share its handler."""

    dialect: str = "posthog"

    def judge(self, asked: Asked) -> Judged:
        """Return the answer for the whole request: all good, or all bad."""
        read = Reading()
        try:
            read.plain = _plain(asked)
            read.payload = parsed(read.plain, "request_parsing_error", _UNREADABLE)
            read.events, head = _events(read.payload)
            _check(read.events, head, len(read.plain))
        except Refusal as refusal:
            return _refused(read, refusal)
        notes = _RequestNotes.of(head, asked.now)
        good = [finding(raw, warnings=notes.about(raw)) for raw in read.events]
        return read.answered(b'{"status":"Ok"}', good)

    def refuse(self, status: int, asked: Asked) -> Judged:
        """Return *status* as V0 says it: in plain text."""
        return _refused(Reading(), Refusal(status, phrase(status)))


V0 = PostHogV0()

_UNREADABLE = "failed to parse request: "


def _refused(read: Reading, refusal: Refusal) -> Judged:
    text = {"Content-Type": "text/plain; charset=utf-8"}
    return read.refused(refusal, refusal.text.encode(), finding, text)


def _plain(asked: Asked) -> bytes:
    """Unpack what begins like gzip, whatever the headers say: V0 sniffs, and knows no other."""
    limit = _BATCH_BYTES if asked.path.startswith("/batch") else _SINGLE_BYTES
    if len(asked.body) > limit:
        raise Refusal(413, "payload_too_large", f"body of more than {limit} bytes")
    packed = asked.body.startswith(_GZIP)
    plain = unpacked(asked.body, "gzip" if packed else None, limit, "request_decoding_error")
    if not plain:
        raise Refusal(400, "empty_body", "empty body")
    return plain


def _events(payload: Any) -> tuple[list[Any], Mapping[str, Any]]:
    """Return the events of a batch, an array or a single event, and what stands around them."""
    if isinstance(payload, list):
        return payload, {}
    if not isinstance(payload, dict):
        raise Refusal(400, "request_parsing_error", f"{_UNREADABLE}not an object")
    if "batch" not in payload:
        return [payload], {}
    fault = type_fault(payload, _BATCH_TYPES)
    if fault:
        raise Refusal(400, "request_parsing_error", f"{_UNREADABLE}{fault}")
    return payload["batch"], payload


def _check(events: Sequence[Any], head: Mapping[str, Any], size: int) -> None:
    """Refuse as the server does: first the types of all, then the key, then each event."""
    for index, raw in enumerate(events):
        fault = _event_fault(raw)
        if fault:
            raise Refusal(400, "request_parsing_error", f"{_UNREADABLE}{fault}", index)
    if not events:
        raise Refusal(400, "empty_batch", "request holds no event")
    _check_key(events, head)
    for index, raw in enumerate(events):
        fault = _content_fault(raw)
        if fault:
            raise Refusal(400, "invalid_event", fault, index)
        if not fits_kafka(raw, size):
            raise Refusal(413, "event_too_big", "event is too big", index)


def _event_fault(raw: Any) -> str:
    if type(raw) is not dict:
        return f"event: invalid type {type_name(raw)}"
    if "event" not in raw:
        return "event: missing"
    if raw.get("uuid") and type(raw["uuid"]) is str and canonical(raw["uuid"]) is None:
        return "uuid: not a UUID"
    return type_fault(raw, _EVENT_TYPES)


def _content_fault(raw: Mapping[str, Any]) -> str:
    if not raw["event"]:
        return "event submitted with an empty event name"
    if not _distinct_id(raw).strip():
        return "event submitted without a distinct_id"
    if type(raw.get("properties", {}).get("$cookieless_mode")) not in (bool, Null):
        return "$cookieless_mode is not a boolean"
    return ""


def _check_key(events: Sequence[Any], head: Mapping[str, Any]) -> None:
    keys = set(_keys_in([head])) or set(_keys_in(events))
    if not keys:
        raise Refusal(401, "missing_token", "API key is missing")
    if len(keys) > 1:
        raise Refusal(401, "inconsistent_tokens", "events have different API keys")
    fault = key_fault(keys.pop())
    if fault:
        raise Refusal(401, "invalid_token", fault)


def _keys_in(objects: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for raw in objects:
        for name in _KEYS:
            if raw.get(name) is not None:
                yield raw[name]
        inner = raw.get("properties", {}).get("token")
        if type(inner) is str:
            yield inner


def fits_kafka(raw: Any, size: int) -> bool:
    """
    Return whether an event fits into one message, in which its JSON is escaped once more (1.5).

    Args:
        size: the bytes of the whole request: half a message's cannot hold an event too big.
    """
    if 2 * size <= _KAFKA_BYTES:
        return True
    line = jsonable.encode(raw)
    return len(line) + line.count(b'"') + line.count(b"\\") <= _KAFKA_BYTES


def _distinct_id(raw: Mapping[str, Any]) -> str:
    """Return the id at the root, else the one in the properties; what is no text becomes one."""
    for name in ("distinct_id", "$distinct_id"):
        if raw.get(name) is not None:
            return _text(raw[name])
    properties = raw.get("properties")
    return _text(properties.get("distinct_id")) if isinstance(properties, dict) else ""


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    return "" if value is None else jsonable.encode(value).decode()


def finding(raw: Any, reason: str = "", warnings: tuple[str, ...] = ()) -> Finding:
    """Read what can be read, also of an event that was refused."""
    if not isinstance(raw, dict):
        return Finding("", "", "", "", {}, raw, reason, warnings)
    properties = raw.get("properties")
    return Finding(
        _text(raw.get("event")),
        _distinct_id(raw),
        canonical(raw.get("uuid")) or _text(raw.get("uuid")),
        _text(raw.get("timestamp")),
        properties if isinstance(properties, dict) else {},
        raw,
        reason,
        warnings,
    )


@dataclass(frozen=True)
class _RequestNotes:
    """What is noteworthy about good events: the clock's skew, and what is the request's fault."""

    now: float
    skew: float
    general: tuple[str, ...]

    @classmethod
    def of(cls, head: Mapping[str, Any], now: float) -> _RequestNotes:
        sent_at = head.get("sent_at")
        if sent_at is None:
            return cls(now, 0.0, ())
        moment = parse_kindly(sent_at)
        if moment is None:
            return cls(now, 0.0, ("sent_at is unreadable: no correction of clock skew",))
        return cls(now, moment - now, ())

    def about(self, raw: Mapping[str, Any]) -> tuple[str, ...]:
        notes = self.general
        properties = raw.get("properties", {})
        text = _distinct_id(raw)
        if text.strip().lower() in ILLEGAL_IDS:
            notes += ("illegal distinct_id: its merges are refused",)
        if len(text) > 200:
            notes += ("distinct_id cut to 200 characters",)
        if raw.get("timestamp"):
            skew = 0.0 if properties.get("$ignore_sent_at") else self.skew
            notes += in_the_future(parse_kindly(raw["timestamp"]), skew, self.now)
        personless = properties.get("$process_person_profile")
        if personless is not None:
            notes += _about_person(raw["event"], personless)
        return notes


def in_the_future(moment: float | None, skew: float, now: float) -> tuple[str, ...]:
    """Return what the server makes of a timestamp that it does not believe (1.6)."""
    if moment is None:
        return ("unreadable timestamp: the server takes its own",)
    if moment - skew - now > _FUTURE:
        return ("timestamp more than 23 hours in the future: the server takes its own",)
    return ()


def _about_person(event: str, process: Any) -> tuple[str, ...]:
    if type(process) is not bool:
        return ("$process_person_profile is not a boolean: taken as true",)
    if event in _PERSONAL and not process:
        return (f"{event} without person processing is dropped",)
    return ()
