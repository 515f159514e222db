"""
Send one event, and say what became of it.

A key=value is a property; the value is JSON if it reads as JSON, and text if it does not.
"""

from __future__ import annotations

import argparse

from collections.abc import Callable, Sequence
from typing import Any

from .. import extras
from ..delivery.ledger import NOT_LOSSES
from ..delivery.sender import DeliveryError
from ..events import jsonable
from ..events.timestamps import parse_timestamp
from . import destination
from .command import FAILED, OK, CommandError
from .output import Output


__all__ = ["HELP", "add_arguments", "run"]

HELP = "send one event, and say what became of it"

USAGE_LINE = "posthog-logging send [options] EVENT [key=value ...]"

EPILOG = """\
examples:
  posthog-logging send "movie played" --distinct-id user-1 movie_id=123 category=romcom
  posthog-logging send --kind identify --distinct-id user-1 email=ada@example.org
  posthog-logging send --kind alias anonymous-7 --distinct-id user-1
  posthog-logging send --kind group company:acme name="Acme Ltd" --distinct-id user-1
  posthog-logging send --kind page Home --distinct-id user-1

exit statuses: 0 delivered, 1 lost or refused, 2 wrong usage
"""

Fields = dict[str, Any]

_WHY = {
    "shutdown": "not delivered in time, why is told above; --timeout gives it more",
    "rejected": "the server refused it",
    "no_distinct_id": "this kind of event needs --distinct-id",
    "no_previous_id": "an alias needs the previous id",
    "empty_set": "there is nothing to set: give key=value",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="EVENT key=value",
        help="the event's name and its properties; for other kinds see --kind",
    )
    parser.add_argument("--distinct-id", metavar="ID", help="who did it (default: nobody known)")
    parser.add_argument(
        "--kind",
        choices=_KINDS,
        default="capture",
        help="what to say (default capture): identify and set take no name, alias the previous "
        "id, group TYPE:KEY, page and screen an optional name",
    )
    parser.add_argument(
        "--timestamp", metavar="TIME", help="when: ISO 8601 or epoch seconds (default now)"
    )
    destination.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Send, and wait for what becomes of it."""
    said = _said(options)
    errors: list[DeliveryError] = []
    handler = destination.handler_for(
        options, on_error=lambda error, events: errors.append(error), flush_at=1
    )
    try:
        uuid = handler.accept(said)
    finally:
        handler.close()
    counts = handler.counts
    lost = next((reason for reason, n in counts.items() if n and reason not in NOT_LOSSES), "")
    status = errors[0].status if errors else None
    _report(Output(options.json), said["event"], uuid, lost, status)
    return FAILED if lost else OK


def _report(output: Output, event: str, uuid: str | None, lost: str, status: int | None) -> None:
    outcome = f"lost: {lost}" if lost else "delivered"
    answer = f" (HTTP {status})" if status else ""
    why = f", {_WHY[lost]}" if lost in _WHY else ""
    output.say(f"{uuid or 'no uuid'} {outcome}{answer}{why}")
    output.give(
        {
            "event": event,
            "uuid": uuid,
            "delivered": not lost,
            "lost": lost or None,
            "status": status,
        }
    )


def _said(options: argparse.Namespace) -> Fields:
    """Return what a log call would take as ``extra``."""
    make, takes_name = _KINDS[options.kind]
    words = list(options.words)
    named = takes_name is True or (takes_name is None and words and "=" not in words[0])
    if named and not words:
        raise CommandError(_MISSING.get(options.kind, "which event? Give its name"))
    name = words.pop(0) if named else None
    said = make(options.distinct_id, name, _properties(words))
    if options.timestamp is not None:
        said["timestamp"] = _moment(options.timestamp)
    return said


def _properties(words: Sequence[str]) -> Fields:
    properties = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise CommandError(f"a property is key=value, not {word!r}")
        properties[key] = _read(value)
    return properties


def _read(text: str) -> Any:
    try:
        return jsonable.decode(text)
    except ValueError:
        return text


def _moment(text: str) -> str:
    try:
        moment = parse_timestamp(float(text))
    except ValueError:
        moment = parse_timestamp(text)
    if moment is None:
        raise CommandError(f"--timestamp: ISO 8601 or epoch seconds, not {text!r}")
    return moment


def _group(distinct_id: str | None, name: str | None, properties: Fields) -> Fields:
    kind, _, key = (name or "").partition(":")
    if not kind or not key:
        raise CommandError(_MISSING["group"])
    return extras.group(kind, key, properties, distinct_id)


def _alias(distinct_id: str | None, name: str | None, properties: Fields) -> Fields:
    return extras.alias(name, distinct_id, properties=properties)


def _identify(distinct_id: str | None, name: str | None, properties: Fields) -> Fields:
    return extras.identify(distinct_id, properties)


def _set(distinct_id: str | None, name: str | None, properties: Fields) -> Fields:
    return extras.set(distinct_id, properties)


_MISSING = {
    "alias": "which previous id? Give it in the place of the event's name",
    "group": "which group? Give TYPE:KEY in the place of the event's name",
}

#: Each kind: what makes it, and whether it takes a name (None: it may).
_KINDS: dict[str, tuple[Callable[[str | None, str | None, Fields], Fields], bool | None]] = {
    "capture": (extras.capture, True),
    "identify": (_identify, False),
    "set": (_set, False),
    "alias": (_alias, True),
    "group": (_group, True),
    "page": (extras.page, None),
    "screen": (extras.screen, None),
}
