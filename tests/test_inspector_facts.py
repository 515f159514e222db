"""
What PostHog's servers answer, as a table: a request, its status, its body, what becomes of it.

Each line is a fact of PostHog's ``rust/capture`` and ``rust/capture-logs``.
"""

from __future__ import annotations

import gzip
import json
import zlib

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from posthog_logging.inspector.rules import Incoming, Judged, find_judge


KEY = "phc_a_project_key_of_this_test"
NOW = 1_772_600_767.0
TIME = "2026-03-04T05:06:07.000Z"
ID = "0195f2b1-6c1e-7d55-9d0e-2f1f5f0f4a11"
OTHER_ID = "0195f2b1-6c1e-7d55-9d0e-2f1f5f0f4a12"
ABSENT: Any = ...


class Fact(NamedTuple):
    """
    What one request leads to.

    Args:
        error: in the body of a refusal.
        good: the accepted events' names.
        bad: the refused events' reasons.
        warning: in a warning of the first accepted event.
        stored: the first accepted event's distinct id.
    """

    status: int
    error: str = ""
    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    warning: str | None = None
    stored: str | None = None


def check(judged: Judged, fact: Fact) -> None:
    assert fact.status == judged.status, judged.body
    assert fact.error in judged.body.decode()
    if fact.status < 300:
        assert fact.good == tuple(one.event for one in judged.good)
        assert fact.bad == tuple(one.reason for one in judged.bad)
    else:
        assert [] == list(judged.good)
    if fact.warning is not None:
        assert any(fact.warning in text for text in judged.good[0].warnings)
    elif fact.status < 300 and judged.good:
        assert () == judged.good[0].warnings
    if fact.stored is not None:
        assert fact.stored == judged.good[0].distinct_id


def ask(path: str, body: Any, headers: Mapping[str, str] | None = None, query: str = "") -> Judged:
    judge = find_judge(path)
    assert judge is not None
    plain = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = dict(part.split("=", 1) for part in query.split("&") if part)
    return judge.judge(Incoming(path, named, dict(headers or {}), plain, NOW))


def with_changes(known: dict[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**known, **changed}.items() if value is not ABSENT}


# V1.

HEADERS = {
    "authorization": f"Bearer {KEY}",
    "content-type": "application/json",
    "user-agent": "test/1",
    "posthog-sdk-info": "test/1",
    "posthog-attempt": "1",
    "posthog-request-id": ID,
    "posthog-request-timestamp": TIME,
}


def event(**changed: Any) -> dict[str, Any]:
    known = {"event": "a", "uuid": ID, "distinct_id": "u", "timestamp": TIME, "properties": {}}
    return with_changes(known, changed)


OK = Fact(200, good=("a",))
PARSING = Fact(400, "request_parsing_error")


def dropped(details: str) -> Fact:
    return Fact(200, details, bad=(details,))


V1_EVENTS = {
    "whole": ({}, OK),
    "event missing": ({"event": ABSENT}, PARSING),
    "event null": ({"event": None}, PARSING),
    "event a number": ({"event": 5}, PARSING),
    "event empty": ({"event": ""}, dropped("missing_event_name")),
    "event of 200 bytes": ({"event": "é" * 100}, Fact(200, good=("é" * 100,))),
    "event of 202 bytes": ({"event": "é" * 101}, dropped("event_name_too_long")),
    "performance event": ({"event": "$performance_event"}, dropped("dropped_performance_event")),
    "uuid missing": ({"uuid": ABSENT}, PARSING),
    "uuid null": ({"uuid": None}, PARSING),
    "uuid a number": ({"uuid": 5}, PARSING),
    "uuid empty": ({"uuid": ""}, Fact(400, "missing_event_uuid")),
    "uuid blank": ({"uuid": "  "}, Fact(400, "missing_event_uuid")),
    "uuid nonsense": ({"uuid": "x"}, Fact(400, "invalid_event_uuid")),
    "uuid with blanks around": ({"uuid": f" {ID}\n"}, OK),
    "uuid in capitals": ({"uuid": ID.upper()}, OK),
    "uuid without hyphens": ({"uuid": ID.replace("-", "")}, OK),
    "uuid in braces": ({"uuid": f"{{{ID}}}"}, OK),
    "uuid as a URN": ({"uuid": f"urn:uuid:{ID}"}, OK),
    "distinct_id missing": ({"distinct_id": ABSENT}, PARSING),
    "distinct_id null": ({"distinct_id": None}, PARSING),
    "distinct_id a number": ({"distinct_id": 5}, PARSING),
    "distinct_id empty": ({"distinct_id": ""}, dropped("missing_distinct_id")),
    "distinct_id blank": ({"distinct_id": " "}, dropped("missing_distinct_id")),
    "distinct_id trimmed": ({"distinct_id": " u\t"}, OK._replace(stored="u")),
    "distinct_id of 202 bytes": ({"distinct_id": "é" * 101}, dropped("distinct_id_too_large")),
    "distinct_id illegal": (
        {"distinct_id": "Anonymous"},
        Fact(200, "person_processing_disabled", ("a",), warning="person processing is off"),
    ),
    "timestamp missing": ({"timestamp": ABSENT}, PARSING),
    "timestamp null": ({"timestamp": None}, PARSING),
    "timestamp a number": ({"timestamp": 5}, PARSING),
    "timestamp naive": ({"timestamp": TIME[:-1]}, dropped("invalid_event_timestamp")),
    "timestamp with an offset": ({"timestamp": "2026-03-04T07:06:07+02:00"}, OK),
    "timestamp in the future": (
        {"timestamp": "2026-03-06T05:06:07Z"},
        OK._replace(warning="in the future"),
    ),
    "session a text": ({"session_id": "s", "window_id": "w"}, OK),
    "session null": ({"session_id": None, "window_id": None}, OK),
    "session a number": ({"session_id": 5}, PARSING),
    "window a number": ({"window_id": 5}, PARSING),
    "properties missing": ({"properties": ABSENT}, OK),
    "properties null": ({"properties": None}, dropped("malformed_event_properties")),
    "properties a list": ({"properties": []}, dropped("malformed_event_properties")),
    "properties a text": ({"properties": "{}"}, dropped("malformed_event_properties")),
    "properties too big": ({"properties": {"a": "x" * 1_000_000}}, dropped("event_too_big")),
    "properties of too many numbers": (
        {"properties": {"a": list(range(200_000))}},
        dropped("event_too_big"),
    ),
    "options missing": ({"options": ABSENT}, OK),
    "options null": ({"options": None}, OK),
    "options a list": ({"options": []}, dropped("invalid_options")),
    "options a text": ({"options": "true"}, dropped("invalid_options")),
    "options unknown": ({"options": {"colour": []}}, OK),
    "option a boolean": ({"options": {"cookieless_mode": True}}, OK),
    "option true in words": ({"options": {"cookieless_mode": " TRUE "}}, OK),
    "option 0 in words": ({"options": {"disable_skew_correction": "0"}}, OK),
    "option a number": ({"options": {"process_person_profile": 1.5}}, OK),
    "option null": ({"options": {"process_person_profile": None}}, OK),
    "option yes": ({"options": {"cookieless_mode": "yes"}}, dropped("invalid_options")),
    "option a list": ({"options": {"cookieless_mode": []}}, dropped("invalid_options")),
    "tour a text": ({"options": {"product_tour_id": "t"}}, OK),
    "tour a number": ({"options": {"product_tour_id": 5}}, OK),
    "tour null": ({"options": {"product_tour_id": None}}, OK),
    "tour a fraction": ({"options": {"product_tour_id": 1.5}}, dropped("invalid_options")),
    "tour a boolean": ({"options": {"product_tour_id": True}}, dropped("invalid_options")),
    "unknown keys": ({"colour": "red"}, OK),
    "alias to itself": (
        {"event": "$create_alias", "properties": {"alias": "u"}},
        Fact(200, good=("$create_alias",), warning="alias to itself"),
    ),
    "alias": (
        {"event": "$create_alias", "properties": {"alias": "v"}},
        Fact(200, good=("$create_alias",)),
    ),
    "alias of nobody": (
        {"event": "$create_alias", "properties": {"alias": "null"}},
        Fact(200, good=("$create_alias",), warning="cannot_merge_with_illegal_distinct_id"),
    ),
    "alias without one": (
        {"event": "$create_alias"},
        Fact(200, good=("$create_alias",), warning="without an alias"),
    ),
    "identify without a person": (
        {"event": "$identify", "options": {"process_person_profile": "false"}},
        Fact(200, good=("$identify",), warning="is dropped"),
    ),
}


@pytest.mark.parametrize(("changed", "fact"), V1_EVENTS.values(), ids=V1_EVENTS)
def test_v1_events(changed: dict[str, Any], fact: Fact) -> None:
    """One event, on its own, is taken, dropped or refused with the server's own word."""
    body = {"created_at": TIME, "batch": [event(**changed)]}

    check(ask("/i/v1/analytics/events", body, HEADERS), fact)


V1_BODIES: Mapping[str, tuple[Any, Fact]] = {
    "no created_at": ({"batch": [event()]}, PARSING),
    "created_at null": ({"created_at": None, "batch": [event()]}, PARSING),
    "created_at no time": ({"created_at": "x", "batch": [event()]}, Fact(400, "invalid_batch")),
    "no batch": ({"created_at": TIME}, PARSING),
    "batch null": ({"created_at": TIME, "batch": None}, PARSING),
    "batch empty": ({"created_at": TIME, "batch": []}, Fact(400, "empty_batch")),
    "batch empty and created_at no time": ({"created_at": "x", "batch": []}, Fact(400, "empty_b")),
    "migration": ({"created_at": TIME, "historical_migration": True, "batch": [event()]}, OK),
    "migration null": (
        {"created_at": TIME, "historical_migration": None, "batch": [event()]},
        PARSING,
    ),
    "internal null": ({"created_at": TIME, "capture_internal": None, "batch": [event()]}, OK),
    "the same uuid twice": (
        {"created_at": TIME, "batch": [event(), event(uuid=ID.upper())]},
        Fact(400, "duplicate_event_uuid"),
    ),
    "a type behind a bad uuid": (
        {"created_at": TIME, "batch": [event(uuid="x"), event(event=5)]},
        PARSING,
    ),
    "one bad event of two": (
        {"created_at": TIME, "batch": [event(), event(uuid=OTHER_ID, event="")]},
        Fact(200, "missing_event_name", ("a",), ("missing_event_name",)),
    ),
    "an event that is none": ({"created_at": TIME, "batch": [5]}, PARSING),
    "empty": (b"", Fact(400, "empty_body")),
    "an array": (b"[]", PARSING),
    "NaN": (b'{"created_at":NaN}', PARSING),
}


@pytest.mark.parametrize(("body", "fact"), V1_BODIES.values(), ids=V1_BODIES)
def test_v1_bodies(body: Any, fact: Fact) -> None:
    """What surrounds the events refuses all of them, in the order in which the server looks."""
    check(ask("/i/v1/analytics/events", body, HEADERS), fact)


NO_KEY = Fact(401, "missing_authorization")
BAD_HEADER = Fact(400, "invalid_header_value")
V1_HEADERS: Mapping[str, tuple[Mapping[str, Any], Fact]] = {
    "no key": ({"authorization": ABSENT}, NO_KEY),
    "no key and nothing else": (dict.fromkeys(HEADERS, ABSENT), NO_KEY),
    "an empty key": ({"authorization": ""}, BAD_HEADER),
    "bearer without a key": ({"authorization": "Bearer"}, BAD_HEADER),
    "another scheme": ({"authorization": "Basic abcdefgh"}, BAD_HEADER),
    "a key without a scheme": ({"authorization": KEY}, BAD_HEADER),
    "bearer in capitals": ({"authorization": f"BEARER {KEY}"}, OK),
    "bearer and blanks": ({"authorization": f"Bearer   {KEY}"}, OK),
    "a personal key": ({"authorization": "Bearer phx_abc"}, Fact(401, "invalid_api_token")),
    "a long key": ({"authorization": f"Bearer {'k' * 65}"}, Fact(401, "invalid_api_token")),
    "nothing but the key": (
        {name: ABSENT for name in HEADERS if name != "authorization"},
        Fact(400, "missing_required_headers"),
    ),
    "a wrong key and a missing header": (
        {"authorization": "Basic x", "user-agent": ABSENT},
        Fact(400, "missing_required_headers"),
    ),
    "no sdk": ({"posthog-sdk-info": ABSENT}, Fact(400, "missing_required_headers")),
    "an empty sdk": ({"posthog-sdk-info": ""}, OK),
    "an sdk without a version": ({"posthog-sdk-info": "x"}, OK),
    "attempt 0": ({"posthog-attempt": "0"}, BAD_HEADER),
    "the largest attempt": ({"posthog-attempt": "4294967295"}, OK),
    "an attempt too large": ({"posthog-attempt": "4294967296"}, BAD_HEADER),
    "attempt in words": ({"posthog-attempt": "one"}, BAD_HEADER),
    "request id": ({"posthog-request-id": "1"}, BAD_HEADER),
    "request time": ({"posthog-request-timestamp": "now"}, BAD_HEADER),
    "type with a charset": ({"content-type": "Application/JSON; charset=utf-8"}, OK),
    "another type": ({"content-type": "text/plain"}, Fact(415, "unsupported_content_type")),
    "another coding": ({"content-encoding": "lz4"}, Fact(415, "unsupported_encoding")),
    "identity": ({"content-encoding": "identity"}, Fact(415, "unsupported_encoding")),
    "gzip that is none": ({"content-encoding": "gzip"}, Fact(400, "request_decoding_error")),
}


@pytest.mark.parametrize(("changed", "fact"), V1_HEADERS.values(), ids=V1_HEADERS)
def test_v1_headers(changed: Mapping[str, Any], fact: Fact) -> None:
    """The key's header is looked at before all others, then what is missing, then each value."""
    body = {"created_at": TIME, "batch": [event()]}

    check(ask("/i/v1/analytics/events", body, with_changes(HEADERS, changed)), fact)


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "deflate", "raw deflate"])
def test_v1_codings(coding: str) -> None:
    """The header names the coding; ``deflate`` has two forms."""
    plain = json.dumps({"created_at": TIME, "batch": [event()]}).encode()
    packed = gzip.compress(plain) if coding.lower() == "gzip" else zlib.compress(plain)
    packed = packed[2:-4] if coding == "raw deflate" else packed
    headers = {**HEADERS, "content-encoding": coding.rpartition(" ")[2]}

    check(ask("/i/v1/analytics/events", packed, headers), OK)


AI_EVENTS = {
    "an AI event": ({"event": "$ai_generation"}, Fact(200, good=("$ai_generation",))),
    "another event": ({}, dropped("misrouted_event")),
    "a bad event": ({"event": ""}, dropped("missing_event_name")),
    "a large AI event": (
        {"event": "$ai_trace", "properties": {"a": "x" * 5_000_000}},
        Fact(200, good=("$ai_trace",)),
    ),
    "a huge AI event": (
        {"event": "$ai_trace", "properties": {"a": "x" * 8_400_000}},
        dropped("ai_event_too_big"),
    ),
}


@pytest.mark.parametrize(("changed", "fact"), AI_EVENTS.values(), ids=AI_EVENTS)
@pytest.mark.parametrize("path", ["/i/v1/ai/events", "/i/v1/ai/events/"])
def test_the_ai_lane(path: str, changed: dict[str, Any], fact: Fact) -> None:
    """The AI lane is V1 for AI events alone, which may be large there."""
    check(ask(path, {"created_at": TIME, "batch": [event(**changed)]}, HEADERS), fact)


def test_ordinary_routes_take_ai_events() -> None:
    """``$ai_*`` goes by the ordinary path, too, within the ordinary size."""
    body = {"created_at": TIME, "batch": [event(event="$ai_span")]}

    check(ask("/i/v1/analytics/events", body, HEADERS), Fact(200, good=("$ai_span",)))


# V0.

V0_PATHS = ["/batch/", "/capture/", "/e/", "/i/v0/e/", "/track/", "/engage/"]


def v0(**changed: Any) -> dict[str, Any]:
    return with_changes({"event": "a", "distinct_id": "u", "properties": {}}, changed)


V0_EVENTS = {
    "whole": ({}, OK),
    "name missing": ({"event": ABSENT}, Fact(400, "event: missing")),
    "name empty": ({"event": ""}, Fact(400, "empty event name")),
    "name a number": ({"event": 5}, Fact(400)),
    "id missing": ({"distinct_id": ABSENT}, Fact(400, "without a distinct_id")),
    "id null": ({"distinct_id": None}, Fact(400, "without a distinct_id")),
    "id empty": ({"distinct_id": ""}, Fact(400, "without a distinct_id")),
    "id in the properties": (
        {"distinct_id": ABSENT, "properties": {"distinct_id": "p"}},
        OK._replace(stored="p"),
    ),
    "id with a dollar": ({"distinct_id": ABSENT, "$distinct_id": "d"}, OK._replace(stored="d")),
    "id twice": ({"$distinct_id": "d"}, Fact(400, "given twice")),
    "id a number": ({"distinct_id": 23}, OK._replace(stored="23")),
    "id a fraction": ({"distinct_id": 23.5}, OK._replace(stored="23.5")),
    "id a list": ({"distinct_id": ["b", "a"]}, OK._replace(stored='["b","a"]')),
    "id an object": (
        {"distinct_id": {"b": {"d": 1, "c": 2}, "a": 3}},
        OK._replace(stored='{"a":3,"b":{"c":2,"d":1}}'),
    ),
    "id with a NUL": ({"distinct_id": "a\0b"}, OK._replace(stored="a\ufffdb")),
    "id with blanks around": ({"distinct_id": " u "}, OK._replace(stored=" u ")),
    "id too long": (
        {"distinct_id": "é" * 201},
        OK._replace(stored="é" * 200, warning="cut to 200 characters"),
    ),
    "id illegal": ({"distinct_id": "null"}, OK._replace(warning="illegal distinct_id")),
    "uuid empty": ({"uuid": ""}, OK),
    "uuid null": ({"uuid": None}, OK),
    "uuid nonsense": ({"uuid": "x"}, Fact(400, "uuid")),
    "timestamp a number": ({"timestamp": 1}, Fact(400, "timestamp")),
    "timestamp a date": ({"timestamp": "2026-03-04"}, OK),
    "timestamp nonsense": ({"timestamp": "soon"}, OK._replace(warning="unreadable timestamp")),
    "offset a text": ({"offset": "5"}, Fact(400, "offset")),
    "properties null": ({"properties": None}, Fact(400, "properties")),
    "$set a list": ({"$set": []}, Fact(400, "$set")),
    "cookieless": ({"properties": {"$cookieless_mode": True}}, OK),
    "cookieless null": ({"properties": {"$cookieless_mode": None}}, Fact(400, "$cookieless")),
    "cookieless in words": ({"properties": {"$cookieless_mode": "1"}}, Fact(400, "$cookieless")),
    "token twice": ({"token": KEY, "api_key": KEY}, Fact(400, "given twice")),
    "alias to itself": (
        {"event": "$create_alias", "properties": {"alias": "u"}},
        Fact(200, good=("$create_alias",), warning="alias to itself"),
    ),
    "person's wish in words": (
        {"properties": {"$process_person_profile": "false"}},
        OK._replace(warning="not a boolean"),
    ),
}


@pytest.mark.parametrize(("changed", "fact"), V0_EVENTS.values(), ids=V0_EVENTS)
def test_v0_events(changed: dict[str, Any], fact: Fact) -> None:
    """One event of a batch is taken, or refuses the batch."""
    check(ask("/batch/", {"api_key": KEY, "batch": [v0(**changed)]}), fact)


V0_BODIES: Mapping[str, tuple[Any, Fact]] = {
    "one event": (v0(token=KEY), OK),
    "one event with its key as a property": (v0(properties={"token": KEY}), OK),
    "an array": ([v0(token=KEY), v0(token=KEY)], Fact(200, good=("a", "a"))),
    "two keys": ([v0(token=KEY), v0(token="phc_other")], Fact(401, "different API keys")),
    "no key": (v0(), Fact(401, "missing")),
    "a batch with keys in its events": ({"batch": [v0(token=KEY)]}, Fact(400, "api_key")),
    "a batch whose key is null": ({"api_key": None, "batch": [v0(token=KEY)]}, Fact(400)),
    "a batch's key wins": ({"token": KEY, "batch": [v0(token="phx_a")]}, OK),
    "an empty batch": ({"api_key": KEY, "batch": []}, Fact(400, "no event")),
    "an empty array": ([], Fact(400, "no event")),
    "a personal key": ({"api_key": "phx_a", "batch": [v0()]}, Fact(401, "personal")),
    "migration null": ({"api_key": KEY, "historical_migration": None, "batch": [v0()]}, OK),
    "migration in words": (
        {"api_key": KEY, "historical_migration": "1", "batch": [v0()]},
        Fact(400, "historical_migration"),
    ),
    "a performance event": (
        {"api_key": KEY, "batch": [v0(event="$performance_event"), v0()]},
        Fact(200, good=("a",), bad=("dropped_performance_event",)),
    ),
    "performance events alone": (
        {"api_key": KEY, "batch": [v0(event="$performance_event")]},
        Fact(200, bad=("dropped_performance_event",)),
    ),
    "nothing": (b"", Fact(400, "empty")),
    "no JSON": (b"{", Fact(400, "failed to parse")),
    "no UTF-8": (b'{"event":"\xff"}', Fact(400)),
    "deep": (b"[" * 128 + b"]" * 128, Fact(400, "failed to parse")),
}


@pytest.mark.parametrize(("body", "fact"), V0_BODIES.values(), ids=V0_BODIES)
@pytest.mark.parametrize("path", V0_PATHS)
def test_v0_bodies(path: str, body: Any, fact: Fact) -> None:
    """All six routes read the same forms of body."""
    check(ask(path, body), fact)


V0_REQUESTS: Mapping[str, tuple[Any, Mapping[str, str], str, Fact]] = {
    "gzip unsaid": (gzip.compress(json.dumps(v0(token=KEY)).encode()), {}, "", OK),
    "gzip said": (
        gzip.compress(json.dumps(v0(token=KEY)).encode()),
        {"content-encoding": "gzip"},
        "",
        OK,
    ),
    "gzip in the query": (
        gzip.compress(json.dumps(v0(token=KEY)).encode()),
        {},
        "compression=gzip-js",
        OK,
    ),
    "gzip said of what is none": (
        v0(token=KEY),
        {"content-encoding": "gzip"},
        "",
        Fact(400, "gzip"),
    ),
    "gzip in the query of what is none": (v0(token=KEY), {}, "compression=GZIP", Fact(400)),
    "another coding is not looked at": (v0(token=KEY), {"content-encoding": "br"}, "", OK),
    "beacon": (v0(token=KEY), {}, "beacon=1", Fact(204, good=("a",))),
    "no beacon": (v0(token=KEY), {}, "beacon=0", OK),
    "beacon in words": (v0(token=KEY), {}, "beacon=true", Fact(400)),
    "a refused beacon": (v0(), {}, "beacon=1", Fact(401)),
}


@pytest.mark.parametrize(
    ("body", "headers", "query", "fact"), V0_REQUESTS.values(), ids=V0_REQUESTS
)
def test_v0_requests(body: Any, headers: Mapping[str, str], query: str, fact: Fact) -> None:
    """A coding that is said must be there, and a beacon wants no body."""
    check(ask("/e/", body, headers, query), fact)


def test_engage_names_what_has_no_name() -> None:
    """On ``/engage`` an object without a name is ``$identify``; elsewhere it is a 400."""
    update = {"token": KEY, "distinct_id": "u", "$set": {"plan": "family"}}

    check(ask("/engage/", update), Fact(200, good=("$identify",)))
    check(ask("/engage", {**update, "event": "a"}), OK)
    check(ask("/capture/", update), Fact(400, "event: missing"))


# Logs.


def envelope(*records: Any) -> dict[str, Any]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [*records]}]}]}


RECORD = {"timeUnixNano": str(int(NOW) * 10**9), "body": {"stringValue": "a"}}
LINE = json.dumps(envelope(RECORD)).encode()
LOGS: Mapping[str, tuple[Any, Mapping[str, str], str, Fact]] = {
    "one request": (LINE, {}, f"token={KEY}", OK),
    "JSON Lines": (LINE + b"\n\n" + LINE + b"\n", {}, f"token={KEY}", Fact(200, "", ("a", "a"))),
    "a bad line": (LINE + b"\n{", {}, f"token={KEY}", Fact(400, "decode")),
    "bearer": (LINE, {"authorization": f"Bearer {KEY}"}, "", OK),
    "the header wins": (LINE, {"authorization": "Bearer phx_a"}, f"token={KEY}", Fact(401)),
    "an empty header wins": (LINE, {"authorization": "Bearer "}, f"token={KEY}", Fact(401)),
    "no key": (LINE, {}, "", Fact(401)),
    "gzip": (gzip.compress(LINE + b"\n" + LINE), {}, f"token={KEY}", Fact(200, "", ("a", "a"))),
    "a list": (b"[]", {}, f"token={KEY}", Fact(400)),
    "nothing in it": (b"{}", {}, f"token={KEY}", Fact(200, "{}")),
}


@pytest.mark.parametrize(("body", "headers", "query", "fact"), LOGS.values(), ids=LOGS)
def test_logs(body: Any, headers: Mapping[str, str], query: str, fact: Fact) -> None:
    """Logs come as one request or as lines of them, with the key in the header or the query."""
    check(ask("/i/v1/logs", body, headers, query), fact)


def test_the_table_is_long_enough() -> None:
    """A hundred facts and more are checked here."""
    tables = (V1_EVENTS, V1_BODIES, V1_HEADERS, AI_EVENTS, V0_EVENTS, V0_BODIES, V0_REQUESTS, LOGS)

    assert 150 < sum(map(len, tables))
