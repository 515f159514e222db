"""
Where lines wait for the server: `Spool` is the seam, `MemorySpool` the one without a disk.

Callers use `Spool.admit`; any thread may ask for ``len``, `Spool.admitted`, `Spool.adopted` and
`Spool.rest`. Everything else belongs to the one thread that delivers. A spool keeps what it hands
out until it is acknowledged: a batch is a view, not a transfer.

``tests/test_spool.py`` is the contract, for every spool in its table `SPOOLS`.
"""

from __future__ import annotations

import zlib

from collections import deque
from collections.abc import Sequence
from itertools import accumulate, compress, takewhile
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable


__all__ = ["RECEIPT", "Entry", "LeaseView", "MemorySpool", "Spool", "fitting", "lines_of"]


#: What `Spool.admit` returns for a line that is already safe.
RECEIPT = True


class Entry(NamedTuple):
    """One line that a spool handed out, with the token under which the spool knows it."""

    token: Any
    line: bytes


class _Lease:
    """Lines that a memory spool handed out together, and keeps until all are acknowledged."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.left = len(lines)
        self._open: bytearray | None = None  # which lines are open, where some are not

    def settle(self, start: int, stop: int) -> int:
        """Acknowledge lines; return how many of them were not before."""
        if self._open is None:
            if (start, stop) == (0, len(self.lines)):
                done, self.left = self.left, 0
                return done
            self._open = bytearray(b"\1" * len(self.lines))
            self.lines = self.lines[:]  # what was handed out keeps its own
        done = sum(self._open[start:stop])
        self._open[start:stop] = bytes(stop - start)
        self.lines[start:stop] = [b""] * (stop - start)  # one line may wait for hours
        self.left -= done
        return done

    def unsettled(self) -> list[bytes]:
        """Return the lines that were not acknowledged."""
        if self._open is None:
            return self.lines if self.left else []
        return list(compress(self.lines, self._open))


class LeaseView(Sequence[Entry]):
    """Lines of a lease, each made an `Entry` only when it is looked at: most never are."""

    def __init__(self, lease: _Lease, lines: list[bytes], start: int = 0) -> None:
        self.lease = lease
        self.lines = lines
        self.start = start

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> LeaseView: ...
    def __getitem__(self, at: int | slice) -> Entry | LeaseView:
        if isinstance(at, slice):
            start, _, _ = at.indices(len(self.lines))
            return LeaseView(self.lease, self.lines[at], self.start + start)
        at = range(len(self.lines))[at]
        return Entry((self.lease, self.start + at), self.lines[at])


def lines_of(entries: Sequence[Entry]) -> list[bytes]:
    """Return the lines of *entries*."""
    return entries.lines if isinstance(entries, LeaseView) else [line for _, line in entries]


@runtime_checkable
class Spool(Protocol):
    """
    A place where lines wait until the server has answered for them.

    It may have one more method, ``lost(entries, reason, status)``, which is called with what will
    never be delivered, before `ack` is. If it raises, the lines are handed out again.
    """

    @property
    def rest(self) -> float | None:
        """
        How long the thread may sleep while nothing waits, in seconds, until its next `append`.

        None: for ever, because no line comes by another way than `admit` and `append`.
        """

    def __len__(self) -> int:
        """Return how many lines were not handed out yet."""

    def admit(self, line: bytes) -> Any:
        """
        Take in one line, from any thread.

        Returns `RECEIPT` if the line is safe now, and so counts as accepted; *line* itself if it
        must wait in memory, from where it comes back by `append`; None if it was refused, and
        counted.
        """

    def append(self, items: Sequence[Any]) -> None:
        """
        Add lines that waited in memory, in order.

        Called often, also without any: the time to look for what other processes have left.
        """

    def take(self, count: int, size: int) -> Sequence[Entry]:
        """Hand out the oldest lines: at most *count* and *size* bytes, but at least one line."""

    def ack(self, entries: Sequence[Entry]) -> None:
        """Forget lines that were delivered or lost; some may be forgotten already."""

    def rewind(self) -> None:
        """Hand out again, first, what was handed out and not acknowledged."""

    @property
    def held(self) -> tuple[int, int]:
        """How many lines, and bytes, are in memory only, including what was handed out."""

    @property
    def admitted(self) -> int:
        """How many lines `admit` has made safe in this process, ever."""

    @property
    def adopted(self) -> int:
        """How many lines of other processes it took over, ever: they count as accepted here."""

    def evict(self, count: int) -> list[bytes]:
        """Drop and return up to *count* of the oldest lines in memory that nobody has taken."""

    def forget(self) -> list[bytes]:
        """Drop and return every line that is in memory only, including what was handed out."""

    def close(self) -> None:
        """Give back files and locks; a later line opens them again, with what was left."""

    def renew(self) -> None:
        """Begin anew in a forked child, without what the parent has."""


class MemorySpool:
    """
    Keep lines in memory, compressed where they pile up: 60,000 events in 3 MB.

    They pile up while the server is away: what was handed out is not acknowledged, and nothing
    more is taken.
    """

    rest = None
    admitted = adopted = 0  # nothing is safe before the thread has it; no process leaves anything

    _BLOCK = 1000

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin with nothing."""
        # Oldest first: the lines to take next, compressed blocks, and the newest lines.
        self._front: deque[bytes] = deque()
        self._blocks: deque[bytes] = deque()
        self._lines: deque[bytes] = deque()
        self._leases: dict[int, _Lease] = {}  # what was handed out, oldest first
        self._bytes = 0
        self._taken = True

    @property
    def held(self) -> tuple[int, int]:
        """Everything: what waits to be taken, and what waits for an answer."""
        return len(self) + sum(lease.left for lease in self._leases.values()), self._bytes

    def __len__(self) -> int:
        return len(self._front) + len(self._blocks) * self._BLOCK + len(self._lines)

    def admit(self, line: bytes) -> bytes:
        """Return *line*: it waits in the queue for the thread."""
        return line

    def append(self, items: Sequence[bytes]) -> None:
        """Add lines; compress the older ones where they pile up."""
        self._lines.extend(items)
        self._bytes += sum(map(len, items))
        while self._leases and not self._taken and len(self._lines) > 2 * self._BLOCK:
            block = [self._lines.popleft() for _ in range(self._BLOCK)]
            self._blocks.append(zlib.compress(b"\n".join(block), 1))
        self._taken = False

    def take(self, count: int, size: int) -> Sequence[Entry]:
        """Hand out the oldest lines."""
        self._taken = True
        lines: list[bytes] = []
        while len(lines) < count and self._oldest():
            front = self._front
            more = [front.popleft() for _ in range(min(count - len(lines), len(front)))]
            fit = fitting(more, size, first=not lines)
            front.extendleft(reversed(more[fit:]))
            lines += more[:fit]
            if fit < len(more):
                break
            size -= sum(map(len, more)) + len(more)
        if not lines:
            return []
        lease = _Lease(lines)
        self._leases[id(lease)] = lease
        return LeaseView(lease, lines)

    def ack(self, entries: Sequence[Entry]) -> None:
        """Forget lines."""
        if isinstance(entries, LeaseView):
            stop = entries.start + len(entries)
            self._settle(entries.lease, entries.start, stop, entries.lines)
        else:
            for (lease, at), line in entries:
                self._settle(lease, at, at + 1, [line])

    def _settle(self, lease: _Lease, start: int, stop: int, lines: list[bytes]) -> None:
        if id(lease) in self._leases and lease.settle(start, stop):
            self._bytes -= sum(map(len, lines))
            if not lease.left:
                del self._leases[id(lease)]

    def rewind(self) -> None:
        """Put what was handed out back in front, in order."""
        for lease in reversed(list(self._leases.values())):
            self._front.extendleft(reversed(lease.unsettled()))
        self._leases.clear()

    def evict(self, count: int) -> list[bytes]:
        """Drop the oldest lines."""
        dropped: list[bytes] = []
        while len(dropped) < count and self._oldest():
            dropped.append(self._front.popleft())
        self._bytes -= sum(map(len, dropped))
        return dropped

    def forget(self) -> list[bytes]:
        """Drop everything."""
        self.rewind()
        return self.evict(len(self))

    def close(self) -> None:
        """Do nothing: memory goes with the process."""

    def _oldest(self) -> bool:
        """Move the oldest lines into `_front` if it is empty; return whether there are any."""
        if not self._front:
            if self._blocks:
                self._front.extend(zlib.decompress(self._blocks.popleft()).split(b"\n"))
            else:
                self._front, self._lines = self._lines, self._front
        return bool(self._front)


def fitting(lines: list[bytes], size: int, first: bool) -> int:
    """Return how many of *lines*, with commas, fit into *size* bytes; at least one if *first*."""
    if sum(map(len, lines)) + len(lines) <= size:
        return len(lines)
    ends = accumulate(len(line) + 1 for line in lines)
    return max(sum(1 for _ in takewhile(size.__ge__, ends)), first)
