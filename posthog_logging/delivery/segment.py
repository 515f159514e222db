"""
One file of a spool: a header line that notes how far it is acknowledged, then a line per event.

The process that writes a segment holds its ``flock``; a segment whose lock is free is an orphan.
What is written is in the kernel, so it survives ``kill -9``, though not a power cut (see *fsync*).

A segment is a file mapped at its full size. A store into the map takes half a microsecond and,
unlike ``write``, never releases the interpreter's lock: beside a busy thread a ``write`` takes
130 µs on average. The blocks are allocated first, so that a full disk is an error, not a signal.
Never truncate a segment that is in use; to delete one is safe.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import re
import stat
import time
import types
import weakref

from contextlib import suppress
from pathlib import Path
from typing import Any

from ..events import jsonable
from .lock import Lock, has_gil


__all__ = [
    "DAMAGED",
    "NEW",
    "SUFFIX",
    "Segment",
    "adopt",
    "header_line",
    "is_faked",
    "is_locked",
    "read",
    "readdress",
    "trim",
]

SUFFIX = ".ndjson"
NEW = ".new"  # until the segment is locked and has its header
DAMAGED = ".damaged"  # read as far as possible, and kept for people to look at

_HEAD = 64 * 1024
# Of file systems that cannot reserve blocks, where the C library does not write zeros instead.
_NO_FALLOCATE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_MARK = b'"acked":'
_DIGITS = 12
_FROM_END = _DIGITS + len("}\n")  # where the number begins, from the end of the header line
# In a damaged header; one that ends with the host was never a segment's.
_DESTINATION = re.compile(rb'"dialect": ?"[^"]*", ?"host": ?"[^"]*"(?!}\r?\n)')

# Held while a file is opened and noted, or closed. A fork waits for it, so that a child knows all
# files that it inherits: one that it does not close stays locked until it ends.
_files_lock = Lock()
_LOOKS = 10  # of others, that are waited for
_FORK_WAITS_FOR = 1.0  # seconds
_made: weakref.WeakSet[Segment] = weakref.WeakSet()


class Segment:
    """
    A segment that this process has locked.

    Lines were handed out up to ``taken``, and all are settled up to ``acked``. ``map`` is there
    while lines may be written. ``left`` counts the lines of an adopted segment that were not
    handed out, as another program may cut the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.map: mmap.mmap | None = None
        self.first = self.ended = self.acked = self.taken = 0
        self.counted = 0  # lines up to here were counted as admitted
        self.adopted = False
        self.left = 0
        self.damaged = False
        self.has_header = True  # a whole one
        self.broken = 0  # about how many lines are unreadable
        self.digest = b""  # of all lines, to recognise a copy
        self.released = False
        self.settled: dict[int, int] = {}  # beyond `acked`, start -> stop
        self._fds: list[int] = []  # none or one: a list, so that opening and noting is one step
        _made.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path.name}>"

    @property
    def fd(self) -> int:
        """The file's descriptor."""
        return self._fds[0]

    @property
    def end(self) -> int:
        """Where the last line ends."""
        view = self.map
        return self.ended if view is None else view.tell()

    @property
    def room(self) -> int:
        """How many more bytes fit."""
        view = self.map
        return 0 if view is None else len(view) - view.tell()

    def create(self, size: int, header: bytes) -> None:
        """Make the file, locked, with *header* and room for *size* bytes; raises OSError."""
        new = self.path.with_suffix(NEW)
        try:
            self._open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            _allocate(self.fd, size)
            with _files_lock:
                self.map = mmap.mmap(self.fd, size)
            self.map.write(header)
            self.first = self.acked = self.taken = self.counted = len(header)
            new.rename(self.path)
        except BaseException:
            if self._fds:
                new.unlink(missing_ok=True)
            self.discard()
            raise

    def lock(self) -> bool:
        """Lock an orphan; return whether it is one. Raises OSError if that cannot be found out."""
        try:
            # Non-blocking, in case it is a pipe.
            self._open(self.path, os.O_RDWR | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        try:
            if not stat.S_ISREG(os.fstat(self.fd).st_mode):
                raise OSError(errno.EINVAL, "no regular file")
            is_orphan = _lock(self.fd)
        except BaseException:
            self.abandon()
            raise
        if not is_orphan or not self.is_in_place():  # deleted by its owner between the two calls
            self.abandon()
            return False
        return True

    def is_in_place(self) -> bool:
        """Return whether the file is still in its folder, and not another one, such as a copy."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self.fd))
        except OSError:
            return False

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from *start* to *stop*, fewer if the file is shorter."""
        view = self.map
        if view is not None:
            return view[start:stop]
        return os.pread(self.fd, stop - start, start)

    def lines(self) -> int:
        """Return how many lines were not handed out."""
        return self.left if self.adopted else self.lines_between(self.taken, self.end)

    def lines_between(self, start: int, stop: int) -> int:
        """Return how many lines from *start* to *stop* are not settled."""
        count = 0
        for begun, done in sorted(self.settled.items()):
            if start <= begun < stop:
                count += self.read(start, begun).count(b"\n")
                start = done
        return count + self.read(start, stop).count(b"\n")

    def next_lines(self, size: int) -> list[bytes]:
        """Return whole lines that were not handed out, at most *size* bytes of them."""
        while self.taken in self.settled:
            self.taken = self.settled[self.taken]
        following = (start for start in self.settled if start > self.taken)
        stop = min(self.taken + size, self.end, *following)
        return self.read(self.taken, stop).split(b"\n")[:-1]

    def settle(self, start: int, stop: int) -> None:
        """Note that the lines from *start* to *stop* need not be delivered any more."""
        self.settled[start] = stop
        while self.acked in self.settled:
            self.acked = self.settled.pop(self.acked)

    def mark(self) -> None:
        """Write into the header how far the segment is acknowledged, unless it is damaged."""
        if not self.has_header:
            return
        number = b"%*d" % (_DIGITS, self.acked)
        view, at = self.map, self.first - _FROM_END
        if view is not None:
            view[at : at + _DIGITS] = number
        else:
            os.pwrite(self.fd, number, at)

    def force(self) -> None:
        """Force what was written to the disk itself."""
        view = self.map
        with suppress(ValueError):  # another thread has just sealed it
            if view is not None:
                view.flush()

    def seal(self) -> None:
        """Take no more lines; a caller that has loaded the map's ``write`` gets ValueError."""
        view = self.map
        if view is not None:
            self.ended = view.tell() if has_gil() else _fill(view)
            with _files_lock:
                self.map = None
                view.close()

    def trim(self) -> None:
        """Give back the room behind the last line."""
        if os.fstat(self.fd).st_size > self.end:
            os.ftruncate(self.fd, self.end)

    def release(self) -> None:
        """Close the file; if no line is left, delete it, or set it aside if it is damaged."""
        self.released = True
        with suppress(OSError):  # the disk may fail, or the folder be read-only by now
            self.mark()
            self.seal()
            if self.acked < self.end:
                self.trim()
            elif self.damaged:
                self.path.rename(self.path.with_suffix(DAMAGED))
            else:
                self.path.unlink(missing_ok=True)
        self.abandon()

    def discard(self) -> None:
        """Delete a segment in which nothing was written."""
        if self._fds:
            self.path.unlink(missing_ok=True)
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is, as a forked child does with its parent's."""
        with _files_lock:
            view, self.map = self.map, None
            if view is not None:
                with suppress(BufferError):
                    view.close()  # it has its own file descriptor, which shares the lock
            while self._fds:
                os.close(self._fds.pop())

    def _open(self, path: Path, flags: int) -> None:
        with _files_lock:
            # In one step of C, so that no signal comes between opening and noting.
            self._fds.extend(map(os.open, (path,), (flags | os.O_CLOEXEC,), (0o600,)))


def adopt(path: Path, first_line: bytes) -> Segment | str | None:
    """
    Return the orphan at *path*, if it is for the same destination as *first_line*.

    None if it is in use or gone; if it cannot be adopted, the reason as a text. Damaged parts are
    settled already.
    """
    segment = Segment(path)
    try:
        if not segment.lock():
            return None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):  # too many open files: try again later
            return None
        return f"cannot be opened ({error.strerror})"
    try:
        problem = _read_into(segment, first_line)
        if not problem:
            segment.trim()
            return segment
    except OSError as error:  # such as a bad sector
        problem = f"cannot be read ({error.strerror})"
    segment.abandon()
    return problem


def trim(path: Path) -> None:
    """Truncate the segment of a process that was killed to its lines."""
    segment = Segment(path)
    with suppress(OSError):
        if segment.lock():
            size = os.fstat(segment.fd).st_size
            if size and os.pread(segment.fd, 1, size - 1) == b"\0":
                data = os.pread(segment.fd, size, 0)
                if _header_in(data) is not None:
                    os.ftruncate(segment.fd, _end_of_lines(data))
    segment.abandon()


def read(path: Path, fd: int) -> tuple[Segment, dict[str, Any], bytes] | None:
    """
    Return the segment in an open file, without a lock, its header, and its first waiting line.

    None if it is no segment.
    """
    segment = Segment(path)
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    header = _header_in(data)
    if header is None:
        return None
    _take_stock(segment, data, *header)
    return segment, header[0], data[segment.acked : segment.end].partition(b"\n")[0]


def readdress(path: Path, new: Path, host: str) -> bool:
    """
    Move what waits in the orphan at *path* to a segment at *new*, for another *host*.

    Returns False if it is in use or no segment. A kill meanwhile leaves a copy, and loses nothing.
    """
    old = Segment(path)
    try:
        data = os.pread(old.fd, os.fstat(old.fd).st_size, 0) if old.lock() else b""
        header = _header_in(data)
        if header is None:
            return False
        _take_stock(old, data, *header)
        first_line = header_line({**header[0], "host": host})
        made = Segment(new)
        made.create(len(first_line) + old.end - old.acked, first_line)
        if made.map is not None:
            made.map.write(data[old.acked : old.end])
        made.release()
        path.unlink(missing_ok=True)
        return True
    finally:
        old.abandon()


def _lock(fd: int) -> bool:
    """Lock a segment in an open file; return whether it was free."""
    for _ in range(_LOOKS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if is_locked(fd):
                return False
        time.sleep(0.001)  # somebody else asks whether it is locked, and is done at once
    return False


def is_locked(fd: int) -> bool:
    """Return whether a process has locked the segment in an open file."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def header_line(header: dict[str, Any]) -> bytes:
    """Return the first line; its last value has room for any offset, which is written in place."""
    fields = {key: value for key, value in header.items() if key != "acked"}
    return jsonable.encode(fields)[:-1] + b"," + _MARK + b"%*d}\n" % (_DIGITS, 0)


def is_faked() -> bool:
    """Return whether a test fakes the file system: a map would write to the real one."""
    return not isinstance(os.open, types.BuiltinFunctionType)


def _read_into(segment: Segment, first_line: bytes) -> str:
    """Fill in *segment*, an orphan; return what is wrong with it, "" if nothing."""
    head = os.pread(segment.fd, _HEAD, 0)
    found = _header_in(head)
    if found is None:
        return "is no segment of a spool"
    ours = _header_in(first_line)
    if ours and any(found[0].get(key) != ours[0].get(key) for key in ("dialect", "host")):
        return "is for another host or dialect"
    data = head if len(head) < _HEAD else os.pread(segment.fd, os.fstat(segment.fd).st_size, 0)
    _take_stock(segment, data, *found)
    return ""


def _take_stock(segment: Segment, data: bytes, header: dict[str, Any], first: int) -> None:
    """Fill in what *data* holds from *first* on, up to the last whole line."""
    end = max(first, _end_of_lines(data))
    acked = header.get("acked")
    if not isinstance(acked, int) or not first <= acked <= end or data[acked - 1] != 10:  # "\n"
        acked = first
    segment.first, segment.ended = first, end
    segment.acked = segment.taken = acked
    segment.adopted = True
    segment.has_header = "acked" in header
    segment.digest = hashlib.blake2b(data[first:end], digest_size=16).digest()
    spans, segment.left, segment.broken = _damage(data[acked:end])
    segment.damaged = bool(spans) or not segment.has_header
    for start, stop in spans:
        segment.settle(acked + start, acked + stop)
    segment.taken = segment.acked


def _damage(data: bytes) -> tuple[list[tuple[int, int]], int, int]:
    """Return the parts of *data* that are no events, the number of events, and of those lost."""
    lines = data.split(b"\n")[:-1]
    whole = list(map(_is_event, lines))
    if all(whole):
        return [], len(lines), 0
    opening = _opening(next((line for line, good in zip(lines, whole, strict=True) if good), b""))
    spans: list[tuple[int, int]] = []
    at = events = 0
    for line, good in zip(lines, whole, strict=True):
        lost = 0 if good else _lost_of(line, opening)
        if lost:
            joined = spans.pop()[0] if spans and spans[-1][1] == at else at
            spans.append((joined, at + lost))
        at += len(line) + 1
        events += lost <= len(line)
    if not events:
        return spans, 0, len(lines)
    # A stretch of zeros may have replaced newlines: its length shows how many lines there were.
    size = (len(data) - sum(stop - start for start, stop in spans)) / events
    return spans, events, sum(max(1, round((stop - start) / size)) for start, stop in spans)


def _lost_of(line: bytes, opening: bytes) -> int:
    """Return how many bytes of a damaged *line* are lost: a whole one may follow in it."""
    at = line.find(opening, 1) if opening else -1
    while at > 0:
        if _is_event(line[at:]):
            return at
        at = line.find(opening, at + 1)
    return len(line) + 1


def _opening(line: bytes) -> bytes:
    """Return the beginning of *line*, up to its first key, as all lines of a dialect have it."""
    return line[: line.find(b'"', 2) + 1]


def _is_event(line: bytes) -> bool:
    return _object_in(line) is not None


def _object_in(line: bytes) -> dict[str, Any] | None:
    try:
        value = jsonable.decode(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _end_of_lines(data: bytes) -> int:
    """Return where the last whole line ends; a torn one may follow, then zeros."""
    return data.rfind(b"\n", 0, len(data.rstrip(b"\0"))) + 1


def _header_in(data: bytes) -> tuple[dict[str, Any], int] | None:
    """
    Return the header, and where the lines begin; None if there is none.

    A damaged header is without ``acked``; it must still name the destination.
    """
    line, newline, _ = data[:_HEAD].partition(b"\n")
    header = _object_in(line) if newline else None
    is_marked = line[: 1 - _FROM_END].endswith(_MARK)
    if header is not None and header.get("posthog_logging") == 1 and is_marked:
        return header, len(line) + 1
    named = _DESTINATION.search(data, 0, _HEAD)
    destination = _object_in(b"{%b}" % named[0]) if named else None
    if named is None or destination is None:
        return None
    made = {"posthog_logging": 1, **destination}
    size = len(header_line(made))
    if named.end() > size:  # an event's own keys
        return None
    return made, len(line) + 1 if header is not None else size


def _allocate(fd: int, size: int) -> None:
    """Reserve the blocks: on a full disk, a store into the map would be a SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
            return
        except OSError as error:
            if error.errno not in _NO_FALLOCATE:
                raise
    if os.pwrite(fd, b"\0" * size, 0) < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _fill(view: mmap.mmap) -> int:
    """Fill *view* up, while others may write; return where its lines end."""
    while True:
        end = view.tell()
        with suppress(ValueError):
            view.write(bytes(len(view) - end))
            return end


def _before_fork() -> None:
    _files_lock.acquire(timeout=_FORK_WAITS_FOR)


def _after_fork() -> None:
    with suppress(RuntimeError):  # it was not acquired in time
        _files_lock.release()


def _after_fork_in_child() -> None:
    global _files_lock
    _files_lock = Lock()
    for segment in list(_made):
        segment.abandon()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork,
    after_in_child=_after_fork_in_child,
)
