"""Print each event that arrives at an inspector of this process."""

from __future__ import annotations

import threading

from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter

from ..inspector import Event, Inspector, views
from . import rows
from .output import Output


__all__ = ["NOTHING_ARRIVED", "watched"]

_EVERY = 0.2

#: What to check if no event arrived.
NOTHING_ARRIVED = """\
No event arrived. Look at this, in this order:
  1. Is the log call an event? It needs extra={"distinct_id": …} or extra={"event": …}, and a
     level that its logger lets through.
  2. Is a PostHogHandler on that logger, or on one above it?
     posthog-logging doctor --app MODULE --explain LOGGER answers both questions.
  3. Does the handler take its key and host from the environment? Those in the code win, so
     write PostHogHandler() there.
  4. Is POSTHOG_DISABLED set, or does the program run under pytest? Then nothing is sent.
  5. Did the program end by SIGTERM, kill -9 or os._exit? Then it could not send what waited:
     give its handler a spool, or call flush() before.
More: posthog-logging docs troubleshooting"""


@contextmanager
def watched(inspector: Inspector, output: Output) -> Iterator[None]:
    """Print each event of *inspector* while the block runs, and the last ones at its end."""
    if output.as_json:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(inspector, output, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _follow(inspector: Inspector, output: Output, ended: threading.Event) -> None:
    shown = 0
    last = False
    while not last:
        last = ended.wait(_EVERY)
        for event in _since(inspector, shown):
            shown = event.number
            plain = views.event(event, event.mask)
            output.line(rows.cells(plain), rows.meaning(plain))


def _since(inspector: Inspector, shown: int) -> list[Event]:
    """Return the events after number *shown*, accepted or refused, in order of arrival."""
    if inspector.counts()["total"] <= shown:
        return []
    later = [one for one in (*inspector.events, *inspector.bad) if one.number > shown]
    return sorted(later, key=attrgetter("number"))
