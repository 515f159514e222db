"""
The queue in a broker that people already run: what goes in, and what takes it out.

A producer's broker is a `Transport`: the whole pipeline stands before it, so a log call never
waits for it. A relay's broker is a `Spool`: what it hands out is acknowledged when its last
line is settled. Everything that knows an engine is behind the seam in `engine`.
"""

from __future__ import annotations


__all__: list[str] = []
