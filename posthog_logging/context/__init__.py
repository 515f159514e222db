"""
Bind the person and the properties of the current request, on ``contextvars``.

Each thread, task and request has its own. A value on the record itself always wins over what
is bound here::

    with context.identity("user-1", plan="gold"):
        log.info("movie played", extra={"event": "movie played"})
"""

from __future__ import annotations

from .binding import (
    BindTime,
    Bound,
    begin,
    bind,
    catch_up,
    clear,
    current,
    enter,
    flags,
    identity,
    leave,
    was_bound,
    with_structlog,
)
from .blocks import held
from .holding import Holder, Kept
from .people import Taker, identify, is_person, remember_person, takers


__all__ = [
    "BindTime",
    "Bound",
    "Holder",
    "Kept",
    "Taker",
    "begin",
    "bind",
    "catch_up",
    "clear",
    "current",
    "enter",
    "flags",
    "held",
    "identify",
    "identity",
    "is_person",
    "leave",
    "remember_person",
    "takers",
    "was_bound",
    "with_structlog",
]
