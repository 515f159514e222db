"""
Whose address a request came from, behind so many proxies that are trusted.

Each proxy adds an address at the right of ``X-Forwarded-For``; what stands left of those that
trusted proxies added is whatever the client sent.
"""

from __future__ import annotations

import ipaddress
import re

from typing import Any


__all__ = ["client_address"]

_LONGEST = 4096  # characters of a header, from its right
_FOR = re.compile(r"(?:^|;)\s*for=(?:\"([^\"]*)\"|([^;\s]*))", re.IGNORECASE)  # RFC 7239, 4


def client_address(peer: Any, forwarded_for: Any, forwarded: Any, proxies: int) -> str | None:
    """
    Return the *proxies*-th address from the right of what the proxies added.

    It is the peer's where *proxies* is 0, and where fewer addresses came than there are
    proxies. Where something else stands in its place, as RFC 7239's ``unknown``, it is None.

    Args:
        peer: the address of the connection.
        forwarded_for: the header ``X-Forwarded-For``.
        forwarded: the header ``Forwarded``, which counts where there is no other.
    """
    chain = _chain(forwarded_for) or [_of_forwarded(one) for one in _chain(forwarded)]
    if proxies < 1 or len(chain) < proxies:
        return peer if isinstance(peer, str) else None
    return _address(chain[-proxies])


def _chain(header: Any) -> list[str]:
    text = header[-_LONGEST:] if isinstance(header, str) else ""
    return [one.strip() for one in text.split(",")] if text.strip() else []


def _of_forwarded(element: str) -> str:
    found = _FOR.search(element)
    return "" if found is None else found[1] or found[2] or ""


def _address(text: str) -> str | None:
    """Return an address without brackets and port, or None where *text* is none."""
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
