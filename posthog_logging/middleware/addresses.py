"""
Find the client's address behind a number of trusted proxies.

Each proxy appends an address on the right of ``X-Forwarded-For``. Everything on the left of
those that trusted proxies appended was sent by the client, and can be forged.
"""

from __future__ import annotations

import ipaddress
import re

from typing import Any


__all__ = ["client_address"]

_LONGEST = 4096  # characters at the right end of a header that are read
_FOR = re.compile(r"(?:^|;)\s*for=(?:\"([^\"]*)\"|([^;\s]*))", re.IGNORECASE)  # RFC 7239, 4


def client_address(peer: Any, forwarded_for: Any, forwarded: Any, proxies: int) -> str | None:
    """
    Return the client's address: the *proxies*-th from the right of the header.

    Returns *peer* if *proxies* is 0 or the header has fewer addresses, and None if there is no
    address in that place, but such as RFC 7239's ``unknown``.

    Args:
        peer: the address of the connection.
        forwarded_for: the header ``X-Forwarded-For``.
        forwarded: the header ``Forwarded``, which is used if there is no other.
        proxies: the number of trusted proxies.
    """
    chain = _chain(forwarded_for) or [_of_forwarded(element) for element in _chain(forwarded)]
    if proxies < 1 or len(chain) < proxies:
        return peer if isinstance(peer, str) else None
    return _address(chain[-proxies])


def _chain(header: Any) -> list[str]:
    text = header[-_LONGEST:] if isinstance(header, str) else ""
    return [element.strip() for element in text.split(",")] if text.strip() else []


def _of_forwarded(element: str) -> str:
    found = _FOR.search(element)
    return "" if found is None else found[1] or found[2] or ""


def _address(text: str) -> str | None:
    """Return the address in *text* without brackets and port; None if it is invalid."""
    text = text.strip('" ')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)
