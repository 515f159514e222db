"""
Show a guide in the terminal; without TOPIC, list the guides.

The guides are part of the package, so they fit the installed version and need no network.
"""

from __future__ import annotations

import argparse

from collections.abc import Mapping
from difflib import get_close_matches
from importlib.resources import files

from .command import OK, CommandError
from .output import Output


__all__ = ["HELP", "add_arguments", "guides", "run"]

HELP = "show the guides in the terminal"

USAGE_LINE = "posthog-logging docs [-h] [--json] [TOPIC]"

_COLUMNS = ("topic", "what it is about")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("words", nargs="*", metavar="TOPIC", help="the guide to show")
    parser.add_argument("--json", action="store_true", help="print each guide as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Show the list of guides, or one of them."""
    output = Output(options.json)
    found = guides()
    if not options.words:
        output.table(_COLUMNS, [(topic, _promise(text)) for topic, text in found.items()])
        output.say("", "Show one with `posthog-logging docs TOPIC`.")
    for topic in options.words or found:
        text = _guide(topic, found)
        output.give({"topic": topic, "title": _title(text), "text": text})
        if options.words:
            output.markdown(text)
    return OK


def guides() -> Mapping[str, str]:
    """Return the text of every guide by topic, in alphabetical order."""
    folder = files("posthog_logging.docs")
    texts = {
        one.name.removesuffix(".md"): one.read_text(encoding="utf-8")
        for one in folder.iterdir()
        if one.name.endswith(".md")
    }
    return dict(sorted(texts.items()))


def _guide(topic: str, found: Mapping[str, str]) -> str:
    if topic in found:
        return found[topic]
    near = get_close_matches(topic, found, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    width = max(map(len, found))
    topics = [f"{name:{width}}  {_promise(text)}" for name, text in found.items()]
    raise CommandError(f"there is no guide {topic!r}.{hint} The guides are:", choices=topics)


def _title(text: str) -> str:
    return text.partition("\n")[0].lstrip("# ")


def _promise(text: str) -> str:
    """Return the first sentence below the title."""
    _, _, rest = text.partition("\n")
    return rest.strip().partition("\n")[0]
