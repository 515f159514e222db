"""The command line: what commands print, how they end, and what they never show."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

import posthog_logging

from posthog_logging.cli import _COMMANDS, main, rows
from posthog_logging.cli.docs import guides
from posthog_logging.cli.output import Output, brief, harmless
from posthog_logging.cli.protocols import Answer as Answered
from posthog_logging.cli.protocols import judge_get, judge_posthog
from posthog_logging.inspector import Answer, Inspector


ROOT = Path(posthog_logging.__file__).parent.parent
KEY = "phc_never_to_be_seen_anywhere"
PROGRAM = (sys.executable, "-W", "error", "-m", "posthog_logging")
_BARE = """
import sys
sys.modules["rich"] = None
from posthog_logging.cli import main
sys.exit(main())
"""
WITHOUT_RICH = (sys.executable, "-c", _BARE)


def environment(**more: str) -> dict[str, str]:
    """Return an environment that finds the checkout and names no server."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("POSTHOG_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **more}


def run(*words: str, program: Sequence[str] = PROGRAM, **more: str) -> Any:
    """Run a command to its end."""
    return subprocess.run(
        [*program, *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=50,
        env=environment(**more),
    )


@contextmanager
def running(*words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command for as long as the block lasts."""
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(**more),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> Any:
    """Return the JSON that a command prints first."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def on_a_terminal(program: Sequence[str], *words: str, **more: str) -> str:
    """Return what a command prints when its output is a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*program, *words], stdout=theirs, env=environment(TERM="xterm", **more)
    )
    os.close(theirs)
    shown = b""
    with process, open(ours, "rb", buffering=0) as terminal, ended_after(process, 20):
        while True:
            try:
                shown += terminal.read(65536)
            except OSError:  # what Linux says when the last writer is gone
                break
    return shown.decode()


@contextmanager
def ended_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """Kill *process* if the block takes longer: a read from a terminal has no time-out."""
    late = threading.Timer(seconds, process.kill)
    late.start()
    try:
        yield
    finally:
        late.cancel()


# The tree.


@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command, and the tree itself, has help that names the exit statuses."""
    status = main([*command.split(), "--help"])
    shown = capsys.readouterr().out

    assert 0 == status
    assert "exit status" in shown.lower()


def test_help_needs_no_files_of_unix(run_script: Any) -> None:
    """
    The help imports every command, also on Windows, which has neither flock nor limits.

    What needs them is imported in a command's `run`, as `spool` does.
    """
    done = run_script("""
import sys
sys.modules.update(dict.fromkeys(["fcntl", "resource"]))
from posthog_logging.cli import main
sys.exit(main(["--help"]))
""")

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_option_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No option is left unexplained: each is followed by its help, on its line or the next."""
    main([command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    options = [n for n, line in enumerate(lines) if line.startswith("  -")]

    bare = [
        lines[n]
        for n in options
        if "  " not in lines[n].strip() and not lines[n + 1].startswith(" " * 10)
    ]

    assert len(options) > 1
    assert [] == bare


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["send", "x", "--colour"], "unrecognized arguments: --colour"),
        (["demo", "now"], "unrecognized arguments: now"),
        (["demo", "--", "now"], "unrecognized arguments: now"),
        (["demo", "--ke"], "unrecognized arguments: --ke"),
        (["serve", "--port", "70000"], "0 to 65535"),
        (["serve", "--port", "-1"], "0 to 65535"),
        (["serve", "--keep"], "--keep needs a COMMAND"),
        (["docs", "deliverx"], "Did you mean delivery?"),
        (["demo", "--dialect", "esperanto"], "invalid choice: 'esperanto'"),
        (["send"], "no event: give its name"),
        (
            ["send", "x", "--api-key", KEY, "novalue"],
            "'novalue' is not a property: give key=value",
        ),
        (["send", "x", "--api-key", KEY, "=1"], "'=1' is not a property"),
        (["send", "x", "--api-key", KEY, "--timestamp", "soon"], "'soon' is not a time"),
        (["send", "x", "--api-key", KEY, "--timeout", "nan"], "number of seconds"),
        (
            ["send", "x", "--api-key", KEY, "--host", "ftp://h"],
            "host: must be a URL that begins with http",
        ),
        (["send", "x", "--api-key", "phx_personal"], "personal key"),
        (["send", "x", "--api-key", ""], "no key to send with: set POSTHOG_API_KEY"),
        (["send", "--kind", "group", "acme"], "TYPE:KEY"),
        (["send", "--kind", "alias"], "previous id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage ends with status 2, says what is wrong and what to do, and never the key."""
    status = main(words)
    shown = capsys.readouterr()

    assert (2, "") == (status, shown.out)
    assert part in shown.err
    assert KEY not in shown.err


def test_version() -> None:
    """``--version`` says the name and the version."""
    done = run("--version")

    assert f"posthog-logging {posthog_logging.__version__}\n" == done.stdout


def test_reader_that_goes_away() -> None:
    """A command whose output nobody reads any more ends quietly."""
    with running("demo") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        assert 141 == process.wait(20)
        assert "" == process.stderr.read()


# demo


@pytest.mark.parametrize("dialect", ["posthog", "posthog-v1", "segment", "rudderstack"])
def test_demo(dialect: str) -> None:
    """All that the demo logs arrives, once and good, in every family of dialects."""
    done = run("demo", "--json", "--dialect", dialect)
    said = json.loads(done.stdout)

    assert (0, "") == (done.returncode, done.stderr)
    assert (True, []) == (said["good"], said["problems"])
    assert said["calls"] > said["logged"] == len(said["events"]) > 40
    assert {"accepted": said["logged"], "delivered": said["logged"], "waiting": 0} == {
        name: said["handler"][name] for name in ("accepted", "delivered", "waiting")
    }


def test_demo_odd_values() -> None:
    """What JSON has no word for arrives as the nearest that it has."""
    events = json.loads(run("demo", "--json").stdout)["events"]
    odd: dict[str, Any] = {}
    for event in events:
        if event["event"] == "odd value":
            odd |= event["properties"]

    assert {
        "when": "2024-02-29T12:00:00+00:00",
        "price": 12.5,
        "ticket": "00000000-0000-0000-0000-000000000007",
        "nothing": None,
        "tags": ["noir", "silent"],
        "loop": ["round and round", "[cut: cycle]"],
        "emoji": "🍿",
        "half": "\ufffd",
    }.items() <= odd.items()


@pytest.mark.parametrize(
    ("more", "program"),
    [
        ({}, PROGRAM),
        ({"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, PROGRAM),
        ({}, WITHOUT_RICH),
        ({"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}, PROGRAM),
        ({"POSTHOG_HOST": "http://127.0.0.1:9", "POSTHOG_API_KEY": KEY}, PROGRAM),
    ],
    ids=["plain", "ascii", "without rich", "proxy", "environment"],
)
def test_demo_for_people(more: dict[str, str], program: Sequence[str]) -> None:
    """Without a terminal the demo prints aligned text, whatever the surroundings are."""
    done = run("demo", program=program, **more)
    lines = done.stdout.splitlines()
    header = next(line for line in lines if line.startswith("time"))
    rows = [line for line in lines if "movie played" in line]

    assert (0, "") == (done.returncode, done.stderr)
    assert 7 == len(rows)
    assert {header.index("event")} == {row.index("movie played") for row in rows}
    assert "\x1b" not in done.stdout
    assert "Everything that was logged arrived" in done.stdout


@pytest.mark.parametrize(
    ("program", "more", "colours"),
    [
        (PROGRAM, {}, True),
        (PROGRAM, {"NO_COLOR": "1"}, False),
        (WITHOUT_RICH, {}, True),
        (WITHOUT_RICH, {"NO_COLOR": "1"}, False),
    ],
    ids=["rich", "NO_COLOR", "without rich", "neither"],
)
def test_demo_on_a_terminal(program: Sequence[str], more: dict[str, str], colours: bool) -> None:
    """On a terminal ``rich`` draws the table if it is there; NO_COLOR holds."""
    if program == PROGRAM and colours:
        pytest.importorskip("rich")
    shown = on_a_terminal(program, "demo", **more)

    assert "Everything that was logged arrived" in shown
    assert colours <= ("\x1b[" in shown)
    assert "\x1b[3" not in shown or colours


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_demo_keeps_the_inspector(name: signal.Signals) -> None:
    """With ``--keep`` the inspector can be reached until somebody ends it."""
    with running("demo", "--keep", "--json") as process:
        said = first_line(process)
        port = int(said["url"].rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), 5).close()
        process.send_signal(name)

        assert 0 == process.wait(20)
        assert process.stderr is not None
        assert "" == process.stderr.read()


# serve


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_serve(name: signal.Signals) -> None:
    """The inspector takes events with the environment that ``serve`` prints, until told to end."""
    with running("serve", "--port", "0", "--json") as process:
        said = first_line(process)
        sent = run("send", "seen", "--distinct-id", "u", **said["environment"])
        process.send_signal(name)

        assert (0, 0) == (sent.returncode, process.wait(20))
        assert {"seen": 1} == first_line(process)["counts"]["events"]
        assert process.stderr is not None
        assert "" == process.stderr.read()


def test_serve_for_people() -> None:
    """People get the lines to copy into their shell."""
    with running("serve", "--port", "0") as process:
        assert process.stdout is not None
        shown = [process.stdout.readline() for _ in range(6)]

    url = shown[0].split()[-1]
    assert [f"export POSTHOG_HOST={url}\n", "export POSTHOG_API_KEY=phc_local\n"] == shown[4:]


def test_serve_plays_other_servers() -> None:
    """With ``--play`` the inspector is an old server: V1 is not there, V0 is."""
    with running("serve", "--port", "0", "--json", "--play", "old-server") as process:
        url = first_line(process)["url"]
        statuses = [
            requests.post(f"{url}{path}", b"{}", timeout=10).status_code
            for path in ("/i/v1/analytics/events", "/batch/")
        ]

    assert [404, 400] == statuses


@pytest.mark.parametrize("words", [["--play", "nobody"], ["--capacity", "0"], ["--capacity", "x"]])
def test_serve_refuses_what_it_cannot_be(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown server, and a capacity that is no number, are wrong usage."""
    assert 2 == main(["serve", "--port", "0", *words])
    assert words[1] in capsys.readouterr().err


def test_json_is_harmless_to_a_terminal() -> None:
    """No control character reaches a terminal, also not in JSON, which says the same."""
    stream = io.StringIO()
    value = {"event": "\x1b[2J\x9b1m\u202ez\u200b", "a": "é 😀"}

    Output(as_json=True, stream=stream).give(value)

    line = stream.getvalue().removesuffix("\n")
    assert line.isprintable()
    assert value == json.loads(line)
    assert "é 😀" in line


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_port_in_use(
    command: str, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that is taken is wrong usage: status 2, and what to do."""
    port = inspector.url.rpartition(":")[2]

    assert 2 == main([command, "--port", port])
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


# send


def send(inspector: Inspector, *words: str) -> int:
    """Run ``send`` here, to *inspector*."""
    return main(["send", *words, "--host", inspector.url, "--api-key", KEY])


def test_send(inspector: Inspector, capsys: pytest.CaptureFixture[str]) -> None:
    """One event is sent; its uuid and what became of it are printed, the key is not."""
    status = send(
        inspector, "played", "--distinct-id", "u-1", "n=1", "on=true", 'w={"a":[2]}', "s=a=b"
    )
    shown = capsys.readouterr()
    (event,) = inspector.events

    assert (0, f"{event.uuid} delivered\n", "") == (status, shown.out, shown.err)
    assert ("played", "u-1") == (event.event, event.distinct_id)
    assert {"n": 1, "on": True, "w": {"a": [2]}, "s": "a=b"}.items() <= event.properties.items()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "n=1", "--distinct-id", "u", "m=2"], {"n": 1, "m": 2}),
        (["--distinct-id", "u", "a", "n=NaN", "m="], {"n": "NaN", "m": ""}),
        (["--distinct-id", "u", "--", "a", "n=-1", "--m=2"], {"n": -1, "--m": 2}),
    ],
    ids=["between", "after", "after --"],
)
def test_send_words_anywhere(
    words: list[str], expected: dict[str, Any], inspector: Inspector
) -> None:
    """Properties may stand before, between and after options; after ``--`` all is a word."""
    status = main(["send", "--host", inspector.url, "--api-key", KEY, *words])

    assert 0 == status
    assert expected.items() <= inspector.events[0].properties.items()


@pytest.mark.parametrize(
    ("words", "event", "distinct_id", "expected"),
    [
        (["--kind", "identify", "a=1"], "$identify", "u", {"$set": {"a": 1}}),
        (["--kind", "set", "a=1"], "$set", "u", {"$set": {"a": 1}}),
        (["--kind", "alias", "before"], "$create_alias", "before", {"alias": "u"}),
        (
            ["--kind", "group", "company:acme:1", "a=1"],
            "$groupidentify",
            "u",
            {"$group_type": "company", "$group_key": "acme:1", "$group_set": {"a": 1}},
        ),
        (["--kind", "page", "Home", "a=1"], "$pageview", "u", {"name": "Home", "a": 1}),
        (["--kind", "page", "a=1"], "$pageview", "u", {"a": 1}),
        (["--kind", "screen", "Home"], "$screen", "u", {"$screen_name": "Home"}),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, list) else "",
)
def test_send_kinds(
    words: list[str],
    event: str,
    distinct_id: str,
    expected: dict[str, Any],
    inspector: Inspector,
) -> None:
    """Each kind says what the function of that name in `extras` says."""
    status = send(inspector, *words, "--distinct-id", "u")
    (arrived,) = inspector.events

    assert (0, event, distinct_id) == (status, arrived.event, arrived.distinct_id)
    assert expected.items() <= arrived.properties.items()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-02-29T12:00:00+01:00", "2024-02-29T11:00:00.000000Z"),
        ("0", "1970-01-01T00:00:00.000000Z"),
    ],
    ids=["ISO 8601", "epoch"],
)
def test_send_timestamp(text: str, expected: str, inspector: Inspector) -> None:
    """A time may be ISO 8601 or epoch seconds."""
    send(inspector, "a", "--timestamp", text)

    assert [expected] == [event.timestamp for event in inspector.events]


@pytest.mark.parametrize("dialect", ["posthog-v1", "segment"])
def test_send_dialects(dialect: str, inspector: Inspector) -> None:
    """Other protocols are spoken on request."""
    status = send(inspector, "played", "--distinct-id", "u", "--dialect", dialect)

    assert (0, [dialect]) == (status, [event.dialect for event in inspector.events])


@pytest.mark.parametrize(
    ("answer", "lost", "status"),
    [
        (Answer(status=403), "shutdown", None),
        (Answer(status=401), "shutdown", None),
        (Answer(status=413), "oversized", 413),
    ],
    ids=["403", "401", "413"],
)
def test_send_refused(
    answer: Answer,
    lost: str,
    status: int | None,
    inspector: Inspector,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is not delivered is lost here: status 1, the reason, and any HTTP status beside it."""
    inspector.answer_always = answer

    ended = send(inspector, "played", "--json", "--timeout", "1")
    shown = capsys.readouterr()
    said = json.loads(shown.out)

    assert (1, False, lost, status) == (ended, said["delivered"], said["lost"], said["status"])
    assert f"HTTP {answer.status}" in shown.err
    assert KEY not in shown.out + shown.err


def test_send_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    """An unreachable host costs the time-out and says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    status = main(
        ["send", "a", "--host", f"http://127.0.0.1:{port}", "--api-key", KEY, "--timeout", "0.5"]
    )
    shown = capsys.readouterr()

    assert 1 == status
    assert "lost (shutdown)" in shown.out
    assert "ConnectionRefusedError" in shown.err


def test_send_refused_here(inspector: Inspector, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no event at all never leaves, and says what it lacks."""
    status = send(inspector, "--kind", "identify", "a=1")

    assert (1, []) == (status, inspector.requests)
    shown = capsys.readouterr().out
    assert "lost (no_distinct_id)" in shown
    assert "To do: give --distinct-id." in shown


def test_send_key_from_environment(inspector: Inspector) -> None:
    """The key and the host may come from the environment."""
    done = run("send", "a", POSTHOG_HOST=inspector.url, POSTHOG_API_KEY=KEY)

    assert (0, "") == (done.returncode, done.stderr)
    assert KEY not in done.stdout
    assert ["a"] == [event.event for event in inspector.events]


def test_send_interrupted(inspector: Inspector) -> None:
    """Ctrl-C ends a command with status 130, without a traceback, and soon: not in --timeout."""
    inspector.answer_always = Answer(delay=30.0)
    with running("send", "a", "--api-key", KEY, "--host", inspector.url) as process:
        assert process.stderr is not None
        wait_for_request(inspector)
        process.send_signal(signal.SIGINT)

        assert 130 == process.wait(8)
        assert "Traceback" not in process.stderr.read()


def wait_for_request(inspector: Inspector) -> None:
    """Return once a request has come: a late answer has its event stored first."""
    assert [] != inspector.wait(timeout=20)


# serve -- COMMAND

LOGS = """
import logging, sys
from posthog_logging import PostHogHandler
log = logging.getLogger("app")
log.addHandler(PostHogHandler())
log.warning("from the program", extra={"distinct_id": "u"})
print("its own output")
sys.exit(7)
"""


def test_serve_command() -> None:
    """A program's events come here; its output and its status are the command's."""
    done = run("serve", "--port", "0", "--json", "--", sys.executable, "-c", LOGS)
    said = json.loads(done.stderr)

    assert (7, "its own output\n") == (done.returncode, done.stdout)
    assert {"from the program": 1} == said["counts"]["events"]


def test_serve_command_that_is_killed() -> None:
    """A program that a signal ended has the status that a shell would give."""
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

    assert 137 == main(["serve", "--port", "0", "--", sys.executable, "-c", program])


def test_serve_command_is_terminated() -> None:
    """SIGTERM is passed on, and the counts are told all the same."""
    program = "import time; print('{}', flush=True); time.sleep(60)"
    with running("serve", "--port", "0", "--", sys.executable, "-c", program) as process:
        first_line(process)
        process.send_signal(signal.SIGTERM)

        assert 143 == process.wait(20)
        assert process.stderr is not None
        assert "arrived" in process.stderr.read()


def test_serve_command_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that is not there has a shell's status for it."""
    assert 127 == main(["serve", "--port", "0", "--", "no-such-program-anywhere"])
    assert "cannot run 'no-such-program-anywhere'" in capsys.readouterr().err


@pytest.mark.parametrize("dialect", ["posthog", "posthog-v1", "segment"])
def test_serve_forward(dialect: str, inspector: Inspector) -> None:
    """What arrives is passed on as it came, with the program's own key."""
    words = ("--port", "0", "--json", "--forward", inspector.url)
    with running("serve", *words) as process:
        url = first_line(process)["url"]
        status = main(["send", "a", "--host", url, "--api-key", KEY, "--dialect", dialect])
        arrived = inspector.wait(timeout=20)
        process.send_signal(signal.SIGINT)
        process.wait(20)
        counts = first_line(process)["counts"]

    assert (0, 1, ["a"]) == (status, counts["good"], [event.event for event in arrived])
    assert {"posthog": "posthog-v1"}.get(dialect, dialect) == arrived[0].dialect


def test_serve_forward_to_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the other server cannot be reached, that is told once; the program notices nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

    done = run(
        "serve", "--port", "0", "--forward", url, "--", *PROGRAM, "send", "a", POSTHOG_API_KEY=KEY
    )

    assert 0 == done.returncode
    assert 1 == done.stderr.count(f"{url} cannot be reached (ConnectionError)")
    assert KEY not in done.stdout + done.stderr


def test_serve_forward_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """An address that is none is wrong usage."""
    assert 2 == main(["serve", "--port", "0", "--forward", "ftp://h"])
    assert "--forward: must be a URL that begins with http" in capsys.readouterr().err


# tail


def test_tail(inspector: Inspector, capsys: pytest.CaptureFixture[str]) -> None:
    """Past events are shown on a line each, with nothing that a terminal would act upon."""
    send(inspector, "played", "--distinct-id", "u-1", "film=\x1b[2J")
    capsys.readouterr()

    status = main(["tail", "--url", inspector.url, "--no-follow"])
    shown = capsys.readouterr().out

    assert 0 == status
    assert shown.endswith("  played  u-1  film=\\x1b[2J\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["a", "b", "a"]),
        (["--lines", "1"], ["a"]),
        (["--lines", "0"], []),
        (["--event", "b"], ["b"]),
        (["--distinct-id", "u-2"], ["a"]),
        (["--bad"], []),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("-") else "",
)
def test_tail_selects(
    words: list[str], expected: list[str], inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options select events; JSON has one a line."""
    for name, who in (("a", "u-1"), ("b", "u-1"), ("a", "u-2")):
        send(inspector, name, "--distinct-id", who)
    capsys.readouterr()

    main(["tail", "--url", inspector.url, "--no-follow", "--json", *words])
    lines = capsys.readouterr().out.splitlines()

    assert expected == [json.loads(line)["event"] for line in lines]


def test_tail_follows(inspector: Inspector) -> None:
    """What arrives later is shown when it arrives, until Ctrl-C."""
    send(inspector, "before")
    with running("tail", "--json", "--lines", "1", POSTHOG_HOST=inspector.url) as process:
        before = first_line(process)["event"]
        send(inspector, "after")

        assert ("before", "after") == (before, first_line(process)["event"])
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(20)


def test_tail_without_inspector(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no inspector listens, the command says how to start one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    assert 1 == main(["tail", "--url", f"http://127.0.0.1:{port}"])
    assert "`posthog-logging serve`" in capsys.readouterr().err


SHOWN = {
    "event": "a",
    "distinct_id": "u",
    "timestamp": "",
    "properties": {},
    "dialect": "posthog",
    "reason": "",
}


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"",
        b"5",
        b"[]",
        b"{}",
        b'{"events": []}',
        b'{"events": 5, "last": 1}',
        b'{"events": [5], "last": 1}',
        b'{"events": [{}], "last": 1}',
        b'{"events": {}, "last": 1}',
        b'{"events": [], "last": "1"}',
        b'{"events": [], "last": %b}' % (b"9" * 5000),
        b'{"events": %b' % (b"[" * 200_000),
        *(json.dumps({"events": [{**SHOWN, name: None}], "last": 1}).encode() for name in SHOWN),
    ],
    ids=range(19),
)
def test_tail_of_another_server(
    body: bytes, raw_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever another server answers, the command says that it is not an inspector."""

    def answer(connection: Any, number: int, server: Any) -> None:
        while server.read(connection):
            connection.sendall(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    assert 1 == main(["tail", "--url", raw_server(answer).url])
    assert "it is not an inspector" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["localhost", "localhost:8969", "ftp://h", "http://h:x", "http://"]
)
def test_tail_of_what_is_no_address(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address without its scheme is wrong usage, and the message names where it is from."""
    assert 2 == main(["tail", "--url", url])
    assert "--url: must be a URL that begins with http://" in capsys.readouterr().err

    monkeypatch.setenv("POSTHOG_HOST", url)
    assert 2 == main(["tail"])
    assert "(from POSTHOG_HOST): must be a URL that begins with" in capsys.readouterr().err


# import

JOURNAL = """\
{"posthog_logging":1,"dialect":"posthog","host":"h","acked":           0}
{"uuid":"0195a8b6-0000-7000-8000-000000000001","event":"a","distinct_id":"u","timestamp":"2024-01-01T00:00:00.000000Z","properties":{"n":1}}
{"uuid":"0195a8b6-0000-7000-8000-000000000002","event":"$identify","distinct_id":"u","timestamp":"2024-01-01T00:00:01.000000Z","properties":{"$set":{"x":1}}}
"""


def bring(inspector: Inspector, *words: str | Path) -> int:
    """Run ``import`` here, into *inspector*."""
    return main(["import", *map(str, words), "--host", inspector.url, "--api-key", KEY])


def test_import_journal(tmp_path: Path, inspector: Inspector) -> None:
    """A journal's events keep their uuids and times; its header and its zeros are no events."""
    journal = tmp_path / "journal.ndjson"
    journal.write_text(JOURNAL + "\0" * 100)

    status = bring(inspector, journal)

    assert 0 == status
    assert [line["uuid"] for line in map(json.loads, JOURNAL.splitlines()[1:])] == [
        event.uuid for event in inspector.events
    ]
    assert "2024-01-01T00:00:00.000000Z" == inspector.events[0].timestamp
    assert {"x": 1} == inspector.events[1].properties["$set"]


def test_import_into_another_dialect(tmp_path: Path, inspector: Inspector) -> None:
    """What one dialect wrote can be sent in another's words, and back."""
    journal = tmp_path / "journal.ndjson"
    journal.write_text(JOURNAL)
    bring(inspector, journal, "--dialect", "segment")
    exported = tmp_path / "segment.ndjson"
    exported.write_text("".join(json.dumps(event.raw) + "\n" for event in inspector.events))
    inspector.reset()

    status = bring(inspector, exported)

    assert (0, ["a", "$identify"]) == (status, [event.event for event in inspector.events])
    assert 0 == inspector.counts()["bad"]


def test_import_logs(
    tmp_path: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of structured logs, the records that say who are events; a broken line is told by number."""
    logs = tmp_path / "app.log"
    logs.write_text(
        '{"event": "started", "level": "info"}\n'
        '{"event": "played", "distinct_id": "u", "timestamp": "2024-05-05T10:00:00Z"}\n'
        '{"event": "played", "distinct\n'
        "[1]\n"
        '{"event": "paid", "distinct_id": "u"}\n'
    )

    status = bring(inspector, logs, "--format", "log", "--json")
    shown = capsys.readouterr()
    said = json.loads(shown.out)

    assert (1, ["played", "paid"]) == (status, [event.event for event in inspector.events])
    assert {
        "lines": 5,
        "imported": 2,
        "left_out": 1,
        "broken": 2,
        "lost": 0,
    }.items() <= said.items()
    assert f"{logs}:3: not JSON" in shown.err
    assert f"{logs}:4: not a JSON object" in shown.err


def test_import_mapping(tmp_path: Path, inspector: Inspector) -> None:
    """Any object will do with a mapping; twice imported, its event is the same one."""
    file = tmp_path / "old.ndjson"
    file.write_text('{"name": "bought", "user": {"id": 7}, "at": 1700000000, "price": 3}\n')
    words = ("--map", "event=name,distinct_id=user.id,timestamp=at", "--historical-migration")

    statuses = [bring(inspector, file, *words), bring(inspector, file, "--again", *words)]
    first, second = inspector.events

    assert [0, 0] == statuses
    assert ("bought", "7", first.uuid, True) == (
        first.event,
        first.distinct_id,
        second.uuid,
        second.duplicate,
    )
    assert ("2023-11-14T22:13:20.000000Z", 3) == (first.timestamp, first.properties["price"])
    assert inspector.requests[0].payload["historical_migration"] is True


def test_import_goes_on(tmp_path: Path, inspector: Inspector) -> None:
    """A file that was imported is not imported again; what was added to it is."""
    file = tmp_path / "app.log"
    file.write_text('{"event": "a", "distinct_id": "u"}\n')
    bring(inspector, file)
    bring(inspector, file)
    with file.open("a") as stream:
        stream.write('{"event": "b", "distinct_id": "u"}\n')
    bring(inspector, file)

    assert ["a", "b"] == [event.event for event in inspector.events]


def test_import_after_an_outage(
    tmp_path: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the server goes away in the middle, the same command goes on there later."""
    file = tmp_path / "app.log"
    file.write_text("".join(f'{{"event": "e{n}", "distinct_id": "u"}}\n' for n in range(2500)))
    inspector.script(Answer())
    inspector.answer_always = Answer(status=503)
    broken_off = bring(inspector, file, "--timeout", "2")
    arrived = len(inspector.events)
    inspector.answer_always = None
    resumed = bring(inspector, file)

    assert (1, 1000, 0) == (broken_off, arrived, resumed)
    assert [f"e{n}" for n in range(2500)] == [event.event for event in inspector.events]
    assert "goes on where this one ended" in capsys.readouterr().err


def test_import_interrupted(tmp_path: Path, inspector: Inspector) -> None:
    """Ctrl-C ends an import with status 130; the same command completes it."""
    file = tmp_path / "app.log"
    file.write_text("".join(f'{{"event": "e{n}", "distinct_id": "u"}}\n' for n in range(1500)))
    inspector.script(Answer(), Answer(delay=30.0))
    words = ("import", str(file), "--host", inspector.url, "--api-key", KEY, "--timeout", "1")
    with running(*words) as process:
        assert process.stderr is not None
        inspector.wait(count=1500, timeout=20)
        process.send_signal(signal.SIGINT)
        ended = process.wait(20)
        told = process.stderr.read()
    resumed = bring(inspector, file)

    assert (130, 0) == (ended, resumed)
    assert "Traceback" not in told
    assert {f"e{n}" for n in range(1500)} == {event.event for event in inspector.events}
    assert 1500 == len({event.uuid for event in inspector.events})


def test_import_reports_what_the_server_refuses(
    tmp_path: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """An event that is lost is told by its line, and does not stop the others."""
    file = tmp_path / "app.log"
    file.write_text(
        '{"event": "a", "distinct_id": "u"}\n{"event": "$set", "distinct_id": "u"}\n'
        '{"event": "b", "distinct_id": "u"}\n'
    )
    inspector.answer_always = Answer(verdicts={"b": "drop"})

    status = bring(inspector, file, "--dialect", "posthog-v1")
    shown = capsys.readouterr().err

    assert (1, ["a"]) == (status, [event.event for event in inspector.events])
    assert f"{file}:2: lost: empty_set" in shown
    assert f"{file}:3: lost: dropped" in shown


def test_import_on_a_terminal(tmp_path: Path, inspector: Inspector) -> None:
    """On a terminal there is a table at the end."""
    file = tmp_path / "app.log"
    file.write_text('{"event": "a", "distinct_id": "u"}\n')
    words = ("import", str(file), "--host", inspector.url, "--api-key", KEY)

    assert "imported" in on_a_terminal(PROGRAM, *words)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "no file: give at least one"),
        (["no-such-file"], "there is no such file"),
        ([__file__, "--map", "event"], "--map: must be FIELD=path"),
        ([__file__, "--map", "colour=a"], "--map: must be FIELD=path"),
        ([__file__, "--map", "timestamp=a"], "where the event's name is"),
        ([__file__, "--map", "event=a", "--format", "log"], "not allowed with"),
    ],
    ids=["nothing", "no file", "no path", "no field", "no event", "both"],
)
def test_import_wrong_usage(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be imported at all is wrong usage."""
    assert 2 == main(["import", *words, "--api-key", KEY, "--host", "http://127.0.0.1:9"])
    assert part in capsys.readouterr().err


def test_import_of_what_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder, a pipe or a device is there, and the message says what to give instead."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name, part in (
        (tmp_path, "this is a folder; give the files in it"),
        (pipe, "a pipe or a device has no place for the progress; save its lines in a file"),
        (os.devnull, "a pipe or a device has no place for the progress; save its lines in a file"),
    ):
        words = ("--api-key", KEY, "--host", "http://127.0.0.1:9")
        assert 2 == main(["import", str(name), *words])
        assert f"{name}: {part}" in capsys.readouterr().err


# doctor


def examine(
    capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, dict[str, tuple[str, str]]]:
    """Return the status of ``doctor`` and each finding by what was checked."""
    status = main(["doctor", "--json", "--timeout", "5", *words])
    findings = map(json.loads, capsys.readouterr().out.splitlines())
    return status, {one["checked"]: (one["verdict"], one["found"]) for one in findings}


@pytest.mark.parametrize("dialect", ["posthog", "posthog-v1", "segment"])
def test_doctor_finds_nothing(
    dialect: str, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where all is well it says so, sends no event, and shows no key."""
    words = ("--host", inspector.url, "--api-key", KEY, "--dialect", dialect)

    status, found = examine(capsys, *words)

    assert (0, {"ok"}, []) == (
        status,
        {verdict for verdict, _ in found.values()},
        [*inspector.events, *inspector.bad],
    )
    assert {"installed", "key", "host", "proxy", "name", "connection", "protocol", "clock"} == set(
        found
    )
    assert KEY not in str(found)


def test_doctor_finds_a_missing_key(
    inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing key is wrong, and the other checks are made all the same."""
    status, found = examine(capsys, "--host", inspector.url, "--api-key", "")

    assert (1, "WRONG", "ok") == (status, found["key"][0], found["connection"][0])


def test_doctor_finds_that_sending_is_switched_off(
    inspector: Inspector, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``POSTHOG_DISABLED`` is a finding, as nothing arrives while it is set."""
    monkeypatch.setenv("POSTHOG_DISABLED", "1")

    status, found = examine(capsys, "--host", inspector.url, "--api-key", KEY)

    assert (1, "WRONG") == (status, found["switch"][0])
    assert "POSTHOG_DISABLED" in found["switch"][1]


def test_doctor_finds_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that cannot be reached is wrong, by the name of the cause."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

    status, found = examine(capsys, "--host", url, "--api-key", KEY)

    assert (1, "WRONG") == (status, found["connection"][0])
    assert "ConnectionRefusedError" in found["connection"][1]


def test_doctor_finds_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that nobody has is wrong (RFC 6761, 6.4: ``invalid`` never resolves)."""
    status, found = examine(capsys, "--host", "http://posthog.invalid", "--api-key", KEY)

    assert (1, "WRONG") == (status, found["name"][0])


def test_doctor_finds_no_protocol(
    inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address that the server does not know is wrong."""
    status, found = examine(capsys, "--host", f"{inspector.url}/elsewhere", "--api-key", KEY)

    assert (1, "WRONG") == (status, found["protocol"][0])


def test_doctor_hides_the_proxys_password(inspector: Inspector) -> None:
    """A proxy is named without its user and password."""
    done = run(
        "doctor",
        "--json",
        "--host",
        inspector.url.replace("127.0.0.1", "localhost"),
        http_proxy="http://user:secret@127.0.0.1:9",
        no_proxy="",
    )

    assert 1 == done.returncode
    assert "http://127.0.0.1:9" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_doctor_looks_into_a_spool(
    tmp_path: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """What waits in a spool is counted; a folder or a file that cannot be read is wrong."""
    words = ("--host", inspector.url, "--api-key", KEY, "--spool")

    empty, found = examine(capsys, *words, str(tmp_path))
    missing, not_found = examine(capsys, *words, str(tmp_path / "none"))
    (tmp_path / "1-1-1.ndjson").write_bytes(bytes(100))
    damaged, unreadable = examine(capsys, *words, str(tmp_path))

    assert (0, "ok") == (empty, found["spool"][0])
    assert (1, "WRONG") == (missing, not_found["spool"][0])
    assert (1, "WRONG") == (damaged, unreadable["spool"][0])


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("phx_personal", "personal key"),
        ("phc_" + "x" * 61, "longer than 64"),
        ("phc_one two", "a blank within it"),
        ("phc_one\ntwo", "printable ASCII"),
        ('"phc_one"', "a quote, a bracket or"),
        ("<ph_project_api_key>", "a quote, a bracket or"),
        ("${POSTHOG_API_KEY}", "a quote, a bracket or"),
        ("phc_one,", "a quote, a bracket or"),
        ("phs_secret", "it begins with phs_, and a project's key with phc_"),
        ("pha_token", "it begins with pha_"),
    ],
    ids="personal long blank newline quotes brackets variable comma secret token".split(),
)
def test_doctor_looks_at_the_keys_shape(
    key: str, part: str, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that no server takes is wrong, and is not shown."""
    status, found = examine(capsys, "--host", inspector.url, "--api-key", key)

    assert (1, "WRONG") == (status, found["key"][0])
    assert part in found["key"][1]
    assert key not in str(found)


@pytest.mark.parametrize("key", ["POSTHOG_API_KEY", "phc_", "ph_old", "sTMFPsFhdP1Ssg"])
def test_doctor_doubts_a_key(
    key: str, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old projects of PostHog have keys without ``phc_``, and other servers all kinds of keys."""
    words = ("--host", inspector.url, "--api-key", key, "--dialect")

    _, found = examine(capsys, *words, "posthog-v0")
    _, elsewhere = examine(capsys, *words, "segment")

    assert ("note", "ok") == (found["key"][0], elsewhere["key"][0])
    assert "most projects' keys begin with phc_" in found["key"][1]


@pytest.mark.parametrize(
    ("host", "verdict", "part"),
    [
        ("https://us.i.posthog.com", "ok", "the EU's is https://eu.i.posthog.com"),
        ("https://eu.i.posthog.com", "ok", "the US's is https://us.i.posthog.com"),
        ("https://app.posthog.com", "note", "events go to https://us.i.posthog.com"),
        ("https://eu.posthog.com", "note", "events go to https://eu.i.posthog.com"),
    ],
    ids=["us", "eu", "app", "eu app"],
)
def test_doctor_hints_at_the_region(host: str, verdict: str, part: str) -> None:
    """A host of a cloud's is told with its other region, and an app's with its ingestion's."""
    done = run(
        *["doctor", "--json", "--host", host, "--timeout", "1"],
        https_proxy="http://127.0.0.1:9",  # so that nobody out there is asked
    )
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    found = next(one for one in findings if one["checked"] == "host")

    assert verdict == found["verdict"]
    assert part in found["found"]


def test_doctor_hints_at_a_server_without_v1(
    inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that knows no V1 may know the protocol before it."""
    words = ("--host", f"{inspector.url}/elsewhere", "--dialect", "posthog-v1")
    _, found = examine(capsys, *words)

    assert "WRONG" == found["protocol"][0]


# doctor: a program

SERVICE = """
import logging, os
from posthog_logging import MessageHandler, PostHogHandler
import queue

log = logging.getLogger("analytics")

def configure():
    print("this is no JSON")
    log.setLevel(logging.INFO)
    log.addHandler(PostHogHandler("phc_never_to_be_seen_anywhere", os.environ["HOST"]))
    log.addHandler(PostHogHandler("", os.environ["HOST"], level="ERROR"))
    logging.getLogger("far").addHandler(MessageHandler(queue.Queue()))
    log.info("service started", extra={"distinct_id": "u"})

def fail():
    raise SystemExit("not today")

def needs_a_file():
    open("settings.ini")
"""

CONFIG = {
    "version": 1,
    "handlers": {"posthog": {"class": "posthog_logging.PostHogHandler", "api_key": KEY}},
    "root": {"handlers": ["posthog"], "level": "INFO"},
}


@pytest.fixture
def in_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a program, which is the working directory."""
    (tmp_path / "service.py").write_text(SERVICE, encoding="utf-8")
    (tmp_path / "logging.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (tmp_path / "logging.yaml").write_text(json.dumps(CONFIG), encoding="utf-8")  # JSON is YAML
    (tmp_path / "wrong.json").write_text('{"version": 2}', encoding="utf-8")
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    (tmp_path / "empty.yml").touch()
    (tmp_path / "logging.ini").write_text("[loggers]\nkeys=root\n", encoding="utf-8")
    (tmp_path / "latin.json").write_text('"é"', encoding="latin-1")
    (tmp_path / "broken.yaml").write_text("handlers: [", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(done: Any) -> list[dict[str, Any]]:
    """Return the lines of JSON that a command printed."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_doctor_lists_the_programs_handlers(in_service: Path, inspector: Inspector) -> None:
    """Each handler is told with its logger, where it sends to, and its counts; nothing is sent."""
    done = run("doctor", "--app", "service:configure", "--json", HOST=inspector.url)
    said = printed(done)
    handlers = [one for one in said if one["checked"] == "handler"]

    assert [
        ("analytics", "ok", "posthog", inspector.url, "NOTSET", None, 1),
        ("analytics", "WRONG", "posthog", inspector.url, "ERROR", "no_api_key", 0),
    ] == [
        (
            one["logger"],
            one["verdict"],
            one["dialect"],
            one["host"],
            one["level"],
            one["silent"],
            one["counts"]["accepted"],
        )
        for one in handlers[:2]
    ]
    assert ["note"] == [one["verdict"] for one in handlers[2:]]
    assert 1 == sum(one["checked"] == "connection" for one in said)
    assert (1, []) == (done.returncode, [*inspector.events, *inspector.bad])
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("extra", "status", "why"),
    [('{"distinct_id": "u"}', 0, ""), ("{}", 1, "not_opted_in")],
    ids=["an event", "none"],
)
def test_doctor_explains(
    extra: str, status: int, why: str, in_service: Path, inspector: Inspector
) -> None:
    """The question is answered, for programs and by the status; nothing is sent, nor checked."""
    words = ("doctor", "--app", "service:configure", "--explain", "analytics", "--extra", extra)
    done = run(*words, "--message", "paid", "--json", HOST=inspector.url)
    *handlers, said = printed(done)

    assert (status, []) == (done.returncode, inspector.requests)
    assert ["handler"] * 3 == [one["checked"] for one in handlers]
    assert [why, "level"] == [one["why"] for one in said["handlers"]]
    assert (status == 0) == said["event"]


def test_doctor_explains_to_people(in_service: Path, inspector: Inspector) -> None:
    """People get sentences, without a control character of the message's."""
    words = ("--extra", '{"distinct_id": "u"}', "--message", "pa\x1b[2Jid", "--level", "error")
    done = run(
        "doctor",
        "--app",
        "service:configure",
        "--explain",
        "analytics",
        *words,
        HOST=inspector.url,
    )

    assert 0 == done.returncode
    assert "A call at ERROR on the logger analytics is an event.\n" in done.stdout
    assert "the handler has no key to send with\n" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("name", ["logging.json", "logging.yaml"])
def test_doctor_reads_a_configuration(name: str, in_service: Path, inspector: Inspector) -> None:
    """A file for dictConfig does in the place of a module."""
    words = ("doctor", "--config", name, "--explain", "films", "--extra", '{"event": "paid"}')
    done = run(*words, "--json", POSTHOG_HOST=inspector.url)
    handler, said = printed(done)

    assert (0, []) == (done.returncode, inspector.requests)
    assert ("root", inspector.url, True) == (handler["logger"], handler["host"], said["event"])


def test_doctor_finds_no_handler(in_service: Path) -> None:
    """A program whose loggers carry none of ours is told so."""
    done = run("doctor", "--app", "service", "--json")

    assert (1, "handlers") == (done.returncode, printed(done)[1]["checked"])


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--app", "no_such_module"], "No module named 'no_such_module'"),
        (["--app", "service:nothing"], "no attribute 'nothing'"),
        (["--app", "service:fail"], "SystemExit: not today). Put what it does under"),
        (["--app", "service:needs_a_file"], "or directory: 'settings.ini'"),
        (["--config", "nowhere.json"], "nowhere.json: there is no such file in /"),
        (["--config", "wrong.json"], "Unsupported version: 2"),
        (["--config", "list.json"], "list.json: must hold one mapping for dictConfig, not a list"),
        (["--config", "empty.yml"], "empty.yml: must hold one mapping for dictConfig"),
        (["--config", "logging.ini"], "logging.ini is not JSON: Expecting value: line 1"),
        (["--config", "logging.ini"], "--config takes JSON, or YAML in a file that ends with"),
        (["--config", "latin.json"], "latin.json is not JSON: 'utf-8' codec"),
        (["--config", "broken.yaml"], "broken.yaml is not YAML: while parsing"),
        (["--app", "./service.py"], "--app: './service.py' does not begin with the dotted name"),
        (["--app", "."], "--app: '.' does not begin with the dotted name of a module"),
        (["--app", ""], "--app: '' does not begin with the dotted name of a module"),
        (["--app", ":configure"], "--app: ':configure' does not begin with"),
        (["--explain", "films"], "--explain needs a program"),
        (["--app", "service", "--host", "https://h"], "the program has its own"),
        (
            ["--app", "service", "--explain", "x", "--extra", "[]"],
            "--extra: must be a JSON object",
        ),
        (
            ["--app", "service", "--explain", "x", "--extra", "{"],
            "--extra: must be a JSON object",
        ),
        (["--app", "service", "--explain", "x", "--level", "LOUD"], "'LOUD' is not a level"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_doctor_of_a_wrong_program(words: list[str], part: str, in_service: Path) -> None:
    """What cannot be loaded, or asked, is wrong usage, told in one sentence."""
    done = run("doctor", *words)

    assert (2, "", 1) == (done.returncode, done.stdout, len(done.stderr.splitlines()))
    assert part in done.stderr


# spool

CRASH = """
import logging, os
from posthog_logging import PostHogHandler
log = logging.getLogger("app")
log.addHandler(PostHogHandler(spool=os.environ["SPOOL"]))
for n in range(3):
    log.warning("before the crash", extra={"distinct_id": "u", "n": n})
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def crashed(tmp_path: Path, inspector: Inspector) -> Path:
    """The spool of a program that was killed before anything was sent."""
    inspector.answer_always = Answer(status=503)
    program = (sys.executable, "-c", CRASH)
    folder = tmp_path / "spool"
    run(program=program, SPOOL=str(folder), POSTHOG_HOST=inspector.url, POSTHOG_API_KEY=KEY)
    inspector.answer_always = None
    return folder


def test_spool_show(crashed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What waits is shown, for people and for programs, and goes on waiting."""
    statuses = [main(["spool", "show", str(crashed)]) for _ in range(2)]
    shown = capsys.readouterr().out
    main(["spool", "show", str(crashed), "--json"])
    said = json.loads(capsys.readouterr().out)

    assert ([0, 0], 2) == (statuses, shown.count("3 events wait."))
    assert (3, False) == (said["events"], said["in_use"])


def test_spool_drain(
    crashed: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a dead program left is delivered to where it was meant to go, once."""
    statuses = [main(["spool", "drain", str(crashed), "--api-key", KEY]) for _ in range(2)]

    assert [0, 0] == statuses
    assert [0, 1, 2] == [event.properties["n"] for event in inspector.events]
    assert "Nothing waits" in capsys.readouterr().out


def test_spool_drain_in_an_outage(
    crashed: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be delivered stays: status 1, and nothing is lost."""
    inspector.answer_always = Answer(status=503)
    words = ["spool", "drain", str(crashed), "--api-key", KEY]

    failed = main([*words, "--timeout", "0.5"])
    inspector.answer_always = None
    delivered = main(words)

    assert (1, 0, 3) == (failed, delivered, len(inspector.events))


def orphans(folder: Path, count: int, host: str, dialect: str = "posthog") -> None:
    """Leave *count* segments with an event each, as programs do that were killed."""
    from posthog_logging.delivery.journal import JournalSpool

    model = folder.parent / "model"
    spool = JournalSpool(model, dialect=dialect, host=host)
    event = {"event": "x", "distinct_id": "u", "timestamp": "2024-01-02T03:04:05.678Z"}
    name = "01900000-0000-7000-8000-000000000000"
    line = json.dumps({"uuid": name, **event, "properties": {}}, separators=(",", ":"))
    spool.admit(line.encode())
    spool.close()
    (path,) = model.iterdir()
    content = path.read_bytes()
    path.unlink()
    folder.mkdir(exist_ok=True)
    for number in range(count):
        mine = content.replace(name.encode(), f"{name[:-6]}{number:06d}".encode())
        (folder / f"{len(dialect)}-{hash(host) & 0xFFFF:x}{number:04x}-1.ndjson").write_bytes(mine)


def test_spool_drain_until_empty(
    tmp_path: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many files there are, one drain delivers them all."""
    folder = tmp_path / "spool"
    orphans(folder, 300, inspector.url)

    assert 0 == main(["spool", "drain", str(folder), "--api-key", KEY])
    assert 300 == len({event.uuid for event in inspector.events}) == len(inspector.events)
    assert [] == list(folder.iterdir())
    assert "Nothing waits any more." in capsys.readouterr().out


def test_spool_drain_skips_and_reports(
    tmp_path: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that cannot be delivered hinder no other: they are named, and the status is 1."""
    folder = tmp_path / "spool"
    orphans(folder, 3, inspector.url)
    orphans(folder, 2, inspector.url, dialect="home-made")
    orphans(folder, 1, "no address")

    assert 1 == main(["spool", "drain", str(folder), "--api-key", KEY])
    assert 3 == len(inspector.events)
    shown = capsys.readouterr().out
    assert f"home-made to {inspector.url}: skipped, dialect:" in shown
    assert "posthog to no address: skipped, host:" in shown
    assert "3 events still waiting." in shown


def test_spool_names_what_it_cannot_read(
    tmp_path: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """No verb passes over a file that may hold events: what names no address can be imported."""
    folder = tmp_path / "spool"
    orphans(folder, 2, inspector.url)
    damaged, nameless = sorted(folder.iterdir())
    damaged.write_bytes(damaged.read_bytes().replace(b":1,", b":3,", 1))
    nameless.write_bytes(bytes(50) + nameless.read_bytes()[50:])

    with nameless.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as a program does that still delivers it
        assert 0 == main(["spool", "show", str(folder)])
        assert str(nameless) not in capsys.readouterr().out
    verbs = [*_VERBS, "drain"]
    statuses = [main(["spool", verb, str(folder), "--api-key", KEY]) for verb in verbs]
    shown = capsys.readouterr().out

    assert [0, 1, 1, 1] == statuses
    assert "1 event waits." in shown
    assert "damaged in its first line: no event is lost, all wait" in shown
    told = f"{nameless.name}: unreadable: its first line is damaged, or somebody else's. To do: "
    assert 3 == shown.count(f"{told}`posthog-logging import {nameless}`")
    assert 2 == shown.count("Nothing else waits.")
    assert 1 == len(inspector.events)


HIDDEN = """
import os, sys
from posthog_logging.cli import main
from posthog_logging.delivery.journal import JournalSpool
verbs = ["show", "check", "drain"]
for verb in verbs:  # imports what they need
    main(["spool", verb, sys.argv[1]])
if os.getuid() == 0:  # root reads everything
    os.setgid(65534)
    os.setuid(65534)
folder = sys.argv[1] + "/spool"
journal = JournalSpool(folder, dialect="posthog", host="http://x")
journal.admit(b"{}")
journal.close()
(name,) = os.listdir(folder)
os.chmod(folder + "/" + name, 0)
first = [main(["spool", verb, folder]) for verb in verbs]
os.chmod(folder, 0)
print(first, [main(["spool", verb, folder]) for verb in verbs])
os.chmod(folder, 0o700)
"""


def test_spool_that_one_may_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is hidden from the user is no empty spool: every verb says so."""
    for name in [name for name in os.environ if name.startswith("COVERAGE")]:
        monkeypatch.delenv(name)  # nobody may write its file either
    with tempfile.TemporaryDirectory() as folder:  # below `tmp_path`, nobody else may look
        Path(folder).chmod(0o777)
        done = run(folder, program=(sys.executable, "-c", HIDDEN))

    assert [f"posthog-logging spool: {folder}/spool: Permission denied"] * 3 == (
        done.stderr.splitlines()
    )
    assert 3 == done.stdout.count("cannot be opened (Permission denied)")
    assert "[0, 1, 1] [2, 2, 2]" == done.stdout.splitlines()[-1]


def test_spool_drain_of_nothing_needs_no_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing waits there is nothing to send with."""
    assert 0 == main(["spool", "drain", str(tmp_path), "--api-key", ""])
    assert "Nothing to deliver" in capsys.readouterr().out


def test_spool_drain_to_another_host(tmp_path: Path, inspector: Inspector) -> None:
    """With ``--host`` events go there, whatever address they were meant for."""
    folder = tmp_path / "spool"
    orphans(folder, 5, "http://old.invalid")
    orphans(folder, 5, "https://older.invalid/ingest")
    orphans(folder, 2, "no address")

    words = ["spool", "drain", str(folder), "--api-key", KEY, "--host", inspector.url]

    assert 0 == main(words)
    assert 5 == len({event.uuid for event in inspector.events})  # they have the same five
    assert [] == list(folder.iterdir())


def test_spool_check(
    tmp_path: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every file is named with what it is; damage is status 1."""
    folder = tmp_path / "spool"
    orphans(folder, 2, inspector.url)
    os.mkfifo(folder / "pipe.ndjson")
    (folder / "notes.txt").write_text("mine")
    (folder / "1-1-1.new").write_text("")
    before = sorted(folder.iterdir())

    well = main(["spool", "check", str(folder)])
    shown = capsys.readouterr().out
    first = next(path for path in before if path.stat().st_size > 50)
    first.write_bytes(first.read_bytes().replace(b'"event"', b"\0" * 7))
    (folder / "1-1-2.ndjson").write_bytes(b"\0" * 100)
    (folder / "1-1-3.damaged").write_bytes(b"")
    damaged = main(["spool", "check", str(folder)])
    wrong = [row for row in capsys.readouterr().out.split("\n") if row.startswith("WRONG")]
    main(["spool", "check", str(folder), "--json"])
    told = [json.loads(row) for row in capsys.readouterr().out.split("\n") if row]

    assert (0, 1) == (well, damaged)
    assert "5 files, 0 with damage." in shown
    assert [2, 2] == [shown.count("waits"), shown.count("not ours, left alone")]
    assert ["unreadable", "kept aside", "damaged"] == [row.split()[3].strip(":,") if row.split()[3]
        != "kept" else "kept aside" for row in wrong]  # fmt: skip
    assert 3 == sum(one["is_wrong"] for one in told)


def test_spool_does_not_wait_for_a_pipe(
    tmp_path: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe or a folder with a segment's name is passed over by every verb."""
    folder = tmp_path / "spool"
    orphans(folder, 1, inspector.url)
    os.mkfifo(folder / "1-1-1.ndjson")
    os.mkfifo(folder / "events.ndjson")
    (folder / "1-1-2.ndjson").mkdir()

    statuses = [main(["spool", verb, str(folder), "--api-key", KEY]) for verb in _VERBS]

    assert [0, 1, 0] == statuses
    assert 1 == len(inspector.events)


_VERBS = ("show", "check", "drain")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "show, check or"),
        (["empty", "."], "show, check or"),
        (["show", "/nowhere"], "no such"),
    ],
    ids=["nothing", "verb", "folder"],
)
def test_spool_wrong_usage(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A verb and a folder are needed."""
    assert 2 == main(["spool", *words])
    assert part in capsys.readouterr().err


# output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("movie played", "movie played"),
        ("八月 🎬", "八月 🎬"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud83c", "\\ud83c"),
    ],
    ids=["plain", "wide", "escape", "lines", "right to left", "surrogate"],
)
def test_harmless(text: str, expected: str) -> None:
    """No text from outside moves a cursor, clears a screen or begins a line."""
    assert expected == harmless(text)


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, ""),
        ({"a": "x y", "b": None, "$lib": "l"}, "a=x y b=null"),
        ({"$set": {"a": "é"}, "distinct_id": "u"}, '$set={"a": "é"}'),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "a=1 b=2 c=3 …"),
    ],
    ids=["none", "own", "person", "many"],
)
def test_brief(properties: dict[str, Any], expected: str) -> None:
    """A few of the caller's properties stand for all of them."""
    assert expected == brief(properties)


def test_plain_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are aligned by what a terminal shows, not by characters; markup is text."""
    Output().table(("a", "b"), [("八月", "[bold]x"), ("e\u0301", "y"), ("long " * 20, "z")])
    lines = capsys.readouterr().out.splitlines()

    assert "八月" + " " * 58 + "[bold]x" == lines[1]
    assert "e\u0301" + " " * 61 + "y" == lines[2]
    assert lines[3].endswith("…  z")


@pytest.mark.parametrize("columns", ["0", "1", "10", "40"])
def test_narrow_terminal(columns: str) -> None:
    """A terminal of any width gets its table, cut where it ends."""
    shown = on_a_terminal(WITHOUT_RICH, "demo", COLUMNS=columns)
    table = shown.partition("\r\n\r\n")[2].partition("\r\n\r\n")[0]
    widths = {len(line) for line in table.split("\r\n")}

    assert "Everything that was logged arrived" in shown
    assert max(widths) <= (int(columns) or 80)


def test_json_is_all(capsys: pytest.CaptureFixture[str]) -> None:
    """With JSON asked for, sentences and tables are silent; without, JSON is."""
    for as_json in (True, False):
        output = Output(as_json)
        output.say("words")
        output.table(("a",), [("b",)])
        output.give({"half": "\ud83c", "nan": float("nan")})

    assert '{"half": "\ufffd", "nan": null}\nwords\na\nb\n' == capsys.readouterr().out


# docs


def test_docs_lists_the_guides(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a topic every guide is listed with its first sentence."""
    assert 0 == main(["docs"])
    shown = capsys.readouterr().out

    for topic, text in guides().items():
        assert f"\n{topic} " in shown
        assert text.startswith("# ")


def test_docs_shows_a_guide(capsys: pytest.CaptureFixture[str]) -> None:
    """With a topic its text is shown, word for word where this is no terminal."""
    assert 0 == main(["docs", "delivery"])
    assert f"{guides()['delivery'].strip()}\n" == capsys.readouterr().out

    assert 0 == main(["docs", "--json", "delivery"])
    said = json.loads(capsys.readouterr().out)
    assert ("delivery", guides()["delivery"]) == (said["topic"], said["text"])


def test_docs_on_a_terminal() -> None:
    """On a terminal without colours there is the text of the guide all the same."""
    title = guides()["delivery"].partition("\n")[0].lstrip("# ")

    assert title in on_a_terminal(PROGRAM, "docs", "delivery", NO_COLOR="1")


# serve and tail: what arrives is shown


MIXED = """
import logging
from posthog_logging import PostHogHandler

log = logging.getLogger("films")
log.addHandler(PostHogHandler(exceptions="ERROR", logs="WARNING", level="DEBUG"))
log.setLevel("INFO")
log.info("movie played", extra={"distinct_id": "user-1", "film": "Playtime"})
log.warning("hall %d is cold", 3, extra={"degrees": 14})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("payment failed")
"""


def test_serve_command_shows_events() -> None:
    """Each event is shown as it arrives: an exception with type and message, a log its level."""
    done = run("serve", "--port", "0", "--", sys.executable, "-c", MIXED)
    lines = done.stderr.splitlines()

    assert 0 == done.returncode, done.stderr
    for part in (
        "movie played",
        "film=Playtime",
        "[WARNING] hall 3 is cold",
        "degrees=14",
        "ZeroDivisionError: division by zero",
    ):
        assert any(part in line for line in lines), done.stderr
    assert "code.file.path" not in done.stderr
    assert "No event arrived" not in done.stderr


SECRETS = """
import os, requests

key, write_key = "phc_0123456789abcdefghijklmnopqrstuvwxyz", "Wk3fT9qLx0Zb7sYp2RuV5nCd8"
call = {
    "type": "track",
    "event": f"bought {write_key}",
    "userId": f"of {key}",
    "properties": {"note": f"key={key}", "password": "hunter2", "own": write_key},
}
bad = {**call, "type": f"odd {write_key}"}
body = {"writeKey": write_key, "batch": [call, bad]}
requests.post(os.environ["POSTHOG_HOST"] + "/v1/batch", json=body)
"""


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["people", "json"])
def test_serve_shows_no_keys(form: list[str]) -> None:
    """What serve prints, event by event and in the counts, is masked as the page is."""
    done = run("serve", "--port", "0", *form, "--", sys.executable, "-c", SECRETS)

    assert "bought Wk3f…nCd8" in done.stderr
    assert [] == [
        secret
        for secret in ("0123456789abc", "Wk3fT9qLx0Z", "hunter2")
        if secret in done.stderr + done.stdout
    ]


def test_serve_command_without_events() -> None:
    """Where nothing arrived, it says what to look at."""
    done = run("serve", "--port", "0", "--", sys.executable, "-c", "")

    assert "No event arrived. Look at this, in this order:" in done.stderr
    assert "POSTHOG_DISABLED" in done.stderr
    assert "posthog-logging docs troubleshooting" in done.stderr


def test_serve_command_keeps_the_inspector() -> None:
    """With --keep the inspector outlives the program, whose status is the command's."""
    words = ("--port", "0", "--json", "--keep", "--", sys.executable, "-c", "raise SystemExit(7)")
    with running("serve", *words) as process:
        assert process.stderr is not None
        said = json.loads(process.stderr.readline())
        port = int(said["url"].rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), 5).close()
        process.send_signal(signal.SIGINT)

        assert (7, 7) == (said["status"], process.wait(20))


def test_serve_command_takes_the_events_from_a_broker() -> None:
    """What would send the program's events elsewhere is taken out of its environment."""
    program = "import os; print(*sorted(n for n in os.environ if n.startswith('POSTHOG_')))"
    elsewhere = {"POSTHOG_BROKER": "redis://127.0.0.1", "POSTHOG_PROJECT_TOKEN": "phc_other"}
    done = run("serve", "--port", "0", "--", sys.executable, "-c", program, **elsewhere)

    assert "POSTHOG_API_KEY POSTHOG_HOST\n" == done.stdout


def test_lines_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of a table that goes on have their columns at one place, until one needs more."""
    output = Output()
    for row in (("1", "a", "x"), ("2", "long name", "y"), ("3", "b", "z")):
        output.line(row)
    first, second, third = capsys.readouterr().out.splitlines()

    assert "1  a  x" == first
    assert second.index("y") == third.index("z")


def test_refused_events_are_shown_as_such() -> None:
    """A refused event has its reason, and the colour of what is wrong."""
    event = {
        "event": "$exception",
        "distinct_id": "u",
        "timestamp": "2024-01-02T03:04:05.678Z",
        "properties": {"$exception_list": [{"type": "KeyError", "value": "'film'"}]},
        "dialect": "posthog",
        "reason": "",
    }

    assert ("03:04:05.678", "$exception", "u", "KeyError: 'film'") == rows.cells(event)
    assert "note" == rows.meaning(event)
    refused = {**event, "reason": "missing_uuid"}
    assert "REFUSED: missing_uuid  KeyError: 'film'" == rows.cells(refused)[3]
    assert "bad" == rows.meaning(refused)
    broken = {**event, "properties": {"$exception_list": "gone"}}
    assert "" == rows.cells(broken)[3]


# doctor: which protocol is spoken

HTML = {"content-type": "text/html; charset=utf-8"}
PAGE = b"<!doctype html><title>Welcome</title>"
V1_OK = Answered(
    400, {"posthog-request-id": "id-1"}, b'{"error":"empty_batch","error_description":"x"}'
)
V1_UNKNOWN_KEY = Answered(401, {}, b'{"error":"invalid_api_token","error_description":"x"}')
V1_STRIPPED = Answered(401, {}, b'{"error":"missing_authorization","error_description":"x"}')
V0_OK = Answered(200, {}, b'{"status":"Ok"}')
V0_EMPTY = Answered(400, {}, b"request holds no event")
NOWHERE = Answered(404)
METHOD = Answered(405)


@pytest.mark.parametrize(
    ("got", "v1", "v0", "verdict", "found", "remedy"),
    [
        (METHOD, V1_OK, V0_EMPTY, "ok", "speaks capture V1", ""),
        (METHOD, Answered(200, {}, b'{"results":{}}'), None, "ok", "speaks capture V1", ""),
        (METHOD, V1_UNKNOWN_KEY, V0_OK, "WRONG", "no project with this key", "US and EU"),
        (METHOD, V1_STRIPPED, V0_OK, "WRONG", "strips the Authorization", "V0 works"),
        (METHOD, V1_STRIPPED, None, "WRONG", "strips the Authorization", "let the proxy pass"),
        (METHOD, V1_OK._replace(status=402), None, "note", "quota", "billing"),
        (METHOD, V1_OK._replace(status=503), None, "note", "in trouble", "events wait"),
        (NOWHERE, NOWHERE, V0_OK, "note", "speaks capture V0", "update the server"),
        (NOWHERE, NOWHERE, V0_EMPTY, "note", "not V1 (HTTP 404)", "posthog"),
        (Answered(200, HTML, PAGE), Answered(403, HTML, PAGE), V0_OK, "note", "V0", "/i/v1/"),
        (NOWHERE, NOWHERE, Answered(401, {}, b"unknown key"), "WRONG", "no project", "US"),
        (NOWHERE, None, V0_OK, "ok", "speaks capture V0", ""),
        (NOWHERE, Answered(401), V0_OK, "WRONG", "may strip the Authorization", "let the proxy"),
        (NOWHERE, NOWHERE, None, "WRONG", "no capture V1", "older server"),
        (NOWHERE, NOWHERE, NOWHERE, "WRONG", "no ingestion endpoint", "dialect"),
        (
            METHOD,
            Answered(200, HTML, PAGE),
            Answered(200, HTML, PAGE),
            "WRONG",
            "web page",
            "host",
        ),
        (
            METHOD,
            Answered(403, HTML, PAGE),
            Answered(403, HTML, PAGE),
            "WRONG",
            "application",
            "host",
        ),
        (METHOD, Answered(200, {}, PAGE), Answered(200, {}, PAGE), "WRONG", "a web page", "host"),
        (
            METHOD,
            Answered(301, {"location": "https://us.i.posthog.com/x"}),
            Answered(301),
            "WRONG",
            "redirects to https://us.i.posthog.com,",
            "as host",
        ),
        (METHOD, Answered(302, {"location": "/login"}), NOWHERE, "WRONG", "to /login, as", "host"),
        (METHOD, Answered(502), Answered(502), "note", "POST only", "events wait"),
        (Answered(404, HTML, PAGE), Answered(501, HTML, PAGE), None, "WRONG", "web page", "host"),
        (NOWHERE, Answered(501), Answered(501), "WRONG", "no ingestion endpoint", "host"),
        (NOWHERE, Answered(502), Answered(502), "note", "in trouble", "events wait"),
        (
            NOWHERE,
            Answered(404, {}, b'{"error":"no such path"}'),
            Answered(404, {}, b'{"error":"no such path"}'),
            "WRONG",
            "no ingestion endpoint",
            "host",
        ),
    ],
)
def test_protocols_are_told_apart(
    got: Answered,
    v1: Answered | None,
    v0: Answered | None,
    verdict: str,
    found: str,
    remedy: str,
) -> None:
    """The answers to an empty batch say which protocol is spoken, and what is in the way."""
    judged = judge_posthog(got, v1, v0, "id-1")

    assert (verdict, True) == (judged.verdict, found in judged.found), judged
    assert (True, bool(remedy)) == (remedy in judged.remedy, bool(judged.remedy)), judged


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answered(405), "ok"),
        (Answered(401), "ok"),
        (Answered(404), "WRONG"),
        (Answered(302), "WRONG"),
        (Answered(503), "note"),
        (Answered(501, HTML, PAGE), "WRONG"),
        (Answered(200, HTML, PAGE), "WRONG"),
        (Answered(200, {"content-type": "text/html"}, b"{}"), "ok"),
    ],
)
def test_other_protocols_are_judged_by_a_get(answer: Answered, verdict: str) -> None:
    """A page of the web is no endpoint, whatever its status; JSON is not a page."""
    assert verdict == judge_get(answer, "segment").verdict


@pytest.mark.parametrize(("status", "part"), [(404, "no ingestion"), (200, "web page")])
def test_doctor_of_a_web_server(
    status: int, part: str, raw_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that answers every path with a page is wrong, and the finding says what to do."""

    def answer(connection: Any, number: int, server: Any) -> None:
        while server.read(connection):
            body = PAGE if status == 200 else b"Not Found"
            head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)

    server = raw_server(answer)
    assert 1 == main(["doctor", "--json", "--host", server.url, "--api-key", KEY])
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    (found,) = (one for one in lines if one["checked"] == "protocol")

    assert ("WRONG", True) == (found["verdict"], part in found["found"])
    assert found["remedy"]


def _drip(connection: Any, number: int, server: Any) -> None:
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nxxxxxxxxx":
            connection.sendall(bytes([byte]))
            server.stopping.wait(0.1)


def _greet(connection: Any, number: int, server: Any) -> None:
    connection.recv(65536)
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize(
    ("answer", "scheme", "found", "remedy"),
    [
        (_drip, "http", "no answer within 1 s", "--timeout"),
        (_greet, "http", "does not speak HTTP", "check the port"),
        (_greet, "https", "does not speak TLS", "begin the host with http://"),
        (lambda *given: None, "http", "closes the connection", "check that the port"),
    ],
    ids=["drips", "other protocol", "no TLS", "hangs up"],
)
def test_doctor_says_why_no_answer_comes(
    answer: Any,
    scheme: str,
    found: str,
    remedy: str,
    raw_server: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What answers no HTTP is one finding, within the limit, with what to do about it."""
    host = raw_server(answer).url.replace("http", scheme, 1)
    begun = time.monotonic()
    status = main(["doctor", "--json", "--host", host, "--api-key", KEY, "--timeout", "1"])
    took = time.monotonic() - begun
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    (wrong,) = (one for one in lines if one["verdict"] != "ok")

    assert (1, "connection") == (status, wrong["checked"])
    assert (True, True) == (found in wrong["found"], remedy in wrong["remedy"]), wrong
    assert took < 5.0


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("path", ["/nowhere.pem", __file__], ids=["missing", "no bundle"])
def test_doctor_names_a_wrong_bundle(
    variable: str,
    path: str,
    raw_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No server is to blame for a bundle that is not there, or is none."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, path)
    host = raw_server(_greet).url.replace("http", "https", 1)
    main(["doctor", "--json", "--host", host, "--api-key", KEY, "--timeout", "1"])
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    (wrong,) = (one for one in lines if one["verdict"] != "ok")

    assert f"{variable} names no bundle of certificates" in wrong["found"]
    assert f"correct {variable}, or unset it" == wrong["remedy"]


def test_doctor_goes_where_a_handler_goes(capsys: pytest.CaptureFixture[str]) -> None:
    """A redirect that a handler follows is nothing wrong: a proxy that moves a slash."""
    with Inspector(play="next-proxy") as inspector:
        status, found = examine(capsys, "--host", inspector.url, "--api-key", KEY)

    assert (0, "note") == (status, found["protocol"][0])
    assert "speaks capture V0" in found["protocol"][1]


def test_doctor_stops_where_there_is_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Without an address nothing else is looked at: it is one finding."""
    words = ("--host", "http://posthog.invalid", "--api-key", KEY)
    status, found = examine(capsys, *words)

    assert 1 == status
    assert ["name"] == [key for key, (verdict, _) in found.items() if verdict == "WRONG"]
    assert "connection" not in found


def test_doctor_advises_people(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not well has a line below it that says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert 1 == main(["doctor", "--host", url, "--api-key", ""])
    shown = capsys.readouterr().out

    assert "To do: set POSTHOG_API_KEY" in shown
    assert "To do: start the server, or correct the host and port" in shown


def test_doctor_checks_a_host_in_the_environment() -> None:
    """A wrong ``POSTHOG_HOST`` is a finding beside the others: it is what doctor is asked for."""
    done = run("doctor", "--json", POSTHOG_HOST="localhost", POSTHOG_API_KEY=KEY)
    found = {one["checked"]: one for one in printed(done)}

    assert (1, ["installed", "key", "host"]) == (done.returncode, [*found])
    assert ("ok", "WRONG") == (found["key"]["verdict"], found["host"]["verdict"])
    assert "host (from POSTHOG_HOST): must be a URL" in found["host"]["found"]
    assert "set POSTHOG_HOST to the server's URL" == found["host"]["remedy"]


def test_doctor_names_the_source_of_the_key(inspector: Inspector) -> None:
    """PostHog's newer name for the key wins over the older one, and the finding says so."""
    both = {"POSTHOG_PROJECT_TOKEN": KEY, "POSTHOG_API_KEY": "phc_older"}
    done = run("doctor", "--json", "--host", inspector.url, **both)
    found = next(one for one in printed(done) if one["checked"] == "key")

    assert ("ok", True) == (found["verdict"], "from POSTHOG_PROJECT_TOKEN" in found["found"])
