"""
Run the inspector: a local server that judges events as the real ones do, and shows them.

It listens on 127.0.0.1 only, until Ctrl-C or SIGTERM. With a COMMAND it runs that, with the
environment set so that its events come here, and ends with it and with its status.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import threading

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..inspector import CAPACITY, SERVERS, Inspector
from .command import OK, PORT, CommandError, port, until_interrupted, wait_for_ever
from .forwarding import Forwarder
from .output import Output


__all__ = ["HELP", "KEY", "add_arguments", "run", "started"]

USAGE_LINE = (
    "posthog-logging serve [-h] [--port PORT] [--forward URL] [--play SERVER] [--capacity N] "
    "[--json] [-- COMMAND ...]"
)

EPILOG = """\
examples:
  posthog-logging serve
  posthog-logging serve --port 0 -- python my_service.py --fast

exit statuses: 0, or with a COMMAND its own; 2 wrong usage, a port in use
"""

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

    parser.add_argument(
        "--forward",
        metavar="URL",
        help="pass what is accepted on to the server at this base URL, as it came; its answers "
        "are told where they are no 2xx. The real key must then be the program's own",
    )
    parser.add_argument(
        "--play",
        metavar="SERVER",
        choices=list(SERVERS),
        help="answer as another server than PostHog's own, to try the fallback: "
        + "; ".join(f"{one.name} ({one.description})" for one in SERVERS.values()),
    )
    parser.add_argument(
        "--capacity",
        type=_capacity,
        default=CAPACITY,
        metavar="N",
        help=f"how many events are remembered, good and bad ones each (default {CAPACITY:,})",
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="COMMAND",
        help="after --: a program to run, with its arguments; what is said of it goes to "
        "standard error",
    )


def _capacity(text: str) -> int:
    if re.fullmatch("[1-9][0-9]{0,7}", text):
        return int(text)
    raise argparse.ArgumentTypeError(f"a number from 1 to 99999999, not {text!r}")


def run(options: argparse.Namespace) -> int:
    """Serve until told to end, or for as long as a program runs."""
    if options.words:
        return _serve_command(options)
    output = Output(options.json)
    with until_interrupted(), _served(options) as inspector:
        try:
            _introduce(output, inspector.url, options.play)
            wait_for_ever()
        finally:
            output.counts("arrived", inspector.counts())
            output.give({"counts": inspector.counts()})
    return OK


@contextmanager
def _served(options: argparse.Namespace) -> Iterator[Inspector]:
    """Run the inspector, and what passes on where that is wanted."""
    more = {"play": options.play, "capacity": options.capacity}
    if options.forward is None:
        with started(options.port, **more) as inspector:
            yield inspector
        return
    with (
        Forwarder(options.forward) as forward,
        started(options.port, forward=forward, **more) as inspector,
    ):
        yield inspector


def started(number: int, **more: Any) -> Inspector:
    """Return an inspector that listens; a port that cannot be had is wrong usage."""
    try:
        return Inspector(number, **more)
    except OSError as error:
        hint = "take another with --port, or a free one with --port 0"
        raise CommandError(f"{error.strerror or error}; {hint}") from None


def _serve_command(options: argparse.Namespace) -> int:
    output = Output(options.json, sys.stderr)
    with _served(options) as inspector:
        output.say(f"The inspector listens on {inspector.url}")
        key = os.environ.get("POSTHOG_API_KEY", KEY) if options.forward else KEY
        status = _run(options.words, {**os.environ, **_environment(inspector.url, key)})
        output.counts("arrived", inspector.counts())
        output.give({"url": inspector.url, "status": status, "counts": inspector.counts()})
    return status


def _run(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program to its end; return its status as a shell does."""
    try:
        process = subprocess.Popen(words, env=environment)
    except OSError as error:
        status = 127 if isinstance(error, FileNotFoundError) else 126
        raise CommandError(f"cannot run {words[0]!r}: {error.strerror}", status) from None
    with process, _signals_for(process):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _signals_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave Ctrl-C to the program, which the terminal gives it too, and pass SIGTERM on."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's alone
        return
    before = [
        (signal.SIGINT, signal.signal(signal.SIGINT, lambda number, frame: None)),
        (signal.SIGTERM, signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())),
    ]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _environment(url: str, key: str) -> dict[str, str]:
    """Return what sends a program's events to *url*, past any proxy."""
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))
    return {"POSTHOG_HOST": url, "POSTHOG_API_KEY": key, "NO_PROXY": direct, "no_proxy": direct}


def _introduce(output: Output, url: str, play: str | None) -> None:
    output.give({"url": url, "environment": {"POSTHOG_HOST": url, "POSTHOG_API_KEY": KEY}})
    output.say(
        f"The inspector listens on {url}" + (f" and plays {play!r}" if play else ""),
        "Open that address in a browser; Ctrl-C ends it.",
        "Programs send their events here with these in their environment:",
        "",
        f"export POSTHOG_HOST={url}",
        f"export POSTHOG_API_KEY={KEY}",
        "",
    )
