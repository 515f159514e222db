"""The run as a picture: bars on a logarithmic scale, SVG, readable on a light and a dark page."""

from __future__ import annotations

import math

from typing import NamedTuple
from xml.sax.saxutils import escape

from .contenders import CONTENDERS
from .runner import Results
from .scenarios import SCENARIOS


__all__ = ["svg"]

_WIDTH = 860
_LABELS = 310
_ROW = 22
_HEAD = 44
_RIGHT = 80

_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600; font-size: 15px }
.ours { fill: #1d4aff } .rival { fill: #8c959f } .floor { fill: #d0a215 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ours { fill: #6f8cff } }"""


class _Panel(NamedTuple):
    title: str
    scenario: str
    figure: str
    unit: str
    who: tuple[str, ...]


_OURS = ("ours_fast", "ours", "ours_fast_journal")
_RIVALS = ("naive", "otel", "segment", "sentry", "posthog")

_PANELS = (
    _Panel(
        "What a call costs the caller, mean in a burst",
        "burst",
        "mean",
        "µs",
        ("null", "capture_fast", *_OURS, *_RIVALS),
    ),
    _Panel("CPU for 100,000 delivered events", "burst", "cpu_100k", "s", (*_OURS, *_RIVALS)),
    _Panel(
        "{count:,} to a server that takes 50 ms to answer",
        "latency",
        "seconds",
        "s",
        (*_OURS, *_RIVALS),
    ),
)


def svg(results: Results) -> str:
    """Return the picture; panels without figures are left out."""
    parts, top = [], 0
    for panel in _PANELS:
        values = _values(results, panel)
        if values:
            count = results.plan.count(SCENARIOS[panel.scenario])
            title = panel.title.format(count=count)
            parts.append(_drawn(panel._replace(title=title), values, top))
            top += _HEAD + _ROW * len(values)
    size = f'width="{_WIDTH}" height="{top + 12}" viewBox="0 0 {_WIDTH} {top + 12}"'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n'
        f"<title>Cost of an event, logarithmic scale</title>\n<style>\n{_STYLE}\n</style>\n"
        f"{body}\n</svg>\n"
    )


def _values(results: Results, panel: _Panel) -> dict[str, float]:
    found = ((who, results.median(panel.scenario, who, panel.figure)) for who in panel.who)
    return {who: value for who, value in found if value}


def _drawn(panel: _Panel, values: dict[str, float], top: int) -> str:
    """Return one panel; its shortest bar is a fifth of the decade below the smallest value."""
    low = math.log10(min(values.values())) - 0.2
    high = math.log10(max(values.values()))
    scale = (_WIDTH - _LABELS - _RIGHT) / max(high - low, 0.1)
    lines = [f'<text class="head" x="0" y="{top + 28}">{escape(panel.title)} (log scale)</text>']
    for place, (who, value) in enumerate(values.items()):
        y = top + _HEAD + place * _ROW
        length = (math.log10(value) - low) * scale
        title = escape(CONTENDERS[who].title)
        end = _LABELS + length + 6
        lines += [
            f'<text x="{_LABELS - 8}" y="{y + 13}" text-anchor="end">{title}</text>',
            f'<rect class="{_kind(who)}" x="{_LABELS}" y="{y}" width="{length:.1f}" height="16"/>',
            f'<text x="{end:.1f}" y="{y + 13}">{value:.3g} {panel.unit}</text>',
        ]
    return "\n".join(lines)


def _kind(who: str) -> str:
    if who == "null":
        return "floor"
    return "rival" if who in _RIVALS else "ours"
