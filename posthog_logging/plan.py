"""
Tracking plans: the events a program sends, their fields, and checks against both.

A plan is a module that declares typed events, or a JSON Schema exported from one. Reading the
types of fields takes pydantic (``pip install posthog_logging[plan]``), or msgspec for its own
classes; declaring and sending events takes neither.
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

from .delivery.own_log import logger
from .events.jsonable import jsonable
from .events.message import Message
from .events.schema import Problem, problems
from .events.typed import Declaration, DistinctId, declared_as, declared_in, event
from .events.typed_schema import schema_of


__all__ = ["DistinctId", "Finding", "Plan", "PlanError", "PlannedEvent", "Watch", "event"]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_GIVE = "Give the dotted name of a module that Python finds, or a file that ends with .json"
_MOST_NAMES = 1_000
_MOST_HINTS, _LONGEST_HINT = 200, 200


class PlanError(ValueError):
    """A plan cannot be read; the message says what to do."""


class Finding(NamedTuple):
    """One deviation from a plan; `problem` is None if the event itself is unplanned."""

    event: str
    problem: Problem | None
    text: str

    def __str__(self) -> str:
        return f"{self.event!r}: {self.text}"


@dataclasses.dataclass(frozen=True)
class PlannedEvent:
    """
    One event of a plan, with the JSON Schema of its properties.

    ``rate`` is the share of people whose events are kept, from 0 to 1, and ``person`` the field
    that holds the ``distinct_id``; each is None if not declared.
    """

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
        name: the module or the file that the plan was read from, for messages.
        events: the events; two with the same name raise `PlanError`.
    """

    def __init__(self, name: str, events: Iterable[PlannedEvent]) -> None:
        self.name = name
        self.events: dict[str, PlannedEvent] = {}
        self._nearest: dict[str, str | None] = {}
        for planned in events:
            if self.events.setdefault(planned.name, planned) is not planned:
                raise PlanError(
                    f"{name}: {planned.name!r} is declared twice, in two of its modules"
                )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self.events)} events>"

    @classmethod
    def of(cls, given: Plan | ModuleType | str | os.PathLike[str]) -> Plan:
        """
        Return the plan for *given*: a module, the dotted name of one, or a path to a JSON file.

        The plan of a module has every event that it and its submodules declare. A string is a
        path if it ends with ``.json``, or has a path separator and is not a ``.py`` file's.
        Raises `PlanError` for anything else, and for a module that cannot be imported.
        """
        if isinstance(given, Plan):
            return given
        if isinstance(given, ModuleType):
            return cls._of_module(given.__name__)
        if not isinstance(given, (str, os.PathLike)):
            raise PlanError(
                f"plan: must be a module or a file, not a value of type {type(given).__name__}"
            )
        name = os.fspath(given)
        if name.endswith(".json") or (os.sep in name and not name.endswith(".py")):
            return cls.read(name)
        if "" in name.split("."):  # `import_module` would speak of relative imports
            raise PlanError(f"{name!r} is not the name of a module. {_GIVE}")
        try:
            importlib.import_module(name)
        except SystemExit as end:
            raise PlanError(
                f"{name}: ended while it was imported (SystemExit: {end.code}). Put what it does "
                "under `if __name__ == '__main__':`"
            ) from end
        except Exception as error:  # the module's own code may raise anything
            raise PlanError(
                f"{name}: cannot be imported: {type(error).__name__}: {error}. {_GIVE}"
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
        """Return the plan exported to the file at *path*; raises `PlanError` if it is not one."""
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
                f"{name}: not a plan: write one with `posthog-logging plan export MODULE FILE`"
            ) from error

    def schema(self) -> dict[str, Any]:
        """Return the plan as a JSON Schema (2020-12) with one alternative per event."""
        return {
            "$schema": _DRAFT,
            "title": self.name,
            "oneOf": [_as_schema(planned) for planned in self.events.values()],
        }

    def check(self, event: str, properties: Any) -> list[Finding]:
        """
        Return the deviations of one event from the plan; an empty list if it fits.

        Unplanned events whose names begin with ``$`` are PostHog's own and fit. Extra properties
        fit unless the declaring class forbids them.
        """
        planned = self.events.get(event)
        if planned is None:
            return [] if event.startswith("$") else [Finding(event, None, self._unplanned(event))]
        found = problems(planned.schema, jsonable(properties))
        return [Finding(event, problem, str(problem)) for problem in found]

    def nearest(self, event: str) -> str | None:
        """
        Return the planned event with the name most like *event*; None if none is similar.

        Finding it takes milliseconds, so it is looked for once a name, for a bounded number.
        """
        if event not in self._nearest:
            if len(self._nearest) >= _MOST_HINTS or len(event) > _LONGEST_HINT:
                return None
            import difflib  # here, as importing it takes longer than the rest of this module

            near = difflib.get_close_matches(event, self.events, 1)
            self._nearest[event] = near[0] if near else None
        return self._nearest[event]

    def _unplanned(self, event: str) -> str:
        near = self.nearest(event)
        hint = f"; did you mean {near!r}?" if near else ""
        return f"not in the plan {self.name}{hint}"

    def missing(self, events: Iterable[str]) -> list[str]:
        """Return the names of planned events not in *events*, except deprecated ones."""
        seen = set(events)
        return [
            name
            for name, planned in self.events.items()
            if name not in seen and not planned.deprecated
        ]


class Watch:
    """
    Warn about events that do not fit the declared plan, once per event name.

    Never raises. Stops after 1,000 names.
    """

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._planned: dict[int, PlannedEvent | None] = {}

    def __call__(self, message: Message) -> None:
        """Check *message*, and log a warning if it does not fit."""
        name = message.event
        if name.startswith("$") or name in self._warned or len(self._warned) >= _MOST_NAMES:
            return
        text = self._problem_of(message)
        if text:
            self._warned.add(name)
            logger.warning("%r %s; further ones of this name are not reported", name, text)

    def _problem_of(self, message: Message) -> str:
        declared = declared_as(message.event)
        if not declared:
            return "is not in the plan: correct its name, or declare it with @event"
        try:
            properties = jsonable(message.properties)
            planned = [*filter(None, map(self._planned_for, declared))]
            found = [problems(event.schema, properties) for event in planned]
        except Exception as error:
            return f"cannot be checked against the plan: {type(error).__name__}"
        if not found or not all(found):
            return ""
        field, _, may = found[0][0]  # the value itself may be personal: it is not logged
        return f"does not fit the plan: {field} must be {may}"

    def _planned_for(self, declaration: Declaration) -> PlannedEvent | None:
        key = id(declaration)
        if key not in self._planned:
            try:
                self._planned[key] = _planned(declaration)
            except PlanError:  # pydantic is not installed: only names are checked
                self._planned[key] = None
        return self._planned[key]


def _planned(declaration: Declaration) -> PlannedEvent:
    try:
        schema = schema_of(declaration)
    except ImportError:
        raise PlanError(
            "reading a plan needs pydantic: pip install 'posthog_logging[plan]'"
        ) from None
    except TypeError as error:
        raise PlanError(f"{declaration.name!r}: {error}") from error
    if declaration.person is not None:
        key = declaration.written(declaration.person)
        schema["properties"] = {k: v for k, v in schema["properties"].items() if k != key}
        schema["required"] = [name for name in schema.get("required", []) if name != key]
    return PlannedEvent(
        declaration.name,
        schema,
        declaration.description,
        declaration.since,
        declaration.deprecated,
        declaration.rate,
        declaration.person,
    )


def _as_schema(planned: PlannedEvent) -> dict[str, Any]:
    found: dict[str, Any] = {
        "title": planned.name,
        "description": planned.description,
        "deprecated": bool(planned.deprecated),
        "type": "object",
        "properties": {
            "event": {"const": planned.name},
            "distinct_id": {"type": "string"},
            # `$id` makes it a schema resource, so that its `$ref`s resolve inside it.
            "properties": {"$id": f"urn:event:{quote(planned.name)}", **planned.schema},
        },
        "required": ["event", "properties"],
        "x-since": planned.since,
        "x-deprecated": planned.deprecated,
        "x-person": planned.person,
        "x-sample": planned.rate,
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
