"""
``python -m tests.soak.volume``: ten million events flat out, then a day's worth in 20 minutes.

Prints a line a minute; at the end compares what arrived with what was logged, the memory with
what it was at the begin, and the price of the last calls with that of the first.
"""

from __future__ import annotations

import argparse
import functools
import gc
import logging
import math
import statistics
import sys
import tempfile
import time

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from posthog_logging import PostHogHandler

from ..benchmarks.runner import sink
from ..benchmarks.sink import ask


__all__ = ["main"]

_SAMPLE = 17  # every so many calls one is timed
_SECONDS_OF_A_DAY = 24 * 3600.0
_MOST_GROWTH = 10.0  # MB, after the first minute
_MOST_SLOWER = 1.3  # the last minute's median, by that of the first


def _memory() -> float:
    """Return how much memory this process has, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


@dataclass
class _Diary:
    """One line a minute: what was logged, what one call cost, how much memory there was."""

    name: str
    handler: PostHogHandler
    is_paced: bool
    lines: list[tuple[float, float]] = field(default_factory=list)
    _times: list[int] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _next: float = 60.0

    def note(self, nanoseconds: int) -> None:
        """Take the duration of one call; print the line when a minute is over."""
        self._times.append(nanoseconds)
        if time.monotonic() - self._began >= self._next:
            self._next += 60.0
            self.print()

    def print(self) -> None:
        """Print a line, if there is anything new."""
        if len(self._times) < 2:
            return
        cuts = statistics.quantiles(self._times, n=100)
        median, memory, counts = cuts[49] / 1000, _memory(), self.handler.counts
        self.lines.append((median, memory))
        print(
            f"{self.name} {time.monotonic() - self._began:6.0f} s"
            f" {counts['accepted']:>11,} accepted {counts['waiting']:>8,} waiting"
            f" p50 {median:6.2f} µs p99 {cuts[98] / 1000:8.2f} µs {memory:6.1f} MB",
            flush=True,
        )
        self._times.clear()

    def complaints(self) -> Iterator[str]:
        """Yield what was not the same at the end as at the begin."""
        (first, before), (last, after) = self.lines[0], self.lines[-1]
        if after - before > _MOST_GROWTH:
            yield f"memory grew from {before:.1f} to {after:.1f} MB"
        # Between calls that are far apart the processor sleeps; that costs more than the call.
        if last > _MOST_SLOWER * first and not self.is_paced:
            yield f"a call took {first:.2f} µs at first, {last:.2f} µs at last"


def _logged(log: logging.Logger, diary: _Diary, number: int) -> None:
    """Log one event; time some of the calls."""
    properties = {"seq": number, "category": f"c{number % 13}", "premium": number % 3 == 0}
    extra = {"distinct_id": f"user-{number % 99_991}", "properties": properties}
    if number % _SAMPLE:
        log.info("movie played", extra=extra)
        return
    begun = time.perf_counter_ns()
    log.info("movie played", extra=extra)
    diary.note(time.perf_counter_ns() - begun)


def _flat_out(count: int, log: logging.Logger, diary: _Diary, steer: Callable[[str], Any]) -> int:
    for number in range(count):
        _logged(log, diary, number)
    return count


def _day(
    seconds: float, most: float, log: logging.Logger, diary: _Diary, steer: Callable[[str], Any]
) -> int:
    """Log at up to *most* events a second, fewest at night; the server has bad hours, too."""
    troubles = {6: "503", 12: "refuse", 18: "503"}  # by the hour; each lasts for one
    number, mode, begun = 0, "up", time.monotonic()
    while (hour := (time.monotonic() - begun) / seconds * 24) < 24:
        wanted = troubles.get(int(hour), "up")
        if wanted != mode:
            mode = wanted
            steer(f"/mode/{mode}")
        rate = most * (0.55 - 0.45 * math.cos(hour / 24 * 2 * math.pi))
        for _ in range(max(1, int(rate / 100))):
            _logged(log, diary, number)
            number += 1
        time.sleep(0.01)
    steer("/mode/up")
    return number


def _play(
    name: str,
    is_paced: bool,
    run: Callable[[logging.Logger, _Diary, Callable[[str], Any]], int],
    **options: Any,
) -> bool:
    """Run one scenario; return whether all arrived once, and nothing grew."""
    with sink() as (port, control):
        handler = PostHogHandler("phc_soak", f"http://127.0.0.1:{port}", **options)
        log = logging.getLogger(name)
        log.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(handler)
        diary = _Diary(name, handler, is_paced)
        steer = functools.partial(ask, control)
        gc.collect()
        count = run(log, diary, steer)
        diary.print()
        delivered = handler.flush(120)
        handler.close()
        arrived, counts = steer("/figures"), dict(handler.counts)
    complaints = list(diary.complaints())
    if not delivered or arrived["delivered"] != count or counts["delivered"] != count:
        complaints.append(f"of {count:,} events {arrived['delivered']:,} arrived")
    repeats = arrived["duplicates"]
    print(f"{name}: {count:,} events, {repeats:,} twice, {counts}, {complaints or 'fine'}")
    return not complaints


def main(words: Sequence[str] | None = None) -> int:
    """Return 0 if all is the same at the end, and nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.volume", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000, help="flat out")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long a day takes")
    parser.add_argument("--most", type=float, default=2000.0, help="events a second, at noon")
    given = parser.parse_args(words)
    flat_out = functools.partial(_flat_out, given.events)
    day = functools.partial(_day, given.minutes * 60, given.most)
    fine = not given.events or _play(
        "flat out", False, flat_out, overflow="block", block_timeout=60.0
    )
    with tempfile.TemporaryDirectory() as folder:
        return 0 if _play("a day", True, day, spool=folder) and fine else 1


if __name__ == "__main__":
    sys.exit(main())
