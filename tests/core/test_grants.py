"""Grants: a token reaches exactly what it names."""

from __future__ import annotations

import pytest

from toucan_guard.core.decisions import Allow, Deny, Reason
from toucan_guard.core.errors import MintError
from toucan_guard.core.grants import Grant, reaches, read_grants

VIEW_DELAYS = Grant("dashboard", "delays", ("view",))
VIEW_ALL = Grant("dashboard", "*", ("view",))


@pytest.mark.parametrize(
    ("grants", "wanted", "allowed"),
    [
        pytest.param([VIEW_DELAYS], ("dashboard", "delays", "view"), True, id="what is named is reached"),
        pytest.param([VIEW_DELAYS], ("dashboard", "routes", "view"), False, id="another object is not reached"),
        pytest.param([VIEW_DELAYS], ("question", "delays", "view"), False, id="another type is not reached"),
        pytest.param([VIEW_DELAYS], ("dashboard", "delays", "export"), False, id="another action is not reached"),
        pytest.param([VIEW_DELAYS], ("dashboard", "Delays", "view"), False, id="ids are compared with their case"),
        pytest.param([VIEW_DELAYS], ("dashboard", "delays ", "view"), False, id="ids are compared with their spaces"),
        pytest.param([VIEW_DELAYS], ("dashboard", "delay", "view"), False, id="a prefix of an id is another id"),
        pytest.param([VIEW_DELAYS], ("dashboard", "*", "view"), False, id="a star in the path opens nothing"),
        pytest.param([VIEW_ALL], ("dashboard", "routes", "view"), True, id="a star that is written out is every id"),
        pytest.param([VIEW_ALL], ("question", "routes", "view"), False, id="a star is every id of its type only"),
        pytest.param([VIEW_ALL], ("dashboard", "", "view"), False, id="an empty id is no object, for a star either"),
        pytest.param([VIEW_ALL], ("dashboard", None, "view"), False, id="a missing id is no object, for a star either"),
        pytest.param([VIEW_ALL], ("dashboard", 7, "view"), False, id="a number is not the text of an id"),
        pytest.param([], ("dashboard", "delays", "view"), False, id="no grants reach nothing"),
        pytest.param(
            [Grant("question", "delays", ("view",)), Grant("dashboard", "delays", ("edit", "view"))],
            ("dashboard", "delays", "view"),
            True,
            id="any grant of several may be the one",
        ),
        pytest.param(
            [Grant("dashboard", "delays", ("edit",)), Grant("dashboard", "routes", ("view",))],
            ("dashboard", "delays", "view"),
            False,
            id="the parts of two grants do not add up to a third",
        ),
    ],
)
def test_reach(grants: list[Grant], wanted: tuple[str, str, str], *, allowed: bool) -> None:
    decision = reaches(grants, *wanted)
    assert isinstance(decision, Allow) is allowed
    assert allowed or (isinstance(decision, Deny) and decision.reason is Reason.GRANT_MISSING)


CLAIM = {"type": "dashboard", "id": "delays", "actions": ["view", "export"]}


def test_a_claim_is_read_and_written_back_unchanged() -> None:
    grant = Grant.from_claim(CLAIM)
    assert grant == Grant("dashboard", "delays", ("view", "export"))
    assert grant.to_claim() == CLAIM


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param({**CLAIM, "dataset": "x"}, id="an unknown key is refused"),
        pytest.param({**CLAIM, "Actions": ["view"]}, id="a key in another case is an unknown key"),
        pytest.param({"type": "dashboard", "id": "delays"}, id="missing actions are refused"),
        pytest.param({"type": "dashboard", "id": "delays", "action": ["view"]}, id="a misspelt key is refused"),
        pytest.param({"type": "dashboard", "ids": "delays", "actions": ["view"]}, id="a misspelt id is not every id"),
        pytest.param({"type": "dashboard", "actions": ["view"]}, id="a missing id is not every id"),
        pytest.param({**CLAIM, "id": None}, id="a null id is refused"),
        pytest.param({**CLAIM, "id": 7}, id="a number for an id is refused"),
        pytest.param({**CLAIM, "id": ""}, id="an empty id is refused"),
        pytest.param({**CLAIM, "type": "*"}, id="a star for a type is refused"),
        pytest.param({**CLAIM, "actions": ["*"]}, id="a star for an action is refused"),
        pytest.param({**CLAIM, "actions": "view"}, id="a bare text of actions is refused"),
        pytest.param({**CLAIM, "actions": {"view": True}}, id="an object of actions is refused"),
        pytest.param({**CLAIM, "actions": []}, id="no actions are refused"),
        pytest.param({**CLAIM, "actions": ["view", 1]}, id="a number among the actions is refused"),
        pytest.param({**CLAIM, "actions": [["view"]]}, id="a list among the actions is refused"),
        pytest.param({**CLAIM, "actions": [""]}, id="an empty action is refused"),
        pytest.param({**CLAIM, "id": "de\nlays"}, id="a line break is refused"),
        pytest.param({**CLAIM, "id": "de\x00lays"}, id="a NUL is refused"),
        pytest.param({**CLAIM, "id": "de\x85lays"}, id="a C1 control character is refused"),
        pytest.param("dashboard", id="a text is refused"),
        pytest.param(None, id="a null is refused"),
        pytest.param([CLAIM], id="a list is refused"),
    ],
)
def test_a_claim_that_is_not_exactly_a_grant_is_none(claim: object) -> None:
    assert Grant.from_claim(claim) is None


def test_one_member_that_is_no_grant_spoils_them_all() -> None:
    assert read_grants([CLAIM, CLAIM]) == (Grant("dashboard", "delays", ("view", "export")),) * 2
    assert read_grants([]) == ()
    for bad in ({**CLAIM, "dataset": "x"}, {**CLAIM, "id": 7}, None):
        assert read_grants([CLAIM, bad]) is read_grants([bad, CLAIM]) is None


def test_a_grant_that_was_read_before_lets_no_look_alike_pass() -> None:
    """Grants are kept by their parts: what equals another part, or hashes like it, is another part."""
    one = {"type": "1", "id": "1", "actions": ["1"]}
    for _ in range(2):
        assert Grant.from_claim(one) == Grant("1", "1", ("1",))
        for part in ("type", "id"):
            for other in (1, True, 1.0, b"1", ["1"], {"1": 1}, None):
                assert Grant.from_claim({**one, part: other}) is None
        for action in (1, True, b"1", ["1"]):
            assert Grant.from_claim({**one, "actions": [action]}) is None
    # No part runs over into the next one.
    first, second = (Grant.from_claim({**one, "actions": actions}) for actions in (["a", "b"], ["ab"]))
    assert first != second


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(("", "delays", ("view",)), id="an empty type is refused"),
        pytest.param(("dashboard", "delays", "view"), id="a bare text where actions belong is refused"),
        pytest.param(("dashboard", "delays", b"view"), id="bytes where actions belong are refused"),
        pytest.param(("dashboard", "delays", None), id="None where actions belong is refused"),
        pytest.param(("dashboard", "delays", ()), id="a grant without actions is refused"),
        pytest.param(("dashboard", 7, ("view",)), id="a number for an id is refused"),
        pytest.param(("*", "*", ("view",)), id="a star for a type is refused"),
    ],
)
def test_a_mistaken_grant_is_not_made(parts: tuple[str, str, tuple[str, ...]]) -> None:
    with pytest.raises(MintError):
        Grant(*parts)


def test_a_grant_takes_any_collection_of_actions_and_is_frozen() -> None:
    grant = Grant("dashboard", "delays", ["view"])  # type: ignore[arg-type]
    assert grant == VIEW_DELAYS
    assert hash(grant) == hash(VIEW_DELAYS)
    with pytest.raises(AttributeError):
        grant.id = "*"  # type: ignore[misc]


def test_ids_beyond_ascii_are_ids() -> None:
    grant = Grant("dashboard", "Verspätungen 航班", ("view",))
    assert isinstance(reaches([grant], "dashboard", "Verspätungen 航班", "view"), Allow)
    assert isinstance(reaches([grant], "dashboard", "Verspa\u0308tungen 航班", "view"), Deny)
