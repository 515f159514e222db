"""The short way makes the same event as the long way."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import threading

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from posthog_logging import PostHogHandler
from posthog_logging.delivery.own_log import is_ours
from posthog_logging.delivery.transport import MemoryTransport
from posthog_logging.wire import Response


TEXT = st.text(max_size=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def events(*said: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """Return what arrives of records, but for what is new in each event."""
    transport = MemoryTransport()
    handler = PostHogHandler(
        "phc_key", "http://x.example", transport=transport, compression=None, **options
    )
    is_ours(logging.makeLogRecord({"name": "app"}))  # a logger's first record goes the long way
    for one in said:
        handler.handle(logging.makeLogRecord({"name": "app", "created": 1.7e9, **one}))
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
    said = {"msg": name, "distinct_id": user, "properties": properties}

    short = events(said, dialect=dialect)
    long = events(said, dialect=dialect, before_send=the_long_way)

    assert long == short


SAID = st.fixed_dictionaries(
    {
        "msg": st.sampled_from(["movie played", "movie left", " odd\t", "", "$identify"]),
        "distinct_id": st.sampled_from(["user-1", "user-2", 'quo"te', ""]),
        "properties": st.sampled_from([{}, {"n": 1}, {"n": [1]}, {"$ip": "x"}, {"nul": "\0"}]),
        "created": st.sampled_from([1.7e9, 1.7e9 + 0.5, 1.7e9 + 1.0, 1.7e9 - 0.001, 0.0]),
    }
)


@given(st.lists(SAID, max_size=6))
def test_many_at_once(said: list[dict[str, Any]]) -> None:
    """What the thread asks of many drafts at once has the answer that each alone would have."""
    assert events(*said, before_send=the_long_way) == events(*said)


def test_the_bounds_do_not_drift(transport: Any) -> None:
    """However threads put drafts while the thread corrects their number and size, room is room."""
    room = 20_000
    handler = PostHogHandler(
        "phc_key", "http://x.example", transport=transport, max_queue_size=room
    )

    def put(count: int, *names: str) -> None:
        for number in range(count):
            name = names[number % len(names)]
            said = {"msg": name, "distinct_id": "user-1", "properties": {"n": number}}
            handler.handle(logging.makeLogRecord(said))

    def write() -> None:
        for _ in range(8):
            put(500, "movie played", "movie left", " ")  # the last is refused, in the thread
            handler.flush()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert handler.flush()
    transport.default = Response(503)
    put(room + 100, "movie played")
    counts = handler.counts
    handler.close()

    assert room == counts["waiting"]
    assert 100 == counts["queue_full"]


@pytest.mark.parametrize(
    "properties",
    [{"plan": "gold"}, {"$lib": "mine"}, {"n": 2**70}, {"nul": "\0"}, {"quote": '"$'}, {}],
    ids=["a default's name", "the library's name", "huge", "nul", "a dollar in text", "empty"],
)
def test_properties_that_clash(properties: dict[str, Any]) -> None:
    """What must not simply be spliced goes the long way, with the handler's own properties."""
    said = {"msg": "movie played", "distinct_id": "user-1", "properties": properties}
    options: dict[str, Any] = {"properties": {"plan": "free"}}

    long = events(said, before_send=the_long_way, **options)

    assert long == events(said, **options)
    assert 1 == len(long)


@pytest.mark.parametrize("key", [Decimal(9), Fraction(9), float("nan"), dt.timedelta(1), True])
@pytest.mark.parametrize(
    ("name", "properties"),
    [
        ("$groupidentify", {"$group_type": "team", "$group_key": 1}),
        ("$create_alias", {"alias": 1}),
    ],
)
def test_an_id_among_the_properties(name: str, properties: dict[str, Any], key: Any) -> None:
    """A group's key, or a person's id, is the text of the value, not of its JSON."""
    *_, last = properties
    said = {"event": name, "distinct_id": "user-1", "properties": {**properties, last: key}}

    assert events(said, before_send=the_long_way) == events(said)
