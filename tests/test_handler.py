"""`PostHogHandler`: what it takes, what it refuses, and that it never gets in the way."""

from __future__ import annotations

import copy
import logging
import sys
import threading
import time

from typing import Any

import pytest

from posthog_logging import context
from posthog_logging.handler import PostHogHandler
from posthog_logging.inspector import Answer
from posthog_logging.version import LIBRARY
from posthog_logging.wire import Response
from posthog_logging.wire.posthog import V0


SECRET = "phc_a_very_secret_key"
SOON = 10.0


def names(inspector: Any) -> list[str]:
    return [event.event for event in inspector.events]


def only(inspector: Any) -> Any:
    """Return the one event that arrived."""
    (event,) = inspector.events
    assert [] == inspector.bad
    return event


def counts(handler: PostHogHandler) -> dict[str, int]:
    return {reason: count for reason, count in handler.counts.items() if count}


# Construction


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("api_key", 7, TypeError),
        ("api_key", b"phc_x", TypeError),
        ("api_key", f"{SECRET}\nX: 1", ValueError),
        ("api_key", f"{SECRET}é", ValueError),
        ("api_key", "phx_a_very_secret_personal_key", ValueError),
        ("host", 7, TypeError),
        ("host", "us.i.posthog.com", ValueError),
        ("host", "ftp://x", ValueError),
        ("host", f"http://{SECRET}@x", ValueError),
        ("host", f"http://x/?{SECRET}", ValueError),
        ("dialect", "nonsense", ValueError),
        ("dialect", 7, TypeError),
        ("level", "nonsense", ValueError),
        ("level", 1.5, TypeError),
        ("flush_at", 0, ValueError),
        ("flush_at", "10", TypeError),
        ("flush_at", True, TypeError),
        ("flush_interval", -1, ValueError),
        ("flush_interval", float("nan"), ValueError),
        ("flush_interval", "1", TypeError),
        ("max_queue_size", 0, ValueError),
        ("max_queue_size", None, TypeError),
        ("max_queue_bytes", 0, ValueError),
        ("max_queue_bytes", 1.5, TypeError),
        ("overflow", "drop", ValueError),
        ("overflow", None, TypeError),
        ("block_timeout", None, TypeError),
        ("max_retries", -1, ValueError),
        ("max_retries", "3", TypeError),
        ("max_retries", "", TypeError),
        ("max_retries", False, TypeError),
        ("max_age", -1, ValueError),
        ("max_age", "", TypeError),
        ("timeout", -1, ValueError),
        ("timeout", None, TypeError),
        ("shutdown_timeout", float("inf"), ValueError),
        ("shutdown_timeout", None, TypeError),
        ("compression", "lzw", ValueError),
        ("compression", 7, TypeError),
        ("bisect", 1, TypeError),
        ("before_send", 7, TypeError),
        ("before_send", "os.remove", TypeError),
        ("before_send", [None], TypeError),
        ("on_error", 7, TypeError),
        ("properties", [], TypeError),
        ("properties", {7: 1}, TypeError),
        ("flat", None, TypeError),
        ("disable_geoip", "yes", TypeError),
        ("historical_migration", 1, TypeError),
        ("headers", ["X"], TypeError),
        ("headers", {"X": 7}, TypeError),
        ("headers", {"X": f"{SECRET}\r\nY: 1"}, ValueError),
        ("headers", {"X\n": "1"}, ValueError),
        ("sync_mode", 1, TypeError),
        ("send", None, TypeError),
        ("debug", "yes", TypeError),
    ],
    ids=lambda value: repr(value)[:24].replace(SECRET, "key"),
)
def test_wrong_arguments(name: str, value: Any, error: type[Exception]) -> None:
    """A wrong argument is an error that names the parameter, and never quotes a key."""
    with pytest.raises(error) as raised:
        PostHogHandler(**{"api_key": SECRET, "host": "http://x", name: value})

    text = str(raised.value)
    assert text.startswith(f"{name}: ")
    assert "secret" not in text


def test_without_a_key_it_is_a_no_op(transport: Any, caplog: Any, make_log: Any) -> None:
    """No key anywhere: the first event says so, and nothing is sent or started."""
    before = threading.active_count()
    handler = PostHogHandler("  ", transport=transport)
    log = make_log(handler)
    assert [] == caplog.records
    log.info("x", extra={"distinct_id": "u"})
    handler.opt_in()
    log.info("x", extra={"distinct_id": "u"})

    assert 1 == len([one for one in caplog.records if one.name == "posthog_logging"])
    assert "POSTHOG_PROJECT_TOKEN" in caplog.text
    assert handler.is_opted_out()
    assert handler.flush()
    handler.close()
    assert {"accepted": 2, "no_api_key": 2} == counts(handler)
    assert "no_api_key" in repr(handler)
    assert [] == transport.requests
    assert before == threading.active_count()


def test_keys_are_nowhere(make_handler: Any, caplog: Any) -> None:
    """Neither `repr` nor a log line shows the key or a header."""
    caplog.set_level(logging.DEBUG)
    handler = make_handler(SECRET, headers={"X": "secret"}, debug=True, host="http://127.0.0.1:9")
    handler.accept({"event": "e"})
    handler.flush()

    assert "secret" not in repr(handler) + repr(vars(handler)) + caplog.text
    assert "http://127.0.0.1:9" in repr(handler)


def test_the_environment_gives_key_and_host(inspector: Any, monkeypatch: Any) -> None:
    """What is not given stands in ``POSTHOG_API_KEY`` and ``POSTHOG_HOST``."""
    monkeypatch.setenv("POSTHOG_API_KEY", " phc_environment ")
    monkeypatch.setenv("POSTHOG_HOST", inspector.url + "/")
    handler = PostHogHandler(dialect="posthog-v0")  # which has the key in the body
    handler.accept({"event": "e"})
    handler.close()

    assert ["e"] == names(inspector)
    assert "phc_environment" == inspector.requests[0].payload["api_key"]


# What is taken


def test_only_events_are_taken(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """A record with ``distinct_id`` or ``event`` is one; everything else is left alone."""
    handler = make_handler()
    log = make_log(handler)
    log.info("plain")
    log.info("extra", extra={"user": 1, "properties": {}})
    log.info("movie %s", "played", extra={"distinct_id": "user-1"})
    log.info("x", extra={"event": "movie paused"})
    handler.flush()

    assert ["movie played", "movie paused"] == names(inspector)
    assert {"accepted": 2, "delivered": 2} == counts(handler)


def test_levels_count(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """Records below the handler's level are left alone, whatever they carry."""
    handler = make_handler(level="WARNING")
    log = make_log(handler)
    log.info("below", extra={"event": "below"})
    log.warning("above", extra={"event": "above"})
    handler.flush()

    assert ["above"] == names(inspector)


def test_filters_count(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """A filter may keep a record out."""
    handler = make_handler()
    handler.addFilter(lambda record: record.getMessage() != "no")
    log = make_log(handler)
    for text in ("yes", "no"):
        log.info(text, extra={"distinct_id": "u"})
    handler.flush()

    assert ["yes"] == names(inspector)


@pytest.mark.parametrize("options", [{}, {"exceptions": True}, {"logs": True}])
@pytest.mark.parametrize("name", ["distinct_id", "event"])
def test_a_filter_may_make_an_event(
    name: str, options: Any, make_handler: Any, make_log: Any
) -> None:
    """What a filter adds to a record counts, as long as it is there, whatever else is on."""
    handler = make_handler(**options)
    log = make_log(handler)

    def stamp(record: logging.LogRecord) -> bool:
        setattr(record, name, "signed up")
        return True

    log.info("signed up")
    handler.addFilter(stamp)
    log.info("signed up")
    handler.removeFilter(stamp)
    log.info("signed up")
    assert 1 == handler.counts["accepted"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a filter may replace records since 3.12")
def test_a_filter_may_replace(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """From Python 3.12 on, what a filter returns is what is sent."""
    handler = make_handler()
    handler.addFilter(lambda record: logging.makeLogRecord({"event": "other"}))
    make_log(handler).info("x", extra={"event": "e"})
    handler.flush()

    assert ["other"] == names(inspector)


@pytest.mark.parametrize(
    ("text", "args", "expected"),
    [
        ("%s and %s", ("one",), "%s and %s"),
        ("%d", ("text",), "%d"),
        ("none", ("one",), "none"),
        ("100%", (), "100%"),
        ("%(a)s", ({"a": 1},), "1"),
    ],
)
def test_bad_arguments(
    text: str, args: Any, expected: str, inspector: Any, make_handler: Any, make_log: Any
) -> None:
    """Arguments that do not fit the message cost nothing: the bare message is the name."""
    handler = make_handler()
    make_log(handler).info(text, *args, extra={"distinct_id": "u"})
    handler.flush()

    assert [expected] == names(inspector)


@pytest.mark.parametrize(
    "missing", "created name process levelno levelname args lineno pathname".split()
)
def test_a_record_that_lacks_something(missing: str, inspector: Any, make_handler: Any) -> None:
    """A hand-made record without one of `logging`'s attributes raises nothing, and arrives."""
    handler = make_handler()
    record = logging.makeLogRecord({"msg": "played", "levelno": 20, "distinct_id": "u"})
    delattr(record, missing)
    handler.handle(record)
    handler.flush()

    assert ["played"] == names(inspector)


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def kind(value: Any) -> str:
    return type(value).__name__


@pytest.mark.parametrize("text", [Hostile(), None, 7, b"x", ["x"]], ids=kind)
@pytest.mark.parametrize("value", [Hostile(), None, 7, float("nan"), "\ud800", {1}], ids=kind)
def test_nothing_raises(text: Any, value: Any, make_handler: Any, make_log: Any) -> None:
    """Whatever is logged, the call returns, and the event is sent or counted."""
    handler = make_handler()
    log = make_log(handler)
    for extra in (
        {"distinct_id": value},
        {"event": value, "distinct_id": "u"},
        {"event": "e", "properties": value},
        {"event": "e", "kind": value, "timestamp": value, "uuid": value, "options": value},
        {"event": "e", "odd": value, "set": value, "groups": value, "previous_id": value},
    ):
        log.info(text, extra=extra)
    handler.flush()

    assert handler.counts["accepted"] == 5
    assert handler.counts["waiting"] == 0


def test_nobodys_record_is_changed(make_handler: Any) -> None:
    """Other handlers see the record as it was."""
    handler = make_handler(properties={"p": 1}, before_send=lambda event: {**event, "event": "z"})
    record = logging.makeLogRecord(
        {"msg": "x", "distinct_id": "u", "properties": {"a": [1]}, "set": {"b": 2}}
    )
    before = copy.deepcopy(record.__dict__)
    with context.identity("user-7", plan="gold"):
        handler.handle(record)
    handler.flush()

    assert before == record.__dict__


def test_what_was_logged_is_what_is_sent(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """What the caller changes after the call is not in the event."""
    handler = make_handler(flush_at=100, flush_interval=60.0)
    log = make_log(handler)
    properties: dict[str, Any] = {"seen": [1], "deep": {"er": {"a": 1}}}
    log.info("x", extra={"event": "e", "properties": properties})
    properties["seen"].append(2)
    properties["deep"]["er"]["a"] = 2
    properties["new"] = 1
    handler.flush()

    sent = only(inspector).properties
    assert ([1], {"er": {"a": 1}}, False) == (sent["seen"], sent["deep"], "new" in sent)


def test_accept_returns_the_uuid(inspector: Any, make_handler: Any) -> None:
    """What was taken is known by its uuid; what was refused has none."""
    handler = make_handler()
    taken = handler.accept({"event": "e"})
    given = handler.accept({"event": "e", "uuid": "01890b5c-2a3b-7c4d-8e5f-0123456789ab"})
    refused = handler.accept({"event": "$identify"})
    handler.flush()

    assert [taken, given] == [event.uuid for event in inspector.events]
    assert "01890b5c-2a3b-7c4d-8e5f-0123456789ab" == given
    assert refused is None
    assert {"accepted": 3, "delivered": 2, "no_distinct_id": 1} == counts(handler)


# Properties


def test_who_wins(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """The handler's properties lose to the context's, those to the event's, all to the SDK's."""
    properties = {"a": 1, "b": 1, "c": 1, "$lib": "mine", "$is_server": 0}
    handler = make_handler(properties=properties, dialect="posthog-v0")
    with context.identity("user-7", b=2, c=2):
        make_log(handler).info(
            "x", extra={"event": "e", "properties": {"c": 3, "$lib": "theirs", "$is_server": 1}}
        )
    handler.flush()

    sent = only(inspector).properties
    assert (1, 2, 3) == (sent["a"], sent["b"], sent["c"])
    assert LIBRARY == sent["$lib"]
    assert 1 == sent["$is_server"]
    assert sent["$geoip_disable"] is True


def test_extras_are_properties(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """Other extras become properties, unless that is switched off."""
    for flat in (True, False):
        handler = make_handler(flat=flat, disable_geoip=False)
        make_log(handler).info("x", extra={"event": "e", "color": "red"})
        handler.flush()

    first, second = (event.properties for event in inspector.events)
    assert "red" == first["color"]
    assert "color" not in second
    assert "$geoip_disable" not in first
    assert not {"taskName", "msg", "levelname", "args"} & first.keys()


# before_send


def test_before_send_changes(inspector: Any, make_handler: Any) -> None:
    """The hook sees the assembled event, and what it returns is sent; ids stay."""
    seen = []

    def hook(event: dict[str, Any]) -> dict[str, Any]:
        seen.append(copy.deepcopy(event))
        event["properties"]["email"] = "***"
        return {**event, "event": "other", "uuid": "changed", "distinct_id": "nobody-1"}

    handler = make_handler(before_send=hook)
    name = handler.accept({"event": "e", "distinct_id": "u", "email": "a@b"})
    handler.flush()

    event = only(inspector)
    assert ("other", "nobody-1", "***") == (
        event.event,
        event.distinct_id,
        event.properties["email"],
    )
    assert name == event.uuid == seen[0]["uuid"]
    assert LIBRARY == seen[0]["properties"]["$lib"]


def test_before_send_drops(inspector: Any, make_handler: Any) -> None:
    """None drops the event, which is counted."""
    handler = make_handler(before_send=lambda event: None)

    assert handler.accept({"event": "e"}) is None
    assert handler.flush()
    assert {"accepted": 1, "before_send": 1} == counts(handler)
    assert [] == inspector.requests


@pytest.mark.parametrize(
    "rubbish",
    [
        7,
        "x",
        [],
        {},
        {"event": "e"},
        {"event": "", "distinct_id": "u", "properties": {}},
        {"event": "e", "distinct_id": 7, "properties": {}},
        {"event": "e", "distinct_id": "u", "properties": 7},
    ],
    ids=repr,
)
def test_before_send_fails_closed(rubbish: Any, transport: Any, make_handler: Any) -> None:
    """What is no event is not sent; nor is what came before: it may hold what must not go out."""
    handler = make_handler(before_send=lambda event: rubbish, transport=transport)

    assert handler.accept({"event": "e"}) is None
    assert handler.flush()
    assert {"accepted": 1, "before_send_failed": 1} == counts(handler)
    assert [] == transport.requests


@pytest.mark.parametrize("error", [ValueError("secret"), RecursionError()], ids=repr)
def test_a_raising_hook_ends_the_chain(
    error: BaseException, transport: Any, make_handler: Any, make_log: Any, caplog: Any
) -> None:
    """Of [change, raise, record] the third is not run, nothing is sent, and it is told of once."""
    ran = []

    def fail(event: Any) -> Any:
        raise error

    handler = make_handler(
        before_send=[lambda event: event, fail, lambda event: ran.append(event) or event],
        transport=transport,
    )
    log = make_log(handler)
    for _ in range(3):
        log.info("x", extra={"event": "e"})
    handler.flush()

    assert [] == ran == transport.requests
    assert {"accepted": 3, "before_send_failed": 3} == counts(handler)
    assert "secret" not in caplog.text
    assert 1 == sum("before_send failed" in record.getMessage() for record in caplog.records)


# Consent


def test_opt_out_and_in(inspector: Any, make_handler: Any) -> None:
    """Opted out, nothing is taken or sent; what waited is sent after opting in, by itself."""
    handler = make_handler(flush_at=1000, flush_interval=0.2)
    handler.accept({"event": "before"})
    handler.opt_out()
    assert handler.is_opted_out()
    assert handler.accept({"event": "during"}) is None
    assert not handler.flush()
    assert [] == inspector.wait(timeout=0.5)

    handler.opt_in()
    assert not handler.is_opted_out()
    assert ["before"] == [event.event for event in inspector.wait(count=1, timeout=SOON)]
    assert 1 == handler.counts["accepted"]


def test_send_false_sends_nothing(transport: Any, make_handler: Any) -> None:
    """Everything is built and counted, nothing sent."""
    handler = make_handler(send=False, transport=transport)
    handler.accept({"event": "e"})
    handler.accept({"event": "$identify"})
    assert handler.flush()

    assert {"accepted": 2, "send_is_off": 1, "no_distinct_id": 1} == counts(handler)
    assert [] == transport.requests


def test_sync_mode_sends_at_once(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """An event has arrived when its log call returns."""
    log = make_log(make_handler(sync_mode=True))
    for number in range(3):
        log.info("x", extra={"event": f"e{number}"})
        assert number + 1 == len(inspector.events)


# Never in the way


def test_root_at_debug(inspector: Any, make_handler: Any) -> None:
    """With everything logged to us at DEBUG, what urllib3 and we ourselves log feeds nothing."""
    handler = make_handler()
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("posthog_logging").setLevel(logging.DEBUG)
    inspector.script(Answer(status=503), Answer(status=400))
    logging.getLogger("service").info("x", extra={"event": "e"})
    assert not handler.flush()
    handler.flush()
    handler.accept({"event": "$identify"})
    root.removeHandler(handler)

    assert handler.counts["accepted"] == 2
    assert handler.flush()
    assert {"accepted": 2, "rejected": 1, "no_distinct_id": 1, "retried": 1} == counts(handler)
    assert 2 == len(inspector.requests)


def test_on_error_may_log(make_handler: Any, make_log: Any) -> None:
    """A hook that logs an event to the same handler does not wait for itself."""
    done = threading.Event()

    def hook(error: Any, events: Any) -> None:
        log.error("lost", extra={"event": "lost"})
        handler.flush()
        done.set()

    transport_answers = iter([Response(418)])
    sent = []

    class Transport:
        def send(self, request: Any, timeout: float) -> Response:
            sent.append(V0.decode(request)[0].event)
            return next(transport_answers, Response(200, body=b'{"results":{}}'))

        def close(self) -> None:
            pass

    handler = make_handler(on_error=hook, transport=Transport())
    log = make_log(handler)
    log.info("x", extra={"event": "e"})
    handler.flush()

    assert done.wait(SOON)
    handler.flush()
    assert ["e", "lost"] == sent


def test_a_handlers_lock_is_not_taken(make_handler: Any, make_log: Any) -> None:
    """A log call goes on while somebody else holds the handler's lock."""
    handler = make_handler()
    log = make_log(handler)
    handler.acquire()
    try:
        thread = threading.Thread(target=log.info, args=("x",), kwargs={"extra": {"event": "e"}})
        thread.start()
        thread.join(SOON)
    finally:
        handler.release()

    assert not thread.is_alive()
    assert 1 == handler.counts["accepted"]


def test_a_dead_server_costs_callers_nothing(make_handler: Any, make_log: Any) -> None:
    """1,000 log calls against a port on which nobody listens take no time to speak of."""
    handler = make_handler(host="http://127.0.0.1:9", flush_at=1, shutdown_timeout=0.5)
    log = make_log(handler)
    began = time.monotonic()
    for _ in range(1000):
        log.info("x", extra={"event": "e"})

    assert time.monotonic() - began < 2.0
    handler.close()
    assert 1000 == handler.counts["accepted"] == handler.counts["shutdown"]


@pytest.mark.parametrize("timeout", [-1, 0, 0.01, 1e12, float("inf")])
def test_flush_never_raises(timeout: float, make_handler: Any) -> None:
    """Any number is a time-out."""
    handler = make_handler()
    handler.accept({"event": "e"})

    assert handler.flush(timeout) in (True, False)


def test_closed_it_opens_again(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """After `close`, which may be called again, the next event opens it again."""
    handler = make_handler()
    log = make_log(handler)
    log.info("x", extra={"event": "e"})
    handler.close()
    handler.close()
    log.info("x", extra={"event": "late"})

    assert handler.flush()
    assert ["e", "late"] == names(inspector)
    assert {"accepted": 2, "delivered": 2} == counts(handler)


# The end of a process


SETUP = """
import logging, sys, threading
from posthog_logging import PostHogHandler
log = logging.getLogger("service")
log.setLevel(logging.INFO)
handler = PostHogHandler("phc_test", sys.argv[1], shutdown_timeout=float(sys.argv[2]))
log.addHandler(handler)
def say(number):
    log.info("x", extra={"event": f"e{number}"})
"""

ENDINGS = {
    "the end": "[say(n) for n in range(1000)]",
    "sys.exit": "[say(n) for n in range(1000)]; sys.exit(3)",
    "an exception": "[say(n) for n in range(1000)]; raise LookupError('why')",
    "sys.exit in a thread": """
def work():
    [say(n) for n in range(1000)]
    sys.exit(3)
threading.Thread(target=work).start()
""",
    "an exception in a thread": """
def work():
    [say(n) for n in range(1000)]
    raise LookupError('why')
threading.Thread(target=work).start()
""",
    "logging.shutdown twice": """
[say(n) for n in range(1000)]
logging.shutdown()
logging.shutdown()
""",
    "after a flush": "[say(n) for n in range(999)]; assert handler.flush(); say(999)",
    "in an exit hook": "import atexit; atexit.register(lambda: [say(n) for n in range(1000)])",
    "a handler that nobody holds": "del handler; [say(n) for n in range(1000)]",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_short_script_delivers(ending: str, inspector: Any, run_script: Any) -> None:
    """1,000 of 1,000 events arrive, once each, without a flush, however the script ends."""
    done = run_script(SETUP + ENDINGS[ending], inspector.url, "20")

    expected = [f"e{number}" for number in range(1000)]
    assert expected == names(inspector)
    assert [] == inspector.bad
    codes = {"sys.exit": 3, "an exception": 1}
    assert codes.get(ending, 0) == done.returncode
    assert ("LookupError" in done.stderr) == ("exception" in ending)
    assert "exception" in ending or "" == done.stderr


@pytest.mark.parametrize("answer", [Answer(hang=True), Answer(drip=0.1, body=b"x" * 10_000)])
@pytest.mark.parametrize("when", ["idle", "amid a request"])
def test_an_exit_is_bounded(answer: Answer, when: str, inspector: Any, run_script: Any) -> None:
    """A server that accepts and never answers holds the exit for `shutdown_timeout`, not more."""
    inspector.answer_always = answer
    amid = "; import time; time.sleep(0.5)" if when != "idle" else ""
    began = time.monotonic()
    done = run_script(SETUP + "say(1)" + amid, inspector.url, "1")

    assert time.monotonic() - began < 8.0
    assert 0 == done.returncode
    assert "Traceback" not in done.stderr


# From 3.12 on a fork beside threads is warned of.
QUIET = "import warnings; warnings.simplefilter('ignore', DeprecationWarning)"

FORK = """
import os
say(1)
pid = os.fork()
if pid == 0:
    say(2)
    handler.close()
    os._exit(0 if handler.counts["accepted"] == handler.counts["delivered"] == 1 else 1)
assert os.waitpid(pid, 0)[1] == 0
say(3)
"""


def test_a_fork_sends_each_event_once(inspector: Any, run_script: Any) -> None:
    """The parent's events are the parent's to send, the child's are the child's."""
    done = run_script(QUIET + SETUP + FORK, inspector.url, "9")

    assert (0, "") == (done.returncode, done.stderr)
    assert ["e1", "e2", "e3"] == sorted(names(inspector))


def test_debug_shows_names_sizes_and_answers(run_script: Any, inspector: Any) -> None:
    """With ``debug=True`` the library logs what it does, where need be on standard error."""
    program = f"""
import logging
from posthog_logging import PostHogHandler

log = logging.getLogger("films")
log.addHandler(PostHogHandler("phc_secret", "{inspector.url}", debug=True))
log.warning("movie played", extra={{"distinct_id": "user-1", "title": "Vertigo"}})
"""
    done = run_script(program)

    assert 0 == done.returncode
    assert "event 'movie played'" in done.stderr
    assert "sent 1 event(s)" in done.stderr
    assert "HTTP 200" in done.stderr
    assert not [text for text in ("phc_secret", "Vertigo", "user-1") if text in done.stderr]
