"""What an answer means and when to send next: total, bounded, never negative."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from hypothesis import given
from hypothesis import strategies as st

from posthog_logging.delivery.policy import (
    SHORTEST_BACKOFF,
    Outcome,
    Schedule,
    backoff,
    judge,
    parse_retry_after,
)
from posthog_logging.wire import Rules
from posthog_logging.wire.otlp import LOGS
from posthog_logging.wire.posthog import V0, V1
from posthog_logging.wire.segment import SEGMENT


RULES = {
    "default": Rules(),
    "V0": V0.rules,
    "V1": V1.rules,
    "segment": SEGMENT.rules,
    "nothing": Rules(
        retry=frozenset(), pause=frozenset(), bisect=frozenset(), longest_retry_after=0.0
    ),
    "final": Rules(final=frozenset({501, 505})),
}
NOW = 1_704_164_645.0  # Tue, 02 Jan 2024 03:04:05 GMT


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_every_status_is_judged(rules: Rules) -> None:
    """No status raises, none ends a batch of one as if it could be split."""
    for status in [None, *range(100, 600), 999]:
        for count in (1, 2, 2000):
            for page in (False, True):
                outcome = judge(status, rules, count, page=page, proven=page)
                assert isinstance(outcome, Outcome)
                assert (outcome is Outcome.DELIVERED) == (
                    status is not None and 200 <= status < 300
                )
                if count == 1:
                    assert outcome not in (Outcome.HALVE, Outcome.BISECT)


R, J, P, D = Outcome.RETRY, Outcome.REJECTED, Outcome.PAUSE, Outcome.DELIVERED
F = Outcome.REFUSED


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, R), (200, D), (201, D), (204, D), (301, P), (307, P), (401, P), (402, P),
        (403, F), (404, P), (408, R), (413, Outcome.OVERSIZED), (415, P), (422, J),
        (405, P), (407, P), (410, P), (421, R), (425, R), (451, P), (511, P), (103, R),
        (429, R), (500, R), (502, R), (503, R), (504, R), (599, R), (400, J),
    ],
    ids=str,
)  # fmt: skip
def test_posthogs_table(status: int | None, expected: Outcome) -> None:
    """A batch of one is treated as the table of PostHog's statuses says (1.8)."""
    assert expected is judge(status, V0.rules, 1)


def test_batches_of_more_are_split() -> None:
    """A 413 halves a batch, and a 400 looks for the event at fault."""
    assert Outcome.HALVE is judge(413, V0.rules, 2)
    assert Outcome.BISECT is judge(400, V0.rules, 2)


@pytest.mark.parametrize("status", [400, 403, 406, 422])
@pytest.mark.parametrize("count", [1, 40])
def test_a_page_is_no_verdict_of_the_endpoint(status: int, count: int) -> None:
    """A 4xx with a web page is a firewall's: it may mean one event, or the address."""
    assert F is judge(status, V0.rules, count, page=True)


@pytest.mark.parametrize("status", [404, 405, 410])
def test_not_found_passes_where_the_endpoint_was_found(status: int) -> None:
    """A host that has spoken V1 is being deployed, not wrong."""
    assert R is judge(status, V1.rules, 5, proven=True)
    assert P is judge(status, V1.rules, 5)


@pytest.mark.parametrize("rules", [V0.rules, V1.rules, SEGMENT.rules, LOGS.rules])
@pytest.mark.parametrize("status", [401, 402, 404, 405, 407, 451, 301, 302, 303, 307, 308])
def test_configuration_loses_nothing(status: int, rules: Rules) -> None:
    """A wrong key or address, or an unpaid bill, pauses in every dialect."""
    assert P is judge(status, rules, 1)
    assert P is judge(status, rules, 100)


@pytest.mark.parametrize("rules", [V0.rules, V1.rules, SEGMENT.rules, LOGS.rules])
def test_a_429_waits(rules: Rules) -> None:
    """A 429 is retried in every dialect, whether it says for how long or not."""
    assert R is judge(429, rules, 5)


def test_some_servers_errors_are_final() -> None:
    """A rule may say that a status from 500 on is of no use to retry; it may be one event's."""
    assert J is judge(501, RULES["final"], 1)
    assert Outcome.BISECT is judge(501, RULES["final"], 2)
    assert R is judge(502, RULES["final"], 1)


RETRY_AFTERS: dict[str, tuple[str | None, float | None]] = {
    "absent": (None, None),
    "empty": ("", None),
    "seconds": ("7", 7.0),
    "decimals": (" 1.5 ", 1.5),
    "IMF-fixdate": ("Tue, 02 Jan 2024 03:04:15 GMT", 10.0),
    "RFC 850": ("Tuesday, 02-Jan-24 03:04:15 GMT", 10.0),
    "asctime": ("Tue Jan  2 03:04:15 2024", 10.0),
    "no zone": ("Tue, 02 Jan 2024 03:04:15 -0000", 10.0),
    "another zone": ("Tue, 02 Jan 2024 05:04:15 +0200", 10.0),
    "past": ("Mon, 01 Jan 2024 00:00:00 GMT", None),
    "zero": ("0", None),
    "negative": ("-5", None),
    "NaN": ("nan", None),
    "infinite": ("inf", None),
    "beyond a double": ("9" * 400, None),
    "huge": ("99999999", 99_999_999.0),
    "garbage": ("soon", None),
    "half a date": ("Tue, 02 Jan", None),
    "twice": ("60, 60", 60.0),
    "several": ("5, soon, 60.5,7", 60.5),
    "several of none": ("soon, later", None),
    "two dates": ("Tue, 02 Jan 2024 03:04:15 GMT, Tue, 02 Jan 2024 03:04:15 GMT", 10.0),
    "no such date": ("Tue, 99 Jan 2024 03:04:15 GMT", None),
    "before any clock": ("Mon, 01 Jan 0001 00:00:00 +2300", None),
}


@pytest.mark.parametrize(("value", "expected"), RETRY_AFTERS.values(), ids=RETRY_AFTERS)
def test_retry_after_in_every_form(value: str | None, expected: float | None) -> None:
    """Seconds and all three dates are read; what asks for nothing, or for nonsense, is None."""
    assert expected == parse_retry_after(value, NOW)


@given(st.text(st.characters(codec="latin-1")) | st.from_regex(r"\w{3}, \d+ Jan \d+ [\d:]+ \S*"))
def test_any_header_is_a_wait_or_none(value: str) -> None:
    """Whatever a server sends, nothing is raised, and a wait is a positive number."""
    found = parse_retry_after(value, NOW)

    assert found is None or (math.isfinite(found) and found > 0)


@given(st.integers(0, 10_000), st.floats(0.1, 3600), st.floats(0, 1))
def test_backoff_has_bounds(failures: int, longest: float, chance: float) -> None:
    """A wait is never below 100 ms and never above the longest, however often it failed."""
    found = backoff(failures, longest, lambda low, high: low + chance * (high - low))

    assert SHORTEST_BACKOFF <= found <= longest


def test_backoff_doubles() -> None:
    """The most that chance can make of a wait doubles up to the longest."""
    waits = [backoff(failures, 30.0, lambda low, high: high) for failures in range(1, 8)]

    assert [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] == waits


TIMES = st.floats(0, 4e9)


@given(TIMES, TIMES, st.none() | st.floats(0, 1e12), st.integers(0, 100), st.randoms())
def test_a_wait_has_a_floor_and_a_ceiling(
    now: float, later: float, asked: float | None, failures: int, chance: random.Random
) -> None:
    """``Retry-After`` is a floor under the back-off, up to its ceiling; no wait is negative."""
    rules = V0.rules
    schedule = Schedule(100, failures=failures).failed(now, rules, asked, chance.uniform)
    wait = schedule.due_in(now)

    assert failures + 1 == schedule.failures
    assert min(asked or 0.0, rules.longest_retry_after) <= wait + 1e-6
    longest = max(rules.longest_backoff, min(asked or 0.0, rules.longest_retry_after))
    assert SHORTEST_BACKOFF - 1e-6 <= wait <= longest + 1e-6
    assert schedule.due_in(later) >= 0.0


def test_a_schedule_begins_due_and_full() -> None:
    """Nothing holds back the first attempt, and the first batch may be of the most."""
    assert (100, 0.0) == (Schedule(100).limit, Schedule(100).due_in(0.0))


def test_a_delivery_ends_the_wait() -> None:
    """After a success there is no failure and no pause left, and the next one is due."""
    troubled = Schedule(100).failed(NOW, V0.rules).paused(NOW, V0.rules)

    assert Schedule(100) == troubled.succeeded(NOW)


@pytest.mark.parametrize(
    ("asked", "paces"),
    [(0.0, [0.3, 0.6, 0.9]), (4.0, [2.0, 4.0, 6.0]), (3600.0, [5.0, 10.0, 15.0])],
)
def test_a_limit_of_the_server_sets_the_pace(asked: float, paces: list[float]) -> None:
    """Each 429 makes the time between requests longer, to half a minute; successes shrink it."""
    schedule, found = Schedule(100), []
    for _ in paces:
        schedule = schedule.throttled(asked)
        found.append(schedule.pace)
    assert paces == pytest.approx(found)
    for _ in range(100):
        schedule = schedule.throttled(asked)
    assert 30.0 == pytest.approx(schedule.pace)

    schedule = schedule.failed(NOW - 30.0, V0.rules, uniform=lambda low, high: low)
    assert 27.0 == pytest.approx(schedule.succeeded(NOW).due_in(NOW))
    assert Schedule(100) == schedule.succeeded(NOW + 31.0)  # that was long ago
    for _ in range(60):
        schedule = schedule.succeeded(NOW)
    assert Schedule(100) == schedule


@given(st.integers(1, 5000), st.lists(st.integers(1, 5000), max_size=10))
def test_a_halved_batch_ramps_up_again(most: int, counts: list[int]) -> None:
    """However small batches became, at least one event fits, and successes reach the most."""
    schedule = Schedule(most)
    for count in counts:
        schedule = schedule.halved(min(count, schedule.limit))
        assert 1 <= schedule.limit <= most
    for _ in range(50):
        schedule = schedule.succeeded(NOW)
        assert schedule.limit <= most

    assert most == schedule.limit


def test_pauses_grow_to_a_quarter_of_an_hour() -> None:
    """A refused key is tried again after 1, 2, 4, 8 and then 15 minutes."""
    schedule, waits = Schedule(100), []
    for _ in range(12):
        schedule = schedule.paused(NOW, V0.rules)
        waits.append(schedule.due_in(NOW) / 60)

    assert [1.0, 2.0, 4.0, 8.0, *[15.0] * 8] == waits


def test_a_schedule_does_not_change() -> None:
    """Every change is a new schedule."""
    schedule = Schedule(100)
    schedule.failed(NOW, V0.rules)
    schedule.paused(NOW, V0.rules)
    schedule.halved(50)
    schedule.succeeded(NOW)
    schedule.throttled()

    assert Schedule(100) == schedule
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.failures = 1  # type: ignore[misc]
