"""The table of reasons: complete, and each entry a sentence that says what to do."""

from __future__ import annotations

import ast
import re

from collections.abc import Iterator
from pathlib import Path

import pytest

import posthog_logging

from posthog_logging.delivery.ledger import NOT_LOSSES
from posthog_logging.delivery.reasons import LOSSES, OTHER_COUNTS, sentence


PACKAGE = Path(posthog_logging.__file__).parent
COUNTING = re.compile(
    r"(^Refused|^BadMessage|\b_?lose|\b_?refuse|_lose_rest|give_up|abandon|evict|_ledger\.add)$"
)


def test_every_reason_is_explained() -> None:
    """Whatever the code counts under is in the table, and nothing else is."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    counted = {reason for tree in trees for reason in reasons_in(tree)}

    assert set() == (counted - NOT_LOSSES) - set(LOSSES), "give these a meaning and a remedy"
    assert set() == set(LOSSES) - counted, "nothing counts under these"
    assert set(OTHER_COUNTS) == NOT_LOSSES


def reasons_in(tree: ast.AST) -> Iterator[str]:
    """Yield the reasons for a loss: what is called one, and what is given to be counted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason":
            yield from [text for one in ast.walk(node.value) for text in constant(one)]
        elif isinstance(node, ast.FunctionDef) and node.name == "_reason_to_give_up":
            returns = [one for one in ast.walk(node) if isinstance(one, ast.Return)]
            yield from [
                text for one in returns for leaf in ast.walk(one) for text in constant(leaf)
            ]
        elif isinstance(node, ast.Call) and COUNTING.search(ast.unparse(node.func)):
            yield from [text for one in node.args[:2] for text in constant(one)][:1]
        elif isinstance(node, ast.Call) and COUNTING.search(ast.unparse(node).partition(",")[0]):
            yield from [text for one in node.args[1:2] for text in constant(one)]  # a `partial`


def constant(node: ast.AST) -> list[str]:
    """Return the string that *node* is, if it is one."""
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


@pytest.mark.parametrize("reason", [*LOSSES, *OTHER_COUNTS])
def test_entries(reason: str) -> None:
    """Each is a lower-case clause without a full stop, so that sentences can be made of it."""
    meaning, remedy = {**LOSSES, **OTHER_COUNTS}[reason]

    for text in filter(None, [meaning, remedy]):
        assert text == text.strip().removesuffix(".")
        assert text[0].islower() or text[0] == "`"
    assert "" == remedy if reason in OTHER_COUNTS else meaning


@pytest.mark.parametrize("reason", LOSSES)
def test_sentences(reason: str) -> None:
    """A warning names the number and the reason, and says what to do where there is something."""
    text = sentence(reason, 3, "HTTP 400")

    assert text.startswith(f"3 events were lost ({reason}): ")
    assert "[HTTP 400]" in text
    assert ("To do:" in text) == bool(LOSSES[reason].remedy)
    assert "1 event was lost" in sentence(reason)
    assert "[" not in sentence(reason)
