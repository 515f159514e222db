"""The guides to typed events and to privacy: every block runs and does what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from test_scrub import HARMLESS

from posthog_logging.cli import main
from posthog_logging.events.scrub import names_secret
from posthog_logging.inspector import Inspector
from posthog_logging.plan import Plan


ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "tests" / "recipes"
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


def run_tests(suite: Path, *places: Path) -> subprocess.CompletedProcess[str]:
    """Run a file of tests, with the plugin as it is installed."""
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-c", os.devnull]
    loaded = ["-p", "posthog_logging.pytest_plugin", f"--rootdir={suite.parent}", str(suite)]
    path = os.pathsep.join(map(str, [ROOT, *places]))
    return subprocess.run(
        [*command, *loaded],
        cwd=suite.parent,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_suite(tmp_path: Path) -> None:
    """The example of tests passes, with the plugin as it is installed."""
    pytest.importorskip("pydantic")
    suite = tmp_path / "test_seats.py"
    suite.write_text("\n".join(blocks("typed-events", "In tests")), encoding="utf-8")
    done = run_tests(suite)

    assert 0 == done.returncode, done.stdout
    assert "2 passed" in done.stdout


OLD_TILL = """
import cinema_events
from cinema_service import log, visit


def test_a_visit(posthog_messages):
    visit("user-1")

    assert posthog_messages.check(plan=cinema_events)
    assert 10 == len({one.event for one in posthog_messages})


"""


def test_a_failed_check(tmp_path: Path) -> None:
    """The failure that is shown is what pytest prints of the test in it."""
    pytest.importorskip("pydantic")
    (shown,) = blocks("typed-events", "In tests", "text")
    source = textwrap.dedent(shown.partition("\n>")[0])
    check = "    assert posthog_messages.check(plan=cinema_events)\n"
    suite = tmp_path / "test_till.py"
    suite.write_text(f"{OLD_TILL}{source}\n{check}", encoding="utf-8")
    done = run_tests(suite, RECIPES)

    assert "1 failed, 1 passed" in done.stdout, done.stdout
    printed = done.stdout.splitlines()
    assert [] == [line for line in shown.splitlines() if line and line not in printed]


def test_the_plan_of_the_service(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten events are exported as the repository has them, and as the guide shows one of them."""
    pytest.importorskip("pydantic")
    monkeypatch.syspath_prepend(RECIPES)
    assert 0 == main(["plan", "export", "cinema_events"])
    exported = json.loads(capsys.readouterr().out)
    (shown,) = blocks("typed-events", "A service with ten events", "json")

    assert exported == json.loads((RECIPES / "cinema_plan.json").read_text("utf-8"))
    assert 10 == len(exported["oneOf"])
    assert json.loads(shown) in exported["oneOf"]


def test_the_service(run_script: Run) -> None:
    """What the service sends is as planned, and every planned event comes."""
    with Inspector(plan=Plan.of(RECIPES / "cinema_plan.json")) as inspector:
        program = f"import runpy, sys; sys.path.insert(0, {str(RECIPES)!r})\n"
        program += 'runpy.run_module("cinema_service", run_name="__main__")'
        done = run_script(program, POSTHOG_API_KEY="phc_guide", POSTHOG_HOST=inspector.url)

        assert (0, "") == (done.returncode, done.stderr)
        assert (11, []) == (len(inspector.events), inspector.counts()["missing"])
        assert [] == [one for one in inspector.events if one.warnings]


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Each command that is shown is one."""
    assert 0 == main(["plan", "--help"])
    help_text = capsys.readouterr().out

    verbs = re.findall(r"^\| `posthog-logging plan (\w+)", GUIDES["typed-events"], re.MULTILINE)
    assert ["show", "export", "check", "diff"] == verbs
    assert "{show,export,check,diff}" in help_text
