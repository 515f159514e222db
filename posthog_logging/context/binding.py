"""The identity and properties bound in the current context, on ``contextvars``."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time

from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, TypeVar, cast

from .holding import Holder


__all__ = [
    "BindTime",
    "Bound",
    "begin",
    "bind",
    "catch_up",
    "clear",
    "current",
    "enter",
    "flags",
    "identity",
    "leave",
    "rebind",
    "release",
    "was_bound",
    "with_structlog",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Bound(NamedTuple):
    """
    The values bound in one context, for every event logged in it.

    ``anonymous_id`` is the visitor's id from the request. ``holder`` keeps events back until
    the end of a `held` block or a database transaction. Id, anonymous id and holder may be None.
    """

    distinct_id: Any = None
    properties: Mapping[str, Any] = MappingProxyType({})
    anonymous_id: str | None = None
    holder: Holder | None = None


class BindTime(NamedTuple):
    """A time in seconds: by the wall clock, as on records, and by the monotonic clock."""

    wall: float
    monotonic: float

    def is_before(self, created: float) -> bool:
        """Return whether *created*, in epoch seconds, is the same time or later."""
        if self.wall <= created:
            return True
        # If the wall clock was set back since, compare by the clock as it is now.
        step = time.time() - self.wall - (time.monotonic() - self.monotonic)
        return step < -1.0 and self.wall + step <= created


_bound: ContextVar[Bound | None] = ContextVar("posthog_logging", default=None)
# When the current identity was bound; None if none was.
_since: ContextVar[BindTime | None] = ContextVar("posthog_logging_since", default=None)
# The id that the request began with, and the newest one identified in any copy of its context.
_request: ContextVar[list[Any] | None] = ContextVar("posthog_logging_request", default=None)

#: Return the values bound in the current context, or None.
current: Callable[[], Bound | None] = _bound.get


def was_bound(created: float) -> bool:
    """
    Return whether the identity of this context was already bound at *created* (epoch seconds).

    An identity does not apply to records made before it was bound.
    """
    since = _since.get()
    return since is None or since.is_before(created)


class _Block(NamedTuple):
    """An `identity` that was entered in this context, where others may have entered it, too."""

    owner: identity
    token: Token[Bound | None]
    outer: _Block | None
    depth: int


# Blocks that are never left must not fill memory; more than these nobody nests.
_DEEPEST = 1000


_block: ContextVar[_Block | None] = ContextVar("posthog_logging_block", default=None)


class identity:  # noqa: N801 - reads as the verb it is: ``with identity("user-1"):``
    """
    Attribute the events of a block, or of a decorated function, to *distinct_id*.

    A nested identity replaces the id of the outer one and adds to its properties. Threads and
    tasks may enter the same object at once. *groups*, a mapping of group types to keys, adds to
    the outer groups. Decorates plain and ``async`` functions::

        with identity("user-1", plan="gold"):
            log.info("movie played", extra={"event": "movie played"})
    """

    def __init__(self, distinct_id: Any = None, /, **properties: Any) -> None:
        self._distinct_id = distinct_id
        self._properties = properties

    def __enter__(self) -> identity:
        token, outer = _bound.set(_merged(self._distinct_id, self._properties)), _block.get()
        depth = outer.depth + 1 if outer is not None and outer.depth < _DEEPEST else 0
        _block.set(_Block(self, token, outer if depth else None, depth))
        if self._distinct_id is not None:
            _mark_time()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block = _block.get()
        while block is not None and block.owner is not self:  # an inner one that was never left
            block = block.outer
        if block is not None:
            _block.set(block.outer)
            leave(block.token)

    def __call__(self, function: _Function) -> _Function:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapped_async(*args: Any, **kwargs: Any) -> Any:
                with self._copy():
                    return await function(*args, **kwargs)

            return cast(_Function, wrapped_async)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self._copy():
                return function(*args, **kwargs)

        return cast(_Function, wrapped)

    def _copy(self) -> identity:
        """Return a new instance per call: a decorated function may run in many threads."""
        return identity(self._distinct_id, **self._properties)


def bind(**properties: Any) -> None:
    """
    Add *properties* to every later event of the current context.

    *groups*, a mapping of group types to keys, becomes ``$groups``.
    """
    if _bound.get() is None:
        _mark_time()
    _bound.set(_merged(None, properties))


def flags(values: Mapping[str, Any]) -> None:
    """
    Put evaluated feature flags on every later event of the current context.

    Each becomes ``$feature/name``. Flags with a value other than False and None are listed in
    ``$active_feature_flags``. Later calls add flags and overwrite earlier values.
    """
    if _bound.get() is None:
        _mark_time()
    outer = _bound.get() or Bound()
    named = {f"{_FLAG}{name}": value for name, value in dict(values).items()}
    properties = {**outer.properties, **named}
    on = [
        name[len(_FLAG) :]
        for name, value in properties.items()
        if name.startswith(_FLAG) and value is not None and value is not False
    ]
    _bound.set(
        outer._replace(properties=MappingProxyType({**properties, "$active_feature_flags": on}))
    )


def clear() -> None:
    """
    Forget the identity and the properties of the current context.

    A surrounding `held` block still holds its events.
    """
    bound = _bound.get()
    holder = None if bound is None else bound.holder
    _bound.set(None if holder is None else Bound(holder=holder))


def with_structlog(bound: Bound | None = None) -> Bound:
    """
    Return *bound*, or the current values, with the ``distinct_id`` bound in structlog if none is.

    For code that has no log record to read the id from. Looks at structlog's
    ``bind_contextvars`` only if the program has imported structlog.
    """
    bound = bound or _bound.get() or Bound()
    if bound.distinct_id is not None:
        return bound
    contextvars = sys.modules.get("structlog.contextvars")
    try:
        found = contextvars.get_contextvars().get("distinct_id") if contextvars else None
    except Exception:  # half imported, or a version without
        found = None
    return bound if found is None else bound._replace(distinct_id=found)


def enter(bound: Bound) -> Token[Bound | None]:
    """Begin a request: bind *bound* on top of the current values; return a token for `leave`."""
    merged = _merged(bound.distinct_id, bound.properties)
    if bound.distinct_id is not None or _bound.get() is None:
        _mark_time()
    return _bound.set(
        merged._replace(
            anonymous_id=bound.anonymous_id or merged.anonymous_id,
            holder=bound.holder or merged.holder,
        )
    )


def leave(token: Token[Bound | None]) -> None:
    """Restore the values from before the `enter` that returned *token*."""
    inner = _bound.get()
    try:
        _bound.reset(token)
        outer = _bound.get()
        if outer is not None and inner is not None and outer.distinct_id is not inner.distinct_id:
            _mark_time()  # the outer identity does not apply to records made inside
    except (ValueError, RuntimeError):
        # A generator may be closed in a different context from the one it was started in, or in
        # a copy of one that has left the block. There is nothing to restore in either.
        pass


def rebind(**fields: Any) -> None:
    """Replace *fields* of the current values."""
    if _bound.get() is None or "distinct_id" in fields:
        _mark_time()
    outer, request = _bound.get() or Bound(), _request.get()
    _bound.set(outer._replace(**fields))
    # Not inside `identity`, whose person is that of its block only.
    is_of_request = request is not None and any(outer.distinct_id is one for one in request)
    if request is not None and is_of_request and "distinct_id" in fields:
        request[1] = fields["distinct_id"]


def begin(bound: Bound) -> Callable[[], None]:
    """Begin a request, as `enter` does; return what ends it."""
    token = enter(bound)
    request = _request.set([(_bound.get() or Bound()).distinct_id] * 2)

    def end() -> None:
        leave(token)
        with suppress(ValueError, RuntimeError):  # as in `leave`
            _request.reset(request)

    return end


def catch_up() -> None:
    """Bind the person who was identified in a copy of the request's context, if any was."""
    bound, request = _bound.get() or Bound(), _request.get()
    if request is not None and bound.distinct_id is request[0]:
        _bound.set(bound._replace(distinct_id=request[1]))


def _mark_time() -> None:
    _since.set(BindTime(time.time(), time.monotonic()))


_FLAG = "$feature/"


def _merged(distinct_id: Any, properties: Mapping[str, Any]) -> Bound:
    outer = _bound.get() or Bound()
    groups: Any = properties.get("groups")
    if issubclass(type(groups), Mapping):  # what another type stands for is found out per event
        earlier = outer.properties.get("$groups")
        merged = {**(earlier if isinstance(earlier, Mapping) else {}), **groups}
        properties = {k: v for k, v in properties.items() if k != "groups"} | {"$groups": merged}
    merged_properties = MappingProxyType({**outer.properties, **properties})
    if distinct_id is None:
        return outer._replace(properties=merged_properties)
    return outer._replace(distinct_id=distinct_id, properties=merged_properties)


def release(holder: Holder, outer: Holder | None) -> None:
    """Bind *outer* in place of *holder*, if that is bound; an identity stays."""
    bound = _bound.get()
    if bound is not None and bound.holder is holder:
        bound = bound._replace(holder=outer)
        _bound.set(bound if any(bound) else None)


def _clear_after_fork() -> None:
    _bound.set(None)
    _request.set(None)


if hasattr(os, "register_at_fork"):
    # A forked worker does not serve the request that its parent was handling.
    os.register_at_fork(after_in_child=_clear_after_fork)
