"""
The short way for the plainest events: a snapshot on the caller, all the rest in the thread.

An id, properties and perhaps a name, nothing else on the record, nobody bound in the
context, no hook: then the snapshot of the properties is all that must happen before the
log call returns. What turns out not to be so plain goes the long way, with the same result.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..context import current
from ..events import jsonable
from ..events.jsonable import is_flat, snapshot, within_limits
from ..events.message import IDENTITY_EVENTS, STANDARD, are_plain, is_plain, stamp
from ..wire import Dialect


__all__ = ["Draft", "Finisher", "captured", "drafted", "finisher"]

#: When it was said, the event's name, the id, the uuid where somebody was told of it already,
#: and the encoded properties without their first brace.
Draft = tuple[float, str, str, "str | None", bytes]

(_DOLLAR,) = b"$"

# What is on a record with an id and properties, and what may be there without more ado:
# a name, and what the formatters of other handlers leave.
_PLAINEST = STANDARD + 2
_HARMLESS = ("event", "message", "asctime")

# What is flat, and an id and a name that are plain, are shorter together.
_MODEST = 16 * 1024


def drafted(record: logging.LogRecord, fields: dict[str, Any]) -> Draft | None:
    """Return the draft of an event of the plainest kind; None where *record* is another."""
    if current() is not None:
        return None
    try:
        properties, distinct_id = fields["properties"], fields["distinct_id"]
        if len(fields) == _PLAINEST:
            name = record.getMessage() if fields["args"] else fields["msg"]
        elif len(fields) == _PLAINEST + sum(key in fields for key in _HARMLESS):
            name = fields["event"] if "event" in fields else record.getMessage()
        else:
            return None
        if type(properties) is dict and type(distinct_id) is str and type(name) is str:
            # The slice lets go of orjson's buffer, which is many times larger than the text.
            return fields["created"], name, distinct_id, None, snapshot(properties)[1:]
    except Exception:  # no id, or arguments that do not fit: the long way knows what to do
        pass
    return None


def captured(distinct_id: str, name: str, properties: dict[str, Any]) -> Draft | None:
    """Return the draft of such an event that is no record; None where it must go the long way."""
    if current() is not None or name in IDENTITY_EVENTS or not name.strip():
        return None
    created = time.time()
    uuid = f"{stamp.second(created)[1]}{stamp.number()}"
    return created, name, distinct_id, uuid, snapshot(properties)[1:]


class Finisher:
    """
    Makes lines of drafts, as a template of *dialect* says.

    *constants* are properties of every event, which a draft's own must not contradict.
    What is not so plain after all goes the *long_way*.
    """

    def __init__(
        self,
        dialect: Dialect,
        templates: tuple[bytes, bytes],
        constants: Mapping[str, Any],
        long_way: Callable[[Draft], bytes | None],
    ) -> None:
        self._with_properties, self._without = templates
        self._taken = [
            b'"%b":' % jsonable.encode(key)[1:-1] for key in constants if not key.startswith("$")
        ]
        self._largest = dialect.limits.event_bytes
        self._long_way = long_way

    def finish(self, draft: Draft) -> bytes | None:
        """Return the line of *draft*; None where it was refused, and counted."""
        created, name, distinct_id, uuid, rest = draft
        try:
            if (
                not is_plain(name, distinct_id)
                or not (is_flat(rest, len(rest)) or within_limits(rest))
                or ((_DOLLAR in rest or self._taken) and not self._is_free(rest))
            ):
                return self._long_way(draft)
            since, head, day = stamp.second(created)
            line = (self._with_properties if len(rest) > 1 else self._without) % (
                (uuid or f"{head}{stamp.number()}").encode(),
                name.encode(),
                distinct_id.encode(),
                day.encode(),
                (created - since) * 1_000_000,
                rest,
            )
        except Exception:  # a time that is none: the long way knows what to do
            return self._long_way(draft)
        return line if len(line) <= self._largest else self._long_way(draft)

    def finish_all(self, drafts: Sequence[Draft]) -> list[bytes]:
        """
        Return the lines of *drafts*, without those that were refused, and counted.

        The same as `finish` of each. Most are so plain that what is asked of one can be asked
        of all of them at once.
        """
        times, names, people, _, rests = zip(*drafts, strict=True)
        since, head, day = stamp.second(times[0])
        whole = b"".join(rests)
        if (
            min(times) < since
            or max(times) >= since + 1.0
            or not are_plain(names, people)
            or not is_flat(whole, max(map(len, rests)))
            or not self._is_free(whole)
        ):
            return [line for line in map(self.finish, drafts) if line is not None]
        draw, with_properties, without = stamp.number, self._with_properties, self._without
        encoded_day = day.encode()
        return [
            (with_properties if len(rest) > 1 else without)
            % (
                (uuid or f"{head}{draw()}").encode(),
                name.encode(),
                distinct_id.encode(),
                encoded_day,
                (created - since) * 1_000_000,
                rest,
            )
            for created, name, distinct_id, uuid, rest in drafts
        ]

    def _is_free(self, rest: bytes) -> bool:
        """Tell that no property is special, nor a constant's other value."""
        special = _DOLLAR in rest and b'"$' in rest
        return not special and not any(key in rest for key in self._taken)


def finisher(
    dialect: Dialect,
    constants: Mapping[str, Any],
    long_way: Callable[[Draft], bytes | None],
) -> Finisher | None:
    """Return what makes lines of drafts; None where *dialect* has no short way."""
    find = getattr(dialect, "templates", None)
    templates = find(constants) if find is not None else None
    if templates is None or len(templates[0]) + _MODEST > dialect.limits.event_bytes:
        return None
    return Finisher(dialect, templates, constants, long_way)
