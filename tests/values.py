"""
What each kind of value becomes: the table behind the tests and behind the guide.

``python -m tests.values`` prints the guide's part; with ``--write`` it is put into the guide.
"""

from __future__ import annotations

import argparse
import ast
import collections
import collections.abc
import contextlib
import dataclasses
import datetime as dt
import enum
import functools
import importlib
import itertools
import json
import socket
import sqlite3
import sys
import uuid

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


GUIDE = Path(__file__).parent.parent / "posthog_logging" / "docs" / "events.md"


class Begins(NamedTuple):
    """A text of which only the beginning is always the same."""

    text: str


class Case(NamedTuple):
    """An expression, and the JSON that its value becomes."""

    code: str
    becomes: Any


# What the expressions are made of


class Colour(enum.Enum):
    RED = "red"
    DEEP = ("a", 1)


class Shown(enum.StrEnum):
    PLAYED = "movie played"


class Level(enum.IntEnum):
    HIGH = 3


class May(enum.Flag):
    READ = 4
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float


@dataclasses.dataclass
class Film:
    title: str
    seen: Any = None


@dataclasses.dataclass(slots=True)
class Unset:
    name: str

    def __init__(self) -> None:
        """Leave the field without a value."""


class Plain:
    """An object without a form of its own."""

    def __str__(self) -> str:
        return "plain"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no")


class Whole(int):
    pass


class Raising:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Recursive:
    def __str__(self) -> str:
        return f"{self}!"


class Indexed:
    def __index__(self) -> int:
        return 7


class Liar:
    """Says that it is a text, and keeps nothing that one could look behind."""

    @property
    def __class__(self) -> Any:
        return str

    def __str__(self) -> str:
        return "behind"


class LyingMapping:
    @property
    def __class__(self) -> Any:
        return dict

    def items(self) -> Any:
        return {"a": 1}.items()

    def __len__(self) -> int:
        return 1


class Proxy:
    """What wrapt and lazy-object-proxy do."""

    def __init__(self, behind: Any) -> None:
        self.__wrapped__ = behind

    @property
    def __class__(self) -> Any:
        return self.__wrapped__.__class__

    def __repr__(self) -> str:
        return f"Proxy({self.__wrapped__!r})"


class Unbound:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no request")

    def __str__(self) -> str:
        raise RuntimeError("no request")


class Endless(collections.abc.Mapping[str, int]):
    """A mapping without an end, and so without a length."""

    def __getitem__(self, key: str) -> int:
        return int(key)

    def __iter__(self) -> Iterator[str]:
        return map(str, itertools.count())

    def __len__(self) -> int:
        raise OverflowError


class Row(collections.abc.Sequence[Any]):
    """A row as SQLAlchemy's."""

    def __getitem__(self, index: Any) -> Any:
        return (1, "x")[index]

    def __len__(self) -> int:
        return 2

    def _asdict(self) -> dict[str, Any]:
        return {"id": 1, "nick": "x"}


class Tensor:
    """A tensor, whose size is a method."""

    shape = (2, 2)

    def size(self) -> tuple[int, ...]:
        return self.shape

    def tolist(self) -> Any:
        return [[1.0, 2.0], [3.0, float("nan")]]


class Columns:
    """A column of pyarrow's."""

    def __len__(self) -> int:
        return 2

    def to_pylist(self) -> list[Any]:
        return [1, None]


class Zone(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
        raise RuntimeError("no")


def cyclic() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


def nested(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value]
    return value


def row_of_sqlite() -> Any:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.row_factory = sqlite3.Row
        return database.execute("select 1 as id, 'x' as nick").fetchone()


def closed_socket() -> Any:
    made = socket.socket()
    made.close()
    return made


def generator() -> Iterator[int]:
    yield 1
    raise AssertionError("nobody may ask a generator")


async def coroutine() -> None:
    """Wait for nothing."""


def closed_coroutine() -> Any:
    made = coroutine()
    made.close()
    return made


KEPT = Film("Up")
MOMENT = dt.datetime(2024, 1, 2, 3, 4, 5, 678901, dt.UTC)
ID = uuid.UUID("01890b5c-2a3b-7c4d-8e5f-0123456789ab")

TABLE: dict[str, list[Case]] = {
    "Texts": [
        Case("'movie'", "movie"),
        Case("Text('a subclass')", "a subclass"),
        Case("collections.UserString('movie')", "movie"),
        Case("'a\\0b'", "a\ufffdb"),
        Case("'a\\ud800b'", "a\ufffdb"),
        Case("'\\ud83d\\ude00'", "\U0001f600"),
        Case("b'caf\\xc3\\xa9'", "caf\u00e9"),
        Case("b'\\xff'", "\\xff"),
        Case("bytearray(b'ab')", "ab"),
        Case("memoryview(b'ab')", "ab"),
        Case("string.Template('$a')", Begins("<string.Template object at ")),
    ],
    "Numbers": [
        Case("True", True),
        Case("None", None),
        Case("7", 7),
        Case("2**64 - 1", 2**64 - 1),
        Case("2**64", "18446744073709551616"),
        Case("-2**63 - 1", "-9223372036854775809"),
        Case("1 << 20000", hex(1 << 20000)),
        Case("Whole(7)", 7),
        Case("Indexed()", 7),
        Case("2.5", 2.5),
        Case("float('nan')", None),
        Case("float('-inf')", None),
        Case("decimal.Decimal('19.99')", 19.99),
        Case("decimal.Decimal('0.1234567890123456789')", "0.1234567890123456789"),
        Case("decimal.Decimal('1E+400')", "1E+400"),
        Case("decimal.Decimal('NaN')", None),
        Case("fractions.Fraction(1, 4)", 0.25),
        Case("fractions.Fraction(1, 3)", "1/3"),
        Case("fractions.Fraction(10) ** 400", "1" + "0" * 400),
        Case("fractions.Fraction(10**5000, 3)", f"{hex(10**5000)}/3"),
        Case("1 + 2j", "(1+2j)"),
    ],
    "Times": [
        Case("dt.datetime(2024, 1, 2, 3, 4, 5)", "2024-01-02T03:04:05"),
        Case("MOMENT", "2024-01-02T03:04:05.678901+00:00"),
        Case(
            "dt.datetime(2024, 7, 2, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin'))",
            "2024-07-02T00:00:00+02:00",
        ),
        Case("dt.datetime(2024, 1, 2, tzinfo=Zone())", "2024-01-02T00:00:00"),
        Case("dt.date(2024, 1, 2)", "2024-01-02"),
        Case("dt.time(3, 4)", "03:04:00"),
        Case("dt.timedelta(minutes=2)", 120.0),
        Case("dt.UTC", "UTC"),
        Case("zoneinfo.ZoneInfo('Europe/Berlin')", "Europe/Berlin"),
        Case("time.gmtime(0)", [1970, 1, 1, 0, 0, 0, 3, 1, 0]),
    ],
    "Enumerations": [
        Case("Colour.RED", "red"),
        Case("Colour.DEEP", ["a", 1]),
        Case("Shown.PLAYED", "movie played"),
        Case("Level.HIGH", 3),
        Case("May.READ | May.WRITE", 6),
        Case("http.HTTPStatus.OK", 200),
        Case("Colour", "<enum 'Colour'>"),
    ],
    "Arrays": [
        Case("[1, 'a']", [1, "a"]),
        Case("(1, 'a')", [1, "a"]),
        Case("Point(1, 2.5)", [1, 2.5]),
        Case("range(3)", [0, 1, 2]),
        Case("collections.deque([1, 2])", [1, 2]),
        Case("collections.UserList([1, 2])", [1, 2]),
        Case("array.array('d', [1, 2])", [1.0, 2.0]),
        Case("memoryview(array.array('i', [1, 2]))", [1, 2]),
        Case("{'b', 'a'}", ["a", "b"]),
        Case("frozenset({10, 9})", [9, 10]),
        Case("{1, 'a', None}", [1, "a", None]),
        Case("{'b': 1, 'a': 2}.keys()", ["b", "a"]),
        Case("{'b': 1, 'a': 2}.values()", [1, 2]),
        Case("{'b': 1, 'a': 2}.items()", [["b", 1], ["a", 2]]),
        Case("collections.OrderedDict(b=1, a=2).keys()", ["b", "a"]),
        Case("Tensor()", [[1.0, 2.0], [3.0, None]]),
        Case("Columns()", [1, None]),
    ],
    "Objects": [
        Case("{'a': 1}", {"a": 1}),
        Case(
            "{1: 'a', None: 'b', False: 'c', 2.5: 'd'}",
            {"1": "a", "null": "b", "false": "c", "2.5": "d"},
        ),
        Case("{1: 'a', '1': 'b'}", {"1": "b"}),
        Case("{True: 'a', 'true': 'b'}", {"true": "b"}),
        Case("{2.5: 'a', '2.5': 'b'}", {"2.5": "b"}),
        Case("{None: 'a', 'null': 'b', 'c': {-1: 1, '-1': 2}}", {"null": "b", "c": {"-1": 2}}),
        Case("{ID: 1, Colour.RED: 2, MOMENT: 3}", {str(ID): 1, "red": 2, MOMENT.isoformat(): 3}),
        Case("{b'a': 1, (1, 2): 2}", {"a": 1, "(1, 2)": 2}),
        Case("{'\\ud800': 1}", {"\ufffd": 1}),
        Case("{Raising(): 1, 'a': 2}", {"[unprintable Raising]": 1, "a": 2}),
        Case("collections.OrderedDict(b=1, a=2)", {"b": 1, "a": 2}),
        Case("collections.defaultdict(list, a=[1])", {"a": [1]}),
        Case("collections.Counter('aab')", {"a": 2, "b": 1}),
        Case("collections.ChainMap({'a': 1}, {'b': 2})", {"b": 2, "a": 1}),
        Case("collections.UserDict(a=1)", {"a": 1}),
        Case("types.MappingProxyType({'a': 1})", {"a": 1}),
        Case("types.SimpleNamespace(a=1)", {"a": 1}),
        Case("Film('Up', MOMENT.date())", {"title": "Up", "seen": "2024-01-02"}),
        Case("Unset()", {"name": "[unreadable: AttributeError]"}),
        Case("Row()", {"id": 1, "nick": "x"}),
        Case("row_of_sqlite()", {"id": 1, "nick": "x"}),
    ],
    "What becomes its text": [
        Case("ID", str(ID)),
        Case("pathlib.PurePosixPath('/a/b')", "/a/b"),
        Case("ipaddress.ip_address('127.0.0.1')", "127.0.0.1"),
        Case("ipaddress.ip_network('10.0.0.0/8')", "10.0.0.0/8"),
        Case("ValueError('no such film')", "no such film"),
        Case("KeyError('film')", "'film'"),
        Case("ExceptionGroup('two', [ValueError()])", "two (1 sub-exception)"),
        Case("int", "<class 'int'>"),
        Case("Film", "<class 'values.Film'>"),
        Case("list[int]", "list[int]"),
        Case("int | None", "int | None"),
        Case("len", "<built-in function len>"),
        Case("cyclic", Begins("<function cyclic at ")),
        Case("lambda: 1", Begins("<function <lambda> at ")),
        Case("functools.partial(len)", "functools.partial(<built-in function len>)"),
        Case("operator.itemgetter(1)", "operator.itemgetter(1)"),
        Case("json", Begins("<module 'json' from ")),
        Case("re.compile('a+')", "re.compile('a+')"),
        Case("re.match('a', 'a')", "<re.Match object; span=(0, 1), match='a'>"),
        Case("generator()", Begins("<generator object generator at ")),
        Case("iter([1, 2])", Begins("<list_iterator object at ")),
        Case("map(str, [1])", Begins("<map object at ")),
        Case("itertools.count()", "count(0)"),
        Case("closed_coroutine()", Begins("<coroutine object coroutine at ")),
        Case("io.StringIO('text')", Begins("<_io.StringIO object at ")),
        Case("closed_socket()", Begins("<socket.socket [closed] fd=-1")),
        Case("threading.Lock()", Begins("<unlocked _thread.lock object at ")),
        Case("queue.Queue()", Begins("<queue.Queue object at ")),
        Case("weakref.ref(KEPT)", Begins("<weakref at ")),
        Case("contextvars.ContextVar('a')", Begins("<ContextVar name='a' at ")),
        Case("logging.getLogger('a.b')", "<Logger a.b (WARNING)>"),
        Case("unittest.mock.Mock(name='m')", Begins("<Mock name='m' id=")),
        Case("unittest.mock.MagicMock(spec=dict)", Begins("<MagicMock spec='dict' id=")),
        Case("unittest.mock.create_autospec(Film)", Begins("<MagicMock spec='Film' id=")),
        Case("unittest.mock.sentinel.a", "sentinel.a"),
        Case("email.message.Message()", "\n"),
        Case("Plain()", "plain"),
        Case("object()", Begins("<object object at ")),
        Case("...", "Ellipsis"),
        Case("NotImplemented", "NotImplemented"),
        Case("slice(1, 2)", "slice(1, 2, None)"),
    ],
    "Proxies": [
        Case("weakref.proxy(KEPT)", {"title": "Up", "seen": None}),
        Case("Proxy('behind')", "behind"),
        Case("Proxy(Proxy(7))", 7),
        Case("Proxy(MOMENT)", "2024-01-02T03:04:05.678901+00:00"),
        Case("{Proxy('a'): Proxy({'b': 1})}", {"a": {"b": 1}}),
        Case("Liar()", "behind"),
        Case("LyingMapping()", {"a": 1}),
        Case("Unbound()", "[unprintable Unbound]"),
    ],
    "What cannot be read, or has no end": [
        Case("Raising()", "[unprintable Raising]"),
        Case("[Raising(), 1]", ["[unprintable Raising]", 1]),
        Case("Recursive()", "[unprintable Recursive]"),
        Case("cyclic()", {"self": ["[cut: cycle]"]}),
        Case("nested(40)", ast.literal_eval("[" * 32 + "'[cut: deeper than 32]'" + "]" * 32)),
        Case("range(10**12)", [*range(10_000), "[cut: 999999990000 more items]"]),
        Case("Endless()", {**{str(n): n for n in range(10_000)}, "[cut]": "many more keys"}),
        Case("'x' * 1_000_003", "x" * 1_000_000 + "[cut: 3 more characters]"),
    ],
}

#: What needs a package, by its name.
FRIENDS: dict[str, list[Case]] = {
    "numpy": [
        Case("numpy.int64(3)", 3),
        Case("numpy.float64(2.5)", 2.5),
        Case("numpy.float32('nan')", None),
        Case("numpy.longdouble(1)", 1.0),
        Case("numpy.complex128(1j)", "1j"),
        Case("numpy.bool_(True)", True),
        Case("numpy.str_('hi')", "hi"),
        Case("numpy.datetime64('2024-01-02')", "2024-01-02"),
        Case("numpy.datetime64('2024-01-02T03:04:05.123456789')", "2024-01-02T03:04:05.123456"),
        Case("numpy.datetime64('NaT', 'ns')", None),
        Case("numpy.timedelta64(1500, 'ms')", 1.5),
        Case("numpy.timedelta64(1_500_000_000, 'ns')", 1.5),
        Case("numpy.timedelta64(3, 'M')", "3 months"),
        Case("numpy.timedelta64(10**12, 'D')", "1000000000000 days"),
        Case("numpy.datetime64('20000-01-01')", "20000-01-01"),
        Case(
            "numpy.array(['20000-01-01', 'NaT', '2024-01-02'], 'M8[D]')",
            ["20000-01-01", None, "2024-01-02"],
        ),
        Case("numpy.arange(4).reshape(2, 2)", [[0, 1], [2, 3]]),
        Case("numpy.array(['2024-01-02', 'NaT'], 'M8[ns]')", ["2024-01-02T00:00:00", None]),
        Case("numpy.array([1, None, 'a'], object)", [1, None, "a"]),
        Case("numpy.ma.masked_array([1, 2], [False, True])", [1, None]),
        Case(
            "numpy.array([(1, '2024-01-02')], [('a', 'i4'), ('at', 'M8[ns]')])",
            [{"a": 1, "at": "2024-01-02T00:00:00"}],
        ),
        Case(
            "numpy.ma.masked_array([(1, 2)], [(True, False)], [('a', 'i4'), ('b', 'i4')])",
            [{"a": None, "b": 2}],
        ),
        Case("numpy.arange(20_000)", [*range(9_999), "[cut: 10001 more items]"]),
    ],
    "pandas": [
        Case("pandas.Series([1, 2.5, None])", [1.0, 2.5, None]),
        Case("pandas.Series([1, None], dtype='Int64')", [1, None]),
        Case("pandas.Series(range(20_000))", [*range(9_999), "[cut: 10001 more items]"]),
        Case(
            "pandas.Series(pandas.to_datetime(['2024-01-02', None]))",
            ["2024-01-02T00:00:00", None],
        ),
        Case("pandas.Index(['a', 'b'])", ["a", "b"]),
        Case("pandas.Categorical(['a'])", ["a"]),
        Case(
            "pandas.DataFrame({'a': [1, 2], 'b': ['x', None]})",
            [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
        ),
        Case("pandas.NaT", None),
        Case("pandas.NA", None),
        Case("pandas.Timestamp('2024-01-02T03:04:05Z')", "2024-01-02T03:04:05+00:00"),
        Case("pandas.Timedelta('90s')", 90.0),
        Case("pandas.Period('2024-01')", "2024-01"),
        Case("pandas.Interval(0, 1)", "(0, 1]"),
    ],
    "polars": [
        Case("polars.Series([1, None])", [1, None]),
        Case("polars.Series(range(20_000))", [*range(9_999), "[cut: 10001 more items]"]),
        Case("polars.DataFrame({'a': [1, 2]})", [{"a": 1}, {"a": 2}]),
        Case(
            "polars.DataFrame({'a': range(10_003)})",
            [*({"a": n} for n in range(9_999)), "[cut: 4 more items]"],
        ),
    ],
    "pydantic": [
        Case("pydantic.create_model('Movie', title=(str, ...))(title='Up')", {"title": "Up"}),
        Case("pydantic.SecretStr('secret')", "**********"),
        Case("pydantic.AnyUrl('https://example.org/a')", "https://example.org/a"),
    ],
    "attrs": [Case("attrs.make_class('Movie', ['title'])('Up')", {"title": "Up"})],
    "msgspec": [Case("msgspec.defstruct('Movie', ['title'])('Up')", {"title": "Up"})],
    "wrapt": [
        Case("wrapt.ObjectProxy({'a': 1})", {"a": 1}),
        Case("wrapt.ObjectProxy(wrapt.ObjectProxy(MOMENT))", MOMENT.isoformat()),
    ],
    "werkzeug.local": [
        Case("werkzeug.local.LocalProxy(lambda: 'user-1')", "user-1"),
        Case("werkzeug.local.LocalProxy(lambda: [1, {'a': 2}])", [1, {"a": 2}]),
        Case("werkzeug.local.Local()('request')", "[unprintable LocalProxy]"),
    ],
    "werkzeug.datastructures": [
        Case("werkzeug.datastructures.Headers({'X-A': '1'})", [["X-A", "1"]]),
    ],
    "django.utils.functional": [
        Case("django.utils.functional.SimpleLazyObject(lambda: 'user-1')", "user-1"),
        Case(
            "django.utils.functional.SimpleLazyObject(lambda: Film('Up'))",
            {"title": "Up", "seen": None},
        ),
        Case("django.utils.functional.lazystr('lazy')", "lazy"),
        Case("{django.utils.functional.lazystr('lazy'): 1}", {"lazy": 1}),
        Case("django.utils.functional.lazy(lambda: [False, {'a': 1}], list)()", [False, {"a": 1}]),
    ],
    "sqlalchemy": [
        Case("row_of_sqlalchemy()", {"id": 1, "nick": "x"}),
        Case("row_of_sqlalchemy()._mapping", {"id": 1, "nick": "x"}),
        Case("object_of_sqlalchemy()", {"id": 1, "nick": "x"}),
        Case("object_of_sqlalchemy(expired=True)", {}),
    ],
}


@functools.cache
def _mapped_class() -> Any:
    import sqlalchemy
    import sqlalchemy.orm

    base = sqlalchemy.orm.declarative_base()
    columns = {
        "__tablename__": "users",
        "id": sqlalchemy.Column(sqlalchemy.Integer, primary_key=True),
        "nick": sqlalchemy.Column("nickname", sqlalchemy.String),
    }
    return type("User", (base,), columns)


@contextlib.contextmanager
def _session() -> Iterator[Any]:
    import sqlalchemy
    import sqlalchemy.orm

    user = _mapped_class()
    engine = sqlalchemy.create_engine("sqlite://")
    user.metadata.create_all(engine)
    with sqlalchemy.orm.Session(engine) as session:
        session.add(user(id=1, nick="x"))
        session.commit()
        yield session
    engine.dispose()


def row_of_sqlalchemy() -> Any:
    import sqlalchemy

    user = _mapped_class()
    with _session() as session:
        return session.execute(sqlalchemy.select(user.id, user.nick)).one()


def object_of_sqlalchemy(expired: bool = False) -> Any:
    with _session() as session:
        found = session.get(_mapped_class(), 1)
        found.nick
        if expired:
            session.expire(found)
        return found


# Modules of the standard library that only expressions speak of.
_MODULES = """array contextvars decimal email.message fractions functools http io ipaddress logging
operator pathlib queue re string threading time types unittest.mock weakref zoneinfo""".split()


def value_of(code: str, *packages: str) -> Any:
    """Return the value of an expression; *packages* are imported for it."""
    for package in (*_MODULES, *packages):
        importlib.import_module(package)
    roots = {
        name.partition(".")[0]: sys.modules[name.partition(".")[0]]
        for name in (*_MODULES, *packages)
    }
    return eval(code, {**globals(), **roots})


def table() -> str:
    """Return the guide's part."""
    parts = [_section(title, cases) for title, cases in TABLE.items()]
    friends = [case for cases in FRIENDS.values() for case in cases]
    return "\n".join([*parts, _section("Values of other libraries", friends)])


def _section(title: str, cases: list[Case]) -> str:
    rows = [f"| {_cell(case.code)} | {_cell(_shown(case.becomes))} |" for case in cases]
    return "\n".join([f"### {title}", "", "| Python | JSON |", "|---|---|", *rows, ""])


def _shown(becomes: Any) -> str:
    if isinstance(becomes, Begins):
        return f'"{becomes.text}…"'
    text = json.dumps(becomes, ensure_ascii=False)
    return text if len(text) <= 90 else f"{text[:40]} … {text[-40:]}"


def _cell(text: str) -> str:
    escaped = text.replace("|", "\\|")
    return f"`` {escaped} ``" if "`" in escaped else f"`{escaped}`"


_BEGIN = "<!-- made by python -m tests.values --write -->\n"
_END = "<!-- end -->\n"


def part_of(guide: str) -> str:
    """Return what the guide says between its two marks."""
    return guide.partition(_BEGIN)[2].partition(_END)[0]


def main() -> None:
    """Print the guide's part, or write it into the guide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into the guide")
    if not parser.parse_args().write:
        print(table())
        return
    guide = GUIDE.read_text()
    GUIDE.write_text(guide.replace(part_of(guide), table()))


if __name__ == "__main__":
    main()
