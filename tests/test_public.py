"""The names that are promised, and the floors of the house: imports point down only."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import posthog_logging

from posthog_logging.broker.address import SCHEMES
from posthog_logging.version import VERSION


PACKAGE = Path(posthog_logging.__file__).parent

PUBLIC = [
    "Analytics",
    "DeliveryError",
    "Listener",
    "MessageHandler",
    "PostHogHandler",
    "PostHogLogsHandler",
    "context",
    "event",
    "extras",
]

#: From the ground up: folders by their name, single modules by theirs. A folder's modules may
#: import each other, in no circle, and whatever stands on a lower floor.
FLOORS = (
    "version docs",
    "context",
    "events",
    "wire errors",
    "delivery",
    "broker",
    "handler logs analytics listener plan structlog extras explain",
    "middleware inspector compat",
    "cli pytest_plugin",
    "__main__ __init__",
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}

#: Packages that are somebody's choice, and that no import of ours may bring along.
FRIENDS = frozenset(
    """attrs celery confluent_kafka django fastapi flask gevent msgspec numpy pika pydantic pytest
    redis rich starlette structlog""".split()
)
#: These come along where they are installed: urllib3 looks for those that are not ours.
CODECS = frozenset({"brotli", "isal", "orjson", "zstandard"})
#: Parts of the standard library that cost a log call's first import too much.
HEAVY = frozenset({"asyncio", "http.server", "sqlite3"})
#: The plugin is pytest's to load, and an engine the URL's scheme; importing the package is what
#: all the others do.
ENGINES = frozenset(  # each with its client, its doctor and what else has its name
    f"broker.{path.stem}"
    for path in (PACKAGE / "broker").glob("*.py")
    if path.stem != "memory"
    and path.stem.partition("_")[0] in {name.partition("_")[0] for name in SCHEMES.values()}
)
NOT_ALONE = frozenset({"__init__", "pytest_plugin"}) | ENGINES


def name_of(path: Path) -> str:
    """Return the dotted name inside the package of the module at *path*."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    inner = parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts
    return ".".join(inner)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor_of(module: str) -> int | None:
    """Return the floor on which *module* lives; None for one that the table does not know."""
    return FLOOR_OF.get(module.partition(".")[0])


def import_nodes(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports below *node*, also those in functions, but not the type checkers'."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from import_nodes(ast.Module([other], []))
        else:
            yield from import_nodes(child)


def targets(node: ast.Import | ast.ImportFrom, package: list[str]) -> Iterator[str]:
    """Yield the absolute names that an import statement inside *package* may mean."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    above = package[: len(package) - node.level + 1] if node.level else []
    source = ".".join([*above, *filter(None, [node.module])])
    yield from (f"{source}.{alias.name}" for alias in node.names)


def own_module(target: str) -> str | None:
    """Return the module of ours that *target* is, or is a name of; None for a foreign one."""
    root, _, inner = target.partition(".")
    if root != PACKAGE.name:
        return None
    while inner and inner not in MODULES:
        inner = inner.rpartition(".")[0]
    return inner or "__init__"


def imports_of(module: str, source: str) -> set[str]:
    """Return the modules of ours that *source*, as the text of *module*, imports."""
    is_package = module == "__init__" or MODULES.get(module, Path()).name == "__init__.py"
    parts = [PACKAGE.name, *(module.split(".") if module != "__init__" else [])]
    package = parts if is_package else parts[:-1]
    nodes = import_nodes(ast.parse(source))
    found = {own_module(target) for node in nodes for target in targets(node, package)}
    return {name for name in found if name is not None} - {module}


def run(program: str) -> str:
    """Return what *program* prints in a fresh interpreter in which warnings are errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=PACKAGE.parent,
        # What measures coverage imports more than we do.
        env={name: value for name, value in os.environ.items() if "COVERAGE" not in name},
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_floor(module: str) -> None:
    """A module that is on no floor has no place in the house yet."""
    known = floor_of(module)

    assert known is not None, f"{module} is on no floor: give it one in FLOORS, and say why"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """A module imports from lower floors, or from a neighbour on its own."""
    imported = imports_of(module, MODULES[module].read_text())
    floor = floor_of(module)
    assert floor is not None

    above = {name for name in imported if (floor_of(name) or 0) > floor}

    assert set() == above, f"{module} (floor {floor}) imports from above"


def test_no_cycles() -> None:
    """Neighbours on one floor may import each other only one way."""
    graph = {module: imports_of(module, path.read_text()) for module, path in MODULES.items()}

    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, naming the cycle

    assert sorted(MODULES) == sorted(order)


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("extras", "from .events import jsonable", {"events.jsonable"}),
        ("extras", "from . import events", {"events"}),
        ("extras", "from . import Name", {"__init__"}),
        ("extras", "import posthog_logging.delivery.ledger", {"delivery.ledger"}),
        (
            "extras",
            "from posthog_logging.delivery.ledger import Ledger",
            {"delivery.ledger"},
        ),
        ("extras", "def f():\n    from .delivery.ledger import Ledger", {"delivery.ledger"}),
        (
            "extras",
            "try:\n    from .delivery.ledger import Ledger\nexcept OSError: pass",
            {"delivery.ledger"},
        ),
        ("extras", "import logging, requests.sessions", set()),
        ("extras", "from structlog import ledger", set()),
        ("extras", "if TYPE_CHECKING:\n    from .delivery.ledger import Ledger", set()),
        (
            "extras",
            "if TYPE_CHECKING: pass\nelse:\n    from .delivery import ledger",
            {"delivery.ledger"},
        ),
        (
            "wire.posthog",
            "from . import Batch\nfrom ..delivery import ledger",
            {"wire", "delivery.ledger"},
        ),
        ("wire.posthog", "from .compression import compress", {"wire.compression"}),
        ("wire", "from ..events.message import Message", {"events.message"}),
        ("wire", "from .posthog import V0", {"wire.posthog"}),
        ("__init__", "from .context import bind", {"context"}),
    ],
    ids=lambda value: value.replace("\n", " ") if isinstance(value, str) else "",
)
def test_imports_are_seen(module: str, source: str, expected: set[str]) -> None:
    """The floors' test sees each form of import that reaches a module of ours, and no other."""
    assert expected == imports_of(module, source)


def test_exported_names() -> None:
    """The package exports a sorted ``__all__``, each name of it, and nothing else."""
    nodes = ast.parse(MODULES["__init__"].read_text()).body
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
    present = [name for name in PUBLIC if hasattr(posthog_logging, name)]

    assert sorted(PUBLIC) == PUBLIC == posthog_logging.__all__ == present
    assert set(PUBLIC) == {alias.name for node in imports for alias in node.names}


def test_version_is_lazy() -> None:
    """``__version__`` is the distribution's; any other unknown name is an AttributeError."""
    assert VERSION == posthog_logging.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        posthog_logging.nothing


def test_import_brings_no_friends() -> None:
    """``import posthog_logging`` loads no optional package and nothing heavy."""
    loaded = run("import sys, posthog_logging; print(*sys.modules)").split()

    assert "posthog_logging" in loaded
    assert set() == (FRIENDS | HEAVY) & set(loaded)


def test_modules_exist_without_their_friends() -> None:
    """Every module but pytest's plugin can be imported where no friend is installed."""
    modules = [f"{PACKAGE.name}.{name}" for name in MODULES if name not in NOT_ALONE]
    program = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({sorted(FRIENDS | CODECS)}))
for module in {modules}:
    importlib.import_module(module)
print(*sys.modules)
"""

    assert set(modules) <= set(run(program).split())
