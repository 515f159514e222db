"""Stack frames in PostHog's raw form: location, source lines, and whether they are in-app."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from ..events.exc_info import is_true
from .limits import clip


__all__ = [
    "Frame",
    "InApp",
    "Sources",
    "Step",
    "both_ends",
    "describe",
    "in_app_rule",
    "is_in_app",
    "stack_steps",
    "walk",
]

InApp = Callable[[str, str], bool]
Frame = dict[str, Any]

_LINE, _LINES_IN_ALL, _LINES_AROUND = 1024, 192 * 1024, 5
_NAME = 200
_SOURCE_FILE = 2 * 1024 * 1024


class Step(NamedTuple):
    """A frame of a traceback or a stack, and its current line; None if that is not known."""

    frame: FrameType
    lineno: int | None


def walk(traceback: Any) -> Iterator[Step]:
    """Yield the frames of *traceback*, from where the exception was caught to the ``raise``."""
    while isinstance(traceback, TracebackType):
        if not _is_hidden(traceback.tb_frame):
            yield Step(traceback.tb_frame, traceback.tb_lineno)
        traceback = traceback.tb_next


def stack_steps(stack: FrameType | None, most: int) -> list[Step | int]:
    """Return the steps to the frame *stack*, without `logging` and this library at the end."""
    while stack is not None and _is_logging(stack.f_code.co_filename):
        stack = stack.f_back
    steps = []
    while stack is not None:
        if not _is_hidden(stack):
            steps.append(Step(stack, stack.f_lineno))
        stack = stack.f_back
    return both_ends(reversed(steps), most)


def _is_logging(path: str) -> bool:
    return path.startswith(_OWN) or os.path.dirname(path).endswith(f"{os.sep}logging")


_HIDDEN = ("__tracebackhide__", "__traceback_hide__")


def _is_hidden(frame: FrameType) -> bool:
    """Return whether the frame asks to be left out, by a variable as for pytest and Sentry."""
    code = frame.f_code
    for name in _HIDDEN:
        # The names first: every read of `f_locals` copies all local variables.
        if name in code.co_varnames or name in code.co_names or name in code.co_cellvars:
            return is_true(frame.f_locals.get(name))
    return False


def both_ends(steps: Iterable[Any], most: int) -> list[Any]:
    """Cut *steps* to *most*: the middle is replaced by the number of steps left out."""
    rest = iter(steps)
    first = list(islice(rest, most // 2))
    last: deque[Any] = deque(maxlen=most - len(first))
    left_out = 0
    for step in rest:
        left_out += len(last) == last.maxlen
        last.append(step)
    if not left_out:
        return [*first, *last]
    last.popleft()
    return [*first, left_out + 1, *last]


def describe(step: Step | int, in_app: InApp) -> Frame:
    """Return the frame of *step* without source lines; for a number, a note of the cut."""
    if isinstance(step, int):
        return _gap(step)
    code = step.frame.f_code
    module = step.frame.f_globals.get("__name__")
    known = module if isinstance(module, str) else ""
    return _frame(code.co_filename, code.co_name, step.lineno, known, in_app)


def _gap(left_out: int) -> Frame:
    """Return a frame that notes the cut; not ``in_app``, so that PostHog does not group by it."""
    return {
        "platform": "python",
        "filename": "[cut]",
        "function": f"[cut: {left_out} frames]",
        "in_app": False,
    }


def _frame(path: str, function: str, lineno: int | None, module: str, in_app: InApp) -> Frame:
    """Return a frame without source lines; *module* is "" if it is not known."""
    frame: Frame = {
        "platform": "python",
        "filename": _filename(path, module),
        "function": clip(function, _NAME) or "<unknown>",
        "in_app": in_app(module, path),
    }
    if lineno is not None and lineno >= 0:
        frame["lineno"] = lineno
    if module:
        frame["module"] = clip(module, _NAME)
    if os.path.isabs(path) and len(path) <= 2 * _NAME:
        frame["abs_path"] = path
    return frame


def _filename(path: str, module: str) -> str:
    """Return *path* relative to the folder of *module*'s top package, or just its last part."""
    parts = path.replace("\\", "/").split("/")
    names = module.split(".")
    if os.path.splitext(parts[-1])[0] == "__init__":
        names = [*names, "__init__"]
    tail = [*parts[-len(names) : -1], os.path.splitext(parts[-1])[0]]
    return _path_end("/".join(parts[-len(names) :]) if tail == names else parts[-1]) or "<unknown>"


def _path_end(path: str) -> str:
    """Cut a path at the front: the end tells two paths apart."""
    return path.encode("utf-8", "replace")[-_NAME:].decode("utf-8", "ignore")


def _under(path: str) -> str:
    return os.path.normcase(os.path.abspath(path)).rstrip(os.sep) + os.sep


_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PACKAGES = ("site-packages", "dist-packages")
_STDLIB = tuple(
    {
        _under(resolve(place))
        for place in (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
        for resolve in (os.path.abspath, os.path.realpath)
    }
)
_PREFIXES = tuple({_under(prefix) for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)})


def is_in_app(module: str, path: str, root: str | None = None) -> bool:
    """
    Return whether code is the project's own, by the first rule that applies.

    Code without a file is the project's only in ``__main__``. Installed packages, the standard
    library and this library are not. Code under *root*, by default the working directory, is.
    Other code is, unless it is in the interpreter's folders.
    """
    if path.startswith("<"):
        return module == "__main__" and not path.startswith("<frozen")
    if any(part in _PACKAGES for part in path.replace("\\", "/").split("/")):
        return False
    place = os.path.normcase(os.path.abspath(path))
    if place.startswith((*_STDLIB, os.path.normcase(_OWN))):
        return False
    return place.startswith(_under(root or os.getcwd())) or not place.startswith(_PREFIXES)


def in_app_rule(
    include: Iterable[str] = (), exclude: Iterable[str] = (), root: str | None = None
) -> InApp:
    """
    Return a function that decides whether code is the project's own; by default `is_in_app`.

    Args:
        include: modules that are the project's, with their submodules, such as ``"shop"``.
        exclude: modules that are not, such as ``"shop.vendored"``. The longest name that
            matches wins; *include* wins over *exclude*.
        root: the project's folder; None: the working directory.
    """
    places = dict.fromkeys(exclude, False) | dict.fromkeys(include, True)
    nearest = sorted(places.items(), key=lambda place: len(place[0]), reverse=True)

    def rule(module: str, path: str) -> bool:
        for name, is_own in nearest:
            if module == name or module.startswith(f"{name}."):
                return is_own
        return is_in_app(module, path, root)

    return rule


class Sources:
    """The source lines around frames: each file is read once, within the limit of an event."""

    def __init__(self) -> None:
        self._frames: list[tuple[Frame, Step]] = []
        self._files: dict[str, list[str]] = {}

    def add(self, frame: Frame, step: Step) -> None:
        """Add *frame* to those that get source lines, the first ones with priority."""
        self._frames.append((frame, step))

    def read(self) -> None:
        """Read the source lines of the frames, until the event's limit is reached."""
        room = _LINES_IN_ALL
        for frame, step in self._frames:
            around, at = self._around(step)
            room -= sum(map(len, around))
            if room < 0:
                return
            if around:
                frame["pre_context"] = around[:at]
                frame["context_line"] = around[at]
                frame["post_context"] = around[at + 1 :]

    def _around(self, step: Step) -> tuple[list[str], int]:
        """Return the lines around a step's line, and the index of that line."""
        path = step.frame.f_code.co_filename
        if path not in self._files:
            self._files[path] = _source_of(path, step.frame.f_globals)
        lines = self._files[path]
        at = (step.lineno or 0) - 1
        if not 0 <= at < len(lines):
            return [], 0
        first = max(at - _LINES_AROUND, 0)
        around = lines[first : at + 1 + _LINES_AROUND]
        return [clip(line.rstrip("\r\n"), _LINE) for line in around], at - first


def _source_of(path: str, names: dict[str, Any]) -> list[str]:
    """Return the lines of a module; an empty list if reading it is impossible or not safe."""
    try:
        if os.path.exists(path):
            # A FIFO or a device would block the caller; a huge file would stay in the cache.
            if not os.path.isfile(path) or os.path.getsize(path) > _SOURCE_FILE:
                return []
            linecache.checkcache(path)
        elif not path.startswith("<") and "__loader__" not in names:
            return []  # `linecache` would search all of sys.path for it
        return linecache.getlines(path, names)
    except Exception:  # a loader may raise anything
        return []
