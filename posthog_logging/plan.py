"""
Plans: which events a program sends, with which fields, and whether what came is so.

A module that declares events is a plan, so is an exported schema of one. Types are read by
pydantic, or by msgspec where the classes are its own (``pip install posthog_logging[plan]``);
declaring and sending events needs neither.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import quote

from .delivery.ledger import logger
from .events.jsonable import jsonable
from .events.message import Message
from .events.schema import Problem, problems
from .events.typed import Declaration, DistinctId, declared_as, declared_in, event
from .events.typed_schema import schema_of


__all__ = ["DistinctId", "Finding", "Plan", "PlanError", "PlannedEvent", "Watch", "event"]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_MOST_NAMES = 1_000
_MOST_HINTS, _LONGEST_HINT = 200, 200


class PlanError(ValueError):
    """What was given for a plan is not one; the text says what to do."""


class Finding(NamedTuple):
    """One thing that is not as planned: `problem` is None where the event itself is not."""

    event: str
    problem: Problem | None
    text: str

    def __str__(self) -> str:
        return f"{self.event!r}: {self.text}"


@dataclasses.dataclass(frozen=True)
class PlannedEvent:
    """One event of a plan, with the JSON Schema of its properties."""

    name: str
    schema: Mapping[str, Any]
    description: str = ""
    since: str = ""
    deprecated: str = ""
    rate: float | None = None
    person: str | None = None


class Plan:
    """
    The events of a program, by name.

    Args:
        name: what the plan is called: the module, or the file.
        events: the events; of two with one name the plan is refused.
    """

    def __init__(self, name: str, events: Iterable[PlannedEvent]) -> None:
        self.name = name
        self.events: dict[str, PlannedEvent] = {}
        self._nearest: dict[str, str | None] = {}
        for one in events:
            if self.events.setdefault(one.name, one) is not one:
                raise PlanError(f"{name}: {one.name!r} is declared twice, in two of its modules")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self.events)} events>"

    @classmethod
    def of(cls, given: Plan | ModuleType | str | os.PathLike[str]) -> Plan:
        """
        Return the plan that *given* means.

        A module, or the dotted name of one, is the plan of what it and the modules inside of
        it declare; the path of a ``.json`` file is that of an exported plan. Anything else,
        and a module that cannot be imported, raises `PlanError`.
        """
        if isinstance(given, Plan):
            return given
        if isinstance(given, ModuleType):
            return cls._of_module(given.__name__)
        if not isinstance(given, (str, os.PathLike)):
            raise PlanError(
                f"plan: a module or a file, not a value of type {type(given).__name__}"
            )
        name = os.fspath(given)
        if name.endswith(".json") or os.sep in name:
            return cls.read(name)
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever the module does
            raise PlanError(
                f"{name}: cannot be imported: {type(error).__name__}: {error}"
            ) from error
        return cls._of_module(name)

    @classmethod
    def _of_module(cls, name: str) -> Plan:
        found = declared_in(name)
        if not found:
            raise PlanError(f"{name}: declares no events: put @event(…) above their classes")
        return cls(name, map(_planned, found))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Plan:
        """Return the plan that was exported to the file at *path*."""
        name = os.fspath(path)
        try:
            with open(path, encoding="utf-8-sig") as file:
                document = json.load(file)
            return cls(str(document["title"]), map(_from_schema, document["oneOf"]))
        except OSError as error:
            raise PlanError(f"{name}: cannot be read: {error.strerror}") from error
        except PlanError:
            raise
        except Exception as error:
            raise PlanError(
                f"{name}: not a plan: write one with posthog-logging plan export MODULE"
            ) from error

    def schema(self) -> dict[str, Any]:
        """Return the plan as JSON Schema (2020-12) of one event."""
        return {
            "$schema": _DRAFT,
            "title": self.name,
            "oneOf": [_as_schema(one) for one in self.events.values()],
        }

    def check(self, event: str, properties: Any) -> list[Finding]:
        """
        Return what is not as planned in an event; names that begin with ``$`` are PostHog's.

        Properties beside the planned ones are fine, unless the class forbids them.
        """
        planned = self.events.get(event)
        if planned is None:
            return [] if event.startswith("$") else [Finding(event, None, self._unplanned(event))]
        found = problems(planned.schema, jsonable(properties))
        return [Finding(event, one, str(one)) for one in found]

    def nearest(self, event: str) -> str | None:
        """
        Return the planned event whose name is most like *event*, None where none is.

        Finding it takes milliseconds, so it is looked for once a name, and for so many names.
        """
        if event not in self._nearest:
            if len(self._nearest) >= _MOST_HINTS or len(event) > _LONGEST_HINT:
                return None
            import difflib  # which costs more than all the rest of this module

            near = difflib.get_close_matches(event, self.events, 1)
            self._nearest[event] = near[0] if near else None
        return self._nearest[event]

    def _unplanned(self, event: str) -> str:
        near = self.nearest(event)
        hint = f"; did you mean {near!r}?" if near else ""
        return f"not in the plan {self.name}{hint}"

    def missing(self, events: Iterable[str]) -> list[str]:
        """Return the planned events that are not among *events*, without deprecated ones."""
        came = set(events)
        return [
            name for name, one in self.events.items() if name not in came and not one.deprecated
        ]


class Watch:
    """Warns of what is not as planned, once for each name, and raises nothing."""

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._planned: dict[int, PlannedEvent | None] = {}

    def __call__(self, message: Message) -> None:
        """Look at *message*."""
        name = message.event
        if name.startswith("$") or name in self._warned or len(self._warned) >= _MOST_NAMES:
            return
        text = self._wrong_with(message)
        if text:
            self._warned.add(name)
            logger.warning("%r %s; further ones of this name are not reported", name, text)

    def _wrong_with(self, message: Message) -> str:
        declared = declared_as(message.event)
        if not declared:
            return "is not in the plan"
        try:
            properties = jsonable(message.properties)
            planned = [*filter(None, map(self._planned_for, declared))]
            found = [problems(one.schema, properties) for one in planned]
        except Exception as error:
            return f"cannot be checked: {type(error).__name__}"
        if not found or not all(found):
            return ""
        field, _, may = found[0][0]  # what came may be anything, and is not for the log
        return f"does not fit: {field} may be {may}"

    def _planned_for(self, declaration: Declaration) -> PlannedEvent | None:
        key = id(declaration)
        if key not in self._planned:
            try:
                self._planned[key] = _planned(declaration)
            except PlanError:  # pydantic is not there: names are all that is checked
                self._planned[key] = None
        return self._planned[key]


def _planned(one: Declaration) -> PlannedEvent:
    try:
        schema = schema_of(one)
    except ImportError:
        raise PlanError(
            "plans are read by pydantic: pip install 'posthog_logging[plan]'"
        ) from None
    except TypeError as error:
        raise PlanError(f"{one.name!r}: {error}") from error
    if one.person is not None:
        key = one.written(one.person)
        schema["properties"] = {k: v for k, v in schema["properties"].items() if k != key}
        schema["required"] = [name for name in schema.get("required", []) if name != key]
    return PlannedEvent(
        one.name, schema, one.description, one.since, one.deprecated, one.rate, one.person
    )


def _as_schema(one: PlannedEvent) -> dict[str, Any]:
    notes = {"x-since": one.since, "x-deprecated": one.deprecated, "x-person": one.person}
    found: dict[str, Any] = {
        "title": one.name,
        "description": one.description,
        "deprecated": bool(one.deprecated),
        "type": "object",
        "properties": {
            "event": {"const": one.name},
            "distinct_id": {"type": "string"},
            # A resource of its own, so that its references stay its own.
            "properties": {"$id": f"urn:event:{quote(one.name)}", **one.schema},
        },
        "required": ["event", "properties"],
        **notes,
        "x-sample": one.rate,
    }
    return {key: value for key, value in found.items() if value not in ("", None, False)}


def _from_schema(found: Mapping[str, Any]) -> PlannedEvent:
    schema = {k: v for k, v in found["properties"]["properties"].items() if k != "$id"}
    return PlannedEvent(
        str(found["properties"]["event"]["const"]),
        schema,
        str(found.get("description", "")),
        str(found.get("x-since", "")),
        str(found.get("x-deprecated", "")),
        found.get("x-sample"),
        found.get("x-person"),
    )
