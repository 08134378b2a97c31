"""Pseudonyms: the same for the same person, another for every field and key, and nothing of the person in them."""

from __future__ import annotations

import re

from toucan_guard.core.pseudonyms import FIELDS, Pseudonyms

KEY = b"correct-horse-battery-staple-0123456789"


def test_the_same_value_has_the_same_pseudonym_under_one_key() -> None:
    assert Pseudonyms(KEY).of("subject", "user-1") == Pseudonyms(KEY).of("subject", "user-1")
    assert re.fullmatch(r"hmac:[0-9a-f]{32}", Pseudonyms(KEY).of("subject", "user-1"))


def test_fields_keys_and_values_have_pseudonyms_of_their_own() -> None:
    made = {
        Pseudonyms(key).of(field, value)
        for key in (KEY, KEY + b"!")
        for field in FIELDS
        for value in ("user-1", "user-2", "", "\ud800")
    }
    assert len(made) == 2 * 3 * 4


def test_an_event_is_hidden_field_by_field() -> None:
    pseudonyms = Pseudonyms(KEY)
    event = {"subject": "user-1", "token_id": "t-1", "client": None, "tenant": "acme", "outcome": "allow"}
    pseudonyms.hide(event)
    assert event == {
        "subject": pseudonyms.of("subject", "user-1"),
        "token_id": pseudonyms.of("token_id", "t-1"),
        "client": None,
        "tenant": "acme",
        "outcome": "allow",
    }
    completion = {"decision_id": "d-1"}
    pseudonyms.hide(completion)
    assert completion == {"decision_id": "d-1"}
