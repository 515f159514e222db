"""
Pseudonyms: replace values by a keyed hash, which is the same in every process with the key.

The hash is HMAC-SHA-256 (RFC 2104, FIPS 180-4). Without the key, nobody can reverse it or
test likely values. Keys are never shown.
"""

from __future__ import annotations

import hashlib
import hmac

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import jsonable
from .scrub import words_of


__all__ = ["Pseudonyms"]

Key = str | bytes


class Pseudonyms:
    """
    Replace the values of some properties by their HMAC-SHA-256, as 64 hexadecimal digits.

    A name stands for the whole property name, in any spelling: ``email`` also means ``E-Mail``,
    but not ``email_verified``. None stays None. Text is hashed as it is and any other value as
    its JSON, so the number 7 and the text ``"7"`` have the same pseudonym.

    Args:
        keys: for each property name, the key of the hash.
    """

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._rules = {_form_of(name): _replace_with(key) for name, key in keys.items()}
        #: Replaces the event's ``distinct_id``; None if that is not replaced.
        self.for_person = self.rule("distinct_id")

    def rule(self, key: str) -> Callable[[Any], Any] | None:
        """Return the function that replaces values of *key*; None if they are not replaced."""
        return self._rules.get(_form_of(key))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._rules)} names>"

    @classmethod
    def of(
        cls, given: Any, keep_secret: Callable[..., object] = lambda *keys: None
    ) -> Pseudonyms | None:
        """
        Return the pseudonyms for the option ``pseudonymise``; None for None.

        *given* is a mapping of names to keys, or a pair of names and one key for all. Raises
        `TypeError` and `ValueError`, which never quote a key. *keep_secret* is called with the
        keys: this object does not keep them.
        """
        if given is None or isinstance(given, Pseudonyms):
            return given
        keys = {name: _checked(name, key) for name, key in _pairs(given)}
        keep_secret(*keys.values())
        return cls(keys)


def _pairs(given: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(given, Mapping):
        # By key, not by `items`: only so do dictConfig's mappings resolve ext:// values.
        pairs = [(name, given[name]) for name in given]
    elif isinstance(given, (tuple, list)) and len(given) == 2:
        names, key = given[0], given[1]
        if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
            raise TypeError("pseudonymise: the names beside one key must be a list of strings")
        pairs = [(name, key) for name in names]
    else:
        raise TypeError(
            "pseudonymise: must be a mapping of names to keys, or a pair of names and one key,"
            f" not a value of type {type(given).__name__}"
        )
    if not pairs:
        raise ValueError("pseudonymise: needs at least one name")
    return pairs


def _checked(name: Any, key: Any) -> Key:
    if not isinstance(name, str) or not _form_of(name):
        raise TypeError("pseudonymise: each name must be a string with a letter or a digit in it")
    if not isinstance(key, (str, bytes)):
        raise TypeError(
            f"pseudonymise: the key of {name!r} must be a string or bytes, not a value of type "
            f"{type(key).__name__}"
        )
    if not key.strip():
        raise ValueError(f"pseudonymise: the key of {name!r} is empty")
    return key


def _form_of(name: str) -> str:
    """Return *name* in lower case, without separators."""
    return words_of(name)[0].replace(" ", "")


def _replace_with(key: Key) -> Callable[[Any], Any]:
    # Made once: hashing the padded key twice is most of the work for a short value.
    keyed = hmac.new(key.encode() if isinstance(key, str) else key, None, hashlib.sha256)

    def replace(value: Any) -> Any:
        if value is None:
            return None
        digest = keyed.copy()
        digest.update(_bytes_of(value))
        return digest.hexdigest()

    return replace


def _bytes_of(value: Any) -> bytes:
    plain = jsonable.jsonable(value)
    if isinstance(plain, str):
        return plain.encode()
    return jsonable.encode(_ordered(plain))


def _ordered(value: Any) -> Any:
    """Return *value* with sorted keys, so that equal objects have the same pseudonym."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(member) for member in value] if isinstance(value, list) else value
