"""The keys of this process, masked in what is sent of its source lines and messages."""

from __future__ import annotations

import re

from typing import Any


__all__ = ["MASK", "keep_secret", "masked"]

MASK = "[masked]"

# PostHog's keys, of whatever project.
_ANY_KEY = r"ph[a-z]_\w{16,}"
_SHORTEST = 6  # characters; a shorter one is a word that stands in any text

_secrets: set[str] = set()
_pattern = re.compile(_ANY_KEY)


def keep_secret(*keys: str) -> None:
    """Mask *keys* from now on, in whichever handler's reports."""
    global _pattern
    _secrets.update(key for key in keys if len(key) >= _SHORTEST)
    longest_first = sorted(_secrets, key=len, reverse=True)
    _pattern = re.compile("|".join([*map(re.escape, longest_first), _ANY_KEY]))


def masked(value: Any) -> Any:
    """Return *value* with every key in its texts, also those of its lists and dicts, masked."""
    if type(value) is str:
        return _pattern.sub(MASK, value)
    if type(value) is dict:
        return {key: masked(member) for key, member in value.items()}
    if type(value) is list:
        return [masked(member) for member in value]
    return value
