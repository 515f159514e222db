"""
Replace posthog-python 1 to 8: ``import posthog``, and its ``Posthog`` and ``Client``.

``capture`` takes arguments in both orders. A single positional argument is the event, as from
version 6 on; of two or more, the first is the id and the second the event, as before. Settings are
read at the first call, except ``disabled`` and ``before_send``, which are read at every call, as
in the old client.
"""

from __future__ import annotations

import functools
import inspect

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .. import context as contexts
from ..analytics import Analytics
from ..delivery.own_log import logger
from ..version import VERSION
from . import settings
from .calls import forward
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
_BeforeSend = Callable[["dict[str, Any]"], "dict[str, Any] | None"]

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

#: Functions and settings of the old clients without a counterpart, with what to do instead.
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
    "enable_full_ai_capture": "AI events are sent like all others",
    "log_captured_exceptions": _LOGGED,
    "privacy_mode": "remove what is private in before_send",
    "project_root": _OWN_CODE,
}


class _Hook:
    """A client's ``before_send``, as it is now; the sender keeps this, and not the client."""

    def __init__(self, call: _BeforeSend | None) -> None:
        self.call = call

    def __call__(self, event: dict[str, Any]) -> dict[str, Any] | None:
        return event if self.call is None else self.call(event)


class Client:
    """
    Send to one project, as the old ``Posthog`` and ``Client`` did.

    Args:
        api_key: the project's key; None: the key in the environment. ``project_api_key`` and
            ``write_key`` are other names for it.
        host: the base URL; None: the one in the environment, else PostHog's US cloud.
        disabled: True ignores all calls; the attribute may be changed at any time.
        super_properties: properties of every event, which win over the event's own.
        before_send: as in `PostHogHandler`; the attribute may be changed at any time.
        capture_mode: ``"v0"`` or ``"v1"``, for that protocol alone; None: chosen by the server.
        is_server: False marks the events as not sent by a server.
        more: the old client's other settings; an unknown one raises ``TypeError``.
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
        before_send: _BeforeSend | None = None,
        capture_mode: str | None = None,
        is_server: bool = True,
        **more: Any,
    ) -> None:
        options = settings.options_of(__name__, more, _WITHOUT)
        if capture_mode is not None:
            options["dialect"] = _dialect(capture_mode)
        if not is_server:
            options["properties"] = {"$is_server": False}
        #: While this is True, all calls are ignored.
        self.disabled = disabled
        #: Properties of every event; they win over the event's own.
        self.super_properties = super_properties
        self._hook = _Hook(before_send)
        self.api_key = next(
            filter(str.strip, filter(None, [project_api_key, api_key, write_key])), None
        )
        self.analytics = Analytics(self.api_key, host, before_send=self._hook, **options)

    @property
    def before_send(self) -> _BeforeSend | None:
        """Called with each event; returns it, changed or not, or None to drop it."""
        return self._hook.call

    @before_send.setter
    def before_send(self, call: _BeforeSend | None) -> None:
        self._hook.call = call

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            hint = f"; {_WITHOUT[name]}" if name in _WITHOUT else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def capture(self, *args: Any, **kwargs: Any) -> str | None:
        """
        Record an event; return its uuid, or None if it was refused.

        Call it as ``capture(event, …)`` or as ``capture(distinct_id, event, …)``. Further
        arguments, by name or in this order, are *properties*, *context*, *timestamp*, *uuid*
        (or *message_id*), *groups* and *send_feature_flags*; *disable_geoip* by name only.
        """
        return self._never_raises("capture", _ordered(args, kwargs), self._capture)

    def capture_ai(self, *args: Any, **kwargs: Any) -> str | None:
        """Record an AI event, which is sent like any other; see `capture`."""
        return self.capture(*args, **kwargs)

    def identify(self, *args: Any, **kwargs: Any) -> str | None:
        """Identify *distinct_id*; takes *properties*, *context*, *timestamp* and *uuid*."""
        return self._never_raises("identify", (args, kwargs), self._identify)

    def set(self, *args: Any, **kwargs: Any) -> str | None:
        """Set *properties* of the person *distinct_id*; by default, of the context's person."""
        return self._never_raises("set", (args, kwargs), self._set)

    def set_once(self, *args: Any, **kwargs: Any) -> str | None:
        """Set those *properties* that the person *distinct_id* does not have yet."""
        return self._never_raises("set_once", (args, kwargs), self._set_once)

    def group_identify(self, *args: Any, **kwargs: Any) -> str | None:
        """Set *properties* of the group *group_key* of the type *group_type*."""
        return self._never_raises("group_identify", (args, kwargs), self._group_identify)

    def group(self, *args: Any, **kwargs: Any) -> str | None:
        """Put *distinct_id* into *group_id*, as version 1.0 did; see `Analytics.group`."""
        return self._never_raises("group", (args, kwargs), self.analytics.group)

    def alias(self, *args: Any, **kwargs: Any) -> str | None:
        """Merge *previous_id* into *distinct_id*; takes *context*, *timestamp* and *uuid*."""
        return self._never_raises("alias", (args, kwargs), self._alias)

    def page(self, *args: Any, **kwargs: Any) -> str | None:
        """Record that *distinct_id* viewed a page: a *url*, or *category* and *name*."""
        return self._never_raises("page", (args, kwargs), self._page)

    def screen(self, *args: Any, **kwargs: Any) -> str | None:
        """Record that *distinct_id* viewed a screen; see `Analytics.screen`."""
        return self._never_raises("screen", (args, kwargs), self.analytics.screen)

    def capture_exception(self, *args: Any, **kwargs: Any) -> str | None:
        """Report *exception*, or the one being handled; takes *distinct_id* and *properties*."""
        return self._never_raises("capture_exception", (args, kwargs), self._capture_exception)

    def flush(self, timeout_seconds: float | None = 10) -> bool:
        """Make one attempt now to deliver everything queued; return whether nothing is left."""
        return self.analytics.flush(timeout_seconds)

    def join(self) -> None:
        """Deliver everything queued, and close the client; the next call opens it again."""
        self.analytics.close()

    def shutdown(self) -> None:
        """Deliver everything queued, and close the client; the next call opens it again."""
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
        """Make *call*; if it raises, count and log the event as refused."""
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
        """Accept ``(id, url, properties)``, as in 1.0.6 to 6, and ``(id, category, name)``."""
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
        Return *context*, *timestamp* and *uuid* of a call as arguments of `Analytics`.

        As positional arguments they have this order up to version 5; from 6 on, there is no
        context.
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


class Posthog(Client):
    """Send to one project; see `Client`."""


def _dialect(capture_mode: Any) -> str:
    """Return the dialect of ``"v0"``, ``"v1"`` or the old client's ``CaptureMode``."""
    version = str(getattr(capture_mode, "value", capture_mode)).lower().removeprefix("analytics_")
    if version not in ("v0", "v1"):
        raise ValueError(f"capture_mode: must be 'v0' or 'v1', not {capture_mode!r}")
    return f"posthog-{version}"


def _ordered(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of `capture` with the id first."""
    if len(args) == 1 and "event" not in kwargs:
        return (kwargs.pop("distinct_id", None), *args), kwargs
    if len(args) == 2 and isinstance(args[1], Mapping):
        return (kwargs.pop("distinct_id", None), *args), kwargs
    return args, kwargs


def _none_left(more: Mapping[str, Any]) -> dict[str, Any]:
    """Return {}; raises TypeError if arguments are left, which no version takes."""
    if more:
        raise TypeError(f"unknown arguments: {', '.join(sorted(more))}")
    return {}


@functools.cache
def _log_once(text: str) -> None:
    logger.warning("%s: %s", __name__, text)


# Contexts.


@contextmanager
def new_context(
    fresh: bool = False, capture_exceptions: bool | None = None, client: Client | None = None
) -> Iterator[None]:
    """
    Begin a context, which ends the effect of `tag` and `identify_context` inside it.

    Args:
        fresh: True does not inherit identity and properties of the outer context.
        capture_exceptions: True reports exceptions that leave the block, which always
            propagate. None: as the setting ``enable_exception_autocapture``.
        client: reports the exceptions; None: the module's client.
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
    """Decorate a function, ``async`` or not, to run each call in a new context."""

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
    """Add a property to later events of the current context; without one, do nothing."""
    if contexts.current() is not None:
        contexts.bind(**{name: value})


def get_tags() -> dict[str, Any]:
    """Return the properties bound in the current context."""
    bound = contexts.current()
    return dict(bound.properties) if bound else {}


def identify_context(distinct_id: Any) -> None:
    """Attribute later events of the current context to *distinct_id*; without one, do nothing."""
    if contexts.current() is not None:
        contexts.enter(contexts.Bound(distinct_id))  # ends with the context


def set_context_session(session_id: str) -> None:
    """Set the ``$session_id`` of later events of the current context."""
    tag("$session_id", session_id)


def set_context_device_id(device_id: str) -> None:
    """Set the ``$device_id`` of later events of the current context."""
    tag("$device_id", device_id)


def get_context_session_id() -> Any:
    """Return the ``$session_id`` of the current context, or None."""
    return get_tags().get("$session_id")


def get_context_distinct_id() -> Any:
    """Return the ``distinct_id`` of the current context, or None."""
    bound = contexts.current()
    return bound.distinct_id if bound else None


# Settings, and functions that call the module's client.

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
    """Return the module's client; make it from the settings if there is none."""
    global default_client
    if default_client is None:
        default_client = Client(**settings.changed(globals(), _DEFAULTS))
    default_client.disabled = disabled
    default_client.before_send = before_send
    return default_client


def _client() -> Client | None:
    """Return the module's client; None while the module is disabled."""
    return None if disabled else setup()


capture = forward(Client.capture, _client, __name__)
capture_ai = forward(Client.capture_ai, _client, __name__)
identify = forward(Client.identify, _client, __name__)
set = forward(Client.set, _client, __name__)  # noqa: A001 - the old module's name
set_once = forward(Client.set_once, _client, __name__)
group_identify = forward(Client.group_identify, _client, __name__)
group = forward(Client.group, _client, __name__)
alias = forward(Client.alias, _client, __name__)
page = forward(Client.page, _client, __name__)
screen = forward(Client.screen, _client, __name__)
capture_exception = forward(Client.capture_exception, _client, __name__)
flush = forward(Client.flush, _client, __name__)
join = forward(Client.join, _client, __name__)
shutdown = forward(Client.shutdown, _client, __name__)

if not TYPE_CHECKING:  # with it, type checkers would accept any name
    __getattr__ = settings.missing(__name__, _WITHOUT)
