"""
Naive datetimes as the old clients read them: as UTC, unless they are the current local time.

The handler reads a naive datetime as local time, which would shift the events of migrated code.
"""

from __future__ import annotations

import datetime as dt

from typing import Any


__all__ = ["zoned"]

_JUST_NOW = dt.timedelta(seconds=5)


def zoned(timestamp: Any, now: dt.datetime | None = None) -> Any:
    """
    Return *timestamp* with the time zone that the old clients assumed.

    A naive datetime later than five seconds before *now* is local time, from
    ``datetime.now()``. An earlier one is UTC, from ``datetime.utcnow()`` or a database. Any other
    value is returned unchanged. *now* is a naive local time; None: the current one.
    """
    if not isinstance(timestamp, dt.datetime) or timestamp.tzinfo is not None:
        return timestamp
    if (now or dt.datetime.now()) - timestamp <= _JUST_NOW:
        return timestamp.astimezone()
    return timestamp.replace(tzinfo=dt.UTC)
