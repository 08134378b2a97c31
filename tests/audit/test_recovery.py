"""What a chain survives: a full disk, rotation, a fork, a restart. Nothing of it looks like tampering."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toucan_guard.audit.files import read_lines
from toucan_guard.audit.open import open_sink
from toucan_guard.audit.verdict import TAMPERING, Verdict
from toucan_guard.audit.verify import ChainVerifier
from toucan_guard.audit.writers import FileWriter
from toucan_guard.core.errors import AuditWriteError
from toucan_guard.testing import FakeClock

EVENT = {"schema": 1, "event": "decision", "event_id": "e-1", "outcome": "allow", "filling": "x" * 200}
KEY = b"correct-horse-battery-staple-0123456789"


def verify(*paths: Path, key: bytes | None = None) -> Verdict:
    verifier = ChainVerifier(key)
    for path in paths:
        for number, line in enumerate(read_lines(path), 1):
            verifier.feed(line, file=str(path), number=number)
    return verifier.finish()


@pytest.fixture
def disk_limit() -> Iterator[Callable[[int], None]]:
    """``disk_limit(bytes)``: no file grows beyond it; the write that would is cut there, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size if size >= 0 else soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("key", [None, KEY], ids=["without a key", "keyed"])
@pytest.mark.parametrize("room", [0, 1, 40, 200])
def test_a_full_disk_cuts_a_line_and_the_chain_goes_on(
    room: int, key: bytes | None, tmp_path: Path, disk_limit: Callable[[int], None]
) -> None:
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path), chain_key=key)
    sink.write(EVENT)
    disk_limit(path.stat().st_size + room)
    for _ in range(3):
        with pytest.raises(AuditWriteError):
            sink.write(EVENT)
    disk_limit(-1)
    sink.write({**EVENT, "event_id": "e-2"})
    sink.close()
    verdict = verify(path, key=key)
    assert verdict.findings == ()
    assert (verdict.lines, verdict.chains[0].closed) == (4, True)
    # What is left of the cut line is part of what is proved.
    text = path.read_bytes()
    if room:
        fragment = text.splitlines()[2]
        assert len(fragment) == room
        for forged in (
            text.replace(b"\n" + fragment + b"\n", b"\n"),
            text.replace(fragment + b"\n", fragment + b"!\n"),
        ):
            path.write_bytes(forged)
            assert verify(path, key=key).tampered


def test_a_disk_that_is_full_again_and_again(tmp_path: Path, disk_limit: Callable[[int], None]) -> None:
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path))
    sink.write(EVENT)
    for room in (50, 3, 1, 70, 2, 9):
        disk_limit(path.stat().st_size + room)
        with pytest.raises(AuditWriteError):
            sink.write(EVENT)
    disk_limit(-1)
    sink.write(EVENT)
    sink.close()
    assert verify(path).findings == ()


def test_a_disk_that_is_full_at_the_first_line(tmp_path: Path, disk_limit: Callable[[int], None]) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    sink = open_sink(str(path))
    disk_limit(100)
    with pytest.raises(AuditWriteError):
        sink.write(EVENT)
    disk_limit(-1)
    sink.write(EVENT)
    sink.close()
    verdict = verify(path)
    assert (verdict.tampered, verdict.findings) == (False, ())
    assert len(verdict.chains) == 1


def test_two_workers_on_a_full_disk(tmp_path: Path, disk_limit: Callable[[int], None]) -> None:
    path = tmp_path / "audit.jsonl"
    one, two = open_sink(str(path)), open_sink(str(path))
    one.write(EVENT)
    two.write(EVENT)
    for sink, room in ((one, 80), (two, 30)):
        disk_limit(path.stat().st_size + room)
        with pytest.raises(AuditWriteError):
            sink.write(EVENT)
    disk_limit(-1)
    two.write(EVENT)
    one.write(EVENT)
    one.close()
    two.close()
    verdict = verify(path)
    assert not verdict.tampered, verdict.findings
    assert verdict.lines == 8


def _later() -> None:
    """Wait until the path is looked at again."""
    time.sleep(0.002)


@pytest.mark.parametrize("way", ["renamed", "removed", "replaced"])
def test_a_file_that_is_rotated_is_opened_anew(way: str, tmp_path: Path) -> None:
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    sink = open_sink(str(path))
    for number in range(3):
        sink.write({**EVENT, "event_id": f"old-{number}"})
    os.link(path, old)
    path.unlink()
    if way == "replaced":
        path.touch()
    elif way == "renamed":
        old.rename(tmp_path / "audit.jsonl.2")
        (tmp_path / "audit.jsonl.2").rename(old)
    _later()
    for number in range(3):
        sink.write({**EVENT, "event_id": f"new-{number}"})
    sink.close()
    assert [json.loads(line).get("event_id") for line in path.read_bytes().splitlines()] == [
        "new-0", "new-1", "new-2", None
    ]  # fmt: skip
    assert verify(path, old).findings == ()
    verdict = verify(path)
    assert (verdict.tampered, [finding.kind for finding in verdict.findings]) == (False, ["begins_elsewhere"])


def test_a_file_whose_folder_is_gone_is_a_failed_write_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = open_sink(str(folder / "audit.jsonl"))
    sink.write(EVENT)
    folder.rename(tmp_path / "old")
    _later()
    with pytest.raises(AuditWriteError):
        sink.write(EVENT)
    folder.mkdir()
    sink.write(EVENT)
    sink.close()
    assert verify(folder / "audit.jsonl", tmp_path / "old" / "audit.jsonl").findings == ()


def test_the_lines_of_a_millisecond_share_one_look_at_the_path(tmp_path: Path) -> None:
    path, clock = tmp_path / "audit.jsonl", FakeClock(100.0)
    writer = FileWriter(path, clock=clock)
    writer.info(b"1\n")
    path.rename(tmp_path / "old")
    writer.info(b"2\n")
    clock.now += 0.0009
    writer.info(b"3\n")
    clock.now += 0.0002
    writer.info(b"4\n")
    path.rename(tmp_path / "older")
    clock.now -= 1  # a clock that has gone back says nothing
    writer.info(b"5\n")
    path.rename(tmp_path / "oldest")
    writer.close()
    writer.info(b"6\n")  # opened again at once
    writer.close()
    written = [(tmp_path / name).read_bytes() for name in ("old", "older", "oldest", "audit.jsonl")]
    assert written == [b"1\n2\n3\n", b"4\n", b"5\n", b"6\n"]


def test_after_a_failed_write_the_path_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    writer = FileWriter(path, clock=FakeClock(100.0))
    writer.info(b"1\n")
    genuine = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, line: genuine(descriptor, line[:1]))
        with pytest.raises(OSError, match="cut"):
            writer.info(b"22\n")
    path.rename(tmp_path / "full")
    writer.info(b"3\n")
    writer.close()
    # What mends the line that was cut belongs behind it, and not into another file.
    assert [(tmp_path / name).read_bytes() for name in ("full", "audit.jsonl")] == [b"1\n2", b"3\n"]


def test_a_closed_sink_begins_another_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path))
    for _ in range(2):
        sink.write(EVENT)
        sink.close()
        sink.close()
    verdict = verify(path)
    assert (verdict.findings, [chain.closed for chain in verdict.chains]) == ((), [True, True])


def test_a_sink_without_events_leaves_no_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    open_sink(str(path)).close()
    assert path.read_bytes() == b""


_FORKING = """
import os, sys
from toucan_guard.audit.open import open_sink
sink = open_sink(sys.argv[1], mode=sys.argv[2])
event = {"schema": 1, "event": "decision"}
if sys.argv[3] == "before":
    sink.write(event)
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        for _ in range(50):
            sink.write(event)
        sink.close()
        os._exit(0)
    children.append(child)
for _ in range(20):
    sink.write(event)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
"""


@pytest.mark.parametrize(("mode", "first"), [("strict", "before"), ("strict", "after"), ("best_effort", "before")])
def test_every_process_has_a_chain_of_its_own_after_the_fork(mode: str, first: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKING, str(path), mode, first],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    verdict = verify(path)
    # The parent ends its chain at its exit, which no lifespan has told it of.
    assert (verdict.findings, len(verdict.chains)) == ((), 4)
    assert sorted(chain.lines for chain in verdict.chains) == sorted([52, 52, 52, 20 + 2 + (first == "before")])


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_several_threads_share_one_chain(mode: Any, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path), mode=mode)
    together = threading.Barrier(8)

    def write() -> None:
        together.wait(30)
        for _ in range(100):
            sink.write(EVENT)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    verdict = verify(path)
    assert (verdict.findings, verdict.lines) == ((), 802)


_CUT = """
import os, resource, signal, sys
from toucan_guard.audit.open import open_sink
from toucan_guard.core.errors import AuditWriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = open_sink(sys.argv[1])
event = {"schema": 1, "event": "decision"}
if sys.argv[2] == "later":
    sink.write(event)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(sys.argv[1]).st_size + 60, resource.RLIM_INFINITY))
try:
    sink.write(event)
except AuditWriteError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
child = os.fork()
if not child:
    sink.write(event)
    sink.close()
    os._exit(0)
os.waitpid(child, 0)
if sys.argv[3] == "both":
    sink.write(event)
    sink.close()
os._exit(0)
"""


@pytest.mark.parametrize("cut", ["first", "later"])
@pytest.mark.parametrize("going_on", ["both", "the child alone"])
def test_a_line_that_a_full_disk_cut_before_the_fork_accuses_nobody(cut: str, going_on: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _CUT, str(path), cut, going_on]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    verdict = verify(path)
    assert not TAMPERING & {finding.kind for finding in verdict.findings}
    assert len(verdict.chains) == 1 + (going_on == "both" or cut == "later")


_HELD = """
import os, sys
from toucan_guard.audit.open import open_sink
sink = open_sink(sys.argv[1], mode=sys.argv[2])
inner = getattr(sink, "_sink", sink)
inner._lock.acquire()  # as a thread of the parent's would, at the moment of the fork
if inner is not sink:
    sink._starting.acquire()
child = os.fork()
if not child:
    sink.write({"schema": 1, "event": "decision"})
    sink.close()
os._exit(0 if not child or os.waitpid(child, 0)[1] == 0 else 1)
"""


@pytest.mark.parametrize("mode", ["strict", "best_effort"])
def test_a_lock_of_the_parents_does_not_stop_the_child(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _HELD, str(path), mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (verify(path).findings, verify(path).lines) == ((), 3)


def test_a_line_fits_with_everything_that_the_chain_adds(tmp_path: Path, disk_limit: Callable[[int], None]) -> None:
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path), chain_key=KEY)
    wide: dict[str, Any] = {
        "schema": 1,
        "event": "decision",
        "event_id": "e",
        **{f"f{n}": "\U0001f424" * 250 for n in range(20)},
    }
    sink.write(wide)
    for room in (5, 6, 7, 8, 9, 10, 11, 12, 13, 14):
        disk_limit(path.stat().st_size + room)
        with pytest.raises(AuditWriteError):
            sink.write(wide)
    disk_limit(-1)
    sink.write(wide)
    assert max(map(len, path.read_bytes().splitlines())) < 4096


def test_compressed_files_and_standard_input_are_read(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path))
    sink.write(EVENT)
    sink.close()
    packed = tmp_path / "audit.jsonl.1.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_lines(packed)) == list(read_lines(path))
    read: list[int] = []
    assert b"".join(read_lines(path, progress=read.append)) == path.read_bytes()
    assert sum(read) == path.stat().st_size
    (tmp_path / "wide").write_bytes(b"x" * 200_000)
    assert [len(part) for part in read_lines(tmp_path / "wide")] == [65536, 65536, 65536, 3392]


@pytest.mark.parametrize("zeros", [1, 4_000, 65_536, 200_000])
@pytest.mark.parametrize("key", [None, KEY], ids=["without a key", "keyed"])
def test_bytes_of_zero_that_a_stopped_machine_has_left_accuse_nobody(
    zeros: int, key: bytes | None, tmp_path: Path
) -> None:
    """XFS and ext4 leave them where a file was longer already than what had come to the disk."""
    path, other = tmp_path / "audit.jsonl", tmp_path / "other"
    for _ in range(2):
        sink = open_sink(str(path), chain_key=key)
        sink.write(EVENT)
        sink.write(EVENT)
        if not other.exists():
            whole = path.read_bytes()
            path.write_bytes(whole[:-100] + bytes(zeros))
            other.write_bytes(path.read_bytes())
    sink.close()
    verdict = verify(path, key=key)
    kinds = {finding.kind for finding in verdict.findings}
    assert (verdict.tampered, verdict.unproved, verdict.lines, kinds) == (False, False, 6, {"cut", "open_ended"})
    assert verify(other, key=key).lines == 2
    # Zeros in the place of a line hide nothing: its process went on behind it.
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-2], bytes(zeros), *lines[-1:]]))
    assert verify(path, key=key).tampered


def test_a_file_that_was_emptied_under_its_process_begins_with_zeros(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    sink = open_sink(str(path))
    for _ in range(1_000):
        sink.write(EVENT)
    sink.close()
    lines = path.read_bytes().splitlines(keepends=True)
    old.write_bytes(b"".join(lines[:900]))
    path.write_bytes(bytes(len(old.read_bytes())) + b"".join(lines[900:]))
    verdict = verify(path, old)
    assert ({finding.kind for finding in verdict.findings}, verdict.lines) == ({"cut"}, 1_002)
    path.write_bytes(bytes(100_000))
    assert [finding.kind for finding in verify(path, old).findings] == ["cut", "open_ended"]
    assert list(read_lines(path))[-1].strip(b"\0") == b""
    path.write_bytes(bytes(70_000) + b"x" * 150_000)
    assert [len(part) for part in read_lines(path)][-1] <= 65_536
    assert b"".join(read_lines(path)).strip(b"\0") == b"x" * 150_000
