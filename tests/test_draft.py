"""The short way makes the same event as the long way."""

from __future__ import annotations

import json
import logging

from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from posthog_logging import PostHogHandler
from posthog_logging.transport import MemoryTransport


TEXT = st.text(max_size=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def events(said: dict[str, Any], name: str, **options: Any) -> list[dict[str, Any]]:
    """Return what arrives of one record, but for what is new in each event."""
    transport = MemoryTransport()
    handler = PostHogHandler(
        "phc_key", "http://x.example", transport=transport, compression=None, **options
    )
    record = logging.makeLogRecord({"msg": name, "created": 1.7e9, **said})
    handler.handle(record)
    handler.close()
    found = [one for request in transport.requests for one in json.loads(request.body)["batch"]]
    for one in found:
        if one["distinct_id"] == one["uuid"]:
            del one["distinct_id"]
        del one["uuid"]
    return found


def the_long_way(event: dict[str, Any]) -> dict[str, Any]:
    """A hook that changes nothing: with a hook there is no short way."""
    return event


@given(TEXT, TEXT, st.dictionaries(TEXT, VALUES, max_size=4))
@pytest.mark.parametrize("dialect", ["posthog", "posthog-v1"])
def test_both_ways_meet(dialect: str, name: str, user: str, properties: dict[str, Any]) -> None:
    """Whatever the name, the id and the properties: the event is the same, or none both times."""
    said = {"distinct_id": user, "properties": properties}

    short = events(said, name, dialect=dialect)
    long = events(said, name, dialect=dialect, before_send=the_long_way)

    assert long == short


@pytest.mark.parametrize(
    "properties",
    [{"plan": "gold"}, {"$lib": "mine"}, {"n": 2**70}, {"nul": "\0"}, {"quote": '"$'}, {}],
    ids=["a default's name", "the library's name", "huge", "nul", "a dollar in text", "empty"],
)
def test_properties_that_clash(properties: dict[str, Any]) -> None:
    """What must not simply be spliced goes the long way, with the handler's own properties."""
    said = {"distinct_id": "user-1", "properties": properties}
    options: dict[str, Any] = {"properties": {"plan": "free"}}

    long = events(said, "movie played", before_send=the_long_way, **options)

    assert long == events(said, "movie played", **options)
    assert 1 == len(long)
