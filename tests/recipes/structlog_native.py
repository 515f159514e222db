"""structlog on its own: the processor taps the chain, and the lines are printed as before."""

from __future__ import annotations

import structlog

from posthog_logging import PostHogHandler
from posthog_logging.structlog import PostHogProcessor


structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        PostHogProcessor(PostHogHandler()),  # POSTHOG_API_KEY and POSTHOG_HOST
        structlog.processors.JSONRenderer(),
    ],
    cache_logger_on_first_use=True,
)
log = structlog.get_logger()

if __name__ == "__main__":
    log.info("starting", version=7)
    with structlog.contextvars.bound_contextvars(distinct_id="user-1"):
        log.info("movie played", who="1")
