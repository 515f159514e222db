"""One attempt: a batch becomes a request in the protocol of its host, and gets an answer."""

from __future__ import annotations

import threading
import time

from collections.abc import Callable
from typing import NamedTuple

from ..events.timestamps import rfc3339
from ..wire import Batch, Dialect, Endpoint, Response, Results
from ..wire.posthog_protocol import Protocol
from .ledger import Ledger
from .own_log import note_send, sending_threads
from .parcel import Parcel
from .policy import parse_retry_after
from .spool import lines_of
from .transport import Transport
from .wording import summary


__all__ = ["Answer", "Attempts"]


class Answer(NamedTuple):
    """A response, the dialect that reads it, and for how many seconds the server asks to wait."""

    response: Response
    dialect: Dialect
    wait: float = 0.0

    def results(self) -> Results:
        """Return what a 2xx says about single events."""
        try:
            return self.dialect.results(self.response)
        except Exception as error:  # a user's dialect may raise
            return Results(error=type(error).__name__)


class Attempts:
    """
    Make attempts to deliver to *endpoint*.

    Args:
        protocol: chooses the dialect of each attempt, and learns from the answers.
        timeout: how long an attempt may take, in seconds.
        clock: returns seconds that only go forward.
        wall: returns epoch seconds, which are sent with each attempt.
    """

    def __init__(
        self,
        protocol: Protocol,
        endpoint: Endpoint,
        transport: Transport,
        ledger: Ledger,
        timeout: float,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._protocol = protocol
        self._endpoint = endpoint
        self._transport = transport
        self._ledger = ledger
        self._timeout = timeout
        self._clock = clock
        self._wall = wall

    def make(self, parcel: Parcel, timeout: float | None = None) -> Answer:
        """Send *parcel*, and again where the answer shows that the host knows another protocol."""
        limit = self._timeout if timeout is None else min(timeout, self._timeout)
        end, protocol = self._clock() + limit, self._protocol
        dialect = protocol.choose(parcel.lane, self._clock())
        response = self._send(parcel, dialect, limit)
        while other := protocol.heed(dialect, response, parcel.request_id, self._clock()):
            left = end - self._clock()
            if left <= 0.0:
                break
            second = self._send(parcel, other, left)
            if not protocol.counts(other, second, self._clock()):
                break
            response, dialect = second, other
        if news := protocol.news():
            # There are two kinds; each is logged once.
            self._ledger.warn(f"protocol: {news}", news)
        asked = parse_retry_after(response.headers.get("retry-after"), self._wall()) or 0.0
        return Answer(response, dialect, min(asked, dialect.rules.longest_retry_after))

    def _send(self, parcel: Parcel, dialect: Dialect, limit: float) -> Response:
        """Encode and send; what a user's dialect or transport raises becomes an answer."""
        me, began = threading.get_ident(), time.time()
        try:
            sending_threads[me] = began
            created = rfc3339(parcel.created)
            lines = _fitted(parcel, dialect)
            batch = Batch(lines, parcel.request_id, created, parcel.attempts)
            request = dialect.request(batch, self._endpoint, rfc3339(self._wall()))
            response = self._transport.send(request, limit)
            self._ledger.debug(
                "sent %d event(s), %d bytes, to %s by %s: %s",
                len(lines),
                len(request.body),
                self._endpoint.host,
                dialect.name,
                summary(response),
            )
            return response
        except Exception as error:
            self._ledger.warn("broken part", f"dialect or transport raised {type(error).__name__}")
            return Response(None, error=type(error).__name__)
        finally:
            sending_threads.pop(me, None)
            note_send(began)


def _fitted(parcel: Parcel, dialect: Dialect) -> list[bytes]:
    """Return the lines of *parcel*, on another lane in the form that this lane takes."""
    lines = lines_of(parcel.entries)
    fit: Callable[[bytes], bytes] | None = getattr(dialect, "fitted", None)
    return [fit(line) for line in lines] if parcel.lane and fit is not None else lines
