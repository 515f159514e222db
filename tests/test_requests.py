"""What a request says of who sent it: headers, cookie, proxies, and all that is hostile."""

from __future__ import annotations

import asyncio
import json
import logging
import time

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest

from hypothesis import given
from hypothesis import strategies as st

from posthog_logging import PostHogHandler, context
from posthog_logging.context import Bound
from posthog_logging.inspector import Inspector
from posthog_logging.middleware import asgi, wsgi
from posthog_logging.middleware.addresses import client_address
from posthog_logging.middleware.cookie import Visitor, visitor
from posthog_logging.middleware.front import is_asset
from posthog_logging.middleware.request import Identities, Request, describe


MakeHandler = Callable[..., PostHogHandler]
NOW = 1_700_000_000.0


# The cookie of posthog-js


def cookie_of(token: str = "phc_one", **fields: Any) -> str:
    """Return the cookie that a page has set, as the header says it."""
    value = {"distinct_id": "anon-1", "$user_state": "anonymous", **fields}
    return f"ph_{token}_posthog={quote(json.dumps(value))}"


def session(age: float = 10.0) -> list[Any]:
    return [int((NOW - age) * 1000), "session-1", int((NOW - 3600) * 1000)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (cookie_of(), Visitor("anon-1")),
        (f"a=b; {cookie_of()}; c=d", Visitor("anon-1")),
        (cookie_of(**{"$sesid": session()}), Visitor("anon-1", "session-1")),
        (cookie_of(**{"$sesid": session(31 * 60)}), Visitor("anon-1")),
        (cookie_of(**{"$user_state": "identified"}), Visitor("anon-1", None, True)),
        (cookie_of().replace("=", '="', 1) + '"', Visitor("anon-1")),
        (cookie_of(distinct_id=" \t"), None),
        (f"{cookie_of(distinct_id=7)}; {cookie_of('phc_two')}", Visitor("anon-1")),
    ],
    ids="plain others session ended identified quoted blank second".split(),
)
def test_cookie(header: str, expected: Visitor | None) -> None:
    """Id, session and state are read; a session ends after half an hour of rest."""
    assert expected == visitor(header, now=NOW)


def test_whose_cookie() -> None:
    """A token takes that project's cookie alone, under the name that posthog-js gives it."""
    header = f"{cookie_of('other')}; {cookie_of('aPLbSLcEQ', distinct_id='mine')}"

    assert Visitor("mine") == visitor(header, "a+b/c=", now=NOW)
    assert visitor(header, "phc_none", now=NOW) is None


HOSTILE_COOKIES = [
    "",
    ";;;===",
    "ph_x_posthog",
    "ph_x_posthog=",
    "ph_x_posthog=%",
    "ph_x_posthog=%FF%FE",
    "ph_x_posthog=null",
    "ph_x_posthog=[1,2]",
    "ph_x_posthog=" + quote("[" * 3000),
    "ph_x_posthog=" + quote('{"distinct_id":' * 200),
    "ph_x_posthog=" + quote('{"distinct_id": ' + "9" * 5000 + "}"),
    "ph_x_posthog=" + quote('{"distinct_id": {"a": 1}}'),
    "ph_x_posthog=" + quote('{"distinct_id": NaN}'),
    "ph_x_posthog=" + "x" * 100_000,
    "ph_" + "x" * 100_000 + "_posthog={}",
    "ph_x_posthog=" + quote('{"distinct_id": "a\\u0000\\r\\nb", "$sesid": {"1": 2}}'),
    "ph_x_posthog=" + quote('{"distinct_id": "a", "$sesid": [true, "s"]}'),
    "ph_x_posthog=" + quote('{"distinct_id": "a", "$sesid": [1e999, "s"]}'),
    "ph_x_posthog=" + quote('{"distinct_id": "a", "$sesid": ["1", 2, 3]}'),
    "ph_x_posthog=" + quote('{"distinct_id": "a", "$user_state": ["identified"]}'),
    "ph_x_posthog=" + quote('{"distinct_id": "\\ud800"}'),
    ";" * 50_000,
]


@pytest.mark.parametrize("header", [*HOSTILE_COOKIES, None, 7, b"ph_x_posthog={}"], ids=range(25))
def test_hostile_cookies(header: Any) -> None:
    """Whatever a cookie is, it is read within bounds and time, or is none."""
    began = time.perf_counter()
    found = visitor(header, now=NOW)

    assert time.perf_counter() - began < 0.5
    assert found is None or (found.distinct_id and found.session_id is None)


@given(st.text() | st.dictionaries(st.sampled_from(["distinct_id", "$sesid"]), st.none()
       | st.lists(st.integers() | st.text() | st.floats()) | st.text()).map(json.dumps).map(quote)
       .map("ph_x_posthog={}".format))  # fmt: skip
def test_any_cookie(header: str) -> None:
    """Any text is a visitor with an id, or none."""
    found = visitor(header)

    assert found is None or (found.distinct_id.strip() and isinstance(found.is_person, bool))


# Addresses


PEER = "10.0.0.1"


@pytest.mark.parametrize(
    ("forwarded_for", "forwarded", "proxies", "expected"),
    [
        ("1.1.1.1, 2.2.2.2", None, 0, PEER),
        ("1.1.1.1, 2.2.2.2", None, 1, "2.2.2.2"),
        ("1.1.1.1, 2.2.2.2", None, 2, "1.1.1.1"),
        ("1.1.1.1, 2.2.2.2", None, 3, PEER),
        (None, None, 1, PEER),
        ("2001:db8::1", None, 1, "2001:db8::1"),
        ("[2001:db8::1]:4711", None, 1, "2001:db8::1"),
        ("::ffff:1.2.3.4", None, 1, "1.2.3.4"),
        ("fe80::1%eth0", None, 1, "fe80::1"),
        ("1.2.3.4:80", None, 1, "1.2.3.4"),
        (None, "for=1.2.3.4;proto=https;by=5.6.7.8", 1, "1.2.3.4"),
        (None, 'by=x;For="[2001:db8::1]:4711", for=9.9.9.9', 2, "2001:db8::1"),
        ("1.1.1.1", "for=9.9.9.9", 1, "1.1.1.1"),
        ("unknown", None, 1, None),
        (None, "for=_hidden", 1, None),
        ("1.1.1.1,", None, 1, None),
        ("<script>, ' OR 1=1", None, 1, None),
        (", , ,", None, 2, None),
        ("1.1.1.1, " * 5000 + "3.3.3.3", None, 1, "3.3.3.3"),
        ("9" * 100_000, None, 1, None),
    ],
)
def test_addresses(forwarded_for: Any, forwarded: Any, proxies: int, expected: str | None) -> None:
    """The address is the one that the outermost trusted proxy saw, or none; never a claim."""
    assert expected == client_address(PEER, forwarded_for, forwarded, proxies)


@given(st.text(), st.text(), st.integers(-1, 5))
def test_any_address(forwarded_for: str, forwarded: str, proxies: int) -> None:
    """Whatever the headers are, an address is the peer's or one that is valid."""
    found = client_address(PEER, forwarded_for, forwarded, proxies)

    assert found is None or found == PEER or set(found) <= set("0123456789abcdef.:")


# The whole request


def seen(identities: Identities = Identities(), /, **headers: Any) -> Bound:  # noqa: B008
    """Return what a request with *headers* says."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(
        named.pop("method", "GET"),
        named.pop("path", "/play"),
        named.pop("url", "https://example.org/play"),
        named.pop("host", "example.org"),
        named.pop("query", ""),
        named.pop("peer", PEER),
        named.get,
    )
    return describe(request, identities)


def test_properties() -> None:
    """A request's particulars go under PostHog's own names."""
    bound = seen(
        query="utm_source=news&utm_medium=%20mail&utm_other=x&page=2&utm_term=",
        referer="https://user:secret@search.example:8443/find?q=1",
        user_agent="curl",
    )

    assert {
        "$request_method": "GET",
        "$request_path": "/play",
        "$pathname": "/play",
        "$current_url": "https://example.org/play",
        "$host": "example.org",
        "$referrer": "https://search.example:8443/find?q=1",
        "$referring_domain": "search.example:8443",
        "$user_agent": "curl",
        "$raw_user_agent": "curl",
        "$ip": PEER,
        "utm_source": "news",
        "utm_medium": "mail",
    } == bound.properties


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        (Identities(), ("header-1", "session-h", "header-1")),
        (Identities(headers=False), (None, None, None)),
        (Identities(cookie=True), ("header-1", "session-h", "header-1")),
        (Identities(headers=False, cookie=True), ("anon-1", None, "anon-1")),
        (Identities(headers=False, cookie="phc_one"), ("anon-1", None, "anon-1")),
        (Identities(headers=False, cookie="phc_two"), (None, None, None)),
    ],
)
def test_identities(identities: Identities, expected: tuple[Any, ...]) -> None:
    """Headers win over the cookie; neither counts where it is not asked for."""
    bound = seen(
        identities,
        x_posthog_distinct_id="header-1",
        x_posthog_session_id="session-h",
        cookie=cookie_of(),
    )
    session_id = bound.properties.get("$session_id")

    assert expected == (bound.distinct_id, session_id, bound.anonymous_id)


def test_a_persons_cookie() -> None:
    """An id that the page knows as a person's is nobody to be merged."""
    header = cookie_of(**{"$user_state": "identified"})
    cookie = Identities(cookie=True)

    assert ("anon-1", None) == seen(cookie, cookie=header)[::2][:2]
    assert "other" == seen(cookie, cookie=header, x_posthog_distinct_id="other").anonymous_id
    assert seen(cookie, cookie=header, x_posthog_distinct_id="anon-1").anonymous_id is None


ANY_HEADER = st.none() | st.text() | st.binary() | st.integers()


HEADERS = """method path url host query peer referer user_agent cookie forwarded x_forwarded_for
    x_posthog_distinct_id x_posthog_session_id""".split()


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(HEADERS, ANY_HEADER)),
    st.booleans(),
    st.integers(0, 3),
)
def test_any_request(headers: dict[str, Any], cookie: bool, proxies: int) -> None:
    """Whatever a request is, it is described: texts, short and without controls, or left out."""
    bound = seen(Identities(cookie=cookie, proxies=proxies), **headers)

    for value in (*bound.properties.values(), *filter(None, (bound[0], bound[2]))):
        assert 0 < len(value) <= 1000
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in value)


# The options of a middleware


def environ_of(path: str = "/play", **more: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "utm_source=news",
        "HTTP_HOST": "example.org",
        "HTTP_USER_AGENT": "curl",
        "REMOTE_ADDR": PEER,
        "wsgi.url_scheme": "https",
        **more,
    }


class App:
    """A WSGI application that keeps what is bound while it serves."""

    def __init__(self) -> None:
        self.bound: list[Bound | None] = []

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        self.bound.append(context.current())
        if environ["PATH_INFO"] == "/fail":
            raise ValueError("it failed")
        start_response("404 Not Found" if "missing" in environ["PATH_INFO"] else "200 OK", [])
        return [b"done"]

    @property
    def last(self) -> Bound:
        return self.bound[-1] or Bound()


def serve(environ: dict[str, Any], **options: Any) -> Bound:
    """Serve a request; return what was bound."""
    app = App()
    assert [b"done"] == wsgi.PostHogMiddleware(app, **options)(environ, lambda *_: None)
    return app.last


def test_further_properties() -> None:
    """A callable of the request adds properties, and wins."""
    bound = serve(
        environ_of(),
        properties=lambda environ: {"tenant": "acme", "$host": environ["HTTP_HOST"].upper()},
    )

    assert ("acme", "EXAMPLE.ORG") == (bound.properties["tenant"], bound.properties["$host"])


class Rubbish(dict[str, Any]):
    """A mapping that raises when it is read."""

    def keys(self) -> Any:
        raise RuntimeError

    __iter__ = keys


async def late(request: Any) -> dict[str, Any]:
    return {"late": True}


def raising(request: Any) -> Any:
    raise KeyError("secret")


@pytest.mark.parametrize(
    "properties",
    [raising, lambda _: 7, lambda _: "text", lambda _: [1], lambda _: Rubbish(a=1),
     lambda _: {1: 2, None: 3}, late, lambda _: None],
    ids="raises number text list rubbish keys async none".split(),
)  # fmt: skip
def test_bad_properties(properties: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What raises or returns rubbish costs its properties; it is told once, by name only."""
    app = App()
    served = wsgi.PostHogMiddleware(app, properties=properties)
    for _ in range(2):
        assert [b"done"] == served(environ_of(), lambda *_: None)

    assert "example.org" == app.last.properties["$host"]
    assert len(caplog.records) <= 1
    assert "secret" not in caplog.text


def test_async_properties() -> None:
    """In an asynchronous application they may be async."""
    found: list[Bound | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(context.current())

    served: Any = asgi.PostHogMiddleware(app, properties=late)
    asyncio.run(served({"type": "http", "path": "/", "headers": []}, None, None))

    assert found[0] is not None
    assert found[0].properties["late"] is True


def test_filter(make_handler: MakeHandler, inspector: Inspector) -> None:
    """A request that is none of our business passes untouched; one that cannot be told is ours."""
    options: dict[str, Any] = {
        "filter": lambda environ: environ["PATH_INFO"] == "/health",
        "handler": make_handler(),
        "http_log": True,
    }

    assert Bound() == serve(environ_of("/health"), **options)
    assert Bound() != serve(environ_of("/play"), **options)
    assert Bound() != serve(environ_of("/health"), filter=raising)
    assert options["handler"].flush(10)
    assert ["/play"] == [event.properties["$pathname"] for event in inspector.events]


@pytest.mark.parametrize(
    "options",
    [
        {"user": 7},
        {"properties": {}},
        {"filter": "x"},
        {"trusted_proxies": -1},
        {"trusted_proxies": "1"},
        {"cookie": 1},
        {"cookie": ""},
        {"trust_headers": "no"},
        {"http_log": 1},
        {"http_log": True},
        {"http_log": True, "handler": SimpleNamespace(capture_exception=print, flush=print)},
        {"is_asset": 5},
        {"handler": logging.NullHandler()},
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any]) -> None:
    """What an option cannot be is refused by its name, in every middleware."""
    from posthog_logging.middleware import django

    pytest.importorskip("django")
    name = next(iter(options))
    for make in (wsgi.PostHogMiddleware, asgi.PostHogMiddleware, django.PostHogMiddleware):
        with pytest.raises((TypeError, ValueError), match=f"^{name}: "):
            make(App(), **options)
    with pytest.raises(TypeError):
        wsgi.PostHogMiddleware(App(), cookies=True)  # type: ignore[call-arg]


# $http_log


def logged(handler: PostHogHandler, inspector: Inspector) -> list[Any]:
    assert handler.flush(10)
    assert [] == inspector.bad
    return [event for event in inspector.events if event.event == "$http_log"]


def test_http_log(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Each request but those for assets is an event, of nobody, under one id for each client."""
    handler = make_handler()
    served = wsgi.PostHogMiddleware(App(), handler=handler, http_log=True, trusted_proxies=1)
    with context.identity("not of the log"):
        for path, more in (
            ("/play", {"HTTP_X_POSTHOG_DISTINCT_ID": "user-1"}),
            ("/static/app.JS", {}),
            ("/missing", {}),
            ("/other", {"HTTP_USER_AGENT": "wget"}),
        ):
            served(environ_of(path, HTTP_X_FORWARDED_FOR="1.2.3.4", **more), lambda *_: None)
    with pytest.raises(ValueError, match="it failed"):
        served(environ_of("/fail"), lambda *_: None)

    play, missing, other, failed = logged(handler, inspector)

    assert {
        "method": "GET",
        "status_code": 200,
        "$current_url": "https://example.org/play?utm_source=news",
        "$host": "example.org",
        "$pathname": "/play",
        "$ip": "1.2.3.4",
        "$raw_user_agent": "curl",
        "$process_person_profile": False,
        "utm_source": "news",
    }.items() <= play.properties.items()
    assert 0 <= play.properties["duration_ms"] < 10_000
    assert play.distinct_id.startswith("http_log_")
    assert len(play.distinct_id) == len("http_log_") + 32
    assert play.distinct_id == missing.distinct_id != other.distinct_id
    assert [404, 200, 500] == [one.properties["status_code"] for one in (missing, other, failed)]


def test_http_log_of_a_stream(make_handler: MakeHandler, inspector: Inspector) -> None:
    """A streamed answer is logged once, when it is closed."""
    handler = make_handler()

    def streaming(environ: Any, start_response: Any) -> Any:
        start_response("206 Partial Content", [])
        yield b"piece"

    body: Any = wsgi.PostHogMiddleware(streaming, handler=handler, http_log=True)(
        environ_of(), lambda *_: None
    )
    next(iter(body))
    before = handler.counts["accepted"]
    body.close()
    body.close()

    assert (0, [206]) == (
        before,
        [one.properties["status_code"] for one in logged(handler, inspector)],
    )


def test_http_log_of_asgi(make_handler: MakeHandler, inspector: Inspector) -> None:
    """In an asynchronous application, too; who was cancelled has no status."""
    handler = make_handler()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/cancelled":
            raise asyncio.CancelledError
        await send({"type": "http.response.start", "status": 202, "headers": []})

    async def send(event: Any) -> None:
        """Be a server."""

    async def main() -> None:
        served: Any = asgi.PostHogMiddleware(app, handler=handler, http_log=True)
        await served({"type": "http", "path": "/", "headers": []}, None, send)
        with pytest.raises(asyncio.CancelledError):
            await served({"type": "http", "path": "/cancelled", "headers": []}, None, send)

    asyncio.run(main())

    first, second = logged(handler, inspector)
    assert 202 == first.properties["status_code"]
    assert "status_code" not in second.properties


def test_own_assets(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Which paths are assets may be your own rule; None and one that raises skip nothing."""
    handler = make_handler()
    for rule in (lambda path: path == "/play", raising, None):
        served = wsgi.PostHogMiddleware(App(), handler=handler, http_log=True, is_asset=rule)
        for path in ("/play", "/app.js"):
            served(environ_of(path), lambda *_: None)

    paths = [one.properties["$pathname"] for one in logged(handler, inspector)]

    assert ["/app.js", *["/play", "/app.js"] * 2] == paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/static/app.js", True), ("/logo.PNG", True), ("/a.b/c.woff2", True), ("/", False),
        ("/play", False), ("/v1.2/users", False), ("/page.html", False), ("/.js", False),
        ("", False), ("/report.pdf", False),
    ],
)  # fmt: skip
def test_is_asset(path: str, expected: bool) -> None:
    """Images, fonts, scripts and style sheets are assets; pages and answers are not."""
    assert expected is is_asset(path)


# Logging in half-way


def test_log_in_half_way(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Concurrent visitors who log in: each event and each merge is its own person's."""
    handler = make_handler()
    visits = 40

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = scope["path"][1:]
        for _ in range(3):
            handler.accept({"event": "before", "properties": {"who": number}})
            await asyncio.sleep(0)
        context.identify(f"login-user-{number}", plan="gold")
        for turn in range(3):
            handler.accept({"event": "after", "properties": {"who": number, "turn": turn}})
            await asyncio.sleep(0)

    async def main() -> None:
        served: Any = asgi.PostHogMiddleware(app, handler=handler, cookie=True)
        await asyncio.gather(
            *(
                served(
                    {
                        "type": "http",
                        "path": f"/{n}",
                        "headers": [
                            (b"cookie", b"a=b"),
                            (b"cookie", cookie_of(distinct_id=f"login-anon-{n}").encode()),
                        ],
                    },
                    None,
                    None,
                )
                for n in range(visits)
            )
        )

    asyncio.run(main())
    assert handler.flush(10)
    assert [] == inspector.bad

    for event in inspector.events:
        if event.event == "$identify":
            number = event.distinct_id.rpartition("-")[2]
            assert f"login-anon-{number}" == event.properties["$anon_distinct_id"]
        else:
            kind = "anon" if event.event == "before" else "user"
            assert f"login-{kind}-{event.properties['who']}" == event.distinct_id
    assert visits == sum(event.event == "$identify" for event in inspector.events)
    assert visits * 6 == sum(event.event != "$identify" for event in inspector.events)


def test_who_is_authenticated_is_a_person(make_handler: MakeHandler) -> None:
    """An id that *user* has returned is merged into nobody, whoever claims it in a header."""
    handler = make_handler()
    serve(environ_of(), user=lambda environ: "member-of-this-test")
    app = App()

    def logging_in(environ: Any, start_response: Any) -> list[bytes]:
        context.identify("attacker-of-this-test")
        return app(environ, start_response)

    wsgi.PostHogMiddleware(logging_in)(
        environ_of(HTTP_X_POSTHOG_DISTINCT_ID="member-of-this-test"), lambda *_: None
    )

    assert 0 == handler.counts["accepted"]
    assert "attacker-of-this-test" == app.last.distinct_id
