"""
Look for what keeps events from arriving, without sending one.

Checks the key's shape, the address, the proxy, name resolution, connection and TLS, the clock,
whether the protocol is spoken there, and what waits in a spool.

With --app or --config it is the program's own handlers that are checked: the program sets its
logging up, and the events that it logs in doing so are not sent. --explain then answers one
question alone: whether a call on a logger would be an event, and why.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import time

from collections.abc import Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from platform import python_version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from ..broker.address import SCHEMES
from ..broker.doctor import examine
from ..delivery import checks
from ..explain import Carrier, carriers, explain
from ..inspector.rules import key_fault
from ..version import VERSION
from ..wire import Batch, Dialect, Endpoint, find_dialect
from . import broker, destination, program
from .command import FAILED, OK, CommandError
from .output import Output, harmless


__all__ = ["HELP", "add_arguments", "run"]

HELP = "look for what keeps events from arriving"

EPILOG = """\
examples:
  posthog-logging doctor --app service:configure
  posthog-logging doctor --broker amqp://user@rabbit/vhost
  posthog-logging doctor --config logging.yaml --explain films --extra '{"distinct_id": "u"}'

exit statuses: 0 nothing is wrong, with --explain: it is an event; 1 something is wrong, with
--explain: it is none; 2 wrong usage, a program that cannot be loaded
"""

_WELL, _NOTE, _WRONG = "ok", "note", "WRONG"
_COLUMNS = ("", "checked", "found")
_FRIENDS = ("orjson", "zstandard", "brotli", "rich", "structlog")
_MOST_SKEW = 60.0

#: A cloud's regions do not know each other's keys, and none of them says so.
_REGIONS = {
    "https://us.i.posthog.com": "PostHog's US cloud; the EU's is https://eu.i.posthog.com",
    "https://eu.i.posthog.com": "PostHog's EU cloud; the US's is https://us.i.posthog.com",
    "https://api.segment.io": "Segment's US; the EU's is https://events.eu1.segmentapis.com",
    "https://events.eu1.segmentapis.com": "Segment's EU; the US's is https://api.segment.io",
}
#: Protocols that a server of the family, one's own or an old one, may not have.
_NOT_EVERYWHERE = {
    "posthog-v1": "; a self-hosted server may have --dialect posthog only",
    "posthog-logs": "; a self-hosted server may have no logs",
}


class Finding(NamedTuple):
    """What one check found."""

    verdict: str
    checked: str
    found: str
    more: Mapping[str, Any] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    destination.add_arguments(parser)
    parser.add_argument("--spool", metavar="FOLDER", help="a spool to look into as well")
    broker.add_arguments(parser)
    program.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print each finding as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Run all checks, also after one that failed; or answer the one question."""
    output = Output(options.json)
    _check_usage(options)
    call = program.call(options)
    program.load(options.config, options.app)
    if call is None:
        findings = _show(output, _examine(options))
        return FAILED if any(one.verdict == _WRONG for one in findings) else OK
    _show(output, _handlers())
    explanation = explain(*call)
    output.give(explanation.as_dict())
    output.say("", *map(harmless, explanation.lines()))
    return OK if explanation.is_event else FAILED


def _show(output: Output, made: Iterable[Finding]) -> list[Finding]:
    findings = list(made)
    for verdict, checked, found, more in findings:
        output.give({"verdict": verdict, "checked": checked, "found": found, **more})
    output.table(_COLUMNS, [finding[:3] for finding in findings])
    return findings


def _check_usage(options: argparse.Namespace) -> None:
    if not _has_program(options):
        if options.explain is not None:
            raise CommandError("--explain: of which program? Give --app or --config as well")
    elif options.host is not None or options.api_key is not None:
        raise CommandError("--app and --config: the program has a host and a key of its own")


def _has_program(options: argparse.Namespace) -> bool:
    return options.app is not None or options.config is not None


def _examine(options: argparse.Namespace) -> Iterator[Finding]:
    friends = [name for name in _FRIENDS if find_spec(name)]
    parts = [f"posthog-logging {VERSION}", f"Python {python_version()}", *friends]
    yield Finding(_WELL, "installed", ", ".join(parts))
    if options.broker is not None:
        yield from _broker(options)
    elif _has_program(options):
        yield from _handlers()
        found = [one.handler for one in carriers() if one.handler]
        found = [own for own in found if not own.host.startswith(tuple(SCHEMES))]  # see --broker
        for own in {(one.host, one.dialect.name): one for one in found}.values():
            yield from _reached(own.host, own.host, own.dialect, options.timeout)
    else:
        yield from _destination(options)
    if options.spool is not None:
        yield _spool(options.spool)


def _broker(options: argparse.Namespace) -> Iterator[Finding]:
    """Check the broker, and nothing else: who logs into one needs no key and no host."""
    try:
        for verdict, checked, found in examine(broker.address_of(options), options.timeout):
            yield Finding(verdict, checked, found)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _destination(options: argparse.Namespace) -> Iterator[Finding]:
    try:
        dialect = find_dialect(options.dialect)
        given = checks.host(options.host, dialect.default_host)
    except (ImportError, ValueError) as error:
        raise CommandError(str(error)) from None
    key, finding = _key(options.api_key)
    yield finding
    host = dialect.ingestion_host(given, key)
    yield from _reached(given, host, dialect, options.timeout)


def _reached(given: str, host: str, dialect: Dialect, timeout: float) -> Iterator[Finding]:
    yield _host(given, host)
    yield _proxy(host)
    yield _name(host)
    yield from _connection(host, dialect, timeout)


def _key(given: str | None) -> tuple[str, Finding]:
    """Return the key, and what can be told of it without showing it."""
    try:
        key = checks.api_key(given)
    except ValueError as error:
        return "", Finding(_WRONG, "key", str(error))
    source = "--api-key" if given is not None else "POSTHOG_API_KEY"
    if not key:
        return "", Finding(_WRONG, "key", "none: without one nothing is sent")
    text = f"from {source}, {len(key)} characters"
    wrong = "a blank within it" if " " in key else key_fault(key)
    if wrong:
        return key, Finding(_WRONG, "key", f"{text}: {wrong}")
    # PostHog's edge looks at the shape alone, and answers 200 to a key that nobody has.
    return key, Finding(_WELL, "key", f"{text}; whether it is a project's no server tells")


def _host(given: str, host: str) -> Finding:
    if given != host:
        return Finding(_NOTE, "host", f"{given} is for people; events go to {host}")
    if host.startswith("http:") and urlsplit(host).hostname not in ("127.0.0.1", "localhost"):
        return Finding(_NOTE, "host", f"{host} is not encrypted")
    region = _REGIONS.get(host.lower())
    return Finding(_WELL, "host", f"{host}, {region}" if region else host)


def _proxy(host: str) -> Finding:
    proxies = requests.utils.get_environ_proxies(host)
    proxy = requests.utils.select_proxy(host, proxies)
    if proxy is None:
        return Finding(_WELL, "proxy", "none")
    parts = urlsplit(proxy)  # a proxy's URL may have a password in it
    return Finding(_NOTE, "proxy", f"{parts.scheme}://{parts.hostname}:{parts.port or ''}")


def _name(host: str) -> Finding:
    parts = urlsplit(host)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or parts.scheme)
    except OSError as error:
        return Finding(_WRONG, "name", f"{parts.hostname}: {error.strerror}")
    addresses = sorted({str(one[4][0]) for one in found})
    return Finding(_WELL, "name", f"{parts.hostname} is {', '.join(addresses)}")


def _connection(host: str, dialect: Dialect, timeout: float) -> Iterator[Finding]:
    """Ask for the address that takes events, with a GET, which sends none."""
    url = dialect.request(Batch([], "", ""), Endpoint(host, "", None), "").url
    begun = time.monotonic()
    try:
        answer = requests.get(url, timeout=timeout, allow_redirects=False)
    except requests.exceptions.SSLError as error:
        yield Finding(_WRONG, "connection", f"TLS failed ({_root(error)})")
        return
    except requests.RequestException as error:
        yield Finding(_WRONG, "connection", f"{type(error).__name__} ({_root(error)})")
        return
    took = (time.monotonic() - begun) * 1000
    yield Finding(_WELL, "connection", f"an answer after {took:.0f} ms")
    yield _protocol(answer.status_code, dialect)
    yield _clock(answer.headers, time.time())


def _protocol(status: int, dialect: Dialect) -> Finding:
    """Judge the answer to a GET: a server that knows the path wants a POST there."""
    said = f"{dialect.name}: HTTP {status}"
    if status in (404, 410):
        hint = _NOT_EVERYWHERE.get(dialect.name, "")
        return Finding(_WRONG, "protocol", f"{said}, which knows no such address{hint}")
    if 300 <= status < 400:
        return Finding(_WRONG, "protocol", f"{said}, a redirection, which is not followed")
    if status >= 500:
        return Finding(_NOTE, "protocol", f"{said}, the server is in trouble")
    return Finding(_WELL, "protocol", f"{said} to a GET: the address is known")


def _clock(headers: Mapping[str, str], now: float) -> Finding:
    try:
        theirs = parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return Finding(_NOTE, "clock", "the server does not say what time it is")
    skew = now - theirs
    if abs(skew) < _MOST_SKEW:
        return Finding(_WELL, "clock", "as the server's")
    way = "ahead of" if skew > 0 else "behind"
    return Finding(_NOTE, "clock", f"{abs(skew):.0f} s {way} the server's")


def _spool(folder: str) -> Finding:
    if not os.path.isdir(folder):
        return Finding(_WRONG, "spool", f"{folder}: no such folder")
    from ..delivery.journal import segments_in  # not on Windows, which has no flock

    segments = segments_in(folder)
    orphans = sum(not one.in_use for one in segments)
    waiting, size = sum(one.events for one in segments), sum(one.size for one in segments)
    found = f"{waiting} events, {size} bytes, in {len(segments)} files, {orphans} without a writer"
    return Finding(_NOTE if waiting else _WELL, "spool", found)


def _handlers() -> Iterator[Finding]:
    """Say which loggers carry a handler of ours, what it is and how it fares."""
    found = carriers()
    if not found:
        yield Finding(_WRONG, "handlers", "no logger carries one of this library's")
    yield from map(_carrier, found)


def _carrier(one: Carrier) -> Finding:
    """Say of a key only that there is none."""
    own = one.handler
    if own is None:
        return Finding(_NOTE, "handler", f"{one.way}: no QueueListener here reads its queue")
    level = logging.getLevelName(own.level)
    counts = "  ".join(f"{name} {count}" for name, count in own.counts.items())
    silent = [own.silent] if own.silent else []
    text = ", ".join([own.dialect.name, own.host, level, counts, *silent])
    more = {**own._asdict(), "logger": one.logger, "dialect": own.dialect.name, "level": level}
    verdict = _WRONG if own.silent == "no_api_key" else _WELL
    return Finding(verdict, "handler", f"{one.way}: {text}", more)


def _root(error: Any) -> str:
    """Return the name of the innermost cause: texts may quote the URL."""
    while True:
        inner = error.__cause__ or error.__context__
        if inner is None:
            return type(error).__name__
        error = inner
