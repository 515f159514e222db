"""
`PostHogLogsHandler`: sends ordinary log records to PostHog Logs.

Each record passes the checks of PostHog's sdk-specs ``logs`` in order: not opted out, not blank,
``before_send``, the rate cap. Records that fail one are counted; nothing is raised.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from .context import Bound
from .delivery import checks
from .delivery.clock import monotonic
from .delivery.handler import DeliveryHandler
from .delivery.ledger import Ledger
from .delivery.losses import bound_of
from .delivery.options import Options
from .delivery.own_log import is_ours, logger
from .delivery.sender import OnError
from .delivery.spool import Spool
from .delivery.transport import Transport
from .errors.limits import Bucket
from .errors.masking import keep_secret
from .errors.reporter import fields_and_message
from .errors.tracebacks import raised_in, traceback_in
from .events.exc_info import normalise_exc_info
from .events.faults import faults
from .events.identifiers import clean_id, stamp
from .events.levels import level_of
from .events.message import Message, Refused
from .events.pseudonyms import Key, Pseudonyms
from .events.records import is_basic_config
from .events.reentry import Guard
from .events.scrub import Decide, Scrubber
from .events.span import active_span
from .wire.otlp import LOGS, LogsDialect


__all__ = ["PostHogLogsHandler"]

BeforeSend = Callable[["dict[str, Any]"], "dict[str, Any] | None"]

# Keys of ``extra`` that do not become attributes.
_NO_ATTRIBUTES = frozenset({"distinct_id", "properties", "timestamp", "uuid"})
# Reasons that are counted without a warning, which would be one more log record.
_UNWARNED = frozenset({"blank_log", "before_send", "before_send_failed", "rate_limited"})


class PostHogLogsHandler(DeliveryHandler):
    """
    Send every log record to PostHog Logs.

    The body is the message, or the output of the formatter. Attributes are the extras, the
    properties bound in the context, the place of the log call (``code.*``), the exception
    (``exception.*``) and the ids of OpenTelemetry's active span. The library's own records, and
    those of its requests, are never sent, so the handler can be added to the root logger.

    It has its own queue and thread. Without a *spool* nothing waits on disk.

    Example::

        logging.getLogger().addHandler(PostHogLogsHandler(service_name="cinema"))
        logging.getLogger("cinema.heating").warning("hall %d is cold", 3)

    Args:
        api_key, host: as in `PostHogHandler`.
        level: the lowest level of the records that it takes.
        service_name: the program's name.
        service_version: the program's version.
        environment: where the program runs, such as ``"production"``.
        resource_attributes: further attributes of the program, sent once in each request.
        token_in_url: whether the key is also in the URL, and so in access logs.
        before_send: a callable or a list of them, each given the record as a dict (``body``,
            ``level``, ``distinct_id``, ``attributes``) and returning it, changed or not. One
            that returns None or a blank body drops the record.
        scrub, pseudonymise: as in `PostHogHandler`; bodies are searched, too.
        fail_open: whether a record for which a hook raises is sent as the hook got it; False
            drops it.
        rate_cap: how many records are taken within *rate_window* seconds; 0: no limit.
        batch_size: how many records one request may hold.
        flush_at, flush_interval, max_queue_size, max_queue_bytes, overflow, block_timeout,
            spool, max_spool_bytes, fsync, max_retries, max_age, timeout, shutdown_timeout,
            compression, bisect, on_error, headers, proxies, verify, cert, auth, session,
            sync_mode, send, debug, transport: as in `PostHogHandler`, except that by default
            the oldest record is dropped when the queue is full.
    """

    takes = "logs"

    def __init__(
        self,
        api_key: str | None = None,
        host: str | None = None,
        *,
        level: int | str = logging.NOTSET,
        service_name: str = LOGS.service_name,
        service_version: str | None = None,
        environment: str | None = None,
        resource_attributes: Mapping[str, Any] | None = None,
        token_in_url: bool = LOGS.token_in_url,
        before_send: BeforeSend | Iterable[BeforeSend] | None = None,
        scrub: bool | Iterable[str] | Decide | Scrubber | None = True,
        pseudonymise: Mapping[str, Key] | tuple[Iterable[str], Key] | Pseudonyms | None = None,
        fail_open: bool = True,
        rate_cap: int = 10_000,
        rate_window: float = 10.0,
        batch_size: int = LOGS.limits.batch_count,
        flush_at: int = 100,
        flush_interval: float = 3.0,
        max_queue_size: int = 100_000,
        max_queue_bytes: int = 64 * 1024 * 1024,
        overflow: str = "drop_oldest",
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
        on_error: OnError | None = None,
        headers: Mapping[str, str] | None = None,
        proxies: dict[str, str] | None = None,
        verify: bool | str | None = None,
        cert: str | tuple[str, str] | None = None,
        auth: Any = None,
        session: Any = None,
        sync_mode: bool = False,
        send: bool = True,
        debug: bool = False,
        transport: Transport | None = None,
    ) -> None:
        self._hooks = checks.hooks("before_send", before_send)
        self._hooking, self._formatting = Guard(), Guard()
        pseudonyms = Pseudonyms.of(pseudonymise, keep_secret)
        self._for_person = pseudonyms.for_person if pseudonyms is not None else None
        self._scrubber = Scrubber.of(scrub, pseudonyms.rule if pseudonyms is not None else None)
        self._fails_open = checks.boolean("fail_open", fail_open)
        self._rate_cap = checks.whole("rate_cap", rate_cap, -(2**63))
        self._rate_window = min(checks.number("rate_window", rate_window), threading.TIMEOUT_MAX)
        capped = self._rate_cap > 0 and self._rate_window > 0
        self._bucket = (
            Bucket(self._rate_cap, self._rate_window, self._rate_cap) if capped else None
        )
        dialect = LogsDialect(
            service_name=service_name,
            service_version=service_version,
            environment=environment,
            resource_attributes=checks.mapping("resource_attributes", resource_attributes),
            token_in_url=checks.boolean("token_in_url", token_in_url),
            limits=replace(LOGS.limits, batch_count=checks.whole("batch_size", batch_size, 1)),
        )
        options = Options.of(locals(), historical_migration=False)
        super().__init__(level, options, Ledger())

    def handle(self, record: logging.LogRecord) -> Any:
        """Send *record*; filters run, the handler's lock is not taken."""
        if is_ours(record):
            return True
        if self._opted_out:
            self._take_nothing()
            return True
        passed = self._passes(record) if self.filters else record
        if passed is None:
            return False
        self.emit(passed)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Queue *record*; never raise, whatever it holds."""
        try:
            log = self._scrubbed(self._checked(self._read(record)))
            line = self._dialect.line(_message_of(log, record))
            if not self._sends:
                raise Refused("send_is_off")
            self._pipeline.put(line)
        except Refused as refused:
            self._ledger.refuse(refused.reason, warn=refused.reason not in _UNWARNED)
        except faults() as error:  # a log call never raises
            self._ledger.refuse("internal_error", type(error).__name__)

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 - the stdlib's
        """
        Set the formatter of the bodies.

        The format that `logging.basicConfig` sets on every handler without one is ignored: it
        is meant for a console.
        """
        if not is_basic_config(sys._getframe(1)):
            super().setFormatter(fmt)

    def _read(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return *record* as the dict that ``before_send`` gets."""
        fields, message = fields_and_message(record)
        bound = bound_of(record)
        given = fields.get("distinct_id")
        who = bound.distinct_id if given is None else given
        return {
            "body": self._body(record, message),
            "level": level_of(record),
            "distinct_id": clean_id(who, self._ledger.warn),
            "attributes": {**_surroundings(record, bound), **_extras(fields)},
        }

    def _body(self, record: logging.LogRecord, message: Any) -> str:
        if self.formatter is None or self._formatting.is_inside():
            return message if isinstance(message, str) else str(message)
        try:
            return self._formatting.run(self.format, record)
        except faults() as error:
            name = type(error).__name__
            self._ledger.warn(
                "formatter", f"the formatter raised {name}; the message is sent unformatted"
            )
            return str(message)

    def _checked(self, log: dict[str, Any]) -> dict[str, Any]:
        """Return *log* after the hooks; raises `Refused` if it fails a check."""
        if not log["body"].strip():
            raise Refused("blank_log")
        if self._hooks and not self._hooking.is_inside():
            log = self._hooking.run(reduce, self._hooked, self._hooks, log)
        number = self._bucket.take(monotonic()) if self._bucket else 0
        if number == 1:
            logger.warning(
                "more than %d log records in %g seconds: further ones are dropped, and counted as "
                "rate_limited. To do: raise rate_cap, or log less",
                self._rate_cap,
                self._rate_window,
            )
        if number:
            raise Refused("rate_limited")
        return log

    def _scrubbed(self, log: dict[str, Any]) -> dict[str, Any]:
        """Return *log* without secrets, and with pseudonyms."""
        if self._scrubber is None:
            return log
        body, in_body = self._scrubber.text(log["body"])
        attributes, in_attributes = self._scrubber.scrubbed(log["attributes"], prose=True)
        self._ledger.add("scrubbed", in_body + in_attributes)
        who = log["distinct_id"]
        if who is not None and self._for_person is not None:
            who = self._for_person(who)
        return {**log, "body": body, "attributes": attributes, "distinct_id": who}

    def _hooked(self, log: dict[str, Any], hook: BeforeSend) -> dict[str, Any]:
        """Return the result of *hook*, which gets a copy, as it may change it and then raise."""
        try:
            found = hook({**log, "attributes": dict(log["attributes"])})
            if found is not None:
                found = {**log, **found, "attributes": dict(found["attributes"])}
                blank = not found["body"].strip()
        except faults() as error:
            outcome = "is sent unchanged" if self._fails_open else "is dropped"
            text = f"before_send raised {type(error).__name__}; the record {outcome}"
            self._ledger.warn("before_send", text)
            if self._fails_open:
                return log
            raise Refused("before_send_failed", type(error).__name__) from None
        if found is None or blank:
            raise Refused("before_send")
        return found


def _surroundings(record: logging.LogRecord, bound: Bound) -> dict[str, Any]:
    """Return the attributes from the record and the context, which the caller's override."""
    return {
        **active_span(),
        **bound.properties,
        # The names are OpenTelemetry's, semantic conventions 1.33.
        "logger.name": record.name,
        "code.file.path": record.pathname,
        "code.function.name": record.funcName,
        "code.line.number": record.lineno,
        "code.stacktrace": record.stack_info,
        **_raised(record),
    }


def _extras(fields: Mapping[Any, Any]) -> dict[Any, Any]:
    own = fields.get("properties")
    found = {key: value for key, value in fields.items() if key not in _NO_ATTRIBUTES}
    if isinstance(own, Mapping):
        found.update(own)
    elif own is not None:
        found["properties"] = own
    return found


def _raised(record: logging.LogRecord) -> dict[str, str]:
    """Return OpenTelemetry's attributes of the exception in ``exc_info`` or in a traceback."""
    given = record.exc_info
    if not given and isinstance(record.msg, dict):
        given = record.msg.get("exc_info")
    found = normalise_exc_info(given) if given else None
    if found is not None:
        error, trace = found
        kind = error if isinstance(error, type) else type(error)
        return {
            "exception.type": _safely(_full_name, kind),
            "exception.message": _safely(str, error),
            "exception.stacktrace": _safely(_formatted, kind, error, trace),
        }
    text = traceback_in(record)
    if not text:
        return {}
    first = raised_in(text)[0]
    return {
        "exception.type": ".".join(filter(None, [first.module, first.type])),
        "exception.message": first.value,
        "exception.stacktrace": text,
    }


def _full_name(kind: type) -> str:
    name, module = kind.__qualname__, kind.__module__
    return name if module == "builtins" else f"{module}.{name}"


def _formatted(kind: type, error: Any, trace: Any) -> str:
    return "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")


def _safely(make: Callable[..., str], *args: Any) -> str:
    """Return ``make(*args)``; "" if that raises, as an exception's own methods may."""
    try:
        return make(*args)
    except Exception:
        return ""


def _message_of(log: Mapping[str, Any], record: logging.LogRecord) -> Message:
    properties = {**log["attributes"], "$severity": log["level"]}
    return Message(log["body"], log["distinct_id"] or "", properties, *stamp(record.created))
