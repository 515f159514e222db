"""
Read the fields of a log record or a structlog entry, from ``extra`` or from the message.

structlog's message is a dict, the text of a dict or a JSON string; loguru puts one dict into
the extras. These opt in with ``distinct_id`` or a typed event, not with ``event``, which is
structlog's key for every message.
"""

from __future__ import annotations

import ast
import datetime as dt
import json
import logging
import os
import re
import sys
import threading

from collections.abc import Mapping
from types import FrameType
from typing import Any, NamedTuple

from ..context import Bound, current, was_bound
from .exc_info import normalise_exc_info
from .levels import level_of
from .timestamps import parse_timestamp
from .typed import declaration_of


__all__ = [
    "NOBODY",
    "RESERVED",
    "STANDARD",
    "Fields",
    "bound_to",
    "fields_in_entry",
    "fields_in_message",
    "fields_of",
    "is_basic_config",
    "is_event",
    "name_of",
    "text_of",
]


# Made with the class, as the program's record factory may have side effects.
_BLANK = logging.LogRecord("", 0, "", 0, "", (), None).__dict__
#: The number of attributes that `logging` itself gives a record.
STANDARD = len(_BLANK)
_FIRST_STANDARD, *_, LAST_STANDARD = _BLANK
# Keys that structlog's `ProcessorFormatter` adds to a record or an entry for its own use.
_STRUCTLOG = {"_from_structlog", "_logger", "_name", "_record"}
#: Attributes of a record that are not extras; ``taskName`` is new in Python 3.12.
RESERVED = frozenset(_BLANK) | {"message", "asctime", "taskName"} | _STRUCTLOG


def is_event(record: logging.LogRecord) -> bool:
    """Return whether *record* opts in: by ``distinct_id``, ``event``, or a typed event."""
    attributes = record.__dict__
    return (
        "distinct_id" in attributes
        or "event" in attributes
        or declaration_of(record.msg) is not None
    )


def name_of(record: logging.LogRecord) -> Any:
    """Return the default name of the event: the message, which may be a typed event."""
    return text_of(record) if declaration_of(record.msg) is None else record.msg


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the extras of *record*: all attributes that `logging` did not set."""
    attributes = record.__dict__
    keys = list(attributes)
    if (
        len(keys) >= STANDARD
        and keys[STANDARD - 1] == LAST_STANDARD
        and keys[0] == _FIRST_STANDARD
    ):
        keys = keys[STANDARD:]  # extras come last; this saves 23 look-ups per event
    return {key: attributes[key] for key in keys if key not in RESERVED}


def text_of(record: logging.LogRecord) -> str:
    """
    Return the formatted message; unformatted if the arguments do not fit; "" if it has no text.

    The standard `QueueHandler` joins message, traceback and stack into one text; only the message
    is returned.
    """
    try:
        text = record.getMessage()
    except Exception:  # the arguments do not fit, or one of them cannot be formatted
        try:
            text = str(record.msg)
        except Exception:
            return ""
    return _message_in(text, record) if getattr(record, "args", ()) is None else text


def bound_to(record: logging.LogRecord) -> Bound:
    """
    Return the values bound in the current context if *record* was made in it, else `NOBODY`.

    A queue, and a handler that keeps records (`MemoryHandler`), pass them on in a different
    context. An identity that was bound after *record* was made, or in another thread, process
    or task, does not apply to it.
    """
    bound = current()
    if bound is None:
        return NOBODY
    try:
        return bound if _was_made_here(record) and was_bound(record.created) else NOBODY
    except Exception:  # a hand-made record without a thread or a time
        return bound


def is_basic_config(caller: FrameType) -> bool:
    """Return whether *caller* is the frame of `logging.basicConfig`."""
    return caller.f_code is logging.basicConfig.__code__


#: No identity and no properties.
NOBODY = Bound()

# What can follow the message in a text made by `QueueHandler`: a traceback, that of a group or
# of a syntax error, an exception or a group that was never raised, or a stack.
_TRACE = re.compile(
    r"\n(?:Traceback \(most recent call last\):|  \+ Exception Group Traceback|"
    r'Stack \(most recent call last\):|  File "|(?:  \| .*\n)+  \+-|'
    r"NoneType: None$|"  # of `log.exception` without an exception
    r"[\w.<>]+(?:Error|Exception|Warning|Interrupt|Exit|Group|Timeout|Expired|Iteration)(?::|$))",
    re.MULTILINE,
)
# Any other class of a module, of an error that was never raised.
_ERROR = re.compile(r"\n(?:[^\W\d][\w<>]*\.)+(?:<locals>\.)?[A-Z]\w*(?::|$)", re.MULTILINE)


def _message_in(text: str, record: logging.LogRecord) -> str:
    for pattern in (_TRACE, _ERROR) if level_of(record) >= logging.ERROR else (_TRACE,):
        found = pattern.search(text)
        if found is not None:
            text = text[: found.start()].rstrip("\n")
    # The format that `basicConfig` gives to handlers without one (`logging.BASIC_FORMAT`).
    return text.removeprefix(f"{record.levelname}:{record.name}:")


def _was_made_here(record: logging.LogRecord) -> bool:
    return (
        record.thread in (None, threading.get_ident())
        and record.process in (None, os.getpid())
        and _was_made_in_task(record)
    )


def _was_made_in_task(record: logging.LogRecord) -> bool:
    """Return whether *record* is of the current task, or of none if there is none."""
    task = _task_name()
    made_in = getattr(record, "taskName", task)
    # Python 3.12 and newer note the task, unless the program has switched that off.
    return made_in == task or (made_in is None and not getattr(logging, "logAsyncioTasks", False))


def _task_name() -> str | None:
    asyncio = sys.modules.get("asyncio")  # imported already if there are tasks
    try:
        task = None if asyncio is None else asyncio.current_task()
    except RuntimeError:  # no running event loop
        return None
    return None if task is None else task.get_name()


class Fields(NamedTuple):
    """The keys of ``extra``, and the event's name if they have no ``event``."""

    fields: dict[Any, Any]
    name: Any


# structlog's key of the message, and what `EventRenamer` and python-json-logger rename it to.
_MESSAGE_KEYS = ("event", "message", "msg")

_LONGEST = 1_000_000  # characters of a message that is parsed

_CLOCK_READING = 60.0  # seconds


def fields_in_message(record: logging.LogRecord) -> Fields | None:
    """Return the fields in *record*'s message or in loguru's extras; None if it is no event."""
    bound = record.__dict__.get("extra")
    if isinstance(bound, dict) and _is_event(bound):
        return fields_in_entry({"event": _loguru_message(record), **bound}, record.created)
    entry = _entry_in(record)
    if isinstance(entry, dict) and _is_event(entry):
        return fields_in_entry(entry, record.created)
    return None


def fields_in_entry(entry: Mapping[Any, Any], created: float) -> Fields:
    """
    Return the fields of a structlog *entry* made at *created*, in epoch seconds.

    The message is only the default of the name, so that ``kind="identify"`` works as in a log
    call. Keys that begin with ``_`` are for processors, and left out.
    """
    fields = {key: value for key, value in entry.items() if not _is_private(key)}
    key = next((key for key in _MESSAGE_KEYS if key in fields), None)
    name = None if key is None else fields.pop(key)
    if "positional_args" in fields:  # there was no `PositionalArgumentsFormatter`
        name = _formatted(name, fields.pop("positional_args"))
    if "timestamp" in fields and _is_clock_reading(fields["timestamp"], created):
        del fields["timestamp"]
    if "exc_info" in fields:
        _name_exception(fields)
    return Fields(fields, name)


def _is_event(entry: Mapping[Any, Any]) -> bool:
    """Return whether *entry* opts in: by an id, or by a typed event as its message."""
    return "distinct_id" in entry or declaration_of(entry.get("event")) is not None


def _entry_in(record: logging.LogRecord) -> Any:
    """Return the structlog entry in the message of *record* as a dict, or None."""
    message = record.msg
    if isinstance(message, dict):
        return message
    if not isinstance(message, str) or record.args or "distinct_id" not in message[:_LONGEST]:
        return None
    # structlog's `wrap_for_formatter` sets ``_logger``. Without it the text may come from
    # anywhere, and `ast.parse` is not safe for untrusted text.
    if "_logger" in record.__dict__ and message[:1] == "{":
        return _from_repr(message)
    return _from_json(message)


def _from_json(text: str) -> Any:
    try:
        return json.loads(text) if len(text) <= _LONGEST else None
    except (ValueError, RecursionError):
        return None


def _from_repr(text: str) -> dict[Any, Any] | None:
    """Parse the ``str()`` of an entry, which the standard `QueueHandler` makes the message."""
    line = text.partition("\n")[0]  # a formatted traceback follows
    try:
        node = ast.parse(line, mode="eval").body if len(line) <= _LONGEST else None
        if isinstance(node, ast.Dict):
            return {
                ast.literal_eval(key): _literal(value, line)
                for key, value in zip(node.keys, node.values, strict=True)
                if key is not None
            }
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass  # a value whose repr is not an expression
    return None


def _literal(node: ast.expr, line: str) -> Any:
    """Return the value of a literal; for any other expression, such as a datetime, its source."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.get_source_segment(line, node)


def _loguru_message(record: logging.LogRecord) -> Any:
    """Return the message without the prefix of loguru's default format."""
    text = record.msg
    if not isinstance(text, str):
        return text
    if record.exc_text == "\n":  # set by loguru's sink if the traceback is in the message
        text = text.partition("\n")[0]
    return text.partition(f"{record.name}:{record.funcName}:{record.lineno} - ")[2] or text


def _is_private(key: Any) -> bool:
    return isinstance(key, str) and str.startswith(key, "_")


def _formatted(name: Any, args: Any) -> Any:
    try:
        return name % args
    except Exception:  # `%` may call anything
        return name


def _is_clock_reading(stamp: Any, created: float) -> bool:
    """
    Return whether *stamp* is just the time of the log call, in a form not to be parsed.

    structlog's ``TimeStamper(fmt="%Y-%m-%d %H:%M:%S")`` writes UTC without a time zone, which
    would be read as local time.
    """
    if not isinstance(stamp, str):
        return False
    if parse_timestamp(stamp) is None:
        return True
    try:
        time = dt.datetime.fromisoformat(stamp)
        if time.tzinfo is not None:
            return False
        utc = time.replace(tzinfo=dt.UTC).timestamp()
    except (ValueError, OverflowError):
        return False
    return abs(utc - created) < _CLOCK_READING


def _name_exception(fields: dict[Any, Any]) -> None:
    """Replace ``exc_info`` by ``exception``, its type and message, as structlog does."""
    found = normalise_exc_info(fields.pop("exc_info"))
    if found is None:
        return
    error = found[0]
    kind = error if isinstance(error, type) else type(error)
    try:
        text = f"{kind.__qualname__}: {error}"
    except Exception:  # its ``__str__`` raised
        text = kind.__qualname__
    fields.setdefault("exception", text)
