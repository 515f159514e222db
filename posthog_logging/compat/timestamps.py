"""
How the old clients read a time without a zone: as UTC, unless it is the local time of just now.

The handler reads such a time as local. Code that migrates must not shift its events by that.
"""

from __future__ import annotations

import datetime as dt

from typing import Any


__all__ = ["zoned"]

_JUST_NOW = dt.timedelta(seconds=5)


def zoned(timestamp: Any, now: dt.datetime | None = None) -> Any:
    """
    Return *timestamp* with the zone that the old clients took it to have.

    A naive datetime within five seconds before *now*, or after it, is local time (from
    ``datetime.now()``); any other is UTC (from ``datetime.utcnow()``, or out of a database).
    What is no naive datetime is returned as it is.
    """
    if not isinstance(timestamp, dt.datetime) or timestamp.tzinfo is not None:
        return timestamp
    if (now or dt.datetime.now()) - timestamp <= _JUST_NOW:
        return timestamp.astimezone()
    return timestamp.replace(tzinfo=dt.UTC)
