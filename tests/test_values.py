"""Each kind of value has one form in JSON, with and without orjson, and the guide lists it."""

from __future__ import annotations

import collections
import json
import types

from typing import Any

import pytest
import values

from conftest import load_without
from hypothesis import given, settings
from hypothesis import strategies as st
from values import FRIENDS, GUIDE, TABLE, Begins, Case, value_of

from posthog_logging.events import jsonable
from posthog_logging.events.kinds import mapping_in


bare = load_without("orjson", jsonable)
both = pytest.mark.parametrize("module", [jsonable, bare], ids=["as installed", "bare"])

CASES = [
    *(pytest.param((), case, id=case.code[:60]) for cases in TABLE.values() for case in cases),
    *(
        pytest.param((package,), case, id=case.code[:60])
        for package, cases in FRIENDS.items()
        for case in cases
    ),
]


# Those that are small, and the same whenever they are made.
PLAIN = [
    case
    for cases in TABLE.values()
    for case in cases
    if not isinstance(case.becomes, Begins) and len(str(case.becomes)) < 500
]


def shown(found: Any, expected: Any) -> Any:
    """Return *found* as far as *expected* says it."""
    if isinstance(expected, Begins):
        return Begins(found[: len(expected.text)])
    return found


def test_the_table_is_long() -> None:
    """Whoever looks for a kind of value finds it: the table has more than 120."""
    assert len(CASES) > 120


@both
@pytest.mark.parametrize(("packages", "case"), CASES)
def test_each_value_has_its_form(module: Any, packages: tuple[str, ...], case: Case) -> None:
    """Alone, in a list and in an object a value becomes the same JSON, with each encoder."""
    for package in packages:
        pytest.importorskip(package)
    value = value_of(case.code, *packages)

    alone = json.loads(module.encode(value))
    inside = json.loads(module.encode({"a": [value, value]}))["a"]

    assert case.becomes == shown(alone, case.becomes)
    if "cut" not in str(case.becomes):  # one level deeper, less is left
        assert [case.becomes] * 2 == [shown(found, case.becomes) for found in inside]


@pytest.mark.parametrize(("packages", "case"), CASES)
def test_each_value_is_left_as_it_was(packages: tuple[str, ...], case: Case) -> None:
    """To encode a value twice gives the same: nothing was consumed."""
    for package in packages:
        pytest.importorskip(package)
    value = value_of(case.code, *packages)

    assert jsonable.encode(value) == jsonable.encode(value)


def test_types_are_kept() -> None:
    """True is no 1, and 1 no 1.0: what equals is not the same JSON."""
    for cases in TABLE.values():
        for case in cases:
            if not isinstance(case.becomes, (Begins, dict, list)):
                found = json.loads(jsonable.encode(value_of(case.code)))
                assert type(case.becomes) is type(found), case.code


def test_the_guide_lists_them() -> None:
    """The guide's table is the one that the tests run over."""
    assert values.table() == values.part_of(GUIDE.read_text())


MAPPINGS = {
    "a dict": "{'a': 1}",
    "a proxy": "Proxy({'a': 1})",
    "a proxy of an object": "Proxy(types.SimpleNamespace(a=1))",
    "a lying mapping": "LyingMapping()",
    "a namespace": "types.SimpleNamespace(a=1)",
}


@pytest.mark.parametrize("code", MAPPINGS.values(), ids=MAPPINGS)
def test_what_is_an_object_in_json_serves_as_a_mapping(code: str) -> None:
    """``properties`` may be anything that is an object in JSON."""
    assert {"a": 1} == mapping_in(value_of(code))


@pytest.mark.parametrize("code", ["5", "'x'", "[1]", "None", "Raising()", "Unbound()", "Film"])
def test_what_is_no_object_in_json_does_not(code: str) -> None:
    """Any other value is none."""
    assert mapping_in(value_of(code)) is None


def test_a_mapping_without_an_end_is_cut() -> None:
    """Of a mapping that has no end, 10,000 members are taken."""
    found = mapping_in(value_of("Endless()"))

    assert found is not None
    assert (10_001, "more keys") == (len(found), found["[cut]"])


DJANGO = """
from django.conf import settings

settings.configure(INSTALLED_APPS=[], DATABASES={})  # whoever asks a database raises
import django

django.setup()
from django.core.paginator import Page, Paginator
from django.db import models
from posthog_logging.events import jsonable


class Film(models.Model):
    title = models.CharField(max_length=9)
    studio = models.ForeignKey("Film", models.CASCADE)

    class Meta:
        app_label = "cinema"


film = Film.from_db("default", ["id", "title"], [1, "Up"])
asked = Film.objects.all()
asked._result_cache = [film]
values = [film, Film.objects.all(), Film.objects, asked]
pages = [Page(rows, 1, Paginator([], 10)) for rows in (values[1], asked)]
print(jsonable.encode([*values, *pages]).decode())
"""


def test_django_is_not_asked_for_what_it_did_not_load(run_script: Any) -> None:
    """A model is its loaded fields, a query its model, a page its rows: none makes a query run."""
    pytest.importorskip("django")

    done = run_script(DJANGO)

    assert (0, "") == (done.returncode, done.stderr)
    film, query = {"id": 1, "title": "Up"}, "[QuerySet of cinema.Film]"
    expected = [film, query, "cinema.Film.objects", [film], query, [film]]
    assert expected == json.loads(done.stdout)


NESTED = st.recursive(
    st.integers(0, len(PLAIN) - 1).map(lambda number: value_of(PLAIN[number].code)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.integers() | st.booleans() | st.none(), inner, max_size=4)
        | st.lists(inner, max_size=3).map(collections.deque)
        | inner.map(values.Proxy)
        | st.builds(values.Film, st.text(), inner)
        | inner.map(lambda member: types.SimpleNamespace(member=member))
    ),
    max_leaves=12,
)


@settings(max_examples=100)
@given(NESTED)
def test_mixtures_are_the_same_with_both_encoders(value: Any) -> None:
    """Whatever stands in whatever, both encoders write the same JSON, and the same each time."""
    line = jsonable.encode(value)

    assert line == jsonable.encode(value)
    assert json.loads(line) == json.loads(bare.encode(value))
    assert jsonable.decode(line) == bare.decode(line)
