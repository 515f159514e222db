"""
A connection to RabbitMQ with one channel, whose loop runs only while somebody waits for it.

It is pika's asynchronous connection because ``BlockingConnection`` waits for each confirm in
turn, without a limit.
"""

from __future__ import annotations

import logging
import socket
import threading
import time

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pika
import pika.exceptions

from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter

from ..delivery.clock import monotonic
from .address import Address
from .engine import INVALID_SETTING, BrokerError
from .envelope import CONTENT_TYPE, Envelope


__all__ = ["CONNECT_WITHIN", "SILENT", "Connection", "Outcome"]

#: Seconds within which a connection must be made.
CONNECT_WITHIN = 10.0

#: What is called when the broker has answered for a message: with None once it is safe.
Outcome = Callable[[BrokerError | None], None]

SILENT = "the broker did not answer in time"
_UNCONFIRMED = "the broker did not confirm in time"
_BLOCKED = "the broker takes nothing for now: it is low on memory or disk"
_CLOSE_WITHIN = 0.5


class Connection:
    """
    A connection to *address* and a channel on it, for one thread.

    Raises `BrokerError` if it cannot be made within *timeout* seconds. A connection that was
    lost stays lost: make another one.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self.blocked = False
        self.lost: BaseException | None = None
        self.channel: Any = None
        self._unconfirmed: dict[int, tuple[str, Outcome]] = {}  # message id, by delivery tag
        self._returned: set[str] = set()
        self._published = 0
        self._ready = False
        parameters = _parameters(address, timeout)
        self._loop = IOLoop()
        self._loop.activate_poller()
        self._thread = threading.get_ident()
        _silence_pika()
        self._pika = pika.SelectConnection(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_lost,
            on_close_callback=self._on_lost,
            custom_ioloop=_Services(self._loop),
        )
        if not self.run_until(lambda: self._ready, timeout):
            error = self.error(SILENT)
            self.close()
            raise error

    def run_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Run the loop until *condition* holds; return whether it does in time."""
        self._spin(lambda: self.lost is not None or condition(), timeout)
        return self.lost is None and condition()

    def poll(self) -> None:
        """Send what is due, take what has arrived and answer heartbeats, without waiting."""
        self._spin(lambda: False, 0.0)

    def _spin(self, condition: Callable[[], bool], timeout: float) -> None:
        """Run the loop at least once, until *condition* holds or the time is up."""
        loop, deadline = self._loop, monotonic() + timeout
        while not condition():
            left = max(0.0, deadline - monotonic())
            alarm = loop.call_later(left, _ignore)
            loop.poll()
            loop.process_timeouts()
            loop.remove_timeout(alarm)
            if not left:
                return

    def publish(self, queue: str, envelope: Envelope, done: Outcome) -> None:
        """Publish a message; *done* is called by `run_until` with the broker's answer."""
        body, coding = envelope.packed()
        self.send(queue, body, _properties(envelope, coding), done)

    def send(self, queue: str, body: bytes, properties: Any, done: Outcome) -> None:
        """Publish bytes, as `publish` does."""
        self._published += 1
        self._unconfirmed[self._published] = properties.message_id or "", done
        self.channel.basic_publish("", queue, body, properties, mandatory=True)

    def error(self, otherwise: str = _UNCONFIRMED) -> BrokerError:
        """Return why the broker has not answered: *otherwise* if nothing is known to be wrong."""
        if self.lost is not None:
            return _described(self.lost)
        return BrokerError(_BLOCKED if self.blocked else otherwise)

    def close(self) -> None:
        """Close the connection; what was not acknowledged goes back to its queue."""
        _connections[self._thread] -= 1
        with suppress(Exception):
            if self._pika.is_open:
                self._pika.close()
            self._spin(lambda: self._pika.is_closed, _CLOSE_WITHIN)
            if not self._pika.is_closed:
                # A broker that reads nothing for now does not answer a close either.
                getattr(self._pika, "_adapter_disconnect_stream", _ignore)()
            self.poll()
            self._loop.deactivate_poller()
        with suppress(Exception):
            self._loop.close()

    def on_cancel(self, frame: Any) -> None:
        """Treat a consumer that the broker has cancelled as a lost connection."""
        self._on_lost(None, ConnectionAbortedError("cancelled"))

    def _on_open(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(partial(self._on_blocked, True))
        connection.add_on_connection_unblocked_callback(partial(self._on_blocked, False))
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Any) -> None:
        self.channel = channel
        channel.add_on_close_callback(self._on_lost)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=self._on_ready)

    def _on_ready(self, frame: Any) -> None:
        self._ready = True

    def _on_blocked(self, blocked: bool, connection: Any, frame: Any) -> None:
        self.blocked = blocked

    def _on_lost(self, source: Any, error: Any) -> None:
        if self.lost is None:
            self.lost = error if isinstance(error, BaseException) else ConnectionError(str(error))

    def _on_return(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._returned.add(properties.message_id or "")

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._unconfirmed if tag <= method.delivery_tag]
        for tag in tags:
            message_id, done = self._unconfirmed.pop(tag, ("", _ignore))
            if message_id in self._returned:
                self._returned.discard(message_id)
                done(BrokerError("the broker has no such queue; a relay makes it"))
            elif isinstance(method, pika.spec.Basic.Nack):
                done(BrokerError("the broker refused the message: its queue is full"))
            else:
                done(None)


class _Services(SelectorIOServicesAdapter):  # type: ignore[misc]
    """pika's own, for an interpreter that is ending, too: no thread can be started then."""

    def getaddrinfo(self, host: str, port: int, on_done: Any, *more: Any, **named: Any) -> Any:
        """Resolve in a thread; if there can be none, in this one, without a time-out."""
        try:
            return super().getaddrinfo(host, port, on_done, *more, **named)
        except RuntimeError:
            try:
                found: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                found = error
            self.add_callback_threadsafe(partial(on_done, found))
            return _Resolved()


class _Resolved:
    def cancel(self) -> bool:
        """Return that there is nothing to cancel."""
        return False


def _parameters(address: Address, timeout: float) -> Any:
    """Return pika's parameters for the URL, with bounded waits."""
    try:
        found = pika.URLParameters(address.url)
    except Exception:  # the text quotes the setting, which may be a secret
        raise BrokerError(INVALID_SETTING) from None
    found.connection_attempts = 1
    found.socket_timeout = max(0.1, timeout)
    found.stack_timeout = max(0.1, timeout)
    found.client_properties = {"connection_name": "posthog-logging"}
    return found


def _properties(envelope: Envelope, coding: str | None) -> Any:
    return pika.BasicProperties(
        content_type=CONTENT_TYPE,
        content_encoding=coding,
        delivery_mode=2,  # persistent
        message_id=envelope.message_id,
        timestamp=int(time.time()),
        headers=envelope.headers(),
    )


def _described(error: BaseException) -> BrokerError:
    """Return what *error* means, without its text, which may name the user."""
    causes = list(_causes(error))
    for cause in causes:
        for kind, text in _TEXTS:
            if isinstance(cause, kind):
                return BrokerError(text)
        code = getattr(cause, "reply_code", None)
        if code in _CODES:
            return BrokerError(_CODES[code], final=code in (311, 406))
    return BrokerError(f"the broker cannot be reached ({type(causes[-1]).__name__})")


_TEXTS: tuple[tuple[type[BaseException], str], ...] = (
    (pika.exceptions.AuthenticationError, "the broker refused the user or the password"),
    (pika.exceptions.ProbableAuthenticationError, "the broker refused the user or the password"),
    (pika.exceptions.ProbableAccessDeniedError, "no such vhost, or no right to use it"),
)
# https://www.rabbitmq.com/amqp-0-9-1-reference#constants
_CODES = {
    311: "the broker takes no message as large as that",
    320: "the broker closed the connection",
    403: "the broker refused the right to that",
    404: "the broker has no such queue; a relay makes it",
    406: "the broker takes no message as large as that, or the queue has other arguments",
    530: "no such vhost, or no right to use it",
}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and the errors in its arguments and attributes, where pika puts them."""
    waiting: list[Any] = [error]
    for _ in range(20):
        if not waiting:
            return
        cause = waiting.pop(0)
        if isinstance(cause, BaseException):
            yield cause
            waiting += [*cause.args, getattr(cause, "exception", None)]
            waiting += [*(getattr(cause, "exceptions", None) or ()), cause.__cause__]


def _ignore(*_: Any) -> None:
    pass


class _NotOurs(logging.Filter):
    """Drop pika's records about our own connections: the relay reports a fault once."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _connections[record.thread]


#: How many connections each thread has open.
_connections: Counter[int | None] = Counter()
_not_ours = _NotOurs()


def _silence_pika() -> None:
    _connections[threading.get_ident()] += 1
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.startswith("pika") and isinstance(logger, logging.Logger):
            logger.addFilter(_not_ours)  # which does nothing a second time
