"""PostHog's two protocols: requests to the byte, answers by the table, and the way back."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import uuid

from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
import requests

from hypothesis import given
from hypothesis import strategies as st

from posthog_logging.events.message import OPTIONS, Message, Refused
from posthog_logging.version import LIBRARY, VERSION
from posthog_logging.wire import (
    DIALECTS,
    Batch,
    Dialect,
    Endpoint,
    Request,
    Response,
    Results,
    family_of,
    find_dialect,
)
from posthog_logging.wire.posthog import (
    CONTEXT_PROPERTIES,
    POSTHOG,
    V0,
    V1,
    PostHogDialect,
    refuse_authorization,
)
from posthog_logging.wire.segment import SEGMENT


ID = "01890b5c-2a3b-7c4d-8e5f-0123456789ab"
OTHER = "01890b5c-2a3b-7c4d-8e5f-0123456789ac"
MOMENT = "2024-01-02T03:04:05.678901Z"
CREATED = "2024-01-02T03:04:06.000000Z"
NOW = "2024-01-02T03:04:07.000000Z"
HOST = "https://us.i.posthog.com"
KEY = "phc_key"
AGENT = f"{LIBRARY}/{VERSION}"
PLAIN = Endpoint(HOST, KEY, None)

both = pytest.mark.parametrize("dialect", [V0, V1], ids=lambda dialect: dialect.name)


def message(**fields: Any) -> Message:
    properties = fields.pop("properties", {})
    known = {"event": "played", "distinct_id": "u", "uuid": ID, "timestamp": MOMENT, **fields}
    return Message(properties=properties, **known)


def event(dialect: PostHogDialect, **properties: Any) -> dict[str, Any]:
    """Return an event as it travels; V0's without the library's name, which is checked apart."""
    body = json.loads(request(dialect, message(properties=properties)).body)
    found: dict[str, Any] = body["batch"][0]
    if not dialect.v1:
        assert own_library == {name: found["properties"].pop(name) for name in own_library}
    return found


own_library = {"$lib": LIBRARY, "$lib_version": VERSION}


def request(
    dialect: PostHogDialect, *messages: Message, endpoint: Endpoint = PLAIN, attempt: int = 1
) -> Request:
    lines = [dialect.line(one) for one in messages or (message(),)]
    return dialect.request(Batch(lines, OTHER, CREATED, attempt), endpoint, NOW)


# Requests


LINE = (
    f'{{"uuid":"{ID}","event":"played","distinct_id":"u","timestamp":"{MOMENT}",'
    '"properties":{"a":1}}'
).encode()

V0_LINE = LINE.replace(b'{"a"', f'{{"$lib":"{LIBRARY}","$lib_version":"{VERSION}","a"'.encode())


def test_a_request_of_v0_to_the_byte() -> None:
    """The key, the attempt's moment and the library are in the body; headers say no more."""
    found = request(V0, message(properties={"a": 1}), message(properties={"a": 1}))

    assert f"{HOST}/batch/" == found.url
    assert {"Content-Type": "application/json", "User-Agent": AGENT} == found.headers
    assert (
        b'{"api_key":"phc_key","sent_at":"%b","batch":[%b,%b]}' % (NOW.encode(), V0_LINE, V0_LINE)
        == found.body
    )


def test_a_request_of_v1_to_the_byte() -> None:
    """The key, the attempt and its moment are in headers; the body is the same each time."""
    found = request(V1, message(properties={"a": 1}), attempt=3)

    assert f"{HOST}/i/v1/analytics/events" == found.url
    assert {
        "Content-Type": "application/json",
        "User-Agent": AGENT,
        "Authorization": "Bearer phc_key",
        "PostHog-Sdk-Info": AGENT,
        "PostHog-Attempt": "3",
        "PostHog-Request-Id": OTHER,
        "PostHog-Request-Timestamp": NOW,
    } == found.headers
    assert b'{"created_at":"%b","batch":[%b]}' % (CREATED.encode(), LINE) == found.body


@both
@pytest.mark.parametrize("migration", [False, True])
def test_history_is_marked_only_if_it_is_one(dialect: PostHogDialect, migration: bool) -> None:
    """``historical_migration`` is absent unless it is true."""
    body = json.loads(
        request(dialect, endpoint=dataclasses.replace(PLAIN, historical_migration=migration)).body
    )

    assert (True if migration else None) == body.get("historical_migration")
    assert ("historical_migration" in body) is migration


def test_any_key_is_escaped() -> None:
    """A key with a quote in it cannot break the body."""
    endpoint = dataclasses.replace(PLAIN, api_key='a"b\\')

    assert 'a"b\\' == json.loads(request(V0, endpoint=endpoint).body)["api_key"]


@both
def test_the_callers_headers_come_last(dialect: PostHogDialect) -> None:
    """A header of the caller's replaces ours of that name."""
    endpoint = dataclasses.replace(PLAIN, headers={"User-Agent": "mine", "X-Team": "a"})
    found = request(dialect, endpoint=endpoint).headers

    assert ("mine", "a") == (found["User-Agent"], found["X-Team"])


@both
def test_the_key_is_in_no_repr(dialect: PostHogDialect) -> None:
    """An endpoint can be shown without giving away the key or a header."""
    assert KEY not in repr(Endpoint(HOST, KEY, headers={"X": KEY}))


CODED = [(dialect, coding) for dialect in (V0, V1) for coding in (None, *sorted(dialect.codings))]


@pytest.mark.parametrize(
    ("dialect", "coding"), CODED, ids=lambda part: getattr(part, "name", part)
)
def test_every_coding_comes_back(dialect: PostHogDialect, coding: str | None) -> None:
    """Each coding that a protocol has is named in a header, and decodes to the same messages."""
    pytest.importorskip({"zstd": "zstandard", "br": "brotli"}.get(coding or "", "zlib"))
    messages = [message(properties={"n": n}) for n in range(50)]
    found = request(dialect, *messages, endpoint=dataclasses.replace(PLAIN, compression=coding))

    assert coding == found.headers.get("Content-Encoding")
    assert ("Content-Encoding" in found.headers) is (coding is not None)
    assert messages == without_library(dialect.decode(found))


def without_library(messages: list[Message]) -> list[Message]:
    """Return *messages* as they were before V0 added the library's name."""
    return [
        one._replace(properties={k: v for k, v in one.properties.items() if k not in own_library})
        for one in messages
    ]


def test_v1_has_all_codings_and_v0_has_gzip() -> None:
    """The server of V0 knows gzip by its magic and nothing else; V1's takes four (2.2)."""
    assert {"gzip"} == V0.codings
    assert {"gzip", "deflate", "zstd", "br"} == V1.codings


def test_a_codec_that_is_not_there_means_plain_bytes() -> None:
    """Where zstandard cannot be imported, the request goes out plain, without the header."""
    script = """
import sys
sys.modules["zstandard"] = sys.modules["compression.zstd"] = None
from posthog_logging.wire import Batch, Endpoint
from posthog_logging.wire.posthog import V1
found = V1.request(Batch([b"{}"], "id", "now"), Endpoint("h", "k", "zstd"), "now")
assert "Content-Encoding" not in found.headers, found.headers
print(found.body.decode())
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert '{"created_at":"now","batch":[{}]}' == found.stdout.strip()


# Lines


@both
def test_the_uuid_of_a_line_is_read(dialect: PostHogDialect) -> None:
    """The uuid is the event's own, whatever else is in the line."""
    line = dialect.line(message(properties={"a": OTHER}))

    assert ID == dialect.uuid_of(line) == json.loads(line)["uuid"]


@both
def test_a_message_that_is_too_large_is_cut_and_not_its_ids(dialect: PostHogDialect) -> None:
    """An event of megabytes fits, says what was cut, and keeps name, id and moment whole."""
    name, user = "n" * 200, "u" * 200
    line = dialect.line(
        message(event=name, distinct_id=user, properties={"text": "x" * 3_000_000})
    )
    found = json.loads(line)

    assert len(line) <= dialect.limits.event_bytes == 900 * 1024
    assert "[cut: " in found["properties"]["text"]
    assert (ID, name, user, MOMENT) == tuple(
        found[key] for key in ("uuid", "event", "distinct_id", "timestamp")
    )


@both
def test_a_broad_message_is_cut(dialect: PostHogDialect) -> None:
    """An event of hundreds of thousands of small values fits, too."""
    broad: Any = {f"k{n}": "x" * 60 for n in range(64)}
    for _ in range(2):
        broad = {f"k{n}": broad for n in range(64)}

    assert len(dialect.line(message(properties=broad))) <= dialect.limits.event_bytes


@both
def test_a_message_that_cannot_be_cut_is_refused(dialect: PostHogDialect) -> None:
    """What stays too large is refused by name and size, and nothing of its content."""
    small = dataclasses.replace(dialect.limits, event_bytes=200)
    with pytest.raises(Refused) as caught:
        dataclasses.replace(dialect, limits=small).line(message(properties={"secret": "x" * 500}))

    assert "oversized" == caught.value.reason
    assert caught.value.detail.startswith("'played', ")
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT], ids=lambda one: one.name)
def test_a_name_is_cut_and_printable_in_a_message(dialect: Any) -> None:
    """The name itself may be what is too large, or hold anything."""
    with pytest.raises(Refused) as caught:
        dialect.line(message(event="line\n\x1b[31m" + "x" * 2_000_000))

    assert "oversized" == caught.value.reason
    assert len(caught.value.detail) < 200
    assert caught.value.detail.isprintable()


class Truth(Enum):
    YES = "true"


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no")


BOOLEANS: dict[str, tuple[Any, bool | None]] = {
    "True": (True, True),
    "False": (False, False),
    "true": ("true", True),
    "FALSE": (" FALSE ", False),
    "text 1": ("1", True),
    "text 0": ("0\n", False),
    "1": (1, True),
    "0": (0, False),
    "0.5": (0.5, True),
    "0.0": (0.0, False),
    "-1": (-1, True),
    "decimal": (Decimal(1), True),
    "enum": (Truth.YES, True),
    "yes": ("yes", None),
    "blank": ("", None),
    "None": (None, None),
    "list": ([1], None),
    "object": (Broken(), None),
}


@pytest.mark.parametrize("option", [name for name in OPTIONS if name != "product_tour_id"])
@pytest.mark.parametrize(("value", "expected"), BOOLEANS.values(), ids=BOOLEANS)
def test_options_are_sent_in_their_type(option: str, value: Any, expected: bool | None) -> None:
    """V1 lifts an option out, V0 keeps its property; both as a boolean, or not at all (2.3)."""
    name = OPTIONS[option]
    options = {} if expected is None else {option: expected}
    kept = {} if expected is None else {name: expected}

    assert {"a": 1, **kept} == event(V0, a=1, **{name: value})["properties"]
    found = event(V1, a=1, **{name: value})
    assert {"a": 1} == found["properties"]
    assert options == found.get("options", {})
    assert ("options" in found) is bool(options)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("t", "t"), (uuid.UUID(ID), ID), (Truth.YES, "true"), (None, None)],
    ids=str,
)
@pytest.mark.parametrize("name", ["$session_id", "$window_id", "$product_tour_id"])
def test_ids_are_sent_as_texts(name: str, value: Any, expected: str | None) -> None:
    """The ids of session, window and tour are texts, on V1 beside the properties."""
    assert expected == event(V0, **{name: value})["properties"].get(name)
    found = event(V1, **{name: value})
    place = found.get("options", {}) if name == "$product_tour_id" else found
    assert expected == place.get(name[1:])
    assert {} == found["properties"]


@both
@pytest.mark.parametrize("value", [7, 1.5, True, ["s"], {"id": "s"}], ids=repr)
def test_an_id_of_a_session_that_is_no_text_is_left_out(
    dialect: PostHogDialect, value: Any
) -> None:
    """V1 refuses the whole batch for one: official clients leave it out, too."""
    found = event(dialect, **{"$session_id": value, "$window_id": value, "a": 1})

    assert {"uuid", "event", "distinct_id", "timestamp", "properties"} == set(found)
    assert {"a": 1} == found["properties"]


def test_unknown_options_travel_among_the_options() -> None:
    """An option of tomorrow goes where V1 looks for it; V0 knows properties only."""
    options = {"later": {"a": [1]}, "on": True}
    found = event(V1, **{"$options": options, "$process_person_profile": False})

    assert {**options, "process_person_profile": False} == found["options"]
    assert {} == found["properties"]
    assert options == event(V0, **{"$options": options})["properties"]


@pytest.mark.parametrize("dialect", [POSTHOG, V1, V0], ids=lambda one: one.name)
def test_a_line_is_the_same_in_all_of_posthogs_protocols(dialect: PostHogDialect) -> None:
    """What waits under one protocol can be sent under another."""
    one = message(properties={"$session_id": "s", "$process_person_profile": False, "a": 1})

    assert V1.line(one) == dialect.line(one)
    assert "posthog" == family_of(dialect)


@pytest.mark.parametrize(
    "properties",
    [{}, {"a": 1}, {"$session_id": 'Z","properties":{'}, {"a": ',"properties":{', "b": {}}],
    ids=repr,
)
def test_the_way_to_v0_is_the_same_fast_and_slow(properties: dict[str, Any]) -> None:
    """Whatever stands in a line, V0 gets the event, with the same uuid and the same time."""
    one = message(event='x","properties":{', distinct_id='","timestamp":"', properties=properties)

    assert [one] == without_library(V0.decode(request(V0, one)))


@pytest.mark.parametrize("name", ["order-17", "", ID.upper(), f"urn:uuid:{ID}"])
def test_a_uuid_is_one(name: str) -> None:
    """PostHog wants UUIDs: a text becomes the same one each time, in its canonical form."""
    first, second = (json.loads(V1.line(message(uuid=name)))["uuid"] for _ in range(2))

    assert first == second
    assert not name or first == str(uuid.UUID(first))
    assert (ID in name.lower()) == (first == ID)


def test_ai_events_may_be_large_on_v1() -> None:
    """An event of PostHog's AI lane has 8 MiB; the ordinary route gets it cut."""
    texts = {f"$ai_input_{n}": "x" * 900_000 for n in range(5)}
    one = message(event="$ai_generation", properties=texts)
    line = V1.line(one)

    assert 4_500_000 < len(line) < 8 * 1024 * 1024
    assert ("ai", "") == (V1.lane_of(line), V1.lane_of(V1.line(message())))
    cut = V1.fitted(line)
    assert len(cut) <= V1.limits.event_bytes
    assert b"[cut: " in cut
    assert V1.uuid_of(line) == V1.uuid_of(cut)
    assert len(V0.line(one)) <= V0.limits.event_bytes


def test_a_text_of_an_ai_event_may_be_as_large_as_that() -> None:
    """One long prompt is whole on the AI lane; above 8 MiB it is cut, and says so."""
    whole = V1.line(message(event="$ai_generation", properties={"$ai_input": "x" * 8_000_000}))
    cut = V1.line(message(event="$ai_generation", properties={"$ai_input": "x" * 9_000_000}))

    assert b"x" * 8_000_000 in whole
    assert b"[cut: " in cut
    assert len(cut) < 8 * 1024 * 1024


@pytest.mark.parametrize("dialect", [POSTHOG, V1], ids=lambda one: one.name)
@pytest.mark.parametrize(
    ("headers", "auth", "named"),
    [({"authorization": "Basic x"}, None, "headers"), ({}, ("me", "secret"), "auth")],
)
def test_v1_keeps_its_authorization(
    dialect: PostHogDialect, headers: Any, auth: Any, named: str
) -> None:
    """What would take the place of the key is refused, by the parameter's name, unquoted."""
    with pytest.raises(ValueError, match=f"^{named}: ") as caught:
        refuse_authorization(dialect, headers, auth)

    assert "secret" not in str(caught.value)
    refuse_authorization(V0, headers, auth)
    refuse_authorization(dialect, {"X-Team": "a"}, None)


def test_a_session_must_not_overwrite_the_key() -> None:
    """A session's own auth would be sent instead of V1's key, so it is refused, too."""
    session = requests.Session()
    refuse_authorization(V1, {}, None, session)
    session.auth = ("user", "pa55word")
    refuse_authorization(V0, {}, None, session)

    with pytest.raises(ValueError, match=r"^session: .*Authorization") as found:
        refuse_authorization(V1, {}, None, session)
    assert "pa55word" not in str(found.value)


def test_v1_takes_the_library_from_the_header() -> None:
    """``$lib`` and its version are properties on V0, and on V1 only a header."""
    one = message(properties=own_library)

    assert {} == event(V1, **own_library)["properties"]
    assert own_library == json.loads(request(V0, one).body)["batch"][0]["properties"]


@both
def test_options_that_nobody_set_are_absent(dialect: PostHogDialect) -> None:
    """An event has the five fields, and no more."""
    assert {"uuid", "event", "distinct_id", "timestamp", "properties"} == set(event(dialect))


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[no-any-return]


@both
@pytest.mark.parametrize("path", CONTEXT_PROPERTIES, ids=".".join)
def test_segments_context_becomes_properties(
    dialect: PostHogDialect, path: tuple[str, ...]
) -> None:
    """Each part of a context that PostHog has a property for gets there; explicit ones win."""
    name = CONTEXT_PROPERTIES[path]
    context = nested(path, "v")

    assert {name: "v", "a": 1} == event(
        dialect, **{"$context": context, "a": 1, "$integrations": {"All": True}}
    )["properties"]
    assert {name: "own"} == event(dialect, **{"$context": context, name: "own"})["properties"]


@both
@pytest.mark.parametrize(
    "context", [None, "text", [], {"os": "linux"}, {"page": None}, {"unheard": {"of": 1}}], ids=str
)
def test_a_context_of_another_shape_is_left_out(dialect: PostHogDialect, context: Any) -> None:
    """What is not of Segment's shape adds nothing and breaks nothing."""
    assert {"a": 1} == event(dialect, **{"$context": context, "a": 1})["properties"]


@both
@pytest.mark.parametrize(
    ("given_host", "expected"),
    [
        ("https://app.posthog.com", "https://us.i.posthog.com"),
        ("https://us.posthog.com", "https://us.i.posthog.com"),
        ("https://EU.PostHog.com", "https://eu.i.posthog.com"),
        ("https://eu.i.posthog.com", "https://eu.i.posthog.com"),
        ("http://localhost:8000/posthog", "http://localhost:8000/posthog"),
    ],
)
def test_the_apps_host_is_not_the_one_for_events(
    dialect: PostHogDialect, given_host: str, expected: str
) -> None:
    """Who gives the address of the app means the one that takes events (1.1)."""
    assert expected == dialect.ingestion_host(given_host, KEY)


# The way back


KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | KEYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OWN = {"$context", "$integrations", "$lib", "$lib_version", "distinct_id"}
TYPED = {
    "$session_id": KEYS,
    "$window_id": KEYS,
    "$process_person_profile": st.booleans(),
    "$ignore_sent_at": st.booleans(),
    "$cookieless_mode": st.booleans(),
    "$product_tour_id": KEYS,
    "$set": st.dictionaries(KEYS, VALUES, max_size=2),
    "$set_once": st.dictionaries(KEYS, VALUES, max_size=2),
    "$groups": st.dictionaries(KEYS, KEYS, max_size=2),
}
PROPERTIES = st.builds(
    lambda plain, typed: {**plain, **typed},
    st.dictionaries(KEYS.filter(lambda key: key not in OWN | set(TYPED)), VALUES, max_size=4),
    st.fixed_dictionaries({}, optional=TYPED),
)
MESSAGES = st.builds(
    Message, KEYS.filter(bool), KEYS.filter(bool), PROPERTIES, st.uuids().map(str), st.just(MOMENT)
)


@both
@given(messages=st.lists(MESSAGES, min_size=1, max_size=3), coding=st.sampled_from([None, "gzip"]))
def test_messages_survive_the_way(
    dialect: PostHogDialect, messages: list[Message], coding: str | None
) -> None:
    """What is decoded is what was encoded, property for property."""
    endpoint = dataclasses.replace(PLAIN, compression=coding)

    found = dialect.decode(request(dialect, *messages, endpoint=endpoint))
    assert messages == without_library(found)


@both
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"batch"',
        b"{}",
        b'{"batch":{}}',
        b'{"batch":[1]}',
        b'{"batch":[{"properties":[1]}]}',
        b'{"batch":[{"options":[1]}]}',
        b'{"batch":[NaN]}',
        b"\xff\xfe",
    ],
    ids=repr,
)
def test_what_is_no_batch_is_a_value_error(dialect: PostHogDialect, body: bytes) -> None:
    """A body that is none of this protocol raises `ValueError`, and nothing else."""
    with pytest.raises(ValueError):
        dialect.decode(Request("", {}, body))


def test_old_spellings_are_understood() -> None:
    """Ids in the properties, and persons' properties at the root, are what old clients send."""
    events = [
        {"event": "a", "properties": {"distinct_id": 7}, "$set": {"b": 1}, "uuid": ID},
        {"event": "b", "$distinct_id": "u", "properties": None},
    ]
    found = V0.decode(Request("", {}, json.dumps({"batch": events}).encode()))

    assert [
        Message("a", "7", {"distinct_id": 7, "$set": {"b": 1}}, ID, ""),
        Message("b", "u", {}, "", ""),
    ] == found


# Answers


def results(dialect: PostHogDialect, body: Any) -> Results:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return dialect.results(Response(200, body=text))


VERDICTS: dict[str, tuple[Any, Results]] = {
    "ok": ({"result": "ok"}, Results()),
    "ok with details": ({"result": "ok", "details": "person_processing_disabled"}, Results()),
    "warning": ({"result": "warning"}, Results(notes={"warning": 1})),
    "limited": ({"result": "limited"}, Results(notes={"limited": 1})),
    "drop": ({"result": "drop", "details": "over_quota"}, Results(dropped={ID: "over_quota"})),
    "drop without details": ({"result": "drop"}, Results(dropped={ID: "drop"})),
    "retry": ({"result": "retry", "details": "not_persisted"}, Results(frozenset({ID}))),
    "unknown": ({"result": "deferred"}, Results(notes={"deferred": 1})),
    "absent": ({}, Results(notes={"None": 1})),
    "of another shape": ("ok", Results(notes={"None": 1})),
}


@pytest.mark.parametrize("name", [ID, ID.upper()], ids=["lower", "upper"])
@pytest.mark.parametrize(("verdict", "expected"), VERDICTS.values(), ids=VERDICTS)
def test_each_verdict_of_v1(verdict: Any, expected: Results, name: str) -> None:
    """Only ``retry`` is sent again, only ``drop`` is lost; what is unknown is final (2.5)."""
    assert expected == results(V1, {"results": {name: verdict}})


def test_verdicts_are_sorted_event_by_event() -> None:
    """One answer may say something else of each event; what it does not name is delivered."""
    names = [str(uuid.UUID(int=n)) for n in range(5)]
    kinds = ["ok", "retry", "drop", "warning", "warning"]
    found = results(
        V1, {"results": {n: {"result": kind} for n, kind in zip(names, kinds, strict=True)}}
    )

    assert Results(frozenset({names[1]}), {names[2]: "drop"}, {"warning": 2}) == found


@given(
    st.lists(st.sampled_from(["ok", "ok", "ok", "ok", "retry", "drop", "odd"]), max_size=6),
    st.sampled_from([(",", ":"), (", ", ": ")]),
)
def test_verdicts_are_read_however_they_are_written(kinds: list[str], marks: Any) -> None:
    """An answer that says "ok" throughout is not parsed, and means what it meant."""
    names = {str(uuid.UUID(int=n)): kind for n, kind in enumerate(kinds)}
    answer = {"results": {name: {"result": kind} for name, kind in names.items()}}
    found = V1.results(Response(200, body=json.dumps(answer, separators=marks).encode()))

    assert {name for name, kind in names.items() if kind == "retry"} == found.retry
    assert {name for name, kind in names.items() if kind == "drop"} == set(found.dropped)
    assert kinds.count("odd") == sum(found.notes.values())
    assert (found.error, found.kept) == ("", "")


def test_a_name_that_no_event_has_breaks_nothing() -> None:
    """A verdict of something else is of nothing that was sent."""
    assert ID not in results(V1, {"results": {"x": {"result": "retry"}}}).retry


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        [],
        5,
        {},
        {"results": None},
        {"results": [1]},
        {"status": "Ok"},
        b"\xff",
    ],
    ids=repr,
)
def test_an_unreadable_answer_of_v1_says_nothing_of_events(body: Any) -> None:
    """A 2xx without readable verdicts is an error for the whole batch."""
    found = results(V1, body)

    assert found.error
    assert (frozenset(), {}) == (found.retry, found.dropped)


@pytest.mark.parametrize(
    "body",
    [b"", b"ok", b"\xff", [], 5, {"status": "Ok"}, {"status": 1}, {"quota_limited": []}],
    ids=repr,
)
def test_an_answer_of_v0_says_nothing_of_single_events(body: Any) -> None:
    """A 2xx means delivered, unless it is a page's or names an error (1.8)."""
    assert Results() == results(V0, body)


def test_an_answer_of_v0_may_tell_of_a_quota() -> None:
    """``quota_limited`` is noted by how many resources it names, and not retried."""
    assert Results(notes={"quota_limited": 2}) == results(V0, {"quota_limited": ["a", "b"]})


@both
@pytest.mark.parametrize(
    "body", [b"<html>", b" \r\n<!DOCTYPE html>", {"error": "x"}, {"success": False}], ids=repr
)
def test_a_2xx_that_is_not_the_endpoints_keeps_the_batch(
    dialect: PostHogDialect, body: Any
) -> None:
    """A web page and an explicit failure are no deliveries."""
    assert results(dialect, body).kept


# Finding a dialect


@pytest.mark.parametrize("name", [name for name in DIALECTS if name.startswith("posthog")])
def test_a_dialect_is_found_by_its_name(name: str) -> None:
    """Each name gives a dialect that goes by it."""
    found = find_dialect(name)

    assert isinstance(found, Dialect)
    assert name == found.name


def test_a_dialect_may_be_ones_own() -> None:
    """An instance is taken as it is."""
    own = dataclasses.replace(V0, name="mine")

    assert own is find_dialect(own)


@pytest.mark.parametrize(("wrong", "error"), [("mixpanel", ValueError), (7, TypeError)], ids=repr)
def test_what_is_no_dialect_is_named(wrong: Any, error: type[Exception]) -> None:
    """A wrong dialect raises with the parameter's name in it."""
    with pytest.raises(error, match="dialect"):
        find_dialect(wrong)
