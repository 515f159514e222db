"""
Look for what keeps events from arriving, without sending one.

Checks the key's shape, the address, the proxy, name resolution, connection and TLS, the clock,
whether the protocol is spoken there, and what waits in a spool.
"""

from __future__ import annotations

import argparse
import os
import socket
import time

from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from platform import python_version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests

from .. import options as checks
from ..version import VERSION
from ..wire import Batch, Dialect, Endpoint, find_dialect
from . import FAILED, OK, CommandError, destination
from .output import Output


__all__ = ["HELP", "add_arguments", "run"]

HELP = "look for what keeps events from arriving"

EPILOG = "exit statuses: 0 nothing is wrong, 1 something is, 2 wrong usage"

_WELL, _NOTE, _WRONG = "ok", "note", "WRONG"
_COLUMNS = ("", "checked", "found")
_FRIENDS = ("orjson", "zstandard", "brotli", "rich", "structlog")
_MOST_SKEW = 60.0


class Finding(NamedTuple):
    """What one check found."""

    verdict: str
    checked: str
    found: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    destination.add_arguments(parser)
    parser.add_argument("--spool", metavar="FOLDER", help="a spool to look into as well")
    parser.add_argument("--json", action="store_true", help="print each finding as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Run all checks, also after one that failed."""
    output = Output(options.json)
    findings = list(_examine(options))
    for finding in findings:
        output.give(finding._asdict())
    output.table(_COLUMNS, findings)
    return FAILED if any(one.verdict == _WRONG for one in findings) else OK


def _examine(options: argparse.Namespace) -> Iterator[Finding]:
    friends = [name for name in _FRIENDS if find_spec(name)]
    parts = [f"posthog-logging {VERSION}", f"Python {python_version()}", *friends]
    yield Finding(_WELL, "installed", ", ".join(parts))
    try:
        dialect = find_dialect(options.dialect)
        given = checks.host(options.host, dialect.default_host)
    except (ImportError, ValueError) as error:
        raise CommandError(str(error)) from None
    key, finding = _key(options.api_key)
    yield finding
    host = dialect.ingestion_host(given, key)
    yield _host(given, host)
    yield _proxy(host)
    yield _name(host)
    yield from _connection(host, dialect, options.timeout)
    if options.spool is not None:
        yield _spool(options.spool)


def _key(given: str | None) -> tuple[str, Finding]:
    """Return the key, and what can be told of it without showing it."""
    try:
        key = checks.api_key(given)
    except ValueError as error:
        return "", Finding(_WRONG, "key", str(error))
    source = "--api-key" if given is not None else "POSTHOG_API_KEY"
    if not key:
        return "", Finding(_WRONG, "key", "none: without one nothing is sent")
    return key, Finding(_WELL, "key", f"from {source}, {len(key)} characters")


def _host(given: str, host: str) -> Finding:
    if given != host:
        return Finding(_NOTE, "host", f"{given} is for people; events go to {host}")
    if host.startswith("http:") and urlsplit(host).hostname not in ("127.0.0.1", "localhost"):
        return Finding(_NOTE, "host", f"{host} is not encrypted")
    return Finding(_WELL, "host", host)


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
        return Finding(_WRONG, "protocol", f"{said}, which knows no such address")
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
    from ..journal import segments_in  # not on Windows, which has no flock

    segments = segments_in(folder)
    orphans = sum(not one.in_use for one in segments)
    waiting, size = sum(one.events for one in segments), sum(one.size for one in segments)
    found = f"{waiting} events, {size} bytes, in {len(segments)} files, {orphans} without a writer"
    return Finding(_NOTE if waiting else _WELL, "spool", found)


def _root(error: Any) -> str:
    """Return the name of the innermost cause: texts may quote the URL."""
    while True:
        inner = error.__cause__ or error.__context__
        if inner is None:
            return type(error).__name__
        error = inner
