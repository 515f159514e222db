"""
`DeliveryHandler`: a handler with its own queue, thread and sender, which are put together here.

Its subclasses decide what becomes of a log record, and have the defaults.
"""

from __future__ import annotations

import logging
import os
import sys
import weakref

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ..events.faults import faults
from ..events.reentry import Guard
from ..wire import Dialect, family_of
from . import checks
from .exits import close_together, left_of_shutdown, shutdown_of
from .ledger import Ledger
from .options import Options, is_disabled
from .own_log import enable_debug
from .pipeline import Pipeline
from .sender import Sender
from .spool import MemorySpool, Spool
from .transport import RequestsTransport, diverted
from .waiting import in_thread


__all__ = ["DeliveryHandler", "Description"]


class Description(NamedTuple):
    """
    A handler's state, for ``explain``.

    `silent` is why it takes nothing now; None if it does. `protocol` is the dialect that is
    spoken: for ``"posthog"``, the one that the host turned out to know.
    """

    kind: str
    dialect: Dialect
    host: str
    level: int
    silent: str | None
    counts: Mapping[str, int]
    protocol: str = ""


class DeliveryHandler(logging.Handler):
    """
    Deliver lines.

    Args:
        level: the lowest level that is handled.
        options: how to deliver.
        ledger: counts what becomes of each line.
        finish: makes lines of the items that `Pipeline.accept` gets.
        on_open: called before the thread starts.
    """

    #: What it takes, for a warning.
    takes = "events"

    def __init__(
        self,
        level: int | str,
        options: Options,
        ledger: Ledger,
        finish: Callable[[list[Any]], list[bytes]] = list,
        on_open: Callable[[], object] = lambda: None,
    ) -> None:
        lowest = checks.level("level", level)
        self._dialect = options.dialect
        self._ledger = ledger
        self._sends = options.send
        self._in_memory = options.spool is None
        self._sender = _make_sender(options, ledger)
        self._pipeline = Pipeline(
            self._sender,
            ledger,
            finish,
            on_open,
            max_queue_size=options.max_queue_size,
            max_queue_bytes=options.max_queue_bytes,
            overflow=options.overflow,
            block_timeout=options.block_timeout,
            linger=options.linger,
            shutdown_timeout=options.shutdown_timeout,
            synchronous=options.sync_mode,
        )
        if options.debug:
            enable_debug()
        self._debugs = options.debug
        #: Why nothing is taken, whatever `opt_in` says; "" where something is.
        self._silenced = _why_silent(options)
        self._opted_out = bool(self._silenced)
        self._filtering = Guard()
        # Last, as `logging` flushes and closes every handler that it knows.
        super().__init__(lowest)
        # A handler that nothing refers to any more closes: it has a thread, files and connections.
        weakref.finalize(self, self._pipeline.leave_to_close).atexit = False
        if not self._in_memory and not self._silenced:
            self._pipeline.open()

    def __repr__(self) -> str:
        level = logging.getLevelName(self.level)
        silence, spoken = self._silence(), self._sender.protocol
        names = [self._dialect.name, *([spoken] if spoken != self._dialect.name else [])]
        return (
            f"<{type(self).__name__} {' as '.join(names)} {self._sender.host} ({level})"
            f"{f' takes nothing: {silence}' if silence else ''}>"
        )

    def flush(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """
        Make one attempt now for everything that waits, also during back-off.

        Returns True when nothing is left. Waits for *timeout* seconds at most,
        ``shutdown_timeout`` where None. Never raises; what failed is tried again later.
        """
        limit = self._limit() if timeout is None else timeout
        asked = [(one, one.begin_to_flush(limit)) for one in self._pipelines()]
        done = [one.end_flush(request) for one, request in asked]
        return all(done)

    async def aflush(self, timeout: float | None = None) -> bool:
        """Flush as `flush` does, while the event loop of asyncio or trio goes on."""
        return await in_thread(self.flush, timeout)

    def close(self, timeout: float | None = None) -> None:
        """
        Deliver what waits, and close files and connections.

        Waits for *timeout* seconds at most, ``shutdown_timeout`` where None. Idempotent. A later
        record opens the handler again, as it does a `logging.FileHandler`: logging configuration
        by others closes every handler.
        """
        limit = self._limit() if timeout is None else timeout
        close_together(self._pipelines(), limit)
        # Only a handler with a name has to be forgotten by `logging`, under its lock, which an
        # interruption leaves locked for ever before Python 3.13.
        if self.name:
            super().close()

    @property
    def counts(self) -> Mapping[str, int]:
        """
        What became of everything that this process accepted, by reason.

        ``accepted`` is always the sum of ``delivered``, ``waiting`` and every loss, where a
        loss is any key but those three, ``adopted``, ``retried`` and ``scrubbed``.
        """
        return self._ledger.counts

    def opt_out(self) -> None:
        """Take and send nothing until `opt_in`; what waits goes on waiting."""
        self._opted_out = self._sender.held = True

    def opt_in(self) -> None:
        """Take and send again."""
        self._opted_out = bool(self._silenced)
        self._sender.held = False
        if not self._opted_out:
            self._pipeline.open()  # the thread may be asleep with nothing to wait for

    @property
    def sends(self) -> bool:
        """Whether there is a key, and nothing switched sending off."""
        return self._sends and not self._silenced

    def is_opted_out(self) -> bool:
        """Return whether nothing is taken nor sent."""
        return self._opted_out

    def describe(self) -> Description:
        """Return the handler's state, without its key."""
        return Description(
            type(self).__name__,
            self._dialect,
            self._sender.host,
            self.level,
            self._silence(),
            self.counts,
            self._sender.protocol,
        )

    def _pipelines(self) -> tuple[Pipeline, ...]:
        """Return the pipelines to flush and close."""
        return (self._pipeline,)

    def _limit(self) -> float:
        """Return how long a flush or a close may take that was given no limit, in seconds."""
        limit = self._pipeline.shutdown_timeout
        shutdown = shutdown_of(sys._getframe())
        return limit if shutdown is None else left_of_shutdown(shutdown, limit)

    def _take_nothing(self) -> None:
        """Count an event for which there is no key, and warn once."""
        if self._silenced == "no_api_key":
            self._ledger.warn(
                "no_api_key",
                f"{self.takes} are not sent: there is no api_key, and neither"
                " POSTHOG_PROJECT_TOKEN nor POSTHOG_API_KEY is set. To do: set one, or"
                " POSTHOG_DISABLED=1 to send nothing on purpose",
            )
            self._ledger.refuse("no_api_key", warn=False)

    def _silence(self) -> str | None:
        """Return why nothing is taken or sent; None if both happen."""
        if self._silenced or self._opted_out:
            return self._silenced or "opted_out"
        return None if self._sends else "send_is_off"

    def _passes(self, record: logging.LogRecord) -> logging.LogRecord | None:
        """Return *record*, or what a filter made of it; None if a filter stops it."""
        if self._filtering.is_inside():  # a filter logged it
            return record
        try:
            passed: Any = self._filtering.run(self.filter, record)
        except faults() as error:
            self.refuse("filter_failed", type(error).__name__)
            return None
        # From Python 3.12 on a filter may replace the record.
        return passed if isinstance(passed, logging.LogRecord) else record if passed else None

    def refuse(self, reason: str, detail: str = "") -> None:
        """Count what did not become an event, and warn about it."""
        if not self._opted_out:
            self._ledger.refuse(reason, detail)

    def warn_once(self, topic: str, text: str) -> None:
        """Log *text*, once for each *topic*, about what was mended in an event."""
        self._ledger.warn(topic, text)


def _why_silent(options: Options) -> str:
    if is_disabled():
        return "disabled"
    return "" if options.api_key else "no_api_key"


def _make_sender(options: Options, ledger: Ledger) -> Sender:
    return Sender(
        _make_spool(options, ledger),
        options.dialect,
        options.endpoint,
        options.transport or _make_transport(options),
        ledger,
        options.settings,
        on_error=options.on_error,
    )


def _make_transport(options: Options) -> RequestsTransport:
    return RequestsTransport(
        proxies=options.proxies,
        verify=options.verify,
        cert=options.cert,
        auth=options.auth,
        session=options.session,
    )


def _make_spool(options: Options, ledger: Ledger) -> Spool:
    given = options.spool
    if given is None:
        return MemorySpool()
    if not isinstance(given, (str, os.PathLike)):
        return checks.spool(given)
    if diverted(options.host) is not None:
        return MemorySpool()  # what other processes left in the folder is not a test's to lose
    from .journal import JournalSpool  # needs flock, which Windows has not

    return JournalSpool(
        given,
        dialect=family_of(options.dialect),
        host=options.host,
        max_bytes=options.max_spool_bytes,
        drop_oldest=options.overflow == "drop_oldest",
        fsync=options.fsync,
        warn=ledger.warn,
        lose=ledger.lose,
        refuse=ledger.refuse,
        duplicate=partial(ledger.add, "duplicates"),
    )
