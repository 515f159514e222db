"""
Where lines wait for the server: `Spool` is the seam, `MemorySpool` the one without a disk.

Callers use `Spool.admit`; anybody may ask for ``len``, `Spool.admitted`, `Spool.adopted` and
`Spool.rest`. All else belongs to the one thread that delivers. A spool keeps what it hands out
until it is acknowledged: a batch is a view, not a transfer.

``tests/test_spool.py`` is the contract: a spool that is in its table `SPOOLS` is held to it.
"""

from __future__ import annotations

import zlib

from collections import deque
from collections.abc import Sequence
from itertools import accumulate, compress, takewhile
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable


__all__ = ["RECEIPT", "Kept", "MemorySpool", "Spool", "View", "fitting", "lines_of"]


#: What `Spool.admit` returns for a line that is safe already.
RECEIPT = True


class Kept(NamedTuple):
    """One line that waits for its answer, with the token under which the spool knows it."""

    token: Any
    line: bytes


class Batch:
    """What a memory spool handed out at once: it is the spool's until all is acknowledged."""

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


class View(Sequence[Kept]):
    """Lines of a `Batch`, each as `Kept` only when it is looked at: most never are."""

    def __init__(self, batch: Batch, lines: list[bytes], start: int = 0) -> None:
        self.batch = batch
        self.lines = lines
        self.start = start

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, at: int) -> Kept: ...
    @overload
    def __getitem__(self, at: slice) -> View: ...
    def __getitem__(self, at: int | slice) -> Kept | View:
        if isinstance(at, slice):
            start, _, _ = at.indices(len(self.lines))
            return View(self.batch, self.lines[at], self.start + start)
        at = range(len(self.lines))[at]
        return Kept((self.batch, self.start + at), self.lines[at])


def lines_of(kept: Sequence[Kept]) -> list[bytes]:
    """Return the lines of *kept*."""
    return kept.lines if isinstance(kept, View) else [line for _, line in kept]


@runtime_checkable
class Spool(Protocol):
    """
    A place where lines wait until the server has answered for them.

    It may have one more verb, ``lost(kept, reason, status)``: it is called with what will never
    be delivered, before `ack` is. Where it raises, the lines are handed out again.
    """

    @property
    def rest(self) -> float | None:
        """
        How long the thread may sleep while nothing waits, in seconds, until its next `append`.

        None: for ever, because no line comes by another way than `admit` and `append`.
        """

    def __len__(self) -> int:
        """Return how many lines wait that were not taken."""

    def admit(self, line: bytes) -> Any:
        """
        Take in one line from any thread.

        Returns `RECEIPT` where the line is safe now: that is the moment from which it counts as
        accepted. *line* itself where it is to wait in memory: it comes back by `append`. None
        where it was refused (and counted).
        """

    def append(self, items: Sequence[Any]) -> None:
        """
        Add lines that wait in memory, in order.

        Called often, also with none: the time to look for what other processes have left.
        """

    def take(self, count: int, size: int) -> Sequence[Kept]:
        """Hand out the oldest lines: at most *count*, at most *size* bytes but one at least."""

    def ack(self, kept: Sequence[Kept]) -> None:
        """Forget lines that were delivered or lost; some may be forgotten already."""

    def rewind(self) -> None:
        """Hand out again, first, what was handed out and not acknowledged."""

    @property
    def held(self) -> tuple[int, int]:
        """How many lines, and bytes, only memory has: what was handed out, too."""

    @property
    def admitted(self) -> int:
        """How many lines `admit` has made safe, ever, in this process."""

    @property
    def adopted(self) -> int:
        """How many lines of other processes it took over, ever: they count as accepted here."""

    def evict(self, count: int) -> list[bytes]:
        """Drop and return the oldest lines that only memory has and nobody took, or *count*."""

    def forget(self) -> list[bytes]:
        """Drop and return all that only memory has, also what was handed out."""

    def close(self) -> None:
        """Give back files and locks; a later line opens it again, with what was left in it."""

    def renew(self) -> None:
        """Begin anew in a forked child, without what the parent has."""


class MemorySpool:
    """
    Lines in memory; where they pile up, in compressed blocks: 60,000 events in 3 MB.

    A pile is what grows while something that was handed out is not settled, and nothing else is
    taken: the server is away.
    """

    rest = None

    _BLOCK = 1000

    def __init__(self) -> None:
        self.renew()

    #: A line is safe when the thread has it, not before; and no other process leaves one.
    admitted = adopted = 0

    def renew(self) -> None:
        """Begin with nothing."""
        # Oldest first: what is being taken from, sealed blocks, and what came last.
        self._front: deque[bytes] = deque()
        self._blocks: deque[bytes] = deque()
        self._lines: deque[bytes] = deque()
        self._out: dict[int, Batch] = {}  # what was handed out, oldest first
        self._bytes = 0
        self._taken = True

    @property
    def held(self) -> tuple[int, int]:
        """What waits, and what waits for an answer."""
        return len(self) + sum(batch.left for batch in self._out.values()), self._bytes

    def __len__(self) -> int:
        return len(self._front) + len(self._blocks) * self._BLOCK + len(self._lines)

    def admit(self, line: bytes) -> bytes:
        """Return *line*: it waits in the queue until the thread comes."""
        return line

    def append(self, items: Sequence[bytes]) -> None:
        """Add lines; seal them into blocks where they pile up."""
        self._lines.extend(items)
        self._bytes += sum(map(len, items))
        while self._out and not self._taken and len(self._lines) > 2 * self._BLOCK:
            block = [self._lines.popleft() for _ in range(self._BLOCK)]
            self._blocks.append(zlib.compress(b"\n".join(block), 1))
        self._taken = False

    def take(self, count: int, size: int) -> Sequence[Kept]:
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
        batch = Batch(lines)
        self._out[id(batch)] = batch
        return View(batch, lines)

    def ack(self, kept: Sequence[Kept]) -> None:
        """Forget lines."""
        if isinstance(kept, View):
            self._settle(kept.batch, kept.start, kept.start + len(kept), kept.lines)
        else:
            for (batch, at), line in kept:
                self._settle(batch, at, at + 1, [line])

    def _settle(self, batch: Batch, start: int, stop: int, lines: list[bytes]) -> None:
        if id(batch) in self._out and batch.settle(start, stop):
            self._bytes -= sum(map(len, lines))
            if not batch.left:
                del self._out[id(batch)]

    def rewind(self) -> None:
        """Put what was handed out back in front, in order."""
        for batch in reversed(list(self._out.values())):
            self._front.extendleft(reversed(batch.unsettled()))
        self._out.clear()

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
        """Make sure that the oldest line stands in `_front`; return whether there is one."""
        if not self._front:
            if self._blocks:
                self._front.extend(zlib.decompress(self._blocks.popleft()).split(b"\n"))
            else:
                self._front, self._lines = self._lines, self._front
        return bool(self._front)


def fitting(lines: list[bytes], size: int, first: bool) -> int:
    """Return how many of *lines*, each with a comma, fit into *size* bytes; the *first* always."""
    if sum(map(len, lines)) + len(lines) <= size:
        return len(lines)
    ends = accumulate(len(line) + 1 for line in lines)
    return max(sum(1 for _ in takewhile(size.__ge__, ends)), first)
