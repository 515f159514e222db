"""What strangers give as an event's person and time, beside the inputs that were reported."""

from __future__ import annotations

import datetime as dt

from zoneinfo import ZoneInfo

import pytest

from posthog_logging.events.identifiers import text_of_id
from posthog_logging.events.timestamps import parse_timestamp


@pytest.mark.parametrize("given", [b"user-1", bytearray(b"user-1"), memoryview(b"user-1")])
def test_bytes_of_any_kind_are_the_persons_id(given: object) -> None:
    """A database gives bytes as a `memoryview`, too: its repr would be a new person each time."""
    assert text_of_id(given) == "user-1"


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_a_timestamp_of_pandas_is_the_same_datetime(zone: str | None) -> None:
    """It is a datetime: a naive one means local time, though its own `astimezone` refuses it."""
    pandas = pytest.importorskip("pandas")
    given = pandas.Timestamp("2024-07-02 03:04:05.000006789", tz=zone)
    same = dt.datetime(2024, 7, 2, 3, 4, 5, 6, ZoneInfo(zone) if zone else None)

    assert parse_timestamp(given) == parse_timestamp(same) is not None


@pytest.mark.parametrize("fold", [0, 1])
def test_the_hour_that_comes_twice_is_told_apart(fold: int) -> None:
    """Where clocks go back, `fold` says which of the two hours it was (PEP 495)."""
    given = dt.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)

    assert parse_timestamp(given) == f"2024-10-27T0{fold}:30:00.000000Z"
