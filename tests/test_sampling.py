"""Fewer events: the same people everywhere, and a ceiling for each."""

from __future__ import annotations

import math
import subprocess
import threading

from collections.abc import Callable
from typing import Any

import pytest

from posthog_logging.events.sampling import Ceiling, Sampler, is_exempt, is_in_sample


EXEMPT = ["$identify", "$create_alias", "$groupidentify", "$set", "$exception"]


def silent(topic: str, text: str) -> None:
    """Hear nothing."""


def event(name: str = "page seen", distinct_id: str = "user-1") -> dict[str, Any]:
    """Return an event as ``before_send`` sees it."""
    return {"event": name, "distinct_id": distinct_id, "properties": {}}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_the_share(share: float) -> None:
    """Of 100,000 people the share is met within one percent of them all."""
    kept = sum(is_in_sample(f"user-{number}", share) for number in range(100_000))

    assert abs(kept - share * 100_000) < 1_000


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    """Whoever is in a sample of 10 % is in one of 20 %; none is in 0, all are in 1."""
    people = [f"user-{number}" for number in range(2_000)]
    tenth, fifth = ({one for one in people if is_in_sample(one, x)} for x in (0.1, 0.2))

    assert tenth < fifth
    assert not any(is_in_sample(one, 0.0) for one in people)
    assert all(is_in_sample(one, 1.0) for one in people)


def test_every_process(run_script: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The decision is written down here, for every process and every version of Python."""
    script = """
from posthog_logging.events.sampling import is_in_sample
print("".join(str(int(is_in_sample(f"user-{n}", 0.3))) for n in range(40)))
"""
    done = run_script(script, PYTHONHASHSEED="7")

    assert "0000000111000011100101000100100001000000" == done.stdout.strip(), done.stderr
    assert is_in_sample("\ud800", 1.0)


def test_rates_by_name() -> None:
    """A name without a rate is kept whole, and says nothing of one."""
    sampler = Sampler.of({"page seen": 0.1, "never": 0})
    assert sampler is not None

    found = [sampler.rate_of(event(name), silent) for name in ("page seen", "never", "x")]

    assert [0.1, 0.0, None] == found


@pytest.mark.parametrize("name", EXEMPT)
def test_what_is_never_a_sample(name: str) -> None:
    """Who somebody is, and what went wrong, is always sent."""
    by_name = Sampler.of(dict.fromkeys(EXEMPT, 0.0))
    by_call = Sampler.of(lambda event: 0.0)
    assert by_name is not None
    assert by_call is not None

    assert [None, None] == [one.rate_of(event(name), silent) for one in (by_name, by_call)]
    assert is_exempt(name)


def test_a_callable() -> None:
    """It is given the event, and returns a rate, or None for all of it."""
    sampler = Sampler.of(lambda event: {"a": 0.5, "b": True}.get(event["event"]))
    assert sampler is not None

    assert [0.5, 1.0, None] == [sampler.rate_of(event(name), silent) for name in "abc"]


@pytest.mark.parametrize("found", [2, -1, math.nan, "x", [], ZeroDivisionError("x")])
def test_a_callable_that_fails(found: Any) -> None:
    """An event is not lost by a failure that is not its own; it is told of by name."""
    told: list[str] = []

    def find(event: dict[str, Any]) -> Any:
        if isinstance(found, Exception):
            raise found
        return found

    sampler = Sampler.of(find)
    assert sampler is not None

    assert sampler.rate_of(event(), lambda topic, text: told.append(text)) is None
    assert 1 == len(told)
    assert told[0].startswith("sample failed with ")


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"page seen": 2}, ValueError),
        ({"page seen": -0.1}, ValueError),
        ({"page seen": math.nan}, ValueError),
        ({"page seen": math.inf}, ValueError),
        ({"page seen": "0.1"}, TypeError),
        ({"page seen": None}, TypeError),
        ({"page seen": True}, TypeError),
        ({5: 0.1}, TypeError),
        (0.1, TypeError),
        ("page seen", TypeError),
    ],
)
def test_bad_rates(given: Any, kind: type[Exception]) -> None:
    """A rate that is none says which it is, at once."""
    with pytest.raises(kind, match=r"^sample: "):
        Sampler.of(given)


def test_the_ceiling() -> None:
    """So many at once, then so many a second, for each person alone."""
    ceiling = Ceiling(3, 2.0)
    flood = [ceiling.allow("ada", 10.0) for _ in range(5)]
    later = [ceiling.allow("ada", 11.0) for _ in range(3)]

    assert [True, True, True, False, False] == flood
    assert [True, True, False] == later
    assert ceiling.allow("bob", 10.0)
    assert [True, True, True, False] == [ceiling.allow("ada", 100.0) for _ in range(4)]


def test_a_clock_that_was_set_back() -> None:
    """Time that goes back gives nothing away and forbids nothing for ever."""
    ceiling = Ceiling(2, 1.0)
    at_first = [ceiling.allow("ada", 100.0) for _ in range(3)]

    assert [True, True, False] == at_first
    assert not ceiling.allow("ada", 99.0)
    assert ceiling.allow("ada", 101.0)


def test_bounded_memory() -> None:
    """However many people there are; and the one that floods is not who is forgotten."""
    ceiling = Ceiling(5, 1.0, most=100)
    for _ in range(5):
        ceiling.allow("ada", 0.0)
    for number in range(5_000):
        assert ceiling.allow(f"user-{number}", 0.0)

    assert len(ceiling) <= 100
    assert not ceiling.allow("ada", 0.0)


def test_from_many_threads() -> None:
    """No more than the burst passes, whichever threads ask."""
    ceiling = Ceiling(1_000, 1e-9)
    passed: list[bool] = []

    def ask() -> None:
        passed.extend([ceiling.allow("ada", 0.0) for _ in range(500)])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (1_000, 4_000) == (sum(passed), len(passed))


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (5, TypeError),
        ((1,), TypeError),
        (("5", 1), TypeError),
        ((1.5, 1), TypeError),
        ((True, 1), TypeError),
        ((5, "1"), TypeError),
        ((5, None), TypeError),
        ((0, 1.0), ValueError),
        ((5, 0), ValueError),
        ((5, -1.0), ValueError),
        ((5, math.nan), ValueError),
        ((5, math.inf), ValueError),
    ],
)
def test_bad_ceilings(given: Any, kind: type[Exception]) -> None:
    """A ceiling that is none says so at once."""
    with pytest.raises(kind, match=r"^person_rate: "):
        Ceiling.of(given)


def test_no_ceiling() -> None:
    """None is no limit."""
    assert Ceiling.of(None) is None
    assert Ceiling.of([5, 1]) is not None
    assert Ceiling.of((10**400, 1)) is not None
