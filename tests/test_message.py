"""How what is said in a log call becomes a message: names, ids, identity, times, precedence."""

from __future__ import annotations

import collections.abc
import datetime as dt
import decimal
import email.message
import enum
import functools
import hashlib
import http.cookies
import itertools
import logging
import os
import pickle
import re
import threading
import time
import types
import uuid
import weakref

from collections import UserDict, deque
from collections.abc import Callable
from typing import Any

import pytest

from hypothesis import given
from hypothesis import strategies as st
from values import Proxy, Tensor

from posthog_logging import context
from posthog_logging.context import Bound
from posthog_logging.events.identifiers import stamp
from posthog_logging.events.message import IDENTITY_EVENTS, KINDS, Message, Refused, assemble
from posthog_logging.events.records import fields_of, is_event


CREATED = 1_704_164_645.671875  # one that a float has exactly
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class Event(enum.Enum):
    PLAYED = "movie played"
    NUMBER = 3


class Shown(enum.StrEnum):
    PLAYED = "movie played"


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no")

    @property
    def value(self) -> str:
        raise RuntimeError("no")


class Arrow:
    """A moment that is no datetime, as arrow's."""

    def isoformat(self) -> str:
        return "2024-01-02T03:04:05+00:00"


class Person:
    def __str__(self) -> str:
        return "person-1"


KEPT = Person()


def name_of(value: object) -> str:
    """Name a parameter the same in every process."""
    return "broken" if isinstance(value, Broken) else repr(value)


def built(*, name: str = "a log line", created: float = CREATED, **said: Any) -> Message:
    """Return the message of *said*; where nothing is said of a user, it is user-1."""
    options = {
        key: said.pop(key)
        for key in ("bound", "defaults", "owned", "flat", "any_id", "warn")
        if key in said
    }
    return assemble({"distinct_id": "user-1", **said}, name, created, **options)


def refused(**said: Any) -> str:
    """Return the reason for which the message of *said* is refused."""
    with pytest.raises(Refused) as caught:
        built(**said)
    return caught.value.reason


def topics(**said: Any) -> list[str]:
    """Return what was told of on the way."""
    told: list[str] = []
    built(warn=lambda topic, text: told.append(topic), **said)
    return told


# Names


NAMES = {
    "plain": ("movie played", "movie played"),
    "enum": (Event.PLAYED, "movie played"),
    "str enum": (Shown.PLAYED, "movie played"),
    "proxy": (Proxy("movie played"), "movie played"),
    "proxy of an enum": (Proxy(Event.PLAYED), "movie played"),
    "control characters": ("\tmovie\nplayed\x07 ", "movie played"),
    "NUL": ("a\0b", "a\ufffdb"),
    "lone surrogate": ("a\ud800b", "a\ufffdb"),
    "200 bytes": ("\u20ac" * 66 + "ab", "\u20ac" * 66 + "ab"),
    "201 bytes": ("\u20ac" * 67, "\u20ac" * 66),
    "very long": ("x" * 100_000, "x" * 200),
    "emoji at the edge": ("x" * 198 + "\U0001f600", "x" * 198),
}


@pytest.mark.parametrize(("event", "expected"), NAMES.values(), ids=NAMES)
def test_event_names_are_made_fit(event: Any, expected: str) -> None:
    """A name has at most 200 bytes, no control characters and no half of a character."""
    assert expected == built(event=event).event
    assert len(expected.encode()) <= 200


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("", "no_event_name"),
        ("   ", "no_event_name"),
        ("\n\t", "no_event_name"),
        ("\u2003", "no_event_name"),
        (7, "bad_event_name"),
        (b"played", "bad_event_name"),
        (["played"], "bad_event_name"),
        (Event.NUMBER, "bad_event_name"),
        (Broken(), "bad_event_name"),
        ({"name": "played"}, "bad_event_name"),
        (Proxy(7), "bad_event_name"),
    ],
    ids=("empty blank control em-space int bytes list enum broken dict proxy".split()),
)
def test_an_event_without_a_name_is_refused(event: Any, reason: str) -> None:
    """What is no name, or a blank one, is refused and not sent to be refused there."""
    assert reason == refused(event=event)


def test_an_event_that_is_none_is_no_event() -> None:
    """``event=None`` alone is no event; beside an id or a ``kind`` it is as if not given."""
    with pytest.raises(Refused, match="no_event_name"):
        assemble({"event": None}, "a log line", CREATED)

    assert "a log line" == assemble({"event": None, "distinct_id": None}, "a log line", 0).event
    assert "$pageview" == assemble({"event": None, "kind": "page"}, "a log line", 0).event


def test_a_cut_name_is_told_of() -> None:
    """A name that is cut is told of; one that fits is not."""
    assert ["event name cut"] == topics(event="x" * 201)
    assert [] == topics(event="x" * 200)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "a log line"),
        ({"event": None}, "a log line"),
        ({"event": "played"}, "played"),
        ({"kind": "page"}, "$pageview"),
        ({"kind": "unheard of"}, "a log line"),
        ({"kind": None}, "a log line"),
        ({"kind": ["page"]}, "a log line"),
        ({"kind": "page", "event": "played"}, "played"),
    ],
    ids=str,
)
def test_the_name_is_the_events_or_the_kinds_or_the_messages(said: Any, expected: str) -> None:
    """``event`` wins over ``kind``, and both over the log message."""
    assert expected == built(**said).event


def test_every_kind_has_a_name_of_posthogs() -> None:
    """All kinds stand for a ``$`` name, and all identity events have a kind."""
    assert all(name.startswith("$") for name in KINDS.values())
    assert set(KINDS.values()) > IDENTITY_EVENTS


# Ids


NOBODY = """0 00000000-0000-0000-0000-000000000000 anonymous anonymous-user backend distinct_id
distinctid email false guest id nan none not_authenticated null system true undefined
user""".split()
NOBODY += ["[object object]", "AnonymousUser", ""]

IDS: dict[str, tuple[Any, str]] = {
    "text": ("user-1", "user-1"),
    "spaces": ("  user-1 \n", "user-1"),
    "int": (42, "42"),
    "uuid": (uuid.UUID(int=7), str(uuid.UUID(int=7))),
    "enum": (Event.PLAYED, "movie played"),
    "int enum": (Event.NUMBER, "3"),
    "NUL": ("a\0b", "a\ufffdb"),
    "control": ("a\x07b", "a b"),
    "lone surrogate": ("a\ud800b", "a\ufffdb"),
    "starts like an illegal one": ("[object", "[object"),
    "bytes": (b"user-1", "user-1"),
    "bytes that are no text": (b"\xff1", "\\xff1"),
    "bytearray": (bytearray(b"user-1"), "user-1"),
    "proxy": (Proxy("user-1"), "user-1"),
    "proxy of a number": (Proxy(Proxy(42)), "42"),
    "weak reference": (weakref.proxy(KEPT), str(KEPT)),
    "200 bytes": ("\u00e9" * 100, "\u00e9" * 100),
    "200 bytes of emoji": ("\U0001f600" * 50, "\U0001f600" * 50),
}


@pytest.mark.parametrize(("given_id", "expected"), IDS.values(), ids=IDS)
def test_ids_are_made_fit(given_id: Any, expected: str) -> None:
    """An id is a trimmed text without control characters, and otherwise the caller's."""
    message = built(distinct_id=given_id)

    assert expected == message.distinct_id
    assert "$process_person_profile" not in message.properties


@pytest.mark.parametrize("change", [str, str.upper, str.title, "  {} ".format, "\t{}\n".format])
@pytest.mark.parametrize("name", NOBODY)
def test_an_id_that_names_nobody_is_none(name: str, change: Callable[[str], str]) -> None:
    """Each of PostHog's illegal ids, in any case and with spaces, makes the event personless."""
    message = built(distinct_id=change(name))

    assert message.uuid == message.distinct_id
    assert False is message.properties["$process_person_profile"]
    assert ["illegal distinct_id"] == topics(distinct_id=change(name))


@pytest.mark.parametrize(
    "odd",
    [0, False, True, float("nan"), uuid.UUID(int=0), Broken()],
    ids=["0", "False", "True", "nan", "nil", "broken"],
)
def test_a_value_that_names_nobody_is_none(odd: Any) -> None:
    """The values whose text is an illegal id, or that have no text, name nobody either."""
    assert False is built(distinct_id=odd).properties["$process_person_profile"]


class Pair(tuple[str, str]):
    """A container with a text of its own."""

    def __str__(self) -> str:
        return ":".join(self)


class Query:
    """Such as Django's `QuerySet`, whose members are in a database."""

    def __iter__(self) -> Any:
        raise AssertionError

    __len__ = __iter__

    def __repr__(self) -> str:
        return "<QuerySet [1]>"


@pytest.mark.parametrize(
    "container",
    [
        types.MappingProxyType({"a": 1}),
        http.cookies.SimpleCookie("a=b"),
        email.message.Message(),
        Query(),
        {"email": "a@example.org"},
        UserDict(a=1),
        ["u"],
        ("u", 1),
        {"u"},
        frozenset(),
        deque("u"),
        Tensor(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_container_is_no_id(container: Any) -> None:
    """Properties or a row in place of an id count as missing; their text would be a person."""
    assert False is built(distinct_id=container).properties["$process_person_profile"]
    assert ["illegal distinct_id"] == topics(distinct_id=container)
    with pytest.raises(Refused, match="no_distinct_id"):
        built(distinct_id=container, event="$identify")
    with pytest.raises(Refused, match="no_group"):
        built(event="$groupidentify", properties={"$group_type": "c", "$group_key": container})


class _Unaskable(type):
    """The type of classes that raise when they are asked what they are."""

    @property
    def __str__(cls) -> Any:
        raise ValueError


class _OfUnaskable(metaclass=_Unaskable):
    """Its text is that of any object."""


def test_an_id_whose_class_raises() -> None:
    """A class that cannot be asked is no container, and costs no event."""
    event = built(distinct_id=_OfUnaskable())

    assert "_OfUnaskable object" in event.distinct_id


def test_a_container_with_a_text_of_its_own_is_an_id() -> None:
    """A class that says what its text is may be an id."""
    assert "acme:1" == built(distinct_id=Pair(("acme", "1"))).distinct_id


def test_no_id_makes_the_event_personless() -> None:
    """Without an id each event has one of its own, and nothing is told: it was the choice."""
    one, other = built(distinct_id=None), built(distinct_id=None)

    assert one.distinct_id != other.distinct_id
    assert False is one.properties["$process_person_profile"]
    assert [] == topics(distinct_id=None)


def test_who_wants_a_person_for_an_event_without_an_id_gets_one() -> None:
    """An explicit ``$process_person_profile`` is kept."""
    message = built(distinct_id=None, properties={"$process_person_profile": True})

    assert True is message.properties["$process_person_profile"]


def test_long_ids_stay_two_people() -> None:
    """Ids of more than 200 bytes are shortened to 200, differently, and the same each time."""
    long = "\u00e9" * 99 + "abc"
    other = long[:-1] + "d"
    short = built(distinct_id=long).distinct_id

    assert f"{'é' * 79}#{hashlib.sha1(long.encode()).hexdigest()}" == short
    assert len(short.encode()) <= 200
    assert short == built(distinct_id=long).distinct_id
    assert short != built(distinct_id=other).distinct_id
    assert ["long distinct_id"] == topics(distinct_id=long)


@given(st.text())
def test_any_text_makes_an_id_that_servers_take(text: str) -> None:
    """Whatever the text, the id has 1 to 200 bytes, no blanks around it and no NUL."""
    found = built(distinct_id=text).distinct_id

    assert 1 <= len(found.encode()) <= 200
    assert found.strip() == found
    assert "\0" not in found


# Identity events


@pytest.mark.parametrize("event", sorted(IDENTITY_EVENTS - {"$groupidentify"}))
@pytest.mark.parametrize("missing", [None, "", "  ", "anonymous", 0], ids=repr)
def test_identity_events_without_an_id_are_refused(event: str, missing: Any) -> None:
    """An event about a person is refused where the person is nobody."""
    said = {"distinct_id": missing, "event": event, "set": {"a": 1}, "previous_id": "old"}

    assert "no_distinct_id" == refused(**said)


@pytest.mark.parametrize("event", sorted(IDENTITY_EVENTS))
def test_identity_events_are_never_personless(event: str) -> None:
    """``$process_person_profile`` is taken off what would be dropped with it."""
    message = built(
        event=event,
        set={"a": 1},
        previous_id="old",
        options={"process_person_profile": False},
        properties={"$group_type": "team", "$group_key": 1},
        defaults={"$process_person_profile": False},
    )

    assert "$process_person_profile" not in message.properties


def test_identify_carries_the_persons_properties() -> None:
    """``set`` and ``set_once`` become ``$set`` and ``$set_once``."""
    message = built(kind="identify", set={"plan": "gold"}, set_once={"first": 1})

    assert "$identify" == message.event
    assert {"$set": {"plan": "gold"}, "$set_once": {"first": 1}} == message.properties


@pytest.mark.parametrize("said", [{}, {"set": {}}, {"set_once": {}}, {"set": None}], ids=repr)
def test_a_set_of_nothing_is_refused(said: Any) -> None:
    """A ``$set`` without properties says nothing."""
    assert "empty_set" == refused(event="$set", **said)


@pytest.mark.parametrize("key", ["set", "set_once"])
def test_a_set_of_something_is_not(key: str) -> None:
    """One of ``set`` and ``set_once`` is enough."""
    assert {f"${key}": {"a": 1}} == built(event="$set", **{key: {"a": 1}}).properties


@pytest.mark.parametrize(
    "said",
    [
        {"previous_id": "old", "distinct_id": "new"},
        {"distinct_id": "old", "alias": "new"},
        {"distinct_id": "old", "properties": {"alias": "new"}},
        {"previous_id": " old ", "distinct_id": "new\n", "properties": {"alias": "x"}},
    ],
    ids=["ours", "the wire's, flat", "the wire's", "ours wins"],
)
def test_an_alias_is_the_previous_ids_event(said: Any) -> None:
    """Both spellings give an event of the previous id, whose ``alias`` is the new one."""
    message = built(event="$create_alias", **said)

    assert ("old", {"alias": "new", "distinct_id": "old"}) == (
        message.distinct_id,
        message.properties,
    )


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({}, "no_previous_id"),
        ({"previous_id": None}, "no_previous_id"),
        ({"previous_id": " "}, "no_previous_id"),
        ({"previous_id": "guest"}, "no_previous_id"),
        ({"previous_id": None, "properties": {"alias": "new"}}, "no_previous_id"),
        ({"properties": {"alias": "null"}}, "no_distinct_id"),
        ({"previous_id": "old", "distinct_id": None}, "no_distinct_id"),
    ],
    ids=repr,
)
def test_half_an_alias_is_refused(said: Any, reason: str) -> None:
    """An alias needs two ids that name somebody."""
    assert reason == refused(event="$create_alias", **said)


def group(**properties: Any) -> Message:
    given_id = properties.pop("distinct_id", None)
    named = {f"$group_{key}": value for key, value in properties.items()}
    return built(distinct_id=given_id, event="$groupidentify", properties=named)


def test_a_group_without_an_id_has_one_of_its_own() -> None:
    """The id is ``$<type>_<key>``, so that no junk person is made for each call."""
    message = group(type="team", key=9)

    assert "$team_9" == message.distinct_id
    assert {"$group_type": "team", "$group_key": "9", "$group_set": {}} == message.properties


def test_a_group_may_have_an_id() -> None:
    """An explicit id is kept, and so are the group's properties."""
    message = group(type="team", key="t-9", set={"seats": 12}, distinct_id="user-1")

    assert "user-1" == message.distinct_id
    assert {"seats": 12} == message.properties["$group_set"]


@pytest.mark.parametrize(
    ("given_set", "expected", "told"),
    [(None, {}, 0), ({}, {}, 0), ({"seats": 1}, {"seats": 1}, 0), ("gold", {}, 1), ([1], {}, 1)],
    ids=repr,
)
def test_a_groups_properties_that_are_none_are_told_of(
    given_set: Any, expected: Any, told: int
) -> None:
    """What is no mapping is left out, and not in silence."""
    properties = {"$group_type": "team", "$group_key": "9", "$group_set": given_set}
    said = {"event": "$groupidentify", "properties": properties}

    assert ["bad group_set"] * told == topics(**said)
    assert expected == built(**said).properties["$group_set"]


@pytest.mark.parametrize("missing", [None, "", "  ", "\n", float("nan"), Broken()], ids=name_of)
@pytest.mark.parametrize("name", ["type", "key"])
def test_half_a_group_is_refused(name: str, missing: Any) -> None:
    """A group has a type and a key."""
    with pytest.raises(Refused) as caught:
        group(**{"type": "team", "key": "t", name: missing})

    assert "no_group" == caught.value.reason


def test_a_key_of_zero_is_a_key() -> None:
    """The group of the number 0 is a group; only what is blank is none."""
    assert "$team_0" == group(type="team", key=0).distinct_id


def test_groups_with_long_or_odd_keys_stay_two_groups() -> None:
    """A synthetic id has at most 200 bytes and tells long keys apart."""
    one, other = group(type="t", key="x" * 300), group(type="t", key="x" * 299 + "y")

    assert 200 == len(one.distinct_id) == len(other.distinct_id)
    assert one.distinct_id != other.distinct_id
    assert "$t_\ufffd" == group(type="t", key="\ud800").distinct_id


# Properties


def test_precedence_goes_from_the_general_to_the_particular() -> None:
    """Defaults, context, flat extras, ``properties``, named keys, owned: the later wins."""
    ranks = ["defaults", "bound", "flat", "properties", "named", "owned"]
    layers = {rank: {f"p{n}": rank for n in range(at, 6)} for at, rank in enumerate(ranks)}
    message = built(
        defaults={**layers["defaults"], "$groups": {"a": 1, "b": 1}},
        bound=Bound(None, layers["bound"]),
        **layers["flat"],
        properties={**layers["properties"], "p4": 0, "$product_tour_id": 0},
        options={"product_tour_id": "named"},
        groups={"b": 2},
        owned=layers["owned"],
    )

    assert {
        **{f"p{n}": rank for n, rank in enumerate(ranks)},
        "p4": 0,
        "$product_tour_id": "named",
        "$groups": {"a": 1, "b": 2},
    } == message.properties


def test_explicit_identity_wins_over_the_contexts() -> None:
    """The id of the call wins; without one the context's is the person's."""
    bound = Bound("bound", {})

    assert "user-1" == built(bound=bound).distinct_id
    assert "bound" == built(bound=bound, distinct_id=None).distinct_id
    assert "$process_person_profile" not in built(bound=bound, distinct_id=None).properties


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"set": {"a": 1}}, {"$set": {"a": 1}}),
        ({"set": {"a": 1}, "properties": {"$set": {"b": 2}}}, {"$set": {"a": 1, "b": 2}}),
        ({"set": {"a": 1}, "properties": {"$set": 5}}, {"$set": {"a": 1}}),
        ({"set_once": {"a": 1}}, {"$set_once": {"a": 1}}),
        ({"groups": {"team": 1}}, {"$groups": {"team": 1}}),
        ({"set": 5, "groups": "g"}, {"set": 5, "groups": "g"}),
        ({"options": {"process_person_profile": False}}, {"$process_person_profile": False}),
        ({"options": {"disable_skew_correction": True}}, {"$ignore_sent_at": True}),
        ({"options": {"cookieless_mode": True}}, {"$cookieless_mode": True}),
        ({"options": {"product_tour_id": "t"}}, {"$product_tour_id": "t"}),
        ({"options": {"later": 1}}, {"$options": {"later": 1}}),
        ({"options": 5}, {"options": 5}),
        ({"properties": [1]}, {"properties": [1]}),
        ({"properties": None, "set": None, "groups": None, "options": None}, {}),
        ({"colour": "red", "properties": {"size": 1}}, {"colour": "red", "size": 1}),
    ],
    ids=repr,
)
def test_named_keys_become_posthogs_properties(said: Any, expected: Any) -> None:
    """Each key with a meaning has its place; what has the wrong type becomes a property."""
    assert expected == built(**said).properties


MISTAKES = {
    "kind": "identfy",
    "previous_id": "old",
    "properties": 5,
    "set": "x",
    "set_once": ["x"],
    "groups": "acme",
    "options": True,
}


@pytest.mark.parametrize(("key", "value"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_in_a_key_with_a_meaning_is_told_of_by_name(key: str, value: Any) -> None:
    """What cannot be meant is sent as a property, and whoever wrote it learns of it."""
    told: list[tuple[str, str]] = []
    message = built(warn=lambda *one: told.append(one), **{key: value})

    assert {key: value} == message.properties
    assert [key] == [topic for topic, _ in told]
    assert told[0][1].startswith(f"{key}: ")


@pytest.mark.parametrize(
    "groups",
    [
        {"team": 9},
        types.SimpleNamespace(team=9),
        Proxy({"team": 9}),
        UserDict(team=9),
        "acme",
        None,
        Proxy(None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_groups_of_the_context_are_groups(groups: Any) -> None:
    """They mean the same as in ``extra``, with the outer ones, and a mistake is told of."""
    with context.identity("user-1", groups={"hall": 3}):
        context.bind(groups=groups)
        bound = context.current()
    said = {"groups": groups, "properties": {"$groups": {"hall": 3}}}

    assert built(**said).properties == built(bound=bound).properties
    assert topics(**said) == topics(bound=bound)


class Endless(collections.abc.Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Any:
        return map(str, itertools.count())

    def __len__(self) -> int:
        raise OverflowError


@pytest.mark.parametrize("key", ["properties", "set", "set_once", "groups", "options"])
def test_a_mapping_without_an_end_ends(key: str) -> None:
    """Of a mapping that has no end, as much is taken as of any container."""
    found = built(**{key: Endless()}).properties
    held = found.get(f"${key}", found)  # of options, those that nobody knows

    assert (10_001, "more keys") == (len(held), held["[cut]"])


def test_what_stands_behind_a_proxy_counts_everywhere() -> None:
    """Proxies of mappings, groups and kinds are what they stand for."""
    message = built(
        kind=Proxy("page"),
        properties=Proxy({"a": 1}),
        groups=Proxy({"team": 9}),
        set=Proxy(types.SimpleNamespace(plan="gold")),
        options=Proxy({"product_tour_id": "t"}),
    )

    assert "$pageview" == message.event
    assert {
        "a": 1,
        "$groups": {"team": 9},
        "$set": {"plan": "gold"},
        "$product_tour_id": "t",
    } == message.properties


@pytest.mark.parametrize("nobody", [Proxy(None), Proxy("anonymous")], ids=["None", "anonymous"])
def test_a_proxy_of_nobody_is_nobody(nobody: Any) -> None:
    """A proxy of None is no id, whatever its text."""
    assert False is built(distinct_id=nobody).properties["$process_person_profile"]


def test_a_proxy_of_none_is_absent() -> None:
    """Whatever the key: what is bound, the message and the record's time count."""
    keys = "event distinct_id properties groups set set_once options uuid timestamp".split()
    fields = dict.fromkeys(keys, Proxy(None))

    assert "bound" == built(**fields, bound=Bound("bound", {})).distinct_id
    assert built(**dict.fromkeys(keys)).properties == built(**fields).properties
    assert [] == topics(**fields, bound=Bound("bound", {}))


# The visitor before the login


def test_an_identify_names_the_visitor() -> None:
    """``anonymous_id`` is who the person was before: PostHog's ``$anon_distinct_id``."""
    message = built(kind="identify", set={"plan": "gold"}, anonymous_id=b"visitor-1")

    assert {"$set": {"plan": "gold"}, "$anon_distinct_id": "visitor-1"} == message.properties


def test_a_visitor_is_the_person_of_an_event_without_an_id() -> None:
    """Where nobody else is known, the event is the visitor's; who is bound comes first."""
    one = built(distinct_id=None, anonymous_id="visitor-1")
    other = built(distinct_id=None, anonymous_id="visitor-1", bound=Bound("bound", {}))

    assert ("visitor-1", {"$anon_distinct_id": "visitor-1"}) == (one.distinct_id, one.properties)
    assert "bound" == other.distinct_id


@pytest.mark.parametrize("visitor", [None, "", "anonymous", Broken()], ids=name_of)
def test_a_visitor_who_is_nobody_is_left_out(visitor: Any) -> None:
    """An id that names nobody merges nobody; the warning names its key."""
    assert {} == built(anonymous_id=visitor).properties
    assert visitor is None or ["illegal anonymous_id"] == topics(anonymous_id=visitor)
    assert "no_distinct_id" == refused(distinct_id=None, kind="identify", anonymous_id="v")


def test_an_alias_to_itself_is_refused() -> None:
    """Two ids that are one cannot be merged."""
    assert "alias_to_itself" == refused(kind="alias", previous_id="user-1", distinct_id=" user-1")
    assert "alias_to_itself" == refused(event="$create_alias", properties={"alias": "user-1"})


def test_one_key_with_a_meaning_is_enough() -> None:
    """Named keys count in the shortest of calls, too, where only one thing more is said."""
    moment = "2024-01-02T03:04:05.000000Z"

    assert moment == assemble({"distinct_id": "u", "timestamp": moment}, "x", CREATED).timestamp
    assert {"$set": {"a": 1}} == assemble(
        {"distinct_id": "u", "set": {"a": 1}}, "x", CREATED
    ).properties


def test_flat_extras_can_be_left_out() -> None:
    """Without *flat* only what has a meaning is taken."""
    assert {"b": 2} == built(flat=False, a=1, properties={"b": 2}).properties


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"kind": "page"}, {}),
        ({"kind": "page", "event": "$pageview"}, {}),
        ({"kind": "page", "event": "played"}, {"kind": "page"}),
        ({"kind": "unheard of"}, {"kind": "unheard of"}),
        ({"kind": ["page"]}, {"kind": ["page"]}),
        ({"kind": None, "previous_id": None}, {}),
        ({"previous_id": "old"}, {"previous_id": "old"}),
        ({"kind": "alias", "previous_id": "old"}, {"alias": "user-1", "distinct_id": "old"}),
        ({"kind": "odd", "flat": False}, {"kind": "odd"}),
        ({"kind": "odd", "properties": {"kind": "own"}}, {"kind": "own"}),
        ({"kind": "odd", "bound": Bound("u", {"kind": "bound"})}, {"kind": "odd"}),
    ],
    ids=str,
)
def test_what_means_nothing_to_the_event_is_a_property(
    said: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A kind that names nothing, and an earlier id of no alias, do not vanish in silence."""
    assert expected == built(**said).properties


def test_the_callers_objects_are_not_changed() -> None:
    """`assemble` writes into dicts of its own only."""
    said = {"event": "$create_alias", "previous_id": "old", "properties": {"$set": {"a": 1}}}
    defaults, before = {"d": 1}, repr(said)
    built(**said, set={"b": 2}, defaults=defaults)

    assert (before, {"d": 1}) == (repr(said), defaults)


# Times


def local(naive: dt.datetime) -> str:
    """Return what a naive moment is in UTC, on this machine."""
    moment = dt.datetime.fromtimestamp(naive.timestamp(), dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


PLUS_3 = dt.timezone(dt.timedelta(hours=3))
RECORDS = "2024-01-02T03:04:05.671875Z"
MOMENTS: dict[str, tuple[Any, str]] = {
    "aware": (dt.datetime(2024, 1, 2, 6, 4, 5, 7, PLUS_3), "2024-01-02T03:04:05.000007Z"),
    "Z": ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05.000000Z"),
    "z": (" 2024-01-02t03:04:05z ", "2024-01-02T03:04:05.000000Z"),
    "offset": ("2024-01-02T06:04:05+03:00", "2024-01-02T03:04:05.000000Z"),
    "offset without colon": ("2024-01-02T06:04:05.5+0300", "2024-01-02T03:04:05.500000Z"),
    "offset of hours": ("2024-01-01T21:34:05-0530", "2024-01-02T03:04:05.000000Z"),
    "short offset": ("2024-01-02T06:04:05+03", "2024-01-02T03:04:05.000000Z"),
    "offset without seconds": ("2024-01-02 06:04+03", "2024-01-02T03:04:00.000000Z"),
    "one digit": ("2024-01-02T03:04:05.1Z", "2024-01-02T03:04:05.100000Z"),
    "nine digits": ("2024-01-02T03:04:05.123456789Z", "2024-01-02T03:04:05.123456Z"),
    "comma": ("2024-01-02T03:04:05,25Z", "2024-01-02T03:04:05.250000Z"),
    "epoch": (1_704_164_645, "2024-01-02T03:04:05.000000Z"),
    "float epoch": (1_704_164_645.5, "2024-01-02T03:04:05.500000Z"),
    "decimal epoch": (decimal.Decimal("1704164645.5"), "2024-01-02T03:04:05.500000Z"),
    "before the epoch": (-1.5, "1969-12-31T23:59:58.500000Z"),
    "date": (dt.date(2024, 1, 2), local(dt.datetime(2024, 1, 2))),
    "proxy": (Proxy(dt.datetime(2024, 1, 2, tzinfo=dt.UTC)), "2024-01-02T00:00:00.000000Z"),
    "arrow": (Arrow(), "2024-01-02T03:04:05.000000Z"),
    "proxy of a text": (Proxy("2024-01-02T03:04:05Z"), "2024-01-02T03:04:05.000000Z"),
    "year 999": (dt.datetime(999, 1, 2, tzinfo=dt.UTC), "0999-01-02T00:00:00.000000Z"),
}


@pytest.mark.parametrize(("moment", "expected"), MOMENTS.values(), ids=MOMENTS)
def test_timestamps_are_sent_in_utc(moment: Any, expected: str) -> None:
    """Every way to say a moment gives the same instant, in UTC and with microseconds."""
    assert expected == built(timestamp=moment).timestamp
    assert [] == topics(timestamp=moment)


def test_numpys_moments_are_in_utc() -> None:
    """``datetime64`` of any unit is a moment in UTC; NaT is none."""
    numpy = pytest.importorskip("numpy")

    for unit in ("D", "s", "us", "ns"):
        moment = numpy.datetime64("2024-01-02", unit)
        assert "2024-01-02T00:00:00.000000Z" == built(timestamp=moment).timestamp
    assert ["bad timestamp"] == topics(timestamp=numpy.datetime64("NaT", "ns"))
    assert ["illegal distinct_id"] == topics(distinct_id=numpy.datetime64("NaT", "ns"))


def test_pandas_moments_are_moments() -> None:
    """A ``Timestamp`` is a datetime, and NaT none."""
    pandas = pytest.importorskip("pandas")
    moment = pandas.Timestamp("2024-01-02T03:04:05Z")

    assert "2024-01-02T03:04:05.000000Z" == built(timestamp=moment).timestamp
    assert ["bad timestamp"] == topics(timestamp=pandas.NaT)
    assert ["illegal distinct_id"] == topics(distinct_id=pandas.NaT)
    assert "NaT" == built(distinct_id="NaT").distinct_id


@pytest.mark.parametrize(
    "created",
    [1_704_164_645_000.0, float("nan"), float("inf"), -1e12, 10**400, None, "now", Broken()],
    ids=name_of,
)
def test_an_impossible_time_of_a_record_is_now(created: Any) -> None:
    """Milliseconds, or what is no time at all, cost the time and not the event."""
    told: list[str] = []
    before = time.time()
    message = built(created=created, warn=lambda topic, text: told.append(topic))
    moment = dt.datetime.fromisoformat(message.timestamp).timestamp()

    assert ["bad time"] == told
    assert before - 1 <= moment <= time.time() + 1
    assert 7 == uuid.UUID(message.uuid).version
    assert message.timestamp[:4] == stamp(created)[1][:4] or isinstance(created, Broken)


@pytest.mark.parametrize("as_text", [False, True], ids=["datetime", "text"])
def test_naive_means_local_time(as_text: bool) -> None:
    """A naive moment is the machine's, as everywhere in the standard library."""
    naive = dt.datetime(2024, 7, 2, 3, 4, 5, 600_000)
    expected = dt.datetime.fromtimestamp(naive.timestamp(), dt.UTC)

    found = built(timestamp=naive.isoformat() if as_text else naive).timestamp

    assert expected.strftime("%Y-%m-%dT%H:%M:%S.%fZ") == found


class BrokenZone(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "moment",
    [
        True,
        Proxy("yesterday"),
        dt.time(3, 4),
        float("nan"),
        float("inf"),
        10**400,
        1_704_164_645_000_000,
        "",
        "yesterday",
        "1704164645",
        "2024-13-01T00:00:00Z",
        b"2024-01-02T03:04:05Z",
        1_704_164_645_000,
        ["2024"],
        object(),
        Broken(),
        dt.datetime(2024, 1, 2, tzinfo=BrokenZone()),
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-5))),
    ],
    ids=lambda moment: type(moment).__name__,
)
def test_what_is_no_moment_is_replaced_by_the_records(moment: Any) -> None:
    """A timestamp that cannot be read costs the timestamp, and not the event."""
    assert RECORDS == built(timestamp=moment).timestamp
    assert ["bad timestamp"] == topics(timestamp=moment)


@given(
    st.datetimes(
        timezones=st.timezones(), min_value=dt.datetime(2, 1, 1), max_value=dt.datetime(9998, 1, 1)
    )
)
def test_any_moment_is_the_same_instant_in_utc(moment: dt.datetime) -> None:
    """Whatever the zone, the instant stays."""
    found = built(timestamp=moment).timestamp

    assert MOMENT.fullmatch(found)
    offset = moment.utcoffset()
    assert offset is not None
    assert moment.replace(tzinfo=None) - offset == dt.datetime.fromisoformat(found[:-1])


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        (CREATED, RECORDS),
        (0, "1970-01-01T00:00:00.000000Z"),
        (-0.5, "1969-12-31T23:59:59.500000Z"),
        (-32_000_000_000.0, "0955-12-17T15:06:40.000000Z"),
        (1_704_164_645.999999, "2024-01-02T03:04:05.999999Z"),
    ],
    ids=str,
)
def test_the_records_moment_is_sent_in_the_same_form(created: float, expected: str) -> None:
    """Without a timestamp the record's own is sent, before the epoch and the year 1000 too."""
    found = built(created=created).timestamp

    assert MOMENT.fullmatch(found)
    shown, meant = (dt.datetime.fromisoformat(m[:-1]) for m in (found, expected))
    assert abs(shown - meant) <= dt.timedelta(microseconds=1)  # floats are not exact


# Uuids


NAME = "01890b5c-2a3b-7c4d-8e5f-0123456789ab"


@pytest.mark.parametrize(
    "name",
    [
        NAME,
        NAME.upper(),
        NAME.replace("-", ""),
        f"{{{NAME}}}",
        f"urn:uuid:{NAME}",
        uuid.UUID(NAME),
    ],
    ids=str,
)
def test_uuids_are_sent_in_the_canonical_form(name: Any) -> None:
    """Every spelling of a UUID is the same one."""
    assert NAME == built(uuid=name).uuid


@pytest.mark.parametrize("name", ["order-7", 7, "\ud800", ["x"]], ids=repr)
def test_what_is_no_uuid_becomes_the_same_one_each_time(name: Any) -> None:
    """An id that the caller derived from something still makes a repetition recognisable."""
    found = built(uuid=name).uuid

    assert found == built(uuid=name).uuid
    assert 5 == uuid.UUID(found).version
    assert found != built(uuid="another").uuid
    assert ["bad uuid"] == topics(uuid=name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (NAME.upper(), NAME.upper()),
        (uuid.UUID(NAME), NAME),
        (Proxy("m-1"), "m-1"),
        (b"m-1", "m-1"),
        (7, "7"),
        (" m\0 ", "m\ufffd"),
    ],
    ids=repr,
)
def test_an_id_may_be_any_text_where_the_server_takes_it(name: Any, expected: str) -> None:
    """Segment's servers tell repetitions by the id as it was given."""
    assert expected == built(uuid=name, any_id=True).uuid
    assert 7 == uuid.UUID(built(uuid="", any_id=True).uuid).version


@pytest.mark.parametrize("name", [" m", "m\n", "m\0", "m" * 201], ids=repr)
def test_an_id_that_cannot_stay_is_told_of(name: str) -> None:
    """The other side finds a repetition only by what was sent."""
    assert built(uuid=name, any_id=True).uuid != name
    assert ["bad uuid"] == topics(uuid=name, any_id=True)
    assert [] == topics(uuid="m" * 200, any_id=True)


@pytest.mark.parametrize("key", ["$session_id", "$window_id"])
def test_a_session_that_is_no_text_is_left_out(key: str) -> None:
    """PostHog refuses a whole batch for it, so it must not go."""
    for good in ("s-1", b"s-1", uuid.UUID(NAME), Event.PLAYED, Proxy("s-1")):
        assert {key: good} == built(properties={key: good}).properties
    for bad in (7, None, ["s"], Event.NUMBER):
        assert {} == built(properties={key: bad}).properties
        assert [f"bad {key}"] == topics(properties={key: bad})


async def _new_id() -> str:
    return "user-1"


FORGOTTEN = {
    "function": uuid.uuid4,
    "method": Event.PLAYED.__reduce__,
    "method of C": "user-1".strip,
    "class": uuid.UUID,
    "partial": functools.partial(str, 1),
    "property": property(str),
    "async function": _new_id,
    "generator": (one for one in "user-1"),
    "iterator": iter(["user-1"]),
}


@pytest.mark.parametrize("forgotten", FORGOTTEN.values(), ids=FORGOTTEN)
def test_a_call_that_was_forgotten_is_no_id(forgotten: Any) -> None:
    """The text of a function is the same for every event: it would make all of them one."""
    one, other = (built(uuid=forgotten, any_id=True).uuid for _ in range(2))

    assert one != other
    assert ["bad uuid"] == topics(uuid=forgotten)
    assert False is built(distinct_id=forgotten).properties["$process_person_profile"]
    with pytest.raises(Refused, match="no_group"):
        built(event="$groupidentify", properties={"$group_type": "c", "$group_key": forgotten})


def test_an_enum_may_have_a_member_of_any_name() -> None:
    """Such as ``keys``, the name of a method of mappings."""
    kinds = enum.StrEnum("kinds", {"A": "a", "keys": "k"})  # type: ignore[misc]
    message = assemble({"distinct_id": kinds.A}, "e", CREATED)

    assert "a" == message.distinct_id


def test_an_await_that_was_forgotten_is_no_id() -> None:
    """A coroutine in place of what it returns names nobody, and no event."""
    forgotten = _new_id()
    topic = topics(distinct_id=forgotten, uuid=forgotten)
    forgotten.close()

    assert ["illegal distinct_id", "bad uuid"] == topic


@pytest.mark.parametrize("missing", ["", float("nan"), "None", False, Proxy(None)], ids=repr)
@pytest.mark.parametrize("any_id", [False, True])
def test_a_missing_uuid_is_none(missing: Any, any_id: bool) -> None:
    """It must not make all such events one: a cell of a table without a value is NaN."""
    one, other = (built(uuid=missing, any_id=any_id).uuid for _ in range(2))
    is_absent = missing == "" or isinstance(missing, Proxy)

    assert one != other
    assert 7 == uuid.UUID(one).version
    assert ([] if is_absent else ["bad uuid"]) == topics(uuid=missing, any_id=any_id)


# What a record carries


def record(**extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "tests", "levelno": 20, "msg": "hello %s"})
    made.__dict__.update(extra)
    return made


def test_only_what_opts_in_is_an_event() -> None:
    """A record is an event if it carries ``distinct_id`` or ``event``, whatever their value."""
    assert not is_event(record(properties={"a": 1}))
    assert is_event(record(event=None))
    assert is_event(record(distinct_id=None))


class Early(logging.LogRecord):
    """A record of a factory that adds its own before the standard ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.tenant = "t-1"
        super().__init__(*args, **kwargs)


class Late(logging.LogRecord):
    """A record of a factory that adds its own after the standard ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tenant = "t-1"


def made_by(kind: type[logging.LogRecord], *deleted: str) -> logging.LogRecord:
    made = kind("tests", 20, __file__, 1, "hello", (), None)
    for name in deleted:
        delattr(made, name)
    made.__dict__.update(EXTRA)
    return made


EXTRA = {"event": "played", "colour": "red"}


@pytest.mark.parametrize(
    "deleted", [(), ("args", "exc_text"), ("processName",), ("name",)], ids=str
)
@pytest.mark.parametrize("kind", [logging.LogRecord, Early, Late])
def test_extras_are_found_in_the_records_of_any_factory(kind: Any, deleted: Any) -> None:
    """What a factory adds, before or after the standard attributes, is an extra; no other is."""
    tenant = {} if kind is logging.LogRecord else {"tenant": "t-1"}

    assert {**tenant, **EXTRA} == fields_of(made_by(kind, *deleted))


def test_what_another_handler_left_is_no_extra() -> None:
    """``message``, ``asctime`` and cached exceptions are another formatter's, not the caller's."""
    shown = record(**EXTRA, args=("you",))
    logging.Formatter("%(asctime)s %(message)s").format(shown)

    assert {"message", "asctime"} <= set(shown.__dict__)
    assert EXTRA == fields_of(shown)


@pytest.mark.parametrize(
    "travelled",
    [
        lambda made: pickle.loads(pickle.dumps(made)),
        lambda made: logging.makeLogRecord(made.__dict__),
        lambda made: logging.makeLogRecord(dict(sorted(made.__dict__.items()))),
        lambda made: logging.makeLogRecord({**EXTRA, **made.__dict__}),
    ],
    ids=["pickled", "copied", "sorted", "extras first"],
)
def test_records_that_travelled_keep_their_extras(travelled: Any) -> None:
    """A record that was pickled or rebuilt says what it said before."""
    assert EXTRA == fields_of(travelled(record(**EXTRA, taskName=None)))


def test_a_real_log_call_says_its_extras() -> None:
    """The way from ``logger.info`` is the same."""
    seen: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    log = logging.getLogger("tests.message")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(Keep())
    log.info("hello", extra=EXTRA)
    log.handlers.clear()

    assert EXTRA == fields_of(seen[0])


# Stamps


def test_stamps_are_uuids_of_version_7() -> None:
    """An id is a valid UUIDv7 of the moment's second, a timestamp RFC 3339 in UTC."""
    name, moment = stamp(CREATED)
    found = uuid.UUID(name)

    assert (7, uuid.RFC_4122, name) == (found.version, found.variant, str(found))
    assert abs((found.int >> 80) - CREATED * 1000) <= 1000
    assert RECORDS == moment


def test_stamps_do_not_go_back() -> None:
    """In one thread later ids of a moment are greater, and timestamps follow the clock."""
    names = [stamp(CREATED)[0] for _ in range(1000)]
    moments = [stamp(time.time())[1] for _ in range(1000)]

    assert sorted(set(names)) == names
    assert sorted(moments) == moments


def test_stamps_are_unique_over_threads() -> None:
    """Eight threads draw 20,000 ids each, over the turns of seconds, and no two are the same."""
    found: list[list[str]] = [[] for _ in range(8)]
    ready = threading.Barrier(8)

    def draw(mine: list[str]) -> None:
        ready.wait()
        mine.extend(stamp(CREATED + n / 5_000)[0] for n in range(20_000))

    threads = [threading.Thread(target=draw, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    names = [name for mine in found for name in mine]
    assert (160_000, 160_000) == (len(names), len(set(names)))
    assert all(7 == uuid.UUID(name).version for name in names[::97])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_stamps_are_unique_over_forks() -> None:
    """Forked children of one parent, in the same second, draw other ids than it and each other."""
    stamp(CREATED)
    names = [stamp(CREATED)[0] for _ in range(100)]
    for _ in range(4):
        source, sink = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - ends without a report
            os.close(source)
            os.write(sink, "\n".join(stamp(CREATED)[0] for _ in range(100)).encode())
            os._exit(0)
        os.close(sink)
        with os.fdopen(source) as lines:
            names += lines.read().split("\n")
        os.waitpid(child, 0)

    assert (500, 500) == (len(names), len(set(names)))
