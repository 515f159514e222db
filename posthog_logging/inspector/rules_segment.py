"""
The Segment family's servers: almost everything gets a 200, and much of it is dropped later.

So the answer means little, and the findings show what would happen to each call. The vendors
share their paths and differ in limits; which one is meant shows by where the key is.
"""

from __future__ import annotations

import base64

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..events import jsonable
from ..events.message import Message
from ..wire import Request
from ..wire.segment import SEGMENT as DIALECT
from ..wire.segment import calls_in
from .rules import (
    Finding,
    Incoming,
    Judged,
    Reading,
    Refusal,
    bounded,
    canonical,
    exact_json,
    parsed,
    phrase,
    refuse_unfolded,
    unpacked,
)
from .timestamps import parse_leniently


__all__ = ["SEGMENT", "SegmentJudge"]


class _Vendor(NamedTuple):
    """A vendor's limits in bytes, of an event and of a body, and its status for more (3.2)."""

    event_bytes: int
    batch_bytes: int
    too_large: int


_SEGMENT = _Vendor(32_767, 500_000, 400)
_METAROUTER = _Vendor(15_000, 500_000, 413)
_RUDDERSTACK = _Vendor(4_096_000, 4_096_000, 413)

_MOST_CALLS = 2500
_LONGEST_ID = 100
_LARGEST = 16 * 1024 * 1024  # unpacked: the inspector's own limit
_NOTHING = type(None)

# The fields that each call must have besides a user (3.1), and the reason if one is missing.
_REQUIRED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "identify": (),
    "track": (("event", "missing_event_name"),),
    "page": (),
    "screen": (),
    "group": (("groupId", "missing_group_id"),),
    "alias": (("previousId", "missing_previous_id"), ("userId", "missing_user_id")),
}
_IDS = ("userId", "anonymousId", "previousId", "groupId")
_OBJECTS = ("properties", "traits", "context", "integrations")
_SCALARS = frozenset({str, int, float, _NOTHING})


@dataclass(frozen=True)
class SegmentJudge:
    """``POST /v1/batch``, ``/v1/import`` and the paths of the single calls."""

    dialect: str = "segment"

    def judge(self, incoming: Incoming) -> Judged:
        """Return the answer, and each call as good or bad."""
        read = Reading()
        try:
            read.plain = _plain(incoming)
            read.payload = parsed(read.plain, "invalid_json", "invalid json: ")
            read.events = _calls(read.payload, incoming.path)
            vendor = _vendor(read.payload, read.events, incoming)
            _check_size(read.plain, read.payload, vendor)
        except Refusal as refusal:
            return _refused(read, refusal)
        return _answered(read, vendor)

    def refuse(self, status: int, incoming: Incoming) -> Judged:
        """Return *status* as an object with a code and a message."""
        return _refused(Reading(), Refusal(status, f"status_{status}", phrase(status)))


SEGMENT = SegmentJudge()


def _answered(read: Reading, vendor: _Vendor) -> Judged:
    untimed = _is_batch(read.payload) and not read.payload.get("sentAt")
    general = (_NO_SENT_AT,) if untimed else ()
    crowd = "too_many_events" if len(read.events) > _MOST_CALLS else ""
    found = [
        _finding(raw, crowd or _fault(raw, vendor), general + _warnings(raw))
        for raw in read.events
    ]
    return read.answered(b'{"success":true}', found)


_NO_SENT_AT = "no sentAt beside the batch: no correction of clock skew, MetaRouter loses all times"


def _refused(read: Reading, refusal: Refusal) -> Judged:
    answer = {"success": False, "code": refusal.tag, "message": refusal.text}
    return read.refused(refusal, jsonable.encode(answer), _finding)


def _plain(incoming: Incoming) -> bytes:
    """Decompress ``gzip``, the family's only coding, which must be written like this (1.2)."""
    coding = incoming.headers.get("content-encoding", "")
    if coding not in ("", "gzip", "identity"):
        raise Refusal(400, "invalid_encoding", f"Content-Encoding: {coding[:40]}")
    return unpacked(incoming.body, coding, _LARGEST, "invalid_encoding")


def _calls(payload: Any, path: str) -> list[Any]:
    batch = payload.get("batch") if isinstance(payload, dict) else None
    if isinstance(batch, list):
        shared = {name: payload[name] for name in ("context", "integrations") if name in payload}
        refuse_unfolded(len(exact_json(shared)) * len(bounded(batch)))
    try:
        calls = calls_in(payload, path)
    except ValueError as error:
        raise Refusal(400, "invalid_request", str(error)) from error
    if not calls:
        raise Refusal(400, "empty_batch", "empty batch payload")
    return calls


def _vendor(payload: Mapping[str, Any], calls: Sequence[Any], incoming: Incoming) -> _Vendor:
    """Return the vendor that takes the key from where it is; no key is a 401."""
    if _text(payload.get("writeKey")) and _is_batch(payload):
        return _SEGMENT
    if all(isinstance(raw, dict) and _text(raw.get("writeKey")) for raw in calls):
        return _METAROUTER if _is_batch(payload) else _SEGMENT
    if _header_key(incoming) or incoming.query.get("writekey"):
        return _RUDDERSTACK
    raise Refusal(401, "no_write_key", "failed to read writekey from header")


def _header_key(incoming: Incoming) -> str:
    scheme, _, given = incoming.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() != "basic":
        return incoming.headers.get("x-write-key", "").strip()
    try:
        return base64.b64decode(given.strip(), validate=True).decode().removesuffix(":")
    except ValueError:  # no base64, or no text in it
        return ""


def _check_size(plain: bytes, payload: Mapping[str, Any], vendor: _Vendor) -> None:
    most = vendor.batch_bytes if _is_batch(payload) else vendor.event_bytes
    if len(plain) > most:
        raise Refusal(vendor.too_large, "too_large", f"body of more than {most} bytes")


def _is_batch(payload: Any) -> bool:
    return isinstance(payload, dict) and "batch" in payload


def _fault(raw: Any, vendor: _Vendor) -> str:
    """Return why a call that gets a 200 is dropped later, or "" (1.4, 3.1)."""
    if not isinstance(raw, dict):
        return "not_an_object"
    kind = raw.get("type")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        return "unknown_type"
    for name in _OBJECTS:
        if type(raw.get(name)) not in (dict, _NOTHING):
            return f"{name}_not_an_object"
    for name in _IDS:
        if type(raw.get(name)) not in _SCALARS:
            return f"{name}_not_a_string"
    for name, reason in _REQUIRED[kind]:
        if not _text(raw.get(name)):
            return reason
    if not _text(raw.get("userId")) and not _text(raw.get("anonymousId")):
        return "no_user_anon_id"
    return "event_too_large" if len(exact_json(raw)) > vendor.event_bytes else ""


def _warnings(raw: Any) -> tuple[str, ...]:
    """Return what would go wrong with a call at other vendors (1.1, 1.3, 3)."""
    if not isinstance(raw, dict):
        return ()
    found = [text for name, (is_wrong, text) in _WARNINGS.items() if is_wrong(raw.get(name))]
    odd = [name for name in _IDS if name in raw and not isinstance(raw[name], str)]
    return (*found, *(f"{name} is not a string: MetaRouter loses the whole batch" for name in odd))


def _is_not_an_id(value: Any) -> bool:
    return not 0 < len(_text(value)) <= _LONGEST_ID


def _is_unreadable_time(value: Any) -> bool:
    return value is not None and parse_leniently(_text(value)) is None


_WARNINGS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "context": (
        lambda value: not isinstance(value, dict),
        "no context: MetaRouter loses the whole batch",
    ),
    "messageId": (_is_not_an_id, "no messageId of 1 to 100 characters: duplicates are not seen"),
    "timestamp": (
        _is_unreadable_time,
        "unreadable timestamp: the server takes the time of arrival; send ISO 8601",
    ),
}


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _finding(raw: Any, reason: str = "", warnings: tuple[str, ...] = ()) -> Finding:
    """Return a call in PostHog's model, like all other events here, read as far as possible."""
    if not isinstance(raw, dict):
        return Finding("", "", "", "", {}, raw, reason, warnings)
    name = canonical(raw.get("messageId")) or _text(raw.get("messageId"))
    time = _text(raw.get("timestamp"))
    read = _read(raw)
    if read is None:
        return Finding(_text(raw.get("event")), "", name, time, {}, raw, reason, warnings)
    return Finding(
        read.event, read.distinct_id, name, time, read.properties, raw, reason, warnings
    )


def _read(raw: Mapping[str, Any]) -> Message | None:
    try:
        return DIALECT.decode(Request("", {}, jsonable.encode({"batch": [raw]})))[0]
    except ValueError:
        return None
