"""The first hour of a newcomer: what they get wrong is answered in words that help."""

from __future__ import annotations

import inspect
import logging
import logging.handlers
import queue
import re
import sys

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import posthog_logging

from posthog_logging import Analytics, Listener, PostHogHandler, event
from posthog_logging.cli import main, rows
from posthog_logging.cli.docs import guides
from posthog_logging.cli.output import brief
from posthog_logging.events.message import Message
from posthog_logging.explain import explain
from posthog_logging.handler import observe
from posthog_logging.inspector import Inspector


KEY = "phc_test"

SILENT = """
import logging
from posthog_logging import PostHogHandler

log = logging.getLogger("films")
log.addHandler(PostHogHandler())
log.warning("movie played", extra={"distinct_id": "user-1"})
"""


@contextmanager
def offline() -> Iterator[Analytics]:
    """An `Analytics` that sends nothing and leaves nothing behind."""
    analytics = Analytics(KEY, "http://127.0.0.1:9", send=False)
    yield analytics
    analytics.close()


@pytest.mark.parametrize(
    ("args", "more", "reason"),
    [
        (("movie played",), {"distinct_id": "user-1"}, "bad_arguments"),
        (("movie played",), {}, "no_event_name"),
    ],
    ids=["with an id", "without one"],
)
def test_the_order_of_posthog_6(
    args: tuple[Any, ...], more: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A call in the order of posthog 6 to 8 is refused, and the warning shows both orders."""
    with offline() as analytics, caplog.at_level(logging.WARNING, "posthog_logging"):
        assert None is analytics.capture(*args, **more)

    assert f"({reason})" in caplog.text
    assert "Analytics.capture takes (distinct_id, event, …)" in caplog.text
    assert "posthog 6 to 8 take (event, distinct_id=…)" in caplog.text
    assert "posthog-logging docs migrate" in caplog.text


def test_the_order_of_other_calls(caplog: pytest.LogCaptureFixture) -> None:
    """The warning about wrong arguments has the call's first ones, and no value."""
    with offline() as analytics, caplog.at_level(logging.WARNING, "posthog_logging"):
        analytics.page("user-1", "docs", "Python", secret="hunter2", user_id="user-2")

    assert "Analytics.page takes (user_id, category, …)" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_id_that_names_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The warning shows the id, which is one of a short list and nobody's."""
    with offline() as analytics, caplog.at_level(logging.WARNING, "posthog_logging"):
        analytics.capture("undefined", "movie played")

    assert "distinct_id: 'undefined' names nobody" in caplog.text


def test_docs_of_an_unknown_topic(capsys: pytest.CaptureFixture[str]) -> None:
    """The guides are listed one a line with what each is about; the nearest is proposed."""
    assert 2 == main(["docs", "delivry"])
    first, *lines = capsys.readouterr().err.splitlines()

    assert first == (
        "posthog-logging docs: there is no guide 'delivry'. Did you mean delivery? The guides are:"
    )
    assert [*guides()] == [line.split()[0] for line in lines]
    assert any(line.startswith("  delivery             From the log call") for line in lines)


def test_import_twice(
    tmp_path: Path, inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run says that the events were already imported, and sends none."""
    file = tmp_path / "old.ndjson"
    file.write_text('{"event": "a", "distinct_id": "u"}\n')
    words = ["import", str(file), "--host", inspector.url, "--api-key", KEY]

    assert 0 == main(words)
    assert "was already imported" not in capsys.readouterr().out
    assert 0 == main(words)
    shown = capsys.readouterr().out
    with file.open("a") as stream:
        stream.write('{"event": "b", "distinct_id": "u"}\n')
    assert 0 == main(words)
    third = capsys.readouterr().out

    assert f"{file} was already imported; nothing was sent." in shown
    assert ["file", "lines", "already", "imported", "imported"] == shown.split()[:5]
    assert ["old.ndjson", "2", "1", "1", "0", "0", "0"] == third.splitlines()[1].split()
    assert "was already imported" not in third
    assert ["a", "b"] == [event.event for event in inspector.events]


def test_serve_with_everything_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where POSTHOG_DISABLED is set serve says so, before anybody looks for the reason."""
    program = tmp_path / "service.py"
    program.write_text(SILENT)
    monkeypatch.setenv("POSTHOG_DISABLED", "1")

    assert 0 == main(["serve", "--port", "0", "--", sys.executable, str(program)])
    shown = capfd.readouterr().err

    assert "POSTHOG_DISABLED is set, so the program sends nothing: unset it first." in shown
    assert "kill -9" in shown


def test_send_reports_a_loss_once(
    inspector: Inspector, capsys: pytest.CaptureFixture[str]
) -> None:
    """What became of the event is one sentence, with what to do on the command line."""
    words = ["send", "--kind", "identify", "email=x", "--host", inspector.url, "--api-key", KEY]

    assert 1 == main(words)
    shown = capsys.readouterr()

    assert "" == shown.err
    assert "To do: give --distinct-id." in shown.out


@pytest.mark.parametrize(
    "words",
    [["send", "movie played"], ["import", __file__], ["spool", "drain", "."], ["demo"]],
)
def test_what_is_switched_off_is_not_delivered(
    words: list[str],
    inspector: Inspector,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With POSTHOG_DISABLED a command that delivers ends with wrong usage, and says why."""
    monkeypatch.setenv("POSTHOG_DISABLED", "1")

    where = [] if words == ["demo"] else ["--host", inspector.url, "--api-key", KEY]

    assert 2 == main([*words, *where])
    assert "POSTHOG_DISABLED is set" in capsys.readouterr().err
    assert [] == inspector.events


def test_import_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was not delivered is not called lost: the same command sends it later."""
    file = tmp_path / "old.ndjson"
    file.write_text('{"event": "a", "distinct_id": "u"}\n')
    where = ["--host", "http://127.0.0.1:9", "--api-key", KEY, "--timeout", "0.2"]

    assert 1 == main(["import", str(file), *where])
    shown = capsys.readouterr().err
    assert "the same command goes on where this one ended" in shown
    assert " lost " not in shown


def test_one_event_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A spool with one event speaks of one."""
    analytics = Analytics(KEY, "http://127.0.0.1:9", spool=tmp_path, shutdown_timeout=0.1)
    analytics.capture("user-1", "movie played")
    analytics.close()

    assert 0 == main(["spool", "show", str(tmp_path)])
    assert capsys.readouterr().out.endswith("\n1 event waits.\n")
    assert 0 == main(["spool", "check", str(tmp_path)])
    assert capsys.readouterr().out.endswith("\n1 file, 0 with damage.\n")


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (
            {"$set": {}, "$anon_distinct_id": "visitor-7", "$lib": "x"},
            "$anon_distinct_id=visitor-7",
        ),
        (
            {"$group_type": "company", "$group_key": "acme", "$group_set": {}},
            "$group_type=company $group_key=acme",
        ),
        ({"film": "Up", "$groups": {"company": "acme"}}, '$groups={"company": "acme"} film=Up'),
    ],
    ids=["login", "group", "of a group"],
)
def test_the_row_of_a_login(properties: dict[str, Any], expected: str) -> None:
    """A row shows what an event of PostHog's own is about, and nothing that is empty."""
    assert expected == brief(properties)


def test_the_row_of_a_page() -> None:
    """A page is shown with its address, which other events have as well and do not show."""
    more = {"distinct_id": "user-1", "timestamp": "", "dialect": "posthog", "reason": ""}
    properties = {"$current_url": "https://example.org/", "name": "Docs"}
    page, other = (
        rows.cells({"event": name, "properties": properties, **more})[3]
        for name in ("$pageview", "movie played")
    )

    assert ("https://example.org/ name=Docs", "name=Docs") == (page, other)


WORKER = """
import logging, warnings
warnings.simplefilter("ignore")  # Celery warns of a worker that root runs
from celery import Celery
from posthog_logging import PostHogHandler
from posthog_logging.middleware.celery import connect

app = Celery("films", broker="memory://", set_as_current=True)
handler = PostHogHandler()
connect(handler)
logging.basicConfig(level=logging.INFO, handlers=[handler])
app.Worker(hostname="films@localhost", pool="solo", loglevel="INFO")
print(logging.root.handlers.count(handler))
logging.getLogger("films").info("movie played", extra={"distinct_id": "user-1"})
"""


def test_celery_takes_the_root_logger(inspector: Inspector, run_script: Any) -> None:
    """A worker clears the root logger's handlers; the connected one is back there, once."""
    pytest.importorskip("celery")
    done = run_script(
        WORKER, POSTHOG_API_KEY=KEY, POSTHOG_HOST=inspector.url, NO_PROXY="127.0.0.1"
    )

    assert 0 == done.returncode, done.stderr
    assert "1" == done.stdout.split()[-1]
    assert ["movie played"] == [event.event for event in inspector.events]


def test_what_is_switched_off_is_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With POSTHOG_DISABLED a test sees the events, which go nowhere and are counted nowhere."""
    monkeypatch.setenv("POSTHOG_DISABLED", "1")
    seen: list[Message] = []
    handler = PostHogHandler(KEY, "http://127.0.0.1:9")
    with observe(seen.append):
        handler.accept({"distinct_id": "user-1", "event": "movie played"})
    handler.close()

    assert ["movie played"] == [message.event for message in seen]
    assert {0} == set(handler.counts.values())


@pytest.mark.parametrize("key", [KEY, ""], ids=["with a key", "without one"])
def test_who_opted_out_is_not_observed(key: str) -> None:
    """Where somebody opted out there is nothing to see, with a key and without."""
    seen: list[Message] = []
    handler = PostHogHandler(key, "http://127.0.0.1:9")
    handler.opt_out()
    with observe(seen.append):
        handler.accept({"distinct_id": "user-1", "event": "movie played"})
    handler.close()

    assert [] == seen


@pytest.mark.parametrize("as_extra", [False, True], ids=["as the message", "as an extra"])
def test_a_typed_event_behind_a_queue(as_extra: bool) -> None:
    """A stock QueueHandler makes text of a typed message; an extra arrives as it is."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    seen: list[Message] = []
    fields = {"event": Played("123"), "msg": "played"} if as_extra else {"msg": Played("123")}
    listener = Listener(waiting, PostHogHandler(""))
    with observe(seen.append):
        listener.start()
        record = logging.makeLogRecord({**fields, "distinct_id": "user-1", "levelno": 30})
        logging.handlers.QueueHandler(waiting).handle(record)
        listener.stop()

    assert [as_extra] == [message.properties.get("movie_id") == "123" for message in seen]
    assert [as_extra] == [message.event == "movie played" for message in seen]


@event("movie played")
@dataclass(frozen=True)
class Played:
    """Somebody watched a film."""

    movie_id: str


ODD = re.compile(
    r"None at all|\bleast level|\bno-op\b|\bis none\b|that are (?:of|no)\b|\btold\b|\bsaid\b|"
    r"\bbut for\b|\bSay (?:what|who|that)\b|\bwho it is that\b|\bnobody catches\b"
)


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield what `help` shows of the public names, and of what they have."""
    for name in posthog_logging.__all__:
        public = getattr(posthog_logging, name)
        yield name, public.__doc__ or ""
        for member, value in inspect.getmembers(public):
            ours = str(getattr(value, "__module__", "")).startswith("posthog_logging")
            if ours and callable(value) and not member.startswith("_"):
                yield f"{name}.{member}", value.__doc__ or ""


SHOWN = dict(docstrings())


@pytest.mark.parametrize(("name", "text"), SHOWN.items(), ids=SHOWN)
def test_what_help_shows(name: str, text: str) -> None:
    """Each public name has a docstring, in plain English."""
    assert text.strip()
    assert [] == ODD.findall(text)


@pytest.mark.parametrize(
    "name", ["Analytics", "MessageHandler", "PostHogHandler", "PostHogLogsHandler", "event"]
)
def test_help_has_an_example(name: str) -> None:
    """`help` of what a newcomer calls first shows a call."""
    assert "::\n" in (getattr(posthog_logging, name).__doc__ or "")


def test_explain_what_to_do_about_a_level() -> None:
    """A logger without a level of its own has the root's; the answer is a line to copy."""
    log = logging.getLogger("films.low")
    found = explain("films.low", level="DEBUG", extra={"distinct_id": "user-1"})

    assert found.stopped.endswith("To do: logging.getLogger('films.low').setLevel('DEBUG')")
    log.setLevel("DEBUG")
    try:
        assert "" == explain("films.low", level="DEBUG").stopped
    finally:
        log.setLevel(logging.NOTSET)


def test_explain_what_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """POSTHOG_DISABLED is named, with what to do about it."""
    monkeypatch.setenv("POSTHOG_DISABLED", "1")
    log = logging.getLogger("films.off")
    handler = PostHogHandler(KEY, "http://127.0.0.1:9")
    log.addHandler(handler)
    try:
        lines = explain(log, level="ERROR", extra={"distinct_id": "user-1"}).lines()
    finally:
        log.removeHandler(handler)
        handler.close()

    assert "  POSTHOG_DISABLED switches off every handler of the process" in lines
    assert "  To do: unset POSTHOG_DISABLED." in lines
