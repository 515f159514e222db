"""
Where lines wait on disk: a folder of append-only NDJSON segments that outlive the process.

One process writes a segment and holds its ``flock``; a segment whose lock is free is an
orphan, and whoever opens the folder adopts it. A line is in the kernel's hands before
`admit` returns, so it survives ``kill -9`` (not a power cut: see *fsync*).

A segment is a file mapped at its full size. A store into the map costs half a microsecond
and, unlike ``write``, never gives up the interpreter lock: beside a busy thread a ``write``
averages 130 µs. Its blocks are allocated first, so a full disk is an error and no signal.
Never truncate a segment that is in use; to delete one is safe.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import mmap
import os
import threading
import time

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any, NamedTuple

from ..events import jsonable
from .spool import RECEIPT, Kept, MemorySpool, View, fitting, lines_of


__all__ = ["JournalSpool", "SegmentInfo", "segments_in"]

_SUFFIX = ".ndjson"
_SEGMENT_SIZE = 4 * 1024 * 1024
_CHUNK = 256 * 1024
_ADOPT_EVERY = 10.0
_MOST_OPEN = 500  # each is an open file, and a process may have 1,024
_RETRY_DISK_AFTER = 30.0
_NEW = ".new"  # a segment takes its name when it is locked and has its header
_NEW_FOR = 60.0  # seconds: nobody takes as long to make one
_HEAD = 64 * 1024
_MARK = b'"acked":'
_DIGITS = 12
_FROM_END = _DIGITS + len("}\n")  # of the header line: where the number begins

_serial = itertools.count()


class SegmentInfo(NamedTuple):
    """What one file of a spool holds: for people who ask what waits."""

    path: Path
    dialect: str
    host: str
    pid: int
    in_use: bool
    events: int
    size: int
    oldest: str


class _Place(NamedTuple):
    """Where a line stands: the token of a journal."""

    segment: _Segment
    start: int
    stop: int


# `_make` of each, without its call in Python: this is done for every event.
_place: Callable[[tuple[_Segment, int, int]], _Place] = partial(tuple.__new__, _Place)
_kept: Callable[[tuple[_Place, bytes]], Kept] = partial(tuple.__new__, Kept)


@dataclass(eq=False)
class _Segment:
    """
    One file: a header line that remembers how far it is acknowledged, then a line an event.

    ``taken`` is up to where lines were handed out, ``acked`` up to where all are settled,
    ``map`` is there as long as it may be written to. Of an adopted one, ``left`` counts the lines
    that were not handed out, as it was when it came: somebody may cut the file.
    """

    path: Path
    fd: int
    mark_at: int
    ended: int
    acked: int
    taken: int
    map: mmap.mmap | None = None
    adopted: bool = False
    left: int = 0
    released: bool = False
    counted: int = 0  # up to where lines were counted as admitted
    settled: dict[int, int] = field(default_factory=dict)  # out of order: start -> stop

    @property
    def end(self) -> int:
        """Where the next line goes, or would go."""
        view = self.map
        return self.ended if view is None else view.tell()

    def read(self, start: int, stop: int) -> bytes:
        view = self.map
        if view is not None:
            return view[start:stop]
        return os.pread(self.fd, stop - start, start)

    def lines(self) -> int:
        """Return how many lines were not handed out."""
        return self.left if self.adopted else self.read(self.taken, self.end).count(b"\n")

    def settle(self, start: int, stop: int) -> None:
        self.settled[start] = stop
        while self.acked in self.settled:
            self.acked = self.settled.pop(self.acked)

    def mark(self) -> None:
        """Write down how far the segment is acknowledged, in place."""
        number = b"%*d" % (_DIGITS, self.acked)
        view = self.map
        if view is not None:
            view[self.mark_at : self.mark_at + _DIGITS] = number
        else:
            os.pwrite(self.fd, number, self.mark_at)

    def finish(self) -> None:
        """Let go of the map of a file that nobody writes to any more."""
        view = self.map
        if view is not None:
            self.ended = view.tell()
            self.map = None  # not closed: it may just be forced to the disk

    def release(self) -> None:
        """Close the file; without a line left, delete it."""
        self.released = True
        with suppress(OSError):  # of a disk in trouble, or a folder that is read-only by now
            self.mark()
            self.finish()
            if self.acked >= self.end:
                self.path.unlink(missing_ok=True)
            else:
                os.ftruncate(self.fd, self.end)
        os.close(self.fd)

    def abandon(self) -> None:
        """Forget the file in a forked child: it, and its lock, are the parent's."""
        self.map = None
        os.close(self.fd)


class JournalSpool:
    """
    Keep lines in segments below *path*; where the disk refuses, in memory, and say so.

    Args:
        path: the folder; made, with mode 0700, if it is not there.
        dialect, host: what the lines are for; other segments are not adopted.
        max_bytes: how much room the files may take.
        drop_oldest: whether the oldest segment gives way then; else the newest event does.
        fsync: ``"never"``, ``"interval"`` (about once a second) or ``"always"``.
        tell: called with a topic and a text for what the user should know.
        lose: called with lines that were dropped and why.
        adopt: called with the number of events that were found in orphans.
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
        tell: Callable[[str, str], None] = lambda topic, text: None,
        lose: Callable[[str, int], None] = lambda reason, count: None,
        refuse: Callable[[str], None] = lambda reason: None,
        adopt: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._path = Path(path)
        self._header = {"posthog_logging": 1, "dialect": dialect, "host": host}
        self._first_line = _header_line(self._header)
        self._max_bytes = max_bytes
        self._drop_oldest = drop_oldest
        self._fsync = fsync
        self._forced = fsync == "always"
        self._tell = tell
        self._lose = lose
        self._refuse = refuse
        self._adopted = adopt
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # for all but a write into the active segment
        self._memory = MemorySpool()
        self._segments: deque[_Segment] = deque()  # oldest first, the active one last
        self._active: _Segment | None = None
        #: Append to the active segment.
        self._write: Callable[[bytes], int] = _nowhere
        # Lines on disk: how many were written here, ever, as far as they were counted; how many
        # came since it was opened, and how many of these were handed out or dropped.
        self._written = 0
        self._came = 0
        self._gone = 0
        self._left: set[Path] = set()  # own segments that were closed with something in them
        self._disk_again_at = 0.0
        self._look_again_at = 0.0
        self._sync_again_at = 0.0
        self._untold: deque[Callable[[], None]] = deque()

    def renew(self) -> None:
        """Begin anew in a forked child: the parent's segments stay the parent's."""
        inherited = self._segments
        self._begin()
        for segment in inherited:
            segment.abandon()

    @property
    def rest(self) -> float:
        """How long until the next look for orphans, in seconds."""
        return max(0.0, self._look_again_at - time.monotonic())

    def __len__(self) -> int:
        with self._lock:
            self._survey()
            return self._came - self._gone + len(self._memory)

    @property
    def admitted(self) -> int:
        """How many lines were written: counted in the files, so that no step can be missed."""
        with self._lock:
            self._survey()
            return self._written

    @property
    def held(self) -> tuple[int, int]:
        """What only memory has."""
        return self._memory.held

    def rewind(self) -> None:
        """Hand out again what was not acknowledged."""
        self._memory.rewind()
        with self._lock:
            for segment in self._segments:
                lines = segment.read(segment.acked, segment.taken).count(b"\n")
                segment.taken = segment.acked
                segment.left += lines
                self._gone -= lines

    def forget(self) -> list[bytes]:
        """Drop all that only memory has."""
        return self._memory.forget()

    def _survey(self) -> None:
        """Count the lines that were written since the last time."""
        for segment in self._segments:
            end = segment.end
            if segment.counted < end and not segment.adopted:
                lines = segment.read(segment.counted, end).count(b"\n")
                segment.counted = end
                self._written += lines
                self._came += lines

    def admit(self, line: bytes) -> Any:
        """Write *line*; return the line where only memory is left, None where nothing is."""
        if self._forced:
            return self._admit_for_sure(line)
        try:
            # Under the GIL this is one step: no call stands between the look at who writes and
            # the write, and a map keeps its own place. At a lock all threads would queue up.
            self._write(line + b"\n")
        except ValueError:  # no segment, or it is full
            if not self._write_anew(line + b"\n"):
                return self._elsewhere(line)
        return RECEIPT

    def _admit_for_sure(self, line: bytes) -> Any:
        """Write *line*, and force it to the disk itself."""
        with self._lock:
            written = self._write_anew(line + b"\n")
            segment = self._active
        if not written:
            return self._elsewhere(line)
        if segment is not None:
            self._force(segment)
        return RECEIPT

    def append(self, items: Iterable[Any]) -> None:
        """Take in what has only memory to be in, and look after the disk from time to time."""
        self._memory.append([item for item in items if item is not RECEIPT])
        self._finish_others()
        now = time.monotonic()
        if now >= self._look_again_at:
            self._look_again_at = now + _ADOPT_EVERY
            self._adopt_orphans()
            self._replace_deleted()
        segment = self._active
        if self._fsync == "interval" and now >= self._sync_again_at and segment is not None:
            self._sync_again_at = now + 1.0
            self._force(segment)

    def take(self, count: int, size: int) -> Sequence[Kept]:
        """Hand out the oldest lines on disk, then those in memory."""
        taken: list[Kept] = []
        with self._lock:
            for segment in list(self._segments):
                found = self._take_from(segment, count - len(taken), size, not taken)
                taken += found
                size -= sum(map(len, lines_of(found))) + len(found)
                if segment.taken < segment.end:
                    break
                self._let_go(segment)
        if self._untold:
            self._speak()
        return taken or self._memory.take(count, size)

    def ack(self, kept: Sequence[Kept]) -> None:
        """Forget lines: write down how far each segment is settled, delete those that are done."""
        if isinstance(kept, View):
            self._memory.ack(kept)
            return
        self._memory.ack([one for one in kept if not isinstance(one.token, _Place)])
        with self._lock:
            touched = set()
            for segment, start, stop in _runs(t for t, _ in kept if isinstance(t, _Place)):
                if not segment.released:
                    segment.settle(start, stop)
                    touched.add(segment)
            for segment in touched:
                segment.mark()
                self._let_go(segment)

    def evict(self, count: int) -> list[bytes]:
        """Drop the oldest lines that only memory has."""
        return self._memory.evict(count)

    def close(self) -> None:
        """Give the segments free: what is not acknowledged is for whoever comes next."""
        with self._lock:
            self._active, self._write = None, _nowhere
            self._survey()
            while self._segments:
                segment = self._segments.popleft()
                if segment.acked < segment.end:
                    self._left.add(segment.path)
                segment.release()
            self._came = self._gone = 0
            self._look_again_at = 0.0  # a line may open it again

    def _elsewhere(self, line: bytes) -> bytes | None:
        """Return *line* where it may wait in memory; else it is lost, and counted."""
        if self._disk_again_at:
            return line
        self._refuse("spool_full")
        return None

    def _speak(self) -> None:
        """Say what there is to say, without the lock: whoever listens may log himself."""
        with suppress(IndexError):
            while True:
                self._untold.popleft()()

    def _take_from(self, segment: _Segment, count: int, size: int, first: bool) -> list[Kept]:
        """Hand out lines of one segment while there is room; one at least if it is the *first*."""
        found: list[Kept] = []
        chunk = _CHUNK
        while len(found) < count and segment.taken < segment.end:
            stop = min(segment.taken + chunk, segment.end)
            lines = segment.read(segment.taken, stop).split(b"\n")[:-1]
            if not lines and stop == segment.end:
                self._lose_rest(segment, "broken")  # somebody else has cut the file
            chunk *= 1 if lines else 4
            lines = lines[: count - len(found)]
            fit = fitting(lines, size, first and not found)
            size -= sum(map(len, lines)) + len(lines)
            found += self._hand_out(segment, lines[:fit])
            if fit < len(lines):
                break
        return found

    def _hand_out(self, segment: _Segment, lines: list[bytes]) -> Iterable[Kept]:
        """Return the next *lines* of *segment* with their places, but for broken ones."""
        stops = [*accumulate((len(line) + 1 for line in lines), initial=segment.taken)]
        segment.taken = stops[-1]
        segment.left -= len(lines)
        self._gone += len(lines)
        places = map(_place, zip(repeat(segment), stops, stops[1:], strict=False))
        kept = list(map(_kept, zip(places, lines, strict=True)))
        if segment.settled:  # after a `rewind`
            runs = list(segment.settled.items())
            kept = [k for k in kept if not any(a <= k.token.start < b for a, b in runs)]
        return kept if not segment.adopted else [one for one in kept if self._is_whole(one)]

    def _is_whole(self, kept: Kept) -> bool:
        """Return whether a line of another process is as it wrote it: others write, too."""
        with suppress(ValueError):
            if isinstance(jsonable.decode(kept.line), dict):
                return True
        kept.token.segment.settle(kept.token.start, kept.token.stop)
        self._untold.append(partial(self._lose, "broken", 1))
        return False

    def _lose_rest(self, segment: _Segment, reason: str) -> None:
        """Give up the lines of *segment* that were not handed out."""
        lines = segment.lines()
        self._untold.append(partial(self._lose, reason, lines))
        self._gone += lines
        segment.left = 0
        segment.settle(segment.taken, segment.end)
        segment.taken = segment.end

    def _let_go(self, segment: _Segment) -> None:
        """Delete *segment* if nothing is written to it any more and all of it is settled."""
        self._survey()
        finished = segment is not self._active and segment.acked >= segment.end
        if finished and not segment.released:
            self._segments.remove(segment)
            segment.release()

    def _write_anew(self, text: bytes) -> bool:
        """Write *text*, where need be into a new segment, the active one from then on."""
        with self._lock:
            with suppress(ValueError):  # another thread has made a segment meanwhile
                self._write(text)
                return True
            following = self._following(text)
            if following is not None:
                self._segments.append(following)
            self._active = following
            self._write = following.map.write if following and following.map else _nowhere
        if self._untold:
            self._speak()
        return following is not None

    def _following(self, text: bytes) -> _Segment | None:
        """Return a new segment with *text* in it; None where there cannot be one."""
        if time.monotonic() < self._disk_again_at:
            return None
        self._disk_again_at = 0.0
        size = max(min(_SEGMENT_SIZE, self._max_bytes // 8), len(text) + len(self._first_line))
        if not self._has_room(size):
            return None
        try:
            return self._create(size, text)
        except OSError as error:
            self._disk_again_at = time.monotonic() + _RETRY_DISK_AFTER
            why = f"no spool ({error.strerror}); events wait in memory"
            self._untold.append(partial(self._tell, "spool", why))
            return None

    def _finish_others(self) -> None:
        """Let go of the maps of all segments but the active one, and delete what is settled."""
        with self._lock:
            for segment in list(self._segments):
                if segment is not self._active and segment.map is not None:
                    if self._fsync == "interval":
                        self._force(segment)
                    segment.finish()
                    self._let_go(segment)

    def _force(self, segment: _Segment) -> None:
        """Force what was written to the disk itself."""
        view = segment.map
        try:
            if view is not None:  # else another thread has finished, and forced, it
                view.flush()
        except OSError as error:
            self._tell("fsync", f"the spool could not be forced to disk ({error.strerror})")

    def _replace_deleted(self) -> None:
        """Let the next line begin a new segment where somebody has deleted the active one."""
        with self._lock:
            segment = self._active
            if segment is not None and not segment.path.exists():
                self._active, self._write = None, _nowhere

    def _has_room(self, size: int) -> bool:
        """Return whether a segment of *size* fits, dropping the oldest ones if that is allowed."""
        # A file that is settled to its end is the active one, about to be deleted.
        held = sum(one.end for one in list(self._segments) if one.acked < one.end)
        while held + size > self._max_bytes and self._drop_oldest and self._segments:
            held -= self._drop(self._segments.popleft())
        return held + size <= self._max_bytes

    def _drop(self, segment: _Segment) -> int:
        """Give up what of *segment* was not handed out, and the file; return the bytes it held."""
        if not segment.adopted:  # it is in no list any more
            lines = segment.read(segment.counted, segment.end).count(b"\n")
            segment.counted = segment.end
            self._written += lines
            self._came += lines
        freed = segment.end if segment.acked < segment.end else 0
        self._lose_rest(segment, "spool_full")
        segment.acked = segment.end  # what was handed out is with the sender, in memory
        if segment is self._active:
            self._active, self._write = None, _nowhere
        segment.release()
        return freed

    def _create(self, size: int, text: bytes) -> _Segment:
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path / f"{os.getpid()}-{time.time_ns():x}-{next(_serial)}{_SUFFIX}"
        new = path.with_suffix(_NEW)
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            _allocate(fd, size)
            view = mmap.mmap(fd, size)
            view.write(self._first_line)
            new.rename(path)
            if self._fsync != "never":
                _force_folder(self._path)
        except BaseException:
            new.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            os.close(fd)
            raise
        start = view.tell()
        view.write(text)
        return _Segment(path, fd, start - _FROM_END, start, start, start, view, counted=start)

    def _adopt_orphans(self) -> None:
        """Take over the segments whose writers are gone, oldest first."""
        own = {segment.path for segment in list(self._segments)}
        found = [path for path in _listed(self._path, _SUFFIX) if path not in own]
        adopted: list[_Segment] = []
        for path in found:
            if len(own) + len(adopted) >= _MOST_OPEN:
                break
            segment = self._adopt(path)
            if segment is not None:
                adopted.append(segment)
        count = sum(segment.lines() for segment in adopted)
        with self._lock:
            self._segments.extendleft(reversed(adopted))
            self._came += count
        theirs = sum(one.left for one in adopted if one.path not in self._left)
        self._left -= {one.path for one in adopted}
        if theirs:
            self._adopted(theirs)
        for path in _listed(self._path, _NEW):
            _remove_unborn(path)

    def _adopt(self, path: Path) -> _Segment | None:
        """Return the segment at *path* if it is an orphan of ours with something in it."""
        try:
            fd = _lock(path)
        except OSError as error:
            self._complain(path, f"cannot be opened ({error.strerror})")
            return None
        if fd is None:
            return None
        try:
            segment = _open_segment(path, fd)
            theirs = _read_header(os.pread(fd, _HEAD, 0))
        except OSError:  # a folder, a pipe, a bad sector
            segment = theirs = None
        ours = {key: self._header[key] for key in ("dialect", "host")}
        if segment is None or theirs is None:
            self._complain(path, "is no segment of a spool; left alone")
        elif {key: theirs.get(key) for key in ours} != ours:
            self._complain(path, "is for another host or dialect; left alone")
        elif segment.lines() == 0:
            segment.acked = segment.end
            segment.release()
            return None
        else:
            return segment
        os.close(fd)
        return None

    def _complain(self, path: Path, text: str) -> None:
        self._tell(f"spool file {path.name}", f"{path.name} {text}")


def segments_in(path: str | os.PathLike[str]) -> list[SegmentInfo]:
    """Return what waits in the spool at *path*, oldest first; changes nothing."""
    found = []
    for file in _listed(Path(path), _SUFFIX):
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            info = _describe(file, fd)
        except OSError:  # a folder, a pipe
            info = None
        finally:
            os.close(fd)
        if info is not None:
            found.append(info)
    return found


def _describe(path: Path, fd: int) -> SegmentInfo | None:
    header = _read_header(os.pread(fd, _HEAD, 0))
    segment = _open_segment(path, fd)
    if header is None or segment is None:
        return None
    first = segment.read(segment.acked, min(segment.end, segment.acked + _CHUNK)).split(b"\n")[0]
    at = first.find(b'"timestamp":"')
    stamp = first[at + 13 : first.find(b'"', at + 13)] if at >= 0 else b""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        in_use = False
    except OSError:
        in_use = True
    pid = path.name.split("-")[0]
    return SegmentInfo(
        path,
        str(header.get("dialect", "")),
        str(header.get("host", "")),
        int(pid) if pid.isdigit() else 0,
        in_use,
        segment.lines(),
        segment.end - segment.acked,
        stamp.decode(errors="replace"),
    )


def _open_segment(path: Path, fd: int) -> _Segment | None:
    """Return a segment as its writer left it; what stands behind the last whole line is torn."""
    header = _read_header(os.pread(fd, _HEAD, 0))
    if header is None:
        return None
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    zeros = data.find(b"\0")
    end = data.rfind(b"\n", 0, len(data) if zeros < 0 else zeros) + 1
    first = data.index(b"\n") + 1
    if not data[:first].endswith(_MARK + data[first - _FROM_END : first]):
        return None
    acked = header.get("acked")
    if not isinstance(acked, int) or not first <= acked <= end or data[acked - 1] != 10:  # "\n"
        acked = first
    lines = data.count(b"\n", acked, end)
    return _Segment(path, fd, first - _FROM_END, end, acked, acked, adopted=True, left=lines)


def _lock(path: Path) -> int | None:
    """Return a file that is now ours, or None where its writer lives."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    if not path.exists():  # its owner finished and deleted it between the two calls
        os.close(fd)
        return None
    return fd


def _header_line(header: dict[str, Any]) -> bytes:
    """Return the first line: its last value has room for any offset, to be written in place."""
    return jsonable.encode(header)[:-1] + b"," + _MARK + b"%*d}\n" % (_DIGITS, 0)


def _read_header(head: bytes) -> dict[str, Any] | None:
    line, newline, _ = head.partition(b"\n")
    try:
        header = jsonable.decode(line) if newline else None
    except ValueError:
        return None
    return header if isinstance(header, dict) and header.get("posthog_logging") == 1 else None


def _allocate(fd: int, size: int) -> None:
    """Reserve the blocks: a store into a map beyond a full disk would be a SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size)
    elif os.pwrite(fd, b"\0" * size, 0) < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _force_folder(path: Path) -> None:
    """Force the name of a new file to the disk itself."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_unborn(path: Path) -> None:
    """Delete a segment that never got its name, as its maker was killed meanwhile."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _NEW_FOR:
            fd = _lock(path)
            if fd is not None:
                path.unlink(missing_ok=True)
                os.close(fd)


def _listed(folder: Path, suffix: str) -> list[Path]:
    """Return the files of a spool, oldest first; none where the folder cannot be read."""
    try:
        return sorted(folder.glob(f"*{suffix}"), key=_age)
    except OSError:
        return []


def _nowhere(text: bytes) -> int:
    """Refuse *text* as a map does that is full."""
    raise ValueError("no segment")


def _runs(places: Iterable[_Place]) -> Iterator[tuple[_Segment, int, int]]:
    """Join places that follow each other, as those of a batch mostly do."""
    run: tuple[_Segment, int, int] | None = None
    for segment, start, stop in places:
        if run is not None and run[0] is segment and run[2] == start:
            run = segment, run[1], stop
            continue
        if run is not None:
            yield run
        run = segment, start, stop
    if run is not None:
        yield run


def _age(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return 0.0, path.name
