"""
Bind the person and the properties of the current request, on ``contextvars``.

Each thread, task and request has its own. A value on the record itself always wins over what
is bound here::

    with context.identity("user-1", plan="gold"):
        log.info("movie played", extra={"event": "movie played"})
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import time

from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar, cast
from weakref import WeakSet


__all__ = [
    "Bound",
    "Holder",
    "Kept",
    "Taker",
    "bind",
    "clear",
    "current",
    "enter",
    "flags",
    "held",
    "identify",
    "identity",
    "is_person",
    "leave",
    "remember_person",
    "takers",
    "was_bound",
    "with_structlog",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

# The most that one `held` block keeps.
_HELD, _HELD_BYTES = 10_000, 32 * 1024 * 1024
# The most person ids, and the most merged pairs, that the process remembers.
_KNOWN = 100_000


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

#: Return the values bound in the current context, or None.
current: Callable[[], Bound | None] = _bound.get


def was_bound(created: float) -> bool:
    """
    Return whether the identity of this context was already bound at *created* (epoch seconds).

    An identity does not apply to records made before it was bound.
    """
    since = _since.get()
    return since is None or since.is_before(created)


class identity:  # noqa: N801 - reads as the verb it is: ``with identity("user-1"):``
    """
    Attribute the events of a block, or of a decorated function, to *distinct_id*.

    A nested identity replaces the id of the outer one and adds to its properties. *groups*, a
    mapping of group types to keys, adds to the outer groups. Decorates plain and ``async``
    functions::

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
            _mark_time()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave(self._tokens.pop())

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
    except ValueError:
        # A generator may be closed in a different context from the one it was started in.
        # That context never saw the binding, so there is nothing to restore.
        pass


def _rebind(**fields: Any) -> None:
    """Replace *fields* of the current values."""
    if _bound.get() is None or "distinct_id" in fields:
        _mark_time()
    _bound.set((_bound.get() or Bound())._replace(**fields))


def _mark_time() -> None:
    _since.set(BindTime(time.time(), time.monotonic()))


_FLAG = "$feature/"


def _merged(distinct_id: Any, properties: Mapping[str, Any]) -> Bound:
    outer = _bound.get() or Bound()
    groups = properties.get("groups")
    if isinstance(groups, Mapping):
        earlier = outer.properties.get("$groups")
        merged = {**(earlier if isinstance(earlier, Mapping) else {}), **groups}
        properties = {k: v for k, v in properties.items() if k != "groups"} | {"$groups": merged}
    merged_properties = MappingProxyType({**outer.properties, **properties})
    if distinct_id is None:
        return outer._replace(properties=merged_properties)
    return outer._replace(distinct_id=distinct_id, properties=merged_properties)


class Kept:
    """
    One held event: either let go, once, or counted as ``rolled_back``.

    Losing the last reference counts it: a database layer that discards its on-commit
    callbacks on a rollback has nothing else to do.

    Args:
        let_go: sends the event.
        refuse: counts the event as lost, under the reason it is called with.
        size: the size of the event in bytes.
    """

    __slots__ = ("_let_go", "_refuse", "size")

    def __init__(
        self, let_go: Callable[[], object], refuse: Callable[[str], object], size: int
    ) -> None:
        self._let_go: Callable[[], object] | None = let_go
        self._refuse = refuse
        self.size = size

    def let_go(self) -> None:
        """Send the event; a second call does nothing."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()

    def refuse(self, reason: str) -> None:
        """Count the event as lost under *reason* instead of sending it."""
        if self._let_go is not None:
            self._let_go = None
            self._refuse(reason)

    def __del__(self) -> None:
        self.refuse("rolled_back")


class Holder(Protocol):
    """Something that decides when an event is sent."""

    def keep(self, kept: Kept) -> bool:
        """Take *kept*, to let it go now or later; return whether it was taken."""
        ...


class held:  # noqa: N801 - reads as what it is: ``with held():``
    """
    Hold the events of a block until its end; drop them if the block raises::

        with context.held(), database.transaction():
            log.info("order paid", extra={"distinct_id": "user-1", "properties": {}})

    Dropped events are counted as ``rolled_back``. Blocks nest: an inner block passes its events
    to the outer one. Exceptions, logs and ``identify`` are never held. A block holds at most
    10,000 events and 32 MiB; further events are refused and counted as ``held_full``. A thread
    or task that outlives the block sends its events at once. Entering a block that is open
    raises ``RuntimeError``.
    """

    def __init__(self) -> None:
        self._kept: deque[Kept] = deque()
        self._size = 0
        self._outer: Holder | None = None
        self._open = False

    def __enter__(self) -> held:
        if self._open:
            raise RuntimeError("held: this block is open already; create another one")
        bound = current()
        self._outer = None if bound is None else bound.holder
        self._open = True
        _rebind(holder=self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        self._unbind()
        if kind is None:
            self._let_go()
        else:
            self._drop()

    def keep(self, kept: Kept) -> bool:
        """Keep *kept* until the block ends; return whether it was taken."""
        if not self._open:
            return _pass_on(kept, self._outer)
        if len(self._kept) >= _HELD or self._size + kept.size > _HELD_BYTES:
            kept.refuse("held_full")
            return False
        self._size += kept.size
        self._kept.append(kept)
        return True

    def _unbind(self) -> None:
        """Restore the outer holder; an identity bound inside the block stays."""
        bound = current()
        if bound is not None and bound.holder is self:
            bound = bound._replace(holder=self._outer)
            _bound.set(bound if any(bound) else None)

    def _let_go(self) -> None:
        while self._kept:
            _pass_on(self._kept.popleft(), self._outer)

    def _drop(self) -> None:
        while self._kept:
            self._kept.popleft().refuse("rolled_back")


def _pass_on(kept: Kept, outer: Holder | None) -> bool:
    if outer is not None:
        return outer.keep(kept)
    kept.let_go()
    return True


class Taker(Protocol):
    """Something that accepts events: a `PostHogHandler`."""

    def accept(self, fields: Mapping[str, Any], /) -> str | None:
        """Accept one event; return its uuid, or None if it was refused."""
        ...

    def is_in_use(self) -> bool:
        """Return whether the handler is open, or a log record could open it."""
        ...


#: The handlers of this process that accept events; each adds itself.
takers: WeakSet[Any] = WeakSet()

# Dicts as ordered sets: the oldest entries are dropped first.
_persons: dict[str, object] = {}
_pairs: dict[tuple[str, str], object] = {}


def identify(distinct_id: Any, *, anonymous_id: Any = None, **set: Any) -> None:  # noqa: A002 - PostHog's word
    """
    Attribute later events of this context to *distinct_id*, and merge the anonymous visitor.

    If there is an anonymous id, a ``$identify`` event merges it into the person: once per pair
    of ids and process, and never for an id known to belong to a person. Without a merge, *set*
    is sent as a ``$set`` event. Every `PostHogHandler` in use sends it, and `held` does not
    hold it.

    Args:
        distinct_id: the person's id; None or an empty one changes nothing.
        anonymous_id: the visitor's id; None: the one that a middleware found in a header or
            a cookie of the request.
        set: properties of the person.
    """
    person = _text(distinct_id)
    if not person:
        return
    bound = current() or Bound()
    visitor = _text(bound.anonymous_id if anonymous_id is None else anonymous_id)
    remember_person(person)
    _rebind(distinct_id=distinct_id, anonymous_id=visitor or None)
    pair = (visitor, person)
    merges = bool(visitor) and visitor not in _persons and _claim(pair)
    if not merges and not set:
        return
    fields: dict[str, Any] = {
        "distinct_id": distinct_id,
        "event": "$identify" if merges else "$set",
        "set": set,
    }
    if merges:
        fields["anonymous_id"] = visitor
    taken = [taker.accept(fields) for taker in list(takers) if taker.is_in_use()]
    if merges and not any(taken):
        _pairs.pop(pair, None)


def remember_person(distinct_id: Any) -> None:
    """Remember that *distinct_id* belongs to a person, so that it is never merged into another."""
    _persons[_text(distinct_id)] = None
    _trim(_persons)


def is_person(distinct_id: Any) -> bool:
    """Return whether *distinct_id* is known to belong to a person."""
    return _text(distinct_id) in _persons


def _claim(pair: tuple[str, str]) -> bool:
    """Return True for the first caller with *pair*; of two threads at once, for only one."""
    mine = object()
    _trim(_pairs)
    return _pairs.setdefault(pair, mine) is mine


def _trim(known: dict[Any, object]) -> None:
    """Drop the oldest entries above the limit."""
    while len(known) > _KNOWN:
        try:
            known.pop(next(iter(known)), None)
        except (RuntimeError, StopIteration):  # another thread is trimming it, too
            return


def _text(value: Any) -> str:
    """Return an id as trimmed text for comparison; "" for None and for objects without a text."""
    try:
        text = value.decode() if isinstance(value, bytes) else str(value)
    except Exception:  # `__str__` raised
        return ""
    return "" if value is None else text.strip()


def _clear_after_fork() -> None:
    _bound.set(None)


if hasattr(os, "register_at_fork"):
    # A forked worker does not serve the request that its parent was handling.
    os.register_at_fork(after_in_child=_clear_after_fork)
