"""The cache: it remembers signatures, and forgets them with their keys, their time and their policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from toucan_guard.core import token as core_token
from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.token_policy import BOOTSTRAP, TokenPolicy
from toucan_guard.tokens import cache as cache_module
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.keys import KeyRing
from toucan_guard.tokens.mint import TokenMinter

NOW = 1_800_000_000.0
POLICY = TokenPolicy("https://host.example", ("charts",))
FIRST, SECOND = "b7Qe-zW1_pR8.mK4~xN0+tY6/vC3=uH9!jL5", "Q2m#Zk9!xW4r-Lb6pT7vHs0_dF3gJ8cN1yA5"


def minter(secret: str = FIRST, kid: str = "k1", **options: Any) -> TokenMinter:
    return TokenMinter(secret, kid=kid, issuer="https://host.example", audience="charts", clock=lambda: NOW, **options)


def ring(*minters: TokenMinter) -> KeyRing:
    return KeyRing([one.verification_key for one in minters or (minter(),)])


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every full verification that was made."""
    made: list[str] = []

    def counting(token: str | bytes, **options: Any) -> VerifiedClaims | Deny:
        made.append(token.decode() if isinstance(token, bytes) else token)
        return core_token.verify(token, **options)

    monkeypatch.setattr(cache_module, "verify", counting)
    return made


def verifier(size: int = 100, policy: TokenPolicy = POLICY, **options: Any) -> CachedVerifier:
    return CachedVerifier(policy, ring(), TokenCache(size, **options))


def reason_of(result: VerifiedClaims | Deny) -> str | None:
    return result.reason if isinstance(result, Deny) else None


def test_a_second_look_is_the_same_claims_without_a_second_verification(calls: list[str]) -> None:
    one = verifier()
    text = minter().mint(subject="u", tenant="AA")
    first = one.verify(text, now=NOW)
    assert isinstance(first, VerifiedClaims)
    assert one.verify(text, now=NOW + 1) is first
    assert one.verify(text, now=NOW + 299) is first
    assert calls == [text]


def test_text_and_bytes_of_a_token_are_one_token(calls: list[str]) -> None:
    one = verifier()
    text = minter().mint(subject="u", tenant="AA")
    first = one.verify(text.encode(), now=NOW)
    assert isinstance(first, VerifiedClaims)
    assert one.verify(text, now=NOW) is one.verify(text.encode(), now=NOW) is first
    assert one.remembered(b"Bearer " + text.encode(), scheme=b"Bearer ", now=NOW) is first
    assert calls == [text]


def test_a_size_of_zero_switches_it_off(calls: list[str]) -> None:
    one = verifier(0)
    text = minter().mint(subject="u", tenant="AA")
    assert one.verify(text, now=NOW) == one.verify(text, now=NOW)
    assert len(calls) == 2
    cache = TokenCache(0)
    cache.clear()
    assert len(cache) == 0


def test_time_is_looked_at_on_every_hit(calls: list[str]) -> None:
    one = verifier(max_seconds=10_000)
    text = minter().mint(subject="u", tenant="AA")
    assert reason_of(one.verify(text, now=NOW)) is None
    assert reason_of(one.verify(text, now=NOW + 329)) is None
    assert reason_of(one.verify(text, now=NOW + 330)) is Reason.TOKEN_EXPIRED
    assert reason_of(one.verify(text, now=NOW - 31)) is Reason.TOKEN_NOT_YET_VALID
    assert reason_of(one.verify(text, now=NOW)) is None


def test_a_clock_that_goes_back_is_looked_at_on_a_hit(calls: list[str]) -> None:
    one = verifier()
    text = minter().mint(subject="u", tenant="AA")
    one.verify(text, now=NOW)
    assert reason_of(one.verify(text, now=NOW - 31)) is Reason.TOKEN_NOT_YET_VALID
    assert calls == [text]


def test_nothing_is_remembered_longer_than_the_cap(calls: list[str]) -> None:
    one = verifier(max_seconds=60)
    text = minter().mint(subject="u", tenant="AA")
    for later in (0, 59, 60):
        assert reason_of(one.verify(text, now=NOW + later)) is None
    assert len(calls) == 2


def test_refusals_are_not_remembered(calls: list[str]) -> None:
    one = verifier()
    text = minter(SECOND).mint(subject="u", tenant="AA")
    for _ in range(3):
        assert reason_of(one.verify(text, now=NOW)) is Reason.SIGNATURE_INVALID
    assert len(calls) == 3
    # What was refused yesterday may be in order today.
    early = minter().mint(subject="u", tenant="AA")
    assert reason_of(one.verify(early, now=NOW - 100)) is Reason.TOKEN_NOT_YET_VALID
    assert reason_of(one.verify(early, now=NOW)) is None


def test_a_remembered_token_dies_with_its_key() -> None:
    old, new = minter(), minter(SECOND, "k2")
    one = CachedVerifier(POLICY, ring(old, new), TokenCache(100))
    old_token, new_token = (each.mint(subject="u", tenant="AA") for each in (old, new))
    for text in (old_token, new_token):
        assert reason_of(one.verify(text, now=NOW)) is None
    one.source.ring = ring(new)
    assert reason_of(one.verify(old_token, now=NOW)) is Reason.KEY_UNKNOWN
    assert reason_of(one.verify(new_token, now=NOW)) is None
    assert one.ring.keys == ring(new).keys


def test_a_secret_that_changes_under_its_name_ends_its_tokens() -> None:
    one = CachedVerifier(POLICY, ring(minter()), TokenCache(100))
    text = minter().mint(subject="u", tenant="AA")
    assert reason_of(one.verify(text, now=NOW)) is None
    one.source.ring = ring(minter(SECOND))
    assert reason_of(one.verify(text, now=NOW)) is Reason.SIGNATURE_INVALID


def test_a_ring_that_is_read_again_unchanged_forgets_nothing(calls: list[str]) -> None:
    one = verifier()
    text = minter().mint(subject="u", tenant="AA")
    one.verify(text, now=NOW)
    one.source.ring = ring()
    one.verify(text, now=NOW)
    assert calls == [text]


def test_verifiers_that_share_a_cache_do_not_share_their_verdicts() -> None:
    shared = TokenCache(100)
    relaxed = CachedVerifier(replace(POLICY, require_tenant=False, lifetime_seconds=10_000), ring(), shared)
    strict = CachedVerifier(POLICY, ring(), shared)
    other = CachedVerifier(replace(POLICY, issuer="https://other.example"), ring(), shared)
    text = minter().mint(subject="u")
    assert reason_of(relaxed.verify(text, now=NOW)) is None
    assert reason_of(strict.verify(text, now=NOW)) is Reason.CLAIM_MISSING
    assert reason_of(other.verify(text, now=NOW)) is Reason.CLAIM_MISSING
    assert strict.policy is POLICY


def test_a_token_is_remembered_for_its_own_type_only(calls: list[str]) -> None:
    one = verifier()
    embed = minter().mint(subject="u", tenant="AA")
    bootstrap = minter().mint_bootstrap(subject="u", tenant="AA")
    for _ in range(2):
        assert reason_of(one.verify(embed, now=NOW)) is None
        assert reason_of(one.verify(embed, now=NOW, token_type=BOOTSTRAP)) is Reason.TOKEN_TYPE_NOT_ALLOWED
        assert reason_of(one.verify(bootstrap, now=NOW, token_type=BOOTSTRAP)) is None
        assert reason_of(one.verify(bootstrap, now=NOW)) is Reason.TOKEN_TYPE_NOT_ALLOWED
    assert calls.count(embed) == 3
    assert calls.count(bootstrap) == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("x" * 8193, Reason.TOKEN_TOO_LARGE, id="a text that is too large"),
        pytest.param("é.a.b", Reason.TOKEN_MALFORMED, id="a text beyond ASCII"),
        pytest.param("\udc80", Reason.TOKEN_MALFORMED, id="a lone surrogate"),
        pytest.param("", Reason.TOKEN_MALFORMED, id="nothing"),
        pytest.param(None, Reason.TOKEN_MALFORMED, id="None"),
        pytest.param(b"a.b.c", Reason.TOKEN_MALFORMED, id="bytes"),
        pytest.param(b"x" * 8193, Reason.TOKEN_TOO_LARGE, id="bytes that are too many"),
        pytest.param("é.a.b".encode(), Reason.TOKEN_MALFORMED, id="bytes beyond ASCII"),
        pytest.param(bytearray(b"a.b.c"), Reason.TOKEN_MALFORMED, id="another kind of bytes"),
    ],
)
def test_what_is_no_token_is_refused_and_not_remembered(text: Any, reason: Reason) -> None:
    one = verifier()
    assert reason_of(one.verify(text, now=NOW)) is reason


def test_a_recheck_of_kept_claims_looks_at_time_and_key() -> None:
    one = verifier()
    claims = one.verify(minter().mint(subject="u", tenant="AA"), now=NOW)
    assert isinstance(claims, VerifiedClaims)
    assert one.recheck(claims, now=NOW + 1) is claims
    assert reason_of(one.recheck(claims, now=NOW + 400)) is Reason.TOKEN_EXPIRED
    one.source.ring = ring(minter(SECOND, "k2"))
    assert reason_of(one.recheck(claims, now=NOW + 1)) is Reason.KEY_UNKNOWN


def test_kept_claims_end_with_their_key_where_another_one_takes_its_name() -> None:
    one = verifier()
    claims = one.verify(minter().mint(subject="u", tenant="AA"), now=NOW)
    assert isinstance(claims, VerifiedClaims)
    one.source.ring = ring(minter(SECOND))
    assert reason_of(one.recheck(claims, now=NOW)) is Reason.KEY_UNKNOWN
    one.source.ring = ring()
    assert one.recheck(claims, now=NOW) is claims


def test_the_number_of_entries_is_bounded_and_the_least_used_goes_first(calls: list[str]) -> None:
    cache = TokenCache(3)
    one = CachedVerifier(POLICY, ring(), cache)
    texts = [minter().mint(subject=f"u{number}", tenant="AA") for number in range(4)]
    for text in (texts[0], texts[1], texts[2], texts[0], texts[3]):
        one.verify(text, now=NOW)
    assert len(cache) == 3
    calls.clear()
    one.verify(texts[0], now=NOW)
    assert calls == []
    one.verify(texts[1], now=NOW)
    assert calls == [texts[1]]


def test_the_bytes_of_the_entries_are_bounded_too() -> None:
    cache = TokenCache(1000, max_bytes=100_000)
    one = CachedVerifier(POLICY, ring(), cache)
    for number in range(50):
        one.verify(minter().mint(subject="u" * 3000, tenant=str(number)), now=NOW)
    assert 1 <= len(cache) <= 100_000 // 12_000
    cache.clear()
    assert len(cache) == 0


def test_an_entry_larger_than_the_cache_is_verified_and_not_kept() -> None:
    cache = TokenCache(10, max_bytes=100)
    one = CachedVerifier(POLICY, ring(), cache)
    assert reason_of(one.verify(minter().mint(subject="u", tenant="AA"), now=NOW)) is None
    assert len(cache) == 0


def test_a_flood_of_valid_tokens_keeps_the_cache_within_its_bounds() -> None:
    cache = TokenCache(50)
    one = CachedVerifier(POLICY, ring(), cache)
    for number in range(500):
        assert reason_of(one.verify(minter().mint(subject=str(number), tenant="AA"), now=NOW + number / 10)) is None
    assert len(cache) == 50


def test_room_that_is_given_back_is_room_for_others(calls: list[str]) -> None:
    cache = TokenCache(3, max_seconds=60)
    one = CachedVerifier(POLICY, ring(), cache)
    texts = [minter().mint(subject=f"u{number}", tenant="AA") for number in range(3)]
    for later in (0, 60, 120):  # each is over, and verified again
        for text in texts:
            assert reason_of(one.verify(text, now=NOW + later)) is None
    assert len(cache) == 3
    cache.clear()
    for text in texts:
        one.verify(text, now=NOW + 121)
    calls.clear()
    for text in texts:
        one.verify(text, now=NOW + 122)
    assert (len(cache), calls) == (3, [])


def test_what_is_kept_again_takes_its_room_once() -> None:
    cache = TokenCache(2)
    claims = verifier().verify(minter().mint(subject="u", tenant="AA"), now=NOW)
    assert isinstance(claims, VerifiedClaims)
    for key in (b"1", b"2", b"2", b"1", b"2"):
        cache.put(key, claims, token_bytes=300, policy=POLICY, now=NOW)
    assert len(cache) == 2
    cache.put(b"3", claims, token_bytes=300, policy=POLICY, now=NOW)
    assert [cache.entry(key, now=NOW) is not None for key in (b"1", b"2", b"3")] == [False, True, True]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"size": -1}, id="a negative size"),
        pytest.param({"size": 1, "max_bytes": 0}, id="no bytes"),
        pytest.param({"size": 1, "max_seconds": 0}, id="no time"),
    ],
)
def test_a_mistaken_cache_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TokenCache(**options)


def test_a_remembered_token_is_one_that_would_be_verified(calls: list[str]) -> None:
    one = verifier(max_seconds=10_000)
    text = minter(lifetime_seconds=300).mint(subject="u", tenant="AA")
    credentials = b"Bearer " + text.encode()

    def remembered(credentials: bytes = credentials, now: float = NOW) -> VerifiedClaims | None:
        return one.remembered(credentials, scheme=b"Bearer ", now=now)

    assert remembered() is None
    claims = one.verify(text, now=NOW)
    assert remembered() is claims
    for other in (b"", b"Bearer ", text.encode(), b"bearer " + text.encode(), credentials + b" ", credentials + b"\xff",
                  b"Bearer " + b"x" * 9000, b"x" * 9000):  # fmt: skip
        assert remembered(other) is None
    for seconds in (-29, 0, 100, 329):
        assert remembered(now=NOW + seconds) is claims
    # In the seconds around its ends it is looked at more closely; outside of them it is refused.
    for seconds in (-30, -29.5, 329.5, 330, 1000):
        assert remembered(now=NOW + seconds) is None
    assert calls == [text]


def test_a_remembered_token_dies_with_its_key_and_comes_back_with_it() -> None:
    one = verifier()
    text = minter().mint(subject="u", tenant="AA")
    claims = one.verify(text, now=NOW)

    def remembered() -> VerifiedClaims | None:
        return one.remembered(b"Bearer " + text.encode(), scheme=b"Bearer ", now=NOW)

    for found, expected in ((ring(minter(SECOND)), None), (ring(), claims), (None, None), (ring(), claims)):
        one.source.ring = found
        assert remembered() is expected
    # An equal ring, and one that has more, which may know better.
    one.source.ring = ring(minter(), minter(SECOND, "k2"))
    assert remembered() is None
    one.verify(text, now=NOW)
    assert remembered() is not None


def test_without_a_cache_nothing_is_remembered() -> None:
    one = verifier(0)
    text = minter().mint(subject="u", tenant="AA")
    one.verify(text, now=NOW)
    assert one.remembered(b"Bearer " + text.encode(), scheme=b"Bearer ", now=NOW) is None


def test_a_bootstrap_token_is_not_remembered_as_a_token() -> None:
    one = verifier()
    text = minter().mint_bootstrap(subject="u", tenant="AA", session_seconds=60)
    assert reason_of(one.verify(text, now=NOW, token_type=BOOTSTRAP)) is None
    assert one.remembered(b"Bearer " + text.encode(), scheme=b"Bearer ", now=NOW) is None


def test_a_token_that_is_looked_for_and_then_verified_is_kept_under_its_own_name(calls: list[str]) -> None:
    """Who looks for a token in vain leaves its hash for whoever verifies it; nobody else is taken for it."""
    one = verifier()
    first, second = (minter().mint(subject=subject, tenant="AA") for subject in ("u1", "u2"))

    def remembered(text: str) -> str | None:
        claims = one.remembered(b"Bearer " + text.encode(), scheme=b"Bearer ", now=NOW)
        return None if claims is None else claims.subject

    for text in (first, second):
        assert remembered(text) is None
    # The second one was looked for last, and the first one is verified.
    assert reason_of(one.verify(first, now=NOW)) is None
    assert (remembered(first), remembered(second)) == ("u1", None)
    assert reason_of(one.verify(second, now=NOW)) is None
    assert (remembered(first), remembered(second)) == ("u1", "u2")
    # What is refused is not left for the next one either.
    assert remembered("") is None
    for refused in ("", "a.b.c", first[:-1]):
        assert remembered(refused) is None
        assert isinstance(one.verify(refused, now=NOW), Deny)
        assert remembered(refused) is None
    assert len(calls) == 5


def test_a_ring_that_changes_between_the_look_and_the_verification_has_the_last_word() -> None:
    old, new = minter(), minter(SECOND)
    one = CachedVerifier(POLICY, ring(old), TokenCache(100))
    text = new.mint(subject="u", tenant="AA")
    look: dict[str, Any] = {"credentials": b"Bearer " + text.encode(), "scheme": b"Bearer ", "now": NOW}
    assert one.remembered(**look) is None
    one.source.ring = ring(new)
    claims = one.verify(text, now=NOW)
    assert one.remembered(**look) is claims is not None
    one.source.ring = ring(old)
    assert one.remembered(**look) is None
    assert reason_of(one.verify(text, now=NOW)) is Reason.SIGNATURE_INVALID


def test_a_verifier_keeps_no_token_that_was_verified() -> None:
    one = verifier()
    text = minter().mint(subject="u", tenant="AA")
    assert one.remembered(b"Bearer " + text.encode(), scheme=b"Bearer ", now=NOW) is None
    one.verify(text, now=NOW)
    assert text.encode() not in [part for value in vars(one).values() if isinstance(value, tuple) for part in value]
