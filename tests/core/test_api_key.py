"""The text of an API key: one way to write it, and a checksum that finds every slip of the pen."""

from __future__ import annotations

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toucan_guard.core.api_key import exposed_api_key, format_api_key, is_environment, is_key_id, parse_api_key
from toucan_guard.core.decisions import Deny, Reason

# A machine under load is no finding.
calm = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

KEY = format_api_key("live", "0123456789ab", bytes(range(32)))
ENVIRONMENTS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=16)
KEY_IDS = st.text(string.ascii_lowercase + string.digits, min_size=12, max_size=12)


@calm
@given(ENVIRONMENTS, KEY_IDS, st.binary(min_size=32, max_size=32))
def test_what_was_written_is_read(environment: str, key_id: str, secret: bytes) -> None:
    key = format_api_key(environment, key_id, secret)
    assert parse_api_key(key.text) == key
    assert (key.environment, key.key_id) == (environment, key_id)
    assert key.text.startswith(f"tgk_{environment}_{key_id}_")


def test_every_other_character_at_every_place_is_refused() -> None:
    for place in range(len(KEY.text)):
        for character in string.printable + "é\x00":
            if character != KEY.text[place]:
                assert parse_api_key(KEY.text[:place] + character + KEY.text[place + 1 :]) is None


@calm
@given(st.data())
def test_two_characters_that_changed_places_are_noticed(data: st.DataObject) -> None:
    one, two = (data.draw(st.integers(0, len(KEY.text) - 1)) for _ in range(2))
    swapped = list(KEY.text)
    swapped[one], swapped[two] = swapped[two], swapped[one]
    assert ("".join(swapped) == KEY.text) is (parse_api_key("".join(swapped)) is not None)


@calm
@given(st.text())
def test_any_text_is_a_key_or_none(text: str) -> None:
    key = parse_api_key(text)
    assert key is None or key.text == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(KEY.text + "\n", id="a newline at the end"),
        pytest.param(" " + KEY.text, id="a space in front"),
        pytest.param(KEY.text.upper(), id="in capitals"),
        pytest.param(KEY.text.replace("_", "-"), id="other separators"),
        pytest.param(KEY.text + KEY.text, id="twice"),
        pytest.param(KEY.text.replace("tgk_", "TGK_"), id="another prefix"),
        pytest.param(KEY.text.replace("live", ""), id="no environment"),
        pytest.param("tgk_" + "a" * 100_000, id="endless"),
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert parse_api_key(text) is None


def test_more_than_256_bits_are_none_although_the_checksum_is_right() -> None:
    from toucan_guard.core.api_key import _checksum

    text = f"tgk_live_0123456789ab_{'z' * 43}"
    assert parse_api_key(f"{text}_{_checksum(text)}") is None


@pytest.mark.parametrize(
    ("environment", "key_id", "secret"),
    [
        pytest.param("", "0123456789ab", bytes(32), id="no environment"),
        pytest.param("Live", "0123456789ab", bytes(32), id="a capital"),
        pytest.param("a_b", "0123456789ab", bytes(32), id="a separator in it"),
        pytest.param("live", "0123456789a", bytes(32), id="a short id"),
        pytest.param("live", "0123456789ab", bytes(31), id="too few bits"),
    ],
)
def test_what_could_not_be_read_is_not_written(environment: str, key_id: str, secret: bytes) -> None:
    with pytest.raises(ValueError, match="API key"):
        format_api_key(environment, key_id, secret)


def test_the_secret_is_not_in_the_repr() -> None:
    assert KEY.text[25:] not in repr(KEY)


def test_names_are_judged_whatever_they_are() -> None:
    assert not is_key_id(7)
    assert not is_environment(None)


@pytest.mark.parametrize(
    ("presented", "evidence", "named", "exposed"),
    [
        pytest.param([KEY.text], [], False, False, id="a server sends no Origin"),
        pytest.param([], ["https://portal.example"], False, False, id="a browser without a key"),
        pytest.param([KEY.text], ["https://portal.example"], False, True, id="a browser with a key"),
        pytest.param(["nonsense"], ["cross-site"], False, True, id="a browser with what may be a key"),
        pytest.param([], ["https://portal.example"], True, True, id="a preflight that asks to send one"),
        pytest.param([], [], True, False, id="no preflight of a browser"),
    ],
)
def test_a_key_in_a_browser_is_exposed(presented: list[str], evidence: list[str], named: bool, exposed: bool) -> None:
    found = exposed_api_key(presented, evidence, named=named)
    assert isinstance(found, Deny) is exposed
    if found is not None:
        assert found.reason is Reason.API_KEY_EXPOSED
        assert found.facts == ({"key_id": "0123456789ab"} if presented == [KEY.text] else {})
