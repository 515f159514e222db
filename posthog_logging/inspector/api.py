"""
What the inspector tells those who look at it: events, counts, waiting, and the script.

Everything that leaves here is masked, and only programs of this machine are answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .. import jsonable
from .answers import Script, answer_from, describe
from .store import Event, Received, Store, masked, masked_headers


__all__ = ["Api", "Reply", "is_local"]

_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_LONGEST_WAIT = 60.0


class Reply(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def is_local(headers: Mapping[str, str]) -> bool:
    """
    Tell whether a request was meant for this machine, by whoever made it.

    A name that an attacker rebinds to 127.0.0.1 shows in ``Host``, a foreign page's form
    in ``Origin``.
    """
    origin = headers.get("origin")
    return _host(f"//{headers.get('host', '')}") in _LOCAL and (
        origin is None or _host(origin) in _LOCAL
    )


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


Query = Mapping[str, str]


@dataclass(frozen=True)
class Api:
    """The paths beside ingestion, over what the inspector knows."""

    store: Store
    script: Script

    def answer(self, method: str, path: str, query: Query, body: bytes) -> Reply:
        """Return the answer to one request."""
        methods = _PATHS.get(path)
        if methods is None:
            return _json({"error": f"nothing lives at {path}"}, 404)
        if method not in methods:
            reply = _json({"error": f"{path} takes {' or '.join(methods)}"}, 405)
            return reply._replace(headers={**reply.headers, "Allow": ", ".join(methods)})
        try:
            return methods[method](self, query, body)
        except ValueError as error:
            return _json({"error": str(error)}, 400)

    def page(self, query: Query, body: bytes) -> Reply:
        """Return the page."""
        return Reply(200, _HTML, _PAGE)

    def events(self, query: Query, body: bytes) -> Reply:
        """Return the events that *query* selects, and the number to go on ``since``."""
        events = self._selected(query)
        last = max((one.number for one in events), default=_number(query, "since", 0))
        return _json({"events": [_event(one) for one in events], "last": last})

    def requests(self, query: Query, body: bytes) -> Reply:
        """Return the requests, keys masked."""
        since, limit = _number(query, "since", 0), _number(query, "limit", 100)
        requests = (one for one in self.store.requests() if one.number > since)
        return _json({"requests": [_request(one) for one in deque(requests, limit)]})

    def counts(self, query: Query, body: bytes) -> Reply:
        """Return how much arrived."""
        return _json(self.store.counts())

    def reset(self, query: Query, body: bytes) -> Reply:
        """Forget what arrived."""
        self.store.reset()
        return self.counts(query, body)

    def wait(self, query: Query, body: bytes) -> Reply:
        """Wait for events, and tell whether they came."""
        count, event = _number(query, "count", 1), query.get("event")
        timeout = min(_number(query, "timeout", 5.0, float), _LONGEST_WAIT)
        events = self.store.wait(event, count, timeout)
        found = len(events) >= count
        return _json({"found": found, "events": [_event(one) for one in events]})

    def answers(self, query: Query, body: bytes) -> Reply:
        """Return the answers to come."""
        coming = [describe(one) for one in self.script.coming()]
        return _json({"script": coming, "always": describe(self.script.always)})

    def set_answers(self, query: Query, body: bytes) -> Reply:
        """Replace the answers to come: ``{"script": [answer, ...], "always": answer or null}``."""
        said = jsonable.decode(body or b"{}")
        if not isinstance(said, dict) or not isinstance(said.get("script", []), list):
            raise ValueError("an object with a list under 'script' and an answer under 'always'")
        script = [answer_from(one) for one in said.get("script", [])]
        always = None if said.get("always") is None else answer_from(said["always"])
        self.script.clear()
        self.script.add(*script)
        self.script.always = always
        return self.answers(query, body)

    def export(self, query: Query, body: bytes) -> Reply:
        """Return the selected events, one a line."""
        lines = [jsonable.encode(_event(one)) + b"\n" for one in self._selected(query)]
        return Reply(200, {"Content-Type": "application/x-ndjson"}, b"".join(lines))

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


_Method = Callable[[Api, Query, bytes], Reply]

_PATHS: Mapping[str, Mapping[str, _Method]] = {
    "/": {"GET": Api.page},
    "/api/answers": {"GET": Api.answers, "POST": Api.set_answers},
    "/api/counts": {"GET": Api.counts},
    "/api/events": {"GET": Api.events},
    "/api/export": {"GET": Api.export},
    "/api/requests": {"GET": Api.requests},
    "/api/reset": {"POST": Api.reset},
    "/api/wait": {"GET": Api.wait},
}

_HTML = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_PAGE = b"""<!doctype html>
<meta charset="utf-8"><title>posthog_logging inspector</title>
<h1>posthog_logging inspector</h1>
<p>Events are at <a href="/api/events">/api/events</a>,
counts at <a href="/api/counts">/api/counts</a>.
"""


def _json(value: Any, status: int = 200) -> Reply:
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return Reply(status, headers, _encode(value))


def _encode(value: Any) -> bytes:
    """Encode a whole answer: `jsonable.encode` would cut what is longer than an event may be."""
    parts = []
    for name, member in value.items():
        members = member if isinstance(member, list) else [member]
        inner = b",".join(map(jsonable.encode, members))
        form = b"%b:[%b]" if members is member else b"%b:%b"
        parts.append(form % (jsonable.encode(name), inner))
    return b"{%b}" % b",".join(parts)


def _event(event: Event) -> dict[str, Any]:
    return {one.name: masked(getattr(event, one.name)) for one in fields(event)}


def _request(request: Received) -> dict[str, Any]:
    said = {one.name: getattr(request, one.name) for one in fields(request) if one.name != "body"}
    return {
        **said,
        "headers": masked_headers(request.headers),
        "payload": masked(request.payload),
    }


def _number(query: Query, name: str, default: Any = None, kind: Callable[[str], Any] = int) -> Any:
    text = query.get(name)
    if text is None:
        return default
    number = kind(text)
    if not 0 <= number < 2**53:
        raise ValueError(f"{name}: a number from 0 on")
    return number
