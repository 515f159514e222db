"""
Log levels: the package's one table of their names, numbers and names in other systems.

The numbers are `logging`'s; the names are from `logging`, structlog and syslog.
"""

from __future__ import annotations

import logging

from typing import NamedTuple


__all__ = ["LEVELS", "Level", "level_at", "level_of", "number_of"]


class Level(NamedTuple):
    """A level of `logging`, and its names in PostHog's error tracking and in OpenTelemetry."""

    number: int
    #: PostHog's name (sdk-specs ``exception-event-metadata``).
    word: str
    #: OpenTelemetry's number and name (logs data model, SeverityNumber).
    severity: int
    text: str


#: From the highest to the lowest.
LEVELS = (
    Level(50, "fatal", 21, "FATAL"),
    Level(40, "error", 17, "ERROR"),
    Level(30, "warning", 13, "WARN"),
    Level(20, "info", 9, "INFO"),
    Level(10, "debug", 5, "DEBUG"),
    Level(5, "debug", 1, "TRACE"),
)

_NUMBERS = {
    "fatal": 50,
    "critical": 50,
    "alert": 50,
    "emergency": 50,
    "error": 40,
    "err": 40,
    "exception": 40,  # the method of `logging` and structlog
    "warning": 30,
    "warn": 30,
    "notice": 20,
    "info": 20,
    "msg": 20,  # structlog's
    "debug": 10,
    "trace": 5,
    "notset": 0,
}


def number_of(name: str) -> int | None:
    """Return the number of the level called *name*, in any case; None if it is unknown."""
    return _NUMBERS.get(name.strip().lower())


def level_at(number: int) -> Level:
    """Return the highest level at or below *number*, or the lowest level if there is none."""
    return next((level for level in LEVELS if number >= level.number), LEVELS[-1])


def level_of(record: logging.LogRecord) -> int:
    """Return the number of *record*'s level; without one, by the level's name, else 0."""
    number = record.levelno
    if isinstance(number, int):
        return number
    return number_of(str(record.levelname)) or 0
