"""
Redis Streams, through ``redis``: as durable as the Redis server is.

Nothing is trimmed: ``MAXLEN`` would drop entries that nobody has acknowledged. A relay refreshes
the entries that it holds from time to time; another relay claims those that nobody refreshes.
"""

from __future__ import annotations

import os
import socket
import time
import uuid

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from ..delivery.clock import monotonic
from .address import Address
from .engine import BrokerError, Intake
from .envelope import CONTENT_TYPE, Delivery, Envelope
from .redis_client import GROUP, connect, described
from .redis_doctor import examine


__all__ = ["StreamConsumer", "StreamPublisher", "consumer", "examine", "publisher"]

_CONNECT_WITHIN = 10.0
_BLOCK_AT_MOST = 1.0
_START = b"0-0"


class StreamPublisher:
    """Adds entries to a stream, many in one round trip."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._client: Any = None

    def publish(self, envelopes: Sequence[Envelope], timeout: float) -> list[BrokerError | None]:
        """Add entries; each has an answer of its own."""
        try:
            if self._client is None:
                self._client = connect(self._address, min(self._timeout, max(0.1, timeout)))
            pipeline = self._client.pipeline(transaction=False)
            for envelope in envelopes:
                pipeline.xadd(self._address.queue, _fields(envelope))
            answers = pipeline.execute(raise_on_error=False)
        except Exception as error:
            self.close()
            raise described(error) from None
        return [described(one) if isinstance(one, Exception) else None for one in answers]

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


class StreamConsumer:
    """Reads a stream as a member of a group, under a unique name."""

    def __init__(self, address: Address, intake: Intake) -> None:
        self.revision = 0
        self.caught_up = True
        self._address = address
        self._intake = intake
        self._name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}".encode()
        self._client: Any = None
        self._inbox: deque[Delivery] = deque()
        self._held: set[bytes] = set()
        self._claim_at = self._refresh_at = 0.0
        self._stopped = False

    @property
    def held(self) -> int:
        """How many entries arrived and are not acknowledged."""
        return len(self._held)

    def fetch(self, most: int, timeout: float) -> list[Delivery]:
        """Return entries: new ones, and from time to time claimed ones."""
        try:
            self._open()
            self._maintain()
            self._read(most, timeout)
        except redis.exceptions.ResponseError as error:
            if "NOGROUP" not in str(error) or not self._intake.declare:
                raise described(error) from None
            self._make_group()  # somebody has deleted the stream
        except Exception as error:
            raise described(error) from None
        return [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]

    def pause(self) -> None:
        """Do nothing: entries arrive only by `fetch`."""

    def holds(self, token: bytes) -> bool:
        """Return whether the entry is unacknowledged and was not claimed by another relay."""
        return token in self._held

    def ack(self, tokens: Sequence[bytes]) -> None:
        """Acknowledge and delete entries, in one transaction."""
        mine = [token for token in tokens if token in self._held]
        if not mine or self._client is None:
            return
        pipeline = self._client.pipeline(transaction=True)
        pipeline.xack(self._address.queue, GROUP, *mine)
        pipeline.xdel(self._address.queue, *mine)
        try:
            pipeline.execute()
        except Exception as error:
            raise described(error) from None
        self._held.difference_update(mine)

    def dead(self, envelope: Envelope, timeout: float) -> None:
        """Add a dead letter to the stream of its own."""
        try:
            self._open().xadd(self._address.dead, _fields(envelope))
        except Exception as error:
            raise described(error) from None

    def stop(self) -> None:
        """Read no more."""
        self._stopped = True

    def close(self) -> None:
        """Leave the held entries for others to claim at once."""
        client, self._client = self._client, None
        self.revision += 1
        held, self._held = list(self._held), set()
        self._inbox.clear()
        if client is None:
            return
        try:
            if held:  # set their idle time to what makes them claimable
                idle = int(self._intake.patience * 1000)
                client.execute_command(
                    *("XCLAIM", self._address.queue, GROUP, self._name, 0, *held),
                    *("IDLE", idle, "JUSTID"),
                )
            elif self._stopped:
                client.xgroup_delconsumer(self._address.queue, GROUP, self._name)
        except Exception:  # they become claimable by themselves, only later
            pass
        client.close()

    def _open(self) -> Any:
        if self._client is None:
            self._client = connect(self._address, _CONNECT_WITHIN)
            if self._intake.declare:
                self._make_group()
        return self._client

    def _make_group(self) -> None:
        try:
            self._client.xgroup_create(self._address.queue, GROUP, id="0", mkstream=True)
        except redis.exceptions.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise described(error) from None

    def _read(self, most: int, timeout: float) -> None:
        room = self._intake.prefetch - len(self._held)
        wait = min(timeout, _BLOCK_AT_MOST)
        if self._inbox or self._stopped or most <= 0 or room <= 0:
            if most <= 0 or (not self._inbox and not self._stopped):
                time.sleep(wait)
            return
        found = self._client.xreadgroup(
            GROUP,
            self._name,
            {self._address.queue: b">"},
            count=min(most, room),
            block=max(1, int(wait * 1000)),
        )
        for _, entries in found or ():
            self._take_in(entries, {})

    def _maintain(self) -> None:
        """Refresh the held entries and claim abandoned ones, each when it is due."""
        now = monotonic()
        patience = self._intake.patience
        if now >= self._refresh_at and self._held:
            self._refresh_at = now + patience / 4
            self._refresh()
        if now >= self._claim_at and not self._stopped:
            self._claim_at = now + patience / 2
            self._claim()

    def _refresh(self) -> None:
        """Reset the idle time of the held entries; drop those that another relay has claimed."""
        pending = self._client.xpending_range(
            self._address.queue, GROUP, "-", "+", len(self._held) + 1, consumername=self._name
        )
        mine = {one["message_id"] for one in pending}
        gone = self._held - mine
        if gone:
            self._held -= gone
            self._inbox = deque(one for one in self._inbox if one.token not in gone)
            self.revision += 1
        if self._held:
            self._client.xclaim(
                self._address.queue, GROUP, self._name, 0, list(self._held), justid=True
            )

    def _claim(self) -> None:
        """Claim the entries of relays that have ended."""
        room = self._intake.prefetch - len(self._held)
        start, idle = _START, int(self._intake.patience * 1000)
        while room > 0:
            answer = self._client.xautoclaim(
                self._address.queue, GROUP, self._name, idle, start, count=room
            )
            start, entries = answer[0], [one for one in answer[1] if one[1]]
            if entries:
                self._take_in(entries, self._deliveries(entries))
            room -= len(entries)
            if start == _START:
                return

    def _deliveries(self, entries: Sequence[Any]) -> dict[bytes, int]:
        pending = self._client.xpending_range(
            self._address.queue,
            GROUP,
            entries[0][0],
            entries[-1][0],
            len(entries),
            consumername=self._name,
        )
        return {one["message_id"]: one["times_delivered"] - 1 for one in pending}

    def _take_in(self, entries: Sequence[Any], before: Mapping[bytes, int]) -> None:
        for token, fields in entries:
            self._held.add(token)
            self._inbox.append(_delivery(token, fields, before.get(token, 0)))


def _fields(envelope: Envelope) -> dict[Any, Any]:
    body, coding = envelope.packed()
    return {
        "body": body,
        "message_id": envelope.message_id,
        "content_type": CONTENT_TYPE,
        **({"content_encoding": coding} if coding else {}),
        **envelope.headers(),
    }


def _delivery(token: bytes, fields: Mapping[bytes, bytes], before: int) -> Delivery:
    texts = {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, value in fields.items()
        if name != b"body"
    }
    return Delivery(
        token,
        fields.get(b"body", b""),
        texts.get("message_id") or token.decode(),
        texts.get("content_encoding"),
        texts,
        before,
        int(token.partition(b"-")[0]) / 1000,  # https://redis.io/docs/latest/commands/xadd/
    )


def publisher(address: Address, timeout: float) -> StreamPublisher:
    """Return a publisher; it connects when it is first used."""
    return StreamPublisher(address, timeout)


def consumer(address: Address, intake: Intake) -> StreamConsumer:
    """Return a consumer; it connects when it is first used."""
    return StreamConsumer(address, intake)
