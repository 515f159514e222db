"""
The commands of ``posthog-logging``, one module each; a table in `cli` names them.

A module has `HELP`, one line; `add_arguments`; and `run`, which returns an exit status. Its
docstring is the help of the command. It may have a `USAGE_LINE`, an `EPILOG` for exit statuses of
its own, and a positional ``words``, which takes what follows ``--``. ``posthog-logging --help``
imports every command, so friends, and what not every system has, are imported in `run`.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..delivery import checks


__all__ = [
    "FAILED",
    "OK",
    "PORT",
    "USAGE",
    "CommandError",
    "port",
    "seconds",
    "until_interrupted",
    "wait_for_ever",
]

#: Exit statuses; `cli` documents them all.
OK = 0
FAILED = 1
USAGE = 2

#: Where the inspector listens by default, and where `tail` looks for it.
PORT = 8969


class CommandError(Exception):
    """
    End a command with one sentence on standard error, and no traceback.

    Args:
        status: the exit status.
        choices: lines that follow the sentence, such as what might have been meant.
    """

    def __init__(self, text: str, status: int = USAGE, choices: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.choices = choices


def port(text: str) -> int:
    """Return *text* as a port number; 0 stands for a free one."""
    if text.isdecimal() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 0 to 65535")


def seconds(text: str) -> float:
    """Return *text* as a number of seconds."""
    try:
        return checks.seconds("an option", float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds; give one such as 10 or 2.5"
        ) from None


@contextmanager
def until_interrupted() -> Iterator[None]:
    """End the block quietly at Ctrl-C and at SIGTERM, which service managers send."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's alone
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
    Sleep; unlike a lock, a sleep ends at Ctrl-C on every system.

    In short naps: a signal between Python's look for signals and the system call is seen
    only after the call.
    """
    while True:
        time.sleep(0.2)
