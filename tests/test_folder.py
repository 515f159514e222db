"""The folder of a spool in the wild: damage, copies, crowds, crashes, forks, others' files."""

from __future__ import annotations

import contextlib
import dis
import os
import shutil
import subprocess
import sys
import threading
import time

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import posthog_logging

from posthog_logging.delivery import segment
from posthog_logging.delivery.folder import Folder
from posthog_logging.delivery.journal import JournalSpool, segments_in
from posthog_logging.delivery.spool import RECEIPT


ALL = 2**62
HOST = "http://x"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(posthog_logging.__file__).parent.parent)}


def lines_from(first: int, count: int, size: int = 0) -> list[bytes]:
    ballast = b"x" * size
    return [b'{"uuid":"%036d","x":"%b"}' % (n, ballast) for n in range(first, first + count)]


class Log:
    """What a journal counts and says."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.lost: dict[str, int] = {}

    def options(self) -> dict[str, Any]:
        return {
            "warn": lambda topic, text: self.texts.append(text),
            "lose": self._lose,
            "refuse": lambda reason: self._lose(reason, 1),
            "duplicate": lambda count: self._lose("duplicates", count),
        }

    def _lose(self, reason: str, count: int) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + count


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def make(folder: Path, log: Log) -> Iterator[Callable[..., JournalSpool]]:
    """A maker of journals on one folder, all closed in the end."""
    made = []

    def make_one(path: Any = folder, **options: Any) -> JournalSpool:
        wanted = {"dialect": "posthog", "host": HOST, **log.options(), **options}
        made.append(JournalSpool(path, **wanted))
        return made[-1]

    yield make_one
    for one in made:
        one.close()


def take_all(spool: JournalSpool) -> list[bytes]:
    """Look for orphans again and again; take and acknowledge all there is."""
    found: list[bytes] = []
    while True:
        spool.append([])
        kept = spool.take(10_000, ALL)
        if not kept and spool.rest > 0.0:
            return found
        spool.ack(kept)
        found += [one.line for one in kept]


def left_behind(folder: Path, lines: list[bytes], host: str = HOST) -> Path:
    """Write *lines* as a process does that ends without sending; return its segment."""
    before = set(files(folder))
    spool = JournalSpool(folder, dialect="posthog", host=host)
    for line in lines:
        assert spool.admit(line) is RECEIPT
    spool.close()
    (path,) = set(files(folder)) - before
    return path


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in files(folder))


def run(program: str, *args: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=ENVIRONMENT,
    )


# A crowd of orphans

CROWD = """
import os, resource, sys
from posthog_logging.delivery.journal import JournalSpool
folder, limit, held = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
spool = JournalSpool(folder, dialect="posthog", host="http://x")
spool.admit(b'{"uuid":"own"}')
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
applications = [open(os.devnull) for _ in range(held)]
seen = []
while True:
    spool.append([])
    open(os.devnull).close()  # the application may still open a file
    kept = spool.take(50, 2**62)
    if not kept and spool.rest > 0:
        break
    spool.ack(kept)
    seen += [one.line for one in kept]
spool.close()
for one in applications:
    one.close()
print(len(seen), len(set(seen)), os.listdir(folder))
"""


@pytest.mark.parametrize(
    ("limit", "held"),
    [
        (64, 20),
        (1024, 540),
        pytest.param(256, 10, marks=pytest.mark.matrix),
        pytest.param(1024, 1000, marks=pytest.mark.matrix),
    ],
    ids=str,
)
def test_a_crowd_of_orphans(limit: int, held: int, folder: Path) -> None:
    """Few are open at once: the application can open its own files, and all are delivered."""
    model = left_behind(folder, lines_from(0, 1))
    content = model.read_bytes()
    model.unlink()
    for number in range(600):
        name = f"1-{number:x}-1.ndjson"
        (folder / name).write_bytes(content.replace(b"0" * 10, b"%010d" % number))

    done = run(CROWD, folder, limit, held)

    assert ("601 601 []\n", "") == (done.stdout, done.stderr)


def test_looking_hinders_nobody(folder: Path, make: Any) -> None:
    """Orphans are adopted at the first look, whoever looks into the folder at that moment."""
    model = left_behind(folder, lines_from(0, 1))
    content = model.read_bytes()
    for number in range(1, 61):
        name = f"1-{number:x}-1.ndjson"
        (folder / name).write_bytes(content.replace(b"0" * 10, b"%010d" % number))
    fds = [os.open(path, os.O_RDONLY) for path in folder.iterdir()]
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            for fd in fds:
                segment.is_locked(fd)

    others = [threading.Thread(target=look) for _ in range(3)]
    for one in others:
        one.start()
    try:
        found = take_all(make())
    finally:
        is_over.set()
        for one in others:
            one.join()
        for fd in fds:
            os.close(fd)

    assert 61 == len(found)


# Damage


def test_zeros_in_the_middle(folder: Path, make: Any, log: Log) -> None:
    """A block of zeros costs the lines that it hits, which are counted; the file is kept."""
    lines = lines_from(0, 500, 40)
    path = left_behind(folder, lines)
    content = bytearray(path.read_bytes())
    content[16_384 : 16_384 + 4096] = bytes(4096)
    path.write_bytes(content)
    hit = {line for line in lines if line + b"\n" not in content}

    spool = make()
    found = take_all(spool)

    assert [line for line in lines if line not in hit] == found
    assert {"broken": len(hit)} == log.lost
    assert 500 == spool.adopted
    assert [path.with_suffix(".damaged")] == files(folder)


SEGMENT_LINES = lines_from(0, 60, 30)
_HEADER = segment.header_line({"posthog_logging": 1, "dialect": "posthog", "host": HOST})
SEGMENT = _HEADER + b"".join(line + b"\n" for line in SEGMENT_LINES)


@given(
    st.lists(
        st.tuples(st.integers(0, len(SEGMENT) - 1), st.binary(min_size=1, max_size=200)),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([b"", bytes(5000)]),
)
@settings(max_examples=120, suppress_health_check=list(HealthCheck))
def test_random_damage(tmp_path: Path, hits: list[tuple[int, bytes]], rest: bytes) -> None:
    """Wherever a dead segment is damaged, each line that is whole is delivered, once."""
    folder = tmp_path / str(next(_numbers))
    folder.mkdir()
    content = bytearray(SEGMENT)
    for at, garbage in hits:
        content[at : at + len(garbage)] = garbage[: len(SEGMENT) - at]
    (folder / "1-1-1.ndjson").write_bytes(content + rest)
    log = Log()
    spool = JournalSpool(folder, dialect="posthog", host=HOST, **log.options())
    found = take_all(spool)
    spool.close()

    header = bytes(content[: len(_HEADER)])
    named = b'"dialect":"posthog","host":"http://x"' in header
    starts = [len(_HEADER) + 75 * n for n in range(60)]
    whole = [line for line, at in zip(SEGMENT_LINES, starts, strict=True)
             if content[at : at + 75] == line + b"\n"]  # fmt: skip
    if named:
        assert whole == [line for line in found if line in whole]
        assert spool.adopted == len(found) + log.lost.get("broken", 0)
    else:
        assert [] == found or whole == [line for line in found if line in whole]
    # Damage may make two lines alike: each is delivered as often as it stands in the file.
    assert all(found.count(line) <= (content + rest).count(line) for line in set(found))


_numbers = iter(range(1_000_000))


def test_a_damaged_header(folder: Path, make: Any) -> None:
    """As long as a header names the destination, its lines are delivered."""
    lines = lines_from(0, 50)
    path = left_behind(folder, lines)
    content = bytearray(path.read_bytes())
    content[3:9] = b"\0" * 6
    path.write_bytes(content)

    assert lines == take_all(make())
    assert [path.with_suffix(".damaged")] == files(folder)


HEADERS: dict[str, Callable[[bytes], bytes]] = {
    "another key": lambda content: content.replace(b'"acked"', b'"ackeX"'),
    "another version": lambda content: content.replace(b":1,", b":3,", 1),
    "no comma": lambda content: content.replace(b'x","acked', b'x"}"acked'),
    "no end": lambda content: content.replace(b"}\n", b"}\v", 1),
    "two lines": lambda content: content.replace(b"_", b"\n", 1),
    "line ends of Windows": lambda content: content.replace(b"\n", b"\r\n"),
    "spaces": lambda content: content.replace(b'":', b'": ', 4).replace(b',"', b', "', 3),
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_a_changed_header(change: Callable[[bytes], bytes], folder: Path, make: Any) -> None:
    """While it names the destination, its lines are delivered, and nothing is written into it."""
    lines = lines_from(0, 20)
    path = left_behind(folder, lines)
    content = change(path.read_bytes())
    path.write_bytes(content)
    first = make()
    first.append([])
    first.ack(first.take(5, ALL))
    first.close()
    (info,) = segments_in(folder)

    assert content == path.read_bytes()
    assert ("posthog", HOST, 20) == (info.dialect, info.host, info.events)
    assert lines == [line.rstrip() for line in take_all(make())]
    assert [path.with_suffix(".damaged")] == files(folder)


def test_damage_is_no_gap_after_a_rewind(folder: Path, make: Any, log: Log) -> None:
    """What is damaged is counted once, however often the rest is handed out."""
    lines = lines_from(0, 10)
    path = left_behind(folder, lines)
    path.write_bytes(path.read_bytes().replace(lines[3], b"?" * len(lines[3])))
    spool = make()
    spool.append([])
    whole = [*lines[:3], *lines[4:]]

    for _ in range(3):
        assert 9 == len(spool)
        assert whole == [one.line for one in spool.take(99, ALL)]
        assert 0 == len(spool)
        spool.rewind()
    spool.ack(spool.take(5, ALL)[1:])
    spool.rewind()

    assert [lines[0], *lines[6:]] == take_all(spool)
    assert {"broken": 1} == log.lost


def test_little_is_kept_aside(folder: Path, make: Any) -> None:
    """Damaged files do not pile up: the newest stay, and all go where their room is needed."""
    for number in range(40):
        path = left_behind(folder, lines_from(number, 2, 500))
        path.write_bytes(path.read_bytes()[:-400] + b"?" * 399 + b"\n")
    spool = make(max_bytes=40_000)
    take_all(spool)
    spool.close()
    newest = make(max_bytes=40_000)
    newest.append([])
    assert 16 == len(files(folder))

    for line in lines_from(100, 200, 100):
        newest.admit(line)

    assert not list(folder.glob("*.damaged"))
    assert size_of(folder) <= 40_000


def test_a_clock_before_1970(folder: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test's clock says, the names of files have this library's form."""
    monkeypatch.setattr(time, "time_ns", lambda: -(10**18))
    spool = make()
    spool.admit(b"{}")

    (path,) = files(folder)
    assert Folder(folder).owns(path)
    assert size_of(folder) == Folder(folder).size()


# Files of others


def test_files_of_others_stay(folder: Path, make: Any, log: Log) -> None:
    """Only names of our own form are touched: nothing else is deleted, cut or complained of."""
    folder.mkdir()
    others = {
        "settings.new": b"mine",
        "old.damaged": b"mine",
        "events.ndjson": b'{"a":1}\n{"b":2}\n' + bytes(100),
        "1-2.ndjson": b"",
        "1-1-1.new.bak": b"mine",
        "x-1-1.new": b"mine",
        "12-18eb-3.json": b"mine",
    }
    for name, content in others.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (0, 0))
    spool = make(max_bytes=3000)
    for line in lines_from(0, 100):
        spool.admit(line)
    take_all(spool)
    spool.close()
    make(max_bytes=3000).append([])

    assert others == {path.name: path.read_bytes() for path in files(folder)}
    assert [] == log.texts


def test_one_complaint_for_all_files_of_a_kind(folder: Path, make: Any, log: Log) -> None:
    """Hundreds of files for another host are one sentence, which says what to do."""
    paths = [left_behind(folder, lines_from(n, 1), host="http://y") for n in range(5)]
    make().append([])

    (text,) = log.texts
    assert f"{paths[0].name} is for another host or dialect; left alone, like 4 more" in text
    assert f"posthog-logging spool check {folder}" in text
    assert f"posthog-logging spool drain {folder}" in text


# Copies


@pytest.mark.parametrize("name", ["1-1-1.ndjson", "9-{:x}-1.ndjson", "copy.ndjson"])
@pytest.mark.parametrize("acked", [0, 2], ids=["untouched", "acknowledged in part"])
def test_a_copy_is_settled_as_one(
    name: str, acked: int, folder: Path, make: Any, log: Log
) -> None:
    """A segment copied beside itself holds no further event; those of the copy are counted."""
    lines = lines_from(0, 10)
    path = left_behind(folder, lines)
    shutil.copy(path, folder / name.format(time.time_ns()))
    if acked:
        first = make()
        first.append([])
        first.ack(first.take(acked, ALL))
        first.close()

    assert lines[acked:] == take_all(make())
    assert {"duplicates": 10} == log.lost
    assert [] == files(folder)


def test_reopened_it_is_no_copy_of_itself(folder: Path, make: Any, log: Log) -> None:
    """A journal that is closed and opened again finds its own orphans as what they are."""
    lines = lines_from(0, 10)
    left_behind(folder, lines)
    spool = make()
    spool.append([])
    spool.ack(spool.take(3, ALL))
    spool.close()

    assert lines[3:] == take_all(spool)
    assert {} == log.lost


# The bound

WRITER = """
import os, sys, time
from posthog_logging.delivery.journal import JournalSpool
spool = JournalSpool(sys.argv[1], dialect="posthog", host="http://x", max_bytes=int(sys.argv[2]))
line = b'{"uuid":"%s"}' % (b"x" * 200)
count = 0
for number in range(int(sys.argv[3])):
    count += spool.admit(line) is True
    if number % 100 == 0:
        spool.append([])
os.write(1, b"%d\\n" % count)
sys.stdin.read(1)
os.kill(os.getpid(), 9)
"""


def test_the_folder_is_bounded(folder: Path) -> None:
    """Eight processes share the bound: their files together take no more, and nearly as much."""
    bound = 8 * 1024 * 1024
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, str(folder), str(bound), "20000"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=ENVIRONMENT,
                )
            )
            for _ in range(8)
        ]
        counts = [int(writer.stdout.readline()) for writer in writers if writer.stdout]
        size = size_of(folder)
        for writer in writers:
            assert writer.stdin
            writer.stdin.write(b"\n")
            writer.stdin.close()

    assert size <= bound * 1.1
    assert sum(counts) * 213 > bound * 0.7


CRASHES = """
import os, sys
from posthog_logging.delivery.journal import JournalSpool
for number in range(int(sys.argv[2])):
    if os.fork() == 0:
        spool = JournalSpool(sys.argv[1], dialect="posthog", host="http://x")
        spool.admit(b'{"uuid":"%d"}' % number)
        spool.append([])
        os._exit(0)
    os.wait()
"""


def test_crashes_in_an_outage_take_little(folder: Path, make: Any) -> None:
    """Each process that crashes leaves what it logged, and little more room than that."""
    done = run(CRASHES, folder, 40)
    assert "" == done.stderr
    assert size_of(folder) <= 40 * 256 * 1024

    small = make()
    small.append([])

    assert size_of(folder) < 40 * 1024
    assert {b'{"uuid":"%d"}' % number for number in range(40)} == set(take_all(small))


SHORT = """
import os, sys
from posthog_logging.delivery.journal import JournalSpool
for number in range(int(sys.argv[2])):
    if os.fork() == 0:
        spool = JournalSpool(
            sys.argv[1], dialect="posthog", host="http://x", max_bytes=int(sys.argv[3])
        )
        os._exit(spool.admit(b'{"uuid":"%d"}' % number) is not True)
    assert os.wait()[1] == 0, number
"""


def test_short_lives_share_the_room(folder: Path, make: Any) -> None:
    """What killed processes reserved, and did not use, is room for those that come after."""
    done = run(SHORT, folder, 40, 100_000)

    assert "" == done.stderr
    assert 40 == len(take_all(make()))


def test_a_segment_takes_what_it_needs(folder: Path, make: Any) -> None:
    """The first segment is small, those of a busy process are large."""
    spool = make()
    sizes = []
    for line in lines_from(0, 20_000, 1000):
        spool.admit(line)
        sizes.append(len(files(folder)))

    assert size_of(folder) < 2 * 20_000 * 1054
    assert sizes[10] == 1
    assert sizes[-1] < 14


# Where it is


def test_the_path_is_absolute(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may change its folder, as daemons do: the spool stays where it was."""
    monkeypatch.chdir(tmp_path)
    spool = JournalSpool("var/analytics", dialect="posthog", host=HOST, **log.options())
    monkeypatch.chdir("/")
    spool.admit(b"{}")

    assert 1 == len(segments_in(tmp_path / "var/analytics"))
    spool.close()


def test_an_empty_path_is_refused(make: Any) -> None:
    """It would be the working folder, whatever that is."""
    with pytest.raises(ValueError, match="spool: an empty path"):
        make("")


@pytest.mark.parametrize("path", ["a\0b", "a\ud800b", Path("a\0b")], ids=ascii)
def test_an_impossible_path_is_refused(path: Any, make: Any) -> None:
    """A name that no file system can have is a wrong option, not a failed disk."""
    with pytest.raises(ValueError, match="spool: no folder can have this name"):
        make(path)


def test_a_path_of_any_bytes(folder: Path, make: Any) -> None:
    """A name that is no UTF-8 is the name of a folder."""
    path = folder / os.fsdecode(b"caf\xe9")
    make(path).admit(b"{}")

    assert 1 == len(segments_in(path))


def test_a_fake_file_system(folder: Path, make: Any, log: Log) -> None:
    """A map would pierce a test's file system and overwrite real files: memory, and say so."""
    fake = pytest.importorskip("pyfakefs.fake_filesystem_unittest")
    before = make()
    before.admit(b'{"before":1}')
    real = files(folder)[0].read_bytes()
    with fake.Patcher():
        inside = make("/somewhere/spool")
        assert b"{}" == inside.admit(b"{}")
        inside.append([b"{}"])
        assert [b"{}"] == [one.line for one in inside.take(9, ALL)]
        inside.close()
        assert RECEIPT is before.admit(b'{"amid":1}')
        before.append([])
        kept = before.take(1, ALL)
        before.ack(kept)

    assert ["no spool (a test's file system stands in for the disk); events wait in memory"] == (
        log.texts
    )
    assert not Path("/somewhere").exists()
    assert b'{"before":1}' in real
    assert [b'{"amid":1}'] == take_all(before)


# Forks

FORKS = """
import fcntl, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from posthog_logging.delivery.journal import JournalSpool
folder, count = sys.argv[1], int(sys.argv[2])
spools = [JournalSpool(folder, dialect="posthog", host="http://x", max_bytes=200_000)
          for _ in range(4)]
stop = False
sys.setswitchinterval(1e-4)
def work(spool):
    line = b'{"uuid":"%s"}' % (b"x" * 1000)
    while not stop:
        for _ in range(40):
            spool.admit(line)
        spool.append([])
        spool.ack(spool.take(1000, 2**62))
threads = [threading.Thread(target=work, args=(spool,)) for spool in spools]
for thread in threads:
    thread.start()
children = []
out, gate = os.pipe()
ready, here = os.pipe()
for number in range(count):
    pid = os.fork()
    if pid == 0:
        os.close(gate)
        for spool in spools:
            spool.renew()
        os.write(here, b"x")
        os.read(out, 1)  # until the parent is done
        os._exit(0)
    children.append(pid)
for pid in children:
    os.read(ready, 1)
stop = True
for thread in threads:
    thread.join()
for spool in spools:
    spool.admit(b'{"uuid":"left"}')
    spool.close()
held = 0
for name in os.listdir(folder):
    fd = os.open(os.path.join(folder, name), os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held += 1
links = []
for pid in children:
    for name in os.listdir(f"/proc/{pid}/fd"):
        with_name = os.readlink(f"/proc/{pid}/fd/{name}")
        links += [with_name] if ".n" in with_name else []
os.close(gate)
for pid in children:
    os.waitpid(pid, 0)
print(held, links)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks into /proc")
@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.matrix)])
def test_no_child_keeps_a_lock(count: int, folder: Path) -> None:
    """However a fork falls among threads that open segments: a child holds none of them."""
    done = run(FORKS, folder, count)

    assert ("0 []\n", "") == (done.stdout, done.stderr)


# Disks that fill up


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 5 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("only root may mount")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_disk_that_fills_and_is_freed(small_disk: Path, make: Any, log: Log) -> None:
    """While a disk is full, lines wait in memory; once there is room, they are safe again."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(4 * 1024 * 1024))
    spool = make(small_disk / "spool")
    lines = lines_from(0, 4000, 1000)
    items = [spool.admit(line) for line in lines[:2000]]
    spool.append([item for item in items if item is not RECEIPT])
    on_disk = items.count(RECEIPT)
    assert 500 < on_disk < 1000

    ballast.unlink()
    kept = spool.take(on_disk, ALL)
    spool.ack(kept)  # a file of our own goes: there may be room again
    spool.append([])
    later = [spool.admit(line) for line in lines[2000:]]
    spool.append([item for item in later if item is not RECEIPT])

    assert [RECEIPT] * 2000 == later
    assert sorted(lines[on_disk:]) == sorted(take_all(spool))
    assert {} == log.lost
    assert ["no spool (No space left on device); events wait in memory"] == log.texts


def test_a_limit_on_files(folder: Path) -> None:
    """A limit on the size of a file is a small disk: what fits is safe, and nothing is raised."""
    program = """
import resource, sys
from posthog_logging.delivery.journal import JournalSpool
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
spool = JournalSpool(sys.argv[1], dialect="posthog", host="http://x")
items = [spool.admit(b'{"uuid":"%s"}' % (b"x" * 1000)) for _ in range(500)]
spool.append([])
print(items.count(True), len(spool))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))  # what measures coverage writes, too
"""
    done = run(program, folder)

    assert ("500 500\n", "") == (done.stdout, done.stderr)


# What a caller does


def test_callers_find_the_next_segment_made(make: Any) -> None:
    """With the thread at work between them, callers open no file but the first."""
    spool = make()
    opened = []

    def watch(frame: Any, event: str, what: Any) -> None:
        if event == "c_call" and what.__name__ in ("open", "flock", "posix_fallocate"):
            opened.append(what.__name__)

    spool.admit(b"{}")
    for start in range(0, 20_000, 50):
        sys.setprofile(watch)
        try:
            for line in lines_from(start, 50, 100):
                spool.admit(line)
        finally:
            sys.setprofile(None)
        spool.append([])

    assert [] == opened


class Thrown(BaseException):
    """What a signal handler raises."""


# After these, CPython looks whether a signal came.
LOOKS = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD", "PRECALL"}


def interrupted(call: Callable[[], object], number: int) -> bool:
    """Call, raise at the *number*-th place where a signal may come; return whether it did."""
    left = number
    previous: dict[int, str] = {}

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            before = previous.get(id(frame), "RESUME")
            previous[id(frame)] = name
            if before in LOOKS:
                left -= 1
                if left == 0:
                    raise Thrown
        if event == "return":
            previous.pop(id(frame), None)
        return trace

    sys.settrace(trace)
    try:
        call()
    except Thrown:
        pass
    finally:
        sys.settrace(None)
    return left <= 0


def throw_everywhere(state: str, folder: str) -> None:
    """Throw out of `admit` at each place where a signal may come, and look at what is left."""
    (last,) = lines_from(999, 1, 400)
    for number in [10**6, 10**6, *range(1, 1000)]:  # warm first: imports, and tracing itself
        spool = JournalSpool(Path(folder) / str(number), dialect="posthog", host=HOST)
        before = len(os.listdir("/dev/fd"))
        lines = [] if state == "first" else lines_from(0, 3)
        if state.startswith("full"):
            lines = lines_from(0, 120, 2000)
        for line in lines:
            assert spool.admit(line) is RECEIPT
        if state == "full and prepared":
            spool.append([])
        if state == "reopened":
            spool.close()
        if state.startswith("full"):
            more = lines_from(500, 1, 256 * 1024 - 120 * 2054 - 200)
            spool.admit(*more)
            lines += more
        came = interrupted(lambda spool=spool: spool.admit(last), number)  # type: ignore[misc]

        spool.admit(b'{"after":1}')
        admitted = spool.admitted
        found = take_all(spool)
        assert [*lines, b'{"after":1}'] == [line for line in found if line != last], number
        assert admitted == len(found)
        spool.close()
        assert before == len(os.listdir("/dev/fd"))
        assert [] == files(Path(folder) / str(number))
        if not came and number < 10**6:
            break
    assert 3 < number < 999


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="opcodes are traced otherwise there")
@pytest.mark.parametrize("state", ["first", "usual", "full", "full and prepared", "reopened"])
def test_thrown_out_of_a_log_call(state: str, tmp_path: Path) -> None:
    """An exception anywhere in `admit` loses nothing, and leaves no lock and no open file."""
    # In another process: what is thrown amid a handler's clean-up stays the "current" exception.
    here = str(Path(__file__).parent)
    program = "import sys; sys.path.insert(0, sys.argv[1]); import test_folder as tests; "
    done = run(f"{program} tests.throw_everywhere(*sys.argv[2:])", here, state, tmp_path)

    assert (0, "") == (done.returncode, done.stderr)


def test_late_writers_are_shut_out(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the GIL, too, a segment that is let go has taken its last line."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    spool = make(max_bytes=400_000)
    written: list[bytes] = []
    found: list[bytes] = []

    def write(start: int) -> None:
        written.extend(
            line for line in lines_from(start, 3000, 50) if spool.admit(line) is RECEIPT
        )

    threads = [threading.Thread(target=write, args=(10_000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found += take_all(spool)
        spool.close()
    found += take_all(spool)

    assert sorted(written) == sorted(found)


# Kills

KILLED = """
import os, sys, threading, time
from posthog_logging.delivery.journal import JournalSpool
folder, kind, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
spool = JournalSpool(folder, dialect="posthog", host="http://x")
os.write(1, b"0\\n")
number = first
while True:
    if kind == "rotation":
        for _ in range(20):
            line = b'{"uuid":"%036d","x":"%s"}' % (number, b"x" * 2000)
            if spool.admit(line) is True:
                os.write(1, b"%d\\n" % number)
            number += 1
        spool.append([])
    elif kind == "adoption":
        spool.append([])
        spool.close()
    else:
        spool.append([])
        kept = spool.take(5, 2**62)
        for one in kept:
            os.write(1, b"%d\\n" % int(one.line[9:45]))
        spool.ack(kept)
        if not kept and spool.rest:
            spool.close()
"""


def killed(folder: Path, kind: str, first: int, after: float) -> list[int]:
    """Let a process work and kill it; return the numbers that it printed."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), kind, str(first)],
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        killer = threading.Timer(after, process.kill)
        assert process.stdout
        process.stdout.readline()  # it has begun
        killer.start()
        out = process.stdout.read()
        killer.join()
    return [int(line) for line in out.split(b"\n")[:-1]]


@pytest.mark.parametrize(
    "rounds", [4, pytest.param(15, marks=[pytest.mark.matrix, pytest.mark.timeout(300)])]
)
def test_killed_at_any_time(rounds: int, folder: Path, make: Any, log: Log) -> None:
    """Kills amid rotation, adoption and drain lose no line whose log call has returned."""
    written: list[int] = []
    delivered: set[int] = set()
    for number in range(rounds):
        spread = 0.02 + 0.013 * (number % 7)
        written += killed(folder, "rotation", 1_000_000 * number, spread)
        killed(folder, "adoption", 0, spread)
        delivered.update(killed(folder, "drain", 0, spread))
    delivered.update(int(line[9:45]) for line in take_all(make()))

    assert len(written) > rounds
    assert set(written) <= delivered
    assert [] == [path for path in files(folder) if path.suffix == ".ndjson"]
    assert log.lost.get("broken", 0) <= rounds  # the line amid which the kill came
