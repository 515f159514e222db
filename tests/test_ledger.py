"""The counts add up at any time, and each trouble is told once until it is over."""

from __future__ import annotations

import gc
import sys
import threading

from collections.abc import Mapping

import pytest

from alarms import alarms, needs_alarms

from posthog_logging.delivery.ledger import NOT_LOSSES, Ledger
from posthog_logging.delivery.reasons import sentence


def assert_adds_up(counts: Mapping[str, int]) -> None:
    lost = sum(count for reason, count in counts.items() if reason not in NOT_LOSSES)

    assert counts["accepted"] == counts["delivered"] + counts["waiting"] + lost
    assert all(count >= 0 for count in counts.values()), counts


def test_a_ledger_begins_at_nothing() -> None:
    """The four keys that are no loss are always there."""
    assert {"accepted": 0, "delivered": 0, "waiting": 0, "retried": 0} == Ledger().counts


def test_each_event_is_accepted_and_then_settled() -> None:
    """Accepted ones wait until they are delivered or lost; a retry is no end."""
    ledger = Ledger()
    for _ in range(10):
        ledger.drained += 1
    ledger.add("delivered", 4)
    ledger.add("retried", 3)
    ledger.lose("queue_full", 2)
    ledger.lose("queue_full")

    assert {
        "accepted": 10,
        "delivered": 4,
        "waiting": 3,
        "retried": 3,
        "queue_full": 3,
    } == ledger.counts


def test_looking_changes_nothing() -> None:
    """Each look gives the same counts, in a dict that belongs to the one who looked."""
    ledger = Ledger()
    ledger.drained += 1
    first = ledger.counts
    first["accepted"] = 7  # type: ignore[index]

    assert [1, 1, 1] == [ledger.counts["accepted"] for _ in range(3)]


def test_adopted_events_are_accepted_here() -> None:
    """What another process had accepted is this one's to deliver, and is no loss."""
    ledger = Ledger()
    ledger.drained += 1
    ledger.adopted = lambda: 3
    ledger.add("delivered", 2)
    counts = ledger.counts

    assert_adds_up(counts)
    assert (4, 3, 2) == (counts["accepted"], counts["adopted"], counts["waiting"])


def test_nothing_is_counted_for_none() -> None:
    """A count of 0 leaves no key behind."""
    ledger = Ledger()
    ledger.add("queue_full", 0)

    assert "queue_full" not in ledger.counts


def test_counts_add_up_while_eight_threads_count() -> None:
    """No count is lost or doubled, and at every look the sum is right."""
    ledger, each = Ledger(), 5_000
    ready, done = threading.Barrier(9), threading.Event()

    def hammer(number: int) -> None:
        ready.wait()
        for turn in range(each):
            ledger.drained += 1
            if turn % 3 == 0:
                ledger.add("delivered")
            elif turn % 3 == 1:
                ledger.add(f"reason_{number}")
            ledger.add("retried")

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
    looks = []

    def look() -> None:
        ready.wait()
        while not done.is_set():
            looks.append(ledger.counts)

    watcher = threading.Thread(target=look)
    for thread in [*threads, watcher]:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()

    for counts in looks:
        assert_adds_up(counts)
    found = ledger.counts
    assert_adds_up(found)
    assert (8 * each, 8 * each) == (found["accepted"], found["retried"])
    assert 8 * -(-each // 3) == found["delivered"]
    assert [(each + 1) // 3] * 8 == [found[f"reason_{number}"] for number in range(8)]


@needs_alarms
def test_a_signal_handler_may_count() -> None:
    """A signal that interrupts the ledger, wherever, may use it: no dead-lock, no loss."""
    ledger, signals, mine = Ledger(), 0, 0

    def interrupt(number: int, frame: object) -> None:
        nonlocal signals
        signals += 1
        ledger.drained += 1
        ledger.lose("from_a_signal")
        assert_adds_up(ledger.counts)

    with alarms(interrupt, 0.0005):
        while signals < 200:
            ledger.drained += 1
            ledger.add("delivered")
            mine += 1
            assert_adds_up(ledger.counts)

    counts = ledger.counts
    assert (signals, mine, 0) == (counts["from_a_signal"], counts["delivered"], counts["waiting"])


def test_a_finaliser_may_count() -> None:
    """An object that counts in ``__del__``, while the garbage is collected, disturbs nothing."""
    ledger, threshold = Ledger(), gc.get_threshold()

    class Counting:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            ledger.drained += 1
            ledger.lose("from_a_finaliser")

    gc.set_threshold(5)
    try:
        for _ in range(3_000):
            Counting()
            ledger.drained += 1
            ledger.add("delivered")
            ledger.counts
    finally:
        gc.set_threshold(*threshold)
    gc.collect()

    counts = ledger.counts
    assert (3_000, 3_000, 0) == (
        counts["from_a_finaliser"],
        counts["delivered"],
        counts["waiting"],
    )


def test_a_trouble_is_told_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    """One warning a reason, by its size; after `recovered` the next one is told again."""
    ledger = Ledger()
    for _ in range(6):
        ledger.drained += 1
    ledger.lose("queue_full", 2)
    ledger.lose("queue_full", 1)
    ledger.lose("oversized", 1, "played, 9 bytes")
    ledger.recovered()
    ledger.lose("queue_full", 2)

    expected = [
        sentence("queue_full", 2),
        sentence("oversized", 1, "played, 9 bytes"),
        sentence("queue_full", 2),
    ]
    end = " Logged once; further losses are counted."
    assert [f"{text}{end}" for text in expected] == caplog.messages


def test_of_many_threads_one_tells(caplog: pytest.LogCaptureFixture) -> None:
    """Eight threads with the same trouble at the same time make one line each time."""
    ledger, rounds = Ledger(), 50
    ready = threading.Barrier(8)

    def warn() -> None:
        for number in range(rounds):
            ready.wait()
            ledger.warn(f"topic {number}", "trouble")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=warn) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert rounds == len(caplog.records)


def test_a_reset_begins_anew() -> None:
    """After `reset`, as in a forked child, nothing counts that was before."""
    ledger = Ledger()
    for _ in range(3):
        ledger.drained += 1
    ledger.lose("queue_full")
    ledger.give_up(2)
    ledger.reset()

    assert Ledger().counts == ledger.counts
    ledger.drained += 1
    assert 1 == ledger.counts["waiting"]


def test_giving_up_is_a_view(caplog: pytest.LogCaptureFixture) -> None:
    """What waits is called lost, and told, until it is known what became of it."""
    ledger = Ledger()
    for _ in range(5):
        ledger.drained += 1
    ledger.add("delivered", 2)
    ledger.give_up(2)  # one is on disk
    assert (1, 2) == (ledger.counts["waiting"], ledger.counts["shutdown"])
    ledger.add("delivered", 2)  # an answer that came late
    assert (0, 1) == (ledger.counts["waiting"], ledger.counts["shutdown"])
    ledger.add("shutdown", 1)
    ledger.give_up(0)

    assert {
        "accepted": 5,
        "delivered": 4,
        "waiting": 0,
        "retried": 0,
        "shutdown": 1,
    } == ledger.counts
    assert 1 == len(caplog.records)
