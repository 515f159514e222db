"""Reading Markdown: its fenced blocks, sections, tables and links, for the tests of prose."""

from __future__ import annotations

import re

from collections.abc import Iterator
from typing import NamedTuple


__all__ = ["HOSTS", "Block", "code", "here", "links", "prose", "read_blocks", "section", "table"]

#: As code has them, in quotes.
HOSTS = re.compile(r"https://[\w.-]+(?=\")")

_ROW = re.compile(r"^\|(?! ?-)(.+)\|$")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """One fenced block: the heading above it, its language and its text."""

    heading: str
    language: str
    text: str


def read_blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of *text*; a ``#`` inside of one is not a heading."""
    heading = language = ""
    lines: list[str] | None = None
    for line in text.splitlines():
        if lines is None and line.startswith("```"):
            language, lines = line[3:], []
        elif lines is not None and line == "```":
            yield Block(heading, language, "\n".join(lines) + "\n")
            lines = None
        elif lines is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("# ")


def prose(text: str) -> str:
    """Return *text* without its blocks."""
    return _FENCED.sub("", text)


def section(text: str, heading: str) -> str:
    """Return what stands under *heading*, up to the next heading of its level or above."""
    level, _, _ = heading.partition(" ")
    _, _, rest = f"\n{text}".partition(f"\n{heading}\n")
    assert rest, heading
    return re.split(rf"^#{{1,{len(level)}}} ", rest, flags=re.MULTILINE)[0]


def table(text: str) -> list[list[str]]:
    """Return the cells of the first table in *text*, without its head."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        found = _ROW.match(line)
        if found:
            rows.append([cell.strip() for cell in found[1].split("|")])
        elif rows and not line.startswith("|"):
            break
    return rows[1:]


def code(cell: str) -> list[str]:
    """Return what is code in *cell*."""
    return re.findall(r"`([^`]+)`", cell)


def links(text: str) -> list[str]:
    """Return the targets of links and pictures in *text*."""
    found = re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", prose(text))
    return [one or other for one, other in found]


def here(program: str, url: str) -> str:
    """Return *program* with *url* in place of every server."""
    return HOSTS.sub(url, program)
