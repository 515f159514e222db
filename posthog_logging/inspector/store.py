"""
What the inspector remembers: requests and events, in rings that forget the oldest first.

A ring is bounded in number and in memory. The raw requests hold keys, so they stay in the
process and out of every ``repr``; everything that leaves it goes through `views`.
"""

from __future__ import annotations

import secrets
import threading

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, Generic, NamedTuple, TypeVar

from ..events import jsonable
from ..events.message import Message
from ..wire import Request, find_dialect
from .identity import Person, Persons
from .masking import Mask, keys_in
from .plan import Planned
from .rules import Finding, Incoming, Judged


__all__ = ["Event", "News", "Position", "Received", "Store"]

# Bytes that one ring may take, estimated; a large capacity raises the bound.
_HEAVIEST = 256 * 1024 * 1024
_EACH = 4096
_MOST_SIGHTINGS = 20  # of one uuid
_MOST_NAMES = 20_000  # names of events that are counted one by one
_MOST_KEYS = 200  # keys that are masked by value
_LONGEST_KEY = 2048  # characters: what is longer is no key, and would be slow to search for
_LONGEST_NAME = 200  # characters of a uuid or a name that are remembered


@dataclass(frozen=True, repr=False)
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
    mask: Mask = field(default_factory=Mask, compare=False)  # of its ``repr``

    def __repr__(self) -> str:
        text = self.mask.text
        return (
            f"Event({text(self.event)!r}, {text(self.distinct_id)!r}, "
            f"properties={self.mask.value(self.properties)!r}, dialect={self.dialect!r}, "
            f"reason={text(self.reason)!r}, warnings={tuple(map(text, self.warnings))!r}, "
            f"uuid={text(self.uuid)!r})"
        )

    @property
    def message(self) -> Message:
        """The event in the neutral model, as its dialect reads it."""
        whole = isinstance(self.raw, dict) and "resourceLogs" in self.raw
        body = jsonable.encode(self.raw if whole else {"batch": [self.raw]})
        return find_dialect(self.dialect).decode(Request("", {}, body))[0]


@dataclass(frozen=True, repr=False)
class Received:
    """One HTTP request to an ingestion path; ``status`` is 0 if it was not answered."""

    number: int
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    payload: Any
    status: int
    at: float
    dialect: str
    coding: str
    bytes: int  # of the body as it arrived
    size: int  # of the body, unpacked
    events: int
    kept: int  # the events that were stored, good or bad
    error: str
    mask: Mask = field(default_factory=Mask, compare=False)  # of its ``repr``

    def __repr__(self) -> str:
        text = self.mask.text
        return (
            f"Received(number={self.number}, path={text(self.path)!r}, status={self.status}, "
            f"dialect={self.dialect!r}, events={self.events}, kept={self.kept}, "
            f"error={text(self.error)!r})"
        )


_Numbered = TypeVar("_Numbered", Event, Received)


class Position(NamedTuple):
    """How far a reader has read: up to which event and request; a reset begins a generation."""

    generation: str
    event: int = 0
    request: int = 0


class News(NamedTuple):
    """What arrived after a position, each request before its events; and the new position."""

    position: Position
    arrived: list[Event | Received]
    counts: Mapping[str, int]


class _Sighting(NamedTuple):
    """How often a uuid has arrived, in which requests lately, and whether it was accepted."""

    attempts: int = 0
    accepted: bool = False
    requests: tuple[int, ...] = ()


class Ring(Generic[_Numbered]):
    """
    The latest of what arrived.

    Args:
        most: how many are kept.
        heaviest: what they may weigh together, in bytes; the latest is kept whatever it weighs.
    """

    def __init__(self, most: int, heaviest: int = _HEAVIEST) -> None:
        self.forgotten = 0
        self._most = most
        self._heaviest = max(heaviest, most * _EACH) if heaviest == _HEAVIEST else heaviest
        self._weight = 0
        self._held: deque[tuple[_Numbered, int]] = deque()

    def __iter__(self) -> Iterator[_Numbered]:
        return (one for one, _ in self._held)

    def add(self, one: _Numbered, weight: int) -> None:
        """Keep *one*, and forget the oldest as long as there is no room."""
        self._held.append((one, weight))
        self._weight += weight
        while len(self._held) > self._most or (
            self._weight > self._heaviest and len(self._held) > 1
        ):
            self._weight -= self._held.popleft()[1]
            self.forgotten += 1

    def since(self, number: int) -> Iterator[_Numbered]:
        """Yield what arrived after *number*, the latest first."""
        return takewhile(lambda one: one.number > number, (one for one, _ in reversed(self._held)))


class Store:
    """Everything that arrived, with one condition to wait on."""

    def __init__(self, capacity: int, planned: Planned | None = None) -> None:
        self._planned = planned
        if type(capacity) is not int or capacity < 1:
            raise ValueError(f"capacity: must be a whole number from 1 on, not {capacity!r}")
        self.capacity = capacity
        self.mask = Mask()
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._changed = threading.Condition()
        self.interrupts = 0
        self._numbers = Counter[str]()
        self._clear()

    def _clear(self) -> None:
        if self._planned is not None:
            self._planned.reset()
        self._generation = secrets.token_hex(4)
        self._good: Ring[Event] = Ring(self.capacity)
        self._bad: Ring[Event] = Ring(self.capacity)
        self._requests: Ring[Received] = Ring(self.capacity)
        self._persons = Persons(4 * self.capacity)
        self._sightings: OrderedDict[str, _Sighting] = OrderedDict()
        self._counts = Counter[str]()
        self._names = Counter[str]()

    def add(self, incoming: Incoming, dialect: str, judged: Judged) -> None:
        """Remember one request and what the judge kept of it."""
        keys = keys_in(incoming.headers, incoming.query, judged.payload)
        with self._changed:
            self._learn(keys)
            request = self._add_request(incoming, dialect, judged)
            for name in judged.uuids:
                self._count_arrival(name, request.number)
            found = [*judged.good, *judged.bad]
            weight = judged.weight // max(len(found), 1)
            for one in found:
                event = self._event(one, request)
                self._counts["bad" if one.reason else "good"] += 1
                (self._bad if one.reason else self._good).add(event, weight)
            self._changed.notify_all()

    def _learn(self, keys: Iterable[str]) -> None:
        """Mask *keys* by value from now on."""
        new = {key for key in keys if key not in self._keys and len(key) <= _LONGEST_KEY}
        if new:
            self._keys.update(dict.fromkeys(new))
            while len(self._keys) > _MOST_KEYS:
                self._keys.popitem(last=False)
            self.mask = Mask(self._keys)

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
        """Return how much arrived since the last reset, also of what was forgotten."""
        with self._changed:
            found = {**self._counted(), "events": dict(self._names)}
            return (
                found if self._planned is None else {**found, "missing": self._planned.missing()}
            )

    def plan(self) -> dict[str, Any]:
        """Return `Planned.describe`, or a plan of None."""
        with self._changed:
            return {"plan": None} if self._planned is None else self._planned.describe()

    def reset(self) -> None:
        """Forget everything except the running numbers."""
        with self._changed:
            self._clear()
            self._changed.notify_all()

    def interrupt(self) -> None:
        """End every `wait` now."""
        with self._changed:
            self.interrupts += 1
            self._changed.notify_all()

    def wait(self, event: str | None, count: int, timeout: float) -> list[Event]:
        """Wait until *count* events (named *event*) were accepted; return all there are."""
        with self._changed:
            interrupts = self.interrupts
            self._changed.wait_for(
                lambda: self._accepted(event) >= count or self.interrupts > interrupts, timeout
            )
            return [one for one in self._good if event in (None, one.event)]

    def news(self, seen: Position, interrupts: int, timeout: float) -> News | None:
        """
        Wait for what arrives after *seen*, and return it, which may be nothing.

        Args:
            interrupts: the number of `interrupt` calls so far; after another one, return None.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._latest() != seen or self.interrupts > interrupts, timeout
            )
            if self.interrupts > interrupts:
                return None
            if seen.generation != self._generation:
                seen = Position(self._generation)
            events = [*self._good.since(seen.event), *self._bad.since(seen.event)]
            arrived: list[Event | Received] = [*self._requests.since(seen.request), *events]
            return News(self._latest(), sorted(arrived, key=_order), self._counted())

    def find(self, number: int) -> tuple[Event, tuple[int, ...]] | None:
        """Return the event of that number, and the numbers of the requests with its uuid."""
        with self._changed:
            events = (one for ring in (self._good, self._bad) for one in ring)
            event = next((one for one in events if one.number == number), None)
            if event is None:
                return None
            return event, self._sightings.get(_short_name(event.uuid), _Sighting()).requests

    def person(self, distinct_id: str) -> Person:
        """Return a copy of the person with *distinct_id*."""
        with self._changed:
            person = self._persons.find(distinct_id)
            return replace(person, ids=[*person.ids], merges=[*person.merges])

    def _counted(self) -> dict[str, int]:
        counts = {name: self._counts[name] for name in _COUNTS}
        forgotten = self._good.forgotten + self._bad.forgotten
        older = {"forgotten": forgotten} if forgotten else {}
        return {"total": counts["good"] + counts["bad"], **counts, **older}

    def _latest(self) -> Position:
        return Position(self._generation, self._numbers["event"], self._numbers["request"])

    def _accepted(self, event: str | None) -> int:
        return self._counts["good"] if event is None else self._names[_short_name(event)]

    def _add_request(self, incoming: Incoming, dialect: str, judged: Judged) -> Received:
        self._numbers["request"] += 1
        self._counts["requests"] += 1
        request = Received(
            number=self._numbers["request"],
            path=incoming.path,
            headers=incoming.headers,
            body=incoming.body,
            payload=judged.payload,
            status=judged.status,
            at=incoming.now,
            dialect=dialect,
            coding=incoming.headers.get("content-encoding", ""),
            bytes=len(incoming.body),
            size=judged.size,
            events=len(judged.uuids),
            kept=len(judged.good) + len(judged.bad),
            error=judged.error,
            mask=self.mask,
        )
        around = len(request.path) + sum(map(len, (*incoming.headers, *incoming.headers.values())))
        self._requests.add(request, request.bytes + judged.weight + around)
        return request

    def _count_arrival(self, name: str, request: int) -> None:
        if not name:
            return
        seen = self._sightings.pop(_short_name(name), _Sighting())
        self._sightings[_short_name(name)] = _Sighting(
            seen.attempts + 1, seen.accepted, (*seen.requests[1 - _MOST_SIGHTINGS :], request)
        )
        if len(self._sightings) > max(4 * self.capacity, 200_000):
            self._sightings.popitem(last=False)

    def _event(self, found: Finding, request: Received) -> Event:
        seen = self._sightings.get(_short_name(found.uuid), _Sighting(1))
        self._numbers["event"] += 1
        warnings = found.warnings
        if not found.reason:
            warnings += self._plan_warnings(found, request.dialect)
            warnings += self._count_accepted(found, seen)
        return Event(
            found.event,
            found.distinct_id,
            found.uuid,
            found.timestamp,
            found.properties,
            request.dialect,
            found.reason,
            warnings,
            found.raw,
            self._numbers["event"],
            request.number,
            _attempt(request.headers) or seen.attempts,
            seen.accepted,
            request.at,
            self.mask,
        )

    def _plan_warnings(self, found: Finding, dialect: str) -> tuple[str, ...]:
        """Return the plan's warnings of an accepted event; a log is not an event."""
        if self._planned is None or dialect == "posthog-logs":
            return ()
        return self._planned.see(found.event, dict(found.properties), self._numbers["event"])

    def _count_accepted(self, found: Finding, seen: _Sighting) -> tuple[str, ...]:
        """Count an accepted event; return the warnings that follow from earlier events."""
        self._names[_short_name(found.event)] += 1
        if len(self._names) > _MOST_NAMES:
            del self._names[next(iter(self._names))]
        self._counts["duplicates"] += seen.accepted
        if found.uuid:
            self._sightings[_short_name(found.uuid)] = seen._replace(accepted=True)
        return self._persons.see(
            found.event, found.distinct_id, found.properties, self._numbers["event"]
        )


def _short_name(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…{hash(name)}"


def _attempt(headers: Mapping[str, str]) -> int:
    """Return PostHog V1's attempt, a 32-bit number, or 0 without one."""
    text = headers.get("posthog-attempt", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else 0


def _order(one: Event | Received) -> tuple[int, int]:
    return (one.request_number, one.number) if isinstance(one, Event) else (one.number, 0)


_COUNTS = ("good", "bad", "duplicates", "requests")
