"""Timestamps: parse any form of them, and write RFC 3339 in UTC."""

from __future__ import annotations

import datetime as dt
import math

from collections.abc import Callable
from typing import Any

from .proxies import unwrapped


__all__ = [
    "EARLIEST",
    "LATEST",
    "created_or_now",
    "milliseconds",
    "now",
    "parse_timestamp",
    "rfc3339",
]


#: The years 1 to 9999 in epoch seconds: the range of RFC 3339.
EARLIEST = -62_135_596_800.0
LATEST = 253_402_300_800.0


def parse_timestamp(value: Any) -> str | None:
    """
    Return a datetime, a date, an ISO 8601 string or epoch seconds as RFC 3339 in UTC.

    Returns None for anything else. A date, a naive datetime and a naive string mean local time,
    as in the standard library; numpy's ``datetime64`` means UTC, as in numpy.
    """
    try:
        return _utc(_datetime_of(unwrapped(value)))
    except Exception:  # the caller's tzinfo may raise anything
        return None


def created_or_now(created: Any, warn: Callable[[str, str], None]) -> float:
    """
    Return *created* if it is epoch seconds, else the current time.

    In the latter case *warn* is called with a warning.
    """
    try:
        if EARLIEST <= created < LATEST:
            return float(created)
    except Exception:  # not a number
        pass
    warn("bad time", "created: not epoch seconds; the present time is sent")
    return now()


def now() -> float:
    """Return the current time in epoch seconds, also where a test replaces `time.time`."""
    return dt.datetime.now(dt.UTC).timestamp()


def _datetime_of(value: Any) -> dt.datetime:
    if isinstance(value, dt.datetime):  # a plain one: pandas' Timestamp overrides `astimezone`
        return dt.datetime.combine(value.date(), value.timetz())
    if isinstance(value, dt.date):
        return dt.datetime.combine(value, dt.time())
    if isinstance(value, str):
        return _parse_iso(value.strip())
    if getattr(getattr(value, "dtype", None), "kind", "") == "M":
        naive: dt.datetime = value.astype("M8[us]").tolist()
        return naive.replace(tzinfo=dt.UTC)
    if callable(getattr(type(value), "isoformat", None)):  # such as arrow's
        return _parse_iso(value.isoformat())
    if isinstance(value, bool) or not math.isfinite(value):
        raise ValueError("not epoch seconds")
    return dt.datetime.fromtimestamp(float(value), dt.UTC)


def _parse_iso(text: str) -> dt.datetime:
    if text.endswith("z"):  # RFC 3339 allows a small z, Python does not
        text = text.removesuffix("z") + "Z"
    return dt.datetime.fromisoformat(text)


def rfc3339(seconds: float) -> str:
    """Return epoch *seconds* as RFC 3339 in UTC, with microseconds."""
    return _utc(dt.datetime.fromtimestamp(seconds, dt.UTC))


def milliseconds(timestamp: str) -> str:
    """Return an RFC 3339 time in UTC with milliseconds."""
    if timestamp[-1:] != "Z":
        timestamp = parse_timestamp(timestamp) or timestamp
    whole, _, fraction = timestamp.removesuffix("Z").partition(".")
    return f"{whole}.{fraction[:3]:<03}Z"


def _utc(time: dt.datetime) -> str:
    # Not `strftime`, which imports `time`: at the interpreter's end that fails.
    naive = time.astimezone(dt.UTC).replace(tzinfo=None)
    return f"{naive.isoformat(timespec='microseconds')}Z"
