"""Reach a server, each step within a time limit, and judge why it cannot be reached."""

from __future__ import annotations

import os
import socket

from http.client import HTTPException, RemoteDisconnected
from ssl import SSLError
from urllib.parse import urlsplit

import requests

from ..delivery.clock import monotonic
from ..delivery.deadline import BoundedAdapter, aside, time_left, until
from ..delivery.transport import RequestsTransport
from ..wire import Request
from .protocols import OK, WRONG, Answer, Judgement


__all__ = ["get", "judge_error", "look_up", "post"]

# OpenSSL's reasons if the other end speaks plain HTTP, or if a bundle holds nothing.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"})
_NO_CERTIFICATES = "NO_CERTIFICATE_OR_CRL_FOUND"

# Where `requests` takes a bundle from.
_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def get(url: str, timeout: float) -> Answer:
    """Return the answer to a GET; raises ``OSError`` if none comes within *timeout* seconds."""
    with requests.Session() as session, until(monotonic() + timeout):
        for scheme in ("https://", "http://"):
            session.mount(scheme, BoundedAdapter())
        answer = session.get(url, timeout=time_left(), allow_redirects=False)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status_code, headers, answer.content)


def post(request: Request, timeout: float) -> Answer:
    """Return the answer to *request*, sent as a handler sends; raises as `get` does."""
    transport = RequestsTransport()
    response = transport.send(request, timeout)
    transport.close()
    if response.status is None:
        raise requests.ConnectionError(response.error)
    return Answer(response.status, response.headers, response.body)


def look_up(host: str, timeout: float) -> Judgement:
    """Return the addresses of the name in the URL *host*, looked up within *timeout* seconds."""
    parts = urlsplit(host)
    found = aside(lambda: socket.getaddrinfo(parts.hostname, parts.port or parts.scheme))
    try:
        addresses = sorted({str(one[4][0]) for one in found.result(timeout)})
    except OSError as error:  # a TimeoutError is one
        why = error.strerror or f"no answer within {timeout:g} s"
        return Judgement(WRONG, f"{parts.hostname} cannot be resolved: {why}", _NAME)
    return Judgement(OK, f"{parts.hostname} is {', '.join(addresses)}")


_NAME = "check the host's spelling, and the name server of this machine or container"


def judge_error(error: BaseException, timeout: float) -> Judgement:
    """Return why no answer came within *timeout* seconds, and what to do."""
    root = _root(error)
    found, remedy = _meaning(error, root, timeout)
    return Judgement(WRONG, f"{found} ({type(root).__name__})", remedy)


def _meaning(error: BaseException, root: BaseException, timeout: float) -> tuple[str, str]:
    bundle = next(filter(os.environ.get, _BUNDLES), "")
    if bundle and (_is_missing(bundle, root) or getattr(root, "reason", "") == _NO_CERTIFICATES):
        return f"{bundle} names no bundle of certificates", f"correct {bundle}, or unset it"
    # The order matters: a ConnectTimeout is also a Timeout, an SSLError a ConnectionError.
    if isinstance(error, requests.exceptions.SSLError):
        no_tls = isinstance(root, SSLError) and str(root.reason) in _NO_TLS
        return _PLAIN if no_tls else _UNTRUSTED
    if isinstance(error, requests.exceptions.ProxyError):
        return _PROXY
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection within {timeout:g} s", _DROPPED
    if isinstance(error, requests.exceptions.Timeout) or isinstance(root, TimeoutError):
        return f"a connection, but no answer within {timeout:g} s", _SILENT
    if isinstance(root, ConnectionRefusedError):
        return _REFUSED
    if isinstance(root, (RemoteDisconnected, ConnectionError)):
        return _CLOSED
    return _NO_HTTP if isinstance(root, HTTPException) else _UNKNOWN


def _is_missing(bundle: str, root: BaseException) -> bool:
    """Return whether the path in *bundle* is missing, and `requests` raised *root* for that."""
    return type(root) is OSError and root.errno is None and not os.path.exists(os.environ[bundle])


_PLAIN = (
    "what listens at that port does not speak TLS",
    "begin the host with http:// instead of https://, or give the port of HTTPS",
)
_UNTRUSTED = (
    "the server's certificate is not trusted here",
    (
        "behind a proxy that opens TLS, set REQUESTS_CA_BUNDLE to its CA bundle; also check this "
        "machine's clock"
    ),
)
_PROXY = (
    "the proxy refused or did not answer",
    "check HTTPS_PROXY, or add the host to NO_PROXY",
)
_DROPPED = "a firewall may drop the packets: let this machine connect to the host and port"
_SILENT = (
    "check that the port is the server's, and whether the server is overloaded; events wait "
    "meanwhile, and --timeout gives it longer"
)
_REFUSED = (
    "nothing listens at that port",
    "start the server, or correct the host and port; `posthog-logging serve` starts an inspector",
)
_CLOSED = (
    "the server closes the connection without an answer",
    "check that the port is the server's, and whether it wants https:// instead of http://",
)
_NO_HTTP = (
    "what listens at that port does not speak HTTP",
    "check the port, and whether it wants https:// instead of http://",
)
_UNKNOWN = ("no connection", "check the host's spelling, the port and the network")


def _root(error: BaseException) -> BaseException:
    """Return the innermost cause, for its type: texts may quote the URL."""
    while True:
        inner = error.__cause__ or error.__context__
        if inner is None:
            return error
        error = inner
