"""
The dialects by name; a dialect's module is imported when the dialect is first looked up.

A vendor of Segment's family is one line in `DIALECTS`, and in `segment` a `SegmentDialect` under
the same name in capitals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .dialect import Dialect


__all__ = ["DIALECTS", "family_of", "find_dialect"]


def _posthog(name: str) -> Dialect:
    from . import posthog

    return {"posthog": posthog.POSTHOG, "posthog-v1": posthog.V1, "posthog-v0": posthog.V0}[name]


def _segment(name: str) -> Dialect:
    from . import segment

    found: Dialect = getattr(segment, {"astronomer": "METAROUTER"}.get(name, name.upper()))
    return found


def _logs(name: str) -> Dialect:
    from . import otlp

    return otlp.LOGS


#: A loader for each name. Loaders use import statements, which PyInstaller can see.
DIALECTS: Mapping[str, Callable[[str], Dialect]] = MappingProxyType(
    {
        "posthog": _posthog,
        "posthog-v1": _posthog,
        "posthog-v0": _posthog,
        "segment": _segment,
        "metarouter": _segment,
        "astronomer": _segment,
        "rudderstack": _segment,
        "jitsu": _segment,
        "customerio": _segment,
        "hightouch": _segment,
        "june": _segment,
        "posthog-logs": _logs,
    }
)


def family_of(dialect: Dialect) -> str:
    """Return the name that a spool stores lines under; dialects with one line format share it."""
    return str(getattr(dialect, "family", dialect.name))


def find_dialect(dialect: str | Dialect) -> Dialect:
    """
    Return the dialect of that name, or *dialect* itself if it is one.

    Raises ``ValueError`` for an unknown name and ``TypeError`` for anything else.
    """
    if isinstance(dialect, str):
        if dialect not in DIALECTS:
            raise ValueError(f"dialect: must be one of {', '.join(DIALECTS)}, not {dialect!r}")
        return DIALECTS[dialect](dialect)
    if not isinstance(dialect, Dialect):
        raise TypeError(
            f"dialect: must be a name or a posthog_logging.wire.Dialect, not a value of type "
            f"{type(dialect).__name__}"
        )
    return dialect
