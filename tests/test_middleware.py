"""Identity and properties of requests and tasks, through each kind of application."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import io
import logging
import sys
import threading
import types
import wsgiref.util
import wsgiref.validate

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from posthog_logging import Analytics, PostHogHandler, context
from posthog_logging.context import Bound
from posthog_logging.errors import steps
from posthog_logging.errors.exception_list import TASK, middleware
from posthog_logging.inspector import Inspector
from posthog_logging.middleware import asgi, request, wsgi


ID, SESSION = "X-POSTHOG-DISTINCT-ID", "X-POSTHOG-SESSION-ID"


class Reports:
    """A handler that reports exceptions: it keeps them, with whom they happened to."""

    def __init__(self, failing: bool = False) -> None:
        self.seen: list[tuple[str, Any, Any]] = []
        self._failing = failing

    def capture_exception(self, error: BaseException, boundary: Any) -> None:
        bound = context.current()
        self.seen.append((str(error), boundary, bound and bound.distinct_id))
        if self._failing:
            raise RuntimeError

    def flush(self) -> bool:
        return True


class Looks:
    """What was bound, each time that somebody looked."""

    def __init__(self) -> None:
        self.seen: list[Bound | None] = []

    def __call__(self) -> None:
        self.seen.append(context.current())

    @property
    def ids(self) -> list[Any]:
        return [bound and bound.distinct_id for bound in self.seen]

    @property
    def last(self) -> dict[str, Any]:
        bound = self.seen[-1]
        return {} if bound is None else dict(bound.properties)


@pytest.fixture
def look() -> Looks:
    """What the application calls to see what is bound."""
    return Looks()


# --- headers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("user-1", "user-1"),
        ("  user-1\t", "user-1"),
        ("us\x00er\r\n-1\x7f\x9f", "user-1"),
        ("\x01 user-1 \x02", "user-1"),
        ("x" * 5000, "x" * 1000),
        ("", None),
        (" \t\r\n", None),
        (None, None),
        (7, None),
        (b"user-1", "user-1"),
        ("josé".encode(), "josé"),
        ("josé".encode().decode("latin-1"), "josé"),
        ("josé".encode("latin-1"), "josé"),
        ("日本", "日本"),
        (b"\xc2\x85user\xff", "Âuserÿ"),
    ],
    ids=(
        "plain trimmed controls controls-around-blanks capped empty blank none number bytes utf-8"
        " utf-8-in-latin-1 latin-1 wide c1-in-broken-utf-8"
    ).split(),
)
def test_clean(value: Any, expected: str | None) -> None:
    """Header values are trimmed, rid of C0 and C1, capped at 1,000; empty ones are none."""
    assert expected == request.clean(value)


@given(st.text() | st.binary())
def test_clean_is_total(value: Any) -> None:
    """Whatever comes in a header, what is left is short, trimmed, and without controls."""
    text = request.clean(value)

    assert text is None or (text == text.strip() and 0 < len(text) <= 1000)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text or "")


# --- WSGI


def environ_of(path: str = "/play", **headers: str) -> dict[str, Any]:
    environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "page=2"}
    wsgiref.util.setup_testing_defaults(environ)
    environ["REMOTE_ADDR"] = "192.0.2.7"
    environ.update({f"HTTP_{key.upper()}": value for key, value in headers.items()})
    return environ


def serve(application: Any, environ: dict[str, Any]) -> bytes:
    """Serve one request as a server does, with the specification's own validator between."""
    body = wsgiref.validate.validator(application)(environ, lambda *_: lambda data: None)
    try:
        return b"".join(body)
    finally:
        body.close()  # type: ignore[attr-defined]


def plain(look: Looks) -> Any:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        look()
        start_response("201 Created", [("Content-Type", "text/plain")])
        look()
        return [b"done"]

    return application


def streaming(look: Looks) -> Any:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        look()
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            for _ in range(2):
                look()
                yield b"piece"
        finally:
            look()

    return application


def test_wsgi(look: Looks) -> None:
    """A WSGI request's headers are the identity, its particulars the properties."""
    application = wsgi.PostHogMiddleware(plain(look))
    headers = {"x_posthog_distinct_id": " user-1\t", "x_posthog_session_id": "s-1"}

    assert b"done" == serve(application, environ_of(**headers, user_agent="curl"))

    assert ["user-1", "user-1"] == look.ids
    assert {
        "$session_id": "s-1",
        "$request_method": "GET",
        "$request_path": "/play",
        "$current_url": "http://127.0.0.1/play?page=2",
        "$host": "127.0.0.1",
        "$pathname": "/play",
        "$user_agent": "curl",
        "$raw_user_agent": "curl",
        "$ip": "192.0.2.7",
        "$response_status": 201,
    } == look.last
    assert context.current() is None


def test_wsgi_streaming(look: Looks) -> None:
    """A body that is made while it is sent is made in its request's context, to the last line."""
    application = wsgi.PostHogMiddleware(streaming(look))
    bodies = [
        application(environ_of(x_posthog_distinct_id=f"user-{n}"), lambda *_: None)
        for n in range(2)
    ]
    for _ in range(2):
        for body in bodies:  # as interleaved as a server with greenlets may be
            next(iter(body))
    for body in bodies:
        body.close()  # type: ignore[attr-defined]

    assert ["user-0", "user-0", "user-1", "user-1", *["user-0", "user-1"] * 2] == look.ids
    assert 200 == look.last["$response_status"]
    assert context.current() is None


def test_wsgi_bodies_at_rest(look: Looks) -> None:
    """A list and the server's own file wrapper come through as they are."""
    environ = environ_of()
    environ["wsgi.file_wrapper"] = wsgiref.util.FileWrapper
    for body in ([b"a"], (b"a",), wsgiref.util.FileWrapper(io.BytesIO(b"a"))):
        application = wsgi.PostHogMiddleware(lambda *_, body=body: body)  # type: ignore[misc]

        assert application(environ, lambda *_: None) is body


def failing_at_once(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    raise ValueError("at once")


def failing_later(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    yield b"piece"
    raise ValueError("later")


@pytest.mark.parametrize("failing", [False, True], ids=["reports", "fails to report"])
@pytest.mark.parametrize(
    ("application", "text"),
    [(failing_at_once, "at once"), (failing_later, "later")],
    ids=["call", "body"],
)
def test_wsgi_exceptions(application: Any, text: str, failing: bool) -> None:
    """An exception that escapes is reported with whom it happened to, and raised again."""
    reports = Reports(failing)
    served = wsgi.PostHogMiddleware(application, handler=reports)

    with pytest.raises(ValueError, match=text):
        list(served(environ_of(x_posthog_distinct_id="user-1"), lambda *_: None))

    assert [(text, middleware("wsgi.middleware"), "user-1")] == reports.seen
    assert context.current() is None


def test_wsgi_without_a_reporter() -> None:
    """No handler changes nothing about raising."""
    with pytest.raises(ValueError, match="at once"):
        wsgi.PostHogMiddleware(failing_at_once, handler=None)(environ_of(), lambda *_: None)


@pytest.mark.parametrize(
    "handler", ["phc_abc", logging.NullHandler(), Reports, PostHogHandler, True], ids=str
)
def test_what_is_no_reporter(handler: Any) -> None:
    """What can report no exception, as a key or a class, is refused where it is given."""
    celery = pytest.importorskip("posthog_logging.middleware.celery")
    pytest.importorskip("celery")
    text = r"^handler: must be an object with capture_exception\(\) and flush\(\), not a value"
    for give in (
        partial(wsgi.PostHogMiddleware, failing_at_once),
        partial(asgi.PostHogMiddleware, failing_at_once),
        celery.connect,
    ):
        with pytest.raises(TypeError, match=text):
            give(handler=handler)


def test_analytics_report(inspector: Inspector) -> None:
    """An `Analytics` reports an exception as its handler does."""
    analytics = Analytics("phc_test", inspector.url)
    with pytest.raises(ValueError, match="at once"):
        wsgi.PostHogMiddleware(failing_at_once, handler=analytics)(
            environ_of(x_posthog_distinct_id="user-1"), lambda *_: None
        )
    analytics.close()

    (event,) = inspector.events
    assert "user-1" == event.distinct_id
    assert "wsgi.middleware" == event.properties["$exception_source"]


async def late_user(request: Any) -> str:
    return "late"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (lambda environ: "member-7", "member-7"),
        (lambda environ: 7, 7),
        (lambda environ: None, "user-1"),
        (lambda environ: environ["no such key"], "user-1"),
        (late_user, "user-1"),
        (None, "user-1"),
    ],
    ids=["wins", "number", "nobody", "raises", "async", "none"],
)
def test_wsgi_user(user: Any, expected: Any, look: Looks) -> None:
    """The user of yours wins over the header; one that fails is told, and the request served."""
    application = wsgi.PostHogMiddleware(plain(look), user=user)

    assert b"done" == serve(application, environ_of(x_posthog_distinct_id="user-1"))
    assert expected == look.ids[0]


def test_a_failing_user_is_told_once(look: Looks, caplog: pytest.LogCaptureFixture) -> None:
    """A user callable that always fails is told once, by the exception's name only."""
    application = wsgi.PostHogMiddleware(plain(look), user=lambda environ: {}["secret"])
    for _ in range(3):
        serve(application, environ_of())

    (told,) = caplog.records

    assert "wsgi.middleware: user failed with KeyError; the request goes on" in told.getMessage()
    assert "secret" not in told.getMessage()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"REQUEST_METHOD": None, "PATH_INFO": None, "HTTP_HOST": 7, "REMOTE_ADDR": b"\xff"},
        {"HTTP_HOST": "evil\r\nhost", "PATH_INFO": "/\ud800\x00", "QUERY_STRING": "\udfff"},
        {"HTTP_X_POSTHOG_DISTINCT_ID": object(), "HTTP_USER_AGENT": "x" * 10**6},
    ],
    ids=["empty", "other types", "hostile", "objects"],
)
def test_wsgi_bad_environs(environ: dict[str, Any], look: Looks) -> None:
    """A request that is not as PEP 3333 says is served all the same."""
    assert [b"done"] == wsgi.PostHogMiddleware(plain(look))(environ, lambda *_: None)
    assert all(len(str(value)) <= 1000 for value in look.last.values())


# --- ASGI


def scope_of(*headers: tuple[str, str], **more: Any) -> dict[str, Any]:
    raw = [(key.encode(), value.encode()) for key, value in (("Host", "example.org"), *headers)]
    return {
        "type": "http",
        "method": "POST",
        "scheme": "https",
        "path": "/play/é",
        "query_string": b"page=2",
        "headers": raw,
        "client": ("192.0.2.7", 1234),
        "server": ("127.0.0.1", 80),
        **more,
    }


async def nothing(*_: Any) -> Any:
    """Be a `receive` with nothing to say, or a `send` that nobody reads."""


def asgi_app(look: Looks) -> Any:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        look()
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 202, "headers": []})
        for more in (True, False):
            look()
            await send({"type": "http.response.body", "body": b"piece", "more_body": more})

    return application


def test_asgi(look: Looks) -> None:
    """An ASGI request's headers are the identity, in any case; the rest are properties."""
    application = asgi.PostHogMiddleware(asgi_app(look))
    scope = scope_of((ID, "user-1"), (SESSION.title(), "s-1"), ("user-agent", "curl"))

    asyncio.run(application(scope, nothing, nothing))

    assert ["user-1"] * 3 == look.ids
    assert {
        "$session_id": "s-1",
        "$request_method": "POST",
        "$request_path": "/play/é",
        "$current_url": "https://example.org/play/%C3%A9?page=2",
        "$host": "example.org",
        "$pathname": "/play/é",
        "$user_agent": "curl",
        "$raw_user_agent": "curl",
        "$ip": "192.0.2.7",
        "$response_status": 202,
    } == look.last


def test_asgi_concurrent_requests(look: Looks) -> None:
    """Requests that take turns on one thread, and in one context, see each their own."""
    seen: dict[str, list[Any]] = {}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(5):
            bound = context.current()
            seen.setdefault(scope["path"], []).append(bound and bound.distinct_id)
            await asyncio.sleep(0)

    async def main() -> None:
        served = asgi.PostHogMiddleware(application)
        await asyncio.gather(
            *(
                served(scope_of((ID, f"user-{n}"), path=f"/{n}"), nothing, nothing)
                for n in range(9)
            )
        )
        look()

    asyncio.run(main())

    assert {f"/{n}": [f"user-{n}"] * 5 for n in range(9)} == seen
    assert [None] == look.ids


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_asgi_passes_others_through(kind: str, look: Looks) -> None:
    """Websockets and the lifespan get the very scope, receive and send of the server."""
    given_: list[Any] = []

    async def application(*args: Any) -> None:
        given_.extend(args)
        look()

    scope = scope_of((ID, "user-1"), type=kind)
    asyncio.run(asgi.PostHogMiddleware(application)(scope, nothing, nothing))

    assert all(one is other for one, other in zip((scope, nothing, nothing), given_, strict=True))
    assert [None] == look.ids


class Waiting(Reports):
    """A handler that counts how often it was asked to deliver."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


def live(application: Any, handler: Any, **options: Any) -> list[str]:
    """Run a lifespan as a server does; return what the application answered."""
    moments = iter(["lifespan.startup", "lifespan.shutdown"])
    answers: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": next(moments)}

    async def send(event: dict[str, Any]) -> None:
        answers.append(event["type"])

    served = asgi.PostHogMiddleware(application, handler=handler, **options)
    asyncio.run(served({"type": "lifespan"}, receive, send))  # type: ignore[arg-type]
    return answers


async def lives(scope: Any, receive: Any, send: Any) -> None:
    for _ in range(2):
        await send({"type": f"{(await receive())['type']}.complete"})


async def ignores_lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Return at once, as short applications do for all that is no request."""


async def knows_no_lifespan(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("only http")


async def fails_to_start(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise ValueError("no database")


@pytest.mark.parametrize(
    ("application", "options"),
    [
        (lives, {}),
        (lives, {"lifespan": True}),
        (knows_no_lifespan, {"lifespan": True}),
        (ignores_lifespan, {"lifespan": True}),
    ],
)
def test_asgi_delivers_at_the_end_of_the_lifespan(application: Any, options: Any) -> None:
    """What waits is delivered before the server ends, and where asked to for one without."""
    handler = Waiting()

    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == live(
        application, handler, **options
    )
    assert 1 == handler.flushed


@pytest.mark.parametrize("options", [{}, {"lifespan": True}], ids=["default", "lifespan"])
def test_asgi_failing_start(options: Any) -> None:
    """An application that fails to start fails to start."""
    with pytest.raises(ValueError, match="no database"):
        live(fails_to_start, Waiting(), **options)


@pytest.mark.parametrize("handler", [None, Waiting()], ids=["no handler", "handler"])
def test_asgi_without_a_lifespan(handler: Any) -> None:
    """An application that knows no lifespan says so to the server, as without us."""
    with pytest.raises(ValueError, match="only http"):
        live(knows_no_lifespan, handler)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (lambda scope: scope["method"], "POST"),
        (late_user, "late"),
        (lambda scope: None, "user-1"),
        (lambda scope: scope["user"].id, "user-1"),
    ],
    ids=["wins", "async", "nobody", "raises"],
)
def test_asgi_user(user: Any, expected: str, look: Looks) -> None:
    """The user callable may be async; what it raises is contained."""
    application = asgi.PostHogMiddleware(asgi_app(look), user=user)

    asyncio.run(application(scope_of((ID, "user-1")), nothing, nothing))

    assert [expected] * 3 == look.ids


def test_asgi_failing_async_user(look: Looks) -> None:
    """An async user callable that raises is contained, too."""

    async def user(scope: Any) -> str:
        raise RuntimeError("no database")

    application = asgi.PostHogMiddleware(asgi_app(look), user=user)
    asyncio.run(application(scope_of((ID, "user-1")), nothing, nothing))

    assert ["user-1"] * 3 == look.ids


def test_asgi_exceptions() -> None:
    """An exception that escapes is reported with whom it happened to, and raised again."""
    reports = Reports()

    async def application(*_: Any) -> None:
        raise ValueError("escaped")

    with pytest.raises(ValueError, match="escaped"):
        asyncio.run(
            asgi.PostHogMiddleware(application, handler=reports)(
                scope_of((ID, "user-1")), nothing, nothing
            )
        )

    assert [("escaped", middleware("asgi.middleware"), "user-1")] == reports.seen


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "http"},
        scope_of(headers=None, client=None, server=None, query_string=None, path=None),
        scope_of(headers=[(b"\xff", b"\xff"), (ID.lower().encode(), b"\xff\x00\r\n")]),
        scope_of(headers=[("not", "bytes")], client=("/tmp/socket",), server=("/tmp/s", None)),
        scope_of(headers=7),
    ],
    ids=["bare", "nones", "bytes", "unix socket", "no list"],
)
def test_asgi_bad_scopes(scope: dict[str, Any], look: Looks) -> None:
    """A request that is not as the specification says is served all the same."""
    asyncio.run(asgi.PostHogMiddleware(asgi_app(look))(scope, nothing, nothing))

    assert 3 == len(look.seen)


# --- Django

SEEN = Looks()
REPORTS = Reports()


def django_view(request: Any) -> Any:
    from django.http import HttpResponse

    SEEN()
    return HttpResponse(b"done", status=201)


async def django_async_view(request: Any) -> Any:
    await asyncio.sleep(0)
    return django_view(request)


def django_stream(request: Any) -> Any:
    from django.http import StreamingHttpResponse

    def pieces() -> Iterator[bytes]:
        for _ in range(2):
            SEEN()
            yield b"piece"

    return StreamingHttpResponse(pieces())


async def django_async_stream(request: Any) -> Any:
    from django.http import StreamingHttpResponse

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(2):
            SEEN()
            await asyncio.sleep(0)
            yield b"piece"

    return StreamingHttpResponse(pieces())


def django_file(request: Any) -> Any:
    from django.http import FileResponse

    return FileResponse(io.BytesIO(b"file"))


def django_error(request: Any) -> Any:
    raise ValueError("escaped")


def django_broken_stream(request: Any) -> Any:
    from django.http import StreamingHttpResponse

    def pieces() -> Iterator[bytes]:
        yield b"piece"
        raise ValueError("streamed")

    return StreamingHttpResponse(pieces())


async def django_broken_async_stream(request: Any) -> Any:
    from django.http import StreamingHttpResponse

    async def pieces() -> AsyncIterator[bytes]:
        yield b"piece"
        raise ValueError("streamed")

    return StreamingHttpResponse(pieces())


def django_missing(request: Any) -> Any:
    from django.http import Http404

    raise Http404


def django_factory(get_response: Any) -> Any:
    from posthog_logging.middleware.django import PostHogMiddleware

    return PostHogMiddleware(
        get_response, handler=REPORTS, user=lambda request: request.META.get("HTTP_X_MEMBER")
    )


def django_plain(get_response: Any) -> Any:
    from posthog_logging.middleware.django import PostHogMiddleware

    return PostHogMiddleware(get_response)


def django_neighbour(get_response: Any) -> Any:
    """Return a middleware of the application's own, which fails before a view or after it."""
    from asgiref.sync import iscoroutinefunction

    def fail(request: Any, when: str) -> None:
        if request.headers.get("X-Fails") == when:
            raise ValueError(f"{when} the view")

    def neighbour(request: Any) -> Any:
        fail(request, "before")
        response = get_response(request)
        fail(request, "after")
        return response

    async def async_neighbour(request: Any) -> Any:
        fail(request, "before")
        response = await get_response(request)
        fail(request, "after")
        return response

    return async_neighbour if iscoroutinefunction(get_response) else neighbour


django_neighbour.sync_capable = django_neighbour.async_capable = True  # type: ignore[attr-defined]
django_factory.sync_capable = django_factory.async_capable = True  # type: ignore[attr-defined]


@pytest.fixture
def django() -> Iterator[Any]:
    """Django, with our middleware in its stack and the views above."""
    pytest.importorskip("django")
    import django
    import django.conf
    import django.test

    from django.urls import path

    urls = types.ModuleType("tests_middleware_urls")
    urls.urlpatterns = [  # type: ignore[attr-defined]
        path("view", django_view),
        path("async", django_async_view),
        path("stream", django_stream),
        path("async-stream", django_async_stream),
        path("error", django_error),
        path("missing", django_missing),
        path("broken-stream", django_broken_stream),
        path("broken-async-stream", django_broken_async_stream),
    ]
    views = types.ModuleType("tests_middleware_posthog")
    views.posthog = django_factory  # type: ignore[attr-defined]
    views.plain = django_plain  # type: ignore[attr-defined]
    views.neighbour = django_neighbour  # type: ignore[attr-defined]
    sys.modules.update({urls.__name__: urls, views.__name__: views})
    if not django.conf.settings.configured:
        django.conf.settings.configure(SECRET_KEY="for tests only")
    with django.test.override_settings(
        ROOT_URLCONF=urls.__name__,
        MIDDLEWARE=[f"{views.__name__}.posthog", f"{views.__name__}.neighbour"],
        ALLOWED_HOSTS=["testserver"],
        LOGGING_CONFIG=None,
    ):
        django.setup()
        SEEN.seen.clear()
        REPORTS.seen.clear()
        yield django.test
    for name in (urls.__name__, views.__name__):
        del sys.modules[name]


HEADERS = {ID: "user-1", SESSION: "s-1", "User-Agent": "curl"}
PROPERTIES = {
    "$session_id": "s-1",
    "$request_method": "GET",
    "$user_agent": "curl",
    "$raw_user_agent": "curl",
    "$ip": "127.0.0.1",
}


@pytest.mark.parametrize("url", ["/view", "/async"])
def test_django(django: Any, url: str) -> None:
    """In a synchronous stack, a view of either kind sees its request's identity."""
    response = django.Client().get(url, headers=HEADERS)

    assert (201, ["user-1"]) == (response.status_code, SEEN.ids)
    assert {
        **PROPERTIES,
        "$request_path": url,
        "$pathname": url,
        "$host": "testserver",
        "$current_url": f"http://testserver{url}",
    } == SEEN.last
    assert context.current() is None


@pytest.mark.parametrize("url", ["/view", "/async"])
def test_django_async(django: Any, url: str) -> None:
    """In an asynchronous stack, too; concurrent requests see each their own."""

    async def main() -> list[Any]:
        client = django.AsyncClient()
        return await asyncio.gather(
            *(client.get(url, headers={**HEADERS, ID: f"user-{n}"}) for n in range(5))
        )

    assert [201] * 5 == [response.status_code for response in asyncio.run(main())]
    assert {f"user-{n}" for n in range(5)} == set(SEEN.ids)
    assert "s-1" == SEEN.last["$session_id"]


def test_django_streaming(django: Any) -> None:
    """A streamed body is made in its request's context, after the middleware has returned."""
    response = django.Client().get("/stream", headers=HEADERS)

    assert b"piecepiece" == response.getvalue()
    assert ["user-1", "user-1"] == SEEN.ids
    assert 200 == SEEN.last["$response_status"]
    assert context.current() is None


def test_django_async_streaming(django: Any) -> None:
    """An asynchronous body, too; who iterates sees nothing of it between two pieces."""
    between = Looks()

    async def main() -> list[bytes]:
        response = await django.AsyncClient().get("/async-stream", headers=HEADERS)
        pieces = []
        async for piece in response.streaming_content:
            between()
            pieces.append(piece)
        return pieces

    assert [b"piece", b"piece"] == asyncio.run(main())
    assert ["user-1", "user-1"] == SEEN.ids
    assert [None, None] == between.ids


def test_django_files_are_left_alone(django: Any) -> None:
    """A file keeps what a server needs to send it in its own way."""
    from posthog_logging.middleware.django import PostHogMiddleware

    # Not through Django's test client, which wraps a file itself.
    response = PostHogMiddleware(django_file)(django.RequestFactory().get("/file"))

    assert response.file_to_stream is not None
    assert b"file" == response.getvalue()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_django_exceptions(django: Any) -> None:
    """What becomes a 500 is reported with whom it happened to; a 404 is an answer."""
    client = django.Client(raise_request_exception=False)

    assert 500 == client.get("/error", headers=HEADERS).status_code
    assert 404 == client.get("/missing", headers=HEADERS).status_code
    assert [("escaped", middleware("django.middleware"), "user-1")] == REPORTS.seen


def test_django_async_exceptions(django: Any) -> None:
    """In an asynchronous stack, too."""
    client = django.AsyncClient(raise_request_exception=False)

    assert 500 == asyncio.run(client.get("/error", headers=HEADERS)).status_code
    assert [("escaped", middleware("django.middleware"), "user-1")] == REPORTS.seen


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_django_exceptions_of_other_middlewares(django: Any, kind: str, when: str) -> None:
    """So is what another middleware raises, before the view and after it, once."""
    headers = {**HEADERS, "X-Fails": when}
    if kind == "sync":
        response = django.Client(raise_request_exception=False).get("/view", headers=headers)
    else:
        client = django.AsyncClient(raise_request_exception=False)
        response = asyncio.run(client.get("/view", headers=headers))

    assert 500 == response.status_code
    assert [
        (f"{when} the view", middleware("django.middleware"), "user-1"),
    ] == REPORTS.seen


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("names", [["posthog", "plain"], ["plain", "posthog"]], ids="-".join)
def test_django_exceptions_under_two_of_ours(django: Any, names: list[str]) -> None:
    """Each of two middlewares with a handler reports, whichever is the outer one."""
    from django.test import override_settings

    with override_settings(MIDDLEWARE=[f"tests_middleware_posthog.{name}" for name in names]):
        client = django.Client(raise_request_exception=False)
        assert 500 == client.get("/error", headers=HEADERS).status_code

    assert [("escaped", middleware("django.middleware"), "user-1")] == REPORTS.seen


def test_django_exceptions_of_streams(django: Any) -> None:
    """So is what a streamed body raises, to the server and whom it happened to."""
    response = django.Client().get("/broken-stream", headers=HEADERS)

    with pytest.raises(ValueError, match="streamed"):
        response.getvalue()
    assert [("streamed", middleware("django.middleware"), "user-1")] == REPORTS.seen


def test_django_exceptions_of_async_streams(django: Any) -> None:
    """An asynchronous body, too."""

    async def main() -> None:
        response = await django.AsyncClient().get("/broken-async-stream", headers=HEADERS)
        with pytest.raises(ValueError, match="streamed"):
            async for _ in response.streaming_content:
                pass

    asyncio.run(main())
    assert [("streamed", middleware("django.middleware"), "user-1")] == REPORTS.seen


def test_django_user(django: Any) -> None:
    """The user callable wins over the header."""
    django.Client().get("/view", headers={**HEADERS, "X-Member": "member-7"})

    assert ["member-7"] == SEEN.ids


def test_django_hostile_headers(django: Any) -> None:
    """A host that Django refuses, and control characters, are no reason to fail."""
    headers = {ID: "\x00us\x01er", "Host": "evil host:x", "User-Agent": "\x9f"}
    response = django.Client().get("/view", headers=headers)

    assert (201, ["user"]) == (response.status_code, SEEN.ids)
    assert "$current_url" not in SEEN.last


# --- Celery


@pytest.fixture
def celery(look: Looks) -> Iterator[Any]:
    """A Celery application whose broker is memory, and a task that looks around."""
    pytest.importorskip("celery")
    from celery import Celery, signals

    from posthog_logging.middleware.celery import HEADER, connect

    app = Celery("tests", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)

    @app.task(name="look")
    def task(nested: int = 0, fail: bool = False, bind: bool = False) -> None:
        look()
        if bind:
            context.bind(left="behind")
        if nested:
            with context.identity("inner", depth=nested):
                task.apply(args=(nested - 1,))
            look()
        if fail:
            raise ValueError("failed")

    reports = Reports()
    connect(Reports())
    connect(reports)  # the last one holds
    app.look, app.reports = task, reports  # type: ignore[attr-defined]
    yield app
    for signal in (
        signals.before_task_publish,
        signals.task_prerun,
        signals.task_postrun,
        signals.task_failure,
        signals.worker_process_shutdown,
    ):
        signal.disconnect(dispatch_uid=HEADER)
    app.close()


def run_next(app: Any) -> None:
    """Run, as a worker does, the next task that waits in the broker."""
    from celery.app.trace import build_tracer

    with app.connection() as connection, connection.SimpleQueue("celery") as waiting:
        message = waiting.get(timeout=2)
        message.ack()
    args, kwargs, _ = message.payload
    tracer = build_tracer("look", app.look, app=app, eager=True, propagate=False)
    request = {**message.headers, "is_eager": False, "delivery_info": {}}
    # A context of its own, as a worker's process has.
    contextvars.Context().run(tracer, message.headers["id"], args, kwargs, request)


def test_celery_identity_travels(celery: Any, look: Looks) -> None:
    """What is bound where a task is sent is bound where it runs, for as long as it runs."""
    with context.identity("user-1", plan="gold"):
        celery.look.delay()
    celery.look.delay()

    run_next(celery)
    run_next(celery)

    assert ["user-1", None] == look.ids
    assert {"plan": "gold"} == dict(look.seen[0].properties)  # type: ignore[union-attr]


def test_celery_leaves_nothing_behind(celery: Any, look: Looks) -> None:
    """What a task binds ends with the task, in an eager one, too."""
    with context.identity("user-1"):
        celery.look.apply(kwargs={"bind": True})
        look()
    celery.look.apply(kwargs={"bind": True})
    look()

    assert ["user-1", "user-1", None, None] == look.ids
    assert {} == dict(look.seen[1].properties)  # type: ignore[union-attr]
    assert look.seen[3] is None


def test_celery_nested(celery: Any, look: Looks) -> None:
    """A task that runs inside another one sees what is bound there, and gives it back."""
    with context.identity("outer"):
        celery.look.delay(2)
    run_next(celery)

    assert ["outer", "inner", "inner", "inner", "outer"] == look.ids


def test_celery_exceptions(celery: Any) -> None:
    """The exception of a task is reported, once, with whom it happened to."""
    with context.identity("user-1"):
        celery.look.delay(fail=True)
    run_next(celery)

    assert [("failed", TASK, "user-1")] == celery.reports.seen


def test_celery_structlog(celery: Any, look: Looks) -> None:
    """Whom a structlog program has bound is who the task is about, unless we know better."""
    structlog = pytest.importorskip("structlog")
    with structlog.contextvars.bound_contextvars(distinct_id="of structlog"):
        celery.look.delay()
        with context.identity("ours"):
            celery.look.delay()
    run_next(celery)
    run_next(celery)

    assert ["of structlog", "ours"] == look.ids


@pytest.fixture
def _no_steps() -> Iterator[None]:
    """Begin without the steps of other tests."""
    token = steps.begin_anew()
    yield
    steps.end(token)


@pytest.mark.usefixtures("_no_steps")
def test_celery_steps(celery: Any, make_handler: Callable[..., Any], inspector: Any) -> None:
    """A task begins without steps of others, and leaves none behind, an eager one too."""
    handler = make_handler(exception_steps=9)
    handler.accept({"event": "before the task"})

    @celery.task(name="stepping")  # type: ignore[untyped-decorator, unused-ignore]
    def stepping() -> None:
        handler.accept({"event": "in the task"})
        handler.capture_exception(ValueError("inside"))

    stepping.apply()
    handler.capture_exception(ValueError("outside"))
    assert handler.flush(10)

    assert {"inside": ["in the task"], "outside": ["before the task"]} == {
        event.properties["$exception_message"]: [
            step["$message"] for step in event.properties["$exception_steps"]
        ]
        for event in inspector.events
        if event.event == "$exception"
    }


def test_celery_eager_in_a_block(
    celery: Any, make_handler: Callable[..., Any], inspector: Any
) -> None:
    """What an eager task logs inside a block that is rolled back did not happen either."""
    handler = make_handler()

    @celery.task(name="eager")  # type: ignore[untyped-decorator, unused-ignore]
    def eager() -> None:
        handler.accept({"event": "in the task"})

    with contextlib.suppress(KeyError), context.held():
        eager.apply()
        raise KeyError

    assert 1 == handler.counts["rolled_back"]


class Unsayable:
    """A property that no serialiser of a broker's knows."""

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"plan": Unsayable()}, {"plan"}),
        ({"big": "x" * 100_000}, set()),
        ({"self": 1, "distinct_id": 2}, {"self", "distinct_id"}),
    ],
    ids=["unsayable", "too big", "names of parameters"],
)
def test_celery_hostile_properties(
    properties: dict[str, Any], expected: set[str], celery: Any, look: Looks
) -> None:
    """Whatever is bound, the task is sent and its identity arrives."""
    with context.identity("user-1", **properties):
        celery.look.delay()
    run_next(celery)

    assert ["user-1"] == look.ids
    assert expected == set(look.last)


@pytest.mark.parametrize("header", ["", "no JSON", "[1]", "[1, 2]", "null", 7], ids=str)
def test_celery_foreign_header(header: Any, celery: Any, look: Looks) -> None:
    """A header that somebody else wrote binds nobody, and the task runs."""
    from posthog_logging.middleware.celery import HEADER

    celery.look.apply(headers={HEADER: header})

    assert [None] == look.ids


def test_celery_delivers_before_the_end(celery: Any, make_handler: Callable[..., Any]) -> None:
    """A process of the pool delivers what its handler holds before it ends."""
    from celery import signals

    from posthog_logging.middleware.celery import connect

    handler = make_handler(flush_interval=60.0)
    connect(handler)
    handler.accept({"event": "movie played", "distinct_id": "user-1"})
    thread = threading.Thread(target=signals.worker_process_shutdown.send, args=(None,))
    thread.start()
    thread.join(10)

    assert 1 == handler.counts["delivered"]


@pytest.mark.parametrize("name", ["wsgi", "asgi", "django"])
def test_an_unknown_option(name: str) -> None:
    """A misspelt option is a TypeError that names the middleware and what it takes."""
    if name == "django":
        pytest.importorskip("asgiref")
    module = importlib.import_module(f"posthog_logging.middleware.{name}")

    for wrong, hint in (("usr", "did you mean 'user'?"), ("holder", ""), ("source", "")):
        with pytest.raises(TypeError) as raised:
            module.PostHogMiddleware(print, **{wrong: None})
        text = str(raised.value)
        assert text.startswith(f"posthog_logging.middleware.{name}.PostHogMiddleware: no option")
        assert f"{wrong!r}" in text
        assert hint in text
        assert "cookie, filter, handler," in text
        assert ("lifespan" in text, "on_commit" in text) == (name == "asgi", name == "django")
