"""Never lose an event: kills, forks, exits, chaos; with real processes, sockets and signals."""

from __future__ import annotations

import itertools
import json
import logging
import logging.config
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from soak.kills import Plan, arrived, drain, kill_all

from posthog_logging.delivery.journal import segments_in
from posthog_logging.delivery.ledger import NOT_LOSSES
from posthog_logging.delivery.spool import MemorySpool
from posthog_logging.handler import PostHogHandler
from posthog_logging.inspector import Answer, Inspector
from posthog_logging.wire import Response
from posthog_logging.wire.posthog import V0


pytestmark = pytest.mark.matrix

HERE = str(Path(__file__).parent.parent)
SOON = 20.0  # seconds: what is to happen at once has happened by then, on any machine

# What every program begins with. A name is printed when its log call has returned.
BEGIN = """
import atexit, json, logging, os, signal, sys, threading, time, warnings
if os.environ.get("GEVENT"):
    from gevent import monkey
    monkey.patch_all()
warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, from 3.12 on
def report():
    sys.stderr.write("COUNTS" + json.dumps(dict(handler.counts)))
if os.environ.get("REPORT"):
    atexit.register(report)  # before the library's own hook, so it runs after it
from posthog_logging import PostHogHandler
log = logging.getLogger("service")
log.setLevel(logging.INFO)
handler = None
def setup():
    global handler
    spool = os.environ.get("SPOOL") or None
    handler = PostHogHandler(
        "phc_soak", os.environ["HOST"], spool=spool,
        shutdown_timeout=float(os.environ.get("SHUTDOWN", "20")),
    )
    log.handlers[:] = [handler]
def say(*names):
    for name in names:
        log.info("x", extra={"distinct_id": "u", "properties": {"n": str(name)}})
        os.write(1, b"%s\\n" % str(name).encode())
def wait(pid):
    assert os.waitpid(pid, 0)[1] == 0
"""


class Program:
    """A program in a process of its own; what it prints is read at its end."""

    def __init__(self, path: Path, body: str, **env: str) -> None:
        path.write_text(BEGIN + body)
        self._process = subprocess.Popen(
            [sys.executable, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": HERE, **env},
        )
        self.pid = self._process.pid

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def kill(self, number: int = signal.SIGKILL) -> None:
        self._process.send_signal(number)

    def end(self, timeout: float = 50.0) -> int:
        """Wait for the end; return the status. ``names`` and ``stderr`` are there then."""
        try:
            out, err = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            raise AssertionError(f"it hangs:\n{err.decode()[-2000:]}") from None
        self.names = out.decode().split("\n")[:-1]
        self.stderr = err.decode()
        return self._process.returncode

    @property
    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = json.loads(self.stderr.rpartition("COUNTS")[2])
        return counts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def start(inspector: Inspector, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """A starter of programs, that are killed where a test fails."""
    made: list[Program] = []

    def start_one(body: str, **env: str) -> Program:
        path = tmp_path / f"program{len(made)}.py"
        made.append(Program(path, body, **{"HOST": inspector.url, **env}))
        return made[-1]

    yield start_one
    for one in made:
        if one._process.poll() is None:
            one.kill()
            one.end()


def names_at(inspector: Inspector) -> Counter[str]:
    assert [] == inspector.bad
    return Counter(event.properties["n"] for event in inspector.events)


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll: what is waited for happens in a thread or a process that tells nobody."""
    pause, deadline = threading.Event(), time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.005)


def losses(counts: Any) -> int:
    return sum(count for reason, count in counts.items() if reason not in NOT_LOSSES)


def assert_exact(counts: Any) -> None:
    """What was accepted was delivered, waits, or was lost under a reason."""
    assert counts["accepted"] == counts["delivered"] + counts["waiting"] + losses(counts)


def assert_no_loss(returned: list[str], inspector: Inspector) -> None:
    """Each call that returned is at the server; what came twice came identically."""
    got = arrived(inspector)
    assert set() == set(returned) - got.names
    assert (0, 0) == (got.different, got.bad)


# Kills

CAMPAIGNS = {
    "one process": Plan(rounds=40, most=1000, seed=1),
    "four processes": Plan(rounds=10, processes=4, most=1000, seed=2),
    "mid rotation": Plan(rounds=12, most=150, size=60_000, seed=3),
}
LONG_CAMPAIGNS = {
    "one process, long": Plan(rounds=500, most=3000, seed=4),
    "four processes, long": Plan(rounds=150, processes=4, most=2000, seed=5),
    "mid rotation, long": Plan(rounds=100, processes=2, most=300, size=60_000, seed=6),
}


@pytest.fixture
def large() -> Iterator[Inspector]:
    """A server that remembers every event of a campaign."""
    with Inspector(capacity=2_000_000) as server:
        yield server


@pytest.mark.parametrize(
    "plan",
    [
        *(pytest.param(plan, id=name) for name, plan in CAMPAIGNS.items()),
        *(
            pytest.param(plan, id=name, marks=[pytest.mark.soak, pytest.mark.timeout(900)])
            for name, plan in LONG_CAMPAIGNS.items()
        ),
    ],
)
def test_kills(plan: Plan, large: Inspector, folder: Path) -> None:
    """Whenever processes are killed, each event whose log call has returned arrives."""
    kills, returned = kill_all(plan, large.url, folder)
    drain(folder)

    assert plan.rounds * plan.processes == kills
    assert len(returned) > kills
    assert_no_loss(returned, large)
    assert [] == segments_in(folder)


def test_killed_right_after_the_call(
    inspector: Inspector, start: Callable[..., Program], folder: Path
) -> None:
    """The call returns, the process is gone at once: the event is there."""
    program = start("setup(); say(*range(50)); os.kill(os.getpid(), 9)", SPOOL=str(folder))

    assert -9 == program.end()
    assert 50 == len(program.names)
    drain(folder)
    assert_no_loss(program.names, inspector)


AT_THE_SERVER = {
    "after the 200, before the ack": (Answer(hang=True), "setup(); say(*range(50)); wait_long()"),
    "amid the answer": (
        Answer(drip=0.2, body=b"x" * 1000),
        "setup(); say(*range(50)); wait_long()",
    ),
    "after the answer was cut": (
        Answer(reset_after=20),
        "setup(); say(*range(50)); wait_long()",
    ),
    "in back-off": (Answer(status=503), "setup(); say(*range(50)); wait_long()"),
    "in flush": (Answer(hang=True), "setup(); say(*range(50)); handler.flush(60)"),
    "in close": (Answer(hang=True), "setup(); say(*range(50)); handler.close()"),
    "at exit": (Answer(hang=True), "setup(); say(*range(50))"),
}


@pytest.mark.parametrize(("answer", "body"), AT_THE_SERVER.values(), ids=AT_THE_SERVER)
def test_killed_amid_a_request(
    answer: Answer, body: str, inspector: Inspector, start: Callable[..., Program], folder: Path
) -> None:
    """What the server has may come again, identically; what it has not comes."""
    inspector.answer_always = answer
    program = start("wait_long = threading.Event().wait\n" + body, SPOOL=str(folder))
    wait_until(lambda: bool(inspector.requests))
    program.kill()
    assert -9 == program.end()
    inspector.stop()
    inspector.answer_always = None
    inspector.start()
    drain(folder)

    assert 50 == len(program.names)
    assert_no_loss(program.names, inspector)
    assert arrived(inspector).duplicates in (0, 50)


def test_killed_amid_the_body(
    raw_server: Any, start: Callable[..., Program], folder: Path
) -> None:
    """A request of which the server has read a part is made again, whole."""
    amid = threading.Event()

    def behave(connection: Any, number: int, server: Any) -> None:
        connection.recv(200)
        amid.set()
        server.stopping.wait(SOON)

    server = raw_server(behave)
    large = "setup(); x = os.urandom(400_000).hex()\n"
    large += "log.info('x', extra={'event': 'x', 'n': '0', 'x': x}); os.write(1, b'0\\n')\n"
    program = start(large + "threading.Event().wait()", SPOOL=str(folder), HOST=server.url)
    assert amid.wait(SOON)
    program.kill()
    assert -9 == program.end()
    server.close()

    with Inspector(server.port) as inspector:  # the same address, as it stands in the header
        drain(folder)
        assert ["0"] == program.names
        assert {"0": 1} == names_at(inspector)


# Forks

SPAWNED = """
import concurrent.futures, multiprocessing
def work(name, count=3):
    if handler is None:
        setup()
    say(*(f"{name}.{n}" for n in range(count)))
"""

FORKS = {
    "os.fork, idle": """
setup(); say("p0"); handler.flush()
for child in range(5):
    pid = os.fork()
    if pid == 0:
        say(*(f"c{child}.{n}" for n in range(3)))
        handler.close()
        os._exit(0)
    wait(pid)
say("p1")
""",
    "os.fork, amid a request": """
setup(); say("p0"); sys.stdin.readline(); say("p1")
children = []
for child in range(5):
    pid = os.fork()
    if pid == 0:
        say(*(f"c{child}.{n}" for n in range(3)))
        handler.close()
        os._exit(0)
    children.append(pid)
say("p2")
for pid in children:
    wait(pid)
""",
    "os.fork, eight threads log": """
setup()
stop = threading.Event()
def log_on(thread):
    n = 0
    while not stop.is_set():
        say(f"t{thread}.{n}")
        n += 1
        time.sleep(0.001)
threads = [threading.Thread(target=log_on, args=(n,)) for n in range(8)]
[thread.start() for thread in threads]
for child in range(20):
    pid = os.fork()
    if pid == 0:
        say(f"c{child}")
        handler.close()
        os._exit(0)
    wait(pid)
stop.set()
""",
    "os.fork, the child ends by itself": """
setup(); say("p0")
pid = os.fork()
say("c0" if pid == 0 else "p1")
pid and wait(pid)
""",
    "os.fork, a late thread": """
setup(); say("p0")
pid = os.fork()
if pid == 0:
    thread = threading.Thread(target=say, args=("c0", "c1"))
    thread.start()
    thread.join()
pid and wait(pid)
""",
    "a fork of a fork": """
setup(); say("p0")
for level in "123":
    pid = os.fork()
    if pid:
        wait(pid)
        break
    say("c" + level)
""",
    "a handler per child": """
for child in range(4):
    pid = os.fork()
    if pid == 0:
        setup()
        say(f"c{child}")
        sys.exit(0)
    wait(pid)
setup()
say("p")
""",
    **{
        f"multiprocessing, {method}": SPAWNED
        + f"""
if __name__ == "__main__":
    setup(); say("p0")
    context = multiprocessing.get_context("{method}")
    children = [context.Process(target=work, args=(f"c{{n}}",)) for n in range(3)]
    [child.start() for child in children]
    say("p1")
    [child.join() for child in children]
    assert [child.exitcode for child in children] == [0] * 3
"""
        for method in ("fork", "forkserver", "spawn")
    },
    **{
        f"ProcessPoolExecutor, {method}": SPAWNED
        + f"""
if __name__ == "__main__":
    setup(); say("p0")
    context = multiprocessing.get_context("{method}")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(work, ["c0", "c1", "c2", "c3"]))
    say("p1")
"""
        for method in ("fork", "spawn")
    },
    "multiprocessing, one task a child": SPAWNED
    + """
if __name__ == "__main__":
    setup(); say("p0")
    context = multiprocessing.get_context("fork")
    with context.Pool(2, maxtasksperchild=1) as pool:
        pool.map(work, [f"c{n}" for n in range(6)], chunksize=1)
        pool.close()
        pool.join()
    say("p1")
""",
}


@pytest.mark.parametrize("spool", ["memory", "journal"])
@pytest.mark.parametrize("way", FORKS)
def test_forks(
    way: str, spool: str, inspector: Inspector, start: Callable[..., Program], folder: Path
) -> None:
    """Parent's and children's events arrive once each, and nothing hangs."""
    if "amid" in way:
        inspector.script(Answer(delay=0.5))
    program = start(FORKS[way], SPOOL=str(folder) if spool == "journal" else "")
    if "amid" in way:
        inspector.wait(count=1, timeout=SOON)
        program.go_on()

    assert (0, "") == (program.end(), program.stderr)
    drain(folder)
    assert Counter(program.names) == names_at(inspector)
    assert len(program.names) > 2


def test_children_that_end_by_os_exit(
    inspector: Inspector, start: Callable[..., Program], folder: Path
) -> None:
    """No hook runs at ``os._exit``: the journal has it, and the next process delivers it."""
    body = """
setup(); say("p0")
for child in range(5):
    pid = os.fork()
    if pid == 0:
        say(f"c{child}.0", f"c{child}.1")
        os._exit(0)
    wait(pid)
"""
    program = start(body, SPOOL=str(folder))

    assert (0, "") == (program.end(), program.stderr)
    assert 11 == len(program.names)
    drain(folder)
    assert Counter(program.names) == names_at(inspector)


APP = """
import logging, os
from posthog_logging import PostHogHandler
log = logging.getLogger("service")
log.setLevel(logging.INFO)
log.addHandler(PostHogHandler("phc_soak", os.environ["HOST"]))
def say(name):
    log.info("x", extra={"distinct_id": "u", "properties": {"n": name}})
say("preloaded")
def app(environ, start_response):
    say(environ["PATH_INFO"])
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("worker", ["sync", "gthread", "gevent"])
def test_gunicorn(worker: str, inspector: Inspector, tmp_path: Path) -> None:
    """With ``--preload``, what the parent and each request log arrives once, without hooks."""
    pytest.importorskip("gunicorn")
    if worker == "gevent":
        pytest.importorskip("gevent")
    (tmp_path / "preloaded_app.py").write_text(APP)
    words = f"-m gunicorn --preload -w 2 -k {worker} --threads 4 -b 127.0.0.1:0 preloaded_app:app"
    server = subprocess.Popen(
        [sys.executable, "-u", *words.split()],
        cwd=tmp_path,
        env={**os.environ, "HOST": inspector.url, "PYTHONPATH": f"{HERE}:{tmp_path}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        said = next(line for line in server.stderr if "Listening at: " in line)
        url = said.split("Listening at: ")[1].split()[0]
        visits = visit(url)
        if worker == "gevent" and sys.version_info[:2] == (3, 12):
            inspector.wait(count=1 + visits, timeout=SOON)  # its resolver needs a thread at exit
    finally:
        server.terminate()
        server.communicate(timeout=SOON)

    assert 0 == server.returncode
    assert Counter(["preloaded", *(f"/{n}" for n in range(visits))]) == names_at(inspector)


def visit(url: str) -> int:
    """Visit until two workers have answered, 40 times at least; return how often."""
    workers: set[bytes] = set()
    numbers = itertools.count()
    with ThreadPoolExecutor(4) as pool:
        while len(workers) < 2:
            workers |= set(pool.map(lambda n: ask(f"{url}/{n}"), itertools.islice(numbers, 40)))
    return next(numbers)


def ask(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=SOON) as response:
        body: bytes = response.read()
    return body


TASKS = """
import logging, os
from celery import Celery
from posthog_logging import PostHogHandler
folder = os.environ["BROKER"]
app = Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": folder, "data_folder_out": folder, "control_folder": folder,
        "polling_interval": 0.05,
    },
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
log = logging.getLogger("analytics")
log.setLevel(logging.INFO)
log.addHandler(PostHogHandler("phc_soak", os.environ["HOST"]))
@app.task
def play(name):
    log.info("x", extra={"distinct_id": "u", "properties": {"n": name}})
if __name__ == "__main__":
    for number in range(10):
        play.delay(str(number))
"""


def test_celery(inspector: Inspector, tmp_path: Path) -> None:
    """Of ten tasks, each in a process that ends with it, ten arrive (the rivals: one)."""
    pytest.importorskip("celery")
    broker = tmp_path / "broker"
    broker.mkdir()
    (tmp_path / "tasks.py").write_text(TASKS)
    env = {**os.environ, "HOST": inspector.url, "BROKER": str(broker), "PYTHONPATH": HERE}
    words = "-m celery --app tasks worker --pool prefork --concurrency 2 --max-tasks-per-child 1"
    words += " --without-gossip --without-mingle --without-heartbeat"
    subprocess.run([sys.executable, "tasks.py"], cwd=tmp_path, env=env, check=True, timeout=SOON)
    worker = subprocess.Popen(
        [sys.executable, *words.split()],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        inspector.wait(count=10, timeout=SOON)
    finally:
        worker.terminate()
        try:
            worker.wait(SOON)
        except subprocess.TimeoutExpired:  # once in a while, while its pool replaces a process
            worker.kill()
            worker.wait()

    assert Counter(str(number) for number in range(10)) == names_at(inspector)


# Exits

EXITS = {
    "the end": "say(*range(100))",
    "sys.exit in a thread": """
def work():
    say(*range(100))
    sys.exit(3)
threading.Thread(target=work).start()
""",
    "an exception": "say(*range(100)); raise LookupError('why')",
    "SIGTERM, default": "say(*range(100)); os.kill(os.getpid(), signal.SIGTERM); signal.pause()",
    "SIGTERM, handled": """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
say(*range(100)); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)
""",
    "logging.shutdown twice": "say(*range(100)); logging.shutdown(); logging.shutdown()",
    "in an atexit hook": "atexit.register(lambda: say(*range(100)))",
    "no thread to be had": """
import resource
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
threading.stack_size(2**31)
try:
    threading.Thread(target=print).start()
except RuntimeError:
    say(*range(100))
""",
    "os._exit": "say(*range(100)); os._exit(0)",
}
UNHEARD = ("SIGTERM, default", "os._exit")  # no code of ours runs then
SERVERS: dict[str, Answer | None] = {
    "up": None,
    "down": Answer(reset_after=0),
    "hanging": Answer(hang=True),
}
SPEAK = "logging.basicConfig(stream=sys.stderr, format='TOLD %(message)s'); setup()\n"


@pytest.mark.parametrize("spool", ["memory", "journal"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("ending", EXITS)
def test_exits(
    ending: str,
    server: str,
    spool: str,
    inspector: Inspector,
    start: Callable[..., Program],
    folder: Path,
) -> None:
    """An exit is bounded; what is not delivered is counted and told of once, or in the journal."""
    inspector.answer_always = SERVERS[server]
    began = time.monotonic()
    program = start(
        SPEAK + EXITS[ending],
        SPOOL=str(folder) if spool == "journal" else "",
        SHUTDOWN="1" if server != "up" else "20",
        REPORT="1",
    )
    status = program.end()
    took = time.monotonic() - began
    assert {"an exception": 1, "SIGTERM, default": -signal.SIGTERM}.get(ending, 0) == status
    assert 100 == len(program.names)
    assert took < 12.0
    heard = ending not in UNHEARD
    if heard:
        assert_exact(program.counts)
        assert 100 == program.counts["accepted"]
        assert program.stderr.count("(shutdown)") == (spool == "memory" and server != "up")
        if server == "up":
            assert 100 == program.counts["delivered"]
        elif spool == "memory":
            assert 100 == program.counts["shutdown"]
        else:
            assert 100 == program.counts["waiting"]
    if spool == "journal":
        inspector.stop()
        inspector.answer_always = None
        inspector.start()
        drain(folder)
        assert_no_loss(program.names, inspector)
    elif heard and server == "up":
        assert Counter(program.names) == names_at(inspector)


# A worker that cannot die silently


class Broken(BaseException):
    """What nobody expects."""


class Fragile:
    """An object of the user's own: the first calls of one verb raise."""

    def __init__(self, verb: str, error: BaseException) -> None:
        self._verb = verb
        self._error = error
        self._left = itertools.repeat(None, 1 if isinstance(error, (SystemExit, Broken)) else 3)

    def _may_raise(self, verb: str) -> None:
        if verb == self._verb:
            for _ in self._left:
                raise self._error


class FragileTransport(Fragile):
    def __init__(self, inner: Any, *args: Any) -> None:
        super().__init__(*args)
        self._inner = inner

    def send(self, request: Any, timeout: float) -> Response:
        self._may_raise("transport.send")
        response: Response = self._inner.send(request, timeout)
        return response

    def close(self) -> None:
        self._may_raise("transport.close")


class FragileSpool(Fragile, MemorySpool):
    def __init__(self, *args: Any) -> None:
        Fragile.__init__(self, *args)
        MemorySpool.__init__(self)

    def admit(self, line: bytes) -> bytes:
        self._may_raise("spool.admit")
        return super().admit(line)

    def append(self, items: Any) -> None:
        self._may_raise("spool.append")
        super().append(items)

    def take(self, count: int, size: int) -> Any:
        self._may_raise("spool.take")
        return super().take(count, size)

    def ack(self, kept: Any) -> None:
        self._may_raise("spool.ack")
        super().ack(kept)

    def evict(self, count: int) -> Any:
        self._may_raise("spool.evict")
        return super().evict(count)

    def close(self) -> None:
        self._may_raise("spool.close")
        super().close()


class FragileDialect(Fragile):
    name, limits, rules, codings, default_host = (
        V0.name,
        V0.limits,
        V0.rules,
        V0.codings,
        V0.default_host,
    )
    ingestion_host, decode = V0.ingestion_host, V0.decode

    def line(self, message: Any) -> bytes:
        self._may_raise("dialect.line")
        return V0.line(message)

    def uuid_of(self, line: bytes) -> str:
        self._may_raise("dialect.uuid_of")
        return V0.uuid_of(line)

    def request(self, *args: Any) -> Any:
        self._may_raise("dialect.request")
        return V0.request(*args)

    def results(self, response: Response) -> Any:
        self._may_raise("dialect.results")
        return V0.results(response)


VERBS = (
    *(f"transport.{verb}" for verb in ("send", "close")),
    *(f"spool.{verb}" for verb in ("admit", "append", "take", "ack", "evict", "close")),
    *(f"dialect.{verb}" for verb in ("line", "uuid_of", "request", "results")),
    "before_send",
    "on_error",
)


# What runs in the thread that logs or closes: an exit there is the program's own.
IN_THE_CALLER = {"spool.admit", "dialect.line", "before_send"}
IN_THE_CALLER |= {"spool.evict", "spool.close", "transport.close"}


@pytest.mark.parametrize(
    ("verb", "error"),
    [
        *(pytest.param(verb, RuntimeError("x"), id=verb) for verb in VERBS),
        *(
            pytest.param(verb, SystemExit(3), id=f"{verb}, exit")
            for verb in VERBS
            if verb not in IN_THE_CALLER
        ),
    ],
)
def test_a_raising_everything(
    verb: str, error: BaseException, transport: Any, make_handler: Any, make_log: Any
) -> None:
    """Whatever part raises: nothing comes out, the thread goes on, and the ledger is exact."""
    hook = Fragile(verb, error)

    def before_send(event: Any) -> Any:
        hook._may_raise("before_send")
        return event

    def on_error(*_: Any) -> None:
        hook._may_raise("on_error")

    if verb == "on_error":
        transport.script(413, 413, 413)
    handler = make_handler(
        flush_at=1,
        transport=FragileTransport(transport, verb, error),
        spool=FragileSpool(verb, error),
        dialect=FragileDialect(verb, error),
        before_send=before_send,
        on_error=on_error,
    )
    log = make_log(handler)
    for number in range(10):
        log.info("x", extra={"distinct_id": "u", "properties": {"n": str(number)}})
        if not isinstance(error, SystemExit):
            handler.flush(0.5)
    wait_until(lambda: handler.counts["waiting"] == 0)
    log.info("x", extra={"event": "e", "n": "last"})
    wait_until(lambda: handler.counts["waiting"] == 0)
    handler.close()

    counts = handler.counts
    assert_exact(counts)
    assert 11 == counts["accepted"]
    assert 0 == counts["waiting"]
    sent = {
        message.properties["n"] for request in transport.requests for message in V0.decode(request)
    }
    assert counts["delivered"] <= len(sent)
    assert "last" in sent
    assert isinstance(error, SystemExit) or counts["delivered"] >= 7


def test_a_dead_thread_is_replaced(transport: Any, make_handler: Any, make_log: Any) -> None:
    """What ends even the thread ends it alone: the next call starts another, nothing is lost."""
    died = threading.Event()
    before, threading.excepthook = threading.excepthook, lambda args: died.set()
    handler = make_handler(
        flush_at=1, transport=FragileTransport(transport, "transport.send", Broken())
    )
    log = make_log(handler)
    try:
        log.info("x", extra={"event": "e", "n": "0"})
        assert died.wait(SOON)
    finally:
        threading.excepthook = before
    log.info("x", extra={"event": "e", "n": "1"})
    wait_until(lambda: handler.counts["delivered"] == 2)

    assert 0 == losses(handler.counts)


# Memory


def test_a_burst(make_handler: Any, make_log: Any, inspector: Inspector) -> None:
    """By default, 100,000 events in a row are taken, also where nobody answers."""
    inspector.answer_always = Answer(hang=True)
    handler = make_handler(shutdown_timeout=0.2)
    log = make_log(handler)
    for number in range(100_000):
        log.info("x", extra={"distinct_id": "u", "properties": {"n": number, "c": "romcom"}})

    counts = handler.counts
    assert (100_000, 100_000, 0) == (counts["accepted"], counts["waiting"], losses(counts))


@pytest.mark.parametrize("overflow", ["drop_newest", "drop_oldest", "block"])
@pytest.mark.parametrize("bound", [{"max_queue_size": 50}, {"max_queue_bytes": 50_000}], ids=repr)
def test_overflow(
    bound: Any, overflow: str, inspector: Inspector, make_handler: Any, make_log: Any
) -> None:
    """What does not fit is counted as lost, the rest arrives, and which rest is as asked for."""
    inspector.answer_always = Answer(status=503)
    handler = make_handler(overflow=overflow, block_timeout=0.001, **bound)
    log = make_log(handler)
    for number in range(200):
        log.info("x", extra={"event": "e", "n": f"{number:03}", "x": "x" * 700})
    inspector.answer_always = None
    while not handler.flush(5.0):
        pass

    counts = handler.counts
    assert_exact(counts)
    assert counts["queue_full"] == 200 - counts["delivered"]
    assert 30 < counts["delivered"] <= 60 + 100 * (overflow == "drop_oldest")
    expected = "199" if overflow == "drop_oldest" else "000"
    assert expected in names_at(inspector)


def test_a_journal_takes_what_memory_would_not(
    inspector: Inspector, make_handler: Any, make_log: Any, folder: Path
) -> None:
    """With a spool, the bounds of memory bind nobody: the disk has its own."""
    inspector.answer_always = Answer(status=503)
    handler = make_handler(spool=folder, max_queue_size=10)
    log = make_log(handler)
    for number in range(1000):
        log.info("x", extra={"event": "e", "n": str(number)})
    inspector.answer_always = None
    while not handler.flush(5.0):
        pass

    assert 0 == losses(handler.counts)
    assert 1000 == len(names_at(inspector))


def test_a_spool_that_is_full(
    inspector: Inspector, make_handler: Any, make_log: Any, folder: Path
) -> None:
    """Where the disk's bound is reached, what is refused is counted, and the rest arrives."""
    inspector.answer_always = Answer(status=503)
    handler = make_handler(spool=folder, max_spool_bytes=100_000)
    log = make_log(handler)
    for number in range(1000):
        log.info("x", extra={"event": "e", "n": str(number)})
    inspector.answer_always = None
    while not handler.flush(5.0):
        pass

    counts = handler.counts
    assert_exact(counts)
    assert counts["spool_full"] == 1000 - counts["delivered"]
    assert counts["delivered"] == len(names_at(inspector)) > 100


def test_too_old(inspector: Inspector, start: Callable[..., Program], folder: Path) -> None:
    """What has waited for longer than ``max_age`` on the disk is counted, not sent."""
    program = start("setup(); say(*range(50)); os.kill(os.getpid(), 9)", SPOOL=str(folder))
    program.end()
    handler = PostHogHandler("phc_soak", inspector.url, spool=folder, max_age=0.0)
    handler.flush(SOON)
    handler.close()

    assert (50, 50) == (handler.counts["adopted"], handler.counts["expired"])
    assert [] == inspector.events
    assert [] == segments_in(folder)


def test_a_key_is_in_no_file(
    inspector: Inspector, make_handler: Any, make_log: Any, folder: Path
) -> None:
    """The folder remembers dialect and host, never the key."""
    inspector.answer_always = Answer(status=503)
    handler = make_handler("phc_a_very_secret_key", spool=folder)
    make_log(handler).info("x", extra={"event": "e"})
    handler.flush()

    content = b"".join(file.read_bytes() for file in folder.iterdir())
    assert inspector.url.encode() in content
    assert b"secret" not in content


def test_show_and_drain(
    inspector: Inspector, start: Callable[..., Program], folder: Path, capsys: Any
) -> None:
    """``spool show`` tells what a killed process left, and of whom; ``drain`` delivers it."""
    program = start("setup(); say(*range(50)); os.kill(os.getpid(), 9)", SPOOL=str(folder))
    program.end()
    (info,) = segments_in(folder)

    assert ("posthog", inspector.url, program.pid, False, 50) == info[1:6]
    drain(folder)
    assert Counter(program.names) == names_at(inspector)
    assert [] == segments_in(folder)


# Other kinds of programs

GEVENT = """
import gevent
setup()
def work(n):
    say(n)
    gevent.sleep(0.001)
    say(-n)
gevent.joinall([gevent.spawn(work, n) for n in range(1, 51)])
assert handler.flush(10)
say("last")
"""

ASYNCIO = """
import asyncio
setup()
async def work(n):
    say(n)
    await asyncio.sleep(0.001)
    say(-n)
async def main():
    await asyncio.gather(*(work(n) for n in range(1, 51)))
asyncio.run(main())
say("last")
"""

SIGNALS = """
setup()
numbers = iter(range(10**6))
def speak(*_):
    say(next(numbers))
speak(); handler.flush(5)  # or 2 ms are not enough for a handler, and they pile up
signal.signal(signal.SIGALRM, speak)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
for _ in range(5000):
    speak()
    if _ % 500 == 0:
        handler.flush(5)
signal.setitimer(signal.ITIMER_REAL, 0)
"""

DELS = """
import gc
setup()
numbers = iter(range(10**6))
class Noisy:
    def __init__(self):
        self.me = self
    def __del__(self):
        say(next(numbers))
gc.set_threshold(5, 2, 2)
for _ in range(2000):
    Noisy()
    say(next(numbers))
    if _ % 500 == 0:
        handler.flush(5)
gc.collect()
gc.disable()
"""

PROGRAMS = {"gevent": GEVENT, "asyncio": ASYNCIO, "signals": SIGNALS, "__del__": DELS}


@pytest.mark.parametrize("spool", ["memory", "journal"])
@pytest.mark.parametrize("kind", PROGRAMS)
def test_programs(
    kind: str, spool: str, inspector: Inspector, start: Callable[..., Program], folder: Path
) -> None:
    """Greenlets, tasks, signal handlers and garbage collections may log: each event comes once."""
    if kind == "gevent":
        pytest.importorskip("gevent")
    program = start(
        PROGRAMS[kind],
        SPOOL=str(folder) if spool == "journal" else "",
        GEVENT="1" if kind == "gevent" else "",
    )

    assert (0, "") == (program.end(), program.stderr)
    assert len(program.names) > 100
    assert Counter(program.names) == names_at(inspector)
    assert [] == segments_in(folder)


# Chaos

FAULTS = (
    Answer(status=503),
    Answer(hang=True),
    Answer(reset_after=0),
    Answer(reset_after=1),
    Answer(reset_after=30),
    Answer(reset_after=200),
    Answer(drip=0.05, body=b"x" * 1000),
    Answer(status=500),
    Answer(status=502, body=b"<html>bad gateway</html>"),
    Answer(status=429, headers={"Retry-After": "1"}),
    Answer(status=429),
    Answer(max_events=1),  # a 413, unless it is one event: that one would be lost, and counted
    Answer(status=200, body=b"<html>welcome</html>"),
    Answer(status=200, body=b"\x00\xff garbage"),
    Answer(status=200, headers={"Content-Encoding": "gzip"}, body=b"no gzip"),
    Answer(status=408),
)


def configure(url: str, folder: Path | None) -> PostHogHandler:
    """Set logging up as a program does; return the handler that it has now."""
    handler = {
        "class": "posthog_logging.PostHogHandler",
        "api_key": "phc_soak",
        "host": url,
        "spool": str(folder) if folder else None,
        "timeout": 0.3,
        "max_queue_size": 200_000,
        "shutdown_timeout": 3.0,
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"posthog": handler},
            "loggers": {"chaos": {"level": "INFO", "handlers": ["posthog"], "propagate": False}},
        }
    )
    found = logging.getLogger("chaos").handlers[0]
    assert isinstance(found, PostHogHandler)
    return found


@pytest.mark.parametrize(
    ("count", "spool"),
    [
        (20_000, "memory"),
        (100_000, "journal"),
        *(
            pytest.param(1_000_000, spool, marks=[pytest.mark.soak, pytest.mark.timeout(900)])
            for spool in ("memory", "journal")
        ),
    ],
)
@pytest.mark.timeout(150)
def test_chaos(count: int, spool: str, large: Inspector, folder: Path) -> None:
    """Through every fault, and set up anew amid them: the ledger is what the server has got."""
    path = folder if spool == "journal" else None
    answers = [*itertools.chain.from_iterable(zip(FAULTS, itertools.repeat(Answer()))), *FAULTS]
    large.script(*answers)
    handlers = list(log_through(count, large, path))
    while large.counts()["requests"] < len(answers):  # each has its turn
        say(str(count))
        handlers[-1].flush(1.0)
        count += 1
    # What ``dictConfig`` replaces is closed in a thread of its own.
    wait_until(lambda: not any(closing(one) for one in threading.enumerate()))
    while not handlers[-1].flush(SOON):
        pass
    handlers[-1].close()
    logging.getLogger("chaos").handlers.clear()
    if path is not None:
        drain(path)

    counts = [handler.counts for handler in handlers]
    for one in counts:
        assert_exact(one)
    got = arrived(large)
    lost = sum(map(losses, counts))
    assert (0, 0) == (got.different, got.bad)
    assert count == sum(one["accepted"] - one.get("adopted", 0) for one in counts)
    assert count - lost <= len(got.names) <= count
    assert path is None or 0 == lost


def log_through(count: int, server: Inspector, folder: Path | None) -> Iterator[PostHogHandler]:
    """Log *count* events; a third of the way nobody listens, half the way all is set up anew."""
    handler = configure(server.url, folder)
    yield handler
    for number in range(count):
        if number == count // 3:
            server.stop()
        elif number == count // 2:
            server.start()
            handler = configure(server.url, folder)
            yield handler
        say(str(number))
        if number % (count // 50) == 0:
            handler.flush(0.5)


# What becomes of an event that the server refuses in such a way. What looks like an outage is
# tried ever more seldom for half a day, so here the close ends it.
POISONED = {"400": "rejected", "reset": "shutdown", "503": "shutdown"}


@pytest.mark.parametrize(
    ("count", "kind"),
    [
        (20_000, "400"),
        (3_000, "reset"),
        *(
            pytest.param(100_000, kind, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])
            for kind in POISONED
        ),
    ],
)
@pytest.mark.timeout(300)
def test_chaos_with_poison(count: int, kind: str) -> None:
    """Amid all faults, an event in 500 that no server takes costs no other, and is counted."""
    with Poisoned(kind) as server:
        handler = PostHogHandler("phc_soak", server.url, timeout=0.5, max_queue_size=200_000)
        log = logging.getLogger("chaos")
        log.setLevel(logging.INFO)
        log.propagate = False
        log.handlers[:] = [handler]
        innocent = {str(n) for n in range(count) if n % 500 != 250}
        poisoned = count - len(innocent)
        for number in range(count):
            properties = {"n": str(number), "kind": "poison" if number % 500 == 250 else "good"}
            log.info("x", extra={"distinct_id": "u", "properties": properties})
        pause = threading.Event()
        while handler.counts["delivered"] < len(innocent):  # the test's own time-out ends it
            pause.wait(0.05)
        handler.close(1.0)
        log.handlers.clear()
        counts = handler.counts

    assert_exact(counts)
    assert innocent == server.names
    assert {POISONED[kind]: poisoned} == {
        reason: n for reason, n in counts.items() if n and reason not in NOT_LOSSES
    }
    assert 0 == server.faults_left


class Poisoned:
    """The server of ``soak/poison.py``, and what it has got when it has ended."""

    def __init__(self, kind: str) -> None:
        program = Path(__file__).parent / "soak" / "poison.py"
        self._process = subprocess.Popen(
            [sys.executable, str(program), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        self.names: set[str] = set()
        self.faults_left = 0

    def __enter__(self) -> Poisoned:
        return self

    def __exit__(self, *error: object) -> None:
        text, _ = self._process.communicate(timeout=SOON)
        found = json.loads(text)
        self.names = set(found["names"])
        self.faults_left = found["faults left"]


def closing(thread: threading.Thread) -> bool:
    """Return whether *thread* closes a handler; other tests have left threads of their own."""
    return thread.name == "posthog-logging" and not thread.daemon


def say(name: str) -> None:
    logging.getLogger("chaos").info("x", extra={"distinct_id": "u", "properties": {"n": name}})
