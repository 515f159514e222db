"""One measurement in a process of its own: reads a `Job`, prints figures, a JSON object a line."""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import sys
import warnings

from typing import Any, NamedTuple


__all__ = ["Job", "main"]

_WARM_UP = 200


class Job(NamedTuple):
    """Who, what, how many, and where."""

    contender: str
    scenario: str
    events: int
    hold: float
    port: int
    control: int
    folder: str


def _prepare(plain: bool) -> None:
    """Silence the rivals' warnings of lost events, and hide ``[fast]`` from a plain one."""
    warnings.simplefilter("ignore")
    logging.lastResort = None
    if plain:
        hidden: dict[str, Any] = sys.modules
        hidden["orjson"] = hidden["isal"] = None


def main() -> None:
    """Measure; end without the exit hooks of whoever was measured."""
    from .contenders import CONTENDERS, Place
    from .scenarios import SCENARIOS, Stage
    from .sink import ask

    job = Job(*json.loads(sys.argv[1]))
    contender, scenario = CONTENDERS[job.contender], SCENARIOS[job.scenario]
    _prepare(contender.plain)
    steer = functools.partial(ask, job.control)
    driven = contender.make(Place(f"http://127.0.0.1:{job.port}", job.folder, scenario.big))
    for _ in range(_WARM_UP):
        driven.emit(-1)
    driven.finish()
    gc.collect()
    steer("/reset")
    steer(f"/mode/{scenario.mode}")
    for figures in scenario.play(Stage(driven, job.events, job.hold, steer)):
        print(json.dumps(figures), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
