"""`RequestsTransport` against real sockets: an answer and an error are both values."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time

from pathlib import Path
from typing import Any

import pytest
import requests

from posthog_logging.delivery.transport import RequestsTransport
from posthog_logging.inspector import Answer
from posthog_logging.wire import Request


SECRET = "phc_a_very_secret_key"
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


def _hang(connection: Any, number: int, server: Any) -> None:
    server.read(connection)
    server.stopping.wait()


def _never_read(connection: Any, number: int, server: Any) -> None:
    server.stopping.wait()


@pytest.mark.parametrize(
    "behave",
    [_hang, _never_read, _drip_body, _drip_chunks],
    ids=["silent", "deaf", "dripping", "dripping chunks"],
)
def test_a_slow_server_is_bounded(behave: Any, raw_server: Any, sender: RequestsTransport) -> None:
    """Neither silence nor dripping holds the thread for longer than the time-out, or so."""
    server = raw_server(behave)
    began = time.monotonic()

    response = sender.send(post(server.url, b"x" * 10_000_000), 0.4)

    assert response.status is None
    assert response.error
    assert time.monotonic() - began < 3.0


@pytest.mark.parametrize("after", [0, 1, 40, 150], ids="after {} bytes".format)
def test_a_reset_is_an_error(after: int, inspector: Any, sender: RequestsTransport) -> None:
    """A connection that breaks off, before or amid the answer, is an error without a status."""
    inspector.answer_always = Answer(reset_after=after, body=b"x" * 500)

    response = sender.send(post(inspector.url + "/batch/"), 5.0)

    assert response.status is None
    assert response.error
    assert 1 == len(inspector.requests)


def test_an_answer_too_large_is_an_error(raw_server: Any, sender: RequestsTransport) -> None:
    """An answer of any size does not end in memory."""

    def flood(connection: Any, number: int, server: Any) -> None:
        server.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while not server.stopping.is_set():
            connection.sendall(b"x" * 1_000_000)

    response = sender.send(post(raw_server(flood).url), 30.0)

    assert response.status is None
    assert response.error.startswith("ReadTimeout")


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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(
    status: int, inspector: Any, sender: RequestsTransport
) -> None:
    """A redirect is an answer: following it would drop the body."""
    inspector.script(Answer(status=status, headers={"Location": inspector.url + "/batch/"}))

    assert status == sender.send(post(inspector.url + "/batch/"), 5.0).status
    assert 1 == len(inspector.requests)


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

    def make(ask: bool = False) -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority)
        if ask:
            context.load_verify_locations(authority[0])
            context.verify_mode = ssl.CERT_REQUIRED
        return raw_server(wrap=lambda plain: context.wrap_socket(plain, server_side=True))

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
import os, sys, requests
from posthog_logging.delivery.transport import RequestsTransport
from posthog_logging.wire import Request
session = requests.Session() if sys.argv[2] == "own" else None
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


@pytest.mark.parametrize("session", ["none", "own"])
def test_a_child_opens_its_own_connection(session: str, raw_server: Any, run_script: Any) -> None:
    """A forked child shares no connection with its parent, not even after a `close`."""
    served = []

    def behave(connection: Any, number: int, server: Any) -> None:
        while server.read(connection):
            served.append(number)
            connection.sendall(OK)

    done = run_script(FORK, raw_server(behave).url, session)

    assert (0, "") == (done.returncode, done.stderr)
    assert {"none": [1, 2, 3, 1], "own": [1, 2, 2, 1]}[session] == served


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
