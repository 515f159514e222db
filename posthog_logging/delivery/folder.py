"""
The folder of a spool: which files are in it, how much room they take, and which to clear away.

Only files with a name of this library's form, and segments by their header, are ever changed or
deleted.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import time

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from . import segment
from .segment import DAMAGED, NEW, SUFFIX, Segment


__all__ = ["Finding", "Folder", "SegmentInfo", "findings_in", "segments_in", "unreadable_in"]

_NEW_FOR = 60.0  # seconds, which is longer than it takes to make a segment
_MOST_DAMAGED = 16  # files

# The writer's pid, the time in nanoseconds, and a number, so that names differ.
_SUFFIXES = "|".join(map(re.escape, (SUFFIX, NEW, DAMAGED)))
_OWN = re.compile(rf"\d+-([0-9a-f]+)-\d+(?:{_SUFFIXES})\Z", re.ASCII)
_serial = itertools.count()


class SegmentInfo(NamedTuple):
    """What one segment holds, for people who want to know what waits."""

    path: Path
    dialect: str
    host: str
    pid: int
    in_use: bool
    events: int
    size: int
    oldest: str
    broken: int = 0
    has_header: bool = True


class Finding(NamedTuple):
    """What one file in a spool's folder is, for people who want to know whether all is well."""

    path: Path
    state: str
    is_wrong: bool
    segment: SegmentInfo | None = None


class Folder:
    """The files of a spool at *path*, which need not exist yet."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()  # the program may change its working directory

    def new_path(self) -> Path:
        """Return a path for a new segment, after making the folder if need be."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        now = abs(time.time_ns())  # a test's clock may stand before 1970
        return self.path / f"{os.getpid()}-{now:x}-{next(_serial)}{SUFFIX}"

    def segments(self) -> list[Path]:
        """Return the files that may be segments, oldest first."""
        return sorted(self._files(SUFFIX), key=_age)

    def owns(self, path: Path) -> bool:
        """Return whether the name of *path* has this library's form."""
        return _OWN.match(path.name) is not None

    def size(self) -> int:
        """Return how many bytes the files of all processes take."""
        total = 0
        for path in self._files(""):
            if self.owns(path):
                with suppress(OSError):  # deleted meanwhile
                    total += os.stat(path).st_size
        return total

    def force(self) -> None:
        """Force the names of new files to the disk itself."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def tidy(self) -> None:
        """
        Free space that nobody uses.

        Deletes half-made files and all damaged ones except the newest, and truncates the segments
        of processes that were killed.
        """
        for path in filter(self.owns, self._files(NEW)):
            _remove_half_made(path)
        for path in self._files(SUFFIX):
            segment.trim(path)
        self.forget_damaged(_MOST_DAMAGED)

    def forget_damaged(self, keep: int = 0) -> None:
        """Delete the oldest damaged files, so that *keep* stay."""
        damaged = sorted(filter(self.owns, self._files(DAMAGED)), key=_age)
        for path in damaged[: max(0, len(damaged) - keep)]:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def readdress(self, path: Path, host: str) -> bool:
        """Make the events in the orphan at *path* events for *host*; return whether it did."""
        return segment.readdress(path, self.new_path(), host)

    def _files(self, suffix: str) -> list[Path]:
        """Return the files with a *suffix*; none if the folder cannot be read."""
        try:
            return [self.path / name for name in os.listdir(self.path) if name.endswith(suffix)]
        except OSError:
            return []


def segments_in(path: str | os.PathLike[str]) -> list[SegmentInfo]:
    """Return what waits in the spool at *path*, oldest first, without changing anything."""
    found = (_look_into(file) for file in Folder(path).segments())
    return [info for info in found if isinstance(info, SegmentInfo)]


def unreadable_in(path: str | os.PathLike[str]) -> list[Finding]:
    """Return the files of the spool at *path* that may hold events and cannot be read."""
    folder = Folder(path)
    found = ((file, _look_into(file)) for file in filter(folder.owns, folder.segments()))
    return [Finding(file, why, True) for file, why in found if isinstance(why, str)]


def findings_in(path: str | os.PathLike[str]) -> list[Finding]:
    """Return what each file in the spool at *path* is, without changing anything."""
    folder = Folder(path)
    return [_judge(folder, file) for file in sorted(folder.path.iterdir(), key=_age)]


def _judge(folder: Folder, path: Path) -> Finding:
    if path.suffix == SUFFIX:
        info = _look_into(path)
        if isinstance(info, SegmentInfo):
            state, is_wrong = _state_of(info)
            return Finding(path, state, is_wrong, info)
        if isinstance(info, str) and folder.owns(path):
            return Finding(path, info, True)
    if not folder.owns(path):
        return Finding(path, "not ours, left alone", False)
    state, is_wrong = _STATES[path.suffix]
    return Finding(path, state, is_wrong)


def _state_of(info: SegmentInfo) -> tuple[str, bool]:
    if info.in_use:
        return "in use", False
    if info.broken:
        return f"damaged: about {info.broken} events are lost, the rest waits", True
    if not info.has_header:
        return "damaged in its first line: no event is lost, all wait", True
    return ("waits" if info.events else "empty"), False


_STATES = {
    SUFFIX: ("unreadable: its first line is damaged, or somebody else's", True),
    NEW: ("half made, cleared away by the next program", False),
    DAMAGED: (
        "kept aside: what was whole in it is delivered; delete it when you have seen it",
        True,
    ),
}


def _look_into(path: Path) -> SegmentInfo | str | None:
    """Return what a file holds; if it cannot be read, the reason; None if it cannot hold any."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # it may be a pipe
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    try:
        return _describe(path, fd) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError as error:  # such as a bad sector
        return f"cannot be read ({error.strerror})"
    finally:
        os.close(fd)


def _describe(path: Path, fd: int) -> SegmentInfo | str | None:
    found = segment.read(path, fd)
    if found is None:  # its writer has what it holds
        return None if segment.is_locked(fd) else _STATES[SUFFIX][0]
    file, header, first = found
    stamp = first.partition(b'"timestamp":"')[2].partition(b'"')[0]
    pid = path.name.split("-")[0]
    return SegmentInfo(
        path,
        str(header.get("dialect", "")),
        str(header.get("host", "")),
        int(pid) if pid.isdecimal() else 0,
        segment.is_locked(fd),
        file.left,
        file.end - file.acked,
        stamp.decode(errors="replace"),
        file.broken,
        file.has_header,
    )


def _age(path: Path) -> tuple[int, str]:
    """Return a key to sort by age: the time in the name, else that of the last change."""
    named = _OWN.match(path.name)
    if named is not None:
        return int(named[1], 16), path.name
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:
        return 0, path.name


def _remove_half_made(path: Path) -> None:
    """Delete a half-made segment whose maker was killed."""
    half_made = Segment(path)
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _NEW_FOR and half_made.lock():
            path.unlink(missing_ok=True)
    half_made.abandon()
