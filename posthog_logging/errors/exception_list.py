"""
Convert an exception to PostHog's ``$exception_list``: pure, bounded, and never raising.

Follows the sdk-specs ``exception-event-metadata`` and ``capture-exception``: unknown fields are
left out, never null, and every cut leaves a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from ..events.exc_info import attribute_of, is_error_type
from ..events.levels import level_at, number_of
from ..events.span import span_ids
from .frames import InApp, Sources, Step, both_ends, describe, is_in_app, stack_steps, walk
from .limits import clip
from .tracebacks import Raised, raised_in
from .variables import Variables


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
    "exception_from_text",
    "exception_properties",
    "mechanism",
    "message_properties",
    "middleware",
    "normalise_level",
    "without_owned",
]

Entry = dict[str, Any]


class Boundary(NamedTuple):
    """Where an exception was caught; fields that are None are left out of the event."""

    level: str | None = None
    type: str | None = None
    handled: bool | None = None
    source: str | None = None


#: A boundary about which nothing is known.
CONTEXT_FREE = Boundary()
MANUAL = Boundary("error", "generic", True)
LOGGER = Boundary(None, "logger", True, "python.logging")  # the level is the record's
STRUCTLOG = Boundary(None, "logger", True, "structlog.processor")
TASK = Boundary("error", "task", False, "celery.task_failure")
SYS_EXCEPTHOOK = Boundary("fatal", "onuncaughtexception", False, "python.sys_excepthook")
THREAD_EXCEPTHOOK = Boundary("error", "onuncaughtexception", False, "python.threading_excepthook")


def middleware(source: str, *, handled: bool = False) -> Boundary:
    """Return the boundary of a middleware; *handled* means that the exception did not escape."""
    return Boundary("error", "middleware", handled, source)


def normalise_level(level: Any) -> str | None:
    """Return PostHog's name for a level's name or number; None for an unknown one."""
    if isinstance(level, str):
        if level.strip().lower() == "log":  # a level that PostHog has and `logging` has not
            return "log"
        level = number_of(level)
    if isinstance(level, int) and not isinstance(level, bool) and level > 0:
        return level_at(level).word
    return None


#: Properties that a caller cannot set: the library's, then those of PostHog's processing.
OWNED = frozenset(
    """$exception_list $exception_level $exception_source $debug_images
    $exception_types $exception_values $exception_sources $exception_functions
    $exception_handled $exception_issue_id $exception_fingerprint_version
    $exception_fingerprint_record $exception_release $exception_releases $cymbal_errors""".split()
)


def without_owned(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return *properties* without those in `OWNED`."""
    return {key: value for key, value in properties.items() if key not in OWNED}


# Limits that keep every event below 900 KiB.
_ENTRIES = 50
_MEMBERS = 1000  # members of groups that are read, in all groups of one event (sdk-specs)
_FRAMES, _FRAMES_IN_ALL = 100, 500
_MESSAGE, _MESSAGES_IN_ALL = 8 * 1024, 64 * 1024
_TRACEBACK = 32 * 1024
_NAME = 200
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
    variables: bool = False,
) -> dict[str, Any]:
    """
    Return the properties of the ``$exception`` event for *error*, which can be any object.

    Args:
        error: usually an exception or an exception class.
        boundary: where it was caught.
        level: the severity; if None or unknown, the boundary's.
        traceback: replaces the exception's own.
        stack: the current frame, for an error without a traceback, which is marked synthetic.
        fingerprint: the caller's key for grouping; None: PostHog groups.
        supplied: mechanism fields from an integration; valid ones win.
        in_app: called with module and path; returns whether code is the project's. None:
            `is_in_app`.
        variables: include the local variables of the project's own frames.
    """
    try:
        own = Variables() if variables else None
        entries = _entries(error, traceback, stack, _safely(in_app), own)
    except Exception:  # such as a RecursionError, when hardly any stack is left
        entries = [_entry(_type_name(type(error)), _UNREADABLE, synthetic=False)]
    return _event(entries, boundary, level, fingerprint, supplied)


def _event(
    entries: list[Entry],
    boundary: Boundary,
    level: Any,
    fingerprint: Any = None,
    supplied: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the properties of the event with *entries*, completed from the boundary."""
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
        **span_ids(),
    }


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
# Fields that place an entry in the tree. An integration cannot set them: the caught exception
# is always the root.
_LINKAGE = frozenset({"source", "exception_id", "parent_id"})


def mechanism(*known: Mapping[str, Any]) -> dict[str, Any]:
    """
    Merge mechanisms: the first valid value of each field wins, and invalid ones are left out.

    Unknown fields, such as those of other platforms, are kept.
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
    """One exception in the tree, the index of its parent, and its relation to the parent."""

    error: Any
    source: str | None = None
    parent: int = 0


def _entries(
    error: Any,
    traceback: TracebackType | None,
    stack: FrameType | None,
    in_app: InApp,
    variables: Variables | None,
) -> list[Entry]:
    """Return the entries of *error* and of all its causes and members, parents first."""
    links = _tree(error) if isinstance(error, BaseException) else [_Link(error)]
    frames = min(_FRAMES, _FRAMES_IN_ALL // len(links))
    sources = Sources()
    entries = []
    for number, link in enumerate(links):
        own = traceback if number == 0 and traceback else attribute_of(link.error, "__traceback__")
        steps = both_ends(walk(own), frames)
        synthetic = number == 0 and not steps and stack is not None
        if synthetic:
            steps = stack_steps(stack, frames)
        entry = _described(link.error, min(_MESSAGE, _MESSAGES_IN_ALL // len(links)))
        entry["mechanism"]["synthetic"] |= synthetic
        _add_frames(entry, steps, in_app, sources, variables)
        _link(entry, number, link.source, link.parent)
        entries.append(entry)
    sources.read()
    return entries


def _add_frames(
    entry: Entry,
    steps: list[Step | int],
    in_app: InApp,
    sources: Sources,
    variables: Variables | None = None,
) -> None:
    frames = [describe(step, in_app) for step in steps]
    if frames:
        entry["stacktrace"] = {"type": "raw", "frames": frames}
    for frame, step in zip(reversed(frames), reversed(steps), strict=True):
        if not isinstance(step, int):
            sources.add(frame, step)
            if variables is not None and frame["in_app"]:
                variables.add(frame, step.frame)


def _safely(in_app: InApp | None) -> InApp:
    """Wrap *in_app* so that it never raises: if it does, `is_in_app` decides."""

    def decided(module: str, path: str) -> bool:
        for rule in (in_app, is_in_app):
            try:
                if rule is not None:
                    return bool(rule(module, path))
            except Exception:  # the caller's rule raised, or the working directory is gone
                continue
        return False

    return decided


def _described(error: Any, most: int) -> Entry:
    """Return the entry of *error* without frames; an object that is no exception is synthetic."""
    if not isinstance(error, BaseException):
        if is_error_type(error):
            return _entry(_type_name(error), "", synthetic=True)
        return _entry("Exception", _message(error, most), synthetic=True)
    entry = _entry(_type_name(type(error)), _message(error, most), synthetic=False)
    module = attribute_of(type(error), "__module__")
    if _is_text(module) and module != "builtins":
        entry["module"] = clip(module, _NAME)
    return entry


def _entry(kind: str, value: str, *, synthetic: bool) -> Entry:
    return {"type": kind, "value": value, "mechanism": {"synthetic": synthetic, "exception_id": 0}}


def _link(entry: Entry, number: int, source: str | None, parent: int) -> None:
    """Link *entry* to its parent; the root, entry 0, has none."""
    if number:
        edge = {"type": "chained", "source": source, "exception_id": number, "parent_id": parent}
        entry["mechanism"] = mechanism(edge, entry["mechanism"])


def _tree(error: BaseException) -> list[_Link]:
    """Return *error*, its causes and its members, depth first; each once, and 50 at most."""
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
    """Yield the cause or context of *error*, then its members while *reads* lasts."""
    cause = attribute_of(error, "__cause__")
    context = attribute_of(error, "__context__")
    if isinstance(cause, BaseException):
        yield "cause", cause
    elif isinstance(context, BaseException) and not attribute_of(error, "__suppress_context__"):
        yield "context", context
    # By the attribute, not by type: the backport of exception groups has its own class.
    members = attribute_of(error, "exceptions")
    if isinstance(members, (list, tuple)):
        for _, member in zip(reads, members):  # noqa: B905 - whichever ends first
            if isinstance(member, BaseException):
                yield "member", member


def _type_name(kind: type) -> str:
    name = attribute_of(kind, "__qualname__")
    return clip(name, _NAME) if _is_text(name) else "Exception"


def _message(error: Any, most: int) -> str:
    """Return the message of *error* with its notes (PEP 678) below, as in a traceback."""
    try:
        text = str.__str__(str(error))
    except Exception:
        return f"[unprintable {_type_name(type(error))}]"
    notes = attribute_of(error, "__notes__") if isinstance(error, BaseException) else None
    if isinstance(notes, list):
        text = "\n".join([text, *(note for note in notes[:_ENTRIES] if isinstance(note, str))])
    return clip(text, most)


def exception_from_text(
    text: str, boundary: Boundary = LOGGER, *, level: str | int | None = None
) -> dict[str, Any]:
    """
    Return the properties of the ``$exception`` event for a traceback as text.

    The event is marked synthetic. Frames are not parsed; the text is in the property
    ``traceback``. A text without a traceback becomes an ``Exception`` with its first line.
    """
    try:
        whole = str.__str__(text)
        found = raised_in(whole)[:_ENTRIES]
    except Exception:  # not text
        return _event([_entry("Exception", _UNREADABLE, synthetic=True)], boundary, level)
    entries = []
    for number, raised in enumerate(found):
        entry = _entry_of_text(raised, min(_MESSAGE, _MESSAGES_IN_ALL // len(found)))
        _link(entry, number, raised.source, number - 1)
        entries.append(entry)
    return {**_event(entries, boundary, level), "traceback": _end_of(whole)}


def _end_of(text: str) -> str:
    """Return the end of a traceback, which has the outermost exception."""
    if len(text) <= _TRACEBACK:
        return text
    return f"[cut: of {len(text)} characters]\n{text[-_TRACEBACK:]}"


def _entry_of_text(raised: Raised, most: int) -> Entry:
    entry = _entry(clip(raised.type, _NAME), clip(raised.value, most), synthetic=True)
    if raised.module:
        entry["module"] = clip(raised.module, _NAME)
    return entry


def message_properties(
    name: str,
    message: str,
    *,
    level: str | int | None = None,
    site: FrameType | None = None,
    boundary: Boundary = LOGGER,
    in_app: InApp | None = None,
) -> dict[str, Any]:
    """
    Return the properties of the ``$exception`` event for a logged error without an exception.

    Args:
        name: the logger's name, which becomes the type.
        message: the log message, which becomes the value.
        site: the frame of the log call; None if it is not known.
    """
    entry = _entry(clip(name, _NAME) or "Exception", clip(message, _MESSAGE), synthetic=True)
    sources = Sources()
    _add_frames(entry, [Step(site, site.f_lineno)] if site else [], _safely(in_app), sources)
    sources.read()
    return _event([entry], boundary, level)
