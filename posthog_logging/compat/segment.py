"""
The module of segment-analytics-python 1 and 2: ``import segment.analytics as analytics``.

Settings are read once, at the first call. Calls return ``(accepted, message)``, as there.
"""

from __future__ import annotations

import functools
import inspect

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..analytics import Analytics
from . import settings
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

# How a message calls what a call calls otherwise.
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
        write_key: the source's write key; the environment's key where None.
        host: the base URL; the dialect's own where None.
        debug: log names and sizes at DEBUG.
        more: the old client's other settings, by name.
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
        """Join *previous_id* to *user_id*; arguments as in `Analytics.alias`."""
        if "user_id" in kwargs:
            kwargs["distinct_id"] = kwargs.pop("user_id")
        return self._call("alias", args, kwargs)

    def page(self, *args: Any, **kwargs: Any) -> Answer:
        """Record that *user_id* saw a page; arguments as in `Analytics.page`."""
        return self._call("page", args, kwargs)

    def screen(self, *args: Any, **kwargs: Any) -> Answer:
        """Record that *user_id* saw a screen; arguments as in `Analytics.screen`."""
        return self._call("screen", args, kwargs)

    def flush(self) -> None:
        """Make one attempt now for everything that waits."""
        self.analytics.flush()

    def join(self) -> None:
        """Deliver what waits; the next call opens the client again."""
        self.analytics.close()

    def shutdown(self) -> None:
        """Deliver what waits; the next call opens the client again."""
        self.analytics.close()

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Answer:
        """Return whether the event of the call *name* was accepted, and its message."""
        try:
            given = _arguments(name, args, kwargs)
        except TypeError as error:
            self.analytics.handler.refuse("bad_arguments", f"{name}: {type(error).__name__}")
            return False, {}
        uuid = getattr(self.analytics, name)(**given)
        named = {_WIRE.get(key, key): value for key, value in given.items()}
        return uuid is not None, {"type": name, "messageId": uuid, **named}


def _arguments(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name; raises TypeError where the old client would."""
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


class Module:
    """
    The calls of one module, on a client that the first of them makes from its settings.

    Args:
        namespace: the module's globals, among them the *settings* that callers set.
        make: makes a client of the settings that were changed.
    """

    def __init__(
        self, namespace: dict[str, Any], make: Callable[[Mapping[str, Any]], Client]
    ) -> None:
        self._namespace = namespace
        self._make = make
        self._defaults = {name: namespace[name] for name in namespace["_SETTINGS"]}

    @property
    def client(self) -> Client:
        """The module's ``default_client``, made now if there is none."""
        client: Client | None = self._namespace["default_client"]
        if client is None:
            client = self._make(settings.changed(self._namespace, self._defaults))
            self._namespace["default_client"] = client
        return client

    def track(self, *args: Any, **kwargs: Any) -> Answer:
        """Record an event; see `Client.track`."""
        return self.client.track(*args, **kwargs)

    def identify(self, *args: Any, **kwargs: Any) -> Answer:
        """Record a person's traits; see `Client.identify`."""
        return self.client.identify(*args, **kwargs)

    def group(self, *args: Any, **kwargs: Any) -> Answer:
        """Record a group's traits; see `Client.group`."""
        return self.client.group(*args, **kwargs)

    def alias(self, *args: Any, **kwargs: Any) -> Answer:
        """Join two ids; see `Client.alias`."""
        return self.client.alias(*args, **kwargs)

    def page(self, *args: Any, **kwargs: Any) -> Answer:
        """Record a page view; see `Client.page`."""
        return self.client.page(*args, **kwargs)

    def screen(self, *args: Any, **kwargs: Any) -> Answer:
        """Record a screen view; see `Client.screen`."""
        return self.client.screen(*args, **kwargs)

    def flush(self) -> None:
        """Make one attempt now for everything that waits."""
        self.client.flush()

    def join(self) -> None:
        """Deliver what waits."""
        self.client.join()

    def shutdown(self) -> None:
        """Deliver what waits."""
        self.client.shutdown()


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
_calls = Module(globals(), lambda given: Client(**given))

track = _calls.track
identify = _calls.identify
group = _calls.group
alias = _calls.alias
page = _calls.page
screen = _calls.screen
flush = _calls.flush
join = _calls.join
shutdown = _calls.shutdown

if not TYPE_CHECKING:  # or every misspelt name would pass
    __getattr__ = settings.missing(__name__, {})
