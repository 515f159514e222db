"""The Segment family: what each vendor is sent, and that messages survive the way."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
import uuid

from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from posthog_logging.events import jsonable
from posthog_logging.events.message import Message, Refused, assemble
from posthog_logging.version import LIBRARY, VERSION
from posthog_logging.wire import (
    DIALECTS,
    Batch,
    Dialect,
    Endpoint,
    Request,
    Response,
    find_dialect,
)
from posthog_logging.wire.posthog import V0
from posthog_logging.wire.segment import (
    CUSTOMERIO,
    HIGHTOUCH,
    JITSU,
    JUNE,
    METAROUTER,
    RUDDERSTACK,
    SEGMENT,
    SINGLE_PATHS,
    SegmentDialect,
)


ID = "01890b5c-2a3b-7c4d-8e5f-0123456789ab"
NOW = "2024-01-02T03:04:05.678901Z"
# Every vendor that has a name is held to the rules for all of them.
PROFILES = [
    one
    for name in DIALECTS
    if isinstance(one := find_dialect(name), SegmentDialect) and one.name == name
]
profiles = pytest.mark.parametrize("dialect", PROFILES, ids=lambda dialect: dialect.name)


def message(event: str = "played", distinct_id: str = "user-1", **fields: Any) -> Message:
    return Message(event, distinct_id, fields.pop("properties", {}), fields.pop("uuid", ID), NOW)


def call(
    event: str = "played",
    properties: Any = (),
    *,
    dialect: SegmentDialect = SEGMENT,
    **fields: Any,
) -> Any:
    return json.loads(dialect.line(message(event, properties=dict(properties), **fields)))


def posted(dialect: SegmentDialect, *lines: bytes, attempt: int = 1, **fields: Any) -> Request:
    endpoint = Endpoint(
        **{"host": "https://h.test", "api_key": "k", "compression": None, **fields}
    )
    return dialect.request(Batch(lines, "request-1", NOW, attempt), endpoint, NOW)


def received(*calls: Any, path: str = "/v1/batch", **envelope: Any) -> list[Message]:
    body = json.dumps({"batch": calls, **envelope}).encode()
    return SEGMENT.decode(Request(f"https://h.test{path}", {}, body))


# Names and places


@pytest.mark.parametrize(
    ("name", "dialect"),
    [*((dialect.name, dialect) for dialect in PROFILES), ("astronomer", METAROUTER)],
)
def test_each_profile_has_a_name(name: str, dialect: SegmentDialect) -> None:
    """Every vendor is found by its name, MetaRouter by its old one too."""

    assert dialect is find_dialect(name)
    assert isinstance(dialect, Dialect)
    assert name in DIALECTS


@pytest.mark.parametrize(
    ("dialect", "key", "url"),
    [
        (SEGMENT, "k", "https://api.segment.io/v1/batch"),
        (METAROUTER, "k", "https://e.metarouter.io/v1/batch"),
        (HIGHTOUCH, "k", "https://us-east-1.hightouch-events.com/v1/batch"),
        (JUNE, "k", "https://api.june.so/sdk/batch"),
        (CUSTOMERIO, "k", "https://cdp.customer.io/v1/batch"),
        (CUSTOMERIO, "pk_us_1", "https://cdp.customer.io/v1/batch"),
        (CUSTOMERIO, " sk_eu_1 ", "https://cdp-eu.customer.io/v1/batch"),
    ],
)
def test_a_vendor_knows_its_host(dialect: SegmentDialect, key: str, url: str) -> None:
    """Without a host the vendor's own is taken, at Customer.io the one of the key's region."""

    assert url == posted(dialect, host="", api_key=key).url


def test_another_host_than_the_vendor_s_is_left_alone() -> None:
    """A key's region moves the vendor's own host only, never a proxy or a test server."""

    assert "https://cdp-eu.customer.io" == CUSTOMERIO.ingestion_host(
        "https://cdp.customer.io/", "pk_eu_1"
    )
    assert "https://h.test" == CUSTOMERIO.ingestion_host("https://h.test", "pk_eu_1")


def test_slashes_at_the_end_of_a_host_do_not_double() -> None:
    """However many slashes the host ends with, the path follows after one."""

    assert "https://h.test/in/v1/batch" == posted(SEGMENT, host="https://h.test/in//").url


def test_only_rudderstack_and_jitsu_need_a_host() -> None:
    """Where every customer has an own host there is no default."""
    without = {dialect.name for dialect in PROFILES if not dialect.default_host}

    assert {"rudderstack", "jitsu"} == without


def test_any_other_server_is_a_replacement() -> None:
    """Path, auth and limits of an unlisted server are given as data."""
    own = dataclasses.replace(SEGMENT, name="own", path="/in", auth=frozenset({"bearer"}))
    request = posted(own)

    assert ("https://h.test/in", "Bearer k") == (request.url, request.headers["Authorization"])
    assert b"writeKey" not in request.body


def test_an_unknown_auth_is_an_error_of_the_programmer() -> None:
    """A way to authorise that does not exist raises where it is written."""
    with pytest.raises(ValueError, match="oauth"):
        dataclasses.replace(SEGMENT, auth=frozenset({"oauth"}))


# The request


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(key.encode()).decode()


@pytest.mark.parametrize(
    ("dialect", "key", "authorization", "in_body"),
    [
        (SEGMENT, "wk", basic("wk:"), True),
        (METAROUTER, "wk", basic("wk:"), False),
        (RUDDERSTACK, "wk", basic("wk:"), False),
        (JITSU, "id:secret", basic("id:secret:"), False),
        (CUSTOMERIO, "old", basic("old:"), False),
        (CUSTOMERIO, "sk_eu_1", "Bearer sk_eu_1", False),
        (HIGHTOUCH, "wk", None, True),
        (JUNE, "wk", basic("wk:"), False),
    ],
)
def test_each_vendor_gets_the_key_its_own_way(
    dialect: SegmentDialect, key: str, authorization: str | None, in_body: bool
) -> None:
    """The key goes where the vendor's own client puts it, and is never split."""
    request = posted(dialect, api_key=key)

    assert authorization == request.headers.get("Authorization")
    assert (key if in_body else None) == json.loads(request.body).get("writeKey")


def test_metarouter_has_the_keys_in_every_message_but_in_no_line() -> None:
    """The key is added when the request is made, so it is never in a spool."""
    line = METAROUTER.line(message())
    request = posted(METAROUTER, line, line, api_key='s"cret')
    batch = json.loads(request.body)["batch"]

    assert b"cret" not in line
    assert [('s"cret', 's"cret', "2024-01-02T03:04:05.678Z")] * 2 == [
        (one["writeKey"], one["appId"], one["sentAt"]) for one in batch
    ]
    assert [message()._replace(timestamp="2024-01-02T03:04:05.678000Z")] * 2 == [
        one._replace(properties={}) for one in METAROUTER.decode(request)
    ]


@pytest.mark.parametrize(("attempt", "header"), [(1, None), (2, "1"), (11, "10")])
def test_retries_are_numbered(attempt: int, header: str | None) -> None:
    """``X-Retry-Count`` is the number of attempts before this one, absent on the first."""

    assert header == posted(SEGMENT, attempt=attempt).headers.get("X-Retry-Count")


def test_own_headers_come_last() -> None:
    """The user's headers win over the dialect's."""
    headers = posted(SEGMENT, headers={"Authorization": "mine", "X-Strict-Mode": "1"}).headers

    assert ("mine", "1") == (headers["Authorization"], headers["X-Strict-Mode"])
    assert f"{LIBRARY}/{VERSION}" == headers["User-Agent"]


def test_gzip_is_named_exactly() -> None:
    """A compressed body says ``gzip`` and nothing else, and reads the same."""
    request = posted(SEGMENT, SEGMENT.line(message()), compression="gzip")

    assert "gzip" == request.headers["Content-Encoding"]
    assert ["played"] == [one.event for one in SEGMENT.decode(request)]


@pytest.mark.parametrize(
    ("now", "sent_at"),
    [
        ("2024-01-02T03:04:05.678901Z", "2024-01-02T03:04:05.678Z"),
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05.000Z"),
        ("2024-01-02T03:04:05.5Z", "2024-01-02T03:04:05.500Z"),
        ("2024-01-02T05:04:05.5+02:00", "2024-01-02T03:04:05.500Z"),
    ],
)
def test_times_have_three_digits_and_a_z(now: str, sent_at: str) -> None:
    """The batch is stamped for each attempt, in UTC and with milliseconds."""
    endpoint = Endpoint("https://h.test", "k", compression=None)
    request = SEGMENT.request(Batch([], "request-1", NOW), endpoint, now)

    assert sent_at == json.loads(request.body)["sentAt"]


# The calls


def test_a_track_call_in_full() -> None:
    """A plain event is a track call whose id comes first and whose context names the library."""

    assert {
        "messageId": ID,
        "type": "track",
        "timestamp": "2024-01-02T03:04:05.678Z",
        "userId": "user-1",
        "event": "played",
        "context": {"library": {"name": "lib", "version": "1.2"}},
        "properties": {"movie": 1},
    } == call(
        properties={"movie": 1, "$lib": "lib", "$lib_version": "1.2", "$geoip_disable": True}
    )


def test_a_call_without_a_time_has_none() -> None:
    """What was read without a time is written without one, never with an empty text."""
    made = json.loads(SEGMENT.line(message()._replace(timestamp="")))

    assert "timestamp" not in made


CALLS = {
    "identify": ("$identify", {"$set": {"a": 1}}, {"userId": "user-1", "traits": {"a": 1}}),
    "identify, nothing set": ("$identify", {}, {"userId": "user-1", "traits": {}}),
    "set": ("$set", {"$set": {"a": 1}}, {"type": "identify", "traits": {"a": 1}}),
    "set once": ("$set", {"$set_once": {"a": 1}}, {"properties": {"$set_once": {"a": 1}}}),
    "alias": (
        "$create_alias",
        {"alias": "new", "distinct_id": "user-1"},
        {"type": "alias", "previousId": "user-1", "userId": "new"},
    ),
    "page": (
        "$pageview",
        {
            "name": "Home",
            "category": "Docs",
            "$current_url": "https://a.test/b",
            "$host": "a.test",
        },
        {
            "type": "page",
            "name": "Home",
            "category": "Docs",
            "properties": {"url": "https://a.test/b", "host": "a.test"},
        },
    ),
    "screen": (
        "$screen",
        {"$screen_name": "Main", "a": 1},
        {"type": "screen", "name": "Main", "properties": {"a": 1}},
    ),
    "group": (
        "$groupidentify",
        {"$group_type": "company", "$group_key": 7, "$group_set": {"a": 1}},
        {
            "type": "group",
            "groupId": "7",
            "userId": "user-1",
            "traits": {"a": 1, "groupType": "company"},
        },
    ),
    "exception": (
        "$exception",
        {"$exception_list": []},
        {"type": "track", "event": "$exception", "properties": {"$exception_list": []}},
    ),
    "both ids": ("x", {"$anon_distinct_id": 5}, {"userId": "user-1", "anonymousId": "5"}),
    "set on an event": ("x", {"$set": {"a": 1}}, {"properties": {}}),
}


@pytest.mark.parametrize(("event", "properties", "said"), CALLS.values(), ids=CALLS)
def test_each_kind_becomes_its_call(event: str, properties: Any, said: Any) -> None:
    """PostHog's events become the six calls, their ``$`` properties the fields."""
    made = call(event, properties)

    assert said == {name: made[name] for name in said}


CONTEXTS = {
    "moved": (
        {"$ip": "::1", "$os": "A", "$os_version": "1"},
        {"ip": "::1", "os": {"name": "A", "version": "1"}},
    ),
    "copied": ({"utm_source": "x"}, {"campaign": {"source": "x"}}),
    "the caller's": ({"$context": {"a": 1}}, {"a": 1}),
    "beside the caller's": (
        {"$context": {"device": {"token": "t"}}, "$device_id": "d"},
        {"device": {"token": "t", "id": "d"}},
    ),
    "traits": (
        {"$context": {"traits": {"a": 1, "b": 1}}, "$set": {"b": 2}},
        {"traits": {"a": 1, "b": 2}},
    ),
    "groups": (
        {"$groups": {"company": 7, "team": "t"}},
        {"groupId": "7", "groups": {"company": 7, "team": "t"}},
    ),
    "no title": ({"title": "Alien"}, {}),
}


@pytest.mark.parametrize(("properties", "context"), CONTEXTS.values(), ids=CONTEXTS)
def test_what_has_a_place_goes_into_the_context(properties: Any, context: Any) -> None:
    """The context is always an object with the library, and with what Segment has a place for."""
    library = {"library": {"name": LIBRARY, "version": VERSION}}

    assert {**library, **context} == call(properties=properties)["context"]


def test_a_plain_property_stays_one() -> None:
    """Only ``$`` names move: what the caller named stays where the caller put it."""
    properties = {"utm_source": "x", "title": "Alien", "$feature/flag": True, "$session_id": "s"}

    assert properties == call(properties={**properties, "$ip": "::1"})["properties"]


def test_the_caller_s_context_is_not_written_to() -> None:
    """Building a line changes nothing of what was given."""
    properties = {"$context": {"device": {"token": "t"}}, "$device_id": "d", "$set": {"a": 1}}
    before = json.dumps(properties)
    SEGMENT.line(message(properties=properties))

    assert before == json.dumps(properties)


def test_what_is_no_object_stays_a_property() -> None:
    """A ``$`` name with a value of the wrong kind is not lost, and breaks nothing."""
    odd = {"$context": "c", "$set": [1], "$groups": 3, "$integrations": "all"}

    assert odd == call(properties=odd)["properties"]


def test_a_context_that_is_in_the_way_keeps_its_value() -> None:
    """Where the caller's context has a text for an object, both values are kept."""
    made = call(properties={"$context": {"os": "BeOS"}, "$os": "Haiku"})

    assert ("BeOS", {"$os": "Haiku"}) == (made["context"]["os"], made["properties"])


IDS = {
    "known": ("user-1", {}, {"userId": "user-1"}),
    "both": ("user-1", {"$anon_distinct_id": "a"}, {"userId": "user-1", "anonymousId": "a"}),
    "anonymous": ("a", {"$anon_distinct_id": "a"}, {"anonymousId": "a"}),
    "only anonymous": ("", {"$anon_distinct_id": "a"}, {"anonymousId": "a"}),
    "personless": ("a", {"$process_person_profile": False}, {"anonymousId": "a"}),
    "personless, as text": ("a", {"$process_person_profile": "False"}, {"anonymousId": "a"}),
    "with a profile": ("a", {"$process_person_profile": True}, {"userId": "a"}),
    "null": ("user-1", {"$anon_distinct_id": None}, {"userId": "user-1"}),
}


@pytest.mark.parametrize("event", ["x", "$pageview", "$screen", "$identify"])
@pytest.mark.parametrize(("distinct_id", "properties", "ids"), IDS.values(), ids=IDS)
def test_ids_are_texts_or_absent(event: str, distinct_id: str, properties: Any, ids: Any) -> None:
    """An id that is not there is left out, never null; nobody known means an anonymous one."""
    made = call(event, properties, distinct_id=distinct_id)

    assert ids == {name: made[name] for name in ("userId", "anonymousId") if name in made}


def test_a_group_s_own_id_is_no_user() -> None:
    """PostHog's made-up id of a group is anonymous: no server may take it for a person."""
    made = call(
        "$groupidentify", {"$group_type": "company", "$group_key": "7"}, distinct_id="$company_7"
    )

    assert ("$company_7", False) == (made["anonymousId"], "userId" in made)


@profiles
def test_a_group_s_long_own_id_is_no_user(dialect: SegmentDialect) -> None:
    """A made-up id that had to be shortened is recognised, too, and read back as the same."""
    fields = {"event": "$groupidentify", "$group_type": "url", "$group_key": "k" * 300}
    assembled = assemble(fields, "", 1_704_164_645.5)
    line = dialect.line(assembled)
    made = json.loads(line)
    (read,) = received(made)

    assert (assembled.distinct_id, False) == (made["anonymousId"], "userId" in made)
    assert assembled.distinct_id == read.distinct_id


@profiles
@pytest.mark.parametrize("event", ["$identify", "played"])
def test_traits_of_the_context_that_are_no_object(dialect: SegmentDialect, event: str) -> None:
    """What somebody put in place of the context's traits does not cost the event."""
    properties = {"$context": {"traits": "gold"}, "$set": {"plan": "gold"}}
    made = json.loads(dialect.line(message(event, properties=properties)))

    assert made["context"]["traits"] in ("gold", {"plan": "gold"})


REFUSED = {
    "track without a name": ("", "user-1", {}, "no_event_name"),
    "track with a blank name": ("  ", "user-1", {}, "no_event_name"),
    "track without an id": ("x", "", {}, "no_distinct_id"),
    "track with a blank id": ("x", " ", {}, "no_distinct_id"),
    "track by nobody": ("x", "", {"$anon_distinct_id": "undefined"}, "no_distinct_id"),
    "identify without an id": ("$identify", "", {"$set": {"a": 1}}, "no_distinct_id"),
    "page without an id": ("$pageview", "", {}, "no_distinct_id"),
    "screen without an id": ("$screen", "", {}, "no_distinct_id"),
    "alias without the new id": ("$create_alias", "old", {}, "no_distinct_id"),
    "alias to nobody": ("$create_alias", "old", {"alias": "null"}, "no_distinct_id"),
    "alias without the old id": ("$create_alias", "", {"alias": "new"}, "no_previous_id"),
    "group without a key": ("$groupidentify", "user-1", {"$group_type": "company"}, "no_group"),
    "group without anybody": ("$groupidentify", "", {"$group_key": "7"}, "no_distinct_id"),
}


@profiles
@pytest.mark.parametrize(
    ("event", "distinct_id", "properties", "reason"), REFUSED.values(), ids=REFUSED
)
def test_what_servers_drop_in_silence_is_refused(
    dialect: SegmentDialect, event: str, distinct_id: str, properties: Any, reason: str
) -> None:
    """A call that would get a 200 and be thrown away later is refused with a reason."""
    with pytest.raises(Refused) as refused:
        call(event, properties, distinct_id=distinct_id, dialect=dialect)

    assert reason == refused.value.reason


def test_rudderstack_has_the_traits_twice() -> None:
    """RudderStack reads identify's traits from the context, others from the root."""
    made = call("$identify", {"$set": {"a": 1}}, dialect=RUDDERSTACK)

    assert ({"a": 1}, {"a": 1}) == (made["traits"], made["context"]["traits"])


def test_jitsu_s_event_names_are_short() -> None:
    """An event's name is cut to 128 bytes, on a character, where longer ones are refused."""
    made = call("ä" * 100, dialect=JITSU)

    assert "ä" * 64 == made["event"]


# Sizes


@profiles
@pytest.mark.parametrize("event", ["played", "$identify", "$exception"])
def test_a_large_event_is_cut_to_the_limit(dialect: SegmentDialect, event: str) -> None:
    """Long texts are shortened until the event fits; who and what it is stays whole."""
    long = "ä" * 4_200_000
    name = "$set" if event == "$identify" else "long"
    user = "u" * 199
    line = dialect.line(message(event, user, properties={name: {"text": long}}))
    made = json.loads(line)

    assert len(line) <= dialect.limits.event_bytes
    assert (ID, user) == (dialect.uuid_of(line), made["userId"])
    assert "[cut: " in line.decode()


@given(size=st.integers(32_300, 32_800))
@settings(max_examples=50)
def test_the_event_limit_is_exact(size: int) -> None:
    """An event is cut where its bytes are above the limit, and only there."""
    empty = len(SEGMENT.line(message(properties={"text": ""})))
    line = SEGMENT.line(message(properties={"text": "x" * (size - empty)}))

    assert (b"[cut: " not in line) == (size <= 32_767)
    assert len(line) <= 32_767


def test_what_no_cut_can_help_is_refused() -> None:
    """An event of too many numbers to keep is refused as oversized."""
    small = dataclasses.replace(
        SEGMENT, limits=dataclasses.replace(SEGMENT.limits, event_bytes=300)
    )
    with pytest.raises(Refused) as refused:
        small.line(message(properties={"numbers": list(range(1000))}))

    assert "oversized" == refused.value.reason


@pytest.mark.parametrize(
    ("dialect", "largest_event", "largest_body"),
    [
        (SEGMENT, 32_767, 500_000),
        (METAROUTER, 15_000, 500_000),
        (RUDDERSTACK, 4_096_000, 4_096_000),
        (JITSU, 1_000_000, 4_096_000),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_full_batch_fits(dialect: SegmentDialect, largest_event: int, largest_body: int) -> None:
    """As many bytes and as many lines as the limits allow stay below the server's own."""
    limits = dialect.limits
    size = max(limits.batch_bytes // limits.batch_count, 300)
    line = dialect.line(message())
    line = line[:-1] + b" " * (size - len(line)) + b"}"
    count = min(limits.batch_count, limits.batch_bytes // len(line))
    key = "k" * 64
    largest = dialect.line(message(properties={"text": ["x" * 500] * 9000}))
    batch = json.loads(posted(dialect, largest, api_key=key).body)["batch"]

    assert len(posted(dialect, *[line] * count, api_key=key).body) <= largest_body
    assert len(jsonable.encode(batch[0])) <= largest_event


# The id


@profiles
def test_the_id_of_a_line_is_a_slice(dialect: SegmentDialect) -> None:
    """The id is read without a parse."""
    line = dialect.line(message())

    assert ID == dialect.uuid_of(line) == json.loads(line)["messageId"]


# Answers


ANSWERS = {
    "segment's": (200, b'{"success": true}', {}, {}),
    "rudderstack's": (200, b"ok", {}, {}),
    "nothing": (200, b"", {}, {}),
    "not an object": (200, b"[1]", {}, {}),
    "not even text": (200, b"\xff\xfe", {}, {}),
    "jitsu's": (
        200,
        b'{"ok":false,"receivedEvents":2,"okEvents":1,"errors":["Message ID: %b: no type"]}'
        % ID.encode(),
        {ID: "no type"},
        {},
    ),
    "jitsu's without an id": (
        200,
        b'{"ok":false,"errors":["bad","x"]}',
        {},
        {"partly_accepted": 2},
    ),
    "jitsu's good one": (200, b'{"ok":true}', {}, {}),
    "metarouter's 207": (207, b"", {}, {"partly_accepted": 1}),
}


@pytest.mark.parametrize(("status", "body", "dropped", "notes"), ANSWERS.values(), ids=ANSWERS)
def test_answers_are_read(status: int, body: bytes, dropped: Any, notes: Any) -> None:
    """What a 2xx says of single calls is reported; what it says to nobody breaks nothing."""
    results = SEGMENT.results(Response(status, {}, body))

    assert (dropped, notes, "") == (results.dropped, results.notes, results.error)


@pytest.mark.parametrize(
    "body",
    [
        b'{"success":false}',
        b'{"ok":false,"errors":null}',
        b'{"Success":false,"Errors":[]}',
        b'{"error":"boom"}',
        b'{"Error":{"Message":"boom"}}',
        b"<!doctype html><title>Sign in</title>",
        b"\xef\xbb\xbf \n<html></html>",
    ],
    ids=repr,
)
def test_a_200_that_says_it_failed_is_no_delivery(body: bytes) -> None:
    """An explicit failure, or a web page, keeps the whole batch."""
    assert SEGMENT.results(Response(200, {}, body)).kept


def test_metarouter_counts_what_it_refused() -> None:
    """Errors that name no call are handed on by their number."""
    body = b'{"Success":false,"Errors":[{"Error":"a"},{"Error":"b"}]}'

    assert [2, 2] == [METAROUTER.results(Response(n, {}, body)).unnamed for n in (200, 207)]


def test_jitsu_sorts_its_errors() -> None:
    """What it lost goes again, what it has no place for waits, what it refuses is lost."""
    texts = [
        "Message ID: a: producer error: kafka",
        "Message ID: b: quota exceeded",
        "Message ID: c: no destinations found",
        "Message ID: d: event error: no type",
    ]
    body = json.dumps({"ok": False, "receivedEvents": 5, "okEvents": 1, "errors": texts})
    found = JITSU.results(Response(200, {}, body.encode()))

    assert (frozenset("a"), {"b", "c"}, {"d": "event error: no type"}) == (
        found.retry,
        set(found.paused),
        found.dropped,
    )


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [("retry", {408, 410, 429, 460}), ("final", {501, 505}), ("bisect", {400})],
)
def test_the_statuses_are_those_of_the_newest_clients(kind: str, statuses: set[int]) -> None:
    """The status table is Segment's own of 2026, but that what is configuration waits."""
    rules = SEGMENT.rules

    assert statuses <= getattr(rules, kind)
    assert {401, 402, 404, 405} <= rules.pause
    assert (3600.0, 43_200.0) == (rules.longest_retry_after, rules.longest_throttle)


@pytest.mark.parametrize("name", ["m-1", "order 17/b", 'a "quoted" one', "Ü" * 40, "x" * 150])
def test_a_message_id_of_the_callers_own_goes_as_it_is(name: str) -> None:
    """Any text serves as ``messageId``: it is what the other side deduplicates by."""
    line = SEGMENT.line(message(uuid=name))

    assert name == json.loads(line)["messageId"] == SEGMENT.uuid_of(line)


def test_jitsus_answers_call_an_id_by_another_name() -> None:
    """Jitsu cuts an id to 64 characters and replaces what it does not like (1.3)."""
    line = JITSU.line(message(uuid="order 17/" + "b" * 80))

    assert "order 17/" + "b" * 80 == json.loads(line)["messageId"]
    assert ("order_17_" + "b" * 80)[:64] == JITSU.uuid_of(line)


def test_a_group_of_no_type_has_no_trait_of_it() -> None:
    """``groupType`` is sent where somebody gave one."""
    properties = {"$group_type": "group", "$group_key": "acme", "$group_set": {"seats": 12}}
    line = SEGMENT.line(message("$groupidentify", properties=properties))

    assert {"seats": 12} == json.loads(line)["traits"]


# Reading


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/import", "/v1/import/", "/sdk/batch", "/b"])
def test_batches_are_read_from_each_path(path: str) -> None:
    """A batch and an import are the same, with or without a slash at the end."""

    assert ["a", "b"] == [
        one.event
        for one in received(
            {"type": "track", "event": "a", "userId": "u"},
            {"type": "track", "event": "b", "userId": "u"},
            path=path,
        )
    ]


EVENT_OF = {
    "identify": "$identify",
    "track": "x",
    "page": "$pageview",
    "screen": "$screen",
    "group": "$groupidentify",
    "alias": "$create_alias",
}


@pytest.mark.parametrize(("step", "kind"), SINGLE_PATHS.items())
def test_single_calls_are_read(step: str, kind: str) -> None:
    """A single call's path is its type, in its long and in its short form."""
    body = {"userId": "u", "previousId": "p", "event": "x", "groupId": "g"}
    request = Request(f"http://h.test/v1/{step}?debug=1", {}, json.dumps(body).encode())
    (read,) = SEGMENT.decode(request)

    assert EVENT_OF[kind] == read.event
    assert ("p" if kind == "alias" else "u") == read.distinct_id


def test_the_envelope_s_context_is_everybody_s() -> None:
    """What the batch says beside the calls is under what each call says itself."""
    (read,) = received(
        {"type": "track", "event": "x", "userId": 1, "context": {"ip": "::2"}},
        context={"ip": "::1", "locale": "de"},
        integrations={"All": False},
    )

    assert {"$ip": "::2", "$locale": "de", "$integrations": {"All": False}} == read.properties


FOREIGN = {
    "numeric id": ({"type": "track", "event": "x", "userId": 5}, "x", "5", {}),
    "null id": (
        {"type": "track", "event": "x", "userId": None, "anonymousId": "a"},
        "x",
        "a",
        {"$anon_distinct_id": "a"},
    ),
    "null objects": (
        {"type": "track", "event": "x", "userId": "u", "properties": None, "context": None},
        "x",
        "u",
        {},
    ),
    "rudder's traits": (
        {"type": "identify", "userId": "u", "context": {"traits": {"a": 1}}},
        "$identify",
        "u",
        {"$set": {"a": 1}},
    ),
    "group of no type": (
        {"type": "group", "userId": "u", "groupId": 7},
        "$groupidentify",
        "u",
        {"$group_type": "group", "$group_key": "7", "$group_set": {}},
    ),
    "group of nobody": (
        {"type": "group", "groupId": "7"},
        "$groupidentify",
        "$group_7",
        {"$group_type": "group", "$group_key": "7", "$group_set": {}},
    ),
    "member of a group": (
        {"type": "track", "event": "x", "userId": "u", "context": {"groupId": "g", "os": "x"}},
        "x",
        "u",
        {"$groups": {"group": "g"}, "$context": {"os": "x"}},
    ),
    "page": (
        {"type": "page", "userId": "u", "properties": {"url": "https://a.test", "path": "/"}},
        "$pageview",
        "u",
        {"$current_url": "https://a.test", "$pathname": "/"},
    ),
}


@pytest.mark.parametrize(
    ("raw", "event", "distinct_id", "properties"), FOREIGN.values(), ids=FOREIGN
)
def test_other_clients_calls_are_read(
    raw: Any, event: str, distinct_id: str, properties: Any
) -> None:
    """What other clients send means the same in PostHog's model."""
    (read,) = received(raw)

    assert (event, distinct_id, properties) == (read.event, read.distinct_id, read.properties)


def test_foreign_ids_and_times_become_ours() -> None:
    """A message id that is no uuid becomes the same uuid every time, a time becomes UTC."""
    raw = {
        "type": "track",
        "event": "x",
        "userId": "u",
        "messageId": "node-next-1-x",
        "timestamp": "2024-01-02T04:04:05.678+01:00",
    }
    first, second = received(raw, raw)

    assert str(uuid.UUID(first.uuid)) == second.uuid
    assert "2024-01-02T03:04:05.678000Z" == first.timestamp


BROKEN = {
    "not JSON": (b"{", {}),
    "not an object": (b"[]", {}),
    "batch of another kind": (b'{"batch": {}}', {}),
    "call of another kind": (b'{"batch": [1]}', {}),
    "call of another kind, in a context": (b'{"batch": [1], "context": {}}', {}),
    "no type": (b'{"batch": [{}]}', {}),
    "unknown type": (b'{"batch": [{"type": "merge"}]}', {}),
    "a type that is no text": (b'{"batch": [{"type": []}]}', {}),
    "broken gzip": (b"{}", {"content-encoding": "gzip"}),
}


@pytest.mark.parametrize(("body", "headers"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_batch_is_a_value_error(body: bytes, headers: dict[str, str]) -> None:
    """Whatever cannot be read raises one kind of exception."""
    with pytest.raises(ValueError):
        SEGMENT.decode(Request("https://h.test/v1/batch", headers, body))


# Round trips


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
ids = st.text("abcXYZ019-_.@", min_size=1, max_size=20).map("u{}".format)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
# A page's own names for its address are PostHog's, so they are not a caller's here.
own_names = texts.filter(
    lambda name: (
        name[:1] != "$"
        and name
        not in ("url", "path", "referrer", "host", "referring_domain", "alias", "distinct_id")
    )
)
FIELDS = """messageId userId anonymousId previousId groupId event name category timestamp
    properties traits context integrations""".split()
objects = st.dictionaries(own_names, values, max_size=4)
filled = st.dictionaries(own_names, values, min_size=1, max_size=3)
plain_text = st.text("abc/:. ", min_size=1, max_size=12)


@given(
    raw=st.dictionaries(st.sampled_from(FIELDS), values | ids),
    kind=st.sampled_from(list(EVENT_OF)),
)
@settings(max_examples=200)
def test_any_call_of_a_known_type_can_be_read(raw: dict[str, Any], kind: str) -> None:
    """Whatever strangers put into the fields, reading gives a message of texts and objects."""
    (read,) = received({**raw, "type": kind})

    assert [str, str, dict, str, str] == [type(field) for field in read]


@st.composite
def shared(draw: st.DrawFn) -> dict[str, Any]:
    """Properties that any event may have, with `$` names of each sort."""
    special = {
        "$ip": plain_text,
        "$os": plain_text,
        "$os_version": plain_text,
        "$device_id": plain_text,
        "$current_url": plain_text,
        "$session_id": ids,
        "$feature/x": values,
        "$set_once": objects,
        "$groups": st.dictionaries(ids, ids, min_size=1, max_size=3),
        "$context": st.dictionaries(st.sampled_from(["active", "direct"]), values, min_size=1),
        "$integrations": filled,
        "$process_person_profile": st.just(True),
        "utm_source": plain_text,
    }
    names = draw(st.sets(st.sampled_from(sorted(special)), max_size=6))
    properties = {**draw(objects), **{name: draw(special[name]) for name in sorted(names)}}
    return {**properties, "$lib": draw(ids), "$lib_version": "1.0"}


@st.composite
def messages(draw: st.DrawFn) -> Message:
    properties, distinct_id = draw(shared()), draw(ids)
    event = draw(st.sampled_from([*sorted(EVENT_OF.values()), "$exception"]))
    if event == "$create_alias":
        properties |= {"alias": draw(ids), "distinct_id": distinct_id}
    else:
        distinct_id = draw(people(properties, distinct_id))
    if event == "$identify" or draw(st.booleans()):
        properties["$set"] = draw(objects)
    if event == "$pageview":
        properties |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "name": ids,
                    "category": ids,
                    "title": ids,
                    "$host": ids,
                    "$pathname": ids,
                    "$referrer": ids,
                },
            )
        )
    if event == "$screen":
        properties |= draw(
            st.fixed_dictionaries({"$screen_name": ids}, optional={"category": ids})
        )
    if event == "$groupidentify":
        properties |= {
            "$group_type": draw(ids),
            "$group_key": draw(ids),
            "$group_set": draw(objects),
        }
        if draw(st.booleans()):
            properties.pop("$anon_distinct_id", None)
            distinct_id = f"${properties['$group_type']}_{properties['$group_key']}"
    moment = draw(st.datetimes(min_value=dt.datetime(1000, 1, 1)))
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}000Z"
    return Message(event, distinct_id, properties, str(draw(st.uuids())), stamp)


@st.composite
def people(draw: st.DrawFn, properties: dict[str, Any], distinct_id: str) -> str:
    """Give the message one of the four ways to say who it is."""
    who = draw(st.sampled_from(["known", "both", "anonymous", "personless"]))
    if who == "personless":
        properties["$process_person_profile"] = False
    elif who != "known":
        properties["$anon_distinct_id"] = distinct_id if who == "anonymous" else draw(ids)
    return distinct_id


@profiles
@given(sent=st.lists(messages(), max_size=3))
@settings(max_examples=60)
def test_messages_come_back_as_they_were(dialect: SegmentDialect, sent: list[Message]) -> None:
    """What was encoded is decoded to the same messages, with each vendor."""
    request = posted(dialect, *[dialect.line(one) for one in sent], compression="gzip")

    assert sent == dialect.decode(request)


@given(sent=messages())
@settings(max_examples=60)
def test_a_detour_by_segment_changes_nothing_for_posthog(sent: Message) -> None:
    """The way PostHog to Segment and back ends in the same line as the direct way."""
    (back,) = SEGMENT.decode(posted(SEGMENT, SEGMENT.line(sent)))

    assert json.loads(V0.line(sent)) == json.loads(V0.line(back))


def test_set_comes_back_as_identify() -> None:
    """Segment has one call for both, so a changed person comes back as an identified one."""
    line = SEGMENT.line(message("$set", properties={"$set": {"a": 1}}))
    (back,) = SEGMENT.decode(posted(SEGMENT, line))

    assert ("$identify", "user-1") == (back.event, back.distinct_id)
    assert {"a": 1} == back.properties["$set"]
