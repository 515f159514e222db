"""Any value becomes strict JSON, bounded, and the same with and without orjson."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import types
import uuid

from typing import Any, NamedTuple

import pytest

from conftest import load_without
from hypothesis import given, settings
from hypothesis import strategies as st

from posthog_logging.events import jsonable


bare = load_without("orjson", jsonable)
both = pytest.mark.parametrize("module", [jsonable, bare], ids=["as installed", "bare"])


def refuse(name: str) -> Any:
    raise AssertionError(f"{name} in strict JSON")


def strict(line: bytes) -> Any:
    """Parse *line* by the letter: UTF-8, no constants, no surrogates, no NULs, one line."""
    text = line.decode()
    value = json.loads(text, parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode()  # raises for lone surrogates
    assert "\\u0000" not in json.dumps(value).replace("\\\\", "")
    assert "\n" not in text
    return value


def encoded(value: Any, module: Any = jsonable) -> Any:
    return strict(module.encode(value))


class Colour(enum.Enum):
    RED = "red"
    DEEP = ("a", 1)


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass(repr=False)
class Film:
    title: str
    seen: Any = None


@dataclasses.dataclass(frozen=True)
class Seat:
    row: int


class Text(str):
    __slots__ = ()


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no")


class Whole(int):
    pass


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class BrokenItems(collections.abc.Mapping):  # type: ignore[type-arg]
    def __getitem__(self, key: Any) -> Any:
        raise RuntimeError("no")

    def __iter__(self) -> Any:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


class BrokenClass:
    @property
    def __class__(self) -> Any:  # what a lazy proxy without its request does
        raise RuntimeError("no")


class Endless:
    """Not pydantic's, but with its verb."""

    def model_dump(self) -> Any:
        return Endless()


class OddDate(dt.date):
    def isoformat(self) -> Any:
        return Text("\ud800")


def cyclic() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


def cyclic_through_an_object() -> Any:
    value: dict[str, Any] = {}
    value["film"] = Film("loop", value)
    return value


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


MOMENT = dt.datetime(2024, 1, 2, 3, 4, 5, 678901, dt.UTC)
ID = uuid.UUID("01890b5c-2a3b-7c4d-8e5f-0123456789ab")
KNOWN: dict[str, tuple[Any, Any]] = {
    "datetime": (MOMENT, "2024-01-02T03:04:05.678901+00:00"),
    "date": (dt.date(2024, 1, 2), "2024-01-02"),
    "time": (dt.time(3, 4), "03:04:00"),
    "timedelta": (dt.timedelta(minutes=2), 120.0),
    "date that answers oddly": (OddDate(2024, 1, 2), "\ufffd"),
    "exact decimal": (decimal.Decimal("19.99"), 19.99),
    "inexact decimal": (decimal.Decimal("0.1234567890123456789"), "0.1234567890123456789"),
    "huge decimal": (decimal.Decimal("1E+400"), "1E+400"),
    "decimal NaN": (decimal.Decimal("NaN"), None),
    "decimal sNaN": (decimal.Decimal("sNaN"), None),
    "uuid": (ID, str(ID)),
    "enum": (Colour.RED, "red"),
    "enum of a tuple": (Colour.DEEP, ["a", 1]),
    "int enum": (Level.HIGH, 3),
    "namedtuple": (Point(1, 2.5), [1, 2.5]),
    "dataclass": (Film("Up", MOMENT.date()), {"title": "Up", "seen": "2024-01-02"}),
    "dataclass's class": (Film, str(Film)),
    "str subclass": (Text("hi"), "hi"),
    "str subclass whose str raises": (Shouting("hi"), "hi"),
    "int subclass": (Whole(7), 7),
    "dict subclass": (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "set": ({"b", "a"}, ["a", "b"]),
    "set with what cannot be shown": ({1, Broken()}, [1, "[unprintable Broken]"]),
    "deque": (collections.deque([1, 2]), [1, 2]),
    "range": (range(3), [0, 1, 2]),
    "bytes": (b"caf\xc3\xa9 \xff", "caf\u00e9 \\xff"),
    "memoryview": (memoryview(b"ab"), "ab"),
    "path": (pathlib.PurePosixPath("/a/b"), "/a/b"),
    "nan": ([float("nan"), float("inf"), float("-inf")], [None, None, None]),
    "largest": (2**64 - 1, 2**64 - 1),
    "too large": (2**64, str(2**64)),
    "too small": (-(2**63) - 1, str(-(2**63) - 1)),
    "gigantic": (1 << 20_000, hex(1 << 20_000)),
    "complex": (1 + 2j, "(1+2j)"),
    "lone surrogate": ("a\ud800b", "a\ufffdb"),
    "surrogate pair": ("\ud83d\ude00", "\U0001f600"),
    "NUL": ("a\0b", "a\ufffdb"),
    "NUL spelt out": ("\\u0000", "\\u0000"),
    "exception": (ValueError("no such film"), "no such film"),
    "class": (int, "<class 'int'>"),
    "broken": ([Broken(), 1], ["[unprintable Broken]", 1]),
    "broken mapping": ([BrokenItems(), 1], ["[unprintable BrokenItems]", 1]),
    "broken class": ([BrokenClass(), 1], ["[unprintable BrokenClass]", 1]),
    "broken key": ({Broken(): 1, "a": 2}, {"[unprintable Broken]": 1, "a": 2}),
    "broken within a key": ({(Broken(),): 1, "a": 2}, {"[unprintable tuple]": 1, "a": 2}),
    "keys": (
        {1: "a", None: "b", False: "c", 2.5: "d", Colour.RED: "e", ID: "f", (1, 2): "g"},
        {"1": "a", "null": "b", "false": "c", "2.5": "d", "red": "e", str(ID): "f", "(1, 2)": "g"},
    ),
    "keys of a kind of one's own": (
        {Seat(1): "a", Seat(2): "b"},
        {"Seat(row=1)": "a", "Seat(row=2)": "b"},
    ),
    "surrogate key": ({"\ud800": 1}, {"\ufffd": 1}),
    "cycle": (cyclic(), {"self": ["[cut: cycle]"]}),
    "cycle through an object": (
        cyclic_through_an_object(),
        {"film": {"title": "loop", "seen": "[cut: cycle]"}},
    ),
}


@both
@pytest.mark.parametrize(("value", "expected"), KNOWN.values(), ids=KNOWN)
def test_every_kind_of_value_has_one_form(module: Any, value: Any, expected: Any) -> None:
    """Each kind of value has the documented form, inside a container as outside."""
    assert expected == encoded(value, module)
    assert {"in": [expected, expected]} == encoded({"in": [value, value]}, module)


def test_objects_of_pydantic_become_objects() -> None:
    """A pydantic model is the object that its own verb makes of it."""
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Movie", title=(str, ...), on=(dt.date, ...))

    assert {"title": "Up", "on": "2024-01-02"} == encoded(model(title="Up", on=MOMENT.date()))


def test_models_of_pydantic_that_fail_in_part(recwarn: pytest.WarningsRecorder) -> None:
    """A field that no serializer can write is a note, and what these hide stays hidden."""
    pydantic = pytest.importorskip("pydantic")

    class Movie(pydantic.BaseModel):  # type: ignore[misc,name-defined]
        model_config = pydantic.ConfigDict(extra="allow")
        title: str
        card: pydantic.SecretStr = pydantic.SecretStr("4111")
        key: str = pydantic.Field("k", exclude=True)
        sequel: Movie | None = None

    wrong = Movie.model_construct(title=5, seen=True)
    cycle = Movie(title="Up", seen=True)
    cycle.sequel = cycle
    others = {"card": "**********", "seen": True}

    assert {"title": 5, "sequel": None, **others} == encoded(wrong)
    assert {"title": "Up", "sequel": "[unreadable: ValueError]", **others} == encoded(cycle)
    assert not recwarn.list


def test_objects_of_attrs_become_objects() -> None:
    """An attrs object is the object of its fields."""
    attrs = pytest.importorskip("attrs")
    movie = attrs.make_class("Movie", ["title", "seen"])

    assert {"title": "Up", "seen": [1]} == encoded(movie("Up", {1}))


def test_numpy_becomes_numbers_and_lists() -> None:
    """Scalars of numpy are numbers, arrays are lists, and what JSON cannot say is null."""
    numpy = pytest.importorskip("numpy")
    given = {
        "int": numpy.int64(3),
        "float": numpy.float64(2.5),
        "half": numpy.float16(0.5),
        "nan": numpy.float32("nan"),
        "bool": numpy.bool_(True),
        "text": numpy.str_("hi"),
        "when": numpy.datetime64("2024-01-02"),
        "grid": numpy.arange(4).reshape(2, 2),
        "none": numpy.array(5),
    }

    assert {
        "int": 3,
        "float": 2.5,
        "half": 0.5,
        "nan": None,
        "bool": True,
        "text": "hi",
        "when": "2024-01-02",
        "grid": [[0, 1], [2, 3]],
        "none": 5,
    } == encoded(given)


def test_a_scalar_that_is_its_own_plain_form_is_a_number() -> None:
    """What numpy has no plain form for (a long double) is the nearest number."""
    numpy = pytest.importorskip("numpy")

    assert [1.0, None] == encoded([numpy.longdouble(1), numpy.longdouble("inf")])


def test_large_arrays_are_cut_and_say_by_how_much() -> None:
    """An array of more than 10,000 items keeps the first ones and tells of all others."""
    numpy = pytest.importorskip("numpy")

    found = encoded(numpy.arange(20_000).reshape(2, 10_000))

    assert ([0, 1], 10_000, "[cut: 10001 more items]") == (found[:2], len(found), found[-1])


@both
def test_a_dump_without_an_end_is_cut(module: Any) -> None:
    """An object whose plain form is another of its kind is left at the deepest level."""
    assert "[cut: deeper than 32]" == encoded(Endless(), module)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner
        )
    ),
    max_leaves=20,
)

HASHABLE = (
    st.text(st.characters())  # surrogates and NULs, too
    | st.integers()
    | st.booleans()
    | st.none()
    | st.floats()
    | st.binary(max_size=20)
    | st.dates()
    | st.uuids()
    | st.decimals().filter(lambda number: not number.is_snan())  # which has no hash
    | st.sampled_from([Colour.RED, Level.HIGH, Point(1, 2.0), Seat(3), Whole(4), Text("t")])
)
ODD_VALUES = [
    Broken(),
    BrokenItems(),
    BrokenClass(),
    Endless(),
    cyclic(),
    cyclic_through_an_object(),
    deep(200),
    int,
    Film,
    Film("Up", Broken()),
    ValueError("x"),
    OddDate(2024, 1, 2),
    (n for n in range(3)),
    types.SimpleNamespace(a=1),
    memoryview(b"\xff\0"),
    iter("abc"),
    10**5000,
    "\ud83d\ude00 \ud83d",
    b"\xed\xa0\x80",
    collections.Counter("hello"),
]
# By number: Hypothesis shows what it draws, and some of these cannot be shown.
ODD = st.integers(0, len(ODD_VALUES) - 1).map(lambda number: ODD_VALUES[number])
ANYTHING = st.recursive(
    HASHABLE | ODD | st.datetimes(timezones=st.none() | st.timezones()) | st.timedeltas(),
    lambda inner: (
        (
            st.lists(inner, max_size=5)
            | st.dictionaries(HASHABLE, inner, max_size=5)
            | st.lists(inner, max_size=4).map(tuple)
            | st.lists(inner, max_size=4).map(collections.deque)
            | st.builds(Film, st.text(), inner)
        )
        | st.frozensets(HASHABLE, max_size=5)
    ),
    max_leaves=25,
)
relaxed = settings(max_examples=150)


@relaxed
@given(ANYTHING)
def test_any_value_is_strict_json_and_the_same_without_orjson(value: Any) -> None:
    """Whatever the value, the line is strict JSON, the same each time and with each encoder."""
    line = jsonable.encode(value)

    assert line == jsonable.encode(value)
    assert strict(line) == encoded(value, bare)
    assert strict(line) == encoded(jsonable.jsonable(value))


@relaxed
@given(PLAIN)
def test_plain_values_come_back_unchanged(value: Any) -> None:
    """What JSON can say is not changed on the way, neither in value nor in type."""
    for module in (jsonable, bare):
        assert repr(value) == repr(module.decode(module.encode(value)))
    assert repr(value) == repr(jsonable.jsonable(value))


@relaxed
@given(ANYTHING, st.integers(64, 5000))
def test_a_line_within_a_size_fits_or_is_none(value: Any, size: int) -> None:
    """`encode_within` never returns more than was asked for, and leaves alone what fits."""
    line = jsonable.encode_within(value, size)

    assert line is None or len(line) <= size
    if line is not None:
        strict(line)
    whole = jsonable.encode(value)
    if len(whole) <= size:
        assert whole == line


@both
def test_deep_nests_are_cut(module: Any) -> None:
    """More than 32 levels are cut where the 33rd begins, with either encoder."""
    text = module.encode(deep(200)).decode()

    assert "[" * 32 + '"[cut: deeper than 32]"' + "]" * 32 == text


@both
def test_nests_up_to_the_limit_are_kept(module: Any) -> None:
    """Exactly 32 levels are not cut."""
    assert deep(32) == encoded(deep(32), module)


@both
@pytest.mark.parametrize(
    ("value", "last"),
    [
        (list(range(50_000)), "[cut: 40000 more items]"),
        (collections.deque(range(10_001)), "[cut: 1 more items]"),
        (range(10**12), f"[cut: {10**12 - 10_000} more items]"),
        (set(range(10_002)), "[cut: 2 more items]"),
    ],
    ids=["list", "deque", "range", "set"],
)
def test_long_containers_are_cut(module: Any, value: Any, last: str) -> None:
    """A container keeps 10,000 items and says how many more there were."""
    found = encoded(value, module)

    assert (10_001, last) == (len(found), found[-1])


@both
def test_large_objects_are_cut(module: Any) -> None:
    """An object keeps 10,000 keys and says how many more there were."""
    found = encoded({str(n): n for n in range(10_005)}, module)

    assert "5 more keys" == found.pop("[cut]")
    assert 10_000 == len(found)


@both
def test_long_texts_are_cut(module: Any) -> None:
    """A text keeps a million characters and says how many more there were."""
    found = encoded({"t": "\u00e9" * 10_000_000}, module)["t"]

    assert "\u00e9" * 1_000_000 + "[cut: 9000000 more characters]" == found


@both
def test_the_number_of_values_is_bounded(module: Any) -> None:
    """One value of many small ones keeps 100,000 of them."""
    found = encoded([[n] * 400 for n in range(1000)], module)
    whole = [row for row in found if isinstance(row, list)]

    assert "[cut: too many values]" == found[-1]
    assert 100_000 - 400 <= sum(map(len, whole)) <= 100_000 + 400


@pytest.mark.parametrize(
    "value",
    [{"t": "x" * 10_000_000}, {"l": ["text"] * 9_000}, {str(n): "x" * 200 for n in range(5000)}],
    ids=["text", "list", "object"],
)
def test_what_is_too_large_for_its_place_is_cut_to_fit(value: Any) -> None:
    """A value that does not fit is cut, visibly, rather than lost."""
    line = jsonable.encode_within(value, 20_000)

    assert line is not None
    assert len(line) <= 20_000
    assert b"[cut" in line


@both
@pytest.mark.parametrize(
    "text",
    [b"NaN", b"[Infinity]", b"{", b"", b"\xff", b"[" * 100_000],
    ids=["NaN", "Infinity", "half", "nothing", "no UTF-8", "too deep"],
)
def test_what_is_not_strict_json_is_a_value_error(module: Any, text: bytes) -> None:
    """`decode` raises `ValueError` for all that is not strict JSON, and nothing else."""
    with pytest.raises(ValueError):
        module.decode(text)


@both
def test_later_changes_change_nothing(module: Any) -> None:
    """`encode` is a snapshot: the caller's objects may change after it."""
    value = {"list": [1], "film": Film("Up", [2])}
    line = module.encode(value)
    value["list"].append(3)  # type: ignore[attr-defined]

    assert {"list": [1], "film": {"title": "Up", "seen": [2]}} == strict(line)
