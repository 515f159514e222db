"""The contract of every dialect that has a name: lines, limits, requests, and hostile answers."""

from __future__ import annotations

import contextlib
import json
import uuid

from typing import Any
from urllib.parse import urlsplit

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st

from posthog_logging.events.message import Message, Refused
from posthog_logging.inspector.rules import find_judge
from posthog_logging.wire import (
    DIALECTS,
    Batch,
    Dialect,
    Endpoint,
    Request,
    Response,
    find_dialect,
)


KEY = "key_never_in_a_line"
NOW = "2024-01-02T03:04:05.678000Z"
ENDPOINT = Endpoint("https://h.test", KEY, compression=None)


def message(number: int = 1, **properties: Any) -> Message:
    name = str(uuid.UUID(int=number, version=4))
    return Message("movie played", "user-1", properties, name, NOW)


def request_of(dialect: Dialect, *lines: bytes) -> Request:
    return dialect.request(Batch(lines, "request-1", NOW), ENDPOINT, NOW)


@pytest.mark.parametrize("name", DIALECTS)
class TestEveryDialect:
    """What delivery may rely on; a dialect that is in `DIALECTS` is held to it."""

    def test_it_is_a_dialect(self, name: str) -> None:
        """It has all of the protocol, and a judge in the inspector for where it sends to."""
        dialect = find_dialect(name)
        path = urlsplit(request_of(dialect, dialect.line(message())).url).path

        assert isinstance(dialect, Dialect)
        assert find_judge(path), f"name {path} in ROUTES of inspector/rules.py"

    def test_a_line_is_one_line_of_json(self, name: str) -> None:
        """Lines stand one below another in a spool, so none has a line end, nor the key."""
        line = find_dialect(name).line(message(text="a\nb\r\u2028c", key="x"))

        assert b"\n" not in line
        assert isinstance(json.loads(line), dict)
        assert KEY.encode() not in line

    def test_a_line_names_its_event(self, name: str) -> None:
        """Results are about ids: each line has its own."""
        dialect = find_dialect(name)
        messages = [message(number) for number in range(1, 4)]

        assert [one.uuid for one in messages] == [
            dialect.uuid_of(dialect.line(one)) for one in messages
        ]

    def test_a_large_event_is_cut_or_refused(self, name: str) -> None:
        """No line is longer than the server takes."""
        dialect = find_dialect(name)
        most = dialect.limits.event_bytes
        wide = message(**{f"p{n}": "x" * (most // 50) for n in range(100)})
        try:
            size = len(dialect.line(wide))
        except Refused:
            size = 0

        assert size <= most

    def test_what_is_sent_can_be_read(self, name: str) -> None:
        """The request of some lines has their events again, in order."""
        dialect = find_dialect(name)
        sent = [message(number, movie_id=number) for number in range(1, 4)]
        request = request_of(dialect, *map(dialect.line, sent))

        assert [(one.uuid, one.event, one.distinct_id) for one in sent] == [
            (one.uuid, one.event, one.distinct_id) for one in dialect.decode(request)
        ]

    def test_a_second_attempt_is_the_same(self, name: str) -> None:
        """The same lines make the same events, whatever the attempt and the time are."""
        dialect = find_dialect(name)
        batch = Batch([dialect.line(message())], "request-1", NOW)
        again = Batch(batch.lines, batch.request_id, batch.created_at, attempt=2)
        first, second = (dialect.request(one, ENDPOINT, NOW) for one in (batch, again))

        assert first.url == second.url
        assert dialect.decode(first) == dialect.decode(second)

    def test_the_key_is_in_no_repr(self, name: str) -> None:
        """What is logged of an endpoint shows neither the key nor headers."""
        assert KEY not in repr((find_dialect(name), ENDPOINT))

    @settings(max_examples=40)
    @given(
        status=st.sampled_from([200, 202, 204, 207]),
        body=st.binary(max_size=60)
        | st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from("results errors Errors ok Success status code id".split()),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    )
    def test_no_answer_raises(self, name: str, status: int, body: bytes) -> None:
        """Whatever a server answers with a 2xx is read, or said to be unreadable."""
        find_dialect(name).results(Response(status, body=body))

    @settings(max_examples=40)
    @given(body=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
    def test_what_is_no_request_is_a_value_error(self, name: str, body: bytes) -> None:
        """`decode` is for what comes from outside: it raises ``ValueError``, and nothing else."""
        with contextlib.suppress(ValueError):
            find_dialect(name).decode(Request("https://h.test/v1/batch", {}, body))
