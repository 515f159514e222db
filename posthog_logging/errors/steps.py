"""
What was logged before an exception: ``$exception_steps``, kept for each context.

The steps of a context are a list that is never changed, only put on: who inherits a context
inherits what was there, and what either adds is its own. That costs an append.
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
from ..events.records import RESERVED, STANDARD
from ..events.timestamps import rfc3339
from .limits import clip


__all__ = ["Steps", "begin_anew", "end"]

_BYTES = 32 * 1024  # of all steps of one exception, as in sdk-specs ``exception-steps``
_MESSAGE = 1024
_EXTRAS, _EXTRA = 8, 200
_NOT_EXTRAS = RESERVED | frozenset(
    "$message $timestamp distinct_id event level logger timestamp uuid".split()
)


# When, the message, the level's name, the logger's, and extras. Plain tuples, for they are made
# at each log call.
_Step = tuple[float, str, str, str, "Mapping[str, Any] | None"]
# The last step, what came before it (another trail), and how many steps that is.
_Trail = tuple[_Step, Any, int]

_trail: ContextVar[_Trail | None] = ContextVar("posthog_logging_steps", default=None)


def begin_anew() -> contextvars.Token[_Trail | None]:
    """Begin a request, which has no steps of others; return what `end` takes."""
    return _trail.set(None)


def end(token: contextvars.Token[_Trail | None]) -> None:
    """Forget the steps of a request."""
    with suppress(ValueError):  # it ended in another context, which never had them
        _trail.reset(token)


class Steps:
    """
    Keep the last *most* steps of each context, at INFO and above.

    What another thread has logged, as behind a queue, is no step of this context.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._longest = 2 * most

    def record(self, record: logging.LogRecord) -> None:
        """Put on what was logged; whatever is in *record*, nothing is raised."""
        if record.levelno < logging.INFO or record.thread != get_ident():
            return
        extras = None
        message = record.msg
        try:
            attributes = record.__dict__
            if len(attributes) > STANDARD:
                extras = _scalars(attributes, STANDARD)  # they come last
                message = attributes.get("event") or message
            if record.args:
                message = record.getMessage() if message is record.msg else message
            elif type(message) is not str:
                message = str(message)
        except Exception:
            message = "[unprintable message]"
        self._note((record.created, message[:_MESSAGE], record.levelname, record.name, extras))

    def entry(self, entry: Mapping[Any, Any], message: Any, level: str, created: float) -> None:
        """Put on what was logged by structlog."""
        logger = entry.get("logger")
        extras = _scalars({key: entry[key] for key in entry if not str(key).startswith("_")})
        name = logger if isinstance(logger, str) else "structlog"
        if isinstance(message, str):
            self._note((created, message[:_MESSAGE], level, name, extras))

    def event(self, fields: Mapping[str, Any], name: Any, created: float) -> None:
        """Put on an event that was no log call, by its name."""
        given = fields.get("event") or name
        if isinstance(given, str):
            self._note((created, given[:_MESSAGE], "event", "", None))

    def _note(self, step: _Step) -> None:
        """Put *step* on those of this context."""
        trail = _trail.get()
        if trail is None:
            _trail.set((step, None, 1))
            return
        last, _, length = trail
        if last[0] == step[0] and last[1] == step[1]:
            return  # an event of a log call, or a second handler
        if length >= self._longest:
            trail = self._cut(trail)
            length = trail[2]
        _trail.set((step, trail, length + 1))

    def _cut(self, trail: _Trail) -> _Trail:
        """Return the newest steps alone: once in as many steps as are kept."""
        newest = list(_newest_first(trail, self._most))
        kept: Any = None
        for length, step in enumerate(reversed(newest), 1):
            kept = (step, kept, length)
        whole: _Trail = kept
        return whole

    def recent(self) -> list[dict[str, Any]]:
        """Return the steps of this context, the oldest first, as far as there is room."""
        found: list[dict[str, Any]] = []
        room = _BYTES - 2
        for step in _newest_first(_trail.get(), self._most):
            if not step[1].strip():
                continue
            described = _described(step)
            room -= len(jsonable.encode(described)) + 1
            if room < 0:
                break
            found.append(described)
        return found[::-1]


def _newest_first(trail: _Trail | None, most: int) -> Iterator[_Step]:
    while trail is not None and most > 0:
        step, trail, _ = trail
        yield step
        most -= 1


def _described(step: _Step) -> dict[str, Any]:
    created, message, level, logger, extras = step
    known = {"level": level, "logger": logger}
    return {
        **(extras or {}),
        **{key: value for key, value in known.items() if value},
        "$message": clip(message, _MESSAGE),
        "$timestamp": rfc3339(created),
    }


def _scalars(fields: Mapping[Any, Any], first: int = 0) -> dict[str, Any] | None:
    """Return a few plain values of *fields*, of those that come from the *first* on."""
    found: dict[str, Any] = {}
    for key in islice(fields, first, None):
        value = fields[key]
        if type(value) in _SCALARS and type(key) is str and key not in _NOT_EXTRAS:
            found[key] = value[:_EXTRA] if type(value) is str else value
            if len(found) == _EXTRAS:
                break
    return found or None


_SCALARS = frozenset({bool, float, int, str})

if hasattr(os, "register_at_fork"):
    # A forked worker serves other requests than the one its parent was in.
    os.register_at_fork(after_in_child=begin_anew)
