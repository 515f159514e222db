"""The sender, with a script for a server and a clock that stands still: what is sent when."""

from __future__ import annotations

import itertools
import json
import uuid

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from posthog_logging.delivery.ledger import NOT_LOSSES, Ledger
from posthog_logging.delivery.sender import DeliveryError, Sender, Settings
from posthog_logging.delivery.spool import MemorySpool
from posthog_logging.events.message import Message
from posthog_logging.wire import Endpoint, Request, Response
from posthog_logging.wire.otlp import LOGS
from posthog_logging.wire.posthog import V0, V1
from posthog_logging.wire.segment import SEGMENT


class Rig:
    """A sender, what it is made of, and what it did."""

    def __init__(self, transport: Any, clock: Any, dialect: Any = V0, **options: Any) -> None:
        self.transport = transport
        self.clock = clock
        self.dialect = dialect
        self.ledger = Ledger()
        self.losses: list[tuple[DeliveryError, list[dict[str, Any]]]] = []
        memory = options.pop("memory", {})
        host = options.pop("host", "http://x")
        on_error = options.pop(
            "on_error", lambda error, events: self.losses.append((error, events))
        )
        self.sender = Sender(
            options.pop("spool", MemorySpool()),
            dialect,
            Endpoint(host, "phc_test", options.pop("compression", None)),
            transport,
            self.ledger,
            Settings(**options),
            on_error=on_error,
            clock=clock,
            wall=clock,
            uniform=lambda low, high: high,
            memory=memory,
        )
        self._numbers = itertools.count(1)

    def put(self, count: int = 1, **fields: Any) -> list[str]:
        """Accept so many events; return their uuids."""
        made = [self.line(**fields) for _ in range(count)]
        for _ in made:
            self.ledger.drained += 1
        self.sender.append(made)
        return [self.dialect.uuid_of(one) for one in made]

    def line(self, **fields: Any) -> bytes:
        number = next(self._numbers)
        name = fields.get("uuid") or str(uuid.UUID(int=number, version=4))
        moment = fields.get("timestamp", "2024-01-02T03:04:05.678000Z")
        properties = {"n": number, **fields.get("properties", {})}
        made: bytes = self.dialect.line(
            Message(fields.get("event", "e"), "user-1", properties, name, moment)
        )
        return made

    def steps(self, most: int = 100) -> int:
        """Step until nothing is due; return how many attempts that were."""
        return sum(1 for _ in itertools.takewhile(lambda _: self.sender.step(), range(most)))

    def sent(self, number: int = -1) -> list[str]:
        """Return the uuids in one request."""
        return self.uuids(self.transport.requests[number])

    def uuids(self, request: Request) -> list[str]:
        return [message.uuid for message in self.dialect.decode(request)]

    @property
    def all_sent(self) -> list[list[str]]:
        return [self.uuids(request) for request in self.transport.requests]

    @property
    def counts(self) -> dict[str, int]:
        """Return the counts that are not 0."""
        return {reason: count for reason, count in self.ledger.counts.items() if count}

    @property
    def due_in(self) -> float | None:
        return self.sender.due_in()


@pytest.fixture
def rig(transport: Any, clock: Any) -> Callable[..., Rig]:
    """A maker of rigs."""
    return lambda dialect=V0, **options: Rig(transport, clock, dialect, **options)


def flat(lists: list[list[str]]) -> list[str]:
    return list(itertools.chain.from_iterable(lists))


def body(request: Request) -> Any:
    return json.loads(request.body)


def verdicts(**by_result: list[str]) -> Response:
    """Return a V1 answer that gives each list of uuids its result."""
    results = {
        name: {"result": result, **({"details": "because"} if result == "drop" else {})}
        for result, names in by_result.items()
        for name in names
    }
    return Response(200, body=json.dumps({"results": results}).encode())


# When


def test_nothing_is_due_without_events(rig: Any) -> None:
    """An idle sender sleeps for ever."""
    it = rig()

    assert it.due_in is None
    assert not it.sender.step()
    assert it.sender.flush(1.0)
    assert [] == it.transport.requests


def test_due_by_age(rig: Any) -> None:
    """A few events are due when the oldest of them is `flush_interval` old."""
    it = rig(flush_at=100, flush_interval=5.0)
    it.put()
    it.clock.advance(3.0)
    it.put()

    assert 2.0 == it.due_in
    assert 0 == it.steps()
    it.clock.advance(2.0)
    assert 1 == it.steps()
    assert [2] == [len(one) for one in it.all_sent]
    assert it.due_in is None


def test_due_by_count(rig: Any) -> None:
    """`flush_at` events are due at once, in one batch, in order."""
    it = rig(flush_at=3, flush_interval=60.0)
    names = it.put(2)
    assert 60.0 == it.due_in

    names += it.put()

    assert 0.0 == it.due_in
    assert 1 == it.steps()
    assert [names] == it.all_sent


def test_a_backlog_goes_in_large_batches(rig: Any) -> None:
    """What waits goes out up to the dialect's count, not `flush_at` at a time."""
    it = rig(flush_at=10)
    names = it.put(4500)

    assert it.sender.flush(1.0)
    assert [2000, 2000, 500] == [len(one) for one in it.all_sent]
    assert names == flat(it.all_sent)


@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT], ids=lambda one: one.name)
def test_a_batch_is_never_too_large(dialect: Any, rig: Any) -> None:
    """However large the events, no body is above the limit; all go at once."""
    it = rig(dialect, flush_at=1)
    size = dialect.limits.event_bytes - 1000
    it.put(7, properties={"text": "x" * size})
    it.put(3000)

    it.steps()

    sizes = [len(request.body) for request in it.transport.requests]
    assert max(sizes) <= dialect.limits.batch_bytes
    assert 3007 == sum(map(len, it.all_sent))


def test_what_no_longer_fits_is_as_due_as_the_rest(rig: Any) -> None:
    """Where old events need two batches, the second does not wait for its own interval."""
    it = rig(flush_interval=5.0)
    it.put(7, properties={"text": "x" * 900_000})
    it.clock.advance(5.0)

    assert 2 == it.steps()
    assert 7 == it.counts["delivered"]


def test_the_timeout_is_handed_down(rig: Any) -> None:
    """An attempt may take `timeout`, or what is left for the flush if that is less."""
    it = rig(timeout=9.0, flush_at=1)
    it.put()
    it.steps()
    it.put()
    it.sender.flush(4.0, bounded=True)
    it.put()
    it.sender.flush(40.0, bounded=True)

    assert [9.0, 4.0, 9.0] == it.transport.timeouts


# Retries


@pytest.mark.parametrize("dialect", [V0, V1], ids=lambda one: one.name)
def test_a_batch_keeps_its_identity(dialect: Any, rig: Any) -> None:
    """Members, order, ids and times stay the same on each attempt, whatever else comes in."""
    it = rig(dialect, flush_at=1)
    it.transport.script(504, 503, 408, Response(None, error="Timeout"))
    names = it.put(5)
    for _ in range(4):
        assert it.sender.step()
        it.clock.advance(60.0)
    assert it.sender.step()
    it.put(4)
    it.steps()

    first, *others = it.transport.requests[:5]
    assert [names] * 5 == it.all_sent[:5]
    for other in others:
        assert body(first)["batch"] == body(other)["batch"]
        assert body(first).get("created_at") == body(other).get("created_at")
        assert first.headers.get("PostHog-Request-Id") == other.headers.get("PostHog-Request-Id")
    assert 9 == it.counts["delivered"]
    assert 20 == it.counts["retried"]


def test_v1_counts_attempts(rig: Any) -> None:
    """The header says which attempt it is, from 1 on; the next batch begins anew."""
    it = rig(V1, flush_at=1)
    it.transport.script(503, 503)
    it.put()
    for _ in range(3):
        it.steps()
        it.clock.advance(60.0)
    it.put()
    it.steps()

    assert ["1", "2", "3", "1"] == [
        request.headers["PostHog-Attempt"] for request in it.transport.requests
    ]
    assert 2 == len({request.headers["PostHog-Request-Id"] for request in it.transport.requests})


@pytest.mark.parametrize("dialect", [V0, V1], ids=lambda one: one.name)
def test_each_attempt_is_stamped_anew(dialect: Any, rig: Any) -> None:
    """The stamp of the attempt is what the server corrects clocks by, so it is fresh."""
    it = rig(dialect, flush_at=1)
    it.transport.script(503)
    it.put()
    it.steps()
    it.clock.advance(60.0)
    it.steps()

    stamps = [
        body(request).get("sent_at") or request.headers["PostHog-Request-Timestamp"]
        for request in it.transport.requests
    ]
    assert ["2023-11-14T22:13:20.000000Z", "2023-11-14T22:14:20.000000Z"] == stamps


def test_back_off_grows_to_a_limit(rig: Any) -> None:
    """Waits double up to half a minute, and a success ends them."""
    it = rig(flush_at=1)
    it.transport.default = 503
    it.put()
    waits = []
    for _ in range(8):
        it.steps()
        waits.append(it.due_in)
        it.clock.advance(it.due_in)

    assert [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0] == waits
    it.transport.default = 200
    it.steps()
    it.put()
    assert 0.0 == it.due_in


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        ("0.5", 1.0),
        ("60", 60.0),
        ("9999", 3600.0),
        ("rubbish", 1.0),
        ("-3", 1.0),
        ("", 1.0),
        ("Tue, 14 Nov 2023 22:13:32 GMT", 12.0),
        ("Tue, 14 Nov 2023 20:00:00 GMT", 1.0),
    ],
)
def test_retry_after(value: str, expected: float, rig: Any) -> None:
    """What the server asks for is a floor to the back-off, with a ceiling."""
    it = rig(flush_at=1)
    it.transport.script(Response(503, {"retry-after": value}))
    it.put()
    it.steps()

    assert expected == it.due_in


@pytest.mark.parametrize("most", [0, 1, 3])
@pytest.mark.parametrize("answer", [500, 503, 429, None])
def test_max_retries_is_a_number(most: int, answer: int | None, rig: Any) -> None:
    """N retries are N + 1 attempts, after which the batch is counted and told of."""
    it = rig(max_retries=most, flush_at=1)
    it.transport.default = Response(answer, error="Timeout" if answer is None else "")
    it.put(4)
    for _ in range(10):
        it.steps()
        it.clock.advance(60.0)

    assert most + 1 == len(it.transport.requests)
    assert 4 == it.counts["retries_exhausted"]
    assert [("retries_exhausted", answer, 4)] == [
        (error.reason, error.status, len(events)) for error, events in it.losses
    ]


def test_without_max_retries_it_is_kept(rig: Any) -> None:
    """By default a batch is tried until it is delivered, by one small probe at a time."""
    it = rig(flush_at=1)
    it.transport.script(*[503] * 50)
    names = it.put(3)
    for _ in range(60):
        it.steps()
        it.clock.advance(60.0)

    assert [names] * 5 == it.all_sent[:5]
    assert {1} == {len(one) for one in it.all_sent[5:51]}
    assert set(names) == set(flat(it.all_sent[5:51]))
    assert 52 == len(it.transport.requests)
    assert {"accepted": 3, "delivered": 3}.items() <= it.counts.items()


def test_max_age(rig: Any) -> None:
    """What is older than `max_age` is given up, whether it was tried already or only waits."""
    it = rig(flush_at=1, max_age=100.0)
    it.transport.default = 503
    it.put(2, timestamp="2023-11-14T22:13:20.000000Z")
    while it.due_in is not None:
        it.steps()
        it.clock.advance(it.due_in or 0.0)
    assert 2 == it.counts["expired"]
    assert 5 < len(it.transport.requests) < 12

    it.transport.default = 200
    it.clock.advance(100.0)
    it.put(2, timestamp="2023-11-14T22:13:20.000000Z")
    young = it.put(1, timestamp="2033-11-14T22:13:20.000000Z")
    it.steps()
    assert 4 == it.counts["expired"]
    assert young == it.sent()


def test_expired_events_do_not_end_a_flush(rig: Any) -> None:
    """A flush goes on behind a batch of which nothing was young enough to send."""
    it = rig(max_age=100.0)
    it.put(2000, timestamp="2020-01-01T00:00:00.000000Z")
    young = it.put(3, timestamp="2033-01-01T00:00:00.000000Z")

    assert it.sender.flush(1.0)
    assert [young] == it.all_sent
    assert {"accepted": 2003, "delivered": 3, "expired": 2000} == it.counts


@pytest.mark.parametrize("status", [500, 501, 599])
def test_a_500_blocks_nobody(status: int, rig: Any) -> None:
    """A batch that makes the server stumble goes behind those that wait."""
    it = rig(flush_at=1)
    it.transport.default = lambda request: status if b"stumble" in request.body else 200
    it.put(2, event="stumble")
    it.steps()
    others = it.put(2)
    for _ in range(3):
        it.clock.advance(60.0)
        it.steps()

    assert others in it.all_sent
    assert {"delivered": 2, "waiting": 2}.items() <= it.counts.items()


# Answers that are final, and those that pause


@pytest.mark.parametrize("status", [409, 418, 422, 501])
def test_final_answers(status: int, rig: Any) -> None:
    """What the endpoint says of one event is final after one attempt, with its status."""
    it = rig(SEGMENT, flush_at=1)
    it.transport.script(status)
    it.put(1)

    assert 1 == it.steps()
    assert {"accepted": 1, "rejected": 1} == it.counts
    error, events = it.losses[0]
    assert ("rejected", status, 1) == (error.reason, error.status, len(events))


@pytest.mark.parametrize("status", [401, 402])
def test_a_refused_key_pauses(status: int, rig: Any, caplog: Any) -> None:
    """Sending stops for a minute, then longer; told once; events wait."""
    it = rig(flush_at=1)
    it.transport.default = status
    names = it.put(2)
    waits = []
    for _ in range(6):
        it.steps()
        it.put()
        waits.append(it.due_in)
        it.clock.advance(it.due_in)
    assert [60.0, 120.0, 240.0, 480.0, 900.0, 900.0] == waits
    assert 1 == len(caplog.records)
    assert it.sender.paused

    it.transport.default = 200
    it.steps()
    assert names == it.sent(6)
    assert not it.sender.paused
    assert {"accepted": 8, "delivered": 8, "retried": 12} == it.counts


def test_a_pause_ends_with_max_retries(rig: Any) -> None:
    """Where the tries are numbered, a refused key uses them up as well."""
    it = rig(flush_at=1, max_retries=1)
    it.transport.default = 401
    it.put(2)
    for _ in range(3):
        it.steps()
        it.clock.advance(1000.0)

    assert 2 == len(it.transport.requests)
    assert {"accepted": 2, "rejected": 2, "retried": 2} == it.counts


# Too large, and poison


def at_most(count: int) -> Callable[[Request], int]:
    """Answer 413 to more than *count* events."""
    return lambda request: 413 if len(body(request)["batch"]) > count else 200


def test_413_halves_and_ramps_up(rig: Any) -> None:
    """A batch too large goes in halves at once; later ones grow again, a quarter each."""
    it = rig(flush_at=1)
    it.transport.default = at_most(30)
    names = it.put(200)
    it.sender.flush(1.0)

    assert names == [name for one in it.all_sent if len(one) <= 30 for name in one]
    assert 200 == it.counts["delivered"]
    it.transport.default = 200
    it.transport.requests.clear()
    it.put(5000)
    it.sender.flush(1.0)
    sizes = [len(one) for one in it.all_sent]
    assert sizes[0] < 200
    assert sorted(sizes[:-1]) == sizes[:-1]
    assert 5000 == sum(sizes)


def test_413_of_one_is_counted(rig: Any) -> None:
    """A single event that is too large does not block those behind it."""
    it = rig(flush_at=1)
    it.transport.default = lambda request: 413 if b"giant" in request.body else 200
    it.put(3)
    it.put(1, event="giant")
    it.put(3)
    it.sender.flush(1.0)

    assert {"accepted": 7, "delivered": 6, "oversized": 1} == it.counts
    assert ["giant"] == [event["event"] for _, events in it.losses for event in events]


@pytest.mark.parametrize("place", [0, 1, 999, 1234, 1999])
def test_one_poison_is_isolated(place: int, rig: Any) -> None:
    """A 400 costs the one event at fault, within two requests for each halving."""
    it = rig(flush_at=1)
    it.transport.default = lambda request: 400 if b"poison" in request.body else 200
    it.put(place)
    it.put(1, event="poison")
    it.put(1999 - place)
    it.sender.flush(1.0)

    assert {"accepted": 2000, "delivered": 1999, "rejected": 1} == it.counts
    assert ["poison"] == [event["event"] for _, events in it.losses for event in events]
    assert len(it.transport.requests) <= 1 + 2 * 11


def test_nothing_but_poison_is_bounded(rig: Any) -> None:
    """A server that refuses everything gets some fifty requests, not four thousand."""
    it = rig(flush_at=1)
    it.transport.default = 400
    it.put(2000)
    assert it.sender.flush(1.0)

    assert {"accepted": 2000, "rejected": 2000} == it.counts
    assert len(it.transport.requests) <= 50


def test_bisecting_is_a_choice(rig: Any) -> None:
    """With ``bisect=False`` a refused batch is lost as a whole."""
    it = rig(flush_at=1, bisect=False)
    it.transport.default = 400
    it.put(10)
    it.steps()

    assert 1 == len(it.transport.requests)
    assert 10 == it.counts["rejected"]


def test_pieces_have_ids_of_their_own(rig: Any) -> None:
    """A half is another request, whose attempts count from 1, and keeps `created_at`."""
    it = rig(V1, flush_at=1)
    it.transport.script(400, 503)
    it.put(4)
    it.steps()
    it.clock.advance(60.0)
    it.steps()

    ids = [request.headers["PostHog-Request-Id"] for request in it.transport.requests]
    assert len(set(ids)) == 3
    assert "1" == it.transport.requests[1].headers["PostHog-Attempt"]
    assert 1 == len({body(request)["created_at"] for request in it.transport.requests})
    assert 4 == it.counts["delivered"]


# V1's verdicts


def test_only_what_is_to_be_retried_is_sent_again(rig: Any) -> None:
    """Of a mixed answer, only the events marked so go again, with the same request id."""
    it = rig(V1, flush_at=1)
    a, b, c, d, e = it.put(5)
    it.transport.script(verdicts(ok=[a], retry=[d, b], drop=[c], novel=[e]))
    it.steps()
    it.clock.advance(60.0)
    it.steps()

    assert [[a, b, c, d, e], [b, d]] == it.all_sent
    assert {"accepted": 5, "delivered": 4, "dropped": 1, "retried": 2} == it.counts
    assert [("dropped", "because", c)] == [
        (error.reason, error.detail, events[0]["uuid"]) for error, events in it.losses
    ]
    ids = {request.headers["PostHog-Request-Id"] for request in it.transport.requests}
    assert 1 == len(ids)


def test_partial_retries_are_numbered_too(rig: Any) -> None:
    """An event that the server always wants again is given up after the last try."""
    it = rig(V1, flush_at=1, max_retries=2)
    it.put(2)
    it.transport.default = lambda request: verdicts(retry=it.uuids(request))
    for _ in range(9):
        it.steps()
        it.clock.advance(60.0)

    assert 3 == len(it.transport.requests)
    assert 2 == it.counts["retries_exhausted"]


@pytest.mark.parametrize("answer", [b"", b"garbage", b"[]", b"{}", b'{"results":[]}', b"\xff"])
def test_an_unreadable_answer_is_tried_twice_again(answer: bytes, rig: Any) -> None:
    """A V1 2xx of which nothing can be read is asked for twice again, and counted apart."""
    it = rig(V1, flush_at=1)
    it.put(2)
    it.transport.default = Response(200, body=answer)
    for _ in range(5):
        it.steps()
        it.clock.advance(60.0)

    assert {"accepted": 2, "unconfirmed": 2, "retried": 4} == it.counts
    assert 3 == len(it.transport.requests)


CUT = Response(200, body=b'{"res', error="ReadTimeoutError (TimeoutError)")


@pytest.mark.parametrize("dialect", [V0, SEGMENT], ids=lambda one: one.name)
def test_a_success_whose_body_never_ends_is_one(dialect: Any, rig: Any) -> None:
    """The status says that it was taken; a body that drips, or floods, changes nothing."""
    it = rig(dialect, flush_at=1)
    it.put(2)
    it.transport.default = CUT
    it.steps()

    assert {"accepted": 2, "delivered": 2} == it.counts
    assert 1 == len(it.transport.requests)


@pytest.mark.parametrize("body", [b"<html>sign i", b""])
def test_a_page_that_never_ends_is_none(body: bytes, rig: Any) -> None:
    """A go-between's page is no delivery, however much of it has come."""
    it = rig(flush_at=1)
    it.put(2)
    it.transport.default = Response(200, {"content-type": "text/html"}, body, "ReadTimeout")
    it.steps()

    assert {"accepted": 2, "waiting": 2} == it.counts


def test_v1_settles_what_never_ends(rig: Any) -> None:
    """Without verdicts an event is sent twice again, but not for ever."""
    it = rig(V1, flush_at=1)
    it.put(2)
    it.transport.default = CUT
    for _ in range(5):
        it.steps()
        it.clock.advance(60.0)

    assert {"accepted": 2, "unconfirmed": 2, "retried": 4} == it.counts
    assert 3 == len(it.transport.requests)


def test_only_in_a_row_are_unreadable_answers_too_many(rig: Any) -> None:
    """In trouble of several kinds, an answer that cannot be read is no habit of the server's."""
    it = rig(V1, flush_at=1)
    it.put(1)
    it.transport.script(CUT, 503, CUT, CUT, 429, CUT, Response(200, body=b"<html>"), CUT)
    it.transport.default = lambda request: verdicts(ok=it.uuids(request))
    for _ in range(12):
        it.steps()
        it.clock.advance(600.0)

    assert {"accepted": 1, "delivered": 1, "retried": 8} == it.counts
    assert 9 == len(it.transport.requests)


def test_v1_waits_also_without_retry_after(rig: Any) -> None:
    """A 429 is an outage on V1 as elsewhere; its time, where it names one, is kept to."""
    it = rig(V1, flush_at=1)
    it.transport.script(429, Response(429, {"retry-after": "60"}))
    it.put()
    it.steps()
    assert 1.0 == it.due_in
    it.clock.advance(1.0)
    it.steps()

    assert {"accepted": 1, "waiting": 1, "retried": 1} == it.counts
    assert 60.0 == it.due_in


# Flush


def test_flush_tries_each_batch_once(rig: Any) -> None:
    """One attempt for every batch, also during back-off; what fails stays, in order."""
    it = rig(flush_at=1)
    it.transport.default = 503
    first = it.put(2)
    it.steps()
    second = it.put(2500)

    assert not it.sender.flush(1.0)
    assert [first, first, second[:2000], second[2000:]] == it.all_sent
    it.transport.requests.clear()
    assert not it.sender.flush(1.0)
    assert [first, second[:2000], second[2000:]] == it.all_sent

    it.transport.requests.clear()
    it.transport.default = 200
    it.clock.advance(60.0)
    it.steps()
    assert [first, second[:2000], second[2000:]] == it.all_sent
    assert it.sender.flush(1.0)
    assert 2502 == it.counts["delivered"]


@pytest.mark.parametrize("status", [500, 503, 401, None])
def test_halves_stay_in_order(status: int | None, rig: Any) -> None:
    """Pieces that fail in one flush are kept in the order of their events."""
    it = rig(flush_at=1)
    it.transport.script(413, *[Response(status, error="x")] * 2)
    names = it.put(10)
    it.sender.flush(1.0)
    it.transport.requests.clear()
    it.sender.flush(1.0)

    assert [names[:5], names[5:]] == it.all_sent


def test_one_failure_does_not_end_a_flush(rig: Any) -> None:
    """The batches behind a failed one get their attempt."""
    it = rig()
    it.transport.script(500)
    names = it.put(2001)

    assert not it.sender.flush(1.0)
    assert [names[:2000], names[2000:]] == it.all_sent
    assert {"accepted": 2001, "delivered": 1, "waiting": 2000} == it.counts


def test_flush_ends_at_its_deadline(rig: Any) -> None:
    """A flush begins no attempt after its time; what it did not come to waits, in order."""
    it = rig()

    def slow(request: Request) -> int:
        it.clock.advance(3.0)
        return 503

    it.transport.default = slow
    names = it.put(5000)

    assert not it.sender.flush(5.0, bounded=True)
    assert 2 == len(it.transport.requests)
    assert [5.0, 2.0] == it.transport.timeouts
    assert 5000 == it.sender.waiting
    it.transport.default = 200
    assert it.sender.flush(5.0)
    assert names == flat(it.all_sent[2:])


def test_what_comes_during_a_flush_waits(rig: Any) -> None:
    """A flush is for what waited when it began, so it ends."""
    it = rig()

    def more(request: Request) -> int:
        it.put(1)
        return 200

    it.transport.default = more
    it.put(1)

    assert not it.sender.flush(1.0)
    assert 1 == len(it.transport.requests)
    assert 1 == it.sender.waiting


def test_nothing_is_sent_while_held(rig: Any) -> None:
    """Opted out, neither the timer nor a flush sends; afterwards all of it goes."""
    it = rig(flush_at=1)
    it.sender.held = True
    it.put(2)

    assert it.due_in is None
    assert not it.sender.step()
    assert not it.sender.flush(1.0)
    it.sender.held = False
    assert it.sender.flush(1.0)


# Foreign parts


@pytest.mark.parametrize("error", [ValueError("phc_secret"), OSError(), MemoryError()], ids=repr)
def test_a_transport_that_raises_is_an_outage(error: Exception, rig: Any, caplog: Any) -> None:
    """What a transport of one's own raises costs no event and quotes nothing."""
    it = rig(flush_at=1)
    it.transport.script(error)
    it.put(2)
    it.steps()
    it.clock.advance(60.0)
    it.steps()

    assert 2 == it.counts["delivered"]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("way", ["step", "flush"])
def test_an_interrupt_costs_no_event(error: BaseException, way: str, rig: Any) -> None:
    """Ctrl-C amid a request goes to the caller, and the batches stay, in order."""
    it = rig(flush_at=1)
    names = it.put(2500)
    it.transport.script(*[503] * (way == "flush"), error)

    with pytest.raises(type(error)):
        it.sender.step() if way == "step" else it.sender.flush(1.0)
    it.sender.rewind()

    assert 2500 == it.sender.waiting == it.counts["waiting"]
    it.transport.requests.clear()
    assert it.sender.flush(1.0)
    assert names == flat(it.all_sent)


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(1)], ids=repr)
def test_on_error_may_raise(error: BaseException, transport: Any, clock: Any) -> None:
    """A hook that raises changes nothing: the loss is counted, the rest is delivered."""

    def hook(*args: Any) -> None:
        raise error

    it = Rig(transport, clock, on_error=hook, flush_at=1)
    transport.script(418)
    it.put(1)
    it.steps()
    it.put(2)
    it.steps()

    assert {"accepted": 3, "delivered": 2, "rejected": 1} == it.counts


def test_on_error_gets_the_events(rig: Any) -> None:
    """The hook is given what was lost as it would have been sent, and why."""
    it = rig(flush_at=1, bisect=False)
    it.transport.script(400)
    names = it.put(2, properties={"color": "red"})
    it.steps()

    ((error, events),) = it.losses
    assert isinstance(error, DeliveryError)
    assert "rejected, HTTP 400" == str(error)
    assert names == [event["uuid"] for event in events]
    assert ["red", "red"] == [event["properties"]["color"] for event in events]


@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT], ids=lambda one: one.name)
def test_an_event_that_came_twice_is_sent_once(dialect: Any, rig: Any) -> None:
    """The same event with the same uuid is settled with its twin and counted, also a bit later."""
    it = rig(dialect, flush_at=1)
    twin = "01890b5c-2a3b-7c4d-8e5f-0123456789ab"
    line = it.line(uuid=twin)
    later = line.replace(b"05.678", b"06.789")
    assert line != later
    for _ in range(3):
        it.ledger.drained += 1
    it.sender.append([line, line, later])
    it.steps()

    assert [[twin]] == it.all_sent
    assert {"accepted": 3, "delivered": 1, "duplicates": 2} == it.counts
    assert 0 == it.sender.waiting


@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT], ids=lambda one: one.name)
def test_two_events_with_one_uuid_go_one_after_the_other(dialect: Any, rig: Any) -> None:
    """A uuid that was used for different events is in no batch twice, and never replaced."""
    it = rig(dialect, flush_at=1)
    twin = "01890b5c-2a3b-7c4d-8e5f-0123456789ab"
    it.put(3, uuid=twin)
    it.steps()

    assert [[twin]] * 3 == it.all_sent
    assert {"accepted": 3, "delivered": 3} == it.counts


def test_a_v0_quota_is_told_of(rig: Any, caplog: Any) -> None:
    """A 2xx that says the quota is used up counts as delivered, and is told of."""
    it = rig(flush_at=1)
    it.transport.script(Response(200, body=b'{"status":1,"quota_limited":["events"]}'))
    it.put(2)
    it.steps()

    assert 2 == it.counts["delivered"]
    assert "quota_limited" in caplog.text


def test_an_outage_is_told_once(rig: Any, caplog: Any) -> None:
    """One warning an outage, naming the trouble and no payload; the next one is told again."""
    it = rig(flush_at=1)
    for _ in range(2):
        it.transport.script(*[503] * 5)
        it.put(event="private matter")
        for _ in range(6):
            it.steps()
            it.clock.advance(60.0)

    assert 2 == len(caplog.records)
    assert "HTTP 503" in caplog.text
    assert "private" not in caplog.text
    assert "phc_" not in caplog.text


# The end


def test_abandoned_events_are_counted(rig: Any) -> None:
    """What is given up, whether in a batch or not, is counted and handed to the hook."""
    it = rig(flush_at=1)
    it.transport.script(503)
    it.put(2)
    it.steps()
    it.put(3)

    assert 5 == it.sender.abandon("shutdown")
    assert {"accepted": 5, "shutdown": 5} == it.counts
    assert 5 == sum(len(events) for _, events in it.losses)
    assert 0 == it.sender.waiting


@pytest.mark.parametrize("dialect", [V0, V1, SEGMENT, LOGS], ids=lambda one: one.name)
def test_old_events_expire_in_every_dialect(dialect: Any, rig: Any) -> None:
    """What was logged longer than ``max_age`` ago is not sent."""
    it = rig(dialect, flush_at=1, max_age=60.0)
    it.put(2, timestamp="2020-01-02T03:04:05.678000Z")
    it.put(1, timestamp="2033-11-14T22:13:20.000000Z")
    it.steps()

    assert {"accepted": 3, "delivered": 1, "expired": 2} == it.counts


def test_evicted_events_are_the_oldest(rig: Any) -> None:
    """What gives way to newer events is in no batch yet, and the oldest of those."""
    it = rig(flush_at=1)
    it.transport.script(503)
    batch = it.put(2)
    it.steps()
    old, *young = it.put(3)

    assert 1 == it.sender.evict(1, "queue_full")
    assert [old] == [event["uuid"] for _, events in it.losses for event in events]
    it.sender.flush(1.0)
    assert [batch, young] == it.all_sent[-2:]


def test_reset_forgets(rig: Any) -> None:
    """A forked child begins without its parent's events and without its parent's back-off."""
    it = rig(flush_at=1)
    it.transport.script(503)
    it.put(2)
    it.steps()
    it.put(2)
    it.sender.reset()

    assert 0 == it.sender.waiting
    assert it.due_in is None
    it.ledger.reset()
    it.put(1)
    assert 1 == it.steps()


STATUSES = [200, 200, 202, 400, 401, 402, 404, 408, 413, 429, 500, 503, None]


class Outages(RuleBasedStateMachine):
    """Whatever the server answers: every event ends once, and none is sent after its 2xx."""

    dialect: Any = V0

    def __init__(self) -> None:
        super().__init__()
        from conftest import Clock, FakeTransport

        limits = {"flush_at": 3, "flush_interval": 1.0, "max_retries": 4}
        self.it = Rig(FakeTransport(), Clock(), self.dialect, **limits)
        self.it.transport.default = self.answer
        self.put_in: list[str] = []
        self.confirmed: Counter[str] = Counter()
        self.status: int | None = 200
        self.verdict = "ok"

    def answer(self, request: Request) -> Response:
        names = self.it.uuids(request)
        assert not self.confirmed.keys() & set(names)
        assert len(names) == len(set(names))
        if self.status is None or not 200 <= self.status < 300:
            return Response(self.status, error="Timeout" if self.status is None else "")
        if self.dialect is V0:
            self.confirmed.update(names)
            return Response(200)
        marked = names[::2] if self.verdict != "ok" else []
        self.confirmed.update(name for name in names if name not in marked)
        return verdicts(**{"ok": self.confirmed.keys() & set(names), self.verdict: marked})

    @rule(count=st.integers(1, 9))
    def put(self, count: int) -> None:
        self.put_in += self.it.put(count)

    @rule(status=st.sampled_from(STATUSES), verdict=st.sampled_from(["ok", "retry", "drop"]))
    def server(self, status: int | None, verdict: str) -> None:
        self.status, self.verdict = status, verdict

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.it.clock.advance(seconds)

    @rule()
    def step(self) -> None:
        self.it.steps(5)

    @rule()
    def flush(self) -> None:
        assert self.it.sender.flush(1.0) == (self.it.sender.waiting == 0)

    @rule(count=st.integers(1, 3))
    def evict(self, count: int) -> None:
        self.it.sender.evict(count, "queue_full")

    @invariant()
    def adds_up(self) -> None:
        counts = self.it.ledger.counts
        lost = [event["uuid"] for _, events in self.it.losses for event in events]
        assert len(self.put_in) == counts["accepted"]
        assert len(self.confirmed) == counts["delivered"]
        assert len(lost) == sum(n for reason, n in counts.items() if reason not in NOT_LOSSES)
        assert self.it.sender.waiting == counts["waiting"]
        assert not set(lost) & self.confirmed.keys()
        assert len(set(lost)) == len(lost)

    def teardown(self) -> None:
        self.status, self.verdict = 200, "ok"
        assert self.it.sender.flush(1.0)
        assert 0 == self.it.ledger.counts["waiting"]


class OutagesV1(Outages):
    """The same with a verdict for each event."""

    dialect = V1


TestOutages = Outages.TestCase
TestOutagesV1 = OutagesV1.TestCase
