"""
An exception as PostHog's ``$exception_list``: pure, bounded, and never raising.

The rules are those of sdk-specs ``exception-event-metadata`` and ``capture-exception``: what is
not known is left out, never null, and whatever was cut to fit says so where it was cut.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
import sysconfig

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from ..events.exc_info import attribute_of, is_error_type, is_true
from ..events.levels import level_at, number_of
from ..events.span import active_span


__all__ = [
    "CONTEXT_FREE",
    "LOGGER",
    "MANUAL",
    "OWNED",
    "STRUCTLOG",
    "SYS_EXCEPTHOOK",
    "TASK",
    "THREAD_EXCEPTHOOK",
    "Boundary",
    "RateLimit",
    "exception_from_text",
    "exception_properties",
    "is_in_app",
    "mechanism",
    "middleware",
    "normalise_level",
    "task",
    "without_owned",
]

InApp = Callable[[str, str], bool]
Entry = dict[str, Any]


class Boundary(NamedTuple):
    """Where an exception was caught, and what that place knows: None is left out."""

    level: str | None = None
    type: str | None = None
    handled: bool | None = None
    source: str | None = None


#: Who knows nothing of where it was caught, and therefore says nothing of it.
CONTEXT_FREE = Boundary()
MANUAL = Boundary("error", "generic", True)
LOGGER = Boundary(None, "logger", True, "python.logging")  # the level is the record's
STRUCTLOG = Boundary(None, "logger", True, "structlog.processor")
TASK = Boundary("error", "task", False, "celery.task_failure")
SYS_EXCEPTHOOK = Boundary("fatal", "onuncaughtexception", False, "python.sys_excepthook")
THREAD_EXCEPTHOOK = Boundary("error", "onuncaughtexception", False, "python.threading_excepthook")


def middleware(source: str, *, handled: bool = False) -> Boundary:
    """Return the boundary of a request: an exception escapes it, or a handler consumed it."""
    return Boundary("error", "middleware", handled, source)


def task(source: str) -> Boundary:
    """Return the boundary of a background task that failed."""
    return Boundary("error", "task", False, source)


def normalise_level(level: Any) -> str | None:
    """Return PostHog's word for a level's name or number, or None where it has none."""
    if isinstance(level, str):
        if level.strip().lower() == "log":  # a level of PostHog's that `logging` has not
            return "log"
        level = number_of(level)
    if isinstance(level, int) and not isinstance(level, bool) and level > 0:
        return level_at(level).word
    return None


#: Keys that no property of a caller's ever sets: the library's own, then the processor's.
OWNED = frozenset(
    """$exception_list $exception_level $exception_source $debug_images
    $exception_types $exception_values $exception_sources $exception_functions
    $exception_handled $exception_issue_id $exception_fingerprint_version
    $exception_fingerprint_record $exception_release $exception_releases $cymbal_errors""".split()
)


def without_owned(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return a caller's *properties* without those that are not the caller's to set."""
    return {key: value for key, value in properties.items() if key not in OWNED}


# What an event of at most 900 KiB has room for, whatever the exceptions are.
_ENTRIES = 50
_MEMBERS = 1000  # reads of group members, shared by all groups of one event (sdk-specs)
_FRAMES, _FRAMES_IN_ALL = 100, 500
_MESSAGE, _MESSAGES_IN_ALL = 8 * 1024, 64 * 1024
_LINE, _LINES_IN_ALL, _LINES_AROUND = 1024, 192 * 1024, 5
_NAME = 200
_SOURCE_FILE = 2 * 1024 * 1024
_TEXT = 256 * 1024
_UNREADABLE = "[unreadable exception]"


def exception_properties(
    error: Any,
    boundary: Boundary = MANUAL,
    *,
    level: str | int | None = None,
    traceback: TracebackType | None = None,
    stack: FrameType | None = None,
    fingerprint: str | None = None,
    supplied: Mapping[str, Any] | None = None,
    in_app: InApp | None = None,
) -> dict[str, Any]:
    """
    Return the properties of the ``$exception`` event for *error*, whatever that is.

    Args:
        boundary: where it was caught.
        level: the severity at the source; one that is not recognised is the boundary's.
        traceback: in place of the exception's own.
        stack: the current frame, for something that has no traceback: makes it synthetic.
        fingerprint: the caller's own grouping.
        supplied: typed mechanism fields of an integration; the valid ones win.
        in_app: tells by module and path whether code is the project's; see `is_in_app`.
    """
    try:
        entries = _entries(error, traceback, stack, _safely(in_app))
    except Exception:  # such as a RecursionError: there was hardly any stack left to work on
        entries = [_entry(_type_name(type(error)), _UNREADABLE, synthetic=False)]
    return _event(entries, boundary, level, fingerprint, supplied)


def _event(
    entries: list[Entry],
    boundary: Boundary,
    level: Any,
    fingerprint: Any = None,
    supplied: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the event's properties: what the boundary knows, and *entries* linked to it."""
    first = entries[0]
    own = first["mechanism"]
    if boundary == CONTEXT_FREE:
        del own["synthetic"]
    typed = {key: value for key, value in (supplied or {}).items() if key not in _LINKAGE}
    first["mechanism"] = mechanism(
        typed, {"type": boundary.type, "handled": boundary.handled}, own
    )
    known = {
        "$exception_level": normalise_level(level) or boundary.level,
        "$exception_source": boundary.source,
        "$exception_fingerprint": fingerprint,
    }
    return {
        "$exception_list": entries,
        **{key: value for key, value in known.items() if _is_text(value)},
        "$exception_type": first["type"],
        "$exception_message": first["value"],
        **_span_ids(),
    }


def _span_ids() -> dict[str, Any]:
    return {key: value for key, value in active_span().items() if key in _SPAN_IDS}


_SPAN_IDS = frozenset({"$trace_id", "$span_id"})


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


_VALID: Mapping[str, Callable[[Any], bool]] = {
    "type": _is_text,
    "handled": _is_flag,
    "synthetic": _is_flag,
    "source": _is_text,
    "exception_id": _is_id,
    "parent_id": _is_id,
}
# The place in the tree: the entry that was caught is its root, whatever an integration says.
_LINKAGE = frozenset({"source", "exception_id", "parent_id"})


def mechanism(*known: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return one mechanism: of each field the first valid value; what is not valid is absent.

    Keys of other platforms are kept as they are.
    """
    found: dict[str, Any] = {}
    for fields in known:
        for key, value in fields.items():
            if key not in found and _VALID.get(key, _is_given)(value):
                found[key] = value
    return found


def _is_given(value: Any) -> bool:
    return value is not None


class _Link(NamedTuple):
    """One exception in the tree, and how it was reached: from which entry, along which edge."""

    error: Any
    source: str | None = None
    parent: int = 0


def _entries(
    error: Any, traceback: TracebackType | None, stack: FrameType | None, in_app: InApp
) -> list[Entry]:
    """Return the entries of *error* and all that it was caused by, parents first."""
    links = _tree(error) if isinstance(error, BaseException) else [_Link(error)]
    frames = min(_FRAMES, _FRAMES_IN_ALL // len(links))
    sources = _Sources()
    entries = []
    for number, link in enumerate(links):
        own = traceback if number == 0 and traceback else attribute_of(link.error, "__traceback__")
        steps = _both_ends(_walk(own), frames)
        invented = number == 0 and not steps and stack is not None
        if invented:
            steps = _stack_steps(stack, frames)
        entry = _described(link.error, min(_MESSAGE, _MESSAGES_IN_ALL // len(links)))
        entry["mechanism"]["synthetic"] |= invented
        _add_frames(entry, steps, in_app, sources)
        _link(entry, number, link.source, link.parent)
        entries.append(entry)
    sources.spend()
    return entries


def _described(error: Any, most: int) -> Entry:
    """Return the entry of *error* without frames; what is no exception becomes one."""
    if not isinstance(error, BaseException):
        if is_error_type(error):
            return _entry(_type_name(error), "", synthetic=True)
        return _entry("Exception", _message(error, most), synthetic=True)
    entry = _entry(_type_name(type(error)), _message(error, most), synthetic=False)
    module = attribute_of(type(error), "__module__")
    if _is_text(module) and module != "builtins":
        entry["module"] = _clip(module, _NAME)
    return entry


def _entry(kind: str, value: str, *, synthetic: bool) -> Entry:
    return {"type": kind, "value": value, "mechanism": {"synthetic": synthetic, "exception_id": 0}}


def _link(entry: Entry, number: int, source: str | None, parent: int) -> None:
    """Place *entry* in the tree; the outermost one has no parent, and so no relation to it."""
    if number:
        edge = {"type": "chained", "source": source, "exception_id": number, "parent_id": parent}
        entry["mechanism"] = mechanism(edge, entry["mechanism"])


def _tree(error: BaseException) -> list[_Link]:
    """Return *error* and what it was caused by, depth first, each exception once, 50 at most."""
    links = [_Link(error)]
    seen = {id(error)}
    reads = iter(range(_MEMBERS))
    branches = [(0, _children(error, reads))]
    while branches and len(links) < _ENTRIES:
        parent, children = branches[-1]
        source, child = next(children, (None, None))
        if child is None:
            branches.pop()
        elif id(child) not in seen:
            seen.add(id(child))
            branches.append((len(links), _children(child, reads)))
            links.append(_Link(child, source, parent))
    return links


def _children(
    error: BaseException, reads: Iterator[int]
) -> Iterator[tuple[str | None, BaseException | None]]:
    """Yield what *error* was caused by, then its members; *reads* are the members left to read."""
    cause = attribute_of(error, "__cause__")
    context = attribute_of(error, "__context__")
    if isinstance(cause, BaseException):
        yield "cause", cause
    elif isinstance(context, BaseException) and not attribute_of(error, "__suppress_context__"):
        yield "context", context
    # By its attribute: Python 3.10 has no groups, but the backport and trio have.
    members = attribute_of(error, "exceptions")
    if isinstance(members, (list, tuple)):
        for _, member in zip(reads, members):  # noqa: B905 - whichever ends first
            if isinstance(member, BaseException):
                yield "member", member


def _type_name(kind: type) -> str:
    name = attribute_of(kind, "__qualname__")
    return _clip(name, _NAME) if _is_text(name) else "Exception"


def _message(error: Any, most: int) -> str:
    """Return what *error* says, with its notes (PEP 678) below as a traceback prints them."""
    try:
        text = str.__str__(str(error))
    except Exception:
        return f"[unprintable {_type_name(type(error))}]"
    notes = attribute_of(error, "__notes__") if isinstance(error, BaseException) else None
    if isinstance(notes, list):
        text = "\n".join([text, *(note for note in notes[:_ENTRIES] if isinstance(note, str))])
    return _clip(text, most)


def _clip(text: str, most: int) -> str:
    """Return *text* in at most *most* bytes of UTF-8, saying how much is missing."""
    start = text[:most].encode("utf-8", "replace")
    if len(text) <= most and len(start) <= most:
        return str.__str__(text)
    note = f"[cut: of {len(text)} characters]"
    return start[: max(most - len(note), 0)].decode("utf-8", "ignore") + note


class _Step(NamedTuple):
    """One frame on the way to the crash, and the line that it was at."""

    frame: FrameType
    lineno: int | None


def _walk(traceback: Any) -> Iterator[_Step]:
    """Yield the frames from where it was caught to where it was raised."""
    while isinstance(traceback, TracebackType):
        if not _is_hidden(traceback.tb_frame):
            yield _Step(traceback.tb_frame, traceback.tb_lineno)
        traceback = traceback.tb_next


def _stack_steps(stack: FrameType | None, most: int) -> list[_Step | int]:
    """Return the way to *stack* without the calls of `logging` and of this library at its end."""
    while stack is not None and _is_machinery(stack.f_code.co_filename):
        stack = stack.f_back
    steps = []
    while stack is not None:
        if not _is_hidden(stack):
            steps.append(_Step(stack, stack.f_lineno))
        stack = stack.f_back
    return _both_ends(reversed(steps), most)


def _is_machinery(path: str) -> bool:
    return path.startswith(_OWN) or os.path.dirname(path).endswith(f"{os.sep}logging")


_HIDDEN = ("__tracebackhide__", "__traceback_hide__")


def _is_hidden(frame: FrameType) -> bool:
    """Return whether the frame asks to be left out, as pytest and Sentry let it."""
    code = frame.f_code
    for name in _HIDDEN:
        # The names are looked at first: the locals of a frame are a copy, made at each look.
        if name in code.co_varnames or name in code.co_names or name in code.co_cellvars:
            return is_true(frame.f_locals.get(name))
    return False


def _both_ends(steps: Iterable[Any], most: int) -> list[Any]:
    """Return *steps* with the middle replaced by the number of those left out, *most* in all."""
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


def _add_frames(entry: Entry, steps: list[_Step | int], in_app: InApp, sources: _Sources) -> None:
    frames = [_gap(s) if isinstance(s, int) else _live_frame(s, in_app) for s in steps]
    if frames:
        entry["stacktrace"] = {"type": "raw", "frames": frames}
    for frame, step in zip(reversed(frames), reversed(steps), strict=True):
        if not isinstance(step, int):
            sources.want(frame, step)


def _live_frame(step: _Step, in_app: InApp) -> Entry:
    code = step.frame.f_code
    module = step.frame.f_globals.get("__name__")
    known = module if isinstance(module, str) else ""
    return _frame(code.co_filename, code.co_name, step.lineno, known, in_app)


def _gap(left_out: int) -> Entry:
    """Return the frame that says how many are missing; not `in_app`, so no issue groups by it."""
    return {
        "platform": "python",
        "filename": "[cut]",
        "function": f"[cut: {left_out} frames]",
        "in_app": False,
    }


def _frame(path: str, function: str, lineno: int | None, module: str, in_app: InApp) -> Entry:
    """Return one frame without its source; *module* is empty where it is not known."""
    frame: Entry = {
        "platform": "python",
        "filename": _filename(path, module),
        "function": _clip(function, _NAME) or "<unknown>",
        "in_app": in_app(module, path),
    }
    if lineno is not None and lineno >= 0:
        frame["lineno"] = lineno
    if module:
        frame["module"] = _clip(module, _NAME)
    if os.path.isabs(path) and len(path) <= 2 * _NAME:
        frame["abs_path"] = path
    return frame


def _filename(path: str, module: str) -> str:
    """Return *path* from the top package of *module* on, or only its last part."""
    parts = path.replace("\\", "/").split("/")
    names = module.split(".")
    if os.path.splitext(parts[-1])[0] == "__init__":
        names = [*names, "__init__"]
    tail = [*parts[-len(names) : -1], os.path.splitext(parts[-1])[0]]
    return _path_end("/".join(parts[-len(names) :]) if tail == names else parts[-1]) or "<unknown>"


def _path_end(path: str) -> str:
    """Return the end of a path: that is where two paths differ."""
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
    Return whether code is the project's own; the first rule that applies decides.

    Code without a file is the project's only in ``__main__``; installed packages, the standard
    library and this library are not; what is under *root* (or the working directory) is; and
    so is all else that does not lie in the interpreter's own folders.
    """
    if path.startswith("<"):
        return module == "__main__" and not path.startswith("<frozen")
    if any(part in _PACKAGES for part in path.replace("\\", "/").split("/")):
        return False
    place = os.path.normcase(os.path.abspath(path))
    if place.startswith((*_STDLIB, os.path.normcase(_OWN))):
        return False
    return place.startswith(_under(root or os.getcwd())) or not place.startswith(_PREFIXES)


def _safely(in_app: InApp | None) -> InApp:
    """Return *in_app* such that it cannot raise; where it does, the usual rule decides."""

    def told(module: str, path: str) -> bool:
        for rule in (in_app, is_in_app):
            try:
                if rule is not None:
                    return bool(rule(module, path))
            except Exception:  # the caller's, or a working directory that was deleted
                continue
        return False

    return told


class _Sources:
    """The source lines around frames: read once a file, within what one event has room for."""

    def __init__(self) -> None:
        self._wanted: list[tuple[Entry, _Step]] = []
        self._files: dict[str, list[str]] = {}

    def want(self, frame: Entry, step: _Step) -> None:
        """Note that *frame* is to get its lines, after those that asked before it."""
        self._wanted.append((frame, step))

    def spend(self) -> None:
        """Give the frames their lines, as far as there is room."""
        room = _LINES_IN_ALL
        for frame, step in self._wanted:
            around, at = self._around(step)
            room -= sum(map(len, around))
            if room < 0:
                return
            if around:
                frame["pre_context"] = around[:at]
                frame["context_line"] = around[at]
                frame["post_context"] = around[at + 1 :]

    def _around(self, step: _Step) -> tuple[list[str], int]:
        """Return the lines around a frame's, and which of them is its own."""
        path = step.frame.f_code.co_filename
        if path not in self._files:
            self._files[path] = _source_of(path, step.frame.f_globals)
        lines = self._files[path]
        at = (step.lineno or 0) - 1
        if not 0 <= at < len(lines):
            return [], 0
        first = max(at - _LINES_AROUND, 0)
        around = lines[first : at + 1 + _LINES_AROUND]
        return [_clip(line.rstrip("\r\n"), _LINE) for line in around], at - first


def _source_of(path: str, names: dict[str, Any]) -> list[str]:
    """Return the lines of a module, or none where it is not safe or not possible to read it."""
    try:
        if os.path.exists(path):
            # A FIFO or a device would block the caller, a huge file would stay in the cache.
            if not os.path.isfile(path) or os.path.getsize(path) > _SOURCE_FILE:
                return []
            linecache.checkcache(path)
        elif not path.startswith("<") and "__loader__" not in names:
            return []  # `linecache` would look for it all over sys.path
        return linecache.getlines(path, names)
    except Exception:  # whatever a foreign loader raises
        return []


_TRACEBACK = "Traceback (most recent call last):"
_STACK = "Stack (most recent call last):"
_JOINTS = {
    "The above exception was the direct cause of the following exception:": "cause",
    "During handling of the above exception, another exception occurred:": "context",
}
_FRAME = re.compile(r'  File "(?P<path>.*)", line (?P<line>\d+), in (?P<function>.*)')
_REPEATED = re.compile(r"  \[Previous line repeated (\d+) more times?\]")
_RAISED = re.compile(r"(?P<name>[^\W\d][\w.<>]*)(?:: (?P<value>.*))?")
_MARKS = re.compile(r"[\s^~]*")
# The text of a group: its own part is boxed once, its members are boxed more than once.
_BOXED = re.compile(r"  [+|] ?")
_MEMBER = re.compile(r"(?: {4,}[+|]|  \+-)")


def exception_from_text(
    text: str,
    boundary: Boundary = LOGGER,
    *,
    level: str | int | None = None,
    in_app: InApp | None = None,
) -> dict[str, Any]:
    """
    Return the properties of the ``$exception`` event for a traceback that is only text.

    A stock ``QueueHandler`` leaves no more: the formatted message with the traceback below it.
    It is marked synthetic. What is no traceback is an ``Exception`` with its first line.
    """
    try:
        entries = _entries_in(str.__str__(text)[-_TEXT:], _safely(in_app))
    except Exception:  # not a text at all
        entries = [_entry("Exception", _UNREADABLE, synthetic=True)]
    return _event(entries, boundary, level)


def _entries_in(text: str, in_app: InApp) -> list[Entry]:
    """Return the entries of the tracebacks in *text*, where the outermost comes last."""
    blocks: list[tuple[str, list[str]]] = [("", [])]
    for line in _unboxed(text.splitlines()):
        if line.strip() in _JOINTS:
            blocks.append((_JOINTS[line.strip()], []))
        elif line == _STACK:
            break
        else:
            blocks[-1][1].append(line)
    if _TRACEBACK not in blocks[-1][1]:
        first = next((line.strip() for line in text.splitlines() if line.strip()), "")
        return [_entry("Exception", _clip(first, _MESSAGE), synthetic=True)]
    blocks = blocks[-_ENTRIES:]
    entries = []
    source = ""
    for number, (joint, lines) in enumerate(reversed(blocks)):
        entry = _entry_in(lines, _FRAMES_IN_ALL // len(blocks), in_app)
        _link(entry, number, source, number - 1)
        source = joint
        entries.append(entry)
    return entries


def _unboxed(lines: list[str]) -> list[str]:
    """Return the lines of a group's text without its box and its members; others as they are."""
    if not any("Exception Group Traceback" in line for line in lines):
        return lines
    own = [_BOXED.sub("", line, count=1) for line in lines if not _MEMBER.match(line)]
    return [line.replace(f"Exception Group {_TRACEBACK}", _TRACEBACK) for line in own]


def _entry_in(lines: list[str], most: int, in_app: InApp) -> Entry:
    """Return the entry of one traceback: frames, then type and value to the end."""
    start = lines.index(_TRACEBACK) + 1 if _TRACEBACK in lines else 0
    end = start
    while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
        end += 1
    raised = _RAISED.fullmatch(lines[end]) if end < len(lines) else None
    name, value = (raised["name"], raised["value"] or "") if raised else ("Exception", "")
    more = lines[end + 1 if raised else end :]
    text = "\n".join([value, *more] if raised else more).rstrip()
    module, _, kind = name.rpartition(".") if "<" not in name else ("", "", name)
    entry = _entry(_clip(kind or name, _NAME), _clip(text, _MESSAGE), synthetic=True)
    if module:
        entry["module"] = _clip(module, _NAME)
    frames = _both_ends(_frames_in(lines[start:end], in_app), min(most, _FRAMES))
    if frames:
        parsed = [_gap(frame) if isinstance(frame, int) else frame for frame in frames]
        entry["stacktrace"] = {"type": "raw", "frames": parsed}
    return entry


def _frames_in(lines: list[str], in_app: InApp) -> Iterator[Entry]:
    """Yield the frames of a traceback's text, each with the line below it."""
    for number, line in enumerate(lines):
        found = _FRAME.fullmatch(line[: 4 * _LINE])
        repeated = _REPEATED.fullmatch(line)
        if repeated:
            yield _gap(int(repeated[1]))
        elif found:
            frame = _frame(found["path"], found["function"], int(found["line"]), "", in_app)
            below = lines[number + 1] if number + 1 < len(lines) else ""
            if below.startswith("    ") and not _MARKS.fullmatch(below):
                frame["context_line"] = _clip(below.strip(), _LINE)
            yield frame


class RateLimit:
    """
    Let through *burst* exceptions of a type at once, then *refill* a second.

    No lock: ``deque.pop`` hands each token out once, to whichever thread or signal handler
    asks first. Beyond *most* types, those that come new share one bucket.
    """

    def __init__(self, burst: int = 10, refill: float = 1.0, most: int = 256) -> None:
        self._burst = burst
        self._refill = refill
        self._most = most
        self._buckets: dict[str, _Bucket] = {}

    def allow(self, type_name: str, now: float) -> bool:
        """Return whether one more exception of that type may go, at *now* on any steady clock."""
        bucket = self._buckets.get(type_name) or self._new(type_name, now)
        return bucket.take(now, self._refill)

    def _new(self, type_name: str, now: float) -> _Bucket:
        if len(self._buckets) >= self._most:
            self._forget(now)
        if len(self._buckets) >= self._most:
            type_name = ""  # no type is called that
        return self._buckets.setdefault(type_name, _Bucket(self._burst, now))

    def _forget(self, now: float) -> None:
        """Forget the buckets that are full again: a new one would be the same."""
        for name, bucket in list(self._buckets.items()):
            if bucket.is_full(now, self._refill):
                self._buckets.pop(name, None)


class _Bucket:
    """The tokens of one type; whoever takes the time of the last refill may refill."""

    def __init__(self, burst: int, now: float) -> None:
        self._tokens: deque[None] = deque([None] * burst, maxlen=burst)
        self._refilled = deque([now], maxlen=1)

    def take(self, now: float, refill: float) -> bool:
        """Take a token, if there is one."""
        self._fill(now, refill)
        try:
            self._tokens.pop()
        except IndexError:
            return False
        return True

    def is_full(self, now: float, refill: float) -> bool:
        """Return whether all tokens are there."""
        self._fill(now, refill)
        return len(self._tokens) == self._tokens.maxlen

    def _fill(self, now: float, refill: float) -> None:
        try:
            since = self._refilled.pop()
        except IndexError:
            return  # another thread, or the call that this one interrupts, is at it
        try:
            earned = int(max(now - since, 0) * refill)
            self._tokens.extend([None] * min(earned, self._tokens.maxlen or 0))
            # Never later than now: a clock that was set back must not stop the refill.
            since = min(since + earned / refill, now) if earned else min(since, now)
        finally:
            self._refilled.append(since)
