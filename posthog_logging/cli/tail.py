"""
Follow what an inspector receives, one event a line.

Prints the last events first, then each as it arrives, until Ctrl-C. A refused event shows the
reason, an exception its type and message, a log its level.
"""

from __future__ import annotations

import argparse
import os
import time

from collections.abc import Iterator, Mapping
from typing import Any

import requests

from . import destination, rows
from .command import FAILED, OK, PORT, CommandError, until_interrupted, whole
from .output import Output


__all__ = ["HELP", "add_arguments", "run"]

HELP = "follow what an inspector receives"

_EVERY = 0.25
_TIMEOUT = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "--url",
        default=os.environ.get("POSTHOG_HOST") or f"http://127.0.0.1:{PORT}",
        help=f"the inspector's address (default POSTHOG_HOST, else http://127.0.0.1:{PORT})",
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
    url = f"{options.url.rstrip('/')}/api/events"
    # Past events are asked for once; `since=0` would leave out those that come later.
    answer = _get(url, {**query, "limit": str(options.lines)})
    yield from answer["events"]
    last = answer["last"] or _get(url, {"limit": "1"})["last"]
    while not options.no_follow:
        answer = _get(url, {**query, "since": str(last)})
        yield from answer["events"]
        last = answer["last"]
        time.sleep(_EVERY)


def _get(url: str, query: Mapping[str, str]) -> Any:
    base = url.removesuffix("/api/events")
    try:
        answer = requests.get(
            url, params=query, timeout=_TIMEOUT, proxies=destination.DIRECT, allow_redirects=False
        )
        found = answer.json()
    except requests.JSONDecodeError:
        found = None
    except requests.RequestException as error:
        raise CommandError(
            f"there is no inspector at {base} ({type(error).__name__}). Start one in another "
            "terminal with `posthog-logging serve`, or give its address with --url",
            FAILED,
        ) from None
    if not isinstance(found, dict) or "events" not in found:
        raise CommandError(
            f"{base} answers, but it is not an inspector. Give the inspector's address with "
            "--url; the default is POSTHOG_HOST where that is set",
            FAILED,
        )
    return found
