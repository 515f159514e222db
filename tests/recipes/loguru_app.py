"""loguru: the handler is a sink, and what is bound says who."""

from __future__ import annotations

from loguru import logger

from posthog_logging import PostHogHandler


logger.add(PostHogHandler(), format="{message}")  # POSTHOG_API_KEY and POSTHOG_HOST

if __name__ == "__main__":
    logger.info("starting")
    logger.bind(distinct_id="user-1", who="1").info("movie played")
