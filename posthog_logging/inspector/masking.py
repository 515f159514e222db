"""
Mask keys: in texts, under names that name secrets, and in headers. Pure.

PostHog's keys are recognised by their form, anywhere; a Segment write key has no form, so the
keys that requests were sent with are masked by their value. Both are also found where they are
percent-encoded, escaped as in JSON, Python or HTML, or in base64.
"""

from __future__ import annotations

import base64
import html
import re

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from ..events.scrub import named_values


__all__ = ["Mask", "keys_in"]

# The endings of names whose values are secrets: `apiKey`, `segment_write_key`, `$token`.
_SECRET_ENDINGS = tuple(
    """apikey writekey accesskey secretkey privatekey token secret password passwd passphrase
    credential credentials authorization cookie appid""".split()
)
# The headers whose values are shown; any other one may hold a secret.
_SHOWN_HEADERS = frozenset(
    """accept accept-encoding accept-language connection content-encoding content-length
    content-type date expect forwarded host origin posthog-attempt posthog-request-id
    posthog-request-timestamp posthog-sdk-info referer sec-fetch-dest sec-fetch-mode
    sec-fetch-site trace traceparent transfer-encoding user-agent via x-forwarded-for
    x-forwarded-host x-forwarded-proto x-posthog-distinct-id x-posthog-session-id
    x-posthog-window-id x-real-ip x-request-id x-retry-count""".split()
)

# PostHog's keys. Inside a word only with a prefix that no word has, or if the rest is as long
# and mixed as a key: `graphs_per_week` is not a key.
_KEY = r"(?<![^\W_])ph[a-z]_\w{8,}|ph[cx]_\w{8,}|ph[a-z]_(?=\w{0,99}[A-Z0-9])\w{20,}"
_PASSWORD = r"(?<=://)[^/\s:@]{1,200}:[^/\s@]{1,200}(?=@)"
_WORD = re.compile(r"[^\s\"'<>]+")
# `\u005f`, `\x5f`, `%u005f`, `&#95;`, `&#x5f;`, `&lowbar;`. Bounded, as `int` and `html` are not.
_ESCAPE = re.compile(
    r"(?:(?<!\\)\\++|%)(?:u00|U000000|u\{0{0,9}|x)([0-9A-Fa-f]{2})\}?"
    r"|&(?:#0{0,9}\d{1,3}(?!\d);?|#[xX]0{0,9}[0-9A-Fa-f]{1,2}(?![0-9A-Fa-f]);?|[A-Za-z]{2,9};)"
)
_SHORTEST_BASE64 = 20  # characters of base64 that may hold a key
_BASE64 = re.compile(rf"[A-Za-z0-9+/_-]{{{_SHORTEST_BASE64},}}")
_STANDARD = str.maketrans("-_", "+/")
# A key's header besides those whose names end like secrets': `X-Rudder-Key`, `X-Auth`.
_HEADER_OF_A_KEY = re.compile(r"(?<!idempotency)[\W_]key$|^key$|auth$", re.IGNORECASE)
_SCHEME = re.compile(r"\s*([\w-]+)\s+(?:\w+=(?!=))?\"?([^\s,;\"]+)")
_SHORTEST = 8  # characters of a key that is masked by value
_SHORTEST_OF_LETTERS = 20  # the same for letters alone: shorter ones may be words
_MOST_ENCODINGS = 3


class Mask:
    """
    Masks the keys in texts, JSON values and headers.

    Args:
        keys: keys that are masked by value, whatever their form.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        by_value = filter(_is_distinct, keys)
        alternatives = [*map(re.escape, sorted(by_value, key=len, reverse=True)), _KEY, _PASSWORD]
        self._pattern = re.compile("|".join(alternatives), re.ASCII)

    def text(self, text: str) -> str:
        """Return *text* with every key in it masked, also those that are encoded."""
        masked = self._pattern.sub(_short, text)
        if "%" in masked or "\\" in masked or "&" in masked:
            masked = _WORD.sub(self._word, masked)
        return _BASE64.sub(self._base64, masked) if len(masked) >= _SHORTEST_BASE64 else masked

    def value(self, value: Any) -> Any:
        """Return a JSON value with every key in it masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            named, names = named_values(value)
            secret = named if any(map(_names_secret, names)) else []
            return {
                self.text(key): _hidden(member) if key in secret else self._member(key, member)
                for key, member in value.items()
            }
        if isinstance(value, (list, tuple)):
            member = self._pair if value and all(map(_is_pair, value)) else self.value
            return [member(one) for one in value]
        return value

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return *headers* with all values masked, except those of harmless headers."""
        return {name: self._header(name.lower(), value) for name, value in headers.items()}

    def _pair(self, pair: Sequence[Any]) -> list[Any]:
        """Return a name and its value, as headers and forms come in lists, with keys masked."""
        return [self.text(pair[0]), self._member(*pair)]

    def _word(self, found: re.Match[str]) -> str:
        """Return an encoded word, decoded and masked if there is a key in it."""
        word = plain = found[0]
        for _ in range(_MOST_ENCODINGS):
            before, plain = plain, unquote(_ESCAPE.sub(_unescaped, plain))
            if plain == before:
                break
            masked = self._pattern.sub(_short, plain)
            if masked != plain:
                return masked
        return word

    def _base64(self, found: re.Match[str]) -> str:
        """Return what may be base64, masked if there is a key in it."""
        word = found[0]
        if word == word.lower():  # a uuid, a name, a path: base64 of a key has capitals
            return word
        # What stands before it may be of the same letters: it begins at one of four places.
        has_key = any(self._pattern.search(_decoded(word[start:])) for start in range(4))
        return short(word) if has_key else word

    def _member(self, name: str, member: Any) -> Any:
        return _hidden(member) if _names_secret(name) else self.value(member)

    def _header(self, name: str, value: str) -> str:
        if name in _SHOWN_HEADERS:
            return self.text(value)
        scheme, space, key = value.partition(" ")
        if name == "authorization" and space:
            return f"{scheme} {short(key) if scheme.lower() == 'bearer' else '…'}"
        return "…"


def _is_distinct(key: str) -> bool:
    """Return whether *key* is no ordinary word, so that it can be masked wherever it stands."""
    return len(key) >= (_SHORTEST_OF_LETTERS if key.isalpha() else _SHORTEST)


def _is_pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str)


def keys_in(headers: Mapping[str, str], query: Mapping[str, str], payload: Any) -> Iterator[str]:
    """Yield the keys in a request's headers, query and body."""
    for name, value in headers.items():
        if _names_secret(name) or _HEADER_OF_A_KEY.search(name):
            yield from _credentials(value)
    yield from (value for name, value in query.items() if _names_secret(name))
    yield from _root_keys(payload)
    batch = payload.get("batch") if isinstance(payload, dict) else payload
    for raw in batch if isinstance(batch, list) else ():
        yield from _root_keys(raw)


def short(key: str) -> str:
    """Return enough of a key to recognise it, and too little to use it."""
    return f"{key[:4]}…{key[-4:]}" if len(key) >= 16 else "…"


def _short(found: re.Match[str]) -> str:
    return "…" if ":" in found[0] else short(found[0])


def _credentials(value: str) -> Iterator[str]:
    """Yield what may be a key in a header: ``KEY``, ``Token KEY``, ``Basic …``."""
    yield value
    found = _SCHEME.match(value)
    if found is not None:
        yield found[2]
        yield from _decoded(found[2]).split(":", 1) if found[1].lower() == "basic" else ()


def _decoded(word: str) -> str:
    """Return the text in base64 of either alphabet, padded or not; "" if it is not base64."""
    digits = word.rstrip("=").translate(_STANDARD)
    whole = len(digits) - (len(digits) % 4 == 1)  # one digit more is less than a byte
    try:
        return base64.b64decode(digits[:whole] + "==").decode("utf-8", "replace")
    except ValueError:
        return ""


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else html.unescape(found[0])


def _root_keys(raw: Any) -> Iterator[str]:
    if isinstance(raw, dict):
        yield from (v for k, v in raw.items() if isinstance(v, str) and _names_secret(k))


@lru_cache(maxsize=4096)
def _names_secret(name: str) -> bool:
    return re.sub(r"[\W_]", "", name).lower().endswith(_SECRET_ENDINGS)


def _hidden(value: Any) -> Any:
    """Return a secret's value with every text in it masked."""
    if isinstance(value, str):
        return short(value)
    if isinstance(value, dict):
        return {name: _hidden(member) for name, member in value.items()}
    return [_hidden(member) for member in value] if isinstance(value, (list, tuple)) else value
