"""
Where lines wait on disk: a folder of append-only NDJSON segments that outlive the process.

Each process writes segments of its own. A segment whose writer is gone is an orphan, and any
process that opens the folder may adopt it. Callers only `admit`, which is one store into the
active segment. The library's thread does everything else: it takes, acknowledges, adopts, and
prepares the next segment before the active one is full. A caller makes a segment only if it is
the first, or if a burst outruns the thread.
"""

from __future__ import annotations

import errno
import os
import sys

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, repeat
from typing import Any, NamedTuple

from .clock import monotonic
from .folder import Folder, SegmentInfo, segments_in
from .lock import Lock, has_gil
from .orphans import Orphans
from .segment import Segment, header_line, is_faked
from .spool import RECEIPT, Entry, LeaseView, MemorySpool, fitting, lines_of


__all__ = ["JournalSpool", "SegmentInfo", "segments_in"]

# The first segment of a process is small, and further ones grow.
_SMALLEST_SEGMENT = 256 * 1024
_ON_A_FULL_DISK = 16 * 1024
_LARGEST_SEGMENT = 4 * 1024 * 1024
_GROWTH = 4
_CHUNK = 256 * 1024
_LOOK_EVERY = 10.0
_RETRY_DISK_AFTER = 5.0
_DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_FOR = 1.0  # seconds: measuring a folder takes time


class _Place(NamedTuple):
    """Where a line is: the token of a journal's entries."""

    segment: Segment
    start: int
    stop: int


# As `_make` of each, but in C, as every event needs it.
_place: Callable[[tuple[Segment, int, int]], _Place] = partial(tuple.__new__, _Place)
_entry: Callable[[tuple[_Place, bytes]], Entry] = partial(tuple.__new__, Entry)


class JournalSpool:
    """
    Keep lines in segments below *path*; if the disk fails, in memory, with a warning.

    Args:
        path: the folder; made, with mode 0700, if it is not there.
        dialect, host: what the lines are for; segments for others are not adopted.
        max_bytes: how many bytes the files of all processes may take, about.
        drop_oldest: whether the oldest segment gives way beyond that; else the newest event.
        fsync: ``"never"``, ``"interval"`` (about once a second) or ``"always"``.
        warn: called with a topic and a text for the user.
        lose: called with a reason and the number of lines that were dropped.
        refuse: called with a reason for a line that was not accepted.
        duplicate: called with the number of events that a copy of a segment holds once more.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dialect: str,
        host: str,
        max_bytes: int = 1024 * 1024 * 1024,
        drop_oldest: bool = False,
        fsync: str = "never",
        warn: Callable[[str, str], None] = lambda topic, text: None,
        lose: Callable[[str, int], None] = lambda reason, count: None,
        refuse: Callable[[str], None] = lambda reason: None,
        duplicate: Callable[[int], None] = lambda count: None,
    ) -> None:
        if not os.fspath(path):
            raise ValueError("spool: an empty path; give the path of a folder")
        if not _is_possible(path):
            raise ValueError("spool: no folder can have this name: it has a NUL or a surrogate")
        self._folder = Folder(path)
        self._first_line = header_line({"posthog_logging": 1, "dialect": dialect, "host": host})
        self._max_bytes = max_bytes
        self._drop_oldest = drop_oldest
        self._fsync = fsync
        self._needs_lock = fsync == "always" or not _writes_are_one_step()
        self._warn = warn
        self._lose = lose
        self._refuse = refuse
        self._duplicate = duplicate
        self._begin()

    def _begin(self) -> None:
        self._lock = Lock()  # for everything except a write into the active segment
        self._memory = MemorySpool()
        self._segments: deque[Segment] = deque()  # oldest first; the active one, the next one last
        self._active: Segment | None = None
        self._next: Segment | None = None  # prepared, for when the active one is full
        self._write: Callable[[bytes], int] = _nowhere  # appends to the active segment
        self._next_size = _SMALLEST_SEGMENT
        # Lines on disk, as far as they were counted: how many this process wrote, ever; how many
        # came since the spool was opened, and how many of these were handed out or dropped.
        self._written = 0
        self._came = 0
        self._gone = 0
        self._orphans = Orphans(
            self._folder, self._first_line, self._warn, self._lose, self._duplicate
        )
        self._has_more = False  # orphans that were left for another look
        self._disk_again_at = 0.0
        self._full_until = 0.0
        self._full_for = 0  # how many bytes there was no room for
        self._look_again_at = 0.0
        self._tidy_again_at = 0.0
        self._sync_again_at = 0.0
        self._news: deque[Callable[[], None]] = deque()  # calls to make without the lock

    def renew(self) -> None:
        """Begin anew in a forked child, without the parent's segments."""
        inherited = self._segments
        self._begin()
        for segment in inherited:
            segment.abandon()

    @property
    def rest(self) -> float:
        """The seconds until the next look for orphans."""
        return max(0.0, self._look_again_at - monotonic())

    def __len__(self) -> int:
        with self._lock:
            self._count_all()
            return self._came - self._gone + len(self._memory)

    @property
    def admitted(self) -> int:
        """How many lines were written; counted in the files, so an interruption misses none."""
        with self._lock:
            self._count_all()
            return self._written

    @property
    def adopted(self) -> int:
        """How many events of other processes were adopted, ever."""
        return self._orphans.adopted

    @property
    def held(self) -> tuple[int, int]:
        """What is in memory, as the disk failed."""
        return self._memory.held

    # What callers do

    def admit(self, line: bytes) -> Any:
        """Write *line*; return the line if it must wait in memory, None if it is refused."""
        if self._needs_lock:
            return self._admit_under_lock(line)
        try:
            # Under the GIL this is one step: there is no call between the load of `_write` and
            # the write, and a map moves its own position. All threads would wait at a lock.
            write = self._write
            write(line + b"\n")
        except ValueError:  # there is no segment, or it is full
            if not self._write_anew(line + b"\n"):
                return self._without_disk(line)
        return RECEIPT

    def _admit_under_lock(self, line: bytes) -> Any:
        """Write *line* under the lock, and force it to the disk if ``fsync`` is ``"always"``."""
        with self._lock:
            written = self._write_anew(line + b"\n")
            segment = self._active
        if not written:
            return self._without_disk(line)
        if segment is not None and self._fsync == "always":
            self._force(segment)
        return RECEIPT

    def _write_anew(self, text: bytes) -> bool:
        """Write *text* into a segment with room, a new one if need be; return whether it could."""
        with self._lock:
            written = self._write_where_it_fits(text)
            if (
                not written
                and not self._disk_again_at
                and self._extend(len(text), drops=self._drop_oldest)
            ):
                written = self._write_where_it_fits(text)
        self._deliver_news()
        return written

    def _write_where_it_fits(self, text: bytes) -> bool:
        """Write *text* into the active or the prepared segment; return whether it fitted."""
        # Another thread may have changed the segment meanwhile, or was interrupted doing it.
        for segment in (self._active, self._next):
            if segment is not None and segment.map is not None and segment.room >= len(text):
                self._active, self._write = segment, segment.map.write
                if segment is self._next:
                    self._next = None
                with suppress(ValueError):  # a signal handler took the room
                    self._write(text)
                    return True
        return False

    def _without_disk(self, line: bytes) -> bytes | None:
        """Return *line* if it may wait in memory, because the disk failed; else refuse it."""
        if self._disk_again_at:
            return line
        self._refuse("spool_full")
        return None

    # What the thread does

    def append(self, items: Iterable[Any]) -> None:
        """Add lines that must wait in memory; look after the disk from time to time."""
        self._memory.append([item for item in items if item is not RECEIPT])
        if is_faked():
            return
        self._seal_full_ones()
        now = monotonic()
        if now >= self._look_again_at:
            self._look_again_at = now + _LOOK_EVERY
            self._adopt_orphans(now)
        self._prepare(now)
        if self._fsync == "interval" and now >= self._sync_again_at:
            self._sync_again_at = now + 1.0
            segment = self._active
            if segment is not None:
                self._force(segment)
        self._deliver_news()

    def take(self, count: int, size: int) -> Sequence[Entry]:
        """Hand out the oldest lines on disk, then those in memory."""
        taken: list[Entry] = []
        with self._lock:
            for segment in list(self._segments):
                found = self._take_from(segment, count - len(taken), size, not taken)
                taken += found
                size -= sum(map(len, lines_of(found))) + len(found)
                if segment.taken < segment.end:
                    break
                self._let_go(segment)
        self._deliver_news()
        return taken or self._memory.take(count, size)

    def ack(self, entries: Sequence[Entry]) -> None:
        """Forget lines: note how far each segment is settled, and delete those that are done."""
        if isinstance(entries, LeaseView):
            self._memory.ack(entries)
            return
        self._memory.ack([one for one in entries if not isinstance(one.token, _Place)])
        with self._lock:
            touched = set()
            for segment, start, stop in _runs(t for t, _ in entries if isinstance(t, _Place)):
                if not segment.released:
                    segment.settle(start, stop)
                    touched.add(segment)
            for segment in touched:
                with suppress(OSError):  # these lines come again after a restart
                    segment.mark()
                self._let_go(segment)

    def rewind(self) -> None:
        """Hand out again what was not acknowledged."""
        self._memory.rewind()
        with self._lock:
            for segment in list(self._segments):
                lines = segment.lines_between(segment.acked, segment.taken)
                segment.taken = segment.acked
                segment.left += lines
                self._gone -= lines

    def evict(self, count: int) -> list[bytes]:
        """Drop the oldest lines in memory."""
        return self._memory.evict(count)

    def forget(self) -> list[bytes]:
        """Drop all lines in memory."""
        return self._memory.forget()

    def close(self) -> None:
        """Release the segments: another process may adopt what is not acknowledged."""
        if is_faked():
            return
        with self._lock:
            while self._segments:  # including one that a `__del__` begins meanwhile
                self._active = self._next = None
                self._write = _nowhere
                segment = self._segments.popleft()
                segment.seal()
                self._count(segment)
                if segment.acked < segment.end:
                    self._orphans.leave(segment)
                segment.release()
            self._came = self._gone = 0
            self._next_size = _SMALLEST_SEGMENT
            self._look_again_at = 0.0  # a line may open it again

    # Counting

    def _count_all(self) -> None:
        """Count the lines that were written since the last count."""
        for segment in list(self._segments):  # a `__del__` that logs may add one
            self._count(segment)

    def _count(self, segment: Segment) -> None:
        end = segment.end
        if segment.adopted or segment.counted >= end:
            return
        lines = segment.read(segment.counted, end).count(b"\n")
        segment.counted = end
        self._written += lines
        self._came += lines

    def _deliver_news(self) -> None:
        """Make the calls that wait, without the lock: what they call may log."""
        with suppress(IndexError):
            while self._news:
                self._news.popleft()()

    # Handing out

    def _take_from(self, segment: Segment, count: int, size: int, first: bool) -> list[Entry]:
        """Hand out lines of one segment while they fit; at least one if it is the *first*."""
        found: list[Entry] = []
        chunk = _CHUNK
        while len(found) < count and segment.taken < segment.end:
            try:
                lines = segment.next_lines(chunk)
            except OSError:  # such as a bad sector
                segment.damaged = True
                self._lose_rest(segment, "broken")
                break
            if not lines and segment.taken + chunk >= segment.end:
                if segment.taken < segment.end:
                    self._lose_rest(segment, "broken")  # another program has cut the file
                break
            chunk *= 1 if lines else 4
            lines = lines[: count - len(found)]
            fit = fitting(lines, size, first and not found)
            size -= sum(map(len, lines)) + len(lines)
            found += self._hand_out(segment, lines[:fit])
            if fit < len(lines):
                break
        return found

    def _hand_out(self, segment: Segment, lines: list[bytes]) -> Iterable[Entry]:
        """Return the next *lines* of *segment* with their places."""
        stops = [*accumulate((len(line) + 1 for line in lines), initial=segment.taken)]
        segment.taken = stops[-1]
        segment.left -= len(lines)
        self._gone += len(lines)
        places = map(_place, zip(repeat(segment), stops, stops[1:], strict=False))
        return map(_entry, zip(places, lines, strict=True))

    def _lose_rest(self, segment: Segment, reason: str) -> None:
        """Lose the lines of *segment* that were not handed out."""
        lines = segment.lines()
        self._news.append(partial(self._lose, reason, lines))
        self._gone += lines
        segment.left = 0
        segment.settle(segment.taken, segment.end)
        segment.taken = segment.end

    def _let_go(self, segment: Segment) -> None:
        """Delete *segment* if it is full or closed, and everything in it is settled."""
        if segment is self._active or segment is self._next or is_faked():
            return
        self._count_all()
        if segment.acked >= segment.end and not segment.released:
            self._segments.remove(segment)
            segment.release()
            self._note_room()
            if self._has_more and not any(one.adopted for one in list(self._segments)):
                self._look_again_at = 0.0

    def _note_room(self) -> None:
        """Note that a file was deleted: there may be room again in the folder and on the disk."""
        self._full_until = 0.0
        if self._disk_again_at:
            self._disk_again_at = min(self._disk_again_at, monotonic())

    # The next segment

    def _prepare(self, now: float) -> None:
        """Make the next segment before callers need it, and the first one after trouble."""
        active = self._active
        if self._disk_again_at:
            if now >= self._disk_again_at:
                self._disk_again_at = 0.0
                self._extend(0, drops=False)
        elif active is not None and self._next is None and active.room < active.end:
            size = self._size_for(len(self._first_line), drops=False)
            with suppress(OSError):  # the caller that needs it finds out
                if size:
                    self._create(size)

    def _extend(self, count: int, *, drops: bool) -> bool:
        """
        Add a segment with room for *count* bytes; return whether it could.

        If it *drops*, the oldest segments may give way to it.
        """
        needed = count + len(self._first_line)
        now = monotonic()
        if now < self._full_until and needed >= self._full_for:
            return False
        size = self._size_for(needed, drops=drops)
        if size and self._add(size, needed):
            return True
        self._full_until, self._full_for = now + _FULL_FOR, needed
        return False

    def _size_for(self, needed: int, *, drops: bool) -> int:
        """Return how large the next segment may be; 0 if the folder has no room for it."""
        wanted = max(min(self._next_size, self._max_bytes // 8), needed)
        room = self._max_bytes - self._folder.size()
        if room < wanted:
            self._tidy(monotonic())
            self._folder.forget_damaged()
            room = self._max_bytes - self._folder.size()
        with self._lock:
            while room < wanted and drops and self._segments:
                room += self._drop(self._segments.popleft())
        return wanted if room >= wanted else room if room >= needed else 0

    def _add(self, size: int, needed: int) -> bool:
        """Add a segment of *size* bytes, or of fewer on a disk that is nearly full."""
        smallest = min(size, max(needed, _ON_A_FULL_DISK))
        try:
            if is_faked():
                raise OSError(errno.ENOTSUP, "a test's file system stands in for the disk")
            while True:
                try:
                    return self._create(size)
                except OSError as error:
                    if error.errno not in _DISK_IS_FULL or size <= smallest:
                        raise
                    size = max(size // 2, smallest)
        except OSError as error:
            self._disk_again_at = monotonic() + _RETRY_DISK_AFTER
            why = f"no spool ({error.strerror}); events wait in memory"
            self._news.append(partial(self._warn, "spool", why))
            return False

    def _create(self, size: int) -> bool:
        """Make the next segment; return whether the folder had room for it."""
        made = Segment(self._folder.new_path())
        try:
            made.create(size, self._first_line)
            if self._folder.size() > self._max_bytes:  # another process made one meanwhile
                made.discard()
                return False
            if self._fsync != "never":
                self._folder.force()
            with self._lock:
                self._segments.append(made)
                self._next = made
        except BaseException:
            if made not in self._segments:
                made.discard()
            raise
        self._next_size = min(_GROWTH * self._next_size, _LARGEST_SEGMENT)
        return True

    def _drop(self, segment: Segment) -> int:
        """Delete *segment*, lose what was not handed out of it; return how many bytes it took."""
        if segment is self._active:
            self._active, self._write = None, _nowhere
        if segment is self._next:
            self._next = None
        segment.seal()
        self._count(segment)
        freed = os.fstat(segment.fd).st_size
        self._lose_rest(segment, "spool_full")
        segment.acked = segment.end  # what was handed out is with the sender, in memory
        segment.release()
        return freed

    def _seal_full_ones(self) -> None:
        """Unmap all segments that are full, and delete those that are settled."""
        with self._lock:
            self._redirect()
            for segment in list(self._segments):
                if segment.map is not None and segment not in (self._active, self._next):
                    if self._fsync == "interval":
                        self._force(segment)
                    segment.seal()
                    self._let_go(segment)

    def _redirect(self) -> None:
        """Make sure that callers write only into the active segment."""
        # A caller may have been interrupted in a change, and a `__del__` may make one just now.
        while True:
            active = self._active
            self._write = _nowhere if active is None or active.map is None else active.map.write
            if active is self._active:
                return

    def _force(self, segment: Segment) -> None:
        """Force what was written to the disk."""
        try:
            segment.force()
        except OSError as error:
            self._warn("fsync", f"the spool could not be forced to disk ({error.strerror})")

    # Orphans

    def _adopt_orphans(self, now: float) -> None:
        """Adopt what other processes left."""
        self._tidy(now)
        with self._lock:
            here = list(self._segments)
            for segment in (self._active, self._next):
                if segment is not None and not segment.is_in_place():
                    self._active = self._next = None
                    self._write = _nowhere
        known = {segment.path for segment in here}
        found = self._orphans.look(known, sum(segment.adopted for segment in here))
        with self._lock:
            self._segments.extendleft(reversed(found.segments))
            self._came += sum(segment.left for segment in found.segments)
        self._has_more = found.has_more
        if found.has_freed:
            self._note_room()
        self._orphans.report(found)

    def _tidy(self, now: float) -> None:
        """Now and then clear the folder of what nobody uses."""
        if now >= self._tidy_again_at:
            self._tidy_again_at = now + _LOOK_EVERY
            self._folder.tidy()


def _writes_are_one_step() -> bool:
    """Return whether a write into a map is atomic, as it always is under the GIL."""
    return has_gil() or sys.version_info >= (3, 14)


def _is_possible(path: str | os.PathLike[str]) -> bool:
    """Return whether the file system could have *path*."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _nowhere(text: bytes) -> int:
    """Refuse *text*, as a full map does."""
    raise ValueError("no segment")


def _runs(places: Iterable[_Place]) -> Iterator[tuple[Segment, int, int]]:
    """Join places that follow each other, as most places in a batch do."""
    run: tuple[Segment, int, int] | None = None
    for segment, start, stop in places:
        if run is not None and run[0] is segment and run[2] == start:
            run = segment, run[1], stop
            continue
        if run is not None:
            yield run
        run = segment, start, stop
    if run is not None:
        yield run
