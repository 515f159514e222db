"""
`PostHogMiddleware` in Django's own style, for synchronous and asynchronous stacks alike.

It never touches ``request.user``, which in an asynchronous stack may not be touched, unless
your *user* does.
"""

from __future__ import annotations

import contextvars

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Unpack

from .. import context
from ..context import Bound, Kept
from ..delivery.checks import boolean
from .front import Front, Options, Served, known
from .request import Request, environ_request


__all__ = ["PostHogMiddleware", "Transactions", "on_commit"]

_MOST = 10_000  # events, and what else waits, for one transaction


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
        on_commit: True lets the events that a request logs inside ``atomic`` wait for the
            commit; see `Transactions`.
        options: see `posthog_logging.middleware.front.Options`; callables get the request. The
            *handler* reports exceptions which become a 500.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self,
        get_response: Callable[[Any], Any],
        *,
        on_commit: bool = False,
        **options: Unpack[Options],
    ) -> None:
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction

        self._get_response = get_response
        holder = Transactions() if boolean("on_commit", on_commit) else None
        self._front = Front(
            "django.middleware", _read, holder=holder, **known(options, PostHogMiddleware)
        )
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serve one request; in an asynchronous stack, return what serves it."""
        if self._is_async:
            return self._serve(request)
        if self._front.ignores(request):
            return self._get_response(request)
        with self._front.begin(request) as served:
            return _followed(self._get_response(request), served)

    async def _serve(self, request: Any) -> Any:
        if self._front.ignores(request):
            return await self._get_response(request)
        with await self._front.begin_async(request) as served:
            return _followed(await self._get_response(request), served)

    def process_exception(self, request: Any, exception: Exception) -> None:
        """Report what a view raised, if Django answers it with a 500."""
        if not isinstance(exception, _answers()) and not self._front.ignores(request):
            self._front.report(exception)


def on_commit(handler: Any) -> None:
    """
    Let the events that go to *handler* from inside ``atomic`` wait for the commit.

    For what is no request: tasks, commands, and programs without the middleware.
    """
    handler.hold_by(Transactions())


class Transactions:
    """
    Hold the events of a database transaction until ``transaction.on_commit``.

    An event waits for the connections that are inside ``atomic`` in its thread: several
    databases must all commit. It is dropped, and counted as ``rolled_back``, where one rolls
    back, also to a savepoint around the event; and where Django's ``TestCase`` never commits.
    Outside of ``atomic`` it goes on at once. For one transaction 10,000 of them wait; more
    are refused, and counted as ``held_full``.
    """

    def keep(self, kept: Kept) -> bool:
        """Let *kept* go when all that is open was committed."""
        waiting = _open_connections()
        if not waiting:
            kept.let_go()
            return True
        if any(len(connection.run_on_commit) >= _MOST for connection in waiting):
            kept.refuse("held_full")
            return False
        left = [len(waiting)]
        for connection in waiting:
            connection.on_commit(_Commit(kept, left))
        return True


class _Commit:
    """
    What Django is to do after a commit; it forgets this where there is none.

    Args:
        left: how many commits are still to come, in a list that they share.
    """

    def __init__(self, kept: Kept, left: list[int]) -> None:
        self._kept: Kept | None = kept
        self._left = left

    def __call__(self) -> None:
        kept, self._kept = self._kept, None
        self._left[0] -= 1
        if kept is not None and not self._left[0]:
            kept.let_go()

    def __del__(self) -> None:
        if self._kept is not None:
            self._kept.refuse("rolled_back")


def _open_connections() -> list[Any]:
    """Return the connections that are in a transaction, of this thread."""
    from django.db import connections

    return [one for one in connections.all(initialized_only=True) if one.in_atomic_block]


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


def _read(request: Any) -> Request:
    try:
        url, host = request.build_absolute_uri(), request.get_host()
    except Exception:  # a host that is not among ALLOWED_HOSTS, which is Django's to refuse
        url = host = None
    return environ_request(request.META, url, host)


def _followed(response: Any, served: Served) -> Any:
    """Return *response*; a streamed body is made in the request's context, where it is sent."""
    served.answered(response.status_code)
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
    while True:
        # Not around the `yield`: who iterates has a context of its own between two steps.
        token = context.enter(bound or Bound())
        try:
            chunk = await content.__anext__()
        except StopAsyncIteration:
            return
        finally:
            context.leave(token)
        yield chunk
