"""What commands share: exit statuses, `CommandError`, the types of arguments, and waiting."""

from __future__ import annotations

import argparse
import re
import signal
import threading
import time

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ..delivery import checks


__all__ = [
    "FAILED",
    "OK",
    "PORT",
    "USAGE",
    "CommandError",
    "seconds",
    "until_interrupted",
    "verb_in",
    "wait_for_ever",
    "whole",
]

#: Exit statuses; `cli` documents them all.
OK = 0
FAILED = 1
USAGE = 2

#: Where the inspector listens by default, and where `tail` looks for it.
PORT = 8969


class CommandError(Exception):
    """
    End a command with a message on standard error, without a traceback.

    Args:
        text: the message.
        status: the exit status.
        choices: further lines, such as the values to choose from.
    """

    def __init__(self, text: str, status: int = USAGE, choices: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.choices = choices


def whole(least: int, most: int = 99_999_999) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number from *least* to *most*."""

    def read(text: str) -> int:
        if re.fullmatch("[0-9]{1,8}", text) and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")

    return read


def seconds(text: str) -> float:
    """Return *text* as a number of seconds: the type of an argument."""
    try:
        return checks.seconds("an option", float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds; give one such as 10 or 2.5"
        ) from None


def verb_in(words: Sequence[str], verbs: Iterable[str], more: str) -> tuple[str, Sequence[str]]:
    """Return the first of *words*, if it is one of *verbs*, and the others; *more* says which."""
    verb, *others = words or [""]
    if verb not in verbs:
        wrong = f"{verb!r} is not known" if verb else "nothing to do"
        *first, last = verbs
        raise CommandError(f"{wrong}: give {', '.join(first)} or {last}, and {more}")
    return verb, others


@contextmanager
def until_interrupted() -> Iterator[None]:
    """End the block without an error at Ctrl-C and at SIGTERM, which service managers send."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for_ever() -> None:
    """
    Sleep until a signal raises; unlike waiting for a lock, this works on every system.

    Each sleep is short: a signal that comes just before the system call is handled after it.
    """
    while True:
        time.sleep(0.2)
