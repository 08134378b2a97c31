"""Strict JSON: one meaning or none, whichever library reads it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toucan_guard.core import strict_json as module
from toucan_guard.core.strict_json import Codec, read_slowly, shortest_codec, strict_json


def _without_orjson() -> Codec:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "orjson", None)
        return shortest_codec()


def _with_orjson() -> Codec:
    pytest.importorskip("orjson")
    return shortest_codec()


@pytest.fixture(params=[_without_orjson, _with_orjson], ids=["without orjson", "with orjson"])
def codec(request: pytest.FixtureRequest) -> Iterator[None]:
    read, write = request.param()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_read", read)
        patch.setattr(module, "_write", write)
        yield


def outcome(read: Callable[[bytes], object], raw: bytes) -> str:
    try:
        # Types, the order of members and the sign of a zero are part of what was read.
        return f"read {read(raw)!r}"
    except ValueError as error:
        return f"refused: {error}"


def test_orjson_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: Any = ModuleType("orjson")
    installed.loads, installed.dumps = json.loads, json.dumps
    monkeypatch.setitem(sys.modules, "orjson", installed)
    assert shortest_codec() == (json.loads, json.dumps)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"a":1,"a":1}', id="a repeated member"),
        pytest.param(b'{"a":1,"\\u0061":1}', id="a member repeated by an escape"),
        pytest.param(b'{"":1,"":2}', id="a repeated member without a name"),
        pytest.param(b'[{"x":{"a":1,"b":2,"a":1}}]', id="a repeated member inside"),
        pytest.param(b"[NaN]", id="NaN"),
        pytest.param(b"NaN", id="NaN alone"),
        pytest.param(b"Infinity", id="Infinity"),
        pytest.param(b"-Infinity", id="minus Infinity"),
        pytest.param(b"[1e999]", id="a number that is infinite as a float"),
        pytest.param(b"9" * 5000, id="a number of 5,000 digits"),
        pytest.param(b"[01]", id="a leading zero"),
        pytest.param(b"[1.]", id="a dot without digits"),
        pytest.param(b"[+1]", id="a plus"),
        pytest.param(b'"\\ud800"', id="a lone surrogate"),
        pytest.param(b'"\xed\xa0\x80"', id="a surrogate in UTF-8"),
        pytest.param(b'"\xc0\xaf"', id="an overlong form"),
        pytest.param(b"\xef\xbb\xbf1", id="a byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'"a\x01b"', id="a raw control character"),
        pytest.param(b"[" * 33 + b"]" * 33, id="33 levels"),
        pytest.param(b'{"a":' * 33 + b"1" + b"}" * 33, id="33 levels of objects"),
        pytest.param(b"[[]," * 32 + b"[" + b"]" * 33, id="33 levels behind others"),
        pytest.param(b"[" * 210 + b"]" * 210, id="210 levels"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="5,000 levels"),
        pytest.param(b"[1]2", id="junk behind"),
        pytest.param(b"[1,]", id="a comma too many"),
        pytest.param(b"", id="nothing"),
    ],
)
@pytest.mark.usefixtures("codec")
def test_what_two_readers_may_disagree_about_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not strict JSON$"):
        strict_json(raw)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"iss":"a","exp":1800000000,"rls":{"carrier":"AA"},"grants":[]}', id="the shortest way"),
        pytest.param(b' {"a" : [1, -2.5, 1e3, true, null, "\xc3\xa9"]}\r\n', id="white space"),
        pytest.param(b'{"a":"\\u00e9\\/\\ud83d\\ude00"}', id="escapes that need not be"),
        pytest.param(b'"\\u0000\\u001f\\b\\t\\n\\f\\r\\"\\\\"', id="escapes that must be"),
        pytest.param(b"[-0,-0.0,0.0,1.0,1.10]", id="zeros"),
        pytest.param(b"[9007199254740993,18446744073709551616,-9223372036854775809]", id="large integers"),
        pytest.param(b"9" * 4300, id="a number of 4,300 digits"),
        pytest.param(b"[5e-324,1.7976931348623157e308,1e16,1e+16,0.1,123456789012345680000.0]", id="floats"),
        pytest.param(b"[" * 32 + b"]" * 32, id="32 levels"),
        pytest.param(b"[" + b"[]," * 40 + b"[]]", id="many brackets that are not nested"),
        pytest.param(b'[{},"[",' * 31 + b"[1]" + b"]" * 31, id="32 levels behind others"),
        pytest.param(b'"' + b"[" * 40 + b'"', id="brackets in a text"),
        pytest.param('"\u2028\x7f"'.encode(), id="characters that some libraries escape"),
    ],
)
@pytest.mark.usefixtures("codec")
def test_all_of_json_is_read_as_the_standard_library_reads_it(raw: bytes) -> None:
    assert repr(strict_json(raw)) == repr(json.loads(raw))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def _texts(draw: st.DrawFn) -> bytes:
    """JSON in several spellings, some of it hurt in a place or two."""
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :")]))
    text = json.dumps(draw(_json), ensure_ascii=draw(st.booleans()), separators=separators)
    raw = text.encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(raw)))
        put = draw(
            st.sampled_from([b"", b'"', b":", b",", b"{", b"}", b"[", b"]", b"\\", b"0", b"e", b".", b"-", b" "])
        )
        raw = raw[:place] + put + raw[place + draw(st.integers(0, 1)) :]
    return raw


@st.composite
def _deep(draw: st.DrawFn) -> bytes:
    """About as many levels as are allowed, with others beside them."""
    begins = draw(
        st.lists(st.sampled_from(["[", '{"a":', "[[],", '["{",', '{"b":{"c":[]},"a":']), min_size=28, max_size=36)
    )
    ends = "".join("]" if begin[0] == "[" else "}" for begin in reversed(begins))
    return f"{''.join(begins)}{draw(st.sampled_from(['1', '[]', '{}']))}{ends}".encode()


@pytest.mark.usefixtures("codec")
@given(_texts() | _deep() | st.binary(max_size=12))
@example(b'{"a":1,"a":1}')
def test_no_text_is_read_otherwise_than_slowly(raw: bytes) -> None:
    assert outcome(strict_json, raw) == outcome(read_slowly, raw)


@pytest.mark.parametrize(
    ("read", "write"),
    [
        pytest.param(lambda raw: {"a": 2}, lambda value: b'{"a":2}', id="a reader that reads something else"),
        pytest.param(json.loads, lambda value: b'{"a": 1}', id="a writer that writes otherwise"),
    ],
)
def test_a_reading_counts_only_where_it_gives_back_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, read: Any, write: Any
) -> None:
    monkeypatch.setattr(module, "_read", read)
    monkeypatch.setattr(module, "_write", write)
    assert strict_json(b'{"a":1}') == {"a": 1}


@pytest.mark.parametrize("error", [ValueError, TypeError])
def test_what_a_library_cannot_read_or_write_is_read_slowly(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(_: object) -> bytes:
        raise error("a value that must not be shown")

    monkeypatch.setattr(module, "_write", fails)
    assert strict_json(b'{"a":1}') == {"a": 1}
    monkeypatch.setattr(module, "_read", fails)
    assert strict_json(b'{"a":1}') == {"a": 1}
