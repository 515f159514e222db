"""
Remember which failures were reported, without changing the exceptions.

An exception that is caught again on its way up is the same failure. One that is raised again,
such as an exception object that a module keeps, is a new failure. Its traceback shows the
difference, as every ``raise`` adds to it; a program that removes the traceback in between
removes that, too.
"""

from __future__ import annotations

import dis
import weakref

from collections import deque
from types import TracebackType
from typing import Any, NamedTuple

from .frames import InApp, is_in_app


__all__ = ["Marks"]

_RAISE = dis.opmap["RAISE_VARARGS"]
_MOST = 256
_traceback_of = vars(BaseException)["__traceback__"].__get__  # bypasses overrides in classes


class _Failure(NamedTuple):
    """How often an exception was raised, by its traceback, and the id of its innermost entry."""

    raisings: int = 0
    innermost: int = 0


class _Mark:
    """One failure that was reported or is being reported; *name* is the uuid of its event."""

    __slots__ = ("failure", "name", "tie")

    def __init__(self, tie: Any, failure: _Failure, name: str) -> None:
        self.tie = tie
        self.failure = failure
        self.name = name

    def belongs_to(self, error: Any) -> bool:
        """Return whether this is *error*'s mark, not that of an earlier object at its address."""
        if isinstance(self.tie, weakref.ref):
            return self.tie() is error
        return self.tie is _own_dict(error)


class Marks:
    """
    Claim failures, so that each is reported once.

    A mark is dropped with its exception, by a weak reference. Built-in exceptions do not support
    these; their marks refer to the exception's ``__dict__``, of which the last 256 are kept
    alive.

    Args:
        in_app: returns whether code is the project's. Only the project's ``raise`` makes a new
            failure; a library's passes one on, as the ``result()`` of a future does.
    """

    def __init__(self, in_app: InApp = is_in_app) -> None:
        self._in_app = in_app
        self._marks: dict[int, _Mark] = {}
        self._held: deque[int] = deque()

    def claim(self, error: Any, name: str) -> str:
        """Return *name* if this failure is new, else the name under which it was reported."""
        failure = self._failure_of(error)
        key, tie = self._tie(error)
        if tie is None:
            return name
        mine = _Mark(tie, failure, name)
        mark = self._marks.setdefault(key, mine)  # atomic: one of two threads reports
        if mark is mine:
            self._hold(key, tie)
        elif mark.belongs_to(error) and (mark.failure == failure or not failure.innermost):
            pass  # caught again; the traceback may have been removed
        elif mark.belongs_to(error) and not mark.failure.innermost:
            mark.failure = failure  # reported before it was raised
        else:
            self._marks[key] = mark = mine
        return mark.name

    def withdraw(self, error: Any, name: str) -> None:
        """Forget the claim of *name*, whose report was dropped."""
        for key in (id(error), id(_own_dict(error))):
            mark = self._marks.get(key)
            if mark is not None and mark.name == name:
                self._marks.pop(key, None)

    def _tie(self, error: Any) -> tuple[int, Any]:
        """Return the key of *error*, and a reference to it; None if it supports none."""
        key, marks = id(error), self._marks
        try:
            return key, weakref.ref(error, lambda _: marks.pop(key, None) and None)
        except TypeError:
            own = _own_dict(error)
            return id(own), own

    def _hold(self, key: int, tie: Any) -> None:
        if isinstance(tie, dict):
            self._held.append(key)
            while len(self._held) > _MOST:
                self._marks.pop(self._held.popleft(), None)

    def _failure_of(self, error: Any) -> _Failure:
        """Count the project's ``raise`` statements in the traceback of *error*."""
        step = _traceback_of(error) if isinstance(error, BaseException) else None
        count = innermost = 0
        while isinstance(step, TracebackType):
            below = step.tb_next
            count += self._is_raised_at(step, below)
            innermost = id(step)
            step = below
        return _Failure(count, innermost)

    def _is_raised_at(self, step: TracebackType, below: TracebackType | None) -> bool:
        """Return whether *step* is a ``raise`` of the project, other than a re-raise."""
        frame = step.tb_frame
        if below is not None:
            if below.tb_frame.f_back is frame:
                return False  # it called the frame below
            if below.tb_frame is frame and below.tb_lasti != step.tb_lasti:
                return False  # ``except … as error: raise error``
        code = frame.f_code
        if code.co_code[step.tb_lasti] != _RAISE:
            return False
        module = frame.f_globals.get("__name__")
        return self._in_app(module if isinstance(module, str) else "", code.co_filename)


def _own_dict(error: Any) -> dict[str, Any] | None:
    try:
        own: Any = object.__getattribute__(error, "__dict__")
    except Exception:  # it has none
        return None
    return own if type(own) is dict else None
