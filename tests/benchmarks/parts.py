"""
``python -m tests.benchmarks.parts``: where the time of a log call goes, part by part.

The targets are ratios to F, a log call that does nothing with its record. This shows what stands
above F, and so which part would have to go for a target to be met.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from posthog_logging import PostHogHandler
from posthog_logging.context import current
from posthog_logging.events.jsonable import snapshot
from posthog_logging.wire import Request, Response


__all__ = ["main", "table"]

_PROPERTIES = {"movie_id": "123", "category": "romcom", "n": 5, "title": "Casablanca"}
_CALLS, _ROUNDS = 500, 200


class Part(NamedTuple):
    """A call that is timed; *depth* says which of the parts before it has it inside."""

    name: str
    depth: int
    call: Callable[[], object]


class _Nowhere:
    """A transport to nobody."""

    def send(self, request: Request, timeout: float) -> Response:
        return Response(200)

    def close(self) -> None:
        pass


@contextmanager
def _handler() -> Iterator[PostHogHandler]:
    handler = PostHogHandler(
        "phc_benchmark",
        "http://127.0.0.1:9",
        dialect="posthog-v0",
        transport=_Nowhere(),
        max_queue_size=1_000_000,
        flush_at=1_000_000,
        flush_interval=3600.0,
    )
    yield handler
    handler.close()


def _parts(handler: PostHogHandler) -> list[Part]:
    null = logging.getLogger("parts")
    null.setLevel(logging.INFO)
    null.addHandler(logging.NullHandler())
    extra = {"distinct_id": "user-1", "properties": _PROPERTIES}
    record = null.makeRecord("parts", logging.INFO, "f", 1, "movie played", (), None, extra=extra)
    handler.handle(record)
    encoder = handler._encoder
    draft = encoder.draft(record)
    assert draft is not None, "the record is a plain event"
    return [
        Part("F: `logger.info` into a `NullHandler`", 0, lambda: null.info("played", extra=extra)),
        Part("`handle`: what the handler adds to it", 0, lambda: handler.handle(record)),
        Part("a snapshot of the record", 1, lambda: encoder.draft(record)),
        Part("who is bound in the context", 2, current),
        Part("whether a key names a secret", 2, lambda: encoder._is_known(_PROPERTIES)),
        Part("the properties as JSON", 2, lambda: snapshot(_PROPERTIES)[1:]),
        Part("accepting it: bounds, append, rousing", 1, lambda: handler._accept(draft)),
    ]


def _measured() -> list[tuple[Part, float, float]]:
    """Return each part with its nanoseconds, the median and the least of the rounds."""
    clock = time.perf_counter_ns
    with _handler() as handler:
        parts = [Part("", 0, lambda: None), *_parts(handler)]
        costs: list[list[float]] = [[] for _ in parts]
        for _ in range(_ROUNDS):
            for part, found in zip(parts, costs, strict=True):
                call = part.call
                start = clock()
                for _ in range(_CALLS):
                    call()
                found.append((clock() - start) / _CALLS)
            handler.flush(10)
    loop, floor = statistics.median(costs[0]), min(costs[0])
    return [
        (part, statistics.median(found) - loop, min(found) - floor)
        for part, found in zip(parts[1:], costs[1:], strict=True)
    ]


def table() -> str:
    """Return the parts as a Markdown table."""
    found = _measured()
    bare = found[0][1]
    rows = [
        f"| {'— ' * part.depth}{part.name} | {median:.0f} | {least:.0f} | {median / bare:.3f} |"
        for part, median, least in found
    ]
    heads = ["| part | ns, median | ns, least | / F |", "| --- | ---: | ---: | ---: |"]
    return "\n".join([*heads, *rows]) + "\n"


def main() -> None:
    """Print the table."""
    sys.stdout.write(table())


if __name__ == "__main__":
    main()
