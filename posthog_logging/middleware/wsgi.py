"""
`PostHogMiddleware` for any WSGI application: Flask, Django, Pyramid, or a plain function.

Every step of a request, a streamed body's too, runs in a copy of the server's context, so
nothing that a request binds can outlive it.
"""

from __future__ import annotations

import contextvars

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import context
from ..context import Bound
from .request import STATUS, Front, clean, environ_path, from_environ, url_of


__all__ = ["PostHogMiddleware"]

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class PostHogMiddleware:
    """
    Attribute the events of each request to who sent it::

        app.wsgi_app = PostHogMiddleware(app.wsgi_app)

    Args:
        app: the application.
        handler: a `PostHogHandler` that reports exceptions which escape the application.
        user: called with the environ, returns the authenticated user's id or None; it wins
            over the header's. What it raises is told, and the request is served.
    """

    def __init__(
        self,
        app: Application,
        *,
        handler: Any = None,
        user: Callable[[Environ], Any] | None = None,
    ) -> None:
        self._app = app
        self._front = Front("wsgi.middleware", handler, user)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        around = contextvars.copy_context()
        body = around.run(self._serve, environ, start_response)
        if _is_at_rest(body, environ):
            return body
        return _Body(body, around, self._front)

    def _serve(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        def started(status: str, *rest: Any, **more: Any) -> Any:
            context.bind(**_status(status))
            return start_response(status, *rest, **more)

        self._front.identified(environ, _described).__enter__()  # the context is ours alone
        try:
            return self._app(environ, started)
        except Exception as error:
            self._front.report(error)
            raise


class _Body:
    """A body that is made while it is sent, each step in the request's own context."""

    def __init__(self, body: Iterable[bytes], around: contextvars.Context, front: Front) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._around = around
        self._front = front

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        return self._around.run(self._step)

    def close(self) -> None:
        """Close the application's body, as PEP 3333 asks."""
        close = getattr(self._body, "close", None)
        if close is not None:
            self._around.run(close)

    def _step(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)
        except StopIteration:
            raise
        except Exception as error:
            self._front.report(error)
            raise


def _is_at_rest(body: Any, environ: Environ) -> bool:
    """Return whether no code of the application's runs while *body* is sent."""
    wrapper = environ.get("wsgi.file_wrapper")  # wrapped, it would lose the server's sendfile
    return isinstance(body, (list, tuple, *([wrapper] if isinstance(wrapper, type) else [])))


def _described(environ: Environ) -> Bound:
    host = clean(environ.get("HTTP_HOST")) or environ.get("SERVER_NAME")
    scheme = environ.get("wsgi.url_scheme", "http")
    path = environ_path(environ).encode("latin-1", "replace").decode("utf-8", "replace")
    return from_environ(environ, url_of(scheme, host, path, environ.get("QUERY_STRING")))


def _status(line: Any) -> dict[str, int]:
    code = line[:3] if isinstance(line, str) else ""
    return {STATUS: int(code)} if code.isdecimal() else {}
