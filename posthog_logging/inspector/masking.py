"""
What of the inspector's knowledge leaves the process: JSON, with every key in it masked.

Whatever is answered, streamed or exported has been through here.
"""

from __future__ import annotations

import re
import time

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from ..events import jsonable
from .answers import Script, describe
from .store import Event, News, Position, Received, Store


__all__ = ["event", "masked", "request", "stream", "whole"]

_SECRET_NAMES = frozenset(
    """api_key apikey token $token writekey write_key appid secret password""".split()
)
_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "x-write-key"}
)
# PostHog's keys, wherever they stand: in a text, in a property's name.
_KEY = re.compile(r"\bph[a-z]_\w{8,}")

_HEARTBEAT = 15.0  # seconds after which a stream writes something, to learn whether it is read
_GATHER = 0.02  # seconds in which a burst becomes one message
_MOST_AT_ONCE = 250
_POSITION = re.compile(r"(\w+)\.(\d{1,16})\.(\d{1,16})", re.ASCII)


def event(one: Event, *without: str) -> dict[str, Any]:
    """Return an event's fields, but for those *without* which it is told."""
    names = (field.name for field in fields(one) if field.name not in without)
    return {name: masked(getattr(one, name)) for name in names}


def request(one: Received, *without: str) -> dict[str, Any]:
    """Return a request's fields but its body, and but for those *without* which it is told."""
    names = (field.name for field in fields(one) if field.name not in {"body", *without})
    return {name: _TELL.get(name, masked)(getattr(one, name)) for name in names}


def whole(said: Mapping[str, Any]) -> bytes:
    """Encode a whole answer: `jsonable.encode` would cut what is longer than an event may be."""
    parts = []
    for name, member in said.items():
        members = member if isinstance(member, list) else [member]
        inner = b",".join(map(jsonable.encode, members))
        form = b"%b:[%b]" if members is member else b"%b:%b"
        parts.append(form % (jsonable.encode(name), inner))
    return b"{%b}" % b",".join(parts)


def stream(store: Store, script: Script, after: str) -> Iterator[bytes]:
    """
    Yield what arrives as server-sent events, until the server stops.

    Args:
        after: what the reader has already, as ``generation.event.request``.
    """
    interrupts = store.interrupts
    seen = _position(after)
    while (news := store.news(seen, interrupts, _HEARTBEAT)) is not None:
        for start in range(0, len(news.arrived) or 1, _MOST_AT_ONCE):
            yield b"data: %b\n\n" % whole(_message(news, start, script))
        seen = news.position
        time.sleep(_GATHER)


def _message(news: News, start: int, script: Script) -> dict[str, Any]:
    return {
        "generation": news.position.generation,
        "counts": news.counts,
        "chaos": describe(script.always),
        "arrived": [_arrived(one) for one in news.arrived[start : start + _MOST_AT_ONCE]],
    }


def _arrived(one: Event | Received) -> dict[str, Any]:
    """Return one event or request in short: the rest is told of one at a time."""
    if isinstance(one, Event):
        return event(one, "raw")
    return request(one, "headers", "payload")


def _position(text: str) -> Position:
    found = _POSITION.fullmatch(text)
    return Position(found[1], int(found[2]), int(found[3])) if found else Position("")


def masked(value: Any) -> Any:
    """Return a JSON value with every key in it masked."""
    if isinstance(value, str):
        return _KEY.sub(lambda found: _mask(found[0]), value)
    if isinstance(value, dict):
        return {masked(name): _masked_member(name, member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(member) for member in value]
    return value


def _mask(key: str) -> str:
    """Return enough of a key to tell it from another, and too little to use it."""
    return f"{key[:4]}…{key[-4:]}" if len(key) >= 16 else "…"


def _masked_member(name: str, member: Any) -> Any:
    if isinstance(member, str) and name.lower() in _SECRET_NAMES:
        return _mask(member)
    return masked(member)


def _masked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return *headers* with the keys in them masked; of ``Basic`` nothing is left to decode."""
    return {
        name: _masked_header(value) if name in _SECRET_HEADERS else masked(value)
        for name, value in headers.items()
    }


def _masked_header(value: str) -> str:
    scheme, space, key = value.partition(" ")
    if not space:
        return _mask(value)
    return f"{scheme} {_mask(key) if scheme.lower() == 'bearer' else '…'}"


_TELL = {"headers": _masked_headers}
