"""PostHog's Logs server as the inspector plays it: all records are good, or all are bad."""

from __future__ import annotations

import gzip
import json
import logging
import time

from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from posthog_logging import PostHogHandler
from posthog_logging.events.message import Message
from posthog_logging.inspector import Inspector
from posthog_logging.inspector.rules import Incoming, Judged, find_judge
from posthog_logging.wire import Batch, Endpoint, find_dialect


KEY = "phc_a_project_key_of_this_test"
BEARER = {"authorization": f"Bearer {KEY}"}
NOW = 1_772_600_767.0


def record(**fields: Any) -> dict[str, Any]:
    nanos = str(int(NOW) * 10**9)
    known = {"timeUnixNano": nanos, "severityNumber": 9, "body": {"stringValue": "slow charge"}}
    return {**known, **fields}


def envelope(*records: Any) -> dict[str, Any]:
    return {"resourceLogs": [{"scopeLogs": [{"scope": {"name": "x"}, "logRecords": [*records]}]}]}


def judged(
    said: Any, headers: dict[str, str] = BEARER, query: dict[str, str] | None = None
) -> Judged:
    judge = find_judge("/i/v1/logs")
    assert judge is not None
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return judge.judge(Incoming("/i/v1/logs", query or {}, headers, body, NOW))


def test_a_handler_s_records_arrive(inspector: Inspector) -> None:
    """What the dialect sends is good, and reads as what was logged."""
    log = logging.getLogger("billing")
    handler = PostHogHandler(KEY, inspector.url, dialect="posthog-logs", flush_interval=0.05)
    log.addHandler(handler)
    log.warning("slow charge", extra={"distinct_id": "acct-77", "properties": {"ms": 840}})
    log.removeHandler(handler)
    handler.close()

    (event,) = inspector.events
    assert ("slow charge", "acct-77", "posthog-logs") == (
        event.event,
        event.distinct_id,
        event.dialect,
    )
    assert 840 == event.properties["ms"] == event.message.properties["ms"]
    assert "" == event.reason
    assert not event.warnings


@pytest.mark.parametrize("coding", [None, "gzip"])
def test_round_trip(coding: str | None) -> None:
    """A message is read by the judge as its dialect wrote it."""
    dialect = find_dialect("posthog-logs")
    uid = "0197d6b6-8000-7000-8000-000000000001"
    sent = Message("slow", "acct-77", {"a": [1, {"b": True}]}, uid, "2026-03-04T05:06:07.000Z")
    batch = Batch([dialect.line(sent)], "r", "2026-03-04T05:06:07Z")
    request = dialect.request(batch, Endpoint("http://x", KEY, coding), "2026-03-04T05:06:07Z")

    found = judged(request.body).good[0]

    assert ("slow", "acct-77", uid) == (found.event, found.distinct_id, found.uuid)
    assert [1, {"b": True}] == found.properties["a"]


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        (BEARER, {}, 200),
        ({}, {"token": KEY}, 200),
        (BEARER, {"token": "phx_personal"}, 200),
        ({"authorization": "Bearer phx_personal"}, {"token": KEY}, 401),
        ({}, {}, 401),
        ({}, {"token": ""}, 401),
    ],
    ids=["header", "query", "header wins", "header wins though wrong", "none", "empty"],
)
def test_key(headers: dict[str, str], query: dict[str, str], status: int) -> None:
    """The key is in the header or the query, the header wins, personal keys are refused."""
    got = judged(envelope(record()), headers, query)

    assert status == got.status
    assert ("error" in json.loads(got.body)) == (status == 401)


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        record(timeUnixNano="soon"),
        record(timeUnixNano={}),
        record(severityNumber="9"),
        record(severityText=9),
        record(body="slow charge"),
        record(body={"stringValue": 5}),
        record(attributes={"a": 1}),
        record(attributes=[{"key": "a", "value": {"intValue": "x"}}]),
        record(attributes=[{"key": "a", "value": {"arrayValue": {"values": 5}}}]),
        record(attributes=[{"key": "a", "value": {"arrayValue": {"values": False}}}]),
        record(body={"arrayValue": {"values": 1e308}}),
        record(body={"kvlistValue": {"values": 0}}),
        record(traceId=5),
        record(flags="1"),
    ],
    ids=repr,
)
def test_one_bad_record_refuses_all(wrong: Any) -> None:
    """One record that cannot be read makes the whole request a 400."""
    got = judged(envelope(record(), wrong, record()))

    reasons = [one.reason for one in got.bad]
    assert (400, 0, 3) == (got.status, len(got.good), len(got.bad))
    assert ["batch refused", "batch refused"] == [reasons[0], reasons[2]]
    assert reasons[1] not in ("", "batch refused")


@pytest.mark.parametrize(
    "said",
    [b"", b"{", b"[]", b"5", b'{"resourceLogs": 5}', b'{"resourceLogs": [5]}', b"\x1f\x8b\x08"],
)
def test_what_is_no_request_is_refused(said: bytes) -> None:
    """What is not OTLP's JSON is a 400."""
    assert 400 == judged(said).status


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_too_much_is_refused(pack: Any) -> None:
    """More than 2 MB, packed or unpacked, is a 413."""
    said = json.dumps(envelope(record(body={"stringValue": "x" * 2_100_000}))).encode()

    assert 413 == judged(pack(said)).status


@pytest.mark.parametrize(
    ("field", "beginning"),
    [
        ({"traceId": "abc"}, "traceId is not 32"),
        ({"spanId": "a" * 32}, "spanId is not 16"),
        ({"timeUnixNano": "0"}, "more than 24 hours"),
        ({"timeUnixNano": str(int(NOW + 90_000) * 10**9)}, "more than 24 hours"),
    ],
)
def test_what_the_server_changes_is_a_warning(field: dict[str, Any], beginning: str) -> None:
    """Ids of a wrong length and times too far away are taken, and told."""
    (found,) = judged(envelope(record(**field))).good

    assert [True] == [one.startswith(beginning) for one in found.warnings]


def test_no_record_is_fine() -> None:
    """A request without records is answered like any other."""
    assert (200, b"{}") == (judged({}).status, judged(envelope()).body)


NAMES = st.sampled_from(
    """timeUnixNano severityNumber body attributes key value values stringValue intValue
    arrayValue kvlistValue doubleValue traceId flags logRecords scopeLogs resourceLogs""".split()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


BODIES = st.sampled_from(["arrayValue", "kvlistValue"]).flatmap(
    lambda kind: st.builds(lambda values: {"body": {kind: {"values": values}}}, VALUES)
)


@settings(max_examples=100)
@given(st.dictionaries(NAMES, VALUES, max_size=6) | BODIES | VALUES)
def test_judge_is_total(said: Any) -> None:
    """Whatever a record is, it is good or bad, and the request is answered."""
    got = judged(envelope(said))

    assert (got.status, len(got.good), len(got.bad)) in {(200, 1, 0), (400, 0, 1), (400, 0, 0)}


@pytest.mark.parametrize("status", [429, 503])
def test_scripted_statuses_are_answered_in_json(status: int) -> None:
    """A status that somebody asked for comes in the server's own form."""
    judge = find_judge("/i/v1/logs/")
    assert judge is not None

    refused = judge.refuse(status, Incoming("/i/v1/logs", {}, BEARER, b"", time.time()))

    assert status == refused.status
    assert "error" in json.loads(refused.body)
