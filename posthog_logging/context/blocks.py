"""Blocks that hold their events until they end: `held`."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from .binding import current, rebind, release
from .holding import Holder, Kept


__all__ = ["held"]

# The most that one block keeps.
_HELD, _HELD_BYTES = 10_000, 32 * 1024 * 1024


class held:  # noqa: N801 - reads as what it is: ``with held():``
    """
    Hold the events of a block until its end; drop them if the block raises::

        with context.held(), database.transaction():
            log.info("order paid", extra={"distinct_id": "user-1", "properties": {}})

    Dropped events are counted as ``rolled_back``. Blocks nest: an inner block passes its events
    to the outer one. Where events wait for database transactions, an event waits for the block
    and for the transaction that it was logged in. Exceptions, logs and ``identify`` are never
    held. A block holds at most 10,000 events and 32 MiB; further events are refused and counted
    as ``held_full``. A thread or task that outlives the block sends its events at once.
    Entering a block that is open raises ``RuntimeError``.
    """

    def __init__(self) -> None:
        self._kept: deque[Kept] = deque()
        self._size = 0
        self._outer: Holder | None = None
        self._beyond: Holder | None = None  # what holds events outside of all blocks
        self._open = False

    def __enter__(self) -> held:
        if self._open:
            raise RuntimeError("held: this block is open already; create another one")
        bound = current()
        self._outer = outer = None if bound is None else bound.holder
        self._beyond = outer._beyond if isinstance(outer, held) else outer
        self._open = True
        rebind(holder=self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        release(self, self._outer)
        if kind is None:
            self._let_go()
        else:
            self._drop()

    def keep(self, kept: Kept) -> bool:
        """Keep *kept* until the block ends; return whether it was taken."""
        if self._beyond is not None:
            # Asked now, as a transaction inside of the block is over when the block ends.
            kept, other = kept.parts(2)
            if not self._beyond.keep(other):
                return False
        return self._add(kept)

    def _add(self, kept: Kept) -> bool:
        if not self._open:
            return _pass_on(kept, self._outer)
        if len(self._kept) >= _HELD or self._size + kept.size > _HELD_BYTES:
            kept.refuse("held_full")
            return False
        self._size += kept.size
        self._kept.append(kept)
        return True

    def _let_go(self) -> None:
        while self._kept:
            _pass_on(self._kept.popleft(), self._outer)

    def _drop(self) -> None:
        while self._kept:
            self._kept.popleft().refuse("rolled_back")


def _pass_on(kept: Kept, outer: Holder | None) -> bool:
    if isinstance(outer, held):
        return outer._add(kept)
    kept.let_go()
    return True
