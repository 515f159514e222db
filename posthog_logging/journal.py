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

import fcntl
import itertools
import mmap
import os
import threading
import time

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from . import jsonable
from .spool import RECEIPT, Kept, MemorySpool


__all__ = ["JournalSpool", "SegmentInfo", "segments_in"]

_SUFFIX = ".ndjson"
_SEGMENT_SIZE = 4 * 1024 * 1024
_CHUNK = 256 * 1024
_ADOPT_EVERY = 10.0
_RETRY_DISK_AFTER = 30.0
_MARK = b'"acked":'
_DIGITS = 12

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


@dataclass(eq=False)
class _Segment:
    """
    One file: a header line that remembers how far it is acknowledged, then a line an event.

    ``end`` is where the next line goes, ``taken`` up to where lines were handed out,
    ``acked`` up to where all are settled.
    """

    path: Path
    fd: int
    end: int
    acked: int
    taken: int
    map: mmap.mmap | None = None
    size: int = 0
    finished: bool = False
    lines: int = 0  # not taken yet; kept for adopted segments only
    settled: dict[int, int] = field(default_factory=dict)  # out of order: start -> stop

    def read(self, start: int, stop: int) -> bytes:
        if self.map is not None:
            return self.map[start:stop]
        return os.pread(self.fd, stop - start, start)

    def settle(self, start: int, stop: int) -> None:
        self.settled[start] = stop
        while self.acked in self.settled:
            self.acked = self.settled.pop(self.acked)

    def mark(self) -> None:
        """Write down how far the segment is acknowledged, in place."""
        at = _mark_in(self.read(0, 512))
        if at < 0:
            return
        number = b"%*d" % (_DIGITS, self.acked)
        if self.map is not None:
            self.map[at : at + _DIGITS] = number
        else:
            os.pwrite(self.fd, number, at)

    def release(self) -> None:
        """Close map and file, cut to what was written; without a line left, delete it."""
        if self.map is not None:
            self.map.close()
            self.map = None
        if self.acked >= self.end:
            self.path.unlink(missing_ok=True)
        elif self.size:
            os.ftruncate(self.fd, self.end)
        os.close(self.fd)

    def abandon(self) -> None:
        """Forget the file in a forked child: it, and its lock, are the parent's."""
        if self.map is not None:
            self.map.close()
        os.close(self.fd)


class JournalSpool:
    """
    Keep lines in segments below *path*; where the disk refuses, in memory, and say so.

    Args:
        path: the folder; made, with mode 0700, if it is not there.
        dialect, host: what the lines are for; other segments are not adopted.
        max_bytes: how much may wait on disk.
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
        adopt: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._path = Path(path)
        self._header = {"posthog_logging": 1, "dialect": dialect, "host": host}
        self._max_bytes = max_bytes
        self._drop_oldest = drop_oldest
        self._fsync = fsync
        self._tell = tell
        self._lose = lose
        self._adopted = adopt
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._memory = MemorySpool()
        self._segments: deque[_Segment] = deque()  # oldest first, the active one last
        self._active: _Segment | None = None
        self._written = 0
        self._handed = 0
        self._disk_again_at = 0.0
        self._look_again_at = 0.0
        self._sync_again_at = 0.0
        self._closed = False

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
        return self._written - self._handed + len(self._memory)

    def admit(self, line: bytes) -> Any:
        """Write *line*; return the line where only memory is left, None where nothing is."""
        size = len(line) + 1
        with self._lock:
            segment = self._active
            if segment is None or segment.end + size > segment.size:
                segment = self._turn_over(size)
            if segment is None or segment.map is None:
                return line if self._disk_again_at else None
            start = segment.end
            stop = start + size
            segment.map[start:stop] = line + b"\n"
            segment.end = stop
            self._written += 1
        if self._fsync == "always":
            _flush(segment, start)
        return RECEIPT

    def append(self, items: Iterable[Any]) -> None:
        """Take in what has only memory to be in, and look after the disk from time to time."""
        self._memory.append([item for item in items if item is not RECEIPT])
        now = time.monotonic()
        if now >= self._look_again_at:
            self._look_again_at = now + _ADOPT_EVERY
            self._adopt_orphans()
        if self._fsync == "interval" and now >= self._sync_again_at and self._active is not None:
            self._sync_again_at = now + 1.0
            _flush(self._active, 0)

    def take(self, count: int, size: int) -> list[Kept]:
        """Hand out the oldest lines on disk, then those in memory."""
        taken: list[Kept] = []
        for segment in list(self._segments):
            for kept in self._take_from(segment, count - len(taken), size):
                taken.append(kept)
                size -= len(kept.line) + 1
            if len(taken) >= count or segment.taken < segment.end:
                break
        self._handed += len(taken)
        if not taken:
            return self._memory.take(count, size)
        return taken

    def ack(self, kept: Sequence[Kept]) -> None:
        """Forget lines: write down how far each segment is settled, delete those that are done."""
        touched = set()
        for token, _ in kept:
            if token is not None:
                token.segment.settle(token.start, token.stop)
                touched.add(token.segment)
        for segment in touched:
            if segment.finished and segment.acked >= segment.end:
                self._segments.remove(segment)
                segment.release()
            else:
                segment.mark()

    def evict(self, count: int) -> list[bytes]:
        """Drop the oldest lines that only memory has."""
        return self._memory.evict(count)

    def close(self) -> None:
        """Give the segments free: what is not acknowledged is for whoever comes next."""
        with self._lock:
            self._closed = True
            self._active = None
            while self._segments:
                segment = self._segments.popleft()
                segment.mark()
                segment.release()

    def _take_from(self, segment: _Segment, count: int, size: int) -> Iterator[Kept]:
        """Hand out lines of one segment while there is room; one at least, however large."""
        first = True
        chunk = _CHUNK
        while count > 0 and segment.taken < segment.end:
            data = segment.read(segment.taken, min(segment.taken + chunk, segment.end))
            lines = data.split(b"\n")[:-1]
            if not lines:
                chunk *= 4
                if len(data) < chunk // 4:  # a last line without an end: torn
                    segment.taken = segment.end
                continue
            for line in lines[:count]:
                size -= len(line) + 1
                if size < 0 and not first:
                    return
                first = False
                count -= 1
                start, segment.taken = segment.taken, segment.taken + len(line) + 1
                yield Kept(_Place(segment, start, segment.taken), line)

    def _turn_over(self, size: int) -> _Segment | None:
        """Finish the active segment and begin the next; None where there is no room for it."""
        if self._closed or time.monotonic() < self._disk_again_at:
            return None
        if self._active is not None:
            self._finish(self._active)
            self._active = None
        if not self._has_room(size):
            return None
        try:
            self._active = self._create(max(_SEGMENT_SIZE, size + 1024))
        except OSError as error:
            self._disk_again_at = time.monotonic() + _RETRY_DISK_AFTER
            self._tell("spool", f"no spool ({error.strerror}); events wait in memory")
            return None
        self._disk_again_at = 0.0
        self._segments.append(self._active)
        return self._active

    def _finish(self, segment: _Segment) -> None:
        """Write no more into *segment*: unmap it, and delete it if all of it is settled."""
        segment.finished = True
        if segment.acked >= segment.end:
            self._segments.remove(segment)
            segment.release()
        elif segment.map is not None:
            segment.map.close()
            segment.map = None
            os.ftruncate(segment.fd, segment.end)

    def _has_room(self, size: int) -> bool:
        waiting = sum(segment.end - segment.acked for segment in self._segments)
        while waiting + size > self._max_bytes and self._drop_oldest and self._segments:
            waiting -= self._drop(self._segments[0])
        if waiting + size > self._max_bytes:
            self._lose("spool_full", 1)
            return False
        return True

    def _drop(self, segment: _Segment) -> int:
        """Give up the lines of the oldest segment that were not handed out; return its bytes."""
        lines = segment.read(segment.taken, segment.end).count(b"\n")
        self._handed += lines
        freed = segment.end - segment.acked
        segment.settle(segment.taken, segment.end)
        segment.taken = segment.end
        self._lose("spool_full", lines)
        self._segments.popleft()
        segment.acked = segment.end
        segment.release()
        return freed

    def _create(self, size: int) -> _Segment:
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path / f"{os.getpid()}-{time.time_ns():x}-{next(_serial)}{_SUFFIX}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _allocate(fd, size)
            header = _header_line(self._header)
            view = mmap.mmap(fd, size)
            view[: len(header)] = header
        except BaseException:
            path.unlink(missing_ok=True)
            os.close(fd)
            raise
        start = len(header)
        return _Segment(path, fd, start, start, start, view, size)

    def _adopt_orphans(self) -> None:
        """Take over the segments whose writers are gone, oldest first."""
        try:
            paths = sorted(self._path.glob(f"*{_SUFFIX}"), key=_age)
        except OSError:
            return
        own = {segment.path for segment in self._segments}
        for path in paths:
            if path not in own:
                self._adopt(path)

    def _adopt(self, path: Path) -> None:
        try:
            fd = _lock(path)
        except OSError as error:
            self._tell(
                f"spool file {path.name}", f"{path.name} cannot be opened ({error.strerror})"
            )
            return
        if fd is None:
            return
        segment = _open_segment(path, fd)
        theirs = _read_header(os.pread(fd, 512, 0))
        ours = {key: self._header[key] for key in ("dialect", "host")}
        if segment is None or theirs is None:
            os.close(fd)
            self._tell(
                f"spool file {path.name}", f"{path.name} is no segment of a spool; left alone"
            )
        elif {key: theirs.get(key) for key in ours} != ours:
            os.close(fd)
            self._complain(path, "is for another host or dialect; left alone")
        elif segment.lines == 0:
            segment.acked = segment.end
            segment.release()
        else:
            self._segments.appendleft(segment)
            self._written += segment.lines
            self._adopted(segment.lines)

    def _complain(self, path: Path, text: str) -> None:
        self._tell(f"spool file {path.name}", f"{path.name} {text}")


def segments_in(path: str | os.PathLike[str]) -> list[SegmentInfo]:
    """Return what waits in the spool at *path*, oldest first; changes nothing."""
    found = []
    for file in sorted(Path(path).glob(f"*{_SUFFIX}"), key=_age):
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            info = _describe(file, fd)
        finally:
            os.close(fd)
        if info is not None:
            found.append(info)
    return found


def _describe(path: Path, fd: int) -> SegmentInfo | None:
    header = _read_header(os.pread(fd, 512, 0))
    segment = _open_segment(path, fd)
    if header is None or segment is None:
        return None
    first = segment.read(segment.acked, min(segment.end, segment.acked + _CHUNK)).split(b"\n")[0]
    at = first.find(b'"timestamp":"')
    oldest = first[at + 13 : first.find(b'"', at + 13)].decode() if at >= 0 else ""
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
        segment.lines,
        segment.end - segment.acked,
        oldest,
    )


def _open_segment(path: Path, fd: int) -> _Segment | None:
    """Return a segment as its writer left it; what stands behind the last whole line is torn."""
    size = os.fstat(fd).st_size
    data = os.pread(fd, size, 0)
    header = _read_header(data[:512])
    if header is None:
        return None
    zeros = data.find(b"\0")
    end = data.rfind(b"\n", 0, len(data) if zeros < 0 else zeros) + 1
    first = data.index(b"\n") + 1
    acked = int(header.get("acked") or 0)
    acked = acked if first <= acked <= end and data[acked - 1 : acked] == b"\n" else first
    lines = data.count(b"\n", acked, end)
    return _Segment(path, fd, end, acked, acked, finished=True, lines=lines, size=size)


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


def _mark_in(head: bytes) -> int:
    at = head.find(_MARK)
    return at + len(_MARK) if at >= 0 else -1


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
        return
    os.pwrite(fd, b"\0" * size, 0)


def _flush(segment: _Segment, start: int) -> None:
    """Push what was written from *start* on to the disk itself."""
    if segment.map is not None:
        page = start - start % mmap.PAGESIZE
        segment.map.flush(page, min(segment.end, segment.size) - page)


def _age(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return 0.0, path.name
