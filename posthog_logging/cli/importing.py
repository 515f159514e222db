"""
Send the events in files of JSON lines: journals, exports, structured logs.

The progress of a file is saved beside it, as FILE.imported: after an outage or Ctrl-C the same
command goes on from there. Every event keeps its uuid and its time, so nothing is stored twice.
A line that is broken or not an event does not stop the others.
"""

from __future__ import annotations

import argparse
import codecs
import hashlib
import os
import sys
import time

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..delivery import checks
from ..delivery.clock import monotonic
from ..delivery.ledger import NOT_LOSSES
from ..delivery.sender import DeliveryError
from ..events import jsonable
from ..handler import PostHogHandler
from . import destination
from .command import FAILED, OK, CommandError
from .lines import FORMATS, fault_of, fields_in_line, reader
from .output import Output, harmless


__all__ = ["HELP", "add_arguments", "run"]

HELP = "send the events in files of JSON lines"

USAGE_LINE = "posthog-logging import [options] FILE [FILE ...]"

EPILOG = """\
examples:
  posthog-logging import /var/spool/app/*.ndjson
  posthog-logging import app.log --format log
  posthog-logging import old.ndjson --historical-migration \\
      --map event=name,distinct_id=user.id,timestamp=at

Left out are blank lines, headers, records that are not events, and an event's second copy.

exit statuses: 0 all imported, 1 a line was broken or an event lost, or the server could not be
reached (run it again to go on), 2 wrong usage
"""

_CHUNK_LINES = 1000
_CHUNK_BYTES = 8 * 1024 * 1024
_NEVER = 10**9
_BLANK = b"\0\r\n\t "
_COLUMNS = ("file", "lines", "already imported", "imported", "left out", "broken", "lost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("words", nargs="*", metavar="FILE", help="a file of JSON lines")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--format",
        choices=FORMATS,
        default="auto",
        metavar="NAME",
        help="what a line is: auto, log (a structlog record: an event if it has a distinct_id), "
        "or the name of a dialect (default auto)",
    )
    how.add_argument(
        "--map",
        default="",
        metavar="FIELD=path,...",
        help="where in a line each part of an event is: event, distinct_id, timestamp, uuid, "
        "properties, set, set_once, groups; a path is one or more keys with dots between them",
    )
    parser.add_argument(
        "--historical-migration", action="store_true", help="mark the events as imported history"
    )
    parser.add_argument(
        "--again", action="store_true", help="begin at the first line, also after an earlier run"
    )
    destination.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each file")


@dataclass(frozen=True)
class Done:
    """The progress of one file towards one destination."""

    to: str
    head: str
    offset: int = 0
    lines: int = 0
    imported: int = 0
    left_out: int = 0
    broken: int = 0
    lost: int = 0

    @property
    def bad(self) -> int:
        """The number of lines that did not arrive and should have."""
        return self.broken + self.lost


def run(options: argparse.Namespace) -> int:
    """Import file after file."""
    if not options.words:
        raise CommandError("no file: give at least one")
    for name in options.words:
        if not os.path.isfile(name):
            raise CommandError(f"{name}: {_not_a_file(name)}")
    output = Output(options.json)
    work = _Import(options, output)
    try:
        runs = [(name, work.file(Path(name))) for name in options.words]
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where this one ended", file=sys.stderr)
        raise
    finally:
        work.close()
    output.table(_COLUMNS, [_row(name, *ends) for name, ends in runs])
    for name, (begun, done) in runs:
        if begun.lines == done.lines > 0:
            output.say(f"{name} was already imported; nothing was sent. --again imports it again.")
    return FAILED if any(done.bad for _, (_, done) in runs) else OK


def _not_a_file(name: str) -> str:
    """Return why *name* cannot be imported, and what to give instead."""
    if os.path.isdir(name):
        return "this is a folder; give the files in it"
    if os.path.exists(name):
        return "a pipe or a device has no place for the progress; save its lines in a file first"
    return "there is no such file"


def _row(name: str, begun: Done, done: Done) -> list[str]:
    new = done.imported - begun.imported
    numbers = (done.lines, begun.imported, new, done.left_out, done.broken, done.lost)
    return [Path(name).name, *map(str, numbers)]


@dataclass
class _Chunk:
    """Lines that are sent together; their outcome is known before the next ones are read."""

    counts: Counter[str] = field(default_factory=Counter)
    line_of: dict[str, int] = field(default_factory=dict)


class _Import:
    """One run of the command: a handler, and a reader of lines."""

    def __init__(self, options: argparse.Namespace, output: Output) -> None:
        self._options = options
        self._output = output
        self._lost: list[tuple[str, Any]] = []
        # Only `flush` sends, so the outcome of a chunk is known when it returns.
        self._handler: PostHogHandler = destination.handler_for(
            options,
            flush_at=_NEVER,
            flush_interval=_NEVER,
            max_queue_bytes=_NEVER,
            historical_migration=options.historical_migration,
            on_error=self._note_loss,
        )
        self._to = _fingerprint(options)
        try:
            self._read = reader(options.format, options.map)
        except (ValueError, ImportError) as error:
            raise CommandError(str(error)) from None

    def close(self) -> None:
        """Close connections; what was not delivered is not lost, as a later run sends it."""
        with destination.losses_left_out("shutdown"):
            self._handler.close()

    def file(self, path: Path) -> tuple[Done, Done]:
        """Import one file; return its progress before and after this run."""
        try:
            with open(path, "rb") as stream:
                return self._stream(path, stream)
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}", FAILED) from None

    def _stream(self, path: Path, stream: BinaryIO) -> tuple[Done, Done]:
        first = stream.readline(65536)
        if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise CommandError(f"{path}: this is UTF-16; convert it to UTF-8 first", FAILED)
        head = hashlib.sha256(first).hexdigest()
        done = Done(self._to, head)
        size = os.fstat(stream.fileno()).st_size
        before = None if self._options.again else _load(_beside(path))
        if before and (before.to, before.head) == (self._to, head) and before.offset <= size:
            done = before
        begun = done
        stream.seek(done.offset)
        with self._output.progress(path.name, size - done.offset) as advance:
            for lines in _chunks(stream):
                done = self._chunk(path, lines, done)
                _save(_beside(path), done)
                advance(sum(map(len, lines)))
        self._output.give({"file": str(path), "from_line": begun.lines + 1, **_numbers(done)})
        return begun, done

    def _chunk(self, path: Path, lines: Sequence[bytes], done: Done) -> Done:
        """Send some lines; return the file's progress after them."""
        chunk = _Chunk()
        for number, line in enumerate(lines, done.lines + 1):
            outcome = self._line(path, line, number, chunk)
            chunk.counts[outcome] += 1
        self._deliver()
        for reason, key in self._lost:
            _complain(path, chunk.line_of.get(key, 0), f"lost: {reason}")
        lost = len(self._lost)
        self._lost.clear()
        return replace(
            done,
            offset=done.offset + sum(map(len, lines)),
            lines=done.lines + len(lines),
            imported=done.imported + chunk.counts["imported"] - lost,
            left_out=done.left_out + chunk.counts["left out"],
            broken=done.broken + chunk.counts["broken"],
            lost=done.lost + chunk.counts["lost"] + lost,
        )

    def _line(self, path: Path, line: bytes, number: int, chunk: _Chunk) -> str:
        """Queue the event in one line; return the line's outcome."""
        # The journal of a crashed process ends in zeros; joined files have byte-order marks.
        text = line.strip(_BLANK).removeprefix(codecs.BOM_UTF8).strip(_BLANK)
        if not text or (number == 1 and _is_header(text)):
            return "left out"
        try:
            fields = fields_in_line(text, self._read)
        except Exception as error:  # a decoder of foreign data may raise anything
            _complain(path, number, fault_of(error))
            return "broken"
        if fields is None:
            return "left out"
        if fields["uuid"] in chunk.line_of:
            return "left out"  # a second copy
        before = _losses(self._handler)
        key = self._handler.accept(fields)
        if key is None:
            reasons = _losses(self._handler) - before
            _complain(path, number, f"lost: {', '.join(reasons) or 'refused'}")
            return "lost"
        chunk.line_of[str(fields["uuid"])] = chunk.line_of[key] = number
        return "imported"

    def _deliver(self) -> None:
        """Flush until nothing waits; give up after ``--timeout``."""
        deadline = monotonic() + self._options.timeout
        while not self._handler.flush(self._options.timeout):
            if monotonic() >= deadline:
                raise CommandError(
                    "not all was delivered; the same command goes on where this one ended", FAILED
                )
            time.sleep(min(1.0, max(0.0, deadline - monotonic())))

    def _note_loss(self, error: DeliveryError, events: list[dict[str, Any]]) -> None:
        status = f", HTTP {error.status}" if error.status else ""
        reason = f"{error.reason}{status}"
        self._lost += [(reason, one.get("uuid") or one.get("messageId")) for one in events]


def _chunks(stream: BinaryIO) -> Iterator[list[bytes]]:
    lines: list[bytes] = []
    size = 0
    for line in stream:
        lines.append(line)
        size += len(line)
        if len(lines) >= _CHUNK_LINES or size >= _CHUNK_BYTES:
            yield lines
            lines, size = [], 0
    if lines:
        yield lines


def _losses(handler: PostHogHandler) -> Counter[str]:
    return Counter({k: n for k, n in handler.counts.items() if k not in NOT_LOSSES})


def _is_header(text: bytes) -> bool:
    return text.startswith(b'{"posthog_logging":')


def _complain(path: Path, number: int, text: str) -> None:
    print(harmless(f"{path}:{number}: {text}"), file=sys.stderr)


def _fingerprint(options: argparse.Namespace) -> str:
    """Return a text that differs between two destinations, and does not reveal the key."""
    key = checks.api_key(options.api_key)
    host = options.host or os.environ.get("POSTHOG_HOST", "")
    parts = "\0".join([options.dialect, host, key, options.format, options.map])
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.imported")


def _load(path: Path) -> Done | None:
    try:
        return Done(**jsonable.decode(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _save(path: Path, done: Done) -> None:
    """Replace the file in one step, so that it is whole at any time."""
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_bytes(jsonable.encode(asdict(done)) + b"\n")
        beside.replace(path)
    except OSError as error:
        _complain(
            path, 0, f"the progress cannot be saved ({error.strerror}); a later run begins anew"
        )


def _numbers(done: Done) -> dict[str, Any]:
    return {k: v for k, v in asdict(done).items() if k not in ("to", "head", "offset")}
