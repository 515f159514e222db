"""What arrives, held against a plan: a warning on each event that is not as planned."""

from __future__ import annotations

from dataclasses import replace

from ..plan import Plan
from .rules import Finding, Judged


__all__ = ["Planned"]

_MOST_WARNINGS = 20  # of one event


class Planned:
    """
    Marks events that are not planned or do not fit, and knows which ones never came.

    Only the events that a server accepts are looked at.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._came: set[str] = set()

    def mark(self, judged: Judged) -> Judged:
        """Return *judged* with a warning for each finding."""
        return replace(judged, good=[self._marked(one) for one in judged.good])

    def missing(self) -> list[str]:
        """Return the planned events that never came."""
        return self.plan.missing(self._came)

    def reset(self) -> None:
        """Forget what came."""
        self._came.clear()

    def _marked(self, one: Finding) -> Finding:
        if one.event in self.plan.events:
            self._came.add(one.event)
        found = self.plan.check(one.event, dict(one.properties))[:_MOST_WARNINGS]
        texts = (f"plan: {finding.text}" for finding in found)
        return one._replace(warnings=(*one.warnings, *texts)) if found else one
