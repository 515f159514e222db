"""
`Encoder` makes queue items of what was logged, in the caller, and lines of them, in the thread.

A plain event has an id, properties and perhaps a name, and nothing else on its record; the
context binds no identity, and there is no hook. The caller only takes a snapshot of it, a
`Draft`, from which the thread makes the line. Any other event becomes a `Message` and then a
line before the log call returns. Both ways make the same line; a test compares them.
"""

from __future__ import annotations

import logging
import time

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..context import Bound, current
from ..events import jsonable
from ..events.faults import faults
from ..events.identifiers import Warn, are_plain, is_plain, stamp
from ..events.jsonable import is_flat, snapshot, within_limits
from ..events.message import IDENTITY_EVENTS, Message, Refused, assemble
from ..events.records import STANDARD, text_of
from ..events.reentry import Guard
from ..events.typed import RATE, expand
from ..wire import Dialect
from .gate import Gate
from .ledger import Ledger
from .own_log import foreign_names


__all__ = ["BeforeSend", "Draft", "Encoder"]

BeforeSend = Callable[["dict[str, Any]"], "dict[str, Any] | None"]

#: When it was logged, the event's name, the person's id, the uuid if the caller was given one, and
#: the encoded properties without their first brace.
Draft = tuple[float, str, str, "str | None", bytes]

(_DOLLAR,) = b"$"

# How many attributes a record with an id and properties has, and what may be there beside them: a
# name, and what the formatters of other handlers leave.
_PLAINEST = STANDARD + 2
_HARMLESS = ("event", "message", "asctime")

# Longer than any id, name and flat properties together.
_LONGEST_PLAIN = 16 * 1024


class Encoder:
    """
    Make events for *dialect*.

    Args:
        ledger: counts what the thread refuses, and logs what was mended.
        defaults: properties of every event; those of the event itself override them.
        owned: properties of every event that nothing overrides.
        flat: whether other extras of a record become properties.
        hooks: the functions of ``before_send``.
        gate: decides what may leave, and in which form; None: everything as it is.
    """

    def __init__(
        self,
        dialect: Dialect,
        ledger: Ledger,
        *,
        defaults: Mapping[str, Any],
        owned: Mapping[str, Any],
        flat: bool = True,
        hooks: Sequence[BeforeSend] = (),
        gate: Gate | None = None,
    ) -> None:
        self.dialect = dialect
        self._ledger = ledger
        self._gate = gate or Gate(ledger)
        self._defaults = defaults = self._gate.clean(defaults)
        self._owned = owned
        self._flat = flat
        self._any_id = bool(getattr(dialect, "any_id", False))
        self._hooks = hooks
        self._guard = Guard()
        self._is_known = self._gate.is_known
        takes_all = not hooks and not self._gate.wants_messages
        constants = {**defaults, **owned}
        self._template = _template(dialect, constants, self._gate) if takes_all else None

    @property
    def takes_drafts(self) -> bool:
        """Whether plain events may become drafts."""
        return self._template is not None

    # Any event, before the log call returns

    def message(
        self,
        fields: Mapping[str, Any],
        name: Any,
        created: float,
        bound: Bound | None = None,
        warn: Warn | None = None,
    ) -> Message:
        """
        Return the event that *fields* describe, after the hooks; raises `Refused`.

        Args:
            fields: what a log call takes as ``extra``.
            name: the event's name if *fields* have none; or a typed event.
            created: epoch seconds.
            bound: the identity and properties of the context.
            warn: is called with what was mended, of an event that does not count; None: the
                ledger's, and the event counts.
        """
        count = warn is None
        warn = warn or self._ledger.warn
        if type(name) is not str or type(fields.get("event", "")) is not str:
            fields, name = expand(fields, name)
        rate = None
        if RATE in fields:
            fields = dict(fields)
            rate = fields.pop(RATE)
        message = assemble(
            fields,
            name,
            created,
            bound=bound,
            defaults=self._defaults,
            owned=self._owned,
            flat=self._flat,
            any_id=self._any_id,
            warn=warn,
        )
        if self._hooks and not self._guard.is_inside():
            message = self._guard.run(self._hooked, message, warn)
        return self._gate.passed(message, warn, count, rate)

    def _hooked(self, message: Message, warn: Warn) -> Message:
        """Run ``before_send``; one that raises or returns no event drops the event."""
        event: Any = message._asdict()
        for hook in self._hooks:
            try:
                event = hook(event)
                if event is None:
                    raise Refused("before_send")
                message = _checked(event, message)
            except Refused:
                raise
            except faults() as error:
                warn("before_send", f"before_send failed: {type(error).__name__}")
                raise Refused("before_send_failed", type(error).__name__) from None
        return message

    # Plain events: a snapshot in the caller, a line in the thread

    def draft(self, record: logging.LogRecord) -> Draft | None:
        """Return the draft of a plain event; None if *record* is not one."""
        if current() is not None:
            return None
        attributes = record.__dict__
        try:
            properties, distinct_id = attributes["properties"], attributes["distinct_id"]
            args = attributes["args"]
            if len(attributes) == _PLAINEST and args is not None:
                name = record.getMessage() if args else attributes["msg"]
            else:
                name = _other_name(record)
            created = attributes["created"]
            is_known = self._is_known  # a local name: see `PostHogHandler.handle`
            if (
                type(properties) is dict
                and type(distinct_id) is str
                and type(name) is str
                and type(created) is float
                and attributes["name"] in foreign_names  # else it may be our own
                and (is_known(properties) or self._gate.is_plain(properties))
            ):
                # The slice lets go of orjson's buffer, which is many times larger than the text.
                return created, name, distinct_id, None, snapshot(properties)[1:]
        except faults():  # no id, or arguments that do not fit: `message` deals with it
            pass
        return None

    def draft_of(self, distinct_id: Any, name: Any, properties: Any) -> Draft | None:
        """Return the draft of a plain event that was not logged, with its uuid; else None."""
        is_known, draw = self._is_known, stamp.number
        if not (type(distinct_id) is str and type(name) is str and type(properties) is dict) or (
            current() is not None
            or name in IDENTITY_EVENTS
            or not name.strip()
            or not (is_known(properties) or self._gate.is_plain(properties))
        ):
            return None
        created = time.time()
        uuid = f"{stamp.second(created)[1]}{draw()}"
        return created, name, distinct_id, uuid, snapshot(properties)[1:]

    def line(self, draft: Draft) -> bytes:
        """Return the line of *draft*; raises `Refused`."""
        template = self._template
        if template is not None:
            line = template.fill(draft)
            if line is not None:
                return line
        created, name, distinct_id, uuid, rest = draft
        fields = {"distinct_id": distinct_id, "properties": jsonable.reread(b"{" + rest)}
        if uuid is not None:
            fields["uuid"] = uuid
        return self.dialect.line(self.message(fields, name, created))

    def lines(self, drafts: Sequence[Draft]) -> list[bytes]:
        """Return the lines of *drafts*, without those that were refused, which are counted."""
        template = self._template
        lines = template.fill_all(drafts) if template is not None else None
        return lines if lines is not None else [*filter(None, map(self._counted_line, drafts))]

    def _counted_line(self, draft: Draft) -> bytes | None:
        try:
            return self.line(draft)
        except Refused as refused:
            self._ledger.lose(refused.reason, 1, refused.detail)
        except Exception as error:
            self._ledger.lose("internal_error", 1, type(error).__name__)
        return None


def _other_name(record: logging.LogRecord) -> Any:
    """
    Return the name of a plain event whose record has a name, or passed other handlers first.

    None: the record has more than that, or is a typed event, perhaps; or its event's properties
    hold an id, such as a group's key, which JSON may write otherwise.
    """
    attributes = record.__dict__
    if len(attributes) != _PLAINEST + sum(key in attributes for key in _HARMLESS):
        return None
    if "event" in attributes:
        name = attributes["event"]
        return None if name in IDENTITY_EVENTS else name
    # Where a queue took the arguments, it put a traceback into the message.
    return text_of(record) if type(attributes["msg"]) is str else None


class _Template:
    """
    A line with places for uuid, name, id, time and properties.

    It fits no event with a property that is among *constants*, the properties of every event,
    nor one in which anything must be mended.
    """

    def __init__(
        self,
        dialect: Dialect,
        templates: tuple[bytes, bytes],
        constants: Mapping[str, Any],
        gate: Gate,
    ) -> None:
        self._gate = gate
        self._with_properties, self._without = templates
        self._constant_keys = [
            b'"%b":' % jsonable.encode(key)[1:-1] for key in constants if not key.startswith("$")
        ]
        self._largest = dialect.limits.event_bytes

    def fill(self, draft: Draft) -> bytes | None:
        """Return the line of *draft*; None if it is not as plain as it seemed."""
        created, name, distinct_id, uuid, rest = draft
        try:
            if (
                not is_plain(name, distinct_id)
                or not (is_flat(rest, len(rest)) or within_limits(rest))
                or ((_DOLLAR in rest or self._constant_keys) and self._clashes(rest))
                or self._gate.has_secret(rest)
            ):
                return None
            since, head, day = stamp.second(created)
            draw = stamp.number
            line = (self._with_properties if len(rest) > 1 else self._without) % (
                (uuid or f"{head}{draw()}").encode(),
                name.encode(),
                distinct_id.encode(),
                day.encode(),
                (created - since) * 1_000_000,
                rest,
            )
        except faults():  # an impossible time: `Encoder.message` deals with it
            return None
        return line if len(line) <= self._largest else None

    def fill_all(self, drafts: Sequence[Draft]) -> list[bytes] | None:
        """
        Return the lines of *drafts*; None if not all of them are plain.

        Each check of `fill` is made on all of them at once, which saves the calls.
        """
        times, names, people, _, rests = zip(*drafts, strict=True)
        since, head, day = stamp.second(times[0])
        whole = b"".join(rests)
        if (
            min(times) < since
            or max(times) >= since + 1.0
            or not are_plain(names, people)
            or not is_flat(whole, max(map(len, rests)))
            or self._clashes(whole)
            or self._gate.may_have_secret(whole)
        ):
            return None
        draw, with_properties, without = stamp.number, self._with_properties, self._without
        encoded_day = day.encode()
        return [
            (with_properties if len(rest) > 1 else without)
            % (
                (uuid or f"{head}{draw()}").encode(),
                name.encode(),
                distinct_id.encode(),
                encoded_day,
                (created - since) * 1_000_000,
                rest,
            )
            for created, name, distinct_id, uuid, rest in drafts
        ]

    def _clashes(self, rest: bytes) -> bool:
        """Return whether a property is one of PostHog's own, or one of the constants."""
        is_special = _DOLLAR in rest and b'"$' in rest
        return is_special or any(key in rest for key in self._constant_keys)


def _template(dialect: Dialect, constants: Mapping[str, Any], gate: Gate) -> _Template | None:
    """Return the template of *dialect*; None if it has none, or takes only short lines."""
    find = getattr(dialect, "templates", None)
    templates = find(constants) if find is not None else None
    if templates is None or len(templates[0]) + _LONGEST_PLAIN > dialect.limits.event_bytes:
        return None
    return _Template(dialect, templates, constants, gate)


def _checked(event: Any, before: Message) -> Message:
    """Return what a hook made of the event, with its uuid and time; raises if it is no event."""
    name, distinct_id, properties = event["event"], event["distinct_id"], event["properties"]
    if not (isinstance(name, str) and name and isinstance(distinct_id, str) and distinct_id):
        raise TypeError("an event has a name and a distinct_id")
    return Message(name, distinct_id, dict(properties), before.uuid, before.timestamp)
