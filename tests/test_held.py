"""Persons who log in, events that are held, flags and groups: what a context does for events."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from typing import Any

import pytest

from conftest import answer_each

from posthog_logging import Analytics, PostHogHandler, context
from posthog_logging.inspector import Inspector


MakeHandler = Callable[..., PostHogHandler]

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _unbound() -> Iterator[None]:
    context.clear()
    yield
    context.clear()


@pytest.fixture
def name() -> Callable[[str], str]:
    """A maker of ids that no other test has: what was identified is known for ever."""
    number = next(_numbers)
    return lambda text: f"{text}-{number}"


def names(inspector: Inspector) -> list[str]:
    return [event.event for event in inspector.events]


def arrived(handler: PostHogHandler, inspector: Inspector) -> list[Any]:
    """Return the events that arrived."""
    assert handler.flush(10)
    assert [] == inspector.bad
    return list(inspector.events)


# Who it is


def test_identify(make_handler: MakeHandler, inspector: Inspector, name: Any) -> None:
    """Who was a visitor is merged into the person, and the context is the person's."""
    handler = make_handler()
    handler.accept({"event": "page seen", "distinct_id": name("anon")})
    context.identify(name("user"), anonymous_id=name("anon"), plan="gold")
    handler.accept({"event": "order placed"})

    _, merge, after = arrived(handler, inspector)

    assert ("$identify", name("user")) == (merge.event, merge.distinct_id)
    assert name("anon") == merge.properties["$anon_distinct_id"]
    assert {"plan": "gold"} == merge.properties["$set"]
    assert name("user") == after.distinct_id


def test_once_a_pair(make_handler: MakeHandler, inspector: Inspector, name: Any) -> None:
    """One merge for each pair, however many threads log in at once; each device is a pair."""
    handler = make_handler()
    together = threading.Barrier(8)

    def log_in(number: int) -> None:
        together.wait(10)
        for _ in range(5):
            context.identify(name("user"), anonymous_id=name(f"device{number % 2}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(log_in, range(8)))

    assert {name("device0"): 1, name("device1"): 1} == Counter(
        event.properties["$anon_distinct_id"] for event in arrived(handler, inspector)
    )


def test_persons_are_not_merged(
    make_handler: MakeHandler, inspector: Inspector, name: Any
) -> None:
    """An id that is known as a person's is merged into nobody, nor is one into itself."""
    handler = make_handler()
    context.identify(name("first"))
    context.identify(name("second"), anonymous_id=name("first"))
    context.identify(name("third"), anonymous_id=name("third"))
    context.remember_person(name("fourth"))
    context.identify(name("fifth"), anonymous_id=f" {name('fourth')} ")

    assert [] == arrived(handler, inspector)
    assert name("fifth") == context.current().distinct_id  # type: ignore[union-attr]


def test_properties_of_who_is_known(
    make_handler: MakeHandler, inspector: Inspector, name: Any
) -> None:
    """Properties are sent also where nobody is to be merged."""
    handler = make_handler()
    context.identify(name("user"), plan="gold")

    (event,) = arrived(handler, inspector)

    assert ("$set", {"plan": "gold"}) == (event.event, event.properties["$set"])


def test_a_merge_that_nobody_took(
    make_handler: MakeHandler, inspector: Inspector, name: Any
) -> None:
    """A pair that no handler took is sent the next time."""
    handler = make_handler()
    handler.opt_out()
    context.identify(name("user"), anonymous_id=name("anon"))
    handler.opt_in()
    context.identify(name("user"))

    assert ["$identify"] == [event.event for event in arrived(handler, inspector)]


def test_which_handlers(make_handler: MakeHandler, make_log: Any, name: Any) -> None:
    """Every handler in use takes it: open ones, and closed ones that a logger has."""
    in_use, closed, attached = make_handler(), make_handler(), make_handler()
    make_log(attached)
    for handler in (closed, attached):
        handler.accept({"event": "before"})
        handler.close()
    context.identify(name("user"), anonymous_id=name("anon"))

    assert [1, 1, 2] == [one.counts["accepted"] for one in (in_use, closed, attached)]


class Unsayable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "user", [None, "", "  ", Unsayable()], ids=["none", "empty", "blank", "?"]
)
def test_nobody(user: Any, make_handler: MakeHandler) -> None:
    """An id that is nobody's changes nothing."""
    handler = make_handler()
    context.identify(user, anonymous_id="anon", plan="gold")

    assert 0 == handler.counts["accepted"]
    assert context.current() is None


def test_odd_ids(make_handler: MakeHandler, inspector: Inspector, name: Any) -> None:
    """Numbers and bytes are ids as they are on any record."""
    handler = make_handler()
    context.identify(1234567, anonymous_id=name("anon").encode())
    context.identify(1234567, anonymous_id=name("anon"))

    (event,) = arrived(handler, inspector)

    assert ("1234567", name("anon")) == (event.distinct_id, event.properties["$anon_distinct_id"])


def test_known_ids_are_bounded(make_handler: MakeHandler) -> None:
    """A process that sees very many persons remembers the last 100,000."""
    for number in range(101_000):
        context.remember_person(f"many-{number}")

    assert context.is_person("many-100999")
    assert not context.is_person("many-0")


# What every event of a context has


def test_groups(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Groups are bound by their types; inner ones add, and an event's own win."""
    handler = make_handler()
    context.bind(groups={"company": "acme"})
    with context.identity("user-1", groups={"team": "red"}):
        handler.accept({"event": "inner", "groups": {"team": "blue"}})
        handler.accept({"event": "both"})
    handler.accept({"event": "outer", "distinct_id": "user-1"})
    context.bind(groups="no mapping")
    handler.accept({"event": "odd", "distinct_id": "user-1"})

    assert [
        {"company": "acme", "team": "blue"},
        {"company": "acme", "team": "red"},
        {"company": "acme"},
        {"company": "acme"},
    ] == [event.properties["$groups"] for event in arrived(handler, inspector)]


def test_flags(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Flags are properties of the context's events; those that are off are not active."""
    handler = make_handler()
    with context.identity("user-1"):
        context.flags({"new-cart": True, "price": "variant-b", "old": False})
        context.flags({"new-cart": False, "late": True})
        handler.accept({"event": "order placed"})
    handler.accept({"event": "after", "distinct_id": "user-1"})

    inside, after = arrived(handler, inspector)

    assert {
        "$feature/new-cart": False,
        "$feature/price": "variant-b",
        "$feature/old": False,
        "$feature/late": True,
    }.items() <= inside.properties.items()
    assert ["price", "late"] == inside.properties["$active_feature_flags"]
    assert "$active_feature_flags" not in after.properties


def test_release(
    make_handler: MakeHandler, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release that the environment names is on every event, also on an exception."""
    monkeypatch.setenv("POSTHOG_RELEASE_ID", " 2026.11 ")
    handler = make_handler()
    Analytics(handler).capture("user-1", "plain", {"a": 1})
    handler.capture_exception(ValueError())

    assert ["2026.11"] * 2 == [
        event.properties["$release_id"] for event in arrived(handler, inspector)
    ]


@pytest.mark.parametrize("value", ["", "  ", None])
def test_no_release(
    value: str | None,
    make_handler: MakeHandler,
    inspector: Inspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without one there is none."""
    if value is not None:
        monkeypatch.setenv("POSTHOG_RELEASE_ID", value)
    handler = make_handler()
    handler.accept({"event": "plain", "distinct_id": "user-1"})

    (event,) = arrived(handler, inspector)

    assert "$release_id" not in event.properties


@pytest.mark.parametrize("trace", [True, False])
def test_trace(
    trace: bool, make_handler: MakeHandler, make_log: Any, inspector: Inspector
) -> None:
    """With ``trace`` the ids of the active span are on events, and an event's own win."""
    api = pytest.importorskip("opentelemetry.trace")
    handler = make_handler(trace=trace)
    log = make_log(handler)
    span = api.NonRecordingSpan(api.SpanContext(0xABC, 0xDEF, is_remote=False))
    log.info("outside", extra={"distinct_id": "user-1", "properties": {}})
    with api.use_span(span):
        log.info("inside", extra={"distinct_id": "user-1", "properties": {}})
        log.info("own", extra={"distinct_id": "user-1", "properties": {"$trace_id": "mine"}})

    outside, inside, own = arrived(handler, inspector)
    ids = {"$trace_id": f"{0xABC:032x}", "$span_id": f"{0xDEF:016x}"}

    assert "$trace_id" not in outside.properties
    assert trace == (ids.items() <= inside.properties.items())
    assert "mine" == own.properties["$trace_id"]


def test_trace_imports_nothing(run_script: Any) -> None:
    """A program that does not use OpenTelemetry does not get it imported."""
    done = run_script(
        "import sys\n"
        "from posthog_logging import PostHogHandler\n"
        "handler = PostHogHandler('phc_test', 'http://127.0.0.1:9', trace=True, send=False)\n"
        "handler.accept({'event': 'x'})\n"
        "print('opentelemetry' in sys.modules)"
    )

    assert "False" == done.stdout.strip()


# What is held


def event(handler: PostHogHandler, name: str) -> str | None:
    return handler.accept({"event": name, "distinct_id": "user-1"})


def test_held(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Events of a block go at its end, as they were when they were logged, in their order."""
    handler = make_handler()
    box: dict[str, Any] = {"a": 1}
    with context.identity("user-1"), context.held():
        first = handler.accept({"event": "first", "properties": box})
        box["a"] = 2
        event(handler, "second")
        assert handler.flush(10)
        assert [] == names(inspector)
        assert 0 == handler.counts["accepted"]

    first_event, second = arrived(handler, inspector)

    assert ("first", "second") == (first_event.event, second.event)
    assert (first, {"a": 1}) == (first_event.uuid, {"a": first_event.properties["a"]})
    assert first_event.timestamp < second.timestamp


def test_rolled_back(
    make_handler: MakeHandler, inspector: Inspector, caplog: pytest.LogCaptureFixture
) -> None:
    """Events of a block that raises did not happen: counted, and no loss to warn of."""
    handler = make_handler()

    def fail() -> None:
        with context.held():
            event(handler, "first")
            event(handler, "second")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    event(handler, "after")

    assert ["after"] == [one.event for one in arrived(handler, inspector)]
    assert 2 == handler.counts["rolled_back"]
    assert 3 == handler.counts["accepted"]
    assert [] == caplog.records


def test_nested(make_handler: MakeHandler, inspector: Inspector) -> None:
    """What an inner block lets go the outer one keeps; what it drops is dropped."""
    handler = make_handler()
    with context.held():
        event(handler, "outer 1")
        with context.held():
            event(handler, "inner kept")
        with suppress(KeyError), context.held():
            event(handler, "inner dropped")
            raise KeyError
        event(handler, "outer 2")
        assert 1 == handler.counts["accepted"]
    with suppress(KeyError), context.held():
        with context.held():
            event(handler, "let go and dropped then")
        raise KeyError

    kept = [one.event for one in arrived(handler, inspector)]

    assert ["outer 1", "inner kept", "outer 2"] == kept
    assert 2 == handler.counts["rolled_back"]


def test_never_held(make_handler: MakeHandler, inspector: Inspector, name: Any) -> None:
    """Exceptions, logs and identify say what was, whatever becomes of the block."""
    handler = make_handler(logs=True)
    with suppress(KeyError), context.held():
        handler.capture_exception(ValueError())
        context.identify(name("user"), anonymous_id=name("anon"))
        handler.accept({"event": "held"})
        raise KeyError

    assert ["$exception", "$identify"] == [one.event for one in arrived(handler, inspector)]
    assert name("user") == context.current().distinct_id  # type: ignore[union-attr]


def test_nothing_stays_bound(make_handler: MakeHandler) -> None:
    """After a block in which nobody was bound, nothing is, so that log calls are as quick."""
    with context.held():
        pass

    assert context.current() is None


def test_clear_inside(make_handler: MakeHandler, inspector: Inspector) -> None:
    """`clear` forgets the identity, and what is held stays held."""
    handler = make_handler()
    with suppress(KeyError), context.identity("user-1"), context.held():
        context.clear()
        event(handler, "held")
        raise KeyError

    assert [] == arrived(handler, inspector)


def test_entered_twice() -> None:
    """One block is one object."""
    block = context.held()
    with block, pytest.raises(RuntimeError, match="open already"):
        block.__enter__()
    with block:
        pass


def test_bounded(make_handler: MakeHandler, inspector: Inspector) -> None:
    """A block keeps 10,000 events; what is more is refused and counted, and told once."""
    handler = make_handler()
    with context.held():
        taken = [event(handler, "many") for _ in range(10_100)]

    assert [None] * 100 == taken[10_000:]
    assert handler.flush(20)
    assert (100, 10_000) == (handler.counts["held_full"], handler.counts["delivered"])


def test_bounded_bytes(make_handler: MakeHandler) -> None:
    """Nor does it keep more than 32 MiB."""
    handler = make_handler(send=True, max_queue_size=1)
    with suppress(KeyError), context.held():
        for _ in range(70):
            handler.accept({"event": "large", "properties": {"text": "x" * 500_000}})
        raise KeyError

    assert 70 == handler.counts["held_full"] + handler.counts["rolled_back"]
    assert handler.counts["held_full"] >= 1


def test_never_left(make_handler: MakeHandler) -> None:
    """A block in a context that ends without it is rolled back, and counted."""
    handler = make_handler()

    def rows() -> Iterator[int]:
        context.held().__enter__()
        event(handler, "of nobody")
        yield 1

    Context().run(lambda: list(rows()))
    gc.collect()

    assert 1 == handler.counts["rolled_back"]


def test_two_handlers(make_handler: MakeHandler) -> None:
    """Each handler counts its own."""
    one, other = make_handler(), make_handler()
    with suppress(KeyError), context.held():
        event(one, "a")
        event(other, "b")
        event(other, "c")
        raise KeyError

    assert (1, 2) == (one.counts["rolled_back"], other.counts["rolled_back"])


def test_tasks(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Tasks hold each their own; what outlives the block that it began in goes at once."""
    handler = make_handler()
    go_on: asyncio.Event

    async def outlive() -> None:
        await go_on.wait()
        event(handler, "late")

    async def order(number: int, tasks: list[Any]) -> None:
        with context.held():
            await asyncio.sleep(0)
            event(handler, f"order {number}")
            tasks.append(asyncio.create_task(outlive()))
            await asyncio.sleep(0)
            if number % 2:
                raise KeyError

    async def main() -> None:
        nonlocal go_on
        go_on = asyncio.Event()
        tasks: list[Any] = []
        await asyncio.gather(*(order(n, tasks) for n in range(4)), return_exceptions=True)
        go_on.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())

    assert {"order 0": 1, "order 2": 1, "late": 4} == Counter(
        one.event for one in arrived(handler, inspector)
    )
    assert 2 == handler.counts["rolled_back"]


def test_opted_out_meanwhile(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Who opts out before the end of a block has nothing sent."""
    handler = make_handler()
    with context.held():
        event(handler, "held")
        handler.opt_out()
    handler.opt_in()

    assert [] == arrived(handler, inspector)


# Waiting without blocking


def test_aflush(make_handler: MakeHandler, raw_server: Any) -> None:
    """An event loop goes on while it delivers."""
    turned = threading.Event()

    def answer_late(connection: Any, number: int, server: Any) -> None:
        if turned.wait(20):
            answer_each(connection, number, server)

    handler = make_handler(
        host=raw_server(answer_late).url, dialect="posthog-v0", flush_interval=60.0
    )

    async def main() -> bool:
        async def turn() -> None:
            for _ in range(10):
                await asyncio.sleep(0)
            turned.set()

        event(handler, "before")
        flushing = asyncio.create_task(handler.aflush(30))
        await turn()
        return await flushing

    assert asyncio.run(main())
    assert handler.counts["delivered"] == 1


def test_aflush_in_trio(make_handler: MakeHandler, inspector: Inspector) -> None:
    """Under trio, too."""
    trio = pytest.importorskip("trio")
    analytics = Analytics(make_handler(flush_interval=60.0))
    analytics.capture("user-1", "before")

    assert trio.run(analytics.aflush, 10)
    assert ["before"] == names(inspector)


def test_aflush_is_bounded(make_handler: MakeHandler, raw_server: Any) -> None:
    """It waits no longer than it is told to."""
    server = raw_server(lambda connection, number, server: server.stopping.wait(20))
    handler = make_handler(host=server.url, shutdown_timeout=0.1)
    event(handler, "nobody answers")

    assert not asyncio.run(handler.aflush(0.05))
