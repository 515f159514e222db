"""
Play scenarios in rounds, contenders interleaved, each measurement with its own two processes.

The only module that starts processes. A contender that does not end within the patience is
killed; what it had told by then, and what the sink had got, still counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from .child import Job
from .contenders import available
from .scenarios import SCENARIOS, Figures, Scenario
from .sink import ask


__all__ = ["Plan", "Results", "run", "sink"]

_HERE = Path(__file__).resolve().parent
_SECONDS_TO_SETTLE = 0.2

Key = tuple[str, str]  # scenario, contender


@dataclass(frozen=True)
class Plan:
    """
    What to play.

    Args:
        scale: multiplies every count; 1 is the real thing.
        patience: seconds until a contender that does not end is killed.
        hold: for how long, in seconds, the outage goes on after the last event.
        long: whether the flat scenario goes on to ten million events.
    """

    scenarios: Sequence[str] = tuple(SCENARIOS)
    contenders: Sequence[str] = ()
    rounds: int = 3
    scale: float = 1.0
    patience: float = 90.0
    patience_closing: float = 20.0
    hold: float = 6.0
    long: bool = False

    def count(self, scenario: Scenario) -> int:
        """Return how many events *scenario* has in this run."""
        count = scenario.count * (10 if self.long and scenario.name == "flat" else 1)
        return max(scenario.least, int(count * self.scale))

    def who(self, scenario: Scenario) -> list[str]:
        """Return who takes part: chosen, able to, and installed."""
        chosen = self.contenders or scenario.who
        return [name for name in scenario.who if name in chosen and available(name)]

    def limit(self, scenario: Scenario) -> float:
        """Return the patience for one measurement of *scenario*."""
        if scenario.name.startswith("close"):
            return self.patience_closing
        return self.patience + self.hold + self.count(scenario) / 2_000


@dataclass
class Results:
    """Figures by scenario and contender, one dict a round."""

    plan: Plan
    rounds: dict[Key, list[Figures]] = field(default_factory=dict)

    def add(self, scenario: str, contender: str, figures: Figures) -> None:
        """Note one measurement."""
        self.rounds.setdefault((scenario, contender), []).append(figures)

    def median(self, scenario: str, contender: str, figure: str) -> float | None:
        """Return a figure's median over the rounds; None where it was never measured."""
        values = self.values(scenario, contender, figure)
        return statistics.median(values) if values else None

    def worst(self, scenario: str, contender: str, figure: str) -> float | None:
        """Return a figure's maximum over the rounds; None where it was never measured."""
        return max(self.values(scenario, contender, figure), default=None)

    def values(self, scenario: str, contender: str, figure: str) -> list[float]:
        """Return a figure of every round that has it."""
        rounds = self.rounds.get((scenario, contender), [])
        return [figures[figure] for figures in rounds if figure in figures]

    def was_killed(self, scenario: str, contender: str) -> bool:
        """Return whether the contender had to be killed in any round."""
        return bool(self.values(scenario, contender, "killed"))

    def to_json(self) -> str:
        """Return everything as text, for `from_json`."""
        rounds = [[*key, figures] for key, figures in self.rounds.items()]
        return json.dumps({"plan": dataclasses.asdict(self.plan), "rounds": rounds})

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Return what `to_json` wrote."""
        said = json.loads(text)
        rounds = {
            (scenario, contender): figures for scenario, contender, figures in said["rounds"]
        }
        return cls(Plan(**said["plan"]), rounds)


def run(plan: Plan, progress: Callable[[str], None] = lambda text: None) -> Results:
    """Play *plan* and return its results."""
    results = Results(plan)
    for number in range(plan.rounds):
        for name in plan.scenarios:
            scenario = SCENARIOS[name]
            who = plan.who(scenario)
            turn = number % max(1, len(who))  # nobody is always first, nor after the same one
            for contender in who[turn:] + who[:turn]:
                figures = _measure(plan, scenario, contender)
                results.add(name, contender, figures)
                progress(f"round {number + 1} {name} {contender} {_brief(figures)}")
    return results


def _brief(figures: Figures) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in figures.items())


def _measure(plan: Plan, scenario: Scenario, contender: str) -> Figures:
    count = plan.count(scenario)
    with tempfile.TemporaryDirectory() as folder, sink() as (port, control):
        job = Job(contender, scenario.name, count, plan.hold, port, control, folder)
        figures = _played(job, plan.limit(scenario))
        if scenario.name.startswith("close"):
            time.sleep(_SECONDS_TO_SETTLE)
        arrived = ask(control, "/figures")
    return _derived({**figures, **arrived}, count)


def _derived(figures: Figures, count: int) -> Figures:
    """Add what follows from what was measured."""
    delivered = figures["delivered"]
    figures["lost"] = count - delivered
    if delivered:
        figures["wire_each"] = figures["wire_bytes"] / delivered
        figures["cpu_100k"] = figures.get("cpu", 0.0) / delivered * 100_000
    return figures


def _played(job: Job, limit: float) -> Figures:
    """Return what the child printed until it ended, or was killed."""
    child = _start("child", json.dumps(job))
    killed: Figures = {}
    begun = time.monotonic()
    try:
        told, errors = child.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        child.kill()
        told, errors = child.communicate()
        killed = {"killed": 1, "seconds": time.monotonic() - begun}
    if child.returncode and not killed:
        raise RuntimeError(f"{job.scenario}, {job.contender}: {errors.strip()[-2000:]}")
    figures: Figures = {}
    for line in told.splitlines():
        if line.startswith("{"):
            figures |= json.loads(line)
    return {**figures, **killed}


@contextlib.contextmanager
def sink() -> Iterator[tuple[int, int]]:
    """Run a sink; yields its port and the port to steer it by."""
    server = _start("sink")
    assert server.stdout is not None
    try:
        port, control = server.stdout.readline().split()
        yield int(port), int(control)
    finally:
        server.kill()
        server.communicate()


def _start(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a module of this package in a new interpreter."""
    return subprocess.Popen(
        [sys.executable, "-m", f"{_HERE.name}.{module}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=_HERE.parent,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    """Return ours, without what a test runner or a user's settings would change in the child."""
    foreign = ("PYTEST", "COVERAGE", "POSTHOG", "SENTRY", "OTEL", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    checkout = _HERE.parent.parent
    elsewhere = [path for path in sys.path if path and Path(path).resolve() != checkout]
    if PathFinder.find_spec("posthog_logging", elsewhere) is None:  # not installed: measure this
        kept["PYTHONPATH"] = str(checkout)
    return kept
