"""
The inspector's API and the files of its page: events, counts, persons, and the script.

Everything is masked before it leaves; `server` has checked where the request comes from.
"""

from __future__ import annotations

import time

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, NamedTuple

from ..events import jsonable
from . import views
from .answers import Script, answer_from, describe
from .rules import Finding, Incoming, Judged, Reading, Refusal, parsed_lines
from .rules_posthog import finding
from .servers import server_of
from .store import Event, Store


__all__ = ["Api", "Reply"]

_LONGEST_WAIT = 60.0


class Reply(NamedTuple):
    """One HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes | Iterator[bytes]  # an iterator's body ends with the connection


Query = Mapping[str, str]


@dataclass(frozen=True)
class Api:
    """The paths besides ingestion."""

    store: Store
    script: Script

    def answer(self, method: str, path: str, query: Query, body: bytes) -> Reply:
        """Return the answer to one request."""
        reply = self._answer(method, path, query, body)
        return reply._replace(headers={**_SAFE, **reply.headers})

    def _answer(self, method: str, path: str, query: Query, body: bytes) -> Reply:
        if path in _FILES:
            return _file(*_FILES[path]) if method == "GET" else _wrong_method(path, ["GET"])
        methods = _PATHS.get(path)
        if methods is None:
            return _json({"error": f"nothing lives at {path}"}, 404)
        if method not in methods:
            return _wrong_method(path, methods)
        try:
            return methods[method](self, query, body)
        except ValueError as error:
            return _json({"error": str(error)}, 400)

    def events(self, query: Query, body: bytes) -> Reply:
        """Return the selected events, and the number to continue from, as ``since``."""
        events = self._selected(query)
        last = max((one.number for one in events), default=_number(query, "since", 0))
        return _json({"events": [self._event(one) for one in events], "last": last})

    def event(self, query: Query, body: bytes) -> Reply:
        """Return one event by its ``number``, its request, and the numbers of all that had it."""
        found = self.store.find(_number(query, "number", 0))
        if found is None:
            return _json({"error": "no such event, or it is forgotten"}, 404)
        event, numbers = found
        its = (one for one in self.store.requests() if one.number == event.request_number)
        mask = self.store.mask
        about = next((views.request(one, mask, "payload") for one in its), None)
        return _json({"event": self._event(event), "request": about, "requests": list(numbers)})

    def person(self, query: Query, body: bytes) -> Reply:
        """Return a person: its ids, and the merges that made it."""
        person = self.store.person(query.get("distinct_id", ""))
        mask = self.store.mask
        return _json(
            {
                "ids": [mask.text(one) for one in person.ids],
                "is_identified": person.is_identified,
                "merges": [mask.value(one._asdict()) for one in person.merges],
            }
        )

    def plan(self, query: Query, body: bytes) -> Reply:
        """Return how the events fit the plan, whose name is under ``plan``: null without one."""
        return _json(self.store.mask.value(self.store.plan()))

    def stream(self, query: Query, body: bytes) -> Reply:
        """Stream what arrives, as server-sent events."""
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        return Reply(200, headers, views.stream(self.store, self.script, query.get("after", "")))

    def requests(self, query: Query, body: bytes) -> Reply:
        """Return the requests, keys masked."""
        since, limit = _number(query, "since", 0), _number(query, "limit", 100)
        requests = (one for one in self.store.requests() if one.number > since)
        return _json(
            {"requests": [views.request(one, self.store.mask) for one in deque(requests, limit)]}
        )

    def counts(self, query: Query, body: bytes) -> Reply:
        """Return how much arrived."""
        return _json(self.store.mask.value(self.store.counts()))

    def reset(self, query: Query, body: bytes) -> Reply:
        """Forget what arrived."""
        self.store.reset()
        return self.counts(query, body)

    def wait(self, query: Query, body: bytes) -> Reply:
        """Wait for events, and return whether they arrived."""
        count, event = _number(query, "count", 1), query.get("event")
        timeout = min(_number(query, "timeout", 5.0, float), _LONGEST_WAIT)
        events = self.store.wait(event, count, timeout)
        found = len(events) >= count
        return _json({"found": found, "events": [self._event(one) for one in events]})

    def answers(self, query: Query, body: bytes) -> Reply:
        """Return the scripted answers."""
        coming = [describe(one) for one in self.script.coming()]
        always = describe(self.script.always)
        playing = {"playing": self.script.playing} if self.script.playing else {}
        found = {"script": coming, "always": always, **playing}
        return _json(self.store.mask.value(found))

    def set_answers(self, query: Query, body: bytes) -> Reply:
        """
        Replace the scripted answers: ``{"script": [answer, ...], "always": answer or null}``.

        ``"play"`` may name a server of `posthog_logging.inspector.servers`.
        """
        wanted = jsonable.decode(body or b"{}")
        if not isinstance(wanted, dict) or not isinstance(wanted.get("script", []), list):
            raise ValueError("an object with a list under 'script' and an answer under 'always'")
        script = [answer_from(one) for one in wanted.get("script", [])]
        always = None if wanted.get("always") is None else answer_from(wanted["always"])
        server = server_of(wanted.get("play"))  # raises for an unknown one, so before any change
        self.script.clear()
        self.script.add(*script)
        self.script.always = always
        self.script.play(server)
        return self.answers(query, body)

    def dead_letters(self, query: Query, body: bytes) -> Reply:
        """
        Take in a relay's dead letters: one event a line, with its own reason or the query's.

        They become bad events whose reason begins with ``dead letter``.
        """
        try:
            events = parsed_lines(body, "invalid_json")
        except Refusal as refusal:
            return _json({"error": refusal.text}, refusal.status)
        found = [_dead(raw, query.get("reason", "")) for raw in events]
        weight = Reading(body, events).weight
        judged = Judged(200, bad=found, uuids=[one.uuid for one in found], weight=weight)
        incoming = Incoming("/api/dead-letters", query, {}, body, time.time())
        self.store.add(incoming, "posthog", judged)
        return self.counts(query, body)

    def export(self, query: Query, body: bytes) -> Reply:
        """Return the selected events, one a line."""
        lines = [jsonable.encode(self._event(one)) + b"\n" for one in self._selected(query)]
        return Reply(200, {"Content-Type": "application/x-ndjson"}, b"".join(lines))

    def _event(self, event: Event) -> dict[str, Any]:
        return views.event(event, self.store.mask)

    def _selected(self, query: Query) -> deque[Event]:
        """Return the events in order of arrival; ``since`` is an event's ``number``."""
        wanted = {name: query[name] for name in ("event", "distinct_id") if name in query}
        since = _number(query, "since", 0)
        events = (
            one
            for one in self._good_or_bad(query.get("good"))
            if one.number > since
            and all(getattr(one, name) == value for name, value in wanted.items())
        )
        return deque(events, _number(query, "limit"))

    def _good_or_bad(self, good: str | None) -> Iterable[Event]:
        if good not in (None, "0", "1"):
            raise ValueError("good: 1 or 0")
        if good is not None:
            return self.store.events() if good == "1" else self.store.bad()
        both = [*self.store.events(), *self.store.bad()]
        return sorted(both, key=lambda one: one.number)


def _dead(raw: Any, reason: str) -> Finding:
    given = raw.get("dlq_reason") if isinstance(raw, dict) else None
    return finding(raw, f"dead letter: {given or reason or 'no reason was given'}")


_Method = Callable[[Api, Query, bytes], Reply]

_PATHS: Mapping[str, Mapping[str, _Method]] = {
    "/api/answers": {"GET": Api.answers, "POST": Api.set_answers},
    "/api/counts": {"GET": Api.counts},
    "/api/dead-letters": {"POST": Api.dead_letters},
    "/api/event": {"GET": Api.event},
    "/api/events": {"GET": Api.events},
    "/api/export": {"GET": Api.export},
    "/api/person": {"GET": Api.person},
    "/api/plan": {"GET": Api.plan},
    "/api/requests": {"GET": Api.requests},
    "/api/reset": {"POST": Api.reset},
    "/api/stream": {"GET": Api.stream},
    "/api/wait": {"GET": Api.wait},
}

# The page's files; the types are all that a browser needs, with no sniffing.
_FILES: Mapping[str, tuple[str, str]] = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript")
        for name in ("detail", "kinds", "page", "persons", "plan", "search", "text")
    },
}
_SAFE: Mapping[str, str] = {
    # Trusted types forbid innerHTML and its like even to our own script.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _file(name: str, kind: str) -> Reply:
    headers = {"Content-Type": f"{kind}; charset=utf-8", "Cache-Control": "no-cache"}
    return Reply(200, headers, files(__package__).joinpath(name).read_bytes())


def _wrong_method(path: str, methods: Iterable[str]) -> Reply:
    reply = _json({"error": f"{path} takes {' or '.join(methods)}"}, 405)
    return reply._replace(headers={**reply.headers, "Allow": ", ".join(methods)})


def _json(value: Any, status: int = 200) -> Reply:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Reply(status, headers, views.whole(value))


def _number(query: Query, name: str, default: Any = None, kind: Callable[[str], Any] = int) -> Any:
    text = query.get(name)
    if text is None:
        return default
    try:
        number = kind(text)
    except ValueError:  # Python's own text quotes what was given
        number = -1
    if not 0 <= number < 2**53:
        raise ValueError(f"{name}: a number from 0 on")
    return number
