"""The policy file: what it says, and every mistake with its place."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any
from uuid import UUID

import pytest

from toucan_guard.core.decisions import Deny, Reason
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.core.row_rules import Attribute

EXAMPLE = """
[attributes]
carrier  = "string"
airports = { type = "string", list = true }
max_delay = { type = "integer", required = false }

[tables.flights]
all = [
  { column = "carrier", op = "eq", attribute = "carrier" },
  { any = [ { column = "origin", op = "in", attribute = "airports" },
            { column = "dest",   op = "in", attribute = "airports" } ] },
]
columns = { show = ["carrier", "origin", "dest", "month", "dep_delay"] }

[tables."sales.delays"]
any = [{ column = "minutes", op = "le", attribute = "max_delay" }, { column = "minutes", op = "is_not_set" }]
write = true

[tables.airlines]
open = true
"""


def policy_of(rules: str = "", attributes: str = "") -> RlsPolicy:
    return RlsPolicy.from_toml(
        f'[attributes]\ns = "string"\nl = {{ type = "string", list = true }}\ni = "integer"\nb = "boolean"\n'
        f'd = "date"\nu = "uuid"\n{attributes}\n[tables.t]\n{rules}\n'
    )


def test_the_file_says_attributes_and_tables() -> None:
    policy = RlsPolicy.from_toml(EXAMPLE)
    assert policy.attributes == {
        "carrier": Attribute("carrier", "string"),
        "airports": Attribute("airports", "string", "list"),
        "max_delay": Attribute("max_delay", "integer", required=False),
    }
    assert set(policy.tables) == {"flights", "sales.delays", "airlines"}
    flights, delays, airlines = (policy.tables[name] for name in ("flights", "sales.delays", "airlines"))
    assert flights.columns == {"carrier", "origin", "dest"}
    assert flights.show == {"carrier", "origin", "dest", "month", "dep_delay"}
    assert (flights.open, flights.write) == (False, False)
    assert (delays.write, delays.show) == (True, None)
    assert (airlines.open, airlines.rule, airlines.columns) == (True, None, frozenset())
    assert repr(policy) == f"RlsPolicy(version={policy.version!r}, tables=('airlines', 'flights', 'sales.delays'))"


def test_json_says_the_same() -> None:
    import tomllib

    toml, from_json = RlsPolicy.from_toml(EXAMPLE), RlsPolicy.from_json(json.dumps(tomllib.loads(EXAMPLE)))
    assert toml == from_json
    assert toml.version == from_json.version
    assert hash(toml) == hash(from_json)


def test_the_version_follows_the_rules_and_not_the_spelling() -> None:
    version = policy_of('all = [{ column = "c", op = "eq", attribute = "s" }]').version
    assert policy_of('# why\nall = [{ op = "eq", attribute = "s", column = "c" }]').version == version
    others = [
        policy_of('all = [{ column = "c", op = "ne", attribute = "s" }]'),
        policy_of('all = [{ column = "d", op = "eq", attribute = "s" }]'),
        policy_of('any = [{ column = "c", op = "eq", attribute = "s" }]'),
        policy_of('all = [{ column = "c", op = "eq", attribute = "s" }]\nwrite = true'),
        policy_of('all = [{ column = "c", op = "eq", attribute = "s" }]\ncolumns = { show = ["c"] }'),
        policy_of('all = [{ column = "c", op = "eq", attribute = "s" }]', "more = 'string'"),
        policy_of("open = true"),
    ]
    assert len({version, *(other.version for other in others)}) == len(others) + 1
    assert policy_of("open = true") != others[0]
    assert policy_of("open = true") != "policy"


def test_a_policy_does_not_change() -> None:
    policy = RlsPolicy.from_toml(EXAMPLE)
    with pytest.raises(AttributeError):
        policy.version = "x"
    with pytest.raises(AttributeError):
        del policy.tables
    with pytest.raises(TypeError):
        policy.tables["more"] = policy.tables["flights"]  # type: ignore[index]


OPERATORS = {
    "string": "eq ne in not_in contains starts_with",
    "integer": "eq ne lt le gt ge in not_in",
    "number": "eq ne lt le gt ge in not_in",
    "boolean": "eq ne in not_in",
    "date": "eq ne lt le gt ge in not_in",
    "datetime": "eq ne lt le gt ge in not_in",
    "uuid": "eq ne in not_in",
}
ALL = ("eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "contains", "starts_with")


@pytest.mark.parametrize("type_", OPERATORS)
@pytest.mark.parametrize("op", ALL)
def test_each_operator_is_for_the_types_that_it_makes_sense_for(type_: str, op: str) -> None:
    shape = "true" if op in ("in", "not_in") else "false"
    text = (
        f'[attributes]\na = {{ type = "{type_}", list = {shape} }}\n'
        f'[tables.t]\nall = [{{ column = "c", op = "{op}", attribute = "a" }}]'
    )
    if op in OPERATORS[type_].split():
        assert RlsPolicy.from_toml(text).tables["t"].columns == {"c"}
    else:
        with pytest.raises(ConfigError, match=rf"tables\.t\.all\[0\]: {op} does not fit a") as raised:
            RlsPolicy.from_toml(text)
        assert ("order differs between databases" in str(raised.value)) == (
            type_ == "string" and op in ("lt", "le", "gt", "ge")
        )


ATTRIBUTE = '[attributes]\ncarrier = "string"\n'
RULE = '{ column = "carrier", op = "eq", attribute = "carrier" }'
MISTAKES: list[Any] = [
    ("no TOML", "tables = [", ["not TOML"]),
    ("a number that Python does not read", f"tables = {'9' * 5000}", ["not TOML"]),
    ("nothing", "", ["names no table"]),
    ("no tables", '[attributes]\na = "string"', ["names no table"]),
    (
        "a key of its own",
        "x = 1\n[tables.t]\nopen = true",
        ["the policy: does not know 'x'; it has attributes or tables"],
    ),
    ("a misspelt key", "[table.t]\nopen = true", ["does not know 'table'", "(did you mean tables?)"]),
    ("attributes that are no table", "attributes = 1\n[tables.t]\nopen = true", ["attributes: must be a table"]),
    ("tables that are no table", "tables = 1", ["tables: must be a table"]),
    (
        "an attribute of no type",
        "[attributes]\na = {}\n[tables.t]\nopen = true",
        ["attributes.a: type must be string, "],
    ),
    (
        "an attribute of an unknown type",
        '[attributes]\na = "text"\n[tables.t]\nopen = true',
        ["attributes.a: type must be"],
    ),
    (
        "an attribute of a misspelt type",
        '[attributes]\na = "strin"\n[tables.t]\nopen = true',
        ["(did you mean string?)"],
    ),
    (
        "an attribute that is a number",
        "[attributes]\na = 1\n[tables.t]\nopen = true",
        ["attributes.a: must be a table"],
    ),
    (
        "a type that is a number",
        "[attributes]\na = { type = 1 }\n[tables.t]\nopen = true",
        ["attributes.a: type must be"],
    ),
    (
        "an attribute with an unknown key",
        '[attributes]\na = { type = "string", lst = true }\n[tables.t]\nopen = true',
        ["attributes.a: does not know 'lst'; it has type, list or required (did you mean list?)"],
    ),
    (
        "a flag that is text",
        '[attributes]\na = { type = "string", list = "yes" }\n[tables.t]\nopen = true',
        ["attributes.a: list must be true or false"],
    ),
    (
        "an attribute with a strange name",
        '[attributes]\n"a b" = "string"\n[tables.t]\nopen = true',
        ["attributes.a b: an attribute's name has letters"],
    ),
    ("a table without rules", "[tables.t]\nwrite = true", ["tables.t: has no rules: add all or any"]),
    (
        "a rule without its list",
        '[attributes]\na = "string"\n[tables.t]\nwrite = true\nop = "eq"\ncolumn = "c"\nattribute = "a"',
        ["line 6, tables.t: a rule stands in a list: write all = [ { column = …, op = …, attribute = … } ]"],
    ),
    ("a table that is a number", "[tables]\nt = 1", ["tables.t: must be a table"]),
    ("a table without its quotes", "[tables.sales.flights]\nopen = true", ["tables.sales: does not know 'flights'"]),
    ("a table with two dots", '[tables."a.b.c"]\nopen = true', ['[tables."sales.flights"]']),
    ("a table with an empty schema", '[tables.".t"]\nopen = true', ["a table is named as in the database"]),
    ("a table with a line break", '[tables."a\\nb"]\nopen = true', ["a table is named as in the database"]),
    (
        "two tables that differ in case only",
        "[tables.t]\nopen = true\n[tables.T]\nopen = true",
        ["tables.T: differs from t in case only"],
    ),
    (
        "two names of one table on PostgreSQL",
        f'{ATTRIBUTE}[tables.flights]\nall = [{RULE}]\n[tables."public.flights"]\nopen = true',
        ["line 5, tables.public.flights: may be the same table as flights, which is looked for in that schema too"],
    ),
    (
        "two names of one table on SQLite, in another order",
        f'{ATTRIBUTE}[tables."main.flights"]\nopen = true\n[tables.Flights]\nall = [{RULE}]',
        ["line 3, tables.main.flights: may be the same table as Flights"],
    ),
    (
        "two names of one table of a connection's own on SQLite",
        f'{ATTRIBUTE}[tables.flights]\nall = [{RULE}]\n[tables."temp.flights"]\nopen = true',
        ["line 5, tables.temp.flights: may be the same table as flights"],
    ),
    (
        "two names of one table, of which one may be written",
        f'{ATTRIBUTE}[tables.flights]\nall = [{RULE}]\n[tables."public.flights"]\nall = [{RULE}]\nwrite = true',
        ["has other rules: keep one of the two, or write both alike"],
    ),
    (
        "open and rules",
        '[tables.t]\nopen = true\nall = [{ column = "c", op = "is_set" }]',
        ["tables.t: is open and has rules under all"],
    ),
    ("all and any side by side", "[tables.t]\nall = []\nany = []", ["tables.t: has both all and any"]),
    ("no rules in all", "[tables.t]\nall = []", ["tables.t.all: must be a list of at least one rule"]),
    ("no rules in any", "[tables.t]\nany = []", ["tables.t.any: must be a list of at least one rule"]),
    (
        "no rules in a nested all",
        "[tables.t]\nany = [{ all = [] }]",
        ["tables.t.any[0].all: must be a list of at least"],
    ),
    ("rules that are no list", "[tables.t]\nall = { column = 'c', op = 'is_set' }", ["tables.t.all: must be a list"]),
    ("a rule that is text", '[tables.t]\nall = ["c = 1"]', ["tables.t.all[0]: must be a table"]),
    (
        "a group with more in it",
        '[tables.t]\nall = [{ any = [], column = "c" }]',
        ["tables.t.all[0]: any stands alone"],
    ),
    (
        "a rule with an unknown key",
        '[tables.t]\nall = [{ column = "c", op = "is_set", value = 1 }]',
        ["tables.t.all[0]: does not know 'value'; it has column, op or attribute"],
    ),
    ("a rule without a column", '[tables.t]\nall = [{ op = "is_set" }]', ["tables.t.all[0]: column must be the name"]),
    (
        "an empty column",
        '[tables.t]\nall = [{ column = "", op = "is_set" }]',
        ["tables.t.all[0]: column must be the name"],
    ),
    (
        "a column with a space around it",
        '[tables.t]\nall = [{ column = "c ", op = "is_set" }]',
        ["column must be the name"],
    ),
    ("a rule without an operator", '[tables.t]\nall = [{ column = "c" }]', ["tables.t.all[0]: op must be eq, ne, "]),
    ("an unknown operator", '[tables.t]\nall = [{ column = "c", op = "=", attribute = "a" }]', ["[0]: op must be eq"]),
    ("a misspelt operator", '[tables.t]\nall = [{ column = "c", op = "not in" }]', ["(did you mean not_in?)"]),
    (
        "an operator that is a list",
        '[tables.t]\nall = [{ column = "c", op = ["eq"] }]',
        ["tables.t.all[0]: op must be"],
    ),
    (
        "an operator without its attribute",
        '[tables.t]\nall = [{ column = "c", op = "eq" }]',
        ["tables.t.all[0]: attribute must be the name of an attribute that eq compares with"],
    ),
    (
        "an attribute that is not declared",
        '[tables.t]\nall = [{ column = "c", op = "eq", attribute = "a" }]',
        ["tables.t.all[0]: the attribute 'a' is not declared: declare it"],
    ),
    (
        "an attribute that is misspelt",
        '[attributes]\ncarrier = "string"\n[tables.t]\nall = [{ column = "c", op = "eq", attribute = "carier" }]',
        ["(did you mean carrier?)"],
    ),
    (
        "an attribute where none belongs",
        '[attributes]\na = "string"\n[tables.t]\nall = [{ column = "c", op = "is_set", attribute = "a" }]',
        ["[0]: is_set looks at the column alone"],
    ),
    (
        "a list where one value belongs",
        (
            '[attributes]\na = { type = "string", list = true }\n[tables.t]\n'
            'all = [{ column = "c", op = "eq", attribute = "a" }]'
        ),
        ["eq compares with one value", "use in or not_in"],
    ),
    (
        "one value where a list belongs",
        '[attributes]\na = "string"\n[tables.t]\nall = [{ column = "c", op = "in", attribute = "a" }]',
        ["in compares with a list", "declare it with list = true"],
    ),
    ("columns that are a list", '[tables.t]\nopen = true\ncolumns = ["a"]', ["tables.t.columns: must be a table"]),
    (
        "columns that hide",
        '[tables.t]\nopen = true\ncolumns = { hide = ["a"] }',
        ["tables.t.columns: does not know 'hide'", "show must be a list"],
    ),
    ("columns that show nothing", "[tables.t]\nopen = true\ncolumns = { show = [] }", ["show must be a list"]),
    ("columns that are numbers", "[tables.t]\nopen = true\ncolumns = { show = [1] }", ["show must be a list"]),
    ("columns with a blank", '[tables.t]\nopen = true\ncolumns = { show = ["a "] }', ["show must be a list"]),
    ("columns with a line end", '[tables.t]\nopen = true\ncolumns = { show = ["a\\n"] }', ["show must be a list"]),
    (
        "a column in quotes",
        """[tables.t]\nall = [ { column = '"a"', op = "is_set" } ]""",
        ["tables.t.all[0]: column must be the name of a column, without blanks or quotes around it"],
    ),
    ("a table in quotes", "[tables.'`t`']\nopen = true", ["a table is named as in the database"]),
    (
        "a table of the connection's own",
        '[tables.t]\nall = [ { column = "a", op = "is_set" } ]\n[tables."pg_temp.t"]\nopen = true',
        ["tables.pg_temp.t: may be the same table as t"],
    ),
    ("a column twice", '[tables.t]\nopen = true\ncolumns = { show = ["a", "a"] }', ["show names a column twice"]),
]


@pytest.mark.parametrize(("text", "said"), [pytest.param(t, said, id=name) for name, t, said in MISTAKES])
def test_a_mistake_is_named_with_its_place(text: str, said: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        RlsPolicy.from_toml(text)
    for part in said:
        assert part in str(raised.value)


@pytest.mark.parametrize("key", ["op", "opn", "opened", "al", "colum"])
def test_no_typing_mistake_is_answered_with_the_advice_to_open_a_table(key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        RlsPolicy.from_toml(f"[tables.t]\n{key} = true")
    assert "mean open" not in str(raised.value)
    assert "open = true" not in str(raised.value)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        RlsPolicy.from_toml(
            'x = 1\n[attributes]\na = "strin"\nb = { type = "string", lst = true }\n[tables.f]\n'
            'all = [{ column = "c", op = "lt", attribute = "a" }, { column = "d", op = "eq", attribute = "q" }]\n'
            "[tables.g]\n"
        )
    # The rule that uses the broken attribute is not held against the author a second time.
    assert [problem.split(": ")[0] for problem in raised.value.problems] == [
        "line 1, the policy",
        "line 3, attributes.a",
        "line 4, attributes.b",
        "line 6, tables.f.all[1]",
        "line 7, tables.g",
    ]


@pytest.mark.parametrize(
    "name",
    ['screen 15"', "`a", 'a"b', "Umsatz\u00a0EUR", "\u65e5\u672c", "How satisfied are you? " * 9 + "."],
    ids=["inches", "a quote in front", "a quote inside", "a blank inside", "not ASCII", "a question"],
)
def test_a_column_is_shown_by_whatever_name_it_has(name: str) -> None:
    policy = RlsPolicy.from_json(json.dumps({"tables": {"t": {"open": True, "columns": {"show": [name]}}}}))
    assert policy.tables["t"].show == {name}


@pytest.mark.parametrize("name", ['screen 15"', "`a", 'a"b', "t.a"])
def test_a_rule_names_a_column_with_a_quote_or_a_dot_in_it(name: str) -> None:
    rules = {"all": [{"column": name, "op": "is_set"}]}
    assert RlsPolicy.from_json(json.dumps({"tables": {"t": rules}})).tables["t"].columns == {name}


def test_a_mistake_in_json_is_named_with_its_line_too() -> None:
    with pytest.raises(ConfigError) as raised:
        RlsPolicy.from_json(
            '{"tables": {\n  "t": {"any": [\n    {"column": "c", "op": "is_set"},\n    {"op": "eq"}]}}}'
        )
    assert (
        raised.value.problems[0]
        == "line 4, tables.t.any[1]: column must be the name of a column, without blanks or quotes around it"
    )


def test_the_short_form_has_no_lines() -> None:
    with pytest.raises(ConfigError) as raised:
        RlsPolicy.from_columns("T.a=x,t.a=x")
    assert raised.value.problems[0].startswith("tables.t: differs from T in case only")


def test_a_policy_may_name_its_schema() -> None:
    policy = RlsPolicy.from_json('{"$schema": "policy.schema.json", "tables": {"t": {"open": true}}}')
    assert policy == RlsPolicy.from_toml("[tables.t]\nopen = true")


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param(f'[tables.flights]\nall = [{RULE}]\n[tables."public.flights"]\nall = [{RULE}]', id="both alike"),
        pytest.param(f'[tables.flights]\nall = [{RULE}]\n[tables."old.flights"]\nopen = true', id="another schema"),
        pytest.param('[tables."public.flights"]\nopen = true', id="one name alone"),
        pytest.param(f'[tables.fares]\nopen = true\n[tables."public.flights"]\nall = [{RULE}]', id="another table"),
        pytest.param(f'[tables.public]\nopen = true\n[tables."public.flights"]\nall = [{RULE}]', id="named public"),
    ],
)
def test_tables_of_several_schemas_may_be_named(tables: str) -> None:
    assert len(RlsPolicy.from_toml(ATTRIBUTE + tables).tables) in (1, 2)


def test_a_table_with_a_mistake_is_not_held_against_another_name_of_it() -> None:
    with pytest.raises(ConfigError) as raised:
        RlsPolicy.from_toml(f'{ATTRIBUTE}[tables.flights]\nall = [{RULE}]\n[tables."public.flights"]\nal = [{RULE}]')
    assert not [problem for problem in raised.value.problems if "the same table" in problem]


def test_rules_that_are_nested_without_end_are_a_mistake() -> None:
    deep = '{ column = "c", op = "is_set" }'
    for _ in range(40):
        deep = f"{{ all = [{deep}] }}"
    with pytest.raises(ConfigError, match="nested more than 32 deep"):
        RlsPolicy.from_toml(f"[tables.t]\nall = [{deep}]")
    with pytest.raises(ConfigError, match="nested too deep"):
        RlsPolicy.from_toml("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="nested too deep"):
        RlsPolicy.from_json("[" * 1_000_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{", "not JSON", id="no JSON"),
        pytest.param("[]", "must be an object", id="a list"),
        pytest.param("null", "must be an object", id="null"),
        pytest.param('{"tables": {"t": {"open": true}, "t": {"open": true}}}', "given twice", id="a name twice"),
        pytest.param('{"tables": {"t": {"open": NaN}}}', "NaN is not JSON", id="not a number"),
    ],
)
def test_a_mistake_in_json_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RlsPolicy.from_json(text)


# The shorthand


@pytest.mark.parametrize(
    "columns",
    [
        pytest.param("flights.carrier=carrier,flights.origin=airports", id="text"),
        pytest.param(" flights.carrier = carrier , flights.origin=airports ", id="text with spaces"),
        pytest.param(["flights.carrier=carrier", "flights.origin=airports"], id="list"),
        pytest.param(("flights.carrier=carrier", "flights.origin=airports"), id="tuple"),
        pytest.param({"flights.carrier": "carrier", "flights.origin": "airports"}, id="mapping"),
    ],
)
def test_the_shorthand_wants_every_column_to_match(columns: Any) -> None:
    policy = RlsPolicy.from_columns(columns)
    row_filter = policy.row_filter({"carrier": "AA", "airports": ["JFK", "LGA"]})
    assert isinstance(row_filter, RowFilter)
    assert row_filter.matches("flights", {"carrier": "AA", "origin": "LGA"})
    assert not row_filter.matches("flights", {"carrier": "AA", "origin": "EWR"})
    assert not row_filter.matches("flights", {"carrier": "UA", "origin": "LGA"})
    assert not row_filter.matches("planes", {"carrier": "AA", "origin": "LGA"})
    assert policy == RlsPolicy.from_columns("flights.carrier=carrier,flights.origin=airports")


def test_the_shorthand_knows_schemas() -> None:
    policy = RlsPolicy.from_columns("sales.flights.carrier=carrier")
    assert policy.tables["sales.flights"].columns == {"carrier"}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        pytest.param("", "write table.column=attribute", id="nothing"),
        pytest.param([], "names no table", id="an empty list"),
        pytest.param("flights.carrier", "'flights.carrier': write", id="no attribute"),
        pytest.param("flights.carrier=", "'flights.carrier=': write", id="an empty attribute"),
        pytest.param("carrier=carrier", "'carrier=carrier': write", id="no table"),
        pytest.param(".carrier=carrier", "write table.column", id="an empty table"),
        pytest.param("flights.=carrier", "write table.column", id="an empty column"),
        pytest.param("flights.carrier=a b", "write table.column", id="a strange attribute"),
        pytest.param('"sales.flights".carrier=carrier', "write table.column", id="a table in quotes"),
        pytest.param('flights."carrier"=carrier', "write table.column", id="a column in quotes"),
        pytest.param("flights.carrier==carrier", "write table.column", id="two equals signs"),
        pytest.param("flights.carrier=carrier,", "'': write", id="a comma too many"),
        pytest.param("f.c=a,f.c=a", "'f.c=a': is given twice", id="a column twice"),
        pytest.param("f.c=a,F.c=a", "differs from f in case only", id="tables that differ in case"),
        pytest.param("f.c=a,public.f.d=a", "public.f: may be the same table as f", id="two names of a table"),
        pytest.param(b"f.c=a", "must be text, a mapping or a list", id="bytes"),
        pytest.param(None, "must be text, a mapping or a list", id="None"),
        pytest.param({"f.c": 1}, "'f.c=1': write", id="a number as attribute"),
        pytest.param("f." + "x" * 200 + "=a", "write table.column", id="a very long column"),
    ],
)
def test_a_mistake_in_the_shorthand_is_named(columns: Any, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        RlsPolicy.from_columns(columns)
    assert said in str(raised.value)


# The door

DOOR: list[Any] = [
    ("no claims", None, Reason.RLS_MISSING),
    ("an empty list, which others read as every row", [], Reason.RLS_MISSING),
    ("text", "carrier", Reason.RLS_MISSING),
    ("an empty object", {}, Reason.RLS_ATTRIBUTE_MISSING),
    ("one attribute of two", {"carrier": "AA"}, Reason.RLS_ATTRIBUTE_MISSING),
    ("null", {"carrier": None, "airports": ["JFK"]}, Reason.RLS_ATTRIBUTE_MISSING),
    ("an unknown attribute", {"carrier": "AA", "airports": ["JFK"], "x": 1}, Reason.RLS_ATTRIBUTE_UNKNOWN),
    ("an unknown attribute that is null", {"carrier": "AA", "airports": [], "x": None}, Reason.RLS_ATTRIBUTE_UNKNOWN),
    ("a misspelt attribute", {"carrier": "AA", "airports": [], "max_dely": 1}, Reason.RLS_ATTRIBUTE_UNKNOWN),
    ("an attribute in other case", {"Carrier": "AA", "airports": []}, Reason.RLS_ATTRIBUTE_UNKNOWN),
    ("an attribute that is no text", {1: "AA", "carrier": "AA", "airports": []}, Reason.RLS_ATTRIBUTE_UNKNOWN),
    ("a number for a string", {"carrier": 1, "airports": ["JFK"]}, Reason.RLS_ATTRIBUTE_INVALID),
    ("a list for a string", {"carrier": ["AA"], "airports": ["JFK"]}, Reason.RLS_ATTRIBUTE_INVALID),
    ("an object for a string", {"carrier": {"eq": "AA"}, "airports": ["JFK"]}, Reason.RLS_ATTRIBUTE_INVALID),
    ("a string for a list", {"carrier": "AA", "airports": "JFK"}, Reason.RLS_ATTRIBUTE_INVALID),
    ("a list with null", {"carrier": "AA", "airports": ["JFK", None]}, Reason.RLS_ATTRIBUTE_INVALID),
    ("a list with a number", {"carrier": "AA", "airports": ["JFK", 1]}, Reason.RLS_ATTRIBUTE_INVALID),
    ("a list in a list", {"carrier": "AA", "airports": [["JFK"]]}, Reason.RLS_ATTRIBUTE_INVALID),
    (
        "an optional attribute of another type",
        {"carrier": "AA", "airports": [], "max_delay": "5"},
        Reason.RLS_ATTRIBUTE_INVALID,
    ),
    ("everything", {"carrier": "AA", "airports": ["JFK"], "max_delay": 5}, None),
    ("without the optional attribute", {"carrier": "AA", "airports": ["JFK"]}, None),
    ("with the optional attribute as null", {"carrier": "AA", "airports": ["JFK"], "max_delay": None}, None),
    ("an empty list, which opens no row", {"carrier": "AA", "airports": []}, None),
    ("a tuple", {"carrier": "AA", "airports": ("JFK",)}, None),
]


@pytest.mark.parametrize(("claims", "reason"), [pytest.param(c, reason, id=name) for name, c, reason in DOOR])
def test_the_door_refuses_what_the_policy_does_not_expect(claims: Any, reason: Reason | None) -> None:
    policy = RlsPolicy.from_toml(EXAMPLE)
    decided = policy.row_filter(claims, issuer="https://host.example", tenant="AA")
    if reason is None:
        assert isinstance(decided, RowFilter)
        assert policy.problems(claims) == ()
    else:
        assert isinstance(decided, Deny)
        assert decided.reason is reason
        assert decided.detail
        assert "JFK" not in decided.detail
        assert "AA" not in decided.detail
        assert policy.problems(claims)


def test_minting_hears_of_every_mistake() -> None:
    assert RlsPolicy.from_toml(EXAMPLE).problems({"carier": "AA", "airports": "JFK", "max_delay": "soon"}) == (
        "rls has the attribute 'carier', not the policy (did you mean carrier?)",
        "the attribute carrier is missing: it must be a string",
        "the attribute airports must be a list, each item a string",
        "the attribute max_delay must be an integer",
    )
    assert policy_of("open = true").problems({"zzzzzz": 1})[0].endswith("(it has s, l, i, b, d or u)")
    assert RlsPolicy.from_json('{"tables": {"t": {"open": true}}}').problems({"x": 1})[0].endswith("(it has none)")
    long = "x" * 100
    assert long not in str(policy_of("open = true").problems({long: 1}))


VALUES: list[Any] = [
    ("string", "AA", "AA"),
    ("string", "", ""),
    ("string", "ü\U0001f985\n", "ü\U0001f985\n"),
    ("string", "a\x00b", None),
    ("string", "\ud800", None),
    ("string", b"AA", None),
    ("integer", 5, 5),
    ("integer", -(2**63), -(2**63)),
    ("integer", 2**63, None),
    ("integer", 10**400, None),
    ("integer", True, None),
    ("integer", 5.0, None),
    ("integer", "5", None),
    ("number", 5, 5),
    ("number", 0.5, 0.5),
    ("number", 2**53, 2**53),
    ("number", 2**53 + 1, None),
    ("number", float("nan"), None),
    ("number", float("inf"), None),
    ("number", False, None),
    ("number", "5", None),
    ("boolean", False, False),
    ("boolean", 0, None),
    ("boolean", "true", None),
    ("date", "2013-02-28", date(2013, 2, 28)),
    ("date", date(2013, 2, 28), date(2013, 2, 28)),
    ("date", datetime(2013, 2, 28), None),
    ("date", "2013-02-29", None),
    ("date", "20130228", None),
    ("date", "2013-W09-4", None),
    ("date", "2013-02-28T00:00", None),
    ("date", "٢٠١٣-02-28", None),
    ("date", 20130228, None),
    ("datetime", "2013-02-28T12:00:00Z", "2013-02-28T12:00:00+00:00"),
    ("datetime", "2013-02-28T12:00:00+02:00", "2013-02-28T10:00:00+00:00"),
    ("datetime", "2013-02-28 12:00:00.5", "2013-02-28T12:00:00.500000+00:00"),
    ("datetime", "2013-02-28T12:00", "2013-02-28T12:00:00+00:00"),
    ("datetime", datetime(2013, 2, 28, 12), "2013-02-28T12:00:00+00:00"),
    ("datetime", "0001-01-01T00:00:00+02:00", None),
    ("datetime", "2013-02-28T25:00:00Z", None),
    ("datetime", "2013-02-28", None),
    ("datetime", "2013-02-28T12", None),
    ("datetime", date(2013, 2, 28), None),
    ("datetime", 1362052800, None),
    ("uuid", "12345678-1234-5678-1234-567812345678", UUID("12345678123456781234567812345678")),
    ("uuid", "ABCDEF78-1234-5678-1234-567812345678", UUID("abcdef78123456781234567812345678")),
    ("uuid", UUID(int=5), UUID(int=5)),
    ("uuid", "12345678123456781234567812345678", None),
    ("uuid", "{12345678-1234-5678-1234-567812345678}", None),
    ("uuid", "urn:uuid:12345678-1234-5678-1234-567812345678", None),
    ("uuid", 5, None),
]


@pytest.mark.parametrize(("type_", "claim", "value"), VALUES)
def test_a_value_is_of_its_type_or_refused(type_: str, claim: object, value: object) -> None:
    policy = RlsPolicy.from_toml(
        f'[attributes]\na = "{type_}"\nb = {{ type = "{type_}", list = true, required = false }}\n'
        "[tables.t]\nopen = true"
    )
    decided = policy.row_filter({"a": claim})
    many = policy.row_filter({"a": claim, "b": [claim, claim]})
    if value is None:
        assert isinstance(decided, Deny)
        assert isinstance(many, Deny)
        assert RowFilter(policy, {"a": claim, "b": [claim]}).attributes == {}
    else:
        assert isinstance(decided, RowFilter)
        read = decided.attributes["a"]
        assert (read.isoformat() if isinstance(read, datetime) else read) == value
        assert type(read) is not bool or type_ == "boolean"
        assert isinstance(many, RowFilter)
        assert many.attributes["b"] == (read,)


def test_the_shorthand_takes_one_text_or_many() -> None:
    policy = RlsPolicy.from_columns("flights.carrier=carrier")
    for claim, read in [("AA", ("AA",)), (["AA", "UA"], ("AA", "UA")), ([], ())]:
        decided = policy.row_filter({"carrier": claim})
        assert isinstance(decided, RowFilter)
        assert decided.attributes["carrier"] == read
    for wrong in (1, None, [1], [["AA"]], {"AA": 1}):
        assert isinstance(policy.row_filter({"carrier": wrong}), Deny)
    assert policy.problems({"carrier": 1}) == ("the attribute carrier must be a string or a list, each item a string",)
