"""
Run the inspector: a local server that judges events as the real servers do, and shows them.

It listens on 127.0.0.1 only, until Ctrl-C or SIGTERM, and prints each event as it arrives.
With COMMAND it runs that program, with an environment that sends its events here, and ends with
the program's exit status; with --keep the inspector goes on after the program has ended.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ..delivery.options import is_disabled
from ..inspector import CAPACITY, SERVERS, Inspector
from .command import OK, PORT, CommandError, until_interrupted, wait_for_ever, whole
from .forwarding import Forwarder
from .output import Output
from .plan import load
from .watching import NOTHING_ARRIVED, watched


__all__ = ["HELP", "KEY", "add_arguments", "run", "started"]

USAGE_LINE = (
    "posthog-logging serve [-h] [--port PORT] [--forward URL] [--play SERVER] [--plan PLAN] "
    "[--capacity N] [--keep] [--json] [-- COMMAND ...]"
)

EPILOG = """\
examples:
  posthog-logging serve
  posthog-logging serve --port 0 -- python my_service.py --fast
  posthog-logging serve --keep -- python my_script.py

exit statuses: 0, or with a COMMAND its own; 2 wrong usage, a port in use
"""

HELP = "run the inspector, a local server that shows what arrives"

#: The inspector accepts any key; this one shows where it comes from.
KEY = "phc_local"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "--port",
        type=whole(0, 65535),
        default=PORT,
        help=f"the port, 0: a free one (default {PORT})",
    )
    parser.add_argument(
        "--forward",
        metavar="URL",
        help="pass accepted requests on, unchanged, to the server at this base URL; the program's "
        "own POSTHOG_API_KEY must then be the real one",
    )
    _add_judgement(parser)
    parser.add_argument(
        "--keep", action="store_true", help="leave the inspector running after COMMAND has ended"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the address and the counts as lines of JSON"
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="COMMAND",
        help="after --: a program to run, with its arguments; what this command prints about it "
        "goes to standard error",
    )


def _add_judgement(parser: argparse.ArgumentParser) -> None:
    """Add the options on how the inspector answers, and what it remembers."""
    parser.add_argument(
        "--play",
        metavar="SERVER",
        choices=list(SERVERS),
        help="answer as another server than PostHog's own, to try the fallback: "
        + "; ".join(f"{one.name} ({one.description})" for one in SERVERS.values()),
    )
    parser.add_argument(
        "--plan",
        metavar="PLAN",
        help="mark events that are not as planned, and list those that never came: a module that "
        "declares events, or an exported plan",
    )
    parser.add_argument(
        "--capacity",
        type=whole(1),
        default=CAPACITY,
        metavar="N",
        help=f"how many events are remembered, good and bad ones each (default {CAPACITY:,})",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until a signal, or until the program in COMMAND has ended."""
    if options.words:
        return _serve_command(options)
    if options.keep:
        raise CommandError("--keep needs a COMMAND; without one the inspector keeps running")
    output = Output(options.json)
    with until_interrupted(), _served(options) as inspector:
        try:
            _introduce(output, inspector.url, options.play)
            with watched(inspector, output):
                wait_for_ever()
        finally:
            _conclude(output, inspector, {})
    return OK


def _conclude(output: Output, inspector: Inspector, more: Mapping[str, Any]) -> None:
    """Print how much arrived, and if nothing did, where to look for the cause."""
    latest = inspector.requests[-1:]  # its mask knows the keys that may be in an event's name
    counts = latest[0].mask.value(inspector.counts()) if latest else inspector.counts()
    output.counts("arrived", counts)
    if counts.get("missing"):
        output.say(f"Planned, and never came: {', '.join(counts['missing'])}")
    if not counts["total"]:
        output.say("", NOTHING_ARRIVED)
    output.give({**more, "counts": counts})


@contextmanager
def _served(options: argparse.Namespace) -> Iterator[Inspector]:
    """Run the inspector, with ``--forward`` also the thread that forwards requests."""
    plan = None if options.plan is None else load(options.plan)
    more = {"play": options.play, "capacity": options.capacity, "plan": plan}
    with ExitStack() as stack:
        if options.forward is not None:
            more["forward"] = stack.enter_context(Forwarder(options.forward))
        yield stack.enter_context(started(options.port, **more))


def started(number: int, **more: Any) -> Inspector:
    """Return an inspector that listens; raises `CommandError` if the port is taken."""
    try:
        return Inspector(number, **more)
    except OSError as error:
        raise CommandError(
            f"port {number} cannot be used ({error.strerror or error}): give another with --port, "
            "or --port 0 for a free one"
        ) from None


def _serve_command(options: argparse.Namespace) -> int:
    """Serve one program; return its exit status."""
    output = Output(options.json, sys.stderr)
    with _served(options) as inspector:
        output.say(f"The inspector listens on {inspector.url}")
        if is_disabled():
            output.say("POSTHOG_DISABLED is set, so the program sends nothing: unset it first.")
        key = os.environ.get("POSTHOG_API_KEY", KEY) if options.forward else KEY
        with watched(inspector, output):
            status = _run(options.words, _environment(inspector.url, key))
            if options.keep:
                _keep(output, inspector.url, status)
        _conclude(output, inspector, {"url": inspector.url, "status": status})
    return status


def _keep(output: Output, url: str, status: int) -> None:
    """Go on serving until Ctrl-C after the program has ended."""
    with until_interrupted():
        output.give({"url": url, "status": status})
        output.say(
            f"The program ended with status {status}; the inspector stays at {url} until Ctrl-C."
        )
        wait_for_ever()


def _run(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program to its end; return its status as a shell does."""
    try:
        process = subprocess.Popen(words, env=environment)
    except OSError as error:
        status = 127 if isinstance(error, FileNotFoundError) else 126
        raise CommandError(
            f"cannot run {words[0]!r}: {error.strerror}. Give a program and its arguments after "
            "--, as in posthog-logging serve -- python service.py",
            status,
        ) from None
    with process, _signals_for(process):
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _signals_for(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ignore Ctrl-C, which the terminal sends to the program too, and pass SIGTERM on."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
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
    """Return an environment that sends a program's events to *url*, past proxies and brokers."""
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))
    ours = {**_settings(url, key), "NO_PROXY": direct, "no_proxy": direct}
    kept = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return {**kept, **ours}


# A broker would take the events, and a token would win over the key.
_ELSEWHERE = frozenset({"POSTHOG_BROKER", "POSTHOG_PROJECT_TOKEN"})


def _settings(url: str, key: str) -> dict[str, str]:
    return {"POSTHOG_HOST": url, "POSTHOG_API_KEY": key}


def _introduce(output: Output, url: str, play: str | None) -> None:
    output.give({"url": url, "environment": _settings(url, KEY)})
    output.say(
        f"The inspector listens on {url}" + (f" and plays {play!r}" if play else ""),
        "Open that address in a browser; Ctrl-C ends the inspector.",
        "To send a program's events here, set these in its environment:",
        "",
        f"export POSTHOG_HOST={url}",
        f"export POSTHOG_API_KEY={KEY}",
        "",
    )
