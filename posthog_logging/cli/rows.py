"""
The row of an arrived event, which is the same in every command that lists events.

An exception shows its type and message, a log its level, a refused event the reason.
"""

from __future__ import annotations

import logging

from collections.abc import Mapping
from typing import Any

from .output import brief, clock


__all__ = ["COLUMNS", "cells", "meaning"]

COLUMNS = ("time (UTC)", "event", "distinct_id", "properties")

_LOGS = "posthog-logs"
# A log's attributes about the place of the log call.
_WHERE = ("logger.name", "code.", "exception.stacktrace", "process.", "thread.")


def cells(event: Mapping[str, Any], most: int = 8) -> tuple[str, str, str, str]:
    """
    Return the cells of *event*, in the form of the inspector's API.

    Args:
        most: how many properties are shown.
    """
    name, what = event["event"], brief(event["properties"], most)
    if event["dialect"] == _LOGS:
        name, what = f"[{_level(event)}] {name}", brief(_own(event["properties"]), most)
    elif name == "$exception":
        what = _exception(event["properties"]) or what
    elif name == "$pageview" and "$current_url" in event["properties"]:
        what = f"{event['properties']['$current_url']} {what}"
    if event["reason"]:
        what = f"REFUSED: {event['reason']}  {what}"
    return clock(event["timestamp"]), name, event["distinct_id"], what.rstrip()


def meaning(event: Mapping[str, Any]) -> str:
    """Return the meaning of the row's colour, a name in `output`; "" for none."""
    if event["reason"]:
        return "bad"
    if event["dialect"] == _LOGS:
        return "note" if _severity(event) >= logging.WARNING else "dim"
    return "note" if event["event"] == "$exception" or event.get("duplicate") else ""


def _severity(event: Mapping[str, Any]) -> int:
    found = event["properties"].get("$severity", logging.INFO)
    return found if isinstance(found, int) else logging.INFO


def _level(event: Mapping[str, Any]) -> str:
    return logging.getLevelName(_severity(event))


def _own(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in properties.items() if not name.startswith(_WHERE)}


def _exception(properties: Mapping[str, Any]) -> str:
    """Return ``Type: message`` of the outermost exception; "" if there is none."""
    try:
        first = properties["$exception_list"][0]
        return f"{first['type']}: {first['value']}"
    except (LookupError, TypeError):
        return ""
