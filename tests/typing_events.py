"""
Typed events as a user writes them; mypy and pyright read this file, nothing runs it.

Each line that ends in ``# wrong`` is a mistake that both must find, and no other line is one.
"""

from __future__ import annotations

import logging

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic

from posthog_logging import Analytics, PostHogHandler, event, extras
from posthog_logging.plan import DistinctId, Plan


log = logging.getLogger("analytics")


@event("movie played", description="A film began.", since="1.2", sample=0.5)
@dataclass(frozen=True)
class MoviePlayed:
    """A dataclass."""

    movie_id: str
    category: Literal["romcom", "noir"] | None = None
    who: DistinctId | None = None


@event("ticket sold", deprecated="see movie played")
class TicketSold(pydantic.BaseModel):
    """A model of pydantic's."""

    seat: int


@event("seat taken")
@attrs.frozen
class SeatTaken:
    """A class of attrs'."""

    seat: int


@event("film cut")
class FilmCut(msgspec.Struct, frozen=True):
    """A struct of msgspec's."""

    minutes: float


@event("door opened")
class DoorOpened(NamedTuple):
    """A named tuple."""

    door: str


@event("sweets bought")
class Sweets(TypedDict):
    """A TypedDict."""

    pieces: int


class Popcorn(TypedDict):
    """The fields of an event."""

    size: Literal["small", "large"]


@event("popcorn bought")
def popcorn(size: Literal["small", "large"]) -> Popcorn:
    """Make one."""
    return {"size": size}


def right(analytics: Analytics) -> None:
    """Use them as they are meant."""
    log.info(MoviePlayed("123"), extra={"distinct_id": "user-1"})
    log.info(MoviePlayed("123", "noir", "user-1"))
    log.info(TicketSold(seat=5))
    log.info(SeatTaken(5))
    log.info(FilmCut(5.5))
    log.info(DoorOpened("left"))
    log.info(popcorn("small"))
    log.info(Sweets(pieces=3))
    analytics.capture("user-1", MoviePlayed("123"))
    analytics.track("user-1", TicketSold(seat=5))
    extras.capture("user-1", SeatTaken(5))
    played: MoviePlayed = MoviePlayed("123")
    movie: str = played.movie_id
    size: str = popcorn("large")["size"]
    names: list[str] = list(Plan.of("service.events").events)
    print(movie, size, names)


def wrong() -> None:
    """Make each mistake once."""
    MoviePlayed(123)  # wrong
    MoviePlayed("123", "western")  # wrong
    MoviePlayed()  # wrong
    MoviePlayed("123", colour=True)  # wrong
    MoviePlayed("123").movie  # wrong
    TicketSold(seat="five")  # wrong
    SeatTaken("five")  # wrong
    FilmCut("long")  # wrong
    DoorOpened(5)  # wrong
    popcorn("huge")  # wrong
    popcorn("small")["colour"]  # wrong
    Sweets(pieces="many")  # wrong
    event(5)  # wrong
    event("e", sample="half")  # wrong
    event("e", since=1.2)  # wrong
    event("e", note="x")  # wrong
    PostHogHandler(sample={"page seen": "half"})  # wrong
    PostHogHandler(person_rate=5)  # wrong
    PostHogHandler(pseudonymise={"email": 5})  # wrong
    PostHogHandler(scrub=5)  # wrong
    PostHogHandler(plan=True)  # wrong
