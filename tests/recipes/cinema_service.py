"""
A service whose events are typed: each is an object, and mypy checks its fields.

    posthog-logging serve --plan cinema_events -- python cinema_service.py

The key and the host come from ``POSTHOG_API_KEY`` and ``POSTHOG_HOST``.
"""

from __future__ import annotations

import logging

from cinema_events import (
    DoorOpened,
    FilmRated,
    FilmSearched,
    PaymentRefused,
    SeatsChosen,
    SignedUp,
    TicketRefunded,
    TicketSold,
    TrailerPlayed,
    VisitorArrived,
)

from posthog_logging import PostHogHandler, context


log = logging.getLogger("cinema")
log.setLevel(logging.INFO)
log.addHandler(PostHogHandler())


def visit(member: str) -> None:
    """Sign up, look round, buy two tickets, and give one back."""
    log.info(VisitorArrived("web"))
    log.info(SignedUp(member, "gold", newsletter=True))
    with context.identity(member):
        log.info(FilmSearched("slow cinema", results=12))
        log.info(TrailerPlayed("123", seconds=41.5))
        log.info(SeatsChosen("123", ["B7", "B8"]))
        log.info(PaymentRefused("timeout", 25.8))
        log.info(TicketSold("123", 12.9))
        log.info(TicketSold("123", 12.9, "GBP"))
        log.info(DoorOpened(3))
        log.info(TicketRefunded(12.9, "train was late"))
        log.info(FilmRated("123", 4))


if __name__ == "__main__":
    visit("user-1")
