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
from ..wire import Dialect
from ..wire.compression import decompress
from .dialect import NEUTRAL
from .engine import BrokerError
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
_HEAD = (
    rb'\{"uuid":"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",'
    rb'"event":"%b","distinct_id":"%b",'
    rb'"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z","properties":\{'
)
_OWN = re.compile(_HEAD % ((rb'(?:[^"\\]|\\.)+',) * 2))
_PLAIN = re.compile(_HEAD % ((rb'[^"\\]+',) * 2))  # the same without escapes, at half the price
_UUID = slice(len(b'{"uuid":"'), len(b'{"uuid":"') + 36)
_FIELDS = Message._fields
_MOST_KNOWN = 10_000


class Reader:
    """Read messages for *dialect*."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._templates = getattr(dialect, "templates", lambda constants: None)
        # A dialect whose templates are ours has our lines, where no property is special to it.
        self._same = self._templates({}) == NEUTRAL.templates({})
        self._plain: set[str] = set()  # properties that are special to nobody

    def read(self, delivery: Delivery) -> list[Line]:
        """Return the lines of a message; raises `BadMessage` for a message of another kind."""
        schema = delivery.headers.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise BadMessage("unknown_schema")
        try:
            body = decompress(delivery.body, delivery.coding)
        except ValueError as error:
            if isinstance(error.__cause__, ImportError):  # it is the relay that is at fault
                text = (
                    f"a message is packed with {delivery.coding!r}, whose package is missing here"
                )
                raise BrokerError(text) from None
            raise BadMessage("unreadable", type(error.__cause__ or error).__name__) from None
        rows = [row for row in body.removeprefix(b"\xef\xbb\xbf").split(b"\n") if row.strip()]
        if rows and self._same and self._all_stay(rows):
            return [Line(row, row) for row in rows]
        lines = [self._line(row, number, delivery) for number, row in enumerate(rows)]
        if all(one.refused == "no_event" for one in lines):
            raise BadMessage("no_event")
        return lines

    def _all_stay(self, rows: list[bytes]) -> bool:
        """Return whether all lines are ours and stay as they are: one parse, not hundreds."""
        if not all(map(_PLAIN.match, rows)):
            return False
        if max(map(len, rows), default=0) > self._dialect.limits.event_bytes:
            return False
        try:
            found = jsonable.decode(b"[%b]" % b",".join(rows))
            return len(found) == len(rows) and all(map(self._is, rows, found))
        except (ValueError, LookupError, TypeError, AttributeError):
            return False  # of lines that are incomplete by themselves: each is looked at alone

    def _is(self, row: bytes, fields: dict[str, Any]) -> bool:
        """Return whether *fields* are those of *row*, no more, and none of them is special."""
        properties = fields["properties"]
        return (
            len(fields) == len(_FIELDS)
            and fields["uuid"].encode() == row[_UUID]
            and (self._plain.issuperset(properties) or self._learn(properties))
        )

    def _line(self, row: bytes, number: int, delivery: Delivery) -> Line:
        try:
            fields = jsonable.decode(row)
            if not isinstance(fields, dict):
                raise ValueError
        except ValueError:
            return Line(row, None, "no_event")
        try:
            if len(fields) != len(_FIELDS) or not _OWN.match(row):
                message = _message(fields, row, number, delivery)
                return Line(NEUTRAL.line(message), self._translated(message, delivery))
            if self._same and self._stays(row, fields["properties"]):
                return Line(row, row)
            return Line(row, self._translated(Message(**fields), delivery))
        except Refused as refused:
            return Line(row, None, refused.reason)
        except Exception as error:  # of a foreign dialect
            return Line(row, None, f"internal_error: {type(error).__name__}")

    def _translated(self, message: Message, delivery: Delivery) -> bytes:
        headers = delivery.headers
        for name in ("lib", "lib_version"):
            if isinstance(headers.get(name), str):
                message.properties.setdefault(f"${name}", headers[name])
        return self._dialect.line(message)

    def _stays(self, row: bytes, properties: Mapping[str, Any]) -> bool:
        """Return whether a line of this library is one of the dialect's, too: most are."""
        return len(row) <= self._dialect.limits.event_bytes and (
            self._plain.issuperset(properties) or self._learn(properties)
        )

    def _learn(self, properties: Mapping[str, Any]) -> bool:
        """Return whether none of *properties* is special, and remember those that are not."""
        if len(self._plain) > _MOST_KNOWN:
            self._plain.clear()
        for name in properties:
            if name not in self._plain:
                if name[:1] == "$" and not self._leaves(name):
                    return False
                self._plain.add(name)
        return True

    def _leaves(self, name: str) -> bool:
        """Return whether the dialect leaves a property as it is: its templates show it."""
        found = self._templates({name: 0})
        return found is not None and name.encode() in found[0]


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
