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
import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import SecretStr

from toucan_guard.core.credentials import CARRIERS
from toucan_guard.core.origins import parse_origin
from toucan_guard.core.token import RESERVED_CLAIMS

PREFIX: Final = "TOUCAN_GUARD_"
MAX_FILE_BYTES: Final = 32 * 1024 * 1024  # a device such as /dev/zero must not fill the memory

_T = TypeVar("_T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_REPORTABLE: Final = ("frame_ancestors", "grant", "origin", "region")
_NEVER_REPORT_ONLY: Final = ("audience", "expiry", "issuer", "rls", "signature")


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


def _judged(items: Iterable[str], judge: Callable[[str], _T]) -> tuple[_T, ...]:
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
    return _judged(items, read_text)


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
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
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


def read_networks(value: object) -> tuple[Network, ...]:
    """Read IP addresses and networks; a name would have to be resolved, and could change."""
    if isinstance(value, list | tuple | set | frozenset):
        addresses = ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network
        value = [str(item) if isinstance(item, addresses) else item for item in value]
    return _judged(read_list(value), _network)


def _network(item: str) -> Network:
    try:
        network = ipaddress.ip_network(item, strict=False)
    except ValueError:
        raise ValueError(
            f"holds {quoted(item)}, which is no IP address or network: write such as 10.0.0.7 or 10.0.0.0/8"
        ) from None
    try:
        ipaddress.ip_network(item)
    except ValueError:
        raise ValueError(f"holds {quoted(item)}, whose host bits are set: write {network} for the network") from None
    if network.prefixlen == 0:
        raise ValueError(f"holds {quoted(item)}, which trusts every address: name your proxies' own networks")
    return network


def read_carriers(value: object) -> tuple[str, ...]:
    """Read where a token may travel; two of the words are header names, so case does not count."""
    carriers = _judged(read_list(value), _carrier)
    if not carriers:
        raise ValueError(f"is empty, so that no token could arrive: name some of {', '.join(CARRIERS)}")
    return tuple(sorted(carriers))


def _carrier(item: str) -> str:
    carrier = item.lower()
    if carrier in CARRIERS:
        return carrier
    raise ValueError(f"holds {quoted(item)}{did_you_mean(carrier, CARRIERS)}: it may name {', '.join(CARRIERS)}")


def read_report_only(value: object) -> tuple[str, ...]:
    """Read which decisions are only recorded."""
    return tuple(sorted(_judged(read_list(value), _reportable)))


def _reportable(item: str) -> str:
    if item in _REPORTABLE:
        return item
    if item in _NEVER_REPORT_ONLY:
        raise ValueError(
            f"holds {item}, which is never report-only, because a request that fails it could see data that is not "
            "its own: remove it"
        )
    raise ValueError(f"holds {quoted(item)}{did_you_mean(item, _REPORTABLE)}: it may name {', '.join(_REPORTABLE)}")


def _exempt(item: str) -> str:
    wrong = ""
    if not item.startswith("/"):
        wrong = "does not begin with /: write the path from the root"
    elif "//" in item or "\\" in item:
        wrong = "has // or a backslash in it: write single slashes"
    elif any(segment in {".", ".."} for segment in item.split("/")):
        wrong = "has . or .. in it: write the path that is meant"
    elif "?" in item or "#" in item:
        wrong = "has a query or fragment: only the path is compared, so remove it"
    elif "*" in item:
        wrong = "has a wildcard: write whole paths in EXEMPT_PATHS and whole segments in EXEMPT_PREFIXES"
    elif "%" in item:
        wrong = "has a percent sign: write the decoded path, as the application sees it"
    elif not item.isprintable() or item != item.strip():
        wrong = "has a space around it or a control character in it: remove it"
    if wrong:
        raise ValueError(f"holds {quoted(item)}, which {wrong}")
    return item


def read_exempt_paths(value: object) -> tuple[str, ...]:
    """Read exact paths that are not guarded."""
    return tuple(sorted(_judged(read_list(value), _exempt)))


def read_exempt_prefixes(value: object) -> tuple[str, ...]:
    """Read whole-segment prefixes that are not guarded; ``/static/`` and ``/static`` mean the same."""
    return tuple(sorted(_judged(read_list(value), _exempt_prefix)))


def _exempt_prefix(item: str) -> str:
    if item == "/":
        raise ValueError("holds '/', which would exempt everything: name the folders, such as /static")
    return _exempt(item).removesuffix("/")


def read_claim(value: object) -> str:
    """Read the name that a claim of ours has in foreign tokens."""
    name = read_text(value)
    if name in RESERVED_CLAIMS:
        raise ValueError(f"is {name}, which has a meaning of its own in every token: name another claim")
    if len(name) > 256:
        raise ValueError("is longer than 256 characters: check it")
    return name


def read_columns(value: object) -> tuple[str, ...]:
    """Read the shorthand of row rules into ``table.column=attribute`` items."""
    if isinstance(value, Mapping):
        for pair in value.items():
            if not all(isinstance(part, str) and part.strip() and not {",", "="} & set(part) for part in pair):
                raise ValueError('must map columns to attributes, such as {"flights.carrier": "carrier"}: check it')
        value = [f"{column}={attribute}" for column, attribute in value.items()]
    elif isinstance(value, str) and not isinstance(value, Text):
        value = Text(value, variable("rls_columns"))
    items = read_list(value)
    if not items:
        raise ValueError("names no column: write such as flights.carrier=carrier, or remove it")
    return items


def read_audit(value: object) -> str:
    """Read where audit events go, and find out now whether a file could be written there."""
    if not isinstance(value, str | Path):
        raise ValueError(f"must be stdout, structlog or a path, not {kind(value)}: give a str or a Path")
    text = read_text(str(value).strip() if isinstance(value, Text) else str(value))
    if text in {"stdout", "structlog"}:
        return text
    path = Path(text)
    # "stdotu" is a misspelling and not a file: a bare word would log into a file that nobody looks for.
    if path.name == text and not path.suffix:
        hint = did_you_mean(text.lower(), ("stdout", "structlog"))
        raise ValueError(
            f"must be stdout, structlog or a path, not {quoted(text)}{hint}: write ./ before a file's name"
        )
    try:
        if text.endswith("/") or path.is_dir():
            raise ValueError("names a folder: name a file in it")
        if not path.parent.is_dir():
            raise ValueError("names a file in a folder that does not exist: make the folder first")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ValueError("names a file that may not be written: check the rights")
    except OSError as error:
        raise ValueError(f"names a file that cannot be reached ({error.strerror}): check path and rights") from None
    return text


def tenant_table(text: str) -> Mapping[str, object]:
    """Read the TOML of tenants and their origins: plain pairs, or the same in a ``[tenants]`` table."""
    try:
        table: dict[str, object] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        where = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deep"
        raise ValueError(f"names a file that is not TOML: {where}") from None
    inner = table.get("tenants")
    if not isinstance(inner, dict):
        return table
    if len(table) > 1:
        others = ", ".join(quoted(name) for name in sorted(table) if name != "tenants")
        raise ValueError(f"has {others} beside its [tenants] table: move every tenant into the table")
    return inner


def wrong_report_uri(text: str, *, development: bool) -> str:
    """Say what is wrong with the address of frame reports, or nothing.

    It goes into a header whose directives end at ``;`` and whose values end at ``,``: one such byte, and browsers
    would read another policy (CSP Level 3 §2.2.1).
    """
    parts = re.fullmatch(r"(https?)://([^/?#@]+)(?:[/?][!$%&'()*+./0-9:=?@A-Z_a-z~-]*)?", text)
    if parts is None or parse_origin(f"{parts[1]}://{parts[2]}".lower()) is None:
        return "must be a URL such as https://reports.example/csp, without spaces, commas, semicolons or user: mend it"
    if parts[1] == "http" and not development:
        return "must be an https URL: http is for TOUCAN_GUARD_ENVIRONMENT=development only"
    return ""
