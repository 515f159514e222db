"""
AWS Lambda: what is logged must be delivered before the function returns, since it is frozen then.

Name ``lambda_handler.handler`` as the function's handler.
"""

from __future__ import annotations

import logging

from posthog_logging import PostHogHandler, context


posthog = PostHogHandler()  # POSTHOG_API_KEY and POSTHOG_HOST
log = logging.getLogger("analytics")
log.setLevel(logging.INFO)
log.addHandler(posthog)


def handler(event, _context):
    with context.identity(event["user"]):
        log.info("movie played", extra={"event": "movie played", "who": event["who"]})
    posthog.flush(2.0)
    return {"statusCode": 200}
