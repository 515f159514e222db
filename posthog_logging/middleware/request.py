"""
Read identity and properties from a request of any framework: cleaned, bounded, never raising.

An id in a header or a cookie is for attribution, never for authentication, as clients can send
anything. Follows the sdk-specs ``tracing-headers``.
"""

from __future__ import annotations

import re

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

from ..context import Bound
from .addresses import client_address
from .cookie import visitor


__all__ = [
    "STATUS",
    "Identities",
    "Request",
    "clean",
    "describe",
    "environ_path",
    "environ_request",
    "url_of",
]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # C0 and C1
_LONGEST = 1000  # characters of a value
_QUERY = 4096  # characters of a query that are parsed
_UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")

#: The property with the response's status, which is bound when the response starts.
STATUS = "$response_status"


class Request(NamedTuple):
    """
    One request with its values as received.

    *header* returns the value of a header by its name in lower case, or None.
    """

    method: Any
    path: Any
    url: Any
    host: Any
    query: Any
    peer: Any
    header: Callable[[str], Any]


class Identities(NamedTuple):
    """
    The sources of a request's identity.

    Args:
        headers: read ``X-PostHog-Distinct-Id`` and ``X-PostHog-Session-Id``.
        cookie: read the cookie of posthog-js; a project's token: only that project's.
        proxies: the number of trusted proxies in front.
    """

    headers: bool = True
    cookie: bool | str = False
    proxies: int = 0


def clean(value: Any) -> str | None:
    """Return a value trimmed, cut, and without control characters; None if nothing is left."""
    if isinstance(value, str):
        value = value.encode("latin-1", "replace") if _is_undecoded(value) else value
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    if not isinstance(value, str):
        return None
    return _CONTROL.sub("", value).strip()[:_LONGEST].strip() or None


def _is_undecoded(text: str) -> bool:
    """Return whether *text* may be undecoded bytes, as in a WSGI environ (PEP 3333)."""
    return not text.isascii() and max(text) <= "\xff"


def describe(request: Request, identities: Identities) -> Bound:
    """Return the identity and the properties of a request, without empty ones."""
    header = request.header
    agent = clean(header("user-agent"))
    referrer, domain = _referrer(clean(header("referer")))
    address = client_address(
        clean(request.peer),
        header("x-forwarded-for"),
        header("forwarded"),
        identities.proxies,
    )
    distinct_id, session_id, anonymous_id = _identity(request, identities)
    path = clean(request.path)
    properties = {
        "$session_id": session_id,
        "$request_method": clean(request.method),
        "$request_path": path,
        "$current_url": clean(request.url),
        "$host": clean(request.host),
        "$pathname": path,
        "$referrer": referrer,
        "$referring_domain": domain,
        "$user_agent": agent,
        "$raw_user_agent": agent,  # the name that PostHog's transformations read
        "$ip": address,
        **dict(_campaign(request.query)),
    }
    given = {key: value for key, value in properties.items() if value}
    return Bound(distinct_id, given, anonymous_id)


def _identity(
    request: Request, identities: Identities
) -> tuple[str | None, str | None, str | None]:
    """Return the id, the session, and the anonymous id: the id, unless it is a person's."""
    distinct_id = session_id = None
    if identities.headers:
        distinct_id = clean(request.header("x-posthog-distinct-id"))
        session_id = clean(request.header("x-posthog-session-id"))
    token = identities.cookie if isinstance(identities.cookie, str) else None
    found = visitor(request.header("cookie"), token) if identities.cookie else None
    if found is None:
        return distinct_id, session_id, distinct_id
    own = clean(found.distinct_id)
    is_person = found.is_person and distinct_id in (None, own)
    distinct_id = distinct_id or own
    session_id = session_id or clean(found.session_id)
    return distinct_id, session_id, None if is_person else distinct_id


def _referrer(text: str | None) -> tuple[str | None, str | None]:
    """Return a referrer without its user and password, and its host; None for an invalid one."""
    if text is None:
        return None, None
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host).geturl(), host or None
    except ValueError:  # an invalid port or IPv6 address
        return None, None


def _campaign(query: Any) -> Iterator[tuple[str, str]]:
    """Yield the campaign parameters in a query string."""
    text = query.decode("latin-1") if isinstance(query, bytes) else query
    if not isinstance(text, str) or "utm_" not in text:
        return
    try:
        found = parse_qsl(text[:_QUERY], max_num_fields=100)
    except ValueError:  # too many fields
        return
    for name, value in found:
        if name in _UTM:
            yield name, clean(value) or ""


def environ_request(environ: Mapping[str, Any], url: Any, host: Any) -> Request:
    """Return the request for a WSGI environ or Django's ``META``."""

    def header(name: str) -> Any:
        return environ.get(f"HTTP_{name.upper().replace('-', '_')}")

    return Request(
        environ.get("REQUEST_METHOD"),
        environ_path(environ),
        url,
        host,
        environ.get("QUERY_STRING"),
        environ.get("REMOTE_ADDR"),
        header,
    )


def environ_path(environ: Mapping[str, Any]) -> str:
    """Return the full path in a WSGI environ: that of the application, and that inside it."""
    return f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"


def url_of(scheme: Any, host: Any, path: str, query: Any) -> str | None:
    """Return an absolute URL; None if the host is not known."""
    host, query = clean(host), clean(query)
    if host is None:
        return None
    suffix = "" if query is None else f"?{query}"
    return f"{scheme}://{host}{quote(path, safe='/:@!$&()*+,;=~%')}{suffix}"
