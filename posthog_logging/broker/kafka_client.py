"""What all of Kafka's clients share: their configuration, the topics, and the words for errors."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined,unused-ignore]

from .address import Address
from .engine import INVALID_SETTING, BrokerError


__all__ = ["CONNECT_WITHIN", "admin", "declare", "described", "settings"]

#: Seconds within which a cluster must answer a new client.
CONNECT_WITHIN = 10.0

_OURS = frozenset({"queue", "group"})  # in the URL's query, where all else is librdkafka's


def settings(address: Address) -> dict[str, Any]:
    """
    Return the configuration of a client: the URL's query has librdkafka's own names.

    See https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md.
    """
    user, password = address.credentials()
    found: dict[str, Any] = {
        "log_level": 0,
        "client.id": "posthog-logging",
        "bootstrap.servers": address.hosts,
    }
    if user:
        found |= {
            "sasl.username": user,
            "sasl.password": password,
            "sasl.mechanism": "PLAIN",
            "security.protocol": "SASL_SSL",
        }
    found |= {name: value for name, value in address.settings.items() if name not in _OURS}
    return found


def admin(address: Address) -> Any:
    """Return an administrator's client; raises `BrokerError` for a setting that is wrong."""
    try:
        return AdminClient(settings(address))
    except KafkaException as error:
        raise described(error.args[0]) from None


def declare(address: Address) -> None:
    """Create the topics that are missing, with the cluster's defaults."""
    client = admin(address)
    # To ask for a topic creates it, where the cluster is configured so.
    missing = [
        NewTopic(name, num_partitions=-1, replication_factor=-1)
        for name in (address.queue, address.dead)
        if client.list_topics(name, timeout=CONNECT_WITHIN).topics[name].error is not None
    ]
    if not missing:
        return
    for future in client.create_topics(missing, request_timeout=CONNECT_WITHIN).values():
        try:
            future.result(CONNECT_WITHIN)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        except TimeoutError:
            raise BrokerError("the broker did not create the topic in time") from None


def described(error: Any) -> BrokerError:
    """Return what *error* means, by its code alone: its text may quote a setting."""
    code = error.code() if isinstance(error, KafkaError) else None
    text = _TEXTS.get(code)
    if text is not None:
        return BrokerError(text, final=code in _FINAL)
    name = error.name() if isinstance(error, KafkaError) else type(error).__name__
    return BrokerError(f"the broker did not take or give messages ({name})")


_FINAL = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})
_TEXTS: dict[Any, str] = {
    KafkaError._INVALID_ARG: INVALID_SETTING,
    KafkaError._TRANSPORT: "the broker cannot be reached",
    KafkaError._ALL_BROKERS_DOWN: "the broker cannot be reached",
    KafkaError._TIMED_OUT: "the broker did not answer in time",
    KafkaError._MSG_TIMED_OUT: "the broker did not confirm in time",
    KafkaError._PURGE_QUEUE: "the broker did not confirm in time",
    KafkaError._PURGE_INFLIGHT: "the broker did not confirm in time",
    KafkaError._AUTHENTICATION: "the broker refused the user or the password",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the broker refused the user or the password",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the broker refused the right to that topic",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the broker has no such topic; a relay makes it",
    KafkaError.MSG_SIZE_TOO_LARGE: "the broker takes no message as large as that",
    KafkaError.INVALID_MSG_SIZE: "the broker takes no message as large as that",
}
