"""
Look into a spool, or deliver what waits there.

``show`` changes nothing. ``drain`` takes over the files whose writers are gone, each to where it
was meant to go, and leaves the others to their programs.
"""

from __future__ import annotations

import argparse
import os

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import destination
from .command import FAILED, OK, CommandError
from .output import Output, clock


if TYPE_CHECKING:
    from ..delivery.journal import SegmentInfo

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show, or deliver, what waits in a spool"

USAGE_LINE = "posthog-logging spool [options] {show,drain} FOLDER"

EPILOG = "exit statuses: 0 done, 1 drain left or lost something, 2 wrong usage"

_COLUMNS = ("oldest (UTC)", "events", "bytes", "written by", "dialect", "host", "file")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="{show,drain} FOLDER",
        help="what to do, and the spool's folder",
    )
    parser.add_argument(
        "--api-key", metavar="KEY", help="for drain: the project's key (default POSTHOG_API_KEY)"
    )
    destination.add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file")


def run(options: argparse.Namespace) -> int:
    """Show or drain."""
    if len(options.words) != 2 or options.words[0] not in _VERBS:
        raise CommandError("what and where? Give show or drain, and a folder")
    verb, folder = options.words
    if not os.path.isdir(folder):
        raise CommandError(f"{folder}: no such folder")
    return _VERBS[verb](options, folder)


def _show(options: argparse.Namespace, folder: str) -> int:
    output = Output(options.json)
    segments = _segments(folder)
    for one in segments:
        output.give({**one._asdict(), "path": str(one.path)})
    output.table(_COLUMNS, [_row(one) for one in segments])
    output.say(f"{sum(one.events for one in segments)} events wait.")
    return OK


def _drain(options: argparse.Namespace, folder: str) -> int:
    """Deliver by destination: a handler takes over only what was meant for its own."""
    output = Output(options.json)
    free = [one for one in _segments(folder) if not one.in_use and one.events]
    meant_for = sorted({(one.dialect, one.host) for one in free})
    done = [_deliver(options, output, folder, *one) for one in meant_for]
    if not done:
        output.say("Nothing waits that has no writer.")
    return OK if all(done) else FAILED


def _deliver(
    options: argparse.Namespace, output: Output, folder: str, dialect: str, host: str
) -> bool:
    options.dialect, options.host = dialect, host
    handler = destination.handler_for(options, spool=folder)
    try:
        delivered = handler.flush(options.timeout)
    finally:
        handler.close()
    counts = handler.counts
    output.counts(f"{dialect} to {host}:", counts)
    output.give({"dialect": dialect, "host": host, "counts": counts})
    return delivered and counts["delivered"] == counts["accepted"]


def _segments(folder: str) -> Sequence[SegmentInfo]:
    try:
        from ..delivery.journal import segments_in
    except ImportError:  # there is no flock on Windows
        raise CommandError("there are no spools on this system") from None
    return segments_in(folder)


def _row(one: SegmentInfo) -> list[str]:
    writer = f"{one.pid}" if one.in_use else f"{one.pid} (gone)"
    oldest = f"{one.oldest[:10]} {clock(one.oldest)}" if one.oldest else ""
    return [oldest, str(one.events), str(one.size), writer, one.dialect, one.host, one.path.name]


_VERBS = {"show": _show, "drain": _drain}
