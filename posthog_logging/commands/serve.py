"""
Run the inspector: a local server that judges events as the real ones do, and shows them.

It listens on 127.0.0.1 only, until Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse

from ..inspector import Inspector
from . import OK, PORT, CommandError, port, until_interrupted, wait_for_ever
from .output import Output


__all__ = ["HELP", "KEY", "add_arguments", "run", "started"]

HELP = "run the inspector, a local server that shows what arrives"

#: Any key will do for the inspector; this one says where it is from.
KEY = "phc_local"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "--port", type=port, default=PORT, help=f"the port, 0 for a free one (default {PORT})"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the address, and the counts, as lines of JSON"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until told to end."""
    output = Output(options.json)
    with until_interrupted(), started(options.port) as inspector:
        try:
            _introduce(output, inspector.url)
            wait_for_ever()
        finally:
            output.counts("arrived", inspector.counts())
            output.give({"counts": inspector.counts()})
    return OK


def started(number: int) -> Inspector:
    """Return an inspector that listens; a port that cannot be had is wrong usage."""
    try:
        return Inspector(number)
    except OSError as error:
        hint = "take another with --port, or a free one with --port 0"
        raise CommandError(f"{error.strerror or error}; {hint}") from None


def _introduce(output: Output, url: str) -> None:
    output.give({"url": url, "environment": {"POSTHOG_HOST": url, "POSTHOG_API_KEY": KEY}})
    output.say(
        f"The inspector listens on {url}",
        "Open that address in a browser; Ctrl-C ends it.",
        "Programs send their events here with these in their environment:",
        "",
        f"export POSTHOG_HOST={url}",
        f"export POSTHOG_API_KEY={KEY}",
        "",
    )
