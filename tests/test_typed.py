"""Typed events: a class declares an event, and its instances are log messages."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import enum
import json
import logging
import logging.handlers
import pickle
import queue
import sys
import types

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import pytest

from test_gate import Sent, own

from posthog_logging import Analytics, Listener, MessageHandler, PostHogHandler, context, event
from posthog_logging.events.sampling import is_in_sample
from posthog_logging.events.typed import declaration_of, declared_in
from posthog_logging.plan import DistinctId
from posthog_logging.structlog import PostHogProcessor


attrs = pytest.importorskip("attrs")
msgspec = pytest.importorskip("msgspec")
pydantic = pytest.importorskip("pydantic")


@event("movie played")
@dataclasses.dataclass(frozen=True)
class MoviePlayed:
    """A film began to play."""

    movie_id: str
    category: str | None = None


@event("ticket sold")
@dataclasses.dataclass(slots=True)
class TicketSold:
    price: float
    buyer: DistinctId | None = None


@event("from pydantic")
class FromPydantic(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    price: float = pydantic.Field(serialization_alias="$price")
    buyer: DistinctId = pydantic.Field("user-7", serialization_alias="buyerId")


@event("from attrs")
@attrs.frozen
class FromAttrs:
    price: float
    buyer: DistinctId = "user-7"


@event("from msgspec")
class FromMsgspec(msgspec.Struct, rename="camel"):  # type: ignore[misc,name-defined]
    unit_price: float
    buyer_id: DistinctId = "user-7"
    discount: float | msgspec.UnsetType = msgspec.UNSET


@event("from a tuple")
class FromTuple(NamedTuple):
    price: float
    buyer: DistinctId = "user-7"


@event("from a TypedDict")
class FromTypedDict(TypedDict):
    price: float
    buyer: DistinctId


class Popcorn(TypedDict):
    price: float


@event("from a function")
def popcorn(price: float) -> Popcorn:
    """Buy some popcorn."""
    return {"price": price}


@event("from a plain class")
class Plain:
    buyer: DistinctId

    def __init__(self) -> None:
        self.price = 5.0
        self.buyer = "user-7"
        self._own = "hidden"


#: An instance of each friend's, and what becomes of it.
FRIENDS: list[tuple[Any, str, str | None, dict[str, Any]]] = [
    (MoviePlayed("123"), "movie played", None, {"movie_id": "123", "category": None}),
    (TicketSold(5.0, "user-7"), "ticket sold", "user-7", {"price": 5.0}),
    (FromPydantic(price=5), "from pydantic", "user-7", {"$price": 5.0}),
    (FromAttrs(5.0), "from attrs", "user-7", {"price": 5.0}),
    (FromMsgspec(5.0), "from msgspec", "user-7", {"unitPrice": 5.0}),
    (FromTuple(5.0), "from a tuple", "user-7", {"price": 5.0}),
    (FromTypedDict(price=5.0, buyer="user-7"), "from a TypedDict", "user-7", {"price": 5.0}),
    (popcorn(5.0), "from a function", None, {"price": 5.0}),
    (Plain(), "from a plain class", "user-7", {"price": 5.0}),
]
friends = pytest.mark.parametrize(
    ("value", "name", "person", "properties"), FRIENDS, ids=[one[1] for one in FRIENDS]
)


def given(one: dict[str, Any]) -> dict[str, Any]:
    """Return the properties that are not the library's."""
    return {k: v for k, v in one["properties"].items() if k[0] != "$" or k == "$price"}


@friends
def test_a_log_message(
    value: Any,
    name: str,
    person: str | None,
    properties: Any,
    make_log: Callable[..., logging.Logger],
) -> None:
    """The instance alone is an event: its fields are the properties, its person the id."""
    sent = Sent()
    make_log(sent.handler).info(value)
    (found,) = sent.events

    assert (name, properties) == (found["event"], given(found))
    assert person in (found["distinct_id"], None)
    assert (person is None) == (found["distinct_id"] == found["uuid"])


@friends
def test_the_id_of_a_call(value: Any, name: str, person: str | None, properties: Any) -> None:
    """An id in the call wins over the field, and extras add to the fields."""
    sent = Sent()
    extra = {"distinct_id": "user-1", "properties": {"more": 1}, "flat": 2, "price": 7}
    sent.log(value, **extra)
    sent.log(value, **{**extra, "message": "formatted by another handler"})
    Analytics(sent.handler).capture("user-1", value, {"more": 1})

    expected = {"price": 7, **properties, "more": 1, "flat": 2}
    assert [(name, "user-1")] * 3 == [(one["event"], one["distinct_id"]) for one in sent.events]
    assert [expected] * 2 + [{**properties, "more": 1}] == list(map(given, sent.events))


@friends
def test_structlog(value: Any, name: str, person: str | None, properties: Any) -> None:
    """In a structlog chain, and in the entry that it leaves as a message for `logging`."""
    sent = Sent()
    PostHogProcessor(sent.handler)(None, "info", {"event": value, "bound": 1})
    sent.log({"event": value, "bound": 1})
    sent.log({"event": "a message", "bound": 1})

    assert [name] * 2 == [one["event"] for one in sent.events]
    assert [{**properties, "bound": 1}] * 2 == list(map(given, sent.events))


def test_loguru() -> None:
    """loguru keeps only the text of a message, so the event stands beside it."""
    loguru = pytest.importorskip("loguru")
    sent = Sent()
    number = loguru.logger.add(sent.handler, format="{message}")
    try:
        loguru.logger.info("played", event=MoviePlayed("123"), distinct_id="user-1")
        loguru.logger.info("sold", event=TicketSold(5.0, "user-7"))
    finally:
        loguru.logger.remove(number)

    found = [(one["event"], one["distinct_id"], given(one)) for one in sent.events]
    assert [
        ("movie played", "user-1", {"movie_id": "123", "category": None}),
        ("ticket sold", "user-7", {"price": 5.0}),
    ] == found


def test_a_queue_between() -> None:
    """`MessageHandler` freezes it, so that it can travel."""
    sent = Sent()
    waiting: queue.Queue[Any] = queue.Queue()
    MessageHandler(waiting).handle(
        logging.makeLogRecord({"msg": TicketSold(5.0, "user-7"), "more": 1})
    )
    pickle.dumps(waiting.queue[0])
    listener = Listener(waiting, sent.handler)
    listener.start()
    listener.stop()
    (found,) = sent.events

    assert ("ticket sold", "user-7") == (found["event"], found["distinct_id"])
    assert {"price": 5.0, "more": 1} == given(found)


def test_the_person_of_the_context() -> None:
    """Without a field or an id it is the context's person, else nobody's."""
    sent = Sent()
    with context.identity("user-1"):
        sent.log(MoviePlayed("123"))
        sent.log(TicketSold(5.0))

    assert ["user-1", "user-1"] == [one["distinct_id"] for one in sent.events]


def test_other_handlers_print_it() -> None:
    """The message is the object, and its text is what everybody else writes."""
    record = logging.makeLogRecord({"msg": MoviePlayed("123")})

    assert "MoviePlayed(movie_id='123', category=None)" == record.getMessage()
    assert "{'price': 5.0}" == str(popcorn(5.0))


def test_typed_dicts_are_dicts() -> None:
    """Copies and pickles of them are plain."""
    made = popcorn(5.0)

    assert {"price": 5.0} == made == pickle.loads(pickle.dumps(made)) == copy.deepcopy(made)
    assert dict is type(pickle.loads(pickle.dumps(made)))


def test_subclasses_are_the_same_event() -> None:
    """A subclass that declares nothing is what its base is."""

    @dataclasses.dataclass(frozen=True)
    class Again(MoviePlayed):
        again: bool = True

    sent = Sent()
    sent.log(Again("123"))
    (found,) = sent.events

    assert "movie played" == found["event"]
    assert {"movie_id": "123", "category": None, "again": True} == given(found)


def test_a_field_that_is_no_json() -> None:
    """It is sent as every other value of its kind, and one that cannot be read says so."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    sent = Sent()
    for value in (dt.date(2024, 1, 2), {1: {2}}, Broken(), float("nan")):
        sent.log(MoviePlayed(value))  # type: ignore[arg-type]

    expected = ["2024-01-02", {"1": [2]}, "[unprintable Broken]", None]
    assert expected == [one["properties"]["movie_id"] for one in sent.events]


def test_secrets_in_fields() -> None:
    """A field that names a secret is scrubbed as any other key is."""
    sent = Sent(scrub=["movie id"])
    sent.log(MoviePlayed("123"))

    assert [{"movie_id": "[scrubbed]", "category": None}] == list(map(own, sent.events))


def test_objects_that_declare_nothing() -> None:
    """Any other message is left alone, also one whose class raises when it is looked at."""

    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise RuntimeError

    class Hostile(metaclass=Meta):
        __slots__ = ()

    sent = Sent()
    for message in (5, object(), dataclasses.make_dataclass("Other", ["a"])(1), Hostile()):
        sent.log(message)  # type: ignore[arg-type]

    assert [] == sent.events
    assert declaration_of("a text") is None


@event("half kept", sample=0.5)
@dataclasses.dataclass
class HalfKept:
    who: DistinctId


@pytest.mark.parametrize("way", ["log", "capture", "queue"])
def test_its_own_sample(way: str) -> None:
    """`sample=` of a declaration counts for its instances, whichever way they go."""
    people = [f"user-{number}" for number in range(40)]
    sent = Sent()
    waiting: queue.Queue[Any] = queue.Queue()
    for person in people:
        if way == "log":
            sent.log(HalfKept(person))
        elif way == "capture":
            Analytics(sent.handler).capture(person, HalfKept(person))
        else:
            MessageHandler(waiting).handle(logging.makeLogRecord({"msg": HalfKept(person)}))
            sent.handler.handle(waiting.get())

    expected = [person for person in people if is_in_sample(person, 0.5)]
    assert expected == [one["distinct_id"] for one in sent.events]
    assert {0.5} == {one["properties"]["$sample_rate"] for one in sent.events}
    assert {"$sample_rate"} == {key for key in sent.events[0]["properties"] if "sample" in key}
    assert 40 - len(expected) == sent.counts["sampled"]


def test_others_of_that_name() -> None:
    """An event that only has the same name is nobody's instance, and is kept."""
    sent = Sent()
    for number in range(20):
        sent.log("half kept", distinct_id=f"user-{number}", properties={})

    assert 20 == len(sent.events)


def test_the_option_wins() -> None:
    """What the handler says of a name goes before its declaration."""
    sent = Sent(sample={"half kept": 1.0})
    for number in range(20):
        sent.log(HalfKept(f"user-{number}"))

    assert 20 == len(sent.events)


# Declarations.


def run(
    source: str, name: str = "declared_elsewhere", future: int = annotations.compiler_flag
) -> types.ModuleType:
    """Run *source* as the module of this name, as an import does."""
    module = sys.modules.get(name) or types.ModuleType(name)
    module.__dict__["__name__"] = name
    sys.modules[name] = module
    source = f"from posthog_logging import event\n{source}"
    exec(compile(source, f"{name}.py", "exec", future, dont_inherit=True), vars(module))
    return module


ONE = """
@event("a")
class A: pass
"""


@pytest.mark.parametrize("other", ["B", "A"])
def test_two_classes_of_one_name(other: str) -> None:
    """They are an error at import, which names both, even where they are called the same."""
    with pytest.raises(
        ValueError, match="event 'a' is declared twice in twice_declared: by A and"
    ):
        run(f"{ONE}\n@event('a')\nclass {other}: pass", "twice_declared")


def test_two_modules_may_share_a_name() -> None:
    """A plan is a module's."""
    run(ONE, "shared_one")
    run(ONE, "shared_two")

    assert ["a"] == [one.name for one in declared_in("shared_one")]
    assert [] == declared_in("shared")


def test_a_module_that_runs_again() -> None:
    """A reload, or a notebook's cell, declares anew, also by another class."""
    run(ONE, "run_again")
    run(ONE, "run_again")
    run(ONE.replace("class A", "class B"), "run_again")

    assert ["B"] == [one.kind.__name__ for one in declared_in("run_again")]


def test_a_class_that_is_made_again() -> None:
    """A function that declares one each time it is called is no contradiction."""

    def make() -> Any:
        @event("made again")
        @dataclasses.dataclass
        class MadeAgain:
            a: int

        return MadeAgain(1)

    assert declaration_of(make()) is not declaration_of(make())


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "text"),
    [
        ((5,), {}, TypeError, "name"),
        ((MoviePlayed,), {}, TypeError, "name"),
        (("",), {}, ValueError, "name"),
        ((" ",), {}, ValueError, "name"),
        (("a\nb",), {}, ValueError, "name"),
        (("x" * 201,), {}, ValueError, "name"),
        (("e",), {"description": 5}, TypeError, "description"),
        (("e",), {"since": 1.2}, TypeError, "since"),
        (("e",), {"deprecated": True}, TypeError, "deprecated"),
        (("e",), {"sample": 2}, ValueError, "sample"),
        (("e",), {"sample": -0.1}, ValueError, "sample"),
        (("e",), {"sample": float("nan")}, ValueError, "sample"),
        (("e",), {"sample": "half"}, TypeError, "sample"),
    ],
)
def test_bad_declarations(arguments: Any, options: Any, kind: type[Exception], text: str) -> None:
    """An argument that cannot be is an error at import, which names it."""
    with pytest.raises(kind, match=f"^{text}: "):
        event(*arguments, **options)


def test_a_name_from_an_enum() -> None:
    """The member of an enum is its value."""

    class Names(enum.Enum):
        SHUT = "door shut"

    @event(Names.SHUT)  # type: ignore[arg-type]
    class DoorShut:
        door = 1

    sent = Sent()
    sent.log(DoorShut())  # type: ignore[arg-type]

    assert ["door shut"] == [one["event"] for one in sent.events]


def test_not_a_class() -> None:
    """What cannot be called makes no instances."""
    with pytest.raises(TypeError, match="event 'e': must be a class"):
        event("e")(5)  # type: ignore[type-var]


def test_descriptions() -> None:
    """It is what was given, else the docstring's first line, but not a dataclass's own."""
    found = {one.name: one.description for one in declared_in(__name__)}

    assert "A film began to play." == found["movie played"]
    assert "Buy some popcorn." == found["from a function"]
    assert "" == found["ticket sold"] == found["from a tuple"] == found["from a TypedDict"]


def test_annotations_that_cannot_be_resolved() -> None:
    """A name that only type checkers import hides no person."""
    module = run(
        """
import dataclasses

@event("unresolved")
@dataclasses.dataclass
class Unresolved:
    price: Decimal
    who: plan.DistinctId | None
""",
        "unresolved",
    )
    sent = Sent()
    sent.log(module.Unresolved(5, "user-7"))
    (found,) = sent.events

    assert ("user-7", {"price": 5}) == (found["distinct_id"], given(found))


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"row": 7}, {"row": 7}),
        (Popcorn(price=5), {"price": 5}),
        (FromAttrs(5.0), {"price": 5.0, "buyer": "user-7"}),
        (types.SimpleNamespace(row=7), {"row": 7}),
        (None, {}),
        ([7], {"properties": [7]}),
    ],
    ids=str,
)
def test_properties_beside_it(properties: Any, expected: Any) -> None:
    """Whatever serves as ``properties`` elsewhere does so here, and the event's fields win."""
    sent = Sent()
    sent.log(MoviePlayed("123"), distinct_id="user-1", properties=properties)  # type: ignore[arg-type]
    (found,) = sent.events

    assert {**expected, "movie_id": "123", "category": None} == given(found)


@event("unreadable in part")
@dataclasses.dataclass
class LateFields:
    price: float
    buyer: DistinctId = dataclasses.field(init=False)
    row: int = dataclasses.field(init=False)


@event("unreadable model")
class BrokenModel(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    price: float = pydantic.Field(5, serialization_alias="$price")
    secret: str = pydantic.Field("kept here", exclude=True)

    @pydantic.computed_field  # type: ignore[untyped-decorator]
    @property
    def half(self) -> float:
        """What nobody can have."""
        raise ZeroDivisionError


@event("wrong type")
class WrongType(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    title: str
    buyer: DistinctId


@event("dumps itself")
class DumpsItself(BrokenModel):
    def model_dump(self) -> dict[str, Any]:
        """Take no options, as a class of pydantic 1 might."""
        return {"price": 6}


@event("hides itself")
class HidesItself(BrokenModel):
    def model_dump(self, include: Any = None, **options: Any) -> Any:
        """Hide what nobody may see, where all is asked for."""
        found = super().model_dump(include=include, **options)
        return found if include else {k: v for k, v in found.items() if k != "$price"}


@event("a broken root")
class BrokenRoot(pydantic.RootModel[list[int]]):  # type: ignore[misc]
    @pydantic.model_serializer
    def dumped(self) -> Any:
        """Fail."""
        raise ZeroDivisionError


@event("a root")
class Root(pydantic.RootModel[list[int]]):  # type: ignore[misc]
    pass


@pytest.mark.parametrize(
    ("value", "person", "properties"),
    [
        (LateFields(5), None, {"price": 5, "row": "[unreadable: AttributeError]"}),
        (BrokenModel(), None, {"$price": 5.0, "half": "[unreadable: ZeroDivisionError]"}),
        (WrongType.model_construct(title=5, buyer="user-7"), "user-7", {"title": 5}),
        (DumpsItself(), None, {"price": 6}),
        (
            HidesItself(),
            None,
            {
                "price": "[unreadable: ZeroDivisionError]",
                "secret": "[scrubbed]",
                "half": "[unreadable: ZeroDivisionError]",
            },
        ),
        (Root([1, 2]), None, {"root": [1, 2]}),
        (BrokenRoot([1]), None, {"root": "[unreadable: PydanticSerializationError]"}),
    ],
    ids=["unset", "raising", "wrong type", "own", "hiding", "no object", "broken root"],
)
def test_one_bad_field_loses_no_event(value: Any, person: str | None, properties: Any) -> None:
    """The others arrive, and a note in its place; a person that cannot be read is nobody."""
    sent = Sent()
    sent.log(value)
    (found,) = sent.events

    assert properties == given(found)
    assert (person or found["uuid"]) == found["distinct_id"]


@pytest.mark.parametrize("future", [0, annotations.compiler_flag], ids=["", "future"])
@pytest.mark.parametrize(
    "alias",
    [
        "UserId = plan.DistinctId",
        'UserId = typing.NewType("UserId", plan.DistinctId)',
        pytest.param(
            "type UserId = plan.DistinctId",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12"),
        ),
    ],
)
def test_another_name_of_the_type(alias: str, future: int) -> None:
    """The person is found by an alias, too, and beside a field that cannot be resolved."""
    price = "Money" if future or sys.version_info >= (3, 14) else '"Money"'
    module = run(
        f"""
import dataclasses, typing
from posthog_logging import plan
{alias}

@event("aliased")
@dataclasses.dataclass
class Aliased:
    buyer: UserId
    rest: dict[str, UserId | None]

@event("aliased in part")
@dataclasses.dataclass
class InPart:
    buyer: UserId
    price: {price}

class Sold(typing.TypedDict):
    buyer: UserId

@event("aliased result")
def sold(price: {price}) -> Sold:
    return {{"buyer": "user-7"}}
""",
        "aliased",
        future,
    )
    sent = Sent()
    for value in (module.Aliased("user-7", {}), module.InPart("user-7", 5), module.sold(5)):
        sent.log(value)

    assert ["user-7"] * 3 == [one["distinct_id"] for one in sent.events]
    assert [{"rest": {}}, {"price": 5}, {}] == list(map(given, sent.events))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
def test_an_alias_that_names_itself() -> None:
    """It is no person, and neither is one whose own names are missing."""
    module = run(
        """
import dataclasses
type Json = dict[str, Json] | list[Json]
type Missing = Nowhere

@event("endless")
@dataclasses.dataclass
class Endless:
    json: Json
    missing: Missing
""",
        "endless",
    )

    assert declaration_of(module.Endless({}, None)).person is None


def test_a_function_that_says_nothing_of_its_result() -> None:
    """It is an event all the same, without a person."""

    @event("unannotated")
    def unannotated(price):  # type: ignore[no-untyped-def]
        return {"price": price}

    sent = Sent()
    sent.log(unannotated(5))
    (found,) = sent.events

    assert ("unannotated", {"price": 5}) == (found["event"], given(found))


def test_a_record_that_is_none_is_left_at_once() -> None:
    """A message that is a text is not looked at any further."""
    handler = PostHogHandler("phc_key", "http://x.example", send=False)
    record = logging.makeLogRecord({"msg": "a plain record"})
    handler.handle(record)

    assert 0 == handler.counts["accepted"]
    assert "event" not in json.dumps(record.__dict__, default=str)
