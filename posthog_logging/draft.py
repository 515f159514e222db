"""
The short way for the plainest events: a snapshot on the caller, all the rest in the thread.

An id, properties and perhaps a name, nothing else on the record, nobody bound in the
context, no hook: then the snapshot of the properties is all that must happen before the
log call returns. What turns out not to be so plain goes the long way, with the same result.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Callable, Mapping
from typing import Any

from . import context, jsonable
from .jsonable import is_flat, is_modest, snapshot
from .message import IDENTITY_EVENTS, STANDARD, is_plain, stamp
from .wire import Dialect


__all__ = ["Draft", "captured", "drafted", "finisher"]

#: When it was said, the event's name, the id, the encoded properties without their first brace,
#: the uuid and the timestamp where somebody was told of them already, and about how many bytes.
Draft = tuple[float, str, str, bytes, "tuple[str, str] | None", int]

(_DOLLAR,) = b"$"

# What is on a record with an id and properties, and what may be there without more ado:
# a name, and what the formatters of other handlers leave.
_PLAINEST = STANDARD + 2
_HARMLESS = ("event", "message", "asctime")

# The bytes that a line has beside the properties, about.
_ROUGHLY = 250


def drafted(record: logging.LogRecord, said: dict[str, Any]) -> Draft | None:
    """Return the draft of an event of the plainest kind; None where *record* is another."""
    properties, distinct_id = said.get("properties"), said.get("distinct_id")
    if (
        type(properties) is not dict
        or type(distinct_id) is not str
        or context.current() is not None
    ):
        return None
    try:
        if len(said) == _PLAINEST:
            name = record.getMessage() if said["args"] else said["msg"]
        elif len(said) == _PLAINEST + sum(key in said for key in _HARMLESS):
            name = said["event"] if "event" in said else record.getMessage()
        else:
            return None
        if type(name) is not str or name in IDENTITY_EVENTS:
            return None
        # The slice lets go of orjson's buffer, which is many times larger than the text.
        rest = snapshot(properties)[1:]
        return said["created"], name, distinct_id, rest, None, len(rest) + _ROUGHLY
    except Exception:  # arguments that do not fit: the long way knows what to do
        return None


def captured(distinct_id: str, name: str, properties: dict[str, Any]) -> Draft | None:
    """Return the draft of such an event that is no record; None where it must go the long way."""
    if context.current() is not None or name in IDENTITY_EVENTS or not name.strip():
        return None
    created = time.time()
    rest = snapshot(properties)[1:]
    return created, name, distinct_id, rest, stamp(created), len(rest) + _ROUGHLY


def finisher(
    dialect: Dialect,
    constants: Mapping[str, Any],
    long_way: Callable[[Draft], bytes | None],
) -> Callable[[Draft], bytes | None] | None:
    """
    Return a function that makes a line of a draft; None where *dialect* has no short way.

    *constants* are properties of every event, which a draft's own must not contradict.
    What is not so plain after all goes the *long_way*.
    """
    splicer = getattr(dialect, "splicer", None)
    splice = splicer(constants) if splicer is not None else None
    if splice is None:
        return None
    taken = [b'"%b":' % jsonable.encode(k)[1:-1] for k in constants if not k.startswith("$")]
    largest = dialect.limits.event_bytes

    def finish(draft: Draft) -> bytes | None:
        created, name, distinct_id, rest, ids, _ = draft
        if (
            (_DOLLAR in rest and b'"$' in rest)
            or not is_plain(name, distinct_id)
            or not (is_flat(rest) or is_modest(rest))
            or (taken and any(key in rest for key in taken))
        ):
            return long_way(draft)
        uuid, timestamp = ids or stamp(created)
        line: bytes = splice(uuid, name, distinct_id, timestamp, rest)
        return line if len(line) <= largest else long_way(draft)

    return finish
