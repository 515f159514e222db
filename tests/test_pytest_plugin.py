"""The plugin, in runs of pytest of their own: what leaves, what is seen, what is left behind."""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
import threading

from collections.abc import Callable
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import posthog_logging

from posthog_logging import Analytics, PostHogHandler
from posthog_logging.delivery.transport import MemoryTransport, use
from posthog_logging.events.message import Message
from posthog_logging.handler import observe
from posthog_logging.inspector import Inspector
from posthog_logging.pytest_plugin import Messages


np = pytest.importorskip("numpy")


pytestmark = pytest.mark.slow


pytest_plugins = ["pytester"]

INSTALLED = any(one.name == "posthog_logging" for one in entry_points(group="pytest11"))
LOADED = () if INSTALLED else ("-p", "posthog_logging.pytest_plugin")
HEADER = (
    "posthog_logging: events stay on this machine"
    " (use --posthog-live or @pytest.mark.posthog_live to send)"
)

#: An application that logs as soon as it is imported; its proxy is the way to other machines.
APP = """
import logging, os
from posthog_logging import PostHogHandler

proxy = os.environ["TEST_PROXY"]
handler = PostHogHandler(
    "phc_key", "http://events.example", proxies={"http": proxy}, sync_mode=True
)
log = logging.getLogger("app")
log.setLevel(logging.INFO)
log.addHandler(handler)

def play(movie, **more):
    log.info("movie played", extra={"distinct_id": "user-1", "movie_id": movie, **more})

play("at import")
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, inspector: Inspector) -> Run:
    """Run the given files and arguments with pytest, with the plugin and warnings as errors."""
    monkeypatch.setenv("PYTHONPATH", str(Path(posthog_logging.__file__).parents[1]))
    monkeypatch.setenv("TEST_PROXY", inspector.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for name in ("POSTHOG_API_KEY", "POSTHOG_HOST", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)

    def run(source: str, *arguments: str, app: str = APP, loaded: bool = True) -> pytest.RunResult:
        pytester.makepyfile(app=app, test_it=source)
        pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers")
        chosen = LOADED if loaded else ()
        return pytester.runpytest_subprocess(*chosen, "-p", "no:cacheprovider", *arguments)

    return run


def movies(inspector: Inspector) -> list[Any]:
    """Return which movies' events have left, through the proxy."""
    return [event.properties["movie_id"] for event in inspector.events]


PLAYS = """
import app, pytest

def test_plays():
    app.play("in a test")
"""


def test_nothing_leaves(run: Run, inspector: Inspector) -> None:
    """Under pytest no event reaches another machine, and the header says so once."""
    done = run(PLAYS)

    done.assert_outcomes(passed=1)
    assert 1 == done.outlines.count(HEADER)
    assert [] == inspector.requests


@pytest.mark.parametrize(
    ("arguments", "loaded", "header"),
    [
        (["--posthog-live"], True, ["posthog_logging: events are sent (--posthog-live)"]),
        (["-p", "no:posthog_logging"], False, []),
    ],
    ids=["--posthog-live", "-p no:posthog_logging"],
)
def test_it_can_be_switched_off(
    run: Run, inspector: Inspector, arguments: list[str], loaded: bool, header: list[str]
) -> None:
    """With the option, or without the plugin, all events leave."""
    done = run(PLAYS, *arguments, loaded=loaded)

    done.assert_outcomes(passed=1)
    assert ["at import", "in a test"] == movies(inspector)
    assert header == [line for line in done.outlines if line.startswith("posthog_logging:")]


def test_the_first_conftest_is_too_late(
    run: Run, inspector: Inspector, pytester: pytest.Pytester
) -> None:
    """Events are kept before the first conftest is imported: it may import the application."""
    pytester.makeconftest("import app\n\ndef pytest_configure():\n    app.play('configured')")

    run(PLAYS).assert_outcomes(passed=1)

    assert [] == inspector.requests


def test_marker(run: Run, inspector: Inspector) -> None:
    """The events of a marked test leave, those before and after it do not, threads or none."""
    done = run(
        """
import app, pytest

@pytest.fixture
def fixture():
    app.play("set up")
    yield
    app.play("torn down")

def test_before():
    app.play("before")

@pytest.mark.posthog_live
def test_live(fixture):
    app.play("live")

def test_after():
    app.play("after")
""",
        app=APP.replace("sync_mode=True", "flush_interval=60"),
    )

    done.assert_outcomes(passed=3)
    assert ["set up", "live", "torn down"] == movies(inspector)


def test_children_obey(run: Run, inspector: Inspector) -> None:
    """A process that a test starts keeps its events, and sends them if the test is marked."""
    done = run("""
import subprocess, sys, pytest

def child(movie):
    program = f"import app; app.play({movie!r})"
    subprocess.run([sys.executable, "-c", program], check=True)

def test_quiet():
    child("quiet")

@pytest.mark.posthog_live
def test_live():
    child("live")
""")

    done.assert_outcomes(passed=2)
    assert ["at import", "live"] == movies(inspector)


def test_this_machine_is_reached(run: Run, inspector: Inspector) -> None:
    """What is for this machine is sent: `posthog_server` sees what servers would see."""
    done = run("""
from posthog_logging import Analytics

def test_first(posthog_server):
    with_server(posthog_server)

def test_second(posthog_server):
    with_server(posthog_server)

def with_server(server):
    analytics = Analytics("phc_key", server.url, flush_interval=60)
    analytics.capture("user-1", "movie played")
    assert analytics.flush()
    assert ["movie played"] == [event.event for event in server.events]
    analytics.capture("user-1", "still waits at the end")
""")

    done.assert_outcomes(passed=2)


#: Each way to say it, as a module with a `play`.
WAYS = {
    "stdlib_logger": """
import logging
from posthog_logging import PostHogHandler
log = logging.getLogger(__name__)
log.setLevel(logging.INFO)
log.addHandler(PostHogHandler("phc_key", "http://events.example"))
def play():
    log.info("movie played", extra={"distinct_id": "user-1", "movie_id": 7})
""",
    "without_key": """
import logging
from posthog_logging import PostHogHandler
log = logging.getLogger(__name__)
log.setLevel(logging.INFO)
log.addHandler(PostHogHandler())
def play():
    log.info("movie played", extra={"distinct_id": "user-1", "movie_id": 7})
""",
    "without_sending": """
from posthog_logging import Analytics
analytics = Analytics("phc_key", "http://events.example", send=False)
def play():
    analytics.capture("user-1", "movie played", {"movie_id": 7})
""",
    "analytics": """
from posthog_logging import Analytics
analytics = Analytics("phc_key", "http://events.example")
def play():
    analytics.capture("user-1", "movie played", {"movie_id": 7})
""",
    "cached_structlog": """
import logging, structlog
from posthog_logging import PostHogHandler
logging.getLogger(__name__).addHandler(PostHogHandler("phc_key", "http://events.example"))
structlog.configure(
    processors=[structlog.stdlib.render_to_log_kwargs],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
log = structlog.get_logger(__name__)
log.warning("this one is cached from now on")
def play():
    log.warning("movie played", distinct_id="user-1", movie_id=7)
""",
    "both_halves": """
import logging, queue
from posthog_logging import Listener, MessageHandler, PostHogHandler
handler = PostHogHandler("phc_key", "http://events.example")
records = queue.SimpleQueue()
log = logging.getLogger(__name__)
log.setLevel(logging.INFO)
log.addHandler(MessageHandler(records))
listener = Listener(records, handler)
def play():
    log.info("movie played", extra={"distinct_id": "user-1", "movie_id": 7})
    listener.start()
    listener.stop()
""",
}


def test_messages_see(run: Run, pytester: pytest.Pytester) -> None:
    """`posthog_messages` sees the events of the test, whichever way they are said."""
    pytester.makepyfile(**WAYS)
    done = run(f"""
import importlib, pytest

pytestmark = pytest.mark.parametrize(
    "app", [importlib.import_module(name) for name in {sorted(WAYS)}], ids={sorted(WAYS)}
)

def test_before(app):
    app.play()

def test_play(app, posthog_messages):
    assert posthog_messages.nothing()
    app.play()
    app.play()
    assert 2 == len(posthog_messages.wait_for("movie played", count=2))
    first, second = posthog_messages
    assert ("movie played", "user-1") == first[:2]
    assert 7 == first.properties["movie_id"]
    assert first.uuid != second.uuid
    posthog_messages.clear()
    app.play()
    assert "user-1" == posthog_messages.one("movie played").distinct_id

def test_again(app, posthog_messages):
    assert [] == posthog_messages.all
""")

    done.assert_outcomes(passed=3 * len(WAYS))


def test_failure_shows_the_events(run: Run) -> None:
    """A failed test shows what differs, and has a section with its events."""
    done = run("""
import app

def test_play(posthog_messages):
    app.play("123", category="romcom")
    posthog_messages.one("movie played", category="drama", rating=5)

def test_quiet(posthog_messages):
    assert False
""")

    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(
        [
            "E * AssertionError: no event is 'movie played' as wanted; the nearest is number 1:",
            "E * category: expected 'drama', is 'romcom'",
            "E * rating: expected 5, is missing",
            "*- posthog events -*",
            "   1  'movie played'  'user-1'  {'movie_id': '123', 'category': 'romcom'}",
            "*- posthog events -*",
            "    none",
        ]
    )
    assert "pytest_plugin.py" not in done.stdout.str()


def test_unittest(run: Run) -> None:
    """A ``unittest.TestCase`` has the fixtures as attributes, from `setUp` on."""
    done = run("""
import unittest
import app, pytest
from posthog_logging import Analytics

@pytest.mark.usefixtures("posthog_messages", "posthog_server")
class TestPlayer(unittest.TestCase):
    def setUp(self):
        app.play("in setUp")

    def test_play(self):
        self.posthog_messages.one("movie played", movie_id="in setUp")

    def test_server(self):
        Analytics("phc_key", self.posthog_server.url, sync_mode=True).capture("user-1", "sent")
        self.assertEqual(["sent"], [event.event for event in self.posthog_server.events])
""")

    done.assert_outcomes(passed=2)


def test_xdist(run: Run, inspector: Inspector) -> None:
    """Each worker keeps its events and sees its own; the header is there once."""
    pytest.importorskip("xdist")
    done = run(
        """
import app, pytest

@pytest.mark.parametrize("movie", range(6))
def test_play(movie, posthog_messages):
    app.play(movie)
    assert movie == posthog_messages.one("movie played").properties["movie_id"]

def test_fails(posthog_messages):
    app.play("shown")
    assert False
""",
        "-n2",
    )

    done.assert_outcomes(passed=6, failed=1)
    assert 1 == done.outlines.count(HEADER)
    done.stdout.fnmatch_lines(["*- posthog events -*", "*'movie played'*'shown'*"])
    assert [] == inspector.requests


def test_nothing_is_left_behind(run: Run, pytester: pytest.Pytester) -> None:
    """At the end there is no thread of ours, and nothing was said, also of what was not sent."""
    pytester.makepyfile(
        test_it="""
import logging, socket, sys, threading
from posthog_logging import Analytics

logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
kept = []  # what is dropped closes, and speaks, while the session still lasts

def test_leaves(posthog_messages):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    hosts = ("http://events.example", f"http://127.0.0.1:{port}")
    kept.extend(Analytics("phc_key", host, flush_interval=60) for host in hosts)
    for one in kept:
        one.capture("user-1", "movie played")
    assert 2 == len(posthog_messages.named("movie played"))
    import time; time.sleep(0.2)
    assert 2 < threading.active_count()
""",
        program=f"""
import threading, time
import pytest

assert 0 == pytest.main({[*LOADED, "-p", "no:cacheprovider", "-s", "-Werror"]!r})
print("left:", *(one.name for one in threading.enumerate()))
""",
    )

    done = pytester.runpython("program.py")

    assert (0, []) == (done.ret, done.errlines)
    assert "left: MainThread" == done.outlines[-1]


def test_what_ends_late_says_nothing(run: Run, pytester: pytest.Pytester) -> None:
    """A server that does not answer holds up the thread, not the end, and nobody hears of it."""
    pytester.makepyfile(
        test_it="""
import logging, socket, sys
from posthog_logging import Analytics

logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
logging.getLogger("urllib3").setLevel("WARNING")
server = socket.create_server(("127.0.0.1", 0))
held = []

def test_leaves():
    one = Analytics("phc_key", f"http://127.0.0.1:{server.getsockname()[1]}", flush_interval=0.1)
    one.capture("user-1", "movie played")
    held.extend([server.accept()[0], one])
""",
        program=f"""
import sys, threading
import pytest

assert 0 == pytest.main({[*LOADED, "-p", "no:cacheprovider", "-s", "-Werror"]!r})
(thread,) = (one for one in threading.enumerate() if one.name == "posthog-logging")
connection, analytics = sys.modules["test_it"].held
connection.close()
sys.modules["test_it"].server.close()
thread.join(20)
assert not thread.is_alive()
print("left:", *(one.name for one in threading.enumerate()), dict(analytics.counts)["waiting"])
""",
    )

    done = pytester.runpython("program.py")

    assert (0, []) == (done.ret, done.errlines)
    assert "left: MainThread 0" == done.outlines[-1]


def test_host_program_keeps_its_handlers(
    run: Run, pytester: pytest.Pytester, inspector: Inspector
) -> None:
    """A program that calls ``pytest.main`` can send before and after, with the same handler."""
    pytester.makepyfile(app=APP, test_it=PLAYS)
    pytester.makepyfile(
        program=f"""
import os, threading
import app, pytest

assert 0 == pytest.main({[*LOADED, "-p", "no:cacheprovider", "-q"]!r})
app.play("afterwards")
assert "POSTHOG_LOGGING_LOCAL_ONLY" not in os.environ
assert {{"MainThread", "posthog-logging"}} >= {{one.name for one in threading.enumerate()}}
"""
    )

    done = pytester.runpython("program.py")

    assert 0 == done.ret
    assert ["at import", "afterwards"] == movies(inspector)


def test_import_time_lines_are_covered(run: Run, pytester: pytest.Pytester) -> None:
    """The plugin hides no import-time line from coverage, neither the application's nor ours."""
    pytest.importorskip("coverage")
    pytester.makepyfile(app=APP, test_it=PLAYS)
    package = Path(posthog_logging.__file__).parent
    measured = ["-m", "coverage", "run", f"--include=app.py,{package}/extras.py"]
    pytester.makefile(".cfg", clean="[run]\n")

    pytester.run(
        sys.executable, *measured, "--rcfile=clean.cfg", "-m", "pytest", *LOADED, "-q"
    ).assert_outcomes(passed=1)
    report = pytester.run(
        sys.executable, "-m", "coverage", "report", "-m", "--rcfile=clean.cfg"
    ).stdout.str()

    assert re.search(r"app\.py +\d+ +0 +100%", report)
    source = (package / "extras.py").read_text().splitlines()
    missed = re.search(r"extras\.py +\d+ +\d+ +\d+% +(.*)", report)
    numbers = [] if missed is None else re.findall(r"\d+", missed[1])
    assert [] == [n for n in numbers if re.match(r"def |class |import |from ", source[int(n) - 1])]


def test_the_inspector_is_loaded_when_asked_for(run: Run) -> None:
    """The plugin loads no server, and no module of the test run, that nobody asks for."""
    done = run("""
import sys

def test_modules(posthog_messages):
    assert "posthog_logging.pytest_plugin" in sys.modules
    assert not {"http.server", "posthog_logging.inspector", "app"} & set(sys.modules)
""")

    done.assert_outcomes(passed=1)


# The fixture's object, by itself.


def message(event: str = "movie played", /, **properties: Any) -> Message:
    at = "2026-01-02T03:04:05.000000Z"
    return Message(event, "user-1", properties, f"uuid of {event}", at)


def messages(*given: Message) -> Messages:
    seen = Messages()
    for one in given:
        seen.add(one)
    return seen


@pytest.mark.parametrize(
    ("event", "wanted", "expected"),
    [
        ("movie played", {}, True),
        ("movie played", {"distinct_id": "user-1"}, True),
        ("movie played", {"distinct_id": "user-2"}, False),
        ("movie played", {"price": Decimal("9.99")}, True),
        ("movie played", {"price": Decimal("9.98")}, False),
        ("movie played", {"at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC)}, True),
        ("movie played", {"at": mock.ANY}, True),
        ("movie played", {"scores": np.array([1, 2])}, True),
        ("movie played", {"scores": [1, 2]}, True),
        ("movie played", {"event": "a property", "self": None}, True),
        ("movie played", {"none": None}, False),
        ("movie", {}, False),
    ],
)
def test_has(event: str, wanted: dict[str, Any], expected: bool) -> None:
    """An event fits by name, person and some of its properties, as logged or as sent."""
    given = {
        "price": Decimal("9.99"),
        "at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "scores": np.array([1, 2]),
        "event": "a property",
        "self": None,
    }
    seen = messages(message(**given))

    assert expected is seen.has(event, **wanted)


def test_one_of_several() -> None:
    """`one` wants exactly one: two are shown, unless properties tell them apart."""
    seen = messages(message(n=1), message(n=2), message("other"))

    assert 2 == seen.one("movie played", n=2).properties["n"]
    with pytest.raises(AssertionError) as caught:
        seen.one("movie played")

    assert (
        "2 events are 'movie played':\n"
        "   1  'movie played'  'user-1'  {'n': 1}\n"
        "   2  'movie played'  'user-1'  {'n': 2}"
    ) == str(caught.value)


def test_one_of_none() -> None:
    """Where no event fits, the one with the most similar name is compared, and all are listed."""
    seen = messages(message("signed up"), message("movie played"))

    with pytest.raises(AssertionError) as caught:
        seen.one("movie plaid", distinct_id="user-1")
    with pytest.raises(AssertionError, match=r"^no event is 'x'; there are no events$"):
        Messages().one("x")

    assert (
        "no event is 'movie plaid' as wanted; the nearest is number 2:\n"
        "      event: expected 'movie plaid', is 'movie played'\n"
        "of these:\n"
        "   1  'signed up'  'user-1'  {}\n"
        "   2  'movie played'  'user-1'  {}"
    ) == str(caught.value)


def test_nothing() -> None:
    """`nothing` is true, or shows what there is."""
    seen = messages(message())

    with pytest.raises(AssertionError, match="movie played"):
        seen.nothing()
    seen.clear()

    assert seen.nothing() is True


def test_wait_for() -> None:
    """`wait_for` returns as soon as another thread has said enough, or says what did come."""
    seen = messages(message(n=1))
    later = threading.Timer(0.05, seen.add, [message(n=2)])
    later.start()

    found = seen.wait_for("movie played", count=2, timeout=20)
    later.join()
    with pytest.raises(AssertionError, match=r"0 of 1 'other' came within 0.01 seconds"):
        seen.wait_for("other", timeout=0.01)

    assert [1, 2] == [one.properties["n"] for one in found]


def test_what_is_shown() -> None:
    """Lines are bounded, many are not all shown, and hostile names do not reach the terminal."""
    seen = messages(*(message("\x1b[31m", text="x" * 1000, **{"$lib": "l"}) for _ in range(60)))

    lines = str(seen).splitlines()

    assert 51 == len(lines)
    assert "    and 10 more" == lines[-1]
    assert 300 == max(map(len, lines))
    assert "\x1b" not in str(seen) + repr(seen)
    assert "$lib" not in str(seen)


def test_messages_are_snapshots() -> None:
    """What happens to a property after the log call does not change what was seen."""
    cast = ["Meg"]
    seen = messages(message(cast=cast))

    cast.append("Tom")

    assert ["Meg"] == seen.one("movie played").properties["cast"]


# The seams in the library that the plugin uses.


def test_observer_that_raises() -> None:
    """An observer that raises takes no event down."""
    kept = MemoryTransport()
    handler = PostHogHandler("phc_key", transport=kept)

    def observer(message: Message) -> None:
        raise RuntimeError

    with observe(observer):
        assert handler.accept({"distinct_id": "user-1", "event": "movie played"})
    handler.close()

    assert 1 == handler.counts["delivered"] == len(kept.requests)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (lambda handler: None, 1),
        (lambda handler: handler.opt_out(), 0),
    ],
    ids=["taken", "opted out"],
)
def test_observers_see_what_is_accepted(
    said: Callable[[PostHogHandler], None], expected: int
) -> None:
    """Observers see events after ``before_send``, and none while a user has opted out."""

    def before_send(event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "event": "renamed"}

    seen: list[str] = []
    with observe(lambda message: seen.append(message.event)):
        handler = PostHogHandler("phc_key", transport=MemoryTransport(), before_send=before_send)
        said(handler)
        handler.accept({"distinct_id": "user-1", "event": "movie played"})
    handler.accept({"distinct_id": "user-1", "event": "not observed"})
    handler.close()

    assert ["renamed"] * expected == seen


def test_observed_without_a_key() -> None:
    """Without a key every event is counted; those that somebody observes go no further."""
    kept = MemoryTransport()
    handler = PostHogHandler("", transport=kept)
    seen: list[Message] = []

    handler.accept({"distinct_id": "user-1", "event": "unseen"})
    with observe(seen.append):
        assert handler.accept({"distinct_id": "user-1", "event": "seen"}) is None
    handler.close()

    assert ["seen"] == [one.event for one in seen]
    assert (2, 2) == (handler.counts["accepted"], handler.counts["no_api_key"])
    assert 0 == len(kept.requests)


@pytest.mark.parametrize("dialect", ["posthog", "posthog-v1", "segment"])
def test_memory_transport(dialect: str) -> None:
    """Every dialect takes its answer for delivery, and it keeps the newest requests."""
    kept = MemoryTransport(capacity=2)
    analytics = Analytics(
        "phc_key", "https://events.example", dialect=dialect, transport=kept, sync_mode=True
    )
    for number in range(3):
        analytics.capture("user-1", f"event {number}")
    analytics.close()

    assert 3 == analytics.counts["delivered"]
    assert 2 == len(kept.requests)
    assert kept.requests[0].url.startswith("https://events.example/")


@pytest.mark.parametrize(
    ("host", "everywhere", "expected"),
    [
        ("http://events.example", False, 1),
        ("http://127.0.0.1.events.example", False, 1),
        (None, False, 0),
        (None, True, 1),
    ],
    ids=["elsewhere", "a name like an address", "here", "everywhere"],
)
def test_use(inspector: Inspector, host: str | None, everywhere: bool, expected: int) -> None:
    """A stand-in takes what is for other machines, from handlers that exist already, and ends."""
    kept = MemoryTransport()
    handler = PostHogHandler(
        "phc_key",
        host or inspector.url,
        proxies={"http": inspector.url},
        sync_mode=True,
        compression=None,
    )
    said = {"distinct_id": "user-1", "event": "movie played"}
    with use(kept, everywhere=everywhere):
        handler.accept(said)
        with use(None):
            handler.accept(said)
    handler.accept(said)
    handler.close()

    assert expected == len(kept.requests)
    assert 3 - expected == len(inspector.events)
    assert os.environ.get("POSTHOG_LOGGING_LOCAL_ONLY") is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [("http://events.example", False), (None, True)],
    ids=["elsewhere", "here"],
)
def test_spool_for_another_machine(
    inspector: Inspector, tmp_path: Path, host: str | None, expected: bool
) -> None:
    """What waits on disk for another machine is neither added to nor taken for delivered."""
    with use(MemoryTransport()):
        handler = PostHogHandler("phc_key", host or inspector.url, spool=tmp_path)
        handler.accept({"distinct_id": "user-1", "event": "movie played"})
        touched = any(tmp_path.iterdir())
        handler.close()

    assert expected is touched
    assert 1 == handler.counts["delivered"]


#: The plan of a program, and what it sends.
PLAN = """
from dataclasses import dataclass
from posthog_logging import event

@event("movie played")
@dataclass
class MoviePlayed:
    movie_id: str
"""

PLANNED = """
import app, plan_of_app, pytest
from posthog_logging import plan

@pytest.fixture
def played():
    app.play("from a fixture")

def test_fits(posthog_messages):
    app.play("123")
    app.log.info(plan_of_app.MoviePlayed("123"))
    assert posthog_messages.check(plan=plan_of_app)
    assert posthog_messages.check("plan_of_app")

def test_type(posthog_messages):
    app.play(5)
    with pytest.raises(AssertionError) as raised:
        posthog_messages.check(plan=plan_of_app)
    assert "movie_id: expected a string, got 5" in str(raised.value)
    posthog_messages.clear()

def test_not_a_plan(posthog_messages):
    with pytest.raises(plan.PlanError):
        posthog_messages.check(plan="nothing.like.this")

def test_name():
    app.log.info("movie plaid", extra={"distinct_id": "user-1"})

def test_in_a_fixture(played):
    app.log.info("$pageview", extra={"distinct_id": "user-1"})
"""


def test_plans(run: Run, pytester: pytest.Pytester) -> None:
    """`check` names field, value and type; `--posthog-plan` fails the tests that are not clean."""
    pytester.makepyfile(plan_of_app=PLAN)
    alone = run(PLANNED)
    alone.assert_outcomes(passed=5)
    checked = run(PLANNED, "--posthog-plan", "plan_of_app")

    checked.assert_outcomes(passed=3, failed=2)
    checked.stdout.fnmatch_lines(
        ["*movie_id: expected a string, got 5*", "*not in the plan plan_of_app*movie played*"]
    )


@pytest.mark.parametrize("name", ["nothing.like.this", "app", "missing.json"])
def test_a_plan_that_is_not_one(name: str, run: Run) -> None:
    """Wrong usage, told in one line."""
    result = run("def test(): pass", "--posthog-plan", name)

    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([f"ERROR: --posthog-plan: {name}*"])
