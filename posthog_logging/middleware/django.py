"""
`PostHogMiddleware` for Django's ``MIDDLEWARE``, in synchronous and asynchronous stacks.

It does not read ``request.user``, which queries the database and is not allowed in an
asynchronous stack; only your *user* callable may.
"""

from __future__ import annotations

import contextvars
import sys

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Unpack

from .. import context
from ..context import Bound, Kept
from ..delivery.checks import boolean
from .front import Front, Options, Served, known
from .request import Request, environ_request


__all__ = ["PostHogMiddleware", "Transactions", "on_commit"]

# The attribute of a request that is in the middleware: the fronts that it is in, outer ones first.
_FRONTS = "_posthog_fronts"
_MOST = 10_000  # on-commit callbacks of one transaction, of events and others


class PostHogMiddleware:
    """
    Attribute the events of each request to the person who sent it.

    List it in ``MIDDLEWARE``, after ``AuthenticationMiddleware`` if your *user* callable reads
    ``request.user``. To pass arguments, list a factory::

        @sync_and_async_middleware
        def posthog(get_response):
            return PostHogMiddleware(get_response, user=lambda request: request.user.pk)

    Args:
        get_response: Django's.
        on_commit: True holds events that a request logs inside ``atomic`` until the commit;
            see `Transactions`.
        options: see `posthog_logging.middleware.front.Options`; callables get the request. The
            *handler* reports exceptions that become a 500, of views and of middlewares listed
            below this one, and those of streamed bodies. *http_log* logs a streamed response
            before its body.
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
        from django.core.signals import got_request_exception

        self._get_response = get_response
        holder = Transactions() if boolean("on_commit", on_commit) else None
        self._front = Front(
            "django.middleware", _read, holder=holder, **known(options, PostHogMiddleware)
        )
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        got_request_exception.connect(_failed, weak=False, dispatch_uid=_FRONTS)

    def __call__(self, request: Any) -> Any:
        """Serve one request; in an asynchronous stack, return a coroutine that does."""
        if self._is_async:
            return self._serve(request)
        if self._front.ignores(request):
            return self._get_response(request)
        with self._front.begin(request) as served, _inside(request, self._front):
            return _with_context(self._get_response(request), served)

    async def _serve(self, request: Any) -> Any:
        if self._front.ignores(request):
            return await self._get_response(request)
        with await self._front.begin_async(request) as served, _inside(request, self._front):
            return _with_context(await self._get_response(request), served)


def on_commit(handler: Any) -> None:
    """
    Hold events for *handler* that are logged inside ``atomic`` until the commit.

    For code outside requests, such as tasks and commands, and for programs without the
    middleware. See `Transactions`.
    """
    handler.hold_by(Transactions())


class Transactions:
    """
    Hold the events of a database transaction until ``transaction.on_commit``.

    An event waits for every connection that is inside ``atomic`` in its thread: all of them must
    commit. If one rolls back, even just to a savepoint of an ``atomic`` around the event, the
    event is dropped and counted as ``rolled_back``; so it is in Django's ``TestCase``, which
    never commits. ``transaction.savepoint_rollback`` drops no events, as Django itself keeps
    its ``on_commit`` callbacks. Outside ``atomic`` an event is sent at once. One transaction
    holds 10,000 events; further ones are refused and counted as ``held_full``.
    """

    def keep(self, kept: Kept) -> bool:
        """Hold *kept* until all open transactions are committed; return whether it was taken."""
        waiting = _open_connections()
        if not waiting:
            kept.let_go()
            return True
        if any(len(connection.run_on_commit) >= _MOST for connection in waiting):
            kept.refuse("held_full")
            return False
        for connection, part in zip(waiting, kept.parts(len(waiting)), strict=True):
            connection.on_commit(part.let_go)  # Django discards it on a rollback
        return True


def _open_connections() -> list[Any]:
    """Return this thread's connections that are in a transaction."""
    from django.db import connections

    return [each for each in connections.all(initialized_only=True) if each.in_atomic_block]


@contextmanager
def _inside(request: Any, front: Front) -> Iterator[None]:
    """Let *front* hear of what fails while it serves *request*."""
    outer = getattr(request, _FRONTS, ())
    setattr(request, _FRONTS, (*outer, front))
    try:
        yield
    finally:
        setattr(request, _FRONTS, outer)


def _failed(request: Any = None, **_: Any) -> None:
    """Report the exception that Django answers with a 500, whichever layer raised it."""
    error = sys.exc_info()[1]
    for front in reversed(getattr(request, _FRONTS, ())):
        if error is not None:
            front.report(error)


def _read(request: Any) -> Request:
    try:
        url, host = request.build_absolute_uri(), request.get_host()
    except Exception:  # the host is not in ALLOWED_HOSTS; Django will refuse the request
        url = host = None
    return environ_request(request.META, url, host)


def _with_context(response: Any, served: Served) -> Any:
    """Return *response*; a streamed body will run in the request's context."""
    served.answered(response.status_code)
    # Files are not wrapped, as the server could no longer use `sendfile` for them.
    if response.streaming and getattr(response, "file_to_stream", None) is None:
        content = response.streaming_content
        if getattr(response, "is_async", False):
            response.streaming_content = _in_context_async(content, context.current(), served)
        else:
            response.streaming_content = _in_context(content, contextvars.copy_context(), served)
    return response


def _in_context(
    content: Iterator[bytes], around: contextvars.Context, served: Served
) -> Iterator[bytes]:
    end = object()

    def step() -> Any:
        try:
            return next(content, end)
        except Exception as error:
            served.failed(error)
            raise

    while (chunk := around.run(step)) is not end:
        yield chunk


async def _in_context_async(
    content: AsyncIterator[bytes], bound: Bound | None, served: Served
) -> AsyncIterator[bytes]:
    while True:
        # Not around the `yield`: between two steps, the caller's own context applies.
        token = context.enter(bound or Bound())
        try:
            chunk = await content.__anext__()
        except StopAsyncIteration:
            return
        except Exception as error:
            served.failed(error)
            raise
        finally:
            context.leave(token)
        yield chunk
