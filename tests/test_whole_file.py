"""Files that are no files: pipes with a writer and without, in a folder and out of a shell; devices."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from toucan_guard import GuardSettings, whole_file
from toucan_guard.core.errors import ConfigError
from toucan_guard.whole_file import read_whole

SECRET = b"correct-horse-battery-staple-0123456789"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture
def writing() -> Iterator[Callable[..., None]]:
    """Write pieces into a named pipe from another thread, which waits for a reader as ``cat secret > pipe`` does."""
    threads: list[threading.Thread] = []

    def begin(path: Path, *pieces: bytes) -> None:
        def write() -> None:
            with path.open("wb", buffering=0) as file:
                for piece in pieces:
                    file.write(piece)

        threads.append(threading.Thread(target=write, daemon=True))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join(10)


def test_a_file_is_read_whole_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 200_000)
    state, content = read_whole(tmp_path / "file", most=200_000)
    assert (state.st_size, len(content)) == (200_000, 200_000)
    assert len(read_whole(tmp_path / "file", most=99_999)[1]) == 100_000
    assert len(read_whole(Path("/dev/zero"), most=100_000)[1]) == 100_001
    assert read_whole(Path("/dev/null"), most=9)[1] == b""
    with pytest.raises(IsADirectoryError):
        read_whole(tmp_path, most=9)
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "none", most=9)


def test_a_pipe_with_a_writer_is_read_to_its_end(pipe: Path, writing: Callable[..., None]) -> None:
    writing(pipe, SECRET[:9], SECRET[9:], b"x" * 200_000)
    assert read_whole(pipe, most=1_000_000)[1] == SECRET + b"x" * 200_000


def test_a_pipe_of_a_shell_is_read_though_its_writer_has_gone() -> None:
    """``SECRET_FILE=<(cat secret)``: the shell names one end of a pipe in /dev/fd."""
    reading, other = os.pipe()
    try:
        os.write(other, SECRET)
        os.close(other)
        assert read_whole(Path(f"/dev/fd/{reading}"), most=1_000)[1] == SECRET
    finally:
        os.close(reading)


def test_a_pipe_into_which_nobody_writes_is_an_error(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_file, "_SILENCE_SECONDS", 0.02)
    with pytest.raises(TimeoutError, match=r"nobody has written into it for 0\.02 seconds"):
        read_whole(pipe, most=9)
    held = os.open(pipe, os.O_RDWR)  # somebody who keeps it open and says nothing
    try:
        with pytest.raises(TimeoutError):
            read_whole(pipe, most=9)
    finally:
        os.close(held)


NAMES = (
    "secret_file", "keys_file", "rls_policy", "tenant_origins_file", "store_url_file", "api_keys_file",
    "api_key_pepper_file", "token_service_key_file", "pg_context_key_file", "audit_hmac_key_file",
    "audit_chain_key_file",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_names_a_pipe_without_a_writer_stops_the_start(
    name: str, pipe: Path, make_settings: Callable[..., GuardSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_file, "_SILENCE_SECONDS", 0.02)
    changes: dict[str, Any] = {name: pipe}
    if name in ("secret_file", "keys_file", "api_keys_file"):
        changes["secret"] = None
    if name == "api_keys_file":
        changes["token_service_key"] = SECRET.decode()
    if name == "rls_policy":
        changes["rls_columns"] = None
    with pytest.raises(ConfigError) as caught:
        make_settings(**changes)
    variable = f"TOUCAN_GUARD_{name.upper()}"
    told = [problem for problem in caught.value.problems if "nobody has written into it" in problem]
    assert [problem.split(" ")[0].rstrip(":") for problem in told] == [variable], caught.value.problems


def test_a_setting_that_names_a_pipe_with_a_writer(
    pipe: Path, make_settings: Callable[..., GuardSettings], writing: Callable[..., None]
) -> None:
    writing(pipe, SECRET + b"\n")
    made = make_settings(secret=None, secret_file=pipe)
    assert made.secret is not None
    assert made.secret.get_secret_value() == SECRET.decode()
