"""
What the inspector remembers: requests and events, in rings that forget the oldest first.

The raw requests hold keys, so they stay in the process and out of every ``repr``; whatever
leaves it goes through `told` first.
"""

from __future__ import annotations

import secrets
import threading

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple, TypeVar

from ..events import jsonable
from ..events.message import Message
from ..wire import Request, find_dialect
from .rules import Asked, Finding, Judged


__all__ = ["Event", "News", "Position", "Received", "Store"]

# What the kept requests may say together, unpacked; parsed it takes some four times as much.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_SIGHTINGS = 20  # of one uuid


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
    kept: int  # of the events: those that were accepted, or are known as bad
    error: str


class Position(NamedTuple):
    """How far somebody has read: up to which event and request; a reset begins a generation."""

    generation: str
    event: int = 0
    request: int = 0


class News(NamedTuple):
    """What came after a position, each request before its events, and the position then."""

    position: Position
    arrived: list[Event | Received]
    counts: Mapping[str, int]


class _Sighting(NamedTuple):
    """How often a uuid has arrived, lately in which requests, and whether one was accepted."""

    attempts: int = 0
    accepted: bool = False
    requests: tuple[int, ...] = ()


class Store:
    """Everything that arrived, with one condition to wait on."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self.interrupts = 0
        self._numbers = Counter[str]()
        self._clear()

    def _clear(self) -> None:
        self._generation = secrets.token_hex(4)
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
                self._saw(name, request.number)
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
            return {**self._counted(), "events": dict(self._names)}

    def reset(self) -> None:
        """Forget everything but the running numbers."""
        with self._changed:
            self._clear()
            self._changed.notify_all()

    def interrupt(self) -> None:
        """End every `wait` now."""
        with self._changed:
            self.interrupts += 1
            self._changed.notify_all()

    def wait(self, event: str | None, count: int, timeout: float) -> list[Event]:
        """Wait until *count* events (named *event*) were accepted; return those that are there."""
        with self._changed:
            interrupts = self.interrupts
            self._changed.wait_for(
                lambda: self._accepted(event) >= count or self.interrupts > interrupts, timeout
            )
            return [one for one in self._good if event in (None, one.event)]

    def news(self, seen: Position, interrupts: int, timeout: float) -> News | None:
        """
        Wait for what came after *seen*, and return it; it may be nothing.

        Args:
            interrupts: how often there had been an `interrupt`; one more, and None is returned.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._latest() != seen or self.interrupts > interrupts, timeout
            )
            if self.interrupts > interrupts:
                return None
            if seen.generation != self._generation:
                seen = Position(self._generation)
            events = [*_since(seen.event, self._good), *_since(seen.event, self._bad)]
            arrived: list[Event | Received] = [*_since(seen.request, self._requests), *events]
            return News(self._latest(), sorted(arrived, key=_order), self._counted())

    def find(self, number: int) -> tuple[Event, tuple[int, ...]] | None:
        """Return the event of that number, and the numbers of the requests with its uuid."""
        with self._changed:
            events = (one for ring in (self._good, self._bad) for one in ring)
            event = next((one for one in events if one.number == number), None)
            if event is None:
                return None
            return event, self._sightings.get(event.uuid, _Sighting()).requests

    def _counted(self) -> dict[str, int]:
        counts = {name: self._counts[name] for name in _COUNTS}
        return {"total": counts["good"] + counts["bad"], **counts}

    def _latest(self) -> Position:
        return Position(self._generation, self._numbers["event"], self._numbers["request"])

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
            kept=len(judged.good) + len(judged.bad),
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

    def _saw(self, name: str, request: int) -> None:
        if not name:
            return
        seen = self._sightings.pop(name, _Sighting())
        self._sightings[name] = _Sighting(
            seen.attempts + 1, seen.accepted, (*seen.requests[1 - _MOST_SIGHTINGS :], request)
        )
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


_Numbered = TypeVar("_Numbered", Event, Received)


def _since(number: int, ring: deque[_Numbered]) -> list[_Numbered]:
    return list(takewhile(lambda one: one.number > number, reversed(ring)))


def _order(one: Event | Received) -> tuple[int, int]:
    return (one.request_number, one.number) if isinstance(one, Event) else (one.number, 0)


_COUNTS = ("good", "bad", "duplicates", "requests")
