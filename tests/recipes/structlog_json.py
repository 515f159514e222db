"""structlog that renders JSON and hands the text to `logging`: opted-in lines are events."""

from __future__ import annotations

import logging

import structlog

from posthog_logging import PostHogHandler


structlog.configure(
    processors=[
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)
console = logging.StreamHandler()
logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console, PostHogHandler()])

log = structlog.get_logger("analytics")

if __name__ == "__main__":
    log.info("starting", version=7)
    log.info("movie played", distinct_id="user-1", who="1")
