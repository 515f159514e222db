"""The queue in a broker: one suite for every engine, and what each has of its own."""

from __future__ import annotations

import gzip
import importlib
import json
import logging
import logging.config
import os
import subprocess
import sys
import threading
import time
import uuid

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import HERE
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import KafkaMock, RabbitMQ, Redis, running

from posthog_logging import PostHogHandler
from posthog_logging.broker.address import FORMS, SCHEMES, Address, address
from posthog_logging.broker.dialect import NEUTRAL
from posthog_logging.broker.engine import BrokerError, Intake, engine_for
from posthog_logging.broker.envelope import (
    MOST_BYTES,
    MOST_LINES,
    SCHEMA,
    Delivery,
    Envelope,
    envelopes,
    uuid_of,
)
from posthog_logging.broker.reader import BadMessage, Reader
from posthog_logging.broker.spool import BrokerSpool
from posthog_logging.broker.transport import BrokerTransport, broker_transport
from posthog_logging.delivery.ledger import Ledger
from posthog_logging.delivery.transport import MemoryTransport, use
from posthog_logging.events import jsonable
from posthog_logging.events.message import Message
from posthog_logging.wire import DIALECTS, find_dialect
from posthog_logging.wire.compression import decompress


SECRET = "s3cret%2Fword"
MOMENT = "2024-01-02T03:04:05.678000Z"


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    """A RabbitMQ for all tests of this file."""
    with running(RabbitMQ) as server:
        yield server


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    """A Redis for all tests of this file."""
    with running(Redis) as server:
        yield server


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaMock]:
    """A mock cluster for all tests of this file."""
    with running(KafkaMock) as server:
        yield server


# The URL of each broker that is held to the contract; a new one needs one line here, and a fixture
# if it has a server. Whoever is not in this process is tried with forks and exits, too.
BROKERS: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "memory": lambda request: "memory://tests",
    "redis": lambda request: str(request.getfixturevalue("redis").url),
    "rabbitmq": lambda request: str(request.getfixturevalue("rabbitmq").url),
    "kafka": lambda request: str(request.getfixturevalue("kafka").url),
}
# To join a group takes Kafka's mock seconds each time.
SLOW = {"kafka": pytest.mark.matrix}
ENGINES = [pytest.param(name, marks=SLOW.get(name, ())) for name in BROKERS]
OUTSIDE = [one for one in ENGINES if one.values != ("memory",)]


@pytest.fixture
def make_queue(request: pytest.FixtureRequest) -> Callable[[str], Address]:
    """A maker of addresses of a queue that nobody else has, in the broker of a name."""

    def make(engine: str) -> Address:
        return address(BROKERS[engine](request), f"q{uuid.uuid4().hex[:12]}")

    return make


@pytest.fixture
def consumers() -> Iterator[Callable[..., Any]]:
    """A maker of consumers, which are closed in the end."""
    made = []

    def make(where: Address, **intake: Any) -> Any:
        consumer = engine_for(where).consumer(where, Intake(**{"patience": 1.0, **intake}))
        made.append(consumer)
        return consumer

    yield make
    for consumer in made:
        consumer.close()


@pytest.fixture
def publishers() -> Iterator[Callable[..., Any]]:
    """A maker of publishers, which are closed in the end."""
    made = []

    def make(where: Address, timeout: float = 10.0) -> Any:
        publisher = engine_for(where).publisher(where, timeout)
        made.append(publisher)
        return publisher

    yield make
    for publisher in made:
        publisher.close()


def neutral(number: int, person: str = "user-1", **properties: Any) -> bytes:
    """Return a line of the library's own, its uuid made of *number*."""
    name = str(uuid.UUID(int=number, version=4))
    return NEUTRAL.line(Message("movie played", person, properties, name, MOMENT))


def envelope(*lines: bytes, coding: str | None = "gzip") -> Envelope:
    """Return a message of *lines*."""
    return Envelope(lines, str(uuid.uuid4()), coding)


def lines_in(delivery: Delivery) -> list[bytes]:
    """Return the lines of a message that came."""
    return decompress(delivery.body, delivery.coding).split(b"\n")


def examine(where: Address, timeout: float) -> Iterator[Any]:
    """Yield what the engine of *where* finds."""
    return engine_for(where).examine(where, timeout)


def fetch(consumer: Any, lines: int = 1, within: float = 30.0) -> list[Delivery]:
    """Return messages that have as many *lines* together."""
    found: list[Delivery] = []
    deadline = time.monotonic() + within
    while sum(len(lines_in(one)) for one in found) < lines:
        assert time.monotonic() < deadline, f"{len(found)} messages within {within:.0f} s"
        found += consumer.fetch(32, 0.2)
    return found


# Addresses


ADDRESSES = {
    "amqp": ("amqp://u:p@h:5672/v", "amqp://h:5672/v?queue=analytics"),
    "default vhost": ("amqp://h/", "amqp://h?queue=analytics"),
    "queue": ("amqps://u:p@h/v?queue=q", "amqps://h/v?queue=q"),
    "settings": ("amqp://h/v?heartbeat=5&queue=q", "amqp://h/v?queue=q"),
    "redis": ("redis://:p@h:6379/1", "redis://h:6379/1?queue=analytics"),
    "kafka": ("kafka://u:p@a:9092,b:9092/topic", "kafka://a:9092,b:9092?queue=topic"),
    "IPv6": ("amqp://u@[::1]:5672/v", "amqp://[::1]:5672/v?queue=analytics"),
}


@pytest.mark.parametrize(("url", "public"), ADDRESSES.values(), ids=ADDRESSES)
def test_addresses_are_read(url: str, public: str) -> None:
    """What is shown of an address is the broker and the queue, and nothing else."""
    found = address(url)

    assert public == found.public
    assert "p@" not in f"{found!r}{found.public}{found.dead}"


BAD_ADDRESSES = {
    "scheme": f"http://u:{SECRET}@h/",
    "no scheme": f"u:{SECRET}@h",
    "no host": "amqp://",
    "port": f"amqp://u:{SECRET}@h:port/",
    "slash in the password": "amqp://u:s3cret/word@h/",
    "hash in the password": "amqp://u:s3cret#word@h/",
    "question mark in the password": "redis://u:s3cret?word@h/",
    "digits before a slash": "amqp://u:1234/s3cret@h/",
    "blank": f"amqp://u:{SECRET}@h /",
    "control character": f"amqp://u:{SECRET}@h\n/",
    "queue": f"amqp://u:{SECRET}@h/?queue={'q' * 300}",
}


@pytest.mark.parametrize("url", BAD_ADDRESSES.values(), ids=BAD_ADDRESSES)
def test_bad_addresses_are_refused_without_their_secrets(url: str) -> None:
    """A URL that is none raises a ``ValueError`` that names the parameter and quotes nothing."""
    with pytest.raises(ValueError, match="broker: ") as caught:
        PostHogHandler(broker=url)

    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("scheme", sorted({*SCHEMES} - {"amqps", "rediss", "memory"}))
def test_every_scheme_is_documented(scheme: str) -> None:
    """A broker that can be used is in the messages, the helps and the guides."""
    guides = Path(HERE, "posthog_logging", "docs")
    options, hosts = (
        (guides / f"{one}.md").read_text("utf-8") for one in ("options", "many-hosts")
    )
    places = {
        "FORMS in broker/address.py": FORMS,
        "broker: in the docstring of PostHogHandler": PostHogHandler.__doc__ or "",
        "the guide options (python -m tests.reference writes it)": options,
        "the guide many-hosts": hosts,
    }
    missing = [place for place, text in places.items() if f"{scheme}://" not in text]

    assert [] == missing, f"name {scheme}:// in these"


def test_a_password_may_come_from_elsewhere() -> None:
    """A password from a file takes the place of one in the URL, whatever characters it has."""
    found = address("amqp://user:old@h:1/v").with_password("a/b#c?d@e:f")

    assert ("user", "a/b#c?d@e:f") == found.credentials()
    assert "amqp://h:1/v?queue=analytics" == found.public


@pytest.mark.parametrize("value", [7, b"amqp://h", ["amqp://h"]])
def test_a_broker_is_a_url(value: Any) -> None:
    """Anything but a string raises with the parameter's name."""
    with pytest.raises(TypeError, match="broker"):
        PostHogHandler(broker=value)


# Messages


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=9),
    st.sampled_from([1, 9, 300]),
)
def test_messages_are_not_too_large(sizes: list[int], times: int) -> None:
    """Lines keep their order, and each message has at most 500 lines and 900 KiB."""
    large = [neutral(number, x="x" * size * times) for number, size in enumerate(sizes)]
    lines = [*large, *MANY, *large]
    made = list(envelopes(lines, str(uuid.UUID(int=1)), "gzip"))

    assert lines == [line for one in made for line in one.lines]
    assert all(
        len(one.lines) <= MOST_LINES
        and (sum(map(len, one.lines)) + len(one.lines) <= MOST_BYTES or len(one.lines) == 1)
        for one in made
    )
    assert len(made) == len({one.message_id for one in made})


MANY = [neutral(number) for number in range(1000, 2100)]


def test_a_message_keeps_its_id() -> None:
    """The messages of a batch have the same ids on every attempt, also when fewer are left."""
    lines = [neutral(number) for number in range(3 * MOST_LINES)]
    ids = [one.message_id for one in envelopes(lines, "request", None)]

    assert ids == [one.message_id for one in envelopes(lines, "request", None)]
    assert ids[1:] == [one.message_id for one in envelopes(lines[MOST_LINES:], "request", None)]
    assert ids[0] != next(envelopes(lines, "another", None)).message_id


TEXT = st.text("aé\"\\ ☃$:{}'", min_size=1, max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
NAMES = TEXT | st.sampled_from(
    "$set $groups $session_id $process_person_profile $context $integrations $options".split()
)
MESSAGES = st.builds(
    Message,
    TEXT.filter(str.strip),
    TEXT.filter(str.strip),
    st.dictionaries(NAMES, VALUES, max_size=4),
    st.uuids(version=4).map(str),
    st.just(MOMENT),
)


@given(MESSAGES)
def test_a_neutral_line_says_all_of_its_message(message: Message) -> None:
    """What the producer writes is what the relay reads; the uuid stands where it is looked for."""
    line = NEUTRAL.line(message)

    assert message == Message(**jsonable.decode(line))
    assert message.uuid == NEUTRAL.uuid_of(line)


@pytest.mark.parametrize("name", sorted(set(DIALECTS) - {"posthog-logs"}))
@settings(max_examples=40)
@given(messages=st.lists(MESSAGES, min_size=1, max_size=3))
def test_lines_are_translated(name: str, messages: list[Message]) -> None:
    """The line of each dialect is that which a handler of that dialect would have made."""
    dialect = find_dialect(name)
    body = b"\n".join(map(NEUTRAL.line, messages))
    found = Reader(dialect).read(Delivery(1, body))

    assert [dialect.line(message) for message in messages] == [one.line for one in found]


def test_the_producers_library_is_kept() -> None:
    """Segment's context names the library of the program that logged, not the relay's."""
    delivery = Delivery(1, neutral(1), headers={"lib": "posthog-logging", "lib_version": "9.9"})
    (found,) = Reader(find_dialect("segment")).read(delivery)

    assert found.line is not None
    assert b'"9.9"' in found.line


def test_another_language_needs_nothing_special() -> None:
    """A bare JSON object is an event; what it does not say is the same on every delivery."""
    body = b'{"event":"paid","distinct_id":"u1","properties":{"amount":7},"plan":"pro"}'
    delivery = Delivery(1, body, "message-1", published=1_704_164_645.5)
    first, second = (Reader(NEUTRAL).read(delivery) for _ in range(2))
    event = jsonable.decode(first[0].line or b"")

    assert first == second
    assert ("paid", "u1") == (event["event"], event["distinct_id"])
    assert "2024-01-02T03:04:05.500000Z" == event["timestamp"]
    assert {"amount": 7, "plan": "pro"} == event["properties"]
    assert str(uuid.UUID(event["uuid"])) == event["uuid"]


@pytest.mark.parametrize("coding", ["utf-8", "UTF8", "us-ascii", "binary", " UTF-8 ", "identity"])
def test_the_name_of_a_charset_is_no_compression(coding: str) -> None:
    """AMQP clients write the charset of a text as its ``content_encoding``; it is read plainly."""
    (found,) = Reader(NEUTRAL).read(Delivery(1, b'{"event":"paid"}', "m", coding=coding))

    assert b'"paid"' in (found.line or b"")


def test_events_of_nobody_are_personless() -> None:
    """Without a distinct_id no person is made, and the random id is the same each time."""
    delivery = Delivery(1, b'{"event":"ping"}', "m", published=1.0)
    found = [Reader(NEUTRAL).read(delivery) for _ in range(2)]
    event = jsonable.decode(found[0][0].line or b"")

    assert event["uuid"] == event["distinct_id"]
    assert event["properties"]["$process_person_profile"] is False
    assert found[0] == found[1]


UNREADABLE = {
    "no JSON": (Delivery(1, b"hello"), "no_event"),
    "pickle": (Delivery(1, b"\x80\x04\x95\x0e\n\x00\x00."), "no_event"),
    "list": (Delivery(1, b'[{"event":"x"}]'), "no_event"),
    "empty": (Delivery(1, b""), "no_event"),
    "another schema": (Delivery(1, neutral(1), headers={"schema": "x/2"}), "unknown_schema"),
    "no gzip": (Delivery(1, neutral(1), coding="gzip"), "unreadable"),
    "cut gzip": (Delivery(1, envelope(neutral(1)).packed()[0][:-9], coding="gzip"), "unreadable"),
    "unknown coding": (Delivery(1, neutral(1), coding="lzma"), "unreadable"),
    "too many lines": (Delivery(1, b"{}\n" * 60_000), "unreadable"),
    "millions of lines": (
        Delivery(1, gzip.compress(b"{}\n" * 5_000_000), coding="gzip"),
        "unreadable",
    ),
    "millions of values": (
        Delivery(1, gzip.compress(b'{"event":[' + b"[]," * 6_000_000), coding="gzip"),
        "unreadable",
    ),
}


@pytest.mark.parametrize(("delivery", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_message_of_ours_says_why(delivery: Delivery, reason: str) -> None:
    """A body that nobody can read is refused as a whole, with a reason, before it fills memory."""
    began = time.monotonic()
    with pytest.raises(BadMessage) as caught:
        Reader(NEUTRAL).read(delivery)

    assert 5.0 > time.monotonic() - began
    assert reason == caught.value.reason


def test_a_missing_codec_is_no_fault_of_the_message(run_script: Any) -> None:
    """A relay without a codec's package holds the messages: none becomes a dead letter."""
    program = """
import sys
sys.modules["zstandard"] = sys.modules["compression.zstd"] = None
from posthog_logging.broker.dialect import NEUTRAL
from posthog_logging.broker.engine import BrokerError
from posthog_logging.broker.envelope import Delivery
from posthog_logging.broker.reader import Reader
try:
    Reader(NEUTRAL).read(Delivery(1, b"x", coding="zstd"))
except BrokerError as error:
    print(error)
"""
    done = run_script(program)

    assert (0, "") == (done.returncode, done.stderr)
    assert "'zstd'" in done.stdout


def test_a_bad_line_is_refused_alone() -> None:
    """Lines that are no events are named; those beside them are read."""
    nameless, identity, name = b'{"properties":{}}', b'{"event":"$identify"}', b'{"event":[]}'
    rows = [neutral(1), b"{", nameless, identity, neutral(2), name]
    found = Reader(NEUTRAL).read(Delivery(1, b"\n".join(rows)))

    refused = ["", "no_event", "no_event_name", "no_distinct_id", "", "bad_event_name"]
    assert refused == [one.refused for one in found]
    assert [rows[0], rows[4]] == [one.line for one in found if one.line]


@pytest.mark.parametrize(
    "more", ['"properties":5', '"properties":"a"', '"event":5', '"event":[]', '"uuid":{}']
)
def test_names_that_are_repeated(more: str) -> None:
    """A line that begins like one of ours and gives a field again is not sent as it is."""
    row = neutral(1)[:-1] + f",{more}}}".encode()
    found = Reader(NEUTRAL).read(Delivery(1, b"\n".join([row, neutral(2)])))

    assert row != found[0].line
    assert "internal_error" not in found[0].refused
    assert neutral(2) == found[1].line


def test_lines_that_are_whole_only_together_are_none() -> None:
    """A parse of all lines at once lets nothing through that a parse of each would not."""
    tail = b'"event":"e","distinct_id":"d","timestamp":"2024-01-01T00:00:00Z","properties":{'
    head = b'{"uuid":"%b",'
    one, two, three = (str(uuid.UUID(int=n, version=4)).encode() for n in (1, 2, 3))
    rows = [
        head % one + tail + b"}}," + head % three + tail + b'"a":[1',
        head % two + tail + b"}}]}}",
    ]
    with pytest.raises(BadMessage):
        Reader(NEUTRAL).read(Delivery(1, b"\n".join(rows)))


# Every engine


@pytest.mark.parametrize("engine", ENGINES)
class TestEngine:
    """What every engine does, whatever it is made of."""

    def test_what_is_published_comes(
        self, engine: str, make_queue: Any, consumers: Any, publishers: Any
    ) -> None:
        """Lines, id, coding and headers arrive as they were sent, in order for one person."""
        where = make_queue(engine)
        consumer, publisher = consumers(where), publishers(where)
        consumer.fetch(1, 0.05)
        sent = [envelope(neutral(1), neutral(2)), envelope(neutral(3), coding=None)]

        assert [None, None] == publisher.publish(sent, 10.0)
        found = fetch(consumer, 3)
        assert [line for one in sent for line in one.lines] == [
            line for one in found for line in lines_in(one)
        ]
        assert all(SCHEMA == one.headers["schema"] and not one.before for one in found)
        assert all("posthog-logging" == one.headers["lib"] and one.message_id for one in found)
        assert consumer.held

    def test_what_is_not_acknowledged_comes_again(
        self, engine: str, make_queue: Any, consumers: Any, publishers: Any
    ) -> None:
        """When its consumer closes, a message is another's; an acknowledged one is nobody's."""
        where = make_queue(engine)
        first = consumers(where)
        first.fetch(1, 0.05)
        publishers(where).publish([envelope(neutral(1)), envelope(b'{"event":"raw"}')], 10.0)
        found = sorted(fetch(first, 2), key=lambda one: lines_in(one)[0] != neutral(1))
        revision = first.revision
        first.ack([found[0].token])
        first.ack([found[0].token])  # what is not held any more is left out
        assert first.holds(found[1].token)
        assert not first.holds(found[0].token)
        first.close()

        assert not first.holds(found[1].token)
        assert first.revision > revision
        (again,) = fetch(consumers(where))
        assert [b'{"event":"raw"}'] == lines_in(again)
        assert again.before or engine == "kafka", "a message that came before says how often"

    def test_a_fetch_of_none_takes_none(
        self, engine: str, make_queue: Any, consumers: Any, publishers: Any
    ) -> None:
        """Where there is no room, or after `pause`, the queue keeps what is in it."""
        where = make_queue(engine)
        consumer = consumers(where)
        consumer.fetch(0, 0.05)
        publishers(where).publish([envelope(neutral(1))], 10.0)

        assert [] == consumer.fetch(0, 0.2)
        consumer.pause()
        assert [] == consumer.fetch(0, 0.05)
        assert 1 == len(fetch(consumer))

    def test_the_dead_are_kept_apart(
        self, engine: str, make_queue: Any, consumers: Any, publishers: Any
    ) -> None:
        """A dead letter is in a queue of its own, with its reason, when the call returns."""
        where = make_queue(engine)
        consumer = consumers(where)
        consumer.fetch(1, 0.05)
        consumer.dead(Envelope([neutral(1)], "m", None, {"dlq_reason": "rejected"}), 10.0)

        (letter,) = fetch(consumers(address(where.url, where.dead)))
        assert [neutral(1)] == lines_in(letter)
        assert "rejected" == letter.headers["dlq_reason"]

    def test_a_consumer_that_stops_takes_no_more(
        self, engine: str, make_queue: Any, consumers: Any, publishers: Any
    ) -> None:
        """After `stop` nothing comes, and what came before can be acknowledged."""
        where = make_queue(engine)
        consumer, publisher = consumers(where), publishers(where)
        consumer.fetch(1, 0.05)
        publisher.publish([envelope(neutral(1))], 10.0)
        (found,) = fetch(consumer)
        consumer.stop()
        publisher.publish([envelope(neutral(2))], 10.0)

        assert [] == consumer.fetch(10, 0.2)
        consumer.ack([found.token])
        consumer.close()
        (other,) = fetch(consumers(where))
        assert [neutral(2)] == lines_in(other)

    def test_no_more_than_the_prefetch_is_held(
        self, engine: str, make_queue: Any, consumers: Any, publishers: Any
    ) -> None:
        """What is not acknowledged bounds what comes."""
        if engine == "kafka":
            return  # there 500 events count as one message
        where = make_queue(engine)
        consumer = consumers(where, prefetch=3)
        consumer.fetch(1, 0.05)
        publishers(where).publish([envelope(neutral(n)) for n in range(5)], 10.0)
        found = fetch(consumer, 3)

        assert [] == consumer.fetch(10, 0.2)
        consumer.ack([one.token for one in found])
        assert 2 == len(fetch(consumer, 2))

    def test_doctor_finds_nothing_wrong(
        self, engine: str, make_queue: Any, consumers: Any
    ) -> None:
        """With a queue that a relay has made, nothing is wrong."""
        where = make_queue(engine)
        consumers(where).fetch(1, 0.05)
        findings = list(examine(where, 5.0))

        assert [] == [one for one in findings if one.verdict == "WRONG"]
        assert where.server in findings[0].found

    def test_doctor_says_what_to_do(self, engine: str, make_queue: Any) -> None:
        """Before a relay has made the queue, that is a note; each finding has a remedy."""
        findings = list(examine(make_queue(engine), 5.0))
        wanting = [one for one in findings if one.verdict != "ok"]

        assert all(one.remedy for one in wanting)
        assert engine == "memory" or any("is missing" in one.found for one in wanting)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://127.0.0.1:9/?heartbeat=s3cret",
        "amqp://127.0.0.1:9/?ssl_options=s3cret",
        "redis://127.0.0.1:9/?socket_timeout=s3cret",
        "redis://127.0.0.1:9/?s3cret=1",
        "kafka://127.0.0.1:9/?s3cret=1",
        "kafka://127.0.0.1:9/?security.protocol=s3cret",
    ],
)
def test_wrong_settings_are_not_quoted(url: str) -> None:
    """A setting that a client library refuses is a finding and an error, and neither shows it."""
    pytest.importorskip(
        {"amqp": "pika", "kafka": "confluent_kafka"}.get(url[: url.index(":")], "redis")
    )
    where = address(url)
    engine = engine_for(where)
    (finding,) = engine.examine(where, 1.0)
    with pytest.raises(BrokerError) as consuming:
        engine.consumer(where, Intake()).fetch(1, 0.05)
    with pytest.raises(BrokerError) as publishing:
        engine.publisher(where, 1.0).publish([envelope(neutral(1))], 1.0)

    shown = f"{finding} {consuming.value} {publishing.value}"
    assert 3 == shown.count("a setting in the broker's URL is unknown or has a wrong value")
    assert "s3cret" not in shown


def test_doctor_says_what_an_absent_broker_is() -> None:
    """Where nobody listens, each engine says so, without a password."""
    for package in ("pika", "redis", "confluent_kafka"):
        pytest.importorskip(package)
    for url in ("amqp://u:pw@127.0.0.1:9/", "redis://u:pw@127.0.0.1:9/", "kafka://127.0.0.1:9/q"):
        where = address(url)
        findings = list(examine(where, 1.0))

        assert ["WRONG"] == [one.verdict for one in findings]
        assert "reached" in findings[0].found or "in time" in findings[0].found
        assert "pw" not in findings[0].found
        assert "check that the broker runs" in findings[0].remedy


# The producer


def body_of(where: Address, consumers: Any, lines: int) -> list[bytes]:
    """Return the lines that are in a queue."""
    return [line for one in fetch(consumers(where), lines) for line in lines_in(one)]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_handler_needs_no_key(
    engine: str, make_queue: Any, consumers: Any, make_log: Any
) -> None:
    """With a broker what is logged is in the queue, neutral; no key or host is known here."""
    where = make_queue(engine)
    consumer = consumers(where)
    consumer.fetch(1, 0.05)
    handler = PostHogHandler(broker=_url(where))
    log = make_log(handler)
    log.info("movie played", extra={"distinct_id": "u1", "properties": {"movie_id": 7}})
    log.info("signed up", extra={"distinct_id": "u1", "set": {"plan": "pro"}, "where": "shop"})
    flushed = handler.flush(10.0)
    handler.close()

    assert flushed
    assert 2 == handler.counts["delivered"] == handler.counts["accepted"]
    events = [jsonable.decode(line) for one in fetch(consumer, 2) for line in lines_in(one)]
    assert ["movie played", "signed up"] == [one["event"] for one in events]
    assert {"$is_server": True, "$geoip_disable": True, "movie_id": 7} == events[0]["properties"]
    assert {"plan": "pro"} == events[1]["properties"]["$set"]


def _url(where: Address) -> str:
    return f"{where.url}?queue={where.queue}"


def test_credentials_are_shown_nowhere(
    rabbitmq: RabbitMQ, caplog: pytest.LogCaptureFixture, make_log: Any, tmp_path: Path
) -> None:
    """A wrong password is one warning, without it; what was logged waits, and none is lost."""
    url = rabbitmq.url.replace("guest:guest", "guest:pa55word")
    errors: list[Any] = []
    with caplog.at_level(logging.DEBUG):
        handler = PostHogHandler(
            broker=url, spool=tmp_path, shutdown_timeout=0.5, on_error=lambda *a: errors.append(a)
        )
        log = make_log(handler)
        log.info("x", extra={"distinct_id": "u"})
        done = handler.flush(5.0), handler.flush(5.0)
        shown = f"{handler!r} {handler.describe()} {handler.counts} {vars(handler)}"
        handler.close()
    journal = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING]

    assert (False, False) == done
    assert {"accepted": 1, "waiting": 1} == {
        name: n for name, n in handler.counts.items() if n and name in ("accepted", "waiting")
    }
    assert [] == errors
    assert "pa55word" not in shown + caplog.text
    assert b"pa55word" not in journal
    assert b"guest" not in journal
    assert 1 == len(warnings)
    assert "refused the user or the password" in warnings[0].getMessage()


TROUBLES: dict[str, tuple[Callable[[str], str], str]] = {
    "vhost": (lambda url: f"{url}nowhere", "no such vhost"),
    "nobody there": (lambda url: "amqp://127.0.0.1:9/", "cannot be reached"),
    "no queue": (lambda url: f"{url}?queue=nobody-made-it", "no such queue"),
}


@pytest.mark.parametrize(("change", "text"), TROUBLES.values(), ids=TROUBLES)
def test_troubles_are_named(
    change: Any,
    text: str,
    rabbitmq: RabbitMQ,
    caplog: pytest.LogCaptureFixture,
    make_log: Any,
) -> None:
    """What keeps events from the broker is one warning in plain words; the events wait."""
    handler = PostHogHandler(broker=change(rabbitmq.url), shutdown_timeout=0.2)
    make_log(handler).info("x", extra={"distinct_id": "u"})

    assert not handler.flush(5.0)
    assert 1 == handler.counts["waiting"]
    handler.close()
    warnings = [one.getMessage() for one in caplog.records if "cannot deliver" in one.getMessage()]
    assert 1 == len(warnings)
    assert text in warnings[0]


def test_events_wait_for_the_queue(make_queue: Any, consumers: Any, make_log: Any) -> None:
    """A producer that is first keeps its events until a relay has made the queue."""
    where = make_queue("rabbitmq")
    handler = PostHogHandler(broker=_url(where))
    log = make_log(handler)
    log.info("x", extra={"distinct_id": "u"})
    early = handler.flush(5.0)
    consumer = consumers(where)
    found = consumer.fetch(1, 0.1)  # a retry of the handler's own may be quick

    assert not early
    assert handler.flush(5.0)
    assert 1 == len(found or fetch(consumer))
    handler.close()


def test_a_broker_comes_from_configuration_and_environment(
    monkeypatch: pytest.MonkeyPatch, make_queue: Any, consumers: Any
) -> None:
    """dictConfig and ``POSTHOG_BROKER`` name a broker; a host that is given comes first."""
    where = make_queue("memory")
    handler = {"class": "posthog_logging.PostHogHandler", "broker": _url(where)}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {"events": handler},
            "loggers": {"tests.broker": {"handlers": ["events"], "level": "INFO"}},
        }
    )
    logging.getLogger("tests.broker").info("x", extra={"distinct_id": "u"})
    made = logging.getLogger("tests.broker").handlers[0]
    assert isinstance(made, PostHogHandler)
    assert made.flush(5.0)
    assert 1 == len(body_of(where, consumers, 1))
    made.close()
    logging.getLogger("tests.broker").handlers.clear()

    monkeypatch.setenv("POSTHOG_BROKER", _url(where))
    by_environment = PostHogHandler()
    assert where.public == by_environment.describe().host
    given = PostHogHandler("phc_x", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9" == given.describe().host
    by_environment.close()
    given.close()


def test_a_missing_package_is_named() -> None:
    """Without the client library the constructor names what to install."""
    program = """
import sys
sys.modules.update(dict.fromkeys(["pika", "redis", "confluent_kafka"]))
from posthog_logging import PostHogHandler
for scheme in ("amqp", "redis", "kafka"):
    try:
        PostHogHandler(broker=f"{scheme}://u:pa55word@h/")
    except ValueError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": HERE},
        timeout=30,
        check=True,
    )

    assert [f"'posthog_logging[{name}]'" for name in ("rabbitmq", "redis", "kafka")] == [
        line.split()[-1] for line in done.stdout.splitlines()
    ]
    assert "pa55word" not in done.stdout + done.stderr


def test_under_test_nothing_leaves_the_machine(make_log: Any) -> None:
    """What takes the requests of tests takes a broker's messages, too."""
    pytest.importorskip("pika")
    stand_in = MemoryTransport()
    with use(stand_in):
        handler = PostHogHandler(broker="amqp://u:p@broker.example/")
        log = make_log(handler)
        log.info("x", extra={"distinct_id": "u"})
        flushed = handler.flush(5.0)
        handler.close()

    assert flushed
    (request,) = stand_in.requests
    assert ["x"] == [one.event for one in NEUTRAL.decode(request)]


def test_what_was_not_confirmed_is_sent_again(make_queue: Any, make_log: Any) -> None:
    """Of a batch of several messages only those without a confirm wait for the next attempt."""

    class Forgetful:
        """Confirms the first message of each attempt."""

        published: list[list[str]] = []  # noqa: RUF012 - one for all of it

        def publish(self, envelopes: Any, timeout: float) -> list[Any]:
            self.published.append([one.message_id for one in envelopes])
            return [None, *(BrokerError("no") for _ in envelopes[1:])]

        def close(self) -> None:
            """Do nothing."""

    transport = BrokerTransport(make_queue("memory"))
    transport._publisher, transport._pid = Forgetful(), os.getpid()
    handler = PostHogHandler(transport=transport, dialect=NEUTRAL, api_key="x", host="http://x")
    log = make_log(handler)
    for number in range(3 * MOST_LINES):
        log.info("x", extra={"distinct_id": "u", "properties": {"n": number}})
    for _ in range(5):
        handler.flush(5.0)
    counts = handler.counts
    handler.close()

    assert 3 * MOST_LINES == counts["delivered"]
    by_attempt = [one for one in Forgetful.published if len(one) > 1]
    assert by_attempt
    assert all(
        later == earlier[1:]
        for earlier, later in zip(Forgetful.published, Forgetful.published[1:], strict=False)
        if len(earlier) > 1
    )


# Forks: a connection is of the process that made it


FORK = """
import logging, os, sys
from posthog_logging import PostHogHandler
handler = PostHogHandler(broker=sys.argv[1])
log = logging.getLogger("fork"); log.setLevel(logging.INFO); log.addHandler(handler)
log.info("parent before", extra={"distinct_id": "u"})
assert handler.flush(10)
children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        log.info(f"child {number}", extra={"distinct_id": "u"})
        sys.exit(0 if handler.flush(10) and handler.counts["delivered"] == 1 else 1)
    children.append(pid)
log.info("parent after", extra={"distinct_id": "u"})
assert handler.flush(10)
assert [0, 0, 0] == [os.waitpid(pid, 0)[1] for pid in children]
log.info("parent last", extra={"distinct_id": "u"})
"""


@pytest.mark.parametrize("engine", OUTSIDE)
def test_forks_have_connections_of_their_own(
    engine: str, make_queue: Any, consumers: Any, run_script: Any
) -> None:
    """After a first publish a parent and its forked children deliver what is theirs, once."""
    where = make_queue(engine)
    consumer = consumers(where)
    consumer.fetch(1, 0.05)
    done = run_script(FORK, _url(where))

    assert (0, "") == (done.returncode, done.stderr)
    events = [
        jsonable.decode(line)["event"] for one in fetch(consumer, 6) for line in lines_in(one)
    ]
    expected = ["child 0", "child 1", "child 2", "parent after", "parent before", "parent last"]
    assert expected == sorted(events)


EXIT = """
import logging, sys
from posthog_logging import PostHogHandler
log = logging.getLogger("exit"); log.setLevel(logging.INFO)
log.addHandler(PostHogHandler(broker=sys.argv[1]))
log.info("last words", extra={"distinct_id": "u"})
"""


@pytest.mark.parametrize("engine", OUTSIDE)
def test_an_exit_delivers(engine: str, make_queue: Any, consumers: Any, run_script: Any) -> None:
    """A short script needs no flush: a first connection can be made while it ends."""
    where = make_queue(engine)
    consumer = consumers(where)
    consumer.fetch(1, 0.05)
    done = run_script(EXIT, _url(where))

    assert (0, "") == (done.returncode, done.stderr)
    (found,) = fetch(consumer)
    assert "last words" == jsonable.decode(lines_in(found)[0])["event"]


# The relay's spool


class Endless:
    """A consumer that keeps what it is asked, over a memory queue."""

    def __init__(self, consumer: Any) -> None:
        self.calls: list[str] = []
        self._consumer = consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def ack(self, tokens: Any) -> None:
        self.calls.append(f"ack {len(tokens)}")
        self._consumer.ack(tokens)

    def dead(self, envelope: Envelope, timeout: float) -> None:
        self.calls.append(f"dead {envelope.more['dlq_reason']} {len(envelope.lines)}")
        self._consumer.dead(envelope, timeout)


@pytest.fixture
def spool(make_queue: Any, consumers: Any) -> Any:
    """A maker of a spool over messages of lines; the consumer says what was asked of it."""

    def make(*messages: list[bytes], **options: Any) -> tuple[BrokerSpool, Endless, Ledger]:
        where = make_queue("memory")
        publisher = engine_for(where).publisher(where, 1.0)
        publisher.publish([envelope(*lines) for lines in messages], 1.0)
        consumer, ledger = Endless(consumers(where)), Ledger()
        return BrokerSpool(consumer, Reader(NEUTRAL), ledger, **options), consumer, ledger

    return make


def test_a_message_is_acknowledged_with_its_last_line(spool: Any) -> None:
    """Lines of several messages travel together; each message waits for all of its own."""
    lines = [neutral(number) for number in range(5)]
    found, consumer, ledger = spool(lines[:3], lines[3:])
    assert found.fill(1.0)
    assert 5 == len(found) == ledger.counts["waiting"]
    first, second = found.take(4, 10_000), found.take(4, 10_000)

    assert lines == [one.line for one in (*first, *second)]
    found.ack(first[1:])
    assert [] == consumer.calls
    found.ack(second)
    assert ["ack 1"] == consumer.calls
    found.ack(first[:1])
    assert ["ack 1", "ack 1"] == consumer.calls
    assert 0 == len(found) == consumer.held


def test_lines_are_handed_out_within_count_and_size(spool: Any) -> None:
    """At most so many lines and bytes, but one at least; in order, none left out."""
    lines = [neutral(number, x="x" * number) for number in range(50)]
    found, _, _ = spool(lines[:20], lines[20:])
    found.fill(1.0)
    taken = []
    while len(found):
        part = found.take(7, 600)
        assert part
        assert len(part) <= 7
        assert sum(len(one.line) + 1 for one in part) <= 600 or len(part) == 1
        taken += part

    assert lines == [one.line for one in taken]


def test_rewound_lines_come_again(spool: Any) -> None:
    """What was handed out and not acknowledged comes first again, and nothing else."""
    lines = [neutral(number) for number in range(4)]
    found, _, _ = spool(lines[:2], lines[2:])
    found.fill(1.0)
    found.ack(found.take(3, 10_000)[1:2])
    found.rewind()

    assert [lines[0], *lines[2:]] == [one.line for one in found.take(9, 10_000)]


def test_what_the_broker_took_back_is_returned(spool: Any) -> None:
    """After a lost connection nothing waits here, the ledger adds up, and all comes again."""
    found, consumer, ledger = spool([neutral(1), neutral(2)], [neutral(3)])
    found.fill(1.0)
    kept = found.take(2, 10_000)
    consumer.close()
    found.rewind()

    assert 0 == len(found)
    assert {"accepted": 3, "waiting": 0, "returned": 3} == {
        name: ledger.counts[name] for name in ("accepted", "waiting", "returned")
    }
    found.ack(kept)  # of a generation that is gone
    assert found.fill(1.0)
    assert 3 == len(found)
    assert 2 == found.redelivered


def test_the_lost_are_with_the_dead_before_the_ack(spool: Any) -> None:
    """A dead letter has the neutral lines, the reason and the status, and comes first."""
    found, consumer, _ = spool([neutral(1), neutral(2)])
    found.fill(1.0)
    kept = found.take(2, 10_000)
    found.lost(kept[:1], "rejected", 400)
    found.ack(kept)

    assert ["dead rejected 1", "ack 1"] == consumer.calls
    assert 1 == found.dead_letters


def test_unreadable_messages_are_with_the_dead(spool: Any) -> None:
    """A message that nobody can read is a dead letter as it came, counted, acknowledged."""
    found, consumer, ledger = spool([b"hello"], [neutral(1), b"{"], [b'{"event":""}'])
    found.fill(1.0)

    assert 1 == len(found)
    assert ["dead no_event 0", "ack 1", "dead no_event 1", "dead no_event_name 1", "ack 1"] == (
        consumer.calls
    )
    counts = ledger.counts
    assert (4, 1, 2, 1) == tuple(
        counts[name] for name in ("accepted", "waiting", "no_event", "no_event_name")
    )


def test_dead_letters_fit_into_messages(make_queue: Any, consumers: Any) -> None:
    """What one message unpacked to may be too large for one: it becomes several dead letters."""
    where = make_queue("memory")
    rows = [neutral(1), *[b'{"event":"","pad":"%b"}' % (b"x" * 10_000)] * 600]
    body = gzip.compress(b"\n".join(rows))
    message = Envelope((), "m", "gzip", raw=body)
    engine_for(where).publisher(where, 1.0).publish([message], 1.0)
    ledger = Ledger()
    found = BrokerSpool(consumers(where), Reader(NEUTRAL), ledger)
    found.fill(1.0)

    letters = fetch(consumers(address(where.url, where.dead)), 600)
    assert rows[1:] == [line for one in letters for line in lines_in(one)]
    assert MOST_BYTES >= max(len(one.body) for one in letters)
    assert {"m"} == {one.message_id for one in letters}
    assert (1, 600, 600) == (len(found), found.dead_letters, ledger.counts["no_event_name"])


class Picky(Endless):
    """A consumer whose broker takes no dead letter: each is too large, or it is out of reach."""

    def __init__(self, consumer: Any, final: bool) -> None:
        super().__init__(consumer)
        self._final = final

    def dead(self, envelope: Envelope, timeout: float) -> None:
        raise BrokerError("the broker takes no message as large as that", final=self._final)


def test_a_dead_letter_that_is_too_large_holds_nothing_up(
    make_queue: Any, consumers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its events are counted as lost and logged; the message is acknowledged, and others go on."""
    where = make_queue("memory")
    sent = [envelope(b"hello"), envelope(neutral(1), b"{")]
    engine_for(where).publisher(where, 1.0).publish(sent, 1.0)
    ledger = Ledger()
    found = BrokerSpool(Picky(consumers(where), final=True), Reader(NEUTRAL), ledger)
    found.fill(1.0)

    assert (1, 0, 2) == (len(found), found.dead_letters, ledger.counts["no_event"])
    assert "a dead letter could not be kept: the broker takes no message as large" in caplog.text
    found.ack(found.take(1, 10_000))
    assert 0 == found._consumer.held


def test_a_dead_letter_waits_for_its_broker(make_queue: Any, consumers: Any) -> None:
    """Where the broker is out of reach a message is not given up for its dead letter's sake."""
    where = make_queue("memory")
    engine_for(where).publisher(where, 1.0).publish([envelope(b"hello")], 1.0)
    ledger = Ledger()
    found = BrokerSpool(Picky(consumers(where), final=False), Reader(NEUTRAL), ledger)
    with pytest.raises(BrokerError):
        found.fill(1.0)

    assert 0 == ledger.counts["accepted"]
    assert "no_event" not in ledger.counts


def test_what_came_ten_times_goes_alone(make_queue: Any, consumers: Any) -> None:
    """A message that may be what ends relays shares no batch with another."""
    where = make_queue("memory")
    engine_for(where).publisher(where, 1.0).publish([envelope(neutral(1), neutral(2))], 1.0)
    for _ in range(10):
        consumer = consumers(where)
        assert consumer.fetch(1, 1.0)
        consumer.close()
    engine_for(where).publisher(where, 1.0).publish([envelope(neutral(3))], 1.0)
    found = BrokerSpool(consumers(where), Reader(NEUTRAL), Ledger())
    found.fill(1.0)

    assert [2, 1] == [len(found.take(100, 100_000)) for _ in range(2)]


# RabbitMQ


def test_a_killed_relay_costs_no_delivery(
    rabbitmq: RabbitMQ, make_queue: Any, consumers: Any, publishers: Any
) -> None:
    """Where a queue gives up after few deliveries, what came twice is put into it anew."""
    where = make_queue("rabbitmq")
    _declare(where, {"x-queue-type": "quorum", "x-delivery-limit": 2})
    publishers(where).publish([envelope(neutral(n)) for n in range(20)], 10.0)
    befores = []
    for _ in range(6):
        consumer = consumers(where)
        befores += [one.before for one in fetch(consumer, 20)]
        consumer.close()

    last = consumers(where)
    assert {uuid_of(neutral(n)) for n in range(20)} == {
        uuid_of(line) for one in fetch(last, 20) for line in lines_in(one)
    }
    assert sorted(befores) == befores
    assert befores[-1] > 2


def _declare(where: Address, arguments: dict[str, Any], queue: str = "") -> None:
    import pika

    with pika.BlockingConnection(pika.URLParameters(where.url)) as connection:
        channel = connection.channel()
        channel.queue_declare(where.dead, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_declare(queue or where.queue, durable=True, arguments=arguments)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-delivery-count": "many"},
        {"x-delivery-count": -5, "deliveries": "many"},
        {"x-delivery-count": True, "deliveries": [1]},
        {"deliveries": 2**60},
    ],
    ids=str,
)
def test_headers_of_any_type_are_read(
    rabbitmq: RabbitMQ, make_queue: Any, consumers: Any, headers: dict[str, Any]
) -> None:
    """A publisher may set the headers that count to anything: the message comes all the same."""
    import pika

    where = make_queue("rabbitmq")
    consumer = consumers(where)
    consumer.fetch(1, 0.05)
    properties = pika.BasicProperties(headers=headers, timestamp=2**62)
    with pika.BlockingConnection(pika.URLParameters(where.url)) as connection:
        connection.channel().basic_publish("", where.queue, neutral(1), properties)

    (found,) = fetch(consumer)
    assert found.before >= 0
    assert consumer.holds(found.token)
    consumer.ack([found.token])
    assert 0 == consumer.held


def test_a_closed_channel_is_survived(
    rabbitmq: RabbitMQ, make_queue: Any, consumers: Any, publishers: Any
) -> None:
    """A queue that is removed under a consumer is an error, then made again."""
    where = make_queue("rabbitmq")
    consumer, publisher = consumers(where), publishers(where)
    consumer.fetch(1, 0.1)
    rabbitmq.control("delete_queue", where.queue)
    with pytest.raises(BrokerError):
        consumer.fetch(1, 5.0)
    consumer.fetch(1, 0.1)

    assert [None] == publisher.publish([envelope(neutral(1))], 10.0)
    assert 1 == len(fetch(consumer))


def test_a_user_without_rights(rabbitmq: RabbitMQ, make_queue: Any) -> None:
    """Who may not declare is told so; with --no-declare it needs no such right."""
    where = make_queue("rabbitmq")
    rabbitmq.control("add_user", where.queue, "pw")
    rabbitmq.control("set_permissions", where.queue, "^$", ".*", ".*")
    other = address(rabbitmq.url.replace("guest:guest", f"{where.queue}:pw"), where.queue)
    with pytest.raises(BrokerError, match="no right to declare"):
        engine_for(other).consumer(other, Intake()).fetch(1, 0.1)
    _declare(where, {"x-queue-type": "quorum"})
    consumer = engine_for(other).consumer(other, Intake(declare=False))

    assert [] == consumer.fetch(1, 0.1)
    consumer.close()
    findings = {one.checked: one for one in examine(other, 5.0)}
    assert "no-declare" in findings["arguments"].remedy


def test_alarms_keep_events_here(
    rabbitmq: RabbitMQ, make_queue: Any, consumers: Any, make_log: Any
) -> None:
    """A broker that is low on memory takes nothing; the program notices nothing, none is lost."""
    where = make_queue("rabbitmq")
    consumer = consumers(where)
    consumer.fetch(1, 0.1)
    handler = PostHogHandler(broker=_url(where), timeout=1.0, flush_interval=0.05)
    log = make_log(handler)
    log.info("first", extra={"distinct_id": "u"})
    assert handler.flush(5.0)
    rabbitmq.control("set_vm_memory_high_watermark", "0.000001")
    try:
        log.info("second", extra={"distinct_id": "u"})
        waits = [handler.flush(3.0), handler.flush(3.0)]
        findings = {one.checked: one for one in examine(where, 2.0)}
    finally:
        rabbitmq.control("set_vm_memory_high_watermark", "absolute", "512MB")
    flushed = handler.flush(10.0)
    handler.close()

    assert [False, False] == waits
    assert "WRONG" == findings["alarms"].verdict
    assert flushed
    found = fetch(consumer, 2)
    assert ["first", "second"] == [
        jsonable.decode(line)["event"] for one in found for line in lines_in(one)
    ]
    assert [] == consumer.fetch(1, 0.3), "what waited in the blocked connection came twice"


def test_a_full_queue_keeps_events_here(
    rabbitmq: RabbitMQ, make_queue: Any, publishers: Any
) -> None:
    """A queue that is told to refuse rather than drop refuses, message by message."""
    where = make_queue("rabbitmq")
    limits = {"x-max-length": 3, "x-overflow": "reject-publish"}
    _declare(where, {"x-queue-type": "quorum", **limits})
    found = []
    for number in range(8):
        found += publishers(where).publish([envelope(neutral(number))], 10.0)

    assert None in found
    assert any("full" in str(one) for one in found)


def test_a_restarted_broker_is_survived(
    rabbitmq: RabbitMQ, make_queue: Any, consumers: Any, make_log: Any
) -> None:
    """What is logged while the broker is away is there when it is back, none of it lost."""
    where = make_queue("rabbitmq")
    first = consumers(where)
    first.fetch(1, 0.1)
    first.close()
    handler = PostHogHandler(broker=_url(where), timeout=2.0)
    log = make_log(handler)
    log.info("before", extra={"distinct_id": "u"})
    assert handler.flush(5.0)
    rabbitmq.stop()
    log.info("while", extra={"distinct_id": "u"})
    assert not handler.flush(3.0)
    rabbitmq.start()
    flushed = [handler.flush(5.0) for _ in range(3)]
    handler.close()

    assert True in flushed
    assert ["before", "while"] == [
        jsonable.decode(line)["event"]
        for one in fetch(consumers(where), 2)
        for line in lines_in(one)
    ]


def test_too_large_a_message_is_lost_alone(
    rabbitmq: RabbitMQ, make_queue: Any, consumers: Any, make_log: Any
) -> None:
    """A message above the broker's limit does not hold up the others."""
    where = make_queue("rabbitmq")
    consumer = consumers(where)
    consumer.fetch(1, 0.1)
    handler = PostHogHandler(broker=_url(where), compression=None)
    log = make_log(handler)
    rabbitmq.control("eval", "application:set_env(rabbit, max_message_size, 2000).")
    try:
        log.info("large", extra={"distinct_id": "u", "properties": {"x": "x" * 5000}})
        for number in range(3):
            log.info("small", extra={"distinct_id": "u", "properties": {"n": number}})
        done = [handler.flush(5.0) for _ in range(10)]
        counts = handler.counts
    finally:
        rabbitmq.control("eval", "application:unset_env(rabbit, max_message_size).")
        handler.close()

    assert done[-1]
    assert (4, 3, 1) == (counts["accepted"], counts["delivered"], counts["oversized"])
    assert {"small"} == {
        jsonable.decode(line)["event"] for one in fetch(consumer, 3) for line in lines_in(one)
    }


def test_doctor_names_what_is_wrong_with_a_queue(rabbitmq: RabbitMQ, make_queue: Any) -> None:
    """A classic queue, or one that gives up early, is named with what would be right."""
    classic, limited = make_queue("rabbitmq"), make_queue("rabbitmq")
    _declare(classic, {})
    _declare(limited, {"x-queue-type": "quorum", "x-delivery-limit": 3})
    found = [
        " ".join(one.found for one in examine(where, 5.0) if one.verdict == "WRONG")
        for where in (classic, limited)
    ]

    assert "x-queue-type is not set, where a relay declares 'quorum'" in found[0]
    assert "x-delivery-limit is 3, where" in found[1]


# Redis


def test_entries_of_the_dead_are_claimed(
    redis: Redis, make_queue: Any, consumers: Any, publishers: Any
) -> None:
    """What a relay that was killed has held is another's after a while; the living keep theirs."""
    where = make_queue("redis")
    dead, living = consumers(where, patience=1.2), consumers(where, patience=1.2)
    dead.fetch(1, 0.01)
    publishers(where).publish([envelope(neutral(1))], 10.0)
    assert fetch(dead)
    publishers(where).publish([envelope(neutral(2))], 10.0)
    (own,) = fetch(living)
    other = consumers(where, patience=1.2)
    came: list[Delivery] = []
    deadline = time.monotonic() + 3.6  # three times the patience
    while time.monotonic() < deadline:
        came += living.fetch(10, 0.05) + other.fetch(10, 0.05)

    assert [neutral(1)] == [line for one in came for line in lines_in(one)]
    assert [1] == [one.before for one in came]
    assert living.holds(own.token)
    dead.fetch(0, 0.0)
    assert 0 == dead.held, "who was given up learns of it"


def test_doctor_looks_after_redis(redis: Redis, make_queue: Any) -> None:
    """No append-only file, or an eviction that takes streams, loses events: it says so."""
    where = make_queue("redis")
    with running(Redis, appendonly="no", maxmemory_policy="allkeys-lru") as careless:
        found = {one.checked: one for one in examine(address(careless.url), 2.0)}

    assert ("WRONG", "WRONG") == (found["durability"].verdict, found["eviction"].verdict)
    assert "set appendonly yes" in found["durability"].remedy
    assert "noeviction" in found["eviction"].remedy
    assert "note" == {one.checked: one for one in examine(where, 2.0)}["stream"].verdict


def test_a_full_redis_keeps_events_here(publishers: Any) -> None:
    """With noeviction a full Redis refuses, cleanly, and takes again when there is room."""
    with running(Redis, maxmemory="2mb") as small:
        where = address(small.url)
        publisher = publishers(where)
        found: list[Any] = []
        for number in range(200):
            found += publisher.publish([envelope(neutral(number, x=os.urandom(9000).hex()))], 5.0)
        stored = sum(one is None for one in found)
        consumer = engine_for(where).consumer(where, Intake(prefetch=1000))
        # What it needs goes up and down a little: far below that, there is no room at all.
        server = importlib.import_module("redis").Redis.from_url(small.url)
        server.config_set("maxmemory", "1")
        with pytest.raises(BrokerError, match="memory"):
            consumer.fetch(1000, 0.1)  # which makes the group
        server.config_set("maxmemory", "0")
        server.close()
        again = publisher.publish([envelope(neutral(200))], 5.0)
        kept = fetch(consumer, stored + 1)
        publisher.close()
        consumer.close()

    assert all("memory" in str(one) for one in found if one)
    assert 0 < stored < 200
    assert [None] == again
    assert stored + 1 == len(kept)


# Kafka


def test_people_stay_in_order(
    kafka: KafkaMock, make_queue: Any, consumers: Any, publishers: Any
) -> None:
    """One event is one message, and those of a person are in one partition, in order."""
    where = make_queue("kafka")
    publisher = publishers(where)
    lines = [neutral(n, f"user-{n % 7}") for n in range(700)]
    assert [None, None] == publisher.publish(list(envelopes(lines, "r", None)), 10.0)
    found = [line for one in fetch(consumers(where), 700) for line in lines_in(one)]

    for person in range(7):
        mark = b'"user-%d"' % person
        assert [x for x in lines if mark in x] == [x for x in found if mark in x]


@pytest.mark.matrix
def test_kafka_reads_large_messages_in_parts(
    kafka: KafkaMock, make_queue: Any, consumers: Any, publishers: Any
) -> None:
    """Messages of one partition are read as one only as far as they fit into one of ours."""
    where = make_queue("kafka")
    lines = [neutral(number, pad="x" * 200_000) for number in range(20)]
    assert [None] == publishers(where).publish([envelope(*lines)], 10.0)
    found = fetch(consumers(where), 20)

    assert MOST_BYTES >= max(len(one.body) for one in found)
    assert set(lines) == {line for one in found for line in lines_in(one)}


def test_kafka_refuses_a_raw_body_that_is_too_large() -> None:
    """A dead letter that is kept as it came is an error if it is too large, and a final one."""
    pytest.importorskip("confluent_kafka")
    where = address("kafka://127.0.0.1:9/q")
    dead = Envelope((), "m", None, {"dlq_reason": "unreadable"}, raw=b"x" * 2_000_000)
    publisher = engine_for(where).publisher(where, 1.0)
    (error,) = publisher.publish([dead], 1.0)
    publisher.close()

    assert isinstance(error, BrokerError)
    assert error.final


@pytest.mark.matrix
def test_only_what_is_settled_without_a_gap_is_committed(
    kafka: KafkaMock, make_queue: Any, consumers: Any, publishers: Any
) -> None:
    """A later message that is settled first is not committed past an earlier one."""
    where = make_queue("kafka")
    rows = [b'{"event":"e","distinct_id":"one","n":%d}' % n for n in range(3)]
    publishers(where).publish([envelope(row, coding=None) for row in rows], 10.0)
    first = consumers(where)
    found = fetch(first, 3)
    first.ack([found[0].token, found[2].token])
    first.close()

    assert rows[1:] == [line for one in fetch(consumers(where), 2) for line in lines_in(one)]


def test_threads_are_not_left_behind(make_queue: Any) -> None:
    """A transport that is closed has no thread and no connection."""
    before = threading.active_count()
    for engine in ("rabbitmq", "redis", "kafka"):
        transport = broker_transport(_url(make_queue(engine)))
        transport.send(NEUTRAL.request(_batch(), _endpoint(), ""), 5.0)
        transport.close()

    assert before == threading.active_count()


def _batch() -> Any:
    from posthog_logging.wire import Batch

    return Batch([neutral(1)], str(uuid.uuid4()), "")


def _endpoint() -> Any:
    from posthog_logging.wire import Endpoint

    return Endpoint("", "", "gzip")


def test_the_schema_is_documented() -> None:
    """The guide shows a message as it is, so that other languages can publish one."""
    guide = Path(HERE, "posthog_logging/docs/many-hosts.md").read_text()

    assert all(word in guide for word in (SCHEMA, "application/x-ndjson", "message_id"))
    shown = guide.partition("```json\n")[2].partition("\n```")[0]
    assert {"event", "distinct_id"} <= set(json.loads(shown))
