"""The recipes, run as a user runs them: real servers, real workers, concurrent clients."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import urllib.request

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from posthog_logging.inspector import Event, Inspector


RECIPES = Path(__file__).with_name("recipes")
LISTENING = r"(?:Listening at: |running on )(http://127\.0\.0\.1:\d+)"
VISITS = 24  # each a client of its own


class Running:
    """A program that serves: what it prints is read as it comes, and it ends with SIGTERM."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", *command],
            cwd=RECIPES,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.printed: list[str] = []

    def wait_for(self, pattern: str, timeout: float = 20.0) -> str:
        """Return what *pattern* captures in a line that the program prints."""
        while True:
            line = self._lines.get(timeout=timeout)
            assert line is not None, f"it ended:\n{''.join(self.printed)}"
            self.printed.append(line)
            found = re.search(pattern, line)
            if found:
                return found[found.re.groups]

    def stop(self) -> int:
        """Ask the program to end, and return its status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
            raise
        finally:
            self._reader.join(5)
            assert self._process.stdout is not None
            self._process.stdout.close()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)


@pytest.fixture
def env(inspector: Inspector, tmp_path: Path) -> dict[str, str]:
    """The environment of a recipe: it sends to the inspector."""
    folder = tmp_path / "broker"
    folder.mkdir()
    return {
        **os.environ,
        "POSTHOG_API_KEY": "phc_recipe",
        "POSTHOG_HOST": inspector.url,
        "BROKER_FOLDER": str(folder),
        "PYTHONPATH": os.pathsep.join([str(RECIPES.parent.parent), str(RECIPES)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.fixture
def start(env: dict[str, str]) -> Iterator[Callable[..., Running]]:
    """A starter of programs, that are ended at the end of a test that failed."""
    made = []

    def start_one(*command: str) -> Running:
        made.append(Running(list(command), env))
        return made[-1]

    yield start_one
    for program in made:
        if program.runs:
            program.stop()


def run(env: dict[str, str], *command: str) -> None:
    """Run a program to its end."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=RECIPES,
        env=env,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert 0 == done.returncode, done.stderr


def visit(url: str, number: int) -> bytes:
    """Be the client number *number*: of one identity, with one session."""
    request = urllib.request.Request(
        f"{url}?who={number}",
        headers={
            "X-PostHog-Distinct-Id": f"user-{number}",
            "x-posthog-session-id": f"session-{number}",
        },
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        body: bytes = response.read()
    return body


def visit_all(base: str, *paths: str) -> None:
    """Let all clients come at once, and look at every path."""
    with ThreadPoolExecutor(8) as pool:
        work = [
            pool.submit(visit, base + path, number) for number in range(VISITS) for path in paths
        ]
    assert all(done.result() for done in work)


def attribution(events: list[Event]) -> Counter[tuple[Any, ...]]:
    """Count the events by who they say that it was, and to whom they were attributed."""
    return Counter(
        (event.properties["who"], event.distinct_id, event.message.properties.get("$session_id"))
        for event in events
    )


def each(times: int) -> Counter[tuple[Any, ...]]:
    """Return what `attribution` must be: every client's events are its own."""
    return Counter({(str(n), f"user-{n}", f"session-{n}"): times for n in range(VISITS)})


GUNICORN = "gunicorn --preload --workers 2 --threads 4 --bind 127.0.0.1:0 --graceful-timeout 5"
UVICORN = "uvicorn --port 0"


@pytest.mark.parametrize(
    ("package", "command", "paths", "events_each"),
    [
        ("flask", f"{GUNICORN} flask_app:app", ["/play", "/download"], 3),
        ("django", f"{GUNICORN} django_app:application", ["/play", "/play-async", "/download"], 4),
        ("django", f"{UVICORN} django_app:asgi_application", ["/play", "/play-async"], 2),
        (
            "fastapi",
            f"{UVICORN} fastapi_app:app",
            ["/play", "/play-async", "/later", "/download"],
            5,
        ),
    ],
    ids=["flask", "django-wsgi", "django-asgi", "fastapi"],
)
def test_web(
    package: str,
    command: str,
    paths: list[str],
    events_each: int,
    inspector: Inspector,
    start: Callable[..., Running],
) -> None:
    """Every event of concurrent clients is attributed to its own, and none is missing at exit."""
    pytest.importorskip(package)
    pytest.importorskip(command.split()[0])
    server = start(*command.split())
    visit_all(server.wait_for(LISTENING), *paths)
    status = server.stop()

    events = inspector.wait("movie played", VISITS * events_each)

    assert each(events_each) == attribution(events)
    assert status in (0, -signal.SIGTERM)  # uvicorn raises its signal again when it is done
    assert {200} == {event.properties.get("$response_status", 200) for event in events}
    assert {"GET"} == {event.properties["$request_method"] for event in events}


def test_django_member(inspector: Inspector, start: Callable[..., Running]) -> None:
    """Who is signed in wins over what the header says."""
    pytest.importorskip("django")
    pytest.importorskip("gunicorn")
    server = start(*GUNICORN.split(), "django_app:application")
    url = server.wait_for(LISTENING)
    with urllib.request.urlopen(f"{url}/play?who=1&member=member-7", timeout=10) as response:
        assert b"enjoy" == response.read()
    server.stop()

    assert ["member-7"] == [event.distinct_id for event in inspector.wait("movie played")]


def test_fastapi_websocket(inspector: Inspector, start: Callable[..., Running]) -> None:
    """A websocket passes through; what it says of itself holds."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    client = pytest.importorskip("websockets.sync.client")
    server = start(*UVICORN.split(), "fastapi_app:app")
    url = server.wait_for(LISTENING).replace("http://", "ws://")
    with client.connect(f"{url}/chat", additional_headers={"X-PostHog-Distinct-Id": "x"}) as chat:
        chat.send("3")
        assert "welcome" == chat.recv(timeout=10)
    server.stop()

    assert ["user-3"] == [event.distinct_id for event in inspector.wait("movie played")]


def test_celery(inspector: Inspector, env: dict[str, str], start: Callable[..., Running]) -> None:
    """Identity goes from who sends a task to the process that runs it, and to its own tasks."""
    pytest.importorskip("celery")
    worker = start(
        *"celery --app celery_app worker --pool prefork --concurrency 2".split(),
        *"--without-gossip --without-mingle --without-heartbeat --loglevel INFO".split(),
    )
    run(env, "celery_app.py")
    worker.wait_for(r"ready\.")
    rated = inspector.wait("movie rated", 6, timeout=15)
    status = worker.stop()

    played = inspector.wait("movie played", 6)

    expected = {(str(n), f"user-{n}", None): 1 for n in range(6)}
    assert expected == attribution(played)
    assert expected == attribution(rated)
    assert {"gold"} == {event.properties["plan"] for event in rated}
    assert 0 == status


def test_lambda(inspector: Inspector, env: dict[str, str]) -> None:
    """A function that is frozen as soon as it returns has delivered by then."""
    program = """
import lambda_handler, os
for number in "12":
    lambda_handler.handler({"user": f"user-{number}", "who": number}, None)
os._exit(0)
"""
    run(env, "-c", program)

    assert {("1", "user-1", None): 1, ("2", "user-2", None): 1} == attribution(inspector.events)


@pytest.mark.parametrize(
    ("name", "packages", "expected"),
    [
        ("structlog_native", "structlog", ["1"]),
        ("structlog_stdlib", "structlog", ["1", "2"]),
        ("structlog_json", "structlog", ["1"]),
        ("loguru_app", "loguru", ["1"]),
        ("dictconfig_app", "yaml", ["1"]),
    ],
)
def test_script(
    name: str, packages: str, expected: list[str], inspector: Inspector, env: dict[str, str]
) -> None:
    """A script delivers its events by ending, and those only."""
    pytest.importorskip(packages)
    run(env, "-W", "error", f"{name}.py")

    events = inspector.wait(count=len(expected))

    assert Counter((who, f"user-{who}", None) for who in expected) == attribution(events)
    assert "movie played" == events[0].event
