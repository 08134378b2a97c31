"""With orjson and without: lines of the same meaning, whatever is in the event."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toucan_guard import Reason
from toucan_guard.audit.json_lines import fastest_dump
from toucan_guard.core.audit_line import dump_json, encode_line

pytest.importorskip("orjson")

_text = st.text(st.characters(exclude_categories=()), max_size=60)  # surrogates and controls included
_plain = (
    st.none() | st.booleans() | st.integers() | st.integers(2**62, 2**65) | st.floats() | _text
    | st.sampled_from(Reason) | st.sampled_from(["x" * 256, "x" * 257, "\x7f", "\u2028", "\ud800"])
)  # fmt: skip
_values = st.recursive(_plain, lambda inner: st.lists(inner, max_size=35) | st.dictionaries(_text, inner, max_size=8))
_events = st.dictionaries(_text, _values, max_size=6)


@settings(max_examples=150, deadline=None)
@given(_events)
def test_both_write_the_same(event: dict[str, Any]) -> None:
    dump = fastest_dump()
    assert dump is not dump_json
    lines = encode_line(event, dump=dump), encode_line(event)
    for line in lines:
        assert line.isascii()
        assert len(line) <= 4096
        assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    one, other = (json.loads(line, parse_constant=pytest.fail) for line in lines)
    assert one == other
    assert json.dumps(one) == json.dumps(other)  # 1 and 1.0 and True are not the same


def test_without_orjson_the_standard_library_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert fastest_dump() is dump_json
