"""The guides to typed events and to privacy: every block runs and does what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from test_scrub import HARMLESS

from posthog_logging.cli import main
from posthog_logging.events.scrub import names_secret
from posthog_logging.inspector import Inspector


ROOT = Path(__file__).parent.parent
DOCS = ROOT / "posthog_logging" / "docs"
GUIDES = {name: (DOCS / f"{name}.md").read_text("utf-8") for name in ("privacy", "typed-events")}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def blocks(guide: str, heading: str, language: str = "python") -> list[str]:
    """Return the blocks in *language* under one heading of a guide."""
    parts = re.split(r"^#+ (.*)$", GUIDES[guide], flags=re.MULTILINE)
    text = dict(zip(parts[1::2], parts[2::2], strict=True))[heading]
    return [block for kind, block in BLOCK.findall(text) if kind == language]


#: Each heading with a program below it, and what arrives of it.
PROGRAMS: dict[tuple[str, str], list[str]] = {
    ("privacy", "Secrets"): ["import begun"],
    ("privacy", "Names of your own"): ["refunded"],
    ("privacy", "Pseudonyms"): ["invited", "joined"],
    ("privacy", "Fewer events"): ["page seen"],
    ("typed-events", "An event is a class"): ["movie played"] * 3,
    ("typed-events", "The person"): ["ticket sold"],
}


@pytest.mark.parametrize(("guide", "heading"), PROGRAMS)
def test_programs(guide: str, heading: str, inspector: Inspector, run_script: Run) -> None:
    """A program delivers what it says, without a word on standard error."""
    (program,) = blocks(guide, heading)
    done = run_script(program, POSTHOG_API_KEY="phc_guide", POSTHOG_HOST=inspector.url)
    names = [event.event for event in inspector.events]

    assert (0, "") == (done.returncode, done.stderr)
    if heading == "Fewer events":
        assert {"page seen"} == set(names)
        assert 5 < len(names) < 40
    else:
        assert PROGRAMS[guide, heading] == names
    assert [] == inspector.bad


def test_every_program_is_known() -> None:
    """Python stands under no heading that the tests do not run."""
    found = {
        (guide, heading)
        for guide, text in GUIDES.items()
        for heading in re.findall(r"^##+ (.*)$", text, re.MULTILINE)
        if blocks(guide, heading)
    }

    assert {*PROGRAMS, ("typed-events", "In tests")} == found


def sent(guide: str, heading: str, inspector: Inspector, run_script: Run) -> list[Any]:
    """Return what arrives of the program under a heading."""
    (program,) = blocks(guide, heading)
    run_script(program, POSTHOG_API_KEY="phc_guide", POSTHOG_HOST=inspector.url)
    return inspector.events


def test_what_arrives_without_secrets(inspector: Inspector, run_script: Run) -> None:
    """The properties that are shown are those that arrive."""
    (event,) = sent("privacy", "Secrets", inspector, run_script)
    (shown,) = blocks("privacy", "Secrets", "json")

    assert json.loads(shown).items() <= event.properties.items()


def test_names_of_your_own(inspector: Inspector, run_script: Run) -> None:
    """All three values are replaced."""
    (event,) = sent("privacy", "Names of your own", inspector, run_script)

    assert {"[scrubbed]"} == {event.properties[key] for key in ("iban", "seatCode", "password")}


def test_pseudonyms(inspector: Inspector, run_script: Run) -> None:
    """Two people with one address have one pseudonym."""
    invited, joined = sent("privacy", "Pseudonyms", inspector, run_script)

    assert 64 == len(invited.properties["email"])
    assert invited.properties["email"] == joined.properties["email"]


def test_names_in_the_guide() -> None:
    """Each key that is shown as a secret is one, and each that is called harmless is none."""
    secrets, _, harmless = GUIDES["privacy"].partition("Whole words only")
    table = "".join(line for line in secrets.splitlines() if line.startswith("| `"))
    words = re.findall(r"`([^`]+)`", table)
    others = re.findall(r"`([^`]+)`", harmless.partition("Values inside")[0])

    assert len(words) > 20
    assert [] == [word for word in words if not names_secret(word.rstrip("…"))]
    assert [] == [word for word in others if names_secret(word)]
    assert {"secretary", "passwordless", "$session_id"} <= {*others} & {*HARMLESS}


def test_the_person(inspector: Inspector, run_script: Run) -> None:
    """The field is the id, and no property."""
    (event,) = sent("typed-events", "The person", inspector, run_script)

    assert ("user-1", 9.5) == (event.distinct_id, event.properties["price"])
    assert "buyer" not in event.properties


def test_the_suite(tmp_path: Path) -> None:
    """The example of tests passes, with the plugin as it is installed."""
    pytest.importorskip("pydantic")
    suite = tmp_path / "test_seats.py"
    suite.write_text("\n".join(blocks("typed-events", "In tests")), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-c", os.devnull]
    loaded = ["-p", "posthog_logging.pytest_plugin", f"--rootdir={tmp_path}", str(suite)]
    done = subprocess.run(
        [*command, *loaded],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout
    assert "2 passed" in done.stdout


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command that is shown is one."""
    assert 0 == main(["plan", "--help"])
    help_text = capsys.readouterr().out

    verbs = re.findall(r"^\| `posthog-logging plan (\w+)", GUIDES["typed-events"], re.MULTILINE)
    assert ["show", "export", "check", "diff"] == verbs
    assert "{show,export,check,diff}" in help_text
