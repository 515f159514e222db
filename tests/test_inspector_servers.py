"""Servers that are not PostHog's cloud, as a sender meets them."""

from __future__ import annotations

import http.client
import json

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from posthog_logging.inspector import SERVERS, Answer, Inspector


KEY = "phc_a_project_key_of_this_test"
NAME = "0195f2b1-6c1e-7d55-9d0e-2f1f5f0f4a11"
TIME = "2026-03-04T05:06:07Z"
V0, V1, LOGS = "/batch/", "/i/v1/analytics/events", "/i/v1/logs"
EVENT = {"event": "a", "distinct_id": "u", "uuid": NAME, "timestamp": TIME}
BODIES = {
    V0: {"api_key": KEY, "batch": [EVENT]},
    V1: {"created_at": TIME, "batch": [EVENT]},
    LOGS: {},
}
HEADERS = {
    "Authorization": f"Bearer {KEY}",
    "Content-Type": "application/json",
    "User-Agent": "test/1",
    "PostHog-Sdk-Info": "test/1",
    "PostHog-Attempt": "1",
    "PostHog-Request-Id": NAME,
    "PostHog-Request-Timestamp": TIME,
}


class Got(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """What a sender can tell of the answer."""
        if b'"results"' in self.body:
            return "v1"
        if self.body.startswith(b"<!doctype html>"):
            return "html"
        return "json" if self.body.startswith(b"{") else "other" if self.body else "empty"


def ask(inspector: Inspector, path: str, method: str = "POST") -> Got:
    connection = http.client.HTTPConnection(inspector.url.removeprefix("http://"), timeout=10)
    body = json.dumps(BODIES[path]) if method == "POST" and path in BODIES else None
    connection.request(method, path, body, HEADERS)
    response = connection.getresponse()
    got = Got(
        response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()
    )
    connection.close()
    return got


# For each server: what V1, a GET of V1 and V0 answer, and how many events it has then.
EXPECTED = {
    "old-server": ((404, "empty"), (404, "empty"), (200, "json"), 1),
    "hobby": ((403, "html"), (200, "html"), (200, "json"), 1),
    "hobby-login": ((302, "html"), (302, "html"), (200, "json"), 1),
    "login": ((302, "html"), (302, "html"), (302, "html"), 0),
    "catch-all": ((200, "html"), (200, "html"), (200, "html"), 0),
    "next-proxy": ((404, "empty"), (404, "empty"), (308, "empty"), 0),
    "stripping-proxy": ((401, "json"), (405, "empty"), (200, "json"), 1),
    "rolling": ((200, "v1"), (405, "empty"), (200, "json"), 2),
}


@pytest.mark.parametrize("name", SERVERS)
def test_each_server_is_itself(name: str) -> None:
    """Each server answers as in real life, without a mark of V1 where it does not know V1."""
    with Inspector(play=name) as inspector:
        v1, get, v0 = ask(inspector, V1), ask(inspector, V1, "GET"), ask(inspector, V0)

        assert EXPECTED[name] == (
            (v1.status, v1.kind),
            (get.status, get.kind),
            (v0.status, v0.kind),
            len(inspector.events),
        )
        speaks_v1 = name in ("rolling", "stripping-proxy")
        assert speaks_v1 == ("posthog-request-id" in v1.headers)
        assert [V1, V0] == [one.path for one in inspector.requests]


def test_every_server_is_tested_and_described() -> None:
    """The table above is whole, and each server says what it is."""
    assert EXPECTED.keys() == SERVERS.keys()
    assert all(len(one.description) > 20 for one in SERVERS.values())


def test_the_login_page_is_there() -> None:
    """Who follows the redirect finds a page, as a browser would."""
    with Inspector(play="login") as inspector:
        place = ask(inspector, V0).headers["location"]
        got = ask(inspector, place.partition("?")[0], "GET")

        assert (200, "html") == (got.status, got.kind)
        assert b"Inspector" in ask(inspector, "/", "GET").body


def test_a_rolling_deployment_fails_now_and_then() -> None:
    """After a success there is a 404 at times, which says nothing of the protocol."""
    with Inspector(play="rolling") as inspector:
        assert [200, 200, 404, 200, 200, 404] == [ask(inspector, V1).status for _ in range(6)]


def test_a_stripping_proxy_is_told_from_a_bad_key() -> None:
    """V1 says that no key arrived, though one was sent."""
    with Inspector(play="stripping-proxy") as inspector:
        got = ask(inspector, V1)

        assert "missing_authorization" == json.loads(got.body)["error"]
        assert "authorization" not in inspector.requests[0].headers


@pytest.fixture
def answers(inspector: Inspector) -> Iterator[Inspector]:
    """An inspector that is an old server."""
    inspector.play("old-server")
    yield inspector
    inspector.play(None)


def test_a_script_goes_before_the_server(answers: Inspector) -> None:
    """Scripted answers are used up first; `play(None)` is PostHog's own server again."""
    answers.script(Answer(503))

    assert [503, 404] == [ask(answers, V1).status for _ in range(2)]
    answers.play(None)
    assert 200 == ask(answers, V1).status


def test_a_server_can_be_chosen_from_outside(inspector: Inspector) -> None:
    """The API plays a server by its name, says which, and refuses others."""

    def post(play: str | None) -> tuple[int, object]:
        connection = http.client.HTTPConnection(inspector.url[7:], timeout=10)
        connection.request("POST", "/api/answers", json.dumps({"play": play}))
        response = connection.getresponse()
        got = response.status, json.loads(response.read())
        connection.close()
        return got

    empty = {"script": [], "always": None}
    assert (200, {**empty, "playing": "hobby"}) == post("hobby")
    status, answer = post("nonsense")
    assert (400, True) == (status, "old-server" in str(answer))
    assert 403 == ask(inspector, V1).status
    assert (200, empty) == post(None)


def test_unknown_servers_are_named() -> None:
    """A name that is none is refused with the names that there are."""
    with pytest.raises(
        ValueError, match=r"play: 'x' is not a known server; there are old-server,"
    ):
        Inspector(play="x")


def test_a_bare_answer_stores_nothing(inspector: Inspector) -> None:
    """A 200 of something in front of the server is no delivery."""
    inspector.script(Answer(200, {"Content-Type": "text/html"}, b"<p>hello</p>", bare=True))

    assert (200, b"<p>hello</p>") == ask(inspector, V0)[::2]
    assert ([], 1) == (inspector.events, inspector.requests[0].events)
