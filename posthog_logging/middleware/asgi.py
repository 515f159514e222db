"""
`PostHogMiddleware` for any ASGI application: FastAPI, Starlette, Django, or a plain function.

Only HTTP requests are looked at; websockets pass through untouched. So does the lifespan
without a *handler*; with one, its end is where the handler delivers.
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
    Attribute the events of each request to who sent it::

        app.add_middleware(PostHogMiddleware)

    Args:
        app: the application.
        lifespan: True takes part in the lifespan in place of an application that knows none,
            as Django: then there is an end of it at which the *handler* can deliver.
        options: see `posthog_logging.middleware.front.Options`; callables get the scope. The
            *handler* also delivers what waits when the lifespan ends. Uvicorn needs that: it
            ends by raising its signal again, of which the process dies without ``atexit``.
            Whatever *user* looks at must have run outside of this middleware.
    """

    def __init__(
        self, app: Application, *, lifespan: bool = False, **options: Unpack[Options]
    ) -> None:
        self._app = app
        self._stands_in = lifespan
        self._front = Front("asgi.middleware", _read, **known(options, PostHogMiddleware))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or whatever else *scope* is."""
        if scope["type"] == "lifespan" and self._front.handler is not None:
            await self._live(scope, receive, send)
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

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Live through a lifespan, and deliver before the server learns that it has ended."""
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
            if not (untouched and self._stands_in):
                raise
            for moment in ("startup", "shutdown"):
                await receive()
                await sent({"type": f"lifespan.{moment}.complete"})


def _read(scope: Scope) -> Request:
    headers: dict[bytes, bytes] = {}
    for name, value in scope.get("headers") or ():
        key = name.lower()
        # A header may come in parts, and a cookie does in HTTP/2 (RFC 9113, 8.2.3).
        between = b"; " if key == b"cookie" else b", "
        earlier = headers.get(key) if key in _IN_PARTS else None
        headers[key] = value if earlier is None else earlier + between + value
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


_IN_PARTS = frozenset({b"cookie", b"forwarded", b"x-forwarded-for"})


def _server(scope: Scope) -> str | None:
    host, port = scope.get("server") or (None, None)
    return f"{host}:{port}" if host and port else host
