"""The old clients' modules: their own documented examples run, word for word, and arrive."""

from __future__ import annotations

import datetime as dt
import gc
import importlib
import logging
import sys
import weakref

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from posthog_logging.compat.settings import changed, options_of
from posthog_logging.compat.timestamps import zoned


NAMES = ("posthog", "segment", "metarouter", "rudderstack")


def fresh(name: str) -> ModuleType:
    """Return the compat module of this name as a program sees it that just imported it."""
    full = f"posthog_logging.compat.{name}"
    sys.modules.pop(full, None)
    return importlib.import_module(full)


@pytest.fixture
def load(inspector: Any) -> Iterator[Callable[[str], ModuleType]]:
    """A loader of fresh modules whose host is the inspector; they are closed in the end."""
    made: list[ModuleType] = []

    def load(name: str) -> ModuleType:
        module = fresh(name)
        module.host = inspector.url  # type: ignore[attr-defined]
        made.append(module)
        return module

    yield load
    for module in made:
        if module.default_client is not None:
            module.default_client.analytics.close()


# What the old clients' own pages show.

POSTHOG_1 = """
posthog.write_key = 'YOUR API KEY'
posthog.debug = True
posthog.capture('distinct id', 'movie played', {'movie_id': '123', 'category': 'romcom'})
posthog.capture('distinct id', {
    'email': 'dwayne@gmail.com',
    'name': 'Dwayne Johnson'
})
posthog.identify('distinct id', {
    'email': 'dwayne@gmail.com',
    'name': 'Dwayne Johnson'
})
posthog.alias('anonymous session id', 'distinct id')
posthog.capture('distinct id', '$pageview', {'$current_url': 'https://example.com'})
posthog.shutdown()
"""
POSTHOG_1_4 = """
posthog.project_api_key = 'phc_key'
posthog.capture('distinct id', 'opened app')
posthog.capture('distinct id', 'purchase', groups={'company': 'id:5'})
posthog.set('distinct id', {
    'current_browser': 'Chrome',
})
posthog.set_once('distinct id', {
    'referred_by': 'friend',
})
posthog.group_identify('company', 5, {
    'employees': 11,
})
posthog.page('distinct id', 'https://example.org/docs')
posthog.join()
"""
POSTHOG_6 = """
posthog.api_key = 'phc_key'
posthog.capture('some-anon-event')
with posthog.new_context():
    posthog.identify_context('distinct_id_of_the_user')
    posthog.capture('user_signed_up')
    posthog.capture('user_logged_in')
    posthog.capture('some-custom-action', distinct_id='distinct_id_of_the_user')
posthog.capture(
    "user_signed_up",
    distinct_id="distinct_id_of_the_user",
    properties={"login_type": "email", "is_free_trial": "true"}
)
with posthog.new_context():
    posthog.tag("request_id", "123")
    posthog.capture("event_name", {"property": "value"})
posthog.set(distinct_id='user123', properties={'name': 'Max Hedgehog'})
posthog.set_once(distinct_id='user123', properties={'initial_url': '/blog'})
posthog.group_identify('company', 'company_id_in_your_db', {
    'name': 'Awesome Inc.',
    'employees': 11
})
posthog.alias('frontend_id', 'backend_id')
try:
    1 / 0
except Exception as e:
    posthog.capture_exception(e)
posthog.flush()
"""
SEGMENT = """
analytics.write_key = 'YOUR_WRITE_KEY'
def on_error(error, items):
    print("An error occurred:", error)
analytics.debug = True
analytics.on_error = on_error
analytics.identify('019mr8mf4r', {
    'email': 'rosina@example.org',
    'name': 'Rosina Hughes',
    'friends': 42
})
analytics.track('f4ca124298', 'Signed Up', {
  'plan': 'Enterprise'
})
analytics.page('4', 'Docs', 'Python', {
  'url': 'http://example.org/'
})
analytics.screen('user_id', 'Settings', 'Brightness', {
  'from': 'Settings Screen'
})
analytics.group('user_id', 'group_id', {
  'name': 'Initech',
  'description': 'Accounting Software'
})
analytics.alias('previous_id', 'user_id')
analytics.track(user_id='user_id', event='Signed Up', context={'ip': '192.0.2.1'})
analytics.flush()
"""


def run(example: str, name: str, load: Callable[[str], ModuleType]) -> ModuleType:
    """Run *example* on the module of this name, under both names that programs give it."""
    module = load(name)
    exec(example, {"posthog": module, "analytics": module, "rudder_analytics": module})
    return module


def events(module: ModuleType, inspector: Any) -> list[tuple[str, str]]:
    """Return what arrived, in its order, by id and name."""
    module.flush()
    return [(event.distinct_id, event.event) for event in inspector.events]


def test_posthog_1(load: Any, inspector: Any) -> None:
    """The first page of posthog-python runs, also where it calls capture with a dict."""
    module = run(POSTHOG_1, "posthog", load)
    arrived = events(module, inspector)

    assert ("distinct id", "movie played") == arrived[0]
    assert "distinct id" == arrived[1][1]  # as from version 6 on: the event, then properties
    assert [
        ("distinct id", "$identify"),
        ("anonymous session id", "$create_alias"),
        ("distinct id", "$pageview"),
    ] == arrived[2:]
    assert {"email": "dwayne@gmail.com", "name": "Dwayne Johnson"} == inspector.events[
        2
    ].properties["$set"]
    assert [] == inspector.bad


def test_posthog_1_to_5(load: Any, inspector: Any) -> None:
    """The id comes first where there are two arguments; group_identify needs none."""
    module = run(POSTHOG_1_4, "posthog", load)
    arrived = events(module, inspector)

    assert [
        ("distinct id", "opened app"),
        ("distinct id", "purchase"),
        ("distinct id", "$set"),
        ("distinct id", "$set"),
    ] == arrived[:4]
    assert ["$groupidentify", "$pageview"] == [name for _, name in arrived[4:]]
    assert {"company": "id:5"} == inspector.events[1].properties["$groups"]
    assert {"referred_by": "friend"} == inspector.events[3].properties["$set_once"]
    assert "https://example.org/docs" == inspector.events[5].properties["$current_url"]
    assert [] == inspector.bad


def test_posthog_6_and_7(load: Any, inspector: Any) -> None:
    """The event comes first where there is one argument; contexts give the id and the tags."""
    module = run(POSTHOG_6, "posthog", load)
    arrived = events(module, inspector)
    names = [name for _, name in arrived]

    assert [
        "some-anon-event",
        "user_signed_up",
        "user_logged_in",
        "some-custom-action",
        "user_signed_up",
        "event_name",
        "$set",
        "$set",
        "$groupidentify",
        "$create_alias",
        "$exception",
    ] == names
    assert {"distinct_id_of_the_user"} == {who for who, _ in arrived[1:5]}
    assert inspector.events[0].properties["$process_person_profile"] is False
    tagged = inspector.events[5].properties
    assert ("123", "value") == (tagged["request_id"], tagged["property"])
    assert [] == inspector.bad


@pytest.mark.parametrize("name", ["segment", "metarouter", "rudderstack"])
def test_segments_family(name: str, load: Any, inspector: Any) -> None:
    """The pages of Segment's clients run on each of the family."""
    module = run(SEGMENT, name, load)
    arrived = events(module, inspector)

    assert [
        ("019mr8mf4r", "identify"),
        ("f4ca124298", "track"),
        ("4", "page"),
        ("user_id", "screen"),
        ("user_id", "group"),
        ("previous_id", "alias"),
        ("user_id", "track"),
    ] == [
        (who, event.raw["type"]) for (who, _), event in zip(arrived, inspector.events, strict=True)
    ]
    assert "192.0.2.1" == inspector.events[6].raw["context"]["ip"]
    assert [] == inspector.bad


# The keys, the settings, the classes.


@pytest.mark.parametrize("key", ["write_key", "api_key", "project_api_key"])
def test_posthogs_key_has_three_names(key: str, load: Any, inspector: Any) -> None:
    """Each of the names that the key has had is the key."""
    module = load("posthog")
    setattr(module, key, "phc_mine")
    module.capture("user-1", "movie played")
    module.flush()

    assert "phc_mine" == key_of(inspector)
    assert ["movie played"] == [event.event for event in inspector.events]


@pytest.mark.parametrize("key", ["write_key", "app_id"])
def test_metarouters_key_has_two_names(key: str, load: Any, inspector: Any) -> None:
    """The source's id is the key."""
    module = load("metarouter")
    setattr(module, key, "source-1")
    module.track("user-1", "movie played")
    module.flush()

    assert "source-1" == inspector.events[0].raw["writeKey"]


def key_of(inspector: Any) -> str:
    """Return the key of the last request, in the body or in the header."""
    request = inspector.requests[-1]
    bearer: str = request.headers.get("authorization", "")
    return request.payload.get("api_key") or bearer.removeprefix("Bearer ")


@pytest.mark.parametrize("first", ["Posthog", "Client"])
def test_posthogs_classes(first: str, inspector: Any) -> None:
    """Both classes take the key and the host in this order, or by each of their names."""
    module = fresh("posthog")
    made = getattr(module, first)
    clients = [
        made("phc_1", inspector.url),
        made("phc_2", host=inspector.url),
        made(project_api_key="phc_3", host=inspector.url),
        made(api_key="phc_4", host=inspector.url, flush_at=1, thread=1),
    ]
    for client in clients:
        uuid = client.capture("user-1", "movie played")
        client.shutdown()

        assert uuid == inspector.events[-1].uuid

    assert 4 == len(inspector.events)


def test_segments_client_answers_as_before(inspector: Any) -> None:
    """A call returns whether it was accepted, and the message."""
    client = fresh("segment").Client("key", inspector.url, upload_size=1)
    accepted, message = client.track("user-1", "movie played", {"movie_id": "123"})
    refused, nothing = client.track("user-1", "movie played", no_such="argument")
    client.flush()
    client.join()
    (event,) = inspector.events

    assert accepted
    assert (event.uuid, "user-1", "track") == (
        message["messageId"],
        message["userId"],
        message["type"],
    )
    assert (False, {}) == (refused, nothing)
    assert 1 == client.analytics.counts["bad_arguments"]


def test_disabled_at_any_time(load: Any, inspector: Any) -> None:
    """``disabled`` is read at every call, and takes nothing while it is True."""
    module = load("posthog")
    module.api_key = "phc_test"
    module.disabled = True
    module.capture("user-1", "one")
    module.disabled = False
    module.capture("user-1", "two")
    module.disabled = True
    module.capture("user-1", "three")
    module.disabled = False
    module.flush()

    assert ["two"] == [event.event for event in inspector.events]


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_nobody_holds_ends(name: str, inspector: Any) -> None:
    """Its last reference goes: it delivers, and its handler and thread go, too."""
    client = fresh(name).Client("phc_test", host=inspector.url)
    client.identify("user-1", {"plan": "free"})
    gone = weakref.ref(client.analytics.handler)
    del client
    gc.collect()

    assert gone() is None
    assert 1 == len(inspector.wait(count=1, timeout=10.0))


def test_before_send_at_any_time(load: Any, inspector: Any) -> None:
    """``before_send`` that is set after the first call sees every later event."""
    module = load("posthog")
    module.api_key = "phc_test"
    module.capture("user-1", "one")
    module.before_send = lambda event: {**event, "properties": {"seen": True}}
    module.capture("user-1", "two")
    module.flush()

    assert [False, True] == ["seen" in event.properties for event in inspector.events]


def test_super_properties_win(load: Any, inspector: Any) -> None:
    """They are on every event, above the event's own, as there."""
    module = load("posthog")
    module.api_key = "phc_test"
    module.super_properties = {"service": "films", "$geoip_disable": False}
    module.capture("user-1", "one", {"service": "mine", "film": "Playtime"}, disable_geoip=True)
    module.flush()
    found = inspector.events[0].properties

    assert ("films", "Playtime", False) == (
        found["service"],
        found["film"],
        found["$geoip_disable"],
    )


#: Each call about a person or a group, and what of it is not the event's own property.
PERSONAL = {
    "set": (("user-1", {"plan": "gold"}), {"$set": {"plan": "gold"}}),
    "set_once": (("user-1", {"plan": "gold"}), {"$set_once": {"plan": "gold"}}),
    "identify": (("user-1", {"plan": "gold"}), {"$set": {"plan": "gold"}}),
    "group_identify": (("company", "acme", {"seats": 2}), {"$group_set": {"seats": 2}}),
    "alias": (("visitor-7", "user-1"), {"alias": "user-1"}),
}


@pytest.mark.parametrize("name", PERSONAL)
def test_properties_of_all_events_beside_those_of_a_person(
    name: str, load: Any, inspector: Any
) -> None:
    """Super properties and ``disable_geoip`` are the event's, never the person's or group's."""
    args, expected = PERSONAL[name]
    module = load("posthog")
    module.api_key = "phc_test"
    module.super_properties = {"service": "films"}
    assert getattr(module, name)(*args, disable_geoip=False)
    module.flush()
    (found,) = (event.properties for event in inspector.events)

    assert ("films", False) == (found["service"], found["$geoip_disable"])
    assert expected.items() <= found.items()


def test_settings_of_the_handler(load: Any) -> None:
    """What is set before the first call reaches the handler."""
    module = load("posthog")
    module.api_key = "phc_test"
    module.send = False
    module.flush_at = 7
    module.capture_mode = "v1"
    module.capture("user-1", "one")

    assert 1 == module.default_client.analytics.counts["send_is_off"]
    assert "posthog-v1" in repr(module.default_client.analytics)


@pytest.mark.parametrize(
    ("name", "setting", "value", "hint"),
    [
        ("posthog", "personal_api_key", "phx_1", "feature flags stay with the package posthog"),
        ("posthog", "project_root", "/srv/films", "in_app_include"),
        ("segment", "oauth_client_id", "id", "OAuth"),
    ],
)
def test_a_setting_without_effect_is_logged(
    name: str, setting: str, value: Any, hint: str, load: Any, caplog: Any
) -> None:
    """What has no counterpart does not go unnoticed, nor does it show its value."""
    module = load(name)
    setattr(module, setting, value)
    module.send = False
    with caplog.at_level(logging.WARNING, "posthog_logging"):
        module.identify("user-1", {"plan": "gold"})

    assert f"{setting} has no effect here" in caplog.text
    assert hint in caplog.text
    assert "phx_1" not in caplog.text


def test_an_unknown_setting_of_a_client() -> None:
    """A name that no version knew is a TypeError that names it."""
    with pytest.raises(TypeError, match="flash_at"):
        fresh("posthog").Posthog("phc_test", flash_at=1)
    with pytest.raises(ValueError, match="capture_mode"):
        fresh("posthog").Posthog("phc_test", capture_mode="v7")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_attribute(name: str) -> None:
    """It is an AttributeError that names what replaces the old calls."""
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'; see .*Analytics"):
        fresh(name).nothing


@pytest.mark.parametrize("name", ["feature_enabled", "get_feature_flag", "evaluate_flags"])
def test_flags(name: str) -> None:
    """Flags are posthog's: the error says so, on the module and on a client."""
    module = fresh("posthog")
    with pytest.raises(
        AttributeError, match=f"'{name}'; feature flags stay with the package posthog"
    ):
        getattr(module, name)
    client = module.Posthog("phc_test", send=False)
    with pytest.raises(
        AttributeError, match=f"'{name}'; feature flags stay with the package posthog"
    ):
        getattr(client, name)
    client.shutdown()  # else it takes what other tests send to every open handler


def test_every_public_name_of_posthog_7() -> None:
    """Each function and setting of the new client is here, or says what replaces it."""
    theirs = pytest.importorskip("posthog")
    module = fresh("posthog")
    public = {
        name
        for name, value in vars(theirs).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and name.islower()
        and (not callable(value) or getattr(value, "__module__", "") == "posthog")
    }
    unsaid = []
    for name in public:
        try:
            getattr(module, name)
        except AttributeError as error:
            if "see posthog_logging.Analytics" in str(error):
                unsaid.append(name)

    assert [] == sorted(unsaid)
    assert "capture" in public


# Contexts.


def test_contexts_nest_and_end(load: Any, inspector: Any) -> None:
    """A context inherits, a fresh one does not; both end with their blocks."""
    module = load("posthog")
    module.api_key = "phc_test"
    module.tag("outside", True)
    with module.new_context():
        module.identify_context("user-1")
        module.set_context_session("session-1")
        module.tag("outer", 1)
        with module.new_context():
            module.tag("inner", 2)
            module.capture("both")
            assert {"outer": 1, "inner": 2, "$session_id": "session-1"} == module.get_tags()
        with module.new_context(fresh=True):
            assert {} == module.get_tags()
            assert module.get_context_distinct_id() is None
            module.tag("only", 3)
            module.capture("fresh", distinct_id="user-2")
        assert "user-1" == module.get_context_distinct_id()
        assert "session-1" == module.get_context_session_id()
    module.flush()
    both, alone = inspector.events

    assert ("user-1", "user-2") == (both.distinct_id, alone.distinct_id)
    assert ("outer" in alone.properties, alone.properties["only"]) == (False, 3)
    assert {} == module.get_tags()


def test_exceptions_of_a_context(load: Any, inspector: Any) -> None:
    """A context reports what leaves it where that is wanted, and raises it again."""
    module = load("posthog")
    module.api_key = "phc_test"
    for wanted in (True, False, None):
        with pytest.raises(KeyError), module.new_context(capture_exceptions=wanted):
            raise KeyError("film")
    module.flush()

    assert ["$exception"] == [event.event for event in inspector.events]


def test_scoped(load: Any, inspector: Any) -> None:
    """A decorated function has a context of its own at each call."""
    module = load("posthog")
    module.api_key = "phc_test"

    @module.scoped()
    def serve(user: str) -> str:
        module.identify_context(user)
        module.capture("served")
        return user

    assert "user-1" == serve("user-1")
    assert module.get_context_distinct_id() is None
    module.flush()

    assert ["user-1"] == [event.distinct_id for event in inspector.events]


# Wrong arguments, and times.


@pytest.mark.parametrize(
    "call",
    [
        "capture()",
        "capture('user-1', 'one', {}, no_such=1)",
        "set('user-1', {'a': 1}, no_such=1)",
        "group_identify('company')",
        "alias()",
    ],
)
def test_wrong_arguments_never_raise(call: str, load: Any, inspector: Any) -> None:
    """They are refused, counted and logged, whatever is wrong with them."""
    module = load("posthog")
    module.api_key = "phc_test"
    assert eval(f"module.{call}", {"module": module}) is None
    counts = module.default_client.analytics.counts

    assert (1, 0) == (counts["accepted"], counts["delivered"])
    assert 1 == sum(counts.values()) - counts["accepted"]
    assert [] == inspector.events


NOW = dt.datetime(2026, 11, 26, 12, 0, 0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (NOW - dt.timedelta(seconds=4), (NOW - dt.timedelta(seconds=4)).astimezone()),
        (NOW + dt.timedelta(hours=1), (NOW + dt.timedelta(hours=1)).astimezone()),
        (NOW - dt.timedelta(hours=5), (NOW - dt.timedelta(hours=5)).replace(tzinfo=dt.UTC)),
        (NOW.replace(tzinfo=dt.UTC), NOW.replace(tzinfo=dt.UTC)),
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        (None, None),
    ],
    ids=["just now", "to come", "long ago", "with a zone", "text", "none"],
)
def test_times_without_a_zone(given: Any, expected: Any) -> None:
    """They are read as the old clients read them, so that nothing shifts in a migration."""
    found = zoned(given, NOW)

    assert (expected, getattr(expected, "tzinfo", None)) == (found, getattr(found, "tzinfo", None))


def test_times_arrive(load: Any, inspector: Any) -> None:
    """An old time of a database is UTC, in every call that takes one."""
    module = load("posthog")
    module.api_key = "phc_test"
    when = dt.datetime(2024, 1, 2, 3, 4, 5)
    module.capture("user-1", "one", timestamp=when)
    module.set("user-1", {"a": 1}, {}, when)
    module.alias("visitor-1", "user-1", when)
    module.flush()

    assert {"2024-01-02T03:04:05.000000Z"} == {event.timestamp for event in inspector.events}


def test_settings_are_data() -> None:
    """Only what was changed counts, and each name is the handler's, renamed or explained."""
    assert {"b": 2} == changed({"a": 1, "b": 2}, {"a": 1, "b": 1})
    assert {"flush_at": 3, "exception_hooks": True} == options_of(
        "m", {"upload_size": 3, "enable_exception_autocapture": True, "thread": 2}, {}
    )
