"""
What was logged before an exception: ``$exception_steps``, kept for each context.

The steps of a context are a list that is never changed, only put on: who inherits a context
inherits what was there, and what either adds is its own. That costs an append. Whatever can wait
until an exception is reported does; only values that cannot change are kept until then.
"""

from __future__ import annotations

import contextvars
import logging
import os

from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from itertools import islice
from threading import get_ident
from typing import Any

from ..events import jsonable
from ..events.records import LAST_STANDARD, RESERVED, STANDARD
from ..events.timestamps import rfc3339
from .limits import clip


__all__ = ["Steps", "begin_anew", "end"]

_BYTES = 32 * 1024  # of all steps of one exception, as in sdk-specs ``exception-steps``
_MESSAGE = 1024
_EXTRAS, _EXTRA = 8, 200
_NOT_EXTRAS = RESERVED | frozenset(
    "$message $timestamp distinct_id event level logger timestamp uuid".split()
)


_INFO = logging.INFO
_PLAIN = frozenset({bool, float, int, str})

# A few plain values by name, the last one first.
_Extras = dict[Any, Any]
# When, the message and its arguments, the level's name, the logger's, extras, and the step before
# it. Plain tuples, for they are made at each log call.
_Step = tuple[float, str, Any, str, str, "_Extras | None", Any]
# The last step, how many there are in its list, and the last one of the list before. Neither list
# is longer than `Steps` wants: then the older one goes, and the newer one is the older.
_Trail = tuple[_Step, int, "_Step | None"]

_trail: ContextVar[_Trail | None] = ContextVar("posthog_logging_steps", default=None)
# In a request: its newest trail, of whichever copy of its context.
_newest: ContextVar[list[_Trail | None] | None] = ContextVar(
    "posthog_logging_newest", default=None
)
_NONE: tuple[None, int, None] = (None, 0, None)

_Tokens = tuple[contextvars.Token[_Trail | None], contextvars.Token["list[_Trail | None] | None"]]


def begin_anew() -> _Tokens:
    """Begin a request, which has no steps of others; return what `end` takes."""
    return _trail.set(None), _newest.set([None])


def end(tokens: _Tokens) -> None:
    """Forget the steps of a request."""
    trail, newest = tokens
    with suppress(ValueError):  # it ended in another context, which never had them
        _trail.reset(trail)
        _newest.reset(newest)


def catch_up() -> None:
    """Go on from the newest steps of the request if they continue those of this context."""
    own, newest = _trail.get(), (_newest.get() or [None])[0]
    if newest is None:
        return
    steps = [*_newest_first(newest)]
    # Of many steps the first are not kept, which may have been those of this context.
    is_cut = newest[2] is not None
    if (
        own is None
        or any(step is own[0] for step in steps)
        or (is_cut and _is_until(steps[-1][0], own[0][0]))
    ):
        _trail.set(newest)


class Steps:
    """
    Keep the last *most* steps of each context, at INFO and above.

    What another thread has logged, as behind a queue, is no step of this context.
    """

    def __init__(self, most: int) -> None:
        self._most = most

    def record(self, record: logging.LogRecord) -> None:
        """Put on what was logged; whatever is in *record*, nothing is raised."""
        if record.levelno < _INFO or record.thread != get_ident():
            return
        message, args, extras = record.msg, record.args, None
        try:
            attributes = record.__dict__
            more = len(attributes) - STANDARD
            if more > 0:
                extras = _extras(attributes if more <= _EXTRAS else _first_of(attributes))
                if attributes.get("event"):
                    message, args = attributes["event"], None
            if args:
                if _must_be_formatted(record, message, args):
                    message, args = record.getMessage(), None
            elif type(message) is not str:
                message = str(message)
            if len(message) > _MESSAGE:
                message = message[:_MESSAGE]
        except Exception:
            message, args = "[unprintable message]", None
        self._note(record.created, message, args, record.levelname, record.name, extras)

    def entry(self, entry: Mapping[Any, Any], message: Any, level: str, created: float) -> None:
        """Put on what was logged by structlog."""
        if isinstance(message, str):
            logger = entry.get("logger")
            name = logger if isinstance(logger, str) else "structlog"
            own = {key: entry[key] for key in entry if not str(key).startswith("_")}
            self._note(created, message[:_MESSAGE], None, level, name, _extras(_first_of(own)))

    def event(self, fields: Mapping[str, Any], name: Any, created: float) -> None:
        """Put on an event that was no log call, by its name."""
        given = fields.get("event") or name
        if isinstance(given, str):
            self._note(created, given[:_MESSAGE], None, "event", "", None)

    def _note(
        self,
        created: float,
        message: str,
        args: Any,
        level: str,
        logger: str,
        extras: _Extras | None,
    ) -> None:
        """Put a step on those of this context, which are then the newest of its request."""
        last, length, older = _trail.get() or _NONE
        if last and last[0] == created and _text(last) == _text((created, message, args)):
            return  # an event of a log call, or a second handler
        if length < self._most:
            trail = (created, message, args, level, logger, extras, last), length + 1, older
        else:
            trail = (created, message, args, level, logger, extras, None), 1, last
        _trail.set(trail)
        newest = _newest.get()
        if newest is not None:
            newest[0] = trail

    def before(self, created: float) -> list[dict[str, Any]]:
        """
        Return the steps of this context until *created*, oldest first, as far as there is room.

        A handler that keeps records gives them later, when there may be further steps.
        """
        found: list[dict[str, Any]] = []
        room = _BYTES - 2
        earlier = (step for step in _newest_first(_trail.get()) if _is_until(created, step[0]))
        for step in islice(earlier, self._most):
            described = _described(step)
            if not described["$message"].strip():
                continue
            room -= len(jsonable.encode(described)) + 1
            if room < 0:
                break
            found.append(described)
        return found[::-1]


def _newest_first(trail: _Trail | None) -> Iterator[_Step]:
    newer, _, older = trail or (None, 0, None)
    for step in (newer, older):
        while step is not None:
            yield step
            step = step[6]


def _is_until(end: float, created: Any) -> bool:
    try:
        return bool(created <= end)
    except Exception:  # the program's own record had no time
        return False


def _described(step: _Step) -> dict[str, Any]:
    level, logger, extras = step[3:6]
    given = reversed((extras or {}).items())
    known = {"level": level, "logger": logger}
    return {
        **dict(islice((pair for pair in given if _is_extra(pair[0])), _EXTRAS)),
        **{key: value for key, value in known.items() if value},
        "$message": clip(_text(step), _MESSAGE),
        "$timestamp": rfc3339(step[0]),
    }


def _text(step: tuple[Any, ...]) -> str:
    """Return a step's message, formatted as `LogRecord.getMessage` does."""
    _, message, args, *_ = step
    if not args:
        return str(message)
    try:
        return str(message % args)
    except Exception:
        return "[unprintable message]"


# What runs at each log call: names are judged when an exception is reported.


def _must_be_formatted(record: logging.LogRecord, message: Any, args: Any) -> bool:
    """Return whether the arguments may change or are long, or the text is not the stdlib's."""
    if (
        type(record) is not logging.LogRecord
        or type(message) is not str
        or type(args) is not tuple
    ):
        return True
    for value in args:
        kind = type(value)
        if kind not in _PLAIN or (kind is str and len(value) > _EXTRA):
            return True
    return len(message) > _MESSAGE


def _extras(fields: dict[Any, Any]) -> _Extras:
    """Return the plain values of *fields*, and of a record those that are not `logging`'s own."""
    found = {}
    for name, value in reversed(fields.items()):
        if name is LAST_STANDARD:  # one string for all records; else names are judged later
            break
        kind = type(value)
        if kind is str:
            found[name] = value if len(value) <= _EXTRA else value[:_EXTRA]
        elif kind in _PLAIN:
            found[name] = value
    return found


def _first_of(fields: dict[Any, Any]) -> dict[Any, Any]:
    """Return a few of many fields: the first ones that are extras and plain."""
    plain = (name for name in fields if type(fields[name]) in _PLAIN and _is_extra(name))
    return {name: fields[name] for name in islice(plain, _EXTRAS)}


def _is_extra(name: Any) -> bool:
    return type(name) is str and name not in _NOT_EXTRAS


def _forget() -> None:
    _trail.set(None)
    _newest.set(None)


if hasattr(os, "register_at_fork"):
    # A forked worker serves other requests than the one its parent was in.
    os.register_at_fork(after_in_child=_forget)
