"""
Replace rudder-sdk-python: ``import rudderstack.analytics as rudder_analytics``.

Settings are read once, at the first call. ``host`` is another name for ``dataPlaneUrl``, which has
no default, as every customer has their own data plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import segment, settings


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


class Client(segment.Client):
    """Send to one data plane; see `posthog_logging.compat.segment.Client`."""

    dialect = "rudderstack"
    _module = __name__


def _client(given: Mapping[str, Any]) -> Client:
    more = dict(given)
    url, base = more.pop("dataPlaneUrl", None), more.pop("host", None)
    return Client(more.pop("write_key", None), url or base, **more)


write_key: str | None = None
dataPlaneUrl: str | None = None  # noqa: N816 - the old client's name
host: str | None = None
on_error: Any = None
debug = False
send = True
sync_mode = False
max_queue_size = 10_000
gzip = True
timeout = 15
upload_interval = 0.5
upload_size = 100
max_retries = 10
default_client: Client | None = None

_SETTINGS = """write_key dataPlaneUrl host on_error debug send sync_mode max_queue_size gzip
    timeout upload_interval upload_size max_retries""".split()

track, identify, group, alias, page, screen, flush, join, shutdown = segment.calls(
    globals(), _client
)

if not TYPE_CHECKING:  # with it, type checkers would accept any name
    __getattr__ = settings.missing(__name__, {})
