"""The options that name a broker, and the `Address` made of them."""

from __future__ import annotations

import argparse

from ..broker.address import FORMS, Address, address
from ..delivery import checks
from .command import CommandError


__all__ = ["add_arguments", "address_of", "secret_in"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the broker and a queue in it."""
    parser.add_argument(
        "--broker",
        nargs="?",
        const="",
        metavar="URL",
        help=f"the broker (default POSTHOG_BROKER): {FORMS}",
    )
    parser.add_argument(
        "--broker-password-file",
        metavar="FILE",
        help="a file that holds only the broker's password",
    )
    parser.add_argument(
        "--queue",
        metavar="NAME",
        help="the queue, stream or topic (default the URL's queue=, else analytics)",
    )


def address_of(options: argparse.Namespace) -> Address:
    """Return the address in *options*; raises `CommandError` if there is none or it is wrong."""
    try:
        name, url = checks.broker("--broker", options.broker or None)
        if url is None:
            raise CommandError(f"no broker: give --broker or set POSTHOG_BROKER, as {FORMS}")
        where = address(url, options.queue, name)
    except ValueError as error:
        raise CommandError(str(error)) from None
    password = secret_in(options.broker_password_file)
    return where.with_password(password) if password else where


def secret_in(path: str | None) -> str:
    """Return the text of a file without blanks around it; "" if *path* is None."""
    if path is None:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise CommandError(f"{path}: cannot be read: not UTF-8") from None
