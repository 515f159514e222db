"""
The command line: which commands there are, how they are told apart, and how they end.

Commands live beside this file, one module each, imported when they are asked for; what one
prints and returns is its own.
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

from ..delivery.ledger import logger
from ..version import LIBRARY, VERSION
from .command import FAILED, OK, USAGE, CommandError
from .output import harmless


__all__ = ["main"]

#: Each command and the module here that is it, in the order of the help.
_COMMANDS = {
    "demo": "demo",
    "serve": "serve",
    "send": "send",
    "tail": "tail",
    "import": "importing",
    "doctor": "doctor",
    "spool": "spool",
    "relay": "relay",
}

_INTERRUPTED = 130
_NO_READER = 141

_EPILOG = f"""\
exit statuses:
  {OK}    done: everything was delivered, and nothing that arrived was bad
  {FAILED}    something was lost, refused or did not arrive; it says what
  {USAGE}    wrong usage, an unknown option, a missing key, a port in use
  {_INTERRUPTED}  interrupted by Ctrl-C (128 + SIGINT)
  {_NO_READER}  whoever read the output went away (128 + SIGPIPE)
  serve -- COMMAND ends with the status of COMMAND; 127: there is no such program

environment:
  POSTHOG_API_KEY  the project's key, where --api-key is not given
  POSTHOG_HOST     the base URL, where --host is not given
  POSTHOG_BROKER   the broker, where --broker is not given
  NO_COLOR         any value: no colours
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        options = _parse(given)
    except SystemExit as end:  # argparse has printed the help or what is wrong
        return end.code if isinstance(end.code, int) else USAGE
    try:
        with _told(options.command):
            status: int = options.run(options)
            sys.stdout.flush()
            return status
    except CommandError as error:
        print(f"{LIBRARY} {options.command}: {harmless(str(error))}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output at its end, and would complain once more:
        # https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NO_READER


def _parse(argv: list[str]) -> argparse.Namespace:
    """
    Return the options, with ``words`` as all that is none.

    argparse gives positional arguments up where options stand between them
    (https://bugs.python.org/issue14191), so the words left over are gathered here; after a
    ``--`` everything is a word.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    parser = _parser()
    options, rest = parser.parse_known_args(argv[:end])
    words = [*getattr(options, "words", ()), *rest, *argv[end + 1 :]]
    unknown = [word for word in rest if word.startswith("-") and len(word) > 1]
    if "words" not in options:
        unknown = words
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    options.words = words
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=LIBRARY,
        description="Product analytics events from log statements: try, watch and send them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{LIBRARY} {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        _add_command(commands, name, import_module(f".{module}", __package__))
    return parser


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, module: ModuleType
) -> None:
    """Add one command; its help is its module's docstring, its epilog the statuses."""
    parser = commands.add_parser(
        name,
        help=module.HELP,
        description=(module.__doc__ or "").strip(),
        usage=getattr(module, "USAGE_LINE", None),
        epilog=getattr(module, "EPILOG", "Exit statuses: see posthog-logging --help."),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.set_defaults(run=module.run, parser=parser)


@contextmanager
def _told(command: str) -> Iterator[None]:
    """Show on standard error what the library tells on its logger."""
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter(f"{LIBRARY} {command}: %(message)s"))
    logger.addHandler(shown)
    try:
        yield
    finally:
        logger.removeHandler(shown)
