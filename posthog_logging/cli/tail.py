"""
Follow what an inspector receives, good and bad, one event a line.

Prints the last events first, then each as it arrives, until Ctrl-C. A bad one has its reason.
"""

from __future__ import annotations

import argparse
import os
import time

from collections.abc import Iterator, Mapping
from typing import Any

import requests

from . import destination
from .command import FAILED, OK, PORT, CommandError, until_interrupted
from .output import Output, brief, clock, harmless


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
        "--lines", type=_count, default=10, metavar="N", help="how many past events (default 10)"
    )
    parser.add_argument("--event", metavar="NAME", help="only events of this name")
    parser.add_argument("--distinct-id", metavar="ID", help="only events of this person")
    parser.add_argument("--bad", action="store_true", help="only events that were refused")
    parser.add_argument("--no-follow", action="store_true", help="end after the past events")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Print events as they come."""
    output = Output(options.json)
    with until_interrupted():
        for event in _events(options):
            output.give(event)
            output.say(_line(event))
    return OK


def _events(options: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    wanted = {"event": options.event, "distinct_id": options.distinct_id}
    query = {name: value for name, value in wanted.items() if value is not None}
    query |= {"good": "0"} if options.bad else {}
    url = f"{options.url.rstrip('/')}/api/events"
    # Past events are asked for once; a number that is 0 would mean none of those to come.
    answer = _get(url, {**query, "limit": str(options.lines)})
    yield from answer["events"]
    last = answer["last"] or _get(url, {"limit": "1"})["last"]
    while not options.no_follow:
        answer = _get(url, {**query, "since": str(last)})
        yield from answer["events"]
        last = answer["last"]
        time.sleep(_EVERY)


def _get(url: str, query: Mapping[str, str]) -> Any:
    try:
        answer = requests.get(
            url, params=query, timeout=_TIMEOUT, proxies=destination.DIRECT, allow_redirects=False
        )
        said = answer.json()
    except requests.RequestException as error:
        raise CommandError(
            f"no inspector at {url.removesuffix('/api/events')} ({type(error).__name__}); "
            "posthog-logging serve starts one",
            FAILED,
        ) from None
    if not isinstance(said, dict) or "events" not in said:
        raise CommandError(f"what answers at {url} is no inspector", FAILED)
    return said


def _line(event: Mapping[str, Any]) -> str:
    mark = "BAD " if event["reason"] else ""
    why = f"  ({event['reason']})" if event["reason"] else ""
    who = event["distinct_id"]
    text = f"{mark}{event['event']}  {who}  {brief(event['properties'], 8)}{why}"
    return harmless(f"{clock(event['timestamp'])}  {text}")


def _count(text: str) -> int:
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"a whole number, not {text!r}")
