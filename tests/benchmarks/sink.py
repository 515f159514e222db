"""
The server of the benchmarks, in a process of its own: it answers at once and counts later.

It speaks just enough HTTP, and answers as each protocol expects. Bodies are kept as they
came; only when asked does it unpack them and count, so it takes no time from who is measured.
"""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import re
import sys
import zlib

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple


__all__ = ["Request", "Tally", "ask", "main", "take"]

# Every event of a benchmark has an integer ``seq``; Sentry wraps it: {"value": 1, …}.
_SEQ = re.compile(rb'"seq": ?(?:\{"value": ?)?(\d+)')
# OpenTelemetry's protobuf: KeyValue{key: "seq", value: AnyValue{int_value: varint}}.
_SEQ_PROTO = re.compile(rb"\n\x03seq\x12.\x18([\x80-\xff]*[\x00-\x7f])", re.DOTALL)
_ID = re.compile(rb'"(?:uuid|messageId)": ?"([0-9a-fA-F-]{36})"')


class Request(NamedTuple):
    """One request, its body still packed."""

    path: str
    headers: Mapping[str, str]
    body: bytes


def take(buffer: bytearray) -> Request | None:
    """Remove the first request from *buffer* and return it; None while it is not complete."""
    head, found, _ = buffer.partition(b"\r\n\r\n")
    if not found:
        return None
    line, *rest = head.decode("latin-1").split("\r\n")
    pairs = (text.partition(":") for text in rest)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    start = len(head) + 4
    if headers.get("transfer-encoding", "").lower() == "chunked":
        chunked = _chunked(buffer, start)
        if chunked is None:
            return None
        body, stop = chunked
    else:
        stop = start + int(headers.get("content-length", 0))
        body = bytes(buffer[start:stop])
    if len(buffer) < stop:
        return None
    del buffer[:stop]
    return Request(line.split(" ")[1], headers, body)


def _chunked(buffer: bytearray, at: int) -> tuple[bytes, int] | None:
    """Return a chunked body and where it ends, None while it is not complete (RFC 9112, 7.1)."""
    parts: list[bytes] = []
    while (end := buffer.find(b"\r\n", at)) >= 0:
        size = int(buffer[at:end].partition(b";")[0], 16)
        at = end + 2 + size + 2
        if len(buffer) < at:
            return None
        if not size:
            return b"".join(parts), at
        parts.append(bytes(buffer[end + 2 : at - 2]))
    return None


def _unbr(body: bytes) -> bytes:
    import brotli  # it is there if a client has used it

    return bytes(brotli.decompress(body))


_UNPACK: Mapping[str, Callable[[bytes], bytes]] = {
    "": lambda body: body,
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "br": _unbr,
}


def unpacked(request: Request) -> bytes:
    """Return the body without its content coding."""
    return _UNPACK[request.headers.get("content-encoding", "")](request.body)


class Tally:
    """What arrived: requests, bytes on the wire, events, and how many of them are new."""

    def __init__(self) -> None:
        self.requests = 0
        self.wire_bytes = 0
        self.events = 0
        self._seen = bytearray()
        self._unique = 0
        self._ids: set[bytes] = set()
        self._events_with_id = 0
        self._waiting: list[Request] = []

    def add(self, request: Request, kept: bool) -> None:
        """Note a request; *kept* says whether the client may believe that it arrived."""
        self.requests += 1
        self.wire_bytes += len(request.body)
        if kept:
            self._waiting.append(request)

    def figures(self) -> dict[str, int]:
        """Unpack and count what has come in so far; the bodies are let go."""
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            body = unpacked(request)
            for number in _numbers(request.path, body):
                self._count(number)
            # The warm-up's ids are no duplicates of anything, so they do not disturb.
            ids = _ID.findall(body)
            self._events_with_id += len(ids)
            self._ids.update(ids)
        return {
            "requests": self.requests,
            "wire_bytes": self.wire_bytes,
            "delivered": self._unique,
            "duplicates": self.events - self._unique,
            "repeated_ids": self._events_with_id - len(self._ids),
        }

    def _count(self, number: int) -> None:
        self.events += 1
        if number >= len(self._seen):
            self._seen.extend(bytes(number + 1 - len(self._seen)))
        self._unique += not self._seen[number]
        self._seen[number] = 1


def _numbers(path: str, body: bytes) -> Iterator[int]:
    """Yield every ``seq`` but the warm-up's, which is negative."""
    if path.startswith("/v1/logs"):
        numbers = (_varint(found) for found in _SEQ_PROTO.findall(body))
        return (number for number in numbers if number < 2**63)
    return (int(found) for found in _SEQ.findall(body))


def _varint(octets: bytes) -> int:
    return sum((octet & 0x7F) << 7 * place for place, octet in enumerate(octets))


def _v1(request: Request) -> bytes:
    """Name every event of the batch: the one answer for which the body must be read at once."""
    verdicts = b",".join(b'"%b":{"result":"ok"}' % name for name in _ID.findall(unpacked(request)))
    return b'{"results":{%b}}' % verdicts


#: What the real servers answer, by the start of the path.
_ANSWERS: Mapping[str, Callable[[Request], bytes]] = {
    "/batch": lambda request: b'{"status":1}',
    "/i/v1/analytics/events": _v1,
    "/v1/batch": lambda request: b'{"success":true}',
    "/": lambda request: b"{}",  # Sentry and OpenTelemetry want no more
}


def answer_to(request: Request) -> bytes:
    """Return the body of a 200 for *request*."""
    prefix = next(prefix for prefix in _ANSWERS if request.path.startswith(prefix))
    return _ANSWERS[prefix](request)


def _response(status: int, body: bytes) -> bytes:
    reason = {200: "OK", 503: "Service Unavailable"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """Cut the stream into requests and hand each to *receive* with a way to answer."""

    def __init__(self, receive: Callable[[Request, Callable[[bytes], None]], None]) -> None:
        self._receive = receive
        self._buffer = bytearray()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (request := take(self._buffer)) is not None:
            self._receive(request, self.transport.write)


class _Sink:
    """The server that is measured against, and a second port to steer it by."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._mode = "up"
        self._tally = Tally()
        self._connections: list[_Connection] = []
        self._server: asyncio.AbstractServer | None = None
        self.port = 0

    async def open(self) -> None:
        """Listen; after `refuse`, again on the same port."""
        self._server = await self._loop.create_server(
            self._connected, "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def _connected(self) -> _Connection:
        self._connections.append(_Connection(self._received))
        return self._connections[-1]

    def _received(self, request: Request, reply: Callable[[bytes], None]) -> None:
        self._tally.add(request, kept=self._mode not in ("503", "hang"))
        if self._mode == "503":
            reply(_response(503, b"{}"))
        elif self._mode != "hang":
            delay = float(self._mode.partition(":")[2] or 0)
            answer = _response(200, answer_to(request))
            if delay:
                self._loop.call_later(delay, reply, answer)
            else:
                reply(answer)

    def steered(self, request: Request, reply: Callable[[bytes], None]) -> None:
        """Obey ``/mode/<mode>``, ``/reset`` and ``/figures``."""
        verb, _, mode = request.path.strip("/").partition("/")
        if verb == "mode":
            self._loop.create_task(self._switch(mode, reply))
            return
        if verb == "reset":
            self._tally = Tally()
        reply(_response(200, json.dumps(self._tally.figures()).encode()))

    async def _switch(self, mode: str, reply: Callable[[bytes], None]) -> None:
        self._mode = mode
        if mode == "refuse" and self._server is not None:
            self._server.close()
            self._server = None
            for connection in self._connections:
                connection.transport.abort()
        elif mode != "refuse" and self._server is None:
            await self.open()
        reply(_response(200, b"{}"))


async def _serve() -> None:
    sink = _Sink()
    await sink.open()
    control = await sink._loop.create_server(lambda: _Connection(sink.steered), "127.0.0.1", 0)
    print(sink.port, control.sockets[0].getsockname()[1], flush=True)
    # Ends with its parent: nothing is ever written to this pipe.
    await asyncio.to_thread(sys.stdin.read)


def ask(control_port: int, path: str) -> dict[str, int]:
    """Steer a sink from another process; return its figures for ``/figures``."""
    connection = http.client.HTTPConnection("127.0.0.1", control_port, timeout=60)
    try:
        connection.request("GET", path)
        figures: dict[str, int] = json.loads(connection.getresponse().read())
        return figures
    finally:
        connection.close()


def main() -> None:
    """Print the two ports and serve until standard input ends."""
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
