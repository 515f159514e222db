"""
Which broker a command is about: the options for it, and the address that they amount to.
"""

from __future__ import annotations

import argparse

from ..broker.address import FORMS, Address, address
from ..delivery import checks
from .command import CommandError


__all__ = ["add_arguments", "address_of", "secret_in"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which broker, and which queue in it."""
    parser.add_argument(
        "--broker",
        nargs="?",
        const="",
        metavar="URL",
        help=f"the broker (default POSTHOG_BROKER): {FORMS}",
    )
    parser.add_argument(
        "--broker-password-file", metavar="FILE", help="a file with nothing but its password"
    )
    parser.add_argument(
        "--queue",
        metavar="NAME",
        help="the queue, stream or topic (default the URL's queue=, else analytics)",
    )


def address_of(options: argparse.Namespace) -> Address:
    """Return the broker that *options* name; raises `CommandError` where they name none."""
    try:
        url = checks.broker("--broker", options.broker or None)
        if url is None:
            raise CommandError(f"no broker: give --broker, or set POSTHOG_BROKER: {FORMS}")
        where = address(url, options.queue)
    except ValueError as error:
        raise CommandError(str(error)) from None
    password = secret_in(options.broker_password_file)
    return where.with_password(password) if password else where


def secret_in(path: str | None) -> str:
    """Return what is in a file, without the line end that editors leave; "" for no file."""
    if path is None:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: cannot be read ({type(error).__name__})") from None
