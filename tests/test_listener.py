"""`MessageHandler` and `Listener` by the contract of CPython's own pair."""

from __future__ import annotations

import copy
import datetime as dt
import logging
import logging.config
import logging.handlers
import multiprocessing
import pickle
import queue
import sys
import threading

from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from posthog_logging import context, extras
from posthog_logging.events.records import text_of
from posthog_logging.listener import Listener, MessageHandler
from posthog_logging.wire import Request, Response


SOON = 10.0


class Collect(logging.Handler):
    """Keep what is handled."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[Any] = []
        self.threads: set[str] = set()

    def handle(self, record: Any) -> Any:
        self.records.append(record)
        self.threads.add(threading.current_thread().name)
        return True

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


class Raising(logging.Handler):
    """A handler that raises what it is told to."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def handle(self, record: Any) -> Any:
        raise self.error


QUEUES: dict[str, Callable[[], Any]] = {
    "queue.Queue": queue.Queue,
    "SimpleQueue": queue.SimpleQueue,
    "multiprocessing.Queue": multiprocessing.Queue,
    "bounded": lambda: queue.Queue(10_000),
}


@pytest.fixture(name="made", params=QUEUES)
def _made(request: Any) -> Iterator[Any]:
    """A queue of each kind."""
    made = QUEUES[request.param]()
    yield made
    if request.param == "multiprocessing.Queue":
        made.close()
        made.join_thread()


def threads_of(listener: Listener) -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one is getattr(listener, "_thread", None)]


# The contract


def test_they_are_the_stdlibs_kind() -> None:
    """Both are what they are called, with the stdlib's signatures."""
    assert issubclass(MessageHandler, logging.handlers.QueueHandler)
    assert issubclass(Listener, logging.handlers.QueueListener)
    listener = Listener(queue.Queue(), Collect(), Collect(), respect_handler_level=True)
    assert 2 == len(listener.handlers)
    assert listener.respect_handler_level is True
    assert Listener(queue.Queue()).respect_handler_level is False


def test_records_travel(made: Any, make_log: Any) -> None:
    """What is logged before `stop` has been handled when `stop` returns, in order."""
    seen = Collect()
    log = make_log(MessageHandler(made))
    listener = Listener(made, seen)
    listener.start()
    for number in range(100):
        log.info("number %d", number, extra={"distinct_id": "u"} if number % 2 else None)
    listener.stop()

    assert [f"number {number}" for number in range(100)] == seen.messages
    assert threading.current_thread().name not in seen.threads


def test_every_hook_of_the_handler_is_called() -> None:
    """`prepare` gets the record, and `enqueue` what `prepare` returns."""
    calls: list[Any] = []

    class Mine(MessageHandler):
        def prepare(self, record: logging.LogRecord) -> Any:
            calls.append(("prepare", record))
            return "prepared"

        def enqueue(self, record: Any) -> None:
            calls.append(("enqueue", record))
            super().enqueue(record)

    waiting: queue.Queue[Any] = queue.Queue()
    record = logging.makeLogRecord({"msg": "x", "event": "e"})
    Mine(waiting).handle(record)

    assert [("prepare", record), ("enqueue", "prepared")] == calls
    assert "prepared" == waiting.get_nowait()


def test_every_hook_of_the_listener_is_called() -> None:
    """An override of any documented method is used, with the documented arguments."""
    calls: list[str] = []

    class Mine(Listener):
        def start(self) -> None:
            calls.append("start")
            super().start()

        def dequeue(self, block: bool) -> Any:
            assert block is True
            calls.append("dequeue")
            return super().dequeue(block)

        def prepare(self, record: Any) -> Any:
            calls.append("prepare")
            return logging.makeLogRecord({"msg": f"prepared {record.msg}"})

        def handle(self, record: Any) -> None:
            calls.append("handle")
            super().handle(record)

        def enqueue_sentinel(self) -> None:
            calls.append("enqueue_sentinel")
            super().enqueue_sentinel()

        def stop(self) -> None:
            calls.append("stop")
            super().stop()

    seen, waiting = Collect(), queue.Queue[Any]()
    listener = Mine(waiting, seen)
    listener.start()
    waiting.put(logging.makeLogRecord({"msg": "x"}))
    listener.stop()

    assert ["prepared x"] == seen.messages
    assert {"start", "dequeue", "handle", "prepare", "enqueue_sentinel", "stop"} == set(calls)
    assert 1 == calls.count("prepare") == calls.count("handle") == calls.count("stop")
    assert calls.index("handle") < calls.index("prepare")


def test_start_twice() -> None:
    """A second `start` starts no second thread; one `stop` ends it."""
    listener = Listener(queue.Queue(), Collect())
    before = threading.active_count()
    listener.start()
    listener.start()

    assert before + 1 == threading.active_count()
    listener.stop()
    assert before == threading.active_count()


def test_stop_twice_and_without_start() -> None:
    """`stop` may be called at any time, any number of times."""
    waiting: queue.Queue[Any] = queue.Queue()
    listener = Listener(waiting, Collect())
    listener.stop()
    listener.start()
    listener.stop()
    listener.stop()

    assert waiting.empty()


def test_it_can_be_started_again() -> None:
    """Between two runs, records wait in the queue."""
    seen, waiting = Collect(), queue.Queue[Any]()
    listener = Listener(waiting, seen)
    for number in range(3):
        waiting.put(logging.makeLogRecord({"msg": str(number)}))
        listener.start()
        listener.stop()

    assert ["0", "1", "2"] == seen.messages


def test_stop_with_a_full_queue() -> None:
    """A bounded queue that is full at `stop` loses nothing and raises nothing."""
    gate = threading.Event()

    class Slow(Collect):
        def handle(self, record: Any) -> Any:
            assert gate.wait(SOON)
            return super().handle(record)

    seen, waiting = Slow(), queue.Queue[Any](2)
    listener = Listener(waiting, seen)
    listener.start()
    for number in range(3):
        waiting.put(logging.makeLogRecord({"msg": str(number)}), timeout=SOON)
    stopping = threading.Thread(target=listener.stop)
    stopping.start()
    gate.set()
    stopping.join(SOON)

    assert not stopping.is_alive()
    assert ["0", "1", "2"] == seen.messages


@pytest.mark.parametrize("error", [ValueError(), SystemExit(), queue.Empty(), OSError()], ids=repr)
def test_a_raising_handler(error: BaseException, caplog: Any) -> None:
    """A handler that raises is told of once and counted; the others and the thread go on."""
    seen, waiting = Collect(), queue.Queue[Any]()
    listener = Listener(waiting, Raising(error), seen)
    listener.start()
    for number in range(3):
        waiting.put(logging.makeLogRecord({"msg": str(number)}))
    listener.stop()

    assert ["0", "1", "2"] == seen.messages
    assert 3 == listener.errors
    assert 1 == len(caplog.records)
    assert type(error).__name__ in caplog.text


class Odd:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("respect", [True, False])
@pytest.mark.parametrize("item", ["text", 7, b"x", (), {}, Odd(), Odd], ids=lambda x: repr(x)[:9])
def test_foreign_items(item: Any, respect: bool) -> None:
    """Whatever somebody puts into the queue, the record behind it is handled."""
    seen, waiting = Collect(), queue.Queue[Any]()
    listener = Listener(waiting, logging.NullHandler(), seen, respect_handler_level=respect)
    listener.start()
    waiting.put(item)
    waiting.put(logging.makeLogRecord({"msg": "behind", "levelno": logging.INFO}))
    listener.stop()

    assert "behind" == seen.records[-1].getMessage()


def test_levels_are_respected_if_asked() -> None:
    """With ``respect_handler_level`` a handler gets what it wants; without, everything."""
    results = {}
    for respect in (True, False):
        debug, error, waiting = Collect(), Collect(logging.ERROR), queue.Queue[Any]()
        listener = Listener(waiting, debug, error, respect_handler_level=respect)
        listener.start()
        for level in (logging.INFO, logging.ERROR):
            waiting.put(logging.makeLogRecord({"msg": "x", "levelno": level}))
        listener.stop()
        results[respect] = (len(debug.records), len(error.records))

    assert {True: (2, 1), False: (2, 2)} == results


def test_join_returns(made: Any) -> None:
    """With a queue that counts tasks, `join` returns when all was handled, errors or not."""
    if not hasattr(made, "task_done"):
        pytest.skip("this queue does not count")
    listener = Listener(made, Raising(ValueError()))
    listener.start()
    for _ in range(10):
        made.put(logging.makeLogRecord({}))
    joining = threading.Thread(target=made.join)
    joining.start()
    joining.join(SOON)
    listener.stop()

    assert not joining.is_alive()
    assert 0 == made.unfinished_tasks


def test_a_full_queue_costs_a_record(capsys: Any, caplog: Any, make_log: Any) -> None:
    """What does not fit is counted and told of once, without a traceback each."""
    handler = MessageHandler(queue.Queue(2))
    log = make_log(handler)
    for _ in range(10):
        log.info("x", extra={"event": "e"})

    assert 8 == handler.lost
    assert 1 == len(caplog.records)
    assert "" == capsys.readouterr().err


# What the handler makes of a record


def test_what_was_logged_is_what_travels(make_log: Any) -> None:
    """Later changes to the caller's objects change nothing, and everything can be pickled."""
    waiting: queue.Queue[Any] = queue.Queue()
    log = make_log(MessageHandler(waiting))
    properties = {"seen": [1], "lock": threading.Lock()}
    log.info("x", extra={"event": "e", "distinct_id": "u", "properties": properties})
    properties["seen"].append(2)
    record = pickle.loads(pickle.dumps(waiting.get_nowait()))

    assert [1] == record.properties["seen"]
    assert isinstance(record.properties["lock"], str)


def test_ids_are_fixed_on_this_side(make_log: Any) -> None:
    """Identity, properties, time and uuid are those of the log call, not of the other side."""
    waiting: queue.Queue[Any] = queue.Queue()
    log = make_log(MessageHandler(waiting))
    with context.identity("user-7", plan="gold"):
        log.info("x", extra={"event": "e", "properties": {"own": 1}})
        log.info("x", extra={"event": "e", "distinct_id": "other", "uuid": "mine"})
    first, second = waiting.get_nowait(), waiting.get_nowait()

    assert "user-7" == first.distinct_id
    assert {"plan": "gold", "own": 1} == first.properties
    assert first.uuid
    assert first.timestamp.endswith("Z")
    assert "other" == second.distinct_id
    assert "mine" == second.uuid


class Unbound:
    """Such as a `LocalProxy` outside a request: it has no text."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


IDS = [
    Unbound(),
    Decimal(12345),
    Decimal("5.00"),
    dt.datetime(2024, 1, 2),
    dt.timedelta(seconds=5),
    Fraction(9),
    float("nan"),
    10**30,
    b"u1",
    ["u1"],
]


class Safe(str):
    """A text that stays what it is, as Django's ``mark_safe`` makes it."""

    def __str__(self) -> str:
        """Return itself."""
        return self


def test_an_id_is_a_plain_text_behind_it(make_log: Any) -> None:
    """Its record can be pickled, and read where the program's own classes are not."""
    waiting: queue.Queue[Any] = queue.Queue()
    log = make_log(MessageHandler(waiting))
    log.info("x", extra={"distinct_id": Safe("u1"), "uuid": Safe("m-1")})
    record = waiting.get_nowait()

    assert [("u1", str), ("m-1", str)] == [
        (found, type(found)) for found in (record.distinct_id, record.uuid)
    ]


@pytest.mark.parametrize("given", IDS, ids=lambda given: type(given).__name__)
def test_an_id_is_the_same_one_behind_it(
    given: Any, inspector: Any, make_handler: Any, make_log: Any
) -> None:
    """A person of one entry point is the same person of the other; nobody is nobody at both."""
    waiting: queue.Queue[Any] = queue.Queue()
    found = []
    for door in None, MessageHandler(waiting):
        handler = make_handler()
        log = make_log(door or handler)
        with context.identity(given):
            log.info("bound", extra={"event": "bound"})
        log.info("said", extra={"distinct_id": given})
        log.info("alias", extra=extras.alias(given, "u2"))
        log.info("identify", extra=extras.identify("u2", anonymous_id=given))
        log.info("group", extra=extras.group("team", given, {"a": 1}))
        log.info("group of a user", extra=extras.group("team", given, distinct_id="u2"))
        if isinstance(given, (Decimal, dt.datetime)):
            log.info("uuid", extra={"distinct_id": "u2", "uuid": given})
        while not waiting.empty():
            handler.handle(waiting.get_nowait())
        assert handler.flush()
        for event in inspector.events[len(found) :]:
            is_nobody = event.properties.get("$process_person_profile") is False
            own_uuid = event.event == "uuid" and event.uuid
            found.append((event.event, is_nobody or event.distinct_id, event.properties, own_uuid))

    half = len(found) // 2
    assert half
    assert found[:half] == found[half:]


@pytest.mark.parametrize(
    ("message", "args"), [("a %s", (1, 2)), ("%d", ("x",)), ("%s", (Unbound(),)), (Unbound(), ())]
)
def test_a_message_that_cannot_be_formatted_costs_no_event(
    message: Any, args: Any, make_handler: Any, capsys: Any
) -> None:
    """The event is the same as on the handler itself, and nothing is printed."""
    waiting: queue.Queue[Any] = queue.Queue()
    handler = make_handler()
    for extra in {"event": "played"}, {"distinct_id": "u"}:
        record = logging.makeLogRecord({"msg": message, "args": args, **extra})
        MessageHandler(waiting).handle(record)
        behind = waiting.get_nowait()

        assert text_of(record) == behind.message
        assert extra.get("event", text_of(record)) == behind.event
        handler.handle(behind)
    assert "" == capsys.readouterr().err


def test_groups_of_the_context_are_groups_behind_it(make_log: Any) -> None:
    """Whatever holds them, as on the handler itself."""
    waiting: queue.Queue[Any] = queue.Queue()
    log = make_log(MessageHandler(waiting))
    with context.identity("user-7", groups=SimpleNamespace(team=9)):
        log.info("x", extra={"event": "e"})

    assert {"$groups": {"team": 9}} == waiting.get_nowait().properties


def test_a_timestamp_that_cannot_be_read_travels_on(
    make_handler: Any, make_log: Any, caplog: Any
) -> None:
    """The other side sends the record's own time, and says so."""
    waiting: queue.Queue[Any] = queue.Queue()
    handler = make_handler()
    make_log(MessageHandler(waiting)).info("x", extra={"event": "e", "timestamp": "yesterday"})
    record = waiting.get_nowait()
    handler.handle(record)

    assert "yesterday" == record.timestamp
    assert 1 == handler.counts["accepted"]
    assert "timestamp: cannot be read" in caplog.text


@pytest.mark.skipif(not hasattr(queue, "ShutDown"), reason="queues shut down from 3.13 on")
def test_a_queue_that_was_shut_down_costs_a_record(capsys: Any, caplog: Any) -> None:
    """It is counted as a full one is, without a traceback."""
    waiting: queue.Queue[Any] = queue.Queue()
    waiting.shutdown()  # type: ignore[attr-defined]
    handler = MessageHandler(waiting)
    handler.handle(logging.makeLogRecord({"event": "e"}))

    assert 1 == handler.lost
    assert "shut down" in caplog.text
    assert "" == capsys.readouterr().err


def test_no_event_is_none_on_the_other_side_either(
    make_handler: Any, make_log: Any, caplog: Any
) -> None:
    """``event=None`` alone becomes no event by the identity that is bound at the door."""
    waiting: queue.Queue[Any] = queue.Queue()
    handler = make_handler()
    with context.identity("user-7"):
        make_log(MessageHandler(waiting)).info("x", extra={"event": None})
    handler.handle(waiting.get_nowait())

    assert 1 == handler.counts["no_event_name"]


def test_nobodys_record_is_changed() -> None:
    """The record that other handlers see stays as it was."""
    record = logging.makeLogRecord(
        {"msg": "%s", "args": ("x",), "event": "e", "properties": {"a": {1}}}
    )
    before = copy.deepcopy(record.__dict__)
    with context.identity("user-7", plan="gold"):
        MessageHandler(queue.Queue()).handle(record)

    assert before == record.__dict__


# With `PostHogHandler` at the other end


def test_ours_to_ours(inspector: Any, make_handler: Any, make_log: Any, made: Any) -> None:
    """MessageHandler, any queue, Listener, PostHogHandler: the event arrives as it was said."""
    handler = make_handler()
    listener = Listener(made, handler)
    log = make_log(MessageHandler(made))
    listener.start()
    with context.identity("user-7", plan="gold"):
        log.info("movie %s", "played", extra={"event": "movie played", "rating": 5})
        log.info("movie %s", "paused", extra={"distinct_id": "user-8"})
        log.info("not an event")
    listener.stop()
    assert handler.flush(SOON)

    played, paused = inspector.events
    assert ("movie played", "user-7") == (played.event, played.distinct_id)
    assert ("gold", 5) == (played.properties["plan"], played.properties["rating"])
    assert ("movie paused", "user-8") == (paused.event, paused.distinct_id)
    assert [] == inspector.bad
    assert {"accepted": 2, "delivered": 2}.items() <= dict(handler.counts).items()


def test_the_stdlib_to_ours(inspector: Any, make_handler: Any, make_log: Any) -> None:
    """Records that came through the stock pair, message formatted and arguments gone, work."""
    waiting: queue.Queue[Any] = queue.Queue()
    handler = make_handler()
    listener = logging.handlers.QueueListener(waiting, handler)
    log = make_log(logging.handlers.QueueHandler(waiting))
    listener.start()
    log.info("movie %s", "played", extra={"distinct_id": "user-7", "rating": 5})
    listener.stop()
    handler.flush(SOON)

    assert ["movie played"] == [event.event for event in inspector.events]
    assert 5 == inspector.events[0].properties["rating"]


CHILD = """
import logging, multiprocessing, sys
from posthog_logging import Listener, MessageHandler, PostHogHandler, context

def work(waiting, number):
    log = logging.getLogger("child")
    log.setLevel(logging.INFO)
    log.addHandler(MessageHandler(waiting))
    with context.identity(f"user-{number}", plan="gold"):
        for _ in range(5):
            log.info("done", extra={"event": "done", "properties": {"odd": {1}}})

if __name__ == "__main__":
    how = multiprocessing.get_context(sys.argv[2])
    waiting = how.Queue()
    children = [how.Process(target=work, args=(waiting, number)) for number in range(3)]
    for child in children:
        child.start()
    handler = PostHogHandler("phc_test", sys.argv[1])
    listener = Listener(waiting, handler)
    listener.start()
    for child in children:
        child.join()
    listener.stop()
    handler.close()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_to_a_parent(method: str, inspector: Any, tmp_path: Any, run_script: Any) -> None:
    """Children put, the parent sends; each event bears the identity of its child."""
    script = tmp_path / "parent.py"
    script.write_text(CHILD)
    run = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name={!r})"
    if method == "spawn":
        run = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))"
    done = run_script(run.format("__main__"), str(script), inspector.url, method)

    assert (0, "") == (done.returncode, done.stderr)
    who = [event.distinct_id for event in inspector.events]
    assert sorted(f"user-{number}" for number in range(3) for _ in range(5)) == sorted(who)
    assert {"gold"} == {event.properties["plan"] for event in inspector.events}


FORKED = """
import logging, os, queue
from posthog_logging import Listener, MessageHandler
seen = []
class Collect(logging.Handler):
    def handle(self, record):
        seen.append(record)
waiting = queue.SimpleQueue()
listener = Listener(waiting, Collect())
listener.start()
listener.stop()
listener.start()
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: a fork beside threads
pid = os.fork()
if pid == 0:
    listener.stop()
    listener.start()
    MessageHandler(waiting).handle(logging.makeLogRecord({"msg": "x"}))
    listener.stop()
    os._exit(0 if len(seen) == 1 else 1)
assert os.waitpid(pid, 0)[1] == 0
MessageHandler(waiting).handle(logging.makeLogRecord({"msg": "x"}))
listener.stop()
assert len(seen) == 1
"""


def test_after_a_fork(run_script: Any) -> None:
    """In a child, `stop` does nothing and `start` starts; the parent's thread is untouched."""
    done = run_script(FORKED)

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="dictConfig makes listeners from 3.12 on")
def test_behind_dict_config(inspector: Any, make_handler: Any) -> None:
    """``dictConfig`` puts a `PostHogHandler` behind a stock `QueueHandler`."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "posthog": {
                    "class": "posthog_logging.PostHogHandler",
                    "api_key": "phc_test",
                    "host": inspector.url,
                },
                "queue": {"class": "logging.handlers.QueueHandler", "handlers": ["posthog"]},
            },
            "loggers": {
                "tests.dict": {"handlers": ["queue"], "level": "INFO", "propagate": False}
            },
        }
    )
    log = logging.getLogger("tests.dict")
    listener = log.handlers[0].listener  # type: ignore[attr-defined]
    listener.start()
    log.info("movie played", extra={"distinct_id": "user-1"})
    listener.stop()
    listener.handlers[0].close()
    log.handlers.clear()

    assert ["movie played"] == [event.event for event in inspector.events]


def test_what_an_interrupted_stop_left_ends_no_other() -> None:
    """A second end in the queue is of its own run: another `Listener` there goes on."""
    waiting: queue.Queue[Any] = queue.Queue()
    first = Listener(waiting)
    first.start()
    for _ in range(2):  # as a `stop` does that is interrupted before its wait, and again
        first.enqueue_sentinel()
    first.stop()
    assert 1 <= waiting.qsize()
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    second = Listener(waiting, Ear())
    second.start()
    waiting.put(logging.makeLogRecord({"msg": "after"}))
    second.stop()

    assert ["after"] == heard


def test_stop_does_not_wait_for_a_thread_that_has_died() -> None:
    """Where a handler ended the thread, `stop` returns, although the queue is full."""
    waiting: queue.Queue[Any] = queue.Queue(1)

    class Deadly(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise KeyboardInterrupt

    listener = Listener(waiting, Deadly())
    died = threading.Event()
    before, threading.excepthook = threading.excepthook, lambda arguments: died.set()
    try:
        listener.start()
        waiting.put(logging.makeLogRecord({"msg": "x"}))
        assert died.wait(10)
        waiting.put(logging.makeLogRecord({"msg": "y"}))
        stopping = threading.Thread(target=listener.stop, daemon=True)
        stopping.start()
        stopping.join(10)
    finally:
        threading.excepthook = before

    assert not stopping.is_alive()


# Behind a queue


class Chatty:
    """A transport that logs by the program's own logger, as urllib3 does by its own."""

    def send(self, request: Request, timeout: float) -> Response:
        logging.getLogger("tests.queued").debug("sending")
        return Response(200, body=b'{"results":{}}')

    def close(self) -> None:
        pass


PAIRS = {
    "ours": (MessageHandler, Listener),
    "the standard library's": (logging.handlers.QueueHandler, logging.handlers.QueueListener),
}


@pytest.fixture(name="stamped")
def _stamped() -> Iterator[None]:
    """Every record has an id, as where a factory puts the user on it."""
    factory = logging.getLogRecordFactory()

    def stamp(*args: Any, **more: Any) -> logging.LogRecord:
        record = factory(*args, **more)
        record.distinct_id = "user-1"
        return record

    logging.setLogRecordFactory(stamp)
    yield
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("make", [queue.SimpleQueue, multiprocessing.Queue])
@pytest.mark.parametrize("options", [{}, {"sync_mode": True}, {"transport": Chatty()}])
@pytest.mark.usefixtures("stamped")
def test_requests_are_no_events(
    pair: str, make: Any, options: Any, make_handler: Any, make_log: Any
) -> None:
    """What a thread logs while it sends is no event, however late; what it logs later is one."""
    handler = make_handler(**options)
    door, kind = PAIRS[pair]
    waiting = make()
    listener = kind(waiting, handler)
    log, root = logging.getLogger("tests.queued"), logging.getLogger()
    gate = door(waiting)
    root.addHandler(gate)
    root.setLevel(logging.DEBUG)
    try:
        for _ in range(3):
            log.info("hello")
            listener.start()
            listener.stop()
            assert handler.flush(SOON)  # this thread sends, and logs
        log.info("goodbye")
        listener.start()
        listener.stop()
    finally:
        root.removeHandler(gate)
        root.setLevel(logging.WARNING)
    assert 4 == handler.counts["accepted"]
