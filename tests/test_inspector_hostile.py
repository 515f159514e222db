"""The inspector among strangers: bodies that explode, foreign pages, keys where none belong."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import http.client
import json
import re
import socket
import time
import urllib.parse

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st

from posthog_logging.inspector import Answer, Event, Inspector
from posthog_logging.inspector.masking import Mask, keys_in
from posthog_logging.inspector.rules import MOST_EVENTS, strict_json
from posthog_logging.inspector.store import Ring
from posthog_logging.inspector.visitors import may_look, may_send


KEY = "phc_0123456789abcdefghijklmnopqrstuvwxyz"
WRITE_KEY = "Wk3fT9qLx0Zb7sYp2RuV5nCd8"
NAME = "0195f2b1-6c1e-7d55-9d0e-2f1f5f0f4a11"
V1 = "/i/v1/analytics/events"
V1_HEADERS = {
    "Authorization": f"Bearer {KEY}",
    "Content-Type": "application/json",
    "User-Agent": "test/1",
    "PostHog-Sdk-Info": "test/1",
    "PostHog-Attempt": "1",
    "PostHog-Request-Id": NAME,
    "PostHog-Request-Timestamp": "2026-03-04T05:06:07Z",
}
V1_EVENT = {
    "event": "a",
    "distinct_id": "u",
    "uuid": NAME,
    "timestamp": V1_HEADERS["PostHog-Request-Timestamp"],
    "properties": {},
}


def ask(
    inspector: Inspector,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(inspector.url.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def of(form: bytes, member: bytes, times: int) -> bytes:
    return form % b",".join([member] * times)


V0_BATCH = b'{"api_key":"' + KEY.encode() + b'","batch":[%b]}'
RECORDS = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%b]}]}]}'
WIDE = b'{"key":"' + b"k" * 900_000 + b'"}'
BOMBS = {
    "V0, millions of objects": ("/batch/", of(V0_BATCH, b"{}", 6_500_000), {}),
    "V0, an array of them": ("/e/", of(b"[%b]", b"{}", 6_500_000), {}),
    "V0, millions of numbers": ("/e/", of(b'{"event":"a","a":[%b]}', b"1", 9_000_000), {}),
    "V0, too many events": ("/e/", of(b"[%b]", b'{"event":"a"}', MOST_EVENTS + 1), {}),
    "V0, nested lists": ("/e/", b"[" * 9_000_000, {}),
    "V0, nested objects": ("/e/", b'{"a":' * 300_000, {}),
    "V0, nested and whole": ("/e/", b"[" * 900 + b"]" * 900, {}),
    "V1, millions of objects": (V1, of(b'{"created_at":"","batch":[%b]}', b"{}", 16_000_000), {}),
    "Segment, millions of objects": (
        "/v1/batch",
        of(b'{"writeKey":"wk","batch":[%b]}', b"{}", 5_000_000),
        {},
    ),
    "Segment, one context for many": (
        "/v1/batch",
        of(b'{"context":{"a":%b},"batch":[%%b]}' % WIDE, b'{"type":"page"}', 40_000),
        {"Authorization": "Basic d2s6"},
    ),
    "Logs, too many records": ("/i/v1/logs", of(RECORDS, b"{}", 650_000), {}),
    "Logs, one resource for many": (
        "/i/v1/logs",
        of(
            b'{"resourceLogs":[{"resource":%b,"scopeLogs":[%%b]}]}' % WIDE,
            b'{"logRecords":[{}]}',
            40_000,
        ),
        {},
    ),
}


@pytest.mark.parametrize(("path", "body", "headers"), BOMBS.values(), ids=BOMBS)
def test_bombs_are_refused_before_they_are_read(
    inspector: Inspector, path: str, body: bytes, headers: dict[str, str]
) -> None:
    """What unpacks to too much of anything is a 4xx within moments, and none of it is kept."""
    packed = gzip.compress(body, 1)
    began = time.monotonic()

    status, _ = ask(inspector, path, packed, {**V1_HEADERS, "Content-Encoding": "gzip", **headers})

    assert 400 <= status < 500
    assert 5.0 > time.monotonic() - began
    assert ([], []) == (inspector.events, inspector.bad)
    assert [status] == [one.status for one in inspector.requests]


DEAD = b'{"a":[%b]}' % b",".join([b"[]"] * 400_000)


@pytest.mark.parametrize("body", [b"\n".join([DEAD] * 5), b"{}\n" * (MOST_EVENTS + 1)])
def test_dead_letters_are_bounded_together(inspector: Inspector, body: bytes) -> None:
    """Lines that are fine one by one are refused if together they are too much."""
    status, answer = ask(inspector, "/api/dead-letters", body)

    assert (413, []) == (status, inspector.bad)
    assert b"the inspector reads no more" in answer


def test_a_key_of_megabytes_is_no_key(inspector: Inspector) -> None:
    """What stands under a key's name may be huge: it holds nobody up, and is not searched for."""
    body = json.dumps({"writeKey": "a1" * 4_000_000, "batch": []}).encode()
    began = time.monotonic()

    assert 400 == ask(inspector, "/v1/batch", body)[0]
    assert 3.0 > time.monotonic() - began
    assert b"a1a1a1a1a1" not in ask(inspector, "/api/requests", method="GET")[1]


@pytest.mark.parametrize("depth", [128, 600, 990])
def test_depth_is_looked_at_first(depth: int) -> None:
    """What is nested too deep is a ``ValueError``, also with a text that is looked at twice."""
    with pytest.raises(ValueError, match=r"nested|depth|recursion"):
        strict_json(b"[" * depth + b'"\\ud83d\\ude00"' + b"]" * depth)


@pytest.mark.parametrize(
    "wanted",
    [
        {"always": {"delay": 1e12}},
        {"always": {"delay": -1}},
        {"script": [{"drip": 3601}]},
        {"always": {"rate": 1.5}},
        {"always": {"reset_after": -1}},
        {"always": {"max_events": -1}},
        {"play": []},
        {"play": {}},
        {"play": 5},
    ],
    ids=str,
)
def test_answers_that_cannot_be_given(inspector: Inspector, wanted: Any) -> None:
    """A wait without an end, or a server that is no name, is refused; the real answers stay."""
    assert 400 == ask(inspector, "/api/answers", json.dumps(wanted).encode())[0]
    assert 200 == ask(inspector, "/api/counts", method="GET")[0]
    assert inspector.answer_always is None


@pytest.mark.parametrize("numbers", [{"delay": 1e12}, {"drip": float("nan")}, {"rate": -0.1}])
def test_an_answer_checks_its_numbers(numbers: dict[str, float]) -> None:
    """An answer in Python names the number that is out of its range."""
    with pytest.raises(ValueError, match=rf"^{next(iter(numbers))}: between 0 and \d+$"):
        Answer(**numbers)  # type: ignore[arg-type]


def test_a_number_is_named_and_not_quoted(inspector: Inspector) -> None:
    """A query that is no number is a 400 that says which one, and not what was given."""
    for query in ("events?limit=x", "events?since=" + "9" * 5000, "wait?timeout=nan"):
        status, answer = ask(inspector, f"/api/{query}", method="GET")
        name = query.partition("?")[2].partition("=")[0]

        assert (400, {"error": f"{name}: a number from 0 on"}) == (status, json.loads(answer))


def test_scripted_answers_are_shown_without_keys(inspector: Inspector) -> None:
    """The script's answers leave as masked as all else."""
    inspector.answer_always = Answer(headers={"X-Echo": KEY}, body=KEY.encode())

    assert KEY.encode() not in ask(inspector, "/api/answers", method="GET")[1]


def test_chunks_and_trailers_are_bounded(inspector: Inspector) -> None:
    """A body in chunks of a byte is read; one whose trailers do not end is a 400."""
    head = "POST /batch/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    bytewise = "".join(f"1\r\n{one}\r\n" for one in "[]") + "0\r\n"

    assert b"request holds no event" in raw(inspector, f"{head}{bytewise}a: b\r\n\r\n")
    assert raw(inspector, head + bytewise + "a: b\r\n" * 1000).startswith(b"HTTP/1.1 400")
    assert [b"[]", b""] == [one.body for one in inspector.requests]


@pytest.mark.parametrize(
    "digits", ["9" * 5000, "0" * 5000, "-" + "9" * 5000, "٣" * 30, "1_0", "+5", "0x5"]
)
def test_lengths_are_numbers(inspector: Inspector, digits: str) -> None:
    """A length of any form is a 4xx (0 for a body without events), not an exception."""
    host, _, port = inspector.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as client:
        head = f"POST /batch/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {digits}\r\n\r\n"
        client.sendall(head.encode())
        answer = client.recv(100)

    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413")


def raw(inspector: Inspector, head: str) -> bytes:
    host, _, port = inspector.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(head.encode("latin-1"))
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


CHUNKED = "POST /batch/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
HEADS = {
    "a last chunk of 900 zeros": CHUNKED + "0" * 900 + "\r\n\r\n",
    "huge chunk": CHUNKED + "f" * 1000 + "\r\n",
    "signed chunk": CHUNKED + "+5\r\nhello\r\n0\r\n\r\n",
    "chunk with an underscore": CHUNKED + "0_5\r\nhello\r\n0\r\n\r\n",
    "two lengths": "POST /batch/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2"
    "\r\n\r\nxx",
    "no address": "GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a query of 5,000 digits": f"GET /api/events?limit={'9' * 5000} HTTP/1.1\r\nHost: localhost"
    "\r\n\r\n",
    "an event of 5,000 digits": f"GET /api/event?number={'9' * 5000} HTTP/1.1\r\nHost: localhost"
    "\r\n\r\n",
    "a beacon of 5,000 digits": f"POST /e/?beacon={'9' * 5000} HTTP/1.1\r\nHost: localhost\r\n"
    "Content-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_odd_heads_are_answered(inspector: Inspector, head: str) -> None:
    """Whatever stands in a head, the answer is a 4xx, and the inspector goes on."""
    assert b"HTTP/1.1 4" == raw(inspector, head)[:10]
    assert 200 == ask(inspector, "/api/counts", method="GET")[0]


def test_an_attempt_is_a_32_bit_number(inspector: Inspector) -> None:
    """On V1 an attempt that is none is a 400; elsewhere the header means nothing."""
    event = {"event": "a", "distinct_id": "u", "api_key": KEY}
    body = json.dumps(event).encode()
    for attempt in ("9" * 5000, "0" * 5000, "4294967296", "0", "-1", "1e3"):
        assert 200 == ask(inspector, "/e/", body, {"PostHog-Attempt": attempt})[0]
        assert 400 == ask(inspector, V1, body, {**V1_HEADERS, "PostHog-Attempt": attempt})[0]

    assert len(inspector.events) == 6
    events = {"created_at": V1_HEADERS["PostHog-Request-Timestamp"], "batch": [V1_EVENT]}
    for attempt in ("4294967295", "0" * 5000 + "1"):
        headers = {**V1_HEADERS, "PostHog-Attempt": attempt}
        assert 200 == ask(inspector, V1, json.dumps(events).encode(), headers)[0]


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, "1e400", "9" * 5000])
def test_numbers_beyond_a_double_are_no_json(number: str) -> None:
    """What serde_json refuses is refused with either parser."""
    with pytest.raises(ValueError, match=r"."):
        strict_json(f'{{"a":[{number}]}}'.encode())

    assert {"a": number} == strict_json(json.dumps({"a": number}).encode())


def test_rings_are_bounded_in_memory() -> None:
    """A few heavy items push out the oldest ones; the latest always stays."""
    ring: Ring[Any] = Ring(10, heaviest=100)
    for number in range(5):
        ring.add(number, 40)
    assert [3, 4] == list(ring)
    ring.add("huge", 1000)

    assert (["huge"], 5) == (list(ring), ring.forgotten)


# Who may come in.


OWN = {"host": "127.0.0.1:8765"}
VISITORS = {
    # name: (headers, may look, may send)
    "a program": (OWN, True, True),
    "by name": ({"host": "localhost:8765"}, True, True),
    "IPv6": ({"host": "[::1]:8765"}, True, True),
    "another loopback": ({"host": "127.1.2.3"}, True, True),
    "its own page": ({**OWN, "origin": "http://127.0.0.1:8765"}, True, True),
    "its own page, fetched": ({**OWN, "sec-fetch-site": "same-origin"}, True, True),
    "an address typed in": ({**OWN, "sec-fetch-site": "none"}, True, True),
    "another port": ({**OWN, "origin": "http://127.0.0.1:3000"}, False, False),
    "another name of this machine": ({**OWN, "origin": "http://localhost:8765"}, False, False),
    "a foreign page": ({**OWN, "origin": "https://evil.example"}, False, False),
    "a sandbox": ({**OWN, "origin": "null"}, False, False),
    "nonsense": ({**OWN, "origin": "http://["}, False, False),
    "cross-site without an origin": ({**OWN, "sec-fetch-site": "cross-site"}, False, False),
    "same site": ({**OWN, "sec-fetch-site": "same-site"}, False, False),
    "rebound": ({"host": "evil.example:8765"}, False, False),
    "rebound page": (
        {"host": "evil.example:8765", "origin": "http://evil.example:8765"},
        False,
        False,
    ),
    "rebound, ending in a dot": ({"host": "evil.example."}, False, False),
    "looks like loopback": ({"host": "127.0.0.1.evil.example"}, False, False),
    "no host": ({}, False, True),
    "a name of Docker's": ({"host": "host.docker.internal:8765"}, False, True),
    "a name of Compose's": ({"host": "inspector:8765"}, False, True),
    "an address of this network": ({"host": "192.168.1.5:8765"}, False, True),
}


@pytest.mark.parametrize(("headers", "look", "send"), VISITORS.values(), ids=VISITORS)
def test_visitors(headers: dict[str, str], look: bool, send: bool) -> None:
    """Programs of this machine send, its own page looks; no other page does either."""
    assert (look, send) == (may_look(headers), may_send(headers))


def test_a_proxy_takes_what_is_for_others(inspector: Inspector) -> None:
    """A program whose proxy is the inspector sends here, whatever host it names; a page cannot."""
    event = json.dumps({"event": "a", "distinct_id": "u", "api_key": KEY})
    head = (
        "POST http://us.example/e/ HTTP/1.1\r\nHost: us.example\r\n"
        f"Content-Length: {len(event)}\r\nConnection: close\r\n"
    )

    assert b"HTTP/1.1 200" == raw(inspector, f"{head}\r\n{event}")[:12]
    assert b"HTTP/1.1 403" == raw(inspector, f"{head}Origin: http://evil\r\n\r\n{event}")[:12]
    assert ["a"] == [one.event for one in inspector.events]


def test_links_lead_to_the_page() -> None:
    """A link in somebody's chat opens the page, and nothing else; a frame does not."""
    link = {**OWN, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}

    assert (True, False) == (may_look(link, is_page=True), may_look(link))
    assert not may_look({**link, "host": "evil.example"}, is_page=True)


@pytest.mark.parametrize("path", ["/batch/", V1, "/v1/batch", "/api/reset", "/api/answers"])
def test_foreign_pages_write_nothing(inspector: Inspector, path: str) -> None:
    """A page of another site sends no event and changes nothing, and leaves no trace."""
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        status, body = ask(inspector, path, b"{}", headers)
        assert (403, True) == (status, b"Origin" in body)

    assert [] == inspector.requests


# Keys.


HIDDEN = {
    "as it is": KEY,
    "inside a word": f"x{KEY}",
    "after an underscore": f"old_{KEY}",
    "in a sentence": f"my key is {KEY}!",
    "percent-encoded": "phc%5F0123456789abcdefghijklmnopqrstuvwxyz",
    "percent-encoded, small letters": "phc%5f0123456789abcdefghijklmnopqrstuvwxyz",
    "after a percent-encoded sign": f"https://x/e?a=b%3D{KEY}",
    "encoded twice": urllib.parse.quote(urllib.parse.quote(f"?token={KEY}/", safe=""), safe=""),
    "every character encoded": "".join(f"%{ord(c):02x}" for c in KEY),
    "a personal key": KEY.replace("phc_", "phx_"),
    "another kind of key": KEY.replace("phc_", "phs_"),
    "another kind in a word": "sphr_0123456789ABCDEFGHIJ",
}


@pytest.mark.parametrize("text", HIDDEN.values(), ids=HIDDEN)
def test_keys_are_masked_in_any_dress(text: str) -> None:
    """However a key is written into a text, too little of it is shown to use it."""
    shown = Mask().value({text: [text], "a": {"b": text}})

    secret = "0123456789"
    decoded = urllib.parse.unquote(urllib.parse.unquote(json.dumps(shown, ensure_ascii=False)))
    assert secret not in decoded
    assert "wxyz" not in decoded or "…wxyz" in decoded


def escaped(form: str, key: str) -> str:
    """Return *key* with every character that is no letter or digit, and its first, in *form*."""
    return re.sub(r"^.|[\W_]", lambda found: form.format(ord(found[0])), key)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


DRESSES = {
    "JSON": lambda key: escaped("\\u{:04x}", key),
    "JSON in JSON": lambda key: escaped("\\\\u{:04X}", key),
    "JSON in JSON in JSON": lambda key: json.dumps(json.dumps(escaped("\\u{:04x}", key))),
    "Python": lambda key: escaped("\\x{:02x}", key),
    "Python, 8 digits": lambda key: escaped("\\U{:08x}", key),
    "JavaScript": lambda key: escaped("\\u{{{:x}}}", key),
    "JavaScript's escape()": lambda key: escaped("%u{:04X}", key),
    "HTML": lambda key: escaped("&#{};", key),
    "HTML, hexadecimal": lambda key: escaped("&#x{:x};", key),
    "HTML, leading zeros": lambda key: escaped("&#{:05};", key),
    "HTML twice": lambda key: escaped("&amp;#{};", key),
    "HTML by name": lambda key: key.replace("_", "&lowbar;").replace("W", "&#87;"),
    "JSON in a query": lambda key: urllib.parse.quote(escaped("\\u{:04x}", key)),
    "base64": encoded,
    "base64 for Basic": lambda key: f"Basic {encoded(f'{key}:')}",
    "base64 for URLs": lambda key: encoded(f"~~~?>>{key}").translate(str.maketrans("+/", "-_")),
    "base64, 1 byte before": lambda key: encoded(f'"{key}"'),
    "base64, 2 bytes before": lambda key: encoded(f'{{"{key}"}}'),
    "base64 without its padding": lambda key: encoded(key).rstrip("="),
    "base64 in a path": lambda key: f"/x/{encoded(key)}/y",
    "base64 in a query": lambda key: urllib.parse.quote(f"?data={encoded(key)}&x=5"),
}


@pytest.mark.parametrize("key", [KEY, WRITE_KEY])
@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_encoded_keys_are_masked(dress: Callable[[str], str], key: str) -> None:
    """A key that is escaped or in base64 is masked, whether known by its form or its value."""
    text = dress(key)
    shown = Mask([WRITE_KEY]).text(f"a {text} b")

    assert shown.startswith("a ")
    assert shown.endswith(" b")
    assert key not in text
    most = 20  # the ends of a key, and what is around it
    parts = [text[start : start + most] for start in range(len(text) - most + 1)]
    assert [] == [part for part in parts if part in shown]


@pytest.mark.parametrize(
    "text",
    [
        "&#" + "9" * 5000 + ";",
        "&#x" + "0" * 5000 + ";",
        "\\" * 500_000,
        "&#0" * 100_000,
        "A" * 1_000_000,
        "\\u{" + "0" * 500_000,
        "a-folder/of-a/very-long/path_of-words/A&B/\\x41",
        "0195f2b1-6c1e-7d55-9d0e-2f1f5f0f4a11",
    ],
    ids=range(8),
)
def test_what_only_looks_encoded_is_shown(text: str) -> None:
    """Escapes and base64 without a key in them are shown as they came, in linear time."""
    assert text == Mask([WRITE_KEY]).text(text)


@pytest.mark.parametrize(
    "text",
    ["graphs_per_week", "photo_album", "100% of 5 %", "paragraphs_created_at", "a%20b", "phc_"],
)
def test_words_stay_words(text: str) -> None:
    """What is not a key is shown as it came."""
    assert {text: text} == Mask().value({text: text})


NAMES = """api_key apiKey API-KEY token $token write_key writeKey segment_write_key client_secret
    password db.password access_token refreshToken X-Auth-Token privateKey""".split()


@pytest.mark.parametrize("name", NAMES)
def test_secrets_are_known_by_their_names(name: str) -> None:
    """Whatever stands under a secret's name is masked, at any depth."""
    shown = json.dumps(Mask().value({"a": [{name: {"deep": [WRITE_KEY]}}], name: "short"}))

    assert WRITE_KEY not in shown
    assert "short" not in shown


@pytest.mark.parametrize(
    "named",
    [
        {"name": "Authorization", "value": f"Basic {WRITE_KEY}"},
        {"key": "X-Auth-Token", "value": {"stringValue": WRITE_KEY}},
        {"Name": "DB_PASSWORD", "Value": [WRITE_KEY]},
        {"name": "password", "Value": WRITE_KEY, "value": WRITE_KEY},
        [["Authorization", WRITE_KEY], ["Accept", "*/*"]],
        [("x-api-key", [WRITE_KEY])],
    ],
    ids=str,
)
def test_a_name_beside_its_value(named: Any) -> None:
    """A secret may be named by another member of its object, as in HAR, or of its pair."""
    assert WRITE_KEY not in json.dumps(Mask().value({"a": named}))
    assert WRITE_KEY not in json.dumps(Mask().value(named))


def test_pairs_of_what_is_no_secret() -> None:
    """Names that are harmless hide nothing, and two names beside each other are no secret."""
    kept = {"a": [{"name": "plan", "value": "free"}, [["plan", "free"]], ["token", "cookie"]]}

    assert kept == Mask().value(kept)


def test_numbers_are_not_secrets() -> None:
    """A count is shown, also under a name that ends like a secret's."""
    kept = {"max_tokens": 5, "token": 5, "is_secret": True, "password": None}

    assert kept == Mask().value(kept)


SENT_WITH = {
    "basic": (
        {"authorization": "Basic " + base64.b64encode(f"{WRITE_KEY}:".encode()).decode()},
        {},
        {},
    ),
    "basic and a password": (
        {"authorization": "Basic " + base64.b64encode(f"{WRITE_KEY}:pw".encode()).decode()},
        {},
        {},
    ),
    "basic, as the password": (
        {"authorization": "basic  " + base64.b64encode(f"user:{WRITE_KEY}".encode()).decode()},
        {},
        {},
    ),
    "basic for URLs, unpadded": (
        {
            "authorization": "Basic "
            + base64.urlsafe_b64encode(f"{WRITE_KEY}:~~>?".encode()).decode().rstrip("=")
        },
        {},
        {},
    ),
    "bearer": ({"authorization": f"Bearer {WRITE_KEY}"}, {}, {}),
    "bearer in a list": ({"authorization": f"Bearer {WRITE_KEY}, x"}, {}, {}),
    "another scheme": ({"authorization": f"Token {WRITE_KEY}"}, {}, {}),
    "a parameter": ({"authorization": f'Token token="{WRITE_KEY}", a=b'}, {}, {}),
    "no scheme": ({"authorization": WRITE_KEY}, {}, {}),
    "a proxy's": ({"proxy-authorization": f"Bearer {WRITE_KEY}"}, {}, {}),
    "header": ({"x-write-key": WRITE_KEY}, {}, {}),
    "header with a scheme": ({"x-api-key": f"Key {WRITE_KEY}"}, {}, {}),
    "header of another server": ({"x-rudder-key": WRITE_KEY}, {}, {}),
    "header of few letters": ({"x-key": WRITE_KEY}, {}, {}),
    "header of one word": ({"key": WRITE_KEY}, {}, {}),
    "header of authentication": ({"x-auth": WRITE_KEY}, {}, {}),
    "query": ({}, {"writekey": WRITE_KEY}, {}),
    "body": ({}, {}, {"writeKey": WRITE_KEY}),
    "each call": ({}, {}, {"batch": [{"writeKey": WRITE_KEY}]}),
    "each event": ({}, {}, [{"token": WRITE_KEY}]),
}


@pytest.mark.parametrize(("headers", "query", "payload"), SENT_WITH.values(), ids=SENT_WITH)
def test_a_key_without_a_form_is_masked_by_value(headers: Any, query: Any, payload: Any) -> None:
    """The key that a request was sent with is masked wherever else it stands."""
    mask = Mask(keys_in(headers, query, payload))

    assert "a Wk3f…nCd8 b" == mask.text(f"a {WRITE_KEY} b")


def test_a_header_of_many_words() -> None:
    """No header teaches so many keys that those of other senders are forgotten."""
    many = " ".join(f"word-{number}; a={number}," for number in range(1000))
    headers = {"authorization": many, "cookie": many, "x-key": many}

    assert len(list(keys_in(headers, {}, {}))) <= 4 * len(headers)


def test_a_header_that_is_no_key_s() -> None:
    """What identifies a request is not learned as a key."""
    headers = {"idempotency-key": NAME, "x-idempotency-key": NAME, "x-request-id": NAME}

    assert NAME == Mask(keys_in(headers, {}, {})).text(NAME)


def test_headers_are_shown_by_permission() -> None:
    """What everybody sends is shown; the value of any other header may be its user's secret."""
    sent = {
        "content-type": "application/json",
        "user-agent": f"app/{KEY}",
        "posthog-attempt": "2",
        "posthog-sdk-info": "app/1",
        "x-posthog-session-id": NAME,
        "authorization": "Basic c2VjcmV0",
        "proxy-authorization": "Bearer hunter2",
        "cookie": "session=hunter2",
        "x-gateway": "hunter2",
        "cf-access-client-secret": "hunter2",
        "x-posthog-key": "hunter2",
        "posthog-token": "hunter2",
        "x-posthog-anything": "hunter2",
    }
    shown = Mask().headers(sent)

    harmless = ("content-type", "posthog-attempt", "posthog-sdk-info", "x-posthog-session-id")
    assert [sent[name] for name in harmless] == [shown[name] for name in harmless]
    assert "Basic …" == shown["authorization"]
    assert sent.keys() == shown.keys()
    assert [] == [one for one in shown.values() if "hunter2" in one or KEY in one or "c2V" in one]


def test_no_key_leaves_by_any_way(inspector: Inspector) -> None:
    """Events, requests, the export, the stream and every ``repr`` are without the key."""
    properties = {
        "note": f"key={WRITE_KEY}",
        f"x{KEY}": urllib.parse.quote(f"={KEY}", safe=""),
        "dsn": "postgres://admin:hunter2@db/app",
    }
    call = {"type": "track", "event": f"a {WRITE_KEY}", "userId": "u", "properties": properties}
    body = json.dumps({"writeKey": WRITE_KEY, "batch": [call]}).encode()
    assert 200 == ask(inspector, f"/{WRITE_KEY}/v1/batch", body, {"X-Gateway": "hunter2"})[0]

    paths = ("events", "event?number=1", "requests", "export", "wait?timeout=0", "counts")
    shown = [ask(inspector, f"/api/{path}", method="GET")[1].decode() for path in paths]
    shown.append(repr((inspector, inspector.events, inspector.requests)))
    assert [] == [
        text for text in shown if WRITE_KEY in text or "hunter2" in text or KEY[4:] in text
    ]
    assert WRITE_KEY in inspector.requests[0].body.decode()  # tests see what was sent


def test_an_event_shows_itself_without_keys() -> None:
    """What pytest prints of an event has no key in it, and says what the event is about."""
    event = Event("a", "u", NAME, "", {"k": KEY}, "posthog", "", (), None, 1, 1, 1, False, 0.0)
    other = dataclasses.replace(event, uuid=KEY, reason=f"no {KEY}", warnings=(f"{KEY} is odd",))

    assert KEY not in repr((event, other))
    assert repr(event).startswith("Event('a', 'u', properties={'k': 'phc_…wxyz'}")


ANY_DRESS = st.sampled_from([str, urllib.parse.quote, encoded, DRESSES["JSON"], DRESSES["HTML"]])


@given(st.text(), st.sampled_from([KEY, WRITE_KEY]), ANY_DRESS, st.text())
def test_a_key_is_never_shown(
    before: str, key: str, dress: Callable[[str], str], after: str
) -> None:
    """Whatever stands around a key, and however it is encoded, it is not shown whole."""
    assert dress(key) not in Mask([WRITE_KEY]).text(before + dress(key) + after)
