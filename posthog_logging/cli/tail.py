"""
Follow what an inspector receives, one event a line.

Prints the last events first, then each as it arrives, until Ctrl-C. A refused event shows the
reason, an exception its type and message, a log its level.
"""

from __future__ import annotations

import argparse
import json
import time

from collections.abc import Iterator, Mapping
from typing import Any

import requests

from ..delivery import checks
from . import destination, rows
from .command import FAILED, OK, PORT, CommandError, until_interrupted, whole
from .output import Output


__all__ = ["HELP", "add_arguments", "run"]

HELP = "follow what an inspector receives"

_EVERY = 0.25
_TIMEOUT = 10.0
_DEFAULT = f"http://127.0.0.1:{PORT}"
_FIELDS = {
    "event": str,
    "distinct_id": str,
    "timestamp": str,
    "properties": dict,
    "dialect": str,
    "reason": str,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "--url",
        help=f"the inspector's address (default POSTHOG_HOST, else {_DEFAULT})",
    )
    parser.add_argument(
        "--lines", type=whole(0), default=10, metavar="N", help="how many past events (default 10)"
    )
    parser.add_argument("--event", metavar="NAME", help="only events of this name")
    parser.add_argument("--distinct-id", metavar="ID", help="only events of this person")
    parser.add_argument("--bad", action="store_true", help="only events that were refused")
    parser.add_argument("--no-follow", action="store_true", help="end after the past events")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Print events as they arrive."""
    output = Output(options.json)
    with until_interrupted():
        for event in _events(options):
            output.give(event)
            output.line(rows.cells(event), rows.meaning(event))
    return OK


def _events(options: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    wanted = {"event": options.event, "distinct_id": options.distinct_id}
    query = {name: value for name, value in wanted.items() if value is not None}
    query |= {"good": "0"} if options.bad else {}
    base = _base(options.url)
    # Past events are asked for once; `since=0` would leave out those that come later.
    answer = _get(base, {**query, "limit": str(options.lines)})
    yield from answer["events"]
    last = answer["last"] or _get(base, {"limit": "1"})["last"]
    while not options.no_follow:
        answer = _get(base, {**query, "since": str(last)})
        yield from answer["events"]
        last = answer["last"]
        time.sleep(_EVERY)


def _base(given: str | None) -> str:
    """Return the inspector's address; a wrong one is wrong usage."""
    try:
        return checks.host(given, _DEFAULT, "--url")
    except ValueError as error:
        raise CommandError(str(error)) from None


def _get(base: str, query: Mapping[str, str]) -> Any:
    try:
        answer = requests.get(
            f"{base}/api/events",
            params=query,
            timeout=_TIMEOUT,
            proxies=destination.DIRECT,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise CommandError(
            f"there is no inspector at {base} ({type(error).__name__}). Start one in another "
            "terminal with `posthog-logging serve`, or give its address with --url",
            FAILED,
        ) from None
    found = _answer_in(answer.content)
    if found is None:
        raise CommandError(
            f"{base} answers, but it is not an inspector. Give the inspector's address with "
            "--url; the default is POSTHOG_HOST where that is set",
            FAILED,
        )
    return found


def _answer_in(body: bytes) -> Any:
    """Return the answer in *body*, None if it is not an inspector's."""
    try:
        found = json.loads(body)
        events, last = found["events"], found["last"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return None
    fits = isinstance(events, list) and all(map(_is_event, events)) and type(last) is int
    return found if fits else None


def _is_event(one: Any) -> bool:
    return isinstance(one, dict) and all(
        isinstance(one.get(name), kind) for name, kind in _FIELDS.items()
    )
