"""
The module of astronomer-analytics, MetaRouter's client: ``import analytics``.

Settings are read once, at the first call. ``app_id`` and ``write_key`` are one.
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
    """Send to one source of MetaRouter's; see `posthog_logging.compat.segment.Client`."""

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
_calls = segment.Module(globals(), _client)

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
