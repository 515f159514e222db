"""Events inside transactions of real databases: they go with the commit, or did not happen."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import sqlite3
import sys
import threading
import types

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from posthog_logging import PostHogHandler, context
from posthog_logging.inspector import Inspector


django_db = pytest.importorskip("django.db")

MakeHandler = Callable[..., PostHogHandler]


class Rollback(Exception):
    """What a test rolls back with."""


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[Any]:
    """Django with two databases, in files, and nothing in them but one table each."""
    import django
    import django.conf

    if not django.conf.settings.configured:
        django.conf.settings.configure(SECRET_KEY="for tests only", LOGGING_CONFIG=None)
    django.setup()
    connections = django_db.connections
    before = connections.settings
    described = {
        alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / alias)}
        for alias in ("default", "other")
    }
    connections.settings = connections.configure_settings(described)
    forget(connections)
    for alias in described:
        with contextlib.closing(sqlite3.connect(described[alias]["NAME"])) as made:
            made.execute("create table orders (number integer)")
    yield connections
    connections.close_all()
    forget(connections)
    connections.settings = before


def forget(connections: Any) -> None:
    for alias in ("default", "other"):
        with contextlib.suppress(AttributeError):
            del connections[alias]


@pytest.fixture
def handler(make_handler: MakeHandler, databases: Any) -> PostHogHandler:
    """A handler whose events wait for commits."""
    from posthog_logging.middleware.django import on_commit

    made = make_handler()
    on_commit(made)
    return made


def order(handler: PostHogHandler, name: str, using: str = "default") -> None:
    """Write a row, and say so."""
    django_db.connections[using].cursor().execute("insert into orders values (1)")
    assert handler.accept({"event": name, "distinct_id": "user-1"})


def happened(handler: PostHogHandler, inspector: Inspector) -> list[str]:
    """Return the names of the events that arrived."""
    assert handler.flush(10)
    assert [] == inspector.bad
    return [event.event for event in inspector.events]


def rolled_back(handler: PostHogHandler) -> int:
    return handler.counts.get("rolled_back", 0)


def atomic(rolls_back: bool = False, using: str = "default") -> Any:
    """Return a transaction, or a savepoint, that ends as it is told to."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        with contextlib.suppress(Rollback), django_db.transaction.atomic(using=using):
            yield
            if rolls_back:
                raise Rollback

    return block()


def test_outside(handler: PostHogHandler, inspector: Inspector) -> None:
    """Outside of a transaction an event goes at once."""
    order(handler, "order placed")

    assert ["order placed"] == happened(handler, inspector)


def test_commit(handler: PostHogHandler, inspector: Inspector) -> None:
    """Inside, it goes with the commit."""
    with atomic():
        order(handler, "order placed")
        assert [] == happened(handler, inspector)

    assert ["order placed"] == happened(handler, inspector)


@pytest.mark.parametrize(
    "fates", list(itertools.product([False, True], repeat=3)), ids=lambda fates: str(fates)
)
def test_depths(fates: tuple[bool, ...], handler: PostHogHandler, inspector: Inspector) -> None:
    """Of nested savepoints each rolls back what is inside of it, and nothing else."""
    outer, middle, inner = fates
    with atomic(outer):
        order(handler, "outer 1")
        with atomic(middle):
            order(handler, "middle 1")
            with atomic(inner):
                order(handler, "inner")
            order(handler, "middle 2")
        order(handler, "outer 2")

    expected = [
        name
        for name, dropped in {
            "outer 1": outer,
            "middle 1": outer or middle,
            "inner": outer or middle or inner,
            "middle 2": outer or middle,
            "outer 2": outer,
        }.items()
        if not dropped
    ]
    assert expected == happened(handler, inspector)
    assert 5 - len(expected) == rolled_back(handler)


@pytest.mark.parametrize(
    "fates", list(itertools.product([False, True], repeat=2)), ids=lambda fates: str(fates)
)
def test_two_databases(
    fates: tuple[bool, ...], handler: PostHogHandler, inspector: Inspector
) -> None:
    """An event inside the transactions of two databases needs both commits."""
    one, other = fates
    with atomic(one):
        order(handler, "one")
        with atomic(other, using="other"):
            order(handler, "both", using="other")
        order(handler, "one again")

    expected = [
        name
        for name, dropped in {"one": one, "both": one or other, "one again": one}.items()
        if not dropped
    ]
    assert sorted(expected) == sorted(happened(handler, inspector))
    assert 3 - len(expected) == rolled_back(handler)


def test_another_database(handler: PostHogHandler, inspector: Inspector) -> None:
    """A transaction that begins later, or has ended before, is none of an event's."""
    with atomic(rolls_back=True, using="other"):
        pass
    with atomic():
        order(handler, "before the other")
        with atomic(rolls_back=True, using="other"):
            order(handler, "in both", using="other")

    assert ["before the other"] == happened(handler, inspector)


def test_a_broken_transaction(handler: PostHogHandler, inspector: Inspector) -> None:
    """After an error of the database the transaction is rolled back, and so are its events."""
    with contextlib.suppress(django_db.Error), django_db.transaction.atomic():
        order(handler, "order placed")
        django_db.connection.cursor().execute("insert into nowhere values (1)")

    assert [] == happened(handler, inspector)
    assert 1 == rolled_back(handler)


def test_never_held(
    handler: PostHogHandler, inspector: Inspector, caplog: pytest.LogCaptureFixture
) -> None:
    """Exceptions and identify do not wait; what did not happen is no loss to warn of."""
    with atomic(rolls_back=True):
        order(handler, "order placed")
        handler.capture_exception(ValueError())
        context.identify("user-of-a-transaction", anonymous_id="visitor-of-a-transaction")
    context.clear()

    assert ["$exception", "$identify"] == happened(handler, inspector)
    assert [] == caplog.records


def test_held_inside(handler: PostHogHandler, inspector: Inspector) -> None:
    """What a block lets go waits for the transaction around it."""
    with atomic(rolls_back=True), context.held():
        order(handler, "dropped by the transaction")
    with atomic():
        with contextlib.suppress(Rollback), context.held():
            order(handler, "dropped by the block")
            raise Rollback
        with context.held():
            order(handler, "kept")
        assert [] == happened(handler, inspector)

    assert ["kept"] == happened(handler, inspector)
    assert 2 == rolled_back(handler)


@pytest.mark.parametrize("by_request", [False, True], ids=["handler's", "request's"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "fates", list(itertools.product([False, True], repeat=3)), ids=lambda fates: str(fates)
)
def test_held_around(
    by_request: bool,
    depth: int,
    fates: tuple[bool, ...],
    handler: PostHogHandler,
    inspector: Inspector,
) -> None:
    """Blocks around a transaction change nothing about its fate, nor it about the blocks'."""
    from posthog_logging.middleware.django import Transactions

    block, outer, inner = fates
    token = context.enter(context.Bound(holder=Transactions() if by_request else None))
    if by_request:
        handler.hold_by(None)
    with contextlib.suppress(Rollback), contextlib.ExitStack() as blocks:
        for _ in range(depth):
            blocks.enter_context(context.held())
        with atomic(outer):
            order(handler, "outer")
            with atomic(inner):
                order(handler, "inner")
        order(handler, "after")
        assert [] == happened(handler, inspector)
        if block:
            raise Rollback
    context.leave(token)

    fate = {"outer": block or outer, "inner": block or outer or inner, "after": block}
    expected = [name for name, dropped in fate.items() if not dropped]
    assert expected == happened(handler, inspector)
    assert 3 - len(expected) == rolled_back(handler)


@pytest.mark.slow
def test_held_by_two_of_a_kind(handler: PostHogHandler, inspector: Inspector) -> None:
    """A transaction that both hold events for has room for as many as one would."""
    from posthog_logging.middleware.django import Transactions

    token = context.enter(context.Bound(holder=Transactions()))
    with atomic():
        for _ in range(9000):
            order(handler, "committed")
    context.leave(token)

    assert 0 == handler.counts.get("held_full", 0)


def test_held_by_two(handler: PostHogHandler, inspector: Inspector) -> None:
    """A request that waits for commits, and a handler that does, send each event once."""
    from posthog_logging.middleware.django import Transactions

    token = context.enter(context.Bound(holder=Transactions()))
    with atomic():
        order(handler, "committed")
        with atomic(rolls_back=True), context.held():
            order(handler, "rolled back")
    context.leave(token)

    assert ["committed"] == happened(handler, inspector)
    assert 1 == rolled_back(handler)


def test_never_ends(handler: PostHogHandler, inspector: Inspector) -> None:
    """A transaction that never ends keeps 10,000; when its thread ends, they did not happen."""
    refused = []

    def work() -> None:
        django_db.transaction.atomic().__enter__()
        fields = {"event": "x", "distinct_id": "user-1"}
        refused.extend(handler.accept(fields) for _ in range(10_050))
        django_db.connections["default"].connection.close()
        django_db.connections["default"].connection = None

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    gc.collect()

    assert 50 == refused.count(None) == handler.counts["held_full"]
    assert 10_000 == rolled_back(handler)
    assert [] == happened(handler, inspector)


def test_threads(handler: PostHogHandler, inspector: Inspector) -> None:
    """Each thread has its own connections, and so its own transactions."""
    together = threading.Barrier(6)

    def work(number: int) -> None:
        try:
            with atomic(rolls_back=bool(number % 2)):
                handler.accept({"event": f"of {number}", "distinct_id": "user-1"})
                together.wait(10)
        finally:
            django_db.connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))

    assert ["of 0", "of 2", "of 4"] == sorted(happened(handler, inspector))
    assert 3 == rolled_back(handler)


def test_commit_hooks_that_fail(handler: PostHogHandler, inspector: Inspector) -> None:
    """Events that wait for a commit are let go in their turn, whatever other hooks do."""
    with contextlib.suppress(Rollback), django_db.transaction.atomic():
        order(handler, "before")

        def fail() -> None:
            raise Rollback

        django_db.transaction.on_commit(fail)
        order(handler, "after")

    # Django itself gives up the hooks after one that fails; that is not ours to change.
    assert ["before"] == happened(handler, inspector)
    assert 2 == handler.counts["accepted"]


# Requests


VIEWS: dict[str, Any] = {}


def http_response() -> Any:
    from django.http import HttpResponse

    return HttpResponse("done")


def shop(request: Any) -> Any:
    handler, who = VIEWS["handler"], request.GET["who"]
    for depth, rolls_back in enumerate(map(int, request.GET.get("fates", ""))):
        stack = VIEWS.setdefault(threading.get_ident(), contextlib.ExitStack())
        stack.enter_context(atomic(bool(rolls_back)))
        handler.accept({"event": f"depth {depth}", "properties": {"who": who}})
    VIEWS.pop(threading.get_ident(), contextlib.ExitStack()).close()
    if "fail" in request.GET:
        handler.accept({"event": "before it failed", "properties": {"who": who}})
        raise ValueError("it failed")
    return http_response()


async def async_shop(request: Any) -> Any:
    from asgiref.sync import sync_to_async

    handler, who = VIEWS["handler"], request.GET["who"]

    def in_thread() -> None:
        with atomic(rolls_back="fail" in request.GET):
            handler.accept({"event": "in thread", "properties": {"who": who}})

    handler.accept({"event": "in the loop", "properties": {"who": who}})
    await sync_to_async(in_thread)()
    await asyncio.sleep(0)
    context.identify(f"member-{who}")
    handler.accept({"event": "after", "properties": {"who": who}})
    return http_response()


def posthog(get_response: Any) -> Any:
    from posthog_logging.middleware.django import PostHogMiddleware

    return PostHogMiddleware(get_response, on_commit=True, handler=VIEWS["handler"])


posthog.sync_capable = posthog.async_capable = True  # type: ignore[attr-defined]


@pytest.fixture
def site(databases: Any, make_handler: MakeHandler) -> Iterator[Any]:
    """Django's test module, with views that log in transactions, and the middleware."""
    import django.test

    from django.urls import path

    urls = types.ModuleType("tests_transactions_urls")
    urls.urlpatterns = [path("shop", shop), path("async", async_shop)]  # type: ignore[attr-defined]
    urls.posthog = posthog  # type: ignore[attr-defined]
    sys.modules[urls.__name__] = urls
    VIEWS["handler"] = make_handler(exceptions=True)
    with django.test.override_settings(
        ROOT_URLCONF=urls.__name__,
        MIDDLEWARE=[f"{urls.__name__}.posthog"],
        ALLOWED_HOSTS=["testserver"],
    ):
        yield django.test
    VIEWS.clear()
    del sys.modules[urls.__name__]


@pytest.mark.parametrize("fates", ["0", "1", "00", "01", "10", "001", "010", "100"])
def test_requests(fates: str, site: Any, inspector: Inspector) -> None:
    """A request's events inside ``atomic`` wait for their commit, at every depth."""
    client = site.Client()
    client.get(f"/shop?who=1&fates={fates}", headers={"X-PostHog-Distinct-Id": "user-1"})

    kept = [f"depth {n}" for n in range(len(fates)) if "1" not in fates[: n + 1]]

    assert kept == happened(VIEWS["handler"], inspector)
    assert {"user-1"} >= {event.distinct_id for event in inspector.events}
    assert len(fates) - len(kept) == rolled_back(VIEWS["handler"])


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("fails", [False, True])
def test_atomic_requests(fails: bool, site: Any, databases: Any, inspector: Inspector) -> None:
    """With ``ATOMIC_REQUESTS`` a request that fails did not happen, but for its exception."""
    databases.settings["default"]["ATOMIC_REQUESTS"] = True
    client = site.Client(raise_request_exception=False)
    response = client.get(f"/shop?who=1&fates=0{'&fail=1' if fails else ''}")

    names = happened(VIEWS["handler"], inspector)

    assert (
        (500, ["$exception"]) == (response.status_code, names) if fails else ["depth 0"] == names
    )
    assert 2 * fails == rolled_back(VIEWS["handler"])


def test_async_views(site: Any, inspector: Inspector) -> None:
    """Asynchronous views use transactions in threads; concurrent ones never mix."""
    handler = VIEWS["handler"]
    before = len(inspector.events)

    async def main() -> None:
        client = site.AsyncClient()
        await asyncio.gather(
            *(
                client.get(
                    f"/async?who={n}{'&fail=1' if n % 2 else ''}",
                    headers={"X-PostHog-Distinct-Id": f"visitor-{n}-async"},
                )
                for n in range(10)
            )
        )

    asyncio.run(main())
    assert handler.flush(10)
    events = inspector.events[before:]

    assert 5 == rolled_back(handler)
    assert 10 + 5 + 10 + 10 == len(events)
    for event in events:
        if event.event == "$identify":
            number = event.distinct_id.removeprefix("member-")
            assert f"visitor-{number}-async" == event.properties["$anon_distinct_id"]
        else:
            who = event.properties["who"]
            expected = f"member-{who}" if event.event == "after" else f"visitor-{who}-async"
            assert expected == event.distinct_id


def test_without_a_database(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Django without a database holds nothing back."""
    import django.conf

    from posthog_logging.middleware.django import on_commit

    if not django.conf.settings.configured:
        django.conf.settings.configure(SECRET_KEY="for tests only", LOGGING_CONFIG=None)
    handler = make_handler()
    on_commit(handler)
    handler.accept({"event": "order placed", "distinct_id": "user-1"})

    assert ["order placed"] == happened(handler, inspector)


def test_unused_costs_no_import(run_script: Any) -> None:
    """Who does not use Django does not get it imported, nor a handler that looks for it."""
    done = run_script(
        "import sys\n"
        "import posthog_logging.middleware.wsgi, posthog_logging.middleware.asgi\n"
        "from posthog_logging import PostHogHandler, context\n"
        "handler = PostHogHandler('phc_test', 'http://127.0.0.1:9', send=False)\n"
        "with context.held():\n"
        "    handler.accept({'event': 'x'})\n"
        "print('django' in sys.modules)"
    )

    assert "False" == done.stdout.strip()
