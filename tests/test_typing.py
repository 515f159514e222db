"""The types that users see: a name that is not there is an error before the program runs."""

from __future__ import annotations

import os
import subprocess
import sys

from importlib.util import find_spec
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent

RIGHT = """
from posthog_logging import Analytics, PostHogHandler, __version__
from posthog_logging.compat import posthog

handler: PostHogHandler = PostHogHandler("phc_test")
posthog.capture("user-1", "movie played")
Analytics("phc_test", "http://h", flush_at=1, gzip=True, spool=None, before_send=lambda e: e)
Analytics(handler)
version: str = __version__
"""
WRONG = [
    "from posthog_logging import PostHogHandlr",
    "import posthog_logging\n\nposthog_logging.PostHogHandlr()",
    "from posthog_logging.compat.posthog import captrue",
    "from posthog_logging.compat.segment import trakc",
    "from posthog_logging.compat.posthog import Posthog\n\nPosthog('phc_test').captrue('a')",
    "from posthog_logging import Analytics\n\nAnalytics('phc_test', flushat=1)",
    "from posthog_logging import Analytics\n\nAnalytics('phc_test', flush_at='1')",
    "from posthog_logging import Analytics\n\nAnalytics(handler='phc_test')",
]

CHECKERS = {
    "mypy": ["-m", "mypy", "--strict", "--config-file", os.devnull],
    "pyright": ["-m", "pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_misspelt_names(checker: str, tmp_path: Path) -> None:
    """A checker takes what is there, and finds each name that is not."""
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    (tmp_path / "right.py").write_text(RIGHT, encoding="utf-8")
    for number, text in enumerate(WRONG):
        (tmp_path / f"wrong_{number}.py").write_text(f"{text}\n", encoding="utf-8")
    command = [sys.executable, *CHECKERS[checker], *sorted(map(str, tmp_path.glob("*.py")))]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = {line for line in done.stdout.splitlines() if "error" in line and "wrong_" in line}

    assert 1 == done.returncode, done.stdout + done.stderr
    assert "right.py:" not in done.stdout, done.stdout
    for number in range(len(WRONG)):
        assert any(f"wrong_{number}.py" in line for line in wrong), done.stdout
