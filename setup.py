"""What setup.cfg cannot say: a page for package indexes, and a source with its tests."""

from __future__ import annotations

import re

from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist


ROOT = Path(__file__).parent
PAGES = "https://github.com/posthog-logging/posthog_logging/blob/main/"


def description() -> str:
    """Return the README; a link to a file of the project becomes one to the repository."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!\w+:|#)", f"]({PAGES}", text)


class Source(sdist):
    """The source distribution; by default it has test modules alone, without what they need."""

    def make_distribution(self) -> None:
        """Add the tests, and what runs them, to what setuptools has found."""
        for folder in ("tests", ".ci", ".github"):
            self.filelist.graft(folder)
        for name in ("tox.ini", ".ruff.toml"):
            self.filelist.append(name)
        self.filelist.global_exclude("*.py[cod]")
        super().make_distribution()


setup(long_description=description(), cmdclass={"sdist": Source})
