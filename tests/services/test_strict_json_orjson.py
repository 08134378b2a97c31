"""With orjson and without: the same texts are read, as the same values, and the same are refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toucan_guard.core import strict_json as module
from toucan_guard.core.strict_json import Codec, read_slowly, shortest_codec, strict_json

orjson = pytest.importorskip("orjson")


def _without() -> Codec:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "orjson", None)
        return shortest_codec()


CODECS = {"with": shortest_codec(), "without": _without()}


def outcomes(raw: bytes) -> set[str]:
    """What each reader makes of a text, in words that tell types, order and the sign of a zero."""
    found = {_outcome(read_slowly, raw)}
    for read, write in CODECS.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_read", read)
            patch.setattr(module, "_write", write)
            found.add(_outcome(strict_json, raw))
    return found


def _outcome(read: Callable[[bytes], object], raw: bytes) -> str:
    try:
        return f"read {read(raw)!r}"
    except ValueError as error:
        return f"refused: {error}"


def test_orjson_is_what_is_used() -> None:
    assert CODECS["with"] == (orjson.loads, orjson.dumps)
    assert orjson.loads not in CODECS["without"]


_texts = st.text(st.sampled_from('a"\\/\n\x00\x1f\x7f\u00e9\u2028\U0001f600:,{}[]'), max_size=6)
_numbers = st.one_of(
    st.integers(-20, 20),
    st.integers(-(2**66), 2**66),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**53, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 1e16, 1e22, 1e23, 5e-324, -0.0, 1e-7]),
)
_values = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def _spelled(draw: st.DrawFn) -> bytes:
    """JSON as several libraries write it, some of it hurt in a place or two."""
    value, shortest = draw(_values), draw(st.booleans())
    if shortest and draw(st.booleans()):
        raw: bytes = CODECS["without"][1](value)
    else:
        separators = (",", ":") if shortest else (", ", ": ")
        raw = json.dumps(value, ensure_ascii=draw(st.booleans()), separators=separators).encode()
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(raw)))
        put = draw(st.sampled_from([b"", b"\xc3", *(bytes([byte]) for byte in b'":,{}[]\\u0189eE+-. \n')]))
        raw = raw[:place] + put + raw[place + draw(st.integers(0, 1)) :]
    return raw


@settings(max_examples=3000, deadline=None)
@given(_spelled() | st.binary(max_size=16))
def test_no_library_can_be_told_from_the_slow_reader(raw: bytes) -> None:
    assert len(outcomes(raw)) == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"9" * 4300, id="as many digits as Python reads"),
        pytest.param(b"9" * 4301, id="one digit more"),
        pytest.param(b'{"a":' + b"1" * 8000 + b"}", id="a number that fills a token"),
        pytest.param(b"[" * 32 + b"]" * 32, id="32 levels"),
        pytest.param(b"[" * 33 + b"]" * 33, id="33 levels"),
        pytest.param(b"[1E5,1e5,1e+5,100000.0,1e05]", id="one number in five spellings"),
        pytest.param(b'"\\ud83d\\ude00"', id="a pair of surrogates"),
        pytest.param(b'"\\ude00\\ud83d"', id="a pair of surrogates the wrong way round"),
        pytest.param(b'{"a":1,"b":2,"a":1}', id="a repeated member"),
        pytest.param(b'{"\\u0061":1,"a":1}', id="a member repeated by an escape"),
    ],
)
def test_what_libraries_are_known_to_read_differently(raw: bytes) -> None:
    assert len(outcomes(raw)) == 1
