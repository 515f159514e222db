"""
What a line of somebody's file says, in the words of a log call's ``extra``. Pure.

A line is an event of a dialect (a journal's, an export's), a structured log record, or
anything at all with a mapping that names its parts.
"""

from __future__ import annotations

import codecs
import uuid

from collections.abc import Callable, Mapping
from typing import Any

from ..events import jsonable
from ..wire import DIALECTS, Request, find_dialect


__all__ = ["FORMATS", "Fields", "Read", "fields_in_line", "reader"]

Fields = dict[str, Any]
#: Returns what an object says, None where it is no event; raises ``ValueError``.
Read = Callable[[Mapping[str, Any]], "Fields | None"]

#: What the lines of a file may be; ``log`` is structlog's JSON and its like.
FORMATS = ("auto", "log", *DIALECTS)

_FIELDS = frozenset("event distinct_id timestamp uuid properties set set_once groups".split())
_SEGMENT_TYPES = frozenset("track identify page screen group alias".split())


def reader(form: str, mapping: str = "") -> Read:
    """Return what reads lines of the format *form*, or by *mapping* where that is given."""
    if mapping:
        return _Mapped(mapping)
    return {"auto": _guessed, "log": _logged}.get(form) or _Encoded(form)


def fields_in_line(line: bytes, read: Read) -> Fields | None:
    """
    Return what *line* says, with a uuid; None where it is no event.

    A line without an id of its own gets the same one each time: twice imported is once stored.
    """
    line = line.removeprefix(codecs.BOM_UTF8)
    value = jsonable.decode(line)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    said = read(value)
    if said is None or said.get("uuid"):
        return said
    return {**said, "uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, line.decode()))}


def _guessed(value: Mapping[str, Any]) -> Fields | None:
    if value.get("type") in _SEGMENT_TYPES and ("messageId" in value or "event" not in value):
        return _Encoded("segment")(value)
    if isinstance(value.get("properties"), dict) and {"event", "uuid"} <= set(value):
        return _Encoded("posthog-v1")(value)  # which reads what V0 writes as well
    return _logged(value)


def _logged(value: Mapping[str, Any]) -> Fields | None:
    """Read a log record: by the rule of the handler it is an event if it says who."""
    if value.get("distinct_id") is None:
        return None
    if not value.get("event"):
        raise ValueError("it has a distinct_id and no event")
    return dict(value)


class _Encoded:
    """Read the events of one dialect."""

    def __init__(self, dialect: str) -> None:
        self._dialect = find_dialect(dialect)

    def __call__(self, value: Mapping[str, Any]) -> Fields:
        body = jsonable.encode({"batch": [value]})
        (message,) = self._dialect.decode(Request("", {}, body))
        said = {name: part for name, part in message._asdict().items() if part not in ("", None)}
        if "event" not in said:
            raise ValueError("it has no event")
        return said


class _Mapped:
    """
    Read objects by a mapping such as ``event=name,distinct_id=user.id``.

    What the mapping does not take, and no ``properties`` of it covers, becomes properties.
    """

    def __init__(self, mapping: str) -> None:
        self._paths = dict(map(_pair, mapping.split(",")))
        if "event" not in self._paths:
            raise ValueError("--map: it must say where the event's name is")

    def __call__(self, value: Mapping[str, Any]) -> Fields:
        said = {field: _at(value, path) for field, path in self._paths.items()}
        said = {field: part for field, part in said.items() if part is not None}
        if not said.get("event"):
            raise ValueError(f"nothing at {self._paths['event']!r}, where the event's name is")
        if "properties" not in self._paths:
            taken = {path.partition(".")[0] for path in self._paths.values()}
            said["properties"] = {k: v for k, v in value.items() if k not in taken}
        return said


def _pair(text: str) -> tuple[str, str]:
    field, _, path = (part.strip() for part in text.partition("="))
    if field not in _FIELDS or not path:
        raise ValueError(
            f"--map: FIELD=path with one of {', '.join(sorted(_FIELDS))}, not {text!r}"
        )
    return field, path


def _at(value: Any, path: str) -> Any:
    """Return what is at a dotted path; a key that has dots itself comes first."""
    if not isinstance(value, Mapping):
        return None
    if path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    return _at(value.get(head), rest) if dot else None
