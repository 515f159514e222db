"""CONTRIBUTING, held to its word: the floors, the recipes, and every name that they point at."""

from __future__ import annotations

import re

from configparser import ConfigParser
from pathlib import Path

import pytest

from markdown import read_blocks
from test_public import FLOORS

from posthog_logging.inspector.rules import find_judge
from posthog_logging.wire import Batch, Endpoint, Limits
from posthog_logging.wire.segment import SegmentDialect


ROOT = Path(__file__).parent.parent
PAGE = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = list(read_blocks(PAGE))
PATH = re.compile(r"(?:posthog_logging|tests)/[\w./-]+")
NOW = "2024-01-02T03:04:05.678000Z"


def test_floors() -> None:
    """The floors that are shown are those that the tests hold."""
    (shown,) = (one.text for one in BLOCKS if one.language == "text")

    assert list(FLOORS) == [re.split(" {2,}", line)[0] for line in shown.splitlines()]


@pytest.mark.parametrize("path", sorted(set(PATH.findall(PAGE))))
def test_paths(path: str) -> None:
    """A file or folder that a recipe names is there."""
    assert (ROOT / path.rstrip(".")).exists()


@pytest.mark.parametrize("line", [line for line in PAGE.splitlines() if PATH.search(line)])
def test_names(line: str) -> None:
    """A table that a recipe names stands in one of the files that it names beside it."""
    texts = [
        path.read_text("utf-8") for one in PATH.findall(line) if (path := ROOT / one).is_file()
    ]
    names = re.findall(r"`([A-Z_]{2,}|[A-Z][a-z]+[A-Z]?\w*|\w+_for)`", line)

    assert [] == [name for name in names if texts and not any(name in text for text in texts)]


def test_environments() -> None:
    """What is run by ``tox -e`` is an environment, and by ``python -m`` a module."""
    tox = ConfigParser()
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    known = {section.partition(":")[2] for section in tox.sections()}

    assert set(re.findall(r"tox -e (\w+)", PAGE)) <= known
    for module in re.findall(r"python -m (tests[\w.]+)", PAGE):
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists(), module


def test_the_vendor_that_is_shown() -> None:
    """The recipe for a vendor of Segment's family is all that the inspector needs."""
    (recipe,) = (one.text for one in BLOCKS if one.language == "python")
    names = {"SegmentDialect": SegmentDialect, "Limits": Limits}
    exec(recipe, names)  # the page's own code
    acme = names["ACME"]
    request = acme.request(Batch([], "request-1", NOW), Endpoint("", "wk"), NOW)  # type: ignore[attr-defined]

    assert "https://cdp.acme.example/acme/v1/batch" == request.url
    assert request.headers["Authorization"].startswith("Basic ")
    assert find_judge("/acme/v1/batch")
