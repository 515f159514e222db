"""
What a broker costs and carries: the figures of the guide on many hosts.

    python -m tests.benchmarks.brokers rabbitmq redis

Starts the servers itself. CPU is user and system time of the processes of this library: of a
producer from its first log call to its last confirm, of a relay without its start.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


_TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(_TESTS))  # as pytest does

from servers import RabbitMQ, Redis, running  # noqa: E402

from benchmarks.runner import _environment, sink  # noqa: E402
from benchmarks.sink import ask  # noqa: E402
from posthog_logging.broker.address import address  # noqa: E402
from posthog_logging.broker.engine import Intake, engine_for  # noqa: E402


_SERVERS = {"rabbitmq": RabbitMQ, "redis": Redis}

_PRODUCER = """
import json, logging, resource, sys, time
from posthog_logging import PostHogHandler
where, count, broker = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "broker"
own = {"broker": where} if broker else {"api_key": "phc_x", "host": where}
handler = PostHogHandler(overflow="block", block_timeout=60.0, **own)
log = logging.getLogger("benchmark"); log.setLevel(logging.INFO); log.propagate = False
log.addHandler(handler)
def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
for seq in range(200):
    log.info("warm", extra={"distinct_id": "u", "properties": {"seq": seq}})
handler.flush(10)
begun, before = time.perf_counter(), cpu()
for seq in range(200, count):
    properties = {"seq": seq, "movie_id": f"m{seq % 997}", "category": "romcom", "price": 9.5,
                  "source": "search", "position": seq % 20}
    log.info("movie played", extra={"distinct_id": f"user-{seq % 1000}", "properties": properties})
flushed = handler.flush(60)
took, used = time.perf_counter() - begun, cpu() - before
counts = handler.counts
handler.close()
whole = flushed and counts["delivered"] == count
print(json.dumps({"seconds": took, "cpu": used, "whole": whole}))
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the brokers that are named, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("brokers", nargs="*", choices=_SERVERS, default=["rabbitmq"])
    parser.add_argument("--events", type=int, default=100_000)
    options = parser.parse_args(argv)
    print("| what | without a broker |", " | ".join(options.brokers), "|")
    print("|---|---|", "---|" * len(options.brokers), sep="")
    direct = _direct(options.events)
    columns = [_broker(_SERVERS[name], options.events) for name in options.brokers]
    for row in columns[0]:
        print(f"| {row} | {direct.get(row, '')} |", " | ".join(c[row] for c in columns), "|")


_CPU = "producer: CPU seconds for 100,000 events"
_RATE = "producer: events a second, as fast as it can"
_RELAY = "relay: CPU seconds for 100,000 events"
_INSTANT = "one relay, an instant endpoint: events a second"
_SLOW = "one relay, an endpoint of 100 ms: events a second"
_THREE = "three relays, an endpoint of 100 ms: events a second"


def _direct(count: int) -> dict[str, str]:
    with sink() as (port, _):
        return _produced(f"http://127.0.0.1:{port}", count, "http")


def _broker(kind: type[Any], count: int) -> dict[str, str]:
    with running(kind) as server:
        consumer = engine_for(address(server.url)).consumer(address(server.url), Intake())
        consumer.fetch(1, 0.1)  # which makes the queue
        consumer.close()
        found = _produced(server.url, count, "broker")
        busy, idle = (_cpu_of_a_relay(server.url) for _ in range(2))
        found[_RELAY] = f"{(busy - idle) * 100_000 / count:.2f}"
        for name, relays, mode in (
            (_INSTANT, 1, "up"),
            (_SLOW, 1, "slow:0.1"),
            (_THREE, 3, "slow:0.1"),
        ):
            _produced(server.url, count * 2, "broker")
            found[name] = f"{_rate(server.url, relays, mode, count * 2):,.0f}"
        return found


def _produced(where: str, count: int, way: str) -> dict[str, str]:
    """Log *count* events in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _PRODUCER, where, str(count), way],
        env=_environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    figures = json.loads(done.stdout)
    if not figures["whole"]:
        raise SystemExit(f"{way}: not all events were delivered")
    return {
        _CPU: f"{figures['cpu'] * 100_000 / count:.2f}",
        _RATE: f"{count / figures['seconds']:,.0f}",
    }


def _relay(broker: str, host: str, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "posthog_logging", "relay", "--broker", broker]
    return subprocess.Popen(
        [*command, "--host", host, "--dialect", "posthog-v0", "--api-key", "phc_x", *more],
        env=_environment(),
        stdout=subprocess.DEVNULL,
    )


def _cpu_of_a_relay(broker: str) -> float:
    """Return the CPU seconds of a relay that delivers what is there."""
    with _endpoint("up") as (url, _):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _relay(broker, url, "--once").wait(60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _rate(broker: str, relays: int, mode: str, count: int) -> float:
    """Return how many events a second arrive, from the first request to the last."""
    with _endpoint(mode) as (url, control):
        started = [_relay(broker, url) for _ in range(relays)]
        first, begun = 0, 0.0
        while (arrived := ask(control, "/figures")["delivered"]) < count:
            if arrived and not begun:
                first, begun = arrived, time.perf_counter()
            time.sleep(0.02)
        took = time.perf_counter() - begun
        for one in started:
            one.send_signal(signal.SIGTERM)
        for one in started:
            one.wait(40)
    return (count - first) / took


@contextmanager
def _endpoint(mode: str) -> Iterator[tuple[str, int]]:
    with sink() as (port, control):
        ask(control, f"/mode/{mode}")
        yield f"http://127.0.0.1:{port}", control


if __name__ == "__main__":
    os.environ.pop("POSTHOG_BROKER", None)
    main()
