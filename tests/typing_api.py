"""The public API as a user writes it; mypy reads this file, nothing runs it."""

from __future__ import annotations

import logging

from collections.abc import Mapping
from typing import Any

from posthog_logging import context, extras


log = logging.getLogger("analytics")

signed_up: Mapping[str, Any] = extras.identify("user-1", {"email": "ada@example.com"})
log.info("signed up", extra=signed_up)
log.info("movie played", extra=extras.capture("user-1", properties={"movie_id": "123"}))
log.info("joined", extra=extras.group("company", "acme", {"seats": 5}, "user-1"))
log.info("merged", extra=extras.alias("anonymous-1", "user-1"))

with context.identity("user-1", plan="pro"):
    log.info("inside", extra={"event": "inside"})


@context.identity("user-1")
def work(amount: int) -> str:
    """Keep its own signature under the decorator."""
    return str(amount)


text: str = work(1)
context.bind(plan="free")
context.clear()
