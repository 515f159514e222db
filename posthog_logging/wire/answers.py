"""
Whether a 2xx response means that an endpoint accepted the events.

A sign-in page, a parked domain or a catch-all route answers every POST with 200 and a web page,
and some servers report failures with 200. The content type alone is no proof of a page, as
frameworks send ``ok`` and JSON as ``text/html``.
"""

from __future__ import annotations

import re

from collections.abc import Mapping
from typing import Any

from ..events import jsonable
from .dialect import Response


__all__ = ["PAGE", "doubt", "is_page", "object_in"]

#: The message about a page in place of an answer.
PAGE = (
    "the address answers with a web page: is it the app's address instead of the ingestion host?"
)

_START = 1024  # bytes of the body that are searched for a tag
_BOM_AND_SPACE = b"\xef\xbb\xbf \t\r\n"
_SHORT_WORD = re.compile(rb"\w{1,16}[.!]?")
_SUCCESS = ("ok", "success", "Success")


def is_page(response: Response) -> bool:
    """Return whether the body is a web page, at any status."""
    start = response.body[:_START].lstrip(_BOM_AND_SPACE)
    if start.startswith(b"<"):
        return True
    if "html" not in response.headers.get("content-type", "").lower():
        return False
    if not start:  # or it never came
        return bool(response.error)
    body = response.body.strip(_BOM_AND_SPACE)
    return _SHORT_WORD.fullmatch(body) is None and not _is_json(body)


def doubt(response: Response, answer: Mapping[str, Any]) -> str:
    """
    Return why a 2xx *response* does not mean acceptance; "" if it does.

    *answer* is its JSON object, from `object_in`.
    """
    if is_page(response):
        return PAGE
    if any(answer.get(name) is False for name in _SUCCESS):
        return "the answer says that it failed"
    failed = answer.get("error") or answer.get("Error")
    fine = "results" in answer or any(answer.get(name) is True for name in _SUCCESS)
    return "the answer names an error" if failed and not fine else ""


def object_in(response: Response) -> Mapping[str, Any]:
    """Return the JSON object in the body; an empty mapping if there is none."""
    try:
        found = jsonable.decode(response.body.lstrip(_BOM_AND_SPACE))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_json(body: bytes) -> bool:
    try:
        jsonable.decode(body)
    except (ValueError, RecursionError):
        return False
    return True
