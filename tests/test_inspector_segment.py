"""The inspector as a server of the Segment family: what it answers, and what it makes of calls."""

from __future__ import annotations

import base64
import gzip
import json
import urllib.error
import urllib.request

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from posthog_logging.events.message import Message
from posthog_logging.inspector import Answer, Inspector
from posthog_logging.inspector.rules import Incoming, Judged, find_judge
from posthog_logging.wire import DIALECTS, Batch, Endpoint, Request, find_dialect
from posthog_logging.wire.segment import SINGLE_PATHS, SegmentDialect


ID = "01890b5c-2a3b-7c4d-8e5f-0123456789ab"
NOW = "2024-01-02T03:04:05.678000Z"
BASIC = {"authorization": "Basic " + base64.b64encode(b"wk:").decode()}
GOOD = {
    "type": "track",
    "event": "x",
    "userId": "u",
    "messageId": ID,
    "context": {},
    "timestamp": NOW,
}


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[Inspector]:
    with Inspector() as server:
        yield server


def judged(body: Any, path: str = "/v1/batch", headers: Any = (), **query: str) -> Judged:
    """Ask the judge of *path*; an object is sent as JSON."""
    judge = find_judge(path)
    assert judge is not None
    plain = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge.judge(Incoming(path, query, dict(headers), plain, 1_704_164_645.0))


def batch(*calls: Any, **fields: Any) -> dict[str, Any]:
    return {"writeKey": "wk", "sentAt": NOW, "batch": list(calls), **fields}


def without(*names: str, **fields: Any) -> dict[str, Any]:
    return {**{k: v for k, v in GOOD.items() if k not in names}, **fields}


def reasons(answer: Judged) -> list[str]:
    return [one.reason for one in answer.bad]


def post(server: Inspector, request: Request) -> tuple[int, bytes]:
    try:
        asked = urllib.request.Request(request.url, request.body, dict(request.headers))
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


FAMILY = [name for name in DIALECTS if isinstance(find_dialect(name), SegmentDialect)]


@pytest.mark.parametrize("name", FAMILY)
def test_every_dialect_is_understood(server: Inspector, name: str) -> None:
    """What each vendor is sent arrives as good events, in PostHog's words, without a warning."""
    dialect = find_dialect(name)
    path = urlsplit(dialect.request(Batch([], "r", NOW), Endpoint("http://h", ""), NOW).url).path
    assert find_judge(path), f"add {path} to _SEGMENT_PATHS in inspector/rules.py"
    sent = [
        Message("played", "user-1", {"movie": 1}, ID, NOW),
        Message("$identify", "user-1", {"$set": {"a": 1}}, ID[:-1] + "c", NOW),
        Message(
            "$create_alias", "old", {"alias": "new", "distinct_id": "old"}, ID[:-1] + "d", NOW
        ),
    ]
    server.reset()
    lines = [dialect.line(one) for one in sent]
    request = dialect.request(Batch(lines, "request-1", NOW), Endpoint(server.url, "wk"), NOW)

    assert (200, b'{"success":true}') == post(server, request)
    assert [one.event for one in sent] == [one.event for one in server.events]
    assert [one.uuid for one in sent] == [one.message.uuid for one in server.events]
    assert [()] * 3 == [one.warnings for one in server.events]
    assert [] == server.bad


@pytest.mark.parametrize(
    "path",
    [
        "/v1/batch",
        "/v1/batch/",
        "/v1/import",
        "/sdk/batch",
        "/b",
        "/acme/v1/batch",
        "/a/b/v1/import/",
    ],
)
def test_batches_come_by_many_paths(path: str) -> None:
    """Each path of a batch is judged by the same rules, also below a base path."""

    assert ["x"] == [one.event for one in judged(batch(GOOD), path).good]


@pytest.mark.parametrize(("step", "kind"), SINGLE_PATHS.items())
def test_single_calls_are_judged(step: str, kind: str) -> None:
    """A single call needs no type, and its key may be in the body."""
    call = without("type", writeKey="wk", previousId="p", groupId="g")
    answer = judged(call, f"/v1/{step}")

    assert (200, []) == (answer.status, reasons(answer))
    assert [kind] == [one.raw["type"] for one in answer.good]


KEYS = {
    "basic": ({}, {}, BASIC, {}),
    "bearer": ({}, {}, {"authorization": "Bearer sk_eu_1"}, {}),
    "header": ({}, {}, {"x-write-key": "wk"}, {}),
    "query": ({}, {}, {}, {"writekey": "wk"}),
    "body": ({"writeKey": "wk"}, {}, {}, {}),
    "each message": ({}, {"writeKey": "wk"}, {}, {}),
}


@pytest.mark.parametrize(("envelope", "call", "headers", "query"), KEYS.values(), ids=KEYS)
def test_a_key_may_come_in_many_ways(envelope: Any, call: Any, headers: Any, query: Any) -> None:
    """Each vendor's way to say the key is taken."""
    answer = judged({**envelope, "batch": [{**GOOD, **call}]}, headers=headers, **query)

    assert (200, 1) == (answer.status, len(answer.good))


NO_KEYS = {
    "none": {},
    "empty user": {"authorization": "Basic " + base64.b64encode(b":").decode()},
    "broken basic": {"authorization": "Basic ää"},
    "bytes that are no text": {"authorization": "Basic " + base64.b64encode(b"\xff").decode()},
}


@pytest.mark.parametrize("headers", NO_KEYS.values(), ids=NO_KEYS)
def test_without_a_key_all_is_refused(headers: Any) -> None:
    """A request without a key is a 401, and none of its calls is kept."""
    answer = judged({"batch": [GOOD]}, headers=headers)

    assert (401, 0, 1) == (answer.status, len(answer.good), len(answer.bad))


BAD = {
    "not an object": (1, "not_an_object"),
    "no type": (without("type"), "unknown_type"),
    "unknown type": (without(type="capture"), "unknown_type"),
    "a type that is no text": (without(type=[]), "unknown_type"),
    "track without a name": (without("event"), "missing_event_name"),
    "track with a blank name": (without(event=" "), "missing_event_name"),
    "no id": (without("userId"), "no_user_anon_id"),
    "null id": (without(userId=None), "no_user_anon_id"),
    "blank id": (without(userId="  "), "no_user_anon_id"),
    "id of another kind": (without(userId={}), "userId_not_a_string"),
    "truth for an id": (without(anonymousId=True), "anonymousId_not_a_string"),
    "identify without an id": (without("userId", type="identify"), "no_user_anon_id"),
    "page without an id": (without("userId", type="page"), "no_user_anon_id"),
    "screen without an id": (without("userId", type="screen"), "no_user_anon_id"),
    "group without a key": (without(type="group"), "missing_group_id"),
    "group without an id": (without("userId", type="group", groupId="g"), "no_user_anon_id"),
    "alias without the old id": (without(type="alias"), "missing_previous_id"),
    "alias without the new id": (
        without("userId", type="alias", previousId="p"),
        "missing_user_id",
    ),
    "properties as a list": (without(properties=[]), "properties_not_an_object"),
    "traits as a text": (without(type="identify", traits="a"), "traits_not_an_object"),
    "context as a text": (without(context="a"), "context_not_an_object"),
    "integrations as a list": (without(integrations=[]), "integrations_not_an_object"),
    "too large": (without(properties={"a": "x" * 33_000}), "event_too_large"),
}


@pytest.mark.parametrize(("call", "reason"), BAD.values(), ids=BAD)
def test_what_is_lost_later_is_bad_now(call: Any, reason: str) -> None:
    """A bad call gets its 200 like on the real servers, and takes no other down with it."""
    answer = judged(batch(call, GOOD))

    assert (200, [reason], ["x"]) == (
        answer.status,
        reasons(answer),
        [one.event for one in answer.good],
    )


WARNED = {
    "no context": (without("context"), "no context"),
    "null context": (without(context=None), "no context"),
    "no message id": (without("messageId"), "no messageId"),
    "long message id": (without(messageId="x" * 101), "no messageId"),
    "unreadable time": (without(timestamp="soon"), "unreadable timestamp"),
    "numeric id": (without(userId=5), "userId is not a string"),
    "null id": (without(anonymousId=None), "anonymousId is not a string"),
}


@pytest.mark.parametrize(("call", "beginning"), WARNED.values(), ids=WARNED)
def test_what_only_some_servers_mind_is_a_warning(call: Any, beginning: str) -> None:
    """A call that another vendor would lose is good, with a word about it."""
    (found,) = judged(batch(call)).good

    assert [True] == [warning.startswith(beginning) for warning in found.warnings]


def test_a_batch_without_its_time_is_warned_about() -> None:
    """Without ``sentAt`` clocks cannot be corrected, so each call says so."""
    (found,) = judged(batch(GOOD, sentAt=None)).good

    assert ["no sentAt beside the batch"] == [text.partition(":")[0] for text in found.warnings]


REFUSED = {
    "not JSON": (b"{", {}, 400),
    "NaN": (b'{"batch": [{"type": "track", "a": NaN}]}', {}, 400),
    "no object": (b"[]", {}, 400),
    "no list": (batch() | {"batch": {}}, {}, 400),
    "empty": (batch(), {}, 400),
    "broken gzip": (b"{}", {"content-encoding": "gzip"}, 400),
    "another coding": (b"{}", {"content-encoding": "br"}, 400),
    "segment's 500 KB": (batch(GOOD, padding="x" * 500_000), {}, 400),
    "metarouter's 500 KB": (
        {"batch": [{**GOOD, "writeKey": "wk"}], "padding": "x" * 500_000},
        {},
        413,
    ),
    "rudderstack's 4,096,000 bytes": (
        {"batch": [GOOD], "padding": "x" * 4_096_000},
        BASIC,
        413,
    ),
}


@pytest.mark.parametrize(("body", "headers", "status"), REFUSED.values(), ids=REFUSED)
def test_what_the_api_refuses(body: Any, headers: Any, status: int) -> None:
    """What is unreadable or too large is refused as a whole, with a code and a message."""
    answer = judged(body, headers=headers)

    assert (status, False, 0) == (
        answer.status,
        json.loads(answer.body)["success"],
        len(answer.good),
    )
    assert answer.error == json.loads(answer.body)["message"]


def test_rudderstack_takes_larger_batches() -> None:
    """Where only Basic names the key, a batch and an event may have RudderStack's size."""
    large = without(properties={"a": "x" * 600_000})

    assert 1 == len(judged({"sentAt": NOW, "batch": [large]}, headers=BASIC).good)


def test_metarouter_s_events_are_small() -> None:
    """Where each message has its key, an event has no more than 15 KB."""
    large = without(properties={"a": "x" * 15_000}, writeKey="wk", appId="wk")

    assert ["event_too_large"] == reasons(judged({"sentAt": NOW, "batch": [large]}))


def test_a_large_single_call_is_refused() -> None:
    """A single call is refused where a batch would lose it in silence."""
    large = without("type", writeKey="wk", properties={"a": "x" * 33_000})

    assert 400 == judged(large, "/v1/track").status


def test_a_crowd_is_lost() -> None:
    """More than 2,500 calls in one batch get a 200 and are all thrown away."""
    answer = judged(batch(*[{"type": "page", "userId": "u", "context": {}}] * 2501))

    assert (200, 0, {"too_many_events"}) == (
        answer.status,
        len(answer.good),
        set(reasons(answer)),
    )


def test_gzip_is_read() -> None:
    """A body that says ``gzip`` is unpacked."""
    packed = gzip.compress(json.dumps(batch(GOOD)).encode())

    assert 1 == len(judged(packed, headers={"content-encoding": "gzip"}).good)


def test_the_batch_s_context_is_in_each_event(server: Inspector) -> None:
    """What stands beside the batch is part of every event's message."""
    server.reset()
    body = json.dumps(batch(GOOD, context={"ip": "::1"})).encode()
    post(server, Request(f"{server.url}/v1/batch", {}, body))

    assert [{"$ip": "::1"}] == [one.message.properties for one in server.events]


@pytest.mark.parametrize("status", [429, 460, 503])
def test_scripted_statuses_are_answered_in_json(server: Inspector, status: int) -> None:
    """A status that was asked for comes in the family's form, and keeps no event."""
    server.reset()
    server.script(Answer(status=status))
    body = json.dumps(batch(GOOD)).encode()
    answered, said = post(server, Request(f"{server.url}/v1/batch", {}, body))

    assert (status, f"status_{status}") == (answered, json.loads(said)["code"])
    assert [] == server.events


def test_no_key_leaves_the_inspector(server: Inspector) -> None:
    """The keys in each of MetaRouter's messages are masked like all others."""
    server.reset()
    key = "source-key-0123456789"
    dialect = find_dialect("metarouter")
    line = dialect.line(Message("x", "u", {}, ID, NOW))
    post(server, dialect.request(Batch([line], "r", NOW), Endpoint(server.url, key), NOW))
    with urllib.request.urlopen(f"{server.url}/api/events", timeout=10) as answer:
        shown = answer.read()

    assert ID.encode() in shown
    assert key.encode() not in shown
