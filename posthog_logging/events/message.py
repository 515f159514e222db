"""
What travels: a `Message`, and how the things said in a log call become one.

The rules of identity, names, ids and times are here, once, for every dialect: they follow
PostHog's capture contract (sdk-specs ``capture``, ``identify``, ``alias``, ``group-identify``).
"""

from __future__ import annotations

import datetime as dt
import enum
import functools
import hashlib
import itertools
import logging
import math
import os
import re
import time
import uuid

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from ..context import Bound


__all__ = [
    "IDENTITY_EVENTS",
    "KINDS",
    "Message",
    "Refused",
    "assemble",
    "fields_of",
    "is_event",
    "stamp",
    "text_of",
]


class Message(NamedTuple):
    """
    One event in PostHog's model, which is the neutral one: every dialect maps from it.

    ``timestamp`` is RFC 3339 in UTC, ``uuid`` canonical; both stay the same for ever.
    What has no field of its own lives in ``properties`` under its ``$`` name: ``$set``,
    ``$set_once``, ``$groups``, ``$context``, ``$integrations``, ``$anon_distinct_id``, and
    ``$options`` for options that are not PostHog's yet.
    """

    event: str
    distinct_id: str
    properties: dict[str, Any]
    uuid: str
    timestamp: str


class Refused(Exception):
    """An event that cannot be sent, with the reason under which it is counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


Tell = Callable[[str, str], None]

#: What `kind` stands for; the rest of the names are the caller's own.
KINDS = {
    "identify": "$identify",
    "set": "$set",
    "alias": "$create_alias",
    "group": "$groupidentify",
    "page": "$pageview",
    "screen": "$screen",
    "exception": "$exception",
}

#: They say something about a known person, so they are never sent without an id.
IDENTITY_EVENTS = frozenset({"$identify", "$set", "$create_alias", "$groupidentify"})

#: The typed options of PostHog's V1 and the property that each replaces (wire notes, 2.3).
OPTIONS = {
    "cookieless_mode": "$cookieless_mode",
    "disable_skew_correction": "$ignore_sent_at",
    "process_person_profile": "$process_person_profile",
    "product_tour_id": "$product_tour_id",
}

# Ids that PostHog refuses to merge, and that mean "nobody" wherever they turn up (1.7).
_NOBODY = frozenset(
    """0 00000000-0000-0000-0000-000000000000 anonymous anonymous-user backend
    distinct_id distinctid email false guest id nan none not_authenticated null system true
    undefined user""".split()
) | {"", "[object object]"}

_SESSION = frozenset({"$session_id", "$window_id"})
_LONGEST = 200  # bytes of UTF-8, the stricter of V0 (characters) and V1 (bytes)

_KNOWN = frozenset(
    """event distinct_id properties groups timestamp uuid set set_once previous_id options
    kind""".split()
)

# Keys beside ``properties`` that end up in them, under the names of PostHog's properties.
_MERGED = frozenset({"set", "set_once", "groups", "options"})

_BLANK = logging.makeLogRecord({}).__dict__
STANDARD = _STANDARD = len(_BLANK)
_FIRST_STANDARD, *_, _LAST_STANDARD = _BLANK
# What structlog's `ProcessorFormatter` leaves on a record or in an entry for itself.
_STRUCTLOG = {"_from_structlog", "_logger", "_name", "_record"}
#: What `logging` itself puts on a record; ``taskName`` from Python 3.12 on.
RESERVED = frozenset(_BLANK) | {"message", "asctime", "taskName"} | _STRUCTLOG


def is_event(record: logging.LogRecord) -> bool:
    """Return whether *record* opts in: it carries ``distinct_id`` or ``event``."""
    attributes = record.__dict__
    return "distinct_id" in attributes or "event" in attributes


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the extras of *record*: everything that `logging` did not put there."""
    attributes = record.__dict__
    keys = list(attributes)
    if (
        len(keys) >= _STANDARD
        and keys[_STANDARD - 1] == _LAST_STANDARD
        and keys[0] == _FIRST_STANDARD
    ):
        keys = keys[_STANDARD:]  # extras come last; this saves 23 look-ups an event
    return {key: attributes[key] for key in keys if key not in RESERVED}


def text_of(record: logging.LogRecord) -> str:
    """Return the formatted message; where the arguments do not fit, the bare one; else none."""
    for text in (record.getMessage, functools.partial(str, record.msg)):
        with suppress(Exception):
            return text()
    return ""


def is_plain(event: str, distinct_id: str) -> bool:
    """
    Return whether a name and an id need no mending, and no escapes in JSON either.

    They are neither special nor long nor blank, and the id is not nobody's.
    """
    return (event in _plain_names or _is_plain_name(event)) and (
        distinct_id in _plain_ids or _is_plain_id(distinct_id)
    )


def are_plain(events: Collection[str], distinct_ids: Collection[str]) -> bool:
    """Tell `is_plain` of many: what all of them are known for costs no call each."""
    return (_plain_names.issuperset(events) or all(map(_is_plain_name, events))) and (
        _plain_ids.issuperset(distinct_ids) or all(map(_is_plain_id, distinct_ids))
    )


_plain_names: set[str] = set()
_plain_ids: set[str] = set()


def _is_plain_id(distinct_id: str) -> bool:
    """Tell it of an id, and remember a plain one for a while: the same person does many things."""
    plain = (
        0 < len(distinct_id) <= 50
        and distinct_id.isprintable()
        and distinct_id[0] != " " != distinct_id[-1]
        and '"' not in distinct_id
        and "\\" not in distinct_id
        and distinct_id.lower() not in _NOBODY
    )
    if plain:
        if len(_plain_ids) >= 10_000:
            _plain_ids.clear()
        _plain_ids.add(distinct_id)
    return plain


def _is_plain_name(event: str) -> bool:
    """Tell it of a name, and remember a plain one: there are few names and many events."""
    plain = (
        0 < len(event) <= 50
        and event[0] != "$"
        and event.isprintable()
        and not event.isspace()
        and '"' not in event
        and "\\" not in event
    )
    if plain and len(_plain_names) < 1000:
        _plain_names.add(event)
    return plain


def assemble(
    fields: Mapping[str, Any],
    name: str,
    created: float,
    *,
    bound: Bound | None = None,
    defaults: Mapping[str, Any] | None = None,
    owned: Mapping[str, Any] | None = None,
    flat: bool = True,
    any_id: bool = False,
    tell: Tell = lambda topic, text: None,
) -> Message:
    """
    Return the message that *fields* amounts to; raise `Refused` where it amounts to none.

    Args:
        fields: the extras; keys without a meaning become properties if *flat*.
        name: the event's name where *fields* has no ``event`` and no ``kind``.
        created: when it was said, in epoch seconds, for where no ``timestamp`` is given.
        bound: identity and properties of the context; *fields* wins over both.
        defaults: properties with the lowest rank.
        owned: properties with the highest.
        any_id: whether a ``uuid`` of the caller's own may be any text, as Segment's
            ``messageId`` may.
        tell: called with a topic and a text for what was mended on the way.
    """
    event = _event_name(fields, name, tell)
    ids = stamp(created)
    properties = _properties(fields, event, bound, defaults, flat)
    given = fields.get("distinct_id")
    if given is None and bound is not None:
        given = bound.distinct_id
    distinct_id = clean_id(given, tell)
    if event in IDENTITY_EVENTS:
        distinct_id = _identity(event, distinct_id, fields, properties, tell)
    elif distinct_id is None:
        distinct_id = ids[0]
        properties.setdefault("$process_person_profile", False)
    if owned:
        properties.update(owned)
    if "uuid" in fields or "timestamp" in fields:
        ids = _given_ids(fields, ids, any_id, tell)
    if not _SESSION.isdisjoint(properties):
        _check_session(properties, tell)
    return Message(event, distinct_id, properties, *ids)


def _event_name(fields: Mapping[str, Any], name: str, tell: Tell) -> str:
    event = fields.get("event")
    if event is None:
        kind = fields.get("kind")
        event = KINDS.get(kind, name) if isinstance(kind, str) else name
    if type(event) is not str:
        event = event.value if isinstance(event, enum.Enum) else event
        if not isinstance(event, str):
            raise Refused("bad_event_name", type(event).__name__)
    if len(event) > _LONGEST // 4 or not event.isprintable():
        event = clean_text(event)
        if len(event.encode()) > _LONGEST:
            tell(
                "event name cut", f"event name of {len(event)} characters cut to {_LONGEST} bytes"
            )
            event = _cut(event, _LONGEST)
    if not event or event.isspace():
        raise Refused("no_event_name")
    return event


def clean_id(given: Any, tell: Tell) -> str | None:
    """
    Return *given* as an id that every server takes, or None where it names nobody.

    Trimmed; control characters out; more than 200 bytes become the first 159 and a hash,
    so that two long ids stay two people (V0 would cut them, V1 would drop the event).
    """
    if given is None:
        return None
    text = given if type(given) is str else _text(given)
    if not text.isprintable():
        text = clean_text(text)
    text = text.strip()
    if text.lower() in _NOBODY:
        tell("illegal distinct_id", "a distinct_id that names nobody was taken as missing")
        return None
    if len(text) > _LONGEST // 4 and len(text.encode()) > _LONGEST:
        tell("long distinct_id", f"a distinct_id of {len(text)} characters was shortened")
        text = _shortened(text)
    return text


def _properties(
    fields: Mapping[str, Any],
    event: str,
    bound: Bound | None,
    defaults: Mapping[str, Any] | None,
    flat: bool,
) -> dict[str, Any]:
    """Merge, low to high: defaults, context, flat extras, ``properties``, the named keys."""
    properties = dict(defaults) if defaults else {}
    if bound is not None:
        properties.update(bound.properties)
    if flat:
        for key in fields:
            if key not in _KNOWN:
                properties[key] = fields[key]
    if "kind" in fields or "previous_id" in fields:
        properties.update(_idle(fields, event))
    own = fields.get("properties")
    if isinstance(own, Mapping):
        properties.update(own)
    elif own is not None:
        properties["properties"] = own
    if not _MERGED.isdisjoint(fields):
        _add_named(fields, properties)
    return properties


def _idle(fields: Mapping[str, Any], event: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys that mean nothing to this *event*, so that they do not vanish in silence."""
    kind = fields.get("kind")
    if kind is not None and not (isinstance(kind, str) and KINDS.get(kind) == event):
        yield "kind", kind
    if fields.get("previous_id") is not None and event != "$create_alias":
        yield "previous_id", fields["previous_id"]


def _add_named(fields: Mapping[str, Any], properties: dict[str, Any]) -> None:
    for key, name in (("set", "$set"), ("set_once", "$set_once"), ("groups", "$groups")):
        value = fields.get(key)
        if isinstance(value, Mapping):
            earlier = properties.get(name)
            properties[name] = (
                {**earlier, **value} if isinstance(earlier, Mapping) else dict(value)
            )
        elif value is not None:
            properties[key] = value
    options = fields.get("options")
    if isinstance(options, Mapping):
        known = {OPTIONS[name]: value for name, value in options.items() if name in OPTIONS}
        unknown = {name: value for name, value in options.items() if name not in OPTIONS}
        properties.update(known)
        if unknown:
            properties["$options"] = unknown
    elif options is not None:
        properties["options"] = options


def _identity(
    event: str,
    distinct_id: str | None,
    fields: Mapping[str, Any],
    properties: dict[str, Any],
    tell: Tell,
) -> str:
    """Return the id of an event about a known person, with what it must say in *properties*."""
    properties.pop("$process_person_profile", None)
    if event == "$create_alias":
        return _alias(distinct_id, fields, properties, tell)
    if event == "$groupidentify":
        return _group(distinct_id, properties, tell)
    if distinct_id is None:
        raise Refused("no_distinct_id", event)
    if event == "$set" and not properties.get("$set") and not properties.get("$set_once"):
        raise Refused("empty_set")
    return distinct_id


def _alias(
    distinct_id: str | None, fields: Mapping[str, Any], properties: dict[str, Any], tell: Tell
) -> str:
    """PostHog's alias: the event is the *previous* id's, and ``alias`` is the new one."""
    if "previous_id" not in fields and properties.get("alias"):
        # said in the wire's own words: distinct_id is the old id already
        previous, new = distinct_id, clean_id(properties["alias"], tell)
    else:
        previous, new = clean_id(fields.get("previous_id"), tell), distinct_id
    if previous is None:
        raise Refused("no_previous_id", "$create_alias")
    if new is None:
        raise Refused("no_distinct_id", "$create_alias")
    properties["alias"] = new
    properties["distinct_id"] = previous
    return previous


def _group(distinct_id: str | None, properties: dict[str, Any], tell: Tell) -> str:
    given = (properties.get(name) for name in ("$group_type", "$group_key"))
    kind, key = ("" if value is None else clean_text(_text(value)) for value in given)
    if not kind or not key:
        raise Refused("no_group", "$groupidentify")
    properties["$group_type"], properties["$group_key"] = kind, key
    if not isinstance(properties.get("$group_set"), Mapping):
        if properties.get("$group_set") is not None:
            tell("bad group_set", "a group's properties that are no mapping were left out")
        properties["$group_set"] = {}
    return distinct_id or _shortened(f"${kind}_{key}")


def _check_session(properties: dict[str, Any], tell: Tell) -> None:
    """Leave out an id of a session or window that is no text: PostHog refuses the batch for it."""
    for name in _SESSION.intersection(properties):
        value = properties[name]
        plain = value.value if isinstance(value, enum.Enum) else value
        if not isinstance(plain, (str, uuid.UUID)):
            del properties[name]
            tell(f"bad {name}", f"{name} of type {type(value).__name__} was left out: a string is needed")


def _given_ids(
    fields: Mapping[str, Any], ids: tuple[str, str], any_id: bool, tell: Tell
) -> tuple[str, str]:
    name, moment = ids
    given = fields.get("uuid")
    if given is not None and given != "":  # V0 reads "" as absent, too (1.4)
        name = (_any_id(given) or name) if any_id else _uuid(given, tell)
    if fields.get("timestamp") is not None:
        parsed = parse_timestamp(fields["timestamp"])
        if parsed is None:
            tell("bad timestamp", "a timestamp that is none was replaced by the record's")
        else:
            moment = parsed
    return name, moment


def _uuid(given: Any, tell: Tell) -> str:
    """Return *given* as a UUID; anything else becomes the same one each time (RFC 9562, 5.5)."""
    text = _text(given)
    try:
        return str(uuid.UUID(text))
    except ValueError:
        tell("bad uuid", "a uuid that is none was replaced by one derived from it")
        return str(uuid.uuid5(uuid.NAMESPACE_OID, clean_text(text)))


def _any_id(given: Any) -> str:
    """Return *given* as it is, but for control characters and what is too long."""
    return _shortened(clean_text(_text(given)))


_FRACTION = re.compile(r"[.,](\d+)")
_OFFSET = re.compile(r"(:\d\d(?:\.\d+)?[+-]\d\d):?(\d\d)?$")


def parse_timestamp(value: Any) -> str | None:
    """
    Return a datetime, an ISO 8601 string or epoch seconds as RFC 3339 in UTC, else None.

    A naive datetime or string means local time, as everywhere in the standard library.
    """
    try:
        if isinstance(value, dt.datetime):
            moment = value
        elif isinstance(value, str):
            moment = _parse_iso(value.strip())
        elif isinstance(value, bool) or not math.isfinite(value):
            return None
        else:
            moment = dt.datetime.fromtimestamp(float(value), dt.UTC)
        return _utc(moment)
    except Exception:  # besides what dates raise, whatever a caller's tzinfo does
        return None


def _parse_iso(text: str) -> dt.datetime:
    """Parse as Python 3.11 does, on 3.10 too: ``Z``, any fraction, any form of offset."""
    if text[-1:] in "zZ":
        text = text[:-1] + "+00:00"
    text = _FRACTION.sub(lambda match: f".{match[1][:6]:<06}", text, count=1)
    text = _OFFSET.sub(lambda match: f"{match[1]}:{match[2] or '00'}", text)
    return dt.datetime.fromisoformat(text)


def rfc3339(moment: float) -> str:
    """Return epoch seconds as RFC 3339 in UTC, with microseconds."""
    return _utc(dt.datetime.fromtimestamp(moment, dt.UTC))


def _utc(moment: dt.datetime) -> str:
    text = moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return text.zfill(27)  # strftime does not pad years before 1000


class Second(NamedTuple):
    """
    What the ids and times of one second have in common.

    A uuid is *head* and a number of twelve digits, a timestamp *day*, six digits and ``Z``.
    """

    since: float
    head: str
    day: str

    def timestamp(self, created: float) -> str:
        """Return *created* as RFC 3339 in UTC, with microseconds."""
        return f"{self.day}{int((created - self.since) * 1_000_000):06d}Z"


class _Stamp:
    """
    Mint a uuid and a timestamp for one moment.

    The uuid is version 7 with a counter in its last bits (RFC 9562, 6.2, method 1): the
    millisecond and 42 random bits are drawn once a second, the counter for every event.
    """

    def __init__(self) -> None:
        self._second = Second(math.inf, "", "")
        #: Draw the number of the next uuid.
        self.number = itertools.count(10**11 + int.from_bytes(os.urandom(4), "big")).__next__

    def __call__(self, created: float) -> tuple[str, str]:
        second = self.second(created)
        return f"{second.head}{self.number()}", second.timestamp(created)

    def second(self, created: float) -> Second:
        """Return the second of *created*; one tuple is kept, so no lock is needed."""
        second = self._second
        if not 0.0 <= created - second[0] < 1.0:
            second = self._second = self._turn(created)
        return second

    def _turn(self, created: float) -> Second:
        second = math.floor(created)
        random = os.urandom(6).hex()
        milli = f"{int(created * 1000) & 0xFFFFFFFFFFFF:012x}"
        head = f"{milli[:8]}-{milli[8:]}-7{random[:3]}-{'89ab'[second & 3]}{random[3:6]}-"
        day = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return Second(second, head, day.zfill(20))  # strftime does not pad years before 1000

    def reset(self) -> None:
        """Forget what a forked child shares with its parent."""
        self.__init__()  # type: ignore[misc]


stamp = _Stamp()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=stamp.reset)


def _text(value: Any) -> str:
    """Return ``str(value)``, of an enum's member its value, or nothing where that raises."""
    try:
        return str(value.value if isinstance(value, enum.Enum) else value)
    except Exception:
        return ""


def clean_text(text: str) -> str:
    """Return *text* without control characters and lone surrogates, trimmed."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(
        c if c.isprintable() or c == " " else "\ufffd" if c == "\0" else " " for c in text
    ).strip()


def _shortened(text: str) -> str:
    """Return *text* if it is short enough for an id, else its beginning and a hash of it all."""
    if len(text.encode()) <= _LONGEST:
        return text
    return f"{_cut(text, 159)}#{hashlib.sha1(text.encode()).hexdigest()}"


def _cut(text: str, size: int) -> str:
    """Return the longest beginning of *text* of at most *size* bytes that ends on a character."""
    return text.encode()[:size].decode(errors="ignore")
