"""Analytics events from your log statements: a standard-library ``logging`` back end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import context, extras
from .analytics import Analytics
from .events.typed import event
from .handler import DeliveryError, PostHogHandler
from .listener import Listener, MessageHandler
from .logs import PostHogLogsHandler


__all__ = [
    "Analytics",
    "DeliveryError",
    "Listener",
    "MessageHandler",
    "PostHogHandler",
    "PostHogLogsHandler",
    "context",
    "event",
    "extras",
]


if TYPE_CHECKING:
    __version__: str
else:  # hidden from type checkers, which would take every misspelt name for an attribute

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from .version import VERSION

            return VERSION
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
