"""What may leave, seen from outside: whichever way an event goes, and whoever looks on."""

from __future__ import annotations

import functools
import json
import logging
import logging.config
import subprocess

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st
from test_scrub import HARMLESS, SECRET, SPELT, TEXTS

from posthog_logging import Analytics, PostHogHandler, PostHogLogsHandler, context, extras
from posthog_logging.delivery.transport import MemoryTransport
from posthog_logging.events.sampling import is_in_sample
from posthog_logging.events.scrub import SCRUBBED
from posthog_logging.handler import observe


KEY = "a key of the program's own"


class Sent:
    """A handler, and what it has sent once it is closed."""

    def __init__(self, kind: Any = PostHogHandler, **options: Any) -> None:
        self.transport = MemoryTransport()
        self.handler = kind(
            "phc_key",
            "http://x.example",
            transport=self.transport,
            **{"compression": None, **options},
        )

    def log(self, name: str = "e", **fields: Any) -> None:
        """Handle one record."""
        self.handler.handle(logging.makeLogRecord({"msg": name, "levelno": 20, **fields}))

    @functools.cached_property
    def events(self) -> list[dict[str, Any]]:
        """What arrived."""
        self.handler.close()
        bodies = [json.loads(request.body) for request in self.transport.requests]
        return [one for body in bodies for one in body["batch"]]

    @property
    def counts(self) -> Mapping[str, int]:
        """What became of it."""
        counts: Mapping[str, int] = self.handler.counts
        return counts


def own(event: dict[str, Any]) -> dict[str, Any]:
    """Return the properties without the library's."""
    return {key: value for key, value in event["properties"].items() if key[0] != "$"}


def unchanged(event: dict[str, Any]) -> dict[str, Any]:
    """A hook: with one there is no short way."""
    return event


@pytest.mark.parametrize("way", ["memory", "disk", "hook", "context"])
def test_the_corpus_by_each_way(way: str, tmp_path: Path) -> None:
    """No value of a secret's key is sent, every other one is, and the ledger says how many."""
    options: dict[str, Any] = {"disk": {"spool": tmp_path}, "hook": {"before_send": unchanged}}
    sent = Sent(**options.get(way, {}))
    bound = {"plan": "pro"} if way == "context" else {}
    with context.identity("user-1", **bound):
        for key in [*SECRET, *SPELT, *HARMLESS]:
            properties = {key: "hunter2", "n": {key: "hunter2"}, "p": [(key, "hunter2")]}
            sent.log(distinct_id="user-1", properties=properties)
    secret = len(SECRET) + len(SPELT)

    hidden = [json.dumps(own(one)).count(SCRUBBED) for one in sent.events[:secret]]
    shown = [json.dumps(one).count("hunter2") for one in sent.events[secret:]]
    assert "hunter2" not in json.dumps(sent.events[:secret])
    assert 3 * secret == sum(hidden) + sum(key.startswith("$") for key in SECRET)
    assert [3] * len(HARMLESS) == shown
    assert 3 * secret == sent.counts["scrubbed"]
    assert sent.counts["accepted"] == sent.counts["delivered"] == len(sent.events)


def test_the_corpus_without_orjson(
    run_script: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """The other encoder, the same keys."""
    script = """
import json, logging, sys
sys.modules["orjson"] = None
from posthog_logging import PostHogHandler
from posthog_logging.delivery.transport import MemoryTransport
transport = MemoryTransport()
handler = PostHogHandler("k", "http://x.example", transport=transport, compression=None)
groups = json.loads(sys.argv[1])
for keys in groups:
    for key in keys:
        properties = {key: "hunter2", "n": {key: "hunter2"}, "p": [(key, "hunter2")]}
        fields = {"distinct_id": "u", "properties": properties}
        handler.handle(logging.makeLogRecord({"msg": "e", **fields}))
handler.close()
print(handler.counts["scrubbed"], sum(one.body.count(b"hunter2") for one in transport.requests))
"""
    done = run_script(script, json.dumps([[*SECRET, *SPELT], HARMLESS]))

    expected = f"{3 * (len(SECRET) + len(SPELT))} {3 * len(HARMLESS)}"
    assert ("", expected) == (done.stderr, done.stdout.strip())


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_texts_by_each_way(text: str) -> None:
    """A secret inside a value is found in the thread as well as in the log call."""
    short, long = Sent(), Sent(before_send=unchanged)
    for sent in (short, long):
        sent.log(distinct_id="user-1", properties={"a": text})
        sent.log(distinct_id="user-1", properties={"a": "harmless"})

    assert [{"a": TEXTS[text]}, {"a": "harmless"}] == list(map(own, short.events))
    assert list(map(own, short.events)) == list(map(own, long.events))
    assert short.counts["scrubbed"] == long.counts["scrubbed"] >= 1


@pytest.mark.parametrize("text", [text for text in TEXTS if text.isprintable()], ids=ascii)
def test_names_are_texts(text: str) -> None:
    """The event's name, which may be the log's message, is scrubbed as a property's value is."""
    short, long = Sent(), Sent(before_send=unchanged)
    for sent in (short, long):
        for name in ("harmless", text):
            sent.log(name, distinct_id="user-1", properties={})

    cut = TEXTS[text].strip()[:200]
    names = [event["event"] for event in short.events]
    assert ["harmless", cut] == names == [event["event"] for event in long.events]
    assert short.counts["scrubbed"] == long.counts["scrubbed"] >= 1


@pytest.mark.parametrize(
    "name",
    [
        "[Checkout] password: reset requested",
        "[auth] cookie: accepted all",
        "{checkout} secret: revealed",
    ],
)
def test_a_label_before_a_name_is_no_json(name: str) -> None:
    """An area in brackets is usual, and what follows it is a sentence."""
    sent = Sent()
    sent.log(name, distinct_id="user-1")
    (event,) = sent.events

    assert name == event["event"]


def test_json_that_was_cut_is_scrubbed_in_a_name() -> None:
    """A log's message may be a document, of which the name is the beginning."""
    sent = Sent()
    sent.log('{"password": "hunter2", "text": "' + "x" * 300, distinct_id="user-1")
    (event,) = sent.events

    assert "hunter2" not in event["event"]


def test_a_scrubbed_name_fits() -> None:
    """A name that grows by it is cut again: PostHog drops an event with a name of 201 bytes."""
    sent = Sent()
    sent.log("x" * 187 + "//u:p@host/", distinct_id="user-1")
    (event,) = sent.events

    assert "x" * 187 + "//u:[scrubbed" == event["event"]


VALUES = st.recursive(
    st.none()
    | st.sampled_from(["x", "?password=x", "//u:p@h", '{"secret": 1}', "a=b", "[secret: x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(st.tuples(st.sampled_from(["a", "Cookie"]), inner), max_size=2)
        | st.dictionaries(st.sampled_from(["a", "password", "api key", "b"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "apiKey"]), VALUES), max_size=4))
def test_both_ways_meet(every: list[dict[str, Any]]) -> None:
    """Whatever the properties are, the short way and the long one scrub and count the same."""
    short, long = Sent(), Sent(before_send=unchanged)
    for properties in every:
        for sent in (short, long):
            sent.log(distinct_id="user-1", properties=properties)

    assert list(map(own, short.events)) == list(map(own, long.events))
    assert short.counts.get("scrubbed") == long.counts.get("scrubbed")


def test_every_part_of_an_event() -> None:
    """Flat extras, the context's, the handler's and the person's properties are scrubbed."""
    sent = Sent(properties={"db_password": "x"})
    with context.identity("user-1", secret="x"):
        sent.log(distinct_id="user-1", api_key="x", set={"cookie": "x"}, harmless="fine")
    (event,) = sent.events

    assert ["x"] not in event["properties"].values()
    assert {"db_password", "secret", "api_key"} == {
        key for key, value in event["properties"].items() if value == SCRUBBED
    }
    assert {"cookie": SCRUBBED} == event["properties"]["$set"]


def test_exceptions_are_prose() -> None:
    """The message of an exception has no secret left when it is reported."""
    sent = Sent(exceptions=True)
    try:
        raise ValueError("cannot log in: password=hunter2 at amqp://u:hunter2@host")
    except ValueError:
        logging_record: dict[str, Any] = {"exc_info": True, "levelno": 40}
        sent.log("failed with api_key=hunter2", **logging_record)
    (event,) = sent.events
    values = [one["value"] for one in event["properties"]["$exception_list"]]

    expected = "cannot log in: password=[scrubbed] at amqp://u:[scrubbed]@host"
    assert [expected] == values
    assert "failed with api_key=[scrubbed]" == event["properties"]["message"]


def test_logs_are_scrubbed() -> None:
    """Bodies and attributes of PostHog Logs, both by their own handler and beside events."""
    alone = Sent(PostHogLogsHandler)
    alone.log("password=hunter2", token="fine", access_token="hunter2")
    beside = Sent(logs=True, scrub=["plate"])
    assert beside.handler.logs is not None
    beside.log("number plate=hunter2", plate="hunter2")
    for one in (alone, beside):
        one.handler.close()
    bodies = [request.body for one in (alone, beside) for request in one.transport.requests]

    assert 2 == len(bodies)
    assert not any(b"hunter2" in body for body in bodies)
    assert all(b"[scrubbed]" in body for body in bodies)
    assert (2, 2) == (alone.counts["scrubbed"], beside.handler.logs.counts["scrubbed"])


def test_observers_see_what_is_sent() -> None:
    """Tests that look at messages, and `preview`, see no secret either."""
    seen: list[Any] = []
    sent = Sent()
    record = logging.makeLogRecord(
        {"msg": "e", "distinct_id": "u", "properties": {"secret": "hunter2"}}
    )
    with observe(seen.append):
        sent.handler.handle(record)
    preview = sent.handler.preview(record, lambda topic, text: None)

    assert SCRUBBED == seen[0].properties["secret"] == preview.properties["secret"]
    assert 1 == sent.counts["scrubbed"]


def test_scrubbing_can_be_switched_off() -> None:
    """False sends everything as it is, by each way."""
    for options in ({}, {"before_send": unchanged}):
        sent = Sent(scrub=False, **options)
        sent.log(distinct_id="u", properties={"secret": "x", "a": "//u:p@h"})
        assert [{"secret": "x", "a": "//u:p@h"}] == list(map(own, sent.events))
        assert "scrubbed" not in sent.counts


@pytest.mark.parametrize("scrub", [["plate"], "plate", lambda key: key == "plate" or None])
def test_further_names(scrub: Any) -> None:
    """Names, or a callable, beside the built-in names."""
    sent = Sent(scrub=scrub)
    sent.log(distinct_id="u", properties={"plate": "x", "secret": "x", "fork": "x"})

    assert [{"plate": SCRUBBED, "secret": SCRUBBED, "fork": "x"}] == list(map(own, sent.events))


@pytest.mark.parametrize("way", [{}, {"before_send": unchanged}, {"scrub": False}])
def test_pseudonyms(way: dict[str, Any]) -> None:
    """Values under the names are replaced by each way, and are no secrets to count."""
    sent = Sent(pseudonymise={"email": KEY}, **way)
    sent.log(distinct_id="u", properties={"email": "ada@example.org", "n": {"E-Mail": "x"}})
    (properties,) = map(own, sent.events)

    assert 64 == len(properties["email"]) == len(properties["n"]["E-Mail"])
    assert "example.org" not in json.dumps(sent.events)
    assert "scrubbed" not in sent.counts
    assert KEY not in repr(sent.handler)


def test_a_pseudonym_for_the_person() -> None:
    """`distinct_id` may be one of the names; it is the same person each time."""
    sent = Sent(pseudonymise=(["distinct_id"], KEY))
    for name in ("e", "f"):
        sent.log(name, distinct_id="user-1", properties={})
    people = {one["distinct_id"] for one in sent.events}

    assert 1 == len(people)
    assert 64 == len(people.pop())


def test_samples(caplog: pytest.LogCaptureFixture) -> None:
    """The people of a sample are kept with its rate, all others are counted as `sampled`."""
    people = [f"user-{number}" for number in range(200)]
    sent = Sent(sample={"page seen": 0.25})
    for person in people:
        sent.log("page seen", distinct_id=person, properties={})
        sent.log("popcorn seen", distinct_id=person, properties={})
    by_name = {
        name: [one for one in sent.events if one["event"] == name]
        for name in ("page seen", "popcorn seen")
    }

    expected = [one for one in people if is_in_sample(one, 0.25)]
    assert expected == [one["distinct_id"] for one in by_name["page seen"]]
    assert {0.25} == {one["properties"]["$sample_rate"] for one in by_name["page seen"]}
    assert people == [one["distinct_id"] for one in by_name["popcorn seen"]]
    assert not any("$sample_rate" in one["properties"] for one in by_name["popcorn seen"])
    assert 200 - len(expected) == sent.counts["sampled"]
    assert 400 == sent.counts["accepted"]
    assert [] == caplog.records  # nobody is warned of what was asked for


def test_a_callable_samples() -> None:
    """It sees the event as ``before_send`` does; what it raises keeps the event."""
    seen: list[dict[str, Any]] = []

    def find(event: dict[str, Any]) -> float:
        seen.append(event)
        return {"kept": 1.0, "dropped": 0.0}[event["event"]]

    sent = Sent(sample=find)
    for name in ("kept", "dropped", "fails"):
        sent.log(name, distinct_id="user-1", properties={"a": 1})

    assert ["kept", "fails"] == [one["event"] for one in sent.events]
    assert {"event", "distinct_id", "properties", "uuid", "timestamp"} == set(seen[0])
    assert 1 == sent.counts["sampled"]


def test_what_is_never_sampled() -> None:
    """Exceptions, identify, alias, group and set are facts, and facts are no sample."""
    sent = Sent(sample=lambda event: 0.0, person_rate=(1, 0.001), exceptions=True)
    analytics = Analytics(sent.handler)
    analytics.identify("user-1", {"a": 1})
    analytics.alias("visitor-1", "user-1")
    analytics.group("user-1", "acme", {"a": 1}, group_type="company")
    analytics.set("user-1", {"a": 1})
    analytics.capture_exception(ValueError("x"), "user-1")
    analytics.capture("user-1", "page seen")

    kinds = ["$identify", "$create_alias", "$groupidentify", "$set", "$exception"]
    assert kinds == [one["event"] for one in sent.events]
    assert 1 == sent.counts["sampled"]


@pytest.mark.parametrize("distinct_id", [None, "", "null"])
def test_samples_of_nobody(distinct_id: Any) -> None:
    """An event without a person has an id of its own, which decides."""
    sent = Sent(sample={"page seen": 0.5})
    for _ in range(60):
        sent.log("page seen", event="page seen", distinct_id=distinct_id)

    assert 60 == len(sent.events) + sent.counts["sampled"]
    assert 0 < len(sent.events) < 60


def test_the_ceiling_of_a_person() -> None:
    """One who floods is held back and counted, everybody else is not."""
    sent = Sent(person_rate=(3, 0.001))
    for number in range(10):
        sent.log(distinct_id="ada", properties={})
        sent.log(distinct_id=f"user-{number}", properties={})
        sent.log(event="nobody")

    people = [one["distinct_id"] for one in sent.events]
    assert 3 == people.count("ada")
    assert 23 == len(people)
    assert 7 == sent.counts["person_limited"]


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("scrub", 5, TypeError),
        ("scrub", [5], TypeError),
        ("scrub", b"x", TypeError),
        ("scrub", {"a": 1}, TypeError),
        ("scrub", ["--"], ValueError),
        ("pseudonymise", "email", TypeError),
        ("pseudonymise", {"email": ""}, ValueError),
        ("sample", {"page seen": 2}, ValueError),
        ("sample", {"page seen": float("nan")}, ValueError),
        ("sample", 0.1, TypeError),
        ("person_rate", (0, 1.0), ValueError),
        ("person_rate", 5, TypeError),
        ("plan", "raise", ValueError),
        ("plan", True, TypeError),
    ],
)
def test_bad_options(option: str, value: Any, kind: type[Exception]) -> None:
    """A wrong option is an error of the constructor, which names it."""
    with pytest.raises(kind, match=f"^{option}: "):
        PostHogHandler("phc_key", "http://x.example", send=False, **{option: value})


def test_from_a_configuration() -> None:
    """dictConfig gives lists and dicts of its own; they mean the same."""
    config = logging.config.DictConfigurator(
        {
            "scrub": ["plate"],
            "sample": {"page seen": 0.0},
            "person_rate": [5, 1.0],
            "pseudonymise": {"email": KEY},
        }
    ).config
    sent = Sent(**{name: config[name] for name in config})
    sent.log("page seen", distinct_id="u")
    sent.log("e", **extras.capture("u", "e", {"plate": "x"}))

    assert [{"plate": SCRUBBED}] == list(map(own, sent.events))
    assert 1 == sent.counts["sampled"]
