"""
How servers judge requests: the seam, its routes, and what all families of servers share.

A `Judge` is pure: from a request it makes the answer, the good events, and the bad ones with a
reason. A family is added by one module with a judge, and its lines in `ROUTES`.

A judge bounds a body *before* it parses it or makes objects of its events: its bytes, values and
nesting, and the number of its events. Anything may be posted here.
"""

from __future__ import annotations

import json
import re
import sys
import uuid

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from importlib import import_module
from io import BytesIO
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from ..events import jsonable
from ..wire.compression import decompress
from .answers import Answer, Verdicts


__all__ = [
    "JSON",
    "MOST_EVENTS",
    "ROUTES",
    "Finding",
    "Incoming",
    "Judge",
    "Judged",
    "Null",
    "Reading",
    "Refusal",
    "Types",
    "bounded",
    "canonical",
    "decide",
    "exact_json",
    "find_judge",
    "key_fault",
    "one_of",
    "parsed",
    "parsed_lines",
    "phrase",
    "refuse_unfolded",
    "strict_json",
    "type_fault",
    "type_name",
    "unpacked",
]

#: The most events that one request may hold; a batch of 20 MiB has some 40,000.
MOST_EVENTS = 50_000

# The most values in a body, and the most bytes of its shared parts once each event has a copy.
_MOST_VALUES = 2_000_000
_MOST_UNFOLDED = 64 * 1024 * 1024


class Incoming(NamedTuple):
    """One HTTP request to an ingestion path."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    now: float  # epoch seconds
    verdicts: Verdicts | None = None


class Finding(NamedTuple):
    """One event as the server reads it; an empty reason means that it is good."""

    event: str
    distinct_id: str
    uuid: str
    timestamp: str
    properties: Mapping[str, Any]
    raw: Any
    reason: str = ""
    warnings: tuple[str, ...] = ()


#: The headers of a JSON answer.
JSON: Mapping[str, str] = MappingProxyType({"Content-Type": "application/json"})


@dataclass(frozen=True)
class Judged:
    """
    The result of judging a request: the answer, and what the server stores.

    ``uuids`` has every event of the request, also those that are not stored.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    good: Sequence[Finding] = ()
    bad: Sequence[Finding] = ()
    uuids: Sequence[str] = ()
    payload: Any = None
    size: int = 0  # bytes of the body, unpacked
    weight: int = 0  # bytes that the payload takes in memory, estimated
    error: str = ""


class Judge(Protocol):
    """The server's side of one protocol."""

    @property
    def dialect(self) -> str:
        """The dialect's name, as in `posthog_logging.wire.DIALECTS`."""

    def judge(self, incoming: Incoming) -> Judged:
        """Return what the real server would do with *incoming*."""

    def refuse(self, status: int, incoming: Incoming) -> Judged:
        """Return the protocol's answer with a *status* that the script demands."""


_SEGMENT_PATHS = """/v1/batch /v1/import /sdk/batch /b /v1/b /v1/batch/b /api/s/s2s/batch
    /v1/identify /v1/track /v1/page /v1/screen /v1/group /v1/alias
    /v1/i /v1/t /v1/p /v1/g /v1/a""".split()

_SEGMENT = (".rules_segment", "SEGMENT")

#: The module and name of each path's judge; a slash at the end of a path makes no difference.
ROUTES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "/batch": (".rules_posthog", "V0"),
        "/capture": (".rules_posthog", "V0"),
        "/e": (".rules_posthog", "V0"),
        "/engage": (".rules_posthog", "V0"),
        "/i/v0/e": (".rules_posthog", "V0"),
        "/track": (".rules_posthog", "V0"),
        "/i/v1/ai/events": (".rules_posthog_v1", "AI"),
        "/i/v1/analytics/events": (".rules_posthog_v1", "V1"),
        "/i/v1/logs": (".rules_otlp", "LOGS"),
        **dict.fromkeys(_SEGMENT_PATHS, _SEGMENT),
    }
)

# What a vendor's base path may stand before: ``dataclasses.replace(SEGMENT, path=...)``.
_BATCHES = ("/v1/batch", "/v1/import")


def find_judge(path: str) -> Judge | None:
    """Return the judge of requests to *path*, None if it is not an ingestion path."""
    path = path.removesuffix("/")
    route = ROUTES.get(path) or (_SEGMENT if path.endswith(_BATCHES) else None)
    if route is None:
        return None
    module, name = route
    return cast(Judge, getattr(import_module(module, __package__), name))


def decide(judge: Judge, incoming: Incoming, answer: Answer) -> Judged:
    """Return the decision of *judge*, changed by *answer*; status 0 is no answer at all."""
    judged = judge.judge(incoming)
    status = answer.status
    if answer.hang:
        status = 0
    elif answer.max_events is not None and len(judged.uuids) > answer.max_events:
        status = 413
    if answer.bare:
        return _instead(judged, Judged(status, answer.headers, answer.body or b""))
    if not 200 <= status < 300:
        judged = _instead(judged, judge.refuse(status, incoming) if status else Judged(0))
    elif judged.status < 300 and status != 200:
        judged = replace(judged, status=status)
    body = judged.body if answer.body is None else answer.body
    status = judged.status if 200 <= status < 300 else status
    return replace(judged, status=status, headers={**judged.headers, **answer.headers}, body=body)


def _instead(judged: Judged, other: Judged) -> Judged:
    """Return *other* for the request that was judged; none of its events is stored."""
    size, weight = judged.size, judged.weight
    return replace(other, payload=judged.payload, size=size, weight=weight, uuids=judged.uuids)


class Refusal(Exception):
    """The refusal of a whole request; ``guilty`` is the index of the event that caused it."""

    def __init__(self, status: int, tag: str, text: str = "", guilty: int | None = None) -> None:
        super().__init__(status, tag, text)
        self.status = status
        self.tag = tag
        self.text = text or tag
        self.guilty = guilty

    def reason(self, index: int) -> str:
        """Return why the event at *index* is refused: for its own fault, or for another's."""
        return self.text if self.guilty in (None, index) else "batch refused"


@dataclass
class Reading:
    """What was read of a request so far; a refusal makes bad events of those found here."""

    plain: bytes = b""
    payload: Any = None
    events: Sequence[Any] = ()

    @property
    def weight(self) -> int:
        """The bytes that the payload takes in memory, estimated: an object for each value."""
        return 0 if self.payload is None else len(self.plain) + _OBJECT_BYTES * _values(self.plain)

    def answered(self, body: bytes, found: Sequence[Finding]) -> Judged:
        """Return a 200 with *body*; findings without a reason are the good events."""
        return Judged(
            200,
            JSON,
            body,
            [one for one in found if not one.reason],
            [one for one in found if one.reason],
            [one.uuid for one in found],
            self.payload,
            len(self.plain),
            self.weight,
        )

    def refused(
        self,
        refusal: Refusal,
        body: bytes,
        finding: Callable[[Any, str], Finding],
        headers: Mapping[str, str] = JSON,
    ) -> Judged:
        """Return the refusal with *body*; all events are bad, as *finding* reads them."""
        bad = [finding(raw, refusal.reason(index)) for index, raw in enumerate(self.events)]
        return Judged(
            refusal.status,
            headers,
            body,
            bad=bad,
            uuids=[one.uuid for one in bad],
            payload=self.payload,
            size=len(self.plain),
            weight=self.weight,
            error=refusal.text,
        )


_OBJECT_BYTES = 64  # a str, a float, an empty dict


def _values(body: bytes) -> int:
    """Return how many values JSON may hold, never fewer than it does."""
    return body.count(b",") + body.count(b"{") + body.count(b"[")


def bounded(events: Sequence[_Event]) -> Sequence[_Event]:
    """Return *events*; refuse more of them than any sender puts into one request."""
    if len(events) > MOST_EVENTS:
        raise Refusal(413, "payload_too_large", _TOO_MANY.format("events", MOST_EVENTS))
    return events


def refuse_unfolded(size: int) -> None:
    """Refuse a request whose shared parts take *size* bytes once each event has a copy."""
    if size > _MOST_UNFOLDED:
        text = _TOO_MANY.format("bytes, with what all events share in each", _MOST_UNFOLDED)
        raise Refusal(413, "payload_too_large", text)


_Event = TypeVar("_Event")
_TOO_MANY = "more than {1:,} {0}: the inspector reads no more"


def phrase(status: int) -> str:
    """Return HTTP's phrase for a status, or its number if there is none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return str(status)


def parsed(plain: bytes, tag: str, prefix: str = "") -> Any:
    """Parse *plain*; broken JSON is a 400 under *tag*, too many values are a 413."""
    _refuse_many_values(plain)
    try:
        return strict_json(plain)
    except ValueError as error:
        raise Refusal(400, tag, f"{prefix}{error}") from error


def parsed_lines(plain: bytes, tag: str, prefix: str = "") -> list[Any]:
    """Parse each line of *plain*; the bounds of one text hold for all lines together."""
    _refuse_many_values(plain)
    lines = (line for line in BytesIO(plain) if line.strip())
    found = bounded(list(islice(lines, MOST_EVENTS + 1)))
    return [parsed(line, tag, prefix) for line in found]


def _refuse_many_values(plain: bytes) -> None:
    if _values(plain) > _MOST_VALUES:
        raise Refusal(413, "payload_too_large", _TOO_MANY.format("values", _MOST_VALUES))


def unpacked(body: bytes, coding: str | None, largest: int, tag: str) -> bytes:
    """Decompress *body*; a broken one is a 400 under *tag*, one that is too large a 413."""
    try:
        return decompress(body, coding, largest)
    except ValueError as error:
        if error.__cause__ is None:  # it is not broken, but too large
            raise Refusal(413, "payload_too_large", str(error)) from error
        raise Refusal(400, tag, str(error)) from error


# The deepest nesting that serde_json, PostHog's parser, accepts (wire notes, 1.7).
_DEEPEST = 127
# What may be half of a surrogate pair, or a number beyond a double.
_SUSPECT = re.compile(rb"\\u[dD][89a-fA-F]|[eE]\+?\d{3}|\d{309}")


def strict_json(body: bytes) -> Any:
    """Parse *body*; raises ``ValueError`` if PostHog's parser would fail."""
    payload = jsonable.decode(body.decode())
    if body.count(b"[") + body.count(b"{") > _DEEPEST and _depth(payload) > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST}")
    if _SUSPECT.search(body):  # the standard library's parser lets these through
        json.dumps(payload, allow_nan=False, ensure_ascii=False).encode()
        _refuse_huge(payload)
    return payload


def exact_json(value: Any) -> bytes:
    """Encode a value that was read from JSON; `jsonable.encode` would cut a long one."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _refuse_huge(payload: Any) -> None:
    """Raise ``ValueError`` for a whole number that no double can hold."""
    for level in _levels(payload):
        if any(type(one) is int and abs(one) > _LARGEST for one in level):
            raise ValueError("a number is out of range")


_LARGEST = int(sys.float_info.max)


def _depth(payload: Any) -> int:
    return sum(any(isinstance(one, (dict, list)) for one in level) for level in _levels(payload))


def _levels(payload: Any) -> Iterator[list[Any]]:
    """Yield the values of each level of nesting, without recursion."""
    level = [payload]
    while level:
        yield level
        level = [inner for value in level for inner in _inside(value)]


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


Types = frozenset[type[Any]]
Null = type(None)


def one_of(*kinds: type[Any]) -> Types:
    """Return the types of a field; they are compared exactly: in JSON a bool is not a number."""
    return frozenset(kinds)


def type_fault(raw: Mapping[str, Any], types: Mapping[str, Types]) -> str:
    """Return what is wrong with the first field of *raw* that has a wrong type, or ""."""
    for name, kinds in types.items():
        if name in raw and type(raw[name]) not in kinds:
            return f"{name}: invalid type {type_name(raw[name])}"
    return ""


def type_name(value: Any) -> str:
    """Return JSON's name for the type of *value*."""
    return _JSON_NAMES.get(type(value), "object")


_JSON_NAMES: Mapping[type, str] = {
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    list: "array",
    Null: "null",
}


def as_bool(value: Any) -> bool | None:
    """Return *value* as V1 reads a boolean, None if it cannot (2.3)."""
    if isinstance(value, str):
        return _BOOLEANS.get(value.strip().lower())
    return bool(value) if isinstance(value, (bool, int, float)) else None


_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}

_LONGEST_KEY = 64


def key_fault(key: str) -> str:
    """Return what is wrong with the form of a project key, which is all PostHog checks (1.7)."""
    key = key.strip()
    if not key:
        return "API key is empty"
    if len(key) > _LONGEST_KEY:
        return f"API key is longer than {_LONGEST_KEY} characters"
    if not key.isascii() or "\0" in key:
        return "API key is not ASCII"
    if key.startswith("phx_"):
        return "API key is a personal key (phx_), not a project key"
    return ""


_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_OTHER_FORMS = re.compile(
    r"[0-9a-f]{32}|(urn:uuid:)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}"
)


def canonical(name: Any) -> str | None:
    """Return a UUID in lower case and with hyphens, None for anything else."""
    if type(name) is not str:
        return None
    lower = name.lower()
    if _CANONICAL.fullmatch(lower):
        return lower
    return str(uuid.UUID(lower)) if _OTHER_FORMS.fullmatch(lower) else None
