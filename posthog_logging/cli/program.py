"""
Load a user's program to examine its logging, and read the options that describe a log call in it.

No event that the program logs is sent, neither while it loads nor at exit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging.config
import os
import sys

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from ..delivery import checks
from ..delivery.transport import MemoryTransport, use
from .command import CommandError


__all__ = ["Call", "add_arguments", "call", "load"]


class Call(NamedTuple):
    """A log call: the arguments of `posthog_logging.explain.explain`."""

    logger: str
    message: str
    level: int
    extra: Mapping[str, Any] | None


# Open until the process ends, since handlers deliver at exit.
_kept_here = contextlib.ExitStack()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a program, and a log call in it."""
    parser.add_argument(
        "--app",
        metavar="MODULE[:CALLABLE]",
        help="the program: a module to import, and a callable in it that sets up logging",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="a file in JSON or YAML for logging.config.dictConfig"
    )
    parser.add_argument(
        "--explain",
        metavar="LOGGER",
        help="explain whether a log call on this logger would be an event",
    )
    parser.add_argument(
        "--message", default="a log call", metavar="TEXT", help="the message of that call"
    )
    parser.add_argument(
        "--level", default="INFO", metavar="LEVEL", help="the level of that call (default INFO)"
    )
    parser.add_argument("--extra", metavar="JSON", help="the extra of that call, a JSON object")


def call(options: argparse.Namespace) -> Call | None:
    """Return the log call that *options* describe; None without ``--explain``."""
    if options.explain is None:
        return None
    return Call(options.explain, options.message, _level(options.level), _extra(options.extra))


def load(config: str | None, app: str | None) -> None:
    """Set up logging as the program does: by a file, by its code, or by both in this order."""
    if config is None and app is None:
        return
    _kept_here.enter_context(use(MemoryTransport(0), everywhere=True))
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with _own_loggers_kept():
        if config is not None:
            _run(_configure, config)
        if app is not None:
            _run(_import, app)


@contextlib.contextmanager
def _own_loggers_kept() -> Iterator[None]:
    """Enable again those loggers of this command that dictConfig disables."""
    known = logging.getLogger().manager.loggerDict.values()
    own = [one for one in known if isinstance(one, logging.Logger) and not one.disabled]
    yield
    for one in own:
        one.disabled = False


def _run(step: Callable[[str], None], name: str) -> None:
    """Run the program's code; what it prints goes to standard error, apart from the results."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            step(name)
    except CommandError:
        raise
    except SystemExit as end:
        raise CommandError(
            f"{name} ended while it was imported (SystemExit: {end.code}). Put what it does under "
            "`if __name__ == '__main__':`, or give a function that only sets up logging, as in "
            "--app service:configure"
        ) from None
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{name} cannot be imported: {error}. Run doctor in the program's folder and in its "
            "environment; --app takes a dotted name, not a file"
        ) from None
    except Exception as error:
        cause = error.__cause__  # where dictConfig puts the reason
        why = f", because of {type(cause).__name__}: {cause}" if cause else ""
        raise CommandError(f"{name} raised {type(error).__name__}: {error}{why}") from None


def _configure(name: str) -> None:
    try:
        text = Path(name).read_bytes()
    except FileNotFoundError:
        raise CommandError(
            f"{name}: there is no such file in {os.getcwd()}. Run doctor in the folder in which "
            "the program runs, or give the whole path"
        ) from None
    found = _parsed(name, text)
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise CommandError(f"{name}: must hold one mapping for dictConfig, not a {kind}")
    logging.config.dictConfig(found)


def _parsed(name: str, text: bytes) -> Any:
    kind, parse = "JSON", json.loads
    if name.endswith((".yaml", ".yml")):
        try:
            kind, parse = "YAML", import_module("yaml").safe_load
        except ModuleNotFoundError:
            raise CommandError(f"{name}: needs PyYAML to be read: pip install pyyaml") from None
    try:
        return parse(text)
    except Exception as error:  # YAML's errors are no ValueErrors
        raise CommandError(
            f"{name} is not {kind}: {error}. --config takes JSON, or YAML in a file that ends "
            "with .yaml; for any other form let --app name the function that sets up logging"
        ) from None


def _import(name: str) -> None:
    module, _, path = name.partition(":")
    if "" in module.split("."):  # `import_module` would speak of relative imports
        raise CommandError(
            f"--app: {name!r} does not begin with the dotted name of a module, as "
            "service.logs:configure does"
        )
    found: Any = import_module(module)
    for part in path.split(".") if path else ():
        found = getattr(found, part)
    if path:
        found()


def _level(text: str) -> int:
    try:
        return checks.level("--level", int(text) if text.isdecimal() else text.upper())
    except ValueError as error:
        raise CommandError(str(error)) from None


def _extra(text: str | None) -> Mapping[str, Any] | None:
    try:
        found = None if text is None else json.loads(text)
    except ValueError:
        found = text
    if found is not None and not isinstance(found, dict):
        raise CommandError('--extra: must be a JSON object, such as {"distinct_id": "user-1"}')
    return found
