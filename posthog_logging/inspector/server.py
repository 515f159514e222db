"""
The HTTP of the inspector: reads requests, asks the judge, and answers as the script wants.

The only module here that touches sockets. It listens on 127.0.0.1 and nowhere else, and asks
`visitors` who may come in. Numbers in a request's head are read with care: they may have 5,000
digits, which Python refuses to read with an exception of its own.
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
from .rules import JSON, Asked, Judge, Judged, decide, find_judge
from .store import Store
from .visitors import may_look, may_send


__all__ = ["HOST", "Server"]

HOST = "127.0.0.1"
_MOST_BYTES = 64 * 1024 * 1024
_MOST_LINE = 1024
_MOST_TRAILERS = 100
_PROMPTLY = 2.0  # seconds: how long `stop` waits for threads that have nothing left to wait for


class Server(ThreadingHTTPServer):
    """A listening server with a thread a connection, all of which `stop` ends at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, port: int, store: Store, script: Script, forward: Callable[[Asked], None]
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
            self._thread.join(_PROMPTLY)
        self.server_close()
        with self._changed:
            for connection in self._open:
                _shut(connection)
            self._changed.wait_for(lambda: not self._open, _PROMPTLY)

    def _serve(self) -> None:
        # Not `serve_forever`: it polls, so that its end is late by up to one interval.
        while not self.stopping.is_set():
            self.handle_request()

    def _wake(self) -> None:
        try:
            socket.create_connection((HOST, self.server_port), _PROMPTLY).close()
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
        """Ignore clients that disconnect; anything else is a bug here, and shown."""
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
            self._sent(judge, Asked(url.path, query, headers, b"", time.time()))
        else:
            self._look(url.path, query, headers)

    # The hook's own names.
    do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815
    do_DELETE = do_OPTIONS = do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the hook's own name
        """Log nothing: the inspector's page is its log."""

    def _look(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> None:
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

    def _sent(self, judge: Judge, asked: Asked) -> None:
        """Answer a request to an ingestion path."""
        if not may_send(asked.headers, by_proxy=self.path.startswith("http://")):
            self._send(403, {**JSON, **_CLOSE}, _FOREIGN)
        elif self.command == "POST":
            self._ingest(judge, asked)
        else:
            played = self.server.script.visited(self.command, asked.path)
            answer = played or Answer(405, {"Allow": "POST"})
            headers = {**answer.headers, **_CLOSE}  # a body, if there is one, is not read
            self._send(answer.status, headers, answer.body or b"")

    def _ingest(self, judge: Judge, asked: Asked) -> None:
        answer = self.server.script.next(self.command, asked.path)
        strips = self.server.script.strips
        if strips:
            kept = {name: value for name, value in asked.headers.items() if name not in strips}
            asked = asked._replace(headers=kept)
        if answer.reset_after == 0:
            self.server.store.add(asked, judge.dialect, Judged(0))
            self._break_off()
            return
        body = self._read()
        if isinstance(body, int):
            self.server.store.add(asked, judge.dialect, Judged(body))
            self._send(body, _CLOSE, b"")
            return
        asked = asked._replace(body=body, verdicts=answer.verdicts)
        judged = decide(judge, asked, answer)
        # Before the answer goes out: who has read it finds the events here.
        self.server.store.add(asked, judge.dialect, judged)
        if 200 <= judged.status < 300:  # what was refused is the client's to send again
            self.server.forward(asked)
        if self.server.stopping.wait(None if answer.hang else answer.delay):
            self.close_connection = True
            return
        self._send(judged.status, judged.headers, judged.body, answer)

    def _read(self) -> bytes | int:
        """
        Return the request's body, or the status of the refusal where it cannot be read.

        After such a status the connection must end: nobody knows where the next request begins.
        """
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._read_chunks()
        lengths = set(self.headers.get_all("Content-Length", ()))
        if not lengths:
            return 411
        length = _whole_number(lengths.pop(), 10)
        if length is None or lengths:  # several that differ: no one knows where the body ends
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
        """Write one response, in one piece unless *answer* wants it otherwise."""
        head, body = self._head(status, headers, body)
        if self.command == "HEAD":
            body = b""
        if answer is not None and answer.reset_after is not None:
            self.wfile.write((head + body)[: answer.reset_after])
            self._break_off()
        elif answer is not None and answer.drip:
            self.wfile.write(head)
            self._drip(body, answer.drip)
        else:
            self.wfile.write(head + body)

    def _stream(self, status: int, headers: Mapping[str, str], parts: Iterator[bytes]) -> None:
        """Write what comes as it comes; the end of the connection is the end of the body."""
        head, _ = self._head(status, {**headers, **_CLOSE}, None)
        self.wfile.write(head)
        for part in parts:
            self.wfile.write(part)

    def _head(
        self, status: int, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[bytes, bytes]:
        """Return the head and the body; None is one whose length nobody knows yet."""
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

    def _break_off(self) -> None:
        """Close with a reset: with no time to linger, the kernel sends RST instead of FIN."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # the descriptor lives as long as the file made of it
        self.connection.close()


_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_CLOSE = {"Connection": "close"}
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_FOREIGN = (
    b'{"error":"only for programs of this machine and for the inspector\'s own page: '
    b'Host is not local, or Origin is another site"}'
)


def _whole_number(text: str, base: int) -> int | None:
    """Return the number that *text* is, in digits alone; one that is too long is just huge."""
    digits = "0123456789abcdefABCDEF" if base == 16 else "0123456789"
    if not text or not set(text) <= set(digits):
        return None
    return int(text, base) if len(text.lstrip("0")) < 16 else 2**63
