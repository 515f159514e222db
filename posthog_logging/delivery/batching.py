"""Make batches: of the lines that wait in a spool, those that may travel in one request."""

from __future__ import annotations

import re
import uuid

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby

from ..events.timestamps import rfc3339
from ..wire import Dialect
from .ledger import Ledger
from .losses import Losses
from .parcel import Budget, Parcel
from .spool import Entry, Spool, lines_of


__all__ = ["Batcher"]


class Batcher:
    """
    Make batches of the oldest lines in *spool*.

    Args:
        max_age: how old an event may be, in seconds; those in a spool may be days old.
        wall: returns epoch seconds.
    """

    def __init__(
        self,
        spool: Spool,
        dialect: Dialect,
        ledger: Ledger,
        losses: Losses,
        max_age: float | None,
        wall: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._dialect = dialect
        self._ledger = ledger
        self._losses = losses
        self._max_age = max_age
        self._wall = wall

    def form(self, most: int) -> list[Parcel]:
        """Return a batch of at most *most* lines; several, where not all may travel together."""
        # 1 KiB is for what the dialect puts around the lines.
        entries = self._spool.take(most, self._dialect.limits.batch_bytes - 1024)
        now = self._wall()
        return [
            Parcel(part, str(uuid.uuid4()), now, lane, budget=Budget(len(part)))
            for part, lane in self._parts(self._fresh(entries, now))
        ]

    def _parts(self, entries: Sequence[Entry]) -> Iterable[tuple[Sequence[Entry], str]]:
        """Return the lines that may travel together, with their lane; nearly always all."""
        may_travel: Callable[[Sequence[bytes]], bool] | None
        may_travel = getattr(self._dialect, "may_travel_together", None)
        if entries and may_travel is not None and may_travel(lines_of(entries)):
            return [(entries, "")]
        return [pair for distinct in self._distinct(entries) for pair in self._lanes(distinct)]

    def uuid_of(self, line: bytes) -> str:
        """Return the uuid of *line*; "" where a user's dialect, or a foreign line, has none."""
        try:
            return self._dialect.uuid_of(line)
        except Exception as error:
            self._ledger.warn("broken part", f"dialect raised {type(error).__name__}")
            return ""

    def _fresh(self, entries: Sequence[Entry], now: float) -> Sequence[Entry]:
        """Lose what is older than ``max_age``; return the rest."""
        if self._max_age is None:
            return entries
        oldest = rfc3339(now - self._max_age).encode()
        stale = [one for one in entries if _time_in(one.line) < oldest]
        self._losses.lose(stale, "expired")
        return [one for one in entries if _time_in(one.line) >= oldest] if stale else entries

    def _distinct(self, entries: Sequence[Entry]) -> list[Sequence[Entry]]:
        """
        Return the lines in parts without a uuid twice: V1 refuses a batch with one (2.3).

        Lines with the same uuid that differ in their time only are the same event: one of them
        is sent, and the others are counted. If they differ otherwise, each goes in a part of
        its own.
        """
        if not entries:
            return []
        with suppress(Exception):  # a user's dialect may raise
            if len(set(map(self._dialect.uuid_of, lines_of(entries)))) == len(entries):
                return [entries]
        parts: list[dict[str, Entry]] = [{}]
        without_uuid: list[Entry] = []
        for one in entries:
            event_id = self.uuid_of(one.line)
            if event_id:
                self._place(parts, event_id, one)
            else:
                without_uuid.append(one)
        return [part for part in (*(list(part.values()) for part in parts), without_uuid) if part]

    def _place(self, parts: list[dict[str, Entry]], event_id: str, one: Entry) -> None:
        """Put a line into the first part without its uuid, or drop it where its twin is there."""
        for part in parts:
            twin = part.setdefault(event_id, one)
            if twin is one:
                return
            if _timeless(twin.line) == _timeless(one.line):
                self._spool.ack([one])
                self._ledger.add("duplicates")
                text = "an event came twice with one uuid; it is sent once"
                self._ledger.warn("duplicates", text)
                return
        parts.append({event_id: one})

    def _lanes(self, entries: Sequence[Entry]) -> Iterable[tuple[Sequence[Entry], str]]:
        """Return the lines of each lane, with the lane; most dialects have but one."""
        find: Callable[[bytes], str] | None = getattr(self._dialect, "lane_of", None)
        if find is None or not any(map(find, lines_of(entries))):
            return [(entries, "")]

        def lane_of(one: Entry) -> str:
            return find(one.line)

        lanes = groupby(sorted(entries, key=lane_of), lane_of)
        return [(list(part), lane) for lane, part in lanes]


_NANOS = re.compile(rb'"timeUnixNano":"(\d{1,19})"')


def _time_in(line: bytes) -> bytes:
    """Return the timestamp in a line of any dialect, without parsing the rest."""
    start = line.find(b'"timestamp":"') + 13
    if start > 12:
        return line[start : line.index(b'"', start)]
    nanos = _NANOS.search(line)  # in OTLP's log records
    return b"9" if nanos is None else rfc3339(int(nanos[1]) / 1e9).encode()


def _timeless(line: bytes) -> bytes:
    """Return *line* without its timestamp."""
    return line.replace(b'"timestamp":"%b"' % _time_in(line), b"", 1)
