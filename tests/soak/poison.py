"""
A server that cannot take some events, in a process of its own: ``poison.py KIND``.

It refuses every batch with a poisoned event in the way of KIND, and until it has played each
fault so often it gives every few requests one of them. It prints its port, and at the end of its
input what it has got.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import sys
import threading
import time

from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


POISON = b'"poison"'
ROUNDS = 2
EVERY = 7

_NAME = re.compile(rb'"n":"([^"]+)"')
_OK = b'{"results":{},"status":"Ok"}'


class Server(ThreadingHTTPServer):
    """What it has got, and which faults are still to be played."""

    daemon_threads = True

    def __init__(self, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kind = kind
        self.names: Counter[str] = Counter()
        self.requests = self.refused = 0
        self._coming = [fault for _ in range(ROUNDS) for fault in FAULTS]
        self._lock = threading.Lock()

    def fault(self) -> str | None:
        """Count a request; return the fault that it is answered with, if any."""
        with self._lock:
            self.requests += 1
            return self._coming.pop() if self._coming and self.requests % EVERY == 0 else None

    def take(self, body: bytes) -> None:
        """Keep the events of a batch."""
        with self._lock:
            self.names.update(name.decode() for name in _NAME.findall(body))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have gone."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer a batch."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        fault = self.server.fault()
        if POISON in body:
            self.server.refused += 1
            REFUSALS[self.server.kind](self)
        elif fault is not None:
            FAULTS[fault](self, body)
        else:
            self.server.take(body)
            self.answer(200, _OK)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer in one piece."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def reset(self) -> None:
        """Break off, with RST."""
        self.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.rfile.close()
        self.connection.close()

    def hang(self) -> None:
        """Say nothing, for longer than anybody waits."""
        self.close_connection = True
        time.sleep(3.0)

    def drip(self, body: bytes) -> None:
        """Take the batch, and answer a byte at a time."""
        self.server.take(body)
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(100):
            time.sleep(0.05)
            self.wfile.write(b"x")

    def lose_answer(self, body: bytes) -> None:
        """Take the batch, and break off amid the answer."""
        self.server.take(body)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConte")
        self.reset()

    def take_and_answer(self, body: bytes, answer: bytes, **headers: str) -> None:
        """Take the batch, and answer with something that nobody can read."""
        self.server.take(body)
        self.answer(200, answer, **headers)

    def too_large(self, body: bytes) -> None:
        """Want less at once, unless it is one event."""
        if len(_NAME.findall(body)) > 1:
            self.answer(413)
        else:
            self.server.take(body)
            self.answer(200, _OK)


REFUSALS = {
    "400": lambda it: it.answer(400, b'{"error":"invalid"}'),
    "reset": Handler.reset,
    "503": lambda it: it.answer(503),
}

_PAGE = b"<html>welcome</html>"

FAULTS = {
    "503": lambda it, body: it.answer(503),
    "hang": lambda it, body: it.hang(),
    "reset": lambda it, body: it.reset(),
    "lost answer": Handler.lose_answer,
    "drip": Handler.drip,
    "500": lambda it, body: it.answer(500),
    "502": lambda it, body: it.answer(502, _PAGE),
    "429 with a time": lambda it, body: it.answer(429, Retry_After="1"),
    "429": lambda it, body: it.answer(429),
    "413": Handler.too_large,
    "page": lambda it, body: it.answer(200, _PAGE, Content_Type="text/html"),
    "garbage": lambda it, body: it.take_and_answer(body, b"\x00\xff garbage"),
    "no gzip": lambda it, body: it.take_and_answer(body, b"no gzip", Content_Encoding="gzip"),
    "408": lambda it, body: it.answer(408),
}


def main(kind: str) -> None:
    """Serve until the input ends."""
    with Server(kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()
        server.shutdown()
    print(
        json.dumps(
            {
                "names": sorted(server.names),
                "repeats": server.names.total() - len(server.names),
                "requests": server.requests,
                "refused": server.refused,
                "faults left": len(server._coming),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
