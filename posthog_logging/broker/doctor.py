"""Look for what keeps events from going through a broker; nothing is published that stays."""

from __future__ import annotations

from collections.abc import Iterator

from .address import Address
from .engine import Finding, engine_for


__all__ = ["examine"]


def examine(address: Address, timeout: float = 10.0) -> Iterator[Finding]:
    """
    Yield what is well and what is wrong with the broker at *address*, each with its remedy.

    Raises ``ValueError`` where the client library is not installed.
    """
    engine = engine_for(address)
    yield from engine.examine(address, timeout)
