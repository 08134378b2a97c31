"""Changing the file of API keys: whole or not at all, one change at a time, readable by its owner only."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from toucan_guard.core.errors import ConfigError
from toucan_guard.tokens.api_key_book import ApiKeyBook
from toucan_guard.tokens.api_key_file import read_api_keys, write_api_keys

_NEW_MODE: Final = 0o600
_KEPT_MODE: Final = 0o640  # a group that may read keeps that; nobody else gets in, and nobody else writes


def change_book(
    path: Path, change: Callable[[ApiKeyBook], ApiKeyBook], *, pepper: bytes | None = None, development: bool = False
) -> ApiKeyBook:
    """Read the file, change it, and put the changed one in its place.

    A reader finds the old file or the new one, never half of one. Two who change it wait for each other.

    Args:
        path: The file.
        change: Gives the changed book.
        pepper: With it a file that does not exist begins empty.
        development: Whether ``http`` and loopback origins are in order.

    Raises:
        ConfigError: The file cannot be read or written, or it has mistakes, or would have.
    """
    # What a link points to is replaced, and not the link.
    path = Path(os.path.realpath(path))
    try:
        with _alone(path.parent):
            if pepper is not None and not path.exists():
                book = ApiKeyBook.empty(pepper)
            else:
                book = read_api_keys(path.read_text("utf-8"), development=development)
            changed = change(book)
            text = write_api_keys(changed)
            # What could not be read back is not written.
            read_api_keys(text, development=development)
            _replace(path, text)
    except OSError as error:
        raise ConfigError(f"the file of API keys cannot be read or written ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError("the file of API keys is not UTF-8 text") from None
    return changed


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    # Made with its mode, not made and then narrowed: in between anybody could open it.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _NEW_MODE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if path.exists():
                before = path.stat()
                # Where an administrator changes the file of a service, the service must still be able to read it.
                with suppress(OSError):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & _KEPT_MODE | _NEW_MODE)
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    with suppress(OSError):
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the file itself is replaced, so a lock on it would be lost."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
