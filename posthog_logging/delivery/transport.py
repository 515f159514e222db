"""
The only HTTP: `Transport` is the seam, and `RequestsTransport` the default.

`use` keeps on this machine what would go to others, as under pytest.

An answer and an error are both values: `send` never raises. Only redirects that keep the body
are followed, and only to the same server. ``.netrc`` is not read. Errors name no URL, as one may
hold a key.
"""

from __future__ import annotations

import http.client
import io
import os
import sys

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

import requests

from urllib3 import HTTPResponse, PoolManager

from ..wire import Request, Response
from .clock import monotonic
from .deadline import BoundedAdapter, aside, time_left, until


__all__ = ["LOCAL_ONLY", "MemoryTransport", "RequestsTransport", "Transport", "diverted", "use"]

#: The environment variable that makes child processes keep events on this machine, too.
LOCAL_ONLY = "POSTHOG_LOGGING_LOCAL_ONLY"

_THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1"})
_LARGEST_ANSWER = 16 * 1024 * 1024
_MOST_REDIRECTS = 3
_MOST_LEFT_BEHIND = 4  # threads
_PORTS = {"http": 80, "https": 443}


class Transport(Protocol):
    """What makes an HTTP attempt."""

    def send(self, request: Request, timeout: float) -> Response:
        """Make one attempt within *timeout* seconds; an error is a `Response` without a status."""

    def close(self) -> None:
        """Close connections; a later `send` may open new ones."""


class MemoryTransport:
    """
    Keep requests instead of sending them, and answer like a server that takes every event.

    Args:
        capacity: how many requests are kept, the newest ones.
    """

    def __init__(self, capacity: int = 100) -> None:
        self.requests: deque[Request] = deque(maxlen=capacity)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.requests)} request(s)>"

    def send(self, request: Request, timeout: float) -> Response:
        """Keep *request*; in V1, events without a verdict in the answer are delivered."""
        self.requests.append(request)
        return Response(200, body=b'{"results":{}}')

    def close(self) -> None:
        """Do nothing: the requests can still be read."""


_detour: tuple[Transport | None, bool] = (
    (MemoryTransport(0), False) if os.environ.get(LOCAL_ONLY) else (None, False)
)


@contextmanager
def use(stand_in: Transport | None, *, everywhere: bool = False) -> Iterator[None]:
    """
    Give *stand_in* what any `RequestsTransport` would send to other machines, within a ``with``.

    This concerns existing handlers, too, as each attempt looks. None ends an outer `use`.

    Args:
        everywhere: whether *stand_in* also gets what is for this machine.
    """
    global _detour
    before, _detour = _detour, (stand_in, everywhere)
    try:
        yield
    finally:
        _detour = before


def diverted(url: str) -> Transport | None:
    """Return what `use` gives requests for *url* to; None if they are sent."""
    stand_in, everywhere = _detour
    if stand_in is None or everywhere or urlsplit(url).hostname not in _THIS_MACHINE:
        return stand_in
    return None


class RequestsTransport:
    """
    Send with ``requests``, over one pooled connection.

    A session of your own brings its own connections. Each attempt with it runs in another thread,
    which is left behind if it hangs, and this library cannot keep it from logging URLs.

    Args:
        proxies: a mapping as in ``requests``; None: the environment's.
        verify: the path of a CA bundle, or False to trust any server.
        cert: the path of a client certificate, or the paths of certificate and key.
        auth: a ``requests`` auth, for a proxy of your own.
        session: a session of your own, which keeps its settings.
    """

    def __init__(
        self,
        *,
        proxies: dict[str, str] | None = None,
        verify: bool | str | None = None,
        cert: str | tuple[str, str] | None = None,
        auth: Any = None,
        session: requests.Session | None = None,
    ) -> None:
        self._proxies = dict(proxies or {})  # a copy: `requests` adds the environment's to it
        self._verify = verify
        self._cert = cert
        self._auth = auth
        self._given = session
        self._session: requests.Session | None = None
        self._resolved: dict[str, Any] = {}
        self._pid = 0
        self._warm = False
        self._inherited: list[Any] = []
        self._blanks: dict[str, requests.PreparedRequest] = {}
        self._left_behind: list[Future[Response]] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def send(self, request: Request, timeout: float) -> Response:
        """
        Make one attempt, and at once a second if the server had closed a pooled connection.

        Both end within *timeout* seconds, whatever the resolver, a proxy or the server does.
        """
        deadline = monotonic() + timeout
        try:
            stand_in = diverted(request.url)
            if stand_in is not None:
                return stand_in.send(request, timeout)
            session = self._open(request.url)
            if session is self._given:
                return self._send_aside(session, request, deadline)
            return self._send(session, request, deadline)
        except Exception as error:  # not all errors of urllib3 and ssl come wrapped
            return Response(None, error=_describe(error))

    def close(self) -> None:
        """Close the connections of this process."""
        session, self._session = self._session, None
        if session is not None and session is not self._given and self._pid == os.getpid():
            _close_pools(session)
            session.close()

    def _send_aside(
        self, session: requests.Session, request: Request, deadline: float
    ) -> Response:
        """Send in another thread: nothing else bounds a user's session."""
        self._left_behind = [one for one in self._left_behind if not one.done()]
        if len(self._left_behind) >= _MOST_LEFT_BEHIND:
            wait(self._left_behind, max(0.0, deadline - monotonic()), FIRST_COMPLETED)
            raise TimeoutError("earlier attempts still hang")
        partial: list[_Partial] = []
        attempt = aside(lambda: self._send(session, request, deadline, partial))
        try:
            return attempt.result(max(0.0, deadline - monotonic()))
        except TimeoutError as error:
            self._left_behind.append(attempt)
            if not partial:
                raise
            return partial[-1].response(_describe(error))

    def _send(
        self,
        session: requests.Session,
        request: Request,
        deadline: float,
        partial: list[_Partial] | None = None,
    ) -> Response:
        """Make one attempt, or two; *partial* has what has come of the answer so far."""
        partial = [] if partial is None else partial
        warm = self._warm
        self._warm = False
        with until(deadline), _untraced():
            try:
                response = self._follow(session, request, partial)
            except requests.ConnectionError as error:
                if not (warm and _is_stale(error)):
                    raise
                response = self._follow(session, request, partial)
        self._warm = True
        return response

    def _follow(
        self, session: requests.Session, request: Request, partial: list[_Partial]
    ) -> Response:
        """Make one attempt; follow redirects to the same server."""
        response = self._attempt(session, request, partial)
        for _ in range(_MOST_REDIRECTS):
            url = _elsewhere(request.url, response)
            if url is None:
                break
            request = request._replace(url=url)
            response = self._attempt(session, request, partial)
        return response

    def _attempt(
        self, session: requests.Session, request: Request, partial: list[_Partial]
    ) -> Response:
        partial.clear()
        prepared = self._prepared(session, request)
        with session.send(
            prepared, timeout=time_left(), allow_redirects=False, **self._resolved
        ) as answer:
            if answer.status_code < 200:  # the final answer is still to come
                answer.raw.close()
                raise requests.ConnectionError("an interim answer, and no final one")
            headers = {name.lower(): value for name, value in answer.headers.items()}
            came = _Partial(answer.status_code, headers, [])
            partial.append(came)
            return came.response(_read(answer, came.pieces))

    def _prepared(self, session: requests.Session, request: Request) -> requests.PreparedRequest:
        # An auth, even one that does nothing, keeps `requests` from reading .netrc.
        auth = self._auth or session.auth or _no_auth
        if session is self._given or session.cookies:
            return session.prepare_request(
                requests.Request(
                    "POST", request.url, dict(request.headers), data=request.body, auth=auth
                )
            )
        # The same, for a session of our own. Most of it never changes, and preparing it takes as
        # long as everything else that Python does for a request.
        if request.url not in self._blanks:
            blank = requests.Request("POST", request.url, auth=_no_auth)
            self._blanks[request.url] = session.prepare_request(blank)
        prepared = self._blanks[request.url].copy()
        prepared.headers.update(request.headers)
        prepared.body = request.body
        prepared.headers["Content-Length"] = str(len(request.body))
        if auth is not _no_auth:
            prepared.prepare_auth(auth, request.url)
        return prepared

    def _open(self, url: str) -> requests.Session:
        """Return this process's session: connections are never shared across a fork."""
        if self._session is not None and self._pid == os.getpid():
            return self._session
        if self._pid not in (0, os.getpid()):
            self._leave_to_the_parent()
        self._pid = os.getpid()
        session = self._session = _own_session() if self._given is None else self._given
        resolved = session.merge_environment_settings(
            url, self._proxies, True, self._verify, self._cert
        )
        self._resolved = dict(resolved)
        if self._given is None:
            session.trust_env = False  # read once, above; for each request it would cost 0.2 ms
        return session

    def _leave_to_the_parent(self) -> None:
        """Give a user's session new pools in a forked child, which leaves the parent's alone."""
        # These stay alive on purpose: their finalisers take a lock that the parent may have held.
        self._inherited.append(self._session)
        self._left_behind = []
        self._warm = False
        for manager in _managers(self._given):
            self._inherited.append(manager.pools)
            manager.pools = PoolManager().pools


class _Partial(NamedTuple):
    """An answer whose head has come, with what has come of its body."""

    status: int
    headers: dict[str, str]
    pieces: list[bytes]

    def response(self, error: str) -> Response:
        """Return what has come as an answer; *error* says why it is not all."""
        body = _decoded(b"".join(self.pieces), self.headers)
        return Response(self.status, self.headers, body, error)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Look for none: `requests` does it even if it must not follow one, and may raise."""


def _own_session() -> requests.Session:
    session = _Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, BoundedAdapter())
    return session


def _managers(session: requests.Session | None) -> Iterator[Any]:
    """Yield the pool managers of *session*, including those for proxies."""
    for adapter in session.adapters.values() if session is not None else ():
        managers = (
            getattr(adapter, "poolmanager", None),
            *getattr(adapter, "proxy_manager", {}).values(),
        )
        yield from (one for one in managers if hasattr(one, "pools"))


def _close_pools(session: requests.Session) -> None:
    """
    Close the connections of *session*.

    `session.close` leaves that to finalisers, which do nothing after the interpreter's exit.
    """
    for manager in _managers(session):
        for key in list(manager.pools.keys()):
            pool = manager.pools.get(key)
            if pool is not None:
                pool.close()


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


@contextmanager
def _untraced() -> Iterator[None]:
    """Keep our requests out of the user's traces, if OpenTelemetry is imported."""
    context = sys.modules.get("opentelemetry.context")
    if context is None:
        yield
        return
    mine = context.get_current()
    for name in ("suppress_instrumentation", "suppress_http_instrumentation"):
        for key in (name, getattr(context, f"_{name.upper()}_KEY", name)):  # of all versions
            mine = context.set_value(key, True, mine)
    token = context.attach(mine)
    try:
        yield
    finally:
        context.detach(token)


def _elsewhere(url: str, response: Response) -> str | None:
    """Return where the same server redirects the request to (RFC 9110, 15.4.8 and 15.4.9)."""
    location = response.headers.get("location")
    if response.status not in (307, 308) or not location:
        return None
    try:
        target = urljoin(url, location)
        return target if _origin(target) == _origin(url) else None
    except ValueError:
        return None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return scheme, host and port (RFC 6454, 4)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _read(response: requests.Response, into: list[bytes]) -> str:
    """
    Read the body as it comes; return why it is not whole, "" if it is.

    The status counts even if the body drips or never ends: without an answer the attempt would
    be repeated for ever.
    """
    size = 0
    try:
        for piece in _pieces(response):
            into.append(piece)
            size += len(piece)
            if size > _LARGEST_ANSWER:
                return "too large"
            time_left()
    except Exception as error:
        return _describe(error)
    return ""


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it comes: `iter_content` would wait until a chunk is full."""
    raw = response.raw
    if not hasattr(raw, "stream"):  # not urllib3's: a recorder's, or made by hand
        return iter([response.content or b""])
    if not hasattr(raw, "read1"):  # before urllib3 2.1
        return iter(raw.stream(65536, decode_content=False))
    return iter(lambda: raw.read1(65536, decode_content=False), b"")


def _decoded(body: bytes, headers: Mapping[str, str]) -> bytes:
    """Undo the content coding of *body*; return it unchanged if the header is wrong."""
    if "content-encoding" not in headers:
        return body
    coded = HTTPResponse(io.BytesIO(body), dict(headers), preload_content=False)
    pieces: list[bytes] = []
    try:
        for piece in coded.stream(65536, decode_content=True):
            pieces.append(piece)
            if len(pieces) * 65536 > _LARGEST_ANSWER:
                break
    except Exception:
        return body
    return b"".join(pieces)


def _is_stale(error: BaseException | None) -> bool:
    """Return whether *error* means that the server had closed a kept-alive connection."""
    closed = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
    return any(isinstance(cause, closed) for cause in _causes(error))


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return *error* and all that is wrapped in it, outermost first."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(found) < 20:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and cause not in found:
            found.append(cause)
            waiting += [
                *cause.args,
                getattr(cause, "reason", None),
                cause.__cause__,
                cause.__context__,
            ]
    return found


def _describe(error: BaseException) -> str:
    """Return the types of *error* and of its root, without texts, which may quote the URL."""
    names = [type(cause).__name__ for cause in _causes(error)]
    return names[0] if len(names) == 1 else f"{names[0]} ({names[-1]})"
