"""The contract of every spool: nothing is lost, nothing comes twice, the oldest comes first."""

from __future__ import annotations

import threading

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from posthog_logging.delivery import checks
from posthog_logging.delivery.journal import JournalSpool
from posthog_logging.delivery.spool import RECEIPT, MemorySpool, Spool


def lines_from(first: int, count: int) -> list[bytes]:
    return [b'{"uuid":"%036d"}' % number for number in range(first, first + count)]


def fill(spool: Spool, lines: list[bytes]) -> None:
    """Do as callers and the thread do: admit each line, append what is to wait in memory."""
    items = map(spool.admit, lines)
    spool.append([item for item in items if item is not None and item is not RECEIPT])


def taken(spool: Spool, count: int = 10_000) -> list[bytes]:
    return [one.line for one in spool.take(count, 2**62)]


# What is made for every test of the contract, from an empty folder of its own. A spool that makes
# lines safe by itself (`admit` returns `RECEIPT`) keeps them when it is made again there. A new
# spool needs one line here.
SPOOLS: dict[str, Callable[[Path], Spool]] = {
    "memory": lambda folder: MemorySpool(),
    "journal": lambda folder: JournalSpool(folder, dialect="posthog", host="http://x"),
}


def another(request: Any, folder: Path) -> Spool:
    """Return a second spool of the test's kind on the same folder, as another process has it."""
    return SPOOLS[request.node.callspec.params["spool"]](folder)


@pytest.fixture(name="spool", params=SPOOLS)
def _spool(request: Any, tmp_path: Path) -> Iterator[Spool]:
    spool = SPOOLS[request.param](tmp_path)
    yield spool
    spool.close()


class TestEverySpool:
    """What the sender may rely on, whatever spool it is given."""

    def test_it_is_a_spool(self, spool: Spool) -> None:
        """A spool has every verb of the protocol; what is missing is named."""
        assert spool is checks.spool(spool)
        assert isinstance(spool, Spool)

    def test_it_begins_empty(self, spool: Spool) -> None:
        """Nothing waits in a new spool, and asking for it harms nothing."""
        assert 0 == len(spool)
        assert [] == spool.take(10, 1000)
        assert [] == spool.evict(10)
        spool.ack([])
        spool.append([])

    @pytest.mark.parametrize("count", [1, 10, 2000, 2001, 5500])
    def test_the_oldest_comes_first(self, count: int, spool: Spool) -> None:
        """Lines come out as they were, in order, once each."""
        lines = lines_from(0, count)
        fill(spool, lines)

        found = []
        while len(spool):
            kept = spool.take(700, 2**62)
            spool.ack(kept)
            found += [one.line for one in kept]

        assert lines == found

    def test_order_holds_between_fills(self, spool: Spool) -> None:
        """What comes later stands behind what waits, also where the spool has piled up."""
        expected = lines_from(0, 12_000)
        found = []
        for start in range(0, 12_000, 1500):
            fill(spool, expected[start : start + 1500])
            kept = spool.take(400, 2**62)
            spool.ack(kept)
            found += [one.line for one in kept]

        assert expected == found + taken(spool, 12_000)

    def test_length_is_what_was_not_taken(self, spool: Spool) -> None:
        """`len` counts down as lines are taken, not as they are acknowledged."""
        fill(spool, lines_from(0, 10))
        kept = spool.take(4, 2**62)

        assert 6 == len(spool)
        spool.ack(kept)
        assert 6 == len(spool)

    @pytest.mark.parametrize(
        ("count", "size", "expected"),
        [(3, 2**62, 3), (99, 2**62, 10), (99, 200, 4), (99, 48 * 4, 4), (99, 1, 1), (0, 99, 0)],
    )
    def test_take_is_bounded(self, count: int, size: int, expected: int, spool: Spool) -> None:
        """At most so many lines, at most so many bytes with a comma each, but one at least."""
        fill(spool, lines_from(0, 10))

        assert expected == len(spool.take(count, size))

    def test_any_part_can_be_acknowledged(self, spool: Spool) -> None:
        """A batch may be answered for in pieces, in any order."""
        fill(spool, lines_from(0, 10))
        kept = spool.take(10, 2**62)

        spool.ack(kept[5:])
        spool.ack(kept[:2])
        spool.ack(kept[2:5])

        assert 0 == len(spool)
        assert [] == spool.take(10, 2**62)

    def test_acknowledging_twice_is_once(self, spool: Spool) -> None:
        """What is settled stays settled, and takes nothing else with it."""
        lines = lines_from(0, 10)
        fill(spool, lines)
        kept = spool.take(10, 2**62)

        spool.ack(kept[:5])
        spool.ack(kept[:5])
        spool.rewind()

        assert lines[5:] == taken(spool)

    def test_handed_out_it_is_still_the_spools(self, spool: Spool) -> None:
        """What was handed out and not acknowledged comes again after `rewind`: first, in order."""
        lines = lines_from(0, 20)
        fill(spool, lines[:15])
        first = spool.take(5, 2**62)
        second = spool.take(5, 2**62)
        spool.ack(second[1:3])
        spool.ack(first[4:])
        fill(spool, lines[15:])
        assert 10 == len(spool)

        spool.rewind()

        expected = [*lines[:4], lines[5], *lines[8:]]
        assert len(expected) == len(spool)
        assert expected == taken(spool)
        assert 0 == len(spool)

    def test_rewound_twice(self, spool: Spool) -> None:
        """`rewind` with nothing handed out changes nothing."""
        lines = lines_from(0, 10)
        fill(spool, lines)
        spool.take(10, 2**62)
        spool.rewind()
        spool.take(3, 2**62)
        spool.rewind()
        spool.rewind()

        assert lines == taken(spool)

    def test_rewound_lines_can_be_acknowledged(self, spool: Spool) -> None:
        """After a `rewind` a batch is another, and acknowledged as any."""
        fill(spool, lines_from(0, 10))
        spool.ack(spool.take(10, 2**62)[2:4])
        spool.rewind()
        spool.ack(spool.take(10, 2**62))
        spool.rewind()

        assert (0, (0, 0)) == (len(spool), spool.held)

    def test_each_line_is_admitted_or_held(self, spool: Spool) -> None:
        """`admitted` is what `admit` made safe, ever; `held` what only memory has."""
        fill(spool, lines_from(0, 10))
        assert 10 == spool.admitted + spool.held[0]

        kept = spool.take(6, 2**62)
        assert 10 == spool.admitted + spool.held[0]
        assert spool.held[1] in (0, 10 * 47)

        spool.ack(kept)
        assert spool.held in ((4, 4 * 47), (0, 0))
        assert spool.admitted in (0, 10)

    def test_evicted_lines_are_gone(self, spool: Spool) -> None:
        """What `evict` returns was among the oldest, and is not handed out any more."""
        lines = lines_from(0, 10)
        fill(spool, lines)

        evicted = spool.evict(3)

        assert lines == [*evicted, *taken(spool)]

    def test_what_is_on_its_way_is_not_evicted(self, spool: Spool) -> None:
        """`evict` leaves what was handed out: an answer may come yet."""
        fill(spool, lines_from(0, 10))
        kept = spool.take(7, 2**62)

        assert set(spool.evict(10)) <= set(lines_from(7, 3))
        spool.rewind()
        assert [one.line for one in kept] == taken(spool)[:7]

    def test_forgotten_lines_were_in_memory_only(self, spool: Spool) -> None:
        """`forget` gives up what only memory has, also what was handed out."""
        lines = lines_from(0, 10)
        fill(spool, lines)
        spool.take(4, 2**62)
        safe = spool.admitted

        forgotten = spool.forget()

        assert (lines if not safe else []) == forgotten
        assert (0, 0) == spool.held
        spool.rewind()
        assert (lines if safe else []) == taken(spool)

    def test_closed_and_used_again(self, spool: Spool) -> None:
        """What comes after `close` is taken in as before; nothing that was left is lost."""
        lines = lines_from(0, 20)
        fill(spool, lines[:10])
        spool.ack(spool.take(4, 2**62))
        spool.take(2, 2**62)
        if not spool.admitted:
            spool.rewind()  # memory goes on as it is
        spool.close()
        fill(spool, lines[10:])

        assert 16 == len(spool)
        assert lines[4:] == sorted(taken(spool))
        assert spool.admitted in (0, 20)

    def test_what_is_safe_survives(self, request: Any, spool: Spool, tmp_path: Path) -> None:
        """What `admit` made safe and nobody acknowledged is there for the next spool."""
        lines = lines_from(0, 10)
        fill(spool, lines)
        spool.ack(spool.take(3, 2**62))
        safe = spool.admitted
        spool.close()

        following = another(request, tmp_path)
        following.append([])

        assert (lines[3:] if safe else []) == taken(following)
        assert 0 == following.admitted
        assert (7 if safe else 0) == following.adopted, "it counts in `adopted` what it took over"
        following.close()

    def test_its_own_is_not_adopted(self, spool: Spool) -> None:
        """What it left itself and finds again, after `close`, was counted when it was admitted."""
        fill(spool, lines_from(0, 10))
        spool.close()
        fill(spool, lines_from(10, 1))
        spool.append([])

        assert 0 == spool.adopted

    def test_two_at_once(self, request: Any, spool: Spool, tmp_path: Path) -> None:
        """Two processes may share a place: a line is with one of them only, while both live."""
        other = another(request, tmp_path)
        fill(spool, lines_from(0, 10))
        fill(other, lines_from(10, 10))
        spool.append([])
        other.append([])

        assert lines_from(0, 10) == taken(spool), "it took what another spool holds"
        assert lines_from(10, 10) == taken(other), "it took what another spool holds"
        assert 0 == spool.adopted + other.adopted
        other.close()

    def test_many_threads_admit(self, spool: Spool) -> None:
        """`admit` is called from any thread, while one other takes and acknowledges."""
        items: list[Any] = []

        def admit(first: int) -> None:
            items.extend(map(spool.admit, lines_from(first, 300)))

        callers = [threading.Thread(target=admit, args=(1000 * n,)) for n in range(4)]
        for one in callers:
            one.start()
        found: list[bytes] = []
        while any(one.is_alive() for one in callers):
            kept = spool.take(50, 2**62)
            spool.ack(kept)
            found += [one.line for one in kept]
        for one in callers:
            one.join()
        spool.append([one for one in items if one is not None and one is not RECEIPT])
        found += taken(spool)

        assert sorted(found) == [line for n in range(4) for line in lines_from(1000 * n, 300)]
        assert spool.admitted in (0, 1200)

    def test_the_ledger_adds_up(
        self, request: Any, spool: Spool, tmp_path: Path, make_handler: Any, make_log: Any
    ) -> None:
        """
        Behind a handler: an outage, an end, and another process that delivers what was left.

        Where `waiting` falls below zero the spool hands out what it counts in neither `admitted`
        nor `adopted`; where `flush` does nothing, its `rest` is None though others leave lines.
        """
        away = make_handler(host="http://127.0.0.1:9", spool=spool, shutdown_timeout=0.2)
        log = make_log(away)
        for number in range(7):
            log.info("event %d", number, extra={"distinct_id": "user-1"})
        away.close()
        left = away.counts["waiting"]
        here = make_handler(spool=another(request, tmp_path))
        log.handlers[:] = [here]
        flushed = here.flush(10.0)
        log.info("the last", extra={"distinct_id": "user-1"})
        flushed = flushed and here.flush(10.0)

        assert left == (7 if spool.admitted else 0)
        assert (True, 0) == (flushed, here.counts["waiting"])
        assert left + 1 == here.counts["accepted"] == here.counts["delivered"]

    def test_rest_is_a_time_or_for_ever(self, spool: Spool) -> None:
        """`rest` says for how long nothing needs to be looked after."""
        spool.append([])

        assert spool.rest is None or spool.rest >= 0.0

    def test_a_line_may_hold_anything_but_a_newline(self, spool: Spool) -> None:
        """Lines are bytes of any content and of any length."""
        lines = [b"{}", bytes(range(32, 256)), b"x" * 1_000_000]
        fill(spool, lines)

        assert lines == [one.line for one in spool.take(9, 2**62)]

    def test_renewed_it_has_nothing(self, spool: Spool) -> None:
        """A child's spool begins without what the parent has."""
        fill(spool, lines_from(0, 2500))
        spool.take(10, 2**62)
        spool.renew()

        assert 0 == len(spool)
        assert 0 == spool.admitted
        assert (0, 0) == spool.held
        assert [] == spool.take(10, 2**62)
        fill(spool, lines_from(3000, 3))
        assert set(lines_from(3000, 3)) <= set(taken(spool))  # here the parent is gone, too

    def test_close_twice(self, spool: Spool) -> None:
        """`close` may be called again."""
        spool.close()
        spool.close()


def test_a_pile_is_small() -> None:
    """While the server is away, 60,000 events take a fraction of their size."""
    spool = MemorySpool()
    spool.append(lines_from(0, 500))
    failed = spool.take(500, 2**62)
    for start in range(500, 60_500, 500):
        spool.append(lines_from(start, 500))
    held = [*spool._front, *spool._blocks, *spool._lines]

    assert 500 == len(failed)
    assert 60_000 == len(spool)
    assert sum(map(len, held)) < 60_000 * 47 / 5


def test_a_burst_is_no_pile() -> None:
    """While the server takes all that it is given, nothing is compressed to wait."""
    spool = MemorySpool()
    for start in range(0, 60_000, 500):
        spool.append(lines_from(start, 500))
    assert not spool._blocks


class MemorySpoolMachine(RuleBasedStateMachine):
    """Against a plain list, whatever comes in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.spool = MemorySpool()
        self.spool._BLOCK = 3  # type: ignore[misc]
        self.model: list[bytes] = []
        self.made = 0

    @rule(count=st.integers(0, 20))
    def append(self, count: int) -> None:
        lines = lines_from(self.made, count)
        self.made += count
        fill(self.spool, lines)
        self.model += lines

    @rule(count=st.integers(0, 9), size=st.integers(1, 500))
    def take(self, count: int, size: int) -> None:
        fits = max(1, size // 48)
        expected = self.model[: min(count, fits)]
        assert expected == [one.line for one in self.spool.take(count, size)]
        del self.model[: len(expected)]

    @precondition(lambda self: self.model)
    @rule(count=st.integers(0, 9))
    def evict(self, count: int) -> None:
        expected = self.model[:count]
        assert expected == self.spool.evict(count)
        del self.model[:count]

    @invariant()
    def length(self) -> None:
        assert len(self.model) == len(self.spool)


TestMemorySpool = MemorySpoolMachine.TestCase
