"""
Send one event, and report what became of it.

Each key=value is a property; a value that is JSON is read as JSON, any other as text.
"""

from __future__ import annotations

import argparse

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from .. import extras
from ..delivery.ledger import NOT_LOSSES
from ..delivery.reasons import LOSSES, Reason
from ..delivery.sender import DeliveryError
from ..events import jsonable
from ..events.timestamps import parse_timestamp
from . import destination
from .command import FAILED, OK, CommandError
from .output import Output


__all__ = ["HELP", "add_arguments", "run"]

HELP = "send one event, and report what became of it"

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

# Reasons in words of this command, where those in the table of losses are about log calls.
_REASONS = {
    "shutdown": Reason(
        "it could not be delivered in time",
        "`posthog-logging doctor` looks for the cause; a longer --timeout may help",
    ),
    "no_distinct_id": Reason("this kind needs the person's id", "give --distinct-id"),
    "no_previous_id": Reason(
        "an alias needs the previous id", "give it in place of the event's name"
    ),
    "no_event_name": Reason("it has no name, or a blank one", "give the event's name"),
    "empty_set": Reason("there is nothing to set", "give at least one key=value"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="EVENT key=value",
        help="the event's name and its properties; for other kinds see --kind",
    )
    parser.add_argument(
        "--distinct-id", metavar="ID", help="who did it (default: an unknown person)"
    )
    parser.add_argument(
        "--kind",
        choices=_KINDS,
        default="capture",
        help="the kind of event (default capture): identify and set take no name, alias the "
        "previous id, group TYPE:KEY, page and screen an optional name",
    )
    parser.add_argument(
        "--timestamp",
        metavar="TIME",
        help="when it happened: ISO 8601 or epoch seconds (default now)",
    )
    destination.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Send, and wait for the outcome."""
    fields = _fields(options)
    errors: list[DeliveryError] = []
    handler = destination.handler_for(
        options, on_error=lambda error, events: errors.append(error), flush_at=1
    )
    with nullcontext() if options.json else destination.losses_left_out():
        try:
            uuid = handler.accept(fields)
        finally:
            handler.close()
    counts = handler.counts
    lost = next((reason for reason, n in counts.items() if n and reason not in NOT_LOSSES), "")
    status = errors[0].status if errors else None
    _report(Output(options.json), fields["event"], uuid, lost, status)
    return FAILED if lost else OK


def _report(output: Output, event: str, uuid: str | None, lost: str, status: int | None) -> None:
    if lost:
        output.say(output.coloured(_loss(uuid, lost, status), "bad"))
    else:
        output.say(output.coloured(f"{uuid} delivered", "good"))
    output.give(
        {
            "event": event,
            "uuid": uuid,
            "delivered": not lost,
            "lost": lost or None,
            "status": status,
        }
    )


def _loss(uuid: str | None, lost: str, status: int | None) -> str:
    """Return what happened to a lost event, and what to do."""
    known = _REASONS.get(lost) or LOSSES.get(lost, Reason("the reason is unknown"))
    answer = f", HTTP {status}" if status else ""
    advice = f" To do: {known.remedy}." if known.remedy else ""
    return f"{uuid or 'The event'} was lost ({lost}{answer}): {known.meaning}.{advice}"


def _fields(options: argparse.Namespace) -> Fields:
    """Return the event in the form of the ``extra`` of a log call."""
    make, takes_name = _KINDS[options.kind]
    words = list(options.words)
    named = takes_name is True or (takes_name is None and words and "=" not in words[0])
    if named and not words:
        raise CommandError(
            _MISSING.get(options.kind, "no event: give its name, as in send 'movie played'")
        )
    name = words.pop(0) if named else None
    fields = make(options.distinct_id, name, _properties(words))
    if options.timestamp is not None:
        fields["timestamp"] = _time(options.timestamp)
    return fields


def _properties(words: Sequence[str]) -> Fields:
    properties = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise CommandError(
                f"{word!r} is not a property: give key=value. A name with blanks needs quotes"
            )
        properties[key] = _read(value)
    return properties


def _read(text: str) -> Any:
    try:
        return jsonable.decode(text)
    except ValueError:
        return text


def _time(text: str) -> str:
    try:
        time = parse_timestamp(float(text))
    except ValueError:
        time = parse_timestamp(text)
    if time is None:
        raise CommandError(
            f"--timestamp: {text!r} is not a time; give ISO 8601, as in 2026-01-31T12:00:00Z, or "
            "epoch seconds"
        )
    return time


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
    "alias": "no previous id: give it in place of the event's name",
    "group": "no group: give TYPE:KEY in place of the event's name, as in company:acme",
}

#: For each kind the function that builds it, and whether it takes a name (None: it may).
_KINDS: dict[str, tuple[Callable[[str | None, str | None, Fields], Fields], bool | None]] = {
    "capture": (extras.capture, True),
    "identify": (_identify, False),
    "set": (_set, False),
    "alias": (_alias, True),
    "group": (_group, True),
    "page": (extras.page, None),
    "screen": (extras.screen, None),
}
