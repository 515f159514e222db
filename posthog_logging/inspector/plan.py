"""Compare what arrives with a plan: events that fit, that do not, that are new or missing."""

from __future__ import annotations

import re

from dataclasses import asdict, dataclass, field
from typing import Any

from ..plan import Finding, Plan, PlannedEvent


__all__ = ["Planned"]

_MOST_WARNINGS = 20  # of one event
_MOST_PROBLEMS = 20  # of one name that are counted apart
_MOST_NAMES = 200  # that are not planned, and counted apart
_LONGEST_NAME = 200
_INDEX = re.compile(r"\[\d+\]")


@dataclass
class _Problem:
    """One kind of misfit: how many events had it, and the latest of them."""

    text: str = ""
    count: int = 0
    example: int = 0  # the event's number


@dataclass
class _Seen:
    """What arrived of one planned event."""

    came: int = 0
    misfits: int = 0
    problems: dict[tuple[str, str], _Problem] = field(default_factory=dict)

    def add(self, findings: list[Finding], number: int) -> None:
        self.came += 1
        self.misfits += bool(findings)
        latest = {_kind_of(one): one.text for one in findings}  # a list may have it many times
        for kind, text in latest.items():
            if kind in self.problems or len(self.problems) < _MOST_PROBLEMS:
                problem = self.problems.setdefault(kind, _Problem())
                problem.text, problem.count, problem.example = text, problem.count + 1, number


@dataclass
class _Unplanned:
    """A name that is not in the plan, and the planned name that is most like it."""

    nearest: str | None
    came: int = 0


class Planned:
    """
    Finds accepted events that are not planned, or do not fit their plan.

    Names that begin with ``$`` are PostHog's own, and logs are not events: neither is in a plan.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.reset()

    def reset(self) -> None:
        """Forget everything that arrived."""
        self._planned = {name: _Seen() for name in self.plan.events}
        self._unplanned: dict[str, _Unplanned] = {}
        self._others = 0

    def see(self, event: str, properties: dict[str, Any], number: int) -> tuple[str, ...]:
        """Count the accepted event of that *number*; return a warning for each finding."""
        found = self.plan.check(event, properties)
        if event in self._planned:
            self._planned[event].add(found, number)
        elif found:
            self._count(event)
        return tuple(f"plan: {one.text}" for one in found[:_MOST_WARNINGS])

    def _count(self, event: str) -> None:
        name = event[:_LONGEST_NAME]
        if name not in self._unplanned and len(self._unplanned) >= _MOST_NAMES:
            self._others += 1
            return
        seen = self._unplanned.setdefault(name, _Unplanned(self.plan.nearest(event)))
        seen.came += 1

    def missing(self) -> list[str]:
        """Return the planned events that never arrived, without deprecated ones."""
        return self.plan.missing(name for name, seen in self._planned.items() if seen.came)

    def describe(self) -> dict[str, Any]:
        """
        Return what arrived of each planned event, and of each name that is not planned.

        ``others`` counts the events of more unplanned names than are counted apart.
        """
        return {
            "plan": self.plan.name,
            "events": [
                _described(one, self._planned[name]) for name, one in self.plan.events.items()
            ],
            "unplanned": [{"event": name, **asdict(one)} for name, one in self._unplanned.items()],
            "others": self._others,
        }


def _kind_of(finding: Finding) -> tuple[str, str]:
    """Return the field of a finding and its allowed values, which are alike for one kind."""
    problem = finding.problem
    return ("", "") if problem is None else (_INDEX.sub("[]", problem.field), problem.may)


def _described(one: PlannedEvent, seen: _Seen) -> dict[str, Any]:
    return {
        "event": one.name,
        "description": one.description,
        "deprecated": one.deprecated,
        "came": seen.came,
        "misfits": seen.misfits,
        "problems": [asdict(problem) for problem in seen.problems.values()],
    }
