"""What a row filter means: the truth that every adapter is tested against."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any
from uuid import UUID

import pytest

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import Attribute, Group, Leaf, TableRule

NOON = datetime(2013, 5, 1, 12)
NAN, INFINITE = float("nan"), float("inf")  # above every number, as PostgreSQL has it
CODE = "12345678-1234-5678-1234-56781234abcd"


def one_rule(type_: str, op: str) -> RlsPolicy:
    many = "true" if op in ("in", "not_in") else "false"
    attribute = "" if op.startswith("is_") else ', attribute = "a"'
    return RlsPolicy.from_toml(
        f'[attributes]\na = {{ type = "{type_}", list = {many}, required = false }}\n'
        f'[tables.t]\nall = [{{ column = "c", op = "{op}"{attribute} }}]'
    )


# type, operator, attribute, cells that pass, cells that do not
MEANING: list[Any] = [
    ("string", "eq", "AA", ["AA"], ["aa", "AA ", "", "A", 65, b"AA", None, True]),
    ("string", "eq", "", [""], ["x", None]),
    ("string", "ne", "AA", ["aa", "AA ", "", "UA"], ["AA", None, 5, b"UA"]),
    ("string", "in", ["AA", "UA"], ["AA", "UA"], ["aa", "", "AAUA", None]),
    ("string", "not_in", ["AA", "UA"], ["DL", "aa", ""], ["AA", "UA", None, 5]),
    ("string", "contains", "A%_", ["xA%_y", "A%_"], ["AxxA", "a%_", "", None, 5]),
    ("string", "starts_with", "A_", ["A_", "A_B"], ["AB", "a_", "xA_", "A", "", None]),
    ("string", "contains", "", [], ["", "x", None]),
    ("string", "starts_with", "", [], ["", "x", None]),
    ("integer", "eq", 5, [5, 5.0, Decimal("5.00")], [4, "5", True, None, float("nan"), Decimal("NaN")]),
    ("integer", "eq", 1, [1], [True, "1"]),
    ("integer", "ne", 5, [4, 5.5, NAN, Decimal("NaN")], [5, 5.0, None, "4", False]),
    ("integer", "lt", 5, [4, -1, 4.9, -INFINITE], [5, 6, None, True, NAN, INFINITE]),
    ("integer", "le", 5, [5, 4], [6, 5.1, None, NAN]),
    ("integer", "gt", 5, [6, 5.1, INFINITE, NAN, Decimal("NaN")], [5, 4, None, "6"]),
    ("integer", "ge", 5, [5, 6], [4, None]),
    ("integer", "in", [1, 2], [1, 2, 2.0], [3, True, None]),
    ("integer", "not_in", [1, 2], [3, 0], [1, 2, None, True]),
    ("number", "eq", 0.1, [0.1, Decimal("0.1"), Decimal("0.10")], [Decimal("0.11"), 0, None]),
    ("number", "eq", 5, [5, 5.0, Decimal(5)], [5.1]),
    ("number", "lt", 0.1, [Decimal("0.09"), 0, -1], [Decimal("0.1"), 0.1, Decimal("0.2")]),
    ("number", "le", 0.1, [Decimal("0.1"), 0.1], [Decimal("0.11"), 1]),
    ("number", "gt", 0.1, [Decimal("0.2"), 1], [Decimal("0.1"), 0.1]),
    ("number", "ge", 0.1, [Decimal("0.1"), 0.1, 1], [Decimal("0.09"), 0]),
    ("number", "in", [0.1, 2], [Decimal("0.1"), 0.1, 2], [0.2]),
    ("boolean", "eq", True, [True, 1], [False, 0, 2, "true", None]),
    ("boolean", "ne", True, [False, 0], [True, 1, None, 2]),
    ("boolean", "in", [True], [True], [False, None]),
    ("date", "eq", "2013-05-01", [date(2013, 5, 1), "2013-05-01"], [date(2013, 5, 2), NOON, "2013-5-1", None]),
    ("date", "le", "2013-05-01", [date(2013, 5, 1), date(2013, 4, 30)], [date(2013, 5, 2), None, "2013"]),
    ("date", "not_in", ["2013-05-01"], [date(2013, 5, 2)], [date(2013, 5, 1), None, NOON]),
    ("datetime", "eq", "2013-05-01T14:00:00+02:00",
        [NOON, NOON.replace(tzinfo=timezone(timedelta(0))), "2013-05-01 12:00:00", "2013-05-01T12:00Z",
         datetime(2013, 5, 1, 5, tzinfo=timezone(timedelta(hours=-7)))],
        [datetime(2013, 5, 1, 14), date(2013, 5, 1), None, "noon"]),
    ("datetime", "gt", "2013-05-01T12:00:00", [datetime(2013, 5, 1, 12, 0, 1)], [NOON, None]),
    ("uuid", "eq", CODE, [UUID(CODE), CODE, CODE.replace("-", "")], [CODE.upper(), UUID(int=0), None]),
    ("uuid", "ne", CODE, [UUID(int=0), "0" * 32], [CODE, CODE.replace("-", ""), CODE.upper(), "x", "", 5, None]),
    ("uuid", "in", [CODE.upper()], [UUID(CODE), CODE], [None]),
    ("string", "is_set", None, ["", 0, False, "x"], [None]),
    ("string", "is_not_set", None, [None], ["", 0, False, "x"]),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "op", "value", "passing", "failing"), MEANING)
def test_an_operator_means_the_same_everywhere(
    type_: str, op: str, value: object, passing: list[object], failing: list[object]
) -> None:
    row_filter = one_rule(type_, op).row_filter({} if value is None else {"a": value})
    assert isinstance(row_filter, RowFilter)
    for cell in passing:
        assert row_filter.matches("t", {"c": cell}), cell
    for cell in failing:
        assert not row_filter.matches("t", {"c": cell}), cell
    assert not row_filter.matches("t", {}), "a column that is not there"
    assert not row_filter.matches("t", {"C": passing[0] if passing else "x"}), "a column in other case"


@pytest.mark.parametrize("op", ["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in"])
@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param({}, id="absent"),
        pytest.param({"a": None}, id="null"),
        pytest.param({"a": []}, id="an empty list"),
        pytest.param({"a": ()}, id="an empty tuple"),
        pytest.param({"a": "5"}, id="of another type"),
        pytest.param({"a": [5, None]}, id="with null in it"),
        pytest.param({"a": [5, "5"]}, id="with another type in it"),
        pytest.param({"A": 5}, id="in other case"),
        pytest.param(None, id="no attributes at all"),
        pytest.param([], id="attributes that are a list"),
        pytest.param("a", id="attributes that are text"),
    ],
)
def test_without_a_usable_attribute_a_rule_is_false(op: str, attributes: Any) -> None:
    row_filter = RowFilter(one_rule("integer", op), attributes)
    for cell in (5, 4, 0, None, "5"):
        assert not row_filter.matches("t", {"c": cell})
    if attributes is None or not isinstance(attributes, dict) or not attributes.get("a"):
        assert row_filter.attributes.get("a") in (None, ())


def test_all_and_any_nest() -> None:
    policy = RlsPolicy.from_toml(
        '[attributes]\na = "string"\nb = { type = "string", required = false }\n[tables.t]\nall = [\n'
        '{ column = "x", op = "eq", attribute = "a" },\n'
        '{ any = [{ column = "y", op = "eq", attribute = "b" }, { all = [\n'
        '{ column = "y", op = "is_not_set" }, { column = "z", op = "is_set" }] }] }]'
    )
    row_filter = RowFilter(policy, {"a": "1", "b": "2"})
    without = RowFilter(policy, {"a": "1"})
    assert row_filter.matches("t", {"x": "1", "y": "2"})
    assert not without.matches("t", {"x": "1", "y": "2"})
    assert without.matches("t", {"x": "1", "y": None, "z": 0})
    assert not without.matches("t", {"x": "1", "z": 0})
    assert not without.matches("t", {"x": "2", "y": None, "z": 0})
    assert not without.matches("t", {"x": "1", "y": None, "z": None})


def test_tables_that_the_policy_does_not_name_are_closed() -> None:
    row_filter = RowFilter(RlsPolicy.from_toml("[tables.t]\nopen = true"), {})
    assert row_filter.matches("t", {})
    assert row_filter.still_matches("t", {"x": 1})
    for name in ("T", "main.t", "u", "", "t "):
        assert row_filter.table(name) is None
        assert not row_filter.matches(name, {})
        assert not row_filter.still_matches(name, {})


# What a change leaves true

CHANGES: list[Any] = [
    ({"note": 1}, True),
    ({}, True),
    ({"carrier": "AA"}, True),
    ({"carrier": "UA"}, False),
    ({"carrier": None}, False),
    ({"origin": "JFK"}, True),
    ({"origin": "EWR"}, False),
    ({"origin": "EWR", "dest": "JFK"}, True),
    ({"carrier": "AA", "origin": "EWR", "dest": "EWR"}, False),
    ({"carrier": "UA", "origin": "JFK"}, False),
    ({"carrier": "AA", "origin": "JFK", "note": 5}, True),
]


@pytest.mark.parametrize(("changed", "certain"), CHANGES)
def test_a_change_is_judged_by_what_is_certain(changed: dict[str, object], certain: bool) -> None:
    policy = RlsPolicy.from_toml(
        '[attributes]\ncarrier = "string"\nairports = { type = "string", list = true }\n[tables.t]\nall = [\n'
        '{ column = "carrier", op = "eq", attribute = "carrier" },\n'
        '{ any = [{ column = "origin", op = "in", attribute = "airports" },'
        ' { all = [{ column = "dest", op = "in", attribute = "airports" }, { column = "dest", op = "is_set" }] }] }]'
    )
    row_filter = RowFilter(policy, {"carrier": "AA", "airports": ["JFK"]})
    assert row_filter.still_matches("t", changed) is certain
    if certain:
        for origin, dest in [("JFK", "JFK"), ("JFK", "EWR"), ("EWR", "JFK")]:
            before = {"carrier": "AA", "origin": origin, "dest": dest}
            assert row_filter.matches("t", before)
            assert row_filter.matches("t", {**before, **changed})


# The object


def test_it_does_not_change_and_does_not_show_values() -> None:
    policy = RlsPolicy.from_columns("flights.carrier=carrier,flights.origin=airports")
    claims: dict[str, Any] = {"carrier": "AA", "airports": ["JFK"]}
    row_filter = RowFilter(policy, claims, "https://host.example", "american")
    claims["carrier"] = "UA"
    claims["airports"].append("EWR")
    assert row_filter.attributes == {"carrier": ("AA",), "airports": ("JFK",)}
    assert row_filter.attribute_names == ("airports", "carrier")
    with pytest.raises(FrozenInstanceError):
        row_filter.attributes = {}  # type: ignore[misc]
    with pytest.raises(TypeError):
        row_filter.attributes["carrier"] = ("UA",)  # type: ignore[index]
    for secret in ("AA", "JFK", "american", "host.example"):
        assert secret not in repr(row_filter)
    assert repr(row_filter) == f"RowFilter(policy={policy.version!r}, attributes=('airports', 'carrier'))"


def test_the_fingerprint_is_equal_exactly_where_the_rows_are() -> None:
    policy = RlsPolicy.from_columns("flights.carrier=carrier")
    base = RowFilter(policy, {"carrier": ["AA", "UA"]}, "i", "t")
    same = [
        RowFilter(policy, {"carrier": ["UA", "AA"]}, "i", "t"),
        RowFilter(policy, {"carrier": ("AA", "UA", "AA")}, "i", "t"),
        RowFilter(RlsPolicy.from_columns({"flights.carrier": "carrier"}), {"carrier": ["AA", "UA"]}, "i", "t"),
    ]
    other = [
        RowFilter(policy, {"carrier": ["AA"]}, "i", "t"),
        RowFilter(policy, {"carrier": "AA,UA"}, "i", "t"),
        RowFilter(policy, {"carrier": "AA', 'UA"}, "i", "t"),
        RowFilter(policy, {"carrier": []}, "i", "t"),
        RowFilter(policy, {}, "i", "t"),
        RowFilter(policy, {"carrier": ["AA", "UA"]}, "j", "t"),
        RowFilter(policy, {"carrier": ["AA", "UA"]}, "i", "u"),
        RowFilter(policy, {"carrier": ["AA", "UA"]}, "i"),
        RowFilter(policy, {"carrier": ["AA", "UA"]}, "it"),
        RowFilter(RlsPolicy.from_columns("flights.origin=carrier"), {"carrier": ["AA", "UA"]}, "i", "t"),
    ]
    for one in same:
        assert one == base
        assert hash(one) == hash(base)
        assert one.fingerprint == base.fingerprint
    assert len({base, *other}) == len(other) + 1
    assert base != "filter"
    assert base.fingerprint == RowFilter(policy, {"carrier": ["AA", "UA"]}, "i", "t").fingerprint


def test_the_fingerprint_knows_types() -> None:
    policy = RlsPolicy.from_toml('[attributes]\na = "number"\n[tables.t]\nopen = true')
    assert RowFilter(policy, {"a": 1}) != RowFilter(policy, {"a": 2})
    dates = RlsPolicy.from_toml('[attributes]\na = "date"\n[tables.t]\nopen = true')
    assert RowFilter(dates, {"a": "2013-01-01"}) == RowFilter(dates, {"a": date(2013, 1, 1)})


@pytest.mark.parametrize("rule", [Group("all", ()), Group("any", ()), None], ids=["all", "any", "none"])
def test_no_rules_at_all_open_no_row(rule: Group | None) -> None:
    policy = RlsPolicy([], [TableRule("t", rule)])
    assert not RowFilter(policy, {}).matches("t", {"c": "AA"})


@pytest.mark.parametrize("shape", ["one", "list"])
def test_a_list_never_stands_for_one_value(shape: Any) -> None:
    attribute = Attribute("a", "string", shape)
    policy = RlsPolicy([attribute], [TableRule("t", Leaf("c", "ne" if shape == "list" else "not_in", attribute))])
    assert not RowFilter(policy, {"a": "AA" if shape == "one" else ["AA"]}).matches("t", {"c": "UA"})


def test_a_number_of_a_class_of_its_own_is_read_at_once() -> None:
    """A range looks for such a number by going through all of its own."""
    level = IntEnum("level", {"HIGH": 3}).HIGH
    value = Attribute("a", "integer").read(level)
    assert (value, type(value)) == (3, int)
