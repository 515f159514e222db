"""Whatever resolver, network and server do: no call waits longer than its limit."""

from __future__ import annotations

import socket
import textwrap
import threading
import time

from collections.abc import Iterator
from typing import Any

import pytest

from posthog_logging import PostHogHandler


LIMIT = 1.0
GRACE = 0.5  # what a busy machine may add
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-padding: "


class Dripping:
    """A server that sends a byte every 0.1 s, of the head or of the body, and never ends."""

    def __init__(self, start: bytes) -> None:
        self._start = start
        self._stopping = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            connection, _ = self._listening.accept()
            thread = threading.Thread(target=self._drip, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _drip(self, connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(self._start)
                while not self._stopping.wait(0.1):
                    connection.sendall(b"a")
            except OSError:  # the other side has gone
                pass

    def close(self) -> None:
        self._stopping.set()
        socket.create_connection(self._listening.getsockname()).close()
        for thread in self._threads:
            thread.join()
        self._listening.close()


BODY = HEAD + b"x\r\ncontent-length: 100000\r\n\r\n"
FAULTS = ["resolver", "dead addresses", "silence", "head", "body"]

# What a fault does to a process, before anything is sent.
BREAK = {
    "resolver": """
        def slow(*args, **more):
            time.sleep(6)
            raise socket.gaierror(-2, "Name or service not known")
        socket.getaddrinfo = slow
    """,
    "dead addresses": """
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", dead) for dead in DEAD]
        socket.getaddrinfo = lambda *args, **more: found
    """,
}


@pytest.fixture
def url(request: Any) -> Iterator[tuple[str, str]]:
    """The address of a server with a fault, and the code that breaks its client."""
    fault = request.param
    if fault in ("head", "body"):
        server = Dripping(HEAD if fault == "head" else BODY)
        yield server.url, ""
        server.close()
        return
    # Servers whose queue of connections is full take no further one: they are dead.
    full = [socket.create_server(("127.0.0.1", 0), backlog=0) for _ in range(4)]
    waiting = []
    for one in full:
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(one.getsockname())
            waiting.append(client)
    dead = [one.getsockname() for one in full]
    address = "http://events.example" if fault in BREAK else f"http://127.0.0.1:{dead[0][1]}"
    yield address, f"DEAD = {dead}\n{textwrap.dedent(BREAK.get(fault, ''))}"
    for each in (*waiting, *full):
        each.close()


CALLS = {
    "flush": "handler.flush(1)",
    "close": "handler.close(1)",
    "exit": "pass",
    "sync_mode": "pass",
}


@pytest.mark.matrix
@pytest.mark.parametrize("url", FAULTS, indirect=True)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_bounded_by_its_limit(url: Any, call: str, run_script: Any) -> None:
    """``flush(1)``, ``close(1)``, an exit and a log call in sync mode end in time."""
    address, broken = url
    program = f"""
import logging, socket, sys, time
{broken}
from posthog_logging import PostHogHandler

handler = PostHogHandler(
    "phc_x", "{address}", shutdown_timeout=1.0, timeout={1.0 if call == "sync_mode" else 15.0},
    sync_mode={call == "sync_mode"},
)
log = logging.getLogger("bounds")
log.addHandler(handler)
began = time.monotonic()
log.warning("e", extra={{"distinct_id": "u"}})
logged = time.monotonic()
{CALLS[call]}
print(logged - began, time.monotonic() - logged, time.time())
"""
    done = run_script(program)
    over = time.time()
    logged, called, left = map(float, done.stdout.split())

    assert (0, True) == (done.returncode, called < LIMIT + GRACE)
    assert logged < (3 * LIMIT + 1.0 if call == "sync_mode" else 0.2)
    # Python itself takes a while to end on a busy machine; each fault lasts six seconds or more.
    assert over - left < LIMIT + 3.5


@pytest.mark.parametrize("url", ["silence"], indirect=True)
def test_an_attempt_has_one_deadline(url: Any) -> None:
    """The thread itself is free again after ``timeout``, whatever the server does."""
    handler = PostHogHandler("phc_x", url[0], timeout=0.3, flush_interval=0.0)
    handler.accept({"event": "e", "distinct_id": "u"})
    began = time.monotonic()
    handler.flush(5)
    took = time.monotonic() - began
    handler.close(0.1)

    assert took < 1.5
