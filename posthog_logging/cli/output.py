"""
Print the results of commands: tables and sentences for people, or lines of JSON for programs.

Text from outside is made harmless first, so that no control character reaches a terminal.

Colours have a meaning: green is good, yellow needs a look, red is wrong, dim is background.
There are none if NO_COLOR is set (https://no-color.org), or if the output is not a terminal.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import unicodedata

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TextIO

from ..events import jsonable


__all__ = ["Output", "brief", "clock", "counted", "harmless"]

#: PostHog's own properties that say what an event is about.
_TELLING = (
    "$anon_distinct_id",
    "$group_type",
    "$group_key",
    "$set",
    "$set_once",
    "$group_set",
    "$screen_name",
    "$groups",
)

#: The code of the colour for each meaning (ECMA-48, 8.3.117).
_COLOURS = {"good": "32", "note": "33", "bad": "31", "dim": "2"}

_WIDEST_CELL = 60
_WIDEST_OF_A_LINE = 32
_WIDEST_LAST = 120
_NO_TERMINAL = 200
_WIDEST_TEXT = 100


class Output:
    """
    Print a command's results, for people or for programs.

    Args:
        as_json: print lines of JSON for programs, and nothing for people.
        stream: where to print; None: standard output.
    """

    def __init__(self, as_json: bool = False, stream: TextIO | None = None) -> None:
        self.as_json = as_json
        self._stream = stream or sys.stdout
        self._coloured = self._stream.isatty() and not os.environ.get("NO_COLOR")
        self._widths: list[int] = []

    def say(self, *lines: str) -> None:
        """Print sentences, for people only."""
        if not self.as_json:
            self._write(lines)

    def give(self, value: Mapping[str, Any]) -> None:
        """Print *value* as one line of JSON, for programs only."""
        if self.as_json:
            line = json.dumps(jsonable.jsonable(value), ensure_ascii=False)
            self._write([line if line.isprintable() else _escaped(line)])

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        meanings: Sequence[str] = (),
    ) -> None:
        """
        Print a table, for people only; on a terminal with ``rich``, if that is installed.

        Args:
            meanings: one for each row, for the colour of its first cell.
        """
        if self.as_json:
            return
        cells = [_fitted(list(map(harmless, row))) for row in rows]
        if not (self._stream.isatty() and _rich_table(columns, cells, meanings, self._stream)):
            self._write(_plain_table(columns, cells, _width(self._stream)))

    def markdown(self, text: str) -> None:
        """Print *text*, for people only; on a terminal with ``rich``, if that is installed."""
        if not self.as_json and not (self._stream.isatty() and _rich_text(text, self._stream)):
            self._write(text.splitlines())

    def line(self, cells: Sequence[str], meaning: str = "") -> None:
        """Print one row of a table whose rows are not known yet, for people only."""
        if self.as_json:
            return
        fitted = _fitted(list(map(harmless, cells)), _WIDEST_OF_A_LINE)
        sizes = list(map(_columns_of, fitted))
        # Columns grow as they must.
        self._widths = [*map(max, sizes, self._widths), *sizes[len(self._widths) :]]
        padded = [
            cell + " " * (width - size)
            for cell, width, size in zip(fitted, self._widths, sizes, strict=True)
        ]
        self._write([self.coloured("  ".join(padded).rstrip(), meaning)])

    def coloured(self, text: str, meaning: str) -> str:
        """Return *text* in the colour of *meaning*: ``good``, ``note``, ``bad``, ``dim`` or ""."""
        if not (self._coloured and meaning):
            return text
        return f"\x1b[{_COLOURS[meaning]}m{text}\x1b[0m"

    def counts(self, name: str, counts: Mapping[str, Any]) -> None:
        """Print numbers and their names on one line, for people only."""
        numbers = (f"{reason} {n}" for reason, n in counts.items() if isinstance(n, int))
        self.say(f"{name:<10} {'  '.join(numbers)}")

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar for *total* bytes on standard error; yield what advances it."""
        try:
            from rich.console import Console
            from rich.markup import escape
            from rich.progress import Progress
        except ImportError:
            yield lambda size: None
            return
        console = Console(stderr=True)
        hidden = self.as_json or not console.is_terminal or not total
        with Progress(console=console, disable=hidden, transient=True) as bars:
            task = bars.add_task(escape(harmless(name)), total=total)
            yield lambda size: bars.advance(task, size)

    def _write(self, lines: Iterable[str]) -> None:
        # A terminal that is not UTF-8 must not end the command.
        coding = self._stream.encoding or "utf-8"
        for line in lines:
            text = line.encode(coding, "backslashreplace").decode(coding)
            self._stream.write(f"{text}\n")
        self._stream.flush()


def harmless(text: str) -> str:
    """Return *text* on one line, with escapes for the characters that control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _escaped(line: str) -> str:
    """Return a line of JSON, with JSON's escapes for the characters that control a terminal."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def brief(properties: Mapping[str, Any], most: int = 3) -> str:
    """Return up to *most* of the properties that the caller gave, as ``name=value``."""
    own = [name for name in properties if not name.startswith("$") and name != "distinct_id"]
    names = [*(name for name in _TELLING if properties.get(name)), *own]
    pairs = [f"{name}={_value(properties[name])}" for name in names[:most]]
    return " ".join([*pairs, "…"] if len(names) > most else pairs)


def clock(timestamp: str) -> str:
    """Return the time of day in an RFC 3339 timestamp, to milliseconds."""
    return timestamp[11:23] if timestamp[10:11] == "T" else timestamp


def counted(number: int, noun: str) -> str:
    """Return *number* and *noun*, in the plural except for 1."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fitted(cells: Sequence[str], widest: int = _WIDEST_CELL) -> list[str]:
    """Cut long cells; the last one of a row may be longer, as no column follows it."""
    widths = [widest] * (len(cells) - 1) + [_WIDEST_LAST]
    return [
        cell if len(cell) <= width else f"{cell[: width - 1]}…"
        for cell, width in zip(cells, widths, strict=True)
    ]


def _rich_text(text: str, stream: TextIO) -> bool:
    """Print Markdown with ``rich``; return whether that is installed."""
    try:
        from rich.console import Console
        from rich.markdown import Markdown
    except ImportError:
        return False
    console = Console(file=stream)
    console.print(Markdown(text), width=min(console.width, _WIDEST_TEXT))
    return True


def _rich_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    meanings: Sequence[str],
    stream: TextIO,
) -> bool:
    """Print a table with ``rich``; return whether that is installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(box=box.SIMPLE_HEAD, header_style="bold")
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    table.add_column(columns[-1])
    for number, row in enumerate(rows):
        style = _STYLES[meanings[number] if meanings else ""]
        # As `Text`, since rich would look for its markup in a string.
        table.add_row(Text(row[0], style), *map(Text, row[1:]))
    Console(file=stream).print(table)
    return True


_STYLES = {"good": "green", "note": "yellow", "bad": "bold red", "dim": "dim", "": ""}


def _plain_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], most: int
) -> Iterable[str]:
    everything = [columns, *rows]
    widths = [max(map(_columns_of, column)) for column in zip(*everything, strict=True)]
    for row in everything:
        cells = (
            cell + " " * (width - _columns_of(cell))
            for cell, width in zip(row, widths, strict=True)
        )
        yield _cut("  ".join(cells).rstrip(), most)


def _columns_of(text: str) -> int:
    """Return the width of *text* in columns of a terminal (UAX 11)."""
    return sum(map(_columns_of_one, text))


def _columns_of_one(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 1 + (unicodedata.east_asian_width(character) in "WF")


def _cut(line: str, most: int) -> str:
    if _columns_of(line) <= most:
        return line
    kept = list(accumulate(map(_columns_of_one, line)))
    return f"{line[: bisect_right(kept, most - 1)]}…"


def _width(stream: TextIO) -> int:
    if not stream.isatty():
        return _NO_TERMINAL
    # A terminal may report a width of 0.
    return shutil.get_terminal_size().columns or 80
