"""What mypy and pyright say of typed events: an error where one is meant, and nowhere else."""

from __future__ import annotations

import re
import subprocess
import sys

from pathlib import Path

import pytest


HERE = Path(__file__).parent
FILE = HERE / "typing_events.py"
PLACE = re.compile(rf"{FILE.stem}\.py:(\d+)(?::\d+)?:? (?:- )?error")

CHECKERS = {
    "mypy": ["mypy", "--strict", "--cache-dir"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


@pytest.mark.matrix
@pytest.mark.timeout(300)
@pytest.mark.parametrize("checker", CHECKERS)
def test_mistakes_are_found(checker: str, tmp_path: Path) -> None:
    """The lines that end in ``# wrong`` are those that the checker complains of."""
    pytest.importorskip(checker)
    for friend in ("attrs", "msgspec", "pydantic"):
        pytest.importorskip(friend)
    more = [str(tmp_path)] if checker == "mypy" else []
    done = subprocess.run(
        [sys.executable, "-m", *CHECKERS[checker], *more, str(FILE)],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    lines = FILE.read_text(encoding="utf-8").splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert expected == set(map(int, PLACE.findall(done.stdout))), done.stdout + done.stderr
    assert len(expected) > 15
