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
from .jsonable import is_modest, snapshot
from .message import IDENTITY_EVENTS, STANDARD, is_plain, stamp
from .wire import Dialect


__all__ = ["ROUGHLY", "Draft", "captured", "drafted", "finish_nothing", "finisher"]

#: When it was said, the event's name, the id, the encoded properties without their first brace,
#: and the uuid and the timestamp where somebody was told of them already.
Draft = tuple[float, str, str, bytes, "tuple[str, str] | None"]

(_DOLLAR,) = b"$"

#: The bytes that a line has beside the properties, about.
ROUGHLY = 250


def drafted(record: logging.LogRecord, said: dict[str, Any]) -> Draft | None:
    """Return the draft of an event of the plainest kind; None where *record* is another."""
    properties, distinct_id = said.get("properties"), said.get("distinct_id")
    named = "event" in said
    if (
        type(properties) is not dict
        or type(distinct_id) is not str
        # other handlers' formatters leave a ``message`` and perhaps an ``asctime``
        or len(said) != STANDARD + 2 + named + ("message" in said) + ("asctime" in said)
        or context.current() is not None
    ):
        return None
    try:
        if named:
            name = said["event"]
        else:
            name = record.getMessage() if said["args"] else said["msg"]
        if type(name) is not str or name in IDENTITY_EVENTS:
            return None
        # The slice lets go of orjson's buffer, which is many times larger than the text.
        return said["created"], name, distinct_id, snapshot(properties)[1:], None
    except Exception:  # arguments that do not fit: the long way knows what to do
        return None


def captured(distinct_id: str, name: str, properties: dict[str, Any]) -> Draft | None:
    """Return the draft of such an event that is no record; None where it must go the long way."""
    if context.current() is not None or name in IDENTITY_EVENTS or not name.strip():
        return None
    created = time.time()
    return created, name, distinct_id, snapshot(properties)[1:], stamp(created)


def finish_nothing(draft: Draft) -> None:
    """Leave every draft to the long way."""


def finisher(dialect: Dialect, constants: Mapping[str, Any]) -> Callable[[Draft], bytes | None]:
    """
    Return a function that makes a line of a draft, or None where it must go the long way.

    *constants* are properties of every event, which a draft's own must not contradict.
    """
    splicer = getattr(dialect, "splicer", None)
    splice = splicer(constants) if splicer is not None else None
    if splice is None:
        return finish_nothing
    taken = [b'"%b":' % jsonable.encode(k)[1:-1] for k in constants if not k.startswith("$")]
    largest = dialect.limits.event_bytes

    def finish(draft: Draft) -> bytes | None:
        created, name, distinct_id, rest, ids = draft
        if (
            (_DOLLAR in rest and b'"$' in rest)
            or not is_plain(name, distinct_id)
            or not is_modest(rest)
            or (taken and any(key in rest for key in taken))
        ):
            return None
        uuid, timestamp = ids or stamp(created)
        line: bytes = splice(uuid, name, distinct_id, timestamp, rest)
        return line if len(line) <= largest else None

    return finish
