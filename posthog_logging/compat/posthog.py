"""
The module of posthog-python 1 to 8: ``import posthog``, and its ``Posthog`` and ``Client``.

``capture`` takes both orders: with one positional argument it is the event, as from version 6
on; with two or more they are the id and the event, as before. Settings are read at the first
call, except ``disabled`` and ``before_send``, which are read at every call, as there.
"""

from __future__ import annotations

import functools
import inspect

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .. import context as contexts
from ..analytics import Analytics
from ..delivery.ledger import logger
from ..version import VERSION
from . import settings
from .timestamps import zoned


__all__ = [
    "Client",
    "Posthog",
    "alias",
    "capture",
    "capture_ai",
    "capture_exception",
    "flush",
    "get_context_distinct_id",
    "get_context_session_id",
    "get_tags",
    "group",
    "group_identify",
    "identify",
    "identify_context",
    "join",
    "new_context",
    "page",
    "scoped",
    "screen",
    "set",
    "set_context_device_id",
    "set_context_session",
    "set_once",
    "setup",
    "shutdown",
    "tag",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_FLAGS = (
    "feature flags stay with the package posthog: use it beside this module, and put what it "
    "evaluates on the events of a context with posthog_logging.context.bind"
)
_VARIABLES = (
    "with exception_variables=True a PostHogHandler reports local variables, and its scrub= and "
    "pseudonymise= decide what they show"
)
_TELEMETRY = "use OpenTelemetry for it"
_RATE = "a PostHogHandler limits reports of exceptions itself: see its exception_rate="
_LOGGED = "use log.exception, and a PostHogHandler with exceptions='ERROR' reports it as well"
_OWN_CODE = "name your own modules with in_app_include= of PostHogHandler"

#: What there is nothing for, with what to do instead: functions, and settings of old clients.
_WITHOUT: Mapping[str, str] = {
    **dict.fromkeys(
        """enable_local_evaluation evaluate_flags feature_enabled feature_flag_definitions
        feature_flags_request_max_retries feature_flags_request_timeout_seconds
        flag_definition_cache_provider flag_fallback_cache_url get_all_flags
        get_all_flags_and_payloads get_feature_flag get_feature_flag_evaluation_runtime
        get_feature_flag_keys_by_evaluation_runtime get_feature_flag_payload
        get_feature_flag_result get_feature_variants get_flags_decision
        get_remote_config_payload load_feature_flags personal_api_key poll_interval
        secret_key""".split(),
        _FLAGS,
    ),
    **dict.fromkeys(
        """code_variables_detect_secrets code_variables_ignore_patterns
        code_variables_mask_patterns code_variables_mask_url_credentials
        set_capture_exception_code_variables_context
        set_code_variables_detect_secrets_context set_code_variables_ignore_patterns_context
        set_code_variables_mask_patterns_context
        set_code_variables_mask_url_credentials_context""".split(),
        _VARIABLES,
    ),
    **dict.fromkeys("metrics traces start_span get_active_span".split(), _TELEMETRY),
    **dict.fromkeys(
        """enable_exception_autocapture_rate_limiting exception_autocapture_bucket_size
        exception_autocapture_refill_interval_seconds
        exception_autocapture_refill_rate""".split(),
        _RATE,
    ),
    "AsyncPosthog": "no call waits for the network, so Posthog serves asyncio as well",
    "capture_trace_context": "bind trace ids with posthog_logging.context.bind",
    "enable_full_ai_capture": "AI events go the way of all others",
    "log_captured_exceptions": _LOGGED,
    "privacy_mode": "remove what is private in before_send",
    "project_root": _OWN_CODE,
}


class Client:
    """
    Send to one project, as the old ``Posthog`` and ``Client`` did.

    Args:
        api_key: the project's key; the environment's where None. ``project_api_key`` and
            ``write_key`` are other names for it.
        host: the base URL; the environment's where None, else PostHog's US cloud.
        disabled: True takes nothing; the attribute may be changed at any time.
        super_properties: properties of every event, which win over the event's own.
        before_send: as in `PostHogHandler`; the attribute may be changed at any time.
        more: the old client's other settings, by name.
    """

    def __init__(
        self,
        api_key: str | None = None,
        host: str | None = None,
        *,
        project_api_key: str | None = None,
        write_key: str | None = None,
        disabled: bool = False,
        super_properties: Mapping[str, Any] | None = None,
        before_send: Callable[[dict[str, Any]], dict[str, Any] | None] | None = None,
        capture_mode: str | None = None,
        is_server: bool = True,
        **more: Any,
    ) -> None:
        options = settings.options_of(__name__, more, _WITHOUT)
        if capture_mode is not None:
            options["dialect"] = _dialect(capture_mode)
        if not is_server:
            options["properties"] = {"$is_server": False}
        #: Nothing is taken while this is True.
        self.disabled = disabled
        #: Properties of every event; they win over the event's own.
        self.super_properties = super_properties
        #: May change or drop an event, at any time.
        self.before_send = before_send
        self.api_key = next(
            filter(str.strip, filter(None, [project_api_key, api_key, write_key])), None
        )
        self.analytics = Analytics(self.api_key, host, before_send=self._before_send, **options)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            hint = f"; {_WITHOUT[name]}" if name in _WITHOUT else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def capture(self, *args: Any, **kwargs: Any) -> str | None:
        """
        Record an event; return its uuid, or None where it was refused.

        ``capture(event, …)`` as from version 6 on, or ``capture(distinct_id, event, …)``.
        The rest by name, or in the old order: *properties*, *context*, *timestamp*, *uuid*
        (or *message_id*), *groups*, *send_feature_flags*; *disable_geoip*.
        """
        return self._never_raises("capture", _ordered(args, kwargs), self._capture)

    def capture_ai(self, *args: Any, **kwargs: Any) -> str | None:
        """Record an AI event, which goes the way of all events; see `capture`."""
        return self.capture(*args, **kwargs)

    def identify(self, *args: Any, **kwargs: Any) -> str | None:
        """Record who *distinct_id* is: *properties*, *context*, *timestamp*, *uuid*."""
        return self._never_raises("identify", (args, kwargs), self._identify)

    def set(self, *args: Any, **kwargs: Any) -> str | None:
        """Set *properties* of the person *distinct_id*, or of the context's."""
        return self._never_raises("set", (args, kwargs), self._set)

    def set_once(self, *args: Any, **kwargs: Any) -> str | None:
        """Set *properties* that the person *distinct_id* has not yet."""
        return self._never_raises("set_once", (args, kwargs), self._set_once)

    def group_identify(self, *args: Any, **kwargs: Any) -> str | None:
        """Set *properties* of the group *group_key* of the type *group_type*."""
        return self._never_raises("group_identify", (args, kwargs), self._group_identify)

    def group(self, *args: Any, **kwargs: Any) -> str | None:
        """Put *distinct_id* into *group_id*, as version 1.0 did; see `Analytics.group`."""
        return self._never_raises("group", (args, kwargs), self.analytics.group)

    def alias(self, *args: Any, **kwargs: Any) -> str | None:
        """Join *previous_id* to *distinct_id*: *context*, *timestamp*, *uuid*."""
        return self._never_raises("alias", (args, kwargs), self._alias)

    def page(self, *args: Any, **kwargs: Any) -> str | None:
        """Record that *distinct_id* saw a page: a *url*, or *category* and *name*."""
        return self._never_raises("page", (args, kwargs), self._page)

    def screen(self, *args: Any, **kwargs: Any) -> str | None:
        """Record that *distinct_id* saw a screen; see `Analytics.screen`."""
        return self._never_raises("screen", (args, kwargs), self.analytics.screen)

    def capture_exception(self, *args: Any, **kwargs: Any) -> str | None:
        """Report *exception*, or the one that is being handled: *distinct_id*, *properties*."""
        return self._never_raises("capture_exception", (args, kwargs), self._capture_exception)

    def flush(self, timeout_seconds: float | None = 10) -> bool:
        """Make one attempt now for everything that waits; return whether nothing is left."""
        return self.analytics.flush(timeout_seconds)

    def join(self) -> None:
        """Deliver what waits; the next call opens the client again."""
        self.analytics.close()

    def shutdown(self) -> None:
        """Deliver what waits; the next call opens the client again."""
        self.analytics.close()

    @contextmanager
    def new_context(
        self, fresh: bool = False, capture_exceptions: bool | None = None
    ) -> Iterator[None]:
        """Begin a context for this client; see `posthog_logging.compat.posthog.new_context`."""
        with new_context(fresh, capture_exceptions, self):
            yield

    def _never_raises(
        self,
        name: str,
        given: tuple[tuple[Any, ...], dict[str, Any]],
        call: Callable[..., str | None],
    ) -> str | None:
        """Make *call*; what it cannot take is refused, counted and logged."""
        if self.disabled:
            return None
        args, kwargs = given
        try:
            return call(*args, **kwargs)
        except Exception as error:
            self.analytics.handler.refuse("bad_arguments", f"{name}: {type(error).__name__}")
            return None

    def _capture(
        self,
        distinct_id: Any = None,
        event: Any = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        uuid: Any = None,
        groups: Mapping[str, Any] | None = None,
        send_feature_flags: Any = False,
        flags: Any = None,
        **more: Any,
    ) -> str | None:
        if send_feature_flags or flags is not None:
            _log_once(f"capture: flags and send_feature_flags have no effect; {_FLAGS}")
        return self.analytics.capture(
            distinct_id,
            event,
            self._properties(properties, more.pop("disable_geoip", None)),
            context,
            zoned(timestamp),
            uuid if uuid is not None else more.pop("message_id", None),
            **({} if groups is None else {"groups": groups}),
            **_none_left(more),
        )

    def _identify(
        self, distinct_id: Any = None, properties: Any = None, *rest: Any, **more: Any
    ) -> str | None:
        return self.analytics.identify(distinct_id, properties, **self._details(rest, more))

    def _set(
        self, distinct_id: Any = None, properties: Any = None, *rest: Any, **more: Any
    ) -> str | None:
        return self._set_person(distinct_id, {"set": properties}, rest, more)

    def _set_once(
        self, distinct_id: Any = None, properties: Any = None, *rest: Any, **more: Any
    ) -> str | None:
        return self._set_person(distinct_id, {"set_once": properties}, rest, more)

    def _set_person(
        self, distinct_id: Any, given: dict[str, Any], rest: tuple[Any, ...], more: dict[str, Any]
    ) -> str | None:
        # By `capture`, which has room for the event's own properties beside the person's.
        return self.analytics.capture(distinct_id, "$set", **given, **self._details(rest, more))

    def _group_identify(
        self,
        group_type: Any,
        group_key: Any,
        properties: Any = None,
        *rest: Any,
        distinct_id: Any = None,
        **more: Any,
    ) -> str | None:
        details = self._details(rest, more)
        group = {
            **details.pop("properties", {}),
            "$group_type": group_type,
            "$group_key": group_key,
            "$group_set": {} if properties is None else properties,
        }
        return self.analytics.capture(distinct_id, "$groupidentify", group, **details)

    def _alias(
        self, previous_id: Any, distinct_id: Any = None, *rest: Any, **more: Any
    ) -> str | None:
        return self.analytics.alias(previous_id, distinct_id, **self._details(rest, more))

    def _page(self, distinct_id: Any = None, *args: Any, **more: Any) -> str | None:
        """Take ``(id, url, properties)`` as versions 1.0.6 to 6, or ``(id, category, name)``."""
        if args and "://" in str(args[0]) and (len(args) == 1 or not isinstance(args[1], str)):
            more["url"], args = args[0], args[1:]
        if "url" not in more:
            return self.analytics.page(distinct_id, *args, **more)
        url, properties = more.pop("url"), (args[0] if args else more.pop("properties", None))
        details = self._details(args[1:], more)
        properties = {"$current_url": url, **(properties or {})}
        return self.analytics.page(distinct_id, properties=properties, **details)

    def _capture_exception(
        self,
        exception: Any = None,
        distinct_id: Any = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: Any = None,
        uuid: Any = None,
        groups: Mapping[str, Any] | None = None,
        send_feature_flags: Any = False,
        flags: Any = None,
        disable_geoip: bool | None = None,
    ) -> str | None:
        error = exception[1] if isinstance(exception, tuple) else exception
        more = self._properties(properties, disable_geoip) or {}
        grouped = {} if groups is None else {"$groups": groups}
        return self.analytics.capture_exception(error, distinct_id, {**more, **grouped} or None)

    def _details(self, rest: tuple[Any, ...], more: dict[str, Any]) -> dict[str, Any]:
        """
        Return *context*, *timestamp* and *uuid* of a call as `Analytics` calls them.

        Up to version 5 they stood in this order; from 6 on without the context.
        """
        orders = ("context", "timestamp", "uuid", "disable_geoip")
        named = (
            orders if not rest or rest[0] is None or isinstance(rest[0], Mapping) else orders[1:]
        )
        given = {**dict(zip(named, rest, strict=False)), **more}
        uuid, message_id = given.pop("uuid", None), given.pop("message_id", None)
        geoip = self._properties(None, given.pop("disable_geoip", None))
        details = {
            "context": given.pop("context", None),
            "timestamp": zoned(given.pop("timestamp", None)),
            "message_id": uuid if uuid is not None else message_id,
            "properties": geoip,
            **_none_left(given),
        }
        return {name: value for name, value in details.items() if value is not None}

    def _properties(
        self, properties: Mapping[str, Any] | None, disable_geoip: bool | None
    ) -> Mapping[str, Any] | None:
        if disable_geoip is not None:
            properties = {**(properties or {}), "$geoip_disable": disable_geoip}
        if self.super_properties:
            properties = {**(properties or {}), **self.super_properties}
        return properties

    def _before_send(self, event: dict[str, Any]) -> dict[str, Any] | None:
        return event if self.before_send is None else self.before_send(event)


class Posthog(Client):
    """Send to one project; see `Client`."""


def _dialect(capture_mode: Any) -> str:
    """Return the dialect of ``"v0"``, ``"v1"`` or the old client's ``CaptureMode``."""
    version = str(getattr(capture_mode, "value", capture_mode)).lower().removeprefix("analytics_")
    if version not in ("v0", "v1"):
        raise ValueError(f"capture_mode: 'v0' or 'v1', not {capture_mode!r}")
    return f"posthog-{version}"


def _ordered(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of `capture` with the id first, whichever order they came in."""
    if len(args) == 1 and "event" not in kwargs:
        return (kwargs.pop("distinct_id", None), *args), kwargs
    if len(args) == 2 and isinstance(args[1], Mapping):
        return (kwargs.pop("distinct_id", None), *args), kwargs
    return args, kwargs


def _none_left(more: Mapping[str, Any]) -> dict[str, Any]:
    """Return nothing; raises TypeError where an argument is left that no version takes."""
    if more:
        raise TypeError(f"unknown arguments: {', '.join(sorted(more))}")
    return {}


@functools.cache
def _log_once(text: str) -> None:
    logger.warning("%s: %s", __name__, text)


# The contexts.


@contextmanager
def new_context(
    fresh: bool = False, capture_exceptions: bool | None = None, client: Client | None = None
) -> Iterator[None]:
    """
    Begin a context: what `tag` and `identify_context` bind in it ends with it.

    Args:
        fresh: True forgets what the outer context has bound.
        capture_exceptions: True reports exceptions that leave the block, and raises them
            again; False or None does not.
        client: reports them; the module's own where None.
    """
    with contexts.identity():
        if fresh:
            contexts.clear()
            contexts.bind()
        try:
            yield
        except Exception as error:
            if capture_exceptions or (capture_exceptions is None and enable_exception_autocapture):
                (client or setup()).capture_exception(error)
            raise


def scoped(
    fresh: bool = False, capture_exceptions: bool | None = None
) -> Callable[[_Function], _Function]:
    """Give each call of a function, ``async`` or not, a context of its own."""

    def decorate(function: _Function) -> _Function:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapped_async(*args: Any, **kwargs: Any) -> Any:
                with new_context(fresh, capture_exceptions):
                    return await function(*args, **kwargs)

            return cast(_Function, wrapped_async)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with new_context(fresh, capture_exceptions):
                return function(*args, **kwargs)

        return cast(_Function, wrapped)

    return decorate


def tag(name: str, value: Any) -> None:
    """Add a property to every later event of the current context; outside of one, to none."""
    if contexts.current() is not None:
        contexts.bind(**{name: value})


def get_tags() -> dict[str, Any]:
    """Return the properties that the current context has bound."""
    bound = contexts.current()
    return dict(bound.properties) if bound else {}


def identify_context(distinct_id: Any) -> None:
    """Attribute every later event of the current context to *distinct_id*."""
    if contexts.current() is not None:
        contexts.identity(distinct_id).__enter__()  # the context's own end takes it back


def set_context_session(session_id: str) -> None:
    """Give every later event of the current context this ``$session_id``."""
    tag("$session_id", session_id)


def set_context_device_id(device_id: str) -> None:
    """Give every later event of the current context this ``$device_id``."""
    tag("$device_id", device_id)


def get_context_session_id() -> Any:
    """Return the ``$session_id`` of the current context, or None."""
    return get_tags().get("$session_id")


def get_context_distinct_id() -> Any:
    """Return the id that the current context is attributed to, or None."""
    bound = contexts.current()
    return bound.distinct_id if bound else None


# The settings, and the calls on a client that the first of them makes.

api_key: str | None = None
project_api_key: str | None = None
write_key: str | None = None
host: str | None = None
on_error: Any = None
debug = False
send = True
sync_mode = False
disabled = False
gzip = False
max_retries: int | None = None
timeout: float | None = None
flush_at: int | None = None
flush_interval: float | None = None
max_queue_size: int | None = None
historical_migration = False
disable_geoip = True
is_server = True
super_properties: Mapping[str, Any] | None = None
before_send: Any = None
capture_mode: str | None = None
enable_exception_autocapture = False
personal_api_key: str | None = None
secret_key: str | None = None
poll_interval = 30
privacy_mode = False
capture_trace_context = False
capture_exception_code_variables = False
log_captured_exceptions = False
project_root: str | None = None
in_app_modules: Any = None
default_client: Client | None = None

__version__ = VERSION

_SETTINGS = """api_key project_api_key write_key host on_error debug send sync_mode gzip
    max_retries timeout flush_at flush_interval max_queue_size historical_migration disable_geoip
    is_server super_properties capture_mode enable_exception_autocapture personal_api_key
    secret_key poll_interval privacy_mode capture_trace_context capture_exception_code_variables
    log_captured_exceptions project_root in_app_modules""".split()
_DEFAULTS = {name: globals()[name] for name in _SETTINGS}


def setup() -> Client:
    """Return the module's client, made now of its settings if there is none."""
    global default_client
    if default_client is None:
        default_client = Client(**settings.changed(globals(), _DEFAULTS))
    default_client.disabled = disabled
    default_client.before_send = before_send
    return default_client


def capture(*args: Any, **kwargs: Any) -> str | None:
    """Record an event: ``capture(event)`` or ``capture(id, event)``; see `Client.capture`."""
    return None if disabled else setup().capture(*args, **kwargs)


def capture_ai(*args: Any, **kwargs: Any) -> str | None:
    """Record an AI event; see `Client.capture`."""
    return None if disabled else setup().capture_ai(*args, **kwargs)


def identify(*args: Any, **kwargs: Any) -> str | None:
    """Record who somebody is; see `Client.identify`."""
    return None if disabled else setup().identify(*args, **kwargs)


def set(*args: Any, **kwargs: Any) -> str | None:  # noqa: A001 - the old module's name
    """Set properties of a person; see `Client.set`."""
    return None if disabled else setup().set(*args, **kwargs)


def set_once(*args: Any, **kwargs: Any) -> str | None:
    """Set properties that a person has not yet; see `Client.set_once`."""
    return None if disabled else setup().set_once(*args, **kwargs)


def group_identify(*args: Any, **kwargs: Any) -> str | None:
    """Set properties of a group; see `Client.group_identify`."""
    return None if disabled else setup().group_identify(*args, **kwargs)


def group(*args: Any, **kwargs: Any) -> str | None:
    """Put a person into a group; see `Client.group`."""
    return None if disabled else setup().group(*args, **kwargs)


def alias(*args: Any, **kwargs: Any) -> str | None:
    """Join two ids; see `Client.alias`."""
    return None if disabled else setup().alias(*args, **kwargs)


def page(*args: Any, **kwargs: Any) -> str | None:
    """Record a page view; see `Client.page`."""
    return None if disabled else setup().page(*args, **kwargs)


def screen(*args: Any, **kwargs: Any) -> str | None:
    """Record a screen view; see `Client.screen`."""
    return None if disabled else setup().screen(*args, **kwargs)


def capture_exception(*args: Any, **kwargs: Any) -> str | None:
    """Report an exception; see `Client.capture_exception`."""
    return None if disabled else setup().capture_exception(*args, **kwargs)


def flush(timeout_seconds: float | None = 10) -> None:
    """Make one attempt now for everything that waits."""
    if not disabled:
        setup().flush(timeout_seconds)


def join() -> None:
    """Deliver what waits."""
    if not disabled:
        setup().join()


def shutdown() -> None:
    """Deliver what waits."""
    if not disabled:
        setup().shutdown()


if not TYPE_CHECKING:  # or every misspelt name would pass
    __getattr__ = settings.missing(__name__, _WITHOUT)
