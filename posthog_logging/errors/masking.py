"""Mask the process's keys and passwords in the source lines and messages that are sent."""

from __future__ import annotations

import re

from typing import Any


__all__ = ["MASK", "keep_secret", "masked"]

MASK = "[masked]"

# Keys of any PostHog project.
_ANY_KEY = r"ph[a-z]_\w{16,}"
_SHORTEST = 6  # characters; a shorter key could be part of any text

_secrets: set[str] = set()
_pattern = re.compile(_ANY_KEY)


def keep_secret(*keys: str | bytes) -> None:
    """Mask *keys* from now on, in the reports of every handler."""
    global _pattern
    texts = [key if isinstance(key, str) else key.decode(errors="replace") for key in keys]
    _secrets.update(text for text in texts if len(text) >= _SHORTEST)
    longest_first = sorted(_secrets, key=len, reverse=True)
    _pattern = re.compile("|".join([*map(re.escape, longest_first), _ANY_KEY]))


def masked(value: Any) -> Any:
    """Return *value* with all keys masked in its text, also inside lists and dicts."""
    if type(value) is str:
        return _pattern.sub(MASK, value)
    if type(value) is dict:
        return {key: masked(member) for key, member in value.items()}
    if type(value) is list:
        return [masked(member) for member in value]
    return value
