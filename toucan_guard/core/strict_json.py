"""Strict JSON: a text that means the same to every reader, or a refusal.

Libraries are lenient where a guard must not be: of two members of one name they take the last, they read UTF-16, NaN
and endless nesting. What they let pass is what two readers of one token disagree about.

Nearly every token was written by a library in the shortest way, and that is quick to tell: a text that comes out again,
byte for byte, when what was read is written in the shortest way is UTF-8, repeats no member and holds nothing that
JSON does not know. Any other text is read slowly, with an eye on each rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NoReturn

from pydantic_core import from_json, to_json

MAX_JSON_DEPTH: Final = 32
_NESTED: Final[frozenset[type]] = frozenset({dict, list})

Codec = tuple[Callable[[bytes], object], Callable[[object], bytes]]


def shortest_codec() -> Codec:
    """What reads JSON, and what writes it in the shortest way: orjson where the extra ``[orjson]`` is installed.

    That nobody can tell which it is follows from what is asked of it: its reading counts only where its writing gives
    back the same bytes.
    """
    try:
        import orjson
    except ImportError:
        return partial(from_json, allow_inf_nan=False, cache_strings="keys"), to_json
    return orjson.loads, orjson.dumps


_read, _write = shortest_codec()


def strict_json(raw: bytes) -> object:
    """Decode JSON that means the same to every reader (RFC 8259, RFC 8725 §2.6).

    Refused beyond what JSON forbids: repeated members at any depth, numbers that are not finite, nesting deeper than
    32, byte order marks, encodings other than UTF-8, and lone surrogates, which cannot be written out again.

    Raises:
        ValueError: It is not strict JSON. The message never quotes the input.
    """
    try:
        decoded = _read(raw)
        # Nesting cannot be deeper than there are brackets, so that most texts are not walked at all.
        if _write(decoded) == raw and (
            raw.count(b"{") + raw.count(b"[") <= MAX_JSON_DEPTH or not _is_deeper(decoded, MAX_JSON_DEPTH)
        ):
            return decoded
    except (ValueError, TypeError):
        pass
    return read_slowly(raw)  # has the last word


def read_slowly(raw: bytes) -> object:
    """Decode any strict JSON, also what was not written in the shortest way; see ``strict_json``."""
    try:
        text = raw.decode("utf-8")
        decoded: object = _DECODER.decode(text)
        if text.count("[") + text.count("{") > MAX_JSON_DEPTH and _is_deeper(decoded, MAX_JSON_DEPTH):
            raise ValueError("nested too deeply")
        # Only an escape can make a lone surrogate, and only in a text that has one.
        if "\\u" in text:
            json.dumps(decoded, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise ValueError("not strict JSON") from None
    return decoded


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is repeated")
    return members


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("the number is too large")
    return number


def _is_deeper(value: object, limit: int) -> bool:
    level: list[Any] = [value] if value.__class__ in _NESTED else []
    for _ in range(limit):
        below: list[Any] = []
        for parent in level:
            below.extend(parent.values() if isinstance(parent, dict) else parent)
        level = [child for child in below if child.__class__ in _NESTED]
        if not level:
            return False
    return True


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_without_repeats, parse_constant=_refuse_constant, parse_float=_finite
)
