"""
A broker as a `Transport`: the pipeline's batches become messages, their confirms the answer.
"""

from __future__ import annotations

import os

from typing import Any

from ..delivery.transport import diverted
from ..wire import Request, Response
from .address import Address, address
from .dialect import NeutralDialect
from .engine import BrokerError, Engine, Publisher, engine_for
from .envelope import CONTENT_TYPE, Envelope, envelopes, uuid_of


__all__ = ["BrokerTransport", "broker_transport"]


def broker_transport(url: str, timeout: float = 15.0) -> BrokerTransport:
    """
    Return what publishes to the broker at *url*: ``amqp://``, ``redis://``, ``kafka://``, …

    Raises ``ValueError`` where it is no such URL or the client library is not installed.
    """
    return BrokerTransport(address(url), timeout=timeout)


class BrokerTransport:
    """
    Publish to *address*; nothing is connected before the first attempt.

    Connections are made in the process that uses them: a forked child makes its own, and
    leaves its parent's alone.

    Args:
        timeout: how long an attempt may take at most, in seconds.
    """

    def __init__(self, address: Address, *, timeout: float = 15.0) -> None:
        self.address = address
        #: What the requests are made by.
        self.dialect = NeutralDialect(address=address.public)
        self._timeout = timeout
        self._engine: Engine = engine_for(address)
        self._publisher: Publisher | None = None
        self._pid = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address.public}>"

    def send(self, request: Request, timeout: float) -> Response:
        """Publish all lines of *request*; those that were not confirmed are to be sent again."""
        stand_in = diverted(self.address.public)
        if stand_in is not None:
            return stand_in.send(request, timeout)
        coding = request.headers.get("content_encoding") or None
        made = list(
            envelopes(request.body.split(b"\n"), request.headers.get("message_id", ""), coding)
        )
        try:
            outcomes = self._open().publish(made, timeout)
        except BrokerError as error:
            return Response(None, error=str(error))
        except Exception as error:  # of a client library; its text may quote the URL
            self.close()
            return Response(None, error=type(error).__name__)
        return _answer(made, outcomes)

    def close(self) -> None:
        """Give back the connection of this process."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None and self._pid == os.getpid():
            publisher.close()

    def _open(self) -> Publisher:
        if self._publisher is None or self._pid != os.getpid():
            # The parent's is kept for ever: to finalise it would speak on the parent's socket.
            _inherited.append(self._publisher)
            self._publisher = self._engine.publisher(self.address, self._timeout)
            self._pid = os.getpid()
        return self._publisher


_inherited: list[Any] = []


def _answer(made: list[Envelope], outcomes: list[BrokerError | None]) -> Response:
    """Return the answer that a batch gets whose messages fared as *outcomes* say."""
    failed = [(one, error) for one, error in zip(made, outcomes, strict=True) if error]
    if not failed:
        return Response(200)
    if len(failed) < len(made):
        names = " ".join(uuid_of(line) for one, _ in failed for line in one.lines)
        return Response(200, {"content_type": CONTENT_TYPE}, names.encode())
    error = failed[0][1]
    return Response(413 if error and error.final else None, error=str(error))
