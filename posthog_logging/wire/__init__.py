"""The wire formats: pure codecs in both directions, without a network or a clock."""

from __future__ import annotations

from .dialect import Batch, Dialect, Endpoint, Limits, Request, Response, Results, Rules
from .registry import DIALECTS, family_of, find_dialect


__all__ = [
    "DIALECTS",
    "Batch",
    "Dialect",
    "Endpoint",
    "Limits",
    "Request",
    "Response",
    "Results",
    "Rules",
    "family_of",
    "find_dialect",
]
