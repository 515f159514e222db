"""
The command line: the table of commands, how arguments are read, and the exit statuses.

Each command is a module beside this one. It has `HELP`, its line in the list of commands;
`add_arguments`; and `run`, which returns an exit status. Its docstring is its help text. It may
have a `USAGE_LINE`, an `EPILOG` with exit statuses of its own, and a positional ``words``, which
also takes everything after ``--``. ``posthog-logging --help`` imports every command, so a command
imports optional packages, and what not every system has, inside functions.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from ..delivery.exits import opened
from ..delivery.own_log import logger
from ..version import LIBRARY, VERSION
from .command import FAILED, OK, USAGE, CommandError
from .output import harmless


__all__ = ["main"]

#: The module of each command, in the order of the help.
_COMMANDS = {
    "demo": "demo",
    "serve": "serve",
    "send": "send",
    "tail": "tail",
    "import": "importing",
    "doctor": "doctor",
    "spool": "spool",
    "relay": "relay",
    "plan": "plan",
    "docs": "docs",
}

_INTERRUPTED = 130
_HURRY = 1.0  # seconds that handlers have after that
_NO_READER = 141

_EPILOG = f"""\
exit statuses:
  {OK}    everything was delivered, and nothing that arrived was bad
  {FAILED}    an event was lost or refused, or did not arrive; the output says which
  {USAGE}    wrong usage: an unknown option, a missing key, a port in use
  {_INTERRUPTED}  Ctrl-C (128 + SIGINT)
  {_NO_READER}  the reader of the output went away (128 + SIGPIPE)
  serve -- COMMAND ends with the status of COMMAND, or 127 if there is no such program

environment:
  POSTHOG_PROJECT_TOKEN, else POSTHOG_API_KEY
                the project's key, unless --api-key is given
  POSTHOG_HOST  the base URL, unless --host is given
  POSTHOG_BROKER
                the broker, unless --broker is given
  NO_COLOR      set to any value: no colours
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        options = _parse(given)
    except SystemExit as end:  # argparse has printed the help, or the error
        return end.code if isinstance(end.code, int) else USAGE
    try:
        with _warnings_shown(options.command):
            status: int = options.run(options)
            sys.stdout.flush()
            return status
    except CommandError as error:
        print(f"{LIBRARY} {options.command}: {harmless(str(error))}", file=sys.stderr)
        for line in error.choices:
            print(f"  {harmless(line)}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        for pipeline in opened():  # who presses Ctrl-C does not want to wait for a server
            pipeline.shutdown_timeout = min(pipeline.shutdown_timeout, _HURRY)
        return _INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output when it exits, and would fail again:
        # https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NO_READER


def _parse(argv: list[str]) -> argparse.Namespace:
    """
    Return the command's options; ``words`` are its positional arguments.

    Both may be mixed. Everything after a ``--`` is positional: argparse would read the options
    of the program in ``serve -- COMMAND`` as its own.
    """
    command = _commands().parse_args(argv[:1]).command
    given = argv[1:]
    end = given.index("--") if "--" in given else len(given)
    parser = _command(command)
    options = parser.parse_intermixed_args(given[:end])
    more = given[end + 1 :]
    if more and "words" not in options:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more:
        options.words += more
    options.command = command
    return options


def _commands() -> argparse.ArgumentParser:
    """Return the parser of the first argument: a command, ``--help`` or ``--version``."""
    parser = argparse.ArgumentParser(
        prog=LIBRARY,
        description="Send product analytics events from log calls: try it, watch it, repair it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{LIBRARY} {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        commands.add_parser(name, help=_module(name).HELP, add_help=False)
    return parser


def _command(name: str) -> argparse.ArgumentParser:
    """Return the parser of one command."""
    module = _module(name)
    parser = argparse.ArgumentParser(
        prog=f"{LIBRARY} {name}",
        description=(module.__doc__ or "").strip(),
        usage=getattr(module, "USAGE_LINE", None),
        epilog=getattr(module, "EPILOG", "Exit statuses: see posthog-logging --help."),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.set_defaults(run=module.run, parser=parser)
    return parser


def _module(name: str) -> ModuleType:
    return import_module(f".{_COMMANDS[name]}", __package__)


@contextmanager
def _warnings_shown(command: str) -> Iterator[None]:
    """Show the library's own warnings on standard error."""
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter(f"{LIBRARY} {command}: %(message)s"))
    logger.addHandler(shown)
    try:
        yield
    finally:
        logger.removeHandler(shown)
