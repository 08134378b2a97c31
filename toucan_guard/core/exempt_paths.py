"""Which paths are not protected: compared whole, or by whole segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from toucan_guard.core.errors import ConfigError

_SAFE_METHODS: Final = ("GET", "HEAD")


def exempt_paths(paths: Iterable[str], prefixes: Iterable[str]) -> Callable[[str, str], bool]:
    """The function that says of a method and a path whether the request goes past the guard.

    Args:
        paths: Exact paths.
        prefixes: Whole-segment prefixes, for GET and HEAD only.

    Raises:
        ConfigError: One text in place of a list, or the prefix ``/``.
    """
    if isinstance(paths, str) or isinstance(prefixes, str):
        raise ConfigError('exempt paths and prefixes are lists: write ["/health"] instead of one text')
    exact = frozenset(paths)
    folders = tuple(prefix.rstrip("/") + "/" for prefix in prefixes)
    if "/" in folders:
        raise ConfigError("the exempt prefix '/' would exempt everything: name the folders, such as /static")

    def is_exempt(method: str, path: str) -> bool:
        if path in exact:
            return True
        if not folders or method not in _SAFE_METHODS:
            return False
        # A path that could be normalised to another one is not judged by its beginning.
        if "\\" in path or any(segment in ("", ".", "..") for segment in path.split("/")[1:-1]) or path.endswith("/.."):
            return False
        return path.startswith(folders)

    return is_exempt
