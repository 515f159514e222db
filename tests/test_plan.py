"""Plans: read from classes, exported, compared, and held against what came."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import json
import logging
import os
import subprocess
import sys
import types
import urllib.request

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import pytest

from hypothesis import given
from hypothesis import strategies as st
from test_gate import Sent

from posthog_logging import PostHogHandler, event
from posthog_logging.cli import main
from posthog_logging.events.jsonable import jsonable
from posthog_logging.events.schema import describe, problems
from posthog_logging.events.schema_diff import changes_in, is_narrower
from posthog_logging.events.typed import declaration_of
from posthog_logging.events.typed_schema import schema_of
from posthog_logging.inspector import Inspector
from posthog_logging.plan import DistinctId, Plan, PlanError, PlannedEvent


attrs = pytest.importorskip("attrs")
msgspec = pytest.importorskip("msgspec")
pydantic = pytest.importorskip("pydantic")
schemas = pytest.importorskip("pydantic.json_schema")


@dataclasses.dataclass
class Seat:
    row: int


class Unknown:
    """A type that no library knows."""


@event("movie played", since="1.2")
@dataclasses.dataclass(frozen=True)
class MoviePlayed:
    """A film began to play."""

    movie_id: str
    category: Literal["romcom", "noir"] | None = None
    who: DistinctId | None = None


@event("ticket sold", description="Somebody paid.", deprecated="see movie played", sample=1.0)
class TicketSold(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    model_config = pydantic.ConfigDict(extra="forbid")

    price: decimal.Decimal = pydantic.Field(ge=0)
    seats: list[Seat] = pydantic.Field(default_factory=list)
    at: dt.datetime | None = None
    took: dt.timedelta = dt.timedelta()


@event("seat taken")
@attrs.define
class SeatTaken:
    row: int
    unknown: Unknown | None = None
    names: list[str] = attrs.Factory(list)


@event("film cut")
class FilmCut(msgspec.Struct, rename="camel"):  # type: ignore[misc,name-defined]
    run_time: float
    cut_by: DistinctId


@event("door opened")
class DoorOpened(NamedTuple):
    door: str
    how: str = "gently"


@event("popcorn bought")
class Popcorn(TypedDict, total=False):
    size: Literal["small", "large"]


PLAN = Plan.of(__name__)

#: Properties that fit, and how they become wrong: event, properties, change, what is said.
FITTING: dict[str, dict[str, Any]] = {
    "movie played": {"movie_id": "123", "category": "noir", "more": 1, "$lib": "x"},
    "ticket sold": {
        "price": 5.5,
        "seats": [{"row": 1}],
        "took": 1.5,
        "at": "2024-01-02T03:04:05Z",
    },
    "seat taken": {"row": 1, "unknown": "anything", "names": ["a"]},
    "film cut": {"runTime": 90},
    "door opened": {"door": "left"},
    "popcorn bought": {"size": "small"},
}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("movie played", {"movie_id": 5}, "movie_id: expected a string, got 5"),
    ("movie played", {"category": "x"}, 'category: expected "romcom", "noir" or null, got "x"'),
    ("movie played", {"movie_id": ...}, "movie_id: expected a string, got nothing"),
    ("ticket sold", {"price": None}, "price: expected a number or a string, got null"),
    ("ticket sold", {"seats": [{"row": 1}, {"row": "x"}]}, "seats[1].row: expected a whole"),
    ("ticket sold", {"at": "noon"}, "at: expected a date and time in ISO 8601 or null"),
    ("ticket sold", {"took": "PT1S"}, 'took: expected a number, got "PT1S"'),
    ("ticket sold", {"colour": "red"}, 'colour: expected nothing, got "red"'),
    ("seat taken", {"row": 1.5}, "row: expected a whole number, got 1.5"),
    ("seat taken", {"row": True}, "row: expected a whole number, got true"),
    ("seat taken", {"names": "a"}, 'names: expected a list, each item a string, got "a"'),
    ("film cut", {"runTime": [1]}, "runTime: expected a number, got [1]"),
    ("door opened", {"how": 5}, "how: expected a string, got 5"),
    ("popcorn bought", {"size": "huge"}, 'size: expected "small" or "large", got "huge"'),
]


def changed(name: str, change: dict[str, Any]) -> dict[str, Any]:
    """Return what fits, with a change: an ellipsis takes a field away."""
    return {k: v for k, v in {**FITTING[name], **change}.items() if v is not ...}


@pytest.mark.parametrize("name", FITTING)
def test_what_fits(name: str) -> None:
    """Fields of the right types, and any beside them, are as planned."""
    assert [] == PLAN.check(name, FITTING[name])


@pytest.mark.parametrize(("name", "change", "expected"), WRONG)
def test_what_does_not_fit(name: str, change: dict[str, Any], expected: str) -> None:
    """The finding names the field, what may come, and what came."""
    (finding,) = PLAN.check(name, changed(name, change))

    assert finding.text.startswith(expected)
    assert name == finding.event


def test_what_is_sent_fits() -> None:
    """The instances of each kind, sent and read back, are as planned."""
    instances = [
        MoviePlayed("123", "noir", "user-1"),
        TicketSold(price="0.1", at=dt.datetime(2024, 1, 2), took=dt.timedelta(hours=1)),
        SeatTaken(5, Unknown()),
        FilmCut(90.5, "user-1"),
        DoorOpened("left"),
        Popcorn(size="large"),
    ]
    sent = Sent()
    for one in instances:
        sent.log(one)  # type: ignore[arg-type]

    assert list(PLAN.events) == sorted(one["event"] for one in sent.events)
    for one in sent.events:
        assert [] == PLAN.check(one["event"], one["properties"])


class Extra(enum.Flag):
    SNACK = 1
    DRINK = 2


newer = pytest.mark.skipif(
    not hasattr(schemas.GenerateJsonSchema, "fraction_schema"),
    reason="older versions of pydantic describe it as a text",
)


@pytest.mark.parametrize(
    "value",
    [
        Extra.SNACK | Extra.DRINK,
        pytest.param(fractions.Fraction(1, 4), marks=newer),
        pytest.param(fractions.Fraction(1, 3), marks=newer),
        decimal.Decimal("9.99"),
        dt.timedelta(minutes=2),
        b"ab",
    ],
    ids=str,
)
def test_the_form_that_is_sent_fits(value: Any) -> None:
    """The schema of a type allows what its values become, and nothing but that."""
    kind = dataclasses.make_dataclass("Sent", [("value", type(value))])
    kind.__module__ = f"of {value}"
    declaration = declaration_of(event("sent")(kind)(value))
    assert declaration is not None
    found = schema_of(declaration)

    assert not problems(found, jsonable({"value": value}))
    assert problems(found, jsonable({"value": None}))


@pytest.mark.parametrize(
    "options",
    [
        {"tag": True},
        {"tag": "seat", "tag_field": "kind", "rename": "camel"},
        {"array_like": True},
        {"array_like": True, "tag": 5, "forbid_unknown_fields": True},
    ],
    ids=str,
)
def test_structs_are_sent_by_field(options: dict[str, Any]) -> None:
    """However msgspec would encode a struct, its plan is of fields by name, without a tag."""
    fields = [("seat_row", int), ("note", str, "")]
    kind = msgspec.defstruct("Taken", fields, module="elsewhere", **options)
    event("struct taken")(kind)
    declared = declaration_of(kind(5))
    assert declared is not None
    plan = Plan("plan", [PlannedEvent("struct taken", schema_of(declared))])
    sent = Sent()
    sent.log(kind(5))

    (one,) = sent.events
    assert [] == plan.check("struct taken", one["properties"])
    (finding,) = plan.check("struct taken", {"note": "x"})
    assert finding.text.startswith("seat")


def test_what_is_not_planned() -> None:
    """An unknown name is a finding with a likely one; PostHog's own names are nobody's plan."""
    (finding,) = PLAN.check("movie plaid", {})

    assert "not in the plan test_plan; did you mean 'movie played'?" == finding.text
    assert [] == PLAN.check("$pageview", {})
    assert "not in the plan test_plan" == PLAN.check("zzz", {})[0].text


def test_what_never_came() -> None:
    """Planned events that are not deprecated and did not come."""
    assert ["seat taken"] == PLAN.missing({*FITTING} - {"seat taken", "ticket sold"})


def test_hints_are_bounded() -> None:
    """A flood of names that are not planned costs no search for each: some have a hint."""
    plan = Plan("plan", [PlannedEvent(f"movie {number} played", {}) for number in range(10)])
    found = [plan.check(f"movie {number} plaid", {})[0].text for number in range(5_000)]

    assert found[5] == "not in the plan plan; did you mean 'movie 5 played'?"
    assert 200 == sum("did you mean" in text for text in found)
    assert plan.check("movie 5 plaid", {})[0].text == found[5]
    assert (
        "not in the plan plan" == Plan("plan", plan.events.values()).check("m" * 999, {})[0].text
    )


def test_an_exported_plan_is_the_same(tmp_path: Path) -> None:
    """What is written and read back knows as much."""
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN.schema()))
    back = Plan.of(path)

    assert PLAN.events == back.events
    assert PLAN.schema() == back.schema()
    assert "https://json-schema.org/draft/2020-12/schema" == PLAN.schema()["$schema"]


def test_the_schema_by_another_judge() -> None:
    """An implementation of JSON Schema comes to the same verdicts as ours."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(PLAN.schema())
    jsonschema.Draft202012Validator.check_schema(PLAN.schema())
    # Formats are annotations there, and names with a $ nobody's exception.
    for name, properties in FITTING.items():
        assert validator.is_valid({"event": name, "properties": properties})
    for name, change, _ in WRONG:
        if "at" not in change:
            assert not validator.is_valid({"event": name, "properties": changed(name, change)})


def test_plans_of_modules() -> None:
    """A module, its name, a plan and a package with modules inside all mean a plan."""
    assert list(PLAN.events) == list(Plan.of(sys.modules[__name__]).events)
    assert PLAN is Plan.of(PLAN)
    assert "<Plan test_plan: 6 events>" == repr(PLAN)


def test_the_plan_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the modules inside declare belongs to it; one name twice is refused."""
    package = tmp_path / "planned_package"
    package.mkdir()
    source = "from posthog_logging import event\n@event({!r})\nclass A: a: int\n"
    (package / "__init__.py").write_text("from . import one, two\n")
    (package / "one.py").write_text(source.format("one"))
    (package / "two.py").write_text(source.format("two"))
    monkeypatch.syspath_prepend(tmp_path)

    assert ["one", "two"] == list(Plan.of("planned_package").events)
    assert ["two"] == list(Plan.of("planned_package.two").events)

    exec(source.format("one"), {"__name__": "planned_package.three"})
    with pytest.raises(PlanError, match="'one' is declared twice"):
        Plan.of("planned_package")


@pytest.mark.parametrize(
    ("given_plan", "text"),
    [
        ("nothing.like.this", "nothing.like.this: cannot be imported: ModuleNotFoundError"),
        ("json", "json: declares no events"),
        ("missing.json", "missing.json: cannot be read: No such file"),
        ("./events.py", "'./events.py' is not the name of a module. Give the dotted name"),
        ("folder/events.py", "folder/events.py: cannot be imported: .* Give the dotted name"),
        ("..", "is not the name of a module"),
        ("", "'' is not the name of a module"),
        (5, "plan: must be a module or a file, not a value of type int"),
        (None, "plan: must be a module or a file, not a value of type NoneType"),
    ],
)
def test_what_is_not_a_plan(given_plan: Any, text: str) -> None:
    """The error says what it is instead."""
    with pytest.raises(PlanError, match=text):
        Plan.of(given_plan)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("1 / 0", "cannot be imported: ZeroDivisionError"),
        ("import sys; sys.exit(0)", r"ended while it was imported \(SystemExit: 0\). Put what"),
        ("raise SystemExit", r"ended while it was imported \(SystemExit: None\)"),
    ],
)
def test_a_module_that_fails(
    source: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a module does while it is imported, it is no plan."""
    (tmp_path / "fails_at_import.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(PlanError, match=text):
        Plan.of("fails_at_import")


@pytest.mark.parametrize(
    "text",
    ["", "nope", "[]", "{}", '{"title": "a"}', '{"title": "a", "oneOf": [{}]}', '{"oneOf": 5}'],
)
def test_files_that_are_no_plan(text: str, tmp_path: Path) -> None:
    """Any other file, JSON or not, says how to make one."""
    path = tmp_path / "x.json"
    path.write_text(text)

    with pytest.raises(PlanError, match="not a plan: write one with"):
        Plan.of(path)


def test_a_function_that_does_not_say() -> None:
    """A factory without a return type has no fields that anybody knows."""

    @event("says nothing")
    def make(a: int):  # type: ignore[no-untyped-def]
        return {"a": a}

    make.__module__ = "says_nothing"
    module = types.ModuleType("says_nothing")
    with pytest.raises(PlanError, match="declares no events"):
        Plan.of(module)
    namespace = {"__name__": "says_nothing", "event": event}
    exec("@event('says nothing')\ndef make(a): return {}", namespace)
    with pytest.raises(PlanError, match="'says nothing': make does not say which TypedDict"):
        Plan.of(module)


def test_without_pydantic(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Events are declared and sent without it; a plan says what to install."""
    script = """
import sys
sys.modules["pydantic"] = None
import dataclasses, logging
from posthog_logging import event, PostHogHandler
from posthog_logging.inspector import Inspector
from posthog_logging.plan import Plan, PlanError

@event("e")
@dataclasses.dataclass
class E:
    a: int

handler = PostHogHandler("k", "http://x.example", send=False, plan="warn")
handler.handle(logging.makeLogRecord({"msg": E(1)}))
print(dict(handler.counts)["send_is_off"])
try:
    Plan.of("__main__")
except PlanError as error:
    print(error)
"""
    done = run_script(script)

    assert "1\nreading a plan needs pydantic: pip install 'posthog_logging[plan]'\n" == done.stdout


# plan="warn".


def test_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """One for each name that is not planned or does not fit, without its values; all is sent."""
    sent = Sent(plan="warn")
    for _ in range(3):
        sent.log("never declared", distinct_id="u")
        sent.log("movie played", distinct_id="u", movie_id="fits", plan_test=1)
        sent.log("seat taken", distinct_id="u", row="hunter2")
        sent.log("$pageview", distinct_id="u")
    warned = [one.getMessage() for one in caplog.records if "further ones" in one.getMessage()]

    assert 12 == len(sent.events)
    assert 2 == len(warned)
    assert "'never declared' is not in the plan" in warned[0]
    assert "'seat taken' does not fit the plan: row must be a whole number" in warned[1]
    assert "hunter2" not in caplog.text


def test_nothing_is_checked_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    """Without the option no event is looked at."""
    sent = Sent()
    sent.log("never declared", distinct_id="u")

    assert 1 == len(sent.events)
    assert [] == caplog.records


# Differences.


def schema(**fields: Any) -> dict[str, Any]:
    """Return the schema of an object whose fields are all required, unless they end in _."""
    properties = {name.rstrip("_"): one for name, one in fields.items()}
    required = [name for name in fields if not name.endswith("_")]
    return {"type": "object", "properties": properties, "required": required}


TEXT, WHOLE, NUMBER, NULL = ({"type": kind} for kind in ("string", "integer", "number", "null"))
MAYBE = {"anyOf": [TEXT, NULL]}


@pytest.mark.parametrize(
    ("old", "new", "breaks", "text"),
    [
        (schema(a=TEXT), schema(), True, "a is gone"),
        (schema(), schema(a=TEXT), False, "a is new: a string"),
        (schema(a=TEXT), schema(a_=TEXT), True, "a may be missing now"),
        (schema(a_=TEXT), schema(a=TEXT), False, "a is always there now"),
        (schema(a=TEXT), schema(a=WHOLE), True, "a: a string before, a whole number now"),
        (schema(a=WHOLE), schema(a=NUMBER), True, "a: a whole number before, a number now"),
        (schema(a=NUMBER), schema(a=WHOLE), False, "a: a number before, a whole number now"),
        (schema(a=TEXT), schema(a=MAYBE), True, "a: a string before, a string or null now"),
        (schema(a=MAYBE), schema(a=TEXT), False, "a: a string or null before, a string now"),
        (schema(a={"enum": [1]}), schema(a={"enum": [1, 2]}), True, "a: 1 before, 1 or 2 now"),
        (schema(a={"enum": [1, 2]}), schema(a={"const": 1}), False, "a: 1 or 2 before, 1 now"),
        (schema(a={"const": "x"}), schema(a=TEXT), True, 'a: "x" before, a string now'),
        (schema(a={**WHOLE, "minimum": 1}), schema(a=WHOLE), True, "a: a whole number at least 1"),
        (schema(a=WHOLE), schema(a={**WHOLE, "minimum": 1}), False, "a: a whole number before"),
        (schema(a={**TEXT, "maxLength": 5}), schema(a={**TEXT, "maxLength": 9}), True, "a: "),
        (schema(a={**TEXT, "format": "date"}), schema(a=TEXT), True, "a: a date in ISO 8601"),
        (schema(a=schema(b=TEXT)), schema(a=schema(b=WHOLE)), True, "a.b: a string before"),
        (schema(a=schema(b=TEXT)), schema(a=schema()), True, "a.b is gone"),
        (
            schema(a={"type": "array", "items": TEXT}),
            schema(a={"type": "array", "items": WHOLE}),
            True,
            "a: a list, each item a string before",
        ),
        (schema(a=TEXT), schema(a={}), True, "a: a string before, anything now"),
        (schema(a={}), schema(a=TEXT), False, "a: anything before, a string now"),
    ],
)
def test_differences(old: Any, new: Any, breaks: bool, text: str) -> None:
    """What may come that could not come before breaks a reader, and nothing else does."""
    (change,) = changes_in(old, new)

    assert breaks == change.breaks
    assert change.text.startswith(text)


SIMPLE = st.sampled_from(
    [
        *(TEXT, WHOLE, NUMBER, NULL, MAYBE, {}, {"enum": [1, "x"]}, {"const": None}),
        *({**WHOLE, "minimum": 1}, {**TEXT, "maxLength": 2}, {"type": ["string", "integer"]}),
    ]
)
SCHEMAS = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2).map(lambda some: {"anyOf": some})
        | inner.map(lambda one: {"type": "array", "items": one})
        | st.dictionaries(st.sampled_from(["a", "b_"]), inner).map(lambda some: schema(**some))
    ),
    max_leaves=4,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from([0, 1, 5, 1.5, "x", "long"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner)
    ),
    max_leaves=4,
)


@given(SCHEMAS, SCHEMAS, VALUES)
def test_narrower_means_what_it_says(new: Any, old: Any, value: Any) -> None:
    """Where one schema is narrower, whatever fits it fits the other; and each equals itself."""
    if is_narrower(new, old, new, old) and not problems(new, value):
        assert [] == problems(old, value)
    assert is_narrower(new, new, new, new)
    assert [] == list(changes_in(schema(a=new), schema(a=new)))


@given(SCHEMAS, VALUES)
def test_schemas_by_another_judge(one: Any, value: Any) -> None:
    """Ours finds a problem exactly where an implementation of JSON Schema does."""
    jsonschema = pytest.importorskip("jsonschema")

    valid = jsonschema.Draft202012Validator(one).is_valid(value)
    assert valid == (not problems(one, value))
    assert describe(one)


# The command line.


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program with a plan, in the working directory."""
    (tmp_path / "cinema_plan.py").write_text(
        """
import dataclasses
from typing import Literal
from posthog_logging import PostHogHandler, event
from posthog_logging.inspector import Inspector
from posthog_logging.plan import DistinctId

@event("movie played", since="1.2", sample=0.5)
@dataclasses.dataclass
class MoviePlayed:
    '''A film began to play.'''
    movie_id: str
    who: DistinctId
    category: Literal["romcom", "noir"] | None = None

@event("door opened", deprecated="nobody asks")
@dataclasses.dataclass
class DoorOpened:
    door: int
"""
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    return tmp_path


@pytest.mark.usefixtures("program")
def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    """A table of the events and their fields; as JSON, a line for each event."""
    assert 0 == main(["plan", "show", "cinema_plan"])
    table = capsys.readouterr().out
    assert 0 == main(["plan", "--json", "show", "cinema_plan"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    for text in ("A film began to play.; since 1.2; sampled at 0.5", '"romcom", "noir" or null'):
        assert text in table
    assert "deprecated: nobody asks" in table
    assert "cinema_plan declares 2 events." in table
    assert ["door opened", "movie played"] == [one["event"] for one in lines]
    assert "who" == lines[1]["person"]


def test_export_and_diff(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An export is the plan; what breaks readers gives a status for CI."""
    assert 0 == main(["plan", "export", "cinema_plan", "old.json"])
    assert 0 == main(["plan", "export", "cinema_plan"])
    written = json.loads((program / "old.json").read_text())
    assert written == json.loads(capsys.readouterr().out.partition("\n")[2])
    assert 0 == main(["plan", "diff", "old.json", "cinema_plan"])

    text = (program / "old.json").read_text()
    (program / "new.json").write_text(text.replace('"integer"', '"string"').replace("nobody", "x"))
    assert 1 == main(["plan", "diff", "old.json", "new.json"])
    assert (
        "breaks  door opened  door: a whole number before, a string now" in capsys.readouterr().out
    )
    assert 1 == main(["plan", "--json", "diff", "old.json", "new.json"])
    change = {"event": "door opened", "breaks": True}
    assert change.items() <= json.loads(capsys.readouterr().out).items()


def test_what_a_module_prints(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is no part of an export."""
    source = (program / "cinema_plan.py").read_text()
    (program / "loud_plan.py").write_text(f"{source}\nprint('this is no JSON')\n")

    assert 0 == main(["plan", "export", "loud_plan"])
    shown = capsys.readouterr()
    assert "loud_plan" == json.loads(shown.out)["title"]
    assert "this is no JSON" in shown.err


def test_diff_of_events(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Events that come and go, are deprecated, or are sampled otherwise."""
    main(["plan", "export", "cinema_plan", "old.json"])
    plan = json.loads((program / "old.json").read_text())
    door, movie = plan["oneOf"]
    movie = {**movie, "x-deprecated": "see door", "x-sample": 0.1}
    new = json.loads(json.dumps(door).replace("door opened", "door shut"))
    (program / "new.json").write_text(json.dumps({**plan, "oneOf": [movie, new]}))
    capsys.readouterr()

    assert 1 == main(["plan", "diff", "old.json", "new.json"])
    out = capsys.readouterr().out
    for text in (
        "breaks  door opened   the event is gone",
        "fine    door shut     the event is new",
        "fine    movie played  deprecated now: see door",
        "fine    movie played  sampled at 0.5, and now at 0.1",
        "4 changes; 1 would break readers of the events.",
    ):
        assert text in out


def test_check(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of a file, of any kind that `import` reads, against a plan."""
    good = {"event": "movie played", "distinct_id": "u", "properties": {"movie_id": "1"}}
    bad = {**good, "properties": {"movie_id": 5}}
    segment = {"type": "track", "event": "movie played", "messageId": "m", "userId": "u"}
    lines = [good, bad, {"event": "x", "distinct_id": "u"}, {"level": "info"}, segment]
    text = "\n".join(map(json.dumps, lines))
    (program / "good.ndjson").write_text(f"\ufeff{json.dumps(good)}\n\n", encoding="utf-8")
    (program / "bad.ndjson").write_text(f"{text}\nnope\n")

    assert 0 == main(["plan", "check", "cinema_plan", "good.ndjson"])
    assert "1 event, 0 findings." in capsys.readouterr().out
    assert 1 == main(["plan", "check", "cinema_plan", "good.ndjson", "bad.ndjson"])
    out = capsys.readouterr().out
    for text in (
        "bad.ndjson:2  movie played  movie_id: expected a string, got 5",
        "bad.ndjson:3  x             not in the plan cinema_plan",
        "bad.ndjson:5  movie played  movie_id: expected a string, got nothing",
        "bad.ndjson:6                broken line: not JSON",
        "5 events, 4 findings.",
    ):
        assert text in out
    assert 1 == main(["plan", "--json", "check", "cinema_plan", "bad.ndjson"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"events": 4, "findings": 4, "missing": []} == found[-1]


@pytest.mark.usefixtures("program")
def test_what_is_missing(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Planned events that no file has are named, deprecated ones are not missed."""
    (program / "empty.ndjson").write_text("")

    assert 0 == main(["plan", "check", "cinema_plan", "empty.ndjson"])
    assert "Planned, and not among them: movie played" in capsys.readouterr().out


@pytest.mark.usefixtures("program")
@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "nothing to do: give show, export, check or diff"),
        (["explain"], "'explain' is not known: give show,"),
        (["show"], "show takes"),
        (["show", "a", "b"], "show takes"),
        (["diff", "a"], "diff takes"),
        (["show", "nothing.like.this"], "nothing.like.this: cannot be imported"),
        (["check", "cinema_plan", "missing.ndjson"], "missing.ndjson: No such file"),
        (["check", "cinema_plan", os.curdir], ".: Is a directory"),
        (["export", "cinema_plan", "no/such/folder.json"], "no/such/folder.json: No such file"),
        (["diff", "cinema_plan.py", "cinema_plan"], "cinema_plan.py: cannot be imported"),
    ],
)
def test_wrong_usage(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, and the status of wrong usage."""
    assert 2 == main(["plan", *words])
    assert text in capsys.readouterr().err


# The inspector.


def test_the_inspector_marks() -> None:
    """What is not as planned is accepted with a warning, and what never came is listed."""
    with Inspector(plan=PLAN) as inspector:
        handler = PostHogHandler("phc_test", inspector.url)
        for name, movie in (("movie played", "1"), ("movie played", 5), ("movie plaid", "1")):
            handler.accept({"event": name, "distinct_id": "u", "properties": {"movie_id": movie}})
        handler.close()
        warnings = [list(one.warnings) for one in inspector.events]
        missing = inspector.counts()["missing"]
        inspector.reset()

        assert [] == warnings[0]
        assert ["plan: movie_id: expected a string, got 5"] == warnings[1]
        assert "plan: not in the plan test_plan; did you mean 'movie played'?" == warnings[2][0]
        assert sorted({*FITTING} - {"movie played", "ticket sold"}) == missing
        assert "movie played" in inspector.counts()["missing"]


def test_what_the_inspector_counts() -> None:
    """Of each planned event how often it came and each kind of problem; names are bounded."""
    with Inspector(plan=PLAN) as inspector:
        handler = PostHogHandler("phc_test", inspector.url, logs=True)
        for movie in ("1", 5, 6):
            fields = {"event": "movie played", "distinct_id": "u"}
            handler.accept({**fields, "properties": {"movie_id": movie, "category": "noir"}})
        for number in range(250):
            handler.accept({"event": f"new {number}", "distinct_id": "u"})
        assert handler.flush()  # logs go their own way, and would take a number in between
        handler.handle(logging.makeLogRecord({"msg": "a log is not an event", "levelno": 30}))
        handler.close()
        with urllib.request.urlopen(f"{inspector.url}/api/plan") as answer:
            found = json.load(answer)
        with Inspector() as other, urllib.request.urlopen(f"{other.url}/api/plan") as answer:
            assert {"plan": None} == json.load(answer)

    events = {one["event"]: one for one in found["events"]}
    movie = events.pop("movie played")
    (problem,) = movie.pop("problems")
    assert {"came": 3, "misfits": 2}.items() <= movie.items()
    assert {"text": "movie_id: expected a string, got 6", "count": 2, "example": 3} == problem
    assert {0} == {one["came"] for one in events.values()}
    assert "see movie played" == events["ticket sold"]["deprecated"]
    assert (200, 50) == (len(found["unplanned"]), found["others"])
    assert {"event": "new 0", "nearest": None, "came": 1} == found["unplanned"][0]


@pytest.mark.usefixtures("program")
def test_serve_with_a_plan(capfd: pytest.CaptureFixture[str]) -> None:
    """The command takes a plan, says what never came, and refuses what is not a plan."""
    program = "import posthog_logging; posthog_logging.Analytics().capture('u', 'door opened')"
    command = [
        "serve",
        "--port",
        "0",
        "--plan",
        "cinema_plan",
        "--",
        sys.executable,
        "-c",
        program,
    ]

    assert 0 == main(command)
    assert "Planned, and never came: movie played" in capfd.readouterr().err
    assert 2 == main(["serve", "--port", "0", "--plan", "nothing.like.this"])
    assert "cannot be imported" in capfd.readouterr().err
