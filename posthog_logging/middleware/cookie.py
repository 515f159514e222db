"""
Read the cookie of posthog-js: the visitor's id and session in the browser.

Clients can send anything, so the cookie is read within bounds, and an invalid one is ignored.
"""

from __future__ import annotations

import json
import re
import time

from typing import Any, NamedTuple
from urllib.parse import unquote


__all__ = ["Visitor", "visitor"]

_HEADER, _VALUE = 32 * 1024, 8 * 1024  # characters
_NAME = re.compile(r"ph_[\w.~%-]{1,200}_posthog", re.ASCII)
_IDLE = 30 * 60  # seconds without activity after which posthog-js begins a new session


class Visitor(NamedTuple):
    """The visitor's id, the session, and whether posthog-js has identified the id as a person."""

    distinct_id: str
    session_id: str | None = None
    is_person: bool = False


def visitor(header: Any, token: str | None = None, now: float | None = None) -> Visitor | None:
    """
    Return the visitor in the ``Cookie`` *header*, or None if there is no valid cookie.

    Args:
        header: the header's value; anything but a string is ignored.
        token: the project whose cookie to read; None: the first cookie of any project.
        now: epoch seconds, to see whether the session has ended; None: the current time.
    """
    if not isinstance(header, str):
        return None
    wanted = None if token is None else _name_of(token)
    for part in header[:_HEADER].split(";"):
        name, equals, value = part.strip().partition("=")
        if equals and (_NAME.fullmatch(name) if wanted is None else name == wanted):
            found = _read(value.strip('" '), time.time() if now is None else now)
            if found is not None:
                return found
    return None


def _name_of(token: str) -> str:
    """Return the cookie's name; posthog-js replaces characters that a name must not have."""
    return f"ph_{token.replace('+', 'PL').replace('/', 'SL').replace('=', 'EQ')}_posthog"


def _read(value: str, now: float) -> Visitor | None:
    if len(value) > _VALUE:
        return None
    try:
        fields = json.loads(unquote(value))
        distinct_id = fields["distinct_id"]
        if not isinstance(distinct_id, str) or not distinct_id.strip():
            return None
        session = _session(fields.get("$sesid"), now)
        return Visitor(distinct_id, session, fields.get("$user_state") == "identified")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _session(fields: Any, now: float) -> str | None:
    """Return the session id in ``[last active, id, begun]`` (milliseconds) if it is not over."""
    if not isinstance(fields, list) or len(fields) < 2:
        return None
    active, session = fields[:2]
    if not isinstance(session, str) or isinstance(active, bool):
        return None
    is_active = isinstance(active, (int, float)) and abs(now - active / 1000) < _IDLE
    return session if is_active else None
