"""The local variables of a frame, as texts: what `repr` says and nothing more, and bounded."""

from __future__ import annotations

import reprlib

from types import FrameType, FunctionType, ModuleType
from typing import Any

from .limits import clip


__all__ = ["Variables", "text_of_variable"]

_TEXT = 1024  # bytes of one variable
_IN_ALL = 64 * 1024  # of all of one event, with their names
_NAMES = 100  # of one frame
_NAME = 200

# What a module is made of, and no state of it.
_PARTS = (ModuleType, FunctionType, type)


class Variables:
    """
    Gives frames their variables, as long as there is room for them in one event.

    Whoever asks first is served first, so the frames where it was raised come first.
    """

    def __init__(self) -> None:
        self._room = _IN_ALL

    def add(self, described: dict[str, Any], frame: FrameType) -> None:
        """Add the variables of *frame* to what describes it, in PostHog's form."""
        found: dict[str, str] = {}
        try:
            own = list(frame.f_locals.items())[:_NAMES]
        except Exception:  # a namespace of somebody's own, as a metaclass may have
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
    """Return the `repr` of *value*, of long containers and texts only the beginning."""
    try:
        # A container may have a million members: `repr` would look at all of them.
        text = _shortly.repr(value) if type(value) in _LONG else repr(value)
        return clip(text.encode("utf-8", "replace").decode(), _TEXT)
    except Exception:  # what its own `__repr__` raises, or too deep a recursion
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
        """Return the whole `repr` of what is no container: reprlib would cut it in the middle."""
        try:
            return repr(x)
        except Exception:
            return f"[unprintable {type(x).__name__}]"


_shortly = _Shortly()
_shortly.maxdict = _shortly.maxlist = _shortly.maxtuple = _shortly.maxset = 50
_shortly.maxfrozenset = _shortly.maxdeque = _shortly.maxarray = 50
_shortly.maxstring = _shortly.maxlong = _shortly.maxother = 2 * _TEXT
_LONG = frozenset({dict, list, tuple, set, frozenset, str, int})
