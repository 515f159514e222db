"""
`DeliveryHandler`: a handler with a queue, a thread and a sender of its own, put together here.

What it makes of a log record is a subclass's affair, and so is every default.
"""

from __future__ import annotations

import logging
import os

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..wire import Dialect, Endpoint
from . import options
from .ledger import Ledger, logger
from .pipeline import Pipeline
from .sender import OnError, Sender, Settings
from .spool import MemorySpool, Spool
from .transport import RequestsTransport, Transport, diverted


__all__ = ["DeliveryHandler", "Description"]

# For how long, in seconds, the thread sleeps after a first event. Each request costs the
# interpreter half a millisecond, in which a caller that wakes up has to wait.
_LINGER = 0.2

_OVERFLOWS = ("drop_newest", "drop_oldest", "block")


class Description(NamedTuple):
    """A handler, to those who look for what was lost; `silent` says why it takes nothing now."""

    kind: str
    dialect: Dialect
    host: str
    level: int
    silent: str | None
    counts: Mapping[str, int]


class DeliveryHandler(logging.Handler):
    """Deliver lines of *dialect*; the options are those of `PostHogHandler`."""

    #: What it takes, in the words of a warning.
    takes = "events"

    def __init__(
        self,
        level: int | str,
        dialect: Dialect,
        *,
        api_key: str | None,
        host: str | None,
        flush_at: int,
        flush_interval: float,
        max_queue_size: int,
        max_queue_bytes: int,
        overflow: str,
        block_timeout: float,
        spool: str | os.PathLike[str] | Spool | None,
        max_spool_bytes: int,
        fsync: str,
        max_retries: int | None,
        max_age: float | None,
        timeout: float,
        shutdown_timeout: float,
        compression: str | None,
        bisect: bool,
        on_error: OnError | None,
        historical_migration: bool,
        headers: Mapping[str, str] | None,
        proxies: dict[str, str] | None,
        verify: bool | str | None,
        cert: str | tuple[str, str] | None,
        auth: Any,
        session: Any,
        sync_mode: bool,
        send: bool,
        debug: bool,
        transport: Transport | None,
    ) -> None:
        self._dialect = dialect
        self._sends = options.boolean("send", send)
        self._ledger = Ledger()
        self._opted_out = False
        if options.boolean("debug", debug):
            logger.setLevel(logging.DEBUG)
        settings = Settings(
            flush_at=options.whole("flush_at", flush_at, 1),
            flush_interval=options.seconds("flush_interval", flush_interval),
            max_retries=(
                None if max_retries is None else options.whole("max_retries", max_retries, 0)
            ),
            max_age=None if max_age is None else options.seconds("max_age", max_age),
            timeout=options.seconds("timeout", timeout),
            bisect=options.boolean("bisect", bisect),
        )
        key = options.api_key(api_key)
        url = options.host(host, dialect.default_host)
        endpoint = Endpoint(
            dialect.ingestion_host(url, key),
            key,
            options.coding(compression, dialect),
            options.headers(headers),
            options.boolean("historical_migration", historical_migration),
        )
        if transport is None:
            transport = RequestsTransport(
                proxies=proxies, verify=verify, cert=cert, auth=auth, session=session
            )
        room = options.whole("max_spool_bytes", max_spool_bytes, 1)
        sync = options.one_of("fsync", fsync, ("never", "interval", "always"))
        self._sender = Sender(
            self._make_spool(spool, endpoint.host, room, sync, overflow),
            dialect,
            endpoint,
            transport,
            self._ledger,
            settings,
            on_error=next(iter(options.hooks("on_error", on_error)), None),
        )
        self._pipeline = Pipeline(
            self._sender,
            self._ledger,
            max_queue_size=options.whole("max_queue_size", max_queue_size, 1),
            max_queue_bytes=options.whole("max_queue_bytes", max_queue_bytes, 1),
            overflow=options.one_of("overflow", overflow, _OVERFLOWS),
            block_timeout=options.seconds("block_timeout", block_timeout),
            linger=min(_LINGER, settings.flush_interval),
            shutdown_timeout=options.seconds("shutdown_timeout", shutdown_timeout),
            synchronous=options.boolean("sync_mode", sync_mode),
        )
        self._in_memory = spool is None
        # Last: a handler that `logging` knows is flushed and closed by it, so it must be whole.
        super().__init__(level)
        if not endpoint.api_key:
            self._opted_out = True
            logger.warning("no api_key, and no POSTHOG_API_KEY: %s are not taken", self.takes)
        elif spool is not None:
            self._pipeline.open()

    def _make_spool(
        self, spool: Any, host: str, max_bytes: int, fsync: str, overflow: str
    ) -> Spool:
        if spool is None:
            return MemorySpool()
        if not isinstance(spool, (str, os.PathLike)):
            return options.spool(spool)
        if diverted(host) is not None:
            return MemorySpool()  # what other processes left in the folder is not a test's to lose
        from .journal import JournalSpool  # needs flock, which Windows has not

        return JournalSpool(
            spool,
            dialect=self._dialect.name,
            host=host,
            max_bytes=max_bytes,
            drop_oldest=overflow == "drop_oldest",
            fsync=fsync,
            tell=self._ledger.tell,
            lose=self._ledger.lose,
            refuse=self._ledger.refuse,
            adopt=self._ledger.adopt,
        )

    def __repr__(self) -> str:
        level = logging.getLevelName(self.level)
        return f"<{type(self).__name__} {self._dialect.name} {self._sender.host} ({level})>"

    def flush(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        """
        Make one attempt now for everything that waits, also during back-off.

        Returns True when nothing is left. Waits for *timeout* seconds at most,
        ``shutdown_timeout`` where None. Never raises; what failed is tried again later.
        """
        limit = self._pipeline.shutdown_timeout if timeout is None else timeout
        return self._pipeline.flush(limit)

    def close(self, timeout: float | None = None) -> None:
        """Take nothing more, deliver what waits within ``shutdown_timeout``. Idempotent."""
        self._pipeline.close(timeout)
        if self.name:  # else there is nothing to do that is worth logging's own lock: an
            super().close()  # interrupt leaves that locked for ever, before 3.13

    @property
    def counts(self) -> Mapping[str, int]:
        """
        What became of what was taken in this process, by reason.

        ``accepted`` is always the sum of ``delivered``, ``waiting`` and every loss, where a
        loss is any key but those three, ``adopted`` and ``retried``.
        """
        return self._ledger.counts

    def opt_out(self) -> None:
        """Take and send nothing until `opt_in`; what waits goes on waiting."""
        self._opted_out = self._sender.held = True

    def opt_in(self) -> None:
        """Take and send again."""
        self._opted_out = not self._sender.has_key
        self._sender.held = False
        if not self._opted_out:
            self._pipeline.open()  # the thread may be asleep with nothing to wait for

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
        )

    def _silence(self) -> str | None:
        states = {
            "closed": self._pipeline.closed,
            "no_api_key": not self._sender.has_key,
            "opted_out": self._opted_out,
            "send_is_off": not self._sends,
        }
        return next((name for name, holds in states.items() if holds), None)

    def refuse(self, reason: str, detail: str = "") -> None:
        """Count, and tell of, what could not even be built."""
        if not self._opted_out:
            self._ledger.refuse(reason, detail)
