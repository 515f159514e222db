"""
RabbitMQ, by way of ``pika``: quorum queues, confirms and acknowledgements.

`Link` is a connection with one channel whose loop runs only while somebody waits: an
asynchronous one on purpose, since ``BlockingConnection`` waits for each confirm, for as long
as it takes.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
import uuid

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import pika
import pika.exceptions

from pika.adapters.select_connection import IOLoop
from pika.adapters.utils.selector_ioloop_adapter import SelectorIOServicesAdapter

from .address import Address
from .engine import MISSING, BrokerError, Finding, Intake, no_entry
from .envelope import CONTENT_TYPE, Delivery, Envelope


__all__ = ["Link", "RabbitConsumer", "RabbitPublisher", "consumer", "examine", "publisher"]

#: What a queue is declared with. RabbitMQ 4 drops what it delivered 20 times, without a limit.
QUEUE_ARGUMENTS = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-dead-letter-strategy": "at-least-once",
    "x-dead-letter-exchange": "",
    "x-delivery-limit": 1_000_000,
}
DEAD_ARGUMENTS = {"x-queue-type": "quorum"}

#: Each time a relay is killed its messages are delivered once more, and a queue of somebody
#: else's making may allow for few of these. What was delivered so often is put into the queue
#: again, as a new message, before it is taken off.
_ANEW_AFTER = 1

_ANEW_WITHIN = 5.0
_CONNECT_WITHIN = 10.0
_CLOSE_WITHIN = 0.5
_DELIVERIES = "deliveries"  # our own count, which goes on where RabbitMQ's begins anew


_UNKNOWN = BrokerError("unknown")
_SILENT = "the broker did not confirm in time"
_BLOCKED = "the broker takes nothing for now: it is low on memory or disk"


class Link:
    """
    A connection to *address* and a channel on it, for one thread.

    Raises `BrokerError` where it cannot be made within *timeout* seconds. A link that was
    lost stays lost: make another.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self.blocked = False
        self.lost: BaseException | None = None
        #: What the broker has not confirmed: delivery tag and what to call with the outcome.
        self.unconfirmed: dict[int, tuple[str, Callable[[BrokerError | None], None]]] = {}
        self._returned: set[str] = set()
        self._published = 0
        self._loop = IOLoop()
        self._loop.activate_poller()
        self._ready = False
        self._thread = threading.get_ident()
        _quieten()
        self._connection = pika.SelectConnection(
            _parameters(address, timeout),
            on_open_callback=self._opened,
            on_open_error_callback=self._was_lost,
            on_close_callback=self._was_lost,
            custom_ioloop=_Services(self._loop),
        )
        self.channel: Any = None
        if not self.run(lambda: self._ready, timeout):
            error = _in_words(self.lost) if self.lost else BrokerError("the broker is silent")
            self.close()
            raise error

    def run(self, until: Callable[[], bool], timeout: float) -> bool:
        """Do what there is to do until *until* holds; return whether it does in time."""
        self._spin(lambda: self.lost is not None or until(), timeout)
        return self.lost is None and until()

    def look(self) -> None:
        """Send what is to be sent, note what came, answer heartbeats; without a wait."""
        self._spin(lambda: False, 0.0)

    def _spin(self, until: Callable[[], bool], timeout: float) -> None:
        """Let the loop turn until *until* holds or time is up, once at least."""
        loop, deadline = self._loop, time.monotonic() + timeout
        while not until():
            left = max(0.0, deadline - time.monotonic())
            alarm = loop.call_later(left, _nothing)
            loop.poll()
            loop.process_timeouts()
            loop.remove_timeout(alarm)
            if not left:
                return

    def publish(
        self, queue: str, envelope: Envelope, done: Callable[[BrokerError | None], None]
    ) -> None:
        """Publish a message; *done* is called, within `run`, with what is wrong, or None."""
        body, coding = envelope.packed()
        self.send(queue, body, _properties(envelope, coding), done)

    def send(
        self, queue: str, body: bytes, properties: Any, done: Callable[[BrokerError | None], None]
    ) -> None:
        """Publish bytes, as `publish`."""
        self._published += 1
        self.unconfirmed[self._published] = properties.message_id or "", done
        self.channel.basic_publish("", queue, body, properties, mandatory=True)

    def fail(self) -> BrokerError:
        """Return why it was lost."""
        return _in_words(self.lost or ConnectionError())

    def close(self) -> None:
        """End the connection; what was not acknowledged is the queue's again."""
        connection = self._connection
        _threads[self._thread] -= 1
        with suppress(Exception):
            if connection.is_open:
                connection.close()
            self._spin(lambda: connection.is_closed, _CLOSE_WITHIN)
            if not connection.is_closed:
                # A broker that reads nothing for now does not say goodbye either.
                getattr(connection, "_adapter_disconnect_stream", _nothing)()
            self.look()
            self._loop.deactivate_poller()
        with suppress(Exception):
            self._loop.close()

    def cancelled(self, frame: Any) -> None:
        """Take a consumer that the broker has cancelled for a lost link."""
        self._was_lost(None, ConnectionAbortedError("cancelled"))

    def _opened(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(partial(self._note_blocked, True))
        connection.add_on_connection_unblocked_callback(partial(self._note_blocked, False))
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        self.channel = channel
        channel.add_on_close_callback(self._was_lost)
        channel.add_on_return_callback(self._was_returned)
        channel.confirm_delivery(self._was_confirmed, callback=self._is_ready)

    def _is_ready(self, frame: Any) -> None:
        self._ready = True

    def _note_blocked(self, blocked: bool, connection: Any, frame: Any) -> None:
        self.blocked = blocked

    def _was_lost(self, source: Any, error: Any) -> None:
        if self.lost is None:
            self.lost = error if isinstance(error, BaseException) else ConnectionError(str(error))

    def _was_returned(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._returned.add(properties.message_id or "")

    def _was_confirmed(self, frame: Any) -> None:
        method = frame.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self.unconfirmed if tag <= method.delivery_tag]
        for tag in tags:
            name, done = self.unconfirmed.pop(tag, ("", _nothing))
            if name in self._returned:
                self._returned.discard(name)
                done(BrokerError("the broker has no such queue; a relay makes it"))
            elif isinstance(method, pika.spec.Basic.Nack):
                done(BrokerError("the broker refused the message: its queue is full"))
            else:
                done(None)


class _Services(SelectorIOServicesAdapter):  # type: ignore[misc]
    """pika's own, where no thread can be had either: at the end of the interpreter."""

    def getaddrinfo(self, host: str, port: int, on_done: Any, *more: Any, **named: Any) -> Any:
        """Resolve in a thread; without one here, which takes as long as it takes."""
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


class RabbitPublisher:
    """Publish to a queue by the default exchange, many messages for one wait."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._link: Link | None = None
        self._settled: dict[str, BrokerError | None] = {}  # of what is on its way, by message id
        self._on_its_way: set[str] = set()

    def publish(self, envelopes: Sequence[Envelope], timeout: float) -> list[BrokerError | None]:
        """
        Publish what is not on its way already, and wait for all of it together.

        Where the broker is slow, or blocks its publishers for want of memory or disk, a message
        stays on its way, and the next attempt goes on waiting for it: to publish it again
        would only store it twice.
        """
        deadline = time.monotonic() + timeout
        link = self._open(timeout)
        names = [envelope.message_id for envelope in envelopes]
        for envelope in envelopes:
            name = envelope.message_id
            if name not in self._on_its_way and not (link.blocked and self._on_its_way):
                self._on_its_way.add(name)
                link.publish(self._address.queue, envelope, partial(self._settle, name))
        link.run(lambda: self._are_settled(names) or link.blocked, deadline - time.monotonic())
        return self._outcomes(link, names)

    def close(self) -> None:
        """Give back the connection."""
        link, self._link = self._link, None
        self._settled.clear()
        self._on_its_way.clear()
        if link is not None:
            link.close()

    def _open(self, timeout: float) -> Link:
        if self._link is not None:
            self._link.look()  # an idle one may have been closed by the broker
            if self._link.lost is not None:
                self.close()
        if self._link is None:
            self._link = Link(self._address, min(timeout, _CONNECT_WITHIN))
        return self._link

    def _settle(self, name: str, error: BrokerError | None) -> None:
        self._settled[name] = error

    def _are_settled(self, names: list[str]) -> bool:
        return self._settled.keys() >= set(names)

    def _outcomes(self, link: Link, names: list[str]) -> list[BrokerError | None]:
        """Return what became of messages; what is not known after a time-out ends the link."""
        silent = not self._settled and not link.blocked
        if link.lost is not None:
            open_end = link.fail()
        elif link.blocked:
            open_end = BrokerError(_BLOCKED)
        else:
            open_end = BrokerError(_SILENT)
        found = [self._settled.pop(name, open_end) for name in names]
        self._on_its_way.difference_update(
            name for name, one in zip(names, found, strict=True) if one is not open_end
        )
        if link.lost is not None or (silent and open_end in found):
            self.close()
        return found


class _Token(NamedTuple):
    generation: int
    tag: int


class RabbitConsumer:
    """Consume from a queue, over one link after another; each is a generation of its own."""

    def __init__(self, address: Address, intake: Intake) -> None:
        self.revision = 0
        self._address = address
        self._intake = intake
        self._link: Link | None = None
        self._inbox: deque[Delivery] = deque()
        self._held: set[int] = set()
        self._worn: list[tuple[Delivery, Any]] = []  # came before, with properties for anew
        self._out: Link | None = None
        self._tag = ""
        self._stopped = False

    @property
    def held(self) -> int:
        """How many messages came and were not acknowledged."""
        return len(self._held)

    def fetch(self, most: int, timeout: float) -> list[Delivery]:
        """Return messages that came, within the prefetch."""
        if self._stopped:
            most = 0
        link = self._open()
        if most > 0 and not self._tag:
            came = partial(self._came, link)
            self._tag = link.channel.basic_consume(self._address.queue, came)
        link.run(lambda: most > 0 and bool(self._inbox or self._worn), timeout)
        if link.lost is not None:
            self._drop(link)
            raise link.fail()
        if self._worn:
            self._put_anew(link)
        return [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]

    def pause(self) -> None:
        """Cancel the consumer: what is held may be held for long, and nothing joins it."""
        link = self._link
        if self._tag and link is not None and link.lost is None:
            link.channel.basic_cancel(self._tag)
            self._tag = ""

    def holds(self, token: _Token) -> bool:
        """Return whether the channel by which it came is open."""
        return token.generation == self.revision and token.tag in self._held

    def ack(self, tokens: Sequence[_Token]) -> None:
        """Acknowledge; what came by a channel that is closed will come again."""
        link = self._link
        for token in tokens:
            if self.holds(token) and link is not None and link.lost is None:
                self._held.discard(token.tag)
                link.channel.basic_ack(token.tag)
        if link is not None:
            link.look()

    def dead(self, envelope: Envelope, timeout: float) -> None:
        """Publish to the queue of the dead, and wait until it is confirmed."""
        outcome: list[BrokerError | None] = []
        out = self._publishing()
        out.publish(self._address.dead, envelope, outcome.append)
        out.run(lambda: bool(outcome) or out.blocked, timeout)
        if not outcome:
            error = out.fail() if out.lost else BrokerError(_BLOCKED if out.blocked else _SILENT)
            self._close_out()
            raise error
        if outcome[0] is not None:
            raise outcome[0]

    def stop(self) -> None:
        """Cancel the consumer; the channel stays for the acknowledgements."""
        self._stopped = True
        self._inbox.clear()
        self.pause()
        if self._link is not None:
            self._link.look()

    def close(self) -> None:
        """Close the connections: the broker delivers the rest to others."""
        self._close_out()
        if self._link is not None:
            self._drop(self._link)

    def _drop(self, link: Link) -> None:
        """Forget a link: all that came by it goes back."""
        self._link = None
        self._tag = ""
        self.revision += 1
        self._inbox.clear()
        self._held.clear()
        self._worn.clear()
        link.close()

    def _open(self) -> Link:
        if self._link is None:
            with _declaring:  # at the same time, a quorum queue's declarations may fail
                link = self._with_queues()
            try:
                self._begin(link)
            except BaseException:
                link.close()
                raise
            self._link = link
        return self._link

    def _with_queues(self) -> Link:
        """Return a link when all queues are there; what is there need not be declared."""
        missing = dict(queues(self._address))
        while True:
            link = Link(self._address, _CONNECT_WITHIN)
            try:
                queue = next((one for one in missing if not _exists(link, one)), None)
            except BaseException:
                link.close()
                raise
            if queue is None:
                return link
            link.close()  # whoever asks for what is not there loses the channel
            if not self._intake.declare:
                raise BrokerError(f"the broker has no queue {queue!r}")
            _declare(self._address, queue, missing.pop(queue))

    def _begin(self, link: Link) -> None:
        channel = link.channel
        channel.basic_qos(prefetch_count=self._intake.prefetch)
        channel.add_on_cancel_callback(link.cancelled)

    def _came(self, link: Link, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        headers = properties.headers or {}
        count = headers.get("x-delivery-count", int(method.redelivered))
        self._held.add(method.delivery_tag)
        own = headers.get(_DELIVERIES, 0)
        before = count + own if isinstance(own, int) else count
        token = _Token(self.revision, method.delivery_tag)
        delivery = _delivery(token, properties, body, before)
        if headers.get("x-delivery-count", 0) < _ANEW_AFTER:
            self._inbox.append(delivery)
            return
        properties.headers = {**headers, _DELIVERIES: before}
        properties.headers.pop("x-delivery-count")
        self._worn.append((delivery, properties))

    def _put_anew(self, link: Link) -> None:
        """
        Put what came before into the queue anew, and take it off; what cannot be put is kept.

        Before anything of it is sent: a relay may be killed with its first request.
        """
        worn, self._worn = self._worn, []
        outcomes: dict[int, BrokerError | None] = {}
        try:
            out = self._publishing()
            for number, (delivery, properties) in enumerate(worn):
                note = partial(outcomes.__setitem__, number)
                out.send(self._address.queue, delivery.body, properties, note)
            out.run(lambda: len(outcomes) == len(worn) or out.blocked, _ANEW_WITHIN)
        except BrokerError:
            pass
        for number, (delivery, _) in enumerate(worn):
            if outcomes.get(number, _UNKNOWN) is None:
                self.ack([delivery.token])
            else:
                self._inbox.append(delivery)

    def _publishing(self) -> Link:
        """
        Return a link of its own to publish by.

        A broker that is low on memory or disk stops to read from those that publish: then
        acknowledgements, which would help it, must not wait behind them.
        """
        if self._out is not None:
            self._out.look()
            if self._out.lost is not None or self._out.blocked:
                self._close_out()
        if self._out is None:
            self._out = Link(self._address, _CONNECT_WITHIN)
        return self._out

    def _close_out(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            out.close()


_declaring = threading.Lock()


def queues(address: Address) -> list[tuple[str, dict[str, Any]]]:
    """Return the queues that there must be, with what they are declared with."""
    own = {**QUEUE_ARGUMENTS, "x-dead-letter-routing-key": address.dead}
    return [(address.dead, DEAD_ARGUMENTS), (address.queue, own)]


def _exists(link: Link, queue: str) -> bool:
    """Return whether the queue is there; the link is lost where it is not."""
    answered: list[Any] = []
    link.channel.queue_declare(queue, passive=True, callback=answered.append)
    if link.run(lambda: bool(answered), _CONNECT_WITHIN):
        return True
    if getattr(link.lost, "reply_code", 0) == 404:
        return False
    raise link.fail() if link.lost else BrokerError("the broker is silent")


def _declare(address: Address, queue: str, arguments: dict[str, Any]) -> None:
    try:
        _declared(address, queue, _CONNECT_WITHIN, durable=True, arguments=arguments)
    except _Refused as refused:
        if refused.code == 403:
            raise BrokerError(
                f"no right to declare {queue!r}: give it, or declare it and pass --no-declare"
            ) from None
        raise


class _Refused(BrokerError):
    """A declaration that was refused, with the broker's code and text."""

    def __init__(self, error: BrokerError, lost: BaseException | None) -> None:
        super().__init__(str(error), final=error.final)
        self.code = getattr(lost, "reply_code", 0)
        self.text = str(getattr(lost, "reply_text", ""))


def _declared(address: Address, queue: str, timeout: float, **how: Any) -> Any:
    """Return what the broker answers to a declaration, on a link of its own."""
    link = Link(address, timeout)
    answered: list[Any] = []
    try:
        link.channel.queue_declare(queue, callback=answered.append, **how)
        if link.run(lambda: bool(answered), timeout):
            return answered[0].method
        error = link.fail() if link.lost else BrokerError("the broker is silent")
        raise _Refused(error, link.lost)
    finally:
        link.close()


def _parameters(address: Address, timeout: float) -> Any:
    """Return what pika's own URL parameters make of it, with waits that are bounded."""
    found = pika.URLParameters(address.url)
    found.connection_attempts = 1
    found.socket_timeout = max(0.1, timeout)
    found.stack_timeout = max(0.1, timeout)
    found.client_properties = {"connection_name": "posthog-logging"}
    return found


def _properties(envelope: Envelope, coding: str | None) -> Any:
    return pika.BasicProperties(
        content_type=CONTENT_TYPE,
        content_encoding=coding,
        delivery_mode=2,
        message_id=envelope.message_id,
        timestamp=int(time.time()),
        headers=envelope.headers(),
    )


def _delivery(token: _Token, properties: Any, body: bytes, before: int) -> Delivery:
    published = properties.timestamp
    return Delivery(
        token,
        body,
        properties.message_id or "",
        properties.content_encoding,
        properties.headers or {},
        before,
        float(published) if isinstance(published, int) else None,
    )


def _in_words(error: BaseException) -> BrokerError:
    """Return what *error* means; never its text, which may say who wanted in."""
    causes = list(_causes(error))
    for cause in causes:
        for kind, text in _WORDS:
            if isinstance(cause, kind):
                return BrokerError(text)
        code = getattr(cause, "reply_code", None)
        if code in _CODES:
            return BrokerError(_CODES[code], final=code in (311, 406))
    return BrokerError(f"the broker cannot be reached ({type(causes[-1]).__name__})")


_WORDS: tuple[tuple[type[BaseException], str], ...] = (
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
    """Yield *error* and what is wrapped in it, as pika does by arguments and attributes."""
    waiting: list[Any] = [error]
    for _ in range(20):
        if not waiting:
            return
        cause = waiting.pop(0)
        if isinstance(cause, BaseException):
            yield cause
            waiting += [*cause.args, getattr(cause, "exception", None)]
            waiting += [*(getattr(cause, "exceptions", None) or ()), cause.__cause__]


def _nothing(*_: Any) -> None:
    pass


class _NotOurs(logging.Filter):
    """Hold back what pika logs of our own connections: we say it once, in our words."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _threads[record.thread]


#: Who has a link open, and how many.
_threads: Counter[int | None] = Counter()
_not_ours = _NotOurs()


def _quieten() -> None:
    _threads[threading.get_ident()] += 1
    for name, own in list(logging.root.manager.loggerDict.items()):
        if name.startswith("pika") and isinstance(own, logging.Logger):
            own.addFilter(_not_ours)  # which does nothing a second time


def publisher(address: Address, timeout: float) -> RabbitPublisher:
    """Return what publishes."""
    return RabbitPublisher(address, timeout)


def consumer(address: Address, intake: Intake) -> RabbitConsumer:
    """Return what consumes."""
    return RabbitConsumer(address, intake)


def examine(address: Address, timeout: float) -> Iterator[Finding]:
    """Yield what is well and what is wrong: the broker, its alarms, rights and the queues."""
    try:
        link = Link(address, timeout)
    except BrokerError as error:
        yield no_entry(address, error)
        return
    try:
        yield Finding("ok", "broker", f"{address.server} lets this user in")
        yield _may_publish(link, timeout)
    finally:
        link.close()
    for queue, arguments in queues(address):
        yield from _examine_queue(address, queue, arguments, timeout)


def _may_publish(link: Link, timeout: float) -> Finding:
    """Publish to a queue that nobody has: it comes back, or it is known why not."""
    outcome: list[BrokerError | None] = []
    probe = Envelope([b"{}"], str(uuid.uuid4()))
    link.publish(f"posthog-logging-doctor-{probe.message_id}", probe, outcome.append)
    link.run(lambda: bool(outcome) or link.blocked, timeout)
    if link.blocked:
        text = "low on memory or disk, so publishers wait"
        remedy = "`rabbitmq-diagnostics alarms` says which; give it more, or let relays catch up"
        return Finding("WRONG", "alarms", text, remedy)
    if link.lost is not None:
        text = f"publishing to the default exchange: {link.fail()}"
        remedy = "give the user the right to write to amq.default, by rabbitmqctl set_permissions"
        return Finding("WRONG", "rights", text, remedy)
    if not outcome:
        text = f"the broker does not answer a message within {timeout:g} s"
        return Finding("WRONG", "alarms", text, "look at the broker's load and its log")
    return Finding("ok", "rights", "this user may publish, and no alarm holds publishers up")


def _examine_queue(
    address: Address, queue: str, arguments: dict[str, Any], timeout: float
) -> Iterator[Finding]:
    try:
        found = _declared(address, queue, timeout, passive=True)
    except _Refused as refused:
        missing = refused.code == 404
        yield (
            Finding("note", "queue", f"{queue}: is missing", MISSING)
            if missing
            else Finding("WRONG", "queue", f"{queue}: {refused}", _RIGHTS)
        )
        return
    yield Finding("ok", "queue", f"{queue}: {found.message_count} messages")
    try:
        differences = _differences(address, queue, arguments, timeout)
    except _Refused as refused:
        text = f"{queue}: unknown, for {refused}"
        yield Finding("note", "arguments", text, "give the relay --no-declare")
        return
    if not differences:
        yield Finding("ok", "arguments", f"{queue}: as a relay declares it")
    for name, text in differences.items():
        verdict = "WRONG" if name in _LOSES else "note"
        yield Finding(verdict, "arguments", f"{queue}: {text}", _REMEDY)


_RIGHTS = "nothing for a user that only publishes; a relay's user needs the right to read it"
_REMEDY = (
    "empty the queue and delete it, and a relay declares it anew; until then it is used as it is"
)
#: What differs in these may lose events.
_LOSES = frozenset(QUEUE_ARGUMENTS) | {"durable"}


def _differences(
    address: Address, queue: str, arguments: dict[str, Any], timeout: float
) -> dict[str, str]:
    """
    Return in what a queue is not as a relay declares it.

    To declare what is there changes nothing, and the broker's refusal names one difference:
    so that one is given in, and the next one looked for.
    """
    found: dict[str, str] = {}
    wanted = dict(arguments)
    for _ in range(10):
        try:
            _declared(address, queue, timeout, durable=True, arguments=wanted)
            return found
        except _Refused as refused:
            difference = _INEQUIVALENT.search(refused.text)
            if difference is None:
                raise
            name, text = difference[1], difference[2]
            value = _VALUE.match(text)
            shown = value[1] if value else "not set"
            right = wanted.get(name)
            found[name] = f"{name} is {shown}, where a relay declares {right!r}"
            wanted.pop(name, None)
            if value is not None:
                wanted[name] = int(value[1]) if value[1].isdecimal() else value[1]
    return found


_INEQUIVALENT = re.compile(r"inequivalent arg '([\w-]{1,60})'.* but current is (.{1,80})")
_VALUE = re.compile(r"the value '([^']{0,60})'")
