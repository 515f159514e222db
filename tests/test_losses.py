"""`on_error` hears of every loss of an event, in the library's thread, and may do as it likes."""

from __future__ import annotations

import os
import textwrap
import threading

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from posthog_logging import PostHogHandler
from posthog_logging.delivery.losses import DeliveryError
from posthog_logging.wire import Request, Response
from posthog_logging.wire.posthog import V0


SOON = 20.0
GOOD = Response(200, body=b'{"results":{},"status":"Ok"}')
LOSSES = {"queue_full", "spool_full", "rejected", "shutdown", "oversized", "internal_error"}


class Away:
    """A transport that answers when it is let, and then as it is told."""

    def __init__(self) -> None:
        self.answer = GOOD
        self.reached = threading.Event()
        self.open = threading.Event()

    def send(self, request: Request, timeout: float) -> Response:
        self.reached.set()
        assert self.open.wait(SOON)
        return self.answer

    def close(self) -> None:
        pass


class Hook:
    """An `on_error` that notes what it was called with, and where."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.threads: set[str] = set()
        self.also: Callable[[], object] = bool

    def __call__(self, error: DeliveryError, events: list[dict[str, Any]]) -> None:
        self.calls.append((error.reason, error.count, len(events)))
        self.threads.add(threading.current_thread().name)
        self.also()

    @property
    def counts(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for reason, count, _ in self.calls:
            found[reason] += count
        return found


@pytest.fixture
def hook() -> Hook:
    return Hook()


@pytest.fixture
def away() -> Iterator[Away]:
    made = Away()
    yield made
    made.open.set()


@pytest.fixture
def make(hook: Hook, away: Away) -> Iterator[Callable[..., PostHogHandler]]:
    """A maker of handlers with the hook, on a server that does not answer yet."""
    made: list[PostHogHandler] = []

    def handler(**options: Any) -> PostHogHandler:
        options = {"flush_at": 1, "transport": away, "dialect": V0, **options}
        made.append(PostHogHandler("phc_x", "http://127.0.0.1:9", on_error=hook, **options))
        return made[-1]

    yield handler
    away.open.set()
    for one in made:
        one.close()


def put(handler: PostHogHandler, count: int, **fields: Any) -> None:
    for number in range(count):
        handler.accept({"event": "e", "distinct_id": "u", "properties": {"n": number, **fields}})


def losses(handler: PostHogHandler) -> dict[str, int]:
    return {reason: n for reason, n in handler.counts.items() if n and reason in LOSSES}


def broken(event: Any) -> Any:
    raise KeyError("a bug")


@pytest.mark.parametrize(
    ("reason", "before_send"),
    [
        ("before_send_failed", broken),
        ("before_send_failed", lambda event: 5),
        ("oversized", lambda event: {**event, "event": "x" * 2_000_000}),
    ],
)
def test_what_was_never_accepted(
    reason: str, before_send: Any, make: Callable[..., PostHogHandler], hook: Hook
) -> None:
    """Where no event gets as far as the queue, the hook hears of it, too."""
    heard = threading.Event()
    hook.also = heard.set
    handler = make(before_send=before_send)
    put(handler, 3)

    assert heard.wait(SOON)
    handler.close()
    assert {reason: 3} == hook.counts
    assert {"posthog-logging"} == hook.threads


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "block"])
def test_what_a_full_queue_turns_away(
    overflow: str, make: Callable[..., PostHogHandler], hook: Hook, away: Away
) -> None:
    """How many it were, though there was no room to keep them; never in the log call."""
    handler = make(max_queue_size=10, overflow=overflow, block_timeout=0.0)
    put(handler, 1)
    assert away.reached.wait(SOON)
    put(handler, 50)
    assert [] == hook.calls
    away.open.set()
    handler.flush(SOON)

    assert losses(handler)["queue_full"] >= 40
    assert losses(handler) == hook.counts
    assert {"posthog-logging"} == hook.threads


def test_what_a_full_spool_turns_away(
    make: Callable[..., PostHogHandler], hook: Hook, away: Away, tmp_path: Path
) -> None:
    """The thread is not needed for the event, and comes all the same for the hook."""
    away.answer = Response(503)
    away.open.set()
    handler = make(spool=tmp_path, max_spool_bytes=20_000)
    put(handler, 60, text="x" * 1000)
    refused = handler.counts["spool_full"]
    handler.flush(SOON)
    handler.close()

    assert refused > 20
    assert {"spool_full": refused} == hook.counts == losses(handler)


def test_what_the_server_refuses_comes_along(
    make: Callable[..., PostHogHandler], hook: Hook, away: Away
) -> None:
    """Events that are at hand are given to the hook, and heard of once."""
    away.answer = Response(418)
    away.open.set()
    handler = make(flush_at=100, flush_interval=60.0, bisect=False)
    put(handler, 3)
    handler.flush(SOON)
    handler.flush(SOON)

    assert [("rejected", 3, 3)] == hook.calls


def test_an_event_that_nobody_can_take(make: Callable[..., PostHogHandler], hook: Hook) -> None:
    """One that is refused before there is a thread is heard of at the close."""
    handler = make(before_send=lambda event: 7)
    put(handler, 2)
    assert [] == hook.calls
    handler.close()

    assert [("before_send_failed", 2, 0)] == hook.calls


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest"])
def test_a_hook_that_logs_into_a_full_queue(
    overflow: str, make: Callable[..., PostHogHandler], hook: Hook, away: Away
) -> None:
    """Its own events may get lost; it hears nothing of those, or that would never end."""
    handler = make(max_queue_size=2, overflow=overflow)
    hook.also = lambda: put(handler, 5)
    put(handler, 1)
    assert away.reached.wait(SOON)
    put(handler, 10)
    away.open.set()
    for _ in range(20):
        handler.flush(SOON)

    assert 1 <= len(hook.calls) <= 3
    assert 0 == handler.counts["waiting"]


class Plain(BaseException):
    """What nobody expects."""


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Plain])
def test_whatever_the_hook_raises(
    kind: type[BaseException], make: Callable[..., PostHogHandler], hook: Hook, away: Away
) -> None:
    """The thread goes on, the ledger is exact, and it is said once."""
    threads = []

    def throw() -> None:
        threads.append(threading.current_thread())
        raise kind

    hook.also = throw
    handler = make()
    away.open.set()
    for answer in (Response(418), GOOD, Response(418), GOOD):
        away.answer = answer
        put(handler, 1)
        assert handler.flush(SOON)

    assert 2 == len(threads)
    assert 1 == len(set(threads))
    assert 4 == handler.counts["accepted"]
    assert (2, 2) == (handler.counts["delivered"], handler.counts["rejected"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_begins_at_nothing(run_script: Any) -> None:
    """What the parent has heard of is not subtracted from what happens to the child's events."""
    program = """
        import os
        from posthog_logging import PostHogHandler

        def hook(error, events):
            # In one step: parent and child write to the same pipe.
            os.write(1, f"{error.reason} {error.count} {len(events)}\\n".encode())

        handler = PostHogHandler("phc_x", on_error=hook, before_send=lambda event: 7)
        for _ in range(5):
            handler.accept({"event": "e", "distinct_id": "u"})
        handler.close()
        child = os.fork()
        for _ in range(3):
            handler.accept({"event": "e", "distinct_id": "u"})
        handler.close()
        if child:
            os.waitpid(child, 0)
    """
    done = run_script(textwrap.dedent(program))

    assert 0 == done.returncode
    lines = sorted(done.stdout.splitlines())
    assert [f"before_send_failed {count} 0" for count in (3, 3, 5)] == lines
