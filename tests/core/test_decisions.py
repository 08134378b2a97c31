"""Allow and Deny: frozen, never a boolean, and every reason with something to say."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from enum import Enum
from typing import Any

import pytest

from toucan_guard.core.decisions import EXPLANATIONS, Allow, Deny, Explanation, Reason
from toucan_guard.core.embed import Embed
from toucan_guard.core.grants import Grant


@pytest.mark.parametrize("decision", [Allow(), Deny(Reason.TOKEN_MISSING)], ids=["Allow", "Deny"])
def test_a_decision_is_no_boolean(decision: Allow | Deny) -> None:
    with pytest.raises(TypeError, match="isinstance"):
        bool(decision)
    with pytest.raises(TypeError):
        assert not decision


@pytest.mark.parametrize(
    ("decision", "name"),
    [(Allow(), "facts"), (Deny(Reason.TOKEN_MISSING), "reason"), (Deny("x_own"), "status")],
    ids=["Allow's facts", "Deny's reason", "Deny's status"],
)
def test_a_decision_does_not_change(decision: Allow | Deny, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(decision, name, None)


def test_the_facts_that_decisions_share_by_default_cannot_be_written_to() -> None:
    facts: Any = Allow().facts
    with pytest.raises(TypeError):
        facts["origin"] = "https://evil.example"
    assert Allow().facts == Deny("x_own").facts == {}


@pytest.mark.parametrize(
    "reason",
    [
        pytest.param("x_office_hours", id="a reason of the host's own"),
        pytest.param("x_2", id="a short one"),
        pytest.param(Reason.GRANT_MISSING, id="a member of Reason"),
        pytest.param("grant_missing", id="a member's value"),
    ],
)
def test_a_reason_that_may_be_given(reason: str) -> None:
    assert Deny(reason).reason == reason


def test_the_value_of_a_member_becomes_the_member() -> None:
    assert Deny("grant_missing").reason is Reason.GRANT_MISSING
    assert Deny("grant_missing").explanation.status == 403


def test_a_reason_of_the_hosts_own_enumeration_is_plain_text() -> None:
    class Closed(str, Enum):  # noqa: UP042 - prints as Closed.AT_NIGHT
        AT_NIGHT = "x_at_night"

    assert str(Closed.AT_NIGHT) != "x_at_night"
    assert type(Deny(Closed.AT_NIGHT).reason) is str
    assert f"{Deny(Closed.AT_NIGHT).reason}" == "x_at_night"


@pytest.mark.parametrize(
    "reason",
    [
        pytest.param("", id="nothing"),
        pytest.param("office_hours", id="a name of one's own without x_"),
        pytest.param("GRANT_MISSING", id="a member's name is not its value"),
        pytest.param("x_", id="x_ and no name"),
        pytest.param("x_office hours", id="a space"),
        pytest.param("x_a\r\nset-cookie: b", id="a header of the attacker's"),
        pytest.param('x_a"', id="a quote"),
        pytest.param("x_büro", id="a letter outside ASCII"),
        pytest.param("x_a\n", id="a newline at the end"),
        pytest.param("X_OWN", id="upper-case X"),
        pytest.param(f"x_{'a' * 63}", id="a reason that fills an audit line"),
        pytest.param(None, id="None"),
        pytest.param(403, id="a status"),
        pytest.param(b"x_own", id="bytes"),
        pytest.param(["x_own"], id="a list"),
    ],
)
def test_a_reason_that_may_not_be_given(reason: Any) -> None:
    with pytest.raises(ValueError, match="member of Reason"):
        Deny(reason)


@pytest.mark.parametrize("status", [400, 403, 451, 503, 599])
def test_a_refusal_may_have_a_status_of_its_own(status: int) -> None:
    assert Deny("x_own", status=status).explanation.status == status


@pytest.mark.parametrize("status", [-1, 0, 101, 200, 303, 399, 600, 5030])
def test_a_refusal_is_never_a_success(status: int) -> None:
    with pytest.raises(ValueError, match="400 to 599"):
        Deny("x_own", status=status)


def test_a_status_of_its_own_changes_the_status_alone() -> None:
    told = EXPLANATIONS[Reason.GRANT_MISSING]
    hidden = Deny(Reason.GRANT_MISSING, status=404).explanation
    assert hidden == Explanation(404, told.title, told.advice, told.error)
    assert Deny(Reason.GRANT_MISSING, status=403).explanation is told
    assert Deny(Reason.GRANT_MISSING).explanation is told


def test_an_own_reason_is_403_unless_it_says_otherwise() -> None:
    assert Deny("x_own").explanation.status == 403
    assert Deny("x_own", status=403).explanation is Deny("x_own").explanation
    assert Deny("x_own", status=429).explanation.title == Deny("x_own").explanation.title


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_says_its_status_as_design_has_it(reason: Reason) -> None:
    told = EXPLANATIONS[reason]
    if reason in {Reason.CREDENTIALS_REPEATED, Reason.SESSION_AMBIGUOUS}:
        expected: tuple[int, str | None] = (400, "invalid_request")
    elif reason in {Reason.STORE_UNAVAILABLE, Reason.KEYS_UNAVAILABLE, Reason.AUDIT_UNAVAILABLE}:
        expected = (503, None)
    elif reason in {Reason.APP_FAILED, Reason.ROW_FILTER_MISSING}:
        expected = (500, None)
    elif reason in {Reason.TOKEN_REQUEST_INVALID, Reason.REQUEST_MALFORMED}:
        expected = (400, None)
    elif reason in {Reason.TOKEN_MISSING, Reason.API_KEY_MISSING, Reason.API_KEY_INVALID}:
        expected = (401, None)  # RFC 6750 §3.1: no error code where no bearer token was sent
    elif told.error is not None:
        expected = (401, "invalid_token")
    else:
        expected = (403, None)
    assert (told.status, told.error) == expected


def test_the_table_of_explanations_is_whole_and_cannot_be_written_to() -> None:
    table: Any = EXPLANATIONS
    assert set(table) == set(Reason)
    with pytest.raises(TypeError):
        table[Reason.GRANT_MISSING] = EXPLANATIONS[Reason.APP_FAILED]


def test_an_embed_is_frozen_and_does_not_show_its_rows() -> None:
    embed: Any = Embed(
        subject="u-1",
        tenant="acme",
        grants=(Grant("dashboard", "delays", ("view",)),),
        rls=None,
        issuer="https://host.example",
        token_id="t-1",
        expires_at=1.0,
    )
    assert embed.embedder is None
    assert "rls" not in repr(embed)
    with pytest.raises(FrozenInstanceError):
        embed.tenant = "other"
    with pytest.raises((AttributeError, TypeError)):
        embed.is_admin = True


def test_whoever_can_do_something_is_sent_to_others_only_where_it_does_not_help() -> None:
    for reason in (Reason.TOKEN_MISSING, Reason.SIGNATURE_INVALID, Reason.TOKEN_NOT_YET_VALID):
        assert ". If that does not help, please tell" in EXPLANATIONS[reason].advice
    assert "If that" not in EXPLANATIONS[Reason.GRANT_MISSING].advice, "nothing was said before that could help"
