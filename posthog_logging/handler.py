"""
`PostHogHandler`: takes events from log records, and assembles the parts that deliver them.

It is no `QueueHandler` on purpose: from Python 3.12 on ``dictConfig`` builds those in a way of
its own, and 3.12.0 to 3.12.3 drop the arguments.
"""

from __future__ import annotations

import inspect
import logging
import os
import sys
import time
import weakref

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from . import context, extras
from .context import Bound, Holder, Kept, takers
from .delivery import checks
from .delivery.encoder import BeforeSend, Draft, Encoder
from .delivery.gate import Gate
from .delivery.handler import DeliveryHandler
from .delivery.ledger import Ledger
from .delivery.losses import bound_of
from .delivery.options import EventOptions
from .delivery.own_log import foreign_names, is_ours, logger, sending_threads
from .delivery.pipeline import Pipeline, is_configuring
from .delivery.sender import DeliveryError, OnError
from .delivery.spool import Spool
from .delivery.transport import Transport
from .errors.exception_list import MANUAL, Boundary, without_owned
from .errors.frames import in_app_rule
from .errors.hooks import ExceptHooks
from .errors.reporter import Reporter
from .events.faults import faults
from .events.identifiers import Warn
from .events.levels import level_of
from .events.message import Message, Refused
from .events.pseudonyms import Key
from .events.records import (
    Fields,
    bound_to,
    fields_in_message,
    fields_of,
    is_basic_config,
    is_event,
    name_of,
)
from .events.reentry import Guard
from .events.sampling import Rate
from .events.scrub import Decide
from .events.span import span_ids
from .events.typed import declaration_of
from .logs import PostHogLogsHandler
from .plan import Watch
from .version import LIBRARY, VERSION
from .wire import Dialect


__all__ = ["DeliveryError", "PostHogHandler", "observe"]

_OWNED = {"$lib": LIBRARY, "$lib_version": VERSION}

# Events that are true whether or not a transaction is committed.
_NEVER_HELD = frozenset({"$exception", "$identify", "$create_alias", "$http_log"})


Observer = Callable[[Message], None]

_Result = TypeVar("_Result")

_observers: tuple[Observer, ...] = ()
_observing = Guard()


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """
    Call *observer* with every `Message` that a handler of this process accepts in the block.

    It is called in the thread of the log call, after ``before_send``, also without a key.
    """
    global _observers
    _observers += (observer,)
    try:
        yield
    finally:
        _observers = tuple(other for other in _observers if other is not observer)


class PostHogHandler(DeliveryHandler):
    """
    Send the log records that are events to PostHog, or to another server of its kind.

    A record is an event if it has ``distinct_id`` or ``event`` in its ``extra``; all others are
    left alone. The handler starts and stops its own thread, survives ``fork`` and delivers at
    exit.

    Example::

        log = logging.getLogger("analytics")
        log.setLevel(logging.INFO)
        log.addHandler(PostHogHandler())  # POSTHOG_API_KEY and POSTHOG_HOST
        log.info("movie played", extra={"distinct_id": "user-1", "movie_id": "123"})

    Args:
        api_key: the project's key; None: ``POSTHOG_PROJECT_TOKEN``, else ``POSTHOG_API_KEY``.
            Without a key nothing is sent, and the first event logs a warning.
        host: the base URL; None: ``POSTHOG_HOST``, else PostHog's US cloud.
        dialect: ``"posthog"``, ``"posthog-v1"``, ``"segment"``, … or a `Dialect` of your own.
        level: the lowest level of the records that it takes.
        flush_at: how many waiting events are sent at once, without waiting for more.
        flush_interval: how long, in seconds, an event may wait for others to be sent with.
        max_queue_size: how many events may wait.
        max_queue_bytes: how many bytes of events may wait in memory.
        overflow: what to do with an event if the queue is full: ``"drop_newest"`` drops it,
            ``"drop_oldest"`` drops the oldest instead, ``"block"`` waits for room.
        block_timeout: how long, in seconds, ``"block"`` may hold up a log call.
        spool: a folder in which events wait on disk, so that they survive the process; or a
            `Spool` of your own. One folder is for one project.
        max_spool_bytes: how many bytes that folder may hold, for all processes together.
        fsync: when events are forced onto the disk, to survive a power cut: ``"never"``,
            ``"interval"`` (once a second) or ``"always"`` (before the log call returns).
        max_retries: how often a batch is sent again; None: until *max_age*.
        max_age: how old, in seconds, an event may get before it is given up; None: no limit.
        timeout: how long, in seconds, one attempt may take.
        shutdown_timeout: how long, in seconds, `close` and the exit may take.
        compression: ``"gzip"``, ``"deflate"``, ``"zstd"``, ``"br"`` or None.
        bisect: whether a batch that is refused as a whole is split to find the event at fault.
        before_send: a callable or a list of them, each given the event as a dict (``event``,
            ``distinct_id``, ``properties``, ``uuid``, ``timestamp``) and returning it, changed
            or not, or None to drop it. One that raises drops the event.
        on_error: called with a `DeliveryError` and the list of events that were lost; the list is
            empty if there was no room to keep them, and the error's `count` says how many.
        properties: properties of every event; the event's own override them.
        flat: whether the other keys of ``extra`` become properties.
        scrub: whether values under keys that name secrets (``password``, ``api_key``, …, at any
            depth) and passwords in URLs are replaced by ``[scrubbed]``; or further names beside
            the built-in ones; or a callable that is given a key and returns whether it names a
            secret, or None to leave that to the names. Keys are compared by their words.
        pseudonymise: a mapping of names to keys, or a pair of names and one key: values under
            these names are replaced by their HMAC-SHA-256.
        sample: a mapping of event names to the share of people, from 0 to 1, whose events are
            kept; or a callable that is given the event as *before_send* is and returns that
            share, or None for all. The share is sent as ``$sample_rate``. Exceptions, identify,
            alias, group and set are always kept.
        person_rate: how many events of one person are taken at once, and how many more a
            second; None: no limit. The same kinds as with *sample* are always taken.
        plan: ``"warn"`` warns once for each name of an event that is not declared by
            `posthog_logging.event`, or does not fit its declaration.
        disable_geoip: whether PostHog is asked not to derive a place from the server's address.
        historical_migration: whether events are marked as imported history.
        headers: further HTTP headers; those that describe one body or one attempt are refused.
        proxies, verify, cert, auth, session: as in ``requests``.
        exceptions: whether exceptions logged with ``exc_info`` are reported to error tracking, as
            further events; or the lowest level of the log calls whose exceptions are.
        exception_rate: how many exceptions of one type are reported at once, and how many more
            a second; None: no limit.
        exception_hooks: whether uncaught exceptions are reported, in any thread.
        exception_messages: whether log calls without ``exc_info`` are reported, too, from the
            level of *exceptions* on, or from ERROR on if *exceptions* is True.
        exception_steps: how many of the last log records (INFO and above) and events of the
            same context are sent along with an exception, up to 100,000.
        exception_variables: whether the project's own frames carry their local variables, as
            `repr` shows them: 1 KiB of each and 64 KiB in all, scrubbed.
        in_app_include: modules, with those inside them, whose frames are the project's own; if
            a frame is in both lists the longer name wins.
        in_app_exclude: modules whose frames are not the project's own.
        trace: whether events carry the ids of OpenTelemetry's active span, if there is one.
        logs: whether every record is also sent to PostHog Logs; or the lowest level of the
            records that are; or a mapping of options for the `PostHogLogsHandler` that sends
            them, which takes all others from here. Logs do not go through a *broker*: beside one
            they need *api_key* and *host*, here or in the environment.
        sync_mode: whether a log call waits until its event has been sent, for serverless.
        send: False builds and counts events, and sends none.
        debug: whether the library's own logger is set to DEBUG, where it logs names and sizes,
            never keys or payloads.
        transport: a `Transport` that sends in place of ``requests``.
        broker: the URL of a broker, ``amqp://``, ``redis://`` or ``kafka://``, to which events
            are sent instead, and from which ``posthog-logging relay`` delivers them; None:
            ``POSTHOG_BROKER``, unless *host* or *transport* is given. Events then need no key,
            host or dialect.

    Raises:
        TypeError, ValueError: an option is wrong; the error names it, and what is allowed.
    """

    def __init__(
        self,
        api_key: str | None = None,
        host: str | None = None,
        *,
        dialect: str | Dialect = "posthog",
        level: int | str = logging.NOTSET,
        flush_at: int = 100,
        flush_interval: float = 1.0,
        max_queue_size: int = 100_000,
        max_queue_bytes: int = 64 * 1024 * 1024,
        overflow: str = "drop_newest",
        block_timeout: float = 1.0,
        spool: str | os.PathLike[str] | Spool | None = None,
        max_spool_bytes: int = 1024 * 1024 * 1024,
        fsync: str = "never",
        max_retries: int | None = None,
        max_age: float | None = None,
        timeout: float = 15.0,
        shutdown_timeout: float = 5.0,
        compression: str | None = "gzip",
        bisect: bool = True,
        before_send: BeforeSend | Iterable[BeforeSend] | None = None,
        on_error: OnError | None = None,
        properties: Mapping[str, Any] | None = None,
        flat: bool = True,
        scrub: bool | Iterable[str] | Decide = True,
        pseudonymise: Mapping[str, Key] | tuple[Iterable[str], Key] | None = None,
        sample: Mapping[str, float] | Rate | None = None,
        person_rate: tuple[int, float] | None = None,
        plan: str | None = None,
        disable_geoip: bool = True,
        historical_migration: bool = False,
        headers: Mapping[str, str] | None = None,
        proxies: dict[str, str] | None = None,
        verify: bool | str | None = None,
        cert: str | tuple[str, str] | None = None,
        auth: Any = None,
        session: Any = None,
        exceptions: bool | int | str = False,
        exception_rate: tuple[int, float] | None = (10, 1.0),
        exception_hooks: bool = False,
        exception_messages: bool = False,
        exception_steps: int = 0,
        exception_variables: bool = False,
        in_app_include: Iterable[str] = (),
        in_app_exclude: Iterable[str] = (),
        trace: bool = False,
        logs: bool | int | str | Mapping[str, Any] = False,
        sync_mode: bool = False,
        send: bool = True,
        debug: bool = False,
        transport: Transport | None = None,
        broker: str | None = None,
    ) -> None:
        name = "broker"
        if broker is not None or (host is None and transport is None):
            name, broker = checks.broker(name, broker)
        options = EventOptions.of(locals(), **_to_broker(name, broker, timeout))
        ledger = Ledger()
        self._trace = options.trace
        self._holder: Holder | None = None
        self._was_closed = False
        self._encoder = _make_encoder(options, ledger)
        #: Makes events of exceptions, also for `capture_exception`.
        self.reporter = _make_reporter(
            _weakly(self._take), _weakly(self.refuse), _weakly(self._is_off), options
        )
        #: Sends records to PostHog Logs; None unless *logs* is given.
        self.logs = _make_logs(logs, options, api_key, host)
        # Whether records that are not events matter, too: as exceptions, steps or logs, or because
        # a filter may make events of them.
        self._sees_every_record = self.logs is not None or self.reporter.sees_every_record
        self._has_short_way = (
            options.send
            and not (options.debug or options.trace or options.exception_steps)
            and self._encoder.takes_drafts
        )
        self._is_quick = self._has_short_way and not self._sees_every_record
        hooks = ExceptHooks(_weakly(self.reporter.capture)) if options.exception_hooks else None
        on_open = bool if hooks is None else hooks.install
        super().__init__(level, options, ledger, self._encoder.lines, on_open)
        # In memory a draft may wait, which the thread encodes; on disk only its line.
        self._accept: Callable[[Draft], bool] = (
            self._pipeline.accept
            if self._in_memory
            else partial(_put_on_disk, self._pipeline, self._encoder, ledger)
        )
        self._excepthooks = hooks
        if hooks is not None:
            hooks.install()
            weakref.finalize(self, hooks.remove).atexit = False
        takers.add(self)
        foreign_names.clear()  # so that `is_ours` sees whether a queue is before this handler

    def handle(self, record: logging.LogRecord) -> Any:
        """
        Take *record* if it is an event; filters run, and the handler's lock is not taken.

        (There is nothing to guard here, and with eight threads the lock turns 12 µs into 300.)
        """
        # Not by `__dict__`: a record without extras has none until somebody asks for it.
        if hasattr(record, "distinct_id") or hasattr(record, "event"):
            if self._is_quick and not (
                self.filters
                or _observers
                or self._opted_out
                or (sending_threads and record.thread in sending_threads)
            ):
                draft = self._encoder.draft(record)
                if draft is not None:
                    # A local name, since Python 3.11 first looks for a method of that name.
                    accept = self._accept
                    accept(draft)
                    return True
        elif not hasattr(record, "extra"):
            text = record.msg
            # structlog's and loguru's forms of an event are looked at; all else leaves here. Most
            # texts, and "", sort before a brace, which takes less time to find out.
            if (text < "{" or text[0] != "{") if type(text) is str else not _may_be_event(text):
                return not self._sees_every_record or self._handle_any(record, bool(self.filters))
        return self._handle_any(record)

    def _handle_any(self, record: logging.LogRecord, may_be_event: bool = True) -> Any:
        """Take *record* as an exception, a log and, if *may_be_event*, an event."""
        if is_ours(record):
            return True
        passed = self._passes(record) if self.filters else record
        if passed is None:
            return False
        if self._sees_every_record:
            self.reporter.record(passed)
            if self.logs is not None and level_of(passed) >= self.logs.level:
                self.logs.handle(passed)
        if may_be_event:
            self.emit(passed)
        return True

    def capture(self, distinct_id: Any, event: Any, properties: Any) -> str | None:
        """Take an event of an id, a name and properties, as `accept` does, but faster."""
        if self._has_short_way and not (_observers or self._opted_out):
            draft = self._encoder.draft_of(distinct_id, event, properties)
            if draft is not None:
                accept = self._accept
                return draft[3] if accept(draft) else None
        return self.accept(extras.capture(distinct_id, event, properties))

    def emit(self, record: logging.LogRecord) -> None:
        """Queue *record* as an event, if it is one; never raise, whatever it holds."""
        if not is_event(record):
            self._emit_from_message(record)
            return
        fields = fields_of(record)
        name = fields.get("event")
        name = name_of(record) if name is None else ""
        created: Any = getattr(record, "created", None)  # a hand-made record may have none
        self._take(fields, created, bound_of(record), name)

    def preview(self, record: logging.LogRecord, warn: Warn) -> Message | None:
        """
        Return the event that `emit` would make of *record*, or None if that is not an event.

        Raises `Refused` if it would be refused. The hooks run; nothing is sent or counted, and
        *warn* is called for each value that is corrected.
        """
        found: Fields | None
        if is_event(record):
            fields = fields_of(record)
            found = Fields(fields, name_of(record) if fields.get("event") is None else "")
        else:
            found = fields_in_message(record)
        if found is None:
            return None
        bound = self._with_span(bound_to(record))
        message = self._encoder.message(found.fields, found.name, record.created, bound, warn)
        self._dialect.line(message)  # raises if it is too large
        return message

    def accept(
        self, fields: Mapping[str, Any], name: Any = "", created: float | None = None
    ) -> str | None:
        """
        Take one event without a log record; return its uuid, or None if it was refused.

        Args:
            fields: what a log call takes as ``extra``; see `posthog_logging.extras`.
            name: the event's name, or a typed event, if *fields* has no ``event``.
            created: when it happened, in epoch seconds; None: now.
        """
        created = time.time() if created is None else created
        if self.reporter.steps is not None:
            self.reporter.steps.event(fields, name, created)
        return self._take(fields, created, name=name)

    def capture_exception(
        self,
        error: Any = None,
        boundary: Boundary = MANUAL,
        distinct_id: Any = None,
        properties: Mapping[str, Any] | None = None,
        *,
        level: str | int | None = None,
    ) -> str | None:
        """
        Report *error* to error tracking; return its event's uuid, or None if it was refused.

        An exception is reported once: later calls return the uuid of the first report. Raised
        again, it is reported again. Any other object is reported as an Exception with its text.

        Args:
            error: the exception; None: the one that is being handled.
            boundary: where it was caught; see `posthog_logging.errors.exception_list`.
            distinct_id: the person it happened to; None: the identity bound in the context.
            properties: further properties of the event.
            level: its severity, a level's name or number; None: the boundary's.
        """
        error = sys.exc_info()[1] if error is None else error
        return self.reporter.capture(error, boundary, distinct_id, properties, level)

    def hold_by(self, holder: Holder | None) -> None:
        """Let *holder* decide when each event is queued; None queues them at once."""
        self._holder = holder
        self._has_short_way = self._is_quick = False

    def is_in_use(self) -> bool:
        """Return whether it is open, or closed and still attached to a logger."""
        loggers = [logging.root, *logging.root.manager.loggerDict.values()]
        return (
            not self._was_closed
            or self._pipeline.is_open
            or any(self in getattr(one, "handlers", ()) for one in loggers)
        )

    def _is_off(self) -> bool:
        """Return whether events are neither taken nor shown to observers, as after `opt_out`."""
        return self._opted_out and (self._sender.held or not _observers)

    def _take(
        self,
        fields: Mapping[str, Any],
        created: float,
        bound: Bound | None = None,
        name: Any = "",
    ) -> str | None:
        """Take one event; *bound* is by default that of the context."""
        if self._is_off():
            self._take_nothing()
            return None
        try:
            bound = bound or context.current()
            message = self._encoder.message(fields, name, created, self._with_span(bound))
            holder = None if bound is None else bound.holder
            if (holder or self._holder) is None or message.event in _NEVER_HELD:
                return self._hand_over(message)
            return message.uuid if self._hold(message, holder) else None
        except Refused as refused:
            self._ledger.refuse(refused.reason, refused.detail)
        except faults() as error:  # a log call never raises
            self._ledger.refuse("internal_error", type(error).__name__)
        return None

    def _with_span(self, bound: Bound | None) -> Bound | None:
        """Return *bound* with the ids of the active span, if ``trace`` is on."""
        ids = span_ids() if self._trace else None
        if not ids:
            return bound
        bound = bound or Bound()
        return bound._replace(properties={**ids, **bound.properties})

    def _hand_over(self, message: Message, line: bytes | None = None) -> str | None:
        """Show *message* to the observers and queue it; raises `Refused` if it must not go."""
        if _observers and not self._observed(message):
            return None
        line = self._dialect.line(message) if line is None else line
        if not self._sends:
            raise Refused("send_is_off")
        if self._debugs:
            logger.debug("event %r, %d bytes", message.event, len(line))
        return message.uuid if self._pipeline.put(line) else None

    def _hold(self, message: Message, holder: Holder | None) -> bool:
        """Let *holder* and the handler's own hold *message*; return whether it is held."""
        line = self._dialect.line(message)
        kept = Kept(partial(self._let_go, message, line), self._drop, len(line))
        own = None if type(self._holder) is type(holder) else self._holder  # the middleware's
        holders = [each for each in (holder, own) if each is not None]
        parts = kept.parts(len(holders))
        return all(each.keep(part) for each, part in zip(holders, parts, strict=True))

    def _let_go(self, message: Message, line: bytes) -> None:
        """Queue a message that was held."""
        try:
            if not self._is_off():
                self._hand_over(message, line)
        except Refused as refused:
            self._ledger.refuse(refused.reason, refused.detail)
        except faults() as error:
            self._ledger.refuse("internal_error", type(error).__name__)

    def _drop(self, reason: str) -> None:
        """Count a held message that is dropped; a rollback is no loss to warn of."""
        self._ledger.refuse(reason, warn=reason != "rolled_back")

    def addFilter(self, filter: Any) -> None:  # noqa: A002, N802 - the stdlib's
        """Add a filter, which gets every record, and may make it an event."""
        super().addFilter(filter)
        self._sees_every_record = True

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 - the stdlib's
        """Set the formatter for the bodies of logs; events need none."""
        super().setFormatter(fmt)
        if self.logs is not None and not is_basic_config(sys._getframe(1)):
            self.logs.setFormatter(fmt)

    def _pipelines(self) -> tuple[Pipeline, ...]:
        own = super()._pipelines()
        return own if self.logs is None else (*own, *self.logs._pipelines())

    def close(self, timeout: float | None = None) -> None:
        """
        Deliver what waits within ``shutdown_timeout``; release files, connections and hooks.

        Idempotent. A later record opens the handler again, as with `logging.FileHandler`, since
        `logging.config` closes every handler. (When that closes it, the hooks of
        *exception_hooks* stay: an uncaught exception may come before the next record.)
        """
        if self._excepthooks is not None and not is_configuring():
            self._excepthooks.remove()
        self._was_closed = True
        super().close(timeout)

    def opt_out(self) -> None:
        """Take and send nothing until `opt_in`; waiting events go on waiting."""
        super().opt_out()
        if self.logs is not None:
            self.logs.opt_out()

    def opt_in(self) -> None:
        """Take and send again."""
        super().opt_in()
        if self.logs is not None:
            self.logs.opt_in()

    def _emit_from_message(self, record: logging.LogRecord) -> None:
        """Queue the event in the message of *record*, if that is a typed event or an entry."""
        try:
            found = fields_in_message(record)
            if found is not None:
                self._take(found.fields, record.created, bound_of(record), found.name)
        except faults() as error:
            self.refuse("internal_error", type(error).__name__)

    def _observed(self, message: Message) -> bool:
        """Show *message* to the observers; return whether it may be sent."""
        if not _observing.is_inside():
            _observing.run(_show, message)
        if self._silenced == "no_api_key":
            self._ledger.refuse("no_api_key", warn=False)
        return not self._opted_out


def _show(message: Message) -> None:
    for observer in _observers:
        with suppress(Exception):  # an observer's error loses no event
            observer(message)


def _make_encoder(options: EventOptions, ledger: Ledger) -> Encoder:
    """Return the encoder, which knows the properties of every event."""
    own = {"$is_server": True, **without_owned(options.properties)}
    if options.disable_geoip:
        own.setdefault("$geoip_disable", True)
    if release := os.environ.get("POSTHOG_RELEASE_ID", "").strip():
        own.setdefault("$release_id", release)
    gate = Gate(
        ledger,
        options.scrub,
        options.pseudonymise,
        options.sample,
        options.person_rate,
        Watch() if options.plan else None,
    )
    return Encoder(
        options.dialect,
        ledger,
        defaults=own,
        owned=_OWNED,
        flat=options.flat,
        hooks=options.before_send,
        gate=gate,
    )


def _make_reporter(
    take: Callable[..., str | None],
    refuse: Callable[..., None],
    is_off: Callable[..., bool | None],
    options: EventOptions,
) -> Reporter:
    if options.exception_messages and options.exceptions is None:
        raise ValueError("exception_messages: needs exceptions=True, or exceptions= a level")
    return Reporter(
        take,
        refuse,
        is_off,
        options.exceptions,
        options.exception_rate,
        messages=options.exception_messages,
        steps=options.exception_steps,
        in_app=in_app_rule(options.in_app_include, options.in_app_exclude),
        variables=options.exception_variables,
    )


def _may_be_event(message: Any) -> bool:
    """Return whether a message that is not a str may be structlog's entry or a typed event."""
    return isinstance(message, dict) or declaration_of(message) is not None


def _put_on_disk(pipeline: Pipeline, encoder: Encoder, ledger: Ledger, draft: Draft) -> bool:
    """Encode *draft* and put it into the spool now, in the caller's thread."""
    try:
        return pipeline.put(encoder.line(draft))
    except Refused as refused:
        ledger.refuse(refused.reason, refused.detail)
    except faults() as error:
        ledger.refuse("internal_error", type(error).__name__)
    return False


def _weakly(method: Callable[..., _Result]) -> Callable[..., _Result | None]:
    """
    Return a function that calls *method*, or returns None once its object is gone.

    It does not keep the object alive: a handler closes when its last reference is dropped, not
    at the next garbage collection.
    """
    find = weakref.WeakMethod(method)

    def call(*args: Any) -> _Result | None:
        found = find()
        return None if found is None else found(*args)

    return call


def _to_broker(name: str, url: str | None, timeout: float) -> dict[str, Any]:
    """Return the options that send to the broker at *url*, given as *name*; none without one."""
    if url is None:
        return {}
    from .broker.transport import broker_transport  # only needed with a broker

    transport = broker_transport(url, checks.seconds("timeout", timeout), name)
    dialect = transport.dialect
    return {
        "transport": transport,
        "dialect": dialect,
        "host": dialect.default_host,
        "api_key": dialect.name,  # not sent: the relay has the key, but there must be one
    }


def _make_logs(
    given: Any, options: EventOptions, api_key: str | None, host: str | None
) -> PostHogLogsHandler | None:
    """
    Return the handler for PostHog Logs, with those of *options* that are not *given*; or None.

    Args:
        api_key, host: the handler's arguments, which beside a broker are for logs alone.
    """
    if isinstance(given, Mapping):
        own = dict(given)
        known = inspect.signature(PostHogLogsHandler).parameters
        if unknown := [name for name in own if name not in known]:
            raise ValueError(f"logs: {unknown[0]!r} is no option; there are {', '.join(known)}")
    else:
        own = {"level": checks.threshold("logs", given, "True, False, a level or a mapping")}
    if own.get("level", 0) is None or not checks.api_key(own.get("api_key", options.api_key)):
        return None
    shared = {name: getattr(options, name) for name in _SHARED_WITH_LOGS}
    packed = options.compression and "gzip"  # the only coding that the service takes
    if options.broker is not None:
        shared.update(api_key=api_key, host=host, transport=None)
        made = PostHogLogsHandler(**{**shared, "compression": packed, **own})
        made.takes = "logs, which do not go through the broker,"
        return made
    if "api_key" not in own and not options.dialect.name.startswith("posthog"):
        raise ValueError(
            "logs: must be a mapping with the api_key, perhaps the host, of a PostHog project: "
            f"the handler's own are for {options.dialect.name}"
        )
    return PostHogLogsHandler(**{**shared, "compression": packed, **own})


# The options that `logs=` takes from the handler of events.
_SHARED_WITH_LOGS = (
    "scrub",
    "pseudonymise",
    "api_key",
    "host",
    "timeout",
    "shutdown_timeout",
    "headers",
    "proxies",
    "verify",
    "cert",
    "auth",
    "session",
    "sync_mode",
    "send",
    "debug",
    "transport",
)
