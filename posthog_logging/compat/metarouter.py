"""
Replace astronomer-analytics, MetaRouter's client: ``import analytics``.

Settings are read once, at the first call. ``write_key`` is another name for ``app_id``.
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
    """Send to one MetaRouter source; see `posthog_logging.compat.segment.Client`."""

    dialect = "metarouter"
    _module = __name__


def _client(given: Mapping[str, Any]) -> Client:
    more = dict(given)
    source, key = more.pop("app_id", None), more.pop("write_key", None)
    return Client(source or key, **more)


app_id: str | None = None
write_key: str | None = None
host: str | None = None
on_error: Any = None
debug = False
send = True
sync_mode = False
max_queue_size = 10_000
gzip = False
timeout = 15
max_retries = 10
default_client: Client | None = None

_SETTINGS = """app_id write_key host on_error debug send sync_mode max_queue_size gzip timeout
    max_retries""".split()

track, identify, group, alias, page, screen, flush, join, shutdown = segment.calls(
    globals(), _client
)

if not TYPE_CHECKING:  # with it, type checkers would accept any name
    __getattr__ = settings.missing(__name__, {})
