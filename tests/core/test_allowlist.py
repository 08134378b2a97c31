"""The allowlist: who is on it, what two lists have in common, and what a look-up costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from toucan_guard.core.allowlist import OriginAllowlist
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.origin_grammar import Origin, WildcardOrigin, parse_origin


def origin(text: str) -> Origin:
    parsed = parse_origin(text)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("entry", "value", "expected"),
    [
        pytest.param("https://a.example", "https://a.example", True, id="named exactly"),
        pytest.param("https://a.example", "https://a.example:443", True, id="default port equals none"),
        pytest.param("https://a.example", "https://a.example.", False, id="final dot is another host"),
        pytest.param("https://a.example", "http://a.example", False, id="another scheme"),
        pytest.param("https://a.example", "https://a.example:8443", False, id="another port"),
        pytest.param("https://example.com", "https://example.com.evil.com", False, id="suffix of another site"),
        pytest.param("https://example.com", "https://evilexample.com", False, id="prefix of another site"),
        pytest.param("https://example.com", "https://www.example.com", False, id="a name under it"),
        pytest.param("https://*.a.example", "https://b.a.example", True, id="one label under a wildcard"),
        pytest.param("https://*.a.example", "https://c.b.a.example", True, id="two labels under a wildcard"),
        pytest.param("https://*.a.example", "https://a.example", False, id="wildcard never covers the apex"),
        pytest.param("https://*.a.example", "https://ba.example", False, id="wildcard ends at a dot"),
        pytest.param("https://*.a.example", "https://b.a.example.", False, id="final dot under a wildcard"),
        pytest.param("https://*.a.example", "https://b.a.example.evil.com", False, id="wildcard inside another site"),
        pytest.param("https://*.a.example", "http://b.a.example", False, id="another scheme under a wildcard"),
        pytest.param("https://*.a.example", "https://b.a.example:8443", False, id="another port under a wildcard"),
        pytest.param("https://*.a.example:8443", "https://b.a.example:8443", True, id="wildcard with a port"),
        pytest.param("https://*.a.example", "https://192.0.2.1", False, id="address beside a wildcard"),
        pytest.param("https://*.a.example", "https://[2001:db8::1]", False, id="IPv6 beside a wildcard"),
        pytest.param("capacitor://localhost", "capacitor://localhost", True, id="an app that is named"),
        pytest.param("capacitor://localhost", "ionic://localhost", False, id="another app"),
        pytest.param("https://münchen.example", "https://xn--mnchen-3ya.example", True, id="international name"),
    ],
)
def test_an_origin_is_on_the_list_or_not(entry: str, value: str, expected: bool) -> None:
    assert OriginAllowlist.parse([entry]).allows(origin(value)) is expected


def test_an_empty_list_means_nobody() -> None:
    nobody = OriginAllowlist.parse([])
    assert not nobody.allows(origin("https://a.example"))
    assert len(nobody) == 0
    assert nobody.entries == ()


def test_a_list_is_no_boolean_because_nobody_must_not_fall_through() -> None:
    with pytest.raises(TypeError, match="nobody"):
        bool(OriginAllowlist.parse([]))


def test_everybody_takes_an_explicit_switch() -> None:
    with pytest.raises(ConfigError, match="INSECURE_ANY_ORIGIN"):
        OriginAllowlist.parse(["*"])
    everybody = OriginAllowlist.parse(["*"], allow_any=True)
    assert everybody.any
    assert len(everybody) == 1
    assert everybody.entries == ("*",)
    assert everybody.allows(origin("http://a.example"))


def test_entries_are_sorted_serialised_and_unique() -> None:
    listed = OriginAllowlist.parse(
        ["https://b.example", "https://*.a.example", "HTTPS://B.example:443", "https://a.example"]
    )
    assert listed.entries == ("https://*.a.example", "https://a.example", "https://b.example")
    assert len(listed) == 3
    assert listed == OriginAllowlist.parse(reversed(listed.entries))
    assert "example" not in repr(listed)


def test_of_takes_what_was_parsed_already() -> None:
    listed = OriginAllowlist.of(origin("https://a.example"), WildcardOrigin("https", "b.example", 443))
    assert listed == OriginAllowlist.parse(["https://a.example", "https://*.b.example"])


def test_every_mistake_is_told_at_once() -> None:
    entries: list[Any] = ["https://a.example/", "https://good.example", "*", 7, "http://b.example"]
    with pytest.raises(ConfigError) as refusal:
        OriginAllowlist.parse(entries)
    assert len(refusal.value.problems) == 4
    assert "good" not in str(refusal.value)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param("https://a.example", id="one text"),
        pytest.param(b"https://a.example", id="bytes"),
        pytest.param(None, id="nothing"),
        pytest.param(7, id="a number"),
    ],
)
def test_what_is_no_list_is_a_configuration_error(entries: Any) -> None:
    with pytest.raises(ConfigError, match="list"):
        OriginAllowlist.parse(entries)


@pytest.mark.parametrize(
    ("left", "right", "common"),
    [
        pytest.param(["https://a.example"], ["https://a.example"], ["https://a.example"], id="the same origin"),
        pytest.param(["https://a.example"], ["https://b.example"], [], id="nothing in common"),
        pytest.param(["https://a.example"], [], [], id="nobody"),
        pytest.param(
            ["https://*.a.example"], ["https://b.a.example"], ["https://b.a.example"], id="name under a wildcard"
        ),
        pytest.param(["https://*.a.example"], ["https://a.example"], [], id="the apex is not under the wildcard"),
        pytest.param(
            ["https://*.a.example"], ["https://*.b.a.example"], ["https://*.b.a.example"], id="nested wildcards"
        ),
        pytest.param(["https://*.a.example"], ["https://*.a.example"], ["https://*.a.example"], id="the same wildcard"),
        pytest.param(["https://*.a.example"], ["https://*.ba.example"], [], id="wildcards that only look alike"),
        pytest.param(["https://*.a.example:1"], ["https://*.a.example:2"], [], id="wildcards with other ports"),
        pytest.param(
            ["https://*.a.example"],
            ["https://b.a.example", "https://*.c.a.example", "https://d.example", "https://a.example"],
            ["https://*.c.a.example", "https://b.a.example"],
            id="a wildcard against a longer list",
        ),
    ],
)
def test_narrowing_is_the_intersection_both_ways(left: list[str], right: list[str], common: list[str]) -> None:
    one, other = OriginAllowlist.parse(left), OriginAllowlist.parse(right)
    assert one.narrowed(other).entries == tuple(sorted(common))
    assert other.narrowed(one).entries == tuple(sorted(common))


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        pytest.param(["https://a.example"], ["https://a.example"], True, id="the same origin"),
        pytest.param(["https://a.example"], [], True, id="nobody"),
        pytest.param([], ["https://a.example"], False, id="by nobody"),
        pytest.param(
            ["https://*.a.example"], ["https://b.a.example", "https://*.a.example"], True, id="twice by one wildcard"
        ),
        pytest.param(["https://*.a.example"], ["https://*.b.a.example"], True, id="a wildcard under another"),
        pytest.param(["https://*.b.a.example"], ["https://*.a.example"], False, id="a wildcard above another"),
        pytest.param(["https://*.a.example"], ["https://a.example"], False, id="the apex"),
        pytest.param(["https://b.a.example"], ["https://*.a.example"], False, id="a wildcard by one name"),
        pytest.param(["https://*.a.example"], ["https://*.a.example:8443"], False, id="another port"),
        pytest.param(["*"], ["https://a.example"], True, id="by everybody"),
        pytest.param(["https://a.example"], ["*"], False, id="everybody"),
        pytest.param(["*"], ["*"], True, id="everybody by everybody"),
    ],
)
def test_a_list_covers_another_one_entry_by_entry(wide: list[str], narrow: list[str], expected: bool) -> None:
    one, other = (OriginAllowlist.parse(entries, allow_any=True) for entries in (wide, narrow))
    assert one.covers(other) is expected


def test_everybody_narrows_to_the_other_list() -> None:
    everybody, few = OriginAllowlist.parse(["*"], allow_any=True), OriginAllowlist.parse(["https://a.example"])
    assert everybody.narrowed(few) == few
    assert few.narrowed(everybody) == few
    assert everybody.narrowed(everybody).any


class CountingSet(frozenset[Any]):
    """Counts look-ups, and fails where somebody walks the list."""

    looked_up = 0

    def __contains__(self, item: object) -> bool:
        type(self).looked_up += 1
        return super().__contains__(item)

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("the list was walked")


def listed(size: int) -> OriginAllowlist:
    exact = CountingSet({Origin("https", f"host{i}.example", 443) for i in range(size)})
    wildcards = CountingSet({WildcardOrigin("https", f"tenant{i}.example", 443) for i in range(size)})
    return OriginAllowlist(exact, wildcards)


def look_ups(allowlist: OriginAllowlist, text: str) -> int:
    CountingSet.looked_up = 0
    allowlist.allows(origin(text))
    return CountingSet.looked_up


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("https://host0.example", id="an origin that is named"),
        pytest.param("https://b.tenant0.example", id="an origin under a wildcard"),
        pytest.param("https://a.b.c.d.elsewhere.test", id="an origin that is not listed"),
    ],
)
def test_a_look_up_costs_the_same_in_a_list_of_1_and_of_100_000(text: str) -> None:
    assert look_ups(listed(1), text) == look_ups(listed(100_000), text) <= text.count(".") + 1


def test_narrowing_to_a_few_origins_does_not_walk_the_long_list() -> None:
    few = OriginAllowlist.parse(["https://host3.example", "https://b.tenant5.example", "https://*.c.tenant7.example"])
    long = OriginAllowlist.of(
        *(Origin("https", f"host{i}.example", 443) for i in range(1_000)),
        *(WildcardOrigin("https", f"tenant{i}.example", 443) for i in range(1_000)),
    )
    counted = OriginAllowlist(CountingSet(long.exact), CountingSet(long.wildcards))
    assert counted.narrowed(few) == few
    assert few.narrowed(counted) == few


def test_narrowing_to_a_wildcard_reads_only_what_lies_under_it() -> None:
    long = OriginAllowlist.of(
        *(Origin("https", f"host{i}.site{i % 100}.example", 443) for i in range(1_000)),
        WildcardOrigin("https", "deep.site7.example", 443),
    )
    under = list(long._under(WildcardOrigin("https", "site7.example", 443)))
    assert len(under) == 11
    assert OriginAllowlist.parse(["https://*.site7.example"]).narrowed(long) == OriginAllowlist.of(*under)
