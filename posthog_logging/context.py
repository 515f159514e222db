"""
Who the current request is about: identity and properties on ``contextvars``.

Read on the caller's side of the queue, so each thread, task and request has its own. A
value on the record itself always wins over what is bound here.
"""

from __future__ import annotations

import functools
import inspect
import os
import time

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, TypeVar, cast


__all__ = ["Bound", "bind", "clear", "current", "identity", "was_bound"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Bound(NamedTuple):
    """What is bound in one context: an id (or None) and properties for every event in it."""

    distinct_id: Any = None
    properties: Mapping[str, Any] = MappingProxyType({})


class Moment(NamedTuple):
    """When something was bound: by the clock of the records, and by one that is never set."""

    wall: float
    steady: float

    def is_before(self, created: float) -> bool:
        """Return whether *created*, in epoch seconds, is later."""
        if self.wall <= created:
            return True
        # Where the clock was set back meanwhile, the moment is that much earlier by it.
        step = time.time() - self.wall - (time.monotonic() - self.steady)
        return step < -1.0 and self.wall + step <= created


_bound: ContextVar[Bound | None] = ContextVar("posthog_logging", default=None)
# Since when whoever is bound is bound, without a break.
_since: ContextVar[Moment | None] = ContextVar("posthog_logging_since", default=None)

#: Return what is bound in the current context, or None.
current: Callable[[], Bound | None] = _bound.get


def was_bound(created: float) -> bool:
    """
    Return whether the identity of this context was bound at *created*, in epoch seconds.

    What was bound later is not the identity of what was logged then.
    """
    since = _since.get()
    return since is None or since.is_before(created)


class identity:  # noqa: N801 - reads as the verb it is: ``with identity("user-1"):``
    """
    Attribute the events of a block, or of a decorated function, to *distinct_id*.

    Nested identities add to the properties of the outer one and replace its id. Works on
    plain and on ``async`` functions alike::

        with identity("user-1", plan="gold"):
            log.info("movie played", extra={"event": "movie played"})
    """

    def __init__(self, distinct_id: Any = None, /, **properties: Any) -> None:
        self._distinct_id = distinct_id
        self._properties = properties
        self._tokens: list[Token[Bound | None]] = []

    def __enter__(self) -> identity:
        self._tokens.append(_bound.set(_merged(self._distinct_id, self._properties)))
        if self._distinct_id is not None:
            _note_moment()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _restore(self._tokens.pop())

    def __call__(self, function: _Function) -> _Function:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapped_async(*args: Any, **kwargs: Any) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return cast(_Function, wrapped_async)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return cast(_Function, wrapped)

    def _again(self) -> identity:
        """Return a fresh twin: one decorated function runs in many threads at once."""
        return identity(self._distinct_id, **self._properties)


def bind(**properties: Any) -> None:
    """Add *properties* to every later event of the current context."""
    if _bound.get() is None:
        _note_moment()
    _bound.set(_merged(None, properties))


def clear() -> None:
    """Forget the identity and the properties of the current context."""
    _bound.set(None)


def _merged(distinct_id: Any, properties: Mapping[str, Any]) -> Bound:
    outer = _bound.get() or Bound()
    return Bound(
        outer.distinct_id if distinct_id is None else distinct_id,
        MappingProxyType({**outer.properties, **properties}),
    )


def _note_moment() -> None:
    _since.set(Moment(time.time(), time.monotonic()))


def _restore(token: Token[Bound | None]) -> None:
    inner = _bound.get()
    try:
        _bound.reset(token)
        outer = _bound.get()
        if outer is not None and inner is not None and outer.distinct_id is not inner.distinct_id:
            _note_moment()  # what was logged inside is not the outer one's
    except ValueError:
        # A generator may be closed in another context than it was started in; that
        # context never saw the binding, so there is nothing to take back.
        pass


if hasattr(os, "register_at_fork"):
    # A forked worker serves other requests than the one its parent was in.
    os.register_at_fork(after_in_child=clear)
