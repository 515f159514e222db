"""The local variables of frames: only where they are asked for, as texts, and without secrets."""

from __future__ import annotations

import dataclasses
import json

from collections.abc import Callable
from typing import Any

import pytest

from test_gate import Sent

from posthog_logging import PostHogHandler
from posthog_logging.errors.variables import text_of_variable


KEY = "phc_of_this_very_handler_0123456789"


@dataclasses.dataclass
class Account:
    """A value whose repr has a secret in it."""

    name: str
    password: str


class Evil:
    """A value that cannot be shown, nor looked into."""

    def __repr__(self) -> str:
        raise RuntimeError

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return object.__getattribute__(self, name)
        raise RuntimeError


def fail(**more: Any) -> None:
    """Raise, with some variables."""
    count, account = 5, Account("ada", "hunter2")
    api_key, options = "hunter2", {"secret": "hunter2", "n": [1, 2]}
    raise ValueError(count, account, api_key, options)


def raise_in_json() -> None:
    """Raise in a library."""
    text = "{hunter2"
    json.loads(text)


def frames(raise_it: Callable[[], object], **options: Any) -> list[dict[str, Any]]:
    """Return the frames of the report of what *raise_it* raises."""
    sent = Sent(**{"exception_variables": True, **options})
    try:
        raise_it()
    except Exception as error:
        sent.handler.capture_exception(error, distinct_id="user-1")
    (event,) = sent.events
    found: list[dict[str, Any]] = event["properties"]["$exception_list"][0]["stacktrace"]["frames"]
    return found


def test_variables() -> None:
    """The project's own frames carry what `repr` shows, and no secret of it."""
    last = frames(lambda: fail(evil=Evil()))[-1]["code_variables"]

    assert {
        "count": "5",
        "account": "Account(name='ada', password='[scrubbed]')",
        "api_key": "[scrubbed]",
        "options": "{'n': [1, 2], 'secret': '[scrubbed]'}",
        "more": "{'evil': [unprintable Evil]}",
    } == last


def test_off_by_default() -> None:
    """No variable leaves unless somebody asks for that."""
    assert not any("code_variables" in one for one in frames(fail, exception_variables=False))


def test_libraries_keep_theirs() -> None:
    """Frames of libraries and of the standard library carry none."""
    found = frames(raise_in_json)
    own = [one for one in found if one["in_app"]]

    assert ["code_variables" in one for one in found] == [one["in_app"] for one in found]
    assert len(own) < len(found)
    assert "'{hunter2'" == own[-1]["code_variables"]["text"]


def test_bounds() -> None:
    """One variable takes 1 KiB and one event 64 KiB, however many there are."""

    def deep(number: int) -> None:
        big = ["x" * 500] * 1_000
        text = "ü" * 5_000
        if number:
            deep(number - 1)
        raise ValueError(big, text)

    found = [one["code_variables"] for one in frames(lambda: deep(90)) if "code_variables" in one]
    sizes = [len(text.encode()) for one in found for text in one.values()]

    assert max(sizes) <= 1024
    assert 32 * 1024 < sum(sizes) <= 64 * 1024
    assert found[-1]["text"].endswith("[cut: of 2048 characters]")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Evil(), "[unprintable Evil]"),
        ([Evil()], "[[unprintable Evil]]"),
        ("a'b", '"a\'b"'),
        (list(range(10**6)), None),
        ({n: n for n in range(10**5)}, None),
        ("x" * 10**7, None),
        (10**5000, None),
        ("\ud800", "'\\ud800'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_texts(value: Any, text: str | None) -> None:
    """Whatever the value is, its text is short and nothing is raised."""
    found = text_of_variable(value)

    assert text in (found, None)
    assert len(found.encode()) <= 1024


def test_what_is_no_state() -> None:
    """Modules, functions, classes and dunder names are the program, and not its state."""
    namespace = {"__name__": "__main__"}
    source = "import json\ndef f(): pass\nclass C: pass\nx = 5\n1 / x - 1 / 0"

    last = frames(lambda: exec(compile(source, "<main>", "exec"), namespace))[-1]
    assert {"x": "5"} == last["code_variables"]


def test_keys_are_masked() -> None:
    """The handler's own key is never in a report, also not as somebody's variable."""

    def with_key() -> None:
        token = KEY
        raise ValueError(token[:3])

    sent = Sent(exception_variables=True)
    try:
        with_key()
    except ValueError as error:
        sent.handler.capture_exception(error)

    assert KEY not in json.dumps(sent.events)


def test_bad_option() -> None:
    """It is True or False."""
    with pytest.raises(TypeError, match=r"^exception_variables: "):
        PostHogHandler("phc_key", "http://x.example", send=False, exception_variables=1)  # type: ignore[arg-type]
