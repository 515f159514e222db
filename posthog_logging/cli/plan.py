"""
Show the plan of a program's events, export it, check events against it, or compare two plans.

A PLAN is the dotted name of a module that declares events with @event, or the file that export
has written. Modules in the working directory are found, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..events.schema import describe
from ..events.schema_diff import Change, changes_in
from ..plan import Finding, Plan, PlanError, PlannedEvent
from .command import FAILED, OK, CommandError, verb_in
from .lines import fault_of, fields_in_line, reader
from .output import Output, counted


__all__ = ["HELP", "add_arguments", "load", "run"]

HELP = "show, export, check or compare plans of events"

USAGE_LINE = "posthog-logging plan [options] {show,export,check,diff} PLAN [...]"

EPILOG = """\
examples:
  posthog-logging plan show service.events
  posthog-logging plan export service.events plan.json
  posthog-logging plan check service.events events.ndjson
  posthog-logging plan diff plan.json service.events

exit statuses: 0 done, nothing found; 1 check found events that are not as planned, or diff found
changes that break readers of the events; 2 wrong usage, a plan that cannot be read
"""

_COLUMNS = ("event", "field", "may be", "required", "about")
_MOST_SHOWN = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="{show,export,check,diff} PLAN [...]",
        help="what to do: show PLAN, export PLAN [FILE], check PLAN FILE ..., diff OLD NEW",
    )
    parser.add_argument("--json", action="store_true", help="print lines of JSON")


def run(options: argparse.Namespace) -> int:
    """Show, export, check or compare."""
    verb, words = verb_in(options.words, _VERBS, "a plan")
    least, most, work = _VERBS[verb]
    if not least <= len(words) <= most:
        raise CommandError(f"{verb} takes {_TAKES[verb]}; got {len(words) or 'nothing'}")
    result: int = work(Output(options.json), words)
    return result


def load(name: str) -> Plan:
    """Return the plan in the module or file *name*; raises `CommandError` if there is none."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the module prints is no plan
            return Plan.of(name)
    except PlanError as error:
        raise CommandError(str(error)) from None


def _show(output: Output, words: Sequence[str]) -> int:
    plan = load(words[0])
    for one in plan.events.values():
        output.give(
            {
                "event": one.name,
                "description": one.description,
                "since": one.since,
                "deprecated": one.deprecated,
                "sample": one.rate,
                "person": one.person,
                "schema": one.schema,
            }
        )
    output.table(_COLUMNS, [row for one in plan.events.values() for row in _rows(one)])
    output.say(f"{plan.name} declares {counted(len(plan.events), 'event')}.")
    return OK


def _rows(one: PlannedEvent) -> Iterator[list[str]]:
    notes = {"since": one.since, "deprecated:": one.deprecated, "sampled at": one.rate}
    about = [one.description, *(f"{word} {text}" for word, text in notes.items() if text)]
    yield [one.name, "", "", "", "; ".join(filter(None, about))]
    if one.person:
        yield ["", one.person, "the person", "", ""]
    required = one.schema.get("required", ())
    for name, schema in one.schema.get("properties", {}).items():
        may = describe(schema, one.schema)
        about = [schema.get("description", "")] if isinstance(schema, dict) else []
        yield ["", name, may, "yes" if name in required else "no", *about[:1]]


def _export(output: Output, words: Sequence[str]) -> int:
    document = load(words[0]).schema()
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if len(words) == 1:
        sys.stdout.write(f"{text}\n")
        return OK
    try:
        Path(words[1]).write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{words[1]}: {error.strerror}") from None
    events = len(document["oneOf"])
    output.say(f"Wrote {counted(events, 'event')} to {words[1]}.")
    output.give({"file": words[1], "events": events})
    return OK


def _check(output: Output, words: Sequence[str]) -> int:
    plan = load(words[0])
    came: Counter[str] = Counter()
    found = [one for name in words[1:] for one in _in_file(plan, name, came)]
    for where, finding in found:
        output.give({"where": where, "event": finding.event, "finding": finding.text})
    if found:
        output.table(
            ("where", "event", "finding"),
            [[where, finding.event, finding.text] for where, finding in found[:_MOST_SHOWN]],
        )
    missing = plan.missing(came)
    output.give({"events": came.total(), "findings": len(found), "missing": missing})
    output.say(
        f"{counted(came.total(), 'event')}, {counted(len(found), 'finding')}.",
        *([f"Planned, and not among them: {', '.join(missing)}"] if missing else []),
    )
    return FAILED if found else OK


def _in_file(plan: Plan, name: str, came: Counter[str]) -> Iterator[tuple[str, Finding]]:
    """Yield each finding in a file of JSON lines, with its file and line."""
    read = reader("auto")
    try:
        with open(name, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{name}:{number}"
                try:
                    fields = fields_in_line(line.removeprefix(b"\xef\xbb\xbf"), read)
                except Exception as error:  # a decoder of foreign data may raise anything
                    yield where, Finding("", None, f"broken line: {fault_of(error)}")
                    continue
                if fields is not None:
                    event = str(fields.get("event"))
                    came[event] += 1
                    for one in plan.check(event, fields.get("properties") or {}):
                        yield where, one
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from None


def _diff(output: Output, words: Sequence[str]) -> int:
    changes = list(_changes(load(words[0]), load(words[1])))
    for event, change in changes:
        output.give({"event": event, "breaks": change.breaks, "change": change.text})
    rows = [
        ["breaks" if change.breaks else "fine", event, change.text] for event, change in changes
    ]
    if rows:
        output.table(("", "event", "change"), sorted(rows))
    breaking = sum(change.breaks for _, change in changes)
    output.say(f"{counted(len(changes), 'change')}; {breaking} would break readers of the events.")
    return FAILED if breaking else OK


def _changes(old: Plan, new: Plan) -> Iterator[tuple[str, Change]]:
    """Yield each difference, with the name of its event."""
    for name, before in old.events.items():
        after = new.events.get(name)
        if after is None:
            yield name, Change(True, "the event is gone")
            continue
        if after.deprecated and not before.deprecated:
            yield name, Change(False, f"deprecated now: {after.deprecated}")
        if after.rate != before.rate:
            rates = [1 if one.rate is None else one.rate for one in (before, after)]
            yield name, Change(False, "sampled at {}, and now at {}".format(*rates))
        for change in changes_in(before.schema, after.schema):
            yield name, change
    for name in new.events.keys() - old.events.keys():
        yield name, Change(False, "the event is new")


#: What each takes, for messages.
_TAKES = {
    "show": "a plan: a module such as service.events, or an exported file",
    "export": "a plan, and optionally the file to write",
    "check": "a plan, and the files with events",
    "diff": "two plans: the old one and the new one",
}
#: How many arguments each takes at least and at most, and its function.
_VERBS = {
    "show": (1, 1, _show),
    "export": (1, 2, _export),
    "check": (2, 10_000, _check),
    "diff": (2, 2, _diff),
}
