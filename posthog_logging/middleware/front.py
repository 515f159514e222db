"""
The common part of the middlewares: bind the identity, report exceptions, log the request.

Nothing here raises into the application, and the application's own exceptions propagate.
"""

from __future__ import annotations

import hashlib
import inspect
import time

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypedDict

from .. import context
from ..context import Bound, Holder
from ..delivery import checks
from ..delivery.ledger import Ledger
from ..errors import steps
from ..errors.exception_list import middleware
from .request import STATUS, Identities, Request, describe


__all__ = ["Front", "Options", "Reporter", "Served", "is_asset", "known", "reporter"]

_ASSETS = frozenset(
    """avif bmp css eot gif ico jpeg jpg js map mjs mp3 mp4 ogg otf png svg ttf wasm webm
    webmanifest webp woff woff2""".split()
)


def is_asset(path: str) -> bool:
    """Return whether *path* has the file extension of an image, font, script or style sheet."""
    name, dot, ending = path.rpartition("/")[2].rpartition(".")
    return bool(name and dot) and ending.lower() in _ASSETS


class Reporter(Protocol):
    """Something that reports exceptions: a `PostHogHandler`, or an `Analytics`."""

    def capture_exception(self, error: Any, /, *, boundary: Any) -> Any:
        """Report *error*, which was caught at *boundary*."""
        ...

    def flush(self) -> Any:
        """Deliver what waits."""
        ...


def reporter(handler: Any) -> Any:
    """Return *handler* if it is None or a `Reporter`; raises TypeError for anything else."""
    return checks.having("handler", handler, "capture_exception", "flush")


class Options(TypedDict, total=False):
    """
    The options of every middleware.

    Callables get the framework's request: the environ, the scope, or Django's request. If one
    raises, a warning is logged once, and the request is served. In an asynchronous application
    *user* and *properties* may be ``async``.

    Keys:
        handler: a `PostHogHandler` or `Analytics` that reports exceptions which escape the
            application.
        user: returns the authenticated user's id, or None; it wins over header and cookie.
        trust_headers: False ignores the identity and session in headers. Default True.
        cookie: True reads identity and session from the cookie of posthog-js if no header has
            them; a project's token reads only that project's cookie. Default False.
        trusted_proxies: the number of trusted proxies in front: the client's address is the one
            in that place from the right of ``X-Forwarded-For`` or ``Forwarded``. 0, the
            default: the address of the connection.
        properties: returns a mapping of further properties for the request's events.
        filter: returns True for a request to ignore, such as a health check.
        http_log: True sends PostHog's ``$http_log`` event for each request through the
            *handler*: without a person, under a hash of address, host and user agent. Default
            False.
        is_asset: called with the path; returns True if the request is not to be logged. None
            logs every request.
    """

    handler: Reporter | None
    user: Callable[[Any], Any] | None
    trust_headers: bool
    cookie: bool | str
    trusted_proxies: int
    properties: Callable[[Any], Any] | None
    filter: Callable[[Any], Any] | None
    http_log: bool
    is_asset: Callable[[str], Any] | None


def known(options: Options, middleware: type) -> Options:
    """Return *options*; raises TypeError for one that *middleware* does not take."""
    own = inspect.signature(middleware).parameters.values()
    allowed = [
        *Options.__annotations__,
        *(each.name for each in own if each.kind is inspect.Parameter.KEYWORD_ONLY),
    ]
    for name in options:
        if name not in allowed:
            import difflib  # here, as importing it takes longer than the rest of this module

            near = difflib.get_close_matches(name, allowed, 1)
            raise TypeError(
                f"{middleware.__module__}.{middleware.__name__}: no option is called {name!r}"
                f"{f'; did you mean {near[0]!r}?' if near else '.'}"
                f" It takes {', '.join(sorted(allowed))}"
            )
    return options


class Front:
    """
    The checked options of one middleware, and its work around a request.

    Args:
        source: PostHog's name for where exceptions are caught, such as ``django.middleware``.
        read: converts the framework's request to a `Request`.
        holder: decides when the events of a request are sent; None: at once.

    The others are `Options`. Raises ``TypeError`` and ``ValueError`` for invalid ones.
    """

    def __init__(
        self,
        source: str,
        read: Callable[[Any], Request],
        *,
        handler: Any = None,
        user: Callable[[Any], Any] | None = None,
        trust_headers: bool = True,
        cookie: bool | str = False,
        trusted_proxies: int = 0,
        properties: Callable[[Any], Any] | None = None,
        filter: Callable[[Any], Any] | None = None,  # noqa: A002 - the stdlib's word
        http_log: bool = False,
        is_asset: Callable[[str], Any] | None = is_asset,
        holder: Holder | None = None,
    ) -> None:
        self.handler = reporter(handler)
        self._boundary = middleware(source)
        self._read = read
        self._user = checks.hook("user", user)
        self._properties = checks.hook("properties", properties)
        self._filter = checks.hook("filter", filter)
        self._is_asset = checks.hook("is_asset", is_asset)
        self._logs = checks.boolean("http_log", http_log)
        if http_log and not hasattr(handler, "accept"):
            raise ValueError("http_log: needs a handler, which sends the events")
        self._identities = Identities(
            checks.boolean("trust_headers", trust_headers),
            cookie if isinstance(cookie, str) and cookie else checks.boolean("cookie", cookie),
            checks.whole("trusted_proxies", trusted_proxies, 0),
        )
        self._holder = holder
        self._notices = Ledger()

    def ignores(self, request: Any) -> bool:
        """Return whether the *filter* excludes *request*."""
        return self._filter is not None and bool(self._call("filter", self._filter, request))

    def begin(self, request: Any) -> Served:
        """Bind the identity and properties of *request* until the returned `Served` ends."""
        user = self._ask("user", self._user, request)
        return self._served(request, user, self._ask("properties", self._properties, request))

    async def begin_async(self, request: Any) -> Served:
        """Like `begin`, but *user* and *properties* may be ``async``."""
        user = await self._ask_async("user", self._user, request)
        properties = await self._ask_async("properties", self._properties, request)
        return self._served(request, user, properties)

    def report(self, error: BaseException) -> None:
        """Report an exception that escaped the application, if there is a handler."""
        if self.handler is not None:
            capture = self.handler.capture_exception
            self._call("report", capture, error, boundary=self._boundary)

    def log(self, seen: Bound, path: str, status: int | None, duration: float) -> None:
        """Send ``$http_log`` for a request that ended, unless it was for an asset."""
        if not self._logs or (self._is_asset and self._call("is_asset", self._is_asset, path)):
            return
        kept = {key: seen.properties[key] for key in _LOGGED if key in seen.properties}
        client = ":".join(str(kept.get(key, "")) for key in ("$ip", "$host", "$raw_user_agent"))
        fields = {
            "event": "$http_log",
            "distinct_id": f"http_log_{hashlib.sha256(client.encode()).hexdigest()[:32]}",
            "properties": {
                **kept,
                "$process_person_profile": False,
                "method": seen.properties.get("$request_method"),
                "duration_ms": round(duration * 1000, 3),
                **({} if status is None else {"status_code": status}),
            },
        }
        self._call("http_log", self.handler.accept, fields)

    def _served(self, request: Any, user: Any, properties: Any) -> Served:
        seen = self._call("request", self._seen, request) or Bound()
        bound = seen
        if user is not None:
            context.remember_person(user)
            bound = bound._replace(distinct_id=user)
        if isinstance(properties, Mapping):
            own = self._call("properties", dict, properties) or {}
            named = {key: value for key, value in own.items() if isinstance(key, str)}
            bound = bound._replace(properties={**bound.properties, **named})
        elif properties is not None:
            self._warn("properties", TypeError())
        return Served(self, seen, bound._replace(holder=self._holder))

    def _seen(self, request: Any) -> Bound:
        return describe(self._read(request), self._identities)

    def _ask(self, what: str, ask: Callable[[Any], Any] | None, request: Any) -> Any:
        found = None if ask is None else self._call(what, ask, request)
        if inspect.iscoroutine(found):
            found.close()
            self._warn(what, TypeError("an async one needs an async application"))
            return None
        return found

    async def _ask_async(self, what: str, ask: Callable[[Any], Any] | None, request: Any) -> Any:
        found = None if ask is None else self._call(what, ask, request)
        if not inspect.isawaitable(found):
            return found
        try:
            return await found
        except Exception as failure:
            self._warn(what, failure)
            return None

    def _call(self, what: str, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Return the result of *call*; if it raises, log that once and return None."""
        try:
            return call(*args, **more)
        except Exception as failure:
            self._warn(what, failure)
            return None

    def _warn(self, what: str, failure: Exception) -> None:
        self._notices.warn(
            what,
            f"{self._boundary.source}: {what} failed with {type(failure).__name__}; the "
            "request goes on without it",
        )


# The properties of a request that ``$http_log`` includes.
_LOGGED = """$current_url $host $pathname $referrer $referring_domain $ip $raw_user_agent
utm_source utm_medium utm_campaign utm_content utm_term""".split()


class Served:
    """One request being served: its identity and properties are bound until it ends."""

    def __init__(self, front: Front, seen: Bound, bound: Bound) -> None:
        self._front = front
        self._seen = seen
        self._began = time.perf_counter()
        self._status: int | None = None
        self._trail = steps.begin_anew()
        self._leave: Callable[[], None] | None = context.begin(bound)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, Exception):
            self.failed(error)
        self.end()

    def answered(self, status: Any) -> None:
        """Note the status of the response."""
        if isinstance(status, int):
            self._status = status
            context.bind(**{STATUS: status})

    def failed(self, error: BaseException) -> None:
        """Report an exception that escaped; if there is no response yet, the status is 500."""
        if self._status is None:
            self._status = 500
        # Frameworks run a plain `def` view in a thread, in a copy of the request's context.
        context.catch_up()
        steps.catch_up()
        self._front.report(error)

    def end(self) -> None:
        """Restore the context and log the request; a second call does nothing."""
        leave, self._leave = self._leave, None
        if leave is None:
            return
        duration = time.perf_counter() - self._began
        leave()
        steps.end(self._trail)
        path = self._seen.properties.get("$pathname", "")
        self._front.log(self._seen, path, self._status, duration)
