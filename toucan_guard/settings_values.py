"""How one setting is read: text from the environment or a value from Python, in; a typed value, out.

Every reader raises ``ValueError`` with the words that follow the variable's name
in the error ("must be …: do this instead"). The text of a secret, and the path
that stands where a secret's path belongs, are never quoted: operators paste the
one into the other.

Text from the environment is a ``Text``; anything else was given in Python and is
taken strictly (``True``, not ``"true"``), because there a wrong type is a bug and
not a matter of notation.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import SecretStr

from toucan_guard.whole_file import read_whole

PREFIX: Final = "TOUCAN_GUARD_"
MAX_FILE_BYTES: Final = 32 * 1024 * 1024  # a device such as /dev/zero must not fill the memory

_T = TypeVar("_T")

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


class Text(str):
    """A value as the environment gave it, with the variable that it came from.

    Its ``repr`` is masked, because pydantic-settings writes what its sources
    found into the log when ``PYDANTIC_SETTINGS_DEBUG`` is set.
    """

    variable: str

    def __new__(cls, value: str, variable: str) -> Text:
        made = super().__new__(cls, value)
        made.variable = variable
        return made

    def __repr__(self) -> str:
        return "'**********'"


@dataclass(frozen=True, slots=True)
class Mistake:
    """Stands in the place of a value that could not be read, until all mistakes are told at once."""

    sentence: str


def variable(name: str) -> str:
    """Name the environment variable of a field."""
    return PREFIX + name.upper()


def quoted(value: object) -> str:
    """Quote a value of the operator's for a message: one line, ASCII, short."""
    shown = ascii(str(value))
    return shown if len(shown) <= 80 else f"{shown[:76]}…'"


def one_line(text: str) -> str:
    """Write out whatever could break the line that a log shows."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Propose the name that was probably meant, or nothing."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not near and len(word) > 2:  # "prod" and "dev" are abbreviations
        near = [name for name in names if name.startswith(word)]
    return f" (did you mean {near[0]}?)" if near else ""


def kind(value: object) -> str:
    """Name a value's type without showing the value."""
    return f"a value of type {type(value).__name__}"


def judged(items: Iterable[str], judge: Callable[[str], _T]) -> tuple[_T, ...]:
    """Judge every item, so that all wrong ones are told at once; duplicates are dropped."""
    kept: dict[_T, None] = {}
    wrong: list[str] = []
    for item in items:
        try:
            kept[judge(item)] = None
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    return tuple(kept)


def _filled(value: str) -> str:
    if not value.strip():
        raise ValueError("is set but empty: give it a value or remove it")
    if isinstance(value, Text):
        _refuse_quotes(value, "\"'")
    return value


def _refuse_quotes(value: Text, marks: str) -> None:
    """A shell takes quotation marks away, an env file keeps them, and then nothing that is compared exactly fits."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in marks:
        raise ValueError("stands in quotation marks, which are part of the value here: remove them")


def read_flag(value: object) -> bool:
    """Read a switch; ``true 1 yes on`` or ``false 0 no off`` from the environment, a bool from Python."""
    if isinstance(value, Text):
        word = _filled(value).strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        raise ValueError(f"must be true or false, not {quoted(value)}: write one of the two")
    if isinstance(value, bool):
        return value
    raise ValueError(f"must be True or False, not {kind(value)}: give a bool")


def whole_number(low: int, high: int) -> Callable[[object], int]:
    """Make a reader of whole numbers from ``low`` to ``high``."""

    def read(value: object) -> int:
        wanted = f"must be a whole number from {low} to {high}"
        if isinstance(value, Text):
            digits = _filled(value).strip()
            # int() would also take "1_000", "٣" and "+5", which nobody writes on purpose.
            if not re.fullmatch(r"-?[0-9]{1,18}", digits):
                raise ValueError(f"{wanted}, not {quoted(value)}: write it in digits")
            value = int(digits)
        elif isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{wanted}, not {kind(value)}: give an int")
        if not low <= value <= high:
            shown = f", not {value}" if value.bit_length() < 64 else ""  # Python refuses to write out the hugest
            raise ValueError(f"{wanted}{shown}: {'raise' if value < low else 'lower'} it")
        return value

    return read


def one_of(*words: str) -> Callable[[object], str]:
    """Make a reader that takes one of a few words."""

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be {' or '.join(words)}, not {kind(value)}: give one of the words")
        word = _filled(value).strip() if isinstance(value, Text) else value
        if word in words:
            return str(word)
        raise ValueError(f"must be {' or '.join(words)}, not {quoted(value)}{did_you_mean(word.lower(), words)}")

    return read


def read_text(value: object) -> str:
    """Read text that is compared exactly, so that invisible characters are refused and never trimmed."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {kind(value)}: give a str")
    _filled(value)
    if value != value.strip():
        raise ValueError("begins or ends with a space or newline: remove it, for the text is compared exactly")
    if not value.isprintable():
        raise ValueError("holds a control character or is not UTF-8 text: write printable characters only")
    return str(value)


def read_list(value: object) -> tuple[str, ...]:
    """Read a comma list from the environment, a list, tuple or set of str from Python.

    A bare ``str`` in Python is refused: ``("https://a")`` without its comma is
    a mistake that would otherwise be read letter by letter, or guessed at.
    """
    items: list[str] = []
    if isinstance(value, Text):
        _refuse_quotes(value, '"')  # 'self' is written in single ones
        items = [item.strip() for item in value.split(",")]
        return tuple(dict.fromkeys(item for item in items if item))
    if isinstance(value, str):
        raise ValueError('is one string where a list belongs: give a list of strings, such as ["…"]')
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError(f"must be a list of strings, not {kind(value)}: give a list")
    for item in value:
        if not isinstance(item, str):
            raise ValueError(f"must be a list of strings, but holds {kind(item)}: give strings only")
        if not item.strip():
            raise ValueError("holds an empty item: remove it")
        items.append(str(item))
    return tuple(dict.fromkeys(sorted(items) if isinstance(value, set | frozenset) else items))


def read_audience(value: object) -> tuple[str, ...]:
    """Read one audience, several in a list, or, as from the environment, a comma list."""
    if isinstance(value, str) and not isinstance(value, Text):
        value = Text(value, variable("audience"))
    items = read_list(value)
    if not items:
        raise ValueError("names nobody: give the aud value that this service's tokens carry")
    return judged(items, read_text)


def read_path(value: object) -> Path:
    """Read a path; whether a file is there is found out when it is opened."""
    if not isinstance(value, str | Path):
        raise ValueError(f"must be the path of a file, not {kind(value)}: give a str or a Path")
    return Path(read_text(str(value)))


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8 text: write it in hex or base64") from None
    return text


def read_secret(value: object) -> SecretStr:
    """Read a secret that was given directly; a newline at its end is the most usual way to break one."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise ValueError(f"must be text, not {kind(text)}: give a str")
    _filled(text)
    return secret_of(str(text), newline_mend="set it without one (printf '%s', not echo) or use the _FILE variant")


def secret_of(text: str, *, newline_mend: str) -> SecretStr:
    """Check what surrounds a secret. How strong it is, is judged where it becomes a key."""
    _filled(_utf8(text))
    if text.endswith(("\n", "\r")):
        raise ValueError(f"ends with a newline: {newline_mend}")
    if text != text.strip() or text.startswith("\ufeff"):
        raise ValueError("begins or ends with a space, newline or byte order mark: remove it")
    return SecretStr(text)


def read_keys(value: object) -> SecretStr:
    """Read verification keys given directly: a JWKS as text, or in Python as the parsed object."""
    if isinstance(value, Mapping):
        try:
            value = json.dumps(dict(value))
        except (TypeError, ValueError, RecursionError):
            raise ValueError("is not a JWKS: give an object that JSON can hold") from None
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        raise ValueError(f"must be a JWKS as text, not {kind(text)}: give a str")
    return SecretStr(_filled(_utf8(str(text))))


def read_file(path: Path) -> str:
    """Read a file of UTF-8 text whole; errors name no path and show no content."""
    try:
        _, content = read_whole(path, most=MAX_FILE_BYTES)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise ValueError(f"names a file that cannot be read ({why or 'not a path'}): check path and rights") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError("names a file of more than 32 MiB: check the path")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValueError("names a file that is not UTF-8 text: check the path, or save it as UTF-8") from None
    if not text.strip():
        raise ValueError("names a file that is empty: check the path, or fill the file")
    if text.startswith("\ufeff"):
        raise ValueError("names a file that begins with a byte order mark: save it as UTF-8 without one")
    return text


def without_one_newline(text: str) -> str:
    """Drop exactly one line end: editors and ``echo`` add one, a second belongs to nobody."""
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
