"""
`PostHogMiddleware` for any ASGI application: FastAPI, Starlette, Django, or a plain function.

Only HTTP requests are handled; websockets pass through. With a *handler*, the end of the
lifespan delivers what the handler has queued.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Unpack

from ..delivery.waiting import in_thread
from .front import Front, Options, known
from .request import Request, url_of


__all__ = ["PostHogMiddleware"]

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class PostHogMiddleware:
    """
    Attribute the events of each request to the person who sent it::

        app.add_middleware(PostHogMiddleware)

    Args:
        app: the application.
        lifespan: True answers the lifespan protocol for an application that does not support
            it, such as Django, so that the *handler* delivers at its end.
        options: see `posthog_logging.middleware.front.Options`; callables get the scope. The
            *handler* also delivers its queue when the lifespan ends. Uvicorn needs that: it
            ends by raising its signal again, which kills the process without ``atexit``.
            A middleware that sets what *user* reads must be outside this one.
    """

    def __init__(
        self, app: Application, *, lifespan: bool = False, **options: Unpack[Options]
    ) -> None:
        self._app = app
        self._answers_lifespan = lifespan
        self._front = Front("asgi.middleware", _read, **known(options, PostHogMiddleware))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection: a request, a websocket or the lifespan."""
        if scope["type"] == "lifespan" and self._front.handler is not None:
            await self._lifespan(scope, receive, send)
        elif scope["type"] != "http" or self._front.ignores(scope):
            await self._app(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        with await self._front.begin_async(scope) as served:

            async def sent(event: Event) -> None:
                if event["type"] == "http.response.start":
                    served.answered(event.get("status"))
                await send(event)

            await self._app(scope, receive, sent)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan, and deliver before the server is informed of its end."""
        untouched = True

        async def received() -> Event:
            nonlocal untouched
            untouched = False
            return await receive()

        async def sent(event: Event) -> None:
            nonlocal untouched
            untouched = False
            if event["type"].startswith("lifespan.shutdown"):
                await in_thread(self._front.handler.flush)
            await send(event)

        try:
            await self._app(scope, received, sent)
        except Exception:
            if not (untouched and self._answers_lifespan):
                raise
        if untouched and self._answers_lifespan:
            for phase in ("startup", "shutdown"):
                await receive()
                await sent({"type": f"lifespan.{phase}.complete"})


def _read(scope: Scope) -> Request:
    headers: dict[bytes, bytes] = {}
    for name, value in scope.get("headers") or ():
        key = name.lower()
        # A header may be sent in several lines, and HTTP/2 splits cookies (RFC 9113, 8.2.3).
        separator = b"; " if key == b"cookie" else b", "
        earlier = headers.get(key) if key in _JOINED else None
        headers[key] = value if earlier is None else earlier + separator + value
    path = scope.get("path") or "/"
    host = headers.get(b"host") or _server(scope)
    client = scope.get("client") or (None,)

    def header(name: str) -> Any:
        value = headers.get(name.encode())
        return value.decode("latin-1") if isinstance(value, bytes) else value

    return Request(
        scope.get("method"),
        path,
        url_of(scope.get("scheme", "http"), host, path, scope.get("query_string")),
        host,
        scope.get("query_string"),
        client[0],
        header,
    )


_JOINED = frozenset({b"cookie", b"forwarded", b"x-forwarded-for"})


def _server(scope: Scope) -> str | None:
    host, port = scope.get("server") or (None, None)
    return f"{host}:{port}" if host and port else host
