"""JSON bodies of requests: written compressed, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..events import jsonable
from ..events.message import Refused
from ..version import LIBRARY, VERSION
from .compression import compress, decompress
from .dialect import Endpoint, Request


__all__ = ["USER_AGENT", "json_of", "json_request", "oversized"]

#: The library's name and version, as for ``User-Agent`` (RFC 9110, 10.1.5).
USER_AGENT = f"{LIBRARY}/{VERSION}"

_SHOWN = 100  # characters of a name in a message


def json_request(
    url: str, body: bytes, headers: Mapping[str, str], endpoint: Endpoint, coding: str | None
) -> Request:
    """
    Return the POST request for the JSON *body*, compressed in *coding*.

    The headers of *endpoint* win over *headers*.
    """
    packed, used = compress(body, coding)
    encoding = {"Content-Encoding": used} if used else {}
    own = {"Content-Type": "application/json", "User-Agent": USER_AGENT, **encoding, **headers}
    return Request(url, {**own, **endpoint.headers}, packed)


def json_of(request: Request) -> Any:
    """Return the JSON value in the body of *request*; raises ``ValueError`` if it has none."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return jsonable.decode(decompress(request.body, headers.get("content-encoding")))


def oversized(event: str, size: int) -> Refused:
    """Return the refusal of an event of *size* bytes, whose name may be what is too large."""
    return Refused("oversized", f"{event[:_SHOWN]!r}, {size} bytes")
