"""Read the active OpenTelemetry span, if the program uses OpenTelemetry."""

from __future__ import annotations

import sys

from typing import Any


__all__ = ["active_span", "span_ids"]


def active_span() -> dict[str, Any]:
    """Return ``$trace_id``, ``$span_id`` and ``$trace_flags`` of the active span, or {}."""
    # Not imported here: a program that uses OpenTelemetry has imported it already.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return {}
    try:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return {}
        return {
            "$trace_id": f"{context.trace_id:032x}",
            "$span_id": f"{context.span_id:016x}",
            "$trace_flags": int(context.trace_flags),
        }
    except Exception:  # a partly imported module, or a span of another type
        return {}


def span_ids() -> dict[str, Any]:
    """Return ``$trace_id`` and ``$span_id`` of the active span, or {}."""
    return {key: value for key, value in active_span().items() if key != "$trace_flags"}
