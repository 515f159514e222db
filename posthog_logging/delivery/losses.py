"""What becomes of events that will never be delivered: noted, acknowledged, counted, reported."""

from __future__ import annotations

import threading

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ..context import identity
from ..events import jsonable
from ..events.faults import faults
from ..wire import Response
from .ledger import REPORTED, Ledger
from .reasons import LOSSES
from .spool import Entry, Spool, lines_of
from .wording import summary


__all__ = ["DeliveryError", "Losses", "OnError"]

_REPORTED = b'"%b"' % REPORTED.encode()

# What events are lost for where nobody can hand them over: they were turned away, or cannot be
# read. A loss that was asked for, or a call that made no event, is not among them.
_UNSEEN = (
    "queue_full",
    "spool_full",
    "held_full",
    "broken",
    "oversized",
    "before_send_failed",
    "internal_error",
)


class DeliveryError(Exception):
    """
    Why events were lost: what ``on_error`` is called with.

    Args:
        reason: the key of the handler's ``counts``.
        status: the HTTP status of the answer, None where there was none.
        detail: more about it, in words.
        count: how many events were lost; the list beside it may hold fewer, or none.
    """

    def __init__(
        self, reason: str, status: int | None = None, detail: str = "", count: int = 1
    ) -> None:
        super().__init__(
            f"{reason}{'' if status is None else f', HTTP {status}'}{detail and f': {detail}'}"
        )
        self.reason = reason
        self.status = status
        self.detail = detail
        self.count = count


OnError = Callable[[DeliveryError, "list[dict[str, Any]]"], None]


class Losses:
    """
    Lose events, and say so: to the spool, the ledger and ``on_error``, in this order.

    An event that ``on_error`` itself logs is an event like any. It bears the property
    ``$on_error``, and when it is lost in its turn the hook is not called: else a server that
    refuses everything, and a hook that logs, would feed each other for ever.

    Events that were lost where nobody can hand them over, because there was no room for them,
    are counted by the ledger alone. The hook hears of them in `catch_up`: of how many, and of
    none in particular.
    """

    def __init__(self, spool: Spool, ledger: Ledger, on_error: OnError | None) -> None:
        self._spool = spool
        self._ledger = ledger
        self._on_error = on_error
        self.reset()

    def reset(self) -> None:
        """Begin at nothing, as the ledger does in a forked child."""
        self._reported: Counter[str] = Counter()

    def lose(
        self,
        entries: Sequence[Entry],
        reason: str,
        response: Response | None = None,
        detail: str = "",
    ) -> None:
        """
        Give up *entries*.

        A spool with a verb ``lost(entries, reason, status)`` hears it first, before the lines
        are acknowledged: a broker's puts them among the dead letters. Where it raises,
        nothing is acknowledged and the lines are handed out again.
        """
        if not entries:
            return
        lost = getattr(self._spool, "lost", None)
        if lost is not None:
            lost(entries, reason, None if response is None else response.status)
        lines = lines_of(entries)
        self._spool.ack(entries)
        self.report(lines, reason, response, detail)

    def report(
        self,
        lines: Sequence[bytes],
        reason: str,
        response: Response | None = None,
        detail: str = "",
    ) -> int:
        """Count *lines* that no spool holds any more and call ``on_error``; return how many."""
        if not lines:
            return 0
        words = detail or (summary(response) if response is not None else "")
        self._ledger.lose(reason, len(lines), words)
        self._reported[reason] += len(lines)
        status = response.status if response is not None else None
        others = [line for line in lines if _REPORTED not in line]
        if others:
            detail = words if status is None else detail
            self._call(DeliveryError(reason, status, detail, len(others)), others)
        return len(lines)

    @property
    def is_behind(self) -> bool:
        """Whether ``on_error`` has to hear of losses yet."""
        return self._on_error is not None and any(map(self._unreported, _UNSEEN))

    def catch_up(self) -> None:
        """Let ``on_error`` know how many events were lost that were not at hand, by reason."""
        if self._on_error is None:
            return
        for reason in _UNSEEN:
            if count := self._unreported(reason):
                self._reported[reason] += count
                detail = f"{count} event(s): {LOSSES[reason].meaning}"
                self._call(DeliveryError(reason, None, detail, count), [])

    def _unreported(self, reason: str) -> int:
        return max(0, self._ledger.lost(reason) - self._reported[reason])

    def _call(self, error: DeliveryError, lines: Sequence[bytes]) -> None:
        if self._on_error is None:
            return
        try:
            with identity(**{REPORTED: True}):
                self._on_error(error, [jsonable.decode(line) for line in lines])
        except BaseException as raised:
            if _is_the_programs(raised):
                raise
            self._ledger.warn("on_error", f"on_error raised {type(raised).__name__}")


def _is_the_programs(raised: BaseException) -> bool:
    """Return whether *raised* comes from a signal, which there is in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return not faults() or not isinstance(raised, (Exception, SystemExit))
