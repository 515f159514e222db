"""What the tests share: a clock, a transport, lines, handlers and raw servers."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
import types
import uuid

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypothesis import HealthCheck, settings

import posthog_logging

from posthog_logging.events.message import Message
from posthog_logging.handler import PostHogHandler
from posthog_logging.wire import Request, Response, posthog_protocol
from posthog_logging.wire.posthog import V0


HERE = str(Path(posthog_logging.__file__).parent.parent)  # where children find the package
OURS = """POSTHOG_API_KEY POSTHOG_PROJECT_TOKEN POSTHOG_HOST POSTHOG_BROKER POSTHOG_DISABLED
    POSTHOG_RELEASE_ID""".split()
MOMENT = "2024-01-02T03:04:05.678000Z"

# No example has a deadline: how long one takes says what else the machine did.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def load_without(hidden: str, module: types.ModuleType) -> types.ModuleType:
    """Load *module* a second time, where the import of *hidden* fails."""
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_bare", str(module.__file__))
    assert spec is not None
    assert spec.loader is not None
    bare = importlib.util.module_from_spec(spec)
    before = sys.modules.get(hidden)
    sys.modules[hidden] = None  # type: ignore[assignment]  # what makes an import fail
    try:
        spec.loader.exec_module(bare)
    finally:
        del sys.modules[hidden]
        if before is not None:
            sys.modules[hidden] = before
    return bare


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeTransport:
    """
    A transport that gives the scripted answers in turn, then `default`.

    An answer is a status, a `Response`, an exception to raise, or a callable that is given
    the request and returns one of these.
    """

    def __init__(self) -> None:
        self.answers: deque[Any] = deque()
        self.default: Any = Response(200, body=b'{"results":{}}')
        self.requests: list[Request] = []
        self.timeouts: list[float] = []
        self.closed = 0

    def script(self, *answers: Any) -> None:
        self.answers.extend(answers)

    def send(self, request: Request, timeout: float) -> Response:
        self.requests.append(request)
        self.timeouts.append(timeout)
        answer = self.answers.popleft() if self.answers else self.default
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, BaseException):
            raise answer
        return Response(answer) if isinstance(answer, int) else answer

    def close(self) -> None:
        self.closed += 1


class RawServer:
    """
    A TCP server on 127.0.0.1 that does with each connection what *behave* does.

    *behave* is called with the connection, the number of the connection from 1 on, and
    the server; ``heads`` is for what it wants to remember.
    """

    def __init__(self, behave: Callable[[Any, int, RawServer], None], wrap: Any = None) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._behave = behave
        self._wrap = wrap
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"{'https' if wrap else 'http'}://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def close(self) -> None:
        self.stopping.set()
        for open_one in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                open_one.shutdown(socket.SHUT_RDWR)  # a `close` alone wakes no thread
            open_one.close()
        for thread in self._threads:
            thread.join(5)

    def read(self, connection: Any) -> bytes:
        """Return the head of one request, and read its body; b"" at the end."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            if not piece:
                return b""
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        lengths = [
            int(row.split(b":")[1])
            for row in head.split(b"\r\n")
            if row.lower().startswith(b"content-length:")
        ]
        while len(body) < sum(lengths):
            body += connection.recv(65536)
        self.heads.append(head)
        return head

    def _run(self, work: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=work, args=args, name="raw server", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            self._run(self._serve, connection, self.connections)

    def _serve(self, connection: Any, number: int) -> None:
        with contextlib.suppress(OSError):
            if self._wrap is not None:
                connection = self._wrap(connection)
                self._open.append(connection)
            self._behave(connection, number, self)
        with contextlib.suppress(OSError):
            connection.close()


def answer_each(connection: Any, number: int, server: RawServer) -> None:
    """Answer every request with a 200, on one connection."""
    while server.read(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the user's environment out, and logging as it was."""
    for name in (*OURS, "NETRC", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    own = logging.getLogger("posthog_logging").level
    posthog_protocol._MEMORY.clear()  # another test's server may have had the port
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("posthog_logging").setLevel(own)


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until `advance`."""
    return Clock()


@pytest.fixture
def transport() -> FakeTransport:
    """A transport with a script."""
    return FakeTransport()


@pytest.fixture
def message() -> Callable[..., Message]:
    """A maker of messages, each with a uuid of its own."""
    numbers = itertools.count(1)

    def make(event: str = "movie played", distinct_id: str = "user-1", **fields: Any) -> Message:
        name = fields.pop("uuid", None) or str(uuid.UUID(int=next(numbers), version=4))
        timestamp = fields.pop("timestamp", MOMENT)
        return Message(event, distinct_id, fields.pop("properties", {}), name, timestamp)

    return make


@pytest.fixture
def line(message: Callable[..., Message]) -> Callable[..., bytes]:
    """A maker of lines, of PostHog's V0 unless a ``dialect`` is given."""

    def make(dialect: Any = V0, **fields: Any) -> bytes:
        made: bytes = dialect.line(message(**fields))
        return made

    return make


@pytest.fixture
def inspector() -> Iterator[Any]:
    """The local server, fresh for each test."""
    from posthog_logging.inspector import Inspector

    with Inspector() as server:
        yield server


@pytest.fixture
def make_handler(inspector: Any) -> Iterator[Callable[..., PostHogHandler]]:
    """A maker of handlers that send to the inspector, and that are closed in the end."""
    made = []

    def make(api_key: str | None = "phc_test", **options: Any) -> PostHogHandler:
        handler = PostHogHandler(api_key, options.pop("host", inspector.url), **options)
        made.append(handler)
        return handler

    yield make
    for handler in made:
        handler.close()


@pytest.fixture
def make_log() -> Iterator[Callable[..., logging.Logger]]:
    """A maker of loggers with the given handlers, that nothing else hears."""
    made = []
    numbers = itertools.count(1)

    def make(*handlers: logging.Handler, level: int = logging.DEBUG) -> logging.Logger:
        log = logging.getLogger(f"tests.log{next(numbers)}")
        log.handlers[:] = handlers
        log.propagate = False
        log.setLevel(level)
        made.append(log)
        return log

    yield make
    for log in made:
        log.handlers.clear()
        log.propagate = True


@pytest.fixture
def raw_server() -> Iterator[Callable[..., RawServer]]:
    """A maker of raw servers; without a behaviour, one that answers each request with a 200."""
    made = []

    def make(behave: Any = answer_each, **options: Any) -> RawServer:
        server = RawServer(behave, **options)
        made.append(server)
        return server

    yield make
    for server in made:
        server.close()


@pytest.fixture
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A runner of scripts in an interpreter of their own, arguments in ``sys.argv``."""

    def run(script: str, *args: str, timeout: float = 50.0, **env: str) -> Any:
        # From 3.15 on CPython warns of a fork beside a thread, which is what some scripts try.
        fork = "ignore:This process:DeprecationWarning"
        return subprocess.run(
            [sys.executable, "-W", "error", "-W", fork, "-c", script, *args],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "PYTHONPATH": HERE, **env},
            check=False,
        )

    return run
