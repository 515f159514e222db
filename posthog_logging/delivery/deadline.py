"""
One deadline for an attempt: resolver, every address, TLS, head and body share the time left.

``requests`` and urllib3 bound each wait separately: each address, each piece of an answer. A
server that drips, or a name with four dead addresses, takes many times as long. Here each wait
gets what is left. Only the resolver's cannot be cut short, as it is inside C: it runs in a thread
that is left behind.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import os
import socket
import sys
import threading
import time

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from requests.adapters import HTTPAdapter
from requests.models import PreparedRequest
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from .clock import monotonic
from .own_log import note_send, sending_threads


__all__ = ["BoundedAdapter", "aside", "time_left", "until"]

_Result = TypeVar("_Result")

# As `socket.getaddrinfo` returns them.
_Address = tuple[int, int, int, str, Any]
_Lookup = Future[Sequence[_Address]]

_deadline: ContextVar[float] = ContextVar("deadline")
_target: ContextVar[str] = ContextVar("target")


@contextmanager
def until(deadline: float) -> Iterator[None]:
    """Give all waits of this thread, within a ``with``, one *deadline* on the monotonic clock."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def time_left() -> float:
    """Return the seconds until the deadline; raises TimeoutError if none are left."""
    seconds = _deadline.get() - monotonic()
    if seconds <= 0.0:
        raise TimeoutError("no answer within the time of one attempt")
    return seconds


def aside(work: Callable[[], _Result]) -> Future[_Result]:
    """Do *work* in a thread that may be left behind; in this one if no other can be had."""
    future: Future[_Result] = Future()

    def run() -> None:
        me, began = threading.get_ident(), time.time()
        try:
            sending_threads[me] = began
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
        finally:
            sending_threads.pop(me, None)
            note_send(began)

    try:
        threading.Thread(target=run, name="posthog-logging-aside", daemon=True).start()
    except RuntimeError:  # the interpreter is ending
        run()
    return future


class BoundedAdapter(HTTPAdapter):
    """
    The adapter of a ``requests`` session whose waits end at the deadline of `until`.

    urllib3 logs the target of each request at DEBUG. A query may hold a key, so urllib3 gets the
    target without it, and the connection puts it back.
    """

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make pools of bounded connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        """Return the pools of a proxy, with bounded connections if it is an HTTP proxy."""
        manager = super().proxy_manager_for(*args, **options)
        if manager.pool_classes_by_scheme.get("http") is HTTPConnectionPool:
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        """Return what urllib3 may see and log of the target."""
        target = super().request_url(request, proxies)
        _target.set(target)
        return target.partition("?")[0]


class _Incoming(io.RawIOBase):
    """A socket's stream, in which each wait for more bytes ends at the deadline."""

    def __init__(self, raw: Any, connected: socket.socket) -> None:
        self._raw = raw
        self._socket = connected

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(time_left())
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that is read within the deadline; interim answers (1xx) are skipped."""

    _has_no_end = False

    def __init__(self, connected: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(connected, *args, **options)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_Incoming(raw, connected))

    def begin(self) -> None:
        super().begin()
        while 100 <= self.status < 200:  # there may be any number of them (RFC 9110, 15.2)
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()
        if _contradict(self.headers.get_all("Content-Length") or []):
            # urllib3 would raise, and the status be lost; where the body ends nobody knows.
            del self.headers["Content-Length"]
            self.will_close = self._has_no_end = True

    def read(self, amt: int | None = None) -> bytes:
        self._ensure_an_end()
        return super().read(amt)

    def read1(self, n: int = -1) -> bytes:
        self._ensure_an_end()
        return super().read1(n)

    def _ensure_an_end(self) -> None:
        if self._has_no_end:
            raise http.client.HTTPException("the head names several lengths of the body")


def _contradict(lengths: list[str]) -> bool:
    """Return whether a head names several lengths of its body (RFC 9112, 6.3)."""
    return len({length.strip() for length in ",".join(lengths).split(",")}) > 1


class _Bounded(HTTPConnection):
    """A connection whose waits end at the deadline."""

    response_class = _Answer

    def _new_conn(self) -> socket.socket:
        failure: OSError = OSError("the name has no address")
        addresses = _addresses(self._dns_host, self.port or self.default_port)
        for tried, address in enumerate(addresses):
            try:
                return self._connected(address, time_left() / (len(addresses) - tried))
            except OSError as error:
                failure = error
        raise failure

    def _connected(self, to: _Address, seconds: float) -> socket.socket:
        family, kind, protocol, _, address = to
        made = socket.socket(family, kind, protocol)
        try:
            for option in self.socket_options or ():
                made.setsockopt(*option)
            made.settimeout(seconds)
            made.connect(address)
            made.settimeout(time_left())  # for the TLS handshake
            sys.audit("http.client.connect", self, self.host, self.port)
        except BaseException:
            made.close()
            raise
        return made

    def putrequest(self, method: str, url: str, *args: Any, **options: Any) -> None:
        super().putrequest(method, _target.get(url), *args, **options)

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(time_left())
        super().send(data)


class _BoundedTLS(_Bounded, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Bounded


class _PoolTLS(HTTPSConnectionPool):
    ConnectionCls = _BoundedTLS


_POOLS = {"http": _Pool, "https": _PoolTLS}

# What the resolver has not answered yet: whoever asks again waits for the same thread.
_lookups: dict[tuple[int, str, int], _Lookup] = {}


def _addresses(host: str, port: int) -> Sequence[_Address]:
    """Return the addresses of *host*; a name is looked up in another thread."""
    host = host.strip("[]")
    family = _literal(host)
    if family is not None:
        address = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
        return [(family, socket.SOCK_STREAM, 0, "", address)]
    key = (os.getpid(), host, port)
    lookup = _lookups.get(key)
    if lookup is None:
        lookup = _lookups[key] = aside(
            lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
    try:
        return lookup.result(time_left())
    finally:
        if lookup.done():
            _lookups.pop(key, None)


def _literal(host: str) -> int | None:
    """Return the family of a literal address, which needs no resolver; None for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 4:
        return socket.AF_INET
    return None if "%" in host else socket.AF_INET6  # the number of a zone must be looked up
