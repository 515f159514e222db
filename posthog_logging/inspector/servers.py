"""
Servers other than PostHog's cloud that a sender may meet, each under a name.

A `Server` acts before the inspector judges a request: it answers by itself, or removes headers.
They are for testing a sender's fallback to the older protocol, also by hand:
``posthog-logging serve --play old-server``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .answers import Answer


__all__ = ["SERVERS", "Server", "Visit", "server_of"]


@dataclass(frozen=True)
class Visit:
    """
    One request to such a server.

    Args:
        number: counts the requests to this path, from 1.
    """

    method: str
    path: str
    number: int

    @property
    def is_v1(self) -> bool:
        """Whether the path belongs to the newer protocol."""
        return self.path.startswith("/i/v1/")


@dataclass(frozen=True)
class Server:
    """
    A server by name.

    Args:
        name: as in `SERVERS`.
        description: one sentence, for help texts.
        answer: returns the answer to a visit, or None to have the request judged.
        strips: the headers that are removed, in lower case.
    """

    name: str
    description: str
    answer: Callable[[Visit], Answer | None] = lambda visit: None
    strips: frozenset[str] = frozenset()

    def visited(self, method: str, path: str, number: int) -> Answer | None:
        """Return the answer to the *number*-th request to *path*; None is the real one."""
        return self.answer(Visit(method, path, number))


def _html(status: int, title: str, **headers: str) -> Answer:
    page = f"<!doctype html><html><head><title>{title}</title></head><body>{title}</body></html>"
    kind = {"Content-Type": "text/html; charset=utf-8"}
    return Answer(status, {**kind, **headers}, page.encode(), bare=True)


_NOT_FOUND = Answer(404, bare=True)
_CSRF = _html(403, "CSRF verification failed. Request aborted.")
_APP = _html(200, "PostHog")
_LOGIN = _html(200, "Log in")
_TO_LOGIN = _html(302, "Found", Location="/login?next=/")
_MOVED = Answer(308, {"Location": "/batch"}, bare=True)


def _old(visit: Visit) -> Answer | None:
    return _NOT_FOUND if visit.is_v1 else None


def _hobby(visit: Visit) -> Answer | None:
    if not visit.is_v1:
        return None
    return _CSRF if visit.method == "POST" else _APP


def _login(visit: Visit) -> Answer | None:
    return _LOGIN if visit.path == "/login" else _TO_LOGIN


def _hobby_with_login(visit: Visit) -> Answer | None:
    return _login(visit) if visit.is_v1 or visit.path == "/login" else None


def _catch_all(visit: Visit) -> Answer | None:
    return _APP


def _rolling(visit: Visit) -> Answer | None:
    """Answer every third request as an instance of the old version does."""
    return _NOT_FOUND if visit.is_v1 and visit.number % 3 == 0 else None


def _without_slash(visit: Visit) -> Answer | None:
    return _MOVED if visit.path == "/batch/" else _old(visit)


_ALL = (
    Server("old-server", "self-hosted, from before V1: 404 without a body there", _old),
    Server("hobby", "a hobby installation: Django refuses V1 with 403 and a page", _hobby),
    Server("hobby-login", "one that sends V1 to its login page: 302", _hobby_with_login),
    Server("login", "a gateway that wants a login for everything: 302", _login),
    Server("catch-all", "a web application that answers everything: 200 and a page", _catch_all),
    Server("next-proxy", "an old server behind a proxy that moves /batch/: 308", _without_slash),
    Server("rolling", "a rolling deployment: V1, with a 404 now and then", _rolling),
    Server(
        "stripping-proxy",
        "a proxy that takes the Authorization header away: V1 answers missing_authorization",
        strips=frozenset({"authorization"}),
    ),
)

#: The servers by name.
SERVERS: Mapping[str, Server] = MappingProxyType({one.name: one for one in _ALL})


def server_of(name: str | None) -> Server | None:
    """Return the server of that name; raises ``ValueError`` for an unknown one."""
    if name is None:
        return None
    if not isinstance(name, str) or name not in SERVERS:
        raise ValueError(f"play: {name!r} is not a known server; there are {', '.join(SERVERS)}")
    return SERVERS[name]
