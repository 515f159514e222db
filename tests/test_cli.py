"""The command line: what commands print, how they end, and what they never show."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import posthog_logging

from posthog_logging.cli import _COMMANDS, main
from posthog_logging.commands.output import Output, brief, harmless
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
        (["demo", "--dialect", "esperanto"], "invalid choice: 'esperanto'"),
        (["send"], "which event?"),
        (["send", "x", "--api-key", KEY, "novalue"], "key=value, not 'novalue'"),
        (["send", "x", "--api-key", KEY, "=1"], "key=value, not '=1'"),
        (["send", "x", "--api-key", KEY, "--timestamp", "soon"], "not 'soon'"),
        (["send", "x", "--api-key", KEY, "--timeout", "nan"], "number of seconds"),
        (["send", "x", "--api-key", KEY, "--host", "ftp://h"], "host: a URL"),
        (["send", "x", "--api-key", "phx_personal"], "personal key"),
        (["send", "x", "--api-key", ""], "no key"),
        (["send", "--kind", "group", "acme"], "TYPE:KEY"),
        (["send", "--kind", "alias"], "previous id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage ends with status 2 and one sentence that says what is wrong, never the key."""
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
        (WITHOUT_RICH, {}, False),
    ],
    ids=["rich", "NO_COLOR", "without rich"],
)
def test_demo_on_a_terminal(program: Sequence[str], more: dict[str, str], colours: bool) -> None:
    """On a terminal ``rich`` draws the table if it is there; NO_COLOR holds."""
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


@pytest.mark.parametrize("command", ["serve", "demo"])
def test_port_in_use(
    command: str, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that somebody else has is told in one sentence, with status 2."""
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
        (Answer(status=403), "rejected", 403),
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
    """What the server refuses is lost: status 1, the reason, and the HTTP status beside it."""
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
    assert "lost: shutdown" in shown.out
    assert "ConnectionRefusedError" in shown.err


def test_send_refused_here(inspector: Inspector, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no event at all never leaves, and says what it lacks."""
    status = send(inspector, "--kind", "identify", "a=1")

    assert (1, []) == (status, inspector.requests)
    assert (
        "lost: no_distinct_id, this kind of event needs --distinct-id" in capsys.readouterr().out
    )


def test_send_key_from_environment(inspector: Inspector) -> None:
    """The key and the host may come from the environment."""
    done = run("send", "a", POSTHOG_HOST=inspector.url, POSTHOG_API_KEY=KEY)

    assert (0, "") == (done.returncode, done.stderr)
    assert KEY not in done.stdout
    assert KEY == inspector.requests[0].payload["api_key"]


def test_send_interrupted(inspector: Inspector) -> None:
    """Ctrl-C ends a command with status 130 and without a traceback."""
    inspector.answer_always = Answer(delay=30.0)
    with running("send", "a", "--api-key", KEY, "--host", inspector.url) as process:
        assert process.stderr is not None
        wait_for_request(inspector)
        process.send_signal(signal.SIGINT)

        assert 130 == process.wait(20)
        assert "Traceback" not in process.stderr.read()


def wait_for_request(inspector: Inspector) -> None:
    """Return once a request has come: a late answer has its event stored first."""
    assert [] != inspector.wait(timeout=20)


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
