"""What may be wrong with a Kafka cluster and its topics, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource  # type: ignore[attr-defined,unused-ignore]

from .address import Address
from .engine import MISSING, BrokerError, Finding, no_entry
from .envelope import MOST_BYTES
from .kafka_client import admin, described


__all__ = ["examine"]


def examine(address: Address, timeout: float) -> Iterator[Finding]:
    """Check the cluster, the topics and their limits."""
    try:
        client = admin(address)
        known = client.list_topics(timeout=timeout)
    except KafkaException as error:
        yield no_entry(address, described(error.args[0]))
        return
    except BrokerError as error:
        yield no_entry(address, error)
        return
    yield Finding("ok", "broker", f"{address.server}, {len(known.brokers)} broker(s)")
    for name in (address.queue, address.dead):
        yield _topic(name, known.topics.get(name))
    if address.queue in known.topics:
        yield from _limits(client, address, timeout)


def _topic(name: str, topic: Any) -> Finding:
    if topic is None:
        return Finding("note", "topic", f"{name} is missing", MISSING)
    replicas = min((len(one.replicas) for one in topic.partitions.values()), default=0)
    found = f"{name}: {len(topic.partitions)} partitions, {replicas} replica(s)"
    if replicas > 1:
        return Finding("ok", "topic", found)
    text = f"{found}: what one disk loses is lost"
    return Finding("note", "topic", text, "create the topic with two replicas or more")


def _limits(client: Any, address: Address, timeout: float) -> Iterator[Finding]:
    resource = ConfigResource(ConfigResource.Type.TOPIC, address.queue)
    try:
        (future,) = client.describe_configs([resource], request_timeout=timeout).values()
        found = {name: one.value for name, one in future.result(timeout).items()}
    except Exception as error:
        text = f"the broker does not say ({type(error).__name__})"
        remedy = f"make sure that max.message.bytes is {MOST_BYTES} or more"
        yield Finding("note", "limits", text, remedy)
        return
    largest = int(found.get("max.message.bytes", 0))
    if largest < MOST_BYTES:
        text = f"max.message.bytes is {largest}, so larger events are lost"
        yield Finding("note", "limits", text, f"set max.message.bytes to {MOST_BYTES}")
    else:
        yield Finding("ok", "limits", f"max.message.bytes is {largest}")
    hours = int(found.get("retention.ms", -1)) / 3_600_000
    if 0 <= hours < 24:
        text = f"retention.ms is {hours:.1f} hours: an outage that lasts longer loses events"
        yield Finding("WRONG", "retention", text, "set retention.ms to some days")
