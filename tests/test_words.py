"""The words that users read: plain English, British spelling, no vocabulary of our own."""

from __future__ import annotations

import ast
import re
import tokenize

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "posthog_logging"
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / ".github").glob("*.md")),
    *sorted(PACKAGE.rglob("*.md")),
]
MODULES = sorted(PACKAGE.rglob("*.py"))

#: What nobody outside would say, with what to say instead.
PRIVATE = {
    r"\btold\b": "logged, reported, shown",
    r"\bsaid\b": "given, stated, logged",
    r"\b[Tt]ell whether\b": "return whether",
    r"\b[Ss]ay whether\b": "return whether",
    r"\b(?:what|which|that|who) (?:is|are|was|were) none\b": "invalid, not one",
    r"\bis none of\b": "is not one of",
    r"\bit is none\b": "it is not one",
    r"\bbut for\b": "except",
    r"\bof yours\b": "your",
    r"\bof ours\b": "of this library, our",
    r"\bhow-manieth\b": "number",
    r"\bmoments\b": "times, timestamps",
    r"\bshapes\b": "forms, records",
    r"\b[Mm]inds\b": "sees",
    r"\bdeaf\b": "disabled",
    r"\bhas no business\b": "is not needed",
    r"\b[Tt]ell (?:that|it of)\b": "return whether",
    r"\bsomebody's own\b": "custom, the program's",
    r"\bof (?:a|the) caller's\b": "the caller's",
    r"\b(?:by|past|has) (?:its|their|every) (?:own )?verbs?\b": "methods",
    r"\bin vain\b": "without success, for nothing",
    r"\bgo-betweens?\b": "proxy, intermediary",
    r"\bgo(?:es)? the way of\b": "is sent like",
    r"\bno use to\b": "not worth",
}
#: The endings and words that American spelling has otherwise.
AMERICAN = {
    r"\b\w*(?:normal|serial|initial|recogn|organ|optim|custom|summar|sanit|minim|util|synchron|"
    r"pseudonym|random|author|categor|real|special|character|canonical|anonym)"
    r"iz(?:e|es|ed|ing|ation)\b": "-ise",
    r"\b(?:behavior|color|favor|honor|neighbor|labor|flavor)(?:s|ed|ing|al)?\b": "-our",
    r"\b(?:center|meter|liter|fiber)(?:s|ed)?\b": "-re",
    r"\b(?:cancel|label|travel|model|signal|marshal)(?:ed|ing)\b": "-lled, -lling",
    r"\b(?:analyze|catalyze|paralyze)[ds]?\b": "-yse",
    r"\b(?:catalog|dialog|gray|fulfill|skillful|artifact|aging|license)s?\b": "",
}

#: What is right although a pattern finds it: a part of its line, and the reason.
ALLOWED = {
    "NO_COLOR": "the name of a convention",
    "no-color.org": "its address",
    'mode="serialization"': "a parameter of pydantic's",
    "serialization": "its value",
    "Authorization": "the name of an HTTP header",
    "missing_authorization": "an error code of PostHog's",
    "LICENSE": "the name of the file",
    "license = MIT": "a key of setup.cfg",
    "MIT License": "the licence's name",
    "parameter": "not a meter",
    "authorization": "HTTP's word (RFC 9110)",
    "prefers-color-scheme": "a media query of CSS",
    "unrecognized arguments": "argparse's words, so that both read alike",
}


class Text(NamedTuple):
    """A piece of text, and the line on which it begins."""

    line: int
    text: str


def texts_of(path: Path) -> Iterator[Text]:
    """Yield what people read in a file: strings and comments of code, prose of pages."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from (Text(n, line) for n, line in enumerate(source.splitlines(), 1))
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(node.lineno, node.value)
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield Text(token.start[0], token.string)


def findings(text: str) -> Iterator[str]:
    """Yield each wrong word of *text*, with what to write instead."""
    plain = re.sub(r"``?[^`]*``?", "`…`", text)  # code has names of its own
    for allowed in ALLOWED:
        plain = plain.replace(allowed, "…")
    for pattern, better in (PRIVATE | AMERICAN).items():
        for found in re.finditer(pattern, plain):
            yield f"{found[0]!r}: rather {better or 'another word'}"


@pytest.mark.parametrize("path", [*PAGES, *MODULES], ids=lambda path: str(path.relative_to(ROOT)))
def test_words(path: Path) -> None:
    """No message, docstring, comment or page has a word of the private vocabulary."""
    found = [f"{one.line}: {wrong}" for one in texts_of(path) for wrong in findings(one.text)]

    assert [] == found


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("it was told once", 1),
        ("a timestamp that is none", 1),
        ("'zip' is none of gzip", 1),
        ("the color of the center", 2),
        ("it was labeled and normalized", 2),
        ("NO_COLOR, Authorization, a parameter", 0),
        ("the name `told` and ``color``", 0),
        ("Tell that a key is of a caller's own", 2),
        ("tried in vain", 1),
        ("there is none", 0),
    ],
)
def test_the_check_sees(text: str, count: int) -> None:
    """The check finds what it is for, and leaves names of code and of others alone."""
    assert count == len(list(findings(text)))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_one_sentence_a_line(path: Path) -> None:
    """A line of prose has one sentence, so that a change of one shows as one."""
    source = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = [
        line
        for line in source.splitlines()
        if not line.startswith(("|", "-", "<")) and not re.match(r"\d+\. ", line)
        if re.search(r"[a-z)`][.!?] [A-Z]", re.sub(r"`[^`]*`", "`", line))
    ]

    assert [] == found
