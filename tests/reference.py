"""
The tables of the guides that the code decides: ``python -m tests.reference`` writes them.

`tests/test_guides.py` compares them. A table stands between two comments of its guide.
"""

from __future__ import annotations

import inspect
import re

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import posthog_logging

from posthog_logging import PostHogHandler
from posthog_logging.delivery.reasons import LOSSES, OTHER_COUNTS, Reason


DOCS = Path(posthog_logging.__file__).parent / "docs"

_ENTRY = re.compile(r"^    ((?:\w+, )*\w+): (.*)$")

# What a reader reads more easily than its value.
_DEFAULTS = {
    100_000: "100_000",
    64 * 1024 * 1024: "64 * 1024 * 1024",
    1024 * 1024 * 1024: "1024 * 1024 * 1024",
}


def meanings(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield each argument of a docstring with its meaning, on one line."""
    _, _, args = inspect.cleandoc(docstring).partition("Args:\n")
    names, words = "", list[str]()
    for line in [*args.splitlines(), "    end: "]:
        found = _ENTRY.match(line)
        if found:
            yield from ((name, " ".join(words)) for name in names.split(", ") if name)
            names, words = found[1], [found[2]]
        else:
            words.append(line.strip())


def options() -> str:
    """Return the table of options: names, defaults, meanings."""
    known = dict(meanings(PostHogHandler.__doc__ or ""))
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for one in inspect.signature(PostHogHandler).parameters.values():
        default = _DEFAULTS.get(one.default) if type(one.default) is int else None
        rows.append(
            f"| `{one.name}` | `{default or _repr(one.default)}` | {_cell(known[one.name])} |"
        )
    return "\n".join(rows)


def counts() -> str:
    """Return the table of the counts that are no losses."""
    return _table("count", OTHER_COUNTS)


def losses() -> str:
    """Return the table of losses, with what to do."""
    return _table("reason", LOSSES)


#: Each guide with tables in it, and what writes each of them.
TABLES: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "options": {"options": options},
    "counts": {"counts": counts, "losses": losses},
}


def written(guide: str) -> str:
    """Return the text of *guide* with its tables as the code has them now."""
    text = (DOCS / f"{guide}.md").read_text(encoding="utf-8")
    for name, table in TABLES[guide].items():
        begin, end = f"<!-- {name}: written by `python -m tests.reference` -->", "<!-- end -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table()}\n{end}{after}"
    return text


def _table(head: str, reasons: Mapping[str, Reason]) -> str:
    with_remedy = any(remedy for _, remedy in reasons.values())
    rows = [f"| {head} | what it counts |{' what to do |' if with_remedy else ''}"]
    rows.append(f"|---|---|{'---|' if with_remedy else ''}")
    for name, (meaning, remedy) in reasons.items():
        advice = f" {_cell(remedy)} |" if with_remedy else ""
        rows.append(f"| `{name}` | {_cell(meaning)} |{advice}")
    return "\n".join(rows)


def _cell(text: str) -> str:
    """Return *text* for a cell: docstrings mark code in their own way."""
    return re.sub(r"``?([^`]+)``?", r"`\1`", text).replace("*", "").rstrip(".").replace("|", "\\|")


def _repr(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    for guide in TABLES:
        text = written(guide)
        (DOCS / f"{guide}.md").write_text(text, encoding="utf-8")
        print(f"wrote {guide}.md")
