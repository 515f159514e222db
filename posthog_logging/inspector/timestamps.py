"""Parse the timestamps of events, as strictly or as leniently as PostHog's servers do."""

from __future__ import annotations

import datetime as dt
import re

from email.utils import parsedate_to_datetime


__all__ = ["parse_leniently", "parse_strictly"]

_LONGEST = 100  # characters: anything longer is not a time
_EPOCH = dt.datetime(1970, 1, 1)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|([+-])(\d\d):([0-5]\d))", re.ASCII
)
_CIVIL = ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")


def parse_strictly(text: str) -> float | None:
    """Return an RFC 3339 time with its offset in epoch seconds, or None for anything else."""
    found = _RFC3339.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        return None
    date, time, fraction, _, sign, hours, minutes = found.groups()
    try:
        seconds = (dt.datetime.fromisoformat(f"{date}T{time}") - _EPOCH).total_seconds()
    except ValueError:  # the 31st of February
        return None
    if sign:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += -offset if sign == "+" else offset
    return seconds + float(fraction or 0)


def parse_leniently(text: str) -> float | None:
    """Return the epoch seconds of what V0 accepts: also dates, RFC 2822 and epochs (1.6)."""
    seconds = parse_strictly(text)
    if seconds is not None or len(text) > _LONGEST:
        return seconds
    return _parse_other(text.strip())


def _parse_other(text: str) -> float | None:
    if re.fullmatch(r"\d{9,13}(\.\d+)?", text, re.ASCII):
        number = float(text)
        return number / 1000 if number > 1e11 else number
    plain = re.sub(r"\.\d+$", "", text)
    for form in _CIVIL:
        try:
            return (dt.datetime.strptime(plain, form) - _EPOCH).total_seconds()
        except ValueError:
            continue
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return parse_strictly(re.sub(r"([+-]\d\d)$", r"\1:00", text.replace(" ", "T", 1)))
