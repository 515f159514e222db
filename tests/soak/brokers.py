"""
``python -m tests.soak.brokers``: kill producers and relays, and restart the broker.

What a log call has returned for must arrive; what comes twice must be the same, byte by byte.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from posthog_logging.inspector import Inspector

from ..servers import KafkaMock, RabbitMQ, Redis
from .kills import PATH, Plan, arrived, drain, kill_all


__all__ = ["main"]

_KINDS = {"rabbitmq": RabbitMQ, "redis": Redis, "kafka": KafkaMock}

#: Kafka's mock keeps about 70,000 messages.
_MOST = {"rabbitmq": 3000, "redis": 3000, "kafka": 700}

_RELAYS = 2
_LONGEST_LIFE = 3.0  # seconds, for a relay to which nothing comes
_ARRIVED_WITHIN = 180.0  # what a killed relay had is another's after a minute, with Redis


class Result(NamedTuple):
    """What became of the events of one broker."""

    producers: int  # killed
    relays: int  # killed
    returned: int
    missing: int
    repeats: int
    changed: int


def main(words: Sequence[str] | None = None) -> int:
    """Return 0 if nothing was lost or changed."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.brokers", description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*_KINDS, []], help="which (default all)")
    parser.add_argument("--producers", type=int, default=100, help="how many are killed of each")
    parser.add_argument("--seed", type=int, default=0, help="where chance begins")
    options = parser.parse_args(words)
    lost = 0
    for name in options.kinds or _KINDS:
        result = _play(name, options.producers, options.seed)
        print(name, *(f"{key} {value}" for key, value in result._asdict().items()), flush=True)
        lost += result.missing + result.changed
    return 1 if lost else 0


def _play(name: str, rounds: int, seed: int) -> Result:
    server = _KINDS[name]()
    try:
        with Inspector(capacity=2_000_000) as inspector, tempfile.TemporaryDirectory() as folder:
            relays = _Relays(server.url, inspector, random.Random(seed))
            _endure(server, name, relays)
            relays.start()
            plan = Plan(rounds=rounds, most=_MOST[name], seed=seed)
            kills, returned = kill_all(plan, server.url, Path(folder))
            drain(Path(folder), server.url)
            relays.stop_killing()
            deadline = time.monotonic() + _ARRIVED_WITHIN
            while set(returned) - arrived(inspector).names and time.monotonic() < deadline:
                time.sleep(1.0)
            relays.close()
            got = arrived(inspector)
    finally:
        server.close()
    missing = len(set(returned) - got.names)
    return Result(
        kills, relays.kills, len(returned), missing, got.duplicates, got.different + got.bad
    )


def _endure(server: Any, name: str, relays: _Relays) -> None:
    """Let the broker be restarted twice on the way; Kafka's mock cannot be."""
    if name != "kafka":
        relays.restart = lambda: (server.stop(), server.start())


class _Relays(threading.Thread):
    """Two relays, of which one is killed, and another begun, all the time."""

    def __init__(self, broker: str, inspector: Inspector, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self.restart: Any = None
        self._broker = broker
        self._inspector = inspector
        self._chance = chance
        self._enough = threading.Event()
        self._running = [self._begin() for _ in range(_RELAYS)]

    def run(self) -> None:
        """Kill by progress, or where there is none, after a while."""
        while not self._enough.is_set():
            before = self._inspector.counts()["total"]
            deadline = time.monotonic() + _LONGEST_LIFE
            while self._inspector.counts()["total"] == before and time.monotonic() < deadline:
                if self._enough.wait(0.05):
                    return
            self._enough.wait(self._chance.random() / 2)
            self._end(self._running.pop(0))
            self.kills += 1
            self._running.append(self._begin())
            if self.restart is not None and self.kills in (10, 30):
                self.restart()

    def stop_killing(self) -> None:
        """Let those that run go on."""
        self._enough.set()
        self.join(60)

    def close(self) -> None:
        """End all."""
        for one in self._running:
            one.terminate()
            one.wait(60)

    def _begin(self) -> subprocess.Popen[bytes]:
        words = ["relay", "--broker", self._broker, "--host", self._inspector.url, "--workers=2"]
        environment = {**os.environ, "PYTHONPATH": PATH, "POSTHOG_API_KEY": "phc_soak"}
        return subprocess.Popen(
            [sys.executable, "-m", "posthog_logging", *words],
            env={**environment, "no_proxy": "127.0.0.1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait(10)


if __name__ == "__main__":
    sys.exit(main())
