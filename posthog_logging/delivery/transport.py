"""
The only HTTP: `Transport` is the seam, `RequestsTransport` what is used by default.

`use` keeps what it would send to other machines on this one, as under pytest.

An answer and an error are both values: `send` never raises. Redirects are not followed
(they drop the body), ``.netrc`` is not read, and errors name no URL: one may hold a key.
"""

from __future__ import annotations

import copy
import http.client
import os
import time

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests

from ..wire import Request, Response


__all__ = ["LOCAL_ONLY", "MemoryTransport", "RequestsTransport", "Transport", "diverted", "use"]

#: The environment variable by which the children of a process that keeps events here do, too.
LOCAL_ONLY = "POSTHOG_LOGGING_LOCAL_ONLY"

_THIS_MACHINE = frozenset({"127.0.0.1", "localhost", "::1"})
_LARGEST_ANSWER = 16 * 1024 * 1024


class Transport(Protocol):
    """Something that makes one HTTP attempt."""

    def send(self, request: Request, timeout: float) -> Response:
        """Make one attempt within *timeout* seconds; an error is a `Response` without a status."""

    def close(self) -> None:
        """Give back connections; a later `send` may open new ones."""


class MemoryTransport:
    """
    Keep requests instead of sending them, and answer as a server that takes every event.

    Args:
        capacity: how many requests are kept, the newest ones.
    """

    def __init__(self, capacity: int = 100) -> None:
        self.requests: deque[Request] = deque(maxlen=capacity)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.requests)} request(s)>"

    def send(self, request: Request, timeout: float) -> Response:
        """Keep *request*; V1 wants verdicts, and takes what none names as delivered."""
        self.requests.append(request)
        return Response(200, body=b'{"results":{}}')

    def close(self) -> None:
        """Do nothing: what was kept can still be read."""


_detour: tuple[Transport | None, bool] = (
    (MemoryTransport(0), False) if os.environ.get(LOCAL_ONLY) else (None, False)
)


@contextmanager
def use(stand_in: Transport | None, *, everywhere: bool = False) -> Iterator[None]:
    """
    Let *stand_in* meanwhile take what each `RequestsTransport` would send to other machines.

    It is asked at every attempt, so handlers obey that exist already. None ends an outer one.

    Args:
        everywhere: whether it also takes what is for this machine.
    """
    global _detour
    before, _detour = _detour, (stand_in, everywhere)
    try:
        yield
    finally:
        _detour = before


def diverted(url: str) -> Transport | None:
    """Return what takes requests to *url* for now, see `use`; None where they are sent."""
    stand_in, everywhere = _detour
    if stand_in is None or everywhere or urlsplit(url).hostname not in _THIS_MACHINE:
        return stand_in
    return None


class RequestsTransport:
    """
    Send with ``requests``, over one pooled connection.

    Args:
        proxies: a mapping as in ``requests``; the environment's where None.
        verify: a CA bundle's path, or False to trust anybody.
        cert: a client certificate's path, or the paths of certificate and key.
        auth: a ``requests`` auth, for a proxy of your own.
        session: a session of your own; it keeps its settings.
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

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def send(self, request: Request, timeout: float) -> Response:
        """Make one attempt, and a second at once where a pooled connection had gone stale."""
        deadline = time.monotonic() + timeout
        warm = self._warm
        self._warm = False
        try:
            try:
                response = self._attempt(request, deadline)
            except requests.ConnectionError as error:
                if not (warm and _is_stale(error)):
                    raise
                response = self._attempt(request, deadline)
        except Exception as error:  # urllib3 and ssl let some of theirs through unwrapped
            return Response(None, error=_describe(error))
        self._warm = True
        return response

    def close(self) -> None:
        """Close the connections of this process."""
        session, self._session = self._session, None
        if session is not None and session is not self._given and self._pid == os.getpid():
            _close_pools(session)
            session.close()

    def _attempt(self, request: Request, deadline: float) -> Response:
        stand_in = diverted(request.url)
        if stand_in is not None:
            return stand_in.send(request, deadline - time.monotonic())
        session = self._open(request.url)
        prepared = self._prepared(session, request)
        left = max(0.001, deadline - time.monotonic())
        with session.send(
            prepared, timeout=left, allow_redirects=False, **self._resolved
        ) as response:
            return Response(
                response.status_code,
                {name.lower(): value for name, value in response.headers.items()},
                _read(response, deadline),
            )

    def _prepared(self, session: requests.Session, request: Request) -> requests.PreparedRequest:
        # An auth of ours, even one that does nothing, keeps `requests` from reading .netrc.
        auth = self._auth or session.auth or _no_auth
        if session is self._given or session.cookies:
            return session.prepare_request(
                requests.Request(
                    "POST", request.url, dict(request.headers), data=request.body, auth=auth
                )
            )
        # The same for a session of our own; most of it is the same each time, and costs as much
        # as all else that is done in Python for a request.
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
            # Kept alive on purpose: their finalisers take a lock that the parent may have held.
            self._inherited += [self._session, self._given]
            self._given = copy.deepcopy(self._given)
        self._pid = os.getpid()
        session = self._session = requests.Session() if self._given is None else self._given
        resolved = session.merge_environment_settings(
            url, self._proxies, True, self._verify, self._cert
        )
        self._resolved = dict(resolved)
        if self._given is None:
            session.trust_env = False  # asked once, above; asking for each request costs 0.2 ms
        return session


def _close_pools(session: requests.Session) -> None:
    """
    Close the connections themselves.

    `session.close` leaves that to finalisers, which after the interpreter's exit do nothing.
    """
    for adapter in session.adapters.values():
        pools: Any = getattr(getattr(adapter, "poolmanager", None), "pools", {})
        for key in list(pools.keys()):
            pool = pools.get(key)
            if pool is not None:
                pool.close()


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _read(response: requests.Response, deadline: float) -> bytes:
    """Read the body within the deadline: a server that drips must not hold the thread."""
    chunks = []
    size = 0
    for chunk in _chunks(response):
        chunks.append(chunk)
        size += len(chunk)
        if size > _LARGEST_ANSWER or time.monotonic() > deadline:
            raise requests.ReadTimeout("the answer took too long or was too large")
    return b"".join(chunks)


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield what has come, as it comes: `iter_content` waits until a chunk is full."""
    read1 = getattr(response.raw, "read1", None)  # since urllib3 2.1
    if read1 is None:
        return iter(response.iter_content(65536))
    return iter(lambda: read1(65536, decode_content=True), b"")


def _is_stale(error: BaseException | None) -> bool:
    """Return whether *error* is what a kept-alive connection says that the server had closed."""
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
    """Return the names of *error* and its root, without texts: those may quote the URL."""
    names = [type(cause).__name__ for cause in _causes(error)]
    return names[0] if len(names) == 1 else f"{names[0]} ({names[-1]})"
