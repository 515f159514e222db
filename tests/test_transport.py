"""`RequestsTransport` against real sockets: an answer and an error are both values."""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time

from pathlib import Path
from typing import Any

import pytest
import requests

from posthog_logging.delivery.clock import monotonic
from posthog_logging.delivery.transport import RequestsTransport
from posthog_logging.inspector import Answer
from posthog_logging.wire import Request


SECRET = "phc_a_very_secret_key"
FRACTION = 1.0  # seconds: what an attempt may take longer than it should, on a busy machine
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def post(url: str, body: bytes = b"{}", **headers: str) -> Request:
    return Request(url, {"Content-Type": "application/json", **headers}, body)


def field(head: bytes, name: str) -> str | None:
    """Return one header of a request's head."""
    for row in head.decode().split("\r\n")[1:]:
        key, _, value = row.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


@pytest.fixture(name="sender")
def _sender() -> Any:
    transport = RequestsTransport()
    yield transport
    transport.close()


def test_an_answer_is_a_value(inspector: Any, sender: RequestsTransport) -> None:
    """Status, headers in lower case and body come back as they are, whatever the status."""
    inspector.script(Answer(status=503, headers={"Retry-After": "7"}, body=b"busy"))

    response = sender.send(post(inspector.url + "/batch/"), 5.0)

    assert 503 == response.status
    assert "7" == response.headers["retry-after"]
    assert b"busy" == response.body
    assert "" == response.error


def test_the_request_goes_out_as_it_is(raw_server: Any, sender: RequestsTransport) -> None:
    """Path, query, body and headers, further ones too, are sent unchanged."""
    server = raw_server()

    sender.send(post(server.url + "/batch/?a=1", b"[1]", **{"X-Own": "yes"}), 5.0)

    assert server.heads[0].startswith(b"POST /batch/?a=1 HTTP/1.1")
    assert "yes" == field(server.heads[0], "x-own")
    assert "3" == field(server.heads[0], "content-length")


def test_refused_is_an_error(sender: RequestsTransport) -> None:
    """A port on which nobody listens is an error without a status."""
    response = sender.send(post(f"http://127.0.0.1:{free_port()}/?key={SECRET}"), 5.0)

    assert response.status is None
    assert "ConnectionError (ConnectionRefusedError)" == response.error


def test_an_unknown_host_is_an_error(sender: RequestsTransport) -> None:
    """A name that does not resolve is an error, and does not take longer than the time-out."""
    response = sender.send(post(f"http://nobody.invalid/?key={SECRET}"), 5.0)

    assert response.status is None
    assert response.error.startswith("ConnectionError")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "ftp://x/",
        "http://",
        "http://[::1",
        "http://a b/",
        "http://127.0.0.1:99999",
    ],
    ids=repr,
)
def test_no_url_raises(url: str, sender: RequestsTransport) -> None:
    """A URL that is none is an error, too."""
    response = sender.send(post(url), 1.0)

    assert response.status is None
    assert response.error


def _drip_body(connection: Any, number: int, server: Any) -> None:
    server.read(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while not server.stopping.wait(0.05):
        connection.sendall(b"x")


def _drip_chunks(connection: Any, number: int, server: Any) -> None:
    server.read(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not server.stopping.wait(0.05):
        connection.sendall(b"1\r\nx\r\n")


def _no_body(connection: Any, number: int, server: Any) -> None:
    server.read(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    server.stopping.wait()


def _hang(connection: Any, number: int, server: Any) -> None:
    server.read(connection)
    server.stopping.wait()


def _never_read(connection: Any, number: int, server: Any) -> None:
    server.stopping.wait()


# One deadline


def _drip_head(connection: Any, number: int, server: Any) -> None:
    server.read(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not server.stopping.wait(0.05):
        connection.sendall(b"x")


def _drip_interim(connection: Any, number: int, server: Any) -> None:
    server.read(connection)
    while not server.stopping.wait(0.05):
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def _sip(connection: Any, number: int, server: Any) -> None:
    while not server.stopping.wait(0.05):
        connection.recv(1000)


def _no_handshake(connection: Any, number: int, server: Any) -> None:
    server.stopping.wait()


WAITS = {
    "silent": _hang,
    "deaf": _never_read,
    "sipping": _sip,
    "dripping head": _drip_head,
    "dripping 103": _drip_interim,
    "dripping body": _drip_body,
    "dripping chunks": _drip_chunks,
    "no body": _no_body,
}


def _tried_on(behave: Any) -> tuple[bytes, float, int | None]:
    """Return the body and the time-out to try *behave* with, and the status that it amounts to."""
    if behave in (_drip_body, _drip_chunks, _no_body):
        return b"{}", 1.0, 200
    return b"x" * 20_000_000, 0.4, None


@pytest.fixture(name="either", params=["session of ours", "session given"])
def _either(request: Any) -> Any:
    """A transport with a session of its own, and one with the user's."""
    with requests.Session() as session:
        given = request.param == "session given"
        transport = RequestsTransport(session=session if given else None)
        yield transport
        transport.close()


def overtime(
    transport: RequestsTransport,
    url: str,
    body: bytes,
    timeout: float,
    status: int | None = None,
) -> float:
    """Send; return by how much longer than *timeout* it took, after which there is an error."""
    began = time.monotonic()
    response = transport.send(post(url, body), timeout)
    took = time.monotonic() - began

    assert status == response.status
    assert response.error
    return took - timeout


@pytest.mark.parametrize("behave", WAITS.values(), ids=WAITS)
def test_one_deadline(behave: Any, raw_server: Any, either: RequestsTransport) -> None:
    """
    Whatever a server does, an attempt ends with its time-out, or a little later.

    Where the head of an answer had come, its status counts.
    """
    server = raw_server(behave)

    assert overtime(either, server.url, *_tried_on(behave)) < FRACTION


@pytest.mark.parametrize("behave", WAITS.values(), ids=WAITS)
def test_one_deadline_with_tls(behave: Any, tls: Any, authority: tuple[str, str]) -> None:
    """The same beneath TLS."""
    transport = RequestsTransport(verify=authority[0])

    assert overtime(transport, tls(behave=behave).url, *_tried_on(behave)) < FRACTION
    transport.close()


def test_one_deadline_for_the_handshake(raw_server: Any, either: RequestsTransport) -> None:
    """A server that never answers TLS's greeting is no different."""
    server = raw_server(_no_handshake)

    assert overtime(either, f"https://127.0.0.1:{server.port}/", b"", 0.4) < FRACTION


def test_one_deadline_for_the_resolver(
    raw_server: Any, either: RequestsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that hangs is left behind; when it answers at last, its answer is used."""
    server = raw_server()
    resolve, gate, asked = socket.getaddrinfo, threading.Event(), []

    def slow(*args: Any, **options: Any) -> Any:
        asked.append(args[0])
        gate.wait(30)
        return resolve("127.0.0.1", *args[1:], **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    url = f"http://events.invalid:{server.port}/"

    late = [overtime(either, url, b"{}", 0.2) for _ in range(3)]
    gate.set()

    assert max(late) < FRACTION
    assert 200 == either.send(post(url), 5.0).status
    assert len(asked) <= 4


@pytest.fixture(name="dead_port")
def _dead_port() -> Any:
    """A port of this machine that answers no knock: its waiting room is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(full.getsockname())
        yield full.getsockname()[1]


def test_one_deadline_for_all_addresses(
    dead_port: int, either: RequestsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four addresses where nobody answers take no longer than one."""
    dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", dead_port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: [dead] * 4)

    assert overtime(either, "http://events.invalid/", b"{}", 0.4) < FRACTION


def test_a_dead_address_leaves_time_for_the_next(
    dead_port: int, raw_server: Any, sender: RequestsTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each address has its share of the time: one of two that is dead loses nothing."""
    server = raw_server()
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        for port in (dead_port, server.port)
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)

    assert 200 == sender.send(post("http://events.invalid/"), 2.0).status


def test_frozen_clocks(raw_server: Any, sender: RequestsTransport) -> None:
    """A test's frozen time stops no deadline."""
    freezegun = pytest.importorskip("freezegun")
    server = raw_server(_drip_head)
    with freezegun.freeze_time("2024-01-02"):
        began = monotonic()
        response = sender.send(post(server.url), 0.4)
        took = monotonic() - began

    assert response.status is None
    assert took - 0.4 < FRACTION


def test_few_are_left_behind(raw_server: Any) -> None:
    """Attempts of a given session that hang do not pile up: four threads, then none is begun."""
    server = raw_server(_drip_head)
    with requests.Session() as session:
        transport = RequestsTransport(session=session)
        late = [overtime(transport, server.url, b"{}", 0.4) for _ in range(7)]

    assert max(late) < FRACTION
    assert 4 == len(server.heads)


# Answers of all kinds


def _answers(*texts: bytes) -> Any:
    def behave(connection: Any, number: int, server: Any) -> None:
        for text in texts:
            if server.read(connection):
                connection.sendall(text)

    return behave


GZIPPED = gzip.compress(b'{"status":1}')

UNREADABLE = {
    "false gzip": (200, b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
    "cut gzip": (
        200,
        b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n" + GZIPPED[:9],
        b"",
    ),
    "unknown coding": (200, b"Content-Encoding: x\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
    "cut": (400, b"Content-Length: 100\r\n\r\ntoo la", b"too la"),
    "cut before the body": (400, b"Content-Length: 100\r\n\r\n", b""),
    "bad chunks": (200, b"Transfer-Encoding: chunked\r\n\r\nhello\r\n", b""),
    "cut chunks": (503, b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"hello"),
    "bad length": (200, b"Content-Length: -3\r\n\r\n{}", b"{}"),
}


@pytest.mark.parametrize(("status", "rest", "body"), UNREADABLE.values(), ids=UNREADABLE)
def test_the_status_counts(
    status: int, rest: bytes, body: bytes, raw_server: Any, either: RequestsTransport
) -> None:
    """An answer whose body cannot be read has its status, and what could be read."""
    server = raw_server(_answers(b"HTTP/1.1 %d x\r\n%b" % (status, rest)))

    response = either.send(post(server.url), 5.0)

    assert (status, body) == (response.status, response.body)


@pytest.mark.parametrize("lengths", [(b"2", b"3"), (b"2, 3",), (b"2", b"2", b"3")], ids=str)
def test_a_body_of_two_lengths(lengths: Any, raw_server: Any, sender: RequestsTransport) -> None:
    """Where the head contradicts itself the status counts, and the connection is given up."""
    head = b"".join(b"Content-Length: %b\r\n" % length for length in lengths)
    server = raw_server(_answers(b"HTTP/1.1 200 x\r\n" + head + b"\r\n{}x"))

    for _ in range(2):
        response = sender.send(post(server.url), 5.0)
        assert (200, b"") == (response.status, response.body)
        assert "HTTPException" in response.error
    assert 2 == server.connections


def test_a_length_that_is_said_twice(raw_server: Any, either: RequestsTransport) -> None:
    """The same length again is no contradiction."""
    server = raw_server(_answers(b"HTTP/1.1 200 x\r\n" + b"Content-Length: 2\r\n" * 2 + b"\r\n{}"))

    assert b"{}" == either.send(post(server.url), 5.0).body


def test_a_coded_answer_is_decoded(raw_server: Any, either: RequestsTransport) -> None:
    """What was rightly compressed comes back as it was."""
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    server = raw_server(_answers(head % len(GZIPPED) + GZIPPED))

    assert b'{"status":1}' == either.send(post(server.url), 5.0).body


@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 x\r\nLink: </a>\r\n\r\n"] * 2, ids=["1", "2"])
def test_interim_answers_are_passed_over(
    interim: bytes, raw_server: Any, sender: RequestsTransport
) -> None:
    """Any number of 1xx may stand before the answer (RFC 9110, 15.2); the connection stays."""
    server = raw_server(_answers(interim * 3 + OK, b"HTTP/1.1 100 x\r\n\r\n" + interim + OK))

    assert [200, 200] == [sender.send(post(server.url), 5.0).status for _ in range(2)]
    assert 1 == server.connections


def test_an_interim_answer_to_a_given_session(raw_server: Any) -> None:
    """Its urllib3 takes the 1xx for the answer: an error, and no later request gets the rest."""
    server = raw_server(_answers(b"HTTP/1.1 103 x\r\n\r\n" + OK))
    with requests.Session() as session:
        transport = RequestsTransport(session=session)

        assert [None, None] == [transport.send(post(server.url), 5.0).status for _ in range(2)]
    assert 2 == server.connections


class Recorded(requests.adapters.BaseAdapter):
    """An adapter as recorders have them: *raw* is not urllib3's."""

    def __init__(self, raw: Any, content: Any = False, **headers: str) -> None:
        super().__init__()
        self._raw = raw
        self._content = content
        self._headers = headers

    def send(self, request: Any, *args: Any, **options: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = 200
        response.request = request
        response.raw = self._raw
        response._content = self._content
        response.headers.update(self._headers)
        return response

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "adapter",
    [
        Recorded(io.BytesIO(b"{}")),
        Recorded(io.BytesIO(b"{}"), **{"Content-Encoding": "gzip"}),
        Recorded(None, b"{}"),
        Recorded(io.BytesIO(b"?"), b"{}"),
    ],
    ids=["bytes", "decoded bytes", "content", "read content"],
)
def test_recorded_answers(adapter: Any) -> None:
    """Adapters of a user's session may answer with anything that `requests` can read."""
    with requests.Session() as session:
        session.mount("http://", adapter)
        response = RequestsTransport(session=session).send(post("http://events.invalid/"), 5.0)

    assert (200, b"{}") == (response.status, response.body)


# What others see


def test_no_key_in_urllib3s_log(
    raw_server: Any, sender: RequestsTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """urllib3 logs every target at DEBUG: what stands in a query goes to the server only."""
    server = raw_server()
    with caplog.at_level(logging.DEBUG):
        sender.send(post(f"{server.url}/logs?token={SECRET}"), 5.0)
        sender.send(post(f"http://127.0.0.1:{free_port()}/logs?token={SECRET}"), 5.0)

    assert f"/logs?token={SECRET}".encode() == server.heads[0].split()[1]
    assert "/logs" in caplog.text
    assert SECRET not in caplog.text


def test_no_trace_of_our_requests(raw_server: Any, either: RequestsTransport) -> None:
    """OpenTelemetry's instrumentation of `requests` makes spans of the user's requests only."""
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.requests")
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    spans = memory.InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(spans))
    server = raw_server()
    instrumentor = instrumentation.RequestsInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        either.send(post(server.url), 5.0)
        ours = len(spans.get_finished_spans())
        requests.get(server.url, timeout=5).close()
    finally:
        instrumentor.uninstrument()

    assert (0, 1) == (ours, len(spans.get_finished_spans()))


GEVENT = """
import _thread, sys, warnings
warnings.simplefilter("ignore")
from posthog_logging.delivery.transport import RequestsTransport
from posthog_logging.wire import Request
transport = RequestsTransport()
request = Request(sys.argv[1], {}, b"{}")
go_on, patched, done = [_thread.allocate_lock() for _ in range(3)]
for lock in (go_on, patched, done):
    lock.acquire()
statuses = []
def work():
    statuses.append(transport.send(request, 5.0).status)
    go_on.release()
    patched.acquire()
    statuses.append(transport.send(request, 5.0).status)
    transport.close()
    statuses.append(transport.send(request, 5.0).status)
    done.release()
_thread.start_new_thread(work, ())
go_on.acquire()
from gevent import monkey
monkey.patch_all()
patched.release()
done.acquire()
assert statuses == [200] * 3, statuses
"""


def test_gevent_may_come_late(raw_server: Any, run_script: Any) -> None:
    """Patched after the first request, gevent changes sockets and locks below our thread."""
    pytest.importorskip("gevent")
    done = run_script(GEVENT, raw_server().url.replace("127.0.0.1", "localhost"))

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("after", [0, 1, 40, 150], ids="after {} bytes".format)
def test_a_reset_is_an_error(after: int, inspector: Any, sender: RequestsTransport) -> None:
    """A connection that breaks off, before or amid the answer, is an error without a status."""
    inspector.answer_always = Answer(reset_after=after, body=b"x" * 500)

    response = sender.send(post(inspector.url + "/batch/"), 5.0)

    assert response.status is None
    assert response.error
    assert 1 == len(inspector.requests)


def test_an_answer_too_large(raw_server: Any, sender: RequestsTransport) -> None:
    """An answer of any size does not end in memory, and its status counts."""

    def flood(connection: Any, number: int, server: Any) -> None:
        server.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while not server.stopping.is_set():
            connection.sendall(b"x" * 1_000_000)

    response = sender.send(post(raw_server(flood).url), 30.0)

    assert (200, "too large") == (response.status, response.error)
    assert len(response.body) < 20_000_000


def test_a_connection_is_kept(raw_server: Any, sender: RequestsTransport) -> None:
    """All requests go over one connection."""
    server = raw_server()

    assert [200] * 3 == [sender.send(post(server.url), 5.0).status for _ in range(3)]
    assert 1 == server.connections


def _stale(answering: set[int]) -> Any:
    def behave(connection: Any, number: int, server: Any) -> None:
        server.read(connection)
        if number in answering:
            connection.sendall(OK)
            server.read(connection)  # and goes away without an answer to this one

    return behave


@pytest.mark.parametrize(
    ("answering", "sends", "expected", "connections"),
    [
        ({1, 2}, 2, [200, 200], 2),
        ({1}, 2, [200, None], 2),
        (set(), 1, [None], 1),
        (set(), 2, [None, None], 2),
    ],
    ids=["stale once", "stale, then broken", "fresh: no retry", "a failure warms nothing"],
)
def test_a_stale_connection_gets_one_retry(
    answering: set[int],
    sends: int,
    expected: list[int | None],
    connections: int,
    raw_server: Any,
    sender: RequestsTransport,
) -> None:
    """Only a kept connection that turns out dead gets a second attempt at once, and only one."""
    server = raw_server(_stale(answering))

    assert expected == [sender.send(post(server.url), 5.0).status for _ in range(sends)]
    assert connections == server.connections


@pytest.mark.parametrize("status", [301, 302, 303, 304])
def test_redirects_that_drop_the_body_are_answers(
    status: int, inspector: Any, sender: RequestsTransport
) -> None:
    """Following them would lose the batch, so they come back as they are."""
    inspector.script(Answer(status=status, headers={"Location": inspector.url + "/batch/"}))

    assert status == sender.send(post(inspector.url + "/batch/"), 5.0).status
    assert 1 == len(inspector.requests)


def _redirects(status: int, *places: str) -> Any:
    """A server that sends each request on to the next of *places*, then answers."""
    following = iter(places)

    def behave(connection: Any, number: int, server: Any) -> None:
        while server.read(connection):
            place = next(following, "").format(port=server.port)
            location = f"Location: {place}\r\n" if place else ""
            code = status if place else 200
            head = f"HTTP/1.1 {code} x\r\n{location}Content-Length: 2\r\n\r\n{{}}"
            connection.sendall(head.encode())

    return behave


@pytest.mark.parametrize("own", [False, True], ids=["session of ours", "session given"])
@pytest.mark.parametrize("status", [307, 308])
def test_redirects_of_the_same_server_are_followed(
    status: int, own: bool, raw_server: Any
) -> None:
    """The same request goes where the same scheme, host and port want it (RFC 9110, 15.4.8)."""
    server = raw_server(_redirects(status, "/a?b=1", "http://127.0.0.1:{port}/c", "d"))
    with requests.Session() as session:
        transport = RequestsTransport(session=session if own else None)
        response = transport.send(post(f"{server.url}/batch/", b"[1]", **{"X-Own": "yes"}), 5.0)
        transport.close()

    assert (200, b"{}") == (response.status, response.body)
    assert [b"/batch/", b"/a?b=1", b"/c", b"/d"] == [head.split()[1] for head in server.heads]
    assert ["yes"] * 4 == [field(head, "x-own") for head in server.heads]
    assert ["3"] * 4 == [field(head, "content-length") for head in server.heads]


@pytest.mark.parametrize(
    "place",
    [
        "http://localhost:{port}/",
        "https://127.0.0.1:{port}/",
        "http://127.0.0.1:1/",
        "//other.invalid/",
        "http://[/",
        "http://127.0.0.1:x/",
        "ftp://127.0.0.1:{port}/",
    ],
)
def test_no_redirect_takes_the_key_elsewhere(
    place: str, raw_server: Any, sender: RequestsTransport
) -> None:
    """A redirect to another scheme, host or port is an answer like any other."""
    server = raw_server(_redirects(307, place))

    assert 307 == sender.send(post(server.url), 5.0).status
    assert 1 == len(server.heads)


def test_redirects_end(raw_server: Any, sender: RequestsTransport) -> None:
    """A circle of redirects ends after a few requests, with the last of them as the answer."""
    server = raw_server(_redirects(308, *["/"] * 50))

    assert 308 == sender.send(post(server.url), 5.0).status
    assert 4 == len(server.heads)


def test_netrc_is_not_read(
    raw_server: Any, sender: RequestsTransport, tmp_path: Path, monkeypatch: Any
) -> None:
    """A password for the host in ``.netrc`` is not sent, as `requests` alone would do."""
    server = raw_server()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    requests.post(server.url, b"", timeout=5).close()
    sender.send(post(server.url), 5.0)

    assert field(server.heads[0], "authorization")
    assert field(server.heads[1], "authorization") is None


def test_own_authorization_is_kept(raw_server: Any, sender: RequestsTransport) -> None:
    """The dialect's own header goes out as it is."""
    server = raw_server()

    sender.send(post(server.url, Authorization="Bearer x"), 5.0)

    assert "Bearer x" == field(server.heads[0], "authorization")


def test_a_proxy_is_used(raw_server: Any) -> None:
    """With ``proxies`` the request goes to the proxy, and the caller's mapping stays as it was."""
    proxy = raw_server()
    proxies = {"http": proxy.url}
    transport = RequestsTransport(proxies=proxies)

    assert 200 == transport.send(post("http://nobody.invalid/batch/"), 5.0).status
    assert proxy.heads[0].startswith(b"POST http://nobody.invalid/batch/ HTTP/1.1")
    transport.close()


def test_the_environments_proxy_is_used(raw_server: Any, monkeypatch: Any) -> None:
    """``HTTP_PROXY`` and ``NO_PROXY`` count, and change nothing that the caller gave."""
    proxy, direct = raw_server(), raw_server()
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    proxies = {"https": "http://other.invalid"}
    transports = [RequestsTransport(proxies=proxies) for _ in range(2)]

    transports[0].send(post("http://nobody.invalid/"), 5.0)
    transports[1].send(post(direct.url), 5.0)

    assert (1, 1) == (len(proxy.heads), len(direct.heads))
    assert {"https": "http://other.invalid"} == proxies
    for transport in transports:
        transport.close()


@pytest.fixture(name="authority", scope="module")
def _authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The paths of a certificate that signs itself, for 127.0.0.1, and of its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = str(folder / "own.crt"), str(folder / "own.key")
    command = f"""openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes
        -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1
        -addext keyUsage=critical,digitalSignature,keyCertSign -keyout {key} -out {certificate}"""
    subprocess.run(command.split(), check=True, capture_output=True)
    return certificate, key


@pytest.fixture(name="tls")
def _tls(authority: tuple[str, str], raw_server: Any) -> Any:
    """A maker of servers that speak TLS."""

    def make(ask: bool = False, **options: Any) -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority)
        if ask:
            context.load_verify_locations(authority[0])
            context.verify_mode = ssl.CERT_REQUIRED
        return raw_server(
            wrap=lambda plain: context.wrap_socket(plain, server_side=True), **options
        )

    return make


def test_a_certificate_is_verified(tls: Any, sender: RequestsTransport) -> None:
    """A server that nobody vouches for gets nothing."""
    server = tls()

    response = sender.send(post(f"{server.url}/?key={SECRET}"), 5.0)

    assert response.status is None
    assert response.error.startswith("SSLError")
    assert [] == server.heads


def test_a_bundle_is_trusted(tls: Any, authority: tuple[str, str], monkeypatch: Any) -> None:
    """A CA bundle may be given, or stand in the environment."""
    server = tls()
    given = RequestsTransport(verify=authority[0])
    assert 200 == given.send(post(server.url), 5.0).status

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority[0])
    found = RequestsTransport()
    assert 200 == found.send(post(server.url), 5.0).status
    for transport in (given, found):
        transport.close()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_verification_can_be_off(tls: Any, monkeypatch: Any) -> None:
    """``verify=False`` trusts anybody, whatever the environment says."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", __file__)
    transport = RequestsTransport(verify=False)

    assert 200 == transport.send(post(tls().url), 5.0).status
    transport.close()


def test_a_client_certificate_is_shown(tls: Any, authority: tuple[str, str]) -> None:
    """A server that asks for a certificate gets the one that was given."""
    server = tls(ask=True)
    without = RequestsTransport(verify=authority[0])
    shown = RequestsTransport(verify=authority[0], cert=authority)

    assert [None, 200] == [one.send(post(server.url), 5.0).status for one in (without, shown)]
    for transport in (without, shown):
        transport.close()


def test_an_own_session_is_kept(raw_server: Any) -> None:
    """A session that was given keeps its headers, and is not closed."""
    server = raw_server()
    with requests.Session() as session:
        session.headers["X-Session"] = "mine"
        transport = RequestsTransport(session=session)
        transport.send(post(server.url), 5.0)
        transport.close()
        session.post(server.url, b"", timeout=5).close()

    assert ["mine", "mine"] == [field(head, "x-session") for head in server.heads]
    assert 1 == server.connections


@pytest.mark.parametrize("where", ["transport", "session"])
def test_an_auth_is_used(where: str, raw_server: Any) -> None:
    """An auth of `requests` may be given, alone or on a session."""
    server = raw_server()
    with requests.Session() as session:
        if where == "session":
            session.auth = ("user", "password")
        auth = ("user", "password") if where == "transport" else None
        RequestsTransport(session=session, auth=auth).send(post(server.url), 5.0)

    assert "Basic dXNlcjpwYXNzd29yZA==" == field(server.heads[0], "authorization")


def test_it_can_be_closed_and_used_again(raw_server: Any, sender: RequestsTransport) -> None:
    """`close` ends the connections; a later `send` opens a new one."""
    server = raw_server()

    sender.send(post(server.url), 5.0)
    sender.close()
    sender.close()

    assert 200 == sender.send(post(server.url), 5.0).status
    assert 2 == server.connections


FORK = """
import os, sys, threading, requests
from posthog_logging.delivery.transport import RequestsTransport
from posthog_logging.wire import Request
class Tuned(requests.adapters.HTTPAdapter):
    def __init__(self, size):
        self.size = size
        super().__init__()
    def init_poolmanager(self, *args, **options):
        options["blocksize"] = self.size
        super().init_poolmanager(*args, **options)
class Session(requests.Session):
    def __init__(self, lock):
        super().__init__()
        self.lock = lock  # nobody can copy one
session = None if sys.argv[2] == "none" else Session(threading.Lock())
if sys.argv[2] == "tuned":
    session.mount("http://", Tuned(4096))
transport = RequestsTransport(session=session)
request = Request(sys.argv[1], {}, b"{}")
assert transport.send(request, 5.0).status == 200
pid = os.fork()
if pid == 0:
    first = transport.send(request, 5.0).status
    transport.close()
    os._exit(0 if first == transport.send(request, 5.0).status == 200 else 1)
assert os.waitpid(pid, 0)[1] == 0
assert transport.send(request, 5.0).status == 200
"""


@pytest.mark.parametrize("session", ["none", "own", "tuned"])
def test_a_child_opens_its_own_connection(session: str, raw_server: Any, run_script: Any) -> None:
    """A forked child has its parent's session, but none of its connections."""
    served = []

    def behave(connection: Any, number: int, server: Any) -> None:
        while server.read(connection):
            served.append(number)
            connection.sendall(OK)

    done = run_script(FORK, raw_server(behave).url, session)

    assert (0, "") == (done.returncode, done.stderr)
    assert ([1, 2, 3, 1] if session == "none" else [1, 2, 2, 1]) == served


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/?key={key}",
        "http://nobody.invalid/{key}",
        "http://{key}/?key={key}",
        "http://{key}:bad/",
        "nonsense {key}",
        "http://[{key}/",
    ],
)
def test_errors_quote_nothing(url: str, sender: RequestsTransport) -> None:
    """No error contains the URL, for a key may stand in it; and no `repr` does."""
    response = sender.send(post(url.format(port=free_port(), key=SECRET)), 5.0)

    assert response.status is None
    assert "secret" not in response.error + repr(sender)
    assert "http:" not in response.error
