"""
Read messages into lines of the relay's dialect. Pure.

Most lines are the library's own and, for PostHog, are used as they are; all others become a
`Message` first, by the rules for the fields of a log call. What one message may hold is bounded
before it is parsed: a few bytes may unpack to much.
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
from .envelope import SCHEMA, Delivery, uuid_of


__all__ = ["BadMessage", "Line", "Reader"]


class BadMessage(Exception):
    """A message that cannot be read: the reason of the loss, and a detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Line(NamedTuple):
    """A line as it came, and in the dialect: None if it is *refused*, which is the reason."""

    neutral: bytes
    line: bytes | None
    refused: str = ""


# What one message may hold; those of this library have at most `MOST_LINES` and `MOST_BYTES`.
_MOST_LINES = 50_000
_MOST_BYTES = 16 * 1024 * 1024  # after decompression

# What other producers write as ``content_encoding`` of a plain body in UTF-8.
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "binary"})

# How the library's own lines begin; they have no other fields.
_HEAD = (
    rb'\{"uuid":"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",'
    rb'"event":"%b","distinct_id":"%b",'
    rb'"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z","properties":\{'
)
_OWN = re.compile(_HEAD % ((rb'(?:[^"\\]|\\.)+',) * 2))
_PLAIN = re.compile(_HEAD % ((rb'[^"\\]+',) * 2))  # the same without escapes, twice as fast
_TYPES = [str, str, str, str, dict]  # of their values
_MOST_NAMES = 10_000  # of properties that are remembered
_LONGEST_NAME = 200


class Reader:
    """Reads messages for *dialect*."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._templates = getattr(dialect, "templates", lambda constants: None)
        # With the same templates, lines without a property that is special to it are the same.
        self._has_same_lines = self._templates({}) == NEUTRAL.templates({})
        self._plain: set[str] = set()  # names of properties that are not special

    def read(self, delivery: Delivery) -> list[Line]:
        """Return the lines of a message; raises `BadMessage` if it has no event at all."""
        rows = [row for row in _body(delivery).split(b"\n") if row.strip()]
        if rows and self._has_same_lines and self._are_lines(rows):
            return [Line(row, row) for row in rows]
        lines = [self._line(row, number, delivery) for number, row in enumerate(rows)]
        if all(one.refused == "no_event" for one in lines):
            raise BadMessage("no_event")
        return lines

    def _are_lines(self, rows: list[bytes]) -> bool:
        """Return whether all *rows* are lines of the dialect already: one parse, not hundreds."""
        if not all(map(_PLAIN.match, rows)):
            return False
        if max(map(len, rows), default=0) > self._dialect.limits.event_bytes:
            return False
        try:
            found = jsonable.decode(b"[%b]" % b",".join(rows))
            return len(found) == len(rows) and all(map(self._is_line, rows, found))
        except (ValueError, LookupError, TypeError, AttributeError):
            return False  # rows that are complete only together: each is read by itself

    def _is_line(self, row: bytes, fields: dict[str, Any]) -> bool:
        """Return whether *fields* are exactly those of *row*, and no property is special."""
        return (
            _has_own_types(fields)
            and fields["uuid"] == uuid_of(row)
            and self._are_plain(fields["properties"])
        )

    def _line(self, row: bytes, number: int, delivery: Delivery) -> Line:
        try:
            fields = jsonable.decode(row)
            if not isinstance(fields, dict):
                raise ValueError
        except ValueError:
            return Line(row, None, "no_event")
        try:
            if not (_has_own_types(fields) and _OWN.match(row)):
                message = _message(fields, row, number, delivery)
                return Line(NEUTRAL.line(message), self._translated(message, delivery))
            is_short = len(row) <= self._dialect.limits.event_bytes
            if self._has_same_lines and is_short and self._are_plain(fields["properties"]):
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

    def _are_plain(self, properties: Mapping[str, Any]) -> bool:
        """Return whether no property is special to the dialect; the others are remembered."""
        return self._plain.issuperset(properties) or all(map(self._is_plain, properties))

    def _is_plain(self, name: str) -> bool:
        if name in self._plain:
            return True
        if name[:1] == "$" and not self._is_kept(name):
            return False
        if len(name) <= _LONGEST_NAME:
            if len(self._plain) >= _MOST_NAMES:
                self._plain.clear()
            self._plain.add(name)
        return True

    def _is_kept(self, name: str) -> bool:
        """Return whether the dialect leaves a property alone: its templates show it."""
        found = self._templates({name: 0})
        return found is not None and name.encode() in found[0]


def _has_own_types(fields: dict[str, Any]) -> bool:
    """
    Return whether *fields* are as many as those of this library's lines, and of their types.

    A foreign line may begin like one of this library and repeat a name, whose last value counts.
    """
    return list(map(type, fields.values())) == _TYPES


def _body(delivery: Delivery) -> bytes:
    """Return the plain body of a message of our schema, within bounds."""
    if delivery.headers.get("schema", SCHEMA) != SCHEMA:
        raise BadMessage("unknown_schema")
    coding = delivery.coding and delivery.coding.strip().lower()
    try:
        body = decompress(delivery.body, None if coding in _CHARSETS else coding, _MOST_BYTES)
    except ValueError as error:
        if isinstance(error.__cause__, ImportError):  # the relay is at fault, not the message
            text = f"a message is packed with {delivery.coding!r}, whose package is missing here"
            raise BrokerError(text) from None
        raise BadMessage("unreadable", type(error.__cause__ or error).__name__) from None
    if body.count(b"\n") > _MOST_LINES:
        raise BadMessage("unreadable", f"more than {_MOST_LINES} lines")
    return body.removeprefix(b"\xef\xbb\xbf")


def _message(fields: dict[str, Any], row: bytes, number: int, delivery: Delivery) -> Message:
    """Return a foreign producer's event; a uuid that it lacks is the same at each delivery."""
    given = dict(fields)
    if not given.get("uuid"):
        source = f"{delivery.message_id}/{number}" if delivery.message_id else row.decode()
        given["uuid"] = str(uuid.uuid5(uuid.NAMESPACE_OID, source))
    if given.get("distinct_id") is None and str(given.get("event")) not in IDENTITY_EVENTS:
        given["distinct_id"] = given["uuid"]
        given["options"] = {"process_person_profile": False}
    created = time.time() if delivery.published is None else delivery.published
    return assemble(given, "", created)
