"""The wheel and the source: all that is needed is in them, and nothing else is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile

from collections.abc import Iterator
from configparser import ConfigParser
from email import message_from_bytes
from pathlib import Path

import pytest

from markdown import links


ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "posthog_logging"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built of a copy: a build leaves folders behind."""
    pytest.importorskip("setuptools", minversion="70.1")  # before, it needs the package wheel
    folder = tmp_path_factory.mktemp("project")
    for name in ("setup.py", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignored)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", "dist"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    (path,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_contents(wheel: zipfile.ZipFile) -> None:
    """Every file of the package is in the wheel: modules, guides, the page, the type marker."""
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert expected == found
    assert {
        "posthog_logging/py.typed",
        "posthog_logging/docs/delivery.md",
        "posthog_logging/compat/posthog.py",
        "posthog_logging/inspector/page.html",
    } <= found


def test_metadata(wheel: zipfile.ZipFile) -> None:
    """The page, the licence, the extras and the oldest Python are those of the project."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    (name,) = (one for one in wheel.namelist() if one.endswith(".dist-info/METADATA"))
    found = message_from_bytes(wheel.read(name))

    assert ">=3.11" == found["Requires-Python"]
    assert "text/markdown" == found["Description-Content-Type"]
    assert list(setup["options.extras_require"]) == found.get_all("Provides-Extra")
    page = wheel.read(name).decode().partition("\n\n")[2]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert readme.strip() == page.replace(f"]({setup['metadata']['url']}/blob/main/", "](").strip()
    assert [] == [target for target in links(page) if "://" not in target]
    assert any(one.endswith("licenses/LICENSE") for one in wheel.namelist())


def test_source(tmp_path: Path) -> None:
    """The source has the package and the whole tests: what setuptools takes alone cannot run."""
    pytest.importorskip("setuptools", minversion="70.1")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("this is no checkout")
    for name in listed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "-d", "dist"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    (path,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(path) as opened:
        found = {one.name.partition("/")[2] for one in opened if one.isfile()}

    assert set(listed) - {".gitignore"} == {
        name for name in found if "egg-info" not in name and name != "PKG-INFO"
    }


def test_entry_points(wheel: zipfile.ZipFile) -> None:
    """The command and pytest's plugin are found by their names."""
    (name,) = (one for one in wheel.namelist() if one.endswith("entry_points.txt"))
    found = ConfigParser()
    found.read_string(wheel.read(name).decode())

    assert {"posthog-logging": "posthog_logging.cli:main"} == dict(found["console_scripts"])
    assert {"posthog_logging": "posthog_logging.pytest_plugin"} == dict(found["pytest11"])


def test_the_wheel_works_without_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """From the wheel alone the guides are shown, and every command has help."""
    wheel.extractall(tmp_path)
    for words in (["docs", "delivery"], ["serve", "--help"]):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "posthog_logging", *words],
            cwd=tmp_path,
            env={"PYTHONPATH": str(tmp_path), "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

        assert 0 == done.returncode, done.stderr
        assert done.stdout
