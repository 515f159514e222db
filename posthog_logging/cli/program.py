"""
A program of the user's, loaded so that its logging can be looked at; and a call that it makes.

No event that is logged on the way is sent: not while it is loaded, and not at exit.
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


# Left open until the process ends: handlers deliver at exit.
_kept_here = contextlib.ExitStack()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a program, and a log call in it."""
    parser.add_argument(
        "--app",
        metavar="MODULE[:CALLABLE]",
        help="a program: a module to import, and perhaps a callable in it that sets logging up",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="a file in JSON or YAML for logging.config.dictConfig"
    )
    parser.add_argument(
        "--explain", metavar="LOGGER", help="say what becomes of a call on this logger, and why"
    )
    parser.add_argument(
        "--message", default="a log call", metavar="TEXT", help="the message of that call"
    )
    parser.add_argument(
        "--level", default="INFO", metavar="LEVEL", help="the level of that call (default INFO)"
    )
    parser.add_argument("--extra", metavar="JSON", help="the extra of that call, an object")


def call(options: argparse.Namespace) -> Call | None:
    """Return the log call that *options* ask about, if they do."""
    if options.explain is None:
        return None
    return Call(options.explain, options.message, _level(options.level), _extra(options.extra))


def load(config: str | None, app: str | None) -> None:
    """Set logging up as a program does: by a file, by its code, or by both in this order."""
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
    """Enable again what dictConfig disables only as this command, not the program, made it."""
    known = logging.getLogger().manager.loggerDict.values()
    own = [one for one in known if isinstance(one, logging.Logger) and not one.disabled]
    yield
    for one in own:
        one.disabled = False


def _run(step: Callable[[str], None], name: str) -> None:
    """Run what is not ours; what it prints must not be taken for what we print."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            step(name)
    except (Exception, SystemExit) as error:
        cause = f" from {error.__cause__}" if error.__cause__ else ""  # dictConfig says there why
        raise CommandError(f"{name}: {type(error).__name__}: {error}{cause}") from None


def _configure(name: str) -> None:
    text = Path(name).read_text(encoding="utf-8")
    if name.endswith((".yaml", ".yml")):
        yaml: Any = import_module("yaml")
        logging.config.dictConfig(yaml.safe_load(text))
    else:
        logging.config.dictConfig(json.loads(text))


def _import(name: str) -> None:
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split(".") if path else ():
        found = getattr(found, part)
    if path:
        found()


def _level(text: str) -> int:
    try:
        found = checks.level("--level", int(text) if text.isdecimal() else text.upper())
    except ValueError as error:
        raise CommandError(str(error)) from None
    return found or logging.NOTSET


def _extra(text: str | None) -> Mapping[str, Any] | None:
    try:
        found = None if text is None else json.loads(text)
    except ValueError:
        found = text
    if found is not None and not isinstance(found, dict):
        raise CommandError('--extra: an object in JSON, such as {"distinct_id": "user-1"}')
    return found
