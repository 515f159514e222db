"""
PostHog Logs: ``POST /i/v1/logs``, log records in OTLP's JSON encoding (wire notes, 4).

A message's ``event`` is the body of the log record, and its properties are the attributes. OTLP
has no field for a uuid, so each line begins with the attribute ``log.record.uid``, which is
OpenTelemetry's name for it.
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
from .bodies import json_of, json_request
from .dialect import Batch, Endpoint, Limits, Request, Response, Results, Rules
from .posthog import V0


__all__ = ["LOGS", "LogsDialect"]

# The server takes 2 MB; the rest is for the envelope with the resource.
_LIMITS = Limits(event_bytes=1_900_000, batch_bytes=1_950_000, batch_count=1000)

_UID = "log.record.uid"
_HEAD = b'{"attributes":[{"key":"log.record.uid","value":{"stringValue":"'
_UUID = slice(len(_HEAD), len(_HEAD) + 36)

_ENVELOPE = (
    b'{"resourceLogs":[{"resource":{"attributes":%b},'
    b'"scopeLogs":[{"scope":%b,"logRecords":[%b]}]}]}'
)

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SECOND = 1_000_000_000
_INT64 = range(-(2**63), 2**63)

_INFO = 20  # the level if none is given, or an unknown one

#: OTLP attribute names for some of a message's properties.
_CONTEXT = {"$session_id": "sessionId", "$active_feature_flags": "feature_flags"}
_ID_LENGTHS = {"$trace_id": ("traceId", 32), "$span_id": ("spanId", 16)}
# Properties that are fields of the log record, or only mean something to PostHog's event server.
_NOT_ATTRIBUTES = frozenset(
    """$severity $trace_id $span_id $trace_flags $is_server $geoip_disable
    $process_person_profile $lib $lib_version""".split()
) | {*_CONTEXT, _UID}

# How much of a record is kept if it is too large: tried in order until the line fits. One level
# of nesting becomes four in OTLP, and `jsonable` writes at most 32.
_ATTRIBUTES = jsonable.Limits(depth=6, items=2000, values=10_000)
_CUTS = (None, jsonable.Limits(items=1000, text=100_000), jsonable.Limits(items=64, text=4000))


class _UniqueTimes:
    """
    Make equal times differ by nanoseconds, so that PostHog keeps the order of records (4.1).

    Lock-free, as it runs in the thread that logs: ``setdefault`` and ``next`` are atomic.
    """

    def __init__(self) -> None:
        self._latest = 0
        self._bumps: dict[int, Iterator[int]] = {}

    def __call__(self, nanos: int) -> int:
        """
        Return *nanos*, raised above every time returned before.

        A time more than a second before the latest was set explicitly, and is only made unique.
        """
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
    The dialect of PostHog Logs.

    ``service_name``, ``service_version``, ``environment`` and ``resource_attributes`` describe
    the program that logs, and become OTLP's resource.

    Args:
        token_in_url: send the key in the query, too, as PostHog's specification shows it.
            Default False: the server prefers the header, and URLs end up in access logs and in
            urllib3's DEBUG logs.
    """

    name: str = "posthog-logs"
    service_name: str = "unknown_service"
    service_version: str | None = None
    environment: str | None = None
    resource_attributes: Mapping[str, Any] = field(default_factory=dict)
    token_in_url: bool = False
    default_host: str = V0.default_host
    limits: Limits = _LIMITS
    # Over its quota, a project is asked to retry after 15 minutes (4.2).
    rules: Rules = Rules(free_throttle=True)
    codings: frozenset[str] = frozenset({"gzip"})
    _unique: _UniqueTimes = field(default_factory=_UniqueTimes, repr=False, compare=False)

    def ingestion_host(self, host: str, api_key: str) -> str:
        """Return the ingestion host for *host*, as for events."""
        return V0.ingestion_host(host, api_key)

    def line(self, message: Message) -> bytes:
        """Return *message* as one log record, with the uuid first."""
        if not message.event.strip():
            raise Refused("blank_log")
        nanos = str(self._unique(_nanos(message.timestamp)))
        size = 0
        for limits in _CUTS:
            line = _record(message, nanos, limits)
            if len(line) <= self.limits.event_bytes:
                return line
            size = size or len(line)
        raise Refused("oversized", f"a log record of {size} bytes")

    def uuid_of(self, line: bytes) -> str:
        """Return the record's uuid, which is always the first attribute."""
        return line[_UUID].decode()

    def request(self, batch: Batch, endpoint: Endpoint, now: str) -> Request:
        """Return the POST request: one resource with one scope that holds all records."""
        body = _ENVELOPE % (
            jsonable.encode(_attributes(self._resource())),
            jsonable.encode({"name": LIBRARY, "version": VERSION}),
            b",".join(batch.lines),
        )
        headers = {"Authorization": f"Bearer {endpoint.api_key}"}
        token = f"?token={quote(endpoint.api_key, safe='')}" if self.token_in_url else ""
        url = f"{endpoint.host}/i/v1/logs{token}"
        return json_request(url, body, headers, endpoint, endpoint.compression)

    def _resource(self) -> dict[str, Any]:
        """Return the attributes of the program; *resource_attributes* cannot change its name."""
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
        """Return how many records were rejected; OTLP forbids sending those again."""
        answer = object_in(response)
        if doubted := doubt(response, answer):
            return Results(kept=doubted)
        partial = answer.get("partialSuccess")
        number = partial.get("rejectedLogRecords") if isinstance(partial, dict) else None
        digits = str(number)  # int64 is text in OTLP's JSON
        if not digits.isdecimal() or len(digits) > 18 or not int(digits):
            return Results()
        return Results(unnamed=int(digits))

    def decode(self, request: Request) -> list[Message]:
        """Return the messages in *request*; raises ``ValueError`` if it is not OTLP."""
        body = json_of(request)
        return [
            _decoded(record)
            for resource in _listed(body, "resourceLogs")
            for scope in _listed(resource, "scopeLogs")
            for record in _listed(scope, "logRecords")
        ]


def _record(message: Message, nanos: str, limits: jsonable.Limits | None) -> bytes:
    """Return *message* as an OTLP log record, cut to *limits* unless they are None."""
    properties = message.properties
    body: Any = message.event
    if limits is not None:
        properties = jsonable.jsonable(properties, limits)
        body = jsonable.jsonable(body, limits)
    values = {_UID: message.uuid, **_values(message.distinct_id, properties)}
    record = _fields(body, properties, nanos)
    simple = _simple_attributes(values) if type(body) is str else None
    if simple is not None:
        line = jsonable.snapshot({"attributes": simple, **record})
        if len(line) <= _SHORT and b"\\u0000" not in line:
            return line
    # Encoded one by one: `jsonable.encode` is fast for values with few brackets.
    pairs = b",".join(map(jsonable.encode, _attributes(values)))
    return b'{"attributes":[%b],%b' % (pairs, jsonable.encode(record)[1:])


def _fields(body: Any, properties: Mapping[str, Any], nanos: str) -> dict[str, Any]:
    """Return the fields of a log record other than its attributes."""
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


def _values(distinct_id: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes by name; the caller's *properties* win over the context's."""
    context: dict[str, Any] = {"posthogDistinctId": distinct_id}
    context.update({name: properties.get(key) for key, name in _CONTEXT.items()})
    return {
        **{name: value for name, value in context.items() if value not in (None, "", [])},
        **{key: value for key, value in properties.items() if key not in _NOT_ATTRIBUTES},
    }


def _severity(level: Any) -> tuple[int, str]:
    """Return OTLP's number and name for a level's number or name; INFO if it is unknown."""
    if isinstance(level, str):
        level = number_of(level)
    found = level_at(level if isinstance(level, int) and level > 0 else _INFO)
    return found.severity, found.text


def _level(number: Any) -> int:
    """Return `logging`'s level for OTLP's severity number; each level has four of them."""
    return next(
        (level.number for level in LEVELS if isinstance(number, int) and number >= level.severity),
        _INFO,
    )


def _is_hex(text: str, length: int) -> bool:
    digits = frozenset("0123456789abcdefABCDEF")
    return len(text) == length and digits.issuperset(text) and text.strip("0") != ""


def _nanos(timestamp: str) -> int:
    """Return an RFC 3339 time as nanoseconds since 1970, exactly; 0 for earlier times."""
    time = dt.datetime.fromisoformat(timestamp)
    return max((time - _EPOCH) // dt.timedelta(microseconds=1), 0) * 1000


def _timestamp(nanos: Any) -> str:
    time = _EPOCH + dt.timedelta(microseconds=int(nanos) // 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a mapping as OTLP's list of keys and values, without those that are None."""
    plain = jsonable.jsonable(_named(values, {}, 0), _ATTRIBUTES)
    return [
        {"key": key, "value": _any_value(value)}
        for key, value in plain.items()
        if value is not None
    ]


def _simple_attributes(values: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return OTLP's list if every value is of a simple type; else None. The fast path."""
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
_SHORT = 64 * 1024  # bytes; a shorter line is within every limit


def _named(value: Any, seen: dict[int, Any], depth: int) -> Any:
    """Return *value* with NaN and the infinities as OTLP's texts for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if type(value) not in (dict, list, tuple) or depth > _ATTRIBUTES.depth:
        return value
    if id(value) not in seen:
        seen[id(value)] = value  # a cycle stays one, for `jsonable` to cut
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
        # Null keeps its place in the list: an empty AnyValue is null in OTLP.
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
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ValueError(f"{name}: a list of objects")
    return found


def _pairs(values: Any) -> dict[str, Any]:
    found = _listed({"attributes": values}, "attributes")
    return {str(pair.get("key", "")): _plain(pair.get("value")) for pair in found}


def _plain(value: Any) -> Any:
    """Return the Python value of an AnyValue; raises ``ValueError`` for an invalid one."""
    if not isinstance(value, dict) or len(value) > 1:
        raise ValueError("a value is an object with one of OTLP's kinds of value")
    for kind, inner in value.items():
        if kind == "intValue" and isinstance(inner, (str, int)):
            return int(inner)
        if kind in ("arrayValue", "kvlistValue") and isinstance(inner, dict):
            given = inner.get("values")
            values = [] if given is None else _listed(inner, "values")
            return _pairs(values) if kind == "kvlistValue" else [_plain(each) for each in values]
        if isinstance(inner, _SCALARS.get(kind, ())):
            return inner
        raise ValueError(f"{kind}: not a value of OTLP's")
    return None


_SCALARS: Mapping[str, type | tuple[type, ...]] = {
    "stringValue": str,
    "boolValue": bool,
    "doubleValue": (int, float),
    "bytesValue": str,
}

LOGS = LogsDialect()
