"""
`PostHogMiddleware` for any ASGI application: FastAPI, Starlette, Django, or a plain function.

Only HTTP requests are looked at; websockets pass through untouched. So does the lifespan
without a *handler*; with one, its end is where the handler delivers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .. import context
from ..context import Bound
from .request import STATUS, Front, bound_to, url_of


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
        handler: a `PostHogHandler` that reports exceptions which escape the application, and
            that delivers what waits when the lifespan ends. Uvicorn needs that: it ends by
            raising its signal again, of which the process dies without running ``atexit``.
        user: called with the scope, returns the authenticated user's id or None, or is
            ``async`` and does; it wins over the header's. What it raises is told, and the
            request is served. Whatever it looks at must have run outside of this middleware.
    """

    def __init__(
        self,
        app: Application,
        *,
        handler: Any = None,
        user: Callable[[Scope], Any] | None = None,
    ) -> None:
        self._app = app
        self._handler = handler
        self._front = Front("asgi.middleware", handler, user)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or whatever else *scope* is."""
        if scope["type"] == "lifespan" and self._handler is not None:
            await _Lifespan(self._handler).live(self._app, scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sent(event: Event) -> None:
            if event["type"] == "http.response.start":
                context.bind(**{STATUS: event.get("status")})
            await send(event)

        with await self._front.identified_async(scope, _described):
            try:
                await self._app(scope, receive, sent)
            except Exception as error:
                self._front.report(error)
                raise


class _Lifespan:
    """One lifespan of an application, or in place of one that knows none, as Django."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._untouched = True

    async def live(self, app: Application, scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Event:
            self._untouched = False
            return await receive()

        async def sent(event: Event) -> None:
            self._untouched = False
            if event["type"].startswith("lifespan.shutdown"):
                await self._deliver()
            await send(event)

        try:
            await app(scope, received, sent)
        except Exception:
            if not self._untouched:
                raise
            await self._stand_in(receive, sent)

    async def _stand_in(self, receive: Receive, send: Send) -> None:
        for moment in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{moment}.complete"})

    async def _deliver(self) -> None:
        import asyncio

        await asyncio.to_thread(self._handler.flush)


def _described(scope: Scope) -> Bound:
    headers = {name.lower(): value for name, value in scope.get("headers") or ()}
    path = scope.get("path") or "/"
    host = headers.get(b"host") or _server(scope)
    client = scope.get("client") or (None,)
    return bound_to(
        distinct_id=headers.get(b"x-posthog-distinct-id"),
        session_id=headers.get(b"x-posthog-session-id"),
        method=scope.get("method"),
        path=path,
        url=url_of(scope.get("scheme", "http"), host, path, scope.get("query_string")),
        user_agent=headers.get(b"user-agent"),
        ip=client[0],
    )


def _server(scope: Scope) -> str | None:
    host, port = scope.get("server") or (None, None)
    return f"{host}:{port}" if host and port else host
