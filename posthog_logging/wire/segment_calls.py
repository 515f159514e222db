"""
The six calls of the Segment family: from PostHog's model to each of them, and back.

Vendors differ in how they take calls, not in the calls; see `segment`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..events.identifiers import clean_id, clean_text, shortened
from ..events.message import Message, Refused
from ..events.timestamps import milliseconds, parse_timestamp
from ..version import LIBRARY, VERSION
from .posthog import CONTEXT_PROPERTIES, canonical


__all__ = ["Fields", "call_of", "mapping_at", "message_of"]

Fields = dict[str, Any]

# Instructions for PostHog's server, not properties of the event.
_POSTHOG_ONLY = frozenset({"$geoip_disable", "$is_server"})
_PLACES = {name: path for path, name in CONTEXT_PROPERTIES.items()}
_PAGE_PROPERTIES = {
    "$current_url": "url",
    "$pathname": "path",
    "$referrer": "referrer",
    "$host": "host",
    "$referring_domain": "referring_domain",
}
_WITH_PROPERTIES = frozenset({"track", "page", "screen"})
_FALSE = frozenset({"false", "0"})
_NO_TYPE = "group"  # stands for no group type, as in Jitsu (5)


def call_of(message: Message) -> Fields:
    """
    Return *message* as one of the six calls, with the ``messageId`` first.

    Raises `Refused` if the call would lack an id or another required field.
    """
    properties = {k: v for k, v in message.properties.items() if k not in _POSTHOG_ONLY}
    unknown = _taken(properties, "$options")
    if unknown:
        properties = {**unknown, **properties}
    kind = _TYPE_OF.get(message.event, "track")
    fields: Fields = {"messageId": message.uuid, "type": kind}
    if message.timestamp:
        fields["timestamp"] = milliseconds(message.timestamp)
    _CALLS[kind].write(message, properties, fields)
    fields["context"] = _context(properties, kind)
    integrations = _taken(properties, "$integrations")
    if integrations:
        fields["integrations"] = integrations
    if properties or kind in _WITH_PROPERTIES:
        fields["properties"] = properties
    return fields


# Each writer moves what its call has a field for from the properties to the fields.


def _write_track(message: Message, properties: Fields, fields: Fields) -> None:
    if not message.event.strip():
        raise Refused("no_event_name")
    fields |= _ids(message, properties)
    fields["event"] = message.event


def _write_identify(message: Message, properties: Fields, fields: Fields) -> None:
    fields |= _ids(message, properties)
    fields["traits"] = _taken(properties, "$set") or {}


def _write_alias(message: Message, properties: Fields, fields: Fields) -> None:
    """Write an alias: PostHog's event has the old id, Segment's call the new one."""
    user = _id(properties.pop("alias", None))
    properties.pop("distinct_id", None)
    if not message.distinct_id:
        raise Refused("no_previous_id", message.event)
    if not user:
        raise Refused("no_distinct_id", message.event)
    fields |= {"previousId": message.distinct_id, "userId": user}


def _write_page(message: Message, properties: Fields, fields: Fields) -> None:
    fields |= _ids(message, properties)
    _move_to_fields(properties, fields, _PAGE_NAMES)
    for name, plain in _PAGE_PROPERTIES.items():
        if name in properties and plain not in properties:
            properties[plain] = properties[name] if name in _PLACES else properties.pop(name)


def _write_screen(message: Message, properties: Fields, fields: Fields) -> None:
    fields |= _ids(message, properties)
    _move_to_fields(properties, fields, _SCREEN_NAMES)


def _write_group(message: Message, properties: Fields, fields: Fields) -> None:
    kind, key = _text_at(properties, "$group_type"), _text_at(properties, "$group_key")
    if not key.strip():
        raise Refused("no_group", message.event)
    for name in ("$group_type", "$group_key"):
        properties.pop(name, None)
    if message.distinct_id == _group_own_id(kind, key):
        fields["anonymousId"] = message.distinct_id  # no person; Segment requires an id
    else:
        fields |= _ids(message, properties)
    fields["groupId"] = key
    traits = dict(_taken(properties, "$group_set") or {})
    fields["traits"] = traits if kind in ("", _NO_TYPE) else {**traits, "groupType": kind}


def _ids(message: Message, properties: Fields) -> Fields:
    """Return ``userId``, ``anonymousId`` or both, but never null (3); refuse an event without."""
    distinct_id = message.distinct_id.strip()
    anonymous = _id(properties.get("$anon_distinct_id"))
    if not distinct_id and not anonymous:
        raise Refused("no_distinct_id", message.event)
    if _is_personless(properties) and distinct_id:
        return {"anonymousId": distinct_id}
    properties.pop("$anon_distinct_id", None)
    if distinct_id in ("", anonymous):
        return {"anonymousId": anonymous}
    return {"userId": distinct_id, **({"anonymousId": anonymous} if anonymous else {})}


def _is_personless(properties: Mapping[str, Any]) -> bool:
    profile = properties.get("$process_person_profile")
    return profile is not None and str(profile).strip().lower() in _FALSE


def _context(properties: Fields, kind: str) -> Fields:
    """Return Segment's context, made of *properties*, which are removed there."""
    context = dict(_taken(properties, "$context") or {})
    context["library"] = {
        "name": str(properties.pop("$lib", None) or LIBRARY),
        "version": str(properties.pop("$lib_version", None) or VERSION),
    }
    if not _PLACES.keys().isdisjoint(properties):
        _place_all(context, properties, kind)
    traits = _taken(properties, "$set")
    if traits is not None:
        context["traits"] = {**mapping_at(context, "traits"), **traits}
    groups = _taken(properties, "$groups")
    if groups:
        context.setdefault("groupId", str(next(iter(groups.values()))))
        context["groups"] = groups
    return context


def _place_all(context: Fields, properties: Fields, kind: str) -> None:
    """
    Move properties into *context*.

    Properties without a ``$`` are the caller's own, so they are copied. ``title`` only means
    the title of a page in page calls.
    """
    for name, path in _PLACES.items():
        if properties.get(name) is None or (name == "title" and kind != "page"):
            continue
        if _place(context, path, properties[name]) and name[0] == "$":
            del properties[name]


def _place(context: Fields, path: tuple[str, ...], value: Any) -> bool:
    """Set one value in nested *context*; return False if a parent is not an object."""
    for key in path[:-1]:
        inner = context.get(key, {})
        if not isinstance(inner, Mapping):
            return False
        context[key] = inner = dict(inner)  # a copy: the caller's mapping is not changed
        context = inner
    context[path[-1]] = value
    return True


def _move_to_fields(properties: Fields, fields: Fields, names: Mapping[str, str]) -> None:
    """Move properties to the fields of the call that *names* gives for them."""
    for name, field in names.items():
        if properties.get(name):
            fields[field] = str(properties.pop(name))


# Each reader returns the event's name and its distinct_id.


def message_of(raw: Any) -> Message:
    """Return the message of one call; raises ``ValueError`` if *raw* is not one."""
    kind = raw.get("type") if isinstance(raw, dict) else None
    if not isinstance(kind, str) or kind not in _CALLS:
        raise ValueError(f"a call's type is one of {', '.join(_CALLS)}, not {kind!r}")
    properties = dict(mapping_at(raw, "properties"))
    context = _rest_of_context(dict(mapping_at(raw, "context")), properties)
    if context:
        properties["$context"] = context
    if raw.get("integrations"):
        properties["$integrations"] = raw["integrations"]
    event, distinct_id = _CALLS[kind].read(raw, properties)
    time = raw.get("timestamp") or raw.get("originalTimestamp")
    return Message(
        event,
        distinct_id,
        properties,
        canonical(str(raw.get("messageId") or "")),
        (parse_timestamp(time) or str(time)) if time else "",
    )


def _read_track(raw: Fields, properties: Fields) -> tuple[str, str]:
    return _text_at(raw, "event"), _reader_id(raw, properties)


def _read_identify(raw: Fields, properties: Fields) -> tuple[str, str]:
    properties["$set"] = {**mapping_at(properties, "$set"), **mapping_at(raw, "traits")}
    return "$identify", _reader_id(raw, properties)


def _read_alias(raw: Fields, properties: Fields) -> tuple[str, str]:
    previous = _text_at(raw, "previousId")
    properties |= {"alias": _text_at(raw, "userId"), "distinct_id": previous}
    return "$create_alias", previous


def _read_page(raw: Fields, properties: Fields) -> tuple[str, str]:
    _copy_from_fields(raw, properties, _PAGE_NAMES)
    for name, plain in _PAGE_PROPERTIES.items():
        if plain in properties and properties.get(name, properties[plain]) == properties[plain]:
            properties[name] = properties.pop(plain)
    return "$pageview", _reader_id(raw, properties)


def _read_screen(raw: Fields, properties: Fields) -> tuple[str, str]:
    _copy_from_fields(raw, properties, _SCREEN_NAMES)
    return "$screen", _reader_id(raw, properties)


def _read_group(raw: Fields, properties: Fields) -> tuple[str, str]:
    traits = dict(mapping_at(raw, "traits"))
    kind, key = str(traits.pop("groupType", _NO_TYPE)), _text_at(raw, "groupId")
    properties |= {"$group_type": kind, "$group_key": key, "$group_set": traits}
    own = _group_own_id(kind, key)
    if not _text_at(raw, "userId") and _text_at(raw, "anonymousId") in ("", own):
        return "$groupidentify", own
    return "$groupidentify", _reader_id(raw, properties)


def _reader_id(raw: Fields, properties: Fields) -> str:
    user, anonymous = _text_at(raw, "userId"), _text_at(raw, "anonymousId")
    if anonymous and not (_is_personless(properties) and not user):
        properties["$anon_distinct_id"] = anonymous
    return user or anonymous


def _rest_of_context(context: Fields, properties: Fields) -> Fields:
    """Move values that PostHog has a property for to *properties*; return the rest."""
    library = context.pop("library", None)
    if isinstance(library, dict):
        for name, key in (("$lib", "name"), ("$lib_version", "version")):
            if library.get(key):
                properties.setdefault(name, library[key])
    for path, name in CONTEXT_PROPERTIES.items():
        _take_from(context, path, name, properties)
    traits = context.get("traits")
    if isinstance(traits, dict):
        properties.setdefault("$set", context.pop("traits"))
    _groups_from(context, properties)
    return context


def _take_from(context: Fields, path: tuple[str, ...], name: str, properties: Fields) -> None:
    """Move the value at *path* in *context* to the property *name*, unless they differ."""
    *above, last = path
    parent = context
    for key in above:
        inner = parent.get(key)
        if not isinstance(inner, dict):
            return
        parent = inner
    value = parent.get(last)
    if value is None or properties.setdefault(name, value) != value:
        return
    if not above:
        del context[last]
        return
    left = {k: v for k, v in parent.items() if k != last}
    if left:
        context[above[0]] = left
    else:
        del context[above[0]]


def _groups_from(context: Fields, properties: Fields) -> None:
    """Move the groups in *context* to ``$groups``; a ``groupId`` alone has no type."""
    groups, key = context.get("groups"), context.get("groupId")
    if isinstance(groups, dict) and groups:
        properties["$groups"] = context.pop("groups")
        if key == str(next(iter(groups.values()))):
            del context["groupId"]
    elif key:
        properties["$groups"] = {_NO_TYPE: context.pop("groupId")}


def _copy_from_fields(raw: Fields, properties: Fields, names: Mapping[str, str]) -> None:
    """Copy fields of the call to their properties: the reverse of `_move_to_fields`."""
    for name, field in names.items():
        if raw.get(field):
            properties.setdefault(name, raw[field])


class _Call(NamedTuple):
    """One of the six calls: PostHog's event for it, and the mapping in both directions."""

    event: str
    write: Callable[[Message, Fields, Fields], None]
    read: Callable[[Fields, Fields], tuple[str, str]]


_PAGE_NAMES = {"name": "name", "category": "category"}
_SCREEN_NAMES = {"$screen_name": "name", "category": "category"}
_CALLS: Mapping[str, _Call] = {
    "identify": _Call("$identify", _write_identify, _read_identify),
    "track": _Call("", _write_track, _read_track),
    "page": _Call("$pageview", _write_page, _read_page),
    "screen": _Call("$screen", _write_screen, _read_screen),
    "group": _Call("$groupidentify", _write_group, _read_group),
    "alias": _Call("$create_alias", _write_alias, _read_alias),
}
# Segment has no call of its own for `$set`: identify sets traits, too.
_TYPE_OF = {call.event: kind for kind, call in _CALLS.items() if call.event} | {"$set": "identify"}


def _taken(properties: Fields, name: str) -> dict[str, Any] | None:
    """Remove a mapping from *properties* and return it; any other value stays there."""
    value = properties.get(name)
    if value is None or not isinstance(value, Mapping):
        return None
    del properties[name]
    return dict(value)


def mapping_at(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the mapping under *name*; an empty one if there is none."""
    value = holder.get(name)
    return value if isinstance(value, Mapping) else {}


def _id(value: Any) -> str:
    """Return an id as text, "" if it names nobody; some servers fail on numbers (1.1)."""
    return "" if value is None else clean_id(value, _ignore) or ""


def _ignore(topic: str, text: str) -> None:
    """Log no correction: that was logged when the message was made."""


def _text_at(raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field)
    return "" if value is None else str(value)


def _group_own_id(kind: str, key: str) -> str:
    """Return the distinct_id of a group event without a person, as `assemble` makes it."""
    return shortened(clean_text(f"${kind}_{key}"))
