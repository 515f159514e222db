"""
Replace segment-analytics-python 1 and 2: ``import segment.analytics as analytics``.

Settings are read once, at the first call. As in the old client, calls return
``(accepted, message)``.
"""

from __future__ import annotations

import functools
import inspect

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..analytics import Analytics
from . import settings
from .calls import forward
from .timestamps import zoned


__all__ = [
    "Client",
    "alias",
    "flush",
    "group",
    "identify",
    "join",
    "page",
    "screen",
    "shutdown",
    "track",
]

Answer = tuple[bool, dict[str, Any]]

_NO_OAUTH = "OAuth is not supported: keep segment-analytics-python, or use a write key"
_WITHOUT = {
    **dict.fromkeys(
        """oauth_auth_server oauth_client_id oauth_client_key oauth_key_id
        oauth_scope""".split(),
        _NO_OAUTH,
    ),
    "log_handler": "add it to the logger 'posthog_logging' instead",
}

# Arguments whose names differ in the message.
_WIRE = {
    "user_id": "userId",
    "distinct_id": "userId",
    "anonymous_id": "anonymousId",
    "previous_id": "previousId",
    "group_id": "groupId",
}


class Client:
    """
    Send to one source, as the old ``Client`` did.

    Args:
        write_key: the source's write key; None: the key in the environment.
        host: the base URL; None: the dialect's default.
        debug: log names and sizes at DEBUG.
        more: the old client's other settings; an unknown one raises ``TypeError``.
    """

    dialect = "segment"
    _module = __name__

    def __init__(
        self,
        write_key: str | None = None,
        host: str | None = None,
        debug: bool = False,
        **more: Any,
    ) -> None:
        given = {**({"debug": True} if debug else {}), **more}
        options = settings.options_of(self._module, given, _WITHOUT)
        self.write_key = write_key
        self.analytics = Analytics(write_key, host, dialect=self.dialect, **options)

    def track(self, *args: Any, **kwargs: Any) -> Answer:
        """Record *event* of *user_id*, with *properties*; arguments as in `Analytics.track`."""
        return self._call("track", args, kwargs)

    def identify(self, *args: Any, **kwargs: Any) -> Answer:
        """Record the *traits* of *user_id*; arguments as in `Analytics.identify`."""
        return self._call("identify", args, kwargs)

    def group(self, *args: Any, **kwargs: Any) -> Answer:
        """Put *user_id* into *group_id*, with *traits*; arguments as in `Analytics.group`."""
        return self._call("group", args, kwargs)

    def alias(self, *args: Any, **kwargs: Any) -> Answer:
        """Merge *previous_id* into *user_id*; arguments as in `Analytics.alias`."""
        if "user_id" in kwargs:
            kwargs["distinct_id"] = kwargs.pop("user_id")
        return self._call("alias", args, kwargs)

    def page(self, *args: Any, **kwargs: Any) -> Answer:
        """Record that *user_id* viewed a page; arguments as in `Analytics.page`."""
        return self._call("page", args, kwargs)

    def screen(self, *args: Any, **kwargs: Any) -> Answer:
        """Record that *user_id* viewed a screen; arguments as in `Analytics.screen`."""
        return self._call("screen", args, kwargs)

    def flush(self) -> None:
        """Make one attempt now to deliver everything queued."""
        self.analytics.flush()

    def join(self) -> None:
        """Deliver everything queued, and close the client; the next call opens it again."""
        self.analytics.close()

    def shutdown(self) -> None:
        """Deliver everything queued, and close the client; the next call opens it again."""
        self.analytics.close()

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
        """Make the call *name*; return whether its event was accepted, and the message."""
        try:
            given = _arguments(name, args, kwargs)
        except TypeError as error:
            self.analytics.handler.refuse("bad_arguments", f"{name}: {type(error).__name__}")
            return False, {}
        uuid = getattr(self.analytics, name)(**given)
        named = {_WIRE.get(key, key): value for key, value in given.items()}
        return uuid is not None, {"type": name, "messageId": uuid, **named}


def _arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name; raises TypeError if they do not fit."""
    given = dict(_signature(name).bind(None, *args, **kwargs).arguments)
    del given["self"]
    if "more" in given:
        raise TypeError(f"unknown arguments: {', '.join(given['more'])}")
    if "timestamp" in given:
        given["timestamp"] = zoned(given["timestamp"])
    return given


@functools.cache
def _signature(name: str) -> inspect.Signature:
    return inspect.signature(getattr(Analytics, name))


class Calls(NamedTuple):
    """The functions of a module, each of which calls the method of that name of its client."""

    track: Callable[..., Answer]
    identify: Callable[..., Answer]
    group: Callable[..., Answer]
    alias: Callable[..., Answer]
    page: Callable[..., Answer]
    screen: Callable[..., Answer]
    flush: Callable[[], None]
    join: Callable[[], None]
    shutdown: Callable[[], None]


def calls(namespace: dict[str, Any], make: Callable[[Mapping[str, Any]], Client]) -> Calls:
    """
    Return the functions of one module.

    The first call of any makes the module's ``default_client``.

    Args:
        namespace: the module's globals, with the settings that its ``_SETTINGS`` name.
        make: makes a client from the settings that differ from their defaults.
    """
    defaults = {name: namespace[name] for name in namespace["_SETTINGS"]}

    def client() -> Client:
        if namespace["default_client"] is None:
            namespace["default_client"] = make(settings.changed(namespace, defaults))
        made: Client = namespace["default_client"]
        return made

    methods = [getattr(Client, name) for name in Calls._fields]
    return Calls(*(forward(method, client, namespace["__name__"]) for method in methods))


write_key: str | None = None
host: str | None = None
on_error: Any = None
debug = False
log_handler: Any = None
send = True
sync_mode = False
max_queue_size = 10_000
gzip = False
timeout = 15
max_retries = 10
oauth_client_id: str | None = None
oauth_client_key: str | None = None
oauth_key_id: str | None = None
oauth_auth_server: str | None = None
oauth_scope: str | None = None
default_client: Client | None = None

_SETTINGS = """write_key host on_error debug log_handler send sync_mode max_queue_size gzip timeout
    max_retries oauth_client_id oauth_client_key oauth_key_id oauth_auth_server
    oauth_scope""".split()

track, identify, group, alias, page, screen, flush, join, shutdown = calls(
    globals(), lambda given: Client(**given)
)

if not TYPE_CHECKING:  # with it, type checkers would accept any name
    __getattr__ = settings.missing(__name__, {})
