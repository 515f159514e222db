"""Lines of other people's files, with and without orjson, with and without a byte-order mark."""

from __future__ import annotations

import codecs
import json

from pathlib import Path
from typing import Any

import pytest

from conftest import load_without

from posthog_logging.cli import main
from posthog_logging.cli.lines import fields_in_line, reader
from posthog_logging.events import jsonable


LINE = json.dumps({"event": "movie played", "distinct_id": "user-1"}).encode()


def test_a_mark_is_no_part_of_a_line() -> None:
    """A line is the same event, with the same id, with a byte-order mark in front."""
    read = reader("auto")

    assert fields_in_line(LINE, read) == fields_in_line(codecs.BOM_UTF8 + LINE, read)


@pytest.mark.parametrize("bare", [False, True], ids=["as installed", "without orjson"])
def test_a_file_with_a_mark_is_imported(
    bare: bool, tmp_path: Path, inspector: Any, run_script: Any
) -> None:
    """Every line arrives, also where files with marks were put together."""
    file = tmp_path / "app.ndjson"
    other = LINE.replace(b"user-1", b"user-2")
    file.write_bytes(codecs.BOM_UTF8 + LINE + b"\r\n" + codecs.BOM_UTF8 + other + b"\r\n")
    hide = 'import sys; sys.modules["orjson"] = None\n' if bare else ""
    script = f"{hide}from posthog_logging.cli import main; main()"

    done = run_script(
        script, "import", str(file), "--api-key", "phc_test", "--host", inspector.url
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert ["user-1", "user-2"] == [event.distinct_id for event in inspector.events]


@pytest.mark.parametrize("coding", ["utf-16-le", "utf-16-be"])
def test_a_file_of_another_coding_is_refused(
    coding: str, tmp_path: Path, inspector: Any, capsys: Any
) -> None:
    """A file that a shell wrote in UTF-16 is named, and what to do with it."""
    file = tmp_path / "app.ndjson"
    file.write_bytes(("\ufeff" + LINE.decode()).encode(coding))

    status = main(["import", str(file), "--api-key", "phc_test", "--host", inspector.url])

    assert 1 == status
    assert "UTF-16; convert it to UTF-8" in capsys.readouterr().err


bare_json = load_without("orjson", jsonable)

TEXTS = {
    "a mark": b"\xef\xbb\xbf1",
    "UTF-16": "[1]".encode("utf-16"),
    "UTF-32": "[1]".encode("utf-32"),
    "infinite": b"1e400",
    "a lone surrogate": b'"\\ud800"',
    "no UTF-8": b'"\xff"',
    "two values": b"1 2",
    "nothing": b" ",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("module", [jsonable, bare_json], ids=["as installed", "bare"])
def test_what_is_refused_is_refused_by_both(module: Any, text: bytes) -> None:
    """What one decoder does not take, the other does not take either."""
    with pytest.raises(ValueError):
        module.decode(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a":1,"a":2}', {"a": 2}),
        (b"18446744073709551615", 18446744073709551615),
        (b"18446744073709551616", 18446744073709551616.0),
        (b"-9223372036854775809", -9223372036854775809.0),
        (b"9" * 100, float("9" * 100)),
        (b"1.5e300", 1.5e300),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\\\ud800"', "\\ud800"),
        ('"\u00e9"', "\u00e9"),
    ],
    ids=str,
)
@pytest.mark.parametrize("module", [jsonable, bare_json], ids=["as installed", "bare"])
def test_what_is_taken_is_the_same(module: Any, text: Any, expected: Any) -> None:
    """Both decoders read the same value."""
    found = module.decode(text)

    assert (expected, type(expected)) == (found, type(found))
