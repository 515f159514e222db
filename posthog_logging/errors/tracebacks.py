"""
Parse tracebacks in text, which is all that the standard ``QueueHandler`` keeps of an exception.

Only types and messages are parsed, not frames.
"""

from __future__ import annotations

import logging
import re

from typing import NamedTuple


__all__ = ["Raised", "before_traceback", "is_traceback", "raised_in", "traceback_in"]

#: The first line of a traceback; part of it, for an exception group.
_TRACEBACK = "Traceback (most recent call last):"
_STACK = "Stack (most recent call last):"
_NO_EXCEPTION = "\nNoneType: None"  # of `log.exception` where there is none
_JOINTS = {
    "The above exception was the direct cause of the following exception:": "cause",
    "During handling of the above exception, another exception occurred:": "context",
}
_RAISED = re.compile(r"(?P<name>[^\W\d][\w.<>]*)(?:: (?P<value>.*))?")
# In the text of a group, its own lines are indented once, and its members' further.
_BOXED = re.compile(r"  [+|] ?")
_MEMBER = re.compile(r"(?: {4,}[+|]|  \+-)")
_TEXT = 256 * 1024


class Raised(NamedTuple):
    """
    One exception in a text.

    *source* is its relation to the exception it led to: ``"cause"`` or ``"context"``; None for
    the outermost one.
    """

    module: str
    type: str
    value: str
    source: str | None = None


def is_traceback(text: object) -> bool:
    """Return whether *text* has a traceback in it."""
    return isinstance(text, str) and _TRACEBACK in text


def traceback_in(record: logging.LogRecord) -> str:
    """Return the traceback in the text of *record*; "" if there is none."""
    text = record.exc_text
    if not text and record.args is None:  # `QueueHandler.prepare` joined message and traceback
        text = record.msg
    if not isinstance(text, str) or not is_traceback(text):
        return ""
    return text[len(before_traceback(text)) :].lstrip("\n")


def before_traceback(text: str) -> str:
    """Return the lines above the traceback in *text*; all of it if there is none."""
    before, traceback, _ = text.partition(_TRACEBACK)
    return before.rpartition("\n")[0] if traceback else text.removesuffix(_NO_EXCEPTION)


def raised_in(text: str) -> list[Raised]:
    """
    Return the exceptions in *text*, the outermost first, which is the last in the text.

    A text without a traceback is returned as an ``Exception`` with its first line.
    """
    blocks: list[tuple[str, list[str]]] = [("", [])]
    for line in _unboxed(text[-_TEXT:].splitlines()):
        if line.strip() in _JOINTS:
            blocks.append((_JOINTS[line.strip()], []))
        elif line == _STACK:
            break
        else:
            blocks[-1][1].append(line)
    if _TRACEBACK not in blocks[-1][1]:
        first = next((line.strip() for line in text.splitlines() if line.strip()), "")
        return [Raised("", "Exception", first)]
    found = []
    source: str | None = None
    for joint, lines in reversed(blocks):
        found.append(_raised(lines)._replace(source=source))
        source = joint
    return found


def _unboxed(lines: list[str]) -> list[str]:
    """Return the lines of a group's text without indents and members; other lines unchanged."""
    if not any("Exception Group Traceback" in line for line in lines):
        return lines
    own = [_BOXED.sub("", line, count=1) for line in lines if not _MEMBER.match(line)]
    return [line.replace(f"Exception Group {_TRACEBACK}", _TRACEBACK) for line in own]


def _raised(lines: list[str]) -> Raised:
    """Return the exception at the end of one traceback, below the indented lines."""
    start = lines.index(_TRACEBACK) + 1 if _TRACEBACK in lines else 0
    end = start
    while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
        end += 1
    raised = _RAISED.fullmatch(lines[end]) if end < len(lines) else None
    name, value = (raised["name"], raised["value"] or "") if raised else ("Exception", "")
    more = lines[end + 1 if raised else end :]
    text = "\n".join([value, *more] if raised else more).rstrip()
    module, _, kind = name.rpartition(".") if "<" not in name else ("", "", name)
    return Raised(module, kind or name, text)
