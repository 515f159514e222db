"""
The ten events of a cinema's service: its plan.

    posthog-logging plan show cinema_events
    posthog-logging plan export cinema_events cinema_plan.json
    posthog-logging serve --plan cinema_events -- python cinema_service.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from posthog_logging import event
from posthog_logging.plan import DistinctId


@event("visitor arrived")
@dataclass(frozen=True)
class VisitorArrived:
    """Somebody opened the programme."""

    channel: Literal["web", "app", "kiosk"]


@event("signed up", since="1.0")
@dataclass(frozen=True)
class SignedUp:
    """A visitor became a member."""

    member: DistinctId
    plan: Literal["trial", "gold"]
    newsletter: bool = False


@event("film searched")
@dataclass(frozen=True)
class FilmSearched:
    """Somebody looked for a film."""

    words: str
    results: int


@event("trailer played")
@dataclass(frozen=True)
class TrailerPlayed:
    """Somebody began to watch a trailer."""

    movie_id: str
    seconds: float


@event("seats chosen", since="1.1")
@dataclass(frozen=True)
class SeatsChosen:
    """Somebody picked seats, and has not paid yet."""

    movie_id: str
    seats: list[str] = field(default_factory=list)


@event("ticket sold")
@dataclass(frozen=True)
class TicketSold:
    """Somebody paid."""

    movie_id: str
    price: float
    currency: Literal["EUR", "GBP"] = "EUR"


@event("payment refused", since="1.2")
@dataclass(frozen=True)
class PaymentRefused:
    """The gateway did not take the money."""

    reason: Literal["card", "limit", "timeout"]
    price: float


@event("ticket refunded")
@dataclass(frozen=True)
class TicketRefunded:
    """Somebody got their money back."""

    price: float
    reason: str | None = None


@event("film rated")
@dataclass(frozen=True)
class FilmRated:
    """Somebody gave stars, one to five."""

    movie_id: str
    stars: Literal[1, 2, 3, 4, 5]


@event("door opened", deprecated="see ticket sold: the doors know no people")
@dataclass(frozen=True)
class DoorOpened:
    """A ticket let somebody into a hall."""

    hall: int
