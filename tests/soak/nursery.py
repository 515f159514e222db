"""
Bring up processes that log, and kill each at a random instant: a program, run by `kills`.

It imports all there is once, so that a child costs a fork and no more. What a child says in
its pipe after a log call has returned is what must arrive in the end.
"""

from __future__ import annotations

import json
import logging
import os
import random
import select
import signal
import sys
import time

from typing import Any, NoReturn

from posthog_logging import PostHogHandler


def main(url: str, folder: str, plan: dict[str, Any]) -> None:
    """Play all rounds of *plan*; print which calls returned, and how many kills there were."""
    chance = random.Random(plan["seed"])
    returned: list[str] = []
    for number in range(plan["rounds"]):
        children = [
            (_start(f"{number}.{child}", url, folder, plan), _patience(chance, plan))
            for child in range(plan["processes"])
        ]
        for (pid, pipe), (lines, seconds) in children:
            returned += _watch(pid, pipe, lines, seconds)
    kills = plan["rounds"] * plan["processes"]
    json.dump({"kills": kills, "returned": returned}, sys.stdout)


def _patience(chance: random.Random, plan: dict[str, Any]) -> tuple[int, float]:
    """Return after how many lines, or in how many seconds, a child is killed."""
    if chance.random() < 0.4:  # while it begins, adopts, sends, or has nothing more to do
        return sys.maxsize, 0.5 * chance.random() ** 2
    return int(plan["most"] * chance.random() ** 2), 10.0


def _start(name: str, url: str, folder: str, plan: dict[str, Any]) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work(writing, name, url, folder, plan)
    os.close(writing)
    return pid, reading


def _work(pipe: int, name: str, url: str, folder: str, plan: dict[str, Any]) -> NoReturn:
    """Log as much as there may be, and wait for the end, which comes from outside."""
    where = {"host": url} if url.startswith("http") else {"broker": url}
    handler = PostHogHandler("phc_soak", **where, spool=folder, flush_interval=0.1)
    log = logging.getLogger("soak")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    for number in range(plan["most"]):
        said = {"n": f"{name}.{number}", "x": "x" * plan["size"]}
        log.info("movie played", extra={"distinct_id": "user-1", "properties": said})
        os.write(pipe, b"%s.%d\n" % (name.encode(), number))
    while True:
        signal.pause()


def _watch(pid: int, pipe: int, lines: int, seconds: float) -> list[str]:
    """Let the child say so many *lines*, or live for so many *seconds*; kill it then."""
    said = b""
    deadline = time.monotonic() + seconds
    while said.count(b"\n") < lines:
        left = deadline - time.monotonic()
        if left < 0 or not select.select([pipe], [], [], left)[0]:
            break
        said += os.read(pipe, 4096)
    os.kill(pid, signal.SIGKILL)
    while piece := os.read(pipe, 65536):
        said += piece
    os.close(pipe)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    return said.decode().split("\n")[:-1]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
