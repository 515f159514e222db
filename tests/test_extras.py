"""The call kinds: each mapping becomes the message that PostHog's documents ask for."""

from __future__ import annotations

import inspect
import logging

from collections.abc import Mapping
from typing import Any

import pytest

from values import value_of

from posthog_logging import extras
from posthog_logging.events.message import Message, assemble
from posthog_logging.events.records import is_event


def sent(extra: Mapping[str, Any]) -> Message:
    return assemble(extra, "a log line", 1_704_164_645.5)


PROPERTIES = {"a": 1}
CALLS: dict[str, tuple[dict[str, Any], tuple[str, str, dict[str, Any]]]] = {
    "capture": (
        extras.capture("u", "played", PROPERTIES),
        ("played", "u", {"a": 1}),
    ),
    "capture without a name": (extras.capture("u"), ("a log line", "u", {})),
    "capture with more": (
        extras.capture("u", "played", groups={"team": 9}, set={"b": 2}, colour="red"),
        ("played", "u", {"$groups": {"team": 9}, "$set": {"b": 2}, "colour": "red"}),
    ),
    "identify": (
        extras.identify("u", PROPERTIES, {"b": 2}),
        ("$identify", "u", {"$set": {"a": 1}, "$set_once": {"b": 2}}),
    ),
    "identify of a visitor": (
        extras.identify("u", {"a": 1}, anonymous_id="visitor"),
        ("$identify", "u", {"$set": {"a": 1}, "$anon_distinct_id": "visitor"}),
    ),
    "identify with properties of the event": (
        extras.identify("u", set={"a": 1}, properties={"b": 2}),
        ("$identify", "u", {"$set": {"a": 1}, "b": 2}),
    ),
    "capture of a visitor": (
        extras.capture("u", "played", anonymous_id="visitor"),
        ("played", "u", {"$anon_distinct_id": "visitor"}),
    ),
    "identify of nothing": (extras.identify("u"), ("$identify", "u", {"$set": {}})),
    "set": (extras.set("u", PROPERTIES), ("$set", "u", {"$set": {"a": 1}})),
    "set once": (
        extras.set("u", set_once=PROPERTIES),
        ("$set", "u", {"$set_once": {"a": 1}}),
    ),
    "alias": (
        extras.alias("old", "new"),
        ("$create_alias", "old", {"alias": "new", "distinct_id": "old"}),
    ),
    "group": (
        extras.group("team", 9, PROPERTIES),
        (
            "$groupidentify",
            "$team_9",
            {"$group_type": "team", "$group_key": "9", "$group_set": {"a": 1}},
        ),
    ),
    "group of a user": (
        extras.group("team", 9, distinct_id="u", properties=None),
        ("$groupidentify", "u", {"$group_type": "team", "$group_key": "9", "$group_set": {}}),
    ),
    "page": (
        extras.page("u", "Home", PROPERTIES, "docs"),
        ("$pageview", "u", {"name": "Home", "category": "docs", "a": 1}),
    ),
    "page of nothing": (extras.page("u"), ("$pageview", "u", {})),
    "page whose properties win": (
        extras.page("u", "Home", {"name": "Start"}),
        ("$pageview", "u", {"name": "Start"}),
    ),
    "screen": (
        extras.screen("u", "Home", PROPERTIES, "docs"),
        ("$screen", "u", {"$screen_name": "Home", "category": "docs", "a": 1}),
    ),
    "screen of nothing": (extras.screen("u"), ("$screen", "u", {})),
    "properties of no kind": (
        extras.page("u", "Home", ["odd"]),  # type: ignore[arg-type]
        ("$pageview", "u", {"name": "Home", "properties": ["odd"]}),
    ),
}


@pytest.mark.parametrize(("extra", "expected"), CALLS.values(), ids=CALLS)
def test_each_call_becomes_its_message(extra: dict[str, Any], expected: Any) -> None:
    """Name, id and properties of each kind are those of the capture contract."""
    message = sent(extra)

    assert expected == (message.event, message.distinct_id, message.properties)


@pytest.mark.parametrize("name", extras.__all__)
def test_each_call_takes_a_uuid_and_a_timestamp(name: str) -> None:
    """What every event may have can be said with each kind."""
    call = getattr(extras, name)
    needed = [
        f"{parameter.name}-1"
        for parameter in inspect.signature(call).parameters.values()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    given = {"uuid": "01890b5c-2a3b-7c4d-8e5f-0123456789ab", "timestamp": 0}
    if name == "set":
        given["set_once"] = PROPERTIES  # type: ignore[assignment]
    message = sent(call(*needed, **given))

    assert given["uuid"] == message.uuid
    assert "1970-01-01T00:00:00.000000Z" == message.timestamp


@pytest.mark.parametrize("name", extras.__all__)
def test_each_mapping_is_what_logging_takes(name: str) -> None:
    """No key clashes with an attribute of a record, so ``extra=`` takes each of them."""
    extra = next(given for key, (given, _) in CALLS.items() if key.split()[0] == name)
    log = logging.getLogger("tests.extras")
    record = log.makeRecord("tests", 20, __file__, 1, "hello", (), None, extra=extra)

    assert is_event(record)


def test_the_callers_properties_are_not_changed() -> None:
    """The mappings given are read only."""
    given = {"a": 1}
    sent(extras.page("u", "Home", given))
    sent(extras.group("team", 1, given))
    sent(extras.identify("u", given, given))

    assert {"a": 1} == given


@pytest.mark.parametrize("call", [extras.page, extras.screen], ids=["page", "screen"])
def test_properties_without_an_end_end(call: Any) -> None:
    """To build the mapping takes as much of a mapping as an event has room for."""
    found = call("u", "Home", value_of("Endless()"))["properties"]

    assert "more keys" == found["[cut]"]


def test_a_page_speaks_posthogs_words() -> None:
    """What Segment reserves for pages gets PostHog's name, and back on Segment's wire."""
    said = extras.page("user-1", "Pricing", {"url": "https://example.org/", "plan": "gold"})

    expected = {"name": "Pricing", "$current_url": "https://example.org/", "plan": "gold"}
    assert expected == said["properties"]
