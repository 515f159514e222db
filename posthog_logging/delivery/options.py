"""
Every option of a handler: its name, its type and its check.

Defaults are in the signatures of the handlers, and meanings in their docstrings, as readers and
editors look there.
"""

from __future__ import annotations

import os

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors.masking import keep_secret
from ..events.pseudonyms import Pseudonyms
from ..events.sampling import Ceiling, Sampler
from ..events.scrub import Scrubber, names_secret
from ..wire import Dialect, Endpoint, find_dialect
from ..wire.posthog import refuse_authorization
from . import checks
from .room import OVERFLOWS
from .sender import OnError, Settings
from .spool import Spool
from .transport import Transport


__all__ = ["EventOptions", "Options", "is_disabled"]

_Options = TypeVar("_Options", bound="Options")

# Each request takes the interpreter half a millisecond, for which a caller that wakes up must
# wait: so there are few, and large ones.
_LONGEST_LINGER = 0.5

_FSYNC = ("never", "interval", "always")
_YES = frozenset({"1", "true", "yes", "on"})


def _checked(check: Callable[..., Any] | None = None, *more: Any) -> Any:
    """Return a field whose value is replaced by *check* of its name, the value and *more*."""
    return field(metadata={"check": check, "more": more}, repr=False)


@dataclass(frozen=True, kw_only=True)
class Options:
    """
    The options of delivery; raises ``TypeError`` or ``ValueError`` for a wrong value.

    An error names the option, the kind of value that was given, and what is allowed.
    """

    dialect: Dialect = _checked(lambda name, value: find_dialect(value))
    api_key: str = _checked(lambda name, value: checks.api_key(value))
    host: str = _checked()
    flush_at: int = _checked(checks.whole, 1)
    flush_interval: float = _checked(checks.seconds)
    max_queue_size: int = _checked(checks.whole, 1)
    max_queue_bytes: int = _checked(checks.whole, 1)
    overflow: str = _checked(checks.one_of, OVERFLOWS)
    block_timeout: float = _checked(checks.seconds)
    spool: str | os.PathLike[str] | Spool | None = _checked(
        lambda name, value: value if _is_folder(value) else checks.spool(value)
    )
    max_spool_bytes: int = _checked(checks.whole, 1)
    fsync: str = _checked(checks.one_of, _FSYNC)
    max_retries: int | None = _checked(checks.optional, checks.whole, 0)
    max_age: float | None = _checked(checks.optional, checks.seconds)
    timeout: float = _checked(checks.seconds)
    shutdown_timeout: float = _checked(checks.seconds)
    compression: str | None = _checked()
    bisect: bool = _checked(checks.boolean)
    on_error: OnError | None = _checked(checks.hook)
    historical_migration: bool = _checked(checks.boolean)
    headers: Mapping[str, str] = _checked(lambda name, value: checks.headers(value))
    proxies: dict[str, str] | None = _checked(checks.proxies)
    verify: bool | str | None = _checked(checks.trust)
    cert: str | tuple[str, str] | None = _checked(checks.certificate)
    auth: Any = _checked()
    session: Any = _checked(checks.having, "send")
    sync_mode: bool = _checked(checks.boolean)
    send: bool = _checked(checks.boolean)
    debug: bool = _checked(checks.boolean)
    transport: Transport | None = _checked(checks.having, "send")

    @classmethod
    def of(cls: type[_Options], arguments: Mapping[str, Any], **more: Any) -> _Options:
        """Return the options among the *arguments* of a constructor, and *more*."""
        return cls(**{one.name: {**arguments, **more}[one.name] for one in fields(cls)})

    def __post_init__(self) -> None:
        for one in fields(self):
            check = one.metadata["check"]
            if check is not None:
                value = check(one.name, getattr(self, one.name), *one.metadata["more"])
                object.__setattr__(self, one.name, value)
        # What these may be depends on the dialect.
        url = checks.host(self.host, self.dialect.default_host)
        object.__setattr__(self, "host", self.dialect.ingestion_host(url, self.api_key))
        refuse_authorization(self.dialect, self.headers, self.auth, self.session)
        coding = checks.coding(self.compression, self.dialect)
        object.__setattr__(self, "compression", coding)
        keep_secret(*self._secrets())

    def _secrets(self) -> Iterator[str]:
        """Yield the keys and passwords, which a source line may show."""
        if self.api_key != self.dialect.name:  # which stands there with a broker
            yield self.api_key
        for name, value in self.headers.items():
            if names_secret(name):
                yield value
        for url in (self.proxies or {}).values():
            yield urlsplit(url or "").password or ""
        if isinstance(self.auth, tuple) and len(self.auth) == 2 and isinstance(self.auth[1], str):
            yield self.auth[1]

    @property
    def endpoint(self) -> Endpoint:
        """Where and how to send."""
        return Endpoint(
            self.host, self.api_key, self.compression, self.headers, self.historical_migration
        )

    @property
    def linger(self) -> float:
        """How long, in seconds, the thread waits for more after a first event."""
        return min(_LONGEST_LINGER, self.flush_interval)

    @property
    def settings(self) -> Settings:
        """When a batch is due and when it is given up."""
        return Settings(
            flush_at=self.flush_at,
            flush_interval=self.flush_interval - self.linger,  # of which an event has waited
            max_retries=self.max_retries,
            max_age=self.max_age,
            timeout=self.timeout,
            bisect=self.bisect,
        )


@dataclass(frozen=True, kw_only=True)
class EventOptions(Options):
    """The options of a handler of events."""

    before_send: tuple[Callable[..., Any], ...] = _checked(checks.hooks)
    properties: Mapping[str, Any] = _checked(checks.mapping)
    flat: bool = _checked(checks.boolean)
    disable_geoip: bool = _checked(checks.boolean)
    scrub: Scrubber | None = _checked()
    pseudonymise: Pseudonyms | None = _checked(
        lambda name, value: Pseudonyms.of(value, keep_secret)
    )
    sample: Sampler | None = _checked(lambda name, value: Sampler.of(value))
    person_rate: Ceiling | None = _checked(lambda name, value: Ceiling.of(value))
    plan: str | None = _checked(checks.one_of, ("warn", None))
    exceptions: int | None = _checked(checks.threshold)
    exception_rate: tuple[int, float] | None = _checked(checks.rate)
    exception_hooks: bool = _checked(checks.boolean)
    exception_messages: bool = _checked(checks.boolean)
    exception_variables: bool = _checked(checks.boolean)
    exception_steps: int = _checked(checks.whole, 0, 100_000)
    in_app_include: tuple[str, ...] = _checked(checks.names)
    in_app_exclude: tuple[str, ...] = _checked(checks.names)
    trace: bool = _checked(checks.boolean)
    broker: str | None = _checked()

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = self.pseudonymise.rule if self.pseudonymise is not None else None
        object.__setattr__(self, "scrub", Scrubber.of(self.scrub, rules))


def is_disabled() -> bool:
    """Return whether ``POSTHOG_DISABLED`` switches every handler of the process off."""
    return os.environ.get("POSTHOG_DISABLED", "").strip().lower() in _YES


def _is_folder(value: Any) -> bool:
    return value is None or isinstance(value, (str, os.PathLike))
