"""
The `Message`, and how the arguments of a log call become one.

The rules of identity, names and precedence are here, for every dialect. They follow PostHog's
capture contract (sdk-specs ``capture``, ``identify``, ``alias``, ``group-identify``).
"""

from __future__ import annotations

import enum
import uuid

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..context import Bound
from .identifiers import (
    LONGEST,
    Warn,
    as_uuid,
    clean_id,
    clean_text,
    cut,
    given_uuid,
    shortened,
    stamp,
    text_of_id,
)
from .kinds import mapping_in
from .proxies import unwrapped
from .timestamps import created_or_now, parse_timestamp


__all__ = [
    "IDENTITY_EVENTS",
    "KINDS",
    "OPTIONS",
    "Message",
    "Refused",
    "assemble",
    "properties_of",
]


class Message(NamedTuple):
    """
    One event, in PostHog's model; every dialect maps from and to it.

    ``timestamp`` is RFC 3339 in UTC, and ``uuid`` canonical; neither ever changes. Everything
    without a field of its own is in ``properties``, under a ``$`` name: ``$set``,
    ``$set_once``, ``$groups``, ``$context``, ``$integrations``, ``$anon_distinct_id``, and
    ``$options`` for options that PostHog does not define.
    """

    event: str
    distinct_id: str
    properties: dict[str, Any]
    uuid: str
    timestamp: str


class Refused(Exception):
    """An event cannot be sent; ``reason`` is the one under which it is counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


#: The name of the event for each ``kind``.
KINDS = {
    "identify": "$identify",
    "set": "$set",
    "alias": "$create_alias",
    "group": "$groupidentify",
    "page": "$pageview",
    "screen": "$screen",
    "exception": "$exception",
}

#: Events about a known person, which are never sent without an id.
IDENTITY_EVENTS = frozenset({"$identify", "$set", "$create_alias", "$groupidentify"})

#: The typed options of PostHog's V1 and the property that each replaces (wire notes, 2.3).
OPTIONS = {
    "cookieless_mode": "$cookieless_mode",
    "disable_skew_correction": "$ignore_sent_at",
    "process_person_profile": "$process_person_profile",
    "product_tour_id": "$product_tour_id",
}

_KNOWN = frozenset(
    """event distinct_id properties groups timestamp uuid set set_once previous_id options
    kind anonymous_id""".split()
)

_SESSION = frozenset({"$session_id", "$window_id"})
# Keys of ``extra`` that are merged into the properties, and PostHog's properties for them.
_NAMED = {"set": "$set", "set_once": "$set_once", "groups": "$groups"}
_MERGED = frozenset({*_NAMED, "options"})


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
    warn: Warn = lambda topic, text: None,
) -> Message:
    """
    Return the message made of *fields*; raise `Refused` if it cannot be an event.

    Args:
        fields: the keys of ``extra``; those without a meaning become properties if *flat*.
        name: the event's name if *fields* has no ``event`` and no ``kind``.
        created: when it was logged, in epoch seconds: the default of ``timestamp``.
        bound: identity and properties of the context; *fields* wins over both.
        defaults: properties that all others win over.
        owned: properties that win over all others.
        any_id: accept any text as ``uuid``, as Segment does for its ``messageId``.
        warn: called with a topic and a text for each correction.
    """
    event = _event_name(fields, name, warn)
    ids = stamp(created_or_now(created, warn))
    properties = _properties(fields, event, bound, defaults, flat, warn)
    given = fields.get("distinct_id")
    if type(given) is not str:
        given = unwrapped(given)
    if given is None and bound is not None:
        given = bound.distinct_id
    distinct_id = clean_id(given, warn)
    anonymous = _anonymous(fields, properties, warn) if "anonymous_id" in fields else None
    if event in IDENTITY_EVENTS:
        distinct_id = _identity(event, distinct_id, fields, properties, warn)
    elif distinct_id is None and anonymous is None:
        distinct_id = ids[0]
        properties.setdefault("$process_person_profile", False)
    if owned:
        properties.update(owned)
    if "uuid" in fields or "timestamp" in fields:
        ids = _given_ids(fields, ids, any_id, warn)
    if not _SESSION.isdisjoint(properties):
        _check_session(properties, warn)
    return Message(event, distinct_id or anonymous or "", properties, *ids)


def _event_name(fields: Mapping[str, Any], name: str, warn: Warn) -> str:
    event = fields.get("event")
    if event is None or unwrapped(event) is None:
        kind = KINDS.get(_kind(fields))
        if kind is None and "event" in fields and "distinct_id" not in fields:
            raise Refused("no_event_name", "event is None")
        event = kind or name
    if type(event) is not str:
        event = unwrapped(event)
        event = event.value if isinstance(event, enum.Enum) else event
        if not isinstance(event, str):
            raise Refused("bad_event_name", type(event).__name__)
    if len(event) > LONGEST // 4 or not event.isprintable():
        event = clean_text(event)
        if len(event.encode()) > LONGEST:
            warn("event name cut", f"event name of {len(event)} characters cut to {LONGEST} bytes")
            event = cut(event, LONGEST)
    if not event or event.isspace():
        raise Refused("no_event_name")
    return event


def _kind(fields: Mapping[str, Any]) -> str:
    """Return the ``kind`` in *fields*, or "" if it is not text."""
    kind = unwrapped(fields.get("kind"))
    kind = kind.value if isinstance(kind, enum.Enum) else kind
    return kind if isinstance(kind, str) else ""


def _properties(
    fields: Mapping[str, Any],
    event: str,
    bound: Bound | None,
    defaults: Mapping[str, Any] | None,
    flat: bool,
    warn: Warn,
) -> dict[str, Any]:
    """Merge, the later winning: defaults, context, flat extras, ``properties``, named keys."""
    properties = dict(defaults) if defaults else {}
    if bound is not None:
        properties.update(properties_of(bound, warn))
    if flat:
        for key in fields:
            if key not in _KNOWN:
                properties[key] = fields[key]
    if "kind" in fields or "previous_id" in fields:
        properties.update(_unused(fields, event, warn))
    own = fields.get("properties")
    if own is not None and unwrapped(own) is not None:
        properties.update(_mapping_or_property("properties", own, warn))
    if not _MERGED.isdisjoint(fields):
        _add_named(fields, properties, warn)
    return properties


def properties_of(bound: Bound, warn: Warn = lambda topic, text: None) -> Mapping[str, Any]:
    """Return the properties of *bound*, with its ``groups`` of any type among ``$groups``."""
    if "groups" not in bound.properties:
        return bound.properties
    properties = dict(bound.properties)
    _add_named({"groups": properties.pop("groups")}, properties, warn)
    return properties


def _mapping_or_property(key: str, value: Any, warn: Warn) -> dict[str, Any]:
    """Return *value* as a dict; anything else becomes the property *key*, with a warning."""
    found = mapping_in(value)
    if found is not None:
        return found
    warn(key, f"{key}: {type(value).__name__} is not a mapping; it is sent as a property")
    return {key: value}


def _unused(fields: Mapping[str, Any], event: str, warn: Warn) -> Iterator[tuple[str, Any]]:
    """Yield keys that have no meaning for this *event*, so that they are sent as properties."""
    if fields.get("kind") is not None and KINDS.get(_kind(fields)) != event:
        known = ", ".join(sorted(KINDS))
        warn("kind", f"kind: not one of {known}, or not the event's; it is sent as a property")
        yield "kind", fields["kind"]
    if fields.get("previous_id") is not None and event != "$create_alias":
        warn("previous_id", "previous_id: only an alias has one; it is sent as a property")
        yield "previous_id", fields["previous_id"]


def _add_named(fields: Mapping[str, Any], properties: dict[str, Any], warn: Warn) -> None:
    for key, name in _NAMED.items():
        given = unwrapped(fields.get(key))
        if given is None:
            continue
        value = mapping_in(given)
        if value is None:
            properties.update(_mapping_or_property(key, given, warn))
        else:
            properties[name] = {**(mapping_in(properties.get(name)) or {}), **value}
    options = unwrapped(fields.get("options"))
    if options is not None:
        properties.update(_options(options, warn))


def _options(given: Any, warn: Warn) -> dict[str, Any]:
    options = mapping_in(given)
    if options is None:
        return _mapping_or_property("options", given, warn)
    known = {OPTIONS[name]: value for name, value in options.items() if name in OPTIONS}
    unknown = {name: value for name, value in options.items() if name not in OPTIONS}
    return {**known, "$options": unknown} if unknown else known


def _anonymous(fields: Mapping[str, Any], properties: dict[str, Any], warn: Warn) -> str | None:
    """Return the anonymous id; put it into *properties*, for ``$identify`` to merge."""
    anonymous = clean_id(fields["anonymous_id"], warn, "anonymous_id")
    if anonymous is not None:
        properties["$anon_distinct_id"] = anonymous
    return anonymous


def _identity(
    event: str,
    distinct_id: str | None,
    fields: Mapping[str, Any],
    properties: dict[str, Any],
    warn: Warn,
) -> str:
    """Return the id of an event about a known person; complete *properties* for it."""
    properties.pop("$process_person_profile", None)
    if event == "$create_alias":
        return _alias(distinct_id, fields, properties, warn)
    if event == "$groupidentify":
        return _group(distinct_id, properties, warn)
    if distinct_id is None:
        raise Refused("no_distinct_id", event)
    if event == "$set" and not properties.get("$set") and not properties.get("$set_once"):
        raise Refused("empty_set")
    return distinct_id


def _alias(
    distinct_id: str | None, fields: Mapping[str, Any], properties: dict[str, Any], warn: Warn
) -> str:
    """Return the previous id, which is the distinct_id of PostHog's alias event."""
    if "previous_id" not in fields and properties.get("alias"):
        # In PostHog's own form: distinct_id is the previous id already.
        previous, new = distinct_id, clean_id(properties["alias"], warn, "alias")
    else:
        previous, new = clean_id(fields.get("previous_id"), warn, "previous_id"), distinct_id
    if previous is None:
        raise Refused("no_previous_id", "$create_alias")
    if new is None:
        raise Refused("no_distinct_id", "$create_alias")
    if previous == new:
        raise Refused("alias_to_itself", "$create_alias")
    properties["alias"] = new
    properties["distinct_id"] = previous
    return previous


def _group(distinct_id: str | None, properties: dict[str, Any], warn: Warn) -> str:
    given = (properties.get(name) for name in ("$group_type", "$group_key"))
    kind, key = (clean_text(text_of_id(value)) for value in given)
    if not kind or not key:
        raise Refused("no_group", "$groupidentify")
    properties["$group_type"], properties["$group_key"] = kind, key
    given_set = properties.get("$group_set")
    properties["$group_set"] = mapping_in(given_set) or {}
    if given_set is not None and mapping_in(given_set) is None:
        warn("bad group_set", "$group_set: not a mapping; the group's properties were left out")
    return distinct_id or shortened(f"${kind}_{key}")


def _check_session(properties: dict[str, Any], warn: Warn) -> None:
    """Remove a session or window id that is not text: PostHog would reject the whole batch."""
    for name in _SESSION.intersection(properties):
        value = unwrapped(properties[name])
        plain = value.value if isinstance(value, enum.Enum) else value
        if not isinstance(plain, (str, uuid.UUID, bytes, bytearray)):
            del properties[name]
            warn(f"bad {name}", f"{name}: {type(value).__name__} is not a text; it was left out")


def _message_id(given: str, warn: Warn) -> str:
    """Return the id for a server that takes any text."""
    found = shortened(clean_text(given))
    if found != given:
        why = f"outer spaces, control characters or more than {LONGEST} bytes"
        warn("bad uuid", f"uuid: it has {why}; one without them is sent instead")
    return found


def _given_ids(
    fields: Mapping[str, Any], ids: tuple[str, str], any_id: bool, warn: Warn
) -> tuple[str, str]:
    """Return the ``uuid`` and ``timestamp`` in *fields*, or those in *ids* for missing ones."""
    name, timestamp = ids
    given = given_uuid(fields.get("uuid"), warn)
    if given:  # "" means absent, as for V0 (1.4)
        name = (_message_id(given, warn) or name) if any_id else as_uuid(given, warn)
    moment = unwrapped(fields.get("timestamp"))
    if moment is not None:
        parsed = parse_timestamp(moment)
        if parsed is None:
            warn("bad timestamp", "timestamp: cannot be read; the record's own time is sent")
        else:
            timestamp = parsed
    return name, timestamp
