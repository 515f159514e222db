"""
`DeliveryHandler`: a handler with a queue, a thread and a sender of its own, put together here.

What it makes of a log record is a subclass's affair, and so is every default.
"""

from __future__ import annotations

import logging
import os
import weakref

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from ..events.faults import faults
from ..wire import Dialect, family_of
from . import checks
from .exits import close_together
from .ledger import Ledger
from .options import Options, is_disabled
from .own_log import enable_debug
from .pipeline import Pipeline
from .sender import Sender
from .spool import MemorySpool, Spool
from .transport import RequestsTransport, diverted
from .waiting import in_thread


__all__ = ["DeliveryHandler", "Description"]

# For how long, in seconds, the thread sleeps after a first event. Each request costs the
# interpreter half a millisecond, in which a caller that wakes up has to wait.
_LINGER = 0.2


class Description(NamedTuple):
    """
    A handler, for those who look for what was lost.

    `silent` says why it takes nothing now, and `protocol` which dialect is spoken: where
    *dialect* is ``"posthog"``, the one that the host was found to know.
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
        finish: makes lines of the items that `Pipeline.accept` is given.
        on_open: is called before a thread starts.
    """

    #: What it takes, in the words of a warning.
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
        self._sender = Sender(
            _make_spool(options, ledger),
            options.dialect,
            options.endpoint,
            options.transport or _make_transport(options),
            ledger,
            options.settings,
            on_error=options.on_error,
        )
        self._pipeline = Pipeline(
            self._sender,
            ledger,
            finish,
            on_open,
            max_queue_size=options.max_queue_size,
            max_queue_bytes=options.max_queue_bytes,
            overflow=options.overflow,
            block_timeout=options.block_timeout,
            linger=min(_LINGER, options.flush_interval),
            shutdown_timeout=options.shutdown_timeout,
            synchronous=options.sync_mode,
        )
        if options.debug:
            enable_debug()
        self._debugs = options.debug
        #: Why nothing is taken, whatever `opt_in` says; "" where something is.
        self._silenced = _why_silent(options)
        self._opted_out = bool(self._silenced)
        # Last: a handler that `logging` knows is flushed and closed by it, so it must be whole.
        super().__init__(lowest)
        # A handler that nobody holds any more closes: it has a thread, files and connections.
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
        limit = self._pipeline.shutdown_timeout if timeout is None else timeout
        asked = [(one, one.begin_to_flush(limit)) for one in self._pipelines()]
        done = [one.end_flush(request) for one, request in asked]
        return all(done)

    async def aflush(self, timeout: float | None = None) -> bool:
        """Do as `flush` does, and let the event loop of asyncio or trio go on meanwhile."""
        return await in_thread(self.flush, timeout)

    def close(self, timeout: float | None = None) -> None:
        """
        Deliver what waits within ``shutdown_timeout``, give back files and connections.

        Idempotent. A record that comes later opens the handler again, as with
        `logging.FileHandler`: other people's logging configuration closes every handler.
        """
        limit = self._pipeline.shutdown_timeout if timeout is None else timeout
        close_together(self._pipelines(), limit)
        if self.name:  # else there is nothing to do that is worth logging's own lock: an
            super().close()  # interruption leaves that locked for ever, before 3.13

    @property
    def counts(self) -> Mapping[str, int]:
        """
        What became of what was taken in this process, by reason.

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
        """Return what it is and how it fares, without its key."""
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
        """Return what `flush` and `close` are for."""
        return (self._pipeline,)

    def _take_nothing(self) -> None:
        """Count, and warn once, that an event came although there is no key to send it with."""
        if self._silenced == "no_api_key":
            self._ledger.warn(
                "no_api_key",
                f"{self.takes} are not sent: there is no api_key, and neither"
                " POSTHOG_PROJECT_TOKEN nor POSTHOG_API_KEY is set. To do: set one, or"
                " POSTHOG_DISABLED=1 to send nothing on purpose",
            )
            self._ledger.refuse("no_api_key", warn=False)

    def _silence(self) -> str | None:
        """Return the reason why nothing is taken, or sent; None where both happen."""
        if self._silenced or self._opted_out:
            return self._silenced or "opted_out"
        return None if self._sends else "send_is_off"

    def _passes(self, record: logging.LogRecord) -> logging.LogRecord | None:
        """Return *record*, or what a filter made of it; None where a filter stops it."""
        try:
            passed: Any = self.filter(record)
        except faults() as error:
            self.refuse("filter_failed", type(error).__name__)
            return None
        # From Python 3.12 on a filter may replace the record.
        return passed if isinstance(passed, logging.LogRecord) else record if passed else None

    def refuse(self, reason: str, detail: str = "") -> None:
        """Count, and warn of, what could not even be built."""
        if not self._opted_out:
            self._ledger.refuse(reason, detail)

    def warn_once(self, topic: str, text: str) -> None:
        """Log *text*, once for each *topic*, about what was mended on the way to an event."""
        self._ledger.warn(topic, text)


def _why_silent(options: Options) -> str:
    if is_disabled():
        return "disabled"
    return "" if options.api_key else "no_api_key"


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
