"""
Scripted answers, for tests and demos that need something else than the real server's answer.

An `Answer` describes what happens to one request; a `Script` decides which request gets it.
"""

from __future__ import annotations

import random
import threading

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, TypeAlias


__all__ = ["REAL", "Answer", "Played", "Script", "Verdicts", "answer_from", "describe"]

#: The verdict on one event: its result, the whole verdict, or None to leave it out.
Verdict: TypeAlias = str | Mapping[str, Any] | None
#: Verdicts by the event's uuid or name, or a function that returns them for uuids.
Verdicts: TypeAlias = Mapping[str, Verdict] | Callable[[Sequence[str]], Mapping[str, Verdict]]


# The largest values of the fields that are numbers: no wait is longer than an hour.
_MOST = {"delay": 3600, "drip": 3600, "rate": 1, "reset_after": 2**31, "max_events": 2**31}


@dataclass(frozen=True)
class Answer:
    """
    One scripted answer; the defaults are what the real server does.

    An answer that is not a 2xx stores no event, as on the real server. One that breaks off
    or comes late stores them: the server had them, and that is what makes duplicates.

    Raises ``ValueError`` for a number out of its range.

    Args:
        status: the status instead of a 200; a wrong request is still refused.
        headers: headers besides the protocol's own, or instead of them.
        body: the body, or None for the protocol's own.
        delay: seconds before the answer, at most 3600; `Inspector.stop` cuts it short.
        hang: never answer; `Inspector.stop` ends the connection.
        reset_after: break off with a TCP reset after so many bytes of the response;
            0 does so before the request's body is read.
        drip: seconds between two bytes of the response's body, at most 3600.
        verdicts: PostHog V1's verdicts, by uuid or event name.
        max_events: answer 413 if a batch has more events.
        rate: the share of requests that get this answer, between 0 and 1.
        bare: answer as a proxy in front of the server would: without anything of the protocol,
            and without storing events, whatever the status.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    hang: bool = False
    reset_after: int | None = None
    drip: float = 0.0
    verdicts: Verdicts | None = None
    max_events: int | None = None
    rate: float = 1.0
    bare: bool = False

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise ValueError(f"{name}: between 0 and {most}")


#: The real server's answer.
REAL = Answer()


class Played(Protocol):
    """The seam for `servers.Server`."""

    @property
    def name(self) -> str:
        """The server's name."""

    @property
    def strips(self) -> frozenset[str]:
        """The headers that are removed, in lower case."""

    def visited(self, method: str, path: str, number: int) -> Answer | None:
        """Return the answer to the *number*-th request to *path*; None is the real one."""


class Script:
    """The answers to the next requests, in turn, and the one to all requests after them."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self.always: Answer | None = None
        self._chance = chance
        self._lock = threading.Lock()
        self._coming: deque[Answer] = deque()
        self._played: Played | None = None
        self._visits = Counter[str]()

    @property
    def playing(self) -> str:
        """The name of the server that is played; empty for the real one."""
        return "" if self._played is None else self._played.name

    @property
    def strips(self) -> frozenset[str]:
        """The headers that the played server removes, in lower case."""
        return frozenset() if self._played is None else self._played.strips

    def play(self, server: Played | None) -> None:
        """Answer as *server* from now on; None is the real one again."""
        with self._lock:
            self._played = server
            self._visits.clear()

    def add(self, *answers: Answer) -> None:
        """Append *answers* for the next requests."""
        with self._lock:
            self._coming.extend(answers)

    def clear(self) -> None:
        """Forget all answers: requests get the real ones again."""
        with self._lock:
            self._coming.clear()
            self.always = None

    def coming(self) -> list[Answer]:
        """Return the answers to the next requests."""
        with self._lock:
            return list(self._coming)

    def next(self, method: str = "POST", path: str = "") -> Answer:
        """Take the answer to one request: scripted, the played server's, or the real one."""
        with self._lock:
            answer = self._coming.popleft() if self._coming else self.always
        if answer is None:
            return self.visited(method, path) or REAL
        return REAL if self._chance() >= answer.rate else answer

    def visited(self, method: str, path: str) -> Answer | None:
        """Return the played server's answer to one request; None if that is the real one."""
        with self._lock:
            if self._played is None:
                return None
            self._visits[path] += 1
            return self._played.visited(method, path, self._visits[path])


# What each field of an answer looks like in JSON.
_NUMBER = (int, float)
_VERDICT = (str, dict, type(None))
_IN_JSON: Mapping[str, tuple[type, ...]] = {
    "status": (int,),
    "headers": (dict,),
    "body": (str, type(None)),
    "delay": _NUMBER,
    "hang": (bool,),
    "reset_after": (int, type(None)),
    "drip": _NUMBER,
    "verdicts": (dict, type(None)),
    "max_events": (int, type(None)),
    "rate": _NUMBER,
    "bare": (bool,),
}


def answer_from(described: Any) -> Answer:
    """Return the answer that a JSON object describes; raises ``ValueError`` for a wrong one."""
    if not isinstance(described, dict):
        raise ValueError("an answer is an object")
    for name, value in described.items():
        if name not in _IN_JSON:
            raise ValueError(f"an answer has no {name!r}; it has {', '.join(_IN_JSON)}")
        if not isinstance(value, _IN_JSON[name]):
            raise ValueError(f"{name}: not a {type(value).__name__}")
    if not 200 <= described.get("status", 200) <= 599:
        raise ValueError("status: between 200 and 599")
    if not all(isinstance(one, _VERDICT) for one in (described.get("verdicts") or {}).values()):
        raise ValueError("verdicts: a result, an object or null each")
    headers = {str(name): str(value) for name, value in described.get("headers", {}).items()}
    if any(character in text for item in headers.items() for text in item for character in "\r\n"):
        raise ValueError("headers: one line each")
    body = described.get("body")
    encoded = None if body is None else body.encode(errors="replace")
    return Answer(**{**described, "headers": headers, "body": encoded})


def describe(answer: Answer | None) -> dict[str, Any] | None:
    """Return the fields of *answer* that differ from the defaults, as JSON."""
    if answer is None:
        return None
    given = {one.name: getattr(answer, one.name) for one in fields(answer)}
    given = {name: value for name, value in given.items() if value != getattr(REAL, name)}
    if isinstance(given.get("body"), bytes):
        given["body"] = given["body"].decode(errors="replace")
    if callable(given.get("verdicts")):
        given["verdicts"] = "a function"
    return given
