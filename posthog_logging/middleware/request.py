"""
What a request says of who sent it, whatever the framework: cleaned, bounded, never raising.

The id in a header is attribution, never authentication: anybody can send any. The rules are
those of sdk-specs ``tracing-headers``.
"""

from __future__ import annotations

import inspect
import re

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from ..context import Bound, identity
from ..delivery.ledger import Ledger
from ..errors.exception_list import middleware


__all__ = ["STATUS", "Front", "bound_to", "clean", "environ_path", "from_environ", "url_of"]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # C0 and C1
_LONGEST = 1000

#: The one property that is known only when the answer begins.
STATUS = "$response_status"


def clean(value: Any) -> str | None:
    """Return a header's text trimmed, without control characters and bounded; None if empty."""
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
    """Return whether *text* may be bytes that were passed as characters (PEP 3333)."""
    return not text.isascii() and max(text) <= "\xff"


def bound_to(
    *,
    distinct_id: Any = None,
    session_id: Any = None,
    method: Any = None,
    path: Any = None,
    url: Any = None,
    user_agent: Any = None,
    ip: Any = None,
) -> Bound:
    """Return the identity and the properties that a request amounts to; empty ones left out."""
    agent = clean(user_agent)
    properties = {
        "$session_id": clean(session_id),
        "$request_method": clean(method),
        "$request_path": clean(path),
        "$current_url": clean(url),
        "$user_agent": agent,
        "$raw_user_agent": agent,  # the name under which PostHog's own transformations look
        "$ip": clean(ip),
    }
    return Bound(clean(distinct_id), {key: value for key, value in properties.items() if value})


def from_environ(environ: Mapping[str, Any], url: Any) -> Bound:
    """Return what a WSGI environ, or Django's ``META``, says."""
    return bound_to(
        distinct_id=environ.get("HTTP_X_POSTHOG_DISTINCT_ID"),
        session_id=environ.get("HTTP_X_POSTHOG_SESSION_ID"),
        method=environ.get("REQUEST_METHOD"),
        path=environ_path(environ),
        url=url,
        user_agent=environ.get("HTTP_USER_AGENT"),
        ip=environ.get("REMOTE_ADDR"),
    )


def environ_path(environ: Mapping[str, Any]) -> str:
    """Return the whole path of a WSGI environ."""
    return f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"


def url_of(scheme: Any, host: Any, path: str, query: Any) -> str | None:
    """Return an absolute URL; None where the host is not known."""
    host, query = clean(host), clean(query)
    if host is None:
        return None
    asked = "" if query is None else f"?{query}"
    return f"{scheme}://{host}{quote(path, safe='/:@!$&()*+,;=~%')}{asked}"


class Front:
    """
    What all the middlewares do alike: ask for the user, report what escapes, raise nothing.

    Args:
        source: where exceptions are caught, in PostHog's words: ``django.middleware``.
        handler: a `PostHogHandler` that reports the exceptions that escape a request.
        user: called with the request, returns the authenticated user's id, or None; it wins
            over the header's.
    """

    def __init__(self, source: str, handler: Any, user: Callable[[Any], Any] | None) -> None:
        self._boundary = middleware(source)
        self._handler = handler
        self._user = user
        self._told = Ledger()

    def identified(self, request: Any, describe: Callable[[Any], Bound]) -> identity:
        """Return the identity that holds while *request* is served."""
        return self._merged(request, describe, self._ask(request))

    async def identified_async(self, request: Any, describe: Callable[[Any], Bound]) -> identity:
        """Do as `identified` does, for a *user* that may be ``async``."""
        user = self._ask(request, wait=True)
        if inspect.isawaitable(user):
            user = await self._wait(user)
        return self._merged(request, describe, user)

    def report(self, error: Exception) -> None:
        """Hand an exception that escapes the request to the handler, if one reports any."""
        capture = getattr(self._handler, "capture_exception", None)
        if capture is None:
            return
        try:
            capture(error, self._boundary)
        except Exception as failure:  # the request's own exception is the one to raise
            self._tell("report", failure)

    def _merged(self, request: Any, describe: Callable[[Any], Bound], user: Any) -> identity:
        try:
            bound = describe(request)
        except Exception as failure:  # a request that is not as its specification says
            self._tell("request", failure)
            bound = Bound()
        return identity(bound.distinct_id if user is None else user, **bound.properties)

    def _ask(self, request: Any, *, wait: bool = False) -> Any:
        if self._user is None:
            return None
        try:
            user = self._user(request)
            if inspect.iscoroutine(user) and not wait:
                user.close()
                raise TypeError("an async user needs an async application")
            return user
        except Exception as failure:
            self._tell("user", failure)
            return None

    async def _wait(self, user: Awaitable[Any]) -> Any:
        try:
            return await user
        except Exception as failure:
            self._tell("user", failure)
            return None

    def _tell(self, what: str, failure: Exception) -> None:
        self._told.tell(what, f"{self._boundary.source}: {what} failed: {type(failure).__name__}")
