"""
Read a line of JSON as the ``extra`` of a log call. Pure.

A line is an event of a dialect (a journal's, an export's), a structured log record, or any
object, read by a mapping that names its parts.
"""

from __future__ import annotations

import codecs
import uuid

from collections.abc import Callable, Mapping
from typing import Any

from ..events import jsonable
from ..wire import DIALECTS, Request, find_dialect


__all__ = ["FORMATS", "Fields", "Read", "fault_of", "fields_in_line", "reader"]

Fields = dict[str, Any]
#: Returns the fields of an object, None if it is not an event; raises ``ValueError``.
Read = Callable[[Mapping[str, Any]], "Fields | None"]

#: The formats of lines; ``log`` is structlog's JSON and the like.
FORMATS = ("auto", "log", *DIALECTS)

_FIELDS = frozenset("event distinct_id timestamp uuid properties set set_once groups".split())
_SEGMENT_TYPES = frozenset("track identify page screen group alias".split())


def reader(form: str, mapping: str = "") -> Read:
    """Return the reader of lines in the format *form*, or by *mapping* if that is given."""
    if mapping:
        return _Mapped(mapping)
    return {"auto": _guessed, "log": _logged}.get(form) or _Encoded(form)


def fields_in_line(line: bytes, read: Read) -> Fields | None:
    """
    Return the fields of *line*, with a uuid; None if it is not an event.

    A line without a uuid gets the same one each time, so that importing it twice stores it once.
    """
    line = line.removeprefix(codecs.BOM_UTF8)
    value = jsonable.decode(line)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    fields = read(value)
    if fields is None or fields.get("uuid"):
        return fields
    return {**fields, "uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, line.decode()))}


def fault_of(error: Exception) -> str:
    """Return what is wrong with a line for which *error* was raised, without quoting it."""
    if type(error) is ValueError or isinstance(error, LookupError):
        return str(error)
    if isinstance(error, ValueError):
        return "not JSON" if "JSON" in type(error).__name__ else str(error)
    return f"not an event ({type(error).__name__})"


def _guessed(value: Mapping[str, Any]) -> Fields | None:
    if value.get("type") in _SEGMENT_TYPES and ("messageId" in value or "event" not in value):
        return _Encoded("segment")(value)
    if isinstance(value.get("properties"), dict) and {"event", "uuid"} <= set(value):
        return _Encoded("posthog-v1")(value)  # which reads V0's events as well
    return _logged(value)


def _logged(value: Mapping[str, Any]) -> Fields | None:
    """Read a log record, which is an event if it has a ``distinct_id``."""
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
        fields = {name: part for name, part in message._asdict().items() if part not in ("", None)}
        if "event" not in fields:
            raise ValueError("it has no event")
        return fields


class _Mapped:
    """
    Read objects by a mapping such as ``event=name,distinct_id=user.id``.

    Unless the mapping names ``properties``, all keys that it does not name become properties.
    """

    def __init__(self, mapping: str) -> None:
        self._paths = dict(map(_pair, mapping.split(",")))
        if "event" not in self._paths:
            raise ValueError("--map: must say where the event's name is, as in event=name")

    def __call__(self, value: Mapping[str, Any]) -> Fields:
        found = {field: _at(value, path) for field, path in self._paths.items()}
        fields = {field: part for field, part in found.items() if part is not None}
        if not fields.get("event"):
            raise ValueError(f"nothing at {self._paths['event']!r}, where the event's name is")
        if "properties" not in self._paths:
            taken = {path.partition(".")[0] for path in self._paths.values()}
            fields["properties"] = {k: v for k, v in value.items() if k not in taken}
        return fields


def _pair(text: str) -> tuple[str, str]:
    field, _, path = (part.strip() for part in text.partition("="))
    if field not in _FIELDS or not path:
        raise ValueError(
            f"--map: must be FIELD=path, FIELD one of {', '.join(sorted(_FIELDS))}, not {text!r}"
        )
    return field, path


def _at(value: Any, path: str) -> Any:
    """Return the value at a dotted path; a key that itself has dots comes first."""
    if not isinstance(value, Mapping):
        return None
    if path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    return _at(value.get(head), rest) if dot else None
