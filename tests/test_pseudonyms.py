"""Pseudonyms: a keyed hash in place of a value, the same everywhere and never undone."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import subprocess

from collections.abc import Callable
from typing import Any

import pytest

from posthog_logging.events.pseudonyms import Pseudonyms
from posthog_logging.events.scrub import SCRUBBED, Scrubber


KEY = "a key of the program's own"


def of(text: str, key: str = KEY) -> str:
    """Return the pseudonym by the book."""
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def replaced(given: Any, properties: dict[str, Any]) -> dict[str, Any]:
    """Return what is sent of *properties*."""
    pseudonyms = Pseudonyms.of(given)
    assert pseudonyms is not None
    found, count = Scrubber(rules=pseudonyms.rule).scrubbed(properties)
    assert 0 == count
    return found


@pytest.mark.parametrize("given", [{"email": KEY}, {"E-Mail": KEY.encode()}, (["email"], KEY)])
def test_hmac(given: Any) -> None:
    """It is HMAC-SHA-256 of the text, whichever form the option has."""
    expected = {"email": of("ada@example.org"), "email_verified": True, "n": 1}

    assert expected == replaced(given, {**expected, "email": "ada@example.org"})


def test_each_name_has_its_key() -> None:
    """Two names with two keys: the same value has two pseudonyms."""
    found = replaced({"email": "one", "login": "two"}, {"email": "x", "login": "x"})

    assert {"email": of("x", "one"), "login": of("x", "two")} == found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("7", "7"),
        (7, "7"),
        (True, "true"),
        (b"ada", "ada"),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (["a", 1], '["a",1]'),
        ({"b": [{"d": 1, "c": 2}], "a": None}, '{"a":null,"b":[{"c":2,"d":1}]}'),
        ("", ""),
    ],
)
def test_values_of_any_type(value: Any, text: str) -> None:
    """A text counts as it is, any other value as its JSON with the keys in order."""
    assert {"email": of(text)} == replaced({"email": KEY}, {"email": value})


def test_nothing_stays_nothing() -> None:
    """None is no value that anybody could be known by."""
    assert {"email": None} == replaced({"email": KEY}, {"email": None})


def test_at_any_depth() -> None:
    """Values inside containers, JSON texts and queries are replaced, too."""
    given = {"$set": {"Email": "x"}, "a": [{"email": "x"}], "b": '{"email":"x"}', "c": "?email=x"}
    pseudonym = of("x")

    assert {
        "$set": {"Email": pseudonym},
        "a": [{"email": pseudonym}],
        "b": f'{{"email":"{pseudonym}"}}',
        "c": f"?email={pseudonym}",
    } == replaced({"email": KEY}, given)


def test_the_program_s_own_names_come_first() -> None:
    """A name that is given is a pseudonym also where it would be a secret."""
    assert {"password": of("x")} == replaced({"password": KEY}, {"password": "x"})
    assert {"secret": SCRUBBED} == Scrubber().scrubbed({"secret": "x"})[0]


def test_keys_are_not_shown() -> None:
    """No repr and no error has a key in it."""
    given = {"email": KEY}

    assert KEY not in repr(Pseudonyms.of(given))
    assert KEY not in repr(vars(Pseudonyms.of(given)))
    with pytest.raises(TypeError) as raised:
        Pseudonyms.of({"email": KEY, 5: KEY})
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("email", TypeError),
        (5, TypeError),
        ({"email": 5}, TypeError),
        ({"email": None}, TypeError),
        ({5: KEY}, TypeError),
        ({"--": KEY}, TypeError),
        (("email", KEY), TypeError),
        ((["email"], 5), TypeError),
        ((["email"],), TypeError),
        ({"email": ""}, ValueError),
        ({"email": b" "}, ValueError),
        ({}, ValueError),
        (([], KEY), ValueError),
    ],
)
def test_bad_options(given: Any, kind: type[Exception]) -> None:
    """An option that is none says which it is, at once."""
    with pytest.raises(kind, match=r"^pseudonymise: "):
        Pseudonyms.of(given)


def test_every_process(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Another process, with another seed for its own hashes, comes to the same."""
    script = f"""
from posthog_logging.events.pseudonyms import Pseudonyms
print(Pseudonyms.of({{"email": {KEY!r}}}).rule("email")({{"b": 1, "a": 2}}))
"""
    done = run_script(script, PYTHONHASHSEED="7")

    assert ("", of('{"a":2,"b":1}')) == (done.stderr, done.stdout.strip())
