"""Others configure logging, drop handlers, freeze clocks and end processes: nothing is lost."""

from __future__ import annotations

import datetime as dt
import gc
import logging
import logging.config
import socket
import sys
import textwrap
import threading
import time
import weakref

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from posthog_logging import PostHogHandler, context
from posthog_logging.events.identifiers import stamp


NAME = "reconfigured"
KEEPING: dict[str, Any] = {"version": 1, "disable_existing_loggers": False}


@pytest.fixture
def log(make_handler: Any) -> Iterator[logging.Logger]:
    """A logger with a handler of ours, on a tree that is put back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    own = logging.getLogger(NAME)
    own.setLevel(logging.INFO)
    own.addHandler(make_handler())
    yield own
    own.handlers.clear()
    for other in root.manager.loggerDict.values():
        if isinstance(other, logging.Logger):
            other.disabled = False
    root.handlers[:], root.level = before


def arrived(inspector: Any) -> list[Any]:
    """Return the messages that came."""
    return list(inspector.events)


def file_config(folder: Path) -> None:
    sections = ("loggers", "keys=root"), ("handlers", "keys="), ("formatters", "keys=")
    text = "".join(f"[{name}]\n{line}\n" for name, line in sections)
    path = folder / "logging.ini"
    path.write_text(f"{text}[logger_root]\nhandlers=\n")
    logging.config.fileConfig(path, disable_existing_loggers=False)


RECONFIGURATIONS: dict[str, Callable[[Path], object]] = {
    "dictConfig": lambda folder: logging.config.dictConfig(KEEPING),
    "dictConfig, incremental": lambda folder: logging.config.dictConfig(
        {"version": 1, "incremental": True}
    ),
    "fileConfig": file_config,
    "basicConfig(force=True)": lambda folder: logging.basicConfig(force=True),
    "logging.shutdown": lambda folder: logging.shutdown(),
    "close of every handler": lambda folder: [
        handler.close() for handler in logging.getLogger(NAME).handlers
    ],
}


@pytest.mark.parametrize("reconfigure", RECONFIGURATIONS.values(), ids=RECONFIGURATIONS)
def test_a_handler_that_others_close_goes_on(
    reconfigure: Any, log: logging.Logger, inspector: Any, tmp_path: Path
) -> None:
    """Whoever closes a handler that stays attached: what is logged before and after arrives."""
    (handler,) = log.handlers
    for number in range(20):
        log.info("before", extra={"distinct_id": "u", "number": number})
        reconfigure(tmp_path)
        log.info("after", extra={"distinct_id": "u", "number": number})

    assert handler.flush(10)  # type: ignore[call-arg]
    assert 40 == len(arrived(inspector))
    assert 40 == handler.counts["delivered"] == handler.counts["accepted"]  # type: ignore[attr-defined]


def test_reconfigured_under_load(log: logging.Logger, inspector: Any) -> None:
    """Four threads that log while a fifth configures: each event arrives, once."""
    (handler,) = log.handlers
    done = threading.Event()

    def configure() -> None:
        while not done.is_set():
            logging.config.dictConfig(KEEPING)

    def write(name: int) -> None:
        for number in range(300):
            log.info("e", extra={"distinct_id": f"u{name}", "number": number})

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    other = threading.Thread(target=configure)
    other.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    other.join()

    assert handler.flush(20)  # type: ignore[call-arg]
    assert 1200 == len({one.uuid for one in arrived(inspector)}) == len(arrived(inspector))
    assert 1200 == handler.counts["delivered"]  # type: ignore[attr-defined]


def test_a_factory_that_returns_one_handler_twice(make_handler: Any, inspector: Any) -> None:
    """`dictConfig` twice with a factory that hands out the same handler: it goes on."""
    handler = make_handler()
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"analytics": {"()": lambda: handler}},
        "loggers": {NAME: {"level": "INFO", "handlers": ["analytics"]}},
    }
    own = logging.getLogger(NAME)
    try:
        for _ in range(3):
            logging.config.dictConfig(config)
            own.info("e", extra={"distinct_id": "u"})
        assert handler.flush(10)
    finally:
        own.handlers.clear()

    assert 3 == len(arrived(inspector))


def test_a_logger_that_others_switch_off_still_warns(log: logging.Logger, capfd: Any) -> None:
    """`disable_existing_loggers` is left at its default: losses are told all the same."""
    seen: list[str] = []

    class Show(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    logging.config.dictConfig({"version": 1})
    logging.getLogger().addHandler(Show())
    handler = PostHogHandler("phc_x", "http://127.0.0.1:9", before_send=lambda event: {})
    handler.accept({"event": "e", "distinct_id": "u"})

    assert any("before_send_failed" in text for text in seen)


def test_a_handler_that_nobody_holds_ends(make_handler: Any, inspector: Any) -> None:
    """Its last reference goes: it delivers, and its thread, files and connections go, too."""
    own = logging.getLogger("unheld")
    others = set(threading.enumerate())  # of tests before this one
    for number in range(30):
        handler = PostHogHandler("phc_x", inspector.url, flush_interval=60.0)
        own.addHandler(handler)
        own.warning("e", extra={"distinct_id": "u", "number": number})
        own.removeHandler(handler)
        del handler
    gc.collect()

    assert wait_for(lambda: len(arrived(inspector)) == 30)
    assert wait_for(
        lambda: (
            not [
                one
                for one in threading.enumerate()
                if one.name == "posthog-logging" and one not in others
            ]
        )
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"exceptions": True}, {"exception_hooks": True}, {"logs": True}, {"spool": ""}],
    ids=lambda options: next(iter(options), "plain"),
)
def test_the_last_reference_is_enough(
    options: dict[str, Any], inspector: Any, tmp_path: Any
) -> None:
    """A handler closes when its last reference goes, not when garbage is next collected."""
    options = {name: value if value != "" else tmp_path for name, value in options.items()}
    gc.disable()
    try:
        handler = PostHogHandler("phc_x", inspector.url, flush_interval=60.0, **options)
        handler.accept({"event": "e", "distinct_id": "u"})
        gone = weakref.ref(handler)
        del handler

        assert gone() is None
        assert wait_for(lambda: len(arrived(inspector)) == 1)
    finally:
        gc.enable()


def run(run_script: Any, program: str) -> Any:
    """Run *program*, whose lines may be indented."""
    return run_script(textwrap.dedent(program))


def wait_for(condition: Callable[[], Any]) -> bool:
    deadline = time.monotonic() + 10.0
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.01)
    return True


@pytest.mark.parametrize("end", ["", "logging.shutdown()"])
def test_twenty_handlers_share_one_deadline(end: str, run_script: Any) -> None:
    """At the end of a process whose server never answers, all handlers end within one limit."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        began = time.monotonic()
        done = run(
            run_script,
            f"""
            import logging
            from posthog_logging import PostHogHandler

            for number in range(20):
                log = logging.getLogger(f"l{{number}}")
                log.setLevel("INFO")
                url = "http://127.0.0.1:{silent.getsockname()[1]}"
                log.addHandler(PostHogHandler("phc_x", url, shutdown_timeout=1.5))
                log.info("e", extra={{"distinct_id": "u"}})
            {end}
            """,
        )
        took = time.monotonic() - began

    assert 0 == done.returncode
    assert took < 1.5 + 8.0  # Python's own start and end, on a busy machine; one by one it is 30


@pytest.mark.parametrize("early", [False, True], ids=["first of all", "after others"])
def test_late_events(early: bool, run_script: Any, inspector: Any) -> None:
    """What an ``atexit`` function logs after our own exit is sent in the time that is left."""
    done = run(
        run_script,
        f"""
        import atexit, logging

        log = logging.getLogger("late")

        @atexit.register
        def late():
            log.warning("late", extra={{"distinct_id": "u"}})
            log.warning("later", extra={{"distinct_id": "u"}})

        from posthog_logging import PostHogHandler

        log.addHandler(PostHogHandler("phc_x", "{inspector.url}"))
        if {early}:
            log.warning("early", extra={{"distinct_id": "u"}})
        """,
    )

    assert (0, "") == (done.returncode, done.stderr)
    expected = {"early", "late", "later"} if early else {"late", "later"}
    assert expected == {one.event for one in arrived(inspector)}


def test_frozen_clocks(make_handler: Any, inspector: Any) -> None:
    """A test's frozen time stops no wait: ``block`` gives up, and events are sent when due."""
    freezegun = pytest.importorskip("freezegun")
    own = logging.getLogger("frozen")
    with freezegun.freeze_time("2024-01-02"):
        full = PostHogHandler(
            "phc_x",
            "http://127.0.0.1:9",
            max_queue_size=1,
            overflow="block",
            block_timeout=0.1,
        )
        handler = make_handler(flush_interval=0.05)
        own.addHandler(full)
        for _ in range(3):
            own.warning("e", extra={"distinct_id": "u"})
        own.removeHandler(full)
        own.addHandler(handler)
        own.warning("e", extra={"distinct_id": "u"})
        own.removeHandler(handler)
        came = wait_outside(lambda: arrived(inspector))
        full.close(0.1)

    assert came
    assert full.counts["queue_full"]


@pytest.mark.parametrize("name", ["time", "gmtime", "strftime", "monotonic"])
def test_mocked_clocks(name: str, make_handler: Any, make_log: Any, inspector: Any) -> None:
    """Where a test puts a mock for a clock, an event is sent nevertheless, with the real time."""
    stamp.reset()  # it knows the present second already
    began = dt.datetime.now(dt.UTC)
    handler = make_handler(flush_interval=60.0)  # the server needs a clock, too
    log = make_log(handler)
    with mock.patch(f"time.{name}"):
        log.info("with properties", extra={"distinct_id": "u", "properties": {"size": 1}})
        log.info("with extras", extra={"distinct_id": "u", "size": 1})
    assert handler.flush(10)

    assert ["with properties", "with extras"] == [one.event for one in arrived(inspector)]
    for one in arrived(inspector):
        when = dt.datetime.fromisoformat(one.timestamp)
        assert began <= when <= dt.datetime.now(dt.UTC)


def wait_outside(condition: Callable[[], Any]) -> bool:
    """Wait without a clock: so many looks."""
    pause = threading.Event()
    return any(condition() or pause.wait(0.01) for _ in range(1000))


def test_a_hook_that_logs_is_called_once(make_handler: Any, inspector: Any) -> None:
    """What ``before_send`` itself logs is an event that does not call it again."""
    own = logging.getLogger("hooked")
    calls = []

    def hook(event: dict[str, Any]) -> dict[str, Any]:
        calls.append(event["event"])
        own.warning("from the hook", extra={"distinct_id": "u"})
        return event

    handler = make_handler(before_send=hook)
    own.addHandler(handler)
    own.warning("outer", extra={"distinct_id": "u"})
    own.removeHandler(handler)
    assert handler.flush(10)

    assert ["outer"] == calls
    assert {"outer", "from the hook"} == {one.event for one in arrived(inspector)}
    assert 2 == handler.counts["accepted"] == handler.counts["delivered"]


def test_a_value_that_logs_itself(make_handler: Any, inspector: Any) -> None:
    """A value whose text logs the value again does not go on for ever: each event ends."""
    own = logging.getLogger("recursive")
    calls = []

    class Loud:
        def __str__(self) -> str:
            calls.append(1)
            own.warning("inner", extra={"distinct_id": "u", "properties": {"value": self}})
            return "loud"

    handler = make_handler()
    own.addHandler(handler)
    own.warning("outer", extra={"distinct_id": "u", "properties": {"value": Loud()}})
    own.removeHandler(handler)
    assert handler.flush(10)

    assert len(calls) <= 3
    assert len(calls) + 1 == len(arrived(inspector)) == handler.counts["accepted"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 runs no thread that late")
def test_a_finaliser_at_the_very_end(run_script: Any, inspector: Any) -> None:
    """An event that is logged when nothing can be imported any more still arrives."""
    run(
        run_script,
        f"""
        import logging
        from posthog_logging import PostHogHandler

        class Loud:
            def __del__(self):
                logging.warning("last", extra={{"distinct_id": "u"}})

        loud = Loud()
        logging.basicConfig(handlers=[PostHogHandler("phc_x", "{inspector.url}")])
        logging.warning("first", extra={{"distinct_id": "u"}})
        """,
    )
    assert {"first", "last"} == {one.event for one in arrived(inspector)}


@pytest.mark.parametrize("where", ["context", "groups", "list", "key"])
def test_a_value_that_logs_another_event(
    where: str, make_handler: Any, make_log: Any, inspector: Any
) -> None:
    """Only the value whose text does not end is left out, and each event stays whole."""
    calls = []

    class Loud:
        def __str__(self) -> str:
            calls.append(1)
            report("inner")
            return "loud"

    def report(name: str) -> None:
        given = {
            "context": {},
            "groups": {"groups": {"team": loud}},
            "list": {"properties": {"many": [1, {"deep": loud}]}},
            "key": {"properties": {loud: 2}},
        }
        log.info(name, extra={"distinct_id": "u", "kept": 1.5, **given[where]})

    loud, handler = Loud(), make_handler()
    log = make_log(handler)
    with context.identity("u", **({"plan": loud} if where == "context" else {})):
        report("outer")
    assert handler.flush(10)

    assert len(calls) <= 3
    found = arrived(inspector)
    assert [] == inspector.bad
    assert len(calls) + 1 == len(found) == handler.counts["accepted"]
    assert {("u", 1.5)} == {(one.distinct_id, one.properties["kept"]) for one in found}
    assert "[cut: recursion]" in repr([one.properties for one in found])


def test_every_record_bears_an_id(run_script: Any, inspector: Any) -> None:
    """With a factory that stamps each record, the library's own requests are no events."""
    done = run(
        run_script,
        f"""
        import logging, threading
        from posthog_logging import PostHogHandler

        make = logging.getLogRecordFactory()

        def stamp(*args, **kwargs):
            record = make(*args, **kwargs)
            record.distinct_id = "u"
            return record

        logging.setLogRecordFactory(stamp)
        handler = PostHogHandler("phc_x", "{inspector.url}", flush_interval=0.05)
        logging.basicConfig(level=logging.DEBUG, handlers=[handler])
        logging.info("one")
        handler.flush(5)
        before = handler.counts["accepted"]
        threading.Event().wait(0.5)
        handler.flush(5)
        print(before, handler.counts["accepted"])
        """,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "1 1" == done.stdout.strip()


def test_a_close_that_is_too_short_takes_nothing_back(make_handler: Any, slow: Any) -> None:
    """What ``close(0.05)`` counts as ``shutdown`` is delivered once the answer comes."""
    handler = make_handler(host=slow.url)
    handler.accept({"event": "e", "distinct_id": "u"})
    assert slow.reached.wait(10)
    handler.close(0.05)
    first = dict(handler.counts)
    slow.release.set()

    assert wait_for(lambda: handler.counts["delivered"] == 1)
    assert 1 == first["shutdown"]
    assert 0 == handler.counts.get("shutdown", 0) == handler.counts["waiting"]


@pytest.fixture
def slow() -> Iterator[Any]:
    """A server that answers when it is told to."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    reached, release = threading.Event(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            reached.set()
            release.wait(20)
            self.send_response(200)
            self.send_header("content-type", "application/json")
            body = b'{"status": "Ok", "results": {}}'
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.reached, server.release = reached, release
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    release.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_says_so_where_nobody_else_would(run_script: Any) -> None:
    """Without a key, and without a handler that shows warnings, the first event says so."""
    program = """
        import logging
        from posthog_logging import PostHogHandler

        log = logging.getLogger()
        log.addHandler(PostHogHandler())
        {more}
        log.warning("e", extra={{"distinct_id": "u"}})
        log.warning("e", extra={{"distinct_id": "u"}})
        """
    silent = run(run_script, program.format(more=""))
    shown = run(run_script, program.format(more="logging.basicConfig(force=True)"))
    wanted = run(run_script, program.format(more="logging.lastResort = None"))

    assert silent.stderr.startswith("posthog_logging: events are not sent: there is no api_key")
    assert 1 == silent.stderr.count("\n")
    assert "" == wanted.stderr
    assert 0 == shown.returncode


def test_disabled_for_the_process(
    monkeypatch: pytest.MonkeyPatch, make_handler: Any, inspector: Any, capfd: Any
) -> None:
    """``POSTHOG_DISABLED=1`` takes and sends nothing, and says so in `repr` alone."""
    monkeypatch.setenv("POSTHOG_DISABLED", "1")
    handler = make_handler()
    handler.accept({"event": "e", "distinct_id": "u"})
    handler.opt_in()
    handler.accept({"event": "e", "distinct_id": "u"})

    assert handler.flush(5)
    assert [] == arrived(inspector)
    assert 0 == handler.counts["accepted"]
    assert "disabled" in repr(handler)
