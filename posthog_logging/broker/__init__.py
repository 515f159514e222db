"""
Events by way of a message broker: producers publish them, and relays deliver them.

For a producer the broker is a `Transport` at the end of the pipeline, so a log call never waits
for it. For a relay it is a `Spool`: a message is acknowledged once its last line is settled.
What differs between RabbitMQ, Redis and Kafka is behind the seam in `engine`.
"""

from __future__ import annotations


__all__: list[str] = []
