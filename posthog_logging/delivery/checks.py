"""
Checks of constructor arguments: an error names the parameter, what was given and what is allowed.

Values are never quoted where they may be secret: a key, a header, a host with a password.
"""

from __future__ import annotations

import logging
import math
import os
import re
import threading

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..wire import Dialect
from ..wire.compression import require
from .spool import Spool


__all__ = [
    "KEY_VARIABLES",
    "api_key",
    "boolean",
    "broker",
    "certificate",
    "coding",
    "given",
    "having",
    "headers",
    "hook",
    "hooks",
    "host",
    "level",
    "mapping",
    "names",
    "number",
    "one_of",
    "optional",
    "proxies",
    "rate",
    "seconds",
    "set_among",
    "spool",
    "threshold",
    "trust",
    "whole",
]

#: Where a project's key is looked for: the name that official clients have, then ours.
KEY_VARIABLES = ("POSTHOG_PROJECT_TOKEN", "POSTHOG_API_KEY")

_MOST_A_SECOND = 1_000_000_000
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token, RFC 9110, 5.6.2
# They describe one body, or one attempt; a constant would make the server refuse all.
_SET_ANEW = frozenset(
    """content-encoding content-length transfer-encoding
    posthog-attempt posthog-request-id posthog-request-timestamp x-retry-count""".split()
)


def whole(name: str, value: Any, least: int, most: float = math.inf) -> int:
    """Return *value* if it is a whole number from *least* to *most*."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: must be a whole number, not {_kind(value)}")
    if value < least:
        raise ValueError(f"{name}: must be at least {least}, not {value}")
    if value > most:
        raise ValueError(f"{name}: must be at most {most}")
    return value


def number(name: str, value: Any) -> float:
    """Return *value* if it is a number of seconds, of any size."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: must be a number of seconds, not {_kind(value)}")
    return value


def seconds(name: str, value: Any) -> float:
    """Return *value* if it is a number of seconds that one can wait: 0 or more."""
    longest = threading.TIMEOUT_MAX  # 292 years
    if not 0 <= number(name, value) <= longest:
        raise ValueError(f"{name}: must be from 0 to {longest:.0f} seconds, not {value}")
    return float(value)


def level(name: str, value: Any) -> int:
    """Return the number of the level *value*, which is a name or a number."""
    found = logging.getLevelName(value) if isinstance(value, str) else value
    if isinstance(value, str) and not isinstance(found, int):
        raise ValueError(
            f"{name}: {value!r} is not a level; give a name such as 'INFO', or a number"
        )
    if isinstance(found, bool) or not isinstance(found, int):
        raise TypeError(f"{name}: must be the name or number of a level, not {_kind(value)}")
    return found


def threshold(name: str, value: Any, allowed: str = "True, False or a level") -> int | None:
    """Return the lowest level that *value* switches on: NOTSET for True, None for False."""
    if isinstance(value, bool):
        return logging.NOTSET if value else None
    if not isinstance(value, (int, str)):
        raise TypeError(f"{name}: must be {allowed}, not {_kind(value)}")
    return level(name, value)


def rate(name: str, value: Any) -> tuple[int, float] | None:
    """Return *value* if it is a number at once and a number a second; None is no limit."""
    if value is None:
        return None
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(
            f"{name}: must be how many at once and how many a second, not {_kind(value)}"
        )
    burst, refill = value
    if isinstance(refill, bool) or not isinstance(refill, (int, float)):
        raise TypeError(f"{name}: how many a second must be a number, not {_kind(refill)}")
    if not 0 <= refill <= _MOST_A_SECOND:  # also not a number
        raise ValueError(f"{name}: must be from 0 to {_MOST_A_SECOND} a second")
    return whole(name, burst, 1), float(refill)


def boolean(name: str, value: Any) -> bool:
    """Return *value* if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: must be True or False, not {_kind(value)}")
    return value


def one_of(name: str, value: Any, allowed: Sequence[str | None]) -> str | None:
    """Return *value* if it is one of *allowed*."""
    if not isinstance(value, (str, type(None)) if None in allowed else str):
        raise TypeError(f"{name}: must be a string, not {_kind(value)}")
    if value not in allowed:
        *others, last = map(repr, allowed)
        raise ValueError(f"{name}: must be {', '.join(others)} or {last}, not {value!r}")
    return value


def optional(name: str, value: Any, check: Callable[..., Any], *more: Any) -> Any:
    """Return None, or what *check* returns."""
    return None if value is None else check(name, value, *more)


def hook(name: str, value: Any) -> Callable[..., Any] | None:
    """Return *value* if it can be called, or is None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name}: must be a callable, not {_kind(value)}")
    found: Callable[..., Any] | None = value
    return found


def proxies(name: str, value: Any) -> dict[str, str] | None:
    """Return *value* if it maps schemes to URLs, as in ``requests``; None is the environment's."""
    found = None if value is None else dict(mapping(name, value))
    if found and not all(url is None or isinstance(url, str) for url in found.values()):
        raise TypeError(f"{name}: must map schemes to URLs or None, and one value is neither")
    try:
        for url in (found or {}).values():
            urlsplit(url or "")
    except ValueError:  # its text may have the password in it
        raise ValueError(f"{name}: must map schemes to URLs, and one cannot be read") from None
    return found


def certificate(name: str, value: Any) -> str | tuple[str, str] | None:
    """Return *value* if it is a path, or the paths of a certificate and its key."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return _existing(name, value[0]), _existing(name, value[1])
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}: must be a path, or two of them, not {_kind(value)}")
    return None if value is None else _existing(name, value)


def trust(name: str, value: Any) -> bool | str | None:
    """Return *value* if it is True, False, or the path of certificates to trust."""
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}: must be True, False or a path, not {_kind(value)}")
    return _existing(name, value)


def _existing(name: str, value: Any) -> str:
    path = str(os.fspath(value))
    if not os.path.exists(path):  # `requests` would fail at each attempt, with an OSError
        raise ValueError(f"{name}: there is no file {path!r} that this program can see")
    return path


def having(name: str, value: Any, *verbs: str) -> Any:
    """Return *value* if it is None or has the methods *verbs*."""
    has_all = all(callable(getattr(value, verb, None)) for verb in verbs)
    if value is not None and (isinstance(value, type) or not has_all):
        wanted = " and ".join(f"{verb}()" for verb in verbs)
        raise TypeError(f"{name}: must be an object with {wanted}, not {_kind(value)}")
    return value


def mapping(name: str, value: Any) -> Mapping[str, Any]:
    """Return *value* if it is a mapping with strings for keys; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: must be a mapping, not {_kind(value)}")
    if not all(isinstance(key, str) for key in value):
        raise TypeError(f"{name}: all keys of the mapping must be strings")
    return {key: value[key] for key in value}  # by key: so dictConfig's resolve ext://


def names(name: str, value: Any) -> tuple[str, ...]:
    """Return *value* as a tuple if it is an iterable of strings."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: must be a list of strings, not {_kind(value)}")
    found = tuple(value)
    if not all(isinstance(one, str) and one for one in found):
        raise TypeError(f"{name}: all members of the list must be strings that are not empty")
    return found


def headers(value: Any) -> Mapping[str, str]:
    """Return *value* if it is a mapping of header names to texts."""
    given = mapping("headers", value)
    for name, text in given.items():
        if not isinstance(text, str):
            raise TypeError(f"headers: {name!r} must be a string, not {_kind(text)}")
        clean = text.isascii() and text.isprintable() and text == text.strip()
        if not clean or not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"headers: {name!r} has a character that HTTP does not allow")
        if name.lower() in _SET_ANEW:
            raise ValueError(f"headers: {name!r} is set anew for each request: leave it out")
    return dict(given)


def hooks(name: str, value: Any) -> tuple[Callable[..., Any], ...]:
    """Return a callable, or several, as a tuple; an empty one for None."""
    if value is None:
        return ()
    several = (value,) if callable(value) else value
    if isinstance(several, (str, bytes)) or not isinstance(several, Iterable):
        raise TypeError(f"{name}: must be a callable or a list of them, not {_kind(value)}")
    if isinstance(several, list):  # by number: that is how dictConfig's lists resolve ext://
        several = [several[number] for number in range(len(several))]
    found = tuple(several)
    if not all(map(callable, found)):
        raise TypeError(f"{name}: all members of the list must be callables")
    return found


def given(name: str, value: Any, *variables: str) -> tuple[str, Any]:
    """Return *name* and *value*; if it is None, both from the first of *variables* that is set."""
    for variable in set_among(*variables) if value is None else ():
        return f"{name} (from {variable})", os.environ[variable]
    return name, value


def set_among(*variables: str) -> list[str]:
    """Return those of *variables* that are neither missing nor blank."""
    return [variable for variable in variables if os.environ.get(variable, "").strip()]


def api_key(value: Any) -> str:
    """
    Return the key, trimmed; "" where there is none.

    Where *value* is None it is ``POSTHOG_PROJECT_TOKEN``, as official clients have it, else
    ``POSTHOG_API_KEY``.
    """
    name, value = given("api_key", value, *KEY_VARIABLES)
    if not isinstance(value, (str, type(None))):
        raise TypeError(f"{name}: must be a string, not {_kind(value)}")
    key = (value or "").strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError(f"{name}: must have only printable ASCII characters")
    if key.startswith("phx_"):
        raise ValueError(
            f"{name}: a personal key (phx_…) cannot send events; give the project's (phc_…)"
        )
    return key


def host(value: Any, default: str, name: str = "host") -> str:
    """Return the base URL without a slash at its end; the environment's, else *default*."""
    name, value = given(name, value, "POSTHOG_HOST")
    if not isinstance(value, (str, type(None))):
        raise TypeError(f"{name}: must be a URL, not {_kind(value)}")
    url = (value or "").strip().rstrip("/") or default
    if not url:
        raise ValueError(f"{name}: this dialect has no default; give a URL")
    try:
        parts = urlsplit(url)
        fine = url.isprintable() and " " not in url and parts.port != 0
    except ValueError:  # of a port, or of an IPv6 address
        fine = False
    if not fine or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{name}: must be a URL that begins with http:// or https://, such as "
            "https://eu.i.posthog.com, and its port, if any, a number from 1 to 65535"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"{name}: must be a URL without a user, password, query or fragment")
    return url


def broker(name: str, value: Any) -> tuple[str, str | None]:
    """Return *name* and a broker's URL, as `given` does; None for no broker."""
    name, value = given(name, value, "POSTHOG_BROKER")
    if not isinstance(value, (str, type(None))):
        raise TypeError(f"{name}: must be a URL, not {_kind(value)}")
    return name, (value or "").strip() or None


def coding(value: Any, dialect: Dialect) -> str | None:
    """Return the content coding if *dialect* and this machine have it."""
    coding = one_of("compression", value, [*sorted(dialect.codings), None])
    require(coding)
    return coding


def spool(value: Any) -> Spool:
    """Return *value* if it has the methods of a `Spool`."""
    missing = [name for name in _OF_A_SPOOL if not hasattr(value, name)]
    if missing:
        raise TypeError(
            f"spool: must be a folder or an object with the methods of posthog_logging.delivery."
            f"spool.Spool, not {_kind(value)} without {', '.join(missing)}"
        )
    found: Spool = value
    return found


_OF_A_SPOOL = ["__len__", *(name for name in vars(Spool) if not name.startswith("_"))]


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
