"""The guides, held to their word: every block runs, every table is complete and true."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import io
import json
import logging
import os
import re
import subprocess
import sys

from collections.abc import Callable
from configparser import ConfigParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from markdown import code, here, links, read_blocks, section, table
from reference import TABLES, written

from posthog_logging import Analytics
from posthog_logging.cli import main
from posthog_logging.cli.docs import guides
from posthog_logging.delivery.ledger import NOT_LOSSES
from posthog_logging.events.message import _KNOWN
from posthog_logging.inspector import Inspector
from posthog_logging.wire import DIALECTS, find_dialect


ROOT = Path(__file__).parent.parent
DOCS = ROOT / "posthog_logging" / "docs"
GUIDES = guides()
BLOCKS = {topic: list(read_blocks(text)) for topic, text in GUIDES.items()}

MOMENT = re.compile(r"\d\d:\d\d:\d\d\.\d{3}")
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")

#: Each heading with Python below it: the packages that it needs, and what arrives of it.
PROGRAMS: dict[tuple[str, str], tuple[str, list[str]]] = {
    ("counts", "Read them"): ("", ["movie played"]),
    ("delivery", "Survive the process: a spool"): ("", ["ticket sold"]),
    ("delivery", "Multiprocessing pools"): ("", ["movie played"] * 4),
    ("events", "Calls that are more than an event"): (
        "",
        ["$groupidentify", "$identify", "$pageview", "movie rated"],
    ),
    ("events", "Events of work that may fail"): ("", ["order failed"]),
    ("events", "Without a log record"): ("", ["movie played"]),
    ("exceptions-and-logs", "Exceptions"): ("", ["$exception"]),
    ("exceptions-and-logs", "Logs"): ("", ["hall 3 is cold"]),
    ("exceptions-and-logs", "The steps before an exception"): ("", ["$exception", "$identify"]),
    ("frameworks", "AWS Lambda and other frozen functions"): ("", ["movie played"]),
    ("frameworks", "Celery"): ("celery", ["reminder sent"]),
    ("frameworks", "Django"): ("django", ["movie played"]),
    ("frameworks", "FastAPI"): ("fastapi httpx", ["movie played"]),
    ("frameworks", "Flask"): ("flask", ["movie played"]),
    ("frameworks", "Many processes"): ("", ["door opened"]),
    ("identity", "A login"): ("", ["$identify", "$pageview", "movie played"]),
    ("identity", "A request"): ("", ["movie played"]),
    ("identity", "Feature flags"): ("", ["movie played"]),
    ("identity", "Groups"): ("", ["$groupidentify", "hall booked"]),
    ("migrate", "One changed import"): ("", ["movie left", "movie played", "movie rated"]),
    ("production", "A configuration to start from"): ("", ["movie played"]),
    ("servers", "A server of your own"): ("", ["movie played"]),
    ("structlog", "As a processor"): ("structlog", ["movie played"]),
    ("structlog", "Through logging"): ("structlog", ["movie played"]),
    ("troubleshooting", "KeyError: \"Attempt to overwrite 'name' in LogRecord\""): (
        "",
        ["joined"],
    ),
}
#: Run by a test of their own: suites of tests.
SUITES = {
    ("testing", "With pytest"),
    ("testing", "With unittest"),
    ("testing", "With Django's test runner"),
}
#: Guides whose blocks have tests beside the feature.
ELSEWHERE = {"many-hosts", "privacy", "typed-events"}

#: What sends a request or a task to the applications that are shown.
REQUESTS = {
    ("frameworks", "Celery"): """
from posthog_logging import context

with context.identity("user-1"):
    remind.apply(("123",))
""",
    ("frameworks", "Flask"): """
app.test_client().get("/play", headers={"X-POSTHOG-DISTINCT-ID": "user-1"})
""",
    ("frameworks", "FastAPI"): """
import asyncio, httpx

async def ask():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://films") as client:
        await client.get("/play", headers={"X-POSTHOG-DISTINCT-ID": "user-1"})

asyncio.run(ask())
""",
    ("frameworks", "Django"): """
import logging, django
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.urls import path

def play(request):
    logging.getLogger("cinema.django").info("movie played", extra={"event": "movie played"})
    return HttpResponse("enjoy")

urlpatterns = [path("play", play)]
settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=MIDDLEWARE, LOGGING=LOGGING
)
django.setup()
Client().get("/play", headers={"X-POSTHOG-DISTINCT-ID": "user-1"})
""",
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def blocks(topic: str, language: str, heading: str | None = None) -> list[str]:
    """Return the texts of a guide's blocks in *language*, under all headings or under one."""
    return [
        one.text
        for one in BLOCKS[topic]
        if one.language == language and heading in (None, one.heading)
    ]


def anonymous(text: str) -> str:
    """Return *text* without what is another one each time."""
    for pattern in (UUID, MOMENT):
        text = pattern.sub("…", text)
    return text


# The form.


@pytest.mark.parametrize("topic", GUIDES)
def test_form(topic: str) -> None:
    """A guide has a title and a first sentence, which `posthog-logging docs` shows whole."""
    title, blank, promise, *_ = GUIDES[topic].splitlines()

    assert title.startswith("# ")
    assert "" == blank
    assert promise.endswith(".")
    assert len(promise) <= 120
    assert GUIDES[topic].endswith("\n")


@pytest.mark.parametrize("topic", GUIDES)
def test_links(topic: str) -> None:
    """Whatever a guide points at is there, the heading too."""
    for one in (one for one in links(GUIDES[topic]) if "://" not in one):
        name, _, anchor = one.partition("#")
        text = (DOCS / (name or f"{topic}.md")).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)

        assert anchor in ("", *(heading.lower().replace(" ", "-") for heading in headings)), one


def test_every_program_is_known() -> None:
    """Python stands under no heading that the tests do not run."""
    found = {
        (topic, one.heading)
        for topic in BLOCKS
        for one in BLOCKS[topic]
        if one.language == "python" and topic not in ELSEWHERE
    }

    assert {*PROGRAMS, *SUITES} == found


# The programs.


@pytest.mark.parametrize(("topic", "heading"), PROGRAMS)
def test_programs(
    topic: str, heading: str, inspector: Inspector, run_script: Run, tmp_path: Path
) -> None:
    """The blocks under one heading are one program, and it delivers what it says by ending."""
    packages, expected = PROGRAMS[topic, heading]
    for package in packages.split():
        pytest.importorskip(package)
    shown = "\n".join(blocks(topic, "python", heading))
    program = here(shown, inspector.url) + REQUESTS.get((topic, heading), "")
    done = run_script(
        f"import os; os.chdir({str(tmp_path)!r})\n{program}",
        POSTHOG_API_KEY="phc_guide",
        POSTHOG_HOST=inspector.url,
        NO_PROXY="127.0.0.1",
    )

    assert 0 == done.returncode, done.stderr
    assert expected == sorted(event.event for event in inspector.events)
    assert [] == inspector.bad
    if (topic, heading) in REQUESTS:
        assert ["user-1"] == [event.distinct_id for event in inspector.events]


def test_what_is_removed_before_it_is_sent(inspector: Inspector, run_script: Run) -> None:
    """The hook that is shown does what its name says."""
    (program,) = blocks("events", "python", "Calls that are more than an event")
    run_script(program, POSTHOG_HOST=inspector.url, POSTHOG_API_KEY="phc_guide")
    (rated,) = inspector.wait("movie rated")

    assert "user-1" == rated.distinct_id
    assert "email" not in rated.properties


def test_the_steps_that_are_shown(inspector: Inspector, run_script: Run) -> None:
    """The report that is shown is the one that arrives, as far as it is shown."""
    heading = "The steps before an exception"
    (program,) = blocks("exceptions-and-logs", "python", heading)
    (text,) = blocks("exceptions-and-logs", "json", heading)
    run_script(program, POSTHOG_HOST=inspector.url, POSTHOG_API_KEY="phc_guide")
    shown = json.loads(text)
    steps = shown["properties"].pop("$exception_steps")
    (event,) = [one for one in inspector.events if one.event == shown["event"]]
    arrived = [dict(one) for one in event.properties["$exception_steps"]]

    assert shown["distinct_id"] == event.distinct_id
    assert shown["properties"].items() <= event.properties.items()
    assert all(one.pop("$timestamp") for one in arrived)
    assert steps == arrived


def run_suite(command: list[str], folder: Path, **more: str) -> Any:
    """Run tests in *folder* to their end."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
        capture_output=True,
        text=True,
        check=False,
    )


def test_pytest(tmp_path: Path) -> None:
    """The example of a test suite passes, with the plugin as it is installed."""
    suite = tmp_path / "test_cinema.py"
    suite.write_text("\n".join(blocks("testing", "python", "With pytest")), encoding="utf-8")
    command = ["-m", "pytest", "-q", "-W", "error", "-c", os.devnull]
    loaded = ["-p", "posthog_logging.pytest_plugin", f"--rootdir={tmp_path}", str(suite)]
    done = run_suite([*command, *loaded], tmp_path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    assert 0 == done.returncode, done.stdout
    assert "2 passed" in done.stdout


def test_unittest(tmp_path: Path) -> None:
    """The example for unittest passes, and would not without its event."""
    (text,) = blocks("testing", "python", "With unittest")
    suite = tmp_path / "test_cinema.py"
    suite.write_text(text, encoding="utf-8")
    switched_off = {"POSTHOG_DISABLED": "1", "POSTHOG_API_KEY": "phc_real"}
    passed = run_suite(["-W", "error", "-m", "unittest", "-q"], tmp_path, **switched_off)
    suite.write_text(text.replace("movie played", "movie rated", 1), encoding="utf-8")
    failed = run_suite(["-W", "error", "-m", "unittest", "-q"], tmp_path, **switched_off)

    assert (0, 1) == (passed.returncode, failed.returncode), passed.stderr
    assert "Ran 1 test" in passed.stderr


def test_djangos_runner(tmp_path: Path, inspector: Inspector) -> None:
    """With what the settings begin with a run of Django's tests sees events and sends none."""
    pytest.importorskip("django")
    (switch,) = blocks("testing", "python", "With Django's test runner")
    (settings,) = (text for text in blocks("frameworks", "python", "Django") if "LOGGING" in text)
    more = "DATABASES = {}\n"
    for name, begin in (("switched", switch), ("live", "")):
        (tmp_path / f"{name}.py").write_text(f"{begin}\n{settings}\n{more}", encoding="utf-8")
    (tmp_path / "tests.py").write_text(DJANGO_TEST, encoding="utf-8")
    environment = {"POSTHOG_API_KEY": "phc_real", "POSTHOG_HOST": inspector.url}
    for name, expected in (("switched", []), ("live", ["movie played"])):
        command = ["-m", "django", "test", f"--settings={name}"]
        done = run_suite(command, tmp_path, **environment, NO_PROXY="127.0.0.1")

        assert 0 == done.returncode, done.stderr
        assert "Ran 1 test" in done.stderr
        assert expected == [event.event for event in inspector.events]


DJANGO_TEST = """
import logging

from django.test import SimpleTestCase
from posthog_logging.handler import observe

class TestPlayer(SimpleTestCase):
    def test_play(self):
        events = []
        with observe(events.append):
            logging.getLogger("cinema").info("movie played", extra={"distinct_id": "user-1"})
        self.assertEqual(["movie played"], [event.event for event in events])
"""


# The migration.


def migrated(ancestor: str) -> list[str]:
    """Return the lines that replace those of *ancestor*."""
    rows = table(section(GUIDES["migrate"], f"## From {ancestor}"))
    return [code(row[1])[0] for row in rows]


def called(line: str) -> str:
    """Return the call of `Analytics` that *line* makes; "" where it makes none."""
    found = re.match(r"analytics\.(\w+)\(", line)
    return found[1] if found else ""


ANCESTORS = {
    "posthog-python 1 to 5": "capture identify set alias group page screen flush join shutdown",
    "posthog-python 6 to 8": "capture set group alias capture_exception flush shutdown",
    "segment-analytics-python 2": "track identify page screen group alias flush shutdown",
    "RudderStack's client": "track identify flush",
    "MetaRouter's client": "track identify page screen group alias flush join",
}
LINES = list(dict.fromkeys(line for name in ANCESTORS for line in migrated(name)))

#: Each call, and what it is in PostHog's family ("" for a name of its own) and in Segment's.
KINDS = {
    "capture": ("", "track"),
    "track": ("", "track"),
    "identify": ("$identify", "identify"),
    "set": ("$set", "identify"),
    "capture_exception": ("$exception", "track"),
    "alias": ("$create_alias", "alias"),
    "group": ("$groupidentify", "group"),
    "page": ("$pageview", "page"),
    "screen": ("$screen", "screen"),
}
ENDS = frozenset({"flush", "join", "shutdown"})
SILENT = re.compile(r"send=False|opt_out")

CALLS = [line for line in LINES if called(line) in KINDS]
SETTINGS = [line for line in LINES if called(line) not in {*KINDS, *ENDS}]
families = pytest.mark.parametrize("family", ["posthog", "metarouter"])


def run_line(line: str, family: str, inspector: Inspector) -> Analytics:
    """Run *line* in a *family* of its own, unless it names one; return what it leaves."""
    analytics = Analytics("phc_test", inspector.url, dialect=family)
    names: dict[str, Any] = {
        "Analytics": functools.partial(Analytics, dialect=family),
        "analytics": analytics,
        "error": KeyError("film"),
        "failed": lambda error, events: None,
        "hook": lambda event: event,
        "when": datetime(2024, 1, 2, tzinfo=UTC),
    }
    exec(here(line, inspector.url), names)
    left: Analytics = names["analytics"]
    if left is not analytics:
        analytics.close()
    return left


@families
@pytest.mark.parametrize("line", CALLS)
def test_migrated_calls(line: str, family: str, inspector: Inspector) -> None:
    """Each call that replaces one runs, in both families, and its event arrives."""
    run_line(line, family, inspector).close()
    (event,) = inspector.events
    expected = KINDS[called(line)]

    own = "" if event.event[0] != "$" else event.event
    assert expected[0] == own if family == "posthog" else expected[1] == event.raw["type"]
    assert [] == inspector.bad


@families
@pytest.mark.parametrize("line", SETTINGS)
def test_migrated_settings(
    line: str, family: str, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is set as a line sets it sends events, or none where that is what it says."""
    monkeypatch.setenv("POSTHOG_HOST", inspector.url)
    analytics = run_line(line, family, inspector)
    analytics.capture("user-1", "movie played")
    analytics.close()

    expected = [] if SILENT.search(line) else ["movie played"]
    assert expected == [event.event for event in inspector.events]


@families
@pytest.mark.parametrize("end", sorted(ENDS))
def test_migrated_ends(end: str, family: str, inspector: Inspector) -> None:
    """What waits is delivered by the time that the call returns."""
    analytics = Analytics("phc_test", inspector.url, dialect=family, flush_interval=60.0)
    analytics.capture("user-1", "movie played")
    getattr(analytics, end)()
    arrived = [event.event for event in inspector.events]
    analytics.close()

    assert ["movie played"] == arrived
    assert f"analytics.{end}()" in LINES


@pytest.mark.parametrize("ancestor", ANCESTORS)
def test_the_migration_is_complete(ancestor: str) -> None:
    """Every call of an ancestor has its line."""
    assert set(ANCESTORS[ancestor].split()) == {called(line) for line in migrated(ancestor)} - {
        "",
        "handler",
    }


# The frameworks.


def test_wsgi() -> None:
    """The line for WSGI stands between a Flask application and its server."""
    flask = pytest.importorskip("flask")
    names = run_row("wsgi", app=flask.Flask("cinema"))

    assert 404 == names["app"].test_client().get("/").status_code


def test_asgi() -> None:
    """The line for ASGI stands among the middlewares of FastAPI."""
    fastapi = pytest.importorskip("fastapi")
    names = run_row("asgi", app=fastapi.FastAPI(), handler=None)

    assert [names["PostHogMiddleware"]] == [one.cls for one in names["app"].user_middleware]


def test_django() -> None:
    """The line for Django is a name that can be imported."""
    name: str = ast.literal_eval(line_of("django"))
    module, _, attribute = name.rpartition(".")

    assert callable(getattr(importlib.import_module(module), attribute))


def test_celery() -> None:
    """The line for Celery connects to its signals."""
    signals = pytest.importorskip("celery.signals")
    uid = run_row("celery", handler=None)["HEADER"]
    connected = [one for (one, *_), _ in signals.task_prerun.receivers]
    for name in signals.__all__:
        getattr(signals, name).disconnect(dispatch_uid=uid)

    assert uid in connected


def line_of(name: str) -> str:
    """Return the line for the middleware of this name."""
    module = f"posthog_logging.middleware.{name}"
    rows = table(section(GUIDES["frameworks"], "## Middlewares"))
    return next(code(row[2])[0] for row in rows if [module] == code(row[1]))


def run_row(name: str, **names: Any) -> dict[str, Any]:
    """Run the line for the middleware of this name, with its module's own names."""
    module = importlib.import_module(f"posthog_logging.middleware.{name}")
    names = {**vars(module), **names}
    exec(line_of(name), names)
    return names


# The tables.


@pytest.mark.parametrize("guide", TABLES)
def test_generated_tables(guide: str) -> None:
    """Options and counts are what the code has: `python -m tests.reference` writes them."""
    found = (DOCS / f"{guide}.md").read_text(encoding="utf-8")
    assert written(guide) == found, "run python -m tests.reference"


def test_what_is_no_loss() -> None:
    """The program that counts losses knows every count that is none."""
    (program,) = blocks("counts", "python")

    assert {*NOT_LOSSES} == set(
        re.findall(r'"(\w+)"', program.partition("no_loss")[2].partition("}")[0])
    )


def test_dialects() -> None:
    """The table of dialects has each by its name, with its default host."""
    expected = {name: find_dialect(name).default_host for name in DIALECTS}
    rows = table(section(GUIDES["servers"], "## Dialects"))

    found = {code(row[0])[0]: "".join(code(row[1])) for row in rows}
    assert expected == found, "give each dialect a row in the table of docs/servers.md"


def test_keys_of_extra() -> None:
    """The table of keys has every key with a meaning."""
    rows = table(section(GUIDES["events"], "## What makes a record an event"))

    found = {key for row in rows for key in code(row[0])}
    assert set(_KNOWN) == found, "give each key a row in docs/events.md"


def test_extras_of_the_package() -> None:
    """The extras that are listed are those that can be installed."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    rows = table(section(GUIDES["options"], "## Extras of the package"))

    found = [code(row[0])[0] for row in rows]
    assert list(setup["options.extras_require"]) == found, "give each a row in docs/options.md"


def test_environment() -> None:
    """The variables that are listed are those that the code reads, except its own."""
    read = re.compile(r'"(POSTHOG_\w+)"')
    found = {
        name
        for path in (ROOT / "posthog_logging").rglob("*.py")
        for name in read.findall(path.read_text(encoding="utf-8"))
        if not name.startswith("POSTHOG_LOGGING_")
    }
    rows = table(section(GUIDES["options"], "## Environment"))

    listed = {code(row[0])[0] for row in rows}
    assert found == listed, "give each variable a row under Environment in docs/options.md"


@pytest.mark.parametrize(
    ("number", "server"), list(enumerate(["old-server", "stripping-proxy", "catch-all"]))
)
def test_what_doctor_says(number: int, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The findings that are shown are those that the command prints for such servers."""
    with Inspector(play=server) as inspector:
        main(["doctor", "--host", inspector.url, "--api-key", "phc_test"])
    _, *shown = blocks("troubleshooting", "console")[number].splitlines()

    assert "\n".join(shown) in capsys.readouterr().out


def test_reserved_names_of_logging() -> None:
    """The names that `extra` must not have are those of a record, of each Python."""
    (shown,) = blocks("troubleshooting", "text")
    record = logging.LogRecord("n", 20, "p", 1, "m", (), None)

    assert set() == {*vars(record), "message", "asctime"} - set(shown.split())
    assert {"taskName"} >= set(shown.split()) - {*vars(record), "message", "asctime"}


# The commands.


@pytest.fixture(scope="module")
def commands() -> dict[str, str]:
    """Each command of the parser, and its help."""
    return {name: printed(name, "--help") for name in listed(printed("--help"))}


def printed(*words: str) -> str:
    """Return what the command line prints."""
    into = io.StringIO()
    with contextlib.redirect_stdout(into):
        assert 0 == main(words)
    return into.getvalue()


def listed(text: str) -> list[str]:
    """Return the commands that the help lists."""
    _, _, rest = text.partition("COMMAND\n")
    return re.findall(r"^    (\w+)  ", rest.partition("\n\n")[0], re.MULTILINE)


def test_every_command_is_mentioned(commands: dict[str, str]) -> None:
    """The table of commands is the parser's list, in its order."""
    rows = table(section(GUIDES["command-line"], "## Commands"))

    found = [code(row[0])[0].split()[1] for row in rows]
    assert list(commands) == found, "give each a row in docs/command-line.md, in order"


@pytest.mark.parametrize("page", ["README", *GUIDES])
def test_every_mentioned_command_exists(page: str, commands: dict[str, str]) -> None:
    """Wherever a command is named it is one, and the options with it are its own."""
    text = (ROOT / "README.md").read_text("utf-8") if page == "README" else GUIDES[page]
    for name, words in re.findall(r"posthog-logging ([a-z]\w*)([^`\n]*)", text):
        own, _, _ = words.partition(" -- ")

        assert name in commands
        assert [] == [one for one in re.findall(r"--\w[\w-]*", own) if one not in commands[name]]


def test_every_mentioned_option_exists(commands: dict[str, str]) -> None:
    """What the table says of a command's options is so, and all of them speak JSON."""
    for row in table(section(GUIDES["command-line"], "## Commands")):
        text = commands[code(row[0])[0].split()[1]]
        options = [one.split()[0] for one in code(row[1]) if one.startswith("--")]

        missing = [one for one in [*options, "--json"] if one not in text]
        assert [] == missing, f"{code(row[0])[0]}: add these options, or do not mention them"


@pytest.mark.parametrize("topic", GUIDES)
def test_topics_that_are_mentioned(topic: str) -> None:
    """Wherever `posthog-logging docs` is shown with a topic, there is such a guide."""
    found = re.findall(r"posthog-logging docs ([a-z-]+)", GUIDES[topic])

    assert set() == set(found) - set(GUIDES)


def test_what_demo_prints() -> None:
    """The demo prints each line that is shown of it."""
    (shown,) = blocks("command-line", "text")
    output = anonymous(printed("demo"))

    assert [] == [line for line in anonymous(shown).splitlines() if line not in output]


def test_json_of_the_guides() -> None:
    """Every block of JSON is JSON."""
    for found in BLOCKS.values():
        for block in found:
            if block.language == "json":
                json.loads(block.text)
