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

_HELD, _HELD_BYTES = 10_000, 32 * 1024 * 1024  # of one block
# Of the ids that are known as persons', and of the pairs that were sent, so many are kept.
_KNOWN = 100_000


class Bound(NamedTuple):
    """
    What is bound in one context.

    An id (or None) and properties for every event in it; the anonymous id that a request
    came with; and who holds its events back until it is known whether they happened.
    """

    distinct_id: Any = None
    properties: Mapping[str, Any] = MappingProxyType({})
    anonymous_id: str | None = None
    holder: Holder | None = None


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

    A nested identity replaces the outer one's id and adds to its properties, and to its
    *groups*, a mapping of types to keys. It works on plain and on ``async`` functions::

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
        leave(self._tokens.pop())

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
    """
    Add *properties* to every later event of the current context.

    *groups*, a mapping of types to keys, are PostHog's groups of these events.
    """
    if _bound.get() is None:
        _note_moment()
    _bound.set(_merged(None, properties))


def flags(values: Mapping[str, Any]) -> None:
    """
    Add feature flags, which something else has evaluated, to later events of this context.

    Each becomes ``$feature/name``; those with a value other than False and None are listed in
    ``$active_feature_flags``. Later calls add to earlier ones, and win.
    """
    if _bound.get() is None:
        _note_moment()
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

    Events that a `held` block keeps stay with that block.
    """
    bound = _bound.get()
    holder = None if bound is None else bound.holder
    _bound.set(None if holder is None else Bound(holder=holder))


def with_structlog(bound: Bound | None = None) -> Bound:
    """
    Return *bound*, or what this context has bound, for reports and for tasks sent from here.

    Where no id is bound, the ``distinct_id`` that a structlog program bound by
    ``bind_contextvars`` is taken. structlog is never imported for that.
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
    """Begin a request, with *bound* on top of what is bound; return what `leave` takes."""
    merged = _merged(bound.distinct_id, bound.properties)
    if bound.distinct_id is not None or _bound.get() is None:
        _note_moment()
    return _bound.set(
        merged._replace(
            anonymous_id=bound.anonymous_id or merged.anonymous_id,
            holder=bound.holder or merged.holder,
        )
    )


def leave(token: Token[Bound | None]) -> None:
    """Bind what was bound before."""
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


def _renew(**fields: Any) -> None:
    """Change *fields* of what is bound."""
    if _bound.get() is None or "distinct_id" in fields:
        _note_moment()
    _bound.set((_bound.get() or Bound())._replace(**fields))


def _note_moment() -> None:
    _since.set(Moment(time.time(), time.monotonic()))


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
    One event that is held back: let it go once, or it is counted as ``rolled_back``.

    The event is dropped with the last reference to it, so a database layer that forgets its
    hooks for a commit need not do anything else.

    Args:
        let_go: sends the event on.
        refuse: counts what is not sent, by reason.
        size: bytes of the event.
    """

    __slots__ = ("_let_go", "_refuse", "size")

    def __init__(
        self, let_go: Callable[[], object], refuse: Callable[[str], object], size: int
    ) -> None:
        self._let_go: Callable[[], object] | None = let_go
        self._refuse = refuse
        self.size = size

    def let_go(self) -> None:
        """Send the event on."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()

    def refuse(self, reason: str) -> None:
        """Count the event under *reason*: it did not happen."""
        if self._let_go is not None:
            self._let_go = None
            self._refuse(reason)

    def __del__(self) -> None:
        self.refuse("rolled_back")


class Holder(Protocol):
    """What decides when an event is queued."""

    def keep(self, kept: Kept) -> bool:
        """Take *kept*, now or later to let it go; return whether it was taken."""
        ...


class held:  # noqa: N801 - reads as what it is: ``with held():``
    """
    Keep the events of a block until its end, and drop them where it raises::

        with context.held(), database.transaction():
            log.info("order paid", extra={"distinct_id": "user-1", "properties": {}})

    Dropped events are counted as ``rolled_back``. Blocks nest: what an inner one lets go, the
    outer one keeps. Exceptions, logs and ``identify`` are never held. One block keeps up to
    10,000 events or 32 MiB; further ones are refused, and counted as ``held_full``. A thread or
    task that outlives the block in which it began is held no longer.
    """

    def __init__(self) -> None:
        self._kept: deque[Kept] = deque()
        self._size = 0
        self._outer: Holder | None = None
        self._lasts = False

    def __enter__(self) -> held:
        if self._lasts:
            raise RuntimeError("held: this block was entered before; make another")
        bound = current()
        self._outer = None if bound is None else bound.holder
        self._lasts = True
        _renew(holder=self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lasts = False
        self._unbind()
        if kind is None:
            self._let_go()
        else:
            self._drop()

    def keep(self, kept: Kept) -> bool:
        """Keep an event for as long as the block lasts."""
        if not self._lasts:
            return _pass_on(kept, self._outer)
        if len(self._kept) >= _HELD or self._size + kept.size > _HELD_BYTES:
            kept.refuse("held_full")
            return False
        self._size += kept.size
        self._kept.append(kept)
        return True

    def _unbind(self) -> None:
        """Hold no more; who was identified inside the block stays bound."""
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
    """Whoever takes events: a `PostHogHandler`."""

    def accept(self, fields: Mapping[str, Any], /) -> str | None:
        """Take one event; return its uuid, None where it was refused."""
        ...

    def is_in_use(self) -> bool:
        """Return whether it is open, or a log record could open it."""
        ...


#: The handlers of this process that take events; each puts itself here.
takers: WeakSet[Any] = WeakSet()

# In the order in which they came: the oldest of very many are forgotten first.
_persons: dict[str, object] = {}
_pairs: dict[tuple[str, str], object] = {}


def identify(distinct_id: Any, *, anonymous_id: Any = None, **set: Any) -> None:  # noqa: A002 - PostHog's word
    """
    Attribute later events of this context to *distinct_id*, and merge the visitor into it.

    Where the context has an anonymous id, one ``$identify`` with it is sent, once for each
    pair in the life of the process, and never with an id that is known as a person's. It goes
    to every `PostHogHandler` of the process that is in use, and is never held back.

    Args:
        distinct_id: the person's id; None, or an empty one, changes nothing.
        anonymous_id: the visitor's; where None that of the request, which a middleware found
            in a header or a cookie.
        set: properties of the person.
    """
    person = _text(distinct_id)
    if not person:
        return
    bound = current() or Bound()
    visitor = _text(bound.anonymous_id if anonymous_id is None else anonymous_id)
    remember_person(person)
    _renew(distinct_id=distinct_id, anonymous_id=visitor or None)
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
    """Note that *distinct_id* is a person's: it is never merged into another."""
    _persons[_text(distinct_id)] = None
    _bound_to(_persons)


def is_person(distinct_id: Any) -> bool:
    """Return whether *distinct_id* is known as a person's."""
    return _text(distinct_id) in _persons


def _claim(pair: tuple[str, str]) -> bool:
    """Return whether *pair* is still to be sent: of two threads that ask at once, by one."""
    mine = object()
    _bound_to(_pairs)
    return _pairs.setdefault(pair, mine) is mine


def _bound_to(known: dict[Any, object]) -> None:
    while len(known) > _KNOWN:
        try:
            known.pop(next(iter(known)), None)
        except (RuntimeError, StopIteration):  # another thread is at it
            return


def _text(value: Any) -> str:
    """Return an id as it is compared: trimmed; what has no text is nobody."""
    try:
        text = value.decode() if isinstance(value, bytes) else str(value)
    except Exception:  # an object whose text raises
        return ""
    return "" if value is None else text.strip()


def _begin_anew() -> None:
    _bound.set(None)


if hasattr(os, "register_at_fork"):
    # A forked worker serves other requests than the one its parent was in.
    os.register_at_fork(after_in_child=_begin_anew)
