"""Lose events that will never be delivered: acknowledge, count and report them."""

from __future__ import annotations

import logging
import threading

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ..context import Bound, identity
from ..events import jsonable
from ..events.faults import faults
from ..events.records import bound_to
from ..wire import Response
from .ledger import REPORTED, Ledger
from .own_log import hook_runs, is_of_hook, sending_threads
from .reasons import LOSSES
from .spool import Entry, Spool, lines_of
from .wording import summary


__all__ = ["DeliveryError", "Losses", "OnError", "bound_of"]

_REPORTED = b'"%b"' % REPORTED.encode()

# Reasons of losses without events to hand to ``on_error``: they were not accepted, or cannot be
# read. Not among them: losses that the user asked for, and calls that made no event.
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
    Why events were lost: the first argument of ``on_error``.

    Args:
        reason: the key of the handler's ``counts``.
        status: the HTTP status of the answer; None if there was none.
        detail: more about it, in words.
        count: how many events were lost; the second argument may hold fewer, or none.
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
    Lose events, and report it to the spool, the ledger and ``on_error``, in this order.

    An event that ``on_error`` itself logs is sent like any other. It has the property
    ``$on_error``, and if it is lost, too, the hook is not called: a server that refuses
    everything and a hook that logs would feed each other for ever. That holds for all that the
    hook logs in its own thread, also through a queue.

    Events that were never accepted, as there was no room for them, are only counted, by the
    ledger. `catch_up` tells the hook how many there were.
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

        If the spool has a method ``lost(entries, reason, status)``, it is called first: a broker's
        puts the lines among the dead letters. If it raises, nothing is acknowledged, and the
        lines are handed out again.
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
        """Count *lines* that are in no spool any more and call ``on_error``; return how many."""
        if not lines:
            return 0
        words = detail or (summary(response) if response is not None else "")
        self._ledger.lose(reason, len(lines), words)
        self._reported[reason] += len(lines)
        status = response.status if response is not None else None
        news = [line for line in lines if _REPORTED not in line]
        if news:
            detail = words if status is None else detail
            self._call(DeliveryError(reason, status, detail, len(news)), news)
        return len(lines)

    @property
    def is_behind(self) -> bool:
        """Whether there are losses that ``on_error`` does not know of yet."""
        return self._on_error is not None and any(map(self._unreported, _UNSEEN))

    def catch_up(self) -> None:
        """Call ``on_error`` for events that were only counted, once for each reason."""
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
            with hook_runs(), identity(**{REPORTED: True}):
                self._on_error(error, [jsonable.decode(line) for line in lines])
        except BaseException as raised:
            if _may_be_of_a_signal(raised):
                raise
            self._ledger.warn("on_error", f"on_error raised {type(raised).__name__}")


def bound_of(record: logging.LogRecord) -> Bound:
    """Return what is bound to *record*, and that ``on_error`` logged it, if it did."""
    bound = bound_to(record)
    if sending_threads and is_of_hook(record):
        return bound._replace(properties={**bound.properties, REPORTED: True})
    return bound


def _may_be_of_a_signal(raised: BaseException) -> bool:
    """Return whether a signal handler may have raised it, as happens in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return not faults() or not isinstance(raised, (Exception, SystemExit))
