"""Lines to batches: of what waits in a spool, what may travel in one request."""

from __future__ import annotations

import uuid

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby

from ..events.timestamps import rfc3339
from ..wire import Dialect
from .ledger import Ledger
from .losses import Losses
from .parcel import Budget, Parcel
from .spool import Kept, Spool, lines_of


__all__ = ["Batching"]


class Batching:
    """
    Make batches of the oldest lines in *spool*.

    Args:
        max_age: how old an event may be, in seconds; a spool may be days old.
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
        """Return a batch of at most *most* lines, or several of what may not travel together."""
        # 1 KiB for what the dialect puts around the lines.
        kept = self._spool.take(most, self._dialect.limits.batch_bytes - 1024)
        now = self._wall()
        return [
            Parcel(part, str(uuid.uuid4()), now, lane, budget=Budget(len(part)))
            for part, lane in self._parts(self._fresh(kept, now))
        ]

    def _parts(self, kept: Sequence[Kept]) -> Iterable[tuple[Sequence[Kept], str]]:
        """Return the lines that may travel together, and their lane; in nearly all cases, all."""
        is_one: Callable[[Sequence[bytes]], bool] | None
        is_one = getattr(self._dialect, "may_travel_together", None)
        if kept and is_one is not None and is_one(lines_of(kept)):
            return [(kept, "")]
        return [pair for distinct in self._distinct(kept) for pair in self._lanes(distinct)]

    def uuid_of(self, line: bytes) -> str:
        """Return the id of *line*; "" where a foreign dialect, or a foreign line, has none."""
        try:
            return self._dialect.uuid_of(line)
        except Exception as error:
            self._ledger.warn("broken part", f"dialect raised {type(error).__name__}")
            return ""

    def _fresh(self, kept: Sequence[Kept], now: float) -> Sequence[Kept]:
        """Lose what is older than ``max_age``; return the rest."""
        if self._max_age is None:
            return kept
        oldest = rfc3339(now - self._max_age).encode()
        stale = [one for one in kept if _time_in(one.line) < oldest]
        self._losses.lose(stale, "expired")
        return [one for one in kept if _time_in(one.line) >= oldest] if stale else kept

    def _distinct(self, kept: Sequence[Kept]) -> list[Sequence[Kept]]:
        """
        Return the lines in parts, so that no uuid is in one part twice: V1 refuses it all (2.3).

        One event is one uuid. What differs in its time only is the same event: it is
        settled with the first and counted. Anything else goes with the next batch.
        """
        if not kept:
            return []
        with suppress(Exception):  # of a foreign dialect
            if len(set(map(self._dialect.uuid_of, lines_of(kept)))) == len(kept):
                return [kept]
        parts: list[dict[str, Kept]] = [{}]
        nameless: list[Kept] = []
        for one in kept:
            name = self.uuid_of(one.line)
            if name:
                self._place(parts, name, one)
            else:
                nameless.append(one)
        return [part for part in (*(list(part.values()) for part in parts), nameless) if part]

    def _place(self, parts: list[dict[str, Kept]], name: str, one: Kept) -> None:
        """Put a line into the first part without its uuid, or settle it with its twin."""
        for part in parts:
            twin = part.setdefault(name, one)
            if twin is one:
                return
            if _timeless(twin.line) == _timeless(one.line):
                self._spool.ack([one])
                self._ledger.add("duplicates")
                text = "an event came twice with one uuid; it is sent once"
                self._ledger.warn("duplicates", text)
                return
        parts.append({name: one})

    def _lanes(self, kept: Sequence[Kept]) -> Iterable[tuple[Sequence[Kept], str]]:
        """Return the lines of each lane, and the lane; most dialects have none."""
        find: Callable[[bytes], str] | None = getattr(self._dialect, "lane_of", None)
        if find is None or not any(map(find, lines_of(kept))):
            return [(kept, "")]

        def lane_of(one: Kept) -> str:
            return find(one.line)

        lanes = groupby(sorted(kept, key=lane_of), lane_of)
        return [(list(part), lane) for lane, part in lanes]


def _time_in(line: bytes) -> bytes:
    """Return the timestamp that a line of any dialect bears, without a parse of the rest."""
    start = line.find(b'"timestamp":"') + 13
    return line[start : line.index(b'"', start)] if start > 12 else b"9"


def _timeless(line: bytes) -> bytes:
    """Return *line* without the timestamp that it bears."""
    return line.replace(b'"timestamp":"%b"' % _time_in(line), b"", 1)
