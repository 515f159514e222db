"""What is bound in a context: for its thread, its task, its request, and for no other."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import os
import threading
import weakref

from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from posthog_logging import context
from posthog_logging.context import Bound, bind, clear, current, identity
from posthog_logging.events.message import assemble


@pytest.fixture(autouse=True)
def _unbound() -> Iterator[None]:
    clear()
    yield
    clear()


def seen() -> tuple[Any, dict[str, Any]]:
    """Return what is bound here: the id and the properties."""
    bound = current() or Bound()
    return bound.distinct_id, dict(bound.properties)


def test_nothing_is_bound_at_first() -> None:
    """Without a binding there is none, so that it costs next to nothing to look."""
    assert current() is None


def test_an_identity_lasts_for_its_block() -> None:
    """After the block, by a raise too, everything is as it was before."""
    bind(service="web")
    inside = []

    @identity("user-1", plan="gold")
    def fail() -> None:
        inside.append(seen())
        raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert [("user-1", {"service": "web", "plan": "gold"})] == inside
    assert (None, {"service": "web"}) == seen()


def test_nested_identities_add_properties_and_replace_the_id() -> None:
    """The inner one wins where both speak; one without an id keeps the outer one's."""
    with identity("outer", a=1, b=1):
        with identity("inner", b=2):
            assert ("inner", {"a": 1, "b": 2}) == seen()
        with identity(c=3):
            assert ("outer", {"a": 1, "b": 1, "c": 3}) == seen()
        assert ("outer", {"a": 1, "b": 1}) == seen()


def test_one_identity_may_be_entered_again() -> None:
    """The same object serves several blocks, one within the other too."""
    user = identity("user-1")
    with user, identity("user-2"), user:
        assert "user-1" == seen()[0]
    with user:
        assert "user-1" == seen()[0]

    assert None is seen()[0]


def test_clear_forgets_all() -> None:
    """`clear` takes back identity and properties of the context."""
    bind(a=1)
    with identity("user-1"):
        clear()
        assert current() is None


def test_a_binding_cannot_be_changed_from_outside() -> None:
    """What is bound is shared by events, so nobody may write into it."""
    with identity("user-1", a=1):
        with pytest.raises(TypeError):
            current().properties["a"] = 2  # type: ignore[index, union-attr]
        assert {"a": 1} == seen()[1]


def test_any_name_may_be_a_property() -> None:
    """Names of our own parameters are free for properties."""
    with identity("user-1", self=1, distinct_id=2):
        assert {"self": 1, "distinct_id": 2} == seen()[1]


def test_functions_can_be_decorated() -> None:
    """A decorated function runs in the identity, keeps its name, and returns what it returns."""

    @identity("user-1", a=1)
    def work(number: int, *, more: int) -> Any:
        """Work."""
        return number + more, seen()

    assert (3, ("user-1", {"a": 1})) == work(1, more=2)
    assert ("work", "Work.") == (work.__name__, work.__doc__)
    assert (None, {}) == seen()


def test_coroutine_functions_can_be_decorated() -> None:
    """A decorated coroutine function is one still, and its body runs in the identity."""

    @identity("user-1")
    async def work() -> Any:
        await asyncio.sleep(0)
        return seen()

    assert inspect.iscoroutinefunction(work)
    assert ("user-1", {}) == asyncio.run(work())


def test_a_decorated_function_runs_in_many_threads_at_once() -> None:
    """Two threads inside one decorated function do not take back each other's binding."""
    inside = threading.Barrier(4)
    found = []

    @identity("user-1")
    def work() -> None:
        inside.wait()
        found.append(seen()[0])
        inside.wait()

    def run() -> None:
        work()
        found.append(seen()[0])

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {"user-1": 4, None: 4} == {name: found.count(name) for name in ("user-1", None)}


def test_threads_have_contexts_of_their_own() -> None:
    """A new thread begins with nothing, and what it binds stays its own."""
    found = []

    def work() -> None:
        found.append(seen())
        bind(b=2)
        found.append(seen())

    with identity("user-1"):
        thread = threading.Thread(target=work, **empty_context())
        thread.start()
        thread.join()
        found.append(seen())

    assert [(None, {}), (None, {"b": 2}), ("user-1", {})] == found


def empty_context() -> dict[str, Any]:
    """Return what makes a thread start with nothing where it inherits (free-threaded builds)."""
    import sys

    inherits = getattr(sys.flags, "thread_inherit_context", 0)
    return {"context": copy_context()} if inherits else {}


def test_tasks_have_contexts_of_their_own() -> None:
    """Tasks begin with what their creator had, and interleave without mixing."""

    async def serve(user: str, turns: int) -> list[Any]:
        found = []
        with identity(user):
            for turn in range(turns):
                bind(turn=turn)
                await asyncio.sleep(0)
                found.append(seen())
        return [*found, seen()]

    async def main() -> list[Any]:
        bind(service="web")
        return await asyncio.gather(*(serve(f"user-{n}", 3) for n in range(5)))

    expected = [
        [
            *((f"user-{n}", {"service": "web", "turn": turn}) for turn in range(3)),
            (None, {"service": "web"}),
        ]
        for n in range(5)
    ]
    assert expected == asyncio.run(main())


def test_an_abandoned_generator_may_end_elsewhere() -> None:
    """A block that is left in another context than it was entered in raises nothing."""

    def rows() -> Iterator[int]:
        with identity("user-1"):
            yield 1

    generator = rows()
    other = copy_context()
    other.run(next, generator)
    generator.close()

    assert current() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_begins_with_nothing() -> None:
    """A worker serves other requests than the one in which its parent forked."""
    source, sink = os.pipe()
    with identity("user-1", a=1):
        child = os.fork()
        if child == 0:  # pragma: no cover - ends without a report
            os.write(sink, repr(seen()).encode())
            os._exit(0)
        os.close(sink)
        with os.fdopen(source) as lines:
            found = lines.read()
        os.waitpid(child, 0)
        assert ("user-1", {"a": 1}) == seen()

    assert repr((None, {})) == found


def test_what_is_said_wins_over_what_is_bound() -> None:
    """An event's own id and properties have the last word."""
    with identity("bound", a=1, b=1):
        message = assemble(
            {"distinct_id": "said", "properties": {"b": 2}}, "x", 0.0, bound=context.current()
        )

    assert ("said", {"a": 1, "b": 2}) == (message.distinct_id, message.properties)


def test_bound_objects_are_read_when_the_event_is_made() -> None:
    """A binding holds the caller's object; the event is a copy of it at that time."""
    with identity("bound", a=1):
        message = assemble({"event": "x"}, "", 0.0, bound=context.current())
    bind(a=2)

    assert ("bound", {"a": 1}) == (message.distinct_id, message.properties)


def test_threads_may_enter_the_same_one() -> None:
    """Each leaves its own block, in whatever order they come and go."""
    who = context.identity("svc-1")
    entered, left = threading.Event(), threading.Event()
    found: list[Any] = []

    def first() -> None:
        with who:
            entered.set()
            left.wait(30)
        found.append(context.current())

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(30)
    with who:
        left.set()
        thread.join()
        found.append(context.current())
    found.append(context.current())

    assert [None, "svc-1", None] == [one and one.distinct_id for one in found]


def test_tasks_may_enter_the_same_one() -> None:
    """Each leaves its own block, also where one began inside the other's."""
    who = context.identity("svc-1")

    async def main() -> list[Any]:
        entered, left = asyncio.Event(), asyncio.Event()

        async def inner() -> Any:
            with who:
                entered.set()
                await left.wait()
            return context.current()

        with who, who:
            task = asyncio.ensure_future(inner())
            await entered.wait()
        left.set()
        return [await task, context.current()]

    assert ["svc-1", None] == [one and one.distinct_id for one in asyncio.run(main())]


def test_a_copy_may_outlive_the_block() -> None:
    """A generator whose steps each run in a copy of a context that has left the block."""
    who = context.identity("svc-1")

    def steps() -> Iterator[Any]:
        with who:
            yield context.current()

    with who:
        copied = contextvars.copy_context()
    generator = steps()
    assert "svc-1" == contextvars.copy_context().run(next, generator).distinct_id

    assert "at its end" == copied.run(next, generator, "at its end")
    assert context.current() is None


def test_blocks_that_are_never_left_are_forgotten() -> None:
    """A program that only ever enters does not fill its memory."""

    class Mark:
        pass

    marks = []
    for _ in range(3000):
        mark = Mark()
        marks.append(weakref.ref(mark))
        context.identity("user-1", mark=mark).__enter__()
        context.clear()
    del mark
    gc.collect()

    assert sum(one() is not None for one in marks) <= 1001


def test_the_newest_one_identified_in_a_request_counts() -> None:
    """In whichever copies of its context; a request inside another one is its own."""
    end = context.begin(context.Bound("visitor"))
    for name in ("user-1", "user-2"):
        contextvars.copy_context().run(context.identify, name)
    end_inner = context.begin(context.Bound("another"))
    contextvars.copy_context().run(context.identify, "user-3")
    end_inner()
    context.catch_up()
    assert "user-2" == context.current().distinct_id

    end()
    assert context.current() is None


def test_an_outer_block_ends_what_was_never_left() -> None:
    """Such as the block of a generator that nobody closed."""
    with context.identity("outer"):
        context.identity("inner").__enter__()
        assert "inner" == context.current().distinct_id

    assert context.current() is None
