"""Timestamps: any way to give a moment, as RFC 3339 in UTC."""

from __future__ import annotations

import datetime as dt
import math

from typing import Any


__all__ = ["parse_timestamp", "rfc3339"]


def parse_timestamp(value: Any) -> str | None:
    """
    Return a datetime, an ISO 8601 string or epoch seconds as RFC 3339 in UTC, else None.

    A naive datetime or string means local time, as everywhere in the standard library.
    """
    try:
        if isinstance(value, dt.datetime):
            moment = value
        elif isinstance(value, str):
            moment = _parse_iso(value.strip())
        elif isinstance(value, bool) or not math.isfinite(value):
            return None
        else:
            moment = dt.datetime.fromtimestamp(float(value), dt.UTC)
        return _utc(moment)
    except Exception:  # besides what dates raise, whatever a caller's tzinfo does
        return None


def _parse_iso(text: str) -> dt.datetime:
    if text.endswith("z"):  # RFC 3339 allows it, Python does not
        text = text.removesuffix("z") + "Z"
    return dt.datetime.fromisoformat(text)


def rfc3339(moment: float) -> str:
    """Return epoch seconds as RFC 3339 in UTC, with microseconds."""
    return _utc(dt.datetime.fromtimestamp(moment, dt.UTC))


def _utc(moment: dt.datetime) -> str:
    text = moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return text.zfill(27)  # strftime does not pad years before 1000
