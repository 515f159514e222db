"""
`PostHogHandler`: where logging calls in, and where all parts are put together.

A plain `logging.Handler` on purpose: from Python 3.12 on ``dictConfig`` builds every
`QueueHandler` in its own way, and 3.12.0 to 3.12.3 drop the arguments.
"""

from __future__ import annotations

import logging
import os
import sys
import time

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from . import context, extras
from .context import Bound
from .delivery import options
from .delivery.encoder import Draft, captured, drafted, finisher
from .delivery.handler import DeliveryHandler
from .delivery.own_records import is_ours, working
from .delivery.sender import DeliveryError, OnError
from .delivery.spool import Spool
from .delivery.transport import Transport
from .errors.exception_list import MANUAL, Boundary, without_owned
from .errors.reporter import ExceptHooks, Reporter
from .events import jsonable
from .events.message import Message, Refused, Tell, assemble, fields_of, is_event, text_of
from .events.records import Fields, fields_in_message
from .logs import PostHogLogsHandler
from .version import LIBRARY, VERSION
from .wire import Dialect, find_dialect


__all__ = ["DeliveryError", "PostHogHandler", "observe"]

BeforeSend = Callable[["dict[str, Any]"], "dict[str, Any] | None"]

_OWNED = {"$lib": LIBRARY, "$lib_version": VERSION}

Observer = Callable[[Message], None]

_observers: tuple[Observer, ...] = ()


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """
    Call *observer* with every `Message` that a handler of this process accepts meanwhile.

    In the caller's thread, after ``before_send``, also where there is no key to send with.
    """
    global _observers
    _observers += (observer,)
    try:
        yield
    finally:
        _observers = tuple(other for other in _observers if other is not observer)


class PostHogHandler(DeliveryHandler):
    """
    Send the log records that are events to PostHog, or to another endpoint of its kind.

    A record is an event if it carries ``distinct_id`` or ``event`` in its ``extra``; all
    others are left alone. The handler starts and stops its own thread, survives ``fork``
    and delivers at exit.

    Args:
        api_key: the project's key; ``POSTHOG_API_KEY`` where None. None at all: a no-op.
        host: the base URL; ``POSTHOG_HOST`` where None, else PostHog's US cloud.
        dialect: ``"posthog"``, ``"posthog-v1"``, ``"segment"``, … or one of your own.
        level: the least level that is handled.
        flush_at: how many events make a batch due.
        flush_interval: how old, in seconds, the oldest event may become before it is sent.
        max_queue_size: how many events may wait.
        max_queue_bytes: how many bytes of events may wait in memory.
        overflow: what gives way when that is reached: ``"drop_newest"``, ``"drop_oldest"``,
            or the caller, who is then blocked for at most *block_timeout* seconds.
        spool: a folder in which events wait on disk, so that they survive the process; or a
            `Spool` of your own. One folder is for one project.
        max_spool_bytes: how many bytes may wait there.
        fsync: when they are forced to the disk itself, against a power cut: ``"never"``,
            ``"interval"`` (once a second) or ``"always"`` (before the log call returns).
        max_retries: how often a batch is tried again; None keeps it until *max_age*.
        max_age: how old, in seconds, an event may become before it is given up; None: any.
        timeout: how long one attempt may take, in seconds.
        shutdown_timeout: how long `close` and the exit may take, in seconds.
        compression: ``"gzip"``, ``"deflate"``, ``"zstd"``, ``"br"`` or None.
        bisect: whether a batch that is refused as a whole is split to find the event at fault.
        before_send: a callable or a list of them, each given the event as a dict (``event``,
            ``distinct_id``, ``properties``, ``uuid``, ``timestamp``) and returning it, changed
            or not, or None to drop it. One that raises drops the event.
        on_error: called with a `DeliveryError` and the list of events that were lost.
        properties: properties of every event; the event's own override them.
        flat: whether other extras of the record become properties.
        disable_geoip: whether PostHog is told not to look up the server's own place.
        historical_migration: whether events are marked as imported history.
        headers: further HTTP headers.
        proxies, verify, cert, auth, session: as in ``requests``.
        exceptions: whether log calls with ``exc_info`` report it to error tracking, as an
            event beside whatever else they are; or the least level of those that do.
        exception_rate: how many exceptions of one type may go at once, and how many more a
            second; None: all of them.
        exception_hooks: whether what nobody catches is reported, in any thread.
        logs: whether every record goes to PostHog Logs, too; or the least level of those that
            do, or a mapping of options for the `PostHogLogsHandler` that takes them. What it
            does not name is as here.
        sync_mode: send in the caller's thread, for serverless.
        send: False builds and counts events and sends none.
        debug: set the library's own logger to DEBUG: names and sizes, never keys or payloads.
        transport: another `Transport`.
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
        logs: bool | int | str | Mapping[str, Any] = False,
        sync_mode: bool = False,
        send: bool = True,
        debug: bool = False,
        transport: Transport | None = None,
    ) -> None:
        found = find_dialect(dialect)
        self._hooks = options.hooks("before_send", before_send)
        self._flat = options.boolean("flat", flat)
        given = without_owned(options.mapping("properties", properties))
        self._defaults = {"$is_server": True, **given}
        if options.boolean("disable_geoip", disable_geoip):
            self._defaults.setdefault("$geoip_disable", True)
        self._finisher = finisher(found, {**self._defaults, **_OWNED}, self._long_way)
        self._short_way = send and not self._hooks and self._finisher is not None
        #: Makes events of exceptions; `capture_exception` is its front.
        self.reporter = Reporter(
            self._take,
            self.refuse,
            self._is_deaf,
            options.level("exceptions", exceptions),
            options.rate("exception_rate", exception_rate),
        )
        hooked = options.boolean("exception_hooks", exception_hooks)
        self._excepthooks: ExceptHooks | None = None
        delivery: dict[str, Any] = {
            "api_key": api_key,
            "host": host,
            "timeout": timeout,
            "shutdown_timeout": shutdown_timeout,
            "headers": headers,
            "proxies": proxies,
            "verify": verify,
            "cert": cert,
            "auth": auth,
            "session": session,
            "sync_mode": sync_mode,
            "send": send,
            "debug": debug,
            "transport": transport,
        }
        #: Takes records for PostHog Logs; None where they are not wanted.
        self.logs = _make_logs(logs, found, {**delivery, "compression": compression})
        # Whether any record may be more than it says: an exception, or a log.
        self._sees_every_record = self.logs is not None or self.reporter.level is not None
        self._quick = self._short_way and not self._sees_every_record
        try:
            super().__init__(
                level,
                found,
                flush_at=flush_at,
                flush_interval=flush_interval,
                max_queue_size=max_queue_size,
                max_queue_bytes=max_queue_bytes,
                overflow=overflow,
                block_timeout=block_timeout,
                spool=spool,
                max_spool_bytes=max_spool_bytes,
                fsync=fsync,
                max_retries=max_retries,
                max_age=max_age,
                compression=compression,
                bisect=bisect,
                on_error=on_error,
                historical_migration=historical_migration,
                **delivery,
            )
        except BaseException:
            if self.logs is not None:
                self.logs.close()
            raise
        if self._finisher is not None:
            self._pipeline.finish = self._finisher.finish_all
        # Without a disk the thread finishes drafts.
        self._leave = self._pipeline.accept if self._in_memory else self._leave_on_disk
        if hooked:
            self._excepthooks = ExceptHooks(self.reporter.capture)

    def handle(self, record: logging.LogRecord) -> Any:
        """
        Take *record* if it is an event; filters run, the handler's lock is not taken.

        (Under eight threads that lock turns 12 µs into 300: there is nothing here to guard.)
        """
        # Not by `__dict__`: a record without extras has none until somebody asks for it.
        if hasattr(record, "distinct_id") or hasattr(record, "event"):
            if record.thread in working or f"{record.name}"[:15] == "posthog_logging":
                return True  # ours, whatever stamps every record of the process
            if self._quick and not (self.filters or _observers or self._opted_out):
                draft = drafted(record, record.__dict__)
                if draft is not None:
                    self._leave(draft)
                    return True
        elif not self._sees_every_record and not hasattr(record, "extra"):
            text = record.msg
            # structlog's and loguru's forms of saying it are looked at; all else leaves here.
            if text[:1] != "{" if type(text) is str else not isinstance(text, dict):
                return True
        if self._sees_every_record:
            return self._handle_any(record)
        if self.filters:
            passed: Any = self.filter(record)
            if not passed:
                return passed
            if isinstance(passed, logging.LogRecord):  # Python 3.12: a filter may replace it
                record = passed
        self.emit(record)
        return True

    def _handle_any(self, record: logging.LogRecord) -> Any:
        """Take *record* as all that it is: an exception, a log, and perhaps an event."""
        passed: Any = self.filter(record)
        if not passed:
            return passed
        if isinstance(passed, logging.LogRecord):
            record = passed
        if not is_ours(record):
            self.reporter.record(record)
            if self.logs is not None and record.levelno >= self.logs.level:
                self.logs.handle(record)
        quick = self._short_way and not _observers and not self._opted_out and is_event(record)
        draft = drafted(record, record.__dict__) if quick else None
        if draft is not None:
            self._leave(draft)
        else:
            self.emit(record)
        return True

    def capture(self, distinct_id: Any, event: Any, properties: Any) -> str | None:
        """Take an event that is an id, a name and properties; as `accept`, and cheaper."""
        if (
            self._short_way
            and type(distinct_id) is str
            and type(event) is str
            and type(properties) is dict
            and not _observers
            and not self._opted_out
        ):
            draft = captured(distinct_id, event, properties)
            if draft is not None:
                return draft[3] if self._leave(draft) else None
        return self.accept(extras.capture(distinct_id, event, properties))

    def _leave_on_disk(self, draft: Draft) -> bool:
        """Finish *draft* here and put its line: it must not wait for the thread."""
        line = self._finisher.finish(draft) if self._finisher else None
        return line is not None and self._pipeline.put(line)

    def _long_way(self, draft: Draft) -> bytes | None:
        """Return the line of a draft that is not so plain; None where it is refused, counted."""
        created, name, distinct_id, uuid, rest = draft
        try:
            fields = {"distinct_id": distinct_id, "properties": jsonable.decode(b"{" + rest)}
            if uuid is not None:
                fields["uuid"] = uuid
            return self._dialect.line(self._message(fields, name, created))
        except Refused as refused:
            reason, detail = refused.reason, refused.detail
        except Exception as error:
            reason, detail = "internal_error", type(error).__name__
        if self._in_memory:  # the thread finishes it, and it was accepted before
            self._ledger.lose(reason, 1, detail)
        else:
            self._ledger.refuse(reason, detail)
        return None

    def emit(self, record: logging.LogRecord) -> None:
        """Send *record* as an event; whatever is in it, nothing is raised."""
        if not is_event(record):
            self._emit_shaped(record)
            return
        fields = fields_of(record)
        name = fields.get("event")
        self.accept(fields, text_of(record) if name is None else "", record.created)

    def preview(self, record: logging.LogRecord, tell: Tell) -> Message | None:
        """
        Return the event that `emit` would make of *record*, None where it is none.

        Raises `Refused` where it would be refused. The hooks run; nothing is sent or counted,
        and what is mended on the way is told to *tell*.
        """
        found: Fields | None
        if is_event(record):
            fields = fields_of(record)
            found = Fields(fields, text_of(record) if fields.get("event") is None else "")
        else:
            found = fields_in_message(record)
        if found is None:
            return None
        bound = context.current()
        message = self._message(found.fields, found.name, record.created, bound, tell)
        self._dialect.line(message)  # which refuses what is too large
        return message

    def accept(
        self, fields: Mapping[str, Any], name: str = "", created: float | None = None
    ) -> str | None:
        """
        Take one event that need not be a log record; return its uuid, None if it was refused.

        Args:
            fields: what a log call would take as ``extra``; see `posthog_logging.extras`.
            name: the event's name where *fields* has none.
            created: epoch seconds; now where None.
        """
        return self._take(fields, time.time() if created is None else created, name=name)

    def capture_exception(
        self,
        error: Any = None,
        boundary: Boundary = MANUAL,
        distinct_id: Any = None,
        properties: Mapping[str, Any] | None = None,
    ) -> str | None:
        """
        Report *error* to error tracking; return its event's uuid, None if it was refused.

        An exception is reported once, however many see it pass: then the uuid is the first
        report's. What is no exception is reported as one that says what it is.

        Args:
            error: the exception; the one that is being handled where None.
            boundary: where it was caught; see `posthog_logging.errors.exception_list`.
            distinct_id: whom it happened to; who is bound in the context where None.
            properties: further properties of the event.
        """
        return self.reporter.capture(
            sys.exc_info()[1] if error is None else error, boundary, distinct_id, properties
        )

    def _is_deaf(self) -> bool:
        """Return whether nothing is taken, nor shown to anybody."""
        return self._opted_out and (self._sender.has_key or not _observers)

    def _take(
        self,
        fields: Mapping[str, Any],
        created: float,
        bound: Bound | None = None,
        name: str = "",
    ) -> str | None:
        """Take one event; where *bound* is None, that of the context holds."""
        if self._is_deaf():
            return None
        try:
            message = self._message(fields, name, created, bound or context.current())
            if _observers and not self._observed(message):
                return None
            line = self._dialect.line(message)
            if not self._sends:
                raise Refused("send_is_off")
            return message.uuid if self._pipeline.put(line) else None
        except Refused as refused:
            self._ledger.refuse(refused.reason, refused.detail)
        except Exception as error:  # a log call never raises, whatever is wrong with it or us
            self._ledger.refuse("internal_error", type(error).__name__)
        return None

    def _message(
        self,
        fields: Mapping[str, Any],
        name: str,
        created: float,
        bound: Bound | None = None,
        tell: Tell | None = None,
    ) -> Message:
        """Return the message that *fields* amounts to, after the hooks."""
        tell = tell or self._ledger.tell
        message = assemble(
            fields,
            name,
            created,
            bound=bound,
            defaults=self._defaults,
            owned=_OWNED,
            flat=self._flat,
            tell=tell,
        )
        return self._hooked(message, tell) if self._hooks else message

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 - the stdlib's
        """Set what makes the bodies of logs; events need no formatter."""
        super().setFormatter(fmt)
        if self.logs is not None:
            self.logs.setFormatter(fmt)

    def flush(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """
        Make one attempt now for everything that waits, logs too, also during back-off.

        Returns True when nothing is left. Waits for *timeout* seconds at most,
        ``shutdown_timeout`` where None. Never raises; what failed is tried again later.
        """
        limit = self._pipeline.shutdown_timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        done = super().flush(limit)
        if self.logs is None:
            return done
        return self.logs.flush(max(0.0, deadline - time.monotonic())) and done

    def close(self, timeout: float | None = None) -> None:
        """Take nothing more, deliver what waits within ``shutdown_timeout``. Idempotent."""
        if self._excepthooks is not None:
            self._excepthooks.remove()
        limit = self._pipeline.shutdown_timeout if timeout is None else timeout
        deadline = time.monotonic() + limit
        super().close(limit)
        if self.logs is not None:
            self.logs.close(max(0.0, deadline - time.monotonic()))

    def opt_out(self) -> None:
        """Take and send nothing until `opt_in`; what waits goes on waiting."""
        super().opt_out()
        if self.logs is not None:
            self.logs.opt_out()

    def opt_in(self) -> None:
        """Take and send again."""
        super().opt_in()
        if self.logs is not None:
            self.logs.opt_in()

    def _emit_shaped(self, record: logging.LogRecord) -> None:
        """Send what *record* says in its message, if it says anything to us."""
        try:
            found = fields_in_message(record)
            if found is not None:
                self.accept(*found, record.created)
        except Exception as error:
            self.refuse("internal_error", type(error).__name__)

    def _observed(self, message: Message) -> bool:
        """Show *message* to the observers; return whether it is sent: without a key it is not."""
        for observer in _observers:
            with suppress(Exception):  # it looks on; an event is not lost by that
                observer(message)
        if self._opted_out:
            self._ledger.refuse("no_api_key", tell=False)
        return not self._opted_out

    def _hooked(self, message: Message, tell: Tell) -> Message:
        """Run ``before_send``; one that raises or returns rubbish drops the event: fail closed."""
        event: Any = message._asdict()
        for hook in self._hooks:
            try:
                event = hook(event)
                if event is None:
                    raise Refused("before_send")
                message = _checked(event, message)
            except Refused:
                raise
            except Exception as error:
                tell("before_send", f"before_send failed: {type(error).__name__}")
                raise Refused("before_send_failed", type(error).__name__) from None
        return message


def _make_logs(
    logs: bool | int | str | Mapping[str, Any], dialect: Dialect, delivery: Mapping[str, Any]
) -> PostHogLogsHandler | None:
    """Return what takes records for PostHog Logs, with *delivery* where *logs* does not say."""
    given = dict(logs) if isinstance(logs, Mapping) else {"level": options.level("logs", logs)}
    if given.get("level", 0) is None or not options.api_key(
        given.get("api_key", delivery["api_key"])
    ):
        return None
    if "api_key" not in given and not dialect.name.startswith("posthog"):
        raise ValueError("logs: a mapping with PostHog's own api_key, and perhaps its host")
    packed = delivery["compression"] and "gzip"  # the only one that the service takes
    return PostHogLogsHandler(**{**delivery, "compression": packed, **given})


def _checked(event: Any, before: Message) -> Message:
    """Return what a hook made of the event; raises for what is none. Its ids stay."""
    name, distinct_id, properties = event["event"], event["distinct_id"], event["properties"]
    if not (isinstance(name, str) and name and isinstance(distinct_id, str) and distinct_id):
        raise TypeError("an event has a name and a distinct_id")
    return Message(name, distinct_id, dict(properties), before.uuid, before.timestamp)
