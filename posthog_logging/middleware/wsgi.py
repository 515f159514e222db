"""
`PostHogMiddleware` for any WSGI application: Flask, Django, Pyramid, or a plain function.

Every step of a request, including each step of a streamed body, runs in a copy of the server's
context, so that nothing bound in a request outlives it.
"""

from __future__ import annotations

import contextvars

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Unpack

from .front import Front, Options, Served, known
from .request import Request, clean, environ_path, environ_request, url_of


__all__ = ["PostHogMiddleware"]

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class PostHogMiddleware:
    """
    Attribute the events of each request to the person who sent it::

        app.wsgi_app = PostHogMiddleware(app.wsgi_app)

    Args:
        app: the application.
        options: see `posthog_logging.middleware.front.Options`; callables get the environ.
    """

    def __init__(self, app: Application, **options: Unpack[Options]) -> None:
        self._app = app
        self._front = Front("wsgi.middleware", _read, **known(options, PostHogMiddleware))

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        if self._front.ignores(environ):
            return self._app(environ, start_response)
        around = contextvars.copy_context()
        served, body = around.run(self._serve, environ, start_response)
        if _is_complete(body, environ):
            around.run(served.end)
            return body
        return (_SizedBody if hasattr(body, "__len__") else _Body)(body, around, served)

    def _serve(
        self, environ: Environ, start_response: Callable[..., Any]
    ) -> tuple[Served, Iterable[bytes]]:
        served = self._front.begin(environ)

        def started(status: str, *rest: Any, **more: Any) -> Any:
            served.answered(_status(status))
            return start_response(status, *rest, **more)

        try:
            return served, self._app(environ, started)
        except Exception as error:
            served.failed(error)
            served.end()
            raise


class _Body:
    """A body that is generated while it is sent, each step in the request's context."""

    def __init__(self, body: Any, around: contextvars.Context, served: Served) -> None:
        self._body = body
        self._iterator: Iterator[bytes] | None = None
        self._around = around
        self._served = served

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> bytes:
        return self._around.run(self._step)

    def close(self) -> None:
        """Close the application's body (PEP 3333), and end the request."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                self._around.run(close)
        finally:
            self._around.run(self._served.end)

    def _step(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._body)
            return next(self._iterator)
        except StopIteration:
            raise
        except Exception as error:
            self._served.failed(error)
            raise


class _SizedBody(_Body):
    """A body with a length: for a single part, servers take ``Content-Length`` from it."""

    def __len__(self) -> int:
        return len(self._body)


def _is_complete(body: Any, environ: Environ) -> bool:
    """Return whether *body* is sent without running code of the application."""
    wrapper = environ.get("wsgi.file_wrapper")  # left as it is, for the server's `sendfile`
    return isinstance(body, (list, tuple, *([wrapper] if isinstance(wrapper, type) else [])))


def _read(environ: Environ) -> Request:
    host = clean(environ.get("HTTP_HOST")) or environ.get("SERVER_NAME")
    scheme = environ.get("wsgi.url_scheme", "http")
    path = environ_path(environ).encode("latin-1", "replace").decode("utf-8", "replace")
    url = url_of(scheme, host, path, environ.get("QUERY_STRING"))
    return environ_request(environ, url, host)


def _status(line: Any) -> int | None:
    code = line[:3] if isinstance(line, str) else ""
    return int(code) if code.isdecimal() else None
