"""
The public API as a user writes it; mypy reads this file, nothing runs it.

A ``type: ignore`` here is a promise too: mypy --strict complains about one that has
nothing to ignore, so each marks a mistake that types must catch.
"""

from __future__ import annotations

import logging
import queue

from collections.abc import Mapping
from typing import Any

from posthog_logging import (
    Analytics,
    DeliveryError,
    Listener,
    MessageHandler,
    PostHogHandler,
    PostHogLogsHandler,
    context,
    extras,
)


log = logging.getLogger("analytics")


def scrub(event: dict[str, Any]) -> dict[str, Any] | None:
    """Drop what is internal."""
    return None if event["event"] == "internal" else event


def warn(error: DeliveryError, events: list[dict[str, Any]]) -> None:
    """Say what was lost and why."""
    print(error.reason, error.status, len(events))


def configure() -> tuple[PostHogHandler, Listener]:
    """Build the handler with the pinned options, and the pair around it."""
    handler = PostHogHandler(
        "phc_key",
        "https://us.i.posthog.com",
        dialect="posthog",
        level=logging.INFO,
        flush_at=100,
        flush_interval=0.5,
        max_queue_size=10_000,
        max_retries=3,
        timeout=15.0,
        shutdown_timeout=5,
        compression=None,
        before_send=[scrub],
        properties={"service": "shop"},
        disable_geoip=False,
        historical_migration=False,
        headers={"X-Proxy": "1"},
    )
    PostHogHandler(on_error=warn)
    PostHogHandler("phc_key", exceptions="ERROR", exception_rate=(10, 1.0), logs=True)
    PostHogHandler("phc_key", exceptions=True, logs={"level": "INFO", "service_name": "shop"})
    PostHogHandler("phc_key", exceptions=[])  # type: ignore[arg-type]
    PostHogLogsHandler("phc_key", service_name="shop", before_send=scrub, rate_cap=0)
    PostHogHandler("phc_key", flush_at="100")  # type: ignore[arg-type]
    PostHogHandler("phc_key", "https://host", "segment")  # type: ignore[call-arg]
    waiting: queue.Queue[Any] = queue.Queue()
    log.addHandler(MessageHandler(waiting))
    return handler, Listener(waiting, handler, respect_handler_level=True)


def use(handler: PostHogHandler) -> bool:
    """Use the handler's own verbs."""
    counts: Mapping[str, int] = handler.counts
    handler.opt_out()
    handler.opt_in()
    done: bool = handler.flush(timeout=1.5)
    handler.close()
    return done and not handler.is_opted_out() and counts["accepted"] > 0


def say() -> None:
    """Log an event of each kind."""
    signed_up: Mapping[str, Any] = extras.identify("user-1", {"email": "ada@example.com"})
    log.info("signed up", extra=signed_up)
    log.info("movie played", extra=extras.capture("user-1", properties={"movie_id": "123"}))
    log.info("joined", extra=extras.group("company", "acme", {"seats": 5}, "user-1"))
    log.info("merged", extra=extras.alias("anonymous-1", "user-1"))
    extras.capture("user-1", "played", ["not", "a", "mapping"])  # type: ignore[arg-type]


def call(handler: PostHogHandler) -> str | None:
    """Make the calls of the vendors' libraries."""
    Analytics("phc_key", apikey="phc_key")  # type: ignore[call-arg]
    Analytics("phc_key", flush_at="1")  # type: ignore[arg-type]
    analytics = Analytics(handler)
    name: str | None = analytics.capture("user-1", "movie played", {"movie_id": "123"})
    analytics.track("user-1", "movie played", integrations={"All": True})
    analytics.identify("user-1", {"plan": "pro"})
    analytics.set("user-1", {"plan": "free"}, {"first": "pro"})
    analytics.alias("anonymous-1", "user-1")
    analytics.page("user-1", name="Home")
    analytics.screen("user-1", name="Home")
    analytics.capture("user-1", "played", "not a mapping")  # type: ignore[arg-type]
    analytics.capture_exception(ValueError(), "user-1", {"area": "pay"})
    handler.capture_exception(ValueError(), distinct_id="user-1")
    analytics.flush(2.0)
    analytics.close()
    return name


@context.identity("user-1", plan="pro")
def work(amount: int) -> str:
    """Keep its own signature under the decorator."""
    with context.identity("user-2"):
        context.bind(plan="free")
        context.clear()
    return str(amount)


text: str = work(1)
work("one")  # type: ignore[arg-type]


def misspelt() -> object:
    """A name that is not there is an error before the program runs."""
    from posthog_logging import PostHogHandlr  # type: ignore[attr-defined]

    return PostHogHandlr
