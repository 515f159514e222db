"""
Content codings (RFC 9110, 8.4): compress and decompress bodies.

If a codec is missing or fails, the body is sent uncompressed.
"""

from __future__ import annotations

import sys
import zlib

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


try:
    from isal import isal_zlib
except ImportError:  # the standard library's zlib works, but takes five times as long
    isal_zlib = None  # type: ignore[assignment]


__all__ = ["CODINGS", "compress", "decompress", "require"]

#: The most bytes that a body may decompress to: an inspector must survive a zip bomb.
LARGEST = 64 * 1024 * 1024

# Level 1 costs an eighth of the CPU of gzip's usual 9, and 30 % more bytes (measured).
_LEVEL = 1
# In the standard library from Python 3.14 on.
_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "zstandard"
_zlib: Any = zlib if isal_zlib is None else isal_zlib


def compress(body: bytes, coding: str | None) -> tuple[bytes, str | None]:
    """Return *body* compressed, and the coding used: None, with the plain body, if it failed."""
    if coding is None:
        return body, None
    try:
        return _COMPRESS[coding](body), coding
    except Exception:  # a codec may raise anything; the plain body still arrives
        return body, None


def decompress(body: bytes, coding: str | None, largest: int = LARGEST) -> bytes:
    """
    Return *body* decompressed; *coding* is None or empty for a plain body.

    Raises ``ValueError`` for a broken body, an unknown coding, and a result of more than
    *largest* bytes.
    """
    if not coding or coding.lower() == "identity":
        return body
    try:
        plain = _DECOMPRESS[coding.lower()](body, largest)
    except KeyError:
        raise ValueError(f"content coding {coding!r} is unknown") from None
    except Exception as error:
        raise ValueError(f"broken {coding} body: {type(error).__name__}") from error
    if len(plain) > largest:
        raise ValueError(f"body of more than {largest} bytes")
    return plain


def require(coding: str | None) -> None:
    """Raise ``ValueError`` if *coding* is unknown or its package is not installed."""
    if coding is not None and coding not in CODINGS:
        raise ValueError(f"compression: must be {', '.join(CODINGS)} or None, not {coding!r}")
    package = {"zstd": _ZSTD, "br": "brotli"}.get(coding or "")
    if package is not None:
        try:
            import_module(package)
        except ImportError:
            extra = {"zstd": "zstd", "br": "brotli"}[str(coding)]
            raise ValueError(
                f"compression: {coding!r} needs {package}: pip install 'posthog_logging[{extra}]'"
            ) from None


def _deflated(wbits: int) -> Callable[[bytes], bytes]:
    def compress_with(body: bytes) -> bytes:
        compressor = _zlib.compressobj(_LEVEL, zlib.DEFLATED, wbits)
        packed: bytes = compressor.compress(body) + compressor.flush()
        return packed

    return compress_with


def _zstd(body: bytes) -> bytes:
    zstd: Any = import_module(_ZSTD)
    if _ZSTD != "zstandard":
        return bytes(zstd.compress(body, level=1))
    return bytes(zstd.ZstdCompressor(level=1).compress(body))


def _br(body: bytes) -> bytes:
    import brotli

    return bytes(brotli.compress(body, quality=1))


def _inflated(body: bytes, largest: int, wbits: int) -> bytes:
    decompressor = zlib.decompressobj(wbits)
    plain = decompressor.decompress(body, largest + 1)
    if not decompressor.eof and len(plain) <= largest:
        raise ValueError("truncated")
    return plain


def _inflated_either(body: bytes, largest: int) -> bytes:
    """Inflate ``deflate`` as PostHog does: zlib's format (RFC 1950) if it begins with 0x78."""
    return _inflated(body, largest, 15 if body[:1] == b"\x78" else -15)


def _unzstd(body: bytes, largest: int) -> bytes:
    if _ZSTD != "zstandard":
        decompressor: Any = import_module(_ZSTD).ZstdDecompressor()
        found = bytes(decompressor.decompress(body, max_length=largest + 1))
        if not decompressor.eof and len(found) <= largest:
            raise ValueError("truncated")
        return found
    import zstandard

    size = zstandard.frame_content_size(body)
    reader = zstandard.ZstdDecompressor().stream_reader(body)
    plain = reader.read(largest + 1)
    if len(plain) < min(size, largest + 1):
        raise ValueError("truncated")
    return plain


def _unbr(body: bytes, largest: int) -> bytes:
    import brotli

    decompressor, plain, step = brotli.Decompressor(), bytearray(), 64
    for start in range(0, len(body), step):  # small steps bound what one of them can expand to
        plain += decompressor.process(body[start : start + step])
        if len(plain) > largest:
            return bytes(plain)
    if not decompressor.is_finished():
        raise ValueError("truncated")
    return bytes(plain)


_COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": _deflated(31),
    "deflate": _deflated(15),
    "zstd": _zstd,
    "br": _br,
}
_DECOMPRESS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "gzip": lambda body, largest: _inflated(body, largest, 31),
    "deflate": _inflated_either,
    "zstd": _unzstd,
    "br": _unbr,
}
CODINGS = tuple(_COMPRESS)
