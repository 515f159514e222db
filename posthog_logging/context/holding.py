"""Events that are held back, and the protocol of whatever holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


__all__ = ["Holder", "Kept"]


class Kept:
    """
    One held event: either let go, once, or counted as ``rolled_back``.

    Losing the last reference counts it: a database layer that discards its on-commit
    callbacks on a rollback has nothing else to do.

    Args:
        let_go: sends the event.
        refuse: counts the event as lost, under the reason it is called with.
        size: the size of the event in bytes.
    """

    __slots__ = ("_let_go", "_refuse", "size")

    def __init__(
        self, let_go: Callable[[], object], refuse: Callable[[str], object], size: int
    ) -> None:
        self._let_go: Callable[[], object] | None = let_go
        self._refuse = refuse
        self.size = size

    def let_go(self) -> None:
        """Send the event; a second call does nothing."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()

    def refuse(self, reason: str) -> None:
        """Count the event as lost under *reason* instead of sending it."""
        if self._let_go is not None:
            self._let_go = None
            self._refuse(reason)

    def parts(self, number: int) -> list[Kept]:
        """Return *number* parts, for as many holders: all must be let go, one refusal suffices."""
        if number == 1:
            return [self]
        left = [None] * number

        def let_go() -> None:
            left.pop()
            if not left:
                self.let_go()

        return [Kept(let_go, self.refuse, self.size) for _ in range(number)]

    def __del__(self) -> None:
        self.refuse("rolled_back")


class Holder(Protocol):
    """Something that decides when an event is sent."""

    def keep(self, kept: Kept) -> bool:
        """Take *kept*, to let it go now or later; return whether it was taken."""
        ...
