"""The ancestors' calls, in their positional order, on our pipeline."""

from __future__ import annotations

import inspect
import logging
import re

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from posthog_logging import Analytics, PostHogHandler
from posthog_logging.analytics import Options
from posthog_logging.events.message import Message
from posthog_logging.wire import Request, Response, find_dialect


UUID = "01890b5c-2a3b-7c4d-8e5f-0123456789ab"
MOMENT = "2024-01-02T03:04:05.000000Z"
CONTEXT = {"ip": "1.2.3.4"}
INTEGRATIONS = {"All": True}
PROPERTIES = {"a": 1}


class Recorder:
    """A transport that keeps what it is given and answers that all is well."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def send(self, request: Request, timeout: float) -> Response:
        self.requests.append(request)
        return Response(200, body=b'{"results":{}}')

    def close(self) -> None:
        """There is nothing to give back."""

    def messages(self, dialect: str = "posthog") -> list[Message]:
        decode = find_dialect(dialect).decode
        return [message for request in self.requests for message in decode(request)]


@pytest.fixture
def recorder() -> Recorder:
    """What the analytics of the same test send to."""
    return Recorder()


@pytest.fixture
def make(recorder: Recorder) -> Iterator[Callable[..., Analytics]]:
    """A maker of analytics with a key of their own, closed in the end."""
    made = []

    def maker(key: str | None = "phc_test", host: str | None = None, **options: Any) -> Analytics:
        made.append(Analytics(key, host, transport=recorder, **options))
        return made[-1]

    yield maker
    for analytics in made:
        analytics.close()


def only(recorder: Recorder, analytics: Analytics) -> Message:
    assert analytics.flush(10.0)
    (message,) = recorder.messages()
    return message


def own(message: Message) -> dict[str, Any]:
    """Return the properties that the call itself made."""
    always = {"$lib", "$lib_version", "$is_server", "$geoip_disable"}
    return {key: value for key, value in message.properties.items() if key not in always}


IP = {"$ip": "1.2.3.4"}
SEGMENTS = (CONTEXT, MOMENT, None, INTEGRATIONS, UUID)  # how Segment's calls end
CALLS: dict[str, tuple[str, tuple[Any, ...], tuple[str, str, dict[str, Any]]]] = {
    "capture": (
        "capture",
        ("u", "played", PROPERTIES, CONTEXT, MOMENT, UUID),
        ("played", "u", {"a": 1, **IP}),
    ),
    "track": ("track", ("u", "played", PROPERTIES, *SEGMENTS), ("played", "u", {"a": 1, **IP})),
    "identify": (
        "identify",
        ("u", PROPERTIES, *SEGMENTS),
        ("$identify", "u", {"$set": {"a": 1}, **IP}),
    ),
    "set": (
        "set",
        ("u", PROPERTIES, {"b": 2}, MOMENT, UUID),
        ("$set", "u", {"$set": {"a": 1}, "$set_once": {"b": 2}}),
    ),
    "alias": (
        "alias",
        ("old", "new", CONTEXT, MOMENT, INTEGRATIONS, UUID),
        ("$create_alias", "old", {"alias": "new", "distinct_id": "old", **IP}),
    ),
    "group": (
        "group",
        ("u", "g", PROPERTIES, *SEGMENTS),
        (
            "$groupidentify",
            "u",
            {"$group_type": "group", "$group_key": "g", "$group_set": {"a": 1}, **IP},
        ),
    ),
    "page": (
        "page",
        ("u", "docs", "Home", PROPERTIES, *SEGMENTS),
        ("$pageview", "u", {"category": "docs", "name": "Home", "a": 1, **IP}),
    ),
    "screen": (
        "screen",
        ("u", "docs", "Home", PROPERTIES, *SEGMENTS),
        ("$screen", "u", {"category": "docs", "$screen_name": "Home", "a": 1, **IP}),
    ),
}


@pytest.mark.parametrize(("name", "args", "expected"), CALLS.values(), ids=CALLS)
def test_each_call_in_the_ancestors_order(
    make: Any, recorder: Recorder, name: str, args: tuple[Any, ...], expected: Any
) -> None:
    """Every positional argument gets to its place, and the event's uuid is returned."""
    analytics = make()

    assert UUID == getattr(analytics, name)(*args)
    message = only(recorder, analytics)
    assert expected == (message.event, message.distinct_id, own(message))
    assert (UUID, MOMENT) == (message.uuid, message.timestamp)


OUT_OF_PLACE: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "for the name": (("Home", {"a": 1}), {"name": "Home", "a": 1}),
    "for the category": (({"a": 1},), {"a": 1}),
    "before the name": (({"a": 1}, "Home"), {"name": "Home", "a": 1}),
    "twice": (("Home", {"a": 1}, {"b": 2}), {"name": "Home", "a": 1, "b": 2}),
}


@pytest.mark.parametrize(("args", "expected"), OUT_OF_PLACE.values(), ids=OUT_OF_PLACE)
@pytest.mark.parametrize("call", ["page", "screen"])
def test_properties_out_of_place(
    make: Any,
    recorder: Recorder,
    caplog: pytest.LogCaptureFixture,
    call: str,
    args: tuple[Any, ...],
    expected: dict[str, Any],
) -> None:
    """Properties in place of a name or a category are properties, and that is logged once."""
    analytics = make()
    for _ in range(2):
        assert getattr(analytics, call)("u", *args)
    analytics.flush(10.0)

    named = {"$screen_name" if (call, key) == ("screen", "name") else key: value
             for key, value in expected.items()}  # fmt: skip
    assert [named, named] == list(map(own, recorder.messages()))
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert f"Analytics.{call} takes (user_id, category, name, properties)" in warning


@pytest.mark.parametrize(
    ("name", "hint"),
    {
        "feature_enabled": "feature flags stay with the package posthog",
        "get_all_flags": "feature flags stay with the package posthog",
        "group_identify": "use group(user_id, group_id, traits, group_type=…)",
        "set_once": "use set(distinct_id, set_once={…})",
        "new_context": "use identity() and bind() of posthog_logging.context",
        "debug": "see `posthog-logging docs migrate`",
    }.items(),
)
def test_calls_of_other_clients_are_answered_with_a_hint(make: Any, name: str, hint: str) -> None:
    """A call that only other clients have raises an AttributeError that says what to use."""
    with pytest.raises(AttributeError, match=re.escape(f"{name!r}; {hint}")):
        getattr(make(), name)
    assert not hasattr(make(), "__array__")


def test_what_is_neither_a_handler_nor_a_key() -> None:
    """A wrong first argument is an error that names it."""
    with pytest.raises(TypeError, match=r"^handler_or_key: must be a PostHogHandler or a key"):
        Analytics(7)  # type: ignore[arg-type]


def test_properties_in_place_of_the_id_identify_nobody(make: Any, recorder: Recorder) -> None:
    """``identify({…})`` is refused: the text of a dict is no person."""
    analytics = make()

    assert analytics.identify({"email": "a@example.org"}) is None
    assert 1 == analytics.counts["no_distinct_id"]
    assert analytics.flush(10.0)
    assert [] == recorder.messages()


@pytest.mark.parametrize("name", ["track", "identify", "page", "screen", "group"])
def test_an_anonymous_id_stands_in_for_a_user(make: Any, recorder: Recorder, name: str) -> None:
    """Segment's anonymous id is the id where there is no other, and known beside it otherwise."""
    analytics = make()
    first = {"track": {"event": "x"}, "group": {"group_id": "g"}}.get(name, {})
    getattr(analytics, name)(anonymous_id="anon", **first)
    getattr(analytics, name)("u", anonymous_id="anon", **first)
    analytics.flush(10.0)

    assert ["anon", "u"] == [message.distinct_id for message in recorder.messages()]
    assert ["anon"] * 2 == [m.properties["$anon_distinct_id"] for m in recorder.messages()]


def test_a_call_takes_what_a_log_call_takes(make: Any, recorder: Recorder) -> None:
    """Further words have the meaning that they have in ``extra``."""
    analytics = make()
    analytics.capture("u", "played", groups={"team": 9}, set={"b": 2}, colour="red")

    assert {"$groups": {"team": 9}, "$set": {"b": 2}, "colour": "red"} == own(
        only(recorder, analytics)
    )


def test_a_group_may_be_of_another_type(make: Any, recorder: Recorder) -> None:
    """PostHog's type of a group is a word of its own."""
    analytics = make()
    analytics.group("u", 9, group_type="team")

    assert "team" == only(recorder, analytics).properties["$group_type"]


WRONG: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], str]] = {
    "no event": ("capture", (), {}, "no_event_name"),
    "event of no text": ("capture", ("u", 7), {}, "bad_event_name"),
    "nobody": ("identify", (), {}, "no_distinct_id"),
    "nobody's properties": ("set", (None, {"a": 1}), {}, "no_distinct_id"),
    "no properties": ("set", ("u",), {}, "empty_set"),
    "nobody before": ("alias", (), {}, "no_previous_id"),
    "nobody after": ("alias", ("old",), {}, "no_distinct_id"),
    "no group": ("group", ("u",), {}, "no_group"),
    "too many": ("capture", tuple(range(9)), {}, "bad_arguments"),
    "twice": ("capture", ("u", "x"), {"event": "y"}, "bad_arguments"),
    "no mapping beside a context": (
        "page",
        ("u", "c", "n", 7),
        {"context": CONTEXT, "distinct_id": 1, "properties": 2},
        "bad_arguments",
    ),
}


@pytest.mark.parametrize(("name", "args", "more", "reason"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_refused_counted_and_told(
    make: Any,
    recorder: Recorder,
    caplog: pytest.LogCaptureFixture,
    name: str,
    args: tuple[Any, ...],
    more: dict[str, Any],
    reason: str,
) -> None:
    """What cannot become an event raises nothing, returns None, and leaves a count and a line."""
    analytics = make()

    assert None is getattr(analytics, name)(*args, **more)
    assert None is getattr(analytics, name)(*args, **more)
    assert analytics.flush(10.0)
    assert (2, 2, 0) == tuple(analytics.counts[key] for key in ("accepted", reason, "waiting"))
    assert [True] == [reason in r.getMessage() for r in caplog.records if r.levelno >= 30]
    assert [] == recorder.messages()


ODD: dict[str, tuple[str, tuple[Any, ...]]] = {
    "properties of no kind": ("capture", ("u", "x", 7)),
    "properties of a list": ("page", ("u", "c", "n", [1])),
    "context of no kind": ("capture", ("u", "x", {}, 7)),
    "timestamp of no kind": ("capture", ("u", "x", {}, None, object())),
    "uuid of no kind": ("capture", ("u", "x", {}, None, None, object())),
    "id of no kind": ("capture", (object(), "x")),
    "traits of no kind": ("identify", ("u", 7)),
    "group's traits of no kind": ("group", ("u", "g", [1])),
    "properties that name us": ("capture", ("u", "x", {"$lib": 7, "self": 1, "event": 2})),
}


@pytest.mark.parametrize(("name", "args"), ODD.values(), ids=ODD)
def test_odd_arguments_do_not_cost_the_event(
    make: Any, recorder: Recorder, name: str, args: tuple[Any, ...]
) -> None:
    """A part of the wrong type is mended, and the event is delivered."""
    analytics = make()

    assert getattr(analytics, name)(*args) == only(recorder, analytics).uuid


@pytest.mark.parametrize(("gzip", "expected"), [(True, "gzip"), (False, None), (None, "gzip")])
def test_gzip_is_the_ancestors_word(
    make: Any, recorder: Recorder, gzip: bool | None, expected: str | None
) -> None:
    """``gzip`` chooses the compression, which is on where nothing is said."""
    analytics = make(gzip=gzip)
    analytics.capture("u", "x")
    only(recorder, analytics)

    assert expected == recorder.requests[0].headers.get("Content-Encoding")


def test_host_and_options_are_the_handlers(make: Any, recorder: Recorder) -> None:
    """The second argument is the host; every option of the handler is taken."""
    analytics = make("phc_test", "https://example.org/", dialect="posthog-v1", properties={"p": 1})
    analytics.capture("u", "x")
    analytics.flush(10.0)

    assert "https://example.org/i/v1/analytics/events" == recorder.requests[0].url
    assert 1 == recorder.messages("posthog-v1")[0].properties["p"]


def test_options_are_typed() -> None:
    """A type checker knows each option of the handler, as its own signature has it."""
    own = inspect.signature(PostHogHandler).parameters.values()
    expected = {one.name: one.annotation for one in own if one.kind is one.KEYWORD_ONLY}

    assert expected == {
        name: kind.__forward_arg__ for name, kind in Options.__annotations__.items()
    }


def test_a_handler_may_be_shared(make: Any, recorder: Recorder) -> None:
    """Log calls and calls go through one handler, in order."""
    handler = PostHogHandler("phc_test", transport=recorder)
    log = logging.getLogger("tests.analytics")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    analytics = Analytics(handler)
    try:
        log.info("logged", extra={"distinct_id": "u"})
        analytics.capture("u", "called")
        assert analytics.flush(10.0)
    finally:
        log.removeHandler(handler)
        analytics.close()

    assert handler is analytics.handler
    assert ["logged", "called"] == [message.event for message in recorder.messages()]


@pytest.mark.parametrize("more", [{"host": "https://h"}, {"gzip": True}, {"flush_at": 1}], ids=str)
def test_a_handler_has_its_own_options(recorder: Recorder, more: dict[str, Any]) -> None:
    """A handler and options for another one contradict each other."""
    handler = PostHogHandler("phc_test", transport=recorder)
    try:
        with pytest.raises(TypeError, match="handler_or_key"):
            Analytics(handler, **more)
    finally:
        handler.close()


@pytest.mark.parametrize("last", ["close", "join", "shutdown"])
def test_the_end_delivers(make: Any, recorder: Recorder, last: str) -> None:
    """Each of the ancestors' words for the end delivers, may come twice, and is not for ever."""
    analytics = make()
    analytics.capture("u", "before")
    getattr(analytics, last)()
    getattr(analytics, last)()

    assert ["before"] == [message.event for message in recorder.messages()]
    assert analytics.capture("u", "after")
    getattr(analytics, last)()
    assert ["before", "after"] == [message.event for message in recorder.messages()]


def test_nothing_shows_the_key(make: Any) -> None:
    """A key is in no ``repr``."""
    assert "phc_test" not in repr(make())
