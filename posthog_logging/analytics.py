"""
`Analytics`: the calls of posthog-python 1 to 5 and of Segment's clients, on a `PostHogHandler`.

For code that logs no record to carry an event. Positional arguments have the order of those
clients. Wrong ones are refused, counted and logged; no call raises.
"""

from __future__ import annotations

import functools
import inspect
import os

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, cast

from . import extras
from .delivery.encoder import BeforeSend
from .delivery.sender import OnError
from .delivery.spool import Spool
from .delivery.transport import Transport
from .errors.exception_list import MANUAL, Boundary
from .events.faults import faults
from .events.kinds import mapping_in, properties_in
from .events.proxies import unwrapped
from .events.pseudonyms import Key
from .events.sampling import Rate
from .events.scrub import Decide
from .handler import PostHogHandler
from .wire import Dialect


__all__ = ["Analytics", "Options"]

_Call = TypeVar("_Call", bound=Callable[..., "str | None"])


def _never_raises(call: _Call) -> _Call:
    @functools.wraps(call)
    def guarded(self: Analytics, /, *args: Any, **kwargs: Any) -> str | None:
        try:
            return call(self, *args, **kwargs)
        except faults() as error:
            self.handler.refuse("bad_arguments", f"{type(error).__name__}; {_order(call)}")
            return None

    return cast(_Call, guarded)


def _order(call: Callable[..., Any]) -> str:
    """Return a sentence on the order of the arguments of *call*."""
    names = [*inspect.signature(call).parameters][1:3]
    takes = f"Analytics.{call.__name__} takes ({', '.join(names)}, …)"
    return f"{takes}; {_OTHERS}" if call.__name__ == "capture" else takes


_GUIDE = "see `posthog-logging docs migrate`"
_OTHERS = f"posthog 6 to 8 take (event, distinct_id=…): {_GUIDE}"

#: Calls of other clients that `Analytics` does not have, with what to use instead.
_INSTEAD = {
    "group_identify": "use group(user_id, group_id, traits, group_type=…)",
    "set_once": "use set(distinct_id, set_once={…})",
    **dict.fromkeys(
        ["identify_context", "new_context", "scoped", "set_context_session", "tag"],
        "use identity() and bind() of posthog_logging.context",
    ),
}
_FLAGS = "feature flags stay with the package posthog: use it beside this library"


class Options(TypedDict, total=False):
    """The options of a `PostHogHandler` by name, which its docstring explains."""

    dialect: str | Dialect
    level: int | str
    flush_at: int
    flush_interval: float
    max_queue_size: int
    max_queue_bytes: int
    overflow: str
    block_timeout: float
    spool: str | os.PathLike[str] | Spool | None
    max_spool_bytes: int
    fsync: str
    max_retries: int | None
    max_age: float | None
    timeout: float
    shutdown_timeout: float
    compression: str | None
    bisect: bool
    before_send: BeforeSend | Iterable[BeforeSend] | None
    on_error: OnError | None
    properties: Mapping[str, Any] | None
    flat: bool
    scrub: bool | Iterable[str] | Decide
    pseudonymise: Mapping[str, Key] | tuple[Iterable[str], Key] | None
    sample: Mapping[str, float] | Rate | None
    person_rate: tuple[int, float] | None
    plan: str | None
    disable_geoip: bool
    historical_migration: bool
    headers: Mapping[str, str] | None
    proxies: dict[str, str] | None
    verify: bool | str | None
    cert: str | tuple[str, str] | None
    auth: Any
    session: Any
    exceptions: bool | int | str
    exception_rate: tuple[int, float] | None
    exception_hooks: bool
    exception_messages: bool
    exception_steps: int
    exception_variables: bool
    in_app_include: Iterable[str]
    in_app_exclude: Iterable[str]
    trace: bool
    logs: bool | int | str | Mapping[str, Any]
    sync_mode: bool
    send: bool
    debug: bool
    transport: Transport | None
    broker: str | None


class Analytics:
    """
    Send events without a log record, by the calls of other clients.

    Each call returns the event's uuid, or None if it was refused. Each also takes by name what a
    log call takes as ``extra``: ``groups``, ``set``, ``set_once``, ``options``, ``uuid``.

    Example::

        analytics = Analytics()  # POSTHOG_API_KEY and POSTHOG_HOST
        analytics.capture("user-1", "movie played", {"movie_id": "123"})

    Args:
        handler_or_key: an existing `PostHogHandler`, or the project's key for a new one; None:
            the key in the environment.
        host: as in `PostHogHandler`; so are all *options*, which are `Options`.
        gzip: other clients' name for ``compression="gzip"``; False: for None.

    Raises:
        TypeError: *host* or *options* are given beside a handler, or one is of a wrong type.
        ValueError: an option has a wrong value.
    """

    def __init__(
        self,
        handler_or_key: PostHogHandler | str | None = None,
        host: str | None = None,
        *,
        gzip: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        if gzip is not None:
            options.setdefault("compression", "gzip" if gzip else None)
        if isinstance(handler_or_key, PostHogHandler):
            if host is not None or options:
                raise TypeError(
                    "handler_or_key: a handler has its own options; give it host and options"
                )
            self.handler = handler_or_key
        elif handler_or_key is None or isinstance(handler_or_key, str):
            self.handler = PostHogHandler(handler_or_key, host, **options)
        else:
            kind = type(handler_or_key).__name__
            raise TypeError(
                f"handler_or_key: must be a PostHogHandler or a key, not a value of type {kind}"
            )

    if not TYPE_CHECKING:  # a type checker would take every misspelt name for an attribute

        def __getattr__(self, name: str) -> Any:
            hint = _FLAGS if "flag" in name or "feature" in name else _INSTEAD.get(name, _GUIDE)
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            text = text if name.startswith("_") else f"{text}; {hint}"
            raise AttributeError(text, name=name, obj=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.handler!r}>"

    @_never_raises
    def capture(
        self,
        distinct_id: Any = None,
        event: object = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        message_id: Any = None,
        **more: Any,
    ) -> str | None:
        """
        Send *event*, a name or a typed event, of the person *distinct_id*.

        The order is that of posthog-python 1 to 5; `posthog_logging.compat.posthog` also takes
        that of 6 to 8.
        """
        if context is None and timestamp is None and message_id is None and not more:
            if event is None:
                self.handler.refuse("no_event_name", _order(Analytics.capture))
                return None
            return self.handler.capture(distinct_id, event, properties)
        fields = extras.capture(distinct_id, event, properties, **more)
        return self._accept(fields, context, timestamp, message_id=message_id)

    @_never_raises
    def track(
        self,
        user_id: Any = None,
        event: object = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        anonymous_id: Any = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: Any = None,
        **more: Any,
    ) -> str | None:
        """Send *event* of the person *user_id*, as Segment's clients call it."""
        fields = extras.capture(user_id, event, properties, **more)
        return self._accept(fields, context, timestamp, anonymous_id, integrations, message_id)

    @_never_raises
    def identify(
        self,
        user_id: Any = None,
        traits: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        anonymous_id: Any = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: Any = None,
        **more: Any,
    ) -> str | None:
        """Set the traits of the person *user_id*; an *anonymous_id* becomes the same person."""
        fields = extras.identify(user_id, **{"set": traits, **more})
        return self._accept(fields, context, timestamp, anonymous_id, integrations, message_id)

    @_never_raises
    def set(
        self,
        distinct_id: Any = None,
        properties: Mapping[str, Any] | None = None,
        set_once: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        message_id: Any = None,
        **more: Any,
    ) -> str | None:
        """Set *properties* of the person *distinct_id*; *set_once* sets only missing ones."""
        fields = extras.set(distinct_id, properties, set_once, **more)
        return self._accept(fields, None, timestamp, message_id=message_id)

    @_never_raises
    def alias(
        self,
        previous_id: Any = None,
        distinct_id: Any = None,
        context: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: Any = None,
        **more: Any,
    ) -> str | None:
        """Merge *previous_id* into *distinct_id*; for a login use `identify`."""
        fields = extras.alias(previous_id, distinct_id, **more)
        return self._accept(fields, context, timestamp, None, integrations, message_id)

    @_never_raises
    def group(
        self,
        user_id: Any = None,
        group_id: Any = None,
        traits: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        anonymous_id: Any = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: Any = None,
        *,
        group_type: str = "group",
        **more: Any,
    ) -> str | None:
        """Set the traits of the group *group_id*, of PostHog's type *group_type*."""
        fields = extras.group(group_type, group_id, traits, user_id, **more)
        return self._accept(fields, context, timestamp, anonymous_id, integrations, message_id)

    @_never_raises
    def page(
        self,
        user_id: Any = None,
        category: str | None = None,
        name: str | None = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        anonymous_id: Any = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: Any = None,
        **more: Any,
    ) -> str | None:
        """Send a view of the page *name* by the person *user_id*."""
        category, name, properties = self._sorted_out("page", category, name, properties)
        fields = extras.page(user_id, name, properties, category, **more)
        return self._accept(fields, context, timestamp, anonymous_id, integrations, message_id)

    @_never_raises
    def screen(
        self,
        user_id: Any = None,
        category: str | None = None,
        name: str | None = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        anonymous_id: Any = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: Any = None,
        **more: Any,
    ) -> str | None:
        """Send a view of the screen *name* by the person *user_id*."""
        category, name, properties = self._sorted_out("screen", category, name, properties)
        fields = extras.screen(user_id, name, properties, category, **more)
        return self._accept(fields, context, timestamp, anonymous_id, integrations, message_id)

    @_never_raises
    def capture_exception(
        self,
        error: Any = None,
        distinct_id: Any = None,
        properties: Mapping[str, Any] | None = None,
        *,
        boundary: Boundary = MANUAL,
        level: str | int | None = None,
    ) -> str | None:
        """Report *error* to error tracking; None: the exception that is being handled."""
        return self.handler.capture_exception(
            error, boundary, distinct_id, properties, level=level
        )

    def flush(self, timeout: float | None = None) -> bool:
        """Make one attempt now for all that waits; return whether nothing is left."""
        return self.handler.flush(timeout)

    async def aflush(self, timeout: float | None = None) -> bool:
        """Do as `flush` does, while the event loop of asyncio or trio goes on."""
        return await self.handler.aflush(timeout)

    def join(self) -> None:
        """Deliver what waits: another name for `close`, as in other clients."""
        self.close()

    def shutdown(self) -> None:
        """Deliver what waits: another name for `close`, as in other clients."""
        self.close()

    def close(self) -> None:
        """Deliver what waits within ``shutdown_timeout``; the next call opens it again."""
        self.handler.close()

    @property
    def counts(self) -> Mapping[str, int]:
        """What became of the events, by reason: see `PostHogHandler.counts`."""
        return self.handler.counts

    def _sorted_out(self, call: str, category: Any, name: Any, properties: Any) -> Any:
        """
        Return *category*, *name* and *properties*, with mappings moved to the properties.

        ``page("user-1", "Home", {…})`` is the order of posthog-python 1, and what most expect.
        """
        given = [one for one in (category, name) if one is not None]
        mappings = [found for one in given if (found := mapping_in(one)) is not None]
        if not mappings:
            return category, name, properties
        self.handler.warn_once(
            f"{call}_arguments",
            f"Analytics.{call} takes (user_id, category, name, properties); the properties came"
            " in place of a name or category and were taken as properties. Give them by name:"
            f" {call}(user_id, name=…, properties=…)",
        )
        merged = dict(properties_in(properties))
        for one in mappings:
            merged.update(one)
        return None, next((one for one in given if mapping_in(one) is None), None), merged

    def _accept(
        self,
        fields: dict[str, Any],
        context: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        anonymous_id: Any = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: Any = None,
    ) -> str | None:
        """Translate Segment's arguments into the keys of ``extra``, and send the event."""
        if timestamp is not None:
            fields["timestamp"] = timestamp
        if message_id is not None:
            fields["uuid"] = message_id
        if anonymous_id is not None or context is not None or integrations is not None:
            if unwrapped(fields["distinct_id"]) is None:
                fields["distinct_id"] = anonymous_id
            named = {
                "$anon_distinct_id": anonymous_id,
                "$context": context,
                "$integrations": integrations,
            }
            given = {name: value for name, value in named.items() if value is not None}
            fields["properties"] = {**properties_in(fields.get("properties")), **given}
        return self.handler.accept(fields)
