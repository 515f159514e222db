"""Which of PostHog's protocols is spoken: servers old, new and wrong, and what each is sent."""

from __future__ import annotations

import json
import os

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from conftest import Clock, FakeTransport
from hypothesis import given
from hypothesis import strategies as st
from test_head_of_line import run
from test_sender import Rig, verdicts

from posthog_logging.wire import Endpoint, Request, Response
from posthog_logging.wire.posthog import AI_PATH, POSTHOG, V0, V1
from posthog_logging.wire.posthog_protocol import (
    DAY,
    Fixed,
    Known,
    PostHogProtocol,
    Sign,
    is_posthogs_own,
    protocol_for,
    sign_of,
)
from posthog_logging.wire.segment import SEGMENT


V1_PATH = "/i/v1/analytics/events"
V1_GOOD = Response(200, body=b'{"results":{}}')
V0_GOOD = Response(200, body=b'{"status":"Ok"}')
HTML = {"content-type": "text/html; charset=utf-8"}
LOGIN = Response(302, {"location": "/login"})
CSRF = Response(403, HTML, b"<!DOCTYPE html><h1>Forbidden <span>(403)</span></h1> CSRF")
PAGE = Response(200, HTML, b"<html><title>Sign in</title></html>")
STRIPPED = Response(401, body=b'{"error":"missing_authorization","error_description":"x"}')

Server = Callable[[str, Request], Any]


def server(v1: Any, v0: Any) -> Server:
    return lambda path, request: v0 if path == "/batch/" else v1


@pytest.fixture
def rig(transport: Any, clock: Any) -> Callable[..., Rig]:
    """A maker of rigs with a server, on one host and without knowledge of it."""

    def make(play: Server, dialect: Any = POSTHOG, **options: Any) -> Rig:
        transport.default = lambda request: play(request.url.removeprefix("http://x"), request)
        return Rig(transport, clock, dialect, **{"flush_at": 1, **options})

    return make


def paths(it: Rig) -> list[str]:
    return [request.url.removeprefix("http://x") for request in it.transport.requests]


def arrived(it: Rig, taken_by: str) -> Counter[str]:
    """Return the uuids in requests to *taken_by*."""
    return Counter(
        name
        for path, request in zip(paths(it), it.transport.requests, strict=True)
        if path == taken_by
        for name in it.uuids(request)
    )


# Servers


def test_a_server_that_speaks_v1(rig: Any, caplog: Any) -> None:
    """One request, no warning, and no other is ever made."""
    it = rig(server(V1_GOOD, 500))
    it.put(3)
    it.steps()
    it.put(3)
    it.steps()

    assert [V1_PATH] * 2 == paths(it)
    assert {"accepted": 6, "delivered": 6} == it.counts
    assert "posthog-v1" == it.sender.protocol
    assert not caplog.records


OLD = {
    "404 without a body": Response(404),
    "405": Response(405),
    "410": Response(410),
    "a hobby installation": CSRF,
    "a redirect to the sign-in": LOGIN,
    "a redirect for the slash": Response(308, {"location": "/i/v1/analytics/events/"}),
    "a page for everything unknown": PAGE,
    "V0's answer for everything": V0_GOOD,
    "a proxy that strips the header": STRIPPED,
    "a 404 in JSON": Response(404, {"content-type": "application/json"}, b'{"error":"Not Found"}'),
}


@pytest.mark.parametrize("answer", OLD.values(), ids=OLD)
def test_a_server_that_speaks_v0(answer: Response, rig: Any, caplog: Any) -> None:
    """The same batch goes to V0 at once, all later ones too, and one warning says so."""
    it = rig(server(answer, V0_GOOD))
    first = it.put(3)
    it.steps()
    assert {"accepted": 3, "delivered": 3} == it.counts
    second = it.put(2)
    run(it, 60.0)

    assert [V1_PATH, "/batch/", "/batch/"] == paths(it)
    assert Counter(first + second) == arrived(it, "/batch/")
    assert {"accepted": 5, "delivered": 5} == it.counts
    assert "posthog-v0" == it.sender.protocol
    (record,) = caplog.records
    assert "does not speak PostHog's newer protocol" in record.message
    assert "events go to /batch/ from now on" in record.message
    assert ("strips the Authorization header" in record.message) == (answer is STRIPPED)
    assert "phc_test" not in caplog.text


def test_the_same_events_in_both_protocols(rig: Any) -> None:
    """A repeat on V0 has the uuid, the time and all properties of the first."""
    it = rig(server(404, V0_GOOD))
    it.put(1, properties={"$session_id": "s", "$process_person_profile": False, "a": 1})
    it.steps()

    new, old = (it.dialect.decode(request)[0] for request in it.transport.requests)
    assert (new.uuid, new.timestamp, new.event, new.distinct_id) == (
        old.uuid,
        old.timestamp,
        old.event,
        old.distinct_id,
    )
    assert new.properties.items() <= old.properties.items()
    assert {"$lib", "$lib_version"} == old.properties.keys() - new.properties.keys()


SHORT = Response(202, {"content-type": "text/plain"}, b"ok")
OTHER = Response(200, {"content-type": "application/json"}, b'{"message":"hello"}')
WRONG = {
    "404 for both": (404, 404),
    "404, and a page for everything else": (404, PAGE),
    "a page for everything": (PAGE, PAGE),
    "a redirect for everything": (LOGIN, LOGIN),
    "403 for everything": (CSRF, CSRF),
    "404, and JSON of another kind": (404, Response(200, body=b'{"ok":true}')),
    "404, and an empty 200": (404, 200),
    "404, and nothing": (404, Response(None, error="ConnectTimeout")),
    "404, and a refused key": (404, 401),
    "an empty 200 for everything": (200, 200),
    "a 204 for everything": (204, 204),
    "a word for everything": (SHORT, SHORT),
    "JSON of another kind for everything": (OTHER, OTHER),
    "a list for everything": (Response(200, body=b"[]"), Response(200, body=b"[]")),
    "404, and 503": (404, 503),
}


@pytest.mark.parametrize(("v1", "v0"), WRONG.values(), ids=WRONG)
def test_a_host_that_speaks_neither(v1: Any, v0: Any, rig: Any, caplog: Any) -> None:
    """Everything is kept, requests are few, one warning says what is wrong; then it goes on."""
    it = rig(server(v1, v0))
    it.put(5)
    it.steps()
    assert paths(it).count("/batch/") == 1
    it.put(5)
    run(it, 3600.0)

    assert {"accepted": 10, "waiting": 10}.items() <= it.counts.items()
    assert len(paths(it)) < (160 if v1 is PAGE else 30)
    assert paths(it).count("/batch/") < 12
    (record,) = caplog.records
    assert "neither of PostHog's protocols is spoken at http://x" in record.message
    assert "posthog" == it.sender.protocol

    it.transport.default = V1_GOOD
    run(it, 2000.0)
    assert 10 == it.counts["delivered"]


NEVER = {
    "400": Response(400),
    "401": Response(401, body=b'{"error":"invalid_api_token","error_description":"x"}'),
    "402": Response(402),
    "408": Response(408),
    "413": Response(413),
    "415": Response(415),
    "429": Response(429),
    "500": Response(500, HTML, b"<html>"),
    "502": Response(502, HTML, b"<html>"),
    "503": Response(503),
    "time-out": Response(None, error="ReadTimeout"),
    "403 without a page": Response(403),
}


@pytest.mark.parametrize("answer", NEVER.values(), ids=NEVER)
def test_what_is_no_reason_to_doubt(answer: Response, rig: Any) -> None:
    """Outages, limits and refusals are V1's own to sort out."""
    it = rig(server(answer, V0_GOOD))
    it.put(2)
    run(it, 600.0)

    assert "/batch/" not in paths(it)


PROOFS = {
    "results": V1_GOOD,
    "an error": Response(503, body=b'{"error":"service_unavailable"}'),
    "a refused key": NEVER["401"],
    "an error of tomorrow": Response(429, body=b'{"error":"x","error_description":"y"}'),
}


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS)
@pytest.mark.parametrize(
    "later", [Response(404), CSRF, LOGIN, PAGE], ids=["404", "403", "302", "200"]
)
def test_once_proven_v1_is_never_left(proof: Response, later: Response, rig: Any) -> None:
    """During a rolling deployment an old server may answer now and then: events wait for V1."""
    answers = iter([proof, *[later] * 3])
    it = rig(lambda path, request: V0_GOOD if path == "/batch/" else next(answers, V1_GOOD))
    it.put(4)
    run(it, 3600.0)

    assert "/batch/" not in paths(it)
    assert 4 == it.counts["delivered"]
    assert "posthog-v1" == it.sender.protocol


def test_an_echo_of_the_request_id_is_a_proof(rig: Any) -> None:
    """A server that echoes our id has V1's front door, whatever is behind it."""

    def answer(path: str, request: Request) -> Response:
        return Response(404, {"posthog-request-id": request.headers["PostHog-Request-Id"]})

    it = rig(answer)
    it.put(1)
    it.steps()

    assert [V1_PATH] == paths(it)
    assert "posthog-v1" == it.sender.protocol


def test_a_rolling_deployment(rig: Any) -> None:
    """With a 404 every third time nothing is lost, and nothing has two uuids."""
    numbers = iter(range(1, 10_000))

    def answer(path: str, request: Request) -> Response:
        return Response(404) if next(numbers) % 3 == 0 else V1_GOOD

    it = rig(answer, flush_at=10)
    names = []
    for _ in range(50):
        names += it.put(10)
        run(it, 5.0)
    run(it, 60.0)

    assert set(names) == set(arrived(it, V1_PATH))
    assert {"accepted": 500, "delivered": 500}.items() <= it.counts.items()
    assert len(paths(it)) < 120


def test_v1_is_tried_again_once_a_day(rig: Any, caplog: Any) -> None:
    """An updated server is found within a day; until then one request a day is in vain."""
    it = rig(server(404, V0_GOOD))
    for _ in range(3):
        it.put(1)
        it.steps()
    it.clock.advance(DAY)
    it.put(1)
    it.steps()
    it.put(1)
    it.steps()
    assert [V1_PATH, *["/batch/"] * 3, V1_PATH, *["/batch/"] * 2] == paths(it)
    assert 1 == len(caplog.records)

    it.transport.default = V1_GOOD
    it.clock.advance(DAY)
    it.put(1)
    it.steps()
    it.put(1)
    it.steps()
    assert [V1_PATH] * 2 == paths(it)[-2:]
    assert "posthog-v1" == it.sender.protocol
    assert 7 == it.counts["delivered"]


def test_the_daily_trial_cannot_stop_delivery(rig: Any) -> None:
    """Where V1's path swallows requests, V0 goes on with the next attempt."""
    it = rig(server(404, V0_GOOD))
    it.put(1)
    it.steps()
    it.transport.default = lambda request: (
        V0_GOOD if request.url.endswith("/batch/") else Response(None, error="ReadTimeout")
    )
    it.clock.advance(DAY)
    it.put(1)
    run(it, 30.0)

    assert 2 == it.counts["delivered"]


def test_a_server_that_forgets_v0_is_asked_for_v1(rig: Any) -> None:
    """A 404 on V0's path makes the next attempt one of V1."""
    it = rig(server(404, V0_GOOD))
    it.put(1)
    it.steps()
    it.transport.default = lambda request: 404 if request.url.endswith("/batch/") else V1_GOOD
    it.put(1)
    run(it, 120.0)

    assert 2 == it.counts["delivered"]


@pytest.mark.parametrize("dialect", [V1, V0], ids=lambda one: one.name)
@pytest.mark.parametrize("answer", [Response(404), CSRF, PAGE, STRIPPED, LOGIN])
def test_the_other_names_never_switch(dialect: Any, answer: Response, rig: Any) -> None:
    """Who names a protocol gets it, and events wait where it is not spoken."""
    it = rig(lambda path, request: answer, dialect)
    it.put(2)
    run(it, 3600.0)

    assert {dialect.path} == set(paths(it))
    assert {"accepted": 2, "waiting": 2}.items() <= it.counts.items()
    assert dialect.name == it.sender.protocol


@pytest.mark.parametrize("host", ["https://us.i.posthog.com", "https://eu.i.posthog.com"])
def test_posthogs_own_hosts_speak_v1(host: str) -> None:
    """A 404 of PostHog's cloud is an outage, and nothing is asked of V0."""
    transport, clock = FakeTransport(), Clock()
    it = Rig(transport, clock, POSTHOG, host=host, flush_at=1)
    transport.default = 404
    it.put(1)
    run(it, 100.0)

    assert {f"{host}{V1_PATH}"} == {request.url for request in transport.requests}
    assert len(transport.requests) > 5
    assert not it.sender.paused


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("https://us.i.posthog.com", True),
        ("https://app.posthog.com", True),
        ("https://EU.posthog.com:443", True),
        ("https://posthog.com", True),
        ("https://posthog.example.com", False),
        ("https://notposthog.com", False),
        ("https://e.example.com/us.i.posthog.com", False),
        ("http://127.0.0.1:8000", False),
    ],
)
def test_which_hosts_are_posthogs_own(host: str, own: bool) -> None:
    """The domain decides, not a part of the text."""
    assert own is is_posthogs_own(host)


def test_what_is_known_is_known_to_all(rig: Any) -> None:
    """Two handlers of one host and key ask once; another key, or host, is another question."""
    memory: dict[tuple[str, str], Known] = {}
    it = rig(server(404, V0_GOOD), memory=memory)
    it.put(1)
    it.steps()
    other = rig(server(404, V0_GOOD), memory=memory)
    other.put(1)
    other.steps()

    assert [V1_PATH, "/batch/", "/batch/"] == paths(it)
    assert "posthog-v0" == other.sender.protocol
    third = PostHogProtocol(POSTHOG, Endpoint("http://x", "phc_other"), memory)
    assert "posthog" == third.name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_knows_what_its_parent_knew() -> None:
    """The memory of the process is inherited."""
    script = """
import os
from posthog_logging.wire import Endpoint, Response
from posthog_logging.wire.posthog import POSTHOG
from posthog_logging.wire.posthog_protocol import protocol_for
endpoint = Endpoint("http://x", "phc_test")
first = protocol_for(POSTHOG, endpoint)
dialect = first.choose("", 0.0)
other = first.heed(dialect, Response(404), "id", 0.0)
assert first.counts(other, Response(200, body=b'{"status":1}'), 0.0)
pid = os.fork()
if not pid:
    os._exit(protocol_for(POSTHOG, endpoint).name != "posthog-v0")
_, status = os.waitpid(pid, 0)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    import subprocess
    import sys

    from conftest import HERE

    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": HERE}, check=False
    )
    assert 0 == done.returncode


# Signs


@given(
    st.none() | st.integers(100, 999),
    st.binary(max_size=20) | st.sampled_from([b"<p>", b"{}", b'{"results":{}}', b'{"error":1}']),
    st.sampled_from(["", "text/html", "application/json"]),
)
def test_any_answer_is_a_sign_or_none(status: int | None, text: bytes, kind: str) -> None:
    """Nothing that a server answers raises."""
    assert isinstance(sign_of(Response(status, {"content-type": kind}, text), "id"), Sign)


@pytest.mark.parametrize(
    "answer",
    [
        Response(404, body=b'{"error":"Not Found"}'),
        Response(404, body=b'{"detail":"Not found."}'),
        Response(404, body=b"404 page not found"),
        Response(404, HTML, b"<html>"),
    ],
)
def test_errors_of_other_servers_are_no_proof(answer: Response) -> None:
    """V1's errors have tags of their own, or a description."""
    assert Sign.DOUBT is sign_of(answer, "id")


@pytest.mark.parametrize("text", [b"ok", b"OK\n", b"1", b'{"results":{}}', b""])
def test_a_content_type_alone_decides_nothing(text: bytes) -> None:
    """Frameworks send short words and JSON as text/html."""
    plain = Response(200, {"content-type": "text/plain"}, text)

    assert sign_of(plain, "id") is sign_of(Response(200, HTML, text), "id")


def test_a_body_that_could_not_be_read_is_no_reason_to_doubt() -> None:
    """It may have been V1's."""
    assert Sign.NOTHING is sign_of(Response(200, body=b'{"res', error="ReadTimeout"), "id")


def test_other_families_have_one_protocol() -> None:
    """A dialect that is not PostHog's is never left, and nothing is learnt."""
    fixed = protocol_for(SEGMENT, Endpoint("http://x", "k"), {})

    assert isinstance(fixed, Fixed)
    assert SEGMENT is fixed.choose("", 0.0)
    assert fixed.heed(SEGMENT, Response(404), "id", 0.0) is None
    assert ("segment", False, "", "") == (
        fixed.name,
        fixed.proven,
        fixed.news(),
        fixed.trouble(),
    )


# The lane of AI events


def test_ai_events_have_a_lane_of_their_own(rig: Any) -> None:
    """They go to it, whole, and all others on the ordinary road."""
    it = rig(server(V1_GOOD, 500), flush_at=4)
    text = {f"t{n}": "x" * 900_000 for n in range(3)}
    (a,), (b,) = it.put(1, event="$ai_generation", properties=text), it.put(1)
    (c,), (d,) = it.put(1, event="$ai_span"), it.put(1)
    it.steps()

    found = {path: set(arrived(it, path)) for path in set(paths(it))}
    assert {AI_PATH: {a, c}, V1_PATH: {b, d}} == found
    large = next(r for r in it.transport.requests if len(r.body) > 2_700_000)
    assert b"[cut: " not in large.body
    assert {"accepted": 4, "delivered": 4} == it.counts


@pytest.mark.parametrize("missing", [Response(404), LOGIN, PAGE], ids=["404", "302", "page"])
def test_a_host_without_the_lane_gets_them_on_the_ordinary_road(
    missing: Response, rig: Any, caplog: Any
) -> None:
    """They are cut visibly where they must be, told once, and the lane is asked for once."""
    it = rig(lambda path, request: missing if path == AI_PATH else V1_GOOD)
    text = {f"t{n}": "x" * 900_000 for n in range(3)}
    names = it.put(1, event="$ai_generation", properties=text)
    it.steps()
    names += it.put(1, event="$ai_generation")
    it.steps()

    assert [AI_PATH, V1_PATH, V1_PATH] == paths(it)
    assert names == list(arrived(it, V1_PATH))
    assert b"[cut: " in it.transport.requests[1].body
    assert {"accepted": 2, "delivered": 2} == it.counts
    (record,) = caplog.records
    assert "no route for large AI events" in record.message


def test_an_old_server_gets_ai_events_as_well(rig: Any) -> None:
    """Neither the lane nor V1 is there: the batch goes to V0, cut."""
    it = rig(server(404, V0_GOOD))
    it.put(1, event="$ai_generation", properties={f"t{n}": "x" * 900_000 for n in range(3)})
    it.steps()

    assert [AI_PATH, V1_PATH, "/batch/"] == paths(it)
    assert len(it.transport.requests[-1].body) < 1_000_000
    assert {"accepted": 1, "delivered": 1} == it.counts


def test_an_old_server_that_is_known_cuts_ai_events_with_a_word(rig: Any, caplog: Any) -> None:
    """Where V0 is spoken already, a large AI event is cut, and that is told, once."""
    it = rig(server(404, V0_GOOD))
    it.put(1)
    it.steps()
    caplog.clear()
    for _ in range(2):
        it.put(1, event="$ai_generation", properties={"t": "x" * 3_000_000})
        it.steps()

    assert [V1_PATH, "/batch/", "/batch/", "/batch/"] == paths(it)
    (record,) = caplog.records
    assert "no route for large AI events" in record.message


def test_a_server_that_learns_v1_is_asked_for_the_lane_again(rig: Any) -> None:
    """After a day V1 is tried again, and where it is spoken now, so is the lane."""
    new = False
    old = server(404, V0_GOOD)
    it = rig(lambda path, request: V1_GOOD if new else old(path, request))
    it.put(1, event="$ai_generation")
    it.steps()
    new = True
    run(it, 25 * 3600.0)
    it.put(1)
    it.steps()
    it.put(1, event="$ai_generation")
    it.steps()

    assert [V1_PATH, AI_PATH] == paths(it)[-2:]


def test_verdicts_of_the_lane_are_verdicts(rig: Any) -> None:
    """What the lane says of an event is believed like anything else."""
    it = rig(lambda path, request: verdicts(drop=it.uuids(request)))
    it.put(1, event="$ai_generation")
    it.steps()

    assert {"accepted": 1, "dropped": 1} == it.counts


def test_a_firewall_before_anything_is_known(rig: Any) -> None:
    """One event that a firewall refuses on both paths does not make the host an old one."""

    def answer(path: str, request: Request) -> Response:
        if b"<script>" in request.body:
            return CSRF
        return V0_GOOD if path == "/batch/" else V1_GOOD

    it = rig(answer, flush_at=40)
    it.put(20)
    it.put(1, event="<script>")
    it.put(19)
    it.sender.flush(10.0)

    assert {"accepted": 40, "delivered": 39, "rejected": 1}.items() <= it.counts.items()
    assert "posthog-v1" == it.sender.protocol
    assert json.loads(it.transport.requests[0].body)
