"""
Real servers for tests: RabbitMQ, Redis and Kafka's mock, each with ports and a folder of its own.

Each runs as an unprivileged user where the tests run as root, below port 32768 (above,
outgoing connections collide), every wait is bounded, and each is ended by its own pid.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


__all__ = ["KafkaMock", "RabbitMQ", "Redis", "free_ports", "running"]

_RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_READY_WITHIN = 45.0


def free_ports(count: int) -> int:
    """Return the first of *count* neighbouring ports of this machine that nobody listens on."""
    for _ in range(200):
        first = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise RuntimeError("no free ports")


def _until(is_ready: Any, what: str, within: float = _READY_WITHIN) -> None:
    deadline = time.monotonic() + within
    while not is_ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} was not ready within {within:.0f} s")
        time.sleep(0.05)


def _answers(port: int, question: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection:
            connection.settimeout(1.0)
            connection.sendall(question)
            return bool(connection.recv(1))
    except OSError:
        return False


class _Server:
    """A program with a folder and a port, started at once and again after `stop`."""

    ports = 1

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="server-"))
        self.port = free_ports(self.ports)
        self._as_nobody: list[str] = []
        if os.getuid() == 0:
            self._as_nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups".split()
            self.folder.chmod(0o777)
        self._started: list[subprocess.Popen[bytes]] = []
        atexit.register(self.close)
        self.start()

    def start(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End it and remove its folder."""
        atexit.unregister(self.close)
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self) -> None:
        """End it as its administrator would."""
        for process in reversed(self._started):
            _end(process, signal.SIGTERM)
        self._started.clear()

    def kill(self) -> None:
        """End it without a word."""
        for process in reversed(self._started):
            _end(process, signal.SIGKILL)
        self._started.clear()

    def _run(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        log = (self.folder / "output").open("ab")
        process = subprocess.Popen(
            [*self._as_nobody, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment or None,
            cwd=self.folder,
        )
        log.close()
        self._started.append(process)
        return process


def _end(process: subprocess.Popen[bytes], how: int) -> None:
    process.send_signal(how)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


class RabbitMQ(_Server):
    """A broker of one node, with a port mapper of its own: else a daemon outlives it."""

    ports = 3

    @property
    def url(self) -> str:
        """Where it is, with the user that it is born with."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start it and wait until it speaks AMQP."""
        folder, port = self.folder, self.port
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.console = false\n"
            "vm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 50MB\n"
        )
        (folder / "enabled_plugins").write_text("[].\n")
        epmd = shutil.which("epmd") or "epmd"
        self._run(epmd, "-port", str(port + 2), "-address", "127.0.0.1")
        self._run(
            _RABBITMQ,
            **self._environment(),
            RABBITMQ_DIST_PORT=str(port + 1),
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(port),
            RABBITMQ_BASE=str(folder),
            RABBITMQ_MNESIA_BASE=str(folder / "mnesia"),
            RABBITMQ_LOG_BASE=str(folder / "log"),
            RABBITMQ_SCHEMA_DIR=str(folder / "schema"),
            RABBITMQ_GENERATED_CONFIG_DIR=str(folder / "schema"),
            RABBITMQ_CONF_ENV_FILE=str(folder / "none"),
            RABBITMQ_CONFIG_FILE=str(folder / "rabbitmq.conf"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "enabled_plugins"),
            RABBITMQ_PID_FILE=str(folder / "pid"),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=(
                "+sbwt none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        )
        _until(lambda: _answers(port, b"AMQP\0\0\x09\x01"), "rabbitmq-server")

    def kill(self) -> None:
        """End it without a word: what was started is a script, the broker has a pid of its own."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
        super().kill()
        _until(lambda: not _answers(self.port, b"AMQP\0\0\x09\x01"), "the end of the broker", 10.0)

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` with *arguments* and return what it prints."""
        command = ["/usr/lib/rabbitmq/bin/rabbitmqctl", "--node", self._node, *arguments]
        done = subprocess.run(
            [*self._as_nobody, *command],
            env={**self._environment(), "RABBITMQ_LOG_BASE": str(self.folder / "log")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def _node(self) -> str:
        return f"t{self.port}@localhost"

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": self._node,
            "ERL_EPMD_PORT": str(self.port + 2),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }


class Redis(_Server):
    """A Redis that keeps an append-only file; *options* are its own, without the dashes."""

    def __init__(self, **options: str) -> None:
        self._options = {"appendonly": "yes", "maxmemory-policy": "noeviction"}
        self._options.update({name.replace("_", "-"): value for name, value in options.items()})
        super().__init__()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        given = [word for name, value in self._options.items() for word in (f"--{name}", value)]
        self._run(
            shutil.which("redis-server") or "redis-server",
            *f"--port {self.port} --bind 127.0.0.1 --dir {self.folder} --daemonize no".split(),
            *("--save", ""),
            *given,
        )
        _until(lambda: _answers(self.port, b"PING\r\n"), "redis-server", 10.0)


class KafkaMock:
    """
    The mock cluster of librdkafka: the real protocol, in this process, in memory.

    It keeps about 70,000 messages.
    """

    def __init__(self, partitions: int = 4) -> None:
        from confluent_kafka import Producer

        self._producer = Producer(
            {
                "test.mock.num.brokers": 1,
                "bootstrap.servers": "x",
                "topic.metadata.refresh.interval.ms": 1000,
                "log_level": 0,
            }
        )
        brokers = self._producer.list_topics(timeout=10).brokers
        broker = next(iter(brokers.values()))
        self.port = broker.port
        self.url = f"kafka://{broker.host}:{broker.port}/"

    def start(self) -> None:
        """Do nothing: it runs."""

    def close(self) -> None:
        """Give it back."""
        del self._producer


def _missing(kind: type[Any]) -> str:
    """Return what this machine has not to run *kind*; "" where it has all."""
    packages = {RabbitMQ: "pika", Redis: "redis", KafkaMock: "confluent_kafka"}
    try:
        __import__(packages[kind])
    except ImportError:
        return packages[kind]
    if kind is RabbitMQ and not os.path.exists(_RABBITMQ):
        return "rabbitmq-server"
    if kind is Redis and shutil.which("redis-server") is None:
        return "redis-server"
    return ""


@contextlib.contextmanager
def running(kind: type[Any], **options: Any) -> Iterator[Any]:
    """Run a server of *kind* meanwhile; skip the test, with a line, where it is not installed."""
    missing = _missing(kind)
    if missing:
        pytest.skip(f"{missing} is not installed")
    server = kind(**options)
    try:
        yield server
    finally:
        server.close()
