"""
The HTTP server of the inspector: it reads requests, has them judged, and answers as scripted.

The only module here that touches sockets. It listens on 127.0.0.1 only, and asks `visitors`
which requests to let in. A number in a request's head may have 5,000 digits, zeros among them,
for which Python raises an exception of its own: `_whole_number` bounds them first.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time

from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .answers import Answer, Script
from .api import Api
from .rules import JSON, Incoming, Judge, Judged, decide, find_judge
from .store import Store
from .visitors import may_look, may_send


__all__ = ["HOST", "Server"]

HOST = "127.0.0.1"
_MOST_BYTES = 64 * 1024 * 1024
_MOST_LINE = 1024
_MOST_TRAILERS = 100
_STOP_WITHIN = 2.0  # seconds: how long `stop` waits for threads that have nothing left to wait for


class Server(ThreadingHTTPServer):
    """A server with a thread for each connection; `stop` ends all of them at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, port: int, store: Store, script: Script, forward: Callable[[Incoming], None]
    ) -> None:
        self.store = store
        self.forward = forward
        self.script = script
        self.api = Api(store, script)
        self.stopping = threading.Event()
        self._changed = threading.Condition()
        self._open: set[Any] = set()
        self._thread: threading.Thread | None = None
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(error.errno, f"cannot listen on {HOST}:{port}: {why}") from error

    def server_bind(self) -> None:
        """Bind without `HTTPServer`'s look-up of the host's full name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def start(self) -> None:
        """Serve on a thread of its own."""
        self._thread = threading.Thread(target=self._serve, name="inspector", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, end every connection, and wait for their threads."""
        self.stopping.set()
        self.store.interrupt()
        if self._thread is not None:
            self._wake()
            self._thread.join(_STOP_WITHIN)
        self.server_close()
        with self._changed:
            for connection in self._open:
                _shut(connection)
            self._changed.wait_for(lambda: not self._open, _STOP_WITHIN)

    def _serve(self) -> None:
        # Not `serve_forever`: it polls, and ends up to one interval late.
        while not self.stopping.is_set():
            self.handle_request()

    def _wake(self) -> None:
        try:
            socket.create_connection((HOST, self.server_port), _STOP_WITHIN).close()
        except OSError:
            pass  # a full backlog wakes the thread as well

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection before its thread starts."""
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection once it is closed."""
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect; anything else is a bug, whose traceback is printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is closed already


class _Handler(BaseHTTPRequestHandler):
    """One connection, request by request."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the last small segment waits for the client's ACK

    def do_GET(self) -> None:
        """Answer a request of any kind."""
        try:
            url = urlsplit(self.path)
        except ValueError:  # not an address in the brackets
            self._send(400, _CLOSE, b"")
            return
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        judge = find_judge(url.path)
        if judge is not None:
            self._do_ingestion(judge, Incoming(url.path, query, headers, b"", time.time()))
        else:
            self._do_api(url.path, query, headers)

    # The hook's own names.
    do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815
    do_DELETE = do_OPTIONS = do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the hook's own name
        """Log nothing: the inspector's page is its log."""

    def _do_api(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> None:
        body = self._read() if self.command not in _WITHOUT_BODY else b""
        if isinstance(body, int):
            self._send(body, _CLOSE, b"")
            return
        if not may_look(headers, is_page=self.command == "GET" and path == "/"):
            self._send(403, JSON, _FOREIGN)
            return
        reply = self.server.api.answer(self.command, path, query, body)
        played = self.server.script.visited(self.command, path) if reply.status == 404 else None
        if played is not None:
            self._send(played.status, played.headers, played.body or b"")
        elif isinstance(reply.body, bytes):
            self._send(reply.status, reply.headers, reply.body)
        else:
            self._stream(reply.status, reply.headers, reply.body)

    def _do_ingestion(self, judge: Judge, incoming: Incoming) -> None:
        """Answer a request to an ingestion path."""
        if not may_send(incoming.headers, by_proxy=self.path.startswith("http://")):
            self._send(403, {**JSON, **_CLOSE}, _FOREIGN)
        elif self.command == "POST":
            self._ingest(judge, incoming)
        else:
            played = self.server.script.visited(self.command, incoming.path)
            answer = played or Answer(405, {"Allow": "POST"})
            headers = {**answer.headers, **_CLOSE}  # the body, if there is one, is not read
            self._send(answer.status, headers, answer.body or b"")

    def _ingest(self, judge: Judge, incoming: Incoming) -> None:
        answer = self.server.script.next(self.command, incoming.path)
        strips = self.server.script.strips
        kept = {name: value for name, value in incoming.headers.items() if name not in strips}
        incoming = incoming._replace(headers=kept)
        if answer.reset_after == 0:
            self.server.store.add(incoming, judge.dialect, Judged(0))
            self._reset_connection()
            return
        body = self._read()
        if isinstance(body, int):
            self.server.store.add(incoming, judge.dialect, Judged(body))
            self._send(body, _CLOSE, b"")
            return
        incoming = incoming._replace(body=body, verdicts=answer.verdicts)
        judged = decide(judge, incoming, answer)
        # Before the response is sent, so that a client that has read it finds the events here.
        self.server.store.add(incoming, judge.dialect, judged)
        if 200 <= judged.status < 300:  # the client sends again what was refused
            self.server.forward(incoming)
        if self.server.stopping.wait(None if answer.hang else answer.delay):
            self.close_connection = True
            return
        self._send(judged.status, judged.headers, judged.body, answer)

    def _read(self) -> bytes | int:
        """
        Return the request's body, or the status of a refusal if it cannot be read.

        After a refusal the connection must end: where the next request begins is unknown.
        """
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._read_chunks()
        lengths = set(self.headers.get_all("Content-Length", ()))
        if not lengths:
            return 411
        length = _whole_number(lengths.pop(), 10)
        if length is None or lengths:  # several that differ: where the body ends is unknown
            return 400
        if length > _MOST_BYTES:
            return 413
        body = self.rfile.read(length)
        return body if len(body) == length else 400

    def _read_chunks(self) -> bytes | int:
        """Read a chunked body (RFC 9112, 7.1)."""
        body = bytearray()  # not a list of chunks: each may be of one byte
        while True:
            line = self.rfile.readline(_MOST_LINE).decode("latin-1")
            size = _whole_number(line.partition(";")[0].strip(), 16)
            if size is None:
                return 400
            if len(body) + size > _MOST_BYTES:
                return 413
            if size == 0:
                break
            body += self.rfile.read(size)
            self.rfile.readline(_MOST_LINE)
        for _ in range(_MOST_TRAILERS):
            if not self.rfile.readline(_MOST_LINE).strip():
                return bytes(body)
        return 400

    def _send(
        self, status: int, headers: Mapping[str, str], body: bytes, answer: Answer | None = None
    ) -> None:
        """Write a response, in one piece unless *answer* says otherwise."""
        head, body = self._head(status, headers, body)
        if self.command == "HEAD":
            body = b""
        if answer is not None and answer.reset_after is not None:
            self.wfile.write((head + body)[: answer.reset_after])
            self._reset_connection()
        elif answer is not None and answer.drip:
            self.wfile.write(head)
            self._drip(body, answer.drip)
        else:
            self.wfile.write(head + body)

    def _stream(self, status: int, headers: Mapping[str, str], parts: Iterator[bytes]) -> None:
        """Write *parts* as they are made; the body ends with the connection."""
        head, _ = self._head(status, {**headers, **_CLOSE}, None)
        self.wfile.write(head)
        for part in parts:
            self.wfile.write(part)

    def _head(
        self, status: int, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[bytes, bytes]:
        """Return the head and the body; a *body* of None has no known length."""
        fields = {"Server": "posthog-logging-inspector", "Date": formatdate(usegmt=True)}
        if status < 200 or status in (204, 304):  # they have no body (RFC 9110, 6.4.1)
            body = b""
        elif body is not None:
            fields["Content-Length"] = str(len(body))
        names = {name.lower() for name in headers}
        fields = {name: value for name, value in fields.items() if name.lower() not in names}
        fields.update(headers)
        if any(n.lower() == "connection" and v.lower() == "close" for n, v in headers.items()):
            self.close_connection = True
        lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace"), body or b""

    def _drip(self, body: bytes, pause: float) -> None:
        for index in range(len(body)):
            if self.server.stopping.wait(pause):
                self.close_connection = True
                return
            self.wfile.write(body[index : index + 1])

    def _reset_connection(self) -> None:
        """Reset the connection: with a linger time of 0 the kernel sends RST instead of FIN."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # the socket stays open as long as this file does
        self.connection.close()


_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_CLOSE = {"Connection": "close"}
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_FOREIGN = (
    b'{"error":"only for programs of this machine and for the inspector\'s own page: '
    b'Host is not local, or Origin is another site"}'
)


def _whole_number(text: str, base: int) -> int | None:
    """Return *text* as a number, None unless it is digits alone; many digits are just huge."""
    digits = "0123456789abcdefABCDEF" if base == 16 else "0123456789"
    if not text or not set(text) <= set(digits):
        return None
    significant = text.lstrip("0") or "0"
    return int(significant, base) if len(significant) < 16 else 2**63
