"""
PostHog's Logs server, for OTLP's JSON: one bad record refuses the request (wire notes, 4.2).

Records are read by the dialect of logs: one that it cannot read is bad.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..events import jsonable
from ..events.message import Message
from ..wire import Request
from ..wire.otlp import LOGS as DIALECT
from .rules import (
    JSON,
    Finding,
    Incoming,
    Judged,
    Reading,
    Refusal,
    Types,
    bounded,
    exact_json,
    key_fault,
    one_of,
    parsed,
    parsed_lines,
    phrase,
    refuse_unfolded,
    type_fault,
    unpacked,
)
from .timestamps import parse_strictly


__all__ = ["LOGS", "LogsJudge"]

_MOST_BYTES = 2 * 1024 * 1024
_FARTHEST = 24 * 3600.0
_GZIP = b"\x1f\x8b\x08"
_ID_LENGTHS = {"traceId": 32, "spanId": 16}

# The types of a record's fields in OTLP; the dialect checks attributes and body.
_TYPES: Mapping[str, Types] = {
    "timeUnixNano": one_of(str, int),
    "observedTimeUnixNano": one_of(str, int),
    "severityNumber": one_of(int),
    "severityText": one_of(str),
    "traceId": one_of(str),
    "spanId": one_of(str),
    "flags": one_of(int),
}


@dataclass(frozen=True)
class LogsJudge:
    """``POST /i/v1/logs``."""

    dialect: str = "posthog-logs"

    def judge(self, incoming: Incoming) -> Judged:
        """Return the answer for the whole request: all good, or all bad."""
        read = Reading()
        try:
            _check_key(incoming)
            read.plain = _plain(incoming.body)
            read.payload = _payload(read.plain)
            read.events = _records(read.payload)
            messages = [_message(one, index) for index, one in enumerate(read.events)]
        except Refusal as refusal:
            return _refused(read, refusal)
        found = [
            _finding(raw, message, _warnings(raw, message, incoming.now))
            for raw, message in zip(read.events, messages, strict=True)
        ]
        return read.answered(b"{}", found)

    def refuse(self, status: int, incoming: Incoming) -> Judged:
        """Return *status* as an object with an error."""
        return _refused(Reading(), Refusal(status, f"status_{status}", phrase(status)))


LOGS = LogsJudge()


def _refused(read: Reading, refusal: Refusal) -> Judged:
    return read.refused(refusal, jsonable.encode({"error": refusal.text}), _bad, JSON)


def _check_key(incoming: Incoming) -> None:
    """Check the key in the header or, without that header, in the query (4.1)."""
    given = incoming.headers.get("authorization")
    key = incoming.query.get("token", "") if given is None else given.rpartition("Bearer ")[2]
    fault = key_fault(key)
    if fault:
        raise Refusal(401, "invalid_token", fault)


def _plain(body: bytes) -> bytes:
    """Decompress a body that begins like gzip, whatever its headers declare."""
    if len(body) > _MOST_BYTES:
        raise Refusal(413, "payload_too_large", f"body of more than {_MOST_BYTES} bytes")
    coding = "gzip" if body.startswith(_GZIP) else None
    return unpacked(body, coding, _MOST_BYTES, "request_decoding_error")


def _payload(plain: bytes) -> Any:
    """Return the request in a body; those of JSON Lines are merged into one."""
    try:
        return parsed(plain, "invalid_json", _UNREADABLE)
    except Refusal:
        if b"\n" not in plain.strip():
            raise
    requests = parsed_lines(plain, "invalid_json", _UNREADABLE)
    merged = [resource for one in requests for resource in _members(one, "resourceLogs")]
    return {"resourceLogs": merged}


_UNREADABLE = "failed to decode: "


def _records(payload: Any) -> list[Any]:
    """Return each record as a request of its own, with its resource and scope."""
    found: list[tuple[Any, Any, list[Any]]] = []
    size = 0
    for resource in bounded(_members(payload, "resourceLogs")):
        scopes = bounded(_members(resource, "scopeLogs"))
        around = _size_without(resource, "scopeLogs")
        for scope in scopes:
            records = _members(scope, "logRecords")
            size += len(records) * (around + _size_without(scope, "logRecords"))
            found.append((resource, scope, records))
    bounded([record for _, _, records in found for record in records])
    refuse_unfolded(size)
    return [
        {"resourceLogs": [{**resource, "scopeLogs": [{**scope, "logRecords": [record]}]}]}
        for resource, scope, records in found
        for record in records
    ]


def _size_without(holder: Any, name: str) -> int:
    rest = {key: value for key, value in holder.items() if key != name}
    return len(exact_json(rest))


def _members(holder: Any, name: str) -> list[Any]:
    if type(holder) is not dict or type(holder.get(name, [])) is not list:
        raise Refusal(400, "invalid_request", f"{name}: a list of objects")
    members: list[Any] = holder.get(name, [])
    return members


def _record(raw: Any) -> Any:
    return raw["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]


def _message(raw: Any, index: int) -> Message:
    record = _record(raw)
    fault = type_fault(record, _TYPES) if type(record) is dict else "a record is an object"
    if fault:
        raise Refusal(400, "invalid_record", fault, index)
    # Without its resource, which may be large, and is not in a message.
    alone = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    try:
        return DIALECT.decode(Request("", {}, jsonable.encode(alone)))[0]
    except ValueError as error:
        raise Refusal(400, "invalid_record", str(error), index) from error


def _warnings(raw: Any, message: Message, now: float) -> tuple[str, ...]:
    """Return what the server changes in a record that it accepts (4.1)."""
    record = _record(raw)
    warnings = tuple(
        f"{name} is not {length} hexadecimal digits: the server drops it"
        for name, length in _ID_LENGTHS.items()
        if record.get(name) and len(record[name]) != length
    )
    seconds = parse_strictly(message.timestamp)
    if seconds is None or abs(seconds - now) > _FARTHEST:
        warnings += (
            "more than 24 hours from now: the server takes the time of arrival; check the clock",
        )
    return warnings


def _finding(raw: Any, message: Message, warnings: tuple[str, ...]) -> Finding:
    return Finding(
        message.event,
        message.distinct_id,
        message.uuid,
        message.timestamp,
        message.properties,
        raw,
        warnings=warnings,
    )


def _bad(raw: Any, reason: str) -> Finding:
    """Return a refused record, read as far as possible."""
    try:
        return _finding(raw, _message(raw, 0), ())._replace(reason=reason)
    except Refusal:
        return Finding("", "", "", "", {}, raw, reason)
