"""
Run a small film service that logs, and show the events that arrive.

The inspector is the server, dictConfig sets logging up, and four threads log. Nothing leaves
this machine. The exit status is 0 only if everything that was logged arrived and was good.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import logging.config
import uuid

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from .. import context, extras
from ..delivery.ledger import NOT_LOSSES
from ..events.records import is_event
from ..handler import PostHogHandler
from ..inspector import Event, Inspector
from ..wire import Dialect, find_dialect
from . import destination, rows
from .command import FAILED, OK, CommandError, until_interrupted, wait_for_ever, whole
from .output import Output
from .serve import KEY, started


__all__ = ["HELP", "add_arguments", "run"]

HELP = "run a small service that logs, and show what arrives"

# Properties of every event of the demo, which its table leaves out.
_SHARED = ("service", "plan")
_THREADS = 4

log = logging.getLogger("films")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "--keep", action="store_true", help="leave the inspector running until Ctrl-C"
    )
    parser.add_argument(
        "--port",
        type=whole(0, 65535),
        default=0,
        help="the inspector's port (default 0: a free one)",
    )
    destination.add_dialect(parser)
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead")


def run(options: argparse.Namespace) -> int:
    """Run the service against an inspector, and compare what arrived with what was logged."""
    destination.ensure_enabled()
    output = Output(options.json)
    dialect = _dialect(options.dialect)
    with started(options.port) as inspector:
        witness, counts = _log_all(inspector.url, dialect)
        outcome = _compare(witness, counts, inspector)
        with until_interrupted():
            _show(output, outcome, dialect)
            output.give(_as_json(outcome, dialect, inspector.url))
            output.say(_WHERE[options.keep].format(inspector.url))
            if options.keep:
                wait_for_ever()
    return OK if outcome.good else FAILED


def _dialect(name: str) -> Dialect:
    try:
        return find_dialect(name)
    except ImportError as error:
        raise CommandError(f"--dialect {name}: {error}") from None


class Witness(logging.Filter):
    """
    Note what is logged, independently of the handler.

    Gives each event a uuid, by which it is found again when it has arrived.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.events: dict[str, str] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass."""
        self.calls += 1
        if is_event(record):
            key = record.__dict__["uuid"] = str(uuid.uuid4())
            self.events[key] = getattr(record, "event", None) or record.getMessage()
        return True


def configuration(url: str, dialect: str, witness: Witness) -> dict[str, Any]:
    """Return the dictConfig of a service; only the witness in it is the demo's own."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"witness": {"()": lambda: witness}},
        "handlers": {
            "analytics": {
                "class": "posthog_logging.PostHogHandler",
                "api_key": KEY,
                "host": url,
                "dialect": dialect,
                "properties": {"service": "films"},
                "proxies": destination.DIRECT,
            }
        },
        "loggers": {
            log.name: {
                "level": "INFO",
                "handlers": ["analytics"],
                "filters": ["witness"],
                "propagate": False,
            }
        },
    }


def _log_all(url: str, dialect: Dialect) -> tuple[Witness, Mapping[str, int]]:
    """Run the service; return what it logged, and the handler's counts."""
    witness = Witness()
    logging.config.dictConfig(configuration(url, dialect.name, witness))
    handler = next(one for one in log.handlers if isinstance(one, PostHogHandler))
    try:
        _serve_viewers()
    finally:
        handler.close()
        log.removeHandler(handler)
        log.removeFilter(witness)
    return witness, handler.counts


# The service: of this library it uses `extras` and `context` only.


class Viewer(NamedTuple):
    """Somebody who watches films."""

    id: str
    name: str
    plan: str
    films: Sequence[str]


_VIEWERS = (
    Viewer("user-1", "Ada Lovelace", "gold", ("Metropolis", "Modern Times")),
    Viewer("user-2", "Alan Turing", "silver", ("The Third Man",)),
    Viewer("user-3", "Grace Hopper", "gold", ("Amélie", "八月の狂詩曲")),
    Viewer("user-4", "Kateryna Yushchenko", "free", ("Земля", "Playtime 🎬")),
)


def _serve_viewers() -> None:
    log.info("film service starts with %d threads", _THREADS)
    with ThreadPoolExecutor(_THREADS, "films") as threads:
        list(threads.map(_serve, _VIEWERS))
    _log_odd_values()
    log.warning("cache at %d %%", 93, extra={"cache": "films"})  # carries no event: a plain line
    log.info("service stopped", extra={"event": "service stopped", "films": len(_VIEWERS)})


def _serve(viewer: Viewer) -> None:
    """Serve one request; every event logged inside the block is this viewer's."""
    log.info("landing page", extra=extras.page(f"visitor-of-{viewer.id}", "Landing"))
    with context.identity(viewer.id, plan=viewer.plan):
        _sign_in(viewer)
        for film in viewer.films:
            _play(film)
        _pay(viewer)
        log.info("left", extra=extras.screen(name="Goodbye"))


def _sign_in(viewer: Viewer) -> None:
    log.info("%s signs in", viewer.name)
    visitor = f"visitor-of-{viewer.id}"  # becomes one person with the viewer
    named = extras.identify(viewer.id, {"name": viewer.name}, anonymous_id=visitor)
    log.info("signed in", extra=named)
    log.info("plan", extra=extras.set(viewer.id, {"plan": viewer.plan}))
    log.info("club", extra=extras.group("club", f"{viewer.plan} club", {"plan": viewer.plan}))


def _play(film: str) -> None:
    log.debug("looking for %s", film)  # below the logger's level
    log.info("streaming %s", film)
    log.info("movie played", extra={"event": "movie played", "film": film, "seconds": 42.5})


def _pay(viewer: Viewer) -> None:
    try:
        price = {"gold": Decimal("9.99"), "silver": Decimal("4.99")}[viewer.plan]
    except KeyError:
        log.exception("payment failed", extra={"event": "payment failed", "amount": None})
    else:
        log.info("paid", extra={"event": "paid", "amount": price, "currency": "EUR"})


def _log_odd_values() -> None:
    """Log values that JSON lacks; each arrives in the nearest form that JSON has."""
    loop: list[Any] = ["round and round"]
    loop.append(loop)
    odd: dict[str, Any] = {
        "when": dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC),
        "price": Decimal("12.50"),
        "ticket": uuid.UUID(int=7),
        "nothing": float("nan"),
        "tags": {"noir", "silent"},
        "poster": b"\x89PNG",
        "loop": loop,
        "emoji": "🍿",
        "half": "\ud83c",  # a lone surrogate: half of an emoji
    }
    for name, value in odd.items():
        log.info("odd value", extra={"distinct_id": "curator", name: value})


# The comparison.


@dataclass(frozen=True)
class Outcome:
    """What was logged and what arrived; ``problems`` has a line for each difference."""

    calls: int
    logged: int
    events: Sequence[Event]
    handler: Mapping[str, int]
    inspector: Mapping[str, Any]
    problems: Sequence[str]

    @property
    def good(self) -> bool:
        """Whether everything that was logged arrived, once, as it was logged."""
        return not self.problems


def _compare(witness: Witness, counts: Mapping[str, int], inspector: Inspector) -> Outcome:
    events = inspector.events
    problems = [
        *_missing(witness.events, events),
        *(f"refused: {one.event!r}, {one.reason}" for one in inspector.bad),
        *(f"arrived twice: {one.event!r}" for one in events if one.duplicate),
        *_unbalanced(counts, len(witness.events)),
    ]
    return Outcome(
        witness.calls, len(witness.events), events, counts, inspector.counts(), problems
    )


def _missing(logged: Mapping[str, str], events: Sequence[Event]) -> list[str]:
    """Return the events that are missing, renamed or unknown; protocols rename ``$`` names."""
    arrived = {one.uuid: one.message.event for one in events}
    missing = [f"missing: {name!r}" for key, name in logged.items() if key not in arrived]
    renamed = [
        f"logged as {name!r}, arrived as {arrived[key]!r}"
        for key, name in logged.items()
        if not name.startswith("$") and arrived.get(key, name) != name
    ]
    strange = [f"never logged: {name!r}" for key, name in arrived.items() if key not in logged]
    return [*missing, *renamed, *strange]


def _unbalanced(counts: Mapping[str, int], logged: int) -> list[str]:
    """Return what is wrong with the handler's counts."""
    lost = {reason: n for reason, n in counts.items() if reason not in NOT_LOSSES and n}
    accounted_for = counts["delivered"] + counts["waiting"] + sum(lost.values())
    sums = {
        "accepted is not what was logged": counts["accepted"] != logged,
        "events still wait": counts["waiting"] != 0,
        "the counts do not add up": counts["accepted"] != accounted_for,
    }
    return [
        *(f"lost: {reason} {n}" for reason, n in lost.items()),
        *(text for text, is_wrong in sums.items() if is_wrong),
    ]


def _show(output: Output, outcome: Outcome, dialect: Dialect) -> None:
    output.say(
        f"A film service logged from {_THREADS} threads; dictConfig gave its logger a",
        f"PostHogHandler, which speaks {dialect.name!r} to an inspector on this machine.",
        f"Of {outcome.calls} log calls {outcome.logged} were events: they carry an event or a",
        "distinct_id in their extra. The handler leaves all others alone.",
        "",
    )
    shown = [_without_shared(one) for one in outcome.events]
    output.table(rows.COLUMNS, map(rows.cells, shown), list(map(rows.meaning, shown)))
    output.say("")
    output.counts("handler", outcome.handler)
    output.counts("inspector", outcome.inspector)
    output.say("", *outcome.problems)
    colour = "good" if outcome.good else "bad"
    output.say(output.coloured(_VERDICT[outcome.good], colour), "")


_VERDICT: Mapping[bool, str] = {
    True: "Everything that was logged arrived, once, and was good.",
    False: "Not everything that was logged arrived as it should have; see the list above.",
}

_WHERE: Mapping[bool, str] = {
    True: "The inspector stays at {} until Ctrl-C; open that address in a browser.",
    False: "The inspector was at {}; with --keep it stays, so that you can look at its page.",
}


def _without_shared(event: Event) -> dict[str, Any]:
    """Return *event* in the form of the inspector's API, without the shared properties."""
    message = event.message
    properties = {k: v for k, v in message.properties.items() if k not in _SHARED}
    return {
        "event": message.event,
        "distinct_id": message.distinct_id,
        "timestamp": event.timestamp,
        "properties": properties,
        "dialect": event.dialect,
        "reason": event.reason,
    }


def _as_json(outcome: Outcome, dialect: Dialect, url: str) -> dict[str, Any]:
    return {
        "good": outcome.good,
        "problems": outcome.problems,
        "dialect": dialect.name,
        "url": url,
        "calls": outcome.calls,
        "logged": outcome.logged,
        "handler": outcome.handler,
        "inspector": outcome.inspector,
        "events": [one.message._asdict() for one in outcome.events],
    }
