"""structlog in front of `logging`: one `PostHogHandler` beside the console, for both."""

from __future__ import annotations

import logging

import structlog

from posthog_logging import PostHogHandler


structlog.configure(
    processors=[
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)
console = logging.StreamHandler()
console.setFormatter(structlog.stdlib.ProcessorFormatter(structlog.dev.ConsoleRenderer()))
logging.basicConfig(level=logging.INFO, handlers=[console, PostHogHandler()])

log = structlog.get_logger("analytics")

if __name__ == "__main__":
    log.info("starting", version=7)
    log.info("movie played", distinct_id="user-1", who="1")
    logging.getLogger("ratings").info("movie rated", extra={"distinct_id": "user-2", "who": "2"})
