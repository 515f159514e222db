"""
What the inspector remembers: requests and events, in rings that forget the oldest first.

The raw requests hold keys, so they stay in the process and out of every ``repr``; whatever
leaves it goes through `masked` first.
"""

from __future__ import annotations

import threading

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import jsonable
from ..message import Message
from ..wire import Request, find_dialect
from .rules import Asked, Finding, Judged


__all__ = ["Event", "Received", "Store", "mask", "masked", "masked_headers"]

# What the kept requests may say together, unpacked; parsed it takes some four times as much.
_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Event:
    """
    One event that arrived; an empty ``reason`` means that it was accepted.

    Args:
        raw: the JSON value that arrived.
        number: counts the events from 1.
        attempt: PostHog V1's header, else how often this uuid has arrived, counting this.
        duplicate: an event with the same uuid had been accepted before.
    """

    event: str
    distinct_id: str
    uuid: str
    timestamp: str
    properties: Mapping[str, Any]
    dialect: str
    reason: str
    warnings: tuple[str, ...]
    raw: Any = field(repr=False)
    number: int
    request_number: int
    attempt: int
    duplicate: bool
    received_at: float

    @property
    def message(self) -> Message:
        """The event in the neutral model, as its dialect reads it."""
        whole = isinstance(self.raw, dict) and "resourceLogs" in self.raw
        body = jsonable.encode(self.raw if whole else {"batch": [self.raw]})
        return find_dialect(self.dialect).decode(Request("", {}, body))[0]


@dataclass(frozen=True)
class Received:
    """One HTTP request to an ingestion path; ``status`` is 0 where none was answered."""

    number: int
    path: str
    headers: Mapping[str, str] = field(repr=False)  # names in lower case
    body: bytes = field(repr=False)
    payload: Any = field(repr=False)
    status: int
    at: float
    dialect: str
    coding: str
    bytes: int  # as they came
    size: int  # unpacked
    events: int
    error: str


class _Sighting(NamedTuple):
    """How often a uuid has arrived, and whether one of them was accepted."""

    attempts: int = 0
    accepted: bool = False


class Store:
    """Everything that arrived, with one condition to wait on."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._interrupts = 0
        self._numbers = Counter[str]()
        self._clear()

    def _clear(self) -> None:
        self._good: deque[Event] = deque(maxlen=self._capacity)
        self._bad: deque[Event] = deque(maxlen=self._capacity)
        self._requests: deque[Received] = deque()
        self._sightings: OrderedDict[str, _Sighting] = OrderedDict()
        self._counts = Counter[str]()
        self._names = Counter[str]()
        self._bytes = 0

    def add(self, asked: Asked, dialect: str, judged: Judged) -> None:
        """Remember one request and what the judge kept of it."""
        with self._changed:
            request = self._add_request(asked, dialect, judged)
            for name in judged.uuids:
                self._saw(name)
            for kind, ring, found in (
                ("good", self._good, judged.good),
                ("bad", self._bad, judged.bad),
            ):
                self._counts[kind] += len(found)
                ring.extend([self._event(one, request) for one in found])
            self._changed.notify_all()

    def events(self) -> list[Event]:
        """Return the accepted events, in order of arrival."""
        with self._changed:
            return list(self._good)

    def bad(self) -> list[Event]:
        """Return the refused events, in order of arrival."""
        with self._changed:
            return list(self._bad)

    def requests(self) -> list[Received]:
        """Return the requests, in order of arrival."""
        with self._changed:
            return list(self._requests)

    def counts(self) -> dict[str, Any]:
        """Return how much arrived since the last reset, also of what the rings forgot."""
        with self._changed:
            counts = {name: self._counts[name] for name in _COUNTS}
            return {"total": counts["good"] + counts["bad"], **counts, "events": dict(self._names)}

    def reset(self) -> None:
        """Forget everything but the running numbers."""
        with self._changed:
            self._clear()

    def interrupt(self) -> None:
        """End every `wait` now."""
        with self._changed:
            self._interrupts += 1
            self._changed.notify_all()

    def wait(self, event: str | None, count: int, timeout: float) -> list[Event]:
        """Wait until *count* events (named *event*) were accepted; return those that are there."""
        with self._changed:
            interrupts = self._interrupts
            self._changed.wait_for(
                lambda: self._accepted(event) >= count or self._interrupts > interrupts, timeout
            )
            return [one for one in self._good if event in (None, one.event)]

    def _accepted(self, event: str | None) -> int:
        return self._counts["good"] if event is None else self._names[event]

    def _add_request(self, asked: Asked, dialect: str, judged: Judged) -> Received:
        self._numbers["request"] += 1
        self._counts["requests"] += 1
        request = Received(
            number=self._numbers["request"],
            path=asked.path,
            headers=asked.headers,
            body=asked.body,
            payload=judged.payload,
            status=judged.status,
            at=asked.now,
            dialect=dialect,
            coding=asked.headers.get("content-encoding", ""),
            bytes=len(asked.body),
            size=judged.size,
            events=len(judged.uuids),
            error=judged.error,
        )
        self._requests.append(request)
        self._bytes += request.bytes + request.size
        while len(self._requests) > 1 and self._is_full():
            oldest = self._requests.popleft()
            self._bytes -= oldest.bytes + oldest.size
        return request

    def _is_full(self) -> bool:
        return len(self._requests) > self._capacity or self._bytes > _MOST_BYTES

    def _saw(self, name: str) -> None:
        if not name:
            return
        seen = self._sightings.pop(name, _Sighting())
        self._sightings[name] = seen._replace(attempts=seen.attempts + 1)
        if len(self._sightings) > max(4 * self._capacity, 200_000):
            self._sightings.popitem(last=False)

    def _event(self, found: Finding, request: Received) -> Event:
        seen = self._sightings.get(found.uuid, _Sighting(1))
        if not found.reason:
            self._names[found.event] += 1
            self._counts["duplicates"] += seen.accepted
            if found.uuid:
                self._sightings[found.uuid] = seen._replace(accepted=True)
        self._numbers["event"] += 1
        attempt = request.headers.get("posthog-attempt", "")
        return Event(
            found.event,
            found.distinct_id,
            found.uuid,
            found.timestamp,
            found.properties,
            request.dialect,
            found.reason,
            found.warnings,
            found.raw,
            self._numbers["event"],
            request.number,
            int(attempt) if attempt.isdecimal() else seen.attempts,
            seen.accepted,
            request.at,
        )


_COUNTS = ("good", "bad", "duplicates", "requests")


_SECRET_NAMES = frozenset(
    """api_key apikey token $token writekey write_key appid secret password""".split()
)
_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "x-write-key"}
)


def mask(key: str) -> str:
    """Return enough of a key to tell it from another, and too little to use it."""
    return f"{key[:4]}…{key[-4:]}" if len(key) >= 16 else "…"


def masked(value: Any) -> Any:
    """Return a JSON value with every key in it masked."""
    if isinstance(value, dict):
        return {name: _masked_member(name, member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(member) for member in value]
    return value


def _masked_member(name: str, member: Any) -> Any:
    if isinstance(member, str) and name.lower() in _SECRET_NAMES:
        return mask(member)
    return masked(member)


def masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return *headers* with the keys in them masked; of ``Basic`` nothing is left to decode."""
    return {
        name: _masked_header(value) if name in _SECRET_HEADERS else value
        for name, value in headers.items()
    }


def _masked_header(value: str) -> str:
    scheme, space, key = value.partition(" ")
    if not space:
        return mask(value)
    return f"{scheme} {mask(key) if scheme.lower() == 'bearer' else '…'}"
