"""The README, held to its word: what it shows runs, what it lists is complete and true."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import io
import json
import os
import re
import subprocess
import sys

from collections.abc import Callable, Iterator
from configparser import ConfigParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import posthog_logging

from posthog_logging import Analytics, PostHogHandler
from posthog_logging.cli import main
from posthog_logging.delivery.ledger import NOT_LOSSES
from posthog_logging.events.message import _KNOWN
from posthog_logging.inspector import Inspector
from posthog_logging.wire import DIALECTS, find_dialect


ROOT = Path(__file__).parent.parent
PACKAGE = Path(posthog_logging.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

HOSTS = re.compile(r"https://[\w.-]+(?=\")")  # as code has them, in quotes
MOMENT = re.compile(r"\d\d:\d\d:\d\d\.\d{3}")
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
ROW = re.compile(r"^\|(?! ?-)(.+)\|$")


class Block(NamedTuple):
    """One fenced block: the heading that it stands under, its language and its text."""

    heading: str
    language: str
    text: str


def read_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of *text*; a ``#`` inside of one is no heading."""
    heading = language = ""
    lines: list[str] | None = None
    for line in text.splitlines():
        if lines is None and line.startswith("```"):
            language, lines = line[3:], []
        elif lines is not None and line == "```":
            yield Block(heading, language, "\n".join(lines) + "\n")
            lines = None
        elif lines is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")


BLOCKS = list(read_blocks(README))
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)


def blocks(language: str, heading: str | None = None) -> list[str]:
    """Return the texts of the blocks in *language*, of all headings or of one."""
    return [
        one.text for one in BLOCKS if one.language == language and heading in (None, one.heading)
    ]


def section(heading: str) -> str:
    """Return what stands under *heading*, up to the next heading of its level."""
    level, _, _ = heading.partition(" ")
    _, _, rest = README.partition(f"\n{heading}\n")
    assert rest, heading
    return re.split(rf"^#{{1,{len(level)}}} ", rest, flags=re.MULTILINE)[0]


def table(text: str) -> list[list[str]]:
    """Return the cells of the first table in *text*, without its head."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        found = ROW.match(line)
        if found:
            rows.append([cell.strip() for cell in found[1].split("|")])
        elif rows and not line.startswith("|"):
            break
    return rows[1:]


def code(cell: str) -> list[str]:
    """Return what is code in *cell*."""
    return re.findall(r"`([^`]+)`", cell)


# The programs.

#: Each heading with Python below it, the packages that it needs, and what arrives of it.
PROGRAMS: dict[str, tuple[str, list[str]]] = {
    "posthog_logging": ("", ["movie played"]),
    "Configure with dictConfig": ("", ["movie played"]),
    "Choose what becomes an event": (
        "",
        ["$create_alias", "$groupidentify", "$identify", "$pageview", "movie rated"],
    ),
    "Survive outages": ("", ["ticket sold"]),
    "Speak Segment": ("", ["movie played"]),
    "With structlog": ("structlog", ["movie played"]),
    "Request identity": ("", ["movie played"]),
    "Exceptions and plain logs": ("", ["$exception", "hall 3 is cold"]),
    "Many processes": ("", ["door opened"]),
}
UNDER_PYTEST = "In your tests"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def here(program: str, url: str) -> str:
    """Return *program* with the inspector in place of every server."""
    return HOSTS.sub(url, program)


def test_every_program_is_known() -> None:
    """Python stands under no heading that the tests do not run."""
    headings = {one.heading for one in BLOCKS if one.language == "python"}

    assert {*PROGRAMS, UNDER_PYTEST} == headings


@pytest.mark.parametrize("heading", PROGRAMS)
def test_programs(heading: str, inspector: Inspector, run_script: Run, tmp_path: Path) -> None:
    """The blocks under one heading are one program, and it delivers what it says by ending."""
    package, expected = PROGRAMS[heading]
    if package:
        pytest.importorskip(package)
    program = here("\n".join(blocks("python", heading)), inspector.url)
    done = run_script(
        f"import os; os.chdir({str(tmp_path)!r})\n{program}",
        POSTHOG_API_KEY="phc_readme",
        POSTHOG_HOST=inspector.url,
        NO_PROXY="127.0.0.1",
    )

    assert 0 == done.returncode, done.stderr
    assert expected == sorted(event.event for event in inspector.events)
    assert [] == inspector.bad


def test_what_arrives_of_the_first_program(inspector: Inspector, run_script: Run) -> None:
    """The event below the first program is the one that it sends, but for its id and its time."""
    program, (expected,) = blocks("python", "posthog_logging")[0], blocks("json")
    done = run_script(here(program, inspector.url))
    (event,) = inspector.events

    assert 0 == done.returncode, done.stderr
    assert anonymous(expected) == anonymous(json.dumps(event.raw, indent=2) + "\n")


def test_what_is_removed_before_it_is_sent(inspector: Inspector, run_script: Run) -> None:
    """The hook that is shown does what its name says."""
    heading = "Choose what becomes an event"
    run_script(here(blocks("python", heading)[0], inspector.url), POSTHOG_HOST=inspector.url)
    (rated,) = inspector.wait("movie rated")

    assert "user-1" == rated.distinct_id
    assert "email" not in rated.properties


def test_the_tests_that_are_shown(tmp_path: Path) -> None:
    """The example of a test suite passes, with the plugin as it is installed."""
    suite = tmp_path / "test_cinema.py"
    suite.write_text("\n".join(blocks("python", UNDER_PYTEST)), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-c", os.devnull]
    loaded = ["-p", "posthog_logging.pytest_plugin", f"--rootdir={tmp_path}", str(suite)]
    done = subprocess.run(
        [*command, *loaded],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout
    assert "2 passed" in done.stdout


def anonymous(text: str) -> str:
    """Return *text* without what is another one each time."""
    for pattern in (TIMESTAMP, UUID, MOMENT):
        text = pattern.sub("…", text)
    return text


# The migration.


def migrated(ancestor: str) -> list[str]:
    """Return the lines that replace those of *ancestor*."""
    _, _, rest = section("## Migrate").partition(f"From {ancestor}:\n")
    return [code(row[1])[0] for row in table(rest)]


def called(line: str) -> str:
    """Return the call of `Analytics` that *line* makes; "" where it makes none."""
    found = re.match(r"analytics\.(\w+)\(", line)
    return found[1] if found else ""


ANCESTORS = {
    "posthog-python 1": "capture identify alias group page screen flush join shutdown",
    "astronomer-analytics": "track identify page screen group alias flush join",
}
LINES = list(dict.fromkeys(line for name in ANCESTORS for line in migrated(name)))

#: Each call, and what it is in PostHog's family and in Segment's.
KINDS = {
    "capture": ("movie played", "track"),
    "track": ("movie played", "track"),
    "identify": ("$identify", "identify"),
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
        "failed": lambda error, events: None,
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

    assert expected[0] == event.event if family == "posthog" else expected[1] == event.raw["type"]
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
    rows = table(section("## Request identity"))
    return next(code(row[2])[0] for row in rows if [module] == code(row[1]))


def run_row(name: str, **names: Any) -> dict[str, Any]:
    """Run the line for the middleware of this name, with its module's own names."""
    module = importlib.import_module(f"posthog_logging.middleware.{name}")
    names = {**vars(module), **names}
    exec(line_of(name), names)
    return names


# The tables.


def test_options() -> None:
    """The table of options is the signature: names, order and defaults."""
    parameters = list(inspect.signature(PostHogHandler).parameters.values())
    rows = table(section("## Options"))

    assert [one.name for one in parameters] == [code(row[0])[0] for row in rows]
    assert {one.name: one.default for one in parameters} == {
        code(row[0])[0]: eval(code(row[1])[0], {}) for row in rows
    }


def test_dialects() -> None:
    """The table of dialects has each by its name, with its default host."""
    expected = {name: find_dialect(name).default_host for name in DIALECTS}
    rows = table(section("## Speak Segment"))

    assert expected == {code(row[0])[0]: "".join(code(row[1])) for row in rows}


def test_counts() -> None:
    """The table of counts has every reason that the code counts under, and no other."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    expected = {reason for tree in trees for reason in reasons_in(tree)}

    assert NOT_LOSSES | expected == {code(row[0])[0] for row in table(section("## Counts"))}


def reasons_in(tree: ast.AST) -> Iterator[str]:
    """Yield the reasons for a loss: what is called one, and what is given to be counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason":
            yield from [text for one in ast.walk(node.value) for text in constant(one)]
        elif isinstance(node, ast.Call) and COUNTING.search(ast.unparse(node.func)):
            yield from [text for one in node.args[:2] for text in constant(one)][:1]
        elif isinstance(node, ast.Call) and COUNTING.search(ast.unparse(node).partition(",")[0]):
            yield from [text for one in node.args[1:2] for text in constant(one)]  # a `partial`


COUNTING = re.compile(
    r"(^Refused|\b_?lose|\b_?refuse|_lose_rest|give_up|abandon|evict|_ledger\.add)$"
)


def constant(node: ast.AST) -> list[str]:
    """Return the string that *node* is, if it is one."""
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def test_keys_of_extra() -> None:
    """The table of keys has every key with a meaning."""
    text = section("### Choose what becomes an event")
    found = {key for row in table(text) for key in code(row[0])}

    assert set(_KNOWN) == found


def test_extras_of_the_package() -> None:
    """The extras that are listed are those that can be installed."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    rows = table(section("## Install"))

    assert list(setup["options.extras_require"]) == [code(row[0])[0] for row in rows]


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
    rows = table(section("## From the command line"))

    assert list(commands) == [code(row[0])[0].split()[1] for row in rows]


def test_every_mentioned_command_exists(commands: dict[str, str]) -> None:
    """Wherever a command is named it is one, and the options with it are its own."""
    for name, words in re.findall(r"posthog-logging ([a-z]\w*)([^`\n]*)", README):
        own, _, _ = words.partition(" -- ")

        assert name in commands
        assert [] == [one for one in re.findall(r"--\w[\w-]*", own) if one not in commands[name]]


def test_every_mentioned_option_exists(commands: dict[str, str]) -> None:
    """What the table says of a command's options is so, and all of them speak JSON."""
    for row in table(section("## From the command line")):
        text = commands[code(row[0])[0].split()[1]]
        options = [one.split()[0] for one in code(row[1]) if one.startswith("--")]

        assert [] == [one for one in [*options, "--json"] if one not in text]


def test_what_demo_prints() -> None:
    """The demo prints each line that is shown of it."""
    (shown,) = blocks("text", "From the command line")
    output = anonymous(printed("demo"))

    assert [] == [line for line in anonymous(shown).splitlines() if line not in output]


@pytest.mark.skipif(os.name == "nt", reason="the script is bash's")
def test_the_test_command() -> None:
    """What the page says that tests the project is what its check runs."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (function,) = re.findall(r"^test_command\(\) \{.*?^\}", script, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        ["bash", "-euc", f"{function}\ntest_command"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    steps = "python3 -m venv .venv", ".venv/bin/pip install -q tox", ".venv/bin/tox"
    assert " && ".join(steps) == done.stdout.strip()
    assert [done.stdout] == blocks("sh", "Contributing")


def test_the_demo_command(commands: dict[str, str]) -> None:
    """One line installs the package with its friend for terminals, and runs the demo."""
    (command,) = (text for text in blocks("sh", "Install") if "venv" in text)
    steps = [step.split() for step in command.strip().split(" && ")]

    assert ["python3", "-m", "venv", ".venv"] == steps[0]
    assert [".venv/bin/pip", "install", "-q", "'.[cli]'"] == steps[1]
    assert [".venv/bin/posthog-logging", "demo"] == steps[2]
    assert "demo" in commands


# The links.


def test_links() -> None:
    """Whatever the page points at, in this project or on itself, is there."""
    found = re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", PROSE)
    targets = [one or other for one, other in found if "://" not in one]
    headings = re.findall(r"^#+ (.*)$", PROSE, re.MULTILINE)
    anchors = {
        f"#{re.sub(r'[^a-z0-9 _-]', '', one.lower()).replace(' ', '-')}" for one in headings
    }

    assert targets
    assert [] == [one for one in targets if one not in anchors and not (ROOT / one).exists()]
