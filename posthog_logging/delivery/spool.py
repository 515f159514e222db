"""
Where lines wait for the server: `Spool` is the seam, `MemorySpool` the one without a disk.

``admit`` is the caller's verb: what it returns goes through the queue. All others belong
to the one thread that has the turn.
"""

from __future__ import annotations

import zlib

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate, takewhile
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable


__all__ = ["RECEIPT", "Kept", "MemorySpool", "Spool", "Unmarked", "fitting", "lines_of"]


#: What stands in the queue for a line that is safe already.
RECEIPT = True


class Kept(NamedTuple):
    """One line that waits for its answer, with the token under which the spool knows it."""

    token: Any
    line: bytes


class Unmarked(Sequence[Kept]):
    """Lines without a token, each as `Kept` only when it is looked at: most never are."""

    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, at: int) -> Kept: ...
    @overload
    def __getitem__(self, at: slice) -> Unmarked: ...
    def __getitem__(self, at: int | slice) -> Kept | Unmarked:
        if isinstance(at, slice):
            return Unmarked(self.lines[at])
        return Kept(None, self.lines[at])


def lines_of(kept: Sequence[Kept]) -> list[bytes]:
    """Return the lines of *kept*."""
    return kept.lines if isinstance(kept, Unmarked) else [line for _, line in kept]


@runtime_checkable
class Spool(Protocol):
    """A place where lines wait until the server has answered for them."""

    @property
    def rest(self) -> float | None:
        """How long the thread may sleep while nothing waits, in seconds; None: for ever."""

    def __len__(self) -> int:
        """Return how many lines wait that were not taken."""

    def admit(self, line: bytes) -> Any:
        """
        Take in one line from any thread; return what stands for it in the queue.

        That is *line* itself where it is to wait in memory, `RECEIPT` where it is safe
        already, None where it was refused (and counted).
        """

    def append(self, items: Iterable[Any]) -> None:
        """Add what came through the queue, in order."""

    def take(self, count: int, size: int) -> Sequence[Kept]:
        """Hand out the oldest lines: at most *count*, at most *size* bytes but one at least."""

    def ack(self, kept: Sequence[Kept]) -> None:
        """Forget lines that were delivered or lost."""

    def evict(self, count: int) -> list[bytes]:
        """Drop and return up to *count* of the oldest lines that only memory has."""

    def close(self) -> None:
        """Give back files and locks; what was not acknowledged stays where it is."""

    def renew(self) -> None:
        """Begin anew in a forked child, without what the parent has."""


class MemorySpool:
    """
    Lines in memory; where they pile up, in compressed blocks: 60,000 events in 3 MB.

    A pile is what grows without anything being taken: the server is away.
    """

    rest = None

    _BLOCK = 1000

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin with nothing."""
        # Oldest first: what is being taken from, sealed blocks, and what came last.
        self._front: deque[bytes] = deque()
        self._blocks: deque[bytes] = deque()
        self._lines: deque[bytes] = deque()
        self._taken = True

    def __len__(self) -> int:
        return len(self._front) + len(self._blocks) * self._BLOCK + len(self._lines)

    def admit(self, line: bytes) -> bytes:
        """Return *line*: it waits in the queue until the thread comes."""
        return line

    def append(self, items: Iterable[bytes]) -> None:
        """Add lines; seal them into blocks where nothing was taken since the last time."""
        self._lines.extend(items)
        while not self._taken and len(self._lines) > 2 * self._BLOCK:
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
        return Unmarked(lines) if lines else []

    def ack(self, kept: Sequence[Kept]) -> None:
        """Do nothing: what was taken is the taker's already."""

    def evict(self, count: int) -> list[bytes]:
        """Drop the oldest lines."""
        dropped: list[bytes] = []
        while len(dropped) < count and self._oldest():
            dropped.append(self._front.popleft())
        return dropped

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
