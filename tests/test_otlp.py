"""PostHog Logs: what a record looks like on the wire, and that it survives the way."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import math
import threading

from typing import Any
from urllib.parse import urlsplit

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from posthog_logging.delivery.policy import Outcome, judge
from posthog_logging.events import jsonable
from posthog_logging.events.message import Message, Refused
from posthog_logging.version import LIBRARY, VERSION
from posthog_logging.wire import (
    Batch,
    Dialect,
    Endpoint,
    Limits,
    Request,
    Response,
    Results,
    find_dialect,
)
from posthog_logging.wire.otlp import LOGS, LogsDialect


ID = "01890b5c-2a3b-7c4d-8e5f-0123456789ab"
NOW = "2024-01-02T03:04:05.678901Z"
NANOS = 1704164645678901000
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def message(body: str = "slow charge", distinct_id: str = "", **properties: Any) -> Message:
    """Return a message as a log record makes it."""
    return Message(body, distinct_id, properties, ID, NOW)


def record(*args: str, **properties: Any) -> Any:
    """Return the record that a message becomes."""
    return json.loads(LogsDialect().line(message(*args, **properties)))


def attributes(*args: str, **properties: Any) -> dict[str, Any]:
    """Return the attributes of a record, but for the id."""
    first, *others = record(*args, **properties)["attributes"]
    assert {"key": "log.record.uid", "value": {"stringValue": ID}} == first
    return {pair["key"]: pair["value"] for pair in others}


def posted(dialect: LogsDialect, *lines: bytes, **fields: Any) -> Request:
    """Return one attempt's request, uncompressed unless said otherwise."""
    given = {"host": "https://h.test", "api_key": "phc a/b", "compression": None, **fields}
    return dialect.request(Batch(lines, "request-1", NOW), Endpoint(**given), NOW)


def resource(dialect: LogsDialect) -> dict[str, Any]:
    """Return the resource's attributes as plain values."""
    body = json.loads(posted(dialect).body)
    pairs = body["resourceLogs"][0]["resource"]["attributes"]
    return {pair["key"]: pair["value"]["stringValue"] for pair in pairs}


def test_the_dialect_has_a_name() -> None:
    """It is found by its name and has all verbs of a dialect."""
    assert LOGS is find_dialect("posthog-logs")
    assert isinstance(LOGS, Dialect)


# Severity


@pytest.mark.parametrize(
    ("level", "number", "text"),
    [
        (None, 9, "INFO"),
        (0, 9, "INFO"),
        ("shiny", 9, "INFO"),
        (1, 1, "TRACE"),
        (5, 1, "TRACE"),
        (10, 5, "DEBUG"),
        (20, 9, "INFO"),
        (25, 9, "INFO"),
        (30, 13, "WARN"),
        (40, 17, "ERROR"),
        (50, 21, "FATAL"),
        (99, 21, "FATAL"),
        ("error", 17, "ERROR"),
        ("warn", 13, "WARN"),
        (" Critical", 21, "FATAL"),
        ([], 9, "INFO"),
    ],
)
def test_severity(level: Any, number: int, text: str) -> None:
    """Python's levels and their names become OTLP's; none, or an unknown one, is 9."""
    found = record(**{"$severity": level})

    assert (number, text) == (found["severityNumber"], found["severityText"])
    assert "slow charge" == found["body"]["stringValue"]


def test_the_number_beats_the_text() -> None:
    """Where number and text of a severity disagree, the number is authoritative."""
    severity: Any = {"$severity": 40}
    line = LOGS.line(message(**severity)).replace(b'"ERROR"', b'"DEBUG"')

    (found,) = LOGS.decode(posted(LOGS, line))

    assert 40 == found.properties["$severity"]


@pytest.mark.parametrize("body", ["", "  \n"])
def test_a_blank_body_is_refused(body: str) -> None:
    """A record whose body is only white space is dropped, under a reason."""
    with pytest.raises(Refused) as caught:
        LOGS.line(message(body))

    assert "blank_log" == caught.value.reason


# Times


def test_the_time_is_the_call_s() -> None:
    """Both times are the message's, in nanoseconds, as text."""
    found = record()

    assert str(NANOS) == found["timeUnixNano"] == found["observedTimeUnixNano"]


def test_equal_times_strictly_increase() -> None:
    """Records of the same instant get rising times, also when several threads write them."""
    dialect = LogsDialect()
    times: list[int] = []

    def write() -> None:
        for _ in range(200):
            times.append(int(json.loads(dialect.line(message()))["timeUnixNano"]))  # noqa: PERF401

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert list(range(NANOS, NANOS + 800)) == sorted(times)


def test_a_little_earlier_is_raised_and_long_ago_stays() -> None:
    """A time just before the last one is raised above it; a time of long ago was meant."""
    dialect = LogsDialect()
    stamps = [NOW, "2024-01-02T03:04:05.600000Z", "2023-01-02T03:04:05.000000Z"]

    times = [
        int(json.loads(dialect.line(message()._replace(timestamp=stamp)))["timeUnixNano"])
        for stamp in stamps
    ]

    assert [NANOS, NANOS + 1, 1672628645 * 10**9] == times


# Values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", {"stringValue": "text"}),
        (True, {"boolValue": True}),
        (4999, {"intValue": "4999"}),
        (-(2**63), {"intValue": str(-(2**63))}),
        (2**63 - 1, {"intValue": str(2**63 - 1)}),
        (2**63, {"stringValue": str(2**63)}),
        (2.5, {"doubleValue": 2.5}),
        (math.nan, {"stringValue": "NaN"}),
        (math.inf, {"stringValue": "Infinity"}),
        (-math.inf, {"stringValue": "-Infinity"}),
        ([1, "a"], {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "a"}]}}),
        ((math.nan,), {"arrayValue": {"values": [{"stringValue": "NaN"}]}}),
        ([None], {"arrayValue": {"values": [{}]}}),
        (
            {"a": {"b": 1}, "gone": None},
            {
                "kvlistValue": {
                    "values": [
                        {
                            "key": "a",
                            "value": {
                                "kvlistValue": {
                                    "values": [{"key": "b", "value": {"intValue": "1"}}]
                                }
                            },
                        }
                    ]
                }
            },
        ),
        (b"raw", {"stringValue": "raw"}),
    ],
    ids=repr,
)
def test_any_value(value: Any, expected: dict[str, Any]) -> None:
    """Every value has its kind in OTLP; integers are text, and a null key is absent."""
    assert {"x": expected} == attributes(x=value, absent=None)


def test_cycles_depth_and_shared_values() -> None:
    """Cycles and depth are cut to values of OTLP's, and shared values cost no time."""
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: Any = 1
    for _ in range(60):
        deep = [deep, deep]

    line = LOGS.line(message(cycle=cycle, deep=deep, a=1))
    (found,) = LOGS.decode(posted(LOGS, line))

    assert "[cut: cycle]" in json.dumps(found.properties["cycle"])
    assert "[cut: deeper than 6]" in json.dumps(found.properties["deep"])
    assert 1 == found.properties["a"]


def test_a_caller_s_change_changes_nothing() -> None:
    """What was logged is what is sent: the context is frozen at the call."""
    properties: dict[str, Any] = {"n": [1]}
    line = LOGS.line(Message("x", "", properties, ID, NOW))
    properties["n"].append(2)

    assert [1] == LOGS.decode(posted(LOGS, line))[0].properties["n"]


# Context and trace


def test_context() -> None:
    """Identity, session and flags have their own names; what steers events is left out."""
    found = attributes(
        "x",
        "acct-77",
        **{"$session_id": "s-1", "$active_feature_flags": ["f"], "$is_server": True, "ms": 1},
    )

    assert {
        "posthogDistinctId": {"stringValue": "acct-77"},
        "sessionId": {"stringValue": "s-1"},
        "feature_flags": {"arrayValue": {"values": [{"stringValue": "f"}]}},
        "ms": {"intValue": "1"},
    } == found


def test_no_context() -> None:
    """Without an identity, a session or flags there are no such attributes."""
    assert {} == attributes(**{"$session_id": None, "$active_feature_flags": []})


def test_a_caller_s_attribute_overrides_the_context() -> None:
    """A caller's own attribute wins over the context's; the id is not the caller's."""
    found = attributes(
        "x", "acct-77", **{"posthogDistinctId": "mine", "sessionId": "s", "log.record.uid": "no"}
    )

    assert {
        "posthogDistinctId": {"stringValue": "mine"},
        "sessionId": {"stringValue": "s"},
    } == found


def test_trace() -> None:
    """Trace and span have places of their own; flags of 0 are flags."""
    found = record(**{"$trace_id": TRACE.upper(), "$span_id": SPAN, "$trace_flags": 0})

    assert (TRACE, SPAN, 0) == (found["traceId"], found["spanId"], found["flags"])


@pytest.mark.parametrize("given", [None, "", "abc", TRACE + "0", "x" * 32, "0" * 32, 7])
def test_no_trace(given: Any) -> None:
    """An id that is none is left out, and so are flags that were not given."""
    found = record(**{"$trace_id": given, "$span_id": given, "$trace_flags": None})

    assert {"traceId", "spanId", "flags"}.isdisjoint(found)


# Requests


def test_url_and_token() -> None:
    """The key is in the header, and where wished encoded in the query (sdk-specs ``logs``)."""
    request = posted(LogsDialect(token_in_url=True))

    assert "https://h.test/i/v1/logs?token=phc%20a%2Fb" == request.url
    assert "Bearer phc a/b" == request.headers["Authorization"]


def test_the_token_stays_out_of_the_url() -> None:
    """A key in the header only does not show up in access logs, nor in what urllib3 logs."""
    assert "" == urlsplit(posted(LOGS).url).query


def test_one_envelope() -> None:
    """Twenty records go in one resource and one scope: the library's name and version."""
    body = json.loads(posted(LOGS, *[LOGS.line(message())] * 20).body)
    (scope,) = body["resourceLogs"][0]["scopeLogs"]

    assert 20 == len(scope["logRecords"])
    assert {"name": LIBRARY, "version": VERSION} == scope["scope"]


def test_gzip() -> None:
    """The body is packed with its header, and plain where no packing is wished."""
    packed, plain = posted(LOGS, compression="gzip"), posted(LOGS)

    assert "gzip" == packed.headers["Content-Encoding"]
    assert plain.body == gzip.decompress(packed.body)
    assert "Content-Encoding" not in plain.headers


def test_resource() -> None:
    """The service, its version and environment, the system and what else was said."""
    dialect = LogsDialect(
        service_name="billing",
        service_version="1.2",
        environment="prod",
        resource_attributes={"team": "t-9", "os.version": "mine"},
    )

    found = resource(dialect)

    assert {
        "team": "t-9",
        "os.version": "mine",
        "service.name": "billing",
        "service.version": "1.2",
        "deployment.environment": "prod",
        "telemetry.sdk.name": LIBRARY,
        "telemetry.sdk.version": VERSION,
    } == {key: value for key, value in found.items() if key != "os.name"}
    assert found["os.name"]


def test_identity_cannot_be_clobbered() -> None:
    """A resource attribute of the caller's never replaces the service's or the library's name."""
    found = resource(
        LogsDialect(resource_attributes={"service.name": "x", "telemetry.sdk.name": "x"})
    )

    assert ("unknown_service", LIBRARY) == (found["service.name"], found["telemetry.sdk.name"])


@pytest.mark.parametrize(
    ("status", "count", "outcome"),
    [
        (200, 50, Outcome.DELIVERED),
        (413, 50, Outcome.HALVE),
        (413, 1, Outcome.OVERSIZED),
        (400, 50, Outcome.BISECT),
        (400, 1, Outcome.REJECTED),
        (429, 50, Outcome.RETRY),
        (503, 50, Outcome.RETRY),
        (404, 50, Outcome.PAUSE),
    ],
)
def test_answers(status: int, count: int, outcome: Outcome) -> None:
    """413 halves, one bad record is searched for, a quota waits for up to 15 minutes."""
    assert outcome is judge(status, LOGS.rules, count)
    assert LOGS.rules.longest_retry_after >= 900.0


@pytest.mark.parametrize("body", [b"{}", b"", b"nonsense"])
def test_an_answer_says_nothing_of_single_records(body: bytes) -> None:
    """A 2xx is for all records, whatever else it says."""
    assert Results() == LOGS.results(Response(200, {}, body))


def test_the_id_of_a_line_is_read() -> None:
    """A line's id stands at a fixed place."""
    assert ID == LOGS.uuid_of(LOGS.line(message(uid=ID)))


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        ("x" * 3_000_000, {}),
        ("x", {"t": "é" * 2_000_000}),
        ("x", {str(n): "y" * 9000 for n in range(900)}),
    ],
    ids=["body", "attribute", "attributes"],
)
def test_a_huge_record_is_cut(body: str, properties: dict[str, Any]) -> None:
    """A record is cut to what one request takes, and is still one of OTLP's."""
    line = LOGS.line(Message(body, "", properties, ID, NOW))

    assert len(line) <= LOGS.limits.event_bytes
    assert "[cut: " in str(LOGS.decode(posted(LOGS, line))[0])


def test_what_no_cut_can_help_is_refused() -> None:
    """A record that is too large even when cut is refused as oversized."""
    with pytest.raises(Refused) as caught:
        LogsDialect(limits=Limits(300, 1000, 10)).line(message(a="x" * 300))

    assert "oversized" == caught.value.reason


# Both ways


BAD_RECORDS: list[Any] = [
    "x",
    {"timeUnixNano": "soon"},
    {"timeUnixNano": []},
    {"timeUnixNano": "9" * 40},
    {"body": "bare"},
    {"body": {"stringValue": 7}},
    {"body": {"intValue": "many"}},
    {"body": {"rareValue": 1}},
    {"body": {"arrayValue": 1}},
    {"attributes": {"a": 1}},
]


@pytest.mark.parametrize("bad", BAD_RECORDS, ids=str)
def test_what_is_no_record_is_refused(bad: Any) -> None:
    """Reading raises ValueError, and nothing else, for a record that is none."""
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": [bad]}]}]}
    with pytest.raises(ValueError):
        LOGS.decode(Request("https://h.test/i/v1/logs", {}, json.dumps(body).encode()))


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"resourceLogs":7}', b"NaN", b"\xff"])
def test_what_is_no_envelope_is_refused(body: bytes) -> None:
    """Reading raises ValueError for what holds no records at all."""
    with pytest.raises(ValueError):
        LOGS.decode(Request("https://h.test/i/v1/logs", {}, body))


def test_foreign_records() -> None:
    """The records of other senders are read too: bodies that are no text, integers as numbers."""
    records = [
        {"body": {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": 1}}]}}},
        {
            "timeUnixNano": 1000,
            "severityNumber": 18,
            "attributes": [{"key": "a", "value": {"doubleValue": 1}}],
        },
    ]
    body = {"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}

    first, second = LOGS.decode(Request("", {}, json.dumps(body).encode()))

    assert '{"a":1}' == first.event
    assert {"a": 1, "$severity": 40} == second.properties
    assert "1970-01-01T00:00:00.000001Z" == second.timestamp


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
RESERVED = {"posthogDistinctId", "sessionId", "feature_flags", "log.record.uid"}
names = texts.filter(lambda name: name[:1] != "$" and name not in RESERVED)
context = st.fixed_dictionaries(
    {"$severity": st.sampled_from([5, 10, 20, 30, 40, 50])},
    optional={
        "$session_id": texts.filter(bool),
        "$trace_id": st.just(TRACE),
        "$span_id": st.just(SPAN),
        "$trace_flags": st.integers(0, 255),
        "$active_feature_flags": st.lists(texts, min_size=1, max_size=2),
    },
)
messages = st.builds(
    Message,
    texts.filter(str.strip),
    texts,
    st.builds(
        lambda own, more: {**own, **more}, st.dictionaries(names, values, max_size=4), context
    ),
    st.uuids().map(str),
    st.datetimes(min_value=dt.datetime(1971, 1, 1)).map(
        lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    ),
)


@given(sent=messages)
@settings(max_examples=150)
def test_messages_come_back_as_they_were(sent: Message) -> None:
    """What was encoded is decoded to the same message, packed as well."""
    dialect = LogsDialect()
    line = dialect.line(sent)

    assert [sent] == dialect.decode(posted(dialect, line, compression="gzip"))
    assert sent.uuid == dialect.uuid_of(line)
    assert line == jsonable.encode(jsonable.decode(line))


@pytest.mark.parametrize(("number", "unnamed"), [("3", 3), (3, 3), ("0", 0), (0, 0), ("x", 0)])
def test_rejected_records_are_counted(number: Any, unnamed: int) -> None:
    """``rejectedLogRecords`` says how many, as text or as a number, and not which."""
    body = json.dumps({"partialSuccess": {"rejectedLogRecords": number}}).encode()

    assert Results(unnamed=unnamed) == LOGS.results(Response(200, body=body))
