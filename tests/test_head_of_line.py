"""Nobody waits behind one event: who passes whom, what is taken apart, and what that costs."""

from __future__ import annotations

import json
import logging
import queue
import random
import re
import time

from collections import Counter
from collections.abc import Callable
from logging.handlers import QueueHandler
from typing import Any

import pytest

from test_sender import Rig, body, flat, verdicts

from posthog_logging import MessageHandler, PostHogHandler
from posthog_logging.delivery.ledger import NOT_LOSSES
from posthog_logging.delivery.spool import MemorySpool
from posthog_logging.wire import Request, Response
from posthog_logging.wire.otlp import LOGS
from posthog_logging.wire.posthog import V0, V1
from posthog_logging.wire.segment import RUDDERSTACK, SEGMENT


PAGE = Response(403, {"content-type": "text/html"}, b"<html><h1>Blocked</h1></html>")
GOOD = Response(200, body=b'{"results":{},"status":"Ok"}')


@pytest.fixture
def rig(transport: Any, clock: Any) -> Callable[..., Rig]:
    """A maker of rigs."""
    return lambda dialect=V0, **options: Rig(transport, clock, dialect, **options)


def poisoned(answer: Any) -> Callable[[Request], Any]:
    """Answer so to whatever holds a poisoned event."""
    return lambda request: answer if b"poison" in request.body else GOOD


def run(it: Rig, seconds: float, most: int = 10_000) -> None:
    """Let *seconds* pass, step by step, as the thread would."""
    end = it.clock.now + seconds
    for _ in range(most):
        if it.sender.step():
            continue
        due = it.due_in
        if due is None or it.clock.now + due > end:
            break
        it.clock.advance(max(due, 1e-6))
    it.clock.now = max(it.clock.now, end)


def lost(it: Rig) -> int:
    return sum(n for reason, n in it.counts.items() if reason not in NOT_LOSSES)


def adds_up(it: Rig) -> bool:
    counts = it.ledger.counts
    return counts["accepted"] == counts["delivered"] + counts["waiting"] + lost(it)


ANSWERS = {
    "reset": Response(None, error="ConnectionError (ConnectionResetError)"),
    "time-out": Response(None, error="ReadTimeout"),
    "408": Response(408),
    "429": Response(429),
    "429 with a time": Response(429, {"retry-after": "2"}),
    "500": Response(500),
    "503": Response(503),
    "504": Response(504),
    "a page": Response(200, {"content-type": "text/html"}, b"<html>"),
    "302": Response(302, {"location": "/blocked"}),
    "404": Response(404),
    "403": PAGE,
    "an error in a 200": Response(200, body=b'{"error":"x"}'),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT], ids=lambda one: one.name)
def test_others_get_past_an_event_that_always_fails(answer: Any, dialect: Any, rig: Any) -> None:
    """Whatever a server answers to one event, 200 others behind it arrive within seconds."""
    it = rig(dialect, flush_at=100)
    it.transport.default = poisoned(answer)
    it.put(1, event="poison")
    run(it, 1.0)
    others = it.put(200)
    # What looks like a wrong address pauses first: a minute, until another batch shows it is none.
    run(it, 400.0 if answer.status in (302, 403, 404) else 20.0)

    assert set(others) == {name for one in it.all_sent for name in one} - {it.all_sent[0][0]}
    assert 200 == it.counts["delivered"]
    assert adds_up(it)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("place", [0, 37, 99])
def test_the_innocent_of_the_same_batch_arrive(answer: Any, place: int, rig: Any) -> None:
    """A batch that fails while others get through is taken apart until one event is left."""
    it = rig(flush_at=100)
    it.transport.default = poisoned(answer)
    it.put(place)
    it.put(1, event="poison")
    it.put(99 - place)
    for _ in range(60):
        it.put(1)
        run(it, 30.0)

    assert 99 + 60 == it.counts["delivered"]
    assert adds_up(it)
    assert len(it.transport.requests) < 200


@pytest.mark.parametrize("answer", ["reset", "503"])
def test_where_every_large_batch_has_an_event_at_fault(answer: str, rig: Any) -> None:
    """Small batches get through, so it is no outage: a backlog is worked off within minutes."""
    it = rig(flush_at=100)
    it.transport.default = poisoned(ANSWERS[answer])
    for _ in range(20):
        it.put(250)
        it.put(1, event="poison")
        it.put(249)
    run(it, 240.0)

    assert 20 * 499 == it.counts["delivered"]
    assert 20 == it.counts["waiting"]
    assert adds_up(it)


@pytest.mark.parametrize("answer", [ANSWERS["reset"], ANSWERS["503"], ANSWERS["a page"]])
def test_a_batch_without_company_is_taken_apart_as_well(answer: Any, rig: Any) -> None:
    """Where nothing else is there to compare with, small probes of the batch itself serve."""
    it = rig(flush_at=100)
    it.transport.default = poisoned(answer)
    it.put(40)
    it.put(1, event="poison")
    it.put(59)
    run(it, 600.0)

    assert 99 == it.counts["delivered"]
    assert 1 == it.sender.waiting


def test_v1s_retry_of_one_event_holds_up_nobody(rig: Any) -> None:
    """An event that V1 wants again each time waits by itself."""
    it = rig(V1, flush_at=10)

    def answer(request: Request) -> Response:
        names = [one["uuid"] for one in body(request)["batch"] if one["event"] == "poison"]
        again = verdicts(retry=names)
        return again._replace(headers={"retry-after": "1"}) if names else GOOD

    it.transport.default = answer
    it.put(9)
    it.put(1, event="poison")
    for _ in range(10):
        it.put(10)
        run(it, 5.0)

    assert 109 == it.counts["delivered"]
    assert 1 == it.sender.waiting


def test_one_that_fails_for_ever_is_tried_ever_more_seldom_and_given_up(rig: Any) -> None:
    """The event at fault waits on a schedule of its own, and gives way at last, told once."""
    it = rig(flush_at=1)
    it.transport.default = poisoned(503)
    it.put(1, event="poison")
    run(it, 1.0)
    spent = []
    while it.sender.waiting and len(spent) < 400:
        before = len(it.transport.requests)
        it.put(1)
        run(it, 900.0)
        spent.append(len(it.transport.requests) - before - 1)

    assert spent[0] > 5
    assert 1 == max(spent[10:])
    assert [("retries_exhausted", 503, 1)] == [
        (error.reason, error.status, len(events)) for error, events in it.losses
    ]
    assert 48 < len(spent) < 200
    assert adds_up(it)


def test_max_age_ends_it_sooner(rig: Any) -> None:
    """What stands apart obeys ``max_age``."""
    it = rig(flush_at=1, max_age=3600.0)
    it.transport.default = poisoned(503)
    it.put(1, event="poison", timestamp="2023-11-14T22:13:20.000000Z")
    for _ in range(10):
        it.put(1, timestamp="2033-11-14T22:13:20.000000Z")
        run(it, 900.0)

    assert {"expired": 1, "delivered": 10}.items() <= it.counts.items()


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_max_retries_costs_no_innocent(most: int, rig: Any) -> None:
    """Where tries are numbered, a batch that fails while others pass is taken apart before."""
    it = rig(flush_at=100, max_retries=most)
    it.transport.default = poisoned(503)
    it.put(60)
    it.put(1, event="poison")
    it.put(39)
    it.steps()
    for _ in range(40):
        it.put(1)
        run(it, 10.0)

    assert {"retries_exhausted": 1, "delivered": 139}.items() <= it.counts.items()


@pytest.mark.parametrize("status", [503, None])
def test_an_outage_costs_no_more_than_before(status: int | None, rig: Any) -> None:
    """While nothing gets through, each wait is followed by one request, and soon a small one."""
    it = rig(flush_at=100)
    it.transport.default = Response(status, error="x" if status is None else "")
    for _ in range(30):
        it.put(1000)
    run(it, 3600.0)

    # 1 + 2 + 4 + 8 + 16 seconds, then one each half minute.
    assert len(it.transport.requests) <= 6 + 3600 / 30
    sizes = [len(one) for one in it.all_sent]
    assert max(sizes[12:]) <= 20
    assert 30_000 == it.sender.waiting
    assert len(it.sender.spool) >= 27_000  # what was not tried is not unpacked either

    it.transport.default = GOOD
    before = len(it.transport.requests)
    run(it, 120.0)
    assert 30_000 == it.counts["delivered"]
    assert len(it.transport.requests) - before < 20


def test_a_server_that_is_merely_unwell_gets_no_flood(rig: Any) -> None:
    """Where every third request fails, whatever is in it, few batches are taken apart."""
    it = rig(flush_at=100)
    chance = random.Random(7)
    it.transport.default = lambda request: 503 if chance.random() < 0.34 else GOOD
    for _ in range(100):
        it.put(100)
        run(it, 5.0)
    run(it, 600.0)

    assert 10_000 == it.counts["delivered"]
    assert len(it.transport.requests) < 250


@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT, LOGS], ids=lambda one: one.name)
def test_a_server_that_asks_for_waits_gets_the_others(dialect: Any, rig: Any) -> None:
    """A batch of which one event is always put off is taken apart, and no wait is cut short."""
    it = rig(dialect, flush_at=1000)
    asked = [0.0]

    def answer(request: Request) -> Any:
        early.append(it.clock.now < asked[0])
        if b"poison" not in request.body:
            return GOOD
        asked[0] = it.clock.now + 60.0
        return Response(429, {"retry-after": "60"})

    early: list[bool] = []
    it.transport.default = answer
    it.put(60)
    it.put(1, event="poison")
    it.put(140)
    run(it, 3600.0)

    assert 200 == it.counts["delivered"]
    assert adds_up(it)
    assert sum(early) < 20  # others may pass one that waits by itself


def hanging(it: Rig) -> Callable[[Request], Any]:
    """Never answer whatever holds a poisoned event."""

    def answer(request: Request) -> Any:
        if b"poison" not in request.body:
            return GOOD
        it.clock.advance(it.transport.timeouts[-1])
        return ANSWERS["time-out"]

    return answer


@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT, LOGS], ids=lambda one: one.name)
@pytest.mark.parametrize("asks", [1, 5])
def test_a_server_with_a_limit_is_asked_as_often_as_it_allows(
    asks: int, dialect: Any, rig: Any
) -> None:
    """One request a second is allowed: few are refused, no batch is suspected for it."""
    it = rig(dialect)
    last = [-1.0]

    def answer(request: Request) -> Response:
        if it.clock.now < last[0] + 0.999:
            return Response(429, {"retry-after": str(asks)})
        last[0] = it.clock.now
        return GOOD

    it.transport.default = answer
    for _ in range(50):
        it.put(100)
        run(it, 0.2)
    run(it, 80.0)

    assert 0 == it.sender.waiting
    assert len(it.transport.requests) < 60
    assert adds_up(it)


@pytest.mark.parametrize("share", [0.15, 0.34])
def test_a_server_that_refuses_at_random_is_no_limit(share: float, rig: Any) -> None:
    """Where one of several machines behind an address answers 429, events soon get past it."""
    it, chance = rig(), random.Random(1)
    it.transport.default = lambda request: Response(429) if chance.random() < share else GOOD
    for _ in range(1800):
        it.put(1)
        run(it, 1.0)
    assert it.sender.waiting < 20 + 100 * share

    it.transport.default = GOOD
    run(it, 120.0)
    assert 0 == it.sender.waiting


@pytest.mark.parametrize("dialect", [V0, SEGMENT], ids=lambda one: one.name)
def test_many_events_that_are_put_off_slow_nobody(dialect: Any, rig: Any) -> None:
    """Events that are answered with 429 each are no limit of the server for all others."""
    it = rig(dialect)
    it.transport.default = poisoned(Response(429))
    for number in range(1200):
        it.put(1, event="poison" if number < 1000 and number % 50 == 0 else "e")
        run(it, 1.0)
    run(it, 300.0)

    assert 1180 == it.counts["delivered"]
    assert 20 == it.sender.waiting


@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT], ids=lambda one: one.name)
def test_rare_good_events_among_many_bad_ones(dialect: Any, rig: Any) -> None:
    """However many are rejected, a good one among them is not made to wait."""
    it = rig(dialect)
    it.transport.default = poisoned(Response(400 if dialect is V0 else 422))
    if dialect is V1:
        it.transport.default = lambda request: verdicts(
            drop=[one.uuid for one in V1.decode(request) if one.event == "poison"]
        )
    for second in range(300):
        it.put(5, event="poison")
        if second % 30 == 0:
            it.put(1)
        run(it, 1.0)
    run(it, 10.0)

    assert 10 == it.counts["delivered"]
    assert 0 == it.sender.waiting


def test_an_outage_of_a_server_with_a_limit_is_logged(
    rig: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit is logged once, however long it lasts, and so is each outage meanwhile."""
    it = rig()
    last = [-1.0]

    def limited(request: Request) -> Response:
        if it.clock.now < last[0] + 5.0:
            return Response(429)
        last[0] = it.clock.now
        return GOOD

    for outages in range(3):
        it.transport.default = limited
        for _ in range(300):
            it.put(1)
            run(it, 1.0)
        assert outages == caplog.text.count("http://x, HTTP 503")
        it.transport.default = Response(503)
        run(it, 300.0)

    assert 3 == caplog.text.count("http://x, HTTP 503")
    assert caplog.text.count("http://x, HTTP 429") <= 4


def test_an_outage_after_a_limit_is_logged(rig: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each outage is logged once, whether 429s came before it or not."""
    it = rig()
    it.transport.script(429)
    for _ in range(50):
        it.put(1)
        run(it, 60.0)
    assert 1 == caplog.text.count("cannot deliver")

    it.transport.default = Response(503)
    it.put(1)
    run(it, 3600.0)
    assert 2 == caplog.text.count("cannot deliver")


@pytest.mark.parametrize("limit", [0.5, 1.0, 15.0])
@pytest.mark.parametrize("bounded", [False, True])
def test_an_event_that_hangs_leaves_time_for_others(limit: float, bounded: bool, rig: Any) -> None:
    """A program that flushes regularly sends new events first, and the one that hangs last."""
    it = rig(flush_at=1000)
    it.transport.default = hanging(it)
    it.put(1, event="poison")
    for _ in range(20):
        it.put(1)
        it.sender.flush(limit, bounded)

    assert 19 <= it.counts["delivered"]
    assert adds_up(it)


@pytest.mark.parametrize("place", [0, 100, 250])
@pytest.mark.parametrize("is_known", [False, True])
def test_the_last_flush_is_not_one_events(place: int, is_known: bool, rig: Any) -> None:
    """At the end, one event that hangs costs those near it, not all."""
    it = rig(flush_at=1000)
    it.transport.default = hanging(it)
    if is_known:  # to be quick
        it.put(1)
        it.sender.flush(5.0)
    it.put(place)
    it.put(1, event="poison")
    it.put(250 - place)
    begun = it.clock.now
    it.sender.flush(5.0, is_last=True)

    assert it.counts["delivered"] > (180 if is_known else 110)
    assert it.clock.now - begun < 5.0 + it.sender.timeout
    assert adds_up(it)


@pytest.mark.parametrize("took", [None, 0.01, 1.5])
@pytest.mark.parametrize("takes", [1.0, 3.4, 4.2])
def test_the_last_flush_waits_for_a_slow_server(
    takes: float, took: float | None, rig: Any
) -> None:
    """What arrives is not cut off: less so where the server is not known to be quick."""
    it = rig(flush_at=1000)

    def slow(request: Request) -> Any:
        limit = it.transport.timeouts[-1]
        it.clock.advance(min(takes, limit))
        return GOOD if takes <= limit else ANSWERS["time-out"]

    if took is not None:
        it.put(1)
        it.transport.script(lambda request: it.clock.advance(took) or GOOD)
        it.sender.flush(5.0)
    it.transport.default = slow
    it.put(10)
    it.sender.flush(5.0, is_last=True)

    is_quick = took == 0.01
    assert (0 == it.sender.waiting) is not (is_quick and takes > 3.5)


def test_a_short_last_flush_waits_for_its_answer(rig: Any) -> None:
    """An attempt that is cut short may have arrived: it is not for a few seconds' sake."""
    it = rig(flush_at=1000)
    it.put(10)
    it.sender.flush(1.0, is_last=True)

    assert [it.sender.timeout] == it.transport.timeouts


@pytest.mark.parametrize("dialect", [V0, V1], ids=lambda one: one.name)
def test_flushing_often_gives_no_event_up(dialect: Any, rig: Any) -> None:
    """A hundred failures take half a day, however often the program flushes."""
    it = rig(dialect, flush_at=1000)
    it.transport.default = poisoned(503)
    it.put(1, event="poison")
    for _ in range(300):
        it.put(1)
        it.sender.flush(1.0)
        it.clock.advance(0.05)

    assert {"accepted": 301, "delivered": 300, "waiting": 1}.items() <= it.counts.items()


# Events that are refused


@pytest.mark.parametrize("status", [501, 505])
def test_a_final_error_costs_one_event(status: int, rig: Any) -> None:
    """What Segment's servers cannot do with one event, they can with the others of its batch."""
    it = rig(SEGMENT, flush_at=100)
    it.transport.default = poisoned(status)
    it.put(37)
    it.put(1, event="poison")
    it.put(62)
    run(it, 10.0)

    assert {"delivered": 99, "rejected": 1}.items() <= it.counts.items()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20, 200])
@pytest.mark.parametrize("spread", ["even", "first", "last", "random"])
@pytest.mark.parametrize("way", ["flush", "step"])
def test_all_innocents_of_a_large_batch_arrive(
    count: int, spread: str, way: str, rig: Any
) -> None:
    """Of 2,000 events all those arrive that nothing is wrong with, wherever the others are."""
    it = rig(flush_at=2000)
    it.transport.default = poisoned(400)
    places = {
        "even": set(range(0, 2000, 2000 // count)[:count]),
        "first": set(range(count)),
        "last": set(range(2000 - count, 2000)),
        "random": set(random.Random(count).sample(range(2000), count)),
    }[spread]
    lines = [it.line(event="poison" if n in places else "e") for n in range(2000)]
    for _ in lines:
        it.ledger.drained += 1
    it.sender.append(lines)
    it.sender.flush(1.0) if way == "flush" else run(it, 60.0)

    assert {"accepted": 2000, "delivered": 2000 - count, "rejected": count} == it.counts
    assert {"poison"} == {event["event"] for _, events in it.losses for event in events}


@pytest.mark.parametrize("size", [2, 100, 2000])
def test_a_server_that_refuses_everything_gets_a_few_requests(size: int, rig: Any) -> None:
    """The search has a budget that grows with the depth, not with the number of events."""
    it = rig(flush_at=1)
    it.transport.default = 400
    it.put(size)
    assert it.sender.flush(1.0)

    assert {"accepted": size, "rejected": size} == it.counts
    assert len(it.transport.requests) <= 50


@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT, RUDDERSTACK], ids=lambda one: one.name)
@pytest.mark.parametrize("status", [400, 403, 406, 422])
@pytest.mark.parametrize("place", [0, 19, 20, 39])
@pytest.mark.parametrize("way", ["flush", "step"])
def test_a_firewall_costs_one_event(
    dialect: Any, status: int, place: int, way: str, rig: Any
) -> None:
    """Of 40 events of which a firewall dislikes one, 39 arrive and that one is lost."""
    it = rig(dialect, flush_at=40)
    it.transport.default = poisoned(PAGE._replace(status=status))
    it.put(place)
    it.put(1, event="poison")
    it.put(39 - place)
    it.sender.flush(10.0) if way == "flush" else run(it, 5.0)

    assert {"accepted": 40, "delivered": 39, "rejected": 1}.items() <= it.counts.items()
    assert [("rejected", status, "poison")] == [
        (error.reason, error.status, event.get("event"))
        for error, events in it.losses
        for event in events
    ]
    assert len(it.transport.requests) < 30


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_firewall_that_refuses_everything_costs_nothing(
    count: int, rig: Any, caplog: Any
) -> None:
    """Where nobody gets through it is the address: all is kept, and few requests are made."""
    it = rig(flush_at=40, flush_interval=1.0)
    it.transport.default = PAGE
    it.put(count)
    run(it, 3600.0)

    assert {"accepted": count, "waiting": count}.items() <= it.counts.items()
    assert len(it.transport.requests) < 40
    assert "refuses access" in caplog.text
    it.transport.default = GOOD
    run(it, 1800.0)
    assert count == it.counts["delivered"]


def test_one_403_alone_is_not_tried_again_soon(rig: Any) -> None:
    """A single event that is refused waits a minute, and others are sent meanwhile."""
    it = rig(flush_at=1)
    it.transport.default = poisoned(PAGE)
    it.put(1, event="poison")
    run(it, 30.0)
    assert 1 == len(it.transport.requests)

    it.put(1)
    run(it, 1.0)
    assert 1 == it.counts["delivered"]
    run(it, 400.0)
    assert {"rejected": 1, "delivered": 1}.items() <= it.counts.items()


# What a server asks for, and says


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT], ids=lambda one: one.name)
def test_retry_after_is_kept_to(status: int, dialect: Any, rig: Any) -> None:
    """Nothing is sent before the time that the server named; a rubbish time has a ceiling."""
    it = rig(dialect, flush_at=1)
    it.transport.script(Response(status, {"retry-after": "60"}))
    it.transport.script(Response(status, {"retry-after": "99999999999"}))
    it.put(2)
    it.steps()
    it.put(2)
    run(it, 59.9)
    assert 1 == len(it.transport.requests)
    run(it, 0.2)
    assert 2 == len(it.transport.requests)
    run(it, 3599.0)
    assert 2 == len(it.transport.requests)
    run(it, 10.0)
    assert 4 == it.counts["delivered"]


def test_texts_of_the_server_are_cleaned(rig: Any, caplog: Any) -> None:
    """What a server says is one short printable line without the key, and bounded in number."""
    it = rig(V1, flush_at=1)
    nasty = "line\r\n\x1b[31mred\x1b[0m phc_test \u202e" + "x" * 5000
    for number in range(300):
        (name,) = it.put(1)
        result = {"result": f"odd {number} {nasty}"}
        if number % 2:
            result = {"result": "drop", "details": f"{number} {nasty}"}
        it.transport.script(Response(200, body=dumps({"results": {name: result}})))
        it.steps()

    texts = [record.getMessage() for record in caplog.records]
    assert 20 <= len(texts) < 40
    assert all(text.isprintable() and len(text) < 500 for text in texts)
    assert all(error.detail.isprintable() and len(error.detail) < 500 for error, _ in it.losses)
    assert "phc_test" not in caplog.text + str(it.losses)
    assert len(it.ledger._warned) < 40


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_page_is_told_with_what_to_do(rig: Any, caplog: Any) -> None:
    """One warning an outage says what is wrong, and no event is lost by it."""
    it = rig(flush_at=1)
    it.transport.script(*[ANSWERS["a page"]] * 10)
    it.put(3)
    run(it, 600.0)

    (record,) = caplog.records
    assert "a web page: is it the app's address instead of the ingestion host?" in record.message
    assert 3 == it.counts["delivered"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (301, "redirects"),
        (302, "redirects"),
        (401, "the key was refused"),
        (402, "bill"),
        (404, "is `host` right"),
        (405, "is `host` right"),
        (407, "`proxies`"),
        (415, "of this form"),
        (451, "legal reasons"),
        (511, "sign-in"),
    ],
)
@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT, RUDDERSTACK], ids=lambda one: one.name)
def test_configuration_pauses(
    dialect: Any, status: int, words: str, rig: Any, caplog: Any
) -> None:
    """Nothing is lost, one request a minute is made and then fewer, and the cause is named."""
    it = rig(dialect, flush_at=1)
    it.transport.default = status
    it.put(3)
    run(it, 59.0)
    assert 1 == len(it.transport.requests)
    assert it.sender.paused
    run(it, 3600.0)
    assert len(it.transport.requests) < 10

    (record,) = caplog.records
    assert words in record.message
    it.transport.default = GOOD
    run(it, 1000.0)
    assert 3 == it.counts["delivered"]


@pytest.mark.parametrize("status", [421, 425])
def test_some_answers_pass(status: int, rig: Any) -> None:
    """Answers that another connection, or another second, may change are retried soon."""
    it = rig(flush_at=1)
    it.transport.script(status)
    it.put(1)
    run(it, 5.0)

    assert 1 == it.counts["delivered"]


def test_a_body_that_could_not_be_read_does_not_matter(rig: Any) -> None:
    """The status counts where a transport hands on an error beside it."""
    it = rig(flush_at=1)
    it.transport.script(Response(200, error="DecodeError"), Response(400, error="ProtocolError"))
    it.put(1)
    it.steps()
    it.put(1)
    it.steps()

    assert {"accepted": 2, "delivered": 1, "rejected": 1} == it.counts


def test_metarouters_numbers(rig: Any, caplog: Any) -> None:
    """As many errors as events are a refusal of all, fewer are remarked."""
    it = rig(SEGMENT, flush_at=1)
    errors = b'{"Success":false,"Errors":[{"Error":"phc_test"},{"Error":"b"}]}'
    it.transport.script(Response(207, body=errors), Response(200, body=errors))
    it.put(3)
    it.steps()
    it.put(2)
    it.steps()

    assert {"accepted": 5, "delivered": 3, "dropped": 2} == it.counts
    assert "refused 2 event(s) of a batch" in caplog.text


def test_an_answer_may_keep_some_and_pause(rig: Any) -> None:
    """What Jitsu has no destination for waits, all else is delivered."""
    from posthog_logging.wire.segment import JITSU

    it = rig(JITSU, flush_at=1)
    a, b, _ = it.put(3)
    texts = [f"Message ID: {a}: no destinations found", f"Message ID: {b}: producer error"]
    it.transport.script(Response(200, body=dumps({"ok": False, "errors": texts})))
    it.steps()
    assert {"accepted": 3, "delivered": 1, "waiting": 2} == it.counts
    run(it, 2000.0)

    assert {"accepted": 3, "delivered": 3}.items() <= it.counts.items()


def test_a_flush_attempts_all_parts_of_what_it_takes(rig: Any) -> None:
    """What may not travel together is sent in one flush all the same."""
    it = rig()
    twin = "01890b5c-2a3b-7c4d-8e5f-0123456789ab"
    it.put(3, uuid=twin)
    it.put(1)

    assert it.sender.flush(1.0)
    assert {"accepted": 4, "delivered": 4} == it.counts


# Hooks and spools


def test_a_hook_that_logs_is_heard_once(transport: Any, clock: Any) -> None:
    """What ``on_error`` logs is an event like any, but its loss does not call the hook again."""
    from posthog_logging import context

    calls = []

    def hook(error: Exception, events: list[dict[str, Any]]) -> None:
        calls.append(events)
        bound = context.current()
        assert bound is not None
        it.put(1, event="loss", properties=dict(bound.properties))

    it = Rig(transport, clock, on_error=hook, flush_at=1)
    transport.default = 400
    it.put(1)
    run(it, 60.0)

    assert ["e"] == [event["event"] for events in calls for event in events]
    assert {"accepted": 2, "rejected": 2} == it.counts
    assert 2 == len(transport.requests)
    assert context.current() is None


def test_a_hook_that_logs_through_the_same_handler(transport: Any, make_log: Any) -> None:
    """Events and logs that ``on_error`` makes come to an end, whatever the server refuses."""
    transport.default = Response(400, body=b'{"error":"invalid_batch"}')
    calls = []

    def hook(error: Exception, events: list[dict[str, Any]]) -> None:
        calls.append(error)
        log.error("lost", extra={"distinct_id": "user-1"})

    handler = PostHogHandler(
        "phc_test", "http://h.test", transport=transport, on_error=hook, logs=True
    )
    log = make_log(handler)
    log.info("played", extra={"distinct_id": "user-1"})
    for _ in range(5):
        handler.flush(10.0)
    handler.close()

    assert 1 == len(calls)
    assert len(transport.requests) <= 6
    assert 2 == handler.counts["rejected"]


@pytest.mark.parametrize("by", [QueueHandler, MessageHandler])
def test_a_hook_that_logs_through_a_queue(by: Any, transport: Any, make_log: Any) -> None:
    """Where a queue stands between, the thread and the time of the record tell whose it is."""
    transport.default = Response(400, body=b'{"error":"invalid_batch"}')
    calls = []
    waiting: Any = queue.SimpleQueue()

    def hook(error: Exception, events: list[dict[str, Any]]) -> None:
        calls.append(error)
        log.error("lost", extra={"distinct_id": "user-1"})

    handler = PostHogHandler(
        "phc_test", "http://h.test", transport=transport, on_error=hook, logs=True
    )
    log = make_log(by(waiting))
    log.info("played", extra={"distinct_id": "user-1"})
    for _ in range(6):
        while not waiting.empty():
            handler.handle(waiting.get())
        handler.flush(10.0)
    handler.close()

    assert 1 == len(calls)
    assert 2 == handler.counts["rejected"]


def test_what_each_loss_leads_to_is_lost_ever_more_slowly(rig: Any) -> None:
    """A hook that logs from a thread of its own cannot keep a server that refuses all busy."""
    it = rig(flush_at=1, on_error=lambda error, events: bool(it.put(1)))
    it.transport.default = 400
    it.put(1)
    run(it, 3600.0)
    assert 100 < len(it.transport.requests) < 200

    it.transport.default = GOOD
    run(it, 60.0)
    assert 1 == it.counts["delivered"]
    assert 0 == it.sender.waiting


class DeadLetters(MemorySpool):
    """A spool that hears of what is lost before it forgets it."""

    def __init__(self, diary: list[Any]) -> None:
        super().__init__()
        self.diary = diary

    def lost(self, kept: Any, reason: str, status: int | None) -> None:
        self.diary.append(("lost", [one.line for one in kept], reason, status))

    def ack(self, kept: Any) -> None:
        self.diary.append(("ack", len(kept)))
        super().ack(kept)


def test_a_spool_may_hear_of_losses_first(transport: Any, clock: Any) -> None:
    """Dead letter, acknowledgement, hook: in this order, with the status."""
    diary: list[Any] = []
    it = Rig(
        transport,
        clock,
        on_error=lambda error, events: diary.append(error.reason),
        spool=DeadLetters(diary),
        flush_at=1,
    )
    transport.script(400)
    line = it.line()
    it.ledger.drained += 1
    it.sender.append([line])
    it.steps()

    assert [("lost", [line], "rejected", 400), ("ack", 1), "rejected"] == diary


def test_lines_that_came_into_the_spool_by_themselves_are_due(rig: Any) -> None:
    """What a broker puts into its spool is due like any line, from the next look on."""
    it = rig(flush_at=100, flush_interval=2.0)
    it.sender.spool.append([it.line(), it.line()])
    assert it.due_in is None
    it.ledger.add("adopted", 2)
    it.sender.append(())

    assert 2.0 == it.due_in
    run(it, 2.0)
    assert {"accepted": 2, "adopted": 2, "delivered": 2} == it.counts


def test_an_isolated_event_does_not_keep_its_batch_in_memory(rig: Any) -> None:
    """Of a batch of which one line waits for hours, only that line is held."""
    it = rig(flush_at=2000)
    it.transport.default = poisoned(503)
    it.put(1, event="poison")
    it.put(1999, properties={"text": "x" * 500})
    for _ in range(40):
        it.put(1)
        run(it, 10.0)

    assert 1 == it.sender.waiting
    (lease,) = it.sender.spool._leases.values()
    assert sum(map(len, lease.lines)) < 1000
    assert (1, 1) == (it.sender.spool.held[0], len(lease.unsettled()))


@pytest.mark.parametrize("dialect", [V0, V1], ids=lambda one: one.name)
def test_whatever_fails_nothing_is_sent_twice_after_its_answer(dialect: Any, rig: Any) -> None:
    """Under chance failures each event arrives once, and the counts add up."""
    it = rig(dialect, flush_at=50)
    chance = random.Random(3)
    arrived: Counter[str] = Counter()

    def answer(request: Request) -> Response:
        names = it.uuids(request)
        assert not arrived.keys() & set(names)
        if b"poison" in request.body:
            return chance.choice([Response(400), Response(503), PAGE, ANSWERS["reset"]])
        if chance.random() < 0.2:
            large = Response(413 if len(names) > 1 else 503)
            return chance.choice([Response(503), Response(429), large, PAGE])
        arrived.update(names)
        return GOOD

    it.transport.default = answer
    logging.getLogger("posthog_logging").setLevel(logging.CRITICAL)
    for number in range(60):
        it.put(49)
        it.put(1, event="poison" if number % 5 == 0 else "e")
        run(it, 20.0)
        assert adds_up(it)
    for _ in range(100):
        it.put(1)
        run(it, 900.0)
        assert adds_up(it)

    assert len(arrived) == it.counts["delivered"]
    assert 60 * 49 + 48 + 100 == len(arrived)
    assert flat(it.all_sent)


def test_over_a_real_connection(raw_server: Any) -> None:
    """A server that hangs up on one event gets the 200 behind it within seconds."""
    arrived = []

    def behave(connection: Any, number: int, server: Any) -> None:
        data = b""
        while piece := connection.recv(65536):
            data += piece
            head, found, text = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if not found or length is None or len(text) < int(length[1]):
                continue
            if b"poison" in text:
                return
            arrived.extend(one["uuid"] for one in json.loads(text)["batch"])
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"results":{}}')
            data = b""

    handler = PostHogHandler(
        "phc_test", raw_server(behave).url, compression=None, flush_at=100, flush_interval=0.05
    )
    handler.accept({"event": "poison"})
    time.sleep(0.3)
    for number in range(200):
        handler.accept({"event": f"e{number}"})
    end = time.monotonic() + 15.0
    while len(arrived) < 200 and time.monotonic() < end:
        time.sleep(0.05)
    handler.close(0.0)

    assert 200 == len(arrived) == len(set(arrived))
