"""``python -m tests.soak``: the long reliability tests, then kills until the time is up."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from posthog_logging.inspector import Inspector

from .kills import Plan, arrived, drain, kill_all


__all__ = ["main"]

_LONG = [str(Path(__file__).parents[1] / "test_reliability.py"), "-q", "-m", "soak or not soak"]


def main(words: Sequence[str] | None = None) -> int:
    """Return 0 if nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0, help="for how long to kill")
    parser.add_argument("--seed", type=int, default=0, help="where chance begins")
    parser.add_argument("--kills-only", action="store_true", help="leave the long tests out")
    options = parser.parse_args(words)
    if not options.kills_only and pytest.main(_LONG):
        return 1
    return _kill(time.monotonic() + options.hours * 3600, options.seed)


def _kill(deadline: float, seed: int) -> int:
    kills = events = 0
    for plan in _plans(seed):
        killed, returned, missing, different = _play(plan)
        kills += killed
        events += returned
        print(f"seed {plan.seed}: {kills} kills, {events} events, {missing} missing", flush=True)
        if missing or different:
            print(f"LOST {missing}, CHANGED {different}: {plan}", file=sys.stderr)
            return 1
        if time.monotonic() > deadline:
            return 0
    return 0


def _plans(seed: int) -> Iterator[Plan]:
    """Yield plans for ever: one process, four, and segments that are full soon."""
    while True:
        yield Plan(rounds=100, most=2000, seed=seed)
        yield Plan(rounds=25, processes=4, most=2000, seed=seed + 1)
        yield Plan(rounds=20, processes=2, most=200, size=60_000, seed=seed + 2)
        seed += 3


def _play(plan: Plan) -> tuple[int, int, int, int]:
    """Return the kills, the calls that returned, and how many events are missing or changed."""
    with Inspector(capacity=2_000_000) as inspector, tempfile.TemporaryDirectory() as folder:
        kills, returned = kill_all(plan, inspector.url, Path(folder))
        drain(Path(folder))
        got = arrived(inspector)
    return kills, len(returned), len(set(returned) - got.names), got.different + got.bad


if __name__ == "__main__":
    sys.exit(main())
