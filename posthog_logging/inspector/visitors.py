"""
Who may talk to the inspector: programs of this machine, and its own page.

A foreign web page must neither read nor write here. A browser declares where a request comes
from: in ``Origin`` with every POST, in ``Sec-Fetch-Site`` with every request. A name that was
rebound to 127.0.0.1 shows in ``Host``. An SDK sends none of these, and is let in.
"""

from __future__ import annotations

import ipaddress

from collections.abc import Mapping
from urllib.parse import urlsplit


__all__ = ["may_look", "may_send"]

_LOCAL_NAMES = frozenset({"localhost"})
# Names that the public DNS never has, so that nobody can rebind them (RFC 6761, 6762, 8375, 9476).
_PRIVATE_ENDINGS = tuple(".internal .local .localhost .test .lan .home.arpa .localdomain".split())


def may_look(headers: Mapping[str, str], is_page: bool = False) -> bool:
    """
    Return whether a request may use the API and the page.

    Args:
        headers: the request's, names in lower case.
        is_page: whether it is for the page itself, to which any site may link.
    """
    if not _is_loopback(_host(f"//{headers.get('host', '')}")):
        return False
    is_link = is_page and headers.get("sec-fetch-mode") == "navigate"
    return is_link or _is_own_page_or_program(headers)


def may_send(headers: Mapping[str, str], by_proxy: bool = False) -> bool:
    """
    Return whether a request may send events; a program may use any name for this machine.

    Args:
        headers: the request's, names in lower case.
        by_proxy: whether its request line names a server (RFC 9112, 3.2.2): the sender uses the
            inspector as a proxy, which no web page can set.
    """
    host = _host(f"//{headers.get('host', '')}") or ""
    is_meant = by_proxy or not _is_public_name(host)
    return is_meant and _is_own_page_or_program(headers)


def _is_own_page_or_program(headers: Mapping[str, str]) -> bool:
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    scheme, _, place = origin.lower().partition("://")
    is_same = scheme in ("http", "https") and place == headers.get("host", "").strip().lower()
    return is_same and _is_loopback(_host(origin))


def _is_public_name(host: str) -> bool:
    """Return whether *host* is a name in the public DNS, whose owner may rebind it."""
    is_name = "." in host.strip(".") and _address(host) is None
    return is_name and not host.rstrip(".").endswith(_PRIVATE_ENDINGS)


def _is_loopback(host: str | None) -> bool:
    if not host:
        return False
    address = _address(host)
    if address is not None:
        return address.is_loopback
    return host in _LOCAL_NAMES or host.endswith(".localhost")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
