"""
What the inspector shows: events, requests and the stream as JSON, with every key masked.
"""

from __future__ import annotations

import re
import time

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from ..events import jsonable
from .answers import Script, describe
from .masking import Mask
from .store import Event, News, Position, Received, Store


__all__ = ["event", "request", "stream", "whole"]

_HEARTBEAT = 15.0  # seconds between writes, which show whether a stream is still read
_GATHER = 0.02  # seconds in which a burst is gathered into one message
_MOST_AT_ONCE = 250
_POSITION = re.compile(r"(\w{1,16})\.(\d{1,16})\.(\d{1,16})", re.ASCII)


def event(one: Event, mask: Mask, *without: str) -> dict[str, Any]:
    """Return the fields of an event, except those in *without*."""
    names = (field.name for field in fields(one) if field.name not in {"mask", *without})
    return {name: mask.value(getattr(one, name)) for name in names}


def request(one: Received, mask: Mask, *without: str) -> dict[str, Any]:
    """Return the fields of a request, except its body and those in *without*."""
    names = [field.name for field in fields(one) if field.name not in {"body", "mask", *without}]
    shown = {name: mask.value(getattr(one, name)) for name in names if name != "headers"}
    return {**shown, "headers": mask.headers(one.headers)} if "headers" in names else shown


def whole(answer: Mapping[str, Any]) -> bytes:
    """Encode a whole answer; `jsonable.encode` would cut it to what an event may hold."""
    parts = []
    for name, member in answer.items():
        members = member if isinstance(member, list) else [member]
        inner = b",".join(map(jsonable.encode, members))
        form = b"%b:[%b]" if members is member else b"%b:%b"
        parts.append(form % (jsonable.encode(name), inner))
    return b"{%b}" % b",".join(parts)


def stream(store: Store, script: Script, after: str) -> Iterator[bytes]:
    """
    Yield what arrives as server-sent events, until the server stops.

    Args:
        after: the position up to which the reader has everything: ``generation.event.request``.
    """
    interrupts = store.interrupts
    seen = _position(after)
    while (news := store.news(seen, interrupts, _HEARTBEAT)) is not None:
        for start in range(0, len(news.arrived) or 1, _MOST_AT_ONCE):
            yield b"data: %b\n\n" % whole(_message(news, start, store, script))
        seen = news.position
        time.sleep(_GATHER)


def _message(news: News, start: int, store: Store, script: Script) -> dict[str, Any]:
    arrived = news.arrived[start : start + _MOST_AT_ONCE]
    return {
        "generation": news.position.generation,
        "counts": news.counts,
        "capacity": store.capacity,
        "chaos": store.mask.value(describe(script.always)),
        "playing": script.playing,
        "arrived": [_arrived(one, store.mask) for one in arrived],
    }


def _arrived(one: Event | Received, mask: Mask) -> dict[str, Any]:
    """Return the short form of an event or request; the page asks for the rest one by one."""
    if isinstance(one, Event):
        return event(one, mask, "raw")
    return request(one, mask, "headers", "payload")


def _position(text: str) -> Position:
    found = _POSITION.fullmatch(text)
    return Position(found[1], int(found[2]), int(found[3])) if found else Position("")
