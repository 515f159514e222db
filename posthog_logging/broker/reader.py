"""
What a message says, in the lines of the relay's dialect. Pure.

Most lines are the library's own and, for PostHog, stay as they are; all others become a
`Message` first, by the rules that a log call's fields have.
"""

from __future__ import annotations

import re
import time
import uuid

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..events import jsonable
from ..events.message import IDENTITY_EVENTS, Message, Refused, assemble
from ..version import LIBRARY, VERSION
from ..wire import Dialect
from ..wire.compression import decompress
from .dialect import NEUTRAL
from .envelope import SCHEMA, Delivery


__all__ = ["BadMessage", "Line", "Reader"]


class BadMessage(Exception):
    """A message of which nothing can be read, and why: a reason and a detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Line(NamedTuple):
    """A line as it came and in the dialect: None where *refused* says why it cannot be sent."""

    neutral: bytes
    line: bytes | None
    refused: str = ""


# How the library's own lines begin; they have no other fields.
_OWN = re.compile(
    rb'\{"uuid":"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",'
    rb'"event":"(?:[^"\\]|\\.)+","distinct_id":"(?:[^"\\]|\\.)+",'
    rb'"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z","properties":\{'
)
_FIELDS = Message._fields
_LIBRARY = b'"$lib":%b,"$lib_version":%b' % (
    jsonable.encode(LIBRARY),
    jsonable.encode(VERSION),
)
_MOST_KNOWN = 10_000


class Reader:
    """Read messages for *dialect*."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._templates = getattr(dialect, "templates", lambda constants: None)
        # A dialect whose templates are ours has our lines, where no property is special to it.
        self._same = self._templates({}) == NEUTRAL.templates({})
        probe = self._templates({"$lib": "", "$lib_version": ""}) if self._same else None
        self._strips = probe is not None and b"$lib" not in probe[0]
        self._plain: set[str] = set()  # properties that are special to nobody
        if probe is not None:
            self._plain |= {"$lib", "$lib_version"}

    def read(self, delivery: Delivery) -> list[Line]:
        """Return the lines of a message; raises `BadMessage` where it is none of ours."""
        schema = delivery.headers.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise BadMessage("unknown_schema")
        try:
            body = decompress(delivery.body, delivery.coding)
        except ValueError as error:
            raise BadMessage("unreadable", type(error.__cause__ or error).__name__) from None
        rows = [row for row in body.removeprefix(b"\xef\xbb\xbf").split(b"\n") if row.strip()]
        lines = [self._line(row, number, delivery) for number, row in enumerate(rows)]
        if all(one.refused == "no_event" for one in lines):
            raise BadMessage("no_event")
        return lines

    def _line(self, row: bytes, number: int, delivery: Delivery) -> Line:
        try:
            fields = jsonable.decode(row)
            if not isinstance(fields, dict):
                raise ValueError
        except ValueError:
            return Line(row, None, "no_event")
        try:
            if (
                len(fields) == len(_FIELDS)
                and _OWN.match(row)
                and type(fields["properties"]) is dict
            ):
                return Line(row, self._own(row, fields))
            message = _message(fields, row, number, delivery)
            return Line(NEUTRAL.line(message), self._dialect.line(message))
        except Refused as refused:
            return Line(row, None, refused.reason)
        except Exception as error:  # of a foreign dialect
            return Line(row, None, f"internal_error: {type(error).__name__}")

    def _own(self, row: bytes, fields: dict[str, Any]) -> bytes:
        """Return the dialect's line of one of ours: most often the same."""
        properties = fields["properties"]
        if (
            not self._same
            or len(row) > self._dialect.limits.event_bytes
            or not (self._plain.issuperset(properties) or self._learn(properties))
        ):
            return self._dialect.line(Message(**fields))
        if self._strips and b'"$lib' in row:
            return self._stripped(row, fields)
        return row

    def _stripped(self, row: bytes, fields: dict[str, Any]) -> bytes:
        """Return *row* without the library's name, which a header says."""
        for found in (b"," + _LIBRARY, _LIBRARY + b",", _LIBRARY):
            if row.count(b'"$lib":') == 1 and found in row:
                return row.replace(found, b"", 1)
        return self._dialect.line(Message(**fields))

    def _learn(self, properties: Mapping[str, Any]) -> bool:
        """Return whether none of *properties* is special, and remember those that are not."""
        if len(self._plain) > _MOST_KNOWN:
            self._plain.clear()
        for name in properties:
            if name not in self._plain:
                if name[:1] == "$" and self._templates({name: 0}) is None:
                    return False
                self._plain.add(name)
        return True


def _message(fields: dict[str, Any], row: bytes, number: int, delivery: Delivery) -> Message:
    """Return the event that somebody else wrote; what it does not say is the same each time."""
    given = dict(fields)
    if not given.get("uuid"):
        known = f"{delivery.message_id}/{number}" if delivery.message_id else row.decode()
        given["uuid"] = str(uuid.uuid5(uuid.NAMESPACE_OID, known))
    if given.get("distinct_id") is None and given.get("event") not in IDENTITY_EVENTS:
        given["distinct_id"] = given["uuid"]
        given["options"] = {"process_person_profile": False}
    created = time.time() if delivery.published is None else delivery.published
    return assemble(given, "", created)
