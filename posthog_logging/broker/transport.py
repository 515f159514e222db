"""A broker as a `Transport`: batches become messages, and their confirms the response."""

from __future__ import annotations

import os

from urllib.parse import urlsplit

from ..delivery.transport import diverted
from ..errors.masking import keep_secret
from ..wire import Request, Response
from .address import Address, address
from .dialect import NeutralDialect
from .engine import BrokerError, Engine, Publisher, engine_for
from .envelope import CONTENT_TYPE, Envelope, envelopes, uuid_of


__all__ = ["BrokerTransport", "broker_transport"]


def broker_transport(url: str, timeout: float = 15.0, name: str = "broker") -> BrokerTransport:
    """
    Return a transport to the broker at *url*: ``amqp://``, ``redis://``, ``kafka://``, …

    Raises ``ValueError``, which begins with *name*, if it is not such a URL or the client library
    is not installed.
    """
    where = address(url, name=name)
    keep_secret(where.credentials()[1], urlsplit(where.url).password or "")  # and as it is written
    return BrokerTransport(where, timeout=timeout)


class BrokerTransport:
    """
    Publishes to *address*; it connects at the first attempt.

    A forked child makes a connection of its own, and leaves its parent's alone.

    Args:
        timeout: how long an attempt may take, in seconds.
    """

    def __init__(self, address: Address, *, timeout: float = 15.0) -> None:
        self.address = address
        #: The dialect that makes the requests.
        self.dialect = NeutralDialect(address=address.public)
        self._timeout = timeout
        self._engine: Engine = engine_for(address)
        self._publisher: Publisher | None = None
        self._pid = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address.public}>"

    def send(self, request: Request, timeout: float) -> Response:
        """Publish the lines of *request*; the response names those that were not confirmed."""
        stand_in = diverted(self.address.public)
        if stand_in is not None:
            return stand_in.send(request, timeout)
        coding = request.headers.get("content_encoding") or None
        batch_id = request.headers.get("message_id", "")
        published = list(envelopes(request.body.split(b"\n"), batch_id, coding))
        try:
            outcomes = self._open().publish(published, timeout)
        except BrokerError as error:
            return Response(None, error=str(error))
        except Exception as error:  # of a client library; its text may quote the URL
            self.close()
            return Response(None, error=type(error).__name__)
        return _response(published, outcomes)

    def close(self) -> None:
        """Close the connection of this process."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None and self._pid == os.getpid():
            publisher.close()

    def _open(self) -> Publisher:
        if self._publisher is None or self._pid != os.getpid():
            if self._publisher is not None:  # the parent's: its finaliser would use that socket
                _inherited.append(self._publisher)
            self._publisher = self._engine.publisher(self.address, self._timeout)
            self._pid = os.getpid()
        return self._publisher


_inherited: list[Publisher] = []


def _response(published: list[Envelope], outcomes: list[BrokerError | None]) -> Response:
    """Return the response to a batch: an error if none of its messages is safe."""
    failed = [(one, error) for one, error in zip(published, outcomes, strict=True) if error]
    if not failed:
        return Response(200)
    if len(failed) < len(published):
        names = " ".join(uuid_of(line) for one, _ in failed for line in one.lines)
        return Response(200, {"content_type": CONTENT_TYPE}, names.encode())
    error = failed[0][1]
    return Response(413 if error.final else None, error=str(error))
