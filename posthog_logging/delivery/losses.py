"""What becomes of events that will never be delivered: noted, acknowledged, counted, reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..context import identity
from ..events import jsonable
from ..wire import Response
from .ledger import Ledger
from .spool import Kept, Spool, lines_of
from .wording import summary


__all__ = ["DeliveryError", "Losses", "OnError"]

#: The property of events that ``on_error`` logs.
REPORTED = "$on_error"

_REPORTED = b'"$on_error"'


class DeliveryError(Exception):
    """Why events were lost: what ``on_error`` is called with."""

    def __init__(self, reason: str, status: int | None = None, detail: str = "") -> None:
        super().__init__(
            f"{reason}{'' if status is None else f', HTTP {status}'}{detail and f': {detail}'}"
        )
        self.reason = reason
        self.status = status
        self.detail = detail


OnError = Callable[[DeliveryError, "list[dict[str, Any]]"], None]


class Losses:
    """
    Lose events, and say so: to the spool, the ledger and ``on_error``, in this order.

    An event that ``on_error`` itself logs is an event like any. It bears the property
    ``$on_error``, and when it is lost in its turn the hook is not called: else a server that
    refuses everything, and a hook that logs, would feed each other for ever.
    """

    def __init__(self, spool: Spool, ledger: Ledger, on_error: OnError | None) -> None:
        self._spool = spool
        self._ledger = ledger
        self._on_error = on_error

    def lose(
        self,
        kept: Sequence[Kept],
        reason: str,
        response: Response | None = None,
        detail: str = "",
    ) -> None:
        """
        Give up *kept*.

        A spool with a verb ``lost(kept, reason, status)`` hears it first, before the lines
        are acknowledged: a broker's puts them among the dead letters. Where it raises,
        nothing is acknowledged and the lines are handed out again.
        """
        if not kept:
            return
        lost = getattr(self._spool, "lost", None)
        if lost is not None:
            lost(kept, reason, None if response is None else response.status)
        lines = lines_of(kept)
        self._spool.ack(kept)
        self.report(lines, reason, response, detail)

    def report(
        self,
        lines: Sequence[bytes],
        reason: str,
        response: Response | None = None,
        detail: str = "",
    ) -> int:
        """Count *lines* that no spool holds any more and tell the user; return how many."""
        if not lines:
            return 0
        words = detail or (summary(response) if response is not None else "")
        self._ledger.lose(reason, len(lines), words)
        status = response.status if response is not None else None
        self._call(DeliveryError(reason, status, words if status is None else detail), lines)
        return len(lines)

    def _call(self, error: DeliveryError, lines: Sequence[bytes]) -> None:
        others = [line for line in lines if _REPORTED not in line]
        if self._on_error is None or not others:
            return
        try:
            with identity(**{REPORTED: True}):
                self._on_error(error, [jsonable.decode(line) for line in others])
        except (Exception, SystemExit) as raised:
            self._ledger.tell("on_error", f"on_error raised {type(raised).__name__}")
