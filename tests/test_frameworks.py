"""Real applications, bare and wrapped: what a client and a server see is the same."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import http.client
import threading
import wsgiref.simple_server
import wsgiref.util

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from posthog_logging import PostHogHandler, context
from posthog_logging.inspector import Inspector
from posthog_logging.middleware import asgi, wsgi


# By its name in the module, since FastAPI looks up annotations there.
fastapi = pytest.importorskip("fastapi")

MakeHandler = Callable[..., PostHogHandler]


def options(handler: Any) -> dict[str, Any]:
    """Return every option of a middleware, switched on."""
    return {
        "handler": handler,
        "user": lambda request: None,
        "cookie": True,
        "trusted_proxies": 1,
        "properties": lambda request: {"tenant": "acme"},
        "filter": lambda request: False,
        "http_log": True,
    }


# ASGI


class Server:
    """
    An ASGI server in memory: gives the application what a client sends, keeps what it answers.

    *disconnect_after* is after how many answers the client goes away.
    """

    def __init__(self, messages: list[dict[str, Any]], disconnect_after: int = 10**9) -> None:
        self.sent: list[Any] = []
        self._messages = list(messages)
        self._disconnect_after = disconnect_after

    async def receive(self) -> dict[str, Any]:
        anyio = pytest.importorskip("anyio")
        if self._messages:
            return self._messages.pop(0)
        while len(self.sent) < self._disconnect_after:
            await anyio.sleep(0.001)
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if len(self.sent) >= self._disconnect_after:
            raise OSError("the client is gone")
        self.sent.append(dict(message))


def scope_of(kind: str, path: str = "/", **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http" if kind != "websocket" else "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"who=1",
        "root_path": "",
        "headers": [(b"host", b"example.org"), (b"x-posthog-distinct-id", b"user-1")],
        "client": ("192.0.2.7", 1234),
        "server": ("127.0.0.1", 80),
        "state": {},
        **more,
    }


BODY = [{"type": "http.request", "body": b"sent", "more_body": False}]
CHAT = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.disconnect", "code": 1000}]  # fmt: skip
LIFE = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]


def fastapi_app(journal: list[str], lifespan: str = "lives") -> Any:  # noqa: C901, PLR0915 - routes
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import StreamingResponse

    @contextlib.asynccontextmanager
    async def live(app: Any) -> AsyncIterator[dict[str, Any]]:
        journal.append("starting")
        if lifespan == "fails to start":
            raise RuntimeError("no database")
        yield {"database": "open"}
        journal.append("stopping")
        if lifespan == "fails to stop":
            raise RuntimeError("database is busy")

    app = fastapi.FastAPI(lifespan=live)

    async def outer(request: Any, call_next: Any) -> Any:
        journal.append("outer in")
        response = await call_next(request)
        journal.append("outer out")
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=outer)

    @app.get("/plain")
    def plain(who: str) -> dict[str, str]:
        return {"who": who}

    @app.api_route("/echo", methods=["GET"])
    async def echo(request: fastapi.Request) -> Any:
        return fastapi.Response(await request.body(), headers={"x-state": str(request.state)[:3]})

    @app.get("/raises")
    async def raises() -> None:
        raise ValueError("it failed")

    @app.get("/refuses")
    async def refuses() -> None:
        raise fastapi.HTTPException(418, "a teapot")

    @app.get("/stream")
    async def stream() -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(5):
                yield b"piece %d" % number

        return StreamingResponse(pieces())

    @app.get("/broken")
    async def broken() -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise ValueError("broken off")

        return StreamingResponse(pieces())

    @app.get("/later")
    async def later(tasks: fastapi.BackgroundTasks) -> str:
        tasks.add_task(journal.append, "in the background")
        return "soon"

    @app.get("/later-fails")
    async def later_fails(tasks: fastapi.BackgroundTasks) -> str:
        def fail() -> None:
            raise ValueError("in the background")

        tasks.add_task(fail)
        return "soon"

    @app.websocket("/chat")
    async def chat(socket: fastapi.WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    @app.websocket("/chat-fails")
    async def chat_fails(socket: fastapi.WebSocket) -> None:
        raise ValueError("no chat")

    return app


def seen_by(app: Any, server: Server, scope: dict[str, Any], backend: str) -> tuple[Any, ...]:
    """Return what a server sees of one connection: what was answered, and how it ended."""
    anyio = pytest.importorskip("anyio")

    async def main() -> Any:
        try:
            with anyio.fail_after(10):
                await app(scope, server.receive, server.send)
        except Exception as error:
            return type(error), str(error), len(getattr(error, "exceptions", ()))
        return None

    ended = anyio.run(main, backend=backend)
    return server.sent, ended, context.current()


backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@pytest.fixture
def handler(make_handler: MakeHandler) -> PostHogHandler:
    """A handler that reports and takes the requests' log."""
    return make_handler(exceptions=True, flush_interval=60.0)


CASES: dict[str, Callable[[], tuple[Server, dict[str, Any]]]] = {
    **{
        path: lambda path=path: (Server(BODY), scope_of("http", path))  # type: ignore[misc]
        for path in (
            "/plain",
            "/echo",
            "/raises",
            "/refuses",
            "/missing",
            "/stream",
            "/broken",
            "/later",
            "/later-fails",
        )
    },
    "gone": lambda: (Server(BODY, disconnect_after=2), scope_of("http", "/stream")),
    "gone at once": lambda: (Server(BODY, disconnect_after=0), scope_of("http", "/plain")),
    "chat": lambda: (Server(CHAT), scope_of("websocket", "/chat")),
    "chat fails": lambda: (Server(CHAT), scope_of("websocket", "/chat-fails")),
    "no chat": lambda: (Server(CHAT), scope_of("websocket", "/nowhere")),
    "lifespan": lambda: (Server(LIFE), scope_of("lifespan")),
    "unknown": lambda: (Server(BODY), scope_of("of the future")),
}


# Starlette leaves the generator of a client that is gone to trio's collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@backends
@pytest.mark.parametrize("case", CASES)
def test_fastapi(case: str, backend: str, handler: PostHogHandler) -> None:
    """Requests, streams, background tasks, websockets: what is answered is the same."""
    pytest.importorskip(backend)
    found = []
    for wrapped in (False, True):
        journal: list[str] = []
        app = fastapi_app(journal)
        if wrapped:
            app = asgi.PostHogMiddleware(app, **options(handler))
        server, scope = CASES[case]()
        found.append((*seen_by(app, server, scope, backend), journal))

    assert found[0] == found[1]


@backends
@pytest.mark.parametrize("lifespan", ["lives", "fails to start", "fails to stop"])
@pytest.mark.parametrize("stands_in", [False, True])
def test_lifespan(
    stands_in: bool, lifespan: str, backend: str, handler: PostHogHandler, inspector: Inspector
) -> None:
    """A lifespan is what it is without us, also where it fails; at its end all is delivered."""
    pytest.importorskip(backend)
    handler.accept({"event": "before the end", "distinct_id": "user-1"})
    found = []
    for wrapped in (False, True):
        journal: list[str] = []
        app = fastapi_app(journal, lifespan)
        if wrapped:
            app = asgi.PostHogMiddleware(app, lifespan=stands_in, **options(handler))
        found.append((*seen_by(app, Server(LIFE), scope_of("lifespan"), backend), journal))

    assert found[0] == found[1]
    assert (lifespan != "fails to start") == bool(inspector.events)


async def raises_before(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("knows http only")


async def returns_at_once(scope: Any, receive: Any, send: Any) -> None:
    """Know no lifespan, and say nothing."""


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


@pytest.mark.parametrize("mode", ["on", "auto"])
@pytest.mark.parametrize("app", [raises_before, returns_at_once, refuses])
def test_uvicorns_lifespan(app: Any, mode: str, handler: PostHogHandler) -> None:
    """Uvicorn starts, or does not, as it does with the bare application."""
    uvicorn = pytest.importorskip("uvicorn")
    from uvicorn.lifespan.on import LifespanOn

    async def start(one: Any) -> bool:
        config = uvicorn.Config(one, lifespan=mode, log_config=None)
        config.load()
        lifespan = LifespanOn(config)
        await asyncio.wait_for(lifespan.startup(), 10)
        return lifespan.should_exit

    wrapped = asgi.PostHogMiddleware(app, **options(handler))

    assert asyncio.run(start(app)) == asyncio.run(start(wrapped))


@backends
def test_cancelled(backend: str, handler: PostHogHandler, inspector: Inspector) -> None:
    """A request whose scope is cancelled ends at once, and is nobody's fault."""
    anyio = pytest.importorskip("anyio")
    pytest.importorskip(backend)
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await anyio.sleep(30)
        finally:
            ended.append("ended")

    async def main() -> bool:
        served: Any = asgi.PostHogMiddleware(app, **options(handler))
        with anyio.move_on_after(0.05) as limit:
            await served(scope_of("http"), None, None)
        return bool(limit.cancelled_caught)

    assert anyio.run(main, backend=backend)
    assert ["ended"] == ended
    assert handler.flush(10)
    assert ["$http_log"] == [event.event for event in inspector.events]


@backends
def test_events_of_requests(backend: str, handler: PostHogHandler, inspector: Inspector) -> None:
    """What endpoints, threads, streams and background tasks log is their own request's."""
    anyio = pytest.importorskip("anyio")
    pytest.importorskip(backend)
    from starlette.responses import StreamingResponse

    app = fastapi.FastAPI()

    def played(who: str, where: str) -> None:
        handler.accept({"event": where, "properties": {"who": who}})

    @app.get("/thread")
    def in_thread(who: str) -> str:
        played(who, "thread")
        return "enjoy"

    @app.get("/stream")
    async def stream(who: str, tasks: fastapi.BackgroundTasks) -> Any:
        tasks.add_task(played, who, "background")

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(2):
                await anyio.sleep(0)
                played(who, "stream")
                yield b"piece"

        return StreamingResponse(pieces(), background=tasks)

    served = asgi.PostHogMiddleware(app, handler=handler)

    async def visit(number: int) -> None:
        for path in ("/thread", "/stream"):
            headers = [(b"x-posthog-distinct-id", b"user-%d" % number)]
            scope = scope_of("http", path, query_string=b"who=%d" % number, headers=headers)
            server = Server(BODY)
            await served(scope, server.receive, server.send)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(visit, number)

    anyio.run(main, backend=backend)
    assert handler.flush(10)

    assert 12 * 4 == len(inspector.events)
    assert all(f"user-{e.properties['who']}" == e.distinct_id for e in inspector.events)


def failing_app(handler: PostHogHandler) -> Any:
    """Return an application whose views fail, in copies of their requests' contexts."""
    app, below = fastapi.FastAPI(), fastapi.FastAPI()

    def act(who: str) -> None:
        with context.identity("somebody else"):
            context.identify("a guest")
        context.identify(f"member-{who}")
        handler.accept({"event": f"of {who}"})

    @app.get("/def")
    def in_thread(who: str) -> None:
        act(who)
        raise ValueError(who)

    @app.get("/dependency")
    async def after(who: str, _: None = fastapi.Depends(act)) -> None:
        raise ValueError(who)

    @below.middleware("http")
    async def neighbour(request: fastapi.Request, call_next: Any) -> Any:
        return await call_next(request)

    @below.get("/async")
    async def in_task(who: str) -> None:
        act(who)
        raise ValueError(who)

    app.mount("/below", below)
    return asgi.PostHogMiddleware(app, handler=handler)


@backends
@pytest.mark.parametrize("path", ["/def", "/dependency", "/below/async"])
def test_failures_in_copied_contexts(
    path: str, backend: str, make_handler: MakeHandler, inspector: Inspector
) -> None:
    """A report has the steps and the person of its request, whichever context they are in."""
    anyio = pytest.importorskip("anyio")
    pytest.importorskip(backend)
    handler = make_handler(exceptions=True, exception_steps=9)
    app = failing_app(handler)

    async def visit(number: int) -> None:
        server = Server(BODY)
        scope = scope_of("http", path, query_string=b"who=%d" % number, headers=[])
        with pytest.raises(ValueError, match=str(number)):
            await app(scope, server.receive, server.send)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(visit, number)

    anyio.run(main, backend=backend)
    assert handler.flush(10)

    failures = [event for event in inspector.events if event.event == "$exception"]
    assert {f"member-{number}" for number in range(5)} == {each.distinct_id for each in failures}
    for each in failures:
        who = each.properties["$exception_list"][0]["value"]
        assert f"member-{who}" == each.distinct_id
        assert f"of {who}" == each.properties["$exception_steps"][-1]["$message"]


def test_failures_beside_copied_contexts(make_handler: MakeHandler, inspector: Inspector) -> None:
    """What a context has logged and identified itself is not lost to what its copies have."""
    handler = make_handler(exceptions=True, exception_steps=9)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        def background() -> None:
            context.identify("of the background")
            handler.accept({"event": "in the background"})

        copied = contextvars.copy_context()
        context.identify("of the request")
        for number in range(3):
            handler.accept({"event": f"in the request {number}"})
        copied.run(background)
        raise ValueError("escaped")

    with pytest.raises(ValueError, match="escaped"):
        asyncio.run(
            asgi.PostHogMiddleware(app, handler=handler)(
                scope_of("http", "/", headers=[]), Server(BODY).receive, Server(BODY).send
            )
        )
    assert handler.flush(10)
    (report,) = [event for event in inspector.events if event.event == "$exception"]

    assert "of the request" == report.distinct_id
    assert [f"in the request {number}" for number in range(3)] == [
        step["$message"] for step in report.properties["$exception_steps"]
    ]


# WSGI


class Part:
    """A body of one part that knows how many it has, as some frameworks make."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"one part"])

    def __len__(self) -> int:
        return 1


def by_write(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])(b"written")
    return []


def starts_late(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b""
    yield b"late"


def changes_its_mind(environ: Any, start_response: Any) -> Any:
    import sys

    start_response("200 OK", [])
    try:
        raise ValueError("escaped")
    except ValueError:
        start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"oops"]


def sized(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Part()


def fails(environ: Any, start_response: Any) -> Any:
    raise ValueError("at once")


def fails_late(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    raise ValueError("later")


def file(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return environ["wsgi.file_wrapper"](open(__file__, "rb"))


def flask_app(environ: Any, start_response: Any) -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask("tests")

    @app.get("/")
    def index() -> Any:
        return {"who": flask.request.args.get("who")}, 201, {"X-Seen": "1"}

    return app(environ, start_response)


def flask_stream(environ: Any, start_response: Any) -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask("tests")

    @app.get("/")
    def index() -> Any:
        return flask.stream_with_context(iter(["a", "b", flask.request.method]))

    return app(environ, start_response)


WSGI = [by_write, starts_late, changes_its_mind, sized, fails, fails_late, file, flask_app,
        flask_stream]  # fmt: skip


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    """A handler of requests that logs nothing; its server says what goes wrong, too."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def get_stderr(self) -> Any:
        return self.server.errors  # type: ignore[attr-defined]


def visit(app: Any, method: str) -> tuple[Any, ...]:
    """Return what a client of a real server gets, and the last line of what the server says."""
    import io

    server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, handler_class=Quiet)
    server.errors = io.StringIO()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        client.request(method, "/?who=1", headers={"X-PostHog-Distinct-Id": "user-1"})
        response = client.getresponse()
        body = response.read()
        headers = [(k, v) for k, v in response.getheaders() if k != "Date"]
    finally:
        client.close()
        thread.join(10)
        server.server_close()
    errors = server.errors.getvalue().splitlines()  # type: ignore[attr-defined]
    return response.status, headers, body, errors[-1:]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("app", WSGI, ids=lambda app: app.__name__)
def test_wsgi(app: Any, method: str, handler: PostHogHandler) -> None:
    """A client gets the same status, headers and body, and the server the same exception."""
    bare = visit(app, method)

    assert bare == visit(wsgi.PostHogMiddleware(app, **options(handler)), method)


@pytest.mark.parametrize("app", [fails, fails_late, flask_app, flask_stream])
def test_wsgi_closes(app: Any, handler: PostHogHandler) -> None:
    """A body that is closed before its end ends there, and leaves nothing bound."""
    served: Any = wsgi.PostHogMiddleware(app, **options(handler))
    environ: dict[str, Any] = {}
    wsgiref.util.setup_testing_defaults(environ)
    with contextlib.suppress(ValueError):
        body = served(environ, lambda *_: lambda data: None)
        with contextlib.suppress(StopIteration):
            next(iter(body))
        getattr(body, "close", lambda: None)()

    assert context.current() is None
