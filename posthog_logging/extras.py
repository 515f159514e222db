"""
Build the ``extra`` of a log call that identifies a person, names a group, or views a page.

Each function returns a mapping for ``extra=``; *more* adds further keys to it, such as
``timestamp`` or ``groups``::

    log.info("signed up", extra=extras.identify("user-1", {"email": "a@example.org"}))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .events.identifiers import text_of_id
from .events.kinds import properties_in


__all__ = ["alias", "capture", "group", "identify", "page", "screen", "set"]

Extra = dict[str, Any]
Properties = Mapping[str, Any]

# PostHog's names for the reserved properties of Segment's page call; the dialects of the
# Segment family map them back.
_PAGE = {
    "url": "$current_url",
    "path": "$pathname",
    "host": "$host",
    "referrer": "$referrer",
    "referring_domain": "$referring_domain",
}


def capture(
    distinct_id: Any = None,
    event: object = None,
    properties: Properties | None = None,
    **more: Any,
) -> Extra:
    """
    Build the ``extra`` for *event*, a name or a typed event, of the person *distinct_id*.

    If *event* is None the log message is the name.
    """
    return {"distinct_id": distinct_id, "event": event, "properties": properties, **more}


def identify(
    distinct_id: Any,
    set: Properties | None = None,  # noqa: A002 - the key of the mapping, too
    set_once: Properties | None = None,
    *,
    anonymous_id: Any = None,
    **more: Any,
) -> Extra:
    """
    Build the ``extra`` that identifies the person *distinct_id* and sets their properties.

    At a login give *anonymous_id*: what that visitor did before becomes the person's. (PostHog
    refuses an `alias` of a person who has been identified before.)

    Args:
        distinct_id: the person's id.
        set: properties of the person, which overwrite older ones.
        set_once: properties of the person that are set only if they are missing.
        anonymous_id: the id that the visitor had before the login.
        more: further keys of ``extra``.
    """
    return {
        "distinct_id": distinct_id,
        "event": "$identify",
        "set": {} if set is None else set,
        **_given(set_once=set_once, anonymous_id=anonymous_id),
        **more,
    }


def set(  # noqa: A001 - the name of the call in both protocols
    distinct_id: Any,
    properties: Properties | None = None,
    set_once: Properties | None = None,
    **more: Any,
) -> Extra:
    """Build the ``extra`` that sets *properties* of a person, and missing ones of *set_once*."""
    return {
        "distinct_id": distinct_id,
        "event": "$set",
        **_given(set=properties, set_once=set_once),
        **more,
    }


def alias(previous_id: Any, distinct_id: Any, **more: Any) -> Extra:
    """Build the ``extra`` that merges *previous_id* into *distinct_id*; at a login `identify`."""
    return {
        "distinct_id": distinct_id,
        "event": "$create_alias",
        "previous_id": previous_id,
        **more,
    }


def group(
    group_type: str,
    group_key: Any,
    properties: Properties | None = None,
    distinct_id: Any = None,
    **more: Any,
) -> Extra:
    """
    Build the ``extra`` that sets *properties* of a group.

    Args:
        group_type: the group's type, such as ``"company"``.
        group_key: the group's id, such as ``"acme"``.
        properties: properties of the group.
        distinct_id: the person who set them; None: the group itself.
        more: further keys of ``extra``.
    """
    return {
        "distinct_id": distinct_id,
        "event": "$groupidentify",
        **_with(
            more,
            {
                "$group_type": group_type,
                "$group_key": text_of_id(group_key),
                "$group_set": {} if properties is None else properties,
            },
        ),
    }


def page(
    distinct_id: Any = None,
    name: str | None = None,
    properties: Properties | None = None,
    category: str | None = None,
    **more: Any,
) -> Extra:
    """
    Build the ``extra`` for a view of the page *name* by the person *distinct_id*.

    Segment's properties ``url``, ``path``, ``host``, ``referrer`` and ``referring_domain`` become
    PostHog's, such as ``$current_url``.
    """
    given = {_PAGE.get(key, key): value for key, value in properties_in(properties).items()}
    return {
        "distinct_id": distinct_id,
        "event": "$pageview",
        **_with(more, {**_given(name=name, category=category), **given}),
    }


def screen(
    distinct_id: Any = None,
    name: str | None = None,
    properties: Properties | None = None,
    category: str | None = None,
    **more: Any,
) -> Extra:
    """Build the ``extra`` for a view of the screen *name* by the person *distinct_id*."""
    named = {} if name is None else {"$screen_name": name}
    return {
        "distinct_id": distinct_id,
        "event": "$screen",
        **_with(more, {**named, **_given(category=category), **properties_in(properties)}),
    }


def _given(**arguments: Any) -> Extra:
    """Return the arguments other than None."""
    return {key: value for key, value in arguments.items() if value is not None}


def _with(more: Extra, properties: Extra) -> Extra:
    """Return *more* with *properties* added; its own ``properties`` win."""
    return {**more, "properties": {**properties, **properties_in(more.get("properties"))}}
