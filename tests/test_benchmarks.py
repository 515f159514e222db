"""The benchmarks: the sink counts what arrived, and tables say what was measured."""

from __future__ import annotations

import gzip
import json
import re

from pathlib import Path

import pytest

from benchmarks import parts
from benchmarks.__main__ import main
from benchmarks.picture import svg
from benchmarks.report import TARGETS, markdown, table
from benchmarks.runner import Plan, Results, run
from benchmarks.scenarios import SCENARIOS
from benchmarks.sink import Request, Tally, answer_to, take


pytestmark = pytest.mark.slow


ID = "01890b5c-2a3b-7c4d-8e5f-0123456789ab"


@pytest.fixture(scope="module")
def results() -> Results:
    """Two contenders, two scenarios, few events, in real processes."""
    return run(
        Plan(
            scenarios=("burst", "close_up"),
            contenders=("null", "ours", "naive"),
            rounds=1,
            scale=0.005,
        )
    )


@pytest.mark.parametrize("contender", ["ours", "naive"])
def test_every_event_is_counted_once(results: Results, contender: str) -> None:
    """What a contender sent is what the sink has counted: each event, none twice."""
    [figures] = results.rounds["burst", contender]
    found = [figures[name] for name in ("delivered", "lost", "duplicates", "repeated_ids")]

    assert [500, 0, 0, 0] == found


def test_the_parts_of_a_log_call() -> None:
    """Each part is timed, those inside another are marked, and they take less than the whole."""
    rows = [row.split(" | ") for row in parts.table().splitlines()[2:]]
    costs = {row[0].lstrip("| "): float(row[2]) for row in rows}
    whole = next(cost for name, cost in costs.items() if name.startswith("`handle`"))
    inner = [cost for name, cost in costs.items() if name.startswith("— ") and "— —" not in name]

    assert 2 == len(inner)
    assert 0 < sum(inner) < 1.5 * whole


def test_calls_are_timed(results: Results) -> None:
    """Percentiles are in order, and the CPU of what was delivered is known."""
    [figures] = results.rounds["burst", "ours"]

    assert 0 < figures["p50"] <= figures["p99"] <= figures["p99.9"]
    assert 0 < figures["cpu_100k"]


def test_closing_delivers(results: Results) -> None:
    """With the server up, `close` has delivered everything when it returns."""
    [figures] = results.rounds["close_up", "ours"]

    assert (1000, 0) == (figures["delivered"], figures["lost"])


def test_tables_have_their_rows(results: Results) -> None:
    """Each contender that was measured has a row with a cell for each column; no other has one."""
    lines = table(results, SCENARIOS["burst"]).splitlines()
    titles = [line.split("|")[1].strip() for line in lines[2:]]

    assert [
        "F: logger.info, NullHandler",
        "posthog_logging",
        "QueueHandler + QueueListener + requests",
    ] == titles
    assert 1 == len({line.count("|") for line in lines})


def test_the_report_is_made_of_targets_tables_and_bars(results: Results) -> None:
    """The Markdown names the targets that were measured, and the picture has a bar a figure."""
    report = markdown(results, "the command")

    assert "| caller's p50 / F, plain | ≤ 1.8 |" in report
    assert "[fast]" not in report
    assert "## A burst of 500 from one thread" in report
    assert 3 + 2 == len(re.findall("<rect ", svg(results)))


def test_a_raw_file_says_it_all(
    results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report can be made again from the figures of a run, with nothing played."""
    raw = tmp_path / "raw.json"
    raw.write_text(results.to_json())

    main(["--from", str(raw)])

    assert table(results, SCENARIOS["burst"]) in capsys.readouterr().out


def test_a_target_is_met_at_its_limit() -> None:
    """At the limit is good enough; beyond it is not."""
    at_most = next(t for t in TARGETS if not t.at_least)
    at_least = next(t for t in TARGETS if t.at_least)

    assert [True, False] == [at_most.met(at_most.limit), at_most.met(at_most.limit + 0.1)]
    assert [True, False] == [at_least.met(at_least.limit), at_least.met(at_least.limit - 0.1)]


HEAD = b"POST /batch/ HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (HEAD, None),
        (HEAD + b"Content-Length: 3\r\n\r\nab", None),
        (HEAD + b"Content-Length: 3\r\n\r\nabc", b"abc"),
        (HEAD + b"content-length:3\r\n\r\nabcPOST /next", b"abc"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n", b"abc"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n", None),
        (HEAD + b"\r\n", b""),
    ],
    ids="no-head short whole pipelined chunked unfinished empty".split(),
)
def test_requests_are_cut_from_the_stream(stream: bytes, expected: bytes | None) -> None:
    """A request is taken when all of it is there, by length or by chunks; the rest stays."""
    buffer = bytearray(stream)

    request = take(buffer)

    assert expected == (None if request is None else request.body)
    left = stream if request is None else stream[stream.find(b"POST", 1) :] * (b"next" in stream)
    assert left == bytes(buffer)


def otlp(number: bytes) -> bytes:
    """Return a KeyValue of OpenTelemetry's with an integer, as it stands in a body."""
    return b"\n\x03seq\x12" + bytes([1 + len(number)]) + b"\x18" + number


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/batch/", b'[{"seq":1},{"seq": 2},{"seq":2}]', (2, 1)),
        ("/batch/", b'[{"seq":-1},{"seq":0}]', (1, 0)),
        ("/api/1/envelope/", b'{"seq":{"value":7,"type":"integer"}}', (1, 0)),
        ("/v1/logs", otlp(b"\x05") + otlp(b"\x96\x01") + otlp(b"\x96\x01"), (2, 1)),
        ("/v1/logs", otlp(b"\xff" * 9 + b"\x01"), (0, 0)),
    ],
    ids="json warm-up sentry otlp otlp-warm-up".split(),
)
def test_events_are_counted_in_each_protocol(
    path: str, body: bytes, expected: tuple[int, int]
) -> None:
    """Each event counts once, what comes again is a duplicate, the warm-up counts as nothing."""
    tally = Tally()
    tally.add(Request(path, {"content-encoding": "gzip"}, gzip.compress(body)), kept=True)

    figures = tally.figures()

    assert expected == (figures["delivered"], figures["duplicates"])


def test_a_refused_request_delivers_nothing() -> None:
    """A request that was answered 503 is a request, but its events have not arrived."""
    tally = Tally()
    tally.add(Request("/batch/", {}, b'[{"seq":1}]'), kept=False)

    figures = tally.figures()

    assert (1, 0) == (figures["requests"], figures["delivered"])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/batch/", {"status": 1}),
        ("/i/v1/analytics/events", {"results": {ID: {"result": "ok"}}}),
        ("/v1/batch", {"success": True}),
        ("/v1/logs", {}),
        ("/api/1/envelope/", {}),
    ],
)
def test_each_protocol_has_its_answer(path: str, expected: object) -> None:
    """The sink answers as the real servers do; V1's answer names each event."""
    request = Request(path, {}, json.dumps([{"uuid": ID}]).encode())

    assert expected == json.loads(answer_to(request))
