"""
PostHog Logs: ``POST /i/v1/logs``, a log record as OTLP's JSON (wire notes, 4).

A message's ``event`` is the record's body, its properties are the attributes. OTLP has no
place for a uuid, so the first attribute of every line is OpenTelemetry's ``log.record.uid``.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
import platform

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from ..events import jsonable
from ..events.levels import LEVELS, level_at, number_of
from ..events.message import Message, Refused
from ..version import LIBRARY, VERSION
from .answers import doubt, object_in
from .compression import compress, decompress
from .dialect import Batch, Endpoint, Limits, Request, Response, Results, Rules
from .posthog import V0


__all__ = ["LOGS", "LogsDialect"]

# The server takes 2 MB; the distance to it is for the envelope with the resource.
_LIMITS = Limits(event_bytes=1_900_000, batch_bytes=1_950_000, batch_count=1000)

_UID = "log.record.uid"
_HEAD = b'{"attributes":[{"key":"log.record.uid","value":{"stringValue":"'
_UUID = slice(len(_HEAD), len(_HEAD) + 36)
_USER_AGENT = f"{LIBRARY}/{VERSION}"

_ENVELOPE = (
    b'{"resourceLogs":[{"resource":{"attributes":%b},'
    b'"scopeLogs":[{"scope":%b,"logRecords":[%b]}]}]}'
)

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SECOND = 1_000_000_000
_INT64 = range(-(2**63), 2**63)

_INFO = 20  # what is unknown, or not set

#: What of a message's properties has a name of its own among the attributes.
_CONTEXT = {"$session_id": "sessionId", "$active_feature_flags": "feature_flags"}
_ID_LENGTHS = {"$trace_id": ("traceId", 32), "$span_id": ("spanId", 16)}
# Fields of the record, and what steers PostHog's event server and says nothing of a record.
_NO_ATTRIBUTES = frozenset(
    """$severity $trace_id $span_id $trace_flags $is_server $geoip_disable
    $process_person_profile $lib $lib_version""".split()
) | {*_CONTEXT, _UID}

# How much of a record is kept, in values and characters, where all of it does not fit.
# One level of a caller's is four of OTLP's, and `jsonable` writes 32 at most.
_ATTRIBUTES = jsonable.Limits(depth=6, items=2000, values=10_000)
_CUTS = (None, jsonable.Limits(items=1000, text=100_000), jsonable.Limits(items=64, text=4000))


class _Rising:
    """
    Make equal times differ, by nanoseconds: records keep their order (4.1).

    No lock, as it runs on the caller's thread: ``setdefault`` and ``next`` are atomic.
    """

    def __init__(self) -> None:
        self._latest = 0
        self._bumps: dict[int, Iterator[int]] = {}

    def __call__(self, nanos: int) -> int:
        """Return *nanos*, raised above all before it; an old time that was given stays."""
        if nanos > self._latest:
            self._latest = nanos
        elif nanos > self._latest - _SECOND:
            nanos = self._latest
        if len(self._bumps) > 1000:
            self._bumps = {}
        return nanos + next(self._bumps.setdefault(nanos, itertools.count()))


@dataclass(frozen=True)
class LogsDialect:
    """
    The dialect of PostHog Logs, and what the program that logs is called there.

    Args:
        token_in_url: whether the key is in the query too, as the specification has it. The
            server prefers the header, and a URL ends up in access logs, and in what urllib3
            logs at DEBUG.
    """

    name: str = "posthog-logs"
    service_name: str = "unknown_service"
    service_version: str | None = None
    environment: str | None = None
    resource_attributes: Mapping[str, Any] = field(default_factory=dict)
    token_in_url: bool = False
    default_host: str = V0.default_host
    limits: Limits = _LIMITS
    # A project over its quota is asked to come back in 15 minutes (4.2).
    rules: Rules = Rules(free_throttle=True)
    codings: frozenset[str] = frozenset({"gzip"})
    _rising: _Rising = field(default_factory=_Rising, repr=False, compare=False)

    def ingestion_host(self, host: str, api_key: str) -> str:
        """Return the host that takes records: the one that takes events."""
        return V0.ingestion_host(host, api_key)

    def line(self, message: Message) -> bytes:
        """Return *message* as one log record, its uuid first."""
        if not message.event.strip():
            raise Refused("blank_log")
        nanos = str(self._rising(_nanos(message.timestamp)))
        size = 0
        for limits in _CUTS:
            line = _record(message, nanos, limits)
            if len(line) <= self.limits.event_bytes:
                return line
            size = size or len(line)
        raise Refused("oversized", f"a log record of {size} bytes")

    def uuid_of(self, line: bytes) -> str:
        """Return the record's uuid: it always stands first."""
        return line[_UUID].decode()

    def with_uuid(self, line: bytes, uuid: str) -> bytes:
        """Return *line* with another uuid."""
        return line[: _UUID.start] + uuid.encode() + line[_UUID.stop :]

    def request(self, batch: Batch, endpoint: Endpoint, now: str) -> Request:
        """Return one attempt's POST: one resource, one scope, all records."""
        body = _ENVELOPE % (
            jsonable.encode(_attributes(self._resource())),
            jsonable.encode({"name": LIBRARY, "version": VERSION}),
            b",".join(batch.lines),
        )
        packed, coding = compress(body, endpoint.compression)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": _USER_AGENT,
            "Authorization": f"Bearer {endpoint.api_key}",
        }
        if coding:
            headers["Content-Encoding"] = coding
        token = f"?token={quote(endpoint.api_key, safe='')}" if self.token_in_url else ""
        url = f"{endpoint.host}/i/v1/logs{token}"
        return Request(url, {**headers, **endpoint.headers}, packed)

    def _resource(self) -> dict[str, Any]:
        """Return what describes the program, once a request; its identity always wins."""
        return {
            "os.name": platform.system(),
            "os.version": platform.release(),
            **self.resource_attributes,
            "service.name": self.service_name,
            **({"service.version": self.service_version} if self.service_version else {}),
            **({"deployment.environment": self.environment} if self.environment else {}),
            "telemetry.sdk.name": LIBRARY,
            "telemetry.sdk.version": VERSION,
        }

    def results(self, response: Response) -> Results:
        """Return how many records were refused; OTLP says that they must not be sent again."""
        answer = object_in(response)
        if doubted := doubt(response, answer):
            return Results(kept=doubted)
        partial = answer.get("partialSuccess")
        number = partial.get("rejectedLogRecords") if isinstance(partial, dict) else None
        digits = str(number)  # int64 is text in OTLP's JSON
        if not digits.isdecimal() or len(digits) > 18 or not int(digits):
            return Results()
        return Results(notes={"rejected by the service": int(digits)})

    def decode(self, request: Request) -> list[Message]:
        """Return the messages in a request; raises ``ValueError`` for what is not one."""
        coding = {k.lower(): v for k, v in request.headers.items()}.get("content-encoding")
        body = jsonable.decode(decompress(request.body, coding))
        return [
            _decoded(record)
            for resource in _listed(body, "resourceLogs")
            for scope in _listed(resource, "scopeLogs")
            for record in _listed(scope, "logRecords")
        ]


def _record(message: Message, nanos: str, limits: jsonable.Limits | None) -> bytes:
    """Return *message* as OTLP's log record, cut to *limits* where there are any."""
    properties = message.properties
    body: Any = message.event
    if limits is not None:
        properties = jsonable.jsonable(properties, limits)
        body = jsonable.jsonable(body, limits)
    said = {_UID: message.uuid, **_said(message.distinct_id, properties)}
    record = _fields(body, properties, nanos)
    simple = _simple_attributes(said) if type(body) is str else None
    if simple is not None:
        line = jsonable.snapshot({"attributes": simple, **record})
        if len(line) <= _SHORT and b"\\u0000" not in line:
            return line
    # One by one: few brackets are what `jsonable` writes without a second look.
    pairs = b",".join(map(jsonable.encode, _attributes(said)))
    return b'{"attributes":[%b],%b' % (pairs, jsonable.encode(record)[1:])


def _fields(body: Any, properties: Mapping[str, Any], nanos: str) -> dict[str, Any]:
    """Return what a log record has beside its attributes."""
    number, name = _severity(properties.get("$severity"))
    record: dict[str, Any] = {
        "timeUnixNano": nanos,
        "observedTimeUnixNano": nanos,
        "severityNumber": number,
        "severityText": name,
        "body": {"stringValue": body},
    }
    for key, (place, length) in _ID_LENGTHS.items():
        given = properties.get(key)
        if isinstance(given, str) and _is_hex(given, length):
            record[place] = given.lower()
    flags = properties.get("$trace_flags")
    if isinstance(flags, int):
        record["flags"] = int(flags)
    return record


def _said(distinct_id: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes: the context's under their names, then the caller's, which win."""
    context: dict[str, Any] = {"posthogDistinctId": distinct_id}
    context.update({name: properties.get(key) for key, name in _CONTEXT.items()})
    return {
        **{name: value for name, value in context.items() if value not in (None, "", [])},
        **{key: value for key, value in properties.items() if key not in _NO_ATTRIBUTES},
    }


def _severity(level: Any) -> tuple[int, str]:
    """Return OTLP's number and name for a level's number or name; unknown is INFO."""
    if isinstance(level, str):
        level = number_of(level)
    found = level_at(level if isinstance(level, int) and level > 0 else _INFO)
    return found.severity, found.text


def _level(number: Any) -> int:
    """Return Python's level for OTLP's number, of which each level has four."""
    return next(
        (one.number for one in LEVELS if isinstance(number, int) and number >= one.severity),
        _INFO,
    )


def _is_hex(text: str, length: int) -> bool:
    digits = frozenset("0123456789abcdefABCDEF")
    return len(text) == length and digits.issuperset(text) and text.strip("0") != ""


def _nanos(timestamp: str) -> int:
    """Return RFC 3339 in UTC as nanoseconds since 1970, exactly; never below zero."""
    moment = dt.datetime.fromisoformat(timestamp)
    return max((moment - _EPOCH) // dt.timedelta(microseconds=1), 0) * 1000


def _timestamp(nanos: Any) -> str:
    moment = _EPOCH + dt.timedelta(microseconds=int(nanos) // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a mapping as OTLP's list of keys and values; what is None has no place in it."""
    plain = jsonable.jsonable(_named(values, {}, 0), _ATTRIBUTES)
    return [
        {"key": key, "value": _any_value(value)}
        for key, value in plain.items()
        if value is not None
    ]


def _simple_attributes(values: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return OTLP's list at once where all values are plain; None where one needs a look."""
    found = []
    for key, value in values.items():
        kind = _SIMPLE.get(type(value))
        if kind is None or type(key) is not str:
            if value is None:
                continue
            return None
        if kind == "intValue":
            if value not in _INT64:
                return None
            value = str(value)
        elif kind == "doubleValue" and not math.isfinite(value):
            return None
        found.append({"key": key, "value": {kind: value}})
    return found if len(found) <= _ATTRIBUTES.items else None


_SIMPLE: Mapping[type, str] = {
    str: "stringValue",
    bool: "boolValue",
    int: "intValue",
    float: "doubleValue",
}
_SHORT = 64 * 1024  # bytes: what no limit cuts anything of


def _named(value: Any, seen: dict[int, Any], depth: int) -> Any:
    """Return *value* with NaN and the infinities as the texts that OTLP has for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if type(value) not in (dict, list, tuple) or depth > _ATTRIBUTES.depth:
        return value
    if id(value) not in seen:
        seen[id(value)] = value  # in a cycle it stays itself: `jsonable` says that it is one
        if isinstance(value, dict):
            found: Any = {k: _named(inner, seen, depth + 1) for k, inner in value.items()}
        else:
            found = [_named(inner, seen, depth + 1) for inner in value]
        seen[id(value)] = found
    return seen[id(value)]


def _any_value(value: Any) -> dict[str, Any]:
    """Return JSON's *value* as OTLP's AnyValue."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue" if value in _INT64 else "stringValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, dict):
        inside = [
            {"key": key, "value": _any_value(inner)}
            for key, inner in value.items()
            if inner is not None
        ]
        return {"kvlistValue": {"values": inside}}
    if isinstance(value, list):
        # A null among the values holds its place: an AnyValue without a value is null in OTLP.
        return {"arrayValue": {"values": [{} if v is None else _any_value(v) for v in value]}}
    return {"stringValue": str(value)}


def _decoded(record: Mapping[str, Any]) -> Message:
    """Return one log record as a message."""
    properties = _pairs(record.get("attributes") or [])
    uid = properties.pop(_UID, "")
    distinct_id = properties.pop("posthogDistinctId", "")
    for key, name in _CONTEXT.items():
        if name in properties:
            properties[key] = properties.pop(name)
    properties["$severity"] = _level(record.get("severityNumber"))
    for key, (place, _) in _ID_LENGTHS.items():
        if record.get(place):
            properties[key] = record[place]
    if record.get("flags") is not None:
        properties["$trace_flags"] = record["flags"]
    body = _plain(record.get("body") or {})
    text = body if isinstance(body, str) else jsonable.encode(body).decode()
    try:
        timestamp = _timestamp(record.get("timeUnixNano", 0))
    except (TypeError, OverflowError) as error:
        raise ValueError("timeUnixNano: nanoseconds since 1970, as a string") from error
    return Message(text, str(distinct_id), properties, str(uid), timestamp)


def _listed(holder: Any, name: str) -> list[Mapping[str, Any]]:
    found = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError(f"{name}: a list of objects")
    return found


def _pairs(values: Any) -> dict[str, Any]:
    found = _listed({"attributes": values}, "attributes")
    return {str(pair.get("key", "")): _plain(pair.get("value")) for pair in found}


def _plain(value: Any) -> Any:
    """Return what an AnyValue says; raises ``ValueError`` for an invalid one."""
    if not isinstance(value, dict) or len(value) > 1:
        raise ValueError("a value is an object with one of OTLP's kinds of value")
    for kind, said in value.items():
        if kind == "intValue" and isinstance(said, (str, int)):
            return int(said)
        if kind in ("arrayValue", "kvlistValue") and isinstance(said, dict):
            inside = said.get("values") or []
            return _pairs(inside) if kind == "kvlistValue" else [_plain(one) for one in inside]
        if isinstance(said, _SCALARS.get(kind, ())):
            return said
        raise ValueError(f"{kind}: not a value of OTLP's")
    return None


_SCALARS: Mapping[str, type | tuple[type, ...]] = {
    "stringValue": str,
    "boolValue": bool,
    "doubleValue": (int, float),
    "bytesValue": str,
}

LOGS = LogsDialect()
