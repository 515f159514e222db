"""The journal: what is on the disk, who may have it, and what becomes of it when things break."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from posthog_logging.delivery.journal import JournalSpool, segments_in
from posthog_logging.delivery.spool import RECEIPT


ALL = 2**62
HOST = "http://x"


def lines_from(first: int, count: int, size: int = 0) -> list[bytes]:
    return [
        b'{"uuid":"%036d","x":"%b"}' % (number, b"x" * size)
        for number in range(first, first + count)
    ]


class Told:
    """What a journal says of itself."""

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.texts: list[str] = []
        self.lost: list[tuple[str, int]] = []

    def warn(self, topic: str, text: str) -> None:
        self.topics.append(topic)
        self.texts.append(text)

    def lose(self, reason: str, count: int) -> None:
        self.lost.append((reason, count))

    @property
    def losses(self) -> int:
        return sum(count for _, count in self.lost)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def make(folder: Path, told: Told) -> Iterator[Callable[..., JournalSpool]]:
    """A maker of journals on one folder, all closed in the end."""
    made = []

    def make_one(**options: Any) -> JournalSpool:
        made.append(
            JournalSpool(
                options.pop("path", folder),
                dialect=options.pop("dialect", "posthog"),
                host=options.pop("host", HOST),
                warn=told.warn,
                lose=told.lose,
                refuse=lambda reason: told.lose(reason, 1),
                **options,
            )
        )
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def take_all(spool: JournalSpool, count: int = 700) -> list[bytes]:
    """Look for orphans, and take and acknowledge all there is."""
    spool.append([])
    taken = []
    while kept := spool.take(count, ALL):
        spool.ack(kept)
        taken += [one.line for one in kept]
    return taken


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in files(folder))


def left_behind(folder: Path, lines: list[bytes], **options: Any) -> Path:
    """Write *lines* as a process does that ends without sending; return its segment."""
    before = set(files(folder))
    spool = JournalSpool(folder, dialect="posthog", host=HOST, **options)
    for line in lines:
        assert spool.admit(line) is RECEIPT
    spool.close()
    (path,) = set(files(folder)) - before
    return path


# What is on the disk


def test_a_line_is_on_disk_when_admit_returns(folder: Path, make: Any) -> None:
    """Whoever reads the file finds a header and the line, without a flush of any kind."""
    spool = make()
    assert spool.admit(b'{"uuid":"1"}') is RECEIPT

    (path,) = files(folder)
    header, line, *_ = path.read_bytes().split(b"\n")
    assert b'{"uuid":"1"}' == line
    expected = {"posthog_logging": 1, "dialect": "posthog", "host": HOST, "acked": 0}
    assert expected == json.loads(header)


def test_it_is_private(folder: Path, make: Any) -> None:
    """Nobody else may look into a spool, whatever the umask."""
    before = os.umask(0)
    try:
        make().admit(b"{}")
    finally:
        os.umask(before)

    (path,) = files(folder)
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_what_is_settled_is_deleted(folder: Path, make: Any) -> None:
    """A process that ends with nothing left leaves nothing."""
    spool = make()
    for line in lines_from(0, 100):
        spool.admit(line)
    take_all(spool)
    spool.close()

    assert [] == files(folder)


def test_a_segment_is_cut_to_what_it_holds(folder: Path, make: Any) -> None:
    """The first segment of a process is small; what is left behind takes what it needs."""
    spool = make()
    spool.admit(b'{"uuid":"1"}')
    assert 200 < size_of(folder) <= 256 * 1024
    spool.close()

    assert size_of(folder) < 200


def test_it_turns_over(folder: Path, make: Any) -> None:
    """A full segment is followed by the next; those that are done are deleted at once."""
    spool = make(max_bytes=80_000)  # 10,000 a segment
    lines = lines_from(0, 100, 500)
    most = 0
    for line in lines:
        spool.admit(line)
        most = max(most, len(files(folder)))

    assert 4 < most
    assert lines == take_all(spool)
    assert len(files(folder)) <= 2  # the active one and the next


def test_a_line_larger_than_a_segment(folder: Path, make: Any) -> None:
    """It gets a segment of its own size."""
    spool = make(max_bytes=80_000_000)
    lines = [*lines_from(0, 1), *lines_from(1, 1, 12_000_000), *lines_from(2, 1)]

    assert [RECEIPT] * 3 == [spool.admit(line) for line in lines]
    assert lines == take_all(spool)


@pytest.mark.parametrize("fsync", ["never", "interval", "always"])
def test_fsync(fsync: str, folder: Path, make: Any) -> None:
    """With every way of forcing lines to the disk, each is there, also across segments."""
    spool = make(fsync=fsync, max_bytes=80_000)
    lines = lines_from(0, 50, 500)
    for line in lines:
        assert spool.admit(line) is RECEIPT
        spool.append([RECEIPT])

    assert lines == take_all(spool)


# Re-opening


def test_it_survives_its_process(folder: Path, make: Any, told: Told) -> None:
    """The next one finds all lines, in order, and says how many."""
    lines = lines_from(0, 3000)
    left_behind(folder, lines[:1000])
    left_behind(folder, lines[1000:2000])
    left_behind(folder, lines[2000:])
    spool = make()

    assert lines == take_all(spool)
    assert 3000 == spool.adopted
    assert [] == told.texts
    assert [] == files(folder)


@pytest.mark.parametrize("adopted", [False, True], ids=["its own", "an orphan"])
def test_acknowledged_lines_do_not_come_again(adopted: bool, folder: Path, make: Any) -> None:
    """A restart begins behind the last line up to which all are settled."""
    lines = lines_from(0, 10)
    if adopted:
        left_behind(folder, lines)
        spool = make()
        spool.append([])
    else:
        spool = make()
        for line in lines:
            spool.admit(line)
    kept = spool.take(8, ALL)
    spool.ack(kept[:3])
    spool.ack(kept[5:])  # waits for 3 and 4
    spool.close()

    assert lines[3:] == take_all(make())


def test_acknowledged_before_a_kill(folder: Path, make: Any) -> None:
    """What was acknowledged is on disk at once: a kill that follows does not send it again."""
    program = """
import os, sys
from posthog_logging.delivery.journal import JournalSpool
spool = JournalSpool(sys.argv[1], dialect="posthog", host="http://x")
for number in range(10):
    spool.admit(b'{"uuid":"%d"}' % number)
spool.ack(spool.take(4, 1000))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", program, str(folder)], timeout=20, check=False)

    assert [b'{"uuid":"%d"}' % number for number in range(4, 10)] == take_all(make())


def test_no_two_have_the_same(folder: Path, make: Any) -> None:
    """Of two spools on one folder, in one process too, each has its own lines and no other's."""
    left_behind(folder, lines_from(0, 10))
    first, second = make(), make()
    for spool, start in ((first, 10), (second, 20)):
        for line in lines_from(start, 10):
            spool.admit(line)

    found = [take_all(first), take_all(second)]

    assert [lines_from(0, 20), lines_from(20, 10)] == found


def test_another_destination_is_left_alone(folder: Path, make: Any, told: Told) -> None:
    """Lines for another host or in another dialect wait for a handler of that kind."""
    left_behind(folder, lines_from(0, 10))

    assert [] == take_all(make(host="http://y"))
    assert [] == take_all(make(dialect="segment"))
    assert 2 == len(told.texts)
    assert "another host or dialect" in told.texts[0]
    assert lines_from(0, 10) == take_all(make())


CONTENTS = {
    "empty": b"",
    "zeros": b"\0" * 5000,
    "text": b"hello\nworld\n",
    "no line": b"x" * 5000,
    "a number": b"7\n{}\n",
    "another's": b'{"posthog_logging":2}\n{"uuid":"1"}\n',
    "a header without its end": b'{"posthog_logging":1,"dialect":"posthog","host":"http://x"}\n{}\n',
    "bytes": bytes(range(256)) * 300,
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_foreign_files(content: bytes, folder: Path, make: Any, told: Told) -> None:
    """What is no segment stays as it is and is told of; all else works."""
    left_behind(folder, lines_from(0, 5))
    foreign = folder / "1-1-1.ndjson"
    foreign.write_bytes(content)
    (folder / "readme.txt").write_text("mine")
    spool = make()

    assert 1 == len(segments_in(folder))
    assert lines_from(0, 5) == take_all(spool)
    assert content == foreign.read_bytes()
    (text,) = told.texts
    assert text.startswith("spool file 1-1-1.ndjson is no segment of a spool; left alone. To do: ")


def test_odd_files(folder: Path, make: Any, told: Told) -> None:
    """Neither a folder nor a pipe nor a link to nowhere with a segment's name does harm."""
    left_behind(folder, lines_from(0, 5))
    (folder / "1-1-1.ndjson").mkdir()
    os.mkfifo(folder / "1-1-2.ndjson")
    (folder / "1-1-3.ndjson").symlink_to(folder / "nowhere")
    spool = make()

    assert 1 == len(segments_in(folder))
    assert lines_from(0, 5) == take_all(spool)
    assert 2 == len(told.texts)  # a link to nowhere is a file that is gone


def test_the_mark_of_a_header_may_be_anything(folder: Path, make: Any) -> None:
    """A mark that points into a line, before the first or behind the last counts for nothing."""
    lines = lines_from(0, 5)
    path = left_behind(folder, lines)
    at = path.read_bytes().index(b'"acked":') + 8
    for number in (b"null", b"true", b"1.5", b'"x"', b"[]", b"7", b"99999", b"-1", b"130"):
        content = bytearray(path.read_bytes())
        content[at : at + 12] = number.rjust(12)
        copy = folder / "1-1-1.ndjson"
        copy.write_bytes(content)
        path.unlink(missing_ok=True)

        spool = make()
        assert lines == take_all(spool), number
        spool.close()
        path.write_bytes(content)


def test_broken_lines_are_skipped(folder: Path, make: Any, told: Told) -> None:
    """Where somebody has spoiled lines of a dead process, the others come, and the loss counts."""
    lines = lines_from(0, 6)
    path = left_behind(folder, lines)
    content = path.read_bytes().replace(lines[1], b"\xff" * len(lines[1]))
    path.write_bytes(content.replace(lines[4], b"x" * len(lines[4])))
    spool = make()

    assert [lines[0], lines[2], lines[3], lines[5]] == take_all(spool)
    assert [("broken", 2)] == told.lost
    assert 6 == spool.adopted
    assert 0 == len(spool)
    assert [path.with_suffix(".damaged")] == files(folder)


def test_nothing_but_broken_lines(folder: Path, make: Any, told: Told) -> None:
    """A segment in which nothing is whole is kept for people to look at."""
    path = left_behind(folder, lines_from(0, 3))
    header = path.read_bytes().split(b"\n")[0]
    path.write_bytes(header + b"\nx\ny\n\xff\n")

    assert [] == take_all(make())
    assert 3 == told.losses
    assert [path.with_suffix(".damaged")] == files(folder)


def test_half_made_segments_are_cleared_away(folder: Path, make: Any, told: Told) -> None:
    """What was killed while it began a segment has left a file without a name; an old one goes."""
    folder.mkdir()
    old, young = folder / "1-1-1.new", folder / "1-1-2.new"
    old.write_bytes(b"")
    young.write_bytes(b"")
    os.utime(old, (0, 0))
    make().append([])

    assert [young] == files(folder)
    assert [] == told.texts


# Torn


def _content() -> tuple[bytes, list[bytes]]:
    lines = [b'{"uuid":"%d","x":"%b"}' % (number, b"\xc3\xa9" * number) for number in range(6)]
    header = b'{"posthog_logging":1,"dialect":"posthog","host":"http://x","acked":           0}\n'
    return header + b"".join(line + b"\n" for line in lines), lines


CONTENT, LINES = _content()
HEADER = CONTENT.index(b"\n") + 1


@pytest.mark.parametrize("rest", [b"", b"\0" * 9000], ids=["cut", "zeros"])
def test_torn_at_every_byte(rest: bytes, folder: Path, make: Any) -> None:
    """Wherever the writing ended, every line before is there, and nothing else."""
    folder.mkdir()
    for stop in range(HEADER, len(CONTENT) + 1):
        (folder / "1-1-1.ndjson").write_bytes(CONTENT[:stop] + rest)
        whole = CONTENT[HEADER:stop].count(b"\n")
        spool = make()
        assert LINES[:whole] == take_all(spool), stop
        spool.close()

    assert [] == files(folder)


def test_a_header_torn_at_every_byte(folder: Path, make: Any) -> None:
    """A file that ends in its header holds no line, and is left alone or deleted."""
    folder.mkdir()
    for stop in range(HEADER):
        (folder / "1-1-1.ndjson").write_bytes(CONTENT[:stop])
        assert [] == take_all(make())


@given(st.data())
@settings(max_examples=150)
def test_a_line_torn_in_any_order(tmp_path_factory: Any, data: Any) -> None:
    """The bytes of a last line need not come in order: one that misses some is not handed out."""
    folder = tmp_path_factory.mktemp("torn")
    written = data.draw(st.integers(1, len(LINES)))
    start = HEADER + sum(len(line) + 1 for line in LINES[: written - 1])
    stop = start + len(LINES[written - 1]) + 1
    missing = data.draw(st.sets(st.integers(start, stop - 1), min_size=1))
    content = bytearray(CONTENT[:stop].ljust(9000, b"\0"))
    for index in missing:
        content[index] = 0
    (folder / "1-1-1.ndjson").write_bytes(content)
    spool = JournalSpool(folder, dialect="posthog", host=HOST)

    assert LINES[: written - 1] == take_all(spool)


# Bounds


@pytest.mark.parametrize("drop_oldest", [False, True], ids=["newest", "oldest"])
@pytest.mark.parametrize("max_bytes", [1, 1000, 20_000, 100_000])
def test_bytes_are_bounded(
    max_bytes: int, drop_oldest: bool, folder: Path, make: Any, told: Told
) -> None:
    """The folder never holds more than it may, and each line is there or counted as lost."""
    spool = make(max_bytes=max_bytes, drop_oldest=drop_oldest)
    lines = lines_from(0, 1000, 100)
    for line in lines:
        assert spool.admit(line) in (RECEIPT, None)
        assert size_of(folder) <= max_bytes

    left = take_all(spool)
    assert {"spool_full"} == {reason for reason, _ in told.lost}
    assert 1000 == len(left) + told.losses
    assert left == (lines[-len(left) :] if drop_oldest and left else lines[: len(left)])
    assert max_bytes < 1001 or len(left) * 150 > max_bytes / 2


def test_room_comes_back(make: Any, told: Told) -> None:
    """What is settled makes room."""
    spool = make(max_bytes=20_000)
    for start in range(0, 1000, 50):
        for line in lines_from(start, 50, 100):
            assert spool.admit(line) is RECEIPT
        assert 50 == len(take_all(spool))

    assert [] == told.lost


def test_what_is_under_way_is_not_lost(make: Any, told: Told) -> None:
    """Lines that give way while a request carries them are the request's: counted once."""
    spool = make(max_bytes=20_000, drop_oldest=True)
    lines = lines_from(0, 500, 100)
    for line in lines[:100]:
        spool.admit(line)
    kept = spool.take(20, ALL)
    for line in lines[100:]:
        spool.admit(line)
    spool.ack(kept[:10])
    spool.ack(kept[10:])

    left = take_all(spool)
    assert 500 == len(kept) + len(left) + told.losses
    assert lines[-len(left) :] == left


def test_adopted_lines_count(folder: Path, make: Any, told: Told) -> None:
    """What others left is part of the bound."""
    left_behind(folder, lines_from(0, 100, 100))
    spool = make(max_bytes=size_of(folder) + 50)
    spool.append([])

    assert spool.admit(b"{}") is None
    assert [("spool_full", 1)] == told.lost
    take_all(spool)
    assert spool.admit(b"{}") is RECEIPT


# A disk in trouble


def test_no_folder_can_be_made(tmp_path: Path, make: Any, told: Told) -> None:
    """Where there can be no spool, memory it is: told once, nothing raised, nothing lost."""
    (tmp_path / "file").write_text("")
    spool = make(path=tmp_path / "file" / "spool")
    lines = lines_from(0, 10)
    items = [spool.admit(line) for line in lines]
    spool.append(items)

    assert lines == items
    assert lines == [one.line for one in spool.take(99, ALL)]
    assert 1 == len(told.texts)
    assert "no spool (Not a directory); events wait in memory" == told.texts[0]
    assert [] == told.lost


READ_ONLY = """
import os, sys
from posthog_logging.delivery.journal import JournalSpool
if os.getuid() == 0:  # to root, nothing is read-only
    os.setgid(65534)
    os.setuid(65534)
told = []
spool = JournalSpool(
    sys.argv[1], dialect="posthog", host="http://x", warn=lambda topic, text: told.append(text)
)
spool.append([])
print(spool.admit(b"{}"), told)
"""


def test_a_folder_that_is_read_only(run_script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its files nor new ones can be had: told, and memory it is."""
    for name in [name for name in os.environ if name.startswith("COVERAGE")]:
        monkeypatch.delenv(name)  # nobody may write its file either
    with tempfile.TemporaryDirectory() as name:  # below `tmp_path`, nobody else may look
        folder = Path(name)
        path = left_behind(folder, lines_from(0, 5))
        path.chmod(0o400)
        folder.chmod(0o555)
        done = run_script(READ_ONLY, name)
        left = files(folder)
        folder.chmod(0o755)

    assert "" == done.stderr
    assert f"b'{{}}' ['spool file {path.name} cannot be opened (Permission denied)" in done.stdout
    assert "no spool (Permission denied); events wait in memory" in done.stdout
    assert [path] == left


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("only root may mount")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk(small_disk: Path, make: Any, told: Told) -> None:
    """A disk that is full is told of once; what came before is on it, what comes is in memory."""
    spool = make(path=small_disk / "spool")
    lines = lines_from(0, 12_000, 1000)
    items = [spool.admit(line) for line in lines]
    spool.append(items)

    on_disk = items.count(RECEIPT)
    assert 6000 < on_disk < 9000
    assert lines[on_disk:] == items[on_disk:]
    assert ["no spool (No space left on device); events wait in memory"] == told.texts
    assert lines == take_all(spool)
    assert [] == told.lost


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_a_disk_that_reserves_nothing(
    number: int, make: Any, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the C library does not help out, as musl does not, a segment is written full."""

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    spool = make()

    assert spool.admit(b"{}") is RECEIPT
    assert [b"{}"] == take_all(spool)
    assert [] == told.texts


def test_the_folder_is_deleted(folder: Path, make: Any, told: Told) -> None:
    """What was written is still sent, and soon a new segment in a new folder takes what comes."""
    spool = make()
    lines = lines_from(0, 30)
    for line in lines[:10]:
        spool.admit(line)
    shutil.rmtree(folder)
    for line in lines[10:20]:
        spool.admit(line)
    spool.append([])
    for line in lines[20:]:
        spool.admit(line)

    assert lines[20:] == files(folder)[0].read_bytes().rstrip(b"\0").split(b"\n")[1:-1]
    assert lines == take_all(spool)
    assert [] == told.lost == told.texts


def test_the_folder_is_replaced(folder: Path, make: Any, told: Told) -> None:
    """Where a backup is put back, soon a new segment takes what comes; all is sent once."""
    spool = make()
    lines = lines_from(0, 30)
    for line in lines[:10]:
        spool.admit(line)
    shutil.copytree(folder, folder.with_name("backup"))
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("backup"), folder)
    for line in lines[10:20]:
        spool.admit(line)
    spool.append([])
    for line in lines[20:]:
        spool.admit(line)

    on_disk = b"".join(path.read_bytes() for path in files(folder))
    assert [*lines[:10], *lines[20:]] == [line for line in lines if line in on_disk]
    assert lines == take_all(spool)
    spool.close()
    assert [] == files(folder) == told.lost == told.texts


OUT_OF_REACH = """
import os, sys
from posthog_logging.delivery.journal import JournalSpool
if os.getuid() == 0:  # root reaches everything
    os.setgid(65534)
    os.setuid(65534)
told = []
folder = sys.argv[1] + "/spool"
spool = JournalSpool(
    folder, dialect="posthog", host="http://x", warn=lambda topic, text: told.append(text)
)
assert spool.admit(b'{"uuid":"1"}') is True
os.chmod(folder, 0)
spool.append([])
item = spool.admit(b'{"uuid":"2"}')
spool.append([item])
print(item, len(spool), told)
os.chmod(folder, 0o700)
spool.append([])
print([line for _ in range(2) for _, line in spool.take(99, 9999)])
spool.close()
"""


def test_the_folder_is_out_of_reach(run_script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised and nothing lost: what was written is there, what comes is in memory."""
    for name in [name for name in os.environ if name.startswith("COVERAGE")]:
        monkeypatch.delenv(name)  # nobody may write its file either
    with tempfile.TemporaryDirectory() as name:  # below `tmp_path`, nobody else may look
        Path(name).chmod(0o777)
        done = run_script(OUT_OF_REACH, name)

    assert "" == done.stderr
    first, second = done.stdout.splitlines()
    assert """b'{"uuid":"2"}' 2 ['no spool (Permission denied); events wait in memory']""" == first
    assert """[b'{"uuid":"1"}', b'{"uuid":"2"}']""" == second


def test_a_segment_is_cut_by_somebody(folder: Path, make: Any, told: Told) -> None:
    """Lines that were cut off below us are counted as lost, and nothing hangs."""
    path = left_behind(folder, lines_from(0, 10))
    spool = make()
    spool.append([])
    os.truncate(path, path.stat().st_size - 100)

    left = take_all(spool)
    assert left == lines_from(0, len(left))
    assert 10 == len(left) + told.losses
    assert 0 == len(spool)


# From everywhere at once


@pytest.mark.parametrize("drop_oldest", [False, True], ids=["drop newest", "drop oldest"])
def test_threads(drop_oldest: bool, make: Any, told: Told) -> None:
    """Lines of many threads are all there, whole, while they are taken and settled."""
    spool = make(max_bytes=400_000, drop_oldest=drop_oldest)  # many segments
    taken: list[bytes] = []
    refused = []

    def write(start: int) -> None:
        refused.extend(
            line for line in lines_from(start, 2000, 300) if spool.admit(line) is not RECEIPT
        )

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=write, args=(n * 10_000,)) for n in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            taken += take_all(spool, 50)
    finally:
        sys.setswitchinterval(before)
    taken += take_all(spool)

    everything = [line for n in range(4) for line in lines_from(n * 10_000, 2000, 300)]
    assert len(everything) == len(taken) + told.losses
    assert len(taken) == len(set(taken) & set(everything))
    assert drop_oldest or sorted(everything) == sorted(taken + refused)
    assert 0 == len(spool)


def test_a_signal_handler_writes(make: Any) -> None:
    """A handler that logs, wherever it interrupts a log call, spoils neither's line."""
    spool = make(max_bytes=800_000)
    written: list[bytes] = []
    numbers = iter(range(1_000_000))
    main, done, pause = threading.get_ident(), threading.Event(), threading.Event()

    def write(*_: Any) -> None:
        (line,) = lines_from(next(numbers), 1, 200)
        if spool.admit(line) is RECEIPT:
            written.append(line)

    def interrupt() -> None:
        while not done.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            pause.wait(0.0003)

    taken: list[bytes] = []
    before = signal.signal(signal.SIGUSR1, write)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        for _ in range(200):
            for _ in range(100):
                write()
            taken += take_all(spool, 50)
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    taken += take_all(spool)

    assert 20_000 < next(numbers)  # signals did come
    assert sorted(written) == sorted(taken)


def test_del_writes(make: Any) -> None:
    """A ``__del__`` that logs during garbage collection spoils nobody's line."""
    spool = make(max_bytes=800_000)
    written: list[bytes] = []
    numbers = iter(range(1_000_000))

    def write() -> None:
        (line,) = lines_from(next(numbers), 1, 200)
        if spool.admit(line) is RECEIPT:
            written.append(line)

    class Noisy:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            write()

    before = gc.get_threshold()
    gc.set_threshold(7, 2, 2)
    taken = []
    try:
        for _ in range(20):
            for _ in range(100):
                Noisy()
                write()
            taken += take_all(spool, 50)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    taken += take_all(spool)

    assert 4000 == next(numbers)
    assert sorted(written) == sorted(taken)


FORKED = """
import os, sys
from posthog_logging.delivery.journal import JournalSpool
def make():
    return JournalSpool(sys.argv[1], dialect="posthog", host="http://x")
spool = make()
for number in range(10):
    spool.admit(b'{"uuid":"parent %d"}' % number)
parents = spool.take(3, 1000)
pid = os.fork()
if pid == 0:
    spool.renew()
    assert len(spool) == 0
    spool.admit(b'{"uuid":"child"}')
    spool.append([])
    names = [one.line for one in spool.take(99, 9999)]
    assert names == [b'{"uuid":"child"}'], names
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
spool.append([])
names = [one.line for one in spool.take(99, 9999)]
assert len(names) == 8, names
other = make()
other.append([])
assert len(other) == 0
"""


def test_a_fork(folder: Path, run_script: Any) -> None:
    """The child has nothing of its parent's, whose lock stays, and who adopts the child's."""
    done = run_script(FORKED, str(folder))

    assert "" == done.stderr


# At the end


def test_closed_it_opens_again(make: Any, told: Told) -> None:
    """What comes after `close` opens it again; what was left is its own, so not adopted."""
    spool = make()
    spool.admit(b"{}")
    spool.close()
    assert spool.admit(b"[]") is RECEIPT
    spool.append([])

    assert 2 == len(spool) == spool.admitted
    assert {b"{}", b"[]"} == set(take_all(spool))
    assert 0 == spool.adopted
    assert [] == told.lost


def test_segments_in(folder: Path, make: Any) -> None:
    """What waits can be asked for, by anybody and without changing anything."""
    spool = make()
    for second in range(3):
        spool.admit(b'{"uuid":"1","timestamp":"2024-01-02T03:04:0%dZ"}' % second)
    spool.ack(spool.take(1, ALL))
    before = files(folder)[0].read_bytes()
    (info,) = segments_in(folder)

    assert (before, 1) == (files(folder)[0].read_bytes(), len(files(folder)))
    assert ("posthog", HOST, os.getpid(), True, 2) == info[1:6]
    assert (96, "2024-01-02T03:04:01Z") == (info.size, info.oldest)
    spool.close()
    assert not segments_in(folder)[0].in_use
    assert [] == segments_in(folder / "nowhere")


class JournalMachine(RuleBasedStateMachine):
    """Against a plain list, with re-opening at any time."""

    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.path = self.folder / str(next(_numbers))
        self.spool = self.open()
        self.waiting: list[bytes] = []  # not taken
        self.taken: list[Any] = []  # and not acknowledged, in order
        self.acked: set[bytes] = set()  # out of order: may come again after a re-opening
        self.made = 0

    def open(self) -> JournalSpool:
        return JournalSpool(self.path, dialect="posthog", host=HOST, max_bytes=80_000)

    @rule(count=st.integers(0, 30), size=st.integers(0, 400))
    def admit(self, count: int, size: int) -> None:
        for line in lines_from(self.made, count, size):
            item = self.spool.admit(line)
            if item is RECEIPT:
                self.waiting.append(line)
        self.made += count

    @rule(count=st.integers(0, 20))
    def take(self, count: int) -> None:
        kept = self.spool.take(count, ALL)
        assert self.waiting[:count] == [one.line for one in kept]
        del self.waiting[:count]
        self.taken += kept

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def ack(self, data: Any) -> None:
        some = data.draw(st.lists(st.sampled_from(self.taken), unique=True))
        self.spool.ack(some)
        self.acked |= {one.line for one in some}
        self.taken = [one for one in self.taken if one not in some]

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self.spool = self.open()
        self.spool.append([])
        expected = [one.line for one in self.taken] + self.waiting
        kept = self.spool.take(ALL, ALL)
        found = [one.line for one in kept]
        assert expected == [line for line in found if line not in self.acked]
        assert sorted(found) == found
        self.taken, self.waiting, self.acked = kept, [], set()

    @invariant()
    def length(self) -> None:
        assert len(self.waiting) == len(self.spool)

    def teardown(self) -> None:
        self.spool.close()


_numbers = iter(range(1_000_000))


@pytest.mark.usefixtures("_machines_folder")
class TestJournalMachine(JournalMachine.TestCase):  # type: ignore[name-defined,misc]
    """Any order of verbs."""

    settings = settings(max_examples=30, stateful_step_count=30)


@pytest.fixture(name="_machines_folder")
def _folder_of_the_machine(tmp_path: Path) -> None:
    JournalMachine.folder = tmp_path
