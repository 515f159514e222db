"""
The options that name a server, a key and a protocol, and the handler made of them.

An error of the handler's constructor is wrong usage of the command.
"""

from __future__ import annotations

import argparse
import logging
import re

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..delivery import checks
from ..delivery.options import is_disabled
from ..delivery.own_log import logger
from ..handler import PostHogHandler
from ..wire import DIALECTS
from .command import CommandError, seconds


__all__ = [
    "DIRECT",
    "add_arguments",
    "add_dialect",
    "add_timeout",
    "ensure_enabled",
    "handler_for",
    "losses_left_out",
]

#: Proxies for requests to this machine: none.
DIRECT = {"no_proxy": "127.0.0.1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the server, the key and the protocol."""
    parser.add_argument(
        "--host",
        metavar="URL",
        help="the server's base URL (default POSTHOG_HOST, else the dialect's own)",
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help="the project's key (default POSTHOG_PROJECT_TOKEN, else POSTHOG_API_KEY, which the "
        "list of processes does not show)",
    )
    add_dialect(parser)
    add_timeout(parser)


def add_dialect(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the protocol."""
    parser.add_argument(
        "--dialect",
        choices=DIALECTS,
        default="posthog",
        metavar="NAME",
        help=f"the protocol: {', '.join(DIALECTS)} (default posthog)",
    )


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add the option that limits how long to try."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long to try (default 10)",
    )


def handler_for(options: argparse.Namespace, **more: Any) -> PostHogHandler:
    """Return a handler for the destination in *options*, with *more* of its own options."""
    ensure_enabled()
    try:
        if not checks.api_key(options.api_key):
            raise CommandError(
                "there is no key to send with: set POSTHOG_API_KEY or give --api-key"
            )
        return PostHogHandler(
            options.api_key,
            options.host,
            dialect=options.dialect,
            timeout=options.timeout,
            shutdown_timeout=options.timeout,
            **more,
        )
    except (TypeError, ValueError) as error:
        raise CommandError(str(error)) from None


def ensure_enabled() -> None:
    """Raise `CommandError` if ``POSTHOG_DISABLED`` switches every handler off."""
    if is_disabled():
        raise CommandError("POSTHOG_DISABLED is set, so nothing is sent: unset it first")


@contextmanager
def losses_left_out(*reasons: str) -> Iterator[None]:
    """Hide warnings of losses, for *reasons* or for any reason: the command reports them."""

    def is_shown(record: logging.LogRecord) -> bool:
        loss = _LOSS.match(record.getMessage())
        return loss is None or bool(reasons and loss[1] not in reasons)

    logger.addFilter(is_shown)
    try:
        yield
    finally:
        logger.removeFilter(is_shown)


#: How `posthog_logging.delivery.reasons.sentence` begins.
_LOSS = re.compile(r"\d+ events? (?:was|were) lost \((\w+)\)")
