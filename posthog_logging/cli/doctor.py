"""
Look for what keeps events from arriving, without sending one.

Checks the key, the address, the proxy, name resolution, connection and TLS, the clock, the
server's protocol, and what waits in a spool. Each finding says what to do, if there is anything.
PostHog gets an empty batch, which holds no event: the answer shows the protocol, and whether the
key is known.

With --app or --config doctor checks a program's own handlers: the program sets up its logging,
and events that it logs meanwhile are not sent. --explain instead answers one question: whether a
call on a logger would be an event, and why.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import logging
import os
import re
import textwrap
import time
import uuid

from collections.abc import Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from platform import python_version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from ..broker.address import SCHEMES
from ..broker.engine import engine_for
from ..delivery import checks
from ..delivery.clock import monotonic
from ..delivery.options import is_disabled
from ..explain import Carrier, carriers, explain
from ..inspector.rules import key_fault
from ..version import VERSION
from ..wire import DIALECTS, Batch, Dialect, Endpoint, find_dialect
from . import broker, destination, program
from .command import FAILED, OK, CommandError
from .connection import get, judge_error, look_up, post
from .output import Output, counted, harmless
from .protocols import NOTE, WRONG, Answer, Judgement, judge_get, judge_posthog
from .protocols import OK as WELL


__all__ = ["HELP", "add_arguments", "run"]

HELP = "look for what keeps events from arriving"

EPILOG = """\
examples:
  posthog-logging doctor --app service:configure
  posthog-logging doctor --broker amqp://user@rabbit/vhost
  posthog-logging doctor --config logging.yaml --explain films --extra '{"distinct_id": "u"}'

exit statuses: 0 nothing is wrong, or with --explain, the call is an event; 1 something is wrong,
or the call is not an event; 2 wrong usage, or a program that cannot be loaded
"""

_COLUMNS = ("", "checked", "found")
_MEANINGS = {WELL: "good", NOTE: "note", WRONG: "bad"}
_FRIENDS = ("orjson", "isal", "zstandard", "brotli", "rich", "structlog")
_MOST_SKEW = 60.0
_WIDTH = 100

#: The regions of a cloud do not know each other's keys, and their answers do not say so.
_REGIONS = {
    "https://us.i.posthog.com": "PostHog's US cloud; the EU's is https://eu.i.posthog.com",
    "https://eu.i.posthog.com": "PostHog's EU cloud; the US's is https://us.i.posthog.com",
    "https://api.segment.io": "Segment's US; the EU's is https://events.eu1.segmentapis.com",
    "https://events.eu1.segmentapis.com": "Segment's EU; the US's is https://api.segment.io",
}


class Finding(NamedTuple):
    """What one check found, and what to do about it."""

    verdict: str
    checked: str
    found: str
    remedy: str = ""
    more: Mapping[str, Any] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    destination.add_arguments(parser)
    parser.add_argument("--spool", metavar="FOLDER", help="a spool to look into as well")
    broker.add_arguments(parser)
    program.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print each finding as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Run all checks, also after one that failed; with --explain answer that question."""
    output = Output(options.json)
    _check_usage(options)
    call = program.call(options)
    program.load(options.config, options.app)
    if call is None:
        findings = _show(output, _examine(options))
        return FAILED if any(one.verdict == WRONG for one in findings) else OK
    _show(output, _handlers())
    explanation = explain(*call)
    output.give(explanation.as_dict())
    output.say("", *map(harmless, explanation.lines()))
    return OK if explanation.is_event else FAILED


def _show(output: Output, made: Iterable[Finding]) -> list[Finding]:
    findings = list(made)
    rows: list[tuple[str, str, str]] = []
    meanings: list[str] = []
    for verdict, checked, found, remedy, more in findings:
        output.give(
            {"verdict": verdict, "checked": checked, "found": found, "remedy": remedy, **more}
        )
        advice = textwrap.wrap(f"To do: {remedy}.", _WIDTH) if remedy else []
        rows += [(verdict, checked, found), *(("", "", line) for line in advice)]
        meanings += [_MEANINGS[verdict], *([""] * len(advice))]
    output.table(_COLUMNS, rows, meanings)
    return findings


def _check_usage(options: argparse.Namespace) -> None:
    if not _has_program(options):
        if options.explain is not None:
            raise CommandError("--explain needs a program: give --app or --config as well")
    elif options.host is not None or options.api_key is not None:
        raise CommandError(
            "--host and --api-key do not go with --app and --config: the program has its own"
        )


def _has_program(options: argparse.Namespace) -> bool:
    return options.app is not None or options.config is not None


def _examine(options: argparse.Namespace) -> Iterator[Finding]:
    friends = [name for name in _FRIENDS if find_spec(name)]
    parts = [f"posthog-logging {VERSION}", f"Python {python_version()}", *friends]
    yield Finding(WELL, "installed", ", ".join(parts))
    if options.broker is not None:
        yield from _broker(options)
    elif _has_program(options):
        yield from _handlers()
        own = [one.handler for one in carriers() if one.handler]
        for one in {(one.host, one.dialect.name): one for one in own}.values():
            if not one.host.startswith(tuple(SCHEMES)):  # for brokers there is --broker
                yield from _reached(one.host, one.host, one.dialect, None, options.timeout)
    else:
        yield from _destination(options)
    if options.spool is not None:
        yield _spool(options.spool)


def _broker(options: argparse.Namespace) -> Iterator[Finding]:
    """Check the broker alone: a program that logs to one needs neither key nor host."""
    try:
        address = broker.address_of(options)
        for finding in engine_for(address).examine(address, options.timeout):
            yield Finding(*finding)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _destination(options: argparse.Namespace) -> Iterator[Finding]:
    try:
        dialect = find_dialect(options.dialect)
    except (ImportError, ValueError) as error:
        raise CommandError(str(error)) from None
    if is_disabled():
        found, remedy = "POSTHOG_DISABLED is set, so nothing is sent", "unset POSTHOG_DISABLED"
        yield Finding(WRONG, "switch", found, remedy)
    key, finding = _key(options.api_key, dialect)
    yield finding
    try:
        given = checks.host(options.host, dialect.default_host)
    except ValueError as error:
        if options.host is not None:
            raise CommandError(str(error)) from None
        yield Finding(WRONG, "host", str(error), "set POSTHOG_HOST to the server's URL")
        return
    host = dialect.ingestion_host(given, key)
    yield from _reached(given, host, dialect, key, options.timeout)


def _reached(
    given: str, host: str, dialect: Dialect, key: str | None, timeout: float
) -> Iterator[Finding]:
    """Check the way to *host*, which *given* became; *key* is None if it is not known here."""
    yield _host(given, host)
    proxy = _proxy(host)
    yield proxy
    named = look_up(host, timeout)
    if named.verdict == WRONG and proxy.verdict == NOTE:
        yield Finding(NOTE, "name", named.found, "nothing, if the proxy knows the name")
    else:
        yield Finding(named.verdict, "name", named.found, named.remedy)
        if named.verdict == WRONG:
            return  # the other checks would fail for the same reason
    yield from _connection(host, dialect, key, timeout)


def _key(given: str | None, dialect: Dialect) -> tuple[str, Finding]:
    """Return the key, and a finding without it."""
    try:
        key = checks.api_key(given)
    except ValueError as error:
        return "", Finding(WRONG, "key", str(error), _COPY)
    if not key:
        return "", Finding(
            WRONG,
            "key",
            "there is no key, so nothing would be sent",
            "set POSTHOG_API_KEY to the key in the project's settings, or give --api-key",
        )
    source = "--api-key" if given is not None else checks.set_among(*checks.KEY_VARIABLES)[0]
    text = f"from {source}, {len(key)} characters"
    fault = _fault(key)
    if fault:
        return key, Finding(WRONG, "key", f"{text}: {fault}", _COPY)
    if dialect.name.startswith("posthog") and not re.match("phc_.", key):
        doubt = f"{text}: most projects' keys begin with phc_"
        return key, Finding(NOTE, "key", doubt, f"nothing, if this is one; else {_COPY}")
    return key, Finding(WELL, "key", text)


def _fault(key: str) -> str:
    """Return what no project's key has, and this one has; "" if there is nothing."""
    if " " in key:
        return "it has a blank within it"
    if re.search(r"[\"'`<>(){}$,;]", key):
        return "it has a quote, a bracket or a sign of that kind, which is no part of a key"
    if re.match("ph[abd-wyz]_", key):
        return f"it begins with {key[:4]}, and a project's key with phc_"
    return key_fault(key)


_COPY = "copy the project's key again, from the project's settings"


def _host(given: str, host: str) -> Finding:
    if given != host:
        return Finding(
            NOTE,
            "host",
            f"{given} is the address of the web application; events go to {host}",
            f"nothing, or give {host} as host",
        )
    if host.startswith("http:") and urlsplit(host).hostname not in ("127.0.0.1", "localhost"):
        return Finding(
            NOTE, "host", f"{host} is not encrypted", "give an https:// address, if there is one"
        )
    region = _REGIONS.get(host.lower())
    return Finding(WELL, "host", f"{host}, {region}" if region else host)


def _proxy(host: str) -> Finding:
    proxies = requests.utils.get_environ_proxies(host)
    proxy = requests.utils.select_proxy(host, proxies)
    if proxy is None:
        return Finding(WELL, "proxy", "none")
    parts = urlsplit(proxy)
    return Finding(
        NOTE,
        "proxy",
        f"{parts.scheme}://{parts.hostname}:{parts.port or ''}",  # without user and password
        "nothing, if requests are to go through it; else add the host to NO_PROXY",
    )


def _connection(host: str, dialect: Dialect, key: str | None, timeout: float) -> Iterator[Finding]:
    """Send a GET, which holds no event, to the address that takes events."""
    url = dialect.request(Batch([], "", ""), Endpoint(host, "", None), "").url
    begun = monotonic()
    try:
        answer = get(url, timeout)
        took = (monotonic() - begun) * 1000
        judged = _protocol(host, dialect, key, answer, timeout)
    except OSError as error:  # as every RequestException is
        failed = judge_error(error, timeout)
        yield Finding(failed.verdict, "connection", failed.found, failed.remedy)
        return
    yield Finding(WELL, "connection", f"an answer after {took:.0f} ms")
    yield Finding(judged.verdict, "protocol", judged.found, judged.remedy)
    yield _clock(answer.headers, time.time())


def _protocol(
    host: str, dialect: Dialect, key: str | None, got: Answer, timeout: float
) -> Judgement:
    """Return which protocol the server speaks; PostHog's are asked with an empty batch."""
    if dialect.name not in _POSTHOG:
        return judge_get(got, dialect.name)
    ask = functools.partial(_asked, host, key or _NO_KEY, timeout=timeout)
    request_id = str(uuid.uuid4())
    v1 = ask("posthog-v1", request_id) if dialect.name != "posthog-v0" else None
    v0 = ask(_V0, request_id) if dialect.name != "posthog-v1" else None
    judged = judge_posthog(got, v1, v0, request_id)
    if not key and judged.key_known is not None:  # of a made-up key: leave that out
        return Judgement(WELL, judged.found.partition(", but it")[0].partition(", and lets")[0])
    return judged


_POSTHOG = frozenset({"posthog", "posthog-v0", "posthog-v1"})
_V0 = "posthog-v0" if "posthog-v0" in DIALECTS else "posthog"
_NO_KEY = "phc_posthog_logging_doctor"


def _asked(host: str, key: str, name: str, request_id: str, *, timeout: float) -> Answer:
    """Return the answer to an empty batch in the dialect *name*."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    batch = Batch([], request_id, now)
    return post(find_dialect(name).request(batch, Endpoint(host, key, None), now), timeout)


def _clock(headers: Mapping[str, str], now: float) -> Finding:
    try:
        theirs = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return Finding(WELL, "clock", "not compared: the server does not send its time")
    skew = now - theirs
    if abs(skew) < _MOST_SKEW:
        return Finding(WELL, "clock", "the same as the server's")
    way = "ahead of" if skew > 0 else "behind"
    return Finding(
        NOTE,
        "clock",
        f"{abs(skew):.0f} s {way} the server's",
        "set this machine's clock (NTP): events carry its time",
    )


def _spool(folder: str) -> Finding:
    try:
        os.listdir(folder)
    except OSError as error:
        return Finding(
            WRONG,
            "spool",
            f"{folder}: {error.strerror}",
            "check the path, and that you are the user of the program; a handler with spool= "
            "makes the folder at its first event",
        )
    from ..delivery.folder import segments_in, unreadable_in  # not on Windows: it has no flock

    if unreadable := len(unreadable_in(folder)):
        return Finding(
            WRONG,
            "spool",
            f"{counted(unreadable, 'file')} that may hold events cannot be read",
            f"`posthog-logging spool show {folder}` names what to do with each",
        )
    segments = segments_in(folder)
    orphans = sum(not one.in_use for one in segments)
    waiting, size = sum(one.events for one in segments), sum(one.size for one in segments)
    if not waiting:
        return Finding(WELL, "spool", "nothing waits")
    files = f"{counted(len(segments), 'file')}, {orphans} without a writer"
    return Finding(
        NOTE,
        "spool",
        f"{counted(waiting, 'event')}, {counted(size, 'byte')}, in {files}",
        "nothing, if a program with this spool runs or will start again; else deliver them with "
        f"`posthog-logging spool drain {folder}`",
    )


def _handlers() -> Iterator[Finding]:
    """Yield a finding for each logger that has a handler of this library."""
    found = carriers()
    if not found:
        yield Finding(
            WRONG,
            "handlers",
            "no logger has a handler of this library",
            "add one with logging.getLogger().addHandler(PostHogHandler()); if the program does, "
            "let --app name the function that does it, as in --app service:configure",
        )
    yield from map(_carrier, found)


def _carrier(one: Carrier) -> Finding:
    """Return a finding about one handler, without its key."""
    own = one.handler
    if own is None:
        return Finding(
            NOTE,
            "handler",
            f"{one.way}: no QueueListener in this process reads its queue",
            "nothing, if another process reads it; else start a Listener on the same queue",
        )
    level = logging.getLevelName(own.level)
    counts = "  ".join(f"{name} {count}" for name, count in own.counts.items())
    silent = [own.silent] if own.silent else []
    spoken = [f"speaks {own.protocol}"] if own.protocol not in ("", own.dialect.name) else []
    text = ", ".join([own.dialect.name, *spoken, own.host, level, counts, *silent])
    more = {**own._asdict(), "logger": one.logger, "dialect": own.dialect.name, "level": level}
    verdict = WRONG if own.silent == "no_api_key" else NOTE if own.silent else WELL
    return Finding(
        verdict, "handler", f"{one.way}: {text}", _SILENT.get(own.silent or "", ""), more
    )


_SILENT = {
    "no_api_key": "set POSTHOG_API_KEY for the program, or give api_key",
    "opted_out": "call opt_in() on the handler, if events are wanted",
    "send_is_off": "remove send=False, if events are wanted",
    "closed": "nothing; the next event opens the handler again",
}
