"""``python -m tests.benchmarks``: play, print the report, and write it if asked to."""

from __future__ import annotations

import argparse
import sys

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import parts
from .contenders import CONTENDERS, available
from .picture import svg
from .report import markdown
from .runner import Plan, Results, run
from .scenarios import SCENARIOS


__all__ = ["main"]

_HERE = Path(__file__).resolve().parent
_QUICK = {"scale": 0.05, "hold": 1.0, "patience": 15.0, "patience_closing": 7.0}


def _words(known: Mapping[str, object]) -> Callable[[str], tuple[str, ...]]:
    """Return an argument's type: names with commas between, each of them known."""

    def words(text: str) -> tuple[str, ...]:
        names = tuple(filter(None, text.split(",")))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: none of {', '.join(known)}")
        return names

    return words


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often all is measured")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the events")
    parser.add_argument(
        "--long", action="store_true", help="the flat scenario with ten times more"
    )
    parser.add_argument(
        "--only", type=_words(SCENARIOS), default=tuple(SCENARIOS), metavar="NAMES"
    )
    parser.add_argument("--contenders", type=_words(CONTENDERS), default=(), metavar="NAMES")
    parser.add_argument("--parts", action="store_true", help="show where a log call's time goes")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and results.svg")
    parser.add_argument("--raw", type=Path, help="write every figure of every round here")
    parser.add_argument(
        "--from", type=Path, dest="raw_from", help="report a --raw file, play nothing"
    )
    return parser.parse_args(given)


def _plan(arguments: argparse.Namespace) -> Plan:
    return Plan(
        scenarios=arguments.only,
        contenders=arguments.contenders,
        rounds=arguments.rounds,
        long=arguments.long,
        **(_QUICK if arguments.quick else {}),
    )


def _warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _played(arguments: argparse.Namespace) -> Results:
    if arguments.raw_from:
        return Results.from_json(arguments.raw_from.read_text())
    for name in CONTENDERS:
        if not available(name):
            _warn(f"{name} is left out: needs {', '.join(CONTENDERS[name].needs)}")
    return run(_plan(arguments), _warn)


def main(given: Sequence[str] | None = None) -> None:
    """Play what the command line says."""
    arguments = _arguments(given)
    results = _played(arguments)
    if arguments.raw:
        arguments.raw.write_text(results.to_json())
    words = sys.argv[1:] if given is None else given
    report = markdown(results, " ".join(["python -m tests.benchmarks", *words]))
    if arguments.parts:
        report += f"\n## Where the time of a log call goes, [fast]\n\n{parts.table()}"
    print(report)
    if arguments.write:
        (_HERE / "RESULTS.md").write_text(report)
        (_HERE / "results.svg").write_text(svg(results))


if __name__ == "__main__":
    main()
