"""
What the inspector answers where a test or a demo wants something else than the truth.

An `Answer` is data: it says what happens to one request. `Script` says which one gets it.
"""

from __future__ import annotations

import random
import threading

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias


__all__ = ["AS_IT_IS", "Answer", "Script", "Verdicts", "answer_from", "describe"]

#: One event's verdict: a result, a whole verdict, or None to leave it out of the answer.
Verdict: TypeAlias = str | Mapping[str, Any] | None
#: Verdicts by uuid or by the event's name, or what returns them by uuid.
Verdicts: TypeAlias = Mapping[str, Verdict] | Callable[[Sequence[str]], Mapping[str, Verdict]]


@dataclass(frozen=True)
class Answer:
    """
    One scripted answer; the defaults are what the real server does.

    An answer that is not a 2xx stores no event, as on the real server. One that breaks off
    or comes late stores them: the server had them, and that is what makes duplicates.

    Args:
        status: the status instead of a 200; a request that is wrong is refused all the same.
        headers: what is put on top of the protocol's own headers.
        body: the body, or None for the protocol's own.
        delay: seconds before the answer, which `Inspector.stop` cuts short.
        hang: never answer; the connection ends with `Inspector.stop`.
        reset_after: break off with a TCP reset after so many bytes of the response;
            0 does so before the request's body is read.
        drip: seconds between two bytes of the response's body.
        verdicts: PostHog V1's verdicts by uuid or by event name.
        max_events: answer 413 where a batch has more events.
        rate: the share of requests that get this answer, between 0 and 1.
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


AS_IT_IS = Answer()


class Script:
    """The answers to come, in turn, and the one for all requests after them."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self.always: Answer | None = None
        self._chance = chance
        self._lock = threading.Lock()
        self._coming: deque[Answer] = deque()

    def add(self, *answers: Answer) -> None:
        """Give *answers* to the next requests, after those that wait already."""
        with self._lock:
            self._coming.extend(answers)

    def clear(self) -> None:
        """Forget what was to come: all requests get the real answers again."""
        with self._lock:
            self._coming.clear()
            self.always = None

    def coming(self) -> list[Answer]:
        """Return the answers that wait for their requests."""
        with self._lock:
            return list(self._coming)

    def next(self) -> Answer:
        """Return the answer for one request, which uses it up."""
        with self._lock:
            answer = self._coming.popleft() if self._coming else self.always
        if answer is None or self._chance() >= answer.rate:
            return AS_IT_IS
        return answer


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
}


def answer_from(said: Any) -> Answer:
    """Return the answer that a JSON object describes; raises ``ValueError`` where it is none."""
    if not isinstance(said, dict):
        raise ValueError("an answer is an object")
    for name, value in said.items():
        if name not in _IN_JSON:
            raise ValueError(f"an answer has no {name!r}; it has {', '.join(_IN_JSON)}")
        if not isinstance(value, _IN_JSON[name]):
            raise ValueError(f"{name}: not a {type(value).__name__}")
    if not 200 <= said.get("status", 200) <= 599:
        raise ValueError("status: between 200 and 599")
    if not all(isinstance(one, _VERDICT) for one in (said.get("verdicts") or {}).values()):
        raise ValueError("verdicts: a result, an object or null each")
    headers = {str(name): str(value) for name, value in said.get("headers", {}).items()}
    if any(character in text for item in headers.items() for text in item for character in "\r\n"):
        raise ValueError("headers: one line each")
    body = said.get("body")
    encoded = None if body is None else body.encode(errors="replace")
    return Answer(**{**said, "headers": headers, "body": encoded})


def describe(answer: Answer | None) -> dict[str, Any] | None:
    """Return what of *answer* is not the default, as JSON."""
    if answer is None:
        return None
    said = {one.name: getattr(answer, one.name) for one in fields(answer)}
    said = {name: value for name, value in said.items() if value != getattr(AS_IT_IS, name)}
    if isinstance(said.get("body"), bytes):
        said["body"] = said["body"].decode(errors="replace")
    if callable(said.get("verdicts")):
        said["verdicts"] = "a function"
    return said
