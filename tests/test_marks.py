"""Which failures are reported: each once, however many see it, and each that is another."""

from __future__ import annotations

import asyncio
import gc
import itertools
import pickle
import threading
import weakref

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from posthog_logging.errors.marks import Marks


class Own(Exception):
    """An exception of the program's, which takes weak references."""


class Slotted(Exception):
    """One that takes none, nor attributes."""

    __slots__ = ()


class Unhashable(Exception):
    """One that is equal to any other, and so has no hash."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Hostile(Exception):
    """One that raises wherever one looks."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


KINDS = [Own, Slotted, Unhashable, Hostile, ValueError, OSError, KeyError]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


class Desk:
    """Counts how many reports there are of what it is shown."""

    def __init__(self) -> None:
        self.marks = Marks()
        self.reports = 0
        self._names = itertools.count()

    def __call__(self, error: BaseException) -> str:
        name = f"report {next(self._names)}"
        found = self.marks.claim(error, name)
        self.reports += found == name
        return found


@pytest.fixture
def desk() -> Desk:
    """A desk where failures are reported."""
    return Desk()


def fail(error: BaseException) -> None:
    raise error


def passing_on(error: BaseException, desk: Desk) -> None:
    try:
        fail(error)
    except BaseException as caught:
        desk(caught)
        raise


def raising_it(error: BaseException, desk: Desk) -> None:
    try:
        fail(error)
    except BaseException as caught:
        desk(caught)
        raise caught


@contextmanager
def around(desk: Desk) -> Iterator[None]:
    try:
        yield
    except BaseException as caught:
        desk(caught)
        raise


def in_contexts(error: BaseException, desk: Desk) -> None:
    with around(desk), around(desk):
        fail(error)


def in_a_future(error: BaseException, desk: Desk) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(passing_on, error, desk).result()


def in_a_task(error: BaseException, desk: Desk) -> None:
    async def work() -> None:
        passing_on(error, desk)

    async def main() -> None:
        await asyncio.create_task(work())

    asyncio.run(main())


def in_a_generator(error: BaseException, desk: Desk) -> None:
    def rows() -> Iterator[int]:
        yield 1
        passing_on(error, desk)

    list(rows())


def nested(error: BaseException, desk: Desk) -> None:
    for way in (passing_on, raising_it):
        try:
            way(error, desk)
        except BaseException as caught:
            desk(caught)
            raise


WAYS = [passing_on, raising_it, in_contexts, in_a_future, in_a_task, in_a_generator, nested]


@kinds
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_on_its_way_up(way: Callable[..., None], kind: type[Exception], desk: Desk) -> None:
    """A failure that is met again on its way up, in whatever way, is one."""
    if way is in_a_task and kind is Hostile:
        pytest.skip("it stops asyncio itself")
    with pytest.raises(kind) as caught:
        way(kind("it failed"), desk)
    desk(caught.value)
    desk(caught.value)

    assert 1 == desk.reports


def by_a_function(error: BaseException, desk: Desk) -> None:
    try:
        fail(error)
    except BaseException as caught:
        desk(caught)


def in_the_same_line(error: BaseException, desk: Desk) -> None:
    for _ in range(3):
        try:
            raise error
        except BaseException as caught:
            desk(caught)


def in_threads(error: BaseException, desk: Desk) -> None:
    thread = threading.Thread(target=by_a_function, args=(error, desk))
    thread.start()
    thread.join()


@kinds
@pytest.mark.parametrize(
    ("way", "times"),
    [(by_a_function, 3), (in_the_same_line, 1), (in_threads, 3)],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_raised_again(
    way: Callable[..., None], times: int, kind: type[Exception], desk: Desk
) -> None:
    """One exception object that is raised three times is three failures."""
    error = kind("kept by a module")
    for _ in range(times):
        way(error, desk)

    assert 3 == desk.reports


@kinds
def test_reported_before_it_was_raised(kind: type[Exception], desk: Desk) -> None:
    """What is logged first and raised then is one failure; its traceback may go."""
    error = kind("it failed")
    desk(error)
    with pytest.raises(kind):
        passing_on(error, desk)
    BaseException.__setattr__(error, "__traceback__", None)
    desk(error)

    assert 1 == desk.reports


@kinds
def test_nothing_is_written(kind: type[Exception], desk: Desk) -> None:
    """The exception is as it was: its attributes, its pickle, its text."""
    error, other = kind("it failed"), kind("it failed")
    desk(error)

    assert {} == object.__getattribute__(error, "__dict__")
    if kind is not Hostile:
        assert (type(other), other.args) == (type(error), error.args)
        copy = pickle.loads(pickle.dumps(error))
        assert error.args == copy.args


@kinds
def test_nothing_is_kept_alive(kind: type[Exception], desk: Desk) -> None:
    """What was reported ends as it would without us, with the frames of its traceback."""

    class Local:
        """Something big that a frame has in hand."""

    def work() -> weakref.ref[Any]:
        local = Local()
        try:
            raise kind("it failed")
        except kind as caught:
            desk(caught)
        return weakref.ref(local)

    gc.disable()
    try:
        assert work()() is None
    finally:
        gc.enable()


@kinds
def test_another_at_the_same_place(kind: type[Exception], desk: Desk) -> None:
    """An exception that is given the memory of one that ended is another; marks are bounded."""
    for _ in range(1000):
        try:
            fail(kind("it failed"))
        except kind as caught:
            desk(caught)

    assert 1000 == desk.reports
    assert len(desk.marks._marks) <= 256


@kinds
def test_withdrawn(kind: type[Exception], desk: Desk) -> None:
    """A claim that is withdrawn is free again; one that another replaced stays."""
    error = kind("it failed")
    first = desk(error)
    desk.marks.withdraw(error, "of another")
    assert first == desk(error)

    desk.marks.withdraw(error, first)

    assert first != desk(error)
