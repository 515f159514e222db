"""
`PostHogMiddleware` in Django's own style, for synchronous and asynchronous stacks alike.

It never touches ``request.user``, which in an asynchronous stack may not be touched, unless
a *user* of yours does.
"""

from __future__ import annotations

import contextvars

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from .. import context
from ..context import Bound
from .request import STATUS, Front, from_environ


__all__ = ["PostHogMiddleware"]


class PostHogMiddleware:
    """
    Attribute the events of each request to who sent it.

    Name it in ``MIDDLEWARE``, after ``AuthenticationMiddleware`` where a *user* asks for the
    user. To give it arguments, name a factory of your own::

        @sync_and_async_middleware
        def posthog(get_response):
            return PostHogMiddleware(get_response, user=lambda request: request.user.pk)

    Args:
        get_response: Django's.
        handler: a `PostHogHandler` that reports exceptions which become a 500.
        user: called with the request, returns the authenticated user's id or None; in an
            asynchronous stack it may be ``async``. It wins over the header's. What it raises
            is told, and the request is served.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self,
        get_response: Callable[[Any], Any],
        *,
        handler: Any = None,
        user: Callable[[Any], Any] | None = None,
    ) -> None:
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction

        self._get_response = get_response
        self._front = Front("django.middleware", handler, user)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serve one request; in an asynchronous stack, return what serves it."""
        if self._is_async:
            return self._serve(request)
        with self._front.identified(request, _described):
            return _followed(self._get_response(request))

    async def _serve(self, request: Any) -> Any:
        with await self._front.identified_async(request, _described):
            return _followed(await self._get_response(request))

    def process_exception(self, request: Any, exception: Exception) -> None:
        """Report what a view raised, if Django answers it with a 500."""
        if not isinstance(exception, _answers()):
            self._front.report(exception)


def _answers() -> tuple[type[Exception], ...]:
    """Return the exceptions by which a view says what to answer, 400, 403 or 404."""
    from django.core import exceptions
    from django.http import Http404

    return (
        Http404,
        exceptions.BadRequest,
        exceptions.PermissionDenied,
        exceptions.SuspiciousOperation,
    )


def _described(request: Any) -> Bound:
    try:
        url = request.build_absolute_uri()
    except Exception:  # a host that is not among ALLOWED_HOSTS, which is Django's to refuse
        url = None
    return from_environ(request.META, url)


def _followed(response: Any) -> Any:
    """Return *response*; a streamed body is made in the request's context, where it is sent."""
    context.bind(**{STATUS: response.status_code})
    # A file is left alone: wrapped, it would lose the server's own way of sending it.
    if response.streaming and getattr(response, "file_to_stream", None) is None:
        content = response.streaming_content
        if getattr(response, "is_async", False):
            response.streaming_content = _follow_async(content, context.current())
        else:
            response.streaming_content = _follow(content, contextvars.copy_context())
    return response


def _follow(content: Iterator[bytes], around: contextvars.Context) -> Iterator[bytes]:
    end = object()
    while (chunk := around.run(next, content, end)) is not end:
        yield chunk  # type: ignore[misc]  # mypy does not see that `end` is left out


async def _follow_async(
    content: AsyncIterator[bytes], bound: Bound | None
) -> AsyncIterator[bytes]:
    distinct_id, properties = bound or Bound()
    while True:
        # Not around the `yield`: who iterates has a context of its own between two steps.
        with context.identity(distinct_id, **properties):
            try:
                chunk = await content.__anext__()
            except StopAsyncIteration:
                return
        yield chunk
