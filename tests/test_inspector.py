"""The inspector: a server that judges as PostHog's do, and misbehaves where it is told to."""

from __future__ import annotations

import datetime as dt
import gzip
import http.client
import json
import socket
import threading
import time
import uuid
import zlib

from collections.abc import Mapping, Sequence
from email.message import Message as Headers
from typing import Any, NamedTuple

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from posthog_logging.events.message import Message
from posthog_logging.inspector import Answer, Inspector
from posthog_logging.inspector.rules import Incoming, canonical, find_judge, strict_json
from posthog_logging.inspector.rules_posthog import ILLEGAL_IDS
from posthog_logging.inspector.timestamps import parse_leniently, parse_strictly
from posthog_logging.wire import Batch, Endpoint, find_dialect
from posthog_logging.wire.compression import compress


KEY = "phc_a_project_key_of_this_test"
V0, V1 = "/batch/", "/i/v1/analytics/events"


class Got(NamedTuple):
    status: int
    headers: Headers
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


def ask(
    inspector: Inspector,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Got:
    connection = http.client.HTTPConnection(inspector.url.removeprefix("http://"), timeout=10)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Got(response.status, response.headers, response.read())
    finally:
        connection.close()


def connect(inspector: Inspector) -> socket.socket:
    host, _, port = inspector.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), 10)


def moment(seconds: float = 0.0) -> str:
    when = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    return when.isoformat(timespec="milliseconds")


def event(name: Any = "movie played", **fields: Any) -> dict[str, Any]:
    known = {
        "event": name,
        "distinct_id": "user-1",
        "uuid": str(uuid.uuid4()),
        "timestamp": moment(),
        "properties": {"movie_id": "123"},
    }
    return {key: value for key, value in {**known, **fields}.items() if value is not ...}


def post_v0(inspector: Inspector, *events: Any, path: str = V0, **head: Any) -> Got:
    payload = {"api_key": KEY, "sent_at": moment(), "batch": events, **head}
    payload = {key: value for key, value in payload.items() if value is not ...}
    return ask(inspector, "POST", path, json.dumps(payload).encode())


def headers_v1(**changed: str | None) -> dict[str, str]:
    known: dict[str, str | None] = {
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "User-Agent": "test/1",
        "PostHog-Sdk-Info": "test/1",
        "PostHog-Attempt": "1",
        "PostHog-Request-Id": str(uuid.uuid4()),
        "PostHog-Request-Timestamp": moment(),
    }
    known.update({name.replace("_", "-"): value for name, value in changed.items()})
    return {name: value for name, value in known.items() if value is not None}


def body_v1(*events: Any, **head: Any) -> bytes:
    return json.dumps({"created_at": moment(), "batch": events, **head}).encode()


def post_v1(inspector: Inspector, *events: Any, **head: Any) -> Got:
    return ask(inspector, "POST", V1, body_v1(*events, **head), headers_v1())


# What V0 takes and refuses.


@pytest.mark.parametrize("path", ["/batch/", "/batch", "/capture/", "/e/", "/i/v0/e/"])
def test_v0_takes_a_batch_on_every_path(inspector: Inspector, path: str) -> None:
    """All of V0's paths have the same handler."""
    got = post_v0(inspector, event(), path=path)

    assert (200, {"status": "Ok"}) == (got.status, got.said)
    assert ["movie played"] == [one.event for one in inspector.events]


@pytest.mark.parametrize("shape", ["single", "array"])
def test_v0_takes_events_without_a_batch(inspector: Inspector, shape: str) -> None:
    """A single event, and an array of them, bring their key along."""
    one = event(api_key=KEY)

    got = ask(inspector, "POST", "/e/", json.dumps(one if shape == "single" else [one]).encode())

    assert 200 == got.status
    assert [one["uuid"]] == [kept.uuid for kept in inspector.events]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"event": ""}, id="empty name"),
        pytest.param({"event": 5}, id="numeric name"),
        pytest.param({"event": ...}, id="no name"),
        pytest.param({"distinct_id": ...}, id="no id"),
        pytest.param({"distinct_id": None}, id="null id"),
        pytest.param({"distinct_id": "  "}, id="blank id"),
        pytest.param({"uuid": "not one"}, id="uuid"),
        pytest.param({"uuid": 5}, id="numeric uuid"),
        pytest.param({"timestamp": 1700000000}, id="numeric timestamp"),
        pytest.param({"properties": []}, id="properties an array"),
        pytest.param({"properties": None}, id="properties null"),
        pytest.param({"$set": "x"}, id="$set"),
        pytest.param({"$set_once": []}, id="$set_once"),
        pytest.param({"offset": "5"}, id="offset"),
        pytest.param({"properties": {"$cookieless_mode": "true"}}, id="cookieless"),
    ],
)
def test_v0_refuses_all_for_one(inspector: Inspector, wrong: dict[str, Any]) -> None:
    """The first bad event refuses its whole request, and every event knows why it is lost."""
    got = post_v0(inspector, event("a"), event(**{"name": "b", **wrong}), event("c"))

    assert 400 == got.status
    assert "text/plain; charset=utf-8" == got.headers["Content-Type"]
    assert [] == inspector.events
    reasons = [one.reason for one in inspector.bad]
    assert ["batch refused", "batch refused"] == [reasons[0], reasons[2]]
    assert got.body.decode() == reasons[1]


@pytest.mark.parametrize(
    "said",
    [
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b'{"a": 1e400}',
        b'{"a": ',
        b"",
        b'{"a": ' + b"[" * 130 + b"]" * 130 + b"}",
    ],
    ids=["nan", "infinity", "surrogate", "utf-8", "double", "truncated", "empty", "deep"],
)
def test_v0_reads_strict_json_only(inspector: Inspector, said: bytes) -> None:
    """What PostHog's parser refuses is refused here, and no event of it exists."""
    raw = json.dumps(event(properties={"x": "HERE"})).encode().replace(b'"HERE"', said)

    got = ask(inspector, "POST", V0, b'{"api_key":"%b","batch":[%b]}' % (KEY.encode(), raw))

    assert 400 == got.status
    assert ([], []) == (inspector.events, inspector.bad)
    assert [400] == [one.status for one in inspector.requests]


@pytest.mark.parametrize(
    "key",
    ["", "  ", "phx_personal", "k" * 65, "schlüssel", "a\0b"],
    ids=["empty", "blank", "personal", "long", "not ascii", "nul"],
)
def test_v0_looks_at_the_keys_shape(inspector: Inspector, key: Any) -> None:
    """A key that cannot be one is a 401, and is not repeated to anybody."""
    got = post_v0(inspector, event(), api_key=key)

    assert 401 == got.status
    assert not key.strip() or key not in got.body.decode()


def test_v0_wants_the_key_beside_the_batch(inspector: Inspector) -> None:
    """A batch without a key of its own is a 400, though each of its events has one."""
    assert 400 == post_v0(inspector, event(api_key=KEY), api_key=...).status


def test_v0_refuses_what_is_no_batch(inspector: Inspector) -> None:
    """An empty batch is a 400, and a body of more than 20 MiB a 413, on every path."""
    assert 400 == post_v0(inspector).status
    assert 413 == ask(inspector, "POST", V0, b" " * (20 * 1024 * 1024 + 1)).status
    assert 413 == ask(inspector, "POST", "/e/", b" " * (20 * 1024 * 1024 + 1)).status
    assert 400 == ask(inspector, "POST", "/e/", b" " * (3 * 1024 * 1024)).status


def test_v0_refuses_what_kafka_cannot_hold(inspector: Inspector) -> None:
    """An event that grows over 1 MB by escaping is too big, and the others are lost with it."""
    got = post_v0(inspector, event(), event(properties={"x": '"' * 400_000}))

    assert 413 == got.status
    assert ["batch refused", "event is too big"] == [one.reason for one in inspector.bad]


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}], ids=["sniffed", "said"])
def test_v0_sniffs_gzip(inspector: Inspector, headers: dict[str, str]) -> None:
    """V0 unpacks what begins like gzip, whatever the headers say."""
    body = gzip.compress(json.dumps({"api_key": KEY, "batch": [event()]}).encode())

    assert 200 == ask(inspector, "POST", V0, body, headers).status
    assert 400 == ask(inspector, "POST", V0, body[:-9], headers).status


def test_v0_refuses_a_bomb(inspector: Inspector) -> None:
    """A small body that unpacks to more than the limit is a 413, not a full memory."""
    got = ask(inspector, "POST", V0, gzip.compress(b" " * (21 * 1024 * 1024)))

    assert 413 == got.status


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        pytest.param({"distinct_id": "Anonymous "}, "illegal distinct_id", id="illegal id"),
        pytest.param({"distinct_id": "x" * 201}, "200 characters", id="long id"),
        pytest.param({"timestamp": "yesterday"}, "unreadable timestamp", id="timestamp"),
        pytest.param({"timestamp": moment(24 * 3600)}, "in the future", id="future"),
        pytest.param(
            {"properties": {"$process_person_profile": "false"}}, "boolean", id="not a boolean"
        ),
        pytest.param(
            {"event": "$identify", "properties": {"$process_person_profile": False}},
            "is dropped",
            id="personless",
        ),
    ],
)
def test_v0_warns_of_what_it_takes(
    inspector: Inspector, fields: dict[str, Any], warning: str
) -> None:
    """What the server takes but does not like stays good, with a warning."""
    assert 200 == post_v0(inspector, event(**{"name": "a", **fields})).status

    (kept,) = inspector.events
    assert 1 == len(kept.warnings)
    assert warning in kept.warnings[0]


def test_v0_corrects_the_clock(inspector: Inspector) -> None:
    """A client whose clock is days ahead is not in the future: ``sent_at`` says so."""
    ahead = moment(3 * 24 * 3600)

    post_v0(inspector, event(timestamp=ahead), sent_at=ahead)
    post_v0(inspector, event(timestamp=ahead), sent_at="never")

    assert [0, 2] == [len(one.warnings) for one in inspector.events]


def test_v0_turns_ids_into_text(inspector: Inspector) -> None:
    """An id of another type is taken as its text; one in the properties serves as well."""
    inner = event(distinct_id=..., properties={"distinct_id": "inner"})

    post_v0(inspector, event(distinct_id=23.5), event(distinct_id={"a": 1}), inner)

    assert ["23.5", '{"a":1}', "inner"] == [one.distinct_id for one in inspector.events]


# What V1 takes and refuses.


def test_v1_answers_for_every_event(inspector: Inspector) -> None:
    """Each event has a verdict under its uuid; a bad one takes no other down."""
    good, bad, nobody = event(), event(""), event(distinct_id="anonymous")

    got = post_v1(inspector, good, bad, nobody)

    assert 200 == got.status
    assert "application/json" == got.headers["Content-Type"]
    assert None is got.headers["Retry-After"]
    expected = {
        good["uuid"]: {"result": "ok"},
        bad["uuid"]: {"result": "drop", "details": "missing_event_name"},
        nobody["uuid"]: {"result": "ok", "details": "person_processing_disabled"},
    }
    assert {"results": expected} == got.said
    assert [good["uuid"], nobody["uuid"]] == [one.uuid for one in inspector.events]
    assert [(bad["uuid"], "missing_event_name")] == [(o.uuid, o.reason) for o in inspector.bad]


@pytest.mark.parametrize(
    ("fields", "details"),
    [
        ({"event": ""}, "missing_event_name"),
        ({"event": "é" * 101}, "event_name_too_long"),
        ({"event": "$performance_event"}, "dropped_performance_event"),
        ({"distinct_id": " "}, "missing_distinct_id"),
        ({"distinct_id": "é" * 101}, "distinct_id_too_large"),
        ({"timestamp": "2026-03-04T05:06:07"}, "invalid_event_timestamp"),
        ({"timestamp": "2026-02-31T05:06:07Z"}, "invalid_event_timestamp"),
        ({"properties": []}, "malformed_event_properties"),
        ({"options": {"cookieless_mode": "yes"}}, "invalid_options"),
        ({"options": []}, "invalid_options"),
        ({"properties": {"x": "x" * 1_000_001}}, "event_too_big"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_v1_drops_alone(inspector: Inspector, fields: dict[str, Any], details: str) -> None:
    """A bad event is dropped with the server's own word for it."""
    one = event(**{"name": "a", **fields})

    got = post_v1(inspector, one)

    assert {one["uuid"]: {"result": "drop", "details": details}} == got.said["results"]
    assert [details] == [kept.reason for kept in inspector.bad]


TWICE = "0195f2b1-6c1e-7d55-9d0e-2f1f5f0f4a11"


@pytest.mark.parametrize(
    ("events", "tag"),
    [
        ([], "empty_batch"),
        ([event(uuid=...)], "request_parsing_error"),
        ([event(uuid="")], "missing_event_uuid"),
        ([event(uuid="nonsense")], "invalid_event_uuid"),
        ([event(uuid=TWICE), event(uuid=TWICE.upper())], "duplicate_event_uuid"),
        ([event(distinct_id=5)], "request_parsing_error"),
        ([event(timestamp=1700000000)], "request_parsing_error"),
        ([event(timestamp=...)], "request_parsing_error"),
        ([5], "request_parsing_error"),
    ],
    ids=["empty", "no uuid", "blank uuid", "bad uuid", "twice", "id", "time", "no time", "number"],
)
def test_v1_refuses_what_it_cannot_name(inspector: Inspector, events: list[Any], tag: str) -> None:
    """Types and uuids are judged for the request: without them no verdict has a name."""
    got = post_v1(inspector, *events)

    assert (400, tag) == (got.status, got.said["error"])
    assert {"error", "error_description", "error_uri"} == got.said.keys()
    assert len(events) == len(inspector.bad)


@pytest.mark.parametrize(
    ("changed", "status", "tag"),
    [
        ({"Authorization": None}, 401, "missing_authorization"),
        ({"Authorization": "Basic abc"}, 400, "invalid_header_value"),
        ({"Authorization": "Bearer phx_abc"}, 401, "invalid_api_token"),
        ({"Content-Type": "text/plain"}, 415, "unsupported_content_type"),
        ({"Content-Encoding": "lzw"}, 415, "unsupported_encoding"),
        ({"Content-Encoding": "gzip"}, 400, "request_decoding_error"),
        ({"PostHog-Attempt": "0"}, 400, "invalid_header_value"),
        ({"PostHog-Request-Id": "1"}, 400, "invalid_header_value"),
        ({"PostHog-Request-Timestamp": "now"}, 400, "invalid_header_value"),
        ({"PostHog-Attempt": None}, 400, "missing_required_headers"),
    ],
)
def test_v1_wants_its_headers(
    inspector: Inspector, changed: dict[str, str | None], status: int, tag: str
) -> None:
    """Each of the seven headers is a must, in the form that the server knows."""
    got = ask(inspector, "POST", V1, body_v1(event()), headers_v1(**changed))

    assert (status, tag) == (got.status, got.said["error"])
    assert [status] == [one.status for one in inspector.requests]


def test_v1_lists_all_headers_that_miss(inspector: Inspector) -> None:
    """One answer names every header that is not there; the key's own comes before all others."""
    assert 401 == ask(inspector, "POST", V1, body_v1(event())).status

    got = ask(inspector, "POST", V1, body_v1(event()), {"Authorization": f"Bearer {KEY}"})

    named = got.said["error_description"].removeprefix("missing: ").split(", ")
    assert {
        "Content-Type",
        "User-Agent",
        "PostHog-Sdk-Info",
        "PostHog-Attempt",
        "PostHog-Request-Id",
        "PostHog-Request-Timestamp",
    } == set(named)


@pytest.mark.parametrize(
    ("body", "tag"),
    [
        (b"", "empty_body"),
        (b"[]", "request_parsing_error"),
        (b'{"created_at":"2026-03-04T05:06:07Z"}', "request_parsing_error"),
        (b'{"batch":[]}', "request_parsing_error"),
        (b'{"created_at":"2026-03-04","batch":[]}', "empty_batch"),
        (
            b'{"created_at":"2026-03-04","batch":[%b]}' % json.dumps(event()).encode(),
            "invalid_batch",
        ),
        (b'{"created_at":NaN,"batch":[]}', "request_parsing_error"),
    ],
    ids=["empty", "array", "no batch", "no created_at", "nothing in it", "bad created_at", "nan"],
)
def test_v1_refuses_bodies(inspector: Inspector, body: bytes, tag: str) -> None:
    """What is not a batch is refused with the server's tag."""
    got = ask(inspector, "POST", V1, body, headers_v1())

    assert (400, tag) == (got.status, got.said["error"])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate", "br", "zstd"])
def test_v1_takes_every_coding(inspector: Inspector, coding: str) -> None:
    """V1 unpacks the four codings, and both forms of ``deflate``."""
    body = body_v1(event())
    if coding == "raw deflate":
        body, coding = zlib.compress(body)[2:-4], "deflate"
    else:
        pytest.importorskip({"br": "brotli", "zstd": "zstandard"}.get(coding, "zlib"))
        body, _ = compress(body, coding)

    got = ask(inspector, "POST", V1, body, headers_v1(Content_Encoding=coding.upper()))

    assert 200 == got.status
    assert 1 == len(inspector.events)


def test_v1_echoes_the_request_id(inspector: Inspector) -> None:
    """Whatever the answer, it says to which request."""
    headers = headers_v1()

    for body in (body_v1(event()), b"{"):
        got = ask(inspector, "POST", V1, body, headers)
        assert headers["PostHog-Request-Id"] == got.headers["PostHog-Request-Id"]


@pytest.mark.parametrize("name", ["posthog", "posthog-v1"])
def test_takes_what_the_dialects_send(inspector: Inspector, name: str) -> None:
    """What a dialect writes is good here, and comes back as the message that it was."""
    dialect = find_dialect(name)
    message = Message("seen", "user-1", {"a": 1, "$session_id": "s"}, TWICE, moment())
    batch = Batch([dialect.line(message)], str(uuid.uuid4()), moment())
    request = dialect.request(batch, Endpoint(inspector.url, KEY), moment())

    path = request.url.removeprefix(inspector.url)
    got = ask(inspector, "POST", path, request.body, request.headers)

    assert 200 == got.status
    assert [message] == [one.message for one in inspector.events]


# What a script changes.


def test_script_is_taken_in_turn(inspector: Inspector) -> None:
    """The next requests get the scripted answers; the one after them gets the truth."""
    inspector.script(Answer(503, {"Retry-After": "7"}), Answer(body=b"!"), Answer(204))

    got = [post_v0(inspector, event(name)) for name in "abcd"]

    assert [503, 200, 204, 200] == [one.status for one in got]
    assert "7" == got[0].headers["Retry-After"]
    assert [b"Service Unavailable", b"!", b""] == [one.body for one in got[:3]]
    assert ["b", "c", "d"] == [one.event for one in inspector.events]


def test_refusal_is_in_the_protocols_words(inspector: Inspector) -> None:
    """A scripted status has the body that the real server would send."""
    inspector.script(Answer(402))

    assert "billing_limit_exceeded" == post_v1(inspector, event()).said["error"]
    assert {"good": 0, "bad": 0} == {k: inspector.counts()[k] for k in ("good", "bad")}


def test_answer_always_is_for_all(inspector: Inspector) -> None:
    """Chaos lasts until it is taken back; the script goes first."""
    inspector.answer_always = Answer(500)
    inspector.script(Answer(418))

    statuses = [post_v0(inspector, event()).status for _ in range(3)]
    inspector.answer_always = None

    assert [418, 500, 500, 200] == [*statuses, post_v0(inspector, event()).status]


def test_rate_is_a_share(inspector: Inspector) -> None:
    """A rate of 0 changes nothing, a rate of 1 everything."""
    inspector.script(Answer(500, rate=0.0), Answer(500, rate=1.0))

    assert [200, 500] == [post_v0(inspector, event()).status for _ in range(2)]


def test_wrong_requests_stay_wrong(inspector: Inspector) -> None:
    """A scripted 2xx is not for what the protocol refuses."""
    inspector.script(Answer(207))

    assert 400 == post_v0(inspector, event("")).status


def test_max_events_is_a_413(inspector: Inspector) -> None:
    """A batch over the limit is refused, a smaller one is taken."""
    inspector.answer_always = Answer(max_events=2)

    assert 413 == post_v0(inspector, event(), event(), event()).status
    assert 200 == post_v0(inspector, event(), event()).status
    assert 2 == len(inspector.events)


def test_verdicts_are_by_uuid_or_name(inspector: Inspector) -> None:
    """Scripted verdicts go by uuid before name; a retry is stored nowhere, None says nothing."""
    kept, again, silent, dropped = event("a"), event("b"), event("c"), event("d")
    inspector.script(
        Answer(
            verdicts={
                kept["uuid"]: "limited",
                "a": "drop",
                "b": "retry",
                "c": None,
                "d": {"result": "drop", "details": "over_quota"},
            }
        )
    )

    got = post_v1(inspector, kept, again, silent, dropped)

    assert "1" == got.headers["Retry-After"]
    assert {
        kept["uuid"]: {"result": "limited"},
        again["uuid"]: {"result": "retry", "details": "not_persisted"},
        dropped["uuid"]: {"result": "drop", "details": "over_quota"},
    } == got.said["results"]
    assert ["a", "c"] == [one.event for one in inspector.events]
    assert [("d", "over_quota")] == [(one.event, one.reason) for one in inspector.bad]


def test_verdicts_may_be_a_function(inspector: Inspector) -> None:
    """A function gets the uuids of the batch, in order."""
    first, second = event(), event()
    inspector.script(Answer(verdicts=lambda uuids: {uuids[0]: "retry"}))

    got = post_v1(inspector, first, second)

    results = {name: said["result"] for name, said in got.said["results"].items()}
    assert {first["uuid"]: "retry", second["uuid"]: "ok"} == results


@pytest.mark.parametrize("after", [0, 20], ids=["at once", "in the head"])
def test_resets_are_resets(inspector: Inspector, after: int) -> None:
    """A connection that breaks off ends with RST, which no client takes for the end of a body."""
    inspector.script(Answer(reset_after=after))
    body = json.dumps({"api_key": KEY, "batch": [event()]}).encode()
    head = b"POST /batch/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = b""

    with connect(inspector) as client, pytest.raises(ConnectionError):  # noqa: PT012 - reads on
        client.sendall(head)
        client.sendall(body)
        while received := client.recv(65536):
            answer += received

    assert b"HTTP/1.1 200 OK\r\nServer"[:after] == answer
    assert [0 if after == 0 else 200] == [one.status for one in inspector.requests]
    assert (0 if after == 0 else 1) == len(inspector.events)


def test_resets_in_the_answer(inspector: Inspector) -> None:
    """An answer that breaks off leaves the events stored, so the next attempt is a duplicate."""
    inspector.script(Answer(reset_after=20))
    one = event()

    with pytest.raises((ConnectionError, http.client.HTTPException)):
        post_v0(inspector, one)
    post_v0(inspector, one)

    assert [(False, 1), (True, 2)] == [(o.duplicate, o.attempt) for o in inspector.events]
    assert 1 == inspector.counts()["duplicates"]


def test_refused_events_are_no_duplicates(inspector: Inspector) -> None:
    """Only what was accepted twice is a duplicate; the attempts count all the same."""
    inspector.script(Answer(503))
    one = event()

    post_v0(inspector, one)
    post_v0(inspector, event(""), one)
    post_v0(inspector, one)

    assert [(False, 3)] == [(o.duplicate, o.attempt) for o in inspector.events]
    assert 0 == inspector.counts()["duplicates"]


def test_v1_says_its_attempt(inspector: Inspector) -> None:
    """On V1 the header counts the attempts."""
    ask(inspector, "POST", V1, body_v1(event()), headers_v1(PostHog_Attempt="4"))

    assert [4] == [one.attempt for one in inspector.events]


@pytest.mark.parametrize(
    ("late", "stored"),
    [({"hang": True}, 0), ({"delay": 60.0}, 1), ({"drip": 60.0}, 1)],
    ids=["hang", "delay", "drip"],
)
def test_stop_ends_what_waits(late: dict[str, Any], stored: int) -> None:
    """However late an answer would be, `stop` ends its connection at once."""
    arrived = threading.Event()
    failures = []

    def arrive(uuids: Sequence[str]) -> Mapping[str, str]:
        arrived.set()
        return {}

    def client() -> None:
        with pytest.raises((OSError, http.client.HTTPException)) as caught:
            post_v1(inspector, event())
        failures.append(caught.value)

    with Inspector() as inspector:
        inspector.script(Answer(verdicts=arrive, **late))
        thread = threading.Thread(target=client)
        thread.start()
        assert arrived.wait(5)
        began = time.monotonic()
        inspector.stop()
        took = time.monotonic() - began
        thread.join(5)

    assert 1 == len(failures)
    assert 1.0 > took
    assert stored == len(inspector.events)


def test_drips_the_body(inspector: Inspector) -> None:
    """A dripped answer arrives whole in the end."""
    inspector.script(Answer(drip=0.001))

    assert {"status": "Ok"} == post_v0(inspector, event()).said


# What is remembered.


def test_wait_returns_what_came(inspector: Inspector) -> None:
    """`wait` ends with the last event asked for, or with what is there at the time-out."""
    threading.Thread(target=post_v0, args=(inspector, event("a"), event("b"))).start()

    assert ["a"] == [one.event for one in inspector.wait("a", timeout=5)]
    assert ["a", "b"] == [one.event for one in inspector.wait(count=2, timeout=5)]
    assert [] == inspector.wait("c", timeout=0.01)


def test_counts_by_name(inspector: Inspector) -> None:
    """The counts are of everything since the last reset."""
    post_v0(inspector, event("a"), event("a"), event("b"))
    post_v0(inspector, event(""))

    expected = {"total": 4, "good": 3, "bad": 1, "duplicates": 0, "requests": 2}
    assert {**expected, "events": {"a": 2, "b": 1}} == inspector.counts()
    inspector.reset()
    assert {**dict.fromkeys(expected, 0), "events": {}} == inspector.counts()
    assert ([], [], []) == (inspector.events, inspector.bad, inspector.requests)


def test_rings_forget_the_oldest() -> None:
    """More than the capacity is counted, and not kept."""
    with Inspector(capacity=2) as inspector:
        for name in "abc":
            post_v0(inspector, event(name))

        assert ["b", "c"] == [one.event for one in inspector.events]
        assert [2, 3] == [one.number for one in inspector.requests]
        assert 3 == inspector.counts()["good"]
        assert 2 == len(inspector.wait(count=3, timeout=0))


def test_ten_thousand_are_remembered_by_default(inspector: Inspector) -> None:
    """The capacity is met exactly, and what was forgotten is counted."""
    for _ in range(10):
        post_v0(inspector, *(event(uuid=...) for _ in range(1000)))
    assert 10_000 == len(inspector.events)
    assert "forgotten" not in inspector.counts()

    post_v0(inspector, event("latest"), event("very latest"))

    assert (10_000, "very latest") == (len(inspector.events), inspector.events[-1].event)
    assert (10_002, 2) == (inspector.counts()["good"], inspector.counts()["forgotten"])
    inspector.reset()
    assert "forgotten" not in inspector.counts()


@pytest.mark.parametrize("capacity", [0, -1, True, 1.5, "10"])
def test_a_capacity_is_a_number(capacity: Any) -> None:
    """What cannot be a capacity is refused by name."""
    with pytest.raises(ValueError, match="capacity"):
        Inspector(capacity=capacity)


@pytest.mark.parametrize(
    "wrong",
    [{"port": "x"}, {"port": -1}, {"port": 65_536}, {"plan": "nope"}, {"forward": 1}],
    ids=lambda one: f"{next(iter(one))}-{next(iter(one.values()))}",
)
def test_wrong_arguments_are_named(wrong: Any) -> None:
    """What is no port, no plan or no callable is refused by the parameter's name."""
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))}: must be"):
        Inspector(**wrong)


def test_remembers_requests(inspector: Inspector) -> None:
    """A request is remembered as it came, and as it was answered."""
    headers = headers_v1(Content_Encoding="gzip")
    body = body_v1(event())

    ask(inspector, "POST", V1, gzip.compress(body), headers)

    (request,) = inspector.requests
    assert (V1, "posthog-v1", "gzip", 200) == (
        request.path,
        request.dialect,
        request.coding,
        request.status,
    )
    assert json.loads(body) == request.payload
    assert (request.bytes, request.size) == (len(request.body), len(body))
    assert headers["Authorization"] == request.headers["authorization"]


def test_takes_many_events() -> None:
    """20,000 events in batches of 2,000 are a matter of seconds at most."""
    with Inspector(capacity=20_000) as inspector:
        batch = [event() for _ in range(2000)]
        began = time.monotonic()
        for _ in range(10):
            post_v0(inspector, *batch)
        took = time.monotonic() - began

        counts = inspector.counts()
        assert (20_000, 18_000) == (counts["good"], counts["duplicates"])
        assert 10.0 > took


# The HTTP around it.


def test_keeps_connections(inspector: Inspector) -> None:
    """One connection serves many requests, also after a refusal and an unknown path."""
    connection = http.client.HTTPConnection(inspector.url.removeprefix("http://"), timeout=10)
    statuses = []
    for path, body in (("/nowhere", b"x"), (V0, b"x"), ("/api/reset", b"")):
        connection.request("POST", path, body)
        response = connection.getresponse()
        response.read()
        statuses.append((response.status, response.will_close))
    connection.close()

    assert [(404, False), (400, False), (200, False)] == statuses


def raw(inspector: Inspector, said: bytes) -> bytes:
    with connect(inspector) as client:
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", 411),
        (b"Content-Length: -1\r\n", 400),
        (b"Content-Length: 9999999999\r\n", 413),
        (b"Content-Length: 5\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n", 400),
    ],
    ids=["no length", "negative", "huge", "short", "bad chunk"],
)
def test_bodies_must_have_an_end(inspector: Inspector, head: bytes, status: int) -> None:
    """A body without a length, or with a wrong one, is refused and the connection closed."""
    answer = raw(inspector, b"POST /batch/ HTTP/1.1\r\nHost: localhost\r\n%b\r\nx" % head)

    assert b"HTTP/1.1 %d" % status == answer[:12]
    assert b"Connection: close" in answer
    assert [status] == [one.status for one in inspector.requests]


def test_reads_chunks(inspector: Inspector) -> None:
    """A chunked body is a body, and the next request begins after its trailers."""
    body = json.dumps({"api_key": KEY, "batch": [event()]}).encode()
    chunks = b"%x;a=b\r\n%b\r\n%x\r\n%b\r\n0\r\nX: y\r\n\r\n" % (
        5,
        body[:5],
        len(body[5:]),
        body[5:],
    )
    head = b"POST /batch/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = raw(inspector, (head + chunks) * 2)

    assert 2 == answer.count(b"HTTP/1.1 200 OK")
    assert 2 == len(inspector.events)


def test_continues_when_expected(inspector: Inspector) -> None:
    """Who asks first is told to go on (RFC 9110, 10.1.1)."""
    body = json.dumps({"api_key": KEY, "batch": [event()]}).encode()
    head = (
        b"POST /batch/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    )

    answer = raw(inspector, head % len(body) + body)

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_port_in_use_is_said_clearly(inspector: Inspector) -> None:
    """A port that another holds is an `OSError` that names it."""
    port = int(inspector.url.rpartition(":")[2])

    with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
        Inspector(port)


def test_starts_and_stops_as_often_as_you_like() -> None:
    """Start and stop are idempotent; the url and what arrived survive them."""
    inspector = Inspector()
    url = inspector.url
    for _ in range(2):
        assert inspector.start().start() is inspector
        assert 200 == post_v0(inspector, event()).status
        inspector.stop()
        inspector.stop()
        with pytest.raises(ConnectionRefusedError):
            post_v0(inspector, event())

    assert (url, 2) == (inspector.url, len(inspector.events))
    assert f"<Inspector {url} stopped>" == repr(inspector)


def test_a_server_that_never_served_is_closed() -> None:
    """An inspector that was built and stopped leaves nothing open."""
    inspector = Inspector()
    inspector.stop()

    with pytest.raises(ConnectionRefusedError):
        post_v0(inspector, event())


# The API.


def api(inspector: Inspector, path: str) -> Any:
    return ask(inspector, "GET", f"/api/{path}").said


def test_api_events_are_selected(inspector: Inspector) -> None:
    """Events are found by name, person, verdict and number."""
    post_v1(inspector, event("a"), event("b", distinct_id="user-2"), event(""), event("a"))

    def names(query: str) -> list[str]:
        return [one["event"] for one in api(inspector, f"events?{query}")["events"]]

    assert ["a", "b", "a", ""] == names("")
    assert ["a", "a"] == names("event=a")
    assert ["b"] == names("distinct_id=user-2")
    assert [""] == names("good=0")
    assert ["a"] == names("good=1&limit=1")
    last = api(inspector, "events?good=1")["last"]
    assert [""] == names(f"since={last}")


@pytest.mark.parametrize("query", ["limit=x", "since=-1", "good=maybe", "limit=1.5"])
def test_api_says_what_is_wrong(inspector: Inspector, query: str) -> None:
    """A query that makes no sense is a 400 with an explanation."""
    got = ask(inspector, "GET", f"/api/events?{query}")

    assert (400, True) == (got.status, bool(got.said["error"]))


def test_api_waits(inspector: Inspector) -> None:
    """`/api/wait` tells whether the events came in time."""
    threading.Thread(target=post_v0, args=(inspector, event("a"))).start()

    found = api(inspector, "wait?event=a&timeout=5")
    missed = api(inspector, "wait?event=b&count=2&timeout=0.01")

    assert (True, ["a"]) == (found["found"], [one["event"] for one in found["events"]])
    assert {"found": False, "events": []} == missed


def test_api_counts_and_resets(inspector: Inspector) -> None:
    """Counts are the same as in the process; a reset takes a POST."""
    post_v0(inspector, event("a"))

    assert inspector.counts() == api(inspector, "counts")
    assert 405 == ask(inspector, "GET", "/api/reset").status
    assert 0 == ask(inspector, "POST", "/api/reset", b"").said["total"]


def test_api_exports_lines(inspector: Inspector) -> None:
    """The export has one event a line."""
    post_v0(inspector, event("a"), event("b"))

    got = ask(inspector, "GET", "/api/export?good=1")

    assert "application/x-ndjson" == got.headers["Content-Type"]
    assert ["a", "b"] == [json.loads(line)["event"] for line in got.body.splitlines()]


def test_api_scripts(inspector: Inspector) -> None:
    """The script can be set from outside, and read."""
    said = {
        "script": [{"status": 503, "headers": {"Retry-After": "1"}, "body": "no"}],
        "always": {"verdicts": {"a": "retry"}, "rate": 0.5},
    }

    got = ask(inspector, "POST", "/api/answers", json.dumps(said).encode())

    assert (200, said) == (got.status, got.said)
    assert said == api(inspector, "answers")
    assert (503, b"no") == post_v0(inspector, event())[::2]
    assert {"script": [], "always": None} == ask(inspector, "POST", "/api/answers", b"{}").said


@pytest.mark.parametrize(
    "said",
    [
        "[]",
        '{"script": {}}',
        '{"always": 5}',
        '{"always": {"status": "x"}}',
        '{"always": {"status": 99}}',
        '{"always": {"colour": 1}}',
        '{"always": {"headers": {"a": "b\\r\\nc"}}}',
        '{"always": {"verdicts": {"a": 5}}}',
        "{",
    ],
)
def test_api_refuses_a_bad_script(inspector: Inspector, said: str) -> None:
    """A script that cannot be played changes nothing."""
    inspector.answer_always = Answer(418)

    assert 400 == ask(inspector, "POST", "/api/answers", said.encode()).status
    assert Answer(418) == inspector.answer_always


def test_keys_do_not_leave_the_process(inspector: Inspector) -> None:
    """No path of the API, and no ``repr``, shows a key; enough is left to tell two apart."""
    post_v0(inspector, event(token=KEY), event(api_key=KEY), event(properties={"token": KEY}))
    post_v1(inspector, event())
    ask(inspector, "POST", V0, b"{", {"Authorization": f"Basic {KEY}", "X-Api-Key": "short"})

    shown = [
        ask(inspector, "GET", f"/api/{path}").body.decode()
        for path in ("events", "requests", "export", "wait?timeout=0", "counts", "answers")
    ]
    shown.append(repr((inspector, inspector.requests)))
    assert [] == [text for text in shown if KEY in text or "short" in text]
    assert "phc_…test" in shown[0]
    assert "Bearer phc_…test" in shown[1]


@pytest.mark.parametrize("path", ["/", "/api/events", "/api/counts"])
@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}],
    ids=["rebound", "foreign page", "sandbox"],
)
def test_foreigners_get_nothing(inspector: Inspector, path: str, headers: dict[str, str]) -> None:
    """A name rebound to this machine, or another site's page, reads and changes nothing."""
    assert 403 == ask(inspector, "GET", path, None, headers).status


def test_page_and_unknown_paths(inspector: Inspector) -> None:
    """The page is there; nothing else is."""
    page = ask(inspector, "GET", "/", None, {"Host": "localhost:1"})

    assert (200, "text/html; charset=utf-8") == (page.status, page.headers["Content-Type"])
    assert 404 == ask(inspector, "GET", "/etc/passwd").status
    assert 405 == ask(inspector, "GET", V0).status


# The parts that are pure.


@given(st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(9998, 1, 1)), st.integers(-720, 720))
def test_moments_are_read_as_they_are_written(when: dt.datetime, minutes: int) -> None:
    """RFC 3339 of any offset is the same moment to both readers as to `datetime`."""
    there = when.replace(tzinfo=dt.timezone(dt.timedelta(minutes=minutes)))

    assert pytest.approx(there.timestamp(), abs=1e-3) == parse_strictly(there.isoformat())
    assert parse_leniently(there.isoformat()) == parse_strictly(there.isoformat())


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-04",
        "2026/03/04",
        "2026-03-04T00:00:00",
        "2026-03-04 00:00:00.000",
        "2026-03-04T03:00:00+03",
        "Wed, 04 Mar 2026 00:00:00 GMT",
        "1772582400",
        "1772582400000",
    ],
)
def test_v0_reads_kindly(text: str) -> None:
    """V0 reads moments that V1 refuses."""
    assert (1772582400.0, None) == (parse_leniently(text), parse_strictly(text))


@given(st.uuids(), st.sampled_from([str, lambda u: u.hex, lambda u: u.urn, lambda u: f"{{{u}}}"]))
def test_uuids_have_one_form(name: uuid.UUID, written: Any) -> None:
    """However a uuid is written, its canonical form is one."""
    assert str(name) == canonical(written(name).upper()) == canonical(written(name))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    """event distinct_id uuid timestamp properties $set options batch api_key sent_at created_at
    offset token""".split()
)


@settings(max_examples=60)
@given(
    path=st.sampled_from([V0, V1]),
    body=st.binary() | st.dictionaries(FIELDS, JSON | st.lists(st.dictionaries(FIELDS, JSON))),
)
def test_judges_are_total(path: str, body: Any) -> None:
    """Whatever arrives is answered, and each of its events is good or bad."""
    headers = {name.lower(): value for name, value in headers_v1().items()}
    judge = find_judge(path)
    assert judge is not None

    written = body if isinstance(body, bytes) else json.dumps(body).encode()
    judged = judge.judge(Incoming(path, {}, headers, written, 0.0))

    assert judged.status in {200, 400, 401, 413}
    assert len(judged.uuids) == len(judged.good) + len(judged.bad)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_strict_json_is_utf_8(body: bytes) -> None:
    """What passes for strict JSON can be written again, without a NaN, in UTF-8."""
    try:
        payload = strict_json(body)
    except ValueError:
        return

    json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()


def test_illegal_ids_are_spelled_as_compared() -> None:
    """Ids are compared in lower case and trimmed, so the table is."""
    assert {one.strip().lower() for one in ILLEGAL_IDS} == ILLEGAL_IDS
