"""
Look into a spool, check its files, or deliver what waits there.

show and check change nothing. drain takes over the files whose writers have ended and delivers
each to its own destination, or all to --host; it leaves files of running programs alone.
"""

from __future__ import annotations

import argparse
import os
import time

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..broker.address import address
from ..broker.dialect import NEUTRAL
from ..delivery import checks
from ..delivery.clock import monotonic
from ..handler import PostHogHandler
from . import destination
from .command import FAILED, OK, CommandError, verb_in
from .output import Output, clock, counted


if TYPE_CHECKING:
    from ..delivery.folder import SegmentInfo

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show, check or deliver what waits in a spool"

USAGE_LINE = "posthog-logging spool [options] {show,check,drain} FOLDER"

EPILOG = """\
exit statuses: 0 done; 1 check found damage, or drain left or lost something; 2 wrong usage"""

_COLUMNS = ("oldest (UTC)", "events", "bytes", "written by", "dialect", "host", "file")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="{show,check,drain} FOLDER",
        help="what to do, and the spool's folder",
    )
    parser.add_argument(
        "--api-key", metavar="KEY", help="for drain: the project's key (default POSTHOG_API_KEY)"
    )
    parser.add_argument(
        "--host",
        metavar="URL",
        help="for drain: deliver everything there, also events for another address",
    )
    destination.add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file")


def run(options: argparse.Namespace) -> int:
    """Show, check or drain."""
    verb, folders = verb_in(options.words, _VERBS, "a folder")
    if len(folders) != 1:
        raise CommandError(f"{verb} takes one folder; got {len(folders) or 'nothing'}")
    (folder,) = folders
    if not os.path.isdir(folder):
        raise CommandError(f"{folder}: there is no such folder")
    try:
        os.listdir(folder)
    except OSError as error:
        raise CommandError(f"{folder}: {error.strerror}") from None
    return _VERBS[verb](options, folder)


def _show(options: argparse.Namespace, folder: str) -> int:
    output = Output(options.json)
    segments = _spools().segments_in(folder)
    for one in segments:
        output.give({**one._asdict(), "path": str(one.path)})
    output.table(_COLUMNS, [_row(one) for one in segments])
    output.say(f"{_wait(sum(one.events for one in segments))}.")
    for text in _unreadable(folder):
        output.say(text)
    return OK


def _check(options: argparse.Namespace, folder: str) -> int:
    """Print the state of each file; the exit status of damage is 1."""
    output = Output(options.json)
    findings = _spools().findings_in(folder)
    rows = []
    for path, state, is_wrong, info in findings:
        events = info.events if info else 0
        output.give({"path": str(path), "state": state, "is_wrong": is_wrong, "events": events})
        rows.append(("WRONG" if is_wrong else "ok", path.name, f"{events}", state))
    output.table(("", "file", "events", "state"), rows)
    wrong = sum(one.is_wrong for one in findings)
    output.say(f"{counted(len(findings), 'file')}, {wrong} with damage.")
    return FAILED if wrong else OK


def _drain(options: argparse.Namespace, folder: str) -> int:
    """Deliver, one destination after the other: a handler adopts only files for its own."""
    destination.ensure_enabled()
    output = Output(options.json)
    dialects = {one.dialect for one in _free(folder)}
    skipped = Counter(_unreadable(folder))
    if not dialects and not skipped:
        output.say("Nothing to deliver: no event waits, except in files of running programs.")
        return OK
    if dialects - {NEUTRAL.name}:  # a broker needs no key
        _handler(options, "posthog", options.host).close()  # raises if key or host are wrong
    if options.host:
        skipped += _readdress(options, folder)
    done = []
    for dialect, host in sorted({(one.dialect, one.host) for one in _free(folder)}):
        try:
            done.append(_deliver(options, output, folder, dialect, host))
        except CommandError as error:  # a custom dialect, an invalid host
            skipped[f"{dialect} to {host}: skipped, {error}"] += 1
    for text in skipped:
        output.say(text)
        output.give({"skipped": text})
    left = sum(one.events for one in _spools().segments_in(folder))
    rest = "Nothing else waits." if skipped else "Nothing waits any more."
    output.say(f"{counted(left, 'event')} still waiting." if left else rest)
    return OK if all(done) and not skipped and not _free(folder) else FAILED


def _readdress(options: argparse.Namespace, folder: str) -> Counter[str]:
    """Readdress all events to ``--host``; return what cannot be, and why."""
    place = _spools().Folder(folder)
    problems = Counter[str]()
    for one in _free(folder):
        try:
            handler = _handler(options, one.dialect, options.host)
        except CommandError as error:
            problems[f"{one.dialect}: skipped, {error}"] += 1
            continue
        host = handler.describe().host
        handler.close()
        if host != one.host:
            place.readdress(one.path, host)
    return problems


def _deliver(
    options: argparse.Namespace, output: Output, folder: str, dialect: str, host: str
) -> bool:
    """Deliver all events for one destination; return whether all of them arrived."""
    if dialect == NEUTRAL.name:
        handler = _to_broker(options, folder, host)
    else:
        handler = _handler(options, dialect, host, spool=folder)
    try:
        delivered = _flush(handler, options.timeout, lambda: _count(_free(folder), dialect, host))
    finally:
        handler.close()
    counts = handler.counts
    protocol = handler.describe().protocol
    output.counts(f"{protocol} to {host}:", counts)
    output.give({"dialect": dialect, "protocol": protocol, "host": host, "counts": counts})
    arrived = counts["delivered"] + counts.get("duplicates", 0)  # copies are sent once
    return delivered and arrived == counts["accepted"]


def _flush(handler: PostHogHandler, timeout: float, left: Callable[[], int]) -> bool:
    """Flush until no file is *left*, or none changes; return whether every flush delivered."""
    delivered, before, deadline = handler.flush(timeout), 0, 0.0
    while delivered and (now := left()):
        if now != before:
            before, deadline = now, monotonic() + _PATIENCE
        elif monotonic() >= deadline:
            break
        time.sleep(0.1)
        delivered = handler.flush(timeout)
    return delivered


# If the number of files has not changed for so many seconds, it will not: a handler looks for
# files that it can adopt every ten seconds.
_PATIENCE = 12.0


def _handler(
    options: argparse.Namespace, dialect: str, host: str | None, **more: Any
) -> PostHogHandler:
    given = {**vars(options), "dialect": dialect, "host": host}
    return destination.handler_for(argparse.Namespace(**given), **more)


def _to_broker(options: argparse.Namespace, folder: str, shown: str) -> PostHogHandler:
    """Return a handler for the broker whose address, without credentials, is *shown*."""
    try:
        name, url = checks.broker("broker", None)
        if url is None or address(url, name=name).public != shown:
            raise CommandError("set POSTHOG_BROKER to the broker's URL, with user and password")
        limits = {"timeout": options.timeout, "shutdown_timeout": options.timeout}
        return PostHogHandler(broker=url, spool=folder, **limits)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _count(segments: Iterable[SegmentInfo], dialect: str, host: str) -> int:
    return sum((one.dialect, one.host) == (dialect, host) for one in segments)


def _free(folder: str) -> Sequence[SegmentInfo]:
    """Return the files with events that no running program writes or delivers."""
    return [
        one
        for one in _spools().segments_in(folder)
        if not one.in_use and (one.events or one.broken)
    ]


def _unreadable(folder: str) -> list[str]:
    """Return a sentence for each file that may hold events and cannot be read."""
    return [
        f"{path.name}: {state}. To do: `posthog-logging import {path}`, run by a user who may "
        "read it, sends the events that are whole in it; then delete it"
        for path, state, *_ in _spools().unreadable_in(folder)
    ]


def _wait(events: int) -> str:
    return "1 event waits" if events == 1 else f"{events} events wait"


def _spools() -> ModuleType:
    try:
        from ..delivery import folder
    except ImportError:  # there is no flock on Windows
        raise CommandError("there are no spools on this system") from None
    return folder


def _row(one: SegmentInfo) -> list[str]:
    writer = f"{one.pid}" if one.in_use else f"{one.pid} (gone)"
    oldest = f"{one.oldest[:10]} {clock(one.oldest)}" if one.oldest else ""
    return [oldest, str(one.events), str(one.size), writer, one.dialect, one.host, one.path.name]


_VERBS = {"show": _show, "check": _check, "drain": _drain}
