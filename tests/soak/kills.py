"""Kill processes that log, drain what they left, and compare with what the server has got."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import posthog_logging

from posthog_logging.inspector import Event, Inspector


__all__ = ["PATH", "Arrived", "Plan", "arrived", "drain", "kill_all"]

PATH = str(Path(posthog_logging.__file__).parent.parent)


@dataclass(frozen=True)
class Plan:
    """
    What is played.

    Args:
        most: how many events a process logs at most before it is killed.
        size: bytes of ballast in each event; large ones begin a new segment often.
    """

    rounds: int
    processes: int = 1
    most: int = 2000
    size: int = 0
    seed: int = 0


class Arrived(NamedTuple):
    """What a server has got, by the names in ``properties["n"]``."""

    names: frozenset[str]
    duplicates: int
    different: int  # re-deliveries that are not identical: there must be none
    bad: int


def kill_all(plan: Plan, url: str, folder: Path) -> tuple[int, list[str]]:
    """
    Play *plan*; return the number of kills, and which log calls have returned.

    Args:
        url: that of a server, or of a broker.
    """
    program = Path(__file__).with_name("nursery.py")
    said = json.loads(_run(str(program), url, str(folder), json.dumps(asdict(plan))))
    return said["kills"], said["returned"]


def drain(folder: Path, broker: str = "") -> None:
    """Deliver what waits in *folder*, by the command that people have for that."""
    if folder.exists():
        words = ["spool", "drain", str(folder), "--timeout", "60"]
        _run("-m", "posthog_logging", *words, POSTHOG_BROKER=broker)


def arrived(inspector: Inspector) -> Arrived:
    """Return what *inspector* has got."""
    return _arrived(inspector.events, len(inspector.bad))


def _arrived(events: Iterable[Event], bad: int) -> Arrived:
    seen: dict[str, Any] = {}
    duplicates = different = 0
    for event in events:
        name = event.properties["n"]
        duplicates += name in seen
        different += seen.setdefault(name, event.raw) != event.raw
    return Arrived(frozenset(seen), duplicates, different, bad)


def _run(*command: str, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": PATH, "POSTHOG_API_KEY": "phc_soak", **more},
        check=False,
    )
    if done.returncode or "Traceback" in done.stderr:
        raise AssertionError(f"{command[0]}: status {done.returncode}\n{done.stderr}")
    return done.stdout
