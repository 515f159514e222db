"""The local variables of a frame, as bounded `repr` texts."""

from __future__ import annotations

import reprlib

from types import FrameType, FunctionType, ModuleType
from typing import Any

from .limits import clip


__all__ = ["Variables", "text_of_variable"]

_TEXT = 1024  # bytes of one variable
_IN_ALL = 64 * 1024  # bytes of all variables of one event, with their names
_NAMES = 100  # variables of one frame
_NAME = 200  # characters of a name

# Types of definitions, not of state.
_PARTS = (ModuleType, FunctionType, type)


class Variables:
    """
    Add local variables to frames, until the limit of an event is reached.

    The frames are added from the ``raise`` outwards, so the nearest ones get theirs.
    """

    def __init__(self) -> None:
        self._room = _IN_ALL

    def add(self, described: dict[str, Any], frame: FrameType) -> None:
        """Add the variables of *frame* to *described*, its description in PostHog's form."""
        found: dict[str, str] = {}
        try:
            own = list(frame.f_locals.items())[:_NAMES]
        except Exception:  # a namespace made by a metaclass may raise
            return
        for name, value in own:
            if not _is_state(name, value):
                continue
            text = text_of_variable(value)
            self._room -= len(name.encode("utf-8", "replace")) + len(text.encode())
            if self._room < 0:
                break
            found[name] = text
        if found:
            described["code_variables"] = found


def text_of_variable(value: Any) -> str:
    """Return the `repr` of *value*; for long containers and texts, only the beginning."""
    try:
        # `repr` of a container would visit all members, of which there may be a million.
        text = _shortly.repr(value) if type(value) in _LONG else repr(value)
        return clip(text.encode("utf-8", "replace").decode(), _TEXT)
    except Exception:  # `__repr__` raised, or the recursion is too deep
        return f"[unprintable {type(value).__name__}]"


def _is_state(name: Any, value: Any) -> bool:
    return (
        isinstance(name, str)
        and len(name) <= _NAME
        and not name.startswith("__")
        and not isinstance(value, _PARTS)
    )


class _Shortly(reprlib.Repr):
    def repr_instance(self, x: Any, level: int) -> str:
        """Return the whole `repr` of other objects, which reprlib would cut in the middle."""
        try:
            return repr(x)
        except Exception:
            return f"[unprintable {type(x).__name__}]"


_shortly = _Shortly()
_shortly.maxdict = _shortly.maxlist = _shortly.maxtuple = _shortly.maxset = 50
_shortly.maxfrozenset = _shortly.maxdeque = _shortly.maxarray = 50
_shortly.maxstring = _shortly.maxlong = _shortly.maxother = 2 * _TEXT
_LONG = frozenset({dict, list, tuple, set, frozenset, str, int})
