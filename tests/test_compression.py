"""The content codings, both ways: what is broken is an error, and nothing grows too large."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib

from typing import Any

import pytest

from conftest import load_without
from hypothesis import given
from hypothesis import strategies as st

from posthog_logging.wire import compression
from posthog_logging.wire.compression import CODINGS, compress, decompress, require


bare = load_without("isal", compression)

PACKAGES = {
    "zstd": "compression.zstd" if sys.version_info >= (3, 14) else "zstandard",
    "br": "brotli",
}


@pytest.fixture(params=CODINGS)
def coding(request: pytest.FixtureRequest) -> str:
    """Each coding whose package is here."""
    name: str = request.param
    pytest.importorskip(PACKAGES.get(name, "zlib"))
    return name


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"x" * 1_000_000, bytes(range(256)) * 99],
    ids=["none", "2", "1 MB", "all"],
)
def test_every_coding_comes_back(coding: str, body: bytes) -> None:
    """What is packed is unpacked to the same bytes, whatever the case of the coding's name."""
    packed, used = compress(body, coding)

    assert coding == used
    assert body == decompress(packed, coding) == decompress(packed, coding.upper())


@pytest.mark.parametrize("module", [compression, bare], ids=["as installed", "bare"])
@given(body=st.binary(max_size=2000), name=st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_come_back(module: Any, body: bytes, name: str) -> None:
    """No bytes are changed on the way, with isal and without it."""
    packed, used = module.compress(body, name)

    assert name == used
    assert body == decompress(packed, name)


def test_what_is_packed_is_what_others_read() -> None:
    """``gzip`` is RFC 1952; ``deflate`` is zlib's wrapper of RFC 1950, as HTTP means it."""
    assert b"hello" == gzip.decompress(compress(b"hello", "gzip")[0])
    assert b"hello" == zlib.decompress(compress(b"hello", "deflate")[0])


def test_deflate_is_read_with_and_without_its_wrapper() -> None:
    """What begins with 0x78 has zlib's wrapper, all else is raw (2.2)."""
    raw = zlib.compressobj(wbits=-15)

    assert b"hello" == decompress(raw.compress(b"hello") + raw.flush(), "deflate")
    assert b"hello" == decompress(zlib.compress(b"hello"), "deflate")


@pytest.mark.parametrize("name", [None, "", "identity", "IDENTITY"])
def test_no_coding_changes_nothing(name: str | None) -> None:
    """Without a coding the bytes are the body."""
    assert (b"x", None) == compress(b"x", None)
    assert b"x" == decompress(b"x", name)


def test_a_coding_that_nobody_knows_means_plain_bytes() -> None:
    """Out: plain bytes still arrive. In: an error, since nobody can tell what they mean."""
    assert (b"x", None) == compress(b"x", "lzma")
    with pytest.raises(ValueError, match="lzma"):
        decompress(b"x", "lzma")


def test_a_broken_body_is_a_value_error(coding: str) -> None:
    """Garbage raises `ValueError`, and so does what ends too early."""
    packed, _ = compress(bytes(range(256)) * 4000, coding)
    for broken in (b"\xff" * 50, b"", packed[: len(packed) // 2], packed[:-1]):
        with pytest.raises(ValueError, match=coding):
            decompress(broken, coding)


def test_a_body_cut_within_what_cannot_be_packed_is_broken(coding: str) -> None:
    """A truncated body is one also where its blocks are whole up to there."""
    packed, _ = compress(
        b"".join(zlib.compress(bytes([n % 256] * n)) for n in range(3000)), coding
    )
    with pytest.raises(ValueError):
        decompress(packed[: len(packed) - 100], coding)


def test_a_bomb_does_not_go_off(coding: str) -> None:
    """What would become more than may be is an error, in a process of little memory."""
    pytest.importorskip("resource")
    script = """
import resource, sys
from posthog_logging.wire.compression import compress, decompress
packed = compress(bytes(400_000_000), sys.argv[1])[0]
with open("/proc/self/statm") as numbers:
    size = int(numbers.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 200_000_000,) * 2)
try:
    decompress(packed, sys.argv[1], 1_000_000)
except ValueError as error:
    print(error)
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("the size of a process is read as Linux has it")
    found = subprocess.run(
        [sys.executable, "-c", script, coding], capture_output=True, text=True, check=False
    )

    assert ("body of more than 1000000 bytes", "") == (found.stdout.strip(), found.stderr)


def test_a_body_of_exactly_the_most_is_taken(coding: str) -> None:
    """The limit itself is still within."""
    packed, _ = compress(b"x" * 1000, coding)

    assert b"x" * 1000 == decompress(packed, coding, 1000)
    with pytest.raises(ValueError, match="999"):
        decompress(packed, coding, 999)


def test_what_is_here_is_not_complained_about(coding: str) -> None:
    """A coding with its package, or none at all, is fine."""
    require(coding)
    require(None)


def test_an_unknown_coding_is_named_when_it_is_chosen() -> None:
    """Who chooses a coding that does not exist learns of it at once."""
    with pytest.raises(ValueError, match=r"compression: must be .* not 'lzma'"):
        require("lzma")


@pytest.mark.parametrize(("name", "package"), PACKAGES.items())
def test_an_absent_package_is_named_when_it_is_chosen(name: str, package: str) -> None:
    """The error says what to install; a body that comes without the package is an error, too."""
    script = """
import sys
name, sys.modules[sys.argv[2]] = sys.argv[1], None
from posthog_logging.wire.compression import compress, decompress, require
for call in (lambda: require(name), lambda: decompress(b"x", name)):
    try:
        call()
    except ValueError as error:
        print(error)
print(*compress(b"plain", name))
"""
    found = subprocess.run(
        [sys.executable, "-c", script, name, package], capture_output=True, text=True, check=True
    )
    extra = {"zstd": "zstd", "br": "brotli"}[name]

    assert [
        f"compression: '{name}' needs {package}: pip install 'posthog_logging[{extra}]'",
        f"broken {name} body: ModuleNotFoundError",
        "b'plain' None",
    ] == found.stdout.splitlines()
