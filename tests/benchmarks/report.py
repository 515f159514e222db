"""What a run showed, as Markdown: the issue's targets, a table a scenario, and the machine."""

from __future__ import annotations

import os
import platform
import statistics

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from .contenders import CONTENDERS
from .runner import Results
from .scenarios import SCENARIOS, Scenario


__all__ = ["TARGETS", "Target", "machine", "markdown", "targets"]

_PACKAGES = """posthog_logging posthog segment-analytics-python sentry-sdk opentelemetry-sdk
requests orjson isal""".split()

_Measure = Callable[[Results], "float | None"]


class Target(NamedTuple):
    """What is to be reached: *measured* at most, or at least, *limit*."""

    text: str
    measured: _Measure
    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Return whether *value* is good enough."""
        return value >= self.limit if self.at_least else value <= self.limit


def _paired(over: tuple[str, str, str], under: tuple[str, str, str]) -> _Measure:
    """Return the median over the rounds of a ratio inside each."""

    def measure(results: Results) -> float | None:
        pairs = zip(results.values(*over), results.values(*under), strict=False)
        ratios = [above / below for above, below in pairs if below > 0]
        return statistics.median(ratios) if ratios else None

    return measure


def _to_f(scenario: str, figure: str, who: str) -> _Measure:
    return _paired((scenario, who, figure), (scenario, "null", figure))


def _ph_to(scenario: str, figure: str, who: str) -> _Measure:
    return _paired((scenario, "posthog", figure), (scenario, who, figure))


def _on_top(who: str) -> _Measure:
    return _paired(("foreign", who, "on_top"), ("burst", "null", "p50"))


def _net_of_pacing(who: str) -> _Measure:
    """Compare CPU without that of the loop that paces, which is nobody's."""

    def measure(results: Results) -> float | None:
        loop = results.median("paced", "nothing", "cpu")
        rival, own = (results.median("paced", name, "cpu") for name in ("posthog", who))
        if loop is None or rival is None or own is None or own <= loop:
            return None
        return (rival - loop) / (own - loop)

    return measure


_LINGER = 0.5  # the pipeline's default, in seconds


def _requests_a_linger(who: str) -> _Measure:
    def measure(results: Results) -> float | None:
        requests = results.median("paced", who, "requests")
        seconds = results.median("paced", who, "seconds")
        if requests is None or seconds is None:
            return None
        return (requests - 1) / (seconds / _LINGER)  # the flush at the end makes one more

    return measure


def _worst(scenario: str, figure: str, *who: str) -> _Measure:
    def measure(results: Results) -> float | None:
        found = (results.worst(scenario, name, figure) for name in who)
        return max((value for value in found if value is not None), default=None)

    return measure


_OURS = ("ours", "ours_fast", "ours_journal", "ours_fast_journal")
_KEPT = ("ours", "ours_fast")

TARGETS = (
    Target("caller's p50 / F, [fast]", _to_f("burst", "p50", "ours_fast"), 1.2),
    Target("caller's p50 / F, plain", _to_f("burst", "p50", "ours"), 1.8),
    Target("caller's mean in a burst / F, [fast]", _to_f("burst", "mean", "ours_fast"), 1.5),
    Target("caller's mean in a burst / F, plain", _to_f("burst", "mean", "ours"), 1.9),
    Target("PH / caller's mean in a burst, [fast]", _ph_to("burst", "mean", "ours_fast"), 8, True),
    Target("PH / caller's mean in a burst, plain", _ph_to("burst", "mean", "ours"), 8, True),
    Target("lost in the burst", _worst("burst", "lost", *_OURS), 0),
    Target("p50 with journal / F, [fast]", _to_f("burst", "p50", "ours_fast_journal"), 1.5),
    Target("mean with journal / F, [fast]", _to_f("burst", "mean", "ours_fast_journal"), 1.9),
    Target(
        "p99 with journal beside a busy thread / F's there",
        _to_f("busy", "p99", "ours_fast_journal"),
        5.0,
    ),
    Target("Analytics.capture p50 / F, [fast]", _to_f("burst", "p50", "capture_fast"), 0.33),
    Target("Analytics.capture p50 / F, plain", _to_f("burst", "p50", "capture"), 0.4),
    Target("a record that is no event, on top / F", _on_top("ours"), 0.04),
    Target("mean of 8 threads / F's, [fast]", _to_f("threads", "mean", "ours_fast"), 1.2),
    Target("mean of 8 threads / F's, plain", _to_f("threads", "mean", "ours"), 1.3),
    Target("PH / mean of 8 threads, [fast]", _ph_to("threads", "mean", "ours_fast"), 20, True),
    Target("PH / mean of 8 threads, plain", _ph_to("threads", "mean", "ours"), 20, True),
    Target(
        "PH / mean of 8 threads, F itself: the most that is possible",
        _ph_to("threads", "mean", "null"),
        20,
        True,
    ),
    Target("PH / CPU of 100,000 delivered, plain", _ph_to("burst", "cpu_100k", "ours"), 8, True),
    Target(
        "PH / CPU of 100,000 delivered, [fast]", _ph_to("burst", "cpu_100k", "ours_fast"), 10, True
    ),
    Target(
        "CPU of 100,000 delivered / F's, [fast]",
        _paired(("burst", "ours_fast", "cpu_100k"), ("burst", "null", "cpu")),
        1.3 / 0.6,
    ),
    Target("PH / CPU at 2,000 a second, net of the loop, plain", _net_of_pacing("ours"), 5, True),
    Target(
        "PH / CPU at 2,000 a second, net of the loop, [fast]",
        _net_of_pacing("ours_fast"),
        5,
        True,
    ),
    Target("requests a linger at 2,000 a second", _requests_a_linger("ours"), 1.0),
    Target(
        "PH / time of 20,000 at 50 ms latency, plain",
        _ph_to("latency", "seconds", "ours"),
        15,
        True,
    ),
    Target("lost of 100,000 with default options", _worst("defaults", "lost", *_OURS), 0),
    Target("lost of 60,000 in the outage", _worst("outage", "lost", *_OURS), 0),
    Target("delivered twice in the outage", _worst("outage", "duplicates", *_OURS), 0),
    Target("memory's peak growth in the outage, MB", _worst("outage", "rss", *_KEPT), 20),
    Target(
        "close() / PH's, server up, plain",
        _paired(("close_up", "ours", "seconds"), ("close_up", "posthog", "seconds")),
        0.25,
    ),
    Target(
        "close() / shutdown_timeout, server down", _worst("close_down", "seconds", *_OURS), 5.05
    ),
    Target(
        "close() / shutdown_timeout, server hangs", _worst("close_hang", "seconds", *_OURS), 5.05
    ),
    Target(
        "wake-up p99 at 2,000 a second / F's, [fast]", _to_f("paced", "wake_p99", "ours_fast"), 2
    ),
    Target("wake-up p99 at 2,000 a second / F's, plain", _to_f("paced", "wake_p99", "ours"), 2),
    Target(
        "cost of the last events / of the first, plain",
        _paired(("flat", "ours", "last"), ("flat", "ours", "first")),
        1.1,
    ),
    Target("memory's growth from 10,000 events on, MB", _worst("flat", "rss", *_KEPT), 10),
)


def targets(results: Results) -> str:
    """Return the targets of the issue as a table; those that were not measured are left out."""
    rows = []
    for target in TARGETS:
        value = target.measured(results)
        if value is not None:
            limit = f"{'≥' if target.at_least else '≤'} {target.limit:g}"
            rows.append(
                [target.text, limit, _number(value), "yes" if target.met(value) else "**no**"]
            )
    return _table(["what", "target", "measured", "met"], rows)


def table(results: Results, scenario: Scenario) -> str:
    """Return one scenario: medians, and beside the caller's mean its ratios to F and PH."""
    rows = []
    for name in scenario.who:
        if (scenario.name, name) in results.rounds:
            cells = [_cell(results, scenario, name, figure) for figure in scenario.columns]
            rows.append([_title(scenario, name), *cells, *_ratios(results, scenario, name)])
    return _table(["", *scenario.columns.values(), *_RATIO_OF.get(_basis(scenario), ())], rows)


#: What of a table is compared with F and with PH.
_RATIO_OF = {"mean": ("mean / F", "PH / mean"), "seconds": ("PH / s",), "": ()}


def _basis(scenario: Scenario) -> str:
    return next((figure for figure in ("mean", "seconds") if figure in scenario.columns), "")


def _ratios(results: Results, scenario: Scenario, name: str) -> list[str]:
    figure = _basis(scenario)
    measures = {
        "mean": (_to_f(scenario.name, figure, name), _ph_to(scenario.name, figure, name)),
        "seconds": (_ph_to(scenario.name, figure, name),),
        "": (),
    }[figure]
    values = (measure(results) for measure in measures)
    return ["-" if value is None else _number(value) for value in values]


def _title(scenario: Scenario, name: str) -> str:
    contender = CONTENDERS[name]
    return contender.title + (" (queue of 200,000)" if scenario.big and contender.bounded else "")


#: Figures that say nothing of who sends nothing.
_OF_DELIVERY = frozenset({"lost", "duplicates", "requests", "cpu_100k", "wire_each", "seconds"})


def _cell(results: Results, scenario: Scenario, name: str, figure: str) -> str:
    value = results.median(scenario.name, name, figure)
    if value is None or (figure in _OF_DELIVERY and not CONTENDERS[name].sends):
        return "-"
    killed = figure == "seconds" and results.was_killed(scenario.name, name)
    return f"{'> ' if killed else ''}{_number(value)}"


def _number(value: float) -> str:
    """Write three digits that count, whole numbers whole."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def machine() -> str:
    """Return the machine, the interpreter and the versions, in one line."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    cores = f"{os.cpu_count()} x {_processor()}"
    found = [f"{name} {number}" for name in _PACKAGES if (number := _version(name))]
    return f"{cores}, {platform.system()} {platform.release()}, {python}; {', '.join(found)}."


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


_HEAD = """\
# What an event costs

F is `logger.info` into a `NullHandler`, PH is posthog-python in its newest version.
Both speak PostHog's V1 where a row does not say otherwise.
Figures are medians of {rounds} round(s), ratios medians of the ratios inside each round.
In each round contenders take turns; each measurement is a fresh process with a server of its own.
Compare figures of one table only.
{scaled}
{machine}

    {command}

## Targets

"""


def markdown(results: Results, command: str) -> str:
    """Return the whole report."""
    plan = results.plan
    scaled = (
        "" if plan.scale == 1 else f"\n**Only a trial: counts are {plan.scale:g} of the real.**\n"
    )
    head = _HEAD.format(rounds=plan.rounds, scaled=scaled, machine=machine(), command=command)
    tables = [
        f"\n## {scenario.title.format(count=plan.count(scenario))}\n\n{table(results, scenario)}"
        for scenario in SCENARIOS.values()
        if scenario.name in plan.scenarios
    ]
    return head + targets(results) + "".join(tables)
