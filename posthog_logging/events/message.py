"""
What travels: a `Message`, and how the things said in a log call become one.

The rules of identity, names and precedence are here, once, for every dialect: they follow
PostHog's capture contract (sdk-specs ``capture``, ``identify``, ``alias``, ``group-identify``).
"""

from __future__ import annotations

import enum

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..context import Bound
from .identifiers import (
    LONGEST,
    Tell,
    as_uuid,
    clean_id,
    clean_text,
    cut,
    shortened,
    stamp,
    text_of_id,
)
from .timestamps import parse_timestamp


__all__ = [
    "IDENTITY_EVENTS",
    "KINDS",
    "OPTIONS",
    "Message",
    "Refused",
    "assemble",
]


class Message(NamedTuple):
    """
    One event in PostHog's model, which is the neutral one: every dialect maps from it.

    ``timestamp`` is RFC 3339 in UTC, ``uuid`` canonical; both stay the same for ever.
    What has no field of its own lives in ``properties`` under its ``$`` name: ``$set``,
    ``$set_once``, ``$groups``, ``$context``, ``$integrations``, ``$anon_distinct_id``.
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

_KNOWN = frozenset(
    """event distinct_id properties groups timestamp uuid set set_once previous_id options
    kind""".split()
)

# Keys beside ``properties`` that end up in them, under the names of PostHog's properties.
_MERGED = frozenset({"set", "set_once", "groups", "options"})


def assemble(
    fields: Mapping[str, Any],
    name: str,
    created: float,
    *,
    bound: Bound | None = None,
    defaults: Mapping[str, Any] | None = None,
    owned: Mapping[str, Any] | None = None,
    flat: bool = True,
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
        ids = _given_ids(fields, ids, tell)
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
    if len(event) > LONGEST // 4 or not event.isprintable():
        event = clean_text(event)
        if len(event.encode()) > LONGEST:
            tell("event name cut", f"event name of {len(event)} characters cut to {LONGEST} bytes")
            event = cut(event, LONGEST)
    if not event or event.isspace():
        raise Refused("no_event_name")
    return event


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
        for option, value in options.items():
            properties[OPTIONS.get(option) or option] = value
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
    kind, key = ("" if value is None else clean_text(text_of_id(value)) for value in given)
    if not kind or not key:
        raise Refused("no_group", "$groupidentify")
    properties["$group_type"], properties["$group_key"] = kind, key
    if not isinstance(properties.get("$group_set"), Mapping):
        if properties.get("$group_set") is not None:
            tell("bad group_set", "a group's properties that are no mapping were left out")
        properties["$group_set"] = {}
    return distinct_id or shortened(f"${kind}_{key}")


def _given_ids(fields: Mapping[str, Any], ids: tuple[str, str], tell: Tell) -> tuple[str, str]:
    name, moment = ids
    given = fields.get("uuid")
    if given is not None and given != "":  # V0 reads "" as absent, too (1.4)
        name = as_uuid(given, tell)
    if fields.get("timestamp") is not None:
        parsed = parse_timestamp(fields["timestamp"])
        if parsed is None:
            tell("bad timestamp", "a timestamp that is none was replaced by the record's")
        else:
            moment = parsed
    return name, moment
