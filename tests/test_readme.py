"""The README, held to its word: what it shows runs, and what it points at is there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

import pytest

from markdown import here, links, prose, read_blocks, section, table

from posthog_logging.cli.docs import guides
from posthog_logging.inspector import Inspector


ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = list(read_blocks(README))

UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")

#: Each heading with Python below it, and what arrives of it.
PROGRAMS = {
    "posthog_logging": ["movie played"],
    "Configure it": ["movie played"],
}
UNDER_PYTEST = "Test with it"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def blocks(language: str, heading: str | None = None) -> list[str]:
    """Return the texts of the blocks in *language*, of all headings or of one."""
    return [
        one.text for one in BLOCKS if one.language == language and heading in (None, one.heading)
    ]


def test_every_program_is_known() -> None:
    """Python stands under no heading that the tests do not run."""
    headings = {one.heading for one in BLOCKS if one.language == "python"}

    assert {*PROGRAMS, UNDER_PYTEST} == headings


def run_program(heading: str, inspector: Inspector, run_script: Run, folder: Path) -> None:
    """Run the blocks under *heading* as one program, to its end."""
    program = here("\n".join(blocks("python", heading)), inspector.url)
    done = run_script(
        f"import os; os.chdir({str(folder)!r})\n{program}",
        POSTHOG_API_KEY="phc_readme",
        POSTHOG_HOST=inspector.url,
        NO_PROXY="127.0.0.1",
    )
    assert 0 == done.returncode, done.stderr


@pytest.mark.parametrize("heading", PROGRAMS)
def test_programs(heading: str, inspector: Inspector, run_script: Run, tmp_path: Path) -> None:
    """The blocks under one heading are one program, and it delivers what it says by ending."""
    run_program(heading, inspector, run_script, tmp_path)

    assert PROGRAMS[heading] == sorted(event.event for event in inspector.events)
    assert [] == inspector.bad


def test_what_arrives_of_the_first_program(
    inspector: Inspector, run_script: Run, tmp_path: Path
) -> None:
    """The event below the first program is the one that it sends; only id and time differ."""
    run_program("posthog_logging", inspector, run_script, tmp_path)
    (expected,) = blocks("json")
    (event,) = inspector.events

    assert json.loads(anonymous(expected)) == json.loads(anonymous(json.dumps(event.raw)))


def anonymous(text: str) -> str:
    """Return *text* without what is another one each time."""
    return UUID.sub("…", TIMESTAMP.sub("…", text))


def test_the_tests_that_are_shown(tmp_path: Path) -> None:
    """The example of a test passes, with the plugin as it is installed."""
    suite = tmp_path / "test_cinema.py"
    suite.write_text("\n".join(blocks("python", UNDER_PYTEST)), encoding="utf-8")
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
    assert "1 passed" in done.stdout


def test_guides() -> None:
    """The table has every guide, with its own first sentence."""
    rows = table(section(README, "## Guides"))
    promises = {topic: text.splitlines()[2] for topic, text in guides().items()}

    assert promises == {re.findall(r"\[(.+)\]", row[0])[0]: row[1] for row in rows}


def test_length() -> None:
    """The page fits on two screens and a table: the rest is in the guides."""
    assert len(README.splitlines()) <= 150


# The commands.


@pytest.mark.skipif(os.name == "nt", reason="the script is bash's")
def test_the_test_command() -> None:
    """What the page says that tests the project is what its check runs."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (function,) = re.findall(r"^test_command\(\) \{.*?^\}", script, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        ["bash", "-euc", f"{function}\ntest_command"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    steps = "python3 -m venv .venv", ".venv/bin/pip install -q tox", ".venv/bin/tox"
    assert " && ".join(steps) == done.stdout.strip()
    assert [done.stdout] == blocks("sh", "Contributing")


def test_the_demo_command() -> None:
    """One line installs the package with its friend for terminals, and runs the demo."""
    (command,) = (text for text in blocks("sh", "Install") if "venv" in text)
    steps = [step.split() for step in command.strip().split(" && ")]

    assert ["python3", "-m", "venv", ".venv"] == steps[0]
    assert [".venv/bin/pip", "install", "-q", "'.[cli]'"] == steps[1]
    assert [".venv/bin/posthog-logging", "demo"] == steps[2]


# The links.


def test_links() -> None:
    """Whatever the page points at in this project is there."""
    targets = [one for one in links(README) if "://" not in one]

    assert targets
    assert [] == [one for one in targets if not (ROOT / one).exists()]


def test_pictures() -> None:
    """Pictures have absolute addresses in the repository, which a package index shows."""
    found = re.findall(r'(?:src|srcset)="([^"]+)"', prose(README))
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    name = setup["metadata"]["url"].removeprefix("https://github.com/")
    folder = f"https://raw.githubusercontent.com/{name}/main/"

    assert found
    for address in found:
        assert address.startswith(folder)
        assert (ROOT / address.removeprefix(folder)).exists()


def test_environment() -> None:
    """No key stands in the code that is shown."""
    assert [] == [one for one in blocks("python") if "phc_" in one]
