"""
Look into a spool, check its files, or deliver what waits there.

show and check change nothing. drain takes over the files whose writers are gone and delivers
each to where it was meant to go, or all to --host; files of running programs stay theirs.
"""

from __future__ import annotations

import argparse
import os
import time

from collections import Counter
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from ..broker.address import address
from ..broker.dialect import NEUTRAL
from ..delivery import checks
from ..handler import PostHogHandler
from . import destination
from .command import FAILED, OK, CommandError
from .output import Output, clock


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
        help="for drain: deliver there, also what was meant for another address",
    )
    destination.add_timeout(parser)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file")


def run(options: argparse.Namespace) -> int:
    """Show, check or drain."""
    verb, *folders = options.words or [""]
    if verb not in _VERBS:
        raise CommandError("what to do? Give show, check or drain, and a folder")
    if len(folders) != 1:
        raise CommandError(f"{verb} takes one folder; got {len(folders) or 'nothing'}")
    (folder,) = folders
    if not os.path.isdir(folder):
        raise CommandError(f"{folder}: no such folder")
    return _VERBS[verb](options, folder)


def _show(options: argparse.Namespace, folder: str) -> int:
    output = Output(options.json)
    segments = _spools().segments_in(folder)
    for one in segments:
        output.give({**one._asdict(), "path": str(one.path)})
    output.table(_COLUMNS, [_row(one) for one in segments])
    output.say(f"{_wait(sum(one.events for one in segments))}.")
    return OK


def _check(options: argparse.Namespace, folder: str) -> int:
    """Say of each file what it is; damage is status 1."""
    output = Output(options.json)
    findings = _spools().findings_in(folder)
    rows = []
    for path, state, is_wrong, info in findings:
        events = info.events if info else 0
        output.give({"path": str(path), "state": state, "is_wrong": is_wrong, "events": events})
        rows.append(("WRONG" if is_wrong else "ok", path.name, f"{events}", state))
    output.table(("", "file", "events", "state"), rows)
    wrong = sum(one.is_wrong for one in findings)
    files = "1 file" if len(findings) == 1 else f"{len(findings)} files"
    output.say(f"{files}, {wrong} with damage.")
    return FAILED if wrong else OK


def _drain(options: argparse.Namespace, folder: str) -> int:
    """Deliver by destination: a handler takes over only what was meant for its own."""
    output = Output(options.json)
    options.dialect = "posthog"
    meant_for = {one.dialect for one in _free(folder)}
    if meant_for != {NEUTRAL.name}:  # a broker needs no key
        destination.handler_for(options).close()  # key and host are right, or this is wrong usage
    if not _free(folder):
        output.say("Nothing waits that has no writer.")
        return OK
    skipped = _readdress(options, folder) if options.host else Counter[str]()
    done = []
    for dialect, host in sorted({(one.dialect, one.host) for one in _free(folder)}):
        try:
            done.append(_deliver(options, output, folder, dialect, host))
        except CommandError as error:  # a dialect of a program's own, an invalid host
            skipped[f"{dialect} to {host}: skipped, {error}"] += 1
    for text in skipped:
        output.say(text)
        output.give({"skipped": text})
    left = sum(one.events for one in _spools().segments_in(folder))
    output.say(f"{_wait(left)} still." if left else "Nothing waits any more.")
    return OK if all(done) and not skipped and not _free(folder) else FAILED


def _readdress(options: argparse.Namespace, folder: str) -> Counter[str]:
    """Make all events events for the host that was given; return what cannot be."""
    place = _spools().Folder(folder)
    problems = Counter[str]()
    for one in _free(folder):
        try:
            options.dialect = one.dialect
            with_host = destination.handler_for(options)
        except CommandError as error:
            problems[f"{one.dialect}: skipped, {error}"] += 1
            continue
        host = with_host.describe().host
        with_host.close()
        if host != one.host:
            place.readdress(one.path, host)
    return problems


def _deliver(
    options: argparse.Namespace, output: Output, folder: str, dialect: str, host: str
) -> bool:
    """Deliver all that is for one destination; return whether all of it arrived."""
    given = {**vars(options), "dialect": dialect, "host": host}
    if dialect == NEUTRAL.name:
        handler = _to_broker(options, folder, host)
    else:
        handler = destination.handler_for(argparse.Namespace(**given), spool=folder)
    try:
        delivered = handler.flush(options.timeout)
        before, deadline = 0, 0.0
        # A handler takes over a few files at a time; between two of its looks nothing changes.
        while delivered and (now := _count(_free(folder), dialect, host)):
            if now != before:
                before, deadline = now, time.monotonic() + _PATIENCE
            elif time.monotonic() >= deadline:
                break
            time.sleep(0.1)
            delivered = handler.flush(options.timeout)
    finally:
        handler.close()
    counts = handler.counts
    protocol = handler.describe().protocol
    output.counts(f"{protocol} to {host}:", counts)
    output.give({"dialect": dialect, "protocol": protocol, "host": host, "counts": counts})
    arrived = counts["delivered"] + counts.get("duplicates", 0)  # of a copied file, once is enough
    return delivered and arrived == counts["accepted"]


# Seconds in which nothing changes, after which nothing will. A handler looks every ten seconds,
# and leaves out a file that `_free` has locked at that moment, to see whether it is in use.
_PATIENCE = 12.0


def _to_broker(options: argparse.Namespace, folder: str, shown: str) -> PostHogHandler:
    """Return a handler for the broker that a journal is for, which shows no credentials."""
    try:
        url = checks.broker("POSTHOG_BROKER", None)
        if url is None or address(url).public != shown:
            raise CommandError("set POSTHOG_BROKER to its URL, with user and password")
        limits = {"timeout": options.timeout, "shutdown_timeout": options.timeout}
        return PostHogHandler(broker=url, spool=folder, **limits)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _count(segments: Iterable[SegmentInfo], dialect: str, host: str) -> int:
    return sum((one.dialect, one.host) == (dialect, host) for one in segments)


def _free(folder: str) -> Sequence[SegmentInfo]:
    """Return the files that wait and that no program writes or delivers."""
    return [
        one
        for one in _spools().segments_in(folder)
        if not one.in_use and (one.events or one.broken)
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
