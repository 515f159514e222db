"""
The pytest plugin: keeps events on this machine, and lets tests assert on them.

It imports the rest of the package only inside functions, and nothing of the program under test.

Under pytest no `PostHogHandler` of the process or its children reaches another machine, wherever
and whenever it was made, except with ``--posthog-live`` or in a test that is marked
``@pytest.mark.posthog_live``. Requests to this machine are sent. Spooled events stay in their
folder. ``-p no:posthog_logging`` switches all of this off.

``posthog_messages`` holds the events of the process, from log calls, structlog and `Analytics`,
with or without a key, as soon as they are logged::

    def test_play(posthog_messages):
        play("123", user="user-1")

        assert "123" == posthog_messages.one("movie played").properties["movie_id"]

In a ``unittest.TestCase`` the fixture is an attribute::

    @pytest.mark.usefixtures("posthog_messages")
    class TestPlayer(unittest.TestCase):
        def test_play(self):
            play("123", user="user-1")
            self.posthog_messages.one("movie played", movie_id="123")

If the program declares its events (`posthog_logging.event`), `Messages.check` compares them with
the plan, and ``--posthog-plan service.events`` does so after every test.

``posthog_server`` is an `Inspector` on a free port, for tests of what is sent over HTTP.
"""

from __future__ import annotations

import difflib
import threading
import unittest
import weakref

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest


if TYPE_CHECKING:
    from .delivery.pipeline import Pipeline
    from .events.message import Message
    from .inspector import Inspector
    from .plan import Plan

__all__ = ["Messages", "posthog_messages", "posthog_server"]

_HEADER = (
    "posthog_logging: events stay on this machine"
    " (use --posthog-live or @pytest.mark.posthog_live to send)"
)
_HEADER_LIVE = "posthog_logging: events are sent (--posthog-live)"
_MARKER = "posthog_live: let the events of this test leave the machine"

# Properties of every event, which are not shown.
_EVERYWHERE = frozenset({"$lib", "$lib_version", "$is_server", "$geoip_disable"})
_MOST_LINES = 50
_LONGEST_LINE = 300
_PROMPTLY = 1.0  # seconds


class Messages:
    """
    The events of one test, oldest first, as they would be sent.

    Each is a `Message`: ``event``, ``distinct_id``, ``properties``, ``uuid``, ``timestamp``.
    An event matches given properties if it has them, whatever others it has. A value matches in
    the form in which it was logged, and in the form in which it is sent.
    """

    def __init__(self) -> None:
        self._seen: list[Message] = []
        # Its lock is re-entrant: a finaliser or signal handler may log an event inside `add`.
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[Message]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(repr(one.event) for one in self) or 'none'}>"

    def __str__(self) -> str:
        """Return a line for each event, for people."""
        return _listed(self.all)

    @property
    def all(self) -> list[Message]:
        """Every event so far."""
        with self._changed:
            return list(self._seen)

    def named(self, event: str) -> list[Message]:
        """Return the events of this name."""
        return [one for one in self if one.event == event]

    def has(self, event: str, /, *, distinct_id: str | None = None, **properties: Any) -> bool:
        """Return whether there is an *event* of this person with these properties."""
        wanted = _Wanted(event, distinct_id, properties)
        return any(not wanted.missing_in(one) for one in self)

    def one(self, event: str, /, *, distinct_id: str | None = None, **properties: Any) -> Message:
        """Return the only such event; else an AssertionError shows the events there are."""
        __tracebackhide__ = True
        wanted = _Wanted(event, distinct_id, properties)
        seen = self.all
        fitting = [one for one in seen if not wanted.missing_in(one)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise AssertionError(f"{len(fitting)} events are {wanted}:\n{_listed(fitting)}")
        raise AssertionError(f"no event is {wanted}; {_nearest(wanted, seen)}")

    def nothing(self) -> bool:
        """Return True if there is no event; else an AssertionError shows them."""
        __tracebackhide__ = True
        seen = self.all
        if seen:
            raise AssertionError(f"there should be no event, but there are:\n{_listed(seen)}")
        return True

    def check(self, plan: Any) -> bool:
        """
        Return True if every event is in the plan and fits it; else raise an AssertionError.

        Args:
            plan: the module that declares the events, its dotted name, or the path of an
                exported plan; see `posthog_logging.plan.Plan.of`.
        """
        __tracebackhide__ = True
        from .plan import Plan

        wrong = _unplanned(Plan.of(plan), self.all)
        if wrong:
            raise AssertionError(f"{len(wrong)} findings against the plan:\n{_cut(wrong)}")
        return True

    def wait_for(self, event: str, count: int = 1, timeout: float = 5.0) -> list[Message]:
        """
        Return the events of this name once there are *count*, as when other threads log them.

        An AssertionError after *timeout* seconds shows the events there are.
        """
        __tracebackhide__ = True
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self.named(event)) >= count, timeout)
            seen = self.all
        found = [one for one in seen if one.event == event]
        if not enough:
            raise AssertionError(
                f"{len(found)} of {count} {event!r} came within {timeout:g} seconds; the events"
                f" are:\n{_listed(seen)}"
            )
        return found

    def clear(self) -> None:
        """Forget all events so far."""
        with self._changed:
            self._seen.clear()

    def add(self, message: Message) -> None:
        """Add a copy of *message*: later changes of its properties are not sent either."""
        from .events.jsonable import jsonable

        frozen = message._replace(properties=jsonable(message.properties))
        with self._changed:
            self._seen.append(frozen)
            self._changed.notify_all()


class _Wanted(NamedTuple):
    """The name, person and properties that an event should have."""

    event: str
    distinct_id: str | None
    properties: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.event!r}{' as wanted' if self.distinct_id or self.properties else ''}"

    def missing_in(self, message: Message) -> list[str]:
        """Return a line for each difference of *message*."""
        fields = {"event": self.event, "distinct_id": self.distinct_id}
        pairs = [(name, want, getattr(message, name)) for name, want in fields.items() if want]
        for name, want in self.properties.items():
            pairs.append((name, want, message.properties.get(name, _NOTHING)))
        return [
            f"{name}: expected {want!r}, is {is_!r}"
            for name, want, is_ in pairs
            if not _same(want, is_)
        ]


class _Nothing:
    """Stands for a property that is missing."""

    def __repr__(self) -> str:
        return "missing"


_NOTHING = _Nothing()


def _same(wanted: Any, sent: Any) -> bool:
    from .events.jsonable import jsonable

    # The form that is sent comes first: the comparison of a numpy array is no bool.
    return bool(jsonable(wanted) == sent) or bool(wanted == sent)


_MESSAGES = pytest.StashKey[Messages]()
_CHECKED = pytest.StashKey[Messages]()
_PLAN = pytest.StashKey[Any]()
_STARTED = pytest.StashKey[bool]()


@pytest.fixture
def posthog_messages(request: pytest.FixtureRequest) -> Iterator[Messages]:
    """The events that this process logs during the test; see `Messages`."""
    from .handler import observe

    messages = Messages()
    request.node.stash[_MESSAGES] = messages
    _give(request, messages)
    with observe(messages.add):
        yield messages


@pytest.fixture
def posthog_server(request: pytest.FixtureRequest) -> Iterator[Inspector]:
    """A local server that judges events as PostHog and Segment do; see `Inspector`."""
    from .delivery.transport import MemoryTransport, use
    from .inspector import Inspector

    with Inspector() as server:
        _give(request, server)
        yield server
        # Events that still wait would be reported as lost during another test.
        with use(MemoryTransport(0), everywhere=True):
            _flush(_PROMPTLY)


def _give(request: pytest.FixtureRequest, value: Any) -> None:
    """Give *value* to a ``unittest.TestCase`` as an attribute: its methods take no fixtures."""
    if isinstance(request.instance, unittest.TestCase):
        setattr(request.instance, str(request.fixturename), value)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--posthog-live`` and ``--posthog-plan``."""
    group = parser.getgroup("posthog_logging")
    group.addoption(
        "--posthog-live", action="store_true", help="let analytics events leave this machine"
    )
    group.addoption(
        "--posthog-plan",
        metavar="PLAN",
        help="fail a test whose events are not as planned; PLAN is the module that declares them,"
        " or an exported plan",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Keep events on this machine before the first conftest, which may log some, is imported."""
    _begin(early_config, early_config.known_args_namespace)


def pytest_configure(config: pytest.Config) -> None:
    """Keep events on this machine if the plugin was loaded late: by a conftest, or in a worker."""
    config.addinivalue_line("markers", _MARKER)
    _begin(config, config.option)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Read the plan, as the program under test can be imported now."""
    given = session.config.getoption("posthog_plan")
    if given is None:
        return
    from .plan import Plan, PlanError

    try:
        session.config.stash[_PLAN] = Plan.of(given)
    except PlanError as error:
        raise pytest.UsageError(f"--posthog-plan: {error}") from None


def pytest_report_header(config: pytest.Config) -> str:
    """Return a line on whether events are sent."""
    return _HEADER_LIVE if config.getoption("posthog_live") else _HEADER


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Send the events of a marked test, with those of its fixtures, and of no other."""
    with ExitStack() as stack:
        if _PLAN in item.config.stash:
            from .handler import observe

            messages = item.stash[_CHECKED] = Messages()
            stack.enter_context(observe(messages.add))
        if item.get_closest_marker("posthog_live") is None:
            yield
            return
        _flush()
        stack.enter_context(_staying(False))
        yield
        _flush()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test whose events, with those of its fixtures, are not as planned."""
    outcome: Any = yield
    messages = item.stash.get(_CHECKED, None)
    if messages is None or outcome.excinfo is not None:
        return
    try:
        messages.check(item.config.stash[_PLAN])
    except AssertionError as error:
        outcome.force_exception(pytest.fail.Exception(str(error), pytrace=False))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the events of a test that failed."""
    outcome: Any = yield
    report = outcome.get_result()
    messages = item.stash.get(_MESSAGES, None)
    if report.failed and messages is not None:
        report.sections.append(("posthog events", str(messages)))


def _begin(config: pytest.Config, options: Any) -> None:
    """Keep events on this machine until the end of *config*, unless --posthog-live is given."""
    from .delivery.exits import opened

    if _STARTED in config.stash:
        return
    config.stash[_STARTED] = True
    live = bool(getattr(options, "posthog_live", False))
    session = ExitStack()
    config.add_cleanup(session.close)
    session.enter_context(_staying(not live))
    session.callback(_end, live, weakref.WeakSet(opened()))


@contextmanager
def _staying(stay: bool) -> Iterator[None]:
    """Keep events on this machine or send them, also in child processes."""
    from .delivery.transport import LOCAL_ONLY, MemoryTransport, use

    stand_in = MemoryTransport(0) if stay else None
    with use(stand_in), pytest.MonkeyPatch.context() as environment:
        if stay:
            environment.setenv(LOCAL_ONLY, "1")
        else:
            environment.delenv(LOCAL_ONLY, raising=False)
        yield


def _end(live: bool, before: weakref.WeakSet[Pipeline]) -> None:
    """Close the handlers that the session has made; log nothing, as streams may be closed."""
    from .delivery.exits import opened
    from .delivery.transport import MemoryTransport, use

    left = [pipeline for pipeline in opened() if pipeline not in before]
    with ExitStack() as stack:
        if not live:
            stack.enter_context(use(MemoryTransport(0), everywhere=True))
        for pipeline in left:
            pipeline.close(None if live else _PROMPTLY, quietly=not live)


def _flush(limit: float | None = None) -> None:
    """Flush all handlers, within *limit* seconds or the longest of their own limits."""
    from .delivery.clock import monotonic
    from .delivery.exits import opened

    pipelines = opened()
    own = max((pipeline.shutdown_timeout for pipeline in pipelines), default=0.0)
    deadline = monotonic() + (own if limit is None else limit)
    for pipeline in pipelines:
        pipeline.flush(max(0.0, deadline - monotonic()))


def _nearest(wanted: _Wanted, seen: list[Message]) -> str:
    """Return the differences between *wanted* and the event most like it, and all events."""
    if not seen:
        return "there are no events"

    def distance(message: Message) -> tuple[float, int]:
        likeness = difflib.SequenceMatcher(None, wanted.event, message.event).ratio()
        return -likeness, len(wanted.missing_in(message))

    nearest = min(seen, key=distance)
    differences = "\n".join(f"      {line}" for line in wanted.missing_in(nearest))
    number = seen.index(nearest) + 1
    return f"the nearest is number {number}:\n{differences}\nof these:\n{_listed(seen)}"


def _unplanned(plan: Plan, messages: list[Message]) -> list[str]:
    """Return a line for each finding against the plan."""
    return [
        f"{number:>4}  {finding.event!r}: {finding.text!s}"
        for number, one in enumerate(messages, 1)
        for finding in plan.check(one.event, one.properties)
    ]


def _listed(messages: list[Message]) -> str:
    """Return a line for each event, without control characters."""
    return _cut([_line(number, one) for number, one in enumerate(messages, 1)]) or "    none"


def _cut(lines: list[str]) -> str:
    more = len(lines) - _MOST_LINES
    return "\n".join([*lines[:_MOST_LINES], *([f"    and {more} more"] if more > 0 else [])])


def _line(number: int, message: Message) -> str:
    own = {k: v for k, v in message.properties.items() if k not in _EVERYWHERE}
    line = f"{number:>4}  {message.event!r}  {message.distinct_id!r}  {own!r}"
    return line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 1]}…"
