"""Sinks: a write means that write(2) took the whole line; everything else is an AuditWriteError."""

from __future__ import annotations

import errno
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from toucan_guard.audit.chain import Chain
from toucan_guard.audit.open import open_sink
from toucan_guard.audit.sinks import LineSink, StructlogSink
from toucan_guard.audit.writers import DescriptorWriter, FileWriter
from toucan_guard.core.audit_line import dump_json
from toucan_guard.core.errors import AuditWriteError, ConfigError

EVENT = {"event": "decision", "event_id": "e-1", "outcome": "allow", "method": "GET", "subject": "user\n1"}


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def _told(text: bytes | str) -> list[dict[str, Any]]:
    """The events of some lines, without what the chain adds."""
    events = [json.loads(line) for line in text.splitlines()]
    return [
        {name: value for name, value in event.items() if name not in ("chain", "seq", "prev", "cut", "hash")}
        for event in events
        if event["event"] not in ("open", "close")
    ]


def _lines(path: Path) -> list[dict[str, Any]]:
    return _told(path.read_bytes())


def _line_sink(descriptor: int) -> LineSink:
    return LineSink(DescriptorWriter(descriptor), Chain(None, settings=None, dump=dump_json))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


def test_a_sink_that_nobody_holds_any_more_keeps_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    def held() -> int:
        gc.collect()
        links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
        return sum(link.is_symlink() and str(link.readlink()) == str(path) for link in links)

    sinks = [open_sink(str(path)) for _ in range(3)]
    sinks[0].close()
    assert held() == 2
    sinks.clear()
    assert held() == 0


def test_a_file_that_could_not_be_closed_is_not_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, close = FileWriter(tmp_path / "audit.jsonl"), os.close

    def fail(descriptor: int) -> None:
        close(descriptor)  # as Linux does in any case
        raise OSError(errno.EIO, "of a disk far away")

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", fail)
        with pytest.raises(OSError, match="far away"):
            writer.close()
    with Path(os.devnull).open("rb") as others:  # which has its number now
        del writer
        gc.collect()
        os.fstat(others.fileno())
    with pytest.raises(ConfigError):
        open_sink(str(tmp_path / "none" / "audit.jsonl"))


def test_stdout_is_written_by_its_descriptor(capfd: pytest.CaptureFixture[str]) -> None:
    sink = open_sink("stdout")
    sink.write(EVENT)
    sink.close()
    sink.write(EVENT)  # standard output is not ours to close
    assert _told(capfd.readouterr().out) == [EVENT, EVENT]


@pytest.mark.parametrize(
    "stdout",
    [
        pytest.param(None, id="there is none"),
        pytest.param(object(), id="an object without a descriptor"),
        pytest.param("closed", id="it is closed"),
    ],
)
def test_stdout_is_descriptor_1_where_somebody_has_replaced_it(
    stdout: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if stdout == "closed":
        stdout = (tmp_path / "closed").open("w")
        stdout.close()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stdout)
        open_sink("stdout").write(EVENT)
    assert _told(capfd.readouterr().out) == [EVENT]


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"event":"earlier"}\n')
    sink = open_sink(str(path))
    sink.write(EVENT)
    assert _lines(path) == [{"event": "earlier"}, EVENT]


def test_a_file_that_the_guard_makes_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    open_sink(str(path)).close()
    assert path.stat().st_mode & 0o007 == 0


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"TOUCAN_GUARD_AUDIT.*cannot be opened.*No such file"):
        open_sink(str(tmp_path / "absent" / "audit.jsonl"))
    with pytest.raises(ConfigError, match="directory"):
        open_sink(str(tmp_path))


NAMED_PIPE = """
import os, sys
from pathlib import Path
from toucan_guard.audit.open import open_sink
from toucan_guard.audit.writers import FileWriter
from toucan_guard.core.errors import ConfigError
pipe = sys.argv[1]
try:
    open_sink(pipe)
except ConfigError as error:
    print(error)
writer = FileWriter(Path(pipe + ".file"), clock=iter(range(100, 200)).__next__)
writer.info(b"1\\n")
os.rename(pipe, pipe + ".file")
try:
    writer.info(b"2\\n")
except OSError as error:
    print(error)
"""


def test_a_named_pipe_that_nobody_reads_stops_the_start_and_fails_a_write_and_waits_for_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-c", NAMED_PIPE, str(tmp_path / "pipe")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    at_start, later = told.splitlines()[-2:]
    assert "TOUCAN_GUARD_AUDIT" in at_start
    assert "a named pipe that nobody reads, or a socket: start the reader of the pipe first" in at_start
    assert "No such device or address" in later


def test_a_named_pipe_that_somebody_reads_is_written_to_the_end_of_each_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer = FileWriter(tmp_path / "pipe")
    writer.info(b"line\n")
    assert os.read(reader, 100) == b"line\n"
    assert os.get_blocking(writer._descriptor)
    writer.close()
    os.close(reader)


def test_a_closed_file_opens_again_at_the_next_event(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path))
    sink.write(EVENT)
    sink.close()
    sink.close()  # twice is once: the number may belong to another file by now
    sink.write(EVENT)
    assert _lines(path) == [EVENT, EVENT]


def test_a_closed_file_that_cannot_be_opened_again_is_a_failed_write(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = open_sink(str(folder / "audit.jsonl"))
    sink.close()
    (folder / "audit.jsonl").unlink()
    folder.rmdir()
    with pytest.raises(AuditWriteError, match="No such file"):
        sink.write(EVENT)
    folder.mkdir()
    sink.write(EVENT)
    assert _lines(folder / "audit.jsonl") == [EVENT]


def test_a_file_that_was_emptied_is_written_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path))
    sink.write(EVENT)
    os.truncate(path, 0)  # what `logrotate copytruncate` does
    sink.write(EVENT)
    assert path.read_bytes().count(b"\0") == 0
    assert _lines(path) == [EVENT]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_a_failed_write() -> None:
    sink = open_sink("/dev/full")
    with pytest.raises(AuditWriteError, match="No space left"):
        sink.write(EVENT)


def test_a_pipe_that_nobody_reads_is_a_failed_write(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    sink = _line_sink(writing)
    with pytest.raises(AuditWriteError, match="unavailable"):
        _write_many(sink)
    os.close(reading)
    with pytest.raises(AuditWriteError, match="Broken pipe"):
        sink.write(EVENT)


def _write_many(sink: LineSink) -> None:
    for _ in range(100_000):
        sink.write(EVENT)


def test_the_error_says_why_and_not_what(pipe: tuple[int, int]) -> None:
    sink = _line_sink(pipe[1])
    os.close(pipe[1])
    with pytest.raises(AuditWriteError) as raised:
        sink.write(EVENT)
    assert "Bad file descriptor" in str(raised.value)
    assert "user" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("taken", [1, 20, 150])
def test_a_line_that_was_cut_does_not_swallow_the_next(
    taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path))
    sink.write({**EVENT, "event_id": "e-0"})
    genuine = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, line: genuine(descriptor, line[:taken]))
        with pytest.raises(AuditWriteError, match="cut"):
            sink.write(EVENT)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, line: 0)
        with pytest.raises(AuditWriteError, match="cut"):
            sink.write(EVENT)
    sink.write({**EVENT, "event_id": "e-2"})
    sink.write({**EVENT, "event_id": "e-3"})
    _, _, fragment, *whole = path.read_bytes().splitlines()
    assert len(fragment) == taken
    assert [json.loads(line)["event_id"] for line in whole] == ["e-2", "e-3"]


def test_a_line_that_lacks_its_newline_only_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path))
    genuine = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, line: genuine(descriptor, line[:-1]))
        sink.write(EVENT)
    sink.write(EVENT)
    assert _lines(path) == [EVENT, EVENT]


def test_a_write_that_took_nothing_leaves_no_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    sink = open_sink(str(path))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, line: 0)
        with pytest.raises(AuditWriteError):
            sink.write(EVENT)
    sink.write(EVENT)
    assert _lines(path) == [EVENT]
    assert [json.loads(line)["seq"] for line in path.read_bytes().splitlines()] == [0, 1]


def test_one_event_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    sink = open_sink(str(tmp_path / "audit.jsonl"))
    sink.write(EVENT)  # behind the first line of the chain

    def write(descriptor: int, line: bytes) -> int:
        writes.append(line)
        return len(line)

    monkeypatch.setattr(os, "write", write)
    sink.write({**EVENT, "subject": "\U0001f424" * 5000})
    assert len(writes) == 1
    assert len(writes[0]) <= 4096


_WRITER = """
import sys
from toucan_guard.audit.open import open_sink
sink = open_sink("stdout")
for number in range(400):
    sink.write({"event": "decision", "event_id": f"{sys.argv[1]}-{number}", "subject": "\U0001f424" * 250})
"""


def test_many_processes_share_one_pipe_without_a_broken_line(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(name)], stdout=writing) for name in range(3)]
    os.close(writing)
    with os.fdopen(os.dup(reading), "rb") as stream:
        lines = stream.readlines()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert max(map(len, lines)) > 2500
    told = [event["event_id"] for event in _told(b"".join(lines))]
    assert sorted(told) == sorted(f"{name}-{n}" for name in range(3) for n in range(400))
    assert len(lines) == 1206  # each begins and ends its chain


@pytest.fixture
def host_pipeline() -> Iterator[list[dict[str, Any]]]:
    """A structlog that the host has configured for itself."""
    with structlog.testing.capture_logs() as seen:
        yield seen


def test_the_hosts_structlog_gets_the_whole_event(host_pipeline: list[dict[str, Any]]) -> None:
    sink = open_sink("structlog")
    sink.write(EVENT)
    sink.close()
    assert host_pipeline == [{**EVENT, "log_level": "info"}]


def test_what_the_hosts_pipeline_raises_is_a_failed_write() -> None:
    def failing(logger: Any, method: str, event: Any) -> Any:
        raise ValueError(f"cannot render {event['subject']}")

    structlog.configure(processors=[failing])
    with pytest.raises(AuditWriteError, match="ValueError") as raised:
        StructlogSink().write(EVENT)
    assert "user" not in str(raised.value)


@pytest.mark.parametrize("target", ["stdout", "structlog", "a file"])
def test_the_library_never_configures_structlog(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def never(**_: Any) -> None:
        pytest.fail("structlog belongs to the host")

    before = structlog.get_config()
    with monkeypatch.context() as patched:
        patched.setattr(structlog, "configure", never)
        patched.setattr(structlog, "configure_once", never)
        _write_one(target, tmp_path)
    assert structlog.get_config() == before
    assert not structlog.is_configured()


def _write_one(target: str, tmp_path: Path) -> None:
    open_sink(str(tmp_path / "audit.jsonl") if target == "a file" else target).write(EVENT)


def test_the_hosts_processors_do_not_touch_the_guards_own_lines(tmp_path: Path) -> None:
    def spoil(logger: Any, method: str, event: Any) -> Any:
        raise structlog.DropEvent

    structlog.configure(processors=[spoil], wrapper_class=structlog.make_filtering_bound_logger(50))
    open_sink(str(tmp_path / "audit.jsonl")).write(EVENT)
    assert _lines(tmp_path / "audit.jsonl") == [EVENT]
