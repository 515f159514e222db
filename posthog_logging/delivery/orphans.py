"""Adopt orphans: segments in the folder of a spool whose writers are gone."""

from __future__ import annotations

import os
import resource

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from .folder import Folder
from .own_log import logger
from .segment import Segment, adopt


__all__ = ["Found", "Orphans"]

_MOST_OPEN = 64  # each is an open file


class Found(NamedTuple):
    """What one look into the folder has found."""

    segments: list[Segment]
    counts: Counter[str]  # of events, by what became of them
    problems: dict[str, list[Path]]  # files that cannot be adopted, by the reason
    has_more: bool  # whether orphans are left for another look
    has_freed: bool  # whether files were deleted


class Orphans:
    """
    Adopt the orphans in *folder* that begin with *first_line*.

    Args:
        warn: called with a topic and a text for the user.
        lose: called with a reason and the number of events that are lost.
        duplicate: called with the number of events that a copy of a segment holds once more.
    """

    def __init__(
        self,
        folder: Folder,
        first_line: bytes,
        warn: Callable[[str, str], None],
        lose: Callable[[str, int], None],
        duplicate: Callable[[int], None],
    ) -> None:
        self._folder = folder
        self._first_line = first_line
        self._warn = warn
        self._lose = lose
        self._duplicate = duplicate
        #: How many events of other processes were adopted, ever.
        self.adopted = 0
        self._own: set[Path] = set()  # left by this process, which has counted their events
        self._seen: set[bytes] = set()  # digests of what was adopted

    def leave(self, segment: Segment) -> None:
        """Note that this process closes *segment* with events in it."""
        self._own.add(segment.path)
        self._seen.discard(segment.digest)

    def look(self, known: Collection[Path], open_now: int) -> Found:
        """
        Adopt as many orphans as may be open at once.

        Args:
            known: the paths of this process's own segments.
            open_now: how many adopted segments are already open.
        """
        paths = [path for path in self._folder.segments() if path not in known]
        most = _most_open() if paths else 0
        found = Found([], Counter(), {}, False, False)
        for path in paths:
            if open_now + len(found.segments) >= most:
                return found._replace(has_more=True)
            orphan = adopt(path, self._first_line)
            if isinstance(orphan, str):
                found.problems.setdefault(orphan, []).append(path)
            elif orphan is not None and self._has_events(orphan, found.counts):
                found.segments.append(orphan)
            elif orphan is not None:
                orphan.acked = orphan.end
                orphan.release()
                found = found._replace(has_freed=True)
        return found

    def _has_events(self, orphan: Segment, counts: Counter[str]) -> bool:
        """Count what *orphan* holds; return whether any of it must be delivered."""
        is_copy = orphan.digest in self._seen and orphan.left > 0
        if orphan.path not in self._own:
            counts["adopted"] += orphan.left + orphan.broken
        counts["broken"] += orphan.broken
        counts["duplicates"] += orphan.left if is_copy else 0
        self._own.discard(orphan.path)
        self._seen.add(orphan.digest)
        return orphan.left > 0 and not is_copy

    def report(self, found: Found) -> None:
        """Count what was found; warn about files that cannot be adopted."""
        if adopted := found.counts["adopted"]:
            self.adopted += adopted
            logger.info("adopted %d event(s) that another process left in the spool", adopted)
        if broken := found.counts["broken"]:
            self._lose("broken", broken)
        if duplicates := found.counts["duplicates"]:
            self._duplicate(duplicates)
            self._warn("duplicates", "an event came twice with one uuid; it is sent once")
        for problem, paths in found.problems.items():
            ours = [path.name for path in paths if self._folder.owns(path)]
            if ours:
                others = f", like {len(ours) - 1} more" if len(ours) > 1 else ""
                folder = self._folder.path
                self._warn(
                    f"spool: {problem}",
                    f"spool file {ours[0]} {problem}; left alone{others}. "
                    f"To do: `posthog-logging spool check {folder}` shows what it is, "
                    f"`posthog-logging spool drain {folder}` delivers what can be delivered",
                )


def _most_open() -> int:
    """Return how many orphans may be open at once: most files are the application's to open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return _MOST_OPEN
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError:
        used = limit // 2
    return max(1, min(_MOST_OPEN, (limit - used) // 4))
