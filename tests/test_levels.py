"""One table of levels: numbers, names, and what others call them."""

from __future__ import annotations

import logging

from typing import Any

import pytest

from posthog_logging.events.levels import LEVELS, level_at, level_of, number_of


@pytest.mark.parametrize(
    "name", ["DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "FATAL"]
)
def test_the_names_of_logging_have_its_numbers(name: str) -> None:
    """Each name of `logging` has the number that it has there, in any case."""
    expected = getattr(logging, name)

    assert expected == number_of(name) == number_of(f" {name.title()} ")


def test_an_unknown_name_has_no_number() -> None:
    """Nothing is guessed."""
    assert number_of("loud") is None


def test_levels_go_down() -> None:
    """The first level at or below a number is the highest."""
    assert sorted(LEVELS, reverse=True) == list(LEVELS)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1000, 50),
        (50, 50),
        (49, 40),
        (30, 30),
        (25, 20),
        (10, 10),
        (9, 5),
        (5, 5),
        (1, 5),
        (-1, 5),
    ],
)
def test_any_number_has_a_level(number: int, expected: int) -> None:
    """Numbers of one's own count as the level below them."""
    assert expected == level_at(number).number


@pytest.mark.parametrize(
    ("levelno", "levelname", "expected"),
    [
        (35, "OWN", 35),
        (None, "ERROR", 40),
        ("30", "WARNING", 30),
        (None, "OWN", 0),
        (None, None, 0),
    ],
)
def test_a_record_has_a_level_in_any_case(levelno: Any, levelname: Any, expected: int) -> None:
    """Where the number is none, the name decides."""
    record = logging.makeLogRecord({"levelno": levelno, "levelname": levelname})

    assert expected == level_of(record)
