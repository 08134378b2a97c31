"""Key sources: one or several of an issuer, and what happens where they do not go together."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from toucan_guard.core.claims import VerifiedClaims
from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.token_policy import TokenPolicy
from toucan_guard.tokens.cache import CachedVerifier, TokenCache
from toucan_guard.tokens.key_source import KeyUnion, StaticKeys, joined
from toucan_guard.tokens.keys import KeyRing, VerificationKey
from toucan_guard.tokens.mint import TokenMinter

NOW = 1_800_000_000.0
SECRET = "b7Qe-zW1_pR8.mK4~xN0+tY6/vC3=uH9!jL5"


class Changing:
    """A source whose keys come and go."""

    def __init__(self, ring: KeyRing | None, *, complete: bool = True) -> None:
        self.ring = ring
        self.complete = complete
        self.asked: list[str | None] = []
        self.started = 0

    async def start(self) -> None:
        self.started += 1

    async def look_again(self, kid: str | None) -> None:
        self.asked.append(kid)


def minter(kid: str | None) -> TokenMinter:
    key = Ed25519PrivateKey.generate()
    return TokenMinter(key, kid=kid, issuer="https://host.example", audience="charts", clock=lambda: NOW)


def ring(*minters: TokenMinter) -> KeyRing:
    return KeyRing([one.verification_key for one in minters])


def nameless(one: TokenMinter) -> KeyRing:
    key = one.verification_key
    return KeyRing([VerificationKey(None, key.algorithm, key.material)])


def verifier(source: object) -> CachedVerifier:
    return CachedVerifier(TokenPolicy("https://host.example", ("charts",)), source, TokenCache(100))  # type: ignore[arg-type]


def verdict(one: CachedVerifier, by: TokenMinter) -> str:
    result = one.verify(by.mint(subject="u", tenant="AA"), now=NOW)
    return str(result.reason) if isinstance(result, Deny) else "accepted"


def test_one_source_is_itself_and_none_is_a_mistake() -> None:
    only = StaticKeys(ring(minter("a")))
    assert joined([only]) is only
    with pytest.raises(ConfigError):
        joined([])


def test_a_union_has_the_keys_of_all_and_is_joined_anew_only_where_something_changed() -> None:
    a, b, c = minter("a"), minter("b"), minter("c")
    left, right = Changing(ring(a)), Changing(ring(b))
    union = joined([left, right])
    first = union.ring
    assert first is not None
    assert {key.kid for key in first.keys} == {"a", "b"}
    assert union.ring is first
    right.ring = ring(b, c)
    second = union.ring
    assert second is not None
    assert {key.kid for key in second.keys} == {"a", "b", "c"}
    assert union.ring is second


def test_a_key_that_leaves_one_source_ends_its_remembered_tokens_and_no_others() -> None:
    a, b = minter("a"), minter("b")
    left, right = Changing(ring(a)), Changing(ring(b))
    one = verifier(joined([left, right]))
    texts = [each.mint(subject="u", tenant="AA") for each in (a, b)]
    for text in texts:
        assert isinstance(one.verify(text, now=NOW), VerifiedClaims)
    right.ring = None
    assert isinstance(one.verify(texts[0], now=NOW), VerifiedClaims)
    refused = one.verify(texts[1], now=NOW)
    assert isinstance(refused, Deny)
    assert refused.reason is Reason.KEY_UNKNOWN


def test_while_one_source_has_no_keys_an_unknown_key_is_not_called_unknown() -> None:
    a, b = minter("a"), minter("b")
    left, right = Changing(ring(a)), Changing(None, complete=False)
    one = verifier(joined([left, right]))
    assert verdict(one, a) == "accepted"
    assert verdict(one, b) == "keys_unavailable"
    right.ring, right.complete = ring(b), True
    assert verdict(one, b) == "accepted"
    assert verdict(one, minter("c")) == "key_unknown"


def test_sources_without_any_key_accept_nothing() -> None:
    one = verifier(joined([Changing(None), Changing(None)]))
    assert one.ring is None
    assert verdict(one, minter("a")) == "key_unknown"
    assert verdict(verifier(Changing(None, complete=False)), minter("a")) == "keys_unavailable"


def test_a_name_that_two_sources_give_to_different_keys_is_nobody_s() -> None:
    a, b, other_b = minter("a"), minter("b"), minter("b")
    left, right = Changing(ring(a)), Changing(ring(b))
    one = verifier(joined([left, right]))
    assert verdict(one, b) == "accepted"
    left.ring = ring(a, other_b)
    assert [verdict(one, each) for each in (a, b, other_b)] == ["accepted", "key_unknown", "key_unknown"]
    left.ring = ring(other_b)
    assert [verdict(one, each) for each in (b, other_b)] == ["key_unknown", "key_unknown"]
    left.ring = ring(a)
    assert verdict(one, b) == "accepted"


def test_two_keys_without_a_name_and_of_one_algorithm_are_nobody_s() -> None:
    a, b, c = minter(None), minter(None), minter("c")
    left, right = Changing(nameless(a)), Changing(ring(c))
    one = verifier(joined([left, right]))
    assert verdict(one, a) == "accepted"
    right.ring = KeyRing([*nameless(b).keys, *ring(c).keys])
    assert [verdict(one, each) for each in (a, b, c)] == ["key_unknown", "key_unknown", "accepted"]


def test_a_key_that_two_sources_agree_on_is_one_key() -> None:
    a = minter("a")
    assert verdict(verifier(joined([Changing(ring(a)), Changing(ring(a))])), a) == "accepted"


def test_secrets_never_stand_beside_public_keys() -> None:
    a, secret = minter("a"), KeyRing.from_secret(SECRET, kid="s")
    with pytest.raises(ConfigError, match="mixed"):
        joined([Changing(ring(a)), Changing(secret)])
    late = Changing(None)
    one = verifier(joined([Changing(ring(a)), late]))
    assert verdict(one, a) == "accepted"
    late.ring = secret
    assert one.ring is None
    assert verdict(one, a) == "keys_unavailable"
    late.ring = None
    assert verdict(one, a) == "accepted"


def test_what_does_not_go_together_at_the_start_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="same kid"):
        joined([Changing(ring(minter("a"))), Changing(ring(minter("a")))])


@pytest.mark.anyio
async def test_all_sources_are_started_and_look_again() -> None:
    left, right = Changing(ring(minter("a"))), Changing(None)
    union = KeyUnion(left, right)
    await union.start()
    await union.look_again("k")
    assert (left.started, right.started, left.asked, right.asked) == (1, 1, ["k"], ["k"])


@pytest.mark.anyio
async def test_configured_keys_have_nothing_to_start_or_to_look_up() -> None:
    keys = StaticKeys(ring(minter("a")))
    before = keys.ring
    await keys.start()
    await keys.look_again("b")
    assert keys.ring is before
    assert keys.complete


@pytest.mark.anyio
async def test_only_a_refusal_for_want_of_a_key_makes_the_source_look_again() -> None:
    a = minter("a")
    source = Changing(ring(a))
    one = verifier(source)
    unknown = minter("b").mint(subject="u", tenant="AA")
    refusal = one.verify(unknown, now=NOW)
    assert one.lacks_key(refusal)
    assert not await one.look_again(unknown)
    assert source.asked == ["b"]
    good = a.mint(subject="u", tenant="AA")
    claims = one.verify(good, now=NOW)
    assert not one.lacks_key(claims)
    expired = one.verify(good, now=NOW + 10_000)
    assert not one.lacks_key(expired)
    assert source.asked == ["b"]
    source.ring = None
    assert isinstance(claims, VerifiedClaims)
    gone = one.recheck(claims, now=NOW)
    assert one.lacks_key(gone)
    await one.look_again(claims)
    await one.look_again("no token at all")
    assert source.asked == ["b", "a", None]
