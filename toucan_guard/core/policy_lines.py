"""In which line of a TOML or JSON file something stands.

The parsers of the standard library keep no places. This reads a text that one of them has accepted, and
notes the line of each name and of each item of a list, under paths as mistakes are named by:
``tables.flights.all[0].column``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}"  # text of several lines
    r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'"  # text of one line
    r"|\#[^\n]*|[\[\]{}=:,.\n]|[^\s\[\]{}=:,.\"'#]+",
    re.DOTALL,
)  # fmt: skip


class _Token(NamedTuple):
    text: str
    line: int


def lines_of(text: str) -> Mapping[str, int]:
    """The line of each path of an accepted text, counted from 1. What it does not understand it leaves out."""
    lines: dict[str, int] = {}
    try:
        _Scan(text, lines).document()
    except (StopIteration, RecursionError, tomllib.TOMLDecodeError):  # then some places have no line
        return lines
    return lines


def line_of(place: str, lines: Mapping[str, int]) -> int | None:
    """The line of a place, or of the nearest thing around it that has one."""
    while place not in lines:
        shorter = re.sub(r"(?:\[[0-9]+\]|\.?[^.\[\]]*)\Z", "", place, count=1)
        if shorter == place or not shorter:
            return None
        place = shorter
    return lines[place]


class _Scan:
    """Walks over the tokens; ``StopIteration`` is the end of the text."""

    def __init__(self, text: str, lines: dict[str, int]) -> None:
        self._tokens: Iterator[_Token] = _tokens(text)
        self._lines = lines
        self._now = _Token("\n", 0)

    def document(self) -> None:
        self._next()
        self._skip()
        if self._now.text == "{":
            return self._value("")
        table, counted = "", dict[str, int]()
        while True:
            self._skip()
            if self._now.text != "[":
                self._pair(table)
                continue
            line = self._now.line
            self._next()
            several = self._now.text == "["
            if several:
                self._next()
            table = self._key()
            self._lines.setdefault(table, line)
            self._next()
            if several:
                self._next()
                counted[table] = counted.get(table, -1) + 1
                table = f"{table}[{counted[table]}]"
                self._lines[table] = line

    def _pair(self, table: str) -> None:
        line = self._now.line
        name = self._key()
        path = f"{table}.{name}" if table else name
        self._lines.setdefault(path, line)
        self._next()  # = or :
        self._skip()
        self._value(path)

    def _key(self) -> str:
        parts = []
        while self._now.text not in ("=", ":", "]"):
            if self._now.text != ".":
                parts.append(_unquoted(self._now.text))
            self._next()
        return ".".join(parts)

    def _value(self, path: str) -> None:
        opened = self._now.text
        if opened not in ("{", "["):
            while self._now.text not in (",", "]", "}", "\n"):
                self._next()
            return
        self._next()
        index = 0
        while True:
            self._skip()
            if self._now.text in ("]", "}"):
                return self._next()
            if self._now.text == ",":
                self._next()
            elif opened == "{":
                self._pair(path)
            else:
                item = f"{path}[{index}]"
                self._lines[item] = self._now.line
                self._value(item)
                index += 1

    def _skip(self) -> None:
        while self._now.text == "\n" or self._now.text.startswith("#"):
            self._next()

    def _next(self) -> None:
        self._now = next(self._tokens)


def _tokens(text: str) -> Iterator[_Token]:
    line, before = 1, 0
    for found in _TOKEN.finditer(text):
        line += text.count("\n", before, found.start())
        before = found.start()
        yield _Token(found.group(), line)
    yield _Token("\n", line)


def _unquoted(name: str) -> str:
    return str(tomllib.loads(f"name = {name}")["name"]) if name[0] in "\"'" else name
